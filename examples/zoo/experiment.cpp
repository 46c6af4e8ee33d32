// SPDX-License-Identifier: MIT
#include "experiment.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "support.hpp"
#include "support/results.hpp"

namespace zoo {

namespace {

constexpr ln::index scored_examples = 256;
constexpr ln::index compared_examples = 4;
constexpr double sample_temperature = 0.7;
constexpr ln::index prompt_bytes = 48;  // of a decoder; a T5 gets as many as its source holds

std::string label_of(variant v, form f, bool collapses) {
  std::string label(name_of(v));
  if (f != form::trained && collapses) label += ", collapsed";
  if (f == form::int8) label += ", int8";
  return label;
}

/// A stretch of the text that starts with a sentence or line and ends with a word.
std::string choose_prompt(std::string_view text, ln::index longest) {
  const auto ends = [&](std::size_t i) {
    return text[i] == '\n' || (text[i] == ' ' && (text[i - 1] == '.' || text[i - 1] == '?'));
  };
  std::size_t first = text.size() / 3;
  const auto size = static_cast<std::size_t>(longest);
  for (std::size_t i = first; i + size < text.size(); ++i)
    if (ends(i) && std::isalpha(static_cast<unsigned char>(text[i + 1])) != 0 &&
        text.substr(i + 1, size).find("\n\n") == std::string_view::npos) {
      first = i + 1;
      break;
    }
  std::string_view prompt = text.substr(first, size);
  if (const std::size_t space = prompt.rfind(' '); space != std::string_view::npos && space > 0)
    prompt = prompt.substr(0, space);
  return std::string(prompt);
}

/// Milliseconds of a forward call of each model: the median of repetitions taken in turns, so that
/// whatever else the machine does meets them all.
std::vector<double> time_models(const std::vector<std::unique_ptr<deployed>>& models,
                                const example_batch& one) {
  constexpr int rounds = 31, warm_up = 3;
  std::vector<std::vector<double>> times(models.size());
  for (int round = -warm_up; round < rounds; ++round)
    for (std::size_t i = 0; i < models.size(); ++i) {
      (void)models[i]->nats(one);  // brings its weights into the cache
      const double start = now();
      (void)models[i]->nats(one);
      if (round >= 0) times[i].push_back(1e3 * (now() - start));
    }
  std::vector<double> medians;
  for (std::vector<double>& t : times) medians.push_back(support::median(std::move(t)));
  return medians;
}

/// Lets a model continue the prompt until its context is full.
void write_sample(const experiment& e, const deployed& model, outcome& o) {
  std::vector<ln::token> prompt;
  for (const char c : e.prompt) prompt.push_back(static_cast<unsigned char>(c) + e.how.offset);
  if (e.how.encodes) prompt.push_back(1);
  const auto length = std::ssize(prompt);
  const auto session = model.open(
      {.source = e.how.encodes ? length : 0, .target = e.how.target, .threads = e.options.threads});
  const double start = now();
  const ln::index n =
      generate(*session, prompt, e.how.target - (e.how.encodes ? 0 : length),
               {.temperature = sample_temperature, .seed = e.options.seed}, [&](ln::token id) {
                 if (id >= e.how.offset) o.sample += static_cast<char>(id - e.how.offset);
                 return true;
               });
  o.written_per_second = static_cast<double>(n) / (now() - start);
}

collapse_proof compare(const experiment& e, const student& s, deployed& before, deployed& after,
                       const std::vector<example_batch>& batches) {
  collapse_proof proof{.name = s.name};
  for (const example_batch& l : batches) {
    const auto size = static_cast<std::size_t>(std::ssize(l.labels) * s.model->vocabulary());
    std::vector<float> a(size), b(size);
    (void)before.nats(l, a);
    (void)after.nats(l, b);
    for (std::size_t i = 0; i < size; ++i) {
      proof.largest_difference =
          std::max(proof.largest_difference, std::abs(static_cast<double>(a[i] - b[i])));
      proof.largest_logit = std::max(proof.largest_logit, std::abs(static_cast<double>(a[i])));
    }
    proof.logits += static_cast<ln::index>(size);
  }
  const variant v = e.variants[static_cast<std::size_t>(&s - e.students.data())];
  proof.bits_before = e.find(v, form::trained)->bits;
  proof.bits_after = e.find(v, form::collapsed)->bits;
  return proof;
}

/// Measures every form of every student.
void measure(experiment& e) {
  const ln::index batch = e.options.batch;
  const auto exam = spread_batches(e.how, e.text.held_out, scored_examples, batch);
  const auto one = batch_at(e.how, e.text.held_out, {0});
  std::vector<std::unique_ptr<deployed>> models;
  for (std::size_t i = 0; i < e.students.size(); ++i) {
    const learner& model = *e.students[i].model;
    for (const form f : {form::trained, form::collapsed, form::int8}) {
      if (f == form::collapsed && !model.collapses()) continue;
      const variant v = e.variants[i];
      models.push_back(model.deploy(f));
      models.back()->prepare(batch, e.options.threads);
      outcome& o = e.outcomes.emplace_back();
      o.ffn = v;
      o.as = f;
      o.label = label_of(v, f, model.collapses());
      o.cost = model.cost(f);
      o.bits = bits_of(*models.back(), exam);
      write_sample(e, *models.back(), o);
    }
  }
  for (const example_batch& l : exam) e.scored_bytes += predicted_bytes(l);
  const std::vector<double> times = time_models(models, one);
  for (std::size_t i = 0; i < times.size(); ++i) e.outcomes[i].ms = times[i];

  const auto compared = spread_batches(e.how, e.text.held_out, compared_examples, batch);
  for (std::size_t i = 0; i < e.students.size(); ++i) {
    if (!e.students[i].model->collapses()) continue;
    const auto index_of = [&](form f) {
      return static_cast<std::size_t>(e.find(e.variants[i], f) - e.outcomes.data());
    };
    e.proofs.push_back(compare(e, e.students[i], *models[index_of(form::trained)],
                               *models[index_of(form::collapsed)], compared));
  }
}

}  // namespace

const outcome* experiment::find(variant ffn, form as) const {
  for (const outcome& o : outcomes)
    if (o.ffn == ffn && o.as == as) return &o;
  return nullptr;
}

experiment run_experiment(const course_options& o, std::vector<variant> variants) {
  const byte_model kind = parse_byte_model(o.model);
  experiment e{.model = o.model,
               .text = read_corpus(o.text),
               .options = o,
               .how = {},
               .variants = std::move(variants),
               .students = {},
               .training = {},
               .outcomes = {},
               .proofs = {},
               .prompt = {}};
  std::vector<std::string_view> names;
  for (const variant v : e.variants) {
    names.push_back(name_of(v));
    student& s = e.students.emplace_back();
    s.name = name_of(v);
    s.model = make_learner(kind, v);
  }
  e.how = e.students.front().model->how_to_read();
  e.byte_entropy = byte_entropy(e.text.held_out);
  e.prompt = choose_prompt(e.text.held_out, e.how.encodes ? e.how.source - 1 : prompt_bytes);

  const std::string how_long = o.steps > 0 ? fmt::format("{} steps", grouped(o.steps))
                                           : fmt::format("{:.3g} minutes", o.minutes);
  say("{}: {} bytes to learn from, {} held out\n", e.text.name,
      grouped(std::ssize(e.text.training)), grouped(std::ssize(e.text.held_out)));
  say("training {} side by side on the same examples: {}, {} thread{}\n", fmt::join(names, ", "),
      how_long, o.threads, o.threads == 1 ? "" : "s");
  e.training = train_together(e.students, e.text, o);
  say("{} steps in {:.0f} s; collapsing, quantizing and measuring\n", grouped(e.training.steps),
      e.training.seconds);
  measure(e);
  return e;
}

}  // namespace zoo
