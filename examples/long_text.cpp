// SPDX-License-Identifier: MIT
// Reading without end in memory that does not grow: a byte-level decoder learns from stretches of
// 64 bytes, then reads a text of 100,000 (or as many as the argument says) with attention sinks and
// with a sliding window. Full attention reads only the first few thousand: its memory grows.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

inline constexpr ln::index seen = 64;  // bytes that training shows at a time
inline constexpr ln::decoder_shape shape{.d_model = 64,
                                         .d_ff = 128,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .layers = 2,
                                         .vocabulary = 256,
                                         .context = seen};
using Full = ln::decoder<shape>;
using Sinks = ln::decoder<shape, ln::attention::sinks<4, 60>>;  // the first 4 and the last 60
using Window = ln::decoder<shape, ln::attention::sliding_window<seen>>;

// What attention keeps of a long text: the same numbers for any length, or more and more.
template <class M>
constexpr ln::index kept(ln::index tokens) {
  return shape.layers * M::attention::template layer<M::self>::state_values(tokens);
}
static_assert(kept<Sinks>(100'000) == kept<Sinks>(1'000'000'000));
static_assert(kept<Window>(100'000) == kept<Window>(1'000'000'000));
static_assert(kept<Full>(200'000) == 2 * kept<Full>(100'000));
// Kinds without parameters of their own share weights.
static_assert(ln::weights<Sinks>::bytes() == ln::weights<Full>::bytes());
static_assert(ln::weights<Window>::bytes() == ln::weights<Full>::bytes());

/// Plain sentences of which no two need be alike.
std::string prose(ln::index bytes, std::uint64_t seed) {
  static constexpr const char* who[] = {"a linnet", "the finch", "a small bird", "the old singer"};
  static constexpr const char* does[] = {"sings from", "flies over", "waits in", "looks for"};
  static constexpr const char* where[] = {"the hedge", "a tall bush", "the field of flax",
                                          "the garden", "a stone wall"};
  static constexpr const char* when[] = {" at dawn", " in the rain", " all day", ""};
  ln::random_stream random(ln::seed{seed}, ln::stream_of("prose"));
  const auto any = [&]<std::size_t n>(const char* const(&words)[n]) {
    return std::string(words[random.below(std::uint32_t{n})]);
  };
  std::string text;
  while (std::ssize(text) < bytes)
    text += any(who) + " " + any(does) + " " + any(where) + any(when) + ". ";
  text.resize(static_cast<std::size_t>(bytes));
  return text;
}
ln::token byte_of(const std::string& text, ln::index at) {
  return static_cast<unsigned char>(text[static_cast<std::size_t>(at)]);
}

void learn(ln::weights<Full>& w) {
  constexpr ln::index rows = 8;
  constexpr int steps = 250;
  const std::string text = prose(50'000, 1);
  const ln::adamw optimizer{.rate = ln::schedule::cosine(4e-3, 20, steps)};
  auto train = ln::trainer<Full>::open(w, {.batch = rows, .target = seen, .threads = 2}, optimizer);
  ln::random_stream random(ln::seed{11});
  std::vector<ln::token> tokens, labels;
  for (int step = 1; step <= steps; ++step) {
    tokens.clear();
    labels.clear();
    for (ln::index row = 0; row < rows; ++row) {
      const ln::index at = random.below(static_cast<std::uint32_t>(std::ssize(text) - seen));
      for (ln::index t = at; t < at + seen; ++t) {
        tokens.push_back(byte_of(text, t));
        labels.push_back(byte_of(text, t + 1));
      }
    }
    const double loss = train->step({tokens.data(), labels.data(), rows, seen});
    if (step % 50 == 0)
      std::printf("step %3d  %.3f bits per byte\n", step, ln::bits_per_byte(loss, 1));
  }
}

/// Reads one text piece by piece.
template <class M>
class reader {
 public:
  static constexpr ln::index piece = 16;
  static constexpr ln::limits limits(ln::index bytes) {
    return {.target = bytes, .chunk = piece, .max_logits = piece};
  }
  /// Bytes of a session for so long a text, known without opening one.
  static constexpr ln::index footprint(ln::index bytes) {
    return ln::session<M>::footprint(limits(bytes));
  }

  reader(const ln::weights<Full>& w, const std::string& text, ln::index most)
      : text_(text), most_(std::min(most, std::ssize(text) - 1)) {
    ln::weights<M> same;
    std::memcpy(same.data(), w.data(), static_cast<std::size_t>(w.bytes()));
    packed_ = ln::pack(same);
  }

  /// Reads on up to byte `end`; bits per byte of what is new, or -1 behind the end.
  double read_to(ln::index end) {
    if (end > most_) return -1;
    if (!session_)
      session_.emplace(std::move(ln::session<M>::open(packed_, limits(most_))).value());
    double nats = 0;
    const ln::index start = session_->position();
    for (ln::index at = start; at < end; at = session_->position()) {
      ln::token tokens[piece];
      const ln::index n = std::min(piece, end - at);
      for (ln::index i = 0; i < n; ++i) tokens[i] = byte_of(text_, at + i);
      const auto logits = session_->feed_all({tokens, static_cast<std::size_t>(n)});
      for (ln::index i = 0; i < n; ++i) {
        const float* const x = logits.data() + i * M::vocabulary;
        const float top = *std::max_element(x, x + M::vocabulary);
        double sum = 0;
        for (ln::index j = 0; j < M::vocabulary; ++j) sum += std::exp(x[j] - top);
        nats += std::log(sum) + top - x[byte_of(text_, at + i + 1)];
      }
    }
    return ln::bits_per_byte(nats, end - start);
  }

 private:
  const std::string& text_;
  ln::index most_;
  ln::packed<M> packed_;
  std::optional<ln::session<M>> session_;
};

void print_row(ln::index bytes, const double (&bits)[3]) {
  std::printf("%9td", bytes);
  for (const double b : bits) b < 0 ? std::printf("%14s", "-") : std::printf("%14.3f", b);
  std::putchar('\n');
}

int main(int count, char** argument) {
  const ln::index bytes = count > 1 ? std::atol(argument[1]) : 100'000;
  if (bytes < 1024 || bytes > 100'000'000)
    return std::fprintf(stderr, "long_text [BYTES]: from 1024 to 100000000\n"), 2;

  ln::weights<Full> w;
  ln::initialize(w, ln::seed{3});
  learn(w);

  constexpr ln::index full_reads = 4096;
  const std::string text = prose(bytes + 1, 2);  // other sentences than those of the training
  reader<Sinks> sinks(w, text, bytes);
  reader<Window> window(w, text, bytes);
  reader<Full> full(w, text, full_reads);
  std::printf("\nbits per byte since the row before\n%9s%14s%14s%14s\n", "position", "sinks<4, 60>",
              "window<64>", "full");
  for (ln::index at = 1024;; at = std::min(2 * at, bytes)) {
    const double bits[] = {sinks.read_to(at), window.read_to(at), full.read_to(at)};
    print_row(at, bits);
    for (const double b : bits)
      if (!ln::is_finite(b)) return std::fprintf(stderr, "not finite\n"), 1;
    if (at == bytes) break;
  }

  std::printf("\nkilobytes of a session, and of its keys and values alone\n");
  for (const ln::index n : {full_reads, bytes, 10 * bytes}) {
    const auto kilo = [](ln::index x) { return static_cast<double>(x) / 1e3; };
    std::printf("%9td%14.0f%14.0f%14.0f\n", n, kilo(reader<Sinks>::footprint(n)),
                kilo(reader<Window>::footprint(n)), kilo(reader<Full>::footprint(n)));
    std::printf("%9s%14.0f%14.0f%14.0f\n", "", kilo(4 * kept<Sinks>(n)), kilo(4 * kept<Window>(n)),
                kilo(4 * kept<Full>(n)));
  }
  std::printf("A session also keeps the tokens it was fed, 4 bytes each.\n");
  return std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
}
