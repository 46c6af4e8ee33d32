// SPDX-License-Identifier: MIT
// Sessions of kinds that group tokens: fed in any parts, they give what the parallel form gives
// with grouping::online, and each token meets whom its own past says.

#include "support/mixing.hpp"

namespace test::frozen_test {

namespace {
namespace a = ln::attention;
using shape = ln::attention_shape;
constexpr shape grouped{.d_model = 8, .heads = 4, .kv_heads = 2, .d_kv = 4, .causal = true};
constexpr shape rotary{.d_model = 6,
                       .heads = 2,
                       .kv_heads = 1,
                       .d_kv = 4,
                       .causal = true,
                       .bias = true,
                       .rope = ln::rope_pairing::half};
using parts = std::vector<std::vector<index>>;

/// Two sequences: token by token; at once; and in parts of different sizes.
template <class Kind, shape A = grouped, class T = double>
void check(index length, index d_kv = 0) {
  using layer = typename Kind::template layer<A>;
  using whole = typename Kind::online::template layer<A>;
  const double tolerance = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  const index some = length / 3, rest = length - 2 * some;
  for (const parts& p : {parts(at(length), {1, 1}), parts{{length, length}},
                         parts{{some, 1}, {1, some}, {some - 1, some - 1}, {rest, rest}}}) {
    check_pieces<layer, T, whole>(length, p, tolerance, d_kv);
    check_pieces<whole, T>(length, p, tolerance, d_kv);
  }
}
}  // namespace

BOOST_AUTO_TEST_SUITE(frozen)

BOOST_AUTO_TEST_CASE(lsh) {
  check<a::lsh<4, 2>>(47);
  check<a::lsh<4, 1>>(16);
  check<a::lsh<1, 3>>(12);
  check<a::lsh<5, 4, a::reach::bucket, 9>>(90);
  check<a::lsh<64, 2>>(30);  // one bucket
  check<a::lsh<4, 3>, rotary>(40, 4);
  check<a::lsh<4, 3>, rotary, float>(40, 4);
}
BOOST_AUTO_TEST_CASE(routing) {
  check<a::routing<3, 4>>(47);
  check<a::routing<1, 5>>(47);
  check<a::routing<20, 1>>(12);
  check<a::routing<4, 64>>(90);
  check<a::routing<3, 5>, rotary>(40, 4);
  check<a::routing<3, 5>, rotary, float>(40, 4);
}

// One cluster or bucket that has room for all: full attention, of queries that are keys.
BOOST_AUTO_TEST_CASE(one_group_is_the_unfrozen_kind) {
  const auto same = []<class Kind>() {
    using layer = typename Kind::template layer<grouped>;
    using frozen = typename Kind::online::template layer<grouped>;
    mixing<layer> one({.batch = 1, .length = 30});
    mixing<frozen> other({.batch = 1, .length = 30});
    const auto x = normal<double>(30 * 8, 1);
    BOOST_TEST(distance(one.forward(x, 30), other.forward(x, 30)) <= 1e-13);
  };
  same.operator()<a::lsh<30, 2>>();
  same.operator()<a::routing<1, 30>>();
}

// Reach::bucket sees in training what sessions see, as long as no bucket has more than one chunk.
BOOST_AUTO_TEST_CASE(small_buckets_need_no_freezing) {
  constexpr index length = 60;
  using kind = a::lsh<30, 3, a::reach::bucket>;
  mixing<kind::layer<grouped>> whole({.batch = 1, .length = length});
  mixing<kind::online::layer<grouped>> frozen({.batch = 1, .length = length});
  const auto x = normal<double>(length * 8, 1);
  const auto y = whole.forward(x, length), z = frozen.forward(x, length);
  // In two chunks all of a bucket meet; online, its first 31 do.
  BOOST_TEST(distance(rows_of(y, 8, length, 0, 0, 31), rows_of(z, 8, length, 0, 0, 31)) <= 1e-13);
  mixing<a::lsh<30, 3>::layer<grouped>> chunks({.batch = 1, .length = length});
  BOOST_TEST(distance(rows_of(chunks.forward(x, length), 8, length, 0, 0, 31),
                      rows_of(z, 8, length, 0, 0, 31)) > 1e-2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::frozen_test
