// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The types that narrow() makes, and the rules that their shapes keep.

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>

#include <linnet/model/decoder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The widths and counts of a shape that narrow() may make smaller.
constexpr auto cut_numbers(const decoder_shape& s) {
  return std::array<index, 5>{s.d_model, s.d_ff, s.heads, s.kv_heads, s.layers};
}
constexpr auto cut_numbers(const encoder_shape& s) {
  return std::array<index, 5>{s.d_model, s.d_ff, s.heads, s.heads, s.layers};
}
constexpr auto cut_numbers(const t5_shape& s) {
  return std::array<index, 6>{s.d_model,           s.d_ff,           s.heads,
                              s.key_value_heads(), s.encoder_layers, s.decoder_layers};
}
/// Query heads of each head of keys and values.
constexpr index queries_per_kv(const decoder_shape& s) {
  return s.kv_heads > 0 && s.heads % s.kv_heads == 0 ? s.heads / s.kv_heads : 0;
}
constexpr index queries_per_kv(const t5_shape& s) {
  return s.key_value_heads() > 0 && s.heads % s.key_value_heads() == 0
             ? s.heads / s.key_value_heads()
             : 0;
}
template <class Shape>
constexpr index queries_per_kv(const Shape&) {
  return 1;
}
constexpr index head_width_of(const t5_shape& s) { return s.d_kv; }
template <class Shape>
constexpr index head_width_of(const Shape& s) {
  return s.head_width();
}
/// Whether shapes have all other numbers in common, but for eps and d_kv.
constexpr bool same_rest(const decoder_shape& a, const decoder_shape& b) {
  return a.vocabulary == b.vocabulary && a.context == b.context && a.rope_theta == b.rope_theta;
}
constexpr bool same_rest(const encoder_shape& a, const encoder_shape& b) {
  return a.vocabulary == b.vocabulary && a.context == b.context && a.types == b.types &&
         a.position_offset == b.position_offset && a.rope_theta == b.rope_theta;
}
constexpr bool same_rest(const t5_shape& a, const t5_shape& b) {
  return a.vocabulary == b.vocabulary && a.buckets == b.buckets && a.max_distance == b.max_distance;
}

/// Whether a model has narrower shapes, of this type.
template <class M, auto Shape>
concept takes_shape = requires {
  typename M::template with_shape<M::shape>;
  requires std::is_same_v<std::remove_cvref_t<decltype(Shape)>,
                          std::remove_cvref_t<decltype(M::shape)>>;
};

/// The eps that means for `d` channels of model `M` what its own means. The mean square of an
/// RMSNorm is of fewer numbers, and grows.
template <class M>
constexpr double narrowed_eps(index d) {
  if (!std::is_same_v<typename M::norm, norm::rms> || d < 1) return M::shape.eps;
  return M::shape.eps * (static_cast<double>(M::shape.d_model) / static_cast<double>(d));
}
/// The shape that narrow() gives model `M`: heads keep their width.
template <class M, auto Shape>
constexpr auto narrowed_shape() {
  auto s = Shape;
  if (s.d_kv == 0 && head_width_of(s) != head_width_of(M::shape)) s.d_kv = head_width_of(M::shape);
  if (s.eps == M::shape.eps) s.eps = narrowed_eps<M>(s.d_model);
  return s;
}
/// Words for what keeps `Shape` from being a smaller one of model `M`, unless `Quiet`; true where
/// nothing does. The shape may be the model's where `Same`.
template <class M, auto Shape, bool Quiet = false, bool Same = false>
constexpr bool narrows() {
  if constexpr (!takes_shape<M, Shape>) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: the shape must be of the model's family, a decoder_shape, "
                  "encoder_shape or t5_shape; other families have no narrower shape");
  } else {
    constexpr auto from = cut_numbers(M::shape), to = cut_numbers(Shape);
    constexpr bool fewer = [](auto a, auto b) {
      for (std::size_t i = 0; i < a.size(); ++i)
        if (b[i] > a[i] || b[i] < 1) return false;
      return true;
    }(from, to);
    constexpr auto made = narrowed_shape<M, Shape>();
    if constexpr (!fewer)
      static_assert(Quiet || never<M>,
                    "linnet::narrow: d_model, d_ff, heads and layers must be given, and none may "
                    "be larger than the model's");
    else if constexpr (from == to && !Same)
      static_assert(Quiet || never<M>,
                    "linnet::narrow: the shape is no narrower than the model's; make d_model, "
                    "d_ff, heads or layers smaller");
    else if constexpr (!same_rest(M::shape, Shape))
      static_assert(Quiet || never<M>,
                    "linnet::narrow: vocabulary, context and the numbers of positions must be the "
                    "model's");
    else if constexpr (queries_per_kv(M::shape) != queries_per_kv(Shape))
      static_assert(Quiet || never<M>,
                    "linnet::narrow: heads go in whole groups: heads / kv_heads must be the "
                    "model's");
    else if constexpr (head_width_of(made) != head_width_of(M::shape))
      static_assert(Quiet || never<M>,
                    "linnet::narrow: heads keep their width: give d_kv of the model, or 0");
    else if constexpr (made.eps != narrowed_eps<M>(made.d_model))
      static_assert(Quiet || never<M>, "linnet::narrow: eps must be the model's");
    else
      return true;
  }
  return false;
}
template <class M, auto Shape, bool Fits = narrows<M, Shape>()>
struct narrowed_model {
  using type = typename M::template with_shape<narrowed_shape<M, Shape>()>;
};
/// Stands in for what was refused, so that nothing is said of it again.
template <class M, auto Shape>
struct narrowed_model<M, Shape, false> {
  using type = M;
};

}  // namespace detail

/// The numbers of one layer that is left by narrow(): the neurons of its feed-forward, and query
/// heads, of which 0 stands for the shape's. A plain number is that of neurons.
struct layer_width {
  index d_ff, heads;
  /// From plain numbers.
  constexpr layer_width(index neurons, index query_heads = 0) : d_ff(neurons), heads(query_heads) {}
};

namespace detail {

/// A model whose blocks take a width of their feed-forward each, as a decoder's do.
template <class M>
concept takes_layer_widths = requires {
  typename M::template block_of_shape<M::shape.d_ff, M::self>;
  requires ffn_of_layers<typename M::ffn>::type::has_output_map;
  requires std::is_same_v<typename M::sharing, sharing::none> && !M::depths::routes;
};
/// M with one width and one number of heads for all layers, the largest.
template <class M>
struct of_even_width {
  using type = M;
};
template <class M>
requires unlike_widths<typename M::ffn, typename M::attention>
struct of_even_width<M> {
  using type =
      typename M::template with_ffn<typename ffn_of_layers<typename M::ffn>::type>::template with<
          attention::policy, typename attention_of_layers<typename M::attention>::type>;
};
/// Query heads of a layer in a shape that has `same` of them.
constexpr index heads_left(layer_width of, index same) { return of.heads > 0 ? of.heads : same; }
/// `Shape` with the widest of some widths and the most of their heads.
template <auto Shape, layer_width... Widths>
constexpr auto shape_of_widths() {
  auto s = Shape;
  s.d_ff = (std::max)({Widths.d_ff...});
  const index most = (std::max)({heads_left(Widths, s.heads)...});
  if constexpr (requires { s.kv_heads; })
    if (s.heads > 0) s.kv_heads = most * s.kv_heads / s.heads;
  s.heads = most;
  return s;
}
/// Whether each layer keeps the heads of whole groups of model `M`.
template <class M, layer_width... Widths>
constexpr bool whole_groups() {
  return ((Widths.heads % (M::shape.heads / M::shape.kv_heads) == 0) && ...);
}
/// Words for what keeps widths from being those of the layers of model `M` in a smaller shape,
/// unless `Quiet`; true where nothing does. Without widths, see narrows().
template <class M, auto Shape, bool Quiet, layer_width... Widths>
constexpr bool narrows_by_layer() {
  if constexpr (sizeof...(Widths) == 0) {
    return narrows<M, Shape, Quiet>();
  } else if constexpr (!takes_layer_widths<M>) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: widths by layer are those of a decoder with a standard or gated "
                  "feed-forward, sharing::none and depths::all; give d_ff of the shape alone");
  } else if constexpr (!requires { requires sizeof...(Widths) == Shape.layers; }) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: give one width for each of the shape's layers, or d_ff alone");
  } else if constexpr (!((Widths.d_ff > 0 && Widths.heads >= 0) && ...)) {
    static_assert(Quiet || never<M>, "linnet::narrow: widths of layers must be positive");
  } else if constexpr (!((Widths.heads == 0) && ...) &&
                       !(M::attention::supports_low_rank || M::attention::heads_by_layer)) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: heads by layer are those of attention::full, prefix, "
                  "sliding_window and sinks; give heads of the shape alone");
  } else if constexpr (!whole_groups<M, Widths...>()) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: heads go in whole groups: those of each layer must be a "
                  "multiple of the model's heads / kv_heads");
  } else {
    return narrows<typename of_even_width<M>::type, shape_of_widths<Shape, Widths...>(), Quiet,
                   true>();
  }
  return false;
}
/// `M` with heads of its layers, where these are not all the same.
template <class M, index... Heads>
struct with_heads_of_layers {
  using type =
      typename M::template with_attention<attention::per_layer<typename M::attention, Heads...>>;
};
template <class M, index... Heads>
requires(((Heads == M::shape.heads) && ...))  //
    struct with_heads_of_layers<M, Heads...> {
  using type = M;
};
/// The model with layers of these widths and heads, its feed-forwards by layer or as they are.
template <class M, auto Shape, bool FfnByLayer, layer_width... Widths>
struct model_of_layers {
  using even = typename narrowed_model<typename of_even_width<M>::type,
                                       shape_of_widths<Shape, Widths...>(), true>::type;
  using hidden = std::conditional_t<FfnByLayer, ffn::per_layer<typename even::ffn, Widths.d_ff...>,
                                    typename even::ffn>;
  using type = typename with_heads_of_layers<typename even::template with_ffn<hidden>,
                                             heads_left(Widths, Shape.heads)...>::type;
};
template <bool Fits, class M, auto Shape, layer_width... Widths>
struct model_of_widths {  // stands in for what was refused
  using type = M;
};
template <class M, auto Shape>
struct model_of_widths<true, M, Shape> : narrowed_model<M, Shape, true> {};
template <class M, auto Shape, layer_width First, layer_width... Widths>
struct model_of_widths<true, M, Shape, First, Widths...>
    : model_of_layers<M, Shape, true, First, Widths...> {};

}  // namespace detail

/// The model type that narrow() makes: M of a smaller shape, with the same policies. Its
/// vocabulary, positions and heads' width are those of M: a `d_kv` of 0 stands for that width. With
/// RMSNorm, `eps` is that of M times the ratio of d_model. With `Widths`, one for each layer that
/// is left, a decoder's feed-forwards are ffn::per_layer, and d_ff is the widest. Where their heads
/// differ, its attention is attention::per_layer, and heads are the most.
template <class M, auto Shape, layer_width... Widths>
using narrowed =
    typename detail::model_of_widths<detail::narrows_by_layer<M, Shape, false, Widths...>(), M,
                                     Shape, Widths...>::type;

namespace detail {

/// Words for layers that cannot be the ones that stay; true for others.
template <class M, index... Keep>
constexpr bool fit_layers() {
  constexpr bool once = [] {
    if constexpr (requires { M::sharing::repeats; }) return M::sharing::repeats == 1;
    return true;
  }();
  constexpr bool ordered = [] {
    index before = -1;
    for (const index layer : {Keep..., M::shape.layers}) {
      if (layer <= before) return false;
      before = layer;
    }
    return sizeof...(Keep) > 0;
  }();
  static_assert(once,
                "linnet::drop_layers: blocks of sharing::repeat<n> run several times; narrow() by "
                "scores in importance.layers instead");
  static_assert(ordered,
                "linnet::drop_layers: give the layers that stay, in order, from 0 on and below the "
                "model's");
  return once && ordered;
}
/// The shape of a model with some of its layers.
template <class M, index... Keep>
constexpr auto shape_of_some() {
  auto s = M::shape;
  s.layers = sizeof...(Keep);
  return s;
}
/// The hidden width and the query heads of layer `l`.
template <class M>
constexpr layer_width width_in(index l) {
  const auto at = static_cast<std::size_t>(l);
  return {width_of_layer<typename M::ffn>(at, M::shape.d_ff),
          heads_of_layer<typename M::attention>(at, M::shape.heads)};
}
/// The model with some of its layers.
template <class M, index... Keep>
struct some_layers {
  using type = narrowed<M, shape_of_some<M, Keep...>()>;
};
/// Layers keep widths and heads of their own.
template <class M, index... Keep>
requires unlike_widths<typename M::ffn, typename M::attention>
struct some_layers<M, Keep...>
    : model_of_layers<
          M, shape_of_some<M, Keep...>(),
          !std::is_same_v<typename M::ffn, typename ffn_of_layers<typename M::ffn>::type>,
          width_in<M>(Keep)...> {
};
/// M itself stands in for what was refused.
template <class M, bool Fits, index... Keep>
struct layers_of_model : some_layers<M, Keep...> {};
template <class M, index... Keep>
struct layers_of_model<M, false, Keep...> {
  using type = M;
};

}  // namespace detail

/// The model type that drop_layers() makes.
template <class M, index... Keep>
using with_layers =
    typename detail::layers_of_model<M, detail::fit_layers<M, Keep...>(), Keep...>::type;

LINNET_NAMESPACE_END
