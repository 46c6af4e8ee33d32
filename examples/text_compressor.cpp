// SPDX-License-Identifier: MIT
// A lossless compressor whose model learns while it reads. Both ends begin with the same random
// weights, guess each byte, and take the same training steps on what they have seen. So no weights
// are sent. It works only where both ends compute the same bits: a model with
// compute::reproducible does, on any processor.
//
//     text_compressor pack FILE PACKED       text_compressor unpack PACKED FILE
//
// Without arguments it packs and unpacks a text of its own.

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header

#include <linnet/linnet.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace ln = linnet;
using ln::token;

constexpr ln::index context = 64;  // bytes that the model sees
constexpr ln::index together = 4;  // windows in a training step
using model = ln::decoder<ln::decoder_shape{.d_model = 48,
                                            .d_ff = 128,
                                            .heads = 4,
                                            .kv_heads = 2,
                                            .layers = 2,
                                            .vocabulary = 257,  // and the beginning of the text
                                            .context = context + 1},
                          ln::compute::reproducible>;
constexpr token beginning = 256;

// --- a range coder -------------------------------------------------------------------------------

/// Writes symbols that take [start, start + size) of `total` parts.
class range_encoder {
 public:
  void put(std::uint32_t start, std::uint32_t size, std::uint32_t total) {
    range_ /= total;
    low_ += std::uint64_t{start} * range_;
    range_ *= size;
    while (range_ < 1u << 24) {
      range_ <<= 8;
      shift();
    }
  }
  std::string finish() {
    for (int i = 0; i < 5; ++i) shift();
    return std::move(bytes_);
  }

 private:
  /// Moves a byte out. It waits while a carry may still reach it: behind a byte and some of 255.
  void shift() {
    if (low_ < 0xff000000u || low_ >> 32 != 0) {
      const auto carry = static_cast<unsigned>(low_ >> 32);
      if (begun_) bytes_ += static_cast<char>(waiting_ + carry);
      for (; full_ > 0; --full_) bytes_ += static_cast<char>(0xffu + carry);
      waiting_ = static_cast<unsigned>(low_ >> 24 & 0xff);
      begun_ = true;
    } else {
      ++full_;
    }
    low_ = (low_ & 0x00ffffff) << 8;
  }
  std::uint64_t low_ = 0;
  std::uint32_t range_ = 0xffffffff;
  unsigned waiting_ = 0;
  ln::index full_ = 0;
  bool begun_ = false;
  std::string bytes_;
};

/// Reads them again.
class range_decoder {
 public:
  explicit range_decoder(std::string_view bytes) : bytes_(bytes) {
    for (int i = 0; i < 4; ++i) code_ = code_ << 8 | next();
  }
  /// The part of `total` in which the next symbol lies; take() then skips that symbol.
  std::uint32_t part(std::uint32_t total) {
    range_ /= total;
    return std::min(code_ / range_, total - 1);
  }
  void take(std::uint32_t start, std::uint32_t size) {
    code_ -= start * range_;
    range_ *= size;
    for (; range_ < 1u << 24; range_ <<= 8) code_ = code_ << 8 | next();
  }

 private:
  std::uint32_t next() {
    return at_ < bytes_.size() ? static_cast<unsigned char>(bytes_[at_++]) : 0;
  }
  std::string_view bytes_;
  std::size_t at_ = 0;
  std::uint32_t code_ = 0, range_ = 0xffffffff;
};

// --- the model that learns -----------------------------------------------------------------------

/// Guesses the next byte of a text, and learns from the bytes that it is told.
class learner {
 public:
  learner() {
    ln::initialize(weights_, ln::seed{1});
    auto trainer = ln::trainer<model>::open(weights_, {.batch = together, .target = context},
                                            {.rate = ln::schedule::inverse_sqrt_linear(20, 0.03)},
                                            {.clip = 1});
    if (!trainer) std::abort();  // no memory
    trainer_.emplace(std::move(*trainer));
  }
  learner(const learner&) = delete;  // the trainer refers to the weights
  learner& operator=(const learner&) = delete;

  /// Shares of 0x10000 parts in which each byte lies, each at least one: shares[257], sums.
  const std::vector<std::uint32_t>& guess() {
    if (seen_ == 0) begin();
    std::copy(logits_.begin(), logits_.begin() + 256, guessed_.begin());
    choose_.probabilities(std::span(guessed_), std::span(order_), {}, std::span(likely_));
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < 256; ++i) {
      shares_[i] = sum;
      sum += 1 + static_cast<std::uint32_t>(likely_[i] * 0xff00);
    }
    shares_[256] = sum;
    return shares_;
  }
  /// Goes on behind a byte. After each half context it takes a step.
  void learn(unsigned char byte) {
    text_.push_back(byte);
    if (++seen_ == context / 2) {
      for (int i = 0; i < 3; ++i) step();
      seen_ = 0;
    } else {
      const token next[] = {byte};
      logits_ = session_->feed(next);
    }
  }

 private:
  /// Begins a stretch with weights as they are now: the session reads half a context again.
  void begin() {
    session_.reset();
    packed_.emplace(ln::pack(weights_));
    auto session = ln::session<model>::open(*packed_, {.target = context + 1});
    if (!session) std::abort();  // no memory
    session_.emplace(std::move(*session));
    const ln::index all = std::ssize(text_), some = std::min(all, context / 2 + 1);
    logits_ = session_->feed(std::span(text_).last(static_cast<std::size_t>(some)));
  }
  /// A training step on the newest window and others that are drawn from all before.
  void step() {
    const ln::index known = std::ssize(text_) - 1, length = std::min(known, context),
                    last = known - length;
    std::vector<token> inputs, labels;
    for (ln::index i = 0; i < together; ++i) {
      const ln::index from = i == 0 ? last : random_.below(static_cast<std::uint32_t>(last) + 1);
      const auto window = text_.begin() + from;
      inputs.insert(inputs.end(), window, window + length);
      labels.insert(labels.end(), window + 1, window + 1 + length);
    }
    (void)trainer_->step(
        {.tokens = inputs.data(), .labels = labels.data(), .batch = together, .length = length});
  }

  ln::weights<model> weights_;
  std::optional<ln::trainer<model>> trainer_;
  std::optional<ln::packed<model>> packed_;
  std::optional<ln::session<model>> session_;
  ln::sampler choose_{ln::sampling_options{}};
  ln::random_stream random_{ln::seed{2}};
  std::vector<token> text_{beginning};
  ln::index seen_ = 0;  // bytes since the last step
  std::span<float> logits_;
  std::vector<float> guessed_ = std::vector<float>(256);
  std::vector<token> order_ = std::vector<token>(256);
  std::vector<double> likely_ = std::vector<double>(256);
  std::vector<std::uint32_t> shares_ = std::vector<std::uint32_t>(257);
};

// --- files ---------------------------------------------------------------------------------------

/// Four bytes of a number, the lowest first.
std::string bytes_of(std::size_t number) {
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(number >> shift);
  return bytes;
}
/// FNV-1a of 32 bits.
std::uint32_t checksum(std::string_view text) {
  std::uint32_t hash = 0x811c9dc5u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193u;
  return hash;
}

/// The size of a text, its bytes and their checksum.
std::string pack(std::string_view text) {
  range_encoder out;
  learner guesser;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const auto& shares = guesser.guess();
    out.put(shares[byte], shares[byte + 1u] - shares[byte], shares[256]);
    guesser.learn(byte);
  }
  return bytes_of(text.size()) + out.finish() + bytes_of(checksum(text));
}

/// The text, or nothing if it is another than that which was packed.
std::optional<std::string> unpack(std::string_view packed) {
  if (packed.size() < 8) return {};
  std::size_t size = 0;
  for (std::size_t i = 0; i < 4; ++i)
    size |= std::size_t{static_cast<unsigned char>(packed[i])} << 8 * i;
  const std::string_view sum = packed.substr(packed.size() - 4);
  range_decoder in(packed.substr(4, packed.size() - 8));
  learner guesser;
  std::string text;
  while (text.size() < size) {
    const auto& shares = guesser.guess();
    const std::uint32_t part = in.part(shares[256]);
    const auto end = std::upper_bound(shares.begin(), shares.end(), part);
    const auto byte = static_cast<unsigned char>(end - shares.begin() - 1);
    in.take(shares[byte], shares[byte + 1u] - shares[byte]);
    text += static_cast<char>(byte);
    guesser.learn(byte);
  }
  if (bytes_of(checksum(text)) != sum) return {};
  return text;
}

int main(int count, char** arguments) {
  const std::string_view word = count > 1 ? arguments[1] : "";
  if (count != 1 && (count != 4 || (word != "pack" && word != "unpack"))) {
    std::fprintf(stderr, "usage: text_compressor [pack FILE PACKED | unpack PACKED FILE]\n");
    return 2;
  }
  if (count == 4) {
    std::ifstream from(arguments[2], std::ios::binary);
    const std::string read{std::istreambuf_iterator<char>(from), {}};
    if (!from || read.size() > 0xffffffffu) {
      std::fprintf(stderr, "text_compressor: cannot read %s\n", arguments[2]);
      return 1;
    }
    const std::optional<std::string> written = word == "pack" ? pack(read) : unpack(read);
    if (!written) {
      std::fprintf(stderr, "text_compressor: %s: damaged, or packed by another version\n",
                   arguments[2]);
      return 1;
    }
    std::ofstream to(arguments[3], std::ios::binary);
    to << *written << std::flush;
    return to ? 0 : 1;
  }
  std::string text;
  for (int i = 0; i < 12; ++i)
    text += "Verse " + std::to_string(i * i) + ": the linnet sings, and the linnet is small.\n";
  std::string packed = pack(text);
  std::printf("%zu bytes packed to %zu\n", text.size(), packed.size());
  if (unpack(packed) != text || packed.size() >= text.size() / 2) return 1;
  packed.back() = static_cast<char>(packed.back() ^ 1);
  return unpack(packed) ? 1 : 0;
}
