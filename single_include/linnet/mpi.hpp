// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/mpi.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: training and evaluation on several processes, over MPI. Needs the headers and the
/// library of an MPI 3, such as Debian's libopenmpi-dev.

/// @file
/// Work that needs no gradients, shared out over processes: items, and the windows of a text. All
/// ranks get all results, with the bits of one process. Opt-in, through linnet/mpi.hpp.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// @file
/// Messages between processes, over MPI: every call ends, at the latest by a time-out. Opt-in,
/// through linnet/mpi.hpp.

#include <array>
#include <tuple>

#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1  // Open MPI's classes of C++, which are not used
#endif
#include <mpi.h>

#include <linnet/linnet.hpp>
/// @file
/// Digests of options and numbers, by which ranks see that they have the same ones. Knows no MPI.

#include <bit>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Digest of numbers, equal on all machines of one byte order.
struct digest {
  std::uint64_t value = 0xcbf29ce484222325ull;

  void add(std::uint64_t word) {
    value = (value ^ word) * 0x9e3779b97f4a7c15ull;
    value ^= value >> 29;
  }
  /// Adds options, and those inside them: structs of options, schedules, numbers and names.
  template <class Options>
  void add_options(const Options& all) {
    if constexpr (has_ranges<Options>) {
      Options::visit_options(
          all, [&](const char*, const auto& one, const auto&...) { add_options(one); });
    } else if constexpr (std::is_floating_point_v<Options>) {
      add(std::bit_cast<std::uint64_t>(static_cast<double>(all)));
    } else if constexpr (requires { static_cast<std::uint64_t>(all); }) {
      add(static_cast<std::uint64_t>(all));
    } else {
      static_assert(
          requires { all.visit_numbers([](auto) {}); },
          "linnet::distributed_trainer: an option that ranks compare is a number, a struct with "
          "visit_options(), or has visit_numbers(f), which calls f(number) for each of its own");
      all.visit_numbers([&](auto one) { add_options(one); });
    }
  }
  std::int64_t number() const { return static_cast<std::int64_t>(value >> 1); }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The largest number of values, and the largest place of one, in a message.
inline constexpr index most_in_message = 0x7fffffff;
/// The words of a rank before a call, field by field.
using rank_words = std::array<std::int64_t, 8>;
/// The first rank that says something else than it should, and in which field.
struct rank_difference {
  index rank = -1, field = 0;
  std::int64_t expected = 0, got = 0;
};

}  // namespace detail

/// The processes that train one model together. MPI has to be initialised before, by MPI_Init or
/// MPI_Init_thread, and not finalised while one is open. After a time-out the processes are out of
/// step: no call does anything then, and a program ends by MPI_Abort.
class communicator {
 public:
  /// Opens a communicator of all processes of `of`, which all call this. `seconds` is how long a
  /// call waits for the others. Errors: errc::invalid (MPI is not initialised, seconds); errc::io
  /// (a process did not answer, an error of MPI).
  static result<communicator> open(MPI_Comm of = MPI_COMM_WORLD, double seconds = 600) LINNET_TRY {
    int initialised = 0, finalised = 0;
    if (MPI_Initialized(&initialised) != MPI_SUCCESS || initialised == 0 ||
        MPI_Finalized(&finalised) != MPI_SUCCESS || finalised != 0)
      return detail::failure(errc::invalid, "communicator::open", "MPI",
                             "MPI_Init before and MPI_Finalize after", "neither or both");
    if (!(seconds > 0 && seconds < 1e9))
      return detail::failure(errc::invalid, "communicator::open", "seconds", "above 0, below 1e9",
                             detail::number_text(seconds));
    communicator opened(seconds);
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Comm made = MPI_COMM_NULL;
    opened.await(MPI_Comm_idup(of, &made, &request), request);
    if (opened.failed_) return opened.error();
    opened.comm_ = made;
    if (MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN) != MPI_SUCCESS ||
        MPI_Comm_rank(made, &opened.rank_) != MPI_SUCCESS ||
        MPI_Comm_size(made, &opened.size_) != MPI_SUCCESS ||
        MPI_Query_thread(&opened.level_) != MPI_SUCCESS)
      return detail::failure(errc::io, "communicator::open", "MPI", "a communicator", "an error");
    opened.said_.resize(static_cast<std::size_t>(opened.size_));
    return opened;
  }
  LINNET_OR_OUT_OF_MEMORY("communicator::open")

  communicator(communicator&& other) noexcept
      : comm_(std::exchange(other.comm_, MPI_COMM_NULL)),
        seconds_(other.seconds_),
        rank_(other.rank_),
        size_(other.size_),
        level_(other.level_),
        failed_(std::exchange(other.failed_, true)),
        late_(other.late_),
        sent_(other.sent_),
        said_(std::move(other.said_)) {}
  communicator& operator=(communicator&& other) noexcept {
    std::swap(comm_, other.comm_);
    std::swap(seconds_, other.seconds_);
    std::swap(rank_, other.rank_);
    std::swap(size_, other.size_);
    std::swap(level_, other.level_);
    std::swap(failed_, other.failed_);
    std::swap(late_, other.late_);
    std::swap(sent_, other.sent_);
    std::swap(said_, other.said_);
    return *this;
  }
  /// Frees it, unless a call has failed: processes that are out of step cannot do so together.
  ~communicator() {
    if (comm_ != MPI_COMM_NULL && !failed_) (void)MPI_Comm_free(&comm_);
  }

  /// This process, from 0.
  index rank() const { return rank_; }
  /// Number of processes.
  index size() const { return size_; }
  /// Whether a call failed; all later ones do nothing.
  bool failed() const { return failed_; }
  /// Why a call failed, as static text; empty if none has.
  std::string_view failure_text() const noexcept {
    if (!failed_) return "";
    return late_ ? "another rank did not answer in time, so it has ended or does something else: "
                   "end all by MPI_Abort and go on from the last checkpoint"
                 : "MPI reported an error: end all by MPI_Abort and go on from the last checkpoint";
  }
  /// The error of a call that failed: errc::io.
  linnet::error error() const {
    return detail::failure(
        errc::io, "communicator", "rank " + std::to_string(rank_),
        "an answer of each rank within " + detail::number_text(seconds_) + " seconds",
        failure_text());
  }

  /// Bytes of values that this process has sent to others in gather(), exchange() and add(), as
  /// they were asked for. Words by which ranks compare their calls are not counted. A sum by MPI
  /// counts what each rank has of the others' shards; how MPI splits that is its own.
  index sent_bytes() const { return sent_; }

  /// Whether this many threads may run beside a thread that calls MPI; with `any`, any of them may
  /// call it.
  bool allows(int threads, bool any) const {
    return threads < 2 || level_ >= (any ? MPI_THREAD_SERIALIZED : MPI_THREAD_FUNNELED);
  }
  /// Tells all ranks `own` and compares what each says with what rank 0 says, but the first `zeros`
  /// fields with 0. False after a failure, as in all calls below.
  bool compare(const detail::rank_words& own, index zeros, detail::rank_difference& unlike) {
    constexpr std::size_t fields = std::tuple_size_v<detail::rank_words>;
    MPI_Request request = MPI_REQUEST_NULL;
    unlike = {};
    if (failed_ || !await(MPI_Iallgather(own.data(), int{fields}, MPI_INT64_T, said_.data(),
                                         int{fields}, MPI_INT64_T, comm_, &request),
                          request))
      return false;
    for (std::size_t field = 0; field < fields; ++field)
      for (index r = 0; r < size(); ++r) {
        const std::int64_t right = static_cast<index>(field) < zeros ? 0 : said_.front()[field];
        const std::int64_t said = said_[static_cast<std::size_t>(r)][field];
        if (said == right) continue;
        unlike = {r, static_cast<index>(field), right, said};
        return true;
      }
    return true;
  }
  /// How many ranks, one behind the other, are on each machine, by the names that MPI has for
  /// machines. It is 1 where machines have other numbers of ranks or do not have them in order; 0
  /// after a failure.
  index ranks_of_machine() {
    char name[MPI_MAX_PROCESSOR_NAME] = {};
    int length = 0;
    failed_ = failed_ || MPI_Get_processor_name(name, &length) != MPI_SUCCESS;
    detail::digest machine;
    for (int i = 0; i < length; ++i) machine.add(static_cast<unsigned char>(name[i]));
    detail::rank_difference unlike;
    if (!compare({machine.number()}, 0, unlike)) return 0;
    const auto machine_of = [&](index rank) { return said_[static_cast<std::size_t>(rank)][0]; };
    index group = 1;
    while (group < size() && machine_of(group) == machine_of(0)) ++group;
    if (size() % group != 0) return 1;
    for (index r = 1; r < size(); ++r)
      if ((machine_of(r) == machine_of(r - 1)) != (r % group != 0)) return 1;
    return group;
  }
  /// Gives each rank the pieces of all others: counts[r] values at begins[r], which rank r has.
  template <class T>
  bool gather(T* all, const int* counts, const int* begins) {
    MPI_Request request = MPI_REQUEST_NULL;
    sent_ += failed_ ? 0 : counts[rank_] * index{sizeof(T)} * (size() - 1);
    return !failed_ && await(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, counts,
                                             begins, type<T>(), comm_, &request),
                             request);
  }
  /// Places of the values that go to, or come from, each rank.
  struct places {
    int* counts;
    int* begins;
  };
  /// Sends from `from` the values of each rank's place, and receives into `to`.
  template <class T>
  bool exchange(const T* from, places sent, T* to, places received) {
    MPI_Request request = MPI_REQUEST_NULL;
    count_others<T>(sent.counts);
    return !failed_ &&
           await(MPI_Ialltoallv(from, sent.counts, sent.begins, type<T>(), to, received.counts,
                                received.begins, type<T>(), comm_, &request),
                 request);
  }
  /// exchange() inside one block, of places that have nothing in common and none for this rank.
  template <class T>
  bool exchange_within(T* block, places sent, places received) {
    // Open MPI takes equal addresses for MPI_IN_PLACE, so these differ by a value.
    for (int r = 0; r < size_; ++r) --received.begins[r];
    const bool fine = exchange(block, sent, block + 1, received);
    for (int r = 0; r < size_; ++r) ++received.begins[r];
    return fine;
  }
  /// Adds the values of all ranks, in MPI's order; counts[r] of the sums go to rank r, into `to`.
  template <class T>
  bool add(const T* from, T* to, const int* counts) {
    MPI_Request request = MPI_REQUEST_NULL;
    count_others<T>(counts);
    return !failed_ &&
           await(MPI_Ireduce_scatter(from, to, counts, type<T>(), MPI_SUM, comm_, &request),
                 request);
  }

 private:
  explicit communicator(double seconds) : seconds_(seconds) {}

  template <class T>
  static MPI_Datatype type() {
    if constexpr (std::is_same_v<T, float>)
      return MPI_FLOAT;
    else if constexpr (std::is_same_v<T, double>)
      return MPI_DOUBLE;
    else if constexpr (std::is_same_v<T, std::int64_t>)
      return MPI_INT64_T;
    else if constexpr (std::is_same_v<T, std::uint16_t>)
      return MPI_UINT16_T;
    else
      return MPI_CHAR;
  }
  /// Counts values for the other ranks.
  template <class T>
  void count_others(const int* counts) {
    for (int r = 0; r < size_; ++r)
      if (r != rank_ && !failed_) sent_ += counts[r] * index{sizeof(T)};
  }
  /// Waits for a call that was begun with this status; false if it failed or was late.
  bool await(int status, MPI_Request& request) {
    const double begun = MPI_Wtime();
    int done = 0;
    while (status == MPI_SUCCESS && done == 0) {
      status = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      if (done == 0 && MPI_Wtime() - begun > seconds_) {
        failed_ = late_ = true;
        return false;
      }
    }
    failed_ = failed_ || status != MPI_SUCCESS;
    return !failed_;
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  double seconds_;
  int rank_ = 0, size_ = 1;
  int level_ = MPI_THREAD_SINGLE;
  bool failed_ = false, late_ = false;
  index sent_ = 0;
  std::vector<detail::rank_words> said_{};
};

LINNET_NAMESPACE_END
/// @file
/// How several processes share a batch and the parameters of a model. A batch has fixed parts,
/// whose gradients are added in one tree. Each rank has a shard of the parameters.

#include <algorithm>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The items [first, second) of `n` that rank `rank` of `ranks` holds.
constexpr std::pair<index, index> items_of(index n, index rank, index ranks) {
  return {n * rank / ranks, n * (rank + 1) / ranks};
}
/// The bytes [first, second) of a block of `size` bytes, which all ranks have, that a rank writes.
constexpr std::pair<index, index> share_of_block(index size, index rank, index ranks) {
  const auto [from, to] = items_of(size / alignment, rank, ranks);
  return {from * alignment, rank + 1 == ranks ? size : to * alignment};
}

/// The rank that holds item `i` of `n`.
constexpr index holder_of(index i, index n, index ranks) {
  index rank = i * ranks / n;
  while (items_of(n, rank, ranks).second <= i) ++rank;
  return rank;
}

/// Where the parts [first, last) of a batch are cut in two: behind the largest power of two that
/// leaves something. The tree of sums does so depend on the number of parts alone.
constexpr index middle_of(index first, index last) {
  index size = 1;
  while (2 * size < last - first) size *= 2;
  return first + size;
}
/// Calls f(first, last) for each largest subtree of the parts [first, last) inside [begin, end).
template <class F>
constexpr void each_subtree(index first, index last, index begin, index end, F&& f) {
  if (last <= begin || end <= first) return;
  if (begin <= first && last <= end) {
    f(first, last);
  } else {
    const index middle = middle_of(first, last);
    each_subtree(first, middle, begin, end, f);
    each_subtree(middle, last, begin, end, f);
  }
}
/// Buffers that the sum of a subtree needs beside that in which each part's gradient is made.
constexpr index buffers_of(index first, index last) {
  if (last - first == 1) return 1;
  const index middle = middle_of(first, last);
  const index behind = last - middle == 1 ? 0 : buffers_of(middle, last);
  return (std::max)(buffers_of(first, middle), 1 + behind);
}
/// Sums that a rank sends, and the buffers that it makes them in: none if it has one part.
struct partial_sums {
  index sums = 0, buffers = 0;
};
constexpr partial_sums partial_sums_of(index parts, index rank, index ranks) {
  const auto [begin, end] = items_of(parts, rank, ranks);
  partial_sums all;
  each_subtree(0, parts, begin, end, [&](index first, index last) {
    all.buffers = (std::max)(all.buffers, all.sums + buffers_of(first, last));
    ++all.sums;
  });
  if (end - begin == 1) all.buffers = 0;
  return all;
}

/// Calls f(chunk, offset, count) for each chunk of at most norm_chunk values of each tensor.
/// Offsets are those in a block of gradients of type T. Returns that block's values, padding
/// included.
template <class M, class T, class F>
constexpr index each_chunk(F&& f) {
  index chunk = 0, offset = 0;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    for (index at = 0; at < info.size(); at += norm_chunk)
      f(chunk++, offset + at, (std::min)(norm_chunk, info.size() - at));
    offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
  });
  return offset;
}
/// Values in a block of gradients.
template <class M, class T>
consteval index values_in_block() {
  return gradients<M, T>::bytes() / static_cast<index>(sizeof(T));
}
/// Number of chunks.
template <class M, class T>
consteval index count_chunks() {
  index n = 0;
  each_chunk<M, T>([&](index, index, index) { ++n; });
  return n;
}

/// Where a rank's shard of the parameters begins, in values and in chunks.
struct shard_place {
  index value = 0, chunk = 0;
};
/// The begin of rank `rank`'s shard: the first chunk that begins in its share of the values. The
/// begin of rank `ranks` is the end of all.
template <class M, class T>
constexpr shard_place shard_begin(index rank, index ranks) {
  const index all = values_in_block<M, T>();
  const index least = (all * rank + ranks - 1) / ranks;
  shard_place found{all, count_chunks<M, T>()};
  each_chunk<M, T>([&](index chunk, index offset, index) {
    if (offset >= least && chunk < found.chunk) found = {offset, chunk};
  });
  return found;
}
/// The shard that rank `rank` adds gradients of, where `group` ranks, one behind the other, share
/// out the optimizer's state; 0 stands for all. The shards of a group's rank and of the ranks with
/// the same place in other groups stand side by side.
constexpr index shard_of_rank(index rank, index ranks, index group) {
  if (group < 1) return rank;
  return rank % group * (ranks / group) + rank / group;
}
/// Values of a rank's shard.
template <class M, class T>
constexpr index shard_values(index rank, index ranks) {
  return shard_begin<M, T>(rank + 1, ranks).value - shard_begin<M, T>(rank, ranks).value;
}
/// The most values that a shard has.
template <class M, class T>
constexpr index largest_shard(index ranks) {
  index most = 0;
  for (index rank = 0; rank < ranks; ++rank)
    most = (std::max)(most, shard_values<M, T>(rank, ranks));
  return most;
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Refuses, on all ranks, work that differs between ranks, or that one of them could not do. The
/// first word is 0 where all is well.
inline result<void> agree_on_work(communicator& ranks, const char* where, const rank_words& own,
                                  const char* const* fields) {
  rank_difference unlike;
  if (!ranks.compare(own, 1, unlike)) return ranks.error();
  if (unlike.rank < 0) return {};
  return failure(errc::mismatch, where,
                 "rank " + std::to_string(unlike.rank) + ": " + fields[unlike.field],
                 std::to_string(unlike.expected), std::to_string(unlike.got));
}
/// Does a rank's own work; false where memory is missing, which the others are told before any of
/// them waits for its results.
template <class Work>
bool had_memory_for(Work&& work) LINNET_TRY {
  work();
  return true;
}
LINNET_WITHOUT_MEMORY(return false)
/// Gives all ranks the values [begin(r), begin(r + 1)) of each rank r; begin(0) is 0. `numbers` has
/// two of each rank, which are set here: nothing is allocated while others wait.
template <class T, class Begin>
result<void> gather_shares(communicator& ranks, const char* where, T* all,
                           std::vector<int>& numbers, Begin&& begin) {
  static_assert(std::is_trivially_copyable_v<T>);
  const index n = ranks.size(), most = most_in_message / index{sizeof(T)};
  if (begin(n) > most)
    return failure(errc::invalid, where, "items", "at most " + std::to_string(most),
                   std::to_string(begin(n)));
  for (index r = 0; r < n; ++r) {
    const auto at = static_cast<std::size_t>(r);
    numbers[at] = static_cast<int>((begin(r + 1) - begin(r)) * index{sizeof(T)});
    numbers[at + static_cast<std::size_t>(n)] = static_cast<int>(begin(r) * index{sizeof(T)});
  }
  if (!ranks.gather(reinterpret_cast<std::byte*>(all), numbers.data(), numbers.data() + n))
    return ranks.error();
  return {};
}

}  // namespace detail

/// Makes results[i] = make(i) for all items, each on one rank, and gives all ranks all of them.
/// Ranks have stretches of items, of equal length but for one. All ranks call this with as many
/// items. Errors, on all ranks: errc::mismatch (another number of items, or no memory for them; the
/// rank is named). Also errc::io (a rank did not answer) and errc::invalid (2 GB of results or
/// more).
template <class T, class Make>
result<void> share_out(communicator& ranks, std::span<T> results, Make&& make) LINNET_TRY {
  static_assert(std::is_trivially_copyable_v<T>,
                "linnet::share_out: results are sent as bytes, so they are trivially copyable");
  static constexpr const char* fields[] = {"", "items", "bytes of a result"};
  const index n = std::ssize(results);
  if (auto alike = detail::agree_on_work(ranks, "share_out", {0, n, index{sizeof(T)}}, fields);
      !alike)
    return alike;
  const auto [first, last] = detail::items_of(n, ranks.rank(), ranks.size());
  std::vector<int> numbers;
  const bool fine = detail::had_memory_for([&, from = first, to = last] {
    numbers.resize(static_cast<std::size_t>(2 * ranks.size()));
    for (index i = from; i < to; ++i) results[static_cast<std::size_t>(i)] = make(i);
  });
  static constexpr const char* after[] = {"items that it had no memory for"};
  const auto done = detail::agree_on_work(ranks, "share_out", {fine ? 0 : 1}, after);
  if (!fine) return detail::out_of_memory("share_out");
  if (!done) return done;
  return detail::gather_shares(ranks, "share_out", results.data(), numbers, [&](index rank) {
    return detail::items_of(n, rank, ranks.size()).first;
  });
}
LINNET_OR_OUT_OF_MEMORY("share_out")

/// Scores a whole text as score_text(paths, …) does, with its bits; each rank scores some of its
/// windows. All ranks call this with scorers of the same weights. Errors, on all ranks: those of
/// score_text(), errc::io (a rank did not answer). Also errc::mismatch, with the number of a rank
/// that has another text, stride or longest sequence, or whose scorer refuses.
template <loglikelihood_scorer P, class Encode>
result<text_score> score_text(communicator& ranks, P& paths, const Encode& encode, token opening,
                              std::string_view text, index stride = 0) LINNET_TRY {
  static constexpr const char* fields[] = {"tokens that it could not score", "tokens",
                                           "digest of the tokens", "longest sequence", "stride"};
  return detail::score_text_by(
      encode, opening, text,
      [&](std::span<const token> tokens, std::span<token_score> scores) -> result<void> {
        const detail::window_plan plan(std::ssize(scores), paths.longest(), stride);
        detail::digest all;
        for (const token t : tokens) all.add(static_cast<std::uint64_t>(t));
        const auto agree = [&](bool fine) {
          return detail::agree_on_work(
              ranks, "score_text",
              {fine ? 0 : 1, std::ssize(tokens), all.number(), plan.longest, plan.stride}, fields);
        };
        if (auto alike = agree(plan.valid()); !plan.valid() && !ranks.failed())
          return detail::text_not_scored(paths, stride);
        else if (!alike)
          return alike;
        const auto windows_before = [&](index rank) {
          return detail::items_of(plan.count(), rank, ranks.size()).first;
        };
        std::vector<int> numbers;
        bool scored = false;
        const bool fine = detail::had_memory_for([&] {
          numbers.resize(static_cast<std::size_t>(2 * ranks.size()));
          scored = detail::score_some_windows(
              paths, tokens, scores, plan,
              {windows_before(ranks.rank()), windows_before(ranks.rank() + 1)});
        });
        const auto done = agree(fine && scored);
        if (!fine) return detail::out_of_memory("score_text");
        if (!scored && !ranks.failed()) return detail::text_not_scored(paths, stride);
        if (!done) return done;
        return detail::gather_shares(ranks, "score_text", scores.data(), numbers, [&](index rank) {
          return plan.scores_before(windows_before(rank));
        });
      });
}
LINNET_OR_OUT_OF_MEMORY("score_text")

LINNET_NAMESPACE_END
/// @file
/// Training on several processes that share each batch. Opt-in, through linnet/mpi.hpp.

#include <optional>

/// @file
/// Digests that ranks compare before they train together, and the counters of a trainer that shares
/// its batches. Knows no MPI.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Reads and sets the counters of a trainer whose gradients come from several processes.
struct counters_of {
  template <class Trainer>
  static training_progress& progress(Trainer& t) {
    return t.progress_;
  }
  /// The packed weights, which a pass may bring layer by layer.
  template <class Trainer>
  static auto& packed(Trainer& t) {
    return t.packed_;
  }
  template <class Trainer>
  static expert_load& experts(Trainer& t) {
    return t.experts_;
  }
  /// Why it does not take a step on a batch.
  template <class Trainer, class Objective>
  static refusal refusal_of(const Trainer& t, const typename Trainer::batch& b, Objective& from) {
    return t.refusal_of(b, from);
  }
  /// Why it does not take a step with the gradients that it has.
  template <class Trainer>
  static refusal refusal_of(const Trainer& t) {
    return t.options_fit() ? refusal::none : refusal::options;
  }
  /// Notes that a batch was refused on this rank or another.
  template <class Trainer>
  static void refuse(Trainer& t, refusal why) {
    t.reason_ = why;
    ++t.refused_;
    t.in_vain();
  }
};

/// Digest of the names and shapes of a model's tensors.
template <class M>
std::int64_t digest_of_tensors() {
  digest d;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    d.add(stream_of(at.str()));
    d.add(static_cast<std::uint64_t>(info.rows));
    d.add(static_cast<std::uint64_t>(info.columns));
  });
  return d.number();
}
/// Digest of limits, options and the instruction-set level with which model M is trained.
template <class M, class Optimizer, class Shared>
std::int64_t digest_of_settings(const limits& l, const Optimizer& optimizer,
                                const training_options& options, const Shared& how) {
  digest d;
  d.add_options(how);
  for (const index limit : {l.batch, l.source, l.target}) d.add(static_cast<std::uint64_t>(limit));
  if constexpr (!is_reproducible<M>)  // others have other bits at each level
    d.add(static_cast<std::uint64_t>(ops::resolve(l.level)));
  if constexpr (has_ranges<Optimizer>) d.add_options(optimizer);
  if constexpr (requires { d.add(optimizer.seed); }) d.add(optimizer.seed);
  d.add_options(options);
  d.add(options.seed);
  return d.number();
}
/// Digest of weights; of an adapter also of its base and of the options that it was made with.
template <class M, class T>
std::int64_t digest_of_numbers(const weights<M, T>& w) {
  digest d;
  if constexpr (requires { w.tree().base.hash(); }) {
    if (w.tree().base.of) d.add(w.tree().base.hash());
    if constexpr (requires { w.tree().base.how; }) d.add_options(w.tree().base.how);
  }
  for (std::size_t i = 0; i < w.block().size(); i += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    __builtin_memcpy(&word, w.block().data() + i, sizeof word);
    d.add(word);
  }
  return d.number();
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Parts of a batch: some of its sequences, without a copy.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Moves a pointer to rows of `width`, unless it is null.
template <class T>
void skip_rows(const T*& rows, index first, index width) {
  if (rows) rows += first * width;
}
/// Sequences [first, first + count) of a batch of any family.
template <class Batch>
Batch part_of_batch(Batch b, index first, index count, bool label_per_sequence = false) {
  b.batch = count;
  if constexpr (requires { b.images; })
    skip_rows(b.images.pixels, first, b.images.height * b.images.width * b.images.channels);
  if constexpr (requires { b.source; }) {
    skip_rows(b.source, first, b.source_length);
    skip_rows(b.source_lengths, first, 1);
  }
  if constexpr (requires { b.target_length; }) {
    skip_rows(b.labels, first, b.target_length);
    if constexpr (requires { b.target_documents; }) {
      skip_rows(b.source_documents, first, b.source_length);
      skip_rows(b.target_documents, first, b.target_length);
    }
  } else {
    static_assert(
        requires { b.tokens, b.labels, b.length; },
        "linnet::distributed_trainer: takes batches with `tokens`, `labels` and `length`, or with "
        "`source`, `labels` and `target_length`");
    skip_rows(b.tokens, first, b.length);
    skip_rows(b.labels, first, label_per_sequence ? 1 : b.length);
    if constexpr (requires { b.prefixes; }) skip_rows(b.prefixes, first, 1);
    if constexpr (requires { b.lengths; }) skip_rows(b.lengths, first, 1);
    if constexpr (requires { b.types; }) skip_rows(b.types, first, b.length);
    if constexpr (requires { b.documents; }) skip_rows(b.documents, first, b.length);
  }
  return b;
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Losses of the parts of a batch, and loads of their experts, gathered over ranks and added in the
/// order of parts. Opt-in, through linnet/mpi.hpp.

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
/// @file
/// Sums of gradients over ranks. Those of the parts of a batch are added in one tree, whatever rank
/// made them. Each rank gets its shard of the sum.

/// @file
/// Numbers of messages in half of the bytes: bfloat16. Knows no MPI.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The code of the bfloat16 next to `x`, of two the even one.
template <class T>
std::uint16_t bf16_message(T x) {
  if constexpr (std::is_same_v<T, float>) {  // as storage::bf16, in a few operations
    std::uint32_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  } else {
    return static_cast<std::uint16_t>(storage::bf16::encode(static_cast<double>(x)));
  }
}
/// The number of a code.
template <class T>
T number_of_bf16(std::uint16_t code) {
  const std::uint32_t bits = std::uint32_t{code} << 16;
  float x = 0;
  __builtin_memcpy(&x, &bits, sizeof x);
  return static_cast<T>(x);
}
/// The bfloat16 next to `x`.
template <class T>
T rounded_to_bf16(T x) {
  return number_of_bf16<T>(bf16_message(x));
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// How gradients of several ranks are added.
enum class reduction {
  fixed_order,  ///< in one tree over the parts of the batch: the same bits for any number of ranks
  mpi           ///< by MPI: other bits for another number of ranks, fewer messages
};

/// How gradients are sent.
enum class gradient_messages {
  as_computed,  ///< all their bits
  bf16          ///< rounded to bfloat16, in half of the bytes; other bits of losses and weights
};

/// How several ranks share a batch.
struct distributed_options {
  index parts =
      8;  ///< equal parts that a batch is cut into: no fewer than ranks. Bits depend on it
  reduction sums = reduction::fixed_order;
  index bucket = 65536;  ///< values of a shard in one message; no bits depend on it
  /// How sums of parts are sent. Each that is added to another is rounded so, wherever it is made:
  /// the bits stay those of any number of ranks.
  gradient_messages gradients = gradient_messages::as_computed;
  /// Ranks, one behind the other, that share out the optimizer's state among them, such as those of
  /// a machine; 0: all. It has to divide their number. No bits depend on it.
  index group = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("parts", self.parts, detail::count(1));
    f("sums", self.sums, detail::one_of(ways));
    f("bucket", self.bucket, detail::count(1));
    f("gradients", self.gradients, detail::one_of(formats));
    f("group", self.group, detail::count(0));
  }

 private:
  static constexpr const char* ways[] = {"fixed_order", "mpi"};
  static constexpr const char* formats[] = {"as_computed", "bf16"};
};

namespace detail {

/// A rank's shard of sums of gradients of type T of model M, where the shards of all ranks are, and
/// the tree over parts.
template <class M, class T>
class shard_sums {
 public:
  static constexpr index values = values_in_block<M, T>();  ///< in a whole block of gradients

  /// This rank's shard of the sum over all batches since clear().
  T* shard() { return shard_; }
  void clear() { std::fill_n(shard_, own(), T(0)); }
  /// Values of this rank's shard, and where it begins in a block of gradients.
  index own() const { return counts()[ranks_->rank()]; }
  index begin() const { return begins()[ranks_->rank()]; }
  int* counts() const { return numbers_; }
  int* begins() const { return numbers_ + ranks_->size(); }
  /// The shards of this rank's group of ranks that stand side by side, this one's among them: those
  /// whose state it has.
  T* state_gradient() { return state_; }
  /// Values of these shards.
  static constexpr index state_values(index rank, index ranks, index group) {
    const index groups = group < 1 ? 1 : ranks / group, first = group < 1 ? rank : rank % group;
    return shard_begin<M, T>((first + 1) * groups, ranks).value -
           shard_begin<M, T>(first * groups, ranks).value;
  }
  /// Notes where the shards are, after place().
  void start(communicator& ranks) {
    ranks_ = &ranks;
    const index n = ranks.size();
    for (index r = 0; r < n; ++r) {
      const index shard = shard_of_rank(r, n, group_);
      counts()[r] = static_cast<int>(shard_values<M, T>(shard, n));
      begins()[r] = static_cast<int>(shard_begin<M, T>(shard, n).value);
    }
    if (group_ > 0) shard_ = state_ + (begin() - begins()[ranks.rank() % group_]);
  }
  /// Gives the ranks with the same place in other groups this one's shard, and gets theirs.
  bool spread() {
    if (group_ < 1 || group_ == ranks_->size()) return true;
    const index n = ranks_->size(), me = ranks_->rank();
    const communicator::places sent{numbers_ + 2 * n, numbers_ + 3 * n};
    const communicator::places got{numbers_ + 4 * n, numbers_ + 5 * n};
    for (index r = 0; r < n; ++r) {
      const bool twin = r != me && r % group_ == me % group_;
      sent.counts[r] = twin ? static_cast<int>(own()) : 0;
      sent.begins[r] = static_cast<int>(shard_ - state_);
      got.counts[r] = twin ? counts()[r] : 0;
      got.begins[r] = twin ? begins()[r] - begins()[me % group_] : 0;
    }
    return ranks_->exchange_within(state_, sent, got);
  }

 protected:
  static_assert(values <= most_in_message,
                "linnet::distributed_trainer: models of fewer than 2^31 parameters");

  static void add_to(T* to, const T* from, index n) {
    for (index i = 0; i < n; ++i) to[i] += from[i];
  }
  /// Adds two sums of the tree, which may have been sent.
  void join(T* to, const T* from, index n) const {
    if (!rounds_) return add_to(to, from, n);
    for (index i = 0; i < n; ++i) to[i] = rounded_to_bf16(to[i]) + rounded_to_bf16(from[i]);
  }
  /// Values of `how.gradients` for messages of buckets: those that go to `ranks` ranks, and all
  /// that come.
  static constexpr index codes(index ranks, index bucket, index received,
                               const distributed_options& how) {
    return how.gradients == gradient_messages::bf16 && ranks > 1 ? ranks * bucket + received : 0;
  }
  /// Places what all ways of adding have.
  constexpr void place_shared(arena& memory, index rank, index ranks, index received,
                              const distributed_options& how) {
    parts_ = how.parts;
    fixed_ = how.sums == reduction::fixed_order;
    group_ = how.group;
    rounds_ = how.gradients == gradient_messages::bf16;
    state_ = memory.take<T>(state_values(rank, ranks, how.group));
    shard_ = state_;
    received_ = memory.take<T>(received);
    coded_count_ = codes(ranks, bucket_, received, how);
    coded_ = memory.take<std::uint16_t>(coded_count_);
  }
  /// Sends sums, bucket by bucket, to their ranks; those of all ranks come into received_.
  bool send(const T* from, communicator::places sent, communicator::places got) {
    if (coded_count_ == 0) return ranks_->exchange(from, sent, received_, got);
    std::uint16_t* const come = coded_ + ranks_->size() * bucket_;
    for (index r = 0; r < ranks_->size(); ++r) {
      for (index i = 0; i < sent.counts[r]; ++i)
        coded_[r * bucket_ + i] = bf16_message(from[sent.begins[r] + i]);
      sent.begins[r] = static_cast<int>(r * bucket_);
    }
    if (!ranks_->exchange(coded_, sent, come, got)) return false;
    for (index r = 0; r < ranks_->size(); ++r)
      for (index i = got.begins[r]; i < got.begins[r] + got.counts[r]; ++i)
        received_[i] = number_of_bf16<T>(come[i]);
    return true;
  }
  /// The sum of the parts [first, last), from of(part) of the sums of single ranks, in their order.
  template <class Of>
  T* fold(index first, index last, index count, Of&& of) const {
    if (holder_of(first, parts_, ranks_->size()) == holder_of(last - 1, parts_, ranks_->size()))
      return of(first);
    const index middle = middle_of(first, last);
    T* const left = fold(first, middle, count, of);
    join(left, fold(middle, last, count, of), count);
    return left;
  }

  communicator* ranks_ = nullptr;
  T *state_ = nullptr, *shard_ = nullptr, *received_ = nullptr;
  std::uint16_t* coded_ = nullptr;  ///< values that go; behind them those that come
  int* numbers_ = nullptr;  ///< counts and begins of shards, of what is sent and of what is got
  index parts_ = 1, bucket_ = 0, group_ = 0, coded_count_ = 0;
  bool fixed_ = true, rounds_ = false;
};

/// Memory and messages with which a rank adds gradients of type T of model M.
template <class M, class T>
class gradient_sums : public shard_sums<M, T> {
  using base = shard_sums<M, T>;
  using base::add_to;
  using base::bucket_, base::fixed_, base::join, base::numbers_, base::parts_, base::ranks_,
      base::received_, base::shard_;

 public:
  using base::begins, base::counts, base::own, base::values;

  /// Values of all sums that a rank receives at a time: a bucket of each.
  static constexpr index received_values(index rank, index ranks, const distributed_options& how) {
    if (how.sums != reduction::fixed_order)
      return shard_values<M, T>(shard_of_rank(rank, ranks, how.group), ranks);
    index sums = 0;
    for (index r = 0; r < ranks; ++r) sums += partial_sums_of(how.parts, r, ranks).sums;
    return sums * bucket_values(ranks, how);
  }
  /// Places the buffers of a rank in `memory`, or counts them.
  static constexpr gradient_sums place(arena& memory, index rank, index ranks,
                                       const distributed_options& how) {
    gradient_sums g;
    const bool fixed = how.sums == reduction::fixed_order;
    const index received = received_values(rank, ranks, how);
    g.bucket_ = fixed ? bucket_values(ranks, how) : received;
    const index buffers = fixed ? partial_sums_of(how.parts, rank, ranks).buffers : 0;
    g.place_shared(memory, rank, ranks, received, how);
    g.partial_ = memory.take<T>(buffers * values);
    g.numbers_ = memory.take<int>(6 * ranks);
    return g;
  }
  /// Adds the gradients of a batch to the shards of all ranks. make(i) adds that of part `i` to
  /// `of`, a whole block. It is zero before and after. False if a message failed.
  template <class Make>
  bool add(gradients<M, T>& of, Make&& make) {
    T* const gradient = static_cast<T*>(of.data());
    const auto [first, last] = items_of(parts_, ranks_->rank(), ranks_->size());
    const auto clear = [&] { std::fill_n(gradient, values, T(0)); };
    bool fine = false;
    if (!fixed_) {
      for (index i = first; i < last; ++i) make(i);
      fine = ranks_->add(gradient, received_, counts());
      if (fine) add_to(shard_, received_, own());
    } else {
      // One part needs no buffer but the gradient itself.
      if (last - first == 1) make(first);
      index next = 0;
      if (last - first > 1)
        each_subtree(0, parts_, first, last, [&](index from, index to) {
          sum(from, to, partial_ + next++ * values, gradient, make);
        });
      fine = share(last - first == 1 ? gradient : partial_);
    }
    clear();
    return fine;
  }

 private:
  static constexpr index bucket_values(index ranks, const distributed_options& how) {
    return (std::min)(how.bucket, largest_shard<M, T>(ranks));
  }
  static int number(index n) { return static_cast<int>(n); }
  /// to = the sum of the parts [first, last).
  template <class Make>
  void sum(index first, index last, T* to, T* gradient, Make& make) {
    if (last - first == 1) {
      make(first);
      std::copy_n(gradient, values, to);
      std::fill_n(gradient, values, T(0));
      return;
    }
    const index middle = middle_of(first, last);
    sum(first, middle, to, gradient, make);
    if (last - middle == 1) {
      make(middle);
      join(to, gradient, values);
      std::fill_n(gradient, values, T(0));
    } else {
      sum(middle, last, to + values, gradient, make);
      join(to, to + values, values);
    }
  }
  /// Sends this rank's sums to the holders of the shards, bucket by bucket, and adds what it gets.
  bool share(const T* sums) {
    const index n = ranks_->size(), largest = largest_shard<M, T>(n);
    const communicator::places sent{numbers_ + 2 * n, numbers_ + 3 * n};
    const communicator::places got{numbers_ + 4 * n, numbers_ + 5 * n};
    const auto count = [&](index rank, index at) {
      return number((std::clamp)(counts()[rank] - at, index{0}, bucket_));
    };
    const auto sums_of = [&](index rank) { return partial_sums_of(parts_, rank, n).sums; };
    index most = 0;
    for (index r = 0; r < n; ++r) most = (std::max)(most, sums_of(r));
    for (index at = 0; at < largest; at += bucket_) {
      for (index i = 0; i < most; ++i) {
        index place = 0;
        for (index r = 0; r < n; ++r) {
          sent.counts[r] = i < sums_of(ranks_->rank()) ? count(r, at) : 0;
          sent.begins[r] = sent.counts[r] > 0 ? number(begins()[r] + at) : 0;
          got.counts[r] = i < sums_of(r) ? count(ranks_->rank(), at) : 0;
          got.begins[r] = got.counts[r] > 0 ? number((place + i) * bucket_) : 0;
          place += sums_of(r);
        }
        const index before = i < sums_of(ranks_->rank()) ? i * values : 0;
        if (!this->send(sums + before, sent, got)) return false;
      }
      index next = 0;
      if (const index own_count = count(ranks_->rank(), at); own_count > 0)
        add_to(
            shard_ + at,
            this->fold(0, parts_, own_count, [&](index) { return received_ + next++ * bucket_; }),
            own_count);
    }
    return true;
  }
  T* partial_ = nullptr;
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Optimizers whose state is shared out over ranks: each keeps the moments of its shard, moves that
/// and gets the others' weights (ZeRO-1; Rajbhandari et al. 2020, section 5.1). Its gradients may
/// be given away while they are made (ZeRO-2), and weights of layers be fetched when they are
/// needed (ZeRO-3).

#include <limits>

/// @file
/// Gradients that are given away while they are made: those of one layer at a time, and those of
/// what is in no layer (ZeRO-2; Rajbhandari et al. 2020, section 5.2). Knows no MPI.

/// @file
/// The models and optimizers that several processes train together, and the state that they share
/// out. Knows no MPI.

LINNET_NAMESPACE_BEGIN

/// Stage of sharing of a distributed_trainer (Rajbhandari et al. 2020). Beside the weights each
/// rank has all of its state (0), or the optimizer's state of its shard of the parameters (1). With
/// 2 it also has the gradients of its shard alone. With 3 it also has the
/// weights of its shard alone, beside tensors outside of layers. It gets those of a layer before
/// its forward and its backward.
template <int Stage>
struct zero {
  static_assert(Stage >= 0 && Stage <= 3, "linnet::zero: stages are 0 to 3");
  static constexpr int stage = Stage;
};

namespace detail {

/// Whether a model has tensors that follow averages of rows, which shards may cut.
template <class M>
consteval bool has_averages() {
  bool any = false;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    any = any || info.kind == role::moving_average;
  });
  return any;
}
/// The layer of a stack that a parameter belongs to: the outermost number on its path, and a digest
/// of the names before it. Its number is -1 outside of layers.
struct layer_of_path {
  index number = -1;
  std::uint64_t names = 0;

  constexpr explicit layer_of_path(const parameter_path& at) {
    const parameter_path* outermost = nullptr;
    for (const parameter_path* p = &at; p; p = p->parent)
      if (p->count > 0) outermost = p;
    if (!outermost) return;
    number = outermost->number;
    for (const parameter_path* p = outermost->parent; p; p = p->parent)
      for (const char c : p->name) names = (names ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
};
/// Layers of a stack of one type, each with parameters of its own; 0 of other stacks.
template <class Stack>
inline constexpr index own_layers = 0;
template <class Layer, index N, index First, index All>
inline constexpr index
    own_layers<repeat<Layer, N, First, All, own_parameters<Layer, N, First, All>>> = N;
/// Whether all parameters of layers are those of such stacks, whose backward tells when it has the
/// gradients of a layer.
template <class M>
consteval bool has_own_layers() {
  index layers = 0, own = 0, number = -1;
  std::uint64_t names = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info&) {
    const layer_of_path layer(at);
    layers += layer.number >= 0 && (layer.number != number || layer.names != names);
    number = layer.number;
    names = layer.names;
  });
  if constexpr (requires {
                  typename M::encoder::blocks;
                  typename M::decoder::blocks;
                })
    own = own_layers<typename M::encoder::blocks> + own_layers<typename M::decoder::blocks>;
  else if constexpr (requires { typename M::body::blocks; })
    own = own_layers<typename M::body::blocks>;
  else if constexpr (requires { typename M::blocks; })
    own = own_layers<typename M::blocks>;
  return own > 0 && own == layers;
}
/// The class that declares a member function.
template <class Class, class... A>
Class owner_of_member(void (Class::*)(A...) const);
/// Optimizers that move each value by its own gradient and moments, so that shards may end
/// anywhere. One that inherits move() may do more in its update(), such as bf16_rounded.
template <class Optimizer>
inline constexpr bool moves_values = requires {
  typename Optimizer::template averaged<float>;
  requires std::is_same_v<decltype(owner_of_member(&Optimizer::template move<float>)), Optimizer>;
};

/// Refuses what several processes cannot train together.
template <class M, class Optimizer, class Zero, class Compute>
consteval bool check_distributed() {
  static_assert(std::is_same_v<Compute, compute::f32> || std::is_same_v<Compute, compute::bf16>,
                "linnet::distributed_trainer: computes in compute::f32 or compute::bf16; others "
                "scale by what each rank alone has seen");
  static_assert(!estimates_curvature<Optimizer>,
                "linnet::distributed_trainer: takes optimizers without curvature, such as adamw");
  static_assert(
      Zero::stage == 0 || moves_values<Optimizer>,
      "linnet::distributed_trainer: zero<1> to zero<3> take adamw, which moves each value "
      "alone; take zero<0> for other optimizers");
  static_assert(
      Zero::stage == 0 || !has_averages<M>(),
      "linnet::distributed_trainer: zero<1> to zero<3> take no tensors that follow averages, "
      "as those of attention::routing; take zero<0>");
  if constexpr (Zero::stage >= 2)
    static_assert(
        has_own_layers<M>(),
        "linnet::distributed_trainer: zero<2> and zero<3> give gradients away layer by layer, so "
        "they take models whose blocks are of one type and share no parameters, and adapters of "
        "these with parameters in each block; take zero<1>");
  static_assert(Zero::stage < 3 || std::is_same_v<Compute, compute::f32>,
                "linnet::distributed_trainer: zero<3> computes in compute::f32; take zero<2> for "
                "compute::bf16");
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Values [begin, end) of a block of gradients: of layer `layer` of a stack, or of tensors outside
/// of layers, where it is -1.
struct gradient_unit {
  index begin = 0, end = 0, layer = -1;
  constexpr index size() const { return end - begin; }
  constexpr bool in_layer() const { return layer >= 0; }
};
/// Calls f(unit) for the units of model M, in canonical order; a block of gradients is made of
/// them. Tensors side by side outside of layers are one.
template <class M, class T, class F>
constexpr void each_gradient_unit(F&& f) {
  gradient_unit now;
  std::uint64_t names = 0;
  index offset = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    const layer_of_path layer(at);
    if (layer.number != now.layer || layer.names != names) {
      now.end = offset;
      if (now.size() > 0) f(now);
      now = {offset, offset, layer.number};
      names = layer.names;
    }
    offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
  });
  now.end = offset;
  if (now.size() > 0) f(now);
}
/// Number of units.
template <class M, class T>
consteval std::size_t count_gradient_units() {
  std::size_t n = 0;
  each_gradient_unit<M, T>([&](const gradient_unit&) { ++n; });
  return n;
}
/// All units.
template <class M, class T>
consteval auto gradient_units() {
  std::array<gradient_unit, count_gradient_units<M, T>()> all{};
  std::size_t n = 0;
  each_gradient_unit<M, T>([&](const gradient_unit& one) { all[n++] = one; });
  return all;
}

/// Memory for the gradients of one layer of model M, which all its layers use by turns, and for
/// those of tensors outside of layers. The tree of a model's gradients points into it.
template <class M, class T>
class unit_gradients {
 public:
  using tree_type = typename M::template params<form::gradient<T>>;
  static constexpr auto units = gradient_units<M, T>();
  /// Values of the largest unit.
  static constexpr index largest = [] {
    index most = 0;
    for (const gradient_unit& one : units) most = (std::max)(most, one.size());
    return most;
  }();

  /// Size of the memory in bytes.
  static constexpr index bytes() { return values * static_cast<index>(sizeof(T)); }
  /// Allocates the memory, all zero; valid() tells whether it was there.
  unit_gradients() : memory_(bytes()) {
    if (!valid()) return;
    std::size_t unit = 0;
    index offset = 0;
    const auto place = [&](const parameter_path&, const tensor_info& info, T*& leaf) {
      while (offset >= units[unit].end) ++unit;
      leaf = of(unit) + (offset - units[unit].begin);
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    };
    each_leaf(place, tree_of<M, form::gradient<T>>{tree_});
  }
  bool valid() const { return memory_.data() != nullptr; }
  tree_type& tree() { return tree_; }
  /// The memory as bytes.
  std::span<std::byte> block() const {
    return {static_cast<std::byte*>(memory_.data()), static_cast<std::size_t>(bytes())};
  }
  /// The gradients of unit number `i`; those of a layer are another's a moment later.
  T* of(std::size_t i) const { return static_cast<T*>(memory_.data()) + places[i]; }

  const ops::gradient_tap* tap = nullptr;  ///< is told when a layer has its gradients

  static constexpr index of_a_layer = [] {
    index most = 0;
    for (const gradient_unit& one : units)
      if (one.in_layer()) most = (std::max)(most, one.size());
    return most;
  }();
  /// Where units begin: layers at 0, the others behind the largest layer. The last is the end.
  static constexpr std::array<index, units.size() + 1> places = [] {
    std::array<index, units.size() + 1> all{};
    index next = of_a_layer;
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) {
        all[i] = next;
        next += units[i].size();
      }
    all.back() = next;
    return all;
  }();
  static constexpr index values = places.back();

 private:
  memory_block memory_;
  tree_type tree_{};
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Weights that ranks share out (ZeRO-3; Rajbhandari et al. 2020, section 5.3). Those of one layer
/// at a time are fetched and packed, before its forward and its backward. Tensors in no layer are
/// kept. Opt-in, through linnet/mpi.hpp.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A rank's shard of the weights of model M, and those outside of layers. Weights of one layer have
/// memory that all layers use by turns. The tree of a model's weights points into it.
template <class M, class T>
class unit_weights {
  using units_of = unit_gradients<M, T>;
  using held_form = linnet::form::canonical<T, storage_of<M, T>>;
  static constexpr auto& units = units_of::units;

 public:
  using tree_type = typename M::template params<held_form>;
  /// Places the weights of a rank in `memory`, or counts them; null then.
  static constexpr unit_weights* place(arena& memory, index rank, index ranks, index group) {
    unit_weights w;
    w.group_ = group < 1 ? ranks : group;
    const index each = ranks / w.group_, first = rank % w.group_ * each;
    w.begin_ = shard_begin<M, T>(first, ranks).value;
    w.end_ = shard_begin<M, T>(first + each, ranks).value;
    w.shard_ = memory.take<T>(w.end_ - w.begin_);
    w.fetched_ = memory.take<T>(units_of::values);
    w.numbers_ = memory.take<int>(6 * ranks);
    unit_weights* const at = memory.take<unit_weights>(1);
    if (at) *at = w;
    return at;
  }
  /// Takes this rank's shard of whole weights, and what is outside of layers. It talks to no one.
  void start(communicator& ranks, const weights<M, T>& of_all) {
    const auto* const whole = static_cast<const T*>(of_all.data());
    share_base(of_all.tree(), tree_);
    ranks_ = &ranks;
    const index n = ranks.size(), each = n / group_;
    for (index r = 0; r < n; ++r) {
      numbers_[4 * n + r] = static_cast<int>(shard_begin<M, T>(r % group_ * each, n).value);
      numbers_[5 * n + r] = static_cast<int>(shard_begin<M, T>((r % group_ + 1) * each, n).value);
    }
    std::copy_n(whole + begin_, end_ - begin_, shard_);
    std::fill_n(fetched_, units_of::values, T(0));
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) std::copy_n(whole + units[i].begin, units[i].size(), of(i));
    std::size_t unit = 0;
    index offset = 0;
    const auto put = [&](const parameter_path&, const tensor_info& info, auto& leaf) {
      while (offset >= units[unit].end) ++unit;
      T* const values = of(unit) + (offset - units[unit].begin);
      if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
        leaf = values;
      else
        leaf.data = values;
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    };
    each_leaf(put, tree_of<M, held_form>{tree_});
  }
  static constexpr bool valid() { return true; }
  linnet::error error() const { return ranks_->error(); }
  tree_type& tree() { return tree_; }
  const tree_type& tree() const { return tree_; }
  /// Calls f(path, info, leaf) for each tensor; those of all layers are one layer's.
  template <class F>
  void visit(F&& f) const {
    each_leaf(f, tree_of<M, held_form, true>{const_cast<tree_type&>(tree_)});
  }
  /// Values [begin, end) of a block of weights, the shard.
  T* shard() const { return shard_; }
  /// The shard as bytes.
  std::span<std::byte> block() const {
    return std::as_writable_bytes(std::span(shard_, static_cast<std::size_t>(end_ - begin_)));
  }

  /// Begins a forward pass.
  void begin_pass() { next_ = 0; }
  /// Gets the weights of the next layer of a forward pass, or of its backward. All ranks call this
  /// for the same layers. False if a message failed.
  bool fetch_layer(bool backward) {
    if (backward) {
      while (next_ > 0 && !units[--next_].in_layer()) {
      }
      now_ = next_;
    } else {
      while (next_ + 1 < units.size() && !units[next_].in_layer()) ++next_;
      now_ = next_++;
    }
    return fetch(now_);
  }
  /// The unit that fetch_layer() got last.
  std::size_t now() const { return now_; }
  /// Gets the weights of all layers of a forward pass.
  void fetch_forward() {
    for (std::size_t i = 0; i < units.size(); ++i)
      if (units[i].in_layer()) (void)fetch(i);
  }
  /// Gets the weights of unit number `i`. False if a message failed.
  bool fetch(std::size_t i) { return fetch(units[i].begin, units[i].end, of(i)); }
  /// Gets the weights outside of layers. False if a message failed.
  bool fetch_outside() {
    bool fine = true;
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) fine = fine && fetch(i);
    return fine;
  }
  /// Gets the values [first, last) of a block of weights, into `to`. False if a message failed.
  bool fetch(index first, index last, T* to) {
    const index n = ranks_->size(), me = ranks_->rank();
    const communicator::places sent{numbers_, numbers_ + n};
    const communicator::places got{numbers_ + 2 * n, numbers_ + 3 * n};
    const index own_first = (std::max)(first, begin_);
    const index own = (std::max)((std::min)(last, end_) - own_first, index{0});
    for (index r = 0; r < n; ++r) {
      const bool beside = r != me && r / group_ == me / group_;
      const index from = (std::max)(first, index{numbers_[4 * n + r]});
      const index stop = (std::min)(last, index{numbers_[5 * n + r]});
      const index count = beside ? (std::max)(stop - from, index{0}) : 0;
      sent.counts[r] = static_cast<int>(beside ? own : 0);
      sent.begins[r] = static_cast<int>(beside && own > 0 ? own_first - begin_ : 0);
      got.counts[r] = static_cast<int>(count);
      got.begins[r] = static_cast<int>(count > 0 ? from - first : 0);
    }
    if (own > 0) std::copy_n(shard_ + (own_first - begin_), own, to + (own_first - first));
    return ranks_->exchange(shard_, sent, to, got);
  }

 private:
  T* of(std::size_t i) const { return fetched_ + units_of::places[i]; }

  communicator* ranks_ = nullptr;
  T* shard_ = nullptr;
  T* fetched_ = nullptr;    ///< of the layer, and of what is outside of layers
  int* numbers_ = nullptr;  ///< places of what goes and comes; where shards begin and end
  index begin_ = 0, end_ = 0, group_ = 1;
  std::size_t next_ = 0, now_ = 0;  ///< units
  tree_type tree_{};
};

/// The packed form of the weights of one layer of model M, in memory that all layers use by turns.
/// Also that of tensors outside of layers.
template <class M, class T, class S>
class unit_packed {
  using held_form = linnet::form::packed<T, S>;
  static constexpr auto units = gradient_units<M, T>();

 public:
  using tree_type = typename M::template params<held_form>;

  /// Size of the memory in bytes.
  static constexpr index bytes() { return of_a_layer() + outside(); }
  /// Allocates the memory, all zero; valid() tells whether it was there.
  unit_packed() : memory_(bytes()) {
    if (!valid()) return;
    auto* const block = static_cast<std::byte*>(memory_.data());
    placing all{arena(block, of_a_layer()), arena(block + of_a_layer(), outside())};
    each_leaf(all, tree_of<M, held_form>{tree_});
  }
  bool valid() const { return memory_.data() != nullptr; }
  tree_type& tree() { return tree_; }
  const tree_type& tree() const { return tree_; }
  /// Points packed matrices to the rows of `w`, which backward reads.
  void attach(const unit_weights<M, T>& w) {
    const attaches_leaves attach_one{};
    each_leaf(attach_one, tree_of<M, held_form>{tree_}, tree_in(w));
  }
  /// Packs what is outside of layers. Called by every thread.
  void pack_held(const ops::execution& on, const unit_weights<M, T>& w) {
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) pack(on, i, w);
  }
  /// Packs unit number `i`. Called by every thread.
  void pack(const ops::execution& on, std::size_t i, const unit_weights<M, T>& w) {
    packs_unit one{on, units[i]};
    each_leaf(one, tree_of<M, held_form>{tree_}, tree_in(w));
  }

  const ops::weight_tap* tap = nullptr;  ///< brings the weights of layers

 private:
  using canonical = linnet::form::canonical<T, storage_of<M, T>>;
  static tree_of<M, canonical, true> tree_in(const unit_weights<M, T>& w) {
    return {const_cast<typename unit_weights<M, T>::tree_type&>(w.tree())};
  }

  /// Gives each tensor its memory: those of layers by turns the same.
  struct placing {
    arena layer{}, outside{};
    index offset = 0;
    std::size_t unit = 0;

    template <class Leaf>
    constexpr void operator()(const parameter_path& at, const tensor_info& info, Leaf& leaf) {
      while (offset >= units[unit].end) ++unit;
      if (offset == units[unit].begin) layer.release(0);
      places_leaves{units[unit].in_layer() ? layer : outside}(at, info, leaf);
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    }
  };
  static constexpr placing counted() {
    placing all;
    tree_type tree{};
    each_leaf(all, tree_of<M, held_form>{tree});
    return all;
  }
  static constexpr index of_a_layer() { return counted().layer.peak(); }
  static constexpr index outside() { return counted().outside.peak(); }

  /// Packs the tensors of one unit.
  struct packs_unit {
    const ops::execution& on;
    gradient_unit unit;
    index offset = 0;

    template <class To, class From>
    void operator()(const parameter_path& at, const tensor_info& info, To& to, From& from) {
      if (offset >= unit.begin && offset < unit.end) packs_leaves{on}(at, info, to, from);
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    }
  };

  memory_block memory_;
  tree_type tree_{};
};

/// Brings the weights of layers to a trainer while it makes forward and backward passes.
template <class M, class T, class S>
class brings_weights {
 public:
  brings_weights(unit_weights<M, T>& from, unit_packed<M, T, S>& to) : from_(from), to_(to) {
    to_.tap = &tap_;
  }
  brings_weights(const brings_weights&) = delete;
  brings_weights& operator=(const brings_weights&) = delete;
  ~brings_weights() { to_.tap = nullptr; }

  /// Begins a pass on this rank.
  void begin() { from_.begin_pass(); }
  /// For a rank without a part, see unit_sums::add().
  void forward() { from_.fetch_forward(); }
  void backward(std::size_t unit) { (void)from_.fetch(unit); }

 private:
  static void bring(void* self, const ops::execution& on, index, bool backward) {
    auto& me = *static_cast<brings_weights*>(self);
    on.threads.wait();
    on.threads.once([&] { (void)me.from_.fetch_layer(backward); });
    me.to_.pack(on, me.from_.now(), me.from_);
    on.threads.wait();
  }

  unit_weights<M, T>& from_;
  unit_packed<M, T, S>& to_;
  ops::weight_tap tap_{this, &bring};
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The memory of one rank for the moments of its shard, and its place.
template <class M, class T>
struct shard_memory {
  communicator* ranks = nullptr;
  T *first = nullptr, *second = nullptr;  ///< [end - begin]
  const T* gradient = nullptr;            ///< [end - begin]
  double* squares = nullptr;              ///< [chunks of all ranks]
  int* numbers = nullptr;    ///< places of squares of each rank; places of values that go and come
  index begin = 0, end = 0;  ///< values whose state it has: its shard, or several
  index own_begin = 0, own_end = 0;  ///< of its shard
  index group = 0;

  static constexpr shard_memory place(arena& memory, index rank, index ranks, index group = 0) {
    shard_memory s;
    s.group = group < 1 ? ranks : group;
    const index shard = shard_of_rank(rank, ranks, s.group), each = ranks / s.group;
    s.begin = shard_begin<M, T>(rank % s.group * each, ranks).value;
    s.end = shard_begin<M, T>((rank % s.group + 1) * each, ranks).value;
    s.own_begin = shard_begin<M, T>(shard, ranks).value;
    s.own_end = shard_begin<M, T>(shard + 1, ranks).value;
    s.first = memory.take<T>(s.end - s.begin);
    s.second = memory.take<T>(s.end - s.begin);
    s.squares = memory.take<double>(count_chunks<M, T>());
    s.numbers = memory.take<int>(6 * ranks);
    return s;
  }
  /// `own` are the gradients [begin, end).
  void start(communicator& all, const T* own) {
    ranks = &all;
    gradient = own;
    const index n = all.size(), each = n / group;
    for (index r = 0; r < n; ++r) {
      const index shard = shard_of_rank(r, n, group);
      const shard_place from = shard_begin<M, T>(shard, n), to = shard_begin<M, T>(shard + 1, n);
      numbers[r] = static_cast<int>(to.chunk - from.chunk);
      numbers[n + r] = static_cast<int>(from.chunk);
      // Weights go to the ranks of the group alone, as other groups have moved them, too.
      const bool beside = r != all.rank() && r / group == all.rank() / group;
      const index theirs = shard_begin<M, T>(r % group * each, n).value;
      numbers[2 * n + r] = beside ? static_cast<int>(end - begin) : 0;
      numbers[3 * n + r] = static_cast<int>(begin);
      numbers[4 * n + r] =
          beside ? static_cast<int>(shard_begin<M, T>((r % group + 1) * each, n).value - theirs)
                 : 0;
      numbers[5 * n + r] = static_cast<int>(theirs);
    }
  }
};

/// `Optimizer` on one rank's shard of model M. It keeps no state of its own, as the memory of a
/// trainer does not depend on the number of ranks.
template <class M, class T, class Optimizer, int Stage = 1>
struct sharded {
  static_assert(weights<M, T>::bytes() == gradients<M, T>::bytes());

  Optimizer by{};
  shard_memory<M, T> memory{};

  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    Optimizer::visit_options(self.by, f);
  }
  static constexpr std::string_view name() { return Optimizer::name(); }

  template <class, class>
  struct state {
    static constexpr index bytes() { return 0; }
    static constexpr bool valid() { return true; }
  };

  /// The gradients that a trainer keeps: a block of all, or memory of one layer's.
  template <class, class>
  using gradient_block =
      std::conditional_t<Stage >= 2, unit_gradients<M, T>, linnet::gradients<M, T>>;

  /// Sum of squares of all gradients, from chunks and in the order of sum_of_squares(). It is NaN
  /// after a failure of messages, so that no step follows.
  template <class Gradients>
  double sum_of_squares(const ops::execution& on, const Gradients&) const {
    each_chunk<M, T>([&](index chunk, index at, index count) {
      if (at < memory.own_begin || at >= memory.own_end) return;
      if (chunk % on.threads.size() != on.threads.rank()) return;
      on.with_kernels([&](auto k) {
        const T* const values = memory.gradient + (at - memory.begin);
        memory.squares[chunk] =
            static_cast<double>(decltype(k)::template dot<T>(count, values, values));
      });
    });
    on.threads.wait();
    on.threads.once([&] {
      const index n = memory.ranks->size();
      (void)memory.ranks->gather(memory.squares, memory.numbers, memory.numbers + n);
    });
    double sum = 0;
    for (index c = 0; c < count_chunks<M, T>(); ++c) sum += memory.squares[c];
    if (memory.ranks->failed()) sum = std::numeric_limits<double>::quiet_NaN();
    on.threads.wait();
    return sum;
  }
  /// Moves the values of the shard and gets the others'. If these do not come, some of `w` has
  /// moved and some has not: a run goes on from its last checkpoint.
  template <class Gradients>
  void update(const ops::execution& on, index t, double gradient_scale, const Gradients&,
              state<M, T>&, weights<M, T>& w) const {
    move_shard(on, t, gradient_scale, static_cast<T*>(w.data()) + memory.begin);
    on.threads.once([&] {
      const index n = memory.ranks->size();
      (void)memory.ranks->exchange_within(static_cast<T*>(w.data()),
                                          {memory.numbers + 2 * n, memory.numbers + 3 * n},
                                          {memory.numbers + 4 * n, memory.numbers + 5 * n});
    });
  }

 protected:
  /// Moves the values [begin, end) of a block of weights, tensor by tensor.
  void move_shard(const ops::execution& on, index t, double gradient_scale, T* values) const {
    index at = 0;
    each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
      const index from = (std::max)(memory.begin, at);
      const index to = (std::min)(memory.end, at + info.size());
      at += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
      if (from >= to) return;
      const index i = from - memory.begin;
      by.move(on, t, gradient_scale, info.decays(), to - from,
              typename Optimizer::template averaged<T>{memory.gradient + i, memory.first + i,
                                                       memory.second + i},
              values + i);
    });
  }
};

/// A sharded optimizer with weights of layers that are fetched when they are needed, see
/// unit_weights.
template <class M, class T, class Optimizer>
struct sharded_weights : sharded<M, T, Optimizer, 3> {
  using base = sharded<M, T, Optimizer, 3>;

  template <class, class>
  using weight_block = unit_weights<M, T>;
  template <class, class, class S>
  using packed_block = unit_packed<M, T, S>;

  /// Moves the values of the shard and gets those outside of layers.
  template <class Gradients>
  void update(const ops::execution& on, index t, double gradient_scale, const Gradients&,
              typename base::template state<M, T>&, unit_weights<M, T>& w) const {
    this->move_shard(on, t, gradient_scale, w.shard());
    on.threads.once([&] { (void)w.fetch_outside(); });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Sums of gradients over ranks that are made while backward runs. Each layer's gradients are sent
/// to the ranks that hold its shards as soon as they are there. The sums are those of
/// gradient_sums.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// How many sums of the tree over `parts` parts end with part `part` and begin at `begin` or later.
/// So often it is added to what waits.
constexpr index sums_that_end(index parts, index begin, index part) {
  index first = 0, last = parts, n = 0;
  while (last - first > 1) {
    n += last == part + 1 && first >= begin;
    const index middle = middle_of(first, last);
    (part < middle ? last : first) = middle;
  }
  return n;
}
/// Sums that wait when a rank whose parts begin at `begin` is to make part `part`.
constexpr index sums_that_wait(index parts, index begin, index part) {
  index n = 0;
  for (index p = begin; p < part; ++p) n += 1 - sums_that_end(parts, begin, p);
  return n;
}
/// The most sums of one rank that wait.
constexpr index most_waiting(index parts, index rank, index ranks) {
  const auto [begin, end] = items_of(parts, rank, ranks);
  index n = 0, most = 0;
  for (index p = begin; p < end; ++p) {
    n += 1 - sums_that_end(parts, begin, p);
    most = (std::max)(most, n);
  }
  return most;
}

/// A rank without a part does nothing beside its messages, where others go through layers.
struct idles {
  void forward() const {}
  void backward(std::size_t) const {}
};

/// Memory and messages with which a rank adds gradients of type T of model M, unit by unit.
template <class M, class T>
class unit_sums : public shard_sums<M, T> {
  using block = unit_gradients<M, T>;
  using base = shard_sums<M, T>;
  using base::add_to;
  using base::bucket_, base::fixed_, base::join, base::numbers_, base::parts_, base::ranks_,
      base::received_, base::shard_;

 public:
  using base::begin, base::begins, base::counts, base::own;

  /// Values that a rank receives at a time: a bucket of each rank, or its shard of a unit.
  static constexpr index received_values(index, index ranks, const distributed_options& how) {
    const index most = (std::min)(block::largest, largest_shard<M, T>(ranks));
    return how.sums == reduction::fixed_order ? ranks * (std::min)(how.bucket, most) : most;
  }
  /// Values of the shards of sums that wait: none where each rank has one part.
  static constexpr index waiting_values(index rank, index ranks, const distributed_options& how) {
    if (how.sums != reduction::fixed_order || how.parts == ranks) return 0;
    index n = 0;
    for (index r = 0; r < ranks; ++r) n += most_waiting(how.parts, r, ranks);
    return n * shard_values<M, T>(shard_of_rank(rank, ranks, how.group), ranks);
  }
  /// Places the buffers of a rank in `memory`, or counts them.
  static constexpr unit_sums place(arena& memory, index rank, index ranks,
                                   const distributed_options& how) {
    unit_sums s;
    const index received = received_values(rank, ranks, how);
    s.bucket_ = received / (how.sums == reduction::fixed_order ? ranks : 1);
    s.place_shared(memory, rank, ranks, received, how);
    s.waiting_ = memory.take<T>(waiting_values(rank, ranks, how));
    s.numbers_ = memory.take<int>(7 * ranks);
    return s;
  }
  /// Notes where the shards and the sums that wait are, after place().
  void start(communicator& ranks) {
    base::start(ranks);
    int waiting = 0;
    for (index r = 0; r < ranks.size(); ++r) {
      numbers_[6 * ranks.size() + r] = waiting;
      waiting += static_cast<int>(most_waiting(parts_, r, ranks.size()));
    }
  }

  /// Adds the gradients of a batch to the shards of all ranks. make(i) adds that of part `i` to
  /// `gradient`, zero before and after. Where others have a part more, `idle` is told of their
  /// forward, and of each layer's backward. False if a message failed.
  template <class Make, class Idle = idles>
  bool add(block& gradient, Make&& make, Idle&& idle = {}) {
    const auto [first, last] = items_of(parts_, ranks_->rank(), ranks_->size());
    const index rounds = (parts_ + ranks_->size() - 1) / ranks_->size();
    gradient_ = &gradient;
    fine_ = true;
    for (round_ = 0; round_ < rounds; ++round_) {
      next_ = block::units.size();
      if (first + round_ < last) {
        const ops::gradient_tap tap{
            this, [](void* self, const ops::execution& on, index layer) {
              on.threads.wait();
              on.threads.once([&] { static_cast<unit_sums*>(self)->give_layer(layer); });
            }};
        gradient.tap = &tap;
        make(first + round_);
        gradient.tap = nullptr;
        fine_ = fine_ && !next_layer();
      } else {  // others have a part more
        idle.forward();
        while (next_layer()) {
          idle.backward(next_);
          give(next_);
        }
      }
      for (std::size_t i = 0; i < block::units.size(); ++i)
        if (!block::units[i].in_layer()) give(i);
    }
    if (fine_ && fixed_ && parts_ > ranks_->size())
      add_to(shard_,
             this->fold(0, parts_, own(),
                        [&](index part) {
                          const index rank = holder_of(part, parts_, ranks_->size());
                          return waiting(rank, sums_that_wait(parts_, first_of(rank), part));
                        }),
             own());
    return fine_;
  }

 private:
  index first_of(index rank) const { return items_of(parts_, rank, ranks_->size()).first; }
  /// Whether a rank has a part in this round.
  bool makes(index rank) const {
    const auto [first, last] = items_of(parts_, rank, ranks_->size());
    return first + round_ < last;
  }
  /// This rank's shard of sum number `i` of a rank that waits.
  T* waiting(index rank, index i) const {
    return waiting_ + (numbers_[6 * ranks_->size() + rank] + i) * own();
  }
  /// Moves to the layer before, if there is one; backward visits them in that order.
  bool next_layer() {
    while (next_ > 0)
      if (block::units[--next_].in_layer()) return true;
    return false;
  }
  void give_layer(index layer) {
    fine_ = next_layer() && block::units[next_].layer == layer && fine_;
    if (fine_) give(next_);
  }
  /// Sends the gradients of a unit to the ranks that hold its shards, adds what it gets, and clears
  /// them.
  void give(std::size_t number) {
    const gradient_unit& unit = block::units[number];
    T* const from = gradient_->of(number);
    if (fine_) fine_ = fixed_ ? exchange(unit, from) : add_by_mpi(unit, from);
    std::fill_n(from, unit.size(), T(0));
  }
  /// The first value of a unit in a rank's shard, and how many there are.
  std::pair<index, index> overlap(const gradient_unit& unit, index rank) const {
    const index first = (std::max)(unit.begin, index{begins()[rank]});
    const index last = (std::min)(unit.end, index{begins()[rank] + counts()[rank]});
    return {first, (std::max)(last - first, index{0})};
  }
  bool add_by_mpi(const gradient_unit& unit, const T* from) {
    for (index r = 0; r < ranks_->size(); ++r)
      numbers_[2 * ranks_->size() + r] = static_cast<int>(overlap(unit, r).second);
    if (!ranks_->add(from, received_, numbers_ + 2 * ranks_->size())) return false;
    const auto [first, count] = overlap(unit, ranks_->rank());
    if (count > 0) add_to(shard_ + (first - begin()), received_, count);
    return true;
  }
  bool exchange(const gradient_unit& unit, const T* from) {
    const index n = ranks_->size(), me = ranks_->rank();
    const communicator::places sent{numbers_ + 2 * n, numbers_ + 3 * n};
    const communicator::places got{numbers_ + 4 * n, numbers_ + 5 * n};
    index most = 0;
    for (index r = 0; r < n; ++r) most = (std::max)(most, overlap(unit, r).second);
    const auto count = [&](index rank, index at) {
      return (std::clamp)(overlap(unit, rank).second - at, index{0}, bucket_);
    };
    for (index at = 0; at < most; at += bucket_) {
      const index own_count = count(me, at);
      for (index r = 0; r < n; ++r) {
        sent.counts[r] = static_cast<int>(makes(me) ? count(r, at) : 0);
        sent.begins[r] =
            sent.counts[r] > 0 ? static_cast<int>(overlap(unit, r).first - unit.begin + at) : 0;
        got.counts[r] = static_cast<int>(makes(r) ? own_count : 0);
        got.begins[r] = got.counts[r] > 0 ? static_cast<int>(r * bucket_) : 0;
      }
      if (!this->send(from, sent, got)) return false;
      if (own_count > 0) take(overlap(unit, me).first - begin() + at, own_count);
    }
    return true;
  }
  /// Takes in `count` values of each rank, from place `at` of the shard on.
  void take(index at, index count) {
    if (parts_ == ranks_->size())
      return add_to(
          shard_ + at,
          this->fold(0, parts_, count, [&](index part) { return received_ + part * bucket_; }),
          count);
    for (index r = 0; r < ranks_->size(); ++r) {
      if (!makes(r)) continue;
      const index part = first_of(r) + round_;
      const T* sum = received_ + r * bucket_;
      index place = sums_that_wait(parts_, first_of(r), part);
      index ends = sums_that_end(parts_, first_of(r), part);
      if (ends == 0) std::copy_n(sum, count, waiting(r, place) + at);
      for (; ends > 0; --ends) {
        T* const left = waiting(r, --place) + at;
        join(left, sum, count);
        sum = left;
      }
    }
  }
  block* gradient_ = nullptr;
  T* waiting_ = nullptr;  ///< sums; numbers_ ends with the first one of each rank
  std::size_t next_ = 0;  ///< the unit behind that which backward makes
  index round_ = 0;
  bool fine_ = true;
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Bytes that ranks send in a step, by formulas, and the ways of sharing that go together. Opt-in,
/// through linnet/mpi.hpp.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Refuses options of sharing that do not go together, or with this number of ranks.
inline result<void> check_sharing(const char* where, const distributed_options& how, index ranks,
                                  bool shards) {
  if (how.parts < ranks)
    return failure(errc::invalid, where, "distributed_options.parts",
                   "no fewer than ranks, " + std::to_string(ranks), std::to_string(how.parts));
  constexpr index most_parts = most_in_message / index{sizeof(part_report)};
  if (how.parts > most_parts)
    return failure(errc::invalid, where, "distributed_options.parts",
                   "at most " + std::to_string(most_parts), std::to_string(how.parts));
  if (how.group > 0 && (ranks % how.group != 0 || !shards))
    return failure(
        errc::invalid, where, "distributed_options.group",
        shards ? "0, or a number of ranks that divides " + std::to_string(ranks) : "0 with zero<0>",
        std::to_string(how.group));
  if (how.sums != reduction::fixed_order &&
      (how.group > 0 || how.gradients != gradient_messages::as_computed))
    return failure(errc::invalid, where, "distributed_options.sums",
                   "fixed_order with a group, or with gradients in bf16", "mpi");
  return {};
}

/// Values of layers among those whose state rank `rank` has.
template <class M, class T>
constexpr index layer_values_of_state(index rank, index ranks, index group) {
  const index each = ranks / group, begin = shard_begin<M, T>(rank % group * each, ranks).value,
              end = shard_begin<M, T>((rank % group + 1) * each, ranks).value;
  index n = 0;
  each_gradient_unit<M, T>([&](const gradient_unit& unit) {
    const index first = (std::max)(unit.begin, begin), last = (std::min)(unit.end, end);
    if (unit.in_layer()) n += (std::max)(last - first, index{0});
  });
  return n;
}
/// Bytes that rank `rank` sends in a step, see distributed_trainer::sent_bytes().
template <class M, class T, int Stage>
constexpr index bytes_sent_in_step(index rank, index ranks, const distributed_options& how) {
  const auto [first, last] = items_of(how.parts, rank, ranks);
  const index shard = shard_of_rank(rank, ranks, how.group), others = ranks - 1;
  const index own = shard_values<M, T>(shard, ranks);
  const index chunks =
      shard_begin<M, T>(shard + 1, ranks).chunk - shard_begin<M, T>(shard, ranks).chunk;
  const bool fixed = how.sums == reduction::fixed_order;
  index passes = fixed ? partial_sums_of(how.parts, rank, ranks).sums : 1;
  if (Stage >= 2) passes = fixed ? last - first : (how.parts + others) / ranks;
  // Weights go to the ranks of a group; before, its shards' gradients to those of other groups.
  const index group = how.group < 1 ? ranks : how.group;
  index weights = shard_sums<M, T>::state_values(rank, ranks, group);
  if constexpr (Stage == 3) {  // of layers before forward and backward of each round of parts
    const index of_layers = layer_values_of_state<M, T>(rank, ranks, group);
    weights += (2 * ((how.parts + others) / ranks) - 1) * of_layers;
  }
  const index afterwards = (ranks / group - 1) * own + (group - 1) * weights;
  const bool rounds = how.gradients == gradient_messages::bf16;
  const index each = rounds ? index{sizeof(std::uint16_t)} : index{sizeof(T)};
  return passes * (shard_sums<M, T>::values - own) * each + afterwards * index{sizeof(T)} +
         others * ((Stage > 0 ? chunks * index{sizeof(double)} : 0) +
                   (last - first) * index{sizeof(part_report)});
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Trains weights of model `M` on several processes, each of which gives its part of a batch. It
/// has the calls of a trainer; all ranks make the same ones in the same order. With
/// reduction::fixed_order losses and weights have the same bits for any number of ranks, any number
/// of threads and any `Zero`. One part on one rank has the bits of trainer::step().
template <class M, class Optimizer = adamw, class Zero = zero<0>, class T = float,
          class Compute = compute::f32>
class distributed_trainer {
  static constexpr bool shards = Zero::stage > 0, fetches = Zero::stage == 3;
  static_assert(detail::check_distributed<M, Optimizer, Zero, Compute>());
  template <class Opt, bool Shards>
  struct inner_of {
    using type = Opt;
  };
  template <class Opt>
  struct inner_of<Opt, true> {
    using type = std::conditional_t<fetches, detail::sharded_weights<M, T, Opt>,
                                    detail::sharded<M, T, Opt, Zero::stage>>;
  };
  using inner_optimizer = typename inner_of<Optimizer, shards>::type;
  using inner = trainer<M, inner_optimizer, T, Compute>;
  using sums =
      std::conditional_t<Zero::stage >= 2, detail::unit_sums<M, T>, detail::gradient_sums<M, T>>;
  using counters = detail::counters_of;

 public:
  using model = M;
  using scalar = T;
  using optimizer_type = Optimizer;
  using compute_type = Compute;
  using batch = typename M::batch;

  /// Exact bytes that rank `rank` of `ranks` allocates. `l.batch` is of one part, see open().
  static constexpr index footprint(const limits& l, index rank, index ranks,
                                   const distributed_options& how = {}) {
    return add_sizes(inner::footprint(l), place(nullptr, 0, rank, ranks, how).bytes);
  }

  /// Bytes that rank `rank` of `ranks` sends in a step(), as communicator::sent_bytes() counts
  /// them. They are gradients; then weights, or with zero<0> summed gradients; squares; reports of
  /// parts.
  static constexpr index sent_bytes(index rank, index ranks, const distributed_options& how = {}) {
    return detail::bytes_sent_in_step<M, T, Zero::stage>(rank, ranks, how);
  }

  /// Opens a trainer of `w` on all ranks; each allocates its footprint(), once. The limits are
  /// those of one part of a batch: limits.batch is the number of its sequences. `w` and `ranks`
  /// must outlive it and not move; `w` must hold the same numbers on all ranks. With zero<3> open()
  /// alone reads `w`, which may then be given up, see gather_weights(). Errors: those of
  /// trainer::open, and errc::invalid for fewer parts than ranks. Also errc::mismatch, with the
  /// number of a rank that has another model, other options, limits or weights, or could not open.
  /// Also errc::io if a rank did not answer. All ranks get an error where one does.
  static result<distributed_trainer> open(weights<M, T>& w, communicator& ranks, const limits& l,
                                          const Optimizer& optimizer = {},
                                          const training_options& options = {},
                                          const distributed_options& how = {}) LINNET_TRY {
    if (ranks.failed()) return ranks.error();
    std::optional<linnet::error> own = unfit(ranks, l, options, how);
    std::optional<distributed_trainer> t;
    if (!own) {
      inner_optimizer by{};
      if constexpr (shards)
        by.by = optimizer;
      else
        by = optimizer;
      memory_block memory(place(nullptr, 0, ranks.rank(), ranks.size(), how).bytes);
      placed p;
      if (memory.data()) p = place(memory.data(), memory.size(), ranks.rank(), ranks.size(), how);
      auto opened = memory.data()
                        ? open_inner(w, ranks, l, by, options, p)
                        : detail::out_of_memory("distributed_trainer::open",
                                                footprint(l, ranks.rank(), ranks.size(), how));
      if (!opened)
        own = opened.error();
      else
        t.emplace(distributed_trainer(std::move(*opened), ranks, l, how, std::move(memory), p));
    }
    // The ranks tell each other what they have before anything depends on it.
    const detail::rank_words said{own ? 1 : 0,
                                  Zero::stage,
                                  static_cast<std::int64_t>(sizeof(T)),
                                  how.parts,
                                  static_cast<std::int64_t>(how.sums),
                                  detail::digest_of_tensors<M>(),
                                  detail::digest_of_settings<M>(l, optimizer, options, how),
                                  own ? 0 : detail::digest_of_numbers(w)};
    detail::rank_difference unlike;
    const bool answered = ranks.compare(said, 1, unlike);
    if (own) return std::move(*own);
    if (!answered) return ranks.error();
    if (unlike.rank >= 0) return difference("distributed_trainer::open", fields_of_open, unlike);
    t->start();
    return std::move(*t);
  }
  LINNET_OR_OUT_OF_MEMORY("distributed_trainer::open")

  /// The sequences [first, second) of a batch of `n` that this rank gives to step(): those of its
  /// parts. `n` has to be a multiple of the number of parts.
  std::pair<index, index> part_of(index n) const {
    const auto [first, last] = detail::items_of(how_.parts, ranks_->rank(), ranks_->size());
    return {n / how_.parts * first, n / how_.parts * last};
  }
  /// One optimizer step on one batch, of which `b` is this rank's part_of(). Returns the mean loss
  /// of the whole batch in nats per token, before the step. It is NaN on all ranks, and nothing is
  /// done, where one rank's part is refused or unlike the others'. So it is if a rank is silent.
  double step(const batch& b) { return step(b, cross_entropy_objective{}); }
  /// One optimizer step on the loss of an objective, which sees the parts of a batch one by one.
  template <class Objective>
  requires objective<Objective, M>
  double step(const batch& b, Objective&& from) {
    loss_sum loss;
    if (!add(call::step, b, from, loss) || !apply()) return loss_sum::refused().mean();
    return loss.mean();
  }
  /// Adds the gradient of one part of a larger batch, as trainer::accumulate does. Returns the
  /// summed loss and labels of all ranks.
  loss_sum accumulate(const batch& b) { return accumulate(b, cross_entropy_objective{}); }
  /// @copydoc accumulate()
  template <class Objective>
  requires objective<Objective, M> loss_sum accumulate(const batch& b, Objective&& from) {
    loss_sum loss;
    return add(call::accumulate, b, from, loss) ? loss : loss_sum::refused();
  }
  /// One optimizer step with the gradients accumulated so far.
  void update() {
    if (!stopped() && agree(call::update, {}, counters::refusal_of(inner_))) (void)apply();
  }
  /// Summed loss of a batch over all ranks, of which `b` is this rank's part, without dropout and
  /// without a step.
  loss_sum evaluate(const batch& b) {
    const auto refuses = [&](const batch& own) {
      return detail::in_training<M>(
          own, detail::refusal_of<M>(own, limits_, cross_entropy_objective{}, std::span<T>()));
    };
    if (stopped() || !agree(call::evaluate, b, refusal_of(b, refuses)) || !renew())
      return loss_sum::refused();
    const auto [first, last] = own_parts();
    if constexpr (fetches) {
      detail::brings_weights bring(*held_, counters::packed(inner_));
      for (index i = 0; i * ranks_->size() < how_.parts; ++i)
        if (first + i < last)
          bring.begin(), reports_.put(first + i, inner_.evaluate(part(b, first + i)));
        else
          bring.forward();  // others have a part more
    } else {
      for (index i = first; i < last; ++i) reports_.put(i, inner_.evaluate(part(b, i)));
    }
    return reports_.gather() ? reports_.sum().loss : loss_sum::refused();
  }

  /// Summed loss of a batch that this rank has alone, of at most limits.batch sequences. No other
  /// rank needs to call this. Not with zero<3>, where no rank has all weights.
  loss_sum evaluate_alone(const batch& b) requires(!fetches) { return inner_.evaluate(b); }

  /// Gives each rank the whole weights, of which it has a shard. All ranks call this. Errors, on
  /// all ranks: errc::io (a rank did not answer), errc::mismatch (the weights of a rank are not
  /// valid).
  result<void> gather_weights(weights<M, T>& to) requires fetches {
    detail::rank_difference unlike;
    if (!ranks_->compare({to.valid() ? 0 : 1}, 1, unlike)) return ranks_->error();
    if (unlike.rank >= 0)
      return detail::failure(errc::mismatch, "distributed_trainer::gather_weights",
                             "rank " + std::to_string(unlike.rank), "valid weights", "others");
    if (!held_->fetch(0, sums::values, static_cast<T*>(to.data()))) return ranks_->error();
    return {};
  }

  /// Global gradient norm of the last step, before clipping.
  double gradient_norm() const { return inner_.gradient_norm(); }
  /// Loads of ffn::experts in the last step on all ranks, or in the parts accumulated since it, see
  /// trainer::experts(). The sums of parts are added in the order of parts, so they
  /// are the same on each rank and on any number of ranks. All 0 after resume().
  const expert_load& experts() const { return experts_; }
  /// Steps taken.
  index steps() const { return inner_.steps(); }
  /// Steps left out because loss or gradient was not finite, or no label counted.
  index skipped() const { return inner_.skipped(); }
  /// Batches refused since open().
  index refused() const { return inner_.refused(); }
  /// Whether it refuses all further calls: as a trainer does, or after a failure of messages.
  bool stopped() const { return inner_.stopped() || ranks_->failed(); }
  /// Why the last call was refused; static text, empty after a call that did what was asked.
  /// error() says which rank was the reason.
  std::string_view last_refusal() const noexcept {
    if (ranks_->failed()) return ranks_->failure_text();
    if (unlike_.rank >= 0)
      return "a rank's call or batch does not go with the others': error() says which";
    return inner_.last_refusal();
  }
  /// The last refusal with the number of the rank that was the reason: errc::mismatch, errc::io
  /// for a failure of messages. Equal on all ranks that got an answer.
  linnet::error error() const {
    if (ranks_->failed()) return ranks_->error();
    if (unlike_.rank >= 0) return difference("distributed_trainer", fields_of_call, unlike_);
    return detail::failure(errc::invalid, "distributed_trainer", "", "", inner_.last_refusal());
  }
  /// The packed weights, current after each step. With zero<3> they are those outside of layers,
  /// and memory for a layer's.
  const auto& current() const { return inner_.current(); }
  /// All counters; equal on all ranks.
  const training_progress& progress() const { return inner_.progress(); }
  /// Calls f(name, offset, bytes) for each block of memory with which this rank continues a run.
  /// `offset` is that in the whole block, of which it may hold a shard.
  template <class F>
  void visit_state(F&& f) {
    inner_.visit_state([&](std::string_view name, std::span<std::byte> bytes) {
      const bool shard = fetches && name == "weights";
      if (name != "gradients") f(name, shard ? moments_.begin * index{sizeof(T)} : 0, bytes);
    });
    if constexpr (shards) {
      const index begin = moments_.begin * index{sizeof(T)}, n = moments_.end - moments_.begin;
      const auto count = static_cast<std::size_t>(n);
      f("optimizer.first", begin, std::as_writable_bytes(std::span(moments_.first, count)));
      f("optimizer.second", begin, std::as_writable_bytes(std::span(moments_.second, count)));
    }
  }
  /// The bytes [first, second) of what visit_state() shows of a block that this rank writes into a
  /// checkpoint: all ranks together write each byte once.
  std::pair<index, index> written_state(std::string_view name, index size) const {
    if (!shards || (name == "weights" && !fetches))
      return detail::share_of_block(size, ranks_->rank(), ranks_->size());
    return {(moments_.own_begin - moments_.begin) * index{sizeof(T)},
            (moments_.own_end - moments_.begin) * index{sizeof(T)}};
  }
  /// Goes on from `at`, after the blocks that visit_state() shows have been written on all ranks.
  /// Errors: those of trainer::resume.
  result<void> resume(const training_progress& at) {
    if constexpr (!shards)
      std::fill_n(static_cast<T*>(inner_.gradient().data()), sums::values, T(0));
    sums_.clear();
    unlike_ = {};
    experts_ = {};
    outside_is_old_ = true;
    return inner_.resume(at);
  }
  /// The processes that it shares batches with.
  communicator& ranks() { return *ranks_; }
  /// The options of sharing that it was opened with.
  const distributed_options& shared_options() const { return how_; }
  /// The options that it was opened with.
  const training_options& options() const { return inner_.options(); }
  /// The optimizer, whose settings may be changed between steps, on all ranks alike.
  Optimizer& optimizer() {
    if constexpr (shards)
      return inner_.optimizer().by;
    else
      return inner_.optimizer();
  }

 private:
  enum class call : std::int64_t { step, accumulate, update, evaluate };
  static constexpr const char* fields_of_open[] = {"trainer, which it could not open",
                                                   "stage of zero",
                                                   "bytes of a scalar",
                                                   "distributed_options.parts",
                                                   "distributed_options.sums",
                                                   "digest of the model's tensors",
                                                   "digest of options and limits",
                                                   "digest of the weights"};
  static constexpr const char* fields_of_call[] = {"refusal of its batch",
                                                   "sequences left over by its parts",
                                                   "call",
                                                   "sequences of a part",
                                                   "tokens of a sequence",
                                                   "source tokens of a sequence",
                                                   "steps taken",
                                                   "samples accumulated"};

  /// The values that open() places in one block.
  struct placed {
    sums gradients{};
    detail::shard_memory<M, T> moments{};
    detail::part_reports reports{};
    detail::unit_weights<M, T>* held = nullptr;  ///< with zero<3>
    index bytes = 0;
  };
  static constexpr placed place(void* block, index size, index rank, index ranks,
                                const distributed_options& how) {
    arena memory = block ? arena(block, size) : arena();
    placed p;
    p.gradients = sums::place(memory, rank, ranks, how);
    if constexpr (shards)
      p.moments = detail::shard_memory<M, T>::place(memory, rank, ranks, how.group);
    p.reports = detail::part_reports::place(memory, how.parts, ranks);
    if constexpr (fetches)
      p.held = detail::unit_weights<M, T>::place(memory, rank, ranks, how.group);
    p.bytes = memory.peak();
    return p;
  }
  distributed_trainer(inner&& made, communicator& ranks, const limits& l,
                      const distributed_options& how, memory_block&& memory, const placed& p)
      : inner_(std::move(made)),
        ranks_(&ranks),
        limits_(l),
        how_(how),
        memory_(std::move(memory)),
        sums_(p.gradients),
        moments_(p.moments),
        reports_(p.reports),
        held_(p.held) {}
  /// Opens a trainer of whole weights, or of this rank's shard of them.
  static result<inner> open_inner(weights<M, T>& w, communicator& ranks, const limits& l,
                                  const inner_optimizer& by, const training_options& options,
                                  const placed& p) {
    if constexpr (fetches) {
      if (!w.valid()) return w.error();
      p.held->start(ranks, w);
      return inner::open(*p.held, l, by, options);
    } else {
      return inner::open(w, l, by, options);
    }
  }
  /// Notes the shards, after the ranks have agreed.
  void start() {
    sums_.start(*ranks_);
    if constexpr (shards) {
      moments_.start(*ranks_, sums_.state_gradient());
      inner_.optimizer().memory = moments_;
    }
    reports_.start(*ranks_);
  }

  /// Why this rank cannot open a trainer, if it is its own options.
  static std::optional<linnet::error> unfit(const communicator& ranks, const limits& l,
                                            const training_options& options,
                                            const distributed_options& how) {
    constexpr const char* where = "distributed_trainer::open";
    if (auto fit = detail::acceptable(where, "distributed_options", how); !fit) return fit.error();
    if (auto fit = detail::check_sharing(where, how, ranks.size(), shards); !fit)
      return fit.error();
    if (const index got = sums::received_values(ranks.rank(), ranks.size(), how);
        got > detail::most_in_message)
      return detail::failure(errc::invalid, where, "distributed_options.bucket",
                             "fewer than 2^31 values in the buckets of all sums",
                             std::to_string(got));
    if (shards && !ranks.allows(l.threads, l.run_on.run != nullptr))
      return detail::failure(errc::invalid, where, "limits.threads",
                             "1, or MPI_Init_thread with MPI_THREAD_SERIALIZED",
                             std::to_string(l.threads));
    if (shards && options.keep_zeros)
      return detail::failure(errc::invalid, where, "training_options.keep_zeros",
                             "false with zero<1> to zero<3>, whose ranks move a shard each",
                             "true");
    return {};
  }
  static linnet::error difference(const char* where, const char* const* names,
                                  const detail::rank_difference& d) {
    const bool refusal_text = names == fields_of_call && d.field == 0;
    return detail::failure(
        errc::mismatch, where, "rank " + std::to_string(d.rank) + ": " + names[d.field],
        refusal_text ? "none" : std::to_string(d.expected),
        refusal_text ? std::string(to_string(static_cast<refusal>(d.got))) : std::to_string(d.got));
  }

  /// The parts of this rank, and their number.
  std::pair<index, index> own_parts() const {
    return detail::items_of(how_.parts, ranks_->rank(), ranks_->size());
  }
  index own_count() const { return own_parts().second - own_parts().first; }
  /// Part number `i` of all, of which this rank's are in `b`.
  batch part(const batch& b, index i) const {
    const index each = b.batch / own_count();
    return detail::part_of_batch(b, (i - own_parts().first) * each, each, M::label_per_sequence);
  }
  /// The first reason why refuses(part) refuses a part of this rank.
  template <class Refuses>
  refusal refusal_of(const batch& b, const Refuses& refuses) const {
    if (b.batch < 1) return refusal::batch_below_one;
    refusal why = refusal::none;
    if (b.batch % own_count() == 0)  // or else another field tells
      for (index i = own_parts().first; i < own_parts().second && why == refusal::none; ++i)
        why = refuses(part(b, i));
    return why;
  }
  /// Whether all ranks make the same call with batches that go together; unlike_ says what not.
  bool agree(call kind, const batch& b, refusal why) {
    std::int64_t length = 0, source = 0;
    if constexpr (requires { b.target_length; })
      length = b.target_length;
    else
      length = b.length;
    if constexpr (requires { b.source_length; }) source = b.source_length;
    const training_progress& at = inner_.progress();
    if (!ranks_->compare(
            {static_cast<std::int64_t>(why), b.batch % own_count(), static_cast<std::int64_t>(kind),
             b.batch / own_count(), length, source, at.steps, at.samples},
            2, unlike_))
      return false;
    if (unlike_.rank < 0) return true;
    const bool named = unlike_.field == 0;
    counters::refuse(inner_, named ? static_cast<refusal>(unlike_.got) : refusal::batch);
    return false;
  }
  /// Adds the gradients of a batch; `all` is the loss over all ranks.
  template <class Objective>
  bool add(call kind, const batch& b, Objective& from, loss_sum& all) {
    const auto refuses = [&](const batch& own) { return counters::refusal_of(inner_, own, from); };
    if (stopped() || !agree(kind, b, refusal_of(b, refuses)) || !renew()) return false;
    training_progress& at = counters::progress(inner_);
    const training_progress before = at;
    const index each = b.batch / own_count();
    const auto make = [&](index i) {
      at.samples = before.samples + i * each;  // dropout depends on a sample's place in the batch
      counters::experts(inner_) = {};
      const loss_sum loss = inner_.accumulate(part(b, i), from);
      reports_.put(i, loss, inner_.experts());
    };
    bool added = false;
    if constexpr (fetches) {
      detail::brings_weights bring(*held_, counters::packed(inner_));
      const auto begin = [&](index i) { bring.begin(), make(i); };
      added = sums_.add(inner_.gradient(), begin, bring);
    } else {
      added = sums_.add(inner_.gradient(), make);
    }
    if (!added || !reports_.gather()) return false;
    const detail::part_report sum = reports_.sum();
    all = sum.loss;
    if (!before.accumulating()) experts_ = {};
    experts_ += sum.experts;
    at.samples = before.samples + how_.parts * each;
    at.tokens = before.tokens + all.tokens;
    at.nats = before.nats + all.nats;
    return true;
  }
  /// Gets the weights outside of layers, where a run was resumed. False if a message failed.
  bool renew() {
    if constexpr (fetches)
      if (outside_is_old_) {
        if (!held_->fetch_outside()) return false;
        inner_.refresh();
        outside_is_old_ = false;
      }
    return true;
  }
  /// Takes a step with the sum of gradients, of which this rank has its shard.
  bool apply() {
    if constexpr (!shards) {
      T* const gradient = static_cast<T*>(inner_.gradient().data());
      std::copy_n(sums_.shard(), sums_.own(), gradient + sums_.begin());
      if (!ranks_->gather(gradient, sums_.counts(), sums_.begins())) return false;
    }
    if constexpr (shards)
      if (!sums_.spread()) return false;
    inner_.update();
    if (!inner_.progress().accumulating())
      sums_.clear();
    else if constexpr (!shards)  // it was refused
      inner_.gradient().visit([](const parameter_path&, const tensor_info& info, T* leaf) {
        std::fill_n(leaf, info.size(), T(0));
      });
    return !ranks_->failed();
  }

  inner inner_;
  communicator* ranks_;
  detail::owned_limits limits_;
  distributed_options how_;
  memory_block memory_;
  sums sums_{};
  detail::shard_memory<M, T> moments_{};
  detail::part_reports reports_{};
  detail::unit_weights<M, T>* held_ = nullptr;  ///< in memory_, with zero<3>
  bool outside_is_old_ = false;                 ///< its tensors outside of layers are
  expert_load experts_{};
  detail::rank_difference unlike_;
};

LINNET_NAMESPACE_END
