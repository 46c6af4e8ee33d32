// SPDX-License-Identifier: MIT
#pragma once
// SmolLM2-135M-Instruct as a teacher, and what programs that ask it read and time.

#include <chrono>
#include <fstream>
#include <iterator>
#include <string>

#include "smollm2.hpp"

namespace smollm2 {

/// Weights and inputs in 8 bits.
using Teacher = ln::quantized<Model, storage::int8, ln::compute::int8>;

inline ln::packed<Teacher> teacher_of(const ln::gguf& file) {
  ln::weights<Model> w;
  take(ln::load_gguf(w, file));
  return ln::pack(ln::quantize<storage::int8, ln::compute::int8>(w));
}

/// Seconds since some moment.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
/// All bytes of a file; none if there is no such file.
inline std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace smollm2
