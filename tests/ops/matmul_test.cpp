// SPDX-License-Identifier: MIT
// Matrix products against a triple loop in double, at every instruction-set level, for every
// storage type, at every edge of the register tiles. The tolerance is the bound of a K-term sum: it
// holds for any order of summation and for nothing less than the right product.

#include "support/matrix.hpp"

namespace test::matmul_test {

namespace {

namespace storage = ln::storage;
using simd_word = ln::simd::word;

/// A product's exact value and the size of its terms, from a[m, k] and b[n, k] read through
/// strides.
struct reference {
  std::vector<double> value, terms;
};
template <class A, class B>
reference product(index m, index n, index k, const A* a, index a_row, index a_column, const B* b,
                  index b_row, index b_column) {
  reference r{std::vector<double>(at(m * n)), std::vector<double>(at(m * n))};
  for (index i = 0; i < m; ++i)
    for (index j = 0; j < n; ++j)
      for (index l = 0; l < k; ++l) {
        const double x = static_cast<double>(a[i * a_row + l * a_column]) *
                         static_cast<double>(b[j * b_row + l * b_column]);
        r.value[at(i * n + j)] += x;
        r.terms[at(i * n + j)] += std::abs(x);
      }
  return r;
}

/// The error of y in units of what rounding allows: y = [start +] alpha * product + bias_j.
template <class T>
double excess(const std::vector<T>& y, const reference& r, index n, index k, double alpha,
              const T* start, const T* bias) {
  double worst = 0;
  for (std::size_t i = 0; i < r.value.size(); ++i) {
    const double first = start ? static_cast<double>(start[i]) : 0;
    const double shift = bias ? static_cast<double>(bias[i % at(n)]) : 0;
    const double want = first + alpha * r.value[i] + shift;
    const double size = std::abs(first) + std::abs(alpha) * r.terms[i] + std::abs(shift);
    const double allowed = (static_cast<double>(k) + 4) * epsilon<T> * size + 1e-300;
    worst = (std::max)(worst, distance_of(y[i], want) / allowed);
  }
  return worst;
}

constexpr index some_rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 29, 97, 200};
constexpr index some_widths[] = {1, 5, 16, 31, 32, 33, 65};

/// Calls f(m, n, k, number) for all shapes; large M and long sums meet fewer of them.
template <class F>
void for_shapes(F&& f) {
  int number = 0;
  for (const index m : some_rows)
    for (const index n : some_widths)
      for (const index k : some_widths)
        if (m < 29 || n == k || n == 33) f(m, n, k, number++);
  for (const index m : {1, 5, 13})
    for (const index k : {128, 129, 300}) f(m, 33, k, number++);
}
/// And of sums so long that a backward pass gathers their operands in parts, for blocks of rows.
template <class F>
void for_shapes_and_long_sums(F&& f) {
  for_shapes(f);
  f(230, 65, 33, 0);
  f(131, 300, 40, 1);
}

/// What scratch memory holds before: NaN as any float, no code of zero.
constexpr std::byte poison{0xff};

/// What the products of storage S round x[m, k] to: to int8, what shares a scale of the weights.
template <class S, class T>
std::vector<T> rounded(index m, index k, std::vector<T> x) {
  using A = typename S::compute;
  if constexpr (std::is_same_v<A, ln::compute::bf16>)
    for (T& v : x)
      v = static_cast<T>(storage::bf16::decode(storage::bf16::encode(static_cast<double>(v))));
  if constexpr (std::is_same_v<A, ln::compute::int8>)
    for (index i = 0; i < m; ++i)
      for (index first = 0; first < k; first += S::group ? S::group : k) {
        const std::span<T> part(x.data() + i * k + first,
                                at((std::min)(S::group ? S::group : k, k - first)));
        const auto most = static_cast<float>(magnitude(part));
        const double scale = static_cast<double>(most > 0 ? most / 127 : 1.0f),
                     inverse = static_cast<double>(most > 0 ? 127 / most : 1.0f);
        for (T& v : part)
          v = static_cast<T>(scale * std::nearbyint(static_cast<double>(v) * inverse));
      }
  return x;
}

/// y = x W^T with every combination of accumulate, bias and alpha in turn.
template <class T, class S>
void check_forward() {
  for_shapes([](index m, index n, index k, int number) {
    const matrix<T, S> w(n, k, 1);
    const auto x = normal<T>(m * k, 2), bias = normal<T>(n, 3), start = normal<T>(m * n, 4);
    const auto seen = rounded<S>(m, k, x);
    const reference want = product(m, n, k, seen.data(), k, 1, w.meaning.data(), k, 1);
    std::vector<std::byte> converted(at(ln::ops::converted_bytes<S>(m, k, n, 1, false)), poison);
    for (const auto level : levels())
      for (const bool accumulate : {false, true}) {
        const T* const add = number % 3 == 0 ? nullptr : bias.data();
        const T alpha = number % 4 < 2 ? T(1) : T(-0.375);
        auto y = start;
        ln::ops::matmul({{}, level, converted.data()}, m, n, k, x.data(), w.packed, y.data(),
                        {add, alpha, accumulate});
        const double error = excess(y, want, n, k, static_cast<double>(alpha),
                                    accumulate ? start.data() : nullptr, add);
        BOOST_TEST(error <= 1, S::name << ' ' << ln::simd::name(level) << " m " << m << " n " << n
                                       << " k " << k << " accumulate " << accumulate << ": error "
                                       << error << " of the bound");
      }
  });
}

/// Integer products with scales of groups against their definition: x and W as codes of every kind,
/// the largest among them, so that no sum may saturate.
template <class Stored>
void check_group_sums() {
  using S = storage::with_compute<Stored, ln::compute::int8>;
  constexpr index m = 27, n = 37;
  for (const index k : {8, 33, 300}) {
    matrix<float, S> w(n, k, 1);
    auto x = normal<float>(m * k, 2);
    for (index l = 0; l < k; ++l) {  // codes at the ends: of inputs, of weights, of both
      x[at(l)] = l % 3 ? -1.0f : 1.0f;
      x[at(k + l)] = 1.0f;
      for (const index row : {0, 35}) {
        const auto ends = std::is_same_v<typename S::value, std::int8_t> ? 0x80
                          : S::shared_bits == 2                          ? 0x2
                                                                         : 0xf;
        const int high = S::centred && S::code == ln::simd::code::u8 ? 255 : ends;
        w.canonical.set_code(row, l, k, static_cast<typename S::value>(l % 2 && row ? 0 : high));
      }
    }
    ln::ops::pack(ln::ops::execution{}, n, k, w.canonical, w.packed);
    // sums[0]: y without fused multiply-add; sums[1]: with it.
    std::vector<float> sums[2] = {std::vector<float>(at(m * n)), std::vector<float>(at(m * n))};
    const index groups = ln::row_scales<S>(k);
    for (index i = 0; i < m; ++i)
      for (index g = 0; g < groups; ++g) {
        const index first = g * S::group, count = (std::min)(S::group, k - first);
        const std::span<const float> part(x.data() + i * k + first, at(count));
        const auto most = static_cast<float>(magnitude(part));
        const float inverse = 127 / most, scale = most / 127;
        int codes[S::group], total = 0;
        for (index l = 0; l < count; ++l)
          total += codes[l] = static_cast<int>(
              std::nearbyint(static_cast<double>(part[at(l)]) * static_cast<double>(inverse)));
        for (index j = 0; j < n; ++j) {
          int dot = 0;
          for (index l = 0; l < count; ++l)
            dot += codes[l] * static_cast<int>(S::decode(w.canonical.code(j, first + l, k)));
          const index of_group = j * groups + g;
          const float offset = S::centred ? w.row_zeros[at(of_group)] : 0.0f;
          if constexpr (S::centred && !S::ggml) dot -= static_cast<int>(offset) * total;
          const float of_codes = w.row_scales[at(of_group)], dots = static_cast<float>(dot);
          for (const bool fused : {false, true}) {
            // A product of two floats is exact in double: rounded here, or in the sum.
            const auto add = [&](float& sum, float p, float q) {
              const double pq = static_cast<double>(p) * static_cast<double>(q);
              sum = fused ? std::fma(p, q, sum) : sum + static_cast<float>(pq);
            };
            float& y = sums[fused][at(i * n + j)];
            if constexpr (ln::has_minima<S>) {
              float group = dots * of_codes;
              add(group, offset, static_cast<float>(total));
              add(y, group, scale);
            } else {
              add(y, dots, of_codes * scale);
            }
          }
        }
      }
    std::vector<std::byte> converted(at(ln::ops::converted_bytes<S>(m, k, n, 1, false)), poison);
    for (const auto level : levels()) {
      const ln::ops::execution on{{}, level, converted.data()};
      std::vector<float> y(at(m * n)), part(at(m * n));
      ln::ops::matmul(on, m, n, k, x.data(), w.packed, y.data());
#if !defined(__FAST_MATH__)  // which divides by 127 in two ways, here and there
      BOOST_TEST((same_bits(y, sums[0]) || same_bits(y, sums[1])),
                 S::name << ' ' << ln::simd::name(level) << " k " << k);
#endif
      for (const index rows : {1, 2, 5, 13}) {
        for (index i = 0; i < m; i += rows)
          ln::ops::matmul(on, (std::min)(rows, m - i), n, k, x.data() + i * k, w.packed,
                          part.data() + i * n);
        BOOST_TEST(same_bits(part, y),
                   S::name << ' ' << ln::simd::name(level) << " k " << k << " by " << rows);
      }
    }
  }
}

/// f(x) by its definition.
double active(ln::activation_kind kind, double x) {
  switch (kind) {
    case ln::activation_kind::relu:
      return x > 0 ? x : 0;
    case ln::activation_kind::gelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case ln::activation_kind::gelu_tanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case ln::activation_kind::silu:
      return x / (1 + std::exp(-x));
    case ln::activation_kind::tanh:
      return std::tanh(x);
    case ln::activation_kind::relu_squared:
      return x > 0 ? x * x : 0;
    case ln::activation_kind::shifted_relu:
      return x > 1 ? x - 1 : 0;
  }
  return 0;
}

/// y = residual + f(x W^T + bias) and y = residual + f(x V^T) (x W^T + bias), and each without a
/// residual: of blocks at every edge, by every number of threads with the same bits, which are also
/// those of separate operations.
template <ln::activation_kind A, class T, class S>
void check_epilogues() {
  constexpr index shapes[][3] = {{1, 33, 5},    {1, 300, 129}, {3, 31, 40},
                                 {13, 300, 16}, {97, 33, 65},  {230, 65, 33}};
  for (const auto& shape : shapes) {
    const index m = shape[0], n = shape[1], k = shape[2];
    const matrix<T, S> w(n, k, 1), v(n, k, 2);
    const auto x = normal<T>(m * k, 3), bias = normal<T>(n, 4), residual = normal<T>(m * n, 5);
    const auto seen = rounded<S>(m, k, x);
    const reference up = product(m, n, k, seen.data(), k, 1, w.meaning.data(), k, 1);
    const reference gate = product(m, n, k, seen.data(), k, 1, v.meaning.data(), k, 1);
    std::vector<std::byte> converted(at(ln::ops::converted_bytes<S>(m, k, n, 5, false)), poison);
    const auto count = at(m * n);
    for (const auto level : levels())
      for (const bool gated : {false, true})
        for (const bool added : {false, true}) {
          const T* const add = added ? residual.data() : nullptr;
          std::vector<T> first, apart(count), z(count);
          for (int threads = 1; threads <= 5; ++threads) {
            std::vector<T> y(count, T(77)), g(count, T(77));
            on_machine(threads, level, [&](ln::ops::execution on) {
              on.converted = converted.data();
              ln::ops::product<T, S> one{w.packed, n, y.data(), bias.data()};
              one.finish = gated ? ln::ops::gates<A, T> : ln::ops::activates<A, T>;
              one.gate = gated ? g.data() : nullptr;
              one.residual = add;
              if (gated)
                ln::ops::gemm_batch<T, S, 2>(on, m, k, x.data(), {{v.packed, n, g.data()}, one});
              else
                ln::ops::gemm_batch<T, S, 1>(on, m, k, x.data(), {one});
              if (threads > 1) return;
              ln::ops::matmul(on, m, n, k, x.data(), w.packed, z.data(), {bias.data()});
              if (gated)
                ln::ops::gated<A>(on, m * n, g.data(), z.data(), apart.data());
              else
                ln::ops::activation<A>(on, m * n, z.data(), apart.data());
              if (added) ln::ops::add(on, m * n, residual.data(), apart.data(), apart.data());
            });
            if (threads == 1) first = y;
            BOOST_TEST(same_bits(y, first), S::name << " m " << m << " threads " << threads);
          }
          BOOST_TEST(same_bits(first, apart), S::name << ' ' << ln::simd::name(level) << " m " << m
                                                      << " n " << n << " k " << k);
          double worst = 0;
          for (std::size_t i = 0; i < count; ++i) {
            const double shift = static_cast<double>(bias[i % at(n)]), u = up.value[i] + shift;
            const double more = added ? static_cast<double>(residual[i]) : 0;
            const double unit = (static_cast<double>(k) + 40) * epsilon<T>;
            const double f = active(A, gated ? gate.value[i] : u);
            const double want = more + (gated ? f * u : f);
            // No derivative is larger than 1.13 (that of the GELU), so errors of inputs count that
            // much.
            const double up_size = up.terms[i] + std::abs(shift);
            const double size =
                gated ? std::abs(f) * up_size + 1.13 * gate.terms[i] * std::abs(u) : 1.13 * up_size;
            const double allowed = unit * (size + std::abs(want) + std::abs(more) + 1e-3);
            worst = (std::max)(worst, distance_of(first[i], want) / allowed);
          }
          BOOST_TEST(worst <= 1, S::name << ' ' << ln::simd::name(level) << " m " << m << " n " << n
                                         << " k " << k << " gated " << gated << " residual "
                                         << added << ": error " << worst << " of the bound");
        }
  }
}

/// dx += alpha dy W and dw += alpha dy^T x.
template <class T, class S>
void check_backward() {
  for_shapes_and_long_sums([](index m, index n, index k, int number) {
    const matrix<T, S> w(n, k, 5);
    const auto x = normal<T>(m * k, 6), dy = normal<T>(m * n, 7);
    const auto dx_start = normal<T>(m * k, 8), dw_start = normal<T>(n * k, 9);
    const reference want_dx = product(m, k, n, dy.data(), n, 1, w.meaning.data(), 1, k);
    const reference want_dw = product(n, k, m, dy.data(), 1, n, x.data(), 1, k);
    const T alpha = number % 2 ? T(1) : T(0.7);
    for (const auto level : levels()) {
      auto dx = dx_start;
      auto dw = dw_start;
      ln::ops::matmul_dx({{}, level}, m, n, k, dy.data(), w.packed, dx.data(), alpha);
      ln::ops::matmul_dw({{}, level}, m, n, k, dy.data(), x.data(), dw.data(), alpha);
      const double dx_error =
          excess<T>(dx, want_dx, k, n, static_cast<double>(alpha), dx_start.data(), nullptr);
      const double dw_error =
          excess<T>(dw, want_dw, k, m, static_cast<double>(alpha), dw_start.data(), nullptr);
      BOOST_TEST(dx_error <= 1,
                 S::name << ' ' << ln::simd::name(level) << " m " << m << " n " << n << " k " << k);
      BOOST_TEST(dw_error <= 1,
                 S::name << ' ' << ln::simd::name(level) << " m " << m << " n " << n << " k " << k);
    }
  });
}

/// Both derivatives in bf16, from f32 masters: those of the rounded dy, x and W.
void check_backward_bf16() {
  using S = storage::with_compute<storage::bf16, ln::compute::bf16>;
  for_shapes_and_long_sums([](index m, index n, index k, int number) {
    const auto rounding = [](std::vector<float> x) {
      for (float& v : x)
        v = static_cast<float>(
            storage::bf16::decode(storage::bf16::encode(static_cast<double>(v))));
      return x;
    };
    auto masters = normal<float>(n * k, 5);
    const auto x = normal<float>(m * k, 6), dy = normal<float>(m * n, 7);
    const auto dx_start = normal<float>(m * k, 8), dw_start = normal<float>(n * k, 9);
    std::vector<simd_word> panels(at(ln::ops::packed_matrix<float, S>::size(n, k)));
    std::vector<simd_word> pairs(at((n + 1) / 2 * k));
    std::vector<std::byte> converted(at(ln::ops::converted_bytes<S>(m, k, n, 1, true)), poison);
    const ln::ops::packed_matrix<float, S> w{panels.data(), nullptr, nullptr, pairs.data()};
    const auto w_seen = rounding(masters), x_seen = rounding(x), dy_seen = rounding(dy);
    const reference want_dx = product(m, k, n, dy_seen.data(), n, 1, w_seen.data(), 1, k);
    const reference want_dw = product(n, k, m, dy_seen.data(), 1, n, x_seen.data(), 1, k);
    const float alpha = number % 2 ? 1.0f : 0.7f;
    for (const auto level : levels()) {
      const ln::ops::execution on{{}, level, converted.data()};
      ln::ops::pack(on, n, k, ln::matrix_ref<storage::f32>{masters.data()}, w);
      int wrong = 0;
      for (index i = 0; i < n; ++i)
        for (index j = 0; j < k; ++j) wrong += w.at(i, j, k) != w_seen[at(i * k + j)];
      BOOST_TEST(wrong == 0);
      auto dx = dx_start;
      auto dw = dw_start;
      ln::ops::matmul_backward(on, m, n, k, dy.data(), x.data(), w, {dw.data(), dx.data(), alpha});
      const double dx_error =
          excess<float>(dx, want_dx, k, n, static_cast<double>(alpha), dx_start.data(), nullptr);
      const double dw_error =
          excess<float>(dw, want_dw, k, m, static_cast<double>(alpha), dw_start.data(), nullptr);
      BOOST_TEST(dx_error <= 1, ln::simd::name(level) << " m " << m << " n " << n << " k " << k);
      BOOST_TEST(dw_error <= 1, ln::simd::name(level) << " m " << m << " n " << n << " k " << k);
    }
  });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(matmul)

BOOST_AUTO_TEST_CASE(forward_f32) { check_forward<float, storage::f32>(); }
BOOST_AUTO_TEST_CASE(forward_f64) { check_forward<double, storage::f64>(); }
BOOST_AUTO_TEST_CASE(forward_bf16) { check_forward<float, storage::bf16>(); }
// The product with int8 codes is the product with the values they stand for.
BOOST_AUTO_TEST_CASE(forward_int8) { check_forward<float, storage::int8>(); }
BOOST_AUTO_TEST_CASE(forward_int8_tensor) {
  check_forward<float, storage::int8_per<storage::granularity::tensor>>();
}
BOOST_AUTO_TEST_CASE(forward_int8_asymmetric) {
  check_forward<float,
                storage::int8_per<storage::granularity::row, storage::symmetry::asymmetric>>();
}
BOOST_AUTO_TEST_CASE(forward_int8_groups) {
  check_forward<float,
                storage::int8_per<storage::granularity::group, storage::symmetry::asymmetric, 8>>();
}
BOOST_AUTO_TEST_CASE(forward_int4) { check_forward<float, storage::int4<32>>(); }
BOOST_AUTO_TEST_CASE(forward_of_few_bits) {
  check_forward<float, storage::int2<16>>();
  check_forward<float, storage::ternary>();
  check_forward<float, storage::int3<64>>();
  check_forward<float, storage::int5<>>();
  check_forward<float, storage::int6<0>>();
}
BOOST_AUTO_TEST_CASE(forward_ggml) {
  check_forward<float, storage::q8_0>();
  check_forward<float, storage::q4_0>();
  check_forward<float, storage::q4_1>();
}
BOOST_AUTO_TEST_CASE(forward_nf4) { check_forward<float, storage::nf4>(); }
BOOST_AUTO_TEST_CASE(forward_fp4) { check_forward<float, storage::fp4<64>>(); }
BOOST_AUTO_TEST_CASE(forward_f16) { check_forward<float, storage::f16>(); }
BOOST_AUTO_TEST_CASE(forward_fp8) {
  check_forward<float, storage::fp8_e4m3>();
  check_forward<float, storage::fp8_e5m2>();
}
// With rounded inputs it is the product of the rounded inputs; of integers, exactly that.
BOOST_AUTO_TEST_CASE(forward_bf16_bf16) {
  check_forward<float, storage::with_compute<storage::bf16, ln::compute::bf16>>();
}
BOOST_AUTO_TEST_CASE(forward_int8_int8) {
  check_forward<float, storage::with_compute<storage::int8, ln::compute::int8>>();
}
BOOST_AUTO_TEST_CASE(forward_int8_asymmetric_int8) {
  check_forward<float, storage::with_compute<storage::int8_per<storage::granularity::row,
                                                               storage::symmetry::asymmetric>,
                                             ln::compute::int8>>();
}
BOOST_AUTO_TEST_CASE(forward_groups_int8) {
  using storage::granularity, storage::symmetry, storage::with_compute, ln::compute::int8;
  check_forward<float, with_compute<storage::q8_0, int8>>();
  check_forward<float, with_compute<storage::q4_0, int8>>();
  check_forward<float, with_compute<storage::q4_1, int8>>();
  check_forward<float, with_compute<storage::int4<64>, int8>>();
  check_forward<float, with_compute<storage::int4<0>, int8>>();
  check_forward<float, with_compute<storage::int2<32>, int8>>();
  check_forward<float, with_compute<storage::ternary, int8>>();
  check_forward<
      float, with_compute<storage::int8_per<granularity::group, symmetry::asymmetric, 8>, int8>>();
}
// Integer sums of groups are exact, at the ends of every range; the sums over groups are those of
// the definition in f32, with or without fused multiply-add. A row has the bits alone that it has
// among others.
BOOST_AUTO_TEST_CASE(groups_int8_bit_for_bit) {
  using storage::granularity, storage::symmetry;
  check_group_sums<storage::q8_0>();
  check_group_sums<storage::q4_0>();
  check_group_sums<storage::q4_1>();
  check_group_sums<storage::int4<8>>();
  check_group_sums<storage::int4<8, storage::symmetry::asymmetric>>();
  check_group_sums<storage::int4<128>>();
  check_group_sums<storage::int2<16>>();
  check_group_sums<storage::int2<128>>();
  check_group_sums<storage::int8_per<granularity::group, symmetry::asymmetric, 16>>();
}
// What follows a product, for each way that products are computed.
BOOST_AUTO_TEST_CASE(epilogues, *boost::unit_test::label("tsan")) {
  using kind = ln::activation_kind;
  using storage::granularity, storage::symmetry;
  check_epilogues<kind::relu, float, storage::f32>();
  check_epilogues<kind::gelu, float, storage::f32>();
  check_epilogues<kind::gelu_tanh, float, storage::f32>();
  check_epilogues<kind::silu, float, storage::f32>();
  check_epilogues<kind::gelu, double, storage::f64>();
  check_epilogues<kind::silu, float, storage::bf16>();
  check_epilogues<kind::relu, float, storage::int8>();
  check_epilogues<kind::silu, float,
                  storage::int8_per<granularity::group, symmetry::asymmetric, 8>>();
  check_epilogues<kind::gelu_tanh, float, storage::nf4>();
  check_epilogues<kind::silu, float, storage::with_compute<storage::bf16, ln::compute::bf16>>();
  check_epilogues<kind::relu, float, storage::with_compute<storage::int8, ln::compute::int8>>();
  check_epilogues<kind::gelu_tanh, float,
                  storage::with_compute<storage::int8_per<granularity::row, symmetry::asymmetric>,
                                        ln::compute::int8>>();
  check_epilogues<kind::silu, float, storage::with_compute<storage::q4_1, ln::compute::int8>>();
}
BOOST_AUTO_TEST_CASE(backward_f32) { check_backward<float, storage::f32>(); }
BOOST_AUTO_TEST_CASE(backward_bf16) { check_backward_bf16(); }
BOOST_AUTO_TEST_CASE(backward_f64) { check_backward<double, storage::f64>(); }

// Nothing is written outside y: sentinels around it survive.
BOOST_AUTO_TEST_CASE(writes_stay_inside) {
  constexpr index margin = 64;
  for (const auto level : levels())
    for (const index n : some_widths)
      for (const index m : {1, 5, 13}) {
        const matrix<float, storage::f32> w(n, 7, 1);
        const auto x = normal<float>(m * 7, 2);
        std::vector<float> y(at(m * n + 2 * margin), 77.0f);
        ln::ops::matmul({{}, level}, m, n, 7, x.data(), w.packed, y.data() + margin);
        const auto untouched = [](float v) { return v == 77.0f; };
        BOOST_TEST(std::all_of(y.begin(), y.begin() + margin, untouched));
        BOOST_TEST(std::all_of(y.end() - margin, y.end(), untouched));
      }
}

// Panels: 32 output features side by side, zeros behind the last one; at() finds every value.
BOOST_AUTO_TEST_CASE(packed_layout) {
  constexpr index n = 37, k = 3;
  const matrix<float, storage::f32> w(n, k, 1);
  int wrong = 0;
  for (index i = 0; i < 64; ++i)
    for (index j = 0; j < k; ++j) {
      const float stored = w.panels[at((i / 32 * k + j) * 32 + i % 32)];
      wrong += stored != (i < n ? w.rows[at(i * k + j)] : 0.0f);
      if (i < n) wrong += w.packed.at(i, j, k) != stored;
    }
  BOOST_TEST(wrong == 0);
  const matrix<float, storage::int8> q(n, k, 1);
  double worst = 0;
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < k; ++j)
      worst = (std::max)(worst, distance_of(q.packed.at(i, j, k), q.meaning[at(i * k + j)]));
  BOOST_TEST(worst < 1e-7 * magnitude(q.meaning));
}

// An output's arithmetic does not depend on who computes it: bitwise equal for 1 to 5 threads.
BOOST_AUTO_TEST_CASE(same_bits_on_any_number_of_threads, *boost::unit_test::label("tsan")) {
  for (const auto level : levels())
    for (const index m : {1, 7, 97, 230})
      for (const index n : {33, 300}) {
        constexpr index k = 65;
        const matrix<float, storage::f32> w(n, k, 1);
        const auto x = normal<float>(m * k, 2), dy = normal<float>(m * n, 3),
                   start = normal<float>(m * k + n * k, 4);
        std::vector<float> y1, dx1, dw1, db1;
        for (int threads = 1; threads <= 5; ++threads) {
          std::vector<float> y(at(m * n)), dx(start.begin(), start.begin() + m * k),
              dw(start.begin() + m * k, start.end()), db(at(n));
          on_machine(threads, level, [&](const ln::ops::execution& on) {
            ln::ops::matmul(on, m, n, k, x.data(), w.packed, y.data());
            ln::ops::matmul_dx(on, m, n, k, dy.data(), w.packed, dx.data());
            ln::ops::matmul_dw(on, m, n, k, dy.data(), x.data(), dw.data());
            ln::ops::bias_gradient(on, m, n, dy.data(), db.data());
          });
          if (threads == 1) {
            y1 = y;
            dx1 = dx;
            dw1 = dw;
            db1 = db;
          }
          BOOST_TEST(same_bits(y, y1));
          BOOST_TEST(same_bits(dx, dx1));
          BOOST_TEST(same_bits(dw, dw1));
          BOOST_TEST(same_bits(db, db1));
        }
      }
}

// The same for every storage type, with biases and scales that each thread finds at its columns.
template <class S>
void check_threads() {
  constexpr index n = 300, k = 65;
  const matrix<float, S> w(n, k, 1);
  const auto bias = normal<float>(n, 3);
  for (const auto level : levels())
    for (const index m : {1, 7, 230}) {
      const auto x = normal<float>(m * k, 2);
      std::vector<std::byte> converted(at(ln::ops::converted_bytes<S>(m, k, n, 5, false)), poison);
      std::vector<float> first;
      for (int threads = 1; threads <= 5; ++threads) {
        std::vector<float> y(at(m * n));
        on_machine(threads, level, [&](ln::ops::execution on) {
          on.converted = converted.data();
          ln::ops::matmul(on, m, n, k, x.data(), w.packed, y.data(), {bias.data()});
        });
        if (threads == 1) first = y;
        BOOST_TEST(same_bits(y, first), S::name << " m " << m << " threads " << threads);
      }
    }
}
BOOST_AUTO_TEST_CASE(same_bits_in_every_storage, *boost::unit_test::label("tsan")) {
  using storage::granularity, storage::symmetry;
  check_threads<storage::f32>();
  check_threads<storage::f16>();
  check_threads<storage::nf4>();
  check_threads<storage::int4<8>>();
  check_threads<storage::int3<>>();
  check_threads<storage::q4_1>();
  check_threads<storage::int8_per<granularity::group, symmetry::asymmetric, 16>>();
  check_threads<storage::with_compute<storage::bf16, ln::compute::bf16>>();
  check_threads<storage::with_compute<storage::int8, ln::compute::int8>>();
  check_threads<storage::with_compute<storage::int8_per<granularity::row, symmetry::asymmetric>,
                                      ln::compute::int8>>();
  check_threads<storage::with_compute<storage::q8_0, ln::compute::int8>>();
  check_threads<storage::with_compute<storage::q4_1, ln::compute::int8>>();
  check_threads<storage::with_compute<storage::int4<0>, ln::compute::int8>>();
  check_threads<storage::with_compute<storage::ternary, ln::compute::int8>>();
}

// The bias gradient is the sum of the rows, added to what is there.
BOOST_AUTO_TEST_CASE(bias_gradient_is_a_column_sum) {
  constexpr index m = 9, n = 37;
  const auto dy = normal<double>(m * n, 1), start = normal<double>(n, 2);
  auto db = start, want = start;
  for (index i = 0; i < m; ++i)
    for (index j = 0; j < n; ++j) want[at(j)] += dy[at(i * n + j)];
  ln::ops::bias_gradient(ln::ops::execution{}, m, n, dy.data(), db.data());
  BOOST_TEST(distance(db, want) < 1e-13);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::matmul_test
