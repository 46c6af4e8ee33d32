// SPDX-License-Identifier: MIT
// Eigen's singular values, compiled once: see support/singular_values.hpp.

#include <linnet/low_rank.hpp>

template Eigen::BDCSVD<Eigen::MatrixXd>& Eigen::BDCSVD<Eigen::MatrixXd>::compute(
    const Eigen::MatrixXd&, unsigned int);
