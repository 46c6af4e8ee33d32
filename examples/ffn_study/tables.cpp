// SPDX-License-Identifier: MIT
#include "tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "accounting.hpp"
#include "pieces.hpp"
#include "support/basics.hpp"

namespace study {

namespace {

using support::block, support::cell, support::outcome, support::results, support::row,
    support::statistics_of, support::table;
using enum support::source;
constexpr double none = std::numeric_limits<double>::quiet_NaN();

double millions(ln::index n) { return static_cast<double>(n) / 1e6; }
double thousand_millions(ln::index n) { return static_cast<double>(n) / 1e9; }

/// A row of tables 4.1, 4.3, 4.4 and 4.5 as published.
struct published_row {
  model what;
  const char* label;
  double score, change, flops, parameters;  ///< MNLI-mm, "FLOPs (M)", millions
};
/// What stands in tables 4.1, 4.3, 4.4 and 4.5; "3w" is "4x Expansion, 3W" in the last.
constexpr published_row published_rows[] = {
    {model::mini, "Baseline", 78.2, 0.0, 1.909, 15.351},
    {model::skip, "Skip FFN", 75.5, -2.7, 0.682, 5.907},
    {model::skip_encoder, "Skip encoder FFN", 76.1, -2.1, 1.296, 10.629},
    {model::heads, "1.5x heads", 79.2, 1.0, 2.246, 16.530},
    {model::width, "2x head size", 79.2, 1.0, 2.245, 16.530},
    {model::heads_width, "1.5x heads, 2x head size", 80.0, 1.8, 2.741, 18.273},
    {model::one, "1W", 76.5, -1.7, 1.291, 10.626},
    {model::one_relu, "1W + ReLU", 76.1, -2.1, 1.299, 10.626},
    {model::two, "2W", 76.7, -1.5, 1.291, 10.626},
    {model::three, "3W, 4x expansion", 77.2, -1.0, 1.291, 10.626},
    {model::three_2, "3W, 2x expansion", 77.3, -0.9, 1.291, 10.626},
    {model::three_1_5, "3W, 1.5x expansion", 76.7, -1.5, 1.291, 10.626},
    {model::three_1_2, "3W, 1.2x expansion", 76.6, -1.6, 1.291, 10.626},
};
const published_row& published_of(model m) {
  return *std::find_if(std::begin(published_rows), std::end(published_rows),
                       [&](const published_row& r) { return r.what == m; });
}

/// Published beside derived: the report's accounting and T5's true shape.
block summary(const std::vector<model>& models) {
  block b{.title = "Published, and derived by the report's accounting",
          .columns = {{published, "MNLI-mm", 1},
                      {published, "change", 1},
                      {published, "FLOPs (G)", 3},
                      {published, "parameters (M)", 3},
                      {derived, "GMAC", 3},
                      {derived, "parameters (M)", 3},
                      {derived, "parameters agree"}}};
  for (const model m : models) {
    const published_row& p = published_of(m);
    const double counted = millions(report_accounting(m));
    const bool agree = fmt::format("{:.3f}", counted) == fmt::format("{:.3f}", p.parameters);
    b.rows.push_back({p.label,
                      {p.score, p.change, p.flops, p.parameters, thousand_millions(report_macs(m)),
                       counted, agree ? "yes" : "no"}});
  }
  b.note =
      "The published FLOPs are headed (M) and must be thousands of millions. The derived columns "
      "are a reading of the report, found afterwards: one operation for a multiply-accumulate, 128 "
      "+ 128 tokens, value and output maps d by d, a 1W of d by f. They are not what the models of "
      "its Figure 3.1 cost; that is in the next part.";
  return b;
}

block exact(const std::vector<model>& models, bool wide) {
  block b{.title = fmt::format("Exact, T5-Mini with heads of width {}", wide ? 64 : 32),
          .columns = {{derived, "parameters, all"},
                      {derived, "without embedding, trained"},
                      {derived, "without embedding, deployed"},
                      {derived, "MACs, trained"},
                      {derived, "MACs, deployed"},
                      {derived, "other operations, trained"},
                      {derived, "other operations, deployed"}}};
  for (const model m : models) {
    const cost_pair c = mini_cost(m, wide);
    row r{published_of(m).label, {}};
    for (const ln::index n :
         {c.trained.parameters, c.trained.non_embedding, c.shipped.non_embedding, c.trained.macs,
          c.shipped.macs, c.trained.other, c.shipped.other})
      r.cells.emplace_back(static_cast<double>(n));
    b.rows.push_back(std::move(r));
  }
  b.note =
      "128 + 128 tokens; embedding and head are left out of the operations. Other operations: "
      "norms, residuals, ReLU, softmax and position bias.";
  return b;
}

block measured_cost(const std::vector<model>& models, const results& known) {
  block b{.title = "Cost on this machine: T5-Mini's blocks, heads of width 64, one thread",
          .columns = {{measured, "ms, trained", 2},
                      {measured, "ms, deployed", 2},
                      {measured, "bytes of weights, trained"},
                      {measured, "bytes of weights, deployed"},
                      {measured, "bytes of memory, trained"},
                      {measured, "bytes of memory, deployed"},
                      {measured, "change of logits"}},
          .rows = {},
          .note =
              "One forward call over 128 + 128 tokens, the median of repetitions; vocabulary of "
              "bytes, so embedding and head take next to nothing. Memory: packed weights and "
              "all buffers.",
          .bars = 1};
  if (!std::all_of(models.begin(), models.end(), has_measured_cost))
    b.note +=
        " 3W with inner widths below 4 d is not measured: deployed, it is the 1W that all 3W are.";
  for (const model m : models) {
    if (!has_measured_cost(m)) continue;
    const outcome* const o = known.find(fmt::format("cost.{}", name_of(m)));
    row r{published_of(m).label, std::vector<cell>(b.columns.size())};
    if (o != nullptr) {
      const char* const figures[] = {"ms.trained",     "ms.deployed",    "bytes.trained",
                                     "bytes.deployed", "memory.trained", "memory.deployed"};
      for (std::size_t i = 0; i < std::size(figures); ++i) r.cells[i] = (*o)[figures[i]];
      if (const double change = (*o)["change"]; !std::isnan(change))
        r.cells.back() = fmt::format("{:.1e}", change);
    }
    b.rows.push_back(std::move(r));
  }
  return b;
}

/// What a quality block shows of one figure; the best of seeds is the report's habit.
struct shown_figure {
  const char* task;  ///< of the tuning that finds it; none for pre-training itself
  const char* name;
  const char* words;
  bool most;  ///< more is better
  int decimals;
};
constexpr shown_figure qualities[] = {
    {"", "bits", "bits/byte", false, 3},   {"sst2", "sst2", "SST-2", true, 1},
    {"mnli", "mnli-m", "MNLI-m", true, 1}, {"mnli", "mnli-mm", "MNLI-mm", true, 1},
    {"glue", "cola", "CoLA", true, 1},     {"glue", "mrpc", "MRPC", true, 1},
    {"glue", "stsb", "STS-B", true, 1},    {"glue", "qqp", "QQP", true, 1},
    {"glue", "qnli", "QNLI", true, 1},     {"glue", "rte", "RTE", true, 1},
    {"glue", "wnli", "WNLI", true, 1}};

/// One row per series, statistics over its seeds; only of figures that some run has.
block quality(const std::vector<series>& rows, const scale& s, const results& known) {
  block b{.title = fmt::format("Quality of {} models, trained by this program", sizes_trained)};
  const auto values = [&](const series& one, std::string_view task, const char* figure) {
    std::vector<double> found;
    for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(s.seeds); ++seed) {
      const std::string trained = job_name(one, seed);
      const outcome* o = known.find(task.empty() ? trained : tuning_name(task, trained));
      if (o == nullptr && !task.empty()) o = known.find(tuning_name("glue", trained));
      if (o == nullptr) continue;
      if (const double v = (*o)[figure]; !std::isnan(v)) found.push_back(v);
    }
    return found;
  };
  for (const series& one : rows) b.rows.push_back({one.label, {}});
  for (const shown_figure& f : qualities) {
    const bool any = std::any_of(rows.begin(), rows.end(), [&](const series& one) {
      return !values(one, f.task, f.name).empty();
    });
    if (!any && f.name != std::string_view("bits")) continue;
    if (f.name == std::string_view("bits")) b.bars = static_cast<int>(b.columns.size());
    b.columns.push_back({measured, fmt::format("{}, best", f.words), f.decimals});
    b.columns.push_back({measured, fmt::format("{}, mean", f.words), f.decimals});
    b.columns.push_back({measured, fmt::format("{}, sd", f.words), f.decimals});
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto st = statistics_of(values(rows[i], f.task, f.name));
      auto& cells = b.rows[i].cells;
      cells.emplace_back(st ? (f.most ? st->most : st->least) : none);
      cells.emplace_back(st ? st->mean : none);
      cells.emplace_back(st ? st->deviation : none);
    }
  }
  b.columns.push_back({measured, "runs"});
  b.columns.push_back({measured, "seconds a run"});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto times = statistics_of(values(rows[i], "", "seconds"));
    b.rows[i].cells.emplace_back(times ? times->runs : none);
    b.rows[i].cells.emplace_back(times ? times->mean : none);
  }
  b.note = fmt::format(
      "Bits per masked byte of held-out denoising: the whole target, sentinels included, over the "
      "bytes that were masked. That runs of masked bytes have random ends takes 0.6 bits of them "
      "in "
      "any model. Scale {}: {} steps of {} examples of {} {}.",
      s.name, support::grouped(s.steps), s.batch, s.length, true_shapes ? "pieces" : "bytes");
  return b;
}

/// Whether collapsing kept the function, per model that collapses.
block collapse_check(const std::vector<model>& models, const scale& s, const results& known) {
  block b{.title = "Before and after collapsing the trained models",
          .columns = {{measured, "bits/byte before", 6},
                      {measured, "after", 6},
                      {measured, "change of logits"},
                      {measured, "equal predictions"},
                      {measured, "predictions"}},
          .rows = {},
          .note = "Change of logits: the largest, in units of the largest logit; f32."};
  using tuning = std::pair<std::string_view, std::string_view>;
  const std::vector<tuning> tunings =
      s.glue ? std::vector<tuning>{{"glue", "GLUE"}}
             : std::vector<tuning>{{"sst2", "SST-2"}, {"mnli", "MNLI"}};
  for (const tuning& t : tunings)
    b.columns.push_back({measured, fmt::format("equal answers, {}", t.second)});
  for (const model m : models) {
    if (!collapses(recipe_of(m))) continue;
    const std::string name = job_name({.label = {}, .name = std::string(name_of(m))}, 1);
    const outcome* const o = known.find(name);
    row r{published_of(m).label, std::vector<cell>(b.columns.size())};
    if (o != nullptr) {
      const char* const figures[] = {"bits", "collapsed.bits", "", "collapsed.equal",
                                     "collapsed.compared"};
      for (std::size_t i = 0; i < std::size(figures); ++i) r.cells[i] = (*o)[figures[i]];
      if (const double change = (*o)["collapsed.change"]; !std::isnan(change))
        r.cells[2] = fmt::format("{:.1e}", change);
    }
    for (std::size_t i = 0; i < tunings.size(); ++i)
      if (const outcome* const tuned = known.find(tuning_name(tunings[i].first, name)))
        r.cells[5 + i] = fmt::format("{} of {}", (*tuned)["equal"], (*tuned)["compared"]);
    b.rows.push_back(std::move(r));
  }
  return b;
}

/// What the tasks give without a language model.
block without_models(const results& known) {
  block b{.title = "Tasks without a language model",
          .columns = {{measured, "chance", 1},
                      {measured, "majority class", 1},
                      {measured, "bag of words", 1},
                      {measured, "standard error", 1},
                      {measured, "examples"}},
          .note =
              "Bag of words: multinomial naive Bayes on the same training set. differences "
              "below twice the standard error say nothing."};
  for (const char* const exam :
       {"sst2", "mnli-m", "mnli-mm", "cola", "mrpc", "qqp", "qnli", "rte", "wnli"}) {
    const outcome* o = known.find(fmt::format("baseline.{}", std::string(exam).substr(0, 4)));
    if (o == nullptr) o = known.find("baseline.glue");
    if (o != nullptr && !std::isnan((*o)[fmt::format("{}.bag", exam)])) {
      const auto figure = [&](const char* what) { return (*o)[fmt::format("{}.{}", exam, what)]; };
      const double share = figure("bag") / 100, asked = figure("asked");
      b.rows.push_back({exam,
                        {figure("chance"), figure("majority"), figure("bag"),
                         100 * std::sqrt(share * (1 - share) / asked), asked}});
    }
  }
  return b;
}

table ablation(std::string_view id, const char* title, const char* about, const scale& s,
               const results& known) {
  const std::vector<model> models = models_of(id);
  std::vector<series> rows;
  for (const model m : models) rows.push_back({published_of(m).label, std::string(name_of(m)), m});
  table t{std::string(id), title, about, {}, {}};
  t.blocks = {summary(models), exact(models, false), exact(models, true),
              measured_cost(models, known), quality(rows, s, known)};
  if (block b = collapse_check(models, s, known); !b.rows.empty()) t.blocks.push_back(std::move(b));
  if (block b = without_models(known); !b.rows.empty()) t.blocks.push_back(std::move(b));
  return t;
}

table sizes() {
  struct size {
    const char* name;
    const char* published;
    ln::t5_shape shape;
    ln::index narrow, wide;
  };
  namespace zs = ln::zoo::shapes;
  constexpr ln::t5_shape base_32 = zs::t5_efficient(12, 3072, 768, 12, 32);
  constexpr size all[] = {
      {"Tiny", "16M", zs::t5_tiny_kv32, ln::zoo::t5_tiny_kv32::parameters(),
       ln::zoo::t5_tiny::parameters()},
      {"Mini", "31M", zs::t5_mini_kv32, ln::zoo::t5_mini_kv32::parameters(),
       ln::zoo::t5_mini::parameters()},
      {"Small", "60M", zs::t5_small_kv32, ln::zoo::t5_small_kv32::parameters(),
       ln::zoo::t5_small::parameters()},
      {"Base", "220M", zs::t5_base, ln::t5<base_32>::parameters(), ln::zoo::t5_base::parameters()}};
  block b{.title = "Parameters, embedding included",
          .columns = {{published, "layers"},
                      {published, "d_ff"},
                      {published, "d_model"},
                      {published, "d_kv"},
                      {published, "heads"},
                      {published, "parameters"},
                      {derived, "with d_kv 32"},
                      {derived, "with d_kv 64"}}};
  for (const size& z : all)
    b.rows.push_back({z.name,
                      {fmt::format("{}/{}", z.shape.encoder_layers, z.shape.decoder_layers),
                       static_cast<double>(z.shape.d_ff), static_cast<double>(z.shape.d_model),
                       static_cast<double>(z.shape.d_kv), static_cast<double>(z.shape.heads),
                       z.published, static_cast<double>(z.narrow), static_cast<double>(z.wide)}});
  b.note =
      "The published totals belong to heads of width 64: with 32, Tiny, Mini and Small would have "
      "14M, 27M and 51M. The released T5-efficient models of these names have d_kv 64, too; the 32 "
      "comes from the table of their model card.";
  return {"3.1", "Model sizes", "T5's shapes with the vocabulary of 32,128, tied.", {b}, {}};
}

table more_steps(const scale& s, const results& known) {
  block p{
      .title = "As published",
      .columns = {{published, "MNLI-mm", 1},
                  {published, "change", 1},
                  {published, "tokens"},
                  {derived, "tokens (G)", 2}},
      .rows = {},
      .note = "Derived: 524,288 steps (and 2, 4, 10 times as many) of 128 examples of 512 tokens.",
      .bars = -1};
  const auto tokens = [](int times) { return 524'288.0 * 128 * 512 * times / 1e9; };
  p.rows = {{"500k steps", {78.2, 0.0, "34B", tokens(1)}},
            {"1M", {79.0, 0.8, "68B", tokens(2)}},
            {"2M", {79.4, 1.2, "136B", tokens(4)}},
            {"5M", {80.1, 1.9, "340B", tokens(10)}}};
  return {"4.2",
          "More steps",
          "The baseline, trained for longer.",
          {p, quality(longer_trainings(s), s, known)},
          {}};
}

table distillation(const scale& s, const results& known) {
  block p{.title = "As published",
          .columns = {{published, "MNLI-mm", 1},
                      {published, "sd", 2},
                      {published, "change", 1},
                      {published, "alpha", 1},
                      {published, "T", 1}},
          .rows = {{"Mini alone", {78.2, .32, {}, {}, {}}},
                   {"Small -> Mini", {79.5, .56, 1.3, .1, 3.}},
                   {"Base -> Mini", {79.4, 2.18, 1.2, .9, 4.}},
                   {"Tiny alone", {76.3, .39, {}, {}, {}}},
                   {"Small -> Tiny", {77.7, .99, 1.4, .1, 2.}},
                   {"Base -> Tiny", {77.7, 3.35, 1.4, .9, 4.}}},
          .note =
              "alpha is the share of the hard labels in the loss, T the temperature of both "
              "distributions.",
          .bars = -1};
  std::vector<series> rows = distillations(s);
  for (series& r : rows)
    if (r.alpha != 1) r.label += fmt::format(", alpha {}, T {}", r.alpha, r.temperature);
  rows.push_back({"teacher small", "small", model::small});
  rows.push_back({"teacher base", "base", model::base});
  return {"4.6",
          "Distillation",
          "Students of a teacher's probabilities.",
          {p, quality(rows, s, known)},
          {}};
}

/// How far the ends of the seeds of each series lie apart.
block spread_of_seeds(const std::vector<series>& rows, const results& known) {
  block b{.title = "Held-out bits per byte at the end",
          .columns = {{measured, "best", 3},
                      {measured, "worst", 3},
                      {measured, "mean", 3},
                      {measured, "sd", 3},
                      {measured, "runs"}}};
  for (const series& one : rows) {
    std::vector<double> bits;
    for (std::uint64_t seed = 1; seed <= curve_seeds; ++seed)
      if (const outcome* const o = known.find(job_name(one, seed)))
        if (const double v = (*o)["bits"]; !std::isnan(v)) bits.push_back(v);
    const auto st = statistics_of(bits);
    b.rows.push_back(
        {one.label, st ? std::vector<cell>{st->least, st->most, st->mean, st->deviation,
                                           static_cast<double>(st->runs)}
                       : std::vector<cell>(b.columns.size())});
  }
  return b;
}

table stopped_early(const scale& s, const results& known) {
  std::vector<series> rows = early_stops();
  rows.push_back({"teacher: Small", "small", model::small});
  rows.push_back({"teacher: Small, half of its steps", "small-half", model::small});
  rows.push_back({"teacher: Small, a quarter", "small-quarter", model::small});
  return {"early",
          "Distillation and teachers that stop early",
          "What the report names of Cho and Hariharan (2019) and does not run; alpha 0.1, T 3.",
          {quality(rows, s, known)},
          {}};
}

table figure(const results& known) {
  table t{"F4.1",
          "Loss curves of five seeds",
          "The same training from five seeds, with the learning rate constant while warming up or "
          "rising linearly. Thin: the linear ones.",
          {},
          {}};
  for (const series& one : curves()) {
    for (std::uint64_t seed = 1; seed <= curve_seeds; ++seed) {
      const outcome* const o = known.find(job_name(one, seed));
      if (o == nullptr) continue;
      const std::string style = fmt::format("s{}", seed);
      for (const auto& [step, value] : o->held_out) t.top = std::max(t.top, value);
      if (one.label == "constant")
        t.curves.push_back({fmt::format("seed {}", seed), style, o->held_out, {}});
      else
        t.curves.push_back({"", style, {}, o->held_out});
    }
  }
  std::vector<series> rows = curves();
  for (series& one : rows) one.label += " warm-up";
  t.blocks = {spread_of_seeds(rows, known)};
  return t;
}

}  // namespace

table make_table(std::string_view id, const scale& s, const results& known) {
  if (id == "3.1") return sizes();
  if (id == "4.1")
    return ablation(id, "Without feed-forwards",
                    "T5-Mini without its feed-forwards and their norms.", s, known);
  if (id == "4.2") return more_steps(s, known);
  if (id == "4.3")
    return ablation(
        id, "More and wider heads",
        "Both published rows with wider heads fit heads of 48 rather than 64; no reading "
        "gives their figures exactly.",
        s, known);
  if (id == "4.4")
    return ablation(
        id, "Feed-forwards without expansion",
        "One, two or three matrices in a row. What the report counts as 1W is half a "
        "feed-forward, not the d by d map of its Figure 3.1, which is in the exact parts.",
        s, known);
  if (id == "4.5")
    return ablation(id, "Inner width of 3W",
                    "All collapse to the same model; they differ in training alone.", s, known);
  if (id == "4.6") return distillation(s, known);
  if (id == "early") return stopped_early(s, known);
  if (id == "restarts")
    return {"restarts",
            "Seeds from one checkpoint",
            "The report found no variance between runs that go on from an intermediate checkpoint.",
            {spread_of_seeds(restarts(), known)},
            {}};
  return figure(known);
}

}  // namespace study
