// SPDX-License-Identifier: MIT
#pragma once
// SmolLM2-135M from its GGUF file, in any storage type.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>

#include <linnet/compress/quantize.hpp>
#include <linnet/formats/gguf_model.hpp>
#include <linnet/formats/gguf_packed.hpp>
#include <linnet/model/presets.hpp>

namespace smollm2 {

namespace ln = linnet;
namespace storage = ln::storage;

using Model = ln::zoo::smollm2_135m;

/// Storage that keeps the file's codes and scales.
using kept = storage::per_role<storage::q4_1, storage::embedding<storage::q8_0>>;

/// Ends the program with the reason, where a result has no value.
template <class T>
T take(ln::result<T>&& r) {
  if (!r) {
    std::fprintf(stderr, "%s\n", r.error().message().c_str());
    std::exit(2);
  }
  if constexpr (!std::is_void_v<T>) return std::move(r).value();
}

/// Packed weights of a GGUF file: its own codes, where `Deployed` has a storage per role, or
/// rounded from floats.
template <class Deployed>
ln::packed<Deployed> load(const ln::gguf& file) {
  using S = typename Deployed::storage;
  if constexpr (requires { S::mixes; }) {
    return take(ln::pack_gguf<Deployed>(file));
  } else {
    ln::weights<Model> w;
    take(ln::load_gguf(w, file));
    if constexpr (std::is_same_v<Deployed, Model>)
      return ln::pack(w);
    else
      return ln::pack(ln::quantize<S>(w));
  }
}

}  // namespace smollm2
