// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Model types for the tests of files: those of the golden fixtures, and kin.

#include <cstring>
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
#include <numeric>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test {

inline constexpr ln::decoder_shape gqa_shape{.d_model = 24,
                                             .d_ff = 44,
                                             .heads = 4,
                                             .kv_heads = 2,
                                             .layers = 3,
                                             .vocabulary = 41,
                                             .context = 32,
                                             .eps = 1e-5};
inline constexpr ln::decoder_shape mha_shape{.d_model = 16,
                                             .d_ff = 26,
                                             .heads = 4,
                                             .kv_heads = 4,
                                             .layers = 2,
                                             .vocabulary = 41,
                                             .context = 32,
                                             .eps = 1e-6};
inline constexpr ln::decoder_shape mqa_shape{.d_model = 24,
                                             .d_ff = 34,
                                             .heads = 4,
                                             .kv_heads = 1,
                                             .layers = 2,
                                             .vocabulary = 47,
                                             .context = 32,
                                             .d_kv = 8,
                                             .eps = 1e-5};
inline constexpr ln::decoder_shape gpt2_shape{.d_model = 24,
                                              .d_ff = 96,
                                              .heads = 4,
                                              .kv_heads = 4,
                                              .layers = 2,
                                              .vocabulary = 41,
                                              .context = 32,
                                              .eps = 1e-5};
inline constexpr ln::decoder_shape gpt2_inner_shape{.d_model = 24,
                                                    .d_ff = 50,
                                                    .heads = 4,
                                                    .kv_heads = 4,
                                                    .layers = 1,
                                                    .vocabulary = 37,
                                                    .context = 32,
                                                    .eps = 1e-5};
inline constexpr ln::t5_shape t5_shape_1_0{.d_model = 24,
                                           .d_ff = 40,
                                           .d_kv = 6,
                                           .heads = 4,
                                           .encoder_layers = 2,
                                           .decoder_layers = 3,
                                           .vocabulary = 37};
inline constexpr ln::t5_shape t5_shape_long{.d_model = 16,
                                            .d_ff = 20,
                                            .d_kv = 6,
                                            .heads = 2,
                                            .encoder_layers = 1,
                                            .decoder_layers = 1,
                                            .vocabulary = 19};
inline constexpr ln::t5_shape t5_shape_1_1{.d_model = 18,
                                           .d_ff = 34,
                                           .d_kv = 5,
                                           .heads = 3,
                                           .encoder_layers = 2,
                                           .decoder_layers = 2,
                                           .vocabulary = 43};

inline constexpr ln::decoder_shape mamba_shape{.d_model = 24,
                                               .d_ff = 1,
                                               .heads = 1,
                                               .kv_heads = 1,
                                               .layers = 3,
                                               .vocabulary = 41,
                                               .context = 64,
                                               .eps = 1e-5};
inline constexpr ln::decoder_shape mamba_untied_shape{.d_model = 18,
                                                      .d_ff = 1,
                                                      .heads = 1,
                                                      .kv_heads = 1,
                                                      .layers = 2,
                                                      .vocabulary = 41,
                                                      .context = 64,
                                                      .eps = 1e-5};

inline constexpr ln::decoder_shape mixtral_shape{.d_model = 24,
                                                 .d_ff = 20,
                                                 .heads = 4,
                                                 .kv_heads = 2,
                                                 .layers = 2,
                                                 .vocabulary = 41,
                                                 .context = 32,
                                                 .eps = 1e-5};
/// Without the losses of the router, which Transformers adds where they are asked for.
using mixtral =
    ln::decoder<mixtral_shape,
                ln::ffn::experts<4, 2, ln::ffn::swiglu, ln::expert_choice{.balance = 0, .z = 0}>,
                ln::position::rope_half, ln::tie::untied>;

using llama_gqa = ln::decoder<gqa_shape, ln::position::rope_half, ln::tie::untied>;
using llama_gqa_interleaved = ln::decoder<gqa_shape, ln::tie::untied>;
using llama_mha = ln::decoder<mha_shape, ln::position::rope_half>;
using llama_mqa = ln::decoder<mqa_shape, ln::position::rope_half>;
template <ln::decoder_shape Shape>
using gpt2_of = ln::decoder<Shape, ln::norm::layer_norm, ln::position::learned, ln::ffn::gelu_tanh,
                            ln::bias::all>;
using gpt2 = gpt2_of<gpt2_shape>;
using gpt2_inner = gpt2_of<gpt2_inner_shape>;
using mamba = ln::decoder<mamba_shape, ln::mixer::mamba<5>, ln::ffn::skip, ln::position::none>;
using mamba_untied = ln::decoder<mamba_untied_shape, ln::mixer::mamba<4, 3, 3>, ln::ffn::skip,
                                 ln::position::none, ln::tie::untied, ln::bias::all>;
using t5_1_0 = ln::t5<t5_shape_1_0>;
using t5_long = ln::t5<t5_shape_long>;
using t5_1_1 = ln::t5<t5_shape_1_1, ln::ffn::gated_gelu, ln::tie::untied>;

constexpr ln::encoder_shape bert_shape_of(index layers, index types, double eps) {
  return {.d_model = 12,
          .d_ff = 20,
          .heads = 3,
          .layers = layers,
          .vocabulary = 31,
          .context = 24,
          .types = types,
          .eps = eps};
}
using bert = ln::encoder<bert_shape_of(2, 2, 3e-3)>;
using bert_sequence = ln::encoder<bert_shape_of(1, 2, 3e-3), ln::head::sequence_classification<3>>;
using distilbert = ln::encoder<bert_shape_of(2, 0, 1e-12)>;
using distilbert_sequence =
    ln::encoder<bert_shape_of(2, 0, 1e-12),
                ln::head::sequence_classification<4, ln::activation_kind::relu>>;
constexpr ln::encoder_shape roberta_shape = [] {
  ln::encoder_shape s = bert_shape_of(2, 1, 3e-3);
  s.position_offset = 2;
  return s;
}();
using roberta = ln::encoder<roberta_shape>;
using roberta_sequence = ln::encoder<roberta_shape, ln::head::sequence_classification<3>>;
using albert = ln::encoder<bert_shape_of(2, 2, 3e-3), ln::sharing::all,
                           ln::embedding::factorised<8>, ln::ffn::gelu_tanh>;

/// Weights in which no two values are alike, also where initialize() would leave ones and zeros.
template <class M, class T = float>
ln::weights<M, T> distinct(T step = T(1) / 8192) {
  ln::weights<M, T> w;
  T next = step;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    auto* const values = values_of(leaf);
    for (index i = 0; i < info.size(); ++i, next += step) values[i] = next;
  });
  return w;
}

/// The tensor of `w` with linnet's name `name`, which must be there.
template <class M, class T>
ln::detail::leaf leaf(const ln::weights<M, T>& w, std::string_view name) {
  for (const ln::detail::leaf& one : ln::detail::leaves_of(w))
    if (one.name == name) return one;
  BOOST_FAIL("no tensor " << name);
  return {};
}

/// Its values, if they are floats.
template <class M>
std::span<const float> floats(const ln::weights<M>& w, std::string_view name) {
  const ln::detail::leaf one = leaf(w, name);
  return {reinterpret_cast<const float*>(one.data), at(one.size())};
}

/// A safetensors file from the text of its header and its values.
inline std::string safetensors_file(std::string_view header, std::string_view values = {}) {
  return raw(std::uint64_t{header.size()}).append(header).append(values);
}

/// The tensors of a parsed file, to be changed and written again.
inline std::vector<ln::named_tensor> tensors_of(const ln::safetensors& file) {
  std::vector<ln::named_tensor> all;
  for (const ln::tensor_record& t : file.tensors())
    all.push_back({t.name, t.type, {t.shape().begin(), t.shape().end()}, t.data});
  return all;
}

/// Saves weights, packed or not, and loads them; returns the file of those that are not packed. Its
/// bytes are those that the type says.
template <class M>
std::string stored_file(const ln::weights<M>& w) {
  const scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_safetensors(w, folder.path("w")));
  ln::weights<M> back;
  LINNET_REQUIRE_OK(ln::load_safetensors(back, folder.path("w")));
  BOOST_TEST(same_bytes(w, back));
  const auto p = ln::pack(w);
  LINNET_REQUIRE_OK(ln::save_packed(p, folder.path("p")));
  const auto mapped = ln::map_packed<M>(folder.path("p"));
  LINNET_REQUIRE_OK(mapped);
  BOOST_TEST(same_bytes(ln::unpack(*mapped), w));
  std::string file = contents(folder.path("w"));
  const auto parsed = ln::parse_safetensors(bytes(file));
  LINNET_REQUIRE_OK(parsed);
  ln::index size = 0;
  for (const auto& tensor : parsed->tensors()) size += std::ssize(tensor.data);
  BOOST_TEST(size == ln::weight_bytes<M>());
  return file;
}
/// The type and shape of a tensor in a safetensors file, or "none".
inline std::string description(const std::string& file, const std::string& name) {
  const auto parsed = ln::parse_safetensors(bytes(file));
  LINNET_REQUIRE_OK(parsed);
  const auto* const found = parsed->find(name);
  return found ? found->description() : "none";
}

}  // namespace test
