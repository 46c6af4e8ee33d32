// SPDX-License-Identifier: MIT
#pragma once
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

#include <linnet/distributed/communicator.hpp>
#include <linnet/distributed/digest.hpp>
#include <linnet/distributed/shards.hpp>
#include <linnet/eval/language.hpp>

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
