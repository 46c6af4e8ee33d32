// SPDX-License-Identifier: MIT
// Importance: scores by their definitions, what contributes nothing goes first, and refusals.

#include "support/compression.hpp"
#include "support/data.hpp"
#include "support/encoders.hpp"

namespace test::importance_test {

namespace {

constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 7,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 3,
                                  .vocabulary = 11,
                                  .context = 64,
                                  .eps = 1e-3};
using model = ln::decoder<shape>;

template <auto Shape, index Hidden, index Layers>
constexpr auto smaller() {
  auto s = Shape;
  s.d_ff = Hidden;
  s.layers = Layers;
  return s;
}

/// Numbers of the tensor of that name.
template <class W>
auto* numbers(W& w, const std::string& name) {
  decltype(values_of(w.tree().embedding)) found = nullptr;
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info&, auto& leaf) {
    if (at.str() == name) found = values_of(leaf);
  });
  BOOST_REQUIRE_MESSAGE(found, name);
  return found;
}
/// The number of a tensor in visit().
index ordinal(const std::string& name) {
  index n = 0, found = -1;
  ln::each_tensor<model>([&](const ln::parameter_path& at, const ln::tensor_info&) {
    if (at.str() == name) found = n;
    ++n;
  });
  BOOST_REQUIRE_MESSAGE(found >= 0, name);
  return found;
}
template <class I>
const std::vector<double>& scores(const I& all, const std::string& place) {
  for (const auto* const list : {&all.units, &all.layers})
    for (const auto& one : *list)
      if (one.place == place) return one.scores;
  BOOST_FAIL(place);
  return all.units.front().scores;
}
template <class R>
auto value(R&& made) {
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return std::move(*made);
}
template <class R>
std::string refusal(const R& made) {
  BOOST_REQUIRE(!made);
  return made.error().message();
}
index lowest(const std::vector<double>& scores) {
  return std::min_element(scores.begin(), scores.end()) - scores.begin();
}
std::vector<index> largest_first(const std::vector<double>& scores) {
  std::vector<index> order;
  for (index i = 0; i < std::ssize(scores); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](index a, index b) { return scores[at(a)] > scores[at(b)]; });
  return order;
}
bool near(double a, double b) { return std::abs(a - b) <= 1e-12 * (1 + std::abs(b)); }

const std::string block = "blocks.1.", neurons = "blocks.1.ffn.gate.weight",
                  heads = "blocks.1.attention.q.weight";

ln::weights<model, double> random_weights() {
  ln::weights<model, double> w;
  randomize(w, 3);
  return w;
}

BOOST_AUTO_TEST_SUITE(importance)

BOOST_AUTO_TEST_CASE(magnitudes) {
  auto w = random_weights();
  const auto norm_of = [&](const std::string& name, bool columns, index width, index first,
                           index count) {
    const double* const x = numbers(w, name);
    double sum = 0;
    for (index u = first; u < first + count; ++u)
      for (index i = 0; i < (columns ? shape.d_model : width); ++i) {
        const double one = columns ? x[i * width + u] : x[u * width + i];
        sum += one * one;
      }
    return std::sqrt(sum);
  };
  using ln::aggregate;
  for (const auto how :
       {aggregate::sum, aggregate::product, aggregate::largest, aggregate::readers}) {
    const auto found = value(ln::importance_of(w, ln::magnitude_score{.members = how}));
    const auto fold = [&](std::initializer_list<double> members, double reader) {
      double sum = 0, product = 1, most = 0;
      for (const double m : members) sum += m, product *= m, most = (std::max)(most, m);
      return how == aggregate::sum ? sum
             : how == aggregate::product
                 ? std::pow(product, 1.0 / static_cast<double>(members.size()))
             : how == aggregate::largest ? most
                                         : reader;
    };
    for (index i = 0; i < shape.d_ff; ++i) {
      const double gate = norm_of(block + "ffn.gate.weight", false, 8, i, 1),
                   up = norm_of(block + "ffn.up.weight", false, 8, i, 1),
                   down = norm_of(block + "ffn.down.weight", true, 7, i, 1);
      BOOST_TEST(near(scores(found, neurons)[at(i)], fold({gate, up, down}, down)));
    }
    for (index i = 0; i < shape.kv_heads; ++i) {  // two queries share what they read
      const double q = norm_of(block + "attention.q.weight", false, 8, 4 * i, 4),
                   k = norm_of(block + "attention.k.weight", false, 8, 2 * i, 2),
                   v = norm_of(block + "attention.v.weight", false, 8, 2 * i, 2),
                   o = norm_of(block + "attention.o.weight", true, 8, 4 * i, 4);
      BOOST_TEST(near(scores(found, heads)[at(i)], fold({q, k, v, o}, o)));
    }
  }
}

BOOST_AUTO_TEST_CASE(what_is_read_by_zeros_goes_first) {
  auto w = random_weights();
  for (index i = 0; i < shape.d_model; ++i) {
    numbers(w, block + "ffn.down.weight")[i * shape.d_ff + 4] = 0;
    for (index j = 0; j < 4; ++j)  // the first head of keys and values
      numbers(w, block + "attention.o.weight")[i * 8 + j] = 0;
  }
  const auto found =
      value(ln::importance_of(w, ln::magnitude_score{.members = ln::aggregate::product}));
  BOOST_TEST(scores(found, neurons)[4] == 0);
  BOOST_TEST(lowest(scores(found, neurons)) == 4);
  BOOST_TEST(scores(found, heads)[0] == 0);
  BOOST_TEST(lowest(scores(found, heads)) == 0);
  BOOST_TEST(scores(found, "blocks.0.ffn.gate.weight")[4] > 0);
}

/// The gradient of a batch by a trainer, which leaves the weights alone.
template <class F>
void with_gradient(ln::weights<model>& w, F&& f) {
  const decoder_tokens data(2, 9, 11);
  auto train = ln::trainer<model>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  (void)train->accumulate(data.view());
  f(train->gradient());
}

BOOST_AUTO_TEST_CASE(taylor_expansions) {
  ln::weights<model> w;
  randomize(w, 3);
  for (index i = 0; i < shape.d_model; ++i)
    numbers(w, block + "ffn.down.weight")[i * shape.d_ff + 4] = 0;
  with_gradient(w, [&](ln::gradients<model>& g) {
    const auto found = value(ln::importance_of(w, g, ln::taylor_score{}));
    const auto& got = scores(found, neurons);
    BOOST_TEST(got[4] == 0);
    BOOST_TEST(lowest(got) == 4);
    // By its definition, for another neuron and a head; and with signs inside of a matrix.
    const auto signs = value(ln::importance_of(w, g, ln::taylor_score{.signs = true}));
    double sum = 0, signed_sum = 0;
    const auto add = [&](const std::string& name, index first, index step, index count) {
      const float *const x = numbers(w, name), *const d = numbers(g, name);
      double inner = 0;
      for (index i = 0; i < count; ++i) {
        const double s =
            static_cast<double>(x[first + i * step]) * static_cast<double>(d[first + i * step]);
        sum += std::abs(s);
        inner += s;
      }
      signed_sum += std::abs(inner);
    };
    add(block + "ffn.gate.weight", 2 * 8, 1, 8);
    add(block + "ffn.up.weight", 2 * 8, 1, 8);
    add(block + "ffn.down.weight", 2, 7, 8);
    BOOST_TEST(near(got[2], sum));
    BOOST_TEST(near(scores(signs, neurons)[2], signed_sum));
    BOOST_TEST(refusal(ln::importance_of(
                   w, g, ln::taylor_score{.order = ln::taylor_score::terms::both})) ==
               "taylor_score: taylor_score.order: expected first, or sums of squares beside those "
               "of gradients, got both");
  });
}

/// Sums of gradients of which each is 0.5 + the tensor's number, with a mean square of 3.
struct even_sums {
  struct one {
    index samples = 1;
    const double* squares = nullptr;
    double slope = 0;
    double mean(index) const { return slope; }
    double mean_square(index) const { return 3; }
  };
  const double* squares = nullptr;
  index samples = 1;
  one of(index ordinal) const { return {samples, squares, 0.5 + static_cast<double>(ordinal)}; }
};

BOOST_AUTO_TEST_CASE(second_order) {
  auto w = random_weights();
  using terms = ln::taylor_score::terms;
  const double there = 0;
  for (const auto order : {terms::first, terms::second, terms::both}) {
    const auto found = value(ln::importance_of(
        w, even_sums{&there}, ln::taylor_score{.order = order, .members = ln::aggregate::readers}));
    const double slope = 0.5 + static_cast<double>(ordinal(block + "ffn.down.weight"));
    double want = 0;
    for (index i = 0; i < shape.d_model; ++i) {
      const double x = numbers(w, block + "ffn.down.weight")[i * shape.d_ff + 3];
      want += std::abs(order == terms::first    ? x * slope
                       : order == terms::second ? 3 * x * x
                                                : x * slope - 1.5 * x * x);
    }
    BOOST_TEST(near(scores(found, neurons)[3], want));
  }
  BOOST_TEST(refusal(ln::importance_of(w, even_sums{}, ln::taylor_score{.order = terms::second})) ==
             "taylor_score: taylor_score.order: expected first, or sums of squares beside those of "
             "gradients, got second");
  BOOST_TEST(refusal(ln::importance_of(w, even_sums{&there, 0}, ln::taylor_score{})) ==
             "taylor_score: gradient: expected sums of at least one sample, got of none");
}

using adapted = ln::adapted<model, ln::lora<2>>;

/// A base, an adapter and a gradient of it, of random numbers.
struct adapter_and_gradient {
  ln::weights<model, double> w = random_weights();
  ln::packed<model, double> base = ln::pack(w);
  ln::weights<adapted, double> adapter = value(ln::adapt<ln::lora<2>>(base, {.alpha = 3}));
  ln::gradients<adapted, double> gradient;

  adapter_and_gradient() {
    randomize(adapter, 5);
    std::uint64_t stream = 30;
    gradient.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      std::ranges::copy(normal<double>(info.size(), ++stream), values_of(leaf));
    });
  }
};

// The estimate of LoRAPrune, written out, scores merged weights as any gradient does.
BOOST_AUTO_TEST_CASE(gradients_of_an_adapter) {
  const double a[] = {1, 2}, b[] = {3, 4}, d_a[] = {0.5, 0.25}, d_b[] = {0.1, 0.2};
  const ln::detail::estimated_matrix<1, double> one{a, b, d_a, d_b, 2};
  BOOST_TEST(near(one.at(0, 1).gradient, 0.1 * 1 + 3 * 0.5 - 0.1 * 0.5));
  BOOST_TEST(near(one.at(3, 1).gradient, 0.2 * 2 + 4 * 0.25 - 0.2 * 0.25));
  BOOST_TEST(near(one.at(3, 0.5).gradient, 0.1 * 2 + 4 * 0.125 - 0.1 * 0.125));
  BOOST_TEST(one.at(1, 1).delta == 6);
  adapter_and_gradient of;
  auto merged = of.w.clone();
  LINNET_REQUIRE_OK(ln::merge(merged, of.adapter));
  ln::gradients<model, double> estimate;
  const index tokens = 7;
  std::map<std::string, const double*> factors, slopes;
  of.adapter.visit([&](const ln::parameter_path& at, const ln::tensor_info&, auto& leaf) {
    factors[at.str()] = values_of(leaf);
  });
  of.gradient.visit([&](const ln::parameter_path& at, const ln::tensor_info&, auto& leaf) {
    slopes[at.str()] = values_of(leaf);
  });
  estimate.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    const std::string name = at.str(), place = name.substr(0, name.rfind('.'));
    if (!factors.contains(place + ".lora_A.weight")) return;
    const double *const x = factors.at(place + ".lora_A.weight"),
                        *const y = factors.at(place + ".lora_B.weight"),
                        *const dx = slopes.at(place + ".lora_A.weight"),
                        *const dy = slopes.at(place + ".lora_B.weight");
    for (index i = 0; i < info.rows; ++i)
      for (index j = 0; j < info.columns; ++j)
        for (index r = 0; r < 2; ++r)
          values_of(leaf)[i * info.columns + j] += dy[i * 2 + r] / 7 * x[r * info.columns + j] +
                                                   y[i * 2 + r] * dx[r * info.columns + j] / 7 -
                                                   dy[i * 2 + r] * dx[r * info.columns + j] / 49;
  });
  for (const auto members : {ln::aggregate::sum, ln::aggregate::readers, ln::aggregate::even})
    for (const bool signs : {false, true}) {
      const auto got = value(
          ln::importance_of(of.w, of.adapter, of.gradient,
                            ln::lora_score{.tokens = tokens, .signs = signs, .members = members}));
      const auto want = value(ln::importance_of(
          merged, estimate, ln::taylor_score{.signs = signs, .members = members}));
      for (const std::string& place : {neurons, heads, std::string("embedding.weight")})
        for (std::size_t i = 0; i < scores(want, place).size(); ++i) {
          BOOST_TEST(near(scores(got, place)[i], scores(want, place)[i]), place << ' ' << i);
          BOOST_TEST(scores(got, place)[i] > 0);
        }
      BOOST_TEST(near(scores(got, "blocks")[1], scores(want, "blocks")[1]));
      if (members != ln::aggregate::even) continue;
      // Three matrices, each of a length of 1.
      double sum = 0;
      for (const double score : scores(got, neurons)) sum += score;
      BOOST_TEST((sum > 3 && sum <= 3 * std::sqrt(7.0)));
    }
}

// With as many factors as inputs, A = 1 and B = 0 the estimate is the gradient itself.
BOOST_AUTO_TEST_CASE(an_adapter_of_full_rank_knows_the_gradient) {
  using full = ln::adapted<model, ln::lora<8>>;
  ln::weights<model> w;
  randomize(w, 3);
  for (index i = 0; i < shape.d_model; ++i)
    numbers(w, block + "ffn.down.weight")[i * shape.d_ff + 4] = 0;
  const auto base = ln::pack(w);
  auto adapter = value(ln::adapt<ln::lora<8>>(base, {.alpha = 8}));
  adapter.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    if (info.start) return;  // B
    for (index i = 0; i < info.size(); ++i)
      values_of(leaf)[i] = i / info.columns == i % info.columns ? 1 : 0;
  });
  const decoder_tokens data(2, 9, 11);
  auto train = value(ln::trainer<full>::open(adapter, data.limits()));
  (void)train.accumulate(data.view());
  const auto got = value(ln::importance_of(w, adapter, train.gradient(),
                                           ln::lora_score{.members = ln::aggregate::sum}));
  with_gradient(w, [&](ln::gradients<model>& g) {
    const auto want = value(ln::importance_of(w, g, ln::taylor_score{}));
    for (const std::string& place : {neurons, heads})
      for (std::size_t i = 0; i < scores(want, place).size(); ++i)
        BOOST_TEST(std::abs(scores(got, place)[i] - scores(want, place)[i]) <=
                   1e-4 * (1e-3 + scores(want, place)[i]));
  });
  BOOST_TEST(scores(got, neurons)[4] == 0);
  BOOST_TEST(lowest(scores(got, neurons)) == 4);
}

BOOST_AUTO_TEST_CASE(scores_are_averaged_over_steps) {
  adapter_and_gradient of;
  const auto first = value(ln::importance_of(of.w, of.adapter, of.gradient, ln::lora_score{}));
  const auto second = value(ln::importance_of(of.w));
  ln::running_importance<model> average(0.75);
  BOOST_TEST(average.current().units.empty());
  LINNET_REQUIRE_OK(average.follow(first));
  ln::running_importance<model> again(average.current(), 0.75);
  LINNET_REQUIRE_OK(average.follow(second));
  LINNET_REQUIRE_OK(again.follow(second));
  const auto& got = scores(average.current(), neurons);
  for (std::size_t i = 0; i < got.size(); ++i)
    BOOST_TEST(
        near(got[i], 0.75 * 0.25 * scores(first, neurons)[i] + 0.25 * scores(second, neurons)[i]));
  BOOST_TEST((scores(again.current(), neurons) == got));
  auto odd = second;
  odd.units[0].scores[0] = std::numeric_limits<double>::infinity();
  BOOST_TEST(refusal(average.follow(odd)).find("finite scores, got a NaN") != std::string::npos);
  odd.units.pop_back();
  odd.units[0].scores[0] = 1;
  BOOST_TEST(
      refusal(average.follow(odd)) ==
      "running_importance: scores: expected those of the units before, got scores of others");
  BOOST_TEST((scores(average.current(), neurons) == got));
  BOOST_TEST(refusal(ln::running_importance<model>(1).follow(first)) ==
             "running_importance: keep: expected 0 <= keep < 1, got 1");
  of.gradient.visit([](const ln::parameter_path&, const ln::tensor_info&, auto& leaf) {
    *values_of(leaf) = std::numeric_limits<double>::quiet_NaN();
  });
  BOOST_TEST(refusal(ln::importance_of(of.w, of.adapter, of.gradient, ln::lora_score{}))
                 .find("lora_score: ") == 0u);
  BOOST_TEST(!ln::importance_of(of.w, of.adapter, of.gradient, ln::lora_score{.tokens = 0}));
}

BOOST_AUTO_TEST_CASE(activations) {
  ln::weights<model> w;
  randomize(w, 3);
  for (index i = 0; i < shape.d_model; ++i)
    numbers(w, block + "ffn.up.weight")[4 * shape.d_model + i] = 0;
  const decoder_tokens data(2, 9, 11);
  const auto stats = value(ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                                         {.batches = 1, .moments = false, .rows_per_input = 0}));
  const auto inputs = [&](const std::string& name) { return stats.of(ordinal(name)); };
  for (const bool squares : {true, false}) {
    const auto found = value(ln::importance_of(w, stats, ln::activation_score{squares}));
    BOOST_TEST(scores(found, neurons)[4] == 0);
    BOOST_TEST(lowest(scores(found, neurons)) == 4);
    const auto size = [&](const ln::input_statistics& x, index first, index count) {
      double sum = 0;
      for (index j = first; j < first + count; ++j)
        sum += squares ? x.squares[j] / static_cast<double>(x.rows) : x.mean_magnitude(j);
      return squares ? std::sqrt(sum) : sum;
    };
    BOOST_TEST(near(scores(found, neurons)[2], size(inputs(block + "ffn.down.weight"), 2, 1)));
    BOOST_TEST(near(scores(found, heads)[1], size(inputs(block + "attention.o.weight"), 4, 4)));
    // Channels: behind all norms, the last one too, each once for the matrices that read it.
    double channel = size(inputs("embedding.weight"), 5, 1);
    for (const char* const layer : {"blocks.0.", "blocks.1.", "blocks.2."})
      for (const char* const first : {"attention.k.weight", "ffn.up.weight"})
        channel += size(inputs(std::string(layer) + first), 5, 1);
    BOOST_TEST(near(scores(found, "embedding.weight")[5], channel));
    BOOST_TEST(found.layers.empty());
  }
}

BOOST_AUTO_TEST_CASE(duplicates_go_first) {
  ln::weights<model> w;
  randomize(w, 3);
  for (const std::string& name : {block + "ffn.gate.weight", block + "ffn.up.weight"})
    for (index i = 0; i < shape.d_model; ++i)  // neuron 5 is neuron 1, but for its sign
      numbers(w, name)[5 * 8 + i] =
          (name == block + "ffn.up.weight" ? -1 : 1) * numbers(w, name)[8 + i];
  const decoder_tokens data(2, 9, 11);
  const auto stats = value(ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                                         {.batches = 1, .rows_per_input = 0}));
  auto found = value(ln::importance_of(w));
  for (auto& one : found.units)
    if (one.place == neurons) one.scores = {1, 9, 3, 4, 5, 7, 8};
  const auto first = value(ln::duplicates_first(found, w, stats, {.cosine = 0.999}));
  BOOST_TEST(lowest(scores(first, neurons)) == 5);  // not 1, which is more important
  for (index i = 0; i < shape.d_ff; ++i)
    if (i != 5) BOOST_TEST(scores(first, neurons)[at(i)] == scores(found, neurons)[at(i)]);
  BOOST_TEST((scores(first, heads) == scores(found, heads)));
  BOOST_TEST((scores(first, "embedding.weight") == scores(found, "embedding.weight")));
  // With any cosine, only the most important one of those that overlap is no duplicate.
  const auto all = value(ln::duplicates_first(found, w, stats, {.cosine = 0}));
  BOOST_TEST((largest_first(scores(all, neurons)) == std::vector<index>{1, 6, 5, 4, 3, 2, 0}));
  const auto few = value(ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                                       {.batches = 1, .moments = false, .rows_per_input = 0}));
  BOOST_TEST(refusal(ln::duplicates_first(found, w, few)) ==
             "duplicates_first: expected calibration_options.moments to be true, got false");
  found.units.pop_back();
  BOOST_TEST(!ln::duplicates_first(found, w, stats));
}

/// Takes away what a layer adds to the stream.
template <class M>
void make_identity(ln::weights<M>& w, const std::string& layer) {
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    const std::string name = at.str();
    if (name.starts_with(layer) && (name.ends_with(".o.weight") || name.ends_with(".down.weight") ||
                                    name.ends_with(".wo.weight")))
      std::fill_n(values_of(leaf), info.size(), 0.0F);
  });
}

BOOST_AUTO_TEST_CASE(a_layer_that_does_nothing_is_found_and_left_out) {
  ln::weights<model> w;
  randomize(w, 3);
  make_identity(w, "blocks.1.");
  const decoder_tokens data(2, 9, 11);
  const auto batches = [&](index) { return data.view(); };
  ln::importance<model> found;
  found.layers = value(ln::block_influence(w, batches, data.limits(), {.batches = 2}));
  const auto& layers = scores(found, "blocks");
  BOOST_REQUIRE(layers.size() == 3u);
  BOOST_TEST(std::abs(layers[1]) < 1e-12);
  BOOST_TEST(layers[0] > 1e-3);
  BOOST_TEST(layers[2] > 1e-3);
  const auto small = value(ln::narrow<smaller<shape, 7, 2>()>(w, found));
  const auto dropped = value(ln::drop_layers<0, 2>(w));
  static_assert(std::is_same_v<decltype(small), decltype(dropped)>);
  const auto want = logits_of(ln::pack(w), data);
  BOOST_TEST((logits_of(ln::pack(small), data) == want));
  BOOST_TEST((logits_of(ln::pack(dropped), data) == want));
  auto threads = data.limits(3);
  threads.run_on = std_threads();
  const auto again = value(ln::block_influence(w, batches, threads, {.batches = 2}));
  BOOST_TEST((again[0].scores == layers));
  BOOST_TEST(refusal(ln::block_influence(
                 w, [](index) { return ln::decoder_batch{}; }, data.limits())) ==
             "block_influence: batches: expected at least one, got none");
}

BOOST_AUTO_TEST_CASE(block_influence_by_its_definition) {
  // Both stacks of a T5, without the padding of its sources.
  using t5 = ln::t5<tiny_t5_shape>;
  ln::weights<t5> w;
  randomize(w, 3);
  make_identity(w, "encoder.blocks.0.");
  make_identity(w, "decoder.blocks.1.");
  const t5_tokens data(2, 7, 5, 11);
  const auto found = value(
      ln::block_influence(w, [&](index) { return data.view(); }, data.limits(), {.batches = 1}));
  BOOST_REQUIRE(found.size() == 2u);
  BOOST_TEST(found[0].place == "encoder.blocks");
  BOOST_TEST(found[1].place == "decoder.blocks");
  BOOST_TEST(std::abs(found[0].scores[0]) < 1e-12);
  BOOST_TEST(found[0].scores[1] > 1e-3);
  BOOST_TEST(found[1].scores[0] > 1e-3);
  BOOST_TEST(std::abs(found[1].scores[1]) < 1e-12);

  // The states of an encoder, as an embedder shows them.
  using encoder = ln::encoder<tiny_encoder_shape, ln::norm_placement::pre, ln::head::none>;
  ln::weights<encoder> e;
  randomize(e, 3);
  auto texts = encoder_data<encoder>(1, 6);
  const auto p = ln::pack(e);
  auto run = value(ln::embedder<encoder>::open(p, texts.limits()));
  std::vector<std::vector<float>> states;
  (void)run.hidden(texts.view(), [&](index layer, std::span<const float> x) {
    if (layer < 2) states.emplace_back(x.begin(), x.end());  // the last are normalised
  });
  const auto influence = value(
      ln::block_influence(e, [&](index) { return texts.view(); }, texts.limits(), {.batches = 1}));
  double sum = 0;
  const index d = tiny_encoder_shape.d_model;
  for (index i = 0; i < 6; ++i) {
    double xx = 0, yy = 0, xy = 0;
    for (index j = 0; j < d; ++j) {
      const double x = states[0][at(i * d + j)], y = states[1][at(i * d + j)];
      xx += x * x;
      yy += y * y;
      xy += x * y;
    }
    sum += xy / std::sqrt(xx) / std::sqrt(yy);
  }
  BOOST_TEST(near(influence[0].scores[0], 1 - sum / 6));
}

BOOST_AUTO_TEST_CASE(of_equal_scores_the_first_stay) {
  auto w = random_weights();
  auto found = value(ln::importance_of(w));
  for (auto& one : found.units) std::fill(one.scores.begin(), one.scores.end(), 1.0);
  const auto small = value(ln::narrow<smaller<shape, 4, 3>()>(w, found));
  for (index i = 0; i < 4; ++i)
    for (index j = 0; j < shape.d_model; ++j)
      BOOST_TEST(numbers(small, block + "ffn.up.weight")[i * 8 + j] ==
                 numbers(w, block + "ffn.up.weight")[i * 8 + j]);
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
  auto w = random_weights();
  constexpr auto thin = smaller<shape, 4, 3>();
  constexpr auto shallow = smaller<shape, 7, 2>();
  const auto good = value(ln::importance_of(w));
  ln::importance<model> bad;
  BOOST_TEST(refusal(ln::narrow<thin>(w, bad)) ==
             "narrow: units of blocks.0.ffn.gate.weight: expected 7 scores in importance.units, as "
             "importance_of() gives them, got none");
  BOOST_TEST(refusal(ln::narrow<shallow>(w, bad)) ==
             "narrow: layers of blocks: expected 3 scores in importance.layers, such as those of "
             "block_influence(), got 0");
  bad = good;
  for (auto& one : bad.units)
    if (one.place == neurons) one.scores[2] = std::nan("");
  BOOST_TEST(
      refusal(ln::narrow<thin>(w, bad)) ==
      "narrow: score 2 of blocks.1.ffn.gate.weight: expected a finite number, got a NaN or an "
      "infinity");
  bad.layers[0].scores[0] = std::nan("");
  BOOST_TEST(refusal(ln::narrow<shallow>(w, bad)) ==
             "narrow: score 0 of blocks: expected a finite number, got a NaN or an infinity");
  numbers(w, "norm.weight")[0] = std::nan("");
  BOOST_TEST(refusal(ln::importance_of(w)) ==
             "magnitude_score: norm.weight: expected finite numbers, got a NaN or an infinity");

  // Layers that do not say what they share keep their widths, and may be left out.
  using rwkv = ln::rwkv4<shape>;
  ln::weights<rwkv, double> r;
  randomize(r);
  const auto found = value(ln::importance_of(r));
  BOOST_TEST(refusal(ln::narrow<thin>(r, found)) ==
             "narrow: rows of blocks.0.ffn.key.weight: expected channels that a layer names, see "
             "nn/channels.hpp, got a layer that does not say which channels it shares");
  BOOST_TEST(value(ln::drop_layers<0, 2>(r)).valid());
  // Values of the first layer are read by the others.
  ln::weights<ln::rwkv7<tiny_rwkv7_shape>> seven;
  BOOST_TEST(value(ln::drop_layers<0>(seven)).valid());
  BOOST_TEST(refusal(ln::drop_layers<1>(seven)) ==
             "narrow: blocks.1.attention.v0: expected layers that stay in a place of their kind, "
             "got a layer that moves to one of another kind");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::importance_test
