// Kernels over one row of values of one instruction-set level: included inside a struct by
// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// Calls f(position, count) for full vectors and, once, for the rest.
#define LINNET_FOR_VECTORS(T, i, count, n) \
  for (index i = 0, count = lanes<T>;      \
       i < (n) && ((count = (n)-i < lanes<T> ? (n)-i : lanes<T>), true); i += lanes<T>)

/// y = a + b; y may be a or b
template <class T>
LINNET_TARGET static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_TARGET static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
/// sum of x_i y_i
template <class T>
LINNET_TARGET static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}
/// The products of x with as many rows of k, `stride` apart, as a vector has lanes; four at a time.
template <class T>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const T* k, index stride, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const T* const row = k + four * stride;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * load(row + r * stride + i);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r)
        total[four + r] += xi * load_first<T>(row + r * stride + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// The same for rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* k, index stride, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const T* const row = k + (i / 4 * 8 + i % 4) * stride;
    products[i] = twice * load_halves(row, row + 4 * stride, both);
  }
  sums<T>(products, y);
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  if (lanes<T> < 4 || rows < lanes<T>) {
    for (index j = 0; j < rows; ++j) y[j] = scale * dot(n, x, k + j * stride);
    return;
  }
  // As many rows at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = 0; next < rows; next += lanes<T>) {
    const index j = next < rows - lanes<T> ? next : rows - lanes<T>;
    vec<T> some = {};
    if constexpr (lanes<T> >= 8)
      if (n == lanes<T> / 2) {
        dots_of_halves(x, k + j * stride, stride, some);
        store<T>(y + j, scale * some);
        continue;
      }
    if constexpr (lanes<T> >= 4) dots_of_rows(n, x, k + j * stride, stride, some);
    store<T>(y + j, scale * some);
  }
}
/// Columns [0, Lanes) of mix(), in four sums of every fourth row.
template <int Lanes, class T>
LINNET_TARGET static inline void mix_lanes(index rows, const T* p, const T* v, index stride, T* y) {
  typename vector_of<T, Lanes>::type total[4] = {}, x;
  index j = 0;
  for (; j + 4 <= rows; j += 4) {
    LINNET_UNROLL
    for (int r = 0; r < 4; ++r) {
      __builtin_memcpy(&x, v + (j + r) * stride, sizeof x);
      total[r] += p[j + r] * x;
    }
  }
  for (; j < rows; ++j) {
    __builtin_memcpy(&x, v + j * stride, sizeof x);
    total[0] += p[j] * x;
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y, &x, sizeof x);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(rows, p, v + i, stride, y + i);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(rows, p, v + i, stride, y + i);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  for (index j = 0; j < rows; ++j) total += p[j] * load_first<T>(v + j * stride + i, n - i);
  store_first(y + i, total, n - i);
}
/// sum of x_i
template <class T>
LINNET_TARGET static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
/// largest x_i; n > 0
template <class T>
LINNET_TARGET static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    const vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    return sum<T>(some_lanes<T>(e, 0, n, all));
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  const vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  return sum<T>(total + some_lanes<T>(ending, i - last, lanes<T>, all));
}
/// Softmax in place (zoo D1); n > 0.
template <class T>
LINNET_TARGET static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - sum(p dp)), the derivative of softmax; dx may be dp.
template <class T>
LINNET_TARGET static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  const T s = dot(n, p, dp);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (zoo A1); returns 1 / sqrt(...).
template <class T>
LINNET_TARGET static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_TARGET static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
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
LINNET_TARGET static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
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
LINNET_TARGET static void layer_norm_backward(index n, const T* statistics, const T* x,
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

/// y = f(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * slope<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_TARGET static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_TARGET static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * slope<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (zoo H): m, v are moving averages, `rate` the learning rate with both bias
/// corrections folded in, `eps` likewise, `decay` = learning rate times weight decay.
template <class T>
LINNET_TARGET static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (root<T>(vi) + eps) + decay * wi), c);
  }
}
#undef LINNET_FOR_VECTORS
