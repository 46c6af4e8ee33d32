// SPDX-License-Identifier: MIT
// Learning in memory of the caller's: an adapter, its trainer and a session take exactly what their
// footprints say, and nothing of the heap.

#include <string_view>

#include "support/heap.hpp"
#include "support/models.hpp"

namespace test::memory_scope_test {

namespace {
using decoder = ln::decoder<tiny_decoder_shape>;
using base_model = ln::quantized<decoder, ln::storage::int8>;
using adapter_model = ln::adapted<base_model, ln::lora<2, ln::target_modules<"q", "v">>>;
constexpr ln::limits limits{.target = 6, .recompute = true};
constexpr index needed = ln::weights<adapter_model>::bytes() +
                         ln::trainer<adapter_model>::footprint(limits) +
                         ln::session<base_model>::footprint(limits);
alignas(ln::alignment) std::byte memory[needed];
}  // namespace

BOOST_AUTO_TEST_SUITE(memory_scope)

BOOST_AUTO_TEST_CASE(learns_without_the_heap) {
  ln::weights<decoder> w;
  ln::initialize(w, ln::seed{1});
  const auto base = ln::pack(ln::quantize<ln::storage::int8>(w));
  const ln::token text[] = {1, 2, 3, 1, 2, 3, 1};
  double first = 0, last = 0;
  std::size_t blocks = 0, logits = 0;
  index left = -1;
  const heap_use use = heap_use_of([&] {
    ln::memory_scope scope(memory);
    auto adapter = ln::adapt<adapter_model::method>(base, {.alpha = 4});
    if (!adapter) return;
    auto train = ln::trainer<adapter_model>::open(*adapter, limits,
                                                  ln::adamw{.rate = ln::schedule::constant(3e-2)});
    auto session = ln::session<base_model>::open(base, limits);
    left = scope.left();
    if (!train || !session || !session->set_adapter(0, train->current())) return;
    for (int i = 0; i < 30; ++i) {
      last = train->step({text, text + 1, 1, 6});
      if (i == 0) first = last;
    }
    train->visit_state([&](std::string_view name, std::span<std::byte> block) {
      blocks += name.size() > 0 && block.data() >= memory && block.data() < memory + needed;
    });
    if (!train->resume(train->progress())) return;
    logits = session->feed({text, 1}).size();
  });
  BOOST_TEST(use.calls == 0);
  BOOST_TEST(left == 0);
  BOOST_TEST(blocks == 4u);  // weights, two moments, gradients
  BOOST_TEST(logits == at(decoder::vocabulary));
  BOOST_TEST(last < first - 0.02);
}

// Less memory is an error that says how much is missing, and no heap instead.
BOOST_AUTO_TEST_CASE(too_little_memory) {
  ln::weights<decoder> w;
  ln::initialize(w, ln::seed{1});
  const auto base = ln::pack(ln::quantize<ln::storage::int8>(w));
  ln::memory_scope scope{std::span(memory).first(at(needed - 64))};
  auto adapter = ln::adapt<adapter_model::method>(base);
  BOOST_REQUIRE(static_cast<bool>(adapter));
  auto train = ln::trainer<adapter_model>::open(*adapter, limits);
  BOOST_REQUIRE(static_cast<bool>(train));
  const auto session = ln::session<base_model>::open(base, limits);
  BOOST_TEST(!session);
  BOOST_TEST((session.error().code == ln::errc::out_of_memory));
}

// The stream of a path is that of its name.
BOOST_AUTO_TEST_CASE(stream_of_a_path) {
  int seen = 0;
  ln::each_tensor<decoder>([&](const ln::parameter_path& path, const ln::tensor_info&) {
    BOOST_TEST(ln::stream_of(path) == ln::stream_of(path.str()), path.str());
    ++seen;
  });
  BOOST_TEST(seen > 5);
  const ln::parameter_path root{}, model{&root, "m"};
  BOOST_TEST(((model / 12) / "weight").str() == "m.12.weight");
  BOOST_TEST((root / 3).str() == "3");
  BOOST_TEST(root.str().empty());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::memory_scope_test
