// Weights that are not finite, in files: masters are kept as they are, compressed ones are refused.

#include "io/models.hpp"

namespace ln = linnet;

BOOST_AUTO_TEST_SUITE(nonfinite)

// Masters of a run that diverged can be saved, loaded and looked at; check_finite() is the choice
// to refuse them. Compressed weights that are not finite are not written.
BOOST_AUTO_TEST_CASE(saving_and_loading) {
  using M = ln::decoder<test::mha_shape>;
  using Q = ln::quantized<M, ln::storage::bf16>;
  const test::scratch_folder folder;
  const std::string path = folder.path("w.safetensors");
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  BOOST_TEST(bool(ln::check_finite(w, path)));
  auto q = ln::quantize<ln::storage::bf16>(w);
  LINNET_REQUIRE_OK(ln::save_safetensors(q, path));
  const std::string before = test::contents(path);
  q.tree().embedding.data[3] = static_cast<Q::storage::value>(0xff80);
  const auto refused = ln::save_safetensors(q, path);
  BOOST_TEST_REQUIRE(!refused);
  BOOST_TEST((refused.error().code == ln::errc::invalid));
  BOOST_TEST(refused.error().message() ==
             path + ": embedding.weight: expected finite numbers, got a NaN or an infinity");
  BOOST_TEST((test::contents(path) == before));

  w.tree().embedding.data[3] = std::numeric_limits<float>::quiet_NaN();
  LINNET_REQUIRE_OK(ln::save_safetensors(w, path));
  ln::weights<M> back;
  LINNET_REQUIRE_OK(ln::load_safetensors(back, path));
  BOOST_TEST(test::same_bytes(w, back));
  const auto named = ln::check_finite(back, path);
  BOOST_TEST_REQUIRE(!named);
  BOOST_TEST(named.error().message() ==
             path + ": embedding.weight: expected finite numbers, got a NaN or an infinity");
  // Weights that quantize() refused say why here, too.
  const auto failed = ln::save_safetensors(ln::quantize<ln::storage::int8>(w), path);
  BOOST_TEST_REQUIRE(!failed);
  BOOST_TEST(failed.error().message().starts_with("quantize: embedding.weight"));
}

BOOST_AUTO_TEST_SUITE_END()
