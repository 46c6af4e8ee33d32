// SPDX-License-Identifier: MIT
// Methods that train quantized blocks, zeroquant and omniquant: against their definitions.

#include <bit>
#include <linnet/compression.hpp>

#include "support/data.hpp"
#include "support/encoders.hpp"
#include "support/heap.hpp"
#include "support/scoring.hpp"

namespace test::block_training_test {

namespace {

namespace st = ln::storage;
using ln::block_loss;

// --- the gradient of ranges
// -------------------------------------------------------------------------

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// The numbers that weights become, by the logits of their range. What rounding adds stays as it is
/// at the first logits, and so does which weights are cut: rounding counts as the identity.
template <class S>
struct surrogate {
  struct scale_of {
    double scale, origin;  // the zero point, not rounded
  };
  std::vector<float> w;
  scale_of base;
  double rounded_zero;
  std::vector<double> offsets;  // in steps
  std::vector<int> cuts;        // -1 and 1 beyond the codes

  scale_of at_logits(double high, double low) const {
    double most = static_cast<double>(w[0]), least = most;
    for (const float x : w) {
      most = std::max(most, static_cast<double>(x));
      least = std::min(least, static_cast<double>(x));
    }
    most *= sigmoid(high);
    least *= sigmoid(low);
    if (!S::centred) return {std::max(std::abs(most), std::abs(least)) / S::largest, 0};
    most = std::max(most, 0.0);
    least = std::min(least, 0.0);
    const double scale = (most - least) / S::largest;
    return {scale, -least / scale};
  }
  surrogate(std::vector<float> numbers, double high, double low) : w(std::move(numbers)) {
    base = at_logits(high, low);
    rounded_zero = std::nearbyint(base.origin);
    for (const float one : w) {
      const double x = static_cast<double>(one) / base.scale, code = x + rounded_zero;
      cuts.push_back(code > S::largest ? 1 : code < (S::centred ? 0 : -S::largest) ? -1 : 0);
      double nearest = std::nearbyint(x);
      if (!S::centred) nearest = S::decode(S::encode(x));
      offsets.push_back(nearest - x);
    }
  }
  double number(std::size_t j, double high, double low) const {
    const scale_of now = at_logits(high, low);  // of `w`, which may have moved
    const double zero = now.origin + (rounded_zero - base.origin);
    if (cuts[j] == 0) return static_cast<double>(w[j]) + now.scale * offsets[j];
    if (cuts[j] > 0) return now.scale * (S::largest - zero);
    return now.scale * ((S::centred ? 0 : -S::largest) - zero);
  }
};

template <class S>
void check_ranges(double shift, float high, float low) {
  std::vector<float> w, by;
  for (const double x : normal<double>(24, 3)) w.push_back(static_cast<float>(x + shift));
  for (const double x : normal<double>(24, 4)) by.push_back(static_cast<float>(x));
  const ln::detail::learned_range<S> range(24, w.data(), high, low);
  std::vector<float> d = by;
  const auto got = range.gradient(d.data());
  const auto a = static_cast<double>(high), b = static_cast<double>(low);
  const surrogate<S> s(w, a, b);
  BOOST_TEST(distance_of(static_cast<double>(range.grid().scale), s.base.scale) < 1e-6);
  if (S::centred) BOOST_TEST(static_cast<double>(range.grid().zero) == s.rounded_zero);
  const double h = 1e-5;
  double wanted[2] = {};
  for (std::size_t j = 0; j < w.size(); ++j) {
    const auto slope = static_cast<double>(by[j]);
    wanted[0] += slope * (s.number(j, a + h, b) - s.number(j, a - h, b)) / (2 * h);
    wanted[1] += slope * (s.number(j, a, b + h) - s.number(j, a, b - h)) / (2 * h);
  }
  for (std::size_t i : {0u, 1u})
    BOOST_TEST(std::abs(got[i] - wanted[i]) < 2e-6 + 2e-6 * std::abs(wanted[i]),
               S::name << " " << shift << " " << high << " [" << i << "] " << got[i] << " for "
                       << wanted[i]);
  BOOST_TEST((std::abs(wanted[0]) + std::abs(wanted[1]) > 1e-4));
  // By the weights: the largest and the smallest also move the range.
  for (std::size_t i = 0; i < w.size(); ++i) {
    double slope = 0;
    for (const double side : {1.0, -1.0}) {
      auto moved = s;
      moved.w[i] = static_cast<float>(static_cast<double>(w[i]) + side * 1.0 / 512);
      const double step = static_cast<double>(moved.w[i]) - static_cast<double>(w[i]);
      for (std::size_t j = 0; j < w.size(); ++j)
        slope +=
            static_cast<double>(by[j]) * (moved.number(j, a, b) - s.number(j, a, b)) / step / 2;
    }
    BOOST_TEST(std::abs(static_cast<double>(d[i]) - slope) < 1e-4,
               S::name << " weight " << i << ": " << d[i] << " for " << slope);
  }
}

BOOST_AUTO_TEST_SUITE(block_training)

BOOST_AUTO_TEST_CASE(gradients_of_ranges) {
  for (const double shift : {0.0, 0.7, -0.7, 5.0, -5.0})
    for (const float high : {4.0f, 0.5f})
      for (const float low : {4.0f, 1.5f}) {
        check_ranges<st::int4<0>>(shift, high, low);
        check_ranges<st::nf4>(shift, high, low);
        check_ranges<st::int4<8, st::symmetry::asymmetric>>(shift, high, low);
        check_ranges<st::int8_per<st::granularity::row, st::symmetry::asymmetric>>(shift, high,
                                                                                   low);
      }
}

// --- blocks by hand
// ---------------------------------------------------------------------------------

constexpr ln::decoder_shape small_shape{.d_model = 8,
                                        .d_ff = 12,
                                        .heads = 2,
                                        .kv_heads = 1,
                                        .layers = 2,
                                        .vocabulary = 11,
                                        .context = 32,
                                        .eps = 1e-3};
using small = ln::decoder<small_shape, ln::position::none>;
using layer = small::block_with<small::self>;
using S = st::int4<8>;

/// Texts of random tokens, the same for each number.
struct texts {
  std::vector<ln::token> inputs{}, labels{};

  ln::decoder_batch operator()(index i) {
    inputs = tokens(2 * 9, small::vocabulary, static_cast<std::uint64_t>(40 + i));
    labels = inputs;
    return {inputs.data(), labels.data(), 2, 9};
  }
};
constexpr ln::limits limits{.batch = 2, .target = 9};
constexpr index count = 3;

using stream = std::vector<std::vector<float>>;  // [batch][rows, d]

/// What the first block reads.
template <class W>
stream embedded(const W& w) {
  stream x;
  for (index i = 0; i < count; ++i) {
    texts some;
    const auto b = some(i);
    std::vector<float> rows;
    for (index r = 0; r < 18; ++r)
      for (index j = 0; j < 8; ++j)
        rows.push_back(static_cast<float>(w.tree().embedding.at(b.tokens[r], j, 8)));
    x.push_back(rows);
  }
  return x;
}
/// What a block makes of a stream, in numbers that its codes stand for.
template <class Block>
stream through(const Block& block, const stream& x) {
  ln::layer_runner<layer> run({.batch = 2, .length = 9, .training = true});
  BOOST_REQUIRE(run.valid());
  layer::visit(
      [](const ln::parameter_path&, const ln::tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          std::copy_n(from, info.size(), to);
        } else {
          for (index r = 0; r < info.rows; ++r)
            for (index j = 0; j < info.columns; ++j)
              to.data[r * info.columns + j] = static_cast<float>(from.at(r, j, info.columns));
        }
      },
      ln::parameter_path{}, run.weights.tree(), block);
  run.pack();
  stream y;
  for (const auto& one : x) {
    ln::context<float> ctx;
    ctx.batch = 2;
    ctx.length = 9;
    y.emplace_back(one.size());
    run.forward(one.data(), y.back().data(), ctx);
  }
  return y;
}
double mean_square(const stream& a, const stream& b) {
  double sum = 0, n = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < a[i].size(); ++j, ++n) {
      const double off = static_cast<double>(a[i][j]) - static_cast<double>(b[i][j]);
      sum += off * off;
    }
  return sum / n;
}
bool near(double a, double b) { return std::abs(a - b) <= 1e-3 * std::abs(b); }

/// A method's losses against those of what it returned.
template <class Method>
void check_losses(Method how) {
  ln::weights<small> w;
  randomize(w);
  std::vector<block_loss> report;
  how.batches = count;
  how.report = &report;
  const auto got = ln::quantize_in_blocks<S>(w, texts{}, limits, how);
  LINNET_REQUIRE_OK(got);
  const auto nearest = ln::quantize<S>(w);
  BOOST_TEST_REQUIRE(report.size() == 2u);
  stream exact = embedded(w), rounded = embedded(*got);
  index improved = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto& block = got->tree().stack.items[i];
    const stream wanted = through(w.tree().stack.items[i], exact),
                 &read = how.reads_quantized ? rounded : exact;
    const double first = mean_square(through(nearest.tree().stack.items[i], read), wanted),
                 kept = mean_square(through(block, read), wanted);
    BOOST_TEST(near(report[i].nearest, first), report[i].nearest << " for " << first);
    BOOST_TEST(near(report[i].kept, kept), report[i].kept << " for " << kept);
    BOOST_TEST(report[i].kept <= report[i].nearest);
    BOOST_TEST(report[i].kept <= report[i].start);
    improved += report[i].kept < 0.99 * report[i].nearest;
    rounded = through(block, rounded);
    exact = wanted;
  }
  BOOST_TEST(improved > 0);
}

BOOST_AUTO_TEST_CASE(losses_are_those_of_the_blocks) {
  for (const bool reads_quantized : {true, false}) {
    for (const double scale_rate : {0.0, 5e-3})
      check_losses(ln::omniquant{.epochs = 10,
                                 .rate = 0.05,
                                 .scale_rate = scale_rate,
                                 .reads_quantized = reads_quantized});
    check_losses(ln::zeroquant{.epochs = 6, .rate = 0.01, .reads_quantized = reads_quantized});
  }
}

BOOST_AUTO_TEST_CASE(no_epochs_keep_the_better_start) {
  ln::weights<small> w;
  randomize(w);
  std::vector<block_loss> report;
  const auto got = ln::quantize_in_blocks<S>(
      w, texts{}, limits, ln::omniquant{.batches = count, .epochs = 0, .report = &report});
  LINNET_REQUIRE_OK(got);
  const auto nearest = ln::quantize<S>(w);
  index cut = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const bool better = report[i].start < report[i].nearest;
    cut += better;
    BOOST_TEST(report[i].kept == (better ? report[i].start : report[i].nearest));
    layer::visit(
        [&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& codes,
            const auto& rounded) {
          if constexpr (requires { codes.scales; })
            for (index s = 0; s < info.rows * ln::row_scales<S>(info.columns); ++s) {
              const double part = better ? 1 / (1 + std::exp(-4.0)) : 1;
              BOOST_TEST(distance_of(codes.scales[s],
                                     static_cast<float>(
                                         part * static_cast<double>(rounded.scales[s]))) < 1e-6,
                         at.str());
            }
        },
        ln::parameter_path{}, got->tree().stack.items[i], nearest.tree().stack.items[i]);
  }
  BOOST_TEST(cut > 0);
  BOOST_TEST(same_bytes(
      *ln::quantize_in_blocks<S>(w, texts{}, limits, ln::zeroquant{.batches = count, .epochs = 0}),
      nearest));
}

using block = ln::detail::block_model<layer>;

BOOST_AUTO_TEST_CASE(gradients_of_scales) {
  ln::weights<block> w;
  ln::gradients<block> by;
  randomize(w);
  const auto linear = [&] {  // a loss whose gradient by the weights is `by`
    double sum = 0;
    ln::each_tensor_of(
        [&](const ln::parameter_path&, const ln::tensor_info& info, auto& x, auto& slopes) {
          for (index i = 0; i < info.size(); ++i)
            sum += static_cast<double>(values_of(x)[i]) * static_cast<double>(slopes[i]);
        },
        w, by);
    return sum;
  };
  by.visit([&](const ln::parameter_path&, const ln::tensor_info& info, float* slopes) {
    const auto random = normal<float>(info.size(), static_cast<std::uint64_t>(info.size()));
    std::copy_n(random.data(), info.size(), slopes);
  });
  const ln::detail::channel_map<float> map(w);
  index found = 0;
  for (const auto& set : map.sets()) {
    if (!ln::detail::can_scale(set)) continue;
    ++found;
    ln::detail::learned_scales learned(set);
    learned.find_gradient(by);
    for (std::size_t c = 0; c < at(set.width); ++c) {
      double sums[2];
      for (const int side : {0, 1}) {
        std::vector<double> scales(at(set.width), 1), back = scales;
        scales[c] = std::exp(side == 0 ? 1e-2 : -1e-2);
        back[c] = 1 / scales[c];
        ln::detail::scale_channels(set, scales);
        sums[side] = linear();
        ln::detail::scale_channels(set, back);
      }
      BOOST_TEST(std::abs(static_cast<double>(learned.gradient[c]) - (sums[0] - sums[1]) / 2e-2) <
                 2e-3);
    }
  }
  BOOST_TEST(found == 4);  // both norms, values and the gated channels
}

BOOST_AUTO_TEST_CASE(scales_move_norms) {
  ln::weights<small> w;
  randomize(w);
  const auto moved = [&](double rate) {
    const auto got = ln::quantize_in_blocks<S>(
        w, texts{}, limits,
        ln::omniquant{.batches = count, .epochs = 10, .rate = 0.05, .scale_rate = rate});
    LINNET_REQUIRE_OK(got);
    index norms = 0;
    small::visit(
        [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& a, const auto& b) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(a)>>)
            norms += !std::equal(a, a + info.size(), b);
        },
        ln::parameter_path{}, got->tree(), w.tree());
    return norms;
  };
  BOOST_TEST(moved(0) == 0);
  BOOST_TEST(moved(0.02) > 0);
}

// --- what is promised of all
// ------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(threads_change_nothing) {
  ln::weights<small> w;
  randomize(w);
  auto threads = limits;
  threads.threads = 3;
  threads.run_on = std_threads();
  const ln::omniquant ranges{.batches = count, .epochs = 2, .rate = 0.1, .scale_rate = 5e-3};
  const ln::zeroquant distilled{.batches = count, .epochs = 2, .rate = 0.01};
  BOOST_TEST(same_bytes(*ln::quantize_in_blocks<S>(w, texts{}, limits, ranges),
                        *ln::quantize_in_blocks<S>(w, texts{}, threads, ranges)));
  BOOST_TEST(same_bytes(*ln::quantize_in_blocks<S>(w, texts{}, limits, distilled),
                        *ln::quantize_in_blocks<S>(w, texts{}, threads, distilled)));
}

BOOST_AUTO_TEST_CASE(steps_allocate_nothing) {
  ln::weights<small> w;
  randomize(w);
  ln::decoder_batch same = texts{}(0);
  const auto some = tokens(18, small::vocabulary, 5);
  same.tokens = same.labels = some.data();
  const auto batches = [&](index) { return same; };
  // Inputs that one role keeps are chosen anew in each step.
  using mixed = st::per_role<S, st::ffn_down<st::outlier_columns<S, 1>>>;
  const auto calls = [&](const auto& how) {
    return heap_use_of(
               [&] { LINNET_REQUIRE_OK(ln::quantize_in_blocks<mixed>(w, batches, limits, how)); })
        .calls;
  };
  BOOST_TEST(calls(ln::omniquant{.batches = 2, .epochs = 1, .scale_rate = 5e-3}) ==
             calls(ln::omniquant{.batches = 2, .epochs = 4, .scale_rate = 5e-3}));
  BOOST_TEST(calls(ln::zeroquant{.batches = 2, .epochs = 1}) ==
             calls(ln::zeroquant{.batches = 2, .epochs = 4}));
}

BOOST_AUTO_TEST_CASE(inputs_of_products_are_rounded_as_well) {
  ln::weights<small> w;
  randomize(w);
  std::vector<block_loss> plain, rounded;
  using int8 = ln::compute::int8;
  LINNET_REQUIRE_OK((ln::quantize_in_blocks<st::int8>(
      w, texts{}, limits, ln::zeroquant{.batches = count, .epochs = 1, .report = &plain})));
  LINNET_REQUIRE_OK((ln::quantize_in_blocks<st::int8, int8>(
      w, texts{}, limits, ln::zeroquant{.batches = count, .epochs = 1, .report = &rounded})));
  BOOST_TEST(rounded[0].nearest > 1.2 * plain[0].nearest);
}

BOOST_AUTO_TEST_CASE(parts_without_ranges_are_rounded_to_nearest) {
  using mixed = st::per_role<st::int4<8>, st::embedding<st::f32>, st::ffn_down<st::q4_0>,
                             st::attention_v<st::nf4_double_per<8>>>;
  ln::weights<small> w;
  randomize(w);
  std::vector<block_loss> report;
  const auto got = ln::quantize_in_blocks<mixed>(
      w, texts{}, limits,
      ln::omniquant{.batches = count, .epochs = 6, .rate = 0.1, .report = &report});
  LINNET_REQUIRE_OK(got);
  BOOST_TEST_REQUIRE(report[1].kept < report[1].nearest);
  const auto nearest = ln::quantize<mixed>(w);
  small::visit(
      [](const ln::parameter_path& at, const ln::tensor_info& info, const auto& a, const auto& b) {
        if constexpr (requires { a.data; }) {
          const std::string name = at.str();
          index differ = 0;
          for (index r = 0; r < info.rows; ++r)
            for (index j = 0; j < info.columns; ++j)
              differ += a.at(r, j, info.columns) != b.at(r, j, info.columns);
          if (name.find("1.") == name.npos) return;
          const bool kept = name.find("down") != name.npos || name.find(".v.") != name.npos ||
                            name.find("embedding") != name.npos;
          BOOST_TEST((differ == 0) == kept, name);
        }
      },
      ln::parameter_path{}, got->tree(), nearest.tree());
}

BOOST_AUTO_TEST_CASE(padding_counts_nowhere) {
  using model = ln::encoder<tiny_encoder_shape, ln::head::none>;
  ln::weights<model> w;
  randomize(w);
  auto data = encoder_data<model>(2);
  const auto batches = [&](index i) { return i == 0 ? data.view() : ln::encoder_batch{}; };
  std::vector<block_loss> report, other;
  const auto got = ln::quantize_in_blocks<st::int4<>>(
      w, batches, data.limits(), ln::zeroquant{.epochs = 20, .rate = 1e-3, .report = &report});
  LINNET_REQUIRE_OK(got);
  for (index b = 0; b < 2; ++b)
    for (index i = data.lengths[at(b)]; i < data.length; ++i) {
      token& padding = data.inputs[at(b * data.length + i)];
      padding = (padding + 3) % 11;
    }
  const auto again = ln::quantize_in_blocks<st::int4<>>(
      w, batches, data.limits(), ln::zeroquant{.epochs = 20, .rate = 1e-3, .report = &other});
  LINNET_REQUIRE_OK(again);
  BOOST_TEST(same_bytes(*got, *again));
  for (std::size_t i = 0; i < 2; ++i) {
    BOOST_TEST(report[i].kept < report[i].nearest);
    BOOST_TEST(report[i].kept == other[i].kept);
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<small> w;
  randomize(w);
  const auto why = [&](auto&& batches, const auto& how) {
    const auto made = ln::quantize_in_blocks<S>(w, batches, limits, how);
    return made ? std::string() : made.error().message();
  };
  BOOST_TEST(why([](index) { return ln::decoder_batch{}; }, ln::omniquant{}) ==
             "quantize: batches: expected at least one with tokens, got none");
  const std::vector<ln::token> wrong(18, 99);
  BOOST_TEST(why(
                 [&](index) {
                   return ln::decoder_batch{wrong.data(), wrong.data(), 2, 9};
                 },
                 ln::zeroquant{})
                 .find("batch 0") != std::string::npos);
  BOOST_TEST(why(texts{}, ln::omniquant{.epochs = -1}).find("epochs") != std::string::npos);
  BOOST_TEST(why(texts{}, ln::zeroquant{.rate = 0}).find("rate") != std::string::npos);
  BOOST_TEST(why(texts{}, ln::omniquant{.batches = count, .shift_rate = 5e-3}) ==
             "quantize: omniquant.shift_rate: expected 0, or a model whose norms or values have "
             "biases, and what reads them as well, got 0.005");
  texts some;
  index calls = 0;
  const auto shrinks = [&](index i) {
    auto b = some(i);
    if (++calls > count) b.batch = 1;
    return b;
  };
  BOOST_TEST(why(shrinks, ln::omniquant{.batches = count}).find("the same one in each call") !=
             std::string::npos);
  BOOST_TEST(why(texts{}, ln::zeroquant{.batches = count, .epochs = 3, .rate = 1e30})
                 .find("the loss of block 0 by zeroquant: expected a finite number") !=
             std::string::npos);
}

// --- on a trained model
// -----------------------------------------------------------------------------

constexpr ln::decoder_shape trained_shape{.d_model = 16,
                                          .d_ff = 32,
                                          .heads = 2,
                                          .kv_heads = 2,
                                          .layers = 2,
                                          .vocabulary = 48,
                                          .context = 24};
using trained = ln::decoder<trained_shape>;

/// Batches of a language in which a token has four that may follow, one half of the time. Which
/// they are also says the token before it.
struct language {
  std::uint64_t stream;
  std::vector<ln::token> inputs{}, labels{};

  ln::decoder_batch operator()(index i) {
    ln::random_stream random(ln::seed{stream}, static_cast<std::uint64_t>(i));
    inputs.clear();
    for (index b = 0; b < 8; ++b) {
      auto before = random.below(48), last = random.below(48);
      for (index t = 0; t < 24; ++t) {
        inputs.push_back(static_cast<ln::token>(last));
        const auto which = (std::min)(3, std::countr_zero(random.below(8) | 8));
        ln::random_stream next(ln::seed{9}, 4 * (last * 2 + before % 2) + at(which));
        before = std::exchange(last, next.below(48));
      }
    }
    labels.assign(inputs.begin() + 1, inputs.end());
    labels.push_back(0);
    for (std::size_t b = 1; b <= 8; ++b) labels[24 * b - 1] = ln::ignored;
    return {inputs.data(), labels.data(), 8, 24};
  }
};
constexpr ln::limits trained_limits{.batch = 8, .target = 24};

template <class W>
double loss_of(const W& w) {
  const auto p = ln::pack(w);
  auto scoring = ln::evaluator<typename W::model>::open(p, trained_limits);
  LINNET_REQUIRE_OK(scoring);
  language held{1000};
  double nats = 0;
  for (index i = 0; i < 8; ++i) nats += scoring->loss(held(i)).mean() / 8;
  return nats;
}

BOOST_AUTO_TEST_CASE(better_than_nearest_on_other_text) {
  ln::weights<trained> w;
  ln::initialize(w, ln::seed{1});
  auto train =
      ln::trainer<trained>::open(w, trained_limits, {.rate = ln::schedule::cosine(1e-2, 10, 150)});
  LINNET_REQUIRE_OK(train);
  language text{1};
  for (index i = 0; i < 150; ++i) (void)train->step(text(i));
  const double exact = loss_of(w);
  BOOST_TEST(exact < 2.6);
  const auto check = [&](auto storage) {
    using Q = decltype(storage);
    const double nearest = loss_of(ln::quantize<Q>(w)) - exact;
    for (const std::uint64_t seed : {2u, 3u}) {
      const auto ranges =
          ln::quantize_in_blocks<Q>(w, language{seed}, trained_limits,
                                    ln::omniquant{.batches = 8, .epochs = 8, .rate = 5e-2});
      const auto distilled =
          ln::quantize_in_blocks<Q>(w, language{seed}, trained_limits,
                                    ln::zeroquant{.batches = 8, .epochs = 6, .rate = 1e-3});
      LINNET_REQUIRE_OK(ranges);
      LINNET_REQUIRE_OK(distilled);
      const double a = loss_of(*ranges) - exact, b = loss_of(*distilled) - exact;
      BOOST_TEST(a < nearest);
      if (Q::rest::largest < 4) {  // with 3 bits scales of channels help, too
        const auto scaled = ln::quantize_in_blocks<Q>(
            w, language{seed}, trained_limits,
            ln::omniquant{.batches = 8, .epochs = 8, .rate = 5e-2, .scale_rate = 5e-3});
        LINNET_REQUIRE_OK(scaled);
        BOOST_TEST(loss_of(*scaled) - exact < nearest);
      }
      BOOST_TEST(b < nearest);
      BOOST_TEST_MESSAGE(exact << " + " << nearest << ", ranges " << a << ", distilled " << b);
    }
  };
  check(st::per_role<st::int4<0>, st::embedding<st::bf16>>{});
  check(st::per_role<st::int3<32>, st::embedding<st::bf16>>{});
}

BOOST_AUTO_TEST_CASE(memory_is_known_before) {
  ln::weights<small> w;
  randomize(w);
  const auto some = tokens(18, small::vocabulary, 5);
  const auto batches = [&](index) { return ln::decoder_batch{some.data(), some.data(), 2, 9}; };
  const auto check = [&]<class Method>(Method how) {
    how.batches = 50;
    how.epochs = 0;
    const auto used =
        heap_use_of([&] { LINNET_REQUIRE_OK(ln::quantize_in_blocks<S>(w, batches, limits, how)); });
    const index known = ln::block_training_bytes<S, small, Method>(limits, 50),
                result = ln::weights<ln::quantized<small, S>>::bytes(), own = 50 * 200 + 4096;
    const index looked_up = ln::packed<small>::bytes() + 20'000;  // counted twice by the heap
    BOOST_TEST(used.bytes <= known + result + own + looked_up);
    BOOST_TEST(used.bytes >= known);
    BOOST_TEST(
        (ln::block_training_bytes<S, small, Method>(limits, 100) - known == 50 * 18 * 8 * 3 * 4));
  };
  check(ln::omniquant{});
  check(ln::zeroquant{});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::block_training_test
