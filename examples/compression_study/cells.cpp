// SPDX-License-Identifier: MIT
// Runs zoo compress for every cell of the study, and keeps what it says line by line.

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <linnet/eval/estimates.hpp>
#include <linnet/file/file.hpp>
#include <map>
#include <numbers>
#include <optional>

#include "study.hpp"
#include "support/console.hpp"
#include "support/progress.hpp"

namespace study {

namespace fs = std::filesystem;
using support::failure, support::quoted, support::file_text, support::say, support::take;

namespace {

/// What zoo prints.
std::string zoo(const options& o, const std::vector<std::string>& words) {
  const std::string out = o.runs() + "/output";
  std::string command = quoted(o.zoo);
  for (const std::string& word : words) command += ' ' + quoted(word);
  const int status = std::system((command + " >" + quoted(out)).c_str());
  if (WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) > 128))
    throw failure("ended by a signal; a later call goes on");
  if (status != 0) throw failure("failed: " + command);
  return file_text(out);
}

/// Calls f(words) for each of several methods in a row, and for the one that stores the model.
template <class F>
bool any_step(std::string_view methods, F&& f) {
  for (std::size_t at = 0, end; at <= methods.size(); at = end + 1) {
    end = std::min(methods.find('+', at), methods.size());
    const zoo::method_words& one = zoo::words_of(methods.substr(at, end - at));
    if (f(one) || (end == methods.size() && f(zoo::words_of(one.then)))) return true;
  }
  return false;
}

/// One run of zoo compress.
struct run {
  const subject* of;
  trial what;
  long seed;

  bool calibrates() const {
    return any_step(what.method, [](const zoo::method_words& one) {
      return one.calibrates || one.name == "narrow";
    });
  }
  std::string key(const options& o) const {
    std::string text = fmt::format(
        "{} {} {} seed {}, {} windows of {} for calibration, {} for "
        "evaluation",
        of->name, what.to.name(), what.name(), seed, calibrates() ? samples(o) : 0, o.size.length,
        windows(o));
    if (trains()) text += fmt::format(", {} steps", o.size.steps);
    return text;
  }
  bool trains() const {
    return any_step(what.method,
                    [](const zoo::method_words& one) { return one.does == zoo::effect::trains; });
  }
  long samples(const options& o) const { return of->times * o.size.samples; }
  long windows(const options& o) const { return of->times * o.size.windows; }
  std::vector<std::string> words(const options& o) const {
    const std::string kept = fmt::format("{}/{}", o.runs(), of->name);
    std::vector<std::string> all{"compress"};
    all.insert(all.end(), of->model.begin(), of->model.end());
    const auto add = [&](const char* name, const std::string& value) {
      if (!value.empty()) all.insert(all.end(), {name, value});
    };
    add("--method", what.method);
    add("--storage", what.to.storage);
    add("--compute", what.to.compute);
    add("--sparsity", what.sparsity);
    add("--shape", what.shape);
    if (trains()) add("--steps", std::to_string(o.size.steps));
    add("--evaluate", of->evaluate);
    add("--windows", std::to_string(windows(o)));
    add("--length", std::to_string(o.size.length));
    add("--reference", fmt::format("{}.{}.before", kept, windows(o)));
    add("--threads", std::to_string(o.threads));
    add("--out", o.runs() + "/model.safetensors");
    if (calibrates()) {
      add("--calibrate", of->calibrate);
      add("--samples", std::to_string(samples(o)));
      add("--seed", std::to_string(seed));
      const auto& first = zoo::words_of(what.method.substr(0, what.method.find('+')));
      if (first.calibrates && first.does != zoo::effect::rebuilds && !first.in_blocks)
        add("--statistics", fmt::format("{}.{}.{}.statistics", kept, samples(o), seed));
    }
    all.emplace_back("--json");
    return all;
  }
};

std::vector<run> runs_of(const options& o, const std::vector<subject>& all) {
  std::vector<run> runs;
  const auto add = [&](run one) {
    if (one.calibrates() || one.seed == 1) runs.push_back(std::move(one));
  };
  for (const subject& s : all)
    for (long seed = 1; seed <= o.size.seeds; ++seed) {
      for (const stored& to : s.storages)
        for (const zoo::method_words& by : methods)
          if (by.does != zoo::effect::prunes && by.does != zoo::effect::trains &&
              by.name != "narrow" && by.name != "relufy" && !zoo::predicts(by.name) &&
              (!by.in_blocks || s.name == "stories260k") && zoo::gives(by.storages, to.storage) &&
              (s.methods.empty() || std::ranges::find(s.methods, by.name) != s.methods.end()))
            add({&s, {std::string(by.name), to}, seed});
      for (const trial& one : s.pruned) add({&s, one, seed});
    }
  return runs;
}

/// Every method that prunes at every share, then 2:4, 4-bit codes before and behind, and training.
std::vector<trial> pruning_trials(const std::string& tail, const std::vector<int>& shares) {
  std::vector<trial> all;
  const std::string four = "int4-g64" + tail;
  for (const std::string method : {"magnitude", "wanda", "sparsegpt"}) {
    for (const int share : shares) all.push_back({method, {"f32"}, std::to_string(share)});
    all.push_back({method, {"f32"}, "2:4"});
    all.push_back({method, {"int4-g64-2:4" + tail}});
    all.push_back({method, {four}, "50"});
    all.push_back({method + "+gptq", {four}, "50"});
    all.push_back({method, {"bf16-mask50"}});
  }
  return all;
}
/// Smaller shapes, in f32 and in 4 bits.
void add_shapes(std::vector<trial>& all, const std::vector<std::string>& shapes, bool train,
                const std::string& tail) {
  for (const std::string& shape : shapes) {
    all.push_back({"narrow", {"f32"}, "", shape});
    all.push_back({"narrow+gptq", {"int4-g64" + tail}, "", shape});
    if (!train) continue;
    all.push_back({"narrow+distil", {"f32"}, "", shape});
    all.push_back({"narrow+distil+gptq", {"int4-g64" + tail}, "", shape});
  }
}
/// Training of what was pruned.
void add_recovery(std::vector<trial>& all, const std::vector<std::string>& shares) {
  for (const std::string method : {"magnitude", "sparsegpt"})
    for (const std::string& share : shares) {
      all.push_back({method + "+distil", {"f32"}, share});
      all.push_back({method + "+distil+gptq", {"int4-g64"}, share});
    }
}

}  // namespace

std::vector<subject> subjects_of(const options& o) {
  const auto data = [&](const char* name) { return o.data + "/" + name; };
  const std::string stories = data("tinystories/tiny_stories_train_head.txt"),
                    held_out = data("tinystories/tinystories_valid_slice.txt");
  const bool small = o.size.name == "minutes";
  std::vector<stored> storages{{"int4-row"}, {"int4-row-out2"}, {"int4-g64"}, {"int4-g64-rank4"},
                               {"nf4-g64"},  {"nf4-double"},    {"int3-g64"}, {"spqr3-out2"},
                               {"q4_1"},     {"int8", "int8"}};
  std::vector<std::string> tried;
  std::vector<trial> pruned;
  if (small) {
    storages = {{"int4-g64"}};
    tried = {"rtn", "gptq", "clip", "awq"};  // built in
    for (const char* const share : {"30", "50", "70"})
      pruned.push_back({"sparsegpt", {"int4-g64"}, share});
    pruned.push_back({"magnitude", {"int4-g64"}, "50"});
    pruned.push_back({"wanda+gptq", {"int4-g64"}, "50"});
  } else {
    pruned = pruning_trials("", {10, 20, 30, 40, 50, 60, 70, 80, 90});
    add_recovery(pruned, {"50", "70", "2:4"});
    add_shapes(pruned, {"layers=4", "layers=3", "d_ff=128", "d_ff=86,heads=6"}, true, "");
  }
  std::vector<subject> all;
  all.push_back({"stories260k",
                 {"--model", "stories260k", "--weights", data("stories260K/stories260K.bin"),
                  "--tokenizer", data("stories260K/tok512.bin")},
                 stories,
                 held_out,
                 storages,
                 tried,
                 {},
                 {},
                 1,
                 pruned});
  if (!small) {
    const std::string trained = o.out + "/t5";
    all.push_back({"t5",
                   {"--weights", trained},
                   stories,
                   held_out,
                   {{"int4-row"}, {"int4-g64"}, {"int3-g64"}, {"q4_1"}},
                   {},
                   {"train", "--text", stories, "--model",
                    "t5:d_model=128,d_ff=512,heads=4,encoder_layers=3,decoder_layers=3",
                    "--tokenizer", "bytes", "--minutes", "20", "--out", trained},
                   trained + "/model.safetensors"});
    std::vector<trial> smaller = pruning_trials("", {50});
    add_recovery(smaller, {"50"});
    add_shapes(smaller, {"layers=3", "d_ff=192", "heads=3,d_ff=256", "d_model=96"}, true, "");
    const std::string decoder = o.out + "/decoder";
    all.push_back(
        {"decoder",
         {"--weights", decoder},
         stories,
         held_out,
         {{"int4-g64"}, {"int3-g64"}},
         {"rtn", "gptq"},
         {"train", "--text", stories, "--model", "decoder:d_model=128,d_ff=384,heads=4,layers=4",
          "--tokenizer", "bytes", "--minutes", "20", "--out", decoder},
         decoder + "/model.safetensors",
         1,
         smaller});
    std::vector<trial> real = pruning_trials("+q8_0", {10, 20, 30, 40, 50, 60, 70, 80, 90});
    add_shapes(real, {"layers=27", "layers=24", "d_ff=1152", "heads=6"}, false, "+q8_0");
    // Codes of 4 bits with a minimum already: the same grid would round nothing. The embedding,
    // which is the head, stays in q8_0, which loses nothing.
    all.push_back({"smollm2-135m",
                   {"--model", "smollm2-135m"},
                   data("wikitext2/valid.txt"),
                   data("wikitext2/test.txt"),
                   {{"int4-row+q8_0"},
                    {"int4-row-out8+q8_0"},
                    {"int4-g64+q8_0"},
                    {"int4-g64-rank8+q8_0"},
                    {"int3-g64+q8_0"},
                    {"spqr3-out2+q8_0"},
                    {"int8+q8_0", "int8"}},
                   {},
                   {},
                   {},
                   1,
                   real});
    // Its rotations do not fit: norms behind the sum, which subtract the mean.
    all.push_back({"minilm",
                   {"--model", "minilm"},
                   data("wikitext2/valid.txt"),
                   data("wikitext2/test.txt"),
                   {{"int8"}, {"int8", "int8"}, {"int4-row"}, {"int4-g64"}, {"int3-g64"}, {"q4_1"}},
                   {"rtn", "gptq", "clip", "awq", "smoothquant", "hqq"},
                   {},
                   {},
                   4});
  }
  std::erase_if(all, [&](const subject& s) {
    return !o.models.empty() && std::ranges::find(o.models, s.name) == o.models.end();
  });
  return all;
}

std::vector<cell> run_cells(const options& o, const std::vector<subject>& all) {
  const std::string path = o.out + "/results.jsonl";
  std::vector<cell> cells;
  std::map<std::string, json, std::less<>> known;
  std::string kept;
  if (fs::exists(path)) {
    const std::string text = file_text(path);
    for (std::size_t at = 0, end; (end = text.find('\n', at)) != text.npos; at = end + 1) {
      json line = json::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                              text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
      if (!line.is_object() || !line.contains("cell") || !line.contains("found")) continue;
      kept += text.substr(at, end + 1 - at);
      known[line["cell"].get<std::string>()] = line["found"];
    }
  }
  auto file = take(ln::line_file::open(path, kept));
  const double start = support::now();
  const std::vector<run> runs = runs_of(o, all);
  std::size_t done = 0;
  for (const run& r : runs) {
    const std::string key = r.key(o);
    ++done;
    auto at = known.find(key);
    if (at == known.end()) {
      if (support::now() - start > 60 * o.minutes) continue;  // left to a later call
      if (!r.of->made.empty() && !fs::exists(r.of->made)) (void)zoo(o, r.of->training);
      say("{} of {}: {}\n", done, runs.size(), key);
      const json found = json::parse(zoo(o, r.words(o)), nullptr, false);
      if (!found.is_object()) throw failure(o.zoo + ": printed no results");
      take(file.write(json{{"cell", key}, {"found", found}}.dump() + "\n"));
      take(file.sync());
      at = known.emplace(key, found).first;
    }
    cells.push_back({r.of->name, r.what.to.name(), r.what.name(), r.seed, at->second});
  }
  return cells;
}

judgement judge(const json& found, bool before) {
  const auto& windows = found.at("windows");
  judgement all;
  if (of_encoder(found)) {
    all.loss = before ? 0 : 1 - found.at("cosine_after").get<double>();
    for (const json& cosine : windows.at("cosine"))
      all.windows.push_back(before ? 0 : 1 - cosine.get<double>());
  } else {
    const std::string when = before ? "_before" : "_after";
    all.loss = found.at("bits_per_byte" + when).get<double>();
    for (std::size_t i = 0; i < windows.at("bytes").size(); ++i)
      all.windows.push_back(windows.at("nats" + when)[i].get<double>() / std::numbers::ln2 /
                            windows.at("bytes")[i].get<double>());
  }
  return all;
}

std::vector<summary> summarize(const std::vector<cell>& cells) {
  std::vector<summary> all;
  for (const cell& c : cells) {
    auto at = std::ranges::find_if(all, [&](const summary& s) {
      return s.model == c.model && s.storage == c.storage && s.method == c.method;
    });
    if (at == all.end()) {
      summary fresh;
      fresh.model = c.model;
      fresh.storage = c.storage;
      fresh.method = c.method;
      at = all.insert(at, fresh);
    }
    at->cells.push_back(&c);
  }
  for (summary& s : all) {
    s.least = s.low = HUGE_VAL;
    s.most = s.high = -HUGE_VAL;
    const auto nearest = std::ranges::find_if(all, [&](const summary& other) {
      return other.model == s.model && other.storage == s.storage && other.method == "rtn";
    });
    for (const cell* c : s.cells) {
      const judgement own = judge(c->found);
      const double share = 1 / static_cast<double>(s.cells.size());
      s.loss += share * own.loss;
      s.least = std::min(s.least, own.loss);
      s.most = std::max(s.most, own.loss);
      if (nearest != all.end() && &*nearest == &s) continue;
      const judgement other =
          nearest == all.end() ? judge(c->found, true) : judge(nearest->found());
      std::vector<double> more;
      for (std::size_t i = 0; i < own.windows.size(); ++i)
        more.push_back(own.windows[i] - other.windows[i]);
      const ln::estimate mean = ln::mean_estimate(more);
      s.more += share * mean.value;
      s.low = std::min(s.low, mean.value - 1.96 * mean.error);
      s.high = std::max(s.high, mean.value + 1.96 * mean.error);
    }
    if (!ln::is_finite(s.low)) s.more = s.low = s.high = std::nan("");
  }
  for (summary& s : all) {
    const auto best = [&](auto&& less_than) {
      return std::ranges::none_of(all, [&](const summary& other) {
        return other.model == s.model && &other != &s && other.loss <= s.loss && less_than(other);
      });
    };
    s.frontier_bytes = best([&](const summary& other) {
      const double a = other.number("bytes"), b = s.number("bytes");
      return a < b || (a == b && other.loss < s.loss);
    });
    s.frontier_speed = best([&](const summary& other) {
      const std::string speed = speed_name(s.found()) + "_after";
      return other.number(speed.c_str()) > s.number(speed.c_str());
    });
  }
  return all;
}

}  // namespace study
