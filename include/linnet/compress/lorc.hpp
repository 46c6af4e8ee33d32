// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// LoRC: a matrix of low rank makes up for the errors of rounding (Yao et al. 2023).

#include <linnet/compress/low_rank.hpp>
#include <linnet/compress/quantize_by.hpp>

LINNET_NAMESPACE_BEGIN

/// Low-rank compensation (Yao et al. 2023, ZeroQuant-V2), a method of quantize() for
/// storage::low_rank_correction. Another method rounds. The matrix of its rank that is nearest to
/// W - Q, what rounding lost, is added.
template <class Method = round_to_nearest>
struct lorc {
  Method by{};  ///< how codes are found

  static constexpr const char* name = "lorc";
  static constexpr bool reads_inputs = Method::reads_inputs;  ///< whether `by` needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    if constexpr (requires { Method::visit_options(self.by, f); }) f("by", self.by);
  }

  /// Rounds matrices by one lorc.
  class rounder {
   public:
    explicit rounder(const lorc& how) : by_(how.by) {}

    /// Rounds from[rows, columns] to storage `S`. Errors: those of `by`.
    template <class S>
    result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                       const input_statistics& x) {
      if (auto done = by_.round(rows, columns, from, to, x); !done) return done;
      if constexpr (is_corrected<S>) {
        static_assert(
            requires { to.correction.left; },
            "linnet::lorc: adds a matrix of low rank; give it storage::low_rank_correction");
        using Value = typename S::correction::value;
        const index rank = S::correction::width(columns);
        detail::split_numbers(
            rows, columns, rank,
            [&](index i, index j) {
              return static_cast<double>(from[i * columns + j]) - to.coded(i, j, columns);
            },
            [&](index i, index r, double v) {
              to.correction.left.set_code(i, r, rank, Value::encode(v));
            },
            [&](index r, index j, double v) {
              to.correction.right.set_code(r, j, columns, Value::encode(v));
            });
      }
      return {};
    }

   private:
    typename Method::rounder by_;
  };
};

LINNET_NAMESPACE_END
