// SPDX-License-Identifier: MIT
// Attention sinks by their definition (Xiao et al. 2023): evict, count slots, rotate to slots,
// attend.

#include "support/attention.hpp"

namespace test::window_test {

namespace {

constexpr index first = 3, recent = 5, heads = 2, h = 4, d = heads * h;
constexpr ln::attention_shape shape{.d_model = d,
                                    .heads = heads,
                                    .kv_heads = heads,
                                    .d_kv = h,
                                    .causal = true,
                                    .rope = ln::rope_pairing::half};
constexpr ln::attention_shape t5{.d_model = d,
                                 .heads = heads,
                                 .kv_heads = heads,
                                 .d_kv = h,
                                 .causal = true,
                                 .scaled = false,
                                 .relative = true};
using sinks = ln::attention::sinks<first, recent>::layer<shape>;

/// Row `t` of x[tokens, d] with each head's pairs (c, c + h/2) turned to `position`.
std::vector<double> turned(std::span<const double> x, index t, index position) {
  std::vector<double> y(x.begin() + t * d, x.begin() + (t + 1) * d);
  for (index head = 0; head < heads; ++head)
    for (index c = 0; c < h / 2; ++c) {
      const double angle = double(position) * std::pow(10000.0, -2.0 * double(c) / double(h));
      double &a = y[at(head * h + c)], &b = y[at(head * h + c + h / 2)];
      const double a0 = a, b0 = b;
      a = a0 * std::cos(angle) - b0 * std::sin(angle);
      b = a0 * std::sin(angle) + b0 * std::cos(angle);
    }
  return y;
}

/// Rotary positions and T5's biases count slots.
template <ln::attention_shape A>
void check_sinks() {
  constexpr index tokens = 60;
  constexpr bool rotary = A.rope != ln::rope_pairing::none;
  attention_run<ln::attention::sinks<first, recent>::layer<A>> run(
      1, tokens, {}, A.relative ? heads : 0, rotary ? h : 0);
  run.run();
  const auto q = mapped(run.x, d, run.weight("q.weight"));
  const auto k = mapped(run.x, d, run.weight("k.weight"));
  const auto v = mapped(run.x, d, run.weight("v.weight"));
  for (index t = 0; t < tokens; ++t) {
    std::vector<index> kept;  // by slot
    for (index j = 0; j <= t; ++j)
      if (j < first || t - j < recent) kept.push_back(j);
    const index slots = std::ssize(kept);
    BOOST_TEST(slots == (std::min)(t + 1, first + recent));
    std::vector<double> keys, values;
    for (index s = 0; s < slots; ++s) {
      const auto key = turned(k, kept[at(s)], rotary ? s : 0);
      keys.insert(keys.end(), key.begin(), key.end());
      values.insert(values.end(), v.begin() + kept[at(s)] * d, v.begin() + (kept[at(s)] + 1) * d);
    }
    const auto query = turned(q, t, rotary ? slots - 1 : 0);
    const auto mixed = dense_attention(
        1, slots, heads, h, values, [](index, index, index) { return true; },
        [&](index head, index, index j) {
          return dot(query, 0, keys, j, heads, head, h) *
                     (A.scaled ? 1 / std::sqrt(double(h)) : 1) +
                 (A.relative ? run.bias[at(head * (2 * tokens + 1) + tokens + j - (slots - 1))]
                             : 0);
        });
    const auto want = mapped(mixed, d, run.weight("o.weight"));
    BOOST_TEST(distance(run.output(0, t), want) <= 1e-12, "token " << t);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(window)

BOOST_AUTO_TEST_CASE(sinks_equal_their_definition) {
  check_sinks<shape>();
  check_sinks<t5>();
}

// A window's memory and work do not know how long the text is.
BOOST_AUTO_TEST_CASE(windows_grow_with_the_text_alone) {
  static_assert(grows_slowly<ln::attention::sliding_window<64>::layer<shape>>());
  static_assert(grows_slowly<ln::attention::sinks<4, 60>::layer<shape>>());
  static_assert(!grows_slowly<ln::attention::full::layer<shape>>());
  BOOST_TEST(sinks::state_values(100) == 2 * d * (first + recent));
  BOOST_TEST(sinks::state_values(6) == 2 * d * 6);
}
BOOST_AUTO_TEST_CASE(threads, *boost::unit_test::label("tsan")) {
  check_threads<sinks, float>(70, {70, 31}, h);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::window_test
