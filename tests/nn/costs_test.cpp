// SPDX-License-Identifier: MIT
// What docs/attention.md says of each kind's operations, how they grow, and what a sequence keeps,
// against the counters of the layers up to a million tokens.

#include <fstream>

#include "support/attention.hpp"

#include <linnet/linnet.hpp>

namespace test::costs_test {

namespace {

namespace a = ln::attention;
constexpr ln::attention_shape reading{.d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16};
constexpr ln::attention_shape writing{
    .d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16, .causal = true};
constexpr index d = 64, n = 64, h = 16, million = index{1} << 20;

/// The row of a kind in the table of the document.
std::string row_of(const std::string& kind) {
  std::ifstream document(LINNET_TEST_DIR "/../docs/attention.md");
  std::string line;
  while (std::getline(document, line))
    if (line.starts_with("| `" + kind)) return line;
  return "";
}

/// The document gives operations and growth of a kind; of a doubling of the length to
/// 2 million, and of a million tokens, the counters say so. `mixing` are those operations for a
/// million tokens, unknown if 0; `beside` those of a token's linear maps.
template <class Kind, ln::attention_shape A>
void check_cost(const std::string& kind, const std::string& operations, const std::string& growth,
                double mixing, double beside = 4 * 2 * d * n) {
  using layer = typename Kind::template layer<A>;
  const std::string row = row_of(kind);
  BOOST_TEST(row.find("| " + operations + " | " + growth + " |") != row.npos,
             kind << " in docs/attention.md: " << row);
  const double counted = double(work<layer>(million)) - double(million) * beside;
  BOOST_TEST((mixing == 0 || std::abs(counted / mixing - 1) < 0.01),
             kind << ": " << counted << " for " << mixing);
  const double twice = double(work<layer>(2 * million)) / double(work<layer>(million));
  BOOST_TEST((growth == "T²"        ? twice > 3.8
              : growth == "T log T" ? twice > 2 && twice < 2.1
                                    : twice > 1.99 && twice < 2.001),
             kind << " grows by " << twice);
  BOOST_TEST(planned<layer>(2 * million) <= 2 * planned<layer>(million) + 4096, kind);
}

/// The document gives what a kind keeps of a sequence, and so does the layer for a million tokens.
template <class Kind>
void check_kept(const std::string& kind, const std::string& keeps, double values) {
  BOOST_TEST(row_of(kind).find("| " + keeps + " |") != std::string::npos, row_of(kind));
  const auto kept = double(Kind::template layer<writing>::state_values(million));
  BOOST_TEST(std::abs(kept / values - 1) < 0.001, kind << ": " << kept << " for " << values);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(costs)

BOOST_AUTO_TEST_CASE(of_the_table) {
  constexpr double T = million;
  check_cost<a::full, writing>("attention::full", "4 T² n", "T²", 4 * T * T * n);
  check_cost<a::prefix, writing>("attention::full`, `prefix`", "4 T² n", "T²", 4 * T * T * n);
  check_cost<a::block_causal<64>, writing>("attention::block_causal<B>", "4 T² n", "T²",
                                           4 * T * T * n);
  check_cost<a::block_diagonal<64>, reading>("attention::block_diagonal<B>", "4 T B n", "T",
                                             4 * T * 64 * n);
  check_cost<a::sliding_window<64>, writing>("attention::sliding_window<W>",
                                             "4 T W n, encoders 8 T W n", "T", 4 * T * 64 * n);
  check_cost<a::sliding_window<64>, reading>("attention::sliding_window<W>",
                                             "4 T W n, encoders 8 T W n", "T", 8 * T * 64 * n);
  check_cost<a::sinks<4, 60>, writing>("attention::sinks<F, R>", "4 T (F+R) n", "T",
                                       4 * T * 64 * n);
  check_cost<a::longformer<64, 1>, reading>("attention::longformer<W, g>", "4 T (W+2g+1) n", "T",
                                            4 * T * 67 * n, 6 * 2 * d * n);
  check_cost<a::lsh<64, 4>, writing>("attention::lsh<B, rounds>",
                                     "8 T B n rounds + T n b k rounds of hashing", "T log T",
                                     8 * T * 64 * n * 4 + T * n * 4 * 26 * 3, 3 * 2 * d * n);
  check_cost<a::routing<64, 64>, writing>("attention::routing<k, w>", "4 k w² n + 2 T k n", "T",
                                          4 * 64 * 64 * 64 * n + 2 * T * 64 * n, 3 * 2 * d * n);
  check_cost<a::linformer<64, 2 * million>, reading>("attention::linformer<K, Tmax>", "8 T K n",
                                                     "T", 8 * T * 64 * n);
  check_cost<a::nystrom<64, 33>, reading>("attention::nystrom<m, taps>",
                                          "8 T m n + 2 T taps n + O(m³)", "T",
                                          8 * T * 64 * n + 2 * T * 33 * n);
  check_cost<a::linear<>, writing>("attention::linear<>", "4 T n (h + 64), encoders 4 T n h", "T",
                                   4 * T * n * (h + 64));
  check_cost<a::linear<>, reading>("attention::linear<>", "4 T n (h + 64), encoders 4 T n h", "T",
                                   4 * T * n * h);
  check_cost<ln::mixer::fnet, reading>("mixer::fnet", "2.5 T d log₂(T d)", "T log T",
                                       2.5 * T * d * 26, 0);
  check_cost<ln::mixer::mamba<>, writing>(
      "mixer::mamba<>", "about 18 T d N", "T", 18 * T * d * 16 + T * 2 * 2 * d * 4,
      2 * (d * 4 * d + 2 * d * (4 + 2 * 16) + 4 * 2 * d + 2 * d * d));
  check_cost<ln::mixer::rwkv4, writing>("mixer::rwkv4", "O(T d)", "T", 0);
  check_cost<ln::mixer::rwkv7, writing>("mixer::rwkv7", "9 T d N", "T", 0);
}

BOOST_AUTO_TEST_CASE(of_what_is_kept) {
  constexpr double T = million;
  check_kept<a::full>("attention::full", "2 T n G/H", 2 * T * n);
  check_kept<a::prefix>("attention::full`, `prefix`", "2 T n G/H", 2 * T * n);
  check_kept<a::block_causal<64>>("attention::block_causal<B>", "2 T n G/H", 2 * T * n);
  check_kept<a::sliding_window<64>>("attention::sliding_window<W>", "2 W n G/H", 2 * 64 * n);
  check_kept<a::sinks<4, 60>>("attention::sinks<F, R>", "2 (F+R) n G/H", 2 * 64 * n);
  check_kept<a::longformer<64, 1>>("attention::longformer<W, g>", "2 (W/2+2g+1) n G/H", 2 * 35 * n);
  check_kept<a::lsh<64, 4>>("attention::lsh<B, rounds>", "T n (1 + G/H) + (2 + 1/B) T H rounds",
                            2 * T * n + (2 + 1.0 / 64) * T * 4 * 4);
  check_kept<a::routing<64, 64>>("attention::routing<k, w>", "T n (1 + G/H) + (2 T + k) H",
                                 2 * T * n + (2 * T + 64) * 4);
  check_kept<a::linear<>>("attention::linear<>", "n (h+1)", n * (h + 1));
  check_kept<ln::mixer::mamba<>>("mixer::mamba<>", "2 d (N+3)", 2 * d * 19);
}

// Routing with as many clusters as tokens in each grows with the power 3/2 of the length.
BOOST_AUTO_TEST_CASE(of_routing_by_roots) {
  const auto mixing = [](double operations, double tokens) {
    return operations - tokens * 3 * 2 * d * n;
  };
  using few = a::routing<256, 256>::layer<writing>;
  using many = a::routing<1024, 1024>::layer<writing>;
  const double small = mixing(double(work<few>(256 * 256)), 256 * 256),
               large = mixing(double(work<many>(million)), million);
  BOOST_TEST(std::abs(large / small - 64) < 0.01);  // 16 times as many tokens
}

// Hashing takes a small part of lsh's operations, however long a text is.
BOOST_AUTO_TEST_CASE(of_hashing) {
  using layer = a::lsh<64, 8>::layer<writing>;
  for (const index t : {4096, 65536, 262144, 1048576, 16777216}) {
    const index columns = ln::ops::bucket_digits::of(t, 64).columns();
    const double share = double(t) * n * double(columns) * 2 * 8 / double(work<layer>(t));
    BOOST_TEST(share < 0.26, t);
  }
  BOOST_TEST(double(work<layer>(million)) < double(work<a::full::layer<writing>>(million)) / 800);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::costs_test
