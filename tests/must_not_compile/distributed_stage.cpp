// SPDX-License-Identifier: MIT
// Several processes train what their ranks can share out.
// expect: linnet::zero: stages are 0 to 3
#include <linnet/distributed/stages.hpp>

constexpr int last_stage = linnet::zero<3>::stage;
#ifdef LINNET_FAIL
constexpr int next_stage = linnet::zero<4>::stage;
#endif
