// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/checkpoint.hpp: do not edit.
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
/// Opt-in: checkpoints of training that can be continued without a difference. Needs xxhash (its
/// header alone) and a POSIX system.

#if !defined(__unix__) && !defined(__APPLE__)
#error "linnet/checkpoint.hpp: checkpoints need a POSIX system, such as Linux; MinGW is none"
#else
/// @file
/// Checkpoints: files from which training continues with the same bits. Opt-in, through
/// linnet/checkpoint.hpp.

#include <linnet/linnet.hpp>
/// @file
/// Notes of adapters in files: the base by its hash, and the options that decide what they compute.

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

/// Whether an adapter is loaded for other weights than those it was saved with.
enum class peft_base {
  same,  ///< no: the files' hash, where there is one, is that of the base
  any    ///< yes, such as one that was trained on codes for the numbers
};

namespace detail {

/// Key of the hash of an adapter's base.
inline constexpr std::string_view base_note = "linnet.base";

/// Notes of the options that decide what an adapter computes; none of parameters of other models.
template <class Tree>
std::vector<key_value> options_of_adapter([[maybe_unused]] const Tree& tree) {
  std::vector<key_value> notes;
  if constexpr (requires { tree.base.how; })
    tree.base.how.describe([&](const char* key, auto value) {
      if constexpr (std::is_same_v<decltype(value), bool>)
        notes.push_back({key, value ? "true" : "false"});
      else
        notes.push_back({key, number_text(value)});
    });
  return notes;
}
/// Whether parameters are those of an adapter that has a base, whose hash files note.
template <class Tree>
bool has_base([[maybe_unused]] const Tree& tree) {
  if constexpr (requires { tree.base.hash(); }) return tree.base.of != nullptr;
  return false;
}
/// The hash of an adapter's base as files note it. It reads the whole base.
template <class Tree>
std::string hash_of_base([[maybe_unused]] const Tree& tree) {
  if constexpr (requires { tree.base.hash(); }) return std::to_string(tree.base.hash());
  return {};
}
/// Notes of an adapter that its type does not say; none of parameters of other models. There is no
/// hash for an adapter without a base.
template <class Tree>
std::vector<key_value> notes_of_adapter(const Tree& tree) {
  std::vector<key_value> notes = options_of_adapter(tree);
  if (has_base(tree)) notes.push_back({std::string(base_note), hash_of_base(tree)});
  return notes;
}
/// Refuses a file whose notes are not those of an adapter. `find(key)` gives the file's value or
/// null. What it does not say is not compared. The base is read only for a hash to compare.
/// `rule` says in the error what to do about another base. Errors: errc::mismatch.
template <class Tree, class Find>
result<void> check_adapter_notes(const Tree& tree, const std::string& where, peft_base which,
                                 const char* rule, Find&& find) {
  for (const key_value& own : options_of_adapter(tree))
    if (const std::string* const said = find(own.key); said && *said != own.value)
      return failure(errc::mismatch, where, own.key, own.value + " (the adapter's lora_options)",
                     printable(*said));
  if (which == peft_base::any || !has_base(tree)) return {};
  const std::string* const said = find(std::string(base_note));
  if (!said) return {};
  if (const std::string own = hash_of_base(tree); *said != own)
    return failure(errc::mismatch, where, base_note,
                   "the hash of the adapter's base, " + own + " (" + rule + ")", printable(*said));
  return {};
}
/// Refuses a file of tensors whose notes are not those of an adapter; of PEFT, whose options are
/// elsewhere, by its base alone.
template <class Tree, class File>
result<void> check_adapter_file(const Tree& tree, const File& file, peft_base which,
                                bool base_alone) {
  return check_adapter_notes(tree, file.where(), which, "peft_base::any loads it for another",
                             [&](const std::string& key) -> const std::string* {
                               const auto said = file.metadata().find(key);
                               const bool skip = base_alone && key != base_note;
                               return skip || said == file.metadata().end() ? nullptr
                                                                            : &said->second;
                             });
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Files of named sections with checksums: a strict reader that trusts nothing in the file, and a
/// writer. Opt-in, through linnet/checkpoint.hpp. Numbers are little-endian and not aligned:
///
///     8 bytes  "linnetCP"
///     4        version; all versions have these 16 bytes, the table and its checksum
///     4        size of the table
///     table    number of entries of metadata, number of sections (4 bytes each); for each entry
///              its key and value, for each section its name, size and XXH3 checksum (8 bytes
///              each); a text is its size (4 bytes) and its bytes
///     8        XXH3 checksum of all before
///     ...      the sections' bytes, one after another, to the end of the file

#include <algorithm>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

/// A named section: some bytes under a name.
struct section {
  std::string name;
  std::span<const std::byte> bytes{};
};

namespace detail {

inline constexpr std::string_view sections_magic = "linnetCP";
inline constexpr std::uint32_t sections_version = 1;
inline constexpr std::size_t longest_sections_table = 1 << 20;

inline std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

/// A digest of the names and shapes of a model's tensors.
template <class M>
std::string tensors_digest() {
  std::string tensors;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    tensors += at.str() + ' ' + std::to_string(info.rows) + ' ' + std::to_string(info.columns);
    tensors += '\n';
  });
  return std::to_string(checksum(std::as_bytes(std::span(tensors))));
}

/// A parsed file of sections: its statements and its sections. The sections' bytes are the file's.
struct section_file {
  std::vector<key_value> metadata;
  std::vector<section> sections;

  const section* find(std::string_view name) const {
    const auto at = std::ranges::find(sections, name, &section::name);
    return at != sections.end() ? &*at : nullptr;
  }
};

/// Reads values from the front of some bytes, as long as there are enough.
struct section_reader {
  std::span<const std::byte> rest;
  bool good = true;

  std::span<const std::byte> bytes(std::uint64_t n) {
    good = good && n <= rest.size();
    if (!good) return {};
    const auto taken = rest.first(static_cast<std::size_t>(n));
    rest = rest.subspan(taken.size());
    return taken;
  }
  template <class T>
  T number() {
    const auto from = bytes(sizeof(T));
    return good ? load_as<T>(from.data()) : T{};
  }
  std::string text() {
    const auto from = bytes(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }
};

/// Parses a file of sections and verifies every byte of it. `where` names it in errors. Errors:
/// errc::malformed, errc::unsupported (another version).
inline result<section_file> parse_sections(lasting_span<const std::byte> bytes,
                                           const std::string& where) LINNET_TRY {
  const auto wrong = [&](const std::string& what, std::string_view expected, std::string_view got) {
    return detail::failure(errc::malformed, where, printable(what), expected, got);
  };
  section_reader file{bytes};
  const auto magic = file.bytes(sections_magic.size());
  if (!std::ranges::equal(magic, std::as_bytes(std::span(sections_magic))))
    return wrong("", "a checkpoint, which begins with linnetCP", "another beginning");
  const auto version = file.number<std::uint32_t>();
  const std::uint64_t table_size = file.number<std::uint32_t>();
  section_reader table{file.bytes(table_size)};
  const auto head = bytes.first(bytes.size() - file.rest.size());
  const auto sum = file.number<std::uint64_t>();
  if (!file.good || table_size > longest_sections_table)
    return wrong("header", "a table and its checksum", "another size or the end of the file");
  if (sum != checksum(head)) return wrong("header", "bytes of its checksum", "others");
  if (version != sections_version)
    return detail::failure(errc::unsupported, where, "version", std::to_string(sections_version),
                           std::to_string(version));

  // Every entry and section takes some bytes of the table, so these loops end.
  section_file all;
  const auto entries = table.number<std::uint32_t>(), sections = table.number<std::uint32_t>();
  for (std::uint32_t i = 0; i < entries && table.good; ++i) {
    std::string key = table.text();
    all.metadata.push_back({std::move(key), table.text()});
  }
  for (std::uint32_t i = 0; i < sections && table.good; ++i) {
    section next{table.text()};
    const auto size = table.number<std::uint64_t>(), expected = table.number<std::uint64_t>();
    if (!table.good) break;
    next.bytes = file.bytes(size);
    if (!file.good)
      return wrong(next.name, std::to_string(size) + " bytes",
                   std::to_string(file.rest.size()) + " up to the end of the file");
    if (checksum(next.bytes) != expected)
      return wrong(next.name, "bytes of its checksum", "others");
    all.sections.push_back(std::move(next));
  }
  if (!table.good || !table.rest.empty())
    return wrong("header", "as many entries and sections as it says", "others");
  if (!file.rest.empty())
    return wrong("", "the end of the file after the last section",
                 std::to_string(file.rest.size()) + " bytes more");
  std::vector<std::string_view> names;
  for (const section& one : all.sections) names.push_back(one.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end())
    return wrong(std::string(*twice), "one section of this name", "two");
  return all;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Head of a file of sections: everything before the sections' bytes.
inline std::string checkpoint_file_head(const std::vector<key_value>& metadata,
                                        const std::vector<section>& sections) {
  std::string head(sections_magic);
  const auto number = [&](auto value) {
    head.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto text = [&](const std::string& value) {
    number(static_cast<std::uint32_t>(value.size()));
    head += value;
  };
  number(sections_version);
  const std::size_t size_at = head.size();
  number(std::uint32_t{0});
  const std::size_t table_at = head.size();
  number(static_cast<std::uint32_t>(metadata.size()));
  number(static_cast<std::uint32_t>(sections.size()));
  for (const key_value& one : metadata) {
    text(one.key);
    text(one.value);
  }
  for (const section& one : sections) {
    text(one.name);
    number(std::uint64_t{one.bytes.size()});
    number(checksum(one.bytes));
  }
  const auto size = static_cast<std::uint32_t>(head.size() - table_at);
  __builtin_memcpy(head.data() + size_at, &size, sizeof size);
  number(checksum(std::as_bytes(std::span(head))));
  return head;
}

/// Writes a file of sections; the previous file is kept as previous_of(path). Errors: errc::io,
/// errc::invalid (names that are too many or not unique).
inline result<void> write_checkpoint_file(const std::string& path,
                                          const std::vector<key_value>& metadata,
                                          const std::vector<section>& sections) LINNET_TRY {
  for (std::size_t i = 0; i < sections.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (sections[i].name == sections[j].name)
        return detail::failure(errc::invalid, path, printable(sections[i].name),
                               "one section of this name", "two");
  const std::string head = checkpoint_file_head(metadata, sections);
  if (head.size() > longest_sections_table)
    return detail::failure(errc::invalid, path, "names of sections",
                           "at most " + std::to_string(longest_sections_table) + " bytes",
                           std::to_string(head.size()));
  file_writer file(path, true);
  file.write(std::as_bytes(std::span(head)));
  for (const section& one : sections) file.write(one.bytes);
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

}  // namespace detail

LINNET_NAMESPACE_END
#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

/// The bytes of `object` as a section of a checkpoint, such as a position in the data or a
/// random_stream. The object has to live as long as the section.
template <class T>
section as_section(std::string name, const T& object) {
  static_assert(std::is_trivially_copyable_v<T>, "linnet::as_section: an object that is its bytes");
  return {std::move(name), std::as_bytes(std::span(&object, 1))};
}

/// Contents of a checkpoint besides the trainer's state.
struct checkpoint {
  /// A section of your own.
  struct entry {
    std::string name;
    std::vector<std::byte> bytes;
  };
  std::string path;          ///< the file that was read
  std::string note;          ///< if that is the one before: what is wrong with the newest
  std::vector<entry> own{};  ///< in the order in which they were saved

  /// Bytes of the section of that name, or null.
  const std::vector<std::byte>* find(std::string_view name) const {
    const auto at = std::ranges::find(own, name, &entry::name);
    return at != own.end() ? &at->bytes : nullptr;
  }
  /// Sets `object` to the bytes that as_section() wrote; false, and unchanged, without such a
  /// section.
  template <class T>
  bool read(std::string_view name, T& object) const {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::vector<std::byte>* const bytes = find(name);
    if (!bytes || bytes->size() != sizeof object) return false;
    __builtin_memcpy(&object, bytes->data(), sizeof object);
    return true;
  }
};

namespace detail {

/// Prefix of the names of the trainer's own sections.
inline constexpr std::string_view reserved = "linnet.";

/// Description of a trainer's type in a checkpoint: the model's metadata, and a digest of the names
/// and shapes of its tensors.
template <class Trainer>
std::vector<key_value> trainer_metadata() {
  using M = typename Trainer::model;
  using optimizer = typename Trainer::optimizer_type;
  std::vector<key_value> all = metadata_of<M>();
  all.push_back({"tensors", tensors_digest<M>()});
  all.push_back({"scalar", std::is_same_v<typename Trainer::scalar, double> ? "f64" : "f32"});
  if constexpr (requires { optimizer::name(); })
    all.push_back({"optimizer", std::string(optimizer::name())});
  else
    all.push_back({"optimizer", "custom"});
  if constexpr (requires { Trainer::compute_type::kept(); })
    all.push_back({"compute", Trainer::compute_type::kept()});
  return all;
}

/// Refuses a checkpoint of an adapter with other options or another base. Older ones say nothing of
/// them.
template <class Trainer>
result<void> check_adapter_checkpoint(const Trainer& train, const section_file& file,
                                      const std::string& where) {
  return check_adapter_notes(
      train.current().tree(), where, peft_base::same, "training goes on with its own base alone",
      [&](const std::string& key) {
        const auto said = std::ranges::find(file.metadata, key, &key_value::key);
        return said == file.metadata.end() ? nullptr : &said->value;
      });
}

/// Calls f(name, bytes) for each block of the trainer that a checkpoint at `progress` holds.
template <class Trainer, class F>
void visit_blocks(Trainer& train, const training_progress& progress, F&& f) {
  train.visit_state([&](std::string_view name, std::span<std::byte> bytes) {
    if (name != "gradients" || progress.accumulating())
      f(std::string(reserved).append(name), bytes);
  });
}

}  // namespace detail

/// Saves the whole state of a run, and sections of your own, between any two calls of the trainer.
/// Names of your sections must not begin with "linnet.". The file is complete on the disk before it
/// gets its name. The one before is kept as `path`.previous, beside the target of a symbolic link.
/// Settings (of the optimizer, of the trainer, limits) belong to the program. Errors: errc::io;
/// errc::invalid (a name; a trainer that stopped(), so that the last good checkpoint stays).
template <class Trainer>
result<void> save_checkpoint(const std::string& path, Trainer& train,
                             const std::vector<section>& own = {}) LINNET_TRY {
  if (!detail::fits_metadata<true, typename Trainer::model>()) return {};
  const training_progress progress = train.progress();
  if (train.stopped())
    return error{errc::invalid, path, "trainer", "one that goes on",
                 "one that stopped after step " + std::to_string(progress.steps) + ": " +
                     std::string(train.last_refusal())};
  std::vector<section> sections{as_section(std::string(detail::reserved) + "progress", progress)};
  detail::visit_blocks(train, progress, [&](std::string name, std::span<const std::byte> bytes) {
    sections.push_back({std::move(name), bytes});
  });
  for (const section& one : own) {
    if (one.name.starts_with(detail::reserved))
      return error{errc::invalid, path, detail::printable(one.name),
                   "a name that does not begin with linnet.", "this one"};
    sections.push_back(one);
  }
  auto metadata = detail::trainer_metadata<Trainer>();
  for (detail::key_value& one : detail::notes_of_adapter(train.current().tree()))
    metadata.push_back(std::move(one));
  return detail::write_checkpoint_file(path, metadata, sections);
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Restores a trainer from the bytes of a checkpoint of a trainer of the same type; `where` names
/// the file in errors. The trainer is untouched unless all of it fits. Errors: errc::malformed
/// (damage), errc::unsupported (another version), errc::mismatch (another model, scalar type or
/// optimizer; an adapter of other lora_options or another base), errc::missing.
template <class Trainer>
result<checkpoint> load_checkpoint(std::span<const std::byte> bytes, Trainer& train,
                                   const std::string& where = "checkpoint") LINNET_TRY {
  if (!detail::fits_metadata<true, typename Trainer::model>()) return error{};
  const auto file = detail::parse_sections(bytes, where);
  if (!file) return file.error();
  for (const detail::key_value& one : detail::trainer_metadata<Trainer>()) {
    const auto said = std::ranges::find(file->metadata, one.key, &detail::key_value::key);
    const bool there = said != file->metadata.end();
    if (!there || said->value != one.value)
      return error{errc::mismatch, where, one.key, one.value + " (the trainer's type)",
                   there ? detail::printable(said->value) : "nothing"};
  }
  if (auto fit = detail::check_adapter_checkpoint(train, *file, where); !fit) return fit.error();

  std::optional<error> failure;
  std::size_t used = 0;
  const auto look_up = [&](const std::string& name, std::size_t size) {
    const section* const found = file->find(name);
    if (found && found->bytes.size() == size) return ++used, found;
    if (!failure)
      failure = error{found ? errc::mismatch : errc::missing, where, name,
                      std::to_string(size) + " bytes",
                      found ? std::to_string(found->bytes.size()) : "no such section"};
    return static_cast<const section*>(nullptr);
  };
  training_progress progress;
  const section* const counters =
      look_up(std::string(detail::reserved) + "progress", sizeof progress);
  if (!counters) return *failure;
  __builtin_memcpy(&progress, counters->bytes.data(), sizeof progress);
  if (auto fit = detail::acceptable(where.c_str(), counters->name, progress); !fit)
    return error{errc::malformed, where, fit.error().what, fit.error().expected, fit.error().got};
  struct block {
    std::span<std::byte> to;
    const section* from;
  };
  std::vector<block> blocks;
  detail::visit_blocks(train, progress, [&](const std::string& name, std::span<std::byte> to) {
    blocks.push_back({to, look_up(name, to.size())});
  });
  if (failure) return *failure;

  std::size_t room = 0;
  for (const section& one : file->sections)
    if (!one.name.starts_with(detail::reserved)) room += one.bytes.size();
  if (!detail::has_memory(room)) return detail::out_of_memory(where);
  checkpoint all{where, {}};
  for (const section& one : file->sections)
    if (!one.name.starts_with(detail::reserved))
      all.own.push_back({one.name, {one.bytes.begin(), one.bytes.end()}});
  if (used + all.own.size() != file->sections.size())
    return error{errc::mismatch, where, "sections", std::to_string(used) + " of the trainer",
                 std::to_string(file->sections.size() - all.own.size())};
  train.visit_state([](std::string_view name, std::span<std::byte> to) {
    if (name == "gradients") std::ranges::fill(to, std::byte{0});
  });
  for (const block& one : blocks) std::ranges::copy(one.from->bytes, one.to.begin());
  if (auto resumed = train.resume(progress); !resumed) return resumed.error();
  return all;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Restores a trainer from a checkpoint file. If it is absent or damaged, it loads the complete
/// file that a killed process left as `path`.partial, which then gets the name. Or else it loads
/// `path`.previous. In both cases note says what was wrong. A damaged file is set aside as
/// `path`.damaged. Errors also: errc::io, errc::out_of_memory; errc::missing if there is neither
/// `path` nor `path`.previous.
template <class Trainer>
result<checkpoint> load_checkpoint(const std::string& path, Trainer& train) LINNET_TRY {
  const auto load = [&](const std::string& name) -> result<checkpoint> {
    const auto file = read_file(name);
    return file ? load_checkpoint(file->bytes(), train, name) : result<checkpoint>(file.error());
  };
  auto newest = load(path);
  if (newest) return newest;
  const std::string target = detail::target_of(path), previous = detail::previous_of(target);
  if (!detail::exists(target) && !detail::exists(previous))
    return error{errc::missing, path, "", "a checkpoint", "none"};
  const error why = newest.error();
  if (why.code != errc::io && why.code != errc::malformed) return newest;
  // Set aside, or the next save would keep it as the one before instead of the good one.
  const auto instead = [&](result<checkpoint>& loaded) {
    loaded->note = why.message();
    if (why.code == errc::malformed)
      (void)std::rename(target.c_str(), detail::damaged_of(target).c_str());
  };
  for (int number = 0; number < detail::most_writers; ++number) {
    const std::string partial = detail::partial_of(target, number);
    const detail::descriptor locked = detail::abandoned(partial);
    if (!locked) continue;
    auto complete = load(partial);
    if (!complete) continue;
    instead(complete);
    if (!detail::exists(target)) (void)std::rename(partial.c_str(), target.c_str());
    return complete;
  }
  auto older = load(previous);
  if (!older) return why;
  instead(older);
  return older;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
#endif
