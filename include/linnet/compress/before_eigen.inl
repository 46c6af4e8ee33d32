// SPDX-License-Identifier: MIT
// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success
