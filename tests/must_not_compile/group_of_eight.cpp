// SPDX-License-Identifier: MIT
// Groups end where words end: 32 codes of 3 bits fill 3 words.
// expect: linnet::storage::grouped: groups are a multiple of 8 inputs with 4 bits
#include <linnet/linnet.hpp>
#if defined(LINNET_FAIL)
using storage = linnet::storage::int3<8>;
#else
using storage = linnet::storage::int4<8>;
#endif
static_assert(storage::scaled);
