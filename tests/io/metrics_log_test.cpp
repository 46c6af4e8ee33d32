// Logs of metrics: what a line looks like, and that a resumed run has every step once.

#include <linnet/json.hpp>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test {

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
  LINNET_REQUIRE_OK(ln::write_file(path, bytes(ten + "something\n" + twenty)));
  LINNET_REQUIRE_OK(ln::metrics_log::open(path, {"loss"}, 99));
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
  BOOST_TEST(message(ln::metrics_log::open(folder.path("a"), {"loss"}, 5)) ==
             folder.path("a") + ": expected a readable file, got No such file or directory");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test
