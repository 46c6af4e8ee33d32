// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Gains of norms move into the maps behind them: the standard example of re-parameterisation (Lee
/// et al. 2023, section 2.3).

#include <algorithm>
#include <string>
#include <vector>

#include <linnet/compress/channel_map.hpp>

LINNET_NAMESPACE_BEGIN

/// Norms that cannot be folded, see fold_norms().
enum class unfolded {
  refuse,  ///< the first of them is an error
  keep     ///< they stay as they are
};

namespace detail {

/// Why the gains that write a set cannot move into what reads it, or null.
template <class T>
const char* keeps_norm(const channel_set<T>& set) {
  const auto looked_up = [](const channel_side<T>& side) { return side.kind == role::table; };
  if (std::any_of(set.readers.begin(), set.readers.end(), looked_up) && set.read_by_norm)
    return "a tied head, whose table is looked up, too";
  if (set.read_by_norm) return "a norm of a norm";
  if (set.fixed) return set.fixed;
  if (set.readers.empty()) return "no map behind it";
  const channel_side<T>* first = nullptr;
  bool shifts = false, zero = false;
  for (const auto& side : set.writers) {
    if (side.kind == role::bias) {
      shifts = true;
      continue;
    }
    if (side.kind != role::scale) return "a sum of a norm and something else";
    if (!first) first = &side;
    if (!std::equal(side.data, side.data + set.width, first->data))
      return "norms of unlike gains before a map that they share";
    zero = zero || std::find(side.data, side.data + set.width, T(0)) != side.data + set.width;
  }
  return shifts && zero ? "a gain of 0 beside a bias" : nullptr;
}

}  // namespace detail

/// Moves the gain g of each norm into the maps that read it: W becomes W diag(g), a LayerNorm's
/// bias b becomes b / g, and all gains are 1. The type stays, and the function up to rounding of
/// each number once. Errors: errc::invalid for the first norm that cannot be folded, unless
/// they are to be kept. It names the reason, such as a tied head or a map that norms of unlike
/// gains share. Also for weights that are not finite; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<M, T>> fold_norms(const weights<M, T>& w,
                                 unfolded others = unfolded::refuse) LINNET_TRY {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::fold_norms: fold first, quantize afterwards");
  static_assert(detail::has_channels<M>,
                "linnet::fold_norms: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (auto fit = check_finite(w, "fold_norms"); !fit) return fit.error();
  auto folded = w.clone();
  if (!folded.valid()) return folded.error();
  std::vector<std::string> names;
  folded.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    names.push_back(at.str());
  });
  const detail::channel_map<T> map(folded);
  for (const auto& set : map.sets()) {
    const auto gain = std::find_if(set.writers.begin(), set.writers.end(),
                                   [](const auto& side) { return side.kind == role::scale; });
    if (set.normalised < 0 || gain == set.writers.end()) continue;
    if (const char* const why = detail::keeps_norm(set)) {
      if (others == unfolded::keep) continue;
      return error{errc::invalid, "fold_norms", names[static_cast<std::size_t>(gain->ordinal)],
                   "a norm that maps alone read", why};
    }
    detail::fold_gains(set);
  }
  return folded;
}
LINNET_OR_OUT_OF_MEMORY("fold_norms")

LINNET_NAMESPACE_END
