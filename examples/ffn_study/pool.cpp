#include "pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "support/progress.hpp"

namespace study {

namespace {

class pool {
 public:
  pool(std::vector<job> waiting, const workshop& w)
      : waiting_(std::move(waiting)), total_(waiting_.size()), workshop_(w) {}

  void run(int threads) {
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) workers.emplace_back([this] { work(); });
    for (std::thread& t : workers) t.join();
    if (problem_) std::rethrow_exception(problem_);
  }

 private:
  /// The first job whose needs are met; of those that measure speed, the first alone.
  std::vector<job>::iterator next() {
    if (alone_) return waiting_.end();
    const auto at = std::find_if(waiting_.begin(), waiting_.end(), [&](const job& j) {
      const auto needed = [&](const std::string& name) { return name == j.needs; };
      return std::none_of(waiting_.begin(), waiting_.end(),
                          [&](const job& k) { return needed(k.name); }) &&
             std::none_of(running_.begin(), running_.end(), needed);
    });
    const bool alone = at != waiting_.end() && at->kind == job_kind::cost;
    return alone && !running_.empty() ? waiting_.end() : at;
  }
  void work() {
    std::unique_lock lock(mutex_);
    while (!waiting_.empty() && !problem_ && !put_off_) {
      const auto at = next();
      if (at == waiting_.end()) {
        changed_.wait(lock);
        continue;
      }
      const job j = *at;
      waiting_.erase(at);
      running_.push_back(j.name);
      alone_ = j.kind == job_kind::cost;
      lock.unlock();
      std::exception_ptr problem;
      try {
        const std::optional<outcome> o = run_job(j, workshop_);
        if (o) {
          results::write(workshop_.runs, settings_of(workshop_.size), *o);
          clear_job(j, workshop_);
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
    fmt::print(stderr, "{:>5.0f} s  {:>3}/{}  {}{}\n", support::now() - start_, done_, total_,
               o.job, std::isnan(bits) ? "" : fmt::format("  {:.3f} bits/byte", bits));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<job> waiting_;
  std::vector<std::string> running_;
  bool put_off_ = false;  ///< no more jobs are begun
  bool alone_ = false;    ///< whether a job that measures speed is running
  std::size_t total_, done_ = 0;
  std::exception_ptr problem_;
  const workshop& workshop_;
  double start_ = support::now();
};

}  // namespace

void run_jobs(const std::vector<job>& jobs, const workshop& w, int threads) {
  const results known = results::read(w.runs, settings_of(w.size));
  std::vector<job> waiting;
  for (const job& j : jobs)
    if (known.find(j.name) == nullptr) waiting.push_back(j);
  std::stable_partition(waiting.begin(), waiting.end(),
                        [](const job& j) { return j.kind == job_kind::cost; });
  pool(std::move(waiting), w).run(threads);
}

}  // namespace study
