// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Contextual sparsity (Liu et al. 2023, Deja Vu): how often neurons are active, and models that
/// predict which are.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/compress/channel_map.hpp>
#include <linnet/compress/importance.hpp>
#include <linnet/compress/predictor.hpp>
#include <linnet/model/decoder.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The matrices of a feed-forward by the ends of their names.
inline bool is_read_by_neurons(std::string_view name) {
  return name.ends_with("ffn.wi.weight") || name.ends_with("ffn.up.weight");
}
inline bool reads_neurons(std::string_view name) {
  return name.ends_with("ffn.wo.weight") || name.ends_with("ffn.down.weight");
}

/// Names of matrices by their ends: of one that makes what is predicted, and one that reads it.
struct watched_names {
  bool (*makes)(std::string_view name);
  bool (*reads)(std::string_view name);
};
inline constexpr watched_names names_of_neurons{is_read_by_neurons, reads_neurons};

/// The inputs of the matrices that make neurons, or heads, and of those that read them. Called by
/// every thread.
template <class F>
struct neuron_watcher {
  struct matrix {
    const void* panels;
    index place;      ///< which feed-forward
    bool of_neurons;  ///< whether it reads neurons
  };
  std::vector<matrix> matrices{};
  F see;  ///< see(place, of_neurons, inputs)

  template <class P>
  void name_all(const P& p, const watched_names& names) {
    index makers = 0, readers = 0;
    p.visit([&](const parameter_path& at, const tensor_info&, const auto& leaf) {
      if constexpr (requires { leaf.panels; }) {
        const std::string name = at.str();
        if (names.makes(name)) matrices.push_back({leaf.panels, makers++, false});
        if (names.reads(name)) matrices.push_back({leaf.panels, readers++, true});
      }
    });
  }
  ops::input_tap tap() {
    return {this, [](void* self, const ops::execution& on, const ops::product_inputs& x) {
              on.threads.once([&] { static_cast<neuron_watcher*>(self)->look(x); });
            }};
  }

 private:
  void look(const ops::product_inputs& x) {
    for (index i = 0; i < x.matrices; ++i)
      for (const matrix& one : matrices)
        if (one.panels == x.panels_of(i)) see(one.place, one.of_neurons, x);
  }
};

/// Runs `w` and shows f(place, of_neurons, inputs) what feed-forwards read and their neurons, or
/// what other matrices of these names read.
template <class M, class Batches, class F>
result<void> watch_neurons(const char* where, const weights<M>& w, Batches&& batches,
                           const limits& l, index most, F&& f,
                           const watched_names& names = names_of_neurons) LINNET_TRY {
  const index needed = watched_model<M>::bytes(l);
  if (auto fit = acceptable<M>(where, l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  const auto p = linnet::pack(w);
  if (!p.valid()) return p.error();
  watched_model<M> model(p, l);
  if (!model.valid()) return out_of_memory(where, needed);
  neuron_watcher<F&> watcher{.see = f};
  watcher.name_all(p, names);
  const ops::input_tap tap = watcher.tap();
  const auto read = model.run_all(
      where, batches, 0, most, [&](ops::execution& on) { on.tap = &tap; },
      []() -> result<void> { return {}; });
  if (!read) return read.error();
  if (*read == 0) return error{errc::invalid, where, "batches", "at least one", "none"};
  return {};
}
LINNET_OR_OUT_OF_MEMORY("watch_neurons")

/// The places of a model's neurons, as those of importance::units: the first tensor that has them.
template <class M>
std::vector<unit_scores> neurons_of_model() {
  std::vector<unit_scores> made;
  std::string place;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    const std::string name = at.str();
    if (name.ends_with("ffn.gate.weight") || name.ends_with("ffn.wi.weight")) place = name;
    if (reads_neurons(name))
      made.push_back({place, std::vector<double>(static_cast<std::size_t>(info.columns))});
  });
  return made;
}

}  // namespace detail

/// Options of neuron_activity().
struct activity_options {
  index batches = 128;  ///< batches that are read, unless the text ends before

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
  }
};

/// Runs `w` on batches and counts how often each neuron of its standard or gated feed-forwards is
/// active (Li et al. 2022, arXiv:2210.06313). A score is the share of tokens for which it is not 0;
/// 1 minus their mean is the sparsity. They may replace those of importance::units. `batches(i)`
/// returns batch number i; an empty one ends the text. Errors: errc::invalid for options, limits,
/// weights or a batch that do not fit, and for no batch at all; errc::out_of_memory.
template <class M, class Batches>
result<std::vector<unit_scores>> neuron_activity(const weights<M>& w, Batches&& batches,
                                                 const limits& l,
                                                 const activity_options& how = {}) LINNET_TRY {
  constexpr const char* where = "neuron_activity";
  if (auto fit = detail::acceptable(where, "activity_options", how); !fit) return fit.error();
  auto made = detail::neurons_of_model<M>();
  std::vector<index> rows(made.size());
  const auto count = [&](index place, bool of_neurons, const ops::product_inputs& x) {
    if (!of_neurons) return;
    const auto at = static_cast<std::size_t>(place);
    rows[at] += x.rows;
    for (index i = 0; i < x.rows; ++i)
      for (index j = 0; j < x.width; ++j)
        made[at].scores[static_cast<std::size_t>(j)] += x.x[i * x.width + j] != 0 ? 1 : 0;
  };
  if (auto seen = detail::watch_neurons(where, w, batches, l, how.batches, count); !seen)
    return seen.error();
  for (std::size_t at = 0; at < made.size(); ++at)
    for (double& score : made[at].scores)
      score /= static_cast<double>((std::max)(index{1}, rows[at]));
  return made;
}
LINNET_OR_OUT_OF_MEMORY("neuron_activity")

/// Decoder `M` whose feed-forward predicts its neurons, see ffn::contextual.
template <class M, index Rank, real Least = 0.0>
using contextualised =
    typename M::template with<ffn::policy, ffn::contextual<Rank, typename M::ffn, Least>>;

namespace detail {

/// The decoder whose neurons a contextual one predicts.
template <class C>
using whole_decoder = typename C::template with<ffn::policy, typename C::ffn::whole>;

/// The name in a decoder of a tensor of its contextual one; "" for those of predictors.
inline std::string whole_name(std::string name, bool gated) {
  const std::size_t at = name.rfind("ffn.");
  if (at == std::string::npos) return name;
  const std::string_view rest = std::string_view(name).substr(at + 4);
  if (rest.starts_with("predictor.")) return {};
  const auto replace = [&](std::string_view from, std::string_view to) {
    if (const std::size_t found = name.find(from, at + 4); found != std::string::npos)
      name.replace(found, from.size(), to);
  };
  if (!gated) {
    replace("up.", "wi.");
    replace("down.", "wo.");
  }
  replace(".rows", ".weight");
  return name;
}

}  // namespace detail

/// Weights of contextual decoder `C` from those of the decoder whose neurons it predicts. Its
/// predictors are zeros: with a `Least` of 0 or less all neurons are computed, until
/// train_predictors(). Errors: those of `w`; errc::out_of_memory.
template <class C, class T>
result<weights<C, T>> contextualise(const weights<detail::whole_decoder<C>, T>& w) LINNET_TRY {
  constexpr const char* where = "contextualise";
  static_assert(weights<C, T>::storage::per_word == 1,
                "linnet::contextualise: predict neurons first, quantize afterwards");
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  weights<C, T> made;
  if (!made.valid()) return made.error();
  struct tensor {
    std::string name;
    tensor_info info;
    const T* numbers;
  };
  std::vector<tensor> tensors;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    tensors.push_back({at.str(), info, detail::numbers_in(leaf)});
  });
  constexpr bool gated = detail::neurons_of<typename C::ffn::whole>.gated;
  std::string missing;
  made.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    const std::string wanted = detail::whole_name(at.str(), gated);
    T* const to = detail::numbers_in(leaf);
    if (wanted.empty()) return;
    for (const tensor& from : tensors) {
      if (from.name != wanted) continue;
      const bool turned = from.info.rows != info.rows || detail::reads_neurons(wanted);
      for (index i = 0; i < info.rows; ++i)
        for (index j = 0; j < info.columns; ++j)
          to[i * info.columns + j] =
              from.numbers[turned ? j * info.rows + i : i * info.columns + j];
      return;
    }
    missing = wanted;
  });
  if (!missing.empty())
    return error{errc::invalid, where, missing, "a tensor of the decoder", "none"};
  return made;
}
LINNET_OR_OUT_OF_MEMORY("contextualise")

namespace detail {

/// Whether a tensor is of a predictor of neurons.
inline bool predicts_neurons(std::string_view name) {
  return name.find("ffn.predictor.") != name.npos;
}

/// Trains the predictors of `c` whose tensors have names that fit, one after the other.
template <class C>
result<std::vector<predictor_quality>> train_each(const char* where, weights<C>& c,
                                                  std::vector<seen_neurons>& seen,
                                                  bool (*fits)(std::string_view),
                                                  const predictor_training& how) {
  std::vector<predictor_quality> found;
  float* reduce = nullptr;
  index rank = 0;
  error unfit{errc::invalid, where, {}, {}, {}};
  c.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    const std::string name = at.str();
    if (!fits(name)) return;
    if (name.ends_with("reduce.weight")) {
      reduce = numbers_in(leaf);
      rank = info.rows;
    } else {
      seen_neurons& one = seen[found.size()];
      if (one.tokens() < 2 && unfit.what.empty()) {
        unfit.what = name;
        unfit.expected = "at least 2 tokens";
        unfit.got = std::to_string(one.tokens());
      }
      found.push_back(one.tokens() < 2
                          ? predictor_quality{}
                          : predictor_trainer(one, rank, how).run(reduce, numbers_in(leaf)));
    }
  });
  if (!unfit.what.empty()) return unfit;
  return found;
}

}  // namespace detail

/// Trains the predictors of `c` on what the decoder `w` computes for batches: which neurons are not
/// 0, from what its feed-forward reads. The rest of `c` stays. Returns what each predictor finds of
/// the tokens that were held out, in the order of the layers. Keeps up to `how.tokens` inputs of
/// each layer. Errors: errc::invalid for options, limits, weights or a batch that do not fit, and
/// for fewer than 2 tokens; errc::out_of_memory.
template <class C, class Batches>
result<std::vector<predictor_quality>> train_predictors(
    weights<C>& c, const weights<detail::whole_decoder<C>>& w, Batches&& batches, const limits& l,
    const predictor_training& how = {}) LINNET_TRY {
  constexpr const char* where = "train_predictors";
  if (auto fit = detail::acceptable(where, "predictor_training", how); !fit) return fit.error();
  if (!c.valid()) return c.error();
  std::vector<detail::seen_neurons> seen(
      detail::neurons_of_model<detail::whole_decoder<C>>().size());
  const auto keep = [&](index place, bool of_neurons, const ops::product_inputs& x) {
    seen[static_cast<std::size_t>(place)].add(of_neurons, x, how.tokens);
  };
  if (auto read = detail::watch_neurons(where, w, batches, l, how.batches, keep); !read)
    return read.error();
  return detail::train_each(where, c, seen, detail::predicts_neurons, how);
}
LINNET_OR_OUT_OF_MEMORY("train_predictors")

LINNET_NAMESPACE_END
