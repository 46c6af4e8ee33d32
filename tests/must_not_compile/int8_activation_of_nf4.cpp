// SPDX-License-Identifier: MIT
// Inputs are rounded to int8 only where weights are integers too.
// expect: compute::int8 multiplies weights stored as integers of 8, 4 or 2 bits
// lines: 48: the storage type itself is wrong, wherever it is named
#include <linnet/linnet.hpp>
namespace ln = linnet;
using M = ln::zoo::stories260k;
#if defined(LINNET_FAIL)
using storage = ln::storage::nf4;
#else
using storage = ln::storage::int4<32>;
#endif
static_assert(ln::weight_bytes<ln::quantized<M, storage, ln::compute::int8>>() > 0);
