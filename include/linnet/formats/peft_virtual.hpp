// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Soft tokens and prefixes in directories as Hugging Face's PEFT has them. Opt-in, through
/// linnet/json.hpp.

#include <algorithm>
#include <string>
#include <vector>

#include <linnet/adapt/adapt_virtual.hpp>
#include <linnet/adapt/prefix_projection.hpp>
#include <linnet/formats/peft.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class A>
inline constexpr bool is_prefix = requires {
  A::key_width;
};
/// An adapter whose numbers are the virtual tokens themselves.
template <class A>
concept has_virtual_rows = requires {
  A::virtual_count;
}
&&!requires { A::row_width; };
/// An adapter's token_dim, as PEFT calls it.
template <class A>
consteval index token_width() {
  if constexpr (is_prefix<A>)
    return A::key_width;
  else
    return A::width;
}
/// The configuration of an adapter that puts virtual tokens before texts.
template <class A>
std::string make_virtual_config(const std::string& base_name) {
  using M = typename A::base_model;
  const auto number = [](const char* key, index value) {
    return std::string("  \"") + key + "\": " + std::to_string(value) + ",\n";
  };
  const bool prefix = is_prefix<A>;
  constexpr attention_shape self = virtual_self<M>;
  const index heads = prefix ? self.kv_heads : self.heads;
  return "{\n  \"base_model_name_or_path\": " +
         (base_name.empty() ? "null" : json_quoted(base_name)) + ",\n" +
         (prefix ? number("encoder_hidden_size", token_width<A>()) : "") +
         "  \"inference_mode\": true,\n" + number("num_attention_heads", heads) +
         number("num_layers", virtual_layers<M>()) +
         number("num_transformer_submodules", prefix && is_t5<M> ? 2 : 1) +
         number("num_virtual_tokens", A::virtual_count) + "  \"peft_type\": " +
         (prefix ? "\"PREFIX_TUNING\",\n  \"prefix_projection\": false,\n"
                 : "\"PROMPT_TUNING\",\n  \"prompt_tuning_init\": \"RANDOM\",\n") +
         "  \"task_type\": \"" + peft_task<M>() +
         "\",\n  \"token_dim\": " + std::to_string(token_width<A>()) + "\n}\n";
}
/// Checks that a configuration is one of an adapter of type `A`; gives the rows of its tensor. PEFT
/// gives an encoder-decoder's soft tokens as many rows again, which it does not read.
template <class A>
result<index> check_virtual_config(std::span<const std::byte> text, const std::string& where) {
  using M = typename A::base_model;
  std::vector<peft_rule> rules;
  if (is_prefix<A>)
    rules = {{"peft_type", {"\"PREFIX_TUNING\""}},
             {"prefix_projection", {"false", "true"}},
             {"encoder_hidden_size"},
             {"init_weights"}};
  else
    rules = {{"peft_type", {"\"PROMPT_TUNING\""}}, {"prompt_tuning_init"},
             {"prompt_tuning_init_text"},          {"prompt_tuning_init_state_dict_path"},
             {"tokenizer_name_or_path"},           {"tokenizer_kwargs"}};
  for (const char* const one :
       {"num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers"})
    rules.push_back({one});
  if (is_t5<M>)
    rules.push_back({"num_transformer_submodules", {"1", "2"}});
  else
    rules.push_back({"num_transformer_submodules", {"1", "null"}});
  for (const peft_rule& one : usual_peft_rules()) rules.push_back(one);
  const auto config = read_peft_config(text, where, rules);
  if (!config) return config.error();
  if (auto fit = check_peft_number(*config, "num_virtual_tokens", A::virtual_count, 0); !fit)
    return fit.error();
  constexpr index width = token_width<A>();
  if (auto fit = check_peft_number(*config, "token_dim", width, static_cast<double>(width)); !fit)
    return fit.error();
  const auto* const stacks = config->find("num_transformer_submodules");
  const bool twice = !is_prefix<A> && stacks && stacks->value == "2";
  return (twice ? 2 : 1) * A::virtual_count;
}
/// The place of a layer's keys and values in PEFT's files. An encoder-decoder's layers take every
/// second place there and begin anew at the end. Of an even number, two have one in common.
template <class M>
constexpr index virtual_place(index layer) {
  return is_t5<M> ? 2 * layer % virtual_layers<M>() : layer;
}
/// Calls f(place in memory, place in the file) for each number of an adapter. Keys of a model that
/// rotates neighbours have their channels in another order there.
template <class A, class F>
void each_virtual_number(F&& f) {
  using M = typename A::base_model;
  index all = 0;
  A::visit([&](const parameter_path&, const tensor_info& info) { all = info.size(); },
           parameter_path{});
  if constexpr (is_prefix<A> && is_t5<M>) {
    constexpr index both = 2 * A::key_width, layers = virtual_layers<M>();
    for (index i = 0; i < all; ++i) {
      const index layer = i / both % layers;
      f(i, i + (virtual_place<M>(layer) - layer) * both);
    }
  } else if constexpr (is_prefix<A> && hf_kind_of<M>() == hf_kind::llama) {
    constexpr index kv = A::key_width;
    placement heads;
    heads.half_heads = hf_layout_of<M>().rope_heads;
    for (index i = 0; i < all; ++i) f(i, i / kv % 2 == 0 ? i - i % kv + heads.feature(i % kv) : i);
  } else {
    for (index i = 0; i < all; ++i) f(i, i);
  }
}

}  // namespace detail

/// Saves soft tokens or a prefix for PEFT and load_peft() into a directory that exists. `base_name`
/// is what PEFT loads its base by. The tensors' file also says a hash of the base. Errors:
/// errc::io; errc::invalid for an adapter without a base; that of `a` if it is not valid().
/// Of an even number of decoder layers L, PEFT's layers l and l + L/2 of a T5 have one prefix:
/// other ones are errc::unsupported.
template <class A, class T>
requires detail::has_virtual_rows<A> result<void> save_peft(const weights<A, T>& a,
                                                            const std::string& directory,
                                                            const std::string& base_name = {})
LINNET_TRY {
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("save_peft", a.tree()); !fit) return fit;
  auto parts = detail::leaves_of(a);
  auto reordered = a.clone();
  if (!reordered.valid()) return reordered.error();
  const T* const from = static_cast<const T*>(a.data());
  T* const to = static_cast<T*>(reordered.data());
  std::fill_n(to, A::parameters(), T(0));
  detail::each_virtual_number<A>([&](index i, index at) { to[at] = from[i]; });
  bool kept = true;
  detail::each_virtual_number<A>([&](index i, index at) { kept = kept && to[at] == from[i]; });
  if (!kept)
    return error{errc::unsupported, "save_peft", "prompt_embeddings",
                 "one prefix for two decoder layers, as PEFT has it of an even number; "
                 "save_safetensors() keeps others",
                 "two"};
  parts[0].data = reinterpret_cast<std::byte*>(to);
  const detail::placement at{"prompt_embeddings", parts[0].rows, parts[0].columns};
  if (auto saved = detail::save_parts(
          directory + "/adapter_model.safetensors", {{parts[0], at, {}}},
          {{"format", "pt"},
           {std::string(detail::base_note), std::to_string(a.tree().base.hash())}});
      !saved)
    return saved;
  return write_file(directory + "/adapter_config.json",
                    detail::bytes_of(detail::make_virtual_config<A>(base_name)));
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Loads soft tokens or a prefix that PEFT or save_peft() saved into those that adapt() made for a
/// base. `a` is untouched unless all of it fits. Errors: errc::io, errc::malformed, errc::missing;
/// errc::unsupported for another kind of adapter. Also errc::mismatch for another number of virtual
/// tokens, another width, and another base by its hash; errc::invalid for an adapter without a
/// base.
template <class A, class T>
requires detail::has_virtual_rows<A> result<void> load_peft(weights<A, T>& a,
                                                            const std::string& directory,
                                                            peft_base base = peft_base::same)
LINNET_TRY {
  if (!a.valid()) return a.error();
  if (auto fit = detail::check_base("load_peft", a.tree()); !fit) return fit;
  const std::string path = directory + "/adapter_config.json";
  const auto text = read_file(path);
  if (!text) return text.error();
  const auto rows = detail::check_virtual_config<A>(*text, path);
  if (!rows) return rows.error();
  const auto file = read_safetensors(directory + "/adapter_model.safetensors");
  if (!file) return file.error();
  if (auto fit = detail::check_adapter_file(a.tree(), *file, base, true); !fit) return fit;
  auto parts = detail::leaves_of(a);
  std::vector<T> read(static_cast<std::size_t>(*rows * parts[0].columns));
  parts[0].rows = *rows;
  parts[0].data = reinterpret_cast<std::byte*>(read.data());
  const detail::placement at{"prompt_embeddings", parts[0].rows, parts[0].columns};
  if (auto loaded = detail::load_parts(*file, {{parts[0], at, {}}}, {}, nonfinite::keep,
                                       [](std::string_view) { return false; });
      !loaded)
    return loaded;
  T* const to = static_cast<T*>(a.data());
  const T* const from = read.data();
  detail::each_virtual_number<A>([&](index i, index place) { to[i] = from[place]; });
  return {};
}
LINNET_OR_OUT_OF_MEMORY(directory)

/// Saves the prefix that a projection makes, as PEFT does. The projection is not in the file, so
/// nothing can be loaded into one. Errors: those of fold() and of saving the prefix.
template <class M, index Count, index Hidden, class T>
result<void> save_peft(const weights<adapted<M, prefix_projection<Count, Hidden>>, T>& a,
                       const std::string& directory, const std::string& base_name = {}) {
  const auto prefix = fold(a);
  return prefix ? save_peft(*prefix, directory, base_name) : result<void>(prefix.error());
}

LINNET_NAMESPACE_END
