// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Heads of encoders: what is read from the hidden states, and what is trained.

#include <string>
#include <string_view>

#include <linnet/nn/chain.hpp>
#include <linnet/nn/ffn.hpp>
#include <linnet/nn/norm.hpp>
#include <linnet/ops/pooling.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Stands for a layer between the hidden states and the logits where there is none.
template <index D>
struct no_reader : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  static constexpr index flops(const call_shape&) { return 0; }
};

}  // namespace detail

/// Heads of encoders. A head has a `reader`, the layer between the hidden states of width D and the
/// logits, or `detail::no_reader`. `Width` is the embedding's, `A` the feed-forward's activation.
namespace head {

/// Base of the heads; a head overrides what differs.
struct policy {
  static constexpr bool trains = true;         ///< has logits, labels and a loss
  static constexpr bool per_sequence = false;  ///< reads one vector of each sequence, its `pooling`
  static constexpr index classes = 0;          ///< logits; 0 for one per token of the vocabulary
  static constexpr bool contrasts = false;     ///< trains vectors of texts, see contrastive
  static constexpr bool pools = false;         ///< has no reader: the logits are of that vector
  static constexpr sentence_pooling pooling = sentence_pooling::first;  ///< of a sequence's rows
  static constexpr std::string_view place = "head";  ///< name of the reader's parameters
};

/// No head: the hidden states are the output, see embedder.
struct none : policy {
  static constexpr bool trains = false;
  static std::string name() { return "none"; }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = linnet::detail::no_reader<D>;
};

/// BERT's pooler: tanh(W h + b) of the first token. A model with nothing behind it is Hugging
/// Face's BertModel.
struct pooler : policy {
  static constexpr bool trains = false, per_sequence = true;
  static constexpr std::string_view place = "pooler";
  static std::string name() { return "pooler"; }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = activated_linear<D, D, activation_kind::tanh, Bias, false>;
};

/// Predicts masked tokens (Devlin et al. 2019): logits = E norm(f(W h + b)) + bias, with the
/// embedding's table E where the model is tied.
struct masked_lm : policy {
  static std::string name() { return "masked_lm"; }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = chain<named<"dense", activated_linear<D, Width, A, Bias, false>>,
                       named<"norm", typename Norm::template layer<Width, Eps>>>;
};

/// One of `Classes` labels for a sequence: a linear map of the pooled first token. The pooler's
/// activation is BERT's tanh; DistilBERT has `activation_kind::relu`.
template <index Classes, activation_kind Pooler = activation_kind::tanh>
struct sequence_classification : policy {
  static_assert(Classes > 0, "linnet::head::sequence_classification: at least one class");
  static constexpr bool per_sequence = true;
  static constexpr index classes = Classes;
  static constexpr activation_kind activation = Pooler;
  static constexpr std::string_view place = "pooler";
  static std::string name() {
    return "sequence_classification " + std::to_string(Classes) +
           (Pooler == activation_kind::tanh   ? " tanh"
            : Pooler == activation_kind::relu ? " relu"
            : Pooler == activation_kind::gelu ? " gelu"
            : Pooler == activation_kind::silu ? " silu"
                                              : " gelu_tanh");
  }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = activated_linear<D, D, Pooler, Bias, false>;
};

/// Vectors of texts, trained by pairs: each batch is anchors, then their positives, then more
/// negatives, see contrastive_options. There are no labels and no parameters; an embedder gives the
/// vectors.
template <sentence_pooling Pooling = sentence_pooling::mean>
struct contrastive : policy {
  static constexpr bool per_sequence = true, contrasts = true;
  static constexpr sentence_pooling pooling = Pooling;
  static std::string name() {
    return Pooling == sentence_pooling::mean    ? "contrastive mean"
           : Pooling == sentence_pooling::first ? "contrastive first"
                                                : "contrastive max";
  }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = linnet::detail::no_reader<D>;
};

/// One of `Classes` labels for a sequence: a linear map of one vector of its hidden states, without
/// a layer between them. Image classifiers (ViT) read the class token, or the mean of all rows.
template <index Classes, sentence_pooling Pooling = sentence_pooling::first>
struct linear_classification : policy {
  static_assert(Classes > 0, "linnet::head::linear_classification: at least one class");
  static constexpr bool per_sequence = true, pools = true;
  static constexpr index classes = Classes;
  static constexpr sentence_pooling pooling = Pooling;
  static std::string name() {
    return "linear_classification " + std::to_string(Classes) +
           (Pooling == sentence_pooling::mean    ? " mean"
            : Pooling == sentence_pooling::first ? " first"
                                                 : " max");
  }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = linnet::detail::no_reader<D>;
};

/// One of `Classes` labels for each token: a linear map of the hidden states.
template <index Classes>
struct token_classification : policy {
  static_assert(Classes > 0, "linnet::head::token_classification: at least one class");
  static constexpr index classes = Classes;
  static std::string name() { return "token_classification " + std::to_string(Classes); }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = linnet::detail::no_reader<D>;
};

}  // namespace head

namespace detail {
/// Whether a head reads each sequence's first row alone.
template <class Head>
inline constexpr bool reads_first_row =
    Head::per_sequence&& Head::pooling == sentence_pooling::first;
}  // namespace detail

LINNET_NAMESPACE_END
