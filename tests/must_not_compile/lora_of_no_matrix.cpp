// SPDX-License-Identifier: MIT
// An adapter's names are those of matrices that the model has.
// expect: linnet::lora: a name of target_modules<...> is that of no matrix of this model
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
using Targets = ln::target_modules<"q", "query">;
#else
using Targets = ln::target_modules<"q", "attention.v">;
#endif
static_assert(ln::adapted<Model, ln::lora<2, Targets>>::parameters() > 0);
