// SPDX-License-Identifier: MIT
// Products with sparse weights read their inputs as numbers.
// expect: linnet: products with sparse weights read their inputs as they are
#include <linnet/linnet.hpp>
#if defined(LINNET_FAIL)
using storage = linnet::storage::n_of_m<linnet::storage::int8, 2, 4>;
#else
using storage = linnet::storage::int8;
#endif
using computed = linnet::storage::with_compute<storage, linnet::compute::int8>;
static_assert(computed::scaled);
