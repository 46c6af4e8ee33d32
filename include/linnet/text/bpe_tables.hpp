#pragma once
/// @file
/// What byte-pair encoding looks up: pieces by their bytes, merges by their pair. Flat tables with
/// open addressing, at most half full.

#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/types.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint64_t hash_factor = 0x9e3779b97f4a7c15u;  ///< 2^64 / the golden ratio

/// A hash of bytes whose high and low bits are equally good.
inline std::uint64_t hash_of(std::string_view bytes) {
  const auto mixed = [](std::uint64_t x) { return (x ^= x >> 32) *= hash_factor, x ^ x >> 29; };
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t hash = left * hash_factor, eight = 0;
  for (; left > 8; at += 8, left -= 8) {
    std::memcpy(&eight, at, 8);
    hash = mixed(hash ^ eight);
  }
  if (left >= 4) {  // two words that overlap
    std::uint32_t first = 0, second = 0;
    std::memcpy(&first, at, 4);
    std::memcpy(&second, at + left - 4, 4);
    eight = std::uint64_t{first} << 32 | second;
  } else if (left > 0) {
    const auto byte = [at](std::size_t i) {
      return std::uint64_t{static_cast<unsigned char>(at[i])};
    };
    eight = byte(0) << 16 | byte(left / 2) << 8 | byte(left - 1);
  }
  return mixed(hash ^ eight);
}

/// Pieces by id, together below 4 GiB, and the ids of those that were indexed, by piece.
class piece_table {
 public:
  /// Number of pieces.
  index size() const { return std::ssize(ends_) - 1; }
  /// Bytes of piece `id`, which must exist.
  std::uint32_t size_of(token id) const {
    const auto i = static_cast<std::size_t>(id);
    return ends_[i + 1] - ends_[i];
  }
  /// Piece `id`, which must exist.
  std::string_view operator[](token id) const {
    return {bytes_.data() + ends_[static_cast<std::size_t>(id)], size_of(id)};
  }
  /// A piece with the next id, not indexed.
  token append(std::string_view piece) {
    bytes_ += piece;
    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    return static_cast<token>(size() - 1);
  }
  /// Indexes a piece that find() does not find.
  void insert(token id) {
    if (2 * ++used_ > slots_.size()) grow();
    const std::uint64_t hash = hash_of((*this)[id]);
    place({tag(hash), id}, hash);
  }
  /// The id of an indexed piece, or -1.
  token find(std::string_view piece) const {
    const slot* const found = look_up(piece);
    return found ? found->id : -1;
  }
  /// Lets find_whole() find a piece that find() finds.
  void mark_whole(token id) { const_cast<slot*>(look_up((*this)[id]))->tag |= 1; }
  /// The id of a piece that is marked, or -1.
  token find_whole(std::string_view piece) const {
    const slot* const found = look_up(piece);
    return found && (found->tag & 1) == 1 ? found->id : -1;
  }

 private:
  struct slot {
    std::uint32_t tag = 0;  ///< of the hash; the last bit: whole
    token id = -1;          ///< or none
  };
  std::string bytes_;
  std::vector<std::uint32_t> ends_{0};  ///< one more than pieces
  std::vector<slot> slots_ = std::vector<slot>(16);
  std::size_t used_ = 0;
  int shift_ = 64 - 4;  ///< of a hash, to a slot's number

  static std::uint32_t tag(std::uint64_t hash) { return static_cast<std::uint32_t>(hash) & ~1u; }
  void place(slot s, std::uint64_t hash) {
    std::size_t i = hash >> shift_;
    while (slots_[i].id >= 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = s;
  }
  void grow() {
    const std::vector<slot> old = std::exchange(slots_, std::vector<slot>(2 * slots_.size()));
    --shift_;
    for (const slot& s : old)
      if (s.id >= 0) place(s, hash_of((*this)[s.id]));
  }
  const slot* look_up(std::string_view piece) const {
    const std::uint64_t hash = hash_of(piece);
    for (std::size_t i = hash >> shift_; slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1))
      if ((slots_[i].tag & ~1u) == tag(hash) && (*this)[slots_[i].id] == piece) return &slots_[i];
    return nullptr;
  }
};

/// The ranks of merges by their pair of ids.
class merge_table {
 public:
  static constexpr std::uint32_t none = UINT32_MAX;

  /// Room for `merges` of them.
  explicit merge_table(std::size_t merges = 0) {
    int bits = 1;
    while ((std::size_t{1} << bits) < 2 * merges) ++bits;
    slots_.resize(std::size_t{1} << bits);
    shift_ = 64 - bits;
  }
  /// The rank of a pair, or `none`.
  std::uint32_t find(token left, token right) const {
    const std::uint64_t pair = pair_of(left, right);
    std::size_t i = first_slot(pair);
    while (slots_[i].rank != none && slots_[i].pair != pair) i = (i + 1) & (slots_.size() - 1);
    return slots_[i].rank;
  }
  /// Adds a pair. False if it is there.
  bool insert(token left, token right, std::uint32_t rank) {
    const std::uint64_t pair = pair_of(left, right);
    std::size_t i = first_slot(pair);
    for (; slots_[i].rank != none; i = (i + 1) & (slots_.size() - 1))
      if (slots_[i].pair == pair) return false;
    slots_[i] = {pair, rank};
    return true;
  }

 private:
  struct slot {
    std::uint64_t pair = 0;
    std::uint32_t rank = none;
  };
  std::vector<slot> slots_;
  int shift_ = 0;

  static std::uint64_t pair_of(token left, token right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 |
           static_cast<std::uint32_t>(right);
  }
  std::size_t first_slot(std::uint64_t pair) const { return pair * hash_factor >> shift_; }
};

}  // namespace detail

LINNET_NAMESPACE_END
