// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Errors as values: what went wrong, where, what was expected and what was found.

#include <algorithm>
#include <cassert>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <linnet/core/finite.hpp>

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
  LINNET_COLD std::string message() const {
    std::string line = where;
    if (!what.empty()) line += (line.empty() ? "" : ": ") + what;
    if (!expected.empty()) line += ": expected " + expected;
    if (!got.empty()) line += (expected.empty() ? ": got " : ", got ") + got;
    return line;
  }
};

namespace detail {
/// An error of these words, which may be empty: out of line, as most programs never see one.
LINNET_COLD inline error failure(errc code, std::string_view where, std::string_view what,
                                 std::string_view expected, std::string_view got) {
  return {code, std::string(where), std::string(what), std::string(expected), std::string(got)};
}

/// Foreign text for a message: cut to 60 bytes, nothing but printable ASCII.
LINNET_COLD inline std::string printable(std::string_view text) {
  std::string shown(text.substr(0, 60));
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return text.size() > 60 ? shown + "..." : shown;
}

/// The error errc::out_of_memory, made without memory for its text if none is left.
LINNET_COLD inline error out_of_memory(std::string_view where) {
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
  LINNET_INLINE explicit operator bool() const { return succeeded_; }
  /// The value; asserts that there is one.
  LINNET_INLINE T& value() & { return *operator->(); }
  /// @copydoc value()
  LINNET_INLINE const T& value() const& { return *operator->(); }
  /// Moves the value out.
  T value() && { return std::move(*operator->()); }
  /// The value; asserts that there is one.
  LINNET_INLINE T& operator*() & { return *operator->(); }
  /// @copydoc operator*()
  LINNET_INLINE const T& operator*() const& { return *operator->(); }
  /// Moves the value out.
  T operator*() && { return std::move(*operator->()); }
  /// Access to the value's members.
  LINNET_INLINE T* operator->() {
    assert(succeeded_ && "linnet::result: value() of a failed result; test it first");
    return &value_;
  }
  /// @copydoc operator->()
  LINNET_INLINE const T* operator->() const { return const_cast<result*>(this)->operator->(); }
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
  LINNET_INLINE void end() {
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
