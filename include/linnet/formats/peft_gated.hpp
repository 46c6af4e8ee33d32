// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Gated prompts in directories as Hugging Face's PEFT has them (ADAPTION_PROMPT). Opt-in, through
/// linnet/json.hpp.

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/adapt/llama_adapter.hpp>
#include <linnet/formats/peft.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The beginning of the names of a layer's tensors in PEFT's files:
/// base_model.model.model.layers.1.self_attn.adaption_
template <class M>
std::string gated_name(index layer) {
  const std::string query = "blocks." + std::to_string(layer) + ".attention.q.weight";
  const std::string map = peft_map<M>({.name = query, .rows = 1, .columns = 1}).at.name;
  return "base_model.model." + map.substr(0, map.rfind('.')) + ".adaption_";
}
/// PEFT's one gate of a layer, which is no tanh: what `heads` gates have in common.
template <class T>
result<T> peft_gate(const T* gates, index heads) {
  const auto other = [](const char* expected, std::string got) {
    return error{errc::unsupported, "save_peft", "adaption_gates", expected, std::move(got)};
  };
  for (index h = 1; h < heads; ++h)
    if (gates[h] != gates[0])
      return other(
          "one gate for all heads of a layer, as PEFT has it; save_safetensors() keeps others",
          "unlike ones");
  const T open = std::tanh(gates[0]);
  if (!is_finite(open) || open <= -1 || open >= 1)
    return other("a gate whose tanh is between -1 and 1",
                 number_text(static_cast<double>(gates[0])));
  return open;
}
/// The numbers of a layer's tensor in a file of PEFT's, which has this shape.
template <class T>
result<std::vector<T>> gated_values(const safetensors& file, const std::string& name,
                                    const std::vector<index>& shape) {
  const tensor_record* const found = file.find(name);
  if (found && std::ranges::equal(found->shape(), shape)) return file.values<T>(name);
  std::string expected = "real [";
  for (const index n : shape) expected += (expected.back() == '[' ? "" : ", ") + std::to_string(n);
  return failure(found ? errc::mismatch : errc::missing, file.where(), name,
                 expected + "] (the adapter's type)",
                 found ? found->description() : std::string("no such tensor"));
}

}  // namespace detail

/// Saves gated prompts for PEFT and load_peft() into a directory that exists. `base_name` is what
/// PEFT loads its base by. The tensors' file also says a hash of the base. Errors: errc::io;
/// errc::invalid for an adapter without a base; that of `a` if it is not valid(). Of PEFT's layers
/// each has one gate for all heads: unlike ones are errc::unsupported.
template <class M, index Count, index Layers, class T>
result<void> save_peft(const weights<adapted<M, llama_adapter<Count, Layers>>, T>& a,
                       const std::string& directory, const std::string& base_name = {}) LINNET_TRY {
  using A = adapted<M, llama_adapter<Count, Layers>>;
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("save_peft", a.tree()); !fit) return fit;
  constexpr dtype type = std::is_same_v<T, double> ? dtype::f64 : dtype::f32;
  std::vector<T> gates(static_cast<std::size_t>(Layers));
  std::vector<named_tensor> tensors;
  for (index l = 0; l < Layers; ++l) {
    const auto gate = detail::peft_gate(a.tree().gates + l * A::heads, A::heads);
    if (!gate) return gate.error();
    T& open = gates[static_cast<std::size_t>(l)];
    open = *gate;
    const std::span rows(a.tree().prompts + l * Count * M::d,
                         static_cast<std::size_t>(Count * M::d));
    const std::string name = detail::gated_name<M>(A::first + l);
    tensors.push_back({name + "prompt", type, {1, Count, M::d}, std::as_bytes(rows)});
    tensors.push_back({name + "gate", type, {1}, std::as_bytes(std::span(&open, 1))});
  }
  const file_metadata notes{{"format", "pt"},
                            {std::string(detail::base_note), std::to_string(a.tree().base.hash())}};
  if (auto saved = write_safetensors(directory + "/adapter_model.safetensors", tensors, notes);
      !saved)
    return saved;
  const std::string config = "{\n  \"adapter_layers\": " + std::to_string(Layers) +
                             ",\n  \"adapter_len\": " + std::to_string(Count) +
                             ",\n  \"base_model_name_or_path\": " +
                             (base_name.empty() ? "null" : detail::json_quoted(base_name)) +
                             ",\n  \"inference_mode\": true,\n"
                             "  \"peft_type\": \"ADAPTION_PROMPT\",\n"
                             "  \"target_modules\": \"self_attn\",\n"
                             "  \"task_type\": \"CAUSAL_LM\"\n}\n";
  return write_file(directory + "/adapter_config.json", detail::bytes_of(config));
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Loads gated prompts that PEFT or save_peft() saved into those that adapt() made for a base. Each
/// head's gate becomes the inverse tanh of its layer's. `a` is untouched unless all of it fits.
/// Errors: errc::io, errc::malformed, errc::missing; errc::unsupported for another kind of adapter
/// and for a gate that is no tanh. Also errc::mismatch for another number of prompts or layers,
/// another width, and another base by its hash; errc::invalid for an adapter without a base.
template <class M, index Count, index Layers, class T>
result<void> load_peft(weights<adapted<M, llama_adapter<Count, Layers>>, T>& a,
                       const std::string& directory, peft_base base = peft_base::same) LINNET_TRY {
  using A = adapted<M, llama_adapter<Count, Layers>>;
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("load_peft", a.tree()); !fit) return fit;
  const std::string path = directory + "/adapter_config.json";
  const auto text = read_file(path);
  if (!text) return text.error();
  std::vector<detail::peft_rule> rules = {{"peft_type", {"\"ADAPTION_PROMPT\""}},
                                          {"target_modules"},
                                          {"adapter_len"},
                                          {"adapter_layers"}};
  for (const detail::peft_rule& one : detail::usual_peft_rules()) rules.push_back(one);
  const auto config = detail::read_peft_config(*text, path, rules);
  if (!config) return config.error();
  if (auto fit = detail::check_peft_number(*config, "adapter_len", Count, 0); !fit) return fit;
  if (auto fit = detail::check_peft_number(*config, "adapter_layers", Layers, 0); !fit) return fit;
  const auto file = read_safetensors(directory + "/adapter_model.safetensors");
  if (!file) return file.error();
  if (auto fit = detail::check_adapter_file(a.tree(), *file, base, true); !fit) return fit;
  std::vector<T> prompts, gates;
  for (index l = 0; l < Layers; ++l) {
    const std::string name = detail::gated_name<M>(A::first + l);
    const auto rows = detail::gated_values<T>(*file, name + "prompt", {1, Count, M::d});
    if (!rows) return rows.error();
    const auto gate = detail::gated_values<T>(*file, name + "gate", {1});
    if (!gate) return gate.error();
    const T open = gate->front();
    if (!is_finite(open) || open <= -1 || open >= 1)
      return detail::failure(errc::unsupported, file->where(), name + "gate",
                             "a gate between -1 and 1, as linnet's are tanh of a number",
                             detail::number_text(static_cast<double>(open)));
    prompts.insert(prompts.end(), rows->begin(), rows->end());
    gates.insert(gates.end(), static_cast<std::size_t>(A::heads), std::atanh(open));
  }
  if (std::ssize(file->tensors()) != 2 * Layers)
    return detail::failure(errc::mismatch, file->where(), "tensors",
                           std::to_string(2 * Layers) + " (the adapter's type)",
                           std::to_string(file->tensors().size()));
  std::ranges::copy(prompts, a.tree().prompts);
  std::ranges::copy(gates, a.tree().gates);
  return {};
}
LINNET_OR_OUT_OF_MEMORY(directory)

LINNET_NAMESPACE_END
