// SPDX-License-Identifier: MIT
// Trains models on images of handwritten digits: an encoder that names them, decoders that caption
// scenes of them, and a codebook that draws them again. The report shows images and captions.
//
//     digits FOLDER [REPORT.html]    of images that tools/digits.py wrote; three seeds, minutes
//     digits - [REPORT.html]         of drawn digits; one seed, a few steps
//
// Without arguments FOLDER is $LINNET_DATA/digits if that is there, else -.

#include <ctime>
#include <filesystem>

#include "support/digit_images.hpp"
#include "support/digits_report.hpp"

namespace {

namespace ln = linnet;
namespace di = digit_images;
using support::take;

/// Steps of a training, and images of each.
struct course {
  ln::index steps, rows;
};
struct scale {
  course classifying, captioning, causal, coding;
  int seeds;
};
// The causal decoder reads four times as many patches, so it has one seed alone.
constexpr scale real{{900, 32}, {1500, 32}, {1000, 32}, {1000, 32}, 3},
    trial{{20, 8}, {20, 8}, {20, 8}, {20, 8}, 1};

ln::adamw optimizer(ln::index steps) {
  return {.rate = ln::schedule::cosine(1.5e-3, steps / 20, steps, 1e-4)};
}

// --- an encoder that names digits ----------------------------------------------------------------

using Digit = ln::embedding::patches<8, 8, 1, 2>;
inline constexpr ln::encoder_shape reader{.d_model = 32,
                                          .d_ff = 64,
                                          .heads = 4,
                                          .layers = 2,
                                          .context = Digit::tokens,
                                          .types = 0,
                                          .eps = 1e-6};
using Classifier =
    ln::encoder<reader, Digit, ln::norm_placement::pre, ln::head::linear_classification<10>>;

/// The share of test digits that it names.
double classify(const di::digits& train, const di::digits& test, ln::seed seed, course c) {
  ln::weights<Classifier> w;
  ln::initialize(w, seed);
  auto trainer = take(ln::trainer<Classifier>::open(w, {.batch = c.rows, .threads = 1},
                                                    optimizer(c.steps), {.dropout = 0.1}));
  ln::random_stream random(seed);
  for (ln::index step = 0; step < c.steps; ++step) {
    di::digits some;
    for (ln::index i = 0; i < c.rows; ++i) {
      const ln::index at = random.below(static_cast<std::uint32_t>(train.size()));
      some.pixels.insert(some.pixels.end(), train.image(at), train.image(at + 1));
      some.labels.push_back(train.labels[static_cast<std::size_t>(at)]);
    }
    const double loss = trainer.step(
        ln::image_batch<Classifier>({some.image(0), 8, 8, 1}, c.rows, some.labels.data()));
    if (!ln::is_finite(loss)) throw support::failure("the classifier's loss is no number");
  }
  const auto packed = ln::pack(w);
  auto run = take(ln::evaluator<Classifier>::open(packed, {.batch = test.size(), .threads = 1}));
  std::vector<float> logits(test.labels.size() * 10);
  (void)run.loss(
      ln::image_batch<Classifier>({test.image(0), 8, 8, 1}, test.size(), test.labels.data()),
      logits);
  ln::index right = 0;
  for (std::size_t i = 0; i < test.labels.size(); ++i) {
    const auto at = logits.begin() + static_cast<std::ptrdiff_t>(i * 10);
    right += std::max_element(at, at + 10) - at == test.labels[i];
  }
  return static_cast<double>(right) / static_cast<double>(test.size());
}

// --- decoders that caption scenes ----------------------------------------------------------------

template <ln::index Patch>
using Scene = ln::embedding::patches<di::scene_side, di::scene_side, 1, Patch, false>;
template <ln::index Patch>
inline constexpr ln::encoder_shape eye{.d_model = 32,
                                       .d_ff = 64,
                                       .heads = 4,
                                       .layers = 2,
                                       .context = Scene<Patch>::tokens,
                                       .types = 0,
                                       .eps = 1e-6};
template <ln::index Patch>
using Eye = ln::encoder<eye<Patch>, ln::norm_placement::pre, Scene<Patch>, ln::head::none>;
inline constexpr ln::decoder_shape mouth{.d_model = 32,
                                         .d_ff = 64,
                                         .heads = 4,
                                         .kv_heads = 4,
                                         .layers = 2,
                                         .vocabulary = di::vocabulary,
                                         .context = 32};
using Text = ln::decoder<mouth>;
using Unshuffled = ln::image_text<Text, Eye<2>, ln::projector::mlp<2>>;  // as InternVL2
using Prefixed = ln::image_text<ln::decoder<mouth, ln::attention::prefix>, Eye<4>,
                                ln::projector::linear<>>;  // as PaliGemma

/// Scenes [first, first + n) as a batch; of texts alone it has no images.
template <class M>
typename M::batch batch_of(const di::scenes& s, ln::index n, ln::index first = 0) {
  typename M::batch b;
  b.tokens = s.inputs.data() + first * di::caption_length;
  b.labels = s.labels.data() + first * di::caption_length;
  b.batch = n;
  b.length = di::caption_length;
  if constexpr (M::image_tokens > 0) b.images = s.images(first);
  return b;
}

/// Writes captions of all images, token by token.
template <class M>
std::vector<ln::token> write(const ln::packed<M>& packed, const di::scenes& s) {
  auto run = take(ln::session<M>::open(packed, {.batch = s.size(), .target = 4, .threads = 1}));
  if constexpr (M::image_tokens > 0)
    if (!run.encode(s.images(), s.size())) throw support::failure(std::string(run.last_refusal()));
  std::vector<ln::token> last(static_cast<std::size_t>(s.size()), di::begin), all(s.labels.size());
  for (std::size_t t = 0; t < di::caption_length; ++t) {
    const auto logits = run.feed(last, s.size(), {});
    for (std::size_t i = 0; i < last.size(); ++i) {
      const auto at = logits.begin() + static_cast<std::ptrdiff_t>(i * di::vocabulary);
      last[i] = static_cast<ln::token>(std::max_element(at, at + di::vocabulary) - at);
      all[i * di::caption_length + t] = last[i];
    }
  }
  return all;
}

/// Trains on random scenes. With `shuffled`, each caption stands behind another scene's image.
template <class M>
report::captions caption(const di::digits& train, const di::scenes& test, ln::seed seed, course c,
                         bool shuffled = false) {
  ln::weights<M> w;
  ln::initialize(w, seed);
  auto trainer = take(ln::trainer<M>::open(
      w, {.batch = c.rows, .target = di::caption_length, .threads = 1}, optimizer(c.steps)));
  ln::random_stream random(seed);
  for (ln::index step = 0; step < c.steps; ++step) {
    di::scenes some = di::random_scenes(train, c.rows, random);
    if (shuffled) some.pixels = di::random_scenes(train, c.rows, random).pixels;
    if (!ln::is_finite(trainer.step(batch_of<M>(some, c.rows))))
      throw support::failure("the loss of captions is no number");
  }
  const auto packed = ln::pack(w);
  auto run = take(ln::evaluator<M>::open(
      packed, {.batch = test.size(), .target = di::caption_length, .threads = 1}));
  report::captions made{write<M>(packed, test)};
  const double count = static_cast<double>(test.size());
  made.nats = run.loss(batch_of<M>(test, test.size())).nats / count;
  if constexpr (M::image_tokens > 0) {
    di::scenes others = test;
    std::rotate(others.pixels.begin(), others.pixels.begin() + di::scene_side * di::scene_side,
                others.pixels.end());
    made.nats_of_others = run.loss(batch_of<M>(others, test.size())).nats / count;
  }
  for (std::size_t i = 0; i < test.labels.size(); i += di::caption_length) {
    const bool digit = made.tokens[i] == test.labels[i];
    const bool place =
        made.tokens[i + 1] == test.labels[i + 1] && made.tokens[i + 2] == test.labels[i + 2];
    made.digit += digit / count;
    made.place += place / count;
    made.both += (digit && place && made.tokens[i + 3] == di::end) / count;
  }
  return made;
}

// --- a codebook that draws scenes again ----------------------------------------------------------

inline constexpr ln::image_tokenizer_shape codes{.hidden = 64, .width = 8, .codes = 64};
using Tokenizer = ln::image_tokenizer<Scene<4>, codes>;

/// The test scenes as 16 codes each, and back.
std::vector<float> redraw(const di::digits& train, const di::scenes& test, course c) {
  ln::weights<Tokenizer> w;
  ln::initialize(w, ln::seed{1});
  auto trainer =
      take(ln::trainer<Tokenizer>::open(w, {.batch = c.rows, .threads = 1}, optimizer(c.steps)));
  ln::random_stream random(ln::seed{1});
  for (ln::index step = 0; step < c.steps; ++step) {
    const di::scenes some = di::random_scenes(train, c.rows, random);
    (void)trainer.step(ln::image_batch<Tokenizer>(some.images(), c.rows));
  }
  const auto packed = ln::pack(w);
  auto run = take(ln::image_codec<Tokenizer>::open(packed, {.batch = test.size(), .threads = 1}));
  const auto ids = run.encode(test.images(), test.size());
  const auto back = run.decode(std::vector<ln::token>(ids.begin(), ids.end()));
  return {back.begin(), back.end()};
}

void run(const std::string& folder, const std::string& out) {
  const bool drawn = folder == "-";
  const scale& s = drawn ? trial : real;
  const di::digits all = drawn ? di::drawn(200, ln::seed{7}) : di::read(folder);
  // The last ones in the file's order; a writer may be on both sides.
  const ln::index last = all.size() - (drawn ? 40 : all.size() * 5 / 18);
  const di::digits train = all.part(0, last), test = all.part(last, all.size());
  const di::scenes shown = di::each_once(test, ln::seed{9});
  report::results r{.train = train.size(), .test = test.size(), .drawn = drawn};
  const auto told = [](const char* what, int seed, const report::captions& made) {
    std::printf("seed %d: %s\n", seed, report::line(what, made).c_str());
    std::fflush(stdout);
    return made;
  };
  for (int i = 1; i <= s.seeds; ++i) {
    const ln::seed seed{static_cast<std::uint64_t>(i)};
    r.text.push_back(told("text alone", i, caption<Text>(train, shown, seed, s.captioning)));
    r.shuffled.push_back(
        told("others' images", i, caption<Prefixed>(train, shown, seed, s.captioning, true)));
    r.prefixed.push_back(told("prefix", i, caption<Prefixed>(train, shown, seed, s.captioning)));
  }
  for (int i = 1; i <= s.seeds; ++i) {
    r.classifier.push_back(
        classify(train, test, ln::seed{static_cast<std::uint64_t>(i)}, s.classifying));
    std::printf("seed %d: encoder %.1f %% right\n", i, 100 * r.classifier.back());
    std::fflush(stdout);
  }
  r.causal.push_back(told("causal", 1, caption<Unshuffled>(train, shown, ln::seed{1}, s.causal)));
  r.redrawn = redraw(train, shown, s.coding);
  std::printf("%s%s", report::error_of_codes(r, shown).c_str(), report::table(r).c_str());
  std::printf("%.1f minutes of processor time\n",
              static_cast<double>(std::clock()) / CLOCKS_PER_SEC / 60);
  const std::string page = report::html(r, shown);
  if (!out.empty()) take(ln::write_file(out, std::as_bytes(std::span(page))));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::string folder = argc > 1 ? argv[1] : support::variable("LINNET_DATA") + "/digits";
    if (argc < 2 && !std::filesystem::is_directory(folder)) folder = "-";
    run(folder, argc > 2 ? argv[2] : folder == "-" ? "" : "digits.html");
    return std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "digits: %s\n", e.what());
    return 2;
  }
}
