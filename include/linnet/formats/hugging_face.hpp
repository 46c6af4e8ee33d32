// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Directories saved by Hugging Face Transformers: config.json and model.safetensors, or its
/// shards.

#include <linnet/formats/hf_config.hpp>
#include <linnet/formats/safetensors_shards.hpp>
#include <linnet/formats/weights_file.hpp>

LINNET_NAMESPACE_BEGIN

/// Loads the weights of a T5, Llama, GPT-2, Mamba, BERT, DistilBERT, ALBERT or RoBERTa directory
/// into a model of a matching type. First config.json is compared (check_config()), then every
/// tensor, and only then is `w` written. Without a model.safetensors, model.safetensors.index.json
/// and its shards are read. Llama's rotary pairs are reordered where the type uses position::rope.
/// Errors: those of read_hf_config(), check_config(), read_safetensors_shards() and
/// load_safetensors().
template <class M, class T>
result<void> load_hugging_face(weights<M, T>& w, const std::string& directory,
                               nonfinite values = nonfinite::keep) LINNET_TRY {
  if constexpr (!detail::fits_hugging_face<true, M, storage_of<M, T>>()) {
    return {};
  } else {
    const auto config = read_hf_config(directory + "/config.json");
    if (!config) return config.error();
    if (auto fits = check_config<M>(*config); !fits) return fits;
    const std::string path = directory + "/model.safetensors", shards = path + ".index.json";
    auto file = read_safetensors(path);
    if (!file && file.error().code == errc::io && read_file(shards))
      file = read_safetensors_shards(shards);
    return file ? load_safetensors(w, *file, naming::hugging_face{}, {}, values)
                : result<void>(file.error());
  }
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Saves config.json and model.safetensors into a directory that exists, for load_hugging_face()
/// and for Transformers. Errors: errc::io, and those of save_safetensors().
template <class M, class T>
result<void> save_hugging_face(const weights<M, T>& w, const std::string& directory) LINNET_TRY {
  if constexpr (!detail::fits_hugging_face<true, M, storage_of<M, T>>()) {
    return {};
  } else {
    const std::string config = make_hf_config<M>();
    if (auto saved = save_safetensors(w, directory + "/model.safetensors", naming::hugging_face{});
        !saved)
      return saved;
    return write_file(directory + "/config.json", detail::bytes_of(config));
  }
}
LINNET_OR_OUT_OF_MEMORY(directory)

LINNET_NAMESPACE_END
