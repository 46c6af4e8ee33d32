#pragma once
/// @file
/// Files as read-only memory: mapped where POSIX is there, so that they may be larger than memory;
/// read elsewhere.

#include <string_view>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include <linnet/io/file.hpp>

LINNET_NAMESPACE_BEGIN

/// The bytes of a file that stay where they are when the object moves. The file must not shrink
/// meanwhile.
class mapped_file {
 public:
  /// Maps a regular file. Errors: errc::io, errc::out_of_memory.
  static result<mapped_file> open(const std::string& path) {
    mapped_file made;
#if defined(__unix__) || defined(__APPLE__)
    errno = 0;
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return detail::file_error(path, "a readable file");
    struct stat facts {};
    const bool regular = ::fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
    const auto size = static_cast<std::size_t>(facts.st_size);
    void* const at =
        regular && size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    ::close(file);
    if (at != MAP_FAILED) {
      made.mapped_ = {static_cast<const std::byte*>(at), size};
      return made;
    }  // an empty file, or none that can be mapped: read_file knows why
#endif
    auto bytes = read_file(path);
    if (!bytes) return bytes.error();
    made.read_ = *std::move(bytes);
    return made;
  }
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

  /// The text of each file; valid as long as the corpus, moved or not.
  std::span<const std::string_view> texts() const { return texts_; }
  /// Bytes of all of them.
  index size() const { return size_; }

 private:
  corpus() = default;
  std::vector<mapped_file> files_;
  std::vector<std::string_view> texts_;
  index size_ = 0;
};

LINNET_NAMESPACE_END
