// SPDX-License-Identifier: MIT
// zoo search: the best of many decoders within a budget. Models are types, so the space is written
// down as a short module, compiled once and loaded.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <linnet/search/halving.hpp>
#include <linnet/search/pareto.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "compiled.hpp"
#include "course.hpp"
#include "model_spec.hpp"
#include "search_report.hpp"
#include "searcher.hpp"
#include "support.hpp"

namespace zoo {

namespace {

using json = nlohmann::ordered_json;

constexpr ln::index most_models = 200;  // of a space: each costs the compiler some seconds

/// One --axis: a name and its choices.
struct axis {
  std::string name;
  std::vector<std::string> values;
  bool number = false;  ///< of the shape, else a policy
  std::string type;     ///< in C++
};

axis parse_axis(const std::string& text) {
  static constexpr std::string_view numbers[] = {"layers",   "d_model", "d_ff",
                                                 "kv_heads", "heads",   "d_kv"};
  const std::size_t equals = text.find('=');
  if (equals == text.npos)
    throw failure(
        fmt::format("--axis '{}': expected name=value,value,…, such as layers=2,4", text));
  axis made;
  made.name = text.substr(0, equals);
  for (std::size_t at = equals; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at + 1), text.size());
    made.values.push_back(text.substr(at + 1, end - at - 1));
    at = end;
  }
  made.number = std::ranges::find(numbers, made.name) != std::end(numbers);
  made.type = made.number ? fmt::format("ln::shape_axis<&ln::decoder_shape::{}", made.name)
                          : fmt::format("ln::policy_axis<ln::{}::policy", made.name);
  std::vector<std::string> seen;
  for (const std::string& value : made.values) {
    if (std::ranges::find(seen, value) != seen.end())
      throw failure(fmt::format("--axis {}: {} is given twice", made.name, value));
    seen.push_back(value);
    if (!made.number) {  // refuses unknown names and values
      const std::string policy =
          parse_model("axis", fmt::format("decoder:{}={}", made.name, value)).policies;
      if (policy.empty())
        throw failure(fmt::format("--axis {}: not an axis; take one of {}, or a policy", made.name,
                                  fmt::join(numbers, ", ")));
      made.type += policy;
      continue;
    }
    ln::index n = 0;
    const auto end = std::from_chars(value.data(), value.data() + value.size(), n);
    if (end.ec != std::errc() || end.ptr != value.data() + value.size() || n < 1 || n > 100'000)
      throw failure(
          fmt::format("--axis {}: '{}' is not a whole number from 1 to 100000", made.name, value));
    made.type += ", " + value;
  }
  made.type += '>';
  return made;
}

std::string module_text(const model_spec& base, const std::vector<axis>& axes,
                        const search_options& o) {
  std::string types;
  for (const axis& a : axes) types += ",\n                               " + a.type;
  const auto limit = [](ln::index n) {
    return n > 0 ? fmt::format("{}", n) : std::string("ln::index{1} << 60");
  };
  return fmt::format(
      "// Models around {} within a budget.\n\n"
      "#include \"{}/examples/zoo/searcher_of.hpp\"\n"
      "namespace ln = linnet;\n\n{}"
      "using Space = ln::search_space<{}{}>;\n"
      "inline constexpr ln::shape_budget budget{{.bytes = {}, .flops = {}, .length = {}, "
      ".parameters = {}, .least_parameters = {}}};\n"
      "ZOO_SEARCHER(ln::search<Space, budget>)\n",
      base.name(), ZOO_SOURCE_DIR, base.declarations(), base.type("standard"), types,
      limit(o.bytes), limit(o.flops), kind_context, limit(o.parameters), o.least_parameters);
}

/// The choices of model `number` of the space; the last axis changes first.
std::string name_of(const std::vector<axis>& axes, ln::index number) {
  std::string name;
  for (std::size_t i = axes.size(); i-- > 0;) {
    const auto count = static_cast<ln::index>(axes[i].values.size());
    const std::string& value = axes[i].values[static_cast<std::size_t>(number % count)];
    name = axes[i].name + '=' + value + (name.empty() ? "" : " ") + name;
    number /= count;
  }
  return name;
}

/// Marks the models that no other of the last round is both smaller and better than.
void mark_front(std::vector<searched_model>& models) {
  std::vector<std::array<double, 2>> points;
  for (const searched_model& m : models)
    if (m.rounds == models.front().rounds)
      points.push_back({static_cast<double>(m.parameters), m.bits});
  for (const ln::index i : take(ln::pareto_front<2>(points)))
    models[static_cast<std::size_t>(i)].front = true;
}

void print(const search_study& s, bool as_json) {
  if (as_json) {
    json all{{"base", s.base}, {"space", s.space}, {"models", json::array()}};
    for (const searched_model& m : s.models)
      all["models"].push_back({{"name", m.name},
                               {"parameters", m.parameters},
                               {"bytes", m.bytes},
                               {"flops", m.flops},
                               {"rounds", m.rounds},
                               {"steps", m.steps},
                               {"bits", ln::is_finite(m.bits) ? json(m.bits) : json()},
                               {"front", m.front}});
    return put("{}\n", all.dump());
  }
  std::vector<text_row> rows{{"model", "parameters", "bytes", "steps", "bits/byte", "front"}};
  for (const searched_model& m : s.models)
    rows.push_back({m.name, grouped(m.parameters), grouped(m.bytes), grouped(m.steps),
                    ln::is_finite(m.bits) ? fmt::format("{:.3f}", m.bits) : "diverged",
                    m.front ? "*" : ""});
  put("{} of {} models are within the budget; the best first\n\n{}", s.models.size(), s.space,
      aligned(rows));
}

}  // namespace

void search(const search_options& o) {
  const model_spec base = with_vocabulary(parse_model("model", o.model), 256);
  if (base.encodes()) throw failure(base.name() + " is an encoder-decoder; search takes decoders");
  if (base.context() < kind_context)
    throw failure(fmt::format("{}: search trains on windows of {} bytes; give context={}",
                              base.name(), kind_context, kind_context));
  std::vector<axis> axes;
  search_study s;
  s.base = base.name();
  s.space = 1;
  for (const std::string& text : o.axes) {
    axes.push_back(parse_axis(text));
    s.space *= static_cast<ln::index>(axes.back().values.size());
    for (std::size_t i = 0; i + 1 < axes.size(); ++i)
      if (axes[i].name == axes.back().name)
        throw failure(fmt::format("--axis {} is given twice", axes[i].name));
    if (s.space > most_models)
      throw failure(fmt::format("--axis: more than {} models; give fewer values", most_models));
  }
  check_writable(o.html, {o.text});
  check_writable(o.state, {o.text});
  if (!o.html.empty() && o.html == o.state)
    throw failure(o.html + ": --html and --state name the same file");
  const corpus text = read_corpus(o.text);
  s.text = text.name;

  const std::string written = module_text(base, axes, o);
  const auto made = reinterpret_cast<searcher* (*)()>(
      function_of("searcher-" + base.base, written, "zoo_searcher", searcher_interface));
  const std::unique_ptr<const searcher> models(made());
  const auto found = models->candidates();
  const auto candidate = [&](ln::index i) { return found[static_cast<std::size_t>(i)]; };
  const auto train = [&](ln::index i, ln::index, ln::index steps) -> ln::result<double> {
    if (const int signal = stop_requests::received())
      throw interruption(signal, o.state.empty()
                                     ? "the search has ended"
                                     : "the search has ended; the same command goes on");
    say("{} steps of {}\n", steps, name_of(axes, candidate(i).number));
    try {
      return models->learn(i, {text.training, text.held_out, steps, o.threads, o.seed}).bits;
    } catch (const divergence& problem) {  // what diverges is the worst, not the end
      say("{}\n", problem.what());
      return HUGE_VAL;
    }
  };
  const ln::halving_options how{o.keep_one_of, o.steps, o.finalists};
  const ln::index count = std::ssize(found);
  const stop_requests asked;
  std::vector<ln::halving_trial> trials;
  if (o.state.empty()) {
    trials = take(ln::successive_halving(count, how, train));
  } else {
    std::string names;
    for (const axis& a : axes) names += ' ' + a.type;
    auto file = take(ln::halving_file::open(
        o.state, count, how,
        fmt::format("{}{} parameters {} {} bytes {} flops {} text {} {:016x} seed {}", s.base,
                    names, o.least_parameters, o.parameters, o.bytes, o.flops, text.bytes(),
                    std::hash<std::string>()(text.training + text.held_out), o.seed)));
    if (file.size() > 0) say("going on behind {} trainings\n", file.size());
    trials = take(ln::successive_halving(count, how, train, file));
  }
  for (const ln::halving_trial& t : trials) {
    const auto c = candidate(t.candidate);
    s.models.push_back(
        {name_of(axes, c.number), c.parameters, c.bytes, c.flops, t.rounds, t.steps, t.loss});
  }
  mark_front(s.models);
  if (!o.html.empty()) write_search(s, o.html);
  print(s, o.json);
}

}  // namespace zoo
