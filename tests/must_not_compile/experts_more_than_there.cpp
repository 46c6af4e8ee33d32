// SPDX-License-Identifier: MIT
// A token cannot go through four of three experts.
// expect: linnet::ffn::experts<n, k>: a token goes through k of n experts
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index k = 4;
#else
constexpr ln::index k = 3;
#endif
ln::index in() { return ln::ffn::experts<3, k>::layer<8, 16, false>::in; }
