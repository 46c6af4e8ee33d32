// SPDX-License-Identifier: MIT
// Files of calibrations: gathering goes on with the same bits, and nothing else is taken for one.

#include "models.hpp"
#include "support/models.hpp"

#if __has_include(<xxhash.h>)
#include <linnet/calibration_file.hpp>

namespace test::calibration_file_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
using other = ln::decoder<tiny_decoder_shape, ln::ffn::gelu>;

/// Whether two calibrations have the same bits.
bool same(const ln::calibration<model>& a, const ln::calibration<model>& b) {
  bool all = a.batches() == b.batches();
  index seen = 0;
  for (index i = 0; i < std::ssize(a.state().places); ++i) {
    const auto x = a.of(i), y = b.of(i);
    all = all && x.rows == y.rows && x.width == y.width;
    if (x.rows == 0 || !all) continue;
    ++seen;
    const auto k = at(x.width);
    all = same_bits(std::span(x.sums, k), std::span(y.sums, k)) &&
          same_bits(std::span(x.squares, k), std::span(y.squares, k)) &&
          same_bits(std::span(x.largest, k), std::span(y.largest, k)) &&
          same_bits(std::span(x.magnitudes, k), std::span(y.magnitudes, k)) &&
          same_bits(std::span(x.moments, k * k), std::span(y.moments, k * k));
  }
  return all && seen == 15;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(calibration_file)

BOOST_AUTO_TEST_CASE(goes_on_with_the_same_bits) {
  const scratch_folder folder;
  const std::string path = folder.path("calibration");
  ln::weights<model> w;
  randomize(w);
  const decoder_tokens data(8, 5, model::vocabulary);
  const ln::limits l{.batch = 2, .target = 5};
  std::vector<index> asked;
  const auto batches = [&](index i) {
    asked.push_back(i);
    return i < 4 ? data.part(2 * i, 2) : ln::decoder_batch{};
  };
  const ln::calibration_options part{.batches = 2, .rows_per_input = 0};
  const auto whole = ln::calibrate(w, batches, l);
  LINNET_REQUIRE_OK(whole);
  const auto first = ln::calibrate(w, batches, l, part);
  LINNET_REQUIRE_OK(first);
  BOOST_TEST(first->batches() == 2);
  LINNET_REQUIRE_OK(ln::save_calibration(path, *first));
  auto loaded = ln::load_calibration<model>(path);
  LINNET_REQUIRE_OK(loaded);
  BOOST_TEST(same(*first, *loaded));
  asked.clear();
  const auto second = ln::calibrate(w, batches, l, {}, std::move(*loaded));
  LINNET_REQUIRE_OK(second);
  BOOST_TEST(asked == (std::vector<index>{2, 3, 4}), boost::test_tools::per_element());
  BOOST_TEST(same(*whole, *second));
  BOOST_TEST(!same(*whole, *first));

  // Statistics of another kind.
  BOOST_TEST(message(ln::calibrate(w, batches, l, {.moments = false},
                                   *ln::load_calibration<model>(path))) ==
             "calibrate: calibration_options.moments: expected that of the statistics to go on "
             "from, got false");
  BOOST_TEST(message(ln::load_calibration<other>(path)).find(": ffn: expected ") !=
             std::string::npos);
  BOOST_TEST(message(ln::load_calibration<model>(folder.path("none"))) != "success");
}

BOOST_AUTO_TEST_CASE(other_files_are_refused) {
  const scratch_folder folder;
  const std::string path = folder.path("calibration");
  ln::weights<model> w;
  randomize(w);
  const auto data = decoder_data<model>();
  auto c = ln::calibrate(w, [&](index) { return data.view(); }, data.limits(), {.batches = 1});
  LINNET_REQUIRE_OK(c);
  LINNET_REQUIRE_OK(ln::save_calibration(path, *c));
  const std::string good = contents(path);
  const auto with = [&](const std::string& file) {
    LINNET_REQUIRE_OK(ln::write_file(path, bytes(file)));
    return ln::load_calibration<model>(path);
  };
  LINNET_REQUIRE_OK(with(good));
  for (std::size_t i = 0; i < good.size(); i += 37) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    BOOST_TEST(!with(damaged), i);
  }
  for (const std::size_t size : {std::size_t{0}, good.size() / 2, good.size() - 1})
    BOOST_TEST(!with(good.substr(0, size)), size);

  // Whole files with numbers that no calibration has.
  const auto changed = [&](auto&& change) {
    auto copy = ln::load_calibration<model>(path);
    change(copy->state());
    LINNET_REQUIRE_OK(ln::save_calibration(folder.path("changed"), *copy));
    return message(ln::load_calibration<model>(folder.path("changed")));
  };
  LINNET_REQUIRE_OK(with(good));
  BOOST_TEST(changed([](auto&) {}) == "success");
  using state = ln::detail::calibration_state;
  BOOST_TEST(changed([](state& s) {
               s.places[2] = 99;
             }).ends_with("places of sums, of matrices, got others"));
  BOOST_TEST(changed([](state& s) {
               s.places[1] = 0;
             }).ends_with("places of sums, of matrices, got others"));
  BOOST_TEST(changed([](state& s) { s.places[2] = -2; }) != "success");
  BOOST_TEST(
      changed([](state& s) { s.places[9] = 0; }).ends_with("inputs of one width, got others"));
  BOOST_TEST(
      changed([](state& s) { s.places[0] = -1; }).ends_with("for each of the sums, got others"));
  BOOST_TEST(changed([](state& s) {
               s.inputs[0].rows = 0;
             }).ends_with("for each of the sums, got others"));
  BOOST_TEST(changed([](state& s) { s.batches = -1; }) != "success");
}

/// Sums of gradients go on with the same bits, and nothing else is taken for them.
BOOST_AUTO_TEST_CASE(sensitivities) {
  const scratch_folder folder;
  const std::string path = folder.path("sensitivities");
  ln::weights<model> w;
  randomize(w);
  const auto data = decoder_data<model>();
  const auto batches = [&](index) { return data.view(); };
  for (const bool squares : {true, false}) {
    const auto part =
        ln::sensitivities(w, batches, data.limits(), {.batches = 1, .squares = squares});
    const auto whole =
        ln::sensitivities(w, batches, data.limits(), {.batches = 3, .squares = squares});
    BOOST_REQUIRE(part && whole);
    LINNET_REQUIRE_OK(ln::save_sensitivities(path, *part));
    auto loaded = ln::load_sensitivities<model>(path);
    LINNET_REQUIRE_OK(loaded);
    const auto rest = ln::sensitivities(w, batches, data.limits(),
                                        {.batches = 3, .squares = squares}, std::move(*loaded));
    LINNET_REQUIRE_OK(rest);
    BOOST_TEST(rest->samples() == whole->samples());
    BOOST_TEST(rest->loss().nats == whole->loss().nats);
    BOOST_TEST(rest->loss().tokens == whole->loss().tokens);
    BOOST_TEST(same_bytes(*rest->state().sums, *whole->state().sums));
    if (squares) BOOST_TEST(same_bytes(*rest->state().squares, *whole->state().squares));
  }
  BOOST_TEST(message(ln::load_sensitivities<other>(path)).find(": ffn: expected ") !=
             std::string::npos);
  BOOST_TEST(message(ln::load_calibration<model>(path))
                 .ends_with("content: expected calibration, got sensitivities"));
  BOOST_TEST(message(ln::save_sensitivities(path, ln::gradient_statistics<model>()))
                 .ends_with("sums: expected what sensitivities() returns, got none"));
  const std::string good = contents(path);
  for (std::size_t i = 0; i < good.size(); i += 211) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    LINNET_REQUIRE_OK(ln::write_file(path, bytes(damaged)));
    BOOST_TEST(!ln::load_sensitivities<model>(path), i);
  }
  LINNET_REQUIRE_OK(ln::write_file(path, bytes(good)));
  auto changed = ln::load_sensitivities<model>(path);
  LINNET_REQUIRE_OK(changed);
  changed->state().samples = 0;
  LINNET_REQUIRE_OK(ln::save_sensitivities(path, *changed));
  BOOST_TEST(message(ln::load_sensitivities<model>(path))
                 .ends_with("counters: expected some batches, samples and labels, got others"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::calibration_file_test
#endif
