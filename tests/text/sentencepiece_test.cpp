// SPDX-License-Identifier: MIT
// T5's tokenizer by the SentencePiece library: ids of the reference and sentinels in text.

#include "support/data.hpp"

#if defined(LINNET_TEST_SENTENCEPIECE)

#include <linnet/sentencepiece.hpp>

#include "support/test.hpp"

namespace test::sentencepiece_test {

namespace {

using ids = std::vector<token>;

/// A field of a protocol buffer that holds bytes.
std::string field(char number, std::string_view value) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(value.size())} +
         std::string(value);
}
enum kind : char { normal_piece = 1, unknown, control, user_defined };
/// A unigram model of these pieces, behind T5's first three.
std::string model_of(const std::vector<std::pair<std::string, kind>>& pieces) {
  std::string all;
  const auto add = [&](const std::string& text, kind of) {
    all += field(1, field(1, text) + '\x15' + raw(-1.0f) + '\x18' + static_cast<char>(of));
  };
  add("<pad>", control);
  add("</s>", control);
  add("<unk>", unknown);
  for (const auto& [text, of] : pieces) add(text, of);
  return all;
}
/// The pieces of "Hello world", then sentinels by the numbers of `order`.
std::string hello_model(const std::string& before, const std::vector<int>& order) {
  std::vector<std::pair<std::string, kind>> pieces;
  for (const char* const text : {"\xe2\x96\x81Hello", "\xe2\x96\x81world", "world"})
    pieces.emplace_back(text, normal_piece);
  for (const int k : order)
    pieces.emplace_back(before + "<extra_id_" + std::to_string(k) + ">", user_defined);
  return model_of(pieces);
}

ln::sentencepiece_tokenizer opened(const std::string& path) {
  auto made = ln::sentencepiece_tokenizer::open(path);
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sentencepiece)

BOOST_AUTO_TEST_CASE(t5) {
  const std::string path = data_file("tokenizer_t5/spiece.model");
  if (path.empty()) return;
  const auto t = opened(path);
  BOOST_TEST(t.vocabulary() == 32100);
  BOOST_TEST((t.encode("Hello world") == ids{8774, 296}));
  BOOST_TEST((t.encode("Hello, world!", true) == ids{8774, 6, 296, 55, 1}));
  BOOST_TEST((t.encode("translate English to German: That is good.") ==
              ids{13959, 1566, 12, 2968, 10, 466, 19, 207, 5}));
  BOOST_TEST((t.encode("a  b") == ids{3, 9, 3, 115}));
  BOOST_TEST((t.encode("\xe6\x97\xa5\xe6\x9c\xac") == ids{3, 2}));
  BOOST_TEST(t.encode("\n").empty());
  BOOST_TEST((t.encode("", true) == ids{1}));
  BOOST_TEST(t.decode(ids{8774, 6, 296, 55, 1, 0, 32127, -1}) == "Hello, world!");
  // Classes of the tasks are told apart by their first token.
  std::vector<token> first;
  for (const auto label : ln::glue::mnli.labels) first.push_back(t.encode(label).front());
  BOOST_TEST((first[0] != first[1] && first[1] != first[2] && first[0] != first[2]));
}

BOOST_AUTO_TEST_CASE(t5_sentinels) {
  const std::string path = data_file("tokenizer_t5/spiece.model");
  if (path.empty()) return;
  const auto t = opened(path);
  const auto joined = [&](ids front, token sentinel, const ids& back) {
    front.push_back(sentinel);
    front.insert(front.end(), back.begin(), back.end());
    return front;
  };
  // A space before the sentinel vanishes; one behind it is the word's.
  BOOST_TEST((t.encode("Hello <extra_id_0> world") == joined({8774}, 32099, {296})));
  BOOST_TEST((t.encode("<extra_id_99>") == ids{32000}));
  // Without a space the word's first piece has none: "world" inside a word is another piece.
  const ids inside = t.encode("Hello<extra_id_1>world");
  BOOST_TEST(inside[1] == 32098);
  BOOST_TEST(inside[2] != 296);
  BOOST_TEST(inside[2] != 3);  // no lone space either
  for (const std::string text : {"Hello<extra_id_1>world", "Hello<extra_id_1> world",
                                 "<extra_id_0><extra_id_1> a<extra_id_2>"})
    BOOST_TEST(t.decode(t.encode(text)) == text);
  // These are no sentinels but text.
  for (const char* text : {"<extra_id_100>", "<extra_id_00>", "<extra_id_>", "<extra_id_1",
                           "<extra_id_-1>", "<extra_id_99999999999999999999999>"})
    for (const token id : t.encode(text)) BOOST_TEST(id < 32000);
  BOOST_TEST((t.encode("<extra_id_<extra_id_7>").back() == 32092));
}

BOOST_AUTO_TEST_CASE(a_small_model) {
  const std::string path = data_file("sentencepiece_1k/test_model.model");
  if (path.empty()) return;
  const auto t = opened(path);
  BOOST_TEST(t.vocabulary() == 1100);
  // From SentencePiece's own documentation of this model.
  BOOST_TEST((t.encode("This is a test") == ids{284, 47, 11, 4, 15, 400}));
  BOOST_TEST(t.decode(ids{284, 47, 11, 4, 15, 400}) == "This is a test");
}

BOOST_AUTO_TEST_CASE(real_text_becomes_examples) {
  const std::string path = data_file("tokenizer_t5/spiece.model");
  if (path.empty()) return;
  const auto t = opened(path);
  const std::vector<std::string_view> texts{"One text.\n\nAnother one, which is longer."};
  const auto all = ln::tokenize(texts, "\n\n", [&](std::string_view s) { return t.encode(s); });
  auto stream = ln::denoising_stream<ln::token_source>::open(ln::token_source(all, t.ids()), {},
                                                             {.batch = 1, .source = 32}, {1});
  LINNET_REQUIRE_OK(stream);
  const auto batch = stream->batch(0);
  BOOST_TEST(std::count(batch.source, batch.source + batch.source_lengths[0], 32099) == 1);
  BOOST_TEST(batch.labels[0] == 32099);
}

// mT5's model has its sentinels among its pieces, with a space's mark in their names.
BOOST_AUTO_TEST_CASE(sentinels_inside_the_model) {
  const std::vector<int> falling{9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
  for (const std::string before : {"\xe2\x96\x81", ""})
    for (const index asked : {index{100}, index{0}}) {
      const auto t = ln::sentencepiece_tokenizer::parse(bytes(hello_model(before, falling)), asked);
      LINNET_REQUIRE_OK(t);
      BOOST_TEST(t->vocabulary() == 3 + 3 + 10);
      BOOST_TEST(t->ids().sentinels == 10);
      BOOST_TEST(t->ids().sentinel(0) == 15);
      BOOST_TEST((t->encode("Hello <extra_id_0> world", true) == ids{3, 15, 4, 1}));
      BOOST_TEST((t->encode("Hello<extra_id_9>world") == ids{3, 6, 5}));
      BOOST_TEST(t->decode(ids{3, 15, 4, 6, 5, 1}) == "Hello<extra_id_0> world<extra_id_9>world");
    }
  // Behind the pieces where the model has none; of another order there are none to count on.
  const auto plain = ln::sentencepiece_tokenizer::parse(bytes(hello_model("", {})));
  LINNET_REQUIRE_OK(plain);
  BOOST_TEST(plain->vocabulary() == 106);
  BOOST_TEST((plain->encode("Hello <extra_id_0> world") == ids{3, 105, 4}));
  const std::string rising = hello_model("\xe2\x96\x81", {0, 1, 2});
  BOOST_TEST(message(ln::sentencepiece_tokenizer::parse(bytes(rising), 100, "f")) ==
             "f: sentinels: expected 0, as <extra_id_0> is not the last piece, got 100");
  const auto without = ln::sentencepiece_tokenizer::parse(bytes(rising), 0);
  LINNET_REQUIRE_OK(without);
  BOOST_TEST(without->ids().sentinels == 0);
  BOOST_TEST(without->vocabulary() == 9);

  // Gaps of text that such a model learns to fill.
  const auto t = ln::sentencepiece_tokenizer::parse(bytes(hello_model("\xe2\x96\x81", falling)));
  ids text;
  for (int i = 0; i < 40; ++i) text.push_back(3 + i % 2);
  auto stream = ln::denoising_stream<ln::token_source>::open(ln::token_source(text, t->ids()), {},
                                                             {.batch = 1, .source = 20}, {1});
  LINNET_REQUIRE_OK(stream);
  BOOST_TEST(stream->batch(0).labels[0] == 15);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto parse = [](std::string_view text, index sentinels = 100) {
    return message(ln::sentencepiece_tokenizer::parse(bytes(text), sentinels, "f"));
  };
  BOOST_TEST(parse("no model").starts_with("f: expected a SentencePiece model, got "));
  BOOST_TEST(parse("").starts_with("f: expected a SentencePiece model, got "));
  BOOST_TEST(parse("", -1) == "f: sentinels: expected at least 0, got -1");
  BOOST_TEST(!ln::sentencepiece_tokenizer::open("/nowhere"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sentencepiece_test

#else

BOOST_AUTO_TEST_CASE(sentencepiece) {
  std::cout << "SKIPPED: sentencepiece wants the library libsentencepiece-dev\n";
}

#endif
