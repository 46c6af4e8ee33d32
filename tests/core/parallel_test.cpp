// SPDX-License-Identifier: MIT
// Threads: shares cover every item once, barriers order writes, a user's executor is used.

#include <atomic>

#include "support/test.hpp"

namespace test::parallel_test {

BOOST_AUTO_TEST_SUITE(parallel)

// The shares of all ranks are disjoint, in order, cover [0, n) and differ by at most one item.
BOOST_AUTO_TEST_CASE(shares_partition) {
  for (int size = 1; size <= 5; ++size)
    for (const index n : {0, 1, 2, 3, 4, 5, 7, 16, 97, 1000}) {
      index next = 0, least = n, most = 0;
      for (int rank = 0; rank < size; ++rank) {
        const auto [first, last] = ln::team(rank, size, nullptr).range(n);
        BOOST_TEST(first == next);
        next = last;
        least = (std::min)(least, last - first);
        most = (std::max)(most, last - first);
      }
      BOOST_TEST(next == n);
      BOOST_TEST(most - least <= 1);
    }
}

// In many rounds every thread writes its own cell, waits, and then reads everyone else's: with a
// broken barrier some thread reads an old value. Once with OpenMP (where compiled in), once with an
// executor of std::threads, of 1 to 5 threads.
BOOST_AUTO_TEST_CASE(barrier_orders_writes, *boost::unit_test::label("tsan")) {
  for (const ln::executor& custom : {std_threads(), ln::executor{}})
    for (int threads = 1; threads <= 5; ++threads) {
      constexpr int rounds = 300;
      std::vector<int> cells(5);
      std::atomic<int> wrong{0}, sizes{0}, calls{0};
      ln::parallel(threads, custom, [&](const ln::team& team) {
        sizes += team.size();
        ++calls;
        for (int round = 1; round <= rounds; ++round) {
          cells[at(team.rank())] = round;
          team.wait();
          for (int other = 0; other < team.size(); ++other) wrong += cells[at(other)] != round;
          team.wait();
        }
      });
      BOOST_TEST(wrong == 0);
      BOOST_TEST(sizes == calls * calls);
      if (custom.run) BOOST_TEST(calls == threads);
    }
}

// each() visits every item once and is complete when it returns; once() runs on one thread.
BOOST_AUTO_TEST_CASE(each_and_once, *boost::unit_test::label("tsan")) {
  for (int threads = 1; threads <= 5; ++threads) {
    std::vector<int> visits(97);
    int runs = 0;
    std::atomic<int> wrong{0};
    ln::parallel(threads, std_threads(), [&](const ln::team& team) {
      team.each(97, [&](index i) { ++visits[at(i)]; });
      for (const int v : visits) wrong += v != 1;
      team.once([&] { ++runs; });
      wrong += runs != 1;
      team.wait();
    });
    BOOST_TEST(wrong == 0);
  }
}

// An executor may use fewer threads than it is asked for, and none is started for one thread.
BOOST_AUTO_TEST_CASE(executor_may_give_fewer) {
  int asked = 0;
  const ln::executor alone{&asked,
                           [](void* object, int n, void (*body)(void*, int, int), void* argument) {
                             *static_cast<int*>(object) = n;
                             body(argument, 0, 1);
                           }};
  int size = 0;
  ln::parallel(4, alone, [&](const ln::team& team) {
    size = team.size();
    team.wait();
  });
  BOOST_TEST(asked == 4);
  BOOST_TEST(size == 1);
  asked = 0;
  ln::parallel(1, alone, [&](const ln::team&) {});
  BOOST_TEST(asked == 0);
}

#if defined(_OPENMP)
// The caller's OpenMP settings survive.
BOOST_AUTO_TEST_CASE(openmp_settings_stay) {
  const int before = omp_get_max_threads(), dynamic = omp_get_dynamic();
  int size = 0;
  ln::parallel(3, {}, [&](const ln::team& team) {
    if (team.rank() == 0) size = team.size();
  });
  BOOST_TEST(size == 3);
  BOOST_TEST(omp_get_max_threads() == before);
  BOOST_TEST(omp_get_dynamic() == dynamic);
}
#endif

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::parallel_test
