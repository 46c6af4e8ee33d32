// SPDX-License-Identifier: MIT
// LayerSkip: a byte-level decoder learns to answer after any layer, then its first layers draft
// what the others check, on one cache: the whole model's text in less time. Without arguments it
// learns a few sentences by heart; `early_exit TEXT STEPS` learns from a text file, keeping its end
// for the losses and the prompts, and compares with a model that was trained without exits.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

inline constexpr ln::decoder_shape shape{.d_model = 128,
                                         .d_ff = 384,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .layers = 8,
                                         .vocabulary = 256,
                                         .context = 256};
using Model = ln::decoder<shape>;
constexpr ln::index drafts = 4, written = 120;

/// A text as tokens: what is learned, and what is not shown.
struct reading {
  std::vector<ln::token> learned, held_out;
};

struct windows {
  std::vector<ln::token> tokens, labels;
  void add(const std::vector<ln::token>& text, ln::index at, ln::index length) {
    tokens.insert(tokens.end(), text.begin() + at, text.begin() + at + length);
    labels.insert(labels.end(), text.begin() + at + 1, text.begin() + at + length + 1);
  }
};

void learn(ln::weights<Model>& w, const reading& text, ln::index steps, ln::index rows,
           ln::index length, const ln::training_options& how) {
  const ln::adamw optimizer{.rate = ln::schedule::cosine(3e-3, steps / 10, steps, 3e-4)};
  auto train =
      ln::trainer<Model>::open(w, {.batch = rows, .target = length, .threads = 2}, optimizer, how);
  ln::random_stream random(ln::seed{11});
  const auto starts = static_cast<std::uint32_t>(std::ssize(text.learned) - length);
  for (ln::index step = 1; step <= steps; ++step) {
    windows batch;
    for (ln::index row = 0; row < rows; ++row)
      batch.add(text.learned, random.below(starts), length);
    const double loss = train->step({batch.tokens.data(), batch.labels.data(), rows, length});
    if (step % (std::max)(steps / 4, ln::index{1}) == 0)
      std::printf("  step %td: loss %.3f\n", step, loss);
  }
}

/// Bits per byte after each layer, over windows of text that was not shown.
std::array<double, shape.layers> bits_at_exits(const ln::packed<Model>& p, const reading& text,
                                               ln::index length) {
  auto judge = ln::evaluator<Model>::open(p, {.batch = 1, .target = length});
  std::array<ln::loss_sum, shape.layers> sums{}, one;
  for (ln::index at = 0; at + length < std::ssize(text.held_out); at += length) {
    windows w;
    w.add(text.held_out, at, length);
    judge->exit_losses({w.tokens.data(), w.labels.data(), 1, length}, one);
    for (std::size_t l = 0; l < sums.size(); ++l)
      sums[l].nats += one[l].nats, sums[l].tokens += one[l].tokens;
  }
  std::array<double, shape.layers> bits{};
  for (std::size_t l = 0; l < bits.size(); ++l)
    bits[l] = ln::bits_per_byte(sums[l].nats, sums[l].tokens);
  return bits;
}

/// Writes behind each prompt with the whole model and with its first `exit` layers as drafter.
/// False if the texts differ.
bool race(const ln::packed<Model>& p, const std::vector<std::vector<ln::token>>& prompts,
          ln::index exit) {
  const ln::limits limits{.target = shape.context, .max_logits = drafts + 1};
  auto plain = ln::session<Model>::open(p, limits), halves = ln::session<Model>::open(p, limits);
  auto skipping = ln::self_speculative<Model>::open(*halves, exit, drafts);
  const auto seconds_of = [](auto&& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::vector<double> ratios;
  ln::draft_counts all;
  for (const auto& prompt : prompts) {
    std::vector<ln::token> whole, drafted;
    const auto keep = [](std::vector<ln::token>& to) {
      return [&](ln::token t) { to.push_back(t); };
    };
    plain->reset();
    halves->reset();
    const double a = seconds_of(
        [&] { plain->generate(prompt, ln::greedy{}, keep(whole), {.tokens = written}); });
    const double b = seconds_of(
        [&] { skipping->generate(prompt, ln::greedy{}, keep(drafted), {.tokens = written}); });
    if (whole != drafted) return false;
    ratios.push_back(a / b);
    all.drafted += skipping->counts().drafted;
    all.accepted += skipping->counts().accepted;
  }
  std::sort(ratios.begin(), ratios.end());
  std::printf("  drafts after layer %td: %3.0f%% accepted, the same text in 1/%.2f of the time\n",
              exit, 100.0 * static_cast<double>(all.accepted) / static_cast<double>(all.drafted),
              ratios[ratios.size() / 2]);
  return true;
}

/// Learns and shows; 1 if speculation changes a text.
int show(const reading& text, ln::index steps, ln::index rows, ln::index length, bool exits) {
  std::printf("%s early exits\n", exits ? "with" : "without");
  ln::training_options how{.seed = 5};
  if (exits) how.early_exits = {.scale = 0.2}, how.layer_dropout = {.rate = 0.1, .steps = steps};
  ln::weights<Model> w;
  ln::initialize(w, ln::seed{3});
  learn(w, text, steps, rows, length, how);
  const auto packed = ln::pack(w);
  std::printf("  bits per byte after layer 1 to %td:", shape.layers);
  for (const double bits : bits_at_exits(packed, text, length)) std::printf(" %.2f", bits);
  std::printf("\n");
  std::vector<std::vector<ln::token>> prompts;
  for (ln::index i = 0; i < 15; ++i) {
    const auto at = text.held_out.begin() + i * (std::ssize(text.held_out) - 32) / 15;
    prompts.emplace_back(at, at + 32);
  }
  for (const ln::index exit : {1, 2, 3, 4})
    if (!race(packed, prompts, exit)) return std::puts("speculation changed a text"), 1;
  return 0;
}

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  reading text;
  if (count == 3) {
    const auto file = ln::read_file(arguments[1]);
    const long steps = std::strtol(arguments[2], nullptr, 10);
    if (!file) return std::fprintf(stderr, "%s\n", file.error().message().c_str()), 2;
    if (file->size() < 100'000 || steps < 1)
      return std::fprintf(stderr, "usage: early_exit [TEXT STEPS], with a TEXT of 100 kB\n"), 2;
    for (const std::byte b : std::span(file->data(), file->size()))
      text.learned.push_back(static_cast<unsigned char>(b));
    const auto end = text.learned.end() - 20'000;
    text.held_out.assign(end, text.learned.end());
    text.learned.erase(end, text.learned.end());
    for (const bool exits : {false, true})
      if (const int wrong = show(text, steps, 16, 128, exits)) return wrong;
    return std::ferror(stdout) != 0;
  }
  const std::string sentences =
      "The linnet is a small finch. It sings from the tops of bushes, eats the seeds of flax, and "
      "takes its name from linen. ";
  for (int i = 0; i < 20; ++i)
    for (const char c : sentences) text.learned.push_back(static_cast<unsigned char>(c));
  text.held_out = text.learned;
  return show(text, 60, 4, 64, true) != 0 || std::ferror(stdout) != 0;
}
