// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The models and optimizers that several processes train together, and the state that they share
/// out. Knows no MPI.

#include <cstdint>
#include <type_traits>

#include <linnet/nn/repeat.hpp>
#include <linnet/train/fake_quantization.hpp>
#include <linnet/train/mixed_precision.hpp>
#include <linnet/train/sophia.hpp>

LINNET_NAMESPACE_BEGIN

/// Stage of sharing of a distributed_trainer (Rajbhandari et al. 2020). Beside the weights each
/// rank has all of its state (0), or the optimizer's state of its shard of the parameters (1). With
/// 2 it also has the gradients of its shard alone. With 3 it also has the
/// weights of its shard alone, beside tensors outside of layers. It gets those of a layer before
/// its forward and its backward.
template <int Stage>
struct zero {
  static_assert(Stage >= 0 && Stage <= 3, "linnet::zero: stages are 0 to 3");
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
/// The layer of a stack that a parameter belongs to: the outermost number on its path, and a digest
/// of the names before it. Its number is -1 outside of layers.
struct layer_of_path {
  index number = -1;
  std::uint64_t names = 0;

  constexpr explicit layer_of_path(const parameter_path& at) {
    const parameter_path* outermost = nullptr;
    for (const parameter_path* p = &at; p; p = p->parent)
      if (p->count > 0) outermost = p;
    if (!outermost) return;
    number = outermost->number;
    for (const parameter_path* p = outermost->parent; p; p = p->parent)
      for (const char c : p->name) names = (names ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
};
/// Layers of a stack of one type, each with parameters of its own; 0 of other stacks.
template <class Stack>
inline constexpr index own_layers = 0;
template <class Layer, index N, index First, index All>
inline constexpr index
    own_layers<repeat<Layer, N, First, All, own_parameters<Layer, N, First, All>>> = N;
/// Whether all parameters of layers are those of such stacks, whose backward tells when it has the
/// gradients of a layer.
template <class M>
consteval bool has_own_layers() {
  index layers = 0, own = 0, number = -1;
  std::uint64_t names = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info&) {
    const layer_of_path layer(at);
    layers += layer.number >= 0 && (layer.number != number || layer.names != names);
    number = layer.number;
    names = layer.names;
  });
  if constexpr (requires {
                  typename M::encoder::blocks;
                  typename M::decoder::blocks;
                })
    own = own_layers<typename M::encoder::blocks> + own_layers<typename M::decoder::blocks>;
  else if constexpr (requires { typename M::body::blocks; })
    own = own_layers<typename M::body::blocks>;
  else if constexpr (requires { typename M::blocks; })
    own = own_layers<typename M::blocks>;
  return own > 0 && own == layers;
}
/// The class that declares a member function.
template <class Class, class... A>
Class owner_of_member(void (Class::*)(A...) const);
/// Optimizers that move each value by its own gradient and moments, so that shards may end
/// anywhere. One that inherits move() may do more in its update(), such as bf16_rounded.
template <class Optimizer>
inline constexpr bool moves_values = requires {
  typename Optimizer::template averaged<float>;
  requires std::is_same_v<decltype(owner_of_member(&Optimizer::template move<float>)), Optimizer>;
};

/// Refuses what several processes cannot train together.
template <class M, class Optimizer, class Zero, class Compute>
consteval bool check_distributed() {
  static_assert(std::is_same_v<Compute, compute::f32> || std::is_same_v<Compute, compute::bf16>,
                "linnet::distributed_trainer: computes in compute::f32 or compute::bf16; others "
                "scale by what each rank alone has seen");
  static_assert(!estimates_curvature<Optimizer>,
                "linnet::distributed_trainer: takes optimizers without curvature, such as adamw");
  static_assert(
      Zero::stage == 0 || moves_values<Optimizer>,
      "linnet::distributed_trainer: zero<1> to zero<3> take adamw, which moves each value "
      "alone; take zero<0> for other optimizers");
  static_assert(
      Zero::stage == 0 || !has_averages<M>(),
      "linnet::distributed_trainer: zero<1> to zero<3> take no tensors that follow averages, "
      "as those of attention::routing; take zero<0>");
  if constexpr (Zero::stage >= 2)
    static_assert(
        has_own_layers<M>(),
        "linnet::distributed_trainer: zero<2> and zero<3> give gradients away layer by layer, so "
        "they take models whose blocks are of one type and share no parameters, and adapters of "
        "these with parameters in each block; take zero<1>");
  static_assert(Zero::stage < 3 || std::is_same_v<Compute, compute::f32>,
                "linnet::distributed_trainer: zero<3> computes in compute::f32; take zero<2> for "
                "compute::bf16");
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END
