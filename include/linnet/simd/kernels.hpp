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

// The product of activations T and weight codes C.
#define LINNET_PRODUCT(L, T, C)                                                             \
  LINNET_EXTERN void detail::L::multiply<T, C>(index, index, index, const rows_operand<T>&, \
                                               const columns_operand<C>&, T*, index,        \
                                               const epilogue<T>&, index);
#define LINNET_ACTIVATION(L, A, T)                                                               \
  LINNET_EXTERN void detail::L::activation<activation_kind::A, T>(index, const T*, T*);          \
  LINNET_EXTERN void detail::L::activation_backward<activation_kind::A, T>(index, const T*,      \
                                                                           const T*, T*);        \
  LINNET_EXTERN void detail::L::gated<activation_kind::A, T>(index, const T*, const T*, T*);     \
  LINNET_EXTERN void detail::L::gated_backward<activation_kind::A, T>(index, const T*, const T*, \
                                                                      const T*, T*, T*);
#define LINNET_ROWS_OF(L, T)                                                                      \
  LINNET_EXTERN void detail::L::axpy<T>(index, T, const T*, T*);                                  \
  LINNET_EXTERN void detail::L::add<T>(index, const T*, const T*, T*);                            \
  LINNET_EXTERN void detail::L::scale<T>(index, T, T*);                                           \
  LINNET_EXTERN T detail::L::dot<T>(index, const T*, const T*);                                   \
  LINNET_EXTERN T detail::L::maximum<T>(index, const T*);                                         \
  LINNET_EXTERN T detail::L::exp_sum<T>(index, T, T*);                                            \
  LINNET_EXTERN void detail::L::softmax<T>(index, T*);                                            \
  LINNET_EXTERN void detail::L::softmax_backward<T>(index, const T*, const T*, T*);               \
  LINNET_EXTERN T detail::L::rms_norm<T>(index, T, const T*, const T*, T*);                       \
  LINNET_EXTERN void detail::L::rms_norm_backward<T>(index, T, const T*, const T*, const T*, T*); \
  LINNET_EXTERN void detail::L::layer_norm<T>(index, T, const T*, const T*, const T*, T*, T*);    \
  LINNET_EXTERN void detail::L::layer_norm_backward<T>(index, const T*, const T*, const T*,       \
                                                       const T*, T*);                             \
  LINNET_EXTERN void detail::L::adamw<T>(index, T, T, T, T, T, T, const T*, T*, T*, T*);          \
  LINNET_ACTIVATION(L, relu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu_tanh, T)                                                              \
  LINNET_ACTIVATION(L, silu, T)
#define LINNET_LEVEL(L)                 \
  LINNET_PRODUCT(L, float, float)       \
  LINNET_PRODUCT(L, float, bf16_code)   \
  LINNET_PRODUCT(L, float, std::int8_t) \
  LINNET_PRODUCT(L, double, double)     \
  LINNET_ROWS_OF(L, float)              \
  LINNET_ROWS_OF(L, double)

LINNET_SIMD_NAMESPACE_BEGIN
namespace simd {
LINNET_LEVEL(portable)
#if defined(__x86_64__)
LINNET_LEVEL(avx2)
LINNET_LEVEL(avx512)
#endif
}  // namespace simd
LINNET_SIMD_NAMESPACE_END

#undef LINNET_EXTERN
#undef LINNET_PRODUCT
#undef LINNET_ACTIVATION
#undef LINNET_ROWS_OF
#undef LINNET_LEVEL

#endif
