// SPDX-License-Identifier: MIT
#include "model_spec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "storages.hpp"
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

/// Calls f(name, number) for each number of a shape.
template <class F>
void each_number(decoder_shape& s, F&& f) {
  f("d_model", s.d_model);
  f("d_ff", s.d_ff);
  f("heads", s.heads);
  f("kv_heads", s.kv_heads);
  f("layers", s.layers);
  f("vocabulary", s.vocabulary);
  f("context", s.context);
  f("d_kv", s.d_kv);
  f("eps", s.eps);
  f("rope_theta", s.rope_theta);
}
template <class F>
void each_number(t5_shape& s, F&& f) {
  f("d_model", s.d_model);
  f("d_ff", s.d_ff);
  f("d_kv", s.d_kv);
  f("heads", s.heads);
  f("encoder_layers", s.encoder_layers);
  f("decoder_layers", s.decoder_layers);
  f("vocabulary", s.vocabulary);
  f("buckets", s.buckets);
  f("max_distance", s.max_distance);
  f("eps", s.eps);
  f("kv_heads", s.kv_heads);
}
template <class F>
void each_number(encoder_shape& s, F&& f) {
  f("d_model", s.d_model);
  f("d_ff", s.d_ff);
  f("heads", s.heads);
  f("layers", s.layers);
  f("vocabulary", s.vocabulary);
  f("context", s.context);
  f("types", s.types);
  f("position_offset", s.position_offset);
  f("d_kv", s.d_kv);
  f("eps", s.eps);
  f("rope_theta", s.rope_theta);
}

/// Fills in what follows from the other numbers: as wide as Llama's and T5's.
void complete(decoder_shape& s) {
  if (s.kv_heads == 0) s.kv_heads = s.heads;
  if (s.d_ff == 0) s.d_ff = (s.d_model * 8 / 3 + 7) / 8 * 8;
}
void complete(t5_shape& s) {
  if (s.d_kv == 0) s.d_kv = s.heads > 0 ? s.d_model / s.heads : 0;
  if (s.d_ff == 0) s.d_ff = 4 * s.d_model;
}
void complete(encoder_shape&) {}  // presets alone, whose numbers are all there

/// A slot of a decoder's policies and what can stand there.
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

/// A word of the command line, and what stands for it in a program.
struct spelling {
  std::string_view name, type;
};
constexpr spelling storages[] = {
    {"f32", "ln::storage::f32"},
    {"bf16", "ln::storage::bf16"},
    {"f16", "ln::storage::f16"},
    {"fp8_e4m3", "ln::storage::fp8_e4m3"},
    {"fp8_e5m2", "ln::storage::fp8_e5m2"},
    {"ternary", "ln::storage::ternary"},
    {"q8_0", "ln::storage::q8_0"},
    {"q4_0", "ln::storage::q4_0"},
    {"q4_1", "ln::storage::q4_1"},
    {"nf4-double", "ln::storage::nf4_double"},
    {"spqr2", "ln::storage::spqr<2>"},
    {"spqr3", "ln::storage::spqr<3>"},
    {"spqr4", "ln::storage::spqr<4>"},
    {"mxfp4", "ln::storage::fp4<32, ln::storage::fp4_scales::power_of_two>"}};
/// What activations are rounded to before products.
constexpr spelling activations[] = {
    {"f32", "ln::compute::f32"},   {"bf16", "ln::compute::bf16"},
    {"int8", "ln::compute::int8"}, {"mixed_int8", "ln::compute::mixed_int8<>"},
    {"int4", "ln::compute::int4"}, {"fp8", "ln::compute::fp8"}};

template <std::size_t N>
std::string_view type_among(std::string_view what, std::string_view name,
                            const spelling (&table)[N], std::vector<std::string_view> known = {}) {
  for (const spelling& s : table) known.push_back(s.name);
  check_name(what, name, known);
  return std::find_if(std::begin(table), std::end(table), [&](auto& s) { return s.name == name; })
      ->type;
}

/// The type of a storage without corrections.
std::string codes_type(std::string_view word) {
  std::string one = word == "nf4-double" ? "" : grouped_storage(word);
  if (!one.empty()) return one;
  std::vector<std::string_view> others;
  for (const grouped_word& grouped : grouped_words) others.push_back(grouped.name);
  return std::string(type_among("storage", word, storages, std::move(others)));
}
/// Reads all of `text` as a number.
template <class Number>
bool reads_number(std::string_view text, Number& number) {
  const char* const end = text.data() + text.size();
  return !text.empty() &&
         std::from_chars(text.data(), end, number) == std::from_chars_result{end, std::errc()};
}

/// Where the word of what is kept begins in "int4-g64-2:4" or "bf16-mask50"; npos in others.
std::size_t kept_word(std::string_view word) {
  const std::size_t colon = word.find(':');
  return colon == word.npos ? word.find("-mask") : word.rfind('-', colon);
}
/// The type of "int4-g64-2:4", which keeps 2 of 4 inputs, or of "bf16-mask50", which keeps 50
/// percent of each row; empty for others.
std::string sparse_type(std::string_view word) {
  const std::size_t colon = word.find(':'), mask = word.find("-mask"), at = kept_word(word);
  if (colon == word.npos && mask == word.npos) return "";
  if (word.find("-out") != word.npos || word.find("-rank") != word.npos)
    throw failure(fmt::format(
        "--storage {}: storages that leave out inputs have no corrections; leave -out and -rank "
        "out",
        word));
  const bool masked = colon == word.npos;
  const std::string_view codes = word.substr(0, at == word.npos ? 0 : at);
  int kept = 0, of = 100;
  const bool whole = masked ? reads_number(word.substr(mask + 5), kept)
                            : at != word.npos &&
                                  reads_number(word.substr(at + 1, colon - at - 1), kept) &&
                                  reads_number(word.substr(colon + 1), of);
  if (!whole || kept < 1 || kept >= of || (!masked && of > 16))
    throw failure(fmt::format(
        "--storage {}: expected codes, then what is kept, such as int4-g64-2:4, of up to 16 "
        "inputs, or bf16-mask50, in percent",
        word));
  const std::string type = codes_type(codes);
  static constexpr std::string_view unmasked[] = {"int3", "int5", "int6"};
  if (codes.starts_with("spqr") || codes == "nf4-double" ||
      (masked &&
       std::ranges::find(unmasked, codes.substr(0, codes.find('-'))) != std::end(unmasked)))
    throw failure(
        fmt::format("--storage {}: {} keeps all inputs; {} goes with f32, bf16, int8, "
                    "int4, nf4 and the like",
                    word, codes, masked ? "-mask" : "n:m"));
  return masked ? fmt::format("ln::storage::bit_mask<{}, {}>", type, kept)
                : fmt::format("ln::storage::n_of_m<{}, {}, {}>", type, kept, of);
}

/// The range of layers that "first1", "last2" or "layers3-5" names, as C++; empty for others.
std::string range_type(std::string_view part, const std::string& storage) {
  constexpr ln::index no_layer = 1 << 20;  // more layers than any model has
  ln::index a = 0, b = 0;
  for (const std::string_view word : {"first", "last"})
    if (part.starts_with(word) && reads_number(part.substr(word.size()), a) && a > 0 &&
        a < no_layer)
      return fmt::format("ln::storage::{}<{}, {}>", word, a, storage);
  if (!part.starts_with("layers")) return "";
  part.remove_prefix(6);
  const std::size_t dash = part.find('-');
  if (!reads_number(part.substr(0, dash), a) || a < 0) return "";
  if (dash == part.npos) b = a;
  if (dash != part.npos && !reads_number(part.substr(dash + 1), b)) return "";
  if (b < a || b >= no_layer) return "";
  return fmt::format("ln::storage::range<{}, {}, {}>", a, b + 1, storage);
}

/// The type of "int4-g64", or with a correction behind it: "-out8" keeps 8 inputs of a matrix, or
/// 8 places in each row of spqr3; "-rank8" adds a matrix of rank 8.
std::string part_type(std::string_view word) {
  if (std::string type = sparse_type(word); !type.empty()) return type;
  for (const std::string_view mark : {"-out", "-rank"}) {
    const std::size_t at = word.find(mark);
    if (at == word.npos) continue;
    const std::string_view codes = word.substr(0, at), tail = word.substr(at + mark.size());
    int number = 0;
    const auto [last, problem] = std::from_chars(tail.data(), tail.data() + tail.size(), number);
    if (problem != std::errc() || last != tail.data() + tail.size() || number < 1 || number > 1024)
      throw failure(
          fmt::format("--storage {0}: a number from 1 to 1024 follows {1}, such as {2}{1}8", word,
                      mark, codes));
    const std::string type = codes_type(codes);
    if (codes.find("fp8") != codes.npos || codes.ends_with("f32") || codes.ends_with("f16") ||
        codes == "ternary")
      throw failure(
          fmt::format("--storage {}: {} goes with codes that have scales of rows or "
                      "groups, such as int4-g64{}",
                      word, mark, word.substr(at)));
    const char* const way = mark == "-rank"             ? "low_rank_correction"
                            : codes.starts_with("spqr") ? "sparse_outliers"
                                                        : "outlier_columns";
    return fmt::format("ln::storage::{}<{}, {}>", way, type, number);
  }
  return codes_type(word);
}

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
  if (m.base != "decoder")
    throw failure(fmt::format("--model: {} has a {} of its own; decoder:{}={},… names another",
                              m.base, name, name, value));
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
        fmt::format("--model: {} has no {} (known: {}{}of decoder: norm, position, "
                    "tie, bias, sharing, ffn)",
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
  const std::string_view other = variant_type(*this, ffn);
  if (ffn == "standard") return whole;
  return fmt::format("zoo::with_variant<{}, zoo::variant::{}>::type", whole, other);
}

void refuse_encoder(std::string_view what, std::string_view name) {
  for (const model_spec& m : known_models())
    if (m.embeds() && m.base == name)
      throw failure(
          fmt::format("{}{} {}: is an encoder, which has no next token to learn or to write; "
                      "zoo embed, count and compress take some",
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
  check_name(what, name, names);
  model_spec m{name, {}, small_decoder, {}, {}};
  if (name == "t5") m.shape = small_t5;
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
    throw failure(model.name() + " is decoder-only: skip-encoder is for encoder-decoders");
  return type;
}

std::vector<stored_part> parts_of(std::string_view name) {
  static constexpr std::string_view roles[] = {
      "embedding", "head",   "attention_q", "attention_k", "attention_v", "attention_o",
      "ffn_gate",  "ffn_up", "ffn_down",    "first1",      "last2",       "layers3-5"};
  std::vector<stored_part> parts;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('+', at), name.size());
    const std::string_view part = name.substr(at, end - at);
    const std::size_t equals = part.find('=');
    if (parts.empty()) {
      parts.push_back({"", part});
    } else if (equals == part.npos) {
      parts.push_back({"embedding", part});
    } else {
      parts.push_back({std::string(part.substr(0, equals)), part.substr(equals + 1)});
      if (range_type(parts.back().role, "").empty())
        check_name("part of a model", parts.back().role, roles);
    }
    at = end + 1;
  }
  return parts;
}

std::string storage_type(std::string_view name) {
  std::string type, roles, ranges;
  for (const stored_part& part : parts_of(name)) {
    const std::string one = part_type(part.storage), range = range_type(part.role, one);
    if (part.role.empty()) {
      type = one;
      // Pruning leaves token tables whole.
      if (!sparse_type(part.storage).empty())
        roles = fmt::format(", ln::storage::embedding<{}>",
                            codes_type(part.storage.substr(0, kept_word(part.storage))));
    } else if (range.empty())
      roles += fmt::format(", ln::storage::{}<{}>", part.role, one);
    else
      ranges += ", " + range;
  }
  if (!roles.empty()) type = fmt::format("ln::storage::per_role<{}{}>", type, roles);
  return ranges.empty() ? type : fmt::format("ln::storage::layers<{}{}>", type, ranges);
}
void check_types(std::string_view option, std::string_view storage, std::string_view compute) {
  static constexpr std::string_view integers[] = {"int8", "int4", "ternary",
                                                  "q8_0", "q4_0", "q4_1"};
  const auto of_all = [&](auto&& fits) {
    return std::ranges::all_of(parts_of(storage),
                               [&](const stored_part& part) { return fits(part.storage); });
  };
  const auto refused = [&](std::string_view why) {
    return failure(fmt::format("{} {}: {}, not with {}", option, compute, why, storage));
  };
  if (compute == "f32") return;
  if (compute == "bf16") {
    if (storage != "bf16") throw refused("goes with --storage bf16");
    return;
  }
  if (!of_all([](std::string_view part) {
        return part.find(':') == part.npos && part.find("-mask") == part.npos;
      }))
    throw refused("goes with storages that keep all inputs");
  if (compute == "fp8") {
    if (!of_all([](std::string_view part) {
          return part != "f32" && part != "bf16" && part != "f16" && part != "fp8_e4m3" &&
                 part != "fp8_e5m2";
        }))
      throw refused("goes with codes, such as --storage fp4-g64 or int4-g64");
  } else if (!of_all([](std::string_view part) {
               return std::ranges::find(integers, part.substr(0, part.find('-'))) !=
                      std::end(integers);
             })) {
    throw refused("goes with --storage int8, int4, ternary, q8_0, q4_0 or q4_1");
  }
}
std::string compute_type(std::string_view what, std::string_view name) {
  static constexpr std::string_view mixed = "mixed_int8-";
  if (!name.starts_with(mixed)) return std::string(type_among(what, name, activations));
  double threshold = 0;
  if (!reads_number(name.substr(mixed.size()), threshold) || !(threshold >= 0) ||
      !(threshold <= 1e6))
    throw failure(
        fmt::format("--{} {}: a magnitude from 0 on follows, such as mixed_int8-6", what, name));
  return fmt::format("ln::compute::mixed_int8<{:#}>", threshold);
}

namespace {

/// A number for each layer that is left, or none.
struct layer_numbers {
  std::vector<ln::index> d_ff, heads;
};
/// The number of each layer in "128/96", in order.
std::vector<ln::index> numbers_in(const std::string& pair, std::string_view text) {
  std::vector<ln::index> all;
  for (std::size_t at = 0, end; at <= text.size(); at = end + 1) {
    end = std::min(text.find('/', at), text.size());
    ln::index width = 0;
    if (!reads_number(text.substr(at, end - at), width) || width < 1)
      throw failure(fmt::format("--shape: '{}': expected a number above 0 of each layer", pair));
    all.push_back(width);
  }
  return all;
}

/// One shape, called `name`; `layers` becomes what its layers have.
std::string declaration_of_shape(const model_spec& model, const std::string& text,
                                 std::string_view shape_name, layer_numbers& layers) {
  static constexpr std::string_view fields[] = {"d_model", "d_ff",           "heads",
                                                "layers",  "encoder_layers", "decoder_layers"};
  model_spec small = model;
  small.changes.clear();
  std::string given;
  for (std::size_t at = 0, end; at <= text.size(); at = end + 1) {
    end = std::min(text.find(',', at), text.size());
    const std::string pair = text.substr(at, end - at);
    const std::size_t equals = std::min(pair.find('='), pair.size());
    const std::string name = pair.substr(0, equals);
    check_name("number of a shape", name, fields);
    ln::index number = 0;
    if ((name == "d_ff" || name == "heads") && pair.find('/') != pair.npos) {
      std::vector<ln::index>& each = name == "d_ff" ? layers.d_ff : layers.heads;
      each = numbers_in(pair, std::string_view(pair).substr(equals + 1));
      number = *std::ranges::max_element(each);
    } else if (equals == pair.size() ||
               !reads_number(std::string_view(pair).substr(equals + 1), number))
      throw failure(fmt::format("--shape: '{}': expected field=value, such as layers=4", pair));
    bool known = false;
    std::visit(
        [&](auto& shape) {
          const ln::index heads = shape.heads;
          each_number(shape, [&](std::string_view field, auto& value) {
            if (field != name && !(name == "layers" && field.ends_with("_layers"))) return;
            known = true;
            if (number < 1 || static_cast<double>(number) > static_cast<double>(value))
              throw failure(fmt::format("--shape: {}={}: expected 1 to {}, as {} has", name, number,
                                        value, model.name()));
            value = static_cast<std::remove_cvref_t<decltype(value)>>(number);
          });
          if constexpr (requires { shape.kv_heads; })
            if (name == "heads") {
              if (shape.kv_heads == 0) return;  // a T5 without groups
              const ln::index group = heads / shape.kv_heads;
              for (const ln::index one : layers.heads.empty() ? std::vector{number} : layers.heads)
                if (one % group != 0)
                  throw failure(fmt::format(
                      "--shape: heads={}: heads go in groups of {}, which share keys and values",
                      one, group));
              shape.kv_heads = number / group;
            }
        },
        small.shape);
    if (!known) throw failure(fmt::format("--shape: {} has no {}", model.name(), name));
  }
  std::string numbers;
  bool smaller = false;
  std::visit(
      [&](auto& shape) {
        using Shape = std::remove_cvref_t<decltype(shape)>;
        Shape whole = std::get<Shape>(model.shape);
        std::vector<double> all;
        each_number(whole,
                    [&](const char*, auto value) { all.push_back(static_cast<double>(value)); });
        auto one = all.begin();
        each_number(shape, [&](const char* field, auto value) {
          if (static_cast<double>(value) == *one++) return;
          smaller = true;
          numbers += fmt::format("  s.{} = {};\n", field, value);
        });
      },
      small.shape);
  for (const std::string_view name : {"d_ff", "heads"}) {
    const std::vector<ln::index>& each = name == "d_ff" ? layers.d_ff : layers.heads;
    if (each.empty()) continue;
    const auto* const decoder = std::get_if<ln::decoder_shape>(&small.shape);
    if (!decoder)
      throw failure(fmt::format("--shape: {} of each layer is for decoders; {} has one for all",
                                name, model.name()));
    if (std::ssize(each) != decoder->layers)
      throw failure(fmt::format("--shape: {} has {} numbers for {} layers that are left", name,
                                each.size(), decoder->layers));
    smaller = smaller || std::ranges::min(each) < std::ranges::max(each);
  }
  if (!layers.heads.empty() && layers.d_ff.empty())
    layers.d_ff.assign(layers.heads.size(), std::get<ln::decoder_shape>(small.shape).d_ff);
  if (!smaller) throw failure(fmt::format("--shape {}: is no smaller than {}", text, model.name()));
  return fmt::format(
      "inline constexpr auto {} = [] {{\n  auto s = Model::shape;\n{}  return s;\n}}();\n",
      shape_name, numbers);
}

}  // namespace

narrower_words narrower_of(const model_spec& model, const std::string& text) {
  narrower_words made;
  made.rounds = text.find(';') != text.npos;
  std::string all;
  layer_numbers layers;
  for (std::size_t at = 0, end, round = 0; at <= text.size(); at = end + 1, ++round) {
    end = std::min(text.find(';', at), text.size());
    if (!all.empty()) all += ',';
    all.append(text, at, end - at);
    const std::string name = made.rounds ? fmt::format("narrower_{}", round) : "narrower";
    made.declaration += declaration_of_shape(model, all, name, layers);
    made.shapes += (made.shapes.empty() ? "" : ", ") + name;
  }
  if (made.rounds && !layers.d_ff.empty())
    throw failure("--shape: numbers of each layer are for one round; leave the ';' out");
  for (std::size_t l = 0; l < layers.d_ff.size(); ++l)
    made.widths += layers.heads.empty() ? fmt::format(", {}", layers.d_ff[l])
                                        : fmt::format(", ln::layer_width{{{}, {}}}", layers.d_ff[l],
                                                      layers.heads[l]);
  return made;
}

}  // namespace zoo
