// SPDX-License-Identifier: MIT
#pragma once
// The presets and the feed-forward variants by their names on the command line, and the way from a
// name to a type: only here does run time meet compile time.

#include <array>
#include <string>
#include <string_view>

#include <linnet/model/presets.hpp>

namespace zoo {

namespace ln = linnet;

/// The byte-level decoder. At this budget, minutes on two cores, two layers learn more than four:
/// they see twice the text.
inline constexpr ln::decoder_shape byte_decoder_shape{.d_model = 128,
                                                      .d_ff = 344,
                                                      .heads = 4,
                                                      .kv_heads = 4,
                                                      .layers = 2,
                                                      .vocabulary = 256,
                                                      .context = 256};
/// The byte-level T5, with ByT5's ids: 0 padding, 1 end, 2 unknown, then the bytes.
inline constexpr ln::t5_shape byte_t5_shape{.d_model = 128,
                                            .d_ff = 512,
                                            .d_kv = 32,
                                            .heads = 4,
                                            .encoder_layers = 2,
                                            .decoder_layers = 2,
                                            .vocabulary = 259};

using byte_decoder = ln::decoder<byte_decoder_shape>;
using byte_t5 = ln::t5<byte_t5_shape>;

/// Stands for a model type in a function call. Not all presets are compiled to run: those that are
/// only counted cost nothing.
template <class M, bool Runs = true>
struct preset {};

/// Calls f(preset<M, runs>, name) for every T5 preset.
template <class F>
void each_t5_preset(F&& f) {
  f(preset<ln::zoo::t5_tiny>{}, "t5-tiny");
  f(preset<ln::zoo::t5_mini>{}, "t5-mini");
  f(preset<ln::zoo::t5_small>{}, "t5-small");
  f(preset<ln::zoo::t5_base>{}, "t5-base");
  f(preset<ln::zoo::t5_tiny_kv32>{}, "t5-tiny-kv32");
  f(preset<ln::zoo::t5_mini_kv32>{}, "t5-mini-kv32");
  f(preset<ln::zoo::t5_small_kv32>{}, "t5-small-kv32");
  f(preset<ln::zoo::t5_v1_1_small, false>{}, "t5-v1.1-small");
  f(preset<ln::zoo::t5_v1_1_base, false>{}, "t5-v1.1-base");
  f(preset<ln::zoo::mt5_small, false>{}, "mt5-small");
  f(preset<ln::zoo::mt5_base, false>{}, "mt5-base");
  f(preset<ln::zoo::byt5_small, false>{}, "byt5-small");
  f(preset<ln::zoo::byt5_base, false>{}, "byt5-base");
}

/// Calls f(preset<M, runs>, name) for every decoder-only preset.
template <class F>
void each_decoder_preset(F&& f) {
  f(preset<ln::zoo::stlm_10m>{}, "stlm-10m");
  f(preset<ln::zoo::stlm_50m>{}, "stlm-50m");
  f(preset<ln::zoo::stlm_100m>{}, "stlm-100m");
  f(preset<ln::zoo::stlm_10m_ffn_shared, false>{}, "stlm-10m-ffn-shared");
  f(preset<ln::zoo::stlm_50m_ffn_shared, false>{}, "stlm-50m-ffn-shared");
  f(preset<ln::zoo::stlm_100m_ffn_shared, false>{}, "stlm-100m-ffn-shared");
  f(preset<ln::zoo::stlm_10m_albert, false>{}, "stlm-10m-albert");
  f(preset<ln::zoo::stlm_50m_albert, false>{}, "stlm-50m-albert");
  f(preset<ln::zoo::stlm_100m_albert, false>{}, "stlm-100m-albert");
  f(preset<ln::zoo::gpt2_small>{}, "gpt2-small");
  f(preset<ln::zoo::stories260k>{}, "stories260k");
  f(preset<ln::zoo::tinyllama_1_1b, false>{}, "tinyllama-1.1b");
  f(preset<ln::zoo::babyllama_58m, false>{}, "babyllama-58m");
  f(preset<ln::zoo::babyllama_teacher_360m, false>{}, "babyllama-teacher-360m");
  f(preset<ln::zoo::babyllama_teacher_705m, false>{}, "babyllama-teacher-705m");
  f(preset<ln::zoo::mobilellm_125m, false>{}, "mobilellm-125m");
  f(preset<ln::zoo::smollm2_135m>{}, "smollm2-135m");
  f(preset<ln::zoo::smollm2_360m, false>{}, "smollm2-360m");
  f(preset<ln::zoo::rwkv4_660k>{}, "rwkv4-660k");
  f(preset<ln::zoo::rwkv7_834k>{}, "rwkv7-834k");
}

/// Calls f(preset<M, runs>, name) for every encoder preset; none is compiled to run by its name but
/// MiniLM, which zoo embed runs.
template <class F>
void each_encoder_preset(F&& f) {
  f(preset<ln::zoo::bert_base, false>{}, "bert-base");
  f(preset<ln::zoo::distilbert_base, false>{}, "distilbert-base");
  f(preset<ln::zoo::minilm_l6, false>{}, "minilm");
  f(preset<ln::zoo::albert_base, false>{}, "albert-base");
  f(preset<ln::zoo::roberta_base, false>{}, "roberta-base");
}

/// The feed-forward variants (the report's, beside the model's own) and their names.
enum class variant { standard, skip, skip_encoder, one, one_relu, two, three };

inline constexpr std::array<std::string_view, 7> variant_names{
    "standard", "skip", "skip-encoder", "1w", "1w-relu", "2w", "3w"};

constexpr std::string_view name_of(variant v) { return variant_names[static_cast<std::size_t>(v)]; }

/// Model `M` with another feed-forward, as a type. `E` is the inner width of 2w and 3w over
/// d_model.
template <class M, variant V, ln::expansion E = ln::expansion{4}>
struct with_variant {
  using type = typename M::template with_ffn<std::conditional_t<
      V == variant::skip, ln::ffn::skip,
      std::conditional_t<V == variant::one, ln::ffn::linear,
                         std::conditional_t<V == variant::one_relu, ln::ffn::linear_relu,
                                            ln::ffn::reparam<V == variant::two ? 2 : 3, E>>>>>;
};
template <class M, ln::expansion E>
struct with_variant<M, variant::standard, E> {
  using type = M;
};
template <class M, ln::expansion E>
requires(M::encodes) struct with_variant<M, variant::skip_encoder, E> {
  using type = typename M::template with_ffn<ln::ffn::skip, typename M::decoder_ffn>;
};

/// A preset's kind of model in another shape.
template <class M, auto Shape>
struct with_shape;
template <ln::decoder_shape Old, class Policies, ln::decoder_shape Shape>
struct with_shape<ln::decoder_model<Old, Policies>, Shape>
    : ln::detail::decoder_of<Shape, Policies> {};
template <ln::t5_shape Old, class... Policies, ln::t5_shape Shape>
struct with_shape<ln::t5_model<Old, Policies...>, Shape> {
  using type = ln::t5_model<Shape, Policies...>;
};
template <ln::encoder_shape Old, class Policies, ln::encoder_shape Shape>
struct with_shape<ln::encoder_model<Old, Policies>, Shape>
    : ln::detail::encoder_of<Shape, Policies> {};

}  // namespace zoo
