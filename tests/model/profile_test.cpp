// SPDX-License-Identifier: MIT
// Profiles of operations: a model with one computes the same bits, one without has no trace of it.
// Operations come as often as layers say, with the work that plain loops count.

#include "support/encoders.hpp"

namespace test::profile_test {

namespace {

/// A clock that moves on by one each time it is read.
struct ticking {
  static inline thread_local std::int64_t reads = 0;
  static std::int64_t now() { return ++reads; }
};
using profile = ln::operation_profile<ticking>;

using decoder = ln::decoder<tiny_decoder_shape>;
using t5 = ln::t5<tiny_t5_shape>;
using encoder = ln::encoder<tiny_encoder_shape>;
template <class M>
using watched = ln::profiled<M, profile>;

// Without a profile nothing is left of it, and with one no object is larger.
static_assert(std::is_empty_v<ln::no_profile::scope>);
static_assert(std::is_trivially_destructible_v<ln::no_profile::scope>);
static_assert(std::is_same_v<ln::detail::timed<ln::storage::f32>, ln::no_profile::scope>);
static_assert(std::is_same_v<ln::detail::timed_layer<ln::storage::int8, float, ln::linear<2, 2>>,
                             ln::no_profile::scope>);
static_assert(!std::is_same_v<ln::detail::timed<watched<t5>::storage>, ln::no_profile::scope>);
static_assert(sizeof(ln::session<decoder>) == sizeof(ln::session<watched<decoder>>));
static_assert(sizeof(ln::trainer<t5>) == sizeof(ln::trainer<watched<t5>>));
static_assert(ln::session<t5>::footprint({.source = 4, .target = 4}) ==
              ln::session<watched<t5>>::footprint({.source = 4, .target = 4}));
static_assert(ln::packed<decoder>::bytes() == ln::packed<watched<decoder>>::bytes());

// Parts keep the profile, matrices do not know it.
namespace storage = ln::storage;
using mixed = storage::per_role<storage::int8, storage::head<storage::f16>>;
static_assert(std::is_same_v<storage::at<storage::profiled<mixed, profile>, storage::part::head>,
                             storage::profiled<storage::f16, profile>>);
static_assert(std::is_same_v<storage::single<storage::profiled<mixed, profile>>, storage::int8>);

constexpr int kinds = ln::operations;
using ln::direction;

/// "embedding 1, norm 5, ..." of the calls of a thread since reset().
std::string calls(direction way, int thread = 0) {
  std::string all;
  for (int i = 0; i < kinds; ++i) {
    const auto what = static_cast<ln::operation>(i);
    if (const auto f = profile::of(what, way, thread); f.calls > 0)
      all += std::string(all.empty() ? "" : ", ") + ln::operation_name(what) + ' ' +
             std::to_string(f.calls);
  }
  return all;
}
/// Ticks of all operations.
std::int64_t ticks(int thread = 0) {
  std::int64_t all = 0;
  for (int i = 0; i < kinds; ++i)
    for (const auto way : {direction::forward, direction::backward})
      all += profile::of(static_cast<ln::operation>(i), way, thread).ticks;
  return all;
}
ln::operation_cost cost(ln::operation what, direction way = direction::forward) {
  return profile::of(what, way).cost;
}

/// Multiply-adds of a product, one after the other.
index loops(index rows, index out, index in) {
  index flops = 0;
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < out; ++j)
      for (index k = 0; k < in; ++k) flops += 2;
  return flops;
}
/// Those of causal attention: each query with each key that is not later, and each value.
index attention_loops(index past, index queries, index heads, index width) {
  index flops = 0;
  for (index q = 0; q < queries; ++q)
    for (index k = 0; k < past + queries; ++k)
      for (index head = 0; head < heads; ++head)
        for (index j = 0; j < width; ++j) flops += k <= past + q ? 4 : 0;
  return flops;
}

/// Trained weights, and the losses on the way.
template <class M, class Batch>
std::pair<std::vector<double>, std::vector<double>> trained(ln::weights<M> w, const Batch& data) {
  auto limits = data.limits(2);
  limits.run_on = std_threads();
  auto t = ln::trainer<M>::open(w, limits).value();
  std::vector<double> losses;
  for (int i = 0; i < 2; ++i) losses.push_back(t.step(data.view()));
  return {losses, all_values(w)};
}
template <class M, class Batch>
void check_training(const Batch& data, std::string_view forward, std::string_view backward) {
  ln::weights<M> w;
  randomize(w);
  auto same = ln::profiled_weights<profile>(w);
  const auto plain = trained(std::move(w), data);
  profile::reset();
  const std::int64_t before = ticking::reads;
  const auto seen = trained(std::move(same), data);
  BOOST_TEST(plain.first == seen.first);
  BOOST_TEST((plain.second == seen.second));
  BOOST_TEST(profile::threads() == 2);
  for (int thread = 0; thread < 2; ++thread) {
    BOOST_TEST(calls(direction::forward, thread) == forward);
    BOOST_TEST(calls(direction::backward, thread) == backward);
  }
  BOOST_TEST(ticks() > 0);
  BOOST_TEST(ticks() <= ticking::reads - before);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(profile_of_operations)

BOOST_AUTO_TEST_CASE(counts_what_a_decoder_does) {
  constexpr index d = 8, ff = 7, heads = 4, kv = 4, layers = 2, words = 11, past = 5;
  ln::weights<decoder> w;
  randomize(w);
  const auto same = ln::profiled_weights<profile>(w);
  const auto plain = ln::pack(w);
  const auto packed = ln::pack(same);
  auto s = ln::session<decoder>::open(plain, {.target = 9}).value();
  auto t = ln::session<watched<decoder>>::open(packed, {.target = 9}).value();
  const auto text = tokens(8, words, 1);
  const auto first = std::span(text).first(past), rest = std::span(text).subspan(past);
  BOOST_TEST(std::ranges::equal(s.feed(first), t.feed(first)));
  profile::reset();
  BOOST_TEST(calls(direction::forward).empty());
  const std::int64_t before = ticking::reads;
  BOOST_TEST(std::ranges::equal(s.feed(rest), t.feed(rest)));
  const index rows = 3;

  BOOST_TEST(calls(direction::forward) ==
             "other 1, embedding 1, norm 5, attention_input 2, attention 2, attention_output 2, "
             "ffn_up 2, ffn_down 2, ffn 2, head 1");
  BOOST_TEST(calls(direction::backward).empty());
  // From the first reading to the last, each belongs to one operation.
  BOOST_TEST(ticks() == ticking::reads - before - 1);
  BOOST_TEST(profile::threads() == 1);

  using enum ln::operation;
  const auto is = [&](ln::operation what, index flops, index numbers) {
    BOOST_TEST_CONTEXT(ln::operation_name(what)) {
      BOOST_TEST(cost(what).flops == flops);
      BOOST_TEST(cost(what).bytes == 4 * numbers);
    }
  };
  is(other, 0, 0);
  is(embedding, 0, 2 * rows * d);
  is(norm, 0, (2 * layers + 1) * (2 * rows * d + d));
  is(attention_input, layers * (loops(rows, d, d) + 2 * loops(rows, kv, d)),
     layers * (d * d + 2 * kv * d + rows * (3 * d + d + 2 * kv)));
  is(attention, layers * attention_loops(past, rows, heads, d / heads),
     layers * (2 * rows * d + 2 * (past + rows) * kv));
  is(attention_output, layers * loops(rows, d, d), layers * (d * d + 2 * rows * d));
  is(ffn_up, layers * 2 * loops(rows, ff, d), layers * 2 * (d * ff + rows * (d + ff)));
  is(ffn_down, layers * loops(rows, d, ff), layers * (d * ff + rows * (d + ff)));
  is(head, loops(1, words, d), words * d + d + words);
}

BOOST_AUTO_TEST_CASE(counts_what_an_encoder_decoder_does) {
  ln::weights<t5> w;
  randomize(w);
  const auto same = ln::profiled_weights<profile>(w);
  const auto plain = ln::pack(w);
  const auto packed = ln::pack(same);
  auto s = ln::session<t5>::open(plain, {.source = 6, .target = 4}).value();
  auto t = ln::session<watched<t5>>::open(packed, {.source = 6, .target = 4}).value();
  const auto source = tokens(6, 11, 1);
  profile::reset();
  BOOST_TEST((s.encode(source) && t.encode(source)));
  BOOST_TEST(calls(direction::forward) ==
             "other 1, embedding 1, norm 5, attention_input 2, attention 2, attention_output 2, "
             "ffn_up 2, ffn_down 2, ffn 2");
  using enum ln::operation;
  const index all = 6 * 6 * 2 * 2 * 4;  // pairs of tokens, heads, width, operations
  BOOST_TEST(cost(attention).flops == 2 * all);
  const token one[] = {0};
  const index made = loops(6, 4, 6);               // keys or values of the source
  for (const index keys : {2 * made, index{0}}) {  // are found once
    profile::reset();
    BOOST_TEST(std::ranges::equal(s.feed(one), t.feed(one)));
    BOOST_TEST(calls(direction::forward) ==
               "other 1, embedding 1, norm 7, attention_input 4, attention 4, attention_output 4, "
               "ffn_up 2, ffn_down 2, ffn 2, head 1");
    BOOST_TEST(cost(attention_input).flops == 2 * (4 * loops(1, 4, 6) + keys));
    BOOST_TEST(cost(attention).flops ==
               2 * (attention_loops(t.position() - 1, 1, 2, 2) + 6 * 2 * 2 * 4));
  }
}

BOOST_AUTO_TEST_CASE(counts_a_training_step, *boost::unit_test::label("tsan")) {
  // Two steps of two layers each; a standard feed-forward's activation has a pass of its own.
  check_training<decoder>(
      decoder_tokens(2, 5, 11),
      "other 2, embedding 2, norm 10, attention_input 4, attention 4, attention_output 4, ffn_up "
      "4, activation 4, ffn_down 4, ffn 4, residual 8, head 2, optimizer 2, packing 2",
      "embedding 2, norm 10, attention_input 4, attention 4, attention_output 4, ffn_up 4, "
      "activation 4, ffn_down 4, ffn 4, residual 16");
  using enum ln::operation;
  const index rows = 2 * 10, back = 2;  // of both steps; products for one of forward
  BOOST_TEST(cost(ffn_up).flops == 2 * 2 * loops(rows, 7, 8));
  BOOST_TEST(cost(ffn_up, direction::backward).flops == back * 2 * 2 * loops(rows, 7, 8));
  BOOST_TEST(cost(attention, direction::backward).flops ==
             back * 2 * 2 * 2 * attention_loops(0, 5, 4, 2));
  BOOST_TEST(cost(head).flops == (1 + back) * loops(rows, 11, 8));
  BOOST_TEST(cost(packing).bytes > 0);
  BOOST_TEST(profile::of(ffn_up, direction::forward, 1).cost.flops == 0);  // thread 0 notes it

  check_training<t5>(
      t5_tokens(2, 6, 4, 11),
      "other 2, embedding 4, norm 24, attention_input 12, attention 12, attention_output 12, "
      "ffn_up 8, activation 8, ffn_down 8, ffn 8, residual 20, head 2, optimizer 2, packing 2",
      "embedding 4, norm 24, attention_input 12, attention 12, attention_output 12, ffn_up 8, "
      "activation 8, ffn_down 8, ffn 8, residual 40");
  // Threads that meet wait for each other.
  std::int64_t waited = 0;
  for (int i = 0; i < kinds; ++i)
    waited += profile::of(static_cast<ln::operation>(i), direction::forward, 1).waited;
  BOOST_TEST(waited > 0);
  BOOST_TEST(profile::of(norm, direction::forward, profile::most_threads).calls == 0);
  BOOST_TEST(profile::of(norm, direction::forward, -1).calls == 0);

  // The head of masked words has a layer with an activation, too.
  check_training<encoder>(
      encoder_data<encoder>(),
      "other 2, embedding 2, norm 12, attention_input 4, attention 4, attention_output 4, ffn_up "
      "4, activation 6, ffn_down 4, ffn 4, residual 8, head 2, optimizer 2, packing 2",
      "embedding 2, norm 12, attention_input 4, attention 4, attention_output 4, ffn_up 4, "
      "activation 6, ffn_down 4, ffn 4, residual 8");
}

BOOST_AUTO_TEST_CASE(windows_and_small_codes) {
  // Queries at 3, 4 and 5 see themselves, two before and the first key.
  const ln::ops::attention_window window{.before = 2, .after = 0, .first = 1};
  BOOST_TEST(ln::detail::seen_keys(window, 3, 3, 6) == 4 + 4 + 4);
  BOOST_TEST(ln::detail::seen_keys(window, 0, 3, 3) == 1 + 2 + 3);
  BOOST_TEST(ln::detail::seen_keys({}, 0, 2, 7) == 14);
  // Blocks of four: queries at 2 and 3 see the first, one at 4 also what the second has.
  const ln::ops::attention_window blocks{.after = 3, .block = 4};
  BOOST_TEST(ln::detail::seen_keys(blocks, 2, 3, 5) == 4 + 4 + 5);
  // Prefixes, documents, padding, trees, and what targets read of sources.
  constexpr ln::attention_shape reading{.d_model = 2, .heads = 1, .kv_heads = 1, .d_kv = 2};
  constexpr auto writing = [](bool cross) {
    ln::attention_shape a{.d_model = 2, .heads = 1, .kv_heads = 1, .d_kv = 2};
    (cross ? a.cross : a.causal) = true;
    return a;
  };
  const index prefixes[] = {3, 0}, documents[] = {0, 0, 0, 3, 3, 0, 1, 1, 1, 1}, lengths[] = {4, 5},
              past[] = {4, 0}, parents[] = {-1, 0, 0, 0, 0}, depths[] = {0, 1, 1, 1, 1},
              sources[] = {0, 1, 1, 0, 0, 2};
  const ln::ops::attention_window earlier{.after = 0}, near{.before = 1, .after = 0};
  ln::context<float> ctx;
  ctx.batch = 2, ctx.length = 5;
  ctx.prefix = prefixes;
  BOOST_TEST(ln::detail::seen_pairs<writing(false)>(earlier, ctx, 0) == 3 + 3 + 3 + 4 + 5);
  BOOST_TEST(ln::detail::seen_pairs<writing(false)>(earlier, ctx, 1) == 15);
  ctx.prefix = nullptr, ctx.documents = documents;
  BOOST_TEST(ln::detail::seen_pairs<writing(false)>(earlier, ctx, 0) == 6 + 3);
  BOOST_TEST(ln::detail::seen_pairs<writing(false)>(near, ctx, 1) == 1 + 1 + 2 + 2 + 2);
  BOOST_TEST(ln::detail::seen_pairs<reading>({}, ctx, 0) == 9 + 4);
  ctx.memory.length = 3, ctx.memory.documents = sources;
  BOOST_TEST(ln::detail::seen_pairs<writing(true)>({}, ctx, 0) == 3 * 1 + 2 * 2);
  BOOST_TEST(ln::detail::seen_pairs<writing(true)>({}, ctx, 1) == 1 * 2 + 4 * 1);
  ctx.lengths = lengths;
  BOOST_TEST(ln::detail::seen_pairs<reading>({}, ctx, 0) == 9 + 1);
  ctx.lengths = nullptr, ctx.documents = nullptr, ctx.past = past, ctx.tree = {parents, depths};
  BOOST_TEST(ln::detail::seen_pairs<writing(false)>(earlier, ctx, 0) == 5 + 4 * 6);
  // Codes of a byte and a scale for each row.
  using map = ln::linear<8, 4>;
  using int8 = storage::profiled<storage::int8, profile>;
  constexpr auto one = ln::detail::layer_cost<map, float, int8>(1);
  static_assert(one == ln::operation_cost{64, 4 * 8 + 4 * 4 + 4 * (8 + 4)});
  static_assert(ln::detail::kept_bytes<float>(ln::kv_code::int8, 6) == 6);
  static_assert(ln::detail::kept_bytes<float>(ln::kv_code::f16, 6) == 12);
  static_assert(ln::detail::kept_bytes<float>(ln::kv_code::exact, 6) == 24);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::profile_test
