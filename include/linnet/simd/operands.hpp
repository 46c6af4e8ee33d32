#pragma once
/// @file
/// What the kernels of every instruction-set level are called with.

#include <linnet/core/types.hpp>

LINNET_SIMD_NAMESPACE_BEGIN

/// Elementwise nonlinearities (zoo A4, C1): the argument of the activation kernels.
enum class activation_kind {
  relu,       ///< max(x, 0)
  gelu,       ///< x Phi(x), exact, with the error function
  gelu_tanh,  ///< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), "gelu_new"
  silu        ///< x sigmoid(x)
};

namespace simd {

/// The code of a bfloat16 value.
enum class bf16_code : std::uint16_t {};

/// Columns of a packed panel. One layout serves every instruction-set level.
inline constexpr index panel_width = 32;

/// The left factor A of a product, addressed as a(i, k) = data[i*row + k*column], so transposed and
/// sliced matrices need no copy.
template <class T>
struct rows_operand {
  const T* data;
  index row, column;
};

/// The right factor B, K rows of N columns. Column j of row k is
/// data[(j / 32) * panel + k*ld + j % 32]: packed panels (ld = 32, panel = 32 K) as well as any
/// row-major matrix (panel = 32).
template <class Value>
struct columns_operand {
  const Value* data;
  index ld, panel;
};

/// What happens to a finished product before it is stored: y = [y +] alpha * scale_j * x + bias_j.
template <class T>
struct epilogue {
  const T* bias = nullptr;       ///< one per column, or null
  const float* scale = nullptr;  ///< one per column (quantized weights), or null
  T alpha = T(1);
  bool accumulate = false;  ///< add to what is there instead of overwriting it
};

}  // namespace simd

LINNET_SIMD_NAMESPACE_END
