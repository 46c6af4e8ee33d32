// SPDX-License-Identifier: MIT
#include "tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "support/basics.hpp"

namespace study {

namespace {

using support::block, support::cell, support::outcome, support::results, support::row,
    support::statistics, support::statistics_of, support::table;
using enum support::source;
constexpr double none = std::numeric_limits<double>::quiet_NaN();
using which_versions = std::vector<const version*>;

constexpr double backward_and_forward = 3;  // times a forward call

costs cost_of(const version& v, bool full, ln::index batch, ln::index length) {
  return v.make(full, {})->cost(batch, length);
}
double floating(ln::index n) { return static_cast<double>(n); }

/// A figure of each seed; not a number where a seed has no result.
std::vector<double> of_seeds(const version& v, const scale& s, const results& known,
                             const std::string& figure) {
  std::vector<double> all;
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(s.seeds); ++seed) {
    const outcome* const o = known.find(job_name(v, seed));
    all.push_back(o ? (*o)[figure] : none);
  }
  return all;
}
std::optional<statistics> summary(std::vector<double> values) {
  std::erase_if(values, [](double x) { return std::isnan(x); });
  return statistics_of(values);
}
void add(row& r, const std::optional<statistics>& st) {
  r.cells.emplace_back(st ? st->mean : none);
  r.cells.emplace_back(st ? st->deviation : none);
}

table comparison(const scale& s, const which_versions& which, const results& known) {
  block budget{.title = "At equal training FLOPs",
               .columns = {{derived, "parameters"},
                           {derived, "outside tables"},
                           {derived, "kFLOPs/token", 1},
                           {derived, "steps"},
                           {derived, "tokens"},
                           {derived, "TFLOPs of training", 3},
                           {measured, "tokens/s"},
                           {measured, "seconds a run", 1}}};
  block quality{.title = "Held-out bits per byte",
                .columns = {{measured, "mean", 4},
                            {measured, "sd", 4},
                            {measured, "best", 4},
                            {measured, "less the baseline's", 4},
                            {measured, "standard error", 4},
                            {measured, "runs"}}};
  const ln::index window_tokens = s.batch * s.length;
  const ln::index base = cost_of(versions()[0], s.full, s.batch, s.length).forward;
  const auto baseline = of_seeds(versions()[0], s, known, "bits");
  for (const version* v : which) {
    const costs c = cost_of(*v, s.full, s.batch, s.length);
    const ln::index steps = equal_steps(s.steps, base, c.forward);
    const auto seconds = summary(of_seeds(*v, s, known, "seconds"));
    const outcome* const speed = known.find(speed_name(*v));
    budget.rows.push_back(
        {std::string(v->label),
         {floating(c.parameters), floating(c.non_embedding),
          floating(c.forward) / floating(window_tokens) / 1e3, floating(steps),
          floating(steps * s.parts * window_tokens),
          backward_and_forward * floating(c.forward) * floating(steps * s.parts) / 1e12,
          speed ? (*speed)["tokens/s"] : none, seconds ? seconds->mean : none}});

    // Seeds are pairs: the same number is the same order of examples for all versions.
    std::vector<double> bits = of_seeds(*v, s, known, "bits"), difference = bits;
    for (std::size_t i = 0; i < bits.size(); ++i) difference[i] -= baseline[i];
    const auto st = summary(bits), less = summary(difference);
    row r{std::string(v->label), {}};
    add(r, st);
    r.cells.emplace_back(st ? st->least : none);
    const bool compares = less && v != &versions()[0];
    r.cells.emplace_back(compares ? less->mean : none);
    r.cells.emplace_back(compares ? less->deviation / std::sqrt(less->runs) : none);
    r.cells.emplace_back(floating(st ? st->runs : 0));
    quality.rows.push_back(std::move(r));
  }
  budget.note =
      "FLOPs of a forward call over a batch; training costs three times as much. A version takes "
      "as many steps as cost what the baseline's do. Tokens/s: training steps in one thread, "
      "nothing else running.";
  quality.note = fmt::format(
      "All texts together, no token sees a later one. Differences are paired by seed; one of less "
      "than two standard errors says nothing. Scale {}: {} windows of {} tokens a step, {} seeds.",
      s.name, s.batch * s.parts, s.length, s.seeds);
  quality.bars = 0;
  return {"versions",
          "Versions of the baseline",
          "The same text, tokenizer, optimizer and schedule for all.",
          {budget, quality}};
}

table by_text(const scale& s, const which_versions& which, const results& known) {
  std::set<std::string> names;
  for (const version* v : which)
    if (const outcome* const o = known.find(job_name(*v, 1)))
      for (const auto& [figure, value] : o->figures)
        if (figure.starts_with("bits/")) names.insert(figure);
  block b{.title = "Held-out bits per byte, mean and standard deviation"};
  for (const version* v : which) b.rows.push_back({std::string(v->label), {}});
  for (const std::string& name : names) {
    b.columns.push_back({measured, name.substr(5), 4});
    b.columns.push_back({measured, name.substr(5) + ", sd", 4});
    for (std::size_t i = 0; i < which.size(); ++i)
      add(b.rows[i], summary(of_seeds(*which[i], s, known, name)));
  }
  return {"texts", "By text", "Where the bits are.", {b}};
}

table curves(const scale& s, const which_versions& which, const results& known) {
  constexpr const char* styles[] = {"standard", "skip", "v-1w", "v-1w-relu", "v-2w", "v-3w"};
  table t{.id = "curves",
          .title = "While training",
          .about = "Held-out bits per byte of the first seed; all have spent the same at the end.",
          .blocks = {}};
  t.over = "GFLOPs of training";
  for (std::size_t i = 0; i < which.size(); ++i) {
    const outcome* const o = known.find(job_name(*which[i], 1));
    if (o == nullptr) continue;
    const double each = backward_and_forward * floating(s.parts) *
                        floating(cost_of(*which[i], s.full, s.batch, s.length).forward) / 1e9;
    support::plot_line line{std::string(which[i]->label), styles[i % std::size(styles)], {}, {}};
    for (const auto& [step, bits] : o->held_out) line.points.emplace_back(step * each, bits);
    // From the second point on: the first is the logarithm of the vocabulary.
    if (line.points.size() > 2) t.top = std::max(t.top, line.points[2].second);
    t.curves.push_back(std::move(line));
  }
  return t;
}

/// What the same changes make of the paper's model.
table at_size(const which_versions& which) {
  constexpr ln::index batch = 24, length = 512;
  block b{.title = "Table 1's shape: 10 layers of width 512, GPT-2's 50,257 tokens",
          .columns = {{derived, "parameters"},
                      {derived, "outside tables"},
                      {derived, "of the baseline's (%)", 1},
                      {derived, "MFLOPs/token", 1},
                      {derived, "memory of training (GB)", 2}}};
  const ln::index base = cost_of(versions()[0], true, batch, length).parameters;
  for (const version* v : which) {
    const costs c = cost_of(*v, true, batch, length);
    b.rows.push_back(
        {std::string(v->label),
         {floating(c.parameters), floating(c.non_embedding),
          100 * floating(c.parameters) / floating(base),
          floating(c.forward) / floating(batch * length) / 1e6, floating(c.memory) / 1e9}});
  }
  b.note =
      "FLOPs of a forward call; weights, moments, gradients and buffers of training on 24 windows "
      "of 512 tokens at a time, f32.";
  return {
      "table-1", "At the paper's size", "Derived from the types; nothing is trained here.", {b}};
}

table samples(const which_versions& which, const results& known) {
  table t{.id = "samples",
          .title = "What they write",
          .about =
              "The first seed's models after the words before the bar, temperature 0.8, top-p "
              "0.95.",
          .blocks = {}};
  for (const version* v : which)
    if (const outcome* const o = known.find(job_name(*v, 1)))
      for (const auto& [name, text] : o->texts)
        t.samples.push_back({fmt::format("{}, {}", v->label, name), text});
  return t;
}

}  // namespace

std::vector<table> make_tables(const scale& s, const which_versions& which, const results& known) {
  return {comparison(s, which, known), curves(s, which, known), by_text(s, which, known),
          at_size(which), samples(which, known)};
}

}  // namespace study
