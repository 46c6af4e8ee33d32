// SPDX-License-Identifier: MIT
// A layer is no model.
// expect: linnet: this type is no model; a model of your own derives from
// lines: 42: the evaluator's members ask for the model's, too
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
struct mine {
  using storage = ln::storage::f32;
  using batch = ln::decoder_batch;
};
#else
using mine = ln::decoder<shape>;
#endif
static_assert(ln::evaluator<mine>::footprint({}) > 0);
