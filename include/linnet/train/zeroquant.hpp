// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// ZeroQuant: the weights of each quantized block are trained to give what the block in full
/// precision gives (Yao et al. 2022).

#include <algorithm>
#include <vector>

#include <linnet/compress/sequential.hpp>
#include <linnet/train/block_training.hpp>
#include <linnet/train/fake_quantization.hpp>

LINNET_NAMESPACE_BEGIN

/// Layer-by-layer distillation (Yao et al. 2022, arXiv:2206.01861, section 3.3), a method of
/// quantize_in_blocks(). Weights, norms and biases of a block are trained by AdamW, with gradients
/// that pass straight through rounding. The block in full precision is the teacher. A block keeps
/// the codes with the least loss, so it is never worse than rounded to nearest.
struct zeroquant {
  index batches = 128;          ///< batches that are read, unless the text ends before
  index epochs = 10;            ///< passes over them, with a step for each batch
  double rate = 3e-4;           ///< of AdamW at first; falls by a cosine
  bool reads_quantized = true;  ///< whether a block is trained on what the quantized blocks before
                                ///< it give; else on what those in full precision give
  std::vector<block_loss>* report = nullptr;  ///< where a block's losses are added, or null

  static constexpr const char* name = "zeroquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("epochs", self.epochs, detail::count(0));
    f("rate", self.rate, detail::above(0));
    f("reads_quantized", self.reads_quantized, detail::one_of(detail::false_or_true));
  }

  template <class Trial>
  class trainer;
};

/// Trains the weights of blocks, one after the other.
template <class Trial>
class zeroquant::trainer {
  using exact = typename Trial::exact;
  using deployed = typename Trial::deployed;
  using rounding =
      detail::master_form<exact, float, compute::fake_quantized<typename deployed::storage>>;

 public:
  explicit trainer(const zeroquant& how) : rate_(how.rate) { by_.decay = 0; }
  static constexpr index bytes() { return rounding::bytes() + adamw::state<exact, float>::bytes(); }
  bool valid() const { return rounding_.valid() && moments_.valid(); }
  /// Begins with a block that gets so many steps.
  void start(const ops::execution& on, const weights<exact>&, index steps) {
    on.threads.once([&] { by_.rate = schedule::cosine(rate_, 0, (std::max)(steps, index{1})); });
    moments_.visit([&](std::string_view, std::span<std::byte> bytes) {
      ops::fill(on, std::ssize(bytes), std::byte{0}, bytes.data());
    });
  }
  /// Rounds the block and packs what the codes stand for.
  template <class Packed>
  void pack(const ops::execution& on, const weights<exact>& w, Packed& to) {
    rounding_.pack(on, w, to);
  }
  /// Takes step number `t`.
  void step(const ops::execution& on, index t, weights<exact>& w, gradients<exact>& g) {
    g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
      if (info.kind == role::moving_average) ops::fill(on, info.size(), 0.0f, leaf);
    });
    by_.update(on, t, 1, g, moments_, w);
  }
  const weights<deployed>& codes() const { return rounding_.quantized(); }

 private:
  rounding rounding_;
  adamw::state<exact, float> moments_;
  adamw by_;
  double rate_;
};

/// Rounds `w` to storage `S` and trains its blocks by zeroquant, one after the other. What stands
/// before and behind the blocks is rounded to nearest. `batches(i)` returns the same batch number i
/// each time; an empty one ends the text. Memory is that of one block as a trainer has it, and
/// three streams between blocks for all batches; no step allocates. Results are the same for any
/// number of threads. Errors: errc::invalid for options, limits and batches that do not fit.
/// Also for weights and a loss that are not finite; the error of `w`; errc::out_of_memory.
template <class S, class A = compute::f32, class M, class Batches>
result<weights<quantized<M, S, A>>> quantize_in_blocks(const weights<M>& w, Batches&& batches,
                                                       const limits& l, const zeroquant& how) {
  if constexpr (detail::check_block_training<M, S>())
    return detail::train_in_blocks<S, A>(w, batches, l, how);
  else
    return error{};
}

LINNET_NAMESPACE_END
