// SPDX-License-Identifier: MIT
// Weights with corrections in files: every bit comes back, into their own type only, and numbers of
// inputs that a matrix has not are refused.

#include "io/models.hpp"

namespace test::corrections_file_test {

namespace {

namespace storage = ln::storage;
using test::description;
using small = ln::decoder<test::mha_shape>;
using four = storage::int4<8>;
using columns = storage::outlier_columns<four, 3>;
using sparse = storage::sparse_outliers<four, 2, storage::bf16>;
using low_rank = storage::low_rank_correction<four, 3, storage::f32>;

template <class S>
ln::weights<ln::quantized<small, S>> weights_in() {
  auto w = ln::quantize<S>(test::distinct<small>(1.0f / 1024));
  if constexpr (std::is_same_v<S, low_rank>)
    for (int i = 0; i < 5; ++i) {
      w.tree().embedding.correction.left.data[i] = static_cast<float>(i) / 4;
      w.tree().embedding.correction.right.data[i] = 1 - static_cast<float>(i) / 8;
    }
  return w;
}
template <class S>
std::string round_trip() {
  return test::stored_file(weights_in<S>());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(corrections_file)

BOOST_AUTO_TEST_CASE(corrections_round_trip) {
  const std::string doubled = round_trip<storage::nf4_double_per<8>>();
  BOOST_TEST(description(doubled, "embedding.weight.scale_codes") == "I8 [41, 2]");
  BOOST_TEST(description(doubled, "embedding.weight.scale_steps") == "F32 [1, 1]");
  BOOST_TEST(description(doubled, "embedding.weight.scale_mean") == "F32 [1, 1]");
  BOOST_TEST(description(doubled, "embedding.weight.scales") == "none");
  const std::string by_columns = round_trip<columns>(), by_rows = round_trip<sparse>(),
                    by_rank = round_trip<low_rank>();
  const std::string name = "blocks.0.attention.q.weight";
  BOOST_TEST(description(by_columns, name + ".outliers") == "F16 [16, 3]");
  BOOST_TEST(description(by_columns, name + ".outlier_inputs") == "U16 [1, 3]");
  BOOST_TEST(description(by_rows, name + ".outliers") == "BF16 [16, 2]");
  BOOST_TEST(description(by_rows, name + ".outlier_inputs") == "U16 [16, 2]");
  BOOST_TEST(description(by_rank, name + ".left") == "F32 [16, 3]");
  BOOST_TEST(description(by_rank, name + ".right") == "F32 [3, 16]");
  ln::weights<ln::quantized<small, sparse>> other;
  BOOST_TEST(test::message(ln::load_safetensors(other, test::bytes(by_columns), {}, "f")) ==
             "f: storage: expected int4_sparse_outliers_2_bf16 (the model type), got "
             "int4_outlier_columns_3_f16");
}

/// The bytes of the file's tensors are those that the type says.
template <class S>
void check_bytes(const std::string& file) {
  const auto parsed = ln::parse_safetensors(test::bytes(file));
  LINNET_REQUIRE_OK(parsed);
  ln::index bytes = 0;
  for (const auto& tensor : parsed->tensors()) bytes += std::ssize(tensor.data);
  BOOST_TEST((bytes == ln::weight_bytes<ln::quantized<small, S>>()), S::name << ' ' << bytes);
}
BOOST_AUTO_TEST_CASE(bytes_of_the_type) {
  check_bytes<columns>(round_trip<columns>());
  check_bytes<sparse>(round_trip<sparse>());
  check_bytes<low_rank>(round_trip<low_rank>());
  using spqr = storage::sparse_outliers<storage::spqr<3>, 2>;
  check_bytes<spqr>(round_trip<spqr>());
  check_bytes<storage::nf4_double_per<8>>(round_trip<storage::nf4_double_per<8>>());
}

BOOST_AUTO_TEST_CASE(inputs_that_are_none) {
  const test::scratch_folder folder;
  auto w = weights_in<columns>();
  auto& embedding = w.tree().embedding.correction;
  const auto good = embedding.inputs[2];
  embedding.inputs[2] = storage::input_number{16};
  BOOST_TEST(test::message(ln::save_safetensors(w, folder.path("w"))) ==
             folder.path("w") +
                 ": embedding.weight.outlier_inputs: expected numbers of the matrix's inputs, got "
                 "another value");
  embedding.inputs[2] = good;
  LINNET_REQUIRE_OK(ln::save_safetensors(w, folder.path("w")));
  const auto file = ln::read_safetensors(folder.path("w"));
  LINNET_REQUIRE_OK(file);
  auto tensors = test::tensors_of(*file);
  const std::string wrong("\x01\x00\x02\x00\x10\x00", 6);
  for (auto& t : tensors)
    if (t.name == "embedding.weight.outlier_inputs") t.data = test::bytes(wrong);
  LINNET_REQUIRE_OK(ln::write_safetensors(folder.path("bad"), tensors));
  ln::weights<ln::quantized<small, columns>> other;
  const std::string said = test::message(ln::load_safetensors(other, folder.path("bad")));
  BOOST_TEST(said.find("expected numbers of the matrix's inputs") != said.npos, said);
  auto p = ln::pack(w);
  const_cast<storage::input_number*>(p.tree().embedding.correction.inputs)[1] =
      storage::input_number{65535};
  LINNET_REQUIRE_OK(ln::save_packed(p, folder.path("p")));
  BOOST_TEST(test::message(ln::map_packed<ln::quantized<small, columns>>(folder.path("p"))) ==
             folder.path("p") +
                 ": panels: expected outliers at inputs of their matrix, got another number");
  embedding.values.data[4] = 0x7e00;
  BOOST_TEST(ln::first_nonfinite(w) == "embedding.weight.outliers");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::corrections_file_test
