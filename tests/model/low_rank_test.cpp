// SPDX-License-Identifier: MIT
// Low-rank models from dense ones: the best approximation there is, and none at full rank.

#include <linnet/low_rank.hpp>

#include "support/data.hpp"
#include "support/scoring.hpp"
#include "support/singular_values.hpp"

namespace test::low_rank_test {

namespace {

using dense = ln::decoder<tiny_decoder_shape, ln::bias::all>;
template <index Rank>
using low = ln::decoder<tiny_decoder_shape, ln::bias::all, ln::ffn::low_rank<Rank>>;
using low_attention = ln::decoder<tiny_decoder_shape, ln::bias::all, ln::attention::low_rank<4>>;
static_assert(std::is_same_v<ln::dense_counterpart<low<3>>, dense>);
static_assert(std::is_same_v<ln::dense_counterpart<low_attention>, dense>);
// Each of three matrices between 8 and 7 becomes Rank (8 + 7) numbers.
static_assert(low<3>::parameters() == dense::parameters() - 2 * 3 * (56 - 3 * 15));

/// The numbers of one tensor.
template <class W>
std::vector<double> tensor(const W& w, const std::string& name) {
  std::vector<double> x;
  w.visit([&](const ln::parameter_path& at_path, const ln::tensor_info& info, const auto& leaf) {
    if (at_path.str() == name) x.assign(values_of(leaf), values_of(leaf) + info.size());
  });
  BOOST_REQUIRE_MESSAGE(!x.empty(), name);
  return x;
}
/// |W - U V|^2 by its definition.
double squared_error(const std::vector<double>& w, const std::vector<double>& u,
                     const std::vector<double>& v, index rows, index columns, index rank) {
  double sum = 0;
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < columns; ++j) {
      double d = w[at(i * columns + j)];
      for (index r = 0; r < rank; ++r) d -= u[at(i * rank + r)] * v[at(r * columns + j)];
      sum += d * d;
    }
  return sum;
}
/// Squares of the singular values of W[rows, columns], largest first: the eigenvalues of W^T W by
/// Jacobi's rotations, which have nothing in common with a library's decomposition.
std::vector<double> squared_singular_values(const std::vector<double>& w, index rows,
                                            index columns) {
  std::vector<double> a(at(columns * columns));
  for (index i = 0; i < columns; ++i)
    for (index j = 0; j < columns; ++j)
      for (index r = 0; r < rows; ++r)
        a[at(i * columns + j)] += w[at(r * columns + i)] * w[at(r * columns + j)];
  for (int sweep = 0; sweep < 60; ++sweep)
    for (index p = 0; p < columns; ++p)
      for (index q = p + 1; q < columns; ++q) {
        const double apq = a[at(p * columns + q)];
        if (std::abs(apq) < 1e-300) continue;
        const double angle =
            0.5 * std::atan2(2 * apq, a[at(q * columns + q)] - a[at(p * columns + p)]);
        const double c = std::cos(angle), s = std::sin(angle);
        for (index k = 0; k < columns; ++k) {
          const double x = a[at(k * columns + p)], y = a[at(k * columns + q)];
          a[at(k * columns + p)] = c * x - s * y;
          a[at(k * columns + q)] = s * x + c * y;
        }
        for (index k = 0; k < columns; ++k) {
          const double x = a[at(p * columns + k)], y = a[at(q * columns + k)];
          a[at(p * columns + k)] = c * x - s * y;
          a[at(q * columns + k)] = s * x + c * y;
        }
      }
  std::vector<double> values;
  for (index i = 0; i < columns; ++i) values.push_back(a[at(i * columns + i)]);
  std::sort(values.rbegin(), values.rend());
  return values;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(low_rank)

// Eckart and Young: the squared error is the sum of the squares of the singular values left out,
// and no other factors of this rank do better. The factors are balanced: U^T U = V V^T.
BOOST_AUTO_TEST_CASE(nearest_of_its_rank) {
  ln::weights<dense, double> w;
  randomize(w);
  const auto f = ln::factorise<low<3>>(w);
  for (const std::string name : {"blocks.0.ffn.gate", "blocks.1.ffn.up", "blocks.1.ffn.down"}) {
    const bool down = name.ends_with("down");
    const index rows = down ? 8 : 7, columns = down ? 7 : 8;
    const auto whole = tensor(w, name + ".weight"), u = tensor(f, name + ".u.weight"),
               v = tensor(f, name + ".v.weight");
    const auto squares = squared_singular_values(whole, rows, columns);
    double left_out = 0;
    for (std::size_t i = 3; i < squares.size(); ++i) left_out += squares[i];
    const double error = squared_error(whole, u, v, rows, columns, 3);
    BOOST_TEST(left_out > 0.1);
    BOOST_TEST(std::abs(std::sqrt(error) - std::sqrt(left_out)) < 1e-12);
    for (index a = 0; a < 3; ++a)
      for (index b = 0; b < 3; ++b) {
        double uu = 0, vv = 0;
        for (index i = 0; i < rows; ++i) uu += u[at(i * 3 + a)] * u[at(i * 3 + b)];
        for (index j = 0; j < columns; ++j) vv += v[at(a * columns + j)] * v[at(b * columns + j)];
        BOOST_TEST(std::abs(uu - (a == b ? std::sqrt(squares[at(a)]) : 0)) < 1e-12);
        BOOST_TEST(std::abs(vv - uu) < 1e-12);
      }
    // Random factors, and the best ones nudged.
    for (std::uint64_t trial = 0; trial < 200; ++trial) {
      const double step = trial % 2 ? 1e-2 : 1;
      auto other_u = normal<double>(rows * 3, 2 * trial, step);
      auto other_v = normal<double>(3 * columns, 2 * trial + 1, step);
      if (trial % 2) {
        for (std::size_t i = 0; i < u.size(); ++i) other_u[i] += u[i];
        for (std::size_t i = 0; i < v.size(); ++i) other_v[i] += v[i];
      }
      BOOST_TEST(squared_error(whole, other_u, other_v, rows, columns, 3) >= error);
    }
  }
  for (const char* const name : {"blocks.1.ffn.norm.weight", "blocks.0.attention.q.weight"})
    BOOST_TEST(tensor(f, name) == tensor(w, name));
  for (const std::string name : {"blocks.0.ffn.gate.", "blocks.1.ffn.down."})
    BOOST_TEST(tensor(f, name + "u.bias") == tensor(w, name + "bias"));
  w.fail({ln::errc::io, "model.bin", "", "", "nothing"});
  const auto none = ln::factorise<low<3>>(w);
  BOOST_TEST(!none.valid());
  BOOST_TEST(none.error().message() == "model.bin: got nothing");
}

// At full rank nothing is lost; below it something is.
// A decomposition of what is not finite would be made of anything.
BOOST_AUTO_TEST_CASE(not_finite) {
  ln::weights<ln::dense_counterpart<low<3>>, double> w;
  randomize(w);
  w.visit([](const ln::parameter_path& at, const ln::tensor_info&, auto& leaf) {
    if (at.str() == "blocks.1.ffn.down.weight")
      values_of(leaf)[5] = std::numeric_limits<double>::quiet_NaN();
  });
  const auto f = ln::factorise<low<3>>(w);
  BOOST_TEST(!f.valid());
  BOOST_TEST(
      f.error().message() ==
      "factorise: blocks.1.ffn.down.weight: expected finite numbers, got a NaN or an infinity");
}

BOOST_AUTO_TEST_CASE(full_rank_is_the_same_function) {
  ln::weights<dense, double> w;
  randomize(w);
  const auto data = decoder_data<dense>();
  const auto want = logits_of(ln::pack(w), data);
  const auto same = [&]<class M>(const ln::weights<M, double>& f) {
    return distance(logits_of(ln::pack(f), data), want);
  };
  BOOST_TEST(same(ln::factorise<low<7>>(w)) < 1e-12);
  BOOST_TEST(same(ln::factorise<low<3>>(w)) > 1e-3);
  // Keys and values have 4 rows, so rank 4 is full for them; queries and the output map lose.
  const auto f = ln::factorise<low_attention>(w);
  const auto k = tensor(w, "blocks.1.attention.k.weight");
  BOOST_TEST(squared_error(k, tensor(f, "blocks.1.attention.k.u.weight"),
                           tensor(f, "blocks.1.attention.k.v.weight"), 4, 8, 4) < 1e-26);
  BOOST_TEST(tensor(f, "blocks.1.attention.v.u.bias") == tensor(w, "blocks.1.attention.v.bias"));
  BOOST_TEST(same(f) > 1e-3);
}

// The step of a pipeline: the type spelled in full, and the weights of factorise().
BOOST_AUTO_TEST_CASE(as_a_step) {
  namespace step = ln::step;
  using both = ln::decoder<tiny_decoder_shape, ln::bias::all, ln::ffn::low_rank<3>,
                           ln::attention::low_rank<4>>;
  static_assert(std::is_same_v<ln::pipeline<dense, step::low_rank<3>>::type, low<3>>);
  static_assert(std::is_same_v<ln::pipeline<dense, step::low_rank<3, 4>>::type, both>);
  static_assert(
      std::is_same_v<ln::pipeline<dense, step::low_rank<0, 4>, step::low_rank<3>>::type, both>);
  static_assert(!ln::composes<dense, step::low_rank<3>, step::low_rank<2>>);
  static_assert(!ln::composes<dense, step::low_rank<8>>);
  static_assert(!ln::composes<dense, step::low_rank<0, 5>>);
  using deltas = ln::decoder<tiny_decoder_shape, ln::sharing::lora<2>>;
  static_assert(!ln::composes<deltas, step::low_rank<3>>);
  ln::weights<dense> w;
  randomize(w);
  const auto f = ln::apply(w, step::low_rank<3>{});
  LINNET_REQUIRE_OK(f);
  BOOST_TEST(same_bytes(*f, ln::factorise<low<3>>(w)));
  w.visit([](const ln::parameter_path&, const ln::tensor_info&, auto& leaf) {
    values_of(leaf)[0] = std::numeric_limits<float>::infinity();
  });
  BOOST_TEST(message(ln::apply(w, step::low_rank<3>{})) ==
             "factorise: embedding.weight: expected finite numbers, got a NaN or an infinity");
}

// Fresh factors multiply to entries that deviate as those of the matrix they stand for.
BOOST_AUTO_TEST_CASE(fresh_factors) {
  constexpr ln::decoder_shape shape{.d_model = 64,
                                    .d_ff = 96,
                                    .heads = 4,
                                    .kv_heads = 4,
                                    .layers = 1,
                                    .vocabulary = 5,
                                    .context = 4};
  ln::weights<ln::decoder<shape, ln::ffn::low_rank<16>>, double> w;
  ln::initialize(w, ln::seed{1});
  const auto u = tensor(w, "blocks.0.ffn.up.u.weight"), v = tensor(w, "blocks.0.ffn.up.v.weight");
  const std::vector<double> nothing(96 * 64);
  const double mean = squared_error(nothing, u, v, 96, 64, 16) / (96 * 64);
  BOOST_TEST(std::abs(std::sqrt(mean) - 0.02) < 0.002);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::low_rank_test
