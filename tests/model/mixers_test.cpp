// SPDX-License-Identifier: MIT
// Linear attention, Fourier mixing and Mamba inside whole models: gradients of every parameter,
// decoding in pieces and in batches, threads, no requests to the heap.

#include "support/heap.hpp"
#include "support/scoring.hpp"

namespace test::mixers_test {

namespace {

inline constexpr ln::decoder_shape mamba_shape{.d_model = 6,
                                               .d_ff = 1,
                                               .heads = 1,
                                               .kv_heads = 1,
                                               .layers = 2,
                                               .vocabulary = 11,
                                               .context = 80,
                                               .eps = 1e-3};
using mamba = ln::decoder<mamba_shape, ln::mixer::mamba<3, 3>, ln::ffn::skip, ln::position::none>;
using linear = ln::decoder<tiny_decoder_shape, ln::attention::linear<>>;
// Fourier mixing reads, linear attention writes.
using fourier_t5 = ln::t5<tiny_t5_shape, ln::encoder_stack<ln::mixer::fnet>,
                          ln::decoder_stack<ln::attention::linear<>>>;
using linear_t5 = ln::t5<tiny_t5_shape, ln::encoder_stack<ln::attention::linear<>>>;

static_assert(!mamba::attention::can_truncate && !linear::attention::can_truncate);
static_assert(!fourier_t5::encoder_attention::causal && !mamba::attention::bidirectional);
// A feed-forward and positions are still a choice.
static_assert(
    ln::decoder<mamba_shape, ln::mixer::mamba<3>, ln::position::learned>::parameters() >
    ln::decoder<mamba_shape, ln::mixer::mamba<3>, ln::ffn::skip, ln::position::none>::parameters());
// What a session keeps for each further token of its limits is less than one token's width.
static_assert(ln::session<mamba>::footprint({.target = 2000}) -
                  ln::session<mamba>::footprint({.target = 1000}) <
              1000 * 4 * 30 * mamba::d);

/// Sequences fed in pieces, and several at once, padded, give the logits of scoring.
template <class M, class T>
void check_decoding(double tolerance) {
  constexpr index length = 70;
  const auto p = random_packed<M, T>();
  const decoder_tokens data(2, length, M::vocabulary);
  const std::vector<T> want = logits_of(p, data);
  const auto piece = [&](index b, index first, index count) {
    return std::span(data.inputs).subspan(at(b * length + first), at(count));
  };
  auto s = ln::session<M, T>::open(p, {.batch = 2,
                                       .target = length,
                                       .threads = 2,
                                       .min_flops_per_thread = 0,
                                       .run_on = std_threads()});
  BOOST_REQUIRE(static_cast<bool>(s));
  for (index b = 0; b < 2; ++b) {
    s->reset();
    index position = 0;
    for (const index count : {1, 31, 1, 1, 35, 1}) {
      const auto got = s->feed(piece(b, position, count));
      position += count;
      BOOST_TEST(distance(got, row_of<M>(want, b * length + position - 1)) <= tolerance);
    }
    BOOST_TEST(position == length);
  }
  s->reset();
  std::vector<index> position(2, 0);
  for (const std::vector<index>& counts :
       {std::vector<index>{7, 2}, {1, 1}, {3, 33}, {1, 1}, {33, 33}}) {
    const index wide = (std::max)(counts[0], counts[1]);
    std::vector<token> padded(at(2 * wide), token{3});
    for (index b = 0; b < 2; ++b) {
      const auto some = piece(b, position[at(b)], counts[at(b)]);
      std::copy(some.begin(), some.end(), padded.begin() + b * wide);
      position[at(b)] += counts[at(b)];
    }
    const auto got = s->feed(padded, 2, counts);
    BOOST_REQUIRE(got.size() == at(2 * M::vocabulary));
    for (index b = 0; b < 2; ++b)
      BOOST_TEST(distance(got.subspan(at(b * M::vocabulary), at(M::vocabulary)),
                          row_of<M>(want, b * length + position[at(b)] - 1)) <= tolerance);
  }
  BOOST_TEST((position == std::vector<index>{45, length}));
}

/// Five steps of training on one and on three threads give the same weights, and after the first
/// step the heap is left alone.
template <class M, class Data>
void check_training(const Data& data) {
  ln::weights<M> one, three;
  double first = 0, last = 0;
  for (auto* const w : {&one, &three}) {
    ln::initialize(*w, ln::seed{1});
    ln::limits l = data.limits(w == &one ? 1 : 3);
    l.run_on = {};
    auto train = ln::trainer<M>::open(*w, l, {ln::schedule::constant(3e-2)});
    BOOST_REQUIRE(static_cast<bool>(train));
    first = train->step(data.view());
    long requests = 0;
    for (int i = 0; i < 4; ++i)
      requests += heap_use_of([&] { last = train->step(data.view()); }).calls;
    BOOST_TEST(requests == 0);
  }
  BOOST_TEST(last < first - 0.05);
  BOOST_TEST(same_bytes(one, three));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixers)

BOOST_AUTO_TEST_CASE(gradients_of_mamba) { check_model<mamba>(decoder_data<mamba>(2, 6)); }
BOOST_AUTO_TEST_CASE(gradients_of_a_linear_decoder) {
  check_model<linear>(decoder_data<linear>(2, 5), 0.2);
}
BOOST_AUTO_TEST_CASE(gradients_of_t5) {
  check_model<fourier_t5>(t5_data<fourier_t5>());
  check_model<linear_t5>(t5_data<linear_t5>());
}

BOOST_AUTO_TEST_CASE(decoding) {
  check_decoding<mamba, double>(1e-12);
  check_decoding<linear, double>(1e-12);
  check_decoding<mamba, float>(same_result<float>);
}

BOOST_AUTO_TEST_CASE(training) {
  check_training<mamba>(decoder_data<mamba>(3, 40));
  check_training<linear>(decoder_data<linear>(3, 40));
  check_training<fourier_t5>(t5_data<fourier_t5>(3, 37, 9));
}

// A session encodes padded sources and feeds targets token by token, on any number of threads.
BOOST_AUTO_TEST_CASE(encoding) {
  using M = fourier_t5;
  const auto p = random_packed<M, double>();
  const t5_tokens data(3, 13, 6, M::vocabulary);
  const auto want = logits_of(p, data);
  auto s = ln::session<M, double>::open(p, {.batch = 3,
                                            .source = 17,
                                            .target = 6,
                                            .threads = 3,
                                            .min_flops_per_thread = 0,
                                            .run_on = std_threads()});
  BOOST_REQUIRE(static_cast<bool>(s));
  for (int repeat = 0; repeat < 2; ++repeat) {
    BOOST_REQUIRE(s->encode(data.source, 3, data.lengths));
    for (index t = 0; t < 6; ++t) {
      std::vector<token> next;
      for (index b = 0; b < 3; ++b) {
        const token before = t == 0 ? M::start : data.labels[at(b * 6 + t - 1)];
        next.push_back(before == ln::ignored ? M::start : before);
      }
      const auto got = s->feed(next, 3, {});
      BOOST_REQUIRE(got.size() == at(3 * M::vocabulary));
      for (index b = 0; b < 3; ++b)
        BOOST_TEST(distance(got.subspan(at(b * M::vocabulary), at(M::vocabulary)),
                            row_of<M>(want, b * 6 + t)) <= 1e-12);
    }
  }
}

// Stored in int8, a model computes what the numbers that its codes stand for say.
BOOST_AUTO_TEST_CASE(quantized) {
  using int8 = ln::quantized<mamba, ln::storage::int8>;
  ln::weights<mamba> w;
  randomize(w);
  const auto q = ln::quantize<ln::storage::int8>(w);
  const decoder_tokens data(2, 40, mamba::vocabulary);
  const auto got = logits_of(ln::pack(q), data),
             want = logits_of(ln::pack(decoded<mamba>(q)), data);
  BOOST_TEST(distance(got, want) <= same_result<float>);
  BOOST_TEST(distance(got, logits_of(ln::pack(w), data)) > 1e-4);
  static_assert(ln::weight_bytes<int8>() < ln::weight_bytes<mamba>());
}

// A source among longer ones gives what it gives alone.
BOOST_AUTO_TEST_CASE(padded_sources) {
  const auto check = []<class M>(ln::packed<M, double> p) {
    const t5_tokens data(3, 13, 4, M::vocabulary);
    const auto together = logits_of(p, data);
    for (index b = 0; b < 3; ++b) {
      t5_tokens alone = data;
      alone.batch = 1;
      alone.source_length = data.lengths[at(b)];
      alone.lengths = {alone.source_length};
      alone.source = {data.source.begin() + b * 13,
                      data.source.begin() + b * 13 + alone.source_length};
      alone.labels = {data.labels.begin() + b * 4, data.labels.begin() + (b + 1) * 4};
      BOOST_TEST(distance(logits_of(p, alone),
                          std::span(together).subspan(at(b * 4 * M::vocabulary),
                                                      at(4 * M::vocabulary))) <= 1e-12);
    }
  };
  check(random_packed<fourier_t5, double>());
  check(random_packed<linear_t5, double>());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::mixers_test
