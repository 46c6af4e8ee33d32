// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training in f16 with dynamic loss scaling, and in 8-bit floats with delayed scaling.

#include <algorithm>
#include <bit>
#include <cmath>

#include <linnet/storage/mixed_precision.hpp>
#include <linnet/train/fake_quantization.hpp>

LINNET_NAMESPACE_BEGIN

/// Factor of the mean loss in f16 training, so that small gradients do not round to 0
/// (Micikevicius et al. 2018, arXiv:1710.03740). It is doubled after 2000 good steps, and halved
/// where a gradient overflows, whose step is left out.
struct dynamic_loss_scale {
  static constexpr double first = 65536, least = 1, most = 16'777'216;
  static constexpr index patience = 2000;  ///< good steps until it doubles

  double value = first;
  index good = 0;  ///< steps since it changed

  /// Takes in a step; whether it was lowered because gradients overflowed.
  bool advance(bool overflowed) {
    if (overflowed) {
      good = 0;
      if (value <= least) return false;
      value /= 2;
      return true;
    }
    if (++good < patience) return false;
    good = 0;
    value = (std::min)(most, 2 * value);
    return false;
  }
};

namespace detail {

/// Rounded weights in rows of their own, which both kinds of mixed precision have.
template <class M, class A>
struct rounded_form {
  using storage = linnet::storage::mixed_precision<A>;
  using word = float;
  static constexpr bool own_rows = true, learns_steps = false, trains_weights = true;
  static constexpr index row_words(const tensor_info& info) { return info.size(); }
  /// Rounds matrices, each in units of 1 / scale(values, n), and packs them.
  template <class Scale>
  static void pack_rounded(const ops::execution& on, const weights<M>& w,
                           packed<M, float, storage>& to, Scale&& scale) {
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, auto& panels, const auto& from) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
            ops::copy(on, info.size(), static_cast<const float*>(from), const_cast<float*>(panels));
          } else {
            auto* const numbers = const_cast<float*>(panels.rows);
            const float by = scale(from.data, info.size());
            ops::detail::in_slices<float>(on, info.size(), [&](index at, index n) {
              for (index i = at; i < at + n; ++i)
                numbers[i] =
                    rounded_to<typename storage::forward, storage::delayed>(from.data[i], by);
            });
            ops::pack(on, info.rows, info.columns, matrix_ref<storage>{numbers}, panels);
          }
        },
        to, w);
  }
};

/// In f16.
template <class M>
class master_form<M, float, compute::f16> : public rounded_form<M, compute::f16> {
  using base = rounded_form<M, compute::f16>;

 public:
  static constexpr index bytes() { return 0; }
  static constexpr bool valid() { return true; }
  static void pack(const ops::execution& on, const weights<M>& w,
                   packed<M, float, typename base::storage>& to) {
    base::pack_rounded(on, w, to, [](const float*, index) { return 1.0f; });
  }
  /// Calls f(name, bytes) for each block of memory that continuing needs.
  template <class F>
  void visit(F&& f) {
    f("loss_scale", std::as_writable_bytes(std::span(&scale_, 1)));
  }
  /// How gradients are rounded in a step of batches up to `tokens`.
  void prepare(ops::execution& on, index tokens) const {
    const auto share = std::bit_ceil(static_cast<std::uint64_t>((std::max)(tokens, index{1})));
    on.loss_scale = static_cast<float>(scale_.value / static_cast<double>(share));
  }
  /// Takes in a step; whether it failed for a scale that was too large.
  bool advance(index, bool overflowed) { return scale_.advance(overflowed); }
  double loss_scale() const { return scale_.value; }

 private:
  dynamic_loss_scale scale_{};
};

/// In 8-bit floats.
template <class M>
class master_form<M, float, compute::fp8> : public rounded_form<M, compute::fp8> {
  using base = rounded_form<M, compute::fp8>;
  using S = typename base::storage;
  static constexpr index matrices() {
    index n = 0;
    each_tensor<M>([&](const parameter_path&, const tensor_info& info) { n += info.stored(); });
    return n;
  }

 public:
  static constexpr index bytes() {
    return matrices() * round_up(static_cast<index>(sizeof(delayed_scales)), alignment);
  }
  master_form() : memory_(bytes()) {}
  bool valid() const { return memory_.data() != nullptr; }
  void pack(const ops::execution& on, const weights<M>& w, packed<M, float, S>& to) {
    // Weights are there, so their scales need no delay; a thread's own copy of them is enough.
    base::pack_rounded(on, w, to, [](const float* x, index n) {
      float most = 0;
      for (index i = 0; i < n; ++i) most = (std::max)(most, x[i] < 0 ? -x[i] : x[i]);
      return most > 0 ? static_cast<float>(linnet::storage::fp8_e4m3::largest) / most : 1.0f;
    });
    index next = 0;
    to.visit([&](const parameter_path&, const tensor_info&, auto& panels) {
      if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(panels)>>)
        if (on.threads.rank() == 0) panels.delayed.at = at(next++);
    });
    on.threads.wait();
  }
  /// Calls f(name, bytes) for each block of memory that continuing needs.
  template <class F>
  void visit(F&& f) {
    f("scales",
      std::span(static_cast<std::byte*>(memory_.data()), static_cast<std::size_t>(bytes())));
  }
  void prepare(ops::execution& on, index) const { on.notes_ranges = true; }
  /// Takes in the magnitudes of step `t`.
  bool advance(index t, bool) {
    for (index i = 0; i < matrices(); ++i) {
      at(i)->input.advance(t, linnet::storage::fp8_e4m3::largest);
      at(i)->gradient.advance(t, linnet::storage::fp8_e5m2::largest);
    }
    return false;
  }
  /// Scales of matrix number `i`, in canonical order.
  delayed_scales* at(index i) const {
    return reinterpret_cast<delayed_scales*>(
        static_cast<std::byte*>(memory_.data()) +
        i * round_up(static_cast<index>(sizeof(delayed_scales)), alignment));
  }

 private:
  memory_block memory_;
};

}  // namespace detail

LINNET_NAMESPACE_END
