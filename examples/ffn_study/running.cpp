#include "running.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <linnet/eval/evaluator.hpp>

#include "learner.hpp"
#include "support/basics.hpp"
#include "support/progress.hpp"

namespace study {

namespace {

constexpr ln::index curve_points = 20;      // of the held-out loss
constexpr std::uint64_t held_out_seed = 0;  // of the masks: the same for all

/// Median of some repetitions.
double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + std::ssize(times) / 2, times.end());
  return times[times.size() / 2];
}

/// Largest change of a logit from one scorer to another, and equal predictions.
struct comparison {
  double change = 0;
  ln::index equal = 0, compared = 0;
};
void compare(scorer& before, scorer& after, const ln::t5_batch& b, comparison& c) {
  const auto vocabulary = static_cast<std::size_t>(byte_vocabulary);
  const auto rows = static_cast<std::size_t>(b.batch * b.target_length);
  std::vector<float> x(rows * vocabulary), y(x.size());
  before.nats(b, x);
  after.nats(b, y);
  for (std::size_t i = 0; i < rows; ++i) {
    if (b.labels[i] == ln::ignored) continue;
    const float *const p = &x[i * vocabulary], *const q = &y[i * vocabulary];
    for (std::size_t k = 0; k < vocabulary; ++k)
      c.change = std::max(c.change, std::abs(static_cast<double>(p[k] - q[k])));
    c.equal += std::max_element(p, p + vocabulary) - p == std::max_element(q, q + vocabulary) - q;
    ++c.compared;
  }
}

/// Time and memory of T5-Mini's blocks, trained and deployed, by turns.
outcome measure_cost(const job& j, const workshop& w) {
  outcome o{.job = j.name, .figures = {}, .training = {}, .held_out = {}};
  const ln::index n = 128;
  std::vector<ln::token> tokens(static_cast<std::size_t>(n), first_byte + 'e');
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] += static_cast<ln::token>(i % 20);
  const ln::t5_batch call{tokens.data(), nullptr, tokens.data(), 1, n, n};
  const ln::limits limits{.batch = 1, .source = n, .target = n};

  const auto m = make_true_mini(j.what);
  m->initialize(1);
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
      {"ms.trained", median(times[0])},           {"ms.deployed", median(times[1])},
      {"bytes.trained", before->weight_bytes()},  {"bytes.deployed", after->weight_bytes()},
      {"memory.trained", before->memory_bytes()}, {"memory.deployed", after->memory_bytes()}};
  if (collapses(recipe_of(j.what))) {
    comparison c;
    compare(*before, *after, call, c);
    o.figures["change"] = c.change;
  }
  return o;
}

/// The rates of the report (zoo A10), the warm-up scaled from its 524,288 steps to these.
ln::schedule rate_of(const job& j) {
  constexpr double report_steps = 524'288, highest = 4e-3;
  const double share = (j.start == warm_up::linear ? 20'000 : 10'000) / report_steps;
  const auto steps = std::max<ln::index>(1, std::lround(share * static_cast<double>(j.steps)));
  const double factor = highest * std::sqrt(static_cast<double>(steps));
  return j.start == warm_up::linear ? ln::schedule::inverse_sqrt_linear(steps, factor)
                                    : ln::schedule::inverse_sqrt(steps, factor);
}

/// Nats and masked bytes of the held-out examples.
struct examination {
  double nats = 0;
  ln::index bytes = 0;
  double bits() const { return ln::bits_per_byte(nats, bytes); }
};
template <class Model>
examination examine(Model& m, const workshop& w) {
  denoising_examples held_out(w.text.held_out, w.size.batch, w.size.bytes, held_out_seed);
  examination e;
  for (ln::index i = 0; i < w.size.checked; i += w.size.batch) {
    const ln::t5_batch b = held_out.batch(static_cast<std::uint64_t>(i));
    e.nats += m.nats(b);
    e.bytes += masked_bytes(b);
  }
  return e;
}

outcome pretrain(const job& j, const workshop& w) {
  if (!j.teacher.empty()) throw support::failure("distillation comes with linnet's own");
  outcome o{.job = j.name, .figures = {}, .training = {}, .held_out = {}};
  denoising_examples examples(w.text.training, w.size.batch, w.size.bytes, j.seed);
  const ln::limits limits{
      .batch = w.size.batch, .source = examples.source(), .target = examples.target()};
  const auto m = make_learner(j.what);
  m->weights().initialize(j.seed);
  m->begin({.limits = limits, .rate = rate_of(j), .seed = j.seed});
  double seconds = 0;
  for (ln::index step = 0;; ++step) {
    const bool last = step == j.steps;
    if (last || step * curve_points / j.steps > (step - 1) * curve_points / j.steps)
      o.held_out.emplace_back(static_cast<double>(step), examine(*m, w).bits());
    if (last) break;
    const ln::t5_batch b = examples.batch(static_cast<std::uint64_t>(step * w.size.batch));
    const double start = support::now();
    const double nats = m->step(b);
    seconds += support::now() - start;
    if (!ln::is_finite(nats)) throw support::failure(j.name + ": the loss is not finite");
  }
  m->finish();
  const auto before = m->weights().deploy(false, limits);
  o.figures = {{"bits", examine(*before, w).bits()},
               {"seconds", seconds},
               {"steps", j.steps},
               {"parameters", m->weights().parameters(false)}};
  if (collapses(recipe_of(j.what))) {
    const auto after = m->weights().deploy(true, limits);
    denoising_examples held_out(w.text.held_out, w.size.batch, w.size.bytes, held_out_seed);
    comparison c;
    for (ln::index i = 0; i < w.size.checked; i += w.size.batch)
      compare(*before, *after, held_out.batch(static_cast<std::uint64_t>(i)), c);
    o.figures.insert({{"collapsed.bits", examine(*after, w).bits()},
                      {"collapsed.change", c.change},
                      {"collapsed.equal", c.equal},
                      {"collapsed.compared", c.compared}});
  }
  m->weights().save(w.runs + "/" + j.name + ".safetensors");
  return o;
}

}  // namespace

outcome run_job(const job& j, const workshop& w) {
  return j.kind == job_kind::cost ? measure_cost(j, w) : pretrain(j, w);
}

}  // namespace study
