// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SR-STE: training towards n:m sparsity (Zhou et al. 2021).

#include <cmath>
#include <ratio>
#include <type_traits>

#include <linnet/compress/sparsity.hpp>
#include <linnet/train/fake_quantization.hpp>

LINNET_NAMESPACE_BEGIN

namespace compute {

/// Training towards matrices of which `Kept` of every `Of` consecutive inputs stay (SR-STE, Zhou et
/// al. 2021, arXiv:2102.04010), for trainers. Each step computes in the weights that magnitude
/// pruning leaves, found anew. Gradients pass straight through to all weights. Those that are
/// pruned decay: their gradient gains `Decay` times the weight. prune() with magnitude and
/// this pattern gives the weights to ship.
template <index Kept, index Of, class Decay = std::ratio<1, 5000>>
struct sr_ste : policy {
  static_assert(1 <= Kept && Kept <= Of,
                "linnet::compute::sr_ste: Kept of every Of inputs stay, from 1 to all");
};

}  // namespace compute

namespace detail {

/// True, or a refusal that leaves the class that asks usable.
template <class M, index Of>
consteval bool check_pattern() {
  constexpr bool fits = [] {
    bool all = true;
    each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
      if (info.kind == role::matrix) all = all && info.columns % Of == 0;
    });
    return all;
  }();
  static_assert(fits,
                "linnet::compute::sr_ste: the inputs of every matrix must be a multiple of the "
                "pattern's width");
  return true;
}

/// In the weights that a pattern leaves.
template <class M, class T, index Kept, index Of, class Decay>
class master_form<M, T, compute::sr_ste<Kept, Of, Decay>> {
  static_assert(check_pattern<M, Of>());

 public:
  using storage = storage_of<M, T>;
  using word = T;
  static constexpr bool own_rows = true, learns_steps = false, trains_weights = true;
  static constexpr index row_words(const tensor_info& info) { return info.size(); }
  static constexpr index bytes() { return 0; }
  static constexpr bool valid() { return true; }

  /// Packs what the pattern leaves of `w`.
  static void pack(const ops::execution& on, const weights<M, T>& w, packed<M, T, storage>& to) {
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, auto& panels, const auto& from) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
            ops::copy(on, info.size(), static_cast<const T*>(from), const_cast<T*>(panels));
          } else {
            T* const rows = const_cast<T*>(panels.rows);
            ops::copy(on, info.size(), static_cast<const T*>(from.data), rows);
            if (info.kind == role::matrix)
              each_pruned(on, info, from.data, [&](index i) { rows[i] = T(0); });
            ops::pack(on, info.rows, info.columns, matrix_ref<storage>{rows}, panels);
          }
        },
        to, w);
  }
  /// Adds the decay of pruned weights to gradients that are summed over `tokens`.
  static void add_decay(const ops::execution& on, index tokens, const weights<M, T>& w,
                        gradients<M, T>& g) {
    const double factor = static_cast<double>(Decay::num) / static_cast<double>(Decay::den) *
                          static_cast<double>(tokens);
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, const auto& from, auto& gradient) {
          if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
            if (info.kind == role::matrix)
              each_pruned(on, info, from.data, [&](index i) {
                gradient[i] += static_cast<T>(factor * static_cast<double>(from.data[i]));
              });
        },
        w, g);
  }

 private:
  /// Calls f(i) for each value that the pattern prunes; a row is one thread's.
  template <class F>
  static void each_pruned(const ops::execution& on, const tensor_info& info, const T* from, F&& f) {
    on.threads.each(info.rows, [&](index r) {
      for (index j = r * info.columns; j < (r + 1) * info.columns; j += Of)
        for (index a = 0; a < Of; ++a) {
          // Larger ones, and of equals later ones, stay before it: as mark_least() has it.
          index larger = 0;
          for (index b = 0; b < Of; ++b) {
            const T x = std::abs(from[j + a]), y = std::abs(from[j + b]);
            larger += y > x || (y == x && b > a);
          }
          if (larger >= Kept) f(j + a);
        }
    });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
