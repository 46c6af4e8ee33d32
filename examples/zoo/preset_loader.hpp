// SPDX-License-Identifier: MIT
#pragma once
// Weights of a preset from the files that people have.

#include <filesystem>

#include <linnet/formats/gguf_packed.hpp>
#include <linnet/formats/hugging_face.hpp>
#include <linnet/formats/llama2c.hpp>
#include <linnet/formats/rwkv_file.hpp>

#include "presets.hpp"
#include "running_of.hpp"

namespace zoo {

/// Whether model `M` is one that llama2.c has a format for.
template <class M>
inline constexpr bool in_llama2c = false;
template <class M>
requires(std::is_same_v<typename M::batch, ln::decoder_batch>) inline constexpr bool in_llama2c<M> =
    M::rotary && !M::biased && std::is_same_v<typename M::ffn, ln::ffn::swiglu>;

/// Whether model `M` is one that rwkv.cpp has a format for.
template <class M>
inline constexpr bool in_rwkv_file = false;
template <class M>
requires(
    std::is_same_v<typename M::batch, ln::decoder_batch>) inline constexpr bool in_rwkv_file<M> =
    std::is_base_of_v<ln::mixer::policy, typename M::attention>;
/// Whether model `M` is one that Hugging Face Transformers knows.
template <class M>
inline constexpr bool in_hugging_face = ln::hf_kind_of<M>() != ln::hf_kind::none;
/// Whether model `M` is one that llama.cpp knows.
template <class M>
inline constexpr bool in_gguf = !ln::gguf_architecture_of<M>().empty();

/// Loads a directory as Hugging Face writes it, a GGUF file, a safetensors file with linnet's or
/// Hugging Face's names, or else a llama2.c checkpoint or a file of rwkv.cpp.
template <class M>
ln::result<void> load_weights(ln::weights<M>& w, const std::string& path) {
  if constexpr (in_hugging_face<M>)
    if (std::filesystem::is_directory(path)) return ln::load_hugging_face(w, path);
  if constexpr (in_gguf<M>)
    if (path.ends_with(".gguf")) return ln::load_gguf(w, path);
  if (path.ends_with(".safetensors")) {
    const auto file = ln::read_safetensors(path);
    if (!file) return file.error();
    if constexpr (in_hugging_face<M>) {
      const auto format = file->metadata().find("format");
      if (format == file->metadata().end() || format->second != "linnet")
        return ln::load_safetensors(w, *file, ln::naming::hugging_face{});
    }
    return ln::load_safetensors(w, *file);
  }
  if constexpr (in_llama2c<M>) {
    return ln::load_llama2c(w, path);
  } else if constexpr (in_rwkv_file<M>) {
    return ln::load_rwkv(w, path);
  } else {
    return ln::error{ln::errc::unsupported, path, "",
                     "a Hugging Face directory or a file named *.safetensors or *.gguf",
                     "another file"};
  }
}

/// The weights of a file, all of them numbers.
template <class M>
ln::weights<M> weights_at(const std::string& path) {
  ln::weights<M> w;
  if (!w.valid()) throw failure("not enough memory for the weights");
  take(load_weights(w, path));
  take(ln::check_finite(w, path));
  return w;
}

/// The packed weights of a file, all of them numbers. Of a GGUF file there is one tensor beside
/// them at a time, of others all.
template <class M>
std::shared_ptr<const ln::packed<M>> packed_at(const std::string& path) {
  if constexpr (in_gguf<M>)
    if (path.ends_with(".gguf"))
      return std::make_shared<const ln::packed<M>>(
          take(ln::pack_gguf<M>(path, ln::nonfinite::refuse)));
  return packed_of(weights_at<M>(path));
}

template <class M>
std::unique_ptr<running> open_preset(const std::string& path, const ln::limits& l) {
  return std::make_unique<running_of<M>>(packed_at<M>(path), l);
}

/// Adds a preset to the table if it is compiled to run. `context`: its longest sequence, 0: none.
template <class M, bool Runs>
void add_runnable(std::vector<runnable_preset>& table, preset<M, Runs>, const char* name) {
  if constexpr (Runs) {
    constexpr bool t5 = M::encodes;
    ln::index context = 0;
    if constexpr (!t5) context = M::context_length;
    table.push_back({name, t5, M::vocabulary, context, open_preset<M>});
    if constexpr (std::is_same_v<M, ln::zoo::smollm2_135m>)
      table.back().open_rounded = open_smollm2_rounded;
  }
}

}  // namespace zoo
