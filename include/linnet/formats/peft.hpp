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
#include <linnet/formats/peft_config.hpp>
#include <linnet/formats/weights_file.hpp>

LINNET_NAMESPACE_BEGIN

/// Whether an adapter is loaded for other weights than those it was saved with.
enum class peft_base {
  same,  ///< no: the files' hash, where there is one, is that of the base
  any    ///< yes, such as one that was trained on codes for the numbers
};

namespace detail {

/// A hash of packed weights: of their panels, which are the same on every machine.
inline std::uint64_t base_hash(std::span<const std::byte> bytes) {
  std::uint64_t hash = bytes.size();
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    std::uint64_t word = 0;
    __builtin_memcpy(&word, bytes.data() + i, (std::min)(std::size_t{8}, bytes.size() - i));
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return hash;
}
template <class A, class T>
std::string base_hash_of(const adapter_base& base) {
  using of = packed<typename A::base_model, T>;
  return std::to_string(base_hash(static_cast<const of*>(base.of)->block()));
}
/// Refuses a file of an adapter of another base, unless it may be any.
template <class A, class T>
result<void> check_peft_base(const safetensors& file, const adapter_base& base, peft_base which) {
  const auto said = file.metadata().find("linnet.base");
  if (which == peft_base::any || said == file.metadata().end()) return {};
  const auto own = base_hash_of<A, T>(base);
  if (own == said->second) return {};
  return failure(
      errc::mismatch, file.where(), "linnet.base",
      "the hash of the adapter's base, " + own + " (peft_base::any loads it for another)",
      printable(said->second));
}

/// True for models whose maps PEFT has one by one; words for others.
template <class M>
constexpr bool fits_peft() {
  if constexpr (hf_kind_of<M>() == hf_kind::gpt2)
    static_assert(never<M>,
                  "linnet: PEFT's files of GPT-2 have one adapter for its queries, keys and values "
                  "together; save_safetensors() keeps adapters under linnet's names");
  else
    return true;
  return false;
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
/// The parts of a file of an adapter.
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
      whole.push_back(name);
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
/// base; that of `a` if it is not valid().
template <class A, class T>
requires requires { A::rank; }
result<void> save_peft(const weights<A, T>& a, const std::string& directory,
                       const std::string& base_name = {}) LINNET_TRY {
  if constexpr (detail::fits_peft<typename A::base_model>()) {
    if (!a.valid()) return a.error();
    const auto& base = a.tree().base;
    if (auto fit = detail::check_base("save_peft", a.tree()); !fit) return fit;
    const std::string config =
        detail::make_peft_config(A::rank, base.how, base_name, detail::peft_targets<A>(),
                                 A::encodes                                   ? "SEQ_2_SEQ_LM"
                                 : detail::is_encoder<typename A::base_model> ? "FEATURE_EXTRACTION"
                                                                              : "CAUSAL_LM");
    if (auto saved = detail::save_parts(
            directory + "/adapter_model.safetensors", detail::peft_parts(a),
            {{"format", "pt"}, {"linnet.base", detail::base_hash_of<A, T>(base)}});
        !saved)
      return saved;
    return write_file(directory + "/adapter_config.json", detail::bytes_of(config));
  } else {
    return {};
  }
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Loads an adapter that PEFT or save_peft() saved into one that adapt() made for a base. Its
/// options become those of the file. Options that would change what it computes are refused, such
/// as DoRA, biases, modules_to_save and ranks that differ. `a` is untouched unless all of it fits.
/// Errors: errc::io, errc::malformed, errc::missing; errc::unsupported for such options. Also
/// errc::mismatch for another rank, other matrices or shapes, and another base by its hash;
/// errc::invalid for an adapter without a base.
template <class A, class T>
requires requires { A::rank; }
result<void> load_peft(weights<A, T>& a, const std::string& directory,
                       peft_base base = peft_base::same) LINNET_TRY {
  if constexpr (detail::fits_peft<typename A::base_model>()) {
    if (!a.valid()) return a.error();
    if (auto fit = detail::check_base("load_peft", a.tree()); !fit) return fit;
    const std::string path = directory + "/adapter_config.json";
    const auto text = read_file(path);
    if (!text) return text.error();
    const auto how = detail::parse_peft_config(*text, path, A::rank);
    if (!how) return how.error();
    const auto file = read_safetensors(directory + "/adapter_model.safetensors");
    if (!file) return file.error();
    if (auto fit = detail::check_peft_base<A, T>(*file, a.tree().base, base); !fit) return fit;
    auto loaded = detail::load_parts(*file, detail::peft_parts(a), {}, nonfinite::keep,
                                     [](std::string_view) { return false; });
    if (loaded) a.tree().base.how = *how;
    return loaded;
  } else {
    return {};
  }
}
LINNET_OR_OUT_OF_MEMORY(directory)

LINNET_NAMESPACE_END
