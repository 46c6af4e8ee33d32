// SPDX-License-Identifier: MIT
#include "console.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>

namespace support {

namespace {

constexpr std::array stop_signals{SIGINT, SIGTERM, SIGHUP};
static_assert(std::atomic<int>::is_always_lock_free);
std::atomic<int> asked{0};
bool says_nothing = false;
std::array<struct sigaction, stop_signals.size()> before{};

extern "C" void ask_to_stop(int signal) { asked = signal; }

void put_raw(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
    throw failure("cannot write to standard output");
}

}  // namespace

void prepare_console() {
  // Opened in this order, each takes the lowest free number: its own.
  constexpr std::array modes{O_RDONLY, O_RDONLY, O_WRONLY};  // results of a closed output fail
  for (int stream = 0; stream < 3; ++stream)
    if (fcntl(stream, F_GETFD) == -1)
      (void)open("/dev/null", modes[static_cast<std::size_t>(stream)]);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void be_quiet(bool quiet) { says_nothing = quiet; }
bool is_quiet() { return says_nothing; }

void detail::write_message(std::string_view text) {
  if (!says_nothing) std::fputs(printable(text).c_str(), stderr);
}
void detail::write_result(std::string_view text) {
  if (!says_nothing) put_raw(printable(text));
}

void put_text(std::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO) == 1;
  put_raw(terminal ? printable(text) : std::string(text));
  flush_output();
}

void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    throw failure("cannot write to standard output");
}

stop_requests::stop_requests() {
  asked = 0;
  struct sigaction once {};
  once.sa_handler = ask_to_stop;
  once.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  for (std::size_t i = 0; i < stop_signals.size(); ++i) {
    sigaction(stop_signals[i], &once, &before[i]);
    if (before[i].sa_handler == SIG_IGN) sigaction(stop_signals[i], &before[i], nullptr);
  }
}

stop_requests::~stop_requests() {
  for (std::size_t i = 0; i < stop_signals.size(); ++i)
    sigaction(stop_signals[i], &before[i], nullptr);
}

int stop_requests::received() { return asked; }

}  // namespace support
