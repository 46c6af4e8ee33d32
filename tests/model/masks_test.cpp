// SPDX-License-Identifier: MIT
// What a position may not see does not reach it: causality bit for bit, padding, neighbours in the
// batch.

#include "support/scoring.hpp"

namespace test::masks_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using llama = ln::decoder<tiny_decoder_shape>;
using rwkv4 = ln::rwkv4<tiny_decoder_shape>;
using rwkv7 = ln::rwkv7<tiny_rwkv7_shape>;

/// Random weights; a recurrence hardly decays, so that it forgets nothing within a test.
template <class M, class T>
ln::packed<M, T> lasting_packed() {
  ln::weights<M, T> w;
  randomize(w);
  w.visit([](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    if (where.str().ends_with("time_decay")) std::fill_n(values_of(leaf), info.size(), T(-6));
  });
  return ln::pack(w);
}

/// Changing one input token leaves all earlier rows of logits as they are, to the bit, and changes
/// the later ones. `input` is the token of `data` that row `t` reads first.
template <class M, class T, class Data>
void check_causality(const Data& data, token* input, index sample, index length, index t) {
  const auto p = lasting_packed<M, T>();
  const auto before = logits_of(p, data);
  *input = static_cast<token>((*input + 1) % M::vocabulary);
  const auto after = logits_of(p, data);
  index changed = 0;
  for (index row = 0; row < std::ssize(before) / M::vocabulary; ++row) {
    const bool later = row / length == sample && row % length >= t;
    const bool equal = same_bits(row_of<M>(before, row), row_of<M>(after, row));
    if (!later)
      BOOST_TEST(equal, "row " << row << " feels a change at " << t << " of sample " << sample);
    changed += later && !equal;
  }
  BOOST_TEST(changed == length - t);
}
template <class M, class T>
void check_decoder_causality() {
  constexpr index length = 60;  // more than one block of attention rows
  for (const index t : {0, 1, 30, 47, 48, 49, 59}) {
    decoder_tokens data(2, length, M::vocabulary);
    check_causality<M, T>(data, data.inputs.data() + length + t, 1, length, t);
  }
}
template <class M, class T>
void check_t5_causality() {
  constexpr index length = 60;
  for (const index t : {1, 30, 48, 49, 59}) {
    t5_tokens data(2, 4, length, M::vocabulary);
    std::fill(data.labels.begin(), data.labels.end(), token{3});
    check_causality<M, T>(data, data.labels.data() + length + t - 1, 1, length, t);
  }
}

/// A source alone, and the same source padded with changing tokens in a batch beside others.
template <class M, class T>
void check_padding() {
  constexpr index target = 6;
  const auto p = random_packed<M, T>();
  t5_tokens batch(3, 9, target, M::vocabulary);  // lengths 9, 7, 5
  const auto together = logits_of(p, batch);
  for (index b = 0; b < 3; ++b)
    for (index i = batch.lengths[at(b)]; i < 9; ++i) {
      token& pad = batch.source[at(b * 9 + i)];
      pad = static_cast<token>((pad + 1 + i) % M::vocabulary);
    }
  BOOST_TEST(same_bits(logits_of(p, batch), together));
  for (index b = 0; b < 3; ++b) {
    t5_tokens alone(1, batch.lengths[at(b)], target, M::vocabulary);
    std::copy_n(batch.source.data() + b * 9, alone.source_length, alone.source.data());
    std::copy_n(batch.labels.data() + b * target, target, alone.labels.data());
    const auto own = logits_of(p, alone);
    const std::vector<T> part(together.begin() + b * target * M::vocabulary,
                              together.begin() + (b + 1) * target * M::vocabulary);
    BOOST_TEST(distance(own, part) <= same_result<T>, "sample " << b);
  }
  // The last valid token does matter.
  batch.source[at(9 + 6)] = static_cast<token>((batch.source[at(9 + 6)] + 1) % M::vocabulary);
  BOOST_TEST(distance(logits_of(p, batch), together) > 1e-3);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(masks)

BOOST_AUTO_TEST_CASE(decoders_are_causal) {
  check_decoder_causality<llama, float>();
  check_decoder_causality<llama, double>();
}
BOOST_AUTO_TEST_CASE(recurrences_are_causal) {
  check_decoder_causality<rwkv4, float>();
  check_decoder_causality<rwkv7, float>();
}
BOOST_AUTO_TEST_CASE(t5_decoder_is_causal) { check_t5_causality<t5, float>(); }
BOOST_AUTO_TEST_CASE(source_padding_does_not_matter) {
  check_padding<t5, double>();
  check_padding<t5, float>();
}

// Without positions, causal attention alone orders the tokens: the last row does not depend on the
// order of the ones before it. With positions it does.
BOOST_AUTO_TEST_CASE(positions_matter_where_they_should) {
  const auto last_row_moves = [](auto model) {
    using M = decltype(model);
    const auto p = random_packed<M, double>();
    decoder_tokens data(1, 5, M::vocabulary);
    data.inputs = {1, 2, 3, 4, 5};
    const auto before = logits_of(p, data);
    std::swap(data.inputs[1], data.inputs[2]);
    const auto after = logits_of(p, data);
    return distance(row_of<M>(before, 4), row_of<M>(after, 4));
  };
  constexpr ln::decoder_shape shallow{.d_model = 8,
                                      .d_ff = 7,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .layers = 1,
                                      .vocabulary = 11,
                                      .context = 8};
  BOOST_TEST(last_row_moves(ln::decoder<shallow, ln::position::none>{}) < 1e-12);
  BOOST_TEST(last_row_moves(ln::decoder<shallow>{}) > 1e-4);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::masks_test
