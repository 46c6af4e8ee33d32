// SPDX-License-Identifier: MIT
// Every kind of layer brings code of its own.
// expect: at most four kinds of layers in one stack
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
using fifth = storage::bf16;
#else
using fifth = storage::f16;
#endif
using mixed = storage::layers<storage::int4<>, storage::first<1, storage::int8>,
                              storage::range<1, 2, storage::f16>, storage::range<2, 3, fifth>,
                              storage::last<1, storage::nf4>>;
static_assert(ln::weight_bytes<ln::decoder<shape, mixed>>() > 0);
