// SPDX-License-Identifier: MIT
// Whole encoders: every parameter by central differences, with padding and without.

#include "support/encoders.hpp"
#include "support/scoring.hpp"

namespace test::encoder_gradient_test {

namespace {

constexpr ln::encoder_shape without_types = [] {
  ln::encoder_shape s = tiny_encoder_shape;
  s.types = 0;
  return s;
}();

/// Every parameter, without dropout and with.
template <class M>
void check(double dropout = 0.25) {
  auto data = encoder_data<M>();
  check_model<M>(data);
  check_model<M>(data, dropout);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(encoder_gradients)

// The branch with its norm behind the sum, also with dropout, and with padding.
BOOST_AUTO_TEST_CASE(post_norm_branch) {
  using norm = ln::norm::layer_norm::layer<5, 1e-2>;
  using linear = ln::post_norm_residual<norm, ln::linear<5, 5, true>>;
  using act =
      ln::post_norm_residual<norm,
                             ln::activated_linear<5, 5, ln::activation_kind::gelu, true, false>>;
  check_layer<linear>();
  check_layer<linear>({.dropout = 0.3});
  check_layer<act>({.lengths = {5, 3}, .dropout = 0.3});
}

BOOST_AUTO_TEST_CASE(post_norm) { check<ln::encoder<tiny_encoder_shape>>(); }
// Without types, without biases and with a head of its own.
BOOST_AUTO_TEST_CASE(pre_norm) {
  check<ln::encoder<without_types, ln::norm_placement::pre, ln::bias::none, ln::tie::untied,
                    ln::norm::rms, ln::position::sinusoidal>>();
}
BOOST_AUTO_TEST_CASE(sequence_classes) {
  check<ln::encoder<tiny_encoder_shape, ln::head::sequence_classification<3>>>();
}
BOOST_AUTO_TEST_CASE(token_classes) {
  check<ln::encoder<tiny_encoder_shape, ln::head::token_classification<4>,
                    ln::norm_placement::pre>>();
}
// One block for all layers behind a narrow embedding, as in ALBERT.
BOOST_AUTO_TEST_CASE(shared_and_factorised) {
  check<ln::encoder<tiny_encoder_shape, ln::sharing::all, ln::embedding::factorised<4>,
                    ln::ffn::gelu_tanh>>();
}

// Vectors of whole texts: through the pooling, the length of one and all parameters.
BOOST_AUTO_TEST_CASE(embeddings) {
  using M = ln::encoder<tiny_encoder_shape, ln::head::none>;
  using S = ln::storage::f64;
  const auto data = encoder_data<M>();
  ln::encoder_batch b = data.view();
  b.labels = nullptr;
  ln::weights<M, double> w;
  randomize(w);
  ln::packed<M, double> p;
  ln::detail::attach_rows<M>(w, p);
  const ln::memory_block memory(
      ln::detail::plan_for<M, double>(data.limits(), ln::purpose::training).total());
  auto work =
      ln::detail::place_workspace<M, double>(data.limits(), ln::purpose::training, memory.data())
          .work;
  const ln::ops::execution on{ln::team{}, ln::simd::best()};
  const index size = b.batch * M::d;
  const auto slopes = normal<double>(size, 9);
  std::vector<double> vectors(at(size)), lengths(at(b.batch));
  for (const auto how : {ln::sentence_pooling::mean, ln::sentence_pooling::max}) {
    const auto loss = [&] {
      ln::detail::pack_into(on, w, p);
      auto ctx = M::context_of<double>(b, on);
      M::forward<double, S>(p.tree(), b, work, ctx);
      ln::ops::pool_rows(on, how, {b.batch, b.length, b.lengths, M::d}, work.hidden,
                         vectors.data());
      ln::ops::unit_length(on, b.batch, M::d, vectors.data(), lengths.data());
      double sum = 0;
      for (index i = 0; i < size; ++i) sum += vectors[at(i)] * slopes[at(i)];
      return sum;
    };
    (void)loss();
    auto dy = slopes;
    ln::gradients<M, double> g;
    auto ctx = M::context_of<double>(b, on);
    ln::ops::unit_length_backward(on, b.batch, M::d, vectors.data(), lengths.data(), dy.data());
    std::fill_n(work.d_hidden, b.batch * b.length * M::d, 0.0);
    ln::ops::pool_rows_backward(on, how, {b.batch, b.length, b.lengths, M::d}, work.hidden,
                                dy.data(), work.d_hidden);
    M::backward<double, S>(p.tree(), g.tree(), b, work, ctx);
    ln::gradient_report r;
    ln::detail::compare_parameters(w, g, 1e-5, r, loss);
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(r.entries == M::parameters());
  }
}

// A teacher's logits instead of labels alone, as DistilBERT was trained.
BOOST_AUTO_TEST_CASE(distilled) {
  using student = ln::encoder<tiny_encoder_shape>;
  using teacher = ln::encoder<tiny_encoder_shape, ln::norm_placement::pre, ln::ffn::relu>;
  const auto data = encoder_data<student>();
  const auto p = random_packed<teacher, double>(5);
  const auto from =
      ln::distillation<ln::packed<student, double>, ln::packed<teacher, double>>::open(
          p, data.limits(), {.alpha = 0.3, .temperature = 2});
  BOOST_REQUIRE(static_cast<bool>(from));
  ln::weights<student, double> w;
  randomize(w);
  const auto r = ln::check_model_gradients(w, data.view(), data.limits(), {}, 1e-5, 0, *from);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == student::parameters());
}

// Batches without types, and without lengths.
BOOST_AUTO_TEST_CASE(batches_that_leave_things_out) {
  using M = ln::encoder<tiny_encoder_shape>;
  ln::weights<M, double> w;
  randomize(w);
  const encoder_tokens data(1, 6, M::vocabulary, M::vocabulary, false);
  ln::encoder_batch b = data.view();
  b.types = nullptr;
  b.lengths = nullptr;
  const auto r = ln::check_model_gradients(w, b, data.limits());
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == M::parameters());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encoder_gradient_test
