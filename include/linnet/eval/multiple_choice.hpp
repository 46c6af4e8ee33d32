// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Multiple choice by log-likelihood: which of several texts a model finds most likely.

#include <map>
#include <string>
#include <string_view>

#include <linnet/eval/estimates.hpp>
#include <linnet/eval/session_scorer.hpp>

LINNET_NAMESPACE_BEGIN

/// A question of a test. Its texts are context + " " + option + ending. There is no space without a
/// context, nor behind one that ends with a line.
struct eval_item {
  std::string context{};               ///< text before the options; may be empty
  std::vector<std::string> options{};  ///< one alone where a word or a number is to be found
  index answer = 0;                    ///< the right option
  std::string group{};                 ///< a phenomenon or a subject, for figures by group
  std::string ending{};                ///< text behind an option, its space included
};

/// The score that decides between options.
enum class choice_by {
  whole,         ///< the probability of the whole text
  continuation,  ///< that of the option given the context, or of the ending given both
  per_byte       ///< the log of continuation per byte, so that long options are no worse for it
};

/// Log-likelihood of one option under a model, and its lengths. Logarithms are natural.
struct option_score {
  double whole = 0;         ///< log-probability of the text, from where the options' tokens differ
  double continuation = 0;  ///< log-probability that choice_by::continuation compares
  index bytes = 0;          ///< bytes of the continuation, without a leading space
  index tokens = 0;         ///< tokens of the continuation
  bool best = true;         ///< whether greedy decoding would have written it

  /// The score by which options are compared.
  double by(choice_by how) const {
    return how == choice_by::whole          ? whole
           : how == choice_by::continuation ? continuation
                                            : continuation / static_cast<double>(bytes);
  }
};

/// Scores of the options of one item.
struct item_score {
  std::vector<option_score> options;
  bool cut = false;  ///< the text was too long: the beginning of the context was left out

  /// The best option, the first of several; -1 if no score is finite.
  index chosen(choice_by how) const {
    index best = -1;
    for (std::size_t i = 0; i < options.size(); ++i)
      if (is_finite(options[i].by(how)) &&
          (best < 0 || options[i].by(how) > options[static_cast<std::size_t>(best)].by(how)))
        best = static_cast<index>(i);
    return best;
  }
  /// Whether another option has the best score too.
  bool tied(choice_by how) const {
    const index best = chosen(how);
    return best >= 0 && std::count_if(options.begin(), options.end(), [&](const auto& o) {
                          return o.by(how) == options[static_cast<std::size_t>(best)].by(how);
                        }) > 1;
  }
  /// Softmax over all options' scores, at one option: the model's confidence in it. 0 if no score
  /// is finite.
  double confidence(choice_by how, index option) const {
    const index best = chosen(how);
    if (best < 0 || !is_finite(options[static_cast<std::size_t>(option)].by(how))) return 0;
    const double top = options[static_cast<std::size_t>(best)].by(how);
    double sum = 0;
    for (const option_score& o : options)
      if (is_finite(o.by(how))) sum += std::exp(o.by(how) - top);
    return std::exp(options[static_cast<std::size_t>(option)].by(how) - top) / sum;
  }
};

/// How the texts of an item become tokens.
struct choice_options {
  token opening = 0;  ///< the token that stands before a text
  bool joined =
      true;  ///< text is encoded as a whole; or the continuation apart from what is before
};

namespace detail {

inline std::size_t common_prefix(std::span<const token> a, std::span<const token> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

/// The texts of an item as tokens.
struct choice_tokens {
  std::vector<std::vector<token>> tokens;  ///< of each option, the opening token first
  std::vector<std::size_t> borders;        ///< where each continuation begins
  std::size_t shared = 0;                  ///< first tokens that all have in common
};

template <class Encode>
choice_tokens tokenized(const eval_item& item, const Encode& encode, const choice_options& how) {
  choice_tokens p;
  const auto add = [&](std::vector<token>& to, std::string_view text) {
    for (const token t : encode(text)) to.push_back(t);
  };
  const std::string between = item.context.empty() || item.context.ends_with('\n') ? "" : " ";
  for (const std::string& option : item.options) {
    const std::string given = item.ending.empty() ? item.context : item.context + between + option;
    const std::string rest = item.ending.empty() ? between + option : item.ending;
    std::vector<token> before{how.opening}, all{how.opening};
    add(before, given);
    if (how.joined) {
      add(all, given + rest);
    } else {
      all = before;
      add(all, rest);
    }
    p.borders.push_back(common_prefix(all, before));
    p.tokens.push_back(std::move(all));
  }
  // One border for all options behind one context: the same tokens must be given to each.
  const std::size_t first = *std::min_element(p.borders.begin(), p.borders.end());
  if (item.ending.empty()) std::fill(p.borders.begin(), p.borders.end(), first);
  p.shared = first;
  for (const auto& t : p.tokens) p.shared = (std::min)(p.shared, common_prefix(p.tokens[0], t));
  return p;
}

}  // namespace detail

/// Scores the options of an item. `encode(text)` gives a text's tokens without special ones.
///
/// The border: a tokenizer may merge what stands on both sides of it into one token. Joined, that
/// token cannot be divided; it and all behind it belong to the continuation. If it happens to one
/// option, the continuations of all begin there. So "whole" and "continuation" choose the same
/// where there is no ending, and every option is a path from the same given tokens. Apart, the
/// space is the continuation's first character, and a text may get tokens that its encoding as a
/// whole would not have.
///
/// What all options begin with is computed once and not scored: it cancels. The options run
/// together where the scorer can (score_all). Texts beyond the model's context lose the beginning
/// of the context, all options equally (`cut`). An option that is too long by itself is scored in
/// windows.
///
/// Errors: errc::invalid for an item without options, an empty option, or an answer that is none of
/// them. Also for tokens that the model refuses, be it for want of blocks.
template <loglikelihood_scorer P, class Encode>
result<item_score> score_options(P& paths, const Encode& encode, const eval_item& item,
                                 const choice_options& how) LINNET_TRY {
  const auto wrong = [](std::string what, std::string expected, std::string got) {
    return error{errc::invalid, "score_options", std::move(what), std::move(expected),
                 std::move(got)};
  };
  if (item.options.empty()) return wrong("options", "at least one", "none");
  for (std::size_t i = 0; i < item.options.size(); ++i)
    if (item.options[i].empty()) return wrong("option " + std::to_string(i), "a text", "none");
  if (item.answer < 0 || item.answer >= std::ssize(item.options))
    return wrong("answer", "0 to " + std::to_string(std::ssize(item.options) - 1),
                 std::to_string(item.answer));

  const detail::choice_tokens p = detail::tokenized(item, encode, how);
  item_score made;
  std::size_t longest = 0;
  for (const auto& tokens : p.tokens) longest = (std::max)(longest, tokens.size());
  const auto room = static_cast<std::size_t>(paths.longest()) + 1;  // the last is only scored
  const std::size_t drop = longest > room ? longest - room : 0;
  made.cut = drop > 0;
  std::vector<token> given{how.opening};
  const auto& first = p.tokens[0];
  const auto keep_from = 1 + (std::min)(drop, p.shared - 1);
  given.insert(given.end(), first.begin() + static_cast<index>(keep_from),
               first.begin() + static_cast<index>(p.shared));
  const bool windows = drop > p.shared - 1;
  const auto refused = [&] {
    std::string expected = detail::scorable;  // g++ 12 sees a false overflow in a sum of strings
    expected += ", and a prefix within limits.chunk";
    return detail::not_scored(paths, "score_options", expected);
  };
  if (!windows && !paths.begin(std::span<const token>(given), {})) return refused();

  std::vector<std::vector<token_score>> scores(p.tokens.size());
  std::vector<continuation> rests;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const std::span<const token> rest = std::span(p.tokens[i]).subspan(p.shared);
    scores[i].resize(rest.size());
    rests.push_back({rest, scores[i]});
    if (!windows) continue;
    std::vector<token> alone = given;
    alone.insert(alone.end(), rest.begin(), rest.end());
    if (!detail::score_all_windows(paths, std::span<const token>(alone), rests[i].scores))
      return refused();
  }
  if (!windows && !score_all(paths, std::span<const continuation>(rests))) return refused();
  for (std::size_t i = 0; i < rests.size(); ++i) {
    const std::string& text = item.ending.empty() ? item.options[i] : item.ending;
    option_score o{.bytes = std::ssize(text) - (text[0] == ' ' && text.size() > 1)};
    for (std::size_t j = 0; j < scores[i].size(); ++j) {
      o.whole += scores[i][j].log_probability;
      if (p.shared + j < p.borders[i]) continue;
      o.continuation += scores[i][j].log_probability;
      o.best = o.best && scores[i][j].best;
      ++o.tokens;
    }
    made.options.push_back(o);
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("score_options")

/// Accuracy of guessing: the mean over items of one over the number of options. 0 for no items, and
/// of items with only one option, which are texts to write.
inline double chance_level(std::span<const eval_item> items) {
  double sum = 0;
  for (const eval_item& item : items)
    if (item.options.size() > 1) sum += 1 / static_cast<double>(item.options.size());
  return items.empty() ? 0 : sum / static_cast<double>(items.size());
}

/// Metrics of a multiple-choice test: accuracies with their standard errors.
struct choice_metrics {
  accuracy answers;     ///< with the error of independent items
  estimate clustered;   ///< share of right answers, error over groups (of one group, over items)
  estimate confidence;  ///< mean share of the right option in the softmax
  index ties = 0;       ///< items with more than one best option; the first was chosen
  index cut = 0;        ///< items that lost the beginning of their context
};

/// Sums up the first scored items, in n log n steps. Where memory lacks there are no figures, of 0
/// answers.
inline choice_metrics summarize(std::span<const eval_item> items,
                                std::span<const item_score> scored, choice_by how) LINNET_TRY {
  choice_metrics f;
  std::vector<double> right, sure;
  std::vector<index> groups;
  std::map<std::string_view, index> numbers;  // of the groups, in the order in which they come
  for (std::size_t i = 0; i < (std::min)(items.size(), scored.size()); ++i) {
    const bool is_right = scored[i].chosen(how) == items[i].answer;
    f.answers.add(is_right);
    f.ties += scored[i].tied(how);
    f.cut += scored[i].cut;
    right.push_back(is_right);
    sure.push_back(scored[i].confidence(how, items[i].answer));
    groups.push_back(numbers.emplace(items[i].group, std::ssize(numbers)).first->second);
  }
  f.clustered = numbers.size() > 1 ? mean_estimate(right, groups) : mean_estimate(right);
  f.confidence = numbers.size() > 1 ? mean_estimate(sure, groups) : mean_estimate(sure);
  const bool complete = is_finite(f.clustered.value) && is_finite(f.confidence.value);
  return complete ? f : choice_metrics{};
}
LINNET_WITHOUT_MEMORY(return {})

LINNET_NAMESPACE_END
