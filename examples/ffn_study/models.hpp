// SPDX-License-Identifier: MIT
#pragma once
// The models of the report as data: a shape and a recipe of what is changed in it. Only
// built_from<> makes types of them.

#include <array>
#include <linnet/compress/collapse.hpp>
#include <linnet/model/presets.hpp>
#include <string_view>

namespace study {

namespace ln = linnet;

/// ByT5's bytes and special ids, and sentinels.
inline constexpr ln::index byte_vocabulary = 384;

/// Whether the program trains T5's true shapes (scale paper) or scaled-down ones (all others).
#ifdef FFN_STUDY_TRUE_SHAPES
inline constexpr bool true_shapes = true;
#else
inline constexpr bool true_shapes = false;
#endif
inline constexpr std::string_view sizes_trained = true_shapes ? "full-size" : "scaled-down";
/// Of the models that are trained: T5's pieces with their true shapes, else bytes.
inline constexpr ln::index trained_vocabulary =
    true_shapes ? ln::zoo::shapes::t5_vocabulary : byte_vocabulary;

/// The feed-forwards of the report's Figure 3.1.
enum class ffn_kind { standard, skip, one, one_relu, two, three };

/// What is changed in a T5.
struct recipe {
  ffn_kind encoder = ffn_kind::standard;
  ffn_kind decoder = ffn_kind::standard;
  ln::expansion expansion{4};  ///< inner width of 2W and 3W over d_model
  ln::index heads_percent = 100;
  ln::index width_percent = 100;  ///< of each head
};

/// Every model of the report's tables by its name in results and on the command line.
enum class model {
  mini,
  skip,
  skip_encoder,
  heads,
  width,
  heads_width,
  one,
  one_relu,
  two,
  three,
  three_2,
  three_1_5,
  three_1_2,
  tiny,
  small,
  base
};
inline constexpr std::array<std::string_view, 16> model_names{
    "mini",   "skip",    "skip-encoder", "heads-1.5", "width-2", "heads-1.5-width-2",
    "1w",     "1w-relu", "2w",           "3w",        "3w-2",    "3w-1.5",
    "3w-1.2", "tiny",    "small",        "base"};
constexpr std::string_view name_of(model m) { return model_names[static_cast<std::size_t>(m)]; }
/// The model that a job's name begins with, as "small.s1" with small; the longest that fits.
constexpr model model_of(std::string_view job) {
  std::size_t found = 0, longest = 0;
  for (std::size_t i = 0; i < model_names.size(); ++i)
    if (job.starts_with(model_names[i]) && model_names[i].size() > longest) {
      found = i;
      longest = model_names[i].size();
    }
  return static_cast<model>(found);
}
/// The models of one shape, T5-Mini's; after them come other sizes.
inline constexpr std::size_t ablations = 13;
/// Whether a model's cost is measured: all of that shape but 3W's inner widths below 4, which
/// deploy as 1W like the others and differ before as their exact figures do.
constexpr bool has_measured_cost(model m) {
  return m != model::three_2 && m != model::three_1_5 && m != model::three_1_2 &&
         static_cast<std::size_t>(m) < ablations;
}

constexpr recipe recipe_of(model m) {
  const auto everywhere = [](ffn_kind kind, ln::expansion e = ln::expansion{4}) {
    return recipe{.encoder = kind, .decoder = kind, .expansion = e};
  };
  switch (m) {
    case model::skip:
      return everywhere(ffn_kind::skip);
    case model::skip_encoder:
      return {.encoder = ffn_kind::skip};
    case model::heads:
      return {.heads_percent = 150};
    case model::width:
      return {.width_percent = 200};
    case model::heads_width:
      return {.heads_percent = 150, .width_percent = 200};
    case model::one:
      return everywhere(ffn_kind::one);
    case model::one_relu:
      return everywhere(ffn_kind::one_relu);
    case model::two:
      return everywhere(ffn_kind::two);
    case model::three:
      return everywhere(ffn_kind::three);
    case model::three_2:
      return everywhere(ffn_kind::three, ln::expansion{2});
    case model::three_1_5:
      return everywhere(ffn_kind::three, ln::expansion{1.5});
    case model::three_1_2:
      return everywhere(ffn_kind::three, ln::expansion{1.2});
    default:
      return {};
  }
}

/// The recipe after collapsing: 2W and 3W are 1W.
constexpr recipe deployed(recipe r) {
  const auto one = [](ffn_kind kind) {
    return kind == ffn_kind::two || kind == ffn_kind::three ? ffn_kind::one : kind;
  };
  return {one(r.encoder), one(r.decoder), ln::expansion{4}, r.heads_percent, r.width_percent};
}
constexpr bool collapses(recipe r) {
  return deployed(r).encoder != r.encoder || deployed(r).decoder != r.decoder;
}

constexpr ln::t5_shape shape_with(ln::t5_shape s, recipe r) {
  s.heads = s.heads * r.heads_percent / 100;
  s.d_kv = s.d_kv * r.width_percent / 100;
  return s;
}

namespace detail {
template <ffn_kind Kind, ln::expansion E>
struct ffn_of {
  using type = ln::ffn::reparam<Kind == ffn_kind::two ? 2 : 3, E>;
};
template <ln::expansion E>
struct ffn_of<ffn_kind::standard, E> {
  using type = ln::ffn::relu;
};
template <ln::expansion E>
struct ffn_of<ffn_kind::skip, E> {
  using type = ln::ffn::skip;
};
template <ln::expansion E>
struct ffn_of<ffn_kind::one, E> {
  using type = ln::ffn::linear;
};
template <ln::expansion E>
struct ffn_of<ffn_kind::one_relu, E> {
  using type = ln::ffn::linear_relu;
};
}  // namespace detail

/// The type of a T5 of this shape, changed by this recipe.
template <ln::t5_shape Shape, recipe R>
using built_from = typename ln::t5<shape_with(
    Shape, R)>::template with_ffn<typename detail::ffn_of<R.encoder, R.expansion>::type,
                                  typename detail::ffn_of<R.decoder, R.expansion>::type>;

}  // namespace study
