// SPDX-License-Identifier: MIT
#include "verdicts.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "support/basics.hpp"
#include "support/marks.hpp"

namespace stlm_10m {

namespace {

/// "0 -12.5 -3.25 9 2 1": whether it was cut; of each option the two scores, bytes, tokens and
/// whether it is greedy.
std::string text_of(const ln::item_score& s) {
  std::string line = s.cut ? "1" : "0";
  for (const ln::option_score& one : s.options)
    line += fmt::format(" {} {} {} {} {}", one.whole, one.continuation, one.bytes, one.tokens,
                        one.best ? 1 : 0);
  return line + '\n';
}
/// Numbers with a space between two of them, also nan and inf; none for another text.
std::optional<std::vector<double>> numbers_of(const std::string& line) {
  std::vector<double> all;
  std::istringstream in(line);
  for (std::string word; std::getline(in, word, ' ');) {
    char* end = nullptr;
    all.push_back(std::strtod(word.c_str(), &end));
    if (word.empty() || *end != '\0') return {};
  }
  return all;
}
/// None for a line that is not whole.
std::optional<ln::item_score> score_of(const std::string& line, std::size_t choices) {
  constexpr std::size_t per_option = 5;
  const auto all = numbers_of(line);
  if (!all || all->size() != 1 + per_option * choices) return {};
  ln::item_score s;
  const double* x = all->data();
  s.cut = *x++ != 0;
  for (std::size_t i = 0; i < choices; ++i, x += per_option)
    s.options.push_back({.whole = x[0],
                         .continuation = x[1],
                         .bytes = static_cast<ln::index>(x[2]),
                         .tokens = static_cast<ln::index>(x[3]),
                         .best = x[4] != 0});
  return s;
}

/// What scores are of.
struct subject {
  const char* name;
  std::string mark;
};
/// The file's first line: "weights 0123456789abcdef merges ...".
std::string head_of(const std::vector<subject>& all) {
  std::string line;
  for (const auto& [name, mark] : all)
    line += fmt::format("{}{} {}", line.empty() ? "" : " ", name, mark);
  return line;
}
/// Refuses scores of something else.
void check_head(const std::string& path, const std::string& line, const std::vector<subject>& all) {
  std::istringstream in(line);
  for (const auto& [name, mark] : all) {
    std::string word, was;
    in >> word >> was;
    if (!in || word != name)
      throw support::failure(path + ": does not say what its scores are of; remove it");
    if (was != mark)
      throw support::failure(
          fmt::format("{}: its scores are of {} of mark {}, not {}; remove it to score anew", path,
                      name, was, mark));
  }
}

}  // namespace

verdicts::verdicts(const std::string& test, const options& o)
    : test_(zoo::read_test(test, o.data, o.limit, 0)) {
  if (test_.kind != zoo::test_kind::choice && test_.kind != zoo::test_kind::word)
    throw support::failure(test + ": not a test of choices");
  const std::string part = o.limit > 0 ? fmt::format(".{}", o.limit) : "";
  const std::string path = o.weights + "." + test + part + ".txt";
  std::string items;
  for (std::size_t i = 0; i < test_.size(); ++i) items += test_.text_of(i) + '\n';
  const std::vector<subject> of{{"weights", support::mark_of_file(o.weights)},
                                {"merges", support::mark_of_file(o.merges)},
                                {"items", support::mark_of_text(items)}};
  std::string kept = head_of(of) + '\n';
  if (std::filesystem::exists(path)) {
    std::istringstream lines(support::file_text(path));
    std::string line;
    if (std::getline(lines, line)) check_head(path, line, of);
    while (scored_.size() < test_.size() && std::getline(lines, line)) {
      const auto s = score_of(line, test_.items[scored_.size()].options.size());
      if (!s || lines.eof()) break;  // the last line may be cut
      scored_.push_back(*s);
      kept += line + '\n';
    }
  }
  file_.emplace(support::take(ln::line_file::open(path, kept)));
}

const ln::eval_item* verdicts::next() const {
  return scored_.size() < test_.size() ? &test_.items[scored_.size()] : nullptr;
}

void verdicts::add(const ln::item_score& s) {
  support::take(file_->write(text_of(s)));
  scored_.push_back(s);
}

std::string verdicts::line() const {
  std::string text = fmt::format("{}, {} items", test_.name, scored_.size());
  if (test_.kind == zoo::test_kind::word) {
    ln::accuracy a;
    for (const ln::item_score& s : scored_) a.add(s.options[0].best);
    return text + fmt::format(": {:.1f}% ± {:.1f}\n", 100 * a.value(), 100 * a.standard_error());
  }
  text += fmt::format(", chance {:.1f}%", 100 * ln::chance_level(test_.items));
  for (const auto& [by, how] :
       {std::pair(ln::choice_by::whole, "whole"), {ln::choice_by::per_byte, "per byte"}}) {
    const auto f = ln::summarize(test_.items, scored_, by);
    text += fmt::format("; {} {:.1f}% ± {:.1f}, over groups ± {:.1f}, {} cut", how,
                        100 * f.answers.value(), 100 * f.answers.standard_error(),
                        100 * f.clustered.error, f.cut);
  }
  return text + '\n';
}

}  // namespace stlm_10m
