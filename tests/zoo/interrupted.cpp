// SPDX-License-Identifier: MIT
// zoo train when something ends it: signals, full disks, streams that nobody reads; and what every
// command does when its output cannot be written.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "program.hpp"

namespace test::interrupted {

namespace {

std::string text_in(const test::scratch_folder& folder) {
  const std::string path = folder.path("text");
  std::ofstream to(path);
  for (int i = 0; i < 1'500; ++i) to << "the linnet sings " << i % 7 << ".\n";
  return path;
}

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

/// Runs a command of a shell in which $ZOO is the program; its status.
int shell(const std::string& command) {
  const int status = std::system(("ZOO=" + test::quoted(ZOO_PROGRAM) + "; " + command).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// A training of six steps that can be started again and again.
struct course {
  test::scratch_folder folder;
  std::string text = text_in(folder);
  std::string whole = folder.path("whole");  ///< what comes of it when nothing happens

  std::vector<std::string> arguments(const std::string& out, const char* steps = "6") const {
    return {"train",     text, "--steps", steps, "--batch", "1",
            "--threads", "1",  "--out",   out,   "--ffn",   "1w"};
  }
  std::string command(const std::string& out) const {
    std::string all = "\"$ZOO\"";
    for (const std::string& a : arguments(out)) all += ' ' + test::quoted(a);
    return all;
  }
  /// Starts a training, sends `signal` once its checkpoint has been seen in so many forms, and
  /// waits.
  int ended_by(int signal, std::vector<std::string> what, const std::string& checkpoint,
               int forms) const {
    what.insert(what.begin(), ZOO_PROGRAM);
    std::vector<char*> words;
    for (std::string& word : what) words.push_back(word.data());
    words.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      ::signal(signal, SIG_DFL);
      (void)!freopen("/dev/null", "w", stdout);
      (void)!freopen(folder.path("said").c_str(), "w", stderr);
      execv(words[0], words.data());
      _exit(127);
    }
    std::filesystem::file_time_type last{};
    for (int i = 0; i < 10'000 && forms > 0; ++i) {
      std::error_code absent;
      const auto time = std::filesystem::last_write_time(checkpoint, absent);
      if (!absent && time != std::exchange(last, time)) --forms;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    kill(child, signal);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_interrupted)

BOOST_AUTO_TEST_CASE(streams_that_cannot_be_written_lose_no_model) {
  const course c;
  test::zoo_prints(c.arguments(c.whole));
  const std::string right = test::contents(c.whole), out = c.folder.path("out");
  BOOST_REQUIRE(!right.empty());
  BOOST_CHECK(!exists(c.whole + ".ckpt") && !exists(c.whole + ".ckpt.previous"));
  struct ending {
    const char* behind;
    int status;
  };
  for (const ending& e : {ending{" >/dev/null 2>/dev/full", 0}, ending{" >/dev/null 2>&-", 0},
                          ending{" >/dev/full 2>/dev/null", 2}, ending{" 2>/dev/null >&-", 2},
                          ending{" 2>&1 | true", 0}}) {
    BOOST_TEST_CONTEXT(e.behind) {
      BOOST_CHECK_EQUAL(shell(c.command(out) + e.behind), e.status);
      BOOST_CHECK(test::contents(out) == right);
      std::remove(out.c_str());
    }
  }
}

BOOST_AUTO_TEST_CASE(signals_save_and_resuming_gives_the_same_bits) {
  const course c;
  // Long enough never to end by itself; the checkpoint of its first steps is what is waited for.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    BOOST_TEST_CONTEXT(signal) {
      const std::string out = c.folder.path("by" + std::to_string(signal));
      BOOST_CHECK_EQUAL(c.ended_by(signal, c.arguments(out, "1000000"), out + ".ckpt", 1),
                        128 + signal);
      BOOST_CHECK(exists(out) && exists(out + ".ckpt"));
      const std::string said = test::contents(c.folder.path("said"));
      BOOST_CHECK_MESSAGE(said.find("--resume") != said.npos, said);
      BOOST_CHECK_EQUAL(test::zoo({"generate", "--weights", out, "--tokens", "9"}).status, 0);
      // It is not begun anew over what is there, nor gone on with by other options.
      test::check_refused(c.arguments(out, "1000000"), "--resume");
      auto other = c.arguments(out, "7");
      other.push_back("--resume");
      const test::outcome refused = test::zoo(other);
      BOOST_CHECK_EQUAL(refused.status, 2);
      BOOST_CHECK_MESSAGE(refused.err.find("other options") != refused.err.npos, refused.err);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_killed_training_goes_on_to_the_same_bits) {
  const course c;
  constexpr const char* steps = "30";
  test::zoo_prints(c.arguments(c.whole, steps));
  const std::string out = c.folder.path("out");
  auto arguments = c.arguments(out, steps);
  arguments.insert(arguments.end(), {"--resume", "--save-every", "0"});
  // One at the start, one before the first step, then one behind every step.
  BOOST_CHECK_EQUAL(c.ended_by(SIGKILL, arguments, out + ".ckpt", 6), -SIGKILL);
  BOOST_REQUIRE(exists(out + ".ckpt") && !exists(out));
  const test::outcome rest = test::zoo(arguments);
  BOOST_REQUIRE_MESSAGE(rest.status == 0, rest.err);
  BOOST_CHECK_MESSAGE(rest.err.find("going on from step ") != rest.err.npos &&
                          rest.err.find("from step 0\n") == rest.err.npos,
                      rest.err);
  BOOST_CHECK(test::contents(out) == test::contents(c.whole));
  BOOST_CHECK(!exists(out + ".ckpt") && !exists(out + ".ckpt.previous"));
}

BOOST_AUTO_TEST_CASE(an_ignored_signal_stays_ignored) {
  const course c;
  const std::string out = c.folder.path("out");
  BOOST_CHECK_EQUAL(shell("trap '' HUP; " + c.command(out) +
                          " >/dev/null 2>&1 & kill -HUP $!; "
                          "wait $!"),
                    0);
  BOOST_CHECK(exists(out));
}

BOOST_AUTO_TEST_CASE(a_file_that_is_too_large_is_known_at_the_start) {
  const course c;
  const std::string out = c.folder.path("out");
  // 100 kB: less than the checkpoint. Writing fails as on a full disk, and no signal ends zoo.
  BOOST_CHECK_EQUAL(shell("ulimit -f 200; " + c.command(out) + " >/dev/null 2>" +
                          test::quoted(c.folder.path("said"))),
                    2);
  const std::string said = test::contents(c.folder.path("said"));
  BOOST_CHECK_MESSAGE(said.find(".ckpt") != said.npos && said.find("100%") == said.npos, said);
  for (const char* const left : {"", ".partial", ".ckpt", ".ckpt.partial"})
    BOOST_CHECK_MESSAGE(!exists(out + left), out << left);
}

BOOST_AUTO_TEST_CASE(output_that_cannot_be_written_is_an_error) {
  for (const char* const command :
       {"--help", "--version", "train --help", "list", "count t5-mini", "count t5-mini --json",
        "bench --attention fnet --lengths 8:8 --seconds 0.001"})
    for (const char* const to : {" >/dev/full", " >&-"}) {
      BOOST_TEST_CONTEXT(command << to) {
        BOOST_CHECK_EQUAL(shell("\"$ZOO\" " + std::string(command) + to + " 2>/dev/null"), 2);
      }
    }
}

// Whoever prints in another way throws on a full standard error, or hands a terminal what a file
// says. bench_of.hpp is of programs of their own; the progress bar moves the cursor; two_images.hpp
// writes to its file alone.
BOOST_AUTO_TEST_CASE(programs_print_through_the_console_alone) {
  namespace fs = std::filesystem;
  const fs::path examples = fs::path(LINNET_TEST_DIR).parent_path() / "examples";
  int seen = 0;
  for (const char* const folder : {"support", "zoo", "ffn_study", "stlm_study"})
    for (const auto& file : fs::directory_iterator(examples / folder)) {
      const std::string name = file.path().filename().string();
      if (name == "console.cpp" || name == "bench_of.hpp" || name == "progress.cpp" ||
          name == "two_images.hpp")
        continue;
      const std::string source = test::contents(file.path().string());
      ++seen;
      for (const char* const way :
           {"fmt::print(", "printf(", "fputs(", "puts(", "fwrite(", "std::cout", "std::cerr"})
        BOOST_CHECK_MESSAGE(source.find(way) == source.npos, file.path() << ": " << way);
    }
  BOOST_CHECK_GT(seen, 80);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::interrupted
