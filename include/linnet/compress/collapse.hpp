// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Collapse: the re-parameterised feed-forwards 2W and 3W become the one matrix that they are
/// (Lee et al. 2023).

#include <string>

#include <linnet/compress/before_eigen.inl>

#include <Eigen/Core>

#include <linnet/compress/after_eigen.inl>

#include <linnet/model/decoder.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The policy that a feed-forward policy collapses to; itself where there is nothing to multiply.
template <class Ffn>
struct collapse_ffn {
  using type = Ffn;
  static constexpr bool linear = std::is_same_v<Ffn, ffn::linear>;
};
template <int N, expansion E>
struct collapse_ffn<ffn::reparam<N, E>> {
  using type = ffn::linear;
  static constexpr bool linear = true;
};

template <class M>
struct collapse_model {
  static_assert(
      requires { typename M::template with_ffn<typename M::ffn>; },
      "linnet::collapse: the model needs its feed-forward's policy as `ffn`, or as `encoder_ffn` "
      "and `decoder_ffn`, and with_ffn<> that gives it another");
  static_assert(collapse_ffn<typename M::ffn>::linear,
                "linnet::collapse: this model's feed-forward has a nonlinearity between its "
                "matrices (or none at all); "
                "only ffn::reparam<2, e> and ffn::reparam<3, e> collapse to one matrix");
  using type = typename M::template with_ffn<typename collapse_ffn<typename M::ffn>::type>;
};
template <class M>
requires requires { typename M::encoder_ffn; }
struct collapse_model<M> {
  using encoder = collapse_ffn<typename M::encoder_ffn>;
  using decoder = collapse_ffn<typename M::decoder_ffn>;
  static_assert(encoder::linear || decoder::linear,
                "linnet::collapse: this model's feed-forward has a nonlinearity between its "
                "matrices (or none at all); "
                "only ffn::reparam<2, e> and ffn::reparam<3, e> collapse to one matrix");
  using type = typename M::template with_ffn<typename encoder::type, typename decoder::type>;
};

}  // namespace detail

/// The model type that collapse() makes: every ffn::reparam is an ffn::linear, the rest unchanged.
template <class M>
using collapsed = typename detail::collapse_model<M>::type;

/// Multiplies the matrices of each re-parameterised feed-forward, in double, rounded once. The
/// result computes the function of `w` with fewer weights.
template <class M, class T>
weights<collapsed<M>, T> collapse(const weights<M, T>& w) {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::collapse: collapse first, quantize afterwards");
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using view_of =
      Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  auto shipped = detail::made_of<weights<collapsed<M>, T>>(w);
  if (!shipped.valid()) return shipped;
  const auto values = [](const auto& leaf) {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      return static_cast<const T*>(leaf);
    else
      return static_cast<const T*>(leaf.data);
  };
  shipped.visit([&](const parameter_path& at, const tensor_info& info, auto& to) {
    const std::string name = at.str();
    matrix product;
    w.visit([&](const parameter_path& from_path, const tensor_info& from_info, const auto& from) {
      const std::string from_name = from_path.str();
      if (from_name == name) std::copy_n(values(from), info.size(), const_cast<T*>(values(to)));
      // ...ffn.w.weight is the product of ...ffn.w1.weight, w2, w3, met in this order.
      constexpr std::string_view tail = ".w.weight";
      if (!name.ends_with(tail) || from_name.size() != name.size() + 1) return;
      const std::size_t stem = name.size() - tail.size() + 2;
      const char digit = from_name[stem];
      if (from_name.compare(0, stem, name, 0, stem) != 0 || digit < '1' || digit > '3') return;
      const matrix factor =
          view_of(values(from), from_info.rows, from_info.columns).template cast<double>();
      product = digit == '1' ? factor : matrix(factor * product);
    });
    if (product.size() == info.size())
      for (index i = 0; i < info.size(); ++i)
        const_cast<T*>(values(to))[i] = static_cast<T>(product.data()[i]);
  });
  return shipped;
}

LINNET_NAMESPACE_END
