// SPDX-License-Identifier: MIT
// Models whose parts are stored in several ways: each tensor as its role says, the function that of
// the decoded weights, and files that come back as they were.

#include <linnet/json.hpp>

#include "support/data.hpp"
#include "support/mixed.hpp"

namespace test::per_role_test {

namespace {

namespace storage = ln::storage;
using storage::per_role;

// Embedding and head in 8 bits over matrices in 4.
using ends =
    per_role<storage::int4<8>, storage::embedding<storage::int8>, storage::head<storage::int8>>;
// Four storage types, and every role in another one than its neighbours.
using every = per_role<storage::int8, storage::embedding<storage::f16>,
                       storage::head<storage::int8>, storage::attention_q<storage::nf4>,
                       storage::attention_k<storage::f16>, storage::attention_v<storage::int4<8>>,
                       storage::attention_o<storage::nf4>, storage::ffn_gate<storage::int4<8>>,
                       storage::ffn_up<storage::f16>, storage::ffn_down<storage::nf4>>;

using llama = ln::decoder<tiny_decoder_shape>;
using untied = ln::decoder<tiny_decoder_shape, ln::tie::untied>;
using gpt2 = ln::decoder<tiny_decoder_shape, ln::ffn::gelu, ln::bias::all, ln::tie::untied,
                         ln::embedding::factorised<4>>;
using t5 = ln::t5<tiny_t5_shape, ln::ffn::gated_gelu>;

// One type however it is spelled, and a uniform one where nothing differs.
static_assert(std::is_same_v<per_role<storage::int8, storage::head<storage::int8>>, storage::int8>);
static_assert(std::is_same_v<
              per_role<storage::nf4, storage::head<storage::f16>, storage::head<storage::int8>>,
              per_role<storage::nf4, storage::head<storage::int8>>>);
static_assert(
    std::is_same_v<ln::quantized<llama, ends>,
                   ln::decoder<tiny_decoder_shape,
                               per_role<storage::int4<8>, storage::embedding<storage::int8>>>>);
static_assert(
    std::is_same_v<ln::quantized<t5, ends>,
                   ln::t5<tiny_t5_shape, ln::ffn::gated_gelu,
                          per_role<storage::int4<8>, storage::embedding<storage::int8>>>>);
static_assert(
    std::is_same_v<ln::form::at<ln::form::packed<float, storage::int8>, storage::part::ffn_up>,
                   ln::form::packed<float, storage::int8>>);

}  // namespace

BOOST_AUTO_TEST_SUITE(per_role_storage)

BOOST_AUTO_TEST_CASE(each_role_as_it_says) {
  ln::weights<untied> w;
  randomize(w);
  auto of = storages_of(ln::quantize<every>(w));
  BOOST_TEST(of["embedding.weight"] == "f16");
  BOOST_TEST(of["head.weight"] == "int8");
  const std::map<std::string, std::string> block = {{"attention.q", "nf4"},  {"attention.k", "f16"},
                                                    {"attention.v", "int4"}, {"attention.o", "nf4"},
                                                    {"ffn.gate", "int4"},    {"ffn.up", "f16"},
                                                    {"ffn.down", "nf4"}};
  for (const auto& [name, stored] : block)
    BOOST_TEST(of["blocks.1." + name + ".weight"] == stored, name);
  ln::weights<gpt2> g;
  randomize(g);
  of = storages_of(ln::quantize<every>(g));
  BOOST_TEST(of["blocks.0.ffn.wi.weight"] == "f16");
  BOOST_TEST(of["blocks.0.ffn.wo.weight"] == "nf4");
  BOOST_TEST(of["embedding.projection.weight"] == "f16");
}

BOOST_AUTO_TEST_CASE(computes_what_the_decoded_weights_do) {
  check_mixed_model<llama, ends>();
  check_mixed_model<untied, every>();
  check_mixed_model<gpt2, every>();
  check_mixed_model<t5, every>();
}

// Inputs of the head alone are rounded: nearer to the plain model than 8 bits are, and not the
// same.
BOOST_AUTO_TEST_CASE(rounded_inputs_of_one_role) {
  using eight = storage::with_compute<storage::int8, ln::compute::int8>;
  using S = per_role<storage::f32, storage::head<eight>>;
  ln::weights<untied> w;
  randomize(w);
  const auto q = ln::quantize<S>(w);
  const auto p = ln::pack(q);
  const auto got = prompt_logits(p, 1, false),
             want = prompt_logits(ln::pack(decoded<untied>(q)), 1, false);
  BOOST_TEST(distance(got, want) <= 0.05);
  BOOST_TEST(distance(got, want) > 1e-6);
  BOOST_TEST(same_bits(prompt_logits(p, 3, false), got));
}

// A compute type beside per_role<> is that of every role.
BOOST_AUTO_TEST_CASE(rounded_inputs_of_every_role) {
  using ln::compute::int8;
  using S = per_role<storage::q4_1, storage::head<storage::q8_0>>;
  using spelled = per_role<storage::with_compute<storage::q4_1, int8>,
                           storage::head<storage::with_compute<storage::q8_0, int8>>>;
  static_assert(std::is_same_v<ln::quantized<untied, S, int8>, untied::with_storage<spelled>>);
  static_assert(std::is_same_v<ln::quantized<untied, spelled>, untied::with_storage<spelled>>);
  ln::weights<untied> w;
  randomize(w);
  const auto q = ln::quantize<S, int8>(w);
  const auto p = ln::pack(q);
  const auto got = prompt_logits(p, 1, false),
             want = prompt_logits(ln::pack(decoded<untied>(q)), 1, false);
  BOOST_TEST(distance(got, want) <= 0.05);
  BOOST_TEST(distance(got, want) > 1e-6);
  BOOST_TEST(same_bits(prompt_logits(p, 3, false), got));
}

BOOST_AUTO_TEST_CASE(files) {
  const scratch_folder folder;
  ln::weights<untied> w;
  randomize(w);
  const auto q = ln::quantize<ends>(w);
  const std::string path = folder.path("mixed.safetensors");
  LINNET_REQUIRE_OK(ln::save_safetensors(q, path));
  ln::weights<ln::quantized<untied, ends>> back;
  LINNET_REQUIRE_OK(ln::load_safetensors(back, path));
  BOOST_TEST(same_bytes(back, q));
  const auto file = ln::read_safetensors(path);
  BOOST_TEST(file->metadata().at("storage") == "int4 group 8, embedding int8, head int8");
  ln::weights<ln::quantized<untied, storage::int4<8>>> plain;
  BOOST_TEST(message(ln::load_safetensors(plain, path)) ==
             path +
                 ": storage: expected int4 (the model type), got int4 group 8, embedding int8, "
                 "head int8");
  // Another width of a group would read the same shapes.
  using other =
      per_role<storage::int4<16>, storage::embedding<storage::int8>, storage::head<storage::int8>>;
  ln::weights<ln::quantized<untied, other>> wide;
  BOOST_TEST(message(ln::load_safetensors(wide, path)) ==
             path +
                 ": storage: expected int4 group 16, embedding int8, head int8 (the model type), "
                 "got int4 group 8, embedding int8, head int8");
}

// A role whose numbers end earlier than those of f32.
BOOST_AUTO_TEST_CASE(too_large_for_one_role) {
  ln::weights<untied> w;
  randomize(w);
  w.visit([](const ln::parameter_path& at, const ln::tensor_info&, auto& leaf) {
    if (at.str() == "blocks.1.attention.k.weight") values_of(leaf)[3] = 1e6f;
  });
  const auto q = ln::quantize<every>(w);
  BOOST_TEST(!q.valid());
  BOOST_TEST(q.error().what == "blocks.1.attention.k.weight");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::per_role_test
