// SPDX-License-Identifier: MIT
#include "train_kind.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <variant>

#include "support.hpp"

namespace zoo {

namespace {

/// The C++ of an adapter, whose matrices are named on the command line.
std::string adapter_of(const train_options& o) {
  if (o.prompt > 0) return adapter_start("prompt", o.prompt);
  if (o.prefix > 0) return adapter_start("prefix", o.prefix);
  if (o.bottleneck > 0) return adapter_start("bottleneck", o.bottleneck);
  std::string targets;
  const auto is_name = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  };
  for (std::string_view rest = o.lora_target; o.lora_target != "all" && !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find(','));
    if (name.empty() || !std::all_of(name.begin(), name.end(), is_name))
      throw failure(
          fmt::format("--lora-target {}: expected all, or ends of matrices' names such as "
                      "q,v or attention.o,up",
                      o.lora_target));
    targets += fmt::format("{}\"{}\"", targets.empty() ? "" : ", ", name);
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
  }
  return fmt::format("zoo::with_adapter<ln::lora<{}{}>{}>", std::max(o.lora, o.qlora),
                     targets.empty() ? "" : ", ln::target_modules<" + targets + ">",
                     o.qlora > 0 ? ", ln::storage::nf4_double" : "");
}

/// The C++ of how a student begins and learns; refuses what its teacher has not got to match.
std::string lesson_start(const train_options& o, const model_spec& student,
                         const model_spec& teacher) {
  if (o.match.empty()) return "zoo::from_teacher<teacher::Model>";
  static constexpr std::string_view known[] = {"hidden", "cosine", "ted", "relations", "minilm"};
  check_name("match", o.match, known);
  if (student.encodes() && o.match == "ted")
    throw failure(
        "--match ted: is of decoders and encoders, as a source has no labels that the filters of a "
        "T5's encoder could learn; encoder-decoders take hidden, cosine, relations or minilm");
  if (o.divergence != "cross_entropy")
    throw failure(
        fmt::format("--match {}: --divergence {} is of learning from logits alone; leave it out",
                    o.match, o.divergence));
  const bool ted = o.match == "ted", states = ted || o.match == "hidden" || o.match == "cosine";
  const auto check = [&](std::string_view what, ln::index own, ln::index its) {
    if (states && own > its)
      throw failure(fmt::format("--match {}: {} has {} {}layers, more than the {} of its teacher",
                                o.match, student.name(), own, what, its));
  };
  if (const auto* const own = std::get_if<ln::decoder_shape>(&student.shape))
    check("", own->layers, std::get<ln::decoder_shape>(teacher.shape).layers);
  if (const auto* const own = std::get_if<ln::encoder_shape>(&student.shape))
    check("", own->layers, std::get<ln::encoder_shape>(teacher.shape).layers);
  if (const auto* const own = std::get_if<ln::t5_shape>(&student.shape)) {
    const auto& its = std::get<ln::t5_shape>(teacher.shape);
    check("encoder ", own->encoder_layers, its.encoder_layers);
    check("decoder ", own->decoder_layers, its.decoder_layers);
  }
  return ted      ? "zoo::from_teacher_ted<teacher::Model>"
         : states ? "zoo::from_teacher_states<teacher::Model>"
                  : "zoo::from_teacher_relations<teacher::Model>";
}

}  // namespace

model_spec model_of(const train_options& o, const beginning* from) {
  if (from && !o.taught) return from->model;
  model_spec model = parse_model("model", o.model, true);
  model.masked = model.embeds();
  if (!from) return model;
  if (model.family() != from->model.family())
    throw failure(fmt::format("--model {}: {} is of another family, which cannot teach it", o.model,
                              from->model.name()));
  model = with_vocabulary(model, from->model.vocabulary());
  if (model.vocabulary() != from->model.vocabulary())
    throw failure(fmt::format("--model {}: a vocabulary of {}, but that of the teacher {} is {}",
                              o.model, model.vocabulary(), from->model.name(),
                              from->model.vocabulary()));
  return model;
}

module_kind kind_of(const train_options& o, const model_spec& model, const beginning* from) {
  module_kind kind{o.ffn, o.optimizer, o.compute};
  kind.on_ranks = o.parts > 0;
  if (from) kind.start = "zoo::from_file";
  const bool stays = o.prompt > 0 || o.prefix > 0 || o.bottleneck > 0;
  if (stays && model.embeds())
    throw failure(fmt::format(
        "--{}: an encoder's vectors are those of its weights alone, and this adapter cannot be "
        "merged into them; take --lora or --qlora",
        o.prompt > 0   ? "prompt"
        : o.prefix > 0 ? "prefix"
                       : "bottleneck"));
  if (o.lora > 0 || o.qlora > 0 || stays) {
    if (o.compute != "f32")
      throw failure(fmt::format("--compute {}: adapters are trained in f32", o.compute));
    kind.start = adapter_of(o);
  }
  if (!o.taught) return kind;
  kind.start = lesson_start(o, model, from->model);
  kind.before = fmt::format("namespace teacher {{\n{}using Model = {};\n}}\n\n",
                            from->model.declarations(), from->model.type(from->ffn));
  return kind;
}

}  // namespace zoo
