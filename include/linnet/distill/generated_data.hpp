// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training data that a teacher writes: one function that runs every method, with filters and
/// counts.

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <linnet/distill/teacher_dialogue.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of generate_data().
struct data_generation_options {
  index together = 32;     ///< seeds whose requests go to the teacher in one call
  index most_asked = 256;  ///< requests about one seed
  index longest = 0;       ///< bytes of a target; longer ones are refused; 0 takes all
  double least_score = 0;  ///< nats per token that the teacher gives a target, at least; negative;
                           ///< 0 asks for no score

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("together", self.together, detail::count(1));
    f("most_asked", self.most_asked, detail::count(1));
    f("longest", self.longest, detail::count(0, "0 takes all"));
    f("least_score", self.least_score, detail::between(-1000, 0, "0 asks for no score"));
  }
};

/// Counts of the items of a run, and of those that filters refused.
struct data_statistics {
  index seeds = 0;     ///< that were asked about
  index asked = 0;     ///< different requests to the teacher, those of a record among them
  index proposed = 0;  ///< items, good or not
  index accepted = 0;  ///< items that passed all filters
  std::vector<std::pair<std::string, index>> refused{};  ///< items by filter, in order of the names

  /// Part of the proposed items that were accepted; 0 of none.
  double acceptance() const {
    return proposed > 0 ? static_cast<double>(accepted) / static_cast<double>(proposed) : 0;
  }
  /// Items that a filter refused.
  index refused_by(std::string_view filter) const {
    for (const auto& [name, count] : refused)
      if (name == filter) return count;
    return 0;
  }
  /// One line for people: "3 of 5 items accepted, 7 requests; refused: wrong answer 2".
  std::string text() const {
    std::string line = std::to_string(accepted) + " of " + std::to_string(proposed) +
                       " items accepted, " + std::to_string(asked) + " requests";
    for (std::size_t i = 0; i < refused.size(); ++i)
      line += (i == 0 ? "; refused: " : ", ") + refused[i].first + ' ' +
              std::to_string(refused[i].second);
    return line;
  }
};

/// Items that a teacher has written, in the order of their seeds.
struct generated_data {
  std::vector<training_item> items{};
  data_statistics statistics{};
};

namespace detail {

/// A method of any type, as generate_data() calls it.
struct data_method {
  const void* object;
  void (*call)(const void*, teacher_dialogue&);
};

/// Runs a method over seeds; see generate_data().
class data_generator {
 public:
  data_generator(std::span<const seed_item> seeds, data_method method, teacher_ref teacher,
                 const data_generation_options& how)
      : seeds_(seeds), method_(method), teacher_(teacher), how_(how) {}

  result<generated_data> run() {
    if (auto fit = acceptable(where, "data_generation_options", how_); !fit) return fit.error();
    if (auto fit = check_seeds(); !fit) return fit.error();
    made_.statistics.seeds = std::ssize(seeds_);
    for (const seed_item& seed : seeds_) known_.push_back(words_of(seed.question));
    for (index first = 0; first < std::ssize(seeds_); first += how_.together)
      if (auto done = run(first, (std::min)(how_.together, std::ssize(seeds_) - first)); !done)
        return done.error();
    data_statistics& counts = made_.statistics;
    counts.accepted = std::ssize(made_.items);
    counts.refused.assign(refused_.begin(), refused_.end());
    if (made_.items.empty())
      return failure(errc::invalid, where, "items", "at least 1 that every filter accepts",
                     "none: " + counts.text());
    return std::move(made_);
  }

 private:
  static constexpr const char* where = "generate_data";
  using request_key = std::tuple<std::string, std::string, index>;

  result<void> check_seeds() const {
    if (seeds_.empty()) return failure(errc::invalid, where, "seeds", "at least 1", "0");
    for (std::size_t i = 0; i < seeds_.size(); ++i) {
      const seed_item& s = seeds_[i];
      const std::string name = "seed " + std::to_string(i);
      if (trimmed(s.question).empty())
        return failure(errc::invalid, where, name, "a question that is not empty", "an empty one");
      if (!is_utf8(s.question) || !is_utf8(s.answer) || !is_utf8(s.other))
        return failure(errc::invalid, where, name, "texts in UTF-8", "other bytes");
    }
    return {};
  }
  /// The seeds from number `first` on: asks until no method waits any more.
  result<void> run(index first, index count) {
    std::vector<std::vector<std::string>> answers(static_cast<std::size_t>(count));
    std::vector<bool> ended(answers.size());
    for (bool waits = true; waits;) {
      waits = false;
      std::vector<teacher_request> wanted;
      std::vector<std::pair<std::size_t, request_key>> places;  // of answers to come
      for (std::size_t i = 0; i < answers.size(); ++i) {
        if (ended[i]) continue;
        const index number = first + static_cast<index>(i);
        teacher_dialogue talk(seeds_, number, answers[i]);
        method_.call(method_.object, talk);
        if (!talk.waiting()) {
          ended[i] = true;
          proposed_.resize((std::max)(proposed_.size(), i + 1));
          proposed_[i].assign(talk.proposed().begin(), talk.proposed().end());
          continue;
        }
        waits = true;
        const auto asked = talk.asked();
        if (std::ssize(asked) > how_.most_asked)
          return failure(
              errc::invalid, where, "requests about seed " + std::to_string(number),
              "at most " + std::to_string(how_.most_asked) + ", data_generation_options.most_asked",
              std::to_string(asked.size()));
        for (std::size_t k = answers[i].size(); k < asked.size(); ++k) {
          request_key key(asked[k].prompt, asked[k].against, asked[k].draw);
          if (answered_.try_emplace(key).second) wanted.push_back(asked[k]);
          places.emplace_back(i, std::move(key));
        }
      }
      if (!wanted.empty()) {
        auto texts = teacher_.generate(wanted);
        if (!texts) return texts.error();
        made_.statistics.asked += std::ssize(wanted);
        for (std::size_t k = 0; k < wanted.size(); ++k)
          answered_[{wanted[k].prompt, wanted[k].against, wanted[k].draw}] = std::move((*texts)[k]);
      }
      for (const auto& [i, key] : places) answers[i].push_back(answered_[key]);
    }
    for (auto& items : proposed_)
      for (proposed_item& one : items)
        if (auto done = filter(one); !done) return done;
    proposed_.clear();
    return {};
  }
  /// Counts an item, and keeps it unless a filter refuses it.
  result<void> filter(proposed_item& one) {
    ++made_.statistics.proposed;
    std::string refused = std::move(one.refused_by);
    std::vector<std::uint64_t> words;
    if (refused.empty() && trimmed(one.item.target).empty()) refused = "empty target";
    if (refused.empty() && how_.longest > 0 && std::ssize(one.item.target) > how_.longest)
      refused = "long target";
    if (refused.empty() && !one.text.empty()) {
      words = words_of(one.text);
      for (const auto& known : known_)
        if (rouge_l(words, known, one.most_overlap) > one.most_overlap) refused = "not new";
    }
    if (refused.empty() && how_.least_score < 0) {
      const auto score = teacher_.score(one.item.prompt, one.item.target);
      if (!score) return score.error();
      if (*score < how_.least_score) refused = "low score";
    }
    if (!refused.empty()) {
      ++refused_[refused];
      return {};
    }
    if (!words.empty()) known_.push_back(std::move(words));
    made_.items.push_back(std::move(one.item));
    return {};
  }

  std::span<const seed_item> seeds_;
  data_method method_;
  teacher_ref teacher_;
  data_generation_options how_;
  generated_data made_{};
  std::map<request_key, std::string> answered_{};
  std::vector<std::vector<proposed_item>> proposed_{};
  std::vector<std::vector<std::uint64_t>> known_{};  ///< texts that new ones must not be close to
  std::map<std::string, index> refused_{};
};

}  // namespace detail

/// Lets a method make training items from seeds with a teacher's help. The result is a function of
/// the arguments and the teacher's answers: seeds come in order, and equal requests are asked once.
/// With a answer_recorder, a run that was interrupted continues exactly where it was. Errors:
/// errc::invalid for options out of range, no seeds, and seeds that are empty or not UTF-8. Also
/// for a method that asks without end, and for filters that leave no item. Those of the teacher:
/// see teacher_ref.
template <class Method>
requires std::invocable<const Method&, teacher_dialogue&> result<generated_data> generate_data(
    std::span<const seed_item> seeds, const Method& method, teacher_ref teacher,
    const data_generation_options& how = {})
LINNET_TRY {
  if constexpr (detail::has_ranges<Method>)
    if (auto fit = detail::acceptable("generate_data", Method::name, method); !fit)
      return fit.error();
  const auto call = [](const void* object, teacher_dialogue& d) {
    (*static_cast<const Method*>(object))(d);
  };
  return detail::data_generator(seeds, {&method, call}, teacher, how).run();
}
LINNET_OR_OUT_OF_MEMORY("generate_data")

LINNET_NAMESPACE_END
