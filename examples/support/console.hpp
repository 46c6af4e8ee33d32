// SPDX-License-Identifier: MIT
#pragma once
// What a program says, and signals that ask it to end.

#include <fmt/format.h>

#include <string_view>

#include "basics.hpp"

namespace support {

/// To be called first. Opens closed standard streams on nothing, so that no file that is written
/// takes their number. From then on a closed pipe, and a file beyond the limit of sizes (ulimit
/// -f), is a failed write, not the end.
void prepare_console();

namespace detail {
void write_message(std::string_view text);
void write_result(std::string_view text);
}  // namespace detail

/// From then on say() and put() write nothing: one of several processes speaks for all.
void be_quiet(bool quiet);
bool is_quiet();

/// Writes a message to standard error, as printable() shows it. That it cannot be written never
/// ends a program.
template <class... T>
void say(fmt::format_string<T...> format, T&&... values) {
  detail::write_message(fmt::format(format, std::forward<T>(values)...));
}
/// Writes to standard output, as printable() shows it. A failure if that cannot be written.
template <class... T>
void put(fmt::format_string<T...> format, T&&... values) {
  detail::write_result(fmt::format(format, std::forward<T>(values)...));
}
/// Writes a piece of generated text to standard output at once. A terminal gets it as printable()
/// shows it, a file or a pipe byte by byte. A failure if that cannot be written.
void put_text(std::string_view text);
/// Hands on what standard output still holds. A failure if that cannot be written.
void flush_output();

/// While one lives, SIGINT, SIGTERM and SIGHUP ask the program to save and end; a second one ends
/// it at once. A signal that was ignored, as nohup does, stays so.
class stop_requests {
 public:
  stop_requests();
  stop_requests(const stop_requests&) = delete;
  stop_requests& operator=(const stop_requests&) = delete;
  ~stop_requests();

  /// The signal that asked, or 0.
  static int received();
};

/// Ends a program that a signal asked to end, after all is saved: status 128 + the signal.
struct interruption : failure {
  interruption(int number, const std::string& what) : failure(what), signal(number) {}
  int signal;
};

}  // namespace support
