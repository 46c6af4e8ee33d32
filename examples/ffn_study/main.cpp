// ffn_study: the report "Exploring the Limits of Small Language Models" as a study anyone can
// rerun. This file only reads the command line.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <new>

#include "study.hpp"
#include "support/basics.hpp"

namespace {

void describe(CLI::App& app, study::study_options& o, std::string& scale) {
  std::vector<std::string> names;
  for (const study::scale& s : study::scales) names.emplace_back(s.name);
  app.add_option("--scale", scale,
                 "how much is trained: minutes (20 on two cores), hour, hours, paper (the report's "
                 "own figures), or check (seconds; it only shows that all works)")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  app.add_option("--data", o.data,
                 "folder of text to learn from and of SST-2 and MNLI; without it "
                 "only what needs no training is reported")
      ->check(CLI::ExistingDirectory)
      ->type_name("DIR");
  app.add_option("--out", o.out, "folder of results; a later call continues there")
      ->capture_default_str()
      ->type_name("DIR");
  app.add_option("--threads", o.threads, "runs at a time, each with one thread")
      ->check(CLI::Range(1, 256))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--minutes", o.minutes,
                 "time to work; what is not finished by then goes on in a later call")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  app.add_option("--only", o.tables, "tables to fill: 3.1, 4.1 to 4.6, F4.1")
      ->check(
          CLI::IsMember(std::vector<std::string>(study::table_ids.begin(), study::table_ids.end())))
      ->type_name("TABLE");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"The Berkeley report on T5's feed-forwards: published, derived and measured",
               "ffn_study"};
  study::study_options o;
  o.threads = support::default_threads();
  std::string scale = "minutes", problem;
  describe(app, o, scale);
  try {
    app.parse(argc, argv);
    o.size = *std::find_if(study::scales.begin(), study::scales.end(),
                           [&](const study::scale& s) { return s.name == scale; });
    study::run_study(o);
    return 0;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    problem = std::string(e.what()) + " (see ffn_study --help)";
  } catch (const std::bad_alloc&) {
    problem = "not enough memory";
  } catch (const std::exception& e) {
    problem = e.what();
  }
  fmt::print(stderr, "ffn_study: {}\n", problem);
  return 2;
}
