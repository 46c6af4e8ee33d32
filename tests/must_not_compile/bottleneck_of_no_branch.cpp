// SPDX-License-Identifier: MIT
// Bottlenecks stand behind branches that the model has.
// expect: linnet::bottleneck: a name of target_modules<...> is that of no branch
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Model = ln::decoder<shape>;
#if defined(LINNET_FAIL)
using Branches = ln::target_modules<"q">;
#else
using Branches = ln::target_modules<"ffn">;
#endif
static_assert(ln::adapted<Model, ln::bottleneck<2, Branches>>::parameters() > 0);
