// SPDX-License-Identifier: MIT
#include "verdicts.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <sstream>

#include "support/basics.hpp"

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
/// None for a line that is not whole.
std::optional<ln::item_score> score_of(const std::string& line, std::size_t choices) {
  std::istringstream in(line);
  ln::item_score s;
  in >> s.cut;
  for (std::size_t i = 0; i < choices; ++i) {
    ln::option_score one;
    in >> one.whole >> one.continuation >> one.bytes >> one.tokens >> one.best;
    s.options.push_back(one);
  }
  if (!in) return {};
  return s;
}

}  // namespace

verdicts::verdicts(const std::string& test, const options& o)
    : test_(zoo::read_test(test, o.data, o.limit, 0)) {
  if (test_.kind != zoo::test_kind::choice && test_.kind != zoo::test_kind::word)
    throw support::failure(test + ": not a test of choices");
  const std::string part = o.limit > 0 ? fmt::format(".{}", o.limit) : "";
  const std::string path = o.weights + "." + test + part + ".txt";
  std::string kept;
  if (std::filesystem::exists(path)) {
    std::istringstream lines(support::file_text(path));
    for (std::string line; scored_.size() < test_.size() && std::getline(lines, line);) {
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
