// SPDX-License-Identifier: MIT
#include "compress_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <linnet/data/denoising_stream.hpp>
#include <linnet/data/text_source.hpp>

#include "support.hpp"

namespace zoo {

namespace {

/// Windows of a decoder. The last token of each predicts nothing.
class decoder_windows final : public text_windows {
 public:
  decoder_windows(std::vector<ln::token> tokens, const tokenizing& by, ln::index length)
      : tokens_(std::move(tokens)),
        decode_(by.decode),
        length_(length),
        labels_(static_cast<std::size_t>(length), ln::ignored) {}
  ln::index count() const override { return std::ssize(tokens_) / length_; }
  any_batch at(ln::index i) override {
    const auto window = std::span(tokens_).subspan(static_cast<std::size_t>(i * length_),
                                                   static_cast<std::size_t>(length_));
    std::copy(window.begin() + 1, window.end(), labels_.begin());
    return ln::decoder_batch{window.data(), labels_.data(), 1, length_};
  }
  double bytes(const any_batch& b) const override {
    const auto& batch = std::get<ln::decoder_batch>(b);
    double n = 0;
    for (ln::index t = 0; t + 1 < batch.length; ++t)
      n += static_cast<double>(decode_(batch.tokens[t], batch.labels[t]).size());
    return n;
  }
  ln::limits limits(int threads) const override {
    return {.batch = 1, .target = length_, .threads = threads};
  }

 private:
  std::vector<ln::token> tokens_;
  std::function<std::string(ln::token previous, ln::token id)> decode_;
  ln::index length_;
  std::vector<ln::token> labels_;
};

/// Windows of an encoder-decoder, with T5's span corruption.
class denoised_windows final : public text_windows {
  using stream = ln::denoising_stream<ln::token_source>;

 public:
  denoised_windows(std::vector<ln::token> tokens, const tokenizing& by, ln::index length)
      : tokens_(std::move(tokens)),
        decode_(by.decode),
        ids_(by.t5),
        stream_(take(stream::open(ln::token_source(tokens_, ids_), {},
                                  {.batch = 1, .source = length}, ln::seed{0}))) {}
  ln::index count() const override { return stream_.epoch(); }
  any_batch at(ln::index i) override { return stream_.batch(static_cast<std::uint64_t>(i)); }
  double bytes(const any_batch& b) const override {
    double n = 0;
    ln::token previous = -1;
    for (const ln::token id : labels_of(b)) {
      if (id <= ln::t5_ids::end || ids_.is_sentinel(id)) continue;
      n += static_cast<double>(decode_(previous, id).size());
      previous = id;
    }
    return n;
  }
  ln::limits limits(int threads) const override {
    return {.batch = 1,
            .source = stream_.planned().source,
            .target = stream_.planned().target,
            .threads = threads};
  }

 private:
  std::vector<ln::token> tokens_;
  std::function<std::string(ln::token previous, ln::token id)> decode_;
  ln::t5_ids ids_;
  stream stream_;
};

/// The lines of a text that are not blank, each a window of its own for an encoder.
class lines_of_text final : public text_windows {
 public:
  lines_of_text(std::string_view text, const tokenizing& by, ln::index length) : length_(length) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = text.substr(at, end - at);
      if (line.find_first_not_of(" \t\r") != line.npos)
        lines_.push_back(marked_text(by, line, length));
      at = end + 1;
    }
  }
  ln::index count() const override { return std::ssize(lines_); }
  any_batch at(ln::index i) override {
    const auto& line = lines_[static_cast<std::size_t>(i)];
    return ln::encoder_batch{.tokens = line.data(), .batch = 1, .length = std::ssize(line)};
  }
  double bytes(const any_batch&) const override { return 0; }
  ln::limits limits(int threads) const override {
    return {.batch = 1, .target = length_, .threads = threads};
  }

 private:
  std::vector<std::vector<ln::token>> lines_;
  ln::index length_;
};

}  // namespace

std::span<const ln::token> labels_of(const any_batch& b) {
  return std::visit(
      [](const auto& batch) {
        ln::index n = batch.batch;
        if constexpr (requires { batch.target_length; })
          n *= batch.target_length;
        else
          n *= batch.length;
        return std::span(batch.labels, static_cast<std::size_t>(n));
      },
      b);
}

std::unique_ptr<text_windows> open_windows(const std::string& option, const std::string& path,
                                           const tokenizing& by, const tokenizing_for& model,
                                           ln::index length) {
  if (model.embeds) {
    auto lines = std::make_unique<lines_of_text>(file_text(path), by, length);
    if (lines->count() == 0)
      throw failure(
          fmt::format("{}: {}: every line is blank; an encoder reads lines", option, path));
    return lines;
  }
  std::vector<ln::token> tokens = by.encode(file_text(path));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= model.vocabulary)
      throw failure(
          fmt::format("{}: {}: token {} is {}, outside the vocabulary of {}; give "
                      "the tokenizer of the model",
                      option, path, i, tokens[i], model.vocabulary));
  if (std::ssize(tokens) < length)
    throw failure(
        fmt::format("{}: {}: too short: {} tokens, but a window has {}; give more text or "
                    "a smaller --length",
                    option, path, tokens.size(), length));
  if (model.encodes) return std::make_unique<denoised_windows>(std::move(tokens), by, length);
  return std::make_unique<decoder_windows>(std::move(tokens), by, length);
}

}  // namespace zoo
