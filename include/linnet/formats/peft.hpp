// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Directories of adapters as Hugging Face's PEFT has them: adapter_config.json and
/// adapter_model.safetensors. Opt-in, through linnet/json.hpp.

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <linnet/adapt/adapt.hpp>
#include <linnet/formats/adapter_notes.hpp>
#include <linnet/formats/peft_config.hpp>
#include <linnet/formats/weights_file.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// PEFT's word for what a model does. Of an encoder that classifies it is not PEFT's own: PEFT then
/// trains a classifier, too, and refuses files without one.
template <class M>
constexpr const char* peft_task() {
  return is_t5<M> ? "SEQ_2_SEQ_LM" : is_encoder<M> ? "FEATURE_EXTRACTION" : "CAUSAL_LM";
}

/// Where a matrix of a model is in Hugging Face's files, by its name without the end:
/// model.layers.0.self_attn.q_proj.
template <class M>
file_part peft_map(leaf whole) {
  file_part part = hf_kind_of<M>() == hf_kind::none
                       ? file_part{whole, {whole.name, whole.rows, whole.columns}}
                       : hf_part(hf_layout_of<M>(), whole);
  part.at.name = std::string(stem(part.at.name));
  return part;
}
/// End of the name of GPT-2's queries, keys and values, which are one matrix there.
inline constexpr std::string_view fused_map = ".c_attn";

/// Checks that the maps of one matrix of PEFT's files are all there. With `alike` they must share
/// their A, too: one product of rank r gives all of them.
inline result<void> check_fused(const std::vector<file_part>& parts, const char* where,
                                bool alike) {
  const auto other = [&](const char* expected, std::string got) {
    return error{errc::unsupported, where, "target_modules", expected, std::move(got)};
  };
  for (const file_part& one : parts) {
    if (one.at.name.find(std::string(fused_map) + ".lora_") == std::string::npos) continue;
    const auto is_same = [&](const file_part& two) { return two.at.name == one.at.name; };
    const auto count = std::ranges::count_if(parts, is_same);
    if (count != 3)
      return other(
          "q, k and v together or none of them, as PEFT has one adapter for all three of "
          "GPT-2",
          std::to_string(count) + " of them");
    const file_part& first = *std::ranges::find_if(parts, is_same);
    if (alike && one.at.name.find(".lora_A.") != std::string::npos &&
        __builtin_memcmp(first.tensor.data, one.tensor.data,
                         static_cast<std::size_t>(one.tensor.size() * size_of(one.tensor.type))) !=
            0)
      return other(
          "one lora_A for q, k and v, as PEFT has of GPT-2 (save_safetensors() keeps "
          "others)",
          "unlike ones");
  }
  return {};
}

/// The parts of a file of an adapter. GPT-2's queries, keys and values have one place for their A,
/// and rows of one B.
template <class A, class T>
std::vector<file_part> peft_parts(const weights<A, T>& w) {
  std::vector<file_part> parts;
  for (leaf& tensor : leaves_of(w)) {
    const bool first = tensor.name.ends_with(".lora_A.weight");
    leaf whole = tensor;
    whole.name.replace(whole.name.rfind(".lora_"), std::string::npos, ".weight");
    const file_part part = peft_map<typename A::base_model>(std::move(whole));
    placement at{"base_model.model." + part.at.name + (first ? ".lora_A.weight" : ".lora_B.weight"),
                 tensor.rows, tensor.columns};
    if (!first) at.half_heads = part.at.half_heads;
    if (!first && part.at.name.ends_with(fused_map)) {
      at.rows *= 3;
      at.offset = part.at.offset;
    }
    parts.push_back({std::move(tensor), std::move(at), {}});
  }
  return parts;
}
/// The names by which PEFT finds the matrices of an adapter: their last parts where no other matrix
/// ends so, else whole names.
template <class A>
std::vector<std::string> peft_targets() {
  using M = typename A::base_model;
  std::vector<std::string> whole, last, others;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    if (info.kind != role::matrix && info.kind != role::table) return;
    const std::string name = peft_map<M>({.name = at.str(), .rows = 1, .columns = 1}).at.name;
    const std::string end = name.substr(name.rfind('.') + 1);
    if (is_target<M, typename A::method::targets>(at, info)) {
      if (std::ranges::find(whole, name) == whole.end()) whole.push_back(name);
      if (std::ranges::find(last, end) == last.end()) last.push_back(end);
    } else {
      others.push_back(end);
    }
  });
  const bool unlike = std::ranges::any_of(
      last, [&](const std::string& end) { return std::ranges::find(others, end) != others.end(); });
  return unlike ? whole : last;
}

}  // namespace detail

/// Saves an adapter of low-rank deltas for PEFT and load_peft() into a directory that exists.
/// `base_name` is what PEFT loads its base by, such as "HuggingFaceTB/SmolLM2-135M". The tensors'
/// file also says a hash of the base. Errors: errc::io; errc::invalid for an adapter without a
/// base; that of `a` if it is not valid(). Also errc::unsupported for GPT-2 unless all or none of
/// q, k and v have a delta, and share their A.
template <class A, class T>
requires requires { A::rank; }
result<void> save_peft(const weights<A, T>& a, const std::string& directory,
                       const std::string& base_name = {}) LINNET_TRY {
  using M = typename A::base_model;
  if (!a.valid()) return a.error();
  const auto& base = a.tree().base;
  if (auto fit = detail::check_base("save_peft", a.tree()); !fit) return fit;
  const auto parts = detail::peft_parts(a);
  if (auto fit = detail::check_fused(parts, "save_peft", true); !fit) return fit;
  std::string config = detail::make_peft_config(A::rank, base.how, base_name,
                                                detail::peft_targets<A>(), detail::peft_task<M>());
  // PEFT's word for Conv1D, which keeps a matrix as [in, out].
  if (constexpr std::string_view said = "\"fan_in_fan_out\": "; hf_kind_of<M>() == hf_kind::gpt2)
    config.replace(config.find(said) + said.size(), 5, "true");
  if (auto saved = detail::save_parts(
          directory + "/adapter_model.safetensors", parts,
          {{"format", "pt"}, {std::string(detail::base_note), std::to_string(base.hash())}});
      !saved)
    return saved;
  return write_file(directory + "/adapter_config.json", detail::bytes_of(config));
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Loads an adapter that PEFT or save_peft() saved into one that adapt() made for a base. Its
/// options become those of the file. Options that would change what it computes are refused, such
/// as DoRA, biases, modules_to_save and ranks that differ. GPT-2's one A of queries, keys and
/// values becomes that of each, which must all have a delta. `a` is untouched unless all of it
/// fits. Errors: errc::io, errc::malformed, errc::missing; errc::unsupported for such options. Also
/// errc::mismatch for another rank, other matrices or shapes, and another base by its hash;
/// errc::invalid for an adapter without a base.
template <class A, class T>
requires requires { A::rank; }
result<void> load_peft(weights<A, T>& a, const std::string& directory,
                       peft_base base = peft_base::same) LINNET_TRY {
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("load_peft", a.tree()); !fit) return fit;
  const auto parts = detail::peft_parts(a);
  if (auto fit = detail::check_fused(parts, "load_peft", false); !fit) return fit;
  const std::string path = directory + "/adapter_config.json";
  const auto text = read_file(path);
  if (!text) return text.error();
  const bool transposes = hf_kind_of<typename A::base_model>() == hf_kind::gpt2;
  const auto how = detail::parse_peft_config(*text, path, A::rank, transposes);
  if (!how) return how.error();
  const auto file = read_safetensors(directory + "/adapter_model.safetensors");
  if (!file) return file.error();
  if (auto fit = detail::check_adapter_file(a.tree(), *file, base, true); !fit) return fit;
  auto loaded =
      detail::load_parts(*file, parts, {}, nonfinite::keep, [](std::string_view) { return false; });
  if (loaded) a.tree().base.how = *how;
  return loaded;
}
LINNET_OR_OUT_OF_MEMORY(directory)

LINNET_NAMESPACE_END
