// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Texts that a model writes itself, to train another by its logits without data (LLM-QAT, Liu et
/// al. 2023).

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of generate_texts().
struct text_generation_options {
  index length = 0;    ///< tokens of each text; 0 for the model's limits.target or context
  index first = 0;     ///< number of the first text
  index texts = 0;     ///< how many; 0 for all of them from `first` on
  index shortest = 3;  ///< tokens that are greedy in the first pass over the vocabulary, the start
                       ///< among them; the second has one more, and so on
  index passes = 3;    ///< over the vocabulary
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("length", self.length, detail::count(0, "0 takes limits.target"));
    f("first", self.first, detail::count(0));
    f("texts", self.texts, detail::count(0, "0 takes all"));
    f("shortest", self.shortest, detail::count(1));
    f("passes", self.passes, detail::option_range{.least = 1, .most = 1000});
  }
};

/// Texts of equal length, and what follows each of their tokens.
struct generated_texts {
  index length = 0;
  std::vector<token> tokens{}, labels{};  ///< [texts, length]

  /// Number of texts.
  index texts() const { return length > 0 ? std::ssize(tokens) / length : 0; }
  /// The batch of `count` texts from number `first` on; they have to be there.
  decoder_batch batch(index first, index count) const {
    return {tokens.data() + first * length, labels.data() + first * length, count, length};
  }
};

/// Lets a model write texts (Liu et al. 2023): each token of the vocabulary begins one in each
/// pass. Text n begins with token n modulo the vocabulary. A few more tokens are the most likely
/// ones, all that follow are drawn from the whole softmax. End tokens do not end a text.
/// limits.batch texts are written at a time. Text n is a function of the seed and n, for any number
/// of threads. Of models with coded weights a batch may change the last bits of logits, so there
/// limits.batch counts, too. Errors: errc::invalid for options and limits out of their range, and
/// for logits without a maximum; errc::out_of_memory.
template <class M, class T>
result<generated_texts> generate_texts(const packed<M, T>& p, const limits& l,
                                       const text_generation_options& how = {}) LINNET_TRY {
  static_assert(!M::encodes && session<M, T>::ids_per_token == 1,
                "linnet::generate_texts: a decoder of tokens writes the texts");
  static_assert(M::block_tokens == 1,
                "linnet::generate_texts: tokens of one block see each other, so texts are not "
                "written one token after the other");
  constexpr const char* where = "generate_texts";
  const auto refuse = [&](const char* field, std::string expected, index got) {
    return linnet::error{errc::invalid, where, field, std::move(expected), std::to_string(got)};
  };
  if (auto fit = detail::acceptable(where, "text_generation_options", how); !fit)
    return fit.error();
  const index all = how.passes * M::vocabulary, left = all - how.first;
  if (left < how.texts)
    return refuse("text_generation_options.texts",
                  "no more than " + std::to_string((std::max)(left, index{0})) +
                      ", passes times the vocabulary less those before `first`",
                  how.texts);
  auto run = session<M, T>::open(p, l);
  if (!run) return run.error();
  if (how.length > run->capacity())
    return refuse("text_generation_options.length",
                  "no more than " + std::to_string(run->capacity()) + ", limits.target",
                  how.length);
  const index texts = how.texts ? how.texts : (std::max)(left, index{0});
  generated_texts made{how.length ? how.length : run->capacity()};
  if (!detail::has_memory(2 * detail::array_bytes(texts, made.length, sizeof(token))))
    return detail::out_of_memory(where);
  made.tokens.resize(static_cast<std::size_t>(texts * made.length));
  made.labels.resize(made.tokens.size());
  std::vector<token> now, order(static_cast<std::size_t>(M::vocabulary));
  for (index at = 0; at < texts; at += l.batch) {
    const index count = (std::min)(l.batch, texts - at);
    std::vector<sampler> draw;
    now.clear();
    for (index n = how.first + at; n < how.first + at + count; ++n) {
      now.push_back(static_cast<token>(n % M::vocabulary));
      random_stream own(seed{how.seed}, static_cast<std::uint64_t>(n));
      const std::uint64_t high = own.bits();
      draw.emplace_back(sampling_options{.seed = high << 32 | own.bits()});
    }
    run->reset();
    for (index i = 0; i < made.length; ++i) {
      const std::span<T> logits = run->feed(now, count, {});
      if (logits.empty())
        return linnet::error{errc::invalid, where, "limits", "limits that a text fits",
                             std::string(run->last_refusal())};
      for (index b = 0; b < count; ++b) {
        const auto row = logits.subspan(static_cast<std::size_t>(b * M::vocabulary), order.size());
        const bool greedily = i + 1 < how.shortest + (how.first + at + b) / M::vocabulary;
        token& t = now[static_cast<std::size_t>(b)];
        const auto place = static_cast<std::size_t>((at + b) * made.length + i);
        made.tokens[place] = t;
        t = greedily ? detail::most_likely(row) : draw[static_cast<std::size_t>(b)](row, order);
        if (t == no_token)
          return linnet::error{
              errc::invalid, where, "logits", "finite numbers",
              "none that is largest, in text " + std::to_string(how.first + at + b)};
        made.labels[place] = t;
      }
    }
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("generate_texts")

LINNET_NAMESPACE_END
