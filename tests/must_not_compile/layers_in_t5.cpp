// SPDX-License-Identifier: MIT
// Ranges are those of either stack, and the encoder has one layer.
// expect: a range names layers that the model does not have
#include <linnet/linnet.hpp>
namespace ln = linnet;
namespace storage = ln::storage;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 3,
                             .vocabulary = 10};
#if defined(LINNET_FAIL)
using some = storage::first<2, storage::int8>;
#else
using some = storage::first<1, storage::int8>;
#endif
using model = ln::t5<shape, storage::layers<storage::int4<>, some>>;
static_assert(model::parameters() > 0);
