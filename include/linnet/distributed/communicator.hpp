// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Messages between processes, over MPI: every call ends, at the latest by a time-out. Opt-in,
/// through linnet/mpi.hpp.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1  // Open MPI's classes of C++, which are not used
#endif
#include <mpi.h>

#include <linnet/core/options.hpp>
#include <linnet/core/shapes.hpp>
#include <linnet/distributed/digest.hpp>

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
