// SPDX-License-Identifier: MIT
// Longformer: gradients, the dense reference with its mask, full attention as a special case.

#include "support/attention.hpp"

namespace test::longformer_test {

namespace {
using ln::attention::longformer;
using shape = ln::attention_shape;
constexpr shape plain{.d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3};
constexpr shape t5{
    .d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3, .scaled = false, .relative = true};
constexpr shape rotary{.d_model = 6,
                       .heads = 4,
                       .kv_heads = 2,
                       .d_kv = 2,
                       .bias = true,
                       .rope = ln::rope_pairing::half};
constexpr shape causal = [] {
  shape a = t5;
  a.causal = true;
  return a;
}();
template <shape A, index Window, index Globals, index... Dilations>
using layer = typename longformer<Window, Globals, Dilations...>::template layer<A>;

using scattered = ln::attention::global_tokens<1, 4, 5, 60>;
template <shape A, index Window, class Globals, index... Dilations>
using layer_at =
    typename ln::attention::longformer_at<Window, Globals, Dilations...>::template layer<A>;

constexpr shape wide{.d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16};
static_assert(ln::count_parameters<layer<wide, 32, 2>>() == 7 * 64 * 64);
static_assert(ln::count_parameters<layer<wide, 32, 0>>() == 4 * 64 * 64);
static_assert(grows_slowly<layer<wide, 128, 2>>());
static_assert(ln::count_parameters<layer_at<wide, 32, scattered>>() == 7 * 64 * 64);
static_assert(longformer<>::causal && longformer<>::bidirectional);
// The window, dilated, and what the last global token and those before it need twice.
static_assert(layer_at<causal, 6, scattered, 1, 4>::state_values(1000) ==
              2 * 6 * (61 + 12 + 1) + 2 * 6 * 61);
static_assert(layer<causal, 6, 0>::state_values(1000) == 2 * 6 * 4);
}  // namespace

BOOST_AUTO_TEST_SUITE(longformer_layer)

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<layer<plain, 2, 1>>({.length = 6});
  check_layer<layer<t5, 2, 2>>({.length = 7, .heads = 2, .lengths = {7, 5}, .dropout = 0.2});
  check_layer<layer<rotary, 4, 3>>({.length = 6, .d_kv = 2, .lengths = {2, 6}});
  check_layer<layer<t5, 4, 0>>({.length = 6, .heads = 2});
  check_layer<layer<causal, 2, 2, 1, 3>>(
      {.length = 9, .heads = 2, .lengths = {9, 5}, .dropout = 0.2});
  check_layer<layer_at<t5, 4, ln::attention::global_tokens<0, 3, 8>>>(
      {.length = 8, .heads = 2, .lengths = {8, 5}, .dropout = 0.2});
  check_layer<layer_at<causal, 4, ln::attention::global_tokens<1, 5, 6>, 1, 2>>(
      {.length = 8, .heads = 2, .lengths = {8, 4}, .dropout = 0.2});
  // Several blocks of queries, the window across them.
  check_layer<layer<
      shape{.d_model = 2, .heads = 1, .kv_heads = 1, .d_kv = 2, .scaled = false, .relative = true},
      6, 2>>({.batch = 1, .length = 101, .heads = 1, .dropout = 0.1});
}

// One softmax over window and global keys for a local query, all keys through maps of their own for
// a global one. Heads may be dilated; a causal model sees what came before of it all.
template <shape A, class Globals, index... Dilations>
void check_dense() {
  constexpr index length = 107, heads = 2, h = 3, half = 5;
  constexpr auto globals = Globals::list;
  const index step[] = {longformer<2, 0, Dilations...>::dilation(0),
                        longformer<2, 0, Dilations...>::dilation(1)};
  attention_run<layer_at<A, 2 * half, Globals, Dilations...>> run(3, length, {107, 60, 2}, heads);
  run.run();
  for (index b = 0; b < 3; ++b) {
    const index valid = run.valid(b);
    const std::span<const double> x(run.input(b, 0), at(valid * 6));
    const auto q = mapped(x, 6, run.weight("q.weight")), k = mapped(x, 6, run.weight("k.weight")),
               v = mapped(x, 6, run.weight("v.weight")),
               qg = mapped(x, 6, run.weight("q_global.weight")),
               kg = mapped(x, 6, run.weight("k_global.weight")),
               vg = mapped(x, 6, run.weight("v_global.weight"));
    const auto bias = [&](index head, index i, index j) {
      return run.bias[at(head * (2 * length + 1) + length + j - i)];
    };
    const auto earlier = [](index i, index j) { return !A.causal || j <= i; };
    auto mixed = dense_attention(
        valid, valid, heads, h, v,
        [&](index head, index i, index j) {
          const index d = step[head];
          return earlier(i, j) &&
                 (globals.holds(j) || ((i - j) % d == 0 && std::abs(i - j) <= half * d));
        },
        [&](index head, index i, index j) {
          return dot(q, i, k, j, heads, head, h) + bias(head, i, j);
        });
    const auto all = dense_attention(
        valid, valid, heads, h, vg, [&](index, index i, index j) { return earlier(i, j); },
        [&](index head, index i, index j) {
          return dot(qg, i, kg, j, heads, head, h) + bias(head, i, j);
        });
    for (index i = 0; i < valid; ++i)
      if (globals.holds(i))
        std::copy_n(all.data() + i * heads * h, heads * h, mixed.data() + i * heads * h);
    const auto expected = mapped(mixed, heads * h, run.weight("o.weight"));
    BOOST_TEST(
        distance(expected, std::span(run.y).subspan(at(b * length * 6), expected.size())) <= 1e-12,
        "sample " << b);
  }
}
BOOST_AUTO_TEST_CASE(dense_reference) {
  static_assert(longformer<>::dilation(7) == 1 && longformer<4, 1, 1, 3>::dilation(3) == 3);
  using in_front = ln::detail::first_tokens<3>;
  check_dense<t5, in_front>();
  check_dense<t5, in_front, 2, 30>();
  check_dense<causal, in_front, 1, 4>();
  check_dense<t5, scattered, 1, 7>();
  check_dense<causal, scattered, 1, 7>();
  check_dense<t5, ln::attention::global_tokens<0, 1, 59, 106, 200>, 2, 30>();
}
BOOST_AUTO_TEST_CASE(causality) {
  const auto r =
      ln::check_layer_causality<layer<causal, 6, 2, 1, 3>>({.batch = 1, .length = 60, .heads = 2});
  BOOST_TEST(r.passed(), r.message());
  const auto s = ln::check_layer_causality<layer_at<causal, 6, scattered, 1, 3>>(
      {.batch = 1, .length = 66, .heads = 2});
  BOOST_TEST(s.passed(), s.message());
}
// One token at a time, in chunks and after a fork: as whole sequences, also behind the last global
// token and where the window is a ring.
BOOST_AUTO_TEST_CASE(cache) {
  const auto passes = [](const ln::layer_report& r) { BOOST_TEST(r.passed(), r.message()); };
  passes(ln::check_layer_cache<layer<causal, 6, 2, 1, 3>>({.batch = 2, .length = 70, .heads = 2}));
  passes(ln::check_layer_cache<layer_at<causal, 6, scattered, 1, 3>>(
      {.batch = 2, .length = 70, .heads = 2}));
  constexpr shape rounded = [] {
    shape a = causal;
    a.cache = ln::kv_code::int8;
    return a;
  }();
  passes(ln::check_layer_cache<layer_at<rounded, 6, scattered, 1, 3>, float>(
      {.batch = 2, .length = 70, .heads = 2, .tolerance = 0.06}));
  passes(ln::check_layer_cache<layer<causal, 4, 0>>({.batch = 2, .length = 9, .heads = 2}));
}

// A window over the whole sequence, and global maps that are copies: full attention.
template <shape A, class Globals>
void check_full(index heads) {
  constexpr index length = 60;
  attention_run<layer_at<A, 2 * length, Globals>> local(2, length, {60, 41}, heads, A.d_kv);
  attention_run<ln::attention::full::layer<A>> full(2, length, {60, 41}, heads, A.d_kv);
  for (const std::string map : {"q", "k", "v"})
    for (const std::string what : {".weight", ".bias"}) {
      if (Globals::count == 0 || (!A.bias && what == ".bias")) continue;
      const auto from = local.weight(map + what), to = local.weight(map + "_global" + what);
      std::copy(from.begin(), from.end(), to.begin());
    }
  for (index t = 41; t < length; ++t)  // padding gets no gradient in a model
    for (index i = 0; i < A.d_model; ++i)
      local.dy[at((length + t) * A.d_model + i)] = full.dy[at((length + t) * A.d_model + i)] = 0;
  local.run(true);
  full.run(true);
  for (index b = 0; b < 2; ++b)
    for (index t = 0; t < full.valid(b); ++t)
      BOOST_TEST(distance(local.output(b, t), full.output(b, t)) <= 1e-12);
  BOOST_TEST(distance(local.dx, full.dx) <= 1e-12);
  if (heads > 0) BOOST_TEST(distance(local.d_bias, full.d_bias) <= 1e-12);
}
BOOST_AUTO_TEST_CASE(wide_window_is_full_attention) {
  check_full<t5, ln::detail::first_tokens<3>>(2);
  check_full<t5, ln::detail::first_tokens<0>>(2);
  check_full<rotary, ln::detail::first_tokens<2>>(0);
  check_full<rotary, ln::attention::global_tokens<3, 4, 30, 50>>(0);
  check_full<causal, ln::attention::global_tokens<3, 4, 30, 50>>(2);
}

// Padding gives zeros, whatever its memory held, and no gradient feels it.
BOOST_AUTO_TEST_CASE(padding_is_nothing) {
  attention_run<layer<plain, 2, 1>> run(1, 9, {5});
  run.prepare = [](auto& cache) {
    std::fill_n(cache.b.mixed, 9 * 6, std::numeric_limits<double>::quiet_NaN());
  };
  std::fill(run.dy.begin() + 5 * 6, run.dy.end(), 0.0);
  run.run(true);
  for (index t = 5; t < 9; ++t)
    for (const double y : run.output(0, t)) BOOST_TEST(y == 0, t);
  run.gradients.visit([](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    for (index i = 0; i < info.size(); ++i) BOOST_TEST(ln::is_finite(leaf[i]), where.str());
  });
}
BOOST_AUTO_TEST_CASE(padding) {
  check_padding<layer<t5, 4, 2>>(60, {60, 1, 52}, 0, 2);
  check_padding<layer_at<rotary, 4, scattered>>(62, {62, 1, 5}, 2);
  check_padding<layer<rotary, 4, 0>>(60, {60, 3}, 2);
}
BOOST_AUTO_TEST_CASE(threads) {
  check_threads<layer<t5, 4, 2>, float>(70, {70, 1, 52}, 0, 2);
  check_threads<layer_at<rotary, 4, scattered>, double>(70, {70, 3}, 2);
}
BOOST_AUTO_TEST_CASE(in_float) { check_float<layer<t5, 4, 2>>(70, {70, 1, 52}, 2); }
BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST((longformer<512, 2>::name()) == "longformer<512, 2>");
  BOOST_TEST((longformer<8, 2, 1, 4>::name()) == "longformer<8, 2, 1, 4>");
  BOOST_TEST((ln::attention::longformer_at<8, scattered, 1, 4>::name()) ==
             "longformer_at<8, global_tokens<1, 4, 5, 60>, 1, 4>");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::longformer_test
