// SPDX-License-Identifier: MIT
#include "compress_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <linnet/core/random.hpp>
#include <linnet/data/epoch_sampler.hpp>
#include <memory>

#include "models.hpp"
#include "support.hpp"

namespace zoo {

namespace {

constexpr ln::index lesson_windows = 4;  // that each step of a method that learns reads

/// When learning began and the steps that were begun, for all copies of what hands out lessons.
struct learning {
  double start = 0, passes = 0;
};

}  // namespace

bool calibrates_at_once(const compress_options& o, const method_chain& chain) {
  return !o.sequential && !(chain.before.empty() && words_of(chain.last).in_blocks) &&
         words_of(chain.before.empty() ? chain.last : chain.before[0]).calibrates &&
         (chain.before.empty() || chain.before[0] != "distil");
}

void check_methods(compress_options& o, const method_chain& chain) {
  const auto calibrates = [&](std::string_view name) {
    return name == "narrow" ? o.importance != "magnitude" || o.shape.find(';') != o.shape.npos
                            : words_of(name).calibrates;
  };
  const bool reads = any_method(chain, calibrates),
             learns =
                 any_method(chain, [](std::string_view name) { return words_of(name).learns; });
  if (reads && o.calibrate.empty())
    throw failure(
        fmt::format("--method {}: runs the model on text first; give --calibrate TEXT", o.method));
  if (!reads && !o.statistics.empty())
    throw failure(
        fmt::format("--method {}: gathers no statistics; leave --statistics out", o.method));
  if (!reads && !o.calibrate.empty()) {  // the command line of another method serves this one, too
    say("--method {}: needs no text, so --calibrate is not read\n", o.method);
    o.calibrate.clear();
    o.sequential = false;
  }
  if (learns && !o.statistics.empty())
    throw failure(fmt::format(
        "--method {}: calibrates a model that it learns anew each time; leave --statistics out",
        o.method));
  if (!calibrates_at_once(o, chain) && !o.statistics.empty())
    throw failure(fmt::format(
        "--method {}: does not begin with a method that calibrates; leave --statistics out",
        o.method));
  if (o.sequential && does(chain, effect::scales))
    throw failure(fmt::format(
        "--method {}: scales tensors of several blocks at once; leave --sequential out", o.method));
}

pruning pruning_of(const compress_options& o, const method_chain& chain) {
  const std::string& text = o.sparsity;
  if (!does(chain, effect::prunes) && !text.empty())
    throw failure(fmt::format(
        "--sparsity: --method {} makes no weight 0; magnitude, wanda and sparsegpt do", o.method));
  pruning how;
  const auto pattern = [](std::string_view part, pruning& to) {
    const std::size_t colon = part.find(':');
    if (colon == part.npos) return false;
    if (const std::size_t dash = part.rfind('-', colon); dash != part.npos)
      part.remove_prefix(dash + 1);
    const std::size_t at = part.find(':');
    to.kept = std::atol(std::string(part.substr(0, at)).c_str());
    to.of = std::atol(std::string(part.substr(at + 1)).c_str());
    return true;
  };
  const std::string storage(o.how.storage.substr(0, o.how.storage.find('+')));
  pruning places;  // of the storage of most matrices
  const bool grouped = pattern(storage, places);
  const std::size_t mask = storage.find("-mask");
  if (mask != storage.npos) {
    places.fraction = 1 - std::atof(storage.c_str() + mask + 5) / 100;
    places.by_rows = true;
  }
  if (text.empty()) return places;
  how.by_rows = places.by_rows;
  char* end = nullptr;
  if (pattern(text, how)) {
    if (how.kept < 1 || how.kept > how.of || how.of > 1024 ||
        text != fmt::format("{}:{}", how.kept, how.of))
      throw failure(
          fmt::format("--sparsity {}: n:m keeps n of m inputs, 1 to m of them, such as 2:4", text));
    how.fraction = 1 - static_cast<double>(how.kept) / static_cast<double>(how.of);
  } else if (how.fraction = std::strtod(text.c_str(), &end) / 100;
             *end != 0 || !(how.fraction >= 0 && how.fraction < 1)) {
    throw failure(fmt::format(
        "--sparsity {}: expected a percentage below 100, such as 50, or n:m, such as 2:4", text));
  }
  if (grouped && (how.kept != places.kept || how.of != places.of))
    throw failure(fmt::format("--sparsity {}: --storage {} keeps {} of each {} inputs; give {}:{}",
                              text, o.how.storage, places.kept, places.of, places.kept, places.of));
  if (mask != storage.npos && how.fraction < places.fraction - 1e-9)
    throw failure(
        fmt::format("--sparsity {}: --storage {} has places for {}% of each row; prune "
                    "more or give it more",
                    text, o.how.storage, std::lround(100 - 100 * places.fraction)));
  return how;
}

namespace {
/// The file beside statistics that says what they are of.
std::string statistics_mark(const std::string& statistics) { return statistics + ".json"; }
}  // namespace

void check_results(const compress_options& o) {
  std::vector<std::string> written{o.out, o.reference, o.statistics};
  for (const std::string& path : written)
    check_writable(path, {o.weights, o.calibrate, o.evaluate, o.tokenizer});
  if (!o.statistics.empty()) written.push_back(statistics_mark(o.statistics));
  std::error_code ignored;
  const auto place = [&](const std::string& path) {
    return std::filesystem::weakly_canonical(path, ignored);
  };
  for (std::size_t i = 0; i < written.size(); ++i)
    for (std::size_t j = 0; j < i && !written[i].empty(); ++j)
      if (place(written[i]) == place(written[j]))  // the later would overwrite the earlier
        throw failure(written[i] + ": would be written twice; name another file");
}

void check_statistics(const compress_options& o, const subject& s) {
  if (o.statistics.empty()) return;
  nlohmann::ordered_json of{{"model", s.what.model.name()},
                            {"weights", mark_of(s.weights)},
                            {"text", mark_of(o.calibrate)},
                            {"length", s.length},
                            {"seed", o.seed}};
  if (!parse_methods(o.method, o.how.storage).rebuilding.empty())
    of["method"] = o.method + ' ' + o.shape + ' ' + o.importance;
  const std::string about = statistics_mark(o.statistics);
  if (!kept_json("--statistics", about, of) && std::filesystem::exists(o.statistics))
    throw failure(fmt::format("--statistics: {}: {} is missing, which says what they are of",
                              o.statistics, about));
  keep_json(about, {{"of", of}});
}

calibration_plan plan_of(const compress_options& o, text_windows& text, costs& c) {
  const ln::index count = std::min<ln::index>(o.samples, text.count());
  const ln::permutation order(static_cast<std::uint64_t>(text.count()), ln::seed{o.seed}, 0);
  const auto window = [&text, order](ln::index i) {
    return text.at(static_cast<ln::index>(order(static_cast<std::uint64_t>(i))));
  };
  return {
      .limits = text.limits(o.threads),
      .batches = count,
      .batch = [&o, window, count, shown = std::make_shared<progress>(), start = now(), read = 0.0,
                first = ln::index{-1}, pass = 0](ln::index i) mutable -> std::optional<any_batch> {
        end_if_asked();
        if (first < 0) first = i;
        if (i <= first) {  // another pass begins
          start = now();
          read = 0;
          ++pass;
        }
        const double spent = now() - start, left = static_cast<double>(count - i),
                     limit = o.sequential ? HUGE_VAL : 60 * o.minutes;
        if (read > 0 && spent * (read + 1) / read > limit) return {};
        if (read > 0 && shown->due())
          shown->show(static_cast<double>(i) / static_cast<double>(count),
                      std::min(spent * left / read, limit - spent),
                      {{o.sequential ? fmt::format("calibrating block {}", pass)
                                     : std::string("calibrating"),
                        fmt::format("window {} of {}", i + 1, count)}});
        ++read;
        return window(i);
      },
      // What the last pass over the windows finds takes no step.
      .lesson = [&o, &c, window, count, shown = std::make_shared<progress>(),
                 of_all = std::make_shared<learning>()](ln::index i) -> std::optional<any_batch> {
        end_if_asked();
        if (i % std::min(count, lesson_windows) != 0) return window(i % count);
        auto& [start, passes] = *of_all;
        if (passes == 0) start = now();
        const double spent = now() - start, each = spent / std::max(1.0, passes),
                     limit = 60 * o.minutes, steps = static_cast<double>(o.steps);
        c.steps = static_cast<ln::index>(passes);
        if (passes > 0 && spent + each > limit) return {};
        if (i / std::min(count, lesson_windows) >= o.steps) return window(i % count);
        if (passes > 0 && shown->due())
          shown->show(passes / steps, std::min(each * (steps - passes), limit - spent),
                      {{"learning", fmt::format("step {} of {}", passes, o.steps)}});
        ++passes;
        return window(i % count);
      },
      .steps = o.steps,
      .windows = std::min(count, lesson_windows),
      .rate = o.rate,
      .kept = o.statistics,
      .in_blocks = o.sequential};
}

}  // namespace zoo
