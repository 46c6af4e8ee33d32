// SPDX-License-Identifier: MIT
// There are five layers.
// expect: a range names layers that the model does not have
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
using some = storage::range<4, 6, storage::int8>;
#else
using some = storage::range<4, 5, storage::int8>;
#endif
using model = ln::decoder<shape, storage::layers<storage::int4<>, some>>;
static_assert(model::parameters() > 0);
