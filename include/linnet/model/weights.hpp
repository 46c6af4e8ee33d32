// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The values of a model: canonical weights, gradients and the packed form that kernels read. Each
/// owns one block of memory of a size known at compile time.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/core/arena.hpp>
#include <linnet/core/result.hpp>
#include <linnet/core/view.hpp>
#include <linnet/model/key_scales.hpp>
#include <linnet/model/leaves.hpp>
#include <linnet/nn/each_tensor.hpp>
#include <linnet/nn/layer.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

/// The storage type of model `M` when it computes in `T`: a double model stores doubles.
template <class M, class T>
using storage_of = std::conditional_t<std::is_same_v<T, double>, storage::f64, typename M::storage>;

namespace detail {

/// Refuses a caller's memory that is shorter than `bytes`, which `called` says, or not aligned.
/// Errors: errc::invalid.
inline result<void> fits_memory(const char* where, const void* data, std::size_t size,
                                const char* called, index bytes) {
  const auto refuse = [&](std::string_view expected, std::string_view got) {
    return detail::failure(errc::invalid, where, "memory", expected, got);
  };
  if (size < static_cast<std::size_t>(bytes))
    return refuse(std::string(called) + ", " + std::to_string(bytes) + " bytes",
                  std::to_string(size));
  if (reinterpret_cast<std::uintptr_t>(data) % alignment != 0)
    return refuse("memory that is declared alignas(linnet::alignment)", "another address");
  return {};
}

/// The error of a function that could not allocate so many bytes.
LINNET_COLD inline linnet::error out_of_memory(const char* where, index bytes) {
  return detail::failure(errc::out_of_memory, where, "memory", std::to_string(bytes) + " bytes",
                         "a failed allocation");
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
  LINNET_INLINE bool valid() const { return values_.data() != nullptr; }
  /// Why valid() is false: errc::out_of_memory, the error of the function that should have made the
  /// values, or errc::invalid after a move.
  linnet::error error() const {
    if (failed_) return failure_;
    if (lacks_memory_) return detail::out_of_memory("weights", bytes());
    return detail::failure(errc::invalid, "weights", "values", "an object that was not moved from",
                           "an empty one");
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
  LINNET_INLINE tree_type& tree() { return tree_; }
  /// @copydoc tree()
  LINNET_INLINE const tree_type& tree() const { return tree_; }
  /// Calls f(path, tensor_info, leaf) for each tensor in canonical order.
  template <class F>
  void visit(F&& f) {
    detail::each_leaf(f, detail::tree_of<M, Form>{tree_});
  }
  /// @copydoc visit()
  template <class F>
  void visit(F&& f) const {
    detail::each_leaf(f, detail::tree_of<M, Form, true>{const_cast<tree_type&>(tree_)});
  }
  /// The whole block as bytes.
  void* data() const { return values_.data(); }
  /// @copydoc data()
  std::span<std::byte> block() const { return values_; }

 protected:
  /// Values in bytes() bytes of a block, `offset` behind its first byte; both are aligned.
  tensor_block(memory_block memory, index offset) : memory_(std::move(memory)) {
    if constexpr (sizeof(void*) < 8)  // others reach what can be counted
      static_assert(bytes() < most_bytes,
                    "linnet: parameters of more bytes than this 32-bit target reaches");
    if (!memory_.data()) return;
    values_ = {static_cast<std::byte*>(memory_.data()) + offset, static_cast<std::size_t>(bytes())};
    arena all(values_.data(), bytes());
    place_all(all, tree_);
  }

 private:
  static constexpr void place_all(arena& memory, tree_type& tree) {
    const detail::places_leaves place_one{memory};
    detail::each_leaf(place_one, detail::tree_of<M, Form>{tree});
  }

  memory_block memory_;
  std::span<std::byte> values_;
  tree_type tree_{};
  linnet::error failure_{};
  bool failed_ = false;
  bool lacks_memory_ = false;
};

namespace detail {

template <class M, class Form>
LINNET_INLINE inline tree_of<M, Form> tree_in(tensor_block<M, Form>& block) {
  return {block.tree()};
}
template <class M, class Form>
LINNET_INLINE inline tree_of<M, Form, true> tree_in(const tensor_block<M, Form>& block) {
  return {const_cast<typename M::template params<Form>&>(block.tree())};
}

}  // namespace detail

/// Calls f(path, tensor_info, leaf...) for each tensor of several blocks, in canonical order: of
/// weights and gradients, say. All have the same tensors, though stored in other ways. Compiles in
/// less time than a visit() of the model with all of them.
template <class F, class... Block>
void each_tensor_of(F&& f, Block&... blocks) {
  detail::each_leaf(f, detail::tree_in(blocks)...);
}

namespace detail {

/// Lets parameters refer to the base that others refer to, where they are those of an adapter.
template <class From, class To>
void share_base(const From& from, To& to) {
  if constexpr (requires { to.base = from.base; }) to.base = from.base;
}
/// Refuses parameters of an adapter that refer to no base, or to one that was moved. Errors:
/// errc::invalid.
template <class Tree>
result<void> check_base(const char* where, const Tree& tree) {
  if constexpr (requires { tree.base.of; })
    if (tree.base.of == nullptr || !tree.base.there(tree.base.of))
      return failure(
          errc::invalid, where, "weights", "an adapter that adapt() gave its base",
          tree.base.of ? "one whose base has moved or is not valid" : "one without a base");
  return {};
}

/// Weights or packed weights that are made of `source`: failed if it is not valid, with its error.
template <class To, class From>
To made_of(const From& source) {
  To made;
  if (source.valid())
    share_base(source.tree(), made.tree());
  else
    made.fail(source.error());
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
  if (w.valid()) w.visit(detail::finds_nonfinite<T>{found});
  return found;
}

/// Refuses weights that are not finite by the name of first_nonfinite(), and weights that are not
/// valid() by their own error. Loading does not ask: weights of a run that diverged can be looked
/// at. `where`, such as the file's path, begins the message. Errors: errc::invalid.
template <class M, class T>
result<void> check_finite(const weights<M, T>& w, std::string_view where) {
  if (!w.valid()) return w.error();
  if (auto name = first_nonfinite(w); !name.empty())
    return detail::failure(errc::invalid, where, name, "finite numbers", "a NaN or an infinity");
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
    copy.key_scales_ = key_scales_;
    return copy;
  }
  /// Gives the scales that sessions of these weights round keys with, as kv::channel_int8 and
  /// kv::channel_int4 ask for; sessions that are open must be opened anew. Files of packed weights
  /// do not hold them.
  void set_key_scales(linnet::key_scales<M> scales) requires(detail::scales_keys<M, T>) {
    key_scales_ = std::move(scales.values_);
  }
  /// Scales [layers, kv_heads, d_kv] that were given, or null.
  const float* key_scales() const { return key_scales_.empty() ? nullptr : key_scales_.data(); }
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
  std::vector<float> key_scales_;
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
  each_tensor_of(packs_leaves{on}, p, w);
}
/// Rewrites the packed form of a model from its canonical weights.
template <class M, class T, class S>
void pack_into(const ops::execution& on, const weights<M, T>& w, packed<M, T, S>& p) {
  pack_tree<M>(on, w, p);
}
/// Points `p` to the canonical rows of its matrices, which backward() reads.
template <class L, class W, class P>
void attach_rows(const W& w, P& p) {
  share_base(w.tree(), p.tree());
  each_tensor_of(attaches_leaves{}, p, w);
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
  detail::share_base(w.tree(), p.tree());
  __builtin_memset(memory.data(), 0, static_cast<std::size_t>(p.bytes()));
  detail::pack_into(ops::execution{}, w, p);
  return p;
}

/// Unpacks the canonical weights that `p` was packed from.
template <class M, class T>
weights<M, T> unpack(const packed<M, T>& p) {
  auto w = detail::made_of<weights<M, T>>(p);
  if (w.valid()) each_tensor_of(detail::unpacks_leaves{}, w, p);
  return w;
}

LINNET_NAMESPACE_END
