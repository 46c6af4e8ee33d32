// SPDX-License-Identifier: MIT
// zoo bench: how fast one configuration is, whichever it is. Models are types, so the configuration
// is written down as a short program, compiled once and run.

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "commands.hpp"
#include "presets.hpp"
#include "storages.hpp"
#include "support.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

/// A word of the command line, and what stands for it in a program.
struct spelling {
  std::string_view name, type;
};
constexpr spelling storages[] = {
    {"f32", "ln::storage::f32"},           {"bf16", "ln::storage::bf16"},
    {"f16", "ln::storage::f16"},           {"int8", "ln::storage::int8"},
    {"int4", "ln::storage::int4<32>"},     {"nf4", "ln::storage::nf4"},
    {"fp8_e4m3", "ln::storage::fp8_e4m3"}, {"fp8_e5m2", "ln::storage::fp8_e5m2"},
    {"q8_0", "ln::storage::q8_0"},         {"q4_0", "ln::storage::q4_0"},
    {"q4_1", "ln::storage::q4_1"}};
/// What activations are rounded to before products.
constexpr spelling activations[] = {
    {"f32", "ln::compute::f32"}, {"bf16", "ln::compute::bf16"}, {"int8", "ln::compute::int8"}};
constexpr spelling variants[] = {{"standard", "standard"},
                                 {"skip", "skip"},
                                 {"skip-encoder", "skip_encoder"},
                                 {"1w", "one"},
                                 {"1w-relu", "one_relu"},
                                 {"2w", "two"},
                                 {"3w", "three"}};

template <std::size_t N>
std::string_view type_of(std::string_view what, std::string_view name, const spelling (&table)[N]) {
  std::vector<std::string_view> known;
  for (const spelling& s : table) known.push_back(s.name);
  check_name(what, name, known);
  return std::find_if(std::begin(table), std::end(table), [&](auto& s) { return s.name == name; })
      ->type;
}

/// A preset as far as bench has to know it.
struct entry {
  std::string name, type;
  bool t5;
  ln::index context;  ///< longest sequence of a decoder
};

template <class M>
entry entry_of(std::string name, std::string scope) {
  std::string type = name;
  std::replace_if(
      type.begin(), type.end(), [](char c) { return c == '-' || c == '.'; }, '_');
  if constexpr (M::encodes)
    return {name, scope + type, true, 0};
  else
    return {name, scope + type, false, M::context_length};
}

entry find_entry(const std::string& name) {
  std::vector<entry> table;
  const auto add = [&]<class M, bool Runs>(preset<M, Runs>, const char* preset_name) {
    table.push_back(entry_of<M>(preset_name, "ln::zoo::"));
  };
  each_t5_preset(add);
  each_decoder_preset(add);
  table.push_back(entry_of<byte_decoder>("byte-decoder", "zoo::"));
  table.push_back(entry_of<byte_t5>("byte-t5", "zoo::"));
  std::vector<std::string_view> known;
  for (const entry& e : table) known.push_back(e.name);
  check_name("preset", name, known);
  return *std::find_if(table.begin(), table.end(), [&](auto& e) { return e.name == name; });
}

/// The works asked for, or the refusal of one that the model does not have.
std::vector<std::string> works_of(const entry& model, const std::string& asked) {
  static constexpr std::string_view known[] = {"encode", "prefill", "decode", "train", "all"};
  check_name("work", asked, known);
  if (model.t5 && asked == "prefill")
    throw failure(model.name + " is an encoder-decoder: it has no prefill; ask for encode");
  if (!model.t5 && asked == "encode")
    throw failure(model.name + " is decoder-only: it has no encoder; ask for prefill");
  if (asked != "all") return {asked};
  return {model.t5 ? "encode" : "prefill", "decode", "train"};
}

// --- the program ---------------------------------------------------------------------------------

/// Products of rounded activations need weights to match.
void check_types(const std::string& storage, const std::string& activation) {
  if (activation != "f32" && activation != storage)
    throw failure("--activation " + activation + ": goes with --storage " + activation +
                  ", not with " + storage);
}

std::string program_text(const bench_options& o, const entry& model,
                         const std::vector<std::string>& works) {
  const std::string_view ffn = type_of("feed-forward", o.ffn, variants),
                         activation = type_of("activation", o.activation, activations);
  std::string storage = grouped_storage(o.storage);
  if (storage.empty()) storage = type_of("storage", o.storage, storages);
  check_types(o.storage, o.activation);
  if (ffn == "skip_encoder" && !model.t5)
    throw failure(model.name + " is decoder-only: skip-encoder is for encoder-decoders");
  const bool rounded = o.activation != "f32";
  std::string text = fmt::format(
      "// {} with feed-forward {}, weights in {}, activations in {}.\n"
      "// Arguments: BATCH SOURCE TARGET THREADS SECONDS\n\n"
      "#include \"{}/examples/zoo/bench_of.hpp\"\n"
      "namespace ln = linnet;\n\n"
      "using Trained = zoo::with_variant<{}, zoo::variant::{}>::type;\n"
      "using Deployed = {};\n\n"
      "int main(int count, char** argument) {{\n"
      "  if (count != 6) return 2;\n"
      "  zoo::bench<Trained, Deployed> bench(argument);\n",
      model.name, o.ffn, o.storage, o.activation, ZOO_SOURCE_DIR, model.type, ffn,
      !rounded && o.storage == "f32" ? "Trained"
      : rounded ? fmt::format("ln::quantized<Trained, {}, {}>", storage, activation)
                : fmt::format("ln::quantized<Trained, {}>", storage));
  for (const std::string& work : works) text += "  bench." + work + "();\n";
  return text + "  return bench.print();\n}\n";
}

std::string contents(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// A hash (FNV-1a) of the program and of all that it includes from linnet, as text.
std::string key_of(const std::string& compiler, const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](const std::string& bytes) {
    for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  };
  add(compiler);
  add(text);
  std::vector<fs::path> headers;
  for (const char* const folder : {"include", "benchmarks", "examples/zoo"})
    for (const auto& file : fs::recursive_directory_iterator(fs::path(ZOO_SOURCE_DIR) / folder))
      if (const auto type = file.path().extension(); type == ".hpp" || type == ".inl")
        headers.push_back(file.path());
  std::sort(headers.begin(), headers.end());
  for (const fs::path& header : headers) add(contents(header));
  return fmt::format("{:016x}", hash);
}

/// An environment variable, or nothing.
std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Whether nobody but this user (and root) can put anything there: neither into the file or folder
/// nor, by another name for one of those above, in its place. A file is this user's own.
bool is_private(const fs::path& path) {
  std::error_code problem;
  fs::path at = fs::canonical(path, problem);
  for (bool above = false; !problem; at = at.parent_path(), above = true) {
    struct stat is {};
    if (lstat(at.c_str(), &is) != 0) return false;
    const bool open_to_others = (is.st_mode & (S_IWGRP | S_IWOTH)) != 0,
               sticky = (is.st_mode & S_ISVTX) != 0;
    if (is.st_uid != geteuid() && !(above && is.st_uid == 0)) return false;
    if (open_to_others && !(above && sticky)) return false;
    if (!at.has_relative_path()) return true;
  }
  return false;
}

/// Where programs are kept, or made for this run alone where there is no such place.
class program_folder {
 public:
  program_folder() {
    fs::path base = variable("XDG_CACHE_HOME");
    if (base.empty() && !variable("HOME").empty()) base = fs::path(variable("HOME")) / ".cache";
    std::error_code problem;
    if (base.is_absolute()) {
      path_ = base / "linnet";
      fs::create_directories(base, problem);
      mkdir(path_.c_str(), 0700);
      if (access(path_.c_str(), W_OK) == 0 && is_private(path_)) return;
      say("{}: not a folder of this user alone, so the program is not kept\n", path_.string());
    }
    std::string made = (fs::temp_directory_path(problem) / "linnet-XXXXXX").string();
    temporary_ = mkdtemp(made.data()) != nullptr;
    path_ = made;
    if (temporary_ && is_private(path_)) return;
    fs::remove(path_, problem);
    throw failure("no folder for programs that is this user's alone: set XDG_CACHE_HOME to one");
  }
  program_folder(const program_folder&) = delete;
  program_folder& operator=(const program_folder&) = delete;
  ~program_folder() {
    std::error_code ignored;
    if (temporary_) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  bool temporary_ = false;
};

/// One word for the shell.
std::string quoted(const std::string& word) {
  std::string safe = "'";
  for (const char c : word) safe += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return safe + "'";
}

/// Runs a command; its output goes to FILE.out and FILE.err. Whether it succeeded.
bool succeeds(const std::string& command, const fs::path& file) {
  for (const char* const end : {".out", ".err"}) fs::remove(file.string() + end);
  const std::string to =
      " >" + quoted(file.string() + ".out") + " 2>" + quoted(file.string() + ".err");
  return std::system((command + to).c_str()) == 0;
}

/// The first line with an error in a file that a command wrote.
std::string first_error(const fs::path& file) {
  std::ifstream lines(file);
  std::string first, line;
  while (std::getline(lines, line)) {
    if (first.empty()) first = line;
    if (line.find("error") != std::string::npos) return line;
  }
  return first.empty() ? "no message" : first;
}

/// The compiled program, made anew only when it or a header of linnet has changed, or when what
/// lies there may be another user's, from a time when the folder was not private.
fs::path compiled(const fs::path& folder, const std::string& name, const std::string& text) {
  if (!fs::exists(fs::path(ZOO_SOURCE_DIR) / "examples/zoo/bench_of.hpp"))
    throw failure(fmt::format("{}: linnet's sources are gone; build zoo again where they are now",
                              ZOO_SOURCE_DIR));
  const std::string compiler = variable("CXX").empty() ? "c++" : variable("CXX"),
                    flags = variable("CXXFLAGS");
  const fs::path program =
      folder / fmt::format("bench-{}-{}", name, key_of(compiler + ' ' + flags, text));
  if (is_private(program)) return program;

  const std::string source = program.string() + ".cpp";
  const fs::path fresh = fmt::format("{}.{}", program.string(), getpid());
  fs::remove(source);
  std::ofstream(source) << text;
  say("compiling {} (once; some 20 seconds)\n", source);
  const auto compile = [&](const char* openmp) {
    return succeeds(
        fmt::format(
            "{} -std=c++20 -O3 -DNDEBUG {} -pthread -Wno-psabi {} -I{} -isystem {} {} -o {}",
            compiler, openmp, flags, quoted(ZOO_SOURCE_DIR "/include"), quoted(ZOO_EIGEN_DIR),
            quoted(source), quoted(fresh.string())),
        fresh);
  };
  const bool made = compile("-fopenmp") || compile("");
  const std::string problem = made ? "" : first_error(fresh.string() + ".err");
  fs::remove(fresh.string() + ".out");
  fs::remove(fresh.string() + ".err");
  if (!made)
    throw failure(fmt::format("{}: {} does not compile it: {}", source, compiler, problem));
  fs::permissions(fresh, fs::perms::group_write | fs::perms::others_write,
                  fs::perm_options::remove);
  fs::rename(fresh, program);
  return program;
}

/// What the program found.
json measured(const fs::path& program, const bench_options& o) {
  const fs::path file = fmt::format("{}.{}", program.string(), getpid());
  const bool done = succeeds(fmt::format("{} {} {} {} {} {}", quoted(program.string()), o.batch,
                                         o.source, o.target, o.threads, o.seconds),
                             file);
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

}  // namespace

void bench(const bench_options& o) {
  if (!o.attention.empty()) return bench_attention(o);
  if (o.preset.empty())
    throw failure("a preset is missing (see zoo list), or --attention with a kind or all");
  const entry model = find_entry(o.preset);
  const std::vector<std::string> works = works_of(model, o.work);
  const std::string text = program_text(o, model, works);
  if (const long length = o.source + (works[0] == "prefill" && works.size() == 1 ? 0 : o.target);
      !model.t5 && length > model.context)
    throw failure(fmt::format("--source {} and --target {}: {} tokens, but the context of {} is {}",
                              o.source, o.target, length, model.name, model.context));
  const program_folder folder;
  json found = measured(compiled(folder.path(), o.preset, text), o);
  add_fractions(found, o.activation);
  if (!o.json) return print_works(o, found);
  json all{{"preset", o.preset},         {"ffn", o.ffn},        {"storage", o.storage},
           {"activation", o.activation}, {"batch", o.batch},    {"source", o.source},
           {"target", o.target},         {"threads", o.threads}};
  all.update(found);
  put("{}\n", all.dump());
}

}  // namespace zoo
