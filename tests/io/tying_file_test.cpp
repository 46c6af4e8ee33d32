// SPDX-License-Identifier: MIT
// Files of models that share parameters: every tensor once, under a name that says whose it is.

#include "io/models.hpp"

namespace test::tying_file_test {

namespace ln = linnet;
namespace sharing = ln::sharing;

namespace {

template <class M>
ln::safetensors round_trip(const ln::weights<M>& w, const std::string& path) {
  LINNET_REQUIRE_OK(ln::save_safetensors(w, path));
  ln::weights<M> back;
  LINNET_REQUIRE_OK(ln::load_safetensors(back, path));
  BOOST_TEST(test::same_bytes(w, back));
  return ln::read_safetensors(path).value();
}
std::string shape(const ln::safetensors& file, std::string_view name) {
  const auto* const found = file.find(name);
  return found ? found->description() : "none";
}

}  // namespace

BOOST_AUTO_TEST_SUITE(tying_file)

BOOST_AUTO_TEST_CASE(names_and_facts) {
  const test::scratch_folder folder;
  const std::string path = folder.path("w.safetensors");
  {
    using M = ln::decoder<test::mha_shape, sharing::ffn, ln::ffn::low_rank<3>>;
    const auto file = round_trip(test::distinct<M>(), path);
    BOOST_TEST(shape(file, "blocks.shared.ffn.gate.v.weight") == "F32 [3, 16]");
    BOOST_TEST(shape(file, "blocks.shared.ffn.gate.u.weight") == "F32 [26, 3]");
    BOOST_TEST(shape(file, "blocks.1.ffn.norm.weight") == "F32 [16]");
    BOOST_TEST(shape(file, "blocks.1.attention.q.weight") == "F32 [16, 16]");
    BOOST_TEST(shape(file, "blocks.0.ffn.gate.v.weight") == "none");
    BOOST_TEST(file.metadata().at("share") == "ffn");
    BOOST_TEST(file.metadata().at("ffn") == "low_rank 3 gated silu");
    BOOST_TEST(file.tensors().size() == 2u + 2 * 6 + 6);
    // Other models refuse it.
    ln::weights<ln::decoder<test::mha_shape, ln::ffn::low_rank<3>>> apart;
    const auto refused = ln::load_safetensors(apart, path);
    BOOST_REQUIRE(!refused);
    BOOST_TEST(refused.error().what == "blocks.0.ffn.gate.v.weight");
  }
  {
    using M = ln::decoder<test::mha_shape, sharing::lora<2, 4>, ln::embedding::factorised<5>>;
    const auto file = round_trip(test::distinct<M>(), path);
    BOOST_TEST(shape(file, "blocks.shared.attention.k.weight") == "F32 [16, 16]");
    BOOST_TEST(shape(file, "blocks.1.attention.k.lora_a.weight") == "F32 [2, 16]");
    BOOST_TEST(shape(file, "blocks.1.ffn.down.lora_b.weight") == "F32 [16, 2]");
    BOOST_TEST(shape(file, "embedding.weight") == "F32 [41, 5]");
    BOOST_TEST(shape(file, "embedding.projection.weight") == "F32 [16, 5]");
    BOOST_TEST(file.metadata().at("share") == "lora 2 alpha 4");
    BOOST_TEST(file.metadata().at("embedding") == "factorised 5");
    // The same tensors with another factor are another function.
    ln::weights<ln::decoder<test::mha_shape, sharing::lora<2>, ln::embedding::factorised<5>>> other;
    const auto refused = ln::load_safetensors(other, path);
    BOOST_REQUIRE(!refused);
    BOOST_TEST(refused.error().what == "share");
  }
  const auto albert = ln::quantize<ln::storage::int8>(
      test::distinct<ln::decoder<test::mha_shape, sharing::all, ln::embedding::factorised<5>>>(
          1.0f / 1024));
  BOOST_TEST(shape(round_trip(albert, path), "blocks.shared.attention.norm.weight") == "F32 [16]");
  static_assert(ln::hf_kind_of<ln::decoder<test::mha_shape>>() == ln::hf_kind::llama);
  static_assert(ln::hf_kind_of<ln::decoder<test::mha_shape, sharing::all>>() == ln::hf_kind::none);
  static_assert(ln::hf_kind_of<ln::decoder<test::mha_shape, ln::embedding::factorised<5>>>() ==
                ln::hf_kind::none);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tying_file_test
