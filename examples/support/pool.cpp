// SPDX-License-Identifier: MIT
#include "pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "console.hpp"
#include "progress.hpp"

namespace support {

namespace {

class pool {
 public:
  pool(std::vector<work> waiting, const std::string& folder, std::string_view settings)
      : waiting_(std::move(waiting)),
        total_(waiting_.size()),
        folder_(folder),
        settings_(settings) {}

  void run(int threads) {
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) workers.emplace_back([this] { take_jobs(); });
    for (std::thread& t : workers) t.join();
    if (problem_) std::rethrow_exception(problem_);
  }

 private:
  /// The first job whose needs are met; of those that measure time, the first alone.
  std::vector<work>::iterator next() {
    if (alone_) return waiting_.end();
    const auto at = std::find_if(waiting_.begin(), waiting_.end(), [&](const work& j) {
      const auto needed = [&](const std::string& name) { return name == j.needs; };
      return std::none_of(waiting_.begin(), waiting_.end(),
                          [&](const work& k) { return needed(k.name); }) &&
             std::none_of(running_.begin(), running_.end(), needed);
    });
    const bool alone = at != waiting_.end() && at->alone;
    return alone && !running_.empty() ? waiting_.end() : at;
  }
  void take_jobs() {
    std::unique_lock lock(mutex_);
    while (!waiting_.empty() && !problem_ && !put_off_) {
      const auto at = next();
      if (at == waiting_.end()) {
        changed_.wait(lock);
        continue;
      }
      const work j = std::move(*at);
      waiting_.erase(at);
      running_.push_back(j.name);
      alone_ = j.alone;
      lock.unlock();
      std::exception_ptr problem;
      try {
        const std::optional<outcome> o = j.run();
        if (o) {
          results::write(folder_, settings_, *o);
          for (const char* const end :
               {".ckpt", ".ckpt.previous", ".ckpt.damaged", ".ckpt.partial"})
            std::filesystem::remove(folder_ + "/" + j.name + end);
        }
        lock.lock();
        if (o)
          say(*o);
        else
          put_off_ = true;
      } catch (...) {
        problem = std::current_exception();
        if (!lock.owns_lock()) lock.lock();
      }
      alone_ = false;
      if (problem && !problem_) problem_ = problem;
      running_.erase(std::find(running_.begin(), running_.end(), j.name));
      changed_.notify_all();
    }
  }
  void say(const outcome& o) {
    ++done_;
    const double bits = o["bits"];
    support::say("{:>5.0f} s  {:>3}/{}  {}{}\n", now() - start_, done_, total_, o.job,
                 std::isnan(bits) ? "" : fmt::format("  {:.3f} bits/byte", bits));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<work> waiting_;
  std::vector<std::string> running_;
  bool put_off_ = false;  ///< no more jobs are begun
  bool alone_ = false;    ///< whether a job that measures time is running
  std::size_t total_, done_ = 0;
  std::exception_ptr problem_;
  const std::string& folder_;
  std::string_view settings_;
  double start_ = now();
};

}  // namespace

void run_all(std::vector<work> all, const std::string& folder, std::string_view settings,
             int threads) {
  const results known = results::read(folder, settings);
  std::erase_if(all, [&](const work& j) { return known.find(j.name) != nullptr; });
  std::stable_partition(all.begin(), all.end(), [](const work& j) { return j.alone; });
  const stop_requests stops;
  pool(std::move(all), folder, settings).run(threads);
  if (const int signal = stop_requests::received())
    throw interruption(signal, "stopped by a signal; the same call goes on where this one ended");
}

}  // namespace support
