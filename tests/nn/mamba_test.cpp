// SPDX-License-Identifier: MIT
// Mamba's mixer: gradients, the plain recurrence, the associative scan, decoding in pieces,
// causality, threads, memory, parameters, initial values.

#include "support/mixing.hpp"

namespace test::mamba_test {

namespace {

template <index D, index State, index Conv, index Expand, bool Bias = false>
using layer = typename ln::mixer::mamba<State, Conv, Expand>::template layer<ln::attention_shape{
    .d_model = D, .heads = 1, .kv_heads = 1, .d_kv = D, .causal = true, .bias = Bias}>;
// Ten channels a block of their own, 34 three blocks, 68 two groups of blocks.
using tiny = layer<5, 3, 4, 2>;
using odd = layer<17, 5, 3, 2, true>;
using wide = layer<34, 4, 2, 2>;

double silu(double x) { return x / (1 + std::exp(-x)); }

/// What the recurrence makes of one sequence: decays and inputs of every state, and the output.
struct recurrence {
  std::vector<double> decays, inputs;  ///< [length, inner, State]
  std::vector<double> y;               ///< [length, d]
};
template <index State, index Conv, class Layer, class T>
recurrence naive(mixing<Layer, T>& m, const std::vector<T>& u) {
  constexpr index d = Layer::in, inner = Layer::inner, rank = Layer::rank;
  const index length = std::ssize(u) / d;
  const auto& w = m.w.tree();
  const auto bias = [](const auto& p) -> const T* {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(p.bias)>>)
      return p.bias;
    else
      return nullptr;
  };
  const auto xz = mapped(u, d, w.in_proj.weight, 2 * inner, bias(w.in_proj));
  recurrence r;
  std::vector<double> h(at(inner * State));
  for (index t = 0; t < length; ++t) {
    std::vector<double> x(at(inner)), delta(at(inner)), mixed(at(rank + 2 * State)),
        gated(at(inner));
    for (index c = 0; c < inner; ++c) {
      double sum = static_cast<double>(w.conv_bias[c]);
      for (index k = 0; k < Conv; ++k)
        if (const index from = t + k - Conv + 1; from >= 0)
          sum += static_cast<double>(w.conv_weight[c * Conv + k]) * xz[at(from * 2 * inner + c)];
      x[at(c)] = silu(sum);
    }
    for (index o = 0; o < rank + 2 * State; ++o)
      for (index c = 0; c < inner; ++c)
        mixed[at(o)] += static_cast<double>(w.x_proj.weight.data[o * inner + c]) * x[at(c)];
    for (index c = 0; c < inner; ++c) {
      double sum = static_cast<double>(w.dt_proj.bias[c]);
      for (index o = 0; o < rank; ++o)
        sum += static_cast<double>(w.dt_proj.weight.data[c * rank + o]) * mixed[at(o)];
      delta[at(c)] = std::log(1 + std::exp(sum));
      double y = static_cast<double>(w.d[c]) * x[at(c)];
      for (index n = 0; n < State; ++n) {
        const double a = -std::exp(static_cast<double>(w.a_log[c * State + n]));
        const double decay = std::exp(delta[at(c)] * a);
        const double input = delta[at(c)] * mixed[at(rank + n)] * x[at(c)];
        double& state = h[at(c * State + n)];
        state = decay * state + input;
        y += state * mixed[at(rank + State + n)];
        r.decays.push_back(decay);
        r.inputs.push_back(input);
      }
      gated[at(c)] = y * silu(xz[at(t * 2 * inner + inner + c)]);
    }
    for (index o = 0; o < d; ++o) {
      double sum = bias(w.out_proj) ? static_cast<double>(bias(w.out_proj)[o]) : 0;
      for (index c = 0; c < inner; ++c)
        sum += static_cast<double>(w.out_proj.weight.data[o * inner + c]) * gated[at(c)];
      r.y.push_back(sum);
    }
  }
  return r;
}

template <class Layer, index State, index Conv, class T>
void check_naive(index length, double tolerance) {
  mixing<Layer, T> m({.batch = 2, .length = length});
  const auto x = normal<T>(2 * length * Layer::in, 1);
  const auto y = m.forward(x, length);
  for (index b = 0; b < 2; ++b) {
    const auto want = naive<State, Conv>(m, rows_of(x, Layer::in, length, b, 0, length)).y;
    BOOST_TEST(magnitude(want) > 0.1);
    BOOST_TEST(distance(rows_of(y, Layer::in, length, b, 0, length), want) <= tolerance);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mamba_mixer)

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<tiny>({.lengths = {5, 3}});
  check_layer<odd>({.batch = 2, .length = 3});
}
// Several blocks of tokens, several groups of channels.
BOOST_AUTO_TEST_CASE(gradients_of_several_blocks) {
  check_layer<layer<2, 2, 2, 1>>({.batch = 2, .length = 2 * ln::ops::scan_tokens + 5});
  check_layer<layer<1, 1, 1, 67>>({.batch = 1, .length = 4});
}

BOOST_AUTO_TEST_CASE(equals_the_recurrence) {
  check_naive<tiny, 3, 4, double>(70, 1e-13);
  check_naive<odd, 5, 3, double>(33, 1e-13);
  check_naive<wide, 4, 2, double>(5, 1e-13);
  check_naive<odd, 5, 3, float>(40, 2e-5);
}

// Pairs (a, b) combine to (a2 a1, a2 b1 + b2) in any order of combining: halves of halves give the
// state that the serial scan leaves.
BOOST_AUTO_TEST_CASE(associative_scan) {
  constexpr index length = 45, states = tiny::inner * 3;
  mixing<tiny> m({.length = length, .capacity = length});
  const auto x = normal<double>(length * tiny::in, 1);
  (void)m.forward(x, length, {}, {0});
  const auto r = naive<3, 4>(m, x);
  using pair = std::pair<double, double>;
  for (index i = 0; i < states; ++i) {
    const auto combined = [&](auto&& self, index first, index count) -> pair {
      if (count == 1) return {r.decays[at(first * states + i)], r.inputs[at(first * states + i)]};
      const pair one = self(self, first, count / 2),
                 two = self(self, first + count / 2, count - count / 2);
      return {two.first * one.first, two.first * one.second + two.second};
    };
    BOOST_TEST(distance_of(combined(combined, 0, length).second, m.cache().state[i]) <= 1e-13);
  }
}

BOOST_AUTO_TEST_CASE(pieces) {
  check_pieces<tiny>(70, {{1, 2, 33}, {1, 1, 1}, {2, 3, 1}, {40, 34, 3}, {26, 30, 32}}, 1e-13);
  check_pieces<odd>(40, std::vector<std::vector<index>>(40, {1}), 1e-13);
  check_pieces<layer<5, 2, 1, 2>>(9, {{4}, {1}, {4}}, 1e-13);
}

BOOST_AUTO_TEST_CASE(causality) {
  check_causality<odd>(67);
  check_causality<tiny, float>(35);
}
BOOST_AUTO_TEST_CASE(padding) { check_padding<odd>(40, {33, 40, 1}); }
BOOST_AUTO_TEST_CASE(threads, *boost::unit_test::label("tsan")) {
  check_threads<wide>(35, {33, 35});
  check_threads<tiny>(9, {9});
}

/// The count of all tensors (Gu and Dao 2023), without the norm of the block.
constexpr index formula(index d, index states) {
  const index inner = 2 * d, rank = (d + 15) / 16;
  return 6 * d * d + inner * (4 + 1) + inner * (rank + 2 * states) + rank * inner + inner +
         inner * states + inner;
}
static_assert(ln::count_parameters<layer<64, 16, 4, 2>>() == formula(64, 16));
static_assert(ln::count_parameters<layer<100, 16, 4, 2>>() == formula(100, 16));
static_assert(ln::count_parameters<layer<768, 16, 4, 2>>() == formula(768, 16));
static_assert(ln::count_parameters<layer<1, 8, 4, 2>>() == formula(1, 8));

// Twice the tokens are at most twice the memory; what lasts in decoding does not grow at all.
using usual = layer<512, 16, 4, 2>;
static_assert(bytes_of<usual>({.length = 8192, .training = true}) <=
              2 * bytes_of<usual>({.length = 4096, .training = true}));
static_assert(state_bytes_of<usual>({.length = 8192, .capacity = 8192}) ==
              4 * usual::state_values(100));
static_assert(usual::state_values(1) == 1024 * (16 + 3));
static_assert(usual::flops({.length = 8192}) == 2 * usual::flops({.length = 4096}));

// Mamba-130m of Hugging Face has 129,135,360 parameters.
constexpr ln::decoder_shape mamba_130m{.d_model = 768,
                                       .d_ff = 1,
                                       .heads = 1,
                                       .kv_heads = 1,
                                       .layers = 24,
                                       .vocabulary = 50280,
                                       .context = 2048};
static_assert(
    ln::decoder<mamba_130m, ln::mixer::mamba<>, ln::ffn::skip, ln::position::none>::parameters() ==
    129'135'360);

BOOST_AUTO_TEST_CASE(initial_values) {
  constexpr ln::decoder_shape shape{.d_model = 32,
                                    .d_ff = 1,
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .layers = 1,
                                    .vocabulary = 11,
                                    .context = 8};
  ln::weights<ln::decoder<shape, ln::mixer::mamba<>, ln::ffn::skip, ln::position::none>> w;
  ln::initialize(w, ln::seed{1});
  int checked = 0;
  w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    const std::string name = where.str();
    const auto* const x = values_of(leaf);
    const auto all = [&](auto&& holds) {
      ++checked;
      bool fine = true;
      for (index i = 0; i < info.size(); ++i) fine = fine && holds(i, static_cast<double>(x[i]));
      BOOST_TEST(fine, name);
    };
    const auto spread = [&](double bound) {
      all([&](index, double v) { return std::abs(v) <= bound; });
      BOOST_TEST(magnitude(std::span(x, at(info.size()))) > 0.8 * bound);
    };
    if (name.ends_with("A_log")) {
      all([](index i, double v) {
        return std::abs(v - std::log(static_cast<double>(i % 16 + 1))) < 1e-6;
      });
      BOOST_TEST(!info.decays());
      BOOST_TEST(info.rows == 64);
    }
    if (name.ends_with(".D")) {
      all([](index, double v) { return v == 1; });
      BOOST_TEST(!info.decays());
    }
    if (name.ends_with("dt_proj.bias")) {
      double least = 1, most = 0;
      all([&](index, double v) {
        const double dt = std::log1p(std::exp(v));
        least = (std::min)(least, dt);
        most = (std::max)(most, dt);
        return dt > 0.000999 && dt < 0.1001;
      });
      BOOST_TEST(least < 0.003);
      BOOST_TEST(most > 0.03);
    }
    if (name.ends_with("dt_proj.weight")) spread(1 / std::sqrt(2.0));
    if (name.ends_with("conv.weight")) {
      spread(0.5);
      BOOST_TEST(info.decays());
    }
    if (name.ends_with("conv.bias")) spread(0.5);
  });
  BOOST_TEST(checked == 6);
}

BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST(ln::mixer::mamba<>::name() == "mamba<16, 4, 2>");
  BOOST_TEST((ln::mixer::mamba<8, 3, 1>::name() == "mamba<8, 3, 1>"));
  BOOST_TEST(ln::mixer::fnet::name() == "fnet");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::mamba_test
