// SPDX-License-Identifier: MIT
// A session, evaluator or trainer allocates exactly its footprint, once; afterwards, after one
// warm-up per calling thread, training and decoding steps ask the heap for nothing.

#include <Eigen/Core>
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>

#include "support/data.hpp"
#include "support/encoders.hpp"
#include "support/heap.hpp"

#if __has_include(<xxhash.h>)
#include <linnet/cached_logits.hpp>
#endif

namespace test::footprint_test {

namespace {

using t5 = ln::t5<tiny_t5_shape, ln::ffn::reparam<2, 1.5>>;
using decoder = ln::decoder<tiny_decoder_shape, ln::bias::all>;
using rwkv7 = ln::rwkv7<tiny_rwkv7_shape>;
using mixture = ln::decoder<tiny_decoder_shape,
                            ln::depths::mixture_of_depths<0.5, 2, ln::depths::decision::predictor>>;
using between_bytes = ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<tiny_pooling>>;
using t5_int8 = ln::quantized<ln::collapsed<t5>, ln::storage::int8>;

template <class M>
ln::limits limits_of(int threads) {
  return {.batch = 3, .source = 13, .target = 9, .threads = threads};
}

/// Opening makes `blocks` allocations of footprint() bytes in all, once OpenMP has its threads.
template <class Object, class Weights>
void check_footprint(Weights& w, long blocks) {
  const ln::limits l = limits_of<typename Object::model>(2);
  ln::parallel(2, {}, [](const ln::team&) {});
  std::optional<ln::result<Object>> object;
  const heap_use use = heap_use_of([&] { object.emplace(Object::open(w, l)); });
  BOOST_REQUIRE(static_cast<bool>(*object));
  BOOST_TEST(use.calls == blocks);
  BOOST_TEST(use.bytes == Object::footprint(l));
}

/// The batch of the limits above, for either family.
template <class M>
auto whole_batch() {
  return data_for<M>(3, 13, 9);
}

/// Runs f() twice on this thread and once more on another thread, after a warm-up there too, and
/// expects no request from the second time on. `f` gets 0, 1, 2, ....
template <class F>
void check_silence(const char* what, F&& f) {
  f();
  BOOST_TEST(heap_use_of([&] { f(); }).calls == 0, what);
  heap_use elsewhere{1, 1};
  std::thread([&] {
    f();
    elsewhere = heap_use_of([&] { f(); });
  }).join();
  BOOST_TEST(elsewhere.calls == 0, what << ", on another thread");
}

template <class M, class T>
void check_training(int threads) {
  ln::weights<M, T> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<M, ln::adamw, T>::open(w, limits_of<M>(threads), {}, {.dropout = 0.1});
  BOOST_REQUIRE(static_cast<bool>(train));
  const auto data = whole_batch<M>();
  double sum = 0;
  check_silence("training step", [&] {
    sum += train->step(data.view());
    (void)train->accumulate(data.part(0, 1));
    (void)train->accumulate(data.part(1, 2));
    train->update();
    sum += train->evaluate(data.view()).mean();
  });
  BOOST_TEST(train->steps() == 8);
  BOOST_TEST(sum > 0);
}

template <class M, class P>
void check_decoding(const P& p, int threads) {
  auto s = ln::session<M>::open(p, limits_of<M>(threads));
  auto score = ln::evaluator<M>::open(p, limits_of<M>(threads));
  BOOST_REQUIRE(static_cast<bool>(s));
  BOOST_REQUIRE(static_cast<bool>(score));
  const auto data = whole_batch<M>();
  const auto prompt = tokens(4 * ln::session<M>::ids_per_token, M::vocabulary, 1);
  ln::sampler sample({.temperature = 0.8, .top_k = 7, .top_p = 0.9});
  const token stop[] = {5};
  int emitted = 0;
  check_silence("decoding", [&] {
    if constexpr (ln::session<M>::ids_per_token > 1) {
      emitted += static_cast<int>(s->reset_and_prefill(prompt).size());
      ln::generate_bytes(*s, prompt, sample, [&](std::string_view) { ++emitted; }, {.stop = stop});
    } else {
      s->generate(prompt, ln::greedy{}, [&](token) { ++emitted; });
      s->generate(prompt, sample, [&](token) { return ++emitted > 0; },
                  {.tokens = 3, .stop = stop});
    }
    (void)score->loss(data.view());
  });
  BOOST_TEST(emitted > 0);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(footprint)

// The counter sees every way to the heap.
BOOST_AUTO_TEST_CASE(counter_counts) {
  const auto asked = [](auto f) {
    void* volatile p = nullptr;  // seen from outside, or the compiler leaves malloc and free out
    const heap_use use = heap_use_of([&] { p = f(); });
    std::free(p);
    BOOST_TEST(use.calls == 1);
    return use.bytes;
  };
  BOOST_TEST(asked([] { return std::malloc(100); }) == 100);
  BOOST_TEST(asked([] { return std::calloc(5, 20); }) == 100);
  BOOST_TEST(asked([] { return std::realloc(nullptr, 100); }) == 100);
  BOOST_TEST(asked([] { return std::aligned_alloc(64, 128); }) == 128);
  BOOST_TEST(asked([] {
               void* p = nullptr;
               return posix_memalign(&p, 64, 100) == 0 ? p : nullptr;
             }) == 100);
  BOOST_TEST(heap_use_of([] { std::vector<int>(25).at(24) = 1; }).bytes >= 100);
  BOOST_TEST(heap_use_of([] { Eigen::VectorXd(25).setZero(); }).bytes >= 200);
  BOOST_TEST(heap_use_of([] { ln::memory_block(100); }).bytes == 128);
  BOOST_TEST(heap_use_of([] {}).calls == 0);
}

// Footprints are constants of the limits.
static_assert(ln::session<t5>::footprint({.source = 13, .target = 9}) > 0);
static_assert(ln::trainer<t5>::footprint({.batch = 3, .source = 13, .target = 9}) >
              ln::evaluator<t5>::footprint({.batch = 3, .source = 13, .target = 9}));

BOOST_AUTO_TEST_CASE(allocations_are_the_footprint) {
  ln::weights<t5> w;
  ln::initialize(w, ln::seed{1});
  ln::weights<decoder> v;
  ln::initialize(v, ln::seed{1});
  const auto p = ln::pack(w);
  const auto q = ln::pack(v);
  check_footprint<ln::session<t5>>(p, 1);
  check_footprint<ln::session<decoder>>(q, 1);
  check_footprint<ln::evaluator<t5>>(p, 1);
  check_footprint<ln::evaluator<decoder>>(q, 1);
  check_footprint<ln::trainer<t5>>(w, 5);  // workspace, packed weights, gradients, two moments
  check_footprint<ln::trainer<decoder>>(v, 5);
  using int4 = ln::storage::int4<8>;
  using ln::compute::f32, ln::compute::fake_quantized;
  check_footprint<ln::trainer<decoder, ln::adamw, float, fake_quantized<int4>>>(v, 6);  // codes
  using alone = fake_quantized<int4, f32, ln::steps::alone>;  // codes and steps, no moments
  check_footprint<ln::trainer<decoder, ln::adamw, float, alone>>(v, 5);
  ln::weights<rwkv7> recurrent;
  ln::initialize(recurrent, ln::seed{1});
  const auto r = ln::pack(recurrent);
  check_footprint<ln::session<rwkv7>>(r, 1);
  ln::weights<mixture> routed;
  ln::initialize(routed, ln::seed{1});
  const auto m = ln::pack(routed);
  check_footprint<ln::session<mixture>>(m, 1);
  check_footprint<ln::evaluator<mixture>>(m, 1);
  check_footprint<ln::trainer<mixture>>(routed, 5);
  ln::weights<between_bytes> of_bytes;
  ln::initialize(of_bytes, ln::seed{1});
  const auto b = ln::pack(of_bytes);
  check_footprint<ln::session<between_bytes>>(b, 1);
  check_footprint<ln::evaluator<between_bytes>>(b, 1);
  check_footprint<ln::trainer<between_bytes>>(of_bytes, 5);
  BOOST_TEST(heap_use_of([] { ln::weights<t5>(); }).bytes ==
             ln::round_up(ln::weights<t5>::bytes(), 64));
  BOOST_TEST(heap_use_of([] { ln::packed<t5_int8>(); }).bytes ==
             ln::round_up(ln::packed<t5_int8>::bytes(), 64));
}

// Inputs that storages keep are chosen anew in each step.
BOOST_AUTO_TEST_CASE(steps_of_corrected_codes_allocate_nothing) {
  using small = ln::decoder<tiny_decoder_shape>;
  const auto data = data_for<small>(2, 0, 5);
  ln::weights<small> w;
  ln::initialize(w, ln::seed{1});
  using S = ln::storage::outlier_columns<ln::storage::int4<8>, 1>;
  using trainer = ln::trainer<small, ln::adamw, float, ln::compute::fake_quantized<S>>;
  auto train = trainer::open(w, data.limits());
  LINNET_REQUIRE_OK(train);
  BOOST_TEST(heap_use_of([&] { (void)train->step(data.view()); }).calls == 0);
}

// A session in memory of the caller allocates nothing, needs no more than its footprint (the
// sanitizer sees it if it does), and computes the same.
BOOST_AUTO_TEST_CASE(session_in_the_callers_memory) {
  ln::weights<decoder> w;
  ln::initialize(w, ln::seed{1});
  const auto p = ln::pack(w);
  const ln::limits l = limits_of<decoder>(2);
  const index bytes = ln::session<decoder>::footprint(l);
  void* const memory = std::aligned_alloc(64, at(bytes));
  std::memset(memory, 0xff, at(bytes));
  {
    std::optional<ln::session<decoder>> mine;
    const heap_use use = heap_use_of(
        [&] { mine.emplace(p, l, std::span(static_cast<std::byte*>(memory), at(bytes))); });
    BOOST_TEST(use.calls == 0);
    auto own = ln::session<decoder>::open(p, l);
    const auto prompt = tokens(12, decoder::vocabulary, 1);
    BOOST_TEST(same_bits(mine->feed(prompt, 3, {}), own->feed(prompt, 3, {})));
  }
  std::free(memory);
}

// Memory that does not do is refused before anything is written to it or beyond it, in builds of
// every kind, and the session that could not be constructed refuses every call.
BOOST_AUTO_TEST_CASE(callers_memory_that_does_not_do) {
  const auto p = ln::pack(ln::weights<decoder>());
  const ln::limits l = limits_of<decoder>(1);
  using session = ln::session<decoder>;
  const index bytes = session::footprint(l);
  std::vector<std::byte> untouched(at(bytes + 128), std::byte{7});
  void* start = untouched.data();
  std::size_t room = untouched.size();
  std::byte* const memory = static_cast<std::byte*>(std::align(64, at(bytes), start, room));
  const auto refused = [&](const auto& packed, const ln::limits& limits,
                           std::span<std::byte> span) {
    session s(packed, limits, span);
    BOOST_TEST(!s.valid());
    BOOST_TEST(s.position() == 0);
    BOOST_TEST(s.fed().empty());
    BOOST_TEST(s.free_blocks() == 0);
    BOOST_TEST(s.feed(tokens(1, decoder::vocabulary, 1)).empty());
    BOOST_TEST(s.reset_and_prefill(tokens(1, decoder::vocabulary, 1)).empty());
    BOOST_TEST(s.generate(tokens(1, decoder::vocabulary, 1), ln::greedy{}, [](token) {}) == 0);
    BOOST_TEST(!s.truncate(0));
    BOOST_TEST(!s.fork(0, 0));
    BOOST_TEST(!s.exit_after(1));
    BOOST_TEST(s.capacity() == 0);
    s.reset();
    BOOST_TEST(std::ranges::all_of(untouched, [](std::byte b) { return b == std::byte{7}; }));
    const auto opened = session::open(packed, limits, span);
    return opened ? std::string() : opened.error().message();
  };
  BOOST_TEST(refused(p, l, std::span(memory, at(bytes - 1))) ==
             "session::open: memory: expected session::footprint(limits), " +
                 std::to_string(bytes) + " bytes, got " + std::to_string(bytes - 1));
  BOOST_TEST(refused(p, l, {}).starts_with("session::open: memory: expected session::footprint"));
  BOOST_TEST(refused(p, l, std::span(memory + 1, at(bytes))) ==
             "session::open: memory: expected memory that is declared alignas(linnet::alignment), "
             "got another address");
  ln::limits none = l;
  none.batch = 0;
  BOOST_TEST(refused(p, none, std::span(memory, at(bytes))).starts_with("session::open: limits"));
  auto moved = ln::pack(ln::weights<decoder>());
  const auto elsewhere = std::move(moved);
  BOOST_TEST(refused(moved, l, std::span(memory, at(bytes)))
                 .starts_with("weights: values: expected an object that was not moved from"));

  session s(p, l, std::span(memory, at(bytes)));
  BOOST_TEST(s.valid());
  BOOST_TEST(s.reset_and_prefill(tokens(1, decoder::vocabulary, 1)).size() ==
             at(decoder::vocabulary));
  for (const index b : {index{-1}, l.batch}) {
    BOOST_TEST(!s.truncate(0, b));
    BOOST_TEST(s.position(b) == 0);
    BOOST_TEST(s.fed(b).empty());
    BOOST_TEST(!s.fork(0, b));
  }
}

BOOST_AUTO_TEST_CASE(training_is_silent) {
  check_training<t5, float>(1);
  check_training<t5, float>(2);
  check_training<decoder, float>(1);
  check_training<decoder, float>(2);
  check_training<ln::rwkv4<tiny_decoder_shape>, float>(2);
  check_training<rwkv7, float>(2);
  check_training<mixture, float>(2);
  check_training<between_bytes, float>(2);
}

// Pairs of texts, whose vectors and cosines are planned.
BOOST_AUTO_TEST_CASE(contrastive_training_is_silent) {
  using M = ln::encoder<tiny_encoder_shape, ln::head::contrastive<>>;
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  check_footprint<ln::trainer<M>>(w, 5);
  const auto data = encoder_data<M>(6, 5);
  auto train = ln::trainer<M>::open(w, data.limits(2), {}, {.dropout = 0.1});
  const auto how = ln::contrastive_objective::open({.symmetric = true, .negatives = 1});
  BOOST_REQUIRE(static_cast<bool>(train));
  BOOST_REQUIRE(static_cast<bool>(how));
  check_silence("a step of pairs", [&] {
    (void)train->step(data.view(), *how);
    (void)train->evaluate(data.view());
  });
  BOOST_TEST(train->steps() == 4);
}

// Lessons allocate their footprint, and steps with them nothing.
BOOST_AUTO_TEST_CASE(distillation_is_silent) {
  using lessons = ln::distillation<t5, t5_int8, ln::packed<t5, double>>;
  constexpr ln::limits one{.batch = 3, .source = 13, .target = 9};
  static_assert(lessons::footprint(one) >
                ln::evaluator<t5_int8>::footprint(one) + ln::evaluator<t5, double>::footprint(one));
  ln::weights<t5> w;
  ln::initialize(w, ln::seed{1});
  const auto small = ln::pack(ln::quantize<ln::storage::int8>(ln::collapse(w)));
  ln::weights<t5, double> v;
  ln::initialize(v, ln::seed{2});
  const auto exact = ln::pack(v);
  const ln::limits l = limits_of<t5>(2);
  ln::parallel(2, {}, [](const ln::team&) {});
  std::optional<ln::result<lessons>> live;
  const heap_use use = heap_use_of([&] { live.emplace(lessons::open(small, exact, l)); });
  BOOST_REQUIRE(static_cast<bool>(*live));
  BOOST_TEST(use.calls == 1);
  BOOST_TEST(use.bytes == lessons::footprint(l));

  auto train = ln::trainer<t5>::open(w, l);
  const auto data = whole_batch<t5>();
  double sum = 0;
  const auto learn = [&](auto&& lesson) {
    check_silence("distillation", [&] {
      sum += train->step(data.view(), lesson);
      sum += train->accumulate(data.view(), lesson).nats;
      train->update();
    });
  };
  learn(**live);
#if __has_include(<xxhash.h>)
  const scratch_folder folder;
  const ln::cached_logits_format how{.vocabulary = t5::vocabulary, .k = 4};
  auto book = ln::cached_logits_writer::open(folder.path("teacher"), how, l);
  auto score = ln::evaluator<t5, double>::open(exact, l);
  (void)score->loss(data.view(), *book);
  LINNET_REQUIRE_OK(book->commit());
  const std::string file = contents(folder.path("teacher"));
  std::optional<ln::result<ln::cached_logits_reader<>>> read;
  const heap_use reading = heap_use_of(
      [&] { read.emplace(ln::cached_logits_reader<>::open(bytes(file), how, 0.1, l)); });
  LINNET_REQUIRE_OK(*read);
  BOOST_TEST(reading.calls == 1);
  BOOST_TEST(reading.bytes == ln::cached_logits_reader<>::footprint(how, l, 1));
  learn((*read)->batch(0));
#endif
  BOOST_TEST(sum > 0);
}

BOOST_AUTO_TEST_CASE(decoding_is_silent) {
  ln::weights<t5> w;
  ln::initialize(w, ln::seed{1});
  ln::weights<decoder> v;
  ln::initialize(v, ln::seed{1});
  const auto p = ln::pack(ln::quantize<ln::storage::int8>(ln::collapse(w)));
  const auto q = ln::pack(v);
  for (const int threads : {1, 2}) {
    check_decoding<t5_int8>(p, threads);
    check_decoding<decoder>(q, threads);
  }
  ln::weights<rwkv7> recurrent;
  ln::initialize(recurrent, ln::seed{1});
  const auto r = ln::pack(recurrent);
  check_decoding<rwkv7>(r, 2);
  ln::weights<mixture> routed;
  ln::initialize(routed, ln::seed{1});
  const auto m = ln::pack(routed);
  check_decoding<mixture>(m, 2);
  ln::weights<between_bytes> of_bytes;
  ln::initialize(of_bytes, ln::seed{1});
  const auto b = ln::pack(of_bytes);
  check_decoding<between_bytes>(b, 2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::footprint_test
