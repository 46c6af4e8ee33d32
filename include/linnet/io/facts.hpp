#pragma once
/// @file
/// What a model's type says, as texts: stored beside the weights and compared when they are loaded.

#include <charconv>
#include <string>
#include <vector>

#include <linnet/model/decoder.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A number as its shortest decimal text: 1e-06, 0.5; whole numbers without an exponent: 500000.
inline std::string number_text(double x) {
  char digits[32];
  if (const double limit = 9007199254740992;
      x > -limit && x < limit && x == static_cast<double>(static_cast<std::int64_t>(x)))
    return std::to_string(static_cast<std::int64_t>(x));
  return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}

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

/// What is known about a feed-forward policy; one without a name is "custom".
template <class P>
struct ffn_facts {
  static constexpr bool standard = false, gated = false;
  static std::string name() {
    if constexpr (requires { P::name(); })
      return P::name();
    else
      return "custom";
  }
};
template <activation_kind A>
struct ffn_facts<ffn::standard<A>> {
  static constexpr bool standard = true, gated = false;
  static constexpr activation_kind activation = A;
  static std::string name() { return name_of(A); }
};
template <activation_kind A>
struct ffn_facts<ffn::gated<A>> {
  static constexpr bool standard = false, gated = true;
  static constexpr activation_kind activation = A;
  static std::string name() { return std::string("gated ") + name_of(A); }
};
template <>
struct ffn_facts<ffn::skip> : ffn_facts<void> {
  static std::string name() { return "skip"; }
};
template <>
struct ffn_facts<ffn::linear> : ffn_facts<void> {
  static std::string name() { return "linear"; }
};
template <>
struct ffn_facts<ffn::linear_relu> : ffn_facts<void> {
  static std::string name() { return "linear relu"; }
};
template <int N, expansion E>
struct ffn_facts<ffn::reparam<N, E>> : ffn_facts<void> {
  static std::string name() {
    return "reparam " + std::to_string(N) + " expansion " +
           number_text(static_cast<double>(E.thousandths) / 1000);
  }
};

template <index Rank, class Of>
struct ffn_facts<ffn::low_rank<Rank, Of>> : ffn_facts<void> {
  static std::string name() {
    return "low_rank " + std::to_string(Rank) + " " + ffn_facts<Of>::name();
  }
};

template <class P>
constexpr const char* norm_name() {
  if constexpr (std::is_same_v<P, norm::rms>)
    return "rms";
  else if constexpr (std::is_same_v<P, norm::layer_norm>)
    return "layer_norm";
  else
    return "custom";
}
template <class P>
constexpr const char* position_name() {
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
  else
    return "custom";
}

/// One statement about a model.
struct fact {
  std::string key, value;
};

/// Everything that decides what the weights of `M` compute; neither storage nor scalar type.
template <class M>
std::vector<fact> facts_of() {
  std::vector<fact> all;
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
    text("encoder_ffn", ffn_facts<typename M::encoder_ffn>::name());
    text("decoder_ffn", ffn_facts<typename M::decoder_ffn>::name());
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
    text("ffn", ffn_facts<typename M::ffn>::name());
    text("attention", M::attention::name());
    if constexpr (M::depths::routes) text("depths", M::depths::name());
    // Older files say nothing of these; the names of the tensors tell the two apart.
    if constexpr (!std::is_same_v<typename M::share, share::none>) text("share", M::share::name());
    if constexpr (M::factorised) text("embedding", M::embedding::name());
  }
  text("norm", norm_name<typename M::norm>());
  text("head", M::tied ? "tied" : "untied");
  text("bias", M::biased ? "all" : "none");
  return all;
}

}  // namespace detail

LINNET_NAMESPACE_END
