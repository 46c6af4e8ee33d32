// SPDX-License-Identifier: MIT
// llama2.c checkpoints: both versions round-trip, each field of the header is compared with the
// type, and the real stories260K model loads and tells its story.

#include <cmath>

#include "io/models.hpp"
#include "support/allocations.hpp"

namespace test::llama2c_test {

namespace ln = linnet;

namespace {

constexpr ln::decoder_shape shape{.d_model = 16,
                                  .d_ff = 26,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 41,
                                  .context = 9,
                                  .eps = 1e-5};
using tied = ln::decoder<shape>;
using untied = ln::decoder<shape, ln::tie::untied>;

template <class M, class T>
std::string saved(const ln::weights<M, T>& w, ln::llama2c_version version) {
  const test::scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_llama2c(w, folder.path("m"), version));
  return test::contents(folder.path("m"));
}

/// `file` with the 32-bit number `n` replaced.
std::string with(std::string file, std::size_t n, std::int32_t value) {
  return file.replace(4 * n, 4, test::raw(value));
}

float value(const std::string& file, std::size_t at) {
  return ln::detail::load_as<float>(test::bytes(file).data() + at);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(llama2c)

BOOST_AUTO_TEST_CASE(round_trips) {
  const auto trip = []<class M, class T>(const ln::weights<M, T>& w) {
    for (const auto version : {ln::llama2c_version::v0, ln::llama2c_version::v1}) {
      const std::string file = saved(w, version);
      ln::weights<M, T> back;
      LINNET_REQUIRE_OK(ln::load_llama2c(back, test::bytes(file)));
      BOOST_TEST(test::same_bytes(w, back));
    }
  };
  trip(test::distinct<tied>());
  trip(test::distinct<untied>());
  trip(test::distinct<ln::decoder<shape, ln::position::rope_half>>());
  trip(test::distinct<tied, double>());
  trip(ln::quantize<ln::storage::bf16>(test::distinct<tied>()));
}

BOOST_AUTO_TEST_CASE(layout) {
  // Offsets worked out by hand from the description of the format, in values.
  const auto w = test::distinct<untied>();
  const std::string v0 = saved(w, ln::llama2c_version::v0), v1 = saved(w, ln::llama2c_version::v1);
  const std::size_t d = 16, f = 26, kv = 8, vocabulary = 41, layers = 3;
  const auto first = [&](std::string_view name) { return test::floats(w, name).front(); };
  const auto at0 = [&](std::size_t n) { return value(v0, 28 + 4 * n); };
  const auto at1 = [&](std::size_t n) { return value(v1, 256 + 4 * n); };
  const std::size_t table = vocabulary * d, attention = layers * (2 * d * d + 2 * kv * d),
                    feed_forward = layers * 3 * f * d;
  BOOST_TEST(at0(0) == first("embedding.weight"));
  BOOST_TEST(at0(table + d) == first("blocks.1.attention.norm.weight"));
  BOOST_TEST(at0(table + layers * d + d * d) == first("blocks.1.attention.q.weight"));
  BOOST_TEST(at0(table + layers * (d + d * d) + 2 * kv * d) ==
             first("blocks.2.attention.k.weight"));
  BOOST_TEST(at0(table + layers * d + attention) == first("blocks.0.ffn.norm.weight"));
  BOOST_TEST(at0(table + layers * 2 * d + attention + f * d) ==
             first("blocks.1.ffn.gate.weight"));  // w1
  BOOST_TEST(at0(table + layers * (2 * d + f * d) + attention) ==
             first("blocks.0.ffn.down.weight"));  // w2
  BOOST_TEST(at0(table + layers * (2 * d + 2 * f * d) + attention) ==
             first("blocks.0.ffn.up.weight"));  // w3
  const std::size_t norm = table + layers * 2 * d + attention + feed_forward, tables = norm + d,
                    head = tables + 9 * 4;
  BOOST_TEST(at0(norm) == first("norm.weight"));
  BOOST_TEST(at0(tables) == 1.0f);                // cos of position 0
  BOOST_TEST(at0(tables + 2) == std::cos(1.0f));  // cos of position 1, first pair
  BOOST_TEST(at0(tables + 18 + 3) == std::sin(0.01f),
             boost::test_tools::tolerance(1e-6f));  // sin of position 1, second pair
  BOOST_TEST(at0(head) == first("head.weight"));
  BOOST_TEST(v0.size() == 28 + 4 * (head + table));

  BOOST_TEST(at1(d) == first("blocks.1.attention.norm.weight"));
  BOOST_TEST(at1(layers * d) == first("blocks.0.ffn.norm.weight"));
  BOOST_TEST(at1(2 * layers * d) == first("norm.weight"));
  BOOST_TEST(at1(2 * layers * d + d) == first("embedding.weight"));
  BOOST_TEST(at1(2 * layers * d + d + table) == first("blocks.0.attention.q.weight"));
  BOOST_TEST(at1(2 * layers * d + d + table + attention + feed_forward) == first("head.weight"));
  BOOST_TEST(v1.size() == 256 + 4 * (2 * layers * d + d + 2 * table + attention + feed_forward));
}

BOOST_AUTO_TEST_CASE(half_pairs_are_reordered) {
  const auto pairs = test::distinct<tied>();
  ln::weights<ln::decoder<shape, ln::position::rope_half>> half;
  LINNET_REQUIRE_OK(ln::load_llama2c(half, test::bytes(saved(pairs, ln::llama2c_version::v1))));
  const auto a = test::floats(pairs, "blocks.2.attention.k.weight"),
             b = test::floats(half, "blocks.2.attention.k.weight");
  const std::size_t rows[] = {0, 2, 1, 3,
                              4, 6, 5, 7};  // heads of 4: (0,1),(2,3) become (0,2),(1,3)
  for (std::size_t n = 0; n < 8; ++n)
    for (std::size_t j = 0; j < 16; ++j) BOOST_REQUIRE_EQUAL(b[n * 16 + j], a[rows[n] * 16 + j]);
  BOOST_TEST(test::same_bits(test::floats(pairs, "blocks.2.attention.v.weight"),
                             test::floats(half, "blocks.2.attention.v.weight")));
}

BOOST_AUTO_TEST_CASE(bad_files) {
  auto w = test::distinct<tied>(3.0f);
  const auto before = w.clone();
  const std::string v0 = saved(test::distinct<tied>(), ln::llama2c_version::v0),
                    v1 = saved(test::distinct<tied>(), ln::llama2c_version::v1);
  const std::string open0 = saved(test::distinct<untied>(), ln::llama2c_version::v0),
                    open1 = saved(test::distinct<untied>(), ln::llama2c_version::v1);
  std::string padded = v1, flagged = v1;
  padded[100] = 1;
  flagged[36] = 2;
  const std::string size0 = std::to_string(v0.size()), size1 = std::to_string(v1.size());
  const std::pair<std::string, std::string> table[] = {
      {"", "file size: expected at least 28 bytes, got 0"},
      {v0.substr(0, 27), "file size: expected at least 28 bytes, got 27"},
      {v1.substr(0, 255), "file size: expected at least 256 bytes, got 255"},
      {v0.substr(0, 28), "file size: expected " + size0 + " bytes for this header, got 28"},
      {v0.substr(0, v0.size() - 1), "file size: expected " + size0 +
                                        " bytes for this header, got " +
                                        std::to_string(v0.size() - 1)},
      {v0 + "x", "file size: expected " + size0 + " bytes for this header, got " +
                     std::to_string(v0.size() + 1)},
      {v1.substr(0, 300), "file size: expected " + size1 + " bytes for this header, got 300"},
      {with(v0, 0, 17), "dim: expected 16 (the model type), got 17"},
      {with(v0, 0, -1), "dim: expected 16 (the model type), got -1"},
      {with(v0, 0, 0), "dim: expected 16 (the model type), got 0"},
      {with(v0, 1, 2147483647), "hidden_dim: expected 26 (the model type), got 2147483647"},
      {with(v0, 2, 4), "n_layers: expected 3 (the model type), got 4"},
      {with(v0, 3, 8), "n_heads: expected 4 (the model type), got 8"},
      {with(v0, 4, 4), "n_kv_heads: expected 2 (the model type), got 4"},
      {with(v0, 5, 42), "vocab_size: expected 41 (the model type), got 42"},
      {with(v0, 5, -42), "vocab_size: expected 41 (the model type), got -42"},
      {with(v0, 5, -2147483647 - 1), "vocab_size: expected 41 (the model type), got -2147483648"},
      {open0, "vocab_size (negative: untied head): expected 41 (the model type), got -41"},
      {with(v0, 6, 10), "seq_len: expected 9 (the model type), got 10"},
      {with(v1, 1, 2), "version: expected 0 or 1, got 2"},
      {with(v1, 1, -1), "version: expected 0 or 1, got -1"},
      {with(v1, 2, 64), "dim: expected 16 (the model type), got 64"},
      {with(v1, 7, -41), "vocab_size: expected 41 (the model type), got -41"},
      {with(v1, 8, 0), "seq_len: expected 9 (the model type), got 0"},
      {open1, "shared classifier: expected 1 (the model type), got 0"},
      {flagged, "shared classifier: expected 0 or 1, got 2"},
      {padded, "header: expected zeros from byte 37 on, got another value"},
  };
  for (const auto& [file, message] : table) {
    const std::size_t asked = test::bytes_asked_for();
    const std::string got = test::message(ln::load_llama2c(w, test::bytes(file), "f"));
    BOOST_TEST(test::bytes_asked_for() - asked < 65536u);
    BOOST_TEST(got == "f: " + message);
  }
  BOOST_TEST(test::same_bytes(w, before));

  ln::weights<untied> other;
  BOOST_TEST(test::message(ln::load_llama2c(other, test::bytes(v0), "f")) ==
             "f: vocab_size (negative: untied head): expected -41 (the model type), got 41");
  BOOST_TEST(test::message(ln::load_llama2c(w, "no/such/file")) ==
             "no/such/file: expected a readable file, got No such file or directory");
}

BOOST_AUTO_TEST_CASE(numbers_the_format_cannot_hold) {
  static constexpr auto change = [](auto member, double value) {
    ln::decoder_shape s = shape;
    s.*member = value;
    return s;
  };
  const std::string v0 = saved(test::distinct<tied>(), ln::llama2c_version::v0);
  ln::weights<ln::decoder<change(&ln::decoder_shape::eps, 1e-6)>> other_eps;
  BOOST_TEST(test::message(ln::load_llama2c(other_eps, test::bytes(v0), "f")) ==
             "f: norm eps: expected 1e-06 (the model type), got 1e-05, as always in llama2.c");
  BOOST_TEST(!ln::save_llama2c(other_eps, "/tmp/never-written"));
  ln::weights<ln::decoder<change(&ln::decoder_shape::rope_theta, 5e5)>> other_theta;
  BOOST_TEST(test::message(ln::load_llama2c(other_theta, test::bytes(v0), "f")) ==
             "f: rope theta: expected 500000 (the model type), got 10000, as always in llama2.c");
}

BOOST_AUTO_TEST_CASE(stories260k_tells_its_story) {
  const std::string model = test::data_file("stories260K/stories260K.bin");
  const std::string vocabulary = test::data_file("stories260K/tok512.bin");
  const std::string expected = test::data_file("stories260K/expected_greedy_n200.txt");
  if (model.empty()) return;
  using M = ln::zoo::stories260k;
  ln::weights<M> w;
  LINNET_REQUIRE_OK(ln::load_llama2c(w, model));
  const auto tokenizer = ln::read_llama2c_tokenizer(vocabulary, M::vocabulary);
  LINNET_REQUIRE_OK(tokenizer);
  const auto p = ln::pack(w);
  auto run = ln::session<M>::open(p, {.target = 256});
  LINNET_REQUIRE_OK(run);
  std::string text;
  const auto begin = ln::llama2c_tokenizer::begin;
  ln::token previous = begin;
  run->generate({&begin, 1}, ln::greedy{},
                [&](ln::token t) {
                  text += tokenizer->decode(previous, t);
                  previous = t;
                },
                {.tokens = 200, .stop = {&begin, 1}});
  BOOST_TEST(text == test::contents(expected));

  // Saved again, only the unused rotary tables may differ, in their last digits.
  const std::string original = test::contents(model), again = saved(w, ln::llama2c_version::v0);
  BOOST_REQUIRE_EQUAL(again.size(), original.size());
  for (std::size_t at = 0; at < original.size(); at += 4)
    BOOST_REQUIRE_SMALL(value(original, at) - value(again, at),
                        at < original.size() - 4 * 512 * 8 ? 1e-30f : 1e-4f);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::llama2c_test
