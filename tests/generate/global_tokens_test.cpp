// SPDX-License-Identifier: MIT
// Sessions of Longformer with more global tokens than a call has tokens: parts against whole
// prompts, adapters by sequence, and what is taken back behind the window.

#include "support/decoding.hpp"

namespace test::global_tokens_test {

namespace {

constexpr ln::decoder_shape shape{.d_model = 32,
                                  .d_ff = 7,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 11,
                                  .context = 64};
/// Sixteen runs of one token.
using kind = ln::attention::longformer_at<
    4, ln::attention::global_tokens<0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30>>;
using model = ln::decoder<shape, kind>;
using coded = ln::decoder<shape, kind, ln::storage::int8, ln::compute::int8>;
using t5 = ln::t5<tiny_t5_shape, ln::decoder_stack<kind>>;
static_assert(t5::check_limits({.source = 1, .target = 1, .kv_blocks = 1}).field != nullptr);
static_assert(t5::check_limits({.source = 1, .target = 1}).field == nullptr);

ln::packed<coded> some_codes() {
  ln::weights<model> w;
  randomize(w, 3);
  return ln::pack(ln::quantize<ln::storage::int8, ln::compute::int8>(w));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(global_tokens)

BOOST_AUTO_TEST_CASE(parts_shorter_than_the_globals) {
  const auto p = some_codes();
  const auto text = tokens(40, coded::vocabulary, 5);
  auto whole = opened(p, {.target = 40, .max_logits = 40});
  const auto rows = whole.feed_all(text);
  BOOST_REQUIRE(!rows.empty());
  for (const index chunk : {1, 3}) {
    auto parts = opened(p, {.target = 40, .chunk = chunk});
    for (index t = 0; t < 40; t += chunk) {
      const index some = (std::min)(chunk, 40 - t);
      const auto got = parts.feed(std::span(text).subspan(at(t), at(some)));
      const auto want = rows.subspan(at((t + some - 1) * coded::vocabulary), at(coded::vocabulary));
      BOOST_TEST(distance(got, want) <= 1e-5, chunk << " " << t);
    }
  }
}
// A sequence goes on elsewhere and takes back as many tokens as its window still has.
BOOST_AUTO_TEST_CASE(forks_and_truncates_behind_the_window) {
  constexpr index chunk = 3;
  const auto p = some_codes();
  auto s = opened(p, {.batch = 2, .target = 50, .chunk = chunk});
  auto fresh = opened(p, {.target = 50, .chunk = chunk});
  for (const index length : {index{20}, index{43}}) {  // before and behind the last global token
    const auto text = tokens(length, coded::vocabulary, 5), next = tokens(3, coded::vocabulary, 6);
    s.reset();
    BOOST_REQUIRE(!s.prefill(text).empty());
    BOOST_REQUIRE(s.fork(0, 1));
    BOOST_REQUIRE(s.truncate(s.position(1) - chunk, 1));
    BOOST_REQUIRE(!s.truncate(s.position(1) - 1, 1));
    std::vector<token> both(next);
    both.insert(both.end(), next.rbegin(), next.rend());
    const auto got = s.feed(both, 2, {});
    BOOST_REQUIRE(!got.empty());
    for (index b = 0; b < 2; ++b) {
      std::vector<token> all(text.begin(), text.end() - b * chunk);
      all.insert(all.end(), both.begin() + b * 3, both.begin() + (b + 1) * 3);
      BOOST_TEST(distance(got.subspan(at(b * coded::vocabulary), at(coded::vocabulary)),
                          fresh.reset_and_prefill(all)) <= 1e-5,
                 length << " " << b);
    }
  }
}
// One sequence has an adapter, the other none.
BOOST_AUTO_TEST_CASE(adapters_of_sequences) {
  const auto base = random_packed<model, float>(3);
  auto weights = ln::adapt<ln::lora<2>>(base);
  BOOST_REQUIRE(static_cast<bool>(weights));
  randomize(*weights, 4);
  const auto adapter = ln::pack(*weights);
  const auto text = tokens(14, model::vocabulary, 5);
  auto two = opened(base, {.batch = 2, .target = 16}), one = opened(base, {.target = 16});
  BOOST_REQUIRE(two.set_adapter(0, adapter));
  const auto got = two.feed(text, 2, {});
  BOOST_REQUIRE(!got.empty());
  for (index b = 0; b < 2; ++b) {
    one.reset();
    BOOST_REQUIRE(b == 0 ? one.set_adapter(0, adapter) : one.clear_adapter(0));
    const auto alone = one.feed(std::span(text).subspan(at(b * 7), 7));
    BOOST_TEST(
        distance(got.subspan(at(b * model::vocabulary), at(model::vocabulary)), alone) <= 1e-5, b);
  }
}
BOOST_AUTO_TEST_CASE(memory_is_not_paged) {
  const auto p = some_codes();
  const auto refused = ln::session<coded>::open(p, {.target = 40, .kv_blocks = 2});
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().message().find("limits.kv_blocks: expected 0, as this kind of "
                                            "attention is not paged") != std::string::npos,
             refused.error().message());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::global_tokens_test
