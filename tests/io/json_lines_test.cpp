// SPDX-License-Identifier: MIT
// Tables of JSON lines.

#include <linnet/json.hpp>

#include "support/data.hpp"

namespace test::json_lines_test {

namespace ln = linnet;

namespace {

std::string read(std::string_view text, std::vector<std::string> names = {"a", "b"}) {
  const auto t = ln::parse_json_lines(text, std::move(names), "f");
  if (!t) return t.error().message();
  std::string all;
  for (ln::index i = 0; i < t->rows(); ++i) {
    all += std::to_string(t->line(i)) + ":";
    for (ln::index j = 0; j < t->columns(); ++j) all += "[" + std::string(t->at(i, j)) + "]";
    all += ";";
  }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(json_lines)

BOOST_AUTO_TEST_CASE(fields) {
  BOOST_TEST(read("") == "");
  BOOST_TEST(read("{\"b\": \"x\\n\\u00e9\", \"a\": 1}\r\n\n  \n{\"a\":\"\",\"b\":true}") ==
             "1:[1][x\n\xc3\xa9];4:[][true];");
  BOOST_TEST(read("{\"c\":{\"a\":[1,{\"b\":2}]},\"a\":null,\"b\":0.5}") == "1:[null][0.5];");
  BOOST_TEST(read("{\"a\":1,\"c\":{\"a\":2},\"b\":3}") == "1:[1][3];");
  BOOST_TEST(read("{\"c\":[1,2],\"a\":3}\n", {"a"}) == "1:[3];");
  const auto t = ln::parse_json_lines("{\"a\":1,\"b\":2}", {"a", "b"});
  LINNET_REQUIRE_OK(t);
  BOOST_TEST(*t->column("b") == 1);
}

BOOST_AUTO_TEST_CASE(errors_name_the_place) {
  BOOST_TEST(read("{\"a\":1,\"b\":2}\n{\"a\":1}") == "f:2: b: expected a value, got none");
  BOOST_TEST(read("{\"a\":1,\"a\":1,\"b\":2}") == "f:1: a: expected it once, got twice");
  BOOST_TEST(read("{\"a\":[1],\"b\":2}") == "f:1: a: expected one value, got several");
  BOOST_TEST(read("{\"a\":{},\"b\":2}") == "f:1: a: expected one value, got several");
  BOOST_TEST(read("\n[1]") == "f:2: the line: expected a JSON object, got an array");
  BOOST_TEST(read("7") == "f:1: the line: expected a JSON object, got 7");
  BOOST_TEST(read("{\"a\":1").starts_with("f:1: the line: expected JSON, got an error at byte"));
  BOOST_TEST(read("{\"a\":1,\"b\":2} x").starts_with("f:1: the line: expected JSON"));
  BOOST_TEST(read("{\"c\":" + std::string(40, '[') + std::string(40, ']') + "}") ==
             "f:1: the line: expected at most 32 levels, got more");
  BOOST_TEST(read("{\"a\":\"" + std::string(1 << 20, 'x') + "\"}")
                 .starts_with("f:1: the line: expected at most 1048576 bytes"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::json_lines_test
