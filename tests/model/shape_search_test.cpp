// SPDX-License-Identifier: MIT
// A search over shapes: those within the budget are narrowed and judged, the best comes first.

#include "support/compression.hpp"
#include "support/models.hpp"

namespace test::shape_search_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
constexpr ln::decoder_shape with(index d_ff, index layers) {
  auto s = tiny_decoder_shape;
  s.d_ff = d_ff;
  s.layers = layers;
  return s;
}
constexpr auto wide = with(6, 2), flat = with(7, 1), thin = with(3, 1);
template <auto Shape>
constexpr index bytes_of = ln::weight_bytes<ln::narrowed<model, Shape>>();
constexpr ln::shape_budget budget{.bytes = bytes_of<flat>, .length = 4};

}  // namespace

BOOST_AUTO_TEST_SUITE(shape_search)

BOOST_AUTO_TEST_CASE(shapes_within_the_budget_are_tried) {
  static_assert(bytes_of<wide> > bytes_of<flat> && bytes_of<flat> > bytes_of<thin>);
  ln::weights<model> w;
  randomize(w);
  auto scores = ln::importance_of(w);
  BOOST_REQUIRE(scores);
  std::vector<index> sizes;
  const auto judge = [&](const auto& small) {
    using N = typename std::remove_cvref_t<decltype(small)>::model;
    sizes.push_back(N::shape.d_ff);
    return static_cast<double>(N::shape.d_ff);
  };
  const auto found = ln::try_shapes<budget, wide, flat, thin>(w, *scores, judge);
  BOOST_REQUIRE_MESSAGE(found, (found ? "" : found.error().message()));
  BOOST_TEST((sizes == std::vector<index>{7, 3}));
  BOOST_REQUIRE(found->size() == 2);
  BOOST_TEST((found->front().candidate == 2 && found->front().loss == 3));
  BOOST_TEST((found->back().candidate == 1 && found->back().bytes == bytes_of<flat>));
  BOOST_TEST(found->back().flops == (ln::narrowed<model, flat>::flops(1, 4)));

  const auto equal =
      ln::try_shapes<budget, flat, thin>(w, *scores, [](const auto&) { return 1.0; });
  BOOST_REQUIRE(equal);
  BOOST_TEST(equal->front().candidate == 1);
  const auto diverged = ln::try_shapes<budget, thin>(
      w, *scores, [](const auto&) { return std::numeric_limits<double>::quiet_NaN(); });
  BOOST_REQUIRE(!diverged);
  BOOST_TEST(diverged.error().message() ==
             "try_shapes: loss of shape 0: expected a finite number, got a NaN or an infinity");
  const auto refused = ln::try_shapes<budget, thin>(w, *scores, [](const auto&) {
    return ln::result<double>(ln::error{ln::errc::invalid, "judge", "text", "some", "none"});
  });
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().where == "judge");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::shape_search_test
