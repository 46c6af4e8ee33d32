// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Making adapters that put virtual tokens before texts.

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include <linnet/adapt/prefix_tuning.hpp>
#include <linnet/adapt/prompt_tuning.hpp>
#include <linnet/model/initialize.hpp>

LINNET_NAMESPACE_BEGIN

/// How soft tokens begin, by PEFT's words.
enum class prompt_start {
  random,      ///< normal values of deviation 1
  vocabulary,  ///< the embeddings of tokens that are drawn (PEFT's SAMPLE_VOCAB)
  text         ///< those of prompt_options::text, repeated or cut to the number of soft tokens
};

/// Options of prompt_tuning.
struct prompt_options {
  prompt_start start = prompt_start::random;
  std::span<const token> text{};  ///< of prompt_start::text
};

/// How a prefix of keys and values begins.
enum class prefix_start {
  random,  ///< normal values of deviation 1, as PEFT's
  zero     ///< zeros: keys that take a share of the attention, and give nothing
};

/// Soft tokens before the texts of packed weights, which must outlive them and not move. Errors:
/// errc::invalid for a text that is empty or has tokens outside the vocabulary. Also
/// errc::unsupported for a start from the vocabulary where the embedding is factorised,
/// errc::out_of_memory, and the error of `base` if it is not valid().
template <class Method, class M, class T>
requires std::is_same_v<Method, prompt_tuning<Method::virtual_count>>
    result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base,
                                                 const prompt_options& how = {}, seed s = {})
LINNET_TRY {
  constexpr index count = Method::virtual_count;
  const auto refuse = [](errc code, const char* field, const char* expected, std::string got) {
    return error{code, "adapt", field, expected, std::move(got)};
  };
  const auto most = static_cast<token>(M::shape.vocabulary);
  if (how.start == prompt_start::text) {
    if (how.text.empty())
      return refuse(errc::invalid, "prompt_options.text", "at least one token", "none");
    for (const token t : how.text)
      if (t < 0 || t >= most)
        return refuse(errc::invalid, "prompt_options.text", "tokens of the vocabulary",
                      std::to_string(t));
  }
  constexpr index width = adapted<M, Method>::width;
  constexpr bool widened = [] {  // an encoder's soft tokens are as wide as its table
    if constexpr (detail::is_decoder<M>) return M::factorised;
    return false;
  }();
  if (widened && how.start != prompt_start::random)
    return refuse(errc::unsupported, "prompt_options.start",
                  "random, as this embedding is factorised", "another");
  auto made = detail::begin_adapter<Method>(base);
  if (!made) return made;
  if (how.start == prompt_start::random) {
    initialize(*made, s);
    return made;
  }
  random_stream random(s, 0);
  for (index i = 0; i < count; ++i) {
    const token t = how.start == prompt_start::text
                        ? how.text[static_cast<std::size_t>(i) % how.text.size()]
                        : static_cast<token>(random.bits() % static_cast<std::uint64_t>(most));
    for (index j = 0; j < width; ++j)
      made->tree().prompt[i * width + j] = base.tree().embedding.at(t, j, width);
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("adapt")

/// A prefix of keys and values before the texts of packed weights, which must outlive it and not
/// move. Errors: errc::out_of_memory, and the error of `base` if it is not valid().
template <class Method, class M, class T>
requires std::is_same_v<Method, prefix_tuning<Method::virtual_count>>
    result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base,
                                                 prefix_start start = prefix_start::random,
                                                 seed s = {})
LINNET_TRY {
  auto made = detail::begin_adapter<Method>(base);
  if (made && start == prefix_start::random) initialize(*made, s);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("adapt")

LINNET_NAMESPACE_END
