// SPDX-License-Identifier: MIT
// A model without step() scores texts; it does not run token by token.
// expect: linnet::session: the model does not run token by token
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::thought_shape shape{.vocabulary = 10, .context = 8};
struct model : ln::next_thought<shape> {
  void step() = delete;
};
#if defined(LINNET_FAIL)
static_assert(ln::session<model>::footprint({.source = 4}) > 0);
#else
static_assert(ln::evaluator<model>::footprint({.source = 4}) > 0);
#endif
