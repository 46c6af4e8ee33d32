// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/mpi_checkpoint.hpp: do not edit.
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
/// Opt-in: checkpoints of training on several processes. Needs what linnet/mpi.hpp and
/// linnet/checkpoint.hpp need: an MPI 3, the header of xxHash and a POSIX system.

/// @file
/// Checkpoints of several processes. Each rank writes a file with its part of the state; then rank
/// 0 writes the index that makes all of them one checkpoint. Opt-in, through
/// linnet/mpi_checkpoint.hpp.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <linnet/mpi.hpp>
#include <linnet/checkpoint.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The counters in the index of a checkpoint of several ranks, and in each of its parts.
struct checkpoint_round {
  std::int64_t generation = 0;  ///< of checkpoints of this name; names the files of parts
  std::int64_t ranks = 0;       ///< which wrote it
  training_progress progress{};
};
inline constexpr std::string_view round_section = "linnet.round";

/// The file in which rank `rank` writes its part.
inline std::string part_path(const std::string& path, const checkpoint_round& round, index rank) {
  return path + '.' + std::to_string(round.generation) + '.' + std::to_string(rank) + "-of-" +
         std::to_string(round.ranks);
}
/// The round of a file of sections. Errors: those of read_file and parse_sections.
inline result<checkpoint_round> read_round(const section_file& file, const std::string& path) {
  const section* const found = file.find(round_section);
  checkpoint_round round;
  if (!found || found->bytes.size() != sizeof round)
    return detail::failure(errc::malformed, path, round_section,
                           std::to_string(sizeof round) + " bytes", "others");
  __builtin_memcpy(&round, found->bytes.data(), sizeof round);
  if (round.ranks < 1 || round.ranks > 0x7fffffff || round.generation < 1 ||
      round.generation > static_cast<std::int64_t>(most_count))
    return detail::failure(errc::malformed, path, round_section, "counts from 1 to 10^15",
                           "others");
  if (auto fit = acceptable(path.c_str(), round_section, round.progress); !fit) return fit.error();
  return round;
}
/// The round in the index `path`; none if there is no such file, or a damaged one.
inline std::optional<checkpoint_round> round_of(const std::string& path) {
  const auto bytes = read_file(path);
  if (!bytes) return {};
  const auto file = parse_sections(bytes->bytes(), path);
  if (!file) return {};
  const auto round = read_round(*file, path);
  return round ? std::optional(*round) : std::nullopt;
}

/// Description of a trainer's type, of the parts of its batches and of how gradients are sent, on
/// which its bits depend.
template <class Trainer>
std::vector<key_value> shared_metadata(const Trainer& train) {
  std::vector<key_value> all = trainer_metadata<Trainer>();
  all.push_back({"parts", std::to_string(train.shared_options().parts)});
  const bool rounded = train.shared_options().gradients == gradient_messages::bf16;
  all.push_back({"gradients", rounded ? "bf16" : "as_computed"});
  return all;
}
/// Refuses a file of another type of trainer. One that does not name its gradients has them as
/// computed.
template <class Trainer>
result<void> check_metadata(const Trainer& train, const section_file& file,
                            const std::string& path) {
  for (const key_value& one : shared_metadata(train)) {
    const auto said = std::ranges::find(file.metadata, one.key, &key_value::key);
    const std::string got = said != file.metadata.end() ? said->value
                            : one.key == "gradients"    ? "as_computed"
                                                        : "nothing";
    if (got != one.value)
      return failure(errc::mismatch, path, one.key, one.value + " (the trainer's)", printable(got));
  }
  return check_adapter_checkpoint(train, file, path);
}

/// The section of a part with the bytes of block `name` from byte `from` on.
inline std::string piece_name(std::string_view name, index from) {
  return std::string(name).append("@").append(std::to_string(from));
}
/// The byte of block `name` at which a section of that name begins; -1 if it has none of its bytes.
inline index piece_begin(std::string_view section_name, std::string_view name) {
  const std::size_t mark = section_name.rfind('@');
  if (mark == std::string_view::npos || section_name.substr(0, mark) != name) return -1;
  const char* const end = section_name.data() + section_name.size();
  index from = 0;
  const auto [stop, code] = std::from_chars(section_name.data() + mark + 1, end, from);
  return stop == end && code == std::errc() && from >= 0 ? from : -1;
}
/// Reads one part: copies what this rank holds of it, if `apply`, and counts these bytes.
template <class Trainer>
result<index> read_part(const std::string& path, Trainer& train, const checkpoint_round& round,
                        bool apply) {
  const auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  const auto file = parse_sections(bytes->bytes(), path);
  if (!file) return file.error();
  if (auto fit = check_metadata(train, *file, path); !fit) return fit.error();
  const auto said = read_round(*file, path);
  if (!said) return said.error();
  if (said->generation != round.generation || said->progress.steps != round.progress.steps)
    return failure(errc::malformed, path, round_section, "the round of the index", "another");
  index copied = 0;
  train.visit_state([&](std::string_view name, index offset, std::span<std::byte> to) {
    for (const section& one : file->sections) {
      const index from = piece_begin(one.name, name);
      if (from < 0 || from >= offset + std::ssize(to)) continue;  // the rest of it is elsewhere
      const index first = (std::max)(from, offset);
      const index last = (std::min)(from + std::ssize(one.bytes), offset + std::ssize(to));
      if (first >= last) continue;
      copied += last - first;
      if (apply)
        std::copy_n(one.bytes.data() + (first - from), last - first, to.data() + (first - offset));
    }
  });
  return copied;
}
/// Reads the checkpoint of an index: all that this rank holds of it. Checks it, or applies it.
template <class Trainer>
result<checkpoint> read_checkpoint(const std::string& index_path, const std::string& path,
                                   Trainer& train, bool apply, checkpoint_round& round) {
  const auto bytes = read_file(index_path);
  if (!bytes) return bytes.error();
  const auto file = parse_sections(bytes->bytes(), index_path);
  if (!file) return file.error();
  if (auto fit = check_metadata(train, *file, index_path); !fit) return fit.error();
  const auto said = read_round(*file, index_path);
  if (!said) return said.error();
  round = *said;
  index held = 0, copied = 0;
  train.visit_state(
      [&](std::string_view, index, std::span<std::byte> to) { held += std::ssize(to); });
  for (index r = 0; r < round.ranks; ++r) {
    const auto part = read_part(part_path(path, round, r), train, round, apply);
    if (!part) return part.error();
    copied += *part;
  }
  if (copied != held)
    return failure(errc::malformed, index_path, "parts", std::to_string(held) + " bytes",
                   std::to_string(copied));
  checkpoint all{index_path, {}};
  for (const section& one : file->sections)
    if (!one.name.starts_with(reserved))
      all.own.push_back({one.name, {one.bytes.begin(), one.bytes.end()}});
  return all;
}

/// Tells all ranks whether this one succeeded; the error of all is that of a rank which did not.
template <class Trainer>
result<void> agree_on(Trainer& train, const char* where, const char* what, const result<void>& own,
                      std::int64_t number = 0) {
  rank_difference unlike;
  const bool answered = train.ranks().compare({own ? 0 : 1, number, 0, 0, 0, 0, 0, 0}, 1, unlike);
  if (!own) return own.error();
  if (!answered) return train.ranks().error();
  if (unlike.rank < 0) return {};
  return failure(errc::mismatch, where, "rank " + std::to_string(unlike.rank), what,
                 unlike.field == 0 ? "an error there" : "number " + std::to_string(unlike.got));
}

}  // namespace detail

/// Saves the state of a run on all ranks, which all call this. Each writes its part beside `path`;
/// then rank 0 writes `path`, with sections of its own, and the one before becomes
/// `path`.previous. A checkpoint is there as a whole or not at all: whatever ends a rank, `path` or
/// `path`.previous loads. If `path` is a symbolic link, all these files stand beside its target.
/// The folder has to be one that all ranks see. Errors, on all ranks: errc::io; errc::invalid
/// (gradients that no step has used, a stopped trainer, a name). Also errc::mismatch, with the rank
/// that has an error or sees other files.
template <class M, class Optimizer, class Zero, class T, class Compute>
result<void> save_checkpoint(const std::string& path,
                             distributed_trainer<M, Optimizer, Zero, T, Compute>& train,
                             const std::vector<section>& own = {}) LINNET_TRY {
  if (!detail::fits_metadata<true, M>()) return {};
  if (train.stopped() || train.progress().accumulating())
    return error{errc::invalid, path, "trainer", "one that goes on, without accumulated gradients",
                 train.stopped() ? "one that stopped" : "accumulated gradients"};
  const std::string target = detail::target_of(path);
  const auto newest = detail::round_of(target),
             older = detail::round_of(detail::previous_of(target));
  const std::int64_t before =
      (std::max)(newest ? newest->generation : 0, older ? older->generation : 0);
  const index rank = train.ranks().rank(), ranks = train.ranks().size();
  const detail::checkpoint_round round{before + 1, ranks, train.progress()};
  // A rank that sees an older index would write over a part of the newest checkpoint.
  if (auto all = detail::agree_on(train, "save_checkpoint", "to write the same round", {},
                                  round.generation);
      !all)
    return all;
  auto metadata = detail::shared_metadata(train);
  for (detail::key_value& one : detail::notes_of_adapter(train.current().tree()))
    metadata.push_back(std::move(one));
  const section said = as_section(std::string(detail::round_section), round);

  std::vector<section> sections{said};
  train.visit_state([&](std::string_view name, index offset, std::span<std::byte> block) {
    const index size = std::ssize(block);
    const auto [first, last] = train.written_state(name, size);
    sections.push_back(
        {detail::piece_name(name, offset + first),
         block.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first))});
  });
  const std::string part = detail::part_path(target, round, rank);
  (void)std::remove(part.c_str());  // of a run that was ended while it wrote
  const auto wrote = detail::write_checkpoint_file(part, metadata, sections);
  if (auto all = detail::agree_on(train, "save_checkpoint", "to write its part", wrote); !all) {
    // Without an answer others may have agreed, and the index may name this part.
    if (!train.ranks().failed()) (void)std::remove(part.c_str());
    return all;
  }

  result<void> published;
  if (rank == 0) {
    std::vector<section> index_sections{said};
    for (const section& one : own) {
      if (one.name.starts_with(detail::reserved) && published)
        published = error{errc::invalid, path, detail::printable(one.name),
                          "a name that does not begin with linnet.", "this one"};
      index_sections.push_back(one);
    }
    // A damaged index must not become the one before.
    if (!newest && detail::exists(target))
      (void)std::rename(target.c_str(), detail::damaged_of(target).c_str());
    if (published) published = detail::write_checkpoint_file(target, metadata, index_sections);
    if (published && newest && older)
      for (index r = 0; r < older->ranks; ++r)
        (void)std::remove(detail::part_path(target, *older, r).c_str());
  }
  return detail::agree_on(train, "save_checkpoint", "to write the index", published);
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Restores a run on all ranks, which all call this; there may be more or fewer of them than wrote
/// it, and another `Zero`. Where `path` or one of its parts is missing or damaged, all load
/// `path`.previous, note says why, and rank 0 sets `path` aside as `path`.damaged. The trainer is
/// untouched unless all ranks can read all of it. Errors, on all ranks: errc::io, errc::malformed;
/// errc::missing if there is neither `path` nor `path`.previous. Also errc::mismatch (another
/// model, optimizer, number of parts or gradient_messages; the rank that has an error).
template <class M, class Optimizer, class Zero, class T, class Compute>
result<checkpoint> load_checkpoint(const std::string& path,
                                   distributed_trainer<M, Optimizer, Zero, T, Compute>& train)
    LINNET_TRY {
  if (!detail::fits_metadata<true, M>()) return error{};
  detail::checkpoint_round round;
  const std::string target = detail::target_of(path), previous = detail::previous_of(target);
  std::string from = target;
  auto checked = detail::read_checkpoint(from, target, train, false, round);
  std::string note;
  if (!checked && checked.error().code != errc::mismatch) {
    detail::checkpoint_round earlier;
    auto older = detail::read_checkpoint(previous, target, train, false, earlier);
    if (older) {
      note = checked.error().message();
      from = previous;
      round = earlier;
      checked = std::move(older);
    } else if (!detail::exists(target) && !detail::exists(previous)) {
      checked = error{errc::missing, path, "", "a checkpoint", "none"};
    }
  }
  const result<void> readable = checked ? result<void>() : result<void>(checked.error());
  if (auto all = detail::agree_on(train, "load_checkpoint", "to read the same round", readable,
                                  checked ? round.generation : 0);
      !all)
    return all.error();
  auto loaded = detail::read_checkpoint(from, target, train, true, round);
  result<void> applied;
  if (!loaded)
    applied = loaded.error();
  else
    applied = train.resume(round.progress);
  // Set aside, or the next save would keep it as the one before, and remove the good one's parts.
  // The others go on afterwards, so that all see the same files.
  if (applied && !note.empty() && train.ranks().rank() == 0)
    (void)std::rename(target.c_str(), detail::damaged_of(target).c_str());
  if (auto all = detail::agree_on(train, "load_checkpoint", "to read its part", applied); !all)
    return all.error();
  loaded->note = note;
  return loaded;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
