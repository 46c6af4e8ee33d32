// SPDX-License-Identifier: MIT
/// @file
/// Activations and AdamW, value by value, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

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
