// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// All storage types: how a weight is kept in memory. A storage type is a template argument of a
/// model; kernels read weights as they are stored.

#include <linnet/storage/blocks.hpp>
#include <linnet/storage/correction.hpp>
#include <linnet/storage/fake_quantized.hpp>
#include <linnet/storage/float.hpp>
#include <linnet/storage/fp4.hpp>
#include <linnet/storage/ggml.hpp>
#include <linnet/storage/grouped.hpp>
#include <linnet/storage/int8.hpp>
#include <linnet/storage/layers.hpp>
#include <linnet/storage/masked.hpp>
#include <linnet/storage/matrix.hpp>
#include <linnet/storage/mixed_precision.hpp>
#include <linnet/storage/nf4.hpp>
#include <linnet/storage/per_role.hpp>
#include <linnet/storage/profiled.hpp>
#include <linnet/storage/small_float.hpp>
#include <linnet/storage/sparse.hpp>
#include <linnet/storage/spqr.hpp>
#include <linnet/storage/ternary.hpp>
