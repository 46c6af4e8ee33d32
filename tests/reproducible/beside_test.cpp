// SPDX-License-Identifier: MIT
// What works beside a reproducible model has the same bits at each instruction-set level, and with
// each compiler those of golden digests: adapters of a base in f32 and in W8A8, averages of
// weights, means over sequences and beam search.

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header

#include <array>

#include "support/test.hpp"

namespace test::beside_test {

namespace {

constexpr index vocabulary = 37, length = 19, rows = 3;
constexpr ln::decoder_shape shape{.d_model = 20,
                                  .d_ff = 36,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = vocabulary,
                                  .context = 32};
using model = ln::decoder<shape, ln::compute::reproducible, ln::bias::all, ln::norm::layer_norm>;
using rounded = ln::quantized<model, ln::storage::int8, ln::compute::int8>;

/// The second block's feed-forward.
struct last_ffn {
  static constexpr bool trains(const ln::parameter_path& at) {
    const ln::parameter_path* const layer = at.parent ? at.parent->parent : nullptr;
    return at.parent && at.parent->name == "up" && layer && layer->parent &&
           layer->parent->number == 1;
  }
  static constexpr std::string_view name() { return "last-ffn"; }
};

/// FNV-1a of bytes.
struct digest {
  std::uint64_t hash = 0xcbf29ce484222325ull;

  template <class T>
  void add(std::span<const T> all) {
    for (const std::byte b : std::as_bytes(all))
      hash = (hash ^ static_cast<std::uint64_t>(b)) * 0x100000001b3ull;
  }
  void add(double x) { add(std::span<const double>(&x, 1)); }
};

/// Texts, some labels of which do not count.
struct texts {
  std::vector<token> words = tokens(rows * length, vocabulary, 1),
                     labels = tokens(rows * length, vocabulary, 2);
  texts() {
    for (index i = 0; i < 9; ++i) labels[at(5 * i)] = ln::ignored;
  }
  ln::decoder_batch batch() const { return {words.data(), labels.data(), rows, length}; }
};

ln::limits limits_of(ln::simd::level level) {
  return {.batch = rows, .target = length, .level = level};
}

/// The digest of four losses and of the weights that they leave, and of their average.
template <class M, class... Objective>
std::uint64_t trained(ln::weights<M>& w, ln::simd::level level, const Objective&... objective) {
  digest d;
  const texts some;
  auto train = ln::trainer<M>::open(w, limits_of(level), {.rate = ln::schedule::constant(0.03)},
                                    {.clip = 0.3, .dropout = 0.1});
  auto average = ln::weight_average<M>::open({.keep = 0.7});
  BOOST_REQUIRE(train && average);
  for (index step = 1; step <= 4; ++step) {
    const double loss = train->step(some.batch(), objective...);
    BOOST_TEST(ln::is_finite(loss));
    d.add(loss);
    average->follow(w, step);
  }
  d.add(std::span<const std::byte>(w.block()));
  d.add(std::span<const std::byte>(average->block()));
  return d.hash;
}
/// The digest of the logits behind a text that a session reads with an adapter.
template <class M, class A>
void served(const ln::packed<M>& base, const ln::weights<A>& adapter, ln::simd::level level,
            digest& d) {
  const auto own = ln::pack(adapter);
  auto session = ln::session<M>::open(base, limits_of(level));
  BOOST_REQUIRE(session);
  BOOST_TEST(session->set_adapter(0, own));
  for (token t = 1; t < 9; ++t) {
    const auto logits = session->feed({&t, 1});
    BOOST_TEST(std::ssize(logits) == vocabulary);
    d.add(std::span<const float>(logits));
  }
}

/// The digest of an adapter of a base: of its training, and of sequences that it serves.
template <class Method, class M, class... Options>
std::uint64_t adapted(const ln::packed<M>& base, ln::simd::level level, const Options&... how) {
  using A = ln::adapted<M, Method>;
  auto adapter = ln::adapt<Method>(base, how...);
  BOOST_REQUIRE(adapter);
  digest d;
  d.hash = trained(*adapter, level);
  if constexpr (A::serves_sequences) served(base, *adapter, level, d);
  return d.hash;
}

/// Calls digest_of(level) for each level and compares what it returns with `golden`.
template <class F>
void check(const char* what, std::uint64_t golden, F&& digest_of) {
  for (const ln::simd::level level : levels()) {
    const std::uint64_t got = digest_of(level);
    BOOST_TEST(got == golden, what << " at " << ln::simd::name(level) << ": " << std::hex << got);
  }
}

/// Packed weights of seed 3 and numbers beside zero biases.
template <class M>
ln::packed<M> base_of() {
  ln::weights<model> w;
  ln::initialize(w, ln::seed{3});
  const std::vector<float> more = normal<float>(w.bytes() / 4, 4, 0.05);
  for (index i = 0; i < std::ssize(more); ++i) static_cast<float*>(w.data())[i] += more[at(i)];
  if constexpr (std::is_same_v<M, model>)
    return ln::pack(w);
  else
    return ln::pack(ln::quantize<ln::storage::int8, ln::compute::int8>(w));
}

}  // namespace

BOOST_AUTO_TEST_CASE(adapters_have_the_same_bits) {
  const auto base = base_of<rounded>();
  check("lora", 0xe75ac0ca5e39b857, [&](auto level) {
    return adapted<ln::lora<3>>(base, level, ln::lora_options{.alpha = 5, .dropout = 0.2});
  });
  check("bottleneck", 0x90138ee294e40291,
        [&](auto level) { return adapted<ln::bottleneck<5>>(base, level); });
  check("bitfit", 0x382f41d57428a428, [&](auto level) { return adapted<ln::bitfit>(base, level); });
  check("prompt", 0x361de684d32e1275,
        [&](auto level) { return adapted<ln::prompt_tuning<3>>(base, level); });
  check("prefix", 0x54a93ae5fcee529c,
        [&](auto level) { return adapted<ln::prefix_tuning<2>>(base, level); });
  const auto floats = base_of<model>();
  check("lora of f32", 0xb9ff3611904c94ea,
        [&](auto level) { return adapted<ln::lora<2>>(floats, level); });
  check("parts", 0x89f6783a6045c5f7,
        [&](auto level) { return adapted<ln::partial_tuning<last_ffn>>(floats, level); });
}

BOOST_AUTO_TEST_CASE(means_over_sequences_have_the_same_bits) {
  check("sequence_mean", 0xb1cbb25964e5fcbb, [](auto level) {
    ln::weights<model> w;
    ln::initialize(w, ln::seed{3});
    return trained(w, level, ln::sequence_mean<model>{});
  });
}

BOOST_AUTO_TEST_CASE(beams_have_the_same_bits) {
  const auto base = base_of<rounded>();
  check("beams", 0x407a62adc672f170, [&](auto level) {
    digest d;
    auto session = ln::session<rounded>::open(base, {.batch = 4, .target = 30, .level = level});
    BOOST_REQUIRE(session);
    auto search = ln::beam_search<rounded>::open(*session, {.width = 4, .alpha = 0.7});
    BOOST_REQUIRE(search);
    const std::array<token, 3> prompt{1, 2, 3};
    const auto found = (*search)(prompt, {.tokens = 30});
    BOOST_TEST(std::ssize(found) == 4);
    for (const ln::hypothesis& h : found) {
      d.add(h.tokens);
      d.add(h.log_probability);
      d.add(h.score);
    }
    return d.hash;
  });
}

BOOST_AUTO_TEST_CASE(contrasts_have_the_same_bits) {
  const auto expert = base_of<model>();
  const auto amateur = base_of<rounded>();
  check("contrast", 0xb8bc2c7494acd7aa, [&](auto level) {
    digest d;
    const ln::limits l{.target = 30, .level = level};
    auto run = ln::session<model>::open(expert, l);
    auto other = ln::session<rounded>::open(amateur, l);
    BOOST_REQUIRE(run && other);
    auto by = ln::contrast<rounded>::open(*other, {.weight = 0.37, .plausibility = 0.003});
    BOOST_REQUIRE(by);
    const std::array<token, 3> prompt{1, 2, 3};
    BOOST_TEST(by->reset_and_prefill(prompt));
    auto logits = run->reset_and_prefill(prompt);
    (*by)(logits, std::span<const token>(prompt));
    BOOST_TEST(std::ssize(logits) == vocabulary);
    d.add(std::span<const float>(logits));
    return d.hash;
  });
}

// An operation's time is no part of what it computes.
static_assert(ln::detail::is_reproducible<ln::profiled<model>>);

}  // namespace test::beside_test
