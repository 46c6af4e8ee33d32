// SPDX-License-Identifier: MIT
// Parameters that blocks share, against the same model with nothing shared: the same function, and
// gradients that are sums over the uses.

#include <set>

#include "support/scoring.hpp"

namespace test::tying_test {

namespace {

namespace sharing = ln::sharing;

constexpr ln::decoder_shape shape_of(index layers) {
  ln::decoder_shape s = tiny_decoder_shape;
  s.layers = layers;
  return s;
}
using apart = ln::decoder<shape_of(4)>;

/// One block but for its norms: what sharing::lora is with deltas of zero.
struct all_but_norms : sharing::policy {
  static constexpr bool shares(const ln::parameter_path& at) { return at.parent->name != "norm"; }
};

/// A tensor of a weights or gradients object.
struct tensor {
  index rows = 0, columns = 0;
  double* x = nullptr;
  double& operator()(index i, index j) const { return x[i * columns + j]; }
};
template <class Block>
tensor find(Block& block, const std::string& name) {
  tensor found;
  block.visit([&](const ln::parameter_path& at_path, const ln::tensor_info& info, auto& leaf) {
    if (at_path.str() == name)
      found = {info.rows, info.columns, const_cast<double*>(values_of(leaf))};
  });
  return found;
}

/// The gradients of one batch.
template <class M>
ln::gradients<M, double> gradients_of(ln::weights<M, double>& w) {
  const auto data = decoder_data<M>(3, 6);
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  (void)train->accumulate(data.view());
  return std::move(train->gradient());
}

/// Where layer `l` of a model with shared parameters has a tensor: written out here by hand.
template <class M>
std::string place(index l, const std::string& rest) {
  const bool in_ffn = rest.starts_with("ffn."), norm = rest.find(".norm.") != rest.npos;
  const bool delta = rest.find(".lora_") != rest.npos;
  using S = typename M::sharing;
  const std::string own = "blocks." + std::to_string(l) + '.' + rest;
  if constexpr (std::is_same_v<S, sharing::ffn>)
    return in_ffn && !norm ? "blocks.shared." + rest : own;
  else if constexpr (std::is_same_v<S, sharing::all>)
    return "blocks.shared." + rest;
  else if constexpr (std::is_same_v<S, sharing::repeat<2>>)
    return "blocks." + std::to_string(l / 2) + '.' + rest;
  else
    return norm || delta ? own : "blocks.shared." + rest;
}

const char* const tensors[] = {"attention.norm.weight", "attention.q.weight", "attention.k.weight",
                               "attention.v.weight",    "attention.o.weight", "ffn.norm.weight",
                               "ffn.gate.weight",       "ffn.up.weight",      "ffn.down.weight"};

/// Copies shared weights to each layer and compares logits and gradients.
template <class M>
void check_against_apart() {
  ln::weights<M, double> w;
  randomize(w);
  ln::weights<apart, double> copies;
  for (const char* const name : {"embedding.weight", "norm.weight"}) {
    const tensor from = find(w, name), to = find(copies, name);
    BOOST_REQUIRE((from.x && to.x));
    std::copy_n(from.x, from.rows * from.columns, to.x);
  }
  for (index l = 0; l < 4; ++l)
    for (const char* const rest : tensors) {
      const tensor from = find(w, place<M>(l, rest));
      const tensor to = find(copies, "blocks." + std::to_string(l) + '.' + rest);
      BOOST_REQUIRE((from.x && to.x && from.rows == to.rows && from.columns == to.columns));
      std::copy_n(from.x, from.rows * from.columns, to.x);
    }
  // The library's own way to the same weights.
  BOOST_TEST(same_bytes(ln::unshare(w), copies));

  const auto data = decoder_data<M>(3, 6);
  const auto one = logits_of(ln::pack(w), data), other = logits_of(ln::pack(copies), data);
  BOOST_TEST(magnitude(one) > 0.5);
  BOOST_TEST(one == other);  // the same numbers in the same order

  const auto together = gradients_of(w);
  const auto single = gradients_of(copies);
  std::set<std::string> seen;
  for (const char* const rest : tensors)
    for (index l = 0; l < 4; ++l) {
      const std::string name = place<M>(l, rest);
      if (!seen.insert(name).second) continue;
      const tensor got = find(together, name);
      double largest = 0, worst = 0;
      for (index i = 0; i < got.rows * got.columns; ++i) {
        double sum = 0;
        for (index use = 0; use < 4; ++use)
          if (place<M>(use, rest) == name)
            sum += find(single, "blocks." + std::to_string(use) + '.' + rest).x[i];
        largest = (std::max)(largest, std::abs(sum));
        worst = (std::max)(worst, std::abs(got.x[i] - sum));
      }
      BOOST_TEST(largest > 1e-3, name);
      BOOST_TEST(worst <= 1e-12 * largest, name);
    }
  for (const char* const name : {"embedding.weight", "norm.weight"}) {
    const tensor got = find(together, name), want = find(single, name);
    for (index i = 0; i < got.rows * got.columns; ++i)
      BOOST_TEST(std::abs(got.x[i] - want.x[i]) <= 1e-12);
  }
  index entries = 0;
  together.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto&) {
    entries += info.size();
  });
  BOOST_TEST(entries == M::parameters());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(tying)

BOOST_AUTO_TEST_CASE(gradients_are_sums_over_the_uses) {
  check_against_apart<ln::decoder<shape_of(4), sharing::ffn>>();
  check_against_apart<ln::decoder<shape_of(4), sharing::all>>();
  check_against_apart<ln::decoder<shape_of(4), sharing::repeat<2>>>();
}

// With one layer there is nothing to share.
BOOST_AUTO_TEST_CASE(one_layer) {
  using M = ln::decoder<shape_of(1), sharing::all>;
  using N = ln::decoder<shape_of(1)>;
  static_assert(M::parameters() == N::parameters());
  static_assert(std::is_same_v<ln::unshared<M>, N>);
  ln::weights<M, double> w;
  randomize(w);
  const auto data = decoder_data<M>();
  BOOST_TEST(logits_of(ln::pack(w), data) == logits_of(ln::pack(ln::unshare(w)), data));
}

// Deltas: none at the start, added up by unshare(), and their gradients by the chain rule from
// those of the matrices: dB = s G A^T, dA = s B^T G.
BOOST_AUTO_TEST_CASE(deltas) {
  using M = ln::decoder<shape_of(4), sharing::lora<2, 3>>;
  ln::weights<M, double> w;
  ln::initialize(w, ln::seed{3});
  const tensor fresh = find(w, "blocks.1.ffn.up.lora_b.weight");
  BOOST_REQUIRE(fresh.x != nullptr);
  BOOST_TEST(
      std::all_of(fresh.x, fresh.x + fresh.rows * fresh.columns, [](double b) { return b == 0; }));
  BOOST_TEST(find(w, "blocks.1.ffn.up.lora_a.weight").x[1] != 0);
  const auto data = decoder_data<M>(3, 6);

  using plain = ln::decoder<shape_of(4), all_but_norms>;
  ln::weights<plain, double> same;
  randomize(w);
  w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    if (where.parent->name == "lora_b") std::fill_n(values_of(leaf), info.size(), 0.0);
    if (const tensor to = find(same, where.str()); to.x)
      std::copy_n(values_of(leaf), info.size(), to.x);
  });
  BOOST_TEST(logits_of(ln::pack(w), data) == logits_of(ln::pack(same), data));

  randomize(w);
  auto merged = ln::unshare(w);
  const auto adapted = logits_of(ln::pack(w), data);
  BOOST_TEST(distance(adapted, logits_of(ln::pack(same), data)) > 1e-2);
  BOOST_TEST(distance(adapted, logits_of(ln::pack(merged), data)) < 1e-12);

  // The matrices of `merged` were rounded once more, which four layers enlarge.
  constexpr double bound = 1e-11;
  const auto got = gradients_of(w);
  const auto g = gradients_of(merged);
  for (const std::string rest : {"attention.q.", "attention.k.", "attention.v.", "attention.o.",
                                 "ffn.gate.", "ffn.up.", "ffn.down."})
    for (index l = 0; l < 4; ++l) {
      const std::string block = "blocks." + std::to_string(l) + '.' + rest;
      const tensor all = find(g, block + "weight");
      const tensor a = find(w, block + "lora_a.weight"), b = find(w, block + "lora_b.weight");
      const tensor da = find(got, block + "lora_a.weight"), db = find(got, block + "lora_b.weight");
      BOOST_REQUIRE((all.x && a.x && b.x && da.x && db.x));
      double worst = 0, largest = 0;
      for (index i = 0; i < all.rows * all.columns; ++i)
        largest = (std::max)(largest, std::abs(all.x[i]));
      for (index r = 0; r < 2; ++r) {
        for (index i = 0; i < all.rows; ++i) {
          double sum = 0;
          for (index j = 0; j < all.columns; ++j) sum += 1.5 * all(i, j) * a(r, j);
          worst = (std::max)(worst, std::abs(sum - db(i, r)));
        }
        for (index j = 0; j < all.columns; ++j) {
          double sum = 0;
          for (index i = 0; i < all.rows; ++i) sum += 1.5 * b(i, r) * all(i, j);
          worst = (std::max)(worst, std::abs(sum - da(r, j)));
        }
      }
      BOOST_TEST(worst <= bound * largest, block << worst / largest);
      // And the shared matrix has the sum.
      const tensor dw = find(got, "blocks.shared." + rest + "weight");
      double sum = 0;
      for (index use = 0; use < 4; ++use)
        sum += find(g, "blocks." + std::to_string(use) + '.' + rest + "weight").x[3];
      BOOST_TEST(std::abs(dw.x[3] - sum) <= bound * largest, block);
    }
}

// A narrow embedding E and its map P are the wide table E P^T at both ends: the same logits, and
// with G the gradient of that table dE = G P and dP = G^T E.
BOOST_AUTO_TEST_CASE(narrow_embedding) {
  using M = ln::decoder<shape_of(2), ln::embedding::factorised<3>>;
  using N = ln::decoder<shape_of(2)>;
  static_assert(M::parameters() == N::parameters() - 11 * 8 + 11 * 3 + 8 * 3);
  static_assert(M::non_embedding() == N::non_embedding());
  static_assert(M::flops(2, 5) == N::flops(2, 5) - 2 * 10 * 11 * 8 + 2 * 10 * (11 * 3 + 2 * 8 * 3));
  using untied = ln::decoder<shape_of(2), ln::embedding::factorised<3>, ln::tie::untied>;
  static_assert(untied::parameters() == M::parameters() + 11 * 8);
  static_assert(untied::flops(1, 1) == N::flops(1, 1) + 2 * 8 * 3);
  ln::weights<M, double> w;
  randomize(w);
  ln::weights<N, double> wide;
  const tensor e = find(w, "embedding.weight"), p = find(w, "embedding.projection.weight");
  BOOST_REQUIRE((e.rows == 11 && e.columns == 3 && p.rows == 8 && p.columns == 3));
  wide.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    double* const to = values_of(leaf);
    if (where.str() != "embedding.weight") {
      std::copy_n(find(w, where.str()).x, info.size(), to);
      return;
    }
    for (index i = 0; i < 11; ++i)
      for (index j = 0; j < 8; ++j)
        for (index r = 0; r < 3; ++r) to[i * 8 + j] += e(i, r) * p(j, r);
  });
  const auto data = decoder_data<M>(3, 6);
  const auto narrow_logits = logits_of(ln::pack(w), data);
  BOOST_TEST(magnitude(narrow_logits) > 0.5);
  BOOST_TEST(distance(narrow_logits, logits_of(ln::pack(wide), data)) < 1e-12);
  const auto got = gradients_of(w);
  const auto g = gradients_of(wide);
  const tensor all = find(g, "embedding.weight"), de = find(got, "embedding.weight"),
               dp = find(got, "embedding.projection.weight");
  for (index r = 0; r < 3; ++r) {
    for (index i = 0; i < 11; ++i) {
      double sum = 0;
      for (index j = 0; j < 8; ++j) sum += all(i, j) * p(j, r);
      BOOST_TEST(std::abs(sum - de(i, r)) < 1e-12);
    }
    for (index j = 0; j < 8; ++j) {
      double sum = 0;
      for (index i = 0; i < 11; ++i) sum += all(i, j) * e(i, r);
      BOOST_TEST(std::abs(sum - dp(j, r)) < 1e-12);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tying_test
