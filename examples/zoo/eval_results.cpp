// SPDX-License-Identifier: MIT
#include "eval_results.hpp"

#include <fmt/format.h>

#include <cmath>
#include <linnet/eval/language.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "support.hpp"

namespace zoo {

namespace {

using json = nlohmann::ordered_json;

constexpr std::size_t per_option = 5;
constexpr std::array<std::pair<ln::choice_by, const char*>, 3> ways{
    {{ln::choice_by::whole, "whole"},
     {ln::choice_by::continuation, "continuation"},
     {ln::choice_by::per_byte, "per_byte"}}};

ln::item_score score_of(const record& r) {
  ln::item_score s{.options = {}, .cut = r[0] != 0};
  for (std::size_t at = 1; at + per_option <= r.size(); at += per_option)
    s.options.push_back({.whole = r[at],
                         .continuation = r[at + 1],
                         .bytes = static_cast<ln::index>(r[at + 2]),
                         .tokens = static_cast<ln::index>(r[at + 3]),
                         .best = r[at + 4] != 0});
  return s;
}
std::vector<ln::item_score> scores_of(const std::vector<record>& records) {
  std::vector<ln::item_score> all;
  for (const record& r : records) all.push_back(score_of(r));
  return all;
}

ln::perplexity_metrics figures_of(const std::vector<record>& records) {
  std::vector<ln::text_score> all;
  for (const record& r : records)
    all.push_back({r[0], static_cast<ln::index>(r[1]), static_cast<ln::index>(r[2]),
                   static_cast<ln::index>(r[3])});
  return ln::summarize(all);
}

/// The share of records whose number `at` is not zero.
ln::accuracy share(const std::vector<record>& records, std::size_t at) {
  ln::accuracy a;
  for (const record& r : records) a.add(r[at] != 0);
  return a;
}
/// The last words of texts, as texts of their own: what they cost given all before.
ln::perplexity_metrics words_of(const std::vector<record>& records) {
  std::vector<ln::text_score> all;
  for (const record& r : records)
    all.push_back({-r[2], static_cast<ln::index>(r[4]), static_cast<ln::index>(r[3]),
                   static_cast<ln::index>(r[3])});
  return ln::summarize(all);
}

/// A number with so many digits, and its unit; n/a where there were too few items for it.
std::string number(double x, int digits, const char* unit = "") {
  return ln::is_finite(x) ? fmt::format("{:.{}f}{}", x, digits, unit) : "n/a";
}
std::string with_error(const ln::estimate& e, int digits, const char* unit = "") {
  return number(e.value, digits, unit) + " ± " + number(e.error, digits);
}
std::string share_text(double value, double error) {
  return with_error({100 * value, 100 * error}, 1, "%");
}
std::string share_text(const ln::accuracy& a) { return share_text(a.value(), a.standard_error()); }

/// "25.3% ± 0.9 =": the mark says how it compares with chance, in standard errors.
std::string against(const ln::estimate& e, double chance) {
  std::string text = share_text(e.value, e.error);
  if (!ln::is_finite(e.error)) return text;
  const double away = e.value - chance;
  return text + (std::abs(away) <= 2 * e.error ? " =" : away > 0 ? " +" : " -");
}

using row = text_row;

std::string options_text(const eval_test& test) {
  std::size_t least = 1000, most = 0;
  for (const ln::eval_item& item : test.items) {
    least = std::min(least, item.options.size());
    most = std::max(most, item.options.size());
  }
  return least == most ? std::to_string(most) : fmt::format("{}-{}", least, most);
}

json estimate_json(const ln::estimate& e) {
  return {{"value", e.value}, {"standard_error", e.error}};
}
json share_json(const ln::accuracy& a) {
  return {{"value", a.value()}, {"standard_error", a.standard_error()}};
}

json choice_json(const eval_test& test, const std::vector<record>& records) {
  const std::vector<ln::item_score> scored = scores_of(records);
  json all{{"options", options_text(test)}, {"chance", ln::chance_level(test.items)}};
  for (const auto& [how, name] : ways) {
    const ln::choice_metrics f = ln::summarize(test.items, scored, how);
    all["cut"] = f.cut;
    all[name] = {{"accuracy", f.answers.value()},
                 {"standard_error", f.answers.standard_error()},
                 {"clustered_error", f.clustered.error},
                 {"confidence", estimate_json(f.confidence)},
                 {"ties", f.ties}};
  }
  std::map<std::string, ln::accuracy> groups[ways.size()];
  for (std::size_t i = 0; i < scored.size(); ++i)
    for (std::size_t w = 0; w < ways.size(); ++w)
      groups[w][test.items[i].group].add(scored[i].chosen(ways[w].first) == test.items[i].answer);
  if (groups[0].size() < 2) return all;
  for (const auto& [group, unused] : groups[0]) {
    json& g = all["groups"][group];
    g["items"] = groups[0][group].total;
    for (std::size_t w = 0; w < ways.size(); ++w) g[ways[w].second] = groups[w][group].value();
  }
  return all;
}

json test_json(const eval_test& test, const std::vector<record>& records) {
  switch (test.kind) {
    case test_kind::choice:
      return choice_json(test, records);
    case test_kind::word:
      return {{"accuracy", share_json(share(records, 5))},
              {"cut", share(records, 0).right},
              {"bits_per_byte", estimate_json(words_of(records).bits_per_byte)}};
    case test_kind::number:
      return {{"stated", share_json(share(records, 0))}, {"last", share_json(share(records, 1))}};
    default:
      break;
  }
  const ln::perplexity_metrics f = figures_of(records);
  return {{"bytes", f.total.bytes},
          {"characters", f.total.characters},
          {"tokens", f.total.tokens},
          {"bits_per_byte", estimate_json(f.bits_per_byte)},
          {"bits_per_character", estimate_json(f.bits_per_character)},
          {"bits_per_token", estimate_json(f.bits_per_token)},
          {"perplexity_per_character", std::exp2(f.bits_per_character.value)},
          {"mean_perplexity_per_character", estimate_json(f.mean_perplexity)}};
}

}  // namespace

record record_of(const ln::item_score& s) {
  record r{s.cut ? 1.0 : 0.0};
  for (const ln::option_score& o : s.options)
    for (const double x : {o.whole, o.continuation, static_cast<double>(o.bytes),
                           static_cast<double>(o.tokens), o.best ? 1.0 : 0.0})
      r.push_back(x);
  return r;
}

record record_of(double nats, const ln::index (&counts)[3]) {
  return {nats, static_cast<double>(counts[0]), static_cast<double>(counts[1]),
          static_cast<double>(counts[2])};
}

std::size_t record_size(const eval_test& test, std::size_t item) {
  if (test.kind == test_kind::text) return 4;
  if (test.kind == test_kind::number) return 3;
  return 1 + per_option * test.items[item].options.size();
}

std::string results_table(const eval_subject& who, const std::vector<eval_test>& tests,
                          const std::vector<std::vector<record>>& records) {
  std::string all =
      fmt::format("{}, {}, {} tokens of context\n", who.model, who.weights, grouped(who.context));
  std::vector<row> choices{
      {"choice", "items", "options", "chance", "whole", "continuation", "per byte", "confidence"}},
      writing{{"writing", "items", "", "accuracy"}},
      texts{{"text", "documents", "bytes", "bits/byte", "bits/character", "perplexity/character"}};
  for (std::size_t t = 0; t < tests.size(); ++t) {
    const eval_test& test = tests[t];
    const std::string n = grouped(std::ssize(records[t]));
    if (test.kind == test_kind::choice) {
      const std::vector<ln::item_score> scored = scores_of(records[t]);
      const double chance = ln::chance_level(test.items);
      row r{test.name, n, options_text(test), fmt::format("{:.1f}%", 100 * chance)};
      for (const auto& [how, name] : ways) {
        const auto f = ln::summarize(test.items, scored, how);
        r.push_back(against(f.clustered, chance));
      }
      const auto sure = ln::summarize(test.items, scored, ln::choice_by::whole).confidence;
      r.push_back(share_text(sure.value, sure.error));
      choices.push_back(r);
    } else if (test.kind == test_kind::text) {
      const auto f = figures_of(records[t]);
      texts.push_back({test.name, n, grouped(f.total.bytes), with_error(f.bits_per_byte, 4),
                       with_error(f.bits_per_character, 4),
                       fmt::format("{} (mean {})", number(std::exp2(f.bits_per_character.value), 3),
                                   with_error(f.mean_perplexity, 3))});
    } else if (test.kind == test_kind::word) {
      const auto word = words_of(records[t]).bits_per_byte;
      writing.push_back({test.name, n, "last word, greedy", share_text(share(records[t], 5))});
      writing.push_back({"", "", "bits/byte of it", with_error(word, 3)});
    } else {
      writing.push_back({test.name, n, "number behind ####", share_text(share(records[t], 0))});
      writing.push_back({"", "", "last number", share_text(share(records[t], 1))});
    }
  }
  if (choices.size() > 1)
    all.append("\n").append(aligned(choices)) +=
        "± one standard error, over groups where a test has them; = within two of chance, + "
        "above, - below\n";
  if (writing.size() > 1) all.append("\n").append(aligned(writing));
  if (texts.size() > 1) all.append("\n").append(aligned(texts));
  for (const eval_test& test : tests)
    if (!test.note.empty()) all += fmt::format("{}: {}\n", test.name, test.note);
  return all;
}

std::string results_json(const eval_subject& who, const std::vector<eval_test>& tests,
                         const std::vector<std::vector<record>>& records) {
  json all{{"model", who.model},
           {"weights", who.weights},
           {"tokenizer", who.tokenizer},
           {"context", who.context}};
  for (std::size_t t = 0; t < tests.size(); ++t) {
    json one{{"items", records[t].size()}};
    if (!tests[t].note.empty()) one["note"] = tests[t].note;
    one.update(test_json(tests[t], records[t]));
    all["tests"][tests[t].name] = one;
  }
  return all.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace zoo
