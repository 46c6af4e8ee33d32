// SPDX-License-Identifier: MIT
// ffn_study: the report "Exploring the Limits of Small Language Models" as a study anyone can
// rerun. This file only reads the command line.

#include <algorithm>

#include "study.hpp"

int main(int argc, char** argv) {
  CLI::App app{"The Berkeley report on T5's feed-forwards: published, derived and measured",
               "ffn_study"};
  study::options o;
  o.out = "ffn-study";
  std::string scale = "minutes";
  std::vector<std::string> names;
  for (const study::scale& s : study::scales) names.emplace_back(s.name);
  app.add_option("--scale", scale,
                 "how much is trained: minutes (20 on two cores), hour, hours, paper (the report's "
                 "own figures), or check (seconds; it only shows that all works)")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  support::describe(
      app, o,
      "folder of text to learn from and of SST-2 and MNLI; without it only what needs "
      "no training is reported");
  app.add_option("--only", o.tables, "tables to fill: 3.1, 4.1 to 4.6, F4.1")
      ->check(
          CLI::IsMember(std::vector<std::string>(study::table_ids.begin(), study::table_ids.end())))
      ->type_name("TABLE");
  return support::run_program(app, argc, argv, [&] {
    o.size = *std::find_if(study::scales.begin(), study::scales.end(),
                           [&](const study::scale& s) { return s.name == scale; });
    study::run_study(o);
  });
}
