// SPDX-License-Identifier: MIT
// Threads that the host has processors for: quotas read from files of a made-up host, affinity,
// teams that do not pay, and processes where threads cannot be made.

#include <csignal>
#include <fstream>
#include <functional>

#include "support/data.hpp"
#include "support/test.hpp"

#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace test::processors_test {

namespace {

/// The host as it is, not as the suite assumes it, while this lives.
struct real_host {
  int assumed = ln::detail::assumed_processors.exchange(0);
  ~real_host() { ln::detail::assumed_processors = assumed; }
};

/// A folder with the /proc and /sys of another host.
struct other_host {
  scratch_folder folder{};
  const other_host& with(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = folder.path() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
    return *this;
  }
  int processors() const { return ln::detail::cgroup_processors(folder.path()); }
};

/// What `body` returns in a forked process; negative if that ends by itself or by a signal. After
/// 20 seconds one does.
int in_a_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(100 + body());  // nobody else ends with that
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) - 100 : -100;
}

/// The largest team of one region whose threads meet ten times.
int team_of(int threads, const ln::executor& custom = {}) {
  int size = 0;
  ln::parallel(threads, custom, [&](const ln::team& team) {
    for (int i = 0; i < 10; ++i) team.wait();
    if (team.rank() == 0) size = team.size();
  });
  return size;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(processors)

BOOST_AUTO_TEST_CASE(quotas_of_version_2) {
  const auto with = [](const std::string& own, const std::string& outer = "max 100000\n") {
    return other_host()
        .with("/proc/self/cgroup", "0::/a/b\n")
        .with("/sys/fs/cgroup/a/b/cpu.max", own)
        .with("/sys/fs/cgroup/a/cpu.max", outer)
        .processors();
  };
  BOOST_TEST(with("max 100000\n") == 0);
  BOOST_TEST(with("200000 100000\n") == 2);
  BOOST_TEST(with("199999 100000\n") == 1);
  BOOST_TEST(with("20000 100000\n") == 1);  // a fifth of a processor
  BOOST_TEST(with("3200000 100000") == 32);
  BOOST_TEST(with("max 100000\n", "300000 100000\n") == 3);
  BOOST_TEST(with("400000 100000\n", "300000 100000\n") == 3);
  BOOST_TEST(with("300000 100000\n", "400000 100000\n") == 3);
  for (const char* broken : {"", "\n", "200000", "100000 0\n", "-1 100000", "0 100000", "2e5 1e5",
                             "99999999999999999999999 1"})
    BOOST_TEST(with(broken) == 0, broken);
  // A container sees its group as the root.
  BOOST_TEST(other_host()
                 .with("/proc/self/cgroup", "0::/docker/0123\n")
                 .with("/sys/fs/cgroup/cpu.max", "150000 50000\n")
                 .processors() == 3);
  BOOST_TEST(other_host()
                 .with("/proc/self/cgroup", "0::/\n")
                 .with("/sys/fs/cgroup/cpu.max", "50000 50000\n")
                 .processors() == 1);
}

BOOST_AUTO_TEST_CASE(quotas_of_version_1) {
  const std::string groups = "9:cpuset:/elsewhere\n4:cpu,cpuacct:/a\n1:name=systemd:/\n";
  BOOST_TEST(other_host()
                 .with("/proc/self/cgroup", groups)
                 .with("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n")
                 .with("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
                 .processors() == 2);
  BOOST_TEST(other_host()
                 .with("/proc/self/cgroup", groups)
                 .with("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n")
                 .with("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n")
                 .with("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n")
                 .with("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
                 .processors() == 4);
  BOOST_TEST(other_host()  // no group of processors at all
                 .with("/proc/self/cgroup", "4:cpuset,cpuacct:/a\n")
                 .with("/sys/fs/cgroup/cpuset,cpuacct/a/cpu.cfs_quota_us", "100000\n")
                 .with("/sys/fs/cgroup/cpuset,cpuacct/a/cpu.cfs_period_us", "100000\n")
                 .processors() == 0);
}

BOOST_AUTO_TEST_CASE(files_that_say_nothing) {
  BOOST_TEST(other_host().processors() == 0);
  BOOST_TEST(other_host().with("/proc/self/cgroup", ":\n::\n0::\n0::/a").processors() == 0);
  BOOST_TEST(other_host().with("/proc/self/cgroup", std::string(100'000, '0')).processors() == 0);
  BOOST_TEST(
      other_host().with("/proc/self/cgroup", "0::/" + std::string(5000, 'a') + "\n").processors() ==
      0);
}

// One processor in the affinity mask: one thread, whatever is asked for and whoever makes threads.
BOOST_AUTO_TEST_CASE(affinity) {
  const real_host here;
  BOOST_TEST(ln::default_threads() >= 1);
  cpu_set_t before, one;
  BOOST_REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CPU_ZERO(&one);
  for (std::size_t i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_COUNT(&one) == 0 && CPU_ISSET(i, &before)) CPU_SET(i, &one);
  BOOST_REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  BOOST_TEST(ln::default_threads() == 1);
  std::thread([] {  // one that has not asked yet
    BOOST_TEST(team_of(8) == 1);
    BOOST_TEST(team_of(8, std_threads()) == 1);
  })
      .join();
  BOOST_REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
}

// The savings of teams: their losses are paid back eightfold before the next try.
BOOST_AUTO_TEST_CASE(savings) {
  constexpr std::int64_t ms = 1'000'000;
  ln::detail::team_savings s;
  BOOST_TEST(s.any());
  s.add(20 * ms, 10 * ms);  // two threads, both busy
  s.add(1 * ms, 9 * ms);    // a disturbance
  BOOST_TEST(s.any());
  for (int i = 0; i < 1000; ++i) s.add(20 * ms, 10 * ms);
  s.add(1 * ms, 12 * ms);  // no amount of savings allows for more than 10 ms at a time
  BOOST_TEST(!s.any());    // 1 ms and the pause of 1 ms
  s.repay(15 * ms);
  BOOST_TEST(!s.any());
  s.repay(1 * ms);
  BOOST_TEST(s.any());
  s.repay(100 * ms);  // nothing is saved by one thread
  s.add(0, 1);
  s.repay(16 * ms - 9);  // the second failure: a pause of 2 ms
  BOOST_TEST(!s.any());
  s.repay(100);
  BOOST_TEST(s.any());
  for (int i = 0; i < 20; ++i) s.add(0, 1);
  s.repay(20 * 1024 * ms);
  BOOST_TEST(s.any());  // but never more than a second each
  s.add(2 * ms, 1 * ms);
  s.add(0, 1 * ms + 1);
  s.repay(8 * ms + 8);  // a success: 1 ms again
  BOOST_TEST(s.any());
  BOOST_TEST(s.due());
  BOOST_TEST(s.due());
  s.add(ms / 10, ms / 20);  // stands for itself and for 15 calls that nobody watches
  for (int i = 0; i < 15; ++i) BOOST_TEST(!s.due());
  BOOST_TEST(s.due());
  s.add(0, ms / 2);
  BOOST_TEST(s.any());
  s.add(0, ms / 2);
  BOOST_TEST(!s.any());
}

// A process that was stopped for an hour has a try again after some 80 seconds of work.
BOOST_AUTO_TEST_CASE(savings_after_a_stop) {
  constexpr std::int64_t second = 1'000'000'000;
  ln::detail::team_savings s;
  s.add(second, 3600 * second);
  s.repay(79 * second);
  BOOST_TEST(!s.any());
  s.repay(2 * second);
  BOOST_TEST(s.any());
}

// A thread that gets no processor for 5 ms in each call: soon there are calls of one thread alone.
// Their results are those of the team.
BOOST_AUTO_TEST_CASE(teams_that_do_not_pay) {
  const real_host here;
  if (ln::default_threads() < 2) return;
  int teams = 0;
  const ln::executor late{&teams,
                          [](void* object, int n, void (*body)(void*, int, int), void* argument) {
                            ++*static_cast<int*>(object);
                            std::thread other([&] {
                              std::this_thread::sleep_for(std::chrono::milliseconds(5));
                              body(argument, 1, n);
                            });
                            body(argument, 0, n);
                            other.join();
                          }};
  std::vector<int> items(100);
  for (int call = 0; call < 200; ++call)
    ln::parallel(2, late,
                 [&](const ln::team& team) { team.each(100, [&](index i) { ++items[at(i)]; }); });
  BOOST_TEST(teams <= 20);
  BOOST_TEST(items == std::vector<int>(100, 200));
}

// A process forked after its parent used OpenMP computes, on one thread.
BOOST_AUTO_TEST_CASE(forked_processes) {
  (void)team_of(2);
  BOOST_TEST(in_a_child([] { return team_of(2); }) == 1);
  BOOST_TEST(in_a_child([] {  // a thread of its own has OpenMP of its own
               int size = 0;
               std::thread([&] { size = team_of(2); }).join();
               return size;
             }) <= 2);
#if defined(_OPENMP)
  BOOST_TEST(team_of(2) == 2);  // nothing changed here
#endif
}

// A limit on the number of threads leaves fewer threads, not a dead program.
BOOST_AUTO_TEST_CASE(threads_that_cannot_be_made) {
  const auto with_at_most = [](rlim_t most) {
    return in_a_child([=] {
      int size = 0;
      std::thread([&] {
        const rlimit limit{most, most};
        if (getuid() == 0 && setresuid(64321, 64321, 64321) != 0) return;
        if (setrlimit(RLIMIT_NPROC, &limit) == 0) size = team_of(5);
      }).join();
      return size;
    });
  };
  BOOST_TEST(with_at_most(1) == 1);
  for (const rlim_t most : {3u, 4u, 5u, 6u, 8u}) {
    const int size = with_at_most(most);
    BOOST_TEST((size >= 1 && size <= 5), most << " give " << size);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::processors_test

#endif
