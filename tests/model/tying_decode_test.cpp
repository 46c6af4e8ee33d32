// SPDX-License-Identifier: MIT
// Decoding and threads with shared parameters, narrow embeddings and low-rank maps: caches are each
// layer's own, and every storage type knows the models.

#include "support/decoding.hpp"

namespace test::tying_decode_test {

namespace {

namespace sharing = ln::sharing;

constexpr ln::decoder_shape four_layers = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.layers = 4;
  return s;
}();
using albert = ln::decoder<four_layers, sharing::all, ln::embedding::factorised<3>>;
using mobillama = ln::decoder<four_layers, sharing::ffn, ln::ffn::low_rank<2>>;
using repeated = ln::decoder<four_layers, sharing::repeat<2>, ln::attention::low_rank<3>>;
using adapted = ln::decoder<four_layers, sharing::lora<2>, ln::attention::sliding_window<5>>;

/// Tokens one by one, in parts and all in one call, against the whole text at once.
template <class M, class T>
void check_cached(const ln::packed<M, T>& p, double tolerance) {
  const decoder_tokens data(1, 19, M::vocabulary);
  const auto whole = logits_of(p, data);
  BOOST_TEST(magnitude(whole) > 0.1);
  tolerance *= 1 + magnitude(whole);
  for (const index part : {1, 4, 19}) {
    auto s = opened(p, {.target = data.length});
    for (index t = 0; t < data.length; t += part) {
      const index n = (std::min)(part, data.length - t);
      const auto logits = s.feed(std::span(data.inputs).subspan(at(t), at(n)));
      BOOST_TEST(distance(logits, row_of<M>(whole, t + n - 1)) <= tolerance);
    }
  }
}
template <class M>
void check_cached() {
  check_cached(random_packed<M, double>(), 1e-12);
}

/// A fork goes on like its origin; its cache is a copy of every layer's.
template <class M>
void check_fork() {
  const auto p = random_packed<M, double>();
  auto s = opened(p, {.batch = 2, .target = 12});
  const auto text = tokens(6, M::vocabulary, 1), more = tokens(2, M::vocabulary, 2);
  std::vector<token> both(text);
  both.insert(both.end(), text.rbegin(), text.rend());
  const std::vector<index> lengths{6, 6};
  (void)s.feed(both, 2, lengths);
  BOOST_REQUIRE(s.fork(0, 1));
  const std::vector<token> next{more[0], more[1]};
  const std::vector<index> ones{1, 1};
  const auto logits = s.feed(next, 2, ones);
  anew<M, double> read(p, 16, 12);
  for (const index b : {0, 1}) {
    const auto want = read(text, std::span(&more[at(b)], 1));
    BOOST_TEST(distance(logits.subspan(at(b * M::vocabulary), at(M::vocabulary)), want) < 1e-12);
  }
}

constexpr ln::decoder_shape wide{.d_model = 48,
                                 .d_ff = 100,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .layers = 2,
                                 .vocabulary = 201,
                                 .context = 64};

/// Losses, gradients, weights and tokens of some threads.
template <class M>
struct outcome {
  std::vector<double> losses;
  ln::gradients<M> gradient;
  ln::weights<M> w;
  std::vector<token> generated;
};
template <class M>
outcome<M> run(int threads) {
  const decoder_tokens data(5, 14, M::vocabulary);
  ln::limits l = data.limits(threads);
  l.run_on = std_threads();
  outcome<M> r;
  ln::initialize(r.w, ln::seed{1});
  auto train = ln::trainer<M>::open(r.w, l, {ln::schedule::constant(1e-2)},
                                    {.clip = 0.5, .dropout = 0.1, .seed = 4});
  for (int step = 0; step < 3; ++step) r.losses.push_back(train->step(data.view()));
  r.losses.push_back(train->gradient_norm());
  r.losses.push_back(train->evaluate(data.view()).nats);
  (void)train->accumulate(data.view());
  r.gradient = std::move(train->gradient());
  const auto p = ln::pack(r.w);
  auto s = ln::session<M>::open(p, l);
  s->generate(std::span(data.labels).subspan(1, 5), ln::greedy{},
              [&](token t) { r.generated.push_back(t); });
  return r;
}
template <class M>
void check_threads() {
  const outcome<M> alone = run<M>(1);
  BOOST_TEST(alone.losses[2] < alone.losses[0]);
  BOOST_TEST(alone.generated.size() > 5u);
  for (const int threads : {2, 3, 4}) {
    const outcome<M> together = run<M>(threads);
    BOOST_TEST(same_bits(together.losses, alone.losses), threads << " threads");
    BOOST_TEST(same_bytes(together.gradient, alone.gradient), threads << " threads");
    BOOST_TEST(same_bytes(together.w, alone.w), threads << " threads");
    BOOST_TEST(together.generated == alone.generated, boost::test_tools::per_element());
  }
}

/// Stored as `S`: what f32 weights of the same numbers compute, and cached decoding as well.
template <class S, class M>
void check_storage(double tolerance) {
  ln::weights<M> w;
  randomize(w);
  const auto q = ln::quantize<S>(w);
  const auto p = ln::pack(q);
  const decoder_tokens data(2, 9, M::vocabulary);
  const auto stored = logits_of(p, data);
  BOOST_TEST(magnitude(stored) > 0.1);
  BOOST_TEST(distance(stored, logits_of(ln::pack(decoded<M>(q)), data)) <= tolerance);
  check_cached(p, tolerance);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(tying_decode)

BOOST_AUTO_TEST_CASE(cached_decoding) {
  check_cached<albert>();
  check_cached<mobillama>();
  check_cached<repeated>();
  check_cached<adapted>();
  check_cached<ln::decoder<four_layers, ln::embedding::factorised<2>, ln::tie::untied>>();
}
BOOST_AUTO_TEST_CASE(forks) {
  check_fork<albert>();
  check_fork<adapted>();
}
BOOST_AUTO_TEST_CASE(threads, *boost::unit_test::label("tsan")) {
  check_threads<ln::decoder<wide, sharing::lora<4>, ln::embedding::factorised<20>>>();
  check_threads<ln::decoder<wide, sharing::all, ln::ffn::low_rank<10>>>();
}
BOOST_AUTO_TEST_CASE(stored_in_few_bits) {
  using narrow = ln::decoder<tiny_decoder_shape, sharing::all, ln::embedding::factorised<3>>;
  using deltas = ln::decoder<tiny_decoder_shape, sharing::lora<2>>;
  check_storage<ln::storage::int8, narrow>(1e-5);
  check_storage<ln::storage::bf16, deltas>(1e-5);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tying_decode_test
