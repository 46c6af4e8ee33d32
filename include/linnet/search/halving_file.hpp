// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The file of a search by successive halving: losses that are known, so that it can be resumed.

#include <bit>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <linnet/core/options.hpp>
#include <linnet/core/text_lines.hpp>
#include <linnet/file/file.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of successive_halving().
struct halving_options {
  index keep_one_of = 2;    ///< candidates, of which one goes on to the next round
  index first_steps = 100;  ///< of training in the first round; each next has keep_one_of times so
                            ///< many in all
  index finalists = 1;      ///< the search ends when no more are left

  /// Calls f(name, value, range) for each option, see docs/search.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("keep_one_of", self.keep_one_of, detail::count(2));
    f("first_steps", self.first_steps, detail::count(1));
    f("finalists", self.finalists, detail::count(1));
  }
};

namespace detail {

/// Most candidates of a search.
inline constexpr index most_halving_candidates = 1'000'000;

}  // namespace detail

/// Losses that a search by halving has found so far, in a small text file. Each is on the disk
/// before the next candidate is trained. Movable.
class halving_file {
 public:
  /// Of the file; others are refused.
  static constexpr index version = 1;

  /// Opens the file of a search, or begins one where there is none. `run` is one line that says
  /// what else the losses depend on, such as the space, the text and the seed. A last line that was
  /// cut off is dropped. Errors: errc::invalid for a `run` that is no line of text; errc::io;
  /// errc::malformed; errc::unsupported for another version. The file of another search is
  /// errc::mismatch: give this one its own. Also errc::out_of_memory.
  static result<halving_file> open(const std::string& path, index candidates,
                                   const halving_options& how, std::string_view run) LINNET_TRY {
    if (run.empty() || run.find_first_of("\n\r") != run.npos)
      return detail::failure(errc::invalid, path, "run", "one line of text",
                             detail::printable(run));
    halving_file made;
    made.path_ = path;
    made.search_ = search_line(candidates, how);
    std::string kept =
        title + std::to_string(version) + '\n' + made.search_ + "\nrun " + std::string(run) + '\n';
    if (is_there(path)) {
      const auto file = read_file(path);
      if (!file) return file.error();
      const std::string_view text(reinterpret_cast<const char*>(file->data()),
                                  static_cast<std::size_t>(file->size()));
      if (auto read = made.parse(text, kept, candidates); !read) return read.error();
    }
    auto file = line_file::open(path, kept);
    if (!file) return file.error();
    made.file_.emplace(*std::move(file));
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// How many losses it knows.
  index size() const { return std::ssize(losses_); }
  /// The loss of a candidate in a round, or null.
  const double* find(index round, index candidate) const {
    const auto found = losses_.find({round, candidate});
    return found == losses_.end() ? nullptr : &found->second;
  }
  /// Keeps a loss. Errors: errc::io; errc::out_of_memory.
  result<void> add(index round, index candidate, double loss) LINNET_TRY {
    char digits[20];
    const auto end =
        std::to_chars(digits, digits + sizeof digits, std::bit_cast<std::uint64_t>(loss), 16);
    const std::string line = std::to_string(round) + ' ' + std::to_string(candidate) + ' ' +
                             std::string(digits, end.ptr) + '\n';
    if (auto written = file_->write(line); !written) return written;
    if (auto synced = file_->sync(); !synced) return synced;
    losses_[{round, candidate}] = loss;
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  /// Whether it is of such a search. Errors: errc::mismatch.
  result<void> is_of(index candidates, const halving_options& how) const LINNET_TRY {
    const std::string wanted = search_line(candidates, how);
    if (wanted == search_) return {};
    return detail::failure(errc::mismatch, path_, "search", wanted, search_);
  }
  LINNET_OR_OUT_OF_MEMORY(path_)

 private:
  static constexpr const char* title = "linnet halving ";

  halving_file() = default;
  static std::string search_line(index candidates, const halving_options& how) {
    return "candidates " + std::to_string(candidates) + " keep_one_of " +
           std::to_string(how.keep_one_of) + " first_steps " + std::to_string(how.first_steps) +
           " finalists " + std::to_string(how.finalists);
  }
  /// Whether a file has that name, also one that cannot be read.
  static bool is_there(const std::string& path) {
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    if (!file) return errno != ENOENT;
    std::fclose(file);
    return true;
  }
  /// Reads a number in front of `end`, which must be there.
  template <class N>
  static bool take(std::string_view& line, N& to, int base, bool last) {
    const auto read = std::from_chars(line.data(), line.data() + line.size(), to, base);
    if (read.ec != std::errc() || read.ptr == line.data()) return false;
    line.remove_prefix(static_cast<std::size_t>(read.ptr - line.data()));
    if (last) return line.empty();
    if (!line.starts_with(' ')) return false;
    line.remove_prefix(1);
    return true;
  }
  /// Reads the losses of a file that begins with `kept`, to which their lines are added.
  result<void> parse(std::string_view text, std::string& kept, index candidates) {
    const auto other = [&](errc code, const char* what, std::string_view wanted,
                           std::string_view got) -> result<void> {
      return detail::failure(code, path_, what, wanted, detail::printable(got));
    };
    std::string_view line, wanted = kept;
    if (wanted.starts_with(text)) return {};  // ended as it began
    if (text.rfind('\n') == text.npos) return other(errc::malformed, "", "a file of halving", text);
    text = text.substr(0, text.rfind('\n') + 1);
    line = detail::take_line(text);
    if (!line.starts_with(title)) return other(errc::malformed, "", "a file of halving", line);
    line.remove_prefix(std::string_view(title).size());
    if (line != std::to_string(version))
      return other(errc::unsupported, "version", std::to_string(version), line);
    (void)detail::take_line(wanted);
    for (const char* const what : {"search", "run"}) {
      line = detail::take_line(text);
      const std::string_view right = detail::take_line(wanted);
      if (line != right) return other(errc::mismatch, what, right, line);
    }
    while (!text.empty()) {
      line = detail::take_line(text);
      std::string_view rest = line;
      index round = 0, candidate = 0;
      std::uint64_t bits = 0;
      if (!take(rest, round, 10, false) || !take(rest, candidate, 10, false) ||
          !take(rest, bits, 16, true) || round < 0 || candidate < 0 || candidate >= candidates)
        return other(errc::malformed, "line", "round, candidate and loss", line);
      losses_[{round, candidate}] = std::bit_cast<double>(bits);
      (kept += line) += '\n';
    }
    return {};
  }

  std::string path_, search_;
  std::map<std::pair<index, index>, double> losses_;
  std::optional<line_file> file_;
};

LINNET_NAMESPACE_END
