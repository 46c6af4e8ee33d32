// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Learning the merges of byte-pair encoding from texts.

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/bpe_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// One merge that was learned.
struct bpe_merge {
  std::string_view left, right;  ///< the two pieces, valid during the call
  std::uint64_t count;           ///< how often they stood together
  index number;                  ///< 0 for the first merge
};

/// Learns a vocabulary (Sennrich et al. 2016): again and again, the most frequent pair of
/// neighbours in all words becomes a piece. Among equally frequent pairs, the one whose left piece,
/// then right piece, is smaller as bytes comes first. What is learned depends on nothing but the
/// words and their counts. Takes memory for the distinct words, about 40 times their bytes.
class bpe_trainer {
 public:
  /// Begins training; `single_digits` as in bpe_rules.
  explicit bpe_trainer(bool single_digits = false) : single_digits_(single_digits) {}

  /// Counts the words of one more text; no word reaches from one text into the next.
  void add(std::string_view text) {
    each_word(text, single_digits_, [&](std::string_view word) {
      if (const auto known = counts_.find(word); known != counts_.end())
        ++known->second;
      else
        counts_.emplace(word, 1);
    });
  }
  /// Learns up to `merges` merges of pairs that occur at least `least` times, and returns them as a
  /// vocab.bpe for bpe_tokenizer::parse(). Calls progress(const bpe_merge&) after each, which
  /// returns whether to go on. Errors: errc::invalid (merges or least out of range),
  /// errc::unsupported (4 GiB of distinct words).
  template <class Progress>
  result<std::string> train(index merges, std::uint64_t least, Progress&& progress) const;
  /// @copydoc train(index, std::uint64_t, Progress&&) const
  result<std::string> train(index merges, std::uint64_t least = 2) const {
    return train(merges, least, [](const bpe_merge&) { return true; });
  }

 private:
  struct hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view word) const {
      return static_cast<std::size_t>(detail::hash_of(word));
    }
  };
  std::unordered_map<std::string, std::uint64_t, hash, std::equal_to<>> counts_;
  bool single_digits_;
};

namespace detail {

/// The words of the texts while their pieces are merged. A piece's place is that of its first byte.
class bpe_words {
 public:
  using place = std::uint32_t;
  struct candidate {
    std::uint64_t count;
    token left, right;
  };

  template <class Counts>
  explicit bpe_words(const Counts& counts) {
    for (unsigned b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      pieces.append({&byte, 1});
    }
    std::size_t bytes = 0;
    for (const auto& [word, count] : counts) bytes += word.size();
    ids_.reserve(bytes);
    sizes_.reserve(bytes);
    words_.reserve(bytes);
    for (const auto& [word, count] : counts) {
      const auto first = static_cast<place>(ids_.size());
      for (const char c : word) {
        ids_.push_back(static_cast<unsigned char>(c));
        sizes_.push_back(1);
        words_.push_back(static_cast<place>(ends_.size()));
      }
      ends_.push_back(static_cast<place>(ids_.size()));
      weights_.push_back(count);
      for (place at = first; at + 1 < ends_.back(); ++at) add(at);
    }
    for (auto& [key, p] : pairs_) {
      p.queued = false;
      queue_.push_back({p.count, static_cast<token>(key >> 32), static_cast<token>(key)});
    }
    changed_.clear();
    std::make_heap(queue_.begin(), queue_.end(), later{pieces});
  }

  piece_table pieces;  ///< the bytes, then what was merged

  /// The next pair to merge; count 0 if there is none.
  candidate best() {
    while (!queue_.empty()) {
      const candidate top = queue_.front();
      const std::uint64_t count = pairs_.find(key_of(top.left, top.right))->second.count;
      if (count == top.count) return top;
      // It occurs less often by now: back into the queue.
      std::pop_heap(queue_.begin(), queue_.end(), later{pieces});
      queue_.pop_back();
      push({count, top.left, top.right});
    }
    return {0, 0, 0};
  }
  /// Merges a pair everywhere, in each word from left to right.
  void merge(token left, token right) {
    const token merged = pieces.append(std::string(pieces[left]) += pieces[right]);
    std::vector<place> places = std::move(pairs_.find(key_of(left, right))->second.places);
    std::sort(places.begin(), places.end());
    for (const place at : places) {
      if (ids_[at] != left) continue;  // merged with others since
      const place next = behind(at), end = end_of(at);
      if (next >= end || ids_[next] != right) continue;
      const place first = words_[at] > 0 ? ends_[words_[at] - 1] : 0;
      const place before = at > first ? at - sizes_[at - 1] : at;
      const place after_next = behind(next);
      remove(at);
      if (before < at) remove(before);
      if (after_next < end) remove(next);
      ids_[at] = merged;
      ids_[next] = -1;
      sizes_[after_next - 1] = after_next - at;
      if (before < at) add(before);
      if (after_next < end) add(at);
    }
    for (const std::uint64_t key : changed_) {
      auto& p = pairs_.find(key)->second;
      p.queued = false;
      push({p.count, static_cast<token>(key >> 32), static_cast<token>(key)});
    }
    changed_.clear();
  }

 private:
  /// Whether a candidate's turn is after another's.
  struct later {
    const piece_table& pieces;
    bool operator()(const candidate& a, const candidate& b) const {
      if (a.count != b.count) return a.count < b.count;
      if (const int order = pieces[a.left].compare(pieces[b.left]); order != 0) return order > 0;
      return pieces[a.right] > pieces[b.right];
    }
  };
  struct pair {
    std::uint64_t count = 0;
    std::vector<place> places{};  ///< of left pieces; some may have changed since
    bool queued = false;          ///< stands in changed_
  };
  std::vector<token> ids_;              ///< of the piece that begins at a place, or -1
  std::vector<place> sizes_;            ///< of the piece that ends with a byte
  std::vector<place> words_;            ///< number of the word of a place
  std::vector<place> ends_;             ///< of words
  std::vector<std::uint64_t> weights_;  ///< of words: how often they occur
  struct hash {
    std::size_t operator()(std::uint64_t key) const {
      return static_cast<std::size_t>(
          hash_of(static_cast<token>(key >> 32), static_cast<token>(key)));
    }
  };
  std::unordered_map<std::uint64_t, pair, hash> pairs_;
  std::vector<candidate> queue_;        ///< a heap; counts may be too high, never too low
  std::vector<std::uint64_t> changed_;  ///< pairs that occur more often than their queue entry says

  static std::uint64_t key_of(token left, token right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }
  place behind(place at) const { return at + pieces.size_of(ids_[at]); }
  place end_of(place at) const { return ends_[words_[at]]; }

  /// Counts the pair of the piece at a place and the next one.
  void add(place at) {
    const std::uint64_t key = key_of(ids_[at], ids_[behind(at)]);
    pair& p = pairs_[key];
    p.count += weights_[words_[at]];
    p.places.push_back(at);
    if (!std::exchange(p.queued, true)) changed_.push_back(key);
  }
  void remove(place at) {
    pairs_.find(key_of(ids_[at], ids_[behind(at)]))->second.count -= weights_[words_[at]];
  }
  void push(const candidate& c) {
    if (c.count == 0) return;
    queue_.push_back(c);
    std::push_heap(queue_.begin(), queue_.end(), later{pieces});
  }
};

}  // namespace detail

template <class Progress>
result<std::string> bpe_trainer::train(index merges, std::uint64_t least,
                                       Progress&& progress) const LINNET_TRY {
  const auto wrong = [](errc code, const char* what, std::string expected, std::string got) {
    return error{code, "bpe_trainer", what, std::move(expected), std::move(got)};
  };
  const index most = bpe_tokenizer::most_pieces - 256;
  if (merges < 0 || merges > most)
    return wrong(errc::invalid, "merges", "0 to " + std::to_string(most), std::to_string(merges));
  if (least < 1) return wrong(errc::invalid, "least", "at least 1", "0");
  std::size_t bytes = 0;
  for (const auto& [word, count] : counts_) bytes += word.size();
  if (bytes > UINT32_MAX)
    return wrong(errc::unsupported, "words", "less than 4 GiB of distinct ones",
                 std::to_string(bytes) + " bytes");

  detail::bpe_words words(counts_);
  std::string file = "#version: 0.2\n";
  for (index i = 0; i < merges; ++i) {
    const auto [count, left, right] = words.best();
    if (count < least) break;
    words.merge(left, right);
    const std::string_view a = words.pieces[left], b = words.pieces[right];
    ((file += letters_of(a)) += ' ') += letters_of(b) + '\n';
    if (!progress(bpe_merge{a, b, count, i})) break;
  }
  return file;
}
LINNET_OR_OUT_OF_MEMORY("bpe_trainer")

LINNET_NAMESPACE_END
