// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Contextual sparsity (Liu et al. 2023, Deja Vu): how often neurons are active, and models that
/// predict which are.

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/counterpart.hpp>
#include <linnet/compress/cut_map.hpp>
#include <linnet/compress/importance.hpp>
#include <linnet/compress/predictor.hpp>
#include <linnet/model/decoder.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Neurons of a feed-forward, or heads of attention, with the tensors around them by their places
/// in visit().
struct hidden_units {
  std::string place{};          ///< the first tensor that has them
  index inputs = 0;             ///< numbers of them that are read
  index maker = -1;             ///< a matrix that makes them
  index reader = -1;            ///< the matrix that reads them
  const void* makes = nullptr;  ///< the packed panels of these matrices
  const void* reads = nullptr;
};
/// The neurons or the heads in plain weights.
template <class M, class T>
std::vector<hidden_units> hidden_units_in(const weights<M, T>& w, bool heads) {
  std::vector<hidden_units> all;
  const auto first = [](const std::vector<channel_side<T>>& sides) {
    const channel_side<T>* least = nullptr;
    for (const auto& side : sides)
      if (side.kind == role::matrix && (!least || side.ordinal < least->ordinal)) least = &side;
    return least;
  };
  const cut_map<T> map(w);
  for (const auto& set : map.sets())
    if (heads ? set.heads : set.activated) {
      const auto *const maker = first(set.writers), *const reader = first(set.readers);
      if (maker && reader)
        all.push_back({set.place, reader->columns, maker->ordinal, reader->ordinal});
    }
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.reader < b.reader; });
  return all;
}
/// The neurons or the heads of a model, as its layers say, in the order of the layers. Of stored
/// codes, those of its model in f32.
template <class M>
result<std::vector<hidden_units>> hidden_units_of(const weights<M>& w, bool heads) {
  using plain = typename M::template with_storage<storage::f32>;
  if constexpr (!std::is_same_v<M, plain>) {
    const weights<plain> same;
    if (!same.valid()) return same.error();
    return hidden_units_of(same, heads);
  } else {
    return hidden_units_in(w, heads);
  }
}

/// The inputs of the matrices that make neurons, or heads, and of those that read them. Called by
/// every thread.
template <class F>
struct neuron_watcher {
  std::vector<hidden_units> units{};
  F see;  ///< see(place, of_neurons, inputs), by the number of the units

  template <class P>
  void name_panels(const P& p) {
    index ordinal = 0;
    p.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
      if constexpr (requires { leaf.panels; })
        for (hidden_units& one : units) {
          if (one.maker == ordinal) one.makes = leaf.panels;
          if (one.reader == ordinal) one.reads = leaf.panels;
        }
      ++ordinal;
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
      for (index at = 0; at < std::ssize(units); ++at) {
        const hidden_units& one = units[static_cast<std::size_t>(at)];
        if (one.makes == x.panels_of(i)) see(at, false, x);
        if (one.reads == x.panels_of(i)) see(at, true, x);
      }
  }
};

/// Runs `w` and shows f(place, of_neurons, inputs) what makes such units and what reads them.
template <class M, class Batches, class F>
result<void> watch_neurons(const char* where, const weights<M>& w, Batches&& batches,
                           const limits& l, index most, F&& f,
                           std::vector<hidden_units> units) LINNET_TRY {
  const index needed = watched_model<M>::bytes(l);
  if (auto fit = acceptable<M>(where, l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  const auto p = linnet::pack(w);
  if (!p.valid()) return p.error();
  watched_model<M> model(p, l);
  if (!model.valid()) return out_of_memory(where, needed);
  neuron_watcher<F&> watcher{std::move(units), f};
  watcher.name_panels(p);
  const ops::input_tap tap = watcher.tap();
  const auto read = model.run_all(
      where, batches, 0, most, [&](ops::execution& on) { on.tap = &tap; },
      []() -> result<void> { return {}; });
  if (!read) return read.error();
  if (*read == 0) return error{errc::invalid, where, "batches", "at least one", "none"};
  return {};
}
LINNET_OR_OUT_OF_MEMORY("watch_neurons")

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
  static_assert(
      detail::has_channels<M>,
      "linnet::neuron_activity: the model does not say which of its channels are neurons; "
      "see channels(ends, p) in nn/layer.hpp");
  if (auto fit = detail::acceptable(where, "activity_options", how); !fit) return fit.error();
  if (!w.valid()) return w.error();
  auto found = detail::hidden_units_of(w, false);
  if (!found) return found.error();
  std::vector<unit_scores> made;
  for (const auto& one : *found)
    made.push_back({one.place, std::vector<double>(static_cast<std::size_t>(one.inputs))});
  std::vector<index> rows(made.size());
  const auto count = [&](index place, bool of_neurons, const ops::product_inputs& x) {
    if (!of_neurons) return;
    const auto at = static_cast<std::size_t>(place);
    rows[at] += x.rows;
    for (index i = 0; i < x.rows; ++i)
      for (index j = 0; j < x.width; ++j)
        made[at].scores[static_cast<std::size_t>(j)] += x.x[i * x.width + j] != 0 ? 1 : 0;
  };
  if (auto seen =
          detail::watch_neurons(where, w, batches, l, how.batches, count, std::move(*found));
      !seen)
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

template <class Leaf>
inline constexpr bool is_turned = false;
template <class Leaf>
inline constexpr bool is_turned<turned_matrix<Leaf>> = true;

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
  detail::visit_pairs<C, detail::whole_decoder<C>, T>(
      made, w, [](const tensor_info& info, auto& to, const auto& from) {
        if constexpr (detail::is_turned<std::remove_cvref_t<decltype(to)>>) {
          for (index i = 0; i < info.rows; ++i)
            for (index j = 0; j < info.columns; ++j)
              to.leaf[j * info.rows + i] = detail::numbers_in(from)[i * info.columns + j];
        } else {
          std::copy_n(detail::numbers_in(from), info.size(), detail::numbers_in(to));
        }
      });
  return made;
}
LINNET_OR_OUT_OF_MEMORY("contextualise")

namespace detail {

/// Trains the predictors of `c`, one after the other. Each is two matrices that the decoder `M` of
/// all neurons or heads does not have.
template <class M, class C>
result<std::vector<predictor_quality>> train_each(const char* where, weights<C>& c,
                                                  std::vector<seen_neurons>& seen,
                                                  const predictor_options& how) {
  std::vector<const float*> shared;  // in the order of visit()
  typename M::template params<form::canonical<float, storage_of<M, float>>> none{};
  C::visit(
      [&](const parameter_path&, const tensor_info&, const auto& leaf, const auto&) {
        if constexpr (is_turned<std::remove_cvref_t<decltype(leaf)>>)
          shared.push_back(leaf.leaf);
        else
          shared.push_back(numbers_in(leaf));
      },
      parameter_path{}, c.tree(), none);
  std::vector<predictor_quality> found;
  float* reduce = nullptr;
  index rank = 0;
  error unfit{errc::invalid, where, {}, {}, {}};
  c.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    if (std::find(shared.begin(), shared.end(), numbers_in(leaf)) != shared.end()) return;
    if (!reduce) {
      reduce = numbers_in(leaf);
      rank = info.rows;
      return;
    }
    seen_neurons& one = seen[found.size()];
    if (one.tokens() < 2 && unfit.what.empty()) {
      unfit.what = at.str();
      unfit.expected = "at least 2 tokens";
      unfit.got = std::to_string(one.tokens());
    }
    found.push_back(one.tokens() < 2
                        ? predictor_quality{}
                        : predictor_trainer(one, rank, how).run(reduce, numbers_in(leaf)));
    reduce = nullptr;
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
    const predictor_options& how = {}) LINNET_TRY {
  constexpr const char* where = "train_predictors";
  if (auto fit = detail::acceptable(where, "predictor_options", how); !fit) return fit.error();
  if (!c.valid()) return c.error();
  if (!w.valid()) return w.error();
  auto found = detail::hidden_units_of(w, false);
  if (!found) return found.error();
  std::vector<detail::seen_neurons> seen(found->size());
  const auto keep = [&](index place, bool of_neurons, const ops::product_inputs& x) {
    seen[static_cast<std::size_t>(place)].add(of_neurons, x, how.tokens);
  };
  if (auto read = detail::watch_neurons(where, w, batches, l, how.batches, keep, std::move(*found));
      !read)
    return read.error();
  return detail::train_each<detail::whole_decoder<C>>(where, c, seen, how);
}
LINNET_OR_OUT_OF_MEMORY("train_predictors")

LINNET_NAMESPACE_END
