// SPDX-License-Identifier: MIT
// zoo generate: lets a model continue a text, as llama2.c's run does.

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <linnet/text/stream.hpp>
#include <utility>

#include "byte_models.hpp"
#include "commands.hpp"
#include "course.hpp"
#include "models.hpp"
#include "objectives.hpp"
#include "running.hpp"
#include "support.hpp"
#include "tokenizing.hpp"
#include "trained.hpp"

namespace zoo {

namespace {

/// Tokens of a prompt that are computed together.
constexpr ln::index longest_part = 256;

/// The length of the text asked for, prompt included, which must fit the model's context.
ln::index length_of_text(long asked, ln::index context) {
  if (asked > context)
    throw failure(
        fmt::format("--tokens: {} is more than the model's context of {}", asked, context));
  return asked > 0 ? asked : context;
}

/// Refuses a prompt of more tokens than there is room for.
void check_prompt(ln::index tokens, ln::index room, const char* of, const char* what = "--prompt") {
  if (tokens > room)
    throw failure(fmt::format("{}: {} tokens, but {} is {}", what, tokens, of, room));
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

/// Lets the model write up to `most` tokens, to one of `stops`, which is not shown, or to a stop
/// string. `piece(id)` are the bytes of a token. Returns the number of tokens.
template <class Piece>
ln::index write_text(running& model, std::span<const ln::token> prompt, ln::index most,
                     std::span<const ln::token> stops, const generate_options& o, Piece&& piece) {
  if (most <= 0) return 0;
  ln::text_stream text(o.stop);
  ln::index written = 0;
  const auto show = [&](ln::token id) {
    if (std::find(stops.begin(), stops.end(), id) != stops.end()) return false;
    ++written;
    return text.push(piece(id), put_text);
  };
  if (o.beams > 1) {
    const ln::beam_options how{.width = o.beams, .alpha = o.alpha};
    for (const ln::token id : model.search(prompt, how, {.tokens = most, .stop = stops}))
      if (!show(id)) break;
  } else {
    generate(model, prompt, most, sampling_of(o), show);
  }
  text.flush(put_text);
  return written;
}

/// Tokens of an answer of an encoder-decoder, unless --tokens says how many.
constexpr ln::index usual_answer = 128;

/// An encoder-decoder answers its prompt, the source.
void answer(const generate_options& o, const runnable_preset& preset, const std::string& weights,
            const tokenizing& text) {
  // Sentinels such as <extra_id_0> are what the prompt may have beside words.
  std::vector<ln::token> source =
      text.pieces ? text.pieces->encode(o.prompt, true) : text.encode(o.prompt);
  source.push_back(ln::t5_ids::end);
  const ln::index most = o.tokens > 0 ? o.tokens : usual_answer;
  const auto model = open_runnable(
      preset, weights,
      {.batch = o.beams, .source = std::ssize(source), .target = most, .threads = o.threads},
      o.how);
  const double start = now();
  ln::token previous = -1;
  const ln::index written = write_text(*model, source, most, text.stops, o, [&](ln::token id) {
    return text.decode(std::exchange(previous, id), id);
  });
  put_text("\n");
  print_figures(std::ssize(source), written, now() - start);
}

/// The tokens that mark the parts of a text whose middle is written: those of the training, where
/// the weights are of zoo train, else those that the tokenizer has by name.
ln::middle_tokens middle_marks(const std::string& weights, const tokenizing& text) {
  if (!is_trained(weights)) {
    const lesson_plan plan = plan_lesson(objective::fim, text);
    if (plan.vocabulary == text.vocabulary && !text.is_t5()) return plan.middles;
    throw failure("--suffix: " + text.name +
                  " has no <|fim_prefix|>, <|fim_suffix|> and <|fim_middle|>; give a model that "
                  "learned to fill a middle");
  }
  const auto described = open_trained(weights).described;
  const auto found = described.find("middle_tokens");
  ln::middle_tokens m{.end = ln::no_token};
  if (found != described.end() && found->is_object())
    for (const auto& [name, to] :
         {std::pair{"prefix", &m.prefix}, {"suffix", &m.suffix}, {"middle", &m.middle}})
      if (const auto at = found->find(name); at != found->end() && at->is_number_integer())
        *to = at->get<ln::token>();
  if (!m.valid())
    throw failure("--suffix: " + weights +
                  " has not learned to fill a middle; zoo train --objective fim does");
  return m;
}

/// A decoder writes what stands between two texts, in the order of parts that the training calls
/// PSM. The middle ends where the model begins another document by a mark.
void fill_middle(const generate_options& o, const runnable_preset& preset,
                 const std::string& weights, const tokenizing& text) {
  const ln::middle_tokens marks = middle_marks(weights, text);
  const std::vector<ln::token> prefix = text.encode(o.prefix), suffix = text.encode(o.suffix);
  std::vector<ln::token> prompt = text.opening;
  prompt.push_back(marks.prefix);
  prompt.insert(prompt.end(), prefix.begin(), prefix.end());
  prompt.push_back(marks.suffix);
  prompt.insert(prompt.end(), suffix.begin(), suffix.end());
  prompt.push_back(marks.middle);
  for (const ln::token id : prompt)
    if (id < 0 || id >= preset.vocabulary)
      throw failure(
          fmt::format("--suffix: token {} is none of the model's {}", id, preset.vocabulary));
  const ln::index all = length_of_text(o.tokens, preset.context),
                  read = std::ssize(prompt) - std::ssize(text.opening);
  check_prompt(read, all, o.tokens > 0 ? "--tokens" : "the model's context",
               "--prefix and --suffix");
  const auto model = open_runnable(
      preset, weights,
      {.batch = o.beams, .target = all, .chunk = std::min(all, longest_part), .threads = o.threads},
      o.how);
  std::vector<ln::token> stops = text.stops;
  for (const ln::token mark : {marks.prefix, marks.suffix, marks.middle}) stops.push_back(mark);
  const double start = now();
  put_text(o.prefix);
  ln::token previous = prefix.empty() ? ln::token{-1} : prefix.back();
  const ln::index written = write_text(*model, prompt, all - read, stops, o, [&](ln::token id) {
    return text.decode(std::exchange(previous, id), id);
  });
  put_text(o.suffix + "\n");
  print_figures(read, written, now() - start);
}

/// A preset, or a model of zoo train, with the tokenizer that it has. What opens a text is not
/// counted.
void generate_preset(const generate_options& o) {
  const runnable_preset preset = find_runnable(o.model, o.weights);
  const std::string weights = weights_of(o.model, o.weights);
  const tokenizing text = find_tokenizer(o.tokenizer, weights, preset);
  if (o.fills && preset.encodes)
    throw failure("--prefix and --suffix are for decoders; " + preset.name +
                  " is an encoder-decoder");
  if (o.fills) return fill_middle(o, preset, weights, text);
  if (preset.encodes) return answer(o, preset, weights, text);
  const ln::index all = length_of_text(o.tokens, preset.context);
  const std::vector<ln::token> asked = text.encode(o.prompt);
  check_prompt(std::ssize(asked), all, o.tokens > 0 ? "--tokens" : "the model's context");
  std::vector<ln::token> prompt = text.opening;
  prompt.insert(prompt.end(), asked.begin(), asked.end());
  if (prompt.empty()) prompt = {text.before};  // it has to begin somewhere
  const auto model = open_runnable(
      preset, weights,
      {.batch = o.beams, .target = all, .chunk = std::min(all, longest_part), .threads = o.threads},
      o.how);

  ln::token previous = text.opening.empty() ? -1 : text.opening.back();
  const auto piece = [&](ln::token id) { return text.decode(std::exchange(previous, id), id); };
  const double start = now();
  ln::text_stream shown;
  for (const ln::token id : asked) shown.push(piece(id), put_text);
  shown.flush(put_text);
  const ln::index written =
      write_text(*model, prompt, all - std::ssize(asked), text.stops, o, piece);
  put_text("\n");
  print_figures(std::ssize(asked), written, now() - start);
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
  std::vector<ln::token> stops;
  if (how.encodes) stops = {1};  // a decoder's text has no end
  const ln::index written = write_text(
      *model, prompt, how.encodes ? all : all - std::ssize(o.prompt), stops, o, [&](ln::token id) {
        return id >= how.offset ? std::string(1, static_cast<char>(id - how.offset))
                                : std::string();
      });
  put_text("\n");
  print_figures(how.encodes ? std::ssize(prompt) : std::ssize(o.prompt), written, now() - start);
}

}  // namespace

void generate(const generate_options& o) {
  bool bytes = o.model.empty() && !knows_its_model(o.weights);
  for (const std::string_view name : byte_model_names) bytes = bytes || o.model == name;
  if (bytes && o.weights.empty()) throw failure("--weights is required");
  if (bytes && !o.how.none()) throw failure("--storage and --compute go with a preset");
  if (bytes && o.fills)
    throw failure(
        "--prefix and --suffix go with a preset, or with what zoo train --objective fim wrote");
  if (bytes)
    generate_bytes(o);
  else
    generate_preset(o);
}

}  // namespace zoo
