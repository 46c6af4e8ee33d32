// SPDX-License-Identifier: MIT
// A language model of bytes that a web page trains: what the page calls, compiled to WebAssembly by
// `build`. Nothing leaves the page.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <linnet/generate/samplers.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>

namespace ln = linnet;

namespace {

constexpr ln::decoder_shape shape{.d_model = 64,
                                  .d_ff = 160,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 256,
                                  .context = 96};
using model = ln::decoder<shape>;
constexpr ln::index rows = 8, length = shape.context;

/// All that the page has opened. The trainer changes the weights beside it.
struct state {
  ln::weights<model> weights;
  ln::result<ln::trainer<model>> train;
  ln::random_stream random{ln::seed{2}};

  state()
      : train(ln::trainer<model>::open((ln::initialize(weights, ln::seed{1}), weights),
                                       {.batch = rows, .target = length},
                                       {.rate = ln::schedule::cosine(4e-3, 20, 1000, 0.1)})) {}
};
std::unique_ptr<state> now;
std::vector<char> room;
std::vector<ln::token> text, labels(rows*length), inputs(rows*length);

}  // namespace

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

/// Room for a text, in which bytes are given and returned.
EXPORT(room) char* room_of(int size) {
  room.resize(static_cast<std::size_t>(size));
  return room.data();
}
/// Numbers that the model learns.
EXPORT(parameters) int parameters() { return static_cast<int>(model::parameters()); }

/// Begins anew, with the first `size` bytes of the room. 0 for a text that is too short, or too
/// little memory.
EXPORT(begin) int begin(int size) {
  if (size <= length || size > static_cast<int>(room.size())) return 0;
  text.clear();
  for (int i = 0; i < size; ++i)
    text.push_back(static_cast<unsigned char>(room[static_cast<std::size_t>(i)]));
  now = std::make_unique<state>();
  return now->train ? 1 : 0;
}

/// One step on random places of the text; bits per byte before it.
EXPORT(step) double step() {
  if (!now) return 0;
  const auto places = static_cast<std::uint32_t>(std::ssize(text) - length);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t first = now->random.below(places);
    for (std::size_t i = 0; i < length; ++i) {
      inputs[row * length + i] = text[first + i];
      labels[row * length + i] = text[first + i + 1];
    }
  }
  return now->train->step({inputs.data(), labels.data(), rows, length}) / 0.69314718055994531;
}

/// Goes on from the first `size` bytes of the room, 1 to 48. Returns the number of bytes that it
/// writes there, up to 48.
EXPORT(write) int write(int size, double temperature, int seed) {
  constexpr int most = length / 2;
  if (!now || size < 1 || size > most || size > static_cast<int>(room.size())) return 0;
  auto run = ln::session<model>::open(now->train->current(), {.target = length, .chunk = most});
  if (!run) return 0;
  std::vector<ln::token> prompt;
  for (int i = 0; i < size; ++i)
    prompt.push_back(static_cast<unsigned char>(room[static_cast<std::size_t>(i)]));
  room.clear();
  run->generate(prompt,
                ln::sampler({.temperature = temperature, .seed = static_cast<std::uint64_t>(seed)}),
                [](ln::token next) { room.push_back(static_cast<char>(next)); }, {.tokens = most});
  return static_cast<int>(room.size());
}
