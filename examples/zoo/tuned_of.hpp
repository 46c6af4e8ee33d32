// SPDX-License-Identifier: MIT
#pragma once
// Modules of zoo finetune and zoo distil: other starts of a training than fresh weights.

#include <filesystem>

#include <linnet/adapt/adapt.hpp>
#include <linnet/adapt/adapt_virtual.hpp>
#include <linnet/adapt/bottleneck.hpp>
#include <linnet/distill/distillation.hpp>
#include <linnet/distill/filter_probe.hpp>
#include <linnet/distill/layer_distillation.hpp>
#include <linnet/distill/relation_distillation.hpp>
#include <linnet/formats/peft.hpp>
#include <linnet/formats/peft_virtual.hpp>

#include "module_of.hpp"
#include "preset_loader.hpp"

namespace zoo {

/// A training that goes on from a file's weights.
struct from_file {
  template <class M>
  struct of : own_weights<M> {
    of(const training_plan& p, const ln::limits&) { this->weights = weights_at<M>(p.weights); }
    ln::cross_entropy_objective objective;
  };
};

/// A student with fresh weights that learns from a file's model.
template <class Teacher>
struct from_teacher {
  template <class M>
  class of : public own_weights<M> {
    std::shared_ptr<const ln::packed<Teacher>> teacher_;

   public:
    of(const training_plan& p, const ln::limits& l)
        : teacher_(packed_of(weights_at<Teacher>(p.weights))),
          objective(take(ln::distillation<M, Teacher>::open(*teacher_, l, p.lesson))) {
      ln::initialize(this->weights, ln::seed{p.seed});
    }
    ln::distillation<M, Teacher> objective;
  };
};

/// What the options of a lesson say of one that compares states.
inline ln::layer_distillation_options states_lesson(const training_plan& p) {
  return {.labels = p.lesson.alpha,
          .soft = 1 - p.lesson.alpha,
          .hidden = p.match_weight,
          .temperature = p.lesson.temperature,
          .loss = p.match == "cosine" ? ln::state_loss::cosine : ln::state_loss::mean_square};
}
/// A student with fresh weights that compares its states with those of a teacher. Filters that it
/// has while it trains are not saved.
template <class M, class Objective, class Teacher>
struct states_student {
  using trained = M;
  std::shared_ptr<const ln::packed<Teacher>> teacher;
  ln::weights<M> weights;
  Objective objective;

  states_student(std::shared_ptr<const ln::packed<Teacher>> from, const training_plan& p,
                 const ln::limits& l)
      : teacher(std::move(from)), objective(take(Objective::open(*teacher, l, states_lesson(p)))) {
    if (!weights.valid()) throw failure("not enough memory for the weights");
    ln::initialize(weights, ln::seed{p.seed});
  }
  void save(const std::string& path) {
    if constexpr (requires { M::filtered_layers; })
      take(ln::save_safetensors(take(ln::remove_filters(weights)), path));
    else
      take(ln::save_safetensors(weights, path));
  }
};
/// The types of a student `M` that meets a teacher at equal parts of its depth.
template <class M, class Teacher>
struct met_layers {
  static constexpr ln::index layers = ln::detail::layers_shown<M>();
  /// The layer of the teacher that layer `k` meets.
  template <ln::index k>
  static constexpr ln::index met = ln::detail::layer_met<M, Teacher>(k);
  template <ln::index... k>
  static std::type_identity<ln::filtered<M, Teacher::d, k...>> student_of(
      std::integer_sequence<ln::index, k...>);
  template <ln::index... k>
  static std::type_identity<ln::filtered<Teacher, Teacher::d, met<k>...>> teacher_of(
      std::integer_sequence<ln::index, k...>);
  template <class Student, ln::index... k>
  static std::type_identity<ln::layer_distillation<Student, Teacher, met<k>...>> objective_of(
      std::integer_sequence<ln::index, k...>);
  using each = std::make_integer_sequence<ln::index, layers>;

  /// With filters behind all of its layers, of the teacher's width.
  using student = typename decltype(student_of(each{}))::type;
  /// With filters behind the layers that are met.
  using teacher = typename decltype(teacher_of(each{}))::type;
  /// Of a teacher without filters.
  template <class Student>
  using objective = typename decltype(objective_of<Student>(each{}))::type;
};

/// A student with fresh weights that also learns the hidden states of a file's model, of layers at
/// equal parts of its depth. One of another width has filters of the teacher's while it trains.
template <class Teacher>
struct from_teacher_states {
  template <class M>
  static auto student_of() {
    if constexpr (M::d == Teacher::d)
      return std::type_identity<M>();
    else
      return std::type_identity<typename met_layers<M, Teacher>::student>();
  }
  template <class M>
  using trained_of = typename decltype(student_of<M>())::type;
  template <class M>
  using base =
      states_student<trained_of<M>,
                     typename met_layers<M, Teacher>::template objective<trained_of<M>>, Teacher>;
  template <class M>
  struct of : base<M> {
    of(const training_plan& p, const ln::limits& l)
        : base<M>(packed_of(weights_at<Teacher>(p.weights)), p, l) {}
  };
};

/// TED (Liang et al. 2023): filters behind layers of a file's model learn the text first. Then a
/// student with fresh weights learns, beside all else, what they let through, with filters of its
/// own while it trains.
template <class Teacher>
struct from_teacher_ted {
  /// The first stage, of a teacher that is frozen.
  struct first {
    template <class M>
    class of {
      using filters = typename met_layers<M, Teacher>::teacher;
      std::shared_ptr<const ln::packed<Teacher>> teacher_;

     public:
      using trained = ln::filter_probe<filters>;
      static constexpr std::size_t losses = filters::count;
      ln::weights<trained> weights;
      ln::cross_entropy_objective objective;

      of(const training_plan& p, const ln::limits&)
          : teacher_(packed_of(weights_at<Teacher>(p.weights))),
            weights(take(ln::probe_filters<filters>(*teacher_, ln::seed{p.seed}))) {}
      void save(const std::string& path) { take(ln::save_safetensors(weights, path)); }
    };
  };
  template <class M>
  using base = states_student<typename met_layers<M, Teacher>::student,
                              ln::layer_distillation<typename met_layers<M, Teacher>::student,
                                                     typename met_layers<M, Teacher>::teacher>,
                              typename met_layers<M, Teacher>::teacher>;
  template <class M>
  class of : public base<M> {
    using filters = typename met_layers<M, Teacher>::teacher;
    static std::shared_ptr<const ln::packed<filters>> taught(const training_plan& p) {
      const ln::weights<Teacher> w = weights_at<Teacher>(p.weights);
      const auto frozen = packed_of(w);
      ln::weights<ln::filter_probe<filters>> learned = take(ln::probe_filters<filters>(*frozen));
      take(ln::load_safetensors(learned, p.filters));
      take(ln::check_finite(learned, p.filters));
      return packed_of(take(ln::add_filters<filters>(w, learned)));
    }

   public:
    of(const training_plan& p, const ln::limits& l) : base<M>(taught(p), p, l) {}
  };
};

/// A student with fresh weights whose last layer learns how the last one of a file's model relates
/// tokens: queries, keys and values (MiniLMv2), or attention and values (MiniLM).
template <class Teacher>
struct from_teacher_relations {
  template <class M>
  class of : public own_weights<M> {
    static auto options(const training_plan& p) {
      const double w = p.match_weight;
      const bool first = p.match == "minilm";
      ln::relation_options how;
      how.labels = p.lesson.alpha;
      if (first)
        how.weights = {0, 0, w};
      else
        how.weights = {w / 3, w / 3, w / 3};
      if (first) how.attention = w;
      return how;
    }
    std::shared_ptr<const ln::packed<Teacher>> teacher_;

   public:
    ln::relation_distillation<M, Teacher> objective;

    of(const training_plan& p, const ln::limits& l)
        : teacher_(packed_of(weights_at<Teacher>(p.weights))),
          objective(take(ln::relation_distillation<M, Teacher>::open(*teacher_, l, options(p)))) {
      ln::initialize(this->weights, ln::seed{p.seed});
    }
  };
};

/// An adapter of a file's model, whose weights are frozen in storage `S`.
template <class Method, class S = ln::storage::f32>
struct with_adapter {
  /// Whether it cannot be merged, and runs beside the weights.
  static constexpr bool stays = !requires { Method::rank; };

  /// The weights of a model with the adapter in the folder of their file.
  template <class M>
  static std::unique_ptr<running> open(std::shared_ptr<const ln::packed<M>> base,
                                       const std::string& path, ln::limits l) {
    using adapter = typename of<M>::trained;
    ln::weights<adapter> w = take(ln::adapt<Method>(*base));
    const std::string folder = std::filesystem::path(path).parent_path() / "adapter";
    if constexpr (!of<M>::in_peft)
      take(ln::load_safetensors(w, folder + "/adapter.safetensors"));
    else
      take(ln::load_peft(w, folder));
    take(ln::check_finite(w, folder));
    // Virtual tokens come on top of what the text was given, as far as the context goes.
    if constexpr (requires { Method::virtual_count; }) {
      if (M::encodes && !ln::detail::is_prefix<adapter>)
        l.source += Method::virtual_count;
      else if (M::encodes)
        l.target += Method::virtual_count;
      else if (l.target > 0)
        l.target = std::max(l.target, std::min(l.target + Method::virtual_count, M::longest({})));
    }
    const auto given = packed_of(w);
    return std::make_unique<running_of<M>>(
        base, l, [given](ln::session<M>& to, ln::index b) { return to.set_adapter(b, *given); });
  }

  template <class M>
  class of {
    using base = typename M::template with_storage<S>;
    ln::weights<base> frozen_;
    std::shared_ptr<const ln::packed<base>> packed_;

   public:
    using trained = ln::adapted<base, Method>;
    ln::weights<trained> weights;
    ln::cross_entropy_objective objective;

    of(const training_plan& p, const ln::limits&)
        : frozen_(ln::quantize<S>(weights_at<M>(p.weights))),
          packed_(packed_of(frozen_)),
          weights(take(fresh(*packed_, p))) {}

    /// The adapter by itself, and the model that it makes of the frozen numbers. One that is not
    /// merged leaves them as they are.
    void save(const std::string& path) {
      const std::string folder = std::filesystem::path(path).parent_path() / "adapter";
      std::filesystem::create_directories(folder);
      if constexpr (!in_peft)
        take(ln::save_safetensors(weights, folder + "/adapter.safetensors"));
      else
        take(ln::save_peft(weights, folder));
      ln::weights<M> whole;
      if (!whole.valid()) throw failure("not enough memory for the weights");
      M::visit(
          [](const ln::parameter_path&, const ln::tensor_info& info, auto& to, const auto& from) {
            if constexpr (requires { to.data; }) {
              for (ln::index r = 0; r < info.rows; ++r)
                for (ln::index j = 0; j < info.columns; ++j)
                  to.data[r * info.columns + j] = static_cast<float>(from.at(r, j, info.columns));
            } else {
              std::copy_n(from, info.size(), to);
            }
          },
          ln::parameter_path{}, whole.tree(), frozen_.tree());
      if constexpr (is_lora) take(ln::merge(whole, weights));
      take(ln::save_safetensors(whole, path));
    }

   private:
    static constexpr bool is_lora = requires { Method::rank; };
    static constexpr bool is_virtual = requires { Method::virtual_count; };
    static constexpr bool is_prefix = ln::detail::is_prefix<trained>;
    /// A T5's prefix with an even number of decoder layers has no form there.
    static constexpr bool even_t5() {
      if constexpr (M::encodes && is_prefix) return M::shape.decoder_layers % 2 == 0;
      return false;
    }

   public:
    /// Whether PEFT has files of such an adapter.
    static constexpr bool in_peft =
        (is_virtual && !even_t5()) || (is_lora && ln::hf_kind_of<M>() != ln::hf_kind::gpt2);

   private:
    static auto fresh(const ln::packed<base>& frozen, const training_plan& p) {
      if constexpr (is_lora)
        return ln::adapt<Method>(frozen, p.adapter, ln::seed{p.seed});
      else if constexpr (is_prefix)
        return ln::adapt<Method>(frozen, ln::prefix_start::random, ln::seed{p.seed});
      else if constexpr (is_virtual)
        return ln::adapt<Method>(
            frozen,
            {.start = M::factorised ? ln::prompt_start::random : ln::prompt_start::vocabulary},
            ln::seed{p.seed});
      else
        return ln::adapt<Method>(frozen, ln::seed{p.seed});
    }
  };
};

}  // namespace zoo
