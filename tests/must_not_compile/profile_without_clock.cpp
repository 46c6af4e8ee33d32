// SPDX-License-Identifier: MIT
// The clock of a profile says what it returns.
// expect: the clock needs a static now\(\)
#include <linnet/linnet.hpp>
namespace ln = linnet;
struct Clock {
#if defined(LINNET_FAIL)
  static double now() { return 0; }
#else
  static std::int64_t now() { return 0; }
#endif
};
using Profile = ln::operation_profile<Clock>;
int used() { return Profile::threads(); }
