// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Fill in the middle (Bavarian et al. 2022). Documents have their middle moved to their end, so
/// that a decoder of next tokens learns to write between two texts.

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/core/random.hpp>
#include <linnet/data/text_source.hpp>

LINNET_NAMESPACE_BEGIN

/// Tokens that mark the parts of a document; its end stays behind all of them.
struct middle_tokens {
  token prefix = no_token;  ///< `<PRE>`, the first token of a document whose middle was moved
  token suffix = no_token;  ///< `<SUF>`
  token middle = no_token;  ///< `<MID>`
  token end = t5_ids::end;  ///< the last token of a document, if it has one

  /// Whether there are three different ones, none of which is the end.
  constexpr bool valid() const {
    return prefix >= 0 && suffix >= 0 && middle >= 0 && prefix != suffix && prefix != middle &&
           suffix != middle && prefix != end && suffix != end && middle != end;
  }
};

/// Where the middle of a document is, and how its parts stand.
struct middle_cut {
  bool moved = false;         ///< the middle goes to the end
  bool suffix_first = false;  ///< SPM; else PSM
  index first = 0, last = 0;  ///< the middle: [first, last) of the document
};

/// How documents are transformed. Two cuts are drawn independently from all places between tokens,
/// both ends included, so each part may be empty.
///  - PSM: `<PRE>` prefix `<SUF>` suffix `<MID>` middle
///  - SPM: `<PRE>` `<SUF>` suffix `<MID>` prefix middle, which shares its form with PSM's of an
///    empty prefix (Bavarian et al. 2022, section 3.1)
///
/// Both are learned like any other text: nothing is left out of the loss.
struct fill_in_the_middle {
  double rate = 0.5;          ///< share of documents whose middle is moved
  double suffix_first = 0.5;  ///< of these, share in SPM

  /// The cut of a document of `size` tokens: a function of `key` and its number.
  middle_cut cut(index size, seed key, index document) const {
    random_stream random(seed{key.value ^ stream_of("linnet::fill_in_the_middle")},
                         static_cast<std::uint64_t>(document));
    middle_cut c;
    c.moved = random.uniform() < rate && size > 0 && size < index{1} << 31;
    c.suffix_first = random.uniform() < suffix_first;
    if (!c.moved) return c;
    const auto places = static_cast<std::uint32_t>(size + 1);
    const index a = random.below(places), b = random.below(places);
    c.first = (std::min)(a, b);
    c.last = (std::max)(a, b);
    return c;
  }
  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate, detail::between(0, 1));
    f("suffix_first", self.suffix_first, detail::between(0, 1));
  }
};

namespace detail {

/// A part of a transformed document: one token, or tokens [first, first + size) of the document.
struct middle_part {
  token mark = no_token;  ///< negative: tokens of the document
  index first = 0, size = 1;
};
/// The parts of a document of `size` tokens without its end, in their new order.
constexpr std::array<middle_part, 6> middle_parts(const middle_cut& c, const middle_tokens& ids,
                                                  index size) {
  const middle_part prefix{no_token, 0, c.first}, middle{no_token, c.first, c.last - c.first},
      suffix{no_token, c.last, size - c.last};
  if (!c.moved)
    return {{{no_token, 0, size}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}}};
  if (c.suffix_first) return {{{ids.prefix}, {ids.suffix}, suffix, {ids.middle}, prefix, middle}};
  return {{{ids.prefix}, prefix, {ids.suffix}, suffix, {ids.middle}, middle}};
}

inline result<void> check_middle(const char* where, const fill_in_the_middle& how,
                                 const middle_tokens& ids) {
  if (auto fit = acceptable(where, "fill_in_the_middle", how); !fit) return fit.error();
  if (!ids.valid())
    return error{errc::invalid, where, "middle_tokens",
                 "three tokens that differ from each other and from the end",
                 std::to_string(ids.prefix) + ", " + std::to_string(ids.suffix) + ", " +
                     std::to_string(ids.middle)};
  return {};
}

}  // namespace detail

/// A text whose documents have their middles moved, as a text for window_stream and packed_stream.
/// So whole documents are transformed before they are packed and cut into windows ("document
/// level", Bavarian et al. 2022). Document i depends on (seed, i) alone. Nothing is
/// stored but two numbers for each document, and tokens are read from `Source` when asked for. For
/// other cuts in a later epoch open another one with another seed.
template <class Source = token_source>
class middle_source {
 public:
  /// Transforms a text. `starts` has the first token of each document; the last one ends with the
  /// text. Errors: errc::invalid for shares out of their ranges, tokens that do not differ, and no
  /// documents. Also for starts that do not begin with 0, or do not rise.
  static result<middle_source> open(Source text, std::span<const index> starts,
                                    const fill_in_the_middle& how, const middle_tokens& ids,
                                    seed key) LINNET_TRY {
    constexpr const char* where = "middle_source::open";
    if (auto fit = detail::check_middle(where, how, ids); !fit) return fit.error();
    middle_source made(std::move(text), how, ids, key);
    if (starts.empty() || made.text_.size() == 0)
      return error{errc::invalid, where, "starts", "at least one document", "0"};
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const index least = i > 0 ? starts[i - 1] + 1 : 0, most = i > 0 ? made.text_.size() - 1 : 0;
      if (starts[i] < least || starts[i] > most)
        return error{errc::invalid, where, "starts[" + std::to_string(i) + "]",
                     i > 0 ? "above the start before it, and within the text" : "0",
                     std::to_string(starts[i])};
      made.documents_.push_back({starts[i], made.size_});
      const index last = i + 1 < starts.size() ? starts[i + 1] : made.text_.size();
      if (last <= starts[i] || last > made.text_.size()) continue;  // the next one is refused
      const bool moved = made.cut(i, made.content(i, last)).moved;
      made.size_ += last - starts[i] + (moved ? 3 : 0);
    }
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("middle_source::open")

  /// Number of tokens, those that mark the parts included.
  index size() const { return size_; }
  /// Number of documents.
  index documents() const { return std::ssize(documents_); }
  /// First token of a document, as packed_stream asks for it.
  index start(index document) const { return documents_[static_cast<std::size_t>(document)].first; }
  /// The special ids of the text.
  auto ids() const requires requires(const Source& s) { s.ids(); }
  { return text_.ids(); }
  /// Writes tokens [first, first + out.size()), which must exist.
  void read(index first, std::span<token> out) const {
    if (out.empty()) return;
    auto from = std::upper_bound(documents_.begin(), documents_.end(), first,
                                 [](index i, const place& p) { return i < p.first; }) -
                documents_.begin() - 1;
    for (index done = 0; done < std::ssize(out); ++from)
      done += read_document(static_cast<std::size_t>(from), first + done, out, done);
  }

 private:
  struct place {
    index source, first;  ///< its first token in the text, and here
  };
  middle_source(Source text, const fill_in_the_middle& how, const middle_tokens& ids, seed key)
      : text_(std::move(text)), how_(how), ids_(ids), key_(key) {}

  /// Tokens of a document that ends before `last` in the text, without its end.
  index content(std::size_t i, index last) const {
    token end = no_token;
    text_.read(last - 1, {&end, 1});
    return last - documents_[i].source - (end == ids_.end);
  }
  index last_of(std::size_t i) const {
    return i + 1 < documents_.size() ? documents_[i + 1].source : text_.size();
  }
  middle_cut cut(std::size_t i, index size) const {
    return how_.cut(size, key_, static_cast<index>(i));
  }
  /// Writes what there is of a document from token `first` on to out[at, …); returns how much.
  index read_document(std::size_t i, index first, std::span<token> out, index at) const {
    const index last = last_of(i), size = content(i, last), begin = at;
    const auto parts = detail::middle_parts(cut(i, size), ids_, size);
    index skip = first - documents_[i].first;
    const auto put = [&](const detail::middle_part& p) {
      const index n = (std::min)(p.size - skip, std::ssize(out) - at);
      if (n > 0) {
        const auto to = out.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n));
        if (p.mark >= 0)
          to[0] = p.mark;
        else
          text_.read(documents_[i].source + p.first + skip, to);
        at += n;
      }
      skip = (std::max)(index{0}, skip - p.size);
    };
    for (const detail::middle_part& p : parts) put(p);
    put({no_token, size, last - documents_[i].source - size});  // its end
    return at - begin;
  }

  Source text_;
  fill_in_the_middle how_;
  middle_tokens ids_;
  seed key_;
  std::vector<place> documents_{};
  index size_ = 0;
};

/// The tokens of texts whose documents have their middles moved, cut between characters ("character
/// level", Bavarian et al. 2022). Prefix, middle and suffix are encoded apart, so that no token
/// tells where a cut is. `encode(std::string_view)` returns a range of tokens. `ids.end` stands
/// behind each document. Errors: errc::invalid for shares out of their ranges and tokens that do
/// not differ.
template <class Encode>
result<std::vector<token>> tokenize_middles(std::span<const std::string_view> texts,
                                            std::string_view separator,
                                            const fill_in_the_middle& how, const middle_tokens& ids,
                                            seed key, Encode&& encode) LINNET_TRY {
  if (auto fit = detail::check_middle("tokenize_middles", how, ids); !fit) return fit.error();
  std::vector<token> all;
  index number = 0;
  detail::each_document(texts, separator, [&](std::string_view document) {
    middle_cut c = how.cut(std::ssize(document), key, number++);
    for (index* const place : {&c.first, &c.last})  // back to where a character begins
      while (*place > 0 && *place < std::ssize(document) &&
             (static_cast<unsigned char>(document[static_cast<std::size_t>(*place)]) & 0xc0) ==
                 0x80)
        --*place;
    for (const detail::middle_part& p : detail::middle_parts(c, ids, std::ssize(document)))
      if (p.mark >= 0 && p.size > 0)
        all.push_back(p.mark);
      else if (p.size > 0)
        for (const token id : encode(document.substr(static_cast<std::size_t>(p.first),
                                                     static_cast<std::size_t>(p.size))))
          all.push_back(id);
    if (ids.end >= 0) all.push_back(ids.end);
  });
  return all;
}
LINNET_OR_OUT_OF_MEMORY("tokenize_middles")

/// Inverse of the transformation: the tokens of one document as they stood, its end included if it
/// has one. A document whose middle was not moved comes back as it is. Errors: errc::mismatch where
/// the marks do not stand once each in their order, as in a model's own wrong text.
inline result<std::vector<token>> restore_middle(const middle_tokens& ids,
                                                 std::span<const token> document) LINNET_TRY {
  const auto wrong = [](const char* what, const char* expected) {
    return error{errc::mismatch, "restore_middle", what, expected, "another order"};
  };
  std::vector<token> text(document.begin(), document.end());
  if (text.empty() || text.front() != ids.prefix) return text;
  const bool ends = text.back() == ids.end;
  const auto last = text.end() - ends;
  const auto suffix = std::find(text.begin(), last, ids.suffix);
  const auto middle = std::find(suffix, last, ids.middle);
  if (middle == last) return wrong("marks", "prefix, suffix and middle, in this order");
  for (const token id : {ids.prefix, ids.suffix, ids.middle})
    if (std::count(text.begin(), last, id) != 1) return wrong("marks", "each once");
  // Tokens behind <MID> go behind the prefix: SPM's begins with it, and leaves the first empty.
  std::vector<token> made(text.begin() + 1, suffix);
  made.insert(made.end(), middle + 1, last);
  made.insert(made.end(), suffix + 1, middle);
  if (ends) made.push_back(ids.end);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("restore_middle")

LINNET_NAMESPACE_END
