// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// PEFT's adapter_config.json: read, with a refusal of what linnet does not compute, and written.

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/adapt/lora_product.hpp>
#include <linnet/file/json.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Longest adapter_config.json that is read, in bytes.
inline constexpr std::size_t longest_peft_config = 1024 * 1024;

/// Fields of the outermost object as JSON texts. Of arrays and objects only whether they are empty
/// is kept, as "[]" or "[...]".
struct peft_reader {
  struct field {
    std::string key, value;
    double number = 0;
    bool is_number = false;
  };
  explicit peft_reader(const std::string& file) : where(file) {}

  std::string where;
  std::vector<field> fields{};
  error failure{};

  bool open(bool array) {
    if (depth == 0 && array) return fail("content", "a JSON object", "an array");
    if (depth == 32) return fail("content", "at most 32 levels", "more");
    if (depth == 1) fields.push_back({name, array ? "[]" : "{}"});
    if (depth > 1) fill();
    ++depth;
    return true;
  }
  bool close() {
    --depth;
    return true;
  }
  bool key(std::string_view text) {
    if (depth == 1) {
      name = printable(text);
      if (find(name)) return fail(name, "each field once", "this one twice");
    } else {
      fill();
    }
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("content", "a JSON object", value.text());
    if (depth == 1)
      fields.push_back(
          {name, value.text(), value.number, value.kind == json_scalar::kinds::number});
    else
      fill();
    return true;
  }
  const field* find(std::string_view key) const {
    const auto at = std::ranges::find(fields, key, &field::key);
    return at == fields.end() ? nullptr : &*at;
  }

 private:
  int depth = 0;
  std::string name{};

  /// The array or object at hand is not empty.
  void fill() {
    std::string& value = fields.back().value;
    if (value.size() == 2) value.insert(1, "...");
  }
  bool fail(std::string what, std::string expected, std::string got) {
    failure = {errc::malformed, where, std::move(what), std::move(expected), std::move(got)};
    return false;
  }
};

/// A field of adapter_config.json beside its numbers: the values under which an adapter computes
/// what linnet computes. Without any, it may be anything.
struct peft_rule {
  std::string_view key;
  std::vector<std::string_view> values{};
};

/// Fields that say where an adapter comes from, in configurations of all kinds.
inline std::vector<peft_rule> usual_peft_rules() {
  return {{"task_type"},      {"base_model_name_or_path"},
          {"inference_mode"}, {"revision"},
          {"auto_mapping"},   {"peft_version"}};
}
/// Reads a configuration whose fields keep `rules`; others must be null, false or empty.
inline result<peft_reader> read_peft_config(std::span<const std::byte> text,
                                            const std::string& where,
                                            const std::vector<peft_rule>& rules) {
  peft_reader config(where);
  if (auto read = read_json(text, longest_peft_config, where, "content", config); !read)
    return read.error();
  const std::vector<std::string_view> usual = {"null", "false", "[]", "{}"};
  for (const peft_reader::field& one : config.fields) {
    const auto rule = std::ranges::find(rules, one.key, &peft_rule::key);
    const auto& values = rule == rules.end() ? usual : rule->values;
    if (!values.empty() && std::ranges::find(values, one.value) == values.end()) {
      std::string expected;
      for (const std::string_view value : values)
        expected += (expected.empty() ? "" : ", ") + std::string(value);
      return failure(errc::unsupported, where, one.key,
                     expected + ": another value changes what the adapter computes", one.value);
    }
  }
  if (!config.find("peft_type"))
    return failure(errc::missing, where, "peft_type", rules.front().values.front(), "nothing");
  return config;
}
/// Refuses a number of a configuration that is not the one of the adapter's type.
inline result<void> check_peft_number(const peft_reader& config, std::string_view key, index own,
                                      double absent) {
  const auto* const field = config.find(key);
  const double said = field && field->is_number ? field->number : absent;
  if (said == static_cast<double>(own)) return {};
  return failure(errc::mismatch, config.where, key, std::to_string(own) + " (the adapter's type)",
                 number_text(said));
}

/// The options of a configuration of an adapter of rank `rank`. Of a base that keeps matrices as
/// [in, out], PEFT `transposes` deltas when it merges them, and says so.
inline result<lora_options> parse_peft_config(std::span<const std::byte> text,
                                              const std::string& where, index rank,
                                              bool transposes = false) {
  std::vector<peft_rule> rules = {
      {"peft_type", {"\"LORA\""}},
      {"bias", {"\"none\""}},
      {"init_lora_weights", {"true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\"", "null"}},
      {"target_modules"},
      {"exclude_modules"},
      {"layers_to_transform"},
      {"layers_pattern"},
      {"megatron_core"},
      {"runtime_config"},
      {"qalora_group_size"},
      {"lora_ga_config"},
      {"r"},
      {"lora_alpha"},
      {"lora_dropout"},
      {"use_rslora", {"true", "false"}},
  };
  for (const peft_rule& one : usual_peft_rules()) rules.push_back(one);
  if (transposes) rules.push_back({"fan_in_fan_out", {"true", "false", "null"}});
  const auto config = read_peft_config(text, where, rules);
  if (!config) return config.error();
  lora_options how;
  for (const auto& [key, to] :
       {std::pair("lora_alpha", &how.alpha), std::pair("lora_dropout", &how.dropout)})
    if (const auto* const field = config->find(key)) {
      if (!field->is_number) return failure(errc::malformed, where, key, "a number", field->value);
      *to = field->number;
    }
  if (const auto* const field = config->find("use_rslora")) how.rslora = field->value == "true";
  if (auto fit = check_peft_number(*config, "r", rank, 8); !fit) return fit.error();
  if (auto fit = acceptable(where.c_str(), "lora_options", how); !fit) return fit.error();
  return how;
}

/// The configuration of an adapter.
inline std::string make_peft_config(index rank, const lora_options& how,
                                    const std::string& base_name,
                                    const std::vector<std::string>& targets, const char* task) {
  std::string names;
  for (const std::string& one : targets) names += (names.empty() ? "" : ", ") + json_quoted(one);
  const auto truth = [](bool x) { return x ? "true" : "false"; };
  return std::string("{\n") +
         "  \"base_model_name_or_path\": " + (base_name.empty() ? "null" : json_quoted(base_name)) +
         ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n"
         "  \"init_lora_weights\": true,\n  \"lora_alpha\": " +
         number_text(how.alpha) + ",\n  \"lora_dropout\": " + number_text(how.dropout) +
         ",\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": " +
         std::to_string(rank) + ",\n  \"target_modules\": [" + names + "],\n  \"task_type\": \"" +
         task + "\",\n  \"use_dora\": false,\n  \"use_rslora\": " + truth(how.rslora) + "\n}\n";
}

}  // namespace detail

LINNET_NAMESPACE_END
