// SPDX-License-Identifier: MIT
#pragma once
// The tests that `zoo eval` knows, read from a folder of their files.

#include <string>
#include <string_view>
#include <vector>

#include <linnet/eval/multiple_choice.hpp>

namespace zoo {

namespace ln = linnet;

/// What is asked of a model.
enum class test_kind {
  choice,  ///< which of several texts is the likeliest
  word,    ///< the last word of a text
  number,  ///< a solution that ends in a number
  text     ///< to predict whole documents
};

/// One test: its items, or its documents.
struct eval_test {
  std::string name;
  test_kind kind = test_kind::choice;
  std::vector<ln::eval_item> items;
  std::vector<std::string> documents;
  std::string note;  ///< what a reader of the results must know

  std::size_t size() const { return kind == test_kind::text ? documents.size() : items.size(); }
  /// All text of one item, as a measure of its work and to know it again.
  std::string text_of(std::size_t i) const;
};

/// The names, in the order in which they are shown.
std::vector<std::string_view> test_names();

/// Reads a test from its folder in `data`; of more than `limit` items, so many, evenly spread (0:
/// all). `shots` examples stand before each question: of train.json or MMLU's dev files where they
/// are, else of the test's other questions. Refuses what is not there or not as it should be.
eval_test read_test(std::string_view name, const std::string& data, long limit, long shots);

/// How to unpack a test that lies in `data` packed alone; empty if it need not be unpacked.
std::string how_to_unpack(std::string_view name, const std::string& data);

/// A file of text as a test: stretches of whole paragraphs.
eval_test read_text(const std::string& path, long limit);

}  // namespace zoo
