// SPDX-License-Identifier: MIT
// Sums of gradients and of their squares, against a trainer's gradients sample by sample and
// against differences of the loss.

#include <linnet/compression.hpp>
#include <map>

#include "support/encoders.hpp"
#include "support/heap.hpp"

namespace test::sensitivities_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;

/// Calls f(name, tensor_info, gradient_sums) for each tensor.
template <class M, class F>
void each(const ln::gradient_statistics<M>& s, F&& f) {
  index ordinal = 0;
  ln::each_tensor<M>([&](const ln::parameter_path& path, const ln::tensor_info& info) {
    f(path.str(), info, s.of(ordinal++));
  });
}
/// Every sum of two has the same bits.
template <class M>
void check_same(const ln::gradient_statistics<M>& a, const ln::gradient_statistics<M>& b) {
  BOOST_TEST(a.samples() == b.samples());
  BOOST_TEST(a.batches() == b.batches());
  BOOST_TEST(a.loss().nats == b.loss().nats);
  index ordinal = 0;
  each(a, [&](const std::string& name, const ln::tensor_info& info, const ln::gradient_sums& x) {
    const ln::gradient_sums y = b.of(ordinal++);
    BOOST_TEST(same_bits(std::span(x.sums, at(info.size())), std::span(y.sums, at(info.size()))),
               name);
    BOOST_TEST(
        same_bits(std::span(x.squares, at(info.size())), std::span(y.squares, at(info.size()))),
        name);
  });
}

/// Two batches, gathered, against a trainer's gradient of each of `samples`, twice.
template <class M, class Data, class How = ln::cross_entropy_objective>
void check_sums(const Data& data, const std::vector<typename M::batch>& samples,
                const ln::sensitivity_options& how = {.batches = 2}, How objective = {}) {
  ln::weights<M> w;
  randomize(w);
  const auto s = ln::sensitivities(
      w, [&](index) { return data.view(); }, data.limits(), how);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(s), (s ? std::string() : s.error().message()));
  const index count = 2 * std::ssize(samples);
  BOOST_TEST(s->samples() == count);
  BOOST_TEST(s->batches() == 2);

  auto train = ln::trainer<M>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  std::map<std::string, std::vector<double>> sums, squares;
  ln::loss_sum loss;
  index nonzero = 0;
  for (int twice = 0; twice < 2; ++twice)
    for (const auto& b : samples) {
      const ln::loss_sum one = train->accumulate(b, objective);
      loss.nats += one.nats;
      loss.tokens += one.tokens;
      train->gradient().visit([&](const ln::parameter_path& path, const ln::tensor_info& info,
                                  float* leaf) {
        auto &sum = sums[path.str()], &square = squares[path.str()];
        sum.resize(at(info.size()));
        square.resize(at(info.size()));
        for (index i = 0; i < info.size(); ++i) {
          const auto g = info.kind == ln::role::moving_average ? 0 : static_cast<double>(leaf[i]);
          sum[at(i)] += g;
          square[at(i)] += g * g;
          nonzero += g != 0;
          leaf[i] = 0;
        }
      });
    }
  BOOST_TEST(nonzero > M::parameters());
  BOOST_TEST(s->loss().nats == loss.nats);
  BOOST_TEST(s->loss().tokens == loss.tokens);
  each(*s, [&](const std::string& name, const ln::tensor_info& info, const ln::gradient_sums& g) {
    BOOST_TEST_REQUIRE(g.samples == count);
    BOOST_TEST_REQUIRE(g.size == info.size());
    BOOST_TEST(same_bits(std::span(g.sums, at(g.size)), sums[name]), name);
    if (how.squares)
      BOOST_TEST(same_bits(std::span(g.squares, at(g.size)), squares[name]), name);
    else
      BOOST_TEST(g.squares == nullptr);
    BOOST_TEST(g.mean(0) == sums[name][0] / static_cast<double>(count));
    if (how.squares) BOOST_TEST(g.mean_square(0) == squares[name][0] / static_cast<double>(count));
  });
}

BOOST_AUTO_TEST_SUITE(sensitivity)

BOOST_AUTO_TEST_CASE(sums_of_decoders) {
  const auto data = decoder_data<small>(3);
  check_sums<small>(data, {data.part(0, 1), data.part(1, 1), data.part(2, 1)});
  using routed = ln::decoder<tiny_decoder_shape, ln::attention::routing<3, 4>>;
  check_sums<routed>(data, {data.view()}, {.batches = 2, .sequences = false, .squares = false});
  using recurrent = ln::rwkv4<tiny_decoder_shape>;
  check_sums<recurrent>(data, {data.part(0, 1), data.part(1, 1), data.part(2, 1)});
}
/// Padding of sources and of targets is none of a sample.
BOOST_AUTO_TEST_CASE(sums_of_an_encoder_decoder) {
  using M = ln::t5<tiny_t5_shape>;
  t5_tokens data(2, 9, 8, M::vocabulary);  // lengths 9 and 7, the last label of the second ignored
  check_sums<M>(data, {{data.source.data(), nullptr, data.labels.data(), 1, 9, 8},
                       {data.source.data() + 9, nullptr, data.labels.data() + 8, 1, 7, 7}});
}
BOOST_AUTO_TEST_CASE(sums_of_encoders) {
  using M = ln::encoder<tiny_encoder_shape>;
  const auto data = encoder_data<M>(3, 9);
  check_sums<M>(data, {data.alone(0), data.alone(1), data.alone(2)});
}
/// Texts of a contrastive head see each other, so their batch is one sample.
BOOST_AUTO_TEST_CASE(batches_of_pairs_are_samples) {
  using M = ln::encoder<tiny_encoder_shape, ln::head::contrastive<>>;
  const auto data = encoder_data<M>(4, 6);
  check_sums<M>(data, {data.view()}, {.batches = 2}, ln::contrastive_objective());
}

/// Each sample's derivative by central differences of its loss.
BOOST_AUTO_TEST_CASE(differences_of_the_loss) {
  ln::weights<small, double> w;
  randomize(w);
  const auto data = decoder_data<small>(2, 4);
  const auto s =
      ln::sensitivities(w, [&](index) { return data.view(); }, data.limits(), {.batches = 1});
  BOOST_REQUIRE(static_cast<bool>(s));
  auto train = ln::trainer<small, ln::adamw, double>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  index ordinal = 0, compared = 0;
  w.visit([&](const ln::parameter_path& path, const ln::tensor_info& info, auto& leaf) {
    const ln::gradient_sums g = s->of(ordinal++);
    for (index i = 0; i < info.size(); i += 11) {
      double& value = values_of(leaf)[i];
      const double kept = value, step = 1e-6;  // third derivatives are up to 4e4
      double sum = 0, square = 0;
      for (index sample = 0; sample < 2; ++sample) {
        const auto loss = [&](double x) {
          value = x;
          train->refresh();
          return train->evaluate(data.part(sample, 1)).nats;
        };
        const double slope = (loss(kept + step) - loss(kept - step)) / (2 * step);
        sum += slope;
        square += slope * slope;
      }
      value = kept;
      BOOST_TEST(distance_of(sum, g.sums[i]) < 1e-7 * (1 + std::abs(sum)), path.str());
      BOOST_TEST(distance_of(square, g.squares[i]) < 3e-7 * (1 + square), path.str());
      compared += std::abs(sum) > 1e-4;
    }
  });
  BOOST_TEST(compared > 40);
}

BOOST_AUTO_TEST_CASE(any_number_of_threads_and_parts_gives_the_same_bits) {
  ln::weights<small> w;
  randomize(w);
  const auto data = decoder_data<small>(3, 7);
  const auto view = [&](index) { return data.view(); };
  const auto gathered = [&](int threads) {
    ln::limits l = data.limits(threads);
    l.run_on = std_threads();
    return ln::sensitivities(w, view, l, {.batches = 3});
  };
  const auto one = gathered(1), three = gathered(3);
  BOOST_REQUIRE(one && three);
  check_same(*one, *three);
  auto part = ln::sensitivities(w, view, data.limits(), {.batches = 1});
  BOOST_REQUIRE(static_cast<bool>(part));
  const auto whole = ln::sensitivities(w, view, data.limits(), {.batches = 3}, std::move(*part));
  BOOST_REQUIRE(static_cast<bool>(whole));
  check_same(*one, *whole);
}

/// What it allocates is known before.
BOOST_AUTO_TEST_CASE(footprint) {
  ln::weights<small> w;
  randomize(w);
  const auto data = decoder_data<small>(3, 7);
  for (const bool squares : {false, true}) {
    const ln::sensitivity_options how{.batches = 1, .squares = squares};
    const long used = heap_use_of([&] {
                        BOOST_TEST(static_cast<bool>(ln::sensitivities(
                            w, [&](index) { return data.view(); }, data.limits(), how)));
                      }).bytes;
    const index planned = ln::sensitivities_footprint<small>(data.limits(), how);
    BOOST_TEST(used >= planned);
    BOOST_TEST(used < planned + 1024);
  }
}

/// Every refusal is one sentence that names what is wrong.
BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<small> w;
  randomize(w);
  auto data = decoder_data<small>();
  const auto why = [&](const ln::sensitivity_options& how, index batches = 2) {
    const auto s = ln::sensitivities(
        w, [&](index i) { return i < batches ? data.view() : ln::decoder_batch{}; }, data.limits(),
        how);
    return s ? std::string() : s.error().message();
  };
  BOOST_TEST(why({}) == "");
  BOOST_TEST(why({}, 0) == "sensitivities: batches: expected at least one with labels, got none");
  BOOST_TEST(why({.batches = 0}) ==
             "sensitivities: sensitivity_options.batches: expected at least 1, got 0");
  data.inputs[3] = 11;
  BOOST_TEST(why({}) ==
             "sensitivities: batch 0: expected one that the model and the limits take, got a token "
             "is outside the vocabulary: give ids from 0 to vocabulary - 1");
  data.inputs[3] = 1;
  {
    auto some =
        ln::sensitivities(w, [&](index) { return data.view(); }, data.limits(), {.batches = 1});
    BOOST_REQUIRE(static_cast<bool>(some));
    const auto more = ln::sensitivities(
        w, [&](index) { return data.view(); }, data.limits(), {.squares = false}, std::move(*some));
    BOOST_REQUIRE(!more);
    BOOST_TEST(more.error().message() ==
               "sensitivities: sensitivity_options.squares: expected that of the sums to go on "
               "from, got false");
  }
  // A loss that overflows, of weights that are all finite.
  ln::weights<small> large = w.clone();
  large.visit([&](const ln::parameter_path& path, const ln::tensor_info&, auto& leaf) {
    if (path.str() == "norm.weight")
      for (index j = 0; j < 8; ++j) values_of(leaf)[j] = 3.4e38f;
  });
  std::swap(w, large);
  BOOST_TEST(why({}) ==
             "sensitivities: the loss of batch 0: expected a finite number, got another");
  std::swap(w, large);
  // A gradient that overflows where the loss does not.
  large = w.clone();
  large.visit([&](const ln::parameter_path& path, const ln::tensor_info& info, auto& leaf) {
    const std::string name = path.str();
    const auto set = [&](float x) { std::fill_n(values_of(leaf), info.size(), x); };
    if (name == "blocks.1.ffn.up.weight") set(3e37f);
    if (name == "blocks.1.ffn.down.weight") set(0);
    if (name == "norm.weight") set(1000);
  });
  std::swap(w, large);
  BOOST_TEST(why({}) ==
             "sensitivities: blocks.1.ffn.down.weight: expected a finite gradient, got a NaN or an "
             "infinity");
  std::swap(w, large);
  w.visit([&](const ln::parameter_path& path, const ln::tensor_info&, auto& leaf) {
    if (path.str() == "blocks.1.ffn.up.weight")
      values_of(leaf)[2] = std::numeric_limits<float>::quiet_NaN();
  });
  BOOST_TEST(
      why({}) ==
      "sensitivities: blocks.1.ffn.up.weight: expected finite numbers, got a NaN or an infinity");
}

}  // namespace

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sensitivities_test
