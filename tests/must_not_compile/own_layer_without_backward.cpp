// SPDX-License-Identifier: MIT
// A layer of one's own that only runs forward has no gradients to check.
// expect: linnet: the layer lacks backward<T, S>
// lines: 36: the check calls backward all the same
#include <linnet/linnet.hpp>
namespace ln = linnet;
struct mine : ln::linear<4, 4> {
#if defined(LINNET_FAIL)
  void backward() = delete;
#endif
};
inline auto checks() { return ln::check_layer_gradients<mine>(); }
