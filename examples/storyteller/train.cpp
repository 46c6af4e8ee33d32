// SPDX-License-Identifier: MIT
// Trains the model of the storyteller and rounds it to 4 bits:
//
//     train_storyteller STEPS FOLDER MARKED_TEXT [TEXT]
//
// MARKED_TEXT has a blank line between paragraphs and a lone newline between stories. Its last
// sixteenth is held out. TEXT has blank lines between both, and stories begin with "Once". Written
// to FOLDER are vocab.bpe, float.bin (llama2.c's format) and story.bin (packed, 4 bits). Where
// FOLDER has a float.bin, training goes on from it. With 0 STEPS it is rounded again, no more.

#include <linnet/compress/gptq.hpp>
#include <linnet/compress/quantize_by.hpp>
#include <linnet/data/text_source.hpp>
#include <linnet/data/window_stream.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/file/corpus.hpp>
#include <linnet/file/file.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/text/bpe_trainer.hpp>
#include <linnet/text/vocab_bpe.hpp>
#include <linnet/train/muon.hpp>
#include <linnet/train/trainer.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../support/number.hpp"
#include "model.hpp"

using namespace storyteller;

namespace {

/// The value of a result, or the end of the program in one line.
template <class T>
T must(ln::result<T> r) {
  if (!r) {
    std::fprintf(stderr, "train_storyteller: %s\n", r.error().message().c_str());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return *std::move(r);
}

/// A file with plain quotation marks and no carriage returns.
std::string plain_text(const std::string& path) {
  std::string text(must(ln::mapped_file::open(path)).text());
  constexpr std::pair<const char*, const char*> changes[] = {
      {"\r", ""}, {"\u2018", "'"}, {"\u2019", "'"}, {"\u201c", "\""}, {"\u201d", "\""}};
  for (const auto& [from, to] : changes)
    for (std::size_t at = 0; (at = text.find(from, at)) != text.npos;)
      text.replace(at, std::string_view(from).size(), to);
  return text;
}

/// Stories between lone newlines.
std::vector<std::string> marked_stories(const std::string& text) {
  std::vector<std::string> stories(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool alone = text[i] == '\n' && text[i ? i - 1 : 0] != '\n' &&
                       (i + 1 == text.size() || text[i + 1] != '\n');
    if (alone)
      stories.emplace_back();
    else
      stories.back() += text[i];
  }
  return stories;
}

/// Stories that begin with "Once"; what stands before the first is left out.
std::vector<std::string> unmarked_stories(const std::string& text) {
  std::vector<std::string> stories;
  constexpr std::string_view border = "\n\nOnce ";
  for (std::size_t at = text.find(border); at != text.npos;) {
    const std::size_t next = text.find(border, at + 1);
    stories.push_back(text.substr(at + 2, next == text.npos ? next : next - at - 2));
    at = next;
  }
  if (!stories.empty()) stories.pop_back();  // which the end of the file may cut
  return stories;
}

/// Bits of each byte of held-out stories.
template <class M>
double held_out_bits(const ln::weights<M>& w, ln::window_stream<>& text, ln::index bytes) {
  const auto packed = ln::pack(w);
  auto judge = must(ln::evaluator<M>::open(packed, {.batch = 1, .target = shape.context}));
  double nats = 0;
  for (ln::index i = 0; i < text.epoch(); ++i) nats += judge.loss(text.in_order(i)).nats;
  return ln::bits_per_byte(nats, bytes);
}

}  // namespace

int main(int count, char** arguments) {
  ln::index steps = 0;
  if ((count != 4 && count != 5) || !support::read_number(arguments[1], steps) || steps < 0) {
    std::fprintf(stderr, "usage: train_storyteller STEPS FOLDER MARKED_TEXT [TEXT]\n");
    return 2;
  }
  const std::string folder = std::string(arguments[2]) + '/';

  std::vector<std::string> learned = marked_stories(plain_text(arguments[3]));
  const auto kept = static_cast<std::ptrdiff_t>(learned.size() - learned.size() / 16);
  const std::vector<std::string> held_out(learned.begin() + kept, learned.end());
  learned.resize(static_cast<std::size_t>(kept));
  if (count == 5)
    for (std::string& story : unmarked_stories(plain_text(arguments[4])))
      learned.push_back(std::move(story));

  // The vocabulary: 256 bytes, merges, and the end of a story.
  const bool begins = !ln::read_file(folder + "float.bin");
  if (begins) {
    ln::bpe_trainer pieces;
    for (const std::string& story : learned) pieces.add(story);
    const std::string merges = must(pieces.train(shape.vocabulary - 257));
    must(ln::write_file(folder + "vocab.bpe", std::as_bytes(std::span(merges))));
  }
  const auto pieces = must(ln::read_vocab_bpe(folder + "vocab.bpe"));
  const auto encode = [&](const std::vector<std::string>& stories, ln::index& bytes) {
    std::vector<ln::token> all{end};
    bytes = 0;
    for (const std::string& story : stories) {
      pieces.encode(story, all);
      all.push_back(end);
      bytes += std::ssize(story) + 1;
    }
    return all;
  };
  ln::index bytes = 0, held_out_bytes = 0;
  const auto tokens = encode(learned, bytes), judged = encode(held_out, held_out_bytes);
  std::printf("%zu stories, %zu tokens, %lld bytes; held out %zu, %zu, %lld\n", learned.size(),
              tokens.size(), static_cast<long long>(bytes), held_out.size(), judged.size(),
              static_cast<long long>(held_out_bytes));

  constexpr ln::index rows = 5;
  constexpr ln::t5_ids no_ids{.vocabulary = shape.vocabulary, .sentinels = 0};
  auto text = must(ln::window_stream<>::open(ln::token_source(tokens, no_ids), rows, shape.context,
                                             ln::seed{1}));
  auto test = must(
      ln::window_stream<>::open(ln::token_source(judged, no_ids), 1, shape.context, ln::seed{1}));

  ln::weights<model> w;
  if (begins)
    ln::initialize(w, ln::seed{1});
  else
    must(ln::load_llama2c(w, folder + "float.bin"));
  if (steps > 0) {
    const auto rate = [&](double peak) {
      return ln::schedule::warmup_stable_decay(peak, steps / 50, steps, steps / 2);
    };
    auto trainer = must(ln::trainer<model, ln::muon>::open(
        w, {.batch = rows, .target = shape.context},
        {.rate = rate(0.02), .decay = 0.1, .others = {rate(4e-3), 0.9, 0.95, 1e-10, 0.01}}, {}));
    for (ln::index step = 1; step <= steps; ++step) {
      const auto first = static_cast<std::uint64_t>((step - 1) * rows);
      const double nats = trainer.step(text.batch(first));
      if (step % 20 != 0 && step != steps) continue;
      std::printf("step %lld: %.3f nats per token\n", static_cast<long long>(step), nats);
      std::fflush(stdout);
      must(ln::save_llama2c(w, folder + "float.bin"));
    }
  }

  // GPTQ, calibrated on texts that were learned.
  const auto some = [&](ln::index i) { return text.batch(static_cast<std::uint64_t>(i * rows)); };
  const auto sums =
      must(ln::calibrate(w, some, {.batch = rows, .target = shape.context}, {.batches = 8}));
  const auto small =
      must(ln::quantize<ln::storage::int4<32>>(w, sums, ln::gptq{.act_order = true, .clip = {}}));
  must(ln::save_packed(ln::pack(small), folder + "story.bin"));
  std::printf("held out: %.4f bits per byte, in 4 bits %.4f\n",
              held_out_bits(w, test, held_out_bytes), held_out_bits(small, test, held_out_bytes));
}
