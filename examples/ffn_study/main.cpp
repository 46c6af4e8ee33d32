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
                 "own figures), or check and paper-check (which only show that all works)")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  support::describe(
      app, o,
      "folder of text to learn from and of SST-2 and MNLI, or of GLUE; without it only what "
      "needs no training is reported");
  std::vector<std::string> tables(study::table_ids.begin(), study::table_ids.end());
  tables.insert(tables.end(), study::extra_ids.begin(), study::extra_ids.end());
  app.add_option("--only", o.tables,
                 "tables to fill: 3.1, 4.1 to 4.6, F4.1; and early (distillation that stops, "
                 "teachers that stopped) and restarts (seeds from one checkpoint), which are "
                 "filled where they are named alone")
      ->check(CLI::IsMember(tables))
      ->type_name("TABLE");
  int seeds = 0;
  app.add_option("--seeds", seeds,
                 "runs of each row with seeds of their own; the scale's unless given. F4.1 and "
                 "restarts have five always, teachers and the grid of 4.6 seed 1 alone")
      ->transform(support::whole_in(1, 1000))
      ->type_name("N");
  app.add_option(
         "--try", o.trial.steps,
         "takes so many steps of one model instead, and says what they take, what all would, "
         "and at scale paper what the tasks hold")
      ->transform(support::whole_in<linnet::index>(1, 1'000'000))
      ->type_name("STEPS");
  app.add_option("--try-batch", o.trial.batch, "examples of such a step; the scale's unless given")
      ->transform(support::whole_in<linnet::index>(1, 1'000'000))
      ->type_name("N");
  app.add_option("--try-length", o.trial.length, "ids of text in an example; likewise")
      ->transform(support::whole_in<linnet::index>(4, 1'000'000))
      ->type_name("N");
  std::string tried = "mini";
  app.add_option("--try-model", tried, "the model that is tried")
      ->check(CLI::IsMember(
          std::vector<std::string>(study::model_names.begin(), study::model_names.end())))
      ->capture_default_str()
      ->type_name("MODEL");
  return support::run_program(app, argc, argv, [&] {
    o.size = *std::find_if(study::scales.begin(), study::scales.end(),
                           [&](const study::scale& s) { return s.name == scale; });
    if (seeds > 0) o.size.seeds = seeds;
    o.trial.what = study::model_of(tried);
    study::run_study(o);
  });
}
