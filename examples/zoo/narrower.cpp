// SPDX-License-Identifier: MIT
#include "narrower.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "shape_numbers.hpp"
#include "support.hpp"

namespace zoo {

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
