#pragma once
/// @file
/// Figures of a run (loss, rate, tokens, seconds, ...) as JSON lines or CSV, one line per step.
/// Opt-in, through linnet/json.hpp.

#include <limits>

#include <linnet/io/file.hpp>
#include <linnet/io/json.hpp>

LINNET_NAMESPACE_BEGIN

/// A log that a resumed run goes on with: lines after the step of its checkpoint are dropped, so no
/// step is there twice. Movable. CSV if the path ends in .csv, else JSON lines.
class metrics_log {
 public:
  /// Opens the log, with these columns after "step". Of what is there, the lines up to step `last`
  /// stay; 0 begins anew. Errors: errc::io; errc::mismatch (the file has other columns).
  static result<metrics_log> open(const std::string& path, std::vector<std::string> columns,
                                  index last = 0) LINNET_TRY {
    metrics_log log;
    log.path_ = path;
    log.csv_ = path.ends_with(".csv");
    log.columns_ = std::move(columns);
    std::string kept, header;
    if (log.csv_) {
      header = "step";
      for (const std::string& name : log.columns_) header += ',' + name;
      header += '\n';
    }
    if (last > 0) {
      const auto file = read_file(path);
      if (!file) return file.error();
      const std::string_view text(reinterpret_cast<const char*>(file->data()), file->size());
      if (!text.starts_with(header))
        return error{errc::mismatch, path, "columns",
                     detail::printable(std::string_view(header).substr(0, header.size() - 1)),
                     detail::printable(text.substr(0, text.find('\n')))};
      std::size_t end = header.size();
      for (;;) {
        const std::size_t newline = text.find('\n', end);
        if (newline == text.npos || log.step_of(text.substr(end, newline - end)) > last) break;
        end = newline + 1;
      }
      kept = text.substr(0, end);
    } else {
      kept = header;
    }
    if (auto done = write_file(path, std::as_bytes(std::span(kept))); !done) return done.error();
    log.file_.reset(std::fopen(path.c_str(), "ab"));
    if (!log.file_) return detail::file_error(path, "a file that can be written");
    return log;
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// Adds a line: the figures of step `step` in the order of the columns. Numbers that are not
  /// finite are null in JSON, empty in CSV. Errors: errc::io, errc::invalid (another number of
  /// figures).
  result<void> write(index step, std::span<const double> figures) {
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
    errno = 0;
    if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() ||
        std::fflush(file_.get()) != 0)
      return detail::file_error(path_, "to write a line");
    return {};
  }

 private:
  static constexpr std::string_view before_step = "{\"step\":";

  /// The step of a line; more than any for one that write() did not write.
  index step_of(std::string_view line) const {
    constexpr index none = (std::numeric_limits<index>::max)();
    if (!csv_) {
      if (!line.starts_with(before_step) || !line.ends_with('}')) return none;
      line.remove_prefix(before_step.size());
    }
    index step = 0;
    const auto end = std::from_chars(line.data(), line.data() + line.size(), step);
    return end.ec == std::errc() ? step : none;
  }

  std::string path_;
  bool csv_ = false;
  std::vector<std::string> columns_;
  detail::file_handle file_;
};

LINNET_NAMESPACE_END
