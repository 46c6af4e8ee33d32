// SPDX-License-Identifier: MIT
// Ids in the caller's memory: the same as in a vector, one refusal for all tokenizers, and no heap
// where they promise none.

#include "models.hpp"
#include "support/allocations.hpp"

#if defined(LINNET_TEST_SENTENCEPIECE)
#include <linnet/sentencepiece.hpp>
#endif

namespace test::encode_test {

namespace {

/// Checks one tokenizer; `memory` is what encoding into a span may ask the heap for.
template <class Tokenizer, class... Options>
void check(const char* name, const Tokenizer& t, std::string_view text, bool memory,
           Options... options) {
  const std::vector<token> ids = t.encode(text, options...);
  const std::size_t n = ids.size();
  BOOST_REQUIRE_MESSAGE(n > 2, name);
  std::vector<token> room(n + 3, -7);
  const std::size_t before = bytes_asked_for();
  const auto got = t.encode(text, std::span(room), options...);
  const std::size_t asked = bytes_asked_for() - before;
  LINNET_REQUIRE_OK(got);
  BOOST_TEST(*got == static_cast<index>(n), name);
  BOOST_TEST(std::equal(ids.begin(), ids.end(), room.begin()), name);
  BOOST_TEST(std::all_of(room.end() - 3, room.end(), [](token x) { return x == -7; }), name);
  BOOST_TEST((asked > 0) == memory, name << ": " << asked << " bytes");
  // Exactly enough, one too few, and none at all.
  BOOST_TEST(t.encode(text, std::span(room).first(n), options...).value() == static_cast<index>(n));
  for (const std::size_t few : {n - 1, std::size_t{0}}) {
    std::fill(room.begin(), room.end(), -7);
    const auto refused = t.encode(text, std::span(room).first(few), options...);
    BOOST_REQUIRE(!refused);
    BOOST_TEST((refused.error().code == ln::errc::invalid));
    BOOST_TEST(refused.error().message() == "encode: ids: expected room for " + std::to_string(n) +
                                                ", got " + std::to_string(few));
    BOOST_TEST(std::equal(ids.begin(), ids.begin() + static_cast<index>(few), room.begin()), name);
    BOOST_TEST(room[few] == -7, name);
  }
}

/// A tokenizer.bin with the bytes and a few pieces.
std::string tokenizer_bin() {
  std::string file = raw(std::uint32_t{16});
  const auto add = [&](const std::string& piece) {
    file += raw(-1.0f) + raw(static_cast<std::uint32_t>(piece.size())) + piece;
  };
  for (const char* piece : {"<unk>", "\n<s>\n", "\n</s>\n"}) add(piece);
  for (int b = 0; b < 256; ++b) {
    char piece[8];
    std::snprintf(piece, sizeof piece, "<0x%02X>", b);
    add(piece);
  }
  for (const char* piece : {" ", "a", "b", "ab"}) add(piece);
  return file;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(encode_into_spans)

BOOST_AUTO_TEST_CASE(all_tokenizers) {
  const std::string text = "ab abba \xc3\xa9 it's 123", word(65, 'a');
  check("bytes", ln::byte_tokenizer{}, text, false);
  check("t5 bytes", ln::byte_tokenizer::t5(), text, false);

  const auto merges = ln::bpe_tokenizer::parse("#version: 0.2\na b\nab b\n");
  LINNET_REQUIRE_OK(merges);
  check("bpe", *merges, text, false);
  check("bpe, 64 bytes", *merges, std::string(64, 'a'), false);
  check("bpe, a long word", *merges, word, true);  // as it says
  check("bpe, added texts", *merges, text + "<|endoftext|>" + text, true, true);

  const std::string bin = tokenizer_bin();
  const auto scored = ln::llama2c_tokenizer::parse(bytes(bin), 263);
  LINNET_REQUIRE_OK(scored);
  check("llama2.c", *scored, text, true);
  check("llama2.c, both ends", *scored, text, true, true, true);
}

BOOST_AUTO_TEST_CASE(nothing_for_no_text) {
  BOOST_TEST(ln::byte_tokenizer{}.encode("", std::span<token>()).value() == 0);
  const auto merges = ln::bpe_tokenizer::parse("#version: 0.2\n");
  BOOST_TEST(merges->encode("", std::span<token>()).value() == 0);
  const std::string bin = tokenizer_bin();
  const auto scored = ln::llama2c_tokenizer::parse(bytes(bin), 263);
  BOOST_TEST(scored->encode("", std::span<token>(), false).value() == 0);
  BOOST_TEST(!scored->encode("", std::span<token>()));  // the begin token
}

// Where the heap has no room there is an error, and no text that looks encoded.
BOOST_AUTO_TEST_CASE(without_memory) {
  const std::string word(200, 'a'), text = word + "<|endoftext|>" + word, bin = tokenizer_bin();
  const auto merges = ln::bpe_tokenizer::parse("#version: 0.2\na b\n");
  const auto scored = ln::llama2c_tokenizer::parse(bytes(bin), 263);
  std::vector<token> room(500);
  check_failing_allocations("bpe", [&] { return merges->encode(text, std::span(room), true); });
  check_failing_allocations("llama2.c", [&] { return scored->encode(text, std::span(room)); });
}

#if defined(LINNET_TEST_SENTENCEPIECE)
BOOST_AUTO_TEST_CASE(sentencepiece) {
  const std::string path = data_file("tokenizer_t5/spiece.model");
  if (path.empty()) return;
  const auto t = ln::sentencepiece_tokenizer::open(path);
  LINNET_REQUIRE_OK(t);
  check("sentencepiece", *t, "Hello <extra_id_0> world", true, true);
}
#endif

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encode_test
