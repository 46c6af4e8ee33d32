// SPDX-License-Identifier: MIT
// Small values: results and errors, finiteness by bits, views, template values.

#include <bit>
#include <charconv>
#include <cmath>
#include <memory>

#include "support/test.hpp"

namespace test::values_test {

BOOST_AUTO_TEST_SUITE(values)

// A result holds a value or an error, and moves what it holds.
BOOST_AUTO_TEST_CASE(result_holds_one) {
  ln::result<std::unique_ptr<int>> good(std::make_unique<int>(3));
  BOOST_TEST(static_cast<bool>(good));
  BOOST_TEST(*good.value() == 3);
  BOOST_TEST(**good == 3);
  const std::unique_ptr<int> out = std::move(good).value();
  BOOST_TEST(*out == 3);

  const ln::result<std::string> bad(
      ln::error{ln::errc::mismatch, "config.json", "d_model", "384", "512"});
  BOOST_TEST(!static_cast<bool>(bad));
  BOOST_TEST((bad.error().code == ln::errc::mismatch));
  BOOST_TEST(bad.error().message() == "config.json: d_model: expected 384, got 512");
  BOOST_TEST(std::string(ln::result<std::string>("abc")->c_str()) == "abc");

  // Copies and assignments, of values and failures to each other.
  ln::result<std::string> a("a value too long for the string itself"), b = a, c = bad;
  BOOST_TEST(*b == *a);
  BOOST_TEST(c.error().what == "d_model");
  c = std::move(b);
  BOOST_TEST(*c == *a);
  a = bad;
  BOOST_TEST(!static_cast<bool>(a));
  BOOST_TEST(a.error().got == "512");
  a = *&a;
  BOOST_TEST(a.error().got == "512");
  static_assert(!std::is_copy_constructible_v<ln::result<std::unique_ptr<int>>>);
  static_assert(std::is_nothrow_move_constructible_v<ln::result<std::unique_ptr<int>>>);

  const ln::result<void> done;
  BOOST_TEST(static_cast<bool>(done));
  const ln::result<void> failed(
      ln::error{.code = ln::errc::io, .where = "a", .what = {}, .expected = {}, .got = "b"});
  BOOST_TEST(!static_cast<bool>(failed));
  BOOST_TEST(failed.error().message() == "a: got b");
}

// is_finite looks at the bits, so it stays right under -ffast-math: all 2^16 upper halves of a
// float.
BOOST_AUTO_TEST_CASE(finiteness_of_every_upper_half) {
  int wrong = 0;
  for (std::uint32_t high = 0; high < 0x10000; ++high)
    for (const std::uint32_t low : {0u, 1u, 0xffffu}) {
      const bool finite = (high >> 7 & 255) != 255;
      wrong += ln::is_finite(std::bit_cast<float>(high << 16 | low)) != finite;
    }
  for (std::uint64_t high = 0; high < 0x10000; ++high)
    for (const std::uint64_t low : {0ull, 1ull, 0xffffffffffffull}) {
      const bool finite = (high >> 4 & 2047) != 2047;
      wrong += ln::is_finite(std::bit_cast<double>(high << 48 | low)) != finite;
    }
  BOOST_TEST(wrong == 0);
}

// A view addresses row-major memory.
BOOST_AUTO_TEST_CASE(view_addresses) {
  std::vector<int> x{0, 1, 2, 3, 4, 5};
  const ln::view<int, 3> v(x.data(), 2);
  BOOST_TEST(v(1, 2) == 5);
  BOOST_TEST(v.row(1) == x.data() + 3);
  BOOST_TEST(v[1].size() == 3u);
  BOOST_TEST(v.size() == 6);
  const ln::view<const int, 3> c = v;
  BOOST_TEST(&c(0, 1) == x.data() + 1);
}

// The reader of reals for standard libraries without one reads as std::from_chars() does: the same
// texts, to the same place, the same bits and errors.
BOOST_AUTO_TEST_CASE(reals_in_text) {
  const auto same = [](std::string_view text, std::chars_format format) {
    const char *const first = text.data(), *const last = first + text.size();
    double expected = -7, got = -7;
    const auto a = std::from_chars(first, last, expected, format);
    const auto b = ln::detail::real_by_strtod(first, last, got, format);
    BOOST_TEST(((a.ec == b.ec) && a.ptr == b.ptr), text);
    BOOST_TEST(std::bit_cast<std::uint64_t>(expected) == std::bit_cast<std::uint64_t>(got), text);
  };
  for (const std::string_view text :
       {"0",      "-0",         "1.5",      ".5",     "5.",     "5.x",      ".",      "-.",
        "-",      "",           "+1",       " 1",     "1e5",    "1e",       "1e+",    "1E-3x",
        "inf",    "-Infinity",  "infinite", "e5",     "-1e999", "1e999",    "1e-999", "0x10",
        "12abc",  "1_0",        "0.1",      "5e-324", "1e308",  "2.5e-310", "1.e2",   "00.50",
        "3.14.1", "179769e303", "i",        "--1"})
    same(text, std::chars_format::general);
  for (const std::string_view text : {"1.8p1", "-1p-3", "a.bp", "0x1", "1.", "inf", "p1", "F",
                                      "-.8P+2", "1.fffffffffffffp1023", "1p1024", "g", "1e2"})
    same(text, std::chars_format::hex);
  ln::random_stream random(ln::seed{1});
  for (int i = 0; i < 100; ++i) {
    const double x = std::ldexp(random.normal(), static_cast<int>(random.below(2000)) - 1000);
    char digits[64];
    for (const auto format : {std::chars_format::general, std::chars_format::hex})
      same({digits, std::to_chars(digits, digits + sizeof digits, x, format).ptr}, format);
  }
}

// The rules of rounding and expansion that shapes rely on: 1.2 * 384 = 460.8 counts as 461.
BOOST_AUTO_TEST_CASE(template_values) {
  static_assert(ln::expansion{4}.of(384) == 1536);
  static_assert(ln::expansion{2}.of(384) == 768);
  static_assert(ln::expansion{1.5}.of(384) == 576);
  static_assert(ln::expansion{1.2}.of(384) == 461);
  static_assert(ln::round_up(0, 32) == 0 && ln::round_up(1, 32) == 32 &&
                ln::round_up(64, 32) == 64);
  static_assert(ln::decoder_shape{.d_model = 48, .heads = 4}.head_width() == 12);
  static_assert(ln::decoder_shape{.d_model = 48, .heads = 4, .d_kv = 5}.head_width() == 5);
  static_assert(!ln::t5_shape{}.valid() && !ln::decoder_shape{}.valid());
  const ln::parameter_path root;
  BOOST_TEST((root / "encoder" / index{0} / "q").str() == "encoder.0.q");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::values_test
