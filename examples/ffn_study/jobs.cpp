// SPDX-License-Identifier: MIT
#include "jobs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "pieces.hpp"

namespace study {

std::string settings_of(const scale& s) {
  std::string text = fmt::format(
      "{} steps of {} x {}, curves of {}, rate {} after {:.4g}, {} held out, tuned {} "
      "x {} at {} with dropout {}, {} timings",
      s.steps, s.batch, s.length, s.curve_steps, s.highest_rate, s.warm_up, s.checked,
      s.tuning_steps, s.tuning_length, s.tuning_rate, s.tuning_dropout, s.timings);
  if (s.dropout != 0) text += fmt::format(", dropout {}", s.dropout);
  if (s.clip == 0)
    text += ", not clipped";
  else if (s.clip != 1)
    text += fmt::format(", clipped at {}", s.clip);
  if (s.glue) text += ", tuned on GLUE without WNLI";
  return text;
}

std::vector<model> models_of(std::string_view table) {
  using enum model;
  if (table == "4.1") return {mini, skip, skip_encoder};
  if (table == "4.3") return {mini, heads, width, heads_width};
  if (table == "4.4") return {mini, one, one_relu, two, three};
  if (table == "4.5") return {mini, three, three_2, three_1_5, three_1_2};
  return {};
}

namespace {
/// The job whose weights teach those of a series, by its name; none for others.
std::string teacher_of(const series& row) {
  const auto from = row.name.find("from-");
  if (from == row.name.npos) return "";
  return row.name.substr(from + 5, row.name.find('.', from) - from - 5) + ".s1";
}
}  // namespace

std::string job_name(const series& s, std::uint64_t seed) {
  return fmt::format("{}.s{}", s.name, seed);
}

std::string tuning_name(std::string_view task, std::string_view trained) {
  return fmt::format("tune.{}.{}", task, trained);
}

std::vector<series> longer_trainings(const scale& s) {
  std::vector<series> all{{"1x", "mini"}};
  for (const int times : s.longer)
    if (times > 0) all.push_back({fmt::format("{}x", times), fmt::format("mini.x{}", times)});
  return all;
}

std::vector<series> distillations(const scale& s) {
  using points = std::vector<std::pair<double, double>>;
  points grid;
  for (const double alpha : {0.1, 0.5, 0.9})
    for (const double temperature : {1.0, 2.0, 3.0, 4.0}) grid.emplace_back(alpha, temperature);
  std::vector<series> all;
  const auto add = [&](model student, const points& small, const points& base, bool sweep) {
    const std::string name(name_of(student));
    all.push_back({name + " alone", name, student});
    for (const model teacher : {model::small, model::base}) {
      const points& report = teacher == model::small ? small : base;
      const auto in_report = [&](const auto& p) {
        return std::find(report.begin(), report.end(), p) != report.end();
      };
      for (const auto& p : sweep ? grid : report)
        all.push_back({fmt::format("{} -> {}", name_of(teacher), name),
                       fmt::format("{}.from-{}.a{}.t{}", name, name_of(teacher), p.first, p.second),
                       student, p.first, p.second, in_report(p)});
    }
  };
  add(model::mini, {{0.1, 3}}, {{0.1, 3}, {0.9, 4}}, s.sweep);
  add(model::tiny, {{0.1, 2}}, {{0.9, 4}}, false);
  return all;
}

std::vector<series> early_stops() {
  const auto taught = [](const char* label, const char* teacher, const char* end, double share) {
    series row{label, fmt::format("mini.from-{}.a0.1.t3{}", teacher, end), model::mini, 0.1, 3};
    row.taught = share;
    row.tuned = false;
    return row;
  };
  return {{"Mini alone", "mini", model::mini, 1, 1, true, 1, false},
          taught("Small teaches to the end", "small", "", 1),
          taught("Small teaches half of the steps", "small", ".half", 0.5),
          taught("Small teaches a quarter", "small", ".quarter", 0.25),
          taught("Small of half its steps teaches", "small-half", "", 1),
          taught("Small of a quarter teaches", "small-quarter", "", 1)};
}

std::vector<series> restarts() {
  return {{"from the start", "mini"}, {"from seed 1 halfway", "mini.restart"}};
}

std::vector<series> curves() { return {{"constant", "mini.constant"}, {"linear", "mini.linear"}}; }

std::vector<job> jobs_of(const scale& s, const std::vector<std::string>& tables) {
  std::vector<job> jobs;
  const auto add = [&](job j) {
    if (std::none_of(jobs.begin(), jobs.end(), [&](const job& k) { return k.name == j.name; }))
      jobs.push_back(std::move(j));
  };
  const auto wanted = [&](std::string_view t) {
    return std::find(tables.begin(), tables.end(), t) != tables.end();
  };
  const std::vector<std::string_view> tasks =
      s.glue ? std::vector<std::string_view>{"glue"}
             : std::vector<std::string_view>(task_names.begin(), task_names.end());
  const auto train = [&](const series& row, ln::index steps, const std::string& teacher = {}) {
    const auto seeds = static_cast<std::uint64_t>(row.in_full ? s.seeds : 1);
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
      const std::string name = job_name(row, seed);
      add({.name = name,
           .what = row.what,
           .seed = seed,
           .steps = steps,
           .needs = teacher,
           .alpha = row.alpha,
           .temperature = row.temperature,
           .taught = row.taught < 1 ? std::max<ln::index>(
                                          1, std::lround(row.taught * static_cast<double>(steps)))
                                    : 0});
      for (const std::string_view task : tasks)
        if (s.tuning_steps > 0 && row.in_full && row.tuned) {
          add({.name = fmt::format("baseline.{}", task),
               .kind = job_kind::baseline,
               .task = std::string(task)});
          add({.name = tuning_name(task, name),
               .kind = job_kind::tuning,
               .what = row.what,
               .seed = seed,
               .steps = s.tuning_steps,
               .needs = name,
               .task = std::string(task)});
        }
    }
  };
  for (const char* const t : {"4.1", "4.3", "4.4", "4.5"})
    for (const model m : wanted(t) ? models_of(t) : std::vector<model>{}) {
      // Speed first: nothing else runs then.
      if (has_measured_cost(m))
        add({.name = fmt::format("cost.{}", name_of(m)), .kind = job_kind::cost, .what = m});
    }
  for (const char* const t : {"4.1", "4.3", "4.4", "4.5"})
    for (const model m : wanted(t) ? models_of(t) : std::vector<model>{})
      train({.label = {}, .name = std::string(name_of(m)), .what = m}, s.steps);
  if (wanted("F4.1"))
    for (const series& row : curves())
      for (std::uint64_t seed = 1; seed <= curve_seeds; ++seed)
        add({.name = job_name(row, seed),
             .seed = seed,
             .steps = s.curve_steps,
             .start = row.label == "linear" ? warm_up::linear : warm_up::constant});
  if (wanted("4.6")) {
    for (const model m : {model::small, model::base})
      add({.name = fmt::format("{}.s1", name_of(m)), .what = m, .steps = s.steps});
    std::vector<series> rows = distillations(s);
    std::stable_partition(rows.begin(), rows.end(), [](const series& r) { return r.in_full; });
    for (const series& row : rows) train(row, s.steps, teacher_of(row));
  }
  if (wanted("early")) {
    const auto part = [&](ln::index of) { return std::max<ln::index>(1, s.steps / of); };
    for (const auto& [name, steps] : {std::pair{"small.s1", s.steps},
                                      {"small-half.s1", part(2)},
                                      {"small-quarter.s1", part(4)}})
      add({.name = name, .what = model::small, .steps = steps, .planned = s.steps});
    for (const series& row : early_stops()) train(row, s.steps, teacher_of(row));
  }
  if (wanted("restarts")) {
    const std::string start = "mini.halfway.s1";
    add({.name = start,
         .steps = std::max<ln::index>(1, s.steps / 2),
         .planned = s.steps,
         .keeps_state = true});
    for (std::uint64_t seed = 1; seed <= curve_seeds; ++seed)
      for (const series& row : restarts()) {
        const bool goes_on = row.name == "mini.restart";
        add({.name = job_name(row, seed),
             .seed = seed,
             .steps = s.steps,
             .needs = goes_on ? start : "",
             .restarts = goes_on});
      }
  }
  if (wanted("4.2")) {
    const auto rows = longer_trainings(s);
    train(rows[0], s.steps);
    for (std::size_t i = 1; i < rows.size(); ++i) train(rows[i], s.steps * s.longer[i - 1]);
  }
  return jobs;
}

}  // namespace study
