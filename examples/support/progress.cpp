// SPDX-License-Identifier: MIT
#include "progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "console.hpp"

namespace support {

namespace {

constexpr double seconds_between_bars = 0.1, seconds_between_lines = 5;

std::string clock_text(double seconds) {
  const auto whole = static_cast<long>(std::ceil(std::max(seconds, 0.0)));
  return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                      : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

double processor_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

progress::progress() : terminal_(isatty(STDERR_FILENO) == 1) {}

void progress::show(double fraction, double seconds_left, const std::vector<progress_row>& rows) {
  next_ = now() + (terminal_ ? seconds_between_bars : seconds_between_lines);
  if (terminal_) return draw_bars(fraction, seconds_left, rows);
  std::string line = fmt::format("{:3.0f}%  ETA {}", 100 * fraction, clock_text(seconds_left));
  for (const progress_row& row : rows) line += fmt::format("  {}: {}", row.name, row.figures);
  say("{}\n", line);
}

void progress::draw_bars(double fraction, double seconds_left,
                         const std::vector<progress_row>& rows) {
  std::size_t longest = 0;
  for (const progress_row& row : rows) longest = std::max(longest, printable(row.name).size());
  // Rows stay within the terminal: wrapped ones could not be drawn over.
  const std::size_t columns = terminal_columns() - 1;
  std::string screen = drawn_ ? fmt::format("\x1b[{}A", rows.size()) : "";
  for (const progress_row& row : rows) {
    const std::string tail = fmt::format("] {:3.0f}%  {}  ETA {}", 100 * fraction, row.figures,
                                         clock_text(seconds_left));
    const std::string head = fmt::format("{:<{}} [", printable(row.name), longest);
    const std::size_t used = head.size() + tail.size();
    const std::size_t width = std::clamp<std::size_t>(columns > used ? columns - used : 0, 4, 40);
    const auto full = static_cast<std::size_t>(fraction * static_cast<double>(width));
    std::string bar(full, '=');
    if (full < width) bar += '>';
    bar.resize(width, ' ');
    screen += "\r\x1b[K" + (head + bar + tail).substr(0, columns) + "\n";
  }
  std::fputs(screen.c_str(), stderr);  // as say() does, but for what moves the cursor
  drawn_ = true;
}

}  // namespace support
