// SPDX-License-Identifier: MIT
// A model between bytes has layers at its ends that no range names.
// expect: ranges of layers \(storage::layers\) are not supported
#include <linnet/linnet.hpp>
namespace ln = linnet;
namespace storage = ln::storage;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 256,
                                  .context = 8};
#if defined(LINNET_FAIL)
using stored = storage::layers<storage::int4<>, storage::first<1, storage::int8>>;
#else
using stored = storage::int4<>;
#endif
using model = ln::byte_pooled<shape, ln::pooling::of<ln::byte_pooling{}>, stored>;
static_assert(model::bytes_per_token > 0);
