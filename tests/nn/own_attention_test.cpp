// SPDX-License-Identifier: MIT
// The kinds of examples/own_attention.cpp against plain loops, and what every kind has to keep.

#include "support/attention.hpp"

#include <cstdio>

namespace test::own_attention_test {

// The example's kinds are compiled here; its program is not, as a template that nobody asks for.
#define main       \
  not_run = 0;     \
  template <class> \
  int program
#include "../../examples/own_attention.cpp"
#undef main

namespace {

constexpr ln::attention_shape shape_of(ln::kv_code code) {
  return {.d_model = 12, .heads = 4, .kv_heads = 4, .d_kv = 3, .causal = true, .cache = code};
}
constexpr ln::attention_shape shape = shape_of(ln::kv_code::exact);
constexpr index heads = 4, h = 3, n = heads * h;
using alibi = mine::alibi::layer<shape>;
using talking_heads = mine::talking_heads::layer<shape>;

bool seen(index, index i, index j) { return j <= i; }

/// The checks of a layer, over several blocks of queries of unequal lengths.
template <class Layer>
void check_promises() {
  check_causality<Layer>(60);
  check_padding<Layer>(60, {60, 1, 52});
  check_threads<Layer>(60, {60, 7, 52});
  check_pieces<Layer>(60, {{50, 2}, {1, 1}, {8, 2}, {1, 55}}, 1e-12);
  check_layer<Layer>({.lengths = {5, 3}});
}

}  // namespace

BOOST_AUTO_TEST_SUITE(own_attention)

BOOST_AUTO_TEST_CASE(alibi_is_its_formula) {
  attention_run<alibi> run(1, 60);
  run.run();
  const auto q = mapped(run.x, n, run.weight("q.weight")),
             k = mapped(run.x, n, run.weight("k.weight")),
             v = mapped(run.x, n, run.weight("v.weight"));
  const double slopes[] = {1.0 / 4, 1.0 / 16, 1.0 / 64, 1.0 / 256};  // of four heads, as printed
  const auto mixed = dense_attention(60, 60, heads, h, v, seen, [&](index head, index i, index j) {
    return dot(q, i, k, j, heads, head, h) / std::sqrt(3.0) - slopes[head] * double(i - j);
  });
  BOOST_TEST(distance(mapped(mixed, n, run.weight("o.weight")), run.y) <= 1e-12);
}
BOOST_AUTO_TEST_CASE(talking_heads_are_their_formula) {
  attention_run<talking_heads> run(1, 60);
  run.run();
  const auto qkv = mapped(run.x, n, run.weight("qkv.weight"));
  const auto before = run.weight("heads.before"), after = run.weight("heads.after");
  std::vector<double> mixed(60 * n);
  for (index i = 0; i < 60; ++i) {
    const auto part = [&](index token, index which, index e) {
      return qkv[at(token * 3 * n + which * n + e)];
    };
    std::vector<double> scores(at(heads * (i + 1))), soft(scores.size());
    for (index f = 0; f < heads; ++f)
      for (index j = 0; j <= i; ++j)
        for (index e = f * h; e < (f + 1) * h; ++e)
          scores[at(f * (i + 1) + j)] += part(i, 0, e) * part(j, 1, e) / std::sqrt(3.0);
    for (index f = 0; f < heads; ++f) {
      double sum = 0;
      for (index j = 0; j <= i; ++j) {
        double talked = 0;
        for (index g = 0; g < heads; ++g)
          talked += before[at(f * heads + g)] * scores[at(g * (i + 1) + j)];
        sum += soft[at(f * (i + 1) + j)] = std::exp(talked);
      }
      for (index j = 0; j <= i; ++j) soft[at(f * (i + 1) + j)] /= sum;
    }
    for (index g = 0; g < heads; ++g)
      for (index f = 0; f < heads; ++f)
        for (index j = 0; j <= i; ++j)
          for (index e = g * h; e < (g + 1) * h; ++e)
            mixed[at(i * n + e)] +=
                after[at(g * heads + f)] * soft[at(f * (i + 1) + j)] * part(j, 2, e);
  }
  BOOST_TEST(distance(mapped(mixed, n, run.weight("o.weight")), run.y) <= 1e-12);
}
// Heads that do not talk yet are plain attention.
BOOST_AUTO_TEST_CASE(talking_heads_begin_silent) {
  ln::tensor_block<talking_heads, ln::form::canonical<float, ln::storage::f32>> w;
  ln::initialize(w, ln::seed{1});
  w.visit([](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    if (!where.str().starts_with("heads.")) return;
    for (index i = 0; i < info.size(); ++i)
      BOOST_TEST(values_of(leaf)[i] == (i / heads == i % heads ? 1 : 0));
  });
}
BOOST_AUTO_TEST_CASE(promises) {
  check_promises<alibi>();
  check_promises<talking_heads>();
}
// ALiBi has the caches of `full`.
BOOST_AUTO_TEST_CASE(alibi_in_an_int8_cache) {
  using layer = mine::alibi::layer<shape_of(ln::kv_code::int8)>;
  const auto r = ln::check_layer_cache<layer, float>({.length = 40, .tolerance = 0.05});
  BOOST_TEST(r.passed(), r.message());
  BOOST_TEST(r.difference > 1e-4);  // it is rounded
}
// A file of another kind with weights of equal shapes is refused by the name.
BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST(mine::alibi::name() != ln::attention::full::name());
  static_assert(talking_heads::state_values(5) ==
                ln::attention::full::layer<shape>::state_values(5));
  static_assert(ln::count_parameters<alibi>() ==
                ln::count_parameters<ln::attention::full::layer<shape>>());
  static_assert(ln::count_parameters<talking_heads>() ==
                ln::count_parameters<alibi>() + 2 * heads * heads);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::own_attention_test
