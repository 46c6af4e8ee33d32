// SPDX-License-Identifier: MIT
// Inputs in 8-bit floats are for weights that are rounded, too.
// expect: linnet: compute::fp8 multiplies weights stored as codes
#include <linnet/linnet.hpp>
#if defined(LINNET_FAIL)
using storage = linnet::storage::f32;
#else
using storage = linnet::storage::int4<>;
#endif
using computed = linnet::storage::with_compute<storage, linnet::compute::fp8>;
static_assert(computed::scaled);
