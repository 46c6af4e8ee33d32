// SPDX-License-Identifier: MIT
// Every storage type brings kernels of its own.
// expect: at most four different storage types in one model
#include <linnet/linnet.hpp>
namespace ln = linnet;
namespace storage = ln::storage;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using fifth = storage::bf16;
#else
using fifth = storage::f16;
#endif
using mixed = storage::per_role<storage::int4<>, storage::embedding<storage::int8>,
                                storage::attention_v<storage::f16>, storage::ffn_down<storage::nf4>,
                                storage::attention_o<fifth>>;
static_assert(ln::weight_bytes<ln::decoder<shape, mixed>>() > 0);
