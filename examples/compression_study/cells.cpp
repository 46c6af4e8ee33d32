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

/// One run of zoo compress.
struct run {
  const subject* of;
  stored to;
  const zoo::method_words* by;
  long seed;

  std::string key(const options& o) const {
    return fmt::format("{} {} {} seed {}, {} windows of {} for calibration, {} for evaluation",
                       of->name, to.name(), by->name, seed, by->calibrates ? samples(o) : 0,
                       o.size.length, windows(o));
  }
  long samples(const options& o) const { return of->times * o.size.samples; }
  long windows(const options& o) const { return of->times * o.size.windows; }
  std::vector<std::string> words(const options& o) const {
    const std::string kept = fmt::format("{}/{}", o.runs(), of->name);
    std::vector<std::string> all{"compress"};
    all.insert(all.end(), of->model.begin(), of->model.end());
    const auto add = [&](const char* name, const std::string& value) {
      all.insert(all.end(), {name, value});
    };
    add("--method", std::string(by->name));
    add("--storage", to.storage);
    add("--compute", to.compute);
    add("--evaluate", of->evaluate);
    add("--windows", std::to_string(windows(o)));
    add("--length", std::to_string(o.size.length));
    add("--reference", fmt::format("{}.{}.before", kept, windows(o)));
    add("--threads", std::to_string(o.threads));
    add("--out", o.runs() + "/model.safetensors");
    if (by->calibrates) {
      add("--calibrate", of->calibrate);
      add("--samples", std::to_string(samples(o)));
      add("--seed", std::to_string(seed));
      if (!by->changes_model)
        add("--statistics", fmt::format("{}.{}.{}.statistics", kept, samples(o), seed));
    }
    all.emplace_back("--json");
    return all;
  }
};

std::vector<run> runs_of(const options& o, const std::vector<subject>& all) {
  std::vector<run> runs;
  for (const subject& s : all)
    for (long seed = 1; seed <= o.size.seeds; ++seed)
      for (const stored& to : s.storages)
        for (const zoo::method_words& by : methods)
          if (zoo::gives(by.storages, to.storage) && (by.calibrates || seed == 1) &&
              (s.methods.empty() || std::ranges::find(s.methods, by.name) != s.methods.end()))
            runs.push_back({&s, to, &by, seed});
  return runs;
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
  if (small) {
    storages = {{"int4-g64"}};
    tried = {"rtn", "gptq", "clip", "awq"};  // built in
  }
  std::vector<subject> all;
  all.push_back({"stories260k",
                 {"--model", "stories260k", "--weights", data("stories260K/stories260K.bin"),
                  "--tokenizer", data("stories260K/tok512.bin")},
                 stories,
                 held_out,
                 storages,
                 tried});
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
                    {"int8+q8_0", "int8"}}});
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
    cells.push_back({r.of->name, r.to.name(), std::string(r.by->name), r.seed, at->second});
  }
  return cells;
}

judgement judge(const json& found) {
  const auto& windows = found.at("windows");
  judgement all;
  if (of_encoder(found)) {
    all.loss = 1 - found.at("cosine_after").get<double>();
    for (const json& cosine : windows.at("cosine")) all.windows.push_back(1 - cosine.get<double>());
  } else {
    all.loss = found.at("bits_per_byte_after").get<double>();
    for (std::size_t i = 0; i < windows.at("bytes").size(); ++i)
      all.windows.push_back(windows.at("nats_after")[i].get<double>() / std::numbers::ln2 /
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
      if (nearest == all.end() || &*nearest == &s) continue;
      const judgement other = judge(nearest->found());
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
