// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// GPTQ: rounds a matrix input by input, and lets later inputs make up for the error (Frantar et
/// al. 2022).

#include <vector>

#include <linnet/compress/clip_search.hpp>
#include <linnet/compress/error_compensation.hpp>

LINNET_NAMESPACE_BEGIN

/// GPTQ (Frantar et al. 2022, arXiv:2210.17323), a method of quantize(). Inputs are rounded one
/// after the other. What rounding one adds to the output's error, later ones take back as well as
/// X^T X allows. Inputs that calibration never saw are rounded to nearest.
struct gptq {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code

  clip_search clip{.least = 1};  ///< how scales are found; this one cuts nothing

  static constexpr const char* name = "gptq";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("clip", self.clip);
  }

  class rounder;
};

/// Rounds matrices by one gptq. It keeps what it computed of the last X^T X, for matrices that
/// share it.
class gptq::rounder {
 public:
  explicit rounder(const gptq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered, or that is singular even with `damp`; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
    clipped<S> how{how_.clip, x};
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    return {};
  }

 private:
  /// Scales by a clip_search.
  template <class S>
  struct clipped : detail::plain_rounding<S> {
    const clip_search& clip;
    const input_statistics& x;

    clipped(const clip_search& ranges, const input_statistics& inputs) : clip(ranges), x(inputs) {}
    void fit(const detail::group_of_rows<S>& some) {
      for (index r = 0; r < some.count; ++r)
        some.grid(r) = clip.fit<S>(some.size, some.row(r), some.inputs, x);
    }
  };

  gptq how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
