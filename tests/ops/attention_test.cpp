// SPDX-License-Identifier: MIT
// Attention against a naive dense reference in double that builds the whole query-by-key matrix.

#include "support/test.hpp"

namespace test::attention_test {

namespace {

/// One call; sizes and masks.
struct shape {
  const char* name;
  index batch, queries, keys, heads, kv_heads, h;
  bool causal = false;
  std::vector<index> past = {};         ///< cached tokens; keys is then the capacity
  std::vector<index> key_lengths = {};  ///< valid keys
  bool bias = false;
  bool integers = false;  ///< integer q and k: scores up to +-1e4 without any rounding
  double scale = 0.5;
  double dropout = 0;
  ln::ops::attention_window window = {};
  std::vector<index> prefix = {};
  index slots = 0;                  ///< other queries for the first keys, no further away than this
  std::vector<index> parents = {};  ///< [queries] of a tree of tokens, in each sequence
  std::vector<index> documents = {};  ///< [batch, queries] first token of each one's document

  /// What a query sees.
  ln::ops::attention_window seen() const {
    ln::ops::attention_window w = window;
    if (causal) w.after = 0;
    return w;
  }
};
constexpr index any = ln::ops::any_distance;

/// The first token of each one's document, of rows with documents that start there.
std::vector<index> documents(index length, const std::vector<std::vector<index>>& starts) {
  std::vector<index> made(starts.size() * at(length));
  for (std::size_t b = 0; b < starts.size(); ++b)
    for (const index start : starts[b])
      std::fill_n(made.begin() + static_cast<index>(b) * length + start, length - start, start);
  return made;
}

/// A shape with a window, documents and a tree.
shape masked(shape s, const ln::ops::attention_window& window, std::vector<index> of = {},
             std::vector<index> parents = {}) {
  s.window = window;
  s.documents = std::move(of);
  s.parents = std::move(parents);
  return s;
}
/// Tokens see each other in blocks of 7, and what is before, or their block alone.
constexpr ln::ops::attention_window after_blocks{any, 6, 0, 7}, one_block{6, 6, 0, 7};

const std::vector<shape> shapes{
    {"one token", 1, 1, 1, 1, 1, 1},
    {"multi-head", 2, 5, 5, 3, 3, 4},
    {"grouped-query", 2, 7, 7, 6, 2, 5, true},
    {"multi-query", 1, 9, 9, 4, 1, 6, true},
    {"cross", 2, 5, 11, 2, 2, 4},
    {"cross, padded", 3, 5, 11, 4, 2, 3, false, {}, {11, 1, 6}},
    {"bidirectional, padded, biased", 2, 8, 8, 2, 2, 4, false, {}, {8, 3}, true, false, 1},
    {"causal, biased", 2, 10, 10, 2, 2, 5, true, {}, {}, true, false, 1},
    {"47 rows", 1, 47, 47, 2, 1, 4, true},
    {"48 rows", 1, 48, 48, 2, 1, 4, true, {}, {}, true},
    {"49 rows", 1, 49, 49, 2, 1, 4, true, {}, {}, true},
    {"49 rows, both ways", 1, 49, 49, 2, 2, 7, false, {}, {}, true},
    {"101 rows, wide heads", 1, 101, 101, 1, 1, 33, true},
    {"cross, long", 1, 50, 97, 2, 2, 5},
    {"more heads than go together", 1, 70, 70, 9, 1, 4, true},
    {"12 heads of a group, both ways", 1, 50, 50, 12, 1, 3},
    {"one token after a past", 2, 1, 20, 4, 2, 4, true, {0, 19}, {}, true},
    {"one token, heads read together", 2, 1, 70, 10, 2, 20, true, {69, 40}, {}, true},
    {"one token, many heads", 1, 1, 40, 100, 1, 4, true, {39}},
    {"chunk after a past", 2, 5, 20, 4, 2, 4, true, {3, 15}, {}, true},
    {"long chunk after a past", 1, 60, 130, 2, 1, 4, true, {70}, {}, true},
    {"huge logits", 2, 33, 33, 4, 2, 4, false, {}, {33, 20}, false, true, 1},
    {"huge logits, causal", 1, 50, 50, 2, 1, 4, true, {}, {}, true, true, 1},
    {"dropout", 2, 9, 9, 4, 2, 4, true, {}, {}, false, false, 0.5, 0.4},
    {"dropout, cross, padded", 2, 50, 13, 2, 2, 4, false, {}, {13, 7}, false, false, 0.5, 0.2},
    {"prefix", 3, 60, 60, 4, 2, 4, true, {}, {}, true, false, 0.5, 0.2, {}, {50, 0, 60}},
    {"prefix and window",
     2,
     60,
     60,
     2,
     2,
     4,
     true,
     {},
     {},
     false,
     false,
     0.5,
     0,
     {7, any},
     {9, 55}},
    {"prefix in a cache", 2, 9, 30, 4, 2, 4, true, {0, 12}, {}, true, false, 0.5, 0, {}, {6, 0}},
    {"window", 2, 70, 70, 4, 2, 4, true, {}, {}, true, false, 0.5, 0, {5, any}},
    {"window of one", 1, 50, 50, 1, 1, 3, true, {}, {}, false, false, 0.5, 0, {0, any}},
    {"symmetric window", 2, 97, 97, 2, 1, 4, false, {}, {97, 60}, true, false, 0.5, 0, {9, 9}},
    {"window wider than the text",
     1,
     40,
     40,
     1,
     1,
     4,
     true,
     {},
     {},
     true,
     false,
     0.5,
     0,
     {64, any}},
    {"window after a past", 2, 60, 130, 2, 1, 4, true, {70, 3}, {}, true, false, 0.5, 0, {20, any}},
    {"one token, window", 2, 1, 90, 2, 1, 4, true, {80, 2}, {}, true, false, 0.5, 0, {33, any}},
    {"first and window", 2, 120, 120, 2, 1, 4, true, {}, {}, true, false, 0.5, 0.3, {6, any, 4}},
    {"first and wide window", 1, 50, 50, 2, 1, 4, true, {}, {}, true, false, 0.5, 0, {45, any, 35}},
    {"one token, first and window",
     2,
     1,
     90,
     2,
     1,
     4,
     true,
     {80, 2},
     {},
     true,
     false,
     0.5,
     0,
     {9, any, 4}},
    {"49 rows, first and window",
     1,
     49,
     49,
     2,
     1,
     4,
     true,
     {},
     {},
     true,
     false,
     0.5,
     0,
     {7, any, 3}},
    // Sinks: for the first keys, queries and biases are those of a place in the cache.
    {"slots", 2, 60, 60, 4, 2, 4, true, {}, {}, true, false, 0.5, 0.2, {4, any, 3}, {}, 8},
    {"slots after a past",
     2,
     9,
     50,
     2,
     1,
     4,
     true,
     {31, 2},
     {},
     true,
     false,
     0.5,
     0,
     {4, any, 3},
     {},
     8},
    {"one token, slots",
     2,
     1,
     50,
     2,
     1,
     4,
     true,
     {31, 2},
     {},
     true,
     false,
     0.5,
     0,
     {4, any, 3},
     {},
     8},
    {"tree after a past",
     2,
     9,
     30,
     4,
     2,
     4,
     true,
     {0, 12},
     {},
     true,
     false,
     0.5,
     0,
     {},
     {},
     0,
     {-1, 0, 1, 0, -1, 1, 5, 6, 4}},
    {"documents",
     2,
     60,
     60,
     4,
     2,
     4,
     true,
     {},
     {},
     true,
     false,
     0.5,
     0.2,
     {},
     {},
     0,
     {},
     documents(60, {{0, 5, 6, 55}, {0, 50}})},
    {"documents seen both ways, padded",
     2,
     60,
     60,
     2,
     1,
     3,
     false,
     {},
     {60, 20},
     true,
     false,
     0.5,
     0,
     {},
     {},
     0,
     {},
     documents(60, {{0, 9}, {0, 3, 17, 19, 40}})},
    {"documents, first and window",
     1,
     70,
     70,
     2,
     1,
     4,
     true,
     {},
     {},
     true,
     false,
     0.5,
     0.3,
     {4, any, 3},
     {},
     8,
     {},
     documents(70, {{0, 1, 12}})},
    // The fewest keys of a tile are 32.
    masked({"tree over a tile's border", 2, 9, 60, 4, 2, 4, true, {28, 25}, {}, true}, {}, {},
           {-1, 0, 1, 0, -1, 1, 5, 6, 4}),
    masked({"blocks", 2, 64, 64, 4, 2, 4, false, {}, {}, true, false, 0.5, 0.2}, after_blocks),
    masked({"blocks after a past", 2, 14, 70, 4, 2, 4, false, {28, 14}, {}, true}, after_blocks),
    masked({"part of a block after a past", 2, 3, 70, 4, 2, 4, false, {63, 28}}, after_blocks),
    masked({"blocks alone, padded", 2, 64, 64, 2, 1, 3, false, {}, {64, 40}, true}, one_block),
    masked({"documents in blocks", 2, 60, 60, 4, 2, 4, false, {}, {}, true, false, 0.5, 0.2},
           after_blocks, documents(60, {{0, 5, 40}, {0, 50}})),
    masked({"documents in blocks alone", 2, 60, 60, 2, 2, 4, false, {}, {60, 45}, true}, one_block,
           documents(60, {{0, 5, 40}, {0, 31}})),
};

/// The multiplier of one value, from the documented key: sample and dropout id above, position
/// below.
double multiplier(const ln::dropout_key& key, index sample, int dropout_id, index position) {
  if (key.rate <= 0) return 1;
  const auto words = ln::philox(key.seed ^ (key.step * 0x9E3779B97F4A7C15ull),
                                static_cast<std::uint64_t>(key.sample + sample) << 24 ^
                                    static_cast<std::uint64_t>(dropout_id),
                                static_cast<std::uint64_t>(position / 4));
  const bool dropped = static_cast<double>(words[at(position % 4)]) < key.rate * 4294967296.0;
  return dropped ? 0 : 1 / (1 - key.rate);
}

/// Tiles of the fewest keys, so that small shapes have several.
constexpr index few = ln::simd::token_block, many = ln::ops::attention_keys;

/// Scratch of one thread for both directions, or for the forward one.
index scratch_size(const shape& s, bool training = true, bool gathers = false, index tile = many) {
  return ln::ops::attention_scratch(s.queries, s.keys, s.h, s.seen(), training, gathers, tile);
}

/// Everything of one call, in scalar T.
template <class T>
struct problem {
  const shape& s;
  index n, kv, origin, line;
  std::vector<T> q, k, v, d_out, bias, q_first;
  std::vector<index> parents, depths;  ///< [batch, queries] of a tree
  ln::dropout_key dropout;
  static constexpr int dropout_id = 5;
  index tile = many;

  explicit problem(const shape& shape_)
      : s(shape_),
        n(s.heads * s.h),
        kv(s.kv_heads * s.h),
        origin((std::max)(s.queries, s.keys) + 3),
        line(2 * origin + 1),
        q(normal<T>(s.batch * s.queries * n, 1)),
        k(normal<T>(s.batch * s.keys * kv, 2)),
        v(normal<T>(s.batch * s.keys * kv, 3)),
        d_out(normal<T>(s.batch * s.queries * n, 4)),
        bias(s.bias ? normal<T>(s.heads * line, 5) : std::vector<T>()),
        q_first(s.slots ? normal<T>(s.batch * s.queries * n, 6) : std::vector<T>()),
        dropout{11, 3, 2, s.dropout} {
    for (index b = 0; b < s.batch; ++b)
      for (const index parent : s.parents) {
        depths.push_back(parent < 0 ? 0 : depths[at(b * s.queries + parent)] + 1);
        parents.push_back(parent);
      }
    if (s.integers)
      for (auto* x : {&q, &k})
        for (T& value : *x) value = static_cast<T>(std::nearbyint(static_cast<double>(value) * 60));
    if (s.integers)
      for (T& value : bias) value = static_cast<T>(std::nearbyint(static_cast<double>(value)));
  }
  ln::ops::attention_call<T> call(std::vector<T>& out, std::vector<T>& scratch) const {
    ln::ops::attention_call<T> c{};
    c.batch = s.batch;
    c.queries = s.queries;
    c.keys = s.keys;
    c.heads = s.heads;
    c.kv_heads = s.kv_heads;
    c.h = s.h;
    c.window = s.seen();
    c.scale = static_cast<T>(s.scale);
    c.q = q.data();
    if (s.slots) c.q_first = q_first.data(), c.kept = s.slots;
    c.k = {k.data(), s.keys, kv, s.h};
    c.v = {v.data(), s.keys, kv, s.h};
    c.out = out.data();
    c.past = s.past.empty() ? nullptr : s.past.data();
    c.key_lengths = s.key_lengths.empty() ? nullptr : s.key_lengths.data();
    c.prefix = s.prefix.empty() ? nullptr : s.prefix.data();
    c.documents = s.documents.empty() ? nullptr : s.documents.data();
    if (!s.parents.empty()) c.tree = {parents.data(), depths.data()};
    c.bias = s.bias ? bias.data() : nullptr;
    c.bias_origin = origin;
    c.scratch = scratch.data();
    c.tile = tile;
    c.scratch_size = scratch_size(s, true, false, tile);
    c.dropout = dropout;
    c.dropout_id = dropout_id;
    return c;
  }
};

/// Output and gradients.
struct outcome {
  std::vector<double> out, dq, dk, dv, d_bias, dq_first;
};

/// The textbook formulas (Vaswani et al. 2017, eq. 1) on dense matrices.
template <class T>
outcome dense(const problem<T>& p) {
  const shape& s = p.s;
  const auto value = [](const std::vector<T>& x, index i) { return static_cast<double>(x[at(i)]); };
  outcome r{std::vector<double>(p.q.size()),
            std::vector<double>(p.q.size()),
            std::vector<double>(p.k.size()),
            std::vector<double>(p.k.size()),
            std::vector<double>(at(s.batch) * p.bias.size()),
            std::vector<double>(p.q_first.size())};
  std::vector<double> prob(at(s.keys)), kept(at(s.keys)), d_prob(at(s.keys));
  for (index b = 0; b < s.batch; ++b)
    for (index head = 0; head < s.heads; ++head)
      for (index i = 0; i < s.queries; ++i) {
        const auto start_of = [&](index t) {
          return s.documents.empty() ? 0 : s.documents[at(b * s.queries + t)];
        };
        const index before = s.past.empty() ? 0 : s.past[at(b)], start = start_of(i);
        // Where key j stands: tokens of a tree at their depth.
        const auto place_of = [&](index j) {
          const bool in_tree = !s.parents.empty() && j >= before && j < before + s.queries;
          return in_tree ? before + p.depths[at(j - before)] : j - start;
        };
        const auto in_branch = [&](index j) {
          index ancestor = i;
          while (j >= before && ancestor > j - before) ancestor = s.parents[at(ancestor)];
          return j < before || ancestor == j - before;
        };
        const index position = place_of(before + i);
        const index q_at = (b * s.queries + i) * p.n + head * s.h,
                    group = head * s.kv_heads / s.heads;
        const auto k_at = [&](index j) { return (b * s.keys + j) * p.kv + group * s.h; };
        const auto seen = [&](index key) {
          const index j = key - start;
          if (!s.documents.empty() && start_of(key) != start) return false;
          if (!s.parents.empty()) return key < before + s.queries && in_branch(key);
          if (const index size = s.window.block; size > 0)
            return (s.past.empty() || key < before + s.queries) &&
                   (s.key_lengths.empty() || key < s.key_lengths[at(b)]) &&
                   (j / size == position / size || (j < position && !s.window.bounded()));
          const bool earlier = j <= position || (!s.prefix.empty() && j < s.prefix[at(b)]);
          return !(s.causal && !earlier) &&
                 !(!s.key_lengths.empty() && key >= s.key_lengths[at(b)]) &&
                 (j < s.window.first ||
                  (j >= position - s.window.before && j <= position + s.window.after) ||
                  (j >= position - s.window.before && !s.prefix.empty() && j < s.prefix[at(b)]));
        };
        const auto by_slot = [&](index j) { return s.slots && j - start < s.window.first; };
        const auto bias_at = [&](index j) {
          return head * p.line + p.origin + place_of(j) -
                 (by_slot(j) ? (std::min)(position, s.slots - 1) : position);
        };
        double largest = -1e300, sum = 0;
        for (index j = 0; j < s.keys; ++j) {
          if (!seen(j)) continue;
          double score = 0;
          for (index c = 0; c < s.h; ++c)
            score += value(by_slot(j) ? p.q_first : p.q, q_at + c) * value(p.k, k_at(j) + c);
          prob[at(j)] = score * s.scale + (s.bias ? value(p.bias, bias_at(j)) : 0);
          largest = (std::max)(largest, prob[at(j)]);
        }
        for (index j = 0; j < s.keys; ++j) {
          prob[at(j)] = seen(j) ? std::exp(prob[at(j)] - largest) : 0;
          sum += prob[at(j)];
        }
        double inner = 0;
        for (index j = 0; j < s.keys; ++j) {
          if (sum > 0) prob[at(j)] /= sum;
          const double m =
              multiplier(p.dropout, b, p.dropout_id, (head * s.queries + i) * s.keys + j);
          kept[at(j)] = prob[at(j)] * m;
          double d = 0;
          for (index c = 0; c < s.h; ++c) d += value(p.d_out, q_at + c) * value(p.v, k_at(j) + c);
          d_prob[at(j)] = d * m;
          inner += prob[at(j)] * d_prob[at(j)];
        }
        for (index j = 0; j < s.keys; ++j) {
          if (!seen(j)) continue;
          const double d_score = prob[at(j)] * (d_prob[at(j)] - inner);
          if (s.bias) r.d_bias[at(b * s.heads * p.line + bias_at(j))] += d_score;
          for (index c = 0; c < s.h; ++c) {
            r.out[at(q_at + c)] += kept[at(j)] * value(p.v, k_at(j) + c);
            r.dv[at(k_at(j) + c)] += kept[at(j)] * value(p.d_out, q_at + c);
            (by_slot(j) ? r.dq_first : r.dq)[at(q_at + c)] +=
                s.scale * d_score * value(p.k, k_at(j) + c);
            r.dk[at(k_at(j) + c)] +=
                s.scale * d_score * value(by_slot(j) ? p.q_first : p.q, q_at + c);
          }
        }
      }
  return r;
}

/// The distance of x - start from `want`, relative to the largest wanted value if that exceeds 1.
template <class T>
double error_of(const std::vector<T>& x, const std::vector<double>& want, double start) {
  std::vector<double> difference;
  for (const T value : x) difference.push_back(static_cast<double>(value) - start);
  return distance(difference, want) / (std::max)(1.0, magnitude(want));
}

/// Forward and backward at one level, on some threads, with gradients that start from 0.5.
template <class T>
void check(const shape& s, ln::simd::level level, int threads, index tile = many) {
  const problem<T> p(s);
  const outcome want = dense(p);
  // What the masks hide must not matter.
  problem<T> hidden(s);
  for (index b = 0; b < s.batch; ++b)
    for (index j = 0; j < s.keys; ++j) {
      const bool seen = (s.key_lengths.empty() || j < s.key_lengths[at(b)]) &&
                        (s.past.empty() || j < s.past[at(b)] + s.queries);
      for (index c = 0; c < p.kv && !seen; ++c)
        hidden.k[at((b * s.keys + j) * p.kv + c)] = hidden.v[at((b * s.keys + j) * p.kv + c)] =
            T(1e30);
    }
  hidden.tile = tile;
  std::vector<T> out(p.q.size()), scratch(at(scratch_size(s, true, false, tile) * threads));
  std::vector<T> dq(p.q.size(), T(0.5)), dk(p.k.size(), T(0.5)), dv(p.k.size(), T(0.5)),
      d_bias(want.d_bias.size(), T(0.5)), dq_first(p.q_first.size(), T(0.5));
  on_machine(threads, level, [&](const ln::ops::execution& on) {
    ln::ops::attention(on, hidden.call(out, scratch));
    ln::ops::attention_backward(on, hidden.call(out, scratch),
                                {p.d_out.data(), dq.data(), dk.data(), dv.data(), dq_first.data(),
                                 s.bias ? d_bias.data() : nullptr});
  });
  const double tolerance = sizeof(T) == 8 ? 1e-12 : 1e-5;
  const auto text = [&](const char* what) {
    return std::string(s.name) + ", " + what + ", " + ln::simd::name(level) +
           (sizeof(T) == 8 ? " double" : " float");
  };
  BOOST_TEST(error_of(out, want.out, 0) <= tolerance, text("out"));
  BOOST_TEST(error_of(dq, want.dq, 0.5) <= tolerance, text("dq"));
  BOOST_TEST(error_of(dk, want.dk, 0.5) <= tolerance, text("dk"));
  BOOST_TEST(error_of(dv, want.dv, 0.5) <= tolerance, text("dv"));
  if (s.slots) BOOST_TEST(error_of(dq_first, want.dq_first, 0.5) <= tolerance, text("dq_first"));
  if (s.bias && s.parents.empty())  // trees are for sessions alone
    BOOST_TEST(error_of(d_bias, want.d_bias, 0.5) <= tolerance, text("d_bias"));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(attention)

BOOST_AUTO_TEST_CASE(equals_dense_reference_double) {
  for (const shape& s : shapes)
    for (const auto level : levels()) check<double>(s, level, 1);
}

BOOST_AUTO_TEST_CASE(equals_dense_reference_float) {
  for (const shape& s : shapes)
    for (const auto level : levels()) check<float>(s, level, 1);
}

BOOST_AUTO_TEST_CASE(equals_dense_reference_on_three_threads, *boost::unit_test::label("tsan")) {
  for (const shape& s : shapes) check<double>(s, ln::simd::best(), 3);
}

// Keys in tiles: no score of all keys is held, and nothing else changes.
BOOST_AUTO_TEST_CASE(tiles_equal_dense_reference) {
  for (const shape& s : shapes) {
    for (const auto level : levels()) check<double>(s, level, 1, few);
    check<float>(s, ln::simd::best(), 1, few);
    check<double>(s, ln::simd::best(), 3, 2 * few);
  }
}

// The cases "huge logits" mean it: scores beyond 1e4, exact in float.
BOOST_AUTO_TEST_CASE(huge_logits_are_huge) {
  for (const shape& s : shapes) {
    if (!s.integers) continue;
    const problem<float> p(s);
    double largest = 0;
    for (index i = 0; i < s.queries; ++i)
      for (index j = 0; j < s.keys; ++j) {
        double score = 0;
        for (index c = 0; c < s.h; ++c)
          score += static_cast<double>(p.q[at(i * p.n + c)] * p.k[at(j * p.kv + c)]);
        largest = (std::max)(largest, std::abs(score));
      }
    BOOST_TEST(largest > 1e4);
    BOOST_TEST(largest < 1.6e7);
  }
}

// The forward pass alone needs less scratch, and stays inside it (the sanitizer sees it if not).
BOOST_AUTO_TEST_CASE(forward_scratch_suffices) {
  for (const shape& s : shapes) {
    const problem<float> p(s);
    std::vector<float> out(p.q.size()), again(p.q.size());
    std::vector<float> scratch(at(scratch_size(s))), less(at(scratch_size(s, false)));
    ln::ops::attention({{}, ln::simd::best()}, p.call(out, scratch));
    auto call = p.call(again, less);
    call.scratch_size = scratch_size(s, false);
    ln::ops::attention({{}, ln::simd::best()}, call);
    BOOST_TEST(same_bits(out, again));
  }
}

/// Keys or values as a cache keeps them: codes, blocks anywhere, rings.
template <class Code>
struct kept {
  std::vector<Code> codes;
  std::vector<float> scales;
  std::vector<std::int32_t> tables;
  ln::ops::kv_rows<Code> rows;
};
enum class layout { straight, ring, paged };

/// x[batch, keys, kv_heads, h] as codes, and what they stand for instead of x.
template <class Code>
kept<Code> keep(const shape& s, std::vector<float>& x, layout how) {
  constexpr bool exact = std::is_same_v<Code, float>, scaled = std::is_same_v<Code, std::int8_t>;
  constexpr index block = ln::simd::token_block;
  const index blocks = (s.keys + block - 1) / block, slot = s.h + (exact ? 0 : 3),
              stride = s.kv_heads * slot, rows = s.batch * blocks * block;
  kept<Code> all;
  all.codes.assign(at(rows * stride), Code{});
  all.scales.assign(at(rows * s.kv_heads), 1.0f);
  for (index i = 0; i < s.batch * blocks; ++i)  // from the last block to the first
    all.tables.push_back(static_cast<std::int32_t>(s.batch * blocks - 1 - i));
  const auto whole = [&](index n) { return ln::round_up(n, block); };
  const bool bounded = s.window.before < any;
  const index fixed = bounded ? whole(s.window.first) : 0;
  const index ring = how != layout::ring ? 0
                     : bounded           ? whole(s.window.before + s.queries)
                                         : blocks * block;
  all.rows = {all.codes.data(),
              blocks * block,
              stride,
              slot,
              scaled ? all.scales.data() : nullptr,
              fixed,
              ring,
              {how == layout::paged ? all.tables.data() : nullptr, blocks}};
  for (index b = 0; b < s.batch; ++b)
    for (index j = 0; j < (s.past.empty() ? s.keys : s.past[at(b)] + s.queries); ++j)
      for (index g = 0; g < s.kv_heads; ++g) {
        const auto token = all.rows.of(b, g);
        Code* const to = const_cast<Code*>(token.row(j));
        float* const from = x.data() + ((b * s.keys + j) * s.kv_heads + g) * s.h;
        if constexpr (exact) {
          std::copy_n(from, s.h, to);
        } else if constexpr (scaled) {
          float most = 0;
          for (index c = 0; c < s.h; ++c) most = (std::max)(most, std::abs(from[c]));
          const float scale = most / 127;
          const_cast<float&>(all.rows.scale(b, token.place(j), g)) = scale;
          for (index c = 0; c < s.h; ++c) {
            to[c] = static_cast<std::int8_t>(std::nearbyint(from[c] / scale));
            from[c] = scale * static_cast<float>(to[c]);
          }
        } else {
          using S = std::conditional_t<std::is_same_v<Code, ln::simd::bf16_code>, ln::storage::bf16,
                                       ln::storage::f16>;
          for (index c = 0; c < s.h; ++c) {
            const auto code = S::encode(static_cast<double>(from[c]));
            to[c] = static_cast<Code>(code);
            from[c] = static_cast<float>(S::decode(code));
          }
        }
      }
  return all;
}

template <class Code>
void check_kept(layout how, bool bitwise, index tile = many) {
  for (const shape& s : shapes) {
    if (s.integers || !s.documents.empty()) continue;  // documents have no cache
    problem<float> p(s);
    p.tile = tile;
    const auto k = keep<Code>(s, p.k, how), v = keep<Code>(s, p.v, how);
    std::vector<float> plain(p.q.size()), out(p.q.size()), scratch(at(scratch_size(s)));
    std::vector<float> gathered(at(scratch_size(s, false, true)));
    for (const auto level : levels()) {
      const auto straight = p.call(plain, scratch);
      ln::ops::attention<float>({{}, level}, straight);
      ln::ops::attention_call<float, Code> call{};
      call.batch = straight.batch, call.queries = straight.queries, call.keys = straight.keys;
      call.heads = straight.heads, call.kv_heads = straight.kv_heads, call.h = straight.h;
      call.window = straight.window, call.scale = straight.scale, call.q = straight.q;
      call.q_first = straight.q_first, call.kept = straight.kept;
      call.k = k.rows, call.v = v.rows, call.out = out.data();
      call.past = straight.past, call.key_lengths = straight.key_lengths;
      call.prefix = straight.prefix, call.tree = straight.tree;
      call.bias = straight.bias, call.bias_origin = straight.bias_origin;
      call.scratch = gathered.data(), call.scratch_size = scratch_size(s, false, true);
      call.dropout = straight.dropout, call.dropout_id = straight.dropout_id;
      call.tile = straight.tile;
      ln::ops::attention<float, Code>({{}, level}, call);
      if (bitwise)
        BOOST_TEST(same_bits(out, plain), s.name);
      else
        BOOST_TEST(distance(out, plain) <= 2e-6 * (std::max)(1.0, magnitude(plain)), s.name);
    }
  }
}

// A cache changes nothing but the numbers it rounds.
BOOST_AUTO_TEST_CASE(caches_of_codes_equal_what_they_stand_for) {
  check_kept<ln::simd::bf16_code>(layout::straight, true);
  check_kept<ln::simd::f16_code>(layout::straight, true);
  check_kept<std::int8_t>(layout::straight, false);  // scales multiply sums instead of numbers
}
BOOST_AUTO_TEST_CASE(blocks_anywhere_change_no_bit) {
  check_kept<float>(layout::ring, true);
  check_kept<float>(layout::paged, true);
  check_kept<ln::simd::bf16_code>(layout::paged, true);
  check_kept<ln::simd::f16_code>(layout::paged, true);
  check_kept<float>(layout::paged, true, few);
}

/// Output of a causal text in calls of up to `chunk` tokens, of a cache for `capacity`.
std::vector<float> in_chunks(const shape& s, index chunk, index capacity) {
  const problem<float> p(s);
  std::vector<float> k = p.k, v = p.v, all(p.q.size());
  k.resize(at(capacity * p.kv)), v.resize(at(capacity * p.kv));
  for (index from = 0; from < s.queries; from += chunk) {
    const index queries = (std::min)(chunk, s.queries - from), past[] = {from};
    const index size =
        ln::ops::attention_scratch(queries, capacity, s.h, s.seen(), false, false, few);
    std::vector<float> out(at(queries * p.n)), scratch(at(size));
    auto call = p.call(out, scratch);
    call.queries = queries, call.keys = capacity, call.past = past, call.q += from * p.n;
    call.k = {k.data(), capacity, p.kv, s.h}, call.v = {v.data(), capacity, p.kv, s.h};
    call.tile = few, call.scratch_size = size;
    ln::ops::attention<float>({{}, ln::simd::best()}, call);
    std::copy(out.begin(), out.end(), all.begin() + from * p.n);
  }
  return all;
}
// What a query gives is of its own keys alone: neither a call's other queries nor the room of a
// cache moves a tile. One query at a time is added up in another order.
BOOST_AUTO_TEST_CASE(tiles_lie_alike_in_all_calls) {
  shape s{"causal, several tiles", 1, 130, 130, 4, 2, 20, true};
  for (const index window : {any, index{70}}) {
    s.window.before = window;
    const auto whole = in_chunks(s, 130, 130), chunks = in_chunks(s, 65, 400);
    if (window == any) BOOST_TEST(same_bits(whole, chunks));
    BOOST_TEST(distance(whole, chunks) <= 1e-6);
    BOOST_TEST(distance(whole, in_chunks(s, 1, 131)) <= 3e-6);
    BOOST_TEST(same_bits(in_chunks(s, 1, 400), in_chunks(s, 1, 131)));
  }
}

// Memory of scores does not grow with keys; a narrow window is looked at together.
BOOST_AUTO_TEST_CASE(memory_of_tiles) {
  constexpr ln::ops::attention_window all{.after = 0}, near{.before = 100, .after = 0};
  const auto size = [](index keys, const ln::ops::attention_window& w) {
    return ln::ops::attention_scratch(48, keys, 64, w, true);
  };
  static_assert(ln::ops::attention_scratch(48, 1 << 20, 64, all, true) ==
                ln::ops::attention_scratch(48, ln::ops::attention_keys, 64, all, true));
  BOOST_TEST(size(4096, all) == (3 * 48 + 2 * 64) * many);
  BOOST_TEST(size(100, all) < size(many, all));
  BOOST_TEST(size(4096, near) == (3 * 48 + 2 * 64) * ln::round_up(148, ln::simd::panel_width));
  BOOST_TEST(size(4096, {.before = 5000, .after = 0}) == size(4096, all));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::attention_test
