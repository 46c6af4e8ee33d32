// SPDX-License-Identifier: MIT
#include "baselines.hpp"

#include <algorithm>
#include <cmath>
#include <linnet/eval/classifier.hpp>

namespace study {

namespace {

/// Calls f(word) for each run of letters, digits and bytes above ASCII, in lower case.
template <class F>
void each_word(std::string_view text, F&& f) {
  std::string word;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    const unsigned char c = i < text.size() ? static_cast<unsigned char>(text[i]) : ' ';
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80) {
      word += static_cast<char>(upper ? c - 'A' + 'a' : c);
    } else if (!word.empty()) {
      f(word);
      word.clear();
    }
  }
}

}  // namespace

naive_bayes::naive_bayes(const ln::text_task& words, const std::vector<ln::text_pair>& training)
    : classes_(std::ssize(words.labels)),
      total_(words.labels.size()),
      examples_(words.labels.size()) {
  for (const ln::text_pair& p : training) {
    const auto c = static_cast<std::size_t>(words.class_of(p.target));
    ++examples_[c];
    each_word(p.input, [&](const std::string& word) {
      auto& counts = words_[word];
      counts.resize(static_cast<std::size_t>(classes_));
      ++counts[c];
      ++total_[c];
    });
  }
}

ln::index naive_bayes::classify(std::string_view text) const {
  std::vector<double> score(static_cast<std::size_t>(classes_));
  const auto vocabulary = static_cast<double>(words_.size());
  for (std::size_t c = 0; c < score.size(); ++c) score[c] = std::log(examples_[c]);
  each_word(text, [&](const std::string& word) {
    const auto known = words_.find(word);
    if (known == words_.end()) return;
    for (std::size_t c = 0; c < score.size(); ++c)
      score[c] += std::log((known->second[c] + 1) / (total_[c] + vocabulary));
  });
  return std::max_element(score.begin(), score.end()) - score.begin();
}

baselines baselines_of(const task& t, const task::exam& e) {
  const naive_bayes model(t.words, t.training);
  std::vector<ln::index> known, asked;
  for (const ln::text_pair& p : t.training) known.push_back(t.words.class_of(p.target));
  ln::accuracy right;
  for (const ln::text_pair& p : e.pairs) {
    asked.push_back(t.words.class_of(p.target));
    right.add(model.classify(p.input) == asked.back());
  }
  return {ln::majority_baseline(known, asked).value(), right.value()};
}

}  // namespace study
