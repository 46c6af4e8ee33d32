// SPDX-License-Identifier: MIT
// A policy where an axis belongs.
// expect: an argument is not an axis
#include <linnet/linnet.hpp>
#include <linnet/search.hpp>
namespace ln = linnet;
using Model = ln::decoder<ln::decoder_shape{.d_model = 8,
                                            .d_ff = 8,
                                            .heads = 2,
                                            .kv_heads = 2,
                                            .layers = 1,
                                            .vocabulary = 8,
                                            .context = 8}>;
#if defined(LINNET_FAIL)
using Axis = ln::ffn::swiglu;
#else
using Axis = ln::policy_axis<ln::ffn::policy, ln::ffn::swiglu>;
#endif
static_assert(ln::search_space<Model, Axis>::fits(0));
