// SPDX-License-Identifier: MIT
// Decoding methods take all their memory when they are opened: then, exactly their footprint;
// afterwards nothing.

#include <optional>

#include "support/heap.hpp"
#include "support/models.hpp"

namespace test::decoding_heap_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using decoder = ln::decoder<tiny_decoder_shape>;
using hashed = ln::decoder<tiny_decoder_shape, ln::attention::lsh<4, 2>>;
using routed = ln::decoder<tiny_decoder_shape, ln::attention::routing<3, 4>>;

template <class M>
void check_silence() {
  ln::weights<M> w;
  randomize(w);
  const auto p = ln::pack(w);
  const ln::limits l{.batch = 3, .source = 9, .target = 16, .max_logits = 4};
  auto s = ln::session<M>::open(p, l), other = ln::session<M>::open(p, l);
  BOOST_REQUIRE(static_cast<bool>(s) && static_cast<bool>(other));

  using search_type = ln::beam_search<M>;
  using fast_type = ln::speculative<M, M>;
  std::optional<ln::result<search_type>> search;
  std::optional<ln::result<fast_type>> fast;
  heap_use use = heap_use_of([&] { search.emplace(search_type::open(*s, {.width = 3})); });
  BOOST_TEST(use.calls == 1);
  BOOST_TEST(use.bytes == search_type::footprint(l, {.width = 3}));
  use = heap_use_of([&] { fast.emplace(fast_type::open(*s, *other, 3)); });
  BOOST_TEST(use.calls == 1);
  BOOST_TEST(use.bytes == fast_type::footprint(l, 3));
  BOOST_REQUIRE(static_cast<bool>(*search) && static_cast<bool>(*fast));
  [[maybe_unused]] auto alone = [&] {
    if constexpr (M::exits > 0) {
      using alone_type = ln::self_speculative<M>;
      std::optional<ln::result<alone_type>> made;
      use = heap_use_of([&] { made.emplace(alone_type::open(*other, 1, 3)); });
      BOOST_TEST(use.calls == 1);
      BOOST_TEST(use.bytes == alone_type::footprint(l, 3));
      return made;
    } else {
      return nullptr;
    }
  }();

  const auto prompt = tokens(4, M::vocabulary, 1);
  const token stop[] = {5};
  ln::sampler sample({.temperature = 0.8, .top_k = 7, .min_p = 0.01, .repetition_penalty = 1.2});
  ln::contrast against(*other, {.plausibility = 0.1});
  index emitted = 0;
  const auto emit = [&](token) { ++emitted; };
  const auto work = [&] {
    emitted += std::ssize((**search)(prompt, {.tokens = 6}));
    emitted += std::ssize((**search)(prompt, {.stop = stop}, [](auto logits) { logits[1] = 0; }));
    (*fast)->generate(prompt, sample, emit);
    s->generate(prompt, sample, emit);
    if constexpr (M::exits > 0) {
      BOOST_REQUIRE(static_cast<bool>(*alone));
      (*alone)->generate(prompt, sample, emit);
    }
    BOOST_REQUIRE(against.reset_and_prefill(prompt));
    s->generate(prompt, ln::with_logit_processors(ln::greedy{}, against), emit);
  };
  work();
  BOOST_TEST(heap_use_of(work).calls == 0);
  BOOST_TEST(emitted > 50);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(decoding_heap)

BOOST_AUTO_TEST_CASE(groups_decode_silently) {
  check_silence<hashed>();
  check_silence<routed>();
}
BOOST_AUTO_TEST_CASE(t5_decodes_silently) { check_silence<t5>(); }
BOOST_AUTO_TEST_CASE(decoder_decodes_silently) { check_silence<decoder>(); }

BOOST_AUTO_TEST_CASE(streams_silently) {
  ln::text_stream stream({"stop", "\n\n"});
  const std::string piece = "some text with a sto \xe2\x82\xac and st";
  std::size_t bytes = 0;
  const auto emit = [&](std::string_view more) { bytes += more.size(); };
  BOOST_TEST(heap_use_of([&] {
               for (int i = 0; i < 100; ++i) stream.push(piece, emit);
               stream.flush(emit);
               stream.push("a stop", emit);
               stream.reset();
             }).calls == 0);
  BOOST_TEST(bytes == 100 * piece.size() + 2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::decoding_heap_test
