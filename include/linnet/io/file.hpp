#pragma once
/// @file
/// Whole files in and out: read into memory once, written beside the target and then renamed.

#include <cerrno>
#include <cstdio>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <system_error>

#include <linnet/core/result.hpp>

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

struct close_file {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using file_handle = std::unique_ptr<std::FILE, close_file>;

/// The error of a failed system call on a file.
inline error file_error(const std::string& path, const char* expected, int number = errno) {
  return {errc::io, path, "", expected,
          number != 0 ? std::generic_category().message(number) : "a failure"};
}

/// Writes a file in pieces under a temporary name. commit() gives it its own; without it, nothing
/// is left behind.
class file_writer {
 public:
  /// Opens `path` + ".partial".
  explicit file_writer(const std::string& path)
      : path_(path), partial_(path + ".partial"), file_(std::fopen(partial_.c_str(), "wb")) {
    if (!file_) failure_ = errno;
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  ~file_writer() {
    if (!file_) return;
    file_.reset();
    std::remove(partial_.c_str());
  }

  /// Appends bytes; a failure is remembered for commit().
  void write(std::span<const std::byte> bytes) {
    if (!file_ || failure_ != 0 || bytes.empty()) return;
    errno = 0;
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size())
      failure_ = errno != 0 ? errno : EIO;
  }
  /// Closes the file and gives it its name, replacing what was there.
  result<void> commit() {
    if (!file_) return file_error(path_, "a file that can be written", failure_);
    if (failure_ == 0) {
      errno = 0;
      if (std::fclose(file_.release()) != 0) failure_ = errno != 0 ? errno : EIO;
      if (failure_ == 0 && std::rename(partial_.c_str(), path_.c_str()) == 0) return {};
      if (failure_ == 0) failure_ = errno;
      std::remove(partial_.c_str());
    }
    return file_error(path_, "to write the whole file", failure_);
  }

 protected:
  std::string path_, partial_;
  file_handle file_;
  int failure_ = 0;
};

}  // namespace detail

/// Reads a whole regular file. Errors: errc::io (absent, a directory, not a regular file, changed
/// while being read), errc::out_of_memory.
inline result<file_bytes> read_file(const std::string& path) {
  errno = 0;
  const detail::file_handle file(std::fopen(path.c_str(), "rb"));
  if (!file) return detail::file_error(path, "a readable file");
  // Reading first tells a directory from a file; its reported size would be nonsense.
  const bool empty = std::fgetc(file.get()) == EOF;
  if (empty && std::ferror(file.get()) != 0) return detail::file_error(path, "a readable file");
  if (std::fseek(file.get(), 0, SEEK_END) != 0) return detail::file_error(path, "a regular file");
  const long size = std::ftell(file.get());
  if (size < 0 || (size == 0 && !empty) || std::fseek(file.get(), 0, SEEK_SET) != 0)
    return error{errc::io, path, "", "a regular file", "one without a size"};
  file_bytes bytes(static_cast<std::size_t>(size));
  if (bytes.data() == nullptr)
    return error{errc::out_of_memory, path, "", "memory for " + std::to_string(size) + " bytes",
                 "none"};
  if (std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size() ||
      std::fgetc(file.get()) != EOF)
    return error{errc::io, path, "", std::to_string(size) + " bytes, the size of the file",
                 "another number: it changed while being read"};
  return bytes;
}

/// Writes a whole file: first beside it as `path`.partial, then renamed, so that `path` never holds
/// half a file. Errors: errc::io.
inline result<void> write_file(const std::string& path, std::span<const std::byte> bytes) {
  detail::file_writer writer(path);
  writer.write(bytes);
  return writer.commit();
}

LINNET_NAMESPACE_END
