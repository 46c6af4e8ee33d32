// SPDX-License-Identifier: MIT
// Models in every storage and compute type: they compute what their decoded weights compute, in a
// session as in one call, for any number of threads, and hold no more bytes than the type says.

#include "support/models.hpp"
#include "support/scoring.hpp"

namespace test::storage_test {

namespace {

namespace storage = ln::storage;
namespace compute = ln::compute;
using t5 = ln::t5<tiny_t5_shape>;
using llama = ln::decoder<tiny_decoder_shape>;

/// `rounding` is what rounding the inputs of products may change in the logits.
template <class S, class A = compute::f32>
void check_model(double rounding) {
  using Q = ln::quantized<llama, S, A>;
  ln::weights<llama> w;
  randomize(w);
  const auto q = ln::quantize<S, A>(w);
  const auto p = ln::pack(q);
  const auto whole = prompt_logits(p, 1, false);
  const auto want = prompt_logits(ln::pack(decoded<llama>(q)), 1, false);
  BOOST_TEST(distance(whole, want) <= rounding, Q::storage::name);
  BOOST_TEST((rounding < 1e-4 || distance(whole, want) > 1e-6), Q::storage::name);
  BOOST_TEST(distance(prompt_logits(p, 1, true), whole) <= (std::max)(1e-5, rounding));
  for (const int threads : {2, 3}) {
    BOOST_TEST(same_bits(prompt_logits(p, threads, false), whole));
    BOOST_TEST(same_bits(prompt_logits(p, threads, true), prompt_logits(p, 1, true)));
  }
  index tensors = 0;
  ln::each_tensor<llama>([&](const ln::parameter_path&, const ln::tensor_info&) { ++tensors; });
  BOOST_TEST(ln::weights<Q>::bytes() >= ln::weight_bytes<Q>());
  BOOST_TEST(ln::weights<Q>::bytes() <= ln::weight_bytes<Q>() + 3 * 64 * tensors);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(stored_models)

BOOST_AUTO_TEST_CASE(every_storage) {
  check_model<storage::f16>(1e-5);
  check_model<storage::fp8_e4m3>(1e-5);
  check_model<storage::fp8_e5m2>(1e-5);
  check_model<storage::int8>(1e-5);
  check_model<storage::int4<8>>(1e-5);
  check_model<storage::int3<64>>(1e-5);
  check_model<storage::int5<>>(1e-5);
  check_model<storage::nf4>(1e-5);
  check_model<storage::ternary>(1e-5);
  check_model<storage::q8_0>(1e-5);
  check_model<storage::q4_0>(1e-5);
  check_model<storage::q4_1>(1e-5);
}
BOOST_AUTO_TEST_CASE(rounded_inputs) {
  check_model<storage::bf16, compute::bf16>(0.1);
  check_model<storage::int8, compute::int8>(0.3);
}

// The policies say the same as the transformation, in any order.
BOOST_AUTO_TEST_CASE(as_policies) {
  using Q = ln::quantized<llama, storage::int8, compute::int8>;
  static_assert(std::is_same_v<Q, ln::decoder<tiny_decoder_shape, storage::int8, compute::int8>>);
  static_assert(std::is_same_v<Q, ln::decoder<tiny_decoder_shape, compute::int8, storage::int8>>);
  static_assert(
      std::is_same_v<ln::quantized<t5, storage::nf4>, ln::t5<tiny_t5_shape, storage::nf4>>);
  BOOST_TEST(ln::weight_bytes<Q>() < ln::weight_bytes<llama>() / 2);
}

// A team that lost time to other programs rests, and each kind of call has an account of that. So
// every count that may be 1 is of a model that no other test runs.
template <index Vocabulary, class F>
int teams_with(F&& min_flops_per_thread) {
  constexpr ln::decoder_shape shape = [] {
    ln::decoder_shape s = tiny_decoder_shape;
    s.vocabulary = Vocabulary;
    return s;
  }();
  using M = ln::decoder<shape>;
  static int teams;
  const ln::executor counting{
      nullptr, [](void* object, int n, void (*body)(void*, int, int), void* argument) {
        ++teams;
        std_threads().run(object, n, body, argument);
      }};
  teams = 0;
  ln::weights<M> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto run = ln::session<M>::open(p, {.target = 8,
                                      .threads = 2,
                                      .min_flops_per_thread = min_flops_per_thread(M::flops(1, 7)),
                                      .run_on = counting});
  (void)run->feed(tokens(7, M::vocabulary, 3));
  return teams;
}

// Little work stays on the calling thread unless every thread is asked for.
BOOST_AUTO_TEST_CASE(threads_as_work_is_worth) {
  BOOST_TEST(teams_with<21>([](index) { return ln::limits{}.min_flops_per_thread; }) == 0);
  BOOST_TEST(teams_with<21>([](index work) { return work / 2 + 1; }) == 0);
  BOOST_TEST(teams_with<21>([](index work) { return work / 2; }) == 1);
  BOOST_TEST(teams_with<22>([](index) { return index{0}; }) == 1);
}

// A T5 session, whose cross-attention reads the encoder's output, with int8 throughout.
BOOST_AUTO_TEST_CASE(t5_in_int8) {
  using Q = ln::quantized<t5, storage::int8, compute::int8>;
  ln::weights<t5> w;
  randomize(w);
  const auto p = ln::pack(ln::quantize<storage::int8, compute::int8>(w));
  const auto exact = ln::pack(w);
  const auto source = tokens(5, t5::vocabulary, 9);
  const token start = t5::start;
  auto one = ln::session<Q>::open(p, {.source = 5, .target = 4});
  auto reference = ln::session<t5>::open(exact, {.source = 5, .target = 4});
  BOOST_REQUIRE(one->encode(source));
  BOOST_REQUIRE(reference->encode(source));
  const auto got = one->feed({&start, 1}), want = reference->feed({&start, 1});
  BOOST_TEST(distance(got, want) < 0.3 * magnitude(want));
  BOOST_TEST(distance(got, want) > 1e-4 * magnitude(want));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::storage_test
