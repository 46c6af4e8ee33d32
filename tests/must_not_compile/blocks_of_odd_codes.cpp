// SPDX-License-Identifier: MIT
// Blocks begin with a word of codes.
// expect: linnet::storage::block_sparse: the columns of a block fill whole words of codes
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::index columns = 12;
#else
constexpr ln::index columns = 16;
#endif
ln::index bytes() {
  return ln::matrix_bytes<ln::storage::block_sparse<ln::storage::int4<>, 32, columns>>(64, 64);
}
