// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// What the tests share: random values, comparisons that notice NaN, instruction-set levels,
/// threads.

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <linnet/linnet.hpp>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace test {

namespace ln = linnet;
using ln::index;
using ln::token;

/// An index as the size type of the standard containers.
constexpr std::size_t at(index i) { return static_cast<std::size_t>(i); }

/// The distance between 1 and the next value of T.
template <class T>
inline constexpr double epsilon = static_cast<double>(std::numeric_limits<T>::epsilon());

/// `n` normal values in a heap block of exactly their size, so that ASan sees every overread.
template <class T>
std::vector<T> normal(index n, std::uint64_t stream, double deviation = 1) {
  ln::random_stream random(ln::seed{2026}, stream);
  std::vector<T> x(at(n));
  for (T& v : x) v = static_cast<T>(deviation * random.normal());
  return x;
}

/// `n` tokens below `vocabulary`.
inline std::vector<token> tokens(index n, index vocabulary, std::uint64_t stream) {
  ln::random_stream random(ln::seed{7}, stream);
  std::vector<token> x(at(n));
  for (token& t : x) t = static_cast<token>(random.below(static_cast<std::uint32_t>(vocabulary)));
  return x;
}

/// Stands for "not a number at all": larger than any tolerance.
inline constexpr double hopeless = 1e300;

/// |a - b|, or hopeless if one of them is not finite.
template <class A, class B>
double distance_of(A a, B b) {
  const auto x = static_cast<double>(a), y = static_cast<double>(b);
  return ln::is_finite(x) && ln::is_finite(y) ? std::abs(x - y) : hopeless;
}

/// The largest |a_i - b_i| of two ranges of equal size.
template <class A, class B>
double distance(const A& a, const B& b) {
  if (std::size(a) != std::size(b) || std::size(a) == 0) return hopeless;
  double worst = 0;
  for (std::size_t i = 0; i < std::size(a); ++i)
    worst = (std::max)(worst, distance_of(std::data(a)[i], std::data(b)[i]));
  return worst;
}

/// The largest |a_i|.
template <class A>
double magnitude(const A& a) {
  double largest = 0;
  for (const auto v : a) largest = (std::max)(largest, distance_of(v, 0));
  return largest;
}

/// Whether two ranges of numbers have the same bits.
template <class A, class B>
bool same_bits(const A& a, const B& b) {
  static_assert(sizeof(*std::data(a)) == sizeof(*std::data(b)));
  return std::size(a) == std::size(b) && std::size(a) > 0 &&
         std::memcmp(std::data(a), std::data(b), std::size(a) * sizeof(*std::data(a))) == 0;
}

/// Whether two blocks of weights or gradients have the same bits.
template <class Block>
bool same_bytes(const Block& a, const Block& b) {
  return a.valid() && b.valid() && std::memcmp(a.data(), b.data(), at(Block::bytes())) == 0;
}

/// Every instruction-set level of this machine.
inline std::vector<ln::simd::level> levels() {
  std::vector<ln::simd::level> all;
  for (const auto l : ln::simd::levels)
    if (ln::simd::resolve(l) == l) all.push_back(l);
  return all;
}

/// Calls f(kernels) with the kernels of each level of this machine.
template <class F>
void for_levels(F&& f) {
  for (const auto l : levels()) ln::simd::dispatch_dot(l, f);
}

/// A user's own executor: one std::thread per rank.
inline ln::executor std_threads() {
  return {nullptr, [](void*, int n, void (*body)(void*, int, int), void* argument) {
            std::vector<std::thread> others;
            for (int rank = 1; rank < n; ++rank) others.emplace_back(body, argument, rank, n);
            body(argument, 0, n);
            for (std::thread& t : others) t.join();
          }};
}

/// Calls f(execution) on `threads` threads at the given level.
template <class F>
void on_machine(int threads, ln::simd::level level, F&& f) {
  ln::parallel(threads, std_threads(), [&](const ln::team& team) {
    f(ln::ops::execution{team, level});
  });
}

/// The values of a parameter or gradient, whatever form it has.
template <class Leaf>
auto* values_of(Leaf& leaf) {
  if constexpr (std::is_pointer_v<std::remove_cvref_t<Leaf>>)
    return leaf;
  else
    return leaf.data;
}

/// All values of weights or gradients, tensor by tensor.
template <class Block>
std::vector<double> all_values(const Block& block) {
  std::vector<double> all;
  block.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
    all.insert(all.end(), values_of(leaf), values_of(leaf) + info.size());
  });
  return all;
}

}  // namespace test
