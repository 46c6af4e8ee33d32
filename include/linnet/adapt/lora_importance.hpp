// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Importance from the gradients of a low-rank adapter alone (Zhang et al. 2023, LoRAPrune).

#include <cstddef>
#include <type_traits>
#include <vector>

#include <linnet/adapt/lora.hpp>
#include <linnet/compress/importance.hpp>

LINNET_NAMESPACE_BEGIN

/// Importance of a frozen base while its adapter trains (Zhang et al. 2023, arXiv:2305.18403,
/// LoRAPrune). The gradient of a matrix is estimated from those of A and B: g = dB A + B dA - dB
/// dA. The score of a unit in a matrix is the sum of |g (W + s B A)|. Nothing as large as a
/// gradient of the base is kept.
struct lora_score {
  index tokens = 1;    ///< that the gradient is a sum over: dA and dB are means
  bool signs = false;  ///< |sum of the products| of a unit in a matrix instead
  aggregate members = aggregate::even;

  static constexpr const char* name = "lora_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("tokens", self.tokens, detail::count(1));
    f("signs", self.signs, detail::one_of(detail::false_or_true));
    f("members", self.members, detail::one_of(detail::aggregate_names));
  }
};

namespace detail {

/// One matrix of a base with its factors and their gradients. `a` is [Rank, columns], `b` [rows,
/// Rank].
template <index Rank, class T>
struct estimated_matrix {
  const T *a = nullptr, *b = nullptr, *d_a = nullptr, *d_b = nullptr;
  index columns = 0;

  /// Number i of the gradient, and of B A.
  struct number {
    double gradient = 0, delta = 0;
  };
  number at(index i, double share) const {
    number sum;
    if (!a) return sum;
    const index row = i / columns, column = i % columns;
    for (index r = 0; r < Rank; ++r) {
      const auto x = static_cast<double>(a[r * columns + column]),
                 y = static_cast<double>(b[row * Rank + r]),
                 dx = share * static_cast<double>(d_a[r * columns + column]),
                 dy = share * static_cast<double>(d_b[row * Rank + r]);
      sum.gradient += dy * x + y * dx - dy * dx;
      sum.delta += y * x;
    }
    return sum;
  }
};

}  // namespace detail

/// Scores by lora_score of the base weights `w` of an adapter, from the adapter's gradient, such as
/// trainer::gradient() after accumulate(). Matrices without an adapter have no part in them; units
/// of which no matrix has one score 0. Layers are scored by all of their matrices. Errors:
/// errc::invalid for options, and for weights, adapters and gradients that are not finite; the
/// error of what is not valid(); errc::out_of_memory.
template <class M, class A, class T>
requires requires {
  typename A::base_model;
  A::rank;
}
result<importance<M>> importance_of(const weights<M, T>& w, const weights<A, T>& adapter,
                                    const gradients<A, T>& gradient,
                                    const lora_score& how) LINNET_TRY {
  static_assert(std::is_same_v<M, typename A::base_model::template with_storage<storage::f32>>,
                "linnet::importance_of: an adapter scores f32 (or double) weights of its base "
                "model");
  constexpr const char* name = lora_score::name;
  if (auto fit = detail::acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  if (!adapter.valid()) return adapter.error();
  const auto& tree = adapter.tree();
  if (auto fit = detail::check_base("importance_of", tree); !fit) return fit.error();
  std::vector<detail::estimated_matrix<A::rank, T>> matrices;
  std::size_t next = 0;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto&) {
    matrices.emplace_back();
    if (!detail::is_target<M, typename A::method::targets>(at, info)) return;
    const auto& of = tree.maps[next];
    const auto& by = gradient.tree().maps[next];
    ++next;
    matrices.back() = {of.a.data, of.b.data, by.a, by.b, info.columns};
  });
  const auto numbers = detail::numbers_of<const T>(w);
  const double scale = tree.base.how.scale(A::rank), share = 1 / static_cast<double>(how.tokens);
  const auto salience = [&](std::size_t tensor, index i) {
    const auto number = matrices[tensor].at(i, share);
    return number.gradient * (static_cast<double>(numbers[tensor][i]) + scale * number.delta);
  };
  return detail::checked_scores(
      detail::scores_of_numbers(w, how.members, salience, detail::absolute{how.signs}), name);
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

LINNET_NAMESPACE_END
