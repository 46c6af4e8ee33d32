// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The kernels, as the rest of the library includes them. With linnet::kernels they are only
/// declared here (LINNET_COMPILED_KERNELS); its one source defines them (LINNET_KERNELS_SOURCE).

#include <linnet/simd/levels.hpp>

#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)

#if defined(LINNET_KERNELS_SOURCE)
#define LINNET_EXTERN template
#else
#define LINNET_EXTERN extern template
#endif

#define LINNET_PRODUCT(L, T)                                                             \
  LINNET_EXTERN void detail::L::multiply<T>(index, index, index, const rows_operand<T>&, \
                                            const columns_operand<T>&, T*, index,        \
                                            const epilogue<T>&, index);
#define LINNET_DECODE(L, S, ...)                                                               \
  LINNET_EXTERN void detail::L::decode_panel<__VA_ARGS__, S>(index, const word*, const S*,     \
                                                             const S*, float, float*);         \
  LINNET_EXTERN void detail::L::row_by_panel<__VA_ARGS__, S>(index, const float*, const word*, \
                                                             const S*, const S*, float, float*);
#define LINNET_GROUPS(L, C, O, S)                                                \
  LINNET_EXTERN void detail::L::multiply_groups<code::C, code_offset::O>(        \
      index, index, const grouped_rows&, const grouped_panel<S>&, float*, index, \
      const epilogue<float>&);
#define LINNET_DOT(L)                                                                              \
  LINNET_EXTERN void detail::L::multiply_bf16<float>(                                              \
      index, index, index, const rows_operand<word>&, const columns_operand<word>&, float*, index, \
      const epilogue<float>&, index);                                                              \
  LINNET_EXTERN void detail::L::multiply_int8<float>(                                              \
      index, index, index, const rows_operand<word>&, const columns_operand<word>&, float*, index, \
      const integer_epilogue&, index);                                                             \
  LINNET_GROUPS(L, u8, origin, float)                                                              \
  LINNET_GROUPS(L, u8, origin, f16_code)                                                           \
  LINNET_GROUPS(L, u8, zero, float)                                                                \
  LINNET_GROUPS(L, u4, origin, float)                                                              \
  LINNET_GROUPS(L, u4, origin, f16_code)                                                           \
  LINNET_GROUPS(L, u4, minimum, f16_code)                                                          \
  LINNET_GROUPS(L, u2, origin, float)
#define LINNET_TO_GROUPS(L, C, Outliers)                                  \
  LINNET_EXTERN void detail::L::to_int8_groups<code::C, float, Outliers>( \
      index, index, const float*, std::int8_t*, float*, std::int32_t*, const int8_rounding&);
#define LINNET_TO_INT8(L, Outliers)                                                             \
  LINNET_EXTERN float detail::L::to_int8<float, Outliers>(index, const float*, std::int8_t*,    \
                                                          std::int32_t&, const int8_rounding&); \
  LINNET_TO_GROUPS(L, u8, Outliers)                                                             \
  LINNET_TO_GROUPS(L, u4, Outliers)                                                             \
  LINNET_TO_GROUPS(L, u2, Outliers)
#define LINNET_CODES(L)                                                                         \
  LINNET_DECODE(L, float, code::bf16, false)                                                    \
  LINNET_DECODE(L, float, code::f16, false)                                                     \
  LINNET_DECODE(L, float, code::f8_e4m3, false)                                                 \
  LINNET_DECODE(L, float, code::f8_e5m2, false)                                                 \
  LINNET_DECODE(L, float, code::u8, false)                                                      \
  LINNET_DECODE(L, float, code::u6, false)                                                      \
  LINNET_DECODE(L, float, code::u5, false)                                                      \
  LINNET_DECODE(L, float, code::u4, false)                                                      \
  LINNET_DECODE(L, f16_code, code::u4, true)                                                    \
  LINNET_DECODE(L, f16_code, code::u4, false)                                                   \
  LINNET_DECODE(L, f16_code, code::u8, false)                                                   \
  LINNET_DECODE(L, float, code::u3, false)                                                      \
  LINNET_DECODE(L, float, code::u2, false)                                                      \
  LINNET_DECODE(L, float, code::f4_e2m1, false)                                                 \
  LINNET_DECODE(L, float, code::nf4, false)                                                     \
  LINNET_EXTERN void detail::L::to_16_bits<float>(index, const float*, bf16_code*);             \
  LINNET_EXTERN void detail::L::to_16_bits<float>(index, const float*, f16_code*);              \
  LINNET_EXTERN void detail::L::to_bf16_pairs<float>(index, const float*, const float*, word*); \
  LINNET_EXTERN std::int32_t detail::L::keep_outliers<float>(                                   \
      index, const float*, const int8_rounding&, index, float*, std::int32_t*);                 \
  LINNET_TO_INT8(L, false)                                                                      \
  LINNET_TO_INT8(L, true)                                                                       \
  LINNET_DOT(L)
#define LINNET_ACTIVATION(L, A, T)                                                               \
  LINNET_EXTERN void detail::L::activation<activation_kind::A, T>(index, const T*, T*);          \
  LINNET_EXTERN void detail::L::activation_backward<activation_kind::A, T>(index, const T*,      \
                                                                           const T*, T*);        \
  LINNET_EXTERN void detail::L::gated<activation_kind::A, T>(index, const T*, const T*, T*);     \
  LINNET_EXTERN void detail::L::gated_backward<activation_kind::A, T>(index, const T*, const T*, \
                                                                      const T*, T*, T*);
#define LINNET_ATTENTION(L, T, C)                                                               \
  LINNET_EXTERN void detail::L::dots<T>(index, index, index, T, const T*, const token_rows<C>&, \
                                        T*, const head_rows&);                                  \
  LINNET_EXTERN void detail::L::mix<T>(index, index, index, const T*, const token_rows<C>&, T*, \
                                       bool, const head_rows&);
#define LINNET_ROWS_OF(L, T)                                                                      \
  LINNET_EXTERN void detail::L::add<T>(index, const T*, const T*, T*);                            \
  LINNET_EXTERN void detail::L::scale<T>(index, T, T*);                                           \
  LINNET_EXTERN T detail::L::dot<T>(index, const T*, const T*);                                   \
  LINNET_ATTENTION(L, T, T)                                                                       \
  LINNET_EXTERN T detail::L::maximum<T>(index, const T*);                                         \
  LINNET_EXTERN T detail::L::exp_sum<T>(index, T, T*);                                            \
  LINNET_EXTERN void detail::L::softmax<T>(index, T*);                                            \
  LINNET_EXTERN void detail::L::softmax_backward<T>(index, const T*, const T*, T*);               \
  LINNET_EXTERN void detail::L::softmax_backward<T>(index, T, const T*, const T*, T*);            \
  LINNET_EXTERN T detail::L::rms_norm<T>(index, T, const T*, const T*, T*);                       \
  LINNET_EXTERN void detail::L::rms_norm_backward<T>(index, T, const T*, const T*, const T*, T*); \
  LINNET_EXTERN void detail::L::layer_norm<T>(index, T, const T*, const T*, const T*, T*, T*);    \
  LINNET_EXTERN void detail::L::layer_norm_backward<T>(index, const T*, const T*, const T*,       \
                                                       const T*, T*);                             \
  LINNET_EXTERN void detail::L::drop<T>(std::uint64_t, std::uint64_t, word, T, index, index, T*,  \
                                        T*);                                                      \
  LINNET_EXTERN void detail::L::adamw<T>(index, T, T, T, T, T, T, const T*, T*, T*, T*);          \
  LINNET_EXTERN void detail::L::hadamard<T>(index, index, const T*, T, T*);                       \
  LINNET_ACTIVATION(L, relu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu_tanh, T)                                                              \
  LINNET_ACTIVATION(L, silu, T)                                                                   \
  LINNET_ACTIVATION(L, tanh, T)
#define LINNET_SCANS_OF(L, T)                                                                      \
  LINNET_EXTERN void detail::L::softplus<T>(index, T*);                                            \
  LINNET_EXTERN void detail::L::softplus_backward<T>(index, const T*, T*);                         \
  LINNET_EXTERN void detail::L::scan_step<T>(index, index, const T*, const T*, const T*, const T*, \
                                             const T*, const T*, T*, T*, T*);                      \
  LINNET_EXTERN void detail::L::scan_step_backward<T>(index, index, const T*, const T*, const T*,  \
                                                      const T*, const T*, const T*, const T*,      \
                                                      const T*, const T*, T*, T*, T*, T*, T*, T*);
#define LINNET_LEVEL(L)                   \
  LINNET_PRODUCT(L, float)                \
  LINNET_PRODUCT(L, double)               \
  LINNET_CODES(L)                         \
  LINNET_ATTENTION(L, float, bf16_code)   \
  LINNET_ATTENTION(L, float, f16_code)    \
  LINNET_ATTENTION(L, float, std::int8_t) \
  LINNET_ROWS_OF(L, float)                \
  LINNET_ROWS_OF(L, double)               \
  LINNET_SCANS_OF(L, float)               \
  LINNET_SCANS_OF(L, double)

LINNET_SIMD_NAMESPACE_BEGIN
namespace simd {
LINNET_LEVEL(portable)
LINNET_EXTERN void detail::unfused_exponentials::run<float>(index, float*);
#if defined(__x86_64__)
LINNET_LEVEL(avx2)
LINNET_LEVEL(avx512)
LINNET_DOT(avx512dot)
#elif defined(__AARCH64EL__)
LINNET_DOT(neondot)
LINNET_DOT(neonmmla)
#endif
}  // namespace simd
LINNET_SIMD_NAMESPACE_END

#undef LINNET_EXTERN
#undef LINNET_PRODUCT
#undef LINNET_DECODE
#undef LINNET_GROUPS
#undef LINNET_DOT
#undef LINNET_TO_GROUPS
#undef LINNET_TO_INT8
#undef LINNET_CODES
#undef LINNET_ACTIVATION
#undef LINNET_ATTENTION
#undef LINNET_ROWS_OF
#undef LINNET_SCANS_OF
#undef LINNET_LEVEL

#endif
