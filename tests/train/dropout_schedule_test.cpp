// SPDX-License-Identifier: MIT
// Dropout schedules: rates by hand, ends, direction; and that the trainer applies each step's.

#include "support/data.hpp"
#include "support/models.hpp"

namespace test::dropout_schedule_test {

namespace {

using schedule = ln::dropout_schedule;
using model = ln::decoder<tiny_decoder_shape>;

static_assert(schedule(0.25).at(1) == 0.25 && schedule(0.25).at(1'000'000) == 0.25);
static_assert(schedule(0).at(7) == 0);
static_assert(ln::training_options{.dropout = 0.125}.dropout.at(3) == 0.125);
static_assert(ln::training_options{}.dropout.at(3) == 0);

/// The losses of some steps that change nothing but the dropout.
std::vector<double> losses(const schedule& dropout, int steps, index from = 0) {
  const auto data = data_for<model>(2, 0, 5);
  ln::weights<model, double> w;
  randomize(w);
  auto train = ln::trainer<model, ln::adamw, double>::open(
      w, data.limits(), {ln::schedule::constant(0)}, {.dropout = dropout, .seed = 3});
  LINNET_REQUIRE_OK(train->resume({.steps = from}));
  std::vector<double> all;
  for (int i = 0; i < steps; ++i) all.push_back(train->step(data.view()));
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(dropout_schedule)

BOOST_AUTO_TEST_CASE(straight_line) {
  const auto s = schedule::linear(0.05, 0.25, 100, 500);
  for (const index t : {1, 50, 100}) BOOST_TEST(s.at(t) == 0.05);
  BOOST_TEST(std::abs(s.at(200) - 0.1) < 1e-15);
  BOOST_TEST(std::abs(s.at(300) - 0.15) < 1e-15);
  for (const index t : {500, 501, 9000}) BOOST_TEST(s.at(t) == 0.25);
  for (index t = 101; t <= 500; ++t) BOOST_TEST(s.at(t) > s.at(t - 1));
  const auto down = schedule::linear(0.3, 0, 0, 10);
  BOOST_TEST(std::abs(down.at(1) - 0.27) < 1e-15);
  BOOST_TEST(down.at(10) == 0);
}

// Four cycles of 100 steps: low at 0, 100, 200, …, high at 50, 150, …
BOOST_AUTO_TEST_CASE(triangle) {
  const auto s = schedule::triangle(0.1, 0.3, 400);
  for (index cycle = 0; cycle < 4; ++cycle) {
    const auto at = [&](index t) { return s.at(100 * cycle + t); };
    BOOST_TEST(std::abs(at(25) - 0.2) < 1e-15);
    BOOST_TEST(std::abs(at(50) - 0.3) < 1e-15);
    BOOST_TEST(std::abs(at(75) - 0.2) < 1e-15);
    BOOST_TEST(std::abs(at(99) - 0.104) < 1e-15);
    BOOST_TEST(at(100) == 0.1);
    for (index t = 2; t <= 50; ++t) BOOST_TEST(at(t) > at(t - 1));
    for (index t = 51; t <= 100; ++t) BOOST_TEST(at(t) < at(t - 1));
  }
  BOOST_TEST(std::abs(schedule::triangle(0, 0.2, 30, 3).at(15) - 0.2) < 1e-15);
  BOOST_TEST(std::abs(schedule::triangle(0, 0.2, 35, 4).at(4) - 0.2) < 1e-15);  // cycles of 8
  BOOST_TEST(std::abs(schedule::triangle(0, 0.4, 3, 1).at(1) - 0.8 / 3) < 1e-15);
  for (const index t : {1, 2, 3, 4}) BOOST_TEST(schedule::triangle(0.1, 0.3, 3, 4).at(t) == 0.1);
  BOOST_TEST(schedule::triangle(0.1, 0.3, 3, 0).at(2) == 0.1);
}

BOOST_AUTO_TEST_CASE(early_and_late) {
  const auto early = schedule::early(0.1, 40), late = schedule::late(0.1, 40);
  for (index t = 1; t <= 80; ++t) {
    BOOST_TEST(early.at(t) == (t <= 40 ? 0.1 : 0));
    BOOST_TEST(late.at(t) == (t <= 40 ? 0 : 0.1));
  }
}

BOOST_AUTO_TEST_CASE(validity) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  BOOST_TEST(schedule(0).valid());
  BOOST_TEST(schedule::triangle(0.1, 0.99, 10).valid());
  const auto data = data_for<model>(2, 0, 5);
  ln::weights<model> w;
  for (const schedule& bad :
       {schedule(1), schedule(-0.1), schedule(nan), schedule::linear(0, 1, 0, 9),
        schedule::linear(1, 0, 0, 9), schedule::linear(0, nan, 0, 9), schedule::early(1.5, 3),
        schedule::triangle(-1, 0.5, 8), schedule::linear(0, -0.5, 0, 9)}) {
    BOOST_TEST(!bad.valid());
    auto refused = ln::trainer<model>::open(w, data.limits(), {}, {.dropout = bad});
    BOOST_REQUIRE(!refused);
    BOOST_TEST(refused.error().what == "training_options.dropout");
    const double shown = std::stod(refused.error().got);
    BOOST_TEST((!ln::is_finite(shown) || shown < 0 || shown >= 1));  // the rate that is wrong
  }
}

// Step t has the rate of t and the masks of t: a schedule's losses are, one by one, those of
// constant rates; and a resumed run is in the place of the schedule where it was.
BOOST_AUTO_TEST_CASE(in_the_trainer) {
  const auto none = losses(0, 6), some = losses(0.3, 6);
  for (std::size_t i = 0; i < 6; ++i) BOOST_TEST(none[i] != some[i]);
  const auto early = losses(schedule::early(0.3, 4), 6), late = losses(schedule::late(0.3, 2), 6);
  for (std::size_t i = 0; i < 6; ++i) {
    BOOST_TEST(early[i] == (i < 4 ? some : none)[i]);
    BOOST_TEST(late[i] == (i < 2 ? none : some)[i]);
  }
  const auto line = schedule::linear(0, 0.5, 1, 5);
  const auto whole = losses(line, 6), rest = losses(line, 3, 3);
  for (std::size_t i = 0; i < 6; ++i)
    BOOST_TEST(whole[i] == losses(line.at(static_cast<index>(i) + 1), 6)[i]);
  for (std::size_t i = 0; i < 3; ++i) BOOST_TEST(rest[i] == whole[i + 3]);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::dropout_schedule_test
