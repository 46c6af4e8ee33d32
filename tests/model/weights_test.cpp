// SPDX-License-Identifier: MIT
// The values of models: initial ones, packing there and back, quantizing.

#include "support/heap.hpp"
#include "support/scoring.hpp"

namespace test::weights_test {

namespace {

namespace storage = ln::storage;
namespace ffn = ln::ffn;
using t5 = ln::t5<tiny_t5_shape, ffn::gated_gelu, ln::tie::untied>;
using decoder =
    ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned, ln::bias::all>;

/// pack() and unpack() give back every bit, scales included.
template <class M, class T>
void check_pack(const ln::weights<M, T>& w) {
  BOOST_TEST(same_bytes(ln::unpack(ln::pack(w)), w));
}

/// Standard deviation and mean of a tensor's values.
struct moments {
  double mean = 0, deviation = 0;
};
template <class M>
moments moments_of(const ln::weights<M>& w, const std::string& name) {
  moments r;
  w.visit([&](const ln::parameter_path& at_path, const ln::tensor_info& info, const auto& leaf) {
    if (at_path.str() != name) return;
    double sum = 0, squares = 0;
    for (index i = 0; i < info.size(); ++i) {
      const auto x = static_cast<double>(values_of(leaf)[i]);
      sum += x;
      squares += x * x;
    }
    const auto n = static_cast<double>(info.size());
    r = {sum / n, std::sqrt(squares / n - sum / n * sum / n)};
  });
  return r;
}

/// The largest |q - w| / s of int8 weights, over all entries.
template <class M>
double worst_rounding(const ln::weights<M>& w,
                      const ln::weights<ln::quantized<M, storage::int8>>& q) {
  double worst = 0;
  M::visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& exact,
          const auto& rounded) {
        if constexpr (requires { rounded.scales; })
          for (index i = 0; i < info.size(); ++i) {
            const auto scale = static_cast<double>(rounded.scales[i / info.columns]);
            const double decoded = rounded.at(i / info.columns, i % info.columns, info.columns);
            worst = (std::max)(worst, distance_of(exact.data[i], decoded) / scale);
          }
        else
          for (index i = 0; i < info.size(); ++i)
            worst = (std::max)(worst, exact[i] == rounded[i] ? 0.0 : hopeless);
      },
      ln::parameter_path{}, w.tree(), q.tree());
  return worst;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(weights)

// Packed into the caller's memory, and seen in another's: no heap, no copy, no byte behind it.
BOOST_AUTO_TEST_CASE(packed_in_any_memory) {
  using M = ln::quantized<decoder, storage::int8>;
  ln::weights<decoder> w;
  randomize(w);
  const auto q = ln::quantize<storage::int8>(w);
  const auto own = ln::pack(q);
  constexpr auto size = static_cast<std::size_t>(ln::packed<M>::bytes());
  alignas(ln::alignment) static std::byte memory[size + 64];
  std::memset(memory, 1, sizeof memory);
  ln::packed<M> there, seen;
  BOOST_TEST(heap_use_of([&] { there = ln::pack(q, memory); }).calls == 0);
  BOOST_TEST(same_bytes(there, own));
  BOOST_TEST(there.data() == memory);
  BOOST_TEST(static_cast<int>(memory[size]) == 1);
  BOOST_TEST(heap_use_of([&] { seen = ln::packed<M>::view(there.block()); }).calls == 0);
  BOOST_TEST(seen.data() == memory);
  BOOST_TEST(same_bytes(ln::unpack(seen), q));
  const ln::packed<M> copy = seen.clone(), moved = std::move(seen);
  BOOST_TEST(same_bytes(copy, own));
  BOOST_TEST(copy.data() != memory);
  BOOST_TEST((moved.valid() && !seen.valid() && seen.block().empty()));

  // What is refused stays as it is.
  std::memset(memory, 1, sizeof memory);
  const auto refuses = [](const ln::packed<M>& p, const std::string& sentence) {
    BOOST_TEST((!p.valid() && p.error().code == ln::errc::invalid));
    BOOST_TEST(p.error().message() == sentence);
    BOOST_TEST(!(ln::session<M>::open(p, {.target = 4})));
  };
  const std::span all(memory);
  const std::string behind = ": memory: expected packed::bytes(), " + std::to_string(size) +
                             " bytes, got " + std::to_string(size - 1);
  refuses(ln::pack(q, all.first(size - 1)), "pack" + behind);
  refuses(ln::packed<M>::view(all.first(size - 1)), "packed::view" + behind);
  refuses(ln::pack(q, {}),
          "pack: memory: expected packed::bytes(), " + std::to_string(size) + " bytes, got 0");
  const std::string elsewhere =
      ": memory: expected memory that is declared alignas(linnet::alignment), got another address";
  refuses(ln::pack(q, all.subspan(4)), "pack" + elsewhere);
  refuses(ln::packed<M>::view(all.subspan(4)), "packed::view" + elsewhere);
  auto gone = q.clone();
  const auto kept = std::move(gone);
  BOOST_TEST(ln::pack(gone, all).error().message() == gone.error().message());
  BOOST_TEST(std::all_of(all.begin(), all.end(), [](std::byte b) { return b == std::byte{1}; }));
}

// Packing is exactly invertible in every storage type, and a clone is a copy of its own.
BOOST_AUTO_TEST_CASE(pack_and_unpack) {
  ln::weights<t5> w;
  randomize(w);
  check_pack(w);
  check_pack(ln::quantize<storage::bf16>(w));
  check_pack(ln::quantize<storage::f16>(w));
  check_pack(ln::quantize<storage::fp8_e4m3>(w));
  check_pack(ln::quantize<storage::fp8_e5m2>(w));
  check_pack(ln::quantize<storage::int8>(w));
  check_pack(ln::quantize<storage::int8_per<storage::granularity::tensor>>(w));
  check_pack(ln::quantize<
             storage::int8_per<storage::granularity::group, storage::symmetry::asymmetric, 16>>(w));
  check_pack(ln::quantize<storage::int4<8>>(w));
  check_pack(ln::quantize<storage::int2<16>>(w));
  check_pack(ln::quantize<storage::int5<0>>(w));
  check_pack(ln::quantize<storage::int6<>>(w));
  check_pack(ln::quantize<storage::nf4>(w));
  check_pack(ln::quantize<storage::q8_0>(w));
  check_pack(ln::quantize<storage::q4_0>(w));
  check_pack(ln::quantize<storage::q4_1>(w));
  ln::weights<decoder, double> d;
  randomize(d);
  check_pack(d);
  auto copy = w.clone();
  BOOST_TEST(same_bytes(copy, w));
  copy.tree().embedding.data[0] += 1;
  BOOST_TEST(!same_bytes(copy, w));
}

// T5's initial deviations: embedding 1, q (d h)^-1/2, k and v d^-1/2, o n^-1/2, wi d^-1/2, wo
// f^-1/2, bias table d^-1/2; decoders 0.02; norms one, biases zero. Sizes are chosen so that the
// estimate is within a few percent.
BOOST_AUTO_TEST_CASE(initial_deviations) {
  constexpr ln::t5_shape wide{.d_model = 48,
                              .d_ff = 96,
                              .d_kv = 24,
                              .heads = 4,
                              .encoder_layers = 1,
                              .decoder_layers = 1,
                              .vocabulary = 99};
  using M = ln::t5<wide, ln::tie::untied>;
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  const auto check = [&](const char* name, double want) {
    const moments m = moments_of(w, name);
    BOOST_TEST(std::abs(m.deviation / want - 1) < 0.06,
               name << ": " << m.deviation << ", not " << want);
    BOOST_TEST(std::abs(m.mean) < 0.06 * want, name);
  };
  check("embedding.weight", 1);
  check("head.weight", 1);
  check("encoder.blocks.0.attention.q.weight", 1 / std::sqrt(48.0 * 24));
  check("encoder.blocks.0.attention.k.weight", 1 / std::sqrt(48.0));
  check("decoder.blocks.0.cross.q.weight", 1 / std::sqrt(48.0 * 24));
  check("decoder.blocks.0.cross.v.weight", 1 / std::sqrt(48.0));
  check("decoder.blocks.0.cross.o.weight", 1 / std::sqrt(96.0));
  check("decoder.blocks.0.ffn.wi.weight", 1 / std::sqrt(48.0));
  check("decoder.blocks.0.ffn.wo.weight", 1 / std::sqrt(96.0));
  const double table = moments_of(w, "encoder.relative_bias.weight").deviation * std::sqrt(48.0);
  BOOST_TEST(table > 0.8);  // 128 values: known to a fifth
  BOOST_TEST(table < 1.2);
  BOOST_TEST(moments_of(w, "encoder.norm.weight").mean == 1);

  constexpr ln::decoder_shape deep{.d_model = 48,
                                   .d_ff = 96,
                                   .heads = 4,
                                   .kv_heads = 4,
                                   .layers = 1,
                                   .vocabulary = 99,
                                   .context = 64};
  using N = ln::decoder<deep, ln::position::learned, ln::bias::all, ln::norm::layer_norm>;
  ln::weights<N> v;
  ln::initialize(v, ln::seed{1});
  for (const char* const name : {"embedding.weight", "position.weight",
                                 "blocks.0.attention.q.weight", "blocks.0.ffn.down.weight"})
    BOOST_TEST(std::abs(moments_of(v, name).deviation / 0.02 - 1) < 0.06, name);
  BOOST_TEST(moments_of(v, "blocks.0.attention.q.bias").mean == 0);
  BOOST_TEST(moments_of(v, "blocks.0.attention.q.bias").deviation == 0);
  BOOST_TEST(moments_of(v, "norm.weight").mean == 1);
}

// Equal seeds make equal weights, also in models that share only some names; other seeds do not.
BOOST_AUTO_TEST_CASE(initial_values_depend_on_seed_and_name) {
  ln::weights<t5> a, b, c;
  ln::initialize(a, ln::seed{1});
  ln::initialize(b, ln::seed{1});
  ln::initialize(c, ln::seed{2});
  BOOST_TEST(same_bytes(a, b));
  BOOST_TEST(!same_bytes(a, c));
  ln::weights<ln::t5<tiny_t5_shape, ffn::skip>> skipped;
  ln::initialize(skipped, ln::seed{1});
  const auto& one = a.tree().decoder_stack.stack.items[1].items;
  const auto& other = skipped.tree().decoder_stack.stack.items[1].items;
  const auto keys = [](const auto& blocks) {
    return std::span(ln::detail::member<1>(blocks).sub.k.weight.data, 6 * 4);
  };
  BOOST_TEST(same_bits(keys(one), keys(other)));
}

/// What a function is called with for one tensor: its place, its sizes, and where its numbers are.
struct call {
  std::string path;
  index rows, columns;
  std::vector<const void*> leaves;

  bool operator==(const call&) const = default;
};
/// Writes down its calls.
struct recorder {
  std::vector<call>& calls;

  template <class... Leaf>
  void operator()(const ln::parameter_path& at, const ln::tensor_info& info, Leaf&... leaf) const {
    calls.push_back({at.str(), info.rows, info.columns, {static_cast<const void*>(&leaf)...}});
  }
};

// each_tensor() and each_tensor_of() call what the model's own visit() calls, in its order: for no
// block, for one, and for several of any kinds, whichever of them comes first.
BOOST_AUTO_TEST_CASE(tensors_in_lockstep) {
  ln::weights<decoder> w;
  const auto q = ln::quantize<storage::int8>(w);
  const auto p = ln::pack(w);
  ln::gradients<decoder> g, h;
  const auto by_visit = [](auto&... blocks) {
    std::vector<call> calls;
    decoder::visit(recorder{calls}, ln::parameter_path{}, blocks.tree()...);
    return calls;
  };
  const auto by_blocks = [](auto&... blocks) {
    std::vector<call> calls;
    ln::each_tensor_of(recorder{calls}, blocks...);
    return calls;
  };
  std::vector<call> calls;
  ln::each_tensor<decoder>(recorder{calls});
  BOOST_TEST(calls.size() > 20u);
  BOOST_TEST((calls == by_visit()));
  BOOST_TEST((by_blocks(w) == by_visit(w)));
  BOOST_TEST((by_blocks(g, w, q, p) == by_visit(g, w, q, p)));
  BOOST_TEST((by_blocks(q, g) == by_visit(q, g)));
  BOOST_TEST((by_blocks(g, h) == by_visit(g, h)));
  ln::each_tensor_of(
      [](const auto&, const auto&, auto& gradient, auto& numbers) {
        static_assert(!std::is_const_v<std::remove_reference_t<decltype(gradient)>>);
        static_assert(std::is_const_v<std::remove_reference_t<decltype(numbers)>>);
      },
      g, std::as_const(w));
}

// int8: each weight within half a step of its row, norms and tables untouched; the model really
// holds codes of one byte, and computes what the decoded weights compute.
BOOST_AUTO_TEST_CASE(int8_weights) {
  ln::weights<t5> w;
  randomize(w);
  const auto q = ln::quantize<storage::int8>(w);
  const double worst = worst_rounding(w, q);
  BOOST_TEST(worst <= 0.5 * (1 + 1e-6));
  BOOST_TEST(worst > 0.4);
  static_assert(sizeof(*q.tree().embedding.data) == 1);
  using quantized = ln::quantized<t5, storage::int8>;
  index tensors = 0;
  t5::visit([&](const ln::parameter_path&, const ln::tensor_info&) { ++tensors; },
            ln::parameter_path{});
  BOOST_TEST(ln::weights<quantized>::bytes() >= ln::weight_bytes<quantized>());
  BOOST_TEST(ln::weights<quantized>::bytes() <= ln::weight_bytes<quantized>() + 2 * 64 * tensors);
  const auto data = t5_data<t5>();
  const auto exact = logits_of(ln::pack(w), data), small = logits_of(ln::pack(q), data);
  BOOST_TEST(distance(small, logits_of(ln::pack(decoded<t5>(q)), data)) <= 1e-5);
  BOOST_TEST(distance(small, exact) > 1e-4);  // and not what the exact ones compute
  BOOST_TEST(distance(small, exact) < 0.5);
}

// bf16: each weight within 2^-8 of itself, half a unit in the last of its 8 bits.
BOOST_AUTO_TEST_CASE(bf16_weights) {
  ln::weights<t5> w;
  randomize(w);
  const auto q = ln::quantize<storage::bf16>(w);
  const auto back = decoded<t5>(q);
  double worst = 0;
  t5::visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& exact,
          const auto& rounded) {
        for (index i = 0; i < info.size(); ++i) {
          const auto x = static_cast<double>(values_of(exact)[i]);
          worst = (std::max)(
              worst, std::abs(static_cast<double>(values_of(rounded)[i]) - x) / std::abs(x));
        }
      },
      ln::parameter_path{}, w.tree(), back.tree());
  BOOST_TEST(worst <= 1.0 / 256);
  BOOST_TEST(worst > 1.0 / 300);
  static_assert(sizeof(*q.tree().embedding.data) == 2);
  const auto data = t5_data<t5>();
  const auto small = logits_of(ln::pack(q), data);
  BOOST_TEST(distance(small, logits_of(ln::pack(back), data)) <= 1e-5);
  BOOST_TEST(distance(small, logits_of(ln::pack(w), data)) > 1e-4);
}

// first_nonfinite() finds each NaN and infinity, in numbers, codes, scales and zero points, in
// whatever tensor, and names the first; no finite value, however large or small, is one.
BOOST_AUTO_TEST_CASE(first_nonfinite) {
  const auto special = [](float x) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
  };
  const auto put = [](float& x, std::uint32_t bits) { std::memcpy(&x, &bits, sizeof bits); };
  ln::weights<t5> w;
  randomize(w);
  BOOST_TEST(ln::first_nonfinite(w) == "");
  float& inside = w.tree().encoder_stack.norm.weight[3];
  const float kept = inside;
  for (const std::uint32_t finite : {0u, 1u, 0x80000000u, 0x7f7fffffu, 0xff7fffffu}) {
    put(inside, finite);
    BOOST_TEST(ln::first_nonfinite(w) == "", "bits " << finite);
  }
  for (const std::uint32_t bad :
       {0x7f800000u, 0xff800000u, 0x7f800001u, 0x7fc00000u, 0xffffffffu}) {
    put(inside, bad);
    BOOST_TEST(ln::first_nonfinite(w) == "encoder.norm.weight", "bits " << bad);
  }
  put(w.tree().embedding.data[65], 0x7fc00000u);  // the last number of the first tensor
  BOOST_TEST(ln::first_nonfinite(w) == "embedding.weight");
  put(w.tree().embedding.data[65], 0);
  put(inside, special(kept));
  BOOST_TEST(ln::first_nonfinite(w) == "");

  const auto code = [&](auto q, unsigned good, unsigned bad) {
    using value = std::remove_reference_t<decltype(*q.tree().embedding.data)>;
    q.tree().embedding.data[7] = static_cast<value>(good);
    BOOST_TEST(ln::first_nonfinite(q) == "", "code " << good);
    q.tree().embedding.data[7] = static_cast<value>(bad);
    BOOST_TEST(ln::first_nonfinite(q) == "embedding.weight", "code " << bad);
  };
  code(ln::quantize<storage::bf16>(w), 0xff7f, 0xff80);
  code(ln::quantize<storage::f16>(w), 0x7bff, 0x7c00);
  code(ln::quantize<storage::fp8_e4m3>(w), 0x7e, 0x7f);
  code(ln::quantize<storage::fp8_e5m2>(w), 0xfb, 0xfc);
  auto q = ln::quantize<
      storage::int8_per<storage::granularity::group, storage::symmetry::asymmetric, 16>>(w);
  BOOST_TEST(ln::first_nonfinite(q) == "");
  put(q.tree().embedding.zeros[10], 0x7fc00000u);
  BOOST_TEST(ln::first_nonfinite(q) == "embedding.weight.zeros");
  put(q.tree().embedding.scales[10], 0x7f800000u);
  BOOST_TEST(ln::first_nonfinite(q) == "embedding.weight.scales");
  ln::weights<decoder, double> d;
  randomize(d);
  BOOST_TEST(ln::first_nonfinite(d) == "");
  d.tree().norm.bias[1] = 1e308;
  BOOST_TEST(ln::first_nonfinite(d) == "");
  const std::uint64_t infinity = std::uint64_t{0x7ff} << 52;
  std::memcpy(d.tree().norm.bias + 1, &infinity, sizeof infinity);
  BOOST_TEST(ln::first_nonfinite(d) == "norm.bias");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::weights_test
