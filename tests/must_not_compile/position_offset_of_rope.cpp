// SPDX-License-Identifier: MIT
// Rows of a table that is not there.
// expect: linnet::encoder_shape: position_offset, the rows before the first token's
#include <linnet/linnet.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
using Position = ln::position::rope;
#else
using Position = ln::position::learned;
#endif
constexpr ln::encoder_shape shape{.d_model = 8,
                                  .d_ff = 8,
                                  .heads = 2,
                                  .layers = 1,
                                  .vocabulary = 9,
                                  .context = 8,
                                  .position_offset = 2};
ln::index count() { return ln::encoder<shape, Position>::parameters(); }
