// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Choice of training documents by a model: scores of documents, and the best or the middle of a
/// stream of them in bounded memory.

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <linnet/core/finite.hpp>
#include <linnet/core/options.hpp>
#include <linnet/eval/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Which documents come first.
enum class score_order {
  lowest,  ///< small scores, such as of perplexity
  highest  ///< large scores, such as of excess_loss() and yes_share()
};

/// Documents that are kept, by their rank.
struct selection_options {
  index kept = 1;     ///< documents
  index skipped = 0;  ///< documents of better rank that are left out: those of the lowest
                      ///< perplexity repeat themselves, so the middle may be worth more
  score_order order = score_order::lowest;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("kept", self.kept, detail::count(1));
    f("skipped", self.skipped, detail::count(0));
    f("order", self.order, detail::one_of(orders));
  }

  static constexpr const char* orders[] = {"lowest", "highest"};
};

/// A document by its number, and its score.
struct scored_document {
  index number = 0;
  double score = 0;

  bool operator==(const scored_document&) const = default;
};

/// Selects documents from a stream of scores: those of ranks `skipped` to `skipped + kept`. Equal
/// scores rank by rising number. So the selection depends on the set of documents alone, not on
/// the order in which they come. Memory for `skipped + kept` of them is taken by open(), none later
/// but by chosen().
///
/// To interrupt a long run keep candidates(); to resume it offer them to another selector. Nothing
/// else of what came before can be selected.
class document_selector {
 public:
  /// Opens a selector. Errors: errc::invalid for options out of their ranges, errc::out_of_memory.
  static result<document_selector> open(const selection_options& how) LINNET_TRY {
    constexpr const char* where = "document_selector::open";
    if (auto fit = detail::acceptable(where, "selection_options", how); !fit) return fit.error();
    const index most = how.kept + how.skipped;
    if (!detail::has_memory(detail::array_bytes(most, 1, sizeof(scored_document))))
      return detail::out_of_memory(where);
    document_selector made(how);
    made.heap_.reserve(static_cast<std::size_t>(most));
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("document_selector::open")

  /// Takes a document into account; each number once. Errors: errc::invalid for a score that is not
  /// finite, which changes nothing.
  result<void> offer(const scored_document& d) LINNET_TRY {
    if (!is_finite(d.score))
      return error{errc::invalid, "document_selector::offer",
                   "score of document " + std::to_string(d.number), "a finite number",
                   is_nan(d.score) ? "no number" : "infinity"};
    const auto before = [this](const scored_document& a, const scored_document& b) {
      return ranks_before(a, b);
    };
    ++offered_;
    if (std::ssize(heap_) < how_.kept + how_.skipped) {
      heap_.push_back(d);
    } else if (before(d, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), before);
      heap_.back() = d;
    } else {
      return {};
    }
    std::push_heap(heap_.begin(), heap_.end(), before);
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("document_selector::offer")

  /// Documents that were offered.
  index offered() const { return offered_; }
  /// The documents that may be selected yet, in no order.
  std::span<const scored_document> candidates() const { return heap_; }
  /// The selected documents by rising number, as a corpus is read; fewer where there were not
  /// enough. Errors: errc::out_of_memory.
  result<std::vector<scored_document>> chosen() const LINNET_TRY {
    std::vector<scored_document> all = heap_;
    const auto skipped =
        static_cast<std::ptrdiff_t>((std::min<index>)(how_.skipped, std::ssize(all)));
    std::sort(all.begin(), all.end(),
              [this](const auto& a, const auto& b) { return ranks_before(a, b); });
    all.erase(all.begin(), all.begin() + skipped);
    std::sort(all.begin(), all.end(),
              [](const auto& a, const auto& b) { return a.number < b.number; });
    return all;
  }
  LINNET_OR_OUT_OF_MEMORY("document_selector::chosen")

 private:
  explicit document_selector(const selection_options& how) : how_(how) {}
  bool ranks_before(const scored_document& a, const scored_document& b) const {
    if (a.score != b.score)
      return how_.order == score_order::lowest ? a.score < b.score : a.score > b.score;
    return a.number < b.number;
  }

  selection_options how_;
  std::vector<scored_document> heap_{};  ///< the worst rank first
  index offered_ = 0;
};

/// Selects among documents 0 to `documents` by a callable score(number) that returns
/// result<double>. Scores are taken one after another and not stored. Errors: those of
/// document_selector and the first of `score`.
template <class Score>
result<std::vector<scored_document>> select_documents(index documents, const selection_options& how,
                                                      Score&& score) {
  auto selector = document_selector::open(how);
  if (!selector) return selector.error();
  for (index i = 0; i < documents; ++i) {
    const result<double> got = score(i);
    if (!got) return got.error();
    if (auto taken = selector->offer({i, *got}); !taken) return taken.error();
  }
  return selector->chosen();
}

/// Bits per byte of a document under a reference model, as a score: perplexity whatever the
/// tokenizer. NaN for an empty document.
inline double bits_of(const text_score& s) {
  return s.bytes > 0 ? bits_per_byte(s.nats, s.bytes) : detail::unknown;
}

/// How much worse a model predicts a document than a reference, in bits per byte (RHO-loss,
/// Mindermann et al. 2022). The reference has learned held-out texts of the wanted kind, so its
/// loss is what cannot be reduced. A high excess is what can be learned and is not yet; noise is
/// hard for both. NaN for an empty document.
inline double excess_loss(const text_score& model, const text_score& reference) {
  return bits_of(model) - bits_of(reference);
}

/// The share of "yes" in a model's answers to questions about a document (AutoDS, Zhang et al.
/// 2024). It is the product over prompts of p(yes) / (p(yes) + p(no)) for the token that follows
/// each. `encode(text)` gives the tokens of a prompt. Errors: errc::invalid for no prompts, and for
/// tokens that the model refuses, such as those of a prompt that is too long.
template <loglikelihood_scorer P, class Encode>
result<double> yes_share(P& paths, const Encode& encode, std::span<const std::string> prompts,
                         token yes, token no) LINNET_TRY {
  if (prompts.empty()) return error{errc::invalid, "yes_share", "prompts", "at least 1", "0"};
  double product = 1;
  for (const std::string& prompt : prompts) {
    std::vector<token> tokens;
    for (const token t : encode(prompt)) tokens.push_back(t);
    token_score of_yes, of_no;
    if (!paths.begin(std::span<const token>(tokens), {}) ||
        !paths.score(std::span<const token>(&yes, 1), {&of_yes, 1}) ||
        !paths.score(std::span<const token>(&no, 1), {&of_no, 1}))
      return detail::not_scored(paths, "yes_share", detail::scorable);
    product /= 1 + std::exp(of_no.log_probability - of_yes.log_probability);
  }
  return product;
}
LINNET_OR_OUT_OF_MEMORY("yes_share")

LINNET_NAMESPACE_END
