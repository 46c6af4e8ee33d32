// SPDX-License-Identifier: MIT
#pragma once
// What teachers said: for jobs that learn side by side from the same teacher and batches.

#include <deque>
#include <functional>
#include <future>
#include <linnet/linnet.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace study {

namespace ln = linnet;

/// A teacher's logits for the last batches of each course: one teacher, one order of batches. The
/// first job to ask for a batch has the teacher speak, the others listen. That makes whoever is
/// ahead the slowest, so that jobs of a course stay together.
class lectures {
 public:
  using logits = std::shared_ptr<const std::vector<float>>;

  /// `most_bytes` bounds what each course keeps beyond its last batch.
  explicit lectures(std::size_t most_bytes = 1'000'000'000) : most_bytes_(most_bytes) {}

  /// One course. It ends, and forgets all, with the last job that attends it.
  class course : public std::enable_shared_from_this<course> {
   public:
    explicit course(std::size_t most_bytes) : most_bytes_(most_bytes) {}

    /// What the teacher says to the batch of this step, of so many bytes; `speak` returns it, and
    /// is called in this thread or another that waits for the same. Only the last batch is kept
    /// where nobody else attends.
    logits hear(ln::index step, std::size_t bytes, const std::function<logits()>& speak) {
      std::shared_future<logits> said;
      {
        const std::lock_guard lock(mutex_);
        for (const lecture& known : last_)
          if (known.step == step) said = known.said;
        if (!said.valid()) {
          said = std::async(std::launch::deferred, speak).share();
          // Room is made before the teacher speaks, so that no more is ever held.
          const std::size_t kept = weak_from_this().use_count() > 1 ? most_kept : 1;
          while (!last_.empty() && (last_.size() >= kept || bytes_ + bytes > most_bytes_)) {
            bytes_ -= last_.front().bytes;
            last_.pop_front();
          }
          last_.push_back({step, bytes, said});
          bytes_ += bytes;
        }
      }
      return said.get();
    }

   private:
    struct lecture {
      ln::index step;
      std::size_t bytes;
      std::shared_future<logits> said;
    };
    static constexpr std::size_t most_kept = 8;

    std::mutex mutex_;
    std::deque<lecture> last_;
    std::size_t most_bytes_, bytes_ = 0;
  };

  /// The course of this name. It begins anew where nobody attends it.
  std::shared_ptr<course> attend(const std::string& name) {
    const std::lock_guard lock(mutex_);
    std::erase_if(courses_, [](const auto& known) { return known.second.expired(); });
    std::weak_ptr<course>& known = courses_[name];
    std::shared_ptr<course> found = known.lock();
    if (!found) known = found = std::make_shared<course>(most_bytes_);
    return found;
  }

 private:
  std::size_t most_bytes_;
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<course>> courses_;
};

}  // namespace study
