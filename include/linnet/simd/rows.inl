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
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  index j = 0;
  if constexpr (lanes<T> >= 4)
    for (; j + 4 <= rows; j += 4) {
      const T* const row = k + j * stride;
      vec<T> total[4] = {};
      LINNET_FOR_VECTORS(T, i, c, n) {
        const vec<T> xi = get(x + i, c);
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) total[r] += xi * get(row + r * stride + i, c);
      }
      const auto four = scale * sums<T, lanes<T>>(total[0], total[1], total[2], total[3]);
      __builtin_memcpy(y + j, &four, sizeof four);
    }
  for (; j < rows; ++j) y[j] = scale * dot(n, x, k + j * stride);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart, in four sums of every fourth row
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    vec<T> total[4] = {};
    index j = 0;
    for (; j + 4 <= rows; j += 4) {
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[r] += p[j + r] * get(v + (j + r) * stride + i, c);
    }
    for (; j < rows; ++j) total[0] += p[j] * get(v + j * stride + i, c);
    put<T>(y + i, (total[0] + total[1]) + (total[2] + total[3]), c);
  }
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
  T m = x[0];
  index i = 0;
  if (n >= lanes<T>) {
    vec<T> best = load(x);
    for (i = lanes<T>; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> v = load(x + i);
      best = v > best ? v : best;
    }
    m = largest<T>(best);
  }
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> e = exp<T>(get(x + i, c) - shift);
    put<T>(x + i, e, c);
    if (c == lanes<T>)
      all += e;
    else
      all += load_first<T>(x + i, c);
  }
  return sum<T>(all);
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

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3
      const vec<T> s = u / (T(2) + u), q = s * s;
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + T(2) * (s + s * (q * p)), c);
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
LINNET_TARGET static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (zoo D11): decay = exp(delta_i
/// a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij c_j. next may be h.
template <class T>
LINNET_TARGET static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
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
/// Its derivative: g_ij = carried_ij + dy_i c_j is that of next_ij; carried becomes decay g, da, db
/// and dc are added to, d_input = g . b (of delta_i x_i) and d_decay (of delta_i through the decay)
/// are overwritten.
template <class T>
LINNET_TARGET static void scan_step_backward(index rows, index n, const T* delta, const T* x,
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
#undef LINNET_FOR_VECTORS
