// SPDX-License-Identifier: MIT
// zoo compress: stores a trained model in fewer bits by a method, and says what that costs.

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <linnet/core/random.hpp>
#include <linnet/data/epoch_sampler.hpp>
#include <linnet/eval/estimates.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/file/file.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "commands.hpp"
#include "compress_text.hpp"
#include "compress_words.hpp"
#include "compressor.hpp"
#include "models.hpp"
#include "storage_words.hpp"
#include "support.hpp"
#include "trained.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

constexpr ln::index longest_window = 512,  // tokens, unless --length says how many
    lesson_windows = 4;                    // that each step of a method that learns reads

void end_if_asked() {
  if (const int signal = stop_requests::received(); signal != 0)
    throw interruption(signal, "ended by a signal; nothing is written");
}

/// What is compressed, and how text becomes its tokens.
struct subject {
  compression what;
  std::string weights;
  tokenizing text;
  ln::index length = 0;

  tokenizing_for reader() const {
    const model_spec& m = what.model;
    return {m.name(), m.encodes(), m.vocabulary(), m.embeds()};
  }
};

subject subject_of(const compress_options& o) {
  subject s{{.model = {},
             .to = o.how,
             .method = o.method,
             .shape = o.shape,
             .scores = o.shape.empty() ? "" : o.importance,
             .activation = o.activation,
             .rank = o.rank},
            o.weights,
            {},
            0};
  std::string tokenizer = o.tokenizer;
  if (o.model.empty()) {
    if (!is_trained(o.weights))
      throw failure(
          "--model is required, unless --weights is a folder that zoo train --text wrote");
    const trained_model trained = open_trained(o.weights);
    refuse_adapter(trained, "compress");
    if (trained.model.embeds())
      throw failure(o.weights +
                    ": holds an encoder of masked tokens; zoo compress takes encoders "
                    "that give vectors, such as --model minilm");
    s.what.model = trained.model;
    s.what.ffn = trained.kind.ffn;
    s.weights = trained.weights();
    if (tokenizer.empty()) tokenizer = trained.tokenizer_path();
  } else {
    s.what.model = parse_model("model", o.model, true);
    s.weights = weights_of(o.model, o.weights);
  }
  const model_spec& m = s.what.model;
  if (m.vocabulary() == 0) throw failure(m.name() + ": vocabulary=N is missing");
  const ln::index context = m.encodes() ? longest_window : m.context(),
                  usual = m.embeds() ? longest_text : longest_window;
  if (o.length > 0 && !m.encodes() && o.length > context)
    throw failure(
        fmt::format("--length: {} is more than the model's context of {}", o.length, context));
  s.length = o.length > 0 ? o.length : std::min(usual, context);
  if (!o.calibrate.empty() || !o.evaluate.empty())
    s.text = find_tokenizer(tokenizer, s.weights,
                            {.name = m.name(),
                             .encodes = m.encodes(),
                             .vocabulary = m.vocabulary(),
                             .context = 0,
                             .open = nullptr});
  return s;
}

// --- figures -------------------------------------------------------------------------------------

/// How a model does on the windows of a text.
struct score {
  std::vector<double> nats, labels, bytes;   ///< of each window
  std::vector<std::vector<ln::token>> best;  ///< the likeliest token for each label
  std::vector<std::vector<float>> vectors;   ///< of an encoder's windows, in place of all above
  double per_second = 0;                     ///< tokens decoded one after the other, or texts
  ln::index weight_bytes = 0;

  static double sum(const std::vector<double>& x) {
    double all = 0;
    for (const double one : x) all += one;
    return all;
  }
  double bits_per_byte() const {
    return ln::bits_per_byte(sum(nats), std::lround(std::max(1.0, sum(bytes))));
  }
  double perplexity() const { return std::exp(sum(nats) / sum(labels)); }
};

/// Windows evenly spread over a text, at most so many.
ln::index spread(ln::index i, ln::index windows, const text_windows& text) {
  return i * text.count() / windows;
}

/// Texts per second, one after the other, at its best.
double text_speed_of(stored_model& model, text_windows& text, ln::index windows) {
  constexpr ln::index most = 64, runs = 3;
  const ln::index count = std::min(most, windows);
  double least = std::numeric_limits<double>::infinity();
  for (ln::index run = 0; run < runs; ++run) {
    const double before = now();
    for (ln::index i = 0; i < count; ++i) {
      (void)model.embed(std::get<ln::encoder_batch>(text.at(spread(i, count, text))));
      end_if_asked();
    }
    least = std::min(least, (now() - before) / static_cast<double>(count));
  }
  return 1 / least;
}

/// Tokens per second of one session that writes what it finds likeliest, at its best.
double speed_of(const stored_model& model, const any_batch& b, int threads) {
  constexpr ln::index most = 64, runs = 3;
  const auto* const t5 = std::get_if<ln::t5_batch>(&b);
  const auto* const decoder = std::get_if<ln::decoder_batch>(&b);
  const ln::index length = t5 ? most : decoder->length, read = t5 ? 1 : std::min(length / 2, most);
  ln::limits l{.batch = 1, .target = length, .threads = threads};
  if (t5) l.source = t5->source_length;
  const auto session = model.open(l);
  const ln::token start = 0;
  double least = std::numeric_limits<double>::infinity();
  for (ln::index run = 0; run < runs; ++run) {
    session->reset();
    if (t5) session->encode({t5->source, static_cast<std::size_t>(t5->source_length)});
    auto logits = t5 ? session->feed({&start, 1})
                     : session->prefill({decoder->tokens, static_cast<std::size_t>(read)});
    const double before = now();
    const ln::index count = std::min(most, length - read);
    for (ln::index i = 0; i < count; ++i) {
      if (logits.empty()) give_up(*session);
      const auto next =
          static_cast<ln::token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      logits = session->feed({&next, 1});
      end_if_asked();
    }
    least = std::min(least, (now() - before) / static_cast<double>(count));
  }
  return 1 / least;
}

/// Adds what a model says of one window.
void judge(score& s, stored_model& model, const text_windows& text, const any_batch& b,
           ln::index vocabulary) {
  if (const auto* const one = std::get_if<ln::encoder_batch>(&b)) {
    const auto vector = model.embed(*one);
    s.vectors.emplace_back(vector.begin(), vector.end());
    return;
  }
  const auto labels = labels_of(b);
  std::vector<float> logits(labels.size() * static_cast<std::size_t>(vocabulary));
  const ln::loss_sum sum = model.loss(b, logits);
  s.nats.push_back(sum.nats);
  s.labels.push_back(static_cast<double>(sum.tokens));
  s.bytes.push_back(text.bytes(b));
  auto& best = s.best.emplace_back();
  for (std::size_t t = 0; t < labels.size(); ++t) {
    if (labels[t] == ln::ignored) continue;
    const auto from = logits.begin() + static_cast<std::ptrdiff_t>(t) * vocabulary;
    best.push_back(static_cast<ln::token>(std::max_element(from, from + vocabulary) - from));
  }
}

score score_of(stored_model& model, text_windows& text, ln::index windows, ln::index vocabulary,
               int threads, std::string_view name) {
  score s;
  s.weight_bytes = model.bytes();
  progress shown;
  const double start = now();
  for (ln::index i = 0; i < windows; ++i) {
    judge(s, model, text, text.at(spread(i, windows, text)), vocabulary);
    end_if_asked();
    if (shown.due())
      shown.show(
          static_cast<double>(i + 1) / static_cast<double>(windows),
          (now() - start) * static_cast<double>(windows - i - 1) / static_cast<double>(i + 1),
          {{"evaluating", std::string(name)}});
  }
  s.per_second = s.vectors.empty() ? speed_of(model, text.at(spread(0, windows, text)), threads)
                                   : text_speed_of(model, text, windows);
  return s;
}

json json_of(const score& s) {
  return {{"nats", s.nats},
          {"labels", s.labels},
          {"bytes", s.bytes},
          {"best", s.best},
          {"vectors", s.vectors},
          {"per_second", s.per_second},
          {"weight_bytes", s.weight_bytes}};
}

/// A JSON file that says in "of" what it is of; nothing if there is none yet. Refuses that of
/// something else.
std::optional<json> kept_json(const char* option, const std::string& path, const json& of) {
  if (path.empty() || !fs::exists(path)) return {};
  json all = json::parse(file_text(path), nullptr, false);
  if (!all.is_object() || !all.contains("of") || all["of"] != of)
    throw failure(
        fmt::format("{}: {}: is of another model, other weights or another text, or of a "
                    "method that changes the model first; remove it, or name another file",
                    option, path));
  return all;
}
void keep_json(const std::string& path, const json& all) {
  if (path.empty()) return;
  const std::string text = all.dump() + "\n";
  take(ln::write_file(path, std::as_bytes(std::span(text))));
}

/// The model as it was, measured, or as it was measured before.
score score_before(const compress_options& o, const subject& s, const compressor& by,
                   text_windows& text, ln::index windows) {
  json of;
  if (!o.reference.empty())
    of = {{"model", s.what.model.name()}, {"weights", mark_of(s.weights)},
          {"text", mark_of(o.evaluate)},  {"windows", windows},
          {"length", s.length},           {"threads", o.threads}};
  if (const auto kept = kept_json("--reference", o.reference, of)) try {
      const json& all = kept->at("score");
      return {all.at("nats"),    all.at("labels"),     all.at("bytes"),       all.at("best"),
              all.at("vectors"), all.at("per_second"), all.at("weight_bytes")};
    } catch (const json::exception&) {
      throw failure("--reference: " + o.reference + ": not what zoo compress writes");
    }
  const score made = score_of(*by.original(text.limits(o.threads)), text, windows,
                              s.what.model.vocabulary(), o.threads, "before");
  keep_json(o.reference, {{"of", of}, {"score", json_of(made)}});
  return made;
}

/// Share of labels for which both find the same token likeliest.
double agreement(const score& a, const score& b) {
  double same = 0, all = 0;
  for (std::size_t i = 0; i < a.best.size(); ++i)
    for (std::size_t t = 0; t < a.best[i].size(); ++t, ++all) same += a.best[i][t] == b.best[i][t];
  return same / all;
}

/// Cosines of the vectors before and after, of each text.
std::vector<double> cosines(const score& before, const score& after) {
  std::vector<double> all;
  for (std::size_t i = 0; i < before.vectors.size(); ++i) {
    const auto &a = before.vectors[i], &b = after.vectors[i];
    double both = 0, of_a = 0, of_b = 0;
    for (std::size_t j = 0; j < a.size(); ++j) {
      const auto x = static_cast<double>(a[j]), y = static_cast<double>(b[j]);
      both += x * y;
      of_a += x * x;
      of_b += y * y;
    }
    all.push_back(both / std::sqrt(of_a * of_b));
  }
  return all;
}

/// Bits per byte that `after` has more than `before`, of each window.
std::vector<double> differences(const score& before, const score& after) {
  std::vector<double> all;
  for (std::size_t i = 0; i < before.nats.size(); ++i)
    if (before.bytes[i] > 0)
      all.push_back(
          ln::bits_per_byte(after.nats[i] - before.nats[i], std::lround(before.bytes[i])));
  return all;
}

/// Most memory that the process has taken since it began, or since forget_memory_peak() where the
/// system can do that.
ln::index memory_peak() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (ln::index kilobytes = 0; word == "VmHWM:" && status >> kilobytes) return 1024 * kilobytes;
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return 1024 * static_cast<ln::index>(used.ru_maxrss);
}
void forget_memory_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

/// What it took.
struct costs {
  ln::index windows = 0;  ///< of calibration
  ln::index steps = 0;    ///< of a method that learns
  double calibrating = 0, compressing = 0;
  ln::index peak = 0, peak_before = 0;  ///< of memory, from calibration on and before it
};

/// When learning began and the steps that were begun, for all copies of what hands out lessons.
struct learning {
  double start = 0, passes = 0;
};

/// The windows that calibration reads, drawn by the seed, for as long as there is time.
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

/// Whether one of the methods does this.
bool does(const method_chain& chain, effect what) {
  return any_method(chain, [&](std::string_view name) { return words_of(name).does == what; });
}

/// How many weights methods make 0, as --sparsity says, or as the storage has places for.
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

/// The file beside statistics that says what they are of.
std::string statistics_mark(const std::string& statistics) { return statistics + ".json"; }

/// Refuses two names of one file, of which the later would overwrite the earlier.
void check_unlike(const std::vector<std::string>& written) {
  std::error_code ignored;
  for (std::size_t i = 0; i < written.size(); ++i)
    for (std::size_t j = 0; j < i && !written[i].empty(); ++j)
      if (fs::weakly_canonical(written[i], ignored) == fs::weakly_canonical(written[j], ignored))
        throw failure(written[i] + ": would be written twice; name another file");
}

/// Refuses statistics that are of something else, and says what those to come are of.
void check_statistics(const compress_options& o, const subject& s) {
  if (o.statistics.empty()) return;
  json of{{"model", s.what.model.name()},
          {"weights", mark_of(s.weights)},
          {"text", mark_of(o.calibrate)},
          {"length", s.length},
          {"seed", o.seed}};
  if (!parse_methods(o.method, o.how.storage).rebuilding.empty())
    of["method"] = o.method + ' ' + o.shape + ' ' + o.importance;
  const std::string about = statistics_mark(o.statistics);
  if (!kept_json("--statistics", about, of) && fs::exists(o.statistics))
    throw failure(fmt::format("--statistics: {}: {} is missing, which says what they are of",
                              o.statistics, about));
  keep_json(about, {{"of", of}});
}

/// What was made, and how it does.
struct made_model {
  const stored_model& model;
  ln::index dropped;  ///< nonzero weights without a place
  bool pruned;
  std::span<const found_units> found;  ///< by predictors
};

json results(const compress_options& o, const subject& s, const compressor& by, const costs& c,
             const made_model& made, const std::optional<score>& before,
             const std::optional<score>& after) {
  const auto parameters = static_cast<double>(by.parameters());
  const ln::index bytes = made.model.bytes();
  json all{{"model", s.what.model.name()},
           {"method", o.method},
           {"storage", o.how.storage},
           {"compute", o.how.compute},
           {"seed", o.seed},
           {"sequential", o.sequential},
           {"parameters", by.parameters()},
           {"bytes", bytes},
           {"bits_per_weight", 8 * static_cast<double>(bytes) / parameters}};
  if (!o.shape.empty()) {
    all["shape"] = o.shape;
    all["importance"] = o.importance;
    all["parameters_after"] = made.model.parameters();
  }
  if (made.pruned) {
    all["zeros"] = made.model.zeros();
    all["dropped"] = made.dropped;
  }
  for (const found_units& one : made.found)
    for (std::size_t layer = 0; layer < one.layers.size(); ++layer) {
      const ln::predictor_quality& q = one.layers[layer];
      all["predictors"].push_back({{"of", one.units},
                                   {"layer", layer},
                                   {"recall", q.recall},
                                   {"found", q.predicted},
                                   {"active", q.active}});
    }
  const auto pair = [&](const char* name, auto&& figure) {
    all[std::string(name) + "_before"] = before ? json(figure(*before)) : json();
    all[std::string(name) + "_after"] = after ? json(figure(*after)) : json();
  };
  pair("bytes", [](const score& x) { return static_cast<double>(x.weight_bytes); });
  const bool embeds = s.what.model.embeds();
  pair(embeds ? "texts_per_second" : "tokens_per_second",
       [](const score& x) { return x.per_second; });
  // The mean over windows, with its interval.
  const auto judged = [&](const char* what, const std::vector<double>& of_windows) {
    const ln::estimate mean = ln::mean_estimate(of_windows);
    const auto number = [](double x) { return ln::is_finite(x) ? json(x) : json(); };
    all["difference"] = {{what, number(mean.value)},
                         {"low", number(mean.value - 1.96 * mean.error)},
                         {"high", number(mean.value + 1.96 * mean.error)}};
  };
  if (!embeds) {
    pair("bits_per_byte", [](const score& x) { return x.bits_per_byte(); });
    pair("perplexity", [](const score& x) { return x.perplexity(); });
  }
  if (before && after && embeds) {
    const std::vector<double> all_cosines = cosines(*before, *after);
    judged("cosine", all_cosines);
    all["cosine_before"] = 1;
    all["cosine_after"] = all["difference"]["cosine"];
    all["cosine_least"] = *std::ranges::min_element(all_cosines);
    all["windows"] = {{"cosine", all_cosines}};
  } else if (before && after) {
    judged("bits_per_byte", differences(*before, *after));
    all["greedy_agreement"] = agreement(*before, *after);
    all["windows"] = {
        {"nats_before", before->nats}, {"nats_after", after->nats}, {"bytes", before->bytes}};
  }
  all["calibration_windows"] = c.windows;
  all["calibration_seconds"] = c.calibrating;
  all["method_steps"] = c.steps;
  all["method_seconds"] = c.compressing;
  all["method_peak_bytes"] = c.peak;
  all["peak_bytes"] = std::max(c.peak_before, memory_peak());
  return all;
}

void print_predictors(const json& all) {
  std::vector<text_row> rows{{"predictors of", "layer", "recall", "found", "active"}};
  for (const json& one : all) {
    const auto share = [&](const char* name) {
      return fmt::format("{:.3f}", one.at(name).get<double>());
    };
    rows.push_back({one.at("of").get<std::string>(), std::to_string(one.at("layer").get<int>()),
                    share("recall"), share("found"), share("active")});
  }
  put("\n{}\n", aligned(rows));
}
void print_results(const compress_options& o, const json& r) {
  const auto number = [&](const char* name) { return r.at(name).get<double>(); };
  put("{}: {} by {}, {} of {} weights, {:.2f} bits per weight\n", o.out, o.how.storage, o.method,
      human_bytes(r.at("bytes").get<ln::index>()), grouped(r.at("parameters").get<ln::index>()),
      number("bits_per_weight"));
  if (r.at("calibration_windows").get<ln::index>() > 0)
    put("calibration: {} windows in {}; ", r.at("calibration_windows").get<ln::index>(),
        duration(number("calibration_seconds")));
  if (const auto steps = r.at("method_steps").get<ln::index>(); steps > 0)
    put("{} steps of learning; ", steps);
  put("rounding: {}; at most {} of memory\n", duration(number("method_seconds")),
      human_bytes(r.at("peak_bytes").get<ln::index>()));
  if (r.contains("parameters_after"))
    put("{}: {} weights are left\n", o.shape, grouped(r.at("parameters_after").get<ln::index>()));
  if (r.contains("zeros"))
    put("zeros: {:.1f}% of the weights of matrices\n", 100 * number("zeros"));
  if (r.contains("predictors")) print_predictors(r.at("predictors"));
  if (!r.contains("difference")) return;
  std::vector<text_row> rows{{"", "before", "after"}};
  const auto row = [&](const char* title, const std::string& name, auto&& text) {
    rows.push_back({title, text(r.at(name + "_before").get<double>()),
                    text(r.at(name + "_after").get<double>())});
  };
  const auto bytes = [](double x) { return human_bytes(std::lround(x)); };
  row("bytes", "bytes", bytes);
  const auto speed = [](double x) { return fmt::format("{:.1f}", x); };
  const json& d = r.at("difference");
  if (d.contains("cosine")) {
    row("texts/s", "texts_per_second", speed);
    put("\n{}\ncosine to the vectors before: {:.5f} over {} texts, {:.5f} at least", aligned(rows),
        number("cosine_after"), r.at("windows").at("cosine").size(), number("cosine_least"));
    if (!d.at("low").is_null())
      put(", 95% interval {:.5f} to {:.5f}", d.at("low").get<double>(), d.at("high").get<double>());
    put("\n");
    return;
  }
  row("bits per byte", "bits_per_byte", [](double x) { return fmt::format("{:.4f}", x); });
  row("perplexity", "perplexity", [](double x) { return fmt::format("{:.3f}", x); });
  row("tokens/s", "tokens_per_second", speed);
  put("\n{}", aligned(rows));
  if (!d.at("low").is_null())
    put("\n{:+.4f} bits per byte, 95% interval {:+.4f} to {:+.4f} over {} windows\n",
        d.at("bits_per_byte").get<double>(), d.at("low").get<double>(), d.at("high").get<double>(),
        r.at("windows").at("bytes").size());
  put("the same likeliest token for {:.1f}% of the text\n", 100 * number("greedy_agreement"));
}

}  // namespace

void compress(const compress_options& asked) {
  const stop_requests stop;
  compress_options o = asked;
  (void)storage_type(o.how.storage);
  const method_chain chain = parse_methods(o.method, o.how.storage);
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
  if (!reads && (!o.calibrate.empty() || !o.statistics.empty()))
    throw failure(fmt::format("--method {}: needs no text; leave --calibrate out", o.method));
  if (learns && !o.statistics.empty())
    throw failure(fmt::format(
        "--method {}: calibrates a model that it learns anew each time; leave --statistics out",
        o.method));
  // What first reads the statistics of the weights that all steps begin with.
  const bool at_once = !o.sequential && !(chain.before.empty() && words_of(chain.last).in_blocks) &&
                       words_of(chain.before.empty() ? chain.last : chain.before[0]).calibrates &&
                       (chain.before.empty() || chain.before[0] != "distil");
  if (!at_once && !o.statistics.empty())
    throw failure(fmt::format(
        "--method {}: does not begin with a method that calibrates; leave --statistics out",
        o.method));
  if (o.sequential && does(chain, effect::scales))
    throw failure(fmt::format(
        "--method {}: scales tensors of several blocks at once; leave --sequential out", o.method));
  const pruning how = pruning_of(o, chain);
  for (const std::string& path : {o.out, o.reference, o.statistics})
    check_writable(path, {o.weights, o.calibrate, o.evaluate, o.tokenizer});
  check_unlike({o.out, o.reference, o.statistics,
                o.statistics.empty() ? "" : statistics_mark(o.statistics)});
  const subject s = subject_of(o);
  if (o.samples == 0) o.samples = s.what.model.embeds() ? 512 : 128;  // a pooler reads one row each
  const auto windows_of = [&](const char* option, const std::string& path) {
    return path.empty() ? nullptr : open_windows(option, path, s.text, s.reader(), s.length);
  };
  const auto learned = windows_of("--calibrate", o.calibrate),
             judged = windows_of("--evaluate", o.evaluate);
  const std::shared_ptr<compressor> by = find_compressor(s.what);
  end_if_asked();
  by->load(s.weights);
  std::optional<score> before, after;
  const ln::index windows = judged ? std::min<ln::index>(o.windows, judged->count()) : 0;
  if (judged) before = score_before(o, s, *by, *judged, windows);

  costs c{.peak_before = memory_peak()};
  forget_memory_peak();
  std::optional<calibration_plan> plan;
  double start = now();
  if (learned) {
    check_statistics(o, s);
    plan = plan_of(o, *learned, c);
    c.windows = at_once ? by->calibrate(*plan) : plan->batches;
    c.calibrating = now() - start;
    if (c.windows < o.samples)
      say("calibration: {} windows in {}, fewer than --samples {}; {}\n", c.windows,
          duration(c.calibrating), o.samples,
          c.windows < plan->batches ? "--minutes gives it more time" : "the text has no more");
  }
  start = now();
  const auto made = by->compress(
      chain, how, judged ? judged->limits(o.threads) : ln::limits{.threads = o.threads},
      plan ? &*plan : nullptr);
  c.compressing = now() - start;
  c.peak = memory_peak();
  end_if_asked();
  if (judged)
    after = score_of(*made, *judged, windows, s.what.model.vocabulary(), o.threads, "after");
  file_notes notes = notes_of(s.what);
  notes["compression.calibration_windows"] = std::to_string(c.windows);
  notes["compression.seed"] = std::to_string(o.seed);
  made->save(o.out, notes);
  const made_model stored{*made, by->dropped(), does(chain, effect::prunes), by->found()};
  const json r = results(o, s, *by, c, stored, before, after);
  if (by->dropped() > 0)
    say("--storage {}: has no place for {} nonzero weights, which are 0 now; what keeps more has\n",
        o.how.storage, grouped(by->dropped()));
  if (o.json)
    put("{}\n", r.dump());
  else
    print_results(o, r);
}

}  // namespace zoo
