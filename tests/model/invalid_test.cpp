// SPDX-License-Identifier: MIT
// What has no values says so: weights that memory was not there for, that were not finite, or that
// were moved from, and all that is made of them. Nothing invalid refers to another object's memory.

#include "support/models.hpp"

namespace test::invalid_test {

namespace {

namespace storage = ln::storage;
namespace ffn = ln::ffn;

/// 2^53 bytes: more than any machine has addresses for.
constexpr ln::decoder_shape endless_shape{.d_model = 1 << 20,
                                          .d_ff = 1 << 20,
                                          .heads = 4,
                                          .kv_heads = 4,
                                          .layers = 2,
                                          .vocabulary = 1 << 30,
                                          .context = 8};
using endless = ln::decoder<endless_shape, ffn::reparam<2>>;
using endless_shared = ln::decoder<endless_shape, ln::sharing::repeat<2>>;
using decoder = ln::decoder<tiny_decoder_shape, ffn::reparam<2>>;

/// Not valid, without values, and with an error that begins like this.
template <class Block>
void check_invalid(const Block& b, ln::errc code, const std::string& begin) {
  BOOST_TEST(!b.valid());
  BOOST_TEST(b.data() == nullptr);
  BOOST_TEST(b.block().empty());
  BOOST_TEST((b.error().code == code));
  BOOST_TEST(b.error().message().starts_with(begin), b.error().message());
  b.visit([](const ln::parameter_path&, const ln::tensor_info&, const auto& leaf) {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      BOOST_TEST(leaf == nullptr);
    else if constexpr (requires { leaf.panels; })
      BOOST_TEST(leaf.panels == nullptr);
    else
      BOOST_TEST(leaf.data == nullptr);
  });
}

template <class Result>
void check_refused(const Result& r, ln::errc code, const std::string& begin) {
  BOOST_TEST_REQUIRE(!r);
  BOOST_TEST((r.error().code == code));
  BOOST_TEST(r.error().message().starts_with(begin), r.error().message());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(invalid)

// Weights that memory was not there for become nothing but themselves.
BOOST_AUTO_TEST_CASE(failed_allocations_stay_failed) {
  const auto none = [](const auto& block) {
    check_invalid(block, ln::errc::out_of_memory, "weights: memory: expected ");
  };
  ln::weights<endless> w;
  none(w);
  ln::initialize(w, ln::seed{1});
  none(w.clone());
  none(ln::pack(w));
  none(ln::unpack(ln::pack(w)));
  none(ln::collapse(w));
  none(ln::quantize<storage::int8>(w));
  none(ln::pack(ln::quantize<storage::int8>(ln::collapse(w))));
  none(ln::gradients<endless>());
  BOOST_TEST(ln::first_nonfinite(w) == "");
  const ln::weights<endless_shared> shared;
  none(ln::unshare(shared));
}
// A source that failed makes a failed copy, also where memory for the copy is there.
BOOST_AUTO_TEST_CASE(failed_sources_make_failed_copies) {
  ln::weights<decoder> w;
  randomize(w);
  w.fail({ln::errc::malformed, "model.bin", "embedding.weight", "numbers", "noise"});
  const auto named = [](const auto& block) {
    check_invalid(block, ln::errc::malformed, "model.bin: embedding.weight: expected numbers");
  };
  named(w);
  named(w.clone());
  named(ln::pack(w));
  named(ln::unpack(ln::pack(w)));
  named(ln::collapse(w));
  named(ln::unshare(w));
  const auto q = ln::quantize<storage::int4<8>>(ln::collapse(w));
  named(q);
  const auto p = ln::pack(q);
  named(p);
  const auto plain = ln::pack(w);
  check_refused(ln::session<decoder>::open(plain, {.target = 4}), ln::errc::malformed, "model.bin");
  check_refused(ln::evaluator<decoder>::open(plain, {.target = 4}), ln::errc::malformed,
                "model.bin");
  check_refused(ln::trainer<decoder>::open(w, {.target = 4}), ln::errc::malformed, "model.bin");
}

// quantize() names the first tensor with a NaN or an infinity, or a number that the storage cannot
// hold, whatever the storage; the other forms take such weights as they are.
BOOST_AUTO_TEST_CASE(quantize_refuses_what_is_not_finite) {
  ln::weights<decoder> w;
  randomize(w);
  const auto put = [&](std::uint32_t bits) {
    std::memcpy(w.tree().embedding.data + 13, &bits, sizeof bits);
  };
  const auto refused = [&]<class S>(S, const std::string& rule) {
    const auto q = ln::quantize<S>(w);
    check_invalid(q, ln::errc::invalid, "quantize: embedding.weight: expected " + rule);
    check_invalid(ln::pack(q), ln::errc::invalid, "quantize: embedding.weight");
    const auto p = ln::pack(q);
    check_refused(ln::session<ln::quantized<decoder, S>>::open(p, {.target = 4}), ln::errc::invalid,
                  "quantize: embedding.weight");
  };
  for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800000u, 0xff800000u}) {
    put(bits);
    refused(storage::int8{}, "finite numbers");
    refused(storage::bf16{}, "finite numbers");
    BOOST_TEST(!ln::quantize<storage::nf4>(w).valid());
    BOOST_TEST(!ln::quantize<storage::int4<8>>(w).valid());
    BOOST_TEST(!ln::quantize<storage::fp8_e4m3>(w).valid());
    BOOST_TEST(!ln::quantize<storage::fp8_e5m2>(w).valid());
    BOOST_TEST(!ln::quantize<storage::f16>(w).valid());
    BOOST_TEST(ln::pack(w).valid());
    BOOST_TEST(w.clone().valid());
  }
  put(0x7f7fffff);  // the largest float
  refused(storage::bf16{}, "numbers that storage::bf16 holds, got a larger one");
  BOOST_TEST(!ln::quantize<storage::f16>(w).valid());
  BOOST_TEST(ln::quantize<storage::int8>(w).valid());
  BOOST_TEST(ln::quantize<storage::fp8_e5m2>(w).valid());
  put(0);
  BOOST_TEST(ln::quantize<storage::f16>(w).valid());
}

// What was moved from is invalid, and refuses: it does not read or write what is now another's.
BOOST_AUTO_TEST_CASE(moved_from_objects) {
  ln::weights<decoder> first;
  randomize(first);
  ln::weights<decoder> w = std::move(first);
  check_invalid(first, ln::errc::invalid, "weights: values: expected an object that was not moved");
  check_invalid(ln::pack(first), ln::errc::invalid, "weights: values: expected");
  ln::packed<decoder> early = ln::pack(w), p;
  p = std::move(early);
  check_invalid(early, ln::errc::invalid, "weights: values: expected");
  BOOST_TEST(p.valid());
  BOOST_TEST(same_bytes(ln::unpack(p), w));

  const token prompt[] = {1, 2, 3};
  for (const index blocks : {0, 2}) {
    auto opened = ln::session<decoder>::open(p, {.target = 8, .kv_blocks = blocks});
    ln::session<decoder> from = *std::move(opened);
    (void)from.feed(prompt);
    ln::session<decoder> to = std::move(from);
    BOOST_TEST(!from.valid());
    BOOST_TEST(to.valid());
    BOOST_TEST(from.feed(prompt).empty());
    BOOST_TEST(from.position() == 0);
    BOOST_TEST(from.fed().empty());
    BOOST_TEST(!from.truncate(0));
    BOOST_TEST(!from.fork(0, 0));
    BOOST_TEST(from.free_blocks() == 0);
    from.reset();
    BOOST_TEST(from.generate(prompt, ln::greedy{}, [](token) {}) == 0);
    BOOST_TEST(to.position() == 3);
    const auto logits = to.feed({prompt, 1});
    BOOST_TEST_REQUIRE(!logits.empty());
    auto fresh = ln::session<decoder>::open(p, {.target = 8, .kv_blocks = blocks});
    (void)fresh->feed(prompt);
    BOOST_TEST(same_bits(logits, fresh->feed({prompt, 1})));
  }
  auto searched = ln::session<decoder>::open(p, {.batch = 2, .target = 8});
  auto search = ln::beam_search<decoder>::open(*searched, {.width = 2});
  ln::beam_search<decoder> other_search = *std::move(search);
  BOOST_TEST((*search)(prompt).empty());
  BOOST_TEST(!other_search(prompt).empty());

  const auto data = decoder_data<decoder>();
  auto evaluator = ln::evaluator<decoder>::open(p, data.limits());
  ln::evaluator<decoder> other = *std::move(evaluator);
  BOOST_TEST(!ln::is_finite(evaluator->loss(data.view()).nats));
  BOOST_TEST(ln::is_finite(other.loss(data.view()).nats));

  auto trainer = ln::trainer<decoder>::open(w, data.limits());
  ln::trainer<decoder> mine = *std::move(trainer);
  const auto before = w.clone();
  BOOST_TEST(!ln::is_finite(trainer->step(data.view())));
  BOOST_TEST(!ln::is_finite(trainer->accumulate(data.view()).nats));
  BOOST_TEST(!ln::is_finite(trainer->evaluate(data.view()).nats));
  BOOST_TEST(trainer->stopped());  // so that no checkpoint is made of it
  BOOST_TEST(trainer->last_refusal() == ln::to_string(ln::refusal::not_valid));
  BOOST_TEST(evaluator->last_refusal() == ln::to_string(ln::refusal::not_valid));
  trainer->update();
  trainer->refresh();
  BOOST_TEST(!trainer->gradient().valid());
  BOOST_TEST(same_bytes(w, before));
  BOOST_TEST(ln::is_finite(mine.step(data.view())));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::invalid_test
