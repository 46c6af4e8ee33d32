// SPDX-License-Identifier: MIT
#include "tokenizing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <linnet/file/file.hpp>
#include <linnet/formats/gguf_tokenizer.hpp>
#include <linnet/text/bytes.hpp>
#include <linnet/text/hf_tokenizer.hpp>
#include <linnet/text/llama2c_tokenizer.hpp>

#include "support.hpp"

namespace zoo {

namespace {

/// Names that control tokens which end a text have, where no file says which these are.
constexpr std::string_view ends[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>"};

tokenizing of_bytes() {
  const ln::byte_tokenizer bytes{0};
  tokenizing t{.name = "bytes"};
  t.encode = [bytes](std::string_view text) { return bytes.encode(text); };
  t.decode = [bytes](ln::token previous, ln::token id) { return bytes.decode(previous, id); };
  t.before = '\n';  // no byte begins a text, but a line's end comes before one
  return t;
}

/// The tokens that begin a text stand before it, and end the one before: as llama2.c's run does.
tokenizing of_llama2c(const std::string& path, ln::index vocabulary) {
  const ln::file_bytes file = take(ln::read_file(path));
  const auto pieces = std::make_shared<const ln::llama2c_tokenizer>(
      take(ln::llama2c_tokenizer::parse(file, vocabulary, path)));
  tokenizing t{.name = path};
  t.encode = [pieces](std::string_view text) { return pieces->encode(text, false); };
  t.decode = [pieces](ln::token previous, ln::token id) {
    return std::string(pieces->decode(previous, id));
  };
  t.before = ln::llama2c_tokenizer::begin;
  t.opening = t.stops = {ln::llama2c_tokenizer::begin};
  return t;
}

tokenizing of_pieces(const std::string& path, ln::tokenizer&& made,
                     std::vector<ln::token> stops = {}) {
  tokenizing t{.name = path};
  t.pieces = std::make_shared<const ln::tokenizer>(std::move(made));
  t.stops = std::move(stops);
  for (const std::string_view name : ends)
    if (const ln::token id = t.pieces->find_added(name);
        id >= 0 && std::find(t.stops.begin(), t.stops.end(), id) == t.stops.end())
      t.stops.push_back(id);
  t.encode = [pieces = t.pieces](std::string_view text) { return pieces->encode(text); };
  t.decode = [pieces = t.pieces](ln::token previous, ln::token id) {
    return std::string(pieces->decode(previous, id));
  };
  const ln::token end = t.pieces->find_added("<|endoftext|>");
  t.before = end >= 0 ? end : t.stops.empty() ? 0 : t.stops.front();
  return t;
}

tokenizing of_gguf(const std::string& path) {
  const ln::gguf file = take(ln::read_gguf(path));
  tokenizing t = of_pieces(path, take(ln::make_tokenizer(file)), take(ln::gguf_stop_tokens(file)));
  if (const auto begins = file.get<bool>("tokenizer.ggml.add_bos_token"); begins && *begins)
    if (const auto id = file.get<ln::token>("tokenizer.ggml.bos_token_id"); id)
      t.opening = {t.before = *id};
  return t;
}

}  // namespace

tokenizing find_tokenizer(const std::string& given, const std::string& weights,
                          const runnable_preset& preset) {
  std::string path = given;
  if (path.empty() && weights.ends_with(".gguf")) path = weights;
  if (path.empty() && std::filesystem::exists(weights + "/tokenizer.json"))
    path = weights + "/tokenizer.json";
  if (path.empty() && preset.vocabulary == 256) return of_bytes();
  if (path.empty())
    throw failure(fmt::format("--tokenizer is required with --model {}", preset.name));
  if (!path.ends_with(".gguf") && !path.ends_with(".json"))
    return of_llama2c(path, preset.vocabulary);
  tokenizing t =
      path.ends_with(".gguf") ? of_gguf(path) : of_pieces(path, take(ln::read_hf_tokenizer(path)));
  if (t.pieces->vocabulary() > preset.vocabulary)
    throw failure(fmt::format("{}: {} tokens, but the vocabulary of {} is {}", path,
                              t.pieces->vocabulary(), preset.name, preset.vocabulary));
  return t;
}

}  // namespace zoo
