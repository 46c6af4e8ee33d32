// SPDX-License-Identifier: MIT
#pragma once
// The objective of a teacher of any type: its logits are computed before the student's step.

#include <linnet/ops/distillation.hpp>
#include <linnet/train/trainer.hpp>
#include <span>
#include <vector>

namespace study {

namespace ln = linnet;

/// A linnet::objective for one thread. Without logits it is that of labels alone.
class taught {
 public:
  taught() = default;
  taught(const ln::distillation_options& how, ln::index vocabulary)
      : how_(how),
        scratch_(static_cast<std::size_t>(ln::ops::distil_scratch<float>(vocabulary, 1))) {}
  /// The teacher's logits [rows, vocabulary] of the next batch.
  void listen(std::span<const float> logits) { logits_ = logits; }

  template <class M>
  bool accepts(const ln::t5_batch& b, const ln::limits& l) const {
    return scratch_.empty() ||
           (l.threads == 1 && std::ssize(logits_) >= b.batch * b.target_length * M::vocabulary);
  }
  auto token_loss(const ln::ops::execution&, const ln::t5_batch&) { return criterion{this}; }

 private:
  struct criterion {
    taught* from;

    template <class T, class S>
    void operator()(const ln::ops::execution& on, const ln::ops::head_call<T, S>& h,
                    ln::index first, ln::index rows) const {
      if (from->scratch_.empty()) return ln::ops::label_cross_entropy{}(on, h, first, rows);
      ln::ops::distil(on, h, first, rows, from->how_, 1, from->scratch_.data(),
                      [&](ln::index, ln::index i, T* to) {
                        std::copy_n(from->logits_.data() + (first + i) * h.vocabulary, h.vocabulary,
                                    to);
                        return 1.0;
                      });
    }
  };

  ln::distillation_options how_;
  std::span<const float> logits_;
  std::vector<float> scratch_;  ///< none: no teacher
};

}  // namespace study
