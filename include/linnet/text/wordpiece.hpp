// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Words cut into pieces as in BERT, and by likelihood as in SentencePiece's unigram models.

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/core/utf8.hpp>
#include <linnet/text/prefix_index.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// WordPiece (Wu et al. 2016; Devlin et al. 2019): the longest piece that a word begins with, then
/// the longest one that goes on. A word that pieces cannot make is unknown as a whole.
struct wordpiece_model {
  piece_table pieces{};                   ///< all
  prefix_index index{};                   ///< of those that texts become
  prefix_index::range begin{}, inside{};  ///< pieces at a word's begin, and behind it
  token unknown = -1;
  linnet::index longest_word = 100;  ///< characters

  /// Appends the ids of a word.
  void append(std::string_view word, std::vector<token>& to) const {
    linnet::index characters = 0;
    for (std::string_view rest = word; !rest.empty() && characters <= longest_word; ++characters)
      rest.remove_prefix(utf8_front(rest).size);
    if (characters > longest_word) return to.push_back(unknown);
    const std::size_t before = to.size();
    for (prefix_index::range r = begin; !word.empty(); r = inside) {
      token best = -1;
      std::size_t size = 0;
      index.each(pieces, r, word, [&](token id, std::size_t n) { best = id, size = n; });
      if (best < 0) {
        to.resize(before);
        return to.push_back(unknown);
      }
      to.push_back(best);
      word.remove_prefix(size);
    }
  }
};

/// A unigram model (Kudo 2018): the pieces whose log probabilities have the largest sum (Viterbi
/// 1967). A character that no piece begins with costs 10 more than the least likely piece.
struct unigram_model {
  static constexpr double unknown_penalty = 10;

  piece_table pieces{};
  prefix_index index{};
  std::vector<double> scores{};
  double unknown_score = 0;
  token unknown = -1;
  std::vector<token> bytes{};  ///< ids of the bytes of unknown characters, or none

  /// The best way to a place of a text.
  struct node {
    double score;
    std::uint32_t size;  ///< of the last piece; 0: there is no way
    token id;            ///< or -1 for an unknown character
  };
  using workspace = std::vector<node>;

  /// Appends the ids of a word. False where memory lacks.
  bool append(std::string_view word, std::vector<token>& to, workspace& nodes) const {
    if (word.size() > UINT32_MAX || !has_memory((word.size() + 1) * sizeof(node))) return false;
    nodes.assign(word.size() + 1, {0, 0, -1});
    const auto reach = [&](std::size_t from, std::size_t size, double score, token id) {
      node& n = nodes[from + size];
      const double sum = nodes[from].score + score;
      if (n.size == 0 || sum > n.score) n = {sum, static_cast<std::uint32_t>(size), id};
    };
    for (std::size_t at = 0; at < word.size();) {
      const std::string_view rest = word.substr(at);
      const std::size_t character = utf8_front(rest).size;
      bool known = false;
      index.each(pieces, index.all(), rest, [&](token id, std::size_t size) {
        reach(at, size, scores[static_cast<std::size_t>(id)], id);
        known = known || size == character;
      });
      if (!known) reach(at, character, unknown_score, -1);
      at += character;
    }
    const std::size_t before = to.size();
    bool last_unknown = false;  // neighbouring unknown characters are one
    for (std::size_t end = word.size(); end > 0; end -= nodes[end].size) {
      const node& n = nodes[end];
      if (n.id >= 0)
        to.push_back(n.id);
      else if (!bytes.empty())
        for (std::size_t i = 0; i < n.size; ++i)
          to.push_back(bytes[static_cast<unsigned char>(word[end - 1 - i])]);
      else if (!last_unknown)
        to.push_back(unknown);
      last_unknown = n.id < 0;
    }
    std::reverse(to.begin() + static_cast<std::ptrdiff_t>(before), to.end());
    return true;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
