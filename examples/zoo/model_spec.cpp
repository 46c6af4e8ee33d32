// SPDX-License-Identifier: MIT
#include "model_spec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "shape_numbers.hpp"
#include "support.hpp"

namespace zoo {

namespace {

using decoder_shape = ln::decoder_shape;
using t5_shape = ln::t5_shape;
using encoder_shape = ln::encoder_shape;

constexpr ln::index most = 10'000'000;  // of any number of a shape

/// What a shape on the command line begins with; the rest follows from it, see complete().
constexpr decoder_shape small_decoder{
    .d_model = 128, .heads = 4, .layers = 4, .vocabulary = 0, .context = 256};
constexpr t5_shape small_t5{
    .d_model = 128, .heads = 4, .encoder_layers = 4, .decoder_layers = 4, .vocabulary = 0};
constexpr encoder_shape small_encoder{
    .d_model = 128, .heads = 4, .layers = 4, .vocabulary = 0, .context = 256, .types = 0};

/// Fills in what follows from the other numbers: as wide as Llama's, T5's and BERT's.
void complete(decoder_shape& s) {
  if (s.kv_heads == 0) s.kv_heads = s.heads;
  if (s.d_ff == 0) s.d_ff = (s.d_model * 8 / 3 + 7) / 8 * 8;
}
void complete(t5_shape& s) {
  if (s.d_kv == 0) s.d_kv = s.heads > 0 ? s.d_model / s.heads : 0;
  if (s.d_ff == 0) s.d_ff = 4 * s.d_model;
}
void complete(encoder_shape& s) {
  if (s.d_ff == 0) s.d_ff = 4 * s.d_model;
}

/// A slot of a shape's policies and what can stand there.
struct slot {
  std::string_view name;
  std::vector<std::string_view> known;
};
const slot slots[] = {
    {"norm", {"rms", "layer_norm"}},
    {"position", {"rope", "rope_half", "learned", "sinusoidal", "none"}},
    {"tie", {"tied", "untied"}},
    {"bias", {"none", "all"}},
    {"sharing", {"none", "ffn", "all"}},
    {"ffn", {"swiglu", "relu", "gelu", "gelu_tanh", "gated_gelu", "skip", "linear"}},
};

/// A preset's type in C++.
std::string type_of(std::string_view scope, std::string name) {
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
  return std::string(scope) + name;
}

/// Every name with its shape.
std::vector<model_spec> known_models() {
  std::vector<model_spec> all;
  const auto add = [&]<class M>(std::string_view scope, std::type_identity<M>, std::string name) {
    all.push_back({name, {}, M::shape, type_of(scope, name), {}});
  };
  const auto add_preset = [&]<class M, bool Runs>(preset<M, Runs>, const char* name) {
    add("ln::zoo::", std::type_identity<M>(), name);
  };
  each_t5_preset(add_preset);
  each_decoder_preset(add_preset);
  each_encoder_preset([&]<class M, bool Runs>(preset<M, Runs>, std::string name) {
    add("ln::zoo::", std::type_identity<M>(), name == "minilm" ? "minilm-l6" : name);
    all.back().base = name;
  });
  add("zoo::", std::type_identity<byte_decoder>(), "byte-decoder");
  add("zoo::", std::type_identity<byte_t5>(), "byte-t5");
  return all;
}

/// Sets a number of the shape; false if it has none of that name.
bool set_number(model_spec& m, std::string_view name, const std::string& value) {
  bool known = false;
  const auto set = [&](std::string_view field, auto& number) {
    const bool both = name == "layers" && field.ends_with("_layers");
    if (field != name && !both) return;
    known = true;
    const char* const end = value.data() + value.size();
    const auto [last, problem] = std::from_chars(value.data(), end, number);
    if (problem != std::errc() || last != end || !(number > 0) || !(number <= most))
      throw failure(
          fmt::format("--model: {}={}: expected a number above 0, at most {}", name, value, most));
  };
  std::visit([&](auto& shape) { each_number(shape, set); }, m.shape);
  return known;
}

/// Adds a policy; false if there is no such slot.
bool set_policy(model_spec& m, std::string_view name, const std::string& value) {
  const auto at = std::find_if(std::begin(slots), std::end(slots),
                               [&](const slot& s) { return s.name == name; });
  if (at == std::end(slots)) return false;
  const bool of_encoder = m.embeds() && name != "sharing";
  if (m.base != "decoder" && !(m.base == "encoder" && of_encoder))
    throw failure(fmt::format("--model: {} has a {} of its own; {}:{}={},… names another", m.base,
                              name, of_encoder ? "encoder" : "decoder", name, value));
  check_name(name, value, at->known);
  m.policies += fmt::format(", ln::{}::{}", name, value);
  return true;
}

void change(model_spec& m, const std::string& name, const std::string& value) {
  if (std::any_of(m.changes.begin(), m.changes.end(), [&](auto& c) { return c.first == name; }))
    throw failure("--model: " + name + " is given twice");
  if (!set_number(m, name, value) && !set_policy(m, name, value)) {
    std::string fields;
    std::visit(
        [&](auto& shape) {
          each_number(shape, [&](const char* field, auto&) { (fields += field) += ", "; });
        },
        m.shape);
    throw failure(
        fmt::format("--model: {} has no {} (known: {}{}of decoder and encoder: norm, position, "
                    "tie, bias, ffn; of decoder: sharing)",
                    m.base, name, fields, m.encodes() ? "layers; " : ""));
  }
  m.changes.emplace_back(name, value);
}

void check_shape(model_spec m) {
  std::visit(
      [&](auto& s) {
        if (s.vocabulary == 0) s.vocabulary = 1;
        if (!s.valid())
          throw failure(
              fmt::format("--model: {}: the numbers do not fit each other; of a decoder, "
                          "d_model is a multiple of heads and heads of kv_heads",
                          m.name()));
      },
      m.shape);
}

}  // namespace

ln::index model_spec::vocabulary() const {
  return std::visit([](auto& s) { return s.vocabulary; }, shape);
}

ln::index model_spec::context() const {
  return std::visit(
      [](auto& s) {
        if constexpr (requires { s.context; })
          return s.context;
        else
          return ln::index{0};
      },
      shape);
}

std::string model_spec::name() const {
  std::string text = base;
  for (std::size_t i = 0; i < changes.size(); ++i)
    text += fmt::format("{}{}={}", i == 0 ? ":" : ",", changes[i].first, changes[i].second);
  return text;
}

std::string model_spec::declarations() const {
  if (plain()) return "";
  std::string numbers;
  auto copy = shape;
  std::visit(
      [&](auto& s) {
        each_number(s, [&](const char* field, auto number) {
          numbers += fmt::format("{}.{} = {}", numbers.empty() ? "" : ", ", field, number);
        });
      },
      copy);
  static constexpr const char* kinds[] = {"decoder", "t5", "encoder"};
  return fmt::format("inline constexpr ln::{}_shape shape{{{}}};\n", kinds[shape.index()], numbers);
}

std::string model_spec::type(std::string_view ffn) const {
  const std::string whole = plain() ? preset_type
                            : preset_type.empty()
                                ? fmt::format("ln::{}<shape{}>", base, policies)
                                : fmt::format("zoo::with_shape<{}, shape>::type", preset_type);
  const std::string_view other = variant_type(*this, ffn),
                         head = masked ? "::with_head<ln::head::masked_lm>" : "";
  if (ffn == "standard") return fmt::format("{}{}", whole, head);
  return fmt::format("zoo::with_variant<{}, zoo::variant::{}>::type{}", whole, other, head);
}

bool lacks_masked_head(const model_spec& model) {
  bool lacks = false;
  each_encoder_preset([&]<class M, bool Runs>(preset<M, Runs>, std::string_view name) {
    lacks |= name == model.base && !std::is_same_v<typename M::head, ln::head::masked_lm>;
  });
  return lacks;
}

void refuse_encoder(std::string_view what, std::string_view name) {
  const std::vector<model_spec> all = known_models();
  if (name == "encoder" || std::any_of(all.begin(), all.end(), [&](const model_spec& m) {
        return m.embeds() && m.base == name;
      }))
    throw failure(
        fmt::format("{}{} {}: is an encoder, which has no next token to learn or to write; "
                    "zoo train, finetune, distil, embed, count and compress take some",
                    what == "preset" ? "" : "--", what, name));
}

model_spec parse_model(std::string_view what, const std::string& text, bool encoders) {
  const std::size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  std::vector<model_spec> all = known_models();
  if (!encoders) {
    refuse_encoder(what, name);
    std::erase_if(all, [](const model_spec& m) { return m.embeds(); });
  }
  std::vector<std::string_view> names;
  for (const model_spec& m : all) names.push_back(m.base);
  names.insert(names.end(), {"decoder", "t5"});
  if (encoders) names.push_back("encoder");
  check_name(what, name, names);
  model_spec m{name, {}, small_decoder, {}, {}};
  if (name == "t5") m.shape = small_t5;
  if (name == "encoder") m.shape = small_encoder;
  for (const model_spec& one : all)
    if (one.base == name) m = one;
  for (std::size_t at = colon; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at + 1), text.size());
    const std::string pair = text.substr(at + 1, end - at - 1);
    const std::size_t equals = pair.find('=');
    if (equals == pair.npos)
      throw failure(fmt::format("--model: '{}': expected field=value, such as layers=4", pair));
    change(m, pair.substr(0, equals), pair.substr(equals + 1));
    at = end;
  }
  std::visit([](auto& shape) { complete(shape); }, m.shape);
  check_shape(m);
  return m;
}

model_spec with_vocabulary(model_spec model, ln::index ids) {
  const bool given = std::any_of(model.changes.begin(), model.changes.end(),
                                 [](auto& c) { return c.first == "vocabulary"; });
  if (given && model.vocabulary() < ids)
    throw failure(fmt::format("--model: vocabulary={}, but the tokenizer has {} ids",
                              model.vocabulary(), ids));
  if (!given && model.vocabulary() != ids) change(model, "vocabulary", std::to_string(ids));
  return model;
}

std::string_view variant_type(const model_spec& model, std::string_view ffn) {
  static constexpr std::string_view types[] = {"standard", "skip", "skip_encoder", "one",
                                               "one_relu", "two",  "three"};
  check_name("feed-forward", ffn, variant_names);
  const auto at = std::find(variant_names.begin(), variant_names.end(), ffn);
  const std::string_view type = types[at - variant_names.begin()];
  if (type == "skip_encoder" && !model.encodes())
    throw failure(fmt::format("{} is {}-only: skip-encoder is for encoder-decoders", model.name(),
                              model.embeds() ? "encoder" : "decoder"));
  return type;
}

}  // namespace zoo
