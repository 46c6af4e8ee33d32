// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Block influence: how far each layer turns the residual stream (Men et al. 2024, ShortGPT).

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <linnet/compress/calibrate.hpp>
#include <linnet/compress/importance.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of block_influence().
struct influence_options {
  index batches = 128;  ///< batches that are read, unless the text ends before

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
  }
};

namespace detail {

/// Sums up the cosines between what each layer reads and writes.
class cosine_gatherer {
 public:
  /// The cosines of one layer, one for each row.
  struct layer_cosines {
    double sum = 0;
    index rows = 0;
  };
  explicit cosine_gatherer(index layers) : layers_(static_cast<std::size_t>(layers)) {}
  /// The hook for ops::execution.
  ops::layer_tap tap() {
    return {this, [](void* self, const ops::execution& on, const ops::layer_values& x) {
              on.threads.once([&] { static_cast<cosine_gatherer*>(self)->add(x); });
            }};
  }
  /// All layers, in the order in which they run.
  const std::vector<layer_cosines>& layers() const { return layers_; }

 private:
  void add(const ops::layer_values& v) {
    layer_cosines& layer = layers_[next_++ % layers_.size()];
    layer.rows += v.rows;
    for (index i = 0; i < v.rows; ++i) {
      const float *const x = v.x + i * v.width, *const y = v.y + i * v.width;
      double xx = 0, yy = 0, xy = 0;
      for (index j = 0; j < v.width; ++j) {
        const auto a = static_cast<double>(x[j]), b = static_cast<double>(y[j]);
        xx += a * a;
        yy += b * b;
        xy += a * b;
      }
      // A row of zeros has no direction: its cosine is 0. One that is passed on has exactly 1.
      if (const double lengths = std::sqrt(xx * yy); lengths != 0) layer.sum += xy / lengths;
    }
  }
  std::vector<layer_cosines> layers_;
  std::size_t next_ = 0;  ///< layers that ran so far
};

/// The stacks of model `M` in the order in which they run, each with its layers' scores, all 0.
template <class M>
std::vector<unit_scores> stacks_of() {
  std::vector<std::string> places;
  each_tensor<M>([&](const parameter_path& at, const tensor_info&) {
    const layer_place place = layer_of(at);
    if (place.count > 0 && (places.empty() || places.back() != place.stack))
      places.push_back(place.stack);
  });
  std::vector<index> counts;
  if constexpr (requires { M::shape.encoder_layers; })
    counts = {M::shape.encoder_layers, M::shape.decoder_layers};
  else
    counts = {M::shape.layers};
  places.resize(counts.size(), "blocks");  // blocks that share all of it have no places
  std::vector<unit_scores> made;
  for (std::size_t i = 0; i < counts.size(); ++i)
    made.push_back({places[i], std::vector<double>(static_cast<std::size_t>(counts[i]))});
  return made;
}

}  // namespace detail

/// Runs `w` on batches and scores each layer by how far it turns the residual stream, for
/// `importance::layers`: 1 minus the mean cosine of a token's states before and behind it. A layer
/// that changes nothing has 0. `batches(i)` returns batch number i, a view that is read before the
/// next call; an empty one ends the text. Padding of batches with lengths is left out. Results are
/// the same for any number of threads. Errors: errc::invalid for options, limits, weights or a
/// batch that do not fit. Also for no batch at all, and states that are not finite;
/// errc::out_of_memory.
template <class M, class Batches>
result<std::vector<unit_scores>> block_influence(const weights<M>& w, Batches&& batches,
                                                 const limits& l,
                                                 const influence_options& how = {}) LINNET_TRY {
  constexpr const char* where = "block_influence";
  const index needed = detail::watched_model<M>::bytes(l);
  if (auto fit = detail::acceptable<M>(where, l, needed); !fit) return fit.error();
  if (auto fit = detail::acceptable(where, "influence_options", how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  const auto p = linnet::pack(w);
  if (!p.valid()) return p.error();
  detail::watched_model<M> model(p, l);
  if (!model.valid()) return detail::out_of_memory(where, needed);
  auto made = detail::stacks_of<M>();
  index count = 0;
  for (const auto& stack : made) count += std::ssize(stack.scores);
  detail::cosine_gatherer gatherer(count);
  const ops::layer_tap tap = gatherer.tap();
  const auto read = model.run_all(
      where, batches, 0, how.batches, [&](ops::execution& on) { on.layers = &tap; },
      []() -> result<void> { return {}; });
  if (!read) return read.error();
  if (*read == 0) return error{errc::invalid, where, "batches", "at least one", "none"};
  std::size_t next = 0;
  for (auto& stack : made)
    for (double& score : stack.scores) {
      const auto& layer = gatherer.layers()[next++];
      score = 1 - layer.sum / static_cast<double>(layer.rows);
      if (!is_finite(score))
        return error{errc::invalid, where,
                     "layer " + std::to_string(&score - stack.scores.data()) + " of " + stack.place,
                     "finite states", "a NaN or an infinity"};
    }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("block_influence")

LINNET_NAMESPACE_END
