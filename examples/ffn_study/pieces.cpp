// SPDX-License-Identifier: MIT
#include "pieces.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <linnet/eval/correlation.hpp>
#include <linnet/file/file.hpp>

#include "support/basics.hpp"

namespace study {

namespace {

constexpr std::size_t most_asked = 2000;  // of an exam: 1% of standard error

/// Text as in books from text as in treebanks: the training set has the one form, the mismatched
/// sample the other.
std::string untokenized(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" n't", "n't"}, {" 's", "'s"}, {" 're", "'re"}, {" 've", "'ve"}, {" 'll", "'ll"},
      {" 'm", "'m"},   {" 'd", "'d"}, {" ,", ","},     {" .", "."},     {" ?", "?"},
      {" !", "!"},     {" ;", ";"},   {" :", ":"},     {" )", ")"},     {"( ", "("}};
  for (const auto& [from, to] : rules)
    for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size())
      text.replace(at, from.size(), to);
  return text;
}

/// Evenly spread, as many as an exam needs.
std::vector<ln::text_pair> spread(std::vector<ln::text_pair> all) {
  if (all.size() <= most_asked) return all;
  std::vector<ln::text_pair> some;
  for (std::size_t i = 0; i < most_asked; ++i) some.push_back(all[i * all.size() / most_asked]);
  return some;
}

}  // namespace

denoising_examples denoise(const readable& text, const reader& by, ln::index batch,
                           ln::index length, std::uint64_t seed) {
  return support::take(denoising_examples::open(
      text.source(by), {.mask = ln::masking::independent},
      {.batch = batch, .source = length + 1, .target = length / 2 + 1}, ln::seed{seed}));
}

ln::index masked_bytes(const ln::t5_batch& b, const reader& by) {
  ln::index bytes = 0;
  for (ln::index i = 0; i < b.batch * b.target_length; ++i) bytes += by.bytes_of(b.labels[i]);
  return bytes;
}

std::string folder_of(const std::string& data, std::string_view name) {
  return fmt::format("{}/{}", data, name == "mnli" ? "mnli_train10k" : name);
}

task read_task(const std::string& folder, std::string_view name) {
  const auto read = [&](const char* file, auto&& parse) {
    const std::string path = folder + "/" + file;
    const auto bytes = support::take(ln::read_file(path));
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return support::take(parse(text, path));
  };
  if (name == "sst2")
    return {ln::glue::sst2,
            read("sst2/train.tsv", ln::glue::read_sst2),
            {{"sst2", read("sst2/test.tsv", ln::glue::read_sst2)}}};
  const auto mnli = [&](const char* file, ln::glue::mnli_layout layout) {
    auto pairs = read(file, [&](std::string_view text, const std::string& path) {
      return ln::glue::read_mnli(text, layout, path);
    });
    for (ln::text_pair& p : pairs) p.input = untokenized(std::move(p.input));
    return pairs;
  };
  using enum ln::glue::mnli_layout;
  return {ln::glue::mnli,
          mnli("mnli_train10k/mnli_train.csv", question),
          {{"mnli-m", spread(mnli("mnli_m_dev/mnli_matched_dev.tsv", named))},
           {"mnli-mm", mnli("mnli_mm_sample1000/mnli_mismatched.tsv", label_first)}}};
}

namespace {

/// Scores of STS-B as labels, "0.0" to "5.0".
const std::array<std::string, 26> fifths = [] {
  std::array<std::string, 26> all;
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = ln::glue::stsb_target(static_cast<double>(i) / 5);
  return all;
}();
std::span<const std::string_view> score_labels() {
  static const std::vector<std::string_view> all(fifths.begin(), fifths.end());
  return all;
}

/// A task of GLUE: its folder there, its words, the function that reads its files.
struct glue_task {
  std::string_view name, folder;
  ln::text_task words;
  ln::result<std::vector<ln::text_pair>> (*read)(std::string_view, const std::string&);
};
const std::vector<glue_task>& glue_tasks() {
  namespace g = ln::glue;
  static const std::vector<glue_task> all{{"cola", "CoLA", g::cola, g::read_cola},
                                          {"sst2", "SST-2", g::sst2, g::read_sst2},
                                          {"mrpc", "MRPC", g::mrpc, g::read_mrpc},
                                          {"stsb", "STS-B", {"stsb", score_labels()}, g::read_stsb},
                                          {"qqp", "QQP", g::qqp, g::read_qqp},
                                          {"mnli", "MNLI", g::mnli,
                                           [](std::string_view text, const std::string& where) {
                                             return g::read_mnli(text, g::mnli_layout::glue, where);
                                           }},
                                          {"qnli", "QNLI", g::qnli, g::read_qnli},
                                          {"rte", "RTE", g::rte, g::read_rte},
                                          {"wnli", "WNLI", g::wnli, g::read_wnli}};
  return all;
}

/// Lines of a text, the last one with or without an end.
ln::index lines_of(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n') + (!text.empty() && text.back() != '\n');
}

}  // namespace

std::optional<task> read_glue(const std::string& folder, std::string_view name) {
  const auto& known = *std::find_if(glue_tasks().begin(), glue_tasks().end(),
                                    [&](const glue_task& t) { return t.name == name; });
  ln::index torn = 0;
  const auto read = [&](const std::string& path) {
    const auto bytes = support::take(ln::read_file(path));
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    auto pairs = support::take(known.read(text, path));
    // One line is the header, and each other makes a pair or is left out.
    if (name == "qqp") torn += lines_of(text) - 1 - std::ssize(pairs);
    return pairs;
  };
  const std::string whole = fmt::format("{}/glue/{}", folder, known.folder);
  if (std::filesystem::exists(whole + "/train.tsv")) {
    task t{known.words, read(whole + "/train.tsv"), {}};
    if (name == "mnli")
      t.exams = {{"mnli-m", read(whole + "/dev_matched.tsv")},
                 {"mnli-mm", read(whole + "/dev_mismatched.tsv")}};
    else
      t.exams = {{std::string(name), read(whole + "/dev.tsv")}};
    t.left_out = torn;
    t.judged_only = name == "wnli";
    return t;
  }
  if (name == "cola" && std::filesystem::exists(folder + "/cola"))
    return task{known.words,
                read(folder + "/cola/in_domain_train.tsv"),
                {{"cola", read(folder + "/cola/in_domain_dev.tsv")}}};
  if ((name == "sst2" || name == "mnli") && std::filesystem::exists(folder_of(folder, name)))
    return read_task(folder, name);
  return std::nullopt;
}

std::string mixture_of(const std::vector<task>& tasks) {
  std::string text;
  for (const task& t : tasks) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", t.words.name,
                        t.judged_only ? 0 : t.training.size());
    for (const task::exam& e : t.exams) text += fmt::format("+{}", e.pairs.size());
  }
  return text;
}

double exam_figure(const task& t, const std::vector<ln::index>& given, const task::exam& e) {
  std::vector<ln::index> right;
  for (const ln::text_pair& p : e.pairs) right.push_back(t.words.class_of(p.target));
  if (t.words.name != "stsb") return 100 * ln::main_figure(t.words, given, right);
  const auto scores = [](const std::vector<ln::index>& classes) {
    std::vector<double> all;
    for (const ln::index c : classes) all.push_back(static_cast<double>(c) / 5);
    return all;
  };
  const std::vector<double> x = scores(given), y = scores(right);
  return 50 * (ln::pearson_correlation(x, y) + ln::spearman_correlation(x, y));
}

}  // namespace study
