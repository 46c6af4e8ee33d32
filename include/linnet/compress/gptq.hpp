// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// GPTQ: rounds a matrix input by input, and lets later inputs make up for the error (Frantar et
/// al. 2022).

#include <cstddef>
#include <vector>

#include <linnet/compress/clip_search.hpp>
#include <linnet/compress/error_compensation.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Codes of all inputs, of which storage `S` keeps some: whole groups of inputs share a scale.
template <class S>
struct codes_of_all_inputs : S::base {
  static constexpr index group = S::group * S::pattern::group / S::pattern::kept_of_group;
};

}  // namespace detail

/// GPTQ (Frantar et al. 2022, arXiv:2210.17323), a method of quantize(). Inputs are rounded one
/// after the other. What rounding one adds to the output's error, later ones take back as well as
/// X^T X allows. Inputs that calibration never saw are rounded to nearest. In storage::n_of_m
/// weights that have no place become 0, and later inputs take back their error as well.
struct gptq {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code

  clip_search clip{.least = 1};  ///< how scales are found; this one cuts nothing

  static constexpr const char* name = "gptq";
  static constexpr bool reads_inputs = true;  ///< needs calibration
  static constexpr bool takes_sparse = true;  ///< and rounds what storage::n_of_m keeps

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
  /// Rounds the largest magnitudes of each group of inputs. Weights that are 0 stay so. Errors:
  /// those of other storages, and errc::out_of_memory.
  template <class S>
  requires(is_sparse<S>) result<void> round(index rows, index columns, const float* from,
                                            const matrix_ref<S>& to, const input_statistics& x) {
    constexpr bool whole = [] {
      if constexpr (requires { S::pattern::kept_of_group; })
        return !S::ggml && !has_levels<S> && S::group % S::pattern::kept_of_group == 0;
      return false;
    }();
    static_assert(whole,
                  "linnet::gptq: of sparse storages it rounds storage::n_of_m of numbers with "
                  "plain scales, whose groups are whole groups of the pattern: "
                  "n_of_m<int4<32>, 2, 4>");
    if constexpr (whole) {
      using codes = detail::codes_of_all_inputs<S>;
      if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
      arena count;
      matrix_ref<codes> all;
      detail::place(count, {rows, columns}, all);
      const memory_block memory(count.peak());
      if (!memory.data() || !detail::has_memory(detail::array_bytes(rows, columns, 1)))
        return detail::out_of_memory(name);
      arena bytes(memory.data(), count.peak());
      detail::place(bytes, {rows, columns}, all);
      held<codes> how{how_.clip, x, rows, columns};
      for (index r = 0; r < rows; ++r)
        to.kept.choose(r, 1, columns, from + r * columns, nullptr,
                       [&](index, index, index j) { how.keep(r, j, from[r * columns + j]); });
      loop_.round(rows, columns, from, all, {how_.act_order, how_.block}, how);
      const index width = to.width(columns);
      for (index r = 0; r < rows; ++r) {
        for (index j = 0; j < columns; ++j)
          if (const index c = to.kept.find(r, j, columns); c >= 0)
            to.numbers().set_code(r, c, width, all.code(r, j, columns));
        for (index g = 0; g < row_scales<codes>(columns); ++g) {
          const auto grid = all.grid(r, g, columns);
          to.numbers().set_grid(r, g, width, {grid.scale, grid.zero});
        }
      }
    }
    return {};
  }

 private:
  /// Scales by a clip_search.
  template <class S>
  struct clipped : detail::plain_rounding<S> {
    const clip_search& clip;
    const input_statistics& x;

    clipped(const clip_search& ranges, const input_statistics& inputs) : clip(ranges), x(inputs) {}
    void fit(const detail::group_of_rows<S>& some) { clip.fit<S>(some, x); }
  };

  /// Inputs that are left out take the code of 0, and count for no scale.
  template <class S>
  struct held : clipped<S> {
    index columns;
    std::vector<char> kept;
    std::vector<double> numbers{};

    held(const clip_search& ranges, const input_statistics& inputs, index rows, index width)
        : clipped<S>(ranges, inputs),
          columns(width),
          kept(static_cast<std::size_t>(rows * width)) {}
    void keep(index r, index j, float w) {
      kept[static_cast<std::size_t>(r * columns + j)] = w != 0;
    }
    bool keeps(index r, index j) const {
      return kept[static_cast<std::size_t>(r * columns + j)] != 0;
    }
    void fit(const detail::group_of_rows<S>& some) {
      numbers.clear();
      for (index r = 0; r < some.count; ++r)
        for (index i = 0; i < some.size; ++i)
          numbers.push_back(keeps(some.first + r, some.inputs[i]) ? some.row(r)[i] : 0);
      auto of_kept = some;
      of_kept.w = numbers.data();
      of_kept.stride = some.size;
      clipped<S>::fit(of_kept);
    }
    typename S::value round(index r, index j, double number, const detail::code_grid<S>& g,
                            double& left) const {
      const auto code = detail::plain_rounding<S>::round(r, j, keeps(r, j) ? number : 0, g, left);
      if (!keeps(r, j)) left = number;
      return code;
    }
  };

  gptq how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
