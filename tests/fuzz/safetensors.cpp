// SPDX-License-Identifier: MIT
// Any bytes as a safetensors file: parsed, every tensor read, and loaded into models that are used
// then.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

#include "fuzz/afterwards.hpp"

namespace ln = linnet;

namespace fuzz::safetensors {

namespace {
constexpr ln::decoder_shape shape{
    .d_model = 4, .d_ff = 6, .heads = 2, .kv_heads = 2, .layers = 1, .vocabulary = 5, .context = 8};
using llama = ln::decoder<shape>;
using gpt2 = ln::decoder<shape, ln::norm::layer_norm, ln::position::learned, ln::ffn::gelu_tanh,
                         ln::bias::all>;
using codes = ln::quantized<llama, ln::storage::int8>;
}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  const auto file = ln::parse_safetensors({reinterpret_cast<const std::byte*>(data), size});
  if (!file) {
    if (file.error().message().empty()) __builtin_trap();
    return 0;
  }
  for (const ln::tensor_record& tensor : file->tensors()) {
    if (file->find(tensor.name) != &tensor) __builtin_trap();
    if (const auto values = file->values<float>(tensor.name);
        values && std::ssize(*values) != tensor.size())
      __builtin_trap();
    (void)file->values<std::int32_t>(tensor.name);
  }
  static ln::weights<llama> w;
  static ln::weights<gpt2> g;
  static ln::weights<codes> q;
  if (ln::load_safetensors(w, *file)) fuzz::generate(ln::pack(w));
  if (ln::load_safetensors(w, *file, ln::naming::hugging_face{})) fuzz::generate(ln::pack(w));
  if (ln::load_safetensors(g, *file, ln::naming::hugging_face{})) fuzz::generate(ln::pack(g));
  if (ln::load_safetensors(q, *file)) fuzz::generate(ln::pack(q));
  return 0;
}

}  // namespace fuzz::safetensors
