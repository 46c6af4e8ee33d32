// SPDX-License-Identifier: MIT
// Weights that are not finite, in files: masters are kept as they are, compressed ones are refused.

#include "io/models.hpp"

namespace test::nonfinite_test {

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

// Or the file is refused before a weight is touched.
BOOST_AUTO_TEST_CASE(refused_at_load) {
  using M = test::llama_mha;
  const test::scratch_folder folder;
  const std::string path = folder.path("model.safetensors");
  auto w = test::distinct<M>();
  const auto before = w.clone();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), infinity, -infinity}) {
    auto broken = test::distinct<M>(2.0f);
    const auto leaf = test::leaf(broken, "blocks.1.ffn.up.weight");
    // The last value: none is left out.
    reinterpret_cast<float*>(leaf.data)[leaf.size() - 1] = bad;
    LINNET_REQUIRE_OK(ln::save_safetensors(broken, path));
    const std::string said =
        ": blocks.1.ffn.up.weight: expected finite numbers, got a NaN or an infinity";
    const auto refused =
        ln::load_safetensors(w, path, ln::naming::canonical{}, ln::nonfinite::refuse);
    BOOST_TEST(test::message(refused) == path + said);
    BOOST_TEST((!refused && refused.error().code == ln::errc::invalid));
    const std::string bytes = test::contents(path);
    BOOST_TEST(test::message(ln::load_safetensors(w, test::bytes(bytes), ln::naming::canonical{},
                                                  "s", ln::nonfinite::refuse)) == "s" + said);
    LINNET_REQUIRE_OK(ln::save_hugging_face(broken, folder.path()));
    BOOST_TEST(test::message(ln::load_hugging_face(w, folder.path(), ln::nonfinite::refuse)) ==
               path +
                   ": model.layers.1.mlp.up_proj.weight: expected finite numbers, got a NaN or "
                   "an infinity");
    BOOST_TEST(test::same_bytes(w, before));
    LINNET_REQUIRE_OK(ln::load_hugging_face(w, folder.path()));
    BOOST_TEST(test::same_bytes(w, broken));
    LINNET_REQUIRE_OK(ln::save_hugging_face(before, folder.path()));
    LINNET_REQUIRE_OK(ln::load_hugging_face(w, folder.path(), ln::nonfinite::refuse));
    BOOST_TEST(test::same_bytes(w, before));
  }
}

BOOST_AUTO_TEST_CASE(refused_in_other_files) {
  static constexpr ln::decoder_shape shape{.d_model = 16,
                                           .d_ff = 26,
                                           .heads = 4,
                                           .kv_heads = 4,
                                           .layers = 2,
                                           .vocabulary = 41,
                                           .context = 32,
                                           .eps = 1e-5};
  using M = ln::decoder<shape>;
  const test::scratch_folder folder;
  const std::string path = folder.path("model.bin");
  auto w = test::distinct<M>();
  const auto before = w.clone();
  auto broken = test::distinct<M>(2.0f);
  const auto leaf = test::leaf(broken, "blocks.1.ffn.up.weight");
  reinterpret_cast<float*>(leaf.data)[leaf.size() - 1] = std::nanf("");
  LINNET_REQUIRE_OK(ln::save_llama2c(broken, path));
  BOOST_TEST(test::message(ln::load_llama2c(w, path, ln::nonfinite::refuse)) ==
             path + ": blocks.1.ffn.up.weight: expected finite numbers, got a NaN or an infinity");
  BOOST_TEST(test::same_bytes(w, before));
  LINNET_REQUIRE_OK(ln::load_llama2c(w, path));
  LINNET_REQUIRE_OK(ln::save_llama2c(before, path));
  LINNET_REQUIRE_OK(ln::load_llama2c(w, path, ln::nonfinite::refuse));
  BOOST_TEST(test::same_bytes(w, before));
}

// Codes that stand for no finite number are none that quantize() makes.
BOOST_AUTO_TEST_CASE(codes_of_eight_bits) {
  using M = ln::decoder<test::mha_shape>;
  const auto check = []<class S>(S, std::initializer_list<int> bad) {
    const test::scratch_folder folder;
    const std::string path = folder.path("w");
    const auto codes = ln::quantize<S>(test::distinct<M>(1.0f / 1024));
    ln::weights<ln::quantized<M, S>> w;
    for (int b = 0; b < 256; ++b) {
      LINNET_REQUIRE_OK(ln::save_safetensors(codes, path));
      const auto file = ln::read_safetensors(path);
      LINNET_REQUIRE_OK(file);
      auto tensors = test::tensors_of(*file);
      std::string values;
      for (auto& t : tensors)
        if (t.name == "embedding.weight") {
          values.assign(reinterpret_cast<const char*>(t.data.data()), t.data.size());
          values.back() = static_cast<char>(b);
          t.data = test::bytes(values);
        }
      LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("other"), tensors));
      const std::string got = test::message(ln::load_safetensors(w, folder.path("other")));
      const bool refused = std::find(bad.begin(), bad.end(), b & 0x7f) != bad.end();
      BOOST_TEST(got == (refused ? folder.path("other") +
                                       ": embedding.weight: expected codes of finite numbers, got "
                                       "another value"
                                 : "success"));
    }
  };
  check(ln::storage::fp8_e4m3{}, {0x7f});
  check(ln::storage::fp8_e5m2{}, {0x7c, 0x7d, 0x7e, 0x7f});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::nonfinite_test
