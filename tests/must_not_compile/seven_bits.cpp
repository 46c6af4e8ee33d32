// SPDX-License-Identifier: MIT
// No kernel reads codes of 7 bits.
// expect: linnet::storage::grouped: codes have 2, 3, 4, 5 or 6 bits
#include <linnet/linnet.hpp>
#if defined(LINNET_FAIL)
constexpr int bits = 7;
#else
constexpr int bits = 6;
#endif
static_assert(linnet::storage::grouped<bits>::scaled);
