// SPDX-License-Identifier: MIT
// Methods of quantize(): codes against a reference in numpy, errors against rounding to nearest and
// against every possible code.

#include "support/compression.hpp"

namespace test::rounding_methods_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
using int4 = ln::storage::int4<8>;
using int8_group =
    ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric, 16>;
using int8_tensor = ln::storage::int8_per<ln::storage::granularity::tensor>;

/// A matrix in storage `S` that owns its codes.
template <class S>
struct stored {
  index rows, columns;
  std::vector<typename S::value> data =
      std::vector<typename S::value>(at(rows * ln::row_values<S>(columns)));
  std::vector<float> scales = std::vector<float>(at(rows * ln::row_scales<S>(columns)));
  std::vector<float> zeros = scales;

  ln::matrix_ref<S> ref() { return {data.data(), scales.data(), zeros.data()}; }
  std::vector<double> codes() {
    std::vector<double> all;
    for (index r = 0; r < rows; ++r)
      for (index j = 0; j < columns; ++j) all.push_back(S::decode(ref().code(r, j, columns)));
    return all;
  }
  std::vector<double> numbers() {
    std::vector<double> all;
    for (index r = 0; r < rows; ++r)
      for (index j = 0; j < columns; ++j) all.push_back(ref().at(r, j, columns));
    return all;
  }
};

/// A matrix rounded by a method.
template <class S, class Method>
stored<S> rounded(const std::vector<float>& w, index columns, const ln::input_statistics& x,
                  const Method& how) {
  stored<S> to{std::ssize(w) / columns, columns};
  typename Method::rounder rounder(how);
  const auto done = rounder.round(to.rows, columns, w.data(), to.ref(), x);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(done), (done ? "" : done.error().message()));
  return to;
}

template <class S, class Method = ln::gptq>
void check_fixture(const std::string& name, const Method& how) {
  const auto in = fixture("inputs"), expected = fixture(name);
  const std::vector<float> w(in.at("weights").begin(), in.at("weights").end());
  const index k = 28;
  const ln::input_statistics x{
      .rows = static_cast<index>(in.at("rows")[0]), .width = k, .moments = in.at("moments").data()};
  auto got = rounded<S>(w, k, x, how);
  BOOST_TEST(got.codes() == expected.at("codes"), boost::test_tools::per_element());
  for (std::size_t i = 0; i < got.scales.size(); ++i) {
    BOOST_TEST(static_cast<double>(got.scales[i]) == expected.at("scales")[i], name << ' ' << i);
    if (S::centred) BOOST_TEST(static_cast<double>(got.zeros[i]) == expected.at("zeros")[i]);
  }
}

BOOST_AUTO_TEST_SUITE(rounding_methods)

BOOST_AUTO_TEST_CASE(gptq_codes_of_the_reference) {
  check_fixture<int4>("gptq_int4", {});
  check_fixture<int4>("gptq_int4_act_order", {.act_order = true});
  check_fixture<ln::storage::int8>("gptq_int8", {});
  check_fixture<ln::storage::int8>("gptq_int8_act_order", {.act_order = true});
  check_fixture<int8_group>("gptq_int8_group_asymmetric", {});
  check_fixture<int8_group>("gptq_int8_group_asymmetric_act_order", {.act_order = true});
}

BOOST_AUTO_TEST_CASE(clipped_codes_of_the_reference) {
  check_fixture<int4>("clip_search_int4", ln::clip_search{});
  check_fixture<int8_group>("clip_search_int8_group_asymmetric", ln::clip_search{});
  check_fixture<int4>("gptq_clip_int4", ln::gptq{.clip = {}});
  check_fixture<int4>("gptq_clip_int4_act_order", ln::gptq{.act_order = true, .clip = {}});
}

BOOST_AUTO_TEST_CASE(ternary_codes_of_the_reference) {
  check_fixture<ln::storage::ternary>("ternary", ln::round_to_nearest{});
}

BOOST_AUTO_TEST_CASE(hqq_codes_of_the_reference) {
  const auto expected = fixture("hqq_int8_group_asymmetric");
  const std::vector<float> w(expected.at("weights").begin(), expected.at("weights").end());
  auto got = rounded<int8_group>(w, 28, {}, ln::hqq{});
  BOOST_TEST(got.codes() == expected.at("codes"), boost::test_tools::per_element());
  for (std::size_t i = 0; i < got.scales.size(); ++i) {
    BOOST_TEST(static_cast<double>(got.scales[i]) == expected.at("scales")[i]);
    BOOST_TEST(static_cast<double>(got.zeros[i]) == expected.at("zeros")[i]);
  }
}

/// What is rounded at a time changes no code, also where groups end elsewhere than blocks.
template <class S>
void check_blocks(bool act_order) {
  const index k = 45;
  const auto x = alike(90, k);
  const auto w = normal<float>(70 * k, 5);
  const auto one = rounded<S>(w, k, x.statistics(), ln::gptq{.act_order = act_order, .block = 1});
  for (const index block : {3, 8, 20, 1000}) {
    const auto many =
        rounded<S>(w, k, x.statistics(), ln::gptq{.act_order = act_order, .block = block});
    BOOST_TEST(same_bits(one.data, many.data), "block " << block);
    BOOST_TEST(same_bits(one.scales, many.scales), "block " << block);
  }
}
BOOST_AUTO_TEST_CASE(blocks_change_nothing) {
  for (const bool act_order : {false, true}) {
    check_blocks<int4>(act_order);
    check_blocks<ln::storage::int8>(act_order);
  }
}

/// Where inputs have nothing to do with each other, nothing can be made up for.
template <class S>
void check_unrelated() {
  const index k = 40;
  inputs x{k, k};
  x.moments.assign(at(k * k), 0);
  for (index j = 0; j < k; ++j) x.moments[at(j * k + j)] = static_cast<double>(1 + j % 5);
  const auto w = normal<float>(9 * k, 3);
  auto nearest = rounded<S>(w, k, {}, ln::round_to_nearest{});
  for (const bool act_order : {false, true}) {
    auto by_order = rounded<S>(w, k, x.statistics(), ln::gptq{.act_order = act_order});
    BOOST_TEST(by_order.codes() == nearest.codes(), boost::test_tools::per_element());
    if (S::scaled) BOOST_TEST(same_bits(by_order.scales, nearest.scales));
  }
}
BOOST_AUTO_TEST_CASE(unrelated_inputs_are_rounded_to_nearest) {
  check_unrelated<int4>();
  check_unrelated<ln::storage::int8>();
  check_unrelated<int8_group>();
  check_unrelated<int8_tensor>();
  check_unrelated<ln::storage::nf4>();
  check_unrelated<ln::storage::bf16>();
}

/// ggml's own rounding takes 1 / d before d is rounded, so codes may differ by one at a tie; errors
/// do not grow.
template <class S>
void check_ggml() {
  const index k = 64;
  const auto x = alike(200, k);
  const auto w = normal<float>(12 * k, 6);
  auto nearest = rounded<S>(w, k, {}, ln::round_to_nearest{});
  auto by_order = rounded<S>(w, k, x.statistics(), ln::gptq{});
  BOOST_TEST(output_error(w, by_order.numbers(), x.statistics()) <
             0.6 * output_error(w, nearest.numbers(), x.statistics()));
}
BOOST_AUTO_TEST_CASE(gptq_in_blocks_of_ggml) {
  check_ggml<ln::storage::q8_0>();
  check_ggml<ln::storage::q4_0>();
  check_ggml<ln::storage::q4_1>();
}

/// On matrices so small that all codes can be tried: never better than the best, and on average
/// nearer to it than rounding to nearest.
BOOST_AUTO_TEST_CASE(gptq_between_the_best_and_nearest) {
  const index k = 4;
  const auto x = alike(12, k);
  double best_sum = 0, gptq_sum = 0, nearest_sum = 0;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const auto w = normal<float>(k, 100 + seed);
    auto by_order = rounded<int4>(w, k, x.statistics(), ln::gptq{.damp = 0});
    auto nearest = rounded<int4>(w, k, {}, ln::round_to_nearest{});
    const auto scale = static_cast<double>(nearest.scales[0]);
    double best = hopeless;
    std::vector<double> q(at(k));
    for (index i = 0; i < 15 * 15 * 15 * 15; ++i) {
      index rest = i;
      for (double& v : q) {
        v = scale * static_cast<double>(rest % 15 - 7);
        rest /= 15;
      }
      best = (std::min)(best, output_error(w, q, x.statistics()));
    }
    const double ours = output_error(w, by_order.numbers(), x.statistics());
    BOOST_TEST(ours >= best * (1 - 1e-12));
    best_sum += best;
    gptq_sum += ours;
    nearest_sum += output_error(w, nearest.numbers(), x.statistics());
  }
  BOOST_TEST(gptq_sum < best_sum + 0.5 * (nearest_sum - best_sum),
             best_sum << ' ' << gptq_sum << ' ' << nearest_sum);
}

/// On inputs that are alike, and in any order, the error falls by a lot; weights that are on the
/// grid stay.
BOOST_AUTO_TEST_CASE(gptq_lowers_the_error_of_outputs) {
  const index k = 48;
  const auto x = alike(300, k);
  const auto w = normal<float>(20 * k, 8);
  auto nearest = rounded<int4>(w, k, {}, ln::round_to_nearest{});
  const double before = output_error(w, nearest.numbers(), x.statistics());
  for (const bool act_order : {false, true}) {
    auto by_order = rounded<int4>(w, k, x.statistics(), ln::gptq{.act_order = act_order});
    BOOST_TEST(output_error(w, by_order.numbers(), x.statistics()) < 0.6 * before);
  }
  const auto on_grid = nearest.numbers();
  const std::vector<float> again(on_grid.begin(), on_grid.end());
  auto same = rounded<int4>(again, k, x.statistics(), ln::gptq{});
  BOOST_TEST(same.codes() == nearest.codes(), boost::test_tools::per_element());
}

/// Inputs that were always 0, or twice the same, and too few of them.
BOOST_AUTO_TEST_CASE(singular_moments) {
  const index k = 16;
  auto x = alike(40, k);
  for (index r = 0; r < x.rows; ++r) {
    x.x[at(r * k + 3)] = 0;
    x.x[at(r * k + 9)] = x.x[at(r * k + 8)];
  }
  x.gather();
  const auto w = normal<float>(5 * k, 9);
  auto nearest = rounded<int4>(w, k, {}, ln::round_to_nearest{});
  auto damped = rounded<ln::storage::int8>(w, k, x.statistics(), ln::gptq{});
  auto plain = rounded<ln::storage::int8>(w, k, {}, ln::round_to_nearest{});
  BOOST_TEST(output_error(w, damped.numbers(), x.statistics()) <
             output_error(w, plain.numbers(), x.statistics()));
  for (index r = 0; r < 5; ++r)
    BOOST_TEST(damped.codes()[at(r * k + 3)] == plain.codes()[at(r * k + 3)]);
  stored<int4> to{5, k};
  const auto refused = [&](const ln::gptq& how, const ln::input_statistics& s) {
    ln::gptq::rounder rounder(how);
    const auto done = rounder.round(5, k, w.data(), to.ref(), s);
    return done ? std::string() : done.error().message();
  };
  BOOST_TEST(refused({.damp = 0}, x.statistics()) ==
             "gptq: expected X^T X that can be inverted: give more text or a larger gptq.damp, got "
             "a singular one");
  auto few = alike(k - 1, k);
  BOOST_TEST(refused({.damp = 0}, few.statistics()) != "");
  BOOST_TEST(refused({}, few.statistics()) == "");
  BOOST_TEST(refused({}, {.rows = 40, .width = k}) ==
             "gptq: expected calibration_options.moments to be true, got false");
}

/// By its own block of X^T X no group gets worse, and all together become better. Without a search
/// it is rounding to nearest.
template <class S>
void check_clip() {
  const index k = 64, group = S::group > 0 ? S::group : k;
  const auto x = alike(200, k);
  const auto w = normal<float>(10 * k, 12);
  auto nearest = rounded<S>(w, k, {}, ln::round_to_nearest{});
  auto none = rounded<S>(w, k, x.statistics(), ln::clip_search{.least = 1});
  BOOST_TEST(same_bits(none.data, nearest.data));
  BOOST_TEST(same_bits(none.scales, nearest.scales));
  auto clipped = rounded<S>(w, k, x.statistics(), ln::clip_search{});
  const auto p = nearest.numbers(), q = clipped.numbers();
  double before = 0, after = 0;
  for (index first = 0; first < std::ssize(w); first += group) {
    const auto error = [&](const std::vector<double>& numbers) {
      double sum = 0;
      for (index i = first; i < first + group; ++i)
        for (index j = first; j < first + group; ++j)
          sum += (static_cast<double>(w[at(i)]) - numbers[at(i)]) *
                 x.moments[at(i % k * k + j % k)] *
                 (static_cast<double>(w[at(j)]) - numbers[at(j)]);
      return sum;
    };
    BOOST_TEST(error(q) <= error(p) * (1 + 1e-12));
    before += error(p);
    after += error(q);
  }
  BOOST_TEST(after < 0.95 * before, after << " of " << before);
}
BOOST_AUTO_TEST_CASE(clip_search_is_never_worse) {
  check_clip<ln::storage::int4<>>();
  check_clip<ln::storage::int4<64>>();  // a whole row
  check_clip<ln::storage::nf4>();
}

/// The sum of |W - Q| never grows, and falls where few numbers are much larger than the rest.
template <class S>
void check_hqq() {
  const index k = 96;
  auto w = normal<float>(8 * k, 4);
  for (float& v : w) v *= v * v;
  const auto error = [&](auto q) {
    std::vector<double> sums(8);
    const auto numbers = q.numbers();
    for (std::size_t i = 0; i < w.size(); ++i)
      sums[i / at(k)] += std::abs(static_cast<double>(w[i]) - numbers[i]);
    return sums;
  };
  const auto before = error(rounded<S>(w, k, {}, ln::round_to_nearest{}));
  const auto none = error(rounded<S>(w, k, {}, ln::hqq{.iterations = 0}));
  const auto after = error(rounded<S>(w, k, {}, ln::hqq{}));
  double sum_before = 0, sum_after = 0;
  for (std::size_t r = 0; r < 8; ++r) {
    BOOST_TEST(after[r] <= none[r]);
    BOOST_TEST(none[r] <= before[r] * 1.001);  // as ggml rounds once more
    sum_before += before[r];
    sum_after += after[r];
  }
  BOOST_TEST(sum_after < 0.99 * sum_before, sum_after << ' ' << sum_before);
}
BOOST_AUTO_TEST_CASE(hqq_is_never_worse) {
  check_hqq<int8_group>();
  check_hqq<ln::storage::q4_1>();
}

/// Whole models: quantize() returns what sessions read, and on text that GPTQ has not seen the
/// model stays nearer to what it was than by rounding to nearest.
BOOST_AUTO_TEST_CASE(models) {
  using M = ln::decoder<ln::decoder_shape{.d_model = 24,
                                          .d_ff = 48,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .layers = 2,
                                          .vocabulary = 16,
                                          .context = 64}>;
  using S = ln::storage::per_role<ln::storage::int4<>, ln::storage::embedding<ln::storage::f32>>;
  const auto data = decoder_data<M>(8, 32), held_out = decoder_tokens(8, 32, M::vocabulary, 9);
  const ln::limits l = data.limits();
  ln::weights<M> w;
  randomize(w, 4);
  const auto view = [&](index) { return data.view(); };
  const auto c = ln::calibrate(w, view, l, {.batches = 1});
  const auto by_order = ln::quantize<S>(w, *c, ln::gptq{.act_order = true});
  const auto nearest = ln::quantize<S>(w, *c, ln::round_to_nearest{});
  BOOST_REQUIRE(c && by_order && nearest);
  BOOST_TEST(same_bytes(*nearest, ln::quantize<S>(w)));
  BOOST_TEST(same_bytes(*nearest, *ln::quantize<S>(w, ln::round_to_nearest{})));
  // What is looked up is rounded to nearest, though the tied head reads it, too.
  const auto whole = ln::quantize<ln::storage::int4<>>(w, *c, ln::gptq{});
  const auto table = ln::quantize<ln::storage::int4<>>(w);
  BOOST_REQUIRE(static_cast<bool>(whole));
  BOOST_TEST(same_bits(std::span(whole->tree().embedding.data, at(12 * M::vocabulary)),
                       std::span(table.tree().embedding.data, at(12 * M::vocabulary))));
  // Codes survive packing.
  const auto p = ln::pack(*by_order);
  BOOST_TEST(same_bytes(ln::unpack(p), *by_order));

  // KL of the quantized model from the one in f32: what its loss is above the best on text of it.
  const auto probabilities = [&](const auto& packed) {
    auto x = logits_of(packed, held_out);
    std::vector<double> all;
    for (index i = 0; i < std::ssize(x); i += M::vocabulary) {
      double sum = 0;
      for (index j = i; j < i + M::vocabulary; ++j) sum += std::exp(static_cast<double>(x[at(j)]));
      for (index j = i; j < i + M::vocabulary; ++j)
        all.push_back(std::exp(static_cast<double>(x[at(j)])) / sum);
    }
    return all;
  };
  const auto exact = probabilities(ln::pack(w));
  const auto divergence = [&](const std::vector<double>& q) {
    double sum = 0;
    for (std::size_t i = 0; i < q.size(); ++i) sum += exact[i] * std::log(exact[i] / q[i]);
    return sum;
  };
  const double ours = divergence(probabilities(p));
  const double rtn = divergence(probabilities(ln::pack(*nearest)));
  BOOST_TEST(ours < 0.8 * rtn, "nearest " << rtn << ", gptq " << ours);

  index ordinal = 0, better = 0, matrices = 0;
  M::visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& from, const auto& a,
          const auto& b) {
        const auto x = c->of(ordinal++);
        if constexpr (requires { a.scales; }) {
          if (info.kind != ln::role::matrix) return;
          const std::vector<float> exact_w(from.data, from.data + info.size());
          const auto error = [&](const auto& q) {
            std::vector<double> numbers;
            for (index r = 0; r < info.rows; ++r)
              for (index j = 0; j < info.columns; ++j) numbers.push_back(q.at(r, j, info.columns));
            return output_error(exact_w, numbers, x);
          };
          better += error(a) < error(b);
          ++matrices;
        }
      },
      ln::parameter_path{}, w.tree(), by_order->tree(), nearest->tree());
  BOOST_TEST(matrices == 14);
  BOOST_TEST(better == matrices);

  // Errors name the option or the tensor.
  const auto why = [](const auto& r) { return r ? std::string() : r.error().message(); };
  BOOST_TEST(why(ln::quantize<S>(w, *c, ln::gptq{.damp = -1})) ==
             "quantize: gptq.damp: expected at least 0, finite (0 needs more rows of inputs than "
             "inputs), got -1");
  const auto norms = ln::calibrate(w, view, l, {.batches = 12, .moments = false});
  BOOST_REQUIRE(static_cast<bool>(norms));
  BOOST_TEST(why(ln::quantize<S>(w, *norms, ln::gptq{})) ==
             "gptq: blocks.0.attention.q.weight: expected calibration_options.moments to be true, "
             "got false");
  auto unfit = w.clone();
  unfit.visit([](const ln::parameter_path& at_path, const ln::tensor_info&, auto& leaf) {
    if (at_path.str() == "blocks.1.ffn.up.weight")
      values_of(leaf)[7] = std::numeric_limits<float>::infinity();
  });
  BOOST_TEST(why(ln::quantize<S>(unfit, *c, ln::gptq{})) ==
             "quantize: blocks.1.ffn.up.weight: expected finite numbers, got a NaN or an infinity");
}

}  // namespace

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::rounding_methods_test
