// SPDX-License-Identifier: MIT
// Online grouping looks at earlier tokens alone, which an encoder has no use for.
// expect: linnet::t5: this kind of attention does not fit this stack
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
using Kind = ln::attention::lsh<4, 2>;
#if defined(LINNET_FAIL)
using Model = ln::t5<shape, ln::encoder_stack<Kind::online>>;
#else
using Model = ln::t5<shape, ln::encoder_stack<Kind>, ln::decoder_stack<Kind::online>>;
#endif
static_assert(Model::parameters() > 0);
