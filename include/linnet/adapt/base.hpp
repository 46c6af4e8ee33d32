// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Common parts of adapters: the base that they refer to, and how it runs with them.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <type_traits>

#include <linnet/model/buffers.hpp>
#include <linnet/model/reproducible.hpp>
#include <linnet/storage/frozen.hpp>

LINNET_NAMESPACE_BEGIN

/// Model `M` with an adapter: see lora, bitfit, prompt_tuning and prefix_tuning. Its weights are
/// the adapter's alone, with a visit, gradients, moments and files of their own. They refer to
/// packed weights of `M` in any storage, which any number of adapters share and none changes; see
/// adapt().
template <class M, class Method>
struct adapted;

namespace detail {

/// A hash of packed weights: of their panels, which are the same on every machine.
inline std::uint64_t base_hash(std::span<const std::byte> bytes) {
  std::uint64_t hash = bytes.size();
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    std::uint64_t word = 0;
    __builtin_memcpy(&word, bytes.data() + i, (std::min)(std::size_t{8}, bytes.size() - i));
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return hash;
}

}  // namespace detail

/// The base that an adapter was made for.
struct adapter_base {
  const void* of = nullptr;                      ///< the packed weights, or null
  bool (*there)(const void*) = nullptr;          ///< whether they are valid
  std::uint64_t (*mark)(const void*) = nullptr;  ///< a hash of their panels

  /// By which files know the base. It reads all of it, which must be there.
  std::uint64_t hash() const { return mark(of); }
  /// Refers to packed weights.
  template <class Packed>
  void refer_to(const Packed& base) {
    of = &base;
    mark = [](const void* one) {
      return detail::base_hash(static_cast<const Packed*>(one)->block());
    };
    there = [](const void* one) { return static_cast<const Packed*>(one)->valid(); };
  }
};

namespace detail {

/// The base that an adapter of `Count` matrices or branches was made for.
template <std::size_t Count>
struct panels_base : adapter_base {
  const void* panels[Count]{};  ///< by which products know each, in the order of memory

  /// Number of the one with these panels, or -1.
  index find(const void* one) const {
    const void* const* const end = std::end(panels);
    const void* const* const at = std::lower_bound(std::begin(panels), end, one);
    return at != end && *at == one ? at - std::begin(panels) : -1;
  }
};

/// How a frozen model of scalar `T` is stored.
template <class M, class T>
using frozen_base = typename frozen_storage<storage_of<M, T>>::type;

/// The parameters of `p` as frozen ones, in the same memory.
template <class M, class T>
packed_params<M, T, frozen_base<M, T>> frozen_params(
    const packed_params<M, T, storage_of<M, T>>& p) {
  packed_params<M, T, frozen_base<M, T>> made{};
  M::visit(
      [](const parameter_path&, const tensor_info&, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
          to = from;
        else
          to = ops::frozen_matrix(from);
      },
      parameter_path{}, made, p);
  return made;
}

/// Places for gradients that nobody reads. A layer's vectors have theirs side by side, as threads
/// may write two of them at a time. The next layer's are in the same memory.
struct unread_places {
  index layer = -2, used = 0, most = 0;

  /// Where the next tensor is.
  constexpr index take(const parameter_path& at, const tensor_info& info) {
    const index number = at.enclosing_element().number;
    if (number != layer) used = 0;
    layer = number;
    const index here = used;
    used += round_up(info.size(), index{16});
    most = (std::max)(most, used);
    return here;
  }
};
/// Values that the gradients of a frozen model's vectors take.
template <class M>
consteval index count_unread() {
  unread_places places;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    if (!info.stored()) (void)places.take(at, info);
  });
  return places.most;
}
/// Gradients of a frozen model: none of its matrices, and count_unread() values for its vectors, or
/// none.
template <class M, class T>
typename M::template params<form::gradient<T>> frozen_gradients(T* unread) {
  typename M::template params<form::gradient<T>> made{};
  unread_places places;
  M::visit(
      [&](const parameter_path& at, const tensor_info& info, auto& leaf) {
        if (unread && !info.stored()) leaf = unread + places.take(at, info);
      },
      parameter_path{}, made);
  return made;
}

/// Buffers of a model with an adapter.
template <class M, class T>
struct adapted_workspace {
  typename M::template workspace<T> base{};
  T* unread = nullptr;                     ///< [count_unread()] while training
  T *inner = nullptr, *d_inner = nullptr;  ///< of the adapter, while training
};

/// Plans the base of an adapter that keeps `width` values of each row of a product.
template <class M, class T>
constexpr adapted_workspace<M, T> plan_adapted(planner& m, const limits& l, purpose use,
                                               index width) {
  adapted_workspace<M, T> w;
  if (use == purpose::training) {
    w.unread = m.saved.take<T>(count_unread<M>());
    if (width > 0) {
      planner rows;
      rows.converted_bytes = [](index some, index, index, index, bool) { return some; };
      (void)M::template plan<T>(rows, l, use);
      w.inner = m.saved.take<T>(multiply_sizes(rows.converted, width));
      w.d_inner = m.saved.take<T>(multiply_sizes(rows.converted, width));
    }
  }
  m.converted_bytes = planner_for<frozen_base<M, T>>().converted_bytes;
  w.base = M::template plan<T>(m, l, use);
  return w;
}

/// Whether what an adapter of this method adds to a reproducible model has the same bits on every
/// machine, which its constant `reproducible` says.
template <class Method>
inline constexpr bool covers_method = requires {
  requires Method::reproducible;
};

/// The common members of models with an adapter. Their own are params, visit and describe; hook,
/// where sequences of a session take it; plan and loss.
template <class M, class Method>
struct adapted_model : M {
  static_assert(!is_reproducible<M> || covers_method<Method>,
                "linnet::compute::reproducible: this adapter computes what it does not cover; "
                "take lora, bottleneck, bitfit, partial_tuning, prompt_tuning or prefix_tuning, or "
                "a base with compute::fast");
  using base_model = M;
  using method = Method;
  using storage = linnet::storage::f32;  ///< of the adapter
  template <class S>
  requires std::is_same_v<S, storage>
  using with_storage = adapted<M, Method>;
  static constexpr bool supports_cache = false;  ///< see session::set_adapter()
  /// Whether sequences of a session take it.
  static constexpr bool serves_sequences = true;
  /// Trainable parameters.
  static constexpr index parameters() { return count_parameters<adapted<M, Method>>(); }

  template <class T>
  using workspace = adapted_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    return plan_adapted<M, T>(m, l, use, 0);
  }
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    M::prepare(w.base, l);
  }

 protected:
  /// Refuses in words what trains or runs an adapter in another type than its own.
  template <class S, class T>
  static constexpr void check_storage() {
    constexpr bool plain = std::is_same_v<S, storage_of<adapted<M, Method>, T>>;
    static_assert(plain, "linnet::adapted: adapters train and run in compute::f32");
  }
  /// The loss of the base that `p` refers to with the hooks of an adapter, and with `trains` what
  /// they do with its gradient. Called by every thread.
  template <class T, class P, class Criterion>
  static loss_sum loss_with(const P& p, bool trains, const typename M::batch& b, workspace<T>& w,
                            const ops::execution& on, const ops::adapter_hooks<T>& hooks,
                            const loss_call<T>& call, const Criterion& criterion) {
    if (p.base.of == nullptr) return loss_sum::refused();
    const auto frozen = frozen_params<M, T>(static_cast<const packed<M, T>*>(p.base.of)->tree());
    auto unread = frozen_gradients<M, T>(w.unread);
    ops::execution with = on;
    with.adapter = &hooks;
    return M::template loss<T, frozen_base<M, T>>(frozen, trains ? &unread : nullptr, b, w.base,
                                                  with, call, criterion);
  }
};

/// An adapter of packed weights, all zero.
template <class Method, class M, class T>
result<weights<adapted<M, Method>, T>> begin_adapter(const packed<M, T>& base) {
  if (!base.valid()) return base.error();
  weights<adapted<M, Method>, T> made;
  if (!made.valid()) return made.error();
  made.tree().base.refer_to(base);
  return made;
}

}  // namespace detail

LINNET_NAMESPACE_END
