// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Checkpoints: files from which training continues with the same bits. Opt-in, through
/// linnet/checkpoint.hpp.

#include <linnet/file/file.hpp>
#include <linnet/formats/adapter_notes.hpp>
#include <linnet/formats/checkpoint_file.hpp>
#include <linnet/train/trainer.hpp>

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
