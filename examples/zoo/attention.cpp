// SPDX-License-Identifier: MIT
// zoo bench --attention: one layer of each kind of attention over growing lengths.

#include "attention.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "../../benchmarks/machine.hpp"
#include "commands.hpp"
#include "course.hpp"
#include "support.hpp"

namespace zoo {

namespace {

using json = nlohmann::ordered_json;

constexpr ln::index least_length = 2, most_length = ln::index{1} << 20;

/// The lengths of "128:16384": from the first on, doubling, up to the second.
std::vector<ln::index> parse_lengths(const std::string& text) {
  ln::index ends[2] = {};
  const char* at = text.data();
  const char* const last = at + text.size();
  bool good = true;
  for (int i = 0; i < 2; ++i) {
    const auto [next, problem] = std::from_chars(at, last, ends[i]);
    good = good && problem == std::errc{} && (i == 0 ? next < last && *next == ':' : next == last);
    at = good ? next + 1 : last;
  }
  if (!good || ends[0] < least_length || ends[1] < ends[0] || ends[1] > most_length)
    throw failure(
        fmt::format("--lengths: '{}' is not two lengths from {} to {}, the smaller first "
                    "(write them as 128:16384)",
                    text.substr(0, 40), least_length, grouped(most_length)));
  std::vector<ln::index> lengths;
  for (ln::index length = ends[0]; length <= ends[1]; length *= 2) lengths.push_back(length);
  return lengths;
}

/// All kinds, or the one asked for.
std::vector<kind> kinds_of(const std::string& asked) {
  std::vector<kind> all;
  add_exact_kinds(all);
  add_sparse_kinds(all);
  add_low_rank_kinds(all);
  add_recurrent_kinds(all);
  std::vector<std::string> words;
  for (const kind& k : all) words.push_back(k.word());
  std::vector<std::string_view> known(words.begin(), words.end());
  known.push_back("all");
  check_name("kind of attention", asked, known);
  if (asked != "all") std::erase_if(all, [&](const kind& k) { return k.word() != asked; });
  return all;
}

/// Least seconds of a run: what disturbs the machine only adds.
template <class Run>
double timed(double seconds, Run&& run) {
  const double start = now();
  double least = 1e300, last = 0;
  int runs = 0;
  do {
    const double before = now();
    run();
    last = now() - before;
    least = std::min(least, last);
  } while (++runs < most_runs && now() - start + last < seconds);
  return least;
}

kind_point measure(const kind& k, ln::index length, const attention_study& s) {
  const layer_plan plan{length, s.threads, false}, training{length, s.threads, true};
  kind_point p{.length = length, .bytes = k.bytes(plan), .train_bytes = k.bytes(training)};
  {
    const auto layer = k.make(plan);
    p.forward = timed(s.seconds, [&] { layer->forward(); });
  }
  const auto layer = k.make(training);
  p.both = timed(s.seconds, [&] {
    layer->forward();
    layer->backward();
  });
  return p;
}

/// The least-squares slope of log time over log length, of the longer half of the points.
std::optional<double> exponent(const std::vector<kind_point>& points, double kind_point::*time) {
  const auto half = points.end() - std::max<std::ptrdiff_t>(2, (std::ssize(points) + 1) / 2);
  if (points.size() < 2) return {};
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (auto p = half; p != points.end(); ++p) {
    const double a = std::log(static_cast<double>(p->length)), b = std::log((*p).*time);
    n += 1;
    x += a;
    y += b;
    xx += a * a;
    xy += a * b;
  }
  return (n * xy - x * y) / (n * xx - x * x);
}

kind_result measure_all(const kind& k, const attention_study& s) {
  kind_result r;
  r.what = k;
  for (const ln::index length : s.lengths) {
    if ((k.longest > 0 && length > k.longest) ||
        (!r.points.empty() && r.points.back().both > s.seconds)) {
      r.stopped = true;
      break;
    }
    r.points.push_back(measure(k, length, s));
  }
  r.forward_exponent = exponent(r.points, &kind_point::forward);
  r.both_exponent = exponent(r.points, &kind_point::both);
  return r;
}

std::string text_of(std::optional<double> x) { return x ? fmt::format("{:.2f}", *x) : "-"; }

/// A table with a column per length; `cell` is the text of a point.
template <class Cell, class End>
void print_table(const attention_study& s, std::string_view title, std::string_view last,
                 Cell&& cell, End&& end) {
  text_row head{"kind", "layer of"};
  for (const ln::index length : s.lengths) head.push_back(grouped(length));
  head.emplace_back(last);
  std::vector<text_row> rows{head};
  for (const kind_result& r : s.kinds) {
    text_row& row =
        rows.emplace_back(text_row{r.what.name, r.what.decoder ? "decoder" : "encoder"});
    for (std::size_t i = 0; i < s.lengths.size(); ++i)
      row.push_back(i < r.points.size() ? cell(r, r.points[i]) : "-");
    row.push_back(end(r));
  }
  put("\n{}\n{}", title, aligned(rows, 2));
}

void print_study(const attention_study& s) {
  put("One layer of each kind: width {}, {} heads, f32, one sequence, {} thread{}; the machine "
      "does "
      "{:.0f} GFLOP/s.\n",
      kind_width, kind_heads, s.threads, s.threads == 1 ? "" : "s", s.peak);
  const auto per_token = [](double kind_point::*time) {
    return [time](const kind_result&, const kind_point& p) {
      return fmt::format("{:.3g}", 1e6 * p.*time / static_cast<double>(p.length));
    };
  };
  const auto nothing = [](const kind_result&) { return ""; };
  print_table(s, "microseconds per token, forward", "time ~ T^", per_token(&kind_point::forward),
              [](const kind_result& r) { return text_of(r.forward_exponent); });
  print_table(s, "microseconds per token, forward and backward", "time ~ T^",
              per_token(&kind_point::both),
              [](const kind_result& r) { return text_of(r.both_exponent); });
  print_table(
      s, "memory planned for forward", "",
      [](const kind_result&, const kind_point& p) { return human_bytes(p.bytes); }, nothing);
  print_table(
      s, "memory planned for forward and backward", "",
      [](const kind_result&, const kind_point& p) { return human_bytes(p.train_bytes); }, nothing);
  print_table(
      s, "of the machine's peak: forward / forward and backward", "",
      [](const kind_result&, const kind_point& p) {
        return fmt::format("{:.0f}/{:.0f}%", 100 * p.forward_peak, 100 * p.both_peak);
      },
      nothing);
  if (!s.text.empty()) {
    put("\nlearning {}, {} steps of {} x {} bytes; counting bytes alone: {:.3f}\n", s.text,
        grouped(s.steps), kind_batch, kind_context, s.byte_entropy);
    std::vector<text_row> rows{{"kind", "parameters", "bits/byte", "seconds"}};
    for (const kind_result& r : s.kinds)
      if (r.learned)
        rows.push_back({r.what.learner, grouped(r.learned->parameters),
                        fmt::format("{:.4f}", r.learned->bits),
                        fmt::format("{:.1f}", r.learned->seconds)});
    put("{}", aligned(rows));
  }
  put("\nThe least of up to {} runs. Exponents are fitted to the longer half of the lengths.",
      most_runs);
  if (std::any_of(s.kinds.begin(), s.kinds.end(), [](auto& r) { return r.stopped; }))
    put("\n-: more than the kind can read, or a run of the length before took over {:g} s.",
        s.seconds);
  put("\n");
}

json json_of(const attention_study& s) {
  const auto number = [](std::optional<double> x) { return x ? json(*x) : json(); };
  json kinds = json::array();
  for (const kind_result& r : s.kinds) {
    json points = json::array();
    for (const kind_point& p : r.points)
      points.push_back({{"length", p.length},
                        {"forward_seconds", p.forward},
                        {"training_seconds", p.both},
                        {"forward_bytes", p.bytes},
                        {"training_bytes", p.train_bytes},
                        {"forward_peak_fraction", p.forward_peak},
                        {"training_peak_fraction", p.both_peak}});
    kinds.push_back({{"kind", r.what.name},
                     {"layer", r.what.decoder ? "decoder" : "encoder"},
                     {"parameters", r.what.parameters},
                     {"stopped", r.stopped},
                     {"forward_exponent", number(r.forward_exponent)},
                     {"training_exponent", number(r.both_exponent)},
                     {"bits_per_byte", r.learned ? json(r.learned->bits) : json()},
                     {"learned_as", r.learned ? json(r.what.learner) : json()},
                     {"points", points}});
  }
  return {{"width", kind_width},  {"heads", kind_heads},
          {"threads", s.threads}, {"f32_gflops", s.peak},
          {"steps", s.steps},     {"byte_entropy", s.text.empty() ? json() : json(s.byte_entropy)},
          {"kinds", kinds}};
}

}  // namespace

void bench_attention(const bench_options& o) {
  const std::vector<kind> kinds = kinds_of(o.attention);
  attention_study s;
  s.lengths = parse_lengths(o.lengths);
  s.threads = o.threads;
  s.seconds = o.seconds;
  check_writable(o.html, {o.train});
  std::optional<corpus> text;
  if (!o.train.empty()) {
    text = read_corpus(o.train);
    s.text = text->name;
    s.steps = o.steps;
    s.byte_entropy = byte_entropy(text->held_out);
  }
  const auto look = [&] {
    s.peak = std::max(
        s.peak, machine::best_of(3, [&] { return machine::peak(machine::type::f32, o.threads); }));
  };
  const double start = now();
  for (const kind& k : kinds) {
    say("{:4.0f} s  measuring {} ({} of {})\n", now() - start, k.name, s.kinds.size() + 1,
        kinds.size());
    look();  // now and then: clocks and neighbours change
    s.kinds.push_back(measure_all(k, s));
    if (!text || !k.learn) continue;
    say("{:4.0f} s  training {}\n", now() - start, k.name);
    try {
      s.kinds.back().learned = k.learn({text->training, text->held_out, s.steps, s.threads});
    } catch (const failure& e) {  // what the other kinds came to is not lost for that
      say("{}\n", e.what());
    }
  }
  look();
  for (kind_result& r : s.kinds)
    for (kind_point& p : r.points) {
      const double flops = r.what.flops(p.length), best = 1e9 * s.peak;
      p.forward_peak = flops / p.forward / best;
      p.both_peak = 3 * flops / p.both / best;  // a backward pass is two forward ones
    }
  if (!o.html.empty()) write_study(s, o.html);
  if (o.json)
    put("{}\n", json_of(s).dump());
  else
    print_study(s);
}

}  // namespace zoo
