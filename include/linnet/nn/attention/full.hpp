// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Full softmax attention, and what other kinds of attention of its making change: low-rank
/// projections, rotated keys, and norms.

#include <string>

#include <linnet/nn/attention/softmax_attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Full softmax attention (Vaswani et al. 2017; grouped-query: Ainslie et al. 2023).
struct full : policy {
  static constexpr bool can_truncate = true, supports_token_subset = true, supports_low_rank = true,
                        supports_documents = true, supports_trees = true, supports_channels = true;
  using kind = full;
  static std::string name() { return "full"; }
  template <attention_shape A>
  using layer =
      linnet::detail::softmax_attention<A, ops::attention_window{
                                               .after = A.causal ? 0 : ops::any_distance}>;
};

/// Attention `Kind` with its four projections factored through `Rank`: y = U (V x).
template <index Rank, class Kind = full>
struct low_rank : Kind {
  static_assert(
      Kind::supports_low_rank,
      "linnet::attention::low_rank: this kind's maps are not of its making; full, prefix, "
      "sliding_window and sinks are");
  static constexpr bool supports_low_rank = false;
  using dense = Kind;  ///< what it factors
  using kind = low_rank;
  static std::string name() { return "low_rank<" + std::to_string(Rank) + "> " + Kind::name(); }
  static constexpr attention_shape with_rank(attention_shape a) {
    a.projections = {.rank = Rank};
    return a;
  }
  template <attention_shape A>
  using layer = typename Kind::template layer<with_rank(A)>;
};

/// Attention `Kind` with queries and keys rotated by a Hadamard transform behind their positions
/// (R3 of Liu et al. 2024, arXiv:2405.16406). Scores stay, and no channel of a key stands out when
/// a cache rounds it. Weights are those of `Kind`.
template <class Kind = full>
struct hadamard : Kind {
  static constexpr bool supports_channels = false;  // it rotates behind positions
  static_assert(
      Kind::supports_low_rank,
      "linnet::attention::hadamard: this kind's keys are not of its making; full, prefix, "
      "sliding_window and sinks are");
  using plain = Kind;  ///< what it rotates
  using kind = hadamard;
  static std::string name() { return "hadamard " + Kind::name(); }
  static constexpr attention_shape rotating(attention_shape a) {
    a.hadamard = true;
    return a;
  }
  template <attention_shape A>
  using layer = typename Kind::template layer<rotating(A)>;
};

/// Attention `Kind` that normalises what its output projection reads, as BitNet does (Ma et al.
/// 2024), with an RMSNorm over all heads.
template <class Kind = full>
struct sub_norm : Kind {
  static_assert(Kind::supports_low_rank,
                "linnet::attention::sub_norm: this kind's maps are not of its making; full, "
                "prefix, sliding_window and sinks are");
  static constexpr bool supports_low_rank = false;
  using kind = sub_norm;
  static std::string name() { return "sub_norm " + Kind::name(); }
  static constexpr attention_shape with_norm(attention_shape a) {
    a.projections.normed = true;
    return a;
  }
  template <attention_shape A>
  using layer = typename Kind::template layer<with_norm(A)>;
};

/// Attention `Kind` that normalises each head of queries and keys before their positions, so that
/// scores stay bounded (QK-norm). As Chameleon does (arXiv:2405.09818), by a
/// LayerNorm with one scale and bias for all heads of queries, and one for those of keys.
template <class Kind = full>
struct qk_norm : Kind {
  static_assert(Kind::supports_low_rank,
                "linnet::attention::qk_norm: this kind's keys are not of its making; full, prefix, "
                "sliding_window and sinks are");
  static constexpr bool supports_low_rank = false;
  using kind = qk_norm;
  static std::string name() { return "qk_norm " + Kind::name(); }
  static constexpr attention_shape with_norms(attention_shape a) {
    a.qk_norm = true;
    return a;
  }
  template <attention_shape A>
  using layer = typename Kind::template layer<with_norms(A)>;
};

/// Full attention in which all tokens see a prefix, such as a question, also its own tokens (Raffel
/// et al. 2020, "prefix LM"). Behind the prefix, tokens see only what came before.
/// decoder_batch::prefixes tells its length; a session takes the tokens of the first feed() for it.
struct prefix : full {
  static constexpr bool takes_prefix = true, supports_token_subset = false;
  using kind = prefix;
  static std::string name() { return "prefix"; }
};

}  // namespace attention

LINNET_NAMESPACE_END
