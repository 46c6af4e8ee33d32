// SPDX-License-Identifier: MIT
// quantize_in_blocks(): against the same steps by hand.

#include "support/compression.hpp"

namespace test::sequential_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
using S = ln::storage::per_role<ln::storage::int4<8>, ln::storage::embedding<ln::storage::f32>>;

using texts = texts_of<small>;
constexpr ln::limits limits{.batch = 2, .target = 17};
constexpr ln::calibration_options options{.batches = 3};

/// Calls f(path, info, from, a, b) for all that is stored.
template <class A, class B, class F>
void each_stored(const A& a, const B& b, F&& f) {
  ln::each_tensor_of(
      [&](const ln::parameter_path& path, const ln::tensor_info& info, auto& x, auto& y) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(x)>>)
          f(path.str(), info, x, y);
      },
      a, b);
}
template <class A, class B>
bool same_codes(const ln::tensor_info& info, const A& a, const B& b) {
  for (index r = 0; r < info.rows; ++r)
    for (index j = 0; j < info.columns; ++j)
      if (a.at(r, j, info.columns) != b.at(r, j, info.columns)) return false;
  return true;
}
bool first_layer(const std::string& path) { return path.find("0.") != path.npos; }
bool second_layer(const std::string& path) { return path.find("1.") != path.npos; }

BOOST_AUTO_TEST_SUITE(sequential)

BOOST_AUTO_TEST_CASE(blocks_read_what_rounded_blocks_give) {
  ln::weights<small> w;
  randomize(w);
  const ln::gptq how{.act_order = true};
  const auto got = ln::quantize_in_blocks<S>(w, texts{}, limits, how, options);
  BOOST_REQUIRE(static_cast<bool>(got));
  const auto stats = ln::calibrate(w, texts{}, limits, options);
  BOOST_REQUIRE(static_cast<bool>(stats));
  const auto plain = ln::quantize<S>(w, *stats, how);
  BOOST_REQUIRE(static_cast<bool>(plain));
  // What the second layer reads, by hand.
  auto half = w.clone();
  index first = 0, second = 0, differ = 0;
  each_stored(*plain, half, [&](const std::string& path, const auto& info, auto& from, auto& to) {
    if (info.kind == ln::role::matrix && !first_layer(path)) return;  // the embedding and layer 0
    for (index r = 0; r < info.rows; ++r)
      for (index j = 0; j < info.columns; ++j)
        to.data[r * info.columns + j] = static_cast<float>(from.at(r, j, info.columns));
  });
  const auto later = ln::calibrate(half, texts{}, limits, options);
  BOOST_REQUIRE(static_cast<bool>(later));
  const auto by_hand = ln::quantize<S>(w, *later, how);
  BOOST_REQUIRE(static_cast<bool>(by_hand));
  each_stored(*got, *plain, [&](const std::string& path, const auto& info, auto& a, auto& b) {
    if (first_layer(path)) {
      ++first;
      BOOST_TEST(same_codes(info, a, b), path);
    } else if (second_layer(path)) {
      differ += !same_codes(info, a, b);
    }
  });
  each_stored(*got, *by_hand, [&](const std::string& path, const auto& info, auto& a, auto& b) {
    if (!second_layer(path)) return;
    ++second;
    BOOST_TEST(same_codes(info, a, b), path);
  });
  BOOST_TEST(first == 7);
  BOOST_TEST(second == 7);
  BOOST_TEST(differ > 0);
  auto threads = limits;
  threads.threads = 3;
  BOOST_TEST(same_bytes(*got, *ln::quantize_in_blocks<S>(w, texts{}, threads, how, options)));
  BOOST_TEST(same_bytes(*ln::quantize_in_blocks<S>(w, texts{}, limits, ln::round_to_nearest{}),
                        ln::quantize<S>(w)));
}

BOOST_AUTO_TEST_CASE(memory_of_one_block) {
  const index all = ln::calibration<small>::bytes(),
              one = ln::detail::largest_block_bytes<small>(true);
  BOOST_TEST(one * 2 < all + all / 4);  // two layers and an embedding
  BOOST_TEST(ln::sequential_bytes<small>() == one + ln::weights<small>::bytes());
  BOOST_TEST(ln::sequential_bytes<small>(false) < ln::sequential_bytes<small>());
}

BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<small> w;
  randomize(w);
  const auto why = [&](auto&& batches, const ln::gptq& how) {
    const auto made = ln::quantize_in_blocks<S>(w, batches, limits, how, options);
    return made ? std::string() : made.error().message();
  };
  BOOST_TEST(why([](index) { return ln::decoder_batch{}; }, {}) ==
             "calibrate: batches: expected at least one with tokens, got none");
  BOOST_TEST(why(texts{}, {.damp = -1}).find("damp") != std::string::npos);
  std::vector<ln::token> wrong(34, 99);
  BOOST_TEST(why(
                 [&](index) {
                   return ln::decoder_batch{wrong.data(), wrong.data(), 2, 17};
                 },
                 {})
                 .find("batch 0") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::sequential_test
