// SPDX-License-Identifier: MIT
// Something that is no policy is refused by name.
// expect: an argument is not a policy
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::t5_shape shape{.d_model = 8,
                             .d_ff = 16,
                             .d_kv = 4,
                             .heads = 2,
                             .encoder_layers = 1,
                             .decoder_layers = 1,
                             .vocabulary = 10};
struct mine {};
#if defined(LINNET_FAIL)
using Model = ln::t5<shape, mine>;
#else
using Model = ln::t5<shape, ln::ffn::skip>;
#endif
static_assert(Model::parameters() > 0);
