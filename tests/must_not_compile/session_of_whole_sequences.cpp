// SPDX-License-Identifier: MIT
// A kind of attention that cannot continue cached sequences: no decoding token by token.
// expect: linnet::session: this kind of attention cannot continue cached sequences
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
struct whole : ln::attention::full {
  static constexpr bool supports_cache = false;
};
using Model = ln::decoder<shape, whole>;
#if defined(LINNET_FAIL)
static_assert(ln::session<Model>::footprint({}) > 0);
#else
static_assert(ln::evaluator<Model>::footprint({}) > 0);
#endif
