#pragma once
/// @file
/// What a model's type says, as texts: stored beside the weights and compared when they are loaded.

#include <string>
#include <vector>

#include <linnet/core/key_value.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/t5.hpp>

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
    default:
      return "silu";
  }
}

/// What is known about a feed-forward policy.
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
  static constexpr bool standard = true, gated = false, named = true;
  static constexpr activation_kind activation = A;
  static std::string name() { return name_of(A); }
};
template <activation_kind A>
struct ffn_metadata<ffn::gated<A>> {
  static constexpr bool standard = false, gated = true, named = true;
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

/// Whether every policy of a model has a name by which files tell it from others.
template <class M>
constexpr bool policies_named() {
  if constexpr (!named_policy<typename M::norm, norm::rms, norm::layer_norm>) return false;
  if constexpr (requires { typename M::embedding; })
    if (!names_itself<typename M::embedding>()) return false;
  if constexpr (M::family == model_family::t5)
    return ffn_metadata<typename M::encoder_ffn>::named &&
           ffn_metadata<typename M::decoder_ffn>::named &&
           names_itself<typename M::encoder_attention>() &&
           names_itself<typename M::decoder_attention>();
  else if constexpr (M::family == model_family::next_thought)
    return true;
  else
    return ffn_metadata<typename M::ffn>::named && names_itself<typename M::attention>() &&
           named_policy<typename M::depths, depths::all> && names_itself<typename M::sharing>() &&
           named_policy<typename M::position, position::rope, position::rope_half,
                        position::learned, position::sinusoidal, position::none>;
}

/// Words for a model with a policy that files could not tell from others; true for others, and
/// where the file does not `Say` what policies a model has.
template <bool Say, class M>
constexpr bool fits_facts() {
  if constexpr (Say && !policies_named<M>())
    static_assert(never<M>,
                  "linnet: give your policy `static std::string name()`, a name of its own: files "
                  "tell kinds apart by it");
  else
    return true;
  return false;
}

/// Everything that decides what the weights of `M` compute; neither storage nor scalar type.
template <class M>
std::vector<key_value> metadata_of() {
  std::vector<key_value> all;
  const auto number = [&](const char* key, auto value) {
    all.push_back({key, number_text(static_cast<double>(value))});
  };
  const auto text = [&](const char* key, std::string value) {
    all.push_back({key, std::move(value)});
  };
  constexpr auto shape = M::shape;
  number("d_model", shape.d_model);
  number("d_ff", shape.d_ff);
  number("heads", shape.heads);
  number("vocabulary", shape.vocabulary);
  number("eps", shape.eps);
  if constexpr (M::family == model_family::t5) {
    text("family", "t5");
    number("d_kv", shape.d_kv);
    number("encoder_layers", shape.encoder_layers);
    number("decoder_layers", shape.decoder_layers);
    number("buckets", shape.buckets);
    number("max_distance", shape.max_distance);
    text("encoder_ffn", ffn_metadata<typename M::encoder_ffn>::name());
    text("decoder_ffn", ffn_metadata<typename M::decoder_ffn>::name());
    text("encoder_attention", M::encoder_attention::name());
    text("decoder_attention", M::decoder_attention::name());
  } else if constexpr (M::family == model_family::next_thought) {
    text("family", "next_thought");
    number("kv_heads", shape.kv_heads);
    number("context", shape.context);
    number("pooling_heads", shape.pooling_heads);
    number("pseudo", shape.pseudo);
    number("decoder_layers", shape.decoder_layers);
    std::string shrinks;
    for (index k = 0; k < shape.shrinks(); ++k)
      shrinks += (k > 0 ? ", -" : "-") + number_text(shape.dropped[k]) + " to " +
                 std::to_string(shape.widths[k]);
    text("shrinks", shrinks);
  } else {
    if constexpr (M::family == model_family::byte_pooled) {
      constexpr byte_pooling ends = M::pooling;
      text("family", "byte_pooled");
      text("byte_rules", ends.rules == byte_rules::corrected ? "corrected" : "repository");
      number("byte_slots", ends.bytes_per_token);
      number("byte_width", ends.width);
      number("byte_heads", ends.heads);
      number("byte_expansion", ends.expansion);
      number("byte_head_blocks", ends.head_blocks);
      std::string between;
      for (index k = 1; k < ends.blocks(); ++k)
        between += (k > 1 ? " " : "") + std::to_string(ends.width_before(k));
      text("byte_between", between);
    } else {
      text("family", "decoder");
    }
    number("d_kv", shape.head_width());
    number("kv_heads", shape.kv_heads);
    number("layers", shape.layers);
    number("context", shape.context);
    text("position", position_name<typename M::position>());
    if constexpr (M::rotary) number("rope_theta", shape.rope_theta);
    text("ffn", ffn_metadata<typename M::ffn>::name());
    text("attention", M::attention::name());
    if constexpr (M::depths::routes) text("depths", M::depths::name());
    // Older files say nothing of these; the names of the tensors tell the two apart.
    if constexpr (!std::is_same_v<typename M::sharing, sharing::none>)
      text("share", M::sharing::name());
    if constexpr (M::factorised) text("embedding", M::embedding::name());
  }
  text("norm", norm_name<typename M::norm>());
  text("head", M::tied ? "tied" : "untied");
  text("bias", M::biased ? "all" : "none");
  return all;
}

}  // namespace detail

LINNET_NAMESPACE_END
