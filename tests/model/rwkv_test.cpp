// SPDX-License-Identifier: MIT
// RWKV-4 and RWKV-7 as whole models: what is counted, where they start, and that they learn.

#include "support/scoring.hpp"

namespace test::rwkv_test {

namespace {

namespace zoo = ln::zoo;

/// Parameters by the formulas of the literature; the first layer of RWKV-7 mixes no values.
constexpr index rwkv4_count(const ln::decoder_shape& s) {
  const index d = s.d_model, f = s.d_ff;
  return s.layers * (5 * d * d + 2 * d * f + 11 * d) + 2 * s.vocabulary * d + 4 * d;
}
constexpr index rwkv7_count(const ln::decoder_shape& s, index w, index a, index v, index g) {
  const index d = s.d_model, f = s.d_ff;
  return s.layers * (4 * d * d + 2 * d * f + 2 * d * (w + a + g) + 18 * d) +
         (s.layers - 1) * (2 * d * v + d) + 2 * s.vocabulary * d + 4 * d;
}
static_assert(zoo::rwkv4_660k::parameters() == rwkv4_count(zoo::shapes::rwkv4_660k) &&
              zoo::rwkv4_660k::parameters() == 661'504);
static_assert(zoo::rwkv7_834k::parameters() ==
                  rwkv7_count(zoo::shapes::rwkv7_834k, 32, 32, 32, 32) &&
              zoo::rwkv7_834k::parameters() == 829'888);
// The published sizes of the Pile's RWKV-4 and the World's RWKV-7.
constexpr ln::decoder_shape rwkv4_169m{.d_model = 768,
                                       .d_ff = 3072,
                                       .heads = 1,
                                       .kv_heads = 1,
                                       .layers = 12,
                                       .vocabulary = 50277,
                                       .context = 1024};
constexpr ln::decoder_shape rwkv7_191m{.d_model = 768,
                                       .d_ff = 3072,
                                       .heads = 12,
                                       .kv_heads = 12,
                                       .layers = 12,
                                       .vocabulary = 65536,
                                       .context = 4096};
static_assert(ln::rwkv4<rwkv4_169m>::parameters() == rwkv4_count(rwkv4_169m) &&
              rwkv4_count(rwkv4_169m) == 169'342'464);
static_assert(ln::rwkv7<rwkv7_191m>::parameters() == rwkv7_count(rwkv7_191m, 64, 64, 32, 128) &&
              rwkv7_count(rwkv7_191m, 64, 64, 32, 128) == 191'034'624);
static_assert(zoo::rwkv4_660k::non_embedding() == 661'504 - 2 * 256 * 128);

constexpr index flops4(const ln::decoder_shape& s, index tokens) {
  const index d = s.d_model;
  return tokens * (s.layers * 2 * (5 * d * d + 2 * d * s.d_ff) + 2 * s.vocabulary * d);
}
constexpr index flops7(const ln::decoder_shape& s, index ranks, index value_rank, index tokens) {
  const index d = s.d_model, n = s.head_width();
  return tokens * (s.layers * (2 * (4 * d * d + 2 * d * s.d_ff + 2 * d * ranks) + 9 * d * n) +
                   (s.layers - 1) * 4 * d * value_rank + 2 * s.vocabulary * d);
}
static_assert(zoo::rwkv4_660k::flops(3, 7) == flops4(zoo::shapes::rwkv4_660k, 21));
static_assert(zoo::rwkv7_834k::flops(3, 7) == flops7(zoo::shapes::rwkv7_834k, 96, 32, 21));

/// The values of the tensor with that name after initialize().
template <class M>
std::vector<float> start_of(const ln::weights<M>& w, const std::string& name) {
  for (const auto& one : ln::detail::leaves_of(w))
    if (one.name == name) {
      const auto* const first = reinterpret_cast<const float*>(one.data);
      return {first, first + one.size()};
    }
  BOOST_FAIL("no tensor " << name);
  return {};
}
double deviation(const std::vector<float>& x) {
  double square = 0;
  for (const float v : x) square += static_cast<double>(v) * static_cast<double>(v);
  return std::sqrt(square / static_cast<double>(x.size()));
}
bool near(double a, double b) { return std::abs(a - b) <= 1e-6 * (1 + std::abs(b)); }

template <class M, class... Compute>
void check_learning(double rate) {
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  const auto data = decoder_data<M>(3, 20);
  using trainer = ln::trainer<M, ln::adamw, float, Compute...>;
  auto train = trainer::open(w, data.limits(), {ln::schedule::constant(rate)}, {.clip = 1.0});
  BOOST_REQUIRE(static_cast<bool>(train));
  const double before = train->evaluate(data.view()).mean();
  BOOST_TEST(std::abs(before - std::log(static_cast<double>(M::vocabulary))) < 0.4);
  for (int step = 0; step < 150; ++step) (void)train->step(data.view());
  BOOST_TEST(train->skipped() == 0);
  BOOST_TEST(train->evaluate(data.view()).mean() < 0.5 * before);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(rwkv)

BOOST_AUTO_TEST_CASE(rwkv4_starts_where_it_should) {
  using M = zoo::rwkv4_660k;  // d 128, 4 layers
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  const auto value = [&](int layer, const char* name, std::size_t i) {
    return static_cast<double>(start_of(w, "blocks." + std::to_string(layer) + "." + name).at(i));
  };
  BOOST_TEST(near(value(0, "attention.time_decay", 0), -5));
  BOOST_TEST(near(value(0, "attention.time_decay", 127), 3));
  BOOST_TEST(
      near(value(2, "attention.time_decay", 50), -5 + 8 * std::pow(50 / 127.0, 0.7 + 1.3 * 2 / 3)));
  for (std::size_t i = 0; i < 3; ++i)
    BOOST_TEST(near(value(1, "attention.time_first", i), std::log(0.3) + 0.5 * (i == 0   ? 0
                                                                                : i == 1 ? 1
                                                                                         : -1)));
  BOOST_TEST(near(value(3, "attention.time_mix_k", 32), std::pow(0.25, 0.25)));
  BOOST_TEST(near(value(3, "attention.time_mix_v", 32), std::pow(0.25, 0.25) + 0.3));
  BOOST_TEST(near(value(1, "attention.time_mix_r", 32), std::pow(0.25, 0.375)));
  BOOST_TEST(near(value(2, "ffn.time_mix_r", 64), std::pow(0.5, 0.5)));
  for (const char* zero :
       {"attention.key", "attention.receptance", "attention.output", "ffn.value", "ffn.receptance"})
    BOOST_TEST(deviation(start_of(w, std::string("blocks.3.") + zero + ".weight")) == 0, zero);
  const double fan_in = 1 / std::sqrt(128.0);
  BOOST_TEST(std::abs(deviation(start_of(w, "blocks.1.attention.value.weight")) / fan_in - 1) <
             0.03);
  BOOST_TEST(std::abs(deviation(start_of(w, "blocks.1.ffn.key.weight")) / fan_in - 1) < 0.03);
  BOOST_TEST(magnitude(start_of(w, "embedding.weight")) <= 1e-4);
  BOOST_TEST(deviation(start_of(w, "embedding.weight")) > 5e-5);
  BOOST_TEST(start_of(w, "embedding.norm.weight").front() == 1.0f);
  BOOST_TEST(std::abs(deviation(start_of(w, "head.weight")) / (0.5 * fan_in) - 1) < 0.03);
}

BOOST_AUTO_TEST_CASE(rwkv7_starts_where_it_should) {
  using M = zoo::rwkv7_834k;  // d 64, 12 layers, one head
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  const auto value = [&](int layer, const char* name, std::size_t i) {
    return static_cast<double>(start_of(w, "blocks." + std::to_string(layer) + "." + name).at(i));
  };
  const auto bend = [](double i) { return (i - 31.5) / 31.5 * std::abs((i - 31.5) / 31.5); };
  BOOST_TEST(near(value(0, "attention.w0", 0), -6 + 0.5 - 2.5));
  BOOST_TEST(near(value(11, "attention.w0", 63), 3));
  BOOST_TEST(
      near(value(4, "attention.w0", 20),
           -6 + 6 * std::pow(20 / 63.0, 1 + std::pow(4 / 11.0, 0.3)) + 0.5 + 2.5 * bend(20)));
  BOOST_TEST(near(value(4, "attention.a0", 20), -0.19 + 0.3 * bend(20) + 0.4 * (20 / 63.0 - 0.5)));
  BOOST_TEST(near(value(1, "attention.v0", 63), 0.73 - 0.2));
  BOOST_TEST(near(value(5, "attention.k_k", 0), 0.71 + 0.05));
  BOOST_TEST(near(value(5, "attention.k_a", 7), 1.02));
  BOOST_TEST(near(value(5, "attention.r_k", 7), -0.04));
  BOOST_TEST(near(value(3, "attention.x_g", 16), 1 - std::pow(0.25, 0.2 * 0.75)));
  BOOST_TEST(near(value(3, "attention.x_a", 16), 1 - std::pow(0.25, 0.9 * 0.75)));
  BOOST_TEST(near(value(0, "attention.x_v", 16), 1 - std::pow(0.25, 0.7)));
  BOOST_TEST(near(value(3, "ffn.x_k", 16), 1 - std::pow(0.25, std::pow(0.75, 4))));
  BOOST_TEST(near(value(0, "attention.ln_x.weight", 9), std::pow(1 / 12.0, 0.7)));
  BOOST_TEST(near(value(5, "attention.ln_x.weight", 9), std::pow(0.5, 0.7)));
  const auto check_size = [&](const char* name, double want) {
    const double got = deviation(start_of(w, std::string("blocks.2.") + name + ".weight"));
    BOOST_TEST((want == 0 ? got == 0 : std::abs(got / want - 1) < 0.08), name);
  };
  check_size("attention.output", 0);
  check_size("ffn.value", 0);
  check_size("attention.receptance", 0.125);
  check_size("attention.value", 0.125);
  check_size("attention.key", 0.0125);
  check_size("ffn.key", 0.0625);
  for (const char* one : {"w", "a", "v", "g"}) {
    check_size(("attention." + std::string(one) + "1").c_str(), 0);
    check_size(("attention." + std::string(one) + "2").c_str(), 0.0125);
  }
}

BOOST_AUTO_TEST_CASE(learns) {
  check_learning<ln::rwkv4<tiny_decoder_shape>>(3e-2);
  check_learning<ln::rwkv7<tiny_rwkv7_shape>>(3e-2);
  check_learning<ln::rwkv4<tiny_decoder_shape>, ln::compute::bf16>(3e-2);
  check_learning<ln::rwkv7<tiny_rwkv7_shape>, ln::compute::bf16>(3e-2);
}

// The first layer's values outlast it also where the other layers share their buffers: scoring
// gives what training gives, which keeps everything.
BOOST_AUTO_TEST_CASE(first_values_last) {
  using M = ln::rwkv7<tiny_rwkv7_shape>;
  ln::weights<M> w;
  randomize(w);
  const auto data = decoder_data<M>(2, 6);
  auto train = ln::trainer<M>::open(w, data.limits(), {}, {});
  BOOST_REQUIRE(static_cast<bool>(train));
  std::vector<float> kept(at(12 * M::vocabulary));
  (void)train->evaluate(data.view(), kept);
  BOOST_TEST(same_bits(logits_of(ln::pack(w), data), kept));
}

// Matrices in int8 give what their numbers give; rounded inputs stay near.
BOOST_AUTO_TEST_CASE(stored_in_int8) {
  using M = ln::rwkv7<tiny_rwkv7_shape>;
  ln::weights<M> w;
  randomize(w);
  const auto data = decoder_data<M>(2, 6);
  const auto q = ln::quantize<ln::storage::int8>(w);
  const auto want = logits_of(ln::pack(decoded<M>(q)), data);
  BOOST_TEST(distance(logits_of(ln::pack(q), data), want) <= 1e-5 * (1 + magnitude(want)));
  const auto rounded = ln::quantize<ln::storage::int8, ln::compute::int8>(w);
  const double far = distance(logits_of(ln::pack(rounded), data), want);
  BOOST_TEST(far > 1e-5);
  BOOST_TEST(far < 0.3 * magnitude(want));
}

// One layer, which is the first; and more, whose names count on.
BOOST_AUTO_TEST_CASE(layers_are_numbered_throughout) {
  static constexpr ln::decoder_shape shallow{.d_model = 6,
                                             .d_ff = 7,
                                             .heads = 2,
                                             .kv_heads = 2,
                                             .layers = 1,
                                             .vocabulary = 11,
                                             .context = 8,
                                             .eps = 1e-3};
  using one = ln::rwkv7<shallow>;
  check_model<one>(decoder_data<one>());
  std::vector<std::string> names;
  ln::each_tensor<zoo::rwkv7_834k>([&](const ln::parameter_path& where, const ln::tensor_info&) {
    names.push_back(where.str());
  });
  const auto count = [&](const char* name) { return std::count(names.begin(), names.end(), name); };
  BOOST_TEST(count("blocks.0.attention.w1.weight") == 1);
  BOOST_TEST(count("blocks.0.attention.v0") == 0);
  BOOST_TEST(count("blocks.1.attention.v0") == 1);
  BOOST_TEST(count("blocks.11.ffn.x_k") == 1);
  BOOST_TEST(count("blocks.12.ffn.x_k") == 0);
  std::sort(names.begin(), names.end());
  BOOST_TEST((std::adjacent_find(names.begin(), names.end()) == names.end()));
  const auto metadata = ln::detail::metadata_of<zoo::rwkv7_834k>();
  const auto has = [&](const char* key, const char* value) {
    return std::count_if(metadata.begin(), metadata.end(),
                         [&](const auto& f) { return f.key == key && f.value == value; }) == 1;
  };
  BOOST_TEST(has("attention", "rwkv7"));
  BOOST_TEST(has("ffn", "rwkv7_channel_mix"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::rwkv_test
