// SPDX-License-Identifier: MIT
// A program for targets of 32 bits: a tiny decoder learns to count, is quantized, and counts. Then
// an adapter on the frozen codes learns, on the device, to count in steps of two. All models are in
// one static buffer. Where there is a heap, the first is collapsed, too: Eigen multiplies there.

#include <array>
#include <cstddef>
#include <span>

#include <linnet/adapt/adapt.hpp>
#include <linnet/compress/quantize.hpp>
#include <linnet/generate/samplers.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>

#if defined(BARE_METAL)
void say(const char* line);     // start.cpp has both
std::size_t bytes_from_heap();  // that malloc() asked for
#else
#include <cstdio>
#include <linnet/compress/collapse.hpp>
static void say(const char* line) { std::fputs(line, stdout); }
static std::size_t bytes_from_heap() { return 0; }
#endif

namespace ln = linnet;

namespace {

constexpr ln::decoder_shape numbers{.d_model = 24,
                                    .d_ff = 32,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .layers = 1,
                                    .vocabulary = 9,
                                    .context = 8};
#if defined(BARE_METAL)
using student = ln::decoder<numbers>;
using deployed = ln::quantized<student, ln::storage::int8>;
const ln::weights<student>& collapse(const ln::weights<student>& w) { return w; }
#else
using student = ln::decoder<numbers, ln::ffn::reparam<3, ln::expansion{2}>>;
using deployed = ln::quantized<ln::collapsed<student>, ln::storage::int8>;
using ln::collapse;
#endif
using method = ln::lora<4>;
using adapter = ln::adapted<deployed, method>;
constexpr ln::limits limits{.target = 8, .chunk = 1};
constexpr ln::adamw quick{.rate = ln::schedule::constant(1e-2)};

alignas(ln::alignment) std::byte memory[320 * 1024];
constexpr std::array<ln::token, 9> by_one{0, 1, 2, 3, 4, 5, 6, 7, 8},
    by_two{0, 2, 4, 6, 8, 1, 3, 5, 7};

/// Steps of a trainer on a sequence; the last loss.
template <class Trainer>
double learn(Trainer& train, const std::array<ln::token, 9>& sequence, int steps) {
  double loss = 0;
  for (int i = 0; i < steps; ++i)
    loss = train.step({.tokens = &sequence[0], .labels = &sequence[1], .batch = 1, .length = 8});
  return loss;
}

/// Whether a session goes on as a sequence does. Says what it wrote.
template <class Session>
bool writes(Session& run, const std::array<ln::token, 9>& sequence) {
  char line[] = "  . . . . . . . .\n";
  std::size_t n = 0;
  bool right = true;
  run.reset();
  run.generate(std::span(&sequence[0], 1), ln::greedy{}, [&](ln::token next) {
    if (n < 8) line[2 * ++n] = static_cast<char>('0' + next);
    right = right && n <= 8 && next == sequence[n];
  });
  say(line);
  return right && n == 8;
}

bool fails(const ln::error& why) {
  say((why.message() + '\n').c_str());
  return false;
}

bool learns() {
  const ln::memory_scope within(memory);
  ln::weights<student> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<student>::open(w, limits, quick);
  if (!train) return fails(train.error());
  if (!(learn(*train, by_one, 100) < 0.1)) return false;
  say("it learned to count\n");

  const auto base = ln::pack(ln::quantize<ln::storage::int8>(collapse(w)));
  auto run = ln::session<deployed>::open(base, limits);
  if (!run) return fails(run.error());
  if (!writes(*run, by_one)) return false;

  auto more = ln::adapt<method>(base, {.alpha = 8});
  if (!more) return fails(more.error());
  auto goes_on = ln::trainer<adapter>::open(*more, limits, quick);
  if (!goes_on) return fails(goes_on.error());
  if (!(learn(*goes_on, by_two, 200) < 0.1)) return false;
  say("it learned on the device\n");
  run->reset();
  if (!run->set_adapter(0, goes_on->current())) return false;
  return writes(*run, by_two);
}

}  // namespace

int main() {
  const bool right = learns() && bytes_from_heap() == 0;
  say(right ? "right\n" : "WRONG\n");
  return right ? 0 : 1;
}
