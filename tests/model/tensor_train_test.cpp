// SPDX-License-Identifier: MIT
// An embedding whose table is a tensor train: against the table that its cores multiply to.

#include <map>

#include "support/decoding.hpp"

namespace test::tensor_train_test {

namespace {

using ln::tensor_train_shape;
constexpr index d = tiny_decoder_shape.d_model, vocabulary = tiny_decoder_shape.vocabulary;

/// Three cores of twelve rows, of which the last is no token's.
constexpr tensor_train_shape cores{.rows = {2, 3, 2}, .columns = {2, 2, 2}, .ranks = {3, 2}};
constexpr tensor_train_shape four{
    .rows = {2, 2, 1, 3}, .columns = {2, 1, 2, 2}, .ranks = {2, 3, 2}};
template <tensor_train_shape Shape>
using tensorised =
    ln::decoder<tiny_decoder_shape, ln::embedding::tensor_train<Shape>, ln::tie::untied>;
using M = tensorised<cores>;
using whole = ln::decoder<tiny_decoder_shape, ln::tie::untied>;

static_assert(cores.valid() && four.valid() && !tensor_train_shape{}.valid());
static_assert(!tensor_train_shape{.rows = {2, 3}, .columns = {2, 4}}.valid());
static_assert(!tensor_train_shape{.rows = {2, 3}, .columns = {2}, .ranks = {1}}.valid());
static_assert(!tensor_train_shape{.rows = {2}, .columns = {2}}.valid());
static_assert(cores.table_rows() == 12 && cores.table_columns() == d);
// [2, 2 3], [3, 3 2 2] and [2, 2 2] in place of [11, 8].
static_assert(whole::parameters() - M::parameters() == vocabulary * d - (12 + 36 + 8));
static_assert(whole::non_embedding() == M::non_embedding());
// 2 numbers times [3, 2 2], then 4 times [2, 2].
static_assert(M::flops(1, 5) == whole::flops(1, 5) + 5 * 2 * (2 * 12 + 4 * 4));

/// The numbers of all tensors by name.
template <class W>
std::map<std::string, std::vector<double>> numbers_of(const W& w) {
  std::map<std::string, std::vector<double>> all;
  w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, const auto& leaf) {
    const auto* const from = values_of(leaf);
    all[where.str()].assign(from, from + info.size());
  });
  return all;
}
/// The table that the cores of `w` multiply to, number by number.
template <tensor_train_shape Shape, class W>
std::vector<double> table_of(const W& w) {
  const auto all = numbers_of(w);
  const index rows = Shape.table_rows(), columns = Shape.table_columns();
  std::vector<double> table;
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < columns; ++j) {
      std::vector<double> left{1};
      for (index k = 0, row = i, column = j, below = rows, beside = columns; k < Shape.cores();
           ++k) {
        below /= Shape.rows[k];
        beside /= Shape.columns[k];
        const auto& core = all.at(k == 0 ? "embedding.weight"
                                         : "embedding.cores." + std::to_string(k) + ".weight");
        std::vector<double> next(at(Shape.rank(k + 1)));
        for (index r = 0; r < std::ssize(left); ++r)
          for (index s = 0; s < std::ssize(next); ++s)
            next[at(s)] +=
                left[at(r)] *
                core[at(((row / below * Shape.rank(k) + r) * Shape.columns[k] + column / beside) *
                            std::ssize(next) +
                        s)];
        row %= below;
        column %= beside;
        left = next;
      }
      table.push_back(left[0]);
    }
  return table;
}
/// The same model with the table itself.
template <tensor_train_shape Shape, class W>
ln::weights<whole, double> with_table(const W& w) {
  auto others = numbers_of(w);
  others["embedding.weight"] = table_of<Shape>(w);
  ln::weights<whole, double> made;
  made.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    std::copy_n(others.at(where.str()).begin(), info.size(), values_of(leaf));
  });
  return made;
}
template <tensor_train_shape Shape>
void check_table() {
  ln::weights<tensorised<Shape>, double> w;
  randomize(w);
  const decoder_tokens data(2, 9, vocabulary, 3);
  const auto p = ln::pack(w);
  const auto logits = logits_of(p, data.view(), data.limits(2));
  BOOST_TEST(distance(std::span<const double>(logits),
                      std::span<const double>(logits_of(ln::pack(with_table<Shape>(w)), data))) <=
             1e-12);
  auto s = opened(p, {.target = 9});
  for (index t = 0; t < 9; ++t)
    BOOST_TEST(distance(s.feed({&data.inputs[at(t)], 1}), row_of<tensorised<Shape>>(logits, t)) <=
               1e-12);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(tensor_train)

BOOST_AUTO_TEST_CASE(table) {
  check_table<cores>();
  check_table<four>();
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_model<M>(decoder_data<M>(2, 7), 0.25);
  check_model<tensorised<four>>(decoder_data<M>(2, 7));
}

// Numbers of the table begin with the deviation of a whole table's, whatever the ranks.
BOOST_AUTO_TEST_CASE(starts) {
  constexpr tensor_train_shape wide{.rows = {8, 8, 8}, .columns = {4, 4, 4}, .ranks = {12, 6}};
  constexpr ln::decoder_shape shape = [] {
    auto s = tiny_decoder_shape;
    s.d_model = 64;
    s.vocabulary = 500;
    return s;
  }();
  ln::weights<ln::decoder<shape, ln::embedding::tensor_train<wide>, ln::tie::untied>> w;
  ln::initialize(w, ln::seed{3});
  double squares = 0;
  const auto all = table_of<wide>(w);
  for (const double x : all) squares += x * x;
  BOOST_TEST(std::abs(std::sqrt(squares / double(all.size())) - 0.02) < 0.002);
}

BOOST_AUTO_TEST_CASE(threads_and_codes) {
  const decoder_tokens data(2, 12, vocabulary, 7);
  const auto trained = trained_by_threads<M>(data);
  // Cores in 8 bits stand for another table.
  const auto codes = ln::quantize<ln::storage::int8>(trained);
  const auto logits = logits_of(ln::pack(codes), data);
  const auto same = logits_of(ln::pack(decoded<M>(codes)), data);
  BOOST_TEST(distance(std::span<const float>(logits), std::span<const float>(same)) <= 1e-4);
  BOOST_TEST(ln::embedding::tensor_train<cores>::name() ==
             "tensor_train 2x2 rank 3 3x2 rank 2 2x2");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tensor_train_test
