// SPDX-License-Identifier: MIT
#include "running.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <linnet/eval/classifier.hpp>
#include <linnet/eval/evaluator.hpp>

#include "baselines.hpp"
#include "learner.hpp"
#include "support/marks.hpp"
#include "support/training.hpp"

namespace study {

namespace {

constexpr std::uint64_t held_out_seed = 0;  // of the masks: the same for all

/// Largest logit and change of one from a scorer to another, and equal predictions.
struct comparison {
  double largest = 0, change = 0;
  ln::index equal = 0, compared = 0;
};
template <class Model>
void compare(Model& before, Model& after, const ln::t5_batch& b, ln::index ids, comparison& c) {
  const auto vocabulary = static_cast<std::size_t>(ids);
  const auto rows = static_cast<std::size_t>(b.batch * b.target_length);
  std::vector<float> x(rows * vocabulary), y(x.size());
  before.nats(b, x);
  after.nats(b, y);
  for (std::size_t i = 0; i < rows; ++i) {
    if (b.labels[i] == ln::ignored) continue;
    const float *const p = &x[i * vocabulary], *const q = &y[i * vocabulary];
    for (std::size_t k = 0; k < vocabulary; ++k) {
      c.largest = std::max(c.largest, std::abs(static_cast<double>(p[k])));
      c.change = std::max(c.change, std::abs(static_cast<double>(p[k] - q[k])));
    }
    c.equal += std::max_element(p, p + vocabulary) - p == std::max_element(q, q + vocabulary) - q;
    ++c.compared;
  }
}

/// Time and memory of T5-Mini's blocks, trained and deployed, by turns.
outcome measure_cost(const job& j, const workshop& w) {
  outcome o{.job = j.name, .figures = {}, .held_out = {}};
  const ln::index n = 128;
  std::vector<ln::token> tokens(static_cast<std::size_t>(n), 'e' + bytes_of_text.offset);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] += static_cast<ln::token>(i % 20);
  const ln::t5_batch call{tokens.data(), nullptr, tokens.data(), 1, n, n};
  const ln::limits limits{.batch = 1, .source = n, .target = n};

  const auto m = make_true_mini(j.what);
  const auto before = m->deploy(false, limits), after = m->deploy(true, limits);
  std::vector<double> times[2];
  for (int round = -1; round < w.size.timings; ++round)
    for (const bool collapsed : {false, true}) {
      scorer& s = collapsed ? *after : *before;
      s.nats(call);  // brings its weights into the cache
      const double start = support::now();
      s.nats(call);
      if (round >= 0) times[collapsed].push_back(1e3 * (support::now() - start));
    }
  o.figures = {
      {"ms.trained", support::median(times[0])},  {"ms.deployed", support::median(times[1])},
      {"bytes.trained", before->weight_bytes()},  {"bytes.deployed", after->weight_bytes()},
      {"memory.trained", before->memory_bytes()}, {"memory.deployed", after->memory_bytes()}};
  if (collapses(recipe_of(j.what))) {
    comparison c;
    compare(*before, *after, call, byte_vocabulary, c);
    o.figures["change"] = c.change / c.largest;
  }
  return o;
}

/// The report's rates (Lee et al. 2023): factor / sqrt(step); while warming up linear, or constant
/// for half as long.
ln::schedule rate_of(const job& j, const scale& s) {
  const double steps =
      std::max(2.0, s.warm_up * static_cast<double>(j.planned > 0 ? j.planned : j.steps));
  const double factor = s.highest_rate * std::sqrt(steps);
  return j.start == warm_up::linear ? ln::schedule::inverse_sqrt_linear(std::lround(steps), factor)
                                    : ln::schedule::inverse_sqrt(std::lround(steps / 2), factor);
}

/// Bits per masked byte of the held-out examples.
double examine(learner& m, const workshop& w) {
  auto held_out = denoise(w.held_out, w.reads, w.size.batch, w.size.length, held_out_seed);
  double nats = 0;
  ln::index bytes = 0;
  for (ln::index i = 0; i < w.size.checked; i += w.size.batch) {
    const ln::t5_batch b = held_out.batch(static_cast<std::uint64_t>(i));
    nats += m.nats(b);
    bytes += masked_bytes(b, w.reads);
  }
  return ln::bits_per_byte(nats, bytes);
}

/// The teacher of a job, if it has one.
class tutor {
 public:
  tutor() = default;
  tutor(const job& j, const workshop& w, const ln::limits& l) {
    if (j.needs.empty() || j.restarts) return;
    // One teacher and one order of the batches.
    course_ = w.heard.attend(fmt::format("{} {}", j.needs, j.seed));
    until_ = j.taught > 0 ? j.taught : j.steps;
    model_ = make_learner(model_of(j.needs));
    model_->load(w.runs + "/" + j.needs + ".safetensors");
    model_->begin({.limits = l, .rate = {}});
    objective_ = taught({.alpha = j.alpha, .temperature = j.temperature}, trained_vocabulary);
  }
  taught& prepare(const ln::t5_batch& b, ln::index step) {
    if (!model_) return objective_;
    if (step >= until_) return labels_;  // stopped early
    said_ = nullptr;
    const auto numbers = static_cast<std::size_t>(b.batch * b.target_length * trained_vocabulary);
    said_ = course_->hear(step, sizeof(float) * numbers, [&] {
      std::vector<float> logits(numbers);
      model_->nats(b, logits);
      return std::make_shared<const std::vector<float>>(std::move(logits));
    });
    objective_.listen(*said_);
    return objective_;
  }

 private:
  std::unique_ptr<learner> model_;
  std::shared_ptr<lectures::course> course_;
  lectures::logits said_;
  ln::index until_ = 0;  ///< the step with which it falls silent
  taught objective_, labels_;
};

/// Takes the steps of a job from where it stands; false if it was put off. `examples(i)` gives the
/// batch that begins with example i.
template <class Examples, class Look>
bool take_steps(const job& j, const workshop& w, learner& m, support::run_record& r, tutor& teacher,
                Examples&& examples, Look&& look) {
  return support::take_steps(
      w.runs + "/" + j.name, m, r, w.deadline,
      [&](ln::index step) {
        const ln::t5_batch b = examples(static_cast<std::uint64_t>(step * w.size.batch));
        return m.step(b, teacher.prepare(b, step));
      },
      look);
}

/// Where a job leaves its optimizer's state, too, for others that go on from it.
std::string state_of(const workshop& w, const std::string& job) {
  return w.runs + "/" + job + ".state";
}

std::optional<outcome> pretrain(const job& j, const workshop& w) {
  auto examples = denoise(w.training, w.reads, w.size.batch, w.size.length, j.seed);
  const ln::example_limits most = examples.planned();
  const ln::limits limits{.batch = most.batch, .source = most.source, .target = most.target};
  const training_plan plan{.limits = limits,
                           .rate = rate_of(j, w.size),
                           .clip = w.size.clip,
                           .dropout = w.size.dropout,
                           .seed = j.restarts ? 1 : j.seed};
  tutor teacher(j, w, limits);
  const auto m = make_learner(j.what);
  m->initialize(j.seed);
  m->begin(plan);
  support::run_record r{.steps = j.steps,
                        .batch = w.size.batch,
                        .length = w.size.length,
                        .rate = w.size.highest_rate,
                        .data = w.data};
  if (j.restarts) {
    support::run_record before;
    const std::string from = state_of(w, j.needs);
    if (!m->load_checkpoint(from, std::as_writable_bytes(std::span(&before, 1))))
      throw support::failure(from + ": is not there");
    // Its log goes on, too.
    std::filesystem::copy_file(w.runs + "/" + j.needs + ".jsonl", w.runs + "/" + j.name + ".jsonl",
                               std::filesystem::copy_options::skip_existing);
  }
  const auto look = [&](ln::index step, support::run_record& to) {
    to.look(step, [&] { return examine(*m, w); });
  };
  if (!take_steps(
          j, w, *m, r, teacher, [&](std::uint64_t i) { return examples.batch(i); }, look))
    return std::nullopt;

  outcome o{.job = j.name, .figures = {}, .held_out = r.curve()};
  o.figures = {{"bits", o.held_out.back().second},
               {"seconds", r.seconds},
               {"steps", j.steps},
               {"parameters", m->parameters()}};
  if (collapses(recipe_of(j.what))) {
    const auto after = make_learner(model::one);
    m->collapse_into(*after);
    after->begin(plan);
    auto held_out = denoise(w.held_out, w.reads, w.size.batch, w.size.length, held_out_seed);
    comparison c;
    for (ln::index i = 0; i < w.size.checked; i += w.size.batch)
      compare(*m, *after, held_out.batch(static_cast<std::uint64_t>(i)), trained_vocabulary, c);
    o.figures.insert({{"collapsed.bits", examine(*after, w)},
                      {"collapsed.change", c.change / c.largest},
                      {"collapsed.equal", c.equal},
                      {"collapsed.compared", c.compared}});
  }
  m->save(w.runs + "/" + j.name + ".safetensors");
  if (j.keeps_state) m->save_checkpoint(state_of(w, j.name), std::as_bytes(std::span(&r, 1)));
  return o;
}

/// Chooses among label texts, by the summed log-probability of all their tokens.
class judge {
 public:
  judge(std::vector<std::vector<ln::token>> labels, const ln::limits& l)
      : labels_(std::move(labels)),
        asked_(static_cast<std::size_t>(l.batch * l.target)),
        logits_(asked_.size() * static_cast<std::size_t>(trained_vocabulary)) {}

  std::vector<ln::index> classify(learner& m, ln::t5_batch b) {
    std::vector<ln::index> chosen(static_cast<std::size_t>(b.batch));
    std::vector<double> best(chosen.size(), -HUGE_VAL);
    for (std::size_t c = 0; c < labels_.size(); ++c) {
      const std::size_t n = labels_[c].size();
      for (std::size_t i = 0; i < chosen.size(); ++i)
        std::copy(labels_[c].begin(), labels_[c].end(), asked_.begin() + std::ptrdiff_t(i * n));
      b.labels = asked_.data();
      b.target_length = std::ssize(labels_[c]);
      if (!ln::is_finite(m.nats(b, logits_))) throw support::failure("answers are not finite");
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        double score = 0;
        for (std::size_t k = 0; k < n; ++k) score += log_probability(i * n + k, labels_[c][k]);
        if (score > best[i]) best[i] = score, chosen[i] = static_cast<ln::index>(c);
      }
    }
    return chosen;
  }

 private:
  double log_probability(std::size_t row, ln::token t) const {
    const float* const x = &logits_[row * static_cast<std::size_t>(trained_vocabulary)];
    const double most = *std::max_element(x, x + trained_vocabulary);
    double sum = 0;
    for (ln::index k = 0; k < trained_vocabulary; ++k) sum += std::exp(x[k] - most);
    return x[t] - most - std::log(sum);
  }

  std::vector<std::vector<ln::token>> labels_;
  std::vector<ln::token> asked_;  ///< [batch, label]
  std::vector<float> logits_;
};

/// A result that is still empty. On a mixture it depends on what that is made of.
outcome asked_by(const job& j, const std::vector<task>& tasks) {
  outcome o{.job = j.name, .figures = {}, .held_out = {}};
  if (j.task == "glue") o.settings["tasks"] = mixture_of(tasks);
  return o;
}

/// Fine-tuning with a constant rate, as the report, then the exams, before and after collapsing.
/// Several tasks are one training set, so that each example counts as much as any other.
std::optional<outcome> tune(const job& j, const workshop& w) {
  const std::vector<task>& tasks = w.tasks.at(j.task);
  const auto encode = [&](std::string_view text) { return w.reads.encode(text); };
  using label_texts = std::vector<std::vector<ln::token>>;
  std::vector<label_texts> labels(tasks.size());
  std::vector<ln::text_pair> pairs;
  ln::index target = 1;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    for (const std::string_view label : tasks[i].words.labels) {
      labels[i].push_back(encode(label));
      labels[i].back().push_back(ln::t5_ids::end);
      target = std::max(target, std::ssize(labels[i].back()));
    }
    if (tasks[i].judged_only) continue;
    pairs.insert(pairs.end(), tasks[i].training.begin(), tasks[i].training.end());
  }
  const ln::limits limits{
      .batch = w.size.batch, .source = w.size.tuning_length + 1, .target = target};
  const auto stream = [&](const std::vector<ln::text_pair>& some) {
    return support::take(ln::pair_stream::open(
        some, encode, {.batch = limits.batch, .source = limits.source, .target = target},
        ln::seed{j.seed}));
  };
  const training_plan plan{.limits = limits,
                           .rate = ln::schedule::constant(w.size.tuning_rate),
                           .clip = w.size.clip,
                           .dropout = w.size.tuning_dropout,
                           .seed = j.seed};
  const auto m = make_learner(j.what);
  m->load(w.runs + "/" + j.needs + ".safetensors");
  m->begin(plan);
  auto training = stream(pairs);
  support::run_record r{.steps = j.steps,
                        .batch = w.size.batch,
                        .length = w.size.tuning_length,
                        .rate = w.size.tuning_rate};
  for (const ln::text_pair& one : pairs)
    r.data = support::mark_of(one.target, support::mark_of(one.input, r.data));
  pairs = {};  // its tokens are enough
  tutor nobody;
  if (!take_steps(
          j, w, *m, r, nobody, [&](std::uint64_t i) { return training.batch(i); },
          [](ln::index, support::run_record&) {}))
    return std::nullopt;

  outcome o = asked_by(j, tasks);
  o.figures["seconds"] = r.seconds;
  std::unique_ptr<learner> after;
  if (collapses(recipe_of(j.what))) {
    after = make_learner(model::one);
    m->collapse_into(*after);
    after->begin(plan);
  }
  ln::index equal = 0, compared = 0;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    judge chooses(labels[t], limits);
    for (const task::exam& e : tasks[t].exams) {
      auto asked = stream(e.pairs);
      std::vector<ln::index> answers;
      for (ln::index i = 0; i < asked.epoch(); i += w.size.batch) {
        const ln::t5_batch b = asked.in_order(i);
        const auto given = chooses.classify(*m, b);
        const auto shipped = after ? chooses.classify(*after, b) : given;
        answers.insert(answers.end(), given.begin(), given.end());
        for (std::size_t k = 0; k < given.size(); ++k) equal += given[k] == shipped[k];
      }
      compared += std::ssize(answers);
      o.figures[e.name] = exam_figure(tasks[t], answers, e);
    }
  }
  if (after) o.figures.insert({{"equal", equal}, {"compared", compared}});
  return o;
}

outcome ask_baselines(const job& j, const workshop& w) {
  outcome o = asked_by(j, w.tasks.at(j.task));
  for (const task& t : w.tasks.at(j.task)) {
    if (t.words.name == "stsb") continue;  // scores, not classes
    for (const task::exam& e : t.exams) {
      const baselines found = baselines_of(t, e);
      o.figures.insert({{e.name + ".majority", 100 * found.majority},
                        {e.name + ".bag", 100 * found.bag_of_words},
                        {e.name + ".chance", 100.0 / static_cast<double>(t.words.labels.size())},
                        {e.name + ".asked", static_cast<double>(e.pairs.size())}});
    }
  }
  return o;
}

}  // namespace

std::optional<outcome> run_job(const job& j, const workshop& w) {
  switch (j.kind) {
    case job_kind::cost:
      return measure_cost(j, w);
    case job_kind::tuning:
      return tune(j, w);
    case job_kind::baseline:
      return ask_baselines(j, w);
    default:
      return pretrain(j, w);
  }
}

}  // namespace study
