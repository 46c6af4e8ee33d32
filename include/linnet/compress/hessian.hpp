// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Curvature of the loss: top eigenvalues of blocks of its Hessian, which say where rounding costs
/// most (Q-BERT).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/channel_map.hpp>
#include <linnet/compress/gradient_pass.hpp>
#include <linnet/compress/sequential.hpp>
#include <linnet/core/random.hpp>

LINNET_NAMESPACE_BEGIN

/// How top_eigenvalue() searches.
struct power_iteration {
  index iterations = 50;    ///< products at most
  double tolerance = 1e-2;  ///< it ends where an iteration changes the eigenvalue by less, relative
  std::uint64_t seed = 0;   ///< of the vector at the start

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("iterations", self.iterations, detail::count(1));
    f("tolerance", self.tolerance, detail::at_least(0, "0 takes all iterations"));
  }
};

/// The eigenvalue of largest magnitude that top_eigenvalue() found.
struct eigenvalue_estimate {
  double value = 0;      ///< v^T A v of the last vector v of unit length; NaN if a product was not
                         ///< finite
  double residual = 0;   ///< |A v - value v|: some eigenvalue is at most this far from `value`
  index iterations = 0;  ///< products that were taken
  bool converged = false;  ///< whether power_iteration::tolerance was reached
};

/// Finds the eigenvalue of largest magnitude of a symmetric matrix A[n, n] by power iteration.
/// `product(v, to)` writes A v to `to`; both are spans of n doubles. Takes two vectors of memory.
template <class Product>
eigenvalue_estimate top_eigenvalue(index n, Product&& product, const power_iteration& how = {}) {
  std::vector<double> v(static_cast<std::size_t>(n)), to(v.size());
  random_stream random(seed{how.seed}, stream_of("power_iteration"));
  double squares = 0;
  for (double& x : to) {
    x = random.normal();
    squares += x * x;
  }
  eigenvalue_estimate found;
  while (found.iterations < how.iterations && squares > 0 && !found.converged) {
    const double before = found.value, length = std::sqrt(squares);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = to[i] / length;
    product(std::span<const double>(v), std::span<double>(to));
    ++found.iterations;
    found.value = squares = 0;
    for (std::size_t i = 0; i < v.size(); ++i) {
      found.value += v[i] * to[i];
      squares += to[i] * to[i];
    }
    if (!is_finite(squares)) {
      found.value = found.residual = std::numeric_limits<double>::quiet_NaN();
      return found;
    }
    double rest = 0;  // by its definition: a difference of squares would lose it
    for (std::size_t i = 0; i < v.size(); ++i) {
      const double apart = to[i] - found.value * v[i];
      rest += apart * apart;
    }
    found.residual = std::sqrt(rest);
    found.converged =
        squares == 0 || (found.iterations > 1 &&
                         std::abs(found.value - before) <= how.tolerance * std::abs(found.value));
  }
  return found;
}

/// Matrices and token tables that vary together, and so share a block of the Hessian.
enum class hessian_blocks {
  layers,   ///< each layer, and each matrix and token table outside of layers
  roles,    ///< each role of storage::per_role, over all layers
  matrices  ///< each matrix and token table
};

/// Options of hessian_sensitivities().
struct hessian_options {
  hessian_blocks blocks = hessian_blocks::layers;
  index subsets = 10;  ///< parts of the text, each of which gives an eigenvalue
  index batches = 1;   ///< batches of a subset
  power_iteration eigenvalue{};
  double step = 0;  ///< length of the step of differences, over the norm of the block's weights; 0
                    ///< for a third of the square root of the scalar's epsilon, 1e-4 of float

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("blocks", self.blocks, detail::one_of(names));
    f("subsets", self.subsets, detail::count(1));
    f("batches", self.batches, detail::count(1));
    f("eigenvalue", self.eigenvalue);
    f("step", self.step, detail::at_least(0, "0 for one that suits the scalar"));
  }

 private:
  static constexpr const char* names[] = {"layers", "roles", "matrices"};
};

/// A block of a model's matrices and token tables, and the top eigenvalues of its Hessian.
struct hessian_block {
  std::string name;  ///< such as "blocks.3", "ffn_down" or "blocks.3.ffn.down.weight"
  storage::part role = storage::part::any;  ///< what all its tensors are for, of blocks by roles
  std::vector<index> tensors{};             ///< their numbers in M::visit()
  index weights = 0;                        ///< how many there are
  std::vector<double> eigenvalues{};        ///< of each subset, per label in nats

  /// Mean of the eigenvalues.
  double mean() const {
    double sum = 0;
    for (const double x : eigenvalues) sum += x;
    return sum / static_cast<double>(eigenvalues.size());
  }
  /// Standard deviation of the eigenvalues over the subsets: their squares are divided by the
  /// number of subsets.
  double deviation() const {
    const double middle = mean();
    double squares = 0;
    for (const double x : eigenvalues) squares += (x - middle) * (x - middle);
    return std::sqrt(squares / static_cast<double>(eigenvalues.size()));
  }
  /// Q-BERT's measure of what rounding costs: |mean| + deviation (Shen et al. 2020).
  double sensitivity() const { return std::abs(mean()) + deviation(); }
};

/// Sensitivities of the blocks of model `M`, made by hessian_sensitivities().
template <class M>
struct hessian_statistics {
  using model = M;
  hessian_blocks by = hessian_blocks::layers;
  std::vector<hessian_block> blocks{};  ///< in the order of M::visit()
};

namespace detail {

/// A form whose leaves say which part of the model they are.
template <storage::part P>
struct part_tag {
  static constexpr storage::part part = P;
};
template <storage::part P>
struct part_form {
  using matrix = part_tag<P>;
  using vector = part_tag<P>;
};

}  // namespace detail

namespace form {
template <linnet::storage::part Outer, linnet::storage::part P>
struct part_of<linnet::detail::part_form<Outer>, P, void> {
  using type = linnet::detail::part_form<P == linnet::storage::part::any ? Outer : P>;
};
}  // namespace form

namespace detail {

/// The blocks of a model, without eigenvalues.
template <class M>
std::vector<hessian_block> blocks_of(hessian_blocks by) {
  std::vector<hessian_block> all;
  index ordinal = 0;
  typename M::template params<part_form<storage::part::any>> tree{};
  M::visit(
      [&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
        const index tensor = ordinal++;
        if (!info.stored()) return;
        constexpr storage::part role = std::remove_cvref_t<decltype(leaf)>::part;
        const parameter_path& layer = outermost_element(at);
        const std::string name = by == hessian_blocks::roles ? storage::part_name(role)
                                 : by == hessian_blocks::layers && layer.number >= 0 ? layer.str()
                                                                                     : at.str();
        auto found = std::find_if(all.begin(), all.end(),
                                  [&](const hessian_block& one) { return one.name == name; });
        if (found == all.end()) {
          all.push_back({name, by == hessian_blocks::layers ? storage::part::any : role});
          found = all.end() - 1;
        }
        found->tensors.push_back(tensor);
        found->weights += info.size();
      },
      parameter_path{}, tree);
  return all;
}

/// Products of the Hessian of the mean loss of some batches with vectors: a block of it, by central
/// differences of gradients.
template <class M, class T>
class hessian_products {
 public:
  hessian_products(const weights<M, T>& w, const limits& l) : moved_(w.clone()), pass_(moved_, l) {
    if (!valid()) return;
    w.visit([&](const parameter_path&, const tensor_info& info, const auto&) {
      sizes_.push_back(info.size());
    });
    weights_ = numbers_of<const T>(w);
    places_ = numbers_of<T>(moved_);
    slopes_ = numbers_of<T>(pass_.gradient());
  }
  bool valid() const { return moved_.valid() && pass_.valid(); }

  /// Top eigenvalue of a block over the mean loss of batches [first, first + count). NaN if
  /// something is not finite; then, and where batches are missing or unfit, it fails.
  template <class Batches>
  result<double> top(const hessian_block& block, Batches& batches, index first,
                     const hessian_options& how) {
    double squares = 0;
    for (const index tensor : block.tensors)
      for (index i = 0; i < size(tensor); ++i) {
        const auto x = static_cast<double>(weights_[at(tensor)][i]);
        squares += x * x;
      }
    const double length = squares > 0 ? std::sqrt(squares) : 1;
    const double step =
        length * (how.step > 0
                      ? how.step
                      : std::sqrt(static_cast<double>(std::numeric_limits<T>::epsilon())) / 3);
    result<void> fit;
    const auto found = top_eigenvalue(
        block.weights,
        [&](std::span<const double> v, std::span<double> to) {
          std::fill(to.begin(), to.end(), 0.0);
          for (const double way : {step, -step}) {
            move(block, v, way);
            if (fit) fit = add(block, batches, first, how, way, to);
          }
        },
        how.eigenvalue);
    move(block, {}, 0);
    if (!fit) return fit.error();
    if (!is_finite(found.value))
      return failure(errc::invalid, where, block.name, "a finite gradient", "a NaN or an infinity");
    return found.value;
  }

  static constexpr const char* where = "hessian_sensitivities";

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  index size(index tensor) const { return sizes_[at(tensor)]; }

  /// Moves the weights of a block to w + way v, or back to w.
  void move(const hessian_block& block, std::span<const double> v, double way) {
    pass_.on_threads([&](const ops::execution& on) {
      index begin = 0;
      for (const index tensor : block.tensors) {
        const T* const from = weights_[at(tensor)];
        T* const to = places_[at(tensor)];
        const auto [first, last] = on.threads.range(size(tensor));
        for (index i = first; i < last; ++i)
          to[i] = way == 0 ? from[i]
                           : static_cast<T>(static_cast<double>(from[i]) + way * v[at(begin + i)]);
        begin += size(tensor);
      }
    });
    pass_.pack();
  }
  /// Adds the gradient of the mean loss, over twice the way.
  template <class Batches>
  result<void> add(const hessian_block& block, Batches& batches, index first,
                   const hessian_options& how, double way, std::span<double> to) {
    pass_.clear();
    index tokens = 0;
    for (index i = first; i < first + how.batches; ++i) {
      const typename M::batch b = batches(i);
      if (b.batch == 0)
        return failure(errc::invalid, where, "batches",
                       std::to_string(how.subsets * how.batches) +
                           " (hessian_options.subsets times hessian_options.batches)",
                       std::to_string(i));
      if (auto fit = pass_.refused(where, i, b); !fit) return fit;
      tokens += pass_.add(b).tokens;
    }
    if (tokens == 0)
      return failure(errc::invalid, where, "batch " + std::to_string(first), "a label", "none");
    const double share = 1 / (2 * way * static_cast<double>(tokens));
    pass_.on_threads([&](const ops::execution& on) {
      index begin = 0;
      for (const index tensor : block.tensors) {
        const T* const g = slopes_[at(tensor)];
        const auto [start, end] = on.threads.range(size(tensor));
        for (index i = start; i < end; ++i) to[at(begin + i)] += static_cast<double>(g[i]) * share;
        begin += size(tensor);
      }
    });
    return {};
  }

  weights<M, T> moved_;
  gradient_pass<M, T> pass_;
  std::vector<index> sizes_;
  std::vector<const T*> weights_;
  std::vector<T*> places_, slopes_;
};

}  // namespace detail

/// Bytes that hessian_sensitivities() takes at a time, but for a few names. They are a trainer's
/// panels, gradients and buffers, a copy of the weights, and two doubles for each weight of the
/// largest block.
template <class M, class T = float>
index hessian_footprint(const limits& l, const hessian_options& how = {}) {
  index most = 0;
  for (const hessian_block& one : detail::blocks_of<M>(how.blocks))
    most = (std::max)(most, one.weights);
  return add_sizes(detail::gradient_pass<M, T>::footprint(l),
                   add_sizes(weights<M, T>::bytes(), multiply_sizes(most, 2 * sizeof(double))));
}

/// Finds the top eigenvalues of the Hessian of each block of `w`, on several subsets of a text
/// (Q-BERT, Shen et al. 2020). It takes them by power iteration. Norms, biases and position tables
/// are in no block. The loss is the mean over labels, without dropout. Products of the Hessian are
/// central differences of gradients, in the scalar of `w`: each takes two training passes over a
/// subset. `batches(i)` returns batch number i, and the same each time; subset s has batches [s, s
/// + 1) * hessian_options::batches. Results are the same for any number of threads. Errors:
/// errc::invalid for options, limits, weights or a batch that do not fit, for too few batches, and
/// for gradients that are not finite; errc::out_of_memory.
template <class M, class T, class Batches>
result<hessian_statistics<M>> hessian_sensitivities(const weights<M, T>& w, Batches&& batches,
                                                    const limits& l,
                                                    const hessian_options& how = {}) LINNET_TRY {
  using products = detail::hessian_products<M, T>;
  if (auto fit = detail::acceptable(products::where, "hessian_options", how); !fit)
    return fit.error();
  const index needed = hessian_footprint<M, T>(l, how);
  if (auto fit = detail::acceptable<M>(products::where, l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, products::where); !fit) return fit.error();
  products hessian(w, l);
  if (!hessian.valid()) return detail::out_of_memory(products::where, needed);
  hessian_statistics<M> made{how.blocks, detail::blocks_of<M>(how.blocks)};
  for (hessian_block& block : made.blocks)
    for (index subset = 0; subset < how.subsets; ++subset) {
      const auto top = hessian.top(block, batches, subset * how.batches, how);
      if (!top) return top.error();
      block.eigenvalues.push_back(*top);
    }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("hessian_sensitivities")

LINNET_NAMESPACE_END
