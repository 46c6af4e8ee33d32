// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Narrow: structured pruning, which makes weights of a smaller model of the same family.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/importance.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The widths and counts of a shape that narrow() may make smaller.
constexpr auto cut_numbers(const decoder_shape& s) {
  return std::array<index, 5>{s.d_model, s.d_ff, s.heads, s.kv_heads, s.layers};
}
constexpr auto cut_numbers(const encoder_shape& s) {
  return std::array<index, 5>{s.d_model, s.d_ff, s.heads, s.heads, s.layers};
}
constexpr auto cut_numbers(const t5_shape& s) {
  return std::array<index, 5>{s.d_model, s.d_ff, s.heads, s.encoder_layers, s.decoder_layers};
}
/// Query heads of each head of keys and values.
constexpr index group_of(const decoder_shape& s) {
  return s.kv_heads > 0 && s.heads % s.kv_heads == 0 ? s.heads / s.kv_heads : 0;
}
template <class Shape>
constexpr index group_of(const Shape&) {
  return 1;
}
constexpr index head_width_of(const t5_shape& s) { return s.d_kv; }
template <class Shape>
constexpr index head_width_of(const Shape& s) {
  return s.head_width();
}
/// Whether shapes have all other numbers in common, but for eps and d_kv.
constexpr bool same_rest(const decoder_shape& a, const decoder_shape& b) {
  return a.vocabulary == b.vocabulary && a.context == b.context && a.rope_theta == b.rope_theta;
}
constexpr bool same_rest(const encoder_shape& a, const encoder_shape& b) {
  return a.vocabulary == b.vocabulary && a.context == b.context && a.types == b.types &&
         a.position_offset == b.position_offset && a.rope_theta == b.rope_theta;
}
constexpr bool same_rest(const t5_shape& a, const t5_shape& b) {
  return a.vocabulary == b.vocabulary && a.buckets == b.buckets && a.max_distance == b.max_distance;
}

/// Whether a model has narrower shapes, of this type.
template <class M, auto Shape>
concept takes_shape = requires {
  typename M::template with_shape<M::shape>;
  requires std::is_same_v<std::remove_cvref_t<decltype(Shape)>,
                          std::remove_cvref_t<decltype(M::shape)>>;
};

/// The eps that means for `d` channels of model `M` what its own means. The mean square of an
/// RMSNorm is of fewer numbers, and grows.
template <class M>
constexpr double narrowed_eps(index d) {
  if (!std::is_same_v<typename M::norm, norm::rms> || d < 1) return M::shape.eps;
  return M::shape.eps * (static_cast<double>(M::shape.d_model) / static_cast<double>(d));
}
/// The shape that narrow() gives model `M`: heads keep their width.
template <class M, auto Shape>
constexpr auto narrowed_shape() {
  auto s = Shape;
  if (s.d_kv == 0 && head_width_of(s) != head_width_of(M::shape)) s.d_kv = head_width_of(M::shape);
  if (s.eps == M::shape.eps) s.eps = narrowed_eps<M>(s.d_model);
  return s;
}
/// Words for what keeps `Shape` from being a smaller one of model `M`; true where nothing does.
template <class M, auto Shape>
constexpr bool narrows() {
  if constexpr (!takes_shape<M, Shape>) {
    static_assert(never<M>,
                  "linnet::narrow: the shape must be of the model's family, a decoder_shape, "
                  "encoder_shape or t5_shape; other families have no narrower shape");
  } else {
    constexpr auto from = cut_numbers(M::shape), to = cut_numbers(Shape);
    constexpr bool fewer = [](auto a, auto b) {
      for (std::size_t i = 0; i < a.size(); ++i)
        if (b[i] > a[i] || b[i] < 1) return false;
      return true;
    }(from, to);
    constexpr auto made = narrowed_shape<M, Shape>();
    if constexpr (!fewer)
      static_assert(never<M>,
                    "linnet::narrow: d_model, d_ff, heads and layers must be given, and none may "
                    "be larger than the model's");
    else if constexpr (from == to)
      static_assert(never<M>,
                    "linnet::narrow: the shape is no narrower than the model's; make d_model, "
                    "d_ff, heads or layers smaller");
    else if constexpr (!same_rest(M::shape, Shape))
      static_assert(never<M>,
                    "linnet::narrow: vocabulary, context and the numbers of positions must be the "
                    "model's");
    else if constexpr (group_of(M::shape) != group_of(Shape))
      static_assert(never<M>,
                    "linnet::narrow: heads go in whole groups: heads / kv_heads must be the "
                    "model's");
    else if constexpr (head_width_of(made) != head_width_of(M::shape))
      static_assert(never<M>,
                    "linnet::narrow: heads keep their width: give d_kv of the model, or 0");
    else if constexpr (made.eps != narrowed_eps<M>(made.d_model))
      static_assert(never<M>, "linnet::narrow: eps must be the model's");
    else
      return true;
  }
  return false;
}
template <class M, auto Shape, bool Fits = narrows<M, Shape>()>
struct narrowed_model {
  using type = typename M::template with_shape<narrowed_shape<M, Shape>()>;
};
/// Stands in for what was refused, so that nothing is said of it again.
template <class M, auto Shape>
struct narrowed_model<M, Shape, false> {
  using type = M;
};

/// The path of a parameter with other numbers of layers.
template <class F>
std::string renumbered(const parameter_path& at, F&& f) {
  if (at.count > 0) {
    parameter_path one = at;
    one.number = f(layer_of(at));
    return one.str();
  }
  if (!at.parent) return at.str();
  std::string text = renumbered(*at.parent, f);
  if (at.name.empty() && at.number < 0) return text;
  const std::string last = parameter_path{nullptr, at.name, at.number, 0}.str();
  return text.empty() ? last : text + '.' + last;
}

/// Cuts weights of model `M` down to those of `N`.
template <class M, class N, class T>
class cutter {
 public:
  cutter(const weights<M, T>& w, const importance<M>& scores) : map_(w), scores_(scores) {
    w.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
      const layer_place place = layer_of(at);
      if (place.count > 0) counts_of(place, true);
    });
  }
  /// Fills the weights of `N`. Errors: errc::invalid.
  result<void> cut(weights<N, T>& to) {
    if (auto fit = choose_layers(to); !fit) return fit.error();
    if (auto fit = match(to); !fit) return fit.error();
    if (auto fit = choose_units(); !fit) return fit.error();
    copy(to);
    return {};
  }

 private:
  /// A stack of layers: how many it had, and which are left.
  struct stack {
    std::string place{};
    index count = 0;
    std::vector<index> kept{};
  };
  static error unfit(std::string what, std::string expected, std::string got) {
    return {errc::invalid, "narrow", std::move(what), std::move(expected), std::move(got)};
  }
  stack* counts_of(const layer_place& place, bool add) {
    for (auto& one : stacks_)
      if (one.place == place.stack) return &one;
    if (!add) return nullptr;
    stacks_.push_back({place.stack, place.count, {}});
    return &stacks_.back();
  }

  /// Which layers are left of each stack.
  result<void> choose_layers(const weights<N, T>& to) {
    std::vector<layer_place> places;
    to.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
      const layer_place place = layer_of(at);
      if (place.count > 0 && (places.empty() || places.back().stack != place.stack))
        places.push_back(place);
    });
    for (const auto& place : places) {
      stack* const from = counts_of(place, false);
      if (!from || !from->kept.empty()) continue;
      std::vector<double> scores(static_cast<std::size_t>(from->count));
      if (place.count < from->count) {
        const unit_scores* found = nullptr;
        for (const auto& one : scores_.layers)
          if (one.place == place.stack) found = &one;
        const index given = found ? std::ssize(found->scores) : 0;
        if (given == 0 || given % from->count != 0)
          return unfit("layers of " + place.stack,
                       std::to_string(from->count) +
                           " scores in importance.layers, such as those of block_influence()",
                       std::to_string(given));
        if (auto fit = check_scores(*found); !fit) return fit.error();
        const index times = given / from->count;  // that a block runs in a row
        for (index i = 0; i < given; ++i)
          scores[static_cast<std::size_t>(i / times)] += found->scores[static_cast<std::size_t>(i)];
      }
      from->kept = best_units(scores, place.count);
    }
    return {};
  }
  static result<void> check_scores(const unit_scores& one) {
    for (std::size_t i = 0; i < one.scores.size(); ++i)
      if (!is_finite(one.scores[i]))
        return unfit("score " + std::to_string(i) + " of " + one.place, "a finite number",
                     "a NaN or an infinity");
    return {};
  }

  /// Finds what each tensor of `N` is cut from, and how many units of each set are left.
  result<void> match(const weights<N, T>& to) {
    left_.assign(map_.sets().size(), 0);
    error why{};
    bool fits = true;
    to.visit([&](const parameter_path& at, const tensor_info& info, const auto&) {
      if (!fits) return;
      const std::string name = renumbered(at, [&](const layer_place& place) {
        const stack* const from = counts_of(place, false);
        return from ? from->kept[static_cast<std::size_t>(place.layer)] : place.layer;
      });
      const auto& all = map_.tensors();
      const auto found =
          std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.name == name; });
      if (found == all.end()) {
        why = unfit(at.str(), "layers that all have this tensor", "layers of unlike kinds");
        fits = false;
        return;
      }
      sources_.push_back(found - all.begin());
      for (const bool columns : {false, true})
        if (fits) fits = match_axis(*found, columns, columns ? info.columns : info.rows, why);
    });
    if (!fits) return why;
    return {};
  }
  /// Whether an axis of a tensor can have `size` numbers.
  bool match_axis(const cut_tensor<T>& from, bool by_columns, index size, error& why) {
    const index set = by_columns ? from.columns : from.rows,
                whole = by_columns ? from.info.columns : from.info.rows;
    const std::string side = (by_columns ? "columns of " : "rows of ") + from.name;
    if (set < 0) {
      if (size == whole) return true;
      why = unfit(side, "channels that a layer names, see nn/channels.hpp",
                  "a layer that does not say which channels it shares");
      return false;
    }
    const auto& units = map_.sets()[static_cast<std::size_t>(set)];
    index& left = left_[static_cast<std::size_t>(set)];
    const index span = units.span(whole);
    if (size != whole && units.whole) {
      why = unfit(side, "channels that can be left out", units.whole);
      return false;
    }
    if (size % span != 0 || (left > 0 && left != size / span)) {
      why = unfit(side,
                  left > 0 ? std::to_string(left * span) + " as its neighbours have"
                           : "a multiple of " + std::to_string(span),
                  std::to_string(size));
      return false;
    }
    left = size / span;
    return true;
  }

  /// Which units are left of each set.
  result<void> choose_units() {
    kept_.resize(left_.size());
    std::size_t given = 0;
    for (std::size_t s = 0; s < left_.size(); ++s) {
      const auto& set = map_.sets()[s];
      const bool scored = !set.place.empty() && !set.whole;
      const unit_scores* const found =
          scored && given < scores_.units.size() ? &scores_.units[given++] : nullptr;
      if (left_[s] == 0) continue;
      std::vector<double> scores(static_cast<std::size_t>(set.units));
      if (left_[s] < set.units) {
        if (!found || found->place != set.place || std::ssize(found->scores) != set.units)
          return unfit("units of " + set.place,
                       std::to_string(set.units) +
                           " scores in importance.units, as importance_of() gives them",
                       found ? std::to_string(found->scores.size()) + " of " + found->place
                             : std::string("none"));
        if (auto fit = check_scores(*found); !fit) return fit.error();
        scores = found->scores;
      }
      kept_[s] = best_units(scores, left_[s]);
    }
    return {};
  }

  std::vector<index> numbers(index set, index size) const {
    if (set >= 0)
      return kept_numbers(kept_[static_cast<std::size_t>(set)],
                          map_.sets()[static_cast<std::size_t>(set)].span(size));
    std::vector<index> all(static_cast<std::size_t>(size));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<index>(i);
    return all;
  }
  void copy(weights<N, T>& to) const {
    std::size_t next = 0;
    to.visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
      const auto& from = map_.tensors()[static_cast<std::size_t>(sources_[next++])];
      const auto rows = numbers(from.rows, from.info.rows),
                 columns = numbers(from.columns, from.info.columns);
      const double factor = gain(from, info);
      T* y = numbers_in(leaf);
      for (const index i : rows)
        for (const index j : columns) {
          const T x = from.data[i * from.info.columns + j];
          *y++ = factor == 1 ? x : static_cast<T>(static_cast<double>(x) * factor);
        }
    });
  }
  /// The factor of a norm's weights, so that fewer channels mean what they meant.
  static double gain(const cut_tensor<T>& from, const tensor_info& to) {
    const double ratio = static_cast<double>(from.info.columns) / static_cast<double>(to.columns);
    const int power = (from.by_mean_square ? 1 : 0) - (from.by_root ? 1 : 0);
    return power == 0 ? 1 : power > 0 ? std::sqrt(ratio) : 1 / std::sqrt(ratio);
  }

  cut_map<T> map_;
  const importance<M>& scores_;
  std::vector<stack> stacks_;
  std::vector<index> sources_;            ///< the tensor that each of N's is cut from
  std::vector<index> left_;               ///< units of each set
  std::vector<std::vector<index>> kept_;  ///< which they are
};

template <class N, class M, class T>
result<weights<N, T>> cut_weights(const weights<M, T>& w, const importance<M>& scores) {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::narrow: narrow first, quantize afterwards");
  static_assert(has_channels<M>,
                "linnet::narrow: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (!w.valid()) return w.error();
  weights<N, T> made;
  if (!made.valid()) return made.error();
  if (auto fit = cutter<M, N, T>(w, scores).cut(made); !fit) return fit.error();
  return made;
}

}  // namespace detail

/// The model type that narrow() makes: M of a smaller shape, with the same policies. Its
/// vocabulary, positions and heads' width are those of M: a `d_kv` of 0 stands for that width. With
/// RMSNorm, `eps` is that of M times the ratio of d_model.
template <class M, auto Shape>
using narrowed = typename detail::narrowed_model<M, Shape>::type;

/// Leaves out what `scores` says is least important: layers, feed-forward neurons, heads with all
/// queries of their keys and values, and channels of the stream. Of equal scores the first stay.
/// All tensors that share a channel lose it. The result computes what `w` computes with zeros for
/// what is left out, up to rounding. A LayerNorm of fewer channels has another mean, though, and so
/// has a post-norm model of fewer layers. Errors: errc::invalid for scores that are missing or not
/// finite, and for widths whose layers do not say what they share. Also the error of `w`;
/// errc::out_of_memory.
template <auto Shape, class M, class T>
result<weights<narrowed<M, Shape>, T>> narrow(const weights<M, T>& w,
                                              const importance<M>& scores) LINNET_TRY {
  return detail::cut_weights<narrowed<M, Shape>>(w, scores);
}
LINNET_OR_OUT_OF_MEMORY("narrow")

namespace detail {

/// Shape of model `M` with some of its layers.
template <class M, index... Keep>
constexpr auto shape_of_layers() {
  constexpr index kept[] = {Keep..., -1};
  constexpr bool ordered = [](const auto& all) {
    for (std::size_t i = 0; i < sizeof...(Keep); ++i)
      if (all[i] < 0 || all[i] >= M::shape.layers || (i > 0 && all[i] <= all[i - 1])) return false;
    return true;
  }(kept);
  constexpr bool once = [] {
    if constexpr (requires { M::sharing::repeats; }) return M::sharing::repeats == 1;
    return true;
  }();
  static_assert(once,
                "linnet::drop_layers: blocks of sharing::repeat<n> run several times; narrow() by "
                "scores in importance.layers instead");
  static_assert(ordered && sizeof...(Keep) > 0,
                "linnet::drop_layers: give the layers that stay, in order, from 0 on and below the "
                "model's");
  auto s = M::shape;
  if (ordered && sizeof...(Keep) > 0) s.layers = sizeof...(Keep);
  return s;
}

}  // namespace detail

/// Weights of the layers `Keep` alone, which are numbered from 0. The others are skipped in the
/// result, and nothing else changes. Errors: errc::invalid where the layers left are of another
/// kind than those in their places; the error of `w`; errc::out_of_memory.
template <index... Keep, class M, class T>
result<weights<narrowed<M, detail::shape_of_layers<M, Keep...>()>, T>> drop_layers(
    const weights<M, T>& w) LINNET_TRY {
  importance<M> scores;
  w.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    const detail::layer_place place = detail::layer_of(at);
    if (place.count == 0) return;
    auto& all = detail::scores_of_layers(scores.layers, place);
    for (const index layer : {Keep...})
      if (layer < place.count) all[static_cast<std::size_t>(layer)] = 1;
  });
  return detail::cut_weights<narrowed<M, detail::shape_of_layers<M, Keep...>()>>(w, scores);
}
LINNET_OR_OUT_OF_MEMORY("drop_layers")

LINNET_NAMESPACE_END
