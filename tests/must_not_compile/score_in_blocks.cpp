// SPDX-License-Identifier: MIT
// A score of tokens that are seen before they are scored is none.
// expect: linnet::session_scorer: tokens of one block see each other
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
#if defined(LINNET_FAIL)
using kind = ln::attention::block_causal<4>;
#else
using kind = ln::attention::full;
#endif
using session = ln::session<ln::decoder<shape, kind>>;
ln::session_scorer<session> of(session& s) { return ln::session_scorer<session>(s); }
