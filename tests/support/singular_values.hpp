// SPDX-License-Identifier: MIT
#pragma once
// Eigen's singular values take 12 s to compile. Sources that include this have them from
// model/singular_values.cpp.

#include <linnet/low_rank.hpp>

extern template Eigen::BDCSVD<Eigen::MatrixXd>& Eigen::BDCSVD<Eigen::MatrixXd>::compute(
    const Eigen::MatrixXd&, unsigned int);
