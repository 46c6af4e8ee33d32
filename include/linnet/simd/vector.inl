// SPDX-License-Identifier: MIT
/// @file
/// Vectors of one instruction-set level: included inside a struct by simd/levels.hpp, once per
/// level, with LINNET_TARGET and LINNET_WIDTH (bytes) set.

template <class T, int Lanes>
struct vector_of {
  // NOLINTNEXTLINE(modernize-use-using): of a dependent type, g++ forgets it with using
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes)));
};
/// Values of type T in one register.
template <class T>
static constexpr int lanes = LINNET_WIDTH / static_cast<int>(sizeof(T));
/// One register of T.
template <class T>
using vec = typename vector_of<T, lanes<T>>::type;
/// As many integers as a register holds T.
template <class T>
using vec_int = typename vector_of<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>,
                                   lanes<T>>::type;
/// Values that a register holds. Compilers take wider vectors apart badly where they compare, move
/// or convert lanes, so such steps are by registers.
#if defined(LINNET_REGISTERS)
using registers = LINNET_REGISTERS;
template <class T>
static constexpr int register_lanes = registers::lanes<T>;
#else
template <class T>
static constexpr int register_lanes = lanes<T>;
#endif
/// A vector in registers.
template <class T>
struct in_registers {
  static constexpr int count = lanes<T> / register_lanes<T>;
  typename vector_of<T, register_lanes<T>>::type part[std::size_t{count}];
};

template <class T>
LINNET_TARGET static inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LINNET_TARGET static inline void store(T* p, const vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first `n` values, zeros behind them.
template <class T>
LINNET_TARGET static inline vec<T> load_first(const T* p, index n) {
#if defined(LINNET_LOAD_FIRST)
  if constexpr (sizeof(T) == 4) return LINNET_LOAD_FIRST(p, n);
#endif
  T values[lanes<T>] = {};
  for (index l = 0; l < n; ++l) values[l] = p[l];
  return load(values);
}
template <class T>
LINNET_TARGET static inline void store_first(T* p, const vec<T>& v, index n) {
#if defined(LINNET_STORE_FIRST)
  if constexpr (sizeof(T) == 4) {
    LINNET_STORE_FIRST(p, v, n);
    return;
  }
#endif
  T values[lanes<T>];
  store(values, v);
  for (index l = 0; l < n; ++l) p[l] = values[l];
}
/// All lanes or the first `count`.
template <class T>
LINNET_TARGET static inline vec<T> get(const T* p, index count) {
  return count == lanes<T> ? load(p) : load_first<T>(p, count);
}
template <class T>
LINNET_TARGET static inline void put(T* p, const vec<T>& v, index count) {
  if (count == lanes<T>)
    store(p, v);
  else
    store_first(p, v, count);
}
/// Lanes First, First + 1, ... of a vector, as many as there are `Lane`.
template <int First, class Vector, int... Lane>
LINNET_TARGET static inline auto part(const Vector& v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (First + Lane)...);
}
/// Sum of the lanes, halves first, in a fixed order.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T sum(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    return sum<T, half>(part<0>(v, lanes_of_half) + part<half>(v, lanes_of_half));
  }
}
/// Blocks of four lanes of a and b: in each, a's lower (High = 0) or upper two and b's in turns.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_lanes(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 4 / 2 + Lane % 2 * all)...);
}
/// Interleaves blocks of four lanes of a and b, with a's two lanes before b's.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_pairs(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 2 + Lane % 4 / 2 * all)...);
}
/// The even (Odd = 0) or odd blocks of four lanes of a, then of b.
template <int Odd, class Vector, int... Lane>
LINNET_TARGET static inline auto every_other_block(const Vector& a, const Vector& b,
                                                   std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane / 4 * 2 + Odd) * 4 + Lane % 4)...);
}
/// sums() register by register, with the same bits.
template <class T, std::size_t Count>
LINNET_TARGET static inline void sums_in_registers(const vec<T> (&v)[Count], vec<T>& y) {
  constexpr std::make_integer_sequence<int, register_lanes<T>> all{};
  constexpr int blocks = lanes<T> / 4;
  using block = typename vector_of<T, 4>::type;
  block of_rows[Count / 4][std::size_t{blocks}], out[std::size_t{blocks}];
  for (std::size_t i = 0; i < Count / 4; ++i) {
    in_registers<T> row[4], sum;
    __builtin_memcpy(&row, v + 4 * i, sizeof row);
    LINNET_UNROLL
    for (int r = 0; r < in_registers<T>::count; ++r) {
      const auto ab = mixed_lanes<0>(row[0].part[r], row[1].part[r], all) +
                      mixed_lanes<1>(row[0].part[r], row[1].part[r], all);
      const auto cd = mixed_lanes<0>(row[2].part[r], row[3].part[r], all) +
                      mixed_lanes<1>(row[2].part[r], row[3].part[r], all);
      sum.part[r] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
    }
    __builtin_memcpy(&of_rows[i], &sum, sizeof sum);
  }
  if constexpr (Count == lanes<T> / 2)
    for (int i = 0; i < blocks; ++i)
      out[i] = of_rows[i / 2][i % 2 * 2] + of_rows[i / 2][i % 2 * 2 + 1];
  else
    for (int i = 0; i < blocks; ++i)
      out[i] = (of_rows[i][0] + of_rows[i][1]) + (of_rows[i][2] + of_rows[i][3]);
  __builtin_memcpy(&y, &out, sizeof y);
}
/// Sums of the lanes of many vectors at once. Of as many as a vector has lanes: y_r is the sum of
/// v[r]. Of half as many: the sums of their lower and upper halves. The halves of v[r] hold what
/// becomes y_j and y_(j+4), j = r / 4 * 8 + r % 4.
template <class T, std::size_t Count>
LINNET_TARGET static inline void sums(const vec<T> (&v)[Count], vec<T>& y) {
  if constexpr (register_lanes<T> < lanes<T> && sizeof(T) == 4) {
    sums_in_registers<T>(v, y);
    return;
  }
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  vec<T> s[Count / 4];
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 4; ++i) {
    const vec<T>* const p = v + 4 * i;
    const vec<T> ab = mixed_lanes<0>(p[0], p[1], all) + mixed_lanes<1>(p[0], p[1], all);
    const vec<T> cd = mixed_lanes<0>(p[2], p[3], all) + mixed_lanes<1>(p[2], p[3], all);
    s[i] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
  }
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 8; ++i)
    s[i] = every_other_block<0>(s[2 * i], s[2 * i + 1], all) +
           every_other_block<1>(s[2 * i], s[2 * i + 1], all);
  if constexpr (Count == 16)
    s[0] = every_other_block<0>(s[0], s[1], all) + every_other_block<1>(s[0], s[1], all);
  y = s[0];
}
/// Puts zeros around lanes [first, last) of v.
template <class T, int... Lane>
LINNET_TARGET static inline void keep_lanes(vec<T>& v, index first, index last,
                                            std::integer_sequence<int, Lane...>) {
#if defined(LINNET_REGISTERS)
  constexpr std::make_integer_sequence<int, register_lanes<T>> all{};
  in_registers<T> in;
  __builtin_memcpy(&in, &v, sizeof in);
  LINNET_UNROLL
  for (int r = 0; r < in_registers<T>::count; ++r)
    registers::template keep_lanes<T>(in.part[r], first - r * register_lanes<T>,
                                      last - r * register_lanes<T>, all);
  __builtin_memcpy(&v, &in, sizeof v);
#else
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const vec_int<T> lane = {Lane...};
  const auto from = static_cast<number>(first), to = static_cast<number>(last);
  v = ((lane >= from) & (lane < to)) ? v : vec<T>{};
#endif
}
/// Half a vector from each of two places.
template <class T, int... Lane>
LINNET_TARGET static inline auto load_halves(const T* a, const T* b,
                                             std::integer_sequence<int, Lane...>) {
  typename vector_of<T, static_cast<int>(sizeof...(Lane) / 2)>::type low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
#if defined(LINNET_REGISTERS)
  const decltype(low) both[2] = {low, high};
  vec<T> y;
  __builtin_memcpy(&y, &both, sizeof y);
  return y;
#else
  return __builtin_shufflevector(low, high, Lane...);
#endif
}
/// Largest lane.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T largest(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    const auto low = part<0>(v, lanes_of_half), high = part<half>(v, lanes_of_half);
    return largest<T, half>(low > high ? low : high);
  }
}

/// Square root of each lane.
template <class T>
LINNET_TARGET static inline vec<T> sqrt(const vec<T>& x) {
#if defined(LINNET_ROOT_FLOAT)
  vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const auto r = LINNET_ROOT_FLOAT(x);
    __builtin_memcpy(&y, &r, sizeof y);
  } else {
    const auto r = LINNET_ROOT_DOUBLE(x);
    __builtin_memcpy(&y, &r, sizeof y);
  }
  return y;
#else
  T values[lanes<T>];
  store(values, x);
  for (int l = 0; l < lanes<T>; ++l) values[l] = std::sqrt(values[l]);
  return load(values);
#endif
}

/// e^x. float: relative error below 2e-7 on [-87, 88], 0 below it; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> exp(const vec<T>& x) {
#if defined(LINNET_REGISTERS)
  vec<T> y;
  in_registers<T> in;
  __builtin_memcpy(&in, &x, sizeof in);
  LINNET_UNROLL
  for (auto& part : in.part) part = registers::template exp<T>(part);
  __builtin_memcpy(&y, &in, sizeof y);
  return y;
#else
  if constexpr (sizeof(T) == 4) {
    const vec<T> zero = {};  // not x - x, which is NaN for an infinite x
    const vec<T> most = zero + T(88), least = zero + T(-87.3);
    vec<T> c = x > most ? most : x;
    c = c < least ? least : c;
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    vec<T> shifted = c * T(1.44269504088896341) + T(12582912);
    LINNET_KEEP(shifted);
    const vec<T> fn = shifted - T(12582912);
    vec<T> high = c - fn * T(0.693359375);
    LINNET_KEEP(high);  // or -ffast-math adds up the two parts of ln 2
    const vec<T> r = high + fn * T(2.12194440e-4);
    vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    vec_int<T> bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    vec<T> power;
    __builtin_memcpy(&power, &bits, sizeof power);
    p = p * power;
    return x < least ? zero : p;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::exp(values[l]);
    return load(values);
  }
#endif
}
/// tanh x. float: absolute error below 3e-7; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> tanh(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> e = exp<T>(T(-2) * a);
    const vec<T> t = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -t : t;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::tanh(values[l]);
    return load(values);
  }
}
/// erf x. float: absolute error below 4e-7 (Abramowitz and Stegun 7.1.26); double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> erf(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> t = T(1) / (T(1) + a * T(0.3275911));
    vec<T> p = t * T(1.061405429) - T(1.453152027);
    p = p * t + T(1.421413741);
    p = p * t - T(0.284496736);
    p = p * t + T(0.254829592);
    const vec<T> y = T(1) - p * t * exp<T>(-(a * a));
    return x < T(0) ? -y : y;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::erf(values[l]);
    return load(values);
  }
}

/// f(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> activate(const vec<T>& x) {
  // In this order a NaN stays, in one instruction; with -ffast-math the compiler chooses.
  if constexpr (A == activation_kind::relu) return vec<T>{} > x ? vec<T>{} : x;
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * x * (T(1) + erf<T>(x * T(0.70710678118654752)));
  if constexpr (A == activation_kind::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh<T>(T(0.79788456080286536) * (x + T(0.044715) * (x * x * x))));
  if constexpr (A == activation_kind::silu) return x / (T(1) + exp<T>(-x));
  if constexpr (A == activation_kind::tanh) return tanh<T>(x);
  if constexpr (A == activation_kind::relu_squared) {
    const vec<T> y = activate<activation_kind::relu, T>(x);
    return y * y;
  }
  if constexpr (A == activation_kind::shifted_relu)
    return activate<activation_kind::relu, T>(x - T(1));
}
/// 1 - tanh^2 x without the difference, so that it vanishes exactly where x is large.
template <class T>
LINNET_TARGET static inline vec<T> tanh_derivative(const vec<T>& x) {
  const vec<T> e = exp<T>(T(-2) * (x < T(0) ? -x : x));
  return T(4) * e / ((T(1) + e) * (T(1) + e));
}
/// f'(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> derivative(const vec<T>& x) {
  if constexpr (A == activation_kind::relu)
    return x > T(0) ? vec<T>{} + T(1) : activate<activation_kind::relu, T>(x);
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * (T(1) + erf<T>(x * T(0.70710678118654752))) +
           x * T(0.39894228040143268) * exp<T>(T(-0.5) * (x * x));
  if constexpr (A == activation_kind::gelu_tanh) {
    const vec<T> u = T(0.79788456080286536) * (x + T(0.044715) * (x * x * x));
    return T(0.5) * (T(1) + tanh<T>(u)) +
           T(0.5) * x * tanh_derivative<T>(u) *
               (T(0.79788456080286536) * (T(1) + T(0.134145) * (x * x)));
  }
  if constexpr (A == activation_kind::silu) {
    const vec<T> s = T(1) / (T(1) + exp<T>(-x));
    return s * (T(1) + x * (T(1) - s));
  }
  if constexpr (A == activation_kind::tanh) return tanh_derivative<T>(x);
  if constexpr (A == activation_kind::relu_squared)
    return T(2) * activate<activation_kind::relu, T>(x);
  if constexpr (A == activation_kind::shifted_relu)
    return derivative<activation_kind::relu, T>(x - T(1));
}
