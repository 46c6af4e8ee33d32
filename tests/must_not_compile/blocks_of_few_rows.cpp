// SPDX-License-Identifier: MIT
// Products compute 32 rows of weights together, which have the same blocks.
// expect: linnet::storage::block_sparse: a block has 32 rows
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index rows = 16;
#else
constexpr ln::index rows = 32;
#endif
ln::index bytes() {
  return ln::matrix_bytes<ln::storage::block_sparse<ln::storage::f32, rows, 16>>(64, 64);
}
