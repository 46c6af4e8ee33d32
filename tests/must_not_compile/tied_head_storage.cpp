// SPDX-License-Identifier: MIT
// A table that is read at both ends of a model is stored once.
// expect: a tied head reads the embedding's table, which has one storage
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
using end = storage::head<storage::int8>;
#else
using end = storage::embedding<storage::int8>;
#endif
using model = ln::decoder<shape, storage::per_role<storage::int4<>, end>>;
static_assert(model::parameters() > 0);
