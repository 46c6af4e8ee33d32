// SPDX-License-Identifier: MIT
#pragma once
// Modules of zoo finetune and zoo distil: other starts of a training than fresh weights.

#include <linnet/distill/distillation.hpp>

#include "module_of.hpp"
#include "preset_loader.hpp"

namespace zoo {

/// A training that goes on from a file's weights.
struct from_file {
  template <class M>
  struct of {
    of(ln::weights<M>& w, const training_plan& p, const ln::limits&) {
      w = weights_at<M>(p.weights);
    }
    ln::cross_entropy_objective objective;
  };
};

/// A student with fresh weights that learns from a file's model.
template <class Teacher>
struct from_teacher {
  template <class M>
  class of {
    std::shared_ptr<const ln::packed<Teacher>> teacher_;

   public:
    of(ln::weights<M>& w, const training_plan& p, const ln::limits& l)
        : teacher_(packed_of(weights_at<Teacher>(p.weights))),
          objective(take(ln::distillation<M, Teacher>::open(*teacher_, l, p.lesson))) {
      ln::initialize(w, ln::seed{p.seed});
    }
    ln::distillation<M, Teacher> objective;
  };
};

}  // namespace zoo
