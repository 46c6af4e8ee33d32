// SPDX-License-Identifier: MIT
// Methods that fill in corrections: codes against a reference in numpy, errors against those of
// GPTQ, and models that run with them.

#include <linnet/low_rank.hpp>

#include "support/compression.hpp"
#include "support/matrix.hpp"
#include "support/models.hpp"
#include "support/singular_values.hpp"

namespace test::outliers_test {

namespace {

namespace storage = ln::storage;
using small = ln::decoder<tiny_decoder_shape>;
using four = storage::int4<8>;
using four_row = storage::int4<0, storage::symmetry::asymmetric>;

/// W[rows, columns] rounded to storage `S` by a method.
template <class S, class Method>
matrix<float, S> rounded(const std::vector<float>& w, index columns, const ln::input_statistics& x,
                         const Method& how) {
  const index rows = std::ssize(w) / columns;
  matrix<float, S> to(rows, columns, std::vector<double>(w.size()));
  typename Method::rounder rounder(how);
  const auto done = rounder.round(rows, columns, w.data(), to.canonical, x);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(done), (done ? "" : done.error().message()));
  to.pack(rows, columns);
  return to;
}

/// Compares codes, scales, zero points and outliers with a fixture.
template <class S, class Method>
void check_fixture(const std::string& name, const Method& how) {
  const auto in = fixture("inputs"), expected = fixture(name);
  const std::vector<float> w(in.at("weights").begin(), in.at("weights").end());
  const index k = 28, rows = std::ssize(w) / k;
  const ln::input_statistics x{
      .rows = static_cast<index>(in.at("rows")[0]), .width = k, .moments = in.at("moments").data()};
  const auto got = rounded<S>(w, k, x, how);
  std::vector<double> codes, outliers, inputs;
  for (index r = 0; r < rows; ++r) {
    for (index j = 0; j < k; ++j) codes.push_back(S::decode(got.canonical.code(r, j, k)));
    const index width = S::correction::width(k);
    for (index c = 0; c < width; ++c)
      outliers.push_back(got.canonical.correction.values.at(r, c, width));
  }
  for (std::size_t c = 0; c < expected.at("outlier_inputs").size(); ++c)
    inputs.push_back(static_cast<double>(got.canonical.correction.inputs[c]));
  BOOST_TEST(inputs == expected.at("outlier_inputs"), boost::test_tools::per_element());
  BOOST_TEST(codes == expected.at("codes"), boost::test_tools::per_element());
  for (std::size_t i = 0; i < got.row_scales.size(); ++i) {
    BOOST_TEST(static_cast<double>(got.row_scales[i]) == expected.at("scales")[i], name << i);
    if (S::centred) BOOST_TEST(static_cast<double>(got.row_zeros[i]) == expected.at("zeros")[i]);
  }
  for (std::size_t i = 0; i < outliers.size(); ++i)
    BOOST_TEST(std::abs(outliers[i] - expected.at("outliers")[i]) < 1e-6, name << i);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(outliers)

BOOST_AUTO_TEST_CASE(owq_codes_of_the_reference) {
  using rows = storage::outlier_columns<four_row, 3, storage::f32>;
  using groups = storage::outlier_columns<four, 3, storage::f32>;
  check_fixture<rows>("owq_int4_row", ln::owq{});
  check_fixture<rows>("owq_int4_row_act_order", ln::owq{.act_order = true});
  check_fixture<groups>("owq_int4", ln::owq{});
  check_fixture<groups>("owq_int4_act_order", ln::owq{.act_order = true});
}

/// Without weak inputs and without a search of scales it is GPTQ; with all of them nothing is lost.
BOOST_AUTO_TEST_CASE(owq_of_no_inputs_and_of_all) {
  const index k = 45;
  const auto x = alike(90, k);
  const auto w = normal<float>(70 * k, 5);
  for (const bool act_order : {false, true}) {
    const auto none = rounded<storage::outlier_columns<four, 0>>(
        w, k, x.statistics(), ln::owq{.act_order = act_order, .steps = 1, .group_steps = 1});
    const auto by_gptq = rounded<four>(w, k, x.statistics(), ln::gptq{.act_order = act_order});
    BOOST_TEST(same_bits(none.rows, by_gptq.rows));
    BOOST_TEST(same_bits(none.row_scales, by_gptq.row_scales));
    const auto all = rounded<storage::outlier_columns<four, 100, storage::f32>>(
        w, k, x.statistics(), ln::owq{.act_order = act_order});
    BOOST_TEST(all.meaning == std::vector<double>(w.begin(), w.end()),
               boost::test_tools::per_element());
  }
  for (const index block : {1, 7}) {
    using S = storage::outlier_columns<four, 4>;
    const auto one = rounded<S>(w, k, x.statistics(), ln::owq{.block = block, .group_steps = 8});
    const auto many = rounded<S>(w, k, x.statistics(), ln::owq{.group_steps = 8});
    BOOST_TEST(one.meaning == many.meaning, boost::test_tools::per_element());
  }
}

/// A few inputs that are much larger are the weak ones, and keeping them beats rounding them. Where
/// inputs have nothing to do with each other, they keep their numbers.
BOOST_AUTO_TEST_CASE(owq_finds_planted_inputs) {
  const index k = 48;
  auto x = alike(300, k);
  for (index r = 0; r < x.rows; ++r)
    for (const index j : {11, 30}) x.x[at(r * k + j)] *= 40;
  x.gather();
  const auto w = normal<float>(20 * k, 8);
  const auto kept =
      rounded<storage::outlier_columns<storage::int3<>, 2>>(w, k, x.statistics(), ln::owq{});
  BOOST_TEST(static_cast<int>(kept.canonical.correction.inputs[0]) == 11);
  BOOST_TEST(static_cast<int>(kept.canonical.correction.inputs[1]) == 30);
  const auto by_gptq = rounded<storage::int3<>>(w, k, x.statistics(), ln::gptq{});
  BOOST_TEST(output_error(w, kept.meaning, x.statistics()) <
             0.7 * output_error(w, by_gptq.meaning, x.statistics()));
  std::fill(x.moments.begin(), x.moments.end(), 0.0);
  for (index j = 0; j < k; ++j) x.moments[at(j * k + j)] = 1;
  const auto apart =
      rounded<storage::outlier_columns<four, 2, storage::f32>>(w, k, x.statistics(), ln::owq{});
  for (index r = 0; r < 20; ++r)
    for (index c = 0; c < 2; ++c) {
      const auto j = static_cast<index>(apart.canonical.correction.inputs[c]);
      BOOST_TEST(apart.meaning[at(r * k + j)] == static_cast<double>(w[at(r * k + j)]));
    }
}

BOOST_AUTO_TEST_CASE(spqr_codes_of_the_reference) {
  using S = storage::sparse_outliers<storage::spqr<3>, 28, storage::f32>;
  for (const bool act_order : {false, true}) {
    const auto in = fixture("inputs"), expected = fixture(act_order ? "spqr_act_order" : "spqr");
    const std::vector<float> w(expected.at("weights").begin(), expected.at("weights").end());
    const index k = 28, rows = std::ssize(w) / k;
    const ln::input_statistics x{.rows = static_cast<index>(in.at("rows")[0]),
                                 .width = k,
                                 .moments = in.at("moments").data()};
    ln::spqr_report report;
    const auto got = rounded<S>(w, k, x, ln::spqr{.act_order = act_order, .report = &report});
    index outliers = 0;
    for (index i = 0; i < rows * k; ++i) {
      BOOST_TEST(
          static_cast<double>(got.canonical.code(i / k, i % k, k)) == expected.at("codes")[at(i)],
          "code " << i);
      const double outlier = got.canonical.correction.at(i / k, i % k, k);
      BOOST_TEST(std::abs(outlier - expected.at("outliers")[at(i)]) < 1e-5, "outlier " << i);
      outliers += expected.at("outliers")[at(i)] != 0;
    }
    for (std::size_t i = 0; i < got.row_scales.size(); ++i) {
      BOOST_TEST(static_cast<double>(got.row_scales[i]) == expected.at("scales")[i]);
      BOOST_TEST(static_cast<double>(got.row_zeros[i]) == expected.at("zeros")[i]);
    }
    BOOST_TEST(report.outliers == outliers);
    BOOST_TEST(report.outliers > 3);
    BOOST_TEST(report.dropped == 0);
  }
}

/// Without outliers it is GPTQ with the storage's grids; where all are outliers nothing is lost.
BOOST_AUTO_TEST_CASE(spqr_of_no_outliers_and_of_all) {
  const index k = 45;
  const auto x = alike(90, k);
  const auto w = normal<float>(70 * k, 5);
  using grouped = storage::int4<8, storage::symmetry::asymmetric>;
  for (const bool act_order : {false, true}) {
    const auto none = rounded<storage::sparse_outliers<grouped, 3>>(
        w, k, x.statistics(), ln::spqr{.act_order = act_order, .damp = 0.01, .threshold = 1e30});
    const auto by_gptq = rounded<grouped>(w, k, x.statistics(), ln::gptq{.act_order = act_order});
    BOOST_TEST(same_bits(none.rows, by_gptq.rows));
    BOOST_TEST(none.meaning == by_gptq.meaning, boost::test_tools::per_element());
    // Scales that are rounded for the whole matrix, and no places at all.
    using nf4 = storage::nf4_double_per<8>;
    const auto plain = rounded<nf4>(w, k, x.statistics(), ln::spqr{.act_order = act_order});
    const auto same =
        rounded<nf4>(w, k, x.statistics(), ln::gptq{.act_order = act_order, .damp = 1});
    BOOST_TEST(plain.meaning == same.meaning, boost::test_tools::per_element());
    const auto all = rounded<storage::sparse_outliers<storage::spqr<3>, 45, storage::f32>>(
        w, k, x.statistics(), ln::spqr{.act_order = act_order, .threshold = 0});
    for (std::size_t i = 0; i < w.size(); ++i)
      BOOST_TEST(std::abs(all.meaning[i] - static_cast<double>(w[i])) < 1e-6);
  }
}

/// A planted weight is found, and its group has the scale that it has without it. Of more outliers
/// than there are places those that cost most win.
BOOST_AUTO_TEST_CASE(spqr_finds_planted_weights) {
  const index k = 32, rows = 40;
  inputs x{100, k};
  x.gather();
  auto w = normal<float>(rows * k, 6, 0.1);
  using S = storage::sparse_outliers<storage::int4<16, storage::symmetry::asymmetric>, 2>;
  const ln::spqr how{.threshold = 0.5};
  const auto before = rounded<S>(w, k, x.statistics(), how);
  w[at(7 * k + 20)] = 5;
  const auto got = rounded<S>(w, k, x.statistics(), how);
  BOOST_TEST(static_cast<int>(got.canonical.correction.inputs[7 * 2]) == 20);
  BOOST_TEST(std::abs(got.meaning[7 * k + 20] - 5) < 0.1);
  double most = 0;
  for (index j = 16; j < 32; ++j)
    if (j != 20) most = (std::max)(most, std::abs(static_cast<double>(w[at(7 * k + j)])));
  BOOST_TEST(static_cast<double>(got.row_scales[7 * 2 + 1]) < 2 * most / 15 * 1.5);
  w[at(7 * k + 1)] = 4;
  using one_place = storage::sparse_outliers<S::base, 1>;
  ln::spqr_report report;
  auto counted = how;
  counted.report = &report;
  const auto both = rounded<S>(w, k, x.statistics(), counted);
  BOOST_TEST(static_cast<int>(both.canonical.correction.inputs[7 * 2]) == 1);
  BOOST_TEST(static_cast<int>(both.canonical.correction.inputs[7 * 2 + 1]) == 20);
  BOOST_TEST(report.outliers == 2);
  BOOST_TEST(report.dropped == 0);
  const auto few = rounded<one_place>(w, k, x.statistics(), counted);
  BOOST_TEST(report.outliers == 3);
  BOOST_TEST(report.dropped == 1);
  BOOST_TEST(static_cast<int>(few.canonical.correction.inputs[7]) == 20);
}

/// The product of the factors against the reference; what is left is the tail of singular values.
BOOST_AUTO_TEST_CASE(lorc_of_the_reference) {
  const auto in = fixture("inputs"), expected = fixture("lorc_int4");
  const std::vector<float> w(in.at("weights").begin(), in.at("weights").end());
  const index k = 28;
  const auto got =
      rounded<storage::low_rank_correction<four, 2, storage::f32>>(w, k, {}, ln::lorc<>{});
  const auto plain = rounded<four>(w, k, {}, ln::round_to_nearest{});
  BOOST_TEST(same_bits(got.rows, plain.rows));
  double rest = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    BOOST_TEST(std::abs(got.meaning[i] - plain.meaning[i] - expected.at("product")[i]) < 1e-6);
    const double left = static_cast<double>(w[i]) - got.meaning[i];
    rest += left * left;
  }
  BOOST_TEST(std::abs(rest / expected.at("rest")[0] - 1) < 1e-4);
  const auto all =
      rounded<storage::low_rank_correction<four, 28, storage::f32>>(w, k, {}, ln::lorc<>{});
  for (std::size_t i = 0; i < w.size(); ++i)
    BOOST_TEST(std::abs(all.meaning[i] - static_cast<double>(w[i])) < 1e-5);
}

/// Double quantization: codes of scales, their step and mean, and codes for what these stand for.
BOOST_AUTO_TEST_CASE(nf4_double_of_the_reference) {
  const auto in = fixture("inputs"), expected = fixture("nf4_double");
  const std::vector<float> w(in.at("weights").begin(), in.at("weights").end());
  const index k = 28, rows = std::ssize(w) / k;
  const auto got = rounded<storage::nf4_double_per<8>>(w, k, {}, ln::round_to_nearest{});
  const auto& levels = got.canonical.levels;
  BOOST_TEST(static_cast<double>(*levels.mean) == expected.at("mean")[0]);
  BOOST_TEST(static_cast<double>(levels.step[0]) == expected.at("step")[0]);
  for (index i = 0; i < rows * 4; ++i)
    BOOST_TEST(static_cast<double>(levels.codes[i]) == expected.at("scale_codes")[at(i)]);
  for (index i = 0; i < rows * k; ++i)
    BOOST_TEST(static_cast<double>(got.canonical.code(i / k, i % k, k)) ==
               expected.at("codes")[at(i)]);
}
/// Scales of several blocks are near the floats that they stand for, and none is 0 or less.
BOOST_AUTO_TEST_CASE(double_quantization_of_scales) {
  const index k = 64, rows = 300;
  auto w = normal<float>(rows * k, 8);
  for (index j = 0; j < 8; ++j) w[at(5 * k + j)] = 0;
  w[at(700)] = 300;
  const auto got = rounded<storage::nf4_double_per<8>>(w, k, {}, ln::round_to_nearest{});
  const auto plain = rounded<storage::nf4_per<8>>(w, k, {}, ln::round_to_nearest{});
  for (index i = 0; i < rows * 8; ++i) {
    const auto step = static_cast<double>(got.canonical.levels.step[i / 256]);
    const auto scale = static_cast<double>(got.row_scales[at(i)]);
    BOOST_TEST(scale > 0);
    BOOST_TEST((std::abs(scale - static_cast<double>(plain.row_scales[at(i)])) <= step));
  }
  for (index j = 0; j < 8; ++j) BOOST_TEST(got.meaning[at(5 * k + j)] == 0);
}

/// Scales that are to be powers of two are so after each method, and the better ones lose less.
BOOST_AUTO_TEST_CASE(scales_that_are_powers_of_two) {
  const index k = 48, rows = 20;
  const auto x = alike(300, k);
  const auto w = normal<float>(rows * k, 8);
  const auto loss = [&]<class Method>(const Method& how) {
    const auto got =
        rounded<storage::fp4<8, storage::fp4_scales::power_of_two>>(w, k, x.statistics(), how);
    for (const float scale : got.row_scales) {
      int exponent = 0;
      BOOST_TEST(std::frexp(scale, &exponent) == 0.5f, Method::name);
    }
    double sum = 0;
    for (index r = 0; r < x.rows; ++r)
      for (index i = 0; i < rows; ++i) {
        double off = 0;
        for (index j = 0; j < k; ++j)
          off += static_cast<double>(x.x[at(r * k + j)]) *
                 (got.meaning[at(i * k + j)] - static_cast<double>(w[at(i * k + j)]));
        sum += off * off;
      }
    return sum;
  };
  const double nearest = loss(ln::round_to_nearest{}), by_gptq = loss(ln::gptq{});
  BOOST_TEST(by_gptq < 0.8 * nearest);
  BOOST_TEST(loss(ln::owq{}) == by_gptq);
  BOOST_TEST(loss(ln::clip_search{}) < 1.001 * nearest);
}

/// Behind GPTQ its codes stay, and the sum of squares of what is lost falls.
BOOST_AUTO_TEST_CASE(lorc_behind_gptq) {
  const index k = 45;
  const auto x = alike(90, k);
  const auto w = normal<float>(20 * k, 5);
  const auto by_gptq = rounded<four>(w, k, x.statistics(), ln::gptq{});
  const auto both =
      rounded<storage::low_rank_correction<four, 4>>(w, k, x.statistics(), ln::lorc<ln::gptq>{});
  BOOST_TEST(same_bits(both.rows, by_gptq.rows));
  const auto lost = [&](const std::vector<double>& meaning) {
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i)
      sum += (static_cast<double>(w[i]) - meaning[i]) * (static_cast<double>(w[i]) - meaning[i]);
    return sum;
  };
  BOOST_TEST(lost(both.meaning) < 0.8 * lost(by_gptq.meaning));
}

/// A model that a method rounded runs as its decoded weights do, packs and unpacks, and holds no
/// more bytes than the type says.
template <class S, class Method>
void check_model(const Method& how) {
  using Q = ln::quantized<small, S>;
  ln::weights<small> w;
  randomize(w);
  const auto text = tokens(12 * 8 * 17, small::vocabulary, 5);
  const auto stats = ln::calibrate(
      w,
      [&](index i) {
        return ln::decoder_batch{text.data() + i * 136, text.data() + i * 136 + 1, 8, 16};
      },
      {.batch = 8, .target = 16}, {.batches = 11});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(stats), (stats ? "" : stats.error().message()));
  const auto q = ln::quantize<S>(w, *stats, how);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(q), (q ? "" : q.error().message()));
  const auto p = ln::pack(*q);
  const auto whole = prompt_logits(p, 1, false);
  BOOST_TEST(distance(whole, prompt_logits(ln::pack(decoded<small>(*q)), 1, false)) <= 1e-5,
             storage::name_of<S>());
  BOOST_TEST(distance(prompt_logits(p, 1, true), whole) <= 1e-5);
  BOOST_TEST(same_bits(prompt_logits(p, 2, false), whole));
  BOOST_TEST(same_bytes(ln::unpack(p), *q));
  index tensors = 0;
  ln::each_tensor<small>([&](const ln::parameter_path&, const ln::tensor_info&) { ++tensors; });
  BOOST_TEST(ln::weights<Q>::bytes() >= ln::weight_bytes<Q>());
  BOOST_TEST(ln::weights<Q>::bytes() <= ln::weight_bytes<Q>() + 5 * 64 * tensors);
}
BOOST_AUTO_TEST_CASE(models) {
  check_model<storage::outlier_columns<four, 3>>(ln::owq{.group_steps = 5});
  check_model<storage::per_role<storage::outlier_columns<storage::int3<>, 2>,
                                storage::embedding<storage::int8>>>(ln::owq{.group_steps = 5});
  check_model<storage::low_rank_correction<four, 3>>(ln::lorc<ln::gptq>{});
  check_model<storage::nf4_double_per<8>>(ln::gptq{});
  check_model<storage::sparse_outliers<storage::spqr<3>, 2>>(ln::spqr{});
  check_model<storage::spqr<2>>(ln::gptq{});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::outliers_test
