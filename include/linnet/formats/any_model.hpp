// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Packed weights of a model that a file chooses among those that were compiled.

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <linnet/formats/packed_file.hpp>
#include <linnet/generate/any_session.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Adds a line on a model type to a list, such as "decoder (d_model 8, layers 2, storage f32)".
template <class M>
LINNET_COLD void add_compiled(std::string& list) {
  std::string family, rest;
  describe_packed<M, float>([&](std::string_view key, std::string_view value) {
    if (key == "family")
      family = value;
    else if (key == "d_model" || key == "layers" || key == "storage")
      ((rest += rest.empty() ? "" : ", ").append(key) += ' ').append(value);
  });
  list += (list.empty() ? "" : "; ") + (family.empty() ? "a model" : family) + " (" + rest + ")";
}

}  // namespace detail

/// Packed weights of one of the model types `Ms`, which are all compiled; the header of a file of
/// save_packed() says which. Everything but that choice is static: sessions, and what visit() is
/// given. Movable, but sessions point into it: it must outlive them where it is.
template <class... Ms>
class any_model {
  static_assert(sizeof...(Ms) > 0, "linnet::any_model: name the model types that a file may hold");
  template <class M>
  static constexpr bool has = (std::is_same_v<M, Ms> || ...);

 public:
  /// How many types there are.
  static constexpr index models = sizeof...(Ms);

  /// Maps a file of save_packed(), as map_packed() does. Errors: those of map_file() and
  /// view_packed(). A file of another model is errc::mismatch; the error lists the types that were
  /// compiled, and what differs from each.
  static result<any_model> open(const std::string& path) LINNET_TRY {
    auto file = map_file(path);
    if (!file) return file.error();
    const std::span bytes(static_cast<const std::byte*>(file->data()),
                          static_cast<std::size_t>(file->size()));
    return from(bytes, *std::move(file), path);
  }
  LINNET_OR_OUT_OF_MEMORY(path)
  /// Packed weights over the bytes of a file, which must outlive them, as view_packed() does.
  /// `where` names the bytes in errors. Errors: those of open().
  static result<any_model> view(lasting_span<const std::byte> bytes,
                                const std::string& where = "packed weights") LINNET_TRY {
    return from(bytes,
                memory_block(const_cast<std::byte*>(bytes.data()), std::ssize(bytes), nullptr),
                where);
  }
  LINNET_OR_OUT_OF_MEMORY(where)
  /// Takes weights of one of the types over.
  template <class M>
  requires(has<M>) explicit any_model(packed<M, float> p) : which_(number_of<M>()) {
    new (room_) packed<M, float>(std::move(p));
  }

  any_model(any_model&& other) noexcept { take(other); }
  any_model& operator=(any_model&& other) noexcept {
    if (this == &other) return *this;
    end();
    take(other);
    return *this;
  }
  ~any_model() { end(); }

  /// The number of the type in `Ms`, from 0.
  index which() const { return which_; }
  /// Calls `f` with the packed weights, whose type is static there.
  template <class F>
  void visit(F&& f) const {
    const_cast<any_model*>(this)->each([&]<class M>(packed<M, float>& p) { f(std::as_const(p)); });
  }
  /// Opens a session in memory that it allocates once. Errors: those of session::open().
  result<any_session> session(const limits& l) const LINNET_TRY {
    std::optional<result<any_session>> made;
    visit([&](const auto& p) { made.emplace(any_session::open(p, l)); });
    if (!made) return no_weights();
    return *std::move(made);
  }
  LINNET_OR_OUT_OF_MEMORY("any_model::session")
  /// Opens a session in the caller's memory: footprint(l) bytes are enough for each type, aligned
  /// to `alignment`. Memory and this object must outlive it. Errors: those of session::open().
  result<any_session> session(const limits& l, std::span<std::byte> memory) const LINNET_TRY {
    std::optional<result<any_session>> made;
    visit([&](const auto& p) { made.emplace(any_session::open(p, l, memory)); });
    if (!made) return no_weights();
    return *std::move(made);
  }
  LINNET_OR_OUT_OF_MEMORY("any_model::session")
  /// Most bytes that a session with these limits takes, of all types.
  static constexpr index footprint(const limits& l) {
    return (std::max)({any_session::footprint<Ms>(l)...});
  }
  /// The types in words, one behind the other, such as "decoder (d_model 8, layers 2, storage
  /// f32)".
  static std::string compiled() {
    std::string list;
    (detail::add_compiled<Ms>(list), ...);
    return list;
  }

 private:
  any_model() = default;
  static error no_weights() {
    return {errc::invalid, "any_model::session", "model", "weights",
            "none, as they were moved away"};
  }
  template <class M>
  static constexpr index number_of() {
    index number = 0;
    (void)((std::is_same_v<M, Ms> ? true : (++number, false)) || ...);
    return number;
  }
  /// Calls f with the weights, if there are any.
  template <class F>
  void each(F&& f) {
    (void)((which_ == number_of<Ms>() ? (f(*reinterpret_cast<packed<Ms, float>*>(room_)), true)
                                      : false) ||
           ...);
  }
  void end() {
    each([]<class M>(packed<M, float>& p) { p.~packed<M, float>(); });
    which_ = -1;
  }
  void take(any_model& other) {
    other.each([&]<class M>(packed<M, float>& p) { new (room_) packed<M, float>(std::move(p)); });
    which_ = other.which_;
    other.end();
  }

  /// The outcome of a search for the type of a file.
  struct found {
    index which = -1, begin = 0;
    std::optional<error> failure{};  ///< of a file that no type can read
    std::string differs{};
  };
  template <class M>
  static bool is_of(std::span<const std::byte> bytes, const std::string& where, found& to) {
    const auto begin = detail::check_packed<M, float>(bytes, where);
    if (begin) {
      to.which = number_of<M>();
      to.begin = *begin;
    } else if (begin.error().code != errc::mismatch) {
      to.failure = begin.error();
    } else {
      const error& e = begin.error();
      to.differs += (to.differs.empty() ? "" : "; ") + e.what + " " + e.got;
    }
    return begin || to.failure;
  }
  static result<any_model> from(std::span<const std::byte> bytes, memory_block&& memory,
                                const std::string& where) {
    found at;
    (void)(is_of<Ms>(bytes, where, at) || ...);
    if (at.failure) return *std::move(at.failure);
    if (at.which < 0)
      return detail::failure(
          errc::mismatch, where, "model type",
          "one of " + std::to_string(models) + " that were compiled: " + compiled(),
          "another, by " + at.differs);
    any_model made;
    made.place(at, std::move(memory));
    return made;
  }
  void place(const found& at, memory_block&& memory) {
    which_ = at.which;
    (void)((which_ == number_of<Ms>()
                ? (new (room_) packed<Ms, float>(std::move(memory), at.begin), true)
                : false) ||
           ...);
  }

  alignas(packed<Ms, float>...) std::byte room_[(std::max)({sizeof(packed<Ms, float>)...})];
  index which_ = -1;
};

LINNET_NAMESPACE_END
