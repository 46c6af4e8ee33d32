// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sharing policies: which parameters the blocks of a stack have in common.

#include <string>

#include <linnet/core/shapes.hpp>
#include <linnet/nn/chain.hpp>
#include <linnet/nn/repeat.hpp>
#include <linnet/nn/residual.hpp>

LINNET_NAMESPACE_BEGIN

/// Sharing policies: which tensors of a block are shared by all blocks of the stack. A shared
/// tensor exists, counts and is visited once; its gradient is the sum over the blocks. A policy of
/// your own derives from sharing::policy and says `shares(path)` of the places of a block's
/// tensors, such as ...attention.q.weight. Key-value caches are each block's own always.
namespace sharing {

/// Base of the sharing policies: nothing is shared. What files call one is `static std::string
/// name()`.
struct policy {
  static constexpr index repeats = 1;              ///< times that a block runs in a row
  static constexpr projection_kind projections{};  ///< how the linear maps of the blocks are made
  /// Whether all blocks share the tensor at this place of the block.
  static constexpr bool shares(const parameter_path&) { return false; }
};

/// Every block has parameters of its own.
struct none : policy {
  using kind = none;
  static std::string name() { return "none"; }
};

/// One feed-forward for all blocks, which keep their attention and both norms (MobiLlama,
/// Thawakar et al. 2024, arXiv:2402.16840).
struct ffn : policy {
  using kind = ffn;
  static std::string name() { return "ffn"; }
  static constexpr bool shares(const parameter_path& at) {
    const parameter_path* below = nullptr;
    for (const parameter_path* p = &at; p; below = p, p = p->parent)
      if (p->name == "ffn") return !below || below->name != "norm";
    return false;
  }
};

/// One block for all layers, norms included (ALBERT, Lan et al. 2019, arXiv:1909.11942).
struct all : policy {
  using kind = all;
  static std::string name() { return "all"; }
  static constexpr bool shares(const parameter_path&) { return true; }
};

/// Each block runs `Times` times in a row before the next (MobileLLM-LS, Liu et al. 2024,
/// arXiv:2402.14905). `layers` of the shape counts runs.
template <index Times>
struct repeat : policy {
  static_assert(Times > 0, "linnet::sharing::repeat: a block runs at least once");
  static constexpr index repeats = Times;
  using kind = repeat;
  static std::string name() { return "repeat " + std::to_string(Times); }
};

/// One block for all layers; each layer adds a low-rank delta of its own to every matrix (after
/// LoRA, Hu et al. 2021): W + Alpha / Rank B A. Each layer also has norms of its own. unshare()
/// adds the deltas up.
template <index Rank, index Alpha = Rank>
struct lora : policy {
  static constexpr projection_kind projections{.rank = Rank, .delta = true, .alpha = Alpha};
  using kind = lora;
  static std::string name() {
    return "lora " + std::to_string(Rank) + " alpha " + std::to_string(Alpha);
  }
  static constexpr bool shares(const parameter_path& at) {
    for (const parameter_path* p = &at; p; p = p->parent)
      if (p->name == "norm" || p->name == "lora_a" || p->name == "lora_b") return false;
    return true;
  }
};

}  // namespace sharing

namespace detail {

/// The parameters of `N` layers of which some are shared: see sharing::policy. What a layer reads
/// is put together for each call, a copy of a few pointers, so that every tensor has one place.
template <class Layer, index N, class Sharing>
struct shared_parameters {
  static_assert(N % Sharing::repeats == 0,
                "linnet::sharing::repeat<n>: the number of layers must be a multiple of n");
  static constexpr auto times = static_cast<std::size_t>(Sharing::repeats);
  static constexpr std::size_t count = static_cast<std::size_t>(N) / times;

  template <class Form>
  struct params {
    /// Parameters of each layer's own; the places of shared tensors are empty.
    typename Layer::template params<Form> items[count]{};
    /// Parameters that all layers share; the places of their own tensors are empty.
    typename Layer::template params<Form> shared{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const auto only = [&f](bool shared) {
      return [&f, shared](const parameter_path& where, const tensor_info& info, auto&... leaf) {
        if (Sharing::shares(where) == shared) f(where, info, leaf...);
      };
    };
    for (std::size_t l = 0; l < count; ++l)
      Layer::visit(only(false), at.element(static_cast<index>(l), static_cast<index>(count)),
                   p.items[l]...);
    Layer::visit(only(true), at / "shared", p.shared...);
  }
  /// Beside the parameters `q` of as many layers that share nothing.
  template <class F, class P, class Q>
  requires(!requires(Q & q) {
    q.shared;
  }) static constexpr void visit(F&& f, const parameter_path& at, P& p, Q& q) {
    for (std::size_t l = 0; l < count * times; ++l) {
      auto layer = of(p, l);
      Layer::visit(f, at.element(static_cast<index>(l), N), layer, q.items[l]);
    }
  }
  /// Parameters of layer `l`.
  template <class P>
  static constexpr auto of(P& p, std::size_t l) {
    auto layer = p.items[l / times];
    Layer::visit(
        [](const parameter_path& where, const tensor_info&, auto& to, const auto& from) {
          if (Sharing::shares(where)) to = from;
        },
        parameter_path{}, layer, p.shared);
    return layer;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
