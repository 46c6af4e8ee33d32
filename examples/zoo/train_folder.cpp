// SPDX-License-Identifier: MIT
// zoo train --text: any model with any tokenizer, to a folder that generate, eval and chat take.

#include "commands.hpp"
#include "support.hpp"

#if __has_include(<xxhash.h>)

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <linnet/file/file.hpp>
#include <linnet/text/bpe_trainer.hpp>
#include <new>
#include <thread>

#include "beginning.hpp"
#include "support/ranks.hpp"
#include "support/training.hpp"
#include "train_report.hpp"
#include "trained.hpp"
#include "training_text.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

constexpr ln::index checked = 48;    // held-out examples of each text, while training
constexpr ln::index examined = 256;  // at the end
constexpr ln::index usual_length = 256;

const process_place here = this_process();

void write(const std::string& path, std::string_view text) {
  take(ln::write_file(path, std::as_bytes(std::span(text))));
}

// --- the folder ----------------------------------------------------------------------------------

/// Refuses a folder that holds something else, or a training that is not to be resumed.
void check_folder(const train_options& o) {
  if (o.out.empty())
    throw failure("--text goes with --out, the folder that the model is written to");
  std::error_code ignored;
  if (!fs::exists(o.out, ignored)) return;
  if (!fs::is_directory(o.out, ignored))
    throw failure(o.out + ": is a file; --out names a folder, which is made if it is not there");
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

// --- the tokenizer -------------------------------------------------------------------------------

/// "bpe:4096": how many ids to learn, or 0.
ln::index ids_to_learn(const std::string& asked) {
  if (!asked.starts_with("bpe:")) return 0;
  constexpr long most = 65'536, least = 257;
  const char* const end = asked.data() + asked.size();
  long ids = 0;
  const auto [last, problem] = std::from_chars(asked.data() + 4, end, ids);
  if (problem != std::errc() || last != end || ids < least || ids > most)
    throw failure(
        fmt::format("--tokenizer {}: expected a number of ids from {} to {}", asked, least, most));
  return ids;
}

/// The merges of a tokenizer that is learned from the text, as a vocab.bpe.
std::string learn_merges(const training_text& text, ln::index ids) {
  constexpr ln::index bytes_and_end = 257;
  ln::bpe_trainer learner;
  for (std::size_t g = 0; g < text.groups.size(); ++g)
    for (const std::string_view part : text.training(g)) learner.add(part);
  say("learning {} merges\n", grouped(ids - bytes_and_end));
  return take(learner.train(ids - bytes_and_end));
}

/// Whether the command line gives the model a vocabulary.
bool has_vocabulary(const model_spec& model) {
  return std::any_of(model.changes.begin(), model.changes.end(),
                     [](auto& c) { return c.first == "vocabulary"; });
}

/// The tokenizer asked for, or that of the weights; merges that were learned before are not learned
/// again.
tokenizing prepare_tokenizer(const train_options& o, const model_spec& model,
                             const training_text& text, const beginning* from) {
  if (from) return find_tokenizer(o.tokenizer, from->path, from->preset());
  const tokenizing_for whom{model.name(), model.encodes(),
                            has_vocabulary(model) ? model.vocabulary() : 0};
  const ln::index ids = ids_to_learn(o.tokenizer);
  if (ids == 0) return read_tokenizer(o.tokenizer, whom);
  if (model.encodes())
    throw failure(
        fmt::format("--tokenizer {}: {} is an encoder-decoder, which needs T5's ids: "
                    "bytes, or sentencepiece:FILE",
                    o.tokenizer, model.name()));
  if (const std::string kept = o.out + "/vocab.bpe"; fs::exists(kept))
    return read_tokenizer(kept, whom);
  return learned_tokenizer(learn_merges(text, ids), whom);
}

/// What is in the tokenizer's file, if it has one.
std::string file_of(const tokenizing& by) {
  if (by.kept_as.empty() || !by.learned.empty()) return by.learned;
  const ln::file_bytes file = take(ln::read_file(by.name));
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Keeps the tokenizer's file beside the weights.
void keep_tokenizer(const tokenizing& by, const std::string& out) {
  const std::string path = out + "/" + by.kept_as;
  std::error_code ignored;
  if (by.kept_as.empty() || fs::equivalent(by.name, path, ignored)) return;
  write(path, file_of(by));
}

// --- the training --------------------------------------------------------------------------------

ln::schedule schedule_of(const train_options& o) {
  static constexpr std::string_view known[] = {"cosine", "constant", "inverse_sqrt",
                                               "warmup_stable_decay"};
  check_name("schedule", o.schedule, known);
  const auto warm_up = std::lround(o.warm_up * static_cast<double>(o.steps));
  if (o.schedule == "constant") return ln::schedule::constant(o.rate);
  if (o.schedule == "cosine")
    return ln::schedule::cosine(o.rate, warm_up, o.steps + 1, o.rate * o.last_rate);
  if (o.schedule == "warmup_stable_decay")  // the last fifth falls
    return ln::schedule::warmup_stable_decay(o.rate, warm_up, o.steps + 1,
                                             std::min(o.steps / 5, o.steps - warm_up),
                                             o.rate * o.last_rate);
  return ln::schedule::inverse_sqrt_linear(
      std::max(warm_up, 1L), o.rate * std::sqrt(static_cast<double>(std::max(warm_up, 1L))));
}

/// How a student learns from its teacher.
ln::distillation_options lesson_of(const train_options& o) {
  static constexpr std::string_view known[] = {"cross_entropy", "kl", "reverse_kl", "jsd",
                                               "total_variation"};  // as ln::divergence
  check_name("divergence", o.divergence, known);
  ln::distillation_options made{.alpha = o.alpha, .temperature = o.temperature};
  made.divergence = static_cast<ln::divergence>(
      std::find(std::begin(known), std::end(known), o.divergence) - std::begin(known));
  made.beta = o.beta;
  return made;
}

/// Steps of TED's first stage.
long filter_steps(const train_options& o) { return o.filter_steps > 0 ? o.filter_steps : o.steps; }

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
  if (plan.what != parse_objective("", model.encodes())) all["objective"] = o.objective;
  if (const ln::mode_tokens& m = plan.modes; m.regular >= 0)
    all["mode_tokens"] = {{"R", m.regular}, {"S", m.sequential}, {"X", m.extreme}};
  if (const ln::middle_tokens& m = plan.middles; m.valid())
    all["middle_tokens"] = {{"prefix", m.prefix}, {"suffix", m.suffix}, {"middle", m.middle}};
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

/// What is trained: the model, or before it the filters of its teacher.
enum class stage { filters, model };

/// The file of those filters, which the folder has while the training lasts.
std::string filters_of(const train_options& o) { return o.out + "/filters.safetensors"; }

/// A training that is under way.
class course {
 public:
  course(const train_options& o, const module& code, const training_text& text,
         const tokenizing& by, const std::string& weights, examples& from, training_record& record,
         stage which = stage::model)
      : o_(o), code_(code), text_(text), by_(by), from_(from), record_(record), stage_(which) {
    const training_plan plan{.batch = o.batch,
                             .source = from.source(),
                             .target = from.target(),
                             .rate = schedule_of(o),
                             .decay = o.decay,
                             .clip = o.clip,
                             .dropout = o.dropout,
                             .seed = o.seed,
                             .threads = o.threads,
                             .weights = weights,
                             .lesson = lesson_of(o),
                             .match = o.match,
                             .match_weight = o.match_weight,
                             .filters = filters_of(o),
                             .adapter = {.alpha = o.lora_alpha, .dropout = o.lora_dropout},
                             .parts = o.parts};
    model_ = which == stage::model ? code.train(plan) : code.prepare(plan);
    record_.tokens_per_step = o.batch * o.accumulate * (from.source() + from.target());
    record_.bytes_per_label = from.bytes_per_label;
  }

  /// Takes the steps; false if the time is over or a signal came before the last one.
  bool run(double deadline) {
    const double start = now();
    support::run_record r{.steps = o_.steps, .batch = o_.batch, .length = o_.length};
    ln::index begun = -1;
    progress bar;
    const auto step = [&](ln::index number) {
      if (begun < 0 && number > 0) say("going on from step {}\n", grouped(number));
      if (begun < 0) begun = number;
      const double nats = model_->step(o_.accumulate, [&](ln::index part) {
        return from_.batch(static_cast<std::uint64_t>((number * o_.accumulate + part) * o_.batch));
      });
      const ln::index done = number + 1;
      if (here.first() && (bar.due() || done == o_.steps)) {
        const double taken = now() - start, per_step = taken / static_cast<double>(done - begun);
        bar.show(static_cast<double>(done) / static_cast<double>(o_.steps),
                 per_step * static_cast<double>(o_.steps - done),
                 {{stage_ == stage::filters ? "filters"
                                            : record_.model.substr(0, record_.model.find(':')),
                   fmt::format("{:.3f} {}, held out {:.3f}  {} tokens/s",
                               nats / std::log(2) / record_.bytes_per_label, record_.unit(),
                               r.points > 0 ? r.curve().back().second : 0.0,
                               grouped(std::lround(static_cast<double>(record_.tokens_per_step) /
                                                   per_step)))}});
      }
      return nats;
    };
    const auto look = [&](ln::index number, support::run_record& to) {
      to.look(number, [&] { return examine(checked); });
    };
    const std::string base = o_.out + (stage_ == stage::model ? "/training" : "/filters");
    const bool over = support::take_steps(base, *model_, r, deadline, step, look,
                                          {o_.save_every, true, here.first()});
    record_.steps = model_->steps();
    record_.seconds = r.seconds;
    record_.held_out = r.curve();
    return over;
  }

  /// Writes the filters alone.
  void save_filters() { model_->save(filters_of(o_)); }
  /// Writes the weights, judges them, and lets them write.
  void save(ln::index examples_of_each) {
    const std::string weights = o_.out + "/model.safetensors";
    if (here.first()) model_->save(weights);
    text_score sum;
    for (std::size_t g = 0; g < text_.groups.size(); ++g) {
      const text_score one = from_.held_out(*model_, g, examples_of_each);
      record_.by_text.emplace_back(text_.groups[g].name, one.bits());
      sum += one;
    }
    record_.held_out.emplace_back(static_cast<double>(record_.steps), sum.bits());
    model_.reset();
    code_.meet();  // from here on the others only wait for the first
    if (here.first()) write_sample(weights);
  }

 private:
  const train_options& o_;
  const module& code_;
  const training_text& text_;
  const tokenizing& by_;
  examples& from_;
  training_record& record_;
  stage stage_;
  std::unique_ptr<trainee> model_;

  double examine(ln::index most) {
    text_score sum;
    for (std::size_t g = 0; g < text_.groups.size(); ++g) sum += from_.held_out(*model_, g, most);
    if (!ln::is_finite(sum.bits())) throw failure(record_.model + " diverged: try a lower --rate");
    return sum.bits();
  }
  void write_sample(const std::string& weights) {
    const std::vector<ln::token>& prompt = from_.prompt;
    const bool encodes = from_.source() > 0;
    const ln::index room = encodes ? 160 : std::max<ln::index>(160, std::ssize(prompt) + 80),
                    most = std::min(from_.target(), room),
                    written = encodes ? most : most - std::ssize(prompt);
    const auto model = code_.open(
        weights,
        {.source = encodes ? std::ssize(prompt) : 0, .target = most, .threads = o_.threads});
    ln::token previous = -1;
    const auto text_of = [&](ln::token id) { return by_.decode(std::exchange(previous, id), id); };
    for (const ln::token id : prompt)
      record_.prompt += by_.t5.is_sentinel(id) ? "\xe2\x80\xa6" : text_of(id);
    if (record_.denoises) previous = -1;
    generate(*model, prompt, written, {.temperature = 0.8, .top_p = 0.95, .seed = o_.seed},
             [&](ln::token id) {
               if (std::find(by_.stops.begin(), by_.stops.end(), id) != by_.stops.end())
                 return false;
               record_.sample += by_.t5.is_sentinel(id) ? " \xe2\x80\xa6 " : text_of(id);
               return true;
             });
  }
};

/// The model that is trained. A student has the ids of its teacher.
model_spec model_of(const train_options& o, const beginning* from) {
  if (from && !o.taught) return from->model;
  model_spec model = parse_model("model", o.model);
  if (!from) return model;
  if (model.encodes() != from->model.encodes())
    throw failure(fmt::format("--model {}: {} is of another family, which cannot teach it", o.model,
                              from->model.name()));
  model = with_vocabulary(model, from->model.vocabulary());
  if (model.vocabulary() != from->model.vocabulary())
    throw failure(fmt::format("--model {}: a vocabulary of {}, but that of the teacher {} is {}",
                              o.model, model.vocabulary(), from->model.name(),
                              from->model.vocabulary()));
  return model;
}

/// The C++ of an adapter, whose matrices are named on the command line.
std::string adapter_of(const train_options& o) {
  if (o.prompt > 0) return adapter_start("prompt", o.prompt);
  if (o.prefix > 0) return adapter_start("prefix", o.prefix);
  if (o.bottleneck > 0) return adapter_start("bottleneck", o.bottleneck);
  std::string targets;
  const auto is_name = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  };
  for (std::string_view rest = o.lora_target; o.lora_target != "all" && !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find(','));
    if (name.empty() || !std::all_of(name.begin(), name.end(), is_name))
      throw failure(
          fmt::format("--lora-target {}: expected all, or ends of matrices' names such as "
                      "q,v or attention.o,up",
                      o.lora_target));
    targets += fmt::format("{}\"{}\"", targets.empty() ? "" : ", ", name);
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
  }
  return fmt::format("zoo::with_adapter<ln::lora<{}{}>{}>", std::max(o.lora, o.qlora),
                     targets.empty() ? "" : ", ln::target_modules<" + targets + ">",
                     o.qlora > 0 ? ", ln::storage::nf4_double" : "");
}

/// The C++ of how a student begins and learns; refuses what its teacher has not got to match.
std::string lesson_start(const train_options& o, const model_spec& student,
                         const model_spec& teacher) {
  if (o.match.empty()) return "zoo::from_teacher<teacher::Model>";
  static constexpr std::string_view known[] = {"hidden", "cosine", "ted", "relations", "minilm"};
  check_name("match", o.match, known);
  if (student.encodes() && (o.match == "ted" || o.match == "minilm"))
    throw failure(
        fmt::format("--match {}: is of decoders; encoder-decoders take hidden, cosine or "
                    "relations",
                    o.match));
  if (o.divergence != "cross_entropy")
    throw failure(
        fmt::format("--match {}: --divergence {} is of learning from logits alone; leave it out",
                    o.match, o.divergence));
  const bool ted = o.match == "ted", states = ted || o.match == "hidden" || o.match == "cosine";
  const auto check = [&](std::string_view what, ln::index own, ln::index its) {
    if (states && own > its)
      throw failure(fmt::format("--match {}: {} has {} {}layers, more than the {} of its teacher",
                                o.match, student.name(), own, what, its));
  };
  if (const auto* const own = std::get_if<ln::decoder_shape>(&student.shape))
    check("", own->layers, std::get<ln::decoder_shape>(teacher.shape).layers);
  if (const auto* const own = std::get_if<ln::t5_shape>(&student.shape)) {
    const auto& its = std::get<ln::t5_shape>(teacher.shape);
    check("encoder ", own->encoder_layers, its.encoder_layers);
    check("decoder ", own->decoder_layers, its.decoder_layers);
  }
  return ted      ? "zoo::from_teacher_ted<teacher::Model>"
         : states ? "zoo::from_teacher_states<teacher::Model>"
                  : "zoo::from_teacher_relations<teacher::Model>";
}

/// The code of a training.
module_kind kind_of(const train_options& o, const model_spec& model, const beginning* from) {
  module_kind kind{o.ffn, o.optimizer, o.compute};
  kind.on_ranks = o.parts > 0;
  if (from) kind.start = "zoo::from_file";
  if (o.lora > 0 || o.qlora > 0 || o.prompt > 0 || o.prefix > 0 || o.bottleneck > 0) {
    if (o.compute != "f32")
      throw failure(fmt::format("--compute {}: adapters are trained in f32", o.compute));
    kind.start = adapter_of(o);
  }
  if (!o.taught) return kind;
  kind.start = lesson_start(o, model, from->model);
  kind.before = fmt::format("namespace teacher {{\n{}using Model = {};\n}}\n\n",
                            from->model.declarations(), from->model.type(from->ffn));
  return kind;
}

/// In how many parts several processes share a batch; refuses what they cannot train.
void set_parts(train_options& o, const beginning* begun) {
  if (o.parts == 0 && o.resume && is_trained(o.out))
    o.parts = open_trained(o.out).described.value("parts", 0L);
  if (o.parts == 0 && here.alone()) return;
  if (begun || o.taught)
    throw failure("zoo finetune and zoo distil train in one process; zoo train takes several");
  if (o.compute != "f32" && o.compute != "bf16")
    throw failure(fmt::format("--compute {}: several processes train in f32 or bf16", o.compute));
  if (o.optimizer == "sophia")
    throw failure("--optimizer sophia: several processes train with another one, such as adamw");
  if (o.batch < here.size)
    throw failure(
        fmt::format("--batch {}: fewer examples than the {} processes", o.batch, here.size));
  if (o.parts == 0) {
    o.parts = std::max(std::min(8L, static_cast<long>(o.batch)), static_cast<long>(here.size));
    while (o.batch % o.parts != 0) ++o.parts;
  }
  if (o.batch % o.parts != 0 || o.parts < here.size)
    throw failure(
        fmt::format("--parts {}: expected a divisor of the {} examples of a batch, no "
                    "smaller than the {} processes",
                    o.parts, o.batch, here.size));
}

/// Refuses processes that do not train the same; they wait for each other here.
void check_ranks(const module& code, const json& described, const tokenizing& by) {
  const process_place there = code.place();
  if (there.rank != here.rank || there.size != here.size)
    throw failure(fmt::format(
        "this process is {} of {} by its environment, {} of {} by MPI: mpirun is of another MPI "
        "than the one that zoo was built with",
        here.rank + 1, here.size, there.rank + 1, there.size));
  // The description has a mark of the text.
  const std::uint64_t mark = ln::stream_of(file_of(by), ln::stream_of(described.dump()));
  if (const ln::index other = code.unlike(mark); other >= 0)
    throw failure(fmt::format(
        "rank {}: another text, tokenizer or other options than those of rank 0", other));
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
  const objective learns = parse_objective(o.objective, model.encodes());
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
                    o.objective, plan.vocabulary, model.name(), model.vocabulary()));
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
  if (here.first()) {
    fs::create_directories(o.out);
    write(path, described.dump(2) + "\n");
    keep_tokenizer(by, o.out);
  }
  code->meet();

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
  const auto learn = [&](course& one) {  // the time begins when all is loaded
    if (o.minutes > 0) deadline = std::min(deadline, now() + 60 * o.minutes);
    return one.run(deadline);
  };
  if (o.match == "ted" && !fs::exists(filters_of(o))) {
    say("first the filters of {} learn the text\n", begun->model.name());
    train_options first = o;
    first.steps = filter_steps(o);
    training_record of_filters = record;
    course filters(first, *code, text, by, begun->weights, *from, of_filters, stage::filters);
    if (!learn(filters)) return end_early(of_filters.steps, true);
    filters.save_filters();
    say("filters: {} steps in {:.1f} s, held out {:.4f} {}\n", grouped(of_filters.steps),
        of_filters.seconds, of_filters.bits(), of_filters.unit());
  }
  course training(o, *code, text, by, begun ? begun->weights : "", *from, record);
  const bool over = learn(training);
  training.save(over ? examined : checked);
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
  put("saved {}: zoo generate{} as --weights; report.html shows the training\n", o.out,
      model.encodes() ? " takes it" : ", eval and chat take it");
  if (!over) end_early(record.steps, false);
}

/// Runs what this process does; the first one speaks for all, but each says why it alone ends.
template <class Work>
void as_rank(Work&& work) {
  be_quiet(!here.first());
  try {
    work();
  } catch (const interruption&) {
    throw;
  } catch (const std::exception& e) {
    if (here.first()) throw;
    // Most are those of all ranks: mpirun ends this one while the first says so.
    std::this_thread::sleep_for(std::chrono::seconds(2));
    be_quiet(false);
    const bool memory = dynamic_cast<const std::bad_alloc*>(&e) != nullptr;
    throw failure(fmt::format("rank {}: {}", here.rank, memory ? "not enough memory" : e.what()));
  }
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
