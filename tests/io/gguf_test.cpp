// SPDX-License-Identifier: MIT
// GGUF files: what the gguf package of llama.cpp wrote is read with its values, bit for bit.

#include <linnet/gguf.hpp>

#include "io/models.hpp"

namespace test::gguf_test {

namespace {

std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
/// Equal bits, or both NaN: which NaN is the processor's business.
bool same(float a, float b) { return (std::isnan(a) && std::isnan(b)) || bits_of(a) == bits_of(b); }

ln::gguf golden_file(const std::string& name) {
  auto file = ln::read_gguf(golden("gguf/" + name));
  LINNET_REQUIRE_OK(file);
  return *std::move(file);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(gguf)

BOOST_AUTO_TEST_CASE(values_of_every_type) {
  const ln::gguf file = golden_file("blocks.gguf");
  std::size_t types = 0, special = 0;
  for (const ln::gguf_tensor& tensor : file.tensors()) {
    const std::string name(tensor.name);
    if (!file.find(name + ".values")) continue;
    BOOST_TEST(ln::name_of(tensor.type) == name);
    const auto got = file.values(name), expected = file.values(name + ".values");
    LINNET_REQUIRE_OK(got);
    LINNET_REQUIRE_OK(expected);
    BOOST_REQUIRE(got->size() == expected->size());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < got->size(); ++i) {
      wrong += !same((*got)[i], (*expected)[i]);
      special += !std::isfinite((*expected)[i]);
    }
    BOOST_TEST(wrong == 0u, name << ": " << wrong << " of " << got->size());
    ++types;
  }
  BOOST_TEST(types == 12u);
  BOOST_TEST(special > 1000u);
}

BOOST_AUTO_TEST_CASE(metadata_of_every_type) {
  const ln::gguf file = golden_file("blocks.gguf");
  BOOST_TEST(file.version() == 3u);
  const auto get = [&]<class T>(const char* key, T expected) {
    const auto got = file.get<T>(key);
    LINNET_REQUIRE_OK(got);
    BOOST_TEST((*got == expected), key);
  };
  get("general.architecture", std::string_view("test"));
  get("test.u8", std::uint8_t{200});
  get("test.i8", std::int8_t{-100});
  get("test.u16", std::uint16_t{60000});
  get("test.i16", std::int16_t{-30000});
  get("test.u32", std::uint32_t{4000000000});
  get("test.i32", -2000000000);
  get("test.f32", 0.1f);
  get("test.bool", true);
  get("test.string", std::string_view("a linnet: hänfling"));
  get("test.u64", (std::uint64_t{1} << 63) + 1);
  get("test.i64", -(std::int64_t{1} << 62));
  get("test.f64", 0.1);
  // Wider types hold narrower values.
  get("test.u8", std::int64_t{200});
  get("test.i8", -100);
  get("test.f32", static_cast<double>(0.1f));

  const ln::gguf_value& three = *file.value("test.whole");
  BOOST_TEST((three.whole(2) == 3 && !three.whole(3) && !three.whole(-1)));
  const ln::gguf_value none{.key = "none", .kind = ln::gguf_kind::u64, .array = true, .count = 0};
  BOOST_TEST((!none.whole() && !none.real() && !none.truth() && !none.text()));

  const auto whole = file.array<std::int64_t>("test.whole");
  LINNET_REQUIRE_OK(whole);
  BOOST_TEST(*whole == (std::vector<std::int64_t>{1, -2, 3}));
  const auto reals = file.array<float>("test.reals");
  LINNET_REQUIRE_OK(reals);
  BOOST_TEST(*reals == (std::vector<float>{0.5f, -0.25f}));
  const auto flags = file.array<bool>("test.flags");
  LINNET_REQUIRE_OK(flags);
  BOOST_TEST((*flags == std::vector<bool>{true, false}));
  const auto strings = file.strings("test.strings");
  LINNET_REQUIRE_OK(strings);
  BOOST_TEST(strings->size() == 3);
  BOOST_TEST((std::vector<std::string_view>(strings->begin(), strings->end()) ==
              std::vector<std::string_view>{"", "a", "bc"}));

  const auto refused = [&](const auto& got, const std::string& expected) {
    BOOST_TEST(message(got) == golden("gguf/blocks.gguf") + ": " + expected);
  };
  refused(file.get<std::int8_t>("test.u8"),
          "test.u8: expected a whole number of 8 bits, got u8 200");
  refused(file.get<std::uint64_t>("test.i8"),
          "test.i8: expected a whole number of 64 bits, got i8 -100");
  refused(file.get<std::int64_t>("test.u64"),
          "test.u64: expected a whole number of 64 bits, got u64 9223372036854775809");
  refused(file.get<float>("test.bool"), "test.bool: expected f32 or f64, got bool true");
  refused(file.get<bool>("test.f32"), "test.f32: expected a bool, got f32 0.1");
  refused(file.get<int>("test.whole"),
          "test.whole: expected a whole number of 32 bits, got an array of 3 i32");
  refused(file.get<int>("none"), "none: expected metadata of this key, got none");
  refused(file.array<int>("test.reals"),
          "test.reals: expected an array, each element a whole number of 32 bits, got an array of "
          "2 f32");
  refused(file.strings("test.string"),
          "test.string: expected an array of string, got string a linnet: h??nfling");
  refused(file.values("none"), "none: expected a tensor of this name, got none");
}

BOOST_AUTO_TEST_CASE(blocks_of_numbers) {
  const ln::gguf file = golden_file("blocks.gguf");
  const auto input = file.values("quantize.input");
  LINNET_REQUIRE_OK(input);
  int types = 0;
  for (const ln::gguf_tensor& expected : file.tensors()) {
    if (!expected.name.starts_with("quantize.") || expected.name == "quantize.input") continue;
    ++types;
    std::vector<std::byte> got(expected.data.size());
    BOOST_TEST(ln::encodes_ggml(expected.type));
    const bool fits = ln::encode_ggml(expected.type, *input, got.data());
    BOOST_TEST(fits, ln::name_of(expected.type));
    BOOST_TEST(std::ranges::equal(got, expected.data), ln::name_of(expected.type));
  }
  BOOST_TEST(types == 5);
  // What has no code is refused: also where scales are tiny.
  std::vector<float> x(32, 1e-42f);
  std::vector<std::byte> to(34), zeros(16);
  const auto encode = [&](ln::ggml_type type) { return ln::encode_ggml(type, x, to.data()); };
  using enum ln::ggml_type;
  for (const auto type : {q8_0, q4_0, q4_1}) BOOST_TEST(encode(type));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf(""), 3e38f}) {
    x[7] = bad;
    x[8] = -bad;
    for (const auto type : {q8_0, q4_0, q4_1}) BOOST_TEST(!encode(type), bad);
  }
}

BOOST_AUTO_TEST_CASE(written_and_read) {
  const scratch_folder folder;
  const std::string path = folder.path("x.gguf");
  const ln::gguf golden_one = golden_file("blocks.gguf");
  std::vector<ln::gguf_entry> notes;
  for (const ln::gguf_value& value : golden_one.metadata()) notes.emplace_back(value);
  notes.emplace_back("w.u8", std::uint8_t{200});
  notes.emplace_back("w.i8", std::int8_t{-100});
  notes.emplace_back("w.u16", std::uint16_t{60000});
  notes.emplace_back("w.i16", std::int16_t{-30000});
  notes.emplace_back("w.u32", 4000000000u);
  notes.emplace_back("w.i32", -2000000000);
  notes.emplace_back("w.f32", 0.1f);
  notes.emplace_back("w.bool", true);
  notes.emplace_back("w.string", "a linnet: hänfling");
  notes.emplace_back("w.u64", (std::uint64_t{1} << 63) + 1);
  notes.emplace_back("w.i64", -(std::int64_t{1} << 62));
  notes.emplace_back("w.f64", 0.1);
  notes.emplace_back("w.strings", std::vector<std::string>{"", "a", "bc"});
  notes.emplace_back("w.whole", std::vector<std::int32_t>{1, -2, 3});
  notes.emplace_back("w.reals", std::vector<float>{0.5f, -0.25f});
  notes.emplace_back("w.flags", std::vector<bool>{true, false});

  const auto input = golden_one.values("quantize.input");
  LINNET_REQUIRE_OK(input);
  std::vector<ln::gguf_named_tensor> tensors;
  for (const ln::gguf_tensor& one : golden_one.tensors())
    if (one.name.starts_with("quantize."))
      tensors.push_back({std::string(one.name), one.type, {12, 64}, *input});
  tensors.push_back({"scalar", ln::ggml_type::f16, {}, std::span(*input).first(1)});
  LINNET_REQUIRE_OK(ln::write_gguf(path, notes, tensors));

  const auto file = ln::read_gguf(path);
  LINNET_REQUIRE_OK(file);
  BOOST_TEST(file->metadata().size() == 17u + 16u);
  BOOST_TEST(file->tensors().size() == 7u);
  for (const ln::gguf_value& value : golden_one.metadata()) {
    std::vector<std::string> keys{std::string(value.key)};
    if (value.key.starts_with("test.")) keys.push_back("w." + keys[0].substr(5));
    for (const std::string& key : keys) {
      const ln::gguf_value* const got = file->value(key);
      BOOST_REQUIRE(got != nullptr);
      BOOST_TEST(got->description() == value.description(), key);
      BOOST_TEST(std::ranges::equal(got->data, value.data), key);
    }
  }
  for (const ln::gguf_tensor& one : golden_one.tensors())
    if (one.name.starts_with("quantize.")) {
      const ln::gguf_tensor* const got = file->find(one.name);
      BOOST_REQUIRE(got != nullptr);
      BOOST_TEST(got->description() == one.description());
      BOOST_TEST(std::ranges::equal(got->data, one.data), one.name);
    }

  const std::vector<float> x(64, 1.f), bad(32, 3e38f);
  const auto refused = [&](const std::string& expected, std::vector<ln::gguf_entry> entries,
                           std::vector<ln::gguf_named_tensor> all) {
    const auto got = ln::write_gguf(path, entries, all);
    BOOST_TEST(message(got) == path + ": " + expected);
    BOOST_TEST((!got && got.error().code == ln::errc::invalid));
  };
  using enum ln::ggml_type;
  refused("a: expected each name once, got this one twice", {},
          {{"a", f32, {64}, x}, {"b", f32, {64}, x}, {"a", f32, {64}, x}});
  refused("k: expected each key once, got this one twice", {{"k", 1}, {"k", "1"}}, {});
  refused("key 0: length: expected 1 to 65535, got 0", {{"", 1}}, {});
  refused("general.alignment: expected no such metadatum: the writer aligns to 32, got one",
          {{"general.alignment", 64u}}, {});
  refused("a: expected as many values as the shape says, got 64", {}, {{"a", f32, {65}, x}});
  refused("a: expected as many values as the shape says, got 64", {}, {{"a", f32, {-64, -1}, x}});
  refused("a: expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1, got Q6_K", {}, {{"a", q6_k, {64}, x}});
  refused("a: dimension 0: expected a multiple of 32, the block of Q8_0, got 16", {},
          {{"a", q8_0, {4, 16}, x}});
  refused("a: dimensions: expected at most 4, got 5", {}, {{"a", f32, {64, 1, 1, 1, 1}, x}});
  refused("a: expected finite numbers that fit the scales of Q4_0, got others", {},
          {{"a", q4_0, {32}, bad}});
  LINNET_REQUIRE_OK(ln::read_gguf(path));  // the file before is still there
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::gguf_test
