// SPDX-License-Identifier: MIT
// Models whose layers are stored in several ways: each layer as its range says, the function that
// of the decoded weights, and files that come back as they were.

#include <linnet/compression.hpp>
#include <linnet/json.hpp>

#include "support/data.hpp"
#include "support/encoders.hpp"
#include "support/mixed.hpp"

namespace test::layers_storage_test {

namespace {

namespace storage = ln::storage;
using storage::first, storage::last, storage::layers, storage::per_role, storage::range;
using int4 = storage::int4<8>;

template <class Shape>
constexpr Shape deeper(Shape shape, index by) {
  shape.layers += by;
  return shape;
}
constexpr ln::decoder_shape deep = deeper(tiny_decoder_shape, 3);  // 5 layers
constexpr ln::t5_shape uneven_t5 = [] {
  ln::t5_shape s = tiny_t5_shape;
  s.decoder_layers = 3;
  return s;
}();

// Ends in 8 bits, and one layer with a role of its own.
using ends = layers<first<1, storage::int8>, int4, last<1, storage::int8>>;
using four =
    layers<first<1, storage::int8>,
           per_role<int4, storage::embedding<storage::f16>, storage::ffn_down<storage::nf4>>,
           range<2, 3, per_role<storage::f16, storage::attention_v<int4>>>, last<1, storage::nf4>>;

template <class... Policies>
using llama = ln::decoder<deep, Policies...>;
using untied = llama<ln::tie::untied>;
using gpt2 = llama<ln::ffn::gelu, ln::bias::all, ln::embedding::factorised<4>>;
using rwkv = ln::decoder<deeper(tiny_rwkv7_shape, 1), ln::mixer::rwkv7, ln::position::none>;
using t5 = ln::t5<uneven_t5, ln::ffn::gated_gelu>;
using bert = ln::encoder<deeper(tiny_encoder_shape, 1)>;

// One type however it is spelled, and a uniform one where nothing differs.
static_assert(std::is_same_v<layers<first<1, int4>, int4, last<2, int4>>, int4>);
static_assert(
    std::is_same_v<layers<int4, first<1, per_role<int4, storage::head<storage::f16>>>>, int4>);
static_assert(
    std::is_same_v<llama<ends>,
                   llama<layers<range<4, 5, storage::int8>, range<-5, 1, storage::int8>, int4>>>);
static_assert(std::is_same_v<llama<ends>, ln::quantized<llama<>, ends>>);
static_assert(
    std::is_same_v<llama<layers<int4, first<2, storage::int8>, first<2, int4>>>, llama<int4>>);
static_assert(
    std::is_same_v<llama<layers<int4, range<1, 4, storage::f16>, range<2, 3, int4>>>,
                   llama<layers<int4, range<1, 2, storage::f16>, range<3, 4, storage::f16>>>>);
static_assert(std::is_same_v<
              llama<layers<first<1, per_role<storage::int8, storage::head<storage::f16>>>, int4>>,
              llama<layers<first<1, storage::int8>, int4>>>);
static_assert(std::is_same_v<ln::t5<tiny_t5_shape, layers<int4, last<1, storage::int8>>>,
                             ln::t5<tiny_t5_shape, layers<int4, range<1, 2, storage::int8>>>>);
static_assert(
    std::is_same_v<ln::quantized<t5, layers<int4, first<1, int4>>>, ln::quantized<t5, int4>>);
// A compute type is that of every layer.
static_assert(std::is_same_v<
              ln::quantized<llama<>, ends, ln::compute::int8>,
              llama<layers<first<1, storage::with_compute<storage::int8, ln::compute::int8>>,
                           storage::with_compute<int4, ln::compute::int8>,
                           last<1, storage::with_compute<storage::int8, ln::compute::int8>>>>>);
// Layers that are stored alike have one type, wherever they stand.
static_assert(ln::detail::layers_of<ends, 5>::kinds<5>.count == 2);
static_assert(ln::detail::layers_of<four, 5>::kinds<5>.count == 4);

/// The numbers of each tensor, by name.
template <class Q>
std::map<std::string, std::vector<double>> numbers_of(const ln::weights<Q>& q) {
  std::map<std::string, std::vector<double>> all;
  q.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& leaf) {
    auto& x = all[at.str()];
    for (index i = 0; i < info.size(); ++i)
      if constexpr (requires { leaf.scales; })
        x.push_back(leaf.at(i / info.columns, i % info.columns, info.columns));
      else
        x.push_back(static_cast<double>(leaf[i]));
  });
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(layers_storage)

BOOST_AUTO_TEST_CASE(each_layer_as_its_range_says) {
  ln::weights<untied> w;
  randomize(w);
  const auto q = ln::quantize<four>(w);
  BOOST_REQUIRE(q.valid());
  const auto of = storages_of(q);
  const auto expect = [&](const std::string& name, const std::string& stored) {
    BOOST_TEST(of.at(name) == stored, name);
  };
  expect("embedding.weight", "f16");
  expect("head.weight", "int4");
  for (const std::string matrix : {"attention.q", "attention.v", "ffn.up", "ffn.down"}) {
    const std::string end = '.' + matrix + ".weight";
    expect("blocks.0" + end, "int8");
    expect("blocks.1" + end, matrix == "ffn.down" ? "nf4" : "int4");
    expect("blocks.2" + end, matrix == "attention.v" ? "int4" : "f16");
    expect("blocks.3" + end, matrix == "ffn.down" ? "nf4" : "int4");
    expect("blocks.4" + end, "nf4");
  }
  // In the order of the layers, and with the numbers of the uniform storage.
  std::vector<std::string> got, want;
  q.visit([&](const ln::parameter_path& at, const ln::tensor_info&, const auto&) {
    got.push_back(at.str());
  });
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info&, const auto&) {
    want.push_back(at.str());
  });
  BOOST_TEST(got == want);
  const auto numbers = numbers_of(q);
  const auto eight = numbers_of(ln::quantize<storage::int8>(w)),
             half = numbers_of(ln::quantize<storage::f16>(w)),
             small = numbers_of(ln::quantize<int4>(w));
  BOOST_TEST(numbers.at("blocks.0.ffn.down.weight") == eight.at("blocks.0.ffn.down.weight"));
  BOOST_TEST(numbers.at("blocks.2.ffn.down.weight") == half.at("blocks.2.ffn.down.weight"));
  BOOST_TEST(numbers.at("blocks.3.ffn.up.weight") == small.at("blocks.3.ffn.up.weight"));
  // The last layer of either stack of a T5.
  ln::weights<t5> u;
  randomize(u);
  const auto both = storages_of(ln::quantize<layers<int4, last<1, storage::int8>>>(u));
  for (const auto& [name, stored] :
       std::map<std::string, std::string>{{"encoder.blocks.0.attention.q.weight", "int4"},
                                          {"encoder.blocks.1.attention.q.weight", "int8"},
                                          {"decoder.blocks.1.cross.q.weight", "int4"},
                                          {"decoder.blocks.2.cross.q.weight", "int8"}})
    BOOST_TEST(both.at(name) == stored, name);
}

BOOST_AUTO_TEST_CASE(computes_what_the_decoded_weights_do) {
  check_mixed_model<llama<>, ends>();
  check_mixed_model<untied, four>();
  check_mixed_model<gpt2, four>();
  check_mixed_model<rwkv, layers<first<2, storage::int8>, int4>>();
  check_mixed_model<t5, layers<first<1, storage::int8>, int4, last<1, storage::f16>>>();
}

// Inputs of every layer are rounded: near to the plain model, and not the same.
BOOST_AUTO_TEST_CASE(rounded_inputs) {
  ln::weights<untied> w;
  randomize(w);
  using S = layers<first<1, storage::q8_0>, per_role<int4, storage::ffn_up<storage::q4_1>>>;
  const auto q = ln::quantize<S, ln::compute::int8>(w);
  const auto p = ln::pack(q);
  const auto got = prompt_logits(p, 1, false),
             want = prompt_logits(ln::pack(decoded<untied>(q)), 1, false);
  BOOST_TEST(distance(got, want) <= 0.05);
  BOOST_TEST(distance(got, want) > 1e-6);
  BOOST_TEST(same_bits(prompt_logits(p, 3, false), got));
}

BOOST_AUTO_TEST_CASE(encoders) {
  using S = layers<first<1, storage::int8>, int4>;
  ln::weights<bert> w;
  randomize(w);
  const auto q = ln::quantize<S>(w);
  BOOST_REQUIRE(q.valid());
  BOOST_TEST(storages_of(q)["blocks.0.ffn.wi.weight"] == "int8");
  BOOST_TEST(storages_of(q)["blocks.2.ffn.wi.weight"] == "int4");
  const auto data = encoder_data<bert>();
  BOOST_TEST(distance(logits_of(ln::pack(q), data), logits_of(ln::pack(decoded<bert>(q)), data)) <=
             1e-5);
}

// The bytes of each matrix as its layer is stored.
BOOST_AUTO_TEST_CASE(bytes) {
  using Q = ln::quantized<llama<>, ends>;
  index want = 0;
  ln::each_tensor<llama<>>([&](const ln::parameter_path& at, const ln::tensor_info& info) {
    const std::string name = at.str();
    const bool end = name.starts_with("blocks.0.") || name.starts_with("blocks.4.");
    if (!info.stored())
      want += 4 * info.size();
    else if (end)
      want += ln::matrix_bytes<storage::int8>(info.rows, info.columns);
    else
      want += ln::matrix_bytes<int4>(info.rows, info.columns);
  });
  BOOST_TEST(ln::weight_bytes<Q>() == want);
  BOOST_TEST((ln::weight_bytes<llama<>, ends>()) == want);
  BOOST_TEST((ln::weight_bytes<llama<>, storage::int8>()) > want);
  BOOST_TEST((ln::weight_bytes<llama<>, int4>()) < want);
}

BOOST_AUTO_TEST_CASE(methods) {
  ln::weights<llama<>> w;
  randomize(w);
  decoder_tokens data(4, 20, 11);
  const auto batches = [&](index i) { return data.part(i, 1); };
  const ln::limits limits{.target = 20};
  const auto stats = ln::calibrate(w, batches, limits, {.batches = 4});
  LINNET_REQUIRE_OK(stats);
  const auto q = ln::quantize<ends>(w, *stats, ln::gptq{});
  LINNET_REQUIRE_OK(q);
  const auto eight = ln::quantize<storage::int8>(w, *stats, ln::gptq{});
  LINNET_REQUIRE_OK(eight);
  const auto four_bits = ln::quantize<int4>(w, *stats, ln::gptq{});
  LINNET_REQUIRE_OK(four_bits);
  const auto of = numbers_of(*q), eights = numbers_of(*eight), fours = numbers_of(*four_bits);
  for (index l = 0; l < 5; ++l) {
    const std::string name = "blocks." + std::to_string(l) + ".ffn.down.weight";
    BOOST_TEST(of.at(name) == (l % 4 == 0 ? eights : fours).at(name), name);
  }
  const auto blocks = ln::quantize_in_blocks<ends>(w, batches, limits, ln::round_to_nearest{});
  LINNET_REQUIRE_OK(blocks);
  BOOST_TEST(same_bytes(*blocks, ln::quantize<ends>(w)));
}

// Loss and norm of the gradient are those of a plain trainer at the decoded weights.
BOOST_AUTO_TEST_CASE(fake_quantization) {
  using fake = ln::trainer<llama<>, ln::adamw, float, ln::compute::fake_quantized<four>>;
  ln::weights<llama<>> w;
  randomize(w);
  auto rounded = decoded<llama<>>(ln::quantize<four>(w));
  const auto data = data_for<llama<>>();
  auto train = fake::open(w, data.limits(), {.rate = {.peak = 0.01}});
  LINNET_REQUIRE_OK(train);
  auto plain = ln::trainer<llama<>>::open(rounded, data.limits(), {.rate = {.peak = 0.01}});
  LINNET_REQUIRE_OK(plain);
  BOOST_TEST(train->step(data.view()) == plain->step(data.view()));
  BOOST_TEST(train->progress().norm == plain->progress().norm);
  BOOST_TEST(train->progress().norm > 0);
  (void)train->evaluate(data.view());
  BOOST_TEST(same_bytes(train->quantized(), ln::quantize<four>(w)));
}

BOOST_AUTO_TEST_CASE(files) {
  const scratch_folder folder;
  ln::weights<llama<>> w;
  randomize(w);
  const auto q = ln::quantize<ends>(w);
  const std::string path = folder.path("layers.safetensors");
  LINNET_REQUIRE_OK(ln::save_safetensors(q, path));
  ln::weights<llama<ends>> back;
  LINNET_REQUIRE_OK(ln::load_safetensors(back, path));
  BOOST_TEST(same_bytes(back, q));
  BOOST_TEST(ln::read_safetensors(path)->metadata().at("storage") ==
             "int4 group 8, layer 0 int8, layer 4 int8");
  ln::weights<llama<layers<int4, first<2, storage::int8>, last<1, storage::int8>>>> other;
  BOOST_TEST(message(ln::load_safetensors(other, path)) ==
             path +
                 ": storage: expected int4 group 8, layers 0 to 1 int8, layer 4 int8 (the model "
                 "type), got int4 group 8, layer 0 int8, layer 4 int8");
  ln::weights<llama<int4>> plain;
  BOOST_TEST(!ln::load_safetensors(plain, path));
  BOOST_TEST(
      storage::name_of<untied::with_storage<four>::storage>() ==
      "int4 group 8, embedding f16, ffn_down nf4 group 64, layer 0 int8, layer 2 (f16, attention_v "
      "int4 group 8), layer 4 nf4 group 64");
  const std::string panels = folder.path("layers.packed");
  LINNET_REQUIRE_OK(ln::save_packed(ln::pack(q), panels));
  const auto loaded = ln::map_packed<llama<ends>>(panels);
  LINNET_REQUIRE_OK(loaded);
  BOOST_TEST(same_bytes(*loaded, ln::pack(q)));
  BOOST_TEST(!ln::map_packed<llama<int4>>(panels));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::layers_storage_test
