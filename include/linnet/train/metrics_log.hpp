// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Figures of a run (loss, rate, tokens, seconds, ...) as JSON lines or CSV, one line per step.
/// Opt-in, through linnet/json.hpp.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <linnet/file/file.hpp>
#include <linnet/file/json.hpp>

LINNET_NAMESPACE_BEGIN

/// A log that a resumed run continues: lines after the step of its checkpoint are dropped, so no
/// step is logged twice. Movable. CSV if the path ends in .csv, else JSON lines.
class metrics_log {
 public:
  /// Opens the log, with these columns after "step". Of what is there, the lines up to step `last`
  /// stay; 0 begins anew. Lines that are lost or damaged stop no run: note() says so, and a damaged
  /// file is kept as `path`.damaged. Errors: errc::io; errc::mismatch (the file has other columns);
  /// errc::out_of_memory.
  static result<metrics_log> open(const std::string& path, std::vector<std::string> columns,
                                  index last = 0) LINNET_TRY {
    metrics_log log;
    log.path_ = path;
    log.csv_ = path.ends_with(".csv");
    log.columns_ = std::move(columns);
    std::string kept;
    if (log.csv_) {
      kept = "step";
      for (const std::string& name : log.columns_) kept += ',' + csv_quoted(name);
      kept += '\n';
    }
    if (last > 0)
      if (auto read = log.keep_lines(kept, last); !read) return read.error();
    auto file = line_file::open(path, kept);
    if (!file) return file.error();
    log.file_.emplace(*std::move(file));
    return log;
  }
  LINNET_OR_OUT_OF_MEMORY(path)
  /// Description of a fault in the lines up to the step that open() was given; empty if there is
  /// none.
  const std::string& note() const { return note_; }

  /// Adds a line: the figures of step `step` in the order of the columns. Numbers that are not
  /// finite are null in JSON, empty in CSV. Errors: errc::io, errc::invalid (another number of
  /// figures).
  result<void> write(index step, std::span<const double> figures) LINNET_TRY {
    if (figures.size() != columns_.size())
      return error{errc::invalid, path_, "figures", std::to_string(columns_.size()),
                   std::to_string(figures.size())};
    std::string line = csv_ ? "" : std::string(before_step);
    line += std::to_string(step);
    for (std::size_t i = 0; i < figures.size(); ++i) {
      line += ',';
      if (!csv_) line += detail::json_quoted(columns_[i]) + ':';
      if (is_finite(figures[i]))
        line += detail::number_text(figures[i]);
      else if (!csv_)
        line += "null";
    }
    line += csv_ ? "\n" : "}\n";
    return file_->write(line);
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  /// Waits until all lines are on the disk. Call it before each save_checkpoint(), so that the log
  /// of a run that is resumed there has lost none. Errors: errc::io.
  result<void> sync() { return file_->sync(); }

 private:
  static constexpr std::string_view before_step = "{\"step\":";

  /// A field of CSV, quoted as RFC 4180 says where it must be.
  static std::string csv_quoted(const std::string& field) {
    if (field.find_first_of(",\"\r\n") == field.npos) return field;
    std::string quoted = "\"";
    for (const char c : field) quoted.append(c == '"' ? 2 : 1, c);
    return quoted + '"';
  }
  /// Adds to the header the lines of the file up to step `last`. A line that was not ended is of no
  /// checkpoint.
  result<void> keep_lines(std::string& kept, index last) {
    const auto file = read_file(path_);
    if (!file && file.error().code == errc::out_of_memory) return file.error();
    const std::string header = kept;
    std::string_view text;
    if (file) text = {reinterpret_cast<const char*>(file->data()), file->size()};
    if (const auto first = text.substr(0, text.find('\n')); text.starts_with(header))
      text.remove_prefix(header.size());
    else if (first.size() < text.size() && first.find('\0') == first.npos)
      return error{errc::mismatch, path_, "columns",
                   detail::printable(std::string_view(header).substr(0, header.size() - 1)),
                   detail::printable(first)};
    index damaged = 0, step = 0;
    for (std::size_t end = 0; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1)) {
      const index next = step_of(text.substr(0, end));
      damaged += next < step;
      if (next < step || next > last) continue;
      kept += text.substr(0, end + 1);
      step = next;
    }
    damaged += text.find('\0') != text.npos;  // a block that never came to the disk
    if (!file)
      note_ = file.error().message();
    else if (damaged > 0)
      note_ = path_ + ": expected lines of steps, got " + std::to_string(damaged) + " damaged";
    else if (step == 0)
      note_ = path_ + ": expected lines up to step " + std::to_string(last) + ", got none";
    if (!file || damaged > 0) detail::set_aside(path_);
    return {};
  }
  /// The step of a line; -1 for one that write() did not write.
  index step_of(std::string_view line) const {
    if (!csv_) {
      if (!line.starts_with(before_step) || !line.ends_with('}')) return -1;
      line.remove_prefix(before_step.size());
    }
    if (csv_ && std::ranges::count(line, ',') != std::ssize(columns_)) return -1;
    index step = -1;
    const auto end = std::from_chars(line.data(), line.data() + line.size(), step);
    return end.ec == std::errc() ? step : -1;
  }
  std::string path_, note_;
  bool csv_ = false;
  std::vector<std::string> columns_;
  std::optional<line_file> file_;
};

LINNET_NAMESPACE_END
