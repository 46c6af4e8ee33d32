// SPDX-License-Identifier: MIT
// Layers outside of the ranges are stored, too.
// expect: the arguments are one storage type for the rest and ranges of layers
#include <linnet/linnet.hpp>
namespace ln = linnet;
namespace storage = ln::storage;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 5,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using rest = storage::last<1, storage::int8>;
#else
using rest = storage::int4<>;
#endif
using mixed = storage::layers<storage::first<1, storage::int8>, rest>;
static_assert(ln::decoder<shape, mixed>::parameters() > 0);
