// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A residual branch whose output an adapter changes before it joins the stream.

#include <algorithm>

#include <linnet/nn/context.hpp>
#include <linnet/nn/parameters.hpp>
#include <linnet/ops/adapter.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The adapters of a call that change one branch, or none. A branch without matrices has none.
template <class T>
class adapted_branch {
  const ops::adapter_hooks<T>* hooks_;
  ops::branch_rows<T> rows_;

  bool covered(const ops::branch_adapter<T>& one) const {
    return one.object && one.covers(one.object, rows_.panels);
  }
  bool any(index batch) const {
    for (index b = 0; b < (hooks_->each ? batch : 1); ++b)
      if (hooks_->of(b).branches.object) return true;
    return false;
  }

 public:
  /// Looks for adapters of a branch `Sub` with parameters `p`, whose rows have this width.
  template <class Sub, class P>
  adapted_branch(const context<T>& ctx, index width, Sub, const P& p)
      : hooks_(ops::adapter_hooks<T>::in(ctx.on)), rows_{nullptr, ctx.rows(), width} {
    if (!hooks_) return;
    if (any(ctx.batch))
      Sub::visit(
          [&](const parameter_path&, const tensor_info&, const auto& leaf) {
            if constexpr (requires { leaf.panels; }) rows_.panels = leaf.panels;
          },
          parameter_path{}, p);
    bool found = false;
    for (index b = 0; rows_.panels && b < (hooks_->each ? ctx.batch : 1); ++b)
      found = found || covered(hooks_->of(b).branches);
    if (!found) hooks_ = nullptr;
  }
  explicit operator bool() const { return hooks_ != nullptr; }

  /// to[rows] = x[rows], changed for the sequences that have such an adapter; they may be the same
  /// rows.
  void change(const context<T>& ctx, const T* x, T* to) const {
    const auto [first, last] = ctx.on.threads.range(rows_.count);
    const index length = hooks_->each ? ctx.length : rows_.count;
    for (index i = first, end = first; i < last; i = end) {
      end = (std::min)(last, (i / length + 1) * length);
      const ops::branch_adapter<T>& one = hooks_->of(i / length).branches;
      const index at = i * rows_.width;
      if (covered(one))
        one.change(one.object, ctx.on, {rows_.panels, end - i, rows_.width}, x + at, to + at);
      else if (x != to)
        std::copy_n(x + at, (end - i) * rows_.width, to + at);
    }
    ctx.on.threads.wait();
  }
  /// dx[rows] becomes the derivative by x.
  void backward(const context<T>& ctx, const T* x, T* dx) const {
    const ops::branch_adapter<T>& one = hooks_->branches;
    one.backward(one.object, ctx.on, rows_, x, dx);
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
