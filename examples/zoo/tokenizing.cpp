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
#include <linnet/text/vocab_bpe.hpp>
#ifdef ZOO_SENTENCEPIECE
#include <linnet/sentencepiece.hpp>
#endif

#include "support.hpp"
#include "trained.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

/// Names that control tokens which end a text have, where no file says which these are.
constexpr std::string_view ends[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>"};

/// Files that stand beside weights.
constexpr const char* kept_names[] = {"tokenizer.json", "vocab.bpe", "merges.txt", "spiece.model",
                                      "tokenizer.model"};

/// Marks a tokenizer as one in T5's order: 0 pads, 1 ends, sentinels are last.
void use_t5_ids(tokenizing& t, const ln::t5_ids& ids) {
  t.t5 = ids;
  t.before = ln::t5_ids::padding;
  t.stops = {ln::t5_ids::end};
}

/// Bytes alone, or behind ByT5's special ids, with sentinels.
tokenizing of_bytes(const tokenizing_for& model, bool t5) {
  const ln::byte_tokenizer bytes = !t5 ? ln::byte_tokenizer{0}
                                   : model.vocabulary > 259
                                       ? ln::byte_tokenizer::t5(model.vocabulary)
                                       : ln::byte_tokenizer::t5();
  tokenizing t{.name = t5 && !model.encodes ? "byt5" : "bytes"};
  t.vocabulary = bytes.vocabulary();
  t.encode = [bytes](std::string_view text) { return bytes.encode(text); };
  t.decode = [bytes](ln::token previous, ln::token id) { return bytes.decode(previous, id); };
  t.before = '\n';  // no byte begins a text, but a line's end comes before one
  if (t5) use_t5_ids(t, bytes.ids());
  return t;
}

/// The tokens that begin a text stand before it, and end the one before: as llama2.c's run does.
tokenizing of_llama2c(const std::string& path, ln::index vocabulary) {
  const ln::file_bytes file = take(ln::read_file(path));
  const auto pieces = std::make_shared<const ln::llama2c_tokenizer>(
      take(ln::llama2c_tokenizer::parse(file, vocabulary, path)));
  tokenizing t{.name = path, .kept_as = "tokenizer.bin", .vocabulary = vocabulary};
  t.encode = [pieces](std::string_view text) { return pieces->encode(text, false); };
  t.decode = [pieces](ln::token previous, ln::token id) {
    return std::string(pieces->decode(previous, id));
  };
  t.before = ln::llama2c_tokenizer::begin;
  t.opening = t.stops = {ln::llama2c_tokenizer::begin};
  return t;
}

/// GPT-2's, and those that zoo train learns.
tokenizing of_merges(const std::string& path, ln::bpe_tokenizer&& made) {
  const auto pieces = std::make_shared<const ln::bpe_tokenizer>(std::move(made));
  tokenizing t{.name = path, .kept_as = "vocab.bpe", .vocabulary = pieces->vocabulary()};
  t.encode = [pieces](std::string_view text) { return pieces->encode(text); };
  t.decode = [pieces](ln::token previous, ln::token id) {
    return std::string(pieces->decode(previous, id));
  };
  t.before = pieces->find_added("<|endoftext|>");
  t.stops = {t.before};
  return t;
}
tokenizing of_merges(const std::string& path) {
  return of_merges(path, take(ln::read_vocab_bpe(path)));
}

tokenizing of_pieces(const std::string& path, ln::tokenizer&& made,
                     std::vector<ln::token> stops = {}) {
  tokenizing t{.name = path, .kept_as = "tokenizer.json", .vocabulary = made.vocabulary()};
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
  ln::index sentinels = 0;
  while (t.pieces->find_added(fmt::format("<extra_id_{}>", sentinels)) ==
         t.vocabulary - 1 - sentinels)
    ++sentinels;
  if (sentinels > 0 && t.pieces->find("</s>") == ln::t5_ids::end)
    use_t5_ids(t, {t.vocabulary, sentinels});
  return t;
}

tokenizing of_gguf(const std::string& path) {
  const ln::gguf file = take(ln::read_gguf(path));
  tokenizing t = of_pieces(path, take(ln::make_tokenizer(file)), take(ln::gguf_stop_tokens(file)));
  t.kept_as = "tokenizer.gguf";
  if (const auto begins = file.get<bool>("tokenizer.ggml.add_bos_token"); begins && *begins)
    if (const auto id = file.get<ln::token>("tokenizer.ggml.bos_token_id"); id)
      t.opening = {t.before = *id};
  return t;
}

#ifdef ZOO_SENTENCEPIECE
/// T5's, with a hundred sentinels where an encoder-decoder reads it.
tokenizing of_sentencepiece(const std::string& path, bool encodes) {
  const auto pieces = std::make_shared<const ln::sentencepiece_tokenizer>(
      take(ln::sentencepiece_tokenizer::open(path, encodes ? 100 : 0)));
  tokenizing t{.name = path, .kept_as = "spiece.model", .vocabulary = pieces->vocabulary()};
  t.encode = [pieces](std::string_view text) { return pieces->encode(text); };
  t.decode = [pieces](ln::token previous, ln::token id) {
    // The library leaves the space before a text's first word out, so that word comes first.
    const std::string before = pieces->decode(std::vector<ln::token>{previous}),
                      both = pieces->decode(std::vector<ln::token>{previous, id});
    return both.starts_with(before) ? both.substr(before.size()) : both;
  };
  use_t5_ids(t, pieces->ids());
  t.before = ln::t5_ids::end;
  if (!encodes) t.t5 = {.vocabulary = 0, .sentinels = 0};
  return t;
}
#else
tokenizing of_sentencepiece(const std::string& path, bool) {
  throw failure(path +
                ": this zoo was built without the SentencePiece library (Debian: "
                "libsentencepiece-dev); a tokenizer.json of the same model needs none");
}
#endif

/// A folder's or a file's merges.
std::string merges_in(const std::string& path) {
  for (const char* const name : {"/vocab.bpe", "/merges.txt"})
    if (fs::is_regular_file(path + name)) return path + name;
  return path;
}

tokenizing read_any(const std::string& given, const tokenizing_for& model) {
  if (given == "bytes" || given == "byt5") return of_bytes(model, model.encodes || given == "byt5");
  for (const std::string_view kind : {"gpt2:", "sentencepiece:"})
    if (given.starts_with(kind)) {
      const std::string path = given.substr(kind.size());
      return kind == "gpt2:" ? of_merges(merges_in(path)) : of_sentencepiece(path, model.encodes);
    }
  if (!fs::exists(given))
    throw failure(
        given +
        ": no such tokenizer: give bytes, byt5, gpt2:DIR, sentencepiece:FILE, bpe:N (zoo train "
        "alone), or a tokenizer.json, GGUF file or llama2.c's tokenizer.bin");
  if (given.ends_with(".gguf")) return of_gguf(given);
  if (given.ends_with(".json")) return of_pieces(given, take(ln::read_hf_tokenizer(given)));
  if (given.ends_with(".bpe") || given.ends_with("merges.txt")) return of_merges(given);
  if (given.ends_with(".model")) return of_sentencepiece(given, model.encodes);
  if (model.vocabulary == 0)
    throw failure(given +
                  ": a llama2.c tokenizer does not say how many ids it has: give the model "
                  "a vocabulary");
  return of_llama2c(given, model.vocabulary);
}

/// Refuses a tokenizer that is not for the model.
tokenizing checked(tokenizing t, const tokenizing_for& model) {
  if (model.vocabulary > 0 && t.vocabulary > model.vocabulary)
    throw failure(fmt::format("{}: {} tokens, but the vocabulary of {} is {}", t.name, t.vocabulary,
                              model.model, model.vocabulary));
  if (model.encodes && !t.is_t5())
    throw failure(
        fmt::format("{}: {} is an encoder-decoder, which needs T5's ids: bytes, a "
                    "SentencePiece model, or the tokenizer.json of a T5",
                    t.name, model.model));
  return t;
}

}  // namespace

tokenizing read_tokenizer(const std::string& given, const tokenizing_for& model) {
  return checked(read_any(given, model), model);
}

tokenizing learned_tokenizer(std::string merges, const tokenizing_for& model) {
  tokenizing t = of_merges("vocab.bpe", take(ln::bpe_tokenizer::parse(merges)));
  t.learned = std::move(merges);
  return checked(std::move(t), model);
}

tokenizing find_tokenizer(const std::string& given, const std::string& weights,
                          const runnable_preset& preset) {
  std::string path = given;
  if (path.empty() && weights.ends_with(".gguf")) path = weights;
  if (path.empty() && is_trained(weights)) path = open_trained(weights).tokenizer_path();
  if (path.empty())
    for (const char* const name : kept_names)
      if (path.empty() && fs::exists(weights + "/" + name)) path = weights + "/" + name;
  if (path.empty() && preset.vocabulary == 256) path = "bytes";
  if (path.empty() && preset.encodes)
    throw failure(preset.name +
                  " needs a SentencePiece tokenizer: give --tokenizer spiece.model, or the "
                  "tokenizer.json of a T5");
  if (path.empty())
    throw failure(fmt::format("--tokenizer is required with --model {}", preset.name));
  return read_tokenizer(path, {preset.name, preset.encodes, preset.vocabulary});
}

std::vector<ln::token> marked_text(const tokenizing& by, std::string_view text, ln::index most) {
  const auto mark = [&](const char* name) {
    const ln::token id = by.pieces ? by.pieces->find(name) : -1;
    if (id < 0)
      throw failure(
          fmt::format("{}: no token {}; give the tokenizer.json of an encoder", by.name, name));
    return id;
  };
  std::vector<ln::token> ids{mark("[CLS]")};
  const std::vector<ln::token> words = by.encode(text);
  ids.insert(ids.end(), words.begin(), words.end());
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(most - 1)));
  ids.push_back(mark("[SEP]"));
  return ids;
}

}  // namespace zoo
