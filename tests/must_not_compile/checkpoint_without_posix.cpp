// SPDX-License-Identifier: MIT
// Checkpoints need files as POSIX has them.
// expect: linnet/checkpoint.hpp: checkpoints need a POSIX system, such as Linux; MinGW is none

#if defined(LINNET_FAIL)
#undef __unix__
#undef __APPLE__
#include <linnet/checkpoint.hpp>
#endif
