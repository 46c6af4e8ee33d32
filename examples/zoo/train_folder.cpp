// SPDX-License-Identifier: MIT
// zoo train --text: any model with any tokenizer, to a folder that other commands take.

#include "commands.hpp"
#include "support.hpp"

#if __has_include(<xxhash.h>)

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <linnet/file/file.hpp>

#include "beginning.hpp"
#include "objectives.hpp"
#include "train_course.hpp"
#include "train_kind.hpp"
#include "train_ranks.hpp"
#include "train_report.hpp"
#include "train_tokenizer.hpp"
#include "trained.hpp"
#include "training_examples.hpp"
#include "training_text.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

constexpr ln::index usual_length = 256;

void write(const std::string& path, std::string_view text) {
  take(ln::write_file(path, std::as_bytes(std::span(text))));
}

/// Refuses a folder that cannot be made, or that nothing can be written into.
void check_place(const std::string& out) {
  std::error_code ignored;
  fs::path at = fs::absolute(out, ignored);
  while (!fs::exists(at, ignored) && at.has_relative_path()) at = at.parent_path();
  if (!fs::is_directory(at, ignored))
    throw failure(
        fmt::format("{}: {} is a file; name a folder that can be made", out, at.string()));
  if (access(at.c_str(), W_OK | X_OK) != 0)
    throw failure(
        fmt::format("{}: no permission to write in {}; name another --out", out, at.string()));
}

/// Refuses a folder that holds something else, or a training that is not to be resumed.
void check_folder(const train_options& o) {
  if (o.out.empty())
    throw failure("--text goes with --out, the folder that the model is written to");
  std::error_code ignored;
  if (fs::exists(o.out, ignored) && !fs::is_directory(o.out, ignored))
    throw failure(o.out + ": is a file; --out names a folder, which is made if it is not there");
  check_place(o.out);
  if (!fs::exists(o.out, ignored)) return;
  if (is_trained(o.out)) {
    if (!o.resume)
      throw failure(o.out +
                    ": holds a model already; go on with its training by --resume, or name another "
                    "--out");
    return;
  }
  if (!fs::is_empty(o.out, ignored))
    throw failure(o.out + ": holds other files; name a new or an empty folder");
}

/// Refuses a folder whose training had other settings.
void check_same(const json& before, const json& now, const std::string& out) {
  const auto value_of = [](const json& all, const std::string& key) {
    return all.contains(key) ? all[key].dump() : "missing";
  };
  // A teacher or an adapter is a setting of some trainings alone, so both are gone through.
  for (const json* const one : {&now, &before})
    for (const auto& [key, value] : one->items())
      if (key != "result" && value_of(before, key) != value_of(now, key))
        throw failure(fmt::format(
            "{}: its training was begun with {} {}, not {}; give the options it was begun with, or "
            "another --out",
            out, key, value_of(before, key), value_of(now, key)));
}

/// All that the result depends on.
json description(const train_options& o, const model_spec& model, const tokenizing& by,
                 const training_text& text, const beginning* from, const lesson_plan& plan) {
  json all = {{"format", "linnet zoo"},
              {"model", model.name()},
              {"ffn", o.ffn},
              {"optimizer", o.optimizer},
              {"compute", o.compute},
              {"tokenizer", by.kept_as.empty() ? by.name : by.kept_as},
              {"tokenizer_asked", o.tokenizer},
              {"text", text.mark},
              {"mix", o.mix},
              {"length", o.length},
              {"steps", o.steps},
              {"batch", o.batch},
              {"accumulate", o.accumulate},
              {"rate", o.rate},
              {"schedule", o.schedule},
              {"warm_up", o.warm_up},
              {"last_rate", o.last_rate},
              {"decay", o.decay},
              {"clip", o.clip},
              {"dropout", o.dropout},
              {"seed", o.seed}};
  if (o.parts > 0) all["parts"] = o.parts;
  if (plan.what != parse_objective("", model.family())) all["objective"] = o.objective;
  if (const ln::mode_tokens& m = plan.modes; m.regular >= 0)
    all["mode_tokens"] = {{"R", m.regular}, {"S", m.sequential}, {"X", m.extreme}};
  if (const ln::middle_tokens& m = plan.middles; m.valid())
    all["middle_tokens"] = {{"prefix", m.prefix}, {"suffix", m.suffix}, {"middle", m.middle}};
  if (plan.what == objective::masked) all["marks"] = described_marks(plan.marks);
  if (from) all["weights"] = from->mark;
  if (const long rank = std::max(o.lora, o.qlora); rank > 0) {
    all["adapter"] = o.qlora > 0 ? "qlora" : "lora";
    all["lora_rank"] = rank;
    all["lora_alpha"] = o.lora_alpha;
    all["lora_dropout"] = o.lora_dropout;
    all["lora_target"] = o.lora_target;
  }
  if (o.prompt > 0) all["prompt"] = o.prompt;
  if (o.prefix > 0) all["prefix"] = o.prefix;
  if (o.bottleneck > 0) all["bottleneck"] = o.bottleneck;
  if (o.taught) {
    all["teacher"] = from->model.name();
    all["alpha"] = o.alpha;
    all["temperature"] = o.temperature;
    all["divergence"] = o.divergence;
    all["beta"] = o.beta;
    if (!o.match.empty()) all["match"] = o.match;
    if (!o.match.empty()) all["match_weight"] = o.match_weight;
    if (o.match == "ted") all["filter_steps"] = filter_steps(o);
  }
  return all;
}

/// Removes what a training has left for --resume, of one process or of several.
void remove_checkpoints(const std::string& out) {
  for (const auto& file : fs::directory_iterator(out))
    for (const char* const begin : {"training.ckpt", "filters.ckpt", "filters.safetensors"})
      if (file.path().filename().string().starts_with(begin)) {
        fs::remove(file.path());
        break;
      }
}

/// How a training that is put off ends.
void end_early(long steps, bool filters) {
  flush_output();
  const std::string_view of = filters ? " of the filters, so there is no model yet" : "";
  if (const int signal = stop_requests::received(); signal != 0)
    throw interruption(signal, fmt::format("stopped by a signal ({}) after step {}{}; --resume "
                                           "goes on from there",
                                           strsignal(signal), grouped(steps), of));
  put("the time is over after step {}{}; --resume goes on from there\n", grouped(steps), of);
}

/// Trains from nothing, or from what is there.
void train_from(train_options o, const beginning* begun) {
  model_spec model = model_of(o, begun);
  (void)variant_type(model, o.ffn);
  const objective learns = parse_objective(o.objective, model.family());
  set_parts(o, begun);
  const module_kind kind = kind_of(o, model, begun);
  check_kind(kind);
  (void)schedule_of(o);
  (void)lesson_of(o);
  const training_text text = read_training_text(o.texts, o.mix);
  const tokenizing by = prepare_tokenizer(o, model, text, begun);
  const lesson_plan plan = plan_lesson(learns, by);
  if (!begun) {
    const model_spec before = model;
    model = with_vocabulary(model, by.vocabulary);
    if (!has_vocabulary(before)) model = with_vocabulary(before, plan.vocabulary);
  }
  if (plan.vocabulary > model.vocabulary())
    throw failure(
        fmt::format("--objective {}: needs {} ids with its own, but the vocabulary of {} "
                    "is {}; train a new model, or give a tokenizer that has them",
                    word_of(learns), plan.vocabulary, model.name(), model.vocabulary()));
  ln::index longest = model.context();
  if (begun) longest = std::min(longest, begun->model.context());
  longest -= std::min(longest, ln::index{std::max(o.prompt, o.prefix)});  // virtual tokens
  if (o.length == 0) o.length = model.encodes() ? usual_length : std::min(longest, usual_length);
  if (!model.encodes() && o.length > longest)
    throw failure(fmt::format("--length: {} is more than the model's context of {}{}", o.length,
                              longest,
                              o.prompt > 0 || o.prefix > 0 ? " beside the virtual tokens" : ""));
  const auto from = open_examples(
      text, by, plan, {.encodes = model.encodes(), .batch = o.batch, .length = o.length}, o.seed);

  const json described = description(o, model, by, text, begun, plan);
  const std::string path = o.out + "/zoo.json";
  if (is_trained(o.out)) {
    const trained_model before = open_trained(o.out);
    check_same(before.described, described, o.out);
    if (before.described.contains("result")) {
      put("{}: trained already, {:.4f} bits per byte held out\n", o.out,
          before.described["result"].value("bits", 0.0));
      return;
    }
  }
  const auto code = load_module(model, kind);
  if (kind.on_ranks) check_ranks(*code, described, by);  // all have seen the folder as it was
  const auto begin_folder = [&] {  // once all that is read has been found to be good
    if (here.first()) {
      std::error_code problem;
      fs::create_directories(o.out, problem);
      if (problem)
        throw failure(fmt::format("{}: {}; name another --out", o.out, problem.message()));
      write(path, described.dump(2) + "\n");
      keep_tokenizer(by, o.out);
    }
    code->meet();
  };

  training_record record;
  record.model = model.name();
  record.parameters = code->parameters();
  record.text_bytes = text.bytes;
  record.all_steps = o.steps;
  record.denoises = denoises(learns);
  for (const text_group& g : text.groups) record.texts.push_back(g.name);
  for (const auto& [key, value] : described.items())
    if (key != "format")
      record.settings.emplace_back(key,
                                   value.is_string() ? value.get<std::string>() : value.dump());
  const ln::index trained = code->trained();
  say("{}: {} parameters{}; {} bytes of text, {} ids\n", record.model, grouped(record.parameters),
      trained == record.parameters  ? ""
      : trained > record.parameters ? ", with filters " + grouped(trained)
                                    : ", of an adapter " + grouped(trained),
      grouped(text.bytes), grouped(by.vocabulary));

  const stop_requests stops;
  double deadline = HUGE_VAL;
  const std::string weights = begun ? begun->weights : "";
  const auto parts_for = [&](const train_options& of) {
    return course_parts{of, *code, text, by, plan, model, weights, *from};
  };
  const auto learn = [&](training_course& one) {  // the time begins when all is loaded
    if (o.minutes > 0) deadline = std::min(deadline, now() + 60 * o.minutes);
    return one.run(deadline);
  };
  const bool filters_first = o.match == "ted" && !fs::exists(filters_of(o));
  if (filters_first) {
    say("first the filters of {} learn the text\n", begun->model.name());
    train_options first = o;
    first.steps = filter_steps(o);
    training_record of_filters = record;
    training_course filters(parts_for(first), of_filters, stage::filters);
    begin_folder();
    if (!learn(filters)) return end_early(of_filters.steps, true);
    filters.save_filters();
    say("filters: {} steps in {:.1f} s, held out {:.4f} {}\n", grouped(of_filters.steps),
        of_filters.seconds, of_filters.bits(), of_filters.unit());
  }
  training_course training(parts_for(o), record);
  if (!filters_first) begin_folder();
  const bool over = learn(training);
  training.save(over ? examined_examples : checked_examples);
  const std::string filters_log = o.out + "/filters.jsonl";
  if (here.first())
    write_report(record, o.out + "/training.jsonl",
                 o.match == "ted" && fs::exists(filters_log) ? filters_log : "",
                 o.out + "/report.html");
  if (over && here.first()) {
    json all = described;
    all["result"] = {{"steps", record.steps}, {"seconds", record.seconds}, {"bits", record.bits()}};
    write(path, all.dump(2) + "\n");
    remove_checkpoints(o.out);
  }
  code->finish();
  put("{} steps in {:.1f} s, {} tokens/s, held out {:.4f} {}\n", grouped(record.steps),
      record.seconds, grouped(std::lround(record.tokens_per_second())), record.bits(),
      record.unit());
  put("saved {}: zoo {} as --weights; report.html shows the training\n", o.out,
      model.embeds()    ? "embed takes it"
      : model.encodes() ? "generate takes it"
                        : "generate, eval and chat take it");
  if (!over) end_early(record.steps, false);
}

}  // namespace

void train_folder(const train_options& o) {
  as_rank([&] {
    check_folder(o);
    train_from(o, nullptr);
  });
}

void finetune(const train_options& asked) {
  as_rank([&] {
    check_folder(asked);
    train_options o = asked;
    const beginning from = find_beginning("model", o.model, o.weights);
    o.model = from.model.name();
    o.ffn = from.ffn;
    train_from(std::move(o), &from);
  });
}

void distil(const train_options& o) {
  as_rank([&] {
    check_folder(o);
    const beginning teacher = find_beginning("teacher", o.teacher, o.weights);
    train_from(o, &teacher);
  });
}

}  // namespace zoo

#else

namespace zoo {

void train_folder(const train_options&) {
  throw failure(
      "--text: this zoo was built without xxhash.h, which checkpoints need (Debian: "
      "libxxhash-dev); a positional text trains a byte-level model without it");
}
void finetune(const train_options& o) { train_folder(o); }
void distil(const train_options& o) { train_folder(o); }

}  // namespace zoo

#endif
