// SPDX-License-Identifier: MIT
// compression_study: methods of compression on models, measured beside each other by zoo compress.
// This file only reads the command line.

#include <algorithm>
#include <filesystem>

#include "study.hpp"

int main(int argc, char** argv) {
  CLI::App app{"Methods of compression side by side on several models", "compression_study"};
  study::options o;
  o.out = "compression-study";
  o.data = support::variable("LINNET_DATA");
  const std::vector<study::scale> scales{{"minutes", 32, 16, 128, 2, 0},
                                         {"hours", 128, 64, 512, 3, 300}};
  std::string scale = "minutes";
  long samples = 0, windows = 0, seeds = 0, steps = 0;
  std::error_code ignored;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", ignored);
  o.zoo = (self.parent_path() / "zoo").string();
  app.add_option("--scale", scale,
                 "how much is run: minutes (stories260k with what zoo has built in, seconds) or "
                 "hours (all models and storages, 64 windows of 512 tokens)")
      ->check(CLI::IsMember({"minutes", "hours"}))
      ->capture_default_str();
  support::describe(app, o,
                    "folder with stories260K, tinystories and wikitext2; without, LINNET_DATA");
  app.get_option("--threads")->description("threads of each run");
  app.add_option("--zoo", o.zoo, "the program zoo")->capture_default_str()->type_name("PROGRAM");
  app.add_option("--models", o.models,
                 "some of stories260k, smollm2-135m, minilm, t5, decoder, by "
                 "commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"stories260k", "smollm2-135m", "minilm", "t5", "decoder"}));
  const auto count = [&](const char* name, long& value, const char* what) {
    app.add_option(name, value, what)->transform(support::whole_in(1L, 1'000'000L));
  };
  count("--samples", samples, "windows of calibration, instead of the scale's");
  count("--windows", windows, "windows of evaluation, instead of the scale's");
  count("--seeds", seeds, "seeds of the calibration text, instead of the scale's");
  count("--steps", steps, "steps of training behind pruning, instead of the scale's");
  return support::run_program(app, argc, argv, [&] {
    o.size = *std::ranges::find(scales, scale, &study::scale::name);
    if (samples > 0) o.size.samples = samples;
    if (windows > 0) o.size.windows = windows;
    if (seeds > 0) o.size.seeds = seeds;
    if (steps > 0) o.size.steps = steps;
    if (o.data.empty()) throw support::failure("--data is required, or LINNET_DATA");
    support::prepare_folder(o);
    const auto cells = study::run_cells(o, study::subjects_of(o));
    study::report(o, study::summarize(cells));
  });
}
