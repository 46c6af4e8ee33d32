// SPDX-License-Identifier: MIT
// A model without step() scores continuations; it does not run token by token.
// expect: linnet::session: the model does not run token by token
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::thought_shape shape{.vocabulary = 10, .context = 8};
using Model = ln::next_thought<shape>;
#if defined(LINNET_FAIL)
static_assert(ln::session<Model>::footprint({.source = 4}) > 0);
#else
static_assert(ln::evaluator<Model>::footprint({.source = 4}) > 0);
#endif
