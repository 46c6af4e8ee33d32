// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Functions of one tensor that blocks of weights call for each of theirs. They do not depend on
/// the model, so that compilers make them once for all models.

#include <algorithm>
#include <string>
#include <type_traits>

#include <linnet/core/arena.hpp>
#include <linnet/nn/each_tensor.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class S>
constexpr void place(arena& memory, const tensor_info& info, matrix_ref<S>& leaf) {
  leaf.data = memory.take<typename S::value>(info.rows * row_values<S>(info.columns));
  const index scales = info.rows * row_scales<S>(info.columns);
  if constexpr (S::scaled) leaf.scales = memory.take<float>(scales);
  if constexpr (S::centred) leaf.zeros = memory.take<float>(scales);
  [[maybe_unused]] const auto take = [&](const char*, auto*& values, index rows, index columns) {
    values = memory.take<std::remove_cvref_t<decltype(*values)>>(rows * columns);
  };
  if constexpr (has_levels<S>) leaf.levels.visit(info.rows, row_scales<S>(info.columns), take);
  if constexpr (is_corrected<S>) leaf.correction.visit(info.rows, info.columns, take);
  if constexpr (is_sparse<S>) leaf.kept.visit(info.rows, info.columns, take);
}
template <class T, class S>
constexpr void place(arena& memory, const tensor_info& info, ops::packed_matrix<T, S>& leaf) {
  leaf.panels = memory.take<typename S::word>(leaf.size(info.rows, info.columns));
  using scale = typename ops::packed_matrix<T, S>::scale;
  const index scales = leaf.scales_size(info.rows, info.columns);
  if constexpr (has_levels<S>) {
    leaf.levels.place(memory, info.rows, row_scales<S>(info.columns));
  } else {
    if constexpr (S::scaled) leaf.scales = memory.take<scale>(scales);
    if constexpr (S::centred) leaf.zeros = memory.take<scale>(scales);
  }
  leaf.correction.place(memory, info.rows, info.columns);
  if constexpr (is_sparse<S>) leaf.kept.place(memory, info.rows, info.columns);
}
template <class T>
constexpr void place(arena& memory, const tensor_info& info, T*& leaf) {
  leaf = memory.take<std::remove_const_t<T>>(info.size());
}

/// Gives each tensor its memory.
struct places_leaves {
  arena& memory;

  template <class Leaf>
  constexpr void operator()(const parameter_path& at, const tensor_info& info, Leaf& leaf) const {
    if constexpr (requires { place(memory, at, info, leaf); })  // of an optimizer, say
      place(memory, at, info, leaf);
    else
      place(memory, info, leaf);
  }
};

/// The numbers of one tensor, whatever form holds them.
template <class Leaf>
constexpr auto* numbers_in(const Leaf& leaf) {
  if constexpr (std::is_pointer_v<Leaf>)
    return leaf;
  else
    return leaf.data;
}

/// Copies a tensor that is stored as plain numbers.
template <class Leaf>
void copy_tensor(const tensor_info& info, const Leaf& from, const Leaf& to) {
  std::copy_n(numbers_in(from), info.size(), numbers_in(to));
}
/// Copies the tensors of a layer or model `L` from one tree to another; either may have more.
template <class L, class From, class To>
void copy_tensors(const From& from, To& to) {
  L::visit([](const parameter_path&, const tensor_info& info, auto& leaf,
              const auto& source) { copy_tensor(info, source, leaf); },
           parameter_path{}, to, from);
}

/// Names the first tensor with a number that is not finite.
template <class T>
struct finds_nonfinite {
  std::string& found;

  template <class S, class Value>
  void look(S, const Value* values, index count, const parameter_path& at,
            const char* suffix) const {
    bool finite = true;  // no early end: the loop runs on vectors
    for (index i = 0; i < count; ++i) finite &= S::finite(values[i]);
    if (!finite) found = at.str() + suffix;
  }
  template <class Leaf>
  void operator()(const parameter_path& at, const tensor_info& info, const Leaf& leaf) const {
    if (!found.empty()) return;
    using plain = std::conditional_t<std::is_same_v<T, double>, storage::f64, storage::f32>;
    if constexpr (std::is_pointer_v<Leaf>) {
      look(plain{}, leaf, info.size(), at, "");
    } else {
      using S = typename Leaf::storage;
      look(S{}, leaf.data, info.rows * row_values<S>(info.columns), at, "");
      const index scales = info.rows * row_scales<S>(info.columns);
      if (S::scaled && found.empty()) look(storage::f32{}, leaf.scales, scales, at, ".scales");
      if (S::centred && found.empty())
        look(storage::f32{}, leaf.zeros, scales, at, S::ggml ? ".minima" : ".zeros");
      [[maybe_unused]] auto more = leaf.correction;
      if constexpr (is_corrected<S>)
        more.visit(info.rows, info.columns,
                   [&](const char* suffix, const auto* values, index rows, index columns) {
                     using value = std::remove_cvref_t<decltype(*values)>;
                     if constexpr (!std::is_same_v<value, storage::input_number>)
                       look(typename S::correction::value{}, values, rows * columns, at, suffix);
                   });
    }
  }
};

/// Packs each tensor.
struct packs_leaves {
  const ops::execution& on;

  template <class To, class From>
  void operator()(const parameter_path&, const tensor_info& info, To& to, const From& from) const {
    if constexpr (std::is_pointer_v<From>) {
      using scalar = std::remove_cvref_t<decltype(*from)>;
      ops::copy(on, info.size(), static_cast<const scalar*>(from), const_cast<scalar*>(to));
    } else {
      ops::pack(on, info.rows, info.columns, from, to);
    }
  }
};
/// Unpacks each tensor.
struct unpacks_leaves {
  template <class To, class From>
  void operator()(const parameter_path&, const tensor_info& info, To& to, const From& from) const {
    if constexpr (std::is_pointer_v<To>)
      std::copy_n(from, info.size(), to);
    else
      ops::unpack(info.rows, info.columns, from, to);
  }
};
/// Points packed matrices to their canonical rows.
struct attaches_leaves {
  template <class To, class From>
  void operator()(const parameter_path&, const tensor_info&, To& to, const From& from) const {
    if constexpr (!std::is_pointer_v<From>) to.rows = from.data;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
