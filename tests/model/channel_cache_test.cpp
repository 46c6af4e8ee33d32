// SPDX-License-Identifier: MIT
// Keys that are rounded by channel before their rotation, with scales from a calibration.

#include <linnet/compression.hpp>

#include "support/models.hpp"

namespace test::channel_cache_test {

namespace {

// --- one layer, beside sums in double ---------------------------------------------------------

constexpr index d = 4, heads = 4, kv_heads = 2, h = 6, batch = 2, text = 70, capacity = 96;

constexpr ln::attention_shape with(ln::kv_code cache, ln::rope_pairing rope) {
  return {.d_model = d,
          .heads = heads,
          .kv_heads = kv_heads,
          .d_kv = h,
          .causal = true,
          .bias = true,
          .rope = rope,
          .cache = cache};
}

/// A layer whose queries, keys and values are sums of a few binary digits, exact in any order.
template <ln::attention_shape A>
struct one_layer {
  using layer = ln::attention::full::layer<A>;
  static constexpr float most = A.cache == ln::kv_code::channel_int8 ? 127 : 7;
  std::map<std::string, std::vector<double>> w;
  std::vector<float> x = normal<float>(batch * text * d, 5);
  std::vector<float> scales, table;
  ln::call_shape shape{};

  /// With `whole`, keys and values are whole numbers up to 127 and scales are 1.
  explicit one_layer(bool whole) : table(at(capacity * h)) {
    for (float& v : x) v = std::nearbyint(v * (whole ? 1 : 8)) / (whole ? 1 : 8);
    ln::ops::rope_table(capacity, h, 100.0, table.data());
    for (index c = 0; c < kv_heads * h; ++c)
      scales.push_back(whole ? 1 : 0.05f * static_cast<float>(1 + c % 5));
    shape.batch = batch, shape.length = text, shape.capacity = capacity;
    ln::each_tensor<layer>([&](const ln::parameter_path& at_, const ln::tensor_info& info) {
      const std::string name = at_.str();
      auto values = normal<double>(info.size(), ln::stream_of(name));
      for (index i = 0; i < info.size(); ++i) {
        double& v = values[at(i)];
        v = whole && name[0] != 'q' ? std::nearbyint(v) : std::nearbyint(v * 4) / 8;
        const bool bias = name.ends_with("bias");
        if (whole && name[0] == 'v' && (bias ? i : i / d) % h == 0)
          v = bias ? 127 : 0;  // so that a value's scale is 1
      }
      w[name] = values;
    });
  }

  /// y of calls of `pieces` tokens, from a cache if `cached`.
  std::vector<float> run(const std::vector<index>& pieces, bool cached, index blocks = 0) const {
    ln::call_shape e = shape;
    if (!cached) e.capacity = 0;
    e.blocks = blocks;
    ln::layer_runner<layer> r(e);
    r.weights.visit([&](const ln::parameter_path& at_, const ln::tensor_info&, auto& leaf) {
      const auto& from = w.at(at_.str());
      for (std::size_t i = 0; i < from.size(); ++i)
        values_of(leaf)[i] = static_cast<float>(from[i]);
    });
    r.pack();
    std::vector<float> y(x.size());
    std::vector<std::int32_t> pages;
    for (index b = 0; b < batch; ++b)
      for (index i = 0; i < capacity / 32; ++i)
        pages.push_back(static_cast<std::int32_t>(2 * i + (b + i) % 2));
    index past = 0;
    for (const index n : pieces) {
      std::vector<float> in, out(at(batch * n * d));
      for (index b = 0; b < batch; ++b)
        in.insert(in.end(), x.begin() + (b * text + past) * d,
                  x.begin() + (b * text + past + n) * d);
      const std::vector<index> before(at(batch), past);
      ln::context<float> ctx;
      ctx.on.level = ln::simd::best();
      ctx.on.key_scales = scales.data();
      ctx.batch = batch, ctx.length = n, ctx.past = cached ? before.data() : nullptr;
      ctx.rope = {table.data(), capacity, nullptr};
      if (blocks > 0) ctx.pages = {pages.data(), capacity / 32};
      r.forward(in.data(), out.data(), ctx);
      for (index b = 0; b < batch; ++b)
        std::copy_n(out.begin() + b * n * d, n * d, y.begin() + (b * text + past) * d);
      past += n;
    }
    return y;
  }

  /// W x + b of a map, in double.
  std::vector<double> map(const std::string& name, const double* in, index rows, index from) const {
    std::vector<double> y(w.at(name + ".bias").begin(), w.at(name + ".bias").end());
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < from; ++j) y[at(i)] += w.at(name + ".weight")[at(i * from + j)] * in[j];
    return y;
  }
  /// A number as a code of this scale stands for it.
  static double rounded(double v, float scale) {
    const float n = std::nearbyint(static_cast<float>(v) / scale);
    return static_cast<double>((std::max)(-most, (std::min)(most, n))) * static_cast<double>(scale);
  }
  /// One head at position t, rotated.
  void rotate(index t, double* head) const {
    if (A.rope == ln::rope_pairing::none) return;
    for (index i = 0; i < h / 2; ++i) {
      const bool half = A.rope == ln::rope_pairing::half;
      double &a = head[half ? i : 2 * i], &b = head[half ? i + h / 2 : 2 * i + 1];
      const double angle = static_cast<double>(t) *
                           std::pow(100.0, -2 * static_cast<double>(i) / static_cast<double>(h));
      const double u = a * std::cos(angle) - b * std::sin(angle),
                   v = a * std::sin(angle) + b * std::cos(angle);
      a = u, b = v;
    }
  }
  /// What the layer computes of the rounded cache, by its formulas.
  std::vector<double> naive() const {
    std::vector<double> y;
    for (index b = 0; b < batch; ++b) {
      std::vector<std::vector<double>> ks, vs;
      for (index t = 0; t < text; ++t) {
        const std::vector<double> in(x.begin() + (b * text + t) * d,
                                     x.begin() + (b * text + t + 1) * d);
        auto q = map("q", in.data(), heads * h, d), k = map("k", in.data(), kv_heads * h, d),
             v = map("v", in.data(), kv_heads * h, d);
        for (index c = 0; c < kv_heads * h; ++c) k[at(c)] = rounded(k[at(c)], scales[at(c)]);
        for (index head = 0; head < kv_heads; ++head) {
          double largest = 0;
          for (index c = 0; c < h; ++c)
            largest = (std::max)(largest, std::abs(v[at(head * h + c)]));
          for (index c = 0; c < h; ++c)
            v[at(head * h + c)] = rounded(v[at(head * h + c)], static_cast<float>(largest) / most);
          rotate(t, &k[at(head * h)]);
        }
        ks.push_back(k), vs.push_back(v);
        std::vector<double> mixed;
        for (index head = 0; head < heads; ++head) {
          rotate(t, &q[at(head * h)]);
          const index of = head / (heads / kv_heads) * h;
          std::vector<double> out(at(h));
          double sum = 0;
          for (index j = 0; j <= t; ++j) {
            double score = 0;
            for (index c = 0; c < h; ++c) score += q[at(head * h + c)] * ks[at(j)][at(of + c)];
            const double p = std::exp(score / std::sqrt(static_cast<double>(h)));
            sum += p;
            for (index c = 0; c < h; ++c) out[at(c)] += p * vs[at(j)][at(of + c)];
          }
          for (const double o : out) mixed.push_back(o / sum);
        }
        const auto o = map("o", mixed.data(), d, heads * h);
        y.insert(y.end(), o.begin(), o.end());
      }
    }
    return y;
  }
};

template <ln::attention_shape A>
void check_layer() {
  const one_layer<A> rounding(false);
  const auto want = rounding.naive();
  const double reach = magnitude(want);
  const std::vector<index> ways[] = {{text}, std::vector<index>(at(text), 1), {5, 1, 40, 24}};
  for (const auto& pieces : ways)
    for (const index blocks : {0, 6})
      BOOST_TEST(distance(rounding.run(pieces, true, blocks), want) <= 1e-5 * reach);
  BOOST_TEST(distance(rounding.run({text}, false), want) > 1e-3 * reach);  // it was rounded
}

/// A two-layer decoder whose second layer has keys a hundred times as large.
template <class Cache, class... Policies>
using decoder = ln::decoder<tiny_decoder_shape, Cache, ln::tie::untied, Policies...>;
template <class M>
ln::packed<M> unlike_layers() {
  ln::weights<M> w;
  randomize(w);
  w.visit([](const ln::parameter_path& at_, const ln::tensor_info& info, auto& leaf) {
    const std::string name = at_.str();
    const bool second = name.find("1.attention.k") != name.npos;
    for (index i = 0; i < info.size() && second; ++i) values_of(leaf)[i] *= 100;
    const bool other = name.find("1.attention.q") != name.npos;
    for (index i = 0; i < info.size() && other; ++i) values_of(leaf)[i] /= 100;
  });
  return ln::pack(w);
}
constexpr index length = 60;
/// Scales of a text for a model.
template <class M>
ln::result<ln::key_scales<M>> scales_of(const ln::packed<M>& p, const decoder_tokens& data,
                                        int threads = 1) {
  return ln::calibrate_keys(
      p, [&](index i) { return i == 0 ? data.view() : ln::decoder_batch{}; },
      {.batch = data.batch, .target = data.length, .threads = threads, .min_flops_per_thread = 0});
}
/// Logits behind each token of a text, of calls of `piece` tokens.
template <class M>
std::vector<float> logits(const ln::packed<M>& p, std::span<const token> tokens, index piece) {
  auto s = ln::session<M>::open(p, {.target = std::ssize(tokens), .chunk = 9, .max_logits = 9});
  BOOST_REQUIRE(s);
  std::vector<float> all;
  for (index i = 0; i < std::ssize(tokens); i += piece) {
    const auto rows =
        s->feed_all(tokens.subspan(at(i), at((std::min)(piece, std::ssize(tokens) - i))));
    BOOST_REQUIRE(!rows.empty());
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

/// A model with a calibrated cache of 8 bits comes near the exact one, in calls of any length.
template <class... Policies>
void check_near(index tokens_) {
  using M = decoder<ln::kv::channel_int8, Policies...>;
  const decoder_tokens data(1, tokens_, M::vocabulary);
  auto p = unlike_layers<M>();
  p.set_key_scales(*scales_of(p, data));
  const auto exact =
      logits(unlike_layers<decoder<ln::kv::exact, Policies...>>(), data.inputs, index{1});
  const auto got = logits(p, data.inputs, 1);
  BOOST_TEST(distance(got, exact) <= 0.05 * magnitude(exact));
  BOOST_TEST(distance(got, exact) > 1e-6 * magnitude(exact));
  BOOST_TEST(distance(logits(p, data.inputs, 9), got) <= 1e-2 * magnitude(exact));
}

template <class M>
std::string refused(const std::vector<float>& scales) {
  const auto made = ln::key_scales<M>::of(scales);
  return made ? std::string() : made.error().message();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(channel_cache)

BOOST_AUTO_TEST_CASE(sums_in_double) {
  using enum ln::kv_code;
  check_layer<with(channel_int4, ln::rope_pairing::half)>();
  check_layer<with(channel_int8, ln::rope_pairing::interleaved)>();
  check_layer<with(channel_int4, ln::rope_pairing::none)>();
}
// Where codes hold all that there is, nothing differs from attention without a cache.
BOOST_AUTO_TEST_CASE(fine_enough) {
  const one_layer<with(ln::kv_code::channel_int8, ln::rope_pairing::half)> whole(true);
  const auto want = whole.run({text}, false);
  BOOST_TEST(magnitude(want) > 1);
  BOOST_TEST(distance(whole.run({3, 30, 37}, true), want) <= 1e-6 * magnitude(want));
}
// A number that is not finite stays so, and none beside it changes.
BOOST_AUTO_TEST_CASE(not_finite) {
  using code = ln::ops::channel_code<4>;
  std::vector<float> x = normal<float>(7, 1);
  const auto codes = [&] {
    std::vector<code> to(at(code::bytes(7)));
    code::encode(
        7, x.data(), [](index) { return 0.25f; }, to.data());
    return to;
  };
  const auto before = codes();
  for (const std::uint32_t bits : {0x7fc00000u, 0x7f800000u, 0xff800000u}) {
    std::memcpy(&x[3], &bits, sizeof bits);
    const auto after = codes();
    for (index i = 0; i < 7; ++i)
      if (i == 3)
        BOOST_TEST(ln::is_nan(code::number(after.data(), i)));
      else
        BOOST_TEST(code::number(after.data(), i) == code::number(before.data(), i));
  }
}

// Windows that are used again, first tokens and texts longer than the context.
BOOST_AUTO_TEST_CASE(near_the_exact_cache) {
  check_near<>(length);
  check_near<ln::attention::sinks<3, 6>, ln::position::rope_half>(150);
}

// The largest magnitudes of a layer's keys, computed by its formulas.
BOOST_AUTO_TEST_CASE(calibration) {
  using M = decoder<ln::kv::channel_int8>;
  const auto p = unlike_layers<M>();
  const decoder_tokens data(3, length, M::vocabulary);
  const auto scales = scales_of(p, data);
  BOOST_REQUIRE(scales);
  const auto again = scales_of(p, data, 3);
  BOOST_TEST(same_bits(scales->values(), again->values()));
  const auto w = ln::unpack(p);
  std::map<std::string, std::vector<double>> values;
  w.visit([&](const ln::parameter_path& at_, const ln::tensor_info& info, const auto& leaf) {
    const auto* const from = values_of(leaf);
    values[at_.str()].assign(from, from + info.size());
  });
  constexpr index width = M::d, channels = ln::key_scales<M>::channels;
  std::vector<double> largest(at(channels));
  for (const token t : data.inputs) {
    double squares = 0;
    const double* const row = &values.at("embedding.weight")[at(t * width)];
    for (index i = 0; i < width; ++i) squares += row[i] * row[i] / width;
    for (index c = 0; c < channels; ++c) {
      double k = 0;
      for (index i = 0; i < width; ++i)
        k += row[i] / std::sqrt(squares + M::shape.eps) *
             values.at("blocks.0.attention.norm.weight")[at(i)] *
             values.at("blocks.0.attention.k.weight")[at(c * width + i)];
      largest[at(c)] = (std::max)(largest[at(c)], std::abs(k));
    }
  }
  for (index c = 0; c < channels; ++c)
    BOOST_TEST(distance_of(127 * scales->values()[at(c)], largest[at(c)]) <= 1e-5 * largest[at(c)]);
}

BOOST_AUTO_TEST_CASE(bad_scales) {
  using M = decoder<ln::kv::channel_int8>;
  constexpr index count = ln::key_scales<M>::count, channels = ln::key_scales<M>::channels;
  std::vector<float> scales(at(count), 0.5f);
  BOOST_TEST(refused<M>(scales).empty());
  scales.pop_back();  // those of another model
  BOOST_TEST(refused<M>(scales).find("one for each channel") != std::string::npos);
  scales.push_back(0.5f);
  const std::string place = "layer 1, channel 2";
  for (const std::uint32_t bits : {0u, 0xbf800000u, 0x7f800000u, 0x7fc00000u}) {
    std::memcpy(&scales[at(channels + 2)], &bits, sizeof bits);
    BOOST_TEST(refused<M>(scales).find(place) != std::string::npos);
  }
  // A channel that was always zero has a scale; magnitudes below zero are none.
  scales.assign(at(count), 254);
  scales[1] = 0;
  BOOST_TEST(ln::key_scales<M>::reaching(scales)->values()[0] == 2);
  BOOST_TEST(ln::key_scales<M>::reaching(scales)->values()[1] == 1);
  scales[1] = -1;
  BOOST_TEST(!ln::key_scales<M>::reaching(scales));
}
BOOST_AUTO_TEST_CASE(bad_calibrations) {
  using M = decoder<ln::kv::channel_int8>;
  auto p = unlike_layers<M>();
  const decoder_tokens data(1, length, M::vocabulary);
  const auto says = [](const auto& r, const char* text_) {
    return !r && r.error().message().find(text_) != std::string::npos;
  };
  // Without scales nothing opens; files of packed weights do not hold them, copies do.
  BOOST_TEST(says(ln::session<M>::open(p, {.target = 9}), "set_key_scales()"));
  p.set_key_scales(*scales_of(p, data));
  BOOST_TEST(static_cast<bool>(ln::session<M>::open(p, {.target = 9})));
  const auto copy = p.clone();
  BOOST_TEST(static_cast<bool>(ln::session<M>::open(copy, {.target = 9})));
  const auto view = ln::packed<M>::view(p.block());
  BOOST_TEST(says(ln::session<M>::open(view, {.target = 9}), "set_key_scales()"));
  static_assert(!ln::detail::scales_keys<M, double>);  // its cache is exact

  const auto none = [](index) { return ln::decoder_batch{}; };
  BOOST_TEST(says(ln::calibrate_keys(p, none, {.target = 9}), "at least one"));
  const auto one = [&](index) { return data.view(); };
  BOOST_TEST(says(ln::calibrate_keys(p, one, {.target = 9}), "batch 0"));
  BOOST_TEST(says(ln::calibrate_keys(p, one, {.target = length}, 0), "at least one"));
  auto broken = ln::unpack(p);
  broken.visit([](const ln::parameter_path& at_, const ln::tensor_info&, auto& leaf) {
    if (at_.str() == "blocks.1.attention.k.weight")
      values_of(leaf)[0] = std::numeric_limits<float>::infinity();
  });
  const auto q = ln::pack(broken);
  BOOST_TEST(says(ln::calibrate_keys(q, one, {.target = length}, 1), "layer 1, channel 0"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::channel_cache_test
