// SPDX-License-Identifier: MIT
// A predictor of a rank above the widths has more numbers than what it predicts.
// expect: linnet::ffn::contextual: the rank must be positive and at most the smaller width
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index rank = 9;
#else
constexpr ln::index rank = 8;
#endif
ln::index in() { return ln::ffn::contextual<rank>::layer<8, 16, false>::in; }
