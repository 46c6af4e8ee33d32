// SPDX-License-Identifier: MIT
// Works of one build: products, an encoder, a decoder's token, all on one thread. Compiled twice,
// with SIDE naming the function that is defined.

#include "side.hpp"

#include <linnet/model/presets.hpp>

#include "../works.hpp"

namespace {

namespace ln = linnet;

using bf16_bf16 = ln::storage::with_compute<ln::storage::bf16, ln::compute::bf16>;
using int8_int8 = ln::storage::with_compute<ln::storage::int8, ln::compute::int8>;

template <class S>
constexpr const char* name_of = std::is_same_v<S, ln::storage::f32>    ? "f32"
                                : std::is_same_v<S, ln::storage::bf16> ? "bf16"
                                : std::is_same_v<S, ln::storage::int8> ? "int8"
                                : std::is_same_v<S, bf16_bf16>         ? "bf16+bf16"
                                                                       : "int8+int8";

/// `count` equal values in the common memory, behind the first `used` bytes of it.
template <class T>
T* values(std::size_t& used, ln::index count, T value) {
  T* const all = reinterpret_cast<T*>(common_memory + used);
  used += static_cast<std::size_t>(ln::round_up(count, 64)) * sizeof(T);
  if (used > common_size) std::abort();
  std::fill_n(all, count, value);
  return all;
}

/// y[M, 512] = x[M, 512] W^T with weights stored as S.
template <class S, ln::index M>
struct product {
  static constexpr ln::index n = 512, k = 512;
  using matrix = ln::ops::packed_matrix<float, S>;

  static timed make() {
    std::size_t used = 0;
    auto* const panels = values<typename S::word>(used, matrix::size(n, k), 1);
    auto* const scales = values(used, matrix::scales_size(n, k), 0.5f);
    auto* const x = values(used, M * k, 0.5f);
    auto* const y = values(used, M * n, 0.0f);
    auto* const converted =
        values(used, ln::ops::converted_bytes<S>(M, k, n, 1, false), std::byte{});
    constexpr int times = M == 1 ? 100 : 2;
    return {std::string("product, ") + name_of<S> + ", M = " + std::to_string(M), times, [=] {
              const ln::ops::execution on{{}, ln::simd::best(), converted};
              const matrix w{panels, scales, scales};
              for (int i = 0; i < times; ++i) {
                ln::ops::matmul(on, M, n, k, x, w, y);
                __asm__ volatile("" ::: "memory");
              }
            }};
  }
};

/// A work of works.hpp over model M deployed as S.
template <template <class> class Work, class M, class S>
struct model {
  using deployed = ln::quantized<M, S>;
  ln::packed<deployed> weights = works::deploy<deployed>(works::random_weights<M>());
  Work<deployed> work{weights, works::sizes{}};

  static timed make(const char* name, ln::index times) {
    const auto self = std::make_shared<model>();
    return {std::string(name) + ", " + name_of<S>, static_cast<int>(times),
            [self] { self->work(); }, [self] { self->work.prepare(); }};
  }
};
template <class S>
timed encoder() {
  return model<works::encode, ln::zoo::t5_mini_kv32, S>::make("T5-Mini encoder, 128 tokens", 1);
}
template <class S>
timed decoder() {
  return model<works::decode, ln::zoo::stories260k, S>::make("stories260K, a token",
                                                             works::sizes{}.target);
}

}  // namespace

std::vector<maker> SIDE() {
  using ln::storage::bf16, ln::storage::f32, ln::storage::int8;
  return {product<f32, 1>::make,
          product<f32, 128>::make,
          product<bf16, 1>::make,
          product<bf16, 128>::make,
          product<bf16_bf16, 1>::make,
          product<bf16_bf16, 128>::make,
          product<int8, 1>::make,
          product<int8, 128>::make,
          product<int8_int8, 1>::make,
          product<int8_int8, 128>::make,
          encoder<f32>,
          encoder<bf16_bf16>,
          encoder<int8_int8>,
          decoder<f32>,
          decoder<int8>};
}
