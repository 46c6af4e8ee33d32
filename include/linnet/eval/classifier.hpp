// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Classification with an encoder-decoder that answers in words (Raffel et al. 2020), and its
/// accuracy.

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include <linnet/eval/estimates.hpp>
#include <linnet/eval/session_scorer.hpp>
#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

/// Accuracy of the most frequent class of `known`, the lowest of several, on `asked`: a baseline
/// without a model. Of 0 answers where memory lacks.
inline accuracy majority_baseline(std::span<const index> known,
                                  std::span<const index> asked) LINNET_TRY {
  std::vector<index> sorted(known.begin(), known.end());
  std::sort(sorted.begin(), sorted.end());
  index best = -1, most = 0;
  for (auto first = sorted.begin(), end = first; first != sorted.end(); first = end) {
    end = std::upper_bound(first, sorted.end(), *first);
    if (end - first > most) best = *first, most = end - first;
  }
  return {std::count(asked.begin(), asked.end(), best), std::ssize(asked)};
}
LINNET_WITHOUT_MEMORY(return {})

/// Classifies with a T5 model: chooses among label texts, by probability or by greedy decoding.
/// Planned once; choosing allocates nothing.
template <class M, class T = float>
class classifier {
  static_assert(
      requires(const typename M::batch& b) { b.target_length; },
      "linnet::classifier: the model must be an encoder-decoder");

 public:
  /// A classifier among `labels`: the tokens of each label's text, its end included. `l` says
  /// batch, source and threads; its target and logits become what the labels need. `p` must outlive
  /// it. Errors: errc::invalid for no labels, an empty one, or tokens outside the vocabulary; those
  /// of session::open.
  static result<classifier> open(const packed<M, T>& p, std::vector<std::vector<token>> labels,
                                 limits l) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, std::string got) {
      return error{errc::invalid, "classifier::open", std::move(what), std::move(expected),
                   std::move(got)};
    };
    if (labels.empty()) return wrong("labels", "at least one", "none");
    for (std::size_t c = 0; c < labels.size(); ++c) {
      const std::string name = "label " + std::to_string(c);
      if (labels[c].empty()) return wrong(name, "at least one token", "none");
      if (!linnet::tokens_fit(labels[c].data(), std::ssize(labels[c]), M::vocabulary, false))
        return wrong(name, "tokens below " + std::to_string(M::vocabulary), "others");
      l.max_logits = (std::max<index>)(l.max_logits, std::ssize(labels[c]));
    }
    l.target = (std::max)(l.target, l.max_logits);
    l.chunk = 0;
    auto session = linnet::session<M, T>::open(p, l);
    if (!session) return session.error();
    return classifier(*std::move(session), std::move(labels), l);
  }
  LINNET_OR_OUT_OF_MEMORY("classifier::open")
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W>
  requires linnet::detail::unfit_weights<W, M, T>
  static result<classifier> open(W&&, const std::vector<std::vector<token>>&, const limits&) {
    return linnet::detail::refuse_weights<W, M, T>();
  }

  /// Number of labels.
  index classes() const { return std::ssize(labels_); }

  /// Log-probabilities [batch, classes] of all labels for sources [batch, length], padded on the
  /// right. `lengths` [batch] counts their valid tokens. Each is the sum over the label's tokens,
  /// the end included, under teacher forcing. The answer is [batch, classes()], valid until the
  /// next call; empty, and nothing done, for sources that session::encode refuses.
  std::span<const double> scores(std::span<const token> sources, index batch,
                                 std::span<const index> lengths) {
    if (!session_.encode(sources, batch, lengths)) return {};
    for (std::size_t c = 0; c < labels_.size(); ++c) {
      const std::vector<token>& label = labels_[c];
      const index n = std::ssize(label);
      for (index b = 0; b < batch; ++b) {
        token* const row = inputs_.data() + b * n;
        row[0] = M::start;
        std::copy(label.begin(), label.end() - 1, row + 1);
        (void)session_.truncate(0, b);
      }
      const auto logits = session_.feed_all(
          std::span(inputs_).first(static_cast<std::size_t>(batch * n)), batch, {});
      if (logits.empty()) return {};
      for (index b = 0; b < batch; ++b) {
        double sum = 0;
        for (index i = 0; i < n; ++i)
          sum += score_of(logits.subspan(static_cast<std::size_t>((b * n + i) * M::vocabulary),
                                         static_cast<std::size_t>(M::vocabulary)),
                          label[static_cast<std::size_t>(i)])
                     .log_probability;
        scores_[static_cast<std::size_t>(b * classes()) + c] = sum;
      }
    }
    return std::span<const double>(scores_).first(static_cast<std::size_t>(batch * classes()));
  }

  /// The likeliest label of each source, the first of several; -1 where no score is finite. False,
  /// and nothing done, where scores() refuses. `chosen` [batch].
  bool classify(std::span<const token> sources, index batch, std::span<const index> lengths,
                std::span<index> chosen) {
    const auto all = scores(sources, batch, lengths);
    if (all.empty() || std::ssize(chosen) < batch) return false;
    for (index b = 0; b < batch; ++b) {
      index best = -1;
      const double* const row = all.data() + b * classes();
      for (index c = 0; c < classes(); ++c)
        if (is_finite(row[c]) && (best < 0 || row[c] > row[best])) best = c;
      chosen[static_cast<std::size_t>(b)] = best;
    }
    return true;
  }

  /// Greedily decoded tokens for one source, up to but without `end`. To compare texts:
  /// task.class_of(tokenizer.decode(answer)). At most as many as the target of the limits; valid
  /// until the next call. Empty also for a source that session::encode refuses.
  std::span<const token> answer(std::span<const token> source, token end = 1) {
    std::size_t n = 0;
    session_.generate(source, greedy{}, [&](token t) { inputs_[n++] = t; }, {.stop = {&end, 1}});
    return std::span<const token>(inputs_).first(n);
  }

 private:
  classifier(session<M, T> s, std::vector<std::vector<token>> labels, const limits& l)
      : session_(std::move(s)),
        labels_(std::move(labels)),
        limits_(l),
        inputs_(static_cast<std::size_t>(l.batch * l.target)),
        scores_(static_cast<std::size_t>(l.batch) * labels_.size()) {}

  session<M, T> session_;
  std::vector<std::vector<token>> labels_;
  limits limits_;
  std::vector<token> inputs_;   ///< [batch, target]
  std::vector<double> scores_;  ///< [batch, classes]
};

LINNET_NAMESPACE_END
