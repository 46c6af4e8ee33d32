// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Rounding of a matrix group by group, each on a grid of its own.

#include <algorithm>
#include <vector>

#include <linnet/storage/types.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Numbers of one group of inputs in several rows, and where their grids go.
template <class S>
struct group_of_rows {
  index first;      ///< number of the first row in its matrix
  index count;      ///< rows
  index size;       ///< numbers of each row
  const double* w;  ///< row r begins at w + r * stride
  index stride;
  const index* inputs;  ///< numbers of the inputs
  code_grid<S>* grids;  ///< that of row r is grids[r * step]
  index step;

  const double* row(index r) const { return w + r * stride; }
  code_grid<S>& grid(index r) const { return grids[r * step]; }
};
/// Rounds from[rows, columns] to storage `S`, the inputs that share a scale at a time. The caller's
/// round(first, numbers, codes) fills in the codes of inputs [first, first + numbers.size()). It
/// returns their grid.
template <class S, class Round>
void round_groups(index rows, index columns, const float* from, const matrix_ref<S>& to,
                  Round&& round) {
  const index group = S::group > 0 ? S::group : columns;
  std::vector<double> numbers;
  std::vector<typename S::value> codes(static_cast<std::size_t>(group));
  for (index r = 0; r < rows; ++r)
    for (index first = 0; first < columns; first += group) {
      const index n = (std::min)(group, columns - first);
      const float* const w = from + r * columns + first;
      numbers.assign(w, w + n);
      to.set_grid(r, first / group, columns, round(first, numbers, codes));
      for (index j = 0; j < n; ++j)
        to.set_code(r, first + j, columns, codes[static_cast<std::size_t>(j)]);
    }
  to.seal(rows, columns);
}

}  // namespace detail

LINNET_NAMESPACE_END
