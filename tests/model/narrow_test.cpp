// SPDX-License-Identifier: MIT
// Narrow: weights of a smaller type are slices of the larger one's, tensor by tensor, and compute
// what these compute with zeros in place of what was left out.

#include "support/compression.hpp"
#include "support/encoders.hpp"

namespace test::narrow_test {

namespace {

constexpr ln::decoder_shape large{.d_model = 12,
                                  .d_ff = 7,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 11,
                                  .context = 64,
                                  .d_kv = 4,
                                  .eps = 1e-3};

/// Who shares the rows and columns of a tensor: the place of the scores, and numbers of a unit.
struct axis {
  std::string place{};
  index span = 1;
};
struct axes {
  axis rows{}, columns{};
};

bool ends(const std::string& name, const std::string& with) { return name.ends_with(with); }
/// The name up to a word, which is left out.
std::string before(const std::string& name, const std::string& word) {
  const auto at = name.find(word);
  return at == std::string::npos ? std::string() : name.substr(0, at);
}

/// The axes of a tensor, by its name. `h` is the width of a head, `group` its queries.
template <class M>
axes axes_of(const std::string& name) {
  index h = 0, group = 1;
  if constexpr (M::encodes)
    h = M::shape.d_kv;
  else
    h = M::shape.head_width();
  if constexpr (M::encodes)
    group = M::shape.heads / M::shape.key_value_heads();
  else if constexpr (requires { M::shape.kv_heads; })
    group = M::shape.heads / M::shape.kv_heads;
  const axis stream{"embedding.weight"};
  axis heads{}, hidden{};
  if (const auto block = before(name, ".attention."); !block.empty())
    heads.place = M::encodes ? before(block, ".blocks") + ".relative_bias.weight"
                             : block + ".attention.q.weight";
  if (const auto block = before(name, ".cross."); !block.empty())
    heads.place = block + ".cross.q.weight";
  if (const auto block = before(name, ".ffn."); !block.empty())
    hidden.place =
        block + (name.find(".w") != std::string::npos && name.find(".ffn.w") != std::string::npos
                     ? ".ffn.wi.weight"
                     : ".ffn.gate.weight");
  const auto of = [](axis a, index span) { return axis{a.place, span}; };
  if (name.find("norm.") != std::string::npos) return {{}, stream};
  if (ends(name, ".q.weight")) return {of(heads, group * h), stream};
  if (ends(name, ".q.bias")) return {{}, of(heads, group * h)};
  if (ends(name, ".k.weight") || ends(name, ".v.weight")) return {of(heads, h), stream};
  if (ends(name, ".k.bias") || ends(name, ".v.bias")) return {{}, of(heads, h)};
  if (ends(name, ".o.weight")) return {stream, of(heads, group * h)};
  if (ends(name, ".o.bias") || ends(name, ".wo.bias")) return {{}, stream};
  if (ends(name, ".gate.weight") || ends(name, ".up.weight") || ends(name, ".wi.weight"))
    return {hidden, stream};
  if (ends(name, ".wi.bias")) return {{}, hidden};
  if (ends(name, ".down.weight") || ends(name, ".wo.weight")) return {stream, hidden};
  if (ends(name, "relative_bias.weight")) return {{}, axis{name, group}};
  if (ends(name, "head.dense.weight")) return {stream, stream};
  if (ends(name, "head.bias")) return {};
  return {{}, stream};
}

/// The places of the largest scores, in order.
std::vector<index> largest(const std::vector<double>& scores, index count) {
  std::vector<std::pair<double, index>> order;
  for (index i = 0; i < std::ssize(scores); ++i) order.push_back({-scores[at(i)], i});
  std::sort(order.begin(), order.end());
  std::vector<index> kept;
  for (index i = 0; i < count; ++i) kept.push_back(order[at(i)].second);
  std::sort(kept.begin(), kept.end());
  return kept;
}

/// A model, random weights and random scores; what they leave, found by names alone.
template <class M, auto Shape, ln::layer_width... Widths>
struct narrowing {
  using N = ln::narrowed<M, Shape, Widths...>;
  ln::weights<M, double> w;
  ln::importance<M> scores;

  explicit narrowing(std::uint64_t stream) {
    randomize(w, 3);
    auto found = ln::importance_of(w);
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(found), (found ? "" : found.error().message()));
    scores = std::move(*found);
    for (auto* const all : {&scores.units, &scores.layers})
      for (auto& one : *all) one.scores = normal<double>(std::ssize(one.scores), ++stream);
  }
  /// Scores of a place, or null.
  const std::vector<double>* scores_of(const std::string& place) const {
    for (const auto* const all : {&scores.units, &scores.layers})
      for (const auto& one : *all)
        if (one.place == place) return &one.scores;
    return nullptr;
  }
  /// Units of an axis that are left, all of them where nobody shares it.
  std::vector<bool> left(const axis& a, index size, index after) const {
    std::vector<bool> all(at(size), true);
    const auto* const found = scores_of(a.place);
    if (!found) {
      BOOST_REQUIRE_MESSAGE(a.place.empty(), a.place);
      return all;
    }
    const auto kept = largest(*found, after / a.span);
    for (index i = 0; i < size; ++i)
      all[at(i)] = std::binary_search(kept.begin(), kept.end(), i / a.span);
    return all;
  }
  /// The number of its layer in a name, changed by f(stack, layer).
  template <class F>
  static std::string with_layer(const std::string& name, F&& f) {
    const auto stack =
        before(name, ".attention.") + before(name, ".cross.") + before(name, ".ffn.");
    const auto dot = stack.rfind('.');
    if (dot == std::string::npos || ends(stack, "shared")) return name;
    return stack.substr(0, dot + 1) +
           std::to_string(f(stack.substr(0, dot), std::stoll(stack.substr(dot + 1)))) +
           name.substr(stack.size());
  }

  /// Checks each tensor of `n`, and sets to 0 in `w` all that is not in one.
  void check(const ln::weights<N, double>& n, double gain, const std::string& last_norm = "") {
    std::map<std::string, ln::tensor_info> small;
    std::map<std::string, const double*> values;
    n.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& leaf) {
      small[at.str()] = info;
      values[at.str()] = values_of(leaf);
    });
    std::map<std::string, index> layers;  // of the small model
    for (const auto& [name, info] : small)
      (void)with_layer(name, [&](const std::string& stack, index layer) {
        layers[stack] = (std::max)(layers[stack], layer + 1);
        return layer;
      });
    w.visit([&](const ln::parameter_path& at_, const ln::tensor_info& info, auto& leaf) {
      double* const x = values_of(leaf);
      bool gone = false;
      const std::string name = with_layer(at_.str(), [&](const std::string& stack, index layer) {
        const auto kept = largest(*scores_of(stack), layers.at(stack));
        const auto found = std::find(kept.begin(), kept.end(), layer);
        gone = found == kept.end();
        return static_cast<index>(found - kept.begin());
      });
      if (gone) {  // what its branches add to the stream
        if (info.kind != ln::role::scale) std::fill_n(x, info.size(), 0.0);
        return;
      }
      const ln::tensor_info to = small.at(name);
      const axes a = axes_of<M>(at_.str());
      const auto rows = left(a.rows, info.rows, to.rows),
                 columns = left(a.columns, info.columns, to.columns);
      const double factor = ends(name, "norm.weight") && name != last_norm ? gain : 1;
      const double* y = values.at(name);
      double worst = 0;
      for (index i = 0; i < info.rows; ++i)
        for (index j = 0; j < info.columns; ++j) {
          double& one = x[i * info.columns + j];
          if (rows[at(i)] && columns[at(j)])
            worst = (std::max)(worst, std::abs(one * factor - *y++));
          else
            one = 0;
        }
      BOOST_TEST(y - values.at(name) == to.size(), name);
      BOOST_TEST(worst <= (factor == 1 ? 0 : 1e-14), name);
    });
  }
};

/// Narrows random weights and checks the slices; with `data` also that they compute what the larger
/// model computes with zeros for the rest.
template <class M, auto Shape, class Data = decoder_tokens>
void check(const Data* data, double gain = 1, const std::string& last_norm = "",
           std::uint64_t stream = 1) {
  narrowing<M, Shape> from(stream);
  const auto n = ln::narrow<Shape>(from.w, from.scores);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(n), (n ? "" : n.error().message()));
  from.check(*n, gain, last_norm);
  if (data) {
    const auto masked = logits_of(ln::pack(from.w), *data), small = logits_of(ln::pack(*n), *data);
    BOOST_TEST(magnitude(masked) > 0.1);
    BOOST_TEST(distance(masked, small) <= 1e-10 * magnitude(masked));
  }
}

template <auto Shape, index Model, index Hidden, index Heads, index Layers>
constexpr auto smaller() {
  auto s = Shape;
  s.d_model = Model;
  s.d_ff = Hidden;
  if constexpr (requires { s.kv_heads; }) s.kv_heads = Heads * s.kv_heads / s.heads;
  s.heads = Heads;
  if constexpr (requires { s.layers; })
    s.layers = Layers;
  else
    s.encoder_layers = s.decoder_layers = Layers;
  return s;
}

BOOST_AUTO_TEST_SUITE(narrow)

BOOST_AUTO_TEST_CASE(decoders_lose_all_kinds_of_units_at_once) {
  const decoder_tokens data(2, 9, 11);
  using model = ln::decoder<large>;
  constexpr auto small = smaller<large, 8, 5, 2, 2>();
  using N = ln::narrowed<model, small>;
  BOOST_TEST(N::shape.eps == 1.5e-3);
  BOOST_TEST(N::shape.d_kv == 4);
  check<model, small>(&data, std::sqrt(1.5));
}

BOOST_AUTO_TEST_CASE(blocks_share_what_is_cut) {
  const decoder_tokens data(2, 9, 11);
  check<ln::decoder<large, ln::sharing::ffn, ln::tie::untied>, smaller<large, 8, 5, 2, 3>()>(
      &data, std::sqrt(1.5));
}

BOOST_AUTO_TEST_CASE(layer_norms_and_biases) {
  const decoder_tokens data(2, 9, 11);
  using model = ln::decoder<large, ln::norm::layer_norm, ln::bias::all, ln::ffn::gelu_tanh,
                            ln::position::learned>;
  check<model, smaller<large, 12, 5, 2, 2>()>(&data);
  check<model, smaller<large, 8, 7, 4, 3>(), decoder_tokens>(nullptr);  // the mean moves
}

// Each layer has as many neurons left as its width says.
BOOST_AUTO_TEST_CASE(widths_by_layer) {
  const decoder_tokens data(2, 9, 11);
  constexpr auto small = smaller<large, 8, 7, 2, 3>();
  narrowing<ln::decoder<large>, small, 3, 6, 1> from(1);
  using N = decltype(from)::N;
  static_assert(N::shape.d_ff == 6);
  static_assert(std::is_same_v<N::ffn, ln::ffn::per_layer<ln::ffn::swiglu, 3, 6, 1>>);
  const auto n = ln::narrow<small, 3, 6, 1>(from.w, from.scores);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(n), (n ? "" : n.error().message()));
  from.check(*n, std::sqrt(1.5));
  const auto masked = logits_of(ln::pack(from.w), data), got = logits_of(ln::pack(*n), data);
  BOOST_TEST(magnitude(masked) > 0.1);
  BOOST_TEST(distance(masked, got) <= 1e-10 * magnitude(masked));
  // Narrower again, where the widths of what is left allow it.
  const auto scores = ln::importance_of(*n);
  BOOST_REQUIRE(static_cast<bool>(scores));
  auto again = ln::narrow<N::shape, 2, 5, 1>(*n, *scores);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(again), (again ? "" : again.error().message()));
  const auto wider = ln::narrow<N::shape, 2, 5, 2>(*n, *scores);
  BOOST_REQUIRE(!wider);
  BOOST_TEST(wider.error().message() ==
             "narrow: rows of blocks.2.ffn.gate.weight: expected at most 1, got 2");
  const ln::gradient_report r = ln::check_model_gradients(*again, data.view(), data.limits());
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
}

// Each layer has as many heads left as it is given, and trains and decodes with them.
BOOST_AUTO_TEST_CASE(heads_by_layer) {
  const decoder_tokens data(2, 9, 11);
  using ln::layer_width;
  constexpr auto small = smaller<large, 8, 7, 4, 3>();
  for (const std::uint64_t stream : {1U, 40U, 80U}) {  // each layer's own heads are others
    narrowing<ln::decoder<large>, small, layer_width{3, 2}, 6, layer_width{1, 2}> from(stream);
    using N = decltype(from)::N;
    static_assert(N::shape.heads == 4 && N::shape.kv_heads == 2 && N::shape.d_ff == 6);
    static_assert(
        std::is_same_v<N::attention, ln::attention::per_layer<ln::attention::full, 2, 4, 2>>);
    auto n = ln::narrow<small, layer_width{3, 2}, 6, layer_width{1, 2}>(from.w, from.scores);
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(n), (n ? "" : n.error().message()));
    from.check(*n, std::sqrt(1.5));
    const auto masked = logits_of(ln::pack(from.w), data), got = logits_of(ln::pack(*n), data);
    BOOST_TEST(magnitude(masked) > 0.1);
    BOOST_TEST(distance(masked, got) <= 1e-10 * magnitude(masked));
    if (stream > 1) continue;
    const ln::gradient_report r = ln::check_model_gradients(*n, data.view(), data.limits());
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
    // Narrower again: with as many heads in all layers, the type has one number of them.
    const auto scores = ln::importance_of(*n);
    BOOST_REQUIRE(static_cast<bool>(scores));
    constexpr auto least = smaller<N::shape, 8, 6, 2, 3>();
    const auto again = ln::narrow<least, 3, 6, 1>(*n, *scores);
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(again), (again ? "" : again.error().message()));
    static_assert(std::is_same_v<ln::narrowed<N, least, 3, 6, 1>::attention, ln::attention::full>);
    const auto wider = ln::narrow<N::shape, layer_width{3, 4}, 6, layer_width{1, 2}>(*n, *scores);
    BOOST_REQUIRE(!wider);
    BOOST_TEST(wider.error().message() ==
               "narrow: rows of blocks.0.attention.q.weight: expected at most 8, got 16");
    // Layers that stay keep widths and heads of their own.
    const auto later = ln::drop_layers<1, 2>(*n);
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(later), (later ? "" : later.error().message()));
    static_assert(
        std::is_same_v<ln::with_layers<N, 1, 2>::attention,
                       ln::attention::per_layer<ln::attention::full, 4, 2>> &&
        std::is_same_v<ln::with_layers<N, 1, 2>::ffn, ln::ffn::per_layer<ln::ffn::swiglu, 6, 1>>);
    static_assert(std::is_same_v<ln::with_layers<N, 0, 2>::attention, ln::attention::full>);
    n->visit([](const ln::parameter_path& at_, const ln::tensor_info& info, auto& leaf) {
      if (at_.str().starts_with("blocks.0.") && info.kind != ln::role::scale)
        std::fill_n(values_of(leaf), info.size(), 0.0);
    });
    const auto skipped = logits_of(ln::pack(*n), data);
    BOOST_TEST(distance(skipped, logits_of(ln::pack(*later), data)) <= 1e-12 * magnitude(skipped));
  }
}

BOOST_AUTO_TEST_CASE(t5) {
  const t5_tokens data(2, 7, 5, 11);
  for (const unsigned stream : {1U, 40U, 80U, 120U})  // each layer's own heads are others
    check<ln::t5<grouped_t5_shape>, smaller<grouped_t5_shape, 4, 5, 2, 1>()>(
        &data, std::sqrt(1.5), "decoder.norm.weight", stream);
}

BOOST_AUTO_TEST_CASE(encoders) {
  using model = ln::encoder<tiny_encoder_shape>;
  const auto data = encoder_data<model>();
  check<model, smaller<tiny_encoder_shape, 6, 4, 2, 2>()>(&data);
  check<model, smaller<tiny_encoder_shape, 4, 7, 3, 1>(), encoder_tokens>(nullptr);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::narrow_test
