// SPDX-License-Identifier: MIT
// A budget that every model of a space is over.
// expect: no model of this space is within the budget
#include <linnet/linnet.hpp>
#include <linnet/search.hpp>
namespace ln = linnet;
#if defined(LINNET_FAIL)
constexpr ln::shape_budget most{.parameters = 10};
#else
constexpr ln::shape_budget most{.parameters = 10'000};
#endif
using Model = ln::decoder<ln::decoder_shape{.d_model = 8,
                                            .d_ff = 8,
                                            .heads = 2,
                                            .kv_heads = 2,
                                            .layers = 1,
                                            .vocabulary = 8,
                                            .context = 8}>;
using Space = ln::search_space<Model, ln::shape_axis<&ln::decoder_shape::layers, 1, 2>>;
static_assert(ln::search<Space, most>::size == 2);
