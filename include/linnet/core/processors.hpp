// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Number of processors that the host has for threads, and whether threads can be made.

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include <linnet/core/finite.hpp>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#elif !defined(LINNET_NO_THREADS)
#include <thread>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Text of limited length on the stack; `whole` is false if something was cut off.
struct short_text {
  char text[4096];
  std::size_t size = 0;
  bool whole = true;

  void add(std::string_view more) {
    whole = whole && more.size() <= sizeof text - size;
    size += more.copy(text + size, sizeof text - size);
  }
  std::string_view view() const { return {text, size}; }
};

/// The beginning of the file named by the parts after each other, or nothing. Nothing is allocated.
LINNET_COLD inline short_text read_short(std::initializer_list<std::string_view> parts) {
  short_text found;
#if defined(__linux__)
  short_text path;
  for (const std::string_view part : parts) path.add(part);
  path.add({"\0", 1});
  const int file = path.whole ? ::open(path.text, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
  if (file < 0) return found;
  const auto got = ::read(file, found.text, sizeof found.text);
  ::close(file);
  if (got > 0) found.size = static_cast<std::size_t>(got);
#else
  (void)parts;
#endif
  return found;
}

/// The next word of `text`, which loses it.
LINNET_COLD inline std::string_view next_word(std::string_view& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  std::size_t n = 0;
  while (n < text.size() && !blank(text[n])) ++n;
  const std::string_view word = text.substr(0, n);
  text.remove_prefix(n);
  return word;
}
/// Number of processors that `quota` microseconds in each `period` amount to, rounded down but at
/// least 1; 0 without a limit.
LINNET_COLD inline int processors_of(std::string_view quota, std::string_view period) {
  const auto number = [](std::string_view text) {
    std::int64_t value = 0;
    const auto end = text.data() + text.size();
    return std::from_chars(text.data(), end, value).ptr == end ? value : std::int64_t{0};
  };
  const std::int64_t most = number(quota), per = number(period);
  if (most <= 0 || per <= 0) return 0;  // "max", -1, or not a quota
  return static_cast<int>((std::clamp)(most / per, std::int64_t{1}, std::int64_t{1} << 16));
}

/// Number of processors that control groups of Linux, version 1 or 2, leave this process; 0 for
/// all. `root` is the folder that holds /proc and /sys, as text to put in front of them.
LINNET_COLD inline int cgroup_processors(std::string_view root = "") {
  int fewest = 0;
  const auto limit = [&](int n) {
    if (n > 0 && (fewest == 0 || n < fewest)) fewest = n;
  };
  const short_text groups = read_short({root, "/proc/self/cgroup"});
  std::string_view rest = groups.view();
  while (!rest.empty()) {  // 0::/path, or number:controller,controller:/path
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix((std::min)(rest.size(), line.size() + 1));
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    bool meant = unified;
    for (std::string_view left = controllers; !left.empty();) {
      const std::string_view one = left.substr(0, left.find(','));
      meant = meant || one == "cpu";
      left.remove_prefix((std::min)(left.size(), one.size() + 1));
    }
    if (!meant) continue;
    // The group's own limit and those of all groups around it. A container may see its own group
    // as the root, so that outer folders of the path are missing.
    for (std::string_view path = line.substr(second + 1);;) {
      while (!path.empty() && path.back() == '/') path.remove_suffix(1);
      if (unified) {
        const short_text file = read_short({root, "/sys/fs/cgroup", path, "/cpu.max"});
        std::string_view text = file.view();
        const std::string_view quota = next_word(text);
        limit(processors_of(quota, next_word(text)));
      } else {
        for (const std::string_view mount : {std::string_view("cpu"), controllers}) {
          const short_text quota =
              read_short({root, "/sys/fs/cgroup/", mount, path, "/cpu.cfs_quota_us"});
          const short_text period =
              read_short({root, "/sys/fs/cgroup/", mount, path, "/cpu.cfs_period_us"});
          std::string_view most = quota.view(), per = period.view();
          limit(processors_of(next_word(most), next_word(per)));
        }
      }
      if (path.empty()) break;
      path = path.substr(0, path.rfind('/'));
    }
  }
  return fewest;
}

/// Number of processors that the calling thread may run on, at least 1.
LINNET_COLD inline int affine_processors() {
#if defined(__linux__)
  unsigned long mask[1024 / sizeof(unsigned long)] = {};  // of 8,192 processors
  if (sched_getaffinity(0, sizeof mask, reinterpret_cast<cpu_set_t*>(mask)) == 0) {
    int count = 0;
    for (const unsigned long bits : mask) count += __builtin_popcountl(bits);
    if (count > 0) return count;
  }
#endif
#if defined(LINNET_NO_THREADS)
  return 1;
#elif defined(__unix__) || defined(__APPLE__)
  return (std::max)(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
#else
  return (std::max)(1, static_cast<int>(std::thread::hardware_concurrency()));
#endif
}

/// Number of processors to assume in place of the host's, all of them free; 0 to ask the host. For
/// tests, which want more threads than there are processors.
inline std::atomic<int> assumed_processors{0};

/// Number of processors for the threads of one call. `affine` is what affinity leaves.
inline int usable_processors(int affine) {
  if (const int assumed = assumed_processors.load(std::memory_order_relaxed); assumed > 0)
    return assumed;
  static const int granted = cgroup_processors();
  return granted > 0 ? (std::min)(affine, granted) : affine;
}

/// Nanoseconds of a clock; 0 where there is none that is fine enough.
struct nanoseconds {
#if (defined(__unix__) || defined(__APPLE__)) && defined(CLOCK_THREAD_CPUTIME_ID)
  static constexpr bool known = true;
  static std::int64_t of(clockid_t which) {
    timespec t{};
    clock_gettime(which, &t);
    return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
  }
  static std::int64_t elapsed() { return of(CLOCK_MONOTONIC); }
  static std::int64_t computed() { return of(CLOCK_THREAD_CPUTIME_ID); }  ///< by this thread
#else
  static constexpr bool known = false;
  static std::int64_t elapsed() { return 0; }
  static std::int64_t computed() { return 0; }
#endif
};

/// How many of `n` more threads can be made now; threads made for the trial are joined.
LINNET_COLD inline int threads_to_be_had([[maybe_unused]] int n) {
#if defined(LINNET_NO_THREADS)
  return 0;
#elif defined(__unix__) || defined(__APPLE__)
  constexpr int most = 256;
  pthread_t made[most];
  std::atomic<int> gate{0};
  int count = 0;
  while (count < (std::min)(n, most) && pthread_create(
                                            made + count, nullptr,
                                            [](void* at) -> void* {
                                              static_cast<std::atomic<int>*>(at)->wait(0);
                                              return nullptr;
                                            },
                                            &gate) == 0)
    ++count;
  gate.store(1);
  gate.notify_all();
  for (int i = 0; i < count; ++i) pthread_join(made[i], nullptr);
  return count < (std::min)(n, most) ? count : n;
#else
  return n;
#endif
}

}  // namespace detail

/// Default number of threads: the processors that affinity leaves this process, limited by the
/// whole processors of its control group's quota. At least 1.
inline int default_threads() { return detail::usable_processors(detail::affine_processors()); }

LINNET_NAMESPACE_END
