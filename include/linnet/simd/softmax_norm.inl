// SPDX-License-Identifier: MIT
/// @file
/// Softmax and the norms of rows, forward and backward, at one instruction-set level: included
/// inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a masked
/// vector at the end.

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_KERNEL static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    keep_lanes<T>(e, 0, n, all);
    return sum<T>(e);
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  keep_lanes<T>(ending, i - last, lanes<T>, all);
  return sum<T>(total + ending);
}
/// Softmax in place (Vaswani et al. 2017, eq. 1); n > 0.
template <class T>
LINNET_KERNEL static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - s), the derivative of softmax if s = sum(p dp); dx may be dp.
template <class T>
LINNET_KERNEL static void softmax_backward(index n, T s, const T* p, const T* dp, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}
template <class T>
LINNET_KERNEL static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  softmax_backward(n, dot(n, p, dp), p, dp, dx);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019); returns 1 / sqrt(...).
template <class T>
LINNET_KERNEL static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_KERNEL static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
                                            T* dx) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(dy + i, c) * get(gamma + i, c) * get(x + i, c);
  const T shared = r * r * r * sum<T>(all) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + (r * u - shared * get(x + i, c)), c);
  }
}
/// y = gamma * (x - mean) / sqrt(var + eps) + beta; statistics = {mean, 1 / sqrt(...)}.
template <class T>
LINNET_KERNEL static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
                                     T* y, T* statistics) {
  const T mean = total(n, x) / static_cast<T>(n);
  vec<T> all = {};
  const index whole = n - n % lanes<T>;
  for (index i = 0; i < whole; i += lanes<T>) {
    const vec<T> d = load(x + i) - mean;
    all += d * d;
  }
  T spread = sum<T>(all);
  for (index i = whole; i < n; ++i) spread += (x[i] - mean) * (x[i] - mean);
  const T r = T(1) / std::sqrt(spread / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, j, c, n)
  put<T>(y + j, get(gamma + j, c) * ((get(x + j, c) - mean) * r) + get(beta + j, c), c);
  statistics[0] = mean;
  statistics[1] = r;
}
/// dx += r (u - mean(u) - xhat mean(u xhat)), u = dy gamma, xhat = (x - mean) r.
template <class T>
LINNET_KERNEL static void layer_norm_backward(index n, const T* statistics, const T* x,
                                              const T* gamma, const T* dy, T* dx) {
  const T mean = statistics[0], r = statistics[1];
  vec<T> us = {}, uxs = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    us += u;
    uxs += u * ((get(x + i, c) - mean) * r);
  }
  const T u_mean = sum<T>(us) / static_cast<T>(n), ux_mean = sum<T>(uxs) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + r * (u - u_mean - (get(x + i, c) - mean) * r * ux_mean), c);
  }
}
