// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Whole files in and out: read into memory once, written beside the target and then renamed.

#include <cerrno>
#include <cstdio>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <linnet/core/owner.hpp>
#include <linnet/file/durable_file.hpp>

LINNET_NAMESPACE_BEGIN

/// The contents of a file, in memory that this object owns. Movable.
class file_bytes {
 public:
  file_bytes() = default;
  /// Memory for `size` bytes, not initialized; data() is null if there is not enough.
  explicit file_bytes(std::size_t size)
      : data_(new (std::nothrow) std::byte[size > 0 ? size : 1]), size_(data_ ? size : 0) {}

  /// First byte, or null.
  std::byte* data() { return data_.get(); }
  /// @copydoc data()
  const std::byte* data() const { return data_.get(); }
  /// Number of bytes.
  std::size_t size() const { return size_; }
  /// All bytes; parsers take this.
  std::span<const std::byte> bytes() const { return {data_.get(), size_}; }
  /// @copydoc bytes()
  operator std::span<const std::byte>() const { return bytes(); }

 private:
  struct give_back {
    void operator()(std::byte* p) const { delete[] p; }
  };
  detail::owner<std::byte, give_back> data_;
  std::size_t size_ = 0;
};

namespace detail {

#if defined(__unix__) || defined(__APPLE__)

/// A regular file, open for reading.
struct regular_file {
  descriptor file{};
  std::size_t size = 0;
};
/// Opens a file to read it. A pipe or device is refused, without opening it first: a pipe's writer
/// would take that for its reader. Errors: errc::io.
LINNET_COLD inline result<regular_file> open_regular(const std::string& path) {
  struct stat facts {};
  regular_file made;
  if (::stat(path.c_str(), &facts) != 0) return file_error(path, "a readable file");
  if (S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)) {
    // Nobody waits even if it has become a pipe by now.
    made.file = descriptor(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!made.file || ::fstat(made.file.get(), &facts) != 0)
      return file_error(path, "a readable file");
  }
  if (S_ISDIR(facts.st_mode)) return file_error(path, "a readable file", EISDIR);
  if (!S_ISREG(facts.st_mode))
    return detail::failure(errc::io, path, "", "a regular file",
                           S_ISFIFO(facts.st_mode) ? "a pipe" : "a device");
  made.size = static_cast<std::size_t>(facts.st_size);
  if (static_cast<decltype(facts.st_size)>(made.size) != facts.st_size)
    return file_error(path, "a file that fits into memory", EFBIG);
  return made;
}
/// Reads so many bytes, or to the end of the file; returns the number of bytes, or -1.
LINNET_COLD inline std::ptrdiff_t read_some(const descriptor& file, std::span<std::byte> to) {
  std::size_t done = 0;
  while (done < to.size()) {
    constexpr std::size_t most = std::size_t{1} << 30;
    const std::size_t rest = to.size() - done;
    const auto n = ::read(file.get(), to.data() + done, rest < most ? rest : most);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return static_cast<std::ptrdiff_t>(done);
}

#endif

}  // namespace detail

/// Reads a whole regular file. Errors: errc::io (absent, a directory, a pipe or device, changed
/// while being read), errc::out_of_memory.
LINNET_COLD inline result<file_bytes> read_file(const std::string& path) LINNET_TRY {
#if defined(__unix__) || defined(__APPLE__)
  const auto file = detail::open_regular(path);
  if (!file) return file.error();
  const std::size_t size = file->size;
#else
  errno = 0;
  const detail::file_handle file(std::fopen(path.c_str(), "rb"));
#if defined(_WIN32)  // whose long has 32 bits
  if (!file || _fseeki64(file.get(), 0, SEEK_END) != 0)
    return detail::file_error(path, "a readable file");
  const auto end = _ftelli64(file.get());
#else
  if (!file || std::fseek(file.get(), 0, SEEK_END) != 0)
    return detail::file_error(path, "a readable file");
  const auto end = std::ftell(file.get());
#endif
  if (end < 0 || std::fseek(file.get(), 0, SEEK_SET) != 0)
    return detail::file_error(path, "a regular file");
  const auto size = static_cast<std::size_t>(end);
#endif
  file_bytes bytes(size);
  if (bytes.data() == nullptr)
    return detail::failure(errc::out_of_memory, path, "",
                           "memory for " + std::to_string(size) + " bytes", "none");
  std::byte more{};
#if defined(__unix__) || defined(__APPLE__)
  const auto count = detail::read_some(file->file, {bytes.data(), size});
  if (count < 0) return detail::file_error(path, "a readable file");
  const bool whole =
      count == static_cast<std::ptrdiff_t>(size) && detail::read_some(file->file, {&more, 1}) == 0;
#else
  const bool whole = std::fread(bytes.data(), 1, size, file.get()) == size &&
                     std::fread(&more, 1, 1, file.get()) == 0;
#endif
  if (!whole && size == 0)
    return detail::failure(errc::io, path, "", "a regular file", "one without a size");
  if (!whole)
    return detail::failure(errc::io, path, "",
                           std::to_string(size) + " bytes, the size of the file",
                           "another number: it changed while being read");
  return bytes;
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Writes a whole file, which is on the disk when this returns. `path` never holds half a file, and
/// of several writers' files always one. Mode and owner stay those of the file that was there, and
/// a symbolic link stays a link to it. Devices, pipes and /dev/stdout are written directly; a pipe
/// is refused if nobody reads it within a second. Errors: errc::io.
inline result<void> write_file(const std::string& path,
                               std::span<const std::byte> bytes) LINNET_TRY {
  detail::file_writer writer(path);
  writer.write(bytes);
  return writer.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

/// A growing file of lines, such as a journal or a log. Movable.
class line_file {
 public:
  /// Replaces what `path` holds by `kept`, as write_file() does, and goes on behind it. Errors:
  /// errc::io, errc::out_of_memory.
  static result<line_file> open(const std::string& path, std::string_view kept) LINNET_TRY {
    line_file made;
    made.writer_.reset(new (std::nothrow) detail::file_writer(path));
    if (!made.writer_)
      return detail::failure(errc::out_of_memory, path, "", "memory for a buffer", "none");
    made.writer_->write(std::as_bytes(std::span(kept)));
    if (auto done = made.writer_->publish(); !done) return done.error();
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(path)
  /// Hands a line, which ends in \n, to the system at once: it outlives the program. Errors:
  /// errc::io; what is there of a line that failed is a line of its own.
  result<void> write(std::string_view line) {
    if (!writer_) return moved_from();
    if (std::exchange(torn_, false))
      writer_->write(std::as_bytes(std::span(std::string_view("\n"))));
    writer_->write(std::as_bytes(std::span(line)));
    return done(writer_->flush());
  }
  /// Waits until all lines are on the disk, so that they outlive a loss of power. Errors: errc::io.
  result<void> sync() { return writer_ ? done(writer_->sync()) : moved_from(); }

 private:
  line_file() = default;
  static result<void> moved_from() LINNET_TRY {
    return detail::failure(errc::invalid, "line_file", "", "a file that was not moved from",
                           "none");
  }
  LINNET_OR_OUT_OF_MEMORY("line_file")
  result<void> done(result<void> did) {
    torn_ = torn_ || !did;
    writer_->forget_failure();
    return did;
  }

  detail::owner<detail::file_writer> writer_;
  bool torn_ = false;
};

/// Whether write_file() could begin to write `path`, so that long work is not lost; changes
/// nothing. Errors: errc::io.
inline result<void> check_writable(const std::string& path) LINNET_TRY {
#if defined(__unix__) || defined(__APPLE__)
  struct stat facts {};
  if (::stat(path.c_str(), &facts) == 0 && !S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode)) {
    if (::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0) return {};
    return detail::file_error(path, "a file that can be written");
  }
#endif
  return detail::file_writer(path).state();
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
