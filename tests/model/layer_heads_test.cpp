// SPDX-License-Identifier: MIT
// Heads by layer where they meet other features: with as many heads in all layers a model is the
// one with a single number of them, bit for bit. Files tell unlike ones apart.

#include <linnet/json.hpp>

#include "support/compression.hpp"

namespace test::layer_heads_test {

namespace {

namespace storage = ln::storage;
using ln::attention::full;
using ln::attention::per_layer;

template <class... Policies>
using even = ln::decoder<tiny_decoder_shape, Policies...>;
/// The model whose layers say each that they have all heads.
template <class M>
using twin = typename M::template with_attention<per_layer<typename M::attention, 4, 4>>;

template <class M>
ln::weights<twin<M>> twin_of(const ln::weights<M>& w) {
  ln::weights<twin<M>> made;
  static_assert(ln::weights<M>::bytes() == ln::weights<twin<M>>::bytes());
  std::memcpy(made.data(), w.data(), at(ln::weights<M>::bytes()));
  return made;
}
template <class A, class B>
bool same_numbers(const A& a, const B& b) {
  static_assert(A::bytes() == B::bytes());
  return a.valid() && b.valid() && std::memcmp(a.data(), b.data(), at(A::bytes())) == 0;
}

/// What sessions of both compute: two texts in calls of unequal lengths, taken back and forked.
template <class M>
void check_sessions() {
  using base = typename M::template with_storage<storage::f32>;
  const auto run = []<class N>(const ln::weights<N>& w) {
    using Q = typename N::template with_storage<typename M::storage>;
    constexpr ln::limits l{.batch = 2, .target = 60, .chunk = 20, .min_flops_per_thread = 0};
    ln::packed<Q> p;
    if constexpr (std::is_same_v<N, Q>)
      p = ln::pack(w);
    else
      p = ln::pack(ln::quantize<typename M::storage>(w));
    auto s = ln::session<Q>::open(p, l);
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(s), (s ? "" : s.error().message()));
    const auto text = tokens(200, Q::vocabulary, 5);
    std::vector<float> all;
    std::size_t next = 0;
    const auto feed = [&](index length, index second) {
      const index lengths[] = {length, second};
      const auto logits =
          s->feed(std::span(text).subspan(next, at(2 * length)), 2, std::span(lengths));
      BOOST_REQUIRE(!logits.empty());
      all.insert(all.end(), logits.begin(), logits.end());
      next += at(2 * length);
    };
    feed(17, 3);
    feed(1, 1);
    BOOST_TEST(s->truncate(17, 0));
    feed(9, 8);
    BOOST_TEST(s->fork(0, 1));
    feed(1, 1);
    feed(5, 1);
    return all;
  };
  ln::weights<base> w;
  randomize(w, 3);
  const auto one = run(w), other = run(twin_of(w));
  BOOST_TEST(magnitude(one) > 0.1);
  BOOST_TEST(same_bits(one, other));
  constexpr ln::limits l{.batch = 3, .target = 60, .chunk = 20};
  static_assert(ln::session<M>::footprint(l) == ln::session<twin<M>>::footprint(l));
}

BOOST_AUTO_TEST_SUITE(layer_heads)

BOOST_AUTO_TEST_CASE(sessions_of_all_heads) {
  check_sessions<even<>>();
  check_sessions<even<ln::kv::f16, storage::int8, ln::compute::int8>>();
  check_sessions<even<ln::kv::int4, ln::attention::prefix>>();
  check_sessions<even<ln::kv::int8, ln::attention::sliding_window<7>, storage::int4<8>>>();
  check_sessions<
      even<ln::kv::bf16, ln::attention::sinks<2, 5>, storage::bf16, ln::compute::bf16>>();
}

BOOST_AUTO_TEST_CASE(training_of_all_heads) {
  using M = even<>;
  ln::weights<M> w;
  randomize(w, 3);
  auto other = twin_of(w);
  const decoder_tokens data(2, 9, 11);
  for (const bool recompute : {false, true}) {
    ln::limits l = data.limits();
    l.recompute = recompute;
    const ln::training_options how{.dropout = 0.2, .layer_dropout = {.rate = 0.5}};
    auto one = ln::trainer<M>::open(w, l, {}, how);
    auto two = ln::trainer<twin<M>>::open(other, l, {}, how);
    BOOST_REQUIRE((one && two));
    for (int step = 0; step < 3; ++step)
      BOOST_TEST(one->step(data.view()) == two->step(data.view()));
    BOOST_TEST(same_numbers(w, other));
  }
}

BOOST_AUTO_TEST_CASE(compression_of_all_heads) {
  using M = even<>;
  ln::weights<M> w;
  randomize(w, 3);
  const auto other = twin_of(w);
  const auto rounded = []<class N>(const ln::weights<N>& of) {
    auto q = ln::quantize_in_blocks<storage::int4<8>>(of, texts_of<N>{}, {.batch = 2, .target = 17},
                                                      ln::gptq{}, {.batches = 3});
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(q), (q ? "" : q.error().message()));
    return *std::move(q);
  };
  BOOST_TEST(same_numbers(rounded(w), rounded(other)));
  const auto scores = ln::importance_of(w);
  const auto others = ln::importance_of(other);
  BOOST_REQUIRE((scores && others));
  using ln::layer_width;
  const auto cut = ln::narrow<M::shape, layer_width{5, 2}, layer_width{7, 4}>(w, *scores);
  const auto cut_other = ln::narrow<M::shape, layer_width{5, 2}, layer_width{7, 4}>(other, *others);
  BOOST_REQUIRE((cut && cut_other));
  static_assert(std::is_same_v<decltype(cut), decltype(cut_other)>);
  BOOST_TEST(same_bytes(*cut, *cut_other));
}

// A file of heads 2 and 4 has as many bytes as one of 4 and 2.
BOOST_AUTO_TEST_CASE(files_of_unlike_heads) {
  using M = even<per_layer<full, 2, 4>>;
  using N = even<per_layer<full, 4, 2>>;
  static_assert(ln::weights<M>::bytes() == ln::weights<N>::bytes());
  ln::weights<M> w, again;
  ln::weights<N> other;
  randomize(w, 3);
  const scratch_folder folder;
  const auto message = [](const auto& r) { return r ? std::string() : r.error().message(); };
  BOOST_TEST(message(ln::save_safetensors(w, folder.path("w"))) == "");
  BOOST_TEST(message(ln::load_safetensors(again, folder.path("w"))) == "");
  BOOST_TEST(same_bytes(w, again));
  const std::string unlike =
      ": attention: expected per_layer 4 2 full (the model type), got per_layer 2 4 full";
  BOOST_TEST(message(ln::load_safetensors(other, folder.path("w"))) == folder.path("w") + unlike);
  const auto p = ln::pack(w);
  BOOST_TEST(message(ln::save_packed(p, folder.path("p"))) == "");
  const auto mapped = ln::map_packed<M>(folder.path("p"));
  BOOST_TEST(message(mapped) == "");
  BOOST_TEST(message(ln::map_packed<N>(folder.path("p"))) == folder.path("p") + unlike);
  const decoder_tokens data(2, 9, 11);
  BOOST_TEST((logits_of(p, data) == logits_of(*mapped, data)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::layer_heads_test
