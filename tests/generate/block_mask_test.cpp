// SPDX-License-Identifier: MIT
// Blocks of tokens that see each other: the mask by its definition, whole texts against sessions
// that read them block by block, and what breaks a block.

#include "support/attention.hpp"
#include "support/decoding.hpp"

namespace test::block_mask_test {

namespace {

constexpr index size = 3;
using kind = ln::attention::block_causal<size>;
using model = ln::decoder<tiny_decoder_shape, kind>;
constexpr ln::attention_shape reading{
    .d_model = 6, .heads = 2, .kv_heads = 1, .d_kv = 3, .scaled = false, .relative = true};
constexpr ln::attention_shape writing = [] {
  auto a = reading;
  a.causal = true;
  return a;
}();
using alone = ln::attention::block_diagonal<size>::layer<reading>;
using after_others = kind::layer<writing>;

/// A layer's outputs by plain loops: block(j) is the same, or with `Earlier` an earlier one.
template <class Layer, bool Earlier>
void check_dense() {
  constexpr index length = 60, heads = 2, h = 3;
  attention_run<Layer> run(2, length, {length, 50}, heads);
  run.run();
  for (index b = 0; b < 2; ++b) {
    const index valid = run.valid(b);
    const std::span<const double> x(run.input(b, 0), at(valid * 6));
    const auto q = mapped(x, 6, run.weight("q.weight")), k = mapped(x, 6, run.weight("k.weight")),
               v = mapped(x, 6, run.weight("v.weight"));
    std::vector<double> shared;  // one head of values serves both of queries
    for (index t = 0; t < valid; ++t)
      for (index head = 0; head < heads; ++head)
        shared.insert(shared.end(), v.begin() + t * h, v.begin() + (t + 1) * h);
    const auto mixed = dense_attention(
        valid, valid, heads, h, shared,
        [](index, index i, index j) {
          return Earlier ? j / size <= i / size : j / size == i / size;
        },
        [&](index head, index i, index j) {
          double sum = run.bias[at(head * (2 * length + 1) + length + j - i)];
          for (index c = 0; c < h; ++c) sum += q[at((i * heads + head) * h + c)] * k[at(j * h + c)];
          return sum;
        });
    const auto expected = mapped(mixed, heads * h, run.weight("o.weight"));
    BOOST_TEST(distance(expected, std::span(run.y).subspan(at(b * length * 6), expected.size())) <=
               1e-12);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(block_mask)

BOOST_AUTO_TEST_CASE(layers_equal_plain_loops) {
  check_dense<alone, false>();
  check_dense<after_others, true>();
  BOOST_TEST(kind::name() == "block_causal<3>");
  BOOST_TEST(ln::attention::block_diagonal<3>::name() == "block_diagonal<3>");
  static_assert(work<alone>(2048) == 2 * work<alone>(1024));
}
BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<alone>({.length = 7, .heads = 2, .lengths = {7, 5}, .dropout = 0.2});
  check_layer<after_others>({.length = 7, .heads = 2, .lengths = {7, 4}, .dropout = 0.2});
}
BOOST_AUTO_TEST_CASE(sessions_read_whole_blocks) {
  const auto p = random_packed<model, double>(3);
  const auto text = tokens(11, model::vocabulary, 5);
  const std::span<const token> all(text);
  auto e = ln::evaluator<model, double>::open(p, {.target = 11});
  BOOST_REQUIRE(static_cast<bool>(e));
  std::vector<double> want(at(11 * model::vocabulary));
  (void)e->loss({text.data(), text.data(), 1, 11}, want);
  const auto is_row = [&](std::span<const double> got, index t) {
    BOOST_TEST(distance(got, std::span(want).subspan(at(t * model::vocabulary),
                                                     at(model::vocabulary))) <= 1e-10,
               t);
  };
  auto s = opened(p, {.batch = 2, .target = 12, .chunk = 6, .max_logits = 6});
  is_row(s.prefill(all), 10);  // in parts of two blocks
  s.reset();
  // The other sequence's first block ends in another token, so all of it differs.
  std::vector<token> starts(text.begin(), text.begin() + 3);
  starts.insert(starts.end(), {text[0], text[1], (text[2] + 1) % token{model::vocabulary}});
  is_row(s.feed(starts, 2, {}).first(at(model::vocabulary)), 2);
  const auto rows = s.feed_all(all.subspan(3, 6));
  for (index t = 3; t < 9; ++t)
    is_row(rows.subspan(at((t - 3) * model::vocabulary), at(model::vocabulary)), t);
  // Another sequence goes on from there; part of a block ends a text, and is read anew.
  BOOST_REQUIRE(s.fork(0, 1));
  is_row(s.feed(all.subspan(9)), 10);
  BOOST_TEST(s.feed(all.first(1)).empty());
  BOOST_TEST(s.last_refusal().find("whole blocks") != std::string_view::npos);
  BOOST_TEST(!s.truncate(10));
  BOOST_TEST(s.position() == 11);
  BOOST_REQUIRE(s.truncate(6) && s.truncate(6));
  const std::vector<token> two{text[6], text[7], text[8], text[9], text[10], 0};
  const std::vector<index> lengths{3, 2};
  const auto both = s.feed(two, 2, lengths);
  BOOST_REQUIRE(!both.empty());
  is_row(both.first(at(model::vocabulary)), 8);
  is_row(both.subspan(at(model::vocabulary)), 10);
  // Parts that would end inside of a block are refused before anything is read.
  auto odd = opened(p, {.target = 11, .chunk = 4});
  BOOST_TEST(odd.prefill(all).empty());
  BOOST_TEST(odd.position() == 0);
  is_row(odd.prefill(all.first(3)), 2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::block_mask_test
