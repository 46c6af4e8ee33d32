// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Walks over the tensors of layers and models. A compiler makes the visit() of a model once for
/// each form, whatever number of functions is called with its tensors.

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <linnet/nn/parameters.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A function object for the tensors of one form, whose functions are known at run time only.
template <class... Leaf>
struct tensor_visitor;
/// For visits without parameters.
template <>
struct tensor_visitor<> {
  void (*call)(const tensor_visitor&, const parameter_path&, const tensor_info&);

  constexpr void operator()(const parameter_path& at, const tensor_info& info) const {
    call(*this, at, info);
  }
};
/// For visits of one tree, whose vectors are of one type and its matrices of another.
template <class Vector, class Matrix>
struct tensor_visitor<Vector, Matrix> {
  void (*call_vector)(const tensor_visitor&, const parameter_path&, const tensor_info&, Vector&);
  void (*call_matrix)(const tensor_visitor&, const parameter_path&, const tensor_info&, Matrix&);

  constexpr void operator()(const parameter_path& at, const tensor_info& info, Vector& leaf) const {
    call_vector(*this, at, info, leaf);
  }
  constexpr void operator()(const parameter_path& at, const tensor_info& info, Matrix& leaf) const {
    call_matrix(*this, at, info, leaf);
  }
  template <class Other>
  constexpr void operator()(const parameter_path&, const tensor_info&, Other&) const {
    static_assert(never<Other>,
                  "linnet: visit() passes a tensor that is neither Form::matrix nor Form::vector");
  }
};
/// For visits of one tree, whose tensors are of one type.
template <class Leaf>
struct tensor_visitor<Leaf, Leaf> {
  void (*call_vector)(const tensor_visitor&, const parameter_path&, const tensor_info&, Leaf&);

  constexpr void operator()(const parameter_path& at, const tensor_info& info, Leaf& leaf) const {
    call_vector(*this, at, info, leaf);
  }
};

/// Whether all vectors of a form have one type, and all its matrices: no mixture of storages.
template <class Form>
inline constexpr bool plain_form = true;
template <class Form>
requires requires { requires form::stored<Form>::storage::mixes; }
inline constexpr bool plain_form<Form> = false;
/// Whether vectors of a form are of another type than its matrices.
template <class Form>
inline constexpr bool tells_matrices =
    !std::is_same_v<typename Form::vector, typename Form::matrix>;

template <class Form>
using visitor_of = tensor_visitor<typename Form::vector, typename Form::matrix>;

/// Calls a function object with a path and an info.
template <class F>
struct calls_infos : tensor_visitor<> {
  F& f;

  static constexpr void call_it(const tensor_visitor<>& self, const parameter_path& at,
                                const tensor_info& info) {
    static_cast<const calls_infos&>(self).f(at, info);
  }
};

/// Calls a function object with the tensors of one tree, const ones if Const.
template <class F, class Vector, class Matrix, bool Const>
struct calls_leaves : tensor_visitor<Vector, Matrix> {
  using base = tensor_visitor<Vector, Matrix>;
  F& f;

  template <class Leaf>
  static constexpr void call_it(const base& self, const parameter_path& at, const tensor_info& info,
                                Leaf& leaf) {
    static_cast<const calls_leaves&>(self).f(
        at, info, static_cast<std::conditional_t<Const, const Leaf, Leaf>&>(leaf));
  }
};

/// Notes where the tensors of one tree are.
template <class Vector, class Matrix>
struct notes_leaves : tensor_visitor<Vector, Matrix> {
  using base = tensor_visitor<Vector, Matrix>;
  mutable void** next;

  template <class Leaf>
  static void call_it(const base& self, const parameter_path&, const tensor_info&, Leaf& leaf) {
    *static_cast<const notes_leaves&>(self).next++ = &leaf;
  }
};

/// The functions of a visitor.
template <class Visitor, class Vector, class Matrix>
inline constexpr tensor_visitor<Vector, Matrix> functions_of{&Visitor::template call_it<Vector>,
                                                             &Visitor::template call_it<Matrix>};
template <class Visitor, class Leaf>
inline constexpr tensor_visitor<Leaf, Leaf> functions_of<Visitor, Leaf, Leaf>{
    &Visitor::template call_it<Leaf>};

/// The types of a tree's tensors.
template <class Vector, class Matrix>
struct leaf_types {
  using vector = Vector;
  using matrix = Matrix;
};

/// A tree of parameters and what it is of.
template <class M, class Form, bool Const = false>
struct tree_of {
  using layer = M;
  using shape = Form;
  using params = typename M::template params<Form>;
  using seen_tree = std::conditional_t<Const, const params, params>;
  using leaves =
      leaf_types<std::conditional_t<Const, const typename Form::vector, typename Form::vector>,
                 std::conditional_t<Const, const typename Form::matrix, typename Form::matrix>>;

  params& tree;

  constexpr seen_tree& get() const { return tree; }
};

/// Calls a function object with the tensors of several trees: those of tree `Lead` as it is
/// visited, the others where they were noted.
template <class F, std::size_t Lead, class Numbers, class Vector, class Matrix, class... Leaves>
struct calls_together;
template <class F, std::size_t Lead, std::size_t... K, class Vector, class Matrix, class... Leaves>
struct calls_together<F, Lead, std::index_sequence<K...>, Vector, Matrix, Leaves...>
    : tensor_visitor<Vector, Matrix> {
  using base = tensor_visitor<Vector, Matrix>;
  F& f;
  void* const* places;             ///< of the tensors of each tree
  std::size_t count;               ///< of tensors
  mutable std::size_t number = 0;  ///< of the next one

  template <class Leaf>
  static void call_it(const base& self, const parameter_path& at, const tensor_info& info,
                      Leaf& leaf) {
    const auto& me = static_cast<const calls_together&>(self);
    constexpr bool is_matrix = std::is_same_v<Leaf, Matrix>;
    me.f(at, info,
         *static_cast<
             std::conditional_t<is_matrix, typename Leaves::matrix, typename Leaves::vector>*>(
             K == Lead ? static_cast<void*>(&leaf) : me.places[K * me.count + me.number])...);
    ++me.number;
  }
};

/// Gives tensors with initial normal values another deviation.
template <class F>
struct with_deviation {
  F& f;
  double deviation;

  template <class... Leaf>
  constexpr void operator()(const parameter_path& at, tensor_info info, Leaf&... leaf) const {
    if (info.deviation > 0) info.deviation = deviation;
    f(at, info, leaf...);
  }
};
/// Divides the deviation of initial normal values.
template <class F>
struct with_smaller_start {
  F& f;
  double divisor;

  template <class... Leaf>
  constexpr void operator()(const parameter_path& at, tensor_info info, Leaf&... leaf) const {
    info.deviation /= divisor;
    f(at, info, leaf...);
  }
};

/// The first of some forms that tells matrices from vectors, or the first.
template <class... Form>
consteval std::size_t leading_form() {
  const bool tells[] = {tells_matrices<Form>...};
  for (std::size_t i = 0; i < sizeof...(Form); ++i)
    if (tells[i]) return i;
  return 0;
}

}  // namespace detail

/// Calls f(path, tensor_info) for each tensor of a layer or model, in canonical order; shared ones
/// once.
template <class M, class F>
constexpr void each_tensor(F&& f) {
  using visitor_type = detail::calls_infos<std::remove_reference_t<F>>;
  const visitor_type visitor{{&visitor_type::call_it}, f};
  M::visit(static_cast<const detail::tensor_visitor<>&>(visitor), parameter_path{});
}

namespace detail {

/// Number of tensors of a layer or model.
template <class M>
consteval std::size_t count_tensors() {
  std::size_t n = 0;
  each_tensor<M>([&](const parameter_path&, const tensor_info&) { ++n; });
  return n;
}

/// Notes where the tensors of a tree are.
template <class M, class Form>
void note_leaves(typename M::template params<Form>& tree, void** places) {
  using vector = typename Form::vector;
  using matrix = typename Form::matrix;
  using visitor_type = notes_leaves<vector, matrix>;
  const visitor_type visitor{functions_of<visitor_type, vector, matrix>, places};
  M::visit(static_cast<const visitor_of<Form>&>(visitor), parameter_path{}, tree);
}

/// Calls f(path, info, leaf) for each tensor of a tree.
template <class F, class M, class Form, bool Const>
LINNET_INLINE constexpr void each_leaf(F& f, tree_of<M, Form, Const> one) {
  if constexpr (plain_form<Form>) {
    using vector = typename Form::vector;
    using matrix = typename Form::matrix;
    using visitor_type = calls_leaves<F, vector, matrix, Const>;
    const visitor_type visitor{functions_of<visitor_type, vector, matrix>, f};
    M::visit(static_cast<const visitor_of<Form>&>(visitor), parameter_path{}, one.tree);
  } else {
    M::visit(f, parameter_path{}, one.get());
  }
}
/// Calls f(path, info, leaf...) for each tensor of several trees, which have the same ones.
template <class F, class... Tree>
void each_leaf(F& f, Tree... trees) requires(sizeof...(Tree) > 1) {
  using first = std::tuple_element_t<0, std::tuple<Tree...>>;
  if constexpr ((plain_form<typename Tree::shape> && ...)) {
    constexpr std::size_t lead = leading_form<typename Tree::shape...>();
    using leading = std::tuple_element_t<lead, std::tuple<Tree...>>;
    constexpr std::size_t count = count_tensors<typename first::layer>();
    static_assert(((count_tensors<typename Tree::layer>() == count) && ...),
                  "linnet::each_tensor_of: the blocks are of models with unlike tensors");
    void* places[sizeof...(Tree) * count + 1];
    void* const roots[] = {&trees.tree...};
    std::size_t i = 0;
    ((i == lead
          ? void()
          : note_leaves<typename Tree::layer, typename Tree::shape>(trees.tree, places + i * count),
      ++i),
     ...);
    using vector = typename leading::shape::vector;
    using matrix = typename leading::shape::matrix;
    using visitor_type = calls_together<F, lead, std::index_sequence_for<Tree...>, vector, matrix,
                                        typename Tree::leaves...>;
    const visitor_type visitor{functions_of<visitor_type, vector, matrix>, f, places, count};
    leading::layer::visit(static_cast<const visitor_of<typename leading::shape>&>(visitor),
                          parameter_path{}, *static_cast<typename leading::params*>(roots[lead]));
  } else {
    first::layer::visit(f, parameter_path{}, trees.get()...);
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
