// SPDX-License-Identifier: MIT
// Safetensors files: values and element types, bad files one by one, files with random damage, and
// the writer.

#include <map>

#include "io/models.hpp"
#include "support/allocations.hpp"

namespace test::safetensors_test {

namespace ln = linnet;
using namespace std::string_view_literals;
using test::safetensors_file;

namespace {

constexpr std::size_t allowance = 16u << 20;

struct bad_file {
  const char* what;
  std::string bytes, message;
};

/// Parses, and checks the memory it took.
std::string outcome(const std::string& file) {
  const std::size_t before = test::bytes_asked_for();
  const std::string got = test::message(ln::parse_safetensors(test::bytes(file), "f"));
  BOOST_TEST(test::bytes_asked_for() - before <= file.size() + allowance);
  return got.substr(0, got.find(", after "));  // the rest quotes the JSON parser
}

}  // namespace

BOOST_AUTO_TEST_SUITE(safetensors)

BOOST_AUTO_TEST_CASE(reads_all_types) {
  const std::string values = test::raw(1.5) + test::raw(-2.25f) + test::raw(std::int32_t{-7}) +
                             test::raw(std::int64_t{5} << 40) +
                             test::raw(std::uint16_t{0x3e00}) /* 1.5 */ +
                             test::raw(std::uint16_t{0xc010}) /* bf16 -2.25 */;
  const std::string file = safetensors_file(
      R"({"__metadata__":{"a\"b":"c\u00e9"},"d":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
      R"("f":{"data_offsets":[8,12],"dtype":"F32","shape":[1,1]},"i":{"dtype":"I32","shape":[1],"data_offsets":[12,16]},)"
      R"("l":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},"h":{"dtype":"F16","shape":[1],"data_offsets":[24,26]},)"
      R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[26,28]},"e":{"dtype":"U8","shape":[3,0],"data_offsets":[28,28]}}  )",
      values);
  const auto parsed = ln::parse_safetensors(test::bytes(file));
  LINNET_REQUIRE_OK(parsed);
  BOOST_TEST(parsed->tensors().size() == 7u);
  BOOST_TEST(parsed->metadata().at("a\"b") == "c\xc3\xa9");
  BOOST_TEST(parsed->values<double>("d").value().at(0) == 1.5);
  BOOST_TEST(parsed->values<float>("f").value().at(0) == -2.25f);
  BOOST_TEST(parsed->values<int>("i").value().at(0) == -7);
  BOOST_TEST(parsed->values<std::int64_t>("l").value().at(0) == std::int64_t{5} << 40);
  BOOST_TEST(parsed->values<float>("h").value().at(0) == 1.5f);
  BOOST_TEST(parsed->values<double>("b").value().at(0) == -2.25);
  BOOST_TEST(parsed->find("e")->size() == 0);
  BOOST_TEST(parsed->find("e")->description() == "U8 [3, 0]");
  BOOST_TEST(parsed->find("x") == nullptr);
  BOOST_TEST(test::message(parsed->values<float>("x")) ==
             "safetensors: x: expected a tensor of this name, got none");
  BOOST_TEST(test::message(parsed->values<float>("i")) ==
             "safetensors: i: expected F16, BF16, F32 or F64, got I32 [1]");
  BOOST_TEST(test::message(parsed->values<int>("f")) ==
             "safetensors: f: expected I32 or I64, got F32 [1, 1]");
  BOOST_TEST(test::message(parsed->values<int>("l")) ==
             "safetensors: l: expected values of 32 bits, got 5497558138880");
}

BOOST_AUTO_TEST_CASE(half_precision_values) {
  // Every finite F16, against its definition.
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double x = ln::storage::f16::decode(static_cast<std::uint16_t>(bits));
    if (exponent == 31) {
      BOOST_REQUIRE(!ln::is_finite(x));
      continue;
    }
    const double size =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    BOOST_REQUIRE_EQUAL(x, bits >> 15 ? -size : size);
  }
}

BOOST_AUTO_TEST_CASE(bad_files) {
  const std::string four(4, '\0');
  const auto one = [&](std::string_view fields) {
    return safetensors_file("{\"a\":{" + std::string(fields) + "}}", four);
  };
  const auto offsets = [&](std::string_view range) {
    return one("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" + std::string(range));
  };
  const auto shape = [&](std::string_view call_shape) {
    return one("\"dtype\":\"F32\",\"data_offsets\":[0,4],\"shape\":" + std::string(call_shape));
  };
  const std::string a4 = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const auto two = [&](std::string_view range, std::string_view values) {
    return safetensors_file(
        "{" + a4 + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":)" + std::string(range) + "}}",
        values);
  };
  const std::string eight(8, '\0');
  const bad_file table[] = {
      {"empty", "", "f: file size: expected at least 8 bytes, got 0"},
      {"seven bytes", "1234567", "f: file size: expected at least 8 bytes, got 7"},
      {"huge header", test::raw(~std::uint64_t{0}) + "{}",
       "f: header length: expected at most the 2 bytes that follow, got 18446744073709551615"},
      {"truncated header", safetensors_file(a4).substr(0, 20),
       "f: header length: expected at most the 12 bytes that follow, got 52"},
      {"no header", safetensors_file(""), "f: header: expected to begin with {, got nothing"},
      {"blank header", safetensors_file("    "),
       "f: header: expected to begin with {, got nothing"},
      {"array", safetensors_file("[]"),
       "f: header: expected to begin with {, got another character"},
      {"NaN header", safetensors_file("NaN"),
       "f: header: expected to begin with {, got another character"},
      {"cut JSON", safetensors_file("{\"a\":{"),
       "f: header: expected JSON, got an error at byte 7"},
      {"trailing junk", safetensors_file("{}x"),
       "f: header: expected JSON, got an error at byte 3"},
      {"invalid UTF-8", safetensors_file("{\"\xff\":1}"),
       "f: header: expected JSON, got an error at byte 3"},
      {"tensor is no object", safetensors_file("{\"a\":5}"), "f: a: expected a JSON object, got 5"},
      {"tensor is an array", safetensors_file("{\"a\":[]}"),
       "f: a: expected a JSON object, got an array"},
      {"unknown type", one(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"),
       "f: a: dtype: expected BOOL, U8, I8, F8_E4M3, F8_E5M2, U16, I16, F16, BF16, U32, I32, F32, "
       "U64, I64 or F64, got \"F33\""},
      {"type is a number", one(R"("dtype":1,"shape":[1],"data_offsets":[0,4])"),
       "f: a: dtype: expected BOOL, U8, I8, F8_E4M3, F8_E5M2, U16, I16, F16, BF16, U32, I32, F32, "
       "U64, I64 or F64, got 1"},
      {"no dtype", one(R"("shape":[1],"data_offsets":[0,4])"),
       "f: a: dtype: expected one in every tensor, got none"},
      {"no shape", one(R"("dtype":"F32","data_offsets":[0,4])"),
       "f: a: shape: expected one in every tensor, got none"},
      {"no offsets", one(R"("dtype":"F32","shape":[1])"),
       "f: a: data_offsets: expected one in every tensor, got none"},
      {"unknown key", one(R"("dtype":"F32","kind":1)"),
       "f: a: expected dtype, shape and data_offsets, got kind"},
      {"key twice", one(R"("dtype":"F32","dtype":"F32")"),
       "f: a: dtype: expected each key once, got this one twice"},
      {"name twice",
       safetensors_file("{" + a4 + R"(,"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                        eight),
       "f: a: expected each name once, got this one twice"},
      {"metadata twice", safetensors_file(R"({"__metadata__":{},"__metadata__":{}})"),
       "f: __metadata__: expected each name once, got this one twice"},
      {"metadata key twice", safetensors_file(R"({"__metadata__":{"k":"1","k":"2"}})"),
       "f: __metadata__: k: expected each key once, got this one twice"},
      {"metadata number", safetensors_file(R"({"__metadata__":{"k":1}})"),
       "f: __metadata__: k: expected a text, got 1"},
      {"metadata object", safetensors_file(R"({"__metadata__":{"k":{}}})"),
       "f: __metadata__: k: expected a text, got an object"},
      {"shape is an object", shape("{}"),
       "f: a: shape: expected whole numbers from 0 up, got an object"},
      {"shape is a number", shape("1"), "f: a: shape: expected whole numbers from 0 up, got 1"},
      {"negative extent", shape("[-1]"), "f: a: shape: expected whole numbers from 0 up, got -1"},
      {"fractional extent", shape("[1.5]"),
       "f: a: shape: expected whole numbers from 0 up, got 1.5"},
      {"extent 1e2", shape("[1e2]"), "f: a: shape: expected whole numbers from 0 up, got 100"},
      {"extent 2^63", shape("[9223372036854775808]"),
       "f: a: shape: expected whole numbers from 0 up, got 9223372036854775808"},
      {"extent 2^64", shape("[18446744073709551616]"),
       "f: a: shape: expected whole numbers from 0 up, got 18446744073709551616"},
      {"extent NaN", shape("[NaN]"), "f: header: expected JSON, got an error at byte 51"},
      {"nested shape", shape("[[1]]"),
       "f: a: shape: expected whole numbers from 0 up, got an array"},
      {"wrapped product", shape("[4294967296,4294967296,4]"),
       "f: a: shape: expected a size below 2^64 bytes, got F32 [4294967296, 4294967296, 4]"},
      {"nine dimensions", shape("[1,1,1,1,1,1,1,1,1]"),
       "f: a: shape: expected at most 8 dimensions, got more"},
      {"huge shape", shape("[1000000000]"),
       "f: a: data_offsets: expected 4000000000 bytes for F32 [1000000000], got 4"},
      {"short tensor", shape("[2]"), "f: a: data_offsets: expected 8 bytes for F32 [2], got 4"},
      {"long tensor", shape("[0]"), "f: a: data_offsets: expected 0 bytes for F32 [0], got 4"},
      {"one offset", offsets("[0]"),
       "f: a: data_offsets: expected two whole numbers from 0 up, got 1"},
      {"three offsets", offsets("[0,4,8]"),
       "f: a: data_offsets: expected two whole numbers from 0 up, got more"},
      {"negative offset", offsets("[-4,0]"),
       "f: a: data_offsets: expected two whole numbers from 0 up, got -4"},
      {"reversed offsets", offsets("[4,0]"),
       "f: a: data_offsets: expected an end behind the beginning 4, got 0"},
      {"past the end", offsets("[0,8]"),
       "f: a: data_offsets: expected an end within the 4 bytes of values, got 8"},
      {"far past the end", offsets("[0,9223372036854775807]"),
       "f: a: data_offsets: expected an end within the 4 bytes of values, got 9223372036854775807"},
      {"late begin", offsets("[1,4]"),
       "f: a: data_offsets: expected to begin at 0, the end of the tensor before, got 1, a gap"},
      {"overlap", two("[2,6]", eight),
       "f: b: data_offsets: expected to begin at 4, the end of the tensor before, got 2, an "
       "overlap"},
      {"gap", two("[5,9]", eight + "x"),
       "f: b: data_offsets: expected to begin at 4, the end of the tensor before, got 5, a gap"},
      {"unused end", two("[4,8]", eight + "x"),
       "f: values: expected 8 bytes, the end of the last tensor, got 9"},
      {"truncated values", two("[4,8]", eight.substr(1)),
       "f: b: data_offsets: expected an end within the 7 bytes of values, got 8"},
  };
  std::map<std::string, int> seen;
  for (const bad_file& bad : table) {
    BOOST_TEST_CONTEXT(bad.what) BOOST_TEST(outcome(bad.bytes) == bad.message);
    ++seen[bad.message];
  }
  BOOST_TEST(seen.size() >= 40u);
}

BOOST_AUTO_TEST_CASE(greedy_files) {
  // Files made to cost memory: each stays within its size plus 16 MB, also the ones that are valid.
  const std::size_t most = ln::detail::longest_safetensors_header;
  const std::string long_name(most - 60, 'n');
  BOOST_TEST(outcome(safetensors_file("{\"" + long_name)).starts_with("f: header: expected JSON"));
  BOOST_TEST(outcome(safetensors_file("{\"__metadata__\":{\"" + long_name + "\":\"x\"}}")) ==
             "success");
  BOOST_TEST(outcome(safetensors_file("{\"__metadata__\":{\"x\":\"" + long_name + "\"}}")) ==
             "success");
  BOOST_TEST(outcome(safetensors_file("{\"" + long_name + "\":5}")).starts_with("f: nnnnn"));
  BOOST_TEST(outcome(safetensors_file("{\"a\":{\"shape\":[" + std::string(most / 2, '1') + "]}}"))
                 .starts_with("f: header: expected JSON"));
  std::string many = "{";
  for (int i = 0; many.size() < most - 100; ++i)
    many += (i ? ",\"" : "\"") + std::to_string(i) +
            R"(":{"dtype":"U8","shape":[],"data_offsets":[)" + std::to_string(i) + "," +
            std::to_string(i + 1) + "]}";
  BOOST_TEST(outcome(safetensors_file(many + "}"))
                 .starts_with("f: 0: data_offsets: expected an end within the 0 bytes"));
  BOOST_TEST(outcome(safetensors_file(many + "}", std::string(many.size(), 'x')))
                 .starts_with("f: values: expected"));
  BOOST_TEST(outcome(safetensors_file("{" + std::string(5000, '\n') + "x")) ==
             "f: header: expected at most 1024 blanks in a row, got more");
  BOOST_TEST(outcome(safetensors_file("{\"" + std::string(most, 'n') + "\":5}")) ==
             "f: header: expected at most 524288 bytes, got 524294");
  BOOST_TEST(outcome(safetensors_file(std::string(40u << 20, '['))) ==
             "f: header: expected to begin with {, got another character");
  BOOST_TEST(outcome(safetensors_file("{\"a\":" + std::string(most / 2, '['))) ==
             "f: a: expected a JSON object, got an array");
  BOOST_TEST(outcome(safetensors_file("{}" + std::string(30u << 20, ' '))) == "success");
}

BOOST_AUTO_TEST_CASE(damaged_files) {
  // Every truncation of a real file's head, and random damage to it: an error or a success, never a
  // crash (this runs under the sanitizers too).
  const std::string good = test::contents(test::golden("t5_v1_0_long") + "/model.safetensors");
  const std::size_t header =
      static_cast<std::size_t>(ln::detail::load_as<std::uint64_t>(test::bytes(good).data())) + 8;
  for (std::size_t size = 0; size < good.size(); size += size < header ? 7 : 997)
    BOOST_TEST(!ln::parse_safetensors(test::bytes(good.substr(0, size))));
  ln::random_stream random(ln::seed{1}, 0);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    for (int n = 0; n <= i % 3; ++n)
      bad[random.below(static_cast<std::uint32_t>(header))] = static_cast<char>(random.below(256));
    refused += !ln::parse_safetensors(test::bytes(bad));
  }
  BOOST_TEST(refused > 2000);
}

BOOST_AUTO_TEST_CASE(writer) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  const std::string x = test::raw(1.0f) + test::raw(2.0f), y = test::raw(3.0);
  const ln::named_tensor a{"a\"\n", ln::dtype::f32, {2, 1}, test::bytes(x)},
      b{"b", ln::dtype::f64, {}, test::bytes(y)};
  LINNET_REQUIRE_OK(ln::write_safetensors(path, {a, b}, {{"k", "v\\"}}));
  const std::string first = test::contents(path);
  std::string header =
      R"({"__metadata__":{"k":"v\\"},"b":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
      R"("a\"\u000a":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  BOOST_TEST((first == safetensors_file(header, y + x)));
  LINNET_REQUIRE_OK(ln::write_safetensors(path, {b, a}, {{"k", "v\\"}}));
  BOOST_TEST(test::contents(path) == first);
  const auto back = ln::read_safetensors(path);
  LINNET_REQUIRE_OK(back);
  BOOST_TEST(back->values<float>("a\"\n").value().at(1) == 2.0f);
  BOOST_TEST(back->metadata().at("k") == "v\\");

  // The values begin at a multiple of eight bytes, whatever the header says.
  for (std::size_t n = 0; n < 8; ++n) {
    LINNET_REQUIRE_OK(ln::write_safetensors(path, {b}, {{"k", std::string(n, 'x')}}));
    BOOST_TEST((std::filesystem::file_size(path) - y.size()) % 8 == 0u);
  }

  LINNET_REQUIRE_OK(ln::write_safetensors(path, {}));
  BOOST_TEST(ln::read_safetensors(path).value().tensors().size() == 0u);

  BOOST_TEST(
      test::message(ln::write_safetensors(path, {{"a", ln::dtype::f32, {3}, test::bytes(x)}})) ==
      path + ": a: expected as many bytes as the shape says, got 8");
  BOOST_TEST(
      test::message(ln::write_safetensors(path, {{"a", ln::dtype::f32, {-2}, test::bytes(x)}})) ==
      path + ": a: expected as many bytes as the shape says, got 8");
  BOOST_TEST(test::message(ln::write_safetensors(path, {b, b})) ==
             path + ": b: expected each name once, got this one twice");
  BOOST_TEST(!ln::write_safetensors(folder.path("none/a"), {a}));
  BOOST_TEST(ln::read_safetensors(path).value().tensors().size() == 0u);  // the old file
}

BOOST_AUTO_TEST_CASE(what_is_not_read_is_not_written) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a"), x = test::raw(1.0f);
  const auto said = [&](std::vector<ln::named_tensor> all, const ln::file_metadata& notes = {}) {
    const auto written = ln::write_safetensors(path, std::move(all), notes);
    BOOST_TEST((!written && written.error().code == ln::errc::invalid));
    BOOST_TEST(!std::filesystem::exists(path));
    return test::message(written).substr(path.size() + 2);
  };
  const auto one = [&](std::string name, std::vector<ln::index> shape = {1}) {
    return ln::named_tensor{std::move(name), ln::dtype::f32, std::move(shape), test::bytes(x)};
  };
  BOOST_TEST(said({one("a", {1, 1, 1, 1, 1, 1, 1, 1, 1})}) ==
             "a: shape: expected at most 8 dimensions, got more");
  BOOST_TEST(said({one("__metadata__")}) ==
             "__metadata__: expected another name for a tensor, got that of the notes");
  BOOST_TEST(said({one("caf\xe9")}) == "caf?: expected a name in UTF-8, got other bytes");
  BOOST_TEST(said({one("\xed\xa0\x80")}) == "???: expected a name in UTF-8, got other bytes");
  BOOST_TEST(said({one("a")}, {{"caf\xe9", "x"}}) ==
             "__metadata__: caf?: expected texts in UTF-8, got other bytes");
  BOOST_TEST(said({one("a")}, {{"k", "\xff"}}) ==
             "__metadata__: k: expected texts in UTF-8, got other bytes");
  std::vector<ln::named_tensor> many;
  for (int i = 0; i < 6000; ++i)
    many.push_back(one("model.layers." + std::to_string(i) + ".self_attn.q_proj.weight"));
  BOOST_TEST(said(many).starts_with("header: expected at most 524288 bytes, got "));
}

// Random tensors and notes: refused, or read again as they were.
BOOST_AUTO_TEST_CASE(random_files_come_back) {
  const test::scratch_folder folder;
  const std::string path = folder.path("a");
  ln::random_stream random(ln::seed{5});
  const auto below = [&](std::uint32_t n) { return random.below(n); };
  const std::string_view letters[] = {"a",
                                      ".",
                                      "\"",
                                      "\\",
                                      "\n",
                                      "/",
                                      "\x7f",
                                      "\xc3\xa9",
                                      " ",
                                      "\t",
                                      "\0"sv,
                                      "\xe2\x82\xac",
                                      "\xf0\x9f\x98\x80",
                                      "\xef\xbf\xbf",
                                      "{"};
  const auto text = [&](std::uint32_t most) {
    std::string made;
    for (auto n = below(most); n > 0; --n) made += letters[below(std::size(letters))];
    if (below(40) == 0) made += "\xe2\x82";  // cut
    return made;
  };
  int read = 0, refused = 0;
  for (int round = 0; round < 600; ++round) {
    std::vector<ln::named_tensor> all;
    std::vector<std::string> values;
    ln::file_metadata notes;
    for (auto n = below(6); n > 0; --n) {
      ln::named_tensor t{text(5), static_cast<ln::dtype>(below(15)), {}, {}};
      ln::index size = ln::size_of(t.type);
      for (auto d = below(below(20) == 0 ? 11 : 5); d > 0; --d) {
        t.shape.push_back(below(4));
        size *= t.shape.back();
      }
      if (below(200) == 0) t.name = "__metadata__";
      std::string bytes;
      for (; size > 0; --size) bytes += static_cast<char>(below(256));
      values.push_back(std::move(bytes));
      all.push_back(std::move(t));
    }
    for (std::size_t i = 0; i < all.size(); ++i) all[i].data = test::bytes(values[i]);
    for (auto n = below(4); n > 0; --n) notes[text(4)] = text(3000);
    const auto written = ln::write_safetensors(path, all, notes);
    const auto back = ln::read_safetensors(path);
    if (!written) {
      BOOST_TEST((written.error().code == ln::errc::invalid));
      BOOST_TEST(!back);
      ++refused;
      continue;
    }
    LINNET_REQUIRE_OK(back);
    std::filesystem::remove(path);
    ++read;
    BOOST_TEST((back->metadata() == notes));
    BOOST_TEST(back->tensors().size() == all.size());
    for (const auto& t : all) {
      const ln::tensor_record* const found = back->find(t.name);
      BOOST_REQUIRE(found);
      BOOST_TEST((found->type == t.type && std::ranges::equal(found->shape(), t.shape) &&
                  std::ranges::equal(found->data, t.data)));
    }
  }
  BOOST_TEST(read > 300);
  BOOST_TEST(refused > 60);
}

BOOST_AUTO_TEST_CASE(a_moved_file_keeps_its_values) {
  auto file = ln::read_safetensors(test::golden("gpt2") + "/expected.safetensors");
  LINNET_REQUIRE_OK(file);
  const ln::safetensors moved = std::move(*file);
  BOOST_TEST(moved.values<double>("loss").value().at(0) > 0);
  BOOST_TEST(moved.values<ln::token>("input_ids").value().size() == 51u);
}

// A header as long as the file, or so long that it ends one byte behind.
BOOST_AUTO_TEST_CASE(headers_behind_the_end) {
  for (const std::uint64_t behind : {1u, 7u, 8u}) {
    std::vector<std::byte> file(24, std::byte{' '});
    const std::uint64_t length = file.size() - 8 + behind;
    __builtin_memcpy(file.data(), &length, sizeof length);
    const auto parsed = ln::parse_safetensors(std::span<const std::byte>(file), "f");
    BOOST_REQUIRE(!parsed);
    BOOST_TEST(parsed.error().message() ==
               "f: header length: expected at most the 16 bytes that follow, got " +
                   std::to_string(length));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::safetensors_test
