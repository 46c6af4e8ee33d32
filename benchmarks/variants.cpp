// SPDX-License-Identifier: MIT
// The feed-forward variants in T5-Mini: encoding 128 tokens and decoding one, in f32.

#include <linnet/model/presets.hpp>

#include "counters.hpp"

namespace bench::variants {
namespace ln = linnet;

namespace {

template <class Ffn>
using t5 = ln::t5<ln::zoo::shapes::t5_mini_kv32, Ffn>;

template <class Ffn>
void encode(benchmark::State& state) {
  const works::sizes s{.threads = static_cast<int>(state.range(0))};
  const auto weights = works::deploy<t5<Ffn>>(works::random_weights<t5<Ffn>>());
  works::encode<t5<Ffn>> work(weights, s);
  counters::time(state, work, work.of(s), s.threads);
}

template <class Ffn>
void decode(benchmark::State& state) {
  const works::sizes s{.threads = static_cast<int>(state.range(0))};
  const auto weights = works::deploy<t5<Ffn>>(works::random_weights<t5<Ffn>>());
  works::decode<t5<Ffn>> work(weights, s);
  counters::time(state, work, work.of(s), s.threads, static_cast<double>(s.target));
}

using standard = ln::ffn::relu;
using skip = ln::ffn::skip;
using one = ln::ffn::linear;
using one_relu = ln::ffn::linear_relu;
using two = ln::ffn::reparam<2>;
using three = ln::ffn::reparam<3>;
using gated = ln::ffn::gated_gelu;

}  // namespace

#define VARIANT(ffn)                              \
  BENCHMARK(encode<ffn>)->Apply(counters::usual); \
  BENCHMARK(decode<ffn>)->Apply(counters::usual)

VARIANT(standard);
VARIANT(skip);
VARIANT(one);
VARIANT(one_relu);
VARIANT(two);
VARIANT(three);
VARIANT(gated);

}  // namespace bench::variants
