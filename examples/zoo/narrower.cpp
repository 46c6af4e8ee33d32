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

/// The width of each layer in "128/96", in order.
std::vector<ln::index> widths_in(const std::string& pair, std::string_view text) {
  std::vector<ln::index> all;
  for (std::size_t at = 0, end; at <= text.size(); at = end + 1) {
    end = std::min(text.find('/', at), text.size());
    ln::index width = 0;
    if (!reads_number(text.substr(at, end - at), width) || width < 1)
      throw failure(fmt::format("--shape: '{}': expected a width above 0 of each layer", pair));
    all.push_back(width);
  }
  return all;
}

/// One shape, called `name`; `widths` becomes those of its layers.
std::string declaration_of_shape(const model_spec& model, const std::string& text,
                                 std::string_view shape_name, std::vector<ln::index>& widths) {
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
    if (name == "d_ff" && pair.find('/') != pair.npos) {
      widths = widths_in(pair, std::string_view(pair).substr(equals + 1));
      number = *std::ranges::max_element(widths);
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
              if (number % group != 0)
                throw failure(fmt::format(
                    "--shape: heads={}: heads go in groups of {}, which share keys and values",
                    number, group));
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
  if (!widths.empty()) {
    const auto* const decoder = std::get_if<ln::decoder_shape>(&small.shape);
    if (!decoder)
      throw failure(fmt::format("--shape: d_ff of each layer is for decoders; {} has one width",
                                model.name()));
    if (std::ssize(widths) != decoder->layers)
      throw failure(fmt::format("--shape: d_ff has {} widths for {} layers that are left",
                                widths.size(), decoder->layers));
    smaller = smaller || *std::ranges::min_element(widths) < decoder->d_ff;
  }
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
  std::vector<ln::index> widths;
  for (std::size_t at = 0, end, round = 0; at <= text.size(); at = end + 1, ++round) {
    end = std::min(text.find(';', at), text.size());
    if (!all.empty()) all += ',';
    all.append(text, at, end - at);
    const std::string name = made.rounds ? fmt::format("narrower_{}", round) : "narrower";
    made.declaration += declaration_of_shape(model, all, name, widths);
    made.shapes += (made.shapes.empty() ? "" : ", ") + name;
  }
  if (made.rounds && !widths.empty())
    throw failure("--shape: d_ff of each layer is for one round; leave the ';' out");
  for (const ln::index width : widths) made.widths += fmt::format(", {}", width);
  return made;
}

}  // namespace zoo
