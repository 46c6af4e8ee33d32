// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Losses of the parts of a batch, and loads of their experts, gathered over ranks and added in the
/// order of parts. Opt-in, through linnet/mpi.hpp.

#include <cstddef>
#include <type_traits>

#include <linnet/core/arena.hpp>
#include <linnet/distributed/communicator.hpp>
#include <linnet/distributed/shards.hpp>
#include <linnet/nn/routing/expert_load.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The loss of a part of a batch, and what routers did with its tokens.
struct part_report {
  loss_sum loss{};
  expert_load experts{};
};
static_assert(std::is_trivially_copyable_v<part_report>);

/// The reports of all parts, on each rank. A rank puts in those of its own parts.
class part_reports {
 public:
  /// Places the reports of `parts` parts in `memory`, or counts them.
  static constexpr part_reports place(arena& memory, index parts, index ranks) {
    part_reports made;
    made.parts_ = parts;
    made.all_ = memory.take<part_report>(parts);
    made.numbers_ = memory.take<int>(2 * ranks);
    return made;
  }
  /// Notes which parts each rank has, after place().
  void start(communicator& ranks) {
    ranks_ = &ranks;
    for (index r = 0; r < ranks.size(); ++r) {
      const auto [first, last] = items_of(parts_, r, ranks.size());
      numbers_[r] = static_cast<int>((last - first) * index{sizeof(part_report)});
      numbers_[ranks.size() + r] = static_cast<int>(first * index{sizeof(part_report)});
    }
  }
  /// Puts in the report of part number `part`, which is this rank's.
  void put(index part, const loss_sum& loss, const expert_load& experts = {}) {
    all_[part] = {loss, experts};
  }
  /// Gives each rank the reports of all parts. False if a message failed.
  bool gather() {
    return ranks_->gather(reinterpret_cast<std::byte*>(all_), numbers_, numbers_ + ranks_->size());
  }
  /// The sums over all parts, after gather().
  part_report sum() const {
    part_report all;
    for (index i = 0; i < parts_; ++i) {
      all.loss.nats += all_[i].loss.nats;
      all.loss.tokens += all_[i].loss.tokens;
      all.experts += all_[i].experts;
    }
    return all;
  }

 private:
  communicator* ranks_ = nullptr;
  part_report* all_ = nullptr;
  int* numbers_ = nullptr;  ///< bytes of each rank's reports, and where they begin
  index parts_ = 0;
};

}  // namespace detail

LINNET_NAMESPACE_END
