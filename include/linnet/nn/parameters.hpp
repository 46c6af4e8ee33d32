// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Names of parameters, and the forms a parameter takes: canonical weights, gradients, and the
/// packed form that kernels read.

#include <charconv>
#include <iterator>
#include <string>
#include <string_view>

#include <linnet/core/random.hpp>
#include <linnet/ops/matmul.hpp>
#include <linnet/storage/types.hpp>

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
    std::string text;
    each_part([&](std::string_view part) { text += part; });
    return text;
  }
  /// Calls f(text) for each piece of str(), in order and without a string. Returns whether any of
  /// them has text.
  template <class F>
  bool each_part(F&& f) const {
    const bool begun = parent && parent->each_part(f);
    if (begun) f(std::string_view("."));
    char digits[24];
    const std::string_view own =
        number < 0 ? name
                   : std::string_view(digits, std::to_chars(digits, std::end(digits), number).ptr);
    f(own);
    return begun || !own.empty();
  }
};

/// stream_of(at.str()), without a string.
inline std::uint64_t stream_of(const parameter_path& at) {
  std::uint64_t stream = stream_of(std::string_view());
  at.each_part([&](std::string_view part) { stream = stream_of(part, stream); });
  return stream;
}

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

/// The storage of a form, void where it has none, and the form with another storage.
template <class Form>
struct stored {
  using storage = void;
};
template <class T, class S>
struct stored<canonical<T, S>> {
  using storage = S;
  template <class Other>
  using with = canonical<T, Other>;
};
template <class T, class S>
struct stored<packed<T, S>> {
  using storage = S;
  template <class Other>
  using with = packed<T, Other>;
};

/// The form of a part of the model that has storage of its own, see storage::per_role.
template <class Form, storage::part P, class S = typename stored<Form>::storage>
struct part_of {
  using type = typename stored<Form>::template with<storage::at<S, P>>;
};
template <class Form, storage::part P>
struct part_of<Form, P, void> {
  using type = Form;
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

/// A matrix that a layer keeps turned: leaf[columns, rows]. visit() passes it beside the matrix
/// itself, see nn/layer.hpp.
template <class Leaf>
struct turned_matrix {
  Leaf leaf{};
};

LINNET_NAMESPACE_END
