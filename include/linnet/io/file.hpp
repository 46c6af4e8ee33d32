#pragma once
/// @file
/// Whole files in and out: read into memory once, written beside the target and then renamed.

#include <cerrno>
#include <cstdio>
#include <memory>
#include <new>
#include <span>
#include <string>

#include <linnet/io/file_writer.hpp>

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
  std::unique_ptr<std::byte[]> data_;
  std::size_t size_ = 0;
};

namespace detail {

#if defined(__unix__) || defined(__APPLE__)

/// A regular file, open to be read.
struct regular_file {
  descriptor file;
  std::size_t size = 0;
};
/// Opens a file, and waits for nobody: a pipe or device is refused. Errors: errc::io.
inline result<regular_file> open_regular(const std::string& path) {
  regular_file made{descriptor(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)),
                    0};
  struct stat facts {};
  if (!made.file || ::fstat(made.file.get(), &facts) != 0)
    return file_error(path, "a readable file");
  if (S_ISDIR(facts.st_mode)) return file_error(path, "a readable file", EISDIR);
  if (!S_ISREG(facts.st_mode))
    return error{errc::io, path, "", "a regular file",
                 S_ISFIFO(facts.st_mode) ? "a pipe" : "a device"};
  made.size = static_cast<std::size_t>(facts.st_size);
  if (static_cast<decltype(facts.st_size)>(made.size) != facts.st_size)
    return file_error(path, "a file of at most half the memory that can be addressed", EFBIG);
  return made;
}
/// Reads so many bytes, or to the end of the file; the number of bytes, or -1.
inline std::ptrdiff_t read_some(const descriptor& file, std::span<std::byte> to) {
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
inline result<file_bytes> read_file(const std::string& path) {
#if defined(__unix__) || defined(__APPLE__)
  const auto file = detail::open_regular(path);
  if (!file) return file.error();
  const std::size_t size = file->size;
#else
  errno = 0;
  const detail::file_handle file(std::fopen(path.c_str(), "rb"));
  if (!file || std::fseek(file.get(), 0, SEEK_END) != 0)
    return detail::file_error(path, "a readable file");
  const long end = std::ftell(file.get());
  if (end < 0 || std::fseek(file.get(), 0, SEEK_SET) != 0)
    return detail::file_error(path, "a regular file");
  const auto size = static_cast<std::size_t>(end);
#endif
  file_bytes bytes(size);
  if (bytes.data() == nullptr)
    return error{errc::out_of_memory, path, "", "memory for " + std::to_string(size) + " bytes",
                 "none"};
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
  if (!whole && size == 0) return error{errc::io, path, "", "a regular file", "one without a size"};
  if (!whole)
    return error{errc::io, path, "", std::to_string(size) + " bytes, the size of the file",
                 "another number: it changed while being read"};
  return bytes;
}

/// Writes a whole file, so that `path` never holds half of one, whatever happens and whoever writes
/// it too. It is on the disk when this returns. The file keeps its mode and owner; a symbolic link
/// leads to it; devices, pipes and /dev/stdout are written directly. Errors: errc::io.
inline result<void> write_file(const std::string& path, std::span<const std::byte> bytes) {
  detail::file_writer writer(path);
  writer.write(bytes);
  return writer.commit();
}

/// Whether write_file() could begin to write `path`, so that long work is not lost; changes
/// nothing. Errors: errc::io.
inline result<void> check_writable(const std::string& path) {
#if defined(__unix__) || defined(__APPLE__)
  struct stat facts {};
  if (::stat(path.c_str(), &facts) == 0 && !S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode)) {
    if (::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0) return {};
    return detail::file_error(path, "a file that can be written");
  }
#endif
  return detail::file_writer(path).state();
}

LINNET_NAMESPACE_END
