// SPDX-License-Identifier: MIT
// Objectives and writers of texts say which models they take.
// lines: 500, eleven refusals; clang++ goes on behind those of functions
// expect: one to four teachers
// expect: linnet::distilbert: student and teacher are encoders with head::masked_lm
// expect: linnet::distilbert: student and teacher have one width and one vocabulary
// expect: linnet::relation_distillation: student and teacher are both decoders, both encoders or
// expect: linnet::uld: student and teacher have a label for each token
// expect: linnet::top_logits_objective: the student has another vocabulary
// expect: linnet::distillation: these teach a student with another vocabulary
// expect: a model of tokens without a prefix writes the texts
// expect: linnet::generate_texts: a decoder of tokens writes the texts
// expect: linnet::fuse_weights: the weights are floats; quantize afterwards
// expect: linnet::session_teacher: a model of tokens writes the answers
#include <linnet/generated_data.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
constexpr ln::decoder_shape other_shape = [] {
  ln::decoder_shape s = shape;
  s.vocabulary = 11;
  return s;
}();
using model = ln::decoder<shape>;
using other = ln::decoder<other_shape>;
using t5 = ln::t5<ln::t5_shape{.d_model = 8,
                               .d_ff = 16,
                               .d_kv = 4,
                               .heads = 2,
                               .encoder_layers = 1,
                               .decoder_layers = 1,
                               .vocabulary = 10}>;
constexpr ln::encoder_shape text_shape(ln::index width) {
  return {.d_model = width, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 8};
}
using text = ln::encoder<text_shape(8)>;
using label = text::with_head<ln::head::sequence_classification<2>>;
using bytes = ln::byte_pooled<shape>;
template <class T>
constexpr bool there = sizeof(T) > 0;
static_assert(there<ln::distillation<model, model, model>>);
static_assert(there<ln::distilbert<text, text>>);
static_assert(there<ln::relation_distillation<model, other>>);
static_assert(there<ln::uld<model, other>>);
static_assert(there<ln::on_policy<model>>);
static_assert(there<ln::session_teacher<model>>);
#if defined(LINNET_FAIL)
static_assert(there<ln::distillation<model, model, model, model, model, model>>);
static_assert(there<ln::distilbert<label, label>>);
static_assert(there<ln::distilbert<text, ln::encoder<text_shape(16)>>>);
static_assert(there<ln::relation_distillation<model, text>>);
static_assert(there<ln::uld<label, label>>);
static_assert(there<ln::on_policy<bytes>>);
static_assert(there<ln::session_teacher<bytes>>);
const auto refuses_rows = &ln::top_logits_objective<model>::refuses<other>;
const auto accepts = &ln::distillation<model, model>::accepts<other>;
auto texts(const ln::packed<t5>& p) { return ln::generate_texts(p, {}); }
using stored = ln::quantized<model, ln::storage::int8>;
auto fused(const ln::weights<stored>& w, std::span<const ln::weights<stored>* const> targets) {
  return ln::fuse_weights<stored, float>(w, targets);
}
#endif
