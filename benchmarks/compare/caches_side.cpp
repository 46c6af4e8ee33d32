// SPDX-License-Identifier: MIT
// Bits per byte of a model that reads a text through each key-value cache, run by hand:
//
//   g++ -std=c++20 -O2 -fopenmp -Iinclude -Ibenchmarks/compare -I/usr/include/eigen3
//     benchmarks/compare/caches_side.cpp -o caches_side
//   caches_side SmolLM2.gguf wikitext2/test.txt wikitext2/valid.txt WINDOWS
//   caches_side stories260K.bin,tok512.bin valid.txt train.txt WINDOWS
//
// Windows of 512 tokens are evenly spread over the text, each alone. All but the first of a
// window's tokens are predicted. Scales of keys are from as many windows of the second text.

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/compress/calibrate_keys.hpp>
#include <linnet/eval/session_scorer.hpp>
#include <linnet/file/file.hpp>
#include <linnet/formats/gguf_tokenizer.hpp>
#include <linnet/formats/llama2c.hpp>
#include <linnet/generate/session.hpp>

#include "smollm2.hpp"

namespace {

namespace ln = linnet;
using ln::index;
using smollm2::take;

constexpr index length = 512, piece = 64;

/// Windows of a text, and the bytes that each one's predictions stand for.
struct windows {
  std::vector<std::vector<ln::token>> tokens;
  std::vector<double> bytes;
};

template <class Pieces>
windows read_windows(const std::string& path, const Pieces& pieces, index count) {
  const auto file = take(ln::read_file(path));
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  std::vector<ln::token> all;
  if constexpr (std::is_same_v<Pieces, ln::llama2c_tokenizer>)
    all = pieces.encode(text, false);
  else
    all = pieces.encode(text);
  windows w;
  const index room = std::ssize(all) / count;
  if (room < length) std::exit((std::fprintf(stderr, "%s is too short\n", path.c_str()), 2));
  for (index i = 0; i < count; ++i) {
    w.tokens.emplace_back(all.begin() + i * room, all.begin() + i * room + length);
    double bytes = 0;
    for (index j = 1; j < length; ++j) {
      const auto at = static_cast<std::size_t>(j);
      bytes +=
          static_cast<double>(pieces.decode(w.tokens.back()[at - 1], w.tokens.back()[at]).size());
    }
    w.bytes.push_back(bytes);
  }
  return w;
}

/// Bits of each window.
template <class M>
std::vector<double> bits_of(const ln::packed<M>& p, const windows& w) {
  auto run = take(ln::session<M>::open(p, {.target = length, .chunk = piece, .max_logits = piece}));
  std::vector<double> bits;
  for (const auto& tokens : w.tokens) {
    run.reset();
    double sum = 0;
    for (index from = 0; from < length; from += piece) {
      const auto logits =
          run.feed_all(std::span(tokens).subspan(static_cast<std::size_t>(from), piece));
      for (index j = 0; j < piece && from + j + 1 < length; ++j)
        sum -= ln::score_of(logits.subspan(static_cast<std::size_t>(j * M::vocabulary),
                                           static_cast<std::size_t>(M::vocabulary)),
                            tokens[static_cast<std::size_t>(from + j + 1)])
                   .log_probability;
    }
    bits.push_back(sum / std::log(2.0));
  }
  return bits;
}

/// One line: bits per byte, and the difference to `plain`, paired over windows, with two standard
/// errors.
void show(const char* name, const std::vector<double>& bits, const std::vector<double>& plain,
          const windows& w) {
  double sum = 0, bytes = 0, mean = 0, square = 0;
  const auto n = static_cast<double>(bits.size());
  for (std::size_t i = 0; i < bits.size(); ++i) {
    sum += bits[i], bytes += w.bytes[i];
    const double d = (bits[i] - plain[i]) / w.bytes[i];
    mean += d / n, square += d * d / n;
  }
  std::printf("%-24s %.4f  %+.4f +- %.4f\n", name, sum / bytes, mean,
              2 * std::sqrt((std::max)(square - mean * mean, 0.0) / (n - 1)));
  std::fflush(stdout);
}

template <class Model, class Load>
void compare(const Load& load, const windows& test, const windows& calibration) {
  std::vector<double> plain;
  const auto with = [&]<class Cache>(Cache, const char* name) {
    using M = typename Model::template with_cache<Cache>;
    ln::packed<M> p;
    {
      ln::weights<M> w;
      load(w);
      p = ln::pack(w);
    }
    if constexpr (Cache::calibrated) {
      const auto scales =
          take(ln::calibrate_keys(p,
                                  [&](index i) -> ln::decoder_batch {
                                    if (i >= std::ssize(calibration.tokens)) return {};
                                    const ln::token* const t =
                                        calibration.tokens[static_cast<std::size_t>(i)].data();
                                    return {t, t, 1, length};
                                  },
                                  {.target = length}));
      for (const float part : {1.0f, 0.8f}) {  // of what reaches the largest
        std::vector<float> some(scales.values().begin(), scales.values().end());
        for (float& x : some) x *= part;
        p.set_key_scales(take(ln::key_scales<M>::of(some)));
        char text[64];
        std::snprintf(text, sizeof text, "%s, scales * %.1f", name, static_cast<double>(part));
        show(text, bits_of(p, test), plain, test);
      }
    } else {
      const auto bits = bits_of(p, test);
      if (plain.empty()) plain = bits;
      show(name, bits, plain, test);
    }
  };
  with(ln::kv::exact{}, "exact");
  with(ln::kv::f16{}, "f16");
  with(ln::kv::bf16{}, "bf16");
  with(ln::kv::int4{}, "int4");
  with(ln::kv::channel_int4{}, "channel_int4");
  with(ln::kv::int8{}, "int8");
  with(ln::kv::channel_int8{}, "channel_int8");
}

}  // namespace

int main(int count, char** given) {
  if (count != 5) return std::fprintf(stderr, "caches_side MODEL TEXT CALIBRATION WINDOWS\n"), 2;
  const std::string model = given[1];
  const ln::index n = std::atoll(given[4]);
  if (const auto comma = model.find(','); comma != std::string::npos) {
    const std::string weights = model.substr(0, comma);
    const auto pieces = take(ln::read_llama2c_tokenizer(model.substr(comma + 1), 512));
    compare<ln::zoo::stories260k>([&](auto& w) { take(ln::load_llama2c(w, weights)); },
                                  read_windows(given[2], pieces, n),
                                  read_windows(given[3], pieces, n));
  } else {
    const ln::gguf file = take(ln::read_gguf(model));
    const auto pieces = take(ln::make_tokenizer(file));
    compare<smollm2::Model>([&](auto& w) { take(ln::load_gguf(w, file)); },
                            read_windows(given[2], pieces, n), read_windows(given[3], pieces, n));
  }
}
