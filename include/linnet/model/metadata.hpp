// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Metadata of a model type as texts: stored beside the weights and compared when they are loaded.

#include <string>
#include <vector>

#include <linnet/core/key_value.hpp>
#include <linnet/model/contract.hpp>
#include <linnet/model/policy_set.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

constexpr const char* name_of(activation_kind kind) {
  switch (kind) {
    case activation_kind::relu:
      return "relu";
    case activation_kind::gelu:
      return "gelu";
    case activation_kind::gelu_tanh:
      return "gelu_tanh";
    case activation_kind::tanh:
      return "tanh";
    case activation_kind::relu_squared:
      return "relu_squared";
    case activation_kind::shifted_relu:
      return "shifted_relu";
    default:
      return "silu";
  }
}

/// Metadata of a feed-forward policy. Hugging Face has no name for a shifted ReLU, so a
/// feed-forward of it is neither `standard` nor `gated`.
template <class P>
struct ffn_metadata {
  static constexpr bool standard = false, gated = false, named = names_itself<P>();
  static std::string name() {
    if constexpr (named)
      return P::name();
    else
      return {};
  }
};
template <>
struct ffn_metadata<void> {
  static constexpr bool standard = false, gated = false, named = true;
};
template <activation_kind A>
struct ffn_metadata<ffn::standard<A>> {
  static constexpr bool standard = A != activation_kind::shifted_relu, gated = false, named = true;
  static constexpr activation_kind activation = A;
  static std::string name() { return name_of(A); }
};
template <activation_kind A>
struct ffn_metadata<ffn::gated<A>> {
  static constexpr bool standard = false, gated = A != activation_kind::shifted_relu, named = true;
  static constexpr activation_kind activation = A;
  static std::string name() { return std::string("gated ") + name_of(A); }
};
template <>
struct ffn_metadata<ffn::skip> : ffn_metadata<void> {
  static std::string name() { return "skip"; }
};
template <>
struct ffn_metadata<ffn::linear> : ffn_metadata<void> {
  static std::string name() { return "linear"; }
};
template <>
struct ffn_metadata<ffn::linear_relu> : ffn_metadata<void> {
  static std::string name() { return "linear relu"; }
};
template <int N, expansion E>
struct ffn_metadata<ffn::reparam<N, E>> : ffn_metadata<void> {
  static std::string name() {
    return "reparam " + std::to_string(N) + " expansion " +
           number_text(static_cast<double>(E.thousandths) / 1000);
  }
};

template <index Rank, class Of>
struct ffn_metadata<ffn::low_rank<Rank, Of>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() {
    return "low_rank " + std::to_string(Rank) + " " + ffn_metadata<Of>::name();
  }
};

template <class Of>
struct ffn_metadata<ffn::hadamard<Of>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() { return "hadamard " + ffn_metadata<Of>::name(); }
};
template <class Of>
struct ffn_metadata<ffn::sub_norm<Of>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() { return "sub_norm " + ffn_metadata<Of>::name(); }
};

template <index K, class Of>
struct ffn_metadata<ffn::top_k<K, Of>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() {
    return "top_k " + std::to_string(K) + " " + ffn_metadata<Of>::name();
  }
};

template <class Of, index... Widths>
struct ffn_metadata<ffn::per_layer<Of, Widths...>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() {
    std::string all = "per_layer";
    for (const index width : {Widths...}) all += ' ' + std::to_string(width);
    return all + ' ' + ffn_metadata<Of>::name();
  }
};

template <index Rank, class Of, real Least>
struct ffn_metadata<ffn::contextual<Rank, Of, Least>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() {
    return "contextual " + std::to_string(Rank) + " " + ffn_metadata<Of>::name();
  }
};

/// Neither a capacity nor the weights of losses: weights compute the same without them.
template <index N, index K, class Of, expert_choice Choice>
struct ffn_metadata<ffn::experts<N, K, Of, Choice>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() {
    return "experts " + std::to_string(N) + " " + std::to_string(K) +
           (ffn::experts<N, K, Of, Choice>::normalised || K == 1 ? " " : " not normalised ") +
           ffn_metadata<Of>::name();
  }
};

template <class Of>
struct ffn_metadata<ffn::visual_expert<Of>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() { return "visual_expert " + ffn_metadata<Of>::name(); }
};

/// The activation of a feed-forward policy; exact GELU for those that are neither standard nor
/// gated.
template <class P>
constexpr activation_kind ffn_activation() {
  if constexpr (requires { ffn_metadata<P>::activation; }) return ffn_metadata<P>::activation;
  return activation_kind::gelu;
}

template <class P>
std::string norm_name() {
  if constexpr (std::is_same_v<P, norm::rms>)
    return "rms";
  else if constexpr (std::is_same_v<P, norm::layer_norm>)
    return "layer_norm";
  else if constexpr (names_itself<P>())
    return P::name();
  else
    return {};
}
template <class P>
std::string position_name() {
  if constexpr (std::is_same_v<P, position::rope>)
    return "rope";
  else if constexpr (std::is_same_v<P, position::rope_half>)
    return "rope_half";
  else if constexpr (std::is_same_v<P, position::learned>)
    return "learned";
  else if constexpr (std::is_same_v<P, position::sinusoidal>)
    return "sinusoidal";
  else if constexpr (std::is_same_v<P, position::none>)
    return "none";
  else if constexpr (names_itself<P>())
    return P::name();
  else
    return {};
}

/// Whether a policy is one of `Known` or names itself.
template <class P, class... Known>
inline constexpr bool named_policy = (std::is_same_v<P, Known> || ...) || names_itself<P>();

/// Whether a model has no policy of depths, or one with a name.
template <class M>
constexpr bool depths_named() {
  if constexpr (requires { typename M::depths; })
    return named_policy<typename M::depths, depths::all>;
  else
    return true;
}

/// Whether every policy of a model has a name by which files tell it from others.
template <class M>
constexpr bool policies_named() {
  if constexpr (requires { typename M::norm; })
    if (std::is_base_of_v<linnet::norm::policy, typename M::norm> &&
        !named_policy<typename M::norm, norm::rms, norm::layer_norm>)
      return false;
  if constexpr (requires { typename M::embedding; })
    if (!names_itself<typename M::embedding>()) return false;
  if constexpr (requires { typename M::encoder_ffn; })
    return ffn_metadata<typename M::encoder_ffn>::named &&
           ffn_metadata<typename M::decoder_ffn>::named &&
           names_itself<typename M::encoder_attention>() &&
           names_itself<typename M::decoder_attention>();
  else if constexpr (requires {
                       typename M::ffn;
                       typename M::sharing;
                     })
    return ffn_metadata<typename M::ffn>::named && names_itself<typename M::attention>() &&
           depths_named<M>() && names_itself<typename M::sharing>() &&
           named_policy<typename M::position, position::rope, position::rope_half,
                        position::learned, position::sinusoidal, position::none>;
  else  // a model without policies, or from outside: describe() is its own
    return true;
}

/// A compile-time error for a model with a policy that files could not tell from others. True for
/// other models, and where the file does not `Say` what policies a model has.
template <bool Say, class M>
constexpr bool fits_metadata() {
  if constexpr (Say && !policies_named<M>())
    static_assert(never<M>,
                  "linnet: give your policy `static std::string name()`, a name of its own: files "
                  "tell kinds apart by it");
  else
    return true;
  return false;
}

// The metadata of each family of models: f(key, value) with numbers and texts, in the order of
// files.

template <class M, class F>
void describe_shape(F& f) {
  f("d_model", M::shape.d_model);
  f("d_ff", M::shape.d_ff);
  f("heads", M::shape.heads);
  f("vocabulary", M::shape.vocabulary);
  f("eps", M::shape.eps);
}
template <class M, class F>
void describe_choices(F& f) {
  f("norm", norm_name<typename M::norm>());
  f("head", M::tied ? "tied" : "untied");
  f("bias", M::biased ? "all" : "none");
}
template <class M, class F>
void describe_blocks(F& f) {
  constexpr auto shape = M::shape;
  f("d_kv", shape.head_width());
  f("kv_heads", shape.kv_heads);
  f("layers", shape.layers);
  f("context", shape.context);
  f("position", position_name<typename M::position>());
  if constexpr (M::rotary) f("rope_theta", shape.rope_theta);
  f("ffn", ffn_metadata<typename M::ffn>::name());
  f("attention", M::attention::name());
  if constexpr (M::depths::routes) f("depths", M::depths::name());
  // Older files say nothing of these; the names of the tensors tell the two apart.
  if constexpr (!std::is_same_v<typename M::sharing, sharing::none>) f("share", M::sharing::name());
  if constexpr (M::factorised) f("embedding", M::embedding::name());
}

template <class M, class F>
void describe_encoder(F& f) {
  constexpr auto shape = M::shape;
  describe_shape<M>(f);
  f("family", "encoder");
  f("d_kv", shape.head_width());
  f("layers", shape.layers);
  f("context", shape.context);
  f("types", shape.types);
  if constexpr (shape.position_offset > 0) f("position_offset", shape.position_offset);
  f("position", position_name<typename M::position>());
  if constexpr (M::rotary) f("rope_theta", shape.rope_theta);
  f("ffn", ffn_metadata<typename M::ffn>::name());
  f("attention", M::attention::name());
  f("norm_placement", M::placement::text);
  if constexpr (!std::is_same_v<typename M::sharing, sharing::none>) f("share", M::sharing::name());
  if constexpr (M::factorised || M::of_images) f("embedding", M::embedding::name());
  f("task", M::head::name());
  describe_choices<M>(f);
}

template <class M, class F>
void describe_t5(F& f) {
  constexpr auto shape = M::shape;
  describe_shape<M>(f);
  f("family", "t5");
  f("d_kv", shape.d_kv);
  // Older files say nothing of it.
  if constexpr (shape.key_value_heads() != shape.heads) f("kv_heads", shape.kv_heads);
  f("encoder_layers", shape.encoder_layers);
  f("decoder_layers", shape.decoder_layers);
  f("buckets", shape.buckets);
  f("max_distance", shape.max_distance);
  f("encoder_ffn", ffn_metadata<typename M::encoder_ffn>::name());
  f("decoder_ffn", ffn_metadata<typename M::decoder_ffn>::name());
  f("encoder_attention", M::encoder_attention::name());
  f("decoder_attention", M::decoder_attention::name());
  describe_choices<M>(f);
}
template <class M, class F>
void describe_next_thought(F& f) {
  constexpr auto shape = M::shape;
  describe_shape<M>(f);
  f("family", "next_thought");
  f("kv_heads", shape.kv_heads);
  f("context", shape.context);
  f("pooling_heads", shape.pooling_heads);
  f("pseudo", shape.pseudo);
  f("decoder_layers", shape.decoder_layers);
  std::string shrinks;
  for (index k = 0; k < shape.shrinks(); ++k)
    shrinks += (k > 0 ? ", -" : "-") + number_text(shape.dropped[k]) + " to " +
               std::to_string(shape.widths[k]);
  f("shrinks", shrinks);
  describe_choices<M>(f);
}
template <class M, class F>
void describe_byte_pooled(F& f) {
  constexpr auto ends = M::pooling;
  describe_shape<M>(f);
  f("family", "byte_pooled");
  f("byte_rules", ends.rules == decltype(ends.rules)::corrected ? "corrected" : "repository");
  f("byte_slots", ends.bytes_per_token);
  f("byte_width", ends.width);
  f("byte_heads", ends.heads);
  f("byte_expansion", ends.expansion);
  f("byte_head_blocks", ends.head_blocks);
  std::string between;
  for (index k = 1; k < ends.blocks(); ++k)
    between += (k > 1 ? " " : "") + std::to_string(ends.width_before(k));
  f("byte_between", between);
  describe_blocks<M>(f);
  describe_choices<M>(f);
}
template <class M, class F>
void describe_decoder(F& f) {
  describe_shape<M>(f);
  f("family", "decoder");
  describe_blocks<M>(f);
  describe_choices<M>(f);
}

/// Everything that decides what the weights of `M` compute; neither storage nor scalar type.
template <class M>
std::vector<key_value> metadata_of() {
  std::vector<key_value> all;
  M::describe([&](const char* key, const auto& value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string>)
      all.push_back({key, value});
    else
      all.push_back({key, number_text(static_cast<double>(value))});
  });
  return all;
}

}  // namespace detail

LINNET_NAMESPACE_END
