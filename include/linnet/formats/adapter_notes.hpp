// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Notes of adapters in files: the base by its hash, and the options that decide what they compute.

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <linnet/core/key_value.hpp>
#include <linnet/core/options.hpp>
#include <linnet/core/result.hpp>

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
