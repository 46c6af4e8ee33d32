// SPDX-License-Identifier: MIT
#pragma once
// What zoo train learns from: files and folders of text, and their mixture.

#include <string>
#include <string_view>
#include <vector>

#include "support/basics.hpp"
#include "support/texts.hpp"

namespace zoo {

namespace ln = linnet;

/// Files of one source of examples, such as a folder; they are read one behind the other.
struct text_group {
  std::string name;
  double weight = 0;               ///< share of the examples; 0: as many as it has tokens
  std::vector<std::size_t> files;  ///< numbers in `texts::names`
};

/// Texts and how they are mixed.
struct training_text {
  support::texts texts;
  std::vector<text_group> groups;
  ln::index bytes = 0;  ///< of all groups
  std::string mark;     ///< very likely another one for other text

  /// Parts of a group's files, in order.
  std::vector<std::string_view> training(std::size_t group) const;
  std::vector<std::string_view> held_out(std::size_t group) const;
};

/// Reads files, and the .txt files of folders. `mix` names files, or folders in a folder, with
/// their weights, as in "wiki.txt=3,code=1"; what it does not name is left out. Without it, all is
/// one text. Refuses a file that is empty, and names that are not there.
training_text read_training_text(const std::vector<std::string>& paths, const std::string& mix);

}  // namespace zoo
