// SPDX-License-Identifier: MIT
// More rank than the smaller width is only waste.
// expect: at most the smaller width
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::ffn::low_rank<9>>;
#else
using Model = ln::decoder<shape, ln::ffn::low_rank<8>>;
#endif
static_assert(Model::parameters() > 0);
