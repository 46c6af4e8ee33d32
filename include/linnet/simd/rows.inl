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
/// Lanes stored numbers as T: T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// The first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// The products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// The same for rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that blocks
/// make no difference.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
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

/// Whether all of x[rows, n] are finite, rows `stride` apart; looks at the bits, as is_finite().
template <class T>
LINNET_TARGET static bool all_finite(index rows, index n, const T* x, index stride) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr number exponent = sizeof(T) == 4 ? 0x7f800000 : number(0x7ff0000000000000);
  vec_int<T> found{};
  for (index row = 0; row < rows; ++row, x += stride)
    LINNET_FOR_VECTORS(T, i, c, n) {
      const vec<T> v = get(x + i, c);
      vec_int<T> bits;
      __builtin_memcpy(&bits, &v, sizeof bits);
      found |= (bits & exponent) == exponent;
    }
  number any = 0;
  for (int l = 0; l < lanes<T>; ++l) any |= found[l];
  return any == 0;
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

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
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
