// SPDX-License-Identifier: MIT
// Roles stand within ranges of layers.
// expect: ranges of layers go around it
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
using ends = storage::first<1, storage::int8>;
using table = storage::embedding<storage::f16>;
#if defined(LINNET_FAIL)
using mixed = storage::per_role<storage::layers<storage::int4<>, ends>, table>;
#else
using mixed = storage::layers<storage::per_role<storage::int4<>, table>, ends>;
#endif
static_assert(ln::decoder<shape, mixed>::parameters() > 0);
