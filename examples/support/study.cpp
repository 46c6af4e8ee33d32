// SPDX-License-Identifier: MIT
#include "study.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <linnet/file/file.hpp>
#include <new>
#include <thread>

#include "console.hpp"
#include "ranks.hpp"

namespace support {

CLI::Validator number_in(double low, double high) {
  return {[=](std::string& text) {
            try {
              std::size_t used = 0;
              const double x = std::stod(text, &used);
              if (used == text.size() && x >= low && x <= high) return std::string();
            } catch (const std::exception&) {  // not a number
            }
            return fmt::format("'{}' is not a number from {} to {}", text, low, high);
          },
          "", "number_in"};
}

void describe(CLI::App& app, study_options& o, const std::string& data) {
  app.add_option("--data", o.data, data)->check(CLI::ExistingDirectory)->type_name("DIR");
  app.add_option("--out", o.out, "folder of results; a later call continues there")
      ->capture_default_str()
      ->type_name("DIR");
  app.add_option("--threads", o.threads, "runs at a time, each with one thread")
      ->transform(whole_in(1, 256))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--minutes", o.minutes,
                 "time to work; what is not finished by then goes on in a later call")
      ->check(number_in(0, 1e9))
      ->type_name("N");
}

void prepare_folder(const study_options& o) {
  std::error_code problem;
  std::filesystem::create_directories(o.runs(), problem);
  if (problem) throw failure(fmt::format("{}: {}", o.runs(), problem.message()));
  check_writable(o.out + "/report.html");
}

void write_report(const study_options& o, const document& d) {
  if (!this_process().first()) return;  // one of them writes it
  const std::string shown = markdown(d);
  for (const auto& [end, text] :
       {std::pair{"html", html(d)}, std::pair{"csv", csv(d)}, std::pair{"md", shown}})
    take(ln::write_file(fmt::format("{}/report.{}", o.out, end), std::as_bytes(std::span(text))));
  put("{}", shown);
  say("report: {}/report.html, .md, .csv\n", o.out);
}

int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& run) {
  prepare_console();
  std::string problem;
  int status = 2;
  try {
    try {
      app.parse(argc, argv);
      run();
    } catch (const CLI::Success& e) {
      app.exit(e);  // prints
    }
    flush_output();
    return 0;
  } catch (const CLI::ParseError& e) {
    std::string command = app.get_name();
    for (const CLI::App* const sub : app.get_subcommands()) command += " " + sub->get_name();
    problem = fmt::format("{} (see {} --help)", e.what(), command);
  } catch (const std::bad_alloc&) {
    problem = "not enough memory";
  } catch (const interruption& e) {
    problem = e.what();
    status = 128 + e.signal;
  } catch (const std::exception& e) {
    problem = e.what();
  }
  std::replace(problem.begin(), problem.end(), '\n', ' ');
  // mpirun ends all with the first that ends, which is to be the one that says why.
  if (is_quiet()) std::this_thread::sleep_for(std::chrono::seconds(2));
  say("{}: {}\n", app.get_name(), problem);
  return status;
}

}  // namespace support
