// SPDX-License-Identifier: MIT
// Models in sparse storages: pruned weights lose nothing, and what runs is the model of the numbers
// and zeros that they stand for.

#include "support/compression.hpp"
#include "support/models.hpp"

namespace test::sparse_weights_test {

namespace {

namespace storage = ln::storage;
using small = ln::decoder<tiny_decoder_shape>;
using two = storage::n_of_m<storage::f32, 2, 4>;

/// Random weights of which at least 2 of each 4 inputs are 0.
ln::weights<small> pruned() {
  ln::weights<small> w;
  randomize(w);
  w.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    if constexpr (requires { leaf.scales; })
      for (index i = 0; i < info.size(); ++i) {
        const index j = i % info.columns;
        if ((j % 4 == 1) != (i / info.columns % 3 == 0) || j % 4 == 3) leaf.data[i] = 0;
      }
  });
  return w;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sparse_weights)

BOOST_AUTO_TEST_CASE(pruned_weights_lose_nothing) {
  auto w = pruned();
  const auto sparse = ln::quantize<two>(w);
  BOOST_TEST(same_bytes(decoded<small>(sparse), w));
  BOOST_TEST(ln::dropped_by<two>(w) == 0);
  w.tree().embedding.data[3] = 5;
  w.tree().embedding.data[1] = w.tree().embedding.data[0] = w.tree().embedding.data[2] = 1;
  BOOST_TEST(ln::dropped_by<two>(w) == 2);
  BOOST_TEST(ln::dropped_by<storage::int4<>>(w) == 0);
  using mixed = storage::per_role<storage::int8, storage::embedding<two>>;
  BOOST_TEST(ln::dropped_by<mixed>(w) == 2);
  using other = storage::per_role<two, storage::embedding<storage::int8>>;
  BOOST_TEST(ln::dropped_by<other>(w) == 0);
}

/// A model runs as its decoded weights do, packs and unpacks, and holds no more bytes than the type
/// says.
template <class S>
void check_model() {
  using Q = ln::quantized<small, S>;
  const auto q = ln::quantize<S>(pruned());
  const auto p = ln::pack(q);
  const auto whole = prompt_logits(p, 1, false);
  BOOST_TEST(distance(whole, prompt_logits(ln::pack(decoded<small>(q)), 1, false)) <= 1e-5,
             storage::name_of<S>());
  BOOST_TEST(distance(prompt_logits(p, 1, true), whole) <= 1e-5);
  BOOST_TEST(same_bits(prompt_logits(p, 2, false), whole));
  BOOST_TEST(same_bytes(ln::unpack(p), q));
  index tensors = 0;
  ln::each_tensor<small>([&](const ln::parameter_path&, const ln::tensor_info&) { ++tensors; });
  BOOST_TEST(ln::weights<Q>::bytes() >= ln::weight_bytes<Q>());
  BOOST_TEST(ln::weights<Q>::bytes() <= ln::weight_bytes<Q>() + 3 * 64 * tensors);
}
// Weights that are pruned by blocks lose nothing in a storage of these blocks.
BOOST_AUTO_TEST_CASE(blocks) {
  using S = storage::block_sparse<storage::f32, 32, 4>;
  ln::weights<small> w;
  randomize(w);
  const auto less = ln::prune(w, ln::block_magnitude{.fraction = 0.5, .rows = 32, .columns = 4});
  BOOST_REQUIRE(less);
  index zeros = 0;
  BOOST_TEST(ln::sparsity(*less) >= 0.4);
  BOOST_TEST(ln::sparsity(*less) <= 0.5);
  less->visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
    if constexpr (requires { leaf.scales; })
      if (info.kind == ln::role::matrix)
        for (index r = 0; r < info.rows; ++r)
          for (index j = 0; j < info.columns; ++j) {
            const index other = r / 32 * 32 * info.columns + j / 4 * 4;  // of its block
            zeros += leaf.data[r * info.columns + j] == 0;
            BOOST_TEST((leaf.data[r * info.columns + j] == 0) == (leaf.data[other] == 0));
          }
  });
  BOOST_TEST(zeros > 0);
  using halves = storage::per_role<S, storage::embedding<storage::f32>>;
  BOOST_TEST(ln::dropped_by<halves>(*less) == 0);
  BOOST_TEST(ln::dropped_by<halves>(w) > 0);
  BOOST_TEST(same_bytes(decoded<small>(ln::quantize<halves>(*less)), *less));
}

BOOST_AUTO_TEST_CASE(models) {
  check_model<storage::block_sparse<storage::int4<8>, 32, 8>>();
  check_model<two>();
  check_model<storage::bit_mask<storage::bf16, 50>>();
  check_model<storage::per_role<storage::n_of_m<storage::int4<8>, 4, 8>,
                                storage::embedding<storage::int8>>>();
}

/// A method without data rounds what is kept as it rounds a matrix of these numbers.
BOOST_AUTO_TEST_CASE(methods_round_what_is_kept) {
  using base = storage::int4<8, storage::symmetry::asymmetric>;
  const auto w = pruned();
  const auto nearest = ln::quantize<storage::n_of_m<base, 2, 4>>(w);
  const auto by_hqq = ln::quantize<storage::n_of_m<base, 2, 4>>(w, ln::hqq{});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(by_hqq), (by_hqq ? "" : by_hqq.error().message()));
  // HQQ's errors are no larger; so zeros stayed zeros, which alone would cost more.
  const auto error = [&](const auto& q) {
    double sum = 0;
    const auto back = decoded<small>(q);
    for (index i = 0; i < 11 * 8; ++i)
      sum += std::pow(
          std::abs(static_cast<double>(back.tree().embedding.data[i] - w.tree().embedding.data[i])),
          0.7);
    return sum;
  };
  BOOST_TEST(error(*by_hqq) < error(nearest));
}

/// GPTQ holds the pattern of a pruned model.
BOOST_AUTO_TEST_CASE(gptq_rounds_what_is_kept) {
  using S = storage::n_of_m<storage::int4<8>, 2, 4>;
  const auto w = pruned();
  const decoder_tokens data(2, 9, 11);
  const auto stats = ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                                   {.batches = 1, .rows_per_input = 0});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(stats), (stats ? "" : stats.error().message()));
  const auto q = ln::quantize<S>(w, *stats, ln::gptq{});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(q), (q ? "" : q.error().message()));
  BOOST_TEST(!same_bytes(*q, ln::quantize<S>(w)));
  const auto back = decoded<small>(*q);
  index nonzero = 0;
  ln::each_tensor_of(
      [&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& x, const auto& y) {
        if constexpr (requires { x.scales; })
          for (index i = 0; i < info.size(); ++i) {
            nonzero += y.data[i] != 0;
            if (x.data[i] == 0) BOOST_TEST(y.data[i] == 0.0f, at.str());
          }
      },
      w, back);
  BOOST_TEST(nonzero > 100);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sparse_weights_test
