// SPDX-License-Identifier: MIT
// Logs of metrics: what a line looks like, and that a resumed run has every step once.

#include <sys/resource.h>

#include <csignal>
#include <linnet/json.hpp>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test::metrics_log_test {

BOOST_AUTO_TEST_SUITE(metrics_logs)

namespace {
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

void write(ln::metrics_log& log, index step, std::vector<double> figures) {
  LINNET_REQUIRE_OK(log.write(step, figures));
}
}  // namespace

BOOST_AUTO_TEST_CASE(json_lines) {
  const scratch_folder folder;
  const std::string path = folder.path("log.jsonl");
  {
    auto log = ln::metrics_log::open(path, {"loss", "a \"rate\""});
    LINNET_REQUIRE_OK(log);
    for (const index step : {10, 20, 30})
      write(*log, step, {0.5, step == 20 ? nan : static_cast<double>(step)});
    BOOST_TEST(message(log->write(40, std::vector{1.0})) == path + ": figures: expected 2, got 1");
  }
  const std::string ten = "{\"step\":10,\"loss\":0.5,\"a \\\"rate\\\"\":10}\n",
                    twenty = "{\"step\":20,\"loss\":0.5,\"a \\\"rate\\\"\":null}\n";
  BOOST_TEST(contents(path) == ten + twenty + "{\"step\":30,\"loss\":0.5,\"a \\\"rate\\\"\":30}\n");

  // The checkpoint is of step 25, and the last line is torn.
  LINNET_REQUIRE_OK(ln::write_file(path, bytes(contents(path) + "{\"step\":2")));
  {
    auto log = ln::metrics_log::open(path, {"loss"}, 25);
    LINNET_REQUIRE_OK(log);
    BOOST_TEST(contents(path) == ten + twenty);
    write(*log, 26, {1e-7});
  }
  BOOST_TEST(contents(path) == ten + twenty + "{\"step\":26,\"loss\":1e-07}\n");
  LINNET_REQUIRE_OK(ln::metrics_log::open(path, {"loss"}, 10));
  BOOST_TEST(contents(path) == ten);
  LINNET_REQUIRE_OK(ln::write_file(path, bytes(ten + "{\"step\":20")));
  LINNET_REQUIRE_OK(ln::metrics_log::open(path, {"loss"}, 99));
  BOOST_TEST(contents(path) == ten);
  LINNET_REQUIRE_OK(ln::metrics_log::open(path, {"loss"}));
  BOOST_TEST(contents(path) == "");
}

BOOST_AUTO_TEST_CASE(csv) {
  const scratch_folder folder;
  const std::string path = folder.path("log.csv");
  {
    auto log = ln::metrics_log::open(path, {"loss", "tokens"});
    LINNET_REQUIRE_OK(log);
    write(*log, 1, {2.25, 1e6});
    write(*log, 2, {nan, 3});
  }
  BOOST_TEST(contents(path) == "step,loss,tokens\n1,2.25,1000000\n2,,3\n");
  LINNET_REQUIRE_OK(ln::metrics_log::open(path, {"loss", "tokens"}, 1));
  BOOST_TEST(contents(path) == "step,loss,tokens\n1,2.25,1000000\n");
  BOOST_TEST(message(ln::metrics_log::open(path, {"loss", "rate"}, 1)) ==
             path + ": columns: expected step,loss,rate, got step,loss,tokens");
  BOOST_TEST(contents(path) == "step,loss,tokens\n1,2.25,1000000\n");
}

BOOST_AUTO_TEST_CASE(log_refusals) {
  const scratch_folder folder;
  BOOST_TEST(!ln::metrics_log::open(folder.path("none/a"), {"loss"}));
  BOOST_TEST(message(ln::metrics_log::open(folder.path(), {"loss"})) ==
             folder.path() + ": expected a file that can be written, got Is a directory");
}

BOOST_AUTO_TEST_CASE(columns_are_quoted) {
  const scratch_folder folder;
  const std::string path = folder.path("log.csv");
  const std::vector<std::string> columns{"loss, held out", "a \"rate\"", "two\nlines"};
  const std::string header = "step,\"loss, held out\",\"a \"\"rate\"\"\",\"two\nlines\"\n";
  for (const index last : {0, 1}) {
    auto log = ln::metrics_log::open(path, columns, last);
    LINNET_REQUIRE_OK(log);
    write(*log, last + 1, {1, 2, 3});
  }
  BOOST_TEST(contents(path) == header + "1,1,2,3\n2,1,2,3\n");
}

// Whatever is lost of a log, a run goes on, with what is there and a note.
BOOST_AUTO_TEST_CASE(lost_lines_stop_no_run) {
  const scratch_folder folder;
  for (const char* const name : {"log.jsonl", "log.csv"}) {
    const std::string path = folder.path(name), zeros(100, '\0');
    const auto resume = [&](index last) {
      auto log = ln::metrics_log::open(path, {"loss"}, last);
      LINNET_REQUIRE_OK(log);
      write(*log, last + 1, {7});
      return log->note();
    };
    {
      auto log = ln::metrics_log::open(path, {"loss"});
      LINNET_REQUIRE_OK(log);
      BOOST_TEST(log->note() == "");
      for (const index step : {1, 2, 3, 4}) write(*log, step, {1});
      LINNET_REQUIRE_OK(log->sync());
    }
    const std::string whole = contents(path);
    const auto line = [&](index n) {  // the header too
      std::size_t at = 0;
      for (; n > 0; --n) at = whole.find('\n', at) + 1;
      return at;
    };
    const index header = path.ends_with(".csv");
    const std::string more = header ? "4,7\n" : "{\"step\":4,\"loss\":7}\n",
                      two = whole.substr(line(header + 1), line(header + 2) - line(header + 1)),
                      head = whole.substr(0, line(header)), only = head + more;
    const auto lost = [&](const std::string& text) {
      if (text == "absent")
        std::filesystem::remove(path);
      else
        LINNET_REQUIRE_OK(ln::write_file(path, bytes(text)));
      std::filesystem::remove(path + ".damaged");
      const std::string note = resume(3);
      BOOST_TEST(note.starts_with(path + ": expected "), note);
      BOOST_TEST(note.find('\n') == note.npos);
      return contents(path);
    };
    BOOST_TEST(lost("absent") == only);
    BOOST_TEST(lost("") == only);
    BOOST_TEST(lost(zeros) == only);
    BOOST_TEST(lost(zeros + '\n' + two) == head + two + more);
    BOOST_TEST((contents(path + ".damaged") == zeros + '\n' + two));
    BOOST_TEST(lost(whole.substr(0, line(header + 1)) + zeros) ==
               whole.substr(0, line(header + 1)) + more);
    BOOST_TEST(lost(whole.substr(0, line(header + 1)) + "something\n" + two) ==
               whole.substr(0, line(header + 2)) + more);
    for (const char* const half : {"2\n", "2,1,1\n", "{\"step\":2\n", ",2\n"})
      BOOST_TEST(lost(whole.substr(0, line(header + 1)) + half) ==
                 whole.substr(0, line(header + 1)) + more);
    // A line is torn after the checkpoint: nothing is lost.
    LINNET_REQUIRE_OK(ln::write_file(path, bytes(whole + "{\"st")));
    BOOST_TEST(resume(4) == "");
    BOOST_TEST(contents(path).starts_with(whole));
    BOOST_TEST(contents(path).size() == whole.size() + more.size());
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    BOOST_TEST(!ln::metrics_log::open(path, {"loss"}, 3));
  }
}

// Half a line is written when the disk is full. Later lines are whole again.
BOOST_AUTO_TEST_CASE(a_disk_that_is_full_for_a_while) {
  const scratch_folder folder;
  const std::string path = folder.path("log.jsonl");
  auto log = ln::metrics_log::open(path, {"loss"});
  LINNET_REQUIRE_OK(log);
  write(*log, 1, {1});
  rlimit before{};
  BOOST_REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit full{contents(path).size() + 5, before.rlim_max};
  BOOST_REQUIRE(setrlimit(RLIMIT_FSIZE, &full) == 0);
  const bool written = static_cast<bool>(log->write(2, std::array{1.0}));
  BOOST_REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  BOOST_TEST(!written);
  write(*log, 3, {1});
  const std::string one = "{\"step\":1,\"loss\":1}\n", three = "{\"step\":3,\"loss\":1}\n";
  BOOST_TEST(contents(path) == one + "{\"ste\n" + three);
  const auto again = ln::metrics_log::open(path, {"loss"}, 3);
  LINNET_REQUIRE_OK(again);
  BOOST_TEST(again->note() == path + ": expected lines of steps, got 1 damaged");
  BOOST_TEST(contents(path) == one + three);
}

BOOST_AUTO_TEST_CASE(logs_on_devices) {
  auto full = ln::metrics_log::open("/dev/full", {"loss"});
  LINNET_REQUIRE_OK(full);
  BOOST_TEST(message(full->write(1, std::array{1.0})) ==
             "/dev/full: expected to write the whole file, got No space left on device");
  auto none = ln::metrics_log::open("/dev/null", {"loss"}, 7);
  LINNET_REQUIRE_OK(none);
  BOOST_TEST(none->note() == "/dev/null: expected a regular file, got a device");
  write(*none, 8, {1});
  LINNET_REQUIRE_OK(none->sync());
  const auto elsewhere = *std::move(none);
  BOOST_TEST(!none->write(9, std::array{1.0}));
  BOOST_TEST(!none->write(9, std::span<const double>()));
  BOOST_TEST(message(none->sync()) ==
             "line_file: expected a file that was not moved from, got none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::metrics_log_test
