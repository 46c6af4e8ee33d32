// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/inference.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
#if defined(LINNET_SINGLE_LINNET)
#error "linnet: of the single headers linnet.hpp and inference.hpp include one"
#endif
#define LINNET_SINGLE_INFERENCE
/// @file
/// The part of linnet that a shipped program needs: models, files and tokenizers without JSON,
/// sessions, samplers. Training, compression and evaluation stay out; linnet/linnet.hpp has them.

/// @file
/// Whole files in and out: read into memory once, written beside the target and then renamed.

#include <cerrno>
#include <cstdio>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

/// @file
/// Durable files: linnet writes every file under a temporary name beside it, to the disk, and then
/// renames it.

#include <array>
#include <charconv>
#include <cstring>
#include <system_error>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

/// @file
/// Errors as values: what went wrong, where, what was expected and what was found.

#include <algorithm>
#include <cassert>
#include <optional>
#include <stdexcept>
#include <type_traits>

/// @file
/// Tests for finite values and NaN that survive -ffast-math, and sums whose bits do not depend on
/// the compiler.

/// @file
/// Scalar types of the library: indices and tokens.

#include <cstddef>
#include <cstdint>

/// @file
/// Version, the keyed inline namespace and the few compiler differences.

// The one place that states the version: CMake, the packages and the single headers read it here.
#define LINNET_VERSION_MAJOR 0
#define LINNET_VERSION_MINOR 1
#define LINNET_VERSION_PATCH 0

#define LINNET_VERSION_TEXT_OF(major, minor, patch) #major "." #minor "." #patch
#define LINNET_VERSION_TEXT(major, minor, patch) LINNET_VERSION_TEXT_OF(major, minor, patch)
/// Version as text, such as "0.1.0".
#define LINNET_VERSION \
  LINNET_VERSION_TEXT(LINNET_VERSION_MAJOR, LINNET_VERSION_MINOR, LINNET_VERSION_PATCH)

#if !defined(__GNUC__)
#error "linnet needs g++ 12 or clang 14 or newer: its kernels use their vector extensions."
#elif defined(__clang__) && __clang_major__ < 14
#error "linnet needs clang 14 or newer."
#elif !defined(__clang__) && __GNUC__ < 12
#error "linnet needs g++ 12 or newer."
#elif __SIZEOF_POINTER__ < 8
#error "linnet needs a 64-bit target: its indices and the bytes that it plans exceed 32 bits."
#elif __cplusplus < 202002L
#error "linnet needs C++20: compile with -std=c++20."
#else
#define LINNET_SUPPORTED
#endif
#if !defined(LINNET_SUPPORTED)
#include <no such file: nothing follows the sentence above>
#endif

// Translation units of one program may be compiled with different flags. Everything that such a
// flag changes lives in an inline namespace named after the flags. So the linker never merges two
// instances of a function, say AVX-512's with the one that a portable unit relies on.
#if defined(__AVX512BF16__)
#define LINNET_ABI_ARCH avx512bf16
#elif defined(__AVX512VNNI__)
#define LINNET_ABI_ARCH avx512vnni
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define LINNET_ABI_ARCH avx512
#elif defined(__AVX512F__)
#define LINNET_ABI_ARCH avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define LINNET_ABI_ARCH avx2fma
#elif defined(__AVX2__)
#define LINNET_ABI_ARCH avx2
#elif defined(__AVX__)
#define LINNET_ABI_ARCH avx
#elif defined(__SSE4_2__)
#define LINNET_ABI_ARCH sse42
#else
#define LINNET_ABI_ARCH base
#endif
#if defined(NDEBUG)
#define LINNET_ABI_DEBUG _release
#else
#define LINNET_ABI_DEBUG _debug
#endif
#if defined(_OPENMP)
#define LINNET_ABI_OPENMP _omp
#else
#define LINNET_ABI_OPENMP
#endif
#if defined(__FAST_MATH__)
#define LINNET_ABI_MATH _fast
#else
#define LINNET_ABI_MATH
#endif
#if defined(LINNET_ONLY_LEVEL)  // see simd/levels.hpp
#define LINNET_ABI_ONLY _only_
#define LINNET_ABI_LEVEL LINNET_ONLY_LEVEL
#else
#define LINNET_ABI_ONLY
#define LINNET_ABI_LEVEL
#endif
#if defined(__cpp_exceptions)
#define LINNET_ABI_EXCEPTIONS
#else
#define LINNET_ABI_EXCEPTIONS _noexcept
#endif
#define LINNET_ABI_PASTE(major, minor, a, b, c, d, e, f, g) \
  v##major##_##minor##_##a##b##c##d##e##f##g
#define LINNET_ABI_NAME(major, minor, a, b, c, d, e, f, g) \
  LINNET_ABI_PASTE(major, minor, a, b, c, d, e, f, g)

// A parameter may be called like a variable of the program that instantiates it: -Wshadow of g++
// speaks only where linnet itself is built.
#if defined(LINNET_OWN_WARNINGS)
#define LINNET_WARNINGS_BEGIN
#define LINNET_WARNINGS_END
#else
#define LINNET_WARNINGS_BEGIN \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wshadow\"")
#define LINNET_WARNINGS_END _Pragma("GCC diagnostic pop")
#endif

/// Opens namespace linnet and its keyed inline namespace.
#define LINNET_NAMESPACE_BEGIN                                                                  \
  LINNET_WARNINGS_BEGIN                                                                         \
  namespace linnet {                                                                            \
  inline namespace LINNET_ABI_NAME(LINNET_VERSION_MAJOR, LINNET_VERSION_MINOR, LINNET_ABI_ARCH, \
                                   LINNET_ABI_DEBUG, LINNET_ABI_OPENMP, LINNET_ABI_MATH,        \
                                   LINNET_ABI_EXCEPTIONS, LINNET_ABI_ONLY, LINNET_ABI_LEVEL) {
/// Closes what LINNET_NAMESPACE_BEGIN opened.
#define LINNET_NAMESPACE_END \
  }                          \
  }                          \
  LINNET_WARNINGS_END

// Kernels have a namespace of their own. With linnet::kernels they come from a compiled library,
// whatever the flags of the program that links it. Without it they share the key above.
#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)
#define LINNET_SIMD_NAMESPACE_BEGIN                                                              \
  LINNET_WARNINGS_BEGIN                                                                          \
  namespace linnet {                                                                             \
  inline namespace LINNET_ABI_NAME(LINNET_VERSION_MAJOR, LINNET_VERSION_MINOR, compiled, , , , , \
                                   , ) {
#else
#define LINNET_SIMD_NAMESPACE_BEGIN LINNET_NAMESPACE_BEGIN
#endif
/// Closes what LINNET_SIMD_NAMESPACE_BEGIN opened.
#define LINNET_SIMD_NAMESPACE_END LINNET_NAMESPACE_END

#if defined(__clang__)
#define LINNET_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LINNET_UNROLL _Pragma("GCC unroll 16")
#endif

LINNET_NAMESPACE_BEGIN

/// Signed size and index type used for every extent, row, column and count.
using index = std::ptrdiff_t;

/// A token id. Negative ids never reach a model; `ignored` marks label positions without loss.
using token = std::int32_t;

/// The label that contributes neither loss nor gradient (the value -100 of common data loaders).
inline constexpr token ignored = -100;

/// Result of a sampler that has nothing to choose from: logits that are empty, hold a NaN or have
/// an infinite maximum. It is no token of any vocabulary, and generation ends with it.
inline constexpr token no_token = -1;

/// The smallest multiple of `step` that is not below `n`; both positive.
constexpr index round_up(index n, index step) { return (n + step - 1) / step * step; }

namespace detail {
/// False whatever the types: the condition of a refusal in words.
template <class...>
inline constexpr bool never = false;
}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Whether a floating-point value is neither infinite nor NaN; looks at the bits, so it stays
/// right under -ffast-math.
inline bool is_finite(float x) {
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7f800000u) != 0x7f800000u;
}
/// @copydoc is_finite(float)
inline bool is_finite(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}
/// Whether a floating-point value is NaN; looks at the bits, as is_finite() does.
inline bool is_nan(float x) {
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7fffffffu) > 0x7f800000u;
}
/// @copydoc is_nan(float)
inline bool is_nan(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7fffffffffffffffull) > 0x7ff0000000000000ull;
}

namespace detail {
/// The sum f(0) + ... + f(n - 1) in eight fixed lanes.
template <class F>
double sum_in_lanes(index n, F&& f) {
  double lane[8] = {};
  index i = 0;
  for (; i + 8 <= n; i += 8)
    for (index k = 0; k < 8; ++k) lane[k] += f(i + k);
  for (index k = 0; i + k < n; ++k) lane[k] += f(i + k);
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}
}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// The kind of a failure, for programs that branch on it.
enum class errc {
  io,             ///< a file could not be opened, read or written
  malformed,      ///< bytes that do not follow the format
  unsupported,    ///< well-formed, but a version or type linnet does not read
  mismatch,       ///< valid, but it does not fit the compile-time model
  missing,        ///< a tensor or field that the model needs is absent
  out_of_memory,  ///< an allocation failed
  invalid         ///< an argument outside its range
};

/// One failure: where it happened, what it concerns, what was expected and what was found.
struct error {
  errc code = errc::invalid;
  std::string where;     ///< file or function
  std::string what;      ///< tensor, field or argument
  std::string expected;  ///< the value or rule that would have been right
  std::string got;       ///< the value that was found

  /// One line for people: `where: what: expected …, got …`.
  std::string message() const {
    std::string line = where;
    if (!what.empty()) line += (line.empty() ? "" : ": ") + what;
    if (!expected.empty()) line += ": expected " + expected;
    if (!got.empty()) line += (expected.empty() ? ": got " : ", got ") + got;
    return line;
  }
};

namespace detail {
/// Foreign text for a message: cut to 60 bytes, nothing but printable ASCII.
inline std::string printable(std::string_view text) {
  std::string shown(text.substr(0, 60));
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return text.size() > 60 ? shown + "..." : shown;
}

/// The error errc::out_of_memory, made without memory for its text if none is left.
inline error out_of_memory(std::string_view where) {
  error failure{errc::out_of_memory, {}, {}, "enough memory", "less"};  // no text needs the heap
#if defined(__cpp_exceptions)
  try {
    failure.where = where;
  } catch (const std::bad_alloc&) {
  }
#else
  failure.where = where;
#endif
  return failure;
}

/// Bytes of an array [a, b] of values of a size; more than there can be if they do not fit.
inline std::size_t array_bytes(index a, index b, std::size_t size) {
  index bytes = 0;
  if (__builtin_mul_overflow(a, b, &bytes) ||
      __builtin_mul_overflow(bytes, static_cast<index>(size), &bytes) || bytes > PTRDIFF_MAX / 8)
    return SIZE_MAX / 4;
  return static_cast<std::size_t>(bytes);
}
/// Whether the heap has room for some bytes. Containers can report that it has not by exceptions
/// alone; without them, what allocates much asks first. With them only what no heap has is refused.
inline bool has_memory(std::size_t bytes) {
  if (bytes > std::size_t{PTRDIFF_MAX} / 8 * 3) return false;
#if defined(__cpp_exceptions)
  return true;
#else
  void* volatile const room = ::operator new(bytes, std::nothrow);
  ::operator delete(room);
  return room != nullptr;
#endif
}
/// Whether the heap has room for the most that reading a file of some bytes takes (docs/files.md).
inline bool has_memory_to_read(std::size_t bytes) {
  constexpr std::size_t kilobyte = 1024;
  return has_memory((std::min)(16 * bytes, 2 * bytes + 16 * kilobyte * kilobyte) + 64 * kilobyte);
}
}  // namespace detail

// A function LINNET_TRY {...} LINNET_WITHOUT_MEMORY(statement) comes to the statement where a
// container in it lacks memory. Programs without exceptions end there.
#if defined(__cpp_exceptions)
#define LINNET_TRY try
#define LINNET_WITHOUT_MEMORY(statement) \
  catch (const std::bad_alloc&) {        \
    statement;                           \
  }                                      \
  catch (const std::length_error&) {     \
    statement;                           \
  }
#else
#define LINNET_TRY
#define LINNET_WITHOUT_MEMORY(statement)
#endif
/// The error of functions that give a result.
#define LINNET_OR_OUT_OF_MEMORY(where) \
  LINNET_WITHOUT_MEMORY(return ::linnet::detail::out_of_memory(where))

/// Result of a function: a value of type `T`, or the error that prevented it. No exceptions are
/// involved; reading the value of a failed result is a programming error (an assertion).
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : value_(std::move(value)), succeeded_(true) {}
  result(linnet::error failure) : failure_(std::move(failure)), succeeded_(false) {}
  result(result&& other) noexcept(std::is_nothrow_move_constructible_v<T>)
      : succeeded_(other.succeeded_) {
    assume(std::move(other));
  }
  result(const result& other) requires std::is_copy_constructible_v<T>
      : succeeded_(other.succeeded_) {
    assume(other);
  }
  /// Takes over the other's value or failure.
  result& operator=(result other) noexcept(std::is_nothrow_move_constructible_v<T>) {
    end();
    succeeded_ = other.succeeded_;
    assume(std::move(other));
    return *this;
  }
  ~result() { end(); }

  /// Whether a value is there.
  explicit operator bool() const { return succeeded_; }
  /// The value; asserts that there is one.
  T& value() & { return *operator->(); }
  /// @copydoc value()
  const T& value() const& { return *operator->(); }
  /// Moves the value out.
  T value() && { return std::move(*operator->()); }
  /// The value; asserts that there is one.
  T& operator*() & { return *operator->(); }
  /// @copydoc operator*()
  const T& operator*() const& { return *operator->(); }
  /// Moves the value out.
  T operator*() && { return std::move(*operator->()); }
  /// Access to the value's members.
  T* operator->() {
    assert(succeeded_ && "linnet::result: value() of a failed result; test it first");
    return &value_;
  }
  /// @copydoc operator->()
  const T* operator->() const { return const_cast<result*>(this)->operator->(); }
  /// The failure; call it only if there is no value.
  const linnet::error& error() const {
    assert(!succeeded_ && "linnet::result: error() of a successful result");
    return failure_;
  }

 private:
  template <class Other>
  void assume(Other&& other) {
    if (succeeded_)
      new (&value_) T(std::forward<Other>(other).value_);
    else
      new (&failure_) linnet::error(std::forward<Other>(other).failure_);
  }
  void end() {
    if (succeeded_)
      value_.~T();
    else
      failure_.~error();
  }

  // A std::variant would be forty functions to compile for each T; this is eight.
  union {
    T value_;
    linnet::error failure_;
  };
  bool succeeded_;
};

/// Result of a function without a value: success, or an error.
template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(linnet::error failure) : failure_(std::move(failure)) {}
  /// Whether it succeeded.
  explicit operator bool() const { return !failure_; }
  /// The failure; call it only if there is one.
  const linnet::error& error() const {
    assert(failure_ && "linnet::result: error() of a successful result");
    return *failure_;
  }

 private:
  std::optional<linnet::error> failure_;
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The error of a failed system call on a file.
inline error file_error(const std::string& path, const char* expected, int number = errno) {
  return {errc::io, path, "", expected,
          number != 0 ? std::generic_category().message(number) : "a failure"};
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
      return error{errc::io, path_, "", "a file that can be written", "a pipe that nobody reads"};
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
      mode = (mode & ~mode_t{070}) | (mode & 07) << 3;
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
using file_handle = std::unique_ptr<std::FILE, close_file>;

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
    if (failure_ == 0 && !partial_.empty() && std::rename(partial_.c_str(), path_.c_str()) != 0) {
      std::remove(path_.c_str());
      if (std::rename(partial_.c_str(), path_.c_str()) != 0) failure_ = errno;
    }
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

/// A regular file, open for reading.
struct regular_file {
  descriptor file{};
  std::size_t size = 0;
};
/// Opens a file to read it. A pipe or device is refused, without opening it first: a pipe's writer
/// would take that for its reader. Errors: errc::io.
inline result<regular_file> open_regular(const std::string& path) {
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
    return error{errc::io, path, "", "a regular file",
                 S_ISFIFO(facts.st_mode) ? "a pipe" : "a device"};
  made.size = static_cast<std::size_t>(facts.st_size);
  if (static_cast<decltype(facts.st_size)>(made.size) != facts.st_size)
    return file_error(path, "a file that fits into memory", EFBIG);
  return made;
}
/// Reads so many bytes, or to the end of the file; returns the number of bytes, or -1.
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
inline result<file_bytes> read_file(const std::string& path) LINNET_TRY {
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
    if (!made.writer_) return error{errc::out_of_memory, path, "", "memory for a buffer", "none"};
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
    return error{errc::invalid, "line_file", "", "a file that was not moved from", "none"};
  }
  LINNET_OR_OUT_OF_MEMORY("line_file")
  result<void> done(result<void> did) {
    torn_ = torn_ || !did;
    writer_->forget_failure();
    return did;
  }

  std::unique_ptr<detail::file_writer> writer_;
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
/// @file
/// Checkpoints of llama2.c, versions 0 (legacy, no magic number) and 1; f32, little-endian.
///
/// Both begin with seven 32-bit integers: dim, hidden_dim, n_layers, n_heads, n_kv_heads,
/// vocab_size, seq_len. In version 0 a negative vocab_size means an untied head, and unused rotary
/// tables stand before it. Version 1 has a header of 256 bytes and another order of tensors.

/// @file
/// Tensors in files: their element types, and the conversion to and from a model's weights.

#include <bit>
#include <vector>

/// @file
/// The values of a model: canonical weights, gradients and the packed form that kernels read. Each
/// owns one block of memory of a size known at compile time.

/// @file
/// Fixed memory: every buffer of a session or trainer is planned once, then never allocated again.

#include <cstdlib>
#include <limits>

LINNET_NAMESPACE_BEGIN

/// Alignment of every planned buffer, in bytes: one cache line and one AVX-512 register.
inline constexpr index alignment = 64;

/// Upper bound of sizes in bytes: sizes that would exceed what an index holds stay here.
inline constexpr index most_bytes = (std::numeric_limits<index>::max)() / alignment * alignment;

/// a + b and a * b of sizes that are not negative, at most most_bytes.
constexpr index add_sizes(index a, index b) {
  index sum = 0;
  return __builtin_add_overflow(a, b, &sum) || sum > most_bytes ? most_bytes : sum;
}
/// @copydoc add_sizes()
constexpr index multiply_sizes(index a, index b) {
  index product = 0;
  return __builtin_mul_overflow(a, b, &product) || product > most_bytes ? most_bytes : product;
}

/// Hands out consecutive buffers from one block. Without a block it only counts, also at compile
/// time, so one `plan` function serves as layout, as footprint and as allocation.
///
/// Buffers taken after a mark() and given back by release() may share memory with later ones. Such
/// are a layer's temporary buffers, or all activations of an earlier layer when nothing is kept for
/// a backward pass. The block has to hold peak() bytes.
class arena {
 public:
  /// An arena without memory, which only counts.
  constexpr arena() = default;
  /// An arena over `size` bytes at `block`, which must be aligned to `alignment`.
  arena(void* block, index size) : block_(static_cast<std::byte*>(block)), size_(size) {}

  /// The next `count` objects of type `T`; null from an arena that only counts or has no more.
  template <class T>
  constexpr T* take(index count) {
    const index at = used_;
    const index bytes = count < 0 ? most_bytes : multiply_sizes(count, sizeof(T));
    used_ = add_sizes(used_, round_up((std::min)(bytes, most_bytes - alignment), alignment));
    if (used_ > peak_) peak_ = used_;
    assert((block_ == nullptr || used_ <= size_) &&
           "linnet::arena: the plan exceeds its footprint");
    if (block_ == nullptr || used_ > size_) return nullptr;
    return reinterpret_cast<T*>(block_ + at);
  }
  /// The current position, for release().
  constexpr index mark() const { return used_; }
  /// Gives back everything taken since `mark`; the memory stays valid and will be shared.
  constexpr void release(index mark) { used_ = mark; }
  /// Bytes needed so far.
  constexpr index peak() const { return peak_; }

 private:
  std::byte* block_ = nullptr;
  index size_ = 0, used_ = 0, peak_ = 0;
};

namespace detail {
#if defined(_WIN32)  // whose C library has no aligned_alloc()
inline void* aligned_allocate(std::size_t bytes) {
  return _aligned_malloc(bytes, static_cast<std::size_t>(alignment));
}
inline void aligned_free(void* p) { _aligned_free(p); }
#else
inline void* aligned_allocate(std::size_t bytes) {
  return std::aligned_alloc(static_cast<std::size_t>(alignment), bytes);
}
inline void aligned_free(void* p) { std::free(p); }
#endif
}  // namespace detail

/// One aligned block of memory: zeroed and its own, or another's. Movable; an empty block means
/// that allocation failed, or that the block was moved from.
class memory_block {
 public:
  /// Gives memory back.
  using release = void (*)(void* data, index size);

  memory_block() = default;
  /// Allocates `bytes` (at least one alignment unit), zeroed; data() is null on failure.
  explicit memory_block(index bytes) {
    if (bytes >= most_bytes) return;
    const index size = round_up((std::clamp)(bytes, index{1}, most_bytes - alignment), alignment);
    *this = memory_block(detail::aligned_allocate(static_cast<std::size_t>(size)), size,
                         [](void* p, index) { detail::aligned_free(p); });
    if (data_) __builtin_memset(data_.get(), 0, static_cast<std::size_t>(size));
  }
  /// Takes `size` bytes at `data`, which `how` gives back. Without `how` they stay another's and
  /// must outlive the block.
  memory_block(void* data, index size, release how) : data_(data, {how, size}) {}

  /// First byte, or null.
  void* data() const { return data_.get(); }
  /// Size in bytes, of own memory a multiple of `alignment`.
  index size() const { return data_ ? data_.get_deleter().size : 0; }

 private:
  struct give_back {
    release how;
    index size;
    void operator()(void* p) const {
      if (how) how(p, size);
    }
  };
  std::unique_ptr<void, give_back> data_;
};

LINNET_NAMESPACE_END
/// @file
/// Matrix views whose width is part of the type, and spans that outlive a call.

LINNET_NAMESPACE_BEGIN

/// A row-major matrix of `Columns` columns that is owned elsewhere: [rows, Columns].
template <class T, index Columns>
class view {
 public:
  constexpr view() = default;
  /// Views `rows` rows at `data`.
  constexpr view(T* data, index rows) : data_(data), rows_(rows) {}
  /// Converts a view of mutable values to a view of constant ones.
  constexpr operator view<const T, Columns>() const requires(!std::is_const_v<T>) {
    return {data_, rows_};
  }

  /// First value.
  constexpr T* data() const { return data_; }
  /// Number of rows.
  constexpr index rows() const { return rows_; }
  /// Width of a row.
  static constexpr index columns() { return Columns; }
  /// Number of values.
  constexpr index size() const { return rows_ * Columns; }
  /// Start of row `i`.
  constexpr T* row(index i) const { return data_ + i * Columns; }
  /// Row `i` as a span.
  constexpr std::span<T> operator[](index i) const {
    return {row(i), static_cast<std::size_t>(Columns)};
  }
  /// The value at row `i`, column `j`.
  constexpr T& operator()(index i, index j) const { return data_[i * Columns + j]; }

 private:
  T* data_ = nullptr;
  index rows_ = 0;
};

/// A span that is still read after the call that takes it. Converts from whatever std::span does,
/// but for temporary containers, whose values would be gone.
template <class T>
class lasting_span : public std::span<T> {
  template <class R>
  static constexpr bool lasts =
      std::is_lvalue_reference_v<R> || std::ranges::enable_borrowed_range<std::remove_cvref_t<R>>;

 public:
  constexpr lasting_span() = default;
  /// `size` values at `data`.
  constexpr lasting_span(T* data, std::size_t size) : std::span<T>(data, size) {}
  /// Takes the values of a span, or of a container that has a name.
  template <class R>
  requires(std::is_convertible_v<R, std::span<T>>&& lasts<R>) constexpr lasting_span(R&& values)
      : std::span<T>(values) {}
  template <class R>
  requires(std::is_convertible_v<R, std::span<T>> && !lasts<R>) lasting_span(R&&)
  = delete;
};

LINNET_NAMESPACE_END
/// @file
/// The contract of a layer.
///
/// A layer is a stateless type with
///  - `params<Form>`: its parameters as a struct, in one of the forms of nn/parameters.hpp;
///  - `visit(f, at, p...)`: calls `f(path, tensor_info, p.member...)` for each parameter, for any
///    number of parameter structs in lockstep (also none, to count at compile time: it is
///    constexpr);
///    One struct may also be that of a counterpart, a layer with the same members whose matrices
///    are kept in another way. What keeps a matrix W as others has a second `visit(f, at, p, q)`,
///    for q with a `weight` W: it calls `f(path, tensor_info of W, matrix_expression, q.weight)`.
///    collapse(), factorise() and unshare() work on every such layer;
///  - `cache<T>` and `plan<T>(planner&, call_shape)`: the buffers one instance needs;
///  - `forward(p, x, y, cache, ctx)`: y[rows, out] = f(x[rows, in]). With `ctx.past` set it
///  continues
///    cached sequences: the same code serves training, prefill and one-token steps;
///  - `adds_residual`, true only where forward takes a further argument `const T* residual`, which
///    may be null: y = residual[rows, out] + f(x), without a pass of its own over memory;
///  - `backward(p, dp, x, dy, dx, cache, ctx)`: ADDS to the gradients dp and dx;
///  - `in` and `out`: the widths of x and y;
///  - `copy_state(cache, from, to, state_part)`, only where the layer plans state: one sequence
///  continues where another is;
///  - `flops(call_shape)`: floating-point operations of the products in a forward call, one
///    multiply-add counted as 2; elementwise work is not counted.
///
/// Every thread of a team makes the same calls (SPMD); an operation returns when all threads have
/// finished it.

#include <concepts>

/// @file
/// Context of a call: sizes, tables and options that all its layers read.

/// @file
/// Dropout with masks that are computed, never stored. Whether a value is dropped depends on the
/// seed, the step, the sample's index in the whole batch, the dropout id and the position alone.
/// And layer dropout, which takes a whole layer away from a sample.

#include <cmath>

/// @file
/// Counter-based random numbers: one key and counter give the same bits on every compiler, in every
/// thread and in any order. So a dropout mask can be recomputed instead of stored.

LINNET_NAMESPACE_BEGIN

/// Seed: names the stream of random numbers that a call starts from.
struct seed {
  std::uint64_t value = 0;
};

/// Philox4x32-10 (Salmon et al., SC 2011): ten rounds of multiply-and-xor over a 128-bit counter.
/// @return four independent 32-bit words for this key and counter.
constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                              std::uint64_t counter_low) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> x{
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ k0, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

/// A sequence of random numbers that starts at a key; copying it forks the sequence.
class random_stream {
 public:
  /// The stream number `stream` of a seed; streams of one seed are independent.
  constexpr explicit random_stream(seed s, std::uint64_t stream = 0)
      : key_(s.value), stream_(stream) {}

  /// The next 32 random bits.
  constexpr std::uint32_t bits() {
    if (left_ == 0) {
      words_ = philox(key_, stream_, counter_++);
      left_ = 4;
    }
    return words_[static_cast<std::size_t>(4 - left_--)];
  }
  /// Uniform in [0, 1), 24 random bits, so every value is exact in float too.
  constexpr double uniform() { return (bits() >> 8) * 0x1p-24; }
  /// Uniform integer in [0, n), without bias; n > 0.
  constexpr std::uint32_t below(std::uint32_t n) {
    const std::uint32_t reject = (0u - n) % n;
    std::uint32_t x = bits();
    while (x < reject) x = bits();
    return x % n;
  }
  /// Standard normal (Box and Muller), two words per value.
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  std::uint64_t key_, stream_, counter_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int left_ = 0;
};

/// Stream number of a name (64-bit FNV-1a). A tensor's initial values so depend on its name and not
/// on the order in which tensors are visited.
constexpr std::uint64_t stream_of(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

LINNET_NAMESPACE_END
/// @file
/// A weight matrix in the form that products read: panels of 32 output features.

/// @file
/// Threads: the only place that knows about them. One parallel region runs a whole forward call,
/// training step or decode step. Inside it every thread executes the same code (SPMD), takes its
/// share of each operation's outputs and meets the others at a barrier.

#include <atomic>

#if defined(_OPENMP)
#include <omp.h>
#endif

/// @file
/// Number of processors that the host has for threads, and whether threads can be made.

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#else
#include <thread>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Text of limited length on the stack; `whole` is false if something was cut off.
struct short_text {
  char text[4096];
  std::size_t size = 0;
  bool whole = true;

  void add(std::string_view more) {
    whole = whole && more.size() <= sizeof text - size;
    size += more.copy(text + size, sizeof text - size);
  }
  std::string_view view() const { return {text, size}; }
};

/// The beginning of the file named by the parts after each other, or nothing. Nothing is allocated.
template <class... Part>
short_text read_short(const Part&... parts) {
  short_text found;
#if defined(__linux__)
  short_text path;
  (path.add(parts), ...);
  path.add({"\0", 1});
  const int file = path.whole ? ::open(path.text, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
  if (file < 0) return found;
  const auto got = ::read(file, found.text, sizeof found.text);
  ::close(file);
  if (got > 0) found.size = static_cast<std::size_t>(got);
#else
  ((void)parts, ...);
#endif
  return found;
}

/// The next word of `text`, which loses it.
inline std::string_view next_word(std::string_view& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  std::size_t n = 0;
  while (n < text.size() && !blank(text[n])) ++n;
  const std::string_view word = text.substr(0, n);
  text.remove_prefix(n);
  return word;
}
/// Number of processors that `quota` microseconds in each `period` amount to, rounded down but at
/// least 1; 0 without a limit.
inline int processors_of(std::string_view quota, std::string_view period) {
  const auto number = [](std::string_view text) {
    std::int64_t value = 0;
    const auto end = text.data() + text.size();
    return std::from_chars(text.data(), end, value).ptr == end ? value : std::int64_t{0};
  };
  const std::int64_t most = number(quota), per = number(period);
  if (most <= 0 || per <= 0) return 0;  // "max", -1, or not a quota
  return static_cast<int>((std::clamp)(most / per, std::int64_t{1}, std::int64_t{1} << 16));
}

/// Number of processors that control groups of Linux, version 1 or 2, leave this process; 0 for
/// all. `root` is the folder that holds /proc and /sys, as text to put in front of them.
inline int cgroup_processors(std::string_view root = "") {
  int fewest = 0;
  const auto limit = [&](int n) {
    if (n > 0 && (fewest == 0 || n < fewest)) fewest = n;
  };
  const short_text groups = read_short(root, "/proc/self/cgroup");
  std::string_view rest = groups.view();
  while (!rest.empty()) {  // 0::/path, or number:controller,controller:/path
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix((std::min)(rest.size(), line.size() + 1));
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    bool meant = unified;
    for (std::string_view left = controllers; !left.empty();) {
      const std::string_view one = left.substr(0, left.find(','));
      meant = meant || one == "cpu";
      left.remove_prefix((std::min)(left.size(), one.size() + 1));
    }
    if (!meant) continue;
    // The group's own limit and those of all groups around it. A container may see its own group
    // as the root, so that outer folders of the path are missing.
    for (std::string_view path = line.substr(second + 1);;) {
      while (!path.empty() && path.back() == '/') path.remove_suffix(1);
      if (unified) {
        const short_text file = read_short(root, "/sys/fs/cgroup", path, "/cpu.max");
        std::string_view text = file.view();
        const std::string_view quota = next_word(text);
        limit(processors_of(quota, next_word(text)));
      } else {
        for (const std::string_view mount : {std::string_view("cpu"), controllers}) {
          const short_text quota =
              read_short(root, "/sys/fs/cgroup/", mount, path, "/cpu.cfs_quota_us");
          const short_text period =
              read_short(root, "/sys/fs/cgroup/", mount, path, "/cpu.cfs_period_us");
          std::string_view most = quota.view(), per = period.view();
          limit(processors_of(next_word(most), next_word(per)));
        }
      }
      if (path.empty()) break;
      path = path.substr(0, path.rfind('/'));
    }
  }
  return fewest;
}

/// Number of processors that the calling thread may run on, at least 1.
inline int affine_processors() {
#if defined(__linux__)
  unsigned long mask[1024 / sizeof(unsigned long)] = {};  // of 8,192 processors
  if (sched_getaffinity(0, sizeof mask, reinterpret_cast<cpu_set_t*>(mask)) == 0) {
    int count = 0;
    for (const unsigned long bits : mask) count += __builtin_popcountl(bits);
    if (count > 0) return count;
  }
#endif
#if defined(__unix__) || defined(__APPLE__)
  return (std::max)(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
#else
  return (std::max)(1, static_cast<int>(std::thread::hardware_concurrency()));
#endif
}

/// Number of processors to assume in place of the host's, all of them free; 0 to ask the host. For
/// tests, which want more threads than there are processors.
inline std::atomic<int> assumed_processors{0};

/// Number of processors for the threads of one call. `affine` is what affinity leaves.
inline int usable_processors(int affine) {
  if (const int assumed = assumed_processors.load(std::memory_order_relaxed); assumed > 0)
    return assumed;
  static const int granted = cgroup_processors();
  return granted > 0 ? (std::min)(affine, granted) : affine;
}

/// Nanoseconds of a clock; 0 where there is none that is fine enough.
struct nanoseconds {
#if (defined(__unix__) || defined(__APPLE__)) && defined(CLOCK_THREAD_CPUTIME_ID)
  static constexpr bool known = true;
  static std::int64_t of(clockid_t which) {
    timespec t{};
    clock_gettime(which, &t);
    return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
  }
  static std::int64_t elapsed() { return of(CLOCK_MONOTONIC); }
  static std::int64_t computed() { return of(CLOCK_THREAD_CPUTIME_ID); }  ///< by this thread
#else
  static constexpr bool known = false;
  static std::int64_t elapsed() { return 0; }
  static std::int64_t computed() { return 0; }
#endif
};

/// How many of `n` more threads can be made now; threads made for the trial are joined.
inline int threads_to_be_had([[maybe_unused]] int n) {
#if defined(__unix__) || defined(__APPLE__)
  constexpr int most = 256;
  pthread_t made[most];
  std::atomic<int> gate{0};
  int count = 0;
  while (count < (std::min)(n, most) && pthread_create(
                                            made + count, nullptr,
                                            [](void* at) -> void* {
                                              static_cast<std::atomic<int>*>(at)->wait(0);
                                              return nullptr;
                                            },
                                            &gate) == 0)
    ++count;
  gate.store(1);
  gate.notify_all();
  for (int i = 0; i < count; ++i) pthread_join(made[i], nullptr);
  return count < (std::min)(n, most) ? count : n;
#else
  return n;
#endif
}

}  // namespace detail

/// Default number of threads: the processors that affinity leaves this process, limited by the
/// whole processors of its control group's quota. At least 1.
inline int default_threads() { return detail::usable_processors(detail::affine_processors()); }

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A user's own way to run threads in place of OpenMP. `run(object, n, body, argument)` must call
/// `body(argument, rank, size)` once for each rank in [0, size), for one size <= n. All calls run
/// at the same time, as they wait for each other. `run` returns when all have returned. It is not
/// called where one thread is enough.
struct executor {
  void* object = nullptr;
  void (*run)(void* object, int threads, void (*body)(void*, int, int), void* argument) = nullptr;
};

namespace detail {

/// Cost of meeting other threads, counted in looks at the barrier by the calling thread. Values
/// that one thread writes and another reads cost about `looks_per_meeting` beside the wait itself.
inline constinit thread_local std::int64_t looks = 0;
inline constexpr int looks_per_meeting = 4;

/// Looks up to `most` times whether `changed()`; returns the result of the last look.
template <class F>
bool spin(int most, F&& changed) {
  for (int n = 1;; ++n) {
    if (const bool found = changed(); found || n == most) {
      looks += n;
      return found;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

/// A reusable barrier: a short spin, then sleep, so a descheduled thread costs no processor time.
class barrier {
 public:
  void wait(int size) {
    looks += looks_per_meeting;
    const int phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.fetch_add(1, std::memory_order_acq_rel);
      phase_.notify_all();
      return;
    }
    const auto ended = [&] { return phase_.load(std::memory_order_acquire) != phase; };
    if (spin(4096, ended)) return;
    const std::int64_t begun = nanoseconds::elapsed();
    while (!ended()) phase_.wait(phase);
    const std::int64_t time = nanoseconds::elapsed() - begun;
    if (time > slept()) slept_.store(time, std::memory_order_relaxed);
  }
  /// Nanoseconds of a thread's longest sleep here, nearly: the others may overwrite it.
  std::int64_t slept() const { return slept_.load(std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
  alignas(64) std::atomic<std::int64_t> slept_{0};
};

/// Time that teams have saved one thread, in nanoseconds. Below 0 the team does without its other
/// threads until that has paid for their cost.
///
/// Threads that wait for each other need all of their processors at once. Where other programs, a
/// quota or a virtual machine's host takes some away, a team may be many times slower than one
/// thread. Results are the same for any number of threads, so the number may follow what pays. In
/// the time that it takes, a team has to compute what one undisturbed thread would.
class team_savings {
 public:
  /// Whether a team is worth another try.
  bool any() const { return balance_.load(std::memory_order_relaxed) >= 0; }
  /// Whether the clocks of the next team's threads are read. After a short call that paid, those of
  /// the next few are not: that takes microseconds.
  bool due() {
    const int left = unwatched_.load(std::memory_order_relaxed);
    if (left > 0) unwatched_.store(left - 1, std::memory_order_relaxed);
    return left == 0;
  }
  /// Accounts for a team that computed for `computed` in `elapsed`. Every failure in a row doubles
  /// the pause until the next try, up to about a second. Threads that OpenMP keeps waiting cost,
  /// too.
  void add(std::int64_t computed, std::int64_t elapsed) {
    std::int64_t gain = (std::max)(computed - elapsed, -largest_loss);
    const bool brief = gain > 0 && elapsed < 1'000'000;
    unwatched_.store(brief ? between : 0, std::memory_order_relaxed);
    if (brief) gain *= between + 1;
    std::int64_t left = (std::min)(most, balance_.load(std::memory_order_relaxed) + gain);
    const std::int64_t pause = pause_.load(std::memory_order_relaxed);
    if (left < 0) {
      left -= pause;
      pause_.store((std::min)(longest_pause, 2 * pause), std::memory_order_relaxed);
    } else if (gain > 0) {
      pause_.store(shortest_pause, std::memory_order_relaxed);
    }
    balance_.store(left, std::memory_order_relaxed);
  }
  /// Accounts for one thread that took `elapsed` where a team was asked for: an eighth of it pays
  /// back.
  void repay(std::int64_t elapsed) {
    const std::int64_t before = balance_.load(std::memory_order_relaxed);
    if (before < 0)
      balance_.store((std::min)(std::int64_t{0}, before + elapsed / 8), std::memory_order_relaxed);
  }

 private:
  // Threads that come here at the same time may overwrite each other's: an estimate is enough.
  static constexpr std::int64_t most = 10'000'000, start = 1'000'000;
  static constexpr std::int64_t shortest_pause = 1'000'000, longest_pause = 128'000'000;
  static constexpr std::int64_t largest_loss = 10'000'000'000;  // a process may have been stopped
  static constexpr int between = 15;
  std::atomic<std::int64_t> balance_{start}, pause_{shortest_pause};
  std::atomic<int> unwatched_{0};
};

/// One call of parallel(): where its threads meet, and how long they compute.
struct region {
  static constexpr std::int64_t reading = 3'000;  ///< nanoseconds of reading the threads' clocks
  team_savings& savings;
  barrier meeting{};
  std::atomic<std::int64_t> computed{0};
  const bool limited;                             ///< by what the savings allow
  const bool watched = limited && savings.due();  ///< whether its threads' clocks are read
  const std::int64_t begun = watched ? nanoseconds::elapsed() : 0;

  template <class F>
  void run(F& f, int rank, int size);
  void end() const {
    if (watched)
      savings.add(computed.load(), nanoseconds::elapsed() - begun - reading);
    else if (limited && meeting.slept() > 0)  // some thread came late
      savings.add(0, meeting.slept());
  }
  /// Nanoseconds of a look at the barrier.
  static double look() {
    static const double best = [] {
      const std::atomic<int> phase{0};
      std::int64_t least = 1'000'000;
      for (int i = 0; i < 8; ++i) {  // the shortest, as any may be interrupted
        const std::int64_t start = nanoseconds::elapsed();
        (void)spin(64, [&] { return phase.load(std::memory_order_acquire) != 0; });
        least = (std::min)(least, nanoseconds::elapsed() - start);
      }
      return static_cast<double>(least) / 64;
    }();
    return best;
  }
};

#if defined(_OPENMP)
/// Number of processors for the calling thread's teams; asked for again from time to time, as it
/// takes a while. Where OpenMP binds threads to processors, it alone knows those of the process.
inline int openmp_processors() {
  static thread_local int known = 0, calls = 0;
  if (calls++ % 64 == 0)
    known = omp_get_proc_bind() == omp_proc_bind_false ? affine_processors() : omp_get_num_procs();
  return usable_processors(known);
}
/// How many of `n` threads OpenMP can run for the calling thread. More would end the program where
/// OpenMP cannot make a thread. Or they would wait for ever: for threads that the parent of a
/// forked process had.
inline int openmp_threads(int n) {
#if defined(__unix__) || defined(__APPLE__)
  struct crew {
    pid_t process = 0;
    int asked = 1, given = 1;
  };
  static thread_local crew mine;
  if (mine.process == 0) mine.process = getpid();
  if (mine.process != getpid()) return 1;
  if (n > mine.asked) {  // twice as many, as others make threads, too
    mine.asked = n;
    mine.given = 1 + (std::min)(n - 1, threads_to_be_had(2 * (n - 1)) / 2);
  }
  return (std::min)(n, mine.given);
#else
  return n;
#endif
}
#endif

}  // namespace detail

/// Team of threads: a thread's place in the running parallel region. Outputs are split by position,
/// never by timing, so results do not depend on the number of threads.
class team {
 public:
  /// The team of one thread.
  constexpr team() = default;
  /// Rank `rank` of `size` threads that meet at `shared`.
  constexpr team(int rank, int size, detail::barrier* shared)
      : rank_(rank), size_(size), barrier_(shared) {}

  /// This thread's number in [0, size()).
  constexpr int rank() const { return rank_; }
  /// How many threads share the work.
  constexpr int size() const { return size_; }
  /// Waits until every thread of the team is here; makes their writes visible.
  void wait() const {
    if (size_ > 1) barrier_->wait(size_);
  }
  /// This thread's contiguous share [first, last) of `n` items.
  constexpr std::pair<index, index> range(index n) const {
    return {n * rank_ / size_, n * (rank_ + 1) / size_};
  }
  /// Calls `f(i)` for this thread's share of [0, n), then waits for the team.
  template <class F>
  void each(index n, F&& f) const {
    const auto [first, last] = range(n);
    for (index i = first; i < last; ++i) f(i);
    wait();
  }
  /// Calls `f()` on one thread while the others wait.
  template <class F>
  void once(F&& f) const {
    if (rank_ == 0) f();
    wait();
  }

 private:
  int rank_ = 0, size_ = 1;
  detail::barrier* barrier_ = nullptr;
};

template <class F>
void detail::region::run(F& f, int rank, int size) {
  const team mine(rank, size, &meeting);
  if (!watched) return f(mine);
  const std::int64_t started = nanoseconds::computed(), looked = looks;
  f(mine);
  const double waited = static_cast<double>(looks - looked) * look();
  computed.fetch_add(nanoseconds::computed() - started - static_cast<std::int64_t>(waited),
                     std::memory_order_relaxed);
}

/// Runs `f(team)` on up to `threads` threads. It uses `custom` if given, else OpenMP if the program
/// is compiled with it, else the calling thread alone. The caller's OpenMP settings are not
/// touched. `f` must not throw.
///
/// There are no more threads than default_threads(). For a while there is only one, where other
/// work keeps a team's threads from running at the same time. Where OpenMP can make fewer, there
/// are fewer; a forked process whose parent's thread used OpenMP here has one.
template <class F>
void parallel(int threads, const executor& custom, F&& f) {
#if defined(_OPENMP)
  const bool can = true;
#else
  const bool can = custom.run != nullptr;
#endif
  if (threads < 2 || !can) return f(team());
  const bool limited = detail::nanoseconds::known && detail::assumed_processors.load() == 0;
  static constinit detail::team_savings savings;  // those of this kind of call
  if (limited && !savings.any()) {
    const std::int64_t begun = detail::nanoseconds::elapsed();
    f(team());
    return savings.repay(detail::nanoseconds::elapsed() - begun);
  }
#if defined(_OPENMP)
  threads = (std::min)(threads, detail::openmp_processors());
  if (custom.run == nullptr) threads = detail::openmp_threads(threads);
#else
  threads = (std::min)(threads, default_threads());
#endif
  if (threads < 2) return f(team());
  detail::region here{.savings = savings, .limited = limited};
  if (custom.run != nullptr) {
    struct work {
      F& f;
      detail::region& here;
    } shared{f, here};
    custom.run(
        custom.object, threads,
        [](void* argument, int rank, int size) {
          auto& w = *static_cast<work*>(argument);
          w.here.run(w.f, rank, size);
        },
        &shared);
  }
#if defined(_OPENMP)
  else {
#pragma omp parallel num_threads(threads)
    here.run(f, omp_get_thread_num(), omp_get_num_threads());
  }
#endif
  here.end();
}

LINNET_NAMESPACE_END
/// @file
/// Where operations run: threads, instruction-set level and scratch memory.

/// @file
/// The kernels, as the rest of the library includes them. With linnet::kernels they are only
/// declared here (LINNET_COMPILED_KERNELS); its one source defines them (LINNET_KERNELS_SOURCE).

/// @file
/// Instruction sets: four levels of the same kernels, chosen at run time. A program built without
/// -march so uses the best level of the machine it runs on.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/// @file
/// Arguments of the kernels of every instruction-set level.

LINNET_SIMD_NAMESPACE_BEGIN

/// Elementwise nonlinearities: the argument of the activation kernels.
enum class activation_kind {
  relu,       ///< max(x, 0)
  gelu,       ///< x Phi(x), exact, with the error function
  gelu_tanh,  ///< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), "gelu_new"
  silu,       ///< x sigmoid(x)
  tanh        ///< tanh x
};

namespace simd {

/// The code of a bfloat16 value.
enum class bf16_code : std::uint16_t {};

/// Columns of a packed panel. One layout serves every instruction-set level.
inline constexpr index panel_width = 32;

/// A 32-bit word of a packed panel: codes of one column for successive k, the first in the lowest
/// bits. It holds 2 codes of 16 bits, 4 of 8 or 8 of 4.
using word = std::uint32_t;

/// How the codes of a word become numbers.
enum class code {
  bf16,     ///< the upper half of a float
  f16,      ///< IEEE half precision
  f8_e4m3,  ///< 8 bits: 4 of exponent, bias 7, no infinities
  f8_e5m2,  ///< 8 bits: the upper half of an f16
  u8,       ///< 0 to 255
  u4,       ///< 0 to 15
  nf4       ///< 16 normal quantiles
};
/// Bits of one code.
constexpr int bits_of(code c) {
  return c == code::bf16 || c == code::f16 ? 16 : c == code::u4 || c == code::nf4 ? 4 : 8;
}
/// The values of the NF4 codes (Dettmers et al. 2023).
inline constexpr float nf4_values[16] = {-1.0f,        -0.6961928f,  -0.52507305f, -0.39491749f,
                                         -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
                                         0.0795803f,   0.1609302f,   0.2461123f,   0.33791524f,
                                         0.44070983f,  0.562617f,    0.72295684f,  1.0f};

/// Left factor A of a product, addressed as a(i, k) = data[i*row + k*column]. Transposed and sliced
/// matrices so need no copy.
template <class T>
struct rows_operand {
  const T* data;
  index row, column;
};

/// Right factor B of a product: K rows of N columns. Column j of row k is data[(j / 32) * panel +
/// k*ld + j % 32]. That holds of packed panels (ld = 32, panel = 32 K) as well as of any row-major
/// matrix (panel = 32).
template <class Value>
struct columns_operand {
  const Value* data;
  index ld, panel;
};

/// Tokens in a block of cached keys or values: blocks may lie anywhere.
inline constexpr index token_block = 32;

/// Keys or values of one head and sequence, a row for each token. Token j is row j of `data`, or
/// behind `fixed` rows in a ring, or in the block that `table` names; `fixed` and `ring` are
/// multiples of a block.
template <class Code>
struct token_rows {
  const Code* data;
  index stride;  ///< from row to row
  index fixed = 0, ring = 0;
  const std::int32_t* table = nullptr;

  /// Number of the row that holds token j.
  constexpr index place(index j) const {
    if (table) return table[j / token_block] * token_block + j % token_block;
    return ring && j >= fixed ? fixed + (j - fixed) % ring : j;
  }
  /// Where row place(j) begins.
  constexpr const Code* row(index j) const { return data + place(j) * stride; }
  /// End of the tokens that follow token j in memory without a gap, at most `end`.
  constexpr index run(index j, index end) const {
    const index next = (j / token_block + 1) * token_block;
    return (ring || table) && next < end ? next : end;
  }
};

/// Epilogue of a product, applied before it is stored: y = [y +] alpha * x + bias_j.
template <class T>
struct epilogue {
  const T* bias = nullptr;  ///< one per column, or null
  T alpha = T(1);
  bool accumulate = false;  ///< add to what is there instead of overwriting it

  /// Epilogue of the part of the product that begins there.
  constexpr epilogue from(index, index column) const {
    return {bias ? bias + column : nullptr, alpha, accumulate};
  }
};

/// Epilogue of an integer product of signed activations and unsigned weight codes: y = [y +] alpha
/// row_scale_i scale_j (x - zero_j row_sum_i) + bias_j.
struct integer_epilogue {
  const float* bias = nullptr;  ///< one per column, or null
  float alpha = 1;
  bool accumulate = false;                ///< add to what is there instead of overwriting it
  const float* scale = nullptr;           ///< one per column
  const float* zero = nullptr;            ///< the code of 0 in each column; null for 128
  const float* row_scale = nullptr;       ///< one per row
  const std::int32_t* row_sum = nullptr;  ///< sum of each row's codes

  /// Epilogue of the part of the product that begins there.
  constexpr integer_epilogue from(index row, index column) const {
    return {bias ? bias + column : nullptr, alpha,           accumulate,   scale + column,
            zero ? zero + column : nullptr, row_scale + row, row_sum + row};
  }
};

}  // namespace simd

LINNET_SIMD_NAMESPACE_END

LINNET_SIMD_NAMESPACE_BEGIN

namespace simd {

/// An instruction-set level. Results are bitwise reproducible within a level.
enum class level {
  automatic,  ///< the best of this machine, see best()
  portable,   ///< 16-byte vectors of the compilation target: SSE2, NEON or plain scalar code
  avx2,       ///< 32-byte vectors with fused multiply-add
  avx512,     ///< 64-byte vectors (F, BW, DQ, VL)
  avx512dot   ///< the same with dot products of int8 and bf16 (VNNI, BF16)
};
/// All levels, from the plainest.
inline constexpr level levels[] = {level::portable, level::avx2, level::avx512, level::avx512dot};

/// Name of a level, as LINNET_SIMD spells it.
constexpr const char* name(level l) {
  return l == level::avx512dot ? "avx512dot"
         : l == level::avx512  ? "avx512"
         : l == level::avx2    ? "avx2"
                               : "portable";
}

namespace detail {

/// Calls f(position, count) for full vectors and, once, for the rest.
#define LINNET_FOR_VECTORS(T, i, count, n) \
  for (index i = 0, count = lanes<T>;      \
       i < (n) && ((count = (n)-i < lanes<T> ? (n)-i : lanes<T>), true); i += lanes<T>)

/// Hides from the optimizer how a register's value came about.
#if defined(__x86_64__)
#define LINNET_KEEP(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define LINNET_KEEP(x) __asm__("" : "+w"(x))
#else
#define LINNET_KEEP(x) __asm__("" : "+m"(x))
#endif

#if defined(__SSE2__)
#define LINNET_LOW_PRODUCTS(a, b) \
  _mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b))
#endif
#define LINNET_TARGET
#define LINNET_WIDTH 16
#if defined(__aarch64__)
#define LINNET_ROWS 8  // it has 32 registers
#else
#define LINNET_ROWS 6
#endif
/// Kernels for any machine.
struct portable {
/// @file
/// Vectors of one instruction-set level: included inside a struct by simd/levels.hpp, once per
/// level, with LINNET_TARGET and LINNET_WIDTH (bytes) set.

template <class T, int Lanes>
struct vector_of {
  // NOLINTNEXTLINE(modernize-use-using): of a dependent type, g++ forgets it with using
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes)));
};
/// Values of type T in one register.
template <class T>
static constexpr int lanes = LINNET_WIDTH / static_cast<int>(sizeof(T));
/// One register of T.
template <class T>
using vec = typename vector_of<T, lanes<T>>::type;
/// As many integers as a register holds T.
template <class T>
using vec_int = typename vector_of<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>,
                                   lanes<T>>::type;

template <class T>
LINNET_TARGET static inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LINNET_TARGET static inline void store(T* p, const vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first `n` values, zeros behind them.
template <class T>
LINNET_TARGET static inline vec<T> load_first(const T* p, index n) {
#if defined(LINNET_LOAD_FIRST)
  if constexpr (sizeof(T) == 4) return LINNET_LOAD_FIRST(p, n);
#endif
  T values[lanes<T>] = {};
  for (index l = 0; l < n; ++l) values[l] = p[l];
  return load(values);
}
template <class T>
LINNET_TARGET static inline void store_first(T* p, const vec<T>& v, index n) {
#if defined(LINNET_STORE_FIRST)
  if constexpr (sizeof(T) == 4) {
    LINNET_STORE_FIRST(p, v, n);
    return;
  }
#endif
  T values[lanes<T>];
  store(values, v);
  for (index l = 0; l < n; ++l) p[l] = values[l];
}
/// All lanes or the first `count`.
template <class T>
LINNET_TARGET static inline vec<T> get(const T* p, index count) {
  return count == lanes<T> ? load(p) : load_first<T>(p, count);
}
template <class T>
LINNET_TARGET static inline void put(T* p, const vec<T>& v, index count) {
  if (count == lanes<T>)
    store(p, v);
  else
    store_first(p, v, count);
}
/// Lanes First, First + 1, ... of a vector, as many as there are `Lane`.
template <int First, class Vector, int... Lane>
LINNET_TARGET static inline auto part(const Vector& v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (First + Lane)...);
}
/// Sum of the lanes, halves first, in a fixed order.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T sum(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    return sum<T, half>(part<0>(v, lanes_of_half) + part<half>(v, lanes_of_half));
  }
}
/// Blocks of four lanes of a and b: in each, a's lower (High = 0) or upper two and b's in turns.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_lanes(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 4 / 2 + Lane % 2 * all)...);
}
/// Interleaves blocks of four lanes of a and b, with a's two lanes before b's.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_pairs(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 2 + Lane % 4 / 2 * all)...);
}
/// The even (Odd = 0) or odd blocks of four lanes of a, then of b.
template <int Odd, class Vector, int... Lane>
LINNET_TARGET static inline auto every_other_block(const Vector& a, const Vector& b,
                                                   std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane / 4 * 2 + Odd) * 4 + Lane % 4)...);
}
/// Sums of the lanes of many vectors at once. Of as many as a vector has lanes: y_r is the sum of
/// v[r]. Of half as many: the sums of their lower and upper halves. The halves of v[r] hold what
/// becomes y_j and y_(j+4), j = r / 4 * 8 + r % 4.
template <class T, std::size_t Count>
LINNET_TARGET static inline void sums(const vec<T> (&v)[Count], vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  vec<T> s[Count / 4];
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 4; ++i) {
    const vec<T>* const p = v + 4 * i;
    const vec<T> ab = mixed_lanes<0>(p[0], p[1], all) + mixed_lanes<1>(p[0], p[1], all);
    const vec<T> cd = mixed_lanes<0>(p[2], p[3], all) + mixed_lanes<1>(p[2], p[3], all);
    s[i] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
  }
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 8; ++i)
    s[i] = every_other_block<0>(s[2 * i], s[2 * i + 1], all) +
           every_other_block<1>(s[2 * i], s[2 * i + 1], all);
  if constexpr (Count == 16)
    s[0] = every_other_block<0>(s[0], s[1], all) + every_other_block<1>(s[0], s[1], all);
  y = s[0];
}
/// Lanes [first, last) of v, zeros around them.
template <class T, int... Lane>
LINNET_TARGET static inline vec<T> some_lanes(const vec<T>& v, index first, index last,
                                              std::integer_sequence<int, Lane...>) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const vec_int<T> lane = {Lane...};
  const auto from = static_cast<number>(first), to = static_cast<number>(last);
  return ((lane >= from) & (lane < to)) ? v : vec<T>{};
}
/// Half a vector from each of two places.
template <class T, int... Lane>
LINNET_TARGET static inline auto load_halves(const T* a, const T* b,
                                             std::integer_sequence<int, Lane...>) {
  typename vector_of<T, sizeof...(Lane) / 2>::type low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
  return __builtin_shufflevector(low, high, Lane...);
}
/// Largest lane.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T largest(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    const auto low = part<0>(v, lanes_of_half), high = part<half>(v, lanes_of_half);
    return largest<T, half>(low > high ? low : high);
  }
}

/// Square root of each lane.
template <class T>
LINNET_TARGET static inline vec<T> sqrt(const vec<T>& x) {
#if defined(LINNET_ROOT_FLOAT)
  vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const auto r = LINNET_ROOT_FLOAT(x);
    __builtin_memcpy(&y, &r, sizeof y);
  } else {
    const auto r = LINNET_ROOT_DOUBLE(x);
    __builtin_memcpy(&y, &r, sizeof y);
  }
  return y;
#else
  T values[lanes<T>];
  store(values, x);
  for (int l = 0; l < lanes<T>; ++l) values[l] = std::sqrt(values[l]);
  return load(values);
#endif
}

/// e^x. float: relative error below 2e-7 on [-87, 88], 0 below it; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> exp(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> zero = {};  // not x - x, which is NaN for an infinite x
    const vec<T> most = zero + T(88), least = zero + T(-87.3);
    vec<T> c = x > most ? most : x;
    c = c < least ? least : c;
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    vec<T> shifted = c * T(1.44269504088896341) + T(12582912);
    LINNET_KEEP(shifted);
    const vec<T> fn = shifted - T(12582912);
    vec<T> high = c - fn * T(0.693359375);
    LINNET_KEEP(high);  // or -ffast-math adds up the two parts of ln 2
    const vec<T> r = high + fn * T(2.12194440e-4);
    vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    vec_int<T> bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    vec<T> power;
    __builtin_memcpy(&power, &bits, sizeof power);
    p = p * power;
    return x < least ? zero : p;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::exp(values[l]);
    return load(values);
  }
}
/// tanh x. float: absolute error below 3e-7; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> tanh(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> e = exp<T>(T(-2) * a);
    const vec<T> t = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -t : t;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::tanh(values[l]);
    return load(values);
  }
}
/// erf x. float: absolute error below 4e-7 (Abramowitz and Stegun 7.1.26); double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> erf(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> t = T(1) / (T(1) + a * T(0.3275911));
    vec<T> p = t * T(1.061405429) - T(1.453152027);
    p = p * t + T(1.421413741);
    p = p * t - T(0.284496736);
    p = p * t + T(0.254829592);
    const vec<T> y = T(1) - p * t * exp<T>(-(a * a));
    return x < T(0) ? -y : y;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::erf(values[l]);
    return load(values);
  }
}

/// f(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> activate(const vec<T>& x) {
  // In this order a NaN stays, in one instruction; with -ffast-math the compiler chooses.
  if constexpr (A == activation_kind::relu) return vec<T>{} > x ? vec<T>{} : x;
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * x * (T(1) + erf<T>(x * T(0.70710678118654752)));
  if constexpr (A == activation_kind::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh<T>(T(0.79788456080286536) * (x + T(0.044715) * (x * x * x))));
  if constexpr (A == activation_kind::silu) return x / (T(1) + exp<T>(-x));
  if constexpr (A == activation_kind::tanh) return tanh<T>(x);
}
/// 1 - tanh^2 x without the difference, so that it vanishes exactly where x is large.
template <class T>
LINNET_TARGET static inline vec<T> tanh_derivative(const vec<T>& x) {
  const vec<T> e = exp<T>(T(-2) * (x < T(0) ? -x : x));
  return T(4) * e / ((T(1) + e) * (T(1) + e));
}
/// f'(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> derivative(const vec<T>& x) {
  if constexpr (A == activation_kind::relu)
    return x > T(0) ? vec<T>{} + T(1) : activate<activation_kind::relu, T>(x);
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * (T(1) + erf<T>(x * T(0.70710678118654752))) +
           x * T(0.39894228040143268) * exp<T>(T(-0.5) * (x * x));
  if constexpr (A == activation_kind::gelu_tanh) {
    const vec<T> u = T(0.79788456080286536) * (x + T(0.044715) * (x * x * x));
    return T(0.5) * (T(1) + tanh<T>(u)) +
           T(0.5) * x * tanh_derivative<T>(u) *
               (T(0.79788456080286536) * (T(1) + T(0.134145) * (x * x)));
  }
  if constexpr (A == activation_kind::silu) {
    const vec<T> s = T(1) / (T(1) + exp<T>(-x));
    return s * (T(1) + x * (T(1) - s));
  }
  if constexpr (A == activation_kind::tanh) return tanh_derivative<T>(x);
}

/// @file
/// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
/// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// Loads the values of an epilogue for the columns of one vector, and applies it to a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there. Rows of B up to `safe` may be read in full
/// vectors, the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[std::size_t{R}][std::size_t{W}] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  // A pointer for every three rows: their places are then parts of instructions, not additions.
  const typename Steps::left* rows[std::size_t{R + 2} / 3];
  LINNET_UNROLL
  for (int i = 0; i < R; i += 3) rows[i / 3] = left + i * a.row;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[std::size_t{W}];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = rows[i / 3][i % 3 * a.row] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
    LINNET_UNROLL
    for (int i = 0; i < R; i += 3) rows[i / 3] += a.column;
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read. Rows of packed panels are padded to 32 columns.
template <class Steps, class Finish, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

/// @file
/// Scores and weighted sums of attention over rows of tokens, at one instruction-set level:
/// included inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a
/// masked vector at the end.

/// Loads lanes of stored numbers as T: from T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// Loads the first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// Products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// Products of x with rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that the
/// result does not depend on blocks.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
/// @file
/// Activations and AdamW, value by value, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// y = f(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * derivative<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_TARGET static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_TARGET static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * derivative<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (Loshchilov and Hutter 2019). The moving averages are m and v. `rate` and `eps`
/// have the bias corrections folded in; `decay` is learning rate times weight decay.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (sqrt<T>(vi) + eps) + decay * wi), c);
  }
}
/// @file
/// Stored codes and low-precision activations of one instruction-set level: included inside a
/// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null. With `Minima`, `zeros` are added after scaling: out = scale_j code + zero_j.
template <code C, bool Minima = false>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr ((C == code::u8 || C == code::u4) && !Minima) x = x - origin;
        if (scales) x = x * scale;
        if constexpr (Minima) x = x + origin;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// Adds to sums[32] scale_j (sum of a_k (code_kj - zero_j)): one row of `k` inputs with one panel
/// whose scales they share. Decoded weights stay in registers. With `Minima` it adds scale_j (sum
/// of a_k code_kj) + zero_j (sum of a_k).
template <code C, bool Minima = false>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = (C == code::u8 || C == code::u4) && !Minima;
  float total = 0;
  if constexpr (Minima) {
    vec<float> parts = {};
    for (index i = 0; i < k; i += lanes<float>)
      parts += get(a + i, k - i < lanes<float> ? k - i : lanes<float>);
    total = sum<float>(parts);
  }
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[std::size_t{per_word}] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    if constexpr (Minima) x += origin * total;
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127.
/// Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes. A row
/// below 2^-119 becomes zeros with the scale 1. A row that is not finite has the scale NaN, so that
/// whatever is made of it is NaN.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec_int<float> most = {};  // magnitudes as bits: in their order NaN is the largest
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec_int<float> a = bits_as<vec_int<float>>(v) & 0x7fffffff;
    most = a > most ? a : most;
  }
  const std::int32_t top_bits = largest<std::int32_t>(most);
  if (top_bits >= 0x7f800000) {
    for (index i = 0; i < round_up(n, 4); ++i) y[i] = 0;
    codes_sum = 0;
    return bits_as<float>(std::int32_t{0x7fc00000});
  }
  const float top = bits_as<float>(top_bits);
  const bool tiny = top < 0x1p-119f;  // 127 / top might be infinite
  const float scale = tiny ? 1.0f : top / 127.0f, inverse = tiny ? 0.0f : 127.0f / top;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
/// @file
/// Sums, products and the largest of rows, at one instruction-set level: included inside a struct
/// by simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the
/// end.

/// y = a + b; y may be a or b
template <class T>
LINNET_TARGET static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_TARGET static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
/// sum of x_i y_i
template <class T>
LINNET_TARGET static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}

/// sum of x_i
template <class T>
LINNET_TARGET static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
/// largest x_i; n > 0
template <class T>
LINNET_TARGET static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// Whether all of x[rows, n] are finite, rows `stride` apart; looks at the bits, as is_finite().
template <class T>
LINNET_TARGET static bool all_finite(index rows, index n, const T* x, index stride) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr number exponent = sizeof(T) == 4 ? 0x7f800000 : number(0x7ff0000000000000);
  vec_int<T> found{};
  for (index row = 0; row < rows; ++row, x += stride) LINNET_FOR_VECTORS(T, i, c, n) {
      const vec<T> v = get(x + i, c);
      vec_int<T> bits;
      __builtin_memcpy(&bits, &v, sizeof bits);
      found |= (bits & exponent) == exponent;
    }
  number any = 0;
  for (int l = 0; l < lanes<T>; ++l) any |= found[l];
  return any == 0;
}
/// @file
/// Softplus and steps of selective scans, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3; s itself may be too small for a float
      const vec<T> twice = u / (T(1) + T(0.5) * u), q = T(0.25) * (twice * twice);
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + (twice + twice * (q * p)), c);
    } else {
      T values[lanes<T>];
      store<T>(values, u);
      for (int l = 0; l < lanes<T>; ++l) values[l] = std::log1p(values[l]);
      put<T>(x + i, positive + load<T>(values), c);
    }
  }
}
/// dx *= 1 / (1 + e^-x), the derivative of softplus.
template <class T>
LINNET_TARGET static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (Gu and Dao 2023). The equations
/// are decay = exp(delta_i a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij
/// c_j. next may be h.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
                                    const T* b, const T* c, const T* h, T* decay, T* next, T* y) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n) {
    const T input = delta[i] * x[i];
    vec<T> all = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> e = exp<T>(delta[i] * get(a + j, count));
      const vec<T> s = e * get(h + j, count) + input * get(b + j, count);
      put<T>(decay + j, e, count);
      put<T>(next + j, s, count);
      all += s * get(c + j, count);
    }
    y[i] = sum<T>(all);
  }
}
/// Derivative of one scan step: g_ij = carried_ij + dy_i c_j is that of next_ij. Then carried
/// becomes decay g; da, db and dc are added to. Overwritten are d_input = g . b (of delta_i x_i)
/// and d_decay (of delta_i through the decay).
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void scan_step_backward(index rows, index n, const T* delta, const T* x,
                                             const T* a, const T* b, const T* c, const T* h,
                                             const T* decay, const T* next, const T* dy, T* carried,
                                             T* da, T* db, T* dc, T* d_input, T* d_decay) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n, carried += n, da += n) {
    const T input = delta[i] * x[i];
    vec<T> inputs = {}, decays = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> g = get(carried + j, count) + dy[i] * get(c + j, count);
      const vec<T> past = get(decay + j, count) * g;
      const vec<T> u = past * get(h + j, count);
      put<T>(carried + j, past, count);
      put<T>(da + j, get(da + j, count) + delta[i] * u, count);
      put<T>(db + j, get(db + j, count) + input * g, count);
      put<T>(dc + j, get(dc + j, count) + dy[i] * get(next + j, count), count);
      inputs += g * get(b + j, count);
      decays += u * get(a + j, count);
    }
    d_input[i] = sum<T>(inputs);
    d_decay[i] = sum<T>(decays);
  }
}
/// @file
/// Softmax and the norms of rows, forward and backward, at one instruction-set level: included
/// inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a masked
/// vector at the end.

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    const vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    return sum<T>(some_lanes<T>(e, 0, n, all));
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  const vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  return sum<T>(total + some_lanes<T>(ending, i - last, lanes<T>, all));
}
/// Softmax in place (Vaswani et al. 2017, eq. 1); n > 0.
template <class T>
LINNET_TARGET static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - sum(p dp)), the derivative of softmax; dx may be dp.
template <class T>
LINNET_TARGET static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  const T s = dot(n, p, dp);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019); returns 1 / sqrt(...).
template <class T>
LINNET_TARGET static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_TARGET static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
                                            T* dx) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(dy + i, c) * get(gamma + i, c) * get(x + i, c);
  const T shared = r * r * r * sum<T>(all) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + (r * u - shared * get(x + i, c)), c);
  }
}
/// y = gamma * (x - mean) / sqrt(var + eps) + beta; statistics = {mean, 1 / sqrt(...)}.
template <class T>
LINNET_TARGET static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
                                     T* y, T* statistics) {
  const T mean = total(n, x) / static_cast<T>(n);
  vec<T> all = {};
  const index whole = n - n % lanes<T>;
  for (index i = 0; i < whole; i += lanes<T>) {
    const vec<T> d = load(x + i) - mean;
    all += d * d;
  }
  T spread = sum<T>(all);
  for (index i = whole; i < n; ++i) spread += (x[i] - mean) * (x[i] - mean);
  const T r = T(1) / std::sqrt(spread / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, j, c, n)
  put<T>(y + j, get(gamma + j, c) * ((get(x + j, c) - mean) * r) + get(beta + j, c), c);
  statistics[0] = mean;
  statistics[1] = r;
}
/// dx += r (u - mean(u) - xhat mean(u xhat)), u = dy gamma, xhat = (x - mean) r.
template <class T>
LINNET_TARGET static void layer_norm_backward(index n, const T* statistics, const T* x,
                                              const T* gamma, const T* dy, T* dx) {
  const T mean = statistics[0], r = statistics[1];
  vec<T> us = {}, uxs = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    us += u;
    uxs += u * ((get(x + i, c) - mean) * r);
  }
  const T u_mean = sum<T>(us) / static_cast<T>(n), ux_mean = sum<T>(uxs) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + r * (u - u_mean - (get(x + i, c) - mean) * r * ux_mean), c);
  }
}

/// @file
/// Dropout masks of one instruction-set level: included inside a struct by simd/levels.hpp.

/// Products of the lower halves of 64-bit lanes.
LINNET_TARGET static inline vec<std::uint64_t> low_products(const vec<std::uint64_t>& a,
                                                            const vec<std::uint64_t>& b) {
#if defined(LINNET_LOW_PRODUCTS)
  return reinterpret_cast<vec<std::uint64_t>>(LINNET_LOW_PRODUCTS(a, b));
#else
  return (a & 0xFFFFFFFFu) * b;
#endif
}
/// The lanes of a and b by turns: of their lower halves (High = 0) or upper ones.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline Vector by_turns(const Vector& a, const Vector& b,
                                            std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b, ((all * High + Lane) / 2 + Lane % 2 * all)...);
}
/// Counters of Philox that fill a register.
static constexpr index philox_lanes = lanes<std::uint64_t>;
/// The words philox(key, high, counter), of that many counters from the first on: [counters, 4].
/// What the upper halves of lanes hold on the way means nothing.
LINNET_TARGET static inline void philox_words(std::uint64_t key, std::uint64_t high,
                                              std::uint64_t first, word* words) {
  using wide = vec<std::uint64_t>;
  wide x0 = wide{} + first, x2 = wide{} + high;
  for (index i = 0; i < philox_lanes; ++i) x0[i] += static_cast<std::uint64_t>(i);
  wide x1 = x0 >> 32, x3 = x2 >> 32;
  auto k0 = static_cast<word>(key), k1 = static_cast<word>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const wide a = low_products(x0, wide{} + 0xD2511F53u),
               b = low_products(x2, wide{} + 0xCD9E8D57u);
    x0 = (b >> 32) ^ x1 ^ (wide{} + k0);
    x1 = b;
    x2 = (a >> 32) ^ x3 ^ (wide{} + k1);
    x3 = a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  x0 = (x0 & 0xFFFFFFFFu) | x1 << 32;
  x2 = (x2 & 0xFFFFFFFFu) | x3 << 32;
  constexpr std::make_integer_sequence<int, lanes<std::uint64_t>> all{};
  const wide low = by_turns<0>(x0, x2, all), upper = by_turns<1>(x0, x2, all);
  __builtin_memcpy(words, &low, sizeof low);
  __builtin_memcpy(words + 2 * philox_lanes, &upper, sizeof upper);
}
/// Dropout in place: x *= 0 or keep, and y too unless it is null; 0 where the value's Philox word
/// is below `limit`. Value i has word (first + i) % 4 of counter (first + i) / 4.
template <class T>
LINNET_TARGET static void drop(std::uint64_t key, std::uint64_t high, word limit, T keep,
                               index first, index n, T* x, T* y) {
  using some_words = typename vector_of<word, lanes<T>>::type;
  word words[4 * philox_lanes + lanes<T>] = {};  // the last ones are read, not used
  for (index done = 0; done < n;) {
    const index skip = (first + done) % 4, left = 4 * philox_lanes - skip,
                here = n - done < left ? n - done : left;
    philox_words(key, high, static_cast<std::uint64_t>((first + done) / 4), words);
    for (index i = 0; i < here; i += lanes<T>) {
      const index count = here - i < lanes<T> ? here - i : lanes<T>;
      some_words w;
      __builtin_memcpy(&w, words + skip + i, sizeof w);
      const auto dropped = __builtin_convertvector(w < limit, vec_int<T>);
      const auto multiplier =
          reinterpret_cast<vec<T>>(reinterpret_cast<vec_int<T>>(vec<T>{} + keep) & ~dropped);
      put<T>(x + done + i, get(x + done + i, count) * multiplier, count);
      if (y != nullptr) put<T>(y + done + i, get(y + done + i, count) * multiplier, count);
    }
    done += here;
  }
}
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_LOW_PRODUCTS

#if defined(__x86_64__)
// Where the vector extensions have no word for it, or g++ 12 no good code: intrinsics.
#define LINNET_FIRST(n)                                      \
  _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), \
                     _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define LINNET_LOAD_FIRST(p, n) \
  reinterpret_cast<vec<T>>(_mm256_maskload_ps(reinterpret_cast<const float*>(p), LINNET_FIRST(n)))
#define LINNET_STORE_FIRST(p, v, n) \
  _mm256_maskstore_ps(reinterpret_cast<float*>(p), LINNET_FIRST(n), reinterpret_cast<__m256>(v))
#define LINNET_ROOT_FLOAT(x) _mm256_sqrt_ps(reinterpret_cast<__m256>(x))
#define LINNET_ROOT_DOUBLE(x) _mm256_sqrt_pd(reinterpret_cast<__m256d>(x))
#define LINNET_LOOK_UP(table, i)                                                            \
  reinterpret_cast<vec<float>>(_mm256_blendv_ps(                                            \
      _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), reinterpret_cast<__m256i>(i)),       \
      _mm256_permutevar8x32_ps(_mm256_loadu_ps((table) + 8), reinterpret_cast<__m256i>(i)), \
      reinterpret_cast<__m256>((i) << 28)))
#define LINNET_DOT_PAIRS(a, b)      \
  reinterpret_cast<vec_int<float>>( \
      _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)))
#define LINNET_BYTES(p)             \
  reinterpret_cast<vec_int<float>>( \
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))
#define LINNET_LOW_PRODUCTS(a, b) \
  _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b))
#define LINNET_TARGET __attribute__((target("avx2,fma")))
#define LINNET_WIDTH 32
#define LINNET_ROWS 6
/// Kernels for AVX2 with FMA.
struct avx2 {
/// @file
/// Vectors of one instruction-set level: included inside a struct by simd/levels.hpp, once per
/// level, with LINNET_TARGET and LINNET_WIDTH (bytes) set.

template <class T, int Lanes>
struct vector_of {
  // NOLINTNEXTLINE(modernize-use-using): of a dependent type, g++ forgets it with using
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes)));
};
/// Values of type T in one register.
template <class T>
static constexpr int lanes = LINNET_WIDTH / static_cast<int>(sizeof(T));
/// One register of T.
template <class T>
using vec = typename vector_of<T, lanes<T>>::type;
/// As many integers as a register holds T.
template <class T>
using vec_int = typename vector_of<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>,
                                   lanes<T>>::type;

template <class T>
LINNET_TARGET static inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LINNET_TARGET static inline void store(T* p, const vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first `n` values, zeros behind them.
template <class T>
LINNET_TARGET static inline vec<T> load_first(const T* p, index n) {
#if defined(LINNET_LOAD_FIRST)
  if constexpr (sizeof(T) == 4) return LINNET_LOAD_FIRST(p, n);
#endif
  T values[lanes<T>] = {};
  for (index l = 0; l < n; ++l) values[l] = p[l];
  return load(values);
}
template <class T>
LINNET_TARGET static inline void store_first(T* p, const vec<T>& v, index n) {
#if defined(LINNET_STORE_FIRST)
  if constexpr (sizeof(T) == 4) {
    LINNET_STORE_FIRST(p, v, n);
    return;
  }
#endif
  T values[lanes<T>];
  store(values, v);
  for (index l = 0; l < n; ++l) p[l] = values[l];
}
/// All lanes or the first `count`.
template <class T>
LINNET_TARGET static inline vec<T> get(const T* p, index count) {
  return count == lanes<T> ? load(p) : load_first<T>(p, count);
}
template <class T>
LINNET_TARGET static inline void put(T* p, const vec<T>& v, index count) {
  if (count == lanes<T>)
    store(p, v);
  else
    store_first(p, v, count);
}
/// Lanes First, First + 1, ... of a vector, as many as there are `Lane`.
template <int First, class Vector, int... Lane>
LINNET_TARGET static inline auto part(const Vector& v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (First + Lane)...);
}
/// Sum of the lanes, halves first, in a fixed order.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T sum(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    return sum<T, half>(part<0>(v, lanes_of_half) + part<half>(v, lanes_of_half));
  }
}
/// Blocks of four lanes of a and b: in each, a's lower (High = 0) or upper two and b's in turns.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_lanes(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 4 / 2 + Lane % 2 * all)...);
}
/// Interleaves blocks of four lanes of a and b, with a's two lanes before b's.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_pairs(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 2 + Lane % 4 / 2 * all)...);
}
/// The even (Odd = 0) or odd blocks of four lanes of a, then of b.
template <int Odd, class Vector, int... Lane>
LINNET_TARGET static inline auto every_other_block(const Vector& a, const Vector& b,
                                                   std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane / 4 * 2 + Odd) * 4 + Lane % 4)...);
}
/// Sums of the lanes of many vectors at once. Of as many as a vector has lanes: y_r is the sum of
/// v[r]. Of half as many: the sums of their lower and upper halves. The halves of v[r] hold what
/// becomes y_j and y_(j+4), j = r / 4 * 8 + r % 4.
template <class T, std::size_t Count>
LINNET_TARGET static inline void sums(const vec<T> (&v)[Count], vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  vec<T> s[Count / 4];
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 4; ++i) {
    const vec<T>* const p = v + 4 * i;
    const vec<T> ab = mixed_lanes<0>(p[0], p[1], all) + mixed_lanes<1>(p[0], p[1], all);
    const vec<T> cd = mixed_lanes<0>(p[2], p[3], all) + mixed_lanes<1>(p[2], p[3], all);
    s[i] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
  }
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 8; ++i)
    s[i] = every_other_block<0>(s[2 * i], s[2 * i + 1], all) +
           every_other_block<1>(s[2 * i], s[2 * i + 1], all);
  if constexpr (Count == 16)
    s[0] = every_other_block<0>(s[0], s[1], all) + every_other_block<1>(s[0], s[1], all);
  y = s[0];
}
/// Lanes [first, last) of v, zeros around them.
template <class T, int... Lane>
LINNET_TARGET static inline vec<T> some_lanes(const vec<T>& v, index first, index last,
                                              std::integer_sequence<int, Lane...>) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const vec_int<T> lane = {Lane...};
  const auto from = static_cast<number>(first), to = static_cast<number>(last);
  return ((lane >= from) & (lane < to)) ? v : vec<T>{};
}
/// Half a vector from each of two places.
template <class T, int... Lane>
LINNET_TARGET static inline auto load_halves(const T* a, const T* b,
                                             std::integer_sequence<int, Lane...>) {
  typename vector_of<T, sizeof...(Lane) / 2>::type low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
  return __builtin_shufflevector(low, high, Lane...);
}
/// Largest lane.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T largest(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    const auto low = part<0>(v, lanes_of_half), high = part<half>(v, lanes_of_half);
    return largest<T, half>(low > high ? low : high);
  }
}

/// Square root of each lane.
template <class T>
LINNET_TARGET static inline vec<T> sqrt(const vec<T>& x) {
#if defined(LINNET_ROOT_FLOAT)
  vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const auto r = LINNET_ROOT_FLOAT(x);
    __builtin_memcpy(&y, &r, sizeof y);
  } else {
    const auto r = LINNET_ROOT_DOUBLE(x);
    __builtin_memcpy(&y, &r, sizeof y);
  }
  return y;
#else
  T values[lanes<T>];
  store(values, x);
  for (int l = 0; l < lanes<T>; ++l) values[l] = std::sqrt(values[l]);
  return load(values);
#endif
}

/// e^x. float: relative error below 2e-7 on [-87, 88], 0 below it; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> exp(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> zero = {};  // not x - x, which is NaN for an infinite x
    const vec<T> most = zero + T(88), least = zero + T(-87.3);
    vec<T> c = x > most ? most : x;
    c = c < least ? least : c;
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    vec<T> shifted = c * T(1.44269504088896341) + T(12582912);
    LINNET_KEEP(shifted);
    const vec<T> fn = shifted - T(12582912);
    vec<T> high = c - fn * T(0.693359375);
    LINNET_KEEP(high);  // or -ffast-math adds up the two parts of ln 2
    const vec<T> r = high + fn * T(2.12194440e-4);
    vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    vec_int<T> bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    vec<T> power;
    __builtin_memcpy(&power, &bits, sizeof power);
    p = p * power;
    return x < least ? zero : p;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::exp(values[l]);
    return load(values);
  }
}
/// tanh x. float: absolute error below 3e-7; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> tanh(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> e = exp<T>(T(-2) * a);
    const vec<T> t = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -t : t;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::tanh(values[l]);
    return load(values);
  }
}
/// erf x. float: absolute error below 4e-7 (Abramowitz and Stegun 7.1.26); double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> erf(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> t = T(1) / (T(1) + a * T(0.3275911));
    vec<T> p = t * T(1.061405429) - T(1.453152027);
    p = p * t + T(1.421413741);
    p = p * t - T(0.284496736);
    p = p * t + T(0.254829592);
    const vec<T> y = T(1) - p * t * exp<T>(-(a * a));
    return x < T(0) ? -y : y;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::erf(values[l]);
    return load(values);
  }
}

/// f(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> activate(const vec<T>& x) {
  // In this order a NaN stays, in one instruction; with -ffast-math the compiler chooses.
  if constexpr (A == activation_kind::relu) return vec<T>{} > x ? vec<T>{} : x;
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * x * (T(1) + erf<T>(x * T(0.70710678118654752)));
  if constexpr (A == activation_kind::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh<T>(T(0.79788456080286536) * (x + T(0.044715) * (x * x * x))));
  if constexpr (A == activation_kind::silu) return x / (T(1) + exp<T>(-x));
  if constexpr (A == activation_kind::tanh) return tanh<T>(x);
}
/// 1 - tanh^2 x without the difference, so that it vanishes exactly where x is large.
template <class T>
LINNET_TARGET static inline vec<T> tanh_derivative(const vec<T>& x) {
  const vec<T> e = exp<T>(T(-2) * (x < T(0) ? -x : x));
  return T(4) * e / ((T(1) + e) * (T(1) + e));
}
/// f'(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> derivative(const vec<T>& x) {
  if constexpr (A == activation_kind::relu)
    return x > T(0) ? vec<T>{} + T(1) : activate<activation_kind::relu, T>(x);
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * (T(1) + erf<T>(x * T(0.70710678118654752))) +
           x * T(0.39894228040143268) * exp<T>(T(-0.5) * (x * x));
  if constexpr (A == activation_kind::gelu_tanh) {
    const vec<T> u = T(0.79788456080286536) * (x + T(0.044715) * (x * x * x));
    return T(0.5) * (T(1) + tanh<T>(u)) +
           T(0.5) * x * tanh_derivative<T>(u) *
               (T(0.79788456080286536) * (T(1) + T(0.134145) * (x * x)));
  }
  if constexpr (A == activation_kind::silu) {
    const vec<T> s = T(1) / (T(1) + exp<T>(-x));
    return s * (T(1) + x * (T(1) - s));
  }
  if constexpr (A == activation_kind::tanh) return tanh_derivative<T>(x);
}

/// @file
/// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
/// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// Loads the values of an epilogue for the columns of one vector, and applies it to a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there. Rows of B up to `safe` may be read in full
/// vectors, the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[std::size_t{R}][std::size_t{W}] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  // A pointer for every three rows: their places are then parts of instructions, not additions.
  const typename Steps::left* rows[std::size_t{R + 2} / 3];
  LINNET_UNROLL
  for (int i = 0; i < R; i += 3) rows[i / 3] = left + i * a.row;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[std::size_t{W}];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = rows[i / 3][i % 3 * a.row] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
    LINNET_UNROLL
    for (int i = 0; i < R; i += 3) rows[i / 3] += a.column;
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read. Rows of packed panels are padded to 32 columns.
template <class Steps, class Finish, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

/// @file
/// Scores and weighted sums of attention over rows of tokens, at one instruction-set level:
/// included inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a
/// masked vector at the end.

/// Loads lanes of stored numbers as T: from T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// Loads the first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// Products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// Products of x with rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that the
/// result does not depend on blocks.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
/// @file
/// Activations and AdamW, value by value, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// y = f(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * derivative<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_TARGET static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_TARGET static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * derivative<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (Loshchilov and Hutter 2019). The moving averages are m and v. `rate` and `eps`
/// have the bias corrections folded in; `decay` is learning rate times weight decay.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (sqrt<T>(vi) + eps) + decay * wi), c);
  }
}
/// @file
/// Stored codes and low-precision activations of one instruction-set level: included inside a
/// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null. With `Minima`, `zeros` are added after scaling: out = scale_j code + zero_j.
template <code C, bool Minima = false>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr ((C == code::u8 || C == code::u4) && !Minima) x = x - origin;
        if (scales) x = x * scale;
        if constexpr (Minima) x = x + origin;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// Adds to sums[32] scale_j (sum of a_k (code_kj - zero_j)): one row of `k` inputs with one panel
/// whose scales they share. Decoded weights stay in registers. With `Minima` it adds scale_j (sum
/// of a_k code_kj) + zero_j (sum of a_k).
template <code C, bool Minima = false>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = (C == code::u8 || C == code::u4) && !Minima;
  float total = 0;
  if constexpr (Minima) {
    vec<float> parts = {};
    for (index i = 0; i < k; i += lanes<float>)
      parts += get(a + i, k - i < lanes<float> ? k - i : lanes<float>);
    total = sum<float>(parts);
  }
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[std::size_t{per_word}] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    if constexpr (Minima) x += origin * total;
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127.
/// Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes. A row
/// below 2^-119 becomes zeros with the scale 1. A row that is not finite has the scale NaN, so that
/// whatever is made of it is NaN.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec_int<float> most = {};  // magnitudes as bits: in their order NaN is the largest
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec_int<float> a = bits_as<vec_int<float>>(v) & 0x7fffffff;
    most = a > most ? a : most;
  }
  const std::int32_t top_bits = largest<std::int32_t>(most);
  if (top_bits >= 0x7f800000) {
    for (index i = 0; i < round_up(n, 4); ++i) y[i] = 0;
    codes_sum = 0;
    return bits_as<float>(std::int32_t{0x7fc00000});
  }
  const float top = bits_as<float>(top_bits);
  const bool tiny = top < 0x1p-119f;  // 127 / top might be infinite
  const float scale = tiny ? 1.0f : top / 127.0f, inverse = tiny ? 0.0f : 127.0f / top;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
/// @file
/// Sums, products and the largest of rows, at one instruction-set level: included inside a struct
/// by simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the
/// end.

/// y = a + b; y may be a or b
template <class T>
LINNET_TARGET static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_TARGET static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
/// sum of x_i y_i
template <class T>
LINNET_TARGET static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}

/// sum of x_i
template <class T>
LINNET_TARGET static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
/// largest x_i; n > 0
template <class T>
LINNET_TARGET static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// Whether all of x[rows, n] are finite, rows `stride` apart; looks at the bits, as is_finite().
template <class T>
LINNET_TARGET static bool all_finite(index rows, index n, const T* x, index stride) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr number exponent = sizeof(T) == 4 ? 0x7f800000 : number(0x7ff0000000000000);
  vec_int<T> found{};
  for (index row = 0; row < rows; ++row, x += stride) LINNET_FOR_VECTORS(T, i, c, n) {
      const vec<T> v = get(x + i, c);
      vec_int<T> bits;
      __builtin_memcpy(&bits, &v, sizeof bits);
      found |= (bits & exponent) == exponent;
    }
  number any = 0;
  for (int l = 0; l < lanes<T>; ++l) any |= found[l];
  return any == 0;
}
/// @file
/// Softplus and steps of selective scans, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3; s itself may be too small for a float
      const vec<T> twice = u / (T(1) + T(0.5) * u), q = T(0.25) * (twice * twice);
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + (twice + twice * (q * p)), c);
    } else {
      T values[lanes<T>];
      store<T>(values, u);
      for (int l = 0; l < lanes<T>; ++l) values[l] = std::log1p(values[l]);
      put<T>(x + i, positive + load<T>(values), c);
    }
  }
}
/// dx *= 1 / (1 + e^-x), the derivative of softplus.
template <class T>
LINNET_TARGET static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (Gu and Dao 2023). The equations
/// are decay = exp(delta_i a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij
/// c_j. next may be h.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
                                    const T* b, const T* c, const T* h, T* decay, T* next, T* y) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n) {
    const T input = delta[i] * x[i];
    vec<T> all = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> e = exp<T>(delta[i] * get(a + j, count));
      const vec<T> s = e * get(h + j, count) + input * get(b + j, count);
      put<T>(decay + j, e, count);
      put<T>(next + j, s, count);
      all += s * get(c + j, count);
    }
    y[i] = sum<T>(all);
  }
}
/// Derivative of one scan step: g_ij = carried_ij + dy_i c_j is that of next_ij. Then carried
/// becomes decay g; da, db and dc are added to. Overwritten are d_input = g . b (of delta_i x_i)
/// and d_decay (of delta_i through the decay).
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void scan_step_backward(index rows, index n, const T* delta, const T* x,
                                             const T* a, const T* b, const T* c, const T* h,
                                             const T* decay, const T* next, const T* dy, T* carried,
                                             T* da, T* db, T* dc, T* d_input, T* d_decay) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n, carried += n, da += n) {
    const T input = delta[i] * x[i];
    vec<T> inputs = {}, decays = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> g = get(carried + j, count) + dy[i] * get(c + j, count);
      const vec<T> past = get(decay + j, count) * g;
      const vec<T> u = past * get(h + j, count);
      put<T>(carried + j, past, count);
      put<T>(da + j, get(da + j, count) + delta[i] * u, count);
      put<T>(db + j, get(db + j, count) + input * g, count);
      put<T>(dc + j, get(dc + j, count) + dy[i] * get(next + j, count), count);
      inputs += g * get(b + j, count);
      decays += u * get(a + j, count);
    }
    d_input[i] = sum<T>(inputs);
    d_decay[i] = sum<T>(decays);
  }
}
/// @file
/// Softmax and the norms of rows, forward and backward, at one instruction-set level: included
/// inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a masked
/// vector at the end.

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    const vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    return sum<T>(some_lanes<T>(e, 0, n, all));
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  const vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  return sum<T>(total + some_lanes<T>(ending, i - last, lanes<T>, all));
}
/// Softmax in place (Vaswani et al. 2017, eq. 1); n > 0.
template <class T>
LINNET_TARGET static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - sum(p dp)), the derivative of softmax; dx may be dp.
template <class T>
LINNET_TARGET static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  const T s = dot(n, p, dp);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019); returns 1 / sqrt(...).
template <class T>
LINNET_TARGET static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_TARGET static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
                                            T* dx) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(dy + i, c) * get(gamma + i, c) * get(x + i, c);
  const T shared = r * r * r * sum<T>(all) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + (r * u - shared * get(x + i, c)), c);
  }
}
/// y = gamma * (x - mean) / sqrt(var + eps) + beta; statistics = {mean, 1 / sqrt(...)}.
template <class T>
LINNET_TARGET static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
                                     T* y, T* statistics) {
  const T mean = total(n, x) / static_cast<T>(n);
  vec<T> all = {};
  const index whole = n - n % lanes<T>;
  for (index i = 0; i < whole; i += lanes<T>) {
    const vec<T> d = load(x + i) - mean;
    all += d * d;
  }
  T spread = sum<T>(all);
  for (index i = whole; i < n; ++i) spread += (x[i] - mean) * (x[i] - mean);
  const T r = T(1) / std::sqrt(spread / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, j, c, n)
  put<T>(y + j, get(gamma + j, c) * ((get(x + j, c) - mean) * r) + get(beta + j, c), c);
  statistics[0] = mean;
  statistics[1] = r;
}
/// dx += r (u - mean(u) - xhat mean(u xhat)), u = dy gamma, xhat = (x - mean) r.
template <class T>
LINNET_TARGET static void layer_norm_backward(index n, const T* statistics, const T* x,
                                              const T* gamma, const T* dy, T* dx) {
  const T mean = statistics[0], r = statistics[1];
  vec<T> us = {}, uxs = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    us += u;
    uxs += u * ((get(x + i, c) - mean) * r);
  }
  const T u_mean = sum<T>(us) / static_cast<T>(n), ux_mean = sum<T>(uxs) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + r * (u - u_mean - (get(x + i, c) - mean) * r * ux_mean), c);
  }
}

/// @file
/// Dropout masks of one instruction-set level: included inside a struct by simd/levels.hpp.

/// Products of the lower halves of 64-bit lanes.
LINNET_TARGET static inline vec<std::uint64_t> low_products(const vec<std::uint64_t>& a,
                                                            const vec<std::uint64_t>& b) {
#if defined(LINNET_LOW_PRODUCTS)
  return reinterpret_cast<vec<std::uint64_t>>(LINNET_LOW_PRODUCTS(a, b));
#else
  return (a & 0xFFFFFFFFu) * b;
#endif
}
/// The lanes of a and b by turns: of their lower halves (High = 0) or upper ones.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline Vector by_turns(const Vector& a, const Vector& b,
                                            std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b, ((all * High + Lane) / 2 + Lane % 2 * all)...);
}
/// Counters of Philox that fill a register.
static constexpr index philox_lanes = lanes<std::uint64_t>;
/// The words philox(key, high, counter), of that many counters from the first on: [counters, 4].
/// What the upper halves of lanes hold on the way means nothing.
LINNET_TARGET static inline void philox_words(std::uint64_t key, std::uint64_t high,
                                              std::uint64_t first, word* words) {
  using wide = vec<std::uint64_t>;
  wide x0 = wide{} + first, x2 = wide{} + high;
  for (index i = 0; i < philox_lanes; ++i) x0[i] += static_cast<std::uint64_t>(i);
  wide x1 = x0 >> 32, x3 = x2 >> 32;
  auto k0 = static_cast<word>(key), k1 = static_cast<word>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const wide a = low_products(x0, wide{} + 0xD2511F53u),
               b = low_products(x2, wide{} + 0xCD9E8D57u);
    x0 = (b >> 32) ^ x1 ^ (wide{} + k0);
    x1 = b;
    x2 = (a >> 32) ^ x3 ^ (wide{} + k1);
    x3 = a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  x0 = (x0 & 0xFFFFFFFFu) | x1 << 32;
  x2 = (x2 & 0xFFFFFFFFu) | x3 << 32;
  constexpr std::make_integer_sequence<int, lanes<std::uint64_t>> all{};
  const wide low = by_turns<0>(x0, x2, all), upper = by_turns<1>(x0, x2, all);
  __builtin_memcpy(words, &low, sizeof low);
  __builtin_memcpy(words + 2 * philox_lanes, &upper, sizeof upper);
}
/// Dropout in place: x *= 0 or keep, and y too unless it is null; 0 where the value's Philox word
/// is below `limit`. Value i has word (first + i) % 4 of counter (first + i) / 4.
template <class T>
LINNET_TARGET static void drop(std::uint64_t key, std::uint64_t high, word limit, T keep,
                               index first, index n, T* x, T* y) {
  using some_words = typename vector_of<word, lanes<T>>::type;
  word words[4 * philox_lanes + lanes<T>] = {};  // the last ones are read, not used
  for (index done = 0; done < n;) {
    const index skip = (first + done) % 4, left = 4 * philox_lanes - skip,
                here = n - done < left ? n - done : left;
    philox_words(key, high, static_cast<std::uint64_t>((first + done) / 4), words);
    for (index i = 0; i < here; i += lanes<T>) {
      const index count = here - i < lanes<T> ? here - i : lanes<T>;
      some_words w;
      __builtin_memcpy(&w, words + skip + i, sizeof w);
      const auto dropped = __builtin_convertvector(w < limit, vec_int<T>);
      const auto multiplier =
          reinterpret_cast<vec<T>>(reinterpret_cast<vec_int<T>>(vec<T>{} + keep) & ~dropped);
      put<T>(x + done + i, get(x + done + i, count) * multiplier, count);
      if (y != nullptr) put<T>(y + done + i, get(y + done + i, count) * multiplier, count);
    }
    done += here;
  }
}
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_FIRST
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_ROOT_FLOAT
#undef LINNET_ROOT_DOUBLE
#undef LINNET_LOOK_UP
#undef LINNET_DOT_PAIRS
#undef LINNET_BYTES
#undef LINNET_LOW_PRODUCTS

#define LINNET_FIRST(n) static_cast<__mmask16>((1u << (n)) - 1u)
#define LINNET_LOAD_FIRST(p, n) reinterpret_cast<vec<T>>(_mm512_maskz_loadu_ps(LINNET_FIRST(n), p))
#define LINNET_STORE_FIRST(p, v, n) \
  _mm512_mask_storeu_ps(p, LINNET_FIRST(n), reinterpret_cast<__m512>(v))
#define LINNET_ROOT_FLOAT(x) \
  _mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), reinterpret_cast<__m512>(x))
#define LINNET_ROOT_DOUBLE(x) \
  _mm512_maskz_sqrt_pd(static_cast<__mmask8>(-1), reinterpret_cast<__m512d>(x))
#define LINNET_LOOK_UP(table, i)                            \
  reinterpret_cast<vec<float>>(_mm512_maskz_permutexvar_ps( \
      static_cast<__mmask16>(-1), reinterpret_cast<__m512i>(i), _mm512_loadu_ps(table)))
#define LINNET_DOT_PAIRS(a, b)      \
  reinterpret_cast<vec_int<float>>( \
      _mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)))
#define LINNET_BYTES(p)                                        \
  reinterpret_cast<vec_int<float>>(_mm512_maskz_cvtepi8_epi32( \
      static_cast<__mmask16>(-1), _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))
#define LINNET_LOW_PRODUCTS(a, b)                                                 \
  _mm512_maskz_mul_epu32(static_cast<__mmask8>(-1), reinterpret_cast<__m512i>(a), \
                         reinterpret_cast<__m512i>(b))
#define LINNET_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define LINNET_WIDTH 64
#define LINNET_ROWS 12
/// Kernels for AVX-512.
struct avx512 {
/// @file
/// Vectors of one instruction-set level: included inside a struct by simd/levels.hpp, once per
/// level, with LINNET_TARGET and LINNET_WIDTH (bytes) set.

template <class T, int Lanes>
struct vector_of {
  // NOLINTNEXTLINE(modernize-use-using): of a dependent type, g++ forgets it with using
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes)));
};
/// Values of type T in one register.
template <class T>
static constexpr int lanes = LINNET_WIDTH / static_cast<int>(sizeof(T));
/// One register of T.
template <class T>
using vec = typename vector_of<T, lanes<T>>::type;
/// As many integers as a register holds T.
template <class T>
using vec_int = typename vector_of<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>,
                                   lanes<T>>::type;

template <class T>
LINNET_TARGET static inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LINNET_TARGET static inline void store(T* p, const vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
/// The first `n` values, zeros behind them.
template <class T>
LINNET_TARGET static inline vec<T> load_first(const T* p, index n) {
#if defined(LINNET_LOAD_FIRST)
  if constexpr (sizeof(T) == 4) return LINNET_LOAD_FIRST(p, n);
#endif
  T values[lanes<T>] = {};
  for (index l = 0; l < n; ++l) values[l] = p[l];
  return load(values);
}
template <class T>
LINNET_TARGET static inline void store_first(T* p, const vec<T>& v, index n) {
#if defined(LINNET_STORE_FIRST)
  if constexpr (sizeof(T) == 4) {
    LINNET_STORE_FIRST(p, v, n);
    return;
  }
#endif
  T values[lanes<T>];
  store(values, v);
  for (index l = 0; l < n; ++l) p[l] = values[l];
}
/// All lanes or the first `count`.
template <class T>
LINNET_TARGET static inline vec<T> get(const T* p, index count) {
  return count == lanes<T> ? load(p) : load_first<T>(p, count);
}
template <class T>
LINNET_TARGET static inline void put(T* p, const vec<T>& v, index count) {
  if (count == lanes<T>)
    store(p, v);
  else
    store_first(p, v, count);
}
/// Lanes First, First + 1, ... of a vector, as many as there are `Lane`.
template <int First, class Vector, int... Lane>
LINNET_TARGET static inline auto part(const Vector& v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (First + Lane)...);
}
/// Sum of the lanes, halves first, in a fixed order.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T sum(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] + v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    return sum<T, half>(part<0>(v, lanes_of_half) + part<half>(v, lanes_of_half));
  }
}
/// Blocks of four lanes of a and b: in each, a's lower (High = 0) or upper two and b's in turns.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_lanes(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 4 / 2 + Lane % 2 * all)...);
}
/// Interleaves blocks of four lanes of a and b, with a's two lanes before b's.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline auto mixed_pairs(const Vector& a, const Vector& b,
                                             std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b,
                                 (Lane / 4 * 4 + 2 * High + Lane % 2 + Lane % 4 / 2 * all)...);
}
/// The even (Odd = 0) or odd blocks of four lanes of a, then of b.
template <int Odd, class Vector, int... Lane>
LINNET_TARGET static inline auto every_other_block(const Vector& a, const Vector& b,
                                                   std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane / 4 * 2 + Odd) * 4 + Lane % 4)...);
}
/// Sums of the lanes of many vectors at once. Of as many as a vector has lanes: y_r is the sum of
/// v[r]. Of half as many: the sums of their lower and upper halves. The halves of v[r] hold what
/// becomes y_j and y_(j+4), j = r / 4 * 8 + r % 4.
template <class T, std::size_t Count>
LINNET_TARGET static inline void sums(const vec<T> (&v)[Count], vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  vec<T> s[Count / 4];
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 4; ++i) {
    const vec<T>* const p = v + 4 * i;
    const vec<T> ab = mixed_lanes<0>(p[0], p[1], all) + mixed_lanes<1>(p[0], p[1], all);
    const vec<T> cd = mixed_lanes<0>(p[2], p[3], all) + mixed_lanes<1>(p[2], p[3], all);
    s[i] = mixed_pairs<0>(ab, cd, all) + mixed_pairs<1>(ab, cd, all);
  }
  LINNET_UNROLL
  for (std::size_t i = 0; i < Count / 8; ++i)
    s[i] = every_other_block<0>(s[2 * i], s[2 * i + 1], all) +
           every_other_block<1>(s[2 * i], s[2 * i + 1], all);
  if constexpr (Count == 16)
    s[0] = every_other_block<0>(s[0], s[1], all) + every_other_block<1>(s[0], s[1], all);
  y = s[0];
}
/// Lanes [first, last) of v, zeros around them.
template <class T, int... Lane>
LINNET_TARGET static inline vec<T> some_lanes(const vec<T>& v, index first, index last,
                                              std::integer_sequence<int, Lane...>) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const vec_int<T> lane = {Lane...};
  const auto from = static_cast<number>(first), to = static_cast<number>(last);
  return ((lane >= from) & (lane < to)) ? v : vec<T>{};
}
/// Half a vector from each of two places.
template <class T, int... Lane>
LINNET_TARGET static inline auto load_halves(const T* a, const T* b,
                                             std::integer_sequence<int, Lane...>) {
  typename vector_of<T, sizeof...(Lane) / 2>::type low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
  return __builtin_shufflevector(low, high, Lane...);
}
/// Largest lane.
template <class T, int Lanes = lanes<T>>
LINNET_TARGET static inline T largest(const typename vector_of<T, Lanes>::type& v) {
  constexpr int half = Lanes / 2;
  if constexpr (Lanes == 2) {
    return v[0] > v[1] ? v[0] : v[1];
  } else {
    constexpr std::make_integer_sequence<int, half> lanes_of_half{};
    const auto low = part<0>(v, lanes_of_half), high = part<half>(v, lanes_of_half);
    return largest<T, half>(low > high ? low : high);
  }
}

/// Square root of each lane.
template <class T>
LINNET_TARGET static inline vec<T> sqrt(const vec<T>& x) {
#if defined(LINNET_ROOT_FLOAT)
  vec<T> y;
  if constexpr (sizeof(T) == 4) {
    const auto r = LINNET_ROOT_FLOAT(x);
    __builtin_memcpy(&y, &r, sizeof y);
  } else {
    const auto r = LINNET_ROOT_DOUBLE(x);
    __builtin_memcpy(&y, &r, sizeof y);
  }
  return y;
#else
  T values[lanes<T>];
  store(values, x);
  for (int l = 0; l < lanes<T>; ++l) values[l] = std::sqrt(values[l]);
  return load(values);
#endif
}

/// e^x. float: relative error below 2e-7 on [-87, 88], 0 below it; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> exp(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> zero = {};  // not x - x, which is NaN for an infinite x
    const vec<T> most = zero + T(88), least = zero + T(-87.3);
    vec<T> c = x > most ? most : x;
    c = c < least ? least : c;
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    vec<T> shifted = c * T(1.44269504088896341) + T(12582912);
    LINNET_KEEP(shifted);
    const vec<T> fn = shifted - T(12582912);
    vec<T> high = c - fn * T(0.693359375);
    LINNET_KEEP(high);  // or -ffast-math adds up the two parts of ln 2
    const vec<T> r = high + fn * T(2.12194440e-4);
    vec<T> p = r * T(1.9875691500e-4) + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    vec_int<T> bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    vec<T> power;
    __builtin_memcpy(&power, &bits, sizeof power);
    p = p * power;
    return x < least ? zero : p;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::exp(values[l]);
    return load(values);
  }
}
/// tanh x. float: absolute error below 3e-7; double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> tanh(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> e = exp<T>(T(-2) * a);
    const vec<T> t = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -t : t;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::tanh(values[l]);
    return load(values);
  }
}
/// erf x. float: absolute error below 4e-7 (Abramowitz and Stegun 7.1.26); double: the C library's.
template <class T>
LINNET_TARGET static inline vec<T> erf(const vec<T>& x) {
  if constexpr (sizeof(T) == 4) {
    const vec<T> a = x < T(0) ? -x : x;
    const vec<T> t = T(1) / (T(1) + a * T(0.3275911));
    vec<T> p = t * T(1.061405429) - T(1.453152027);
    p = p * t + T(1.421413741);
    p = p * t - T(0.284496736);
    p = p * t + T(0.254829592);
    const vec<T> y = T(1) - p * t * exp<T>(-(a * a));
    return x < T(0) ? -y : y;
  } else {
    T values[lanes<T>];
    store(values, x);
    for (int l = 0; l < lanes<T>; ++l) values[l] = std::erf(values[l]);
    return load(values);
  }
}

/// f(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> activate(const vec<T>& x) {
  // In this order a NaN stays, in one instruction; with -ffast-math the compiler chooses.
  if constexpr (A == activation_kind::relu) return vec<T>{} > x ? vec<T>{} : x;
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * x * (T(1) + erf<T>(x * T(0.70710678118654752)));
  if constexpr (A == activation_kind::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh<T>(T(0.79788456080286536) * (x + T(0.044715) * (x * x * x))));
  if constexpr (A == activation_kind::silu) return x / (T(1) + exp<T>(-x));
  if constexpr (A == activation_kind::tanh) return tanh<T>(x);
}
/// 1 - tanh^2 x without the difference, so that it vanishes exactly where x is large.
template <class T>
LINNET_TARGET static inline vec<T> tanh_derivative(const vec<T>& x) {
  const vec<T> e = exp<T>(T(-2) * (x < T(0) ? -x : x));
  return T(4) * e / ((T(1) + e) * (T(1) + e));
}
/// f'(x) of an activation.
template <activation_kind A, class T>
LINNET_TARGET static inline vec<T> derivative(const vec<T>& x) {
  if constexpr (A == activation_kind::relu)
    return x > T(0) ? vec<T>{} + T(1) : activate<activation_kind::relu, T>(x);
  if constexpr (A == activation_kind::gelu)
    return T(0.5) * (T(1) + erf<T>(x * T(0.70710678118654752))) +
           x * T(0.39894228040143268) * exp<T>(T(-0.5) * (x * x));
  if constexpr (A == activation_kind::gelu_tanh) {
    const vec<T> u = T(0.79788456080286536) * (x + T(0.044715) * (x * x * x));
    return T(0.5) * (T(1) + tanh<T>(u)) +
           T(0.5) * x * tanh_derivative<T>(u) *
               (T(0.79788456080286536) * (T(1) + T(0.134145) * (x * x)));
  }
  if constexpr (A == activation_kind::silu) {
    const vec<T> s = T(1) / (T(1) + exp<T>(-x));
    return s * (T(1) + x * (T(1) - s));
  }
  if constexpr (A == activation_kind::tanh) return tanh_derivative<T>(x);
}

/// @file
/// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
/// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// Loads the values of an epilogue for the columns of one vector, and applies it to a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there. Rows of B up to `safe` may be read in full
/// vectors, the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[std::size_t{R}][std::size_t{W}] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  // A pointer for every three rows: their places are then parts of instructions, not additions.
  const typename Steps::left* rows[std::size_t{R + 2} / 3];
  LINNET_UNROLL
  for (int i = 0; i < R; i += 3) rows[i / 3] = left + i * a.row;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[std::size_t{W}];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = rows[i / 3][i % 3 * a.row] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
    LINNET_UNROLL
    for (int i = 0; i < R; i += 3) rows[i / 3] += a.column;
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read. Rows of packed panels are padded to 32 columns.
template <class Steps, class Finish, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

/// @file
/// Scores and weighted sums of attention over rows of tokens, at one instruction-set level:
/// included inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a
/// masked vector at the end.

/// Loads lanes of stored numbers as T: from T itself, bf16 or int8 without its scale.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void widen_lanes(const Code* p, typename vector_of<T, Lanes>::type& x) {
  if constexpr (std::is_same_v<T, Code>) {
    __builtin_memcpy(&x, p, sizeof x);
  } else {
    using raw = std::conditional_t<std::is_same_v<Code, bf16_code>, std::uint16_t, std::int8_t>;
    using word_part = typename vector_of<word, Lanes>::type;
    using int_part = typename vector_of<std::int32_t, Lanes>::type;
    typename vector_of<raw, Lanes>::type u;
    __builtin_memcpy(&u, p, sizeof u);
#if defined(LINNET_BYTES)
    if constexpr (sizeof(raw) == 1 && Lanes == lanes<T>) {
      x = __builtin_convertvector(LINNET_BYTES(p), vec<T>);
      return;
    }
#endif
    if constexpr (sizeof(raw) == 2)
      x = bits_as<typename vector_of<T, Lanes>::type>(__builtin_convertvector(u, word_part) << 16);
    else
      x = __builtin_convertvector(__builtin_convertvector(u, int_part),
                                  typename vector_of<T, Lanes>::type);
  }
}
/// Loads the first `count` of them, zeros behind.
template <class T, class Code>
LINNET_TARGET static inline vec<T> widen(const Code* p, index count) {
  if constexpr (std::is_same_v<T, Code>) {
    return get(p, count);
  } else {
    Code some[lanes<T>] = {};
    if (count == lanes<T> / 2)
      __builtin_memcpy(some, p, sizeof some / 2);
    else if (count < lanes<T>)
      __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(Code));
    vec<T> x;
    widen_lanes<lanes<T>, T>(count < lanes<T> ? some : p, x);
    return x;
  }
}
/// Sum of x_i k_i.
template <class T, class Code>
LINNET_TARGET static inline T dot_code(index n, const T* x, const Code* k) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * widen<T>(k + i, c);
  return sum<T>(total);
}
/// Products of x with as many rows as a vector has lanes, four at a time.
template <class T, class Code>
__attribute__((__always_inline__)) LINNET_TARGET static inline void dots_of_rows(
    index n, const T* x, const Code* const* k, vec<T>& y) {
  vec<T> total[lanes<T>] = {};
  LINNET_UNROLL
  for (int four = 0; four < lanes<T>; four += 4) {
    const Code* const* const row = k + four;
    index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
      const vec<T> xi = load(x + i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, lanes<T>);
    }
    if (i < n) {
      const vec<T> xi = load_first<T>(x + i, n - i);
      LINNET_UNROLL
      for (int r = 0; r < 4; ++r) total[four + r] += xi * widen<T>(row[r] + i, n - i);
    }
  }
  sums<T>(total, y);
}
/// Products of x with rows of half a vector, two at a time.
template <class T>
LINNET_TARGET static inline void dots_of_halves(const T* x, const T* const* k, vec<T>& y) {
  constexpr std::make_integer_sequence<int, lanes<T>> both{};
  const vec<T> twice = load_halves(x, x, both);
  vec<T> products[lanes<T> / 2];
  LINNET_UNROLL
  for (int i = 0; i < lanes<T> / 2; ++i) {
    const int r = i / 4 * 8 + i % 4;
    products[i] = twice * load_halves(k[r], k[r + 4], both);
  }
  sums<T>(products, y);
}
/// y_(j-first) = scale * sum of x_i k_ji for tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void dots(index first, index last, index n, T scale, const T* x,
                               const token_rows<Code>& k, T* y) {
  if (lanes<T> < 4 || last - first < lanes<T>) {
    for (index j = first; j < last; ++j) y[j - first] = scale * dot_code(n, x, k.row(j));
    return;
  }
  // As many tokens at a time as a vector has lanes; the last ones may be computed twice.
  for (index next = first; next < last; next += lanes<T>) {
    const index j = next < last - lanes<T> ? next : last - lanes<T>;
    const Code* rows[lanes<T>];
    const bool together = k.run(j, j + lanes<T>) == j + lanes<T>;
    const Code* const begin = k.row(j);
    LINNET_UNROLL
    for (int r = 0; r < lanes<T>; ++r) rows[r] = together ? begin + r * k.stride : k.row(j + r);
    vec<T> some = {};
    if constexpr (lanes<T> >= 8 && std::is_same_v<T, Code>) {
      if (n == lanes<T> / 2)
        dots_of_halves(x, rows, some);
      else
        dots_of_rows(n, x, rows, some);
    } else if constexpr (lanes<T> >= 4) {
      dots_of_rows(n, x, rows, some);
    }
    store<T>(y + (j - first), scale * some);
  }
}
/// y_j = scale * sum of x_i k_ji for `rows` rows of k, `stride` apart
template <class T>
LINNET_TARGET static void dots(index rows, index n, T scale, const T* x, const T* k, index stride,
                               T* y) {
  dots<T, T>(0, rows, n, scale, x, {k, stride}, y);
}
/// Columns [column, column + Lanes) of mix(), in four sums of every fourth token, so that the
/// result does not depend on blocks.
template <int Lanes, class T, class Code>
LINNET_TARGET static inline void mix_lanes(index first, index last, index column, const T* p,
                                           const token_rows<Code>& v, T* y, bool accumulate) {
  using part = typename vector_of<T, Lanes>::type;
  part total[4] = {}, x;
  if (accumulate) __builtin_memcpy(&total[0], y + column, sizeof x);
  for (index j = first; j < last;) {
    const Code* row = v.row(j) + column;
    const index end = v.run(j, last);
    while (j < end) {
      const int count = j % 4 == 0 && j + 4 <= end ? 4 : 1;
      if (count == 4) {
        LINNET_UNROLL
        for (int r = 0; r < 4; ++r) {
          widen_lanes<Lanes, T>(row + r * v.stride, x);
          total[r] += p[j - first + r] * x;
        }
      } else {
        widen_lanes<Lanes, T>(row, x);
        total[0] += p[j - first] * x;
      }
      j += count;
      row += count * v.stride;
    }
  }
  x = (total[0] + total[1]) + (total[2] + total[3]);
  __builtin_memcpy(y + column, &x, sizeof x);
}
/// y_i = [y_i +] sum of p_(j-first) v_ji over tokens j of [first, last)
template <class T, class Code>
LINNET_TARGET static void mix(index first, index last, index n, const T* p,
                              const token_rows<Code>& v, T* y, bool accumulate = false) {
  index i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) mix_lanes<lanes<T>>(first, last, i, p, v, y, accumulate);
  if constexpr (lanes<T> >= 8)
    if (i + lanes<T> / 2 <= n) {
      mix_lanes<lanes<T> / 2>(first, last, i, p, v, y, accumulate);
      i += lanes<T> / 2;
    }
  if (i == n) return;
  vec<T> total = {};
  if (accumulate) total = load_first<T>(y + i, n - i);
  for (index j = first; j < last; ++j) total += p[j - first] * widen<T>(v.row(j) + i, n - i);
  store_first(y + i, total, n - i);
}
/// y_i = sum of p_j v_ji over `rows` rows of v, `stride` apart
template <class T>
LINNET_TARGET static void mix(index rows, index n, const T* p, const T* v, index stride, T* y) {
  mix<T, T>(0, rows, n, p, {v, stride}, y);
}
/// @file
/// Activations and AdamW, value by value, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// y = f(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation(index n, const T* x, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, activate<A, T>(get(x + i, c)), c);
}
/// dx += dy f'(x)
template <activation_kind A, class T>
LINNET_TARGET static void activation_backward(index n, const T* x, const T* dy, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) + get(dy + i, c) * derivative<A, T>(get(x + i, c)), c);
}
/// y = f(gate) * up
template <activation_kind A, class T>
LINNET_TARGET static void gated(index n, const T* gate, const T* up, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(y + i, activate<A, T>(get(gate + i, c)) * get(up + i, c), c);
}
/// dgate = dy up f'(gate); dup = dy f(gate)
template <activation_kind A, class T>
LINNET_TARGET static void gated_backward(index n, const T* gate, const T* up, const T* dy, T* dgate,
                                         T* dup) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> g = get(gate + i, c), d = get(dy + i, c);
    put<T>(dgate + i, d * get(up + i, c) * derivative<A, T>(g), c);
    put<T>(dup + i, d * activate<A, T>(g), c);
  }
}

/// One AdamW step (Loshchilov and Hutter 2019). The moving averages are m and v. `rate` and `eps`
/// have the bias corrections folded in; `decay` is learning rate times weight decay.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void adamw(index n, T gradient_scale, T beta1, T beta2, T rate, T eps, T decay,
                                const T* g, T* m, T* v, T* w) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> gi = get(g + i, c) * gradient_scale;
    const vec<T> mi = beta1 * get(m + i, c) + (T(1) - beta1) * gi;
    const vec<T> vi = beta2 * get(v + i, c) + (T(1) - beta2) * (gi * gi);
    const vec<T> wi = get(w + i, c);
    put<T>(m + i, mi, c);
    put<T>(v + i, vi, c);
    put<T>(w + i, wi - (rate * mi / (sqrt<T>(vi) + eps) + decay * wi), c);
  }
}
/// @file
/// Stored codes and low-precision activations of one instruction-set level: included inside a
/// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null. With `Minima`, `zeros` are added after scaling: out = scale_j code + zero_j.
template <code C, bool Minima = false>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr ((C == code::u8 || C == code::u4) && !Minima) x = x - origin;
        if (scales) x = x * scale;
        if constexpr (Minima) x = x + origin;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// Adds to sums[32] scale_j (sum of a_k (code_kj - zero_j)): one row of `k` inputs with one panel
/// whose scales they share. Decoded weights stay in registers. With `Minima` it adds scale_j (sum
/// of a_k code_kj) + zero_j (sum of a_k).
template <code C, bool Minima = false>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = (C == code::u8 || C == code::u4) && !Minima;
  float total = 0;
  if constexpr (Minima) {
    vec<float> parts = {};
    for (index i = 0; i < k; i += lanes<float>)
      parts += get(a + i, k - i < lanes<float> ? k - i : lanes<float>);
    total = sum<float>(parts);
  }
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[std::size_t{per_word}] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    if constexpr (Minima) x += origin * total;
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127.
/// Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes. A row
/// below 2^-119 becomes zeros with the scale 1. A row that is not finite has the scale NaN, so that
/// whatever is made of it is NaN.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec_int<float> most = {};  // magnitudes as bits: in their order NaN is the largest
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec_int<float> a = bits_as<vec_int<float>>(v) & 0x7fffffff;
    most = a > most ? a : most;
  }
  const std::int32_t top_bits = largest<std::int32_t>(most);
  if (top_bits >= 0x7f800000) {
    for (index i = 0; i < round_up(n, 4); ++i) y[i] = 0;
    codes_sum = 0;
    return bits_as<float>(std::int32_t{0x7fc00000});
  }
  const float top = bits_as<float>(top_bits);
  const bool tiny = top < 0x1p-119f;  // 127 / top might be infinite
  const float scale = tiny ? 1.0f : top / 127.0f, inverse = tiny ? 0.0f : 127.0f / top;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
/// @file
/// Sums, products and the largest of rows, at one instruction-set level: included inside a struct
/// by simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the
/// end.

/// y = a + b; y may be a or b
template <class T>
LINNET_TARGET static void add(index n, const T* a, const T* b, T* y) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(a + i, c) + get(b + i, c), c);
}
/// x *= a
template <class T>
LINNET_TARGET static void scale(index n, T a, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(x + i, a * get(x + i, c), c);
}
/// sum of x_i y_i
template <class T>
LINNET_TARGET static T dot(index n, const T* x, const T* y) {
  vec<T> total = {};
  LINNET_FOR_VECTORS(T, i, c, n) total += get(x + i, c) * get(y + i, c);
  return sum<T>(total);
}

/// sum of x_i
template <class T>
LINNET_TARGET static T total(index n, const T* x) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(x + i, c);
  return sum<T>(all);
}
/// largest x_i; n > 0
template <class T>
LINNET_TARGET static T maximum(index n, const T* x) {
  if (n < lanes<T>) {
    T m = x[0];
    for (index i = 1; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
  }
  vec<T> best = load(x);
  for (index i = lanes<T>; i < n; i += lanes<T>) {
    const vec<T> v = load(x + (i < n - lanes<T> ? i : n - lanes<T>));  // some twice at the end
    best = v > best ? v : best;
  }
  return largest<T>(best);
}

/// Whether all of x[rows, n] are finite, rows `stride` apart; looks at the bits, as is_finite().
template <class T>
LINNET_TARGET static bool all_finite(index rows, index n, const T* x, index stride) {
  using number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr number exponent = sizeof(T) == 4 ? 0x7f800000 : number(0x7ff0000000000000);
  vec_int<T> found{};
  for (index row = 0; row < rows; ++row, x += stride) LINNET_FOR_VECTORS(T, i, c, n) {
      const vec<T> v = get(x + i, c);
      vec_int<T> bits;
      __builtin_memcpy(&bits, &v, sizeof bits);
      found |= (bits & exponent) == exponent;
    }
  number any = 0;
  for (int l = 0; l < lanes<T>; ++l) any |= found[l];
  return any == 0;
}
/// @file
/// Softplus and steps of selective scans, at one instruction-set level: included inside a struct by
/// simd/levels.hpp. Every function handles any n; full vectors first, a masked vector at the end.

/// x = log(1 + e^x). float: relative error below 1e-6; double: the C library's.
template <class T>
LINNET_TARGET static void softplus(index n, T* x) {
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> v = get(x + i, c), zero = {};
    const vec<T> u = exp<T>(v < T(0) ? v : -v), positive = v > T(0) ? v : zero;
    if constexpr (sizeof(T) == 4) {
      // log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3; s itself may be too small for a float
      const vec<T> twice = u / (T(1) + T(0.5) * u), q = T(0.25) * (twice * twice);
      vec<T> p = q * T(1.0 / 13) + T(1.0 / 11);
      p = p * q + T(1.0 / 9);
      p = p * q + T(1.0 / 7);
      p = p * q + T(1.0 / 5);
      p = p * q + T(1.0 / 3);
      put<T>(x + i, positive + (twice + twice * (q * p)), c);
    } else {
      T values[lanes<T>];
      store<T>(values, u);
      for (int l = 0; l < lanes<T>; ++l) values[l] = std::log1p(values[l]);
      put<T>(x + i, positive + load<T>(values), c);
    }
  }
}
/// dx *= 1 / (1 + e^-x), the derivative of softplus.
template <class T>
LINNET_TARGET static void softplus_backward(index n, const T* x, T* dx) {
  LINNET_FOR_VECTORS(T, i, c, n)
  put<T>(dx + i, get(dx + i, c) / (T(1) + exp<T>(-get(x + i, c))), c);
}

/// One token of the scans of `rows` channels with n states each (Gu and Dao 2023). The equations
/// are decay = exp(delta_i a_ij), next_ij = decay_ij h_ij + delta_i x_i b_j, y_i = sum_j next_ij
/// c_j. next may be h.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void scan_step(index rows, index n, const T* delta, const T* x, const T* a,
                                    const T* b, const T* c, const T* h, T* decay, T* next, T* y) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n) {
    const T input = delta[i] * x[i];
    vec<T> all = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> e = exp<T>(delta[i] * get(a + j, count));
      const vec<T> s = e * get(h + j, count) + input * get(b + j, count);
      put<T>(decay + j, e, count);
      put<T>(next + j, s, count);
      all += s * get(c + j, count);
    }
    y[i] = sum<T>(all);
  }
}
/// Derivative of one scan step: g_ij = carried_ij + dy_i c_j is that of next_ij. Then carried
/// becomes decay g; da, db and dc are added to. Overwritten are d_input = g . b (of delta_i x_i)
/// and d_decay (of delta_i through the decay).
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void scan_step_backward(index rows, index n, const T* delta, const T* x,
                                             const T* a, const T* b, const T* c, const T* h,
                                             const T* decay, const T* next, const T* dy, T* carried,
                                             T* da, T* db, T* dc, T* d_input, T* d_decay) {
  for (index i = 0; i < rows; ++i, a += n, h += n, decay += n, next += n, carried += n, da += n) {
    const T input = delta[i] * x[i];
    vec<T> inputs = {}, decays = {};
    LINNET_FOR_VECTORS(T, j, count, n) {
      const vec<T> g = get(carried + j, count) + dy[i] * get(c + j, count);
      const vec<T> past = get(decay + j, count) * g;
      const vec<T> u = past * get(h + j, count);
      put<T>(carried + j, past, count);
      put<T>(da + j, get(da + j, count) + delta[i] * u, count);
      put<T>(db + j, get(db + j, count) + input * g, count);
      put<T>(dc + j, get(dc + j, count) + dy[i] * get(next + j, count), count);
      inputs += g * get(b + j, count);
      decays += u * get(a + j, count);
    }
    d_input[i] = sum<T>(inputs);
    d_decay[i] = sum<T>(decays);
  }
}
/// @file
/// Softmax and the norms of rows, forward and backward, at one instruction-set level: included
/// inside a struct by simd/levels.hpp. Every function handles any n; full vectors first, a masked
/// vector at the end.

/// x = exp(x - shift); returns the sum.
template <class T>
LINNET_TARGET static T exp_sum(index n, T shift, T* x) {
  constexpr std::make_integer_sequence<int, lanes<T>> all{};
  if (n < lanes<T>) {
    const vec<T> e = exp<T>(load_first<T>(x, n) - shift);
    store_first(x, e, n);
    return sum<T>(some_lanes<T>(e, 0, n, all));
  }
  // The last values in a full vector, some of them twice.
  const index last = n - lanes<T>;
  const vec<T> ending = exp<T>(load(x + last) - shift);
  vec<T> total = {};
  index i = 0;
  for (; i < last; i += lanes<T>) {
    const vec<T> e = exp<T>(load(x + i) - shift);
    store(x + i, e);
    total += e;
  }
  store(x + last, ending);
  return sum<T>(total + some_lanes<T>(ending, i - last, lanes<T>, all));
}
/// Softmax in place (Vaswani et al. 2017, eq. 1); n > 0.
template <class T>
LINNET_TARGET static void softmax(index n, T* x) {
  const T m = maximum(n, x);
  const T s = exp_sum(n, m, x);
  scale(n, T(1) / s, x);
}
/// dx = p * (dp - sum(p dp)), the derivative of softmax; dx may be dp.
template <class T>
LINNET_TARGET static void softmax_backward(index n, const T* p, const T* dp, T* dx) {
  const T s = dot(n, p, dp);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(dx + i, get(p + i, c) * (get(dp + i, c) - s), c);
}

/// y = gamma * x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019); returns 1 / sqrt(...).
template <class T>
LINNET_TARGET static T rms_norm(index n, T eps, const T* x, const T* gamma, T* y) {
  const T r = T(1) / std::sqrt(dot(n, x, x) / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, i, c, n) put<T>(y + i, get(gamma + i, c) * (r * get(x + i, c)), c);
  return r;
}
/// dx += r u - x r^3 mean(u x), u = dy gamma.
template <class T>
LINNET_TARGET static void rms_norm_backward(index n, T r, const T* x, const T* gamma, const T* dy,
                                            T* dx) {
  vec<T> all = {};
  LINNET_FOR_VECTORS(T, i, c, n) all += get(dy + i, c) * get(gamma + i, c) * get(x + i, c);
  const T shared = r * r * r * sum<T>(all) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + (r * u - shared * get(x + i, c)), c);
  }
}
/// y = gamma * (x - mean) / sqrt(var + eps) + beta; statistics = {mean, 1 / sqrt(...)}.
template <class T>
LINNET_TARGET static void layer_norm(index n, T eps, const T* x, const T* gamma, const T* beta,
                                     T* y, T* statistics) {
  const T mean = total(n, x) / static_cast<T>(n);
  vec<T> all = {};
  const index whole = n - n % lanes<T>;
  for (index i = 0; i < whole; i += lanes<T>) {
    const vec<T> d = load(x + i) - mean;
    all += d * d;
  }
  T spread = sum<T>(all);
  for (index i = whole; i < n; ++i) spread += (x[i] - mean) * (x[i] - mean);
  const T r = T(1) / std::sqrt(spread / static_cast<T>(n) + eps);
  LINNET_FOR_VECTORS(T, j, c, n)
  put<T>(y + j, get(gamma + j, c) * ((get(x + j, c) - mean) * r) + get(beta + j, c), c);
  statistics[0] = mean;
  statistics[1] = r;
}
/// dx += r (u - mean(u) - xhat mean(u xhat)), u = dy gamma, xhat = (x - mean) r.
template <class T>
LINNET_TARGET static void layer_norm_backward(index n, const T* statistics, const T* x,
                                              const T* gamma, const T* dy, T* dx) {
  const T mean = statistics[0], r = statistics[1];
  vec<T> us = {}, uxs = {};
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    us += u;
    uxs += u * ((get(x + i, c) - mean) * r);
  }
  const T u_mean = sum<T>(us) / static_cast<T>(n), ux_mean = sum<T>(uxs) / static_cast<T>(n);
  LINNET_FOR_VECTORS(T, i, c, n) {
    const vec<T> u = get(dy + i, c) * get(gamma + i, c);
    put<T>(dx + i, get(dx + i, c) + r * (u - u_mean - (get(x + i, c) - mean) * r * ux_mean), c);
  }
}

/// @file
/// Dropout masks of one instruction-set level: included inside a struct by simd/levels.hpp.

/// Products of the lower halves of 64-bit lanes.
LINNET_TARGET static inline vec<std::uint64_t> low_products(const vec<std::uint64_t>& a,
                                                            const vec<std::uint64_t>& b) {
#if defined(LINNET_LOW_PRODUCTS)
  return reinterpret_cast<vec<std::uint64_t>>(LINNET_LOW_PRODUCTS(a, b));
#else
  return (a & 0xFFFFFFFFu) * b;
#endif
}
/// The lanes of a and b by turns: of their lower halves (High = 0) or upper ones.
template <int High, class Vector, int... Lane>
LINNET_TARGET static inline Vector by_turns(const Vector& a, const Vector& b,
                                            std::integer_sequence<int, Lane...>) {
  constexpr int all = sizeof...(Lane);
  return __builtin_shufflevector(a, b, ((all * High + Lane) / 2 + Lane % 2 * all)...);
}
/// Counters of Philox that fill a register.
static constexpr index philox_lanes = lanes<std::uint64_t>;
/// The words philox(key, high, counter), of that many counters from the first on: [counters, 4].
/// What the upper halves of lanes hold on the way means nothing.
LINNET_TARGET static inline void philox_words(std::uint64_t key, std::uint64_t high,
                                              std::uint64_t first, word* words) {
  using wide = vec<std::uint64_t>;
  wide x0 = wide{} + first, x2 = wide{} + high;
  for (index i = 0; i < philox_lanes; ++i) x0[i] += static_cast<std::uint64_t>(i);
  wide x1 = x0 >> 32, x3 = x2 >> 32;
  auto k0 = static_cast<word>(key), k1 = static_cast<word>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const wide a = low_products(x0, wide{} + 0xD2511F53u),
               b = low_products(x2, wide{} + 0xCD9E8D57u);
    x0 = (b >> 32) ^ x1 ^ (wide{} + k0);
    x1 = b;
    x2 = (a >> 32) ^ x3 ^ (wide{} + k1);
    x3 = a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  x0 = (x0 & 0xFFFFFFFFu) | x1 << 32;
  x2 = (x2 & 0xFFFFFFFFu) | x3 << 32;
  constexpr std::make_integer_sequence<int, lanes<std::uint64_t>> all{};
  const wide low = by_turns<0>(x0, x2, all), upper = by_turns<1>(x0, x2, all);
  __builtin_memcpy(words, &low, sizeof low);
  __builtin_memcpy(words + 2 * philox_lanes, &upper, sizeof upper);
}
/// Dropout in place: x *= 0 or keep, and y too unless it is null; 0 where the value's Philox word
/// is below `limit`. Value i has word (first + i) % 4 of counter (first + i) / 4.
template <class T>
LINNET_TARGET static void drop(std::uint64_t key, std::uint64_t high, word limit, T keep,
                               index first, index n, T* x, T* y) {
  using some_words = typename vector_of<word, lanes<T>>::type;
  word words[4 * philox_lanes + lanes<T>] = {};  // the last ones are read, not used
  for (index done = 0; done < n;) {
    const index skip = (first + done) % 4, left = 4 * philox_lanes - skip,
                here = n - done < left ? n - done : left;
    philox_words(key, high, static_cast<std::uint64_t>((first + done) / 4), words);
    for (index i = 0; i < here; i += lanes<T>) {
      const index count = here - i < lanes<T> ? here - i : lanes<T>;
      some_words w;
      __builtin_memcpy(&w, words + skip + i, sizeof w);
      const auto dropped = __builtin_convertvector(w < limit, vec_int<T>);
      const auto multiplier =
          reinterpret_cast<vec<T>>(reinterpret_cast<vec_int<T>>(vec<T>{} + keep) & ~dropped);
      put<T>(x + done + i, get(x + done + i, count) * multiplier, count);
      if (y != nullptr) put<T>(y + done + i, get(y + done + i, count) * multiplier, count);
    }
    done += here;
  }
}
};
#undef LINNET_TARGET
#undef LINNET_DOT_PAIRS

#define LINNET_DOT_BF16(acc, a, b)                                            \
  acc = reinterpret_cast<sum>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(acc), \
                                               reinterpret_cast<__m512bh>(a), \
                                               reinterpret_cast<__m512bh>(b)))
#define LINNET_DOT_INT8(acc, a, b)                 \
  acc = reinterpret_cast<sum>(_mm512_dpbusd_epi32( \
      reinterpret_cast<__m512i>(acc), reinterpret_cast<__m512i>(b), reinterpret_cast<__m512i>(a)))
#define LINNET_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma")))
/// Kernels for AVX-512 with dot products: those that multiply codes differ.
struct avx512dot : avx512 {
/// @file
/// The matrix products of one instruction-set level: included inside a struct by simd/levels.hpp.
/// Each output is one sum over k in ascending order, whatever tile it falls into.

/// Steps of a product in T: one k at a time, fused where the level can.
template <class T>
struct real_steps {
  using left = T;
  using right = vec<T>;
  using sum = vec<T>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) { acc += a * b; }
};

/// Loads the values of an epilogue for the columns of one vector, and applies it to a sum.
template <class T>
struct real_finish {
  vec<T> bias;
  LINNET_TARGET inline void begin(const epilogue<T>& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<T>{};
  }
  LINNET_TARGET inline void value(const epilogue<T>& e, const vec<T>& sum, index, vec<T>& y) const {
    y = e.alpha * sum + bias;
  }
};

/// One register tile: R rows by W vectors of C = A B, the whole of K in one sweep. W vectors may
/// lie in several panels. `ahead` is read ahead of its use, a cache line for each k. At the ragged
/// right edge W is 1 and only `count` columns are there. Rows of B up to `safe` may be read in full
/// vectors, the few last ones may not.
template <class Steps, class Finish, int R, int W, bool Ragged, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void tile(index K, const rows_operand<typename Steps::left>& a,
                                      const columns_operand<Value>& b, T* c, index ldc, index row,
                                      index column, const E& e, const Value* ahead, index count = 0,
                                      index safe = 0) {
  constexpr int per_panel = static_cast<int>(panel_width) / lanes<T>;
  typename Steps::sum acc[std::size_t{R}][std::size_t{W}] = {};
  const typename Steps::left* const left = a.data + row * a.row;
  const Value* const right = b.data + column / panel_width * b.panel + column % panel_width;
  if constexpr (!Ragged) count = lanes<T>, safe = K;
  // A pointer for every three rows: their places are then parts of instructions, not additions.
  const typename Steps::left* rows[std::size_t{R + 2} / 3];
  LINNET_UNROLL
  for (int i = 0; i < R; i += 3) rows[i / 3] = left + i * a.row;
  for (index k = 0; k < safe; ++k) {
    typename Steps::right r[std::size_t{W}];
    if constexpr (R > 4) __builtin_prefetch(ahead + k * b.ld, 0, 2);
    LINNET_UNROLL
    for (int v = 0; v < W; ++v)
      __builtin_memcpy(&r[v], right + v / per_panel * b.panel + k * b.ld + v % per_panel * lanes<T>,
                       sizeof r[v]);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      // The difference spreads a number over a vector.
      const typename Steps::right l = rows[i / 3][i % 3 * a.row] - typename Steps::right{};
      LINNET_UNROLL
      for (int v = 0; v < W; ++v) Steps::step(acc[i][v], l, r[v]);
    }
    LINNET_UNROLL
    for (int i = 0; i < R; i += 3) rows[i / 3] += a.column;
  }
  if constexpr (Ragged)
    for (index k = safe; k < K; ++k) {
      Value values[lanes<T>] = {};
      for (index l = 0; l < count; ++l) values[l] = right[k * b.ld + l];
      typename Steps::right r;
      __builtin_memcpy(&r, values, sizeof r);
      LINNET_UNROLL
      for (int i = 0; i < R; ++i)
        Steps::step(acc[i][0], left[i * a.row + k * a.column] - typename Steps::right{}, r);
    }
  LINNET_UNROLL
  for (int v = 0; v < W; ++v) {
    Finish finish;
    finish.begin(e, column + v * lanes<T>, count);
    LINNET_UNROLL
    for (int i = 0; i < R; ++i) {
      T* const out = c + (row + i) * ldc + column + v * lanes<T>;
      vec<T> y;
      finish.value(e, acc[i][v], row + i, y);
      if constexpr (!Ragged) {
        if (e.accumulate) y += load(out);
        store(out, y);
      } else {
        if (e.accumulate) y += load_first<T>(out, count);
        store_first(out, y, count);
      }
    }
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]), serial. `slack` is how many values behind the last element
/// of a full row of B may still be read. Rows of packed panels are padded to 32 columns.
template <class Steps, class Finish, class T, class Value, class E>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static inline void product(index M, index N, index K,
                                         const rows_operand<typename Steps::left>& a,
                                         const columns_operand<Value>& b, T* c, index ldc,
                                         const E& e, index slack) {
  // One row at a time waits for its own sums and few rows leave registers idle: more columns.
  index j = 0;
  if (M == 1) {
    for (; j + 8 * lanes<T> <= N; j += 8 * lanes<T>)
      tile<Steps, Finish, 1, 8, false>(K, a, b, c, ldc, 0, j, e, b.data);
    for (; j + 4 * lanes<T> <= N; j += 4 * lanes<T>)
      tile<Steps, Finish, 1, 4, false>(K, a, b, c, ldc, 0, j, e, b.data);
  }
  for (; j + 2 * lanes<T> <= N; j += 2 * lanes<T>) {
    // The first tiles of these columns fetch the next panel, a line of each row at a time.
    const Value* const here = b.data + j / panel_width * b.panel;
    const Value* const next = j + panel_width < N ? here + b.panel : here;
    constexpr index line = 64 / static_cast<index>(sizeof(Value));
    index i = 0;
    const auto ahead = [&] { return i < 2 * LINNET_ROWS ? next + i / LINNET_ROWS * line : here; };
    for (; i + LINNET_ROWS <= M; i += LINNET_ROWS)
      tile<Steps, Finish, LINNET_ROWS, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    if constexpr (LINNET_ROWS > 8)
      for (; i + 8 <= M; i += 8)
        tile<Steps, Finish, 8, 2, false>(K, a, b, c, ldc, i, j, e, ahead());
    for (; i + 4 <= M; i += 4) tile<Steps, Finish, 4, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i + 2 <= M; i += 2) tile<Steps, Finish, 2, 2, false>(K, a, b, c, ldc, i, j, e, here);
    for (; i < M; ++i) tile<Steps, Finish, 1, 2, false>(K, a, b, c, ldc, i, j, e, here);
  }
  for (; j < N; j += lanes<T>) {
    const index count = N - j < lanes<T> ? N - j : lanes<T>;
    // A full vector at row k stays inside B as long as it ends before the end of the last row.
    index safe = K;
    const index end = (K - 1) * b.ld + count + slack;
    while (safe > 0 && end < (safe - 1) * b.ld + lanes<T>) --safe;
    index i = 0;
    for (; i + 4 <= M; i += 4)
      tile<Steps, Finish, 4, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
    for (; i < M; ++i)
      tile<Steps, Finish, 1, 1, true>(K, a, b, c, ldc, i, j, e, b.data, count, safe);
  }
}

/// C[M, N] = epilogue(A[M, K] B[K, N]) in T, serial.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply(index M, index N, index K, const rows_operand<T>& a,
                                   const columns_operand<T>& b, T* c, index ldc,
                                   const epilogue<T>& e, index slack = 0) {
  product<real_steps<T>, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}

/// @file
/// Stored codes and low-precision activations of one instruction-set level: included inside a
/// struct by simd/levels.hpp.

/// A register of words.
using words = typename vector_of<word, lanes<float>>::type;

template <class To, class From>
LINNET_TARGET static inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

/// Number `i` of each word. Every code of every kind decodes exactly, NaNs and infinities included.
template <code C>
LINNET_TARGET static inline vec<float> decode(const words& w, int i) {
  const auto shift = static_cast<word>(i * bits_of(C));
  if constexpr (C == code::bf16) {
    return bits_as<vec<float>>(i == 0 ? w << 16 : w & 0xffff0000u);
  } else if constexpr (C == code::u8 || C == code::u4) {
    const words u = (w >> shift) & (C == code::u8 ? 0xffu : 0xfu);
    return __builtin_convertvector(bits_as<vec_int<float>>(u), vec<float>);
  } else if constexpr (C == code::nf4) {
#if defined(LINNET_LOOK_UP)
    return LINNET_LOOK_UP(nf4_values, w >> shift);
#else
    word u[lanes<float>];
    float x[lanes<float>];
    __builtin_memcpy(u, &w, sizeof u);
    for (int l = 0; l < lanes<float>; ++l) x[l] = nf4_values[(u[l] >> shift) & 15u];
    return load(x);
#endif
  } else {
    constexpr int fraction = C == code::f16 ? 10 : C == code::f8_e4m3 ? 3 : 2;
    constexpr int bias = C == code::f8_e4m3 ? 7 : 15;
    constexpr word sign = 1u << (bits_of(C) - 1), magnitude = sign - 1;
    constexpr word smallest = 1u << fraction;                              // normal code
    constexpr word last = C == code::f8_e4m3 ? 0x7fu : 0x1fu << fraction;  // first one not finite
    constexpr float unit = 1.0f / static_cast<float>(1u << (bias - 1 + fraction));
    const words u = w >> shift, m = u & magnitude, placed = m << (23 - fraction);
    const words subnormal =
        bits_as<words>(__builtin_convertvector(bits_as<vec_int<float>>(m), vec<float>) * unit);
    words x = m < smallest ? subnormal : placed + (static_cast<word>(127 - bias) << 23);
    x = m < last ? x : placed | 0x7f800000u;
    return bits_as<vec<float>>(x | (u & sign) << (32 - bits_of(C)));
  }
}

/// out[k][32] = scale_j (code - zero_j) for `n` rows of words of one panel: `n` * 32 / bits rows of
/// numbers. Without `scales` the codes are the numbers. A constant `zero` serves all columns where
/// `zeros` is null. With `Minima`, `zeros` are added after scaling: out = scale_j code + zero_j.
template <code C, bool Minima = false>
LINNET_TARGET static void decode_panel(index n, const word* w, const float* scales,
                                       const float* zeros, float zero, float* out) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> scale = scales ? load(scales + at) : vec<float>{} + 1.0f;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    for (index k = 0; k < n; ++k) {
      words u;
      __builtin_memcpy(&u, w + k * panel_width + at, sizeof u);
      float* const y = out + k * per_word * panel_width + at;
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr ((C == code::u8 || C == code::u4) && !Minima) x = x - origin;
        if (scales) x = x * scale;
        if constexpr (Minima) x = x + origin;
        store(y + i * panel_width, x);
      }
    }
  }
}

/// Adds to sums[32] scale_j (sum of a_k (code_kj - zero_j)): one row of `k` inputs with one panel
/// whose scales they share. Decoded weights stay in registers. With `Minima` it adds scale_j (sum
/// of a_k code_kj) + zero_j (sum of a_k).
template <code C, bool Minima = false>
LINNET_TARGET static void row_by_panel(index k, const float* a, const word* w, const float* scales,
                                       const float* zeros, float zero, float* sums) {
  constexpr int per_word = 32 / bits_of(C),
                per_panel = static_cast<int>(panel_width) / lanes<float>;
  constexpr bool integer = (C == code::u8 || C == code::u4) && !Minima;
  float total = 0;
  if constexpr (Minima) {
    vec<float> parts = {};
    for (index i = 0; i < k; i += lanes<float>)
      parts += get(a + i, k - i < lanes<float> ? k - i : lanes<float>);
    total = sum<float>(parts);
  }
  for (int v = 0; v < per_panel; ++v) {
    const int at = v * lanes<float>;
    const vec<float> origin = zeros ? load(zeros + at) : vec<float>{} + zero;
    vec<float> acc[std::size_t{per_word}] = {};
    const index whole = k / per_word;
    for (index n = 0; n < whole; ++n) {
      words u;
      __builtin_memcpy(&u, w + n * panel_width + at, sizeof u);
      LINNET_UNROLL
      for (int i = 0; i < per_word; ++i) {
        vec<float> x = decode<C>(u, i);
        if constexpr (integer) x = x - origin;
        acc[i] += a[n * per_word + i] * x;
      }
    }
    for (int i = 0; i < static_cast<int>(k % per_word); ++i) {
      words u;
      __builtin_memcpy(&u, w + whole * panel_width + at, sizeof u);
      vec<float> x = decode<C>(u, i);
      if constexpr (integer) x = x - origin;
      acc[0] += a[whole * per_word + i] * x;
    }
    vec<float> x = acc[0];
    LINNET_UNROLL
    for (int i = 1; i < per_word; ++i) x += acc[i];
    if (scales) x *= load(scales + at);
    if constexpr (Minima) x += origin * total;
    store(sums + at, load(sums + at) + x);
  }
}

/// Rounds to bf16, nearest even: y = code of x in the low half of a word.
LINNET_TARGET static inline void round_to_bf16(const vec<float>& x, words& y) {
  const words u = bits_as<words>(x);
  const words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}
/// y[n] = bf16(x[n]), zeros behind them up to an even number.
template <class T>
LINNET_TARGET static void to_bf16(index n, const T* x, bf16_code* y) {
  using half = typename vector_of<std::uint16_t, lanes<float>>::type;
  index i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) {
    words u;
    round_to_bf16(load(x + i), u);
    const half h = __builtin_convertvector(u, half);
    __builtin_memcpy(y + i, &h, sizeof h);
  }
  if (i < n) {
    words u;
    round_to_bf16(load_first<float>(x + i, n - i), u);
    word values[lanes<float>];
    __builtin_memcpy(values, &u, sizeof u);
    for (index l = 0; i + l < n; ++l) y[i + l] = static_cast<bf16_code>(values[l]);
  }
  if (n % 2) y[n] = bf16_code{};
}
/// pairs[n] = {bf16(first[n]), bf16(second[n])}, the first in the low half; `second` may be null.
template <class T>
LINNET_TARGET static void to_bf16_pairs(index n, const T* first, const T* second, word* pairs) {
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    words low, high = {};
    round_to_bf16(get(first + i, count), low);
    if (second) round_to_bf16(get(second + i, count), high);
    const words both = low | high << 16;
    if (count == lanes<float>)
      __builtin_memcpy(pairs + i, &both, sizeof both);
    else
      __builtin_memcpy(pairs + i, &both, static_cast<std::size_t>(count) * sizeof(word));
  }
}

/// Symmetric int8 codes of a row, round half to even: x = scale * code, scale = max|x| / 127.
/// Zeros behind them up to a multiple of 4. Returns the scale; `codes_sum` is of the codes. A row
/// below 2^-119 becomes zeros with the scale 1. A row that is not finite has the scale NaN, so that
/// whatever is made of it is NaN.
template <class T>
LINNET_TARGET static float to_int8(index n, const T* x, std::int8_t* y, std::int32_t& codes_sum) {
  using byte = typename vector_of<std::int8_t, lanes<float>>::type;
  vec_int<float> most = {};  // magnitudes as bits: in their order NaN is the largest
  for (index i = 0; i < n; i += lanes<float>) {
    const vec<float> v = get(x + i, n - i < lanes<float> ? n - i : lanes<float>);
    const vec_int<float> a = bits_as<vec_int<float>>(v) & 0x7fffffff;
    most = a > most ? a : most;
  }
  const std::int32_t top_bits = largest<std::int32_t>(most);
  if (top_bits >= 0x7f800000) {
    for (index i = 0; i < round_up(n, 4); ++i) y[i] = 0;
    codes_sum = 0;
    return bits_as<float>(std::int32_t{0x7fc00000});
  }
  const float top = bits_as<float>(top_bits);
  const bool tiny = top < 0x1p-119f;  // 127 / top might be infinite
  const float scale = tiny ? 1.0f : top / 127.0f, inverse = tiny ? 0.0f : 127.0f / top;
  vec_int<float> total = {};
  for (index i = 0; i < n; i += lanes<float>) {
    const index count = n - i < lanes<float> ? n - i : lanes<float>;
    const vec<float> v = get(x + i, count);
    // In the sum with 3 * 2^22 the last bits are the nearest integer.
    const vec<float> shifted = v * inverse + 12582912.0f;
    const vec_int<float> q = (bits_as<vec_int<float>>(shifted) & 0x7fffff) - 0x400000;
    total += q;
    const byte codes = __builtin_convertvector(q, byte);
    if (count == lanes<float>) {
      __builtin_memcpy(y + i, &codes, sizeof codes);
    } else {
      __builtin_memcpy(y + i, &codes, static_cast<std::size_t>(count));
    }
  }
  for (index i = n; i % 4; ++i) y[i] = 0;
  codes_sum = sum<std::int32_t>(total);
  return scale;
}

// --- products of low-precision activations: two or four k in one step ----------------------------

/// acc += low(a) low(b) + high(a) high(b), halves of words as bf16, sums in f32.
struct bf16_steps {
  using left = word;
  using right = words;
  using sum = vec<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_BF16)
    LINNET_DOT_BF16(acc, a, b);
#else
    acc += decode<code::bf16>(a, 0) * decode<code::bf16>(b, 0);
    acc += decode<code::bf16>(a, 1) * decode<code::bf16>(b, 1);
#endif
  }
};
/// acc += sum of the four signed bytes of a times the four unsigned bytes of b.
struct int8_steps {
  using halves = typename vector_of<std::int16_t, 2 * lanes<float>>::type;
  using left = word;
  using right = words;
  using sum = vec_int<float>;
  LINNET_TARGET static inline void step(sum& acc, const right& a, const right& b) {
#if defined(LINNET_DOT_INT8)
    LINNET_DOT_INT8(acc, a, b);
#else
    // Even and odd bytes as 16-bit numbers, whose products of pairs fit 32 bits.
    const halves all = bits_as<halves>(a);
    const halves even = (all << 8) >> 8, odd = all >> 8;
    acc += pairs(even, bits_as<halves>(b & 0x00ff00ffu));
    acc += pairs(odd, bits_as<halves>((b >> 8) & 0x00ff00ffu));
#endif
  }
  /// Sum of the products of each two neighbours.
  LINNET_TARGET static inline sum pairs(const halves& a, const halves& b) {
#if defined(LINNET_DOT_PAIRS)
    return LINNET_DOT_PAIRS(a, b);
#else
    const sum x = bits_as<sum>(a), y = bits_as<sum>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
  }
};
struct int8_finish {
  vec<float> bias, scale;
  vec_int<float> zero;
  LINNET_TARGET inline void begin(const integer_epilogue& e, index column, index count) {
    bias = e.bias ? get(e.bias + column, count) : vec<float>{};
    scale = get(e.scale + column, count);
    zero = vec_int<float>{};
    if (e.zero) zero = __builtin_convertvector(get(e.zero + column, count), vec_int<float>);
  }
  LINNET_TARGET inline void value(const integer_epilogue& e, const vec_int<float>& sum, index row,
                                  vec<float>& y) const {
    const vec_int<float> centred =
        e.zero ? sum - zero * e.row_sum[row] : sum - 128 * e.row_sum[row];
    y = __builtin_convertvector(centred, vec<float>) * (scale * (e.alpha * e.row_scale[row])) +
        bias;
  }
};

/// C[M, N] = epilogue(A B) of bf16 pairs: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_bf16(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const epilogue<T>& e, index slack = 0) {
  product<bf16_steps, real_finish<T>>(M, N, K, a, b, c, ldc, e, slack);
}
/// C[M, N] = epilogue(A B) of signed by unsigned bytes: `K` counts words. B is packed panels.
template <class T>
// NOLINTNEXTLINE(readability-function-size)
LINNET_TARGET static void multiply_int8(index M, index N, index K, const rows_operand<word>& a,
                                        const columns_operand<word>& b, T* c, index ldc,
                                        const integer_epilogue& e, index slack = 0) {
  product<int8_steps, int8_finish>(M, N, K, a, b, c, ldc, e, slack);
}
};
#undef LINNET_TARGET
#undef LINNET_WIDTH
#undef LINNET_ROWS
#undef LINNET_FIRST
#undef LINNET_LOAD_FIRST
#undef LINNET_STORE_FIRST
#undef LINNET_ROOT_FLOAT
#undef LINNET_ROOT_DOUBLE
#undef LINNET_LOOK_UP
#undef LINNET_BYTES
#undef LINNET_LOW_PRODUCTS
#undef LINNET_DOT_BF16
#undef LINNET_DOT_INT8
#endif
#undef LINNET_KEEP
#undef LINNET_FOR_VECTORS

/// The best level of this machine, looked up once; with LINNET_ONLY_LEVEL, that level.
inline level detect() {
#if defined(LINNET_ONLY_LEVEL)
  return level::LINNET_ONLY_LEVEL;
#elif defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16")
               ? level::avx512dot
               : level::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return level::avx2;
#endif
  return level::portable;
}

}  // namespace detail

/// The level that sessions and trainers use by default: the best of this machine, or the one that
/// the environment variable LINNET_SIMD names. Its values are portable, avx2, avx512 and avx512dot;
/// a level that the machine lacks is not used. Looked up once per program.
inline level best() {
  static const level chosen = [] {
    const level machine = detail::detect();
    const char* const wish = std::getenv("LINNET_SIMD");
    if (wish == nullptr) return machine;
    for (const level l : levels)
      if (std::string_view(wish) == name(l) && l <= machine) return l;
    return machine;
  }();
  return chosen;
}

/// The level that a requested level resolves to on this machine.
inline level resolve(level wish) {
  return wish == level::automatic ? best() : wish <= detail::detect() ? wish : detail::detect();
}

/// Calls `f(kernels)` with the kernels of level `l`, a type whose static functions they are. A
/// program compiled with -DLINNET_ONLY_LEVEL=portable, avx2, avx512 or avx512dot has the kernels of
/// that level alone and needs a machine that has it. It is smaller and compiles faster, but runs no
/// faster. Those that multiply low-precision activations are best reached through dispatch_dot().
template <class F>
inline auto dispatch([[maybe_unused]] level l, F&& f) {
#if defined(LINNET_ONLY_LEVEL)
  return f(detail::LINNET_ONLY_LEVEL{});
#else
#if defined(__x86_64__)
  if (l >= level::avx512) return f(detail::avx512{});
  if (l == level::avx2) return f(detail::avx2{});
#endif
  return f(detail::portable{});
#endif
}
/// Calls `f(kernels)` with the kernels of level `l` for products of low-precision activations.
template <class F>
inline auto dispatch_dot(level l, F&& f) {
#if defined(__x86_64__) && !defined(LINNET_ONLY_LEVEL)
  if (l == level::avx512dot) return f(detail::avx512dot{});
#endif
  return dispatch(l, f);
}

}  // namespace simd

LINNET_SIMD_NAMESPACE_END

#if defined(LINNET_COMPILED_KERNELS) || defined(LINNET_KERNELS_SOURCE)

#if defined(LINNET_KERNELS_SOURCE)
#define LINNET_EXTERN template
#else
#define LINNET_EXTERN extern template
#endif

#define LINNET_PRODUCT(L, T)                                                             \
  LINNET_EXTERN void detail::L::multiply<T>(index, index, index, const rows_operand<T>&, \
                                            const columns_operand<T>&, T*, index,        \
                                            const epilogue<T>&, index);
#define LINNET_DECODE(L, ...)                                                                     \
  LINNET_EXTERN void detail::L::decode_panel<code::__VA_ARGS__>(index, const word*, const float*, \
                                                                const float*, float, float*);     \
  LINNET_EXTERN void detail::L::row_by_panel<code::__VA_ARGS__>(                                  \
      index, const float*, const word*, const float*, const float*, float, float*);
#define LINNET_DOT(L)                                                                              \
  LINNET_EXTERN void detail::L::multiply_bf16<float>(                                              \
      index, index, index, const rows_operand<word>&, const columns_operand<word>&, float*, index, \
      const epilogue<float>&, index);                                                              \
  LINNET_EXTERN void detail::L::multiply_int8<float>(                                              \
      index, index, index, const rows_operand<word>&, const columns_operand<word>&, float*, index, \
      const integer_epilogue&, index);
#define LINNET_CODES(L)                                                                            \
  LINNET_DECODE(L, bf16)                                                                           \
  LINNET_DECODE(L, f16)                                                                            \
  LINNET_DECODE(L, f8_e4m3)                                                                        \
  LINNET_DECODE(L, f8_e5m2)                                                                        \
  LINNET_DECODE(L, u8)                                                                             \
  LINNET_DECODE(L, u4)                                                                             \
  LINNET_DECODE(L, u4, true)                                                                       \
  LINNET_DECODE(L, nf4)                                                                            \
  LINNET_EXTERN void detail::L::to_bf16<float>(index, const float*, bf16_code*);                   \
  LINNET_EXTERN void detail::L::to_bf16_pairs<float>(index, const float*, const float*, word*);    \
  LINNET_EXTERN float detail::L::to_int8<float>(index, const float*, std::int8_t*, std::int32_t&); \
  LINNET_DOT(L)
#define LINNET_ACTIVATION(L, A, T)                                                               \
  LINNET_EXTERN void detail::L::activation<activation_kind::A, T>(index, const T*, T*);          \
  LINNET_EXTERN void detail::L::activation_backward<activation_kind::A, T>(index, const T*,      \
                                                                           const T*, T*);        \
  LINNET_EXTERN void detail::L::gated<activation_kind::A, T>(index, const T*, const T*, T*);     \
  LINNET_EXTERN void detail::L::gated_backward<activation_kind::A, T>(index, const T*, const T*, \
                                                                      const T*, T*, T*);
#define LINNET_ATTENTION(L, T, C)                                                               \
  LINNET_EXTERN void detail::L::dots<T>(index, index, index, T, const T*, const token_rows<C>&, \
                                        T*);                                                    \
  LINNET_EXTERN void detail::L::mix<T>(index, index, index, const T*, const token_rows<C>&, T*, \
                                       bool);
#define LINNET_ROWS_OF(L, T)                                                                      \
  LINNET_EXTERN void detail::L::add<T>(index, const T*, const T*, T*);                            \
  LINNET_EXTERN void detail::L::scale<T>(index, T, T*);                                           \
  LINNET_EXTERN T detail::L::dot<T>(index, const T*, const T*);                                   \
  LINNET_ATTENTION(L, T, T)                                                                       \
  LINNET_EXTERN T detail::L::maximum<T>(index, const T*);                                         \
  LINNET_EXTERN T detail::L::exp_sum<T>(index, T, T*);                                            \
  LINNET_EXTERN void detail::L::softmax<T>(index, T*);                                            \
  LINNET_EXTERN void detail::L::softmax_backward<T>(index, const T*, const T*, T*);               \
  LINNET_EXTERN T detail::L::rms_norm<T>(index, T, const T*, const T*, T*);                       \
  LINNET_EXTERN void detail::L::rms_norm_backward<T>(index, T, const T*, const T*, const T*, T*); \
  LINNET_EXTERN void detail::L::layer_norm<T>(index, T, const T*, const T*, const T*, T*, T*);    \
  LINNET_EXTERN void detail::L::layer_norm_backward<T>(index, const T*, const T*, const T*,       \
                                                       const T*, T*);                             \
  LINNET_EXTERN void detail::L::drop<T>(std::uint64_t, std::uint64_t, word, T, index, index, T*,  \
                                        T*);                                                      \
  LINNET_EXTERN void detail::L::adamw<T>(index, T, T, T, T, T, T, const T*, T*, T*, T*);          \
  LINNET_ACTIVATION(L, relu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu, T)                                                                   \
  LINNET_ACTIVATION(L, gelu_tanh, T)                                                              \
  LINNET_ACTIVATION(L, silu, T)                                                                   \
  LINNET_ACTIVATION(L, tanh, T)
#define LINNET_SCANS_OF(L, T)                                                                      \
  LINNET_EXTERN void detail::L::softplus<T>(index, T*);                                            \
  LINNET_EXTERN void detail::L::softplus_backward<T>(index, const T*, T*);                         \
  LINNET_EXTERN void detail::L::scan_step<T>(index, index, const T*, const T*, const T*, const T*, \
                                             const T*, const T*, T*, T*, T*);                      \
  LINNET_EXTERN void detail::L::scan_step_backward<T>(index, index, const T*, const T*, const T*,  \
                                                      const T*, const T*, const T*, const T*,      \
                                                      const T*, const T*, T*, T*, T*, T*, T*, T*);
#define LINNET_LEVEL(L)                   \
  LINNET_PRODUCT(L, float)                \
  LINNET_PRODUCT(L, double)               \
  LINNET_CODES(L)                         \
  LINNET_ATTENTION(L, float, bf16_code)   \
  LINNET_ATTENTION(L, float, std::int8_t) \
  LINNET_ROWS_OF(L, float)                \
  LINNET_ROWS_OF(L, double)               \
  LINNET_SCANS_OF(L, float)               \
  LINNET_SCANS_OF(L, double)

LINNET_SIMD_NAMESPACE_BEGIN
namespace simd {
LINNET_LEVEL(portable)
#if defined(__x86_64__)
LINNET_LEVEL(avx2)
LINNET_LEVEL(avx512)
LINNET_DOT(avx512dot)
#endif
}  // namespace simd
LINNET_SIMD_NAMESPACE_END

#undef LINNET_EXTERN
#undef LINNET_PRODUCT
#undef LINNET_DECODE
#undef LINNET_DOT
#undef LINNET_CODES
#undef LINNET_ACTIVATION
#undef LINNET_ATTENTION
#undef LINNET_ROWS_OF
#undef LINNET_SCANS_OF
#undef LINNET_LEVEL

#endif

LINNET_NAMESPACE_BEGIN

namespace ops {

using simd::best;
using simd::bf16_code;
using simd::resolve;
using simd::token_block;
using packed_word = simd::word;  ///< what packed panels of codes are made of

/// Where an operation runs: the team of threads, the instruction-set level, and scratch memory of
/// converted_bytes() for models whose products round their inputs.
struct execution {
  team threads{};
  simd::level level = simd::level::portable;
  void* converted = nullptr;

  /// Calls f(kernels) with the kernels of the level, see simd/kernels.hpp.
  template <class F>
  void with_kernels(F&& f) const {
    simd::dispatch(level, std::forward<F>(f));
  }
};

}  // namespace ops

LINNET_NAMESPACE_END
/// @file
/// All storage types: how a weight is kept in memory. A storage type is a template argument of a
/// model; kernels read weights as they are stored.

/// @file
/// Storage without rounding: float and double.

/// @file
/// Base of all storage types, and the types that products compute in.

LINNET_NAMESPACE_BEGIN

/// Compute types: the type that inputs of a matrix product are rounded to before it.
namespace compute {
/// Base of the compute types.
struct policy {};
/// No rounding: products are computed in the model's scalar type.
struct f32 : policy {};
/// bfloat16 to nearest even; sums in f32. Weights must be stored as bf16.
struct bf16 : policy {};
/// int8 with one scale per token, found at run time (W8A8); sums in int32, exact. Weights
/// must be stored as 8-bit integers with one scale per row or tensor.
struct int8 : policy {};
}  // namespace compute

/// The ways a weight matrix [out, in] can be stored.
namespace storage {

/// The part of a matrix that shares one scale.
enum class granularity {
  tensor,  ///< a whole matrix
  row,     ///< the weights of one output feature
  group    ///< consecutive inputs of one output feature
};
/// Where the codes of an integer storage lie.
enum class symmetry {
  symmetric,  ///< x = scale * code, codes from -max to max
  asymmetric  ///< x = scale * (code - zero), codes from 0, the range extended to hold 0
};

/// Whether `x` is a NaN; looks at the bits, so it stays right under -ffast-math.
inline bool is_nan(double x) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & ~(std::uint64_t{1} << 63)) > std::uint64_t{0x7ff} << 52;
}
/// The whole number nearest to `x` from `low` to `high`, half to even; 0 for a NaN.
inline double nearest_whole(double x, double low, double high) {
  return is_nan(x) ? 0 : (std::clamp)(std::nearbyint(x), low, high);
}

/// Base of all storage types; a type overrides what differs.
struct policy {
  using compute = linnet::compute::f32;      ///< see with_compute
  static constexpr bool scaled = false;      ///< whether codes come with scales
  static constexpr bool centred = false;     ///< whether they also come with zero points
  static constexpr bool ggml = false;        ///< whether scales are ggml's, zero points its minima
  static constexpr bool per_tensor = false;  ///< whether all scales of a matrix are the same
  static constexpr index group = 0;          ///< inputs that share a scale; 0 for a whole row
  static constexpr index per_value = 1;      ///< codes in one `value` of a canonical row
};
/// Storage of plain numbers, which kernels read as they are.
template <class Real>
struct real : policy {
  using value = Real;  ///< one stored number
  using word = Real;   ///< what packed panels are made of
  static constexpr index per_word = 1;
  /// Whether a stored number is neither infinite nor NaN.
  static bool finite(value x) { return is_finite(x); }
};
/// Storage of codes that kernels decode: packed panels are words of several codes.
template <class Value, simd::code Code>
struct coded : policy {
  using value = Value;
  using word = simd::word;
  static constexpr simd::code code = Code;
  static constexpr int origin = 0;  ///< packed code of the canonical code 0
  static constexpr index per_word = 32 / simd::bits_of(Code);
  /// True: every integer and every table entry is finite.
  static constexpr bool finite(value) { return true; }
};

/// Whether storage `S` keeps codes of this kind.
template <class S>
constexpr bool keeps(simd::code kind) {
  if constexpr (requires { S::code; })
    return S::code == kind;
  else
    return false;
}

/// Storage `S` whose products round their inputs to `A` first.
template <class S, class A>
struct with_compute : S {
  static_assert(!std::is_same_v<A, linnet::compute::bf16> || keeps<S>(simd::code::bf16),
                "linnet: compute::bf16 multiplies weights stored as storage::bf16");
  static_assert(
      !std::is_same_v<A, linnet::compute::int8> || (keeps<S>(simd::code::u8) && S::group == 0),
      "linnet: compute::int8 multiplies 8-bit integer weights with one scale per row or tensor");
  using compute = A;
};

}  // namespace storage

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace storage {

/// IEEE single precision: exact master weights.
struct f32 : real<float> {
  static constexpr const char* name = "f32";
  static value encode(double x) { return static_cast<float>(x); }
  static double decode(value x) { return x; }
};
/// IEEE double precision, for checks.
struct f64 : real<double> {
  static constexpr const char* name = "f64";
  static value encode(double x) { return x; }
  static double decode(value x) { return x; }
};

}  // namespace storage

LINNET_NAMESPACE_END
/// @file
/// Storage in ggml's blocks, which GGUF files hold: what is loaded has the file's codes and scales.

/// @file
/// Storage in small floating-point numbers: bf16, f16 and two of 8 bits.

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Small binary floating-point numbers; `Exponent` and `Fraction` count bits. Round to nearest,
/// ties to even; what is too large saturates if `Finite` (no infinities: the OCP e4m3), else
/// becomes infinite.
template <simd::code Code, class Value, int Exponent, int Fraction, bool Finite>
struct small_float : coded<Value, Code> {
  using value = Value;
  static value encode(double x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    constexpr unsigned sign_bit = 1u << (Exponent + Fraction);
    constexpr unsigned all_ones = sign_bit - 1, infinity = ((1u << Exponent) - 1) << Fraction;
    constexpr unsigned largest = Finite ? all_ones - 1 : infinity - 1;
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof bits);
    const unsigned sign = bits >> 63 ? sign_bit : 0u;
    const std::uint64_t magnitude = bits & ~(std::uint64_t{1} << 63);
    constexpr std::uint64_t not_finite = std::uint64_t{0x7ff} << 52;
    if (magnitude > not_finite) {  // a NaN, made quiet
      const auto payload =
          static_cast<unsigned>(magnitude >> (52 - Fraction)) & ((1u << Fraction) - 1);
      return static_cast<value>(sign |
                                (Finite ? all_ones : infinity | 1u << (Fraction - 1) | payload));
    }
    if (magnitude == not_finite) return static_cast<value>(sign | (Finite ? largest : infinity));
    // The exponent of the last place that the code has, no lower than a subnormal's.
    const int exponent = (std::max)(static_cast<int>(magnitude >> 52) - 1023, 1 - bias);
    const double steps = std::nearbyint(std::ldexp(std::abs(x), Fraction - exponent));
    // Steps beyond the fraction carry into the exponent by themselves.
    const double code = steps + static_cast<double>(exponent + bias - 1) * (1 << Fraction);
    const bool fits = code <= static_cast<double>(largest);
    return static_cast<value>(sign | (fits     ? static_cast<unsigned>(code)
                                      : Finite ? largest
                                               : infinity));
  }
  static constexpr bool finite(value x) {
    constexpr unsigned all_ones = (1u << (Exponent + Fraction)) - 1;
    constexpr unsigned infinity = ((1u << Exponent) - 1) << Fraction;
    return (static_cast<unsigned>(x) & all_ones) < (Finite ? all_ones : infinity);
  }
  static double decode(value x) {
    constexpr int bias = (1 << (Exponent - 1)) - 1;
    const auto bits = static_cast<unsigned>(x);
    const unsigned fraction = bits & ((1u << Fraction) - 1);
    const auto exponent = static_cast<int>(bits >> Fraction & ((1u << Exponent) - 1));
    const double sign = bits >> (Exponent + Fraction) & 1u ? -1 : 1;
    constexpr int top = (1 << Exponent) - 1, all_ones = (1 << Fraction) - 1;
    if (exponent == top && (!Finite || fraction == all_ones)) {
      // Assembled from bits, so that it survives -ffast-math.
      const std::uint64_t wide = std::uint64_t{0x7ff} << 52 | std::uint64_t{sign < 0} << 63 |
                                 std::uint64_t{fraction} << (52 - Fraction);
      double special = 0;
      __builtin_memcpy(&special, &wide, sizeof special);
      return special;
    }
    return sign * (exponent ? std::ldexp((1 << Fraction) + fraction, exponent - bias - Fraction)
                            : std::ldexp(fraction, 1 - bias - Fraction));
  }
};
/// bfloat16: the upper half of a float; range of float, 8 bits of precision.
struct bf16 : small_float<simd::code::bf16, simd::bf16_code, 8, 7, false> {
  static constexpr const char* name = "bf16";
};
/// IEEE half precision: 11 bits of precision up to 65504.
struct f16 : small_float<simd::code::f16, std::uint16_t, 5, 10, false> {
  static constexpr const char* name = "f16";
};
/// 8-bit floats of 4 bits precision, up to 448, with one scale per row that maps its largest
/// magnitude to 448 (Micikevicius et al. 2022).
struct fp8_e4m3 : small_float<simd::code::f8_e4m3, std::uint8_t, 4, 3, true> {
  static constexpr const char* name = "fp8_e4m3";
  static constexpr bool scaled = true;
  static constexpr double largest = 448;
};
/// 8-bit floats of 3 bits precision, up to 57344, with one scale per row likewise.
struct fp8_e5m2 : small_float<simd::code::f8_e5m2, std::uint8_t, 5, 2, false> {
  static constexpr const char* name = "fp8_e5m2";
  static constexpr bool scaled = true;
  static constexpr double largest = 57344;
};

}  // namespace storage

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Base of the storages in ggml's blocks: codes of 32 inputs with a scale, and in some a minimum,
/// in half precision. Scales have either sign, or are 0. They lie in memory as floats, which hold
/// them exactly.
template <class Value, simd::code Code>
struct ggml_block : coded<Value, Code> {
  using value = Value;
  static constexpr bool scaled = true, ggml = true;
  static constexpr index group = 32, per_value = Code == simd::code::u4 ? 2 : 1;

 protected:
  /// A scale as a block holds it; infinite beyond what a half reaches.
  static float half(float x) {
    return static_cast<float>(f16::decode(f16::encode(static_cast<double>(x))));
  }
  /// 1 / d; 0 for a scale that is too small, whose codes are all the same.
  static float inverse(float d) { return d != 0 && is_finite(1 / d) ? 1 / d : 0.0f; }
  /// x * y rounded to a float, also where the compiler would join it with a sum.
  static float product(float x, float y) {
    return static_cast<float>(static_cast<double>(x) * static_cast<double>(y));
  }
  /// A number from 0 on, rounded down to a code of 4 bits.
  static int nibble(float x) { return x < 15 ? static_cast<int>(x) : 15; }
  /// The number farthest from 0, of several the first.
  static float farthest(index n, const float* x) {
    float most = 0;
    for (index i = 0; i < n; ++i)
      if (std::abs(x[i]) > std::abs(most)) most = x[i];
    return most;
  }
};

/// ggml's Q8_0: 8-bit integers, x = scale * code, with one scale for each 32 inputs of a row.
struct q8_0 : ggml_block<std::int8_t, simd::code::u8> {
  static constexpr const char* name = "q8_0";
  static constexpr double largest = 127;
  static constexpr int origin = 128;
  static double decode(value x) { return x; }
  /// Rounds one block of finite numbers as llama.cpp's reference code does.
  static void round_block(index n, const float* x, value* codes, float& scale, float&) {
    const float d = std::abs(farthest(n, x)) / 127, steps = inverse(d);
    scale = half(d);
    for (index i = 0; i < n; ++i) codes[i] = static_cast<value>(std::round(product(x[i], steps)));
  }
};

/// ggml's Q4_0: 4-bit integers from -8 to 7, x = scale * code, with one scale for each 32 inputs of
/// a row. Two codes share a byte, the first in the low half.
struct q4_0 : ggml_block<std::uint8_t, simd::code::u4> {
  static constexpr const char* name = "q4_0";
  static constexpr double largest = 8;
  static constexpr int origin = 8;
  static double decode(value x) { return x < 8 ? x : x - 16; }
  /// Rounds one block of finite numbers as llama.cpp's reference code does.
  static void round_block(index n, const float* x, value* codes, float& scale, float&) {
    const float d = farthest(n, x) / -8, steps = inverse(d);
    scale = half(d);
    for (index i = 0; i < n; ++i)
      codes[i] = static_cast<value>(nibble(product(x[i], steps) + 8.5f) ^ 8);
  }
};

/// ggml's Q4_1: 4-bit integers from 0 to 15, x = scale * code + minimum, with one scale and minimum
/// for each 32 inputs of a row. Two codes share a byte, the first in the low half.
struct q4_1 : ggml_block<std::uint8_t, simd::code::u4> {
  static constexpr const char* name = "q4_1";
  static constexpr bool centred = true;
  static constexpr double largest = 15;
  static double decode(value x) { return x; }
  /// Rounds one block of finite numbers as llama.cpp's reference code does.
  static void round_block(index n, const float* x, value* codes, float& scale, float& minimum) {
    float least = x[0], most = x[0];
    for (index i = 0; i < n; ++i) {
      if (x[i] < least) least = x[i];
      if (x[i] > most) most = x[i];
    }
    const float d = (most - least) / 15, steps = inverse(d);
    scale = half(d);
    minimum = half(least);
    for (index i = 0; i < n; ++i)
      codes[i] = static_cast<value>(nibble(product(x[i] - least, steps) + 0.5f));
  }
};

}  // namespace storage

LINNET_NAMESPACE_END
/// @file
/// Storage in 4-bit integers.

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Symmetric 4-bit integers, |code| <= 7, with one scale for each `Group` inputs of a row. Two
/// codes share a byte, the first in the low half.
template <index Group = 32>
struct int4 : coded<std::uint8_t, simd::code::u4> {
  static_assert(Group > 0 && Group % 8 == 0,
                "linnet::storage::int4: groups are a multiple of 8 inputs");
  static constexpr const char* name = "int4";
  static constexpr bool scaled = true;
  static constexpr index group = Group, per_value = 2;
  static constexpr double largest = 7;
  static constexpr int origin = 8;
  /// One code, in the low half of the byte.
  static value encode(double x) {
    return static_cast<value>(static_cast<int>(nearest_whole(x, -7, 7)) & 15);
  }
  static double decode(value x) { return x < 8 ? x : x - 16; }
};

}  // namespace storage

LINNET_NAMESPACE_END
/// @file
/// Storage in 8-bit integers.

LINNET_NAMESPACE_BEGIN

namespace storage {

/// 8-bit integers (Jacob et al. 2018), round half to even. Symmetric: |code| <= 127, scale = max|x|
/// / 127. Asymmetric: codes 0 to 255 and a zero point. `Group` counts the inputs that share a
/// scale.
template <granularity G, symmetry Y = symmetry::symmetric, index Group = 64>
struct int8_per : coded<std::conditional_t<Y == symmetry::symmetric, std::int8_t, std::uint8_t>,
                        simd::code::u8> {
  static_assert(Group > 0 && Group % 8 == 0,
                "linnet::storage::int8_per: groups are a multiple of 8 inputs");
  static constexpr bool scaled = true, centred = Y == symmetry::asymmetric,
                        per_tensor = G == granularity::tensor;
  static constexpr index group = G == granularity::group ? Group : 0;
  static constexpr double largest = centred ? 255 : 127;
  static constexpr int origin = centred ? 0 : 128;
  using value = typename int8_per::coded::value;
  static constexpr const char* name = centred ? (per_tensor ? "int8_tensor_asymmetric"
                                                 : group    ? "int8_group_asymmetric"
                                                            : "int8_asymmetric")
                                              : (per_tensor ? "int8_tensor"
                                                 : group    ? "int8_group"
                                                            : "int8");
  static value encode(double x) {
    return static_cast<value>(nearest_whole(x, centred ? 0.0 : -127.0, largest));
  }
  static double decode(value x) { return x; }
};
/// 8-bit integers, symmetric, one scale per output row.
struct int8 : int8_per<granularity::row> {};

}  // namespace storage

LINNET_NAMESPACE_END
/// @file
/// A matrix as it is stored, and rounding to a storage type.

LINNET_NAMESPACE_BEGIN

/// Values that hold one canonical row of `columns` codes.
template <class S>
constexpr index row_values(index columns) {
  return (columns + S::per_value - 1) / S::per_value;
}
/// Scales (and zero points) of one row of `columns` inputs.
template <class S>
constexpr index row_scales(index columns) {
  if constexpr (S::group > 0)
    return (columns + S::group - 1) / S::group;
  else
    return S::scaled ? 1 : 0;
}
/// Which of a row's scales belongs to column `j`.
template <class S>
constexpr index group_of(index j) {
  return S::group == 0 ? 0 : j / S::group;
}
/// Whether a number is scale * code + minimum, with minima in place of zero points.
template <class S>
inline constexpr bool has_minima = (S::ggml && S::centred);
/// Bytes of an [rows, columns] matrix in storage `S`, scales and zero points included.
template <class S>
constexpr index matrix_bytes(index rows, index columns) {
  return rows * (row_values<S>(columns) * static_cast<index>(sizeof(typename S::value)) +
                 row_scales<S>(columns) * static_cast<index>(sizeof(float)) * (S::centred ? 2 : 1));
}

/// A canonical matrix [rows, columns] in storage `S`: what files, optimizers and transformations
/// see.
template <class S>
struct matrix_ref {
  using storage = S;
  typename S::value* data = nullptr;  ///< [rows, row_values]
  float* scales = nullptr;            ///< [rows, row_scales] where the storage is scaled
  float* zeros = nullptr;             ///< likewise where it is centred: zero points or minima

  /// The code at row `r`, column `j`, in the low bits.
  typename S::value code(index r, index j, index columns) const {
    const typename S::value x = data[r * row_values<S>(columns) + j / S::per_value];
    if constexpr (S::per_value == 2)
      return j % 2 ? x >> 4 : x & 15;
    else
      return x;
  }
  /// Stores a code; the codes of a row come in ascending order.
  void set_code(index r, index j, index columns, typename S::value code) const {
    typename S::value& x = data[r * row_values<S>(columns) + j / S::per_value];
    if constexpr (S::per_value == 2)
      x = j % 2 ? static_cast<typename S::value>(x | code << 4) : code;
    else
      x = code;
  }
  /// The number at row `r`, column `j`.
  double at(index r, index j, index columns) const {
    double x = S::decode(code(r, j, columns));
    if constexpr (S::scaled) {
      const index g = r * row_scales<S>(columns) + group_of<S>(j);
      if constexpr (S::centred && !S::ggml) x -= static_cast<double>(zeros[g]);
      x *= static_cast<double>(scales[g]);
      if constexpr (has_minima<S>) x += static_cast<double>(zeros[g]);
    }
    return x;
  }
};

namespace detail {

/// Scale (and zero point) for numbers between `low` and `high`; 1 if all are zero.
template <class S>
void fit_range(double low, double high, float& scale, float* zero) {
  using numbers = std::numeric_limits<float>;
  const double range = S::centred ? (std::max)(high, 0.0) - (std::min)(low, 0.0)
                                  : (std::max)(std::abs(low), std::abs(high));
  scale = static_cast<float>(range / S::largest);
  // Rounding moves a subnormal scale far, and the largest one beyond what a float holds.
  const double reached = static_cast<double>(scale) * S::largest;
  if (scale < (numbers::min)() && reached < range) scale = std::nextafter(scale, 1.0f);
  if (!S::centred && reached > static_cast<double>((numbers::max)()))
    scale = std::nextafter(scale, 0.0f);
  if (!(scale > 0)) scale = 1;
  if constexpr (S::centred)
    *zero = static_cast<float>((std::clamp)(
        std::nearbyint(-(std::min)(low, 0.0) / static_cast<double>(scale)), 0.0, S::largest));
}

/// Rounds `x`[rows, columns] to storage `S`. What shares a scale with a number that is not finite
/// gets the scale NaN.
template <class S, class T>
void encode_matrix(index rows, index columns, const T* x, const matrix_ref<S>& to) {
  const index per_row = row_scales<S>(columns);
  [[maybe_unused]] const auto range = [&](const T* from, index n, index at) {
    if constexpr (S::scaled) {
      double low = 0, high = 0;
      bool finite = true;
      for (index j = 0; j < n; ++j) {
        finite = finite && is_finite(from[j]);
        low = (std::min)(low, static_cast<double>(from[j]));
        high = (std::max)(high, static_cast<double>(from[j]));
      }
      if (finite)
        fit_range<S>(low, high, to.scales[at], S::centred ? to.zeros + at : nullptr);
      else
        to.scales[at] = std::numeric_limits<float>::quiet_NaN();
    }
  };
  if constexpr (S::per_tensor) range(x, rows * columns, 0);
  for (index r = 0; r < rows; ++r) {
    const T* const row = x + r * columns;
    if constexpr (S::per_tensor) {
      to.scales[r] = to.scales[0];
      if constexpr (S::centred) to.zeros[r] = to.zeros[0];
    } else if constexpr (S::scaled) {
      for (index g = 0; g < per_row; ++g) {
        const index first = g * S::group;
        range(row + first, S::group ? (std::min)(S::group, columns - first) : columns,
              r * per_row + g);
      }
    }
    for (index j = 0; j < columns; ++j) {
      double v = static_cast<double>(row[j]);
      if constexpr (S::scaled) {
        const index g = r * per_row + group_of<S>(j);
        const auto scale = static_cast<double>(to.scales[g]);
        v /= scale;
        if constexpr (S::centred) {
          // No further than a float reaches.
          const double most =
              std::floor(static_cast<double>((std::numeric_limits<float>::max)()) / scale);
          v = storage::nearest_whole(v, -most, most) + static_cast<double>(to.zeros[g]);
        }
      }
      to.set_code(r, j, columns, S::encode(v));
    }
  }
}

/// Rounds `x`[rows, columns] to ggml's blocks, of which a row's last may be shorter. A block
/// with a number that is not finite gets the scale NaN.
template <class S, class T>
requires(S::ggml) void encode_matrix(index rows, index columns, const T* x,
                                     const matrix_ref<S>& to) {
  for (index r = 0; r < rows; ++r)
    for (index j0 = 0; j0 < columns; j0 += S::group) {
      const index n = (std::min)(S::group, columns - j0);
      float numbers[S::group] = {}, scale = std::numeric_limits<float>::quiet_NaN(), minimum = 0;
      typename S::value codes[S::group] = {};
      bool usable = true;
      for (index j = 0; j < n; ++j) {
        numbers[j] = static_cast<float>(x[r * columns + j0 + j]);
        usable = usable && is_finite(numbers[j]);
      }
      if (usable) S::round_block(n, numbers, codes, scale, minimum);
      const index at = r * row_scales<S>(columns) + j0 / S::group;
      to.scales[at] = scale;
      if constexpr (S::centred) to.zeros[at] = minimum;
      for (index j = 0; j < n; ++j) to.set_code(r, j0 + j, columns, codes[j]);
    }
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Storage in 4-bit codes of normal quantiles.

LINNET_NAMESPACE_BEGIN

namespace storage {

/// 4-bit codes of normal quantiles with one scale for each 64 inputs of a row (Dettmers et al.
/// 2023). Two codes share a byte, the first in the low half.
struct nf4 : coded<std::uint8_t, simd::code::nf4> {
  static constexpr const char* name = "nf4";
  static constexpr bool scaled = true;
  static constexpr index group = 64, per_value = 2;
  static constexpr double largest = 1;
  /// The nearest of the 16 values; that of 0 for a NaN.
  static value encode(double x) {
    if (!is_finite(x)) return static_cast<value>(is_nan(x) ? 7 : x > 0 ? 15 : 0);
    int best = 0;
    for (int i = 1; i < 16; ++i)
      if (std::abs(x - decode(static_cast<value>(i))) <
          std::abs(x - decode(static_cast<value>(best))))
        best = i;
    return static_cast<value>(best);
  }
  static double decode(value x) { return static_cast<double>(simd::nf4_values[x & 15]); }
};

}  // namespace storage

LINNET_NAMESPACE_END
/// @file
/// Storage that differs between the matrices of a model, by what each is for.

#include <tuple>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// The uses of a matrix that storage tells apart.
enum class part {
  any,  ///< none of the others
  embedding,
  head,
  attention_q,
  attention_k,
  attention_v,
  attention_o,
  ffn_gate,
  ffn_up,
  ffn_down
};

/// Storage `S` for some parts of a model; an argument of per_role<>.
template <class S, part... Parts>
struct of_parts {
  static_assert(std::is_base_of_v<policy, S>,
                "linnet::storage::per_role: what is given for a role is a storage type, such as "
                "storage::embedding<storage::int8>");
  using stored = S;
  template <part P>
  static constexpr bool has = ((P == Parts) || ...);
};
/// Storage of the token embedding; of a tied model also what the head reads.
template <class S>
using embedding = of_parts<S, part::embedding>;
/// Storage of an untied output head.
template <class S>
using head = of_parts<S, part::head>;
/// Storage of the query projections.
template <class S>
using attention_q = of_parts<S, part::attention_q>;
/// Storage of the key projections.
template <class S>
using attention_k = of_parts<S, part::attention_k>;
/// Storage of the value projections.
template <class S>
using attention_v = of_parts<S, part::attention_v>;
/// Storage of the output projections of attention.
template <class S>
using attention_o = of_parts<S, part::attention_o>;
/// Storage of the gates of gated feed-forwards.
template <class S>
using ffn_gate = of_parts<S, part::ffn_gate>;
/// Storage of the maps into the hidden width of feed-forwards.
template <class S>
using ffn_up = of_parts<S, part::ffn_up>;
/// Storage of the maps out of the hidden width of feed-forwards.
template <class S>
using ffn_down = of_parts<S, part::ffn_down>;

/// The name of a storage type in files and errors.
template <class S>
std::string name_of() {
  if constexpr (requires { S::mixes; })
    return S::name();
  else
    return S::name;
}

/// Storage of a model whose parts are stored in several ways: that of the rest, then of each part
/// in order. It is spelled per_role<>.
template <class Rest, class... Parts>
struct mixed : policy {
  static constexpr bool mixes = true;
  using rest = Rest;
  /// Calls f(std::type_identity<S>{}) for the storage of the rest and of each part.
  template <class F>
  static constexpr void each(F&& f) {
    f(std::type_identity<Rest>{});
    (f(std::type_identity<Parts>{}), ...);
  }
  // Of all of them, the answer that asks for more care.
  static constexpr bool scaled = (Rest::scaled || ... || Parts::scaled);
  static constexpr index per_word = (std::max)({Rest::per_word, Parts::per_word...});
  using value = std::conditional_t<per_word == 1, typename Rest::value, void>;
  /// The storage of the rest, then the parts that are stored otherwise.
  static std::string name() {
    std::string all = described<Rest>();
    const std::string parts[] = {described<Parts>()...};
    constexpr const char* words[] = {"embedding",   "head",        "attention_q",
                                     "attention_k", "attention_v", "attention_o",
                                     "ffn_gate",    "ffn_up",      "ffn_down"};
    constexpr bool differs[] = {!std::is_same_v<Rest, Parts>...};
    for (std::size_t i = 0; i < sizeof...(Parts); ++i)
      if (differs[i]) all += std::string(", ") + words[i] + ' ' + parts[i];
    return all;
  }

 private:
  template <class S>
  static std::string described() {
    return S::group > 0 ? S::name + (" group " + std::to_string(S::group)) : S::name;
  }
};

}  // namespace storage

namespace detail {

template <class Entry>
inline constexpr bool is_role = requires {
  typename Entry::stored;
};

/// The storage that the last of `Entries` gives a part, or `Default`.
template <storage::part P, class Default, class... Entries>
struct storage_for {
  using type = Default;
};
template <storage::part P, class Default, class Entry, class... Entries>
struct storage_for<P, Default, Entry, Entries...> : storage_for<P, Default, Entries...> {};
template <storage::part P, class Default, class Entry, class... Entries>
requires(Entry::template has<P>) struct storage_for<P, Default, Entry, Entries...>
    : storage_for<P, typename Entry::stored, Entries...> {
};

/// Different types in a list.
template <class... S>
consteval int count_types() {
  int count = 0;
  std::size_t at = 0;
  const auto first = [&]<class One>(std::type_identity<One>) {
    std::size_t before = 0;
    bool met = false;
    ((met = met || (before++ < at && std::is_same_v<S, One>)), ...);
    count += !met;
    ++at;
  };
  (first(std::type_identity<S>{}), ...);
  return count;
}

/// One storage type where all parts agree, else a mixed one.
template <class Rest, class... Parts>
struct mix_storage {
  static constexpr int types = count_types<Rest, Parts...>();
  using type =
      typename std::conditional_t<types == 1, std::type_identity<Rest>,
                                  std::type_identity<storage::mixed<Rest, Parts...>>>::type;
};
template <class Default, class... Entries>
struct mix_roles {
  template <storage::part P>
  using of = typename storage_for<P, Default, Entries...>::type;
  using mix = mix_storage<Default, of<storage::part::embedding>, of<storage::part::head>,
                          of<storage::part::attention_q>, of<storage::part::attention_k>,
                          of<storage::part::attention_v>, of<storage::part::attention_o>,
                          of<storage::part::ffn_gate>, of<storage::part::ffn_up>,
                          of<storage::part::ffn_down>>;
};
/// Words for arguments of per_role<> that do not fit; true for others.
template <class Default, class... Entries>
constexpr bool per_role_fits() {
  if constexpr (!(is_role<Entries> && ...)) {
    static_assert(
        never<Default, Entries...>,
        "linnet::storage::per_role: what follows the first argument says which role it is "
        "for, such as storage::embedding<storage::int8>");
    return false;
  } else {
    constexpr bool few = mix_roles<Default, Entries...>::mix::types <= 4;
    static_assert(few,
                  "linnet::storage::per_role: at most four different storage types in one model; "
                  "each has kernels of its own");
    return few;
  }
}
/// The storage of per_role<>, or what stands in for it where the arguments do not fit.
template <bool Fits, class Default, class... Entries>
struct make_per_role : mix_roles<Default, Entries...>::mix {};
template <class Default, class... Entries>
struct make_per_role<false, Default, Entries...> {
  using type = Default;
};

/// The storage of a model that is spelled `S`: of a tied one the head's is the embedding's.
template <bool Tied, class S>
struct model_storage {
  using type = S;
  static constexpr bool fits = true;  ///< whether a tied head is given no other storage
};
template <class Rest, class Embedding, class Head, class... Parts>
struct model_storage<true, storage::mixed<Rest, Embedding, Head, Parts...>> {
  using type = typename mix_storage<Rest, Embedding, Embedding, Parts...>::type;
  static constexpr bool fits = std::is_same_v<Head, Embedding> || std::is_same_v<Head, Rest>;
};

/// The storage of a part in a model stored as `S`; part::any passes `S` on.
template <class S, storage::part P>
struct part_storage {
  using type = S;
};
template <storage::part P, class Rest, class... Parts>
requires(P != storage::part::any) struct part_storage<storage::mixed<Rest, Parts...>, P> {
  using type = std::tuple_element_t<static_cast<std::size_t>(P), std::tuple<Rest, Parts...>>;
};
/// The storage of a matrix that is no part of its own.
template <class S>
struct rest_storage {
  using type = S;
};
template <class S>
requires requires { S::mixes; }
struct rest_storage<S> {
  using type = typename S::rest;
};

}  // namespace detail

namespace storage {

/// Storage `Default` for all matrices but those that `Entries` name, such as per_role<int4<>,
/// embedding<int8>, head<int8>>. Of two entries for one role the last counts. At most four
/// different storage types. Where all are the same it is that type itself.
template <class Default, class... Entries>
using per_role =
    typename linnet::detail::make_per_role<linnet::detail::per_role_fits<Default, Entries...>(),
                                           Default, Entries...>::type;

/// The storage of a part of a model stored as `S`; part::any is all of `S`.
template <class S, part P>
using at = typename linnet::detail::part_storage<S, P>::type;
/// The storage of a matrix that is no part of its own, in a model stored as `S`.
template <class S>
using single = typename linnet::detail::rest_storage<S>::type;

}  // namespace storage

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Operations on plain arrays, value and derivative side by side. Called by every thread of a team
/// with the same arguments; each computes its share of the outputs and all meet at the end.
namespace ops {

using simd::panel_width;

/// A weight matrix W[N, K] packed for products: panels of 32 output features, each K rows of
/// numbers or of words of codes (see simd::word). The last panel is padded. The layout is the same
/// at every instruction-set level and can be inverted exactly.
template <class T, class S>
struct packed_matrix {
  using storage = S;
  using word = typename S::word;
  const word* panels = nullptr;
  const float* scales = nullptr;  ///< [panels, row_scales, 32] when the storage is scaled
  const float* zeros = nullptr;   ///< likewise when it is centred: zero points or minima
  const word* rows = nullptr;     ///< what backward reads, only while training: see matmul_dx()

  /// Rows of words in a panel of `k` inputs.
  static constexpr index depth(index k) { return (k + S::per_word - 1) / S::per_word; }
  /// Words that the panels of an [n, k] matrix occupy.
  static constexpr index size(index n, index k) { return round_up(n, panel_width) * depth(k); }
  /// Scales of an [n, k] matrix, padded like the panels.
  static constexpr index scales_size(index n, index k) {
    return round_up(n, panel_width) * row_scales<S>(k);
  }
  /// Where the scale of W(n, j) is.
  static constexpr index scale_at(index n, index j, index k) {
    return (n / panel_width * row_scales<S>(k) + group_of<S>(j)) * panel_width + n % panel_width;
  }
  /// The canonical code of W(n, j), in the low bits.
  typename S::value code(index n, index j, index k) const {
    const word w =
        panels[(n / panel_width * depth(k) + j / S::per_word) * panel_width + n % panel_width];
    if constexpr (S::per_word == 1) {
      return w;
    } else {
      constexpr auto bits = static_cast<unsigned>(simd::bits_of(S::code));
      const auto shift = static_cast<unsigned>(j % S::per_word) * bits;
      return static_cast<typename S::value>(((w >> shift) - S::origin) & ((1u << bits) - 1));
    }
  }
  /// W(n, j).
  T at(index n, index j, index k) const {
    auto x = static_cast<T>(S::decode(code(n, j, k)));
    if constexpr (S::scaled) {
      const index g = scale_at(n, j, k);
      if constexpr (S::centred && !S::ggml) x -= static_cast<T>(zeros[g]);
      x *= static_cast<T>(scales[g]);
      if constexpr (has_minima<S>) x += static_cast<T>(zeros[g]);
    }
    return x;
  }
};

/// Fills the panels and scales of `to` from W[n, k], this thread's share of the team.
template <class T, class S>
void pack(const execution& on, index n, index k, const matrix_ref<S>& from,
          const packed_matrix<T, S>& to) {
  using matrix = packed_matrix<T, S>;
  using word = typename S::word;
  const index depth = matrix::depth(k), groups = row_scales<S>(k);
  on.threads.each(round_up(n, panel_width) / panel_width, [&](index panel) {
    const index first = panel * panel_width, count = (std::min)(panel_width, n - first);
    word* const out = const_cast<word*>(to.panels) + first * depth;
    for (index i = 0; i < panel_width; ++i)
      for (index d = 0; d < depth; ++d) {
        word w{};
        if constexpr (S::per_word == 1) {
          if (i < count) w = from.data[(first + i) * k + d];
        } else {
          constexpr auto bits = static_cast<unsigned>(simd::bits_of(S::code));
          for (index j = 0; j < S::per_word && i < count; ++j) {
            const index column = d * S::per_word + j;
            const auto code =
                column < k ? static_cast<unsigned>(from.code(first + i, column, k)) : 0u;
            w |= ((code + S::origin) & ((1u << bits) - 1)) << (static_cast<unsigned>(j) * bits);
          }
        }
        out[d * panel_width + i] = w;
      }
    for (index i = 0; S::scaled && i < panel_width; ++i)
      for (index g = 0; g < groups; ++g) {
        const index at = (panel * groups + g) * panel_width + i;
        const bool real = i < count;
        const_cast<float*>(to.scales)[at] = real ? from.scales[(first + i) * groups + g] : 0.0f;
        if constexpr (S::centred)
          const_cast<float*>(to.zeros)[at] = real ? from.zeros[(first + i) * groups + g] : 0.0f;
      }
  });
}

/// Fills the panels of `to` from f32 master weights, for training in bf16. Also fills `rows`: pairs
/// of output features, [ceil(n / 2), k], for the derivative by the inputs.
template <class S>
void pack(const execution& on, index n, index k, const matrix_ref<storage::f32>& from,
          const packed_matrix<float, S>&
              to) requires(std::is_same_v<typename S::compute, compute::bf16>) {
  using matrix = packed_matrix<float, S>;
  on.threads.each((n + panel_width - 1) / panel_width, [&](index panel) {
    const index first = panel * panel_width, count = (std::min)(panel_width, n - first);
    auto* const out = const_cast<simd::word*>(to.panels) + first * matrix::depth(k);
    constexpr index stretch = 128;
    simd::word codes[stretch / 2];
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index i = 0; i < count; ++i) {
        const float* const row = from.data + (first + i) * k;
        for (index j = 0; j < k; j += stretch) {
          const index some = (std::min)(stretch, k - j);
          K::template to_bf16<float>(some, row + j, reinterpret_cast<simd::bf16_code*>(codes));
          for (index d = 0; d < matrix::depth(some); ++d)
            out[(j / 2 + d) * panel_width + i] = codes[d];
        }
        if (i % 2 == 0)
          K::template to_bf16_pairs<float>(k, row, i + 1 < count ? row + k : nullptr,
                                           const_cast<simd::word*>(to.rows) + (first + i) / 2 * k);
      }
    });
  });
}

/// The canonical matrix that `from` was packed from.
template <class T, class S>
void unpack(index n, index k, const packed_matrix<T, S>& from, const matrix_ref<S>& to) {
  const index groups = row_scales<S>(k);
  for (index i = 0; i < n; ++i) {
    for (index j = 0; j < k; ++j) to.set_code(i, j, k, from.code(i, j, k));
    for (index g = 0; g < groups; ++g) {
      const index at = from.scale_at(i, g * S::group, k);
      to.scales[i * groups + g] = from.scales[at];
      if constexpr (S::centred) to.zeros[i * groups + g] = from.zeros[at];
    }
  }
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// The key of all dropout masks of one training step, and the rate.
struct dropout_key {
  std::uint64_t seed = 0;  ///< of the run
  std::uint64_t step = 0;  ///< optimizer steps taken so far
  index sample = 0;        ///< index in the whole batch of this call's first row
  double rate = 0;         ///< probability of dropping; 0 turns dropout off
  double layer_rate = 0;   ///< probability that a sample skips the last layer of a stack; earlier
                           ///< ones less, see ops::layer_mask; 0 turns layer dropout off
};

namespace ops {

/// Multiplies `n` values of one sample, from position `first` on, with 0 or 1 / (1 - rate). The
/// values of `other`, unless it is null, are multiplied likewise.
template <class Kernels, class T>
void drop(Kernels, const dropout_key& key, index sample, int dropout_id, index first, index n, T* x,
          T* other = nullptr) {
  if (key.rate <= 0) return;
  Kernels::template drop<T>(key.seed ^ (key.step * 0x9E3779B97F4A7C15ull),
                            static_cast<std::uint64_t>(key.sample + sample) << 24 ^
                                static_cast<std::uint64_t>(dropout_id),
                            static_cast<std::uint32_t>(key.rate * 4294967296.0),
                            static_cast<T>(1.0 / (1.0 - key.rate)), first, n, x, other);
}

/// x *= mask for [batch, length, width] values, in place; also its own derivative. `T` float or
/// double.
template <class T>
void dropout(const execution& on, const dropout_key& key, int dropout_id, index batch, index length,
             index width, T* x) {
  if (key.rate <= 0) return;
  on.threads.each(batch * length, [&](index row) {
    simd::dispatch(on.level, [&](auto kernels) {
      drop(kernels, key, row / length, dropout_id, row % length * width, width, x + row * width);
    });
  });
}

/// Relative rate of layer dropout (LayerSkip, Elhoushi et al. 2024): D(l) = 2^(l / (L - 1)) - 1. It
/// is 0 in the first layer and 1 in the last. A layer alone is never dropped.
inline double layer_depth(index layer, index layers) {
  return layers > 1 ? std::exp2(static_cast<double>(layer) / static_cast<double>(layers - 1)) - 1
                    : 0;
}

/// Which samples skip one layer in a training step: each with probability
/// key.layer_rate * layer_depth(), drawn once for all that the layer does. Nothing is rescaled.
class layer_mask {
 public:
  /// Mask of layer `layer` of `layers`; `dropout_id` tells stacks apart.
  layer_mask(const dropout_key& key, int dropout_id, index layer, index layers)
      : key_(key), dropout_id_(dropout_id), layer_(layer) {
    if (key.layer_rate > 0)
      limit_ = static_cast<std::uint32_t>(key.layer_rate * layer_depth(layer, layers) * 0x1p32);
  }
  /// Whether a sample may skip the layer.
  explicit operator bool() const { return limit_ > 0; }
  /// Whether a sample of this call skips it.
  bool drops(index sample) const {
    if (limit_ == 0) return false;
    const std::uint64_t stream = key_.seed ^ (key_.step * 0x9E3779B97F4A7C15ull);
    const std::uint64_t where = static_cast<std::uint64_t>(key_.sample + sample) << 24 ^
                                static_cast<std::uint64_t>(dropout_id_);
    // Counters from the end: the values of a dropout id count from the start.
    return philox(stream, where, ~static_cast<std::uint64_t>(layer_))[0] < limit_;
  }
  /// Whether all samples [0, batch) skip it.
  bool drops_all(index batch) const {
    index b = 0;
    while (b < batch && drops(b)) ++b;
    return b == batch;
  }
  /// y = x for the samples that skip the layer; x, y [batch, length, width].
  template <class T>
  void pass(const team& threads, index batch, index length, index width, const T* x, T* y) const {
    threads.each(batch * length, [&](index row) {
      if (drops(row / length)) std::copy_n(x + row * width, width, y + row * width);
    });
  }
  /// Derivative of skipping: dx += dy for the samples that skip the layer. rest = dy for the others
  /// and 0 for those; `rest` may be dy.
  template <class T>
  void pass_backward(const team& threads, index batch, index length, index width, const T* dy,
                     T* dx, T* rest) const {
    threads.each(batch * length, [&](index row) {
      const T* const from = dy + row * width;
      T *const to = dx + row * width, *const kept = rest + row * width;
      if (drops(row / length)) {
        for (index j = 0; j < width; ++j) to[j] += from[j];
        std::fill_n(kept, width, T(0));
      } else if (kept != from) {
        std::copy_n(from, width, kept);
      }
    });
  }

 private:
  dropout_key key_;
  int dropout_id_;
  index layer_;
  std::uint32_t limit_ = 0;
};

}  // namespace ops

LINNET_NAMESPACE_END
/// @file
/// Layout of keys and values in memory, as attention reads them.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Where the tokens of paged caches lie: numbers of blocks in a pool that all sequences share.
struct page_tables {
  const std::int32_t* tables = nullptr;  ///< [batch, size] blocks of each sequence, or null
  index size = 0;                        ///< blocks of the longest sequence
};

/// Keys or values of all sequences of a call: [batch, tokens, kv_heads, slot]; the cache of a
/// session or the output of a linear map.
template <class Code>
struct kv_rows {
  const Code* data = nullptr;
  index tokens = 0;               ///< from sequence to sequence
  index stride = 0;               ///< from token to token
  index slot = 0;                 ///< from head to head
  const float* scales = nullptr;  ///< of codes, [batch, tokens, kv_heads], or null
  index fixed = 0;                ///< rows in front of a ring
  index ring = 0;                 ///< tokens after which rows are used again; 0 for never
  page_tables pages{};

  constexpr bool paged() const { return pages.tables != nullptr; }
  /// One head of one sequence.
  constexpr simd::token_rows<Code> of(index b, index head) const {
    return {data + (paged() ? 0 : b * tokens * stride) + head * slot, stride, fixed, ring,
            paged() ? pages.tables + b * pages.size : nullptr};
  }
  /// The scale of row `place` of head `head` of sequence `b`.
  constexpr const float& scale(index b, index place, index head) const {
    return scales[((paged() ? 0 : b * tokens) + place) * (stride / slot) + head];
  }
  /// out[c * step] = number c of the head's h in row `place`, for a query in block `view` of
  /// tokens. The row holds token `j`.
  template <class T>
  void load(index b, index head, index /*j*/, index place, index h, T* out, index step,
            index /*view*/) const {
    const Code* const row = data + ((paged() ? 0 : b * tokens) + place) * stride + head * slot;
    const T factor = scales ? static_cast<T>(scale(b, place, head)) : T(1);
    for (index c = 0; c < h; ++c) out[c * step] = factor * number<T>(row[c]);
  }
  /// A stored number, without its scale.
  template <class T>
  static T number(Code x) {
    if constexpr (std::is_same_v<Code, simd::bf16_code>) {
      const auto bits = static_cast<std::uint32_t>(x) << 16;
      float y = 0;
      __builtin_memcpy(&y, &bits, sizeof y);
      return y;
    } else {
      return static_cast<T>(x);
    }
  }
  /// Whether tokens are numbers that follow each other in memory.
  constexpr bool plain() const { return !scales && !ring && !paged(); }
};

/// Two 4-bit codes, x = scale * (code - 8), the first in the low half.
enum class int4_code : std::uint8_t {};

/// Keys or values in 4 bits. Values have one scale for each head of each token. Keys have one for
/// each channel of a block of tokens (Hooper et al. 2024). A query sees the keys of its own block
/// as they were given and those of earlier blocks rounded. How the text was cut into calls makes no
/// difference.
template <>
struct kv_rows<int4_code> {
  const int4_code* data = nullptr;  ///< values [batch, tokens, heads, (h + 1) / 2],
                                    ///< keys [batch, blocks, heads, h, token_block / 2]
  index tokens = 0;                 ///< of each sequence, whole blocks
  index heads = 0, width = 0;       ///< heads of `width` numbers
  bool keys = false;
  const float* scales = nullptr;  ///< values [batch, tokens, heads], keys [batch, blocks, heads, h]
  index fixed = 0, ring = 0;
  const float* newest = nullptr;  ///< keys: [batch, heads, newest_blocks, token_block, h] as given
  const float* fresh = nullptr;   ///< keys of this call, [batch, fresh_length, heads, h], or null
  index fresh_length = 0;
  const index* past = nullptr;  ///< [batch] tokens before this call; null for none
  /// Blocks that stay exact: the newest, and the one that tokens may be taken back into.
  static constexpr index newest_blocks = 2;

  /// Where tokens are.
  constexpr simd::token_rows<int4_code> of(index, index) const { return {data, 0, fixed, ring}; }
  constexpr bool plain() const { return false; }
  /// Code `i` of those that begin at `at`, from -7 to 7.
  constexpr int code(index at, index i) const {
    const auto both = static_cast<unsigned>(data[at + i / 2]);
    return static_cast<int>(i % 2 ? both >> 4 : both & 15u) - 8;
  }
  /// Where the first channel's codes of a block of keys begin, and its scale.
  constexpr index block_at(index b, index head, index place) const {
    return ((b * tokens + place) / simd::token_block * heads + head) * width;
  }
  /// Where the newest keys of token `j`'s block begin.
  constexpr index newest_at(index b, index head, index j) const {
    const index block = (b * heads + head) * newest_blocks + j / simd::token_block % newest_blocks;
    return block * simd::token_block * width;
  }
  /// The key of token `j` as it was given: in this call, or among the newest before.
  const float* given(index b, index head, index j) const {
    const index before = past ? past[b] : 0;
    if (fresh && j >= before)
      return fresh + ((b * fresh_length + j - before) * heads + head) * width;
    return newest + newest_at(b, head, j) + j % simd::token_block * width;
  }
  /// out[c * step] = number c of the head's in row `place`, for a query in block `view` of tokens.
  /// The row holds token `j`. A query in block -1 sees only rounded keys.
  template <class T>
  void load(index b, index head, index j, index place, index h, T* out, index step,
            index view) const {
    constexpr index half = simd::token_block / 2;
    if (keys && j / simd::token_block == view) {
      const float* const row = given(b, head, j);
      for (index c = 0; c < h; ++c) out[c * step] = static_cast<T>(row[c]);
      return;
    }
    const index t = j % simd::token_block;
    const index at = keys ? block_at(b, head, place) : (b * tokens + place) * heads + head;
    for (index c = 0; c < h; ++c)
      out[c * step] =
          keys ? static_cast<T>(scales[at + c]) * static_cast<T>(code((at + c) * half, t))
               : static_cast<T>(scales[at]) * static_cast<T>(code(at * ((h + 1) / 2), c));
  }
};

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Layers [first, last) of a stack.
struct layer_range {
  index first = 0;
  index last = index{1} << 48;
  bool head = true;  ///< whether the model's final norm and head follow

  /// Whether layer `l` is one of them.
  constexpr bool holds(index l) const { return first <= l && l < last; }
};

/// A hook that sees the stream between the layers of a stack.
template <class T>
struct layer_hook {
  const void* object = nullptr;
  void (*call)(const void* object, index layer, const T* x, T* dx) = nullptr;

  /// Calls f(layer, x, dx) for each layer but the last. x[rows, width] is the output of `layer`,
  /// which the next one reads. In backward, dx is its gradient so far, to which f may add;
  /// otherwise dx is null. The last layer's output is not shown.
  template <class F>
  static layer_hook of(const F& f) {
    return {&f, [](const void* self, index layer, const T* x, T* dx) {
              (*static_cast<const F*>(self))(layer, x, dx);
            }};
  }
  /// Shows the hook, if there is one, the input of layer `next`.
  void operator()(index next, const T* x, T* dx) const {
    if (call && next > 0) call(object, next - 1, x, dx);
  }
};

/// Place of a call in a stack of layers.
template <class T>
struct stack_place {
  index layer = 0;                        ///< number of the running layer
  const ops::layer_mask* mask = nullptr;  ///< samples that skip it, or null
  layer_range layers{};                   ///< layers that run; all of them in training
  layer_hook<T> hook{};                   ///< is shown the stream between layers
};

/// Output of the encoder, which cross-attention reads.
template <class T>
struct encoder_memory {
  const T* states = nullptr;       ///< [batch * length, d_model]
  T* d_states = nullptr;           ///< their gradient
  index length = 0;                ///< padded tokens of each sequence
  const index* lengths = nullptr;  ///< valid tokens of each sequence, or null when all are
  bool cached = false;             ///< their keys and values are in the cache already

  /// Number of valid tokens of sequence `b`.
  index length_of(index b) const { return lengths ? lengths[b] : length; }
};

/// Bias of attention scores by relative position, a line per head (Raffel et al. 2020).
template <class T>
struct relative_bias {
  const T* lines = nullptr;  ///< [heads, 2 * origin + 1], by key position - query position
  T* d_lines = nullptr;      ///< their gradient, one copy per sequence
  index origin = 0;          ///< place of distance 0 in a line

  /// Distance 0 of the line of a head.
  const T* of(index head) const { return lines + head * (2 * origin + 1) + origin; }
  /// Distance 0 of the gradient of the line of a sequence and head.
  T* d_of(index b, index heads, index head) const {
    return d_lines + (b * heads + head) * (2 * origin + 1) + origin;
  }
};

/// Cosines and sines of rotary positions (Su et al. 2021).
template <class T>
struct rotary_angles {
  const T* table = nullptr;          ///< [positions, d_kv]
  index positions = index{1} << 48;  ///< rows of the table
  const T* beyond = nullptr;         ///< [rows, d_kv] of the rows at later positions
};

/// Values of attention that the first layer of a stack shares with later ones (RWKV-7).
template <class T>
struct value_residual {
  const T* values = nullptr;  ///< [rows, d_model]
  T* d_values = nullptr;      ///< their gradient, from all later layers
};

/// Context of a call, which all its layers read.
template <class T>
struct context {
  ops::execution on{};              ///< threads and instruction-set level
  index batch = 1;                  ///< sequences
  index length = 0;                 ///< new tokens per sequence; inputs are [batch * length, width]
  const index* lengths = nullptr;   ///< valid new tokens of each sequence, or null when all are
  const index* past = nullptr;      ///< tokens of each sequence that are already cached, or null
  const index* prefix = nullptr;    ///< first tokens of each sequence that see each other, or null
  dropout_key dropout{};            ///< masks of this step; rate 0 outside training
  stack_place<T> stack{};           ///< where in a stack the call is
  encoder_memory<T> memory{};       ///< what cross-attention reads
  relative_bias<T> bias{};          ///< what T5 adds to scores
  rotary_angles<T> rope{};          ///< what rotates queries and keys
  ops::page_tables pages{};         ///< blocks of paged caches
  value_residual<T> first_layer{};  ///< what the first layer leaves to the others

  /// Number of rows of the inputs.
  index rows() const { return batch * length; }
  /// Number of tokens of sequence `b` before this call.
  index past_of(index b) const { return past ? past[b] : 0; }
  /// Cosines and sines for the position of a row.
  const T* rope_of(index row, index d_kv) const {
    const index position = past_of(row / length) + row % length;
    return position < rope.positions ? rope.table + position * d_kv : rope.beyond + row * d_kv;
  }
  /// Whether sequence `b` skips the running layer. What the layer computes of it is thrown away and
  /// its dy is 0; what training adds beside dy's own gradient must leave it out.
  bool skips(index b) const { return stack.mask && stack.mask->drops(b); }
  /// Number of valid new tokens of sequence `b`.
  index length_of(index b) const { return lengths ? lengths[b] : length; }
};

LINNET_NAMESPACE_END
/// @file
/// Names of parameters, and the forms a parameter takes: canonical weights, gradients, and the
/// packed form that kernels read.

/// @file
/// The one boundary between layers and matrix kernels. Shapes stop here: M, N and K are run-time
/// numbers, only the scalar and the storage type are part of the code.

/// @file
/// Products of matrices as they lie in memory, split over a team of threads.

LINNET_NAMESPACE_BEGIN

namespace ops::detail {

/// Rows of a product's outputs that are computed together, at most: whole tiles of every level.
inline constexpr index block_rows = 8 * 12;

/// Calls f(i0, i1, p0, p1) for this thread's share of the outputs of an [M, N] product: rows
/// [i0, i1) of panels [p0, p1). Each output is one sum, whatever block it falls into.
template <class F>
void each_block(const execution& on, index m, index n, F&& f) {
  const index panels = round_up(n, panel_width) / panel_width;
  const index blocks = round_up(m, block_rows) / block_rows;
  const index height = round_up((m + blocks - 1) / blocks, 12);
  const auto rows = [&](index block, index p0, index p1) {
    const index i0 = block * height, i1 = (std::min)(m, i0 + height);
    if (i0 < i1 && p0 < p1) f(i0, i1, p0, p1);
  };
  const auto [first, last] = on.threads.range(panels * blocks);
  if (blocks >= 4 * on.threads.size()) {
    // Many rows: every thread has its own, which it has in its caches from the last operation.
    for (index unit = first; unit < last;) {
      const index p0 = unit % panels, p1 = (std::min)(panels, p0 + (last - unit));
      rows(unit / panels, p0, p1);
      unit += p1 - p0;
    }
  } else {
    // Few rows: every thread has its own panels, so each reads only its part of the weights.
    const index p0 = first / blocks, p1 = last / blocks;
    for (index block = 0; block < blocks; ++block)
      rows(block, p0 + (block < first % blocks), p1 + (block < last % blocks));
  }
}

/// Epilogue without effect for a block of a product.
struct as_it_is {
  void operator()(index, index, index, index) const {}
};

/// A product C[m, n] = epilogue(A B) of numbers, of words of bf16 pairs, or, with an integer
/// epilogue, of words of four int8.
template <class Value, class T, class Epilogue>
struct block_product {
  index m, n, k;  ///< k counts what A and B hold
  simd::rows_operand<Value> a;
  simd::columns_operand<Value> b;
  T* c;
  index ldc;
  Epilogue e;
  index slack;  ///< columns behind the last that may be written

  /// Computes it, by this thread alone.
  void run(simd::level level) const {
    const auto by = [&](auto kernels) {
      using K = decltype(kernels);
      if constexpr (std::is_same_v<Value, T>)
        K::template multiply<T>(m, n, k, a, b, c, ldc, e, slack);
      else if constexpr (std::is_same_v<Epilogue, simd::integer_epilogue>)
        K::template multiply_int8<T>(m, n, k, a, b, c, ldc, e, slack);
      else
        K::template multiply_bf16<T>(m, n, k, a, b, c, ldc, e, slack);
    };
    if constexpr (std::is_same_v<Value, T>)
      simd::dispatch(level, by);
    else
      simd::dispatch_dot(level, by);
  }
  /// Splits it over the team. Each block is handed to `finish`.
  template <class Finish = as_it_is>
  void split(const execution& on, const Finish& finish = {}) const {
    each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
      const index j0 = p0 * panel_width, j1 = (std::min)(n, p1 * panel_width);
      const simd::rows_operand<Value> left{a.data + i0 * a.row, a.row, a.column};
      const simd::columns_operand<Value> right{b.data + p0 * b.panel, b.ld, b.panel};
      T* const to = c + i0 * ldc + j0;
      const block_product part{i1 - i0,        j1 - j0,       k, left, right, to, ldc,
                               e.from(i0, j0), slack + n - j1};
      part.run(on.level);
      finish(i0, i1, j0, j1);
    });
  }
};

/// Steps of a sum whose operands are gathered at a time.
inline constexpr index gathered_steps = 128;

/// Splits C += alpha A B over the team, B[K, N] as it lies in memory, some steps of K at a time.
/// What these steps read of B, and of A where it is a transpose, is copied side by side first.
/// Lines that are far apart displace each other from the first-level cache.
template <class Value, class T>
void split_sum(const execution& on, index m, index n, index k, const simd::rows_operand<Value>& a,
               const Value* b, T* c, T alpha) {
  using product = block_product<Value, T, simd::epilogue<T>>;
  const simd::epilogue<T> add{nullptr, alpha, true};
  if (m < block_rows / 2)  // read once or twice, not worth a copy
    return product{m, n, k, a, {b, n, panel_width}, c, n, add, 0}.split(on);
  each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
    alignas(64) Value left[gathered_steps * block_rows];
    alignas(64) Value right[gathered_steps * panel_width];
    for (index k0 = 0; k0 < k; k0 += gathered_steps) {
      const index steps = (std::min)(gathered_steps, k - k0);
      simd::rows_operand<Value> rows{a.data + i0 * a.row + k0 * a.column, a.row, a.column};
      if (a.row == 1) {
        for (index s = 0; s < steps; ++s)
          std::copy_n(rows.data + s * a.column, i1 - i0, left + s * block_rows);
        rows = {left, 1, block_rows};
      }
      for (index p = p0; p < p1; ++p) {
        const index j0 = p * panel_width, columns = (std::min)(panel_width, n - j0);
        for (index s = 0; s < steps; ++s) {
          const Value* const from = b + (k0 + s) * n + j0;
          Value* const to = right + s * panel_width;
          if (columns == panel_width) {
            std::copy_n(from, panel_width, to);  // without a call
          } else {
            std::copy_n(from, columns, to);
            std::fill_n(to + columns, panel_width - columns, Value{});
          }
        }
        const product part{i1 - i0,
                           columns,
                           steps,
                           rows,
                           {right, panel_width, 0},
                           c + i0 * n + j0,
                           n,
                           add,
                           panel_width - columns};
        part.run(on.level);
      }
    }
  });
}

}  // namespace ops::detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Whether products of storage `S` round their inputs first.
template <class S>
inline constexpr bool converts = !std::is_same_v<typename S::compute, compute::f32>;
/// Whether gradients flow through products of storage `S`: whole numbers, or bf16 throughout.
template <class S>
inline constexpr bool trainable =
    S::per_word == 1 || std::is_same_v<typename S::compute, compute::bf16>;

/// Rows up to which every thread converts for itself instead of waiting for the others.
inline constexpr index own_rows = 4;

/// Scratch bytes for products of `rows` inputs of width `in`, and for their derivatives, on up to
/// `threads` threads.
template <class S>
constexpr index converted_bytes(index rows, index in, index out, index threads, bool training) {
  if (!converts<S>) return 0;
  constexpr bool int8 = std::is_same_v<typename S::compute, compute::int8>;
  using matrix = packed_matrix<float, S>;
  const index row = 4 * matrix::depth(in) + (int8 ? 8 : 0);
  const index forward = (std::max)(rows * row, threads * (std::min)(rows, own_rows) * row);
  const index backward = 4 * (matrix::depth(rows) * (in + out) + rows * matrix::depth(out));
  return training ? (std::max)(forward, backward) : forward;
}

namespace detail {

/// The inputs of a product as words of low precision.
struct converted_rows {
  simd::rows_operand<simd::word> codes{};
  float* scales = nullptr;       ///< int8: one per row
  std::int32_t* sums = nullptr;  ///< int8: of each row's codes
};
/// Rounds x[m, k] to the compute type of `S`.
template <class S>
converted_rows convert(const execution& on, index m, index k, const float* x) {
  assert(on.converted && "linnet::ops: this storage type needs machine::converted");
  const index depth = packed_matrix<float, S>::depth(k);
  auto* words = static_cast<simd::word*>(on.converted);
  constexpr bool int8 = std::is_same_v<typename S::compute, compute::int8>;
  if (m <= own_rows) words += on.threads.rank() * m * (depth + (int8 ? 2 : 0));
  converted_rows to{{words, depth, 1}, nullptr, nullptr};
  to.scales = reinterpret_cast<float*>(words + m * depth);
  to.sums = reinterpret_cast<std::int32_t*>(to.scales + m);
  const auto row = [&](index i) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      if constexpr (int8)
        to.scales[i] = K::template to_int8<float>(
            k, x + i * k, reinterpret_cast<std::int8_t*>(words + i * depth), to.sums[i]);
      else
        K::template to_bf16<float>(k, x + i * k,
                                   reinterpret_cast<simd::bf16_code*>(words + i * depth));
    });
  };
  if (m <= own_rows)
    for (index i = 0; i < m; ++i) row(i);
  else
    on.threads.each(m, row);
  return to;
}

/// Inputs whose products with decoded weights are summed at a time.
inline constexpr index decoded_rows = 128;

/// Calls f(first, last, words, scales, zeros) for stretches of the inputs [k0, k1) that share their
/// scales in panel `p`.
template <class S, class F>
void each_group(index p, index k, index k0, index k1, const packed_matrix<float, S>& w, F&& f) {
  using matrix = packed_matrix<float, S>;
  for (index at = k0; at < k1;) {
    const index end = S::group ? (std::min)(k1, (group_of<S>(at) + 1) * S::group) : k1;
    const index scale = matrix::scale_at(p * panel_width, at, k);
    f(at, end, w.panels + (p * matrix::depth(k) + at / S::per_word) * panel_width,
      S::scaled ? w.scales + scale : nullptr, S::centred ? w.zeros + scale : nullptr);
    at = end;
  }
}

}  // namespace detail

/// Activation of `n` finished values of a product, in place; `gate` are values of another product.
/// See activates() and gates().
template <class T>
using epilogue = void (*)(simd::level level, index n, const T* gate, T* y);

/// y = f(y)
template <activation_kind A, class T>
void activates(simd::level level, index n, const T*, T* y) {
  simd::dispatch(level, [&](auto k) { decltype(k)::template activation<A, T>(n, y, y); });
}
/// y = f(gate) y (Shazeer 2020)
template <activation_kind A, class T>
void gates(simd::level level, index n, const T* gate, T* y) {
  simd::dispatch(level, [&](auto k) { decltype(k)::template gated<A, T>(n, gate, y, y); });
}

/// One product of a batch of products that read one input x[M, K]: y[M, N] = alpha x W^T (+ bias),
/// or y += .... Then y = finish(y), then y = residual + y. A thread does these two on a block that
/// it has just computed and has in its cache. They need no pass over memory and no barrier. They
/// are the row kernels of the separate operations and give the same bits. In the register tiles
/// they would multiply the code and compile time of every tile by the kinds of activations.
template <class T, class S>
struct product {
  const packed_matrix<T, S>& w;
  index n;
  T* y;
  const T* bias = nullptr;
  bool accumulate = false;
  T alpha = T(1);
  epilogue<T> finish = nullptr;
  /// [M, N], or null. It is finished before this call, or by a product of this width earlier in the
  /// batch, whose blocks fall to the same threads.
  const T* gate = nullptr;
  const T* residual = nullptr;  ///< [M, N] finished before this call, or null; not y

  /// How a product is written, before `finish`.
  constexpr simd::epilogue<T> write() const { return {bias, alpha, accumulate}; }
  /// Work that remains for rows [i0, i1) of columns [j0, j1).
  void complete(simd::level level, index i0, index i1, index j0, index j1) const {
    if (finish == nullptr && residual == nullptr) return;
    assert(residual != y && "linnet::ops: a residual is not where its sum goes");
    for (index i = i0; i < i1; ++i) {
      const index first = i * n + j0, count = j1 - j0;
      if (finish) finish(level, count, gate ? gate + first : nullptr, y + first);
      if (residual)
        simd::dispatch(level, [&](auto k) {
          decltype(k)::template add<T>(count, residual + first, y + first, y + first);
        });
    }
  }
};

namespace detail {

/// Computes rows [i0, i1) of panel `p` of y = x W^T. One row is computed from the codes; more rows
/// decode the weights to f32, some inputs at a time.
template <class S, class Kernels>
void decoded_product(Kernels, index i0, index i1, index p, index k, const float* x,
                     const product<float, S>& one) {
  using matrix = packed_matrix<float, S>;
  constexpr auto origin = static_cast<float>(S::origin);
  const packed_matrix<float, S>& w = one.w;
  const index n = one.n, j0 = p * panel_width, columns = (std::min)(panel_width, n - j0);
  float* const y = one.y;
  simd::epilogue<float> part = one.write().from(i0, j0);
  if (i1 - i0 == 1) {
    alignas(64) float sums[panel_width] = {};
    each_group(p, k, 0, k, w,
               [&](index first, index last, const simd::word* words, const float* scales,
                   const float* zeros) {
                 Kernels::template row_by_panel<S::code, has_minima<S>>(
                     last - first, x + i0 * k + first, words, scales, zeros, origin, sums);
               });
    float* const out = y + i0 * n + j0;
    for (index j = 0; j < columns; ++j)
      out[j] = (part.accumulate ? out[j] : 0.0f) + part.alpha * sums[j] +
               (part.bias ? part.bias[j] : 0.0f);
    return;
  }
  alignas(64) float numbers[decoded_rows * panel_width];
  for (index k0 = 0; k0 < k; k0 += decoded_rows) {
    const index k1 = (std::min)(k, k0 + decoded_rows);
    each_group(p, k, k0, k1, w,
               [&](index first, index last, const simd::word* words, const float* scales,
                   const float* zeros) {
                 Kernels::template decode_panel<S::code, has_minima<S>>(
                     matrix::depth(last - first), words, scales, zeros, origin,
                     numbers + (first - k0) * panel_width);
               });
    Kernels::template multiply<float>(i1 - i0, columns, k1 - k0, {x + i0 * k + k0, k, 1},
                                      {numbers, panel_width, 0}, y + i0 * n + j0, n, part,
                                      panel_width - columns);
    part.bias = nullptr;
    part.accumulate = true;
  }
}

}  // namespace detail

/// All products of x[M, K], which is converted once.
template <class T, class S, std::size_t Count>
void gemm_batch(const execution& on, index m, index k, const T* x,
                const product<T, S> (&all)[Count]) {
  using matrix = packed_matrix<T, S>;
  detail::converted_rows inputs;
  if constexpr (converts<S>) inputs = detail::convert<S>(on, m, k, x);
  for (const product<T, S>& one : all) {
    const auto& w = one.w;
    const index n = one.n, depth = matrix::depth(k), padding = round_up(n, panel_width) - n;
    const simd::columns_operand<typename S::word> panels{w.panels, panel_width,
                                                         panel_width * depth};
    const auto finish = [&](index i0, index i1, index j0, index j1) {
      one.complete(on.level, i0, i1, j0, j1);
    };
    if constexpr (S::per_word == 1) {
      detail::block_product<T, T, simd::epilogue<T>>{m,     n, k,           {x, k, 1}, panels,
                                                     one.y, n, one.write(), padding}
          .split(on, finish);
    } else if constexpr (!converts<S>) {
      detail::each_block(on, m, n, [&](index i0, index i1, index p0, index p1) {
        simd::dispatch(on.level, [&](auto kernels) {
          for (index p = p0; p < p1; ++p) {
            detail::decoded_product(kernels, i0, i1, p, k, x, one);
            finish(i0, i1, p * panel_width, (std::min)(n, (p + 1) * panel_width));
          }
        });
      });
    } else if constexpr (std::is_same_v<typename S::compute, compute::bf16>) {
      detail::block_product<simd::word, T, simd::epilogue<T>>{
          m, n, depth, inputs.codes, panels, one.y, n, one.write(), padding}
          .split(on, finish);
    } else {
      const simd::integer_epilogue scaled{
          one.bias,      one.alpha,  one.accumulate, w.scales, S::centred ? w.zeros : nullptr,
          inputs.scales, inputs.sums};
      detail::block_product<simd::word, T, simd::integer_epilogue>{
          m, n, depth, inputs.codes, panels, one.y, n, scaled, padding}
          .split(on, finish);
    }
  }
  on.threads.wait();
}

/// Products of x[M, K], one after the other; as one batch where all matrices are stored alike.
template <class T, class First, class... Rest>
void gemm_each(const execution& on, index m, index k, const T* x, const First& first,
               const Rest&... rest) {
  if constexpr ((std::is_same_v<First, Rest> && ...)) {
    gemm_batch(on, m, k, x, {first, rest...});
  } else {
    gemm_batch(on, m, k, x, {first});
    gemm_each(on, m, k, x, rest...);
  }
}

/// y[M, N] = alpha x[M, K] W^T (+ bias), or y += ..., as `e` says: {bias, alpha, accumulate}.
template <class T, class S>
void matmul(const execution& on, index m, index n, index k, const T* x,
            const packed_matrix<T, S>& w, T* y, const simd::epilogue<T>& e = {}) {
  gemm_batch<T, S, 1>(on, m, k, x, {{w, n, y, e.bias, e.accumulate, e.alpha}});
}

/// y[M, K] = x[M, N] W[N, K]: a product with W instead of its transpose, of any storage. For small
/// matrices: it reads the panels value by value and keeps nothing in registers. Split over K.
template <class T, class S>
void matmul_transposed(const execution& on, index m, index n, index k, const T* x,
                       const packed_matrix<T, S>& w, T* y) {
  on.threads.each(k, [&](index j) {
    for (index i = 0; i < m; ++i) y[i * k + j] = T(0);
    for (index first = 0; first < n; first += panel_width) {
      const index count = (std::min)(panel_width, n - first);
      T decoded[panel_width];
      const T* column = decoded;  // W(first ..., j)
      if constexpr (std::is_same_v<typename S::word, T>)
        column = w.panels + first * k + j * panel_width;
      else
        for (index r = 0; r < count; ++r) decoded[r] = w.at(first + r, j, k);
      simd::dispatch(on.level, [&](auto kernels) {
        for (index i = 0; i < m; ++i)
          y[i * k + j] += decltype(kernels)::template dot<T>(count, x + i * n + first, column);
      });
    }
  });
}

/// dx[M, K] += alpha dy[M, N] W: the derivative of matmul() by its input. Reads `w.rows`, W itself.
template <class T, class S>
void matmul_dx(const execution& on, index m, index n, index k, const T* dy,
               const packed_matrix<T, S>& w, T* dx, T alpha = T(1)) {
  static_assert(
      S::per_word == 1,
      "linnet: gradients flow through f32 or f64 weights; train first, quantize afterwards");
  detail::split_sum<T>(on, m, k, n, {dy, n, 1}, w.rows, dx, alpha);
  on.threads.wait();
}

/// dw[N, K] += alpha dy[M, N]^T x[M, K]: the derivative of matmul() by its weights.
template <class T>
void matmul_dw(const execution& on, index m, index n, index k, const T* dy, const T* x, T* dw,
               T alpha = T(1)) {
  detail::split_sum<T>(on, n, k, m, {dy, 1, n}, x, dw, alpha);
  on.threads.wait();
}

/// Where the derivatives of matmul() are added.
template <class T>
struct matmul_gradient {
  T* dw;           ///< [N, K]
  T* dx;           ///< [M, K]
  T alpha = T(1);  ///< of the product
};

/// Both derivatives of matmul() at once; see matmul_dx() and matmul_dw(). In bf16, dy and x are
/// rounded once for both, and sums stay in f32; `w.rows` holds pairs of rows of W.
template <class T, class S>
void matmul_backward(const execution& on, index m, index n, index k, const T* dy, const T* x,
                     const packed_matrix<T, S>& w, const matmul_gradient<T>& to) {
  const auto [dw, dx, alpha] = to;
  if constexpr (S::per_word == 1) {
    matmul_dw(on, m, n, k, dy, x, dw, alpha);
    matmul_dx(on, m, n, k, dy, w, dx, alpha);
  } else {
    static_assert(trainable<S>,
                  "linnet: gradients flow through f32, f64 or bf16 with "
                  "compute::bf16; train first, quantize afterwards");
    const index pairs = (m + 1) / 2, depth = (n + 1) / 2;
    auto* const x_pairs = static_cast<simd::word*>(on.converted);  // [pairs, k]
    auto* const dy_pairs = x_pairs + pairs * k;                    // [pairs, n]
    auto* const dy_rows = dy_pairs + pairs * n;                    // [m, depth]
    on.threads.each(pairs, [&](index i) {
      simd::dispatch(on.level, [&](auto kernels) {
        using K = decltype(kernels);
        const bool both = 2 * i + 1 < m;
        const auto* const one = dy + 2 * i * n;
        K::template to_bf16_pairs<T>(k, x + 2 * i * k, both ? x + (2 * i + 1) * k : nullptr,
                                     x_pairs + i * k);
        K::template to_bf16_pairs<T>(n, one, both ? one + n : nullptr, dy_pairs + i * n);
        for (index r = 2 * i; r <= 2 * i + both; ++r)
          K::template to_bf16<T>(n, dy + r * n,
                                 reinterpret_cast<simd::bf16_code*>(dy_rows + r * depth));
      });
    });
    detail::split_sum<simd::word>(on, n, k, pairs, {dy_pairs, 1, n}, x_pairs, dw, alpha);
    detail::split_sum<simd::word>(on, m, k, depth, {dy_rows, depth, 1}, w.rows, dx, alpha);
    on.threads.wait();
  }
}

/// db[N] += column sums of dy[M, N], each sum in ascending row order.
template <class T>
void bias_gradient(const execution& on, index m, index n, const T* dy, T* db) {
  const auto [first, last] = on.threads.range(n);
  for (index i = 0; i < m; ++i)
    for (index j = first; j < last; ++j) db[j] += dy[i * n + j];
  on.threads.wait();
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Path of a parameter in the tree: a chain of names from the leaf to the root, on the stack.
struct parameter_path {
  const parameter_path* parent = nullptr;
  std::string_view name{};
  index number = -1;  ///< the index of an array element instead of a name
  index count = 0;    ///< elements of that array

  /// Path of a named child.
  constexpr parameter_path operator/(std::string_view child) const { return {this, child, -1, 0}; }
  /// Path of a numbered child.
  constexpr parameter_path operator/(index child) const { return {this, {}, child, 0}; }
  /// Path of a numbered child, one of `of`.
  constexpr parameter_path element(index child, index of) const { return {this, {}, child, of}; }
  /// Path of the enclosing element: a layer, for parameters of a repeat; else the root.
  constexpr const parameter_path& enclosing_element() const {
    return number >= 0 || !parent ? *this : parent->enclosing_element();
  }
  /// The dotted name, such as `encoder.0.attention.q.weight`.
  std::string str() const {
    std::string text = parent && (parent->parent || !parent->name.empty() || parent->number >= 0)
                           ? parent->str()
                           : "";
    if (!text.empty()) text += '.';
    if (number < 0) return text + std::string(name);
    char digits[24];
    return text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  }
};

/// Role of a parameter, which decides its initial values and weight decay.
enum class role {
  matrix,    ///< a linear map [out, in]; may be stored quantized
  table,     ///< rows looked up by index [rows, width]; may be stored quantized when `lookup` is a
             ///< token
  position,  ///< a table of positions or relative-position buckets; always stored in full
  scale,     ///< a norm's gamma, starts at one
  bias,      ///< an additive vector, starts at zero
  moving_average  ///< rows of unit length that follow running averages and have no derivative:
                  ///< backward adds to their gradient what they are to follow, see
                  ///< follow_averages()
};

/// Metadata of one parameter tensor.
struct tensor_info {
  index rows = 0;     ///< output features, or 1 for a vector
  index columns = 0;  ///< input features
  role kind = role::matrix;
  double deviation = 0;  ///< standard deviation of the initial normal values
  /// Replaces the normal initial values: called for value number `i`.
  double (*start)(const parameter_path& at, index i, random_stream& random) = nullptr;

  /// Number of values.
  constexpr index size() const { return rows * columns; }
  /// Whether the tensor takes the model's storage type; all others stay in the scalar type.
  constexpr bool stored() const { return kind == role::matrix || kind == role::table; }
  /// Whether weight decay applies: every trained tensor with two dimensions.
  constexpr bool decays() const {
    return kind != role::scale && kind != role::bias && kind != role::moving_average;
  }
};

/// Position of a parameter's layer in its stack, for initial values that depend on it.
struct layer_position {
  double layer = 0, layers = 1;

  /// Finds the position for this parameter; a layer outside a stack is the only one.
  constexpr explicit layer_position(const parameter_path& at) {
    const parameter_path& element = at.enclosing_element();
    if (element.number < 0) return;
    layer = static_cast<double>(element.number);
    layers =
        static_cast<double>(element.count > element.number ? element.count : element.number + 1);
  }
  /// Position in the stack: 0 in the first layer, 1 in the last.
  constexpr double fraction() const { return layers > 1 ? layer / (layers - 1) : 0; }
  /// Remaining part of the stack: 1 in the first layer, 1 / layers in the last.
  constexpr double rest() const { return 1 - layer / layers; }
};

/// The initial value 0, for tensor_info::start.
inline double start_zero(const parameter_path&, index, random_stream&) { return 0; }

/// The forms in which a layer's `params` can appear.
namespace form {
/// Canonical weights: matrices in storage `S`, vectors and position tables in `T`.
template <class T, class S>
struct canonical {
  using matrix = matrix_ref<storage::single<S>>;
  using vector = T*;
};
/// Gradients, in the scalar type.
template <class T>
struct gradient {
  using matrix = T*;
  using vector = T*;
};
/// Packed weights for kernels: packed panels, and while training also the canonical rows.
template <class T, class S>
struct packed {
  using matrix = ops::packed_matrix<T, storage::single<S>>;
  using vector = const T*;
};

/// The form of a part of the model that has storage of its own, see storage::per_role.
template <class Form, storage::part P>
struct part_of {
  using type = Form;
};
template <class T, class S, storage::part P>
struct part_of<canonical<T, S>, P> {
  using type = canonical<T, storage::at<S, P>>;
};
template <class T, class S, storage::part P>
struct part_of<packed<T, S>, P> {
  using type = packed<T, storage::at<S, P>>;
};
template <class Form, storage::part P>
using at = typename part_of<Form, P>::type;
}  // namespace form

/// A matrix that a layer keeps as others: base + scale F[N - 1] ... F[0]. visit() passes it beside
/// the matrix itself, see nn/layer.hpp.
template <class Leaf, std::size_t N>
struct matrix_expression {
  Leaf factors[N]{};      ///< the one that is applied first comes first
  index widths[N + 1]{};  ///< factor k is [widths[k + 1], widths[k]]
  Leaf base{};            ///< empty for a plain product
  double scale = 1;
};

LINNET_NAMESPACE_END
/// @file
/// The size of a call, and the plan of the memory that it needs.

LINNET_NAMESPACE_BEGIN

/// The largest call that buffers are planned for.
struct call_shape {
  index batch = 1;        ///< sequences at a time
  index length = 0;       ///< new tokens per sequence in one call
  index memory = 0;       ///< tokens of the encoder's output (cross-attention), else 0
  index capacity = 0;     ///< tokens that the key-value cache holds; 0 while training
  index blocks = 0;       ///< blocks of tokens of a cache that sequences share, or 0
  index threads = 1;      ///< threads that may take part
  bool training = false;  ///< keep what a backward pass needs

  /// Token positions in one call.
  constexpr index rows() const { return batch * length; }
};

/// Planner of three kinds of memory: state, saved values and scratch. A layer that holds a scratch
/// buffer while it calls another layer takes it before planning that layer and releases it
/// afterwards.
struct planner {
  arena state{};    ///< lasts from call to call: key-value caches
  arena saved{};    ///< lasts from forward to backward; without training, layers share it by turns
  arena scratch{};  ///< lasts for one call of the layer that takes it
  int dropout_ids = 0;  ///< dropout ids given so far
  /// ops::converted_bytes() of the storage type, or null if products do not round their inputs.
  index (*converted_bytes)(index rows, index in, index out, index threads, bool training) = nullptr;
  index converted = 0;  ///< the most that a product needs

  /// Makes room for a product of `rows` inputs.
  constexpr void product(index rows, index in, index out, const call_shape& e) {
    if (converted_bytes == nullptr) return;
    const index bytes = converted_bytes(rows, in, out, e.threads, e.training);
    converted = bytes > converted ? bytes : converted;
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A layer without parameters derives its empty `params` and `visit` from here.
struct without_parameters {
  template <class Form>
  struct params {};
  template <class F, class... P>
  static constexpr void visit(F&&, const parameter_path&, P&...) {}
};

/// A layer without buffers derives its empty `cache` and `plan` from here.
struct without_cache {
  template <class T>
  struct cache {};
  template <class T>
  static constexpr cache<T> plan(planner&, const call_shape&) {
    return {};
  }
};

namespace detail {
/// Whether a layer adds a residual to what it computes.
template <class L>
constexpr bool adds_residual() {
  if constexpr (requires { L::adds_residual; }) return L::adds_residual;
  return false;
}
}  // namespace detail

/// State that is copied so that one sequence continues where another is. Tokens that were the same
/// ones anyway may be left out.
struct state_part {
  index first = 0;   ///< both sequences have read the same tokens before this one
  index tokens = 0;  ///< tokens that the copied sequence has read
  index memory =
      0;  ///< padded tokens of the encoder's output, or 0 where both read the same source
  bool block = false;  ///< not sequences: block `from` of paged caches becomes block `to`
};

namespace detail {
/// Whether a layer's plan for decoding takes memory that persists between calls.
template <class L, class T>
constexpr bool keeps_state() {
  planner m;
  (void)L::template plan<T>(m, {.length = 1, .memory = 1, .capacity = 1});
  return m.state.peak() > 0;
}
}  // namespace detail

/// Copies `size` values of sequence `from` to sequence `to` of state[batch, size].
template <class T>
void copy_sequence(T* state, index size, index from, index to, const state_part& part) {
  if (!part.block) std::copy_n(state + from * size, size, state + to * size);
}

/// Copies the decoding state of sequence `from` of a layer to sequence `to`; layers without state
/// need not define it.
template <class L, class T>
void copy_state(typename L::template cache<T>& c, index from, index to, const state_part& part) {
  if constexpr (requires { L::copy_state(c, from, to, part); })
    L::copy_state(c, from, to, part);
  else
    static_assert(!detail::keeps_state<L, T>(),
                  "linnet::session::fork: a layer that keeps state while decoding needs a "
                  "copy_state (see nn/layer.hpp)");
}

namespace detail {
/// Parameters of one linear map, as those of linear<> are.
template <class P>
concept one_matrix = requires(P& p) {
  p.weight;
};
/// Stands for what visit() calls.
struct any_parameter {
  template <class... Leaf>
  constexpr void operator()(const parameter_path&, const tensor_info&, Leaf&...) const {}
};
template <class L>
concept has_parameters = requires(const any_parameter& f, const parameter_path& at) {
  typename L::template params<form::canonical<float, storage::f32>>;
  L::visit(f, at);
};
template <class L, class T>
concept has_buffers = requires(planner& m, const call_shape& e) {
  { L::template plan<T>(m, e) } -> std::same_as<typename L::template cache<T>>;
};
template <class L, class T, class S>
concept has_forward = requires(const typename L::template params<form::packed<T, S>>& p,
                               view<const T, L::in> x, view<T, L::out> y,
                               typename L::template cache<T>& c, context<T>& ctx) {
  L::template forward<T, S>(p, x, y, c, ctx);
};
template <class L, class T, class S>
concept has_backward = requires(const typename L::template params<form::packed<T, S>>& p,
                                typename L::template params<form::gradient<T>>& dp,
                                view<const T, L::in> x, view<const T, L::out> dy, view<T, L::in> dx,
                                typename L::template cache<T>& c, context<T>& ctx) {
  L::template backward<T, S>(p, dp, x, dy, dx, c, ctx);
};
template <class L>
concept has_flops = requires(const call_shape& e) {
  { L::flops(e) } -> std::same_as<index>;
};
}  // namespace detail

/// A type with what the contract above asks of a layer that runs, computing in `T` from weights
/// stored as `S`. Models also ask for its flops().
template <class L, class T = float, class S = storage::f32>
concept layer =
    detail::has_parameters<L> && detail::has_buffers<L, T> && detail::has_forward<L, T, S>;
/// A layer that also trains.
template <class L, class T = float, class S = storage::f32>
concept trainable_layer = layer<L, T, S> && detail::has_backward<L, T, S>;

namespace detail {
/// True, or an error that says which part of the contract `L` lacks.
template <class L, class T = float, class S = storage::f32>
consteval bool check_layer() {
  if constexpr (!has_parameters<L>)
    static_assert(never<L>,
                  "linnet: the layer lacks params<Form> or visit(f, at, p...); see nn/layer.hpp");
  else if constexpr (!has_buffers<L, T>)
    static_assert(never<L>,
                  "linnet: the layer lacks cache<T> or plan<T>(planner&, call_shape) that returns "
                  "one; see nn/layer.hpp");
  else if constexpr (!has_forward<L, T, S>)
    static_assert(never<L>,
                  "linnet: the layer lacks in, out or forward<T, S>(p, x, y, cache, ctx); see "
                  "nn/layer.hpp");
  return true;
}
/// Likewise of a layer that is to train.
template <class L, class T = float, class S = storage::f32>
consteval bool check_trainable_layer() {
  static_assert(check_layer<L, T, S>());
  if constexpr (!has_backward<L, T, S>)
    static_assert(never<L>,
                  "linnet: the layer lacks backward<T, S>(p, dp, x, dy, dx, cache, ctx); see "
                  "nn/layer.hpp");
  return true;
}
}  // namespace detail

/// Number of parameters of a layer or model; shared ones count once.
template <class L>
consteval index count_parameters() {
  index n = 0;
  L::visit([&](const parameter_path&, const tensor_info& info) { n += info.size(); },
           parameter_path{});
  return n;
}

LINNET_NAMESPACE_END
/// @file
/// Copies, sums and activations of whole arrays, split over the team.

LINNET_NAMESPACE_BEGIN

namespace ops {

namespace detail {
/// Calls f(first, count) for this thread's share of n values, in whole cache lines, then waits.
template <class T, class F>
void in_slices(const execution& on, index n, F&& f) {
  constexpr index line = 64 / static_cast<index>(sizeof(T));
  const auto [first, last] = on.threads.range((n + line - 1) / line);
  const index begin = first * line, end = (std::min)(n, last * line);
  if (begin < end) f(begin, end - begin);
  on.threads.wait();
}
}  // namespace detail

/// x[n] = value
template <class T>
void fill(const execution& on, index n, T value, T* x) {
  detail::in_slices<T>(on, n, [&](index at, index count) { std::fill_n(x + at, count, value); });
}
/// y[n] = x[n]
template <class T>
void copy(const execution& on, index n, const T* x, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) { std::copy_n(x + at, count, y + at); });
}
/// y[n] = a[n] + b[n]; y may be a or b
template <class T>
void add(const execution& on, index n, const T* a, const T* b, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level,
                   [&](auto k) { decltype(k)::template add<T>(count, a + at, b + at, y + at); });
  });
}
/// y[n] = f(x[n])
template <activation_kind A, class T>
void activation(const execution& on, index n, const T* x, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level,
                   [&](auto k) { decltype(k)::template activation<A, T>(count, x + at, y + at); });
  });
}
/// dx[n] += dy[n] f'(x[n])
template <activation_kind A, class T>
void activation_backward(const execution& on, index n, const T* x, const T* dy, T* dx) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template activation_backward<A, T>(count, x + at, dy + at, dx + at);
    });
  });
}
/// x[n] = log(1 + e^x[n])
template <class T>
void softplus(const execution& on, index n, T* x) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) { decltype(k)::template softplus<T>(count, x + at); });
  });
}
/// dx[n] *= the derivative of softplus at x[n]
template <class T>
void softplus_backward(const execution& on, index n, const T* x, T* dx) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template softplus_backward<T>(count, x + at, dx + at);
    });
  });
}
/// y[n] = f(gate[n]) up[n] (Shazeer 2020)
template <activation_kind A, class T>
void gated(const execution& on, index n, const T* gate, const T* up, T* y) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template gated<A, T>(count, gate + at, up + at, y + at);
    });
  });
}
/// dgate[n], dup[n] = the derivatives of gated() (overwritten)
template <activation_kind A, class T>
void gated_backward(const execution& on, index n, const T* gate, const T* up, const T* dy, T* dgate,
                    T* dup) {
  detail::in_slices<T>(on, n, [&](index at, index count) {
    simd::dispatch(on.level, [&](auto k) {
      decltype(k)::template gated_backward<A, T>(count, gate + at, up + at, dy + at, dgate + at,
                                                 dup + at);
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// The storage type of model `M` when it computes in `T`: a double model stores doubles.
template <class M, class T>
using storage_of = std::conditional_t<std::is_same_v<T, double>, storage::f64, typename M::storage>;

namespace detail {

template <class S>
constexpr void place(arena& memory, const tensor_info& info, matrix_ref<S>& leaf) {
  leaf.data = memory.take<typename S::value>(info.rows * row_values<S>(info.columns));
  const index scales = info.rows * row_scales<S>(info.columns);
  if constexpr (S::scaled) leaf.scales = memory.take<float>(scales);
  if constexpr (S::centred) leaf.zeros = memory.take<float>(scales);
}
template <class T, class S>
constexpr void place(arena& memory, const tensor_info& info, ops::packed_matrix<T, S>& leaf) {
  leaf.panels = memory.take<typename S::word>(leaf.size(info.rows, info.columns));
  const index scales = leaf.scales_size(info.rows, info.columns);
  if constexpr (S::scaled) leaf.scales = memory.take<float>(scales);
  if constexpr (S::centred) leaf.zeros = memory.take<float>(scales);
}
template <class T>
constexpr void place(arena& memory, const tensor_info& info, T*& leaf) {
  leaf = memory.take<std::remove_const_t<T>>(info.size());
}

/// Refuses a caller's memory that is shorter than `bytes`, which `called` says, or not aligned.
/// Errors: errc::invalid.
inline result<void> fits_memory(const char* where, const void* data, std::size_t size,
                                const char* called, index bytes) {
  const auto refuse = [&](std::string expected, std::string got) {
    return error{errc::invalid, where, "memory", std::move(expected), std::move(got)};
  };
  if (size < static_cast<std::size_t>(bytes))
    return refuse(std::string(called) + ", " + std::to_string(bytes) + " bytes",
                  std::to_string(size));
  if (reinterpret_cast<std::uintptr_t>(data) % alignment != 0)
    return refuse("memory that is declared alignas(linnet::alignment)", "another address");
  return {};
}

/// The error of a function that could not allocate so many bytes.
inline linnet::error out_of_memory(const char* where, index bytes) {
  return {errc::out_of_memory, where, "memory", std::to_string(bytes) + " bytes",
          "a failed allocation"};
}

}  // namespace detail

/// One block of memory with the parameters of a layer or model `M` in one form, see
/// nn/parameters.hpp. It is valid, or has an error; no block that was moved from or could not be
/// allocated refers to any memory.
template <class M, class Form>
class tensor_block {
 public:
  using tree_type = typename M::template params<Form>;

  /// Size of the block in bytes.
  static constexpr index bytes() {
    arena counter;
    tree_type tree{};
    place_all(counter, tree);
    return counter.peak();
  }

  /// Allocates the block, all zero; valid() tells whether memory was there.
  tensor_block() : tensor_block(memory_block(bytes()), 0) { lacks_memory_ = !valid(); }
  /// Takes over the block of another object, which becomes invalid.
  tensor_block(tensor_block&& other) noexcept
      : memory_(std::move(other.memory_)),
        values_(std::exchange(other.values_, {})),
        tree_(std::exchange(other.tree_, tree_type{})),
        failure_(std::move(other.failure_)),
        failed_(other.failed_),
        lacks_memory_(other.lacks_memory_) {}
  /// @copydoc tensor_block(tensor_block&&)
  tensor_block& operator=(tensor_block&& other) noexcept {
    if (this == &other) return *this;
    memory_ = std::move(other.memory_);
    values_ = std::exchange(other.values_, {});
    tree_ = std::exchange(other.tree_, tree_type{});
    failure_ = std::move(other.failure_);
    failed_ = other.failed_;
    lacks_memory_ = other.lacks_memory_;
    return *this;
  }
  /// Whether values are there: the allocation succeeded, and so did whatever filled it.
  bool valid() const { return values_.data() != nullptr; }
  /// Why valid() is false: errc::out_of_memory, the error of the function that should have made the
  /// values, or errc::invalid after a move.
  linnet::error error() const {
    if (failed_) return failure_;
    if (lacks_memory_) return detail::out_of_memory("weights", bytes());
    return {errc::invalid, "weights", "values", "an object that was not moved from",
            "an empty one"};
  }
  /// Marks the values as unusable: valid() is false from now on, and error() returns `why`.
  void fail(linnet::error why) {
    memory_ = {};
    values_ = {};
    tree_ = {};
    failure_ = std::move(why);
    failed_ = true;
  }
  /// The parameters as a struct of pointers.
  tree_type& tree() { return tree_; }
  /// @copydoc tree()
  const tree_type& tree() const { return tree_; }
  /// Calls f(path, tensor_info, leaf) for each tensor in canonical order.
  template <class F>
  void visit(F&& f) {
    M::visit(f, parameter_path{}, tree_);
  }
  /// @copydoc visit()
  template <class F>
  void visit(F&& f) const {
    M::visit(f, parameter_path{}, tree_);
  }
  /// The whole block as bytes.
  void* data() const { return values_.data(); }
  /// @copydoc data()
  std::span<std::byte> block() const { return values_; }

 protected:
  /// Values in bytes() bytes of a block, `offset` behind its first byte; both are aligned.
  tensor_block(memory_block memory, index offset) : memory_(std::move(memory)) {
    if (!memory_.data()) return;
    values_ = {static_cast<std::byte*>(memory_.data()) + offset, static_cast<std::size_t>(bytes())};
    arena all(values_.data(), bytes());
    place_all(all, tree_);
  }

 private:
  static constexpr void place_all(arena& memory, tree_type& tree) {
    using detail::place;  // and what optimizers declare behind this
    M::visit([&](const parameter_path&, const tensor_info& info,
                 auto& leaf) { place(memory, info, leaf); },
             parameter_path{}, tree);
  }

  memory_block memory_;
  std::span<std::byte> values_;
  tree_type tree_{};
  linnet::error failure_{};
  bool failed_ = false;
  bool lacks_memory_ = false;
};

namespace detail {

/// Weights or packed weights that are made of `source`: failed if it is not valid, with its error.
template <class To, class From>
To made_of(const From& source) {
  To made;
  if (!source.valid()) made.fail(source.error());
  return made;
}

}  // namespace detail

/// Canonical weights of model `M` with scalar `T`, in one block: what files, optimizers and
/// transformations see. Matrices are row-major [out, in] in the model's storage type.
template <class M, class T = float>
class weights : public tensor_block<M, form::canonical<T, storage_of<M, T>>> {
  static_assert(!std::is_same_v<T, double> || std::is_same_v<typename M::storage, storage::f32>,
                "linnet::weights<M, double>: only models stored in f32 can run in double");

 public:
  using model = M;
  using scalar = T;
  using storage = storage_of<M, T>;

  /// An exact copy in a block of its own.
  weights clone() const {
    auto copy = detail::made_of<weights>(*this);
    if (copy.valid())
      __builtin_memcpy(copy.data(), this->data(), static_cast<std::size_t>(weights::bytes()));
    return copy;
  }
};

/// The name of the first tensor of `w`, in canonical order, that holds an infinity or a NaN; empty
/// if there is none. Scales, zero points and minima count as `<name>.scales`, `<name>.zeros` and
/// `<name>.minima`, their names in files. Looks at bits, so it stays right under -ffast-math;
/// allocates only a name.
template <class M, class T>
std::string first_nonfinite(const weights<M, T>& w) {
  std::string found;
  if (!w.valid()) return found;
  const auto look = [&]<class S>(S, const auto* values, index count, const parameter_path& at,
                                 const char* suffix) {
    bool finite = true;  // no early end: the loop runs on vectors
    for (index i = 0; i < count; ++i) finite &= S::finite(values[i]);
    if (!finite) found = at.str() + suffix;
  };
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    if (!found.empty()) return;
    using plain = std::conditional_t<std::is_same_v<T, double>, storage::f64, storage::f32>;
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>) {
      look(plain{}, leaf, info.size(), at, "");
    } else {
      using S = typename std::remove_cvref_t<decltype(leaf)>::storage;
      look(S{}, leaf.data, info.rows * row_values<S>(info.columns), at, "");
      const index scales = info.rows * row_scales<S>(info.columns);
      if (S::scaled && found.empty()) look(storage::f32{}, leaf.scales, scales, at, ".scales");
      if (S::centred && found.empty())
        look(storage::f32{}, leaf.zeros, scales, at, S::ggml ? ".minima" : ".zeros");
    }
  });
  return found;
}

/// Refuses weights that are not finite by the name of first_nonfinite(), and weights that are not
/// valid() by their own error. Loading does not ask: weights of a run that diverged can be looked
/// at. `where`, such as the file's path, begins the message. Errors: errc::invalid.
template <class M, class T>
result<void> check_finite(const weights<M, T>& w, std::string where) {
  if (!w.valid()) return w.error();
  if (auto name = first_nonfinite(w); !name.empty())
    return error{errc::invalid, std::move(where), std::move(name), "finite numbers",
                 "a NaN or an infinity"};
  return {};
}

/// Gradients of the trainable tensors of `M`, in full precision.
template <class M, class T = float>
class gradients : public tensor_block<M, form::gradient<T>> {};

/// The form that kernels read: constant, shareable by any number of sessions in any threads. The
/// panels are in memory of its own, or in another's that must outlive it.
template <class M, class T = float, class S = storage_of<M, T>>
class packed : public tensor_block<M, form::packed<T, S>> {
  using base = tensor_block<M, form::packed<T, S>>;

 public:
  using model = M;
  using scalar = T;
  using storage = S;

  /// Allocates panels, all zero; valid() tells whether memory was there.
  packed() = default;
  /// Panels that a block holds from `offset` on: bytes() of them, aligned to `alignment`. Nothing
  /// is copied, and whoever gave the memory is believed.
  explicit packed(memory_block memory, index offset = 0) : base(std::move(memory), offset) {}

  /// Panels in another's memory, such as another object's block(). Nothing is copied; they are read
  /// as long as the view lives. Only size and alignment are looked at: view_packed() also asks for
  /// whose panels they are. Not valid() for memory that is too short or not aligned, with an error
  /// of errc::invalid.
  static packed view(lasting_span<const std::byte> panels) {
    return in_memory("packed::view", const_cast<std::byte*>(panels.data()), panels.size());
  }
  /// An exact copy in a block of its own.
  packed clone() const {
    auto copy = detail::made_of<packed>(*this);
    if (copy.valid())
      __builtin_memcpy(copy.base::data(), data(), static_cast<std::size_t>(packed::bytes()));
    return copy;
  }
  /// The panels as bytes.
  const void* data() const { return base::data(); }
  /// @copydoc data()
  std::span<const std::byte> block() const { return base::block(); }

 private:
  template <class Model, class Scalar>
  friend packed<Model, Scalar> pack(const weights<Model, Scalar>&, std::span<std::byte>);

  /// Panels in some bytes, or the reason why they cannot be there.
  static packed in_memory(const char* where, std::byte* data, std::size_t size) {
    packed made(memory_block(data, static_cast<index>(size), nullptr));
    if (auto fit = detail::fits_memory(where, data, size, "packed::bytes()", packed::bytes()); !fit)
      made.fail(fit.error());
    return made;
  }
};

namespace detail {

template <class>
inline constexpr bool is_weights = false;
template <class M, class T>
inline constexpr bool is_weights<weights<M, T>> = true;
template <class>
inline constexpr bool is_packed = false;
template <class M, class T, class S>
inline constexpr bool is_packed<packed<M, T, S>> = true;

/// Weights of any kind but packed ones of model `M` in a variable, which `open` functions read.
template <class W, class M, class T>
concept unfit_weights = is_weights<std::remove_cvref_t<W>> ||
    (is_packed<std::remove_cvref_t<W>> &&
     !(std::is_lvalue_reference_v<W> && std::is_same_v<std::remove_cvref_t<W>, packed<M, T>>));

/// Words for such weights.
template <class W, class M, class T>
error refuse_weights() {
  using given = std::remove_cvref_t<W>;
  if constexpr (is_weights<given>)
    static_assert(never<W>, "linnet: what runs a model reads packed weights: pack() them first");
  else if constexpr (std::is_same_v<given, packed<M, T>>)
    static_assert(never<W>,
                  "linnet: these packed weights are a temporary; keep them in a variable: what is "
                  "opened reads them as long as it lives");
  else
    static_assert(never<W>,
                  "linnet: these weights are packed for another model, scalar or storage type; the "
                  "storage type is part of the model, as in decoder<shape, storage::int8>");
  return {};
}

/// Rewrites the kernel form `p` of a layer or model `L` from its canonical weights. Called by every
/// thread of a team.
template <class L, class W, class P>
void pack_tree(const ops::execution& on, const W& w, P& p) {
  L::visit(
      [&](const parameter_path&, const tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          using scalar = std::remove_cvref_t<decltype(*from)>;
          ops::copy(on, info.size(), static_cast<const scalar*>(from), const_cast<scalar*>(to));
        } else {
          ops::pack(on, info.rows, info.columns, from, to);
        }
      },
      parameter_path{}, p.tree(), w.tree());
}
/// Rewrites the packed form of a model from its canonical weights.
template <class M, class T, class S>
void pack_into(const ops::execution& on, const weights<M, T>& w, packed<M, T, S>& p) {
  pack_tree<M>(on, w, p);
}
/// Points `p` to the canonical rows of its matrices, which backward() reads.
template <class L, class W, class P>
void attach_rows(const W& w, P& p) {
  L::visit(
      [](const parameter_path&, const tensor_info&, auto& to, const auto& from) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) to.rows = from.data;
      },
      parameter_path{}, p.tree(), w.tree());
}

}  // namespace detail

/// Packs weights for sessions and evaluators: one copy in panels that kernels read, exactly
/// invertible by unpack(). The result is not valid() if `w` is not, with the error of `w`, or where
/// memory is lacking (errc::out_of_memory). The error is passed on by session::open() and
/// evaluator::open().
template <class M, class T>
packed<M, T> pack(const weights<M, T>& w) {
  auto p = detail::made_of<packed<M, T>>(w);
  if (p.valid()) detail::pack_into(ops::execution{}, w, p);
  return p;
}

/// Packs weights into the caller's memory: at least packed<M, T>::bytes() bytes, a constant,
/// aligned to `alignment`. The memory must outlive what is returned. Not valid() if `w` is not,
/// with its error, or where the memory is too small or not aligned (errc::invalid); then nothing is
/// written.
template <class M, class T>
packed<M, T> pack(const weights<M, T>& w, std::span<std::byte> memory) {
  auto p = packed<M, T>::in_memory("pack", memory.data(), memory.size());
  if (!w.valid()) p.fail(w.error());
  if (!p.valid()) return p;
  __builtin_memset(memory.data(), 0, static_cast<std::size_t>(p.bytes()));
  detail::pack_into(ops::execution{}, w, p);
  return p;
}

/// Unpacks the canonical weights that `p` was packed from.
template <class M, class T>
weights<M, T> unpack(const packed<M, T>& p) {
  auto w = detail::made_of<weights<M, T>>(p);
  if (!w.valid()) return w;
  M::visit(
      [&](const parameter_path&, const tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(to)>>) {
          std::copy_n(from, info.size(), to);
        } else {
          ops::unpack(info.rows, info.columns, from, to);
        }
      },
      parameter_path{}, w.tree(), p.tree());
  return w;
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

static_assert(std::endian::native == std::endian::little,
              "linnet reads and writes files on little-endian machines only");

/// Element types of tensors in files, little-endian.
enum class dtype {
  boolean,
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64
};

namespace detail {
struct dtype_metadata {
  std::string_view name;
  index size;
};
inline constexpr std::array<dtype_metadata, 15> dtype_table{{{"BOOL", 1},
                                                             {"U8", 1},
                                                             {"I8", 1},
                                                             {"F8_E4M3", 1},
                                                             {"F8_E5M2", 1},
                                                             {"U16", 2},
                                                             {"I16", 2},
                                                             {"F16", 2},
                                                             {"BF16", 2},
                                                             {"U32", 4},
                                                             {"I32", 4},
                                                             {"F32", 4},
                                                             {"U64", 8},
                                                             {"I64", 8},
                                                             {"F64", 8}}};
}  // namespace detail

/// The name of an element type in safetensors files, such as "F32".
constexpr std::string_view name_of(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].name;
}
/// Bytes of one element.
constexpr index size_of(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].size;
}
/// Whether values of this type can be read as real numbers: F16, BF16, F32, F64.
constexpr bool is_real(dtype type) {
  return type == dtype::f16 || type == dtype::bf16 || type == dtype::f32 || type == dtype::f64;
}

/// Policy for loaded weights that are infinite or NaN. `keep` loads them, so that a run that
/// diverged can be looked at; `refuse` names the first such tensor in an error.
enum class nonfinite { keep, refuse };

namespace detail {

/// The object at `from`, which need not be aligned.
template <class T>
T load_as(const std::byte* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

/// to[count] = values of a real type, `stride` elements apart.
inline void decode_reals(dtype type, const std::byte* from, index count, index stride, double* to) {
  const index step = stride * size_of(type);
  switch (type) {
    case dtype::f16:
      for (index i = 0; i < count; ++i)
        to[i] = storage::f16::decode(load_as<std::uint16_t>(from + i * step));
      break;
    case dtype::bf16:
      for (index i = 0; i < count; ++i)
        to[i] = storage::bf16::decode(
            static_cast<storage::bf16::value>(load_as<std::uint16_t>(from + i * step)));
      break;
    case dtype::f32:
      for (index i = 0; i < count; ++i)
        to[i] = static_cast<double>(load_as<float>(from + i * step));
      break;
    default:
      for (index i = 0; i < count; ++i) to[i] = load_as<double>(from + i * step);
  }
}

/// Whether all of `count` values are finite. Real types and F8 types are looked at; integers always
/// are.
inline bool all_finite(dtype type, const std::byte* from, index count) {
  const auto magnitude = [&](index i) { return static_cast<unsigned>(from[i]) & 0x7f; };
  if (type == dtype::f8_e4m3 || type == dtype::f8_e5m2) {
    const unsigned most = type == dtype::f8_e4m3 ? 0x7e : 0x7b;
    for (index i = 0; i < count; ++i)
      if (magnitude(i) > most) return false;
  }
  if (!is_real(type)) return true;
  std::array<double, 256> some;
  for (index i = 0; i < count; i += std::ssize(some)) {
    const index n = (std::min)(std::ssize(some), count - i);
    decode_reals(type, from + i * size_of(type), n, 1, some.data());
    for (index j = 0; j < n; ++j)
      if (!is_finite(some[static_cast<std::size_t>(j)])) return false;
  }
  return true;
}

/// One tensor of a weights object, whatever the model's type.
struct leaf {
  std::string name;         ///< canonical
  index rows = 0;           ///< output features; of a vector, its length
  index columns = 0;        ///< elements in a row: input features, or 1 for a vector
  bool vector = false;      ///< one dimension in files
  dtype type = dtype::f32;  ///< of the elements in memory
  std::byte* data = nullptr;
  float* scales = nullptr;  ///< [rows, row_scales] of a scaled matrix
  float* zeros = nullptr;   ///< likewise of a centred one: zero points or minima
  index row_scales = 0;
  bool ggml = false;  ///< whether codes and scales are those of ggml's blocks

  index size() const { return rows * columns; }
};

/// The element type that storage `S` has in files.
template <class S>
constexpr dtype dtype_of() {
  using value = typename S::value;
  if constexpr (std::is_same_v<value, float>) return dtype::f32;
  if constexpr (std::is_same_v<value, double>) return dtype::f64;
  if constexpr (std::is_same_v<value, ops::bf16_code>) return dtype::bf16;
  if constexpr (std::is_same_v<value, std::uint16_t>) return dtype::f16;
  if constexpr (std::is_same_v<value, std::int8_t>) return dtype::i8;
  if constexpr (std::is_same_v<value, std::uint8_t>)
    return S::code == simd::code::f8_e4m3   ? dtype::f8_e4m3
           : S::code == simd::code::f8_e5m2 ? dtype::f8_e5m2
                                            : dtype::u8;
}

/// The tensors of `w` in canonical order. From here on nothing depends on the model's type.
template <class M, class T>
std::vector<leaf> leaves_of(const weights<M, T>& w) {
  std::vector<leaf> all;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto& from) {
    leaf one{.name = at.str(), .rows = info.rows, .columns = info.columns};
    one.vector = !info.decays() && info.rows == 1;
    if (one.vector) std::swap(one.rows, one.columns);
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
      one.type = std::is_same_v<T, double> ? dtype::f64 : dtype::f32;
      one.data = reinterpret_cast<std::byte*>(from);
    } else {
      using S = typename std::remove_cvref_t<decltype(from)>::storage;
      one.type = dtype_of<S>();
      one.columns = row_values<S>(info.columns);
      one.data = reinterpret_cast<std::byte*>(from.data);
      one.scales = from.scales;
      one.zeros = from.zeros;
      one.row_scales = row_scales<S>(info.columns);
      one.ggml = S::ggml;
    }
    all.push_back(std::move(one));
  });
  return all;
}

/// Stores `count` values at element `first` of a tensor.
inline void encode_reals(const leaf& to, index first, index count, const double* from) {
  switch (to.type) {
    case dtype::f32: {
      auto* const data = reinterpret_cast<float*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::f32::encode(from[i]);
      break;
    }
    case dtype::bf16: {
      auto* const data = reinterpret_cast<storage::bf16::value*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::bf16::encode(from[i]);
      break;
    }
    case dtype::f16: {
      auto* const data = reinterpret_cast<storage::f16::value*>(to.data) + first;
      for (index i = 0; i < count; ++i) data[i] = storage::f16::encode(from[i]);
      break;
    }
    default: {
      auto* const data = reinterpret_cast<double*>(to.data) + first;
      std::copy_n(from, count, data);
    }
  }
}

/// Where the rows of one tensor of the model stand within a tensor of a file.
struct placement {
  std::string name;  ///< of the tensor in the file
  index rows = 0;    ///< its shape: [rows, columns], or [rows] for a vector
  index columns = 1;
  bool vector = false;
  bool depthwise = false;   ///< the file has filters of channels: [rows, 1, columns]
  bool transposed = false;  ///< the file has [in, out]
  index offset = 0;         ///< output feature of the file at which the model's first row stands
  index half_heads =
      0;  ///< head width, where the file has RoPE pairs (i, i + h/2) and the model (2i, 2i+1)
  index paired_heads = 0;  ///< head width, the other way round

  /// The file's output feature that holds row `n` of the model.
  index feature(index n) const {
    if (const index h = half_heads; h > 0) n = n / h * h + n % h % 2 * (h / 2) + n % h / 2;
    if (const index h = paired_heads; h > 0) n = n / h * h + n % h % (h / 2) * 2 + n % h / (h / 2);
    return offset + n;
  }
  bool reordered() const { return transposed || half_heads > 0 || paired_heads > 0; }
  /// The element at which row `n` begins, and the distance between its elements.
  std::pair<index, index> row(index n) const {
    return transposed ? std::pair(feature(n), columns) : std::pair(feature(n) * columns, index(1));
  }
};

/// Reads the rows of `to` from a tensor of real numbers, converting its type.
inline void copy_in(const leaf& to, const placement& at, dtype type, const std::byte* from) {
  if (type == to.type && !at.reordered()) {
    const index size = size_of(type);
    __builtin_memcpy(to.data, from + at.row(0).first * size,
                     static_cast<std::size_t>(to.size() * size));
    return;
  }
  std::array<double, 256> some;
  for (index n = 0; n < to.rows; ++n) {
    const auto [begin, step] = at.row(n);
    for (index j = 0; j < to.columns; j += std::ssize(some)) {
      const index count = (std::min)(std::ssize(some), to.columns - j);
      decode_reals(type, from + (begin + j * step) * size_of(type), count, step, some.data());
      encode_reals(to, n * to.columns + j, count, some.data());
    }
  }
}

/// Writes the rows of `from` into a tensor of the same element type; `Word` has its size.
template <class Word>
void copy_out_as(const leaf& from, const placement& at, std::byte* to) {
  constexpr index size = sizeof(Word);
  const std::byte* source = from.data;
  for (index n = 0; n < from.rows; ++n, source += from.columns * size) {
    const auto [begin, step] = at.row(n);
    if (step == 1)
      __builtin_memcpy(to + begin * size, source, static_cast<std::size_t>(from.columns * size));
    else
      for (index j = 0; j < from.columns; ++j)
        __builtin_memcpy(to + (begin + j * step) * size, source + j * size, sizeof(Word));
  }
}
inline void copy_out(const leaf& from, const placement& at, std::byte* to) {
  switch (size_of(from.type)) {
    case 1:
      return copy_out_as<std::uint8_t>(from, at, to);
    case 2:
      return copy_out_as<std::uint16_t>(from, at, to);
    case 4:
      return copy_out_as<std::uint32_t>(from, at, to);
    default:
      return copy_out_as<std::uint64_t>(from, at, to);
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Decoder-only language models: Llama, GPT-2, STLM and what lies between.

/// @file
/// Arguments of a model's calls: loss() of a batch, and step() of new tokens.

/// @file
/// Both ends of a language model: the token embedding, and the output head fused with the
/// cross-entropy. The head works in chunks, so that the logits of all tokens never exist at once.

LINNET_NAMESPACE_BEGIN

/// Summed loss of a call, in nats, and the number of tokens it is summed over. A call with a batch
/// that does not fit the limits or the vocabulary computes nothing and gives NaN nats.
struct loss_sum {
  double nats = 0;
  index tokens = 0;

  /// Loss per token; `nats` itself without tokens.
  constexpr double mean() const { return tokens > 0 ? nats / static_cast<double>(tokens) : nats; }
  /// Result for a batch that cannot be used: NaN.
  static constexpr loss_sum refused() { return {std::numeric_limits<double>::quiet_NaN(), 0}; }
};

namespace ops {

/// x[rows, d] = table[token], one row per token. Ids must be in the vocabulary.
template <class T, class S>
void embed(const execution& on, index rows, index d, const token* tokens,
           const packed_matrix<T, S>& table, T* x) {
  on.threads.each(rows, [&](index i) {
    for (index j = 0; j < d; ++j) x[i * d + j] = table.at(tokens[i], j, d);
  });
}
/// d_table[token] += dx: split by columns, so repeated tokens meet in one thread, in row order.
template <class T>
void embed_backward(const execution& on, index rows, index d, const token* tokens, const T* dx,
                    T* d_table) {
  const auto [first, last] = on.threads.range(d);
  for (index i = 0; i < rows; ++i)
    for (index j = first; j < last; ++j) d_table[tokens[i] * d + j] += dx[i * d + j];
  on.threads.wait();
}

/// d_table[position] += sum over the batch of dx[batch, length, d] at that position.
template <class T>
void position_backward(const execution& on, index batch, index length, index d, const T* dx,
                       T* d_table) {
  on.threads.each(length, [&](index t) {
    for (index b = 0; b < batch; ++b)
      for (index j = 0; j < d; ++j) d_table[t * d + j] += dx[(b * length + t) * d + j];
  });
}

/// Rows of logits that are worked on at a time: about four million values.
constexpr index head_rows(index vocabulary) {
  const index rows = (index{1} << 22) / vocabulary;
  return rows < 8 ? 8 : rows > 128 ? 128 : rows;
}

namespace detail {
/// One row of cross_entropy() by the kernels K.
template <class K, class T>
double cross_entropy_row(index vocabulary, token label, T* row, bool gradient, double z_loss) {
  const T target = row[label];
  const T largest = K::template maximum<T>(vocabulary, row);
  const T sum = K::template exp_sum<T>(vocabulary, largest, row);
  const double lse = std::log(static_cast<double>(sum)) + static_cast<double>(largest);
  if (gradient) {
    K::template scale<T>(vocabulary, T(1 + 2 * z_loss * lse) / sum, row);
    row[label] -= T(1);
  }
  return lse - static_cast<double>(target) + z_loss * lse * lse;
}
/// losses[i] = f(kernels, i, row) for each row of logits that has a label; the others have no loss
/// and no gradient.
template <class T, class F>
void each_labelled_row(const execution& on, index rows, index vocabulary, const token* labels,
                       T* logits, double* losses, bool gradient, F&& f) {
  on.threads.each(rows, [&](index i) {
    T* const row = logits + i * vocabulary;
    if (labels[i] == ignored) {
      losses[i] = 0;
      if (gradient) std::fill_n(row, vocabulary, T(0));
      return;
    }
    simd::dispatch(on.level, [&](auto k) { losses[i] = f(k, i, row); });
  });
}

}  // namespace detail

/// Cross-entropy of rows of logits: losses[i] = lse - l[label] + z lse^2 with lse = logsumexp(l).
/// The logits are overwritten by its gradient (1 + 2 z lse) softmax(l) - onehot(label). z is t5x's
/// z-loss, usually 0 or 1e-4. Rows labelled `ignored` give 0.
template <class T>
void cross_entropy(const execution& on, index rows, index vocabulary, const token* labels,
                   T* logits, double* losses, bool gradient, double z_loss = 0) {
  detail::each_labelled_row(
      on, rows, vocabulary, labels, logits, losses, gradient, [&](auto k, index i, T* row) {
        return detail::cross_entropy_row<decltype(k)>(vocabulary, labels[i], row, gradient, z_loss);
      });
}

/// Arguments of the output head: y[rows, d] and the table W[vocabulary, d], with logits = alpha y
/// W^T (+ bias).
template <class T, class S>
struct head_call {
  index rows, d, vocabulary;
  const T* y;
  const packed_matrix<T, S>& table;
  T alpha;                  ///< d^-1/2 for T5's tied head, else 1
  const token* labels;      ///< [rows], or `ignored`
  T* chunk;                 ///< scratch [head_rows, vocabulary]
  double* losses;           ///< scratch [rows]
  T* dy = nullptr;          ///< gradient of y, added to; null for the loss alone
  T* d_table = nullptr;     ///< gradient of the table, added to
  T* logits = nullptr;      ///< if given, also receives all logits [rows, vocabulary]
  double z_loss = 0;        ///< weight of the squared logsumexp
  double weight = 1;        ///< of this loss in the gradients
  const T* bias = nullptr;  ///< [vocabulary], for a weight of 1
  T* d_bias = nullptr;      ///< its gradient, added to
};

/// logits[rows, vocabulary] of rows [first, first + rows) of a call.
template <class T, class S>
void head_logits(const execution& on, const head_call<T, S>& h, index first, index rows,
                 T* logits) {
  matmul(on, rows, h.vocabulary, h.d, h.y + first * h.d, h.table, logits, {h.bias, h.alpha});
}

/// Criterion of plain training and scoring: cross_entropy() with the labels. A criterion is called
/// by every thread for each chunk: rows [first, first + rows) of the call, whose logits are in
/// h.chunk. It sets h.losses of these rows. Where h.dy is given, it puts the gradient of their sum
/// in place of the logits.
struct label_cross_entropy {
  template <class T, class S>
  void operator()(const execution& on, const head_call<T, S>& h, index first, index rows) const {
    cross_entropy(on, rows, h.vocabulary, h.labels + first, h.chunk, h.losses + first,
                  h.dy != nullptr, h.z_loss);
  }
};

/// Summed loss of all rows by a criterion; if asked for, also the gradients of that sum times
/// h.weight.
template <class T, class S, class Criterion = label_cross_entropy>
loss_sum head_loss(const execution& on, const head_call<T, S>& h, const Criterion& criterion = {}) {
  const index step = head_rows(h.vocabulary);
  for (index first = 0; first < h.rows; first += step) {
    const index rows = (std::min)(step, h.rows - first);
    head_logits(on, h, first, rows, h.chunk);
    if (h.logits) copy(on, rows * h.vocabulary, h.chunk, h.logits + first * h.vocabulary);
    criterion(on, h, first, rows);
    if constexpr (trainable<S>) {
      if (h.dy && h.d_bias) bias_gradient(on, rows, h.vocabulary, h.chunk, h.d_bias);
      if (h.dy)
        matmul_backward(on, rows, h.vocabulary, h.d, h.chunk, h.y + first * h.d, h.table,
                        {h.d_table, h.dy + first * h.d, h.alpha * static_cast<T>(h.weight)});
    }
  }
  loss_sum sum;
  for (index i = 0; i < h.rows; ++i) {
    sum.nats += h.losses[i];
    sum.tokens += h.labels[i] != ignored;
  }
  return sum;
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Which exits of a decoder a loss is taken at: after layer l, the final norm and head read the
/// stream.
struct exit_calls {
  const double* weights = nullptr;  ///< [layers] share of each exit in the loss, 0 for none; null
                                    ///< for the last exit alone
  loss_sum* losses = nullptr;       ///< [layers] receives the loss of each exit that has a share
};

/// Options of a model's loss().
template <class T>
struct loss_call {
  dropout_key dropout{};  ///< masks of this step
  T* logits = nullptr;    ///< receives the logits of all tokens, or null
  double z_loss = 0;      ///< weight of the squared logsumexp
  exit_calls exits{};     ///< of a model that has `exits`
};

/// The encoded source that targets read.
struct source_call {
  index length = 0;                ///< padded tokens
  const index* lengths = nullptr;  ///< [batch] valid tokens
  bool cached = false;             ///< its keys and values are in the cache already
};

/// New tokens of a model's step().
struct step_call {
  const token* tokens = nullptr;   ///< [batch, length, ids_per_token], padded on the right
  index batch = 0;                 ///< sequences
  index length = 0;                ///< padded tokens per sequence
  const index* lengths = nullptr;  ///< [batch] valid tokens, or null when all are
  const index* past = nullptr;     ///< [batch] tokens that are cached already
  bool every = false;              ///< logits behind every token, not only each sequence's last
  layer_range layers{};            ///< that run, of a model that has `exits`
  source_call source{};            ///< of a model that `encodes`
};

namespace detail {
/// The context of a step.
template <class T>
context<T> step_context(const step_call& call, const ops::execution& on) {
  context<T> ctx;
  ctx.on = on;
  ctx.batch = call.batch;
  ctx.length = call.length;
  ctx.lengths = call.lengths;
  ctx.past = call.past;
  ctx.stack.layers = call.layers;
  return ctx;
}
}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The rules that a decoder's shape and policies keep, each with a sentence for what breaks it.

/// @file
/// Turns a list of policies in any order into one choice per slot, with worded refusals.

/// @file
/// Softmax attention to near tokens only: sliding windows, and windows with attention sinks.

/// @file
/// Softmax attention as a layer: self or cross, causal or bidirectional, with rotary or relative
/// positions and a key-value cache. Heads may be multi-head, grouped-query or multi-query.

/// @file
/// Parts common to kinds of attention: the projections around the mixing of tokens, and buffers and
/// rotary positions for kinds that read whole sequences.

/// @file
/// Attention policies: the numbers of one attention layer, and the traits that every kind states.

/// @file
/// Shapes: the numbers of a model, as aggregates that can be template arguments.

LINNET_NAMESPACE_BEGIN

/// Numbers of a T5 encoder-decoder (Raffel et al. 2020). `heads * d_kv` need not equal `d_model`.
struct t5_shape {
  index d_model = 0;         ///< width of the residual stream
  index d_ff = 0;            ///< hidden width of the feed-forward
  index d_kv = 0;            ///< width of one attention head
  index heads = 0;           ///< attention heads
  index encoder_layers = 0;  ///< encoder blocks
  index decoder_layers = 0;  ///< decoder blocks
  index vocabulary = 0;      ///< rows of the embedding
  index buckets = 32;        ///< relative position buckets
  index max_distance = 128;  ///< distance from which all positions share the last bucket
  double eps = 1e-6;         ///< added under the root of the norm

  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && d_kv > 0 && heads > 0 && encoder_layers > 0 &&
           decoder_layers > 0 && vocabulary > 0 && buckets >= 4 && buckets % 4 == 0 &&
           max_distance > buckets / 2 && eps > 0;
  }
};

/// Numbers of a decoder-only model: Llama, GPT-2, STLM.
struct decoder_shape {
  index d_model = 0;          ///< width of the residual stream
  index d_ff = 0;             ///< hidden width of the feed-forward
  index heads = 0;            ///< query heads
  index kv_heads = 0;         ///< key and value heads; heads % kv_heads == 0; 1 is multi-query
  index layers = 0;           ///< blocks
  index vocabulary = 0;       ///< rows of the embedding
  index context = 0;          ///< longest sequence in tokens (the size of a learned position table)
  index d_kv = 0;             ///< width of one head; 0 means d_model / heads
  double eps = 1e-5;          ///< added under the root of the norm
  double rope_theta = 10000;  ///< base of the rotary frequencies

  /// Width of one head.
  constexpr index head_width() const { return d_kv > 0 ? d_kv : heads > 0 ? d_model / heads : 0; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && heads > 0 && kv_heads > 0 && heads % kv_heads == 0 &&
           layers > 0 && vocabulary > 0 && context > 0 && head_width() > 0 &&
           (d_kv > 0 || d_model % heads == 0) && eps > 0 && rope_theta > 0;
  }
};

/// Numbers of an encoder that stands alone: BERT (Devlin et al. 2019), DistilBERT, ALBERT.
struct encoder_shape {
  index d_model = 0;          ///< width of the residual stream
  index d_ff = 0;             ///< hidden width of the feed-forward
  index heads = 0;            ///< attention heads
  index layers = 0;           ///< blocks
  index vocabulary = 0;       ///< rows of the embedding
  index context = 0;          ///< longest sequence in tokens (the size of a learned position table)
  index types = 2;            ///< token types, such as first and second text; 0 for no such table
  index d_kv = 0;             ///< width of one head; 0 means d_model / heads
  double eps = 1e-12;         ///< added under the root of the norm
  double rope_theta = 10000;  ///< base of the rotary frequencies

  /// Width of one head.
  constexpr index head_width() const { return d_kv > 0 ? d_kv : heads > 0 ? d_model / heads : 0; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    return d_model > 0 && d_ff > 0 && heads > 0 && layers > 0 && vocabulary > 0 && context > 0 &&
           types >= 0 && head_width() > 0 && (d_kv > 0 || d_model % heads == 0) && eps > 0 &&
           rope_theta > 0;
  }
};

/// Kind of a layer's linear maps: one matrix each, two factors, or one matrix and a low-rank delta.
/// See projection.
struct projection_kind {
  index rank = 0;      ///< width between the two factors; 0 for a plain matrix
  bool delta = false;  ///< the factors are added to a matrix: W + alpha / rank B A (LoRA)
  index alpha = 0;     ///< numerator of a delta's factor alpha / rank

  /// Whether a map is one matrix.
  constexpr bool plain() const { return rank == 0; }
};

/// Values of a byte slot behind the bytes 0 to 255: `byte_pad` fills slots behind a token's bytes.
/// `byte_end` is the end of a text, which is a token of its own (Hillier et al. 2024).
inline constexpr token byte_pad = 256, byte_end = 257;
inline constexpr index byte_values = 258;  ///< how many there are

/// Rules for padding, and for the wiring of blocks, in a model of bytes (Hillier et al. 2024).
enum class byte_rules {
  corrected,  ///< padding is seen by nobody and not averaged; its first slot is the token's end
              ///< mark in the loss and the others have none; feed-forwards that keep the width have
              ///< a residual, and the head adds its positions once
  repository  ///< as the published code computes: padding is a byte like others, is averaged and
              ///< trained on in every slot, byte_end is not; no residual; 2x + position in the head
};

/// Numbers of a byte_pooled model's two ends. The embedder makes one vector of a token's bytes; the
/// head predicts the bytes of the next token.
struct byte_pooling {
  index bytes_per_token = 12;  ///< bytes of a token that are kept; shorter ones are padded
  index width = 128;  ///< width of a byte's vector, before the embedder's blocks and in the head
  index between[7] = {256, 256, 256};  ///< widths between the embedder's blocks, up to the first 0;
                                       ///< the last block goes to d_model
  index head_blocks = 7;               ///< blocks of the head, all `width` wide
  index heads = 8;                     ///< attention heads of every block
  index expansion = 4;                 ///< hidden width of a feed-forward, times its input's width
  byte_rules rules = byte_rules::corrected;

  /// Number of blocks of the embedder.
  constexpr index blocks() const {
    index n = 1;
    while (n <= 7 && between[n - 1] > 0) ++n;
    return n;
  }
  /// Width of the input of the embedder's block `k`.
  constexpr index width_before(index k) const { return k == 0 ? width : between[k - 1]; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    for (index k = 0; k < blocks(); ++k)
      if (heads <= 0 || width_before(k) % heads != 0) return false;
    for (index k = blocks() - 1; k < 7; ++k)
      if (between[k] != 0) return false;
    return bytes_per_token > 0 && width > 0 && head_blocks > 0 && expansion > 0;
  }
  /// These numbers under other rules.
  constexpr byte_pooling under(byte_rules other) const {
    byte_pooling same = *this;
    same.rules = other;
    return same;
  }
  /// The published code: four blocks 128-256-256-256-d in the embedder, seven in the head.
  static constexpr byte_pooling repository() { return {}; }
  /// The paper: bytes of width 64 and two blocks; numbers that it does not state are taken from the
  /// code.
  static constexpr byte_pooling paper() { return {.width = 64, .between = {64}, .head_blocks = 2}; }
};

/// A real number as a template argument (clang 14 does not take a plain double).
struct real {
  double value;
  /// From a plain number.
  constexpr real(double x) : value(x) {}
};

/// A positive factor as a template argument, such as `expansion{1.5}`; kept to 1/1000.
struct expansion {
  index thousandths;
  /// From a plain number.
  constexpr expansion(double factor) : thousandths(static_cast<index>(factor * 1000 + 0.5)) {}
  /// `width` times the factor, rounded to the nearest whole number.
  constexpr index of(index width) const { return (width * thousandths + 500) / 1000; }
};

LINNET_NAMESPACE_END
/// @file
/// The key-value cache: storage of the keys and values of the tokens that a session was fed.

/// @file
/// The key-value cache in 4 bits: keys per channel, values per token (Hooper et al. 2024).

/// @file
/// Softmax attention, forward and backward, in blocks of query rows (Vaswani et al. 2017, eq.
/// 1). No matrix of all queries by all keys is ever held. Keys and values are read as they are
/// stored.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Query rows that are worked on at a time.
inline constexpr index attention_rows = 48;
/// A distance that bounds nothing.
inline constexpr index any_distance = index{1} << 48;

/// Window of keys that a query at position p sees: those at [p - before, p + after], and the
/// `first` ones. None of them comes after p + after.
struct attention_window {
  index before = any_distance;
  index after = any_distance;
  index first = 0;

  /// Whether some query may not see a key that is earlier than another one it sees.
  constexpr bool bounded() const { return before < any_distance; }
  /// The most keys of `keys` that a block of `rows` queries looks at, with padding.
  constexpr index width(index keys, index rows) const {
    const index recent =
        bounded() ? (std::min)(keys, before + (std::min)(after, keys) + rows) : keys;
    return round_up(recent, panel_width) + round_up(first, panel_width);
  }
};

/// One attention call: q[batch, queries, heads*h] against `keys` keys and values.
template <class T, class Code = T>
struct attention_call {
  index batch, queries, keys;  ///< padded lengths
  index heads, kv_heads, h;
  attention_window window;
  T scale;  ///< of the scores
  const T* q;
  const T* q_first = nullptr;  ///< other queries for the `first` keys, or null for the same
  kv_rows<Code> k, v;
  T* out;                                ///< [batch, queries, heads*h]
  const index* past = nullptr;           ///< position of each sequence's first query, or null for 0
  const index* query_lengths = nullptr;  ///< valid queries of each causal sequence, or null for all
  const index* key_lengths = nullptr;    ///< valid keys of each sequence, or null for all
  const index* prefix = nullptr;         ///< first keys of each sequence that all its queries see
  const T* bias = nullptr;  ///< lines [heads, 2*bias_origin + 1], by key position - query position
  index bias_origin = 0;
  index kept = any_distance;  ///< queries stand no further than kept - 1 from the `first` keys
  T* scratch = nullptr;       ///< per thread, attention_scratch() values
  index scratch_size = 0;
  dropout_key dropout{};
  int dropout_id = 0;
};

/// Gradients of an attention call over plain keys and values; everything is added to.
template <class T>
struct attention_gradient {
  const T* d_out;
  T *dq, *dk, *dv;
  T* dq_first = nullptr;  ///< of q_first, where that is given
  T* d_bias = nullptr;    ///< lines per sequence [batch, heads, 2*bias_origin + 1], or null
};

/// Scratch values that one thread needs for calls of up to `queries` queries a sequence. `gathers`
/// unless keys and values are kv_rows::plain().
constexpr index attention_scratch(index queries, index keys, index h, const attention_window& seen,
                                  bool training, bool gathers = false) {
  const index wide = seen.width(keys, (std::min)(queries, attention_rows));
  return (training ? 3 : 1) * attention_rows * wide + (training || gathers ? 2 : 1) * h * wide;
}

namespace detail {

/// A product out[rows, h] (+)= p[rows, keys] v[keys, h] of probabilities and values.
template <class T>
struct value_mix {
  index rows, h, keys;
  index shared;  ///< all rows see the keys before it
  const T* p;
  index ldp;
  const T* v;
  index ldv;
  T* out;
  index ldo;
  bool accumulate = false;

  /// Computes it. A row ignores keys that it does not see, even if they are not finite:
  /// sees(row, key) is false.
  template <class Kernels, class Sees>
  void run(Kernels, Sees&& sees) const {
    const auto finite = [&](index j, index count) {
      return Kernels::template all_finite<T>(count, h, v + j * ldv, ldv);
    };
    const bool clean = shared >= keys || finite(shared, keys - shared);
    bool add = accumulate;
    for (index from = 0, to = keys;; from = to + 1, add = true) {
      if (!clean)
        for (to = (std::max)(from, shared); to < keys && finite(to, 1);) ++to;
      Kernels::template multiply<T>(rows, h, to - from, {p + from, ldp, 1},
                                    {v + from * ldv, ldv, panel_width}, out, ldo,
                                    {nullptr, T(1), add});
      if (to == keys) return;
      for (index i = 0; i < rows; ++i)
        for (index c = 0; c < h && sees(i, to); ++c)
          out[i * ldo + c] += p[i * ldp + to] * v[to * ldv + c];
    }
  }
};

/// Everything about one (sequence, key-value head) that both directions share.
template <class T, class Code>
struct attention_unit {
  /// Keys [first, last) whose scores begin at a column.
  struct stretch {
    index first = 0, last = 0, column = 0;
  };
  /// Some query rows of a head and what they see.
  struct block {
    index row, rows;  ///< queries [row, row + rows)
    index view;       ///< block of tokens that they see as given, where codes differ by that, or -1
    stretch part[2];  ///< the first keys and the near ones; without `first` only the latter
    index used;       ///< columns of scores

    const stretch* begin() const { return part; }
    const stretch* end() const { return part + 2; }
  };

  const attention_call<T, Code>& call;
  index b, g, n, valid, past, prefix, wide;
  bool by_view;  ///< what a query sees of a key depends on the query's block of tokens
  simd::token_rows<Code> key, value;
  T *scores, *key_columns, *values;

  attention_unit(const attention_call<T, Code>& c, index unit, int rank)
      : call(c),
        b(unit / c.kv_heads),
        g(unit % c.kv_heads),
        n(c.heads * c.h),
        valid(c.key_lengths ? c.key_lengths[b] : c.keys),
        past(c.past ? c.past[b] : 0),
        prefix(c.prefix ? c.prefix[b] : 0),
        wide(c.window.width(c.keys, (std::min)(c.queries, attention_rows))),
        by_view(std::is_same_v<Code, int4_code> && c.past),
        key(c.k.of(b, g)),
        value(c.v.of(b, g)),
        scores(c.scratch + rank * c.scratch_size),
        key_columns(scores + attention_rows * wide),
        values(key_columns + c.h * wide) {
    // What follows the last valid query of a causal sequence was never there.
    const index queries = c.query_lengths ? c.query_lengths[b] : c.queries;
    valid = (std::min)(valid, (std::max)(prefix, past + queries + call.window.after));
  }

  /// End of the keys that query i sees.
  index end_of(index i) const {
    return (std::min)(valid, (std::max)(prefix, past + i + call.window.after + 1));
  }
  /// Beginning of the keys that query i sees, not counting the `first` ones.
  index begin_of(index i) const {
    return (std::max)(call.window.first, past + i - call.window.before);
  }
  /// Whether kernels read keys and values where they are: one query, codes that they know.
  static constexpr bool direct(const block& some) {
    return some.rows == 1 && !std::is_same_v<Code, int4_code>;
  }
  block at(index row) const {
    const index first = call.window.first;
    block some{row, (std::min)(attention_rows, call.queries - row), -1, {}, 0};
    if (by_view) {  // all of a block's queries have one view
      some.view = (std::max)(past + row, prefix - 1) / simd::token_block;
      some.rows = (std::min)(some.rows, (some.view + 1) * simd::token_block - past - row);
    }
    const index step = direct(some) ? 1 : panel_width, last = end_of(row + some.rows - 1);
    some.part[0].last = (std::min)(first, last);
    some.part[1] = {begin_of(row), last, round_up(some.part[0].last, step)};
    some.part[1].first = (std::min)(some.part[1].first, last);
    some.used = some.part[1].column + last - some.part[1].first;
    return some;
  }

  /// columns[h, wide] = rows of one stretch, transposed, zero behind them.
  void transpose(const stretch& s, const simd::token_rows<Code>& rows, const kv_rows<Code>& all,
                 index view, T* columns) const {
    const index end = s.column + round_up(s.last - s.first, panel_width);
    for (index j = s.first; j < s.last; ++j)
      all.load(b, g, j, rows.place(j), call.h, columns + s.column + j - s.first, wide, view);
    for (index c = 0; c < call.h; ++c)
      std::fill(columns + c * wide + s.column + s.last - s.first, columns + c * wide + end, T(0));
  }
  /// Prepares the keys of a block: all of them with the first block, unless windows are bounded.
  void prepare(const block& some, T* value_columns) const {
    if (direct(some) && !value_columns) return;
    const bool all = !call.window.bounded();
    if (all && some.row > 0 && !by_view) return;
    for (stretch s : some) {
      if (s.first == s.last) continue;
      if (all) s.last = valid;
      if (all && some.row > 0) {  // the view has moved by a block
        const index known = (some.view - 1) * simd::token_block - s.first;
        const index skip = (std::max)(known, index{0}) / panel_width * panel_width;
        transpose({s.first + skip, s.last, s.column + skip}, key, call.k, some.view, key_columns);
        continue;
      }
      transpose(s, key, call.k, some.view, key_columns);
      if (value_columns) transpose(s, value, call.v, -1, value_columns);
      if (call.v.plain() && std::is_same_v<T, Code>) continue;
      for (index j = s.first; j < s.last; ++j)
        call.v.load(b, g, j, value.place(j), call.h, values + (s.column + j - s.first) * call.h, 1,
                    -1);
    }
  }
  /// x[i] *= the scales of a stretch of codes.
  void rescale(const stretch& s, const simd::token_rows<Code>& rows, const kv_rows<Code>& all,
               T* x) const {
    for (index j = s.first; j < s.last && all.scales; ++j)
      x[j - s.first] *= static_cast<T>(all.scale(b, rows.place(j), g));
  }

  /// The queries that a stretch of keys is compared with.
  const T* queries(const block& some, const stretch& s) const {
    return &s == some.part && call.q_first ? call.q_first : call.q;
  }
  /// scores[rows, wide] = softmax of some query rows of a head; zero where a row sees nothing.
  /// Those of a single row are not divided by their sum, which is returned, if `Whole` is false.
  template <bool Whole = true, class Kernels>
  T probabilities(Kernels, index head, const block& some) const {
    T sum = 1;
    const index q_at = (b * call.queries + some.row) * n + head * call.h;
    for (const stretch& s : some) {
      if (s.first == s.last) continue;
      const T* const q = queries(some, s) + q_at;
      if (direct(some)) {
        if constexpr (!std::is_same_v<Code, int4_code>) {
          Kernels::template dots<T>(s.first, s.last, call.h, call.scale, q, key, scores + s.column);
          rescale(s, key, call.k, scores + s.column);
        }
      } else {
        Kernels::template multiply<T>(some.rows, round_up(s.last - s.first, panel_width), call.h,
                                      {q, n, 1}, {key_columns + s.column, wide, panel_width},
                                      scores + s.column, wide, {nullptr, call.scale, false});
      }
    }
    for (index i = 0; i < some.rows; ++i) {
      T* const row = scores + i * wide;
      index count = 0, seen = 0;  // columns in use, keys seen
      for (const stretch& s : some) {
        const index open = &s == some.part ? s.first : begin_of(some.row + i);
        const index from = (std::clamp)(open, s.first, s.last);
        const index to = (std::clamp)(end_of(some.row + i), from, s.last);
        const index at = s.column + from - s.first;
        if (to == from) continue;
        if (call.bias)
          Kernels::template add<T>(to - from, row + at,
                                   bias_line(call.bias, head, some, s, i) + from, row + at);
        std::fill(row + count, row + (std::max)(count, at), T(-1e30));
        count = at + to - from;
        seen += to - from;
      }
      if (seen > 0 && (Whole || some.rows > 1))
        Kernels::template softmax<T>(count, row);
      else if (seen > 0)
        sum = Kernels::template exp_sum<T>(count, Kernels::template maximum<T>(count, row), row);
      std::fill(row + count, row + some.used, T(0));
    }
    return sum;
  }
  /// Where key 0 is in the line of position biases of row `i` of a block. Padding behind a full
  /// cache has no place in the line and takes the last one.
  template <class Line>
  Line* bias_line(Line* lines, index head, const block& some, const stretch& s, index i) const {
    const index position = (std::min)(past + some.row + i, call.bias_origin);
    return lines + head * (2 * call.bias_origin + 1) + call.bias_origin -
           (&s == some.part ? (std::min)(position, call.kept - 1) : position);
  }
  /// Multiplies rows of probabilities, or of their gradient, with the dropout mask.
  template <class Kernels>
  void drop(Kernels kernels, index head, const block& some, T* x) const {
    for (index i = 0; i < some.rows; ++i)
      for (const stretch& s : some)
        ops::drop(kernels, call.dropout, b, call.dropout_id,
                  (head * call.queries + some.row + i) * call.keys + s.first, s.last - s.first,
                  x + i * wide + s.column);
  }
};

}  // namespace detail

/// out = softmax(scale q k^T + bias) v over the keys in each query's window. Every query must see a
/// key.
template <class T, class Code>
void attention(const execution& on, const attention_call<T, Code>& call) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      const detail::attention_unit<T, Code> u(call, item, on.threads.rank());
      const index group = call.heads / call.kv_heads, h = call.h;
      for (index row = 0, rows = 0; row < call.queries; row += rows) {
        const auto some = u.at(row);
        rows = some.rows;
        u.prepare(some, nullptr);
        for (index head = u.g * group; head < (u.g + 1) * group; ++head) {
          const T sum = u.template probabilities<false>(kernels, head, some);
          u.drop(kernels, head, some, u.scores);
          T* const out = call.out + (u.b * call.queries + row) * u.n + head * h;
          bool more = false;
          for (const auto& s : some) {
            if (s.first == s.last) continue;
            T* const p = u.scores + s.column;
            if (u.direct(some)) {
              if constexpr (!std::is_same_v<Code, int4_code>) {
                u.rescale(s, u.value, call.v, p);
                K::template mix<T>(s.first, s.last, h, p, u.value, out, more);
              }
            } else {
              const T* v = u.values + s.column * h;
              index ldv = h;
              if constexpr (std::is_same_v<T, Code>)
                if (call.v.plain()) v = u.value.row(s.first), ldv = u.value.stride;
              const auto begin_of = [&](index i) {
                return &s == some.part ? s.first : u.begin_of(row + i);
              };
              const index shared = begin_of(some.rows - 1) > s.first
                                       ? 0
                                       : (std::max)(u.end_of(row) - s.first, index{0});
              const detail::value_mix<T> mix{
                  some.rows, h, s.last - s.first, shared, p, u.wide, v, ldv, out, u.n, more};
              mix.run(kernels, [&](index i, index j) {
                return s.first + j >= begin_of(i) && s.first + j < u.end_of(row + i);
              });
            }
            more = true;
          }
          if (!more)
            for (index i = 0; i < some.rows; ++i) std::fill_n(out + i * u.n, h, T(0));
          else if (some.rows == 1)
            K::template scale<T>(h, T(1) / sum, out);
        }
      }
    });
  });
}

/// The derivative of attention(): adds to dq, dk, dv and d_bias. Probabilities are recomputed.
template <class T>
void attention_backward(const execution& on, const attention_call<T>& call,
                        const attention_gradient<T>& grad) {
  on.threads.each(call.batch * call.kv_heads, [&](index item) {
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      const detail::attention_unit<T, T> u(call, item, on.threads.rank());
      const index group = call.heads / call.kv_heads, h = call.h, wide = u.wide;
      T* const value_columns = u.values;
      T* const d_scores = value_columns + h * wide;
      T* const dropped = d_scores + attention_rows * wide;
      T* const dk = grad.dk + (u.key.data - call.k.data);
      T* const dv = grad.dv + (u.value.data - call.v.data);
      for (index row = 0; row < call.queries; row += attention_rows) {
        const auto some = u.at(row);
        u.prepare(some, value_columns);
        for (index head = u.g * group; head < (u.g + 1) * group; ++head) {
          u.probabilities(kernels, head, some);
          const index rows = some.rows, at = (u.b * call.queries + row) * u.n + head * h;
          const T* const d_out = grad.d_out + at;
          std::copy_n(u.scores, rows * wide, dropped);
          u.drop(kernels, head, some, dropped);
          // dv += P^T d_out, dP = d_out v^T
          std::fill_n(d_scores, rows * wide, T(0));
          for (const auto& s : some) {
            const index keys = s.last - s.first;
            K::template multiply<T>(keys, h, rows, {dropped + s.column, 1, wide},
                                    {d_out, u.n, panel_width}, dv + s.first * u.value.stride,
                                    u.value.stride, {nullptr, T(1), true});
            K::template multiply<T>(rows, round_up(keys, panel_width), h, {d_out, u.n, 1},
                                    {value_columns + s.column, wide, panel_width},
                                    d_scores + s.column, wide, {});
          }
          u.drop(kernels, head, some, d_scores);
          for (index i = 0; i < rows; ++i) {
            T* const d_row = d_scores + i * wide;
            // Where the row sees nothing its probabilities are zero, and so is this.
            K::template softmax_backward<T>(some.used, u.scores + i * wide, d_row, d_row);
            for (const auto& s : some)
              if (grad.d_bias) {
                T* const line = u.bias_line(
                    grad.d_bias + u.b * call.heads * (2 * call.bias_origin + 1), head, some, s, i);
                const index count = (std::min)(s.last, u.end_of(row + i)) - s.first;
                if (count > 0)
                  K::template add<T>(count, line + s.first, d_row + s.column, line + s.first);
              }
          }
          // dq += scale dS k, dk += scale dS^T q
          for (const auto& s : some) {
            const index keys = s.last - s.first;
            T* const dq = &s == some.part && call.q_first ? grad.dq_first : grad.dq;
            K::template multiply<T>(rows, h, keys, {d_scores + s.column, wide, 1},
                                    {u.key.row(s.first), u.key.stride, panel_width}, dq + at, u.n,
                                    {nullptr, call.scale, true});
            K::template multiply<T>(keys, h, rows, {d_scores + s.column, 1, wide},
                                    {u.queries(some, s) + at, u.n, panel_width},
                                    dk + s.first * u.key.stride, u.key.stride,
                                    {nullptr, call.scale, true});
          }
        }
      }
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Rows of a cache: `fixed` first ones and a ring behind them, or one row for each token.
struct kv_places {
  index tokens = 0;  ///< of each sequence
  index fixed = 0, ring = 0;

  constexpr kv_places() = default;
  /// Plans for texts of `count` tokens of which the `first` and the last `recent` ones are read: a
  /// ring where that is smaller.
  constexpr kv_places(index count, index first, index recent) : tokens(count) {
    const index block = ops::token_block;
    if (recent >= count || round_up(first, block) + round_up(recent, block) >= count) return;
    fixed = round_up(first, block);
    ring = round_up(recent, block);
    tokens = fixed + ring;
  }
};

/// Keys, or values, of one layer in 4 bits; see ops::kv_rows<int4_code>.
template <index Heads, index H, bool Keys>
struct kv_buffer4 {
  using code = ops::int4_code;
  static constexpr bool exact = false;
  static constexpr index heads = Heads, width = H;
  static constexpr index block = ops::token_block, pairs = (H + 1) / 2;
  /// Number of exact keys of one sequence.
  static constexpr index kept_newest = Heads * ops::kv_rows<code>::newest_blocks * block * H;

  code* data = nullptr;
  float* scales = nullptr;
  float* newest = nullptr;  ///< [batch, Heads, newest_blocks, block, H] the newest keys as they are
  kv_places places{};

  /// Plans room as kv_buffer::plan() does; never paged.
  constexpr void plan(arena& state, index batch, index count, index first, index recent, index) {
    places = {count, first, recent};
    places.tokens = round_up(places.tokens, block);
    data = state.take<code>(batch * codes());
    scales = state.take<float>(batch * factors());
    if (Keys) newest = state.take<float>(batch * kept_newest);
  }
  constexpr bool gathered() const { return true; }
  constexpr ops::kv_rows<code> rows(const ops::page_tables&) const {
    return {data, places.tokens, Heads, H, Keys, scales, places.fixed, places.ring, newest};
  }
  /// Stores values x[H] as token `j` of a head of sequence `b` of `all`, which are rows().
  template <class T>
  void put(const ops::kv_rows<code>& all, index b, index head, index j, const T* x) const {
    const index at = (b * places.tokens + all.of(b, head).place(j)) * Heads + head;
    scales[at] = encode(H, x, 1, data + at * pairs);
  }
  /// Rounds the keys of the block of tokens that ends with `j`, from their exact values.
  void close_block(const ops::kv_rows<code>& all, index b, index head, index j) const {
    float rows[std::size_t{block * H}] = {};
    for (index t = 0; t <= j % block; ++t)
      std::copy_n(all.given(b, head, j - j % block + t), H, rows + t * H);
    const index at = all.block_at(b, head, all.of(b, head).place(j));
    for (index c = 0; c < H; ++c)
      scales[at + c] = encode(block, rows + c, H, data + (at + c) * block / 2);
  }
  /// Keeps the newest keys exact, once attention has read those before them. Of `length` tokens
  /// these are the last newest_blocks blocks.
  void keep_newest(const ops::kv_rows<code>& all, index b, index head, index length) const {
    const index before = all.past[b], last = (before + length - 1) / block;
    for (index j = (std::max)(before, (last + 1 - all.newest_blocks) * block); j < before + length;
         ++j)
      std::copy_n(all.given(b, head, j), H, newest + all.newest_at(b, head, j) + j % block * H);
  }
  /// Copies sequence `from` to sequence `to`.
  void copy(index from, index to, index, index) const {
    const auto whole = [&](auto* x, index count) {
      std::copy_n(x + from * count, count, x + to * count);
    };
    whole(data, codes());
    whole(scales, factors());
    if (Keys) whole(newest, kept_newest);
  }
  void copy_block(index, index) const {}

 private:
  /// Bytes of codes, and scales, of one sequence.
  constexpr index codes() const { return places.tokens * Heads * (Keys ? H : 2 * pairs) / 2; }
  constexpr index factors() const { return places.tokens * Heads * (Keys ? H : block) / block; }
  /// Codes of n numbers, `step` apart; returns their scale: max|x| / 7. It is 1 for numbers that
  /// are nearly zero, and NaN if one is not finite.
  template <class T>
  static float encode(index n, const T* x, index step, code* to) {
    float most = 0;
    for (index i = 0; i < n; ++i) {
      const auto v = static_cast<float>(x[i * step]);
      if (!is_finite(v)) {
        std::fill_n(to, (n + 1) / 2, static_cast<code>(0x88));
        return std::numeric_limits<float>::quiet_NaN();
      }
      most = (std::max)(most, std::abs(v));
    }
    const float least = (std::numeric_limits<float>::min)();
    const float scale = most / 7 < least ? 1 : most / 7;
    for (index i = 0; i < n; i += 2) {
      unsigned both = 0;
      for (index k = 0; k < 2; ++k) {
        const float v = i + k < n ? static_cast<float>(x[(i + k) * step]) / scale : 0.0f;
        both |= static_cast<unsigned>(static_cast<int>(std::nearbyint(v)) + 8) << (4 * k);
      }
      to[i / 2] = static_cast<code>(both);
    }
    return scale;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// How the numbers of a key-value cache are stored.
enum class kv_code {
  exact,  ///< in the model's scalar type
  bf16,   ///< bfloat16, half the bytes
  int8,   ///< 8-bit integers with one scale for each head of each token, about a quarter
  int4    ///< 4-bit integers, keys with a scale for each channel of 32 tokens, about a sixth
};

/// Policies for the key-value cache of a model: decoder<shape, kv::int8>. Weights do not depend on
/// it. Models in double keep doubles.
namespace kv {
/// Base of the cache policies.
struct policy {};
/// Keys and values in the model's scalar type.
struct exact : policy {
  static constexpr kv_code code = kv_code::exact;
};
/// Keys and values rounded to bfloat16, nearest even.
struct bf16 : policy {
  static constexpr kv_code code = kv_code::bf16;
};
/// Keys and values rounded to int8, symmetric, with one scale for each head of each token. The
/// error is at most half a scale, max|x| / 254.
struct int8 : policy {
  static constexpr kv_code code = kv_code::int8;
};
/// Keys and values rounded to 4-bit integers (Hooper et al. 2024). Values have one scale for each
/// head of each token, keys one for each channel of 32 tokens, the newest of which stay exact. An
/// error of half a scale, that is max|x| / 14, at most. Attention decodes what it reads; not for
/// paged caches.
struct int4 : policy {
  static constexpr kv_code code = kv_code::int4;
};
}  // namespace kv

namespace detail {

/// Keys, or values, of one layer: [batch, tokens, Heads, slot].
template <class T, kv_code Code, index Heads, index H>
struct kv_buffer {
  static constexpr bool exact = Code == kv_code::exact || sizeof(T) != sizeof(float);
  static_assert(exact || Code != kv_code::int4);
  using code =
      std::conditional_t<exact, T,
                         std::conditional_t<Code == kv_code::bf16, ops::bf16_code, std::int8_t>>;
  static constexpr index heads = Heads, width = H;
  static constexpr bool scaled = !exact && Code == kv_code::int8;
  // Kernels write whole words of codes.
  static constexpr index slot = round_up(H, exact ? 1 : 4 / static_cast<index>(sizeof(code)));

  code* data = nullptr;
  float* scales = nullptr;  ///< [batch, tokens, Heads]
  kv_places places{};
  bool paged = false;  ///< [blocks, token_block, Heads, slot], shared by all sequences

  /// Plans room for `count` tokens of each sequence, or only for the `first` and the last `recent`
  /// ones if those are fewer. With `blocks` above 0, plans that many blocks of tokens altogether
  /// instead.
  constexpr void plan(arena& state, index batch, index count, index first, index recent,
                      index blocks) {
    places = {count, first, recent};
    if (places.ring == 0 && blocks > 0) {
      paged = true;
      places.tokens = blocks * ops::token_block;
      batch = 1;
    }
    data = state.take<code>(batch * places.tokens * Heads * slot);
    if (scaled) scales = state.take<float>(batch * places.tokens * Heads);
  }
  /// Whether several queries need a copy of what they look at.
  constexpr bool gathered() const { return !exact || places.ring > 0 || paged; }
  /// The rows that attention reads, in `pages` where the cache is paged.
  constexpr ops::kv_rows<code> rows(const ops::page_tables& pages) const {
    return {data,   places.tokens, Heads * slot, slot,
            scales, places.fixed,  places.ring,  paged ? pages : ops::page_tables{}};
  }
  /// Stores x[Heads, H] as token `j` of sequence `b` of `all`, which are rows(). In any order.
  void put(const ops::execution& on, const ops::kv_rows<code>& all, index b, index j,
           const T* x) const {
    const index row = (paged ? 0 : b * places.tokens) + all.of(b, 0).place(j);
    code* const to = data + row * Heads * slot;
    if constexpr (exact) {
      std::copy_n(x, Heads * H, to);
    } else {
      on.with_kernels([&](auto kernels) {
        using K = decltype(kernels);
        for (index head = 0; head < Heads; ++head) {
          [[maybe_unused]] std::int32_t sum = 0;
          if constexpr (scaled)
            scales[row * Heads + head] =
                K::template to_int8<T>(H, x + head * H, to + head * slot, sum);
          else
            K::template to_bf16<T>(H, x + head * H, to + head * slot);
        }
      });
    }
  }
  /// Copies tokens [first, last) of sequence `from` to sequence `to`; paged ones are shared.
  void copy(index from, index to, index first, index last) const {
    if (paged) return;
    if (places.ring > 0) first = 0, last = places.tokens;  // wherever they are
    copy_rows(from * places.tokens + first, to * places.tokens + first, last - first);
  }
  /// Copies block `from` to block `to`.
  void copy_block(index from, index to) const {
    if (paged) copy_rows(from * ops::token_block, to * ops::token_block, ops::token_block);
  }

 private:
  void copy_rows(index from, index to, index count) const {
    if (count <= 0) return;
    const index row = Heads * slot;
    std::copy_n(data + from * row, count * row, data + to * row);
    if (scaled) std::copy_n(scales + from * Heads, count * Heads, scales + to * Heads);
  }
};

template <class T, kv_code Code, index Heads, index H, bool Keys>
struct pick_kv_buffer {
  using type = kv_buffer<T, Code, Heads, H>;
};
template <index Heads, index H, bool Keys>
struct pick_kv_buffer<float, kv_code::int4, Heads, H, Keys> {
  using type = kv_buffer4<Heads, H, Keys>;
};

/// Keys that a call reads from a cache; `fresh` [batch, length, heads, h] are its own, behind
/// `past` [batch] tokens.
template <class Keys, class T>
auto key_rows(const Keys& keys, const context<T>& ctx, const T* fresh, index length,
              const index* past) {
  auto rows = keys.rows(ctx.pages);
  if constexpr (requires { rows.fresh; })
    rows.fresh = fresh, rows.fresh_length = length, rows.past = past;
  return rows;
}

/// Stores keys k[batch, length, heads of keys, h] and values v[batch, length, heads of values, h]
/// in a cache. They are the new tokens of this call, or with `all` those of the encoder's output.
/// Several heads of keys may share one of values.
template <class Keys, class Values, class T>
void keep_tokens(const Keys& keys, const Values& values, const context<T>& ctx, index length,
                 bool all, const T* k, const T* v) {
  constexpr index heads = Keys::heads, group = heads / Values::heads, h = Keys::width;
  const auto rows = key_rows(keys, ctx, k, length, all ? nullptr : ctx.past);
  const auto value_rows = values.rows(ctx.pages);
  const auto count = [&](index b) { return all ? ctx.memory.length_of(b) : ctx.length_of(b); };
  const auto at = [&](index b, index t) { return all ? t : ctx.past[b] + t; };
  if constexpr (requires { rows.past; }) {  // whole blocks of keys are rounded together
    ctx.on.threads.each(ctx.batch * heads, [&](index unit) {
      const index b = unit / heads, head = unit % heads;
      for (index t = 0, n = count(b); t < n; ++t) {
        const index j = at(b, t);
        if ((j + 1) % Keys::block == 0 || (all && t + 1 == n)) keys.close_block(rows, b, head, j);
        if (head % group == 0)
          values.put(value_rows, b, head / group, j,
                     v + ((b * length + t) * Values::heads + head / group) * h);
      }
    });
  } else {
    ctx.on.threads.each(ctx.batch * length, [&](index row) {
      const index b = row / length, t = row % length;
      if (t >= count(b)) return;
      keys.put(ctx.on, rows, b, at(b, t), k + row * heads * h);
      values.put(ctx.on, value_rows, b, at(b, t), v + row * Values::heads * h);
    });
  }
}

/// Ends a call that used keep_tokens(), once attention has read this call's rows, which are
/// key_rows().
template <class Keys, class Rows, class T>
void keep_newest(const Keys& keys, const Rows& rows, const context<T>& ctx) {
  if constexpr (requires { rows.newest; })
    ctx.on.threads.each(ctx.batch * Keys::heads, [&](index unit) {
      const index b = unit / Keys::heads;
      keys.keep_newest(rows, b, unit % Keys::heads, ctx.length_of(b));
    });
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Names of policies, and policies without a layer of their own: positions, weight tying, biases,
/// and wrappers for one stack of an encoder-decoder.

/// @file
/// T5's buckets of relative positions.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// T5's bucket of a relative position key - query (Raffel et al. 2020, section 2.1). Buckets are
/// exact up to a quarter (bidirectional) or half (causal) of them, then logarithmic up to
/// `max_distance`.
constexpr index relative_bucket(index relative, bool bidirectional, index buckets,
                                index max_distance) {
  index base = 0, distance = relative > 0 ? 0 : -relative;
  if (bidirectional) {
    buckets /= 2;
    if (relative > 0) {
      base = buckets;
      distance = relative;
    }
  }
  const index exact = buckets / 2;
  if (distance < exact) return base + distance;
  // bucket = exact + trunc(log(distance/exact) / log(max/exact) * (buckets - exact)), found without
  // logarithms: the largest k with distance/exact >= (max/exact)^(k / (buckets - exact)), that is
  // (distance/exact)^(buckets - exact) >= (max/exact)^k.
  const index logarithmic = buckets - exact;
  double power = 1;
  for (index i = 0; i < logarithmic; ++i)
    power *= static_cast<double>(distance) / static_cast<double>(exact);
  const double step = static_cast<double>(max_distance) / static_cast<double>(exact);
  index k = 0;
  for (double threshold = step; k < logarithmic - 1 && power >= threshold * (1 - 1e-12);
       threshold *= step)
    ++k;
  return base + exact + k;
}

}  // namespace ops

LINNET_NAMESPACE_END
/// @file
/// Absolute positions: rotary embeddings in both pairings, and sinusoids.

LINNET_NAMESPACE_BEGIN

/// Which two values of a head a rotary embedding rotates together.
enum class rope_pairing {
  none,
  interleaved,  ///< (2i, 2i+1): Meta's Llama, llama2.c
  half          ///< (i, i + h/2): Hugging Face's Llama
};

namespace ops {

/// angles[h]: cosines of position * theta^(-2i/h), i < h/2, then sines.
template <class T>
void rope_angles(index position, index h, double theta, T* angles) {
  for (index i = 0; i < h / 2; ++i) {
    const double angle = static_cast<double>(position) *
                         std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(h));
    angles[i] = static_cast<T>(std::cos(angle));
    angles[h / 2 + i] = static_cast<T>(std::sin(angle));
  }
}
/// table[positions, h]: the angles of positions 0, 1, ....
template <class T>
void rope_table(index positions, index h, double theta, T* table) {
  for (index t = 0; t < positions; ++t) rope_angles(t, h, theta, table + t * h);
}

/// Rotates one row of `heads` heads of width h in place, for the position whose table row is given.
/// The derivative is the rotation the other way (`inverse`).
template <class T>
void rope_row(rope_pairing pairing, index heads, index h, const T* table, T* x, bool inverse) {
  const index half = h / 2;
  const index stride = pairing == rope_pairing::half ? 1 : 2,
              partner = pairing == rope_pairing::half ? half : 1;
  for (index head = 0; head < heads; ++head, x += h)
    for (index i = 0; i < half; ++i) {
      const T c = table[i], s = inverse ? -table[half + i] : table[half + i];
      const T a = x[i * stride], b = x[i * stride + partner];
      x[i * stride] = a * c - b * s;
      x[i * stride + partner] = a * s + b * c;
    }
}

/// The value at column `i` of the sinusoidal embedding of position `t` (Vaswani et al. 2017,
/// section 3.5). Even columns are sines, odd ones cosines, with wavelengths up to 10000 * 2 pi.
inline double sinusoid(index t, index i, index d) {
  const double angle = static_cast<double>(t) *
                       std::pow(10000.0, -static_cast<double>(i / 2 * 2) / static_cast<double>(d));
  return i % 2 == 0 ? std::sin(angle) : std::cos(angle);
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether a policy has a name of its own, by which files know it. Kinds that others derive from
/// say which they are by `kind`, so that a name that is only inherited does not count.
template <class P>
constexpr bool names_itself() {
  if constexpr (!requires { P::name(); })
    return false;
  else if constexpr (!requires { &P::kind::name; })
    return true;
  else if constexpr (std::is_same_v<P, typename P::kind> && requires { typename P::dense; })
    return names_itself<typename P::dense>();
  else
    return std::is_same_v<P, typename P::kind> || &P::name != &P::kind::name;
}

}  // namespace detail

/// Position policies of decoder-only models.
namespace position {
/// Base of every position policy.
struct policy {
  static constexpr rope_pairing pairing = rope_pairing::none;
};
/// Rotary, interleaved pairs (2i, 2i+1): Meta's Llama, llama2.c, STLM.
struct rope : policy {
  static constexpr rope_pairing pairing = rope_pairing::interleaved;
};
/// Rotary, pairs (i, i + h/2): Hugging Face's Llama.
struct rope_half : policy {
  static constexpr rope_pairing pairing = rope_pairing::half;
};
struct learned : policy {};  ///< a trained table [context, d_model], added to the embedding (GPT-2)
struct sinusoidal : policy {};  ///< fixed sines and cosines, added to the embedding
struct none : policy {};        ///< no positions: causal attention alone orders the tokens
}  // namespace position

/// Whether the output head shares the embedding's matrix.
namespace tie {
/// Base of the tying policies.
struct policy {};
struct tied : policy {};    ///< one matrix [vocabulary, d_model] at both ends
struct untied : policy {};  ///< a head of its own
}  // namespace tie

/// Whether linear maps have biases.
namespace bias {
/// Base of the bias policies.
struct policy {};
struct none : policy {};  ///< T5, Llama, STLM
struct all : policy {};   ///< GPT-2
}  // namespace bias

/// Where the norms of an encoder's blocks stand.
namespace norm_placement {
/// Base of the placements.
struct policy {};
/// y = norm(x + branch(x)): BERT.
struct post : policy {
  static constexpr bool first = false;
  static constexpr const char* text = "post";
};
/// y = x + branch(norm(x)), and a norm behind the last block (Xiong et al. 2020).
struct pre : policy {
  static constexpr bool first = true;
  static constexpr const char* text = "pre";
};
}  // namespace norm_placement

/// A policy for the encoder alone: t5<shape, encoder_stack<ffn::skip>>.
template <class Policy>
struct encoder_stack {};
/// A policy for the decoder stack alone: t5<shape, decoder_stack<ffn::skip>>.
template <class Policy>
struct decoder_stack {};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// The numbers of one attention layer, filled in by the model.
struct attention_shape {
  index d_model = 0;
  index heads = 0;
  index kv_heads = 0;  ///< heads % kv_heads == 0
  index d_kv = 0;      ///< width of one head
  bool causal = false;
  bool cross = false;     ///< keys and values come from the encoder's output
  bool scaled = true;     ///< scores are divided by sqrt(d_kv); T5 does not
  bool bias = false;      ///< linear maps have biases
  bool relative = false;  ///< add the stack's relative-position bias
  bool first = false;     ///< the first layer of its stack, for policies that are `first_differs`
  rope_pairing rope = rope_pairing::none;
  kv_code cache = kv_code::exact;
  projection_kind
      projections{};  ///< how the linear maps are made, for policies that are `supports_low_rank`

  /// Width of all query heads together.
  constexpr index n() const { return heads * d_kv; }
  /// Width of all key or value heads together.
  constexpr index kv() const { return kv_heads * d_kv; }
};

/// Attention policies: `layer<shape>` is a layer (see nn/layer.hpp) from width d_model to d_model.
/// It also has `state_values(tokens)`: the numbers that it keeps for each sequence of up to
/// `tokens` tokens while decoding.
namespace attention {

/// Base of every policy that mixes the tokens of a sequence; a kind overrides what differs. Models
/// refuse it where it cannot work. `static std::string name()` is what files call it: a kind that
/// is kept in files has one of its own. A kind that others derive from says `using kind = itself`.
struct policy {
  static constexpr bool causal = true;          ///< can be kept from seeing later tokens
  static constexpr bool bidirectional = true;   ///< can see later tokens
  static constexpr bool supports_cache = true;  ///< can continue cached sequences
  static constexpr bool can_truncate = false;   ///< cached tokens can be taken back again
  static constexpr bool evicts = false;         ///< a cache keeps only what later tokens will see
  static constexpr bool noncausal_grouping =
      false;  ///< later tokens decide which earlier ones meet,
              ///< but in sessions, where they are unknown
  static constexpr bool supports_token_subset =
      false;                                    ///< works on any subset of the tokens, with the
                                                ///< angles and the past that the context gives
  static constexpr bool takes_prefix = false;   ///< sees a prefix of the sequence both ways
  static constexpr index min_positions = 0;     ///< positions that it needs whatever the length
  static constexpr index longest = 0;           ///< most tokens an encoder may read; 0 for any
  static constexpr bool first_differs = false;  ///< the first layer of a stack is of another type
  static constexpr bool rotary = true;          ///< can take rotary positions
  static constexpr bool supports_low_rank =
      false;                                     ///< its linear maps may be of any projection_kind
  static constexpr bool embedding_norm = false;  ///< wants the embedding normalised first
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Linear maps with fewer numbers: a product of two thin factors, or a shared matrix plus a
/// low-rank delta of each layer's own.

/// @file
/// Layers applied one after the other, by name.

LINNET_NAMESPACE_BEGIN

/// A string usable as a template value: the name of a member of a chain.
template <std::size_t N>
struct fixed_string {
  char text[N]{};
  /// Makes the string from a literal.
  constexpr fixed_string(const char (&literal)[N]) {
    for (std::size_t i = 0; i < N; ++i) text[i] = literal[i];
  }
  /// The text without its final zero.
  constexpr operator std::string_view() const { return {text, N - 1}; }
};

/// A layer with the name that its parameters carry inside a chain, and the part of the model that
/// they are for storage::per_role.
template <fixed_string Name, class Layer, storage::part Part = storage::part::any>
struct named {
  using layer = Layer;
  static constexpr storage::part part = Part;
  static constexpr std::string_view name = Name;
};

namespace detail {

/// Value number K of a pack, at a fraction of the instantiations of a std::tuple.
template <std::size_t K, class T>
struct numbered {
  T value{};
};
template <class Numbers, class... T>
struct pack_of;
template <std::size_t... K, class... T>
struct pack_of<std::index_sequence<K...>, T...> : numbered<K, T>... {};
/// Pack of values, one of each type.
template <class... T>
using pack = pack_of<std::index_sequence_for<T...>, T...>;
/// Value number K of a pack.
template <std::size_t K, class T>
constexpr T& member(numbered<K, T>& s) {
  return s.value;
}
/// @copydoc member()
template <std::size_t K, class T>
constexpr const T& member(const numbered<K, T>& s) {
  return s.value;
}

/// Parameters of a chain of so many members.
template <class P, std::size_t Count>
concept has_members = P::members == Count;

}  // namespace detail

/// Layers applied one after the other: chain<named<"wi", linear<D, F>>, named<"act", relu<F>>,
/// ...>. Every intermediate result has a buffer of its own while training. An empty name adds
/// nothing to the path.
template <class First, class... Rest>
struct chain {
 private:
  static constexpr std::size_t count = 1 + sizeof...(Rest);
  template <std::size_t K>
  using item = std::tuple_element_t<K, std::tuple<First, Rest...>>;
  template <std::size_t K>
  using at_layer = typename item<K>::layer;
  template <std::size_t K, class S>
  using at_storage = storage::at<S, item<K>::part>;

 public:
  static constexpr index in = First::layer::in, out = at_layer<count - 1>::out;
  static constexpr bool adds_residual = linnet::detail::adds_residual<at_layer<count - 1>>();
  /// Whether each member takes what the one before gives.
  static constexpr bool widths_fit = [] {
    const index ins[] = {First::layer::in, Rest::layer::in..., out},
                outs[] = {First::layer::out, Rest::layer::out...};
    for (std::size_t k = 0; k < count; ++k)
      if (outs[k] != ins[k + 1]) return false;
    return true;
  }();

  template <class Form>
  struct params {
    linnet::detail::pack<typename First::layer::template params<form::at<Form, First::part>>,
                         typename Rest::layer::template params<form::at<Form, Rest::part>>...>
        items{};
    static constexpr std::size_t members = count;
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    if constexpr ((linnet::detail::has_members<P, count> && ...))  // else see visit_pairs()
      visit_from<0>(f, at, p...);
  }

  template <class T>
  struct cache {
    linnet::detail::pack<typename First::layer::template cache<T>,
                         typename Rest::layer::template cache<T>...>
        items{};
    T* between[count]{};   ///< output of each member but the last
    T* gradient[count]{};  ///< its gradient, while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    if (e.training) gradients_from<0>(m, e, c);
    plan_from<0>(m, e, c);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    static_assert(widths_fit, "linnet::chain: neighbouring members differ in width");
    if constexpr (widths_fit) forward_from<0, S>(p, x, y, c, ctx, residual);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    if constexpr (widths_fit) backward_from<0, S>(p, dp, x, dy, dx, c, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    copy_from<0>(c, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    return First::layer::flops(e) + (index{0} + ... + Rest::layer::flops(e));
  }

 private:
  template <std::size_t K, class F, class... P>
  static constexpr void visit_from(F&& f, const parameter_path& at, P&... p) {
    if constexpr (item<K>::name.empty())
      at_layer<K>::visit(f, at, linnet::detail::member<K>(p.items)...);
    else
      at_layer<K>::visit(f, at / item<K>::name, linnet::detail::member<K>(p.items)...);
    if constexpr (K + 1 < count) visit_from<K + 1>(f, at, p...);
  }
  template <std::size_t K, class T>
  static constexpr void plan_from(planner& m, const call_shape& e, cache<T>& c) {
    linnet::detail::member<K>(c.items) = at_layer<K>::template plan<T>(m, e);
    if constexpr (K + 1 < count) {
      c.between[K] = m.saved.take<T>(e.rows() * at_layer<K>::out);
      plan_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  static constexpr void gradients_from(planner& m, const call_shape& e, cache<T>& c) {
    if constexpr (K + 1 < count) {
      c.gradient[K] = m.scratch.take<T>(e.rows() * at_layer<K>::out);
      gradients_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  static void copy_from(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<at_layer<K>, T>(linnet::detail::member<K>(c.items), from, to, part);
    if constexpr (K + 1 < count) copy_from<K + 1>(c, from, to, part);
  }
  template <std::size_t K, class S, class T, class P>
  static void forward_from(const P& p, view<const T, at_layer<K>::in> x, view<T, out> y,
                           cache<T>& c, context<T>& ctx, [[maybe_unused]] const T* residual) {
    if constexpr (K + 1 == count && adds_residual) {
      at_layer<K>::template forward<T, at_storage<K, S>>(linnet::detail::member<K>(p.items), x, y,
                                                         linnet::detail::member<K>(c.items), ctx,
                                                         residual);
    } else if constexpr (K + 1 == count) {
      at_layer<K>::template forward<T, at_storage<K, S>>(linnet::detail::member<K>(p.items), x, y,
                                                         linnet::detail::member<K>(c.items), ctx);
    } else {
      const view<T, at_layer<K>::out> z(c.between[K], x.rows());
      at_layer<K>::template forward<T, at_storage<K, S>>(linnet::detail::member<K>(p.items), x, z,
                                                         linnet::detail::member<K>(c.items), ctx);
      forward_from<K + 1, S, T>(p, z, y, c, ctx, residual);
    }
  }
  template <std::size_t K, class S, class T, class P, class G>
  static void backward_from(const P& p, G& dp, view<const T, at_layer<K>::in> x,
                            view<const T, out> dy, view<T, at_layer<K>::in> dx, cache<T>& c,
                            context<T>& ctx) {
    if constexpr (K + 1 == count) {
      at_layer<K>::template backward<T, at_storage<K, S>>(
          linnet::detail::member<K>(p.items), linnet::detail::member<K>(dp.items), x, dy, dx,
          linnet::detail::member<K>(c.items), ctx);
    } else {
      const view<T, at_layer<K>::out> z(c.between[K], x.rows()), dz(c.gradient[K], x.rows());
      ops::fill(ctx.on, dz.size(), T(0), dz.data());
      backward_from<K + 1, S, T>(p, dp, z, dy, dz, c, ctx);
      at_layer<K>::template backward<T, at_storage<K, S>>(
          linnet::detail::member<K>(p.items), linnet::detail::member<K>(dp.items), x, dz, dx,
          linnet::detail::member<K>(c.items), ctx);
    }
  }
};

LINNET_NAMESPACE_END
/// @file
/// The linear map and its building blocks: y = x W^T + b.

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Square root for constant expressions (Newton), x >= 0.
constexpr double sqrt(double x) {
  if (x <= 0) return 0;
  double r = x > 1 ? x : 1;
  for (int i = 0; i < 64; ++i) r = 0.5 * (r + x / r);
  return r;
}
}  // namespace detail

/// y[rows, Out] = x[rows, In] W^T (+ b), W[Out, In]. Initial weights: normal with deviation
/// In^-1/2.
template <index In, index Out, bool Bias = false>
struct linear : without_cache {
  static_assert(In > 0 && Out > 0, "linnet::linear: both widths must be positive");
  static constexpr index in = In, out = Out;
  static constexpr bool adds_residual = true;

  template <class Form>
  struct params {
    typename Form::matrix weight{};
    [[no_unique_address]] std::conditional_t<Bias, typename Form::vector, std::nullptr_t> bias{};
  };

  static constexpr tensor_info weight_info{Out, In, role::matrix, 1 / detail::sqrt(In)};

  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    if constexpr ((linnet::detail::one_matrix<P> && ...)) {  // else see visit_pairs()
      f(at / "weight", weight_info, p.weight...);
      if constexpr (Bias) f(at / "bias", tensor_info{1, Out, role::bias, 0}, p.bias...);
    }
  }

  template <class T>
  static constexpr without_cache::cache<T> plan(planner& m, const call_shape& e) {
    m.product(e.rows(), In, Out, e);
    return {};
  }
  /// Describes the product into `y`, to be computed alone or together with others of these inputs.
  template <class T, class S>
  static ops::product<T, storage::single<S>> product(const params<form::packed<T, S>>& p, T* y) {
    if constexpr (Bias)
      return {p.weight, Out, y, p.bias};
    else
      return {p.weight, Out, y};
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      without_cache::cache<T>&, context<T>& ctx, const T* residual = nullptr) {
    auto one = product<T, S>(p, y.data());
    one.residual = residual;
    ops::gemm_batch(ctx.on, x.rows(), In, x.data(), {one});
  }

  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    if constexpr (Bias) ops::bias_gradient(ctx.on, x.rows(), Out, dy.data(), dp.bias);
    ops::matmul_backward(ctx.on, x.rows(), Out, In, dy.data(), x.data(), p.weight,
                         {dp.weight, dx.data()});
  }

  static constexpr index flops(const call_shape& e) { return 2 * e.rows() * In * Out; }
};

LINNET_NAMESPACE_END
/// @file
/// A stack of layers of one type.

LINNET_NAMESPACE_BEGIN

/// Parameters of `N` layers of one type, with nothing shared.
template <class Layer, index N, index First, index All>
struct own_parameters {
  static constexpr auto count = static_cast<std::size_t>(N);
  template <class Form>
  struct params {
    typename Layer::template params<Form> items[count]{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    for (std::size_t l = 0; l < count; ++l)
      Layer::visit(f, at.element(First + static_cast<index>(l), All), p.items[l]...);
  }
  /// Parameters of layer `l`.
  template <class P>
  static auto& of(P& p, std::size_t l) {
    return p.items[l];
  }
};

namespace detail {

/// Buffers between `Count` layers of width D, and the loops over the layers. A sample may skip
/// layers while training, see ops::layer_mask; outside training, those of ctx.stack.layers run.
template <class T, index D, std::size_t Count>
struct layer_loop {
  T* stream[Count]{};  ///< [rows, D] output of each layer but the last
  T* gradient[2]{};    ///< of two neighbouring layers
  int dropout_id = 0;  ///< of layer dropout

  constexpr void plan(planner& m, const call_shape& e) {
    const index size = e.rows() * D;
    dropout_id = m.dropout_ids;
    if (e.training)
      for (T*& g : gradient) g = m.scratch.take<T>(size);
    for (std::size_t l = 0; l + 1 < Count; ++l)
      stream[l] = e.training || l < 2 ? m.saved.take<T>(size) : stream[l - 2];
  }
  /// Calls run(l, x, y) for the layers, numbered from `first` in a stack of `all`.
  template <class Run>
  void forward(view<const T, D> x, view<T, D> y, context<T>& ctx, index first, index all,
               Run&& run) const {
    for (std::size_t l = 0; l < Count; ++l) {
      const index layer = first + static_cast<index>(l);
      if (!ctx.stack.layers.holds(layer)) continue;
      ctx.stack.layer = layer;
      ctx.stack.hook(layer, x.data(), nullptr);
      const bool last = l + 1 == Count || !ctx.stack.layers.holds(layer + 1);
      const view<T, D> next = last ? y : view<T, D>(stream[l], x.rows());
      const ops::layer_mask mask(ctx.dropout, dropout_id, layer, all);
      ctx.stack.mask = mask ? &mask : nullptr;
      if (!mask || !mask.drops_all(ctx.batch)) run(l, x, next);
      ctx.stack.mask = nullptr;
      if (mask) mask.pass(ctx.on.threads, ctx.batch, ctx.length, D, x.data(), next.data());
      x = next;
    }
    if (x.data() != y.data()) ops::copy(ctx.on, x.size(), x.data(), y.data());  // none has run
  }
  /// Calls run(l, x, dy, dx) for the layers, the last one first.
  template <class Run>
  void backward(view<const T, D> x, view<const T, D> dy, view<T, D> dx, context<T>& ctx,
                index first, index all, Run&& run) const {
    for (std::size_t l = Count; l-- > 0;) {
      const view<const T, D> input = l > 0 ? view<const T, D>(stream[l - 1], x.rows()) : x;
      const view<T, D> d_input = l > 0 ? view<T, D>(gradient[l % 2], x.rows()) : dx;
      if (l > 0) ops::fill(ctx.on, d_input.size(), T(0), d_input.data());
      const index layer = ctx.stack.layer = first + static_cast<index>(l);
      const ops::layer_mask mask(ctx.dropout, dropout_id, layer, all);
      if (mask) {
        T* const rest = gradient[(l + 1) % 2];  // dy itself, or free
        mask.pass_backward(ctx.on.threads, ctx.batch, ctx.length, D, dy.data(), d_input.data(),
                           rest);
        dy = view<const T, D>(rest, x.rows());
      }
      ctx.stack.mask = mask ? &mask : nullptr;
      if (!mask || !mask.drops_all(ctx.batch)) run(l, input, dy, d_input);
      ctx.stack.mask = nullptr;
      ctx.stack.hook(layer, input.data(), d_input.data());
      dy = d_input;
    }
  }
};

}  // namespace detail

/// `N` layers of one type after each other: one instantiation, one loop. They are numbered from
/// `First`, as part of a stack of `All`. `Held` has their parameters: by default each its own.
template <class Layer, index N, index First = 0, index All = First + N,
          class Held = own_parameters<Layer, N, First, All>>
struct repeat {
  static_assert(N > 0, "linnet::repeat: at least one layer");
  static_assert(Layer::in == Layer::out,
                "linnet::repeat: the layer must keep the width of the stream");
  static constexpr index in = Layer::in, out = Layer::out;
  static constexpr auto count = static_cast<std::size_t>(N);

  template <class Form>
  using params = typename Held::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Held::visit(f, at, p...);
  }

  template <class T>
  struct cache {
    typename Layer::template cache<T> items[count]{};
    linnet::detail::layer_loop<T, in, count> loop{};
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.loop.plan(m, e);
    for (auto& item : c.items) {
      const index kept = m.saved.mark();
      item = Layer::template plan<T>(m, e);
      // A layer alone shares with nobody: what it leaves in ctx outlasts it.
      if (!e.training && count > 1) m.saved.release(kept);
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    c.loop.forward(x, y, ctx, First, All, [&](std::size_t l, view<const T, in> u, view<T, in> v) {
      Layer::template forward<T, S>(Held::of(p, l), u, v, c.items[l], ctx);
    });
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    c.loop.backward(x, dy, dx, ctx, First, All,
                    [&](std::size_t l, view<const T, in> u, view<const T, in> dv, view<T, in> du) {
                      auto&& gradients = Held::of(dp, l);
                      Layer::template backward<T, S>(Held::of(p, l), gradients, u, dv, du,
                                                     c.items[l], ctx);
                    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    for (auto& item : c.items) linnet::copy_state<Layer, T>(item, from, to, part);
  }

  static constexpr index flops(const call_shape& e) { return N * Layer::flops(e); }
};

LINNET_NAMESPACE_END
/// @file
/// The residual branch, with its norm before it or behind it.

LINNET_NAMESPACE_BEGIN

/// The pre-norm residual branch: y = x + Drop(Sub(Norm(x))). y is not x. Outside training, a
/// branch that `adds_residual` does so itself.
template <class Norm, class Sub>
struct residual {
  static constexpr index in = Norm::in, out = Norm::in;
  static_assert(linnet::detail::check_layer<Sub>());
  static_assert(Sub::in == in && Sub::out == in,
                "linnet::residual: the branch must keep the width of the stream");
  static constexpr bool fused = linnet::detail::adds_residual<Sub>();

  template <class Form>
  struct params {
    typename Norm::template params<Form> norm{};
    typename Sub::template params<Form> sub{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Norm::visit(f, at / "norm", p.norm...);
    Sub::visit(f, at, p.sub...);
  }

  template <class T>
  struct cache {
    typename Norm::template cache<T> norm{};
    typename Sub::template cache<T> sub{};
    T* normed = nullptr;    ///< [rows, D] input of the branch
    T* branch = nullptr;    ///< [rows, D] output of the branch, then its gradient; null where the
                            ///< branch adds x itself
    T* d_normed = nullptr;  ///< [rows, D] while training
    int dropout_id = 0;     ///< of its dropout
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.dropout_id = m.dropout_ids++;
    c.norm = Norm::template plan<T>(m, e);
    c.normed = m.saved.take<T>(e.rows() * in);
    const index mark = m.scratch.mark();
    if (e.training || !fused) c.branch = m.scratch.take<T>(e.rows() * in);
    if (e.training) c.d_normed = m.scratch.take<T>(e.rows() * in);
    c.sub = Sub::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, in> y,
                      cache<T>& c, context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows()), branch(c.branch, x.rows());
    Norm::template forward<T, S>(p.norm, x, normed, c.norm, ctx);
    if constexpr (fused)
      if (c.branch == nullptr) {
        Sub::template forward<T, S>(p.sub, normed, y, c.sub, ctx, x.data());
        return;
      }
    Sub::template forward<T, S>(p.sub, normed, branch, c.sub, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, in, branch.data());
    ops::add(ctx.on, x.size(), x.data(), branch.data(), y.data());
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows()), d_branch(c.branch, x.rows()),
        d_normed(c.d_normed, x.rows());
    ops::copy(ctx.on, dy.size(), dy.data(), d_branch.data());
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, in, d_branch.data());
    ops::fill(ctx.on, d_normed.size(), T(0), d_normed.data());
    Sub::template backward<T, S>(p.sub, dp.sub, normed, d_branch, d_normed, c.sub, ctx);
    ops::add(ctx.on, dx.size(), dx.data(), dy.data(), dx.data());
    Norm::template backward<T, S>(p.norm, dp.norm, x, d_normed, dx, c.norm, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<Sub, T>(c.sub, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    static_assert(linnet::detail::has_flops<Sub>,
                  "linnet: the layer lacks flops(call_shape) that returns an index; see "
                  "nn/layer.hpp");
    return Norm::flops(e) + Sub::flops(e);
  }
};

/// The post-norm residual branch of BERT and the first Transformer (Vaswani et al. 2017):
/// y = Norm(x + Drop(Sub(x))). y is not x. Its parameters have the names of `residual`.
template <class Norm, class Sub>
struct post_norm_residual {
  static constexpr index in = Norm::in, out = Norm::in;
  static_assert(linnet::detail::check_layer<Sub>());
  static_assert(Sub::in == in && Sub::out == in,
                "linnet::post_norm_residual: the branch must keep the width of the stream");
  static constexpr bool fused = linnet::detail::adds_residual<Sub>();

  template <class Form>
  using params = typename residual<Norm, Sub>::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    residual<Norm, Sub>::visit(f, at, p...);
  }

  template <class T>
  struct cache {
    typename Norm::template cache<T> norm{};
    typename Sub::template cache<T> sub{};
    T* sum = nullptr;     ///< [rows, D] input of the norm
    T* branch = nullptr;  ///< [rows, D] output of the branch, then the gradient of both; null where
                          ///< the branch adds x itself
    int dropout_id = 0;   ///< of its dropout
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.dropout_id = m.dropout_ids++;
    c.norm = Norm::template plan<T>(m, e);
    c.sum = m.saved.take<T>(e.rows() * in);
    const index mark = m.scratch.mark();
    if (e.training || !fused) c.branch = m.scratch.take<T>(e.rows() * in);
    c.sub = Sub::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, in> y,
                      cache<T>& c, context<T>& ctx) {
    const view<T, in> sum(c.sum, x.rows()), branch(c.branch, x.rows());
    if (branch.data()) {
      Sub::template forward<T, S>(p.sub, x, branch, c.sub, ctx);
      ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, in, branch.data());
      ops::add(ctx.on, x.size(), x.data(), branch.data(), sum.data());
    } else if constexpr (fused) {
      Sub::template forward<T, S>(p.sub, x, sum, c.sub, ctx, x.data());
    }
    Norm::template forward<T, S>(p.norm, sum, y, c.norm, ctx);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, in> sum(c.sum, x.rows()), d_sum(c.branch, x.rows());
    ops::fill(ctx.on, d_sum.size(), T(0), d_sum.data());
    Norm::template backward<T, S>(p.norm, dp.norm, sum, dy, d_sum, c.norm, ctx);
    ops::add(ctx.on, dx.size(), dx.data(), d_sum.data(), dx.data());
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, in, d_sum.data());
    Sub::template backward<T, S>(p.sub, dp.sub, x, d_sum, dx, c.sub, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<Sub, T>(c.sub, from, to, part);
  }

  static constexpr index flops(const call_shape& e) { return residual<Norm, Sub>::flops(e); }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {
/// The second factor of a low-rank product: it starts with deviation Rank^-1/2, whatever the model
/// says of its other matrices. Entries of the product then deviate as those of the first factor do.
template <index Rank, index Out, bool Bias>
struct second_factor : linear<Rank, Out, Bias> {
  static double start(const parameter_path&, index, random_stream& random) {
    return random.normal() / sqrt(Rank);
  }
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    linear<Rank, Out, Bias>::visit(
        [&](const parameter_path& where, tensor_info info, auto&... leaf) {
          if (info.kind == role::matrix) info.start = start;
          f(where, info, leaf...);
        },
        at, p...);
  }
};
}  // namespace detail

/// Linear maps one after the other, by name: the one map whose matrix is the product of theirs.
/// Only the last may have a bias.
template <class... Maps>
struct linear_product : chain<Maps...> {
  using chain<Maps...>::visit;
  /// Beside the parameters `q` of that one map.
  template <class F, class P, linnet::detail::one_matrix Q>
  static constexpr void visit(F&& f, const parameter_path& at, P& p, Q& q) {
    constexpr std::size_t count = sizeof...(Maps);
    const auto pair = [&]<std::size_t... K>(std::index_sequence<K...>) {
      using leaf = std::remove_cvref_t<decltype(linnet::detail::member<0>(p.items).weight)>;
      matrix_expression<leaf, count> w{{linnet::detail::member<K>(p.items).weight...},
                                       {linear_product::in, Maps::layer::out...}};
      f(at / "weight", tensor_info{linear_product::out, linear_product::in}, w, q.weight);
    };
    pair(std::make_index_sequence<count>{});
    // A map without a bias has one of zeros, a null pointer, beside one that has it.
    auto& bias = linnet::detail::member<count - 1>(p.items).bias;
    constexpr bool there = !std::is_same_v<std::remove_cvref_t<decltype(q.bias)>, std::nullptr_t>;
    if constexpr (there)
      f(at / "bias", tensor_info{1, linear_product::out, role::bias}, bias, q.bias);
  }
};

/// y[rows, Out] = U (V x) (+ b), U[Out, Rank], V[Rank, In]: Rank (In + Out) numbers instead of
/// In Out.
template <index In, index Out, index Rank, bool Bias = false>
struct low_rank_linear : linear_product<named<"v", linear<In, Rank>>,
                                        named<"u", detail::second_factor<Rank, Out, Bias>>> {
  static_assert(Rank > 0 && Rank <= In && Rank <= Out,
                "linnet::low_rank_linear: the rank must be positive and at most the smaller width");
};

/// Linear map with a low-rank delta (LoRA, Hu et al. 2021, arXiv:2106.09685): y[rows, Out] = W x (+
/// b) + Alpha / Rank B (A x). W is [Out, In], A [Rank, In], B [Out, Rank]. B starts at zero.
template <index In, index Out, index Rank, index Alpha = Rank, bool Bias = false>
struct lora_linear {
  static_assert(Rank > 0 && Alpha > 0, "linnet::lora_linear: the rank and alpha must be positive");
  static constexpr index in = In, out = Out;
  static constexpr bool adds_residual = true;
  using whole = linear<In, Out, Bias>;
  using first = linear<In, Rank>;
  using second = linear<Rank, Out>;
  /// Factor of the delta.
  static constexpr double scale = static_cast<double>(Alpha) / static_cast<double>(Rank);

  template <class Form>
  struct params {
    typename whole::template params<Form> whole_matrix{};
    typename first::template params<Form> lora_a{};
    typename second::template params<Form> lora_b{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    whole::visit(f, at, p.whole_matrix...);
    first::visit(f, at / "lora_a", p.lora_a...);
    const auto zero = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
      info.start = start_zero;
      f(where, info, leaf...);
    };
    second::visit(zero, at / "lora_b", p.lora_b...);
  }
  /// Beside the parameters `q` of the map with the delta added up.
  template <class F, class P, linnet::detail::one_matrix Q>
  static constexpr void visit(F&& f, const parameter_path& at, P& p, Q& q) {
    using leaf = std::remove_cvref_t<decltype(p.whole_matrix.weight)>;
    matrix_expression<leaf, 2> w{
        {p.lora_a.weight, p.lora_b.weight}, {In, Rank, Out}, p.whole_matrix.weight, scale};
    f(at / "weight", whole::weight_info, w, q.weight);
    if constexpr (Bias)
      f(at / "bias", tensor_info{1, Out, role::bias}, p.whole_matrix.bias, q.bias);
  }

  template <class T>
  struct cache {
    T* inner = nullptr;    ///< [rows, Rank] A x
    T* d_inner = nullptr;  ///< its gradient, while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    (void)whole::template plan<T>(m, e);
    (void)first::template plan<T>(m, e);
    (void)second::template plan<T>(m, e);
    const index mark = m.scratch.mark();
    const cache<T> c{m.saved.take<T>(e.rows() * Rank),
                     e.training ? m.scratch.take<T>(e.rows() * Rank) : nullptr};
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    without_cache::cache<T> none;
    first::template forward<T, S>(p.lora_a, x, {c.inner, x.rows()}, none, ctx);
    auto delta = second::template product<T, S>(p.lora_b, y.data());
    delta.alpha = T(scale);
    ops::gemm_batch(ctx.on, x.rows(), Rank, c.inner, {delta});
    auto rest = whole::template product<T, S>(p.whole_matrix, y.data());
    rest.accumulate = true;
    rest.residual = residual;
    ops::gemm_batch(ctx.on, x.rows(), In, x.data(), {rest});
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx, cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const view<T, Rank> d_inner(c.d_inner, x.rows());
    whole::template backward<T, S>(p.whole_matrix, dp.whole_matrix, x, dy, dx, none, ctx);
    ops::fill(ctx.on, d_inner.size(), T(0), c.d_inner);
    ops::matmul_backward(ctx.on, x.rows(), Out, Rank, dy.data(), c.inner, p.lora_b.weight,
                         {dp.lora_b.weight, c.d_inner, T(scale)});
    first::template backward<T, S>(p.lora_a, dp.lora_a, x, d_inner, dx, none, ctx);
  }

  static constexpr index flops(const call_shape& e) {
    return whole::flops(e) + first::flops(e) + second::flops(e);
  }
};

namespace detail {
template <index In, index Out, bool Bias, projection_kind Kind>
struct linear_map_of {
  using type = low_rank_linear<In, Out, Kind.rank, Bias>;
};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.plain()) struct linear_map_of<In, Out, Bias, Kind> {
  using type = linear<In, Out, Bias>;
};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.rank > 0 && Kind.delta) struct linear_map_of<In, Out, Bias, Kind> {
  using type = lora_linear<In, Out, Kind.rank, Kind.alpha, Bias>;
};
}  // namespace detail

/// The linear map of a kind.
template <index In, index Out, bool Bias = false, projection_kind Kind = projection_kind{}>
using projection = typename detail::linear_map_of<In, Out, Bias, Kind>::type;

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The projections x -> q, k, v and mixed -> y, and the steps that self-attention over whole
/// sequences takes around its mixing. With `SharedKey` there are no keys here: the kind makes them
/// from the queries.
template <attention_shape A, bool SharedKey = false>
struct attention_projections {
  static_assert(A.heads % A.kv_heads == 0,
                "linnet::attention: heads must be a multiple of kv_heads");
  static_assert(A.rope == rope_pairing::none || A.d_kv % 2 == 0,
                "linnet::attention: rotary positions need an even head width d_kv");
  static constexpr index in = A.d_model, out = A.d_model, n = A.n(), kv = A.kv(), h = A.d_kv;
  using to_query = projection<in, n, A.bias, A.projections>;
  using to_key = projection<in, kv, A.bias, A.projections>;
  using to_output = projection<n, out, A.bias, A.projections>;

  /// Factor of the scores.
  template <class T>
  static constexpr T scale = T(A.scaled ? 1 / sqrt(h) : 1);

  template <class Form>
  struct params {
    typename to_query::template params<form::at<Form, storage::part::attention_q>> q{};
    [[no_unique_address]] std::conditional_t<
        SharedKey, std::nullptr_t,
        typename to_key::template params<form::at<Form, storage::part::attention_k>>>
        k{};
    typename to_key::template params<form::at<Form, storage::part::attention_v>> v{};
    typename to_output::template params<form::at<Form, storage::part::attention_o>> o{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    visit_query(f, at / "q", p.q...);
    if constexpr (!SharedKey) to_key::visit(f, at / "k", p.k...);
    to_key::visit(f, at / "v", p.v...);
    to_output::visit(f, at / "o", p.o...);
  }
  /// Query projection: T5's small initial values replace the missing 1/sqrt(d_kv).
  template <class F, class... P>
  static constexpr void visit_query(F&& f, const parameter_path& at, P&... p) {
    const auto scaled = [&](const parameter_path& where, const tensor_info& info, auto&... leaf) {
      tensor_info changed = info;
      if (!A.scaled) changed.deviation /= sqrt(h);
      f(where, changed, leaf...);
    };
    to_query::visit(scaled, at, p...);
  }

  /// Buffers of the projections themselves; empty where each is one matrix.
  template <class T>
  struct projection_caches {
    typename to_query::template cache<T> q{};
    typename to_key::template cache<T> k{}, v{};
    typename to_output::template cache<T> o{};
  };
  /// Plans the projections for calls `e` with `key_rows` rows of keys and values for each sequence.
  template <class T>
  static constexpr projection_caches<T> plan_projections(planner& m, const call_shape& e,
                                                         index key_rows) {
    call_shape keys = e;
    keys.length = key_rows;
    projection_caches<T> c;
    c.q = to_query::template plan<T>(m, e);
    c.k = to_key::template plan<T>(m, keys);
    c.v = to_key::template plan<T>(m, keys);
    c.o = to_output::template plan<T>(m, e);
    return c;
  }

  /// Buffers around the mixing.
  template <class T>
  struct buffers {
    T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [rows, kv]
    T* mixed = nullptr;                          ///< [rows, n] before the output projection
    T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
  };
  /// Plans the gradients in scratch memory, which the caller releases.
  template <class T>
  static constexpr buffers<T> plan(planner& m, const call_shape& e) {
    buffers<T> b;
    m.product(e.rows(), in, n, e);
    m.product(e.rows(), in, kv, e);
    m.product(e.rows(), n, out, e);
    b.q = m.saved.take<T>(e.rows() * n);
    if (!SharedKey) b.k = m.saved.take<T>(e.rows() * kv);
    b.v = m.saved.take<T>(e.rows() * kv);
    b.mixed = m.saved.take<T>(e.rows() * n);
    if (e.training) {
      b.dq = m.scratch.take<T>(e.rows() * n);
      if (!SharedKey) b.dk = m.scratch.take<T>(e.rows() * kv);
      b.dv = m.scratch.take<T>(e.rows() * kv);
      b.d_mixed = m.scratch.take<T>(e.rows() * n);
    }
    return b;
  }

  /// x -> q, k (unless shared) and v; queries and keys rotated where the model has such positions.
  template <class T, class S, class P>
  static void project(const P& p, view<const T, in> x, const buffers<T>& b, const context<T>& ctx) {
    if constexpr (SharedKey)
      ops::gemm_each(ctx.on, x.rows(), in, x.data(), to_query::product(p.q, b.q),
                     to_key::product(p.v, b.v));
    else
      ops::gemm_each(ctx.on, x.rows(), in, x.data(), to_query::product(p.q, b.q),
                     to_key::product(p.k, b.k), to_key::product(p.v, b.v));
    rotate(b.q, b.k, ctx, false);
  }
  /// mixed -> y
  template <class T, class S, class P>
  static void finish(const P& p, view<T, out> y, const buffers<T>& b, context<T>& ctx) {
    without_cache::cache<T> none;
    to_output::template forward<T>(p.o, {b.mixed, y.rows()}, y, none, ctx);
  }
  /// dy -> d_mixed, and zeros in dq, dk (unless shared) and dv.
  template <class T, class S, class P, class D>
  static void finish_backward(const P& p, D& dp, view<const T, out> dy, const buffers<T>& b,
                              context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = dy.rows();
    ops::fill(ctx.on, rows * n, T(0), b.d_mixed);
    to_output::template backward<T>(p.o, dp.o, {b.mixed, rows}, dy, {b.d_mixed, rows}, none, ctx);
    ops::fill(ctx.on, rows * n, T(0), b.dq);
    if constexpr (!SharedKey) ops::fill(ctx.on, rows * kv, T(0), b.dk);
    ops::fill(ctx.on, rows * kv, T(0), b.dv);
  }
  /// dq, dk (unless shared) and dv -> dx
  template <class T, class S, class P, class D>
  static void project_backward(const P& p, D& dp, view<const T, in> x, view<T, in> dx,
                               const buffers<T>& b, context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows();
    rotate(b.dq, b.dk, ctx, true);
    to_query::template backward<T>(p.q, dp.q, x, {b.dq, rows}, dx, none, ctx);
    if constexpr (!SharedKey)
      to_key::template backward<T>(p.k, dp.k, x, {b.dk, rows}, dx, none, ctx);
    to_key::template backward<T>(p.v, dp.v, x, {b.dv, rows}, dx, none, ctx);
  }

  /// Floating-point operations of the projections.
  static constexpr index flops(const call_shape& e) {
    return 2 * e.rows() * in * (2 * n + (SharedKey ? 1 : 2) * kv);
  }

  /// Softmax attention of these queries over some keys, [batch, keys], of as many heads.
  template <class T>
  static ops::attention_call<T> call(index batch, index queries, const T* q, index keys_,
                                     const T* k, const T* v, T* to) {
    ops::attention_call<T> a{};
    a.batch = batch;
    a.queries = queries;
    a.keys = keys_;
    a.heads = A.heads;
    a.kv_heads = A.kv_heads;
    a.h = h;
    a.scale = scale<T>;
    a.q = q;
    a.k = {k, keys_, kv, h};
    a.v = {v, keys_, kv, h};
    a.out = to;
    return a;
  }

  /// Applies rotary positions to queries, and to keys that have a projection of their own, or the
  /// derivative.
  template <class T>
  static void rotate(T* q, T* k, const context<T>& ctx, bool inverse) {
    if constexpr (A.rope != rope_pairing::none)
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        const T* const table = ctx.rope_of(row, h);
        ops::rope_row(A.rope, A.heads, h, table, q + row * n, inverse);
        if constexpr (!SharedKey)
          ops::rope_row(A.rope, A.kv_heads, h, table, k + row * kv, inverse);
      });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Layer of softmax attention in which a query sees the keys in its window. With `Slots`, a query's
/// distance to the window's `first` keys is counted in kept tokens (Xiao et al. 2023).
template <attention_shape A, ops::attention_window Window, bool Slots = false>
struct softmax_attention {
  using projections = attention_projections<A>;
  static constexpr index in = projections::in, out = projections::out, n = projections::n,
                         kv = projections::kv;
  static constexpr bool adds_residual = true;
  static constexpr ops::attention_window window = Window;
  /// Most tokens that are kept, and so the largest distance to the first ones.
  static constexpr index kept = Slots ? Window.first + Window.before + 1 : ops::any_distance;
  static constexpr bool two_queries = Slots && A.rope != rope_pairing::none;
  template <class T, bool Keys>
  using buffer =
      typename linnet::detail::pick_kv_buffer<T, A.cache, A.kv_heads, A.d_kv, Keys>::type;
  using to_query = typename projections::to_query;
  using to_key = typename projections::to_key;
  using to_output = typename projections::to_output;

  template <class Form>
  using params = typename projections::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    projections::visit(f, at, p...);
  }

  template <class T>
  struct cache {
    T *q = nullptr, *k = nullptr, *v = nullptr;  ///< [rows, n], [key rows, kv]
    T *q_first = nullptr, *dq_first = nullptr;   ///< [rows, n], rotated to their slots
    buffer<T, false> values{};
    buffer<T, true> keys{};  ///< what decoding keeps
    typename projections::template projection_caches<T> inner{};
    T* mixed = nullptr;  ///< [rows, n] before the output projection
    T *dq = nullptr, *dk = nullptr, *dv = nullptr, *d_mixed = nullptr;
    T* scratch = nullptr;  ///< per thread
    index scratch_size = 0;
    index capacity = 0;  ///< tokens that a sequence may have in decoding
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const bool cached = e.capacity > 0;
    const index keys = A.cross ? e.memory : e.length;
    c.dropout_id = m.dropout_ids++;
    const index stored = A.cross ? e.memory : e.capacity;
    c.capacity = stored;
    if (cached) {
      const index blocks = A.cross ? 0 : e.blocks;
      const index recent = window.before + e.length;  // that a call may look at
      c.keys.plan(m.state, e.batch, stored, window.first, recent, blocks);
      c.values.plan(m.state, e.batch, stored, window.first, recent, blocks);
    }
    c.q = m.saved.take<T>(e.rows() * n);
    if (two_queries) c.q_first = m.saved.take<T>(e.rows() * n);
    c.mixed = m.saved.take<T>(e.rows() * n);
    const index key_values = e.batch * keys * kv;
    arena& passing = cached ? m.scratch : m.saved;
    const index mark = m.scratch.mark();
    c.k = passing.take<T>(key_values);
    c.v = passing.take<T>(key_values);
    if (e.training) {
      c.dq = m.scratch.take<T>(e.rows() * n);
      if (two_queries) c.dq_first = m.scratch.take<T>(e.rows() * n);
      c.dk = m.scratch.take<T>(key_values);
      c.dv = m.scratch.take<T>(key_values);
      c.d_mixed = m.scratch.take<T>(e.rows() * n);
    }
    c.scratch_size = ops::attention_scratch(e.length, cached ? stored : keys, A.d_kv, window,
                                            e.training, cached && c.keys.gathered());
    c.scratch = m.scratch.take<T>(c.scratch_size * e.threads);
    c.inner = projections::template plan_projections<T>(m, e, keys);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    const index rows = x.rows();
    const bool cached = ctx.past != nullptr;
    if constexpr (A.cross) {
      to_query::template forward<T>(p.q, x, {c.q, rows}, c.inner.q, ctx);
      if (!ctx.memory.cached) {
        const view<const T, in> memory(ctx.memory.states, ctx.batch * ctx.memory.length);
        if constexpr (A.projections.plain()) {
          ops::gemm_each(ctx.on, memory.rows(), in, memory.data(), to_key::product(p.k, c.k),
                         to_key::product(p.v, c.v));
        } else {
          to_key::template forward<T>(p.k, memory, {c.k, memory.rows()}, c.inner.k, ctx);
          to_key::template forward<T>(p.v, memory, {c.v, memory.rows()}, c.inner.v, ctx);
        }
        if (cached)
          linnet::detail::keep_tokens(c.keys, c.values, ctx, ctx.memory.length, true, c.k, c.v);
      }
    } else {
      if constexpr (A.projections.plain()) {
        ops::gemm_each(ctx.on, rows, in, x.data(), to_query::product(p.q, c.q),
                       to_key::product(p.k, c.k), to_key::product(p.v, c.v));
      } else {
        to_query::template forward<T>(p.q, x, {c.q, rows}, c.inner.q, ctx);
        to_key::template forward<T>(p.k, x, {c.k, rows}, c.inner.k, ctx);
        to_key::template forward<T>(p.v, x, {c.v, rows}, c.inner.v, ctx);
      }
      if constexpr (A.rope != rope_pairing::none)
        ctx.on.threads.each(rows, [&](index row) {
          if (two_queries) {
            std::copy_n(c.q + row * n, n, c.q_first + row * n);
            rotate_row(c.q_first, A.heads, row, ctx, false, kept);
          }
          rotate_row(c.q, A.heads, row, ctx, false);
          rotate_row(c.k, A.kv_heads, row, ctx, false);
        });
      if (cached) linnet::detail::keep_tokens(c.keys, c.values, ctx, ctx.length, false, c.k, c.v);
    }
    if (cached) {
      // Of the encoder's keys none are as they were given, wherever a query stands.
      const auto keys = linnet::detail::key_rows(c.keys, ctx, A.cross ? nullptr : c.k, ctx.length,
                                                 A.cross ? nullptr : ctx.past);
      ops::attention(ctx.on, call(c, ctx, keys, c.values.rows(ctx.pages)));
      if (!A.cross) linnet::detail::keep_newest(c.keys, keys, ctx);
    } else {
      ops::attention(ctx.on, call(c, ctx, plain(c.k, ctx), plain(c.v, ctx)));
    }
    to_output::template forward<T>(p.o, {c.mixed, rows}, y, c.inner.o, ctx, residual);
  }

  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const index rows = x.rows(), key_rows = ctx.batch * (A.cross ? ctx.memory.length : ctx.length);
    const view<T, n> dq(c.dq, rows), d_mixed(c.d_mixed, rows);
    const view<T, kv> dk(c.dk, key_rows), dv(c.dv, key_rows);
    ops::fill(ctx.on, d_mixed.size(), T(0), d_mixed.data());
    to_output::template backward<T>(p.o, dp.o, {c.mixed, rows}, dy, d_mixed, c.inner.o, ctx);
    ops::fill(ctx.on, dq.size(), T(0), dq.data());
    if (two_queries) ops::fill(ctx.on, dq.size(), T(0), c.dq_first);
    ops::fill(ctx.on, dk.size(), T(0), dk.data());
    ops::fill(ctx.on, dv.size(), T(0), dv.data());
    ops::attention_backward(ctx.on, call(c, ctx, plain(c.k, ctx), plain(c.v, ctx)),
                            {d_mixed.data(), dq.data(), dk.data(), dv.data(), c.dq_first,
                             A.relative ? ctx.bias.d_lines : nullptr});
    if constexpr (!A.cross && A.rope != rope_pairing::none)
      ctx.on.threads.each(rows, [&](index row) {
        rotate_row(c.dq, A.heads, row, ctx, true);
        rotate_row(c.dk, A.kv_heads, row, ctx, true);
        if (two_queries) {
          rotate_row(c.dq_first, A.heads, row, ctx, true, kept);
          for (index j = row * n; j < (row + 1) * n; ++j) c.dq[j] += c.dq_first[j];
        }
      });
    to_query::template backward<T>(p.q, dp.q, x, dq, dx, c.inner.q, ctx);
    const view<const T, in> source(A.cross ? ctx.memory.states : x.data(), key_rows);
    const view<T, in> d_source(A.cross ? ctx.memory.d_states : dx.data(), key_rows);
    to_key::template backward<T>(p.k, dp.k, source, dk, d_source, c.inner.k, ctx);
    to_key::template backward<T>(p.v, dp.v, source, dv, d_source, c.inner.v, ctx);
  }

  /// Copies the keys and values of one sequence to another.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    if (part.block) {
      c.keys.copy_block(from, to);
      c.values.copy_block(from, to);
      return;
    }
    const index first = A.cross ? 0 : part.first, last = A.cross ? part.memory : part.tokens;
    c.keys.copy(from, to, first, last);
    c.values.copy(from, to, first, last);
  }

  /// Numbers that the key-value cache holds for each sequence of up to `tokens` tokens.
  static constexpr index state_values(index tokens) {
    return 2 * kv * (std::min)(tokens, window.first + (std::min)(window.before, tokens) + 1);
  }

  static constexpr index flops(const call_shape& e) {
    const index queries = e.length, keys = A.cross ? e.memory : e.length;
    call_shape key_rows = e;
    key_rows.length = keys;
    const index recent = (std::min)(window.before, keys) + (std::min)(window.after, keys) + 1;
    const index seen = window.bounded() ? (std::min)(keys, window.first + recent) : keys;
    return to_query::flops(e) + to_output::flops(e) + 2 * to_key::flops(key_rows) +
           e.batch * 4 * queries * seen * n;
  }

 private:
  /// Buffer of the keys or values of this call.
  template <class T>
  static ops::kv_rows<T> plain(const T* x, const context<T>& ctx) {
    return {x, A.cross ? ctx.memory.length : ctx.length, kv, A.d_kv};
  }
  /// Arguments of the attention call, forward and backward.
  template <class T, class Code>
  static ops::attention_call<T, Code> call(const cache<T>& c, const context<T>& ctx,
                                           const ops::kv_rows<Code>& keys,
                                           const ops::kv_rows<Code>& values) {
    ops::attention_call<T, Code> a{};
    a.batch = ctx.batch;
    a.queries = ctx.length;
    a.keys = A.cross ? ctx.memory.length : ctx.past ? c.capacity : ctx.length;
    a.heads = A.heads;
    a.kv_heads = A.kv_heads;
    a.h = A.d_kv;
    a.window = window;
    a.scale = projections::template scale<T>;
    a.q = c.q;
    a.q_first = c.q_first;
    a.kept = kept;
    a.k = keys;
    a.v = values;
    a.out = c.mixed;
    a.past = A.cross ? nullptr : ctx.past;
    if (A.causal) a.prefix = ctx.prefix, a.query_lengths = ctx.lengths;
    // A causal query sees only earlier keys, which are valid as long as the query is.
    a.key_lengths = A.cross ? ctx.memory.lengths : A.causal ? nullptr : ctx.lengths;
    if constexpr (A.relative) {
      a.bias = ctx.bias.lines;
      a.bias_origin = ctx.bias.origin;
    }
    a.scratch = c.scratch;
    a.scratch_size = c.scratch_size;
    a.dropout = ctx.dropout;
    a.dropout_id = c.dropout_id;
    return a;
  }
  /// Applies rotary positions in place to one row of x[rows, heads * d_kv]; `limit` keeps positions
  /// below it.
  template <class T>
  static void rotate_row(T* x, index heads, index row, const context<T>& ctx, bool inverse,
                         index limit = ops::any_distance) {
    if constexpr (A.rope != rope_pairing::none) {
      const index position = ctx.past_of(row / ctx.length) + row % ctx.length;
      const T* const angles =
          position < limit ? ctx.rope_of(row, A.d_kv) : ctx.rope.table + (limit - 1) * A.d_kv;
      ops::rope_row(A.rope, heads, A.d_kv, angles, x + row * heads * A.d_kv, inverse);
    }
  }
};

}  // namespace detail

namespace attention {

/// Full softmax attention (Vaswani et al. 2017; grouped-query: Ainslie et al. 2023).
struct full : policy {
  static constexpr bool can_truncate = true, supports_token_subset = true, supports_low_rank = true;
  using kind = full;
  static std::string name() { return "full"; }
  template <attention_shape A>
  using layer =
      linnet::detail::softmax_attention<A, ops::attention_window{
                                               .after = A.causal ? 0 : ops::any_distance}>;
};

/// Attention `Kind` with its four projections factored through `Rank`: y = U (V x).
template <index Rank, class Kind = full>
struct low_rank : Kind {
  static_assert(
      Kind::supports_low_rank,
      "linnet::attention::low_rank: this kind's maps are not of its making; full, prefix, "
      "sliding_window and sinks are");
  static constexpr bool supports_low_rank = false;
  using dense = Kind;  ///< what it factors
  using kind = low_rank;
  static std::string name() { return "low_rank<" + std::to_string(Rank) + "> " + Kind::name(); }
  static constexpr attention_shape with_rank(attention_shape a) {
    a.projections = {.rank = Rank};
    return a;
  }
  template <attention_shape A>
  using layer = typename Kind::template layer<with_rank(A)>;
};

/// Full attention in which all tokens see a prefix, such as a question, also its own tokens (Raffel
/// et al. 2020, "prefix LM"). Behind the prefix, tokens see only what came before.
/// decoder_batch::prefixes tells its length; a session takes the tokens of the first feed() for it.
struct prefix : full {
  static constexpr bool takes_prefix = true, supports_token_subset = false;
  using kind = prefix;
  static std::string name() { return "prefix"; }
};

}  // namespace attention

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Each token sees the last `Width` tokens, itself included; in an encoder `Width` to either side
/// (Beltagy et al. 2020). Time and cache grow with Width instead of the length: the cache is a
/// ring.
template <index Width>
struct sliding_window : policy {
  static_assert(Width > 0, "linnet::attention::sliding_window: the width must be positive");
  static constexpr bool can_truncate = true, evicts = true, supports_low_rank = true;
  using kind = sliding_window;
  static std::string name() { return "sliding_window<" + std::to_string(Width) + ">"; }
  template <attention_shape A>
  struct layer : linnet::detail::softmax_attention<
                     A, A.causal ? ops::attention_window{.before = Width - 1, .after = 0}
                                 : ops::attention_window{.before = Width, .after = Width}> {
    static_assert(!A.cross,
                  "linnet::attention::sliding_window: cross-attention has no near tokens");
  };
};

/// Each token sees the first `First` tokens, the sinks, and the last `Recent` ones, itself included
/// (Xiao et al. 2023). Positions count kept tokens: however long the text, a sink is no
/// further away than First + Recent - 1. Time and memory per token stay constant.
///
/// Keys are cached rotated to their places in the text. The paper rotates all cached keys to their
/// slots in each step. Rotary scores depend on distances alone. So it is equal to compare keys with
/// a query at its place, and the sinks with a query at its slot.
template <index First, index Recent>
struct sinks : policy {
  static_assert(First > 0 && Recent > 0, "linnet::attention::sinks: both counts must be positive");
  static constexpr bool bidirectional = false;
  static constexpr bool can_truncate = true, evicts = true, supports_low_rank = true;
  static constexpr index min_positions = First + Recent;
  using kind = sinks;
  static std::string name() {
    return "sinks<" + std::to_string(First) + ", " + std::to_string(Recent) + ">";
  }
  template <attention_shape A>
  struct layer
      : linnet::detail::softmax_attention<
            A, ops::attention_window{.before = Recent - 1, .after = 0, .first = First}, true> {
    static_assert(A.causal && !A.cross,
                  "linnet::attention::sinks: for causal self-attention: decoders");
  };
};

}  // namespace attention

LINNET_NAMESPACE_END
/// @file
/// Embedding policies: a table as wide as the stream, or a narrower one with linear maps (Lan et
/// al. 2019).

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Embedding ends for a table as wide as the stream: nothing stands between them.
template <index D>
struct full_projection : without_parameters, without_cache {
  static constexpr index table = D, head = D;  ///< columns of the table and of the head's matrix
  template <class T>
  static T* rows(const without_cache::cache<T>&, T* x) {
    return x;
  }
  template <class T, class S, class P>
  static void widen(const P&, index, T*, const without_cache::cache<T>&, context<T>&) {}
  template <class T, class S, class P, class G>
  static T* widen_backward(const P&, G&, index, T* dx, const without_cache::cache<T>&,
                           context<T>&) {
    return dx;
  }
  template <class T, class S, class P>
  static const T* read(const P&, index, const T* y, const without_cache::cache<T>&,
                       const ops::execution&) {
    return y;
  }
  template <class T>
  static T* read_gradient(index, T* dy, const without_cache::cache<T>&, const ops::execution&) {
    return dy;
  }
  template <class T, class S, class P, class G>
  static void read_backward(const P&, G&, index, const T*, T*, const without_cache::cache<T>&,
                            const ops::execution&) {}
  static constexpr index flops(const call_shape&) { return 0; }
};

/// Embedding ends for a table [vocabulary, Width] and a map P[D, Width]: rows of the stream are x =
/// P e. A tied head reads z = P^T y.
template <index Width, index D, bool Tied>
struct factorised_projection {
  using map = linear<Width, D>;
  static constexpr index table = Width, head = Tied ? Width : D;

  template <class Form>
  using params = typename map::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    map::visit(f, at / "projection", p...);
  }

  template <class T>
  struct cache {
    T *in = nullptr, *out = nullptr;  ///< [rows, Width] e and z
    T* gradient = nullptr;            ///< of one of them by turns, while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index size = e.rows() * Width;
    (void)map::template plan<T>(m, e);
    cache<T> c{m.saved.take<T>(size)};
    if (Tied) c.out = m.saved.take<T>(size);
    if (e.training) c.gradient = m.saved.take<T>(size);
    return c;
  }

  /// Buffer for the rows of the table that are looked up for x[rows, D].
  template <class T>
  static T* rows(const cache<T>& c, T*) {
    return c.in;
  }
  /// x = P e
  template <class T, class S>
  static void widen(const params<form::packed<T, S>>& p, index n, T* x, const cache<T>& c,
                    context<T>& ctx) {
    without_cache::cache<T> none;
    map::template forward<T, S>(p, {c.in, n}, {x, n}, none, ctx);
  }
  /// Gradient of the rows of the table; adds the gradient of P.
  template <class T, class S>
  static T* widen_backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                           index n, T* dx, const cache<T>& c, context<T>& ctx) {
    without_cache::cache<T> none;
    ops::fill(ctx.on, n * Width, T(0), c.gradient);
    map::template backward<T, S>(p, dp, {c.in, n}, {dx, n}, {c.gradient, n}, none, ctx);
    return c.gradient;
  }
  /// Input of the head's matrix for y[rows, D].
  template <class T, class S>
  static const T* read(const params<form::packed<T, S>>& p, index n, const T* y, const cache<T>& c,
                       const ops::execution& on) {
    if (!Tied) return y;
    ops::matmul_transposed(on, n, D, Width, y, p.weight, c.out);
    return c.out;
  }
  /// Buffer to which the head adds the gradient of its input.
  template <class T>
  static T* read_gradient(index n, T* dy, const cache<T>& c, const ops::execution& on) {
    if (!Tied) return dy;
    ops::fill(on, n * Width, T(0), c.gradient);
    return c.gradient;
  }
  /// Adds to the gradients dy = P dz and dP = y dz^T.
  template <class T, class S>
  static void read_backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                            index n, const T* y, T* dy, const cache<T>& c,
                            const ops::execution& on) {
    if (!Tied) return;
    ops::matmul(on, n, D, Width, c.gradient, p.weight, dy, {nullptr, T(1), true});
    ops::matmul_dw(on, n, D, Width, y, c.gradient, dp.weight);
  }
  static constexpr index flops(const call_shape& e) { return (Tied ? 2 : 1) * map::flops(e); }
};

}  // namespace detail

/// Embedding policies: how tokens become rows of width d_model.
namespace embedding {
/// Base of the embedding policies.
struct policy {};
/// One table [vocabulary, d_model].
struct full : policy {
  using kind = full;
  static std::string name() { return "full"; }
  template <index D, bool Tied>
  using projection = linnet::detail::full_projection<D>;
};
/// A table [vocabulary, Width] and a linear map from Width to d_model (ALBERT, Lan et al. 2019,
/// arXiv:1909.11942). A tied head takes the same two the other way: first the transposed
/// map, from d_model to Width, then the table. (ALBERT's own head has a second map of that shape,
/// with a bias, a GELU and a norm.) An untied head reads the stream itself.
template <index Width>
struct factorised : policy {
  static_assert(Width > 0, "linnet::embedding::factorised: the width must be positive");
  using kind = factorised;
  static std::string name() { return "factorised " + std::to_string(Width); }
  template <index D, bool Tied>
  using projection = linnet::detail::factorised_projection<Width, D, Tied>;
};
}  // namespace embedding

LINNET_NAMESPACE_END
/// @file
/// Feed-forward policies: standard and gated ones, and the re-parameterised variants of "Exploring
/// the Limits of Small Language Models" (Lee et al. 2023). A policy has a template `layer<D, F,
/// Bias>`: a layer from width D to D. F is the shape's d_ff, Bias whether linear maps have biases.
/// With a fourth parameter, a projection_kind that says how its projections are made, it also fits
/// sharing::lora. A policy of your own derives from ffn::policy; nothing in the library needs
/// editing.

LINNET_NAMESPACE_BEGIN

/// y = f(x), elementwise, on rows of width D.
template <index D, activation_kind A>
struct activation_layer : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, without_cache::cache<T>&,
                      context<T>& ctx) {
    ops::activation<A>(ctx.on, x.size(), x.data(), y.data());
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D> x, view<const T, D> dy, view<T, D> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    ops::activation_backward<A>(ctx.on, x.size(), x.data(), dy.data(), dx.data());
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// y = x with dropped values, on rows of width D; the identity outside training.
template <index D>
struct dropout_layer : without_parameters {
  static constexpr index in = D, out = D;
  template <class T>
  struct cache {
    int dropout_id = 0;
    T* scratch = nullptr;  ///< [rows, D] gradient on its way back
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index mark = m.scratch.mark();
    const cache<T> c{m.dropout_ids++, e.training ? m.scratch.take<T>(e.rows() * D) : nullptr};
    m.scratch.release(mark);
    return c;
  }
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, cache<T>& c, context<T>& ctx) {
    ops::copy(ctx.on, x.size(), x.data(), y.data());
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, D, y.data());
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D>, view<const T, D> dy, view<T, D> dx,
                       cache<T>& c, context<T>& ctx) {
    ops::copy(ctx.on, dy.size(), dy.data(), c.scratch);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, D, c.scratch);
    ops::add(ctx.on, dx.size(), dx.data(), c.scratch, dx.data());
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// y = Drop(f(W x (+ b))): a linear map and its activation, with dropout only if `Drops`. Outside
/// training the activation is part of the product.
template <index In, index Out, activation_kind A, bool Bias, bool Drops,
          projection_kind Projections = projection_kind{}>
struct activated_linear {
  static constexpr index in = In, out = Out;
  using map = projection<In, Out, Bias, Projections>;

  template <class Form>
  using params = typename map::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    map::visit(f, at, p...);
  }

  template <class T>
  struct cache {
    T* inner = nullptr;  ///< [rows, Out] W x + b, kept while training
    T *d_inner = nullptr, *d_active = nullptr;
    [[no_unique_address]] typename map::template cache<T> map_cache{};
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index n = e.rows() * Out;
    if (Drops) c.dropout_id = m.dropout_ids++;
    const index mark = m.scratch.mark();
    if (e.training) {
      c.inner = m.saved.take<T>(n);
      c.d_inner = m.scratch.take<T>(n);
      if (Drops) c.d_active = m.scratch.take<T>(n);
    }
    c.map_cache = map::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      cache<T>& c, context<T>& ctx) {
    T* const inner = c.inner ? c.inner : y.data();
    if constexpr (Projections.plain()) {
      auto one = map::template product<T, S>(p, inner);
      if (c.inner == nullptr) one.finish = ops::activates<A, T>;
      ops::gemm_batch(ctx.on, x.rows(), In, x.data(), {one});
    } else {
      map::template forward<T, S>(p, x, {inner, x.rows()}, c.map_cache, ctx);
    }
    if (c.inner || !Projections.plain()) ops::activation<A>(ctx.on, y.size(), inner, y.data());
    if constexpr (Drops)
      ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, Out, y.data());
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, Out> d_inner(c.d_inner, x.rows());
    const T* d_active = dy.data();
    if constexpr (Drops) {
      ops::copy(ctx.on, dy.size(), dy.data(), c.d_active);
      ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, Out, c.d_active);
      d_active = c.d_active;
    }
    ops::fill(ctx.on, d_inner.size(), T(0), c.d_inner);
    ops::activation_backward<A>(ctx.on, d_inner.size(), c.inner, d_active, c.d_inner);
    map::template backward<T, S>(p, dp, x, d_inner, dx, c.map_cache, ctx);
  }
  static constexpr index flops(const call_shape& e) { return map::flops(e); }
};

/// y = down(f(gate(x)) * up(x)): the gated feed-forward, with hidden width F.
template <index D, index F, activation_kind A, bool Bias,
          projection_kind Projections = projection_kind{}>
struct gated_layer {
  static constexpr index in = D, out = D;
  static constexpr bool adds_residual = true;
  using wide = projection<D, F, Bias, Projections>;
  using narrow = projection<F, D, Bias, Projections>;

  template <class Form>
  struct params {
    typename wide::template params<form::at<Form, storage::part::ffn_gate>> gate{};
    typename wide::template params<form::at<Form, storage::part::ffn_up>> up{};
    typename narrow::template params<form::at<Form, storage::part::ffn_down>> down{};
  };
  template <class Fn, class... P>
  static constexpr void visit(Fn&& f, const parameter_path& at, P&... p) {
    wide::visit(f, at / "gate", p.gate...);
    wide::visit(f, at / "up", p.up...);
    narrow::visit(f, at / "down", p.down...);
  }

  template <class T>
  struct cache {
    T *gate = nullptr, *hidden = nullptr;  ///< [rows, F]
    T* up = nullptr;                       ///< [rows, F] kept while training
    T *d_gate = nullptr, *d_up = nullptr, *d_hidden = nullptr;
    typename wide::template cache<T> gate_map{}, up_map{};
    typename narrow::template cache<T> down_map{};
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index n = e.rows() * F;
    c.dropout_id = m.dropout_ids++;
    c.gate = m.saved.take<T>(n);
    if (e.training) c.up = m.saved.take<T>(n);
    c.hidden = m.saved.take<T>(n);
    const index mark = m.scratch.mark();
    if (e.training) {
      c.d_gate = m.scratch.take<T>(n);
      c.d_up = m.scratch.take<T>(n);
      c.d_hidden = m.scratch.take<T>(n);
    }
    c.gate_map = wide::template plan<T>(m, e);
    c.up_map = wide::template plan<T>(m, e);
    c.down_map = narrow::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    const index rows = x.rows();
    const view<T, F> hidden(c.hidden, rows);
    T* const upward = c.up ? c.up : c.hidden;
    if constexpr (Projections.plain()) {
      auto up = wide::product(p.up, upward);
      if (c.up == nullptr) {
        up.finish = ops::gates<A, T>;
        up.gate = c.gate;
      }
      ops::gemm_each(ctx.on, rows, D, x.data(), wide::product(p.gate, c.gate), up);
    } else {
      wide::template forward<T>(p.gate, x, {c.gate, rows}, c.gate_map, ctx);
      wide::template forward<T>(p.up, x, {upward, rows}, c.up_map, ctx);
    }
    if (c.up || !Projections.plain())
      ops::gated<A>(ctx.on, hidden.size(), c.gate, upward, c.hidden);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.hidden);
    narrow::template forward<T>(p.down, hidden, y, c.down_map, ctx, residual);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                       context<T>& ctx) {
    const index rows = x.rows();
    const view<T, F> hidden(c.hidden, rows), d_hidden(c.d_hidden, rows), d_gate(c.d_gate, rows),
        d_up(c.d_up, rows);
    ops::fill(ctx.on, d_hidden.size(), T(0), c.d_hidden);
    narrow::template backward<T>(p.down, dp.down, hidden, dy, d_hidden, c.down_map, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.d_hidden);
    ops::gated_backward<A>(ctx.on, d_hidden.size(), c.gate, c.up, c.d_hidden, c.d_gate, c.d_up);
    wide::template backward<T>(p.gate, dp.gate, x, d_gate, dx, c.gate_map, ctx);
    wide::template backward<T>(p.up, dp.up, x, d_up, dx, c.up_map, ctx);
  }
  static constexpr index flops(const call_shape& e) {
    return 2 * wide::flops(e) + narrow::flops(e);
  }
};

/// Feed-forward policies.
namespace ffn {

/// Base of every feed-forward policy.
struct policy {
  static constexpr bool skipped = false;
  static constexpr bool can_truncate = true;  ///< keeps no summary of past tokens while decoding
};

/// The standard feed-forward of T5 v1.0 (ReLU) and GPT-2 (GELU): wo(Drop(f(wi x))).
template <activation_kind A>
struct standard : policy {
  template <index D, index F, bool Bias, projection_kind Projections = projection_kind{}>
  using layer =
      chain<named<"wi", activated_linear<D, F, A, Bias, true, Projections>, storage::part::ffn_up>,
            named<"wo", projection<F, D, Bias, Projections>, storage::part::ffn_down>>;
};
using relu = standard<activation_kind::relu>;            ///< T5 v1.0
using gelu = standard<activation_kind::gelu>;            ///< exact GELU
using gelu_tanh = standard<activation_kind::gelu_tanh>;  ///< GPT-2

/// The gated feed-forward (Shazeer 2020): down(Drop(f(gate x) * up x)).
template <activation_kind A>
struct gated : policy {
  template <index D, index F, bool Bias, projection_kind Projections = projection_kind{}>
  using layer = gated_layer<D, F, A, Bias, Projections>;
};
using gated_gelu = gated<activation_kind::gelu_tanh>;  ///< T5 v1.1
using swiglu = gated<activation_kind::silu>;           ///< Llama, STLM

/// No feed-forward at all: the sub-layer, its norm and its residual are absent.
struct skip : policy {
  static constexpr bool skipped = true;
};

/// 1W: one linear map W[D, D], no nonlinearity.
struct linear : policy {
  template <index D, index, bool Bias, projection_kind Projections = projection_kind{}>
  using layer = chain<named<"w", projection<D, D, Bias, Projections>>>;
};

/// 1W + ReLU: ReLU(W x), W[D, D].
struct linear_relu : policy {
  template <index D, index, bool Bias, projection_kind Projections = projection_kind{}>
  using layer =
      chain<named<"w", activated_linear<D, D, activation_kind::relu, Bias, false, Projections>>>;
};

/// A standard or gated feed-forward `Of` with every matrix factored through `Rank`: U (V x). It has
/// fewer numbers where Rank is less than D F / (D + F). factorise() makes its weights from those of
/// `Of`.
template <index Rank, class Of = swiglu>
struct low_rank : policy {
  using dense = Of;  ///< what it factors
  static constexpr index rank = Rank;
  template <index D, index F, bool Bias>
  using layer = typename Of::template layer<D, F, Bias, projection_kind{.rank = Rank}>;
};

/// 2W and 3W: a product of `N` matrices without a nonlinearity, of inner width e D (Lee et al.
/// 2023). After training, collapse() multiplies them into one [D, D] matrix. No biases.
template <int N, expansion E = expansion{4}>
struct reparam : policy {
  using collapsed = linear;  ///< what collapse() makes of it
  static_assert(N == 2 || N == 3, "linnet::ffn::reparam<N, e>: N is 2 or 3 matrices");
  static_assert(E.thousandths > 0, "linnet::ffn::reparam<N, e>: the expansion e must be positive");

  template <index D>
  static constexpr index inner = E.of(D);
  template <index D, bool Three>
  struct make {
    using type = linear_product<named<"w1", linnet::linear<D, inner<D>>>,
                                named<"w2", linnet::linear<inner<D>, D>>>;
  };
  template <index D>
  struct make<D, true> {
    using type = linear_product<named<"w1", linnet::linear<D, inner<D>>>,
                                named<"w2", linnet::linear<inner<D>, inner<D>>>,
                                named<"w3", linnet::linear<inner<D>, D>>>;
  };
  // A chain of one, as that of ffn::linear.
  template <index D, index, bool>
  using layer = chain<named<"", typename make<D, N == 3>::type>>;
};

}  // namespace ffn

LINNET_NAMESPACE_END
/// @file
/// RMSNorm and LayerNorm: the policies that choose them and their layers.

/// @file
/// Normalisation of rows, forward and backward.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// RMSNorm (Zhang and Sennrich 2019): y = weight x / sqrt(mean(x^2) + eps), for x[rows, D]. Keeps
/// 1 / sqrt(...) of each row in inverse[rows].
template <class T, index D>
void rms_norm(const execution& on, T eps, view<const T, D> x, const T* weight, view<T, D> y,
              T* inverse) {
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      inverse[i] = decltype(k)::template rms_norm<T>(D, eps, x.row(i), weight, y.row(i));
    });
  });
}

/// Adds the gradients of rms_norm() to d_weight[D] and dx[rows, D].
template <class T, index D>
void rms_norm_backward(const execution& on, view<const T, D> x, const T* weight, const T* inverse,
                       view<const T, D> dy, T* d_weight, view<T, D> dx) {
  const auto [first, last] = on.threads.range(D);
  for (index i = 0; i < x.rows(); ++i)
    for (index j = first; j < last; ++j) d_weight[j] += dy(i, j) * x(i, j) * inverse[i];
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      decltype(k)::template rms_norm_backward<T>(D, inverse[i], x.row(i), weight, dy.row(i),
                                                 dx.row(i));
    });
  });
}

/// LayerNorm (Ba et al. 2016): y = weight (x - mean) / sqrt(variance + eps) + bias, for x[rows, D].
/// Keeps the mean and the inverse deviation of each row in statistics[rows, 2].
template <class T, index D>
void layer_norm(const execution& on, T eps, view<const T, D> x, const T* weight, const T* bias,
                view<T, D> y, T* statistics) {
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      decltype(k)::template layer_norm<T>(D, eps, x.row(i), weight, bias, y.row(i),
                                          statistics + 2 * i);
    });
  });
}

/// Adds the gradients of layer_norm() to d_weight[D], d_bias[D] and dx[rows, D].
template <class T, index D>
void layer_norm_backward(const execution& on, view<const T, D> x, const T* weight,
                         const T* statistics, view<const T, D> dy, T* d_weight, T* d_bias,
                         view<T, D> dx) {
  const auto [first, last] = on.threads.range(D);
  for (index i = 0; i < x.rows(); ++i) {
    const T mean = statistics[2 * i], r = statistics[2 * i + 1];
    for (index j = first; j < last; ++j) {
      d_weight[j] += dy(i, j) * (x(i, j) - mean) * r;
      d_bias[j] += dy(i, j);
    }
  }
  on.threads.each(x.rows(), [&](index i) {
    on.with_kernels([&](auto k) {
      decltype(k)::template layer_norm_backward<T>(D, statistics + 2 * i, x.row(i), weight,
                                                   dy.row(i), dx.row(i));
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Normalisation policies: `layer<D, Eps>` normalises rows of width D.
namespace norm {

/// Base of every normalisation policy.
struct policy {};

/// RMSNorm (Zhang and Sennrich 2019): y = gamma x / sqrt(mean(x^2) + eps).
struct rms : policy {
  template <index D, real Eps>
  struct layer {
    static constexpr index in = D, out = D;

    template <class Form>
    struct params {
      typename Form::vector weight{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
    }

    template <class T>
    struct cache {
      T* inverse = nullptr;  ///< [rows] 1 / sqrt(mean(x^2) + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      return {m.saved.take<T>(e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      ops::rms_norm(ctx.on, T(Eps.value), x, p.weight, y, c.inverse);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      ops::rms_norm_backward(ctx.on, x, p.weight, c.inverse, dy, dp.weight, dx);
    }

    static constexpr index flops(const call_shape&) { return 0; }
  };
};

/// LayerNorm (Ba et al. 2016): y = gamma (x - mean) / sqrt(variance + eps) + beta.
struct layer_norm : policy {
  template <index D, real Eps>
  struct layer {
    static constexpr index in = D, out = D;

    template <class Form>
    struct params {
      typename Form::vector weight{};
      typename Form::vector bias{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      f(at / "weight", tensor_info{1, D, role::scale, 0}, p.weight...);
      f(at / "bias", tensor_info{1, D, role::bias, 0}, p.bias...);
    }

    template <class T>
    struct cache {
      T* statistics = nullptr;  ///< [rows, 2] mean and 1 / sqrt(variance + eps)
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      return {m.saved.take<T>(2 * e.rows())};
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      ops::layer_norm(ctx.on, T(Eps.value), x, p.weight, p.bias, y, c.statistics);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      ops::layer_norm_backward(ctx.on, x, p.weight, c.statistics, dy, dp.weight, dp.bias, dx);
    }

    static constexpr index flops(const call_shape&) { return 0; }
  };
};

}  // namespace norm

LINNET_NAMESPACE_END
/// @file
/// Mixture of depths: blocks that only some tokens go through (Raposo et al. 2024,
/// arXiv:2404.02258).

/// @file
/// A stack that alternates between two types of layers.

LINNET_NAMESPACE_BEGIN

/// A repeat of `N` layers of which every `Every`-th is an `Other`: for Every = 2 the second, the
/// fourth, and so on. All are numbered by their place in the stack.
template <class Layer, class Other, index N, index Every>
struct alternate {
  static_assert(Layer::in == Layer::out && Other::in == Layer::in && Other::out == Layer::in,
                "linnet::alternate: the layers must keep the width of the stream");
  static_assert(Every >= 1 && Every <= N,
                "linnet::alternate: none of the layers would be the other one");
  static constexpr index in = Layer::in, out = Layer::in;
  static constexpr auto count = static_cast<std::size_t>(N),
                        other_count = static_cast<std::size_t>(N / Every);

  template <class Form>
  struct params {
    std::array<typename Layer::template params<Form>, count - other_count> layers{};
    std::array<typename Other::template params<Form>, other_count> others{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    for (std::size_t l = 0; l < count; ++l)
      take(
          l,
          [&](auto layer, auto&... item) {
            decltype(layer)::type::visit(f, at.element(static_cast<index>(l), N), item...);
          },
          p...);
  }

  template <class T>
  struct cache {
    std::array<typename Layer::template cache<T>, count - other_count> layers{};
    std::array<typename Other::template cache<T>, other_count> others{};
    linnet::detail::layer_loop<T, in, count> loop{};
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.loop.plan(m, e);
    for (std::size_t l = 0; l < count; ++l) {
      const index kept = m.saved.mark();
      take(
          l, [&](auto layer, auto& item) { item = decltype(layer)::type::template plan<T>(m, e); },
          c);
      if (!e.training) m.saved.release(kept);
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    c.loop.forward(x, y, ctx, 0, N, [&](std::size_t l, view<const T, in> u, view<T, in> v) {
      take(
          l,
          [&](auto layer, const auto& item, auto& buffers) {
            decltype(layer)::type::template forward<T, S>(item, u, v, buffers, ctx);
          },
          p, c);
    });
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    c.loop.backward(x, dy, dx, ctx, 0, N,
                    [&](std::size_t l, view<const T, in> u, view<const T, in> dv, view<T, in> du) {
                      take(
                          l,
                          [&](auto layer, const auto& item, auto& gradient, auto& buffers) {
                            decltype(layer)::type::template backward<T, S>(item, gradient, u, dv,
                                                                           du, buffers, ctx);
                          },
                          p, dp, c);
                    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    for (auto& item : c.layers) linnet::copy_state<Layer, T>(item, from, to, part);
    for (auto& item : c.others) linnet::copy_state<Other, T>(item, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    return (N - N / Every) * Layer::flops(e) + N / Every * Other::flops(e);
  }

 private:
  /// f(type, items...) with the type of layer `l` and what each of `p` has for it.
  template <class F, class... P>
  static constexpr void take(std::size_t l, F&& f, P&... p) {
    constexpr auto every = static_cast<std::size_t>(Every);
    if (l % every == every - 1)
      f(std::type_identity<Other>{}, p.others[l / every]...);
    else
      f(std::type_identity<Layer>{}, p.layers[l - l / every]...);
  }
};

LINNET_NAMESPACE_END
/// @file
/// The sigmoid gate of RWKV, "receptance": z = sigmoid(r) y.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The sigmoid 1 / (1 + e^-x), without overflow.
template <class T>
T sigmoid(T x) {
  const T e = std::exp(-std::abs(x));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

/// z[n] = sigmoid(r[n]) y[n]; r is overwritten by its sigmoid, which gate_backward() takes. z may
/// be y.
template <class T>
void gate(const ops::execution& on, index n, T* r, const T* y, T* z) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      r[i] = sigmoid(r[i]);
      z[i] = r[i] * y[i];
    }
  });
}
/// dr[n], dy[n] = the derivatives of gate() (overwritten); dy may be dz.
template <class T>
void gate_backward(const ops::execution& on, index n, const T* sigmoid_r, const T* y, const T* dz,
                   T* dr, T* dy) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      const T s = sigmoid_r[i], d = dz[i];
      dr[i] = d * y[i] * s * (T(1) - s);
      dy[i] = d * s;
    }
  });
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace depths {

/// How a token is routed without a look at later tokens: what decides whether it goes through a
/// block.
enum class decision {
  router,    ///< the sign of the router's own number, trained for it beside its main task
  predictor  ///< a small network beside it, whose training changes nothing else
};

}  // namespace depths

namespace detail {

/// A block that only some tokens go through. While training they are those with the largest r_i =
/// w.x_i; otherwise each token decides for itself. They become x_i + r_i f(x~)_i, where f is the
/// block without its residual. Here x~ are the chosen tokens alone, in order and with the positions
/// that they have in the text. All others stay as they are, to the bit.
///
/// Rotary is the width of the rotary angles that the block reads, 0 for none. The auxiliary loss
/// Weight * sum_i BCE(sigmoid(r_i), chosen_i), of the predictor's s_i in place of r_i where there
/// is one, is part of backward alone. Samples that skip the layer have no part in it.
template <class Block, real Capacity, depths::decision By, real Weight, index Rotary>
struct routed_block {
  static constexpr index in = Block::in, out = Block::in;
  static constexpr bool predicts = By == depths::decision::predictor;
  /// Hidden width of the routing predictor.
  static constexpr index hidden = in < 4 ? 1 : in / 4;
  using predictor_layer = chain<named<"wi", linear<in, hidden, true>>,
                                named<"act", activation_layer<hidden, activation_kind::silu>>,
                                named<"wo", linear<hidden, 1, true>>>;

  /// Number of tokens, out of `tokens`, that are chosen in training: the fraction, rounded up.
  static constexpr index share(index tokens) {
    // A product such as 0.07 * 100 may come out a little above the whole number that it is.
    const double exact = Capacity.value * static_cast<double>(tokens) - 1e-9;
    const auto whole = static_cast<index>(exact);
    const index count = whole + (exact > static_cast<double>(whole));
    return (std::min)(tokens, (std::max)(count, index{1}));
  }

  template <class Form>
  struct params {
    typename Block::template params<Form> block{};
    typename Form::vector router{};  ///< w [in]; always in full, as a rounded one chooses others
    [[no_unique_address]] std::conditional_t<
        predicts, typename predictor_layer::template params<Form>, std::nullptr_t>
        predictor{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Block::visit(f, at, p.block...);
    f(at / "router" / "weight",
      tensor_info{1, in, role::position, 1 / sqrt(static_cast<double>(in))}, p.router...);
    if constexpr (predicts) predictor_layer::visit(f, at / "predictor", p.predictor...);
  }

  template <class T>
  struct cache {
    typename Block::template cache<T> block{};
    [[no_unique_address]] std::conditional_t<predicts, typename predictor_layer::template cache<T>,
                                             std::nullptr_t>
        predictor{};
    T* r = nullptr;                        ///< [rows] of the router
    T* s = nullptr;                        ///< [rows] of the predictor
    T *x = nullptr, *f = nullptr;          ///< [batch, most, in] the chosen tokens, and f of them
    T *d_x = nullptr, *d_y = nullptr;      ///< while training: their gradient, that of the block
    T *slope = nullptr, *guess = nullptr;  ///< [rows] the gradients of r and s
    T* unused = nullptr;  ///< [rows, in] what the predictor would do to its input; never read
    T* angles = nullptr;  ///< [batch, most, Rotary]
    std::int32_t* chosen = nullptr;  ///< [batch, most] tokens of this call
    index* counts = nullptr;         ///< [batch] how many
    index* past = nullptr;           ///< [batch] chosen ones before this call
    std::int32_t* before = nullptr;  ///< [batch, capacity + 1] of a session: chosen among so many
    std::int32_t* order = nullptr;   ///< [length] per thread
    index most = 0, capacity = 0, length = 0;
    bool training = false;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.training = e.training;
    c.length = e.length;
    c.capacity = e.capacity;
    c.most = e.training ? share(e.length) : e.length;
    const index chosen = e.batch * c.most, mark = m.scratch.mark();
    c.r = m.saved.take<T>(e.rows());
    if (predicts) c.s = m.saved.take<T>(e.rows());
    c.x = m.saved.take<T>(chosen * in);
    c.f = m.saved.take<T>(chosen * in);
    if (Rotary > 0) c.angles = m.saved.take<T>(chosen * Rotary);
    c.chosen = m.saved.take<std::int32_t>(chosen);
    c.counts = m.saved.take<index>(e.batch);
    if (e.capacity > 0) {
      c.past = m.saved.take<index>(e.batch);
      c.before = m.state.take<std::int32_t>(e.batch * (e.capacity + 1));
    }
    if (e.training) {
      c.order = m.scratch.take<std::int32_t>(e.length * e.threads);
      c.slope = m.scratch.take<T>(e.rows());
      c.d_x = m.scratch.take<T>(chosen * in);
      c.d_y = m.scratch.take<T>(chosen * in);
      if (predicts) c.guess = m.scratch.take<T>(e.rows());
      if (predicts) c.unused = m.scratch.take<T>(e.rows() * in);
    }
    if constexpr (predicts) c.predictor = predictor_layer::template plan<T>(m, e);
    call_shape some = e;
    some.length = c.most;
    some.blocks = 0;
    c.block = Block::template plan<T>(m, some);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    ctx.on.threads.each(x.rows(), [&](index row) { c.r[row] = dot(ctx, x.row(row), p.router); });
    if constexpr (predicts)
      predictor_layer::template forward<T, S>(p.predictor, x, {c.s, x.rows()}, c.predictor, ctx);
    ctx.on.threads.each(ctx.batch, [&](index b) {
      if (c.training)
        choose_best(b, c, ctx);
      else
        choose_by_themselves(b, c, ctx);
    });
    context<T> inner = among_chosen(c, ctx);  // before the barrier, as the next layer may follow
    const index rows = inner.rows();
    ops::copy(ctx.on, x.size(), x.data(), y.data());
    if (rows == 0) return;
    ctx.on.threads.each(rows, [&](index i) {
      const index row = row_of(i, c, inner, ctx);
      T *const to = c.x + i * in, *const angles = c.angles + i * Rotary;
      if (row < 0) {
        std::fill_n(to, in, T(0));
        std::fill_n(angles, Rotary, T(0));
      } else {
        std::copy_n(x.row(row), in, to);
        if constexpr (Rotary > 0) std::copy_n(ctx.rope_of(row, Rotary), Rotary, angles);
      }
    });
    Block::template forward<T, S>(p.block, {c.x, rows}, {c.f, rows}, c.block, inner);
    ctx.on.threads.each(rows, [&](index i) {
      const index row = row_of(i, c, inner, ctx);
      if (row < 0) return;
      T* const f = c.f + i * in;
      for (index j = 0; j < in; ++j) {
        f[j] -= x(row, j);
        y(row, j) = x(row, j) + c.r[row] * f[j];
      }
    });
  }

  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    constexpr T weight = static_cast<T>(Weight.value);
    context<T> inner = among_chosen(c, ctx);
    const index rows = inner.rows();
    ops::add(ctx.on, dx.size(), dx.data(), dy.data(), dx.data());
    ctx.on.threads.each(x.rows(), [&](index row) {
      const index b = row / ctx.length;
      const bool valid = row % ctx.length < ctx.length_of(b) && !ctx.skips(b);
      c.slope[row] = valid && !predicts ? weight * sigmoid(c.r[row]) : T(0);
      if constexpr (predicts) c.guess[row] = valid ? weight * sigmoid(c.s[row]) : T(0);
    });
    ctx.on.threads.each(rows, [&](index i) {
      const index row = row_of(i, c, inner, ctx);
      T *const d_x = c.d_x + i * in, *const d_y = c.d_y + i * in;
      if (row < 0) {
        std::fill_n(d_x, in, T(0));
        std::fill_n(d_y, in, T(0));
        return;
      }
      if (!ctx.skips(row / ctx.length)) (predicts ? c.guess : c.slope)[row] -= weight;
      c.slope[row] += dot(ctx, dy.row(row), c.f + i * in);
      for (index j = 0; j < in; ++j) {
        d_y[j] = c.r[row] * dy(row, j);
        d_x[j] = -d_y[j];  // the residual that the block adds, and f does not have
      }
    });
    if (rows > 0) {
      Block::template backward<T, S>(p.block, dp.block, {c.x, rows}, {c.d_y, rows}, {c.d_x, rows},
                                     c.block, inner);
      ctx.on.threads.each(rows, [&](index i) {
        const index row = row_of(i, c, inner, ctx);
        for (index j = 0; row >= 0 && j < in; ++j) dx(row, j) += c.d_x[i * in + j];
      });
    }
    const auto [first, last] = ctx.on.threads.range(in);
    for (index row = 0; row < x.rows(); ++row)
      for (index j = first; j < last; ++j) dp.router[j] += c.slope[row] * x(row, j);
    ctx.on.threads.each(x.rows(), [&](index row) {
      for (index j = 0; j < in; ++j) dx(row, j) += c.slope[row] * p.router[j];
    });
    // The gradient stops at the predictor's input.
    if constexpr (predicts)
      predictor_layer::template backward<T, S>(p.predictor, dp.predictor, x, {c.guess, x.rows()},
                                               {c.unused, x.rows()}, c.predictor, ctx);
  }

  /// The chosen tokens, and what the block saved of them. A token fed in other parts may have been
  /// rounded to the other side, so that what both read may begin to differ earlier.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    const std::int32_t* const source = c.before + from * (c.capacity + 1);
    std::int32_t* const target = c.before + to * (c.capacity + 1);
    index first = 0;
    while (first < part.first && source[first + 1] == target[first + 1]) ++first;
    std::copy(source + first, source + part.tokens + 1, target + first);
    state_part chosen = part;
    chosen.first = source[first];
    chosen.tokens = source[part.tokens];
    linnet::copy_state<Block, T>(c.block, from, to, chosen);
  }

  /// Floating-point operations of a training call; in decoding as many tokens are expected to
  /// enter.
  static constexpr index flops(const call_shape& e) {
    call_shape some = e;
    some.length = share(e.length);
    return Block::flops(some) + 2 * e.rows() * in + (predicts ? predictor_layer::flops(e) : 0);
  }

 private:
  template <class T>
  static T dot(const context<T>& ctx, const T* a, const T* b) {
    T sum{};
    ctx.on.with_kernels([&](auto k) { sum = decltype(k)::template dot<T>(in, a, b); });
    return sum;
  }
  /// Chooses the tokens of sequence `b` with the largest r, the earlier of equals, in order.
  template <class T>
  static void choose_best(index b, cache<T>& c, const context<T>& ctx) {
    const index valid = ctx.length_of(b), count = share(valid);
    c.counts[b] = count;
    if (count == 0) return;
    std::int32_t* const order = c.order + ctx.on.threads.rank() * c.length;
    // What is not finite comes last, as no order holds it.
    const auto key = [&](std::int32_t t) {
      const T r = c.r[b * ctx.length + t];
      return is_finite(r) ? r : std::numeric_limits<T>::lowest();
    };
    for (index t = 0; t < valid; ++t) order[t] = static_cast<std::int32_t>(t);
    std::nth_element(order, order + count - 1, order + valid, [&](std::int32_t i, std::int32_t j) {
      return key(i) != key(j) ? key(i) > key(j) : i < j;
    });
    std::sort(order, order + count);
    std::copy_n(order, count, c.chosen + b * c.most);
  }
  /// Chooses the tokens of sequence `b` that enter by themselves.
  template <class T>
  static void choose_by_themselves(index b, cache<T>& c, const context<T>& ctx) {
    std::int32_t* const before = ctx.past ? c.before + b * (c.capacity + 1) + ctx.past[b] : nullptr;
    const T* const say = (predicts ? c.s : c.r) + b * ctx.length;
    index count = 0;
    for (index t = 0; t < ctx.length_of(b); ++t) {
      // What is no number enters, weighted by it, so that the output shows it.
      const bool usable = is_finite(say[t]);
      if (!usable) c.r[b * ctx.length + t] = std::numeric_limits<T>::quiet_NaN();
      if (say[t] > T(0) || !usable) c.chosen[b * c.most + count++] = static_cast<std::int32_t>(t);
      if (before) before[t + 1] = before[0] + static_cast<std::int32_t>(count);
    }
    c.counts[b] = count;
    if (before) c.past[b] = before[0];
  }
  /// The call of the block on the chosen tokens, [batch, most of a sequence].
  template <class T>
  static context<T> among_chosen(const cache<T>& c, const context<T>& ctx) {
    context<T> inner = ctx;
    inner.length = *std::max_element(c.counts, c.counts + ctx.batch);
    inner.lengths = c.counts;
    inner.past = ctx.past ? c.past : nullptr;
    inner.pages = {};
    // Every row brings the angles of its own position.
    inner.rope.positions = 0;
    inner.rope.beyond = c.angles;
    return inner;
  }
  /// The row of x behind row `i` of the inner call, or -1 for padding.
  template <class T>
  static index row_of(index i, const cache<T>& c, const context<T>& inner, const context<T>& ctx) {
    const index b = i / inner.length, j = i % inner.length;
    return j < c.counts[b] ? b * ctx.length + c.chosen[b * c.most + j] : -1;
  }
};

}  // namespace detail

/// Depth policies: which blocks a token goes through.
namespace depths {

/// Base of the depth policies.
struct policy {
  static constexpr bool routes = false;  ///< some tokens pass some blocks by
  static constexpr index every = 1;      ///< of so many blocks, one is routed
};

/// Every token goes through every block.
struct all : policy {
  template <class Stack, class Block, index Layers, index Rotary>
  using stack = typename Stack::type;
};

/// Mixture of depths (Raposo et al. 2024, arXiv:2404.02258). In every `Every`-th block (the second,
/// the fourth, and so on) a router r_i = w.x_i, without bias and not squashed, chooses tokens. They
/// are the ceil(Capacity T) tokens of a sequence of T with the largest r_i, the earlier of equals.
/// They alone meet in the block: queries, keys and values are theirs, with the positions that they
/// have in the text. For them, x_i becomes x_i + r_i f(x~)_i, f without its residual. All others
/// pass by unchanged. The gradient reaches the router through r_i; the choice is a constant. The
/// published best is the default: every other block, one token in eight.
///
/// Which tokens are the best of a sequence depends on later ones, which nobody knows while a text
/// is written. Training looks ahead, all else does not. In a session or an evaluator a token enters
/// a block if `By` says so, a function of the token and those before it. Any number of tokens may
/// enter. So an evaluator scores what a session would write; only trainer::evaluate() looks ahead
/// as training does. By says so if r_i > 0, that is sigmoid(r_i) > 1/2. For this, training adds to
/// the loss Weight times the binary cross-entropy of sigmoid(r_i) with the choice, summed over
/// tokens and routed blocks. Its gradient goes through the router and on into x. Or By is a
/// predictor: two linear maps with a SiLU between them, of hidden width d_model / 4. That
/// cross-entropy trains it on x as it is. Its gradient then goes no further, and the language model
/// learns as if it were not there (but for clipping, which sees its gradient too). Losses that
/// trainers and evaluators report are those of the language model alone; so check_model_gradients()
/// wants a Weight of 0.
///
/// In a decoder's batch every token counts, those without a label too. A routed block keeps keys
/// and values of its chosen tokens alone, so a sequence has other tokens in each block. Memory is
/// planned for the case that all of them enter. Taking tokens back and forks work; paged caches do
/// not. The policy asks for attention that works on any subset of the tokens: full.
template <real Capacity = 0.125, index Every = 2, decision By = decision::router,
          real Weight = 0.01>
struct mixture_of_depths : policy {
  static_assert(
      Capacity.value > 0 && Capacity.value <= 1,
      "linnet::depths::mixture_of_depths: the capacity is a share of the tokens, above 0 and at "
      "most 1");
  static_assert(Every >= 1,
                "linnet::depths::mixture_of_depths: every how many blocks one is routed");
  static_assert(Weight.value >= 0,
                "linnet::depths::mixture_of_depths: the weight of a loss is not negative");
  static constexpr bool routes = true;
  static constexpr index every = Every;
  template <class Stack, class Block, index Layers, index Rotary>
  using stack = alternate<Block, linnet::detail::routed_block<Block, Capacity, By, Weight, Rotary>,
                          Layers, Every>;
  using kind = mixture_of_depths;
  /// Name of the policy in files; the weight of the auxiliary loss is no part of it, as weights
  /// compute the same without it.
  static std::string name() {
    char digits[32];
    return "mixture<" +
           std::string(digits, std::to_chars(digits, digits + sizeof digits, Capacity.value).ptr) +
           ", " + std::to_string(Every) +
           (By == decision::predictor ? ", predictor>" : ", router>");
  }
};

}  // namespace depths

LINNET_NAMESPACE_END
/// @file
/// Sharing policies: which parameters the blocks of a stack have in common.

LINNET_NAMESPACE_BEGIN

/// Sharing policies: which tensors of a block are shared by all blocks of the stack. A shared
/// tensor exists, counts and is visited once; its gradient is the sum over the blocks. A policy of
/// your own derives from sharing::policy and says `shares(path)` of the places of a block's
/// tensors, such as ...attention.q.weight. Key-value caches are each block's own always.
namespace sharing {

/// Base of the sharing policies: nothing is shared. What files call one is `static std::string
/// name()`.
struct policy {
  static constexpr index repeats = 1;              ///< times that a block runs in a row
  static constexpr projection_kind projections{};  ///< how the linear maps of the blocks are made
  /// Whether all blocks share the tensor at this place of the block.
  static constexpr bool shares(const parameter_path&) { return false; }
};

/// Every block has parameters of its own.
struct none : policy {
  using kind = none;
  static std::string name() { return "none"; }
};

/// One feed-forward for all blocks, which keep their attention and both norms (MobiLlama,
/// Thawakar et al. 2024, arXiv:2402.16840).
struct ffn : policy {
  using kind = ffn;
  static std::string name() { return "ffn"; }
  static constexpr bool shares(const parameter_path& at) {
    const parameter_path* below = nullptr;
    for (const parameter_path* p = &at; p; below = p, p = p->parent)
      if (p->name == "ffn") return !below || below->name != "norm";
    return false;
  }
};

/// One block for all layers, norms included (ALBERT, Lan et al. 2019, arXiv:1909.11942).
struct all : policy {
  using kind = all;
  static std::string name() { return "all"; }
  static constexpr bool shares(const parameter_path&) { return true; }
};

/// Each block runs `Times` times in a row before the next (MobileLLM-LS, Liu et al. 2024,
/// arXiv:2402.14905). `layers` of the shape counts runs.
template <index Times>
struct repeat : policy {
  static_assert(Times > 0, "linnet::sharing::repeat: a block runs at least once");
  static constexpr index repeats = Times;
  using kind = repeat;
  static std::string name() { return "repeat " + std::to_string(Times); }
};

/// One block for all layers; each layer adds a low-rank delta of its own to every matrix (after
/// LoRA, Hu et al. 2021): W + Alpha / Rank B A. Each layer also has norms of its own. unshare()
/// adds the deltas up.
template <index Rank, index Alpha = Rank>
struct lora : policy {
  static constexpr projection_kind projections{.rank = Rank, .delta = true, .alpha = Alpha};
  using kind = lora;
  static std::string name() {
    return "lora " + std::to_string(Rank) + " alpha " + std::to_string(Alpha);
  }
  static constexpr bool shares(const parameter_path& at) {
    for (const parameter_path* p = &at; p; p = p->parent)
      if (p->name == "norm" || p->name == "lora_a" || p->name == "lora_b") return false;
    return true;
  }
};

}  // namespace sharing

namespace detail {

/// The parameters of `N` layers of which some are shared: see sharing::policy. What a layer reads
/// is put together for each call, a copy of a few pointers, so that every tensor has one place.
template <class Layer, index N, class Sharing>
struct shared_parameters {
  static_assert(N % Sharing::repeats == 0,
                "linnet::sharing::repeat<n>: the number of layers must be a multiple of n");
  static constexpr auto times = static_cast<std::size_t>(Sharing::repeats);
  static constexpr std::size_t count = static_cast<std::size_t>(N) / times;

  template <class Form>
  struct params {
    /// Parameters of each layer's own; the places of shared tensors are empty.
    typename Layer::template params<Form> items[count]{};
    /// Parameters that all layers share; the places of their own tensors are empty.
    typename Layer::template params<Form> shared{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const auto only = [&f](bool shared) {
      return [&f, shared](const parameter_path& where, const tensor_info& info, auto&... leaf) {
        if (Sharing::shares(where) == shared) f(where, info, leaf...);
      };
    };
    for (std::size_t l = 0; l < count; ++l)
      Layer::visit(only(false), at.element(static_cast<index>(l), static_cast<index>(count)),
                   p.items[l]...);
    Layer::visit(only(true), at / "shared", p.shared...);
  }
  /// Beside the parameters `q` of as many layers that share nothing.
  template <class F, class P, class Q>
  requires(!requires(Q & q) {
    q.shared;
  }) static constexpr void visit(F&& f, const parameter_path& at, P& p, Q& q) {
    for (std::size_t l = 0; l < count * times; ++l) {
      auto layer = of(p, l);
      Layer::visit(f, at.element(static_cast<index>(l), N), layer, q.items[l]);
    }
  }
  /// Parameters of layer `l`.
  template <class P>
  static constexpr auto of(P& p, std::size_t l) {
    auto layer = p.items[l / times];
    Layer::visit(
        [](const parameter_path& where, const tensor_info&, auto& to, const auto& from) {
          if (Sharing::shares(where)) to = from;
        },
        parameter_path{}, layer, p.shared);
    return layer;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The policy derived from `Slot` in the list, or `Default`.
template <class Slot, class Default, class... Ps>
struct pick_policy {
  using type = Default;
};
template <class Slot, class Default, class P, class... Ps>
struct pick_policy<Slot, Default, P, Ps...> {
  using type = typename std::conditional_t<std::is_base_of_v<Slot, P>, std::type_identity<P>,
                                           pick_policy<Slot, Default, Ps...>>::type;
};
template <class Slot, class Default, class... Ps>
using pick = typename pick_policy<Slot, Default, Ps...>::type;

/// One policy for each slot, in a fixed order, so that a model has one type however it is spelled.
template <class... Ps>
struct policy_set {
  /// The policy of a slot.
  template <class Slot>
  using of = pick<Slot, void, Ps...>;
  /// This set of policies with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with = policy_set<std::conditional_t<std::is_base_of_v<Slot, Ps>, Other, Ps>...>;
};

/// The storage type in the list, or f32, with the list's compute type.
template <class... Ps>
struct pick_storage {
  using stored = pick<storage::policy, storage::f32, Ps...>;
  using computed = pick<compute::policy, typename stored::compute, Ps...>;
  using type = typename std::conditional_t<
      std::is_same_v<computed, typename stored::compute>, std::type_identity<stored>,
      std::type_identity<storage::with_compute<stored, computed>>>::type;
};

/// The storage of the model of a list.
template <class... Ps>
using pick_model_storage =
    model_storage<std::is_same_v<pick<tie::policy, tie::tied, Ps...>, tie::tied>,
                  typename pick_storage<Ps...>::type>;

/// The policy inside a wrapper such as encoder_stack<P>, or void if `P` is no such wrapper.
template <template <class> class Wrapper, class P>
struct unwrap {
  using type = void;
};
template <template <class> class Wrapper, class P>
struct unwrap<Wrapper, Wrapper<P>> {
  using type = P;
};
/// The policy of a slot for one stack: the wrapped one, else the one for all, else the default.
template <template <class> class Wrapper, class Slot, class Default, class... Ps>
using pick_for = pick<Slot, pick<Slot, Default, Ps...>, typename unwrap<Wrapper, Ps>::type...>;

/// Whether several policies of the list fill a slot.
template <class Slot, class... Ps>
inline constexpr bool twice = (0 + ... + static_cast<int>(std::is_base_of_v<Slot, Ps>)) > 1;

template <class P>
inline constexpr bool known_policy =
    std::is_base_of_v<ffn::policy, P> || std::is_base_of_v<norm::policy, P> ||
    std::is_base_of_v<attention::policy, P> || std::is_base_of_v<position::policy, P> ||
    std::is_base_of_v<tie::policy, P> || std::is_base_of_v<bias::policy, P> ||
    std::is_base_of_v<storage::policy, P> || std::is_base_of_v<compute::policy, P> ||
    std::is_base_of_v<kv::policy, P> || std::is_base_of_v<depths::policy, P> ||
    std::is_base_of_v<sharing::policy, P> || std::is_base_of_v<embedding::policy, P>;

/// Compile-time errors for a list with two policies of one slot; true for other lists.
template <class... Ps>
constexpr bool policies_fit() {
  if constexpr (twice<ffn::policy, Ps...>)
    static_assert(never<Ps...>,
                  "linnet: two ffn:: policies for the same stack; give one, or wrap one in "
                  "encoder_stack<> or decoder_stack<>");
  else if constexpr (twice<norm::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two norm:: policies; give one");
  else if constexpr (twice<attention::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two attention:: policies; give one");
  else if constexpr (twice<position::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two position:: policies; give one");
  else if constexpr (twice<tie::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two tie:: policies; give one");
  else if constexpr (twice<bias::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two bias:: policies; give one");
  else if constexpr (twice<storage::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two storage types; give one");
  else if constexpr (twice<kv::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two kv:: policies; give one");
  else if constexpr (twice<depths::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two depths:: policies; give one");
  else if constexpr (twice<sharing::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two sharing:: policies; give one");
  else if constexpr (twice<embedding::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two embedding:: policies; give one");
  else if constexpr (twice<compute::policy, Ps...>)
    static_assert(never<Ps...>, "linnet: two compute:: policies; give one");
  else if constexpr (!pick_model_storage<Ps...>::fits)
    static_assert(
        never<Ps...>,
        "linnet::storage::per_role: a tied head reads the embedding's table, which has one "
        "storage; give storage::embedding<> alone, or tie::untied");
  else
    return true;
  return false;
}

/// Faults of the layer of a feed-forward policy.
enum class ffn_fault { none, no_layer, no_delta, rank, widths, chain_widths };
template <class Ffn, index D, index F, bool Bias, projection_kind Projections = projection_kind{}>
constexpr ffn_fault fault_of_ffn() {
  const auto widths = []<class Layer>(std::type_identity<Layer>) {
    if constexpr (requires { requires !Layer::widths_fit; }) return ffn_fault::chain_widths;
    return Layer::in == D && Layer::out == D ? ffn_fault::none : ffn_fault::widths;
  };
  constexpr bool ranked = [] {
    if constexpr (requires { Ffn::rank; }) return Ffn::rank > 0 && Ffn::rank <= D && Ffn::rank <= F;
    return true;
  }();
  if constexpr (Ffn::skipped) {
    return ffn_fault::none;
  } else if constexpr (!ranked) {
    return ffn_fault::rank;
  } else if constexpr (!requires { typename Ffn::template layer<D, F, Bias>; }) {
    return ffn_fault::no_layer;
  } else if constexpr (Projections.plain()) {
    return widths(std::type_identity<typename Ffn::template layer<D, F, Bias>>{});
  } else if constexpr (!requires { typename Ffn::template layer<D, F, Bias, Projections>; }) {
    return ffn_fault::no_delta;
  } else {
    return widths(std::type_identity<typename Ffn::template layer<D, F, Bias, Projections>>{});
  }
}
/// Words for a feed-forward policy whose layer has a fault; true for others.
template <ffn_fault Fault, class Ffn>
constexpr bool ffn_fits() {
  static_assert(Fault != ffn_fault::no_layer,
                "linnet: your ffn:: policy needs `template <index D, index F, bool Bias> using "
                "layer`, with these three parameters: the width, the hidden width d_ff and whether "
                "maps have biases");
  static_assert(Fault != ffn_fault::no_delta,
                "linnet::sharing::lora: this feed-forward's maps take no delta; its template "
                "layer<D, F, Bias> would need a fourth parameter projection_kind, as those of the "
                "standard and gated ones, ffn::linear and ffn::linear_relu have");
  static_assert(Fault != ffn_fault::rank,
                "linnet::ffn::low_rank: the rank must be positive and at most the smaller width of "
                "d_model and d_ff");
  static_assert(Fault != ffn_fault::chain_widths,
                "linnet::chain: neighbouring members differ in width in the layer of your ffn:: "
                "policy: `out` of each must be `in` of the next");
  static_assert(Fault != ffn_fault::widths,
                "linnet: the layer of your ffn:: policy must keep the width of the stream: both "
                "its `in` and its `out` are D, the shape's d_model");
  return Fault == ffn_fault::none;
}

/// The layer of a feed-forward policy whose linear maps are of a kind.
template <class Ffn, index D, index F, bool Bias, projection_kind Projections>
struct ffn_layer {
  using type = typename Ffn::template layer<D, F, Bias, Projections>;
};
template <class Ffn, index D, index F, bool Bias, projection_kind Projections>
requires(Projections.plain()) struct ffn_layer<Ffn, D, F, Bias, Projections> {
  using type = typename Ffn::template layer<D, F, Bias>;
};

/// The residual block of a stack: the attention branches, then the feed-forward unless skipped.
template <class Norm, class Ffn, class... Branches>
struct block_of {
  template <index D, index F, bool Bias, real Eps, projection_kind Projections = projection_kind{},
            template <class, class> class Residual = residual>
  struct make {
    using feed_forward = Residual<typename Norm::template layer<D, Eps>,
                                  typename ffn_layer<Ffn, D, F, Bias, Projections>::type>;
    using type = chain<Branches..., named<"ffn", feed_forward>>;
  };
};
template <class Norm, class Ffn, class... Branches>
requires(Ffn::skipped) struct block_of<Norm, Ffn, Branches...> {
  template <index D, index F, bool Bias, real Eps, projection_kind Projections = projection_kind{},
            template <class, class> class Residual = residual>
  struct make {
    using type = chain<Branches...>;
  };
};

/// `N` blocks, of which the first is a `First` if it differs; `Rest` holds the type of the others.
/// The buffers of a first one that differs last as long as those of the others, which may read
/// them.
template <class First, class Rest, index N, bool Differs, class Sharing = sharing::none>
struct stack_of {
  static_assert(
      !Differs,
      "linnet: sharing:: policies need blocks of one type; the first block of this kind of "
      "attention differs from the others");
  using block = typename Rest::type;
  using type = repeat<block, N, 0, N, shared_parameters<block, N, Sharing>>;
};
template <class First, class Rest, index N>
struct stack_of<First, Rest, N, false, sharing::none> {
  using type = repeat<typename Rest::type, N>;
};
template <class First, class Rest, index N>
struct stack_of<First, Rest, N, true, sharing::none> {
  using type =
      chain<named<"", repeat<First, 1, 0, N>>, named<"", repeat<typename Rest::type, N - 1, 1, N>>>;
};
template <class First, class Rest>
struct stack_of<First, Rest, 1, true, sharing::none> {
  using type = repeat<First, 1>;
};

}  // namespace detail

/// A model type with one choice replaced, for a model `M` that has `with<Slot, Policy>`.
template <class M>
struct policy_variants {  // a name that depends on Self waits until M is complete
  /// Model `M` with another feed-forward policy.
  template <class Other, class Self = M>
  using with_ffn = typename Self::template with<linnet::ffn::policy, Other>;
  /// Model `M` with another attention policy.
  template <class Other, class Self = M>
  using with_attention = typename Self::template with<linnet::attention::policy, Other>;
  /// Model `M` with another key-value cache policy.
  template <class Other, class Self = M>
  using with_cache = typename Self::template with<linnet::kv::policy, Other>;
  /// Model `M` with another storage type.
  template <class Other, class Self = M>
  using with_storage = typename Self::template with<linnet::storage::policy, Other>;
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

template <decoder_shape Shape, class Policies>
struct decoder_model;

namespace detail {

/// Words for the first rule that a decoder's policies or shape break; true where they keep all.
template <decoder_shape S, class... Ps>
constexpr bool decoder_fits() {
  using Attention = pick<attention::policy, attention::full, Ps...>;
  using Ffn = pick<ffn::policy, ffn::swiglu, Ps...>;
  using Position = pick<position::policy, position::rope, Ps...>;
  using Depths = pick<depths::policy, depths::all, Ps...>;
  using Sharing = pick<sharing::policy, sharing::none, Ps...>;
  if constexpr (!(known_policy<Ps> && ...))
    static_assert(never<Ps...>,
                  "linnet::decoder<shape, policies...>: an argument is not a policy; derive your "
                  "own from ffn::policy, attention::policy or norm::policy");
  else if constexpr (S.d_model <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: d_model, the width of the stream, must be given and positive");
  else if constexpr (S.d_ff <= 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: d_ff, the hidden width of the feed-forward, must be "
                  "given and positive");
  else if constexpr (S.heads <= 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: heads, the query heads, must be given and positive");
  else if constexpr (S.kv_heads <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: kv_heads, the key and value heads, must be given and positive");
  else if constexpr (S.layers <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: layers, the number of blocks, must be given and positive");
  else if constexpr (S.vocabulary <= 0)
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: vocabulary, the rows of the embedding, must be given and positive");
  else if constexpr (S.context <= 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: context, the longest sequence in tokens, must be given "
                  "and positive");
  else if constexpr (S.heads % S.kv_heads != 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: heads must be a multiple of kv_heads: each key-value "
                  "head serves as many query heads");
  else if constexpr (S.d_kv < 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: d_kv, the width of a head, must be positive, or 0 for "
                  "d_model / heads");
  else if constexpr (S.d_kv == 0 && S.d_model % S.heads != 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: d_model must be a multiple of heads; or give d_kv, the "
                  "width of a head");
  else if constexpr (!(S.eps > 0))
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: eps, added under the root of the norm, must be positive");
  else if constexpr (!(S.rope_theta > 0))
    static_assert(
        never<Ps...>,
        "linnet::decoder_shape: rope_theta, the base of the rotary frequencies, must be positive");
  else if constexpr (Position::pairing != rope_pairing::none && S.head_width() % 2 != 0)
    static_assert(never<Ps...>,
                  "linnet::decoder_shape: rotary positions need an even head width: d_kv, or "
                  "d_model / heads");
  else if constexpr (!Attention::causal)
    static_assert(never<Ps...>,
                  "linnet::decoder: this kind of attention sees later tokens; it fits encoders");
  else if constexpr (Position::pairing != rope_pairing::none && !Attention::rotary)
    static_assert(never<Ps...>,
                  "linnet::decoder: this kind of mixing has no rotary positions; add "
                  "position::none");
  else if constexpr (S.layers % Sharing::repeats != 0)
    static_assert(never<Ps...>,
                  "linnet::sharing::repeat<n>: layers, the number of blocks, must be a multiple of "
                  "n");
  else if constexpr (Depths::routes && !(Attention::supports_token_subset && Ffn::can_truncate))
    static_assert(
        never<Ps...>,
        "linnet::decoder: depths::mixture_of_depths asks for attention and a feed-forward that "
        "work on any subset of the tokens, such as attention::full");
  else if constexpr (Depths::routes && S.layers < Depths::every)
    static_assert(never<Ps...>,
                  "linnet::depths::mixture_of_depths: of so few layers, none would be routed; give "
                  "a smaller Every");
  else if constexpr (Depths::routes && !std::is_same_v<Sharing, sharing::none>)
    static_assert(
        never<Ps...>,
        "linnet::decoder: the blocks of depths::mixture_of_depths have parameters of their own; it "
        "does not go with a sharing:: policy");
  else if constexpr (!Sharing::projections.plain() && !Attention::supports_low_rank)
    static_assert(never<Ps...>,
                  "linnet::sharing::lora: this kind of attention's maps take no delta; those of "
                  "full, prefix, sliding_window and sinks do");
  else if constexpr (Attention::first_differs && !std::is_same_v<Sharing, sharing::none>)
    static_assert(
        never<Ps...>,
        "linnet: sharing:: policies need blocks of one type; the first block of this kind "
        "of attention differs from the others");
  else
    return true;
  return false;
}
/// The fault of the feed-forward of a decoder that fits otherwise.
template <decoder_shape S, class... Ps>
constexpr ffn_fault decoder_ffn_fault() {
  if constexpr (decoder_fits<S, Ps...>())
    return fault_of_ffn<pick<ffn::policy, ffn::swiglu, Ps...>, S.d_model, S.d_ff,
                        std::is_same_v<pick<bias::policy, bias::none, Ps...>, bias::all>,
                        pick<sharing::policy, sharing::none, Ps...>::projections>();
  else
    return ffn_fault::none;
}
/// The decoder of a list of policies that fit.
template <bool Fits, decoder_shape Shape, class... Ps>
struct make_decoder {
  using type = decoder_model<
      Shape,
      policy_set<
          pick<ffn::policy, ffn::swiglu, Ps...>, pick<attention::policy, attention::full, Ps...>,
          pick<norm::policy, norm::rms, Ps...>, pick<position::policy, position::rope, Ps...>,
          pick<tie::policy, tie::tied, Ps...>, pick<bias::policy, bias::none, Ps...>,
          typename pick_model_storage<Ps...>::type, pick<kv::policy, kv::exact, Ps...>,
          pick<depths::policy, depths::all, Ps...>, pick<sharing::policy, sharing::none, Ps...>,
          pick<embedding::policy, embedding::full, Ps...>>>;
};
/// Stands in for a decoder that was refused, so that nothing is said of it again.
template <decoder_shape Shape, class... Ps>
struct make_decoder<false, Shape, Ps...> : make_decoder<true,
                                                        decoder_shape{.d_model = 2,
                                                                      .d_ff = 1,
                                                                      .heads = 1,
                                                                      .kv_heads = 1,
                                                                      .layers = 1,
                                                                      .vocabulary = 1,
                                                                      .context = 1},
                                                        typename pick_storage<Ps...>::stored> {};
/// The decoder of a shape and policies, or what stands in for it where they do not fit.
template <decoder_shape Shape, class... Ps>
struct checked_decoder {
  static constexpr bool fits =
      policies_fit<Ps...>() && decoder_fits<Shape, Ps...>() &&
      ffn_fits<decoder_ffn_fault<Shape, Ps...>(), pick<ffn::policy, ffn::swiglu, Ps...>>();
  using type = typename make_decoder<fits, Shape, Ps...>::type;
};
/// The decoder of choices.
template <decoder_shape Shape, class Policies>
struct decoder_of;
template <decoder_shape Shape, class... Ps>
struct decoder_of<Shape, policy_set<Ps...>> : checked_decoder<Shape, Ps...> {};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Metadata of a model type as texts: stored beside the weights and compared when they are loaded.

/// @file
/// Pairs of texts: a name and its value, such as metadata.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// One item of metadata about a model or a file.
struct key_value {
  std::string key, value;
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The contract of a model: what weights, files, trainers, evaluators and sessions ask of one.
///
/// A model is a stateless type, from this library or not, that derives from `model_defaults`. Its
/// layers follow nn/layer.hpp. A `language_model` has
///  - `params<Form>` and `visit(f, at, p...)`: its parameters, as a layer has them;
///  - `storage`: the type that its matrices are stored in, and `with_storage<S>`: the model with
///    another one, which quantize() makes;
///  - `vocabulary`: logits of one token, and `batch`: what a training or scoring call reads, a
///    struct with at least `batch` and `length` (or `target_length`), sequences and their tokens;
///  - `workspace<T>` and `plan<T>(planner&, limits, purpose)`: the buffers of one trainer,
///    evaluator or session;
///  - `accepts(batch, limits)`: whether a batch fits, asked before anything is computed. A model
///  may
///    also have `refuses(batch, limits)`, which says why it does not as a `refusal`;
///  - `loss<T, S>(p, dp, batch, w, on, loss_call, criterion)`: the summed loss of a batch. With
///    `dp`, ADDS the gradient of that sum. ops::head_loss() does most of it;
///  - `describe(f)`: calls f(key, value) for each number or text that decides what the weights
///    compute. Files keep them, and loading compares them.
///
/// A `decoding_model` is a language model that sessions run. It also has
///  - `step<T, S>(p, step_call, w, on)`: feeds tokens behind the cached ones. w.logits then holds
///    what follows each sequence's last valid token, or with `every` what follows each token;
///  - in its workspace `logits`, and the `pages` of paged caches, which step() passes on in its
///    context. A model whose layers do not page refuses limits::kv_blocks;
///  - `copy_state<T>(w, from, to, state_part)`: one sequence continues where another is;
///  - `longest(limits)`: most tokens of a sequence;
///  - `flops(batch, length)`: floating-point operations of such a call, by which threads are
///  chosen.
///
/// A model that says `encodes` reads a source before: `encode<T, S>(p, source, batch, length,
/// lengths, w, on)`. Its flops() takes the length of the source before the target's; see t5_model.
///
/// Every thread of a team calls loss(), step() and encode() (SPMD).

/// @file
/// Run-time limits: what a session, evaluator or trainer plans its memory for, and how it runs.

/// @file
/// Ranges of run-time options: each struct of options has one table, which checks its values.
/// docs/options.md shows the tables.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A number as its shortest decimal text: 1e-06, 0.5; whole numbers without an exponent: 500000.
inline std::string number_text(double x) {
  char digits[32];
  if (const double limit = 9007199254740992;
      x > -limit && x < limit && x == static_cast<double>(static_cast<std::int64_t>(x)))
    return std::to_string(static_cast<std::int64_t>(x));
  return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}

/// The values that an option accepts; never NaN.
struct option_range {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool above = false;       ///< `least` itself is refused
  bool below = false;       ///< `most` itself is refused
  bool counts = false;      ///< `most` is that of all counts, which texts leave out
  std::string_view note{};  ///< what a special value means, for who has to choose another
  const char* const* names = nullptr;  ///< of an enumeration's values

  bool contains(double x) const {
    return is_finite(x) && (above ? x > least : x >= least) && (below ? x < most : x <= most);
  }
  /// The rule as text, of an option of that name: "0 <= top_p <= 1".
  std::string text(std::string_view name) const {
    if (names) {
      std::string all = names[0];
      for (int i = 1; i <= most; ++i) all.append(", ").append(names[i]);
      return all;
    }
    const bool from = least > -std::numeric_limits<double>::infinity();
    const bool to = !counts && most < std::numeric_limits<double>::infinity();
    if (from && to)
      return number_text(least) + (above ? " < " : " <= ") + std::string(name) +
             (below ? " < " : " <= ") + number_text(most);
    if (from)
      return (above ? "above " : "at least ") + number_text(least) + (counts ? "" : ", finite");
    return "any finite number";
  }
};
/// Counts beyond this are refused everywhere, so that sums of a few never overflow.
inline constexpr double most_count = 1e15;

constexpr option_range at_least(double least, std::string_view note = {}) {
  return {.least = least, .note = note};
}
constexpr option_range above(double least, std::string_view note = {}) {
  return {.least = least, .above = true, .note = note};
}
constexpr option_range between(double least, double most, std::string_view note = {}) {
  return {.least = least, .most = most, .note = note};
}
/// A whole number.
constexpr option_range count(double least, std::string_view note = {}) {
  return {.least = least, .most = most_count, .counts = true, .note = note};
}
/// The range of an enumeration, or of bool, whose values are 0, 1, …
template <std::size_t N>
constexpr option_range one_of(const char* const (&names)[N]) {
  return {.least = 0, .most = static_cast<double>(N) - 1, .names = names};
}
inline constexpr const char* false_or_true[] = {"false", "true"};

/// The value of an option as a number. Of several values it is one out of range, if there is one.
template <class Value>
double option_value(const Value& x, const option_range& r) {
  if constexpr (requires { x.unfit(r); }) {
    return x.unfit(r);
  } else if constexpr (requires { x.begin(); }) {
    for (const auto one : x)
      if (!r.contains(static_cast<double>(one))) return static_cast<double>(one);
    return static_cast<double>(x[0]);
  } else {
    return static_cast<double>(x);
  }
}

/// Concept of structs of options: `visit_options(self, f)` calls f(name, value, range) for each
/// field, and f(name, value) for nested structs.
template <class Options>
concept has_ranges = requires(const Options& all) {
  Options::visit_options(all, [](const auto&...) {});
};

/// Whether all options are in their ranges.
template <class Options>
bool in_range(const Options& all) {
  bool fit = true;
  Options::visit_options(all, [&](const char*, const auto& value, const auto&... range) {
    if constexpr (sizeof...(range) == 0)
      fit = fit && in_range(value);
    else
      fit = fit && (range.contains(option_value(value, range)) && ...);
  });
  return fit;
}

/// The error that names an option, its rule and the value.
inline linnet::error out_of_range(const char* where, const std::string& field,
                                  const option_range& range, double got) {
  const std::string_view name = std::string_view(field).substr(field.rfind('.') + 1);
  std::string rule = range.counts && got > range.most ? "at most 10^15" : range.text(name);
  if (!range.note.empty()) rule.append(" (").append(range.note).append(")");
  return {errc::invalid, where, field, rule, number_text(got)};
}
/// Finds the first option out of its range; `prefix` and its field name it.
template <class Options>
std::optional<linnet::error> first_out_of_range(const char* where, const std::string& prefix,
                                                const Options& all) {
  std::optional<linnet::error> wrong;
  Options::visit_options(all, [&](const char* name, const auto& value, const auto&... range) {
    if (wrong) return;
    const std::string field = prefix.empty() ? name : prefix + "." + name;
    if constexpr (sizeof...(range) == 0) {
      wrong = first_out_of_range(where, field, value);
    } else {
      const double got = (option_value(value, range), ...);
      if (!(range.contains(got) && ...)) wrong = (out_of_range(where, field, range, got), ...);
    }
  });
  return wrong;
}

/// Error of the function `where` for options that are out of their ranges: names the first of them
/// behind `prefix`. Optimizers of the caller's own need not have ranges.
template <class Options>
result<void> acceptable(const char* where, std::string_view prefix, const Options& all) {
  if constexpr (has_ranges<Options>)
    if (!in_range(all)) return *first_out_of_range(where, std::string(prefix), all);
  return {};
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Why a call did nothing: causes as values, for calls that answer with an empty span, NaN or
/// false.

LINNET_NAMESPACE_BEGIN

/// Why a call of a session, a trainer, an evaluator or a way of decoding did nothing.
enum class refusal : unsigned char {
  none,                      ///< it did what was asked
  not_valid,                 ///< moved from, or never opened
  options,                   ///< an option outside its range
  batch_below_one,           ///< no sequences
  batch_over_limit,          ///< more sequences than limits.batch
  no_tokens,                 ///< sequences of no tokens
  uneven,                    ///< tokens that do not fill [batch, length]
  token_outside_vocabulary,  ///< a token that the model does not have
  label_outside_vocabulary,  ///< a label that is neither a token nor `ignored`
  byte_outside_vocabulary,   ///< of a table of tokens' bytes
  over_target,               ///< more tokens than limits.target
  over_source,               ///< more source tokens than limits.source
  over_chunk,                ///< more tokens in one call than limits.chunk
  over_logits,               ///< more tokens in one call of feed_all() than limits.max_logits
  lengths_missing,           ///< fewer lengths than sequences
  length_below_one,          ///< a sequence of no valid tokens
  length_over_padded,        ///< more valid tokens than were given
  no_blocks,                 ///< a paged cache without room
  no_source,                 ///< a target before its source
  no_sequence,               ///< a number that no sequence has
  no_such_length,            ///< truncate() to more tokens than there are, or fewer than none
  length_gone,               ///< truncate() to a length that the cache has forgotten
  no_layer,                  ///< exit_after() a layer that the model does not have
  nothing_chosen,            ///< a sampler that chose nothing
  not_started,               ///< a contrast that has not read this text
  null_tokens,               ///< a batch without tokens
  null_labels,               ///< a batch without labels
  null_source,               ///< a batch without sources
  null_bytes,                ///< a batch without its table of tokens' bytes
  prefix_unknown,            ///< prefixes for a model that takes none
  prefix_outside,            ///< a prefix that is longer than its sequence
  type_outside,              ///< a token type that the model does not have
  label_on_padding,          ///< a label behind the end of its sequence
  short_logits,              ///< a span that the logits do not fit in
  wrong_losses,              ///< a span of losses of another size
  objective,                 ///< a batch that the objective does not serve
  batch,                     ///< a batch that the model does not take, without a reason
  no_label,                  ///< nothing to learn from
  not_finite                 ///< a loss or gradient that is no number
};

/// One sentence on a refusal that names the field and the remedy: static text, zero-terminated and
/// never null; empty for `none`.
constexpr std::string_view to_string(refusal why) noexcept {
  switch (why) {
    case refusal::none:
      return "";
    case refusal::not_valid:
      return "the object was moved from, or its constructor failed: use open(), whose error says "
             "why";
    case refusal::options:
      return "an option is outside its range: see docs/options.md";
    case refusal::batch_below_one:
      return "batch is below 1: give at least one sequence";
    case refusal::batch_over_limit:
      return "batch is larger than limits.batch: give fewer sequences, or open with a larger "
             "limits.batch";
    case refusal::no_tokens:
      return "no tokens: give at least one for each sequence";
    case refusal::uneven:
      return "the tokens do not fill [batch, length]: pad all sequences to one length";
    case refusal::token_outside_vocabulary:
      return "a token is outside the vocabulary: give ids from 0 to vocabulary - 1";
    case refusal::label_outside_vocabulary:
      return "a label is outside the vocabulary: give ids from 0 to vocabulary - 1, or `ignored`";
    case refusal::byte_outside_vocabulary:
      return "a token's bytes are outside the vocabulary: give values of bytes, byte_pad or "
             "byte_end";
    case refusal::over_target:
      return "more tokens than limits.target (0: the model's context): give fewer, or open with a "
             "larger limits.target";
    case refusal::over_source:
      return "the source is longer than limits.source: give fewer tokens, or open with a larger "
             "limits.source";
    case refusal::over_chunk:
      return "more tokens in one call than limits.chunk: prefill() takes any number of them, but a "
             "prompt of attention::prefix needs a larger limits.chunk";
    case refusal::over_logits:
      return "more tokens than limits.max_logits: give feed_all() fewer, or open with a larger "
             "limits.max_logits";
    case refusal::lengths_missing:
      return "lengths has fewer entries than the batch has sequences: give one for each";
    case refusal::length_below_one:
      return "an entry of lengths is below 1: give at least 1";
    case refusal::length_over_padded:
      return "an entry of lengths is above the padded length: give the number of valid tokens";
    case refusal::no_blocks:
      return "too few free blocks: truncate a sequence, or open with more limits.kv_blocks";
    case refusal::no_source:
      return "a sequence has no source: call encode() with as many sources first";
    case refusal::no_sequence:
      return "the sequence is outside the batch: give a number from 0 to limits.batch - 1";
    case refusal::no_such_length:
      return "the sequence never had that length: give one from 0 to position()";
    case refusal::length_gone:
      return "the cache has forgotten the sequence at that length: give 0, or take back at most "
             "max_truncation() tokens";
    case refusal::no_layer:
      return "the model has no such layer: give 1 to its layers";
    case refusal::nothing_chosen:
      return "the sampler chose no token of the vocabulary: check the logits for NaN or infinity, "
             "and the sampler's options";
    case refusal::not_started:
      return "another text: call reset_and_prefill() before each";
    case refusal::null_tokens:
      return "tokens of the batch is null: give the inputs";
    case refusal::null_labels:
      return "labels of the batch is null: give them, or `ignored`";
    case refusal::null_source:
      return "source or source_lengths of the batch is null: give sources and their lengths";
    case refusal::null_bytes:
      return "bytes of the batch is null: give the table of tokens' bytes";
    case refusal::prefix_unknown:
      return "prefixes of the batch are given: leave them null for models without "
             "attention::prefix";
    case refusal::prefix_outside:
      return "an entry of prefixes is outside its sequence: give 0 to the batch's length";
    case refusal::type_outside:
      return "a token type is outside the model's types: give 0 to types - 1, or leave types null";
    case refusal::label_on_padding:
      return "a label stands behind the end of its sequence: give `ignored` there";
    case refusal::short_logits:
      return "the span of logits is too short: give room for [rows, vocabulary], or none";
    case refusal::wrong_losses:
      return "another number of losses: give one for each layer";
    case refusal::objective:
      return "the objective does not accept the batch: check the teacher's limits and the order of "
             "recorded batches";
    case refusal::batch:
      return "the model does not take the batch: see its accepts()";
    case refusal::no_label:
      return "no label counts: give at least one that is not `ignored`";
    case refusal::not_finite:
      return "the loss or the gradient is not finite: lower the learning rate, or check the data";
  }
  return "";
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Threads of one call at most.
inline constexpr int most_threads = 65536;

/// The largest call, the threads and the instruction-set level. Memory is planned for these numbers
/// once and never grows.
struct limits {
  index batch = 1;   ///< sequences at a time
  index source = 0;  ///< longest source in tokens (encoder-decoders); decoders ignore it
  index target = 0;  ///< longest target in tokens; for decoders the whole sequence, prompt included
  index chunk = 0;   ///< most tokens of a sequence in one decoding call, longer prompts come in
                     ///< parts; 0 for `target`. Smaller chunks need less memory
  index kv_blocks = 0;  ///< key-value memory of a session in blocks of 32 tokens that its sequences
                        ///< share as they need them; 0 gives each sequence its whole `target`
  int threads = 1;  ///< most threads that share the work of one call, see parallel(); any number
                    ///< gives the same results
  index min_flops_per_thread =
      4'000'000;  ///< floating-point operations that are worth one more thread in an
                  ///< inference call; 0 always takes all threads
  simd::level level =
      simd::level::automatic;  ///< pin it for results that are equal across machines
  executor run_on{};           ///< your own threads instead of OpenMP's
  index max_logits = 1;        ///< tokens per sequence whose logits session::feed_all returns; for
                               ///< speculative decoding one more than are drafted

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batch", self.batch, detail::count(1));
    f("source", self.source, detail::count(0, "decoders ignore it"));
    f("target", self.target, detail::count(0, "0: a decoder's whole context"));
    f("chunk", self.chunk, detail::count(0, "0 for limits.target"));
    f("kv_blocks", self.kv_blocks, detail::count(0, "0: none shared"));
    f("threads", self.threads, detail::between(1, most_threads));
    f("min_flops_per_thread", self.min_flops_per_thread,
      detail::count(0, "0 always takes all threads"));
    f("level", self.level, detail::one_of(level_names));
    f("max_logits", self.max_logits, detail::count(1));
  }

 private:
  static constexpr const char* level_names[] = {"automatic", "portable", "avx2", "avx512",
                                                "avx512dot"};
};

/// Calls `f(execution)` on the threads of `l`; `converted` is ops::execution's.
template <class F>
void run(const limits& l, void* converted, F&& f) {
  parallel(l.threads, l.run_on, [&](const team& threads) {
    f(ops::execution{threads, ops::resolve(l.level), converted});
  });
}
/// Calls `f(execution)` on only as many threads of `l` as `flops` floating-point operations are
/// worth.
template <class F>
void run(const limits& l, void* converted, index flops, F&& f) {
  limits fitting = l;
  if (l.min_flops_per_thread > 0)
    fitting.threads =
        static_cast<int>((std::clamp)(flops / l.min_flops_per_thread, index{1}, index{l.threads}));
  run(fitting, converted, f);
}

/// The purpose that buffers are planned for.
enum class purpose {
  training,  ///< loss and gradients
  scoring,   ///< loss alone
  decoding   ///< token by token, with a key-value cache
};

namespace detail {
/// Largest position, and largest number of sequences and blocks: tables hold them in 32 bits.
inline constexpr index most_positions = 0x7fffffff;

/// The members of `limits` that sizes grow with, `threads` apart.
inline constexpr index limits::*growing_limits[] = {&limits::batch,     &limits::source,
                                                    &limits::target,    &limits::chunk,
                                                    &limits::kv_blocks, &limits::max_logits};

/// bytes(l), or most_bytes where computing it would exceed what an index holds. Each product in
/// bytes() is a part of the sum, and becomes at most eight times as large where one limit doubles.
/// So small limits grow to `l` step by step, for as long as the next step is safe. (Constants need
/// no care: the compiler refuses what overflows.)
template <class F>
constexpr index bounded_bytes(const limits& l, F&& bytes) {
  if (std::is_constant_evaluated()) return bytes(l);
  constexpr index first = sizeof(index) == 8 ? 256 : 4;
  limits some = l;
  for (const auto member : growing_limits) some.*member = (std::clamp)(l.*member, index{0}, first);
  some.threads = static_cast<int>((std::clamp)(index{l.threads}, index{0}, first));
  index sum = bytes(some);
  const auto grow = [&](auto& from, auto to) {
    while (from < to) {
      if (sum > most_bytes / 8) return false;
      from = from > to / 2 ? to : 2 * from;
      sum = bytes(some);
    }
    return true;
  };
  for (const auto member : growing_limits)
    if (!grow(some.*member, l.*member)) return most_bytes;
  return grow(some.threads, l.threads) ? sum : most_bytes;
}

/// The limits of an object that owns memory. Moving from it leaves limits that allow no sequence,
/// so that the object refuses every call instead of using memory that is now another's.
struct owned_limits : limits {
  owned_limits() : owned_limits(limits{.batch = 0}) {}
  owned_limits(const limits& l) : limits(l) {}
  owned_limits(owned_limits&& other) noexcept
      : limits(std::exchange(static_cast<limits&>(other), limits{.batch = 0})) {}
  owned_limits& operator=(owned_limits&& other) noexcept {
    static_cast<limits&>(*this) = std::exchange(static_cast<limits&>(other), limits{.batch = 0});
    return *this;
  }
};

}  // namespace detail

/// Whether tokens[n] are all in the vocabulary; labels may be `ignored`.
inline bool tokens_fit(const token* tokens, index n, index vocabulary, bool labels) {
  if (tokens == nullptr) return false;
  for (index i = 0; i < n; ++i)
    if ((tokens[i] < 0 || tokens[i] >= vocabulary) && !(labels && tokens[i] == ignored))
      return false;
  return true;
}
/// Looks for the first thing in a batch that does not fit, and reads nothing behind it.
struct batch_check {
  index batch;  ///< sequences
  refusal why = refusal::none;

  batch_check(index sequences, index most) : batch(sequences) {
    if (batch < 1) why = refusal::batch_below_one;
    if (batch > most) why = refusal::batch_over_limit;
  }
  /// Sequences of `length` tokens, at most `most`; `lengths`, if given, are the valid ones of each.
  void length(index length, index most, refusal over, const index* lengths = nullptr) {
    no(length < 1, refusal::no_tokens);
    no(length > most, over);
    for (index i = 0; i < batch && lengths && fits(); ++i) {
      no(lengths[i] < 1, refusal::length_below_one);
      no(lengths[i] > length, refusal::length_over_padded);
    }
  }
  /// Inputs [batch, length].
  void tokens(const token* t, index length, index vocabulary, refusal null = refusal::null_tokens) {
    no(t == nullptr, null);
    no(fits() && !tokens_fit(t, batch * length, vocabulary, false),
       refusal::token_outside_vocabulary);
  }
  /// Labels [batch, length].
  void labels(const token* t, index length, index vocabulary) {
    no(t == nullptr, refusal::null_labels);
    no(fits() && !tokens_fit(t, batch * length, vocabulary, true),
       refusal::label_outside_vocabulary);
  }
  /// Something else that must not be.
  void no(bool wrong, refusal cause) {
    if (fits() && wrong) why = cause;
  }
  bool fits() const { return why == refusal::none; }
};

/// The largest call of layers over sequences of `length` tokens, within the limits; `memory` is the
/// length of the encoder's output that they read.
constexpr call_shape call_shape_for(const limits& l, purpose use, index length, index memory = 0) {
  call_shape e;
  e.batch = l.batch;
  e.length = use == purpose::decoding && l.chunk > 0 ? (std::min)(l.chunk, length) : length;
  e.memory = memory;
  e.capacity = use == purpose::decoding ? length : 0;
  e.blocks = use == purpose::decoding ? l.kv_blocks : 0;
  e.threads = l.threads;
  e.training = use == purpose::training;
  return e;
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A model's refusal of limits: the field, its rule and its value.
struct limits_refusal {
  const char* field = nullptr;  ///< such as "limits.source"; null where all is well
  const char* rule = nullptr;   ///< such as "at least 1 source token"
  index got = 0;                ///< the field's value
  index most = -1;              ///< if given, the rule is "no more than `most`, `rule`"
};

/// The answers of a model that has nothing special; a model derives from it and overrides what
/// differs.
struct model_defaults {
  static constexpr bool encodes = false;  ///< reads a source by encode() before step()
  static constexpr bool causal = false;   ///< a token's logits depend on no later token, in loss()
                                          ///< too
  static constexpr bool supports_cache = true;  ///< can continue cached sequences
  static constexpr bool can_truncate = false;   ///< decoding can take tokens back
  static constexpr bool evicts = false;         ///< decoding forgets old tokens
  static constexpr bool takes_prefix = false;   ///< the first tokens see each other both ways
  static constexpr index ids_per_token = 1;     ///< numbers that a token consists of
  static constexpr bool label_per_sequence =
      false;  ///< loss() takes labels[batch] and gives logits[batch, vocabulary], not one per token
  static constexpr index exits = 0;  ///< layers behind each of which the head can read; then loss()
                                     ///< heeds loss_call::exits and step() step_call::layers
  using cache = kv::exact;           ///< policy of the key-value cache

  /// The model's own rules for limits, beside those for all models.
  static constexpr limits_refusal check_limits(const limits&) { return {}; }
  /// Fills the constant tables of a fresh workspace.
  template <class Workspace>
  static void prepare(Workspace&, const limits&) {}
};

/// Tokens of a decoder's training or scoring call, [batch, length] row-major.
struct decoder_batch {
  const token* tokens = nullptr;    ///< inputs
  const token* labels = nullptr;    ///< the token that follows each input, or `ignored`
  index batch = 0;                  ///< sequences
  index length = 0;                 ///< tokens per sequence
  const index* prefixes = nullptr;  ///< [batch] tokens that see each other, for attention::prefix
};

namespace detail {

/// Why a model refuses a batch, as exactly as it says.
template <class M>
refusal refusal_of(const typename M::batch& b, const limits& l) {
  if constexpr (requires { M::refuses(b, l); })
    return M::refuses(b, l);
  else
    return M::accepts(b, l) ? refusal::none : refusal::batch;
}

struct any_key_value {
  template <class Value>
  void operator()(const char*, const Value&) const {}
};

template <class M, class T, class S>
using packed_params = typename M::template params<form::packed<T, S>>;
template <class M, class T>
using workspace_of = typename M::template workspace<T>;

template <class M>
concept has_model_types = requires {
  typename M::storage;
  typename M::batch;
  typename M::template with_storage<typename M::storage>;
  { M::vocabulary } -> std::convertible_to<index>;
};
template <class M, class T>
concept has_workspace = requires(planner m, const limits& l, purpose use) {
  { M::template plan<T>(m, l, use) } -> std::same_as<workspace_of<M, T>>;
};
template <class M>
concept has_accepts = requires(const typename M::batch& b, const limits& l) {
  { b.batch } -> std::convertible_to<index>;
  { M::accepts(b, l) } -> std::same_as<bool>;
};
template <class M, class T, class S>
concept has_loss = requires(const packed_params<M, T, S>& p,
                            typename M::template params<form::gradient<T>>* dp,
                            const typename M::batch& b, workspace_of<M, T>& w,
                            const ops::execution& on, const loss_call<T>& call,
                            const ops::label_cross_entropy& criterion) {
  { M::template loss<T, S>(p, dp, b, w, on, call, criterion) } -> std::same_as<loss_sum>;
};
template <class M>
concept has_describe = requires(const any_key_value& f) {
  M::describe(f);
};
template <class M, class T, class S>
concept has_step = requires(const packed_params<M, T, S>& p, const step_call& call,
                            workspace_of<M, T>& w, const ops::execution& on) {
  M::template step<T, S>(p, call, w, on);
};
template <class M>
concept has_step_flops = requires(index n) {
  M::flops(n, n);
};
template <class M, class T, class S>
concept has_encode = requires(const packed_params<M, T, S>& p, const token* tokens, index n,
                              const index* lengths, workspace_of<M, T>& w,
                              const ops::execution& on) {
  M::template encode<T, S>(p, tokens, n, n, lengths, w, on);
  M::flops(n, n, n);
};
template <class M, class T>
concept has_state = requires(workspace_of<M, T>& w, const limits& l, const state_part& part) {
  w.logits = static_cast<T*>(nullptr);
  w.pages = ops::page_tables{};
  M::copy_state(w, index{}, index{}, part);
  { M::longest(l) } -> std::same_as<index>;
};

}  // namespace detail

/// A model that weights, files, trainers and evaluators take, computing in `T`.
template <class M, class T = float>
concept language_model = std::derived_from<M, model_defaults> && detail::has_parameters<M> &&
    detail::has_model_types<M> && detail::has_workspace<M, T> && detail::has_accepts<M> &&
    detail::has_loss<M, T, storage_of<M, T>> && detail::has_describe<M>;

/// A language model that sessions run token by token.
template <class M, class T = float>
concept decoding_model = language_model<M, T> && detail::has_state<M, T> &&
    detail::has_step<M, T, storage_of<M, T>> &&
    (M::encodes ? detail::has_encode<M, T, storage_of<M, T>> : detail::has_step_flops<M>);

namespace detail {

/// True, or an error that says which part of the contract `M` lacks.
template <class M, class T, class S>
consteval bool check_language_model() {
  if constexpr (!std::derived_from<M, model_defaults>)
    static_assert(never<M>,
                  "linnet: this type is no model; a model of your own derives from "
                  "linnet::model_defaults and follows model/contract.hpp");
  else if constexpr (!has_parameters<M>)
    static_assert(never<M>,
                  "linnet: the model lacks params<Form> or visit(f, at, p...); see "
                  "model/contract.hpp");
  else if constexpr (!has_model_types<M>)
    static_assert(never<M>,
                  "linnet: the model lacks storage, with_storage<S>, batch or vocabulary; see "
                  "model/contract.hpp");
  else if constexpr (!has_workspace<M, T>)
    static_assert(never<M>,
                  "linnet: the model lacks workspace<T> or plan<T>(planner&, limits, purpose) that "
                  "returns one; see model/contract.hpp");
  else if constexpr (!has_accepts<M>)
    static_assert(
        never<M>,
        "linnet: the model lacks accepts(batch, limits), or its batch a member batch; see "
        "model/contract.hpp");
  else if constexpr (!has_loss<M, T, S>)
    static_assert(
        never<M>,
        "linnet: the model lacks loss<T, S>(p, dp, batch, w, on, loss_call, criterion) that "
        "returns a loss_sum; see model/contract.hpp");
  else if constexpr (!has_describe<M>)
    static_assert(never<M>,
                  "linnet: the model lacks describe(f), which calls f(key, value) for what decides "
                  "what its weights compute; see model/contract.hpp");
  return true;
}
/// Likewise of what sessions ask.
template <class M, class T, class S>
consteval bool check_decoding_model() {
  static_assert(check_language_model<M, T, S>());
  if constexpr (!has_state<M, T>)
    static_assert(
        never<M>,
        "linnet::session: the model does not run token by token: it lacks longest(limits), "
        "copy_state(w, from, to, part), or logits and pages in its "
        "workspace; see model/contract.hpp");
  else if constexpr (!decoding_model<M, T>)
    static_assert(never<M>,
                  "linnet::session: the model does not run token by token: it lacks step<T, S>(p, "
                  "step_call, w, on) or flops(batch, length), or with `encodes` what t5_model has; "
                  "see model/contract.hpp");
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

constexpr const char* name_of(activation_kind kind) {
  switch (kind) {
    case activation_kind::relu:
      return "relu";
    case activation_kind::gelu:
      return "gelu";
    case activation_kind::gelu_tanh:
      return "gelu_tanh";
    case activation_kind::tanh:
      return "tanh";
    default:
      return "silu";
  }
}

/// Metadata of a feed-forward policy.
template <class P>
struct ffn_metadata {
  static constexpr bool standard = false, gated = false, named = names_itself<P>();
  static std::string name() {
    if constexpr (named)
      return P::name();
    else
      return {};
  }
};
template <>
struct ffn_metadata<void> {
  static constexpr bool standard = false, gated = false, named = true;
};
template <activation_kind A>
struct ffn_metadata<ffn::standard<A>> {
  static constexpr bool standard = true, gated = false, named = true;
  static constexpr activation_kind activation = A;
  static std::string name() { return name_of(A); }
};
template <activation_kind A>
struct ffn_metadata<ffn::gated<A>> {
  static constexpr bool standard = false, gated = true, named = true;
  static constexpr activation_kind activation = A;
  static std::string name() { return std::string("gated ") + name_of(A); }
};
template <>
struct ffn_metadata<ffn::skip> : ffn_metadata<void> {
  static std::string name() { return "skip"; }
};
template <>
struct ffn_metadata<ffn::linear> : ffn_metadata<void> {
  static std::string name() { return "linear"; }
};
template <>
struct ffn_metadata<ffn::linear_relu> : ffn_metadata<void> {
  static std::string name() { return "linear relu"; }
};
template <int N, expansion E>
struct ffn_metadata<ffn::reparam<N, E>> : ffn_metadata<void> {
  static std::string name() {
    return "reparam " + std::to_string(N) + " expansion " +
           number_text(static_cast<double>(E.thousandths) / 1000);
  }
};

template <index Rank, class Of>
struct ffn_metadata<ffn::low_rank<Rank, Of>> : ffn_metadata<void> {
  static constexpr bool named = ffn_metadata<Of>::named;
  static std::string name() {
    return "low_rank " + std::to_string(Rank) + " " + ffn_metadata<Of>::name();
  }
};

/// The activation of a feed-forward policy; exact GELU for those that are neither standard nor
/// gated.
template <class P>
constexpr activation_kind ffn_activation() {
  if constexpr (requires { ffn_metadata<P>::activation; }) return ffn_metadata<P>::activation;
  return activation_kind::gelu;
}

template <class P>
std::string norm_name() {
  if constexpr (std::is_same_v<P, norm::rms>)
    return "rms";
  else if constexpr (std::is_same_v<P, norm::layer_norm>)
    return "layer_norm";
  else if constexpr (names_itself<P>())
    return P::name();
  else
    return {};
}
template <class P>
std::string position_name() {
  if constexpr (std::is_same_v<P, position::rope>)
    return "rope";
  else if constexpr (std::is_same_v<P, position::rope_half>)
    return "rope_half";
  else if constexpr (std::is_same_v<P, position::learned>)
    return "learned";
  else if constexpr (std::is_same_v<P, position::sinusoidal>)
    return "sinusoidal";
  else if constexpr (std::is_same_v<P, position::none>)
    return "none";
  else if constexpr (names_itself<P>())
    return P::name();
  else
    return {};
}

/// Whether a policy is one of `Known` or names itself.
template <class P, class... Known>
inline constexpr bool named_policy = (std::is_same_v<P, Known> || ...) || names_itself<P>();

/// Whether a model has no policy of depths, or one with a name.
template <class M>
constexpr bool depths_named() {
  if constexpr (requires { typename M::depths; })
    return named_policy<typename M::depths, depths::all>;
  else
    return true;
}

/// Whether every policy of a model has a name by which files tell it from others.
template <class M>
constexpr bool policies_named() {
  if constexpr (requires { typename M::norm; })
    if (std::is_base_of_v<linnet::norm::policy, typename M::norm> &&
        !named_policy<typename M::norm, norm::rms, norm::layer_norm>)
      return false;
  if constexpr (requires { typename M::embedding; })
    if (!names_itself<typename M::embedding>()) return false;
  if constexpr (requires { typename M::encoder_ffn; })
    return ffn_metadata<typename M::encoder_ffn>::named &&
           ffn_metadata<typename M::decoder_ffn>::named &&
           names_itself<typename M::encoder_attention>() &&
           names_itself<typename M::decoder_attention>();
  else if constexpr (requires {
                       typename M::ffn;
                       typename M::sharing;
                     })
    return ffn_metadata<typename M::ffn>::named && names_itself<typename M::attention>() &&
           depths_named<M>() && names_itself<typename M::sharing>() &&
           named_policy<typename M::position, position::rope, position::rope_half,
                        position::learned, position::sinusoidal, position::none>;
  else  // a model without policies, or from outside: describe() is its own
    return true;
}

/// A compile-time error for a model with a policy that files could not tell from others. True for
/// other models, and where the file does not `Say` what policies a model has.
template <bool Say, class M>
constexpr bool fits_metadata() {
  if constexpr (Say && !policies_named<M>())
    static_assert(never<M>,
                  "linnet: give your policy `static std::string name()`, a name of its own: files "
                  "tell kinds apart by it");
  else
    return true;
  return false;
}

// The metadata of each family of models: f(key, value) with numbers and texts, in the order of
// files.

template <class M, class F>
void describe_shape(F& f) {
  f("d_model", M::shape.d_model);
  f("d_ff", M::shape.d_ff);
  f("heads", M::shape.heads);
  f("vocabulary", M::shape.vocabulary);
  f("eps", M::shape.eps);
}
template <class M, class F>
void describe_choices(F& f) {
  f("norm", norm_name<typename M::norm>());
  f("head", M::tied ? "tied" : "untied");
  f("bias", M::biased ? "all" : "none");
}
template <class M, class F>
void describe_blocks(F& f) {
  constexpr auto shape = M::shape;
  f("d_kv", shape.head_width());
  f("kv_heads", shape.kv_heads);
  f("layers", shape.layers);
  f("context", shape.context);
  f("position", position_name<typename M::position>());
  if constexpr (M::rotary) f("rope_theta", shape.rope_theta);
  f("ffn", ffn_metadata<typename M::ffn>::name());
  f("attention", M::attention::name());
  if constexpr (M::depths::routes) f("depths", M::depths::name());
  // Older files say nothing of these; the names of the tensors tell the two apart.
  if constexpr (!std::is_same_v<typename M::sharing, sharing::none>) f("share", M::sharing::name());
  if constexpr (M::factorised) f("embedding", M::embedding::name());
}

template <class M, class F>
void describe_encoder(F& f) {
  constexpr auto shape = M::shape;
  describe_shape<M>(f);
  f("family", "encoder");
  f("d_kv", shape.head_width());
  f("layers", shape.layers);
  f("context", shape.context);
  f("types", shape.types);
  f("position", position_name<typename M::position>());
  if constexpr (M::rotary) f("rope_theta", shape.rope_theta);
  f("ffn", ffn_metadata<typename M::ffn>::name());
  f("attention", M::attention::name());
  f("norm_placement", M::placement::text);
  if constexpr (!std::is_same_v<typename M::sharing, sharing::none>) f("share", M::sharing::name());
  if constexpr (M::factorised) f("embedding", M::embedding::name());
  f("task", M::head::name());
  describe_choices<M>(f);
}

template <class M, class F>
void describe_t5(F& f) {
  constexpr auto shape = M::shape;
  describe_shape<M>(f);
  f("family", "t5");
  f("d_kv", shape.d_kv);
  f("encoder_layers", shape.encoder_layers);
  f("decoder_layers", shape.decoder_layers);
  f("buckets", shape.buckets);
  f("max_distance", shape.max_distance);
  f("encoder_ffn", ffn_metadata<typename M::encoder_ffn>::name());
  f("decoder_ffn", ffn_metadata<typename M::decoder_ffn>::name());
  f("encoder_attention", M::encoder_attention::name());
  f("decoder_attention", M::decoder_attention::name());
  describe_choices<M>(f);
}
template <class M, class F>
void describe_next_thought(F& f) {
  constexpr auto shape = M::shape;
  describe_shape<M>(f);
  f("family", "next_thought");
  f("kv_heads", shape.kv_heads);
  f("context", shape.context);
  f("pooling_heads", shape.pooling_heads);
  f("pseudo", shape.pseudo);
  f("decoder_layers", shape.decoder_layers);
  std::string shrinks;
  for (index k = 0; k < shape.shrinks(); ++k)
    shrinks += (k > 0 ? ", -" : "-") + number_text(shape.dropped[k]) + " to " +
               std::to_string(shape.widths[k]);
  f("shrinks", shrinks);
  describe_choices<M>(f);
}
template <class M, class F>
void describe_byte_pooled(F& f) {
  constexpr auto ends = M::pooling;
  describe_shape<M>(f);
  f("family", "byte_pooled");
  f("byte_rules", ends.rules == decltype(ends.rules)::corrected ? "corrected" : "repository");
  f("byte_slots", ends.bytes_per_token);
  f("byte_width", ends.width);
  f("byte_heads", ends.heads);
  f("byte_expansion", ends.expansion);
  f("byte_head_blocks", ends.head_blocks);
  std::string between;
  for (index k = 1; k < ends.blocks(); ++k)
    between += (k > 1 ? " " : "") + std::to_string(ends.width_before(k));
  f("byte_between", between);
  describe_blocks<M>(f);
  describe_choices<M>(f);
}
template <class M, class F>
void describe_decoder(F& f) {
  describe_shape<M>(f);
  f("family", "decoder");
  describe_blocks<M>(f);
  describe_choices<M>(f);
}

/// Everything that decides what the weights of `M` compute; neither storage nor scalar type.
template <class M>
std::vector<key_value> metadata_of() {
  std::vector<key_value> all;
  M::describe([&](const char* key, const auto& value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string>)
      all.push_back({key, value});
    else
      all.push_back({key, number_text(static_cast<double>(value))});
  });
  return all;
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Constant tables of a decoder's positions: rotary angles, or sinusoids.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Position tables of policy `Position` for a stream of width D with heads of width `Head`. `Kept`
/// positions at most have rotary angles in a table; those of later ones are computed as they come.
template <class Position, index D, index Head, index Kept, real Theta>
struct position_tables {
  static constexpr bool rotary = Position::pairing != rope_pairing::none;
  static constexpr bool sinusoidal = std::is_base_of_v<position::sinusoidal, Position>;

  template <class T>
  struct cache {
    T* table = nullptr;   ///< rotary [count, Head] or sinusoidal [longest, D]
    T* beyond = nullptr;  ///< [rows, Head] rotary, of later positions
    index count = 0;      ///< of the rotary table
  };
  static constexpr index count(index longest) { return (std::min)(longest, Kept); }
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e, index longest) {
    cache<T> c;
    if (rotary) c.table = m.state.take<T>(count(longest) * Head);
    if (rotary && longest > Kept) c.beyond = m.saved.take<T>(e.rows() * Head);
    if (sinusoidal) c.table = m.state.take<T>(longest * D);
    return c;
  }
  /// Fills a fresh table.
  template <class T>
  static void prepare(cache<T>& c, index longest) {
    if constexpr (rotary) {
      c.count = count(longest);
      ops::rope_table(c.count, Head, Theta.value, c.table);
    }
    if constexpr (sinusoidal)
      for (index t = 0; t < longest; ++t)
        for (index i = 0; i < D; ++i) c.table[t * D + i] = static_cast<T>(ops::sinusoid(t, i, D));
  }
  /// Passes the angles of this call to the layers.
  template <class T>
  static void angles(const cache<T>& c, context<T>& ctx) {
    if constexpr (!rotary) return;
    ctx.rope = {c.table, c.count, c.beyond};
    if (c.beyond)
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        const index position = ctx.past_of(row / ctx.length) + row % ctx.length;
        if (position >= c.count)
          ops::rope_angles(position, Head, Theta.value, c.beyond + row * Head);
      });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A decoder-only model as a type; spelled decoder<shape, policies...>.
template <decoder_shape Shape, class Policies>
struct decoder_model : model_defaults, policy_variants<decoder_model<Shape, Policies>> {
 private:
  using Ffn = typename Policies::template of<linnet::ffn::policy>;
  using Attention = typename Policies::template of<linnet::attention::policy>;
  using Norm = typename Policies::template of<linnet::norm::policy>;
  using Position = typename Policies::template of<linnet::position::policy>;
  using Bias = typename Policies::template of<linnet::bias::policy>;
  using Depths = typename Policies::template of<linnet::depths::policy>;
  using Sharing = typename Policies::template of<linnet::sharing::policy>;
  using Embedding = typename Policies::template of<linnet::embedding::policy>;

 public:
  static constexpr decoder_shape shape = Shape;
  static constexpr bool tied =
      std::is_same_v<typename Policies::template of<linnet::tie::policy>, tie::tied>;
  static constexpr bool biased = std::is_same_v<Bias, bias::all>;
  static constexpr bool learned = std::is_base_of_v<linnet::position::learned, Position>;
  static constexpr bool sinusoidal = std::is_base_of_v<linnet::position::sinusoidal, Position>;
  static constexpr bool rotary = Position::pairing != rope_pairing::none;
  static constexpr bool embedding_normed = Attention::embedding_norm;
  // See model_defaults.
  static constexpr bool can_truncate = Attention::can_truncate && Ffn::can_truncate,
                        evicts = Attention::evicts, causal = !Attention::noncausal_grouping,
                        supports_cache = Attention::supports_cache,
                        takes_prefix = Attention::takes_prefix;
  static constexpr index exits = Shape.layers;
  using ffn = Ffn;
  using attention = Attention;
  using norm = Norm;
  using position = Position;
  using depths = Depths;
  using sharing = Sharing;
  using embedding = Embedding;
  using storage = typename Policies::template of<linnet::storage::policy>;
  using cache = typename Policies::template of<linnet::kv::policy>;
  using batch = decoder_batch;
  /// This model with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with =
      typename detail::decoder_of<Shape, typename Policies::template with<Slot, Other>>::type;

  static constexpr index d = Shape.d_model, vocabulary = Shape.vocabulary,
                         context_length = Shape.context;
  static constexpr real eps{Shape.eps};
  static constexpr attention_shape self{.d_model = d,
                                        .heads = Shape.heads,
                                        .kv_heads = Shape.kv_heads,
                                        .d_kv = Shape.head_width(),
                                        .causal = true,
                                        .bias = biased,
                                        .rope = Position::pairing,
                                        .cache = cache::code,
                                        .projections = Sharing::projections};
  using norm_layer = typename Norm::template layer<d, eps>;
  /// The attention layer of the first block.
  static constexpr attention_shape self_first = [] {
    attention_shape a = self;
    a.first = Attention::first_differs;
    return a;
  }();
  template <attention_shape A>
  using block_with = typename detail::block_of<
      Norm, Ffn, named<"attention", residual<norm_layer, typename Attention::template layer<A>>>>::
      template make<d, Shape.d_ff, biased, eps, Sharing::projections>::type;
  using blocks = typename Depths::template stack<
      detail::stack_of<block_with<self_first>, std::type_identity<block_with<self>>, Shape.layers,
                       Attention::first_differs, Sharing>,
      block_with<self>, Shape.layers, rotary ? self.d_kv : 0>;
  /// The layer between the embedding's table and the residual stream, at both ends of the model.
  using embedding_projection = typename Embedding::template projection<d, tied>;
  static constexpr bool factorised = !std::is_same_v<Embedding, linnet::embedding::full>;
  using positional = detail::position_tables<Position, d, self.d_kv,
                                             (std::max)(context_length, Attention::min_positions),
                                             real{Shape.rope_theta}>;

  /// Storage of the embedding's table, and of what the head reads, in a model stored as `S`.
  template <class S>
  using table_storage = linnet::storage::at<S, linnet::storage::part::embedding>;
  template <class S>
  using head_storage =
      linnet::storage::at<S, tied ? linnet::storage::part::embedding : linnet::storage::part::head>;

  template <class Form>
  struct params {
    typename form::at<Form, linnet::storage::part::embedding>::matrix embedding{};
    [[no_unique_address]]
    typename embedding_projection::template params<form::at<Form, linnet::storage::part::embedding>>
        projection{};
    [[no_unique_address]] std::conditional_t<
        embedding_normed, typename norm_layer::template params<Form>, std::nullptr_t>
        embedding_norm{};
    [[no_unique_address]] std::conditional_t<learned, typename Form::vector, std::nullptr_t>
        positions{};
    typename blocks::template params<Form> stack{};
    typename norm_layer::template params<Form> norm{};
    [[no_unique_address]] std::conditional_t<
        tied, std::nullptr_t, typename form::at<Form, linnet::storage::part::head>::matrix>
        head{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "embedding" / "weight",
      tensor_info{vocabulary, embedding_projection::table, role::table, initial_deviation,
                  embedding_start},
      p.embedding...);
    embedding_projection::visit(f, at / "embedding", p.projection...);
    if constexpr (embedding_normed)
      norm_layer::visit(f, at / "embedding" / "norm", p.embedding_norm...);
    if constexpr (learned)
      f(at / "position" / "weight",
        tensor_info{context_length, d, role::position, initial_deviation}, p.positions...);
    // The usual small normal values instead of fan-in scaling (GPT-2, STLM).
    const auto normal = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
      if (info.deviation > 0) info.deviation = initial_deviation;
      f(where, info, leaf...);
    };
    blocks::visit(normal, at / "blocks", p.stack...);
    norm_layer::visit(f, at / "norm", p.norm...);
    if constexpr (!tied)
      f(at / "head" / "weight", tensor_info{vocabulary, d, role::matrix, head_deviation},
        p.head...);
  }
  static constexpr double initial_deviation = 0.02;
  static constexpr double head_deviation =
      embedding_normed ? 0.5 / detail::sqrt(static_cast<double>(d)) : initial_deviation;
  /// A normalised embedding starts so small that its norm's epsilon outweighs it (RWKV).
  static constexpr decltype(tensor_info::start) embedding_start =
      embedding_normed ? +[](const parameter_path&, index,
                             random_stream& random) { return 1e-4 * (2 * random.uniform() - 1); }
                       : nullptr;

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<decoder_model>(); }
  /// Parameters outside the embedding, the position table and an untied head; both factors of a
  /// factorised embedding count as embedding.
  static constexpr index non_embedding() {
    return parameters() - vocabulary * embedding_projection::table -
           count_parameters<embedding_projection>() - (tied ? 0 : vocabulary * d) -
           (learned ? context_length * d : 0);
  }
  /// Floating-point operations of one forward call over [batch, length] tokens, with the head and a
  /// factorised embedding's projection.
  static constexpr index flops(index batch_size, index length) {
    const call_shape e = call_shape_for({.batch = batch_size}, purpose::scoring, length);
    return blocks::flops(e) + norm_layer::flops(e) + embedding_projection::flops(e) +
           2 * e.rows() * embedding_projection::head * vocabulary;
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{}, embedding_norm{};
    T *embedded = nullptr, *out = nullptr, *normed = nullptr;  ///< [rows, d]
    T *looked_up = nullptr, *d_looked_up = nullptr;  ///< [rows, d] before the embedding's norm
    typename embedding_projection::template cache<T> projected{};
    T *d_embedded = nullptr, *d_out = nullptr, *d_normed = nullptr;
    typename positional::template cache<T> positions{};
    index* prefix = nullptr;   ///< [batch] tokens of each sequence's first call
    T* chunk = nullptr;        ///< logits of some rows
    T* last = nullptr;         ///< [batch, d] last valid rows
    T* logits = nullptr;       ///< [batch * limits.max_logits, vocabulary]
    ops::page_tables pages{};  ///< of a session's paged cache
    double* losses = nullptr;  ///< [rows]
    int dropout_id = 0;
  };
  /// The longest sequence for these limits: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : context_length;
  }
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const call_shape e = call_shape_for(l, use, longest(l));
    const index size = e.rows() * d;
    workspace<T> w;
    w.dropout_id = m.dropout_ids++;
    w.positions = positional::template plan<T>(m, e, longest(l));
    w.embedded = m.saved.take<T>(size);
    w.looked_up = embedding_normed ? m.saved.take<T>(size) : w.embedded;
    w.out = m.saved.take<T>(size);
    w.normed = m.saved.take<T>(size);
    w.projected = embedding_projection::template plan<T>(m, e);
    if (use == purpose::decoding) {
      if (Attention::takes_prefix) w.prefix = m.saved.take<index>(e.batch);
      w.last = m.saved.take<T>(e.batch * d);
      m.product(e.batch * l.max_logits, embedding_projection::head, vocabulary, e);
      w.logits = m.state.take<T>(e.batch * l.max_logits * vocabulary);
    } else {
      w.losses = m.saved.take<double>(e.rows());
      w.chunk = m.saved.take<T>(ops::head_rows(vocabulary) * vocabulary);
      m.product(ops::head_rows(vocabulary), embedding_projection::head, vocabulary, e);
    }
    if (e.training) {
      w.d_embedded = m.saved.take<T>(size);
      w.d_out = m.saved.take<T>(size);
      w.d_normed = m.saved.take<T>(size);
      w.d_looked_up = embedding_normed ? m.saved.take<T>(size) : w.d_embedded;
    }
    if (embedding_normed) w.embedding_norm = norm_layer::template plan<T>(m, e);
    w.norm = norm_layer::template plan<T>(m, e);
    w.stack = blocks::template plan<T>(m, e);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    positional::prepare(w.positions, longest(l));
  }

  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_decoder<decoder_model>(f);
  }
  /// A mixture of depths does not page, and a learned table of positions has an end.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (l.kv_blocks > 0 && Depths::routes)
      return {"limits.kv_blocks", "0, as a mixture of depths is not paged", l.kv_blocks};
    if (learned && longest(l) > context_length)
      return {"limits.target", "the model's context", l.target, context_length};
    return {};
  }
  /// Why a batch does not fit the limits, the vocabulary or the attention.
  static refusal refuses(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    c.length(b.length, longest(l), refusal::over_target);
    c.tokens(b.tokens, b.length, vocabulary);
    c.labels(b.labels, b.length, vocabulary);
    c.no(b.prefixes && !Attention::takes_prefix, refusal::prefix_unknown);
    for (index i = 0; b.prefixes && c.fits() && i < b.batch; ++i)
      c.no(b.prefixes[i] < 0 || b.prefixes[i] > b.length, refusal::prefix_outside);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// The final hidden states of a batch and the head that reads them: arguments of ops::head_loss()
  /// and ops::head_logits(). Called by every thread.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w,
                                                 const ops::execution& on) {
    context<T> ctx = batch_context<T>(b, on);
    embed<T, S>(p, b.tokens, w, ctx);
    run_layers<T, S>(p, w, ctx);
    final_norm<T, S>(p, w, ctx);
    return head<T, S>(p, b, w, ctx);
  }
  /// Summed loss of a batch by a criterion (see ops::label_cross_entropy), the cross-entropy. With
  /// `dp`, also adds the gradient of that sum. `call.logits`, if given, receives [batch * length,
  /// vocabulary]. The losses of early exits are in the sum, by their weights. Called by every
  /// thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    const exit_calls& at = call.exits;
    context<T> ctx = batch_context<T>(b, on);
    ctx.dropout = call.dropout;
    const index rows = ctx.rows();
    loss_sum sum;
    // Norm and head on the output x of a layer; the gradient of x is added to dx.
    const auto take_exit = [&](index layer, const T* x, T* dx) {
      const double weight = at.weights ? at.weights[layer] : layer + 1 == Shape.layers;
      if (weight == 0) return;
      norm_layer::template forward<T, S>(p.norm, {x, rows}, {w.normed, rows}, w.norm, ctx);
      ops::head_call<T, head_storage<S>> h = head<T, S>(p, b, w, ctx);
      h.z_loss = call.z_loss;
      h.weight = weight;
      if (layer + 1 == Shape.layers) h.logits = call.logits;
      if constexpr (ops::trainable<S>)
        if (dx) {
          ops::fill(on, rows * d, T(0), w.d_normed);
          h.dy = embedding_projection::template read_gradient<T>(rows, w.d_normed, w.projected, on);
          h.d_table = head_gradient<T>(*dp);
        }
      const loss_sum one = ops::head_loss(on, h, criterion);
      if constexpr (ops::trainable<S>)
        if (dx) {
          embedding_projection::template read_backward<T, table_storage<S>>(
              p.projection, dp->projection, rows, w.normed, w.d_normed, w.projected, on);
          norm_layer::template backward<T, S>(p.norm, dp->norm, {x, rows}, {w.d_normed, rows},
                                              {dx, rows}, w.norm, ctx);
        }
      if (at.losses && on.threads.rank() == 0) at.losses[layer] = one;
      sum.nats += weight * one.nats;
      sum.tokens = one.tokens;
    };
    embed<T, S>(p, b.tokens, w, ctx);
    // Early exits follow the backward pass, so that their gradients need no memory.
    const auto hook = layer_hook<T>::of(take_exit);
    if (at.weights && !dp) ctx.stack.hook = hook;
    run_layers<T, S>(p, w, ctx);
    if (dp) ops::fill(on, rows * d, T(0), w.d_out);
    take_exit(Shape.layers - 1, w.out, dp ? w.d_out : nullptr);
    if constexpr (ops::trainable<S>)
      if (dp) {
        if (at.weights) ctx.stack.hook = hook;
        const view<T, d> d_out(w.d_out, rows), d_embedded(w.d_embedded, rows);
        ops::fill(on, d_embedded.size(), T(0), w.d_embedded);
        blocks::template backward<T, S>(p.stack, dp->stack, {w.embedded, rows}, d_out, d_embedded,
                                        w.stack, ctx);
        ops::dropout(on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.d_embedded);
        if constexpr (embedding_normed) {
          ops::fill(on, rows * d, T(0), w.d_looked_up);
          norm_layer::template backward<T, S>(p.embedding_norm, dp->embedding_norm,
                                              {w.looked_up, rows}, d_embedded,
                                              {w.d_looked_up, rows}, w.embedding_norm, ctx);
        }
        ops::embed_backward(
            on, rows, embedding_projection::table, b.tokens,
            embedding_projection::template widen_backward<T, table_storage<S>>(
                p.projection, dp->projection, rows, w.d_looked_up, w.projected, ctx),
            dp->embedding);
        if constexpr (learned)
          ops::position_backward(on, ctx.batch, ctx.length, d, w.d_looked_up, dp->positions);
      }
    return sum;
  }

  /// Feeds tokens behind the cached ones. w.logits[batch, vocabulary] then predicts what follows
  /// each sequence's last valid token. With `call.every` they are w.logits[batch * length,
  /// vocabulary], one row per token. Only `call.layers` run. The norm and head read
  /// the output of the last, which stays in w.out [batch * length, d]. If the first is not the
  /// model's, it reads w.embedded of that size instead of tokens. Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& on) {
    context<T> ctx = detail::step_context<T>(call, on);
    ctx.pages = w.pages;
    if constexpr (Attention::takes_prefix) {
      on.threads.each(ctx.batch, [&](index i) {
        // Later tokens see all before them; one that predicts the next must not have seen it.
        w.prefix[i] = ctx.past[i] == 0 && !call.every ? ctx.length_of(i) : 0;
      });
      ctx.prefix = w.prefix;
    }
    if (call.layers.first == 0) embed<T, S>(p, call.tokens, w, ctx);
    run_layers<T, S>(p, w, ctx);
    if (!call.layers.head) return;
    final_norm<T, S>(p, w, ctx);
    if (!call.every)
      on.threads.each(ctx.batch, [&](index i) {
        std::copy_n(w.normed + (i * ctx.length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    const index read_rows = call.every ? ctx.rows() : ctx.batch;
    const T* const y = call.every ? w.normed : w.last;
    ops::matmul(on, read_rows, vocabulary, embedding_projection::head,
                embedding_projection::template read<T, table_storage<S>>(p.projection, read_rows, y,
                                                                         w.projected, on),
                head_matrix<T, S>(p), w.logits);
  }

  /// Lets cached sequence `to` continue where `from` is.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(w.stack, from, to, part);
  }

 private:
  template <class T>
  static context<T> batch_context(const batch& b, const ops::execution& on) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = b.batch;
    ctx.length = b.length;
    if constexpr (Attention::takes_prefix) ctx.prefix = b.prefixes;
    return ctx;
  }
  /// The head on w.normed.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> head(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w,
                                                 const context<T>& ctx) {
    const T* const y = embedding_projection::template read<T, table_storage<S>>(
        p.projection, ctx.rows(), w.normed, w.projected, ctx.on);
    return {ctx.rows(),
            embedding_projection::head,
            vocabulary,
            y,
            head_matrix<T, S>(p),
            T(1),
            b.labels,
            w.chunk,
            w.losses};
  }
  template <class T, class S>
  static const ops::packed_matrix<T, head_storage<S>>& head_matrix(
      const params<form::packed<T, S>>& p) {
    if constexpr (tied)
      return p.embedding;
    else
      return p.head;
  }
  template <class T>
  static T* head_gradient(params<form::gradient<T>>& dp) {
    if constexpr (tied)
      return dp.embedding;
    else
      return dp.head;
  }
  /// tokens -> w.embedded
  template <class T, class S>
  static void embed(const params<form::packed<T, S>>& p, const token* tokens, workspace<T>& w,
                    context<T>& ctx) {
    const index rows = ctx.rows();
    ops::embed(ctx.on, rows, embedding_projection::table, tokens, p.embedding,
               embedding_projection::template rows<T>(w.projected, w.looked_up));
    embedding_projection::template widen<T, table_storage<S>>(p.projection, rows, w.looked_up,
                                                              w.projected, ctx);
    const T* table = nullptr;
    if constexpr (learned) table = p.positions;
    if constexpr (sinusoidal) table = w.positions.table;
    if (table)
      ctx.on.threads.each(rows, [&](index i) {
        const index position = ctx.past_of(i / ctx.length) + i % ctx.length;
        for (index j = 0; j < d; ++j) w.looked_up[i * d + j] += table[position * d + j];
      });
    if constexpr (embedding_normed)
      norm_layer::template forward<T, S>(p.embedding_norm, {w.looked_up, rows}, {w.embedded, rows},
                                         w.embedding_norm, ctx);
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.embedded);
  }
  /// w.embedded -> w.out
  template <class T, class S>
  static void run_layers(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    positional::angles(w.positions, ctx);
    blocks::template forward<T, S>(p.stack, {w.embedded, ctx.rows()}, {w.out, ctx.rows()}, w.stack,
                                   ctx);
  }
  /// w.out -> w.normed
  template <class T, class S>
  static void final_norm(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    norm_layer::template forward<T, S>(p.norm, {w.out, ctx.rows()}, {w.normed, ctx.rows()}, w.norm,
                                       ctx);
  }
};

namespace detail {
template <class M>
inline constexpr bool is_decoder = false;
template <decoder_shape Shape, class Policies>
inline constexpr bool is_decoder<decoder_model<Shape, Policies>> = true;
}  // namespace detail

/// A decoder-only model: numbers come from `Shape`, policies follow in any order. Defaults: SwiGLU,
/// full causal attention, RMSNorm, interleaved RoPE, tied head, no biases, nothing shared, one
/// embedding table, f32.
template <decoder_shape Shape, class... Policies>
using decoder = typename detail::checked_decoder<Shape, Policies...>::type;

LINNET_NAMESPACE_END
/// @file
/// The tokenizer of llama2.c: byte-pair merges by score, with bytes for characters that the
/// vocabulary lacks.

#include <queue>

/// @file
/// Where tokenizers put ids: a vector that grows, or a caller's span.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A caller's span that counts on when it is full.
class token_room {
 public:
  explicit token_room(std::span<token> room) : room_(room) {}

  void push_back(token id) {
    if (count_ < room_.size()) room_[count_] = id;
    ++count_;
  }
  /// The number of ids, or what encode() says where there was no room for them.
  result<index> filled() const {
    if (count_ > room_.size())
      return error{errc::invalid, "encode", "ids", "room for " + std::to_string(count_),
                   std::to_string(room_.size())};
    return static_cast<index>(count_);
  }

 private:
  std::span<token> room_;
  std::size_t count_ = 0;
};

/// Refers to a vector or to a token_room.
class token_sink {
 public:
  token_sink(std::vector<token>& all) : all_(&all) {}
  token_sink(token_room& room) : room_(&room) {}

  void push_back(token id) const {
    if (all_)
      all_->push_back(id);
    else
      room_->push_back(id);
  }
  void append(std::span<const token> ids) const {
    if (all_)
      all_->insert(all_->end(), ids.begin(), ids.end());
    else
      for (const token id : ids) room_->push_back(id);
  }

 private:
  std::vector<token>* all_ = nullptr;
  token_room* room_ = nullptr;
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A vocabulary of scored pieces, read from llama2.c's tokenizer.bin: u32 longest length, then per
/// id f32 score, u32 length, bytes. Ids 0 to 2 are unknown, begin and end; 3 to 258 the bytes
/// "<0x00>" to "<0xFF>". Movable and copyable; const calls may run in any threads.
class llama2c_tokenizer {
 public:
  static constexpr token unknown = 0, begin = 1, end = 2;
  static constexpr token first_byte = 3;            ///< id of the byte 0
  static constexpr index most_pieces = 512 * 1024;  ///< largest vocabulary that is read

  /// Parses a tokenizer.bin held in memory. The file does not say how many pieces it has:
  /// `vocabulary` comes from the model. `where` names the file in errors. Errors: errc::malformed,
  /// errc::mismatch (another number of pieces), errc::invalid (a vocabulary without bytes or too
  /// large).
  static result<llama2c_tokenizer> parse(std::span<const std::byte> file, index vocabulary,
                                         const std::string& where = "tokenizer.bin");

  /// Number of pieces.
  index vocabulary() const { return std::ssize(pieces_); }
  /// The piece of an id as the file has it, or "" for an id outside the vocabulary.
  std::string_view piece(token id) const {
    if (id < 0 || id >= vocabulary()) return {};
    const entry& e = pieces_[static_cast<std::size_t>(id)];
    return {text_.data() + e.first, e.size};
  }
  /// The id of a piece, the lowest if the vocabulary has it more than once, or -1.
  token find(std::string_view piece) const { return find(piece, {}); }

  /// The ids of a text: a space is put before it, and its UTF-8 sequences become pieces or bytes.
  /// Then the neighbours whose union has the best score merge, leftmost first, until none is left.
  /// Optionally with the begin and end ids around. Takes n log n steps and 120 bytes of memory for
  /// each byte of the text. Empty where memory lacks.
  std::vector<token> encode(std::string_view text, bool with_begin = true,
                            bool with_end = false) const LINNET_TRY {
    std::vector<token> ids;
    if (!write(text, ids, with_begin, with_end)) return {};
    return ids;
  }
  LINNET_WITHOUT_MEMORY(return {})
  /// Puts the ids of a text into the caller's span and returns their number. Errors: errc::invalid
  /// where they are more, with the number that there must be room for; as many as fit are written.
  /// Memory is taken as above. Also errc::out_of_memory.
  result<index> encode(std::string_view text, std::span<token> to, bool with_begin = true,
                       bool with_end = false) const LINNET_TRY {
    detail::token_room room(to);
    if (!write(text, room, with_begin, with_end)) return detail::out_of_memory("encode");
    return room.filled();
  }
  LINNET_OR_OUT_OF_MEMORY("encode")

  /// The bytes that `id` adds to a text after `previous`: its piece, without the leading space
  /// after begin; of a byte's piece, that byte.
  std::string_view decode(token previous, token id) const {
    std::string_view text = piece(id);
    if (previous == begin && text.starts_with(' ')) text.remove_prefix(1);
    const int byte = byte_of(text);
    return byte < 0 ? text : std::string_view(all_bytes.data() + byte, 1);
  }
  /// The text of several ids, without begin and end. Given a vocabulary with a piece " ",
  /// decode(encode(text)) is `text`. Empty where memory lacks.
  template <class Tokens>
  std::string decode(const Tokens& ids) const LINNET_TRY {
    std::string text;
    token previous = begin;
    for (const token id : ids) {
      if (id != begin && id != end) text += decode(previous, id);
      previous = id;
    }
    return text;
  }
  LINNET_WITHOUT_MEMORY(return {})

 private:
  struct entry {
    std::uint32_t first, size;
    float score;
  };
  std::string text_;             ///< the file: all pieces, with numbers between
  std::vector<entry> pieces_;    ///< by id
  std::vector<token> by_piece_;  ///< ids sorted by piece, then id

  /// Encodes into a sink; false where the heap has no room.
  bool write(std::string_view text, detail::token_sink to, bool with_begin, bool with_end) const;
  /// The id of the piece `a` + `b`, or -1.
  token find(std::string_view a, std::string_view b) const {
    const auto before = [&](token id, int) {
      const std::string_view p = piece(id);
      const int order = p.substr(0, a.size()).compare(a);
      return order != 0 ? order < 0 : p.substr((std::min)(a.size(), p.size())) < b;
    };
    const auto at = std::lower_bound(by_piece_.begin(), by_piece_.end(), 0, before);
    if (at == by_piece_.end()) return -1;
    const std::string_view p = piece(*at);
    return p.size() == a.size() + b.size() && p.starts_with(a) && p.ends_with(b) ? *at : -1;
  }
  /// The byte that a piece such as "<0x0A>" stands for, or -1.
  static int byte_of(std::string_view piece) {
    if (piece.size() < 5 || !piece.starts_with("<0x")) return -1;
    int byte = 0;
    for (const char c : piece.substr(3, 2)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return -1;
      byte = 16 * byte + digit;
    }
    return byte;
  }
  static constexpr std::array<char, 256> all_bytes = [] {
    std::array<char, 256> all{};
    for (std::size_t b = 0; b < 256; ++b) all[b] = static_cast<char>(b);
    return all;
  }();
};

inline result<llama2c_tokenizer> llama2c_tokenizer::parse(std::span<const std::byte> file,
                                                          index vocabulary,
                                                          const std::string& where) LINNET_TRY {
  const auto wrong = [&](errc code, std::string what, std::string expected, std::string got) {
    return error{code, where, std::move(what), std::move(expected), std::move(got)};
  };
  if (vocabulary < first_byte + 256 || vocabulary > most_pieces)
    return wrong(errc::invalid, "vocabulary of the model", "259 to " + std::to_string(most_pieces),
                 std::to_string(vocabulary));
  if (file.size() < 4)
    return wrong(errc::malformed, "file size", "at least 4 bytes", std::to_string(file.size()));
  if (static_cast<std::size_t>(vocabulary) > (file.size() - 4) / 8)
    return wrong(errc::mismatch, "file size",
                 "room for " + std::to_string(vocabulary) + " pieces (the model's vocabulary)",
                 std::to_string(file.size()) + " bytes");
  if (file.size() > UINT32_MAX)
    return wrong(errc::malformed, "file size", "below 4 GiB", std::to_string(file.size()));
  if (!detail::has_memory_to_read(file.size())) return detail::out_of_memory(where);

  std::size_t at = 0;
  const auto take = [&](auto& value) {
    __builtin_memcpy(&value, file.data() + at, sizeof value);
    at += sizeof value;
  };
  llama2c_tokenizer made;
  std::uint32_t longest = 0;
  take(longest);
  made.pieces_.reserve(static_cast<std::size_t>(vocabulary));
  for (token id = 0; id < vocabulary; ++id) {
    const auto what = [&](const char* field = "") { return "piece " + std::to_string(id) + field; };
    if (file.size() - at < 8)
      return wrong(errc::mismatch, what(),
                   "one (the model's vocabulary has " + std::to_string(vocabulary) + ")",
                   "the end of the file");
    entry e{};
    take(e.score);
    take(e.size);
    e.first = static_cast<std::uint32_t>(at);
    if (!is_finite(e.score))
      return wrong(errc::malformed, what(": score"), "a finite number", "another");
    if (e.size > file.size() - at)
      return wrong(errc::malformed, what(": length"),
                   "at most the " + std::to_string(file.size() - at) + " bytes left",
                   std::to_string(e.size));
    if (e.size > longest)
      return wrong(errc::malformed, what(": length"),
                   "at most " + std::to_string(longest) + ", the longest by the header",
                   std::to_string(e.size));
    const std::string_view text(reinterpret_cast<const char*>(file.data()) + at, e.size);
    at += e.size;
    made.pieces_.push_back(e);
    if (id >= first_byte && id < first_byte + 256 &&
        (e.size != 6 || byte_of(text) != id - first_byte)) {
      constexpr std::string_view hex = "0123456789ABCDEF";
      const int byte = id - first_byte;
      std::string expected = "<0x";
      ((expected += hex[static_cast<std::size_t>(byte / 16)]) +=
       hex[static_cast<std::size_t>(byte % 16)]) += '>';
      return wrong(errc::malformed, what(), expected, "another piece");
    }
  }
  if (at != file.size())
    return wrong(errc::mismatch, "file size",
                 std::to_string(at) + " bytes for " + std::to_string(vocabulary) +
                     " pieces (the model's vocabulary)",
                 std::to_string(file.size()));
  made.text_.assign(reinterpret_cast<const char*>(file.data()), file.size());
  made.by_piece_.resize(made.pieces_.size());
  for (std::size_t i = 0; i < made.by_piece_.size(); ++i) made.by_piece_[i] = static_cast<token>(i);
  std::sort(made.by_piece_.begin(), made.by_piece_.end(), [&](token a, token b) {
    const int order = made.piece(a).compare(made.piece(b));
    return order != 0 ? order < 0 : a < b;
  });
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

inline bool llama2c_tokenizer::write(std::string_view text, detail::token_sink to, bool with_begin,
                                     bool with_end) const {
  // The ids so far, as a list linked through the indices of its elements.
  struct link {
    token id;
    index previous, next;
  };
  if (!detail::has_memory(120 * text.size())) return false;
  std::vector<link> list;
  list.reserve(text.size() + 1);
  const auto append = [&](token id) {
    list.push_back({id, std::ssize(list) - 1, std::ssize(list) + 1});
  };
  const auto append_text = [&](std::string_view character) {
    if (const token id = find(character); id >= 0) return append(id);
    for (const char c : character) append(static_cast<unsigned char>(c) + first_byte);
  };
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
  if (!text.empty()) append_text(" ");
  for (std::size_t i = 0, n = 0; i < text.size(); i += n) {
    for (n = 1; n < 4 && i + n < text.size() && continues(text[i + n]);) ++n;
    append_text(text.substr(i, n));
  }

  // Merges in order of score, then place. One is outdated when either id has changed since.
  struct merge {
    float score;
    index left, right;
    token left_id, right_id, id;
    bool operator<(const merge& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::priority_queue<merge> merges;
  const auto element = [&](index i) -> link& { return list[static_cast<std::size_t>(i)]; };
  const auto consider = [&](index left) {
    if (left < 0 || element(left).next >= std::ssize(list)) return;
    const index right = element(left).next;
    const token a = element(left).id, b = element(right).id, id = find(piece(a), piece(b));
    if (id < 0) return;
    const float score = pieces_[static_cast<std::size_t>(id)].score;
    if (score > -1e10f) merges.push({score, left, right, a, b, id});  // llama2.c's starting value
  };
  for (index i = 0; i < std::ssize(list); ++i) consider(i);
  while (!merges.empty()) {
    const merge m = merges.top();
    merges.pop();
    link& left = element(m.left);
    if (left.id != m.left_id || left.next != m.right || element(m.right).id != m.right_id) continue;
    left.id = m.id;
    left.next = element(m.right).next;
    element(m.right).id = -1;
    if (left.next < std::ssize(list)) element(left.next).previous = m.left;
    consider(left.previous);
    consider(m.left);
  }

  if (with_begin) to.push_back(begin);
  for (index i = 0; i < std::ssize(list); i = element(i).next) to.push_back(element(i).id);
  if (with_end) to.push_back(end);
  return true;
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Versions of the llama2.c checkpoint format.
enum class llama2c_version { v0, v1 };

namespace detail {

inline constexpr std::uint32_t llama2c_magic = 0x616b3432;
inline constexpr index llama2c_header = 256;  ///< bytes, version 1

/// Metadata of a model type that a llama2.c checkpoint also holds, and two numbers that the format
/// fixes.
struct llama2c_shape {
  std::int32_t dim = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocabulary = 0,
               context = 0;
  bool tied = true;
  index head_width = 0;
  index paired_heads =
      0;  ///< head width, where the model pairs (i, i + h/2) and the file (2i, 2i+1)
  double eps = 0, rope_theta = 0;
};

/// Whether the blocks of decoder `M` are Llama's.
template <class M>
inline constexpr bool holds_llama2c =
    std::is_same_v<typename M::norm, norm::rms>&& std::is_same_v<typename M::ffn, ffn::swiglu>&&
        std::is_same_v<typename M::attention, attention::full> &&
    !M::biased && !M::depths::routes && std::is_same_v<typename M::sharing, sharing::none> &&
    !M::factorised &&
    (std::is_same_v<typename M::position, position::rope> ||
     std::is_same_v<typename M::position, position::rope_half>);

/// The shape of a model type that checkpoints hold; words for others.
template <class M, class T>
constexpr llama2c_shape llama2c_shape_of() {
  if constexpr (!is_decoder<M>)
    static_assert(never<M>, "linnet: llama2.c checkpoints hold decoder-only models");
  else if constexpr (!holds_llama2c<M>)
    static_assert(never<M>,
                  "linnet: llama2.c checkpoints hold Llama models: norm::rms, ffn::swiglu, "
                  "attention::full, position::rope, no biases, nothing shared, no factorised "
                  "embedding");
  else if constexpr (M::shape.heads * M::shape.head_width() != M::shape.d_model)
    static_assert(never<M>, "linnet: in llama2.c checkpoints heads * head width is d_model");
  else if constexpr (storage_of<M, T>::scaled)
    static_assert(never<M>,
                  "linnet: llama2.c checkpoints are f32; load the f32 model and quantize() it");
  else {
    constexpr decoder_shape s = M::shape;
    const auto narrow = [](index x) { return static_cast<std::int32_t>(x); };
    return {narrow(s.d_model),
            narrow(s.d_ff),
            narrow(s.layers),
            narrow(s.heads),
            narrow(s.kv_heads),
            narrow(s.vocabulary),
            narrow(s.context),
            M::tied,
            s.head_width(),
            M::position::pairing == rope_pairing::half ? s.head_width() : 0,
            s.eps,
            s.rope_theta};
  }
  return {};
}

/// Offset of each tensor in a llama2.c checkpoint, in values behind the header.
class llama2c_layout {
 public:
  llama2c_layout(const llama2c_shape& s, llama2c_version version) : layers_(s.layers) {
    const index d = s.dim, kv = s.kv_heads * s.head_width, f = s.hidden, table = s.vocabulary * d;
    const bool legacy = version == llama2c_version::v0;
    const auto per_layer = [&](const char* name, index size) { add(name, size, true); };
    if (legacy) add("embedding.weight", table);
    per_layer("attention.norm.weight", d);
    if (!legacy) {
      per_layer("ffn.norm.weight", d);
      add("norm.weight", d);
      add("embedding.weight", table);
    }
    per_layer("attention.q.weight", d * d);
    per_layer("attention.k.weight", kv * d);
    per_layer("attention.v.weight", kv * d);
    per_layer("attention.o.weight", d * d);
    if (legacy) per_layer("ffn.norm.weight", d);
    per_layer("ffn.gate.weight", f * d);
    per_layer("ffn.down.weight", d * f);
    per_layer("ffn.up.weight", f * d);
    if (legacy) {
      add("norm.weight", d);
      tables_ = size_;
      size_ += s.context * s.head_width;
    }
    if (!s.tied) add("head.weight", table);
  }

  /// Number of values behind the header.
  index size() const { return size_; }
  /// Offset of the tensor with linnet's name `name`, or -1.
  index find(std::string_view name) const {
    index layer = -1;
    if (name.starts_with("blocks.")) {
      layer = 0;
      for (name.remove_prefix(7); name.front() != '.'; name.remove_prefix(1))
        layer = layer * 10 + (name.front() - '0');
      name.remove_prefix(1);
    }
    for (const entry& e : entries_)
      if (e.repeated == (layer >= 0) && e.name == name)
        return e.first + (layer > 0 ? layer * e.size : 0);
    return -1;
  }
  /// Offset of version 0's rotary tables.
  index tables() const { return tables_; }

 private:
  struct entry {
    std::string_view name;
    index first, size;
    bool repeated;
  };
  index layers_, size_ = 0, tables_ = 0;
  std::vector<entry> entries_;

  void add(std::string_view name, index size, bool repeated = false) {
    entries_.push_back({name, size_, size, repeated});
    size_ += repeated ? layers_ * size : size;
  }
};

/// Compares a checkpoint with a model type; returns the number of bytes before the first tensor.
inline result<index> check_llama2c(std::span<const std::byte> file, const llama2c_shape& type,
                                   const std::string& where, llama2c_version& version) LINNET_TRY {
  const auto wrong = [&](errc code, const char* what, std::string expected, std::string got) {
    return error{code, where, what, std::move(expected), std::move(got)};
  };
  const auto differs = [&](const char* what, std::string expected, std::string got) {
    return wrong(errc::mismatch, what, std::move(expected) + " (the model type)", std::move(got));
  };
  index at = 0;
  const auto next = [&] { return load_as<std::int32_t>(file.data() + 4 * at++); };
  if (std::ssize(file) < 28)
    return wrong(errc::malformed, "file size", "at least 28 bytes", std::to_string(file.size()));
  const bool legacy = load_as<std::uint32_t>(file.data()) != llama2c_magic;
  version = legacy ? llama2c_version::v0 : llama2c_version::v1;
  if (!legacy) {
    if (std::ssize(file) < llama2c_header)
      return wrong(errc::malformed, "file size", "at least 256 bytes", std::to_string(file.size()));
    at = 1;
    if (const auto number = next(); number != 1)
      return wrong(errc::unsupported, "version", "0 or 1", std::to_string(number));
  }
  const std::pair<const char*, std::int32_t> fields[] = {{"dim", type.dim},
                                                         {"hidden_dim", type.hidden},
                                                         {"n_layers", type.layers},
                                                         {"n_heads", type.heads},
                                                         {"n_kv_heads", type.kv_heads}};
  for (const auto& [name, expected] : fields)
    if (const auto got = next(); got != expected)
      return differs(name, std::to_string(expected), std::to_string(got));
  const auto vocabulary = next();
  const std::int32_t signed_size = legacy && !type.tied ? -type.vocabulary : type.vocabulary;
  if (vocabulary != signed_size)
    return differs(
        legacy && vocabulary == -signed_size ? "vocab_size (negative: untied head)" : "vocab_size",
        std::to_string(signed_size), std::to_string(vocabulary));
  if (const auto got = next(); got != type.context)
    return differs("seq_len", std::to_string(type.context), std::to_string(got));
  if (!legacy) {
    const int shared = std::to_integer<int>(file[36]);
    if (shared > 1)
      return wrong(errc::malformed, "shared classifier", "0 or 1", std::to_string(shared));
    if (shared != (type.tied ? 1 : 0))
      return differs("shared classifier", type.tied ? "1" : "0", std::to_string(shared));
    for (const std::byte pad : file.subspan(37, llama2c_header - 37))
      if (pad != std::byte{0})
        return wrong(errc::malformed, "header", "zeros from byte 37 on", "another value");
  }
  // The format has no place for these: every llama2.c model uses the same.
  if (type.eps != 1e-5)
    return differs("norm eps", number_text(type.eps), "1e-05, as always in llama2.c");
  if (type.rope_theta != 10000)
    return differs("rope theta", number_text(type.rope_theta), "10000, as always in llama2.c");
  const index before = legacy ? 28 : llama2c_header,
              size = before + 4 * llama2c_layout(type, version).size();
  if (std::ssize(file) != size)
    return wrong(errc::malformed, "file size", std::to_string(size) + " bytes for this header",
                 std::to_string(file.size()));
  return before;
}
LINNET_OR_OUT_OF_MEMORY(where)

inline placement llama2c_placement(const llama2c_shape& type, const leaf& tensor) {
  placement at{tensor.name, tensor.rows, tensor.columns, tensor.vector};
  if (tensor.name.ends_with(".attention.q.weight") || tensor.name.ends_with(".attention.k.weight"))
    at.paired_heads = type.paired_heads;
  return at;
}

}  // namespace detail

/// Loads a llama2.c checkpoint, version 0 or 1, held in memory. The header is compared with the
/// type of `w` field by field, then the size, and only then is `w` written. `where` names the file
/// in errors. Errors: errc::malformed, errc::mismatch, errc::unsupported, errc::out_of_memory, and
/// errc::invalid where `values` are to be finite.
template <class M, class T>
result<void> load_llama2c(weights<M, T>& w, std::span<const std::byte> file,
                          const std::string& where = "llama2.c file",
                          nonfinite values = nonfinite::keep) LINNET_TRY {
  constexpr detail::llama2c_shape type = detail::llama2c_shape_of<M, T>();
  if (!w.valid()) return w.error();
  llama2c_version version{};
  const auto begin = detail::check_llama2c(file, type, where, version);
  if (!begin) return begin.error();
  const detail::llama2c_layout layout(type, version);
  const auto leaves = detail::leaves_of(w);
  const auto from = [&](const detail::leaf& tensor) {
    return file.data() + *begin + 4 * layout.find(tensor.name);
  };
  for (const detail::leaf& tensor : leaves)
    if (values == nonfinite::refuse && !detail::all_finite(dtype::f32, from(tensor), tensor.size()))
      return error{errc::invalid, where, tensor.name, "finite numbers", "a NaN or an infinity"};
  for (const detail::leaf& tensor : leaves)
    detail::copy_in(tensor, detail::llama2c_placement(type, tensor), dtype::f32, from(tensor));
  return {};
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Loads a llama2.c checkpoint, version 0 or 1, from a file. Errors: as above, and those of
/// read_file().
template <class M, class T>
result<void> load_llama2c(weights<M, T>& w, const std::string& path,
                          nonfinite values = nonfinite::keep) LINNET_TRY {
  (void)detail::llama2c_shape_of<M, T>();
  const auto file = read_file(path);
  return file ? load_llama2c(w, *file, path, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Reads a tokenizer.bin for a model with `vocabulary` ids. Errors: those of read_file() and of
/// llama2c_tokenizer::parse().
inline result<llama2c_tokenizer> read_llama2c_tokenizer(const std::string& path,
                                                        index vocabulary) LINNET_TRY {
  const auto file = read_file(path);
  return file ? llama2c_tokenizer::parse(*file, vocabulary, path)
              : result<llama2c_tokenizer>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Saves weights as a llama2.c checkpoint of version 0, which llama2.c's run reads. Errors:
/// errc::mismatch (eps and theta that the format cannot express), errc::out_of_memory, errc::io.
template <class M, class T>
result<void> save_llama2c(const weights<M, T>& w, const std::string& path,
                          llama2c_version version = llama2c_version::v0) LINNET_TRY {
  constexpr detail::llama2c_shape type = detail::llama2c_shape_of<M, T>();
  if (!w.valid()) return w.error();
  if (type.eps != 1e-5 || type.rope_theta != 10000)
    return error{errc::mismatch, path, "the model type",
                 "norm eps 1e-05 and rope theta 10000, as always in llama2.c", "others"};
  const detail::llama2c_layout layout(type, version);
  const bool legacy = version == llama2c_version::v0;
  const index begin = legacy ? 28 : detail::llama2c_header;
  file_bytes file(static_cast<std::size_t>(begin + 4 * layout.size()));
  if (file.data() == nullptr)
    return error{errc::out_of_memory, path, "", "memory for the file", "none"};
  __builtin_memset(file.data(), 0, static_cast<std::size_t>(begin));

  const std::int32_t header[] = {static_cast<std::int32_t>(detail::llama2c_magic),
                                 1,
                                 type.dim,
                                 type.hidden,
                                 type.layers,
                                 type.heads,
                                 type.kv_heads,
                                 legacy && !type.tied ? -type.vocabulary : type.vocabulary,
                                 type.context};
  const int skipped = legacy ? 2 : 0;
  __builtin_memcpy(file.data(), header + skipped,
                   sizeof header - 4 * static_cast<std::size_t>(skipped));
  if (!legacy && type.tied) file.data()[36] = std::byte{1};

  const auto put = [&](index at, float x) {
    __builtin_memcpy(file.data() + begin + 4 * at, &x, sizeof x);
  };
  for (const detail::leaf& tensor : detail::leaves_of(w)) {
    const detail::placement place = detail::llama2c_placement(type, tensor);
    const index first = layout.find(tensor.name);
    for (index n = 0; n < tensor.rows; ++n)
      for (index j = 0; j < tensor.columns; ++j) {
        double x = 0;
        detail::decode_reals(
            tensor.type, tensor.data + (n * tensor.columns + j) * size_of(tensor.type), 1, 1, &x);
        put(first + place.row(n).first + j, static_cast<float>(x));
      }
  }
  if (legacy)
    for (index t = 0, half = type.head_width / 2; t < type.context; ++t)
      for (index i = 0; i < half; ++i) {
        const double angle = static_cast<double>(t) *
                             std::pow(type.rope_theta, -2.0 * static_cast<double>(i) /
                                                           static_cast<double>(type.head_width));
        put(layout.tables() + t * half + i, static_cast<float>(std::cos(angle)));
        put(layout.tables() + (type.context + t) * half + i, static_cast<float>(std::sin(angle)));
      }
  return write_file(path, file);
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
/// @file
/// Packed weights in files and arrays, run where they lie: mapped read-only, or constants of the
/// program. Numbers are little-endian:
///
///     8 bytes  "linnetPK"
///     4        0x01020304 in the byte order of the panels
///     4        version; all versions have these 16 bytes
///     8        size of the header: 32 bytes and the text, filled up with zeros to a multiple of 64
///     8        size of the panels
///     text     what the model type says of itself: lines of a key, a space and a value
///     ...      the panels, to the end of the file
///
/// The model type decides every byte before the panels, so whatever differs is refused.

/// @file
/// Files as memory: mapped read-only, and written into a program as an array.

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

LINNET_NAMESPACE_BEGIN

/// Maps a whole regular file read-only; programs that map one file share its memory. The bytes are
/// those of the file: shorten it meanwhile, and reading them ends the program. A file that is
/// replaced by renaming stays as it was. Without mmap() it is read. Errors: errc::io,
/// errc::malformed (an empty file), errc::out_of_memory.
inline result<memory_block> map_file(const std::string& path) LINNET_TRY {
#if defined(__unix__) || defined(__APPLE__)
  const auto file = detail::open_regular(path);
  if (!file) return file.error();
  if (file->size == 0) return error{errc::malformed, path, "file size", "at least 1 byte", "0"};
  void* const at = ::mmap(nullptr, file->size, PROT_READ, MAP_PRIVATE, file->file.get(), 0);
  if (at == MAP_FAILED && errno == ENOMEM) return detail::out_of_memory(path);
  if (at == MAP_FAILED) return detail::file_error(path, "a file that can be mapped");
  return memory_block(at, static_cast<index>(file->size), [](void* data, index size) {
    ::munmap(data, static_cast<std::size_t>(size));
  });
#else
  const auto file = read_file(path);
  if (!file) return file.error();
  if (file->size() == 0) return error{errc::malformed, path, "file size", "at least 1 byte", "0"};
  memory_block copy(static_cast<index>(file->size()));
  if (!copy.data()) return detail::out_of_memory(path);
  __builtin_memcpy(copy.data(), file->data(), file->size());
  return copy;
#endif
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Writes bytes as a C++ header that defines an array `name`, aligned to `alignment`: what
/// view_packed() and the loading functions take, in the program itself. Errors: errc::io, and
/// errc::invalid for a name that is no identifier.
inline result<void> write_array(const std::string& path, std::string_view name,
                                std::span<const std::byte> bytes) LINNET_TRY {
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  bool named = !name.empty() && letter(name[0]);
  for (const char c : name) named = named && (letter(c) || (c >= '0' && c <= '9'));
  if (!named)
    return error{errc::invalid, "write_array", "name", "an identifier of letters, digits and _",
                 detail::printable(name)};
  if (bytes.empty()) return error{errc::invalid, "write_array", "bytes", "at least 1", "0"};
  detail::file_writer file(path);
  const auto write = [&](std::string_view text) { file.write(std::as_bytes(std::span(text))); };
  write("#pragma once\nalignas(" + std::to_string(alignment) + ") inline constexpr unsigned char " +
        std::string(name) + "[] = {");
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    write(i == 0 ? "\n" : i % 20 == 0 ? ",\n" : ",");
    write(std::to_string(static_cast<int>(bytes[i])));
  }
  write("};\n");
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::string_view packed_magic = "linnetPK";
inline constexpr std::uint32_t packed_order = 0x01020304, packed_version = 1;

/// The first bytes of a packed file.
struct packed_head {
  char magic[8];
  std::uint32_t order, version;
  std::uint64_t header, panels;  ///< sizes
};
static_assert(sizeof(packed_head) == 32);

/// A number of 64 bits that differs where two sequences of texts and numbers do (FNV-1a).
struct layout_digest {
  std::uint64_t value = 0xcbf29ce484222325;

  void add(std::uint64_t number) {
    for (int i = 0; i < 8; ++i) value = (value ^ (number >> 8 * i & 255)) * 0x100000001b3;
  }
  void add(std::string_view text) {
    add(text.size());
    for (const char c : text) add(static_cast<std::uint64_t>(static_cast<unsigned char>(c)));
  }
  void add(const parameter_path& at) {
    if (at.parent) add(*at.parent);
    add(at.name);
    add(static_cast<std::uint64_t>(at.number));
  }
  template <class S>
  void add_storage() {
    add(std::string_view(S::name));
    add(static_cast<std::uint64_t>(S::group));
  }
  template <class T, class S>
  void add(const ops::packed_matrix<T, S>&) {
    add_storage<S>();
  }
  template <class T>
  void add(T* const&) {
    add_storage<std::conditional_t<std::is_same_v<std::remove_const_t<T>, double>, storage::f64,
                                   storage::f32>>();
  }
};

/// Calls f(key, value) with the texts of a packed file of `M`, in their order.
template <class M, class T, class F>
void describe_packed(F&& f) {
  using S = storage_of<M, T>;
  M::describe([&](const char* key, const auto& value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string_view>)
      f(key, std::string_view(value));
    else
      f(key, std::string_view(number_text(static_cast<double>(value))));
  });
  if constexpr (requires { S::mixes; }) {
    f("storage", std::string_view(S::name()));
  } else {
    f("storage", std::string_view(S::name));
    if (S::group > 0)
      f("storage_group", std::string_view(number_text(static_cast<double>(S::group))));
  }
  f("panel_width", std::string_view(number_text(static_cast<double>(ops::panel_width))));
  // Names, sizes and storage of all tensors: models from outside may say little of themselves.
  layout_digest digest;
  typename packed<M, T>::tree_type tree{};
  M::visit(
      [&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
        digest.add(at);
        digest.add(static_cast<std::uint64_t>(info.rows));
        digest.add(static_cast<std::uint64_t>(info.columns));
        digest.add(leaf);
      },
      parameter_path{}, tree);
  char digits[16];
  for (int i = 0; i < 16; ++i) digits[i] = "0123456789abcdef"[digest.value >> (60 - 4 * i) & 15];
  f("tensors", std::string_view(digits, sizeof digits));
}

/// Compares the text of a packed file with what a model type says, piece by piece. Allocates for
/// words only.
class packed_text_reader {
 public:
  packed_text_reader(std::string_view text, const std::string& where) : all_(text), where_(where) {}

  /// The next key and value of the model type.
  void operator()(std::string_view key, std::string_view value) {
    if (failure_) return;
    const std::string_view rest = all_.substr(at_);
    if (begins(rest, key) && rest.substr(key.size() + 1).starts_with(value) &&
        rest.substr(key.size() + 1 + value.size()).starts_with('\n')) {
      at_ += key.size() + value.size() + 2;
      return;
    }
    const std::string type = printable(value) + " (the model type)";
    if (begins(rest, key))
      refuse(errc::mismatch, key, type, printable(line_of(rest).substr(key.size() + 1)));
    else if (const auto [other, said] = halves(line_of(rest)); comes_later(key) && !other.empty())
      refuse(errc::mismatch, other, "nothing (the model type)", printable(said));
    else
      refuse(errc::mismatch, key, type, "nothing");
  }
  /// Ends the text: nothing but zeros may follow, up to the next multiple of 64 bytes.
  std::optional<error> finish() {
    const std::string_view rest = all_.substr(at_);
    const index size = static_cast<index>(sizeof(packed_head) + at_);
    if (failure_) return failure_;
    if (const auto [key, value] = halves(line_of(rest)); !key.empty() && key[0] != '\0')
      refuse(errc::mismatch, key, "nothing (the model type)", printable(value));
    else if (rest.find_first_not_of('\0') != rest.npos)
      refuse(errc::malformed, "header", "zeros behind its text", "other bytes");
    else if (round_up(size, alignment) != static_cast<index>(sizeof(packed_head) + all_.size()))
      refuse(errc::malformed, "header size", std::to_string(round_up(size, alignment)),
             std::to_string(sizeof(packed_head) + all_.size()));
    return failure_;
  }

 private:
  std::string_view all_;
  std::size_t at_ = 0;
  const std::string& where_;
  std::optional<error> failure_;

  static bool begins(std::string_view text, std::string_view key) {
    return text.starts_with(key) && text.substr(key.size()).starts_with(' ');
  }
  static std::string_view line_of(std::string_view text) { return text.substr(0, text.find('\n')); }
  static std::pair<std::string_view, std::string_view> halves(std::string_view line) {
    const std::size_t space = line.find(' ');
    if (space == line.npos) return {};
    return {line.substr(0, space), line.substr(space + 1)};
  }
  /// Whether a line behind this one has the key.
  bool comes_later(std::string_view key) const {
    for (std::size_t end = all_.find('\n', at_); end != all_.npos; end = all_.find('\n', end + 1))
      if (begins(all_.substr(end + 1), key)) return true;
    return false;
  }
  void refuse(errc code, std::string_view what, std::string expected, std::string got) {
    failure_ = error{code, where_, printable(what), std::move(expected), std::move(got)};
  }
};

/// The text of a packed file without what describes the model, and its head; the sizes are right.
inline result<std::string_view> packed_text(std::span<const std::byte> file,
                                            const std::string& where) LINNET_TRY {
  const auto wrong = [&](errc code, const char* what, std::string expected, std::string got) {
    return error{code, where, what, std::move(expected), std::move(got)};
  };
  packed_head head{};
  if (file.size() < sizeof head)
    return wrong(errc::malformed, "file size", "at least " + std::to_string(sizeof head) + " bytes",
                 std::to_string(file.size()));
  __builtin_memcpy(&head, file.data(), sizeof head);
  if (std::string_view(head.magic, sizeof head.magic) != packed_magic)
    return wrong(errc::malformed, "", "packed weights, which begin with linnetPK",
                 "another beginning");
  if (head.order != packed_order)
    return wrong(errc::unsupported, "byte order", "this machine's", "another");
  if (head.version != packed_version)
    return wrong(errc::unsupported, "version", std::to_string(packed_version),
                 std::to_string(head.version));
  if (head.header < sizeof head || head.header > file.size() || head.header % alignment != 0)
    return wrong(errc::malformed, "header size",
                 "a multiple of " + std::to_string(alignment) + " within the file",
                 std::to_string(head.header));
  return std::string_view(reinterpret_cast<const char*>(file.data()) + sizeof head,
                          static_cast<std::size_t>(head.header) - sizeof head);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Checks a packed file whose text fitted: its panels reach from the header to its end, aligned.
inline result<void> check_panels(std::span<const std::byte> file, std::size_t header, index panels,
                                 const std::string& where) LINNET_TRY {
  packed_head head{};
  __builtin_memcpy(&head, file.data(), sizeof head);
  if (head.panels != static_cast<std::uint64_t>(panels))
    return error{errc::malformed, where, "size of the panels", std::to_string(panels),
                 std::to_string(head.panels)};
  if (file.size() - header != static_cast<std::size_t>(panels))
    return error{
        errc::malformed, where, "file size",
        std::to_string(header + static_cast<std::size_t>(panels)) + " bytes for this header",
        std::to_string(file.size())};
  return fits_memory(where.c_str(), file.data(), file.size(), "", 0);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Compares a packed file with a model type; where its panels begin.
template <class M, class T>
result<index> check_packed(std::span<const std::byte> file, const std::string& where) LINNET_TRY {
  if constexpr (!fits_metadata<true, M>()) {
    return index{0};
  } else {
    const auto text = packed_text(file, where);
    if (!text) return text.error();
    packed_text_reader read(*text, where);
    describe_packed<M, T>(read);
    if (auto failure = read.finish()) return *std::move(failure);
    const std::size_t header = sizeof(packed_head) + text->size();
    if (auto fit = check_panels(file, header, packed<M, T>::bytes(), where); !fit)
      return fit.error();
    return static_cast<index>(header);
  }
}
LINNET_OR_OUT_OF_MEMORY(where)

}  // namespace detail

/// Saves packed weights, with what their model type says of itself. The same weights always give
/// the same bytes, at every instruction-set level. Errors: errc::io, errc::out_of_memory, and the
/// error of `p` if it is not valid().
template <class M, class T>
result<void> save_packed(const packed<M, T>& p, const std::string& path) LINNET_TRY {
  if constexpr (!detail::fits_metadata<true, M>()) {
    return {};
  } else {
    if (!p.valid()) return p.error();
    std::string header(sizeof(detail::packed_head), '\0');
    detail::describe_packed<M, T>([&](std::string_view key, std::string_view value) {
      ((((header += key) += ' ') += value) += '\n');
    });
    header.resize(static_cast<std::size_t>(round_up(std::ssize(header), alignment)));
    detail::packed_head head{
        {}, detail::packed_order, detail::packed_version, header.size(), p.block().size()};
    std::copy_n(detail::packed_magic.data(), sizeof head.magic, head.magic);
    __builtin_memcpy(header.data(), &head, sizeof head);
    detail::file_writer file(path);
    file.write(std::as_bytes(std::span(header)));
    file.write(p.block());
    return file.commit();
  }
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Packed weights over the bytes of a file of save_packed(), such as a constant array of the
/// program. Nothing is copied: the bytes must outlive the view, and begin at a multiple of
/// `alignment`. Every number and policy of the model type is compared with the file's, and the
/// panels are taken as they are. `where` names the bytes in errors. Errors: errc::mismatch (another
/// model type), errc::malformed, errc::unsupported (version or byte order), errc::invalid (not
/// aligned).
template <class M, class T = float>
result<packed<M, T>> view_packed(lasting_span<const std::byte> bytes,
                                 const std::string& where = "packed weights") LINNET_TRY {
  const auto begin = detail::check_packed<M, T>(bytes, where);
  if (!begin) return begin.error();
  return packed<M, T>(
      memory_block(const_cast<std::byte*>(bytes.data()), std::ssize(bytes), nullptr), *begin);
}
LINNET_OR_OUT_OF_MEMORY(where)
/// @copydoc view_packed()
template <class M, class T = float>
result<packed<M, T>> view_packed(lasting_span<const unsigned char> bytes,
                                 const std::string& where = "packed weights") LINNET_TRY {
  return view_packed<M, T>(lasting_span<const std::byte>(std::as_bytes(bytes)), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Maps packed weights from a file, see map_file(). Pages are read when they are first used, and
/// shared by all programs that map the file. packed::clone() makes a copy that needs no file.
/// Errors: those of map_file() and view_packed().
template <class M, class T = float>
result<packed<M, T>> map_packed(const std::string& path) LINNET_TRY {
  auto file = map_file(path);
  if (!file) return file.error();
  const auto begin = detail::check_packed<M, T>(
      {static_cast<const std::byte*>(file->data()), static_cast<std::size_t>(file->size())}, path);
  if (!begin) return begin.error();
  return packed<M, T>(*std::move(file), *begin);
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
/// @file
/// Embedders: vectors of texts by an encoder, one per text or one per token.

/// @file
/// The planned memory of a session, evaluator or trainer: one block, sized at compile time if the
/// limits are constants.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Bytes of each kind of memory that model M plans for a purpose.
struct plan_sizes {
  index state = 0, saved = 0, scratch = 0, converted = 0;
  constexpr index total() const {
    return add_sizes(add_sizes(state, saved), add_sizes(scratch, converted));
  }
};
/// The most of ops::converted_bytes() that a matrix of a model of mixed storage `S` needs.
template <class S>
constexpr index converted_bytes(index rows, index in, index out, index threads, bool training) {
  index most = 0;
  S::each([&](auto one) {
    most = (std::max)(
        most, ops::converted_bytes<typename decltype(one)::type>(rows, in, out, threads, training));
  });
  return most;
}
template <class S>
constexpr planner planner_for() {
  planner m;
  if constexpr (ops::converts<S>) m.converted_bytes = &ops::converted_bytes<S>;
  if constexpr (requires { S::mixes; }) m.converted_bytes = &converted_bytes<S>;
  return m;
}
template <class M, class T, class S = storage_of<M, T>>
constexpr plan_sizes plan_for(const limits& l, purpose use) {
  planner m = planner_for<S>();
  (void)M::template plan<T>(m, l, use);
  return {m.state.peak(), m.saved.peak(), m.scratch.peak(), round_up(m.converted, alignment)};
}

/// The workspace of model M inside memory, and where its products round their inputs.
template <class M, class T>
struct placed_workspace {
  typename M::template workspace<T> work{};
  void* converted = nullptr;
};
/// Places the workspace in `memory`, which is zeroed and large enough.
template <class M, class T, class S = storage_of<M, T>>
placed_workspace<M, T> place_workspace(const limits& l, purpose use, void* memory) {
  const plan_sizes sizes = plan_for<M, T, S>(l, use);
  auto* const at = static_cast<std::byte*>(memory);
  planner m = planner_for<S>();
  m.state = arena(at, sizes.state);
  m.saved = arena(at + sizes.state, sizes.saved);
  m.scratch = arena(at + sizes.state + sizes.saved, sizes.scratch);
  placed_workspace<M, T> placed{M::template plan<T>(m, l, use),
                                at + sizes.state + sizes.saved + sizes.scratch};
  M::prepare(placed.work, l);
  return placed;
}

/// Whether a span takes the logits of a batch that the model accepts, or is empty and takes none.
template <class M, class Batch, class T>
bool logits_fit(const Batch& b, std::span<T> logits) {
  index rows = b.batch * M::ids_per_token;
  if constexpr (requires { b.target_length; })
    rows *= b.target_length;
  else if constexpr (!M::label_per_sequence)
    rows *= b.length;
  return logits.empty() || std::ssize(logits) >= rows * M::vocabulary;
}
/// Why a call with a batch, an objective and a span for logits is refused: the first cause.
template <class M, class Objective, class T>
refusal refusal_of(const typename M::batch& b, const limits& l, Objective&& from,
                   std::span<T> logits) {
  if (const refusal why = refusal_of<M>(b, l); why != refusal::none) return why;
  if (!from.template accepts<M>(b, l)) return refusal::objective;
  return logits_fit<M>(b, logits) ? refusal::none : refusal::short_logits;
}

/// Checks that limits make sense for model M; the error names the first that does not. `footprint`
/// is what they need.
template <class M>
result<void> acceptable(const char* where, const limits& l, index footprint) {
  const auto refuse = [&](const char* field, std::string rule, index got) {
    return linnet::error{errc::invalid, where, field, std::move(rule), std::to_string(got)};
  };
  const auto no_more_than = [](index most, const char* what) {
    return "no more than " + std::to_string(most) + ", " + what;
  };
  if (auto fit = acceptable(where, "limits", l); !fit) return fit;
  if (l.kv_blocks > 0 && M::cache::code == kv_code::int4)
    return refuse("limits.kv_blocks", "0, as kv::int4 is not paged", l.kv_blocks);
  if (l.chunk > 0 && l.max_logits > l.chunk)
    return refuse("limits.max_logits", no_more_than(l.chunk, "limits.chunk"), l.max_logits);
  if (const limits_refusal own = M::check_limits(l); own.field != nullptr)
    return refuse(own.field, own.most < 0 ? own.rule : no_more_than(own.most, own.rule), own.got);
  constexpr const char* names[] = {"limits.batch", "limits.source",    "limits.target",
                                   "limits.chunk", "limits.kv_blocks", "limits.max_logits"};
  std::size_t largest = 0;
  for (std::size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const index value = l.*growing_limits[i];
    if (value > most_positions) return refuse(names[i], "no more than 2147483647", value);
    if (value > l.*growing_limits[largest]) largest = i;
  }
  if (footprint >= most_bytes)
    return refuse(names[largest], "limits whose memory fits an address space",
                  l.*growing_limits[largest]);
  return {};
}

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Encoders that stand alone: BERT (Devlin et al. 2019), DistilBERT (Sanh et al. 2019), MiniLM
/// (arXiv:2002.10957) and ALBERT (Lan et al. 2019).

/// @file
/// An encoder without its head: texts to hidden states, and back.

/// @file
/// The rules that an encoder's shape and policies keep, each with a sentence for what breaks it.

/// @file
/// Heads of encoders: what is read from the hidden states, and what is trained.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Stands for a layer between the hidden states and the logits where there is none.
template <index D>
struct no_reader : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  static constexpr index flops(const call_shape&) { return 0; }
};

}  // namespace detail

/// Heads of encoders. A head has a `reader`, the layer between the hidden states of width D and the
/// logits, or `detail::no_reader`. `Width` is the embedding's, `A` the feed-forward's activation.
namespace head {

/// Base of the heads; a head overrides what differs.
struct policy {
  static constexpr bool trains = true;         ///< has logits, labels and a loss
  static constexpr bool per_sequence = false;  ///< reads the first token of each sequence alone
  static constexpr index classes = 0;          ///< logits; 0 for one per token of the vocabulary
  static constexpr std::string_view place = "head";  ///< name of the reader's parameters
};

/// No head: the hidden states are the output, see embedder.
struct none : policy {
  static constexpr bool trains = false;
  static std::string name() { return "none"; }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = linnet::detail::no_reader<D>;
};

/// BERT's pooler: tanh(W h + b) of the first token. A model with nothing behind it is Hugging
/// Face's BertModel.
struct pooler : policy {
  static constexpr bool trains = false, per_sequence = true;
  static constexpr std::string_view place = "pooler";
  static std::string name() { return "pooler"; }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = activated_linear<D, D, activation_kind::tanh, Bias, false>;
};

/// Predicts masked tokens (Devlin et al. 2019): logits = E norm(f(W h + b)) + bias, with the
/// embedding's table E where the model is tied.
struct masked_lm : policy {
  static std::string name() { return "masked_lm"; }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = chain<named<"dense", activated_linear<D, Width, A, Bias, false>>,
                       named<"norm", typename Norm::template layer<Width, Eps>>>;
};

/// One of `Classes` labels for a sequence: a linear map of the pooled first token. The pooler's
/// activation is BERT's tanh; DistilBERT has `activation_kind::relu`.
template <index Classes, activation_kind Pooler = activation_kind::tanh>
struct sequence_classification : policy {
  static_assert(Classes > 0, "linnet::head::sequence_classification: at least one class");
  static constexpr bool per_sequence = true;
  static constexpr index classes = Classes;
  static constexpr activation_kind activation = Pooler;
  static constexpr std::string_view place = "pooler";
  static std::string name() {
    return "sequence_classification " + std::to_string(Classes) +
           (Pooler == activation_kind::tanh   ? " tanh"
            : Pooler == activation_kind::relu ? " relu"
            : Pooler == activation_kind::gelu ? " gelu"
            : Pooler == activation_kind::silu ? " silu"
                                              : " gelu_tanh");
  }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = activated_linear<D, D, Pooler, Bias, false>;
};

/// One of `Classes` labels for each token: a linear map of the hidden states.
template <index Classes>
struct token_classification : policy {
  static_assert(Classes > 0, "linnet::head::token_classification: at least one class");
  static constexpr index classes = Classes;
  static std::string name() { return "token_classification " + std::to_string(Classes); }
  template <index D, index Width, class Norm, real Eps, activation_kind A, bool Bias>
  using reader = linnet::detail::no_reader<D>;
};

}  // namespace head

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

template <encoder_shape Shape, class Policies>
struct encoder_model;

namespace detail {

/// Words for the first rule that an encoder's policies or shape break; true where they keep all.
template <encoder_shape S, class... Ps>
constexpr bool encoder_fits() {
  using Attention = pick<attention::policy, attention::full, Ps...>;
  using Position = pick<position::policy, position::learned, Ps...>;
  using Sharing = pick<sharing::policy, sharing::none, Ps...>;
  if constexpr (!((known_policy<Ps> || std::is_base_of_v<norm_placement::policy, Ps> ||
                   std::is_base_of_v<head::policy, Ps>)&&...))
    static_assert(never<Ps...>,
                  "linnet::encoder<shape, policies...>: an argument is not a policy; derive your "
                  "own from ffn::policy, attention::policy or norm::policy");
  else if constexpr (twice<norm_placement::policy, Ps...>)
    static_assert(never<Ps...>, "linnet::encoder: two norm_placement:: policies; give one");
  else if constexpr (twice<head::policy, Ps...>)
    static_assert(never<Ps...>, "linnet::encoder: two head:: policies; give one");
  else if constexpr ((std::is_base_of_v<kv::policy, Ps> || ...))
    static_assert(never<Ps...>,
                  "linnet::encoder: an encoder keeps no keys and values; kv:: policies are for "
                  "decoder<> and t5<>");
  else if constexpr ((std::is_base_of_v<depths::policy, Ps> || ...))
    static_assert(never<Ps...>,
                  "linnet::encoder: every token goes through every block; depths:: policies are "
                  "for decoder<>");
  else if constexpr (S.d_model <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_model, the width of the stream, must be given and "
                  "positive");
  else if constexpr (S.d_ff <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_ff, the hidden width of the feed-forward, must be "
                  "given and positive");
  else if constexpr (S.heads <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: heads, the attention heads, must be given and positive");
  else if constexpr (S.layers <= 0)
    static_assert(
        never<Ps...>,
        "linnet::encoder_shape: layers, the number of blocks, must be given and positive");
  else if constexpr (S.vocabulary <= 0)
    static_assert(
        never<Ps...>,
        "linnet::encoder_shape: vocabulary, the rows of the embedding, must be given and positive");
  else if constexpr (S.context <= 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: context, the longest sequence in tokens, must be given "
                  "and positive");
  else if constexpr (S.types < 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: types, the token types, must be 0 for none, or positive");
  else if constexpr (S.d_kv < 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_kv, the width of a head, must be positive, or 0 for "
                  "d_model / heads");
  else if constexpr (S.d_kv == 0 && S.d_model % S.heads != 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: d_model must be a multiple of heads; or give d_kv, the "
                  "width of a head");
  else if constexpr (!(S.eps > 0))
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: eps, added under the root of the norm, must be positive");
  else if constexpr (!(S.rope_theta > 0))
    static_assert(
        never<Ps...>,
        "linnet::encoder_shape: rope_theta, the base of the rotary frequencies, must be positive");
  else if constexpr (Position::pairing != rope_pairing::none && S.head_width() % 2 != 0)
    static_assert(never<Ps...>,
                  "linnet::encoder_shape: rotary positions need an even head width: d_kv, or "
                  "d_model / heads");
  else if constexpr (Position::pairing != rope_pairing::none && !Attention::rotary)
    static_assert(never<Ps...>,
                  "linnet::encoder: this kind of mixing has no rotary positions; take "
                  "position::learned, sinusoidal or none");
  else if constexpr (!Attention::bidirectional)
    static_assert(never<Ps...>,
                  "linnet::encoder: this kind of attention sees no later tokens; it fits decoders");
  else if constexpr (Attention::takes_prefix)
    static_assert(never<Ps...>,
                  "linnet::encoder: all tokens see each other already; attention::prefix is for "
                  "decoders");
  else if constexpr (S.layers % Sharing::repeats != 0)
    static_assert(never<Ps...>,
                  "linnet::sharing::repeat<n>: layers, the number of blocks, must be a multiple of "
                  "n");
  else if constexpr (!Sharing::projections.plain() && !Attention::supports_low_rank)
    static_assert(never<Ps...>,
                  "linnet::sharing::lora: this kind of attention's maps take no delta; those of "
                  "full and sliding_window do");
  else
    return true;
  return false;
}
/// The fault of the feed-forward of an encoder that fits otherwise.
template <encoder_shape S, class... Ps>
constexpr ffn_fault encoder_ffn_fault() {
  if constexpr (encoder_fits<S, Ps...>())
    return fault_of_ffn<pick<ffn::policy, ffn::gelu, Ps...>, S.d_model, S.d_ff,
                        std::is_same_v<pick<bias::policy, bias::all, Ps...>, bias::all>,
                        pick<sharing::policy, sharing::none, Ps...>::projections>();
  else
    return ffn_fault::none;
}
/// The encoder of a list of policies that fit.
template <bool Fits, encoder_shape Shape, class... Ps>
struct make_encoder {
  using type = encoder_model<
      Shape,
      policy_set<
          pick<ffn::policy, ffn::gelu, Ps...>, pick<attention::policy, attention::full, Ps...>,
          pick<norm::policy, norm::layer_norm, Ps...>,
          pick<norm_placement::policy, norm_placement::post, Ps...>,
          pick<position::policy, position::learned, Ps...>, pick<tie::policy, tie::tied, Ps...>,
          pick<bias::policy, bias::all, Ps...>, typename pick_model_storage<Ps...>::type,
          pick<sharing::policy, sharing::none, Ps...>,
          pick<embedding::policy, embedding::full, Ps...>,
          pick<head::policy, head::masked_lm, Ps...>>>;
};
/// Stands in for an encoder that was refused, so that nothing is said of it again.
template <encoder_shape Shape, class... Ps>
struct make_encoder<false, Shape, Ps...>
    : make_encoder<
          true,
          encoder_shape{
              .d_model = 2, .d_ff = 1, .heads = 1, .layers = 1, .vocabulary = 1, .context = 1},
          typename pick_storage<Ps...>::stored> {};
/// The encoder of a shape and policies, or what stands in for it where they do not fit.
template <encoder_shape Shape, class... Ps>
struct checked_encoder {
  static constexpr bool fits =
      policies_fit<Ps...>() && encoder_fits<Shape, Ps...>() &&
      ffn_fits<encoder_ffn_fault<Shape, Ps...>(), pick<ffn::policy, ffn::gelu, Ps...>>();
  using type = typename make_encoder<fits, Shape, Ps...>::type;
};
/// The encoder of choices.
template <encoder_shape Shape, class Policies>
struct encoder_of;
template <encoder_shape Shape, class... Ps>
struct encoder_of<Shape, policy_set<Ps...>> : checked_encoder<Shape, Ps...> {};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Texts of an encoder's call, row-major.
struct encoder_batch {
  const token* tokens = nullptr;   ///< [batch, length], padded on the right
  const index* lengths = nullptr;  ///< [batch] valid tokens, at least 1; null when all are
  const token* labels = nullptr;   ///< [batch, length], or [batch] of a head with a label per
                                   ///< sequence; `ignored` on padding and where none counts
  index batch = 0;                 ///< sequences
  index length = 0;                ///< padded tokens per sequence
  const token* types = nullptr;    ///< [batch, length] token types; null when all are 0
};

/// An encoder's embedding and blocks: from texts to hidden states [batch * length, d].
template <encoder_shape Shape, class Policies>
struct encoder_body {
  using ffn = typename Policies::template of<linnet::ffn::policy>;
  using attention = typename Policies::template of<linnet::attention::policy>;
  using norm = typename Policies::template of<linnet::norm::policy>;
  using placement = typename Policies::template of<linnet::norm_placement::policy>;
  using position = typename Policies::template of<linnet::position::policy>;
  using sharing = typename Policies::template of<linnet::sharing::policy>;
  using embedding = typename Policies::template of<linnet::embedding::policy>;
  static constexpr bool biased =
      std::is_same_v<typename Policies::template of<linnet::bias::policy>, bias::all>;
  static constexpr bool learned = std::is_base_of_v<linnet::position::learned, position>;
  static constexpr bool sinusoidal = std::is_base_of_v<linnet::position::sinusoidal, position>;
  static constexpr bool rotary = position::pairing != rope_pairing::none;
  static constexpr bool factorised = !std::is_same_v<embedding, linnet::embedding::full>;

  static constexpr index d = Shape.d_model, context_length = Shape.context;
  /// Width of the embedding and of its norm.
  static constexpr index width = embedding::template projection<d, true>::table;
  static constexpr real eps{Shape.eps};
  static constexpr attention_shape self{.d_model = d,
                                        .heads = Shape.heads,
                                        .kv_heads = Shape.heads,
                                        .d_kv = Shape.head_width(),
                                        .bias = biased,
                                        .rope = position::pairing,
                                        .projections = sharing::projections};
  using norm_layer = typename norm::template layer<d, eps>;
  using embedding_norm = typename norm::template layer<width, eps>;
  /// The map from a factorised embedding to the stream.
  using projection = linear<width, d, biased>;
  template <class N, class Sub>
  using branch = std::conditional_t<placement::first, residual<N, Sub>, post_norm_residual<N, Sub>>;
  using block = typename detail::block_of<
      norm, ffn, named<"attention", branch<norm_layer, typename attention::template layer<self>>>>::
      template make<d, Shape.d_ff, biased, eps, sharing::projections, branch>::type;
  using blocks = typename detail::stack_of<block, std::type_identity<block>, Shape.layers, false,
                                           sharing>::type;
  using positional = detail::position_tables<position, width, self.d_kv,
                                             (std::max)(context_length, attention::min_positions),
                                             real{Shape.rope_theta}>;

  template <class Form>
  struct params {
    typename form::at<Form, linnet::storage::part::embedding>::matrix embedding{};
    [[no_unique_address]] std::conditional_t<learned, typename Form::vector, std::nullptr_t>
        positions{};
    [[no_unique_address]] std::conditional_t<(Shape.types > 0), typename Form::vector,
                                             std::nullptr_t>
        types{};
    typename embedding_norm::template params<Form> embedding_scale{};
    [[no_unique_address]] std::conditional_t<
        factorised,
        typename projection::template params<form::at<Form, linnet::storage::part::embedding>>,
        std::nullptr_t>
        widen{};
    typename blocks::template params<Form> stack{};
    [[no_unique_address]] std::conditional_t<
        placement::first, typename norm_layer::template params<Form>, std::nullptr_t>
        norm{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "embedding" / "weight", tensor_info{Shape.vocabulary, width, role::table, 1},
      p.embedding...);
    if constexpr (learned)
      f(at / "position" / "weight", tensor_info{context_length, width, role::position, 1},
        p.positions...);
    if constexpr (Shape.types > 0)
      f(at / "type" / "weight", tensor_info{Shape.types, width, role::position, 1}, p.types...);
    embedding_norm::visit(f, at / "embedding" / "norm", p.embedding_scale...);
    if constexpr (factorised) projection::visit(f, at / "embedding" / "projection", p.widen...);
    blocks::visit(f, at / "blocks", p.stack...);
    if constexpr (placement::first) norm_layer::visit(f, at / "norm", p.norm...);
  }

  /// Buffers of one call.
  template <class T>
  struct workspace {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{};
    typename embedding_norm::template cache<T> embedding_scale{};
    typename positional::template cache<T> positions{};
    T *summed = nullptr, *scaled = nullptr;  ///< [rows, width] before and after the norm
    T* embedded = nullptr;                   ///< [rows, d] that the first block reads
    T *out = nullptr, *hidden = nullptr;     ///< [rows, d] of the last block, and of the model
    T *d_summed = nullptr, *d_scaled = nullptr, *d_embedded = nullptr, *d_out = nullptr,
      *d_hidden = nullptr;  ///< gradients
    int dropout_id = 0;
  };
  /// Plans the buffers for calls up to `e`, of sequences of at most `longest` tokens.
  template <class T>
  static constexpr void plan(planner& m, const call_shape& e, index longest, workspace<T>& w) {
    const index size = e.rows() * d, narrow = e.rows() * width;
    w.dropout_id = m.dropout_ids++;
    w.positions = positional::template plan<T>(m, e, longest);
    w.summed = m.saved.take<T>(narrow);
    w.scaled = m.saved.take<T>(narrow);
    w.embedded = factorised ? m.saved.take<T>(size) : w.scaled;
    w.hidden = m.saved.take<T>(size);
    w.out = placement::first ? m.saved.take<T>(size) : w.hidden;
    if (e.training) {
      w.d_summed = m.saved.take<T>(narrow);
      w.d_scaled = m.saved.take<T>(narrow);
      w.d_embedded = factorised ? m.saved.take<T>(size) : w.d_scaled;
      w.d_hidden = m.saved.take<T>(size);
      w.d_out = placement::first ? m.saved.take<T>(size) : w.d_hidden;
    }
    if (factorised) (void)projection::template plan<T>(m, e);
    w.embedding_scale = embedding_norm::template plan<T>(m, e);
    w.norm = norm_layer::template plan<T>(m, e);
    w.stack = blocks::template plan<T>(m, e);
  }

  /// The context of a call.
  template <class T>
  static context<T> context_of(const encoder_batch& b, const ops::execution& on) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = b.batch;
    ctx.length = b.length;
    ctx.lengths = b.lengths;
    return ctx;
  }
  /// Texts -> w.hidden[batch * length, d]; those of padding mean nothing. Called by every thread.
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const encoder_batch& b, workspace<T>& w,
                      context<T>& ctx) {
    embed<T, S>(p, b, w, ctx);
    run_layers<T, S>(p, w, ctx);
  }
  /// The first half of forward(): texts -> w.embedded[batch * length, d].
  template <class T, class S>
  static void embed(const params<form::packed<T, S>>& p, const encoder_batch& b, workspace<T>& w,
                    context<T>& ctx) {
    const index rows = ctx.rows();
    ops::embed(ctx.on, rows, width, b.tokens, p.embedding, w.summed);
    ctx.on.threads.each(rows, [&](index i) {
      T* const x = w.summed + i * width;
      const auto add = [&](const T* table, index at) {
        for (index j = 0; j < width; ++j) x[j] += table[at * width + j];
      };
      if constexpr (Shape.types > 0) add(p.types, b.types ? b.types[i] : 0);
      if constexpr (learned) add(p.positions, i % ctx.length);
      if constexpr (sinusoidal) add(w.positions.table, i % ctx.length);
    });
    embedding_norm::template forward<T, S>(p.embedding_scale, {w.summed, rows}, {w.scaled, rows},
                                           w.embedding_scale, ctx);
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, width, w.scaled);
    if constexpr (factorised) {
      without_cache::cache<T> none;
      projection::template forward<T>(p.widen, {w.scaled, rows}, {w.embedded, rows}, none, ctx);
    }
  }
  /// The second half of forward(): w.embedded -> w.hidden.
  template <class T, class S>
  static void run_layers(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    const index rows = ctx.rows();
    positional::angles(w.positions, ctx);
    blocks::template forward<T, S>(p.stack, {w.embedded, rows}, {w.out, rows}, w.stack, ctx);
    if constexpr (placement::first)
      norm_layer::template forward<T, S>(p.norm, {w.out, rows}, {w.hidden, rows}, w.norm, ctx);
  }
  /// Gradient of w.hidden, in w.d_hidden (overwritten): ADDS the gradients of all parameters but
  /// the head's. After forward() of the same batch, called by every thread.
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const encoder_batch& b, workspace<T>& w, context<T>& ctx) {
    const index rows = ctx.rows();
    if constexpr (placement::first) {
      ops::fill(ctx.on, rows * d, T(0), w.d_out);
      norm_layer::template backward<T, S>(p.norm, dp.norm, {w.out, rows}, {w.d_hidden, rows},
                                          {w.d_out, rows}, w.norm, ctx);
    }
    ops::fill(ctx.on, rows * d, T(0), w.d_embedded);
    blocks::template backward<T, S>(p.stack, dp.stack, {w.embedded, rows}, {w.d_out, rows},
                                    {w.d_embedded, rows}, w.stack, ctx);
    if constexpr (factorised) {
      without_cache::cache<T> none;
      ops::fill(ctx.on, rows * width, T(0), w.d_scaled);
      projection::template backward<T>(p.widen, dp.widen, {w.scaled, rows}, {w.d_embedded, rows},
                                       {w.d_scaled, rows}, none, ctx);
    }
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, width, w.d_scaled);
    ops::fill(ctx.on, rows * width, T(0), w.d_summed);
    embedding_norm::template backward<T, S>(p.embedding_scale, dp.embedding_scale, {w.summed, rows},
                                            {w.d_scaled, rows}, {w.d_summed, rows},
                                            w.embedding_scale, ctx);
    ops::embed_backward(ctx.on, rows, width, b.tokens, w.d_summed, dp.embedding);
    if constexpr (learned)
      ops::position_backward(ctx.on, ctx.batch, ctx.length, width, w.d_summed, dp.positions);
    if constexpr (Shape.types > 0) {
      if (b.types)
        ops::embed_backward(ctx.on, rows, width, b.types, w.d_summed, dp.types);
      else
        ops::bias_gradient(ctx.on, rows, width, w.d_summed, dp.types);
    }
  }
};

LINNET_NAMESPACE_END
/// @file
/// Objectives: how the loss of a batch is computed, such as by cross-entropy or distillation.

LINNET_NAMESPACE_BEGIN

/// An objective for trainers and evaluators of model `M`: `cross_entropy_objective`,
/// `distillation`, `cached_logits_reader`, `cached_logits_writer` or your own.
/// - `accepts<M>(batch, limits)` says before anything is computed whether it serves this batch
///   within the caller's limits; if not, the call computes nothing and gives NaN nats.
/// - `token_loss(execution, batch)` is then called by every thread and returns the criterion of the
///   loss, see ops::label_cross_entropy.
template <class L, class M>
concept objective = requires(L& l, const typename M::batch& b, const limits& m,
                             const ops::execution& on) {
  { l.template accepts<M>(b, m) } -> std::same_as<bool>;
  l.token_loss(on, b);
};

/// The default objective: cross-entropy with the labels of the batch.
struct cross_entropy_objective {
  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    return true;
  }
  template <class Batch>
  static ops::label_cross_entropy token_loss(const ops::execution&, const Batch&) {
    return {};
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// An encoder as a type; spelled encoder<shape, policies...>.
template <encoder_shape Shape, class Policies>
struct encoder_model : model_defaults, policy_variants<encoder_model<Shape, Policies>> {
 private:
  using body = encoder_body<Shape, Policies>;
  using Head = typename Policies::template of<linnet::head::policy>;

 public:
  static constexpr encoder_shape shape = Shape;
  static constexpr bool tied =
      std::is_same_v<typename Policies::template of<linnet::tie::policy>, tie::tied>;
  static constexpr bool biased = body::biased, rotary = body::rotary, factorised = body::factorised;
  /// Whether the head predicts tokens of the vocabulary.
  static constexpr bool masked = Head::trains && Head::classes == 0;
  // See model_defaults.
  static constexpr bool supports_cache = false,
                        label_per_sequence = Head::trains && Head::per_sequence;
  using ffn = typename body::ffn;
  using attention = typename body::attention;
  using norm = typename body::norm;
  using placement = typename body::placement;
  using position = typename body::position;
  using sharing = typename body::sharing;
  using embedding = typename body::embedding;
  using head = Head;
  using storage = typename Policies::template of<linnet::storage::policy>;
  using batch = encoder_batch;
  /// This model with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with =
      typename detail::encoder_of<Shape, typename Policies::template with<Slot, Other>>::type;
  /// This model with another head.
  template <class Other>
  using with_head = with<linnet::head::policy, Other>;

  static constexpr index d = Shape.d_model, width = body::width, context_length = Shape.context;
  /// Logits of one label.
  static constexpr index vocabulary = Head::classes > 0 ? Head::classes : Shape.vocabulary;
  /// The layer between the hidden states and the logits.
  using reader = typename Head::template reader<d, width, norm, body::eps,
                                                detail::ffn_activation<ffn>(), biased>;
  static constexpr bool reads = !std::is_same_v<reader, detail::no_reader<d>>;

  /// Storage of what the head reads, in a model stored as `S`.
  template <class S>
  using head_storage = linnet::storage::at<S, masked && tied ? linnet::storage::part::embedding
                                                             : linnet::storage::part::head>;

  template <class Form>
  struct params : body::template params<Form> {
    [[no_unique_address]] typename reader::template params<Form> read{};
    [[no_unique_address]] std::conditional_t<
        (Head::classes > 0 || (masked && !tied)),
        typename form::at<Form, linnet::storage::part::head>::matrix, std::nullptr_t>
        table{};
    [[no_unique_address]] std::conditional_t<Head::trains && biased, typename Form::vector,
                                             std::nullptr_t>
        bias{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    // The usual small normal values instead of fan-in scaling.
    const auto normal = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
      if (info.deviation > 0) info.deviation = initial_deviation;
      f(where, info, leaf...);
    };
    body::visit(normal, at, p...);
    reader::visit(normal, at / Head::place, p.read...);
    constexpr std::string_view last = masked ? "head" : "classifier";
    if constexpr (Head::classes > 0 || (masked && !tied))
      normal(at / last / "weight", tensor_info{vocabulary, read_width, role::matrix, 1},
             p.table...);
    if constexpr (Head::trains && biased)
      f(at / last / "bias", tensor_info{1, vocabulary, role::bias, 0}, p.bias...);
  }
  static constexpr double initial_deviation = 0.02;
  /// Width of what the logits are computed from.
  static constexpr index read_width = reader::out;

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<encoder_model>(); }
  /// Parameters outside the embedding, the tables of positions and types, and an untied head.
  static constexpr index non_embedding() {
    return parameters() -
           width * (Shape.vocabulary + (body::learned ? context_length : 0) + Shape.types) -
           (factorised ? count_parameters<typename body::projection>() : 0) -
           (masked && !tied ? Shape.vocabulary * width : 0);
  }
  /// Floating-point operations of one forward call over [batch, length] tokens, without the head.
  static constexpr index flops(index batch_size, index length) {
    const call_shape e = call_shape_for({.batch = batch_size}, purpose::scoring, length);
    return body::blocks::flops(e) + (factorised ? body::projection::flops(e) : 0);
  }

  /// Buffers of one embedder, evaluator or trainer.
  template <class T>
  struct workspace : body::template workspace<T> {
    typename reader::template cache<T> read_cache{};
    T *chosen = nullptr, *read = nullptr;  ///< rows that the head reads, and what it makes of them
    T *d_chosen = nullptr, *d_read = nullptr;  ///< gradients
    T* chunk = nullptr;                        ///< logits of some rows
    double* losses = nullptr;                  ///< [rows]
    index* places = nullptr;                   ///< [rows] of the rows that the head reads
    token* labels = nullptr;                   ///< [rows] their labels
    int head_dropout_id = 0;
  };
  /// The longest sequence for these limits: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : context_length;
  }
  /// Plans the buffers for calls up to these limits; for decoding, which an embedder's calls are,
  /// none of logits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    call_shape e = call_shape_for(l, purpose::scoring, longest(l));
    e.training = use == purpose::training;
    call_shape read = e;
    if (Head::per_sequence) read.length = 1;
    const bool scores = use != purpose::decoding;
    workspace<T> w;
    w.head_dropout_id = m.dropout_ids++;
    body::plan(m, e, longest(l), w);
    if (reads && (scores || Head::per_sequence)) {
      w.places = m.saved.take<index>(read.rows());
      w.chosen = m.saved.take<T>(read.rows() * d);
      w.read = m.saved.take<T>(read.rows() * read_width);
      if (e.training) {
        w.d_chosen = m.saved.take<T>(read.rows() * d);
        w.d_read = m.saved.take<T>(read.rows() * read_width);
      }
    } else {
      w.read = w.hidden;
      w.d_read = w.d_hidden;
    }
    if (Head::trains && scores) {
      w.labels = m.saved.take<token>(read.rows());
      w.losses = m.saved.take<double>(read.rows());
      w.chunk = m.saved.take<T>(ops::head_rows(vocabulary) * vocabulary);
      m.product(ops::head_rows(vocabulary), read_width, vocabulary, e);
    }
    w.read_cache = reader::template plan<T>(m, read);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    body::positional::prepare(w.positions, longest(l));
  }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_encoder<encoder_model>(f);
  }
  /// Nothing is cached, and a learned table of positions has an end, as has linformer's.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (l.kv_blocks > 0)
      return {"limits.kv_blocks", "0, as an encoder keeps no keys and values", l.kv_blocks};
    if (body::learned && longest(l) > context_length)
      return {"limits.target", "the model's context", l.target, context_length};
    if (attention::longest > 0 && longest(l) > attention::longest)
      return {"limits.target", "what the attention reads", longest(l), attention::longest};
    return {};
  }

  /// Why tokens, lengths and types do not fit the limits or the model; labels are not looked at.
  static refusal refuses_texts(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    c.length(b.length, longest(l), refusal::over_target, b.lengths);
    c.tokens(b.tokens, b.length, Shape.vocabulary);
    c.no(c.fits() && b.types && !tokens_fit(b.types, b.batch * b.length, Shape.types, false),
         refusal::type_outside);
    return c.why;
  }
  /// Why a batch does not fit the limits or the model.
  static refusal refuses(const batch& b, const limits& l) {
    if (const refusal why = refuses_texts(b, l); why != refusal::none) return why;
    batch_check c(b.batch, l.batch);
    c.labels(b.labels, label_per_sequence ? 1 : b.length, vocabulary);
    if (!label_per_sequence && b.lengths)
      for (index i = 0; c.fits() && i < b.batch; ++i)
        for (index t = b.lengths[i]; t < b.length; ++t)
          c.no(b.labels[i * b.length + t] != ignored, refusal::label_on_padding);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// The context of a call, and what runs the model without its head; see encoder_body.
  template <class T>
  static context<T> context_of(const batch& b, const ops::execution& on) {
    return body::template context_of<T>(b, on);
  }
  template <class T, class S>
  static void embed(const params<form::packed<T, S>>& p, const batch& b, workspace<T>& w,
                    context<T>& ctx) {
    body::template embed<T, S>(p, b, w, ctx);
  }
  template <class T, class S>
  static void run_layers(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    body::template run_layers<T, S>(p, w, ctx);
  }
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const batch& b, workspace<T>& w,
                      context<T>& ctx) {
    body::template forward<T, S>(p, b, w, ctx);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const batch& b, workspace<T>& w, context<T>& ctx) {
    body::template backward<T, S>(p, dp, b, w, ctx);
  }
  /// Runs the pooler on the first token of each sequence, after forward():
  /// w.read[batch, d]. Called by every thread.
  template <class T, class S>
  static void pool(const params<form::packed<T, S>>& p, workspace<T>& w,
                   context<T>& ctx) requires(reads&& Head::per_sequence) {
    ctx.on.threads.once([&] {
      for (index i = 0; i < ctx.batch; ++i) w.places[i] = i * ctx.length;
    });
    read_rows<T, S>(p, ctx.batch, w, ctx);
  }

  /// The states of a batch that the head reads, one row for each label, and the head: arguments of
  /// ops::head_loss() and ops::head_logits(). Called by every thread.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w,
                                                 const ops::execution& on) requires(Head::trains) {
    context<T> ctx = context_of<T>(b, on);
    forward<T, S>(p, b, w, ctx);
    const index rows = choose(b, true, w, ctx);
    read_rows<T, S>(p, rows, w, ctx);
    return head_of<T, S>(p, rows, w);
  }
  /// Summed loss of a batch by a criterion (see ops::label_cross_entropy), the cross-entropy. With
  /// `dp`, also adds the gradient of that sum. `call.logits` receives a row for each label. A
  /// masked model computes only the rows that have a label where neither logits nor another
  /// criterion asks for all. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {},
                       const Criterion& criterion = {}) requires(Head::trains) {
    context<T> ctx = context_of<T>(b, on);
    ctx.dropout = call.dropout;
    forward<T, S>(p, b, w, ctx);
    constexpr bool plain = std::is_same_v<Criterion, ops::label_cross_entropy>;
    const index rows = choose(b, !plain || call.logits != nullptr, w, ctx);
    if (rows == 0) return {};
    read_rows<T, S>(p, rows, w, ctx);
    // Classifiers drop some of what they read, as BERT does.
    if (!masked) drop_read(rows, w.read, w, ctx);
    ops::head_call<T, head_storage<S>> h = head_of<T, S>(p, rows, w);
    h.logits = call.logits;
    h.z_loss = call.z_loss;
    if constexpr (ops::trainable<S>)
      if (dp) {
        ops::fill(on, ctx.rows() * d, T(0), w.d_hidden);
        if (reads) ops::fill(on, rows * read_width, T(0), w.d_read);
        h.dy = w.d_read;
        h.d_table = head_gradient<T>(*dp);
        if constexpr (biased) h.d_bias = dp->bias;
      }
    const loss_sum sum = ops::head_loss(on, h, criterion);
    if constexpr (ops::trainable<S>)
      if (dp) {
        if (!masked) drop_read(rows, w.d_read, w, ctx);
        read_backward<T, S>(p, *dp, rows, w, ctx);
        backward<T, S>(p, *dp, b, w, ctx);
      }
    return sum;
  }

 private:
  /// Which rows the head reads, and their labels: those that have one, or `all`. Returns how many.
  template <class T>
  static index choose(const batch& b, bool all, workspace<T>& w, const context<T>& ctx) {
    const index labels = label_per_sequence ? ctx.batch : ctx.rows();
    all = all || !reads || label_per_sequence;
    index rows = labels;
    if (!all) rows -= std::count(b.labels, b.labels + labels, ignored);
    ctx.on.threads.once([&] {
      index n = 0;
      for (index i = 0; i < labels; ++i) {
        if (!all && b.labels[i] == ignored) continue;
        if (reads) w.places[n] = label_per_sequence ? i * ctx.length : i;
        w.labels[n++] = b.labels[i];
      }
    });
    return rows;
  }
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> head_of(const params<form::packed<T, S>>& p, index rows,
                                                    const workspace<T>& w) {
    ops::head_call<T, head_storage<S>> h{
        rows, read_width, vocabulary, w.read,  head_matrix<T, S>(p),
        T(1), w.labels,   w.chunk,    w.losses};
    if constexpr (biased) h.bias = p.bias;
    return h;
  }
  template <class T, class S>
  static const ops::packed_matrix<T, head_storage<S>>& head_matrix(
      const params<form::packed<T, S>>& p) {
    if constexpr (masked && tied)
      return p.embedding;
    else
      return p.table;
  }
  template <class T>
  static T* head_gradient(params<form::gradient<T>>& dp) {
    if constexpr (masked && tied)
      return dp.embedding;
    else
      return dp.table;
  }
  /// Dropout of x[rows, read_width], in place; also its own derivative.
  template <class T>
  static void drop_read(index rows, T* x, const workspace<T>& w, const context<T>& ctx) {
    ops::dropout(ctx.on, ctx.dropout, w.head_dropout_id, ctx.batch, rows / ctx.batch, read_width,
                 x);
  }
  /// The context of the head's layer: rows that are no sequences.
  template <class T>
  static context<T> read_context(index rows, const context<T>& ctx) {
    context<T> one;
    one.on = ctx.on;
    one.batch = rows;
    one.length = 1;
    return one;
  }
  /// Rows w.places of w.hidden -> w.read
  template <class T, class S>
  static void read_rows(const params<form::packed<T, S>>& p, index rows, workspace<T>& w,
                        const context<T>& ctx) {
    if constexpr (reads) {
      context<T> one = read_context(rows, ctx);
      ctx.on.threads.each(
          rows, [&](index i) { std::copy_n(w.hidden + w.places[i] * d, d, w.chosen + i * d); });
      reader::template forward<T, S>(p.read, {w.chosen, rows}, {w.read, rows}, w.read_cache, one);
    }
  }
  template <class T, class S>
  static void read_backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                            index rows, workspace<T>& w, const context<T>& ctx) {
    if constexpr (reads) {
      context<T> one = read_context(rows, ctx);
      ops::fill(ctx.on, rows * d, T(0), w.d_chosen);
      reader::template backward<T, S>(p.read, dp.read, {w.chosen, rows}, {w.d_read, rows},
                                      {w.d_chosen, rows}, w.read_cache, one);
      ctx.on.threads.each(
          rows, [&](index i) { std::copy_n(w.d_chosen + i * d, d, w.d_hidden + w.places[i] * d); });
    }
  }
};

namespace detail {
template <class M>
inline constexpr bool is_encoder = false;
template <encoder_shape Shape, class Policies>
inline constexpr bool is_encoder<encoder_model<Shape, Policies>> = true;
}  // namespace detail

/// An encoder that stands alone: numbers come from `Shape`, policies follow in any order. Defaults
/// are BERT's: exact GELU, full attention, LayerNorm behind each residual sum, learned positions
/// and biases. Nothing is shared, weights are f32, and a tied head predicts masked tokens.
template <encoder_shape Shape, class... Policies>
using encoder = typename detail::checked_encoder<Shape, Policies...>::type;

LINNET_NAMESPACE_END
/// @file
/// One vector of a sequence's rows: their mean, their first or their maximum, and its length made
/// one.

LINNET_NAMESPACE_BEGIN

/// How the hidden states of a sequence become one vector (Reimers and Gurevych 2019, section 3).
enum class sentence_pooling {
  mean,   ///< of all valid tokens
  first,  ///< the first token's, "CLS"
  max     ///< of all valid tokens, column by column
};

namespace ops {

/// Sequences of rows that are pooled.
struct pooled_rows {
  index batch = 0, length = 0;     ///< sequences, and their padded rows
  const index* lengths = nullptr;  ///< [batch] valid rows of each, or null for all
  index d = 0;                     ///< width of a row
};

/// y[batch, d] of x[batch, length, d].
template <class T>
void pool_rows(const execution& on, sentence_pooling how, const pooled_rows& all, const T* x,
               T* y) {
  const index d = all.d;
  on.threads.each(all.batch, [&](index b) {
    const T* const rows = x + b * all.length * d;
    T* const to = y + b * d;
    const index n = all.lengths ? all.lengths[b] : all.length;
    std::copy_n(rows, d, to);
    if (how == sentence_pooling::first) return;
    for (index t = 1; t < n; ++t)
      for (index j = 0; j < d; ++j) {
        const T v = rows[t * d + j];
        if (how == sentence_pooling::mean)
          to[j] += v;
        else
          to[j] = to[j] > v ? to[j] : v;
      }
    if (how == sentence_pooling::mean)
      for (index j = 0; j < d; ++j) to[j] /= static_cast<T>(n);
  });
}
/// Adds the gradient of pool_rows() to dx[batch, length, d]. That of a maximum goes to the first
/// row that has it.
template <class T>
void pool_rows_backward(const execution& on, sentence_pooling how, const pooled_rows& all,
                        const T* x, const T* dy, T* dx) {
  const index d = all.d;
  on.threads.each(all.batch, [&](index b) {
    const T* const rows = x + b * all.length * d;
    const T* const from = dy + b * d;
    T* const to = dx + b * all.length * d;
    const index n = all.lengths ? all.lengths[b] : all.length;
    for (index j = 0; j < d; ++j) {
      if (how == sentence_pooling::mean) {
        for (index t = 0; t < n; ++t) to[t * d + j] += from[j] / static_cast<T>(n);
        continue;
      }
      index best = 0;
      if (how == sentence_pooling::max)
        for (index t = 1; t < n; ++t)
          if (rows[t * d + j] > rows[best * d + j]) best = t;
      to[best * d + j] += from[j];
    }
  });
}

namespace detail {
/// The length of a row, at least 1e-12.
template <class T>
T row_length(index d, const T* x) {
  T sum = 0;
  for (index j = 0; j < d; ++j) sum += x[j] * x[j];
  return (std::max)(std::sqrt(sum), T(1e-12));
}
}  // namespace detail

/// x[rows, d] /= the length of each row, at least 1e-12; keeps them in lengths[rows].
template <class T>
void unit_length(const execution& on, index rows, index d, T* x, T* lengths) {
  on.threads.each(rows, [&](index i) {
    lengths[i] = detail::row_length(d, x + i * d);
    for (index j = 0; j < d; ++j) x[i * d + j] /= lengths[i];
  });
}
/// dx[rows, d]: the gradient of unit_length() in place of that of its output y.
template <class T>
void unit_length_backward(const execution& on, index rows, index d, const T* y, const T* lengths,
                          T* dx) {
  on.threads.each(rows, [&](index i) {
    T along = 0;
    for (index j = 0; j < d; ++j) along += y[i * d + j] * dx[i * d + j];
    for (index j = 0; j < d; ++j)
      dx[i * d + j] = (dx[i * d + j] - along * y[i * d + j]) / lengths[i];
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Computes the hidden states of encoder `M` from packed weights in any storage type, whatever its
/// head. Memory is planned once; calls allocate nothing. Labels of batches are not read.
template <class M, class T = float>
class embedder {
  static_assert(detail::is_encoder<M>, "linnet::embedder: the model must be an encoder<>");
  using S = storage_of<M, T>;

 public:
  using model = M;
  using batch = typename M::batch;
  static constexpr index width = M::d;  ///< of a vector

  /// Exact bytes that an embedder with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      return add_sizes(detail::plan_for<M, T>(some, purpose::decoding).total(),
                       add_sizes(round_up(some.batch * width * index{sizeof(T)}, alignment),
                                 some.batch * index{sizeof(T)}));
    });
  }
  /// Opens an embedder for batches up to these limits; it allocates footprint(l) bytes, once. `p`
  /// must outlive it. Errors: errc::invalid for limits that make no sense for the model, by the
  /// name of the field. Also errc::out_of_memory, and the error of `p` if it is not valid().
  static result<embedder> open(const packed<M, T>& p, const limits& l) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("embedder::open", l, footprint(l)); !fit)
      return fit.error();
    if (!p.valid()) return p.error();
    embedder e(p, l);
    if (!e.memory_.data()) return detail::out_of_memory("embedder::open", footprint(l));
    const index planned = detail::plan_for<M, T>(l, purpose::decoding).total();
    auto* const rest = static_cast<std::byte*>(e.memory_.data()) + planned;
    e.work_ = detail::place_workspace<M, T>(l, purpose::decoding, e.memory_.data());
    e.vectors_ = reinterpret_cast<T*>(rest);
    e.lengths_ =
        e.vectors_ + round_up(l.batch * width * index{sizeof(T)}, alignment) / index{sizeof(T)};
    return e;
  }
  LINNET_OR_OUT_OF_MEMORY("embedder::open")
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W>
  requires detail::unfit_weights<W, M, T>
  static result<embedder> open(W&&, const limits&) { return detail::refuse_weights<W, M, T>(); }

  /// One vector [batch, width] of each text, of length 1 unless `normalize` is false. Valid until
  /// the next call; empty, and nothing done, for a batch that does not fit.
  std::span<const T> embed(const batch& b, sentence_pooling how = sentence_pooling::mean,
                           bool normalize = true) {
    if (!takes(b)) return {};
    run_model(b, [&](const ops::execution& on, context<T>& ctx) {
      M::template forward<T, S>(packed_->tree(), b, work_.work, ctx);
      ops::pool_rows(on, how, {b.batch, b.length, b.lengths, width}, work_.work.hidden, vectors_);
      if (normalize) ops::unit_length(on, b.batch, width, vectors_, lengths_);
    });
    return {vectors_, static_cast<std::size_t>(b.batch * width)};
  }
  /// The hidden states [batch, length, width] of the last layer; those of padding mean nothing.
  /// Valid until the next call; empty, and nothing done, for a batch that does not fit.
  std::span<const T> hidden(const batch& b) {
    return hidden(b, [](index, std::span<const T>) {});
  }
  /// Also calls f(layer, states) with the hidden states [batch, length, width] of every layer in
  /// turn: 0 is the embedding, `layers` the last. They are valid during the call.
  template <class F>
  std::span<const T> hidden(const batch& b, F&& f) {
    if (!takes(b)) return {};
    const auto states = [&](const T* x) {
      return std::span<const T>(x, static_cast<std::size_t>(b.batch * b.length * width));
    };
    auto& w = work_.work;
    run_model(b, [&](const ops::execution& on, context<T>& ctx) {
      M::template embed<T, S>(packed_->tree(), b, w, ctx);
      on.threads.once([&] { f(index{0}, states(w.embedded)); });
      const auto show = [&](index layer, const T* x, T*) {
        on.threads.once([&] { f(layer + 1, states(x)); });
      };
      ctx.stack.hook = layer_hook<T>::of(show);
      M::template run_layers<T, S>(packed_->tree(), w, ctx);
      on.threads.once([&] { f(M::shape.layers, states(w.hidden)); });
    });
    return states(w.hidden);
  }
  /// BERT's pooled vectors [batch, width], of models with a pooler: tanh(W h + b) of the first
  /// token. Valid until the next call; empty, and nothing done, for a batch that does not fit.
  std::span<const T> pooled(const batch& b) requires(M::reads&& M::head::per_sequence) {
    if (!takes(b)) return {};
    run_model(b, [&](const ops::execution&, context<T>& ctx) {
      M::template forward<T, S>(packed_->tree(), b, work_.work, ctx);
      M::template pool<T, S>(packed_->tree(), work_.work, ctx);
    });
    return {work_.work.read, static_cast<std::size_t>(b.batch * width)};
  }
  /// Why the last call gave nothing: one of the texts of to_string(refusal), empty after a call
  /// that did what was asked. Static text, zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(limits_.batch < 1 ? refusal::not_valid : reason_);
  }

 private:
  embedder(const packed<M, T>& p, const limits& l)
      : packed_(&p), limits_(l), memory_(footprint(l)) {}

  bool takes(const batch& b) {
    reason_ = M::refuses_texts(b, limits_);
    return reason_ == refusal::none;
  }
  template <class F>
  void run_model(const batch& b, F&& f) {
    run(limits_, work_.converted, M::flops(b.batch, b.length), [&](const ops::execution& on) {
      context<T> ctx = M::template context_of<T>(b, on);
      f(on, ctx);
    });
  }

  const packed<M, T>* packed_;
  detail::owned_limits limits_;
  memory_block memory_;
  detail::placed_workspace<M, T> work_{};
  T *vectors_ = nullptr, *lengths_ = nullptr;  ///< [batch, width] and [batch]
  refusal reason_ = refusal::none;
};

LINNET_NAMESPACE_END
/// @file
/// Samplers: greedy choice, or drawing with temperature, top-k, top-p, min-p and a repetition
/// penalty. Hooks may change the logits first.

#include <numeric>

/// @file
/// Ranks of weights from the largest down, found without sorting.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Index of a token in logits.
inline std::size_t slot(token t) { return static_cast<std::size_t>(t); }

/// Writes into `room` the ids of the weights in [least, most], in rising order, and returns their
/// number. Of weights equal to `least` only ids up to `last` count. Gives up, and returns the
/// number of all weights, where they are more than `enough`.
template <class T>
std::size_t gather(std::span<const T> weights, std::span<token> room, T least, T most,
                   std::size_t last, std::size_t enough) {
  constexpr std::size_t block = 64;  // most of them have none
  std::size_t count = 0;
  for (std::size_t at = 0; at < weights.size(); at += block) {
    const std::size_t end = (std::min)(at + block, weights.size());
    unsigned any = 0;
    for (std::size_t i = at; i < end; ++i)
      any |= static_cast<unsigned>(weights[i] >= least) & static_cast<unsigned>(weights[i] <= most);
    for (std::size_t i = at; any != 0 && i < end; ++i) {
      const T w = weights[i];
      room[count] = static_cast<token>(i);
      count += static_cast<std::size_t>(w <= most) &
               (static_cast<std::size_t>(w > least) |
                (static_cast<std::size_t>(w == least) & static_cast<std::size_t>(i <= last)));
    }
    if (count > enough) return weights.size();
  }
  return count;
}

/// A token's rank from the largest weight down, ties by rising id, and the running sum up to it.
struct ranked {
  token id;
  double sum;
};
/// The first token in that order at which `reached(sum)` holds, where each token adds
/// `measure(weight)`. If there is none, the last token that adds anything. Weights are in [0, 1].
/// Looks at the first `count` ids in `room`, which it overwrites, or at all if they are as many as
/// the weights. A radix select over the weights' bits: nothing is sorted.
template <class T, class Measure, class Reached>
ranked rank(std::span<const T> weights, std::span<token> room, std::size_t count, Measure&& measure,
            Reached&& reached) {
  using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const auto key = [](T weight) {  // rises with the weight
    bits b = 0;
    __builtin_memcpy(&b, &weight, sizeof b);
    return b;
  };
  const auto weight_of = [](bits b) {
    T weight = 0;
    __builtin_memcpy(&weight, &b, sizeof b);
    return weight;
  };
  constexpr int digit = 10;
  double sums[2][1 << digit];  // two chains of additions, for tokens in a row that add here
  double sum = 0;
  bool all = count == weights.size();
  for (bits high = key(T(1)), low = 0;;) {  // of the ids that are left
    const int shift = (std::max)(0, static_cast<int>(std::bit_width(high - low)) - digit);
    const auto bucket = [&](T weight) { return (high - key(weight)) >> shift; };
    const auto buckets = static_cast<std::size_t>((high - low) >> shift) + 1;
    for (auto& chain : sums) std::fill_n(chain, buckets, 0.0);
    for (std::size_t i = 0; i < count; ++i) {
      const T weight = all ? weights[i] : weights[slot(room[i])];
      sums[i % 2][bucket(weight)] += measure(weight);
    }
    bits chosen = 0;
    double before = sum;
    for (std::size_t b = 0; b < buckets; ++b) {
      const double more = sums[0][b] + sums[1][b];
      if (!(more > 0)) continue;
      chosen = static_cast<bits>(b), before = sum;
      if (reached(sum + more)) break;
      sum += more;
    }
    sum = before;
    high -= chosen << shift;
    low = (std::max)(low, high - (std::min)(high, (bits{1} << shift) - 1));
    const T least = weight_of(low), most = weight_of(high);
    const auto end = room.begin() + static_cast<index>(count);
    if (all)
      count = gather(weights, room, least, most, count, count);
    else
      count = static_cast<std::size_t>(std::remove_if(room.begin(), end,
                                                      [&](token t) {
                                                        const T w = weights[slot(t)];
                                                        return w < least || w > most;
                                                      }) -
                                       room.begin());
    if (low == high || count == 1) break;
    all = false;
  }
  std::size_t i = 0;
  for (;; ++i) {  // those that are left are equal
    sum += measure(weights[slot(room[i])]);
    if (i + 1 == count || reached(sum)) return {room[i], sum};
  }
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A sampler's answer, if it is one of `count` tokens, else `no_token`.
inline token one_of(std::size_t count, token t) { return t >= 0 && slot(t) < count ? t : no_token; }
/// Calls a sampler with as much as it wants to know.
template <class Sampler, class T>
token choose_token(Sampler& choose, std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Sampler&, std::span<T>, std::span<token>,
                                    std::span<const token>>)
    return one_of(logits.size(), choose(logits, scratch, so_far));
  else
    return one_of(logits.size(), choose(logits, scratch));
}

/// Calls a hook with one argument or two, as it takes them.
template <class Hook, class T>
void apply_hook(Hook& hook, std::span<T> logits, std::span<const token> so_far) {
  if constexpr (std::is_invocable_v<Hook&, std::span<T>, std::span<const token>>)
    hook(logits, so_far);
  else
    hook(logits);
}

/// The most likely token, ties to the lowest id; `no_token` for logits that are empty, hold a NaN
/// or have an infinite maximum.
template <class T>
token most_likely(std::span<T> logits) {
  using scalar = std::remove_const_t<T>;
  // The first stretch that holds the maximum, then the place in it.
  constexpr std::size_t stretch = 1024;
  std::span<T> best;
  scalar most = 0;
  bool usable = !logits.empty();
  ops::execution{{}, ops::best()}.with_kernels([&](auto kernels) {
    using K = decltype(kernels);
    for (std::size_t i = 0; i < logits.size(); i += stretch) {
      const auto some = logits.subspan(i, (std::min)(stretch, logits.size() - i));
      for (const scalar x : some) usable &= !is_nan(x);
      const scalar m = K::template maximum<scalar>(std::ssize(some), some.data());
      if (i == 0 || m > most) most = m, best = some;
    }
  });
  if (!usable || !is_finite(most)) return no_token;
  return static_cast<token>(std::find(best.begin(), best.end(), most) - logits.begin());
}

/// The token that a number `u` in [0, 1) selects from weights of any sum; `no_token` if no weight
/// is above 0.
inline token draw(std::span<const double> weights, double u) {
  const double mass = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  token last = no_token;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    last = static_cast<token>(i);
    sum += weights[i];
    if (u * mass < sum) break;
  }
  return last;
}

}  // namespace detail

/// Contract of a sampler: called with logits [vocabulary], which it may overwrite, and a scratch
/// list of ids of that size, it returns a token. A third argument, if it takes one, is the tokens
/// so far, prompt included. It returns `no_token` to end generation. Write your own with the same
/// call.
///
/// Speculative decoding (generate/speculative.hpp) asks more of it: `probabilities(logits, scratch,
/// so_far, out)`, the distribution that it draws from, and its random choices as
/// `accept(probability)` and `sample(weights)`. A distribution of zeros means that there is no
/// token; `sample` then returns `no_token`.
///
/// Greedy: the most likely token; ties go to the lowest id. `no_token` where there is
/// nothing to choose from.
struct greedy {
  template <class T>
  token operator()(std::span<T> logits, std::span<token>) const {
    return detail::most_likely(logits);
  }

  /// Gives the most likely token probability 1.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token>,
                     std::span<double> out) const {
    std::fill(out.begin(), out.end(), 0.0);
    const token best = (*this)(logits, scratch);
    if (best != no_token) out[detail::slot(best)] = 1;
  }
  /// Accepts a draft only if it is certain: probability 1.
  bool accept(double probability) const { return probability >= 1; }
  /// The token with the largest weight; ties go to the lowest id.
  token sample(std::span<const double> weights) const {
    const token best = detail::most_likely(weights);
    return best != no_token && weights[detail::slot(best)] > 0 ? best : no_token;
  }
};

/// Options of `sampler`, applied in this order: repetition penalty, temperature, top-k (Fan et al.
/// 2018), top-p (Holtzman et al. 2020), min-p.
struct sampling_options {
  double temperature = 1;  ///< logits are divided by it; 0 is greedy
  index top_k = 0;         ///< keep the k most likely tokens; 0 keeps all
  double top_p = 1;        ///< keep the smallest most likely set with at least this probability
  double min_p = 0;        ///< keep tokens at least this times as likely as the most likely one
                           ///< (Nguyen et al. 2024); 0 keeps all
  double repetition_penalty = 1;  ///< positive logits of tokens so far are divided by it, others
                                  ///< multiplied (Keskar et al. 2019); 1 changes none
  std::uint64_t seed = 0;         ///< of the random numbers

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("temperature", self.temperature, detail::at_least(0, "0 is greedy"));
    f("top_k", self.top_k, detail::count(0, "0 keeps all"));
    f("top_p", self.top_p, detail::between(0, 1, "1 keeps all"));
    f("min_p", self.min_p, detail::between(0, 1, "0 keeps all"));
    f("repetition_penalty", self.repetition_penalty, detail::above(0, "1 changes none"));
  }
};

/// Draws a token from the (warped) distribution. One sampler is one sequence of random numbers.
class sampler {
 public:
  /// A sampler with options from outside. Errors: errc::invalid (one out of its range, see
  /// docs/options.md).
  static result<sampler> open(const sampling_options& how) LINNET_TRY {
    if (auto fit = detail::acceptable("sampler::open", "sampling_options", how); !fit)
      return fit.error();
    return sampler(how);
  }
  LINNET_OR_OUT_OF_MEMORY("sampler::open")
  /// A sampler with options that are in their ranges; with others it finds nothing to choose from.
  explicit sampler(const sampling_options& how)
      : settings_(how),
        random_(seed{how.seed}, stream_of("sampler")),
        usable_(detail::in_range(how)) {}

  /// Draws the token that follows `so_far`, which only the repetition penalty reads; `no_token`
  /// where there is nothing to choose from.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> order,
                   std::span<const token> so_far = {}) {
    if (order.size() < logits.size()) return no_token;
    penalize(logits, order, so_far);
    const token best = usable_ ? detail::most_likely(logits) : no_token;
    if (best == no_token || settings_.temperature <= 0) return best;
    const distribution<T> l = warp(logits, order, logits[detail::slot(best)]);
    const double u = random_.uniform() * l.mass;
    if (l.ranked > 0)
      return detail::rank(std::span<const T>(logits), order, l.ranked, itself,
                          [&](double sum) { return u < sum; })
          .id;
    double sum = 0;
    token chosen = best;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (!l.keeps(logits[i], i) || logits[i] <= 0) continue;
      chosen = static_cast<token>(i);
      sum += static_cast<double>(logits[i]);
      if (u < sum) break;
    }
    return chosen;
  }

  /// The distribution that a token is drawn from: out[vocabulary], sum 1, zero for tokens that are
  /// not kept. All zero where there is nothing to choose from. Overwrites the logits; draws
  /// nothing.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> order, std::span<const token> so_far,
                     std::span<double> out) const {
    if (order.size() < logits.size()) return std::fill(out.begin(), out.end(), 0.0);
    penalize(logits, order, so_far);
    if (usable_ && settings_.temperature <= 0)
      return greedy{}.probabilities(logits, order, so_far, out);
    std::fill(out.begin(), out.end(), 0.0);
    const token best = usable_ ? detail::most_likely(logits) : no_token;
    if (best == no_token) return;
    const distribution<T> l = warp(logits, order, logits[detail::slot(best)]);
    for (std::size_t i = 0; i < logits.size(); ++i)
      if (l.keeps(logits[i], i)) out[i] = static_cast<double>(logits[i]) / l.mass;
  }
  /// Draws true with this probability.
  bool accept(double probability) { return fine_uniform() < probability; }
  /// Draws a token with a probability in proportion to its weight.
  token sample(std::span<const double> weights) { return detail::draw(weights, fine_uniform()); }

 private:
  /// Which tokens are kept, and the sum of their weights.
  template <class T>
  struct distribution {
    double mass;
    T least = 0;             ///< heavier tokens are kept,
    std::size_t last{};      ///< of those as heavy as `least` the ones up to this id
    std::size_t ranked = 0;  ///< so many ids in `order`, among them those kept, are drawn in the
                             ///< order by weight; 0: all by id

    bool keeps(T weight, std::size_t id) const {
      return weight > least || (weight == least && id <= last);
    }
  };
  static constexpr auto itself = [](auto weight) { return static_cast<double>(weight); };

  /// Uniform in [0, 1), 53 random bits: rare tokens keep their probability.
  double fine_uniform() {
    const double high = random_.bits() >> 5, low = random_.bits() >> 6;
    return (high * 0x1p26 + low) * 0x1p-53;
  }
  /// Each token so far once; `mark` is overwritten.
  template <class T>
  void penalize(std::span<T> logits, std::span<token> mark, std::span<const token> so_far) const {
    const double by = settings_.repetition_penalty;
    if (by == 1 || so_far.empty() || !usable_) return;
    std::fill(mark.begin(), mark.end(), token{0});
    for (const token t : so_far) {
      if (detail::slot(t) >= logits.size() || mark[detail::slot(t)]++ != 0) continue;
      T& l = logits[detail::slot(t)];
      l = static_cast<T>(static_cast<double>(l) * (l > T(0) ? 1 / by : by));
    }
  }

  /// Turns logits into weights, the largest 1, and finds those that are kept. The weights' bits are
  /// the same at every instruction-set level.
  template <class T>
  distribution<T> warp(std::span<T> logits, std::span<token> order, T largest) const {
    const double by = 1 / (std::max)(settings_.temperature, 1e-300);
    for (T& l : logits)
      l = static_cast<T>((static_cast<double>(l) - static_cast<double>(largest)) * by);
    ops::execution{}.with_kernels([&](auto kernels) {
      (void)decltype(kernels)::template exp_sum<T>(std::ssize(logits), T(0), logits.data());
    });
    const std::span<const T> weights = logits;
    distribution<T> l{.mass = 0, .last = weights.size()};
    std::size_t left = weights.size();
    const auto cut = [&](token end) {  // the last that is kept
      l.least = weights[detail::slot(end)];
      l.last = detail::slot(end);
      // Those kept are the first in the order by weight, so all can be looked at instead of many.
      left = l.ranked = detail::gather(weights, order, l.least, T(1), l.last, weights.size() / 16);
    };
    if (const index k = settings_.top_k; k > 0 && k < std::ssize(weights))
      cut(detail::rank(
              weights, order, left, [](T) { return 1.0; },
              [&](double count) { return count >= static_cast<double>(k); })
              .id);
    const auto kept_mass = [&] {
      return detail::sum_in_lanes(std::ssize(weights), [&](index i) {
        const auto id = static_cast<std::size_t>(i);
        return l.keeps(weights[id], id) ? static_cast<double>(weights[id]) : 0;
      });
    };
    l.mass = l.ranked > 0 ? kept_mass() : detail::sum_in_lanes(std::ssize(weights), [&](index i) {
      return itself(weights[static_cast<std::size_t>(i)]);
    });
    if (settings_.top_p < 1) {
      const double enough = settings_.top_p * l.mass;
      const auto end =
          detail::rank(weights, order, left, itself, [&](double sum) { return sum >= enough; });
      cut(end.id);
      l.mass = end.sum;
    }
    if (settings_.min_p > static_cast<double>(l.least)) {
      l.least = static_cast<T>(settings_.min_p);
      if (static_cast<double>(l.least) < settings_.min_p) l.least = std::nextafter(l.least, T(2));
      l.last = weights.size();
      l.mass = kept_mass();
    }
    return l;
  }

  sampling_options settings_;
  random_stream random_;
  bool usable_;
};

/// A sampler behind hooks, each called with the logits, which it may change, and, if it takes a
/// second argument, the tokens so far. A token whose logit a hook makes very negative (-1e30) is
/// never chosen while others are left. Sampler and hooks given by name are referred to, temporaries
/// are kept.
///
///     ln::processed choose(ln::greedy{}, [](std::span<float> logits) { logits[7] = -1e30f; });
template <class Sampler, class... Hooks>
class with_logit_processors {
  static_assert(sizeof...(Hooks) > 0,
                "linnet::processed: give it a hook, or use the sampler alone");

 public:
  /// Refers to a sampler and hooks, which are called in this order.
  template <class A, class... Rest>
  requires(sizeof...(Rest) == sizeof...(Hooks)) explicit with_logit_processors(A&& sampler,
                                                                               Rest&&... hooks)
      : sampler_(std::forward<A>(sampler)), hooks_(std::forward<Rest>(hooks)...) {}

  /// The sampler's choice from the changed logits.
  template <class T>
  token operator()(std::span<T> logits, std::span<token> scratch,
                   std::span<const token> so_far = {}) {
    apply(logits, so_far);
    return detail::choose_token(sampler_, logits, scratch, so_far);
  }
  /// The sampler's distribution for the changed logits.
  template <class T>
  void probabilities(std::span<T> logits, std::span<token> scratch, std::span<const token> so_far,
                     std::span<double> out) {
    apply(logits, so_far);
    sampler_.probabilities(logits, scratch, so_far, out);
  }
  /// Forwards to the sampler.
  bool accept(double probability) { return sampler_.accept(probability); }
  /// Forwards to the sampler.
  token sample(std::span<const double> weights) { return sampler_.sample(weights); }

 private:
  template <class T>
  void apply(std::span<T> logits, std::span<const token> so_far) {
    std::apply([&](auto&... hook) { (detail::apply_hook(hook, logits, so_far), ...); }, hooks_);
  }

  Sampler sampler_;
  std::tuple<Hooks...> hooks_;
};
template <class Sampler, class... Hooks>
with_logit_processors(Sampler&&, Hooks&&...) -> with_logit_processors<Sampler, Hooks...>;

LINNET_NAMESPACE_END
/// @file
/// Inference sessions: one object holds all mutable state of a running model and shares constant
/// packed weights with any number of others.

/// @file
/// Block tables of paged key-value memory: which sequence owns which block (Kwon et al. 2023).

LINNET_NAMESPACE_BEGIN

/// Block tables: for each sequence, the blocks of ops::token_block tokens that it reads and writes.
/// Sequences that continue one another share blocks until one of them writes into a block: then it
/// gets a copy. Memory is given once; nothing allocates.
class block_tables {
 public:
  block_tables() = default;
  /// Tables of `batch` sequences of up to `capacity` tokens over `blocks` blocks, all free.
  constexpr block_tables(arena& memory, index batch, index capacity, index blocks)
      : batch_(batch),
        size_(blocks_of(capacity)),
        blocks_(blocks),
        table_(memory.take<std::int32_t>(batch * size_)),
        used_(memory.take<index>(batch)),
        references_(memory.take<std::int32_t>(blocks)),
        free_(memory.take<std::int32_t>(blocks)) {}

  /// Blocks in each table.
  index size() const { return size_; }
  /// The table [batch, size()] of block numbers; entries behind a sequence's tokens mean nothing.
  const std::int32_t* data() const { return table_; }
  /// Number of free blocks.
  index available() const { return available_; }

  /// Frees all blocks.
  void reset() {
    std::fill_n(references_, blocks_, 0);
    std::fill_n(used_, batch_, index{0});
    for (index i = 0; i < blocks_; ++i) free_[i] = static_cast<std::int32_t>(blocks_ - 1 - i);
    available_ = blocks_;
  }
  /// Keeps the blocks of the first `tokens` tokens of a sequence and frees the rest.
  void truncate(index sequence, index tokens) {
    const index keep = blocks_of(tokens);
    while (used_[sequence] > keep) release(at(sequence, --used_[sequence]));
  }
  /// Sequence `to` shares all blocks of `from`.
  void share(index from, index to) {
    truncate(to, 0);
    for (index i = 0; i < used_[from]; ++i) {
      at(to, i) = at(from, i);
      ++references_[at(to, i)];
    }
    used_[to] = used_[from];
  }
  /// Blocks that hold so many tokens.
  static constexpr index blocks_of(index tokens) {
    return (tokens + ops::token_block - 1) / ops::token_block;
  }
  /// Free blocks that reserve() takes.
  template <class Past, class More>
  index needed(index batch, Past&& past, More&& more) const {
    index sum = 0;
    for (index b = 0; b < batch; ++b) {
      sum += (std::max)(blocks_of(past(b) + more(b)) - used_[b], index{0});
      if (!shares(b, past(b))) continue;
      // Those before it in the batch leave the block; it needs a copy if somebody is left then.
      const index i = past(b) / ops::token_block;
      std::int32_t left = references_[at(b, i)];
      for (index other = 0; other < b; ++other)
        left -= shares(other, past(other)) && at(other, past(other) / ops::token_block) == at(b, i);
      sum += left > 1;
    }
    return sum;
  }
  /// Makes room for tokens [past(b), past(b) + more(b)) of sequences b in [0, batch), where the
  /// blocks for them are available(). Calls copy(from, to) for each block that is no longer shared.
  template <class Past, class More, class Copy>
  void reserve(index batch, Past&& past, More&& more, Copy&& copy) {
    for (index b = 0; b < batch; ++b) {
      // Others may have taken their copy meanwhile: then the block is this sequence's own.
      if (shares(b, past(b))) {
        std::int32_t& block = at(b, past(b) / ops::token_block);
        const std::int32_t shared = block;
        block = take();
        copy(index{shared}, index{block});
        release(shared);
      }
      while (used_[b] < blocks_of(past(b) + more(b))) at(b, used_[b]++) = take();
    }
  }

 private:
  std::int32_t& at(index sequence, index i) const { return table_[sequence * size_ + i]; }
  /// Whether another sequence also uses the block that the next token of this sequence goes into.
  bool shares(index sequence, index past) const {
    const index i = past / ops::token_block;
    return i < used_[sequence] && references_[at(sequence, i)] > 1;
  }
  std::int32_t take() {
    const std::int32_t block = free_[--available_];
    references_[block] = 1;
    return block;
  }
  void release(std::int32_t block) {
    if (--references_[block] == 0) free_[available_++] = block;
  }

  index batch_ = 0, size_ = 0, blocks_ = 0, available_ = 0;
  std::int32_t* table_ = nullptr;
  index* used_ = nullptr;               ///< [batch] blocks of each table
  std::int32_t* references_ = nullptr;  ///< [blocks]
  std::int32_t* free_ = nullptr;        ///< [available]
};

LINNET_NAMESPACE_END
/// @file
/// The record of a session: the tokens that each sequence has been fed, and the source that it
/// reads.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Tokens and sources of the sequences of a session. Memory is given once; nothing allocates.
class fed_sequences {
 public:
  fed_sequences() = default;
  /// Room for `batch` sequences of up to `capacity` tokens of `ids` numbers.
  constexpr fed_sequences(arena& memory, index batch, index capacity, index ids)
      : batch_(batch),
        row_(capacity * ids),
        ids_(ids),
        past_(memory.take<index>(batch)),
        floor_(memory.take<index>(batch)),
        source_lengths_(memory.take<index>(batch)),
        source_of_(memory.take<index>(batch)),
        tokens_(memory.take<token>(batch * row_)) {}

  /// Forgets all tokens.
  void reset() {
    std::fill_n(past_, batch_, index{0});
    std::fill_n(floor_, batch_, index{0});
    cached_sources_ = 0;
  }
  /// Tokens [batch] of each sequence.
  const index* past() const { return past_; }
  /// The tokens of sequence `b`.
  std::span<const token> tokens(index b) const {
    return {tokens_ + b * row_, static_cast<std::size_t>(past_[b] * ids_)};
  }
  /// Shortest length, beside 0, that sequence `b` can go back to.
  index floor(index b) const { return floor_[b]; }
  /// Takes back the tokens of sequence `b` behind `length`.
  void truncate(index b, index length) {
    past_[b] = length;
    if (length == 0) floor_[b] = 0;
  }
  /// Records the tokens of a step. At most `back` of a sequence's can be taken back, and none of a
  /// `prefix`.
  void add(const step_call& call, index back, bool prefix) {
    cached_sources_ = (std::max)(cached_sources_, call.batch);
    for (index b = 0; b < call.batch; ++b) {
      const index count = call.lengths ? call.lengths[b] : call.length;
      std::copy_n(call.tokens + b * call.length * ids_, count * ids_,
                  tokens_ + b * row_ + past_[b] * ids_);
      if (prefix && past_[b] == 0) floor_[b] = count;
      past_[b] += count;
      floor_[b] = (std::max)(floor_[b], past_[b] - back);
    }
  }

  /// Sources [batch, length] of new targets, of these lengths.
  void encode(index batch, index length, const index* lengths) {
    source_length_ = length;
    for (index b = 0; b < batch_; ++b) source_of_[b] = b < batch ? b : none;
    std::copy_n(lengths, batch, source_lengths_);
  }
  /// Whether sequence `b` has a source.
  bool has_source(index b) const { return source_length_ > 0 && source_of_[b] != none; }
  /// The sources that the first `batch` sequences read.
  source_call source(index batch) const {
    return {source_length_, source_lengths_, batch <= cached_sources_};
  }

  /// The part that sequence `to` lacks to go on where `from` is. Tokens that both begin with are
  /// not missing, unless they are a `prefix`, whose tokens depend on each other.
  state_part missing(index from, index to, bool prefix) const {
    const bool same = source_of_[from] == source_of_[to];
    state_part part{.tokens = past_[from], .memory = same ? 0 : source_length_};
    const auto a = tokens(from), b = tokens(to);
    if (same && !prefix)
      part.first = (std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin()) / ids_;
    return part;
  }
  /// Lets sequence `to` continue where `from` is.
  void fork(index from, index to) {
    const bool same = source_of_[from] == source_of_[to];
    const auto text = tokens(from);
    std::copy(text.begin(), text.end(), tokens_ + to * row_);
    past_[to] = past_[from];
    floor_[to] = floor_[from];
    source_of_[to] = source_of_[from];
    source_lengths_[to] = source_lengths_[from];
    if (!same && from >= cached_sources_)
      cached_sources_ = (std::min)(cached_sources_, to);  // what was there is gone
    else if (!same && to == cached_sources_)
      ++cached_sources_;
  }

 private:
  static constexpr index none = -1;  ///< no source

  index batch_ = 0;
  index row_ = 0;                    ///< numbers of a sequence's tokens
  index ids_ = 1;                    ///< numbers of a token
  index* past_ = nullptr;            ///< [batch]
  index* floor_ = nullptr;           ///< [batch]
  index* source_lengths_ = nullptr;  ///< [batch]
  index* source_of_ = nullptr;       ///< [batch] number of the encoded source that it reads
  token* tokens_ = nullptr;          ///< [batch, row]
  index source_length_ = 0;          ///< padded
  index cached_sources_ = 0;  ///< the first so many sequences have cached keys of their source
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// When generation ends: options that all ways of decoding share.

LINNET_NAMESPACE_BEGIN

/// Options of generation: when it ends.
struct generation_options {
  index tokens = 0;                     ///< most tokens to generate; 0 means as many as fit
  lasting_span<const token> stop = {};  ///< tokens that end it; they are not passed on

  /// Whether `t` ends generation: a stop token, or `no_token`.
  bool stops(token t) const {
    return t == no_token || std::find(stop.begin(), stop.end(), t) != stop.end();
  }

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("tokens", self.tokens, detail::count(0, "0: as many as fit"));
  }
};

namespace detail {
/// Calls on_token(t); false if it asks to end.
template <class Emit, class Value>
bool goes_on(Emit& on_token, const Value& t) {
  if constexpr (std::is_void_v<decltype(on_token(t))>) {
    on_token(t);
    return true;
  } else {
    return static_cast<bool>(on_token(t));
  }
}
}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Lets last_refusal() of a session say why what runs it did nothing.
template <class Session>
void refuse(Session& s, refusal why) noexcept {
  s.reason_ = why;
}
}  // namespace detail

/// Inference session of model `M`: runs it token by token with a key-value cache. A session is
/// planned once for its limits; afterwards nothing allocates. Not for use by two threads at once;
/// open a second session instead.
template <class M, class T = float>
class session {
  template <class Model, class Scalar>
  friend class self_speculative;
  template <class Session>
  friend void detail::refuse(Session&, refusal) noexcept;
  using S = storage_of<M, T>;
  static_assert(detail::check_decoding_model<M, T, S>());
  static constexpr bool encodes = M::encodes;
  static_assert(M::supports_cache,
                "linnet::session: this kind of attention cannot continue cached sequences, so the "
                "model cannot be run token by token; an evaluator scores whole sequences");

 public:
  using model = M;
  /// Numbers that a token consists of: spans of tokens hold [tokens, ids_per_token], spans of
  /// logits [rows, ids_per_token, vocabulary].
  static constexpr index ids_per_token = M::ids_per_token;
  /// Whether a prompt's tokens see each other, so that it has to come in one call.
  static constexpr bool takes_prefix = M::takes_prefix;

  /// Exact bytes that a session with these limits allocates, or that a caller's memory must have.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      return add_sizes(detail::plan_for<M, T>(some, purpose::decoding).total(), extra_bytes(some));
    });
  }

  /// Opens a session that allocates its memory: footprint(l) bytes, once. `p` must outlive it.
  /// Errors: errc::invalid for limits that make no sense for the model, by the name of the field.
  /// Also errc::out_of_memory, and the error of `p` if it is not valid().
  static result<session> open(const packed<M, T>& p, const limits& l) LINNET_TRY {
    if (auto fit = acceptable(p, l); !fit) return fit.error();
    memory_block memory(footprint(l));
    if (!memory.data()) return detail::out_of_memory("session::open", footprint(l));
    session s(p, l, memory.data(), private_tag{});
    s.own_ = std::move(memory);
    return s;
  }
  LINNET_OR_OUT_OF_MEMORY("session::open")
  /// Opens a session in the caller's memory: at least footprint(l) bytes, aligned to `alignment`.
  /// Memory and `p` must outlive the session. Nothing is written to memory that is too small.
  /// Errors: as above, and errc::invalid for memory that is too small or not aligned.
  static result<session> open(const packed<M, T>& p, const limits& l,
                              std::span<std::byte> memory) LINNET_TRY {
    if (auto fit = acceptable(p, l); !fit) return fit.error();
    if (auto fit = detail::fits_memory("session::open", memory.data(), memory.size(),
                                       "session::footprint(limits)", footprint(l));
        !fit)
      return fit.error();
    __builtin_memset(memory.data(), 0, static_cast<std::size_t>(footprint(l)));
    return session(p, l, memory.data(), private_tag{});
  }
  LINNET_OR_OUT_OF_MEMORY("session::open")
  /// open() over the caller's memory for programs without results: where open() would fail, the
  /// session is not valid() and refuses every call.
  session(const packed<M, T>& p, const limits& l, std::span<std::byte> memory) {
    if (auto s = open(p, l, memory)) *this = std::move(*s);
  }
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W, class... Rest>
  requires detail::unfit_weights<W, M, T>
  static result<session> open(W&&, const limits&, Rest&&...) {
    return detail::refuse_weights<W, M, T>();
  }
  // Weights that would be gone before they are read.
  session(const packed<M, T>&&, const limits&, std::span<std::byte>) = delete;

  /// Whether the constructor's weights, limits and memory fitted. Always true of an opened session,
  /// and false of one that was moved from, which refuses every call.
  bool valid() const { return limits_.batch > 0; }
  /// Why the last call did nothing: one of the texts of to_string(refusal). It is empty after a
  /// call that did what was asked. After generate() and other ways of decoding it also says why a
  /// text ended before a stop token or `tokens`. Static text, zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(valid() ? reason_ : refusal::not_valid);
  }
  /// The limits that it was planned for.
  const limits& planned() const { return limits_; }
  /// Forgets everything that was fed.
  void reset() {
    if (!valid()) return;
    sequences_.reset();
    tables_.reset();
  }
  /// Ends a decoder after its first `layers` layers, whose output the final norm and head then read
  /// (LayerSkip, Elhoushi et al. 2024). The full number of layers restores the whole model.
  /// Everything fed so far is forgotten. False, and nothing done, for a number outside 1 to the
  /// model's layers.
  [[nodiscard]] bool exit_after(index layers) requires(M::exits > 0) {
    if (!takes(layers < 1 || layers > M::exits ? refusal::no_layer : refusal::none)) return false;
    layers_ = {0, layers};
    reset();
    return true;
  }
  /// Number of tokens fed so far to sequence `b`; 0 for one outside the limits.
  index position(index b = 0) const { return has(b) ? sequences_.past()[b] : 0; }
  /// The tokens fed so far to sequence `b`; none for one outside the limits.
  std::span<const token> fed(index b = 0) const {
    return has(b) ? sequences_.tokens(b) : std::span<const token>();
  }
  /// Most tokens that a sequence can be fed.
  index capacity() const { return valid() ? capacity_for(limits_) : 0; }
  /// Most tokens that a sequence of a session with these limits can be fed.
  static constexpr index capacity_for(const limits& l) { return M::longest(l); }

  /// Free blocks of 32 tokens, where limits.kv_blocks gave some; feed() needs them.
  index free_blocks() const { return valid() ? tables_.available() : 0; }
  /// Most tokens of a sequence in one call of feed().
  index chunk() const {
    return limits_.chunk > 0 ? (std::min)(limits_.chunk, capacity()) : capacity();
  }

  /// Most tokens of a sequence that truncate() can take back, not counting the prompt of
  /// attention::prefix. It is chunk() where old tokens are evicted, 32 with kv::int4, else all.
  index max_truncation() const {
    const index kept = M::evicts ? chunk() : capacity();
    return M::cache::code == kv_code::int4 ? (std::min)(kept, index{ops::token_block}) : kept;
  }
  /// Takes back the last tokens of sequence `b`, so that `length` remain. False, and nothing done,
  /// for a sequence or length that is not there, or if the cache no longer has its state of that
  /// length. All tokens can be taken back (length 0), else at most max_truncation() behind the
  /// longest that the sequence has been. Tokens of the prompt of attention::prefix have seen each
  /// other, so none of them can be taken back alone.
  [[nodiscard]] bool truncate(index length, index b = 0) {
    static_assert(M::can_truncate,
                  "linnet::session::truncate: this kind of attention cannot take tokens back");
    if (!takes(!has(b)                                      ? refusal::no_sequence
               : length < 0 || length > position(b)         ? refusal::no_such_length
               : length > 0 && length < sequences_.floor(b) ? refusal::length_gone
                                                            : refusal::none))
      return false;
    sequences_.truncate(b, length);
    if (limits_.kv_blocks > 0) tables_.truncate(b, length);
    return true;
  }

  /// Lets sequence `to` continue where sequence `from` is, source included; `from` goes on as
  /// before. Copies only what differs: not the tokens that both begin with, nor a shared source.
  /// False, and nothing done, for sequences outside the limits.
  [[nodiscard]] bool fork(index from, index to) {
    if (!takes(has(from) && has(to) ? refusal::none : refusal::no_sequence)) return false;
    if (from == to) return true;
    // What a prefix holds depends on all of it.
    M::copy_state(work_.work, from, to, sequences_.missing(from, to, takes_prefix));
    if (limits_.kv_blocks > 0) tables_.share(from, to);
    sequences_.fork(from, to);
    return true;
  }

  /// Encodes one source [length] of an encoder-decoder and starts a new target. False, and nothing
  /// done, for a source that is empty, too long or holds tokens outside the vocabulary.
  [[nodiscard]] bool encode(std::span<const token> source) requires(encodes) {
    const auto length = static_cast<index>(source.size());
    return encode(source, 1, {&length, 1});
  }
  /// Encodes [batch, length] sources, padded on the right to one length, and starts new targets.
  [[nodiscard]] bool encode(std::span<const token> source, index batch,
                            std::span<const index> lengths) requires(encodes) {
    const index length = length_of(source, batch);
    auto c = checked(source, batch, lengths, limits_.source, refusal::over_source);
    c.no(lengths.empty(), refusal::lengths_missing);
    if (!takes(c.why)) return false;
    reset();
    sequences_.encode(batch, length, lengths.data());
    run(limits_, work_.converted, flops(batch, length, 0), [&](const ops::execution& on) {
      M::template encode<T, S>(packed_->tree(), source.data(), batch, length,
                               sequences_.source(batch).lengths, work_.work, on);
    });
    return true;
  }

  /// Feeds tokens to the one sequence and returns the logits [vocabulary] of what follows. They are
  /// valid, and yours to overwrite, until the next call. Empty, and nothing done, for tokens that
  /// do not fit the capacity, the free blocks or the vocabulary, or before a source is encoded.
  /// With attention::prefix the tokens of a sequence's first call are its prefix and see each
  /// other.
  [[nodiscard]] std::span<T> feed(std::span<const token> tokens) { return feed(tokens, 1, {}); }
  /// Feeds [batch, length] tokens, padded on the right. `lengths` [batch] counts the valid tokens
  /// of each sequence, at least 1; it may be empty when all are valid. Returns logits [batch,
  /// vocabulary].
  [[nodiscard]] std::span<T> feed(std::span<const token> tokens, index batch,
                                  std::span<const index> lengths) {
    return advance(tokens, batch, lengths, false, layers_);
  }
  /// Feeds any number of tokens to the one sequence, in parts of at most chunk(), and returns the
  /// logits [vocabulary] of what follows. They are empty, and nothing is done, if feed() would
  /// refuse a part. A prompt of attention::prefix cannot come in parts: one longer than chunk() is
  /// refused.
  [[nodiscard]] std::span<T> prefill(std::span<const token> tokens) {
    if (!takes(refuses(tokens, 1, {}, takes_prefix && position() == 0 ? chunk() : capacity())))
      return {};
    return parts(tokens);
  }
  /// Feeds tokens to the one sequence, at most limits.max_logits of them; returns the logits
  /// [length, vocabulary] of what follows each. None of them is a prefix: each predicts the next
  /// without having seen it.
  [[nodiscard]] std::span<T> feed_all(std::span<const token> tokens) {
    return feed_all(tokens, 1, {});
  }
  /// Feeds [batch, length] tokens like feed(), with length <= limits.max_logits; returns logits
  /// [batch * length, vocabulary]. Those behind a sequence's valid tokens mean nothing.
  [[nodiscard]] std::span<T> feed_all(std::span<const token> tokens, index batch,
                                      std::span<const index> lengths) {
    return advance(tokens, batch, lengths, true, layers_);
  }

  /// Resets the session and feeds a decoder's prompt, or an encoder-decoder's source and start
  /// token. Returns the logits [vocabulary] of the first new token. They are empty, and nothing is
  /// done, if `tokens` do not fit.
  [[nodiscard]] std::span<T> reset_and_prefill(std::span<const token> tokens) {
    if constexpr (encodes) {
      const token first = M::start;
      return encode(tokens) ? feed({&first, 1}) : std::span<T>();
    } else {
      if (!takes(refuses(tokens, 1, {}, takes_prefix ? chunk() : capacity(), true))) return {};
      reset();
      return parts(tokens);
    }
  }

  /// Generates behind `tokens`: a decoder's prompt of at least one token, or an encoder-decoder's
  /// source. For each new token it calls `choose(logits, scratch, fed)` and then `on_token(token)`.
  /// `choose` is a sampler (see `greedy`): logits [vocabulary], scratch ids [vocabulary] and, if it
  /// takes them, the tokens fed so far. `on_token` may return false to end. Generation also ends at
  /// a stop token, after `g.tokens` tokens, or where the capacity or a paged cache is full. It ends
  /// where `choose` returns `no_token` or an id outside the vocabulary. Returns the number of
  /// tokens passed to `on_token`. It is 0 if `tokens` do not fit or `g.tokens` is negative. Nothing
  /// is allocated.
  template <class Sampler, class Emit>
  index generate(std::span<const token> tokens, Sampler&& choose, Emit&& on_token,
                 const generation_options& g = {}) requires(ids_per_token == 1) {
    if (!takes(detail::in_range(g) ? refusal::none : refusal::options)) return 0;
    std::span<T> logits = reset_and_prefill(tokens);
    if (logits.empty()) return 0;
    const std::span<token> scratch(order_, static_cast<std::size_t>(M::vocabulary));
    for (index n = 0;; ++n) {
      if (g.tokens > 0 && n == g.tokens) return n;
      const token next = detail::choose_token(choose, logits, scratch, fed());
      if (next == no_token) reason_ = refusal::nothing_chosen;
      if (g.stops(next)) return n;
      if (!detail::goes_on(on_token, next) || n + 1 == g.tokens) return n + 1;
      if (position() >= capacity()) {
        if (g.tokens > 0) reason_ = refusal::over_target;
        return n + 1;
      }
      logits = feed({&next, 1});
      if (logits.empty()) return n + 1;
    }
  }

 private:
  static constexpr index extra_bytes(const limits& l) {
    arena counter;
    (void)detail::fed_sequences(counter, l.batch, capacity_for(l), ids_per_token);
    (void)counter.take<token>(M::vocabulary);
    if (l.kv_blocks > 0) (void)block_tables(counter, l.batch, capacity_for(l), l.kv_blocks);
    return counter.peak();
  }
  static result<void> acceptable(const packed<M, T>& p, const limits& l) {
    if (auto fit = detail::acceptable<M>("session::open", l, footprint(l)); !fit) return fit;
    if (!p.valid()) return p.error();
    return {};
  }
  /// Whether the limits have a sequence `b`.
  bool has(index b) const { return b >= 0 && b < limits_.batch; }
  struct private_tag {};
  session(const packed<M, T>& p, const limits& l, void* memory, private_tag)
      : packed_(&p), limits_(l) {
    const index planned = detail::plan_for<M, T>(l, purpose::decoding).total();
    arena extra(static_cast<std::byte*>(memory) + planned, extra_bytes(l));
    work_ = detail::place_workspace<M, T>(l, purpose::decoding, memory);
    sequences_ = detail::fed_sequences(extra, l.batch, capacity_for(l), ids_per_token);
    order_ = extra.take<token>(M::vocabulary);
    if (l.kv_blocks > 0) {
      tables_ = block_tables(extra, l.batch, capacity_for(l), l.kv_blocks);
      work_.work.pages = {tables_.data(), tables_.size()};
    }
    reset();
  }
  std::span<T> advance(std::span<const token> tokens, index batch, std::span<const index> lengths,
                       bool every, const layer_range& part) {
    const index most = every ? (std::min)(chunk(), limits_.max_logits) : chunk();
    refusal why = refuses(tokens, batch, lengths, most);
    if (why == refusal::over_chunk && every) why = refusal::over_logits;
    return takes(why) ? continued(tokens, batch, lengths, every, part) : std::span<T>();
  }
  /// Notes why a call does nothing, or that it does what was asked.
  bool takes(refusal why) {
    reason_ = why;
    return valid() && why == refusal::none;
  }
  /// Tokens of each sequence.
  static index length_of(std::span<const token> tokens, index batch) {
    return batch > 0 ? std::ssize(tokens) / ids_per_token / batch : 0;
  }
  /// Looks for what does not fit in [batch, length] tokens with these lengths, if any.
  batch_check checked(std::span<const token> tokens, index batch, std::span<const index> lengths,
                      index most, refusal over) const {
    const index length = length_of(tokens, batch);
    batch_check c(batch, limits_.batch);
    c.no(tokens.empty(), refusal::no_tokens);
    c.no(c.fits() && std::ssize(tokens) % (batch * ids_per_token) != 0, refusal::uneven);
    c.tokens(tokens.data(), length * ids_per_token, M::vocabulary);
    c.no(!lengths.empty() && std::ssize(lengths) < batch, refusal::lengths_missing);
    c.length(length, most, over, lengths.empty() ? nullptr : lengths.data());
    return c;
  }
  /// Why tokens cannot follow what was fed, or with `anew` begin new texts; at most `most` of each
  /// sequence.
  refusal refuses(std::span<const token> tokens, index batch, std::span<const index> lengths,
                  index most, bool anew = false) const {
    const index length = length_of(tokens, batch);
    auto c = checked(tokens, batch, lengths, capacity(), refusal::over_target);
    for (index b = 0; c.fits() && b < batch; ++b) {
      c.no(encodes && !sequences_.has_source(b), refusal::no_source);
      c.no(!anew && position(b) + length > capacity(), refusal::over_target);
    }
    c.no(length > most, refusal::over_chunk);
    if (!c.fits() || limits_.kv_blocks == 0) return c.why;
    const auto past = [&](index b) { return position(b); };
    const auto more = [&](index b) { return lengths.empty() ? length : lengths.data()[b]; };
    c.no(anew ? block_tables::blocks_of(length) > limits_.kv_blocks
              : tables_.needed(batch, past, more) > tables_.available(),
         refusal::no_blocks);
    return c.why;
  }
  /// Feeds tokens that fit to the one sequence, in parts.
  std::span<T> parts(std::span<const token> tokens) {
    const auto most = static_cast<std::size_t>(chunk() * ids_per_token);
    for (; tokens.size() > most; tokens = tokens.subspan(most))
      (void)continued(tokens.first(most), 1, {}, false, layers_);
    return continued(tokens, 1, {}, false, layers_);
  }
  /// Feeds tokens that fit.
  std::span<T> continued(std::span<const token> tokens, index batch, std::span<const index> lengths,
                         bool every, const layer_range& part) {
    const index length = length_of(tokens, batch);
    const index* const valid = lengths.empty() ? nullptr : lengths.data();
    if (limits_.kv_blocks > 0)
      tables_.reserve(
          batch, [&](index b) { return position(b); },
          [&](index b) { return valid ? valid[b] : length; },
          [&](index from, index to) { M::copy_state(work_.work, from, to, {.block = true}); });
    const step_call call{.tokens = tokens.data(),
                         .batch = batch,
                         .length = length,
                         .lengths = valid,
                         .past = sequences_.past(),
                         .every = every,
                         .layers = part,
                         .source = sequences_.source(batch)};
    run(limits_, work_.converted, flops(batch, 0, length), [&](const ops::execution& on) {
      M::template step<T, S>(packed_->tree(), call, work_.work, on);
    });
    sequences_.add(call, max_truncation(), takes_prefix && !every);
    return {work_.work.logits,
            static_cast<std::size_t>(batch * (every ? length : 1) * ids_per_token * M::vocabulary)};
  }
  /// Work of a call that reads `source` tokens or continues targets by `target` ones.
  static constexpr index flops(index batch, index source, index target) {
    if constexpr (encodes)
      return M::flops(batch, source, target);
    else
      return M::flops(batch, target);
  }

  const packed<M, T>* packed_ = nullptr;
  detail::owned_limits limits_;  ///< refuses everything until it is opened
  layer_range layers_{};         ///< that feed() runs
  memory_block own_;
  detail::placed_workspace<M, T> work_{};
  block_tables tables_{};
  detail::fed_sequences sequences_{};
  token* order_ = nullptr;  ///< [vocabulary] scratch of samplers
  refusal reason_ = refusal::none;
};

LINNET_NAMESPACE_END
/// @file
/// Presets: the models of the literature as types, with their parameter counts, which
/// the tests assert.

/// @file
/// Language models on tokens that are pooled from their bytes (Hillier et al. 2024, "Super Tiny
/// Language Models", section 5.2). A head predicts the bytes of the next token. No table of tokens:
/// any tokenizer only says where tokens end.

/// @file
/// Tokens as their bytes (Hillier et al. 2024, "Super Tiny Language Models", section 5.2). The
/// embedder pools a token's bytes into one vector, and the head predicts all bytes of the next
/// token at once. Neither knows a tokenizer.

LINNET_NAMESPACE_BEGIN

/// Pooling policies: how a byte_pooled model reads and writes tokens.
namespace pooling {
/// Base of every pooling policy.
struct policy {};
/// Embedder and head with these numbers.
template <byte_pooling Numbers>
struct of : policy {
  static_assert(Numbers.valid(),
                "linnet::pooling: every number must be positive, and each width a multiple of the "
                "heads");
  static constexpr byte_pooling numbers = Numbers;
};
using repository = of<byte_pooling::repository()>;  ///< the code's numbers, corrected; the default
using paper = of<byte_pooling::paper()>;            ///< the paper's numbers, corrected
/// Embedder and head exactly as the published code computes them.
using repo_compat = of<byte_pooling::repository().under(byte_rules::repository)>;
}  // namespace pooling

namespace detail {

/// Bytes of a token that count as read, without padding; at least one.
inline index bytes_read(const token* bytes, index bytes_per_token) {
  const index n = std::find(bytes, bytes + bytes_per_token, byte_pad) - bytes;
  return n > 0 ? n : 1;
}
/// Labels of a token's bytes, padding included.
inline void byte_labels(byte_rules rules, const token* bytes, index bytes_per_token,
                        token* labels) {
  bool open = true;
  for (index t = 0; t < bytes_per_token; ++t) {
    if (rules == byte_rules::repository)
      labels[t] = bytes[t] == byte_end ? ignored : bytes[t];
    else
      labels[t] = open ? bytes[t] : ignored;
    open = open && bytes[t] != byte_pad;
  }
}

/// A number from 0 to 9 as a name.
template <std::size_t K>
constexpr fixed_string<2> digit() {
  static_assert(K < 10);
  const char text[2] = {static_cast<char>('0' + K), '\0'};
  return text;
}

/// A block over the bytes of a token, which all see each other: x + attention(norm x), then a
/// feed-forward with exact GELU. The feed-forward has a residual only if `Residual` is set and In
/// is Out. No biases.
template <index In, index Out, byte_pooling N, class Norm, real Eps>
struct byte_block {
  static constexpr index hidden = N.expansion * In;
  static constexpr bool residual = N.rules == byte_rules::corrected && In == Out;
  using norm = typename Norm::template layer<In, Eps>;
  using mixer = attention::full::layer<attention_shape{
      .d_model = In, .heads = N.heads, .kv_heads = N.heads, .d_kv = In / N.heads}>;
  using first = activated_linear<In, hidden, activation_kind::gelu, false, false>;
  using second = linear<hidden, Out>;
  template <bool Residual, class = void>
  struct feed_forward {
    using type = chain<named<"norm", norm>, named<"wi", first>, named<"wo", second>>;
  };
  template <class Nothing>
  struct feed_forward<true, Nothing> {
    using type = linnet::residual<norm, chain<named<"wi", first>, named<"wo", second>>>;
  };
  using type = chain<named<"attention", linnet::residual<norm, mixer>>,
                     named<"ffn", typename feed_forward<residual>::type>>;
};

/// The embedder's blocks, one after the other.
template <index D, byte_pooling N, class Norm, real Eps, class Blocks>
struct byte_blocks;
template <index D, byte_pooling N, class Norm, real Eps, std::size_t... K>
struct byte_blocks<D, N, Norm, Eps, std::index_sequence<K...>> {
  static constexpr index after(std::size_t k) { return k + 1 == sizeof...(K) ? D : N.between[k]; }
  using type = chain<named<digit<K>(), typename byte_block<N.width_before(static_cast<index>(K)),
                                                           after(K), N, Norm, Eps>::type>...>;
};

/// Context of embedder and head: a batch of `tokens` sequences of N.bytes_per_token rows. No
/// dropout: tokens that repeat share one computation, and so would share their masks.
template <byte_pooling N, class T>
context<T> byte_context(const ops::execution& on, index tokens, const index* lengths) {
  context<T> ctx;
  ctx.on = on;
  ctx.batch = tokens;
  ctx.length = N.bytes_per_token;
  ctx.lengths = lengths;
  return ctx;
}
/// Room for `tokens` tokens at a time in a model planned for `e`.
template <byte_pooling N>
constexpr call_shape byte_extents(const call_shape& e, index tokens) {
  return {
      .batch = tokens, .length = N.bytes_per_token, .threads = e.threads, .training = e.training};
}

}  // namespace detail

/// pooled[tokens, D] from bytes[tokens, N.bytes_per_token]: byte vectors and positions, blocks,
/// then the mean over the bytes of each token. A token's vector depends on its own bytes alone.
template <byte_pooling N, index D, class Norm, real Eps>
struct byte_embedder {
  static constexpr index bytes_per_token = N.bytes_per_token, width = N.width;
  static constexpr bool masked = N.rules == byte_rules::corrected;
  using blocks = typename detail::byte_blocks<
      D, N, Norm, Eps, std::make_index_sequence<static_cast<std::size_t>(N.blocks())>>::type;

  template <class Form>
  struct params {
    typename Form::matrix bytes{};
    typename Form::vector positions{};
    typename blocks::template params<Form> stack{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "byte" / "weight", tensor_info{byte_values, width, role::table, 1}, p.bytes...);
    f(at / "position" / "weight", tensor_info{bytes_per_token, width, role::position, 1},
      p.positions...);
    blocks::visit(f, at / "blocks", p.stack...);
  }

  template <class T>
  struct cache {
    T *x = nullptr,
      *y = nullptr;  ///< [tokens * bytes_per_token, width], [tokens * bytes_per_token, D]
    T *dx = nullptr, *dy = nullptr;
    index* lengths = nullptr;  ///< [tokens] bytes that are read
    typename blocks::template cache<T> stack{};
  };
  /// Buffers for `tokens` tokens at a time.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& of, index tokens) {
    const call_shape e = detail::byte_extents<N>(of, tokens);
    cache<T> c;
    c.x = m.saved.take<T>(e.rows() * width);
    c.y = m.saved.take<T>(e.rows() * D);
    c.lengths = m.saved.take<index>(tokens);
    if (e.training) {
      c.dx = m.saved.take<T>(e.rows() * width);
      c.dy = m.saved.take<T>(e.rows() * D);
    }
    c.stack = blocks::template plan<T>(m, e);
    return c;
  }

  /// Computes pooled[tokens, D] of some tokens.
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const ops::execution& on, index tokens,
                      const token* bytes, T* pooled, cache<T>& c) {
    const index rows = tokens * bytes_per_token;
    context<T> ctx = context_of(on, tokens, bytes, c);
    ops::embed(on, rows, width, bytes, p.bytes, c.x);
    on.threads.each(rows, [&](index row) {
      for (index j = 0; j < width; ++j)
        c.x[row * width + j] += p.positions[row % bytes_per_token * width + j];
    });
    blocks::template forward<T, S>(p.stack, {c.x, rows}, {c.y, rows}, c.stack, ctx);
    on.threads.each(tokens, [&](index i) {
      const index n = ctx.length_of(i);
      T* const mean = pooled + i * D;
      std::fill_n(mean, D, T(0));
      for (index t = 0; t < n; ++t)
        for (index j = 0; j < D; ++j) mean[j] += c.y[(i * bytes_per_token + t) * D + j];
      for (index j = 0; j < D; ++j) mean[j] /= static_cast<T>(n);
    });
  }
  /// Adds the gradients of the last forward(), given the gradient of pooled[tokens, D].
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const ops::execution& on, index tokens, const token* bytes,
                       const T* d_pooled, cache<T>& c) {
    const index rows = tokens * bytes_per_token;
    context<T> ctx = context_of(on, tokens, bytes, c);
    on.threads.each(tokens, [&](index i) {
      const index n = ctx.length_of(i);
      for (index t = 0; t < bytes_per_token; ++t)
        for (index j = 0; j < D; ++j)
          c.dy[(i * bytes_per_token + t) * D + j] =
              t < n ? d_pooled[i * D + j] / static_cast<T>(n) : T(0);
    });
    ops::fill(on, rows * width, T(0), c.dx);
    blocks::template backward<T, S>(p.stack, dp.stack, {c.x, rows}, {c.dy, rows}, {c.dx, rows},
                                    c.stack, ctx);
    ops::embed_backward(on, rows, width, bytes, c.dx, dp.bytes);
    ops::position_backward(on, tokens, bytes_per_token, width, c.dx, dp.positions);
  }

  /// Floating-point operations for `tokens` distinct tokens.
  static constexpr index flops(index tokens) {
    return blocks::flops({.batch = tokens, .length = bytes_per_token});
  }

 private:
  template <class T>
  static context<T> context_of(const ops::execution& on, index tokens, const token* bytes,
                               const cache<T>& c) {
    if (masked)
      on.threads.each(tokens, [&](index i) {
        c.lengths[i] = detail::bytes_read(bytes + i * bytes_per_token, bytes_per_token);
      });
    return detail::byte_context<N, T>(on, tokens, masked ? c.lengths : nullptr);
  }
};

/// Logits [tokens * N.bytes_per_token, byte_values] of the bytes of the next tokens from
/// states[tokens, D]. A linear map makes one vector for each slot; positions, blocks and a linear
/// map to the byte values follow. The bytes of a token see each other's vectors but not each
/// other's bytes.
template <byte_pooling N, index D, class Norm, real Eps>
struct byte_head {
  static constexpr index bytes_per_token = N.bytes_per_token, width = N.width;
  static constexpr bool doubled = N.rules == byte_rules::repository;
  using to_slots = linear<D, bytes_per_token * width>;
  using blocks =
      repeat<typename detail::byte_block<width, width, N, Norm, Eps>::type, N.head_blocks>;
  static constexpr index chunk_rows = ops::head_rows(byte_values);

  template <class Form>
  struct params {
    typename to_slots::template params<Form> expand{};
    typename Form::vector positions{};
    typename blocks::template params<Form> stack{};
    typename Form::matrix bytes{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    to_slots::visit(f, at / "expand", p.expand...);
    f(at / "position" / "weight", tensor_info{bytes_per_token, width, role::position, 1},
      p.positions...);
    blocks::visit(f, at / "blocks", p.stack...);
    f(at / "byte" / "weight",
      tensor_info{byte_values, width, role::matrix, 1 / detail::sqrt(static_cast<double>(width))},
      p.bytes...);
  }

  template <class T>
  struct cache {
    T *x = nullptr, *y = nullptr;  ///< [tokens * bytes_per_token, width]
    T *dx = nullptr, *dy = nullptr;
    T* chunk = nullptr;        ///< logits of some rows
    token* labels = nullptr;   ///< [tokens * bytes_per_token]
    double* losses = nullptr;  ///< [tokens * bytes_per_token]
    typename blocks::template cache<T> stack{};
    without_cache::cache<T> none{};
  };
  /// Buffers for `tokens` tokens at a time; labels and logits only where a loss is computed.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& of, index tokens, bool loss) {
    const call_shape e = detail::byte_extents<N>(of, tokens);
    cache<T> c;
    m.product(tokens, D, bytes_per_token * width, e);
    m.product(loss ? chunk_rows : e.rows(), width, byte_values, e);
    c.x = m.saved.take<T>(e.rows() * width);
    c.y = m.saved.take<T>(e.rows() * width);
    if (loss) {
      c.chunk = m.saved.take<T>(chunk_rows * byte_values);
      c.labels = m.saved.take<token>(e.rows());
      c.losses = m.saved.take<double>(e.rows());
    }
    if (e.training) {
      c.dx = m.saved.take<T>(e.rows() * width);
      c.dy = m.saved.take<T>(e.rows() * width);
    }
    c.stack = blocks::template plan<T>(m, e);
    return c;
  }

  /// Computes logits[tokens * bytes_per_token, byte_values] of some tokens.
  template <class T, class S>
  static void logits(const params<form::packed<T, S>>& p, const ops::execution& on, index tokens,
                     const T* states, T* logits, cache<T>& c) {
    forward<T, S>(p, on, tokens, states, c);
    ops::matmul(on, tokens * bytes_per_token, byte_values, width, c.y, p.bytes, logits);
  }
  /// Tokens of loss().
  template <class T>
  struct loss_call {
    index tokens = 0;
    const T* states = nullptr;  ///< [tokens, D]
    T* d_states = nullptr;      ///< their gradient, added to
    T* logits = nullptr;        ///< receives [tokens * bytes_per_token, byte_values], or null
    double z_loss = 0;          ///< weight of the squared logsumexp
  };
  /// Summed loss of some tokens by a criterion. `label(i)` gives the bytes of token i's labels
  /// [bytes_per_token], or null for none. With `dp`, adds the gradients of that sum there and to
  /// call.d_states.
  template <class T, class S, class Label, class Criterion>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const ops::execution& on, const loss_call<T>& call, const Label& label,
                       const Criterion& criterion, cache<T>& c) {
    const index tokens = call.tokens, rows = tokens * bytes_per_token;
    on.threads.each(tokens, [&](index i) {
      if (const token* const bytes = label(i))
        detail::byte_labels(N.rules, bytes, bytes_per_token, c.labels + i * bytes_per_token);
      else
        std::fill_n(c.labels + i * bytes_per_token, bytes_per_token, ignored);
    });
    forward<T, S>(p, on, tokens, call.states, c);
    ops::head_call<T, storage::single<S>> head{rows, width,    byte_values, c.y,     p.bytes,
                                               T(1), c.labels, c.chunk,     c.losses};
    head.logits = call.logits;
    head.z_loss = call.z_loss;
    if (dp) {
      ops::fill(on, rows * width, T(0), c.dy);
      head.dy = c.dy;
      head.d_table = dp->bytes;
    }
    const loss_sum sum = ops::head_loss(on, head, criterion);
    on.threads.wait();  // everybody has read the losses before they are overwritten
    if constexpr (ops::trainable<S>)
      if (dp) {
        context<T> ctx = detail::byte_context<N, T>(on, tokens, nullptr);
        ops::fill(on, rows * width, T(0), c.dx);
        blocks::template backward<T, S>(p.stack, dp->stack, {c.x, rows}, {c.dy, rows}, {c.dx, rows},
                                        c.stack, ctx);
        ops::position_backward(on, tokens, bytes_per_token, width, c.dx, dp->positions);
        if (doubled) ops::add(on, rows * width, c.dx, c.dx, c.dx);
        to_slots::template backward<T, S>(p.expand, dp->expand, {call.states, tokens},
                                          {c.dx, tokens}, {call.d_states, tokens}, c.none, ctx);
      }
    return sum;
  }

  /// Floating-point operations for `tokens` tokens.
  static constexpr index flops(index tokens) {
    return 2 * tokens * D * bytes_per_token * width +
           blocks::flops({.batch = tokens, .length = bytes_per_token}) +
           2 * tokens * bytes_per_token * width * byte_values;
  }

 private:
  /// states -> c.y
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const ops::execution& on, index tokens,
                      const T* states, cache<T>& c) {
    const index rows = tokens * bytes_per_token;
    context<T> ctx = detail::byte_context<N, T>(on, tokens, nullptr);
    to_slots::template forward<T, S>(p.expand, {states, tokens}, {c.x, tokens}, c.none, ctx);
    on.threads.each(rows, [&](index row) {
      T* const x = c.x + row * width;
      const T* const position = p.positions + row % bytes_per_token * width;
      for (index j = 0; j < width; ++j) x[j] = (doubled ? x[j] + x[j] : x[j]) + position[j];
    });
    blocks::template forward<T, S>(p.stack, {c.x, rows}, {c.y, rows}, c.stack, ctx);
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Tokens of a byte_pooled model's training or scoring call, [batch, length] row-major, and what
/// they consist of (see token_bytes).
struct byte_batch {
  const token* tokens = nullptr;  ///< inputs, rows of `bytes`
  const token* labels = nullptr;  ///< the token that follows each input, or `ignored`
  index batch = 0;                ///< sequences
  index length = 0;               ///< tokens per sequence
  const token* bytes = nullptr;   ///< [vocabulary, bytes_per_token] the bytes of each token, padded
  index vocabulary = 0;           ///< rows of `bytes`
};

/// The criterion of `reconstruction`.
struct reconstruction_loss : ops::label_cross_entropy {
  double reconstruction = 1;  ///< weight of the auxiliary loss
};

/// Auxiliary objective of byte_pooled models: the head, applied to a token's pooled vector, must
/// return that token's bytes. It is taken from the published code. The loss becomes that of the
/// labels plus `weight` times this one, summed over all tokens. Both are divided by the counted
/// bytes of the labels.
struct reconstruction {
  double weight = 1;
  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    static_assert(std::is_same_v<typename M::batch, byte_batch>,
                  "linnet::reconstruction: only byte_pooled models read and write bytes");
    return true;
  }
  template <class Batch>
  reconstruction_loss token_loss(const ops::execution&, const Batch&) const {
    return {{}, weight};
  }
};

namespace detail {
/// The criterion of labels, each token's rows weighted by how often it occurs.
struct repeated_loss : ops::label_cross_entropy {
  const index* counts = nullptr;  ///< [tokens]
  index bytes_per_token = 1;
  double weight = 1;
  template <class T, class S>
  void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                  index rows) const {
    ops::label_cross_entropy::operator()(on, h, first, rows);
    on.threads.each(rows, [&](index i) {
      const double by = weight * static_cast<double>(counts[(first + i) / bytes_per_token]);
      h.losses[first + i] *= by;
      for (index j = 0; h.dy && j < h.vocabulary; ++j)
        h.chunk[i * h.vocabulary + j] *= static_cast<T>(by);
    });
  }
};
}  // namespace detail

/// A byte_pooled model as a type; spelled byte_pooled<shape, policies...>. `Core` is the decoder
/// whose blocks it has.
template <class Core, byte_pooling Numbers>
struct byte_pooled_model : model_defaults, policy_variants<byte_pooled_model<Core, Numbers>> {
  static_assert(Core::tied,
                "linnet::byte_pooled: there is no table of tokens that a head could share; leave "
                "tie:: policies out");
  static_assert(!Core::learned && !Core::sinusoidal && !Core::embedding_normed,
                "linnet::byte_pooled: tokens take rotary positions or none, and no norm of the "
                "embedding");
  static_assert(!Core::factorised,
                "linnet::byte_pooled: there is no table of tokens to factorise; leave embedding:: "
                "policies out");
  static_assert(!Core::attention::takes_prefix,
                "linnet::byte_pooled: attention::prefix is not supported");

  using core = Core;
  static constexpr byte_pooling pooling = Numbers;
  static constexpr decoder_shape shape = Core::shape;
  static constexpr bool tied = false, biased = Core::biased, learned = false, sinusoidal = false,
                        factorised = false, rotary = Core::rotary,
                        can_truncate = Core::can_truncate, evicts = Core::evicts,
                        causal = Core::causal, supports_cache = Core::supports_cache;
  using ffn = typename Core::ffn;
  using attention = typename Core::attention;
  using norm = typename Core::norm;
  using position = typename Core::position;
  using depths = typename Core::depths;
  using sharing = typename Core::sharing;
  using storage = typename Core::storage;
  using cache = typename Core::cache;
  using batch = byte_batch;
  /// This model with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with = byte_pooled_model<typename Core::template with<Slot, Other>, Numbers>;

  static constexpr index d = Core::d, context_length = Core::context_length;
  static constexpr index vocabulary = byte_values;                   ///< values of a slot
  static constexpr index bytes_per_token = Numbers.bytes_per_token,  ///< bytes of a token
      ids_per_token = bytes_per_token;
  /// Tokens whose bytes are worked on at a time: the ends keep nothing of the others.
  static constexpr index tokens_at_once = 32;
  using reader = byte_embedder<Numbers, d, norm, Core::eps>;
  using writer = byte_head<Numbers, d, norm, Core::eps>;
  using blocks = typename Core::blocks;

  template <class Form>
  struct params {
    typename reader::template params<Form> embedder{};
    typename blocks::template params<Form> stack{};
    typename writer::template params<Form> head{};
  };
  /// Named visit of all parameters, once each, in canonical order. Initial values are decoders'.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const auto normal = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
      if (info.deviation > 0) info.deviation = Core::initial_deviation;
      f(where, info, leaf...);
    };
    reader::visit(normal, at / "embedder", p.embedder...);
    blocks::visit(normal, at / "blocks", p.stack...);
    writer::visit(normal, at / "head", p.head...);
  }

  /// Trainable parameters.
  static constexpr index parameters() { return count_parameters<byte_pooled_model>(); }
  /// Parameters of the embedder, which replaces a table of tokens.
  static constexpr index embedder_parameters() { return count_parameters<reader>(); }
  /// Parameters of the head, which replaces an output matrix over tokens.
  static constexpr index head_parameters() { return count_parameters<writer>(); }
  /// Parameters of the blocks between embedder and head. There is no final norm, as in the
  /// published code (Hillier et al. 2024).
  static constexpr index non_embedding() { return count_parameters<blocks>(); }
  /// Fraction of parameters saved by embedder and head over tables [tokens, d], one for both where
  /// they are tied. This is the paper's "90% to 95%".
  static constexpr double saved_at_ends(index tokens, bool tables_tied) {
    return 1 - ratio(embedder_parameters() + head_parameters(), tables(tokens, tables_tied));
  }
  /// Fraction of the whole model's parameters saved over tables [tokens, d].
  static constexpr double saved(index tokens, bool tables_tied) {
    return 1 - ratio(parameters(), non_embedding() + tables(tokens, tables_tied));
  }
  /// Floating-point operations of one forward call over at most [batch, length] tokens; repeated
  /// tokens are embedded once.
  static constexpr index flops(index batch_size, index length) {
    const call_shape e = call_shape_for({.batch = batch_size}, purpose::scoring, length);
    return reader::flops(e.rows()) + blocks::flops(e) + writer::flops(e.rows());
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename blocks::template cache<T> stack{};
    typename reader::template cache<T> embedder{};
    typename writer::template cache<T> head{};
    T *embedded = nullptr, *out = nullptr;      ///< [rows, d]
    T *d_embedded = nullptr, *d_out = nullptr;  ///< [rows, d]
    T *pooled = nullptr, *d_pooled = nullptr;   ///< [distinct, d]
    index distinct = 0;                         ///< tokens of the call
    token *tokens = nullptr, *place = nullptr;  ///< see find_distinct()
    index *order = nullptr, *counts = nullptr;  ///< likewise
    token* bytes = nullptr;                     ///< [tokens_at_once, bytes_per_token]
    typename Core::positional::template cache<T> positions{};
    T* last = nullptr;         ///< [batch, d] last valid rows
    T* logits = nullptr;       ///< [batch * limits.max_logits, bytes_per_token, vocabulary]
    ops::page_tables pages{};  ///< of a session's paged cache
    int dropout_id = 0;
  };
  /// Longest sequence for these limits, in tokens: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) { return Core::longest(l); }
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const call_shape e = call_shape_for(l, use, longest(l));
    const bool decodes = use == purpose::decoding;
    const index rows = e.rows(), size = rows * d;
    workspace<T> w;
    w.dropout_id = m.dropout_ids++;
    w.positions = Core::positional::template plan<T>(m, e, longest(l));
    w.embedded = m.saved.take<T>(size);
    w.out = m.saved.take<T>(size);
    if (decodes) {
      w.last = m.saved.take<T>(e.batch * d);
      w.logits = m.state.take<T>(e.batch * l.max_logits * bytes_per_token * vocabulary);
    } else {
      w.pooled = m.saved.take<T>(size);
      w.tokens = m.saved.take<token>(rows);
      w.place = m.saved.take<token>(rows);
      w.order = m.saved.take<index>(rows);
      w.counts = m.saved.take<index>(rows);
      w.bytes = m.saved.take<token>(tokens_at_once * bytes_per_token);
    }
    if (e.training) {
      w.d_pooled = m.saved.take<T>(size);
      w.d_embedded = m.saved.take<T>(size);
      w.d_out = m.saved.take<T>(size);
    }
    w.stack = blocks::template plan<T>(m, e);
    // The ends work by turns, and on some tokens at a time.
    const index kept = m.saved.mark(), some = (std::min)(tokens_at_once, rows);
    w.embedder = reader::template plan<T>(m, e, some);
    m.saved.release(kept);
    w.head = writer::template plan<T>(
        m, e, (std::min)(some, decodes ? e.batch * l.max_logits : rows), !decodes);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    Core::positional::prepare(w.positions, longest(l));
  }

  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_byte_pooled<byte_pooled_model>(f);
  }
  /// The limits that the decoder of the blocks refuses.
  static constexpr limits_refusal check_limits(const limits& l) { return Core::check_limits(l); }
  /// Why a batch does not fit the limits, its table of tokens, or the values of bytes.
  static refusal refuses(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    c.length(b.length, longest(l), refusal::over_target);
    c.no(b.bytes == nullptr, refusal::null_bytes);
    c.tokens(b.tokens, b.length, b.vocabulary);
    c.labels(b.labels, b.length, b.vocabulary);
    for (const token* const tokens : {b.tokens, b.labels})
      for (index i = 0; c.fits() && i < b.batch * b.length; ++i)
        c.no(tokens[i] != ignored && !tokens_fit(b.bytes + tokens[i] * bytes_per_token,
                                                 bytes_per_token, vocabulary, false),
             refusal::byte_outside_vocabulary);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// Summed loss of a batch over the counted bytes of its labels, by `ops::label_cross_entropy` or
  /// `reconstruction_loss`. With `dp`, also adds the gradient of that sum. `call.logits`, if
  /// given, receives [batch * length, bytes_per_token, vocabulary]. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    static_assert(std::is_base_of_v<ops::label_cross_entropy, Criterion>,
                  "linnet::byte_pooled: it learns from labels, alone or with `reconstruction`");
    context<T> ctx;
    ctx.on = on;
    ctx.batch = b.batch;
    ctx.length = b.length;
    ctx.dropout = call.dropout;
    const index rows = ctx.rows();
    find_distinct(on, rows, b.tokens, w);
    each_part(w.distinct, [&](index first, index count) {
      reader::template forward<T, S>(p.embedder, on, count, gather(on, b, first, count, w),
                                     w.pooled + first * d, w.embedder);
    });
    on.threads.each(
        rows, [&](index i) { std::copy_n(w.pooled + w.place[i] * d, d, w.embedded + i * d); });
    forward<T, S>(p, w, ctx);
    if (dp) ops::fill(on, rows * d, T(0), w.d_out);
    loss_sum sum;
    auto* const d_head = dp ? &dp->head : nullptr;
    each_part(rows, [&](index first, index count) {
      const auto label = [&](index i) {
        const token t = b.labels[first + i];
        return t == ignored ? nullptr : b.bytes + t * bytes_per_token;
      };
      const loss_sum part = writer::template loss<T, S>(
          p.head, d_head, on,
          {count, w.out + first * d, dp ? w.d_out + first * d : nullptr,
           call.logits ? call.logits + first * bytes_per_token * vocabulary : nullptr, call.z_loss},
          label, criterion, w.head);
      sum.nats += part.nats;
      sum.tokens += part.tokens;
    });
    if (dp) ops::fill(on, w.distinct * d, T(0), w.d_pooled);
    if constexpr (requires { criterion.reconstruction; })
      each_part(w.distinct, [&](index first, index count) {
        const detail::repeated_loss repeated{
            {}, w.counts + first, bytes_per_token, criterion.reconstruction};
        const auto own = [&](index i) { return b.bytes + w.tokens[first + i] * bytes_per_token; };
        sum.nats += writer::template loss<T, S>(
                        p.head, d_head, on,
                        {count, w.pooled + first * d, dp ? w.d_pooled + first * d : nullptr,
                         nullptr, call.z_loss},
                        own, repeated, w.head)
                        .nats;
      });
    if constexpr (ops::trainable<S>)
      if (dp) {
        const view<T, d> d_out(w.d_out, rows), d_embedded(w.d_embedded, rows);
        ops::fill(on, d_embedded.size(), T(0), w.d_embedded);
        blocks::template backward<T, S>(p.stack, dp->stack, {w.embedded, rows}, d_out, d_embedded,
                                        w.stack, ctx);
        ops::dropout(on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.d_embedded);
        ops::embed_backward(on, rows, d, w.place, w.d_embedded, w.d_pooled);
        each_part(w.distinct, [&](index first, index count) {
          const token* const bytes = gather(on, b, first, count, w);
          // What the embedder kept of these tokens was overwritten by the next: once more.
          reader::template forward<T, S>(p.embedder, on, count, bytes, w.pooled + first * d,
                                         w.embedder);
          reader::template backward<T, S>(p.embedder, dp->embedder, on, count, bytes,
                                          w.d_pooled + first * d, w.embedder);
        });
      }
    return sum;
  }

  /// Feeds tokens [batch, length, bytes_per_token] of bytes behind the cached ones.
  /// w.logits[batch, bytes_per_token, vocabulary] then predicts the bytes behind each sequence's
  /// last valid token. With `call.every` they are w.logits[batch * length, bytes_per_token,
  /// vocabulary], one row group per token. Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& on) {
    context<T> ctx = detail::step_context<T>(call, on);
    ctx.pages = w.pages;
    each_part(ctx.rows(), [&](index first, index count) {
      reader::template forward<T, S>(p.embedder, on, count, call.tokens + first * bytes_per_token,
                                     w.embedded + first * d, w.embedder);
    });
    forward<T, S>(p, w, ctx);
    if (!call.every)
      on.threads.each(ctx.batch, [&](index i) {
        std::copy_n(w.out + (i * ctx.length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    const T* const states = call.every ? w.out : w.last;
    each_part(call.every ? ctx.rows() : ctx.batch, [&](index first, index count) {
      writer::template logits<T, S>(p.head, on, count, states + first * d,
                                    w.logits + first * bytes_per_token * vocabulary, w.head);
    });
  }

  /// Lets cached sequence `to` continue where `from` is.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(w.stack, from, to, part);
  }

 private:
  static constexpr index tables(index tokens, bool tables_tied) {
    return tokens * d * (tables_tied ? 1 : 2);
  }
  static constexpr double ratio(index a, index b) {
    return static_cast<double>(a) / static_cast<double>(b);
  }
  /// Calls f(first, count) for [0, n) in parts of tokens_at_once.
  template <class F>
  static void each_part(index n, F&& f) {
    for (index first = 0; first < n; first += tokens_at_once)
      f(first, (std::min)(tokens_at_once, n - first));
  }
  /// w.tokens[w.distinct] in ascending order, w.counts of each, and w.place[rows] of each token in
  /// them. A token's vector depends on its bytes alone, so each is computed once.
  template <class T>
  static void find_distinct(const ops::execution& on, index rows, const token* tokens,
                            workspace<T>& w) {
    on.threads.once([&] {
      for (index i = 0; i < rows; ++i) w.order[i] = i;
      std::sort(w.order, w.order + rows, [&](index a, index b) { return tokens[a] < tokens[b]; });
      index n = 0;
      for (index i = 0; i < rows; ++i) {
        const token t = tokens[w.order[i]];
        if (n == 0 || w.tokens[n - 1] != t) {
          w.tokens[n] = t;
          w.counts[n++] = 0;
        }
        ++w.counts[n - 1];
        w.place[w.order[i]] = static_cast<token>(n - 1);
      }
      w.distinct = n;
    });
  }
  /// The bytes of distinct tokens [first, first + count).
  template <class T>
  static const token* gather(const ops::execution& on, const batch& b, index first, index count,
                             workspace<T>& w) {
    on.threads.each(count, [&](index i) {
      std::copy_n(b.bytes + w.tokens[first + i] * bytes_per_token, bytes_per_token,
                  w.bytes + i * bytes_per_token);
    });
    return w.bytes;
  }
  /// w.embedded -> w.out
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    const index rows = ctx.rows();
    Core::positional::angles(w.positions, ctx);
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.embedded);
    blocks::template forward<T, S>(p.stack, {w.embedded, rows}, {w.out, rows}, w.stack, ctx);
  }
};

namespace detail {
/// The shape of the blocks with its tokenizer numbers removed, so that equal models are equal
/// types.
constexpr decoder_shape between_bytes(decoder_shape s) {
  if (s.vocabulary > 0) s.vocabulary = byte_values;
  return s;
}
/// The decoder of a list of policies without those of pooling.
template <decoder_shape Shape, class... Kept>
struct byte_core {
  template <class... Ps>
  struct of : decoder_of<Shape, policy_set<Kept...>> {};
  template <class P, class... Ps>
  struct of<P, Ps...>
      : std::conditional_t<std::is_base_of_v<pooling::policy, P>, byte_core<Shape, Kept...>,
                           byte_core<Shape, Kept..., P>>::template of<Ps...> {};
};
template <decoder_shape Shape, class... Ps>
struct make_byte_pooled {
  static_assert(!twice<pooling::policy, Ps...>, "linnet: two pooling:: policies; give one");
  using type = byte_pooled_model<typename byte_core<between_bytes(Shape)>::template of<Ps...>::type,
                                 pick<pooling::policy, pooling::repository, Ps...>::numbers>;
};
}  // namespace detail

/// A model on bytes: the blocks of decoder<Shape, Policies...> between an embedder and a head that
/// a pooling:: policy describes, pooling::repository by default. The shape's vocabulary is not
/// used.
template <decoder_shape Shape, class... Policies>
using byte_pooled = typename detail::make_byte_pooled<Shape, Policies...>::type;

LINNET_NAMESPACE_END
/// @file
/// RWKV-4 and RWKV-7: decoders without attention, spelled with the policies they are made of.

/// @file
/// Channel mixing of RWKV-4 and RWKV-7 (Peng et al. 2023, Peng et al. 2025): a feed-forward with
/// squared ReLU. It also reads the token before.

/// @file
/// The token shift of RWKV: every channel reads a mixture of this token and the one before it.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Which of two neighbouring tokens a mixing parameter is the weight of; the other has the rest.
enum class mixed_by {
  current,  ///< RWKV-4: mu x_t + (1 - mu) x_{t-1}
  previous  ///< RWKV-7: x_t + mu (x_{t-1} - x_t)
};

/// Makes `Count` mixtures of neighbouring rows of x[rows, D], each with a parameter vector mu[D].
/// The row before the first of a sequence is zero; while decoding it is kept from call to call.
template <index D, index Count, mixed_by By>
struct token_shift {
  static constexpr auto count = static_cast<std::size_t>(Count);

  template <class T>
  struct cache {
    std::array<T*, count> mixed{};  ///< [rows, D]
    T* last = nullptr;              ///< [batch, D] last row of each sequence, while decoding
    T* gradient = nullptr;          ///< [rows, D] of one mixture, while training
  };
  /// Takes scratch memory for `gradient`, which the calling layer releases.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    for (T*& one : c.mixed) one = m.saved.take<T>(e.rows() * D);
    if (e.capacity > 0) c.last = m.state.take<T>(e.batch * D);
    if (e.training) c.gradient = m.scratch.take<T>(e.rows() * D);
    return c;
  }

  /// Copies the last row of one sequence to another.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    copy_sequence(c.last, D, from, to, part);
  }

  /// Computes c.mixed from x.
  template <class T>
  static void forward(const std::array<const T*, count>& mu, const T* x, const cache<T>& c,
                      const context<T>& ctx) {
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      const index b = row / ctx.length, t = row % ctx.length;
      const T* const now = x + row * D;
      const T* const before = t > 0 ? now - D : ctx.past_of(b) > 0 ? c.last + b * D : nullptr;
      for (std::size_t m = 0; m < count; ++m) {
        T* const y = c.mixed[m] + row * D;
        for (index j = 0; j < D; ++j) {
          const T old = before ? before[j] : T(0);
          y[j] = now[j] + previous(mu[m][j]) * (old - now[j]);
        }
      }
    });
    if (ctx.past)
      ctx.on.threads.each(ctx.batch, [&](index b) {
        std::copy_n(x + (b * ctx.length + ctx.length_of(b) - 1) * D, D, c.last + b * D);
      });
  }
  /// Adds to dx and d_mu the gradient of one mixture, which is in c.gradient.
  template <class T>
  static void backward(const T* mu, T* d_mu, const T* x, T* dx, const cache<T>& c,
                       const context<T>& ctx) {
    const T* const dy = c.gradient;
    ctx.on.threads.each(ctx.rows(), [&](index row) {
      const bool last = row % ctx.length == ctx.length - 1;
      const T* const d_now = dy + row * D;
      for (index j = 0; j < D; ++j) {
        const T share = previous(mu[j]);
        dx[row * D + j] += (T(1) - share) * d_now[j] + (last ? T(0) : share * d_now[D + j]);
      }
    });
    const auto [first, end] = ctx.on.threads.range(D);
    for (index row = 0; row < ctx.rows(); ++row)
      for (index j = first; j < end; ++j) {
        const T now = x[row * D + j], old = row % ctx.length > 0 ? x[(row - 1) * D + j] : T(0);
        const T change = dy[row * D + j] * (old - now);
        d_mu[j] += By == mixed_by::previous ? change : -change;
      }
    ctx.on.threads.wait();
  }

  /// Numbers that each sequence keeps while decoding.
  static constexpr index state_values() { return D; }

 private:
  template <class T>
  static T previous(T mu) {
    return By == mixed_by::previous ? mu : T(1) - mu;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y[n] = max(x[n], 0)^2
template <class T>
void relu_squared(const ops::execution& on, index n, const T* x, T* y) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) {
      const T positive = x[i] < T(0) ? T(0) : x[i];  // a NaN stays
      y[i] = positive * positive;
    }
  });
}
/// dx[n] = dy[n] 2 max(x[n], 0); dx may be dy.
template <class T>
void relu_squared_backward(const ops::execution& on, index n, const T* x, const T* dy, T* dx) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) dx[i] = x[i] < T(0) ? T(0) : T(2) * x[i] * dy[i];
  });
}

/// y = W_v relu(W_k x_k)^2, times sigmoid(W_r x_r) if `Gated`; x_k and x_r mix this token with the
/// one before. F is the width of the hidden layer.
template <index D, index F, bool Gated>
struct channel_mix {
  static constexpr index in = D, out = D;
  static constexpr std::size_t last = Gated ? 1 : 0;
  using wide = linear<D, F>;
  using narrow = linear<F, D>;
  using square = linear<D, D>;
  using shift = token_shift<D, Gated ? 2 : 1, Gated ? mixed_by::current : mixed_by::previous>;

  template <class Form>
  struct gate_params {
    typename Form::vector time_mix_r{};
    typename square::template params<Form> receptance{};
  };
  template <class Form>
  struct params {
    typename Form::vector time_mix_k{};
    typename wide::template params<Form> key{};
    typename narrow::template params<Form> value{};
    [[no_unique_address]] std::conditional_t<Gated, gate_params<Form>, std::nullptr_t> gate{};
  };
  template <class Fn, class... P>
  static constexpr void visit(Fn&& f, const parameter_path& at, P&... p) {
    const tensor_info mix{1, D, role::bias, 0, start_mix};
    const auto starting = [&](decltype(tensor_info::start) start) {
      return [&f, start](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = start;
        f(where, info, leaf...);
      };
    };
    f(at / (Gated ? "time_mix_k" : "x_k"), mix, p.time_mix_k...);
    if constexpr (Gated) f(at / "time_mix_r", mix, p.gate.time_mix_r...);
    wide::visit(starting(start_key), at / "key", p.key...);
    narrow::visit(starting(start_zero), at / "value", p.value...);
    if constexpr (Gated)
      square::visit(starting(start_zero), at / "receptance", p.gate.receptance...);
  }

  template <class T>
  struct cache {
    typename shift::template cache<T> shifted{};
    T *hidden = nullptr, *squared = nullptr;  ///< [rows, F]
    T *r = nullptr, *value = nullptr;         ///< [rows, D] sigmoid, and what it gates
    T *d_hidden = nullptr, *dr = nullptr, *d_value = nullptr;
    int dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.dropout_id = m.dropout_ids++;
    m.product(e.rows(), D, F, e);
    m.product(e.rows(), F, D, e);
    m.product(e.rows(), D, D, e);
    c.shifted = shift::template plan<T>(m, e);
    c.hidden = m.saved.take<T>(e.rows() * F);
    c.squared = m.saved.take<T>(e.rows() * F);
    if (Gated) {
      c.r = m.saved.take<T>(e.rows() * D);
      c.value = m.saved.take<T>(e.rows() * D);
    }
    if (e.training) {
      c.d_hidden = m.scratch.take<T>(e.rows() * F);
      if (Gated) {
        c.dr = m.scratch.take<T>(e.rows() * D);
        c.d_value = m.scratch.take<T>(e.rows() * D);
      }
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                      cache<T>& c, context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows();
    const auto& mixed = c.shifted.mixed;
    if constexpr (Gated)
      shift::forward({p.time_mix_k, p.gate.time_mix_r}, x.data(), c.shifted, ctx);
    else
      shift::forward({p.time_mix_k}, x.data(), c.shifted, ctx);
    wide::template forward<T, S>(p.key, {mixed[0], rows}, {c.hidden, rows}, none, ctx);
    relu_squared(ctx.on, rows * F, c.hidden, c.squared);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.squared);
    const view<T, D> value(Gated ? c.value : y.data(), rows);
    narrow::template forward<T, S>(p.value, {c.squared, rows}, value, none, ctx);
    if constexpr (Gated) {
      square::template forward<T, S>(p.gate.receptance, {mixed[last], rows}, {c.r, rows}, none,
                                     ctx);
      gate(ctx.on, x.size(), c.r, c.value, y.data());
    }
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const index rows = x.rows(), size = x.size();
    const auto& mixed = c.shifted.mixed;
    const view<T, D> d_mixed(c.shifted.gradient, rows);
    if constexpr (Gated) {
      gate_backward(ctx.on, size, c.r, c.value, dy.data(), c.dr, c.d_value);
      ops::fill(ctx.on, size, T(0), d_mixed.data());
      square::template backward<T, S>(p.gate.receptance, dp.gate.receptance, {mixed[last], rows},
                                      {c.dr, rows}, d_mixed, none, ctx);
      shift::backward(p.gate.time_mix_r, dp.gate.time_mix_r, x.data(), dx.data(), c.shifted, ctx);
    }
    const view<const T, D> d_value(Gated ? c.d_value : dy.data(), rows);
    ops::fill(ctx.on, rows * F, T(0), c.d_hidden);
    narrow::template backward<T, S>(p.value, dp.value, {c.squared, rows}, d_value,
                                    {c.d_hidden, rows}, none, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.dropout_id, ctx.batch, ctx.length, F, c.d_hidden);
    relu_squared_backward(ctx.on, rows * F, c.hidden, c.d_hidden, c.d_hidden);
    ops::fill(ctx.on, size, T(0), d_mixed.data());
    wide::template backward<T, S>(p.key, dp.key, {mixed[0], rows}, {c.d_hidden, rows}, d_mixed,
                                  none, ctx);
    shift::backward(p.time_mix_k, dp.time_mix_k, x.data(), dx.data(), c.shifted, ctx);
  }

  /// Copies the state of one sequence to another.
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    shift::copy_state(c.shifted, from, to, part);
  }
  /// Numbers that each sequence keeps while decoding, whatever its length.
  static constexpr index state_values(index) { return shift::state_values(); }
  static constexpr index flops(const call_shape& e) {
    return wide::flops(e) + narrow::flops(e) + (Gated ? square::flops(e) : 0);
  }

 private:
  // The reference trainers' values; they draw W_k orthogonal, here it is normal of that size.
  static double start_mix(const parameter_path& at, index i, random_stream&) {
    const double channel = static_cast<double>(i) / static_cast<double>(D);
    const double rest = layer_position(at).rest();
    return Gated ? std::pow(channel, rest) : 1 - std::pow(channel, std::pow(rest, 4));
  }
  static double start_key(const parameter_path&, index, random_stream& random) {
    const double size = static_cast<double>(Gated || D > F ? D : F);
    return random.normal() / std::sqrt(size);
  }
};

}  // namespace detail

namespace ffn {

/// RWKV-4's channel mix: sigmoid(W_r x_r) W_v relu(W_k x_k)^2. Keeps the last token while decoding.
struct rwkv4_channel_mix : policy {
  static constexpr bool can_truncate = false;
  using kind = rwkv4_channel_mix;
  static std::string name() { return "rwkv4_channel_mix"; }
  template <index D, index F, bool Bias>
  struct layer : linnet::detail::channel_mix<D, F, true> {
    static_assert(!Bias, "linnet::ffn::rwkv4_channel_mix: RWKV has no biases");
  };
};
/// RWKV-7's channel mix: W_v relu(W_k x_k)^2. Keeps the last token while decoding.
struct rwkv7_channel_mix : policy {
  static constexpr bool can_truncate = false;
  using kind = rwkv7_channel_mix;
  static std::string name() { return "rwkv7_channel_mix"; }
  template <index D, index F, bool Bias>
  struct layer : linnet::detail::channel_mix<D, F, false> {
    static_assert(!Bias, "linnet::ffn::rwkv7_channel_mix: RWKV has no biases");
  };
};

}  // namespace ffn

LINNET_NAMESPACE_END
/// @file
/// Time mixing of RWKV-4 (Peng et al. 2023, arXiv:2305.13048), in the place of attention.

/// @file
/// The recurrence of RWKV-4: per channel, an average of all past values, weighted by e^key and an
/// exponential decay (Peng et al. 2023, arXiv:2305.13048).

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Tokens between two stored states of a recurrence; backward computes those between them again.
inline constexpr index recurrent_chunk = 16;
/// Stored states of a sequence.
constexpr index recurrent_chunks(index length) {
  return (length + recurrent_chunk - 1) / recurrent_chunk;
}

/// Arguments of RWKV-4's recurrence. With w = -e^decay and u = bonus, per channel, y_t = (P_{t-1} +
/// e^{u + k_t} v_t) / (Q_{t-1} + e^{u + k_t}). P_t = e^w P_{t-1} + e^{k_t} v_t, and Q_t has ones in
/// place of v.
template <class T>
struct wkv4_call {
  index batch, length, d;
  const T *decay, *bonus;        ///< [d]
  const T *k, *v;                ///< [batch, length, d]
  T* y;                          ///< [batch, length, d]
  T* state = nullptr;            ///< [batch, 3, d] P, Q and their exponent, from call to call
  const index* past = nullptr;   ///< tokens that `state` knows; null: start from nothing
  const index* valid = nullptr;  ///< new tokens of each sequence; null: all
  T* starts = nullptr;           ///< [batch, chunks, 3, d] states for backward, or null
};
/// Gradients of RWKV-4's recurrence, all overwritten.
template <class T>
struct wkv4_gradients {
  const T* dy;           ///< [batch, length, d]
  T *dk, *dv;            ///< [batch, length, d]
  T *d_decay, *d_bonus;  ///< [batch, d] sums over each sequence
};

namespace detail {

/// Channels that one thread works on at a time.
inline constexpr index wkv4_channels = 16;
/// Exponent of an empty sum.
inline constexpr double nothing = -1e38;

/// The sums P and Q times e^-o, and o, of some channels. Sums are relative to the largest exponent
/// in them, so that no key overflows.
template <class T>
struct wkv4_state {
  static constexpr index width = wkv4_channels;
  alignas(64) T p[width], q[width], o[width];

  wkv4_state() {
    std::fill_n(p, width, T(0));
    std::fill_n(q, width, T(0));
    std::fill_n(o, width, T(nothing));
  }
  /// Loads some channels of [3, d].
  void load(const T* from, index d, index count) {
    std::copy_n(from, count, p);
    std::copy_n(from + d, count, q);
    std::copy_n(from + 2 * d, count, o);
  }
  void store(T* to, index d, index count) const {
    std::copy_n(p, count, to);
    std::copy_n(q, count, to + d);
    std::copy_n(o, count, to + 2 * d);
  }
  /// Adds one token to the state.
  template <class Kernels>
  void step(Kernels, index count, const T* w, const T* k, const T* v) {
    alignas(64) T e[std::size_t{2 * width}] = {};
    for (index c = 0; c < count; ++c) {
      const T decayed = o[c] + w[c], top = (std::max)(decayed, k[c]);
      e[c] = decayed - top;
      e[width + c] = k[c] - top;
      o[c] = top;
    }
    Kernels::template exp_sum<T>(2 * width, T(0), e);
    for (index c = 0; c < count; ++c) {
      p[c] = e[c] * p[c] + e[width + c] * v[c];
      q[c] = e[c] * q[c] + e[width + c];
    }
  }
};

/// Calls f(kernels, sequence, first channel, channels, w) for this thread's share of the channels.
template <class T, class F>
void each_wkv4(const execution& on, const wkv4_call<T>& a, F&& f) {
  const index blocks = (a.d + wkv4_channels - 1) / wkv4_channels;
  on.threads.each(a.batch * blocks, [&](index unit) {
    const index first = unit % blocks * wkv4_channels,
                count = (std::min)(wkv4_channels, a.d - first);
    T w[wkv4_channels];
    for (index c = 0; c < count; ++c) w[c] = -std::exp(a.decay[first + c]);
    simd::dispatch(on.level, [&](auto kernels) { f(kernels, unit / blocks, first, count, w); });
  });
}

}  // namespace detail

/// Computes y of all tokens, and the states that backward needs. Rows behind `valid` get zeros and
/// change no state.
template <class T>
void wkv4(const execution& on, const wkv4_call<T>& a) {
  constexpr index width = detail::wkv4_channels;
  detail::each_wkv4(on, a, [&](auto kernels, index b, index first, index count, const T* w) {
    using K = decltype(kernels);
    detail::wkv4_state<T> s;
    T* const kept = a.state ? a.state + b * 3 * a.d + first : nullptr;
    if (a.past && a.past[b] > 0) s.load(kept, a.d, count);
    const index valid = a.valid ? a.valid[b] : a.length;
    for (index t = 0; t < a.length; ++t) {
      const index at = (b * a.length + t) * a.d + first;
      T* const y = a.y + at;
      if (t >= valid) {
        std::fill_n(y, count, T(0));
        continue;
      }
      if (a.starts && t % recurrent_chunk == 0)
        s.store(a.starts + (b * recurrent_chunks(a.length) + t / recurrent_chunk) * 3 * a.d + first,
                a.d, count);
      alignas(64) T e[std::size_t{2 * width}] = {};
      for (index c = 0; c < count; ++c) {
        const T now = a.bonus[first + c] + a.k[at + c], top = (std::max)(s.o[c], now);
        e[c] = s.o[c] - top;
        e[width + c] = now - top;
      }
      K::template exp_sum<T>(2 * width, T(0), e);
      for (index c = 0; c < count; ++c)
        y[c] = (e[c] * s.p[c] + e[width + c] * a.v[at + c]) / (e[c] * s.q[c] + e[width + c]);
      s.step(kernels, count, w, a.k + at, a.v + at);
    }
    if (kept) s.store(kept, a.d, count);
  });
}

/// Derivatives of wkv4(), of a call that began from an empty state and stored its `starts`. GP and
/// GQ, the gradients of P and Q, run backwards in time with an exponent of their own: GP_{t-1} =
/// s_t + e^w GP_t and GQ_{t-1} = -s_t y_t + e^w GQ_t, where s_t = dy_t / denominator.
template <class T>
void wkv4_backward(const execution& on, const wkv4_call<T>& a, const wkv4_gradients<T>& g) {
  constexpr index width = detail::wkv4_channels;
  detail::each_wkv4(on, a, [&](auto kernels, index b, index first, index count, const T* w) {
    using K = decltype(kernels);
    detail::wkv4_state<T> before[recurrent_chunk];  // each token of a chunk
    detail::wkv4_state<T> later;                    // GP, GQ and their exponent
    T d_decay[width] = {}, d_bonus[width] = {};
    const index chunks = recurrent_chunks(a.length);
    for (index chunk = chunks; chunk-- > 0;) {
      const index t0 = chunk * recurrent_chunk, n = (std::min)(recurrent_chunk, a.length - t0);
      before[0].load(a.starts + (b * chunks + chunk) * 3 * a.d + first, a.d, count);
      for (index i = 0; i + 1 < n; ++i) {
        const index at = (b * a.length + t0 + i) * a.d + first;
        before[i + 1] = before[i];
        before[i + 1].step(kernels, count, w, a.k + at, a.v + at);
      }
      for (index i = n; i-- > 0;) {
        const auto& s = before[i];
        const index at = (b * a.length + t0 + i) * a.d + first;
        const T *const k = a.k + at, *const v = a.v + at, *const y = a.y + at;
        alignas(64) T e[std::size_t{6 * width}] = {};
        T exponent[width];
        for (index c = 0; c < count; ++c) {
          const T now = a.bonus[first + c] + k[c], top = (std::max)(s.o[c], now);
          const T decayed = later.o[c] + w[c];
          exponent[c] = (std::max)(decayed, -top);
          e[c] = s.o[c] - top;
          e[width + c] = now - top;
          e[2 * width + c] = k[c] + later.o[c];           // at most 0
          e[3 * width + c] = s.o[c] + w[c] + later.o[c];  // likewise
          e[4 * width + c] = decayed - exponent[c];
          e[5 * width + c] = -top - exponent[c];
        }
        K::template exp_sum<T>(6 * width, T(0), e);
        for (index c = 0; c < count; ++c) {
          const T share = g.dy[at + c] / (e[c] * s.q[c] + e[width + c]);
          const T now = e[width + c] * share, then = e[2 * width + c];
          const T through_now = now * (v[c] - y[c]);
          g.dv[at + c] = now + then * later.p[c];
          g.dk[at + c] = through_now + then * (later.p[c] * v[c] + later.q[c]);
          d_bonus[c] += through_now;
          d_decay[c] += e[3 * width + c] * (later.p[c] * s.p[c] + later.q[c] * s.q[c]);
          later.p[c] = e[4 * width + c] * later.p[c] + e[5 * width + c] * share;
          later.q[c] = e[4 * width + c] * later.q[c] - e[5 * width + c] * share * y[c];
          later.o[c] = exponent[c];
        }
      }
    }
    for (index c = 0; c < count; ++c) {
      g.d_decay[b * a.d + first + c] = d_decay[c] * w[c];  // dw / d decay = w
      g.d_bonus[b * a.d + first + c] = d_bonus[c];
    }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Recurrent mixers of tokens: attention policies whose decoding state has a fixed size.
namespace mixer {

/// Base of recurrent mixers: they read from left to right and cannot take tokens back.
struct policy : attention::policy {
  static constexpr bool bidirectional = false;
  static constexpr bool can_truncate = false;
};

/// RWKV-4's time mixing: y = W_o (sigmoid(r) wkv), where wkv averages all values so far, weighted
/// by e^key and an exponential decay per channel. The token itself has a bonus in place of the
/// decay. r, k and v read mixtures of this token and the one before. Linear in the length, needs no
/// positions, and heads play no part. Goes with ffn::rwkv4_channel_mix.
struct rwkv4 : policy {
  static constexpr bool embedding_norm = true;
  using kind = rwkv4;
  static constexpr bool rotary = false;
  static std::string name() { return "rwkv4"; }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal && !A.cross,
                  "linnet::mixer::rwkv4: a recurrence reads its own sequence from left to right");
    static_assert(!A.relative, "linnet::mixer::rwkv4: not for T5, whose positions are relative");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::rwkv4: no positions; give position::none");
    static_assert(!A.bias, "linnet::mixer::rwkv4: RWKV has no biases");
    static constexpr index D = A.d_model, in = D, out = D;
    using map = linear<D, D>;
    using shift = detail::token_shift<D, 3, detail::mixed_by::current>;

    template <class Form>
    struct params {
      typename Form::vector time_mix_k{}, time_mix_v{}, time_mix_r{};
      typename Form::vector time_decay{};  ///< the decay is e^w per token, w = -e^time_decay
      typename Form::vector time_first{};  ///< bonus of the token itself
      typename map::template params<Form> key{}, value{}, receptance{}, output{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      const auto vector = [](decltype(tensor_info::start) start) {
        return tensor_info{1, D, role::bias, 0, start};
      };
      f(at / "time_mix_k", vector(start_mix_k), p.time_mix_k...);
      f(at / "time_mix_v", vector(start_mix_v), p.time_mix_v...);
      f(at / "time_mix_r", vector(start_mix_r), p.time_mix_r...);
      f(at / "time_decay", vector(start_decay), p.time_decay...);
      f(at / "time_first", vector(start_first), p.time_first...);
      const auto zero = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = start_zero;
        f(where, info, leaf...);
      };
      const auto fan_in = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = start_fan_in;
        f(where, info, leaf...);
      };
      map::visit(zero, at / "key", p.key...);
      map::visit(fan_in, at / "value", p.value...);
      map::visit(zero, at / "receptance", p.receptance...);
      map::visit(zero, at / "output", p.output...);
    }

    template <class T>
    struct cache {
      typename shift::template cache<T> shifted{};
      T *k = nullptr, *v = nullptr;            ///< [rows, D]
      T* r = nullptr;                          ///< [rows, D] its sigmoid
      T *average = nullptr, *gated = nullptr;  ///< [rows, D] wkv, sigmoid(r) wkv
      T* state = nullptr;                      ///< [batch, 3, D] while decoding
      T* starts = nullptr;                     ///< [batch, chunks, 3, D] while training
      T *d_gated = nullptr, *dr = nullptr, *dk = nullptr, *dv = nullptr;
      T *d_decay = nullptr, *d_first = nullptr;  ///< [batch, D]
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index size = e.rows() * D, mark = m.scratch.mark();
      m.product(e.rows(), D, D, e);
      c.shifted = shift::template plan<T>(m, e);
      for (T** one : {&c.k, &c.v, &c.r, &c.average, &c.gated}) *one = m.saved.take<T>(size);
      if (e.capacity > 0) c.state = m.state.take<T>(e.batch * 3 * D);
      if (e.training) {
        c.starts = m.saved.take<T>(e.batch * ops::recurrent_chunks(e.length) * 3 * D);
        for (T** one : {&c.d_gated, &c.dr, &c.dk, &c.dv}) *one = m.scratch.take<T>(size);
        for (T** one : {&c.d_decay, &c.d_first}) *one = m.scratch.take<T>(e.batch * D);
      }
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      const auto& mixed = c.shifted.mixed;
      shift::forward({p.time_mix_k, p.time_mix_v, p.time_mix_r}, x.data(), c.shifted, ctx);
      map::template forward<T, S>(p.key, {mixed[0], rows}, {c.k, rows}, none, ctx);
      map::template forward<T, S>(p.value, {mixed[1], rows}, {c.v, rows}, none, ctx);
      map::template forward<T, S>(p.receptance, {mixed[2], rows}, {c.r, rows}, none, ctx);
      ops::wkv4(ctx.on, call(p, c, ctx));
      detail::gate(ctx.on, x.size(), c.r, c.average, c.gated);
      map::template forward<T, S>(p.output, {c.gated, rows}, y, none, ctx);
    }
    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows(), size = x.size();
      ops::fill(ctx.on, size, T(0), c.d_gated);
      map::template backward<T, S>(p.output, dp.output, {c.gated, rows}, dy, {c.d_gated, rows},
                                   none, ctx);
      detail::gate_backward(ctx.on, size, c.r, c.average, c.d_gated, c.dr, c.d_gated);
      ops::wkv4_backward(ctx.on, call(p, c, ctx), {c.d_gated, c.dk, c.dv, c.d_decay, c.d_first});
      ops::bias_gradient(ctx.on, ctx.batch, D, c.d_decay, dp.time_decay);
      ops::bias_gradient(ctx.on, ctx.batch, D, c.d_first, dp.time_first);
      const auto branch = [&](const auto& w, auto& dw, std::size_t which, const T* d_output,
                              const T* mu, T* d_mu) {
        ops::fill(ctx.on, size, T(0), c.shifted.gradient);
        map::template backward<T, S>(w, dw, {c.shifted.mixed[which], rows}, {d_output, rows},
                                     {c.shifted.gradient, rows}, none, ctx);
        shift::backward(mu, d_mu, x.data(), dx.data(), c.shifted, ctx);
      };
      branch(p.key, dp.key, 0, c.dk, p.time_mix_k, dp.time_mix_k);
      branch(p.value, dp.value, 1, c.dv, p.time_mix_v, dp.time_mix_v);
      branch(p.receptance, dp.receptance, 2, c.dr, p.time_mix_r, dp.time_mix_r);
    }

    /// Numbers that each sequence keeps while decoding, whatever its length.
    static constexpr index state_values(index) { return 3 * D + shift::state_values(); }
    /// Copies the state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      shift::copy_state(c.shifted, from, to, part);
      copy_sequence(c.state, 3 * D, from, to, part);
    }
    static constexpr index flops(const call_shape& e) { return 4 * map::flops(e); }

   private:
    template <class T, class P>
    static ops::wkv4_call<T> call(const P& p, const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,
              ctx.length,
              D,
              p.time_decay,
              p.time_first,
              c.k,
              c.v,
              c.average,
              c.state,
              ctx.past,
              ctx.past ? ctx.lengths : nullptr,
              c.starts};
    }

    // The reference trainer's values; it draws W_v orthogonal, here it is normal of that size.
    static double channel(index i) { return static_cast<double>(i) / static_cast<double>(D); }
    static double start_mix_k(const parameter_path& at, index i, random_stream&) {
      return std::pow(channel(i), layer_position(at).rest());
    }
    static double start_mix_v(const parameter_path& at, index i, random_stream&) {
      return std::pow(channel(i), layer_position(at).rest()) + 0.3 * layer_position(at).fraction();
    }
    static double start_mix_r(const parameter_path& at, index i, random_stream&) {
      return std::pow(channel(i), 0.5 * layer_position(at).rest());
    }
    static double start_decay(const parameter_path& at, index i, random_stream&) {
      const double along = D > 1 ? static_cast<double>(i) / static_cast<double>(D - 1) : 0;
      return -5 + 8 * std::pow(along, 0.7 + 1.3 * layer_position(at).fraction());
    }
    static double start_first(const parameter_path&, index i, random_stream&) {
      return std::log(0.3) + 0.5 * static_cast<double>((i + 1) % 3 - 1);
    }
    static double start_fan_in(const parameter_path&, index, random_stream& random) {
      return map::weight_info.deviation * random.normal();
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END
/// @file
/// Time mixing of RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456), in the place of
/// attention.

/// @file
/// Elementwise steps around the recurrence of RWKV-7 (Peng et al. 2025).

LINNET_NAMESPACE_BEGIN

namespace detail {

/// y = tanh(x) or sigmoid(x), elementwise, between the two factors of a low-rank map.
template <index D, bool Tanh>
struct squash : without_parameters, without_cache {
  static constexpr index in = D, out = D;
  template <class T>
  static T value(T x) {
    return Tanh ? std::tanh(x) : sigmoid(x);
  }
  template <class T, class S, class P>
  static void forward(const P&, view<const T, D> x, view<T, D> y, without_cache::cache<T>&,
                      context<T>& ctx) {
    ops::detail::in_slices<T>(ctx.on, x.size(), [&](index at, index count) {
      for (index i = at; i < at + count; ++i) y.data()[i] = value(x.data()[i]);
    });
  }
  template <class T, class S, class P, class G>
  static void backward(const P&, G&, view<const T, D> x, view<const T, D> dy, view<T, D> dx,
                       without_cache::cache<T>&, context<T>& ctx) {
    ops::detail::in_slices<T>(ctx.on, x.size(), [&](index at, index count) {
      for (index i = at; i < at + count; ++i) {
        const T y = value(x.data()[i]);
        dx.data()[i] += dy.data()[i] * (Tanh ? T(1) - y * y : y * (T(1) - y));
      }
    });
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// The rank of RWKV-7's low-rank maps: max(32, 32 round(factor sqrt(d) / 32)).
constexpr index rwkv7_rank(index d, double factor) {
  const auto steps = static_cast<index>(factor * sqrt(static_cast<double>(d)) / 32 + 0.5);
  return 32 * (steps > 1 ? steps : 1);
}

/// Elementwise steps of one head of one token around RWKV-7's recurrence.
template <index N>
struct rwkv7_head {
  static constexpr double slowest = 0.6065306597126334;  ///< e^{-1/2}: decays are above e^-slowest
  static constexpr double norm_floor = 1e-12;

  /// Values of one head: outputs of the linear maps, with parameters, and inputs of the recurrence.
  template <class T>
  struct prepared {
    const T *key, *k_k, *k_a;
    T *decay, *rate;  ///< sigmoids of w and a
    T *w, *k, *remove, *weight;
    T* inverse;  ///< 1 / |key k_k|
  };
  template <class T>
  static void prepare(const prepared<T>& h, const T* w0, const T* a0) {
    T square = 0;
    for (index j = 0; j < N; ++j) {
      h.decay[j] = sigmoid(w0[j] + h.decay[j]);
      h.rate[j] = sigmoid(a0[j] + h.rate[j]);
      h.w[j] = std::exp(-T(slowest) * h.decay[j]);
      h.k[j] = h.key[j] * (T(1) + (h.rate[j] - T(1)) * h.k_a[j]);
      h.remove[j] = h.key[j] * h.k_k[j];
      square += h.remove[j] * h.remove[j];
    }
    *h.inverse = T(1) / (std::max)(std::sqrt(square), T(norm_floor));
    for (index j = 0; j < N; ++j) {
      h.remove[j] *= *h.inverse;
      h.weight[j] = h.remove[j] * h.rate[j];
    }
  }
  /// From the gradients of w, k, remove and weight: those before the sigmoids in dw and d_weight.
  /// The gradient of the key's map is in d_key, that of key k_k in d_remove. dk stays.
  template <class T>
  static void prepare_backward(const prepared<T>& h, T* dw, const T* dk, T* d_remove, T* d_weight,
                               T* d_key) {
    T along = 0;
    for (index j = 0; j < N; ++j) {
      const T d_rate = d_weight[j] * h.remove[j] + dk[j] * h.key[j] * h.k_a[j];
      d_remove[j] += d_weight[j] * h.rate[j];
      along += d_remove[j] * h.remove[j];
      d_weight[j] = d_rate * h.rate[j] * (T(1) - h.rate[j]);
      dw[j] *= -T(slowest) * h.w[j] * h.decay[j] * (T(1) - h.decay[j]);
    }
    if (*h.inverse >= T(1 / norm_floor)) along = 0;  // divided by the floor, a constant
    for (index j = 0; j < N; ++j) {
      d_remove[j] = (d_remove[j] - h.remove[j] * along) * *h.inverse;
      d_key[j] = d_remove[j] * h.k_k[j] + dk[j] * (T(1) + (h.rate[j] - T(1)) * h.k_a[j]);
    }
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// The recurrence of RWKV-7 (Peng et al. 2025, arXiv:2503.14456): a generalised delta rule. Per
/// head, a matrix from keys to values decays, forgets the value of a key and learns a new pair at
/// every token.

LINNET_NAMESPACE_BEGIN

namespace ops {

/// The vectors of each token that the recurrence reads, or their gradients: [batch, length,
/// heads * n] each.
template <class T>
struct wkv7_vectors {
  T* r;       ///< what is asked for
  T* w;       ///< decay of each key channel, in (0, 1)
  T* k;       ///< the key under which v is added
  T* v;       ///< the value
  T* remove;  ///< kappa, the key whose value is removed
  T* weight;  ///< kappa a, removed how strongly
};

/// Arguments of RWKV-7's recurrence: per head, S[n, n] maps keys (columns) to values (rows). S <- S
/// diag(w) - (S kappa)(kappa a)^T + v k^T and y = S r.
template <class T>
struct wkv7_call {
  index batch, length, heads, n;
  wkv7_vectors<const T> x;
  T* y;                          ///< [batch, length, heads * n]
  T* state;                      ///< [batch, heads, n, n] S, from call to call if `past` is given
  const index* past = nullptr;   ///< tokens that `state` knows; null: start from nothing
  const index* valid = nullptr;  ///< new tokens of each sequence; null: all
  T* starts = nullptr;           ///< [batch, heads, chunks, n, n] states for backward, or null

  index width() const { return heads * n; }
};

namespace detail {

/// Rows of a state that one thread works on at a time.
inline constexpr index wkv7_rows = 16;

/// Adds one token to rows [i0, i0 + rows) of S, which may be `to`. `at`: where the head's vectors
/// of this token begin.
template <class Kernels, class T>
void wkv7_step(Kernels, const wkv7_call<T>& a, index at, index i0, index rows, const T* from,
               T* to) {
  T removed[wkv7_rows];
  Kernels::template dots<T>(rows, a.n, T(1), a.x.remove + at, from, a.n, removed);
  const T *const w = a.x.w + at, *const k = a.x.k + at, *const weight = a.x.weight + at;
  for (index i = 0; i < rows; ++i) {
    const T value = a.x.v[at + i0 + i], old = removed[i];
    const T* const s = from + i * a.n;
    T* const next = to + i * a.n;
    for (index j = 0; j < a.n; ++j) next[j] = s[j] * w[j] - old * weight[j] + value * k[j];
  }
}
/// Adds one token to all rows.
template <class Kernels, class T>
void wkv7_step(Kernels kernels, const wkv7_call<T>& a, index at, const T* from, T* to) {
  for (index i = 0; i < a.n; i += wkv7_rows)
    wkv7_step(kernels, a, at, i, (std::min)(wkv7_rows, a.n - i), from + i * a.n, to + i * a.n);
}

}  // namespace detail

/// Computes y of all tokens, and the states that backward needs. Rows behind `valid` get zeros and
/// change no state.
template <class T>
void wkv7(const execution& on, const wkv7_call<T>& a) {
  const index n = a.n, blocks = (n + detail::wkv7_rows - 1) / detail::wkv7_rows;
  on.threads.each(a.batch * a.heads * blocks, [&](index unit) {
    const index i0 = unit % blocks * detail::wkv7_rows,
                rows = (std::min)(detail::wkv7_rows, n - i0), head = unit / blocks,
                b = head / a.heads, valid = a.valid ? a.valid[b] : a.length;
    T* const s = a.state + (head * n + i0) * n;
    if (!a.past || a.past[b] == 0) std::fill_n(s, rows * n, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index t = 0; t < a.length; ++t) {
        const index at = (b * a.length + t) * a.width() + head % a.heads * n;
        if (t >= valid) {
          std::fill_n(a.y + at + i0, rows, T(0));
          continue;
        }
        if (a.starts && t % recurrent_chunk == 0)
          std::copy_n(
              s, rows * n,
              a.starts + ((head * recurrent_chunks(a.length) + t / recurrent_chunk) * n + i0) * n);
        detail::wkv7_step(kernels, a, at, i0, rows, s, s);
        K::template dots<T>(rows, n, T(1), a.x.r + at, s, n, a.y + at + i0);
      }
    });
  });
}

/// Scratch of wkv7_backward() per thread.
constexpr index wkv7_scratch(index n) { return (recurrent_chunk + 2) * n * n + 2 * n; }

/// Derivatives of wkv7(), of a call that began from an empty state and stored its `starts`; `dx` is
/// overwritten. `scratch` has wkv7_scratch(n) values per thread.
template <class T>
void wkv7_backward(const execution& on, const wkv7_call<T>& a, const T* dy,
                   const wkv7_vectors<T>& dx, T* scratch) {
  const index n = a.n, size = n * n, chunks = recurrent_chunks(a.length);
  T* const states = scratch + on.threads.rank() * wkv7_scratch(n);  // before and after each token
  T* const g = states + (recurrent_chunk + 1) * size;               // gradient of S
  T* const removed = g + size;                                      // S kappa
  T* const d_removed = removed + n;
  on.threads.each(a.batch * a.heads, [&](index head) {
    const index b = head / a.heads;
    std::fill_n(g, size, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      using K = decltype(kernels);
      for (index chunk = chunks; chunk-- > 0;) {
        const index t0 = chunk * recurrent_chunk,
                    tokens = (std::min)(recurrent_chunk, a.length - t0);
        const auto place = [&](index i) {
          return (b * a.length + t0 + i) * a.width() + head % a.heads * n;
        };
        std::copy_n(a.starts + (head * chunks + chunk) * size, size, states);
        for (index i = 0; i < tokens; ++i)
          detail::wkv7_step(kernels, a, place(i), states + i * size, states + (i + 1) * size);
        for (index t = tokens; t-- > 0;) {
          const index at = place(t);
          const T *const before = states + t * size, *const after = before + size;
          const T *const r = a.x.r + at, *const w = a.x.w + at, *const remove = a.x.remove + at;
          for (index i = 0; i < n; ++i)
            for (index j = 0; j < n; ++j) g[i * n + j] += dy[at + i] * r[j];
          K::template mix<T>(n, n, dy + at, after, n, dx.r + at);
          K::template dots<T>(n, n, T(1), a.x.k + at, g, n, dx.v + at);
          K::template mix<T>(n, n, a.x.v + at, g, n, dx.k + at);
          K::template dots<T>(n, n, T(1), remove, before, n, removed);
          K::template dots<T>(n, n, T(-1), a.x.weight + at, g, n, d_removed);
          K::template mix<T>(n, n, removed, g, n, dx.weight + at);
          K::template mix<T>(n, n, d_removed, before, n, dx.remove + at);
          T *const d_weight = dx.weight + at, *const dw = dx.w + at;
          for (index j = 0; j < n; ++j) d_weight[j] = -d_weight[j];
          std::fill_n(dw, n, T(0));
          for (index i = 0; i < n; ++i)
            for (index j = 0; j < n; ++j) {
              T& gij = g[i * n + j];
              dw[j] += before[i * n + j] * gij;
              gij = gij * w[j] + d_removed[i] * remove[j];
            }
        }
      }
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace mixer {

/// RWKV-7's time mixing: per head, a matrix from keys to values. At each token it decays by
/// channel, forgets part of the value of the normalised key, and adds the new value. This is a
/// generalised delta rule with vector-valued decay and in-context learning rate. A norm per head, a
/// bonus for the token itself and a gate follow. Layers after the first mix their values with the
/// first layer's. Linear in the length, needs no positions; d_kv is the size of a head. Goes with
/// ffn::rwkv7_channel_mix.
struct rwkv7 : policy {
  static constexpr bool embedding_norm = true;
  static constexpr bool first_differs = true;
  using kind = rwkv7;
  static constexpr bool rotary = false;
  static std::string name() { return "rwkv7"; }

  template <attention_shape A>
  struct layer {
    static_assert(A.causal && !A.cross,
                  "linnet::mixer::rwkv7: a recurrence reads its own sequence from left to right");
    static_assert(!A.relative, "linnet::mixer::rwkv7: not for T5, whose positions are relative");
    static_assert(A.rope == rope_pairing::none,
                  "linnet::mixer::rwkv7: no positions; give position::none");
    static_assert(!A.bias, "linnet::mixer::rwkv7: RWKV has no biases");
    static_assert(A.n() == A.d_model && A.kv_heads == A.heads,
                  "linnet::mixer::rwkv7: heads * d_kv must be d_model, and kv_heads heads");
    static constexpr index D = A.d_model, heads = A.heads, N = A.d_kv, in = D, out = D;
    static constexpr bool first = A.first;
    static constexpr double norm_eps = 64e-5;
    using map = linear<D, D>;
    using shift = detail::token_shift<D, 6, detail::mixed_by::previous>;
    using head = detail::rwkv7_head<N>;
    template <fixed_string One, fixed_string Two, index R>
    using low_rank = chain<named<One, linear<D, R>>, named<Two, linear<R, D>>>;
    template <fixed_string One, fixed_string Two, index R, bool Tanh>
    using squashed = chain<named<One, linear<D, R>>, named<"", detail::squash<R, Tanh>>,
                           named<Two, linear<R, D>>>;
    using to_decay = squashed<"w1", "w2", detail::rwkv7_rank(D, 2.5), true>;
    using to_rate = low_rank<"a1", "a2", detail::rwkv7_rank(D, 2.5)>;
    using to_share = low_rank<"v1", "v2", detail::rwkv7_rank(D, 1.7)>;
    using to_gate = squashed<"g1", "g2", detail::rwkv7_rank(D, 5), false>;

    /// Parameters of the gate that mixes the first layer's values into those of later layers.
    template <class Form>
    struct share_params {
      typename Form::vector v0{};
      typename to_share::template params<Form> projections{};
    };
    template <class Form>
    struct params {
      typename Form::vector x_r{}, x_w{}, x_k{}, x_v{}, x_a{}, x_g{};
      typename Form::vector w0{}, a0{}, k_k{}, k_a{}, r_k{};
      typename to_decay::template params<Form> decay{};
      typename to_rate::template params<Form> rate{};
      typename to_gate::template params<Form> gate{};
      [[no_unique_address]] std::conditional_t<first, std::nullptr_t, share_params<Form>> share{};
      typename map::template params<Form> receptance{}, key{}, value{}, output{};
      typename Form::vector norm_weight{}, norm_bias{};
    };
    template <class F, class... P>
    static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
      const auto vector = [](decltype(tensor_info::start) start) {
        return tensor_info{1, D, role::bias, 0, start};
      };
      const auto starting = [&](decltype(tensor_info::start) start) {
        return [&f, start](const parameter_path& where, tensor_info info, auto&... leaf) {
          info.start = start;
          f(where, info, leaf...);
        };
      };
      // The first factor of a low-rank map starts at zero, the second small.
      const auto factors = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
        info.start = where.parent->name.ends_with('1') ? start_zero : start_normal<0.1>;
        f(where, info, leaf...);
      };
      f(at / "x_r", vector(start_mix<0.2>), p.x_r...);
      f(at / "x_w", vector(start_mix<0.9>), p.x_w...);
      f(at / "x_k", vector(start_mix<0.7>), p.x_k...);
      f(at / "x_v", vector(start_mix<0.7>), p.x_v...);
      f(at / "x_a", vector(start_mix<0.9>), p.x_a...);
      f(at / "x_g", vector(start_mix<0.2>), p.x_g...);
      f(at / "w0", vector(start_decay), p.w0...);
      f(at / "a0", vector(start_rate), p.a0...);
      f(at / "k_k", vector(start_removal), p.k_k...);
      f(at / "k_a", vector(start_constant<1.02>), p.k_a...);
      f(at / "r_k", vector(start_constant<-0.04>), p.r_k...);
      to_decay::visit(factors, at, p.decay...);
      to_rate::visit(factors, at, p.rate...);
      to_gate::visit(factors, at, p.gate...);
      if constexpr (!first) {
        f(at / "v0", vector(start_share), p.share.v0...);
        to_share::visit(factors, at, p.share.projections...);
      }
      map::visit(starting(start_normal<1.0>), at / "receptance", p.receptance...);
      map::visit(starting(start_normal<0.1>), at / "key", p.key...);
      map::visit(starting(start_normal<1.0>), at / "value", p.value...);
      map::visit(starting(start_zero), at / "output", p.output...);
      f(at / "ln_x" / "weight", tensor_info{1, D, role::scale, 0, start_norm}, p.norm_weight...);
      f(at / "ln_x" / "bias", tensor_info{1, D, role::bias, 0}, p.norm_bias...);
    }

    template <class T>
    struct cache {
      typename shift::template cache<T> shifted{};
      typename to_decay::template cache<T> decay_maps{};
      typename to_rate::template cache<T> rate_maps{};
      typename to_gate::template cache<T> gate_maps{};
      typename to_share::template cache<T> share_maps{};
      T *r = nullptr, *key = nullptr, *value = nullptr;       ///< [rows, D] of the maps
      T *decay = nullptr, *rate = nullptr, *share = nullptr;  ///< [rows, D] sigmoids
      T *w = nullptr, *k = nullptr, *v = nullptr, *remove = nullptr, *weight = nullptr;
      T *y = nullptr, *mixed = nullptr, *gate = nullptr,
        *gated = nullptr;       ///< [rows, D] recurrence, with norm and bonus, gate, product
      T* inverse = nullptr;     ///< [rows, heads] 1 / length of the removal key
      T* bonus = nullptr;       ///< [rows, heads]
      T* statistics = nullptr;  ///< [rows, heads, 2] mean and 1 / deviation
      T* state = nullptr;       ///< [batch, heads, N, N]
      T* starts = nullptr;      ///< [batch, heads, chunks, N, N] while training
      T* d_first = nullptr;     ///< [rows, D] what later layers add to the first's values
      ops::wkv7_vectors<T> d{};
      T *d_mixed = nullptr, *d_gate = nullptr, *dy = nullptr, *d_key = nullptr, *d_share = nullptr;
      T* d_bonus = nullptr;  ///< [rows, heads]
      T* scratch = nullptr;  ///< per thread
    };
    template <class T>
    static constexpr cache<T> plan(planner& m, const call_shape& e) {
      cache<T> c;
      const index size = e.rows() * D, states = e.batch * heads * N * N, mark = m.scratch.mark();
      m.product(e.rows(), D, D, e);
      c.shifted = shift::template plan<T>(m, e);
      for (T** one : {&c.r, &c.key, &c.value, &c.decay, &c.rate, &c.w, &c.k, &c.remove, &c.weight,
                      &c.y, &c.mixed, &c.gate, &c.gated})
        *one = m.saved.take<T>(size);
      c.share = first ? nullptr : m.saved.take<T>(size);
      c.v = first ? c.value : m.saved.take<T>(size);
      c.inverse = m.saved.take<T>(e.rows() * heads);
      c.bonus = m.saved.take<T>(e.rows() * heads);
      c.statistics = m.saved.take<T>(e.rows() * heads * 2);
      c.state = (e.capacity > 0 ? m.state : m.scratch).template take<T>(states);
      if (e.training) {
        c.starts = m.saved.take<T>(states * ops::recurrent_chunks(e.length));
        if (first) c.d_first = m.saved.take<T>(size);
        for (T** one : {&c.d.r, &c.d.w, &c.d.k, &c.d.v, &c.d.remove, &c.d.weight, &c.d_mixed,
                        &c.d_gate, &c.dy, &c.d_key})
          *one = m.scratch.take<T>(size);
        if (!first) c.d_share = m.scratch.take<T>(size);
        c.d_bonus = m.scratch.take<T>(e.rows() * heads);
        c.scratch = m.scratch.take<T>(e.threads * ops::wkv7_scratch(N));
      }
      c.decay_maps = to_decay::template plan<T>(m, e);
      c.rate_maps = to_rate::template plan<T>(m, e);
      c.gate_maps = to_gate::template plan<T>(m, e);
      if constexpr (!first) c.share_maps = to_share::template plan<T>(m, e);
      m.scratch.release(mark);
      return c;
    }

    template <class T, class S>
    static void forward(const params<form::packed<T, S>>& p, view<const T, D> x, view<T, D> y,
                        cache<T>& c, context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      const auto input = [&](std::size_t which) {
        return view<const T, D>(c.shifted.mixed[which], rows);
      };
      shift::forward({p.x_r, p.x_w, p.x_k, p.x_v, p.x_a, p.x_g}, x.data(), c.shifted, ctx);
      map::template forward<T, S>(p.receptance, input(0), {c.r, rows}, none, ctx);
      map::template forward<T, S>(p.key, input(2), {c.key, rows}, none, ctx);
      map::template forward<T, S>(p.value, input(3), {c.value, rows}, none, ctx);
      to_decay::template forward<T, S>(p.decay, input(1), {c.decay, rows}, c.decay_maps, ctx);
      to_rate::template forward<T, S>(p.rate, input(4), {c.rate, rows}, c.rate_maps, ctx);
      to_gate::template forward<T, S>(p.gate, input(5), {c.gate, rows}, c.gate_maps, ctx);
      if constexpr (first) {
        ctx.first_layer.values = c.value;
        ctx.first_layer.d_values = c.d_first;
        if (c.d_first) ops::fill(ctx.on, x.size(), T(0), c.d_first);
      } else {
        to_share::template forward<T, S>(p.share.projections, input(3), {c.share, rows},
                                         c.share_maps, ctx);
      }
      each_head(rows, ctx, [&](index at, index channel, index h) {
        head::prepare(prepared(p, c, at, channel, h), p.w0 + channel, p.a0 + channel);
        if constexpr (!first)
          for (index j = 0; j < N; ++j) {
            T& share = c.share[at + j];
            share = detail::sigmoid(p.share.v0[channel + j] + share);
            const T own = c.value[at + j];
            c.v[at + j] = own + (ctx.first_layer.values[at + j] - own) * share;
          }
      });
      ops::wkv7(ctx.on, call(c, ctx));
      each_head(rows, ctx, [&](index at, index channel, index h) {
        T bonus = 0;
        for (index j = 0; j < N; ++j) bonus += c.r[at + j] * c.k[at + j] * p.r_k[channel + j];
        c.bonus[h] = bonus;
        ctx.on.with_kernels([&](auto k) {
          decltype(k)::template layer_norm<T>(N, T(norm_eps), c.y + at, p.norm_weight + channel,
                                              p.norm_bias + channel, c.mixed + at,
                                              c.statistics + 2 * h);
        });
        for (index i = at; i < at + N; ++i) {
          c.mixed[i] += bonus * c.v[i];
          c.gated[i] = c.mixed[i] * c.gate[i];
        }
      });
      map::template forward<T, S>(p.output, {c.gated, rows}, y, none, ctx);
    }

    template <class T, class S>
    static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                         view<const T, D> x, view<const T, D> dy, view<T, D> dx, cache<T>& c,
                         context<T>& ctx) {
      without_cache::cache<T> none;
      const index rows = x.rows();
      ops::fill(ctx.on, x.size(), T(0), c.d_mixed);
      map::template backward<T, S>(p.output, dp.output, {c.gated, rows}, dy, {c.d_mixed, rows},
                                   none, ctx);
      each_head(rows, ctx, [&](index at, index channel, index h) {
        T d_bonus = 0;
        for (index i = at; i < at + N; ++i) {
          const T d_gated = c.d_mixed[i];
          c.d_gate[i] = d_gated * c.mixed[i];
          c.d_mixed[i] = d_gated * c.gate[i];
          d_bonus += c.d_mixed[i] * c.v[i];
          c.dy[i] = T(0);
        }
        c.d_bonus[h] = d_bonus;
        ctx.on.with_kernels([&](auto k) {
          decltype(k)::template layer_norm_backward<T>(N, c.statistics + 2 * h, c.y + at,
                                                       p.norm_weight + channel, c.d_mixed + at,
                                                       c.dy + at);
        });
      });
      ops::wkv7_backward(ctx.on, call(c, ctx), c.dy, c.d, c.scratch);
      each_head(rows, ctx, [&](index at, index channel, index h) {
        for (index j = 0; j < N; ++j) {
          const T through = c.d_bonus[h] * p.r_k[channel + j];
          c.d.r[at + j] += through * c.k[at + j];
          c.d.k[at + j] += through * c.r[at + j];
          T& dv = c.d.v[at + j];
          dv += c.bonus[h] * c.d_mixed[at + j];
          if constexpr (first) {
            dv += c.d_first[at + j];
          } else {
            const T share = c.share[at + j];
            c.d_share[at + j] =
                dv * (ctx.first_layer.values[at + j] - c.value[at + j]) * share * (T(1) - share);
            ctx.first_layer.d_values[at + j] += dv * share;
            dv *= T(1) - share;
          }
        }
        head::prepare_backward(prepared(p, c, at, channel, h), c.d.w + at, c.d.k + at,
                               c.d.remove + at, c.d.weight + at, c.d_key + at);
      });
      vector_gradients<T>(dp, c, rows, ctx);

      const auto branch = [&](auto layer, const auto& w, auto& dw, std::size_t which,
                              const T* d_output, auto& layer_cache) {
        decltype(layer)::type::template backward<T, S>(w, dw, {c.shifted.mixed[which], rows},
                                                       {d_output, rows}, {c.shifted.gradient, rows},
                                                       layer_cache, ctx);
      };
      const auto clear = [&] { ops::fill(ctx.on, x.size(), T(0), c.shifted.gradient); };
      const auto unshift = [&](const T* mu, T* d_mu) {
        shift::backward(mu, d_mu, x.data(), dx.data(), c.shifted, ctx);
      };
      using plain = std::type_identity<map>;
      clear();
      branch(plain{}, p.receptance, dp.receptance, 0, c.d.r, none);
      unshift(p.x_r, dp.x_r);
      clear();
      branch(std::type_identity<to_decay>{}, p.decay, dp.decay, 1, c.d.w, c.decay_maps);
      unshift(p.x_w, dp.x_w);
      clear();
      branch(plain{}, p.key, dp.key, 2, c.d_key, none);
      unshift(p.x_k, dp.x_k);
      clear();
      branch(plain{}, p.value, dp.value, 3, c.d.v, none);
      if constexpr (!first)
        branch(std::type_identity<to_share>{}, p.share.projections, dp.share.projections, 3,
               c.d_share, c.share_maps);
      unshift(p.x_v, dp.x_v);
      clear();
      branch(std::type_identity<to_rate>{}, p.rate, dp.rate, 4, c.d.weight, c.rate_maps);
      unshift(p.x_a, dp.x_a);
      clear();
      branch(std::type_identity<to_gate>{}, p.gate, dp.gate, 5, c.d_gate, c.gate_maps);
      unshift(p.x_g, dp.x_g);
    }

    /// Copies the state of one sequence to another.
    template <class T>
    static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
      shift::copy_state(c.shifted, from, to, part);
      copy_sequence(c.state, D * N, from, to, part);
    }
    /// Numbers that each sequence keeps while decoding, whatever its length.
    static constexpr index state_values(index) { return D * N + shift::state_values(); }
    /// Floating-point operations: the linear maps, and 9 N per channel for the recurrence.
    static constexpr index flops(const call_shape& e) {
      return 4 * map::flops(e) + to_decay::flops(e) + to_rate::flops(e) + to_gate::flops(e) +
             (first ? 0 : to_share::flops(e)) + 9 * e.rows() * D * N;
    }

   private:
    /// Calls f(where, channel, head) for this thread's share of the heads of all rows. `where` is
    /// the index of the head's first value, `channel` its first channel, `head` its number.
    template <class T, class F>
    static void each_head(index rows, const context<T>& ctx, F&& f) {
      ctx.on.threads.each(rows * heads, [&](index h) { f(h * N, h % heads * N, h); });
    }
    template <class T, class P>
    static typename head::template prepared<T> prepared(const P& p, const cache<T>& c, index at,
                                                        index channel, index h) {
      return {c.key + at, p.k_k + channel, p.k_a + channel, c.decay + at,  c.rate + at,
              c.w + at,   c.k + at,        c.remove + at,   c.weight + at, c.inverse + h};
    }
    template <class T>
    static ops::wkv7_call<T> call(const cache<T>& c, const context<T>& ctx) {
      return {ctx.batch,
              ctx.length,
              heads,
              N,
              {c.r, c.w, c.k, c.v, c.remove, c.weight},
              c.y,
              c.state,
              ctx.past,
              ctx.past ? ctx.lengths : nullptr,
              c.starts};
    }
    /// Gradients of the vectors: sums over rows, in ascending order.
    template <class T, class G>
    static void vector_gradients(G& dp, const cache<T>& c, index rows, const context<T>& ctx) {
      ops::bias_gradient(ctx.on, rows, D, c.d.w, dp.w0);
      ops::bias_gradient(ctx.on, rows, D, c.d.weight, dp.a0);
      ops::bias_gradient(ctx.on, rows, D, c.d_mixed, dp.norm_bias);
      if constexpr (!first) ops::bias_gradient(ctx.on, rows, D, c.d_share, dp.share.v0);
      const auto [from, to] = ctx.on.threads.range(D);
      for (index row = 0; row < rows; ++row)
        for (index j = from; j < to; ++j) {
          const index i = row * D + j, h = row * heads + j / N;
          const T* const moments = c.statistics + 2 * h;
          dp.k_k[j] += c.d.remove[i] * c.key[i];
          dp.k_a[j] += c.d.k[i] * c.key[i] * (c.rate[i] - T(1));
          dp.r_k[j] += c.d_bonus[h] * c.r[i] * c.k[i];
          dp.norm_weight[j] += c.d_mixed[i] * (c.y[i] - moments[0]) * moments[1];
        }
      ctx.on.threads.wait();
    }

    // The reference trainer's values; it draws matrices orthogonal, here they are normal of that
    // size.
    static double along(index i) {
      return D > 1 ? static_cast<double>(i) / static_cast<double>(D - 1) : 0.5;
    }
    /// From -1 to 1 within each head, squared with its sign.
    static double bend(index i) {
      const double z =
          N > 1 ? 2.0 * static_cast<double>(i % N) / static_cast<double>(N - 1) - 1 : 0;
      return z * std::abs(z);
    }
    template <real C>
    static double start_mix(const parameter_path& at, index i, random_stream&) {
      return 1 - std::pow(static_cast<double>(i) / static_cast<double>(D),
                          C.value * layer_position(at).rest());
    }
    static double start_decay(const parameter_path& at, index i, random_stream&) {
      return -5.5 + 6 * std::pow(along(i), 1 + std::pow(layer_position(at).fraction(), 0.3)) +
             2.5 * bend(i);
    }
    static double start_rate(const parameter_path&, index i, random_stream&) {
      return -0.19 + 0.3 * bend(i) + 0.4 * (along(i) - 0.5);
    }
    static double start_share(const parameter_path&, index i, random_stream&) {
      return 0.73 - 0.4 * (along(i) - 0.5);
    }
    static double start_removal(const parameter_path&, index i, random_stream&) {
      return 0.71 - 0.1 * (along(i) - 0.5);
    }
    static double start_norm(const parameter_path& at, index, random_stream&) {
      return std::pow((1 + layer_position(at).layer) / layer_position(at).layers, 0.7);
    }
    template <real C>
    static double start_constant(const parameter_path&, index, random_stream&) {
      return C.value;
    }
    /// A matrix whose larger dimension is D.
    template <real Gain>
    static double start_normal(const parameter_path&, index, random_stream& random) {
      return Gain.value / std::sqrt(static_cast<double>(D)) * random.normal();
    }
  };
};

}  // namespace mixer

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// RWKV-4 (Peng et al. 2023, arXiv:2305.13048). Heads play no part, and `context` limits
/// nothing but the default length of sessions.
template <decoder_shape Shape, class... Policies>
using rwkv4 = decoder<Shape, mixer::rwkv4, ffn::rwkv4_channel_mix, norm::layer_norm, position::none,
                      tie::untied, Policies...>;

/// RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456). heads * head width is d_model;
/// published models have heads of 64.
template <decoder_shape Shape, class... Policies>
using rwkv7 = decoder<Shape, mixer::rwkv7, ffn::rwkv7_channel_mix, norm::layer_norm, position::none,
                      tie::untied, Policies...>;

LINNET_NAMESPACE_END
/// @file
/// The T5 encoder-decoder (Raffel et al. 2020), versions 1.0 and 1.1, and its re-parameterised
/// variants (Lee et al. 2023).

/// @file
/// One of T5's two stacks: blocks behind relative-position biases (Raffel et al. 2020,
/// section 2.1).

LINNET_NAMESPACE_BEGIN

/// One stack of a T5 model: relative-position bias, blocks, final norm.
template <t5_shape Shape, index Layers, bool IsDecoder, class Ffn, class Attention, class Norm,
          class Cache>
struct t5_stack {
  static constexpr index d = Shape.d_model, heads = Shape.heads;
  static constexpr index in = d, out = d;
  static constexpr real eps{Shape.eps};
  static_assert(
      IsDecoder ? Attention::causal && Attention::supports_cache : Attention::bidirectional,
      "linnet::t5: this kind of attention does not fit this stack: an encoder needs a "
      "bidirectional kind, a decoder a causal one that continues cached sequences; wrap it "
      "in encoder_stack<> or decoder_stack<>");
  static_assert(!Attention::takes_prefix,
                "linnet::t5: the source is seen both ways already; attention::prefix is for "
                "decoders");
  static constexpr attention_shape self{.d_model = d,
                                        .heads = heads,
                                        .kv_heads = heads,
                                        .d_kv = Shape.d_kv,
                                        .causal = IsDecoder,
                                        .scaled = false,
                                        .relative = true,
                                        .cache = Cache::code};
  static constexpr attention_shape across{.d_model = d,
                                          .heads = heads,
                                          .kv_heads = heads,
                                          .d_kv = Shape.d_kv,
                                          .cross = true,
                                          .scaled = false,
                                          .cache = Cache::code};
  using norm_layer = typename Norm::template layer<d, eps>;
  using self_attention =
      named<"attention", residual<norm_layer, typename Attention::template layer<self>>>;
  using cross_attention = named<"cross", residual<norm_layer, attention::full::layer<across>>>;
  template <class... Branches>
  using block_with =
      typename detail::block_of<Norm, Ffn, Branches...>::template make<d, Shape.d_ff, false,
                                                                       eps>::type;
  using block =
      typename std::conditional_t<IsDecoder,
                                  std::type_identity<block_with<self_attention, cross_attention>>,
                                  std::type_identity<block_with<self_attention>>>::type;
  using blocks = repeat<block, Layers>;

  template <class Form>
  struct params {
    typename Form::vector relative_bias{};
    typename blocks::template params<Form> stack{};
    typename norm_layer::template params<Form> norm{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "relative_bias" / "weight",
      tensor_info{Shape.buckets, heads, role::position, 1 / detail::sqrt(d)}, p.relative_bias...);
    blocks::visit(f, at / "blocks", p.stack...);
    norm_layer::visit(f, at / "norm", p.norm...);
  }

  template <class T>
  struct cache {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{};
    T *x = nullptr, *y = nullptr;    ///< [rows, d] embedded input, output of the blocks
    T *dx = nullptr, *dy = nullptr;  ///< their gradients
    T* bias = nullptr;               ///< [heads, 2 origin + 1] bias lines
    T* d_bias = nullptr;             ///< [batch, heads, 2 origin + 1]
    index origin = 0;
    int input_dropout_id = 0, output_dropout_id = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.input_dropout_id = m.dropout_ids++;
    c.output_dropout_id = m.dropout_ids++;
    c.origin = (std::max)(e.length, e.capacity) - 1;
    const index lines = heads * (2 * c.origin + 1), size = e.rows() * d;
    c.x = m.saved.take<T>(size);
    c.y = m.saved.take<T>(size);
    c.bias = m.saved.take<T>(lines);
    if (e.training) {
      c.dx = m.saved.take<T>(size);
      c.dy = m.saved.take<T>(size);
      c.d_bias = m.saved.take<T>(e.batch * lines);
    }
    c.norm = norm_layer::template plan<T>(m, e);
    c.stack = blocks::template plan<T>(m, e);
    return c;
  }

  /// c.x (embedded tokens) -> y, the normed output; dropout at both ends (Raffel et al. 2020).
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<T, d> y, cache<T>& c,
                      context<T>& ctx) {
    const index rows = ctx.rows(), line = 2 * c.origin + 1;
    ctx.on.threads.each(heads, [&](index head) {
      for (index r = 0; r < line; ++r)
        c.bias[head * line + r] = p.relative_bias[bucket(r - c.origin) * heads + head];
    });
    ctx.bias = {c.bias, nullptr, c.origin};
    ops::dropout(ctx.on, ctx.dropout, c.input_dropout_id, ctx.batch, ctx.length, d, c.x);
    blocks::template forward<T, S>(p.stack, {c.x, rows}, {c.y, rows}, c.stack, ctx);
    norm_layer::template forward<T, S>(p.norm, {c.y, rows}, y, c.norm, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.output_dropout_id, ctx.batch, ctx.length, d, y.data());
  }
  /// Gradient of y (overwritten) -> gradient of the embedded tokens in c.dx.
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<T, d> dy, cache<T>& c, context<T>& ctx) {
    const index rows = ctx.rows(), line = 2 * c.origin + 1;
    ctx.bias = {c.bias, c.d_bias, c.origin};
    ops::fill(ctx.on, ctx.batch * heads * line, T(0), c.d_bias);
    ops::dropout(ctx.on, ctx.dropout, c.output_dropout_id, ctx.batch, ctx.length, d, dy.data());
    ops::fill(ctx.on, rows * d, T(0), c.dy);
    norm_layer::template backward<T, S>(p.norm, dp.norm, {c.y, rows}, dy, {c.dy, rows}, c.norm,
                                        ctx);
    ops::fill(ctx.on, rows * d, T(0), c.dx);
    blocks::template backward<T, S>(p.stack, dp.stack, {c.x, rows}, {c.dy, rows}, {c.dx, rows},
                                    c.stack, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.input_dropout_id, ctx.batch, ctx.length, d, c.dx);
    ctx.on.threads.each(heads, [&](index head) {
      for (index b = 0; b < ctx.batch; ++b)
        for (index r = 0; r < line; ++r)
          dp.relative_bias[bucket(r - c.origin) * heads + head] +=
              c.d_bias[(b * heads + head) * line + r];
    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(c.stack, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    return blocks::flops(e) + norm_layer::flops(e);
  }

 private:
  /// The bucket of a key position minus query position.
  static constexpr index bucket(index relative) {
    return ops::relative_bucket(relative, !IsDecoder, Shape.buckets, Shape.max_distance);
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Sources and targets of a T5 training or scoring call, row-major.
struct t5_batch {
  const token* source = nullptr;  ///< [batch, source_length], padded on the right
  const index* source_lengths =
      nullptr;                    ///< [batch] valid source tokens, at least 1; null when all are
  const token* labels = nullptr;  ///< [batch, target_length], `ignored` behind the end
  index batch = 0;                ///< sequences
  index source_length = 0;        ///< padded source tokens
  index target_length = 0;        ///< padded target tokens
};

/// A T5 model as a type; spelled t5<shape, policies...>.
template <t5_shape Shape, class EncoderFfn, class DecoderFfn, class EncoderAttention,
          class DecoderAttention, class Norm, class Tie, class Storage, class Cache>
struct t5_model : model_defaults {
  static constexpr t5_shape shape = Shape;
  static constexpr bool tied = std::is_same_v<Tie, tie::tied>;
  static constexpr bool biased = false;
  static constexpr bool encodes = true, supports_cache = DecoderAttention::supports_cache;
  /// Whether decoding can take tokens back, and whether it forgets old ones.
  static constexpr bool can_truncate = DecoderAttention::can_truncate && DecoderFfn::can_truncate,
                        evicts = DecoderAttention::evicts;
  using encoder_ffn = EncoderFfn;
  using decoder_ffn = DecoderFfn;
  using encoder_attention = EncoderAttention;
  using decoder_attention = DecoderAttention;
  using norm = Norm;
  using storage = Storage;
  using cache = Cache;
  using batch = t5_batch;
  /// This model with other feed-forward policies.
  template <class E, class D = E>
  using with_ffn =
      t5_model<Shape, E, D, EncoderAttention, DecoderAttention, Norm, Tie, Storage, Cache>;
  /// This model with other attention policies.
  template <class E, class D = E>
  using with_attention = t5_model<Shape, EncoderFfn, DecoderFfn, E, D, Norm, Tie, Storage, Cache>;
  /// This model with another key-value cache policy.
  template <class Other>
  using with_cache = t5_model<Shape, EncoderFfn, DecoderFfn, EncoderAttention, DecoderAttention,
                              Norm, Tie, Storage, Other>;
  /// This model with another storage type.
  template <class Other>
  using with_storage =
      t5_model<Shape, EncoderFfn, DecoderFfn, EncoderAttention, DecoderAttention, Norm, Tie,
               typename detail::pick_model_storage<Tie, Other>::type, Cache>;

  static constexpr index d = Shape.d_model, vocabulary = Shape.vocabulary;
  /// The token that starts every target, and pads (Raffel et al. 2020).
  static constexpr token start = 0;
  using encoder =
      t5_stack<Shape, Shape.encoder_layers, false, EncoderFfn, EncoderAttention, Norm, Cache>;
  using decoder =
      t5_stack<Shape, Shape.decoder_layers, true, DecoderFfn, DecoderAttention, Norm, Cache>;

  /// Storage of what the head reads, in a model stored as `S`.
  template <class S>
  using head_storage =
      linnet::storage::at<S, tied ? linnet::storage::part::embedding : linnet::storage::part::head>;

  template <class Form>
  struct params {
    typename form::at<Form, linnet::storage::part::embedding>::matrix embedding{};
    typename encoder::template params<Form> encoder_stack{};
    typename decoder::template params<Form> decoder_stack{};
    [[no_unique_address]] std::conditional_t<
        tied, std::nullptr_t, typename form::at<Form, linnet::storage::part::head>::matrix>
        head{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "embedding" / "weight", tensor_info{vocabulary, d, role::table, 1}, p.embedding...);
    encoder::visit(f, at / "encoder", p.encoder_stack...);
    decoder::visit(f, at / "decoder", p.decoder_stack...);
    if constexpr (!tied)
      f(at / "head" / "weight", tensor_info{vocabulary, d, role::matrix, 1}, p.head...);
  }

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<t5_model>(); }
  /// Parameters outside the embedding and an untied head.
  static constexpr index non_embedding() { return parameters() - vocabulary * d * (tied ? 1 : 2); }
  /// Floating-point operations of one forward call, head included.
  static constexpr index flops(index batch_size, index source, index target) {
    const limits l{.batch = batch_size};
    return encoder::flops(call_shape_for(l, purpose::scoring, source)) +
           decoder::flops(call_shape_for(l, purpose::scoring, target, source)) +
           2 * batch_size * target * d * vocabulary;
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename encoder::template cache<T> encoder_stack{};
    typename decoder::template cache<T> decoder_stack{};
    T *memory = nullptr, *out = nullptr;      ///< [source rows, d], [target rows, d] normed outputs
    T *d_memory = nullptr, *d_out = nullptr;  ///< their gradients
    token* inputs = nullptr;                  ///< [target rows] labels shifted right
    T* chunk = nullptr;                       ///< logits of some rows
    T* last = nullptr;                        ///< [batch, d] last valid rows
    T* logits = nullptr;                      ///< [batch * limits.max_logits, vocabulary]
    ops::page_tables pages{};                 ///< of a session's paged cache
    double* losses = nullptr;                 ///< [target rows]
    index memory_length = 0;
  };
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const call_shape target = call_shape_for(l, use, l.target, l.source);
    call_shape source = call_shape_for(l, purpose::scoring, l.source);
    source.training = use == purpose::training;  // the encoder reads its whole input at once
    workspace<T> w;
    arena& lasting = use == purpose::decoding ? m.state : m.saved;
    w.memory = lasting.take<T>(source.rows() * d);
    w.out = m.saved.take<T>(target.rows() * d);
    if (use == purpose::decoding) {
      w.last = m.saved.take<T>(l.batch * d);
      m.product(l.batch * l.max_logits, d, vocabulary, target);
      w.logits = m.state.take<T>(l.batch * l.max_logits * vocabulary);
    } else {
      w.inputs = m.saved.take<token>(target.rows());
      w.losses = m.saved.take<double>(target.rows());
      w.chunk = m.saved.take<T>(ops::head_rows(vocabulary) * vocabulary);
      m.product(ops::head_rows(vocabulary), d, vocabulary, target);
    }
    if (use == purpose::training) {
      w.d_memory = m.saved.take<T>(source.rows() * d);
      w.d_out = m.saved.take<T>(target.rows() * d);
    }
    const index mark = m.saved.mark();
    w.encoder_stack = encoder::template plan<T>(m, source);
    if (use != purpose::training) m.saved.release(mark);
    w.decoder_stack = decoder::template plan<T>(m, target);
    return w;
  }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_t5<t5_model>(f);
  }
  /// The longest target for these limits.
  static constexpr index longest(const limits& l) { return l.target; }
  /// Sources and targets have no default length.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (l.source < 1) return {"limits.source", "at least 1 source token", l.source};
    if (l.target < 1) return {"limits.target", "at least 1 target token", l.target};
    if (EncoderAttention::longest > 0 && l.source > EncoderAttention::longest)
      return {"limits.source", "what the encoder's attention reads", l.source,
              EncoderAttention::longest};
    return {};
  }

  /// Why a batch does not fit the limits or the vocabulary.
  static refusal refuses(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    c.length(b.source_length, l.source, refusal::over_source, b.source_lengths);
    c.length(b.target_length, l.target, refusal::over_target);
    c.tokens(b.source, b.source_length, vocabulary, refusal::null_source);
    c.labels(b.labels, b.target_length, vocabulary);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// The final hidden states of a batch and the head that reads them: arguments of ops::head_loss()
  /// and ops::head_logits(). Called by every thread.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w,
                                                 const ops::execution& on) {
    context<T> ctx = source_context<T>(b.batch, b.source_length, b.source_lengths, on);
    context<T> target = target_context<T>(b, w, ctx);
    return read<T, S>(p, b, w, ctx, target);
  }
  /// Summed loss of a batch by a criterion (see ops::label_cross_entropy), the cross-entropy. With
  /// `dp`, also adds the gradient of that sum. `call.logits`, if given, receives [batch *
  /// target_length, vocabulary]. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    context<T> ctx = source_context<T>(b.batch, b.source_length, b.source_lengths, on);
    ctx.dropout = call.dropout;
    context<T> target = target_context<T>(b, w, ctx);
    const index rows = target.rows();
    ops::head_call<T, head_storage<S>> head = read<T, S>(p, b, w, ctx, target);
    if (dp) ops::fill(on, rows * d, T(0), w.d_out);
    head.logits = call.logits;
    head.z_loss = call.z_loss;
    if constexpr (ops::trainable<S>)
      if (dp) {
        head.dy = w.d_out;
        if constexpr (tied)
          head.d_table = dp->embedding;
        else
          head.d_table = dp->head;
      }
    const loss_sum sum = ops::head_loss(on, head, criterion);
    if constexpr (ops::trainable<S>)
      if (dp) {
        ops::fill(on, ctx.rows() * d, T(0), w.d_memory);
        decoder::template backward<T, S>(p.decoder_stack, dp->decoder_stack, {w.d_out, rows},
                                         w.decoder_stack, target);
        ops::embed_backward(on, rows, d, w.inputs, w.decoder_stack.dx, dp->embedding);
        encoder::template backward<T, S>(p.encoder_stack, dp->encoder_stack,
                                         {w.d_memory, ctx.rows()}, w.encoder_stack, ctx);
        ops::embed_backward(on, ctx.rows(), d, b.source, w.encoder_stack.dx, dp->embedding);
      }
    return sum;
  }

  /// Encodes [batch, length] source tokens into w.memory. Called by every thread.
  template <class T, class S>
  static void encode(const params<form::packed<T, S>>& p, const token* source, index batch_size,
                     index length, const index* lengths, workspace<T>& w,
                     const ops::execution& on) {
    context<T> ctx = source_context<T>(batch_size, length, lengths, on);
    encode<T, S>(p, source, w, ctx);
  }
  /// Feeds target tokens behind the cached ones. w.logits[batch, vocabulary] then predicts what
  /// follows each sequence's last valid token. With `call.every` they are w.logits[batch * length,
  /// vocabulary], one row per token. Keys and values of the encoded source are computed unless
  /// `call.source.cached`. Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& on) {
    context<T> ctx = detail::step_context<T>(call, on);
    ctx.pages = w.pages;
    ctx.memory = {w.memory, nullptr, call.source.length, call.source.lengths, call.source.cached};
    const index rows = ctx.rows();
    ops::embed(on, rows, d, call.tokens, p.embedding, w.decoder_stack.x);
    decoder::template forward<T, S>(p.decoder_stack, {w.out, rows}, w.decoder_stack, ctx);
    if (!call.every)
      on.threads.each(ctx.batch, [&](index i) {
        std::copy_n(w.out + (i * ctx.length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    ops::matmul(on, call.every ? rows : ctx.batch, vocabulary, d, call.every ? w.out : w.last,
                head_matrix<T, S>(p), w.logits, {nullptr, head_scale<T>()});
  }

  /// Lets cached target `to` continue where `from` is, with `from`'s source.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    if (!part.block)
      std::copy_n(w.memory + from * part.memory * d, part.memory * d,
                  w.memory + to * part.memory * d);
    linnet::copy_state<decoder, T>(w.decoder_stack, from, to, part);
  }

 private:
  /// T5's tied head reads y / sqrt(d), as t5x does (Raffel et al. 2020).
  template <class T>
  static constexpr T head_scale() {
    return tied ? T(1 / detail::sqrt(d)) : T(1);
  }
  template <class T, class S>
  static const ops::packed_matrix<T, head_storage<S>>& head_matrix(
      const params<form::packed<T, S>>& p) {
    if constexpr (tied)
      return p.embedding;
    else
      return p.head;
  }
  template <class T>
  static context<T> source_context(index batch_size, index length, const index* lengths,
                                   const ops::execution& on) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = batch_size;
    ctx.length = length;
    ctx.lengths = lengths;
    return ctx;
  }
  template <class T>
  static context<T> target_context(const batch& b, const workspace<T>& w,
                                   const context<T>& source) {
    context<T> target = source;
    target.length = b.target_length;
    target.lengths = nullptr;
    target.memory = {w.memory, w.d_memory, b.source_length, b.source_lengths};
    return target;
  }
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w, context<T>& ctx,
                                                 context<T>& target) {
    encode<T, S>(p, b.source, w, ctx);
    const index rows = target.rows();
    target.on.threads.each(rows, [&](index i) {
      const token before = i % b.target_length == 0 ? start : b.labels[i - 1];
      w.inputs[i] = before == ignored ? start : before;
    });
    ops::embed(target.on, rows, d, w.inputs, p.embedding, w.decoder_stack.x);
    decoder::template forward<T, S>(p.decoder_stack, {w.out, rows}, w.decoder_stack, target);
    return {rows,     d,       vocabulary, w.out, head_matrix<T, S>(p), head_scale<T>(),
            b.labels, w.chunk, w.losses};
  }
  template <class T, class S>
  static void encode(const params<form::packed<T, S>>& p, const token* source, workspace<T>& w,
                     context<T>& ctx) {
    ops::embed(ctx.on, ctx.rows(), d, source, p.embedding, w.encoder_stack.x);
    encoder::template forward<T, S>(p.encoder_stack, {w.memory, ctx.rows()}, w.encoder_stack, ctx);
  }
};

namespace detail {
template <class M>
inline constexpr bool is_t5 = false;
template <t5_shape Shape, class... Choices>
inline constexpr bool is_t5<t5_model<Shape, Choices...>> = true;

template <class P>
inline constexpr bool known_t5_policy = known_policy<P>;
template <class P>
inline constexpr bool known_t5_policy<encoder_stack<P>> =
    std::is_base_of_v<ffn::policy, P> || std::is_base_of_v<attention::policy, P>;
template <class P>
inline constexpr bool known_t5_policy<decoder_stack<P>> = known_t5_policy<encoder_stack<P>>;

/// Words for the first rule that a T5's policies or shape break; true where they keep all.
template <t5_shape S, class... Ps>
constexpr bool t5_fits() {
  using EncoderAttention =
      pick_for<linnet::encoder_stack, attention::policy, attention::full, Ps...>;
  using DecoderAttention = pick_for<decoder_stack, attention::policy, attention::full, Ps...>;
  if constexpr (!(known_t5_policy<Ps> && ...))
    static_assert(never<Ps...>,
                  "linnet::t5<shape, policies...>: an argument is not a policy; derive your own "
                  "from ffn::policy, attention::policy or norm::policy, and wrap only ffn:: and "
                  "attention:: policies in encoder_stack<> or decoder_stack<>");
  else if constexpr ((std::is_base_of_v<position::policy, Ps> || ...))
    static_assert(
        never<Ps...>,
        "linnet::t5: T5 has its own relative positions; position:: policies are for decoder<>");
  else if constexpr ((std::is_base_of_v<bias::all, Ps> || ...))
    static_assert(never<Ps...>, "linnet::t5: T5 has no biases; bias::all is for decoder<>");
  else if constexpr ((std::is_base_of_v<depths::policy, Ps> || ...))
    static_assert(
        never<Ps...>,
        "linnet::t5: every token goes through every block; depths:: policies are for decoder<>");
  else if constexpr (((std::is_base_of_v<sharing::policy, Ps> ||
                       std::is_base_of_v<embedding::policy, Ps>) ||
                      ...))
    static_assert(never<Ps...>, "linnet::t5: sharing:: and embedding:: policies are for decoder<>");
  else if constexpr (S.d_model <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: d_model, the width of the stream, must be given and positive");
  else if constexpr (S.d_ff <= 0)
    static_assert(
        never<Ps...>,
        "linnet::t5_shape: d_ff, the hidden width of the feed-forward, must be given and positive");
  else if constexpr (S.d_kv <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: d_kv, the width of a head, must be given and positive");
  else if constexpr (S.heads <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: heads, the attention heads, must be given and positive");
  else if constexpr (S.encoder_layers <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: encoder_layers, the number of the encoder's blocks, must be "
                  "given and positive");
  else if constexpr (S.decoder_layers <= 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: decoder_layers, the number of the decoder's blocks, must be "
                  "given and positive");
  else if constexpr (S.vocabulary <= 0)
    static_assert(
        never<Ps...>,
        "linnet::t5_shape: vocabulary, the rows of the embedding, must be given and positive");
  else if constexpr (S.buckets < 4 || S.buckets % 4 != 0)
    static_assert(never<Ps...>,
                  "linnet::t5_shape: buckets, the relative position buckets, must be a positive "
                  "multiple of 4");
  else if constexpr (S.max_distance <= S.buckets / 2)
    static_assert(never<Ps...>, "linnet::t5_shape: max_distance must be greater than buckets / 2");
  else if constexpr (!(S.eps > 0))
    static_assert(never<Ps...>,
                  "linnet::t5_shape: eps, added under the root of the norm, must be positive");
  else if constexpr (EncoderAttention::takes_prefix || DecoderAttention::takes_prefix)
    static_assert(
        never<Ps...>,
        "linnet::t5: the source is seen both ways already; attention::prefix is for decoders");
  else if constexpr (!EncoderAttention::bidirectional || !DecoderAttention::causal ||
                     !DecoderAttention::supports_cache)
    static_assert(never<Ps...>,
                  "linnet::t5: this kind of attention does not fit this stack: an encoder needs a "
                  "bidirectional kind, a decoder a causal one that continues cached sequences; "
                  "wrap it in encoder_stack<> or decoder_stack<>");
  else
    return true;
  return false;
}
/// The fault of the feed-forward of the stack that `Wrapper` addresses, in a T5 that fits
/// otherwise.
template <template <class> class Wrapper, t5_shape S, class... Ps>
constexpr ffn_fault t5_ffn_fault() {
  if constexpr (t5_fits<S, Ps...>())
    return fault_of_ffn<pick_for<Wrapper, ffn::policy, ffn::relu, Ps...>, S.d_model, S.d_ff,
                        false>();
  else
    return ffn_fault::none;
}
/// The T5 of a list of policies that fit.
template <bool Fits, t5_shape Shape, class... Ps>
struct make_t5 {
  using type =
      t5_model<Shape, pick_for<linnet::encoder_stack, ffn::policy, ffn::relu, Ps...>,
               pick_for<decoder_stack, ffn::policy, ffn::relu, Ps...>,
               pick_for<linnet::encoder_stack, attention::policy, attention::full, Ps...>,
               pick_for<decoder_stack, attention::policy, attention::full, Ps...>,
               pick<norm::policy, norm::rms, Ps...>, pick<tie::policy, tie::tied, Ps...>,
               typename pick_model_storage<Ps...>::type, pick<kv::policy, kv::exact, Ps...>>;
};
/// Stands in for a T5 that was refused, so that nothing is said of it again.
template <t5_shape Shape, class... Ps>
struct make_t5<false, Shape, Ps...> : make_t5<true,
                                              t5_shape{.d_model = 1,
                                                       .d_ff = 1,
                                                       .d_kv = 1,
                                                       .heads = 1,
                                                       .encoder_layers = 1,
                                                       .decoder_layers = 1,
                                                       .vocabulary = 1},
                                              typename pick_storage<Ps...>::stored> {};
/// The T5 of a shape and policies, or what stands in for it where they do not fit.
template <t5_shape Shape, class... Ps>
struct checked_t5 {
  static constexpr bool fits = policies_fit<Ps...>() && t5_fits<Shape, Ps...>() &&
                               ffn_fits<t5_ffn_fault<encoder_stack, Shape, Ps...>(),
                                        pick_for<encoder_stack, ffn::policy, ffn::relu, Ps...>>() &&
                               ffn_fits<t5_ffn_fault<decoder_stack, Shape, Ps...>(),
                                        pick_for<decoder_stack, ffn::policy, ffn::relu, Ps...>>();
  using type = typename make_t5<fits, Shape, Ps...>::type;
};

}  // namespace detail

/// A T5 encoder-decoder: numbers come from `Shape`, policies follow in any order. Defaults are
/// version 1.0: ReLU feed-forward, full attention, RMSNorm, tied head, f32. Version 1.1 is
/// t5<shape, ffn::gated_gelu, tie::untied>.
template <t5_shape Shape, class... Policies>
using t5 = typename detail::checked_t5<Shape, Policies...>::type;

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Models with known shapes.
namespace zoo {

/// Shapes of the presets, to build variants from: t5<zoo::shapes::t5_mini, ffn::reparam<3>>.
namespace shapes {
inline constexpr index t5_vocabulary = 32128;  ///< 32,100 pieces padded to a multiple of 128

/// T5-Efficient sizes; the published totals belong to heads of width 64 (Tay et al. 2021).
constexpr t5_shape t5_efficient(index layers, index d_ff, index d_model, index heads, index d_kv) {
  return {.d_model = d_model,
          .d_ff = d_ff,
          .d_kv = d_kv,
          .heads = heads,
          .encoder_layers = layers,
          .decoder_layers = layers,
          .vocabulary = t5_vocabulary};
}
inline constexpr t5_shape t5_tiny = t5_efficient(4, 1024, 256, 4, 64);
inline constexpr t5_shape t5_mini = t5_efficient(4, 1536, 384, 8, 64);
inline constexpr t5_shape t5_small = t5_efficient(6, 2048, 512, 8, 64);
inline constexpr t5_shape t5_base = t5_efficient(12, 3072, 768, 12, 64);
inline constexpr t5_shape t5_tiny_kv32 = t5_efficient(4, 1024, 256, 4, 32);
inline constexpr t5_shape t5_mini_kv32 = t5_efficient(4, 1536, 384, 8, 32);
inline constexpr t5_shape t5_small_kv32 = t5_efficient(6, 2048, 512, 8, 32);
inline constexpr t5_shape t5_v1_1_small = t5_efficient(8, 1024, 512, 6, 64);
inline constexpr t5_shape t5_v1_1_base = t5_efficient(12, 2048, 768, 12, 64);

// Super Tiny Language Models (Hillier et al. 2024, Table 1): the published baseline of 50M and two
// sisters. They are deep and thin, as MobileLLM (Liu et al. 2024) found best at these sizes. The
// 100M keeps the baseline's block and is deeper. At 10M the GPT-2 vocabulary would take the whole
// budget. So the width shrinks to 128 (6.4M in the tied table) and depth gets the rest.
inline constexpr decoder_shape stlm_10m{.d_model = 128,
                                        .d_ff = 384,
                                        .heads = 8,
                                        .kv_heads = 4,
                                        .layers = 18,
                                        .vocabulary = 50257,
                                        .context = 512,
                                        .eps = 1e-6};
inline constexpr decoder_shape stlm_50m{.d_model = 512,
                                        .d_ff = 1536,
                                        .heads = 16,
                                        .kv_heads = 4,
                                        .layers = 10,
                                        .vocabulary = 50257,
                                        .context = 512,
                                        .eps = 1e-6};
inline constexpr decoder_shape stlm_100m{.d_model = 512,
                                         .d_ff = 1536,
                                         .heads = 16,
                                         .kv_heads = 4,
                                         .layers = 25,
                                         .vocabulary = 50257,
                                         .context = 512,
                                         .eps = 1e-6};
// The same budgets between bytes: without a table of tokens more of them is left for the blocks.
// The 50M is the published configuration, as wide as the budget of the baseline allows; the 100M is
// deeper. At 10M the published ends would take half, so it has the paper's smaller ones.
inline constexpr decoder_shape stlm_10m_bytes{.d_model = 256,
                                              .d_ff = 768,
                                              .heads = 8,
                                              .kv_heads = 2,
                                              .layers = 12,
                                              .vocabulary = 50257,
                                              .context = 512,
                                              .eps = 1e-6};
inline constexpr decoder_shape stlm_50m_bytes{.d_model = 768,
                                              .d_ff = 1536,
                                              .heads = 16,
                                              .kv_heads = 4,
                                              .layers = 10,
                                              .vocabulary = 50257,
                                              .context = 512,
                                              .eps = 1e-6};
inline constexpr decoder_shape stlm_100m_bytes{.d_model = 768,
                                               .d_ff = 1536,
                                               .heads = 16,
                                               .kv_heads = 4,
                                               .layers = 19,
                                               .vocabulary = 50257,
                                               .context = 512,
                                               .eps = 1e-6};
inline constexpr decoder_shape gpt2_small{.d_model = 768,
                                          .d_ff = 3072,
                                          .heads = 12,
                                          .kv_heads = 12,
                                          .layers = 12,
                                          .vocabulary = 50257,
                                          .context = 1024,
                                          .eps = 1e-5};
inline constexpr decoder_shape stories260k{.d_model = 64,
                                           .d_ff = 172,
                                           .heads = 8,
                                           .kv_heads = 4,
                                           .layers = 5,
                                           .vocabulary = 512,
                                           .context = 512,
                                           .eps = 1e-5};
inline constexpr decoder_shape tinyllama_1_1b{.d_model = 2048,
                                              .d_ff = 5632,
                                              .heads = 32,
                                              .kv_heads = 4,
                                              .layers = 22,
                                              .vocabulary = 32000,
                                              .context = 2048,
                                              .eps = 1e-5};
inline constexpr decoder_shape mobilellm_125m{.d_model = 576,
                                              .d_ff = 1536,
                                              .heads = 9,
                                              .kv_heads = 3,
                                              .layers = 30,
                                              .vocabulary = 32000,
                                              .context = 2048,
                                              .eps = 1e-5};
// SmolLM2 (Allal et al. 2025), whose files are read as GGUF or Hugging Face directories.
inline constexpr decoder_shape smollm2_135m{.d_model = 576,
                                            .d_ff = 1536,
                                            .heads = 9,
                                            .kv_heads = 3,
                                            .layers = 30,
                                            .vocabulary = 49152,
                                            .context = 8192,
                                            .eps = 1e-5,
                                            .rope_theta = 100000};
inline constexpr decoder_shape smollm2_360m{.d_model = 960,
                                            .d_ff = 2560,
                                            .heads = 15,
                                            .kv_heads = 5,
                                            .layers = 32,
                                            .vocabulary = 49152,
                                            .context = 8192,
                                            .eps = 1e-5,
                                            .rope_theta = 100000};
// The byte-level test models of rwkv.cpp; without positions, any context would do.
inline constexpr decoder_shape rwkv4_660k{.d_model = 128,
                                          .d_ff = 256,
                                          .heads = 1,
                                          .kv_heads = 1,
                                          .layers = 4,
                                          .vocabulary = 256,
                                          .context = 1024,
                                          .eps = 1e-5};
inline constexpr decoder_shape rwkv7_834k{.d_model = 64,
                                          .d_ff = 256,
                                          .heads = 1,
                                          .kv_heads = 1,
                                          .layers = 12,
                                          .vocabulary = 256,
                                          .context = 1024,
                                          .eps = 1e-5};
// BERT (Devlin et al. 2019), DistilBERT (Sanh et al. 2019), all-MiniLM-L6-v2 (arXiv:2002.10957,
// Reimers and Gurevych 2019) and ALBERT (Lan et al. 2019).
inline constexpr encoder_shape bert_base{
    .d_model = 768, .d_ff = 3072, .heads = 12, .layers = 12, .vocabulary = 30522, .context = 512};
inline constexpr encoder_shape distilbert_base{.d_model = 768,
                                               .d_ff = 3072,
                                               .heads = 12,
                                               .layers = 6,
                                               .vocabulary = 30522,
                                               .context = 512,
                                               .types = 0};
inline constexpr encoder_shape minilm_l6{
    .d_model = 384, .d_ff = 1536, .heads = 12, .layers = 6, .vocabulary = 30522, .context = 512};
inline constexpr encoder_shape albert_base{
    .d_model = 768, .d_ff = 3072, .heads = 12, .layers = 12, .vocabulary = 30000, .context = 512};
}  // namespace shapes

using t5_tiny = t5<shapes::t5_tiny>;              ///< 15,570,688 parameters, heads of width 64
using t5_mini = t5<shapes::t5_mini>;              ///< 31,220,480
using t5_small = t5<shapes::t5_small>;            ///< 60,506,624
using t5_base = t5<shapes::t5_base>;              ///< 222,903,552
using t5_tiny_kv32 = t5<shapes::t5_tiny_kv32>;    ///< 13,997,824, heads of width 32
using t5_mini_kv32 = t5<shapes::t5_mini_kv32>;    ///< 26,501,888
using t5_small_kv32 = t5<shapes::t5_small_kv32>;  ///< 51,069,440
using t5_v1_1_small = t5<shapes::t5_v1_1_small, ffn::gated_gelu, tie::untied>;  ///< 76,961,152
using t5_v1_1_base = t5<shapes::t5_v1_1_base, ffn::gated_gelu, tie::untied>;    ///< 247,577,856
using stlm_10m = decoder<shapes::stlm_10m>;    ///< within 5% of 10M
using stlm_50m = decoder<shapes::stlm_50m>;    ///< 55,888,896, the published baseline
using stlm_100m = decoder<shapes::stlm_100m>;  ///< within 5% of 100M
using stlm_10m_mod =
    decoder<shapes::stlm_10m, depths::mixture_of_depths<>>;  ///< 9,977,728, nine blocks routed
using stlm_50m_mod =
    decoder<shapes::stlm_50m, depths::mixture_of_depths<>>;  ///< 55,891,456, five blocks routed
// Sisters with fewer parameters of their own. MobiLlama has one feed-forward for all blocks. ALBERT
// has one block for all layers behind a narrow embedding, 128 wide or half the stream.
using stlm_10m_ffn_shared = decoder<shapes::stlm_10m, sharing::ffn>;    ///< 7,469,824
using stlm_50m_ffn_shared = decoder<shapes::stlm_50m, sharing::ffn>;    ///< 34,655,232
using stlm_100m_ffn_shared = decoder<shapes::stlm_100m, sharing::ffn>;  ///< 44,500,992
using stlm_10m_albert =
    decoder<shapes::stlm_10m, sharing::all, embedding::factorised<64>>;  ///< 3,421,632
using stlm_50m_albert =
    decoder<shapes::stlm_50m, sharing::all, embedding::factorised<128>>;  ///< 9,514,624
using stlm_100m_albert =
    decoder<shapes::stlm_100m, sharing::all, embedding::factorised<128>>;    ///< 9,514,624, deeper
using stlm_10m_bytes = byte_pooled<shapes::stlm_10m_bytes, pooling::paper>;  ///< 9,527,552
using stlm_50m_bytes = byte_pooled<shapes::stlm_50m_bytes>;    ///< 55,924,736, as published
using stlm_100m_bytes = byte_pooled<shapes::stlm_100m_bytes>;  ///< 101,060,096
using gpt2_small = decoder<shapes::gpt2_small, norm::layer_norm, position::learned, ffn::gelu_tanh,
                           bias::all>;             ///< 124,439,808
using stories260k = decoder<shapes::stories260k>;  ///< 260,032
using tinyllama_1_1b =
    decoder<shapes::tinyllama_1_1b, position::rope_half, tie::untied>;  ///< 1,100,048,384
using mobilellm_125m =
    decoder<shapes::mobilellm_125m, position::rope_half>;    ///< MobileLLM (Liu et al. 2024)
using smollm2_135m = decoder<shapes::smollm2_135m>;          ///< 134,515,008
using smollm2_360m = decoder<shapes::smollm2_360m>;          ///< 361,821,120
using rwkv4_660k = rwkv4<shapes::rwkv4_660k>;                ///< 661,504
using rwkv7_834k = rwkv7<shapes::rwkv7_834k>;                ///< 829,888
using bert_base = encoder<shapes::bert_base>;                ///< 109,514,298
using distilbert_base = encoder<shapes::distilbert_base>;    ///< 66,985,530
using minilm_l6 = encoder<shapes::minilm_l6, head::pooler>;  ///< 22,713,216
using albert_base = encoder<shapes::albert_base, sharing::all, embedding::factorised<128>,
                            ffn::gelu_tanh>;  ///< 11,221,680

}  // namespace zoo

LINNET_NAMESPACE_END
/// @file
/// Bytes as tokens: no vocabulary file, no unknown words.

/// @file
/// The special token ids of T5's vocabularies.

LINNET_NAMESPACE_BEGIN

/// Special ids of a vocabulary in T5's order: 0 pads, 1 ends a text, 2 is unknown. The last ids are
/// sentinels for masked text, counting down (Raffel et al. 2020, in their code): `<extra_id_0>` is
/// 32099 of T5's 32100.
struct t5_ids {
  static constexpr token padding = 0, end = 1, unknown = 2;

  index vocabulary = 32100;  ///< ids, sentinels included
  index sentinels = 100;     ///< of these, the last ones

  /// The `k`-th sentinel, k in [0, sentinels).
  constexpr token sentinel(index k) const { return static_cast<token>(vocabulary - 1 - k); }
  /// Whether `id` is a sentinel.
  constexpr bool is_sentinel(token id) const {
    return id >= vocabulary - sentinels && id < vocabulary;
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// One token per byte: id = byte + `offset`. Ids below the offset are special, and so are those
/// from offset + 256 on; they decode to nothing.
struct byte_tokenizer {
  token offset = 0;    ///< special ids before the bytes
  token specials = 0;  ///< special ids behind them

  /// ByT5's numbering: 0 padding, 1 end, 2 unknown, then the bytes.
  static constexpr byte_tokenizer byt5() { return {3, 0}; }
  /// ByT5's numbering with sentinels behind the bytes: `vocabulary` ids in all, at least 259.
  static constexpr byte_tokenizer t5(index vocabulary = 384) {
    return {3, static_cast<token>(vocabulary - 259)};
  }
  /// Special ids of a vocabulary from t5().
  constexpr t5_ids ids() const { return {vocabulary(), specials}; }
  /// ByT5's special ids.
  static constexpr token padding = 0, end = 1, unknown = 2;

  /// Number of ids.
  constexpr index vocabulary() const { return offset + 256 + specials; }
  /// The id of the `i`-th special token behind the bytes.
  constexpr token special(token i) const { return offset + 256 + i; }
  /// The ids of a text's bytes. None where memory lacks.
  std::vector<token> encode(std::string_view text) const LINNET_TRY {
    std::vector<token> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c) + offset);
    return ids;
  }
  LINNET_WITHOUT_MEMORY(return {})
  /// Puts the ids of a text into the caller's span and returns their number. Errors: errc::invalid
  /// where they are more, with the number that there must be room for; as many as fit are written.
  /// Allocates nothing but the words of the error.
  result<index> encode(std::string_view text, std::span<token> to) const LINNET_TRY {
    detail::token_room room(to);
    for (const char c : text) room.push_back(static_cast<unsigned char>(c) + offset);
    return room.filled();
  }
  LINNET_OR_OUT_OF_MEMORY("encode")
  /// The byte of an id, or "" for a special one. `previous`, which other tokenizers need, is
  /// unused.
  std::string decode([[maybe_unused]] token previous, token id) const {
    return id >= offset && id < offset + 256 ? std::string(1, static_cast<char>(id - offset))
                                             : std::string();
  }
  /// The bytes of several ids, special ones left out. None where memory lacks.
  template <class Tokens>
  std::string decode(const Tokens& ids) const LINNET_TRY {
    std::string text;
    for (const token id : ids) text += decode(0, id);
    return text;
  }
  LINNET_WITHOUT_MEMORY(return {})
};

LINNET_NAMESPACE_END
/// @file
/// Text as it is generated: whole characters only, and nothing that may be the start of a stop
/// string.

#include <initializer_list>

/// @file
/// UTF-8: where its sequences end.

LINNET_NAMESPACE_BEGIN

/// Bytes of the well-formed UTF-8 sequence that `text` begins with; 1 for a byte that begins
/// none, 0 if more bytes are needed to tell. `text` must not be empty.
constexpr std::size_t utf8_sequence(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  const std::size_t length = lead < 0xc2 || lead > 0xf4 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (length == 1) return 1;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return 0;
    // The second byte has a narrower range behind some leads: no overlong forms, surrogates or
    // numbers above U+10FFFF.
    const unsigned low = i > 1 ? 0x80 : lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned high = i > 1 ? 0xbf : lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (byte(i) < low || byte(i) > high) return 1;
  }
  return length;
}

namespace detail {

/// A character at the front of a text: its code point and its bytes.
struct utf8_character {
  char32_t code;  ///< no_code for a byte that belongs to no well-formed sequence
  std::size_t size;
};
inline constexpr char32_t no_code = 0xffffffff;

/// The character at the front of a text that is not empty.
constexpr utf8_character utf8_front(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return {byte(0), 1};
  const std::size_t n = utf8_sequence(text.substr(0, 4));
  if (n < 2) return {no_code, 1};
  char32_t code = byte(0) & (0xffu >> (n + 1));
  for (std::size_t i = 1; i < n; ++i) code = code << 6 | (byte(i) & 0x3fu);
  return {code, n};
}
/// Appends a code point to a text.
inline void append_utf8(char32_t code, std::string& to) {
  const auto put = [&](char32_t byte) {
    to += static_cast<char>(static_cast<unsigned char>(byte));
  };
  if (code < 0x80) return put(code);
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  put((0xff00u >> (more + 1) & 0xffu) | code >> 6 * more);
  for (int i = more; i-- > 0;) put(0x80 | (code >> 6 * i & 0x3f));
}

/// Whether a text is UTF-8 throughout.
inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t n = utf8_sequence(text);
    if (n == 0 || (n == 1 && static_cast<unsigned char>(text[0]) >= 0x80)) return false;
    text.remove_prefix(n);
  }
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Takes a text in pieces of bytes, cut anywhere, and hands on bytes as soon as they are certain.
///  - A UTF-8 sequence is handed on whole. Bytes that belong to no well-formed sequence (Unicode
///    15, table 3-7) are handed on as they are, once it is certain that they belong to none.
///  - What may be the beginning of a stop string waits until that is decided. The text ends before
///    the first stop string to be complete, of several at one byte before the longest. That string
///    and all behind it are dropped.
///
/// Memory is taken by the constructor; nothing allocates afterwards.
class text_stream {
 public:
  /// Ends at any of these strings; empty ones are left out.
  template <class Strings>
  explicit text_stream(const Strings& stops) {
    std::size_t longest = 4;
    for (const auto& s : stops) {
      const std::string_view text(s);
      if (text.empty()) continue;
      stops_.push_back({std::string(text), prefixes_of(text), 0});
      longest = (std::max)(longest, text.size());
    }
    held_.resize(longest + chunk);
  }
  /// @copydoc text_stream(const Strings&)
  text_stream(std::initializer_list<std::string_view> stops = {})
      : text_stream(std::span(stops.begin(), stops.size())) {}

  /// Takes the next bytes. Calls on_text(std::string_view) for what has become certain, no or more
  /// times, never with nothing. Returns whether the text goes on: false from the first stop string
  /// on.
  template <class Emit>
  bool push(std::string_view bytes, Emit&& on_text) {
    for (const char c : bytes) {
      if (stopped_) return false;
      held_[size_++] = c;
      std::size_t possible = 0;  // of the last bytes, those that may begin a stop string
      for (needle& n : stops_) {
        n.advance(c);
        if (n.matched == n.text.size()) {
          stopped_ = true;
          complete_ = (std::max)(complete_, n.matched);
        }
        possible = (std::max)(possible, n.matched);
      }
      if (stopped_) {
        size_ -= complete_;
        release(size_, on_text);
        waiting_ = 0;
        return false;
      }
      waiting_ = possible;
      if (size_ == held_.size()) release(certain(), on_text);
    }
    release(certain(), on_text);
    return !stopped_;
  }
  /// Ends the text: hands on held bytes, and begins a new text.
  template <class Emit>
  void flush(Emit&& on_text) {
    if (!stopped_) release(size_, on_text);
    reset();
  }
  /// Forgets the text and begins a new one.
  void reset() {
    size_ = waiting_ = complete_ = 0;
    stopped_ = false;
    for (needle& n : stops_) n.matched = 0;
  }
  /// Whether a stop string has ended the text.
  bool stopped() const { return stopped_; }

 private:
  static constexpr std::size_t chunk = 256;  ///< bytes that are gathered before they are handed on

  /// A stop string and how much of it the text ends with (Knuth, Morris and Pratt 1977).
  struct needle {
    std::string text;
    std::vector<std::size_t> prefixes;  ///< [i]: longest proper prefix that text[0, i] ends with
    std::size_t matched;

    void advance(char c) {
      while (matched > 0 && text[matched] != c) matched = prefixes[matched - 1];
      if (text[matched] == c) ++matched;
    }
  };
  static std::vector<std::size_t> prefixes_of(std::string_view text) {
    std::vector<std::size_t> all(text.size(), 0);
    for (std::size_t i = 1; i < text.size(); ++i) {
      std::size_t k = all[i - 1];
      while (k > 0 && text[k] != text[i]) k = all[k - 1];
      all[i] = text[k] == text[i] ? k + 1 : 0;
    }
    return all;
  }

  /// Bytes held that can be handed on: whole sequences before what may begin a stop string.
  std::size_t certain() const {
    const std::string_view held(held_.data(), size_);
    std::size_t end = 0;
    while (end < size_ - waiting_) {
      const std::size_t n = utf8_sequence(held.substr(end));
      if (n == 0 || end + n > size_ - waiting_) break;
      end += n;
    }
    return end;
  }
  template <class Emit>
  void release(std::size_t count, Emit& on_text) {
    if (count == 0) return;
    on_text(std::string_view(held_.data(), count));
    std::copy(held_.begin() + static_cast<index>(count), held_.begin() + static_cast<index>(size_),
              held_.begin());
    size_ -= count;
  }

  std::vector<needle> stops_;
  std::string held_;          ///< the last bytes, not handed on yet
  std::size_t size_ = 0;      ///< how many
  std::size_t waiting_ = 0;   ///< the last of them, which may begin a stop string
  std::size_t complete_ = 0;  ///< bytes of the stop string that ended the text
  bool stopped_ = false;
};

LINNET_NAMESPACE_END
