// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The most probable tokens that a model predicts: what a student with other tokens learns from it.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <linnet/core/finite.hpp>
#include <linnet/distill/top_logits.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Rows without ids, for a model of so many tokens. Errors: errc::invalid for k,
/// errc::out_of_memory.
inline result<top_logits> room_for_top_logits(index rows, index k, index vocabulary) LINNET_TRY {
  constexpr const char* where = "top_logits_of";
  if (k < 1 || k > vocabulary)
    return error{errc::invalid, where, "k",
                 "1 to " + std::to_string(vocabulary) + ", the model's vocabulary",
                 std::to_string(k)};
  if (rows > 0 && !has_memory(array_bytes(rows, k, sizeof(token)))) return out_of_memory(where);
  top_logits made{k, {}, {}};
  if (auto sized = made.resize((std::max)(rows, index{0})); !sized) return sized.error();
  return made;
}
LINNET_OR_OUT_OF_MEMORY("top_logits_of")
/// Fills one row from logits[vocabulary].
template <class T>
void take_top_logits(top_logits& to, index row, index vocabulary, const T* logits) {
  token* const ids = to.ids.data() + row * to.k;
  float* const values = to.logits.data() + row * to.k;
  largest_logits(vocabulary, logits, to.k, ids);
  for (index c = 0; c < to.k; ++c) values[c] = static_cast<float>(logits[ids[c]]);
}
/// Refuses rows of logits that are not finite.
inline result<void> check_top_logits(const top_logits& rows, bool finite) {
  for (const float x : rows.logits) finite = finite && is_finite(x);
  if (finite) return {};
  return failure(errc::invalid, "top_logits_of", "the model's logits", "finite numbers", "others");
}
/// Refuses what a model refused.
inline result<void> check_taken(const char* what, std::string_view why) {
  if (why.empty()) return {};
  return failure(errc::invalid, "top_logits_of", what, "what the model and the limits take", why);
}

/// An objective of an evaluator that keeps the largest logits of each row, and each sequence's loss
/// if it is asked for. The loss is the cross-entropy.
struct keeps_top_logits {
  top_logits* rows;
  std::span<loss_sum> losses;
  index labels;  ///< of a sequence

  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    return true;
  }
  template <class Batch>
  auto token_loss(const ops::execution&, const Batch&) const {
    return [this](const ops::execution& on, const auto& h, index first, index count) {
      on.threads.each(count, [&](index i) {
        take_top_logits(*rows, first + i, h.vocabulary, h.chunk + i * h.vocabulary);
      });
      ops::label_cross_entropy{}(on, h, first, count);
      on.threads.once([&] {
        for (index i = first; i < first + count && !losses.empty(); ++i) {
          loss_sum& of = losses[static_cast<std::size_t>(i / labels)];
          of.nats += h.losses[i];
          of.tokens += h.labels[i] != ignored;
        }
      });
    };
  }
};

template <class M>
consteval bool predicts_tokens() {
  static_assert(M::ids_per_token == 1,
                "linnet::top_logits_of: this model's tokens consist of bytes, so it has no logits "
                "of tokens");
  return true;
}

}  // namespace detail

/// The k largest logits of each label's row of a batch, [batch * labels of a sequence, k]. A row is
/// what the model predicts its label by, and is there for labels that are `ignored`, too. Logits
/// descend; of equal ones the lowest ids come first. They are those that loss() gives, with the
/// same bits on any number of threads. `losses`[batch], unless empty, receives the cross-entropy of
/// each sequence. Memory of one chunk of logits is all that it takes beside the rows. Errors:
/// errc::invalid for k, `losses` of another size, a batch that the model refuses, and logits that
/// are not finite. Also errc::out_of_memory. Wan et al. (2024) keep ten.
template <class M, class T>
result<top_logits> top_logits_of(evaluator<M, T>& teacher, const typename M::batch& b, index k = 10,
                                 std::span<loss_sum> losses = {}) LINNET_TRY {
  static_assert(detail::predicts_tokens<M>());
  if (!losses.empty() && std::ssize(losses) != b.batch)
    return error{errc::invalid, "top_logits_of", "losses",
                 std::to_string(b.batch) + ", one for each sequence",
                 std::to_string(losses.size())};
  const index labels = detail::labels_per_sequence<M>(b);
  auto made = detail::room_for_top_logits(multiply_sizes(b.batch, labels), k, M::vocabulary);
  if (!made) return made;
  for (loss_sum& one : losses) one = {};
  const loss_sum sum = teacher.loss(b, detail::keeps_top_logits{&*made, losses, labels});
  if (auto taken = detail::check_taken("batch", teacher.last_refusal()); !taken)
    return taken.error();
  if (auto fit = detail::check_top_logits(*made, is_finite(sum.nats)); !fit) return fit.error();
  return made;
}
LINNET_OR_OUT_OF_MEMORY("top_logits_of")

/// The k largest logits of what follows each token that a session is fed, [batch * length, k]; see
/// feed_all(), which takes the tokens. They stand behind those that the sequences have, and stay.
/// Rows behind a sequence's valid tokens have no ids. Errors: errc::invalid for k, tokens that the
/// session refuses, and logits that are not finite. Also errc::out_of_memory. Nothing is fed where
/// k or the tokens are refused.
template <class M, class T>
result<top_logits> top_logits_of(session<M, T>& teacher, std::span<const token> tokens, index batch,
                                 std::span<const index> lengths, index k = 10) LINNET_TRY {
  static_assert(detail::predicts_tokens<M>());
  auto made = detail::room_for_top_logits(std::ssize(tokens), k, M::vocabulary);
  if (!made) return made;
  const auto logits = teacher.feed_all(tokens, batch, lengths);
  if (auto taken = detail::check_taken("tokens", teacher.last_refusal()); !taken)
    return taken.error();
  const index length = std::ssize(tokens) / batch;
  for (index i = 0; i < batch * length; ++i)
    if (lengths.empty() || i % length < lengths[static_cast<std::size_t>(i / length)])
      detail::take_top_logits(*made, i, M::vocabulary, logits.data() + i * M::vocabulary);
  if (auto fit = detail::check_top_logits(*made, true); !fit) return fit.error();
  return made;
}
LINNET_OR_OUT_OF_MEMORY("top_logits_of")
/// @copydoc top_logits_of()
template <class M, class T>
result<top_logits> top_logits_of(session<M, T>& teacher, std::span<const token> tokens,
                                 index k = 10) {
  return top_logits_of(teacher, tokens, 1, {}, k);
}

LINNET_NAMESPACE_END
