// SPDX-License-Identifier: MIT
// Texts as batches of an encoder.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

#include "support/data.hpp"

namespace test::encoder_texts_test {

namespace ln = linnet;
using ln::index;

namespace {
constexpr std::size_t at(index i) { return static_cast<std::size_t>(i); }
}  // namespace

BOOST_AUTO_TEST_SUITE(encoder_texts)

// Batches of texts are those made by hand, and a batch may be shorter than the one before.
BOOST_AUTO_TEST_CASE(texts_between_marks) {
  const auto pieces = ln::read_hf_tokenizer(LINNET_TEST_DIR "/fuzz/corpus/hf_tokenizer/bert");
  LINNET_REQUIRE_OK(pieces);
  const ln::token begin = pieces->find("[CLS]"), end = pieces->find("[SEP]");
  const index longest = 7;
  auto read = ln::encoder_texts::open(*pieces, longest);
  LINNET_REQUIRE_OK(read);
  const std::vector<std::vector<std::string>> all{
      {"a b", "", "a b c a b c a b c", "[CLS] c"}, {"b", "c a"}, {}, {""}};
  for (const auto& texts : all) {
    const auto b = read->batch(texts);
    LINNET_REQUIRE_OK(b);
    std::vector<std::vector<ln::token>> rows;
    index length = 0;
    for (const std::string& text : texts) {
      std::vector<ln::token> row = pieces->encode(text);
      row.resize((std::min)(row.size(), std::size_t{longest - 2}));
      row.insert(row.begin(), begin);
      row.push_back(end);
      length = (std::max)(length, std::ssize(row));
      rows.push_back(row);
    }
    BOOST_REQUIRE(b->batch == std::ssize(texts) && b->length == length);
    for (index i = 0; i < b->batch; ++i) {
      std::vector<ln::token>& row = rows[at(i)];
      BOOST_TEST(b->lengths[i] == std::ssize(row));
      row.resize(at(length));
      BOOST_TEST(std::equal(row.begin(), row.end(), b->tokens + i * length));
    }
  }
  BOOST_TEST(test::message(ln::encoder_texts::open(*pieces, 1)) ==
             "encoder_texts::open: longest: expected at least 2 tokens, got 1");
  const auto other = ln::read_hf_tokenizer(LINNET_TEST_DIR "/fuzz/corpus/hf_tokenizer/qwen2");
  LINNET_REQUIRE_OK(other);
  BOOST_TEST(test::message(ln::encoder_texts::open(*other, 9)) ==
             "encoder_texts::open: tokenizer: expected the tokens [CLS] and [SEP], or <s> and "
             "</s>, got none of these pairs");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encoder_texts_test
