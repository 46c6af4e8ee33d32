// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Few-shot prompts: solved examples before a question (Brown et al. 2020).

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <linnet/core/random.hpp>
#include <linnet/eval/multiple_choice.hpp>

LINNET_NAMESPACE_BEGIN

/// How examples are chosen and written.
struct few_shot_options {
  index examples = 5;           ///< before each item
  bool drawn = true;            ///< at random; or the first ones, as MMLU's are published
  linnet::seed seed{1};         ///< of what is drawn: an item's examples depend on it, the item's
                                ///< number and the number of examples to draw from
  std::string before = " ";     ///< between an example's context and its right option
  std::string behind = "\n\n";  ///< behind an example
};

/// Items with examples before their contexts. An example is context + `before` + right option +
/// ending + `behind`, without `before` if it has no context. Examples of an item come from those of
/// its group. They are never the item itself: one of the same context and options is left out.
/// Errors: errc::invalid for fewer than no examples, or an item whose group has too few of them.
inline result<std::vector<eval_item>> few_shot(std::span<const eval_item> items,
                                               std::span<const eval_item> from,
                                               const few_shot_options& how = {}) LINNET_TRY {
  if (how.examples < 0)
    return error{errc::invalid, "few_shot", "few_shot_options.examples", "at least 0",
                 std::to_string(how.examples)};
  std::map<std::string_view, std::vector<std::size_t>> groups;  // numbers of their examples
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (from[i].answer < 0 || from[i].answer >= std::ssize(from[i].options))
      return error{errc::invalid, "few_shot", "example " + std::to_string(i),
                   "an answer that is one of its options", std::to_string(from[i].answer)};
    groups[from[i].group].push_back(i);
  }
  const auto wanted = static_cast<std::size_t>(how.examples);
  std::vector<eval_item> made(items.begin(), items.end());
  for (std::size_t n = 0; n < items.size(); ++n) {
    std::vector<std::size_t>& left = groups[items[n].group];
    random_stream random(how.seed, n);
    std::vector<std::size_t> swaps;  // the steps of a shuffle, taken back for the next item
    std::string shown;
    std::size_t found = 0;
    for (std::size_t k = 0; k < left.size() && found < wanted; ++k) {
      const auto rest = static_cast<std::uint32_t>(left.size() - k);
      swaps.push_back(how.drawn ? k + random.below(rest) : k);
      std::swap(left[k], left[swaps.back()]);
      const eval_item& one = from[left[k]];
      if (one.context == items[n].context && one.options == items[n].options) continue;
      ++found;
      shown += one.context;
      if (!one.context.empty()) shown += how.before;
      shown += one.options[static_cast<std::size_t>(one.answer)];
      (shown += one.ending) += how.behind;
    }
    for (std::size_t k = swaps.size(); k-- > 0;) std::swap(left[k], left[swaps[k]]);
    if (found < wanted)
      return error{errc::invalid, "few_shot",
                   "examples of the group '" + detail::printable(items[n].group) + "'",
                   "at least " + std::to_string(wanted) + " beside the item itself",
                   std::to_string(found)};
    made[n].context.insert(0, shown);
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("few_shot")

LINNET_NAMESPACE_END
