// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Rotations of the residual stream and of values that spread outliers over all channels, folded
/// into the weights (Ashkboos et al. 2024).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/channel_map.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/t5.hpp>
#include <linnet/ops/hadamard.hpp>

LINNET_NAMESPACE_BEGIN

/// Random Hadamard rotations (QuaRot, Ashkboos et al. 2024, arXiv:2404.00456), a method of
/// rotate(). Where no Hadamard matrix of the width is known, blocks of channels are rotated.
struct quarot {
  std::uint64_t seed = 1;  ///< of the random signs
  bool heads = true;       ///< whether values are rotated, too, head by head

  static constexpr const char* name = "quarot";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("heads", self.heads, detail::one_of(detail::false_or_true));
  }

  /// One rotation of rows of `width` numbers.
  class rotation {
   public:
    /// Number `stream` of a seed.
    rotation(const quarot& how, index width, index stream)
        : signs_(static_cast<std::size_t>(width)) {
      random_stream random(linnet::seed{how.seed}, static_cast<std::uint64_t>(stream));
      for (double& s : signs_) s = random.bits() % 2 ? 1 : -1;
    }
    /// Rotates a row in place.
    void operator()(double* x) const {
      for (std::size_t j = 0; j < signs_.size(); ++j) x[j] *= signs_[j];
      ops::hadamard_row(simd::level::portable, std::ssize(signs_), x, false);
    }

   private:
    std::vector<double> signs_;
  };
};

namespace detail {

/// A model with a head of its own, which reads the table's rows times `factor` to begin with.
template <class M>
struct untied_model {
  using type = M;
};
template <class M>
requires(is_decoder<M>&& M::tied) struct untied_model<M> {
  static_assert(!M::factorised,
                "linnet::rotate: a tied head that goes back through a factorised embedding has no "
                "matrix of its own; give the model tie::untied");
  using type = typename M::template with<tie::policy, tie::untied>;
  static constexpr double factor = 1;
};
template <t5_shape Shape, class E, class D, class EA, class DA, class Norm, class Storage,
          class Cache, class Arithmetic>
struct untied_model<t5_model<Shape, E, D, EA, DA, Norm, tie::tied, Storage, Cache, Arithmetic>> {
  using type = t5_model<Shape, E, D, EA, DA, Norm, tie::untied, Storage, Cache, Arithmetic>;
  static constexpr double factor = 1 / sqrt(Shape.d_model);
};

/// Rotates what one side of a tensor keeps of its channels, `block` of them at a time.
template <class T, class Rotation>
void rotate_side(const channel_side<T>& side, index block, const Rotation& rotation) {
  std::vector<double> x(static_cast<std::size_t>(side.length()));
  for (index i = 0; i < side.depth(); ++i) {
    for (index j = 0; j < side.length(); ++j)
      x[static_cast<std::size_t>(j)] = static_cast<double>(side.at(j, i));
    for (index j = 0; j < side.length(); j += block) rotation(x.data() + j);
    for (index j = 0; j < side.length(); ++j)
      side.at(j, i) = static_cast<T>(x[static_cast<std::size_t>(j)]);
  }
}
/// Why the weights of norms cannot move into the matrices behind them, or null.
template <class T>
const char* keeps_gains(const channel_set<T>& set) {
  if (set.unmixed) return set.unmixed;
  if (set.fixed) return set.fixed;
  if (set.read_by_norm) return "a norm of a norm";
  for (const auto& side : set.writers) {
    if (side.kind != role::scale) return "a sum of a norm and something else";
    const T* const end = side.data + set.width;
    if (std::mismatch(static_cast<const T*>(side.data), end, set.writers[0].data).first != end)
      return "norms of unlike weights before a matrix that they share";
  }
  return nullptr;
}

/// Channels that one rotation turns, `block` at a time, and all sides of tensors that keep them.
template <class T>
struct turn {
  index block = 0;
  std::vector<channel_side<T>> sides{};
};
/// The streams of a model, and its values if `heads`, ready to be rotated: the weights of norms
/// are in the matrices behind them. Errors: errc::invalid for a stream that something else reads.
template <class T>
result<std::vector<turn<T>>> prepare_turns(const channel_map<T>& map, bool heads) {
  const auto& sets = map.sets();
  const auto refuse = [](const char* why) {
    return error{errc::invalid, "rotate", "the residual stream",
                 "one that only matrices and RMSNorms read and write", why};
  };
  bool any = false;
  for (index s = 0; s < std::ssize(sets); ++s) {
    const auto& stream = sets[static_cast<std::size_t>(s)];
    if (!stream.read_by_norm) continue;
    if (stream.normalised >= 0) return refuse("a norm that writes it");
    if (stream.unmixed) return refuse(stream.unmixed);
    for (const auto& set : sets)
      if (set.normalised == s)
        if (const char* const why = keeps_gains(set)) return refuse(why);
    any = true;
  }
  if (!any) return refuse("no norm that says so");
  std::vector<turn<T>> turns;
  for (index s = 0; s < std::ssize(sets); ++s) {
    const auto& stream = sets[static_cast<std::size_t>(s)];
    const bool values = heads && stream.head > 0 && !stream.unmixed && !stream.fixed;
    if (!stream.read_by_norm && !values) continue;
    turn<T> one{values ? stream.head : stream.width};
    const auto add = [&](const channel_set<T>& set) {
      for (const auto* const sides : {&set.writers, &set.readers})
        for (const auto& side : *sides)
          if (side.kind != role::scale) one.sides.push_back(side);
    };
    add(stream);
    for (const auto& set : sets)
      if (set.normalised == s) {
        fold_gains(set);
        add(set);
      }
    turns.push_back(std::move(one));
  }
  return turns;
}

/// `w` with a head of its own.
template <class M, class T>
weights<typename untied_model<M>::type, T> untie(const weights<M, T>& w) {
  using way = untied_model<M>;
  if constexpr (std::is_same_v<typename way::type, M>) {
    return w.clone();
  } else {
    auto apart = made_of<weights<typename way::type, T>>(w);
    if (!apart.valid()) return apart;
    copy_tensors<M>(w.tree(), apart.tree());  // without the new head
    T* const head = apart.tree().head.data;
    for (index i = 0; i < M::vocabulary * M::d; ++i)
      head[i] = static_cast<T>(static_cast<double>(w.tree().embedding.data[i]) * way::factor);
    return apart;
  }
}

}  // namespace detail

/// The model type that rotate() makes: a tied head becomes one of its own, as the final norm's
/// weights move into it.
template <class M>
using rotated = typename detail::untied_model<M>::type;

/// Rotates the residual stream of `w`, and values head by head. The weights of its RMSNorms move
/// into the matrices behind them first. The result computes the function of `w`, up to rounding of
/// its numbers. Hidden states of sessions are rotated, too. Errors: errc::invalid for options and
/// weights that are not finite. Also for a model whose stream something else reads than matrices
/// and RMSNorms, which is named; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<rotated<M>, T>> rotate(const weights<M, T>& w, const quarot& how = {}) LINNET_TRY {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::rotate: rotate first, quantize afterwards");
  static_assert(detail::has_channels<M>,
                "linnet::rotate: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (auto fit = detail::acceptable("rotate", quarot::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "rotate"); !fit) return fit.error();
  auto turned = detail::untie(w);
  if (!turned.valid()) return turned.error();
  const detail::channel_map<T> map(turned);
  const auto turns = detail::prepare_turns(map, how.heads);
  if (!turns) return turns.error();
  for (const auto& one : *turns) {
    const quarot::rotation rotation(how, one.block, &one - turns->data());
    for (const auto& side : one.sides) detail::rotate_side(side, one.block, rotation);
  }
  return turned;
}
LINNET_OR_OUT_OF_MEMORY("rotate")

LINNET_NAMESPACE_END
