// SPDX-License-Identifier: MIT
// Inputs are rounded to int8 only where weights are int8 too.
// expect: compute::int8 multiplies 8-bit integer weights
// lines: 48: the storage type itself is wrong, wherever it is named
#include <linnet/linnet.hpp>
namespace ln = linnet;
using M = ln::zoo::stories260k;
#if defined(LINNET_FAIL)
using storage = ln::storage::int4<32>;
#else
using storage = ln::storage::int8;
#endif
static_assert(ln::weight_bytes<ln::quantized<M, storage, ln::compute::int8>>() > 0);
