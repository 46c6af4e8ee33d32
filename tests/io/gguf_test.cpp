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

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::gguf_test
