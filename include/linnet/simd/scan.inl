// SPDX-License-Identifier: MIT
/// @file
/// Softplus and steps of selective scans, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_KERNEL static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3; s itself may be too small for a float
      const vec<T> twice = u / (T(1) + T(0.5) * u), q = T(0.25) * (twice * twice);
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + (twice + twice * (q * p)), c);
    } else {
      T values[lanes<T>];
      store<T>(values, u);
      for (int l = 0; l < lanes<T>; ++l) values[l] = std::log1p(values[l]);
      put<T>(x + i, positive + load<T>(values), c);
    }
  }
}
/// dx *= 1 / (1 + e^-x), the derivative of softplus.
template <class T>
LINNET_KERNEL static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (Gu and Dao 2023). The equations
/// are decay = exp(delta_i a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij
/// c_j. next may be h.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_KERNEL static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
                                    const T* b, const T* c, const T* h, T* decay, T* next, T* y) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n) {
    const T input = delta[i] * x[i];
    vec<T> all = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> e = exp<T>(delta[i] * get(a + j, count));
      const vec<T> s = e * get(h + j, count) + input * get(b + j, count);
      put<T>(decay + j, e, count);
      put<T>(next + j, s, count);
      all += s * get(c + j, count);
    }
    y[i] = sum<T>(all);
  }
}
/// Derivative of one scan step: g_ij = carried_ij + dy_i c_j is that of next_ij. Then carried
/// becomes decay g; da, db and dc are added to. Overwritten are d_input = g . b (of delta_i x_i)
/// and d_decay (of delta_i through the decay).
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_KERNEL static void scan_step_backward(index rows, index n, const T* delta, const T* x,
                                             const T* a, const T* b, const T* c, const T* h,
                                             const T* decay, const T* next, const T* dy, T* carried,
                                             T* da, T* db, T* dc, T* d_input, T* d_decay) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n, carried += n, da += n) {
    const T input = delta[i] * x[i];
    vec<T> inputs = {}, decays = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> g = get(carried + j, count) + dy[i] * get(c + j, count);
      const vec<T> past = get(decay + j, count) * g;
      const vec<T> u = past * get(h + j, count);
      put<T>(carried + j, past, count);
      put<T>(da + j, get(da + j, count) + delta[i] * u, count);
      put<T>(db + j, get(db + j, count) + input * g, count);
      put<T>(dc + j, get(dc + j, count) + dy[i] * get(next + j, count), count);
      inputs += g * get(b + j, count);
      decays += u * get(a + j, count);
    }
    d_input[i] = sum<T>(inputs);
    d_decay[i] = sum<T>(decays);
  }
}
