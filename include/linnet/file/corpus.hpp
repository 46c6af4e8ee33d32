// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Files as read-only memory: mapped where POSIX is there, so that they may be larger than memory;
/// read elsewhere.

#include <string_view>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

#include <linnet/file/file.hpp>

LINNET_NAMESPACE_BEGIN

/// The bytes of a mapped file, which stay where they are when the object moves. The file must not
/// shrink meanwhile.
class mapped_file {
 public:
  /// Maps a regular file. Errors: errc::io, errc::out_of_memory.
  static result<mapped_file> open(const std::string& path) LINNET_TRY {
    mapped_file made;
#if defined(__unix__) || defined(__APPLE__)
    const auto opened = detail::open_regular(path);
    if (!opened) return opened.error();
    void* const at = opened->size > 0 ? ::mmap(nullptr, opened->size, PROT_READ, MAP_PRIVATE,
                                               opened->file.get(), 0)
                                      : MAP_FAILED;
    if (at != MAP_FAILED) {
      made.mapped_ = {static_cast<const std::byte*>(at), opened->size};
      return made;
    }  // an empty file, or none that can be mapped: it is read
#endif
    auto bytes = read_file(path);
    if (!bytes) return bytes.error();
    made.read_ = *std::move(bytes);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(path)
  mapped_file(mapped_file&& other) noexcept
      : mapped_(std::exchange(other.mapped_, {})), read_(std::move(other.read_)) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(read_, other.read_);
    return *this;
  }
  ~mapped_file() {
#if defined(__unix__) || defined(__APPLE__)
    if (!mapped_.empty()) ::munmap(const_cast<std::byte*>(mapped_.data()), mapped_.size());
#endif
  }

  /// All bytes.
  std::span<const std::byte> bytes() const { return mapped_.empty() ? read_.bytes() : mapped_; }
  /// All bytes as text.
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes().data()), bytes().size()};
  }

 private:
  mapped_file() = default;
  std::span<const std::byte> mapped_;
  file_bytes read_;
};

/// Text files as read-only memory: what a byte_source or tokenize() reads.
class corpus {
 public:
  /// Opens all files. Errors: those of mapped_file::open.
  static result<corpus> open(std::span<const std::string> paths) LINNET_TRY {
    corpus made;
    for (const std::string& path : paths) {
      auto file = mapped_file::open(path);
      if (!file) return file.error();
      made.files_.push_back(*std::move(file));
      made.texts_.push_back(made.files_.back().text());
      made.size_ += std::ssize(made.texts_.back());
    }
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("corpus::open")
  /// @copydoc open
  static result<corpus> open(const std::string& path) { return open(std::span(&path, 1)); }

  /// Text of each file; valid as long as the corpus, moved or not.
  std::span<const std::string_view> texts() const { return texts_; }
  /// Bytes of all files.
  index size() const { return size_; }

 private:
  corpus() = default;
  std::vector<mapped_file> files_;
  std::vector<std::string_view> texts_;
  index size_ = 0;
};

LINNET_NAMESPACE_END
