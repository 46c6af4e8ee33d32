// SPDX-License-Identifier: MIT
// Parameter, operation and byte counts against formulas written out here from the literature, and
// the rule that the order of policies makes no second type.

#include "support/models.hpp"

namespace test::counts_test {

namespace {

namespace zoo = ln::zoo;
namespace ffn = ln::ffn;
namespace storage = ln::storage;

/// Parameters of a T5 with `ffn` weights per feed-forward, its norm included (0 if there is none).
constexpr index t5_count(const ln::t5_shape& s, index encoder_ffn, index decoder_ffn, bool tied) {
  const index d = s.d_model, n = s.heads * s.d_kv;
  const index attention = 2 * d * n + 2 * d * (s.kv_heads > 0 ? s.kv_heads * s.d_kv : n);
  return s.vocabulary * d * (tied ? 1 : 2) + s.encoder_layers * (attention + d + encoder_ffn) +
         s.decoder_layers * (2 * attention + 2 * d + decoder_ffn) + 2 * d + 2 * s.buckets * s.heads;
}
template <class M>
constexpr bool t5_counts(index matrices, bool tied) {
  constexpr ln::t5_shape s = M::shape;
  const index one = matrices * s.d_model * s.d_ff + s.d_model;
  return M::parameters() == t5_count(s, one, one, tied) &&
         M::non_embedding() ==
             t5_count(s, one, one, tied) - s.vocabulary * s.d_model * (tied ? 1 : 2);
}
static_assert(t5_counts<zoo::t5_tiny>(2, true) && zoo::t5_tiny::parameters() == 15'570'688);
static_assert(t5_counts<zoo::t5_mini>(2, true) && zoo::t5_mini::parameters() == 31'220'480);
static_assert(t5_counts<zoo::t5_small>(2, true) && zoo::t5_small::parameters() == 60'506'624);
static_assert(t5_counts<zoo::t5_base>(2, true) && zoo::t5_base::parameters() == 222'903'552);
static_assert(t5_counts<zoo::t5_tiny_kv32>(2, true) &&
              zoo::t5_tiny_kv32::parameters() == 13'997'824);
static_assert(t5_counts<zoo::t5_mini_kv32>(2, true) &&
              zoo::t5_mini_kv32::parameters() == 26'501'888);
static_assert(t5_counts<zoo::t5_small_kv32>(2, true) &&
              zoo::t5_small_kv32::parameters() == 51'069'440);
static_assert(t5_counts<zoo::t5_v1_1_small>(3, false) &&
              zoo::t5_v1_1_small::parameters() == 76'961'152);
static_assert(std::is_same_v<zoo::flan_t5_small, zoo::t5_v1_1_small>);
static_assert(t5_counts<zoo::t5_v1_1_base>(3, false) &&
              zoo::t5_v1_1_base::parameters() == 247'577'856);
// As their cards say: 300M, 580M, 300M, 582M.
static_assert(t5_counts<zoo::mt5_small>(3, false) && zoo::mt5_small::parameters() == 300'176'768);
static_assert(t5_counts<zoo::mt5_base>(3, false) && zoo::mt5_base::parameters() == 582'401'280);
static_assert(t5_counts<zoo::byt5_small>(3, false) && zoo::byt5_small::parameters() == 299'637'760);
static_assert(t5_counts<zoo::byt5_base>(3, false) && zoo::byt5_base::parameters() == 581'653'248);
static_assert(std::is_same_v<zoo::flan_t5_base, zoo::t5_v1_1_base>);
static_assert(t5_counts<ln::t5<tiny_t5_shape>>(2, true));
static_assert(t5_counts<ln::t5<grouped_t5_shape>>(2, true));

// T5-Mini without embedding, heads of width 32 and 64: standard, no feed-forward, none in the
// encoder, one matrix.
constexpr ln::t5_shape mini32 = zoo::shapes::t5_mini_kv32, mini64 = zoo::shapes::t5_mini;
static_assert(ln::t5<mini32>::non_embedding() == 14'164'736);
static_assert(ln::t5<mini32, ffn::skip>::non_embedding() == 4'724'480);
static_assert(ln::t5<mini32, ln::encoder_stack<ffn::skip>>::non_embedding() == 9'444'608);
static_assert(ln::t5<mini32, ln::decoder_stack<ffn::skip>>::non_embedding() == 9'444'608);
static_assert(ln::t5<mini32, ffn::linear>::non_embedding() == 5'907'200);
static_assert(ln::t5<mini64>::non_embedding() == 18'883'328);
static_assert(ln::t5<mini64, ffn::skip>::non_embedding() == 9'443'072);
static_assert(ln::t5<mini64, ln::encoder_stack<ffn::skip>>::non_embedding() == 14'163'200);
static_assert(ln::t5<mini64, ffn::linear>::non_embedding() == 10'625'792);
static_assert(ln::t5<mini64, ffn::linear_relu>::parameters() ==
              ln::t5<mini64, ffn::linear>::parameters());

// Training weights of the 3W feed-forward over eight blocks of width 384, 2 e d^2 + e^2 d^2 each:
// 28.31M, 9.44M, 6.19M and 4.53M, and of 2W without the square; collapsed it is one matrix.
template <class Ffn>
constexpr index ffn_weights() {
  return ln::t5<mini64, Ffn>::parameters() - ln::t5<mini64, ffn::skip>::parameters() - 8 * 384;
}
static_assert(ffn_weights<ffn::reparam<3, 4.0>>() == 28'311'552);
static_assert(ffn_weights<ffn::reparam<3, 2.0>>() == 9'437'184);
static_assert(ffn_weights<ffn::reparam<3, 1.5>>() == 6'193'152);
static_assert(ffn_weights<ffn::reparam<3, 1.2>>() == 8 * (2 * 461 * 384 + 461 * 461));
static_assert(ffn_weights<ffn::reparam<2>>() == 8 * 2 * 4 * 384 * 384);
static_assert(ffn_weights<ffn::reparam<2, 1.2>>() == 8 * 2 * 461 * 384);
static_assert(
    std::is_same_v<ln::collapsed<ln::t5<mini64, ffn::reparam<3>>>, ln::t5<mini64, ffn::linear>>);

// More or wider heads change the attention alone: 12 modules of 4 d n.
constexpr index with_heads(index heads, index d_kv) {
  return 12 * 4 * 384 * heads * d_kv + 2 * 32 * heads;
}
constexpr ln::t5_shape more_heads = zoo::shapes::t5_efficient(4, 1536, 384, 12, 64);
static_assert(ln::t5<more_heads>::parameters() - ln::t5<mini64>::parameters() ==
              with_heads(12, 64) - with_heads(8, 64));
static_assert(ln::t5<mini64>::parameters() - ln::t5<mini32>::parameters() ==
              with_heads(8, 64) - with_heads(8, 32));

/// Parameters of a decoder with `matrices` maps between d and f per feed-forward.
template <class M>
constexpr index decoder_count(index matrices) {
  constexpr ln::decoder_shape s = M::shape;
  const index d = s.d_model, f = s.d_ff, h = s.head_width(), n = s.heads * h, kv = s.kv_heads * h;
  const index norms = std::is_same_v<typename M::norm, ln::norm::layer_norm> ? 2 : 1;
  const index biases = M::biased ? n + 2 * kv + d + (matrices - 1) * f + d : 0;
  const index block = d * n + 2 * d * kv + n * d + matrices * d * f + 2 * norms * d + biases;
  return s.vocabulary * d * (M::tied ? 1 : 2) + (M::learned ? s.context * d : 0) +
         s.layers * block + norms * d;
}
static_assert(decoder_count<zoo::stlm_50m>(3) == 55'888'896 &&
              zoo::stlm_50m::parameters() == 55'888'896);
static_assert(zoo::stlm_50m::non_embedding() == 30'157'312);
static_assert(decoder_count<zoo::gpt2_small>(2) == 124'439'808 &&
              zoo::gpt2_small::parameters() == 124'439'808);
static_assert(decoder_count<zoo::stories260k>(3) == 260'032 &&
              zoo::stories260k::parameters() == 260'032);
static_assert(decoder_count<zoo::tinyllama_1_1b>(3) == 1'100'048'384 &&
              zoo::tinyllama_1_1b::parameters() == 1'100'048'384);
// The student and the teachers of BabyLlama have one vocabulary, as its mean of logits asks for.
static_assert(decoder_count<zoo::babyllama_58m>(3) == 58'343'936 &&
              zoo::babyllama_58m::parameters() == 58'343'936);
static_assert(decoder_count<zoo::babyllama_teacher_360m>(3) == 359'973'888 &&
              zoo::babyllama_teacher_360m::parameters() == 359'973'888);
static_assert(decoder_count<zoo::babyllama_teacher_705m>(2) == 704'928'768 &&
              zoo::babyllama_teacher_705m::parameters() == 704'928'768);
static_assert(zoo::babyllama_58m::vocabulary == zoo::babyllama_teacher_360m::vocabulary &&
              zoo::babyllama_58m::vocabulary == zoo::babyllama_teacher_705m::vocabulary);
static_assert(decoder_count<zoo::mobilellm_125m>(3) == 124'635'456 &&
              zoo::mobilellm_125m::parameters() == 124'635'456);
static_assert(decoder_count<zoo::smollm2_135m>(3) == 134'515'008 &&
              zoo::smollm2_135m::parameters() == 134'515'008);
static_assert(decoder_count<zoo::smollm2_360m>(3) == 361'821'120 &&
              zoo::smollm2_360m::parameters() == 361'821'120);
static_assert(decoder_count<zoo::stlm_10m>(3) == zoo::stlm_10m::parameters());
static_assert(decoder_count<zoo::stlm_100m>(3) == zoo::stlm_100m::parameters());
static_assert(zoo::stlm_10m::parameters() > 9'500'000 && zoo::stlm_10m::parameters() < 10'500'000);
static_assert(zoo::stlm_100m::parameters() > 95'000'000 &&
              zoo::stlm_100m::parameters() < 105'000'000);
// Relatives of the STLM baseline: every head its own keys, an untied head, the later baseline.
constexpr ln::decoder_shape stlm_shape(index layers, index d_ff, index kv_heads) {
  return {.d_model = 512,
          .d_ff = d_ff,
          .heads = 16,
          .kv_heads = kv_heads,
          .layers = layers,
          .vocabulary = 50257,
          .context = 512};
}
static_assert(ln::decoder<stlm_shape(10, 1536, 16)>::parameters() == 59'821'056);
static_assert(ln::decoder<stlm_shape(10, 1536, 4), ln::tie::untied>::parameters() == 81'620'480);
static_assert(ln::decoder<stlm_shape(8, 1320, 4)>::parameters() == 47'203'328);

// Parameters that blocks share count once; operations are done by every block.
namespace sharing = ln::sharing;
constexpr ln::decoder_shape stlm = stlm_shape(10, 1536, 4);
static_assert(ln::decoder<stlm, sharing::all>::parameters() == 28'747'776);
static_assert(ln::decoder<stlm, sharing::none>::parameters() == 55'888'896);
static_assert(ln::decoder<stlm_shape(20, 1536, 4), sharing::repeat<2>>::parameters() == 55'888'896);
// A block of the 50M and 100M has d (d + 2 d / 4) + d^2 = 655,360 in its attention (4 of 16 heads
// have keys), 3 d f = 2,359,296 in its feed-forward and 2 d = 1,024 in its norms; the table has V d
// = 25,731,584, the last norm d = 512. One feed-forward:
static_assert(zoo::stlm_50m_ffn_shared::parameters() ==
              25'731'584 + 10 * (655'360 + 1'024) + 2'359'296 + 512);
static_assert(zoo::stlm_50m_ffn_shared::parameters() == 34'655'232);
static_assert(zoo::stlm_100m_ffn_shared::parameters() ==
              25'731'584 + 25 * (655'360 + 1'024) + 2'359'296 + 512);
static_assert(zoo::stlm_100m_ffn_shared::parameters() == 44'500'992);
// One block, with V 128 + 128 d = 6,432,896 + 65,536 instead of the whole table:
static_assert(zoo::stlm_50m_albert::parameters() == 28'747'776 - 25'731'584 + 6'432'896 + 65'536);
static_assert(zoo::stlm_50m_albert::parameters() == 9'514'624);
static_assert(zoo::stlm_100m_albert::parameters() == 9'514'624);
// The 10M: attention 49,152, feed-forward 147,456, norms 256, table 6,432,896 or 3,216,448 + 8,192.
static_assert(zoo::stlm_10m_ffn_shared::parameters() ==
              6'432'896 + 18 * (49'152 + 256) + 147'456 + 128);
static_assert(zoo::stlm_10m_ffn_shared::parameters() == 7'469'824);
static_assert(zoo::stlm_10m_albert::parameters() ==
              3'216'448 + 8'192 + 49'152 + 147'456 + 256 + 128);
static_assert(zoo::stlm_10m_albert::parameters() == 3'421'632);
// One block's matrices, and in each of ten layers its norms and rank 8 (in + out) for q, k, v, o
// and the three of the feed-forward: 8 (2 * 1024 + 2 * 640 + 3 * 2048) = 75,776.
static_assert(ln::decoder<stlm, sharing::lora<8>>::parameters() ==
              25'731'584 + 655'360 + 2'359'296 + 10 * (1'024 + 75'776) + 512);
static_assert(ln::decoder<stlm, ln::embedding::factorised<128>>::parameters() ==
              55'888'896 - 50257 * (512 - 128) + 128 * 512);
static_assert(ln::decoder<stlm, ln::embedding::factorised<128>>::non_embedding() == 30'157'312);
static_assert(ln::decoder<stlm, ln::ffn::low_rank<128>>::parameters() ==
              55'888'896 - 10 * 3 * (512 * 1536 - 128 * (512 + 1536)));
static_assert(ln::decoder<stlm, sharing::all>::flops(2, 64) == ln::decoder<stlm>::flops(2, 64));
static_assert(ln::decoder<stlm, sharing::lora<8>>::flops(2, 64) ==
              ln::decoder<stlm>::flops(2, 64) + 2 * 128 * 10 * 75'776);
static_assert(ln::decoder<stlm, ln::ffn::low_rank<128>>::flops(1, 1) ==
              ln::decoder<stlm>::flops(1, 1) - 2 * 10 * 3 * (512 * 1536 - 128 * (512 + 1536)));

/// Operations of a T5 forward call, one multiply-add counted as 2; `ffn` = products per token.
template <class M>
constexpr bool t5_operations(index batch, index source, index target, index ffn_products) {
  constexpr ln::t5_shape s = M::shape;
  const index d = s.d_model, n = s.heads * s.d_kv;
  const index encoder = 2 * source * (4 * d * n + ffn_products) + 4 * source * source * n;
  const index decoder = 2 * target * (6 * d * n + ffn_products) + 2 * source * 2 * d * n +
                        4 * target * target * n + 4 * target * source * n;
  return M::flops(batch, source, target) ==
         batch * (s.encoder_layers * encoder + s.decoder_layers * decoder +
                  2 * target * s.vocabulary * d);
}
static_assert(t5_operations<zoo::t5_mini>(1, 128, 128, 2 * 384 * 1536));
static_assert(t5_operations<zoo::t5_base>(3, 77, 5, 2 * 768 * 3072));
static_assert(t5_operations<zoo::t5_v1_1_small>(2, 9, 31, 3 * 512 * 1024));
static_assert(t5_operations<ln::t5<mini64, ffn::skip>>(2, 9, 31, 0));
static_assert(t5_operations<ln::t5<mini64, ffn::linear_relu>>(1, 1, 1, 384 * 384));
static_assert(t5_operations<ln::t5<mini64, ffn::reparam<3, 1.2>>>(2, 9, 31,
                                                                  2 * 384 * 461 + 461 * 461));
static_assert(t5_operations<ln::t5<mini64, ffn::reparam<2, 2.0>>>(2, 9, 31, 2 * 384 * 768));

template <class M>
constexpr bool decoder_operations(index batch, index length, index ffn_products) {
  constexpr ln::decoder_shape s = M::shape;
  const index d = s.d_model, n = s.heads * s.head_width(), kv = s.kv_heads * s.head_width();
  const index block =
      2 * length * (2 * d * n + 2 * d * kv + ffn_products) + 4 * length * length * n;
  return M::flops(batch, length) == batch * (s.layers * block + 2 * length * s.vocabulary * d);
}
static_assert(decoder_operations<zoo::stlm_50m>(4, 512, 3 * 512 * 1536));
static_assert(decoder_operations<zoo::gpt2_small>(1, 1000, 2 * 768 * 3072));
static_assert(decoder_operations<ln::decoder<tiny_decoder_shape, ffn::skip>>(2, 3, 0));

/// Bytes of the weights: matrices and the embedding as stored, everything else in f32.
template <class M>
constexpr index bytes_of(index code, index scale, index rows) {
  constexpr ln::t5_shape s = M::shape;
  const index full =
      2 * s.buckets * s.heads + s.d_model * (2 * s.encoder_layers + 3 * s.decoder_layers + 2);
  return (M::parameters() - full) * code + full * 4 + rows * scale;
}
// Rows of all matrices of T5-Mini: embedding, projections, both halves of the feed-forward.
constexpr index mini_rows =
    32128 + 4 * (3 * 512 + 384 + 1536 + 384) + 4 * (6 * 512 + 2 * 384 + 1536 + 384);
static_assert(ln::weight_bytes<zoo::t5_mini>() == 4 * 31'220'480);
static_assert(ln::weight_bytes<zoo::t5_mini, storage::bf16>() == bytes_of<zoo::t5_mini>(2, 0, 0));
static_assert(ln::weight_bytes<ln::quantized<zoo::t5_mini, storage::int8>>() ==
              bytes_of<zoo::t5_mini>(1, 4, mini_rows));
static_assert(ln::quantized<zoo::t5_mini, storage::int8>::parameters() ==
              zoo::t5_mini::parameters());

// Policies in any order are one type; defaults may be said or left out.
template <class A, class B>
constexpr bool same = std::is_same_v<A, B>;
static_assert(same<ln::t5<mini64>, ln::t5<mini64, ffn::relu, ln::attention::full, ln::norm::rms,
                                          ln::tie::tied, storage::f32>>);
static_assert(same<ln::t5<mini64, ffn::gated_gelu, ln::tie::untied>,
                   ln::t5<mini64, ln::tie::untied, ffn::gated_gelu>>);
static_assert(same<ln::t5<mini64, storage::int8, ln::tie::untied, ffn::skip>,
                   ln::t5<mini64, ffn::skip, ln::tie::untied, storage::int8>>);
static_assert(same<ln::t5<mini64, ffn::skip>,
                   ln::t5<mini64, ln::encoder_stack<ffn::skip>, ln::decoder_stack<ffn::skip>>>);
static_assert(same<ln::t5<mini64, ln::encoder_stack<ffn::skip>>,
                   ln::t5<mini64, ln::encoder_stack<ffn::skip>, ffn::relu>>);
static_assert(same<ln::t5<mini64, ln::encoder_stack<ffn::skip>, ffn::linear>,
                   ln::t5<mini64, ffn::linear, ln::encoder_stack<ffn::skip>>>);
static_assert(!same<ln::t5<mini64, ln::encoder_stack<ffn::skip>>,
                    ln::t5<mini64, ln::decoder_stack<ffn::skip>>>);
static_assert(same<ln::decoder<tiny_decoder_shape>,
                   ln::decoder<tiny_decoder_shape, ln::position::rope, ffn::swiglu, ln::tie::tied,
                               ln::bias::none, ln::norm::rms>>);
static_assert(same<ln::decoder<tiny_decoder_shape, ln::bias::all, ln::position::learned,
                               ln::norm::layer_norm>,
                   ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::bias::all,
                               ln::position::learned>>);
static_assert(!same<ln::decoder<tiny_decoder_shape>,
                    ln::decoder<tiny_decoder_shape, ln::position::rope_half>>);
static_assert(same<ln::quantized<ln::collapsed<ln::t5<mini64, ffn::reparam<2>>>, storage::int8>,
                   ln::t5<mini64, storage::int8, ffn::linear>>);

/// The sum over the named visit, as a program sees it.
template <class M>
index visited() {
  index sum = 0;
  const ln::weights<M> w;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto&) {
    sum += info.size();
  });
  return sum;
}

}  // namespace

// Encoders: the counts of Transformers' BertForMaskedLM, DistilBertForMaskedLM, BertModel,
// AlbertForMaskedLM and RobertaForMaskedLM of the published shapes.
static_assert(ln::zoo::bert_base::parameters() == 109'514'298);
static_assert(ln::zoo::distilbert_base::parameters() == 66'985'530);
static_assert(ln::zoo::minilm_l6::parameters() == 22'713'216);
static_assert(ln::zoo::albert_base::parameters() == 11'221'680);
static_assert(ln::zoo::roberta_base::parameters() == 124'697'433);
static_assert(ln::zoo::bert_base::with_head<ln::head::pooler>::parameters() == 109'482'240);

BOOST_AUTO_TEST_SUITE(counts)

// The values that exist are as many as the type says, and the block holds no more than they need.
BOOST_AUTO_TEST_CASE(weights_hold_what_is_counted) {
  using t5 = ln::t5<tiny_t5_shape, ffn::gated_gelu, ln::tie::untied>;
  using decoder =
      ln::decoder<tiny_decoder_shape, ln::bias::all, ln::position::learned, ln::norm::layer_norm>;
  BOOST_TEST(visited<t5>() == t5::parameters());
  BOOST_TEST(visited<decoder>() == decoder::parameters());
  index tensors = 0;
  ln::each_tensor<t5>([&](const ln::parameter_path&, const ln::tensor_info&) { ++tensors; });
  BOOST_TEST(ln::weights<t5>::bytes() >= 4 * t5::parameters());
  BOOST_TEST(ln::weights<t5>::bytes() < 4 * t5::parameters() + 64 * tensors);
  BOOST_TEST((ln::weights<t5, double>::bytes() >= 8 * t5::parameters()));
}

// Names are unique.
BOOST_AUTO_TEST_CASE(names_are_unique) {
  std::vector<std::string> names;
  ln::each_tensor<zoo::t5_v1_1_small>(
      [&](const ln::parameter_path& at, const ln::tensor_info&) { names.push_back(at.str()); });
  BOOST_TEST(names.size() == 2u + 2 * 2 + 8 * (2 + 4 + 3) + 8 * (3 + 8 + 3));
  std::sort(names.begin(), names.end());
  BOOST_TEST((std::adjacent_find(names.begin(), names.end()) == names.end()));
  BOOST_TEST(std::count(names.begin(), names.end(), "decoder.blocks.7.cross.q.weight") == 1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::counts_test
