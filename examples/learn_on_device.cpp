// SPDX-License-Identifier: MIT
// Learning on a device: a frozen int8 model in memory that is only read learns a user's 10 kB of
// text through an adapter. Adapter, gradients, moments, activations and a session are in one static
// buffer of at most 256 KB; nothing else is allocated. It learns in slices of at most 100 ms, any
// number of them. After each an image of what was learned goes to one of two places of a region,
// by turns. So power may fail at any moment: the last whole image is there.
//
// Without arguments it makes up both texts. `learn_on_device BASE USER` reads them from ASCII
// files.

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <new>
#include <span>
#include <string>
#include <vector>

#include <linnet/linnet.hpp>

#include "support/two_images.hpp"
namespace ln = linnet;
using two_images::bytes_of, two_images::checksum, two_images::images, two_images::region;

// The base: 54,768 weights, 64 tokens of context. A token is a byte of ASCII.
inline constexpr ln::decoder_shape shape{.d_model = 48,
                                         .d_ff = 128,
                                         .heads = 4,
                                         .kv_heads = 1,
                                         .layers = 2,
                                         .vocabulary = 128,
                                         .context = 64};
using Plain = ln::decoder<shape>;
using Base = ln::quantized<Plain, ln::storage::int8>;
using Method = ln::lora<4, ln::target_modules<"q", "v">>;
using Adapter = ln::adapted<Base, Method>;

// What learns: a step is of four windows of 24 bytes. Recomputation keeps one layer's activations.
constexpr ln::index window = 24, windows = 4;
constexpr ln::limits learning{.target = window, .recompute = true};
constexpr ln::limits reading{.target = shape.context, .chunk = 1};
constexpr ln::index bytes = ln::weights<Adapter>::bytes() +
                            ln::trainer<Adapter>::footprint(learning) +
                            ln::session<Base>::footprint(reading);
static_assert(bytes <= 256 * 1024);
alignas(ln::alignment) static std::byte memory[bytes];
[[maybe_unused]] constexpr double slice_seconds = 0.1;
constexpr double step_seconds = 0.06;  // of a slice; the rest is for the images

static long allocations = 0;  // of objects; models allocate in `memory`, see device
void* operator new(std::size_t size) {
  ++allocations;
  if (void* const p = std::malloc(size)) return p;
  std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

/// All that learns, opened in `memory`. It cannot fail: the base was checked, the bytes are there.
struct device {
  ln::memory_scope within{memory};
  ln::result<ln::weights<Adapter>> adapter;
  ln::result<ln::trainer<Adapter>> train;
  ln::result<ln::session<Base>> session;

  explicit device(const ln::packed<Base>& base)
      : adapter(ln::adapt<Method>(base, {.alpha = 8})),
        train(ln::trainer<Adapter>::open(*adapter, learning,
                                         ln::adamw{.rate = ln::schedule::constant(1e-2)})),
        session(ln::session<Base>::open(base, reading)) {
    (void)session->set_adapter(0, train->current());
  }
  /// One step, on windows that follow from the number of steps.
  bool step(std::span<const ln::token> text) {
    for (ln::index i = 0; i < windows; ++i) {
      const ln::index number = train->steps() * windows + i;
      const ln::token* const at = text.data() + number * 7919 % (std::ssize(text) - window);
      if (train->accumulate({at, at + 1, 1, window}).tokens != window) return false;
    }
    train->update();
    return train->last_refusal().empty();
  }
  /// Bits per byte that the session predicts, in pieces of its context.
  double bits_per_byte(std::span<const ln::token> text) {
    double nats = 0;
    ln::index count = 0;
    for (std::size_t at = 0; at + 1 < text.size(); ++at, ++count) {
      if (count % shape.context == 0) session->reset();
      const auto logits = session->feed(text.subspan(at, 1));
      const double most = *std::ranges::max_element(logits);
      double sum = 0;
      for (const float x : logits) sum += std::exp(x - most);
      nats += most + std::log(sum) - logits[static_cast<std::size_t>(text[at + 1])];
    }
    return ln::bits_per_byte(nats, count);
  }
};

double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// Switches a device on, goes on where the last left off, learns as long as a slice lasts, and
/// switches it off. Returns the steps so far, or -1.
ln::index slice(const ln::packed<Base>& base, region& where, std::span<const ln::token> text) {
  const double begun = processor_seconds();
  device d(base);
  images kept(where, base.block());
  (void)kept.load(*d.train);
  do {
    if (!d.step(text)) return -1;
  } while (processor_seconds() - begun < step_seconds);
  return kept.save(*d.train) ? d.train->steps() : -1;
}

/// Cuts power at bytes of an image while it is written, damages bytes of the newest, and shortens
/// the region. False unless the last whole image is found each time.
bool survives(const ln::packed<Base>& base, region& where, const std::string& path,
              std::span<const ln::token> text) {
  device d(base);
  images kept(where, base.block());
  struct state {
    std::uint64_t number, sum;
    ln::index steps;
    bool operator==(const state&) const = default;
  };
  const auto now = [&] {
    return state{kept.newest(), checksum(d.adapter->block()), d.train->steps()};
  };
  const auto finds = [&](const state& last) { return kept.load(*d.train) && now() == last; };
  const auto next = [](long at) { return at < 64 ? at + 1 : at + 241; };  // the header's are all
  if (!kept.load(*d.train)) return false;
  const long size = images::image_bytes(*d.train);
  state last = now();
  for (long cut = 0; cut < size; cut = next(cut)) {
    if (!d.step(text)) return false;
    where.power = cut;
    const bool saved = kept.save(*d.train);
    where.power = LONG_MAX;
    if (saved || !finds(last)) return false;
  }
  state newest = last;
  do {  // until the newest is behind the other
    last = newest;
    if (!d.step(text) || !kept.save(*d.train)) return false;
    newest = now();
    if (newest == last || !finds(newest)) return false;
  } while (newest.number % 2 == 0);
  for (long at = size; at < 2 * size; at = size + next(at - size)) {
    std::byte whole{};
    if (!where.read(at, bytes_of(whole))) return false;
    std::byte bad = whole ^ std::byte{1};
    if (!where.write(at, bytes_of(bad)) || !finds(last)) return false;
    if (!where.write(at, bytes_of(whole)) || !finds(newest)) return false;
  }
  for (const long left : {2 * size - 1, size + 48, size, size - 1, 0L}) {
    std::filesystem::resize_file(path, static_cast<std::uintmax_t>(left));
    if (left >= size ? !finds(last) : kept.load(*d.train)) return false;
  }
  return true;
}

/// A text of made-up sentences, and tokens of a file.
std::vector<ln::token> sentences(const std::array<const char*, 18>& words, std::size_t size,
                                 ln::seed s) {
  ln::random_stream random(s);
  std::vector<ln::token> text;
  while (text.size() < size)
    for (std::uint32_t i = 0; i < 6; ++i) {  // the n-th word is one of three
      for (const char* c = words[3 * i + random.below(3)]; *c; ++c) text.push_back(*c);
      text.push_back(i < 5 ? ' ' : '\n');
    }
  text.resize(size);
  return text;
}
std::vector<ln::token> read_text(const char* path) {
  std::vector<ln::token> text;
  if (const auto file = ln::read_file(path))
    for (const std::byte b : file->bytes()) text.push_back(static_cast<ln::token>(b) % 128);
  return text;
}

/// At the factory: trains a base, rounds it to int8 and writes its panels to a file.
bool make_base(std::span<const ln::token> text, const std::string& path) {
  constexpr ln::index rows = 8, length = shape.context, steps = 300;
  ln::weights<Plain> w;
  ln::initialize(w, ln::seed{1});
  auto train =
      ln::trainer<Plain>::open(w, {.batch = rows, .target = length},
                               ln::adamw{.rate = ln::schedule::cosine(5e-3, steps / 10, steps)});
  ln::random_stream random(ln::seed{2});
  std::vector<ln::token> tokens(rows * length), labels(rows * length);
  for (ln::index step = 0; train && step < steps; ++step) {
    for (ln::index row = 0; row < rows; ++row) {
      const auto* at = &text[random.below(static_cast<std::uint32_t>(std::ssize(text) - length))];
      std::copy_n(at, length, &tokens[static_cast<std::size_t>(row * length)]);
      std::copy_n(at + 1, length, &labels[static_cast<std::size_t>(row * length)]);
    }
    (void)train->step({tokens.data(), labels.data(), rows, length});
  }
  return train && ln::save_packed(ln::pack(ln::quantize<ln::storage::int8>(w)), path);
}

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 4096);
  std::vector<ln::token> known, user;
  if (count == 3) {
    known = read_text(arguments[1]), user = read_text(arguments[2]);
  } else {
    known = sentences(
        {"the", "a", "every", "small", "old", "grey", "finch", "linnet", "wren", "sings", "feeds",
         "nests", "near the", "above the", "under the", "bush.", "hedge.", "field."},
        40'000, ln::seed{3});
    user = sentences(
        {"ask", "call", "tell", "Anna", "Jonas", "Mirja", "to mend", "to bring", "to paint", "our",
         "her", "this", "blue", "wooden", "heavy", "boat!", "door!", "chair!"},
        12'000, ln::seed{4});
  }
  if (known.size() < 1000 || user.size() < 12'000)
    return std::fprintf(stderr, "learn_on_device [BASE USER], texts of 1 and 12 kB or more\n"), 2;
  const auto learned = std::span(user).first(10'000),
             held_out = std::span(user).subspan(10'000, 2'000);

  const std::string folder = std::filesystem::temp_directory_path() / "linnet_device";
  const std::string base_path = folder + ".packed", images_path = folder + ".images";
  if (!make_base(known, base_path)) return 1;
  const auto base = ln::map_packed<Base>(base_path);  // pages that can only be read
  region where{std::fopen(images_path.c_str(), "w+b")};
  if (!base || !where.file) return 1;
  std::setvbuf(where.file, nullptr, _IONBF, 0);  // no buffer, so no allocation later

  // From here on, nothing is allocated.
  const long asked = allocations;
  double before = 0, after = 0, longest = 0;
  int slices = 0;
  {
    device d(*base);
    before = d.bits_per_byte(held_out);
  }
  for (ln::index steps = 0; steps < 300 && slices < 300; ++slices) {
    const double begun = processor_seconds();
    steps = slice(*base, where, learned);
    if (steps < 0) return 1;
    longest = (std::max)(longest, processor_seconds() - begun);
  }
  {
    device d(*base);
    if (!images(where, base->block()).load(*d.train)) return 1;
    after = d.bits_per_byte(held_out);
  }
  const long more = allocations - asked;
  // So far.

  const bool whole = survives(*base, where, images_path, learned);
  std::fclose(where.file);
  for (const std::string& path : {base_path, images_path}) std::filesystem::remove(path);
  std::printf("%td bytes of memory, %td of a base that is only read, %td numbers that learn\n",
              bytes, ln::packed<Base>::bytes(), Adapter::parameters());
  std::printf("%d slices, the longest of %.0f ms; %ld allocations\n", slices, 1000 * longest, more);
  std::printf("held-out bits per byte: %.3f before, %.3f after\n", before, after);
  std::printf("the last whole image is found after every cut: %s\n", whole ? "yes" : "NO");
#if defined(__OPTIMIZE__)
  const bool timely = longest <= slice_seconds;
#else
  const bool timely = longest > 0;  // as a step alone may take that long
#endif
  return timely && whole && more == 0 && after < before && std::fflush(stdout) == 0 ? 0 : 1;
}
