// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Distillation from a few tokens of each row, such as those that token_alignment carries over.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

#include <linnet/distill/distillation.hpp>
#include <linnet/distill/token_alignment.hpp>

LINNET_NAMESPACE_BEGIN

/// Objective whose teacher is given as top_logits, a row for each of the student's. Tokens that are
/// not among them have no probability. Call teach() before the first step on each batch: one with
/// other tokens or labels is refused until then. FuseLLM (Wan et al. 2024) takes {.alpha = 0.9,
/// .temperature = 1}, and for each sequence the rows of the model with the least cross-entropy.
/// Divergences that divide by the teacher's probabilities, as reverse_kl does, are refused.
template <class M, class T = float>
class top_logits_objective {
 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) {
    return ops::distil_scratch<T>(M::vocabulary, l.threads) * static_cast<index>(sizeof(T));
  }
  /// Opens the objective for trainers with at most the threads of `l`. Errors: errc::invalid for
  /// settings out of their range, errc::out_of_memory.
  static result<top_logits_objective> open(const limits& l,
                                           const distillation_options& how = {}) LINNET_TRY {
    constexpr const char* where = "top_logits_objective::open";
    if (auto fit = detail::acceptable(where, "limits", l); !fit) return fit.error();
    if (auto fit = detail::acceptable(where, how, 1); !fit) return fit.error();
    if (how.divergence == divergence::reverse_kl ||
        (how.divergence == divergence::jsd && how.beta == 1))
      return linnet::error{errc::invalid, where, "distillation_options.divergence",
                           "one that is finite where the teacher has no probability",
                           how.beta == 1 && how.divergence == divergence::jsd
                               ? "jsd with beta 1, which is reverse_kl"
                               : "reverse_kl"};
    top_logits_objective made(l, how);
    if (!made.memory_.data()) return detail::out_of_memory(where, footprint(l));
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("top_logits_objective::open")

  /// Names the rows of the next batch, which must outlive its steps.
  void teach(const top_logits& rows) {
    rows_ = &rows;
    mark_ = 0;
  }
  // Rows that would be gone before the step.
  void teach(const top_logits&&) = delete;
  /// Why it does not serve a batch: each of its labels has a row that teach() named, with ids of
  /// the vocabulary.
  template <class Any>
  refusal refuses(const batch& b, const limits& l) const {
    static_assert(M::vocabulary == Any::vocabulary,
                  "linnet::top_logits_objective: the student has another vocabulary");
    if (l.threads > threads_) return refusal::objective_threads;
    if (!rows_ || (mark_ != 0 && mark_ != detail::text_mark<M>(b))) return refusal::not_taught;
    const index rows = b.batch * detail::labels_per_sequence<M>(b);
    bool fits = rows_->logits.size() == rows_->ids.size() && rows_->rows() == rows;
    for (index i = 0; fits && i < rows; ++i)
      fits =
          b.labels[i] == ignored || rows_->ids[static_cast<std::size_t>(i * rows_->k)] != no_token;
    fits = fits && std::all_of(rows_->ids.begin(), rows_->ids.end(), [](token t) {
             return t == no_token || (t >= 0 && t < M::vocabulary);
           });
    return fits ? refusal::none : refusal::taught_rows;
  }
  /// The loss criterion of the rows.
  auto token_loss(const ops::execution& caller, const batch& b) const {
    caller.threads.once([&] { mark_ = detail::text_mark<M>(b); });
    return [this](const ops::execution& on, const auto& h, index first, index rows) {
      ops::distil(on, h, first, rows, how_, 1, static_cast<T*>(memory_.data()),
                  [&](index, index i, T* to) {
                    expand(first + i, to);
                    return 1.0;
                  });
    };
  }

 private:
  top_logits_objective(const limits& l, const distillation_options& how)
      : how_(how), threads_(l.threads), memory_(footprint(l)) {}

  /// The logits of a row, so low for all other tokens that their probability is 0.
  void expand(index row, T* to) const {
    const auto begin = static_cast<std::size_t>(row * rows_->k),
               k = static_cast<std::size_t>(rows_->k);
    const std::span<const float> logits(rows_->logits.data() + begin, k);
    const std::span<const token> ids(rows_->ids.data() + begin, k);
    double largest = static_cast<double>(logits[0]);
    for (std::size_t c = 0; c < k && ids[c] != no_token; ++c)
      largest = (std::max)(largest, static_cast<double>(logits[c]));
    std::fill_n(to, M::vocabulary, static_cast<T>(largest - 1e4 * how_.temperature));
    for (std::size_t c = 0; c < k && ids[c] != no_token; ++c)
      to[ids[c]] = static_cast<T>(logits[c]);
  }

  distillation_options how_;
  int threads_;
  memory_block memory_;
  const top_logits* rows_ = nullptr;
  mutable std::uint64_t mark_ = 0;  ///< of the batch that was taught; 0 before its first step
};

LINNET_NAMESPACE_END
