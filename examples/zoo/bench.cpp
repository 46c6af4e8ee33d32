// SPDX-License-Identifier: MIT
// zoo bench: how fast one configuration is, whichever it is. Models are types, so the configuration
// is written down as a short program, compiled once and run.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "compiled.hpp"
#include "model_spec.hpp"
#include "presets.hpp"
#include "profile_report.hpp"
#include "storage_words.hpp"
#include "support.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

/// The works asked for, or the refusal of one that the model does not have.
std::vector<std::string> works_of(const model_spec& model, const std::string& asked) {
  static constexpr std::string_view known[] = {"encode", "prefill", "decode", "train", "all"};
  check_name("work", asked, known);
  if (model.encodes() && asked == "prefill")
    throw failure(model.name() + " is an encoder-decoder: it has no prefill; ask for encode");
  if (!model.encodes() && asked == "encode")
    throw failure(model.name() + " is decoder-only: it has no encoder; ask for prefill");
  if (asked != "all") return {asked};
  return {model.encodes() ? "encode" : "prefill", "decode", "train"};
}

// --- the program ---------------------------------------------------------------------------------

std::string program_text(const bench_options& o, const model_spec& model,
                         const std::vector<std::string>& works) {
  const std::string storage = storage_type(o.storage);
  if (o.profile && storage.find("layers<") != storage.npos)
    throw failure("--profile: layers that are stored in several ways are not profiled");
  static constexpr std::string_view timed[] = {"f32", "bf16", "int8"};
  check_name("activation", o.activation, timed);
  const std::string activation = compute_type("activation", o.activation);
  check_types("--activation", o.storage, o.activation);
  const bool rounded = o.activation != "f32";
  const bool loads = !o.weights.empty();
  std::string text = fmt::format(
      "// {} with feed-forward {}, weights in {}, activations in {}.\n"
      "// Arguments: BATCH SOURCE TARGET THREADS SECONDS{}\n\n"
      "#include \"{}/examples/zoo/bench_of.hpp\"\n{}"
      "namespace ln = linnet;\n\n{}"
      "using Trained = {};\n"
      "using Deployed = {};\n\n"
      "int main(int count, char** argument) try {{\n"
      "  if (count != {}) return 2;\n"
      "  zoo::measurement<Trained, Deployed{}> bench(argument, {});\n",
      model.name(), o.ffn, o.storage, o.activation, loads ? " WEIGHTS" : "", ZOO_SOURCE_DIR,
      loads ? "#include \"" ZOO_SOURCE_DIR "/examples/zoo/preset_loader.hpp\"\n" : "",
      model.declarations(), model.type(o.ffn),
      !rounded && o.storage == "f32" ? "Trained"
      : rounded ? fmt::format("ln::quantized<Trained, {}, {}>", storage, activation)
                : fmt::format("ln::quantized<Trained, {}>", storage),
      loads ? 7 : 6, o.profile ? ", ln::profiled<Trained>, ln::profiled<Deployed>" : "",
      loads ? "zoo::weights_at<Trained>(argument[6])" : "works::random_weights<Trained>()");
  for (const std::string& work : works) text += "  bench." + work + "();\n";
  return text +
         "  return bench.print();\n} catch (const std::exception& problem) {\n"
         "  return zoo::say_problem(problem);\n}\n";
}

/// What the program found.
json measured(const fs::path& program, const bench_options& o) {
  const fs::path file = fmt::format("{}.{}", program.string(), getpid());
  std::string command = fmt::format("{} {} {} {} {} {}", quoted(program.string()), o.batch,
                                    o.source, o.target, o.threads, o.seconds);
  if (!o.weights.empty()) command += fmt::format(" {}", quoted(o.weights));
  const bool done = succeeds(command, file);
  const std::string out = contents(file.string() + ".out");
  const std::string problem = done ? "" : first_error(file.string() + ".err");
  fs::remove(file.string() + ".out");
  fs::remove(file.string() + ".err");
  if (!done) throw failure(fmt::format("{}: {}", program.string(), problem));
  try {
    return json::parse(out);
  } catch (const json::exception&) {
    throw failure(fmt::format("{}: printed no results", program.string()));
  }
}

/// A figure that the program measured; none (null) is not a number.
double figure(const json& x) {
  return x.is_number() ? x.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// Adds to each work how near it comes to what the machine can do.
void add_fractions(json& found, const std::string& activation) {
  const double peak =
      figure(found["machine"][activation + (activation == "int8" ? "_gops" : "_gflops")]);
  for (json& work : found["results"]) {
    const double read = figure(work["read_gbs"]);
    const bool trains = work["work"] == "train";
    const double best = trains ? figure(found["machine"]["f32_gflops"]) : peak;
    work["peak_fraction"] = best > 0 ? json(figure(work["gflops"]) / best) : json();
    work["bandwidth_fraction"] = read > 0 ? json(figure(work["gbs"]) / read) : json();
    if (work.contains("profile"))
      add_limits(work["profile"], best, read > 0 ? read : figure(found["machine"]["read_gbs"]));
    work.erase("gbs");
    work.erase("read_gbs");
  }
}

std::string percent(const json& fraction) {
  return fraction.is_null() ? "-" : fmt::format("{:.0f}%", 100 * figure(fraction));
}

void print_works(const bench_options& o, const json& found) {
  const json& m = found["machine"];
  put("{}, feed-forward {}, weights {}, activations {}: {} parameters, {}\n", o.preset, o.ffn,
      o.storage, o.activation, grouped(found["parameters"].get<ln::index>()),
      human_bytes(found["weight_bytes"].get<ln::index>()));
  put("{} sequence{}, {} source and {} target tokens, {} thread{}\n\n", o.batch,
      o.batch == 1 ? "" : "s", o.source, o.target, o.threads, o.threads == 1 ? "" : "s");
  std::vector<text_row> rows{
      {"work", "ms", "least", "CPU ms", "runs", "tokens/s", "GFLOP/s", "of peak", "of bandwidth"}};
  for (const json& w : found["results"])
    rows.push_back({w["work"].get<std::string>(), fmt::format("{:.4g}", figure(w["ms"])),
                    fmt::format("{:.4g}", figure(w["ms_min"])),
                    fmt::format("{:.4g}", figure(w["cpu_ms"])),
                    fmt::format("{}", w["runs"].get<long>()),
                    grouped(std::lround(figure(w["tokens_per_second"]))),
                    fmt::format("{:.1f}", figure(w["gflops"])), percent(w["peak_fraction"]),
                    percent(w["bandwidth_fraction"])});
  put("{}", aligned(rows));
  put("\nMedians; decode per token. The machine: {:.0f} GFLOP/s f32, {:.0f} bf16, {:.0f} GOP/s "
      "int8;\nreads {:.0f} GB/s from L1, {:.0f} L2, {:.0f} L3, {:.0f} from memory, {:.0f} these "
      "weights.\n",
      figure(m["f32_gflops"]), figure(m["bf16_gflops"]), figure(m["int8_gops"]),
      figure(m["read_l1_gbs"]), figure(m["read_l2_gbs"]), figure(m["read_l3_gbs"]),
      figure(m["read_memory_gbs"]), figure(m["read_gbs"]));
}

void print_profiles(const json& found) {
  for (const json& w : found["results"]) {
    put("\n{}, by operation{}:\n{}", w["work"].get<std::string>(),
        w["work"] == "decode" ? ", per token" : "", aligned(profile_table(w["profile"])));
    const std::vector<double> waited = waiting_of(w["profile"]);
    if (waited.size() < 2) continue;
    put("waiting for other threads, ms of each:");
    for (const double ms : waited) put(" {:.3g}", ms);
    put("\n");
  }
}

}  // namespace

void bench(const bench_options& o) {
  if (!o.attention.empty()) return bench_attention(o);
  if (!o.html.empty()) {
    if (!o.profile) throw failure("--html: goes with --attention or --profile");
    check_writable(o.html, {o.weights});
  }
  if (o.preset.empty())
    throw failure("a preset is missing (see zoo list), or --attention with a kind or all");
  const model_spec model = parse_model("preset", o.preset);
  if (model.vocabulary() == 0) throw failure(o.preset + ": vocabulary=N is missing");
  const std::vector<std::string> works = works_of(model, o.work);
  const std::string text = program_text(o, model, works);
  if (const long length = o.source + (works[0] == "prefill" && works.size() == 1 ? 0 : o.target);
      !model.encodes() && length > model.context())
    throw failure(fmt::format("--source {} and --target {}: {} tokens, but the context of {} is {}",
                              o.source, o.target, length, model.name(), model.context()));
  const program_folder folder;
  json found = measured(compiled(folder.path(), "bench-" + model.base, text, product::program), o);
  add_fractions(found, o.activation);
  if (!o.html.empty()) write_profiles(found, fmt::format("Profile of {}", model.name()), o.html);
  if (!o.json) {
    print_works(o, found);
    if (o.profile) print_profiles(found);
    return;
  }
  json all{{"preset", o.preset},         {"ffn", o.ffn},        {"storage", o.storage},
           {"activation", o.activation}, {"batch", o.batch},    {"source", o.source},
           {"target", o.target},         {"threads", o.threads}};
  all.update(found);
  put("{}\n", all.dump());
}

}  // namespace zoo
