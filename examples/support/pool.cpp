// SPDX-License-Identifier: MIT
#include "pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "console.hpp"
#include "progress.hpp"
#include "ranks.hpp"

namespace support {

namespace {

class pool {
 public:
  pool(std::vector<work> waiting, const std::string& folder, std::string_view settings,
       double deadline)
      : waiting_(std::move(waiting)),
        total_(waiting_.size()),
        folder_(folder),
        settings_(settings),
        deadline_(deadline) {}

  void run(int threads) {
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) workers.emplace_back([this] { take_jobs(); });
    for (std::thread& t : workers) t.join();
    if (problem_) std::rethrow_exception(problem_);
  }

 private:
  /// Whether a process has its result; an empty file was lost with the power, as for results::read.
  bool is_done(const std::string& job) const {
    std::error_code none;
    const auto size = std::filesystem::file_size(folder_ + "/" + job + ".json", none);
    return !none && size > 0;
  }
  /// Takes out the first job whose needs are met and that no other process has claimed; of those
  /// that measure time, the first alone.
  std::optional<work> next(std::optional<claim>& own) {
    elsewhere_ = false;
    done_ += std::erase_if(waiting_, [&](const work& j) { return is_done(j.name); });
    for (auto at = waiting_.begin(); at != waiting_.end() && !alone_; ++at) {
      const auto needed = [&](const std::string& name) { return name == at->needs; };
      if (at->alone && !running_.empty()) break;
      if (std::any_of(waiting_.begin(), waiting_.end(),
                      [&](const work& k) { return needed(k.name); }) ||
          std::any_of(running_.begin(), running_.end(), needed))
        continue;
      std::optional<claim> made = claim::try_now(folder_ + "/" + at->name + ".claim");
      // Another process may have done it since the look above.
      const bool free = made && !is_done(at->name);
      elsewhere_ = elsewhere_ || !free;
      if (!free && at->alone) break;
      if (!free) continue;
      own.emplace(std::move(*made));
      work found = std::move(*at);
      waiting_.erase(at);
      return found;
    }
    return {};
  }
  void take_jobs() {
    std::unique_lock lock(mutex_);
    while (!waiting_.empty() && !problem_ && !put_off_) {
      std::optional<claim> own;
      std::optional<work> found;
      std::exception_ptr problem;
      try {
        found = next(own);
      } catch (...) {
        if (!problem_) problem_ = std::current_exception();
        break;
      }
      if (!found) {
        if (waiting_.empty()) break;
        if (stop_requests::received() != 0 || (elsewhere_ && now() >= deadline_)) {
          put_off_ = true;
          break;
        }
        if (elsewhere_ && !looks_) {  // one thread looks for all
          looks_ = true;
          changed_.wait_for(lock, std::chrono::seconds(1));
          looks_ = false;
        } else {
          changed_.wait(lock);
        }
        continue;
      }
      changed_.notify_all();  // another one looks
      const work& j = *found;
      running_.push_back(j.name);
      alone_ = j.alone;
      lock.unlock();
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
      own.reset();
      alone_ = false;
      if (problem && !problem_) problem_ = problem;
      running_.erase(std::find(running_.begin(), running_.end(), j.name));
      changed_.notify_all();
    }
    changed_.notify_all();  // the others end, too
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
  bool put_off_ = false;    ///< no more jobs are begun
  bool alone_ = false;      ///< whether a job that measures time is running
  bool elsewhere_ = false;  ///< whether other processes have jobs for which this one waits
  bool looks_ = false;      ///< whether a thread waits to look whether these are done
  std::size_t total_, done_ = 0;
  std::exception_ptr problem_;
  const std::string& folder_;
  std::string_view settings_;
  double deadline_;
  double start_ = now();
};

}  // namespace

void run_all(std::vector<work> all, const std::string& folder, std::string_view settings,
             int threads, double deadline) {
  const results known = results::read(folder, settings);
  std::erase_if(all, [&](const work& j) { return known.find(j.name) != nullptr; });
  std::stable_partition(all.begin(), all.end(), [](const work& j) { return j.alone; });
  const stop_requests stops;
  pool(std::move(all), folder, settings, deadline).run(threads);
  if (const int signal = stop_requests::received())
    throw interruption(signal, "stopped by a signal; the same call goes on where this one ended");
}

}  // namespace support
