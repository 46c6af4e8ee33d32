// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Durable files: linnet writes every file under a temporary name beside it, to the disk, and then
/// renames it.

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include <linnet/core/owner.hpp>
#include <linnet/core/result.hpp>

#if defined(_WIN32)  // as windows.h declares it, without all that this defines
extern "C" __declspec(dllimport) int __stdcall MoveFileExA(const char*, const char*, unsigned long);
#endif

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The error of a failed system call on a file.
LINNET_COLD inline error file_error(const std::string& path, const char* expected,
                                    int number = errno) {
  return detail::failure(errc::io, path, "", expected,
                         number != 0 ? std::generic_category().message(number) : "a failure");
}

/// Name under which the previous file is kept.
inline std::string previous_of(const std::string& path) { return path + ".previous"; }

/// Largest number of writers of one file at a time; each has a number from 0 and a name of its own.
inline constexpr int most_writers = 100;
/// Name under which writer `number` works.
inline std::string partial_of(const std::string& path, int number = 0) {
  return path + (number > 0 ? '.' + std::to_string(number) : "") + ".partial";
}

/// Name under which a damaged file is set aside.
inline std::string damaged_of(const std::string& path) { return path + ".damaged"; }

#if defined(__unix__) || defined(__APPLE__)

/// An open file, closed once. Movable.
class descriptor {
 public:
  explicit descriptor(int number = -1) : number_(number) {}
  descriptor(descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() { (void)close(); }

  explicit operator bool() const { return number_ >= 0; }
  int get() const { return number_; }
  /// Closes it; 0 or the number of the error.
  int close() {
    const int number = std::exchange(number_, -1);
    return number < 0 || ::close(number) == 0 || errno == EINTR ? 0 : errno;
  }

 private:
  int number_;
};

/// Number of the open file that /dev/stdout or /dev/fd/N stands for, or -1.
inline int descriptor_of(std::string_view path) {
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    int number = -1;
    const char* const end = path.data() + path.size();
    if (std::from_chars(path.data() + folder.size(), end, number).ptr == end) return number;
  }
  return -1;
}

/// Name that a symbolic link leads to, whether or not there is such a file.
inline std::string target_of(std::string path) {
  for (int links = 0; links < 40 && descriptor_of(path) < 0; ++links) {
    char to[4096];
    const ::ssize_t length = ::readlink(path.c_str(), to, sizeof to);
    if (length <= 0 || length == ::ssize_t{sizeof to}) break;  // is no link
    const std::size_t folder = to[0] == '/' ? 0 : path.rfind('/') + 1;
    path.replace(folder, path.npos, to, static_cast<std::size_t>(length));
  }
  return path;
}

/// Whether any file has that name.
inline bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// Whether the open file still has that name.
inline bool has_name(const descriptor& file, const std::string& path) {
  struct stat here {
  }, there{};
  return ::fstat(file.get(), &here) == 0 && ::lstat(path.c_str(), &there) == 0 &&
         here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/// Opens and locks the temporary file of a writer that was killed; closed if there is none, or
/// while its writer is at work. Writers hold a lock as long as their file has that name.
inline descriptor abandoned(const std::string& partial) {
  descriptor file(::open(partial.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat facts {};
  const bool ours = file && ::fstat(file.get(), &facts) == 0 && S_ISREG(facts.st_mode) &&
                    ::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && has_name(file, partial);
  return ours ? std::move(file) : descriptor();
}

/// Gives a regular file damaged_of() it as a second name, or as its only one where that cannot be.
inline void set_aside(const std::string& path) {
  const std::string target = target_of(path), damaged = damaged_of(target);
  struct stat facts {};
  if (::stat(target.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) return;
  ::unlink(damaged.c_str());
  if (::link(target.c_str(), damaged.c_str()) != 0)
    (void)std::rename(target.c_str(), damaged.c_str());
}

/// Writes a file in pieces. A regular file gets its name, its mode and its owner when it is
/// complete on the disk. So a reader sees the old or the new one, and of several writers one.
/// Devices, pipes and open files such as /dev/stdout are written directly.
class file_writer {
 public:
  /// Begins to write `path`, or the file that it links to. With `keep`, what was there stays as
  /// previous_of() it.
  explicit file_writer(const std::string& path, bool keep = false)
      : path_(path), target_(target_of(path)), keep_(keep) {
    failure_ = open();
    opened_ = failure_ == 0;
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  /// Removes a file that was not committed.
  ~file_writer() { remove_partial(); }

  /// Appends bytes; a failure is remembered.
  void write(std::span<const std::byte> bytes) {
    if (failure_ != 0 || bytes.empty()) return;
    if (bytes.size() > buffer_.size() - used_) send_buffer();
    if (bytes.size() > buffer_.size()) return send(bytes);
    std::memcpy(buffer_.data() + used_, bytes.data(), bytes.size());
    used_ += bytes.size();
  }
  /// Hands written bytes over to the system.
  result<void> flush() {
    send_buffer();
    return state();
  }
  /// Waits until written bytes are on the disk.
  result<void> sync() {
    send_buffer();
    if (failure_ == 0) failure_ = sync(file_);
    return state();
  }
  /// Waits for the disk and gives the file its name. What is written from then on is appended.
  result<void> publish() {
    if (sync() && !partial_.empty()) failure_ = take_name();
    return state();
  }
  /// Ends the file: publishes and closes it.
  result<void> commit() {
    (void)publish();
    const int failure = file_.close();
    if (failure_ == 0) failure_ = failure;
    return state();
  }
  /// The first failure, if there was one.
  result<void> state() const LINNET_TRY {
    if (failure_ == 0) return {};
    if (failure_ == ENOMEM) return out_of_memory(path_);
    if (!opened_ && failure_ == ENXIO)
      return detail::failure(errc::io, path_, "", "a file that can be written",
                             "a pipe that nobody reads");
    if (!opened_ && failure_ == ENAMETOOLONG)
      return file_error(path_,
                        keep_ ? "a name with room for .partial.previous behind it"
                              : "a name with room for .partial behind it",
                        failure_);
    return file_error(path_, opened_ ? "to write the whole file" : "a file that can be written",
                      failure_);
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  /// Forgets a failure, and what of the buffer it kept from being written.
  void forget_failure() {
    if (opened_) failure_ = 0;
  }

 private:
  /// 0 or the number of the error; what lacks memory is ENOMEM.
  int open() LINNET_TRY {
    if (path_.empty()) return ENOENT;
    if (path_.find('\0') != path_.npos) return EINVAL;  // which the system would cut it at
    if (keep_ && !exists(previous_of(target_ + ".partial")) && errno == ENAMETOOLONG) return errno;
    if (const int number = descriptor_of(target_); number >= 0) {
      file_ = descriptor(::fcntl(number, F_DUPFD_CLOEXEC, 3));
      return file_ ? 0 : errno;
    }
    struct stat old {};  // by the given name, as the system may forbid to follow a link
    if (::stat(path_.c_str(), &old) != 0) return errno == ENOENT ? create(0666) : errno;
    if (S_ISDIR(old.st_mode)) return EISDIR;
    if (::faccessat(AT_FDCWD, target_.c_str(), W_OK, AT_EACCESS) != 0) return errno;
    if (!S_ISREG(old.st_mode)) return open_special(S_ISFIFO(old.st_mode));
    if (const int failure = create(0600); failure != 0) return failure;
    // Who may not give files away keeps the group, or gives the new one no right but everyone's.
    mode_t mode = old.st_mode & 07777;
    if (::fchown(file_.get(), old.st_uid, old.st_gid) != 0 &&
        ::fchown(file_.get(), static_cast<uid_t>(-1), old.st_gid) != 0)
      mode = static_cast<mode_t>((mode & ~mode_t{070}) | (mode & 07) << 3);
    (void)::fchmod(file_.get(), mode);
    return 0;
  }
  LINNET_WITHOUT_MEMORY(if (!file_) partial_.clear(); return ENOMEM)
  /// A pipe's reader may be on its way for a second.
  int open_special(bool pipe) {
    const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY;
    for (int tries = 0; tries < 100; ++tries) {
      file_ = descriptor(::open(target_.c_str(), flags | (pipe ? O_NONBLOCK : 0)));
      if (file_) return ::fcntl(file_.get(), F_SETFL, O_WRONLY) == 0 ? 0 : errno;
      if (!pipe || errno != ENXIO) return errno;
      (void)::poll(nullptr, 0, 10);
    }
    return ENXIO;
  }
  /// Opens a new temporary file, the first whose name no other writer has, and removes those that
  /// killed writers left.
  int create(mode_t mode) {
    const auto sweep = [](const std::string& partial) {
      const descriptor left = abandoned(partial);
      return left && ::unlink(partial.c_str()) == 0;
    };
    int number = 0;
    for (int tries = 0; !file_; ++tries) {
      if (number == most_writers) return partial_.clear(), EEXIST;
      partial_ = partial_of(target_, number);
      descriptor made(::open(partial_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode));
      if (made) {
        // Before it is locked, another may take it for one that was left. Not all have locks.
        const bool locked = ::flock(made.get(), LOCK_EX | LOCK_NB) == 0;
        if (locked ? has_name(made, partial_) : errno != EWOULDBLOCK) file_ = std::move(made);
      } else if (errno != EEXIST) {
        const int failure = errno;
        partial_.clear();
        return failure;
      } else if (!sweep(partial_) || tries > most_writers) {
        ++number;
      }
    }
    while (++number < most_writers) (void)sweep(partial_of(target_, number));
    return 0;
  }
  void send_buffer() { send(std::span(buffer_).first(std::exchange(used_, 0))); }
  void send(std::span<const std::byte> bytes) {
    while (failure_ == 0 && !bytes.empty()) {
      const auto n = ::write(file_.get(), bytes.data(), bytes.size() < most ? bytes.size() : most);
      if (n > 0)
        bytes = bytes.subspan(static_cast<std::size_t>(n));
      else if (n < 0 && errno == EAGAIN) {  // a terminal that another program made so
        pollfd ready{file_.get(), POLLOUT, 0};
        (void)::poll(&ready, 1, -1);
      } else if (n == 0 || errno != EINTR)
        failure_ = n == 0 ? EIO : errno;
    }
  }
  /// Syncs a file; 0 or the number of the error. Pipes, terminals and some file systems have no
  /// such thing.
  static int sync(const descriptor& file) {
#ifdef F_FULLFSYNC
    if (::fcntl(file.get(), F_FULLFSYNC) == 0) return 0;
#endif
    if (::fsync(file.get()) == 0) return 0;
    return errno == EINVAL || errno == ENOTSUP || errno == EROFS ? 0 : errno;
  }
  int take_name() LINNET_TRY {
    const char* const to = target_.c_str();
    const std::string previous = previous_of(target_), second = partial_ + ".previous";
    const std::string folder = target_.substr(0, target_.rfind('/') + 1);
    bool linked = false, moved = false;
    if (keep_ && exists(target_)) {
      // A second name, so that the file is never without its own; not all file systems have them.
      ::unlink(second.c_str());
      linked = ::link(to, second.c_str()) == 0;
      moved = !linked && std::rename(to, previous.c_str()) == 0;
      if (!linked && !moved && errno != ENOENT) return errno;
    }
    int failure = std::rename(partial_.c_str(), to) == 0 ? 0 : errno;
    if (failure == 0) partial_.clear();
    if (failure == 0 && linked && std::rename(second.c_str(), previous.c_str()) != 0)
      failure = errno;
    if (linked) ::unlink(second.c_str());  // also there if another writer kept the same file
    if (failure != 0 && moved) (void)std::rename(previous.c_str(), to);
    return failure != 0 ? failure : sync_folder(folder);
  }
  LINNET_WITHOUT_MEMORY(return ENOMEM)
  /// Makes the names last.
  static int sync_folder(const std::string& folder) {
    const descriptor opened(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC));
    return opened ? sync(opened) : 0;  // may be written but not read
  }
  void remove_partial() {
    if (!partial_.empty()) ::unlink(partial_.c_str());
    partial_.clear();
  }

  static constexpr std::size_t most = std::size_t{1} << 30;  // some systems refuse more at once
  std::string path_, target_, partial_{};
  bool keep_, opened_ = false;
  descriptor file_{};
  int failure_ = 0;
  std::size_t used_ = 0;
  std::array<std::byte, 4096> buffer_;
};

#else

inline void set_aside(const std::string& path) {
  (void)std::rename(path.c_str(), damaged_of(path).c_str());
}

struct close_file {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using file_handle = owner<std::FILE, close_file>;

/// Gives a file the name of another, which it replaces at once where the system can; 0 or the
/// number of the error.
inline int replace_file(const std::string& from, const std::string& to) {
#if defined(_WIN32)  // where rename() refuses a name that a file has
  constexpr unsigned long replace_existing = 1;
  return MoveFileExA(from.c_str(), to.c_str(), replace_existing) != 0 ? 0 : EACCES;
#else
  if (std::rename(from.c_str(), to.c_str()) == 0) return 0;
  std::remove(to.c_str());
  return std::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
#endif
}

/// Writes a file in pieces, under a temporary name until it is complete.
class file_writer {
 public:
  explicit file_writer(const std::string& path)
      : path_(path), partial_(partial_of(path)), file_(std::fopen(partial_.c_str(), "wb")) {
    if (!file_) failure_ = errno;
    opened_ = failure_ == 0;
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  ~file_writer() {
    if (!file_) return;
    file_.reset();
    if (!partial_.empty()) std::remove(partial_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    if (failure_ != 0 || bytes.empty()) return;
    errno = 0;
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size())
      failure_ = errno != 0 ? errno : EIO;
  }
  result<void> flush() {
    if (failure_ == 0 && std::fflush(file_.get()) != 0) failure_ = errno;
    return state();
  }
  result<void> sync() { return flush(); }
  /// Publishes the file, which is closed and opened again, as open files cannot be renamed here.
  result<void> publish() {
    if (commit() && !file_) file_.reset(std::fopen(path_.c_str(), "ab"));
    if (failure_ == 0 && !file_) failure_ = errno;
    return state();
  }
  result<void> commit() {
    if (failure_ == 0 && std::fclose(file_.release()) != 0) failure_ = errno;
    if (failure_ == 0 && !partial_.empty()) failure_ = replace_file(partial_, path_);
    if (failure_ != 0) {
      file_.reset();
      if (opened_) std::remove(partial_.c_str());
    }
    partial_.clear();
    return state();
  }
  result<void> state() const LINNET_TRY {
    if (failure_ == 0) return {};
    return file_error(path_, opened_ ? "to write the whole file" : "a file that can be written",
                      failure_);
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  void forget_failure() {
    if (file_) failure_ = 0;
  }

 private:
  std::string path_, partial_;
  file_handle file_;
  int failure_ = 0;
  bool opened_ = false;
};

#endif

}  // namespace detail

LINNET_NAMESPACE_END
