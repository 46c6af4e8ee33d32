// SPDX-License-Identifier: MIT
/// @file
/// All kernels, for one set of those without fused multiply-adds: included inside a struct by
/// simd/reproducible.inl. What adds up the lanes of a vector is in in_order.inl, too, or its bits
/// would depend on the level.

#include <linnet/simd/vector.inl>

#include <linnet/simd/gemm.inl>

#include <linnet/simd/small_floats.inl>

#include <linnet/simd/attention.inl>
#include <linnet/simd/elementwise.inl>
#include <linnet/simd/quantized.inl>

#include <linnet/simd/grouped.inl>
#include <linnet/simd/reduce.inl>
#include <linnet/simd/scan.inl>
#include <linnet/simd/softmax_norm.inl>

#include <linnet/simd/sparse.inl>

#include <linnet/simd/masked.inl>

#include <linnet/simd/neurons.inl>

#include <linnet/simd/dropout.inl>
