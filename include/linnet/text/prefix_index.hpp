// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pieces found by their beginnings, for models that look for all pieces at one place of a text.

#include <algorithm>
#include <string_view>
#include <vector>

#include <linnet/text/bpe_tables.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The ids of pieces in the order of their bytes. All pieces with one beginning are a range of it.
class prefix_index {
 public:
  /// Bytes of a piece that is found. Looking at one place of a text takes no more steps.
  static constexpr std::size_t longest_piece = 512;

  /// Pieces with a beginning of `depth` bytes.
  struct range {
    std::uint32_t first = 0, last = 0;
    std::size_t depth = 0;
    bool empty() const { return first == last; }
    bool operator==(const range&) const = default;
  };

  /// Takes the ids of pieces of a table, none empty.
  void assign(const piece_table& pieces, std::vector<token>&& ids) {
    ids_ = std::move(ids);
    std::sort(ids_.begin(), ids_.end(), [&](token a, token b) {
      const int order = pieces[a].compare(pieces[b]);
      return order != 0 ? order < 0 : a < b;
    });
    for (std::size_t b = 0; b < 256; ++b)
      starts_[b] = static_cast<std::uint32_t>(std::lower_bound(ids_.begin(), ids_.end(), b,
                                                               [&](token id, std::size_t byte) {
                                                                 return static_cast<unsigned char>(
                                                                            pieces[id][0]) < byte;
                                                               }) -
                                              ids_.begin());
    starts_[256] = static_cast<std::uint32_t>(ids_.size());
  }
  /// All pieces.
  range all() const { return {0, static_cast<std::uint32_t>(ids_.size()), 0}; }
  /// The pieces of a range that go on with a byte.
  range narrow(const piece_table& pieces, const range& r, char next) const {
    const auto byte = static_cast<unsigned char>(next);
    if (r.depth == 0) return {starts_[byte], starts_[byte + 1], 1};
    const auto at = [&](std::uint32_t i) { return ids_.begin() + static_cast<std::ptrdiff_t>(i); };
    const auto code = [&](token id) {  // 0 for the piece that ends here
      const std::string_view p = pieces[id];
      return p.size() == r.depth ? 0u : static_cast<unsigned char>(p[r.depth]) + 1u;
    };
    const auto first = std::lower_bound(at(r.first), at(r.last), byte + 1u,
                                        [&](token id, unsigned c) { return code(id) < c; });
    const auto last = std::upper_bound(first, at(r.last), byte + 1u,
                                       [&](unsigned c, token id) { return c < code(id); });
    return {static_cast<std::uint32_t>(first - ids_.begin()),
            static_cast<std::uint32_t>(last - ids_.begin()), r.depth + 1};
  }
  /// The lowest id of a range's pieces that are no longer than its beginning, or -1.
  token whole(const piece_table& pieces, const range& r) const {
    return !r.empty() && pieces.size_of(ids_[r.first]) == r.depth ? ids_[r.first] : -1;
  }
  /// Calls f(id, size) for the pieces that a text begins with behind what `r` has, the shortest
  /// first.
  template <class F>
  void each(const piece_table& pieces, range r, std::string_view text, F&& f) const {
    for (std::size_t i = 0; i < text.size(); ++i) {
      r = narrow(pieces, r, text[i]);
      if (r.empty()) return;
      if (const token id = whole(pieces, r); id >= 0) f(id, i + 1);
    }
  }

 private:
  std::vector<token> ids_;
  std::uint32_t starts_[257] = {};  ///< by a piece's first byte
};

}  // namespace detail

LINNET_NAMESPACE_END
