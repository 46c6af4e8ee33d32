// SPDX-License-Identifier: MIT
// Parts of a trained model: which heads and neurons are worth most within a budget of parameters.
// The first guess keeps the highest scores, evolution looks for better, and a refit mends what is
// left. Bits per byte are those of a text that none of them saw.
//
//     subnet_search [FOLDER [SEEDS]]
//
// FOLDER has stories260K/ and tinystories/, as LINNET_DATA has; a seed takes a minute or two.
// Without it a small decoder learns some sentences first, and loses parts in a second.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
#include <linnet/search.hpp>
namespace ln = linnet;

/// Windows of a text behind a token that begins them.
struct windows {
  std::vector<ln::token> inputs, labels;
  ln::index length = 0, count = 0;
  double bytes = 0;  ///< of all labels

  /// Batch number `i` of so many windows; empty behind the last.
  ln::decoder_batch batch(ln::index i, ln::index rows) const {
    const ln::index first = i * rows, n = std::min(rows, count - first);
    if (n <= 0) return {};
    return {inputs.data() + first * length, labels.data() + first * length, n, length};
  }
};
/// `count` windows, evenly spread over tokens of which token t has bytes_of(t) bytes.
template <class Bytes>
windows cut(const std::vector<ln::token>& text, ln::token begin, ln::index count, ln::index length,
            const Bytes& bytes_of) {
  windows w;
  w.length = length;
  w.count = count;
  const ln::index step = (std::ssize(text) - length) / count;
  for (ln::index i = 0; i < count; ++i) {
    const auto from = text.begin() + i * step;
    w.inputs.push_back(begin);
    w.inputs.insert(w.inputs.end(), from, from + length - 1);
    w.labels.insert(w.labels.end(), from, from + length);
  }
  for (const ln::token t : w.labels) w.bytes += static_cast<double>(bytes_of(t));
  return w;
}

/// A text in three parts: of scores and refits, of what evolution judges by, and of the table.
struct texts {
  windows calibration, judged, held_out;
};
struct how_long {
  ln::index generations, population;
  ln::index slack;  ///< percent of all parameters below the budget: a head or more
  int seeds;
};
constexpr ln::index rows = 8;

template <class M>
double bits_per_byte(const ln::weights<M>& w, const windows& text) {
  const auto packed = ln::pack(w);
  auto run = ln::evaluator<M>::open(packed, {.batch = rows, .target = text.length});
  if (!run) return std::nan("");
  double nats = 0;
  for (ln::index i = 0; i * rows < text.count; ++i) nats += run->loss(text.batch(i, rows)).nats;
  return nats / (std::log(2.0) * text.bytes);
}

/// What one search came to, in bits per byte of the text that is held out.
struct outcome {
  ln::index start_parameters = 0, parameters = 0, judged = 0;
  double start = 0, start_refitted = 0, evolved = 0, evolved_refitted = 0;
};

/// Prints one row for each budget and kind of scores; false where something is refused.
template <class M>
bool study(const ln::weights<M>& w, const texts& of, const how_long& how) {
  const ln::limits limits{.batch = rows, .target = of.calibration.length};
  const auto batches = [&](ln::index i) { return of.calibration.batch(i, rows); };
  const auto refused = [](const ln::error& why) {
    std::fprintf(stderr, "subnet_search: %s\n", why.message().c_str());
    return false;
  };
  const auto stats = ln::calibrate(w, batches, limits);
  if (!stats) return refused(stats.error());
  auto copy = w.clone();
  auto slopes = ln::trainer<M>::open(copy, limits);
  if (!slopes) return refused(slopes.error());
  for (ln::index i = 0; batches(i).batch > 0; ++i) (void)slopes->accumulate(batches(i));
  const struct {
    const char* name;
    ln::result<ln::importance<M>> of;
  } scores[] = {
      {"magnitude", ln::importance_of(w)},
      {"activation", ln::importance_of(w, *stats, ln::activation_score{})},
      {"Taylor", ln::importance_of(w, slopes->gradient(), ln::taylor_score{})},
  };
  std::printf("all %td parameters: %.4f bits per byte\n", M::parameters(),
              bits_per_byte(w, of.held_out));
  std::printf("%-7s %-11s %4s %9s %8s %8s %9s %8s %8s %7s\n", "budget", "scores", "seed", "start",
              "bits", "refitted", "evolved", "bits", "refitted", "judged");
  for (const ln::index percent : {90, 80})
    for (const auto& score : scores) {
      if (!score.of) return refused(score.of.error());
      for (int seed = 1; seed <= how.seeds; ++seed) {
        ln::subnet_options options{
            .parameters = M::parameters() * percent / 100,
            .least_parameters = M::parameters() * (percent - how.slack) / 100,
            .generations = how.generations,
            .population = how.population,
            .parents = how.population / 5,
            .mutations = how.population * 2 / 5,
            .crossovers = how.population / 4,
            .least_heads = 0.5,
            .least_neurons = 0.4,
            .seed = static_cast<std::uint64_t>(seed)};
        const auto judge = [&](const ln::weights<M>& part) {
          return bits_per_byte(part, of.judged);
        };
        const auto best = ln::evolve_subnet(w, *score.of, judge, options);
        options.generations = 0;
        const auto first = ln::evolve_subnet(w, *score.of, judge, options);
        if (!best) return refused(best.error());
        if (!first) return refused(first.error());
        const auto bits = [&](const ln::result<ln::weights<M>>& part) {
          return part ? bits_per_byte(*part, of.held_out) : std::nan("");
        };
        const outcome o{first->parameters,
                        best->parameters,
                        best->judged,
                        bits(ln::leave_out(w, first->kept)),
                        bits(ln::refit(w, first->kept, *stats)),
                        bits(ln::leave_out(w, best->kept)),
                        bits(ln::refit(w, best->kept, *stats))};
        std::printf("%5td %% %-11s %4d %9td %8.4f %8.4f %9td %8.4f %8.4f %7td\n", percent,
                    score.name, seed, o.start_parameters, o.start, o.start_refitted, o.parameters,
                    o.evolved, o.evolved_refitted, o.judged);
        std::fflush(stdout);
        for (const double b : {o.start, o.start_refitted, o.evolved, o.evolved_refitted})
          if (!ln::is_finite(b)) return std::fprintf(stderr, "subnet_search: a NaN\n"), false;
      }
    }
  return true;
}

/// stories260K on TinyStories.
bool of_stories(const std::string& folder, int seeds) {
  using M = ln::zoo::stories260k;
  ln::weights<M> w;
  const auto loaded = ln::load_llama2c(w, folder + "/stories260K/stories260K.bin");
  const auto tokenizer =
      ln::read_llama2c_tokenizer(folder + "/stories260K/tok512.bin", M::vocabulary);
  const auto train = ln::read_file(folder + "/tinystories/tiny_stories_train_head.txt");
  const auto valid = ln::read_file(folder + "/tinystories/tinystories_valid_slice.txt");
  if (!loaded || !tokenizer || !train || !valid) {
    const ln::error& why = !loaded      ? loaded.error()
                           : !tokenizer ? tokenizer.error()
                           : !train     ? train.error()
                                        : valid.error();
    return std::fprintf(stderr, "subnet_search: %s\n", why.message().c_str()), false;
  }
  const auto tokens = [&](const auto& file) {
    return tokenizer->encode({reinterpret_cast<const char*>(file.data()), file.size() / 2}, false);
  };
  const auto bytes = [&](ln::token t) { return std::ssize(tokenizer->decode(t, t)); };
  const auto seen = tokens(*train);
  const std::vector<ln::token> first(seen.begin(), seen.begin() + std::ssize(seen) / 2),
      second(seen.begin() + std::ssize(seen) / 2, seen.end());
  return study(w,
               {cut(first, 1, 64, 128, bytes), cut(second, 1, 16, 64, bytes),
                cut(tokens(*valid), 1, 64, 128, bytes)},
               {12, 30, 1, seeds});
}

/// A decoder of bytes that learns plain sentences.
bool of_sentences() {
  static constexpr ln::decoder_shape shape{.d_model = 32,
                                           .d_ff = 64,
                                           .heads = 4,
                                           .kv_heads = 4,
                                           .layers = 2,
                                           .vocabulary = 256,
                                           .context = 64};
  using M = ln::decoder<shape>;
  const char* const parts[][4] = {{"a linnet ", "the finch ", "a small bird ", "the old singer "},
                                  {"sings from ", "flies over ", "waits in ", "looks for "},
                                  {"the hedge. ", "a tall bush. ", "the garden. ", "a wall. "}};
  ln::random_stream random(ln::seed{1});
  std::vector<ln::token> text;
  while (text.size() < 60'000)
    for (const auto& part : parts)
      for (const char* c = part[random.below(4)]; *c != 0; ++c)
        text.push_back(static_cast<unsigned char>(*c));
  const auto bytes = [](ln::token) { return ln::index{1}; };
  const auto third = [&](ln::index i, ln::index count) {
    return cut({text.begin() + i * 20'000, text.begin() + (i + 1) * 20'000}, 0, count, 32, bytes);
  };
  const windows lessons = third(0, 512);
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<M>::open(w, {.batch = rows, .target = 32},
                                    ln::adamw{.rate = ln::schedule::cosine(1e-2, 10, 128)});
  if (!train) return false;
  for (ln::index step = 0; step < 128; ++step) (void)train->step(lessons.batch(step % 64, rows));
  return study(w, {third(0, 32), third(1, 8), third(2, 32)}, {3, 10, 5, 1});
}

int main(int count, char** argument) {
  const int seeds = count > 2 ? std::atoi(argument[2]) : 1;
  if (seeds < 1 || seeds > 100)
    return std::fprintf(stderr, "subnet_search [FOLDER [SEEDS]]: 1 to 100 seeds\n"), 2;
  const bool done = count > 1 ? of_stories(argument[1], seeds) : of_sentences();
  return !done || std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
}
