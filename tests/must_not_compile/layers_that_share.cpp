// SPDX-License-Identifier: MIT
// Blocks that share matrices cannot be stored in two ways.
// expect: layers that share parameters
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
using shared = ln::sharing::ffn;
#else
using shared = ln::sharing::none;
#endif
using mixed = storage::layers<storage::int4<>, storage::first<1, storage::int8>>;
static_assert(ln::decoder<shape, mixed, shared>::parameters() > 0);
