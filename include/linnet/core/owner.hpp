// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A pointer that owns what it points to.

#include <utility>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Ends what `new` began.
struct deleted {
  template <class T>
  void operator()(T* p) const {
    delete p;
  }
};

/// Owner of what a pointer points to, which `End` ends. Like std::unique_ptr, whose header is slow
/// to read: it brings streams and shared pointers.
template <class T, class End = deleted>
class owner {
 public:
  owner() = default;
  explicit owner(T* p, const End& end = {}) : p_(p), end_(end) {}
  owner(owner&& other) noexcept : p_(std::exchange(other.p_, nullptr)), end_(other.end_) {}
  owner& operator=(owner&& other) noexcept {
    std::swap(p_, other.p_);
    std::swap(end_, other.end_);
    other.reset();
    return *this;
  }
  ~owner() { reset(); }

  /// The pointer, or null.
  T* get() const { return p_; }
  T* operator->() const { return p_; }
  explicit operator bool() const { return p_ != nullptr; }
  /// How it ends.
  const End& end() const { return end_; }
  /// The pointer, which is owned no more.
  T* release() { return std::exchange(p_, nullptr); }
  /// Ends what it owns and takes over another, or nothing.
  void reset(T* next = nullptr) {
    if (T* const last = std::exchange(p_, next)) end_(last);
  }

 private:
  T* p_ = nullptr;
  [[no_unique_address]] End end_{};
};

}  // namespace detail

LINNET_NAMESPACE_END
