// SPDX-License-Identifier: MIT
// Whole files: what is read, what is refused, that a failed write leaves nothing behind, and what
// becomes of links, modes, pipes and of writers that are killed or many.

#include "support/child.hpp"
#include "support/data.hpp"
#include "system_calls.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

namespace test::file_test {

namespace ln = linnet;
namespace fs = std::filesystem;
using test::bytes;
using test::contents;
using test::end_of_child;
using test::message;
using test::start_child;

namespace {

/// Files in a folder.
std::ptrdiff_t count(const std::string& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

/// Owner, group and mode.
std::array<unsigned, 3> facts(const std::string& path) {
  struct stat s {};
  BOOST_REQUIRE(lstat(path.c_str(), &s) == 0);
  return {s.st_uid, s.st_gid, s.st_mode};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(files)

BOOST_AUTO_TEST_CASE(round_trip) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a"), text("x\0y\n", 4);
  LINNET_REQUIRE_OK(ln::write_file(path, test::bytes(text)));
  BOOST_TEST(test::contents(path) == text);
  LINNET_REQUIRE_OK(ln::write_file(path, {}));
  BOOST_TEST(test::contents(path) == "");
  BOOST_TEST(!std::filesystem::exists(path + ".partial"));
}

BOOST_AUTO_TEST_CASE(refusals) {
  const test::scratch_folder folder;
  const std::string absent = folder.path("none"), deep = folder.path("none/a");
  BOOST_TEST(test::message(ln::read_file(absent)) ==
             absent + ": expected a readable file, got No such file or directory");
  BOOST_TEST(test::message(ln::read_file(folder.path())) ==
             folder.path() + ": expected a readable file, got Is a directory");
  BOOST_TEST(test::message(ln::read_file("/dev/zero")) ==
             "/dev/zero: expected a regular file, got a device");
  BOOST_TEST(test::message(ln::read_file("/proc/self/stat")) ==
             "/proc/self/stat: expected a regular file, got one without a size");
  BOOST_TEST(test::message(ln::write_file(deep, {})) ==
             deep + ": expected a file that can be written, got No such file or directory");
  BOOST_TEST((ln::read_file(absent).error().code == ln::errc::io));
}

BOOST_AUTO_TEST_CASE(failed_write_keeps_the_old_file) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  std::filesystem::create_directory(path);  // cannot be replaced by a file
  for (const fs::perms mode : {fs::perms::owner_all, fs::perms::owner_read}) {
    fs::permissions(path, mode);
    BOOST_TEST(message(ln::write_file(path, bytes("new"))) ==
               path + ": expected a file that can be written, got Is a directory");
  }
  BOOST_TEST(std::filesystem::is_directory(path));
  BOOST_TEST(!std::filesystem::exists(path + ".partial"));
  {
    ln::detail::file_writer abandoned(folder.path("b"));
    abandoned.write(test::bytes("half"));
  }
  BOOST_TEST(std::filesystem::is_empty(path));
  BOOST_TEST(!std::filesystem::exists(folder.path("b")));
  BOOST_TEST(!std::filesystem::exists(folder.path("b.partial")));
}

// Nobody waits for what cannot be read.
BOOST_AUTO_TEST_CASE(a_pipe_as_input) {
  const test::scratch_folder folder;
  const std::string pipe = folder.path("pipe"), link = folder.path("link");
  BOOST_REQUIRE(mkfifo(pipe.c_str(), 0666) == 0);
  fs::create_symlink(pipe, link);
  BOOST_TEST(message(ln::read_file(pipe)) == pipe + ": expected a regular file, got a pipe");
  BOOST_TEST(message(ln::read_file(link)) == link + ": expected a regular file, got a pipe");
  BOOST_TEST(message(ln::mapped_file::open(pipe)) ==
             pipe + ": expected a regular file, got a pipe");
  // Somebody who writes into it goes on waiting.
  const pid_t writer = start_child([&] {
    alarm(60);
    return open(pipe.c_str(), O_WRONLY) < 0;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  BOOST_TEST(!ln::read_file(pipe));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  BOOST_TEST(waitpid(writer, nullptr, WNOHANG) == 0);
  kill(writer, SIGKILL);
  (void)end_of_child(writer);
  BOOST_TEST(message(ln::corpus::open("/dev/null")) ==
             "/dev/null: expected a regular file, got a device");
}

BOOST_AUTO_TEST_CASE(pipes_and_devices_are_written) {
  const test::scratch_folder folder;
  const std::string pipe = folder.path("pipe"), long_text(100'000, 'x');
  BOOST_REQUIRE(mkfifo(pipe.c_str(), 0666) == 0);
  BOOST_TEST(message(ln::write_file(pipe, bytes("x"))) ==
             pipe + ": expected a file that can be written, got a pipe that nobody reads");
  const pid_t writer = start_child([&] { return ln::write_file(pipe, bytes(long_text)) ? 0 : 1; });
  std::string got(long_text.size() + 1, '\0');
  {
    std::FILE* const from = std::fopen(pipe.c_str(), "rb");
    got.resize(std::fread(got.data(), 1, got.size(), from));
    std::fclose(from);
  }
  BOOST_TEST(end_of_child(writer) == 0);
  BOOST_TEST((got == long_text));
  BOOST_TEST(fs::is_fifo(pipe));

  LINNET_REQUIRE_OK(ln::write_file("/dev/null", bytes(long_text)));
  BOOST_TEST(fs::is_character_file("/dev/null"));
  for (const std::string& text : {std::string("x"), long_text})
    BOOST_TEST(message(ln::write_file("/dev/full", bytes(text))) ==
               "/dev/full: expected to write the whole file, got No space left on device");
  BOOST_TEST(message(ln::write_file("/dev/fd/250", bytes("x"))) ==
             "/dev/fd/250: expected a file that can be written, got Bad file descriptor");

  // An open file is written where it stands, and what is there stays.
  const std::string out = folder.path("out");
  BOOST_TEST(end_of_child(start_child([&] {
               const int file = open(out.c_str(), O_WRONLY | O_CREAT, 0666);
               if (dup2(file, 1) != 1 || write(1, "a", 1) != 1) return 1;
               if (!ln::write_file("/dev/stdout", bytes("b"))) return 2;
               if (!ln::write_file("/dev/fd/1", bytes("c"))) return 3;
               return write(1, "d", 1) == 1 ? 0 : 4;
             })) == 0);
  BOOST_TEST(contents(out) == "abcd");
}

// A reader that takes its time, signals that interrupt, and an output that somebody made to refuse
// what it cannot take at once.
BOOST_AUTO_TEST_CASE(a_slow_pipe_gets_all) {
  const std::string long_text(300'000, 'x');
  int ends[2];
  BOOST_REQUIRE(pipe(ends) == 0);
  for (const bool refuses : {false, true}) {
    const pid_t writer = start_child([&] {
      struct sigaction nothing {};
      nothing.sa_handler = [](int) {};
      sigaction(SIGALRM, &nothing, nullptr);
      const itimerval often{{0, 500}, {0, 500}};
      setitimer(ITIMER_REAL, &often, nullptr);
      if (dup2(ends[1], 1) != 1 || fcntl(1, F_SETFL, refuses ? O_NONBLOCK : 0) != 0) return 2;
      return ln::write_file("/dev/stdout", bytes(long_text)) ? 0 : 1;
    });
    std::string got(long_text.size(), '\0');
    for (std::size_t n = 0; n < got.size();) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      n += static_cast<std::size_t>(read(ends[0], got.data() + n, got.size() - n));
    }
    BOOST_TEST(end_of_child(writer) == 0);
    BOOST_TEST((got == long_text));
  }
  close(ends[0]);
  close(ends[1]);
}

BOOST_AUTO_TEST_CASE(links_lead_to_the_file) {
  const test::scratch_folder folder;
  fs::create_directory(folder.path("d"));
  const std::string file = folder.path("d/file"), link = folder.path("link"),
                    second = folder.path("second");
  fs::create_symlink("d/file", link);  // relative, and to nothing yet
  fs::create_symlink(link, second);
  for (const std::string text : {"new", "again"}) {
    LINNET_REQUIRE_OK(ln::write_file(second, bytes(text)));
    BOOST_TEST(contents(file) == text);
    BOOST_TEST(fs::is_symlink(link));
    BOOST_TEST(fs::is_symlink(second));
  }
  BOOST_TEST(count(folder.path()) == 3);
  BOOST_TEST(count(folder.path("d")) == 1);
  fs::create_symlink("loop", folder.path("loop"));
  BOOST_TEST(message(ln::write_file(folder.path("loop"), bytes("x"))) ==
             folder.path("loop") + ": expected a file that can be written, got " +
                 std::generic_category().message(ELOOP));
}

BOOST_AUTO_TEST_CASE(mode_and_owner_stay) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  const mode_t before = umask(027);
  LINNET_REQUIRE_OK(ln::write_file(path, bytes("old")));
  umask(before);
  BOOST_TEST((facts(path)[2] & 07777) == 0640);
  const bool root = geteuid() == 0;
  if (root) BOOST_REQUIRE(chown(path.c_str(), 12345, 54321) == 0);
  for (const mode_t mode : {0600u, 0644u, 0660u, 0755u}) {
    BOOST_REQUIRE(chmod(path.c_str(), mode) == 0);
    const auto old = facts(path);
    LINNET_REQUIRE_OK(ln::write_file(path, bytes("new")));
    BOOST_TEST(facts(path) == old, boost::test_tools::per_element());
  }
  // Who cannot give the file away gives nobody new a right to it.
  if (!root) return;
  BOOST_REQUIRE(chmod(folder.path().c_str(), 0777) == 0);
  BOOST_REQUIRE(chmod(path.c_str(), 04662) == 0);
  const auto by_another = [&] {
    return end_of_child(start_child([&] {
      if (setgid(777) != 0 || setuid(777) != 0) return 2;
      return ln::write_file(path, bytes("x")) ? 0 : 1;
    }));
  };
  BOOST_TEST(by_another() == 0);
  BOOST_TEST(facts(path) == (std::array<unsigned, 3>{777, 777, S_IFREG | 0622}),
             boost::test_tools::per_element());
  BOOST_REQUIRE(chown(path.c_str(), 0, 0) == 0);
  BOOST_REQUIRE(chmod(path.c_str(), 0644) == 0);
  BOOST_TEST(by_another() == 1);  // a file that is not theirs to write
  BOOST_TEST(facts(path) == (std::array<unsigned, 3>{0, 0, S_IFREG | 0644}),
             boost::test_tools::per_element());
  BOOST_TEST(count(folder.path()) == 1);
}

// Failures between the first byte and the last, in the call that hands them to the system.
BOOST_AUTO_TEST_CASE(a_full_disk_keeps_the_old_file) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a"), long_text(10'000, 'x');
  LINNET_REQUIRE_OK(ln::write_file(path, bytes("old")));
  for (const std::size_t most : {0u, 1u, 4095u, 4096u, 9'999u, 10'000u}) {
    const int status = end_of_child(start_child([&] {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{most, most};
      setrlimit(RLIMIT_FSIZE, &limit);
      return ln::write_file(path, bytes(long_text)) ? 0 : 1;
    }));
    BOOST_TEST(status == (most < long_text.size() ? 1 : 0));
    BOOST_TEST((contents(path) == (status == 0 ? long_text : "old")));
    BOOST_TEST(count(folder.path()) == 1);
  }
}

BOOST_AUTO_TEST_CASE(before_long_work) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  LINNET_REQUIRE_OK(ln::check_writable(path));
  LINNET_REQUIRE_OK(ln::check_writable("/dev/null"));
  BOOST_TEST(count(folder.path()) == 0);
  BOOST_TEST(!ln::check_writable(folder.path()));
  BOOST_TEST(!ln::check_writable(""));
  BOOST_TEST(!ln::check_writable(folder.path("a") + std::string("\0b", 2)));
  BOOST_TEST(!ln::check_writable(folder.path("none/a")));
  LINNET_REQUIRE_OK(ln::write_file(path, bytes("old")));
  LINNET_REQUIRE_OK(ln::check_writable(path));
  BOOST_TEST(contents(path) == "old");
  BOOST_TEST(
      message(ln::check_writable(folder.path(std::string(250, 'x'))))
          .ends_with(": expected a name with room for .partial behind it, got File name too long"));
}

// Several processes save to one path, and others look at it: whoever says it is done has written
// a whole file, and there is one at every moment.
BOOST_AUTO_TEST_CASE(several_writers_of_one_path) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  const auto text = [](char c) { return std::string(50'000 + static_cast<std::size_t>(c), c); };
  LINNET_REQUIRE_OK(ln::write_file(path, bytes(text('a'))));
  std::vector<pid_t> writers;
  for (const char c : {'a', 'b', 'c'})
    writers.push_back(start_child([&] {
      const std::string mine = text(c);
      for (int i = 0; i < 40; ++i)
        if (!ln::write_file(path, bytes(mine))) return 1;
      return 0;
    }));
  int torn = 0, looks = 0;
  const auto look = [&] {
    const std::string got = contents(path);
    torn += got.empty() || got != text(got[0]);
    ++looks;
  };
  while (waitpid(writers[0], nullptr, WNOHANG) == 0) look();
  BOOST_TEST(end_of_child(writers[1]) == 0);
  BOOST_TEST(end_of_child(writers[2]) == 0);
  look();
  BOOST_TEST(torn == 0);
  BOOST_TEST(looks > 2);
  BOOST_TEST(count(folder.path()) == 1);
}

// Two writers at once have two names. What a killed one leaves goes with the next, what a living
// one writes stays.
BOOST_AUTO_TEST_CASE(killed_writers_leave_no_heap) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  const auto begin = [&](bool live) {
    const pid_t child = start_child([&] {
      alarm(60);  // outlives no failed test
      ln::detail::file_writer writer(path);
      writer.write(bytes("half"));
      if (!writer.flush()) return 1;
      std::ofstream(folder.path("ready"));
      pause();
      return 0;
    });
    while (!fs::exists(folder.path("ready")) && test::runs(child)) std::this_thread::yield();
    fs::remove(folder.path("ready"));
    if (!live) {
      kill(child, SIGKILL);
      BOOST_TEST(end_of_child(child) == -SIGKILL);
    }
    return child;
  };
  for (int i = 0; i < 5; ++i) begin(false);
  BOOST_TEST(count(folder.path()) == 1);
  const pid_t alive = begin(true), other = begin(true);
  BOOST_TEST(count(folder.path()) == 2);
  for (int i = 0; i < 5; ++i) begin(false);
  BOOST_TEST(count(folder.path()) == 3);
  LINNET_REQUIRE_OK(ln::write_file(path, bytes("whole")));
  BOOST_TEST(contents(path) == "whole");
  BOOST_TEST(count(folder.path()) == 3);
  BOOST_TEST(contents(path + ".partial") == "half");
  kill(alive, SIGKILL);
  kill(other, SIGKILL);
  (void)end_of_child(alive);
  (void)end_of_child(other);
  LINNET_REQUIRE_OK(ln::write_file(path, bytes("again")));
  BOOST_TEST(count(folder.path()) == 1);

  // What is no file of a writer is not touched.
  fs::create_directory(path + ".partial");
  fs::create_symlink("/dev/full", path + ".1.partial");
  BOOST_REQUIRE(mkfifo((path + ".2.partial").c_str(), 0666) == 0);
  LINNET_REQUIRE_OK(ln::write_file(path, bytes("and again")));
  BOOST_TEST(contents(path) == "and again");
  BOOST_TEST(count(folder.path()) == 4);
}

// Between the making of a temporary file and its lock, another process can take it for one that was
// left, and remove it.
BOOST_AUTO_TEST_CASE(a_temporary_file_that_is_swept_is_made_again) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  test::system_calls calls;
  calls.before_lock = [&] { BOOST_TEST(fs::remove(path + ".partial")); };
  LINNET_REQUIRE_OK(ln::write_file(path, bytes("whole")));
  BOOST_TEST(!calls.before_lock);
  BOOST_TEST(contents(path) == "whole");
  BOOST_TEST(count(folder.path()) == 1);
}

// Killed at random moments: the old or the new, and at most one more file.
BOOST_AUTO_TEST_CASE(killed_while_writing) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a"), old(30'000, 'o'), fresh(40'000, 'f');
  LINNET_REQUIRE_OK(ln::write_file(path, bytes(old)));
  ln::random_stream random(ln::seed{3});
  for (int i = 0; i < 20; ++i) {
    const pid_t child = start_child([&] {
      alarm(60);
      for (;;)
        for (const std::string* text : {&fresh, &old})
          if (!ln::write_file(path, bytes(*text))) return 1;
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(20'000)));
    kill(child, SIGKILL);
    BOOST_REQUIRE(end_of_child(child) == -SIGKILL);
    const std::string got = contents(path);
    BOOST_REQUIRE((got == old || got == fresh));
    BOOST_REQUIRE(count(folder.path()) <= 2);
  }
}

// On the disk before it has its name, and the name after that; the old file stays if one fails.
BOOST_AUTO_TEST_CASE(the_disk_comes_first) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  const auto write = [&](const char* text, int fail_at) {
    test::system_calls calls;
    calls.fail_at = {fail_at};
    const auto done = ln::write_file(path, bytes(text));
    return calls.made + (done ? "" : ' ' + done.error().got);
  };
  BOOST_TEST(write("old", -1) == "FRf");
  const std::string failed = ' ' + std::generic_category().message(EIO);
  BOOST_TEST(write("new", 0) == "F" + failed);
  BOOST_TEST(write("new", 1) == "FR" + failed);
  BOOST_TEST(contents(path) == "old");
  BOOST_TEST(write("new", 2) == "FRf" + failed);  // it has the name, but not for sure
  BOOST_TEST(count(folder.path()) == 1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::file_test
