#include "study.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <linnet/io/file.hpp>
#include <new>

namespace support {

void describe(CLI::App& app, study_options& o, const std::string& data) {
  app.add_option("--data", o.data, data)->check(CLI::ExistingDirectory)->type_name("DIR");
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
}

void prepare_folder(const study_options& o) {
  std::error_code problem;
  std::filesystem::create_directories(o.runs(), problem);
  if (problem) throw failure(fmt::format("{}: {}", o.runs(), problem.message()));
  check_writable(o.out + "/report.html");
}

void write_report(const study_options& o, const document& d) {
  const std::string shown = markdown(d);
  for (const auto& [end, text] :
       {std::pair{"html", html(d)}, std::pair{"csv", csv(d)}, std::pair{"md", shown}})
    take(ln::write_file(fmt::format("{}/report.{}", o.out, end), std::as_bytes(std::span(text))));
  fmt::print("{}", shown);
  fmt::print(stderr, "report: {}/report.html, .md, .csv\n", o.out);
}

int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& run) {
  std::string problem;
  try {
    app.parse(argc, argv);
    run();
    return 0;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    problem = fmt::format("{} (see {} --help)", e.what(), app.get_name());
  } catch (const std::bad_alloc&) {
    problem = "not enough memory";
  } catch (const std::exception& e) {
    problem = e.what();
  }
  fmt::print(stderr, "{}: {}\n", app.get_name(), problem);
  return 2;
}

}  // namespace support
