// SPDX-License-Identifier: MIT
// Methods of prune(): weights against a reference in numpy, limits in which methods agree, and
// errors of outputs.

#include "support/compression.hpp"
#include "support/encoders.hpp"

namespace test::pruning_test {

namespace {

constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 12,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 11,
                                  .context = 64};
using small = ln::decoder<shape>;
using f32 = ln::storage::f32;
using int4 = ln::storage::int4<8>;

/// A matrix pruned by a method, as numbers of storage `S`.
template <class S = f32, class Method>
std::vector<double> pruned(const std::vector<float>& w, const ln::input_statistics& x,
                           const Method& how) {
  const index rows = std::ssize(w) / x.width, k = x.width;
  std::vector<typename S::value> data(at(rows * ln::row_values<S>(k)));
  std::vector<float> scales(at(rows * ln::row_scales<S>(k)));
  const ln::matrix_ref<S> to{data.data(), scales.data()};
  typename Method::rounder rounder(how);
  const auto done = rounder.round(rows, k, w.data(), to, x);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(done), (done ? "" : done.error().message()));
  std::vector<double> all;
  for (index r = 0; r < rows; ++r)
    for (index j = 0; j < k; ++j) all.push_back(to.at(r, j, k));
  return all;
}
std::vector<float> floats(const std::vector<double>& x) { return {x.begin(), x.end()}; }
index zeros(const std::vector<double>& x) { return std::ranges::count(x, 0.0); }

/// Inputs with all that calibration gathers of them for pruning.
struct known_inputs : inputs {
  std::vector<double> squares = {};

  explicit known_inputs(const inputs& from) : inputs(from) {
    for (index j = 0; j < width; ++j) squares.push_back(moments[at(j * width + j)]);
  }
  ln::input_statistics statistics() const {
    return {.rows = rows, .width = width, .squares = squares.data(), .moments = moments.data()};
  }
};
/// Inputs that have nothing to do with each other and are equally large.
known_inputs unrelated(index k) {
  inputs x{k, k};
  x.moments.assign(at(k * k), 0);
  for (index j = 0; j < k; ++j) x.moments[at(j * k + j)] = 3;
  return known_inputs(x);
}

BOOST_AUTO_TEST_SUITE(pruning)

BOOST_AUTO_TEST_CASE(weights_of_the_reference) {
  const auto in = fixture("inputs"), expected = fixture("pruned");
  const auto w = floats(in.at("weights"));
  const index k = 28;
  std::vector<double> squares;
  for (const double norm : expected.at("norms")) squares.push_back(norm * norm);
  const ln::input_statistics x{.rows = static_cast<index>(in.at("rows")[0]),
                               .width = k,
                               .squares = squares.data(),
                               .moments = in.at("moments").data()};
  const auto same = [&](const std::string& name, const std::vector<double>& got) {
    const auto& want = expected.at(name);
    for (std::size_t i = 0; i < got.size(); ++i) {
      BOOST_TEST((got[i] == 0) == (want[i] == 0), name << ' ' << i);
      BOOST_TEST(std::abs(got[i] - want[i]) < 2e-6 * (1 + std::abs(want[i])), name << ' ' << i);
    }
  };
  same("magnitude_layer", pruned(w, x, ln::magnitude{.fraction = 0.3}));
  same("magnitude_row",
       pruned(w, x, ln::magnitude{.fraction = 0.6, .scope = ln::pruning_scope::row}));
  same("magnitude_2_of_4", pruned(w, x, ln::magnitude{.pattern = {2, 4}}));
  same("wanda", pruned(w, x, ln::wanda{}));
  same("wanda_4_of_7", pruned(w, x, ln::wanda{.pattern = {4, 7}}));
  same("sparsegpt", pruned(w, x, ln::sparsegpt{}));
  same("sparsegpt_blocks", pruned(w, x, ln::sparsegpt{.fraction = 0.7, .mask_block = 10}));
  same("sparsegpt_2_of_4", pruned(w, x, ln::sparsegpt{.pattern = {2, 4}}));
  same("sparsegpt_int4", pruned<int4>(w, x, ln::sparsegpt{.mask_block = 16}));
  same("sparsegpt_2_of_4_int4", pruned<int4>(w, x, ln::sparsegpt{.pattern = {2, 4}}));
}

/// Where norms say nothing, Wanda is magnitude pruning by row. Where inputs have nothing to do with
/// each other, SparseGPT is magnitude pruning, and no weight moves.
BOOST_AUTO_TEST_CASE(methods_agree_in_their_limits) {
  const index k = 40;
  const auto x = unrelated(k);
  const auto w = normal<float>(9 * k, 3);
  const auto by_row = ln::magnitude{.fraction = 0.35, .scope = ln::pruning_scope::row};
  BOOST_TEST(
      pruned(w, x.statistics(), ln::wanda{.fraction = 0.35}) == pruned(w, x.statistics(), by_row),
      boost::test_tools::per_element());
  BOOST_TEST(pruned(w, x.statistics(), ln::sparsegpt{.fraction = 0.35}) ==
                 pruned(w, x.statistics(), ln::magnitude{.fraction = 0.35}),
             boost::test_tools::per_element());
  const auto by_pattern = pruned(w, x.statistics(), ln::magnitude{.pattern = {2, 5}});
  BOOST_TEST(pruned(w, x.statistics(), ln::wanda{.pattern = {2, 5}}) == by_pattern,
             boost::test_tools::per_element());
  BOOST_TEST(pruned(w, x.statistics(), ln::sparsegpt{.pattern = {2, 5}}) == by_pattern,
             boost::test_tools::per_element());
  BOOST_TEST(pruned(w, x.statistics(), ln::sparsegpt{.fraction = 0}) ==
                 std::vector<double>(w.begin(), w.end()),
             boost::test_tools::per_element());
}

/// Later inputs make up for what pruning costs: less than the same mask alone, which is that of
/// Wanda or better; magnitudes know nothing of inputs.
BOOST_AUTO_TEST_CASE(errors_of_outputs) {
  const index k = 64;
  auto some = alike(300, k);
  for (index r = 0; r < some.rows; ++r)
    for (index j = 0; j < k; ++j) some.x[at(r * k + j)] *= static_cast<double>(1 + j % 7);
  some.gather();
  const known_inputs x(some);
  const auto w = normal<float>(20 * k, 8);
  const auto error = [&](const std::vector<double>& q) {
    return output_error(w, q, x.statistics());
  };
  for (const ln::n_of_m pattern : {ln::n_of_m{}, {2, 4}, {4, 8}}) {
    const auto moved = pruned(w, x.statistics(), ln::sparsegpt{.pattern = pattern});
    auto alone = moved;
    for (std::size_t i = 0; i < alone.size(); ++i)
      if (alone[i] != 0) alone[i] = static_cast<double>(w[i]);
    const double by_norm = error(pruned(w, x.statistics(), ln::wanda{.pattern = pattern}));
    BOOST_TEST(error(moved) < 0.6 * error(alone));
    BOOST_TEST(error(moved) < 0.6 * by_norm);
    BOOST_TEST(by_norm < error(pruned(w, x.statistics(), ln::magnitude{.pattern = pattern})));
    BOOST_TEST(zeros(moved) == 20 * k / 2);
  }
}

/// What is treated at a time changes no weight, also where masks and groups end elsewhere.
template <class S>
void check_blocks(const ln::sparsegpt& how) {
  const index k = 48;
  const auto x = alike(90, k);
  const auto w = normal<float>(70 * k, 5);
  auto by = how;
  by.block = 1;
  const auto one = pruned<S>(w, x.statistics(), by);
  for (const index block : {3, 8, 20, 1000}) {
    by.block = block;
    BOOST_TEST(same_bits(pruned<S>(w, x.statistics(), by), one), "block " << block);
  }
}
BOOST_AUTO_TEST_CASE(blocks_change_nothing) {
  for (const ln::sparsegpt& how :
       {ln::sparsegpt{}, {.mask_block = 10}, {.fraction = 0.7, .mask_block = 5}}) {
    check_blocks<f32>(how);
    check_blocks<int4>(how);
  }
  check_blocks<f32>({.pattern = {2, 4}});
  check_blocks<int4>({.pattern = {1, 3}});
}

/// As many weights as were asked for, rounded down, also where many are equal or 0 before.
BOOST_AUTO_TEST_CASE(counts) {
  const index k = 12;
  const auto x = known_inputs(alike(60, k));
  std::vector<float> w(at(5 * k), 0.5f);
  for (index r = 0; r < 5; ++r) w[at(r * k + r)] = 0;
  for (const double fraction : {0.0, 0.29, 0.3, 0.7, 0.999999}) {
    const auto layer = static_cast<index>(fraction * 60 + 1e-6);
    const auto row = static_cast<index>(fraction * 12 + 1e-6);
    const auto count = [&](const auto& how) { return zeros(pruned(w, x.statistics(), how)); };
    BOOST_TEST(count(ln::magnitude{.fraction = fraction}) == (std::max)(layer, index{5}));
    BOOST_TEST(count(ln::magnitude{fraction, ln::pruning_scope::row}) ==
               5 * (std::max)(row, index{1}));
    BOOST_TEST(count(ln::wanda{fraction}) == 5 * (std::max)(row, index{1}));
    BOOST_TEST(count(ln::sparsegpt{fraction}) == (std::max)(layer, index{5}));
  }
  w = normal<float>(5 * k, 4);
  for (const ln::n_of_m pattern : {ln::n_of_m{2, 4}, {1, 2}, {3, 6}, {1, 12}, {4, 4}, {1, 1}})
    for (const auto& got : {pruned(w, x.statistics(), ln::magnitude{.pattern = pattern}),
                            pruned(w, x.statistics(), ln::wanda{.pattern = pattern}),
                            pruned(w, x.statistics(), ln::sparsegpt{.pattern = pattern})})
      for (auto group = got.begin(); group != got.end(); group += pattern.of)
        BOOST_TEST(std::count(group, group + pattern.of, 0.0) == pattern.of - pattern.kept);
}

/// Of equal scores the first go, in each row and in each group of a pattern.
BOOST_AUTO_TEST_CASE(of_equals_the_first_go) {
  const index k = 40;  // so many that a selection does not sort all of them
  const auto x = unrelated(k);
  const std::vector<float> w(at(2 * k), 0.5f);
  const auto check = [&](const auto& how, index gone, index of) {
    const auto got = pruned(w, x.statistics(), how);
    for (index i = 0; i < std::ssize(got); ++i)
      BOOST_TEST((got[at(i)] == 0) == (i % of < gone), i << " of " << of);
  };
  check(ln::wanda{.fraction = 0.25}, 10, k);
  check(ln::magnitude{.fraction = 0.25}, 20, 2 * k);
  for (const ln::n_of_m pattern : {ln::n_of_m{3, 4}, {2, 8}, {5, 20}}) {
    check(ln::magnitude{.pattern = pattern}, pattern.of - pattern.kept, pattern.of);
    check(ln::wanda{.pattern = pattern}, pattern.of - pattern.kept, pattern.of);
    check(ln::sparsegpt{.pattern = pattern}, pattern.of - pattern.kept, pattern.of);
  }
}

/// What was 0 stays so and counts: pruning goes on where it was, and does nothing twice.
BOOST_AUTO_TEST_CASE(step_by_step) {
  const index k = 32;
  auto some = alike(100, k);
  for (index r = 0; r < some.rows; ++r) some.x[at(r * k + 3)] = 0;
  some.gather();
  const known_inputs x(some);
  const auto w = normal<float>(10 * k, 6);
  const auto check = [&](auto how) {
    how.fraction = 0.3;
    const auto first = pruned(w, x.statistics(), how);
    BOOST_TEST(pruned(floats(first), x.statistics(), how) == first,
               boost::test_tools::per_element());
    how.fraction = 0.6;
    const auto second = pruned(floats(first), x.statistics(), how);
    for (std::size_t i = 0; i < first.size(); ++i) BOOST_TEST((first[i] != 0 || second[i] == 0));
    BOOST_TEST(zeros(second) == (std::is_same_v<decltype(how), ln::wanda> ? 10 * 19 : 192));
  };
  check(ln::magnitude{});
  check(ln::wanda{});
  check(ln::sparsegpt{});
  // Errors of rounding and of other inputs move what was 0 before its mask is chosen.
  const auto first = pruned(w, x.statistics(), ln::magnitude{.fraction = 0.5});
  const auto stay = [&](const std::vector<double>& got, index least) {
    for (std::size_t i = 0; i < first.size(); ++i) BOOST_TEST((first[i] != 0 || got[i] == 0));
    BOOST_TEST(zeros(got) >= least);
  };
  stay(pruned<int4>(floats(first), x.statistics(), ln::sparsegpt{.fraction = 0, .mask_block = 4}),
       160);
  stay(pruned(floats(first), x.statistics(), ln::sparsegpt{.fraction = 0.3, .mask_block = 4}), 160);
}

using texts = texts_of<small>;
constexpr ln::limits limits{.batch = 2, .target = 17};
constexpr ln::calibration_options options{.batches = 3};

/// Tensors of `a` that differ from those of `b`, by their kind.
template <class M>
std::pair<index, index> changed(const ln::weights<M>& a, const ln::weights<M>& b) {
  index matrices = 0, others = 0;
  ln::each_tensor_of(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& x, const auto& y) {
        const bool differs = !std::equal(values_of(x), values_of(x) + info.size(), values_of(y));
        (info.kind == ln::role::matrix ? matrices : others) += differs;
      },
      a, b);
  return {matrices, others};
}
template <class M>
index count_of(ln::role kind) {
  index n = 0;
  ln::each_tensor<M>(
      [&](const ln::parameter_path&, const ln::tensor_info& info) { n += info.kind == kind; });
  return n;
}

BOOST_AUTO_TEST_CASE(models) {
  ln::weights<small> w;
  randomize(w);
  const index matrices = count_of<small>(ln::role::matrix);
  const auto stats = ln::calibrate(w, texts{}, limits, options);
  BOOST_REQUIRE(static_cast<bool>(stats));
  const auto check = [&](const ln::result<ln::weights<small>>& got, double share) {
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(got), (got ? "" : got.error().message()));
    BOOST_TEST(std::abs(ln::sparsity(*got) - share) < 0.03);
    BOOST_TEST(changed(*got, w).first == matrices);
    BOOST_TEST(changed(*got, w).second == 0);
  };
  check(ln::prune(w, ln::magnitude{.fraction = 0.4}), 0.4);
  check(ln::prune(w, ln::magnitude{.fraction = 0.4, .scope = ln::pruning_scope::global}), 0.4);
  check(ln::prune(w, *stats, ln::wanda{.fraction = 0.4}), 0.375);
  check(ln::prune(w, *stats, ln::sparsegpt{.fraction = 0.4}), 0.4);
  check(ln::prune(w, *stats, ln::sparsegpt{.pattern = {1, 2}}), 0.5);
  BOOST_TEST(changed(*ln::prune(w, ln::magnitude{.tables = true}), w).second ==
             count_of<small>(ln::role::table));
  // One limit for all: what is left of every matrix is larger than what any lost.
  const auto global = ln::prune(w, ln::magnitude{.scope = ln::pruning_scope::global});
  float least = 1e9f, most = 0;
  index zero = 0, all = 0;
  small::visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, auto& x, auto& y) {
        for (index i = 0; i < info.size() && info.kind == ln::role::matrix; ++i, ++all) {
          const float before = std::abs(values_of(x)[i]);
          zero += values_of(y)[i] == 0;
          if (values_of(y)[i] == 0)
            most = (std::max)(most, before);
          else
            least = (std::min)(least, before);
        }
      },
      ln::parameter_path{}, w.tree(), global->tree());
  BOOST_TEST(most <= least);
  BOOST_TEST(zero == all / 2);
  // Pruned and rounded in one pass: as sparse, and nearer than rounding what was pruned.
  const auto both = ln::quantize<ln::storage::int8>(w, *stats, ln::sparsegpt{});
  BOOST_REQUIRE(static_cast<bool>(both));
  BOOST_TEST(ln::sparsity(*both) >= 0.5);
  BOOST_TEST(ln::sparsity(*both) < 0.6);
  BOOST_TEST(ln::sparsity(*ln::quantize<ln::storage::int8>(w, ln::magnitude{})) >= 0.5);
}

BOOST_AUTO_TEST_CASE(blocks_read_what_pruned_blocks_give) {
  ln::weights<small> w;
  randomize(w);
  const ln::wanda how{.fraction = 0.6};
  const auto stats = ln::calibrate(w, texts{}, limits, options);
  const auto plain = ln::prune(w, *stats, how);
  const auto got = ln::prune_in_blocks(w, texts{}, limits, how, options);
  BOOST_REQUIRE(plain && got);
  // The second layer, by hand: what it reads behind the pruned first one.
  auto half = w.clone();
  const auto each = [](auto& a, auto& b, auto&& f) {
    ln::each_tensor_of(
        [&](const ln::parameter_path& path, const ln::tensor_info& info, auto& x, auto& y) {
          f(path.str().find("1.") != std::string::npos, info, values_of(x), values_of(y));
        },
        a, b);
  };
  each(*plain, half, [](bool second, const ln::tensor_info& info, auto* from, auto* to) {
    if (!second) std::copy_n(from, info.size(), const_cast<float*>(to));
  });
  const auto by_hand = ln::prune(w, *ln::calibrate(half, texts{}, limits, options), how);
  index moved = 0;
  each(*got, *by_hand, [](bool second, const ln::tensor_info& info, auto* a, auto* b) {
    if (second) BOOST_TEST(std::equal(a, a + info.size(), b));
  });
  each(*got, *plain, [&](bool second, const ln::tensor_info& info, auto* a, auto* b) {
    if (!second) BOOST_TEST(std::equal(a, a + info.size(), b));
    moved += !std::equal(a, a + info.size(), b);
  });
  BOOST_TEST(moved > 0);
  auto threads = limits;
  threads.threads = 3;
  BOOST_TEST(same_bytes(*ln::prune_in_blocks(w, texts{}, threads, how, options), *got));
  const ln::magnitude global{.scope = ln::pruning_scope::global};
  BOOST_TEST(same_bytes(*ln::prune_in_blocks(w, texts{}, limits, global), *ln::prune(w, global)));
}

/// Other families need nothing of their own.
template <class M>
void check_family() {
  ln::weights<M> w;
  randomize(w);
  const auto got = ln::prune(w, ln::magnitude{});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(got), (got ? "" : got.error().message()));
  BOOST_TEST(std::abs(ln::sparsity(*got) - 0.5) < 0.02);
  BOOST_TEST(changed(*got, w).second == 0);
}
BOOST_AUTO_TEST_CASE(families) {
  check_family<ln::t5<tiny_t5_shape>>();
  check_family<ln::encoder<tiny_encoder_shape>>();
  check_family<ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<tiny_pooling>>>();
  check_family<ln::rwkv7<tiny_rwkv7_shape>>();
}

BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<small> w;
  randomize(w);
  const auto stats = ln::calibrate(w, texts{}, limits, options);
  const auto bare = ln::calibrate(w, texts{}, limits, {.batches = 3, .moments = false});
  BOOST_REQUIRE(stats && bare);
  const auto why = [&](const auto& how) {
    const auto made = ln::prune(w, *stats, how);
    return made ? std::string() : made.error().message();
  };
  BOOST_TEST(why(ln::wanda{.fraction = 1}) ==
             "prune: wanda.fraction: expected 0 <= fraction < 1, got 1");
  BOOST_TEST(why(ln::sparsegpt{.fraction = std::nan("")}).find("fraction") != std::string::npos);
  BOOST_TEST(why(ln::magnitude{.fraction = -0.1}).find("got -0.1") != std::string::npos);
  BOOST_TEST(why(ln::magnitude{.pattern = {3, 2}}) ==
             "prune: magnitude.pattern.of: expected at least 3 (of so many inputs `kept` "
             "stay; 0 prunes by fraction), got 2");
  BOOST_TEST(why(ln::wanda{.pattern = {0, 2}}).find("wanda.pattern.kept") != std::string::npos);
  BOOST_TEST(why(ln::wanda{.pattern = {2, 0}}).find("at least pattern.kept, 2, got 0") !=
             std::string::npos);
  BOOST_TEST(why(ln::wanda{.pattern = {2, 5}}) ==
             "wanda: blocks.0.attention.q.weight: expected a number of inputs that is a multiple "
             "of pattern.of, 5, or another method for this model, got 8");
  BOOST_TEST(why(ln::sparsegpt{.damp = -1}).find("damp") != std::string::npos);
  // Norms are all that Wanda reads.
  BOOST_TEST(static_cast<bool>(ln::prune(w, *bare, ln::wanda{})));
  BOOST_TEST(ln::prune(w, *bare, ln::sparsegpt{}).error().message() ==
             "sparsegpt: blocks.0.attention.q.weight: expected calibration_options.moments to be "
             "true, got false");
  w.visit([](const ln::parameter_path&, const ln::tensor_info&, auto& leaf) {
    *const_cast<float*>(values_of(leaf)) = std::numeric_limits<float>::quiet_NaN();
  });
  BOOST_TEST(why(ln::magnitude{}) ==
             "prune: embedding.weight: expected finite numbers, got a NaN or an infinity");
  w.fail({ln::errc::missing, "here", "", "weights", "none"});
  BOOST_TEST(why(ln::magnitude{}).find("here") != std::string::npos);
  BOOST_TEST(ln::sparsity(w) == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::pruning_test
