// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Words of a text for comparisons, and ROUGE-L (Lin 2004), by which near-duplicates are found.

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include <linnet/core/random.hpp>
#include <linnet/core/result.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The words of a text as numbers: runs of ASCII letters and digits, in either case, and of bytes
/// beyond ASCII. Each is its FNV-1a hash.
inline std::vector<std::uint64_t> words_of(std::string_view text) {
  std::vector<std::uint64_t> words;
  char low[64];
  std::size_t size = 0;
  std::uint64_t hash = 0;
  bool inside = false;
  const auto end = [&] {
    if (inside) words.push_back(hash ^ stream_of({low, size}));
    size = 0, hash = 0, inside = false;
  };
  for (const char c : text) {
    const bool upper = c >= 'A' && c <= 'Z';
    const bool in = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                    static_cast<unsigned char>(c) >= 0x80;
    if (!in) {
      end();
      continue;
    }
    if (size == sizeof low) hash = (hash ^ stream_of({low, size})) * 31, size = 0;
    low[size++] = upper ? static_cast<char>(c + ('a' - 'A')) : c;
    inside = true;
  }
  end();
  return words;
}

/// ROUGE-L of words: 2 LCS(a, b) / (|a| + |b|), 0 of an empty text. It is 0 as
/// well where the lengths alone say that it is at most `least`.
inline double rouge_l(const std::vector<std::uint64_t>& a, const std::vector<std::uint64_t>& b,
                      double least = 0) {
  const std::size_t shorter = (std::min)(a.size(), b.size()), sum = a.size() + b.size();
  if (shorter == 0 || 2 * static_cast<double>(shorter) <= least * static_cast<double>(sum))
    return 0;
  std::vector<std::size_t> row(b.size() + 1);  // longest common subsequences with a's beginning
  for (const std::uint64_t word : a) {
    std::size_t diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = word == b[j] ? diagonal + 1 : (std::max)(above, row[j]);
      diagonal = above;
    }
  }
  return 2 * static_cast<double>(row.back()) / static_cast<double>(sum);
}

}  // namespace detail

/// ROUGE-L of two texts, from 0 to 1: the F1 of their longest common subsequence of words. Words
/// are runs of letters and digits, case aside. 0 where memory lacks.
inline double rouge_l(std::string_view a, std::string_view b) LINNET_TRY {
  return detail::rouge_l(detail::words_of(a), detail::words_of(b));
}
LINNET_WITHOUT_MEMORY(return 0)

LINNET_NAMESPACE_END
