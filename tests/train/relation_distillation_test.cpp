// SPDX-License-Identifier: MIT
// Distillation of self-attention relations: the loss by its definition, gradients by differences,
// rotations, equal models, threads and refusals.

#include "support/encoders.hpp"
#include "support/resumed.hpp"
#include "support/trained_differences.hpp"

namespace test::relation_distillation_test {

namespace {

using options = ln::relation_options;
using small = ln::decoder<tiny_decoder_shape>;
using wide = ln::decoder<teacher_decoder_shape>;
using text = ln::encoder<tiny_encoder_shape>;
constexpr ln::encoder_shape two_heads_shape = [] {
  ln::encoder_shape s = tiny_encoder_shape;
  s.heads = 2;
  return s;
}();
using of_two_heads = ln::encoder<two_heads_shape>;
using both = ln::t5<t5_of_layers(1, 2)>;
using deep = ln::t5<t5_of_layers(3, 2)>;

template <class M, class Teacher>
struct pair_of {
  using form = ln::packed<Teacher, double>;
  using objective = ln::relation_distillation<ln::packed<M, double>, form>;
  using trainer = ln::trainer<M, ln::adamw, double>;
  ln::weights<M, double> w{};
  form p{};

  explicit pair_of(std::uint64_t seed = 2) {
    randomize(w, 1);
    ln::weights<Teacher, double> taught;
    randomize(taught, seed);
    p = ln::pack(taught);
  }
  auto open(const ln::limits& l, const options& how) const {
    auto made = objective::open(p, l, how);
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
    return *std::move(made);
  }
};

/// Central differences of the loss of a batch by some weights.
template <class M, class Teacher, class Data>
void check_differences(const Data& data, const options& how, index every) {
  pair_of<M, Teacher> pair;
  auto from = pair.open(data.limits(), how);
  const auto seen = check_trained_differences(pair.w, data, from, every);
  BOOST_TEST(seen.nats > 1e-3);
  BOOST_TEST(seen.nonzero > 10);
}

/// Queries, keys and values [batch, tokens, width] of each layer.
using layers_of_rows = std::vector<std::array<std::vector<double>, 3>>;
template <class M>
layers_of_rows rows_of(const ln::packed<M, double>& p, const typename M::batch& b,
                       const ln::limits& l) {
  layers_of_rows all;
  ln::memory_block memory(ln::detail::plan_for<M, double>(l, ln::purpose::scoring).total());
  auto work = ln::detail::place_workspace<M, double>(l, ln::purpose::scoring, memory.data()).work;
  const ln::ops::attention_tap<double> tap{
      &all, [](void* self, const ln::ops::execution&, const ln::ops::attention_call<double>& a,
               const ln::ops::attention_gradient<double>*) {
        auto& layer = static_cast<layers_of_rows*>(self)->emplace_back();
        const index rows = a.batch * a.queries;
        layer[0].assign(a.q, a.q + rows * a.heads * a.h);
        const index keys = a.batch * a.k.tokens * a.kv_heads * a.h;
        layer[1].assign(a.k.data, a.k.data + keys);
        layer[2].assign(a.v.data, a.v.data + keys);
      }};
  ln::ops::execution on{ln::team{}, ln::simd::best()};
  on.attention = &tap;
  (void)M::template loss<double, ln::storage::f64>(p.tree(), nullptr, b, work, on, {});
  return all;
}
/// One row of a causal relation.
std::vector<double> relation(const std::vector<double>& x, index width, index b, index length,
                             index head, index heads, index i) {
  const index d = width / heads;
  std::vector<double> row;
  double sum = 0;
  for (index j = 0; j <= i; ++j) {
    double dot = 0;
    for (index k = 0; k < d; ++k)
      dot += x[at((b * length + i) * width + head * d + k)] *
             x[at((b * length + j) * width + head * d + k)];
    sum += row.emplace_back(std::exp(dot / std::sqrt(static_cast<double>(d))));
  }
  for (double& r : row) r /= sum;
  return row;
}

/// Targets that are longer than sources, of which one is padded, and one has no label.
t5_tokens short_targets() {
  auto data = t5_data<both>(3, 4, 6);
  data.labels[6 + 4] = data.labels[6 + 1] = ln::ignored;
  std::fill(data.labels.begin() + 12, data.labels.end(), ln::ignored);
  return data;
}

BOOST_AUTO_TEST_SUITE(relation_distillation)

BOOST_AUTO_TEST_CASE(loss_by_definition) {
  constexpr index batch = 2, length = 5, heads = 2;
  const auto data = decoder_data<small>(batch, length);
  const pair_of<small, wide> pair;
  const auto mine = rows_of(ln::pack(pair.w), data.view(), data.limits());
  const auto theirs = rows_of(pair.p, data.view(), data.limits());
  BOOST_REQUIRE((mine.size() == 2 && theirs.size() == 3));
  ln::weights<small, double> w = pair.w.clone();
  auto train = pair_of<small, wide>::trainer::open(w, data.limits());
  const auto plain = train->accumulate(data.view());
  for (const index layer : {0, -1}) {
    auto from = pair.open(
        data.limits(), {.heads = heads, .layer = layer, .weights = {0.2, 0.3, 0.6}, .labels = 0.5});
    const auto got = train->accumulate(data.view(), from);
    double want = 0;
    for (std::size_t which = 0; which < 3; ++which) {
      const auto &s = mine[1][which], &t = theirs[layer < 0 ? 2 : 0][which];
      for (index b = 0; b < batch; ++b)
        for (index head = 0; head < heads; ++head)
          for (index i = 0; i < length; ++i) {
            const auto rows = static_cast<index>(batch * length);
            const auto p = relation(t, std::ssize(t) / rows, b, length, head, heads, i),
                       q = relation(s, std::ssize(s) / rows, b, length, head, heads, i);
            for (std::size_t j = 0; j < p.size(); ++j)
              want += std::array{0.2, 0.3, 0.6}[which] * p[j] * std::log(p[j] / q[j]) /
                      static_cast<double>(batch * heads * length);
          }
    }
    BOOST_TEST(want > 1e-3);
    BOOST_TEST(got.tokens == plain.tokens);
    BOOST_TEST(distance_of(got.mean(), 0.5 * plain.mean() + want) < 1e-11);
  }
}

BOOST_AUTO_TEST_CASE(differences) {
  check_differences<small, wide>(decoder_data<small>(2, 5), {.heads = 2}, 7);
  check_differences<text, text>(encoder_data<text>(2, 5),
                                {.weights = {1, 2, 3}, .labels = 0.3, .attention = 1.5}, 13);
  check_differences<both, deep>(short_targets(), {.weights = {1, 2, 3}, .labels = 0.3}, 13);
  check_differences<both, deep>(short_targets(), {.weights = {0, 0, 0}, .attention = 1.5}, 3);
}

// A T5 learns its encoder's last self-attention and its decoder's, each by half: those that are
// numbered 0 and 3 of the student's calls, as cross-attention comes between. A target ends with its
// last label.
BOOST_AUTO_TEST_CASE(both_stacks_by_definition) {
  constexpr index heads = 2, width = 4, d = 2;
  const auto data = short_targets();
  const pair_of<both, deep> pair;
  const auto mine = rows_of(ln::pack(pair.w), data.view(), data.limits()),
             theirs = rows_of(pair.p, data.view(), data.limits());
  BOOST_REQUIRE((mine.size() == 5 && theirs.size() == 7));
  double want = 0;
  for (const bool source : {true, false})
    for (std::size_t which = 0; which < 3; ++which)
      for (index b = 0; b < 3; ++b)
        for (index head = 0; head < heads; ++head) {
          const index tokens = source ? 4 : 6,
                      valid = source ? data.lengths[at(b)] : std::array{6, 4, 0}[at(b)];
          for (index i = 0; i < valid; ++i) {
            const auto row = [&](const layers_of_rows& all) {
              const auto& x = all[source ? all.size() - 5 : all.size() - 2][which];
              std::vector<double> r;
              double sum = 0;
              for (index j = 0; j < (source ? valid : i + 1); ++j) {
                double dot = 0;
                for (index k = head * d; k < (head + 1) * d; ++k)
                  dot += x[at((b * tokens + i) * width + k)] * x[at((b * tokens + j) * width + k)];
                sum += r.emplace_back(std::exp(dot / std::sqrt(2.0)));
              }
              for (double& one : r) one /= sum;
              return r;
            };
            const auto p = row(theirs), q = row(mine);
            for (std::size_t j = 0; j < p.size(); ++j)
              want +=
                  0.5 / 3 * p[j] * std::log(p[j] / q[j]) / static_cast<double>(3 * heads * valid);
          }
        }
  auto w = pair.w.clone();
  auto train = pair_of<both, deep>::trainer::open(w, data.limits());
  auto from = pair.open(data.limits(), {});
  BOOST_TEST(want > 1e-3);
  BOOST_TEST(distance_of(train->accumulate(data.view(), from).mean(), want) < 1e-11);
  const auto why = [&](const options& how) {
    return pair_of<both, deep>::objective::open(pair.p, data.limits(), how).error().message();
  };
  BOOST_TEST(why({.layer = 1}) ==
             "relation_distillation::open: relation_options.layer: expected -1, as both of a T5's "
             "stacks learn their last layer, got 1");
}

/// What decides the attention maps of a T5's call, copied.
struct copied_call {
  std::vector<double> q, k, bias;
  double scale;
};
template <class M>
std::vector<copied_call> calls_in(const ln::packed<M, double>& p, const ln::t5_batch& b,
                                  const ln::limits& l) {
  std::vector<copied_call> all;
  ln::memory_block memory(ln::detail::plan_for<M, double>(l, ln::purpose::scoring).total());
  auto work = ln::detail::place_workspace<M, double>(l, ln::purpose::scoring, memory.data()).work;
  const ln::ops::attention_tap<double> tap{
      &all, [](void* self, const ln::ops::execution&, const ln::ops::attention_call<double>& a,
               const ln::ops::attention_gradient<double>*) {
        copied_call one{{a.q, a.q + a.batch * a.queries * a.heads * a.h},
                        {a.k.data, a.k.data + a.batch * a.keys * a.heads * a.h},
                        {},
                        a.scale};
        // By head and distance -5 .. 5, of texts of up to six tokens.
        for (index head = 0; a.bias && head < a.heads; ++head)
          for (index distance = -5; distance <= 5; ++distance) {
            const bool met = std::abs(distance) <= a.bias_origin;
            one.bias.push_back(
                met ? a.bias[head * (2 * a.bias_origin + 1) + a.bias_origin + distance] : 0);
          }
        static_cast<std::vector<copied_call>*>(self)->push_back(std::move(one));
      }};
  ln::ops::execution on{ln::team{}, ln::simd::best()};
  on.attention = &tap;
  (void)M::template loss<double, ln::storage::f64>(p.tree(), nullptr, b, work, on, {});
  return all;
}
// MiniLM's attention maps of a T5 are those that it computes: with biases of positions, without a
// scale. Sources see both ways, targets backward.
BOOST_AUTO_TEST_CASE(attention_maps_of_both_stacks_by_definition) {
  constexpr index heads = 2, width = 4, d = 2;
  const auto data = short_targets();
  const pair_of<both, deep> pair;
  const auto mine = calls_in(ln::pack(pair.w), data.view(), data.limits()),
             theirs = calls_in(pair.p, data.view(), data.limits());
  BOOST_REQUIRE((mine.size() == 5 && theirs.size() == 7));
  double want = 0, scales = 0, biases = 0;
  for (const bool source : {true, false})
    for (index b = 0; b < 3; ++b)
      for (index head = 0; head < heads; ++head) {
        const index tokens = source ? 4 : 6,
                    valid = source ? data.lengths[at(b)] : std::array{6, 4, 0}[at(b)];
        for (index i = 0; i < valid; ++i) {
          const auto row = [&](const std::vector<copied_call>& all) {
            const copied_call& a = all[source ? all.size() - 5 : all.size() - 2];
            scales = (std::max)(scales, std::abs(a.scale - 1));
            std::vector<double> r;
            double sum = 0;
            for (index j = 0; j < (source ? valid : i + 1); ++j) {
              double score = a.bias[at(head * 11 + 5 + j - i)];
              biases += std::abs(score);
              for (index k = head * d; k < (head + 1) * d; ++k)
                score +=
                    a.q[at((b * tokens + i) * width + k)] * a.k[at((b * tokens + j) * width + k)];
              sum += r.emplace_back(std::exp(score));
            }
            for (double& one : r) one /= sum;
            return r;
          };
          const auto p = row(theirs), q = row(mine);
          for (std::size_t j = 0; j < p.size(); ++j)
            want += 0.5 * p[j] * std::log(p[j] / q[j]) / static_cast<double>(3 * heads * valid);
        }
      }
  BOOST_TEST((want > 1e-3 && biases > 1e-1 && scales == 0));
  auto w = pair.w.clone();
  auto train = pair_of<both, deep>::trainer::open(w, data.limits());
  auto maps = pair.open(data.limits(), {.weights = {0, 0, 0}, .attention = 1});
  BOOST_TEST(distance_of(train->accumulate(data.view(), maps).mean(), want) < 1e-11);
  // The first MiniLM adds relations of values.
  auto values = pair.open(data.limits(), {.weights = {0, 0, 1}});
  auto minilm = pair.open(data.limits(), ln::minilm_options);
  const double of_values = train->accumulate(data.view(), values).mean();
  BOOST_TEST(distance_of(train->accumulate(data.view(), minilm).mean(), want + of_values) < 1e-11);
}

// Padding relates to nothing; a model is its own perfect student.
BOOST_AUTO_TEST_CASE(padding_and_equal_models) {
  auto data = encoder_data<text>(2, 5);
  pair_of<text, text> pair;
  auto from = pair.open(data.limits(), {});
  auto train = pair_of<text, text>::trainer::open(pair.w, data.limits());
  const double before = train->accumulate(data.view(), from).nats;
  BOOST_TEST_REQUIRE(data.lengths[1] == 3);
  for (index i = 5 + 3; i < 10; ++i) data.inputs[at(i)] = (data.inputs[at(i)] + 1) % 11;
  BOOST_TEST(train->accumulate(data.view(), from).nats == before);

  pair_of<text, text> equal(1);
  auto own = equal.open(data.limits(), {});
  auto again = pair_of<text, text>::trainer::open(equal.w, data.limits());
  BOOST_TEST(again->accumulate(data.view(), own).nats == 0);
  again->gradient().visit([](const ln::parameter_path&, const ln::tensor_info& info, double* leaf) {
    BOOST_TEST(magnitude(std::span(leaf, at(info.size()))) == 0);
  });
}

// Queries related to keys are attention: MiniLM's two losses of an encoder by their definition.
BOOST_AUTO_TEST_CASE(attention_maps_by_definition) {
  const auto data = encoder_data<text>(2, 5);
  const pair_of<text, text> pair;
  const auto mine = rows_of(ln::pack(pair.w), data.view(), data.limits()),
             theirs = rows_of(pair.p, data.view(), data.limits());
  double want = 0;
  const auto add = [&](std::size_t from, std::size_t to) {
    constexpr index heads = 3, d = 2, width = 6;
    for (index b = 0; b < 2; ++b)
      for (index head = 0; head < heads; ++head)
        for (index i = 0; i < data.lengths[at(b)]; ++i) {
          const auto row = [&](const layers_of_rows& all) {
            std::vector<double> r;
            double sum = 0;
            for (index j = 0; j < data.lengths[at(b)]; ++j) {
              double dot = 0;
              for (index k = head * d; k < (head + 1) * d; ++k)
                dot += all[1][from][at((b * 5 + i) * width + k)] *
                       all[1][to][at((b * 5 + j) * width + k)];
              sum += r.emplace_back(std::exp(dot / std::sqrt(2.0)));
            }
            for (double& x : r) x /= sum;
            return r;
          };
          const auto p = row(theirs), q = row(mine);
          for (std::size_t j = 0; j < p.size(); ++j)
            want +=
                p[j] * std::log(p[j] / q[j]) / static_cast<double>(2 * heads * data.lengths[at(b)]);
        }
  };
  add(0, 1);
  add(2, 2);
  auto w = pair.w.clone();
  auto train = pair_of<text, text>::trainer::open(w, data.limits());
  auto from = pair.open(data.limits(), ln::minilm_options);
  BOOST_TEST(want > 1e-3);
  BOOST_TEST(distance_of(train->accumulate(data.view(), from).mean(), want) < 1e-11);
}

// Relations do not change where all tokens of a relation head are rotated together.
BOOST_AUTO_TEST_CASE(rotations_do_not_matter) {
  constexpr index n = 6, width = 8;
  const auto x = normal<double>(n * width, 1);
  auto turned = x;
  for (index i = 0; i < n; ++i)
    for (index head = 0; head < 2; ++head) {
      double* const row = turned.data() + i * width + head * 4;
      const double a = row[1], b = row[3], c = std::cos(0.7 + static_cast<double>(head)),
                   s = std::sin(0.7 + static_cast<double>(head));
      row[1] = c * a - s * b;
      row[3] = s * a + c * b;
    }
  std::vector<double> scratch(at(ln::ops::relation_scratch(n))), sums(2);
  const ln::ops::relation_rows<double> rows{x.data(), n, width, width},
      turned_rows{turned.data(), n, width, width};
  const ln::ops::relation_pair<double> one{rows, rows}, other{turned_rows, turned_rows};
  ln::ops::relation_divergence({{}, levels().back()}, one, other, {1, 2}, scratch.data(),
                               sums.data());
  BOOST_TEST(magnitude(sums) < 1e-14);
  sums.resize(4);
  ln::ops::relation_divergence({{}, levels().back()}, one, other, {1, 4}, scratch.data(),
                               sums.data());
  BOOST_TEST(magnitude(sums) > 1e-3);  // heads of two numbers are cut apart by these rotations
}

/// Two documents of three tokens in one row have the loss and gradients of two rows.
template <class M, class Teacher, class Batch>
void check_documents(const Batch& rows, const options& how) {
  const std::vector<index> documents{0, 0, 0, 3, 3, 3};
  Batch one = rows;
  one.batch = 1, one.length = 6;
  one.documents = documents.data();
  pair_of<M, Teacher> pair;
  const ln::limits l{.batch = 2, .target = 6};
  auto train = pair_of<M, Teacher>::trainer::open(pair.w, l);
  auto from = pair.open(l, how);
  BOOST_REQUIRE(static_cast<bool>(train));
  const auto apart = train->accumulate(rows, from);
  const auto want = all_values(train->gradient());
  pair_of<M, Teacher> again;
  auto together = pair_of<M, Teacher>::trainer::open(again.w, l);
  const auto got = together->accumulate(one, from);
  BOOST_TEST(apart.nats > 1e-2);
  BOOST_TEST(distance_of(got.mean(), apart.mean()) < 1e-12);
  const auto slopes = all_values(together->gradient());
  for (std::size_t i = 0; i < want.size(); ++i) BOOST_TEST(distance_of(slopes[i], want[i]) < 1e-11);
}
BOOST_AUTO_TEST_CASE(documents_do_not_relate) {
  const auto data = decoder_data<small>(2, 3);
  auto labelled = data;
  for (token& label : labelled.labels) label = 1;
  check_documents<small, wide>(labelled.view(), {.heads = 2});
  auto masked = encoder_data<text>(2, 3);
  auto view = masked.view();
  view.lengths = nullptr;
  check_documents<text, text>(view, ln::minilm_options);
}

// What a token does not see in its layer it does not relate to: a window, the tokens before it, a
// prefix, documents.
BOOST_AUTO_TEST_CASE(relations_end_where_sight_does) {
  constexpr index n = 6, width = 4;
  const auto x = normal<double>(n * width, 1), y = normal<double>(n * width, 2);
  const std::vector<index> documents{0, 0, 2, 2, 2, 5}, prefix{3};
  std::vector<double> scratch(at(ln::ops::relation_scratch(n))), sums(1);
  const ln::ops::relation_rows<double> mine{x.data(), n, width, width},
      theirs{y.data(), n, width, width};
  const ln::ops::relation_pair<double> student{mine, mine}, teacher{theirs, theirs};
  const auto check = [&](const ln::ops::relation_call& c, const auto& sees) {
    double want = 0;
    for (index i = 0; i < n; ++i) {
      const auto row = [&](const std::vector<double>& of) {
        std::vector<double> r(at(n));
        double sum = 0;
        for (index j = 0; j < n; ++j) {
          double dot = 0;
          for (index k = 0; k < width; ++k) dot += of[at(i * width + k)] * of[at(j * width + k)];
          if (sees(i, j)) sum += r[at(j)] = std::exp(dot / 2);
        }
        for (double& one : r) one /= sum;
        return r;
      };
      const auto q = row(x), p = row(y);
      for (std::size_t j = 0; j < at(n); ++j)
        if (p[j] > 0) want += p[j] * std::log(p[j] / q[j]) / static_cast<double>(n);
    }
    ln::ops::relation_divergence({{}, levels().back()}, student, teacher, c, scratch.data(),
                                 sums.data());
    BOOST_TEST(distance_of(sums[0], want) < 1e-12);
  };
  check({1, 1, nullptr, {.before = 2, .after = 0, .first = 1}},
        [](index i, index j) { return j <= i && (j + 2 >= i || j == 0); });
  check({1, 1, nullptr, {.before = 1, .after = 1}},
        [](index i, index j) { return std::abs(i - j) < 2; });
  check({1, 1, nullptr, {.after = 0}, prefix.data()},
        [](index i, index j) { return j <= i || j < 3; });
  check({1, 1, nullptr, {.after = 0}, nullptr, documents.data()},
        [&](index i, index j) { return j <= i && documents[at(i)] == documents[at(j)]; });
}

BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  const pair_of<small, wide> pair;
  check_resumed(pair.w, decoder_data<small>(2, 6),
                [&](const ln::limits& l) { return pair.open(l, {.heads = 2}); });
}
BOOST_AUTO_TEST_CASE(any_number_of_threads_gives_the_same_bits, *boost::unit_test::label("tsan")) {
  const auto data = decoder_data<small>(2, 6);
  const pair_of<small, wide> pair;
  std::vector<double> losses;
  std::vector<ln::weights<small, double>> trained;
  for (const int threads : {1, 3}) {
    ln::limits l = data.limits(threads);
    l.run_on = std_threads();
    trained.push_back(pair.w.clone());
    auto from = pair.open(l, {.heads = 2});
    auto train = pair_of<small, wide>::trainer::open(trained.back(), l);
    for (int step = 0; step < 3; ++step) losses.push_back(train->step(data.view(), from));
  }
  BOOST_TEST(losses[0] == losses[3]);
  BOOST_TEST(losses[2] == losses[5]);
  BOOST_TEST(losses[2] < losses[0]);
  BOOST_TEST(same_bytes(trained[0], trained[1]));
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto data = decoder_data<small>(2, 5);
  const pair_of<small, wide> pair;
  const auto why = [&](const options& how) {
    const auto made = pair_of<small, wide>::objective::open(pair.p, data.limits(), how);
    return made ? std::string() : made.error().message();
  };
  BOOST_TEST(why({.heads = 2}) == "");
  BOOST_TEST(why({.heads = 3}) ==
             "relation_distillation::open: relation_options.heads: expected a divisor of the "
             "widths of queries and keys, such as 8, got 3");
  BOOST_TEST(why({.layer = 3}) ==
             "relation_distillation::open: relation_options.layer: expected below 3, the "
             "teacher's layers, got 3");
  BOOST_TEST(why({.heads = 2, .attention = 1}) ==
             "relation_distillation::open: relation_options.attention: expected 0, as a model has "
             "fewer heads of keys than of queries, got 1");
  BOOST_TEST(why({.labels = -1}) ==
             "relation_distillation::open: relation_options.labels: expected at least 0, finite "
             "(0 leaves relations alone), got -1");
  // Attention maps are of the heads that there are.
  const pair_of<text, text> same;
  const auto maps = pair_of<text, text>::objective::open(
      same.p, {.batch = 2, .target = 5}, {.heads = 1, .weights = {0, 0, 1}, .attention = 1});
  BOOST_TEST(maps.error().message() ==
             "relation_distillation::open: relation_options.heads: expected 0 or 3, the heads "
             "whose attention maps are learned, got 1");
  const auto p = ln::pack(ln::weights<of_two_heads, double>());
  const auto unlike =
      ln::relation_distillation<ln::packed<text, double>, ln::packed<of_two_heads, double>>::open(
          p, {.batch = 2, .target = 5}, ln::minilm_options);
  BOOST_TEST(unlike.error().message() ==
             "relation_distillation::open: relation_options.attention: expected 0, as the student "
             "has 3 heads in a layer and the teacher 2, got 1");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::relation_distillation_test
