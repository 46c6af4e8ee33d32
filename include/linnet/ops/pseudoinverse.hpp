// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The pseudo-inverse of small matrices by iteration, and its derivative (Xiong et al. 2021).

#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Pseudo-inverse Z ~ A^+ of one matrix A[m, m] whose rows are not negative and sum to one, as a
/// softmax leaves them. It begins with Z_0 = A^T / c, where c is the largest column sum. Each step
/// is Z <- Z (13 - AZ (15 - AZ (7 - AZ))) / 4 (Xiong et al. 2021; third order, Razavi et al. 2014).
/// The number c belongs to this matrix alone, so a result does not depend on what else is in the
/// batch. Serial; `scratch` holds all matrices, which have rows of `wide` values, whole panels.
template <class T, index Iterations = 6>
struct pseudoinverse {
  static constexpr int own = static_cast<int>(Iterations) + 7;
  index m, wide;
  T* scratch;

  /// Scratch values for matrices up to [m, m], with A and its gradient.
  static constexpr index size(index m, bool training) {
    return m * round_up(m, panel_width) * (training ? own + 7 : own);
  }

  T* a() const { return matrix(0); }                    ///< A, filled in by the caller
  T* result() const { return matrix(1 + Iterations); }  ///< Z, after run()
  T* d_result() const { return matrix(own); }           ///< its gradient, overwritten by backward()
  T* da() const { return matrix(own + 1); }             ///< gradient of A, after backward()

  /// Computes Z from A.
  template <class Kernels>
  void run(Kernels) const {
    T* const z = matrix(1);
    index largest = 0;
    const T c = column_sum(largest);
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) z[i * wide + j] = a()[j * wide + i] / c;
    for (index s = 0; s < Iterations; ++s) {
      polynomials<Kernels>(s);
      times<Kernels>(matrix(1 + s), u(), matrix(2 + s), T(0.25));
    }
  }
  /// Computes da() from d_result(), after run(): through every iteration and through c.
  template <class Kernels>
  void backward(Kernels) const {
    T *dz = d_result(), *next = matrix(own + 2);
    T *const du = matrix(own + 3), *const dx = matrix(own + 4), *const dw = matrix(own + 5),
             *const dy = matrix(own + 6);
    std::fill_n(da(), m * wide, T(0));
    for (index s = Iterations; s-- > 0;) {
      polynomials<Kernels>(s);
      const T* const z = matrix(1 + s);
      // Z' = Z U / 4, U = 13 - X W, W = 15 - X Y, Y = 7 - X, X = A Z
      transposed_times<Kernels>(z, dz, du, T(0.25));
      times_transposed<Kernels>(dz, u(), next, T(0.25));
      times_transposed<Kernels>(du, w(), dx, T(-1));
      transposed_times<Kernels>(x(), du, dw, T(-1));
      times_transposed<Kernels>(dw, y(), dx, T(-1), true);
      transposed_times<Kernels>(x(), dw, dy, T(-1));
      for (index i = 0; i < m * wide; ++i) dx[i] -= dy[i];
      times_transposed<Kernels>(dx, z, da(), T(1), true);
      transposed_times<Kernels>(a(), dx, next, T(1), true);
      std::swap(dz, next);
    }
    index largest = 0;
    const T c = column_sum(largest);
    T sum = T(0);
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) {
        const T d = dz[i * wide + j] / c;
        da()[j * wide + i] += d;
        sum += d * a()[j * wide + i];
      }
    for (index i = 0; i < m; ++i) da()[i * wide + largest] -= sum / c;
  }

 private:
  // Matrices: A, Z_0 ... Z_n, X, Y, W, U, a transpose; then the gradients.
  T* matrix(index i) const { return scratch + i * m * wide; }
  T* x() const { return matrix(Iterations + 2); }
  T* y() const { return matrix(Iterations + 3); }
  T* w() const { return matrix(Iterations + 4); }
  T* u() const { return matrix(Iterations + 5); }
  T* turned() const { return matrix(Iterations + 6); }

  T column_sum(index& largest) const {
    T best = T(0);
    for (index j = 0; j < m; ++j) {
      T sum = T(0);
      for (index i = 0; i < m; ++i) sum += a()[i * wide + j];
      if (sum > best) best = sum, largest = j;
    }
    return best;
  }
  /// Matrices X, Y, W, U of iteration `s`.
  template <class Kernels>
  void polynomials(index s) const {
    times<Kernels>(a(), matrix(1 + s), x(), T(1));
    from_diagonal(T(7), x(), y());
    times<Kernels>(x(), y(), w(), T(1));
    from_diagonal(T(15), w(), w());
    times<Kernels>(x(), w(), u(), T(1));
    from_diagonal(T(13), u(), u());
  }
  /// q = d I - p
  void from_diagonal(T d, const T* p, T* q) const {
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) q[i * wide + j] = (i == j ? d : T(0)) - p[i * wide + j];
  }
  /// r [+]= alpha p q
  template <class Kernels>
  void times(const T* p, const T* q, T* r, T alpha, bool add = false) const {
    Kernels::template multiply<T>(m, m, m, {p, wide, 1}, {q, wide, panel_width}, r, wide,
                                  {nullptr, alpha, add}, wide - m);
  }
  /// r [+]= alpha p^T q
  template <class Kernels>
  void transposed_times(const T* p, const T* q, T* r, T alpha, bool add = false) const {
    Kernels::template multiply<T>(m, m, m, {p, 1, wide}, {q, wide, panel_width}, r, wide,
                                  {nullptr, alpha, add}, wide - m);
  }
  /// r [+]= alpha p q^T
  template <class Kernels>
  void times_transposed(const T* p, const T* q, T* r, T alpha, bool add = false) const {
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < m; ++j) turned()[j * wide + i] = q[i * wide + j];
    times<Kernels>(p, turned(), r, alpha, add);
  }
};

}  // namespace ops

LINNET_NAMESPACE_END
