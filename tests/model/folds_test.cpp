// SPDX-License-Identifier: MIT
// Folds into neighbouring tensors: exact before rounding, refused where they would not be, and
// better after rounding where inputs have outliers.

#include <array>
#include <random>

#include "support/compression.hpp"
#include "support/encoders.hpp"

namespace test::folds_test {

namespace {

template <class... Policies>
using small = ln::decoder<tiny_decoder_shape, Policies...>;

/// Statistics of the float weights of this seed.
template <class M, class Data>
ln::calibration<M> statistics(const ln::weights<M>& w, const Data& data) {
  const auto batches = [&](index) { return data.view(); };
  auto stats = ln::calibrate(w, batches, data.limits(), {.batches = 1, .rows_per_input = 0});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(stats), (stats ? "" : stats.error().message()));
  return std::move(*stats);
}

/// Largest difference, over the largest number.
template <class A, class B>
double difference(const std::vector<A>& a, const std::vector<B>& b) {
  double most = 0;
  for (const A x : a) most = (std::max)(most, std::abs(static_cast<double>(x)));
  return distance(a, b) / most;
}

/// Tensors that differ between two models.
template <class M, class T>
std::vector<std::string> changed(const ln::weights<M, T>& a, const ln::weights<M, T>& b) {
  std::vector<std::string> names;
  ln::each_tensor_of(
      [&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& x, const auto& y) {
        if (!std::equal(values_of(x), values_of(x) + info.size(), values_of(y)))
          names.push_back(at.str());
      },
      a, b);
  return names;
}
template <class List>
bool has(const List& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Smooths random weights in double: the same logits. Returns which tensors changed.
template <class M, class Data>
std::vector<std::string> check_smooth(const Data& data, bool inner) {
  ln::weights<M> single;
  ln::weights<M, double> w;
  randomize(single, 3);
  randomize(w, 3);
  const auto after = ln::smooth(w, statistics(single, data), {.inner = inner});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(after), (after ? "" : after.error().message()));
  BOOST_TEST(difference(logits_of(ln::pack(w), data), logits_of(ln::pack(*after), data)) < 1e-12);
  return changed(w, *after);
}

BOOST_AUTO_TEST_SUITE(folds)

BOOST_AUTO_TEST_CASE(smooth_is_exact_in_decoders) {
  const decoder_tokens data(2, 9, 11);
  const auto plain = check_smooth<small<>>(data, true);
  for (const char* const name :
       {"blocks.0.attention.norm.weight", "blocks.1.attention.q.weight",
        "blocks.1.attention.v.weight", "blocks.1.attention.o.weight", "blocks.0.ffn.norm.weight",
        "blocks.0.ffn.gate.weight", "blocks.1.ffn.up.weight", "blocks.1.ffn.down.weight"})
    BOOST_TEST(has(plain, name), name);
  BOOST_TEST(!has(plain, "norm.weight"));  // the tied head's table is looked up, too
  BOOST_TEST(!has(plain, "embedding.weight"));
  const auto outer = check_smooth<small<ln::tie::untied>>(data, false);
  BOOST_TEST(has(outer, "norm.weight"));
  BOOST_TEST(has(outer, "head.weight"));
  BOOST_TEST(!has(outer, "blocks.0.attention.o.weight"));
  BOOST_TEST(!has(outer, "blocks.0.ffn.down.weight"));
  // LayerNorm, biases; a GELU keeps its output, a ReLU does not.
  const auto gelu = check_smooth<
      small<ln::norm::layer_norm, ln::bias::all, ln::ffn::gelu_tanh, ln::position::learned>>(data,
                                                                                             true);
  BOOST_TEST(has(gelu, "blocks.0.ffn.norm.bias"));
  BOOST_TEST(has(gelu, "blocks.0.attention.v.bias"));
  BOOST_TEST(!has(gelu, "blocks.0.ffn.wo.weight"));
  BOOST_TEST(
      has(check_smooth<small<ln::bias::all, ln::ffn::relu>>(data, true), "blocks.0.ffn.wo.weight"));
}

BOOST_AUTO_TEST_CASE(smooth_is_exact_where_blocks_share) {
  const decoder_tokens data(2, 9, 11);
  (void)check_smooth<small<ln::sharing::ffn>>(data, true);
  (void)check_smooth<small<ln::sharing::all>>(data, true);
  (void)check_smooth<small<ln::sharing::lora<2>>>(data, true);
  (void)check_smooth<small<ln::ffn::low_rank<3>, ln::attention::low_rank<2>>>(data, true);
  (void)check_smooth<small<ln::embedding::factorised<5>>>(data, true);
}

BOOST_AUTO_TEST_CASE(smooth_is_exact_in_other_families) {
  const auto t5 = check_smooth<ln::t5<tiny_t5_shape>>(t5_tokens(2, 7, 5, 11), true);
  BOOST_TEST(has(t5, "encoder.norm.weight"));  // read by all cross-attentions
  BOOST_TEST(has(t5, "decoder.blocks.1.cross.v.weight"));
  BOOST_TEST(has(t5, "encoder.blocks.0.ffn.wo.weight"));
}

BOOST_AUTO_TEST_CASE(smooth_is_exact_in_encoders) {
  using pre = ln::encoder<tiny_encoder_shape, ln::norm_placement::pre>;
  using post = ln::encoder<tiny_encoder_shape, ln::sharing::all>;
  const auto data = encoder_data<pre>();
  BOOST_TEST(has(check_smooth<pre>(data, false), "blocks.1.ffn.norm.bias"));
  // A norm behind the sum is the residual stream itself: values alone can be scaled.
  const auto inner = check_smooth<post>(data, true);
  BOOST_TEST(inner.size() == 3u);
  BOOST_TEST(has(inner, "blocks.shared.attention.v.bias"));
  ln::weights<post> w;
  randomize(w);
  const auto none = ln::smooth(w, statistics(w, data));
  BOOST_REQUIRE(!none);
  BOOST_TEST(none.error().message() ==
             "smooth: model: expected one with a norm that feeds nothing but matrices (see "
             "docs/compression.md), got one without");
}

/// Shifts all sets that may be, and then scales queries and keys: the same logits. Returns how many
/// sets were shifted.
template <class M, class Data>
index check_shifts_and_scores(const Data& data) {
  ln::weights<M, double> w;
  randomize(w, 3);
  const auto exact = logits_of(ln::pack(w), data);
  const ln::detail::channel_map<double> map(w);
  ln::random_stream random(ln::seed{7}, 0);
  index shifted = 0;
  for (const auto& set : map.sets()) {
    if (!ln::detail::can_shift(set)) continue;
    ++shifted;
    std::vector<float> shifts;
    for (index i = 0; i < set.width; ++i) shifts.push_back(static_cast<float>(random.normal()));
    const auto before = w.clone();
    ln::detail::shift_channels(set, shifts);
    BOOST_TEST(!same_bytes(before, w));
    BOOST_TEST(difference(exact, logits_of(ln::pack(w), data)) < 1e-12);
  }
  BOOST_TEST(map.scores().size() == static_cast<std::size_t>(tiny_decoder_shape.layers));
  for (const auto& set : map.scores()) {
    std::vector<double> scales(static_cast<std::size_t>(set.width), 1);
    for (index i = 0; i < set.width; ++i) {
      const auto one = static_cast<std::size_t>(i),
                 other = static_cast<std::size_t>(set.partner_of(i));
      scales[one] = scales[other] = std::exp(random.normal());
    }
    ln::detail::scale_channels(set, scales);
    BOOST_TEST(difference(exact, logits_of(ln::pack(w), data)) < 1e-12);
    if (set.pairing == ln::rope_pairing::none) continue;
    scales.assign(scales.size(), 1);
    scales[0] = 2;  // and not what rotary positions mix with it
    ln::detail::scale_channels(set, scales);
    BOOST_TEST(difference(exact, logits_of(ln::pack(w), data)) > 1e-6);
    scales[0] = 0.5;
    ln::detail::scale_channels(set, scales);
  }
  return shifted;
}

BOOST_AUTO_TEST_CASE(shifts_and_scores_are_exact) {
  const decoder_tokens data(2, 9, 11);
  // Both norms and values; the final norm feeds a head without biases.
  using gelu =
      small<ln::norm::layer_norm, ln::bias::all, ln::ffn::gelu_tanh, ln::position::learned>;
  using relu = small<ln::bias::all, ln::ffn::relu>;
  BOOST_TEST(check_shifts_and_scores<gelu>(data) == 2 * 3);
  BOOST_TEST(check_shifts_and_scores<small<>>(data) == 0);  // no biases
  BOOST_TEST(check_shifts_and_scores<relu>(data) == 2);     // values alone
  using pre = ln::encoder<tiny_encoder_shape, ln::norm_placement::pre>;
  BOOST_TEST(check_shifts_and_scores<pre>(encoder_data<pre>()) == 2 * 3);
}

BOOST_AUTO_TEST_CASE(partners_are_those_that_rotary_positions_mix) {
  constexpr index h = 8;
  std::vector<double> angles(h);
  ln::ops::rope_angles(3, h, 10.0, angles.data());
  for (const auto pairing :
       {ln::rope_pairing::none, ln::rope_pairing::interleaved, ln::rope_pairing::half}) {
    ln::detail::channel_set<float> set{2 * h, h};
    set.pairing = pairing;
    for (index c = 0; c < 2 * h; ++c) {
      std::vector<double> x(2 * h);
      x[at(c)] = 1;
      if (pairing != ln::rope_pairing::none)
        ln::ops::rope_row(pairing, 2, h, angles.data(), x.data(), false);
      for (index other = 0; other < 2 * h; ++other)
        BOOST_TEST((x[at(other)] != 0) == (other == c || other == set.partner_of(c)));
    }
  }
}

/// Calls f(numbers, tensor_info) for the tensor of that name.
template <class M, class F>
void change(ln::weights<M>& w, const std::string& name, F&& f) {
  bool found = false;
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    if (at.str() == name) f(values_of(leaf), info), found = true;
  });
  BOOST_REQUIRE_MESSAGE(found, name);
}

/// Weights in which channel 3 of what each norm makes is 128 times as large as the others.
using planted = ln::decoder<ln::decoder_shape{.d_model = 32,
                                              .d_ff = 48,
                                              .heads = 4,
                                              .kv_heads = 2,
                                              .layers = 2,
                                              .vocabulary = 19,
                                              .context = 32}>;
ln::weights<planted> with_outliers() {
  ln::weights<planted> w;
  randomize(w, 5);
  for (const std::string block : {"blocks.0.", "blocks.1."})
    for (const std::string part : {"attention.", "ffn."}) {
      change(w, block + part + "norm.weight", [](float* x, const auto&) { x[3] *= 128; });
      for (const std::string name : {"q", "k", "v", "gate", "up"})
        if ((name.size() == 1) == (part == "attention."))
          change(w, block + part + name + ".weight", [](float* x, const ln::tensor_info& info) {
            for (index r = 0; r < info.rows; ++r) x[r * info.columns + 3] /= 128;
          });
    }
  return w;
}

BOOST_AUTO_TEST_CASE(smooth_tames_outliers_of_inputs) {
  const auto w = with_outliers();
  const decoder_tokens data(3, 16, 19);
  const auto stats = statistics(w, data);
  const auto exact = logits_of(ln::pack(w), data);
  const auto off = [&](const ln::weights<planted>& some) {
    const auto q = ln::quantize<ln::storage::int8, ln::compute::int8>(some);
    return difference(exact, logits_of(ln::pack(q), data));
  };
  const auto half = ln::smooth(w, stats);
  BOOST_REQUIRE(static_cast<bool>(half));
  BOOST_TEST(off(*half) < 0.3 * off(w));
  // All of the outliers in the weights is no better than all of them in the inputs.
  BOOST_TEST(off(*half) < off(*ln::smooth(w, stats, {.alpha = 0})));
}

BOOST_AUTO_TEST_CASE(smooth_refuses_options) {
  ln::weights<small<>> w;
  randomize(w);
  const auto refused = ln::smooth(w, statistics(w, decoder_tokens(2, 9, 11)), {.alpha = 1.5});
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().what == "smoothquant.alpha");
}

/// Has the matrices of a fixture as its gate and up.
using fixed = ln::decoder<ln::decoder_shape{.d_model = 28,
                                            .d_ff = 6,
                                            .heads = 2,
                                            .kv_heads = 2,
                                            .layers = 1,
                                            .vocabulary = 11,
                                            .context = 32}>;
template <class S>
void check_awq(const std::string& name) {
  const auto in = fixture("inputs"), expected = fixture(name);
  ln::weights<fixed> w;
  randomize(w, 1);
  const auto fill = [](const std::vector<double>& from) {
    return [&from](float* x, const ln::tensor_info& info) {
      for (index i = 0; i < info.size(); ++i) x[i] = static_cast<float>(from[at(i)]);
    };
  };
  change(w, "blocks.0.ffn.gate.weight", fill(in.at("weights")));
  change(w, "blocks.0.ffn.up.weight", fill(expected.at("second")));
  change(w, "blocks.0.ffn.norm.weight", fill(std::vector<double>(28, 1)));
  ln::calibration<fixed> stats;
  w.visit([&](const ln::parameter_path& path, const ln::tensor_info&, const auto&) {
    const auto text = path.str();
    stats.state().places.push_back(
        text == "blocks.0.ffn.gate.weight" || text == "blocks.0.ffn.up.weight" ? 0 : -1);
  });
  auto& x = stats.state().inputs.emplace_back();
  BOOST_REQUIRE(x.open(28, true));
  x.rows = static_cast<index>(in.at("rows")[0]);
  std::copy_n(in.at("moments").begin(), 28 * 28, x.moments);
  std::copy_n(expected.at("magnitudes").begin(), 28, x.magnitudes);
  const auto rounded = ln::quantize<S>(w, stats, ln::awq{});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(rounded), (rounded ? "" : rounded.error().message()));
  rounded->visit(
      [&](const ln::parameter_path& path, const ln::tensor_info& info, const auto& leaf) {
        const auto text = path.str();
        if constexpr (requires { leaf.scales; }) {
          const bool second = text == "blocks.0.ffn.up.weight";
          if (!second && text != "blocks.0.ffn.gate.weight") return;
          const std::string which = second ? "second_" : "";
          std::vector<double> codes, scales, zeros;
          for (index r = 0; r < info.rows; ++r) {
            for (index j = 0; j < 28; ++j) codes.push_back(S::decode(leaf.code(r, j, 28)));
            for (index g = 0; g < ln::row_scales<S>(28); ++g) {
              scales.push_back(static_cast<double>(leaf.grid(r, g, 28).scale));
              zeros.push_back(static_cast<double>(leaf.grid(r, g, 28).zero));
            }
          }
          BOOST_TEST(codes == expected.at(which + "codes"), boost::test_tools::per_element());
          BOOST_TEST(scales == expected.at(which + "scales"), boost::test_tools::per_element());
          if (S::centred)
            BOOST_TEST(zeros == expected.at(which + "zeros"), boost::test_tools::per_element());
        } else if (text == "blocks.0.ffn.norm.weight") {
          for (index j = 0; j < 28; ++j)
            BOOST_TEST(std::abs(static_cast<double>(leaf[j]) * expected.at("inputs")[at(j)] - 1) <
                       1e-6);
        }
      });
}
BOOST_AUTO_TEST_CASE(awq_codes_of_the_reference) {
  check_awq<ln::storage::int4<8>>("awq_int4");
  check_awq<ln::storage::int8_per<ln::storage::granularity::group,
                                  ln::storage::symmetry::asymmetric, 16>>(
      "awq_int8_group_asymmetric");
}

BOOST_AUTO_TEST_CASE(awq_scales_are_exact_and_help) {
  using S = ln::storage::int4<16>;
  const decoder_tokens data(3, 16, 19);
  const auto w = with_outliers();
  const auto stats = statistics(w, data);
  const auto scaled = ln::smooth<S>(w, stats, ln::awq{});
  BOOST_REQUIRE(static_cast<bool>(scaled));
  BOOST_TEST(has(changed(w, *scaled), "blocks.0.attention.norm.weight"));
  const auto exact = logits_of(ln::pack(w), data);
  BOOST_TEST(difference(exact, logits_of(ln::pack(*scaled), data)) < 1e-5);
  // One ratio is none at all.
  const auto one = ln::smooth<S>(w, stats, ln::awq{.ratios = 1});
  BOOST_REQUIRE(static_cast<bool>(one));
  BOOST_TEST(changed(w, *one).empty());
  const auto rounded = ln::quantize<S>(w, stats, ln::awq{});
  BOOST_REQUIRE(static_cast<bool>(rounded));
  BOOST_TEST(difference(exact, logits_of(ln::pack(*rounded), data)) <
             0.7 * difference(exact, logits_of(ln::pack(ln::quantize<S>(w)), data)));
  auto without = ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                               {.batches = 1, .moments = false, .rows_per_input = 0});
  BOOST_REQUIRE(static_cast<bool>(without));
  BOOST_TEST(ln::quantize<S>(w, *without, ln::awq{}).error().message() ==
             "awq: expected calibration_options.moments to be true, got false");
}

/// Scales are searched with the codes, corrections and rounded scales that the storage has.
template <class S>
void check_awq_helps() {
  const decoder_tokens data(3, 16, 19);
  const auto w = with_outliers();
  const auto exact = logits_of(ln::pack(w), data);
  const auto rounded = ln::quantize<S>(w, statistics(w, data), ln::awq{});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(rounded), (rounded ? "" : rounded.error().message()));
  BOOST_TEST(difference(exact, logits_of(ln::pack(*rounded), data)) <
             difference(exact, logits_of(ln::pack(ln::quantize<S>(w)), data)));
}
BOOST_AUTO_TEST_CASE(awq_of_storages_with_more_than_codes) {
  check_awq_helps<ln::storage::outlier_columns<ln::storage::int4<16>, 1>>();
  check_awq_helps<ln::storage::nf4_double_per<16>>();
}

/// Rotates random weights in double: the same logits. Returns which tensors changed.
template <class M, class Data>
void check_rotate(const Data& data) {
  ln::weights<M, double> w;
  randomize(w, 3);
  const auto after = ln::rotate(w, ln::quarot{.seed = 4});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(after), (after ? "" : after.error().message()));
  BOOST_TEST(difference(logits_of(ln::pack(w), data), logits_of(ln::pack(*after), data)) < 1e-10);
  // Nothing but norms stays: not a single number of the other tensors that touch the stream.
  index same = 0;
  M::visit(
      [&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& x, const auto& y) {
        if (at.str().ends_with("norm.weight"))
          for (index i = 0; i < info.size(); ++i) BOOST_TEST(values_of(y)[i] == 1.0);
        else if (info.kind == ln::role::matrix || info.kind == ln::role::table)
          same += std::equal(values_of(x), values_of(x) + info.size(), values_of(y));
      },
      ln::parameter_path{}, w.tree(), after->tree());
  BOOST_TEST(same == 0);
}
template <class M>
std::string refusal() {
  ln::weights<M> w;
  randomize(w);
  const auto after = ln::rotate(w);
  BOOST_REQUIRE(!after);
  return after.error().message();
}

BOOST_AUTO_TEST_CASE(rotate_is_exact) {
  const decoder_tokens data(2, 9, 11);
  static_assert(std::is_same_v<ln::rotated<small<>>, small<ln::tie::untied>>);
  check_rotate<small<>>(data);
  check_rotate<small<ln::tie::untied, ln::bias::all, ln::ffn::relu, ln::position::learned>>(data);
  check_rotate<small<ln::ffn::reparam<2>, ln::attention::sliding_window<4>>>(data);
  check_rotate<small<ln::sharing::all>>(data);
  check_rotate<ln::t5<tiny_t5_shape>>(t5_tokens(2, 7, 5, 11));
  // 28 numbers have a Hadamard matrix, heads of 14 are rotated in blocks of 2.
  check_rotate<fixed>(data);
}

/// Folds the norms of random weights in double: the same logits, and gains of 1 but of `left`.
template <class M, class Data>
void check_fold(const Data& data, ln::unfolded others = ln::unfolded::refuse,
                const std::string& left = "") {
  ln::weights<M, double> w;
  randomize(w, 3);
  const auto after = ln::fold_norms(w, others);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(after), (after ? "" : after.error().message()));
  BOOST_TEST(difference(logits_of(ln::pack(w), data), logits_of(ln::pack(*after), data)) < 1e-13);
  index folded = 0;
  after->visit([&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& leaf) {
    if (!at.str().ends_with("norm.weight")) return;
    const bool ones = std::all_of(values_of(leaf), values_of(leaf) + info.size(),
                                  [](double x) { return x == 1; });
    BOOST_TEST(ones == (at.str() != left), at.str());
    folded += ones;
  });
  BOOST_TEST(folded > 0);
}
template <class M>
std::string fold_refusal() {
  ln::weights<M> w;
  randomize(w);
  const auto after = ln::fold_norms(w);
  BOOST_REQUIRE(!after);
  return after.error().message();
}

BOOST_AUTO_TEST_CASE(norms_fold_exactly) {
  const decoder_tokens data(2, 9, 11);
  check_fold<small<ln::ffn::reparam<2>, ln::attention::sliding_window<4>>>(data, ln::unfolded::keep,
                                                                           "norm.weight");
  check_fold<small<ln::tie::untied, ln::norm::layer_norm, ln::bias::all, ln::ffn::relu>>(data);
  check_fold<ln::t5<tiny_t5_shape>>(t5_tokens(2, 7, 5, 11), ln::unfolded::keep,
                                    "decoder.norm.weight");
}
BOOST_AUTO_TEST_CASE(norms_that_do_not_fold) {
  using shared = small<ln::sharing::ffn, ln::tie::untied>;
  const std::string rule = "expected a norm that maps alone read, got ";
  BOOST_TEST(fold_refusal<ln::t5<tiny_t5_shape>>() ==
             "fold_norms: decoder.norm.weight: " + rule +
                 "a tied head, whose table is looked up, too");
  BOOST_TEST(fold_refusal<shared>().ends_with(
      rule + "norms of unlike gains before a map that they share"));
}

BOOST_AUTO_TEST_CASE(rotate_refuses_what_is_no_rotation) {
  const std::string rule =
      "rotate: the residual stream: expected one that only matrices and RMSNorms read and write, "
      "got ";
  BOOST_TEST(refusal<small<ln::norm::layer_norm>>() ==
             rule + "a LayerNorm, which subtracts the mean of the channels");
  BOOST_TEST((refusal<ln::encoder<tiny_encoder_shape, ln::norm::rms>>()) ==
             rule + "a norm that writes it");
  BOOST_TEST(refusal<small<ln::sharing::ffn>>() ==
             rule + "norms of unlike weights before a matrix that they share");
  using mamba = small<ln::mixer::mamba<2, 2>, ln::position::none>;
  BOOST_TEST(refusal<mamba>() == rule + "a layer that does not say which channels it writes");
}

BOOST_AUTO_TEST_CASE(rotate_spreads_outliers) {
  const decoder_tokens data(3, 16, 19);
  ln::weights<planted> w;
  randomize(w, 5);
  // One channel of the stream is large for all tokens, and small in what reads it.
  change(w, "embedding.weight", [](float* x, const ln::tensor_info& info) {
    for (index r = 0; r < info.rows; ++r) x[r * info.columns + 3] = 15;
  });
  change(w, "norm.weight", [](float* x, const auto&) { x[3] /= 15; });
  for (const std::string block : {"blocks.0.", "blocks.1."})
    for (const std::string part : {"attention.", "ffn."})
      change(w, block + part + "norm.weight", [](float* x, const auto&) { x[3] /= 15; });
  const auto turned = ln::rotate(w);
  BOOST_REQUIRE(static_cast<bool>(turned));
  const auto exact = logits_of(ln::pack(w), data);
  const auto off = [&](const auto& some) {
    const auto q = ln::quantize<ln::storage::int8, ln::compute::int8>(some);
    return difference(exact, logits_of(ln::pack(q), data));
  };
  BOOST_TEST(off(*turned) < 0.7 * off(w));
  // Another seed is another rotation.
  const auto other = ln::rotate(w, ln::quarot{.seed = 2});
  BOOST_REQUIRE(static_cast<bool>(other));
  BOOST_TEST(has(changed(*turned, *other), "embedding.weight"));
  const auto stream_alone = ln::rotate(w, ln::quarot{.heads = false});
  BOOST_REQUIRE(static_cast<bool>(stream_alone));
  BOOST_TEST(difference(exact, logits_of(ln::pack(*stream_alone), data)) < 1e-4);
}

/// Rotates online, and the rest behind it: the same logits.
template <class M>
void check_online() {
  const decoder_tokens data(2, 9, 11);
  ln::weights<M, double> w;
  randomize(w, 3);
  const auto after = ln::rotate_online(w);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(after), (after ? "" : after.error().message()));
  const auto exact = logits_of(ln::pack(w), data);
  BOOST_TEST(difference(exact, logits_of(ln::pack(*after), data)) < 1e-10);
  const auto both = ln::rotate(*after);
  BOOST_REQUIRE(static_cast<bool>(both));
  BOOST_TEST(difference(exact, logits_of(ln::pack(*both), data)) < 1e-10);
}
/// A hidden width that is no block of one number.
template <class... Policies>
using wide = ln::decoder<ln::decoder_shape{.d_model = 8,
                                           .d_ff = 12,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .layers = 2,
                                           .vocabulary = 11,
                                           .context = 64,
                                           .eps = 1e-3},
                         Policies...>;
BOOST_AUTO_TEST_CASE(rotate_online_is_exact) {
  static_assert(
      std::is_same_v<ln::online_rotated<wide<>>,
                     wide<ln::ffn::hadamard<ln::ffn::swiglu>, ln::attention::hadamard<>>>);
  check_online<wide<>>();
  check_online<wide<ln::ffn::gelu, ln::attention::sinks<2, 3>, ln::bias::all>>();
  using uneven = wide<ln::attention::per_layer<ln::attention::full, 2, 4>>;
  static_assert(std::is_same_v<ln::online_rotated<uneven>::attention,
                               ln::attention::per_layer<ln::attention::hadamard<>, 2, 4>>);
  check_online<uneven>();
  ln::weights<wide<>, double> w;
  randomize(w, 3);
  const auto after = ln::rotate_online(w);
  BOOST_REQUIRE(static_cast<bool>(after));
  const auto numbers = [](const auto& some, const std::string& name) {
    std::vector<double> x;
    some.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& leaf) {
      if (at.str() == name) x.assign(values_of(leaf), values_of(leaf) + info.size());
    });
    return x;
  };
  for (const std::string name : {"blocks.1.ffn.down.weight", "blocks.1.ffn.up.weight"}) {
    const auto x = numbers(w, name), y = numbers(*after, name);
    BOOST_TEST(x.size() == 96u);
    BOOST_TEST((distance(x, y) > 0.1) == (name == "blocks.1.ffn.down.weight"));
  }
}

BOOST_AUTO_TEST_CASE(rotated_layers_train) {
  using model = ln::online_rotated<wide<>>;
  check_model<model>(decoder_data<model>(), 0.25);
}

/// A rotation that is learned turns a side as its matrix says, and a step solves for Cayley's
/// transform of the gradient by that matrix.
BOOST_AUTO_TEST_CASE(rotations_step_down_the_gradient) {
  constexpr index n = 36, length = 2 * n, depth = 131;  // no whole panels, strips or blocks
  const ln::quarot::rotation start({.seed = 3}, n, 0);
  const ln::ops::execution on{};
  const auto read = [&](const ln::detail::learned_rotation& r) {
    std::vector<float> one(n * n), to(n * n);
    for (index i = 0; i < n; ++i) one[at(i * n + i)] = 1;
    r.turn(on, {nullptr, n, n, ln::role::matrix, true}, one.data(), to.data());
    return std::vector<double>(to.begin(), to.end());
  };
  const auto product = [&](const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> c(n * n);
    for (index i = 0; i < n; ++i)
      for (index k = 0; k < n; ++k)
        for (index j = 0; j < n; ++j) c[at(i * n + j)] += a[at(i * n + k)] * b[at(k * n + j)];
    return c;
  };
  for (const bool by_columns : {true, false}) {
    ln::detail::learned_rotation rotation(n, start);
    const auto r = read(rotation);
    const ln::detail::channel_side<float> side{nullptr, by_columns ? depth : length,
                                               by_columns ? length : depth, ln::role::matrix,
                                               by_columns};
    std::vector<float> w(length * depth), d(w.size()), to(w.size());
    std::mt19937 random(7);
    for (auto* const x : {&w, &d})
      for (float& v : *x) v = static_cast<float>(random() % 2001) / 1000 - 1;
    rotation.turn(on, side, w.data(), to.data());
    // K = R^T dL/dR sums up over all rows and blocks of channels.
    std::vector<double> k(n * n);
    double off = 0;
    for (index first = 0; first < length; first += n)
      for (index i = 0; i < depth; ++i) {
        std::array<double, n> y{};
        for (index a = 0; a < n; ++a)
          for (index b = 0; b < n; ++b)
            y[at(b)] += static_cast<double>(w[at(side.place(first + a, i))]) * r[at(a * n + b)];
        for (index a = 0; a < n; ++a) {
          off = (std::max)(
              off, std::abs(y[at(a)] - static_cast<double>(to[at(side.place(first + a, i))])));
          for (index b = 0; b < n; ++b)
            k[at(a * n + b)] += y[at(a)] * static_cast<double>(d[at(side.place(first + b, i))]);
        }
      }
    BOOST_TEST(off < 1e-5);
    rotation.add(on, side, to.data(), d.data());
    const double share = 3e-3, t = 0.5;
    rotation.step(t, share);
    const auto after = read(rotation);
    // R' (I + t A / 2) = R (I - t A / 2); the step is shorter than what cuts it.
    std::vector<double> plus(n * n), minus(n * n), turned(n * n), one(n * n);
    double size = 0;
    for (index i = 0; i < n; ++i) {
      double sum = 0;
      for (index j = 0; j < n; ++j) {
        const double a = share * (k[at(i * n + j)] - k[at(j * n + i)]) / 2;
        sum += std::abs(a);
        one[at(i * n + j)] = i == j;
        plus[at(i * n + j)] = (i == j) + t / 2 * a;
        minus[at(i * n + j)] = (i == j) - t / 2 * a;
        turned[at(j * n + i)] = after[at(i * n + j)];
      }
      size = (std::max)(size, sum);
    }
    BOOST_TEST(size < 1 / t);
    BOOST_TEST(distance(after, r) > 0.01);
    BOOST_TEST(distance(product(after, plus), product(r, minus)) < 1e-5);
    BOOST_TEST(distance(product(after, turned), one) < 1e-5);
  }
}

BOOST_AUTO_TEST_CASE(learned_rotations_lose_less) {
  using S = ln::storage::int4<16>;
  ln::weights<planted> w;
  randomize(w, 5);
  const decoder_tokens data(3, 16, 19);
  const auto batches = [&](index i) { return i == 0 ? data.view() : ln::decoder_batch{}; };
  const auto learn = [&](auto storage, index steps) {
    auto turned = ln::rotate<decltype(storage)>(w, batches, data.limits(),
                                                ln::spinquant{.seed = 3, .steps = steps});
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(turned), (turned ? "" : turned.error().message()));
    return std::move(*turned);
  };
  const auto start = learn(S{}, 0), learned = learn(S{}, 12);
  // A step without batches ends it: of two steps whose text ends behind the start, the start is
  // left.
  index reads = 0;
  const auto once = [&](index i) {
    return i == 0 && reads++ == 0 ? data.view() : ln::decoder_batch{};
  };
  const auto ended = ln::rotate<S>(w, once, data.limits(), ln::spinquant{.seed = 3, .steps = 2});
  BOOST_REQUIRE(static_cast<bool>(ended));
  BOOST_TEST(test::same_bytes(*ended, start));
  auto two = data.limits();
  two.threads = 2;
  const auto shared = ln::rotate<S>(w, batches, two, ln::spinquant{.seed = 3, .steps = 12});
  BOOST_REQUIRE(static_cast<bool>(shared));
  BOOST_TEST(test::same_bytes(*shared, learned));
  // The same function: rotations stay orthogonal.
  const auto exact = logits_of(ln::pack(w), data);
  BOOST_TEST(difference(exact, logits_of(ln::pack(learned), data)) < 1e-4);
  const auto nats = [&](const auto& some) {
    const auto p = ln::pack(ln::quantize<S>(some));
    auto scoring = ln::evaluator<ln::quantized<ln::rotated<planted>, S>>::open(p, data.limits());
    BOOST_REQUIRE(static_cast<bool>(scoring));
    return scoring->loss(data.view()).nats;
  };
  BOOST_TEST(nats(learned) < 0.98 * nats(start), nats(learned) << " after " << nats(start));
  // Without rounding no rotation is better than another: the gradient is zero, unless it lacks a
  // tensor that the rotation turns.
  const auto same = learn(ln::storage::f32{}, 3);
  ln::each_tensor_of(
      [&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& x, const auto& y) {
        BOOST_TEST(distance(std::span(values_of(x), test::at(info.size())),
                            std::span(values_of(y), test::at(info.size()))) < 1e-3,
                   at.str());
      },
      start, same);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::folds_test
