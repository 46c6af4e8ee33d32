// SPDX-License-Identifier: MIT
// Vectors of texts: pooling by hand, lengths of one, gradients, batches of unequal length, threads,
// memory, and what is refused.

#include "support/encoders.hpp"
#include "support/heap.hpp"
#include "support/scoring.hpp"

namespace test::embedder_test {

namespace {

using M = ln::encoder<tiny_encoder_shape, ln::head::pooler>;
constexpr index d = M::d;

/// A batch without labels.
ln::encoder_batch texts(const encoder_tokens& data) {
  ln::encoder_batch b = data.view();
  b.labels = nullptr;
  return b;
}

/// An encoder behind another name, with no member that embedders do not ask for.
struct stranger : ln::model_defaults {
  using storage = M::storage;
  using batch = ln::encoder_batch;
  template <class>
  using with_storage = stranger;
  static constexpr index vocabulary = 1, d = M::d;
  template <class Form>
  using params = M::params<Form>;
  template <class T>
  using workspace = M::workspace<T>;

  template <class F, class... P>
  static constexpr void visit(F&& f, const ln::parameter_path& at, P&... p) {
    M::visit(f, at, p...);
  }
  template <class T>
  static constexpr workspace<T> plan(ln::planner& m, const ln::limits& l, ln::purpose use) {
    return M::plan<T>(m, l, use);
  }
  static ln::refusal refuses_texts(const batch& b, const ln::limits& l) {
    return M::refuses_texts(b, l);
  }
  template <class T>
  static ln::context<T> context_of(const batch& b, const ln::ops::execution& on) {
    return M::context_of<T>(b, on);
  }
  template <class T, class S>
  static void forward(const params<ln::form::packed<T, S>>& p, const batch& b, workspace<T>& w,
                      ln::context<T>& ctx) {
    M::forward<T, S>(p, b, w, ctx);
  }
  static constexpr index flops(index batch_size, index length) {
    return M::flops(batch_size, length);
  }
};
static_assert(ln::embedding_model<stranger> && ln::embedding_model<M, double> &&
              !ln::language_model<stranger> &&
              !ln::embedding_model<ln::decoder<tiny_decoder_shape>>);

}  // namespace

BOOST_AUTO_TEST_SUITE(embedders)

BOOST_AUTO_TEST_CASE(pooling_by_hand) {
  const auto p = random_packed<M, double>();
  const auto data = encoder_data<M>(3, 6);
  auto run = ln::embedder<M, double>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(run));
  const auto states = run->hidden(texts(data));
  const std::vector<double> hidden(states.begin(), states.end());
  for (const auto how :
       {ln::sentence_pooling::mean, ln::sentence_pooling::first, ln::sentence_pooling::max})
    for (const bool normalize : {false, true}) {
      const auto got = run->embed(texts(data), how, normalize);
      BOOST_REQUIRE_EQUAL(std::ssize(got), data.batch * d);
      for (index b = 0; b < data.batch; ++b) {
        std::vector<double> want(at(d));
        for (index j = 0; j < d; ++j) {
          const auto value = [&](index t) { return hidden[at((b * data.length + t) * d + j)]; };
          double sum = 0, largest = value(0);
          for (index t = 0; t < data.lengths[at(b)]; ++t) {
            sum += value(t);
            largest = (std::max)(largest, value(t));
          }
          want[at(j)] = how == ln::sentence_pooling::mean
                            ? sum / static_cast<double>(data.lengths[at(b)])
                        : how == ln::sentence_pooling::max ? largest
                                                           : value(0);
        }
        double length = 0;
        for (const double v : want) length += v * v;
        if (normalize)
          for (double& v : want) v /= std::sqrt(length);
        BOOST_TEST(distance(got.subspan(at(b * d), at(d)), want) < 1e-12);
      }
    }
}

// The pooler is tanh of a linear map of the first token.
BOOST_AUTO_TEST_CASE(pooler) {
  ln::weights<M, double> w;
  randomize(w);
  const auto p = ln::pack(w);
  const auto data = encoder_data<M>(2, 6);
  auto run = ln::embedder<M, double>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(run));
  const auto states = run->hidden(texts(data));
  const std::vector<double> hidden(states.begin(), states.end());
  const double *weight = nullptr, *bias = nullptr;
  w.visit([&](const ln::parameter_path& path, const ln::tensor_info&, const auto& leaf) {
    if (path.str() == "pooler.weight") weight = values_of(leaf);
    if (path.str() == "pooler.bias") bias = values_of(leaf);
  });
  BOOST_REQUIRE(weight != nullptr);
  const auto pooled = run->pooled(texts(data));
  for (index b = 0; b < data.batch; ++b)
    for (index i = 0; i < d; ++i) {
      double sum = bias[i];
      for (index j = 0; j < d; ++j) sum += weight[i * d + j] * hidden[at(b * data.length * d + j)];
      BOOST_TEST(distance_of(pooled[at(b * d + i)], std::tanh(sum)) < 1e-12);
    }
}

// Backward of both operations by central differences.
BOOST_AUTO_TEST_CASE(gradients) {
  constexpr index batch = 2, length = 4, width = 5;
  const index lengths[] = {4, 2};
  const ln::ops::execution on{{}, ln::simd::level::portable};
  for (const auto how :
       {ln::sentence_pooling::mean, ln::sentence_pooling::first, ln::sentence_pooling::max}) {
    auto x = normal<double>(batch * length * width, 1);
    const auto dy = normal<double>(batch * width, 2);
    std::vector<double> y(at(batch * width)), sizes(at(batch)), dx(x.size(), 0.5);
    const auto loss = [&] {
      ln::ops::pool_rows(on, how, {batch, length, lengths, width}, x.data(), y.data());
      ln::ops::unit_length(on, batch, width, y.data(), sizes.data());
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
      return sum;
    };
    (void)loss();
    auto slope = dy;
    ln::ops::unit_length_backward(on, batch, width, y.data(), sizes.data(), slope.data());
    ln::ops::pool_rows_backward(on, how, {batch, length, lengths, width}, x.data(), slope.data(),
                                dx.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double kept = x[i];
      x[i] = kept + 1e-6;
      const double up = loss();
      x[i] = kept - 1e-6;
      const double down = loss();
      x[i] = kept;
      BOOST_TEST(distance_of(dx[i] - 0.5, (up - down) / 2e-6) < 1e-8);
    }
  }
}

BOOST_AUTO_TEST_CASE(batches_threads_and_memory) {
  const auto p = random_packed<M, float>();
  const auto data = encoder_data<M>(3, 6);
  auto run = ln::embedder<M>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(run));
  const auto first = run->embed(texts(data));
  const std::vector<float> whole(first.begin(), first.end());
  for (index b = 0; b < data.batch; ++b)
    BOOST_TEST(distance(run->embed(data.alone(b)), std::span(whole).subspan(at(b * d), at(d))) <=
               same_result<float>);
  for (const int n : {2, 3}) {
    auto l = data.limits(n);
    l.run_on = std_threads();
    auto more = ln::embedder<M>::open(p, l);
    BOOST_REQUIRE(static_cast<bool>(more));
    BOOST_TEST(same_bits(more->embed(texts(data)), whole));
    index layers = 0;
    (void)more->hidden(texts(data), [&](index layer, std::span<const float> x) {
      BOOST_TEST(layer == layers++);
      BOOST_TEST(std::ssize(x) == data.batch * data.length * d);
    });
    BOOST_TEST(layers == M::shape.layers + 1);
  }
  BOOST_TEST(heap_use_of([&] {
               (void)run->embed(texts(data)), (void)run->pooled(texts(data));
             }).calls == 0);
  const index planned = ln::embedder<M>::footprint(data.limits());
  const auto use = heap_use_of([&] { (void)ln::embedder<M>::open(p, data.limits()); });
  BOOST_TEST(use.bytes >= planned);
  BOOST_TEST(use.bytes <= planned + 2 * ln::alignment);
}

// What an embedder does not compute takes no memory.
BOOST_AUTO_TEST_CASE(no_room_for_logits) {
  using whole = ln::zoo::bert_base;
  constexpr ln::limits l{.batch = 1, .target = 8};
  constexpr index logits = ln::ops::head_rows(whole::vocabulary) * whole::vocabulary;
  static_assert(ln::embedder<whole>::footprint(l) + logits / 2 * index{sizeof(float)} <
                ln::evaluator<whole>::footprint(l));
  const auto p = random_packed<ln::encoder<tiny_encoder_shape>, float>();
  const auto data = encoder_data<M>(3, 6);
  auto run = ln::embedder<ln::encoder<tiny_encoder_shape>>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(run));
  BOOST_TEST(magnitude(run->embed(texts(data))) <= 1.0);
}

BOOST_AUTO_TEST_CASE(a_model_from_outside) {
  const auto p = random_packed<M, float>();
  const auto q = random_packed<stranger, float>();
  const auto data = encoder_data<M>(3, 6);
  auto want = ln::embedder<M>::open(p, data.limits());
  auto got = ln::embedder<stranger>::open(q, data.limits());
  BOOST_REQUIRE((want && got));
  BOOST_TEST(same_bits(got->embed(texts(data)), want->embed(texts(data))));
  BOOST_TEST(same_bits(got->hidden(texts(data)), want->hidden(texts(data))));
  BOOST_TEST(got->hidden({}).empty());
  BOOST_TEST(got->last_refusal() == ln::to_string(ln::refusal::batch_below_one));
}

BOOST_AUTO_TEST_CASE(refused) {
  const auto p = random_packed<M, float>();
  const auto data = encoder_data<M>(3, 6);
  auto run = ln::embedder<M>::open(p, {.batch = 2, .target = 6});
  BOOST_REQUIRE(static_cast<bool>(run));
  BOOST_TEST(run->embed(texts(data)).empty());
  BOOST_TEST(run->last_refusal() == ln::to_string(ln::refusal::batch_over_limit));
  ln::encoder_batch b = texts(data);
  b.batch = 2;
  BOOST_TEST(!run->embed(b).empty());
  BOOST_TEST(run->last_refusal() == "");
  b.tokens = nullptr;
  BOOST_TEST(run->hidden(b).empty());
  BOOST_TEST(run->pooled(b).empty());
  BOOST_TEST(run->last_refusal() == ln::to_string(ln::refusal::null_tokens));
  const auto wrong = ln::embedder<M>::open(p, {.target = 33});
  BOOST_REQUIRE(!wrong);
  BOOST_TEST(
      wrong.error().message() ==
      "embedder::open: limits.target: expected no more than 32, the model's context, got 33");
  auto moved = std::move(*run);
  BOOST_TEST(run->embed(b).empty());
  BOOST_TEST(run->last_refusal() == ln::to_string(ln::refusal::not_valid));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::embedder_test
