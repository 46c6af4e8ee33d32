// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Inputs of products with fewer bits for tokens that matter less (EdgeQAT, Shen et al. 2024,
/// section 4.3).

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>

#include <linnet/core/finite.hpp>
#include <linnet/distill/distillation.hpp>
#include <linnet/model/decoder.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of token_adaptive.
struct token_adaptive_options {
  bool ranks = true;     ///< whether a share of each document has few bits; else all tokens with
                         ///< scores below `threshold`, a choice that no later token changes
  double share = 0.5;    ///< of the tokens of a document that have few bits, rounded down
  double threshold = 0;  ///< least score of tokens that keep their bits
  index bits = 4;        ///< of the others' inputs

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("ranks", self.ranks, detail::one_of(detail::false_or_true));
    f("share", self.share, detail::option_range{.least = 0, .most = 1});
    f("threshold", self.threshold, detail::option_range{});
    f("bits", self.bits, detail::option_range{.least = 2, .most = 7});
  }
};

namespace detail {

/// Scores of the tokens in one call of attention: of their queries with the first key of their
/// document, before the softmax, summed over heads. One that is not finite is the lowest number.
/// scores[batch * queries].
template <class T>
void score_tokens(const ops::execution& on, const ops::attention_call<T>& a, double* scores) {
  const index n = a.heads * a.h, kv = a.kv_heads * a.h, group = a.heads / a.kv_heads;
  on.threads.each(a.batch * a.queries, [&](index row) {
    const T* const q = a.q + row * n;
    const index first = a.documents ? a.documents[row] : 0;
    const T* const k = a.k.data + (row / a.queries * a.keys + first) * kv;
    double sum = 0;
    for (index head = 0; head < a.heads; ++head)
      for (index i = 0; i < a.h; ++i)
        sum +=
            static_cast<double>(q[head * a.h + i]) * static_cast<double>(k[head / group * a.h + i]);
    sum *= static_cast<double>(a.scale);
    scores[row] = is_finite(sum) ? sum : std::numeric_limits<double>::lowest();
  });
}
/// Writes `code` for those of a document's n tokens that have few bits, and 0 for the others. Of
/// equal scores the first ones count as lower. `order` is scratch for n numbers.
inline void choose_tokens(index n, const double* scores, const token_adaptive_options& how,
                          index* order, float code, float* to) {
  std::fill_n(to, n, 0.0f);
  if (!how.ranks) {
    for (index i = 0; i < n; ++i)
      if (scores[i] < how.threshold) to[i] = code;
    return;
  }
  const auto few = static_cast<index>(how.share * static_cast<double>(n));
  for (index i = 0; i < n; ++i) order[i] = i;
  const auto lower = [&](index a, index b) {
    return scores[a] < scores[b] || (!(scores[b] < scores[a]) && a < b);
  };
  if (few > 0 && few < n) std::nth_element(order, order + few, order + n, lower);
  for (index i = 0; i < few; ++i) to[order[i]] = code;
}

}  // namespace detail

/// Token-adaptive inputs (EdgeQAT, Shen et al. 2024, arXiv:2402.10787), around another objective of
/// model `M`. A token's score in a layer is that of its query with the first key of its document,
/// summed over heads. Tokens of low score have inputs of few bits in the rest of the layer, and in
/// the queries, keys and values of the next. All others have those of the compute type, such as
/// compute::int8. So has every token where the head reads it. For trainers and evaluators of
/// decoders, and of models that read decoder_batch and count their layers as `exits`. Where
/// products do not round their inputs to integers it changes nothing. Sequences of a batch, and
/// documents packed in one, choose for themselves. Layer dropout is refused, as of
/// attention_distillation.
template <class M, class Objective = cross_entropy_objective>
class token_adaptive {
  using T = float;
  static_assert(M::exits > 0 && std::is_same_v<typename M::batch, decoder_batch>,
                "linnet::token_adaptive: chooses the tokens of a decoder's self-attention, or of a "
                "model that reads decoder_batch and counts its layers as `exits`; train another "
                "model with compute::int8 alone");

 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) { return detail::bounded_bytes(l, own_bytes); }
  /// Opens the choice for batches up to these limits, around `inner`. Errors: errc::invalid for
  /// options and limits, and for a model with a layer that has no softmax attention over all of its
  /// tokens; errc::out_of_memory.
  static result<token_adaptive> open(const limits& l, const token_adaptive_options& how = {},
                                     Objective inner = {}) LINNET_TRY {
    constexpr const char* where = "token_adaptive::open";
    if (auto fit = detail::acceptable<M>(where, l, footprint(l)); !fit) return fit.error();
    if (auto fit = detail::acceptable(where, "token_adaptive_options", how); !fit)
      return fit.error();
    const attention_extent seen = extent(l);
    if (seen.calls != M::exits || seen.rows != l.batch * l.target)
      return linnet::error{
          errc::invalid, where, "model",
          "softmax attention over all tokens in each layer, such as "
          "attention::full",
          std::to_string(seen.calls) + " of " + std::to_string(M::exits) + " layers with it"};
    token_adaptive made(l, how, std::move(inner));
    if (!made.memory_.data()) return detail::out_of_memory(where, footprint(l));
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("token_adaptive::open")

  /// Whether trainers with a z-loss or early exits refuse it: as they do the inner objective.
  static constexpr bool plain_logits = detail::takes_plain_logits<Objective>;
  /// Why it does not serve a batch: one that is too large, or what the inner objective says.
  template <class Model>
  refusal refuses(const batch& b, const limits& l) const {
    return b.batch * b.length <= rows_ ? detail::refusal_by<Model>(inner_, b, l)
                                       : refusal::objective;
  }
  /// The loss criterion of the inner objective. No token has few bits yet.
  auto token_loss(const ops::execution& on, const batch& b) {
    on.threads.once([&] {
      shown_ = 0;
      bits_ = {b.batch * b.length, nullptr};
      tap_ = {this, [](void* self, const ops::execution& at, const ops::attention_call<T>& a,
                       const ops::attention_gradient<T>* gradient) {
                static_cast<token_adaptive*>(self)->see(at, a, gradient);
              }};
    });
    return inner_.token_loss(on, b);
  }
  /// The hook for a pass, and the choice that products read.
  const void* attention_tap() const { return &tap_; }
  const ops::token_bits* token_bits() const { return &bits_; }
  /// Nats that the inner objective adds, or 0.
  double attention_nats() const {
    if constexpr (detail::sees_attention<Objective>)
      return inner_.attention_nats();
    else
      return 0;
  }

 private:
  /// Where things are in the memory.
  struct map {
    float* codes;    ///< [layers, rows] the largest code of tokens with few bits, or 0
    double* scores;  ///< [rows]
    index* order;    ///< [rows]
  };
  static constexpr map memory_map(arena& from, const limits& l) {
    const index rows = multiply_sizes(l.batch, l.target);
    map m{};
    m.codes = from.take<float>(multiply_sizes(M::exits, rows));
    m.scores = from.take<double>(rows);
    m.order = from.take<index>(rows);
    return m;
  }
  static constexpr index own_bytes(const limits& l) {
    arena counter;
    (void)memory_map(counter, l);
    return counter.peak();
  }
  static constexpr attention_extent extent(const limits& l) {
    return detail::attention_extent_of<typename detail::packed_form<M>::type>(l);
  }
  token_adaptive(const limits& l, const token_adaptive_options& how, Objective&& inner)
      : inner_(std::move(inner)), how_(how), rows_(l.batch * l.target), memory_(own_bytes(l)) {
    if (!memory_.data()) return;
    arena all(memory_.data(), memory_.size());
    at_ = memory_map(all, l);
  }

  /// Chooses in forward; in backward, goes back to the choice of the layer before.
  void see(const ops::execution& on, const ops::attention_call<T>& a,
           const ops::attention_gradient<T>* gradient) {
    if constexpr (detail::sees_attention<Objective>) {
      const auto& inner = *static_cast<const ops::attention_tap<T>*>(inner_.attention_tap());
      inner.call(inner.object, on, a, gradient);
      on.threads.wait();
    }
    if (gradient) {
      on.threads.once([&] {
        --shown_;
        bits_.largest = shown_ > 0 ? at_.codes + (shown_ - 1) * rows_ : nullptr;
      });
      return;
    }
    detail::score_tokens(on, a, at_.scores);
    on.threads.once([&] {
      const auto code = static_cast<float>((index{1} << (how_.bits - 1)) - 1);
      float* const codes = at_.codes + shown_++ * rows_;
      bits_.largest = codes;
      for (index b = 0; b < a.batch; ++b) {
        const index first = b * a.queries, n = a.query_lengths ? a.query_lengths[b] : a.queries;
        std::fill_n(codes + first, a.queries, 0.0f);
        for (index t = 0, end = 0; t < n; t = end) {
          end = (std::min)(n, a.queries_from(b, t).last);
          detail::choose_tokens(end - t, at_.scores + first + t, how_, at_.order, code,
                                codes + first + t);
        }
      }
    });
  }

  Objective inner_;
  token_adaptive_options how_;
  index rows_;
  memory_block memory_;
  map at_{};
  ops::token_bits bits_{};
  ops::attention_tap<T> tap_{};
  index shown_ = 0;
};

LINNET_NAMESPACE_END
