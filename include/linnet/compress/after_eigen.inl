// SPDX-License-Identifier: MIT
// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")
