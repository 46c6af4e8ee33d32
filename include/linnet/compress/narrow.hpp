// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Narrow: structured pruning, which makes weights of a smaller model of the same family.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/importance.hpp>
#include <linnet/compress/narrowed.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

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
      places_.push_back(layer_of(at));
      if (places_.back().count > 0) counts_of(places_.back(), true);
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
        why = unlike(at.str());
        fits = false;
        return;
      }
      sources_.push_back(found - all.begin());
      for (const bool columns : {false, true})
        if (fits) fits = match_axis(*found, columns, columns ? info.columns : info.rows, why);
    });
    if (!fits) return why;
    for (index i = 0; i < std::ssize(places_); ++i) {  // a first layer may have fewer tensors
      const layer_place& place = places_[static_cast<std::size_t>(i)];
      const stack* const of = place.count > 0 ? counts_of(place, false) : nullptr;
      const bool stays =
          !of || std::find(of->kept.begin(), of->kept.end(), place.layer) != of->kept.end();
      if (stays && std::find(sources_.begin(), sources_.end(), i) == sources_.end())
        return unlike(map_.tensors()[static_cast<std::size_t>(i)].name);
    }
    return {};
  }
  static error unlike(std::string tensor) {
    return unfit(std::move(tensor), "layers that stay in a place of their kind",
                 "a layer that moves to one of another kind");
  }
  /// Whether an axis of a tensor can have `size` numbers.
  bool match_axis(const cut_tensor<T>& from, bool by_columns, index size, error& why) {
    const index set = by_columns ? from.columns : from.rows,
                whole = by_columns ? from.info.columns : from.info.rows;
    const std::string side = (by_columns ? "columns of " : "rows of ") + from.name;
    if (size > whole) {
      why = unfit(side, "at most " + std::to_string(whole), std::to_string(size));
      return false;
    }
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
  std::vector<layer_place> places_;  ///< of each of M's tensors
  std::vector<stack> stacks_;
  std::vector<index> sources_;            ///< the tensor that each of N's is cut from
  std::vector<index> left_;               ///< units of each set
  std::vector<std::vector<index>> kept_;  ///< which they are
};

template <class N, class M, class T>
result<weights<N, T>> cut_weights(const weights<M, T>& w, const importance<M>& scores) {
  constexpr bool plain = std::is_floating_point_v<typename weights<M, T>::storage::value>,
                 described = has_channels<M>;
  static_assert(plain, "linnet::narrow: narrow first, quantize afterwards");
  static_assert(described,
                "linnet::narrow: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if constexpr (plain && described) {
    if (!w.valid()) return w.error();
    weights<N, T> made;
    if (!made.valid()) return made.error();
    if (auto fit = cutter<M, N, T>(w, scores).cut(made); !fit) return fit.error();
    return made;
  }
  return error{};
}

}  // namespace detail

/// Leaves out what `scores` says is least important: layers, feed-forward neurons, heads with all
/// queries of their keys and values, and channels of the stream. Of equal scores the first stay.
/// All tensors that share a channel lose it. `Widths` are hidden widths of the layers that are
/// left, one for each, in place of one d_ff for all, see ffn::per_layer. Each may have the heads of
/// its layer, see layer_width and attention::per_layer. The result computes what `w` computes with
/// zeros for what is left out, up to rounding. A LayerNorm of fewer channels has another mean,
/// though, and so has a post-norm model of fewer layers. Errors: errc::invalid for scores that are
/// missing or not finite, and for widths whose layers do not say what they share. Also the error of
/// `w`; errc::out_of_memory.
template <auto Shape, layer_width... Widths, class M, class T>
result<weights<narrowed<M, Shape, Widths...>, T>> narrow(const weights<M, T>& w,
                                                         const importance<M>& scores) LINNET_TRY {
  return detail::cut_weights<narrowed<M, Shape, Widths...>>(w, scores);
}
LINNET_OR_OUT_OF_MEMORY("narrow")

/// Weights of the layers `Keep` alone, which are numbered from 0. The others are skipped in the
/// result, and nothing else changes. Errors: errc::invalid where the layers left are of another
/// kind than those in their places; the error of `w`; errc::out_of_memory.
template <index... Keep, class M, class T>
result<weights<with_layers<M, Keep...>, T>> drop_layers(const weights<M, T>& w) LINNET_TRY {
  importance<M> scores;
  w.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    const detail::layer_place place = detail::layer_of(at);
    if (place.count == 0) return;
    auto& all = detail::scores_of_layers(scores.layers, place);
    for (const index layer : {Keep...})
      if (layer < place.count) all[static_cast<std::size_t>(layer)] = 1;
  });
  return detail::cut_weights<with_layers<M, Keep...>>(w, scores);
}
LINNET_OR_OUT_OF_MEMORY("drop_layers")

LINNET_NAMESPACE_END
