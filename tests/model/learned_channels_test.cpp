// SPDX-License-Identifier: MIT
// Scales and shifts of channels that omniquant learns: gradients, gains where they are planted, and
// refusals.

#include <linnet/compression.hpp>

#include "support/compression.hpp"
#include "support/data.hpp"

namespace test::learned_channels_test {

namespace {

namespace st = ln::storage;
using ln::block_loss;

constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 12,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 11,
                                  .context = 32,
                                  .eps = 1e-3};
using biased = ln::decoder<shape, ln::norm::layer_norm, ln::bias::all, ln::ffn::gelu_tanh,
                           ln::position::rope_half, ln::kv::int8>;
using S = st::int4<8>;
using block = ln::detail::block_model<biased::block_with<biased::self>>;

/// Texts of random tokens, the same for each number.
struct texts {
  std::vector<ln::token> inputs{};

  ln::decoder_batch operator()(index i) {
    inputs = tokens(2 * 9, biased::vocabulary, static_cast<std::uint64_t>(40 + i));
    return {inputs.data(), inputs.data(), 2, 9};
  }
};
constexpr ln::limits limits{.batch = 2, .target = 9};

/// Weights whose tensor of that name is changed by f(numbers, columns).
template <class F>
void change(ln::weights<biased>& w, const std::string& name, F&& f) {
  index found = 0;
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    if (at.str() == name) f(values_of(leaf), info.columns), ++found;
  });
  BOOST_REQUIRE_MESSAGE(found == 1, name);
}

/// What training kept of a block, with these rates of what channels learn.
double kept(const ln::weights<biased>& w, double scale, double score, double shift) {
  std::vector<block_loss> report;
  const auto got = ln::quantize_in_blocks<S>(w, texts{}, limits,
                                             ln::omniquant{.batches = 3,
                                                           .epochs = 12,
                                                           .rate = 0.05,
                                                           .scale_rate = scale,
                                                           .score_rate = score,
                                                           .shift_rate = shift,
                                                           .report = &report});
  LINNET_REQUIRE_OK(got);
  BOOST_TEST(report[0].kept <= report[0].start);
  BOOST_TEST(report[0].kept <= report[0].nearest);
  return report[0].kept;
}

BOOST_AUTO_TEST_SUITE(learned_channels)

// A loss that is linear in the transformed block, whose gradient by it is `by`.
BOOST_AUTO_TEST_CASE(gradients_of_shifts_and_scores) {
  ln::weights<block> w;
  ln::gradients<block> by;
  randomize(w);
  by.visit([&](const ln::parameter_path&, const ln::tensor_info& info, float* slopes) {
    const auto random = normal<float>(info.size(), static_cast<std::uint64_t>(info.size()));
    std::copy_n(random.data(), info.size(), slopes);
  });
  const auto plain = w.clone();
  const auto reset = [&] { std::memcpy(w.data(), plain.data(), at(ln::weights<block>::bytes())); };
  const auto linear = [&] {
    double sum = 0;
    block::visit(
        [&](const ln::parameter_path&, const ln::tensor_info& info, auto& x, auto& slopes) {
          for (index i = 0; i < info.size(); ++i)
            sum += static_cast<double>(values_of(x)[i]) * static_cast<double>(slopes[i]);
        },
        ln::parameter_path{}, w.tree(), by.tree());
    return sum;
  };
  const ln::detail::channel_map<float> map(w);
  index shifted = 0;
  for (const auto& set : map.sets()) {
    if (!ln::detail::can_shift(set)) continue;
    ++shifted;
    std::vector<double> scales;
    for (index c = 0; c < set.width; ++c) scales.push_back(c % 2 ? 2 : 0.5);
    ln::detail::learned_shifts learned(set);
    const auto loss = [&] {
      reset();
      ln::detail::shift_channels(set, learned.numbers);
      ln::detail::scale_channels(set, scales);
      return linear();
    };
    (void)loss();
    learned.find_gradient(by, &scales);
    for (std::size_t c = 0; c < at(set.width); ++c) {  // linear in the shifts
      learned.numbers[c] = 1;
      const double up = loss();
      learned.numbers[c] = -1;
      const double slope = (up - loss()) / 2;
      learned.numbers[c] = 0;
      BOOST_TEST(std::abs(static_cast<double>(learned.gradient[c]) - slope) < 1e-4);
    }
  }
  BOOST_TEST(shifted == 3);  // both norms and values
  reset();
  BOOST_REQUIRE(map.scores().size() == 1u);
  const auto& set = map.scores()[0];
  ln::detail::learned_scales learned(set);
  learned.find_gradient(by);
  for (index c = 0; c < set.width; ++c) {
    double sums[2];
    for (const int side : {0, 1}) {
      reset();
      std::vector<double> scales(at(set.width), 1);
      scales[at(c)] = scales[at(set.partner_of(c))] = std::exp(side == 0 ? 1e-2 : -1e-2);
      ln::detail::scale_channels(set, scales);
      sums[side] = linear();
    }
    BOOST_TEST(std::abs(static_cast<double>(learned.gradient[at(c)]) - (sums[0] - sums[1]) / 2e-2) <
               4e-3);
  }
}

BOOST_AUTO_TEST_CASE(shifts_take_constants_out_of_rounded_products) {
  ln::weights<biased> w;
  randomize(w);
  for (const char* const name : {"blocks.0.attention.norm.bias", "blocks.0.ffn.norm.bias"})
    change(w, name, [](float* x, index) { x[2] = 12, x[5] = -9; });
  const double none = kept(w, 0, 0, 0), shifts = kept(w, 0, 0, 0.5);
  BOOST_TEST(shifts < 0.5 * none, shifts << " with shifts, without " << none);
  BOOST_TEST(kept(w, 5e-3, 5e-3, 0.5) < 0.5 * none);
  BOOST_TEST_MESSAGE(shifts / none << " with shifts");
}

BOOST_AUTO_TEST_CASE(scores_even_out_keys_that_a_cache_rounds) {
  ln::weights<biased> w;
  randomize(w);
  // One pair of channels of keys is far larger than the others.
  for (const index row : {1, 3}) {
    change(w, "blocks.0.attention.k.weight", [&](float* x, index n) {
      for (index j = 0; j < n; ++j) x[row * n + j] *= 400;
    });
    change(w, "blocks.0.attention.k.bias", [&](float* x, index) { x[row] *= 400; });
    for (const index head : {0, 4}) {
      change(w, "blocks.0.attention.q.weight", [&](float* x, index n) {
        for (index j = 0; j < n; ++j) x[(head + row) * n + j] /= 400;
      });
      change(w, "blocks.0.attention.q.bias", [&](float* x, index) { x[head + row] /= 400; });
    }
  }
  const double none = kept(w, 0, 0, 0), scores = kept(w, 0, 0.2, 0);
  BOOST_TEST(scores < 0.7 * none, scores << " with scales of scores, without " << none);
  BOOST_TEST_MESSAGE(scores / none << " with scores");
}

BOOST_AUTO_TEST_CASE(what_is_learned_has_the_same_bits_with_any_threads) {
  ln::weights<biased> w;
  randomize(w);
  auto threads = limits;
  threads.threads = 3;
  threads.run_on = std_threads();
  const ln::omniquant how{
      .batches = 3, .epochs = 2, .scale_rate = 5e-3, .score_rate = 5e-3, .shift_rate = 5e-3};
  BOOST_TEST(same_bytes(*ln::quantize_in_blocks<S>(w, texts{}, limits, how),
                        *ln::quantize_in_blocks<S>(w, texts{}, threads, how)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::learned_channels_test
