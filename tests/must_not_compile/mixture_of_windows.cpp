// SPDX-License-Identifier: MIT
// A window of the chosen tokens would be another window of the text.
// expect: linnet::decoder: depths::mixture_of_depths asks for attention and a feed-forward that
// work
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using Model = ln::decoder<shape, ln::depths::mixture_of_depths<>, ln::attention::sliding_window<4>>;
#else
using Model = ln::decoder<shape, ln::depths::mixture_of_depths<>, ln::attention::full>;
#endif
static_assert(Model::parameters() > 0);
