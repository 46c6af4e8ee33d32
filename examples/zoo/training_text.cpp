// SPDX-License-Identifier: MIT
#include "training_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <linnet/core/scalars.hpp>

#include "support.hpp"
#include "support/marks.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

/// The paths and names of all files to read.
void find_files(const std::string& path, std::vector<std::string>& paths,
                std::vector<std::string>& names) {
  if (!fs::exists(path)) throw failure("--text: " + path + " does not exist");
  if (!fs::is_directory(path)) {
    paths.push_back(path);
    names.push_back(fs::path(path).filename().string());
    return;
  }
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file() && entry.path().extension() == ".txt" && entry.file_size() > 0)
      found.push_back(entry.path().string());
  if (found.empty()) throw failure("--text: " + path + ": no .txt file with text in it");
  std::sort(found.begin(), found.end());
  for (std::string& file : found) {
    names.push_back(fs::path(file).lexically_relative(path).generic_string());
    paths.push_back(std::move(file));
  }
}

/// "wiki.txt=3,code=1" as groups of the files of these names.
std::vector<text_group> groups_of(const std::string& mix, const std::vector<std::string>& names) {
  std::vector<text_group> groups;
  std::vector<bool> taken(names.size());
  for (std::size_t at = 0; at <= mix.size();) {
    const std::size_t end = std::min(mix.find(',', at), mix.size());
    const std::string item = mix.substr(at, end - at);
    const std::size_t equals = item.rfind('=');
    text_group g{item.substr(0, equals), 0, {}};
    const std::string number = equals == item.npos ? "" : item.substr(equals + 1);
    const auto [last, problem] =
        std::from_chars(number.data(), number.data() + number.size(), g.weight);
    if (problem != std::errc() || last != number.data() + number.size() || !(g.weight > 0) ||
        !ln::is_finite(g.weight))
      throw failure(fmt::format("--mix: '{}': expected name=weight, such as wiki.txt=3", item));
    while (g.name.ends_with('/')) g.name.pop_back();
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i] != g.name && !names[i].starts_with(g.name + "/")) continue;
      if (taken[i]) throw failure(fmt::format("--mix: {} is named twice", names[i]));
      taken[i] = true;
      g.files.push_back(i);
    }
    if (g.files.empty())
      throw failure(
          fmt::format("--mix: there is no text {} (known: {})", g.name, fmt::join(names, ", ")));
    groups.push_back(std::move(g));
    at = end + 1;
  }
  return groups;
}

/// The stretches of a group's files among those of all files.
std::vector<std::string_view> stretches_of(const training_text& of,
                                           const std::vector<std::string_view>& all,
                                           std::size_t group) {
  std::vector<std::string_view> some;
  for (const std::size_t file : of.groups[group].files)
    for (std::size_t i = 0; i < of.texts.stretches; ++i)
      some.push_back(all[file * of.texts.stretches + i]);
  return some;
}

}  // namespace

std::vector<std::string_view> training_text::training(std::size_t group) const {
  return stretches_of(*this, texts.training, group);
}
std::vector<std::string_view> training_text::held_out(std::size_t group) const {
  return stretches_of(*this, texts.held_out, group);
}

training_text read_training_text(const std::vector<std::string>& paths, const std::string& mix) {
  std::vector<std::string> files, names;
  for (const std::string& path : paths) find_files(path, files, names);
  training_text t{support::read_texts(files, names), {}, 0, {}};
  for (std::size_t i = 0; i < names.size(); ++i)
    if (t.texts.files.texts()[i].empty())
      throw failure("--text: " + files[i] + " is empty; give a file with text");
  if (mix.empty()) {
    text_group all{names.size() == 1 ? names[0] : "all texts", 0, {}};
    for (std::size_t i = 0; i < names.size(); ++i) all.files.push_back(i);
    t.groups.push_back(std::move(all));
  } else {
    t.groups = groups_of(mix, names);
  }
  std::uint64_t mark = 0;
  for (const text_group& g : t.groups)
    for (const std::size_t file : g.files) {
      const std::string_view all = t.texts.files.texts()[file];
      t.bytes += std::ssize(all);
      mark = support::mark_of(all, mark);
    }
  t.mark = fmt::format("{:016x}", mark);
  return t;
}

}  // namespace zoo
