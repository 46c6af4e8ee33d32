// SPDX-License-Identifier: MIT
// Pipelines: one type however it is reached, orders that are refused, and weights that are those of
// the functions called one by one.

#include "support/compression.hpp"
#include "support/data.hpp"

namespace test::pipeline_test {

namespace {

namespace storage = ln::storage;
namespace step = ln::step;
using int4 = storage::int4<8>;

template <class... Policies>
using model = ln::decoder<tiny_decoder_shape, Policies...>;
template <class M, class... Steps>
using made = typename ln::pipeline<M, Steps...>::type;
using t5 = ln::t5<tiny_t5_shape, ln::ffn::reparam<2>>;

// One type however it is reached: that of the model spelled in full.
static_assert(std::is_same_v<made<model<>>, model<>>);
static_assert(std::is_same_v<made<model<ln::ffn::reparam<2>>, step::collapse, step::quantize<int4>>,
                             model<ln::ffn::linear, int4>>);
static_assert(
    std::is_same_v<made<model<ln::sharing::all>, step::unshare, step::rotate, step::rotate_online,
                        step::train<>, step::smooth, step::quantize<int4, ln::compute::int8>>,
                   made<model<ln::sharing::all>, step::smooth, step::rotate_online, step::rotate,
                        step::unshare, step::quantize<int4, ln::compute::int8>>>);
static_assert(std::is_same_v<made<model<>, step::rotate>, model<ln::tie::untied>>);
static_assert(
    std::is_same_v<made<t5, step::collapse, step::rotate, step::quantize<storage::int8>>,
                   ln::t5<tiny_t5_shape, ln::ffn::linear, ln::tie::untied, storage::int8>>);
static_assert(std::is_same_v<made<model<>, step::quantize<storage::outlier_columns<int4, 2>>>,
                             model<storage::outlier_columns<int4, 2>>>);
// A method is a value: it is not in the type.
static_assert(std::is_same_v<made<model<>, decltype(step::quantize<int4>{}.by(ln::hqq{}))>,
                             made<model<>, step::quantize<int4>>>);

// Orders and models that a step does not accept.
template <class M, class... Steps>
inline constexpr bool refused = !ln::composes<M, Steps...>;
using round = step::quantize<int4>;
static_assert(ln::composes<model<>, step::rotate, round>);
static_assert(refused<model<>, round, step::rotate>);
static_assert(refused<model<>, round, step::smooth>);
static_assert(refused<model<>, round, step::rotate_online>);
static_assert(refused<model<>, round, step::unshare>);
static_assert(refused<model<>, round, step::train<>>);
static_assert(refused<model<>, round, round>);
// Some of its numbers are in full, others are not.
static_assert(
    refused<model<>, step::quantize<storage::layers<storage::f32, storage::last<1, int4>>>,
            step::rotate>);
static_assert(refused<model<ln::ffn::reparam<2>>, round, step::collapse>);
static_assert(refused<model<>, step::collapse>);
static_assert(refused<t5, step::unshare>);
static_assert(refused<t5, step::rotate_online>);
static_assert(refused<model<>, step::rotate_online, step::rotate_online>);
static_assert(refused<model<ln::embedding::factorised<4>>, step::rotate>);
static_assert(ln::composes<model<ln::embedding::factorised<4>, ln::tie::untied>, step::rotate>);
static_assert(refused<model<>, int>);

/// A model with what steps read and nothing else: it cannot run, so what a pipeline does with the
/// models in between is no more than visit() and weights.
template <class Storage, index Rows>
struct bare {
  using storage = Storage;
  template <class Other>
  using with_storage = bare<Other, Rows>;
  template <class Form>
  struct params {
    typename Form::matrix weight{};
  };
  static constexpr void visit(auto&& f, const ln::parameter_path& at, auto&... p) {
    f(at / "weight", ln::tensor_info{Rows, 8}, p.weight...);
  }
};
/// A step from outside: the first rows alone.
template <index Rows>
struct narrow {
  template <class M>
  static constexpr bool accepts = std::is_same_v<typename M::storage, storage::f32>;
  template <class M>
  using type = bare<storage::f32, Rows>;
  template <class M>
  auto apply(const ln::weights<M>& w) const {
    ln::weights<type<M>> cut;
    std::copy_n(w.tree().weight.data, Rows * 8, cut.tree().weight.data);
    return cut;
  }
};
static_assert(
    std::is_same_v<made<bare<storage::f32, 6>, narrow<4>, narrow<2>, round>, bare<int4, 2>>);

}  // namespace

BOOST_AUTO_TEST_SUITE(pipeline)

BOOST_AUTO_TEST_CASE(models_between_are_weights_alone) {
  ln::weights<bare<storage::f32, 6>> w;
  randomize(w);
  const auto q = ln::apply(w, narrow<4>{}, narrow<2>{}, round{});
  LINNET_REQUIRE_OK(q);
  const auto whole = ln::quantize<int4>(w);
  for (index j = 0; j < 16; ++j)
    BOOST_TEST(q->tree().weight.at(j / 8, j % 8, 8) == whole.tree().weight.at(j / 8, j % 8, 8));
}

BOOST_AUTO_TEST_CASE(weights_are_those_of_the_functions) {
  using M = model<ln::ffn::reparam<2>, ln::sharing::repeat<2>>;
  ln::weights<M> w;
  randomize(w);
  const ln::quarot signs{.seed = 7};
  const auto q = ln::apply(w, step::collapse{}, step::unshare{}, step::rotate{signs},
                           step::rotate_online{}, step::quantize<int4>{});
  LINNET_REQUIRE_OK(q);
  const auto turned = ln::rotate(ln::unshare(ln::collapse(w)), signs);
  LINNET_REQUIRE_OK(turned);
  const auto online = ln::rotate_online(*turned);
  LINNET_REQUIRE_OK(online);
  BOOST_TEST(same_bytes(*q, ln::quantize<int4>(*online)));
  // In double, as far as steps know it.
  ln::weights<M, double> exact;
  randomize(exact);
  const auto apart = ln::apply(exact, step::unshare{}, step::collapse{});
  LINNET_REQUIRE_OK(apart);
  BOOST_TEST(same_bytes(*apart, ln::collapse(ln::unshare(exact))));
}

// Each step calibrates on the model that it is given.
BOOST_AUTO_TEST_CASE(methods_read_the_model_before_them) {
  ln::weights<model<>> w;
  randomize(w);
  decoder_tokens data(4, 20, 11);
  const auto batches = [&](index i) { return data.part(i, 1); };
  const ln::calibration_text text{batches, {.target = 20}, {.batches = 4}};
  const auto q = ln::apply(w, step::smooth{}.by(ln::smoothquant{}, text),
                           round{}.by(ln::gptq{.act_order = true}, text));
  LINNET_REQUIRE_OK(q);
  const auto before = ln::calibrate(w, batches, {.target = 20}, {.batches = 4});
  LINNET_REQUIRE_OK(before);
  const auto smoothed = ln::smooth(w, *before);
  LINNET_REQUIRE_OK(smoothed);
  const auto stats = ln::calibrate(*smoothed, batches, {.target = 20}, {.batches = 4});
  LINNET_REQUIRE_OK(stats);
  const auto by_hand = ln::quantize<int4>(*smoothed, *stats, ln::gptq{.act_order = true});
  LINNET_REQUIRE_OK(by_hand);
  BOOST_TEST(same_bytes(*q, *by_hand));
  const auto stale = ln::quantize<int4>(*smoothed, *before, ln::gptq{.act_order = true});
  LINNET_REQUIRE_OK(stale);
  BOOST_TEST(!same_bytes(*q, *stale));

  // The storage that AWQ scales for, and how its products are computed, may be said.
  const auto scaled =
      ln::apply(w, step::smooth{}.by<int4, ln::compute::int8>(ln::awq{.ratios = 4}, text));
  LINNET_REQUIRE_OK(scaled);
  const auto scaled_by_hand = ln::smooth<int4, ln::compute::int8>(w, *before, ln::awq{.ratios = 4});
  LINNET_REQUIRE_OK(scaled_by_hand);
  BOOST_TEST(same_bytes(*scaled, *scaled_by_hand));
  BOOST_TEST(!same_bytes(*scaled, w));

  const auto learned =
      ln::apply(w, step::rotate{}.by<int4>(ln::spinquant{.steps = 2, .batches = 1}, text), round{});
  LINNET_REQUIRE_OK(learned);
  const auto turned =
      ln::rotate<int4>(w, batches, {.target = 20}, ln::spinquant{.steps = 2, .batches = 1});
  LINNET_REQUIRE_OK(turned);
  BOOST_TEST(same_bytes(*learned, ln::quantize<int4>(*turned)));
}

BOOST_AUTO_TEST_CASE(training_in_between) {
  ln::weights<model<>> w;
  randomize(w);
  const auto half = [](auto& some) -> ln::result<void> {
    some.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      for (index i = 0; i < info.size(); ++i) values_of(leaf)[i] /= 2;
    });
    return {};
  };
  const auto q = ln::apply(w, step::train{half}, round{});
  LINNET_REQUIRE_OK(q);
  auto halved = w.clone();
  LINNET_REQUIRE_OK(half(halved));
  BOOST_TEST(same_bytes(*q, ln::quantize<int4>(halved)));
}

BOOST_AUTO_TEST_CASE(errors_are_carried_along) {
  ln::weights<model<>> w;
  randomize(w);
  bool ran = false;
  const auto later = [&](auto&) -> ln::result<void> {
    ran = true;
    return {};
  };
  decoder_tokens data(1, 20, 11);
  data.inputs[3] = 11;
  const ln::calibration_text text{[&](index) { return data.view(); }, {.target = 20}};
  BOOST_TEST(message(ln::apply(w, step::smooth{}.by(ln::smoothquant{}, text), step::train{later},
                               round{})) ==
             "calibrate: batch 0: expected one that the model and the limits take, got " +
                 std::string(ln::to_string(ln::refusal::token_outside_vocabulary)));
  const auto stops = [](auto&) -> ln::result<void> {
    return ln::error{ln::errc::invalid, "training", "loss", "a finite one", "another"};
  };
  BOOST_TEST(message(ln::apply(w, step::train{stops}, step::train{later}, round{})) ==
             "training: loss: expected a finite one, got another");
  const ln::weights<model<>> moved = std::move(w);
  BOOST_TEST(message(ln::apply(w, step::train{later}, round{})) == w.error().message());
  BOOST_TEST(!ran);
}

// A smaller shape, sparse, then in codes that keep the zeros.
BOOST_AUTO_TEST_CASE(cut_pruned_and_rounded) {
  constexpr auto small = [] {
    auto s = tiny_decoder_shape;
    s.d_ff = 4, s.layers = 1;
    return s;
  }();
  using M = model<>;
  using Sparse = step::quantize<storage::n_of_m<storage::f32, 2, 4>>;
  static_assert(
      std::is_same_v<made<M, step::narrow<small>, step::prune, round>, ln::decoder<small, int4>>);
  static_assert(refused<M, round, step::prune> && refused<M, round, step::narrow<small>>);
  static_assert(refused<M, step::narrow<small>, step::narrow<small>>);
  static_assert(refused<M, step::narrow<tiny_t5_shape>>);
  ln::weights<M> w;
  randomize(w);
  const auto scores = [](const auto& v) { return ln::importance_of(v, ln::magnitude_score{}); };
  const ln::magnitude half{.pattern = {2, 4}};
  const auto q =
      ln::apply(w, step::narrow<small, decltype(scores)>{scores}, step::prune{half}, Sparse{});
  LINNET_REQUIRE_OK(q);
  const auto found = scores(w);
  LINNET_REQUIRE_OK(found);
  const auto cut = ln::narrow<small>(w, *found);
  LINNET_REQUIRE_OK(cut);
  const auto pruned = ln::prune(*cut, half);
  LINNET_REQUIRE_OK(pruned);
  BOOST_TEST(ln::sparsity(*pruned) == 0.5);
  BOOST_TEST(same_bytes(*q, ln::quantize<storage::n_of_m<storage::f32, 2, 4>>(*pruned)));
  BOOST_TEST(message(ln::apply(w, step::prune{{.fraction = 2}}, round{}))
                 .starts_with("prune: magnitude.fraction: expected"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::pipeline_test
