// SPDX-License-Identifier: MIT
/// @file
/// Activations and AdamW, value by value, and Hadamard transforms, at one instruction-set level:
/// included inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a
/// masked vector at the end.

/// y = f(x)
template <activation_kind A, class T>
LINNET_KERNEL static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_KERNEL static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * derivative<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_KERNEL static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_KERNEL static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * derivative<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (Loshchilov and Hutter 2019). The moving averages are m and v. `rate` and `eps`
/// have the bias corrections folded in; `decay` is learning rate times weight decay.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_KERNEL static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (sqrt<T>(vi) + eps) + decay * wi), c);
  }
}

/// x[power * m] times a Hadamard matrix of that order and `factor`. The base[m, m], m up to 36,
/// transforms each m numbers; sums and differences at doubling distances follow.
template <class T>
LINNET_KERNEL static void hadamard(index m, index power, const T* base, T factor, T* x) {
  T group[36];
  for (index g = 0; g < power; ++g) {
    T* const y = x + g * m;
    for (index i = 0; i < m; ++i) group[i] = y[i] * factor;
    LINNET_FOR_VECTORS(T, j, c, m) {
      vec<T> sum = group[0] * get(base + j, c);
      for (index i = 1; i < m; ++i) sum += group[i] * get(base + i * m + j, c);
      put<T>(y + j, sum, c);
    }
  }
  for (index stride = m; stride < m * power; stride *= 2)
    for (index first = 0; first < m * power; first += 2 * stride) {
      T *const a = x + first, *const b = a + stride;
      LINNET_FOR_VECTORS(T, i, c, stride) {
        const vec<T> u = get(a + i, c), v = get(b + i, c);
        put<T>(a + i, u + v, c);
        put<T>(b + i, u - v, c);
      }
    }
}
