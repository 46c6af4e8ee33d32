// SPDX-License-Identifier: MIT
// Next-thought models: gradients, which tokens stay, the encoder against plain loops, and what may
// not matter.

#include <linnet/compression.hpp>
#include <numeric>

#include "support/attention.hpp"
#include "support/scoring.hpp"

namespace test::next_thought_test {

namespace {

using model = ln::next_thought<tiny_thought_shape>;
using shrink = ln::shrinking_attention<4, 6, 2, ln::real{0.4}, ln::real{1e-3}>;

constexpr index linear_count(index in, index out) { return in * out + out; }
constexpr index shrink_count(index in, index out) {
  return 4 * linear_count(in, in) + 2 * in + linear_count(in, 4 * in) + linear_count(4 * in, out) +
         2 * out;
}
constexpr index usual_block_count(index n, index f, index kv) {  // SwiGLU, two norms
  return 2 * n * n + 2 * n * kv + 3 * n * f + 2 * n;
}
static_assert(model::parameters() == 2 * 7 * 4 + 8 * 4 + 3 * usual_block_count(4, 5, 2) +
                                         shrink_count(4, 6) + shrink_count(6, 4) +
                                         2 * linear_count(4, 4) + 4 * 2 * 4);
// The published code's numbers.
inline constexpr ln::thought_shape full_size{.d_model = 768,
                                             .d_ff = 1536,
                                             .heads = 16,
                                             .kv_heads = 4,
                                             .widths = {1920, 1920, 1920, 4800},
                                             .dropped = {0.3, 0.5, 0.6, 0.6},
                                             .pooling_heads = 12,
                                             .pseudo = 16,
                                             .decoder_layers = 4,
                                             .vocabulary = 50257,
                                             .context = 512};
static_assert(full_size.valid() &&
              ln::next_thought<full_size>::parameters() ==
                  2 * 50257 * 768 + 512 * 768 + 5 * usual_block_count(768, 1536, 192) +
                      shrink_count(768, 1920) + 2 * shrink_count(1920, 1920) +
                      shrink_count(1920, 4800) + 2 * linear_count(4800, 4800) + 4800 * 16 * 768);
static_assert(shrink::kept(5) == 3 && shrink::kept(10) == 6 && shrink::kept(1) == 1 &&
              ln::shrinking_attention<4, 6, 2, ln::real{0.3}, ln::real{1e-3}>::kept(10) == 7);

/// A batch that owns its tokens; sources of different lengths.
struct thoughts {
  index batch, source, length;
  std::vector<token> sources, inputs, labels;
  std::vector<index> lengths{};

  thoughts(index batch_, index source_, index length_)
      : batch(batch_),
        source(source_),
        length(length_),
        sources(tokens(batch * source, 7, 1)),
        inputs(tokens(batch * length, 7, 2)),
        labels(tokens(batch * length, 7, 3)) {
    for (index b = 0; b < batch; ++b) lengths.push_back((std::max)(index{1}, source - 2 * b));
    labels.back() = ln::ignored;
  }
  ln::thought_batch part(index b, index count) const {
    return {sources.data() + b * source,
            lengths.data() + b,
            inputs.data() + b * length,
            labels.data() + b * length,
            count,
            source,
            length};
  }
  ln::thought_batch view() const { return part(0, batch); }
  ln::limits limits(int threads = 1) const {
    return {.batch = batch,
            .source = source,
            .target = length,
            .threads = threads,
            .min_flops_per_thread = 0};
  }
};

/// What a shrinking layer makes of one sequence, in plain loops; also the tokens that stay.
std::vector<double> plain_shrink(attention_run<shrink>& r, index b, index n,
                                 std::vector<index>& stay) {
  const auto map = [&](const std::string& name, std::span<const double> x, index in) {
    auto y = mapped(x, in, r.weight(name + ".weight"));
    const auto bias = r.weight(name + ".bias");
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += bias[i % bias.size()];
    return y;
  };
  const auto norm = [&](const std::string& name, std::vector<double> x, index width) {
    for (index t = 0; t < std::ssize(x) / width; ++t) {
      const std::span row(x.data() + t * width, at(width));
      const double mean = std::accumulate(row.begin(), row.end(), 0.0) / double(width);
      double squares = 0;
      for (const double v : row) squares += (v - mean) * (v - mean);
      for (index j = 0; j < width; ++j)
        row[at(j)] = (row[at(j)] - mean) / std::sqrt(squares / double(width) + 1e-3) *
                         r.weight(name + ".weight")[at(j)] +
                     r.weight(name + ".bias")[at(j)];
    }
    return x;
  };
  const std::span<const double> x(r.input(b, 0), at(n * 4));
  const auto q = map("attention.q", x, 4), k = map("attention.k", x, 4),
             v = map("attention.v", x, 4);
  const auto score = [&](index head, index i, index j) {
    return dot(q, i, k, j, 2, head, 2) / std::sqrt(2.0);
  };
  auto u = map("attention.o",
               dense_attention(
                   n, n, 2, 2, v, [](index, index, index) { return true; }, score),
               4);
  for (std::size_t i = 0; i < u.size(); ++i) u[i] += x[i];
  u = norm("norm1", u, 4);
  std::vector<double> received(at(n));
  for (index head = 0; head < 2; ++head)
    for (index i = 0; i < n; ++i) {
      double sum = 0;
      for (index j = 0; j < n; ++j) sum += std::exp(score(head, i, j));
      for (index j = 0; j < n; ++j) received[at(j)] += std::exp(score(head, i, j)) / sum;
    }
  const index count = (std::max)(index{1}, index(double(n) * 0.6));
  stay.clear();
  for (index j = 0; j < n; ++j)
    if (std::ranges::count_if(received, [&](double other) { return other > received[at(j)]; }) <
        count)
      stay.push_back(j);
  std::vector<double> chosen;
  for (const index j : stay) chosen.insert(chosen.end(), u.begin() + j * 4, u.begin() + j * 4 + 4);
  auto hidden = map("ffn.wi", chosen, 4);
  for (double& z : hidden) z *= 0.5 * std::erfc(-z / std::sqrt(2.0));
  return norm("norm2", map("ffn.wo", hidden, 16), 6);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(next_thought)

BOOST_AUTO_TEST_CASE(gradients, *boost::unit_test::label("numbers")) {
  const thoughts data(2, 8, 3);
  check_model<model>(data);
  check_model<model>(data, 0.25, 0.1);
}

// The layer, with padded sequences: its outputs and the tokens that it keeps.
BOOST_AUTO_TEST_CASE(shrinking_equals_plain_loops) {
  const std::vector<index> lengths{10, 7, 2};
  attention_run<shrink> r(3, 10, lengths);
  r.y.assign(at(3 * shrink::kept(10) * 6), 0);
  r.run();
  bool left_out_an_early_one = false;
  for (index b = 0; b < 3; ++b) {
    std::vector<index> stay;
    const auto expected = plain_shrink(r, b, lengths[at(b)], stay);
    BOOST_TEST(std::ssize(expected) == shrink::kept(lengths[at(b)]) * 6);
    const std::span<const double> got(r.y.data() + b * shrink::kept(10) * 6, expected.size());
    BOOST_TEST(distance(got, expected) <= 1e-12 * (1 + magnitude(expected)));
    left_out_an_early_one = left_out_an_early_one || stay.back() >= std::ssize(stay);
  }
  BOOST_TEST(left_out_an_early_one);
}

// Padding of sources changes no bit, later tokens of the continuation change no earlier logits, and
// the source matters.
BOOST_AUTO_TEST_CASE(what_matters) {
  const auto p = random_packed<model, double>();
  const thoughts data(3, 8, 5);
  const auto logits = logits_of(p, data);
  thoughts other = data;
  other.sources[8 + 6] = (other.sources[8 + 6] + 1) % 7;
  other.sources[16 + 4] = (other.sources[16 + 4] + 1) % 7;
  BOOST_TEST(same_bits(logits_of(p, other), logits));
  other = data;
  other.inputs[2] = (other.inputs[2] + 1) % 7;
  const auto later = logits_of(p, other);
  BOOST_TEST(same_bits(std::span(later).first(14), std::span(logits).first(14)));
  BOOST_TEST(distance(std::span(later).subspan(14, 7), std::span(logits).subspan(14, 7)) > 1e-6);
  BOOST_TEST(same_bits(std::span(later).subspan(35), std::span(logits).subspan(35)));
  other = data;
  for (token& t : other.sources) t = (t + 1) % 7;
  const auto moved = logits_of(p, other);
  BOOST_TEST(distance(std::span(moved).first(7), std::span(logits).first(7)) > 1e-6);
  other = data;
  other.lengths[1] = 0;
  BOOST_TEST(!model::accepts(other.view(), data.limits()));
  other.lengths[1] = 9;
  BOOST_TEST(!model::accepts(other.view(), data.limits()));
  other = data;
  other.sources[3] = 7;
  BOOST_TEST(!model::accepts(other.view(), data.limits()));
  ln::limits wide = data.limits();
  wide.source = 9;
  BOOST_TEST(!(ln::evaluator<model, double>::open(p, wide)));
  wide.source = 0;
  BOOST_TEST(!(ln::evaluator<model, double>::open(p, wide)));
}

// A session writes behind the vectors of a thought what an evaluator scores: token by token, in
// parts, by unequal lengths, forked and taken back.
BOOST_AUTO_TEST_CASE(sessions_continue_sources) {
  const auto p = random_packed<model, double>();
  thoughts data(3, 8, 5);
  for (index b = 0; b < 3; ++b) data.inputs[at(b * 5)] = model::start;
  const auto want = logits_of(p, data);
  const auto is_row = [&](std::span<const double> got, index b, index t) {
    BOOST_TEST(distance(got, std::span(want).subspan(at((b * 5 + t) * 7), 7)) <= 1e-12,
               b << ", " << t);
  };
  const auto of = [&](index b, index t) { return data.inputs[at(b * 5 + t)]; };
  auto s = ln::session<model, double>::open(
      p, {.batch = 3, .source = 8, .target = 8, .chunk = 3, .max_logits = 3});
  BOOST_REQUIRE(static_cast<bool>(s));
  const std::vector<token> firsts(3, model::start);
  BOOST_TEST(s->feed(firsts, 3, {}).empty());  // no source yet
  for (int round = 0; round < 2; ++round) {
    BOOST_REQUIRE(s->encode(data.sources, 3, data.lengths));
    for (index t = 0; t < 5; ++t) {
      const std::vector<token> next{of(0, t), of(1, t), of(2, t)};
      const auto got = s->feed(next, 3, {});
      BOOST_REQUIRE(got.size() == 21);
      for (index b = 0; b < 3; ++b) is_row(got.subspan(at(b * 7), 7), b, t);
    }
  }
  BOOST_REQUIRE(s->encode(data.sources, 3, data.lengths));
  const std::vector<token> some{of(0, 0), of(0, 1), of(0, 2), of(1, 0), 0, 0};
  const auto got = s->feed_all(some, 2, std::vector<index>{3, 1});
  for (index t = 0; t < 3; ++t) is_row(got.subspan(at(t * 7), 7), 0, t);
  is_row(got.subspan(21, 7), 1, 0);
  // Another sequence takes thought and text over, and both go on; then a part is taken back.
  BOOST_REQUIRE(s->fork(0, 2));
  const std::vector<token> both{of(0, 3), of(1, 1), of(0, 3)};
  const auto rows = s->feed(both, 3, {});
  is_row(rows.first(7), 0, 3);
  is_row(rows.subspan(7, 7), 1, 1);
  is_row(rows.subspan(14), 0, 3);
  BOOST_REQUIRE(s->truncate(1, 2));
  const std::vector<token> again{of(0, 4), of(1, 2), of(0, 1)};
  const auto back = s->feed(again, 3, {});
  is_row(back.first(7), 0, 4);
  is_row(back.subspan(14), 0, 1);
  // One source at a time, as generate() reads it.
  is_row(s->reset_and_prefill(std::span<const token>(data.sources).first(8)), 0, 0);
  const auto open = [&](const ln::limits& l) {
    const auto opened = ln::session<model, double>::open(p, l);
    return opened ? std::string() : opened.error().message();
  };
  BOOST_TEST(open({.source = 8, .kv_blocks = 4}).find("limits.kv_blocks") != std::string::npos);
  BOOST_TEST(open({.source = 9}).find("limits.source") != std::string::npos);
}

// Nothing of an earlier batch of another shape is left in the buffers.
BOOST_AUTO_TEST_CASE(batches_of_any_shape_after_each_other) {
  ln::weights<model, double> w;
  randomize(w);
  const thoughts large(3, 8, 5), small(2, 6, 3);
  const auto gradient = [&](std::initializer_list<const thoughts*> all) {
    auto train = ln::trainer<model, ln::adamw, double>::open(w, large.limits());
    for (const thoughts* one : all) (void)train->accumulate(one->view());
    return all_values(train->gradient());
  };
  auto sum = gradient({&large});
  const auto other = gradient({&small});
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
  BOOST_TEST(distance(gradient({&large, &small}), sum) <= 1e-12 * magnitude(sum));
}

// What calibration gathers is none of the padding, and every matrix is among it.
BOOST_AUTO_TEST_CASE(calibrated) {
  ln::weights<model> w;
  randomize(w);
  thoughts data(3, 8, 5);
  const auto gather = [&] {
    return ln::calibrate(w, [&](index) { return data.view(); }, data.limits(),
                         {.batches = 1, .rows_per_input = 0});
  };
  const auto a = gather();
  data.sources[8 + 6] = (data.sources[8 + 6] + 1) % 7;  // behind the end
  const auto b = gather();
  data.sources[8 + 5] = (data.sources[8 + 5] + 1) % 7;  // the last one
  const auto c = gather();
  BOOST_REQUIRE(a && b && c);
  index ordinal = 0, changed = 0;
  ln::each_tensor<model>([&](const ln::parameter_path& at_path, const ln::tensor_info& info) {
    const auto x = a->of(ordinal), y = b->of(ordinal), z = c->of(ordinal);
    ++ordinal;
    BOOST_TEST((x.rows > 0) == (info.kind == ln::role::matrix), at_path.str());
    if (x.rows == 0) return;
    const auto size = at(x.width * x.width);
    BOOST_TEST(same_bits(std::span(x.moments, size), std::span(y.moments, size)));
    changed += !same_bits(std::span(x.moments, size), std::span(z.moments, size));
  });
  BOOST_TEST(changed > 10);
  BOOST_TEST(static_cast<bool>(ln::quantize<ln::storage::int4<>>(w, *a, ln::gptq{})));
}

// Weights that are no numbers any more give a loss that is none, and nothing worse.
BOOST_AUTO_TEST_CASE(diverged_weights) {
  ln::weights<model> w;
  w.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    for (index i = 0; i < info.size(); ++i)
      values_of(leaf)[i] = i % 3 == 0 ? std::numeric_limits<float>::quiet_NaN() : 1e30f;
  });
  const auto p = ln::pack(w);
  const thoughts data(3, 8, 5);
  auto score = ln::evaluator<model>::open(p, data.limits());
  BOOST_TEST(!ln::is_finite(score->loss(data.view()).nats));
}

BOOST_AUTO_TEST_CASE(threads_change_no_bit) {
  const auto run = [](int threads) {
    const thoughts data(3, 8, 5);
    ln::weights<model> w;
    randomize(w);
    ln::limits l = data.limits(threads);
    l.run_on = std_threads();
    auto train = ln::trainer<model>::open(w, l, {ln::schedule::constant(1e-2)}, {.dropout = 0.1});
    std::vector<double> all;
    for (int step = 0; step < 2; ++step) all.push_back(train->step(data.view()));
    all.push_back(train->accumulate(data.view()).nats);
    const auto slopes = all_values(train->gradient());
    all.insert(all.end(), slopes.begin(), slopes.end());
    return all;
  };
  const auto alone = run(1);
  for (const int threads : {2, 3}) BOOST_TEST(same_bits(run(threads), alone), threads);
}

// Trained on answers that only the source tells, it knows them: the thought carries it.
BOOST_AUTO_TEST_CASE(learns_what_follows) {
  constexpr ln::thought_shape numbers{.d_model = 16,
                                      .d_ff = 24,
                                      .heads = 2,
                                      .widths = {16, 24},
                                      .pooling_heads = 2,
                                      .vocabulary = 7,
                                      .context = 8};
  using M = ln::next_thought<numbers>;
  thoughts data(7, 8, 2);
  for (index b = 0; b < 7; ++b) {
    for (index t = 0; t < 8; ++t) data.sources[at(b * 8 + t)] = token((b + 2 * (t % 2)) % 7);
    data.lengths[at(b)] = 8;
    data.inputs[at(2 * b)] = data.inputs[at(2 * b + 1)] = 0;  // nothing to go by
    data.labels[at(2 * b)] = token(b);
    data.labels[at(2 * b + 1)] = token((b + 3) % 7);
  }
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<M>::open(w, data.limits(), {ln::schedule::constant(3e-3)});
  const double before = train->evaluate(data.view()).mean();
  BOOST_TEST(std::abs(before - std::log(7.0)) < 0.1);
  for (int step = 0; step < 300; ++step) (void)train->step(data.view());
  BOOST_TEST(train->evaluate(data.view()).mean() < 0.05);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::next_thought_test
