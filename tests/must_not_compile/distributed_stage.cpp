// SPDX-License-Identifier: MIT
// Several processes train what their ranks can share out.
// expect: linnet::zero: stages are 0, 1 and 2
#include <linnet/distributed/stages.hpp>

constexpr int first_stage = linnet::zero<1>::stage;
#ifdef LINNET_FAIL
constexpr int third_stage = linnet::zero<3>::stage;
#endif
