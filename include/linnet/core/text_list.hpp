// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Lists of many short texts in little more memory than their bytes.

#include <algorithm>
#include <bit>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Numbers that never fall, in two bits each and one bit for each step that they rise (Elias 1974).
class rising_numbers {
 public:
  /// How many numbers there are.
  std::size_t size() const { return size_; }
  /// Number `i`, which must exist. Reading all in order takes linear time.
  std::uint64_t operator[](std::size_t i) const {
    const auto set = [](std::uint64_t word) {
      return static_cast<std::size_t>(std::popcount(word));
    };
    const std::uint64_t sample = samples_[i / every];
    auto at = static_cast<std::size_t>(sample / 64);
    std::size_t before = i % every;  // bits of other numbers, from the sample on
    std::uint64_t word = bits_[at] & ~std::uint64_t{0} << sample % 64;
    for (; set(word) <= before; word = bits_[++at]) before -= set(word);
    for (; before > 0; --before) word &= word - 1;
    return std::uint64_t{at} * 64 + static_cast<std::uint64_t>(std::countr_zero(word)) - i;
  }
  /// Adds a number; one below the last counts as the last.
  void push_back(std::uint64_t number) {
    const std::uint64_t bit = (std::max)(number + size_, next_);
    if (size_ % every == 0) samples_.push_back(bit);
    bits_.resize(static_cast<std::size_t>(bit / 64 + 1));
    bits_.back() |= std::uint64_t{1} << bit % 64;
    next_ = bit + 1;
    ++size_;
  }
  /// Makes room for numbers whose count and largest one are together at most `sum`.
  void reserve(std::size_t sum) { bits_.reserve(sum / 64 + 1); }

 private:
  static constexpr std::size_t every = 64;
  std::vector<std::uint64_t> bits_;     ///< bit n + i is set if number i is n
  std::vector<std::uint64_t> samples_;  ///< the bits of every 64th number
  std::size_t size_ = 0;
  std::uint64_t next_ = 0;  ///< first bit that the next number may have
};

/// A list of texts, stored one behind the other.
class text_list {
 public:
  /// Number of texts.
  std::size_t size() const { return ends_.size(); }
  /// Text `i`, which must exist; valid until the next one is added.
  std::string_view operator[](std::size_t i) const {
    const std::uint64_t first = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(static_cast<std::size_t>(first),
                                           static_cast<std::size_t>(ends_[i] - first));
  }
  /// Bytes of all texts.
  std::size_t bytes() const { return bytes_.size(); }
  /// Begins or continues the next text.
  void extend(std::string_view text) { bytes_ += text; }
  /// Adds a text, or the rest of one.
  void push_back(std::string_view text) {
    bytes_ += text;
    ends_.push_back(bytes_.size());
  }
  /// Makes room for texts that take `size` bytes together, with one more for each.
  void reserve(std::size_t size) {
    bytes_.reserve(size);
    ends_.reserve(size);
  }

 private:
  std::string bytes_;
  rising_numbers ends_;
};

}  // namespace detail

LINNET_NAMESPACE_END
