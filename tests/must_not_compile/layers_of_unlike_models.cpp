// SPDX-License-Identifier: MIT
// Layers are compared that are there, as many on both sides, by states of one width.
// lines: 165, twelve refusals
// expect: name layers from 0 on, in their order, each once
// expect: a decoder, a T5, or an encoder with a head of labels
// expect: the states have unlike widths; give the student filters
// expect: student and teacher show unlike numbers of layers
// expect: the teacher has no such layer; the first is 0
// expect: the teacher's layers are no multiple of the student's
// expect: the teacher's filters say its layers already
// expect: student and teacher are both decoders, both T5s, or both encoders with labels
// expect: filtered<Model, 0, layers...> has no filters
// expect: layers of an encoder learn those of an encoder
// expect: T5 is not probed: its source has no labels
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape_of(ln::index width, ln::index layers) {
  return {.d_model = width,
          .d_ff = 16,
          .heads = 2,
          .kv_heads = 1,
          .layers = layers,
          .vocabulary = 10,
          .context = 8};
}
using narrow = ln::decoder<shape_of(8, 2)>;
using wide = ln::decoder<shape_of(16, 4)>;
using deep = ln::decoder<shape_of(8, 3)>;
using text = ln::encoder<ln::encoder_shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 2, .vocabulary = 10, .context = 8}>;
using no_labels = text::with_head<ln::head::contrastive<>>;
using both = ln::t5<ln::t5_shape{.d_model = 8,
                                 .d_ff = 16,
                                 .d_kv = 4,
                                 .heads = 2,
                                 .encoder_layers = 1,
                                 .decoder_layers = 1,
                                 .vocabulary = 10}>;
using student = ln::filtered<narrow, 16, 0, 1>;
template <class T>
constexpr bool there = sizeof(T) > 0;
static_assert(there<ln::layer_distillation<student, wide>>);
static_assert(there<ln::layer_distillation<student, wide, 0, 3>>);
static_assert(there<ln::layer_distillation<student, ln::filtered<wide, 16, 0, 1>>>);
static_assert(there<ln::filter_probe<student>>);
static_assert(there<ln::layer_distillation<both, both>>);
#if defined(LINNET_FAIL)
static_assert(there<ln::filtered<narrow, 16, 1, 0>>);
static_assert(there<ln::filtered<no_labels, 16, 1>>);
static_assert(there<ln::layer_distillation<narrow, wide>>);
static_assert(there<ln::layer_distillation<student, wide, 3>>);
static_assert(there<ln::layer_distillation<student, wide, 3, 4>>);
static_assert(there<ln::layer_distillation<narrow, deep>>);
static_assert(there<ln::layer_distillation<student, ln::filtered<wide, 16, 0, 1>, 2, 3>>);
static_assert(there<ln::layer_distillation<text, narrow>>);
static_assert(there<ln::layer_distillation<both, narrow>>);
static_assert(there<ln::filter_probe<ln::filtered<narrow, 0, 0, 1>>>);
static_assert(there<ln::layer_distillation<ln::filtered<both, 8, 0>, both, 1>>);
static_assert(there<ln::filter_probe<ln::filtered<both, 8, 1>>>);
#endif
