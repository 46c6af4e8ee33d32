// SPDX-License-Identifier: MIT
/// @file
/// Kernels that add up rows by vectors of 64 bytes, which registers need not hold. Included by
/// simd/reproducible.inl inside a struct that has the others from its base, LINNET_REGISTERS.

#include <linnet/simd/vector.inl>

#include <linnet/simd/attention.inl>
#include <linnet/simd/reduce.inl>
#include <linnet/simd/softmax_norm.inl>
