// SPDX-License-Identifier: MIT
#pragma once
// What a task gives without a language model.

#include <map>

#include "pieces.hpp"

namespace study {

/// Shares of right answers to an exam.
struct baselines {
  double majority;      ///< always the most frequent class of the training set
  double bag_of_words;  ///< multinomial naive Bayes
};

/// Multinomial naive Bayes on lower-case words, add-one smoothing: the class with the largest
/// log P(class) + sum over the input's words of log P(word | class); words never seen are left out.
class naive_bayes {
 public:
  naive_bayes(const ln::text_task& words, const std::vector<ln::text_pair>& training);
  ln::index classify(std::string_view text) const;

 private:
  ln::index classes_;
  std::map<std::string, std::vector<double>, std::less<>> words_;  ///< counts by class
  std::vector<double> total_, examples_;                           ///< words, examples by class
};

baselines baselines_of(const task& t, const task::exam& e);

}  // namespace study
