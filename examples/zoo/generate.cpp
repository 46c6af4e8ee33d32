// SPDX-License-Identifier: MIT
// zoo generate: lets a model continue a text, as llama2.c's run does.

#include <fmt/format.h>

#include <cstdio>
#include <linnet/file/file.hpp>
#include <linnet/text/llama2c_tokenizer.hpp>
#include <linnet/text/stream.hpp>
#include <utility>

#include "byte_models.hpp"
#include "commands.hpp"
#include "course.hpp"
#include "running.hpp"
#include "support.hpp"

namespace zoo {

namespace {

/// The length of the text asked for, prompt included, which must fit the model's context.
ln::index length_of_text(long asked, ln::index context) {
  if (asked > context)
    throw failure(
        fmt::format("--tokens: {} is more than the model's context of {}", asked, context));
  return asked > 0 ? asked : context;
}

/// Refuses a prompt of more tokens than there is room for.
void check_prompt(ln::index tokens, ln::index room, const char* of) {
  if (tokens > room)
    throw failure(fmt::format("--prompt: {} tokens, but {} is {}", tokens, of, room));
}

void print_figures(ln::index read, ln::index written, double seconds) {
  const auto total = static_cast<double>(read + written);
  say("prompt {} tokens, new {} tokens, {:.2f} s, {:.1f} tokens/s\n", read, written, seconds,
      seconds > 0 ? total / seconds : 0.0);
}

ln::sampling_options sampling_of(const generate_options& o) {
  return {.temperature = o.temperature,
          .top_k = o.top_k,
          .top_p = o.top_p,
          .min_p = o.min_p,
          .repetition_penalty = o.repetition_penalty,
          .seed = o.seed};
}

/// Lets the model write up to `most` tokens, to the token `last`, which is not shown, or to a stop
/// string. `piece(id)` are the bytes of a token. Returns the number of tokens.
template <class Piece>
ln::index write_text(running& model, std::span<const ln::token> prompt, ln::index most,
                     ln::token last, const generate_options& o, Piece&& piece) {
  if (most <= 0) return 0;
  ln::text_stream text(o.stop);
  ln::index written = 0;
  const auto show = [&](ln::token id) {
    if (id == last) return false;
    ++written;
    return text.push(piece(id), put_text);
  };
  if (o.beams > 1) {
    const ln::beam_options how{.width = o.beams, .alpha = o.alpha};
    for (const ln::token id : model.search(prompt, how, {.tokens = most, .stop = {&last, 1}}))
      if (!show(id)) break;
  } else {
    generate(model, prompt, most, sampling_of(o), show);
  }
  text.flush(put_text);
  return written;
}

/// A preset with llama2.c's tokenizer: begins with the begin token, which is not counted, and ends
/// where the model begins a new text.
void generate_preset(const generate_options& o) {
  const runnable_preset preset = find_runnable(o.model);
  if (preset.encodes)
    throw failure(o.model +
                  " needs a SentencePiece tokenizer, which zoo cannot read: see zoo logits");
  if (o.tokenizer.empty()) throw failure("--tokenizer is required with --model " + o.model);
  const ln::file_bytes file = take(ln::read_file(o.tokenizer));
  const auto tokenizer = take(ln::llama2c_tokenizer::parse(file, preset.vocabulary, o.tokenizer));
  const ln::index all = length_of_text(o.tokens, preset.context);
  const std::vector<ln::token> prompt = tokenizer.encode(o.prompt);
  const ln::index asked = std::ssize(prompt) - 1;  // without the begin token
  check_prompt(asked, all, o.tokens > 0 ? "--tokens" : "the model's context");
  const auto model =
      preset.open(o.weights, {.batch = o.beams, .target = all, .threads = o.threads});

  ln::token previous = prompt.front();
  const auto piece = [&](ln::token id) {
    return tokenizer.decode(std::exchange(previous, id), id);
  };
  const double start = now();
  ln::text_stream shown;
  for (const ln::token id : std::span(prompt).subspan(1)) shown.push(piece(id), put_text);
  shown.flush(put_text);
  const ln::index written =
      write_text(*model, prompt, all - asked, ln::llama2c_tokenizer::begin, o, piece);
  put_text("\n");
  print_figures(asked, written, now() - start);
}

/// A byte-level model: a decoder continues the prompt, a T5 answers with what follows it.
void generate_bytes(const generate_options& o) {
  const auto learned = load_learner(o.weights, o.model);
  const reading how = learned->how_to_read();
  const ln::index all = length_of_text(o.tokens, how.target);

  std::vector<ln::token> prompt;
  for (const char c : o.prompt) prompt.push_back(static_cast<unsigned char>(c) + how.offset);
  if (how.encodes)
    prompt.push_back(1);
  else if (prompt.empty())
    prompt.push_back('\n');  // it has to begin somewhere
  if (how.encodes)
    check_prompt(std::ssize(prompt), how.source, "the model's source");
  else
    check_prompt(std::ssize(prompt), all, o.tokens > 0 ? "--tokens" : "the model's context");

  const auto model = learned->deploy(form::collapsed)
                         ->open({.batch = o.beams,
                                 .source = std::ssize(prompt),
                                 .target = all,
                                 .threads = o.threads});
  const double start = now();
  if (!how.encodes) put_text(o.prompt);
  const ln::token last = how.encodes ? 1 : -1;  // a decoder's text has no end
  const ln::index written = write_text(
      *model, prompt, how.encodes ? all : all - std::ssize(o.prompt), last, o, [&](ln::token id) {
        return id >= how.offset ? std::string(1, static_cast<char>(id - how.offset))
                                : std::string();
      });
  put_text("\n");
  print_figures(how.encodes ? std::ssize(prompt) : std::ssize(o.prompt), written, now() - start);
}

}  // namespace

void generate(const generate_options& o) {
  bool bytes = o.model.empty();
  for (const std::string_view name : byte_model_names) bytes = bytes || o.model == name;
  if (bytes)
    generate_bytes(o);
  else
    generate_preset(o);
}

}  // namespace zoo
