// SPDX-License-Identifier: MIT
// What calibrate() gathers, against products of inputs that are captured one by one, and against a
// forward pass by hand.

#include <linnet/compression.hpp>
#include <map>

#include "support/encoders.hpp"
#include "support/images.hpp"

namespace test::calibration_test {

namespace {

/// All rows that a matrix read, by its panels.
using captured = std::map<const void*, std::vector<float>>;

/// Runs a batch and keeps what every product reads.
template <class M>
void capture(const ln::packed<M>& p, const typename M::batch& b, const ln::limits& l,
             captured& to) {
  using S = ln::storage_of<M, float>;
  const auto use = ln::detail::headless<M> ? ln::purpose::decoding : ln::purpose::scoring;
  ln::memory_block memory(ln::detail::plan_for<M, float>(l, use).total());
  auto work = ln::detail::place_workspace<M, float>(l, use, memory.data()).work;
  const ln::ops::input_tap tap{
      &to, [](void* object, const ln::ops::execution&, const ln::ops::product_inputs& x) {
        for (index i = 0; i < x.matrices; ++i) {
          auto& rows = (*static_cast<captured*>(object))[x.panels_of(i)];
          rows.insert(rows.end(), x.x, x.x + x.rows * x.width);
        }
      }};
  ln::ops::execution on{ln::team{}, ln::simd::best()};
  on.tap = &tap;
  if constexpr (ln::detail::headless<M>) {
    auto ctx = M::template context_of<float>(b, on);
    M::template forward<float, S>(p.tree(), b, work, ctx);
  } else {
    (void)M::template loss<float, S>(p.tree(), nullptr, b, work, on, {});
  }
}

/// Calls f(name, tensor_info, input_statistics) for each tensor.
template <class M, class F>
void each(const ln::calibration<M>& c, F&& f) {
  index ordinal = 0;
  ln::each_tensor<M>([&](const ln::parameter_path& at_path, const ln::tensor_info& info) {
    f(at_path.str(), info, c.of(ordinal++));
  });
}
/// What one tensor read.
template <class M>
ln::input_statistics of(const ln::calibration<M>& c, const std::string& name) {
  ln::input_statistics found;
  each(c, [&](const std::string& at_name, const ln::tensor_info&, const auto& x) {
    if (at_name == name) found = x;
  });
  BOOST_REQUIRE_MESSAGE(found.rows > 0, name);
  return found;
}

/// tr((W - Q) X^T X (W - Q)^T), by its definition.
template <class From, class To>
double output_error(const ln::tensor_info& info, const From& w, const To& q,
                    const ln::input_statistics& x) {
  const index k = info.columns;
  double sum = 0;
  std::vector<double> d(at(k));
  for (index r = 0; r < info.rows; ++r) {
    for (index i = 0; i < k; ++i) d[at(i)] = static_cast<double>(w.data[r * k + i]) - q.at(r, i, k);
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j) sum += d[at(i)] * x.moments[i * k + j] * d[at(j)];
  }
  return sum;
}
/// GPTQ with these statistics brings the outputs of a model's matrices nearer than rounding to
/// nearest does, summed over them in units of the latter.
template <class M>
void check_gptq(const ln::weights<M>& w, const ln::calibration<M>& c) {
  using S = ln::storage::int4<>;
  const auto by_order = ln::quantize<S>(w, c, ln::gptq{});
  const auto nearest = ln::quantize<S>(w, ln::round_to_nearest{});
  BOOST_REQUIRE(by_order && nearest);
  index ordinal = 0, matrices = 0;
  double share = 0;
  M::visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& from, const auto& a,
          const auto& b) {
        const auto x = c.of(ordinal++);
        if constexpr (requires { a.scales; })
          if (info.kind == ln::role::matrix && x.rows > 0) {
            share += output_error(info, from, a, x) / output_error(info, from, b, x);
            ++matrices;
          }
      },
      ln::parameter_path{}, w.tree(), by_order->tree(), nearest->tree());
  BOOST_TEST(share < 0.9 * static_cast<double>(matrices), share << " of " << matrices);
}

/// Two batches, gathered, against the same inputs kept whole. `alone` are they without padding;
/// `unseen` matrices and tables are in no product.
template <class M, class Data>
void check_sums(const Data& data, const std::vector<typename M::batch>& alone, index unseen) {
  ln::weights<M> w;
  randomize(w);
  const auto c = ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                               {.batches = 2, .rows_per_input = 0});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(c), (c ? std::string() : c.error().message()));
  BOOST_TEST(c->bytes_used() <= ln::calibration<M>::bytes());

  const auto p = ln::pack(w);
  captured inputs;
  for (int twice = 0; twice < 2; ++twice)
    for (const auto& b : alone) capture<M>(p, b, data.limits(), inputs);
  std::vector<const void*> panels;
  p.visit([&](const ln::parameter_path&, const ln::tensor_info&, const auto& leaf) {
    if constexpr (requires { leaf.panels; })
      panels.push_back(leaf.panels);
    else
      panels.push_back(nullptr);
  });
  index ordinal = 0;
  each(*c, [&](const std::string& name, const ln::tensor_info& info, const auto& x) {
    const auto found = inputs.find(panels[at(ordinal++)]);
    if (found == inputs.end()) {
      BOOST_TEST(x.rows == 0, name);
      unseen -= info.stored();
      return;
    }
    const std::vector<float>& rows = found->second;
    const index k = info.columns;
    BOOST_TEST_REQUIRE(x.rows * k == std::ssize(rows), name);
    BOOST_TEST_REQUIRE(x.width == k);
    double worst = 0, least_norm = 1e300;
    for (index i = 0; i < k; ++i) {
      double square = 0, sum = 0, magnitude = 0, largest = 0;
      for (index r = 0; r < x.rows; ++r) {
        const auto v = static_cast<double>(rows[at(r * k + i)]);
        square += v * v;
        sum += v;
        magnitude += std::abs(v);
        largest = (std::max)(largest, std::abs(v));
      }
      least_norm = (std::min)(least_norm, square);
      worst =
          (std::max)({worst, distance_of(square, x.squares[i]), distance_of(sum, x.sums[i]),
                      distance_of(magnitude, x.magnitudes[i]), distance_of(largest, x.largest[i])});
      for (index j = 0; j < k; ++j) {
        double product = 0;
        for (index r = 0; r < x.rows; ++r)
          product +=
              static_cast<double>(rows[at(r * k + i)]) * static_cast<double>(rows[at(r * k + j)]);
        worst = (std::max)(worst, distance_of(product, x.moments[i * k + j]));
      }
    }
    const double scale = (std::max)(1.0, *std::max_element(x.squares, x.squares + k));
    BOOST_TEST(worst <= 1e-14 * scale * static_cast<double>(x.rows),
               name << ": " << worst << " of " << scale);
  });
  BOOST_TEST(unseen == 0);
  check_gptq(w, *c);
}

/// Every statistic of two calibrations has the same bits.
template <class M>
void check_same(const ln::calibration<M>& a, const ln::calibration<M>& b) {
  index ordinal = 0;
  each(a, [&](const std::string& name, const ln::tensor_info&, const auto& x) {
    const ln::input_statistics y = b.of(ordinal++);
    BOOST_TEST_REQUIRE(x.rows == y.rows, name);
    if (x.rows == 0) return;
    const std::size_t k = at(x.width);
    BOOST_TEST(same_bits(std::span(x.sums, k), std::span(y.sums, k)), name);
    BOOST_TEST(same_bits(std::span(x.largest, k), std::span(y.largest, k)), name);
    BOOST_TEST(same_bits(std::span(x.squares, k), std::span(y.squares, k)), name);
    BOOST_TEST(same_bits(std::span(x.magnitudes, k), std::span(y.magnitudes, k)), name);
    BOOST_TEST(same_bits(std::span(x.moments, k * k), std::span(y.moments, k * k)), name);
  });
}

using small = ln::decoder<tiny_decoder_shape>;

/// Batches without padding.
template <class M>
void check_whole(index unseen, index length = 9) {
  const auto data = data_for<M>(3, length, length);
  check_sums<M>(data, {data.view()}, unseen);
}
BOOST_AUTO_TEST_SUITE(calibrating)

BOOST_AUTO_TEST_CASE(sums_of_decoders) {
  check_whole<small>(0, 50);  // more rows than are converted at a time
  check_whole<ln::decoder<tiny_decoder_shape, ln::embedding::factorised<3>, ln::sharing::all>>(0);
  check_whole<ln::decoder<tiny_decoder_shape, ln::depths::mixture_of_depths<0.5, 2>>>(0, 16);
  check_whole<ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<tiny_pooling>>>(1);
}
BOOST_AUTO_TEST_CASE(sums_of_recurrent_models) {
  check_whole<ln::rwkv4<tiny_decoder_shape>>(1);
  check_whole<ln::rwkv7<tiny_rwkv7_shape>>(1);
  check_whole<
      ln::decoder<tiny_decoder_shape, ln::mixer::mamba<3>, ln::ffn::skip, ln::position::none>>(0);
}
/// Padding is none of the text.
template <class M>
void check_encoder(index unseen) {
  const auto data = encoder_data<M>(3, 9);
  check_sums<M>(data, {data.alone(0), data.alone(1), data.alone(2)}, unseen);
}
BOOST_AUTO_TEST_CASE(sums_of_encoders_without_padding) {
  check_encoder<ln::encoder<tiny_encoder_shape>>(0);
  check_encoder<ln::encoder<tiny_encoder_shape, ln::head::none>>(1);
}
/// Padding of sources and of targets is none of the text, either.
BOOST_AUTO_TEST_CASE(sums_of_an_encoder_decoder_without_padding) {
  using M = ln::t5<tiny_t5_shape>;
  t5_tokens data(2, 9, 8, M::vocabulary);  // lengths 9 and 7, the last label of the second ignored
  check_sums<M>(data,
                {{data.source.data(), nullptr, data.labels.data(), 1, 9, 8},
                 {data.source.data() + 9, nullptr, data.labels.data() + 8, 1, 7, 7}},
                0);
}

BOOST_AUTO_TEST_CASE(any_number_of_threads_gives_the_same_bits) {
  using M = ln::decoder<ln::decoder_shape{.d_model = 40,
                                          .d_ff = 104,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .layers = 1,
                                          .vocabulary = 64,
                                          .context = 64}>;
  ln::weights<M> w;
  randomize(w);
  const auto data = decoder_data<M>(4, 60);
  const auto gathered = [&](int threads) {
    ln::limits l = data.limits(threads);
    l.run_on = std_threads();
    return ln::calibrate(w, [&](index) { return data.view(); }, l, {.batches = 2});
  };
  const auto one = gathered(1), two = gathered(2), three = gathered(3);
  BOOST_REQUIRE(one && two && three);
  check_same(*one, *two);
  check_same(*one, *three);
}

/// Matrices that read the same inputs share their statistics.
BOOST_AUTO_TEST_CASE(shared_inputs_are_stored_once) {
  ln::weights<small> w;
  randomize(w);
  const auto data = decoder_data<small>();
  const auto c = ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                               {.batches = 1, .rows_per_input = 0});
  BOOST_REQUIRE(static_cast<bool>(c));
  const auto input = [&](const char* name) { return of(*c, name).moments; };
  const auto* q = input("blocks.0.attention.q.weight");
  BOOST_TEST(q == input("blocks.0.attention.k.weight"));
  BOOST_TEST(q == input("blocks.0.attention.v.weight"));
  BOOST_TEST(q != input("blocks.0.attention.o.weight"));
  BOOST_TEST(q != input("blocks.1.attention.q.weight"));
  BOOST_TEST(input("blocks.0.ffn.gate.weight") == input("blocks.0.ffn.up.weight"));
  // Two layers of four inputs of 8, 8, 8 and 7 numbers, and the tied head.
  const auto bytes = [](index k) { return ln::detail::input_arrays::bytes(k, true); };
  BOOST_TEST(c->bytes_used() == 7 * bytes(8) + 2 * bytes(7));
}

/// A matrix that joins other products than those it was with takes its own copy along.
BOOST_AUTO_TEST_CASE(parted_products) {
  constexpr index k = 3;
  const std::vector<float> x = normal<float>(4 * k, 1);
  const char panels[4] = {};
  ln::detail::input_gatherer gatherer(4, k, true);
  for (index i = 0; i < 4; ++i) gatherer.name(i, panels + i);
  const auto tap = gatherer.tap();
  const ln::ops::execution on{ln::team{}, ln::simd::best()};
  std::vector<double> squares(4);  // of the first input, by definition
  index row = 0;
  for (const std::vector<index>& product :
       std::vector<std::vector<index>>{{0, 1, 2}, {0, 1}, {1, 3}, {2, 0}}) {
    std::vector<const void*> read;
    for (const index i : product) {
      read.push_back(panels + i);
      squares[at(i)] += std::pow(static_cast<double>(x[at(row * k)]), 2);
    }
    tap.call(tap.object, on,
             {1, k, x.data() + row * k, std::ssize(read), read.data(),
              [](const void* all, index i) { return static_cast<const void* const*>(all)[i]; }});
    ++row;
  }
  BOOST_REQUIRE(gatherer.complete());
  for (index i = 0; i < 4; ++i) {
    const auto& to = gatherer.state().inputs[at(gatherer.state().places[at(i)])];
    BOOST_TEST(distance_of(to.squares[0], squares[at(i)]) < 1e-15);
    BOOST_TEST(distance_of(to.moments[0], squares[at(i)]) < 1e-15);
  }
}

/// One block with its attention and feed-forward written down, in double.
BOOST_AUTO_TEST_CASE(inputs_by_hand) {
  static constexpr ln::decoder_shape shape{.d_model = 4,
                                           .d_ff = 5,
                                           .heads = 2,
                                           .kv_heads = 2,
                                           .layers = 1,
                                           .vocabulary = 7,
                                           .context = 16,
                                           .eps = 1e-3};
  using M = ln::decoder<shape, ln::position::none>;
  constexpr index d = 4, f = 5, length = 6, h = 2;
  ln::weights<M> w;
  randomize(w);
  const decoder_tokens data(1, length, 7);
  std::map<std::string, std::vector<double>> values;
  w.visit([&](const ln::parameter_path& at_path, const ln::tensor_info& info, auto& leaf) {
    values[at_path.str()].assign(values_of(leaf), values_of(leaf) + info.size());
  });
  using rows = std::vector<double>;  // [length, width]
  const auto times = [&](const rows& x, index in, index out, const char* name) {
    BOOST_REQUIRE_MESSAGE(std::ssize(values[name]) == in * out, name);
    rows y(at(length * out));
    for (index t = 0; t < length; ++t)
      for (index i = 0; i < out; ++i)
        for (index j = 0; j < in; ++j)
          y[at(t * out + i)] += values[name][at(i * in + j)] * x[at(t * in + j)];
    return y;
  };
  const auto normed = [&](const rows& x, const char* name) {
    BOOST_REQUIRE_MESSAGE(std::ssize(values[name]) == d, name);
    rows y(x);
    for (index t = 0; t < length; ++t) {
      double mean = 0;
      for (index j = 0; j < d; ++j) mean += x[at(t * d + j)] * x[at(t * d + j)] / d;
      for (index j = 0; j < d; ++j)
        y[at(t * d + j)] *= values[name][at(j)] / std::sqrt(mean + shape.eps);
    }
    return y;
  };
  rows x(at(length * d));
  for (index t = 0; t < length; ++t)
    for (index j = 0; j < d; ++j)
      x[at(t * d + j)] = values["embedding.weight"][at(data.inputs[at(t)] * d + j)];
  const rows attention_in = normed(x, "blocks.0.attention.norm.weight");
  const rows q = times(attention_in, d, d, "blocks.0.attention.q.weight");
  const rows k = times(attention_in, d, d, "blocks.0.attention.k.weight");
  const rows v = times(attention_in, d, d, "blocks.0.attention.v.weight");
  rows mixed(at(length * d));
  for (index t = 0; t < length; ++t)
    for (index head = 0; head < d / h; ++head) {
      double sum = 0;
      for (index s = 0; s <= t; ++s) {
        double score = 0;
        for (index j = head * h; j < head * h + h; ++j)
          score += q[at(t * d + j)] * k[at(s * d + j)];
        const double share = std::exp(score / std::sqrt(static_cast<double>(h)));
        sum += share;
        for (index j = head * h; j < head * h + h; ++j)
          mixed[at(t * d + j)] += share * v[at(s * d + j)];
      }
      for (index j = head * h; j < head * h + h; ++j) mixed[at(t * d + j)] /= sum;
    }
  const rows attended = times(mixed, d, d, "blocks.0.attention.o.weight");
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += attended[i];
  const rows ffn_in = normed(x, "blocks.0.ffn.norm.weight");
  const rows gate = times(ffn_in, d, f, "blocks.0.ffn.gate.weight");
  rows hidden = times(ffn_in, d, f, "blocks.0.ffn.up.weight");
  for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] *= gate[i] / (1 + std::exp(-gate[i]));
  const rows down = times(hidden, f, d, "blocks.0.ffn.down.weight");
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += down[i];
  const rows head_in = normed(x, "norm.weight");

  const auto c = ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                               {.batches = 1, .rows_per_input = 0});
  BOOST_REQUIRE(static_cast<bool>(c));
  const auto check = [&](const char* name, const rows& in, index width) {
    const ln::input_statistics s = of(*c, name);
    BOOST_TEST(s.rows == length);
    for (index i = 0; i < width; ++i)
      for (index j = 0; j < width; ++j) {
        double product = 0;
        for (index t = 0; t < length; ++t) product += in[at(t * width + i)] * in[at(t * width + j)];
        BOOST_TEST(distance_of(product, s.moments[i * width + j]) <
                       1e-5 * (1 + std::sqrt(s.squares[i] * s.squares[j])),
                   name);
      }
  };
  check("blocks.0.attention.q.weight", attention_in, d);
  check("blocks.0.attention.o.weight", mixed, d);
  check("blocks.0.ffn.up.weight", ffn_in, d);
  check("blocks.0.ffn.down.weight", hidden, f);
  check("embedding.weight", head_in, d);
}

/// Every refusal is one sentence that names what is wrong.
BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<small> w;
  randomize(w);
  auto data = decoder_data<small>();
  const auto why = [&](const ln::calibration_options& how, index batches = 2) {
    const auto c = ln::calibrate(
        w, [&](index i) { return i < batches ? data.view() : ln::decoder_batch{}; }, data.limits(),
        how);
    return c ? std::string() : c.error().message();
  };
  const ln::calibration_options any{.rows_per_input = 0};
  BOOST_TEST(why(any) == "");
  BOOST_TEST(why({}, 1) == "");
  BOOST_TEST(why({.rows_per_input = 1.3}, 1) ==
             "calibrate: blocks.0.attention.q.weight: expected at least 11 rows of inputs "
             "(calibration_options.rows_per_input): give more text, got 10");
  BOOST_TEST(why({}, 0) == "calibrate: batches: expected at least one with tokens, got none");
  BOOST_TEST(why({.batches = 0}) ==
             "calibrate: calibration_options.batches: expected at least 1, got 0");
  data.inputs[3] = 11;
  BOOST_TEST(why(any) ==
             "calibrate: batch 0: expected one that the model and the limits take, got a token is "
             "outside the vocabulary: give ids from 0 to vocabulary - 1");
  data.inputs[3] = 1;
  // Inputs that overflow, of weights that are all finite.
  ln::weights<small> large = w.clone();
  large.visit([&](const ln::parameter_path& at_path, const ln::tensor_info&, auto& leaf) {
    if (at_path.str() == "blocks.1.attention.norm.weight") {
      for (index j = 0; j < 8; ++j) values_of(leaf)[j] = 3.4e38f;
    }
  });
  std::swap(w, large);
  BOOST_TEST(why(any).starts_with(
      "calibrate: blocks.1.attention.q.weight: expected finite inputs, got a NaN or an infinity at "
      "input "));
  std::swap(w, large);
  w.visit([&](const ln::parameter_path& at_path, const ln::tensor_info&, auto& leaf) {
    if (at_path.str() == "blocks.1.ffn.up.weight")
      values_of(leaf)[2] = std::numeric_limits<float>::quiet_NaN();
  });
  BOOST_TEST(
      why(any) ==
      "calibrate: blocks.1.ffn.up.weight: expected finite numbers, got a NaN or an infinity");
}

}  // namespace

// An image of a batch is looked at alone.
BOOST_AUTO_TEST_CASE(parts_of_images) {
  using M = tiny_vit<ln::head::linear_classification<3>>;
  const image_data<M> data;
  const auto one = ln::detail::sequence_of<M>(data.view(), 2);
  BOOST_TEST((one.tokens == nullptr && one.batch == 1 && one.length == 7));
  BOOST_TEST((one.images.pixels == data.pixels.data() + 2 * image_data<M>::size));
  BOOST_TEST((one.labels == data.labels.data() + 2));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::calibration_test
