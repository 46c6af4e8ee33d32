// SPDX-License-Identifier: MIT
// The one source of linnet::kernels: every kernel, instantiated here and nowhere else.
#define LINNET_KERNELS_SOURCE
#include <linnet/linnet.hpp>
