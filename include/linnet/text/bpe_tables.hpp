// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Lookup tables of byte-pair encoding: pieces by their bytes, merges by their pair. Flat tables
/// with open addressing, at most two thirds full.

#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint64_t hash_factor = 0x9e3779b97f4a7c15u;  ///< 2^64 / the golden ratio

/// Both halves of a product of 128 bits, one over the other.
inline std::uint64_t folded_product(std::uint64_t a, std::uint64_t b) {
#ifdef __SIZEOF_INT128__
  __extension__ using wide = unsigned __int128;
  const wide product = static_cast<wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
#else
  const std::uint64_t a0 = a & UINT32_MAX, a1 = a >> 32, b0 = b & UINT32_MAX, b1 = b >> 32;
  const std::uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32),
                      other = a0 * b1 + (middle & UINT32_MAX);
  return (other << 32 | (low & UINT32_MAX)) ^ (a1 * b1 + (middle >> 32) + (other >> 32));
#endif
}

/// Two secrets of hash tables. A file whose author does not know them cannot fill one slot.
struct hash_key {
  std::uint64_t start = 0, factor = 0;  ///< factor: odd
};
/// Hash key of this process, different in each: made from the time and from where its memory lies.
/// What a table finds does not depend on it.
inline const hash_key& process_hash_key() {
  static const hash_key key = [] {
    static const char there = 0;
    const char here = 0;
    const std::string on_heap(64, ' ');
    const auto mix = [](std::uint64_t sum, std::uint64_t x) {
      return folded_product(sum ^ x, hash_factor) + hash_factor;
    };
#if defined(__wasi__)  // which has no clock of processor time
    const std::uint64_t ticks = 0;
#else
    const auto ticks = static_cast<std::uint64_t>(std::clock());
#endif
    std::uint64_t sum = mix(static_cast<std::uint64_t>(std::time(nullptr)), ticks);
    for (const char* const place : {&there, &here, on_heap.data()})
      sum = mix(sum, reinterpret_cast<std::uintptr_t>(place));
#if defined(__x86_64__) || defined(__i386__)
    sum = mix(sum, __builtin_ia32_rdtsc());
#endif
    return hash_key{mix(sum, 1), mix(sum, 2) | 1};
  }();
  return key;
}

/// A hash of bytes whose high and low bits are equally good.
inline std::uint64_t hash_of(std::string_view bytes, const hash_key& key = process_hash_key()) {
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t hash = key.start + left * hash_factor, eight = 0;
  for (; left > 8; at += 8, left -= 8) {
    std::memcpy(&eight, at, 8);
    hash = folded_product(hash ^ eight, key.factor) + key.start;
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
  return folded_product(folded_product(hash ^ eight, key.factor), hash_factor);
}

/// A hash of a pair of ids.
inline std::uint64_t hash_of(token left, token right, const hash_key& key = process_hash_key()) {
  const std::uint64_t pair =
      std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  return folded_product(pair ^ key.start, key.factor) * hash_factor;
}

/// Pieces by id, at most 4 GiB together, and the ids of indexed pieces by their bytes.
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
  /// Makes room for pieces that take `bytes` together.
  void reserve(std::size_t pieces, std::size_t bytes) {
    bytes_.reserve(bytes);
    ends_.reserve(pieces + 1);
    if (used_ > 0) return;
    std::size_t room = slots_.size();
    for (; 2 * room < 3 * pieces; room *= 2) --shift_;
    slots_ = std::vector<slot>(room);
  }
  /// A piece with the next id, not indexed.
  token append(std::string_view piece) {
    bytes_ += piece;
    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    return static_cast<token>(size() - 1);
  }
  /// Indexes a piece that find() does not find.
  void insert(token id) {
    if (3 * ++used_ > 2 * slots_.size()) grow();
    const std::uint64_t hash = hash_of((*this)[id], key_);
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
  hash_key key_ = process_hash_key();
  std::string bytes_;
  std::vector<std::uint32_t> ends_{0};  ///< one more than pieces
  std::vector<slot> slots_ = std::vector<slot>(16);
  std::size_t used_ = 0;
  int shift_ = 64 - 4;  ///< of a hash, to a slot's number

  static std::uint32_t tag(std::uint64_t hash) { return static_cast<std::uint32_t>(hash) & ~1u; }
  void place(slot s, std::uint64_t hash) {
    auto i = static_cast<std::size_t>(hash >> shift_);
    while (slots_[i].id >= 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = s;
  }
  void grow() {
    const std::vector<slot> old = std::exchange(slots_, std::vector<slot>(2 * slots_.size()));
    --shift_;
    for (const slot& s : old)
      if (s.id >= 0) place(s, hash_of((*this)[s.id], key_));
  }
  const slot* look_up(std::string_view piece) const {
    const std::uint64_t hash = hash_of(piece, key_);
    auto i = static_cast<std::size_t>(hash >> shift_);
    for (; slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1))
      if ((slots_[i].tag & ~1u) == tag(hash) && (*this)[slots_[i].id] == piece) return &slots_[i];
    return nullptr;
  }
};

/// One merge: two pieces, and what they become.
struct bpe_merge_ids {
  token left, right, merged;
};

/// Merges by rank, and their ranks by their pair of ids.
class merge_table {
 public:
  static constexpr std::uint32_t none = UINT32_MAX;

  /// A table without merges.
  merge_table() : merge_table(std::vector<bpe_merge_ids>()) {}
  /// Takes merges by rank, none of them indexed yet.
  explicit merge_table(std::vector<bpe_merge_ids>&& merges) : merges_(std::move(merges)) {
    while ((std::size_t{1} << bits_) < 2 * merges_.size()) ++bits_;
    slots_.resize(std::size_t{1} << bits_, none);
  }
  /// Number of merges.
  std::size_t size() const { return merges_.size(); }
  /// The merge of a rank, which must exist.
  const bpe_merge_ids& operator[](std::size_t rank) const { return merges_[rank]; }
  /// The rank of an indexed pair, or `none`.
  std::uint32_t find(token left, token right) const { return slots_[slot_of(left, right)]; }
  /// Indexes a merge. False if its pair is there.
  bool insert(std::uint32_t rank) {
    std::uint32_t& slot = slots_[slot_of(merges_[rank].left, merges_[rank].right)];
    if (slot != none) return false;
    slot = rank;
    return true;
  }

 private:
  hash_key key_ = process_hash_key();
  std::vector<bpe_merge_ids> merges_;
  std::vector<std::uint32_t> slots_;  ///< ranks
  int bits_ = 1;                      ///< of a slot's number

  /// Number of the slot that holds a pair, or of the empty one where it belongs.
  std::size_t slot_of(token left, token right) const {
    auto i = static_cast<std::size_t>(hash_of(left, right, key_) >> (64 - bits_));
    for (; slots_[i] != none; i = (i + 1) & (slots_.size() - 1))
      if (const auto& m = merges_[slots_[i]]; m.left == left && m.right == right) break;
    return i;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
