#pragma once
/// @file
/// Files that outlive a loss of power, with the one before kept (POSIX).

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linnet/io/file.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The name under which the file before is kept.
inline std::string previous_of(const std::string& path) { return path + ".previous"; }

/// Whether there is anything of that name.
inline bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// A file_writer that waits for the disk. At every moment the old or the new file is there as a
/// whole, under its name or as previous_of() it.
class durable_writer : public file_writer {
 public:
  using file_writer::file_writer;

  /// Writes everything to the disk, keeps what was there as previous_of(path), and then gives the
  /// file its name.
  result<void> commit() {
    const std::string previous = previous_of(path_);
    bool kept = false;
    if (file_ && failure_ == 0) {
      errno = 0;
      if (std::fflush(file_.get()) != 0 || ::fsync(::fileno(file_.get())) != 0)
        failure_ = errno != 0 ? errno : EIO;
      struct stat old {};
      if (failure_ == 0 && ::stat(path_.c_str(), &old) == 0) {
        // A second name, so that the file is never without its own; not all file systems have them.
        if (S_ISREG(old.st_mode)) std::remove(previous.c_str());
        kept = S_ISREG(old.st_mode) && (::link(path_.c_str(), previous.c_str()) == 0 ||
                                        std::rename(path_.c_str(), previous.c_str()) == 0);
        if (!kept) failure_ = S_ISREG(old.st_mode) ? errno : EEXIST;
      }
    }
    const result<void> done = file_writer::commit();
    if (!done) {
      if (kept) std::rename(previous.c_str(), path_.c_str());
      return done;
    }
    return sync_folder();
  }

 private:
  /// Makes the names last.
  result<void> sync_folder() const {
    const std::size_t slash = path_.rfind('/');
    const std::string folder = slash == path_.npos ? "." : path_.substr(0, slash + 1);
    const int number = ::open(folder.c_str(), O_RDONLY);
    if (number < 0) return {};  // may be written but not read
    // EINVAL: a file system that has no such thing
    const int failure = ::fsync(number) == 0 || errno == EINVAL ? 0 : errno;
    ::close(number);
    return failure == 0 ? result<void>() : file_error(path_, "its name on the disk", failure);
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
