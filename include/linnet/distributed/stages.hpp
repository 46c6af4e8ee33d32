// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The models and optimizers that several processes train together, and the state that they share
/// out. Knows no MPI.

#include <type_traits>

#include <linnet/train/fake_quantization.hpp>
#include <linnet/train/mixed_precision.hpp>
#include <linnet/train/sophia.hpp>

LINNET_NAMESPACE_BEGIN

/// The optimizer's state that each rank of a distributed_trainer keeps (Rajbhandari et al. 2020).
/// It keeps all of it (0), or that of its shard of the parameters (1).
template <int Stage>
struct zero {
  static_assert(Stage == 0 || Stage == 1, "linnet::zero: stages are 0 and 1");
  static constexpr int stage = Stage;
};

namespace detail {

/// Whether a model has tensors that follow averages of rows, which shards may cut.
template <class M>
consteval bool has_averages() {
  bool any = false;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    any = any || info.kind == role::moving_average;
  });
  return any;
}
/// Optimizers that move each value by its own gradient and moments, so that shards may end
/// anywhere.
template <class Optimizer>
inline constexpr bool moves_values = requires {
  typename Optimizer::template averaged<float>;
};

/// Refuses what several processes cannot train together.
template <class M, class Optimizer, class Zero, class Compute>
consteval bool check_distributed() {
  static_assert(std::is_same_v<Compute, compute::f32> || std::is_same_v<Compute, compute::bf16>,
                "linnet::distributed_trainer: computes in compute::f32 or compute::bf16; others "
                "scale by what each rank alone has seen");
  static_assert(!estimates_curvature<Optimizer>,
                "linnet::distributed_trainer: takes optimizers without curvature, such as adamw");
  static_assert(Zero::stage == 0 || moves_values<Optimizer>,
                "linnet::distributed_trainer: zero<1> takes adamw, which moves each value alone; "
                "take zero<0> for other optimizers");
  static_assert(Zero::stage == 0 || !has_averages<M>(),
                "linnet::distributed_trainer: zero<1> takes no tensors that follow averages, as "
                "those of attention::routing; take zero<0>");
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END
