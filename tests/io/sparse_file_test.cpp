// SPDX-License-Identifier: MIT
// Sparse weights in files: every bit comes back, into their own type only, and places that a matrix
// has not are refused.

#include "io/models.hpp"

namespace test::sparse_file_test {

namespace {

namespace storage = ln::storage;
using test::description;
using small = ln::decoder<test::mha_shape>;
using two = storage::n_of_m<storage::int4<8>, 2, 4>;
using four = storage::n_of_m<storage::bf16, 4, 8>;
using plain = storage::n_of_m<storage::f32, 1, 3>;
using masked = storage::bit_mask<storage::int4<8>, 50>;

template <class S>
ln::weights<ln::quantized<small, S>> weights_in() {
  return ln::quantize<S>(test::distinct<small>(1.0f / 1024));
}
template <class S>
std::string round_trip() {
  return test::stored_file(weights_in<S>());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(sparse_file)

BOOST_AUTO_TEST_CASE(sparse_weights_round_trip) {
  const std::string in_four = round_trip<two>(), in_bf16 = round_trip<four>(),
                    in_f32 = round_trip<plain>();
  BOOST_TEST(description(in_four, "embedding.weight") == "U8 [41, 4]");
  BOOST_TEST(description(in_four, "embedding.weight.scales") == "F32 [41]");
  BOOST_TEST(description(in_four, "embedding.weight.places") == "U8 [41, 2]");
  BOOST_TEST(description(in_bf16, "blocks.0.attention.q.weight") == "BF16 [16, 8]");
  BOOST_TEST(description(in_bf16, "blocks.0.attention.q.weight.places") == "U8 [16, 3]");
  BOOST_TEST(description(in_f32, "blocks.0.attention.q.weight") == "F32 [16, 6]");
  BOOST_TEST(description(in_f32, "blocks.0.attention.q.weight.places") == "U8 [16, 2]");
  const std::string by_mask = round_trip<masked>();
  BOOST_TEST(description(by_mask, "embedding.weight") == "U8 [41, 4]");
  BOOST_TEST(description(by_mask, "embedding.weight.mask") == "U8 [41, 2]");
  const std::string by_blocks = round_trip<storage::block_sparse<storage::int8, 32, 4>>();
  BOOST_TEST(description(by_blocks, "embedding.weight") == "I8 [41, 8]");
  BOOST_TEST(description(by_blocks, "embedding.weight.blocks") == "U8 [2, 1]");
  ln::weights<ln::quantized<small, two>> other;
  BOOST_TEST(test::message(ln::load_safetensors(other, test::bytes(in_bf16), {}, "f")) ==
             "f: storage: expected int4_2_of_4 (the model type), got bf16_4_of_8");
  ln::weights<small> dense;
  BOOST_TEST(test::message(ln::load_safetensors(dense, test::bytes(in_f32), {}, "f")) ==
             "f: storage: expected f32 (the model type), got f32_1_of_3");
}

BOOST_AUTO_TEST_CASE(places_that_are_none) {
  const test::scratch_folder folder;
  auto w = weights_in<plain>();
  auto& embedding = w.tree().embedding;
  const auto good = embedding.kept.places.data[0];
  const std::string expected =
      ": embedding.weight.places: expected places of as many numbers as a row keeps, got another "
      "value";
  embedding.kept.places.data[0] = 3;  // of a group of 3
  BOOST_TEST(test::message(ln::save_safetensors(w, folder.path("w"))) ==
             folder.path("w") + expected);
  embedding.kept.places.data[0] = good;
  LINNET_REQUIRE_OK(ln::save_safetensors(w, folder.path("w")));
  const auto file = ln::read_safetensors(folder.path("w"));
  LINNET_REQUIRE_OK(file);
  auto tensors = test::tensors_of(*file);
  std::string wrong;
  for (auto& t : tensors)
    if (t.name == "embedding.weight.places") {
      wrong.assign(reinterpret_cast<const char*>(t.data.data()), t.data.size());
      wrong[1] = '\xff';
      t.data = test::bytes(wrong);
    }
  LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("bad"), tensors));
  ln::weights<ln::quantized<small, plain>> other;
  const std::string said = test::message(ln::load_safetensors(other, folder.path("bad")));
  BOOST_TEST(said.find("expected places of as many numbers as a row keeps") != said.npos, said);
  auto p = ln::pack(weights_in<two>());
  // Twice the same input in a group.
  const_cast<ln::simd::word*>(p.tree().embedding.kept.places.panels)[3] = 0x55555555;
  LINNET_REQUIRE_OK(ln::save_packed(p, folder.path("p")));
  BOOST_TEST(test::message(ln::map_packed<ln::quantized<small, two>>(folder.path("p"))) ==
             folder.path("p") +
                 ": panels: expected places of as many numbers as a row keeps, got other places");
  auto by_mask = ln::quantize<masked>(test::distinct<small>(1.0f / 1024));
  auto packed = ln::pack(by_mask);
  const_cast<ln::simd::word*>(packed.tree().embedding.kept.masks)[3] = 0x1ff;  // one too many
  LINNET_REQUIRE_OK(ln::save_packed(packed, folder.path("m")));
  BOOST_TEST(test::message(ln::map_packed<ln::quantized<small, masked>>(folder.path("m"))) ==
             folder.path("m") +
                 ": panels: expected places of as many numbers as a row keeps, got other places");
  by_mask.tree().embedding.kept.mask[2] ^= 1;
  BOOST_TEST(
      test::message(ln::save_safetensors(by_mask, folder.path("n"))) ==
      folder.path("n") +
          ": embedding.weight.mask: expected places of as many numbers as a row keeps, got another "
          "value");
  embedding.data[4] = std::numeric_limits<float>::infinity();
  BOOST_TEST(ln::first_nonfinite(w) == "embedding.weight");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::sparse_file_test
