// SPDX-License-Identifier: MIT
// Reformer's attention: hashing and sorting, gradients, the union of all rounds in plain loops, one
// chunk as full attention, causality with online grouping.

#include <linnet/json.hpp>

#include "support/attention.hpp"
#include "support/data.hpp"

namespace test::lsh_test {

namespace {
using ln::attention::lsh, ln::attention::reach;
using shape = ln::attention_shape;
constexpr shape plain{.d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3};
constexpr shape causal{.d_model = 6, .heads = 2, .kv_heads = 1, .d_kv = 3, .causal = true};
constexpr shape pairs{.d_model = 6, .heads = 4, .kv_heads = 2, .d_kv = 3, .causal = true};
constexpr shape t5{
    .d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3, .scaled = false, .relative = true};
constexpr shape relative = [] {
  shape a = t5;
  a.causal = true;
  return a;
}();
constexpr shape rotary{.d_model = 6,
                       .heads = 2,
                       .kv_heads = 1,
                       .d_kv = 4,
                       .causal = true,
                       .bias = true,
                       .rope = ln::rope_pairing::half};
using ln::attention::grouping;
template <shape A, index Bucket, index Rounds, reach Reach = reach::chunks, std::uint64_t Seed = 0,
          grouping Grouping = grouping::whole>
using layer = typename lsh<Bucket, Rounds, Reach, Seed, Grouping>::template layer<A>;
template <shape A, index Bucket, index Rounds>
using frozen = typename lsh<Bucket, Rounds>::online::template layer<A>;

constexpr shape wide{.d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16};
static_assert(ln::count_parameters<layer<wide, 64, 8>>() == 3 * 64 * 64);
// Hashing into more buckets is the part that does not grow linearly.
static_assert(grows_slowly<layer<wide, 64, 4>>(32));
static_assert(lsh<>::causal && lsh<>::bidirectional && lsh<>::supports_cache &&
              lsh<>::noncausal_grouping);
static_assert(!lsh<>::online::bidirectional && !lsh<>::online::noncausal_grouping);

/// Whom each token of a sample sees in some round: [heads, valid, valid], with the token itself.
/// Online ones have the buckets of a text of `planned` tokens.
template <shape A, index Bucket, index Rounds, reach Reach, std::uint64_t Seed,
          grouping Grouping = grouping::whole>
std::vector<char> seen(const std::vector<double>& q, index valid, index planned) {
  constexpr index h = A.d_kv, heads = A.heads;
  std::vector<char> sees(at(heads * valid * valid));
  const index text = Grouping == grouping::online ? planned : valid;
  const index wanted = text <= Bucket ? 1 : 2 * ((text + 2 * Bucket - 1) / (2 * Bucket)),
              digits = wanted > 64 ? 2 : 1, chunks = (valid + Bucket - 1) / Bucket;
  index buckets = wanted;  // of each digit
  while (digits == 2 && (buckets - 2) * (buckets - 2) >= wanted) buckets -= 2;
  const index half = buckets / 2, columns = digits * half + 1;
  for (index head = 0; head < heads; ++head)
    for (index round = 0; round < Rounds; ++round) {
      std::vector<double> rotation(at(h * columns));
      ln::ops::fill_rotation(ln::seed{Seed}, head * Rounds + round, h, columns, rotation.data());
      std::vector<index> bucket(at(valid)), order(at(valid)), chunk(at(valid));
      for (index t = 0; t < valid; ++t) {
        for (index digit = 0; digit < digits; ++digit) {
          std::vector<double> code(at(std::max(buckets, index{1})));
          for (index j = 0; j < half; ++j) {
            for (index c = 0; c < h; ++c)
              code[at(j)] +=
                  q[at((t * heads + head) * h + c)] * rotation[at(c * columns + digit * half + j)];
            code[at(half + j)] = -code[at(j)];
          }
          bucket[at(t)] =
              bucket[at(t)] * buckets + (std::max_element(code.begin(), code.end()) - code.begin());
        }
        order[at(t)] = t;
      }
      std::stable_sort(order.begin(), order.end(),
                       [&](index a, index b) { return bucket[at(a)] < bucket[at(b)]; });
      for (index place = 0; place < valid; ++place) chunk[at(order[at(place)])] = place / Bucket;
      if (Grouping == grouping::online) {
        for (index i = 0; i < valid; ++i) {
          index earlier = 0;
          for (index j = 0; j < i; ++j) earlier += bucket[at(j)] == bucket[at(i)];
          chunk[at(i)] = earlier / Bucket;
          for (index j = 0; j <= i; ++j)
            if (bucket[at(j)] == bucket[at(i)] && chunk[at(j)] >= chunk[at(i)] - 1)
              sees[at((head * valid + i) * valid + j)] = 1;
        }
        continue;
      }
      for (index i = 0; i < valid; ++i)
        for (index j = 0; j < valid; ++j)
          if ((chunk[at(j)] == chunk[at(i)] || (chunk[at(j)] + 1) % chunks == chunk[at(i)]) &&
              (Reach == reach::chunks || bucket[at(i)] == bucket[at(j)]) && (!A.causal || j <= i))
            sees[at((head * valid + i) * valid + j)] = 1;
    }
  return sees;
}

/// The layer in plain loops: one softmax over all that a token sees in any round, itself only if
/// there is nothing else.
template <shape A, index Bucket, index Rounds, reach Reach = reach::chunks, std::uint64_t Seed = 0,
          grouping Grouping = grouping::whole>
void check_reference(index length, std::vector<index> lengths, double tolerance = 1e-12) {
  constexpr index h = A.d_kv, heads = A.heads;
  attention_run<layer<A, Bucket, Rounds, Reach, Seed, Grouping>> run(
      std::ssize(lengths), length, lengths, A.relative ? heads : 0);
  run.run();
  for (index b = 0; b < std::ssize(lengths); ++b) {
    const index valid = run.valid(b);
    const std::span<const double> x(run.input(b, 0), at(valid * 6));
    const auto q = mapped(x, 6, run.weight("q.weight"));
    auto k = q;
    for (index i = 0; i < valid * heads; ++i) {
      double sum = 1e-6 * double(h);
      for (index c = 0; c < h; ++c) sum += q[at(i * h + c)] * q[at(i * h + c)];
      for (index c = 0; c < h; ++c) k[at(i * h + c)] /= std::sqrt(sum);
    }
    const auto grouped = mapped(x, 6, run.weight("v.weight"));
    std::vector<double> v(k.size());  // each group's values for all of its heads
    for (index t = 0; t < valid; ++t)
      for (index head = 0; head < heads; ++head)
        for (index c = 0; c < h; ++c)
          v[at((t * heads + head) * h + c)] =
              grouped[at((t * A.kv_heads + head * A.kv_heads / heads) * h + c)];
    const auto sees = seen<A, Bucket, Rounds, Reach, Seed, Grouping>(q, valid, length);
    const auto visible = [&](index head, index i, index j) {
      const char* const row = sees.data() + (head * valid + i) * valid;
      return j == i ? std::count(row, row + valid, 1) == 1 : row[j] == 1;
    };
    const auto mixed =
        dense_attention(valid, valid, heads, h, v, visible, [&](index head, index i, index j) {
          return dot(q, i, k, j, heads, head, h) +
                 (A.relative ? run.bias[at(head * (2 * length + 1) + length + j - i)] : 0);
        });
    const auto expected = mapped(mixed, heads * h, run.weight("o.weight"));
    BOOST_TEST(distance(expected, std::span(run.y).subspan(at(b * length * 6), expected.size())) <=
                   tolerance,
               "sample " << b);
  }
}
}  // namespace

BOOST_AUTO_TEST_SUITE(lsh_layer)

BOOST_AUTO_TEST_CASE(counts_and_order) {
  static_assert(ln::ops::bucket_count(1, 4) == 1 && ln::ops::bucket_count(4, 4) == 1);
  static_assert(ln::ops::bucket_count(5, 4) == 2 && ln::ops::bucket_count(8, 4) == 2);
  static_assert(ln::ops::bucket_count(9, 4) == 4 && ln::ops::bucket_count(64, 4) == 16);
  const std::int32_t bucket[] = {2, 0, 2, 1, 0, 2};
  std::int32_t counts[3], order[6];
  ln::ops::sort_by_bucket(6, 3, bucket, counts, order);
  const std::int32_t sorted[] = {1, 4, 3, 0, 2, 5};
  BOOST_TEST(order == sorted, boost::test_tools::per_element());
}

// A row and its multiples share a bucket, its opposite has the opposite one; a rotation is normal
// and does not depend on how many columns there are.
BOOST_AUTO_TEST_CASE(hashing) {
  constexpr index h = 16, n = 1000, ld = 32;
  std::vector<double> r(at(h * ld)), fewer(at(h * 7)), scratch(at(48 * ld));
  ln::ops::fill_rotation(ln::seed{4}, 9, h, ld, r.data());
  ln::ops::fill_rotation(ln::seed{4}, 9, h, index{7}, fewer.data());
  for (index c = 0; c < h; ++c)
    for (index j = 0; j < 7; ++j) BOOST_TEST(r[at(c * ld + j)] == fewer[at(c * 7 + j)]);
  double mean = 0, square = 0;
  for (const double v : r) mean += v / double(r.size()), square += v * v / double(r.size());
  BOOST_TEST(std::abs(mean) < 0.3);
  BOOST_TEST(std::abs(square - 1) < 0.4);
  auto x = normal<double>(n * h, 5);
  std::vector<std::int32_t> first(at(n)), second(at(n));
  const auto hash = [&](std::vector<std::int32_t>& to) {
    ln::simd::dispatch(ln::simd::best(), [&](auto kernels) {
      ln::ops::hash_rows(kernels, n, h, x.data(), h, {r.data(), ld, 10, scratch.data()}, to.data());
    });
  };
  hash(first);
  for (double& v : x) v *= -3;
  hash(second);
  std::vector<int> used(10);
  for (index i = 0; i < n; ++i) {
    BOOST_TEST(second[at(i)] == (first[at(i)] + 5) % 10);
    ++used[at(first[at(i)])];
  }
  BOOST_TEST(*std::min_element(used.begin(), used.end()) > 0);
}

// A tie goes to the first bucket: a row of zeros is alike to all.
BOOST_AUTO_TEST_CASE(hash_ties) {
  constexpr index h = 4, ld = 32;
  std::vector<double> r(at(h * ld)), scratch(at(48 * ld)), zero(at(h));
  ln::ops::fill_rotation(ln::seed{4}, 1, h, ld, r.data());
  ln::simd::dispatch(ln::simd::best(), [&](auto kernels) {
    for (const double sign : {0.0, -0.0}) {
      zero.assign(at(h), sign);
      std::int32_t bucket = 9;
      ln::ops::hash_rows(kernels, 1, h, zero.data(), h, {r.data(), ld, 10, scratch.data()},
                         &bucket);
      BOOST_TEST(bucket == 0);
    }
  });
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<layer<plain, 2, 2>>({.length = 9, .lengths = {9, 6}});
  check_layer<layer<causal, 2, 3>>({.length = 9, .dropout = 0.2});
  check_layer<layer<pairs, 2, 2>>({.length = 9, .lengths = {9, 6}});
  check_layer<layer<t5, 2, 2>>({.length = 7, .heads = 2, .lengths = {7, 3}});
  check_layer<layer<t5, 3, 2, reach::bucket>>({.length = 8, .heads = 2, .dropout = 0.1});
  check_layer<layer<rotary, 3, 1>>({.length = 8, .d_kv = 4});
  check_layer<frozen<causal, 2, 3>>({.length = 9, .lengths = {9, 6}, .dropout = 0.2});
  check_layer<frozen<rotary, 3, 1>>({.length = 8, .d_kv = 4});
  // Chunks longer than one block of queries.
  check_layer<layer<shape{.d_model = 2, .heads = 1, .kv_heads = 1, .d_kv = 2}, 50, 1>>(
      {.batch = 1, .length = 103});
}

BOOST_AUTO_TEST_CASE(union_of_the_rounds) {
  check_reference<plain, 4, 3>(41, {41, 33, 9, 8, 5, 4, 1});
  check_reference<causal, 4, 3>(41, {41, 33, 5, 1});
  check_reference<t5, 8, 4>(41, {41, 17, 16});
  check_reference<t5, 4, 3, reach::bucket, 7>(41, {41, 33, 5, 1});
  check_reference<causal, 4, 2, reach::bucket>(41, {41, 33, 5, 1});
  check_reference<pairs, 4, 3>(41, {41, 33, 5, 1});
  check_reference<plain, 60, 2>(241, {241, 100});
  check_reference<causal, 1, 2>(90, {90, 66, 65, 64, 40});  // buckets of one and two digits
}
BOOST_AUTO_TEST_CASE(union_of_frozen_rounds) {
  constexpr auto members = grouping::online;
  check_reference<causal, 4, 3, reach::chunks, 0, members>(41, {41, 33, 5, 4, 1});
  check_reference<causal, 1, 2, reach::chunks, 3, members>(41, {41, 8});
  check_reference<causal, 1, 2, reach::chunks, 0, members>(70, {70, 8});
  check_reference<pairs, 4, 2, reach::chunks, 0, members>(41, {41, 8});
  check_reference<relative, 4, 2, reach::bucket, 7, members>(41, {41, 33, 5});
  check_reference<causal, 60, 2, reach::chunks, 0, members>(241, {241, 100});
}

/// One round of Transformers' layer with its own rotations: outputs and all gradients.
template <shape A>
void check_transformers(const std::string& name) {
  using attention = layer<A, 4, 1>;
  auto file = ln::read_safetensors(golden("reformer_lsh") + "/expected.safetensors");
  LINNET_REQUIRE_OK(file);
  const auto expected = [&](const std::string& tensor) {
    auto values = file->values<double>(name + "." + tensor);
    LINNET_REQUIRE_OK(values);
    return *std::move(values);
  };
  attention_run<attention> run(2, 32);
  run.x = expected("x");
  run.dy = expected("dy");
  for (const char* const w : {"q.weight", "v.weight", "o.weight"})
    std::ranges::copy(expected(w), run.weight(w).begin());
  run.prepare = [&](auto& cache) {
    const auto rotations = expected("rotations");  // [heads, h, 4]
    for (index row = 0; row < A.heads * A.d_kv; ++row)
      std::copy_n(rotations.data() + row * 4, 4, cache.rotations + row * cache.wide);
    *cache.ready = attention::filled;
  };
  run.run(true);
  BOOST_TEST(distance(expected("y"), run.y) <= 1e-13, name);
  BOOST_TEST(distance(expected("grad.x"), run.dx) <= 1e-12, name);
  run.gradients.visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
        const std::span<const double> got(leaf, at(info.size()));
        BOOST_TEST(distance(expected("grad." + where.str()), got) <= 1e-12, name << where.str());
      });
}
BOOST_AUTO_TEST_CASE(transformers) {
  check_transformers<shape{.d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 4}>("whole");
  check_transformers<shape{.d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 4, .causal = true}>(
      "causal");
}

// One chunk over the whole sequence: full attention with shared queries and keys. More rounds come
// nearer to it.
BOOST_AUTO_TEST_CASE(more_rounds_see_more) {
  constexpr index length = 64;
  const auto error = [&](auto kind, auto all) {
    attention_run<typename decltype(kind)::template layer<plain>> some(3, length);
    attention_run<typename decltype(all)::template layer<plain>> every(3, length);
    some.run();
    every.run();
    double sum = 0;
    for (std::size_t i = 0; i < some.y.size(); ++i) sum += std::abs(some.y[i] - every.y[i]);
    return sum;
  };
  const double one = error(lsh<4, 1>{}, lsh<64, 1>{}), four = error(lsh<4, 4>{}, lsh<64, 1>{}),
               many = error(lsh<4, 16>{}, lsh<64, 1>{});
  BOOST_TEST(one > 1.2 * four);
  BOOST_TEST(four > 1.5 * many);
  BOOST_TEST(error(lsh<64, 5>{}, lsh<64, 1>{}) < 1e-11 * length);
}

// Without positions, a permutation of the tokens permutes the outputs of one chunk.
BOOST_AUTO_TEST_CASE(permutation) {
  constexpr index length = 9;
  attention_run<layer<plain, 16, 2>> run(1, length), turned(1, length);
  for (index t = 0; t < length; ++t)
    std::copy_n(run.input(0, t), 6, turned.input(0, (t * 4 + 1) % length));
  run.run();
  turned.run();
  for (index t = 0; t < length; ++t)
    BOOST_TEST(distance(run.output(0, t), turned.output(0, (t * 4 + 1) % length)) <= 1e-13);
}

// Changing what a token says but not where it is put leaves all earlier outputs as they are, to the
// bit. Queries do not read the last input, so changing that leaves all buckets alone.
// Buckets that remember their last token number tokens as a look at all of them does, whatever is
// fed, taken back and copied.
BOOST_AUTO_TEST_CASE(chains_equal_a_scan) {
  constexpr index size = 3, buckets = 5, capacity = 60;
  struct text {
    std::vector<std::int32_t> member = std::vector<std::int32_t>(at(capacity), 77), before = member,
                              last = std::vector<std::int32_t>(at(buckets + 1)),
                              bucket = std::vector<std::int32_t>();
    ln::detail::bucket_chain chain() {
      return {size, buckets, member.data(), before.data(), last.data()};
    }
  };
  static_assert(ln::detail::bucket_chain::last_size(buckets) == buckets + 1);
  text texts[2];
  ln::random_stream random(ln::seed{5});
  const auto below = [&](index n) {
    return static_cast<index>(random.below(static_cast<std::uint32_t>(n)));
  };
  for (int step = 0; step < 400; ++step) {
    text &one = texts[step % 2], &other = texts[1 - step % 2];
    const index known = std::ssize(one.bucket), what = below(6);
    if (what == 0) {
      one.bucket.resize(at(below(known + 1)));  // the chain hears of it with the next tokens
    } else if (what == 1) {
      const auto same = std::mismatch(one.bucket.begin(), one.bucket.end(), other.bucket.begin(),
                                      other.bucket.end())
                            .first;
      for (index t = same - one.bucket.begin(); t < known; ++t) {
        other.member[at(t)] = one.member[at(t)];
        other.before[at(t)] = one.before[at(t)];
      }
      other.bucket = one.bucket;
      other.chain().take_back(one.chain(), known);
    } else {
      const index more = (std::min)(1 + below(9), capacity - known);
      std::vector<std::int32_t> joined(at(more));
      for (auto& b : joined) b = static_cast<std::int32_t>(below(buckets));
      one.chain().join(known, more, joined.data());
      one.bucket.insert(one.bucket.end(), joined.begin(), joined.end());
    }
    for (text& any : texts)
      for (index t = 0; t < std::ssize(any.bucket); ++t) {
        index last = t - 1, earlier = 0;
        while (last >= 0 && any.bucket[at(last)] != any.bucket[at(t)]) --last;
        for (index i = 0; i < t; ++i) earlier += any.bucket[at(i)] == any.bucket[at(t)];
        BOOST_TEST_REQUIRE(any.before[at(t)] == last);
        BOOST_TEST_REQUIRE(any.member[at(t)] == any.bucket[at(t)] * size + earlier % size);
      }
  }
}

BOOST_AUTO_TEST_CASE(causality_with_online_grouping) {
  constexpr index length = 70;
  for (const index t : {0, 1, 31, 68}) {
    attention_run<layer<causal, 8, 3>> run(1, length);
    auto q = run.weight("q.weight");
    for (std::size_t i = 5; i < q.size(); i += 6) q[i] = 0;
    run.run();
    const auto before = run.y;
    run.input(0, t)[5] += 1;
    run.run();
    index changed = 0;
    for (index row = 0; row < length; ++row) {
      const bool same = same_bits(run.output(0, row), std::span(before).subspan(at(row * 6), 6));
      if (row < t) BOOST_TEST(same, "row " << row << " feels a change at " << t);
      changed += row > t && !same;
    }
    BOOST_TEST(changed > 0);
  }
}

// Each round drops on its own: with one chunk, two rounds see what one sees, but keep other parts.
BOOST_AUTO_TEST_CASE(rounds_drop_apart) {
  constexpr shape one_head{.d_model = 6, .heads = 1, .kv_heads = 1, .d_kv = 3};
  for (const double rate : {0.0, 0.5}) {
    attention_run<layer<one_head, 16, 1>> one(1, 9);
    attention_run<layer<one_head, 16, 2>> two(1, 9);
    one.dropout = two.dropout = {3, 1, 2, rate};
    one.run();
    two.run();
    BOOST_TEST((distance(one.y, two.y) <= 1e-13) == (rate == 0));
  }
}

// The seed and the layer choose the rotations.
BOOST_AUTO_TEST_CASE(seeds) {
  attention_run<layer<plain, 2, 1>> zero(1, 33);
  attention_run<layer<plain, 2, 1, reach::chunks, 1>> one(1, 33);
  zero.run();
  one.run();
  BOOST_TEST(distance(zero.y, one.y) > 1e-3);
  const auto first = zero.y;
  zero.layer = 1;
  zero.run();
  BOOST_TEST(distance(zero.y, first) > 1e-3);
}

BOOST_AUTO_TEST_CASE(padding) {
  check_padding<layer<t5, 4, 2>>(60, {60, 1, 52}, 0, 2);
  check_padding<layer<rotary, 4, 2>>(60, {60, 3}, 4);
}
BOOST_AUTO_TEST_CASE(threads) {
  check_threads<layer<t5, 4, 2>, float>(70, {70, 1, 52}, 0, 2);
  check_threads<layer<causal, 4, 2>, double>(70, {70, 3});
  check_threads<frozen<causal, 4, 2>, float>(70, {70, 3});
}
BOOST_AUTO_TEST_CASE(in_float) { check_float<layer<t5, 4, 2>>(70, {70, 1, 52}, 2); }
BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST(lsh<>::name() == "lsh<64, 8>");
  BOOST_TEST(lsh<>::online::name() == "lsh<64, 8, frozen>");
  BOOST_TEST((lsh<32, 4, reach::bucket, 9>::name()) == "lsh<32, 4, bucket, seed 9>");
}

// One bucket where all rows fit a chunk, else pairs of them for two chunks each.
BOOST_AUTO_TEST_CASE(numbers_of_buckets) {
  const index rows[] = {1, 7, 8, 9, 16, 17, 32, 33}, buckets[] = {1, 1, 1, 2, 2, 4, 4, 6};
  for (std::size_t i = 0; i < 8; ++i)
    BOOST_TEST(ln::ops::bucket_count(rows[i], 8) == buckets[i], rows[i]);
}
// Up to 64 buckets are one hash's. Of more, there are as many as wanted at least; no shorter text
// has more of them, nor more columns than are planned for.
BOOST_AUTO_TEST_CASE(digits_of_buckets) {
  using ln::ops::bucket_digits;
  static_assert(bucket_digits::of(4096, 64).base == 64 && bucket_digits::of(4096, 64).digits == 1);
  static_assert(bucket_digits::of(4097, 64).base == 10 && bucket_digits::of(4097, 64).digits == 2);
  static_assert(bucket_digits::of(1 << 20, 64).base == 26 &&
                bucket_digits::of(1 << 20, 64).digits == 3);
  index columns = 0, buckets = 0;
  for (index n = 1; n < 300000; n += 1 + n / 50) {
    const auto made = bucket_digits::of(n, 1);
    BOOST_TEST(made.buckets() >= n - (n == 1));
    BOOST_TEST(made.buckets() >= buckets);
    columns = (std::max)(columns, made.columns()), buckets = made.buckets();
    BOOST_TEST(columns <= made.most_columns());
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::lsh_test
