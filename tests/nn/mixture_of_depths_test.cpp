// SPDX-License-Identifier: MIT
// A block that some tokens go through: against plain loops, its limits, and its two other losses.

#include <algorithm>
#include <numeric>

#include "support/attention.hpp"

namespace test::mixture_of_depths_test {

namespace {

namespace depths = ln::depths;
constexpr index d = 8, f = 5, heads = 4, kv_heads = 2, h = 2;
constexpr ln::attention_shape shape{.d_model = d,
                                    .heads = heads,
                                    .kv_heads = kv_heads,
                                    .d_kv = h,
                                    .causal = true,
                                    .rope = ln::rope_pairing::interleaved};
constexpr ln::real eps{1e-3};
using norm = ln::norm::rms::layer<d, eps>;
using block =
    ln::chain<ln::named<"attention", ln::residual<norm, ln::attention::full::layer<shape>>>,
              ln::named<"ffn", ln::residual<norm, ln::ffn::swiglu::layer<d, f, false>>>>;
template <ln::real Capacity = 0.4, depths::decision By = depths::decision::router,
          ln::real Weight = 0.0>
using routed = ln::detail::routed_block<block, Capacity, By, Weight, h>;
template <ln::real Weight>
using predicted = routed<0.4, depths::decision::predictor, Weight>;

// A share of the tokens, rounded up, whatever the last bit of the product says.
static_assert(routed<0.125>::share(8) == 1 && routed<0.125>::share(9) == 2 &&
              routed<0.125>::share(2048) == 256 && routed<0.125>::share(1) == 1 &&
              routed<0.125>::share(0) == 0);
static_assert(routed<0.07>::share(100) == 7 && routed<0.1>::share(10) == 1 &&
              routed<0.1>::share(11) == 2 && routed<1.0>::share(7) == 7 &&
              routed<1e-12>::share(7) == 1);

using numbers = std::vector<double>;

/// x / rms(x) * gamma
numbers normalized(std::span<const double> x, std::span<const double> gamma) {
  numbers y(x.size());
  for (std::size_t at_row = 0; at_row < x.size(); at_row += d) {
    double sum = 0;
    for (std::size_t i = 0; i < d; ++i) sum += x[at_row + i] * x[at_row + i];
    for (std::size_t i = 0; i < d; ++i)
      y[at_row + i] = x[at_row + i] * gamma[i] / std::sqrt(sum / d + eps.value);
  }
  return y;
}
/// Turns the heads of rows by their positions.
void turn(numbers& x, index width, const std::vector<index>& positions) {
  for (index t = 0; t < std::ssize(positions); ++t)
    for (index head = 0; head < width / h; ++head)
      for (index i = 0; i < h / 2; ++i) {
        const double angle =
            double(positions[at(t)]) * std::pow(10000.0, -2.0 * double(i) / double(h));
        double& a = x[at(t * width + head * h + 2 * i)];
        double& b = x[at(t * width + head * h + 2 * i + 1)];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = turned;
      }
}
/// The whole block in plain loops, on rows with these positions.
template <class Run>
numbers dense_block(Run& run, const numbers& x, const std::vector<index>& positions) {
  const index n = std::ssize(positions);
  const numbers u = normalized(x, run.weight("attention.norm.weight"));
  numbers q = mapped(u, d, run.weight("attention.q.weight"));
  numbers k = mapped(u, d, run.weight("attention.k.weight"));
  const numbers v = mapped(u, d, run.weight("attention.v.weight"));
  turn(q, heads * h, positions);
  turn(k, kv_heads * h, positions);
  numbers wide_k, wide_v;  // one for each query head
  for (index t = 0; t < n; ++t)
    for (index head = 0; head < heads; ++head)
      for (index c = 0; c < h; ++c) {
        const auto from = at((t * kv_heads + head / (heads / kv_heads)) * h + c);
        wide_k.push_back(k[from]);
        wide_v.push_back(v[from]);
      }
  const numbers mixed = dense_attention(
      n, n, heads, h, wide_v, [](index, index i, index j) { return j <= i; },
      [&](index head, index i, index j) {
        return dot(q, i, wide_k, j, heads, head, h) / std::sqrt(double(h));
      });
  numbers y = mapped(mixed, heads * h, run.weight("attention.o.weight"));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += x[i];
  const numbers z = normalized(y, run.weight("ffn.norm.weight"));
  numbers gate = mapped(z, d, run.weight("ffn.gate.weight"));
  const numbers up = mapped(z, d, run.weight("ffn.up.weight"));
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
  const numbers down = mapped(gate, f, run.weight("ffn.down.weight"));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += down[i];
  return y;
}

/// r of the valid tokens of a sequence.
template <class Run>
numbers routes(Run& run, index b) {
  return mapped(std::span<const double>(run.input(b, 0), at(run.valid(b) * d)), d,
                run.weight("router.weight"));
}
/// Tokens of a sequence in order: the `count` best, the earlier of equals.
std::vector<index> best(const numbers& r, index count) {
  std::vector<index> order(r.size());
  std::iota(order.begin(), order.end(), index{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](index i, index j) { return r[at(i)] > r[at(j)]; });
  order.resize(at(count));
  std::sort(order.begin(), order.end());
  return order;
}
/// What the predictor says of the valid tokens of a sequence.
template <class Run>
numbers predictions(Run& run, index b) {
  const auto wi = run.weight("predictor.wi.weight"), bi = run.weight("predictor.wi.bias");
  const auto wo = run.weight("predictor.wo.weight"), bo = run.weight("predictor.wo.bias");
  numbers s;
  for (index t = 0; t < run.valid(b); ++t) {
    s.push_back(bo[0]);
    for (index j = 0; j < std::ssize(bi); ++j) {
      double a = bi[at(j)];
      for (index i = 0; i < d; ++i) a += wi[at(j * d + i)] * run.input(b, t)[i];
      s.back() += wo[at(j)] * a / (1 + std::exp(-a));
    }
  }
  return s;
}
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
/// -log sigmoid(s_i) of the chosen, -log(1 - sigmoid(s_i)) of the others.
double cross_entropy(const numbers& s, const std::vector<index>& chosen) {
  double sum = 0;
  for (const double v : s) sum += softplus(v);
  for (const index t : chosen) sum -= s[at(t)];
  return sum;
}

/// Outputs of some tokens of each sequence by plain loops; the others to the bit as they came.
template <class Layer, class Choose>
void check_outputs(attention_run<Layer>& run, Choose&& choose) {
  run.run();
  index changed = 0;
  for (index b = 0; b < run.batch; ++b) {
    const std::vector<index> chosen = choose(b);
    numbers x;
    for (const index t : chosen) x.insert(x.end(), run.input(b, t), run.input(b, t) + d);
    const numbers y = dense_block(run, x, chosen), r = routes(run, b);
    std::size_t next = 0;
    for (index t = 0; t < run.length; ++t) {
      const std::span<const double> before(run.input(b, t), at(d));
      if (next == chosen.size() || chosen[next] != t) {
        BOOST_TEST(same_bits(run.output(b, t), before), "row " << t << " of " << b);
        continue;
      }
      numbers expected(before.begin(), before.end());
      for (std::size_t i = 0; i < d; ++i)
        expected[i] += r[at(t)] * (y[next * d + i] - x[next * d + i]);
      BOOST_TEST(distance(run.output(b, t), expected) <= 1e-12, "row " << t << " of " << b);
      ++changed;
      ++next;
    }
  }
  BOOST_TEST(changed > 0);
  BOOST_TEST(changed < run.batch * run.length);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixture_of_depths)

// Training takes the best of the valid tokens of each sequence.
BOOST_AUTO_TEST_CASE(outputs_in_training) {
  attention_run<routed<>> run(3, 9, {9, 6, 1}, 0, h);
  check_outputs(run, [&](index b) {
    const numbers r = routes(run, b);
    return best(r, b == 0 ? 4 : b == 1 ? 3 : 1);  // 3.6, 2.4 and 0.4, rounded up
  });
}
// Everything else takes those that enter by themselves: here also none, in the second sequence.
BOOST_AUTO_TEST_CASE(outputs_without_a_look_ahead) {
  const auto positive = [](const numbers& s) {
    std::vector<index> chosen;
    for (index t = 0; t < std::ssize(s); ++t)
      if (s[at(t)] > 0) chosen.push_back(t);
    return chosen;
  };
  attention_run<routed<>> run(3, 9, {9, 6, 1}, 0, h);
  run.training = false;
  for (index t = 0; t < 6; ++t) {
    const numbers r = routes(run, 1);
    for (index i = 0; i < d && r[at(t)] > 0; ++i) run.input(1, t)[i] *= -1;
  }
  BOOST_TEST(positive(routes(run, 1)).empty());
  check_outputs(run, [&](index b) { return positive(routes(run, b)); });
  attention_run<predicted<0.0>> other(2, 9, {9, 6}, 0, h);
  other.training = false;
  numbers said = predictions(other, 0);  // about half of them are to enter
  std::sort(said.begin(), said.end());
  other.weight("predictor.wo.bias")[0] -= (said[4] + said[5]) / 2;
  check_outputs(other, [&](index b) { return positive(predictions(other, b)); });
  // A predictor that says exactly zero lets nobody in.
  for (const char* name : {"predictor.wo.weight", "predictor.wo.bias"})
    for (double& v : other.weight(name)) v = 0;
  other.run();
  BOOST_TEST(same_bits(other.x, other.y));
  // Nobody at all: nothing changes.
  for (index i = 0; i < d; ++i) run.weight("router.weight")[at(i)] = 0;
  run.run();
  BOOST_TEST(same_bits(run.x, run.y));
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<routed<>>({.d_kv = h});
  check_layer<routed<>>({.length = 7, .d_kv = h, .lengths = {7, 4}});
  check_layer<routed<>>({.d_kv = h, .dropout = 0.25});
  check_layer<routed<1.0>>({.d_kv = h});
}

// With all tokens chosen and r = 1, which the last input brings here, it is the block itself.
BOOST_AUTO_TEST_CASE(the_whole_block) {
  attention_run<routed<1.0>> one(2, 7, {}, 0, h);
  attention_run<block> whole(2, 7, {}, 0, h);
  const auto w = one.weight("router.weight");
  std::fill(w.begin(), w.end(), 0.0);
  w.back() = 1;
  for (index row = 0; row < 14; ++row) one.x[at(row * d + d - 1)] = 1;
  whole.x = one.x;
  one.run(true);
  whole.run(true);
  BOOST_TEST(distance(one.y, whole.y) <= 1e-13 * magnitude(whole.y));
  // dr_i = dy_i . f_i comes on top, through the last input alone, and makes dw.
  numbers dw(at(d));
  for (index row = 0; row < 14; ++row) {
    double dr = 0;
    for (index i = row * d; i < (row + 1) * d; ++i)
      dr += one.dy[at(i)] * (whole.y[at(i)] - whole.x[at(i)]);
    whole.dx[at(row * d + d - 1)] += dr;
    for (index i = 0; i < d; ++i) dw[at(i)] += dr * one.x[at(row * d + i)];
  }
  BOOST_TEST(distance(one.dx, whole.dx) <= 1e-12 * magnitude(whole.dx));
  BOOST_TEST(distance(std::span(one.gradients.tree().router, at(d)), dw) <= 1e-12 * magnitude(dw));
  index tensors = 0;
  block::visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, const double* a,
          const double* b) {
        BOOST_TEST(distance(std::span(a, at(info.size())), std::span(b, at(info.size()))) <= 1e-12,
                   where.str());
        ++tensors;
      },
      ln::parameter_path{}, one.gradients.tree().block, whole.gradients.tree());
  BOOST_TEST(tensors == 9);
}

// Of equals the earlier ones are chosen.
BOOST_AUTO_TEST_CASE(ties) {
  attention_run<routed<>> run(1, 7, {}, 0, h);
  for (index t = 1; t < 7; ++t) std::copy_n(run.input(0, 0), d, run.input(0, t));
  run.run();
  for (index t = 0; t < 7; ++t) {
    const std::span<const double> before(run.input(0, t), at(d));
    BOOST_TEST(same_bits(run.output(0, t), before) == (t >= 3), "row " << t);
  }
}

// What is not a number is chosen last, and breaks nothing else.
BOOST_AUTO_TEST_CASE(not_a_number) {
  for (const double odd :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    attention_run<routed<>> run(1, 40, {}, 0, h);
    for (index t = 1; t < 40; t += 3) run.input(0, t)[0] = odd;
    run.run();
    index changed = 0;
    for (index t = 0; t < 40; ++t) {
      const std::span<const double> before(run.input(0, t), at(d));
      const bool same = same_bits(run.output(0, t), before);
      changed += !same;
      BOOST_TEST((same || t % 3 != 1), "row " << t);
    }
    BOOST_TEST(changed == 16);
  }
}

// What a predictor with a weight that is no number decides, the output does not hide.
BOOST_AUTO_TEST_CASE(parameters_that_are_no_numbers) {
  for (const char* name : {"predictor.wi.weight", "predictor.wo.bias"})
    for (const double odd :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      attention_run<predicted<0.0>> run(1, 7, {}, 0, h);
      run.training = false;
      run.weight(name)[0] = odd;
      run.run();
      BOOST_TEST(magnitude(run.y) == hopeless, name << " " << odd);
    }
}

// The router's own loss: what it adds to backward is the derivative of the cross-entropy of
// sigmoid(r) with what was chosen, for the router and for what comes before it, and nothing else.
BOOST_AUTO_TEST_CASE(router_loss) {
  constexpr double weight = 0.3, step = 1e-5;
  using with = routed<0.4, depths::decision::router, weight>;
  attention_run<with> run(2, 7, {7, 4}, 0, h);
  attention_run<routed<>> without(2, 7, {7, 4}, 0, h);
  run.run(true);
  without.run(true);
  BOOST_TEST(same_bits(run.y, without.y));
  const std::vector<index> chosen[] = {best(routes(run, 0), 3), best(routes(run, 1), 2)};
  const auto slope = [&](double& value) {
    const double kept = value;
    double loss[2];
    for (const int side : {0, 1}) {
      value = kept + (side == 0 ? step : -step);
      loss[side] =
          cross_entropy(routes(run, 0), chosen[0]) + cross_entropy(routes(run, 1), chosen[1]);
    }
    value = kept;
    return weight * (loss[0] - loss[1]) / (2 * step);
  };
  numbers dx, dw;
  for (double& v : run.x) dx.push_back(slope(v));
  for (double& v : run.weight("router.weight")) dw.push_back(slope(v));
  for (std::size_t i = 0; i < dx.size(); ++i) dx[i] += without.dx[i];
  for (std::size_t i = 0; i < d; ++i) dw[i] += without.gradients.tree().router[i];
  BOOST_TEST(distance(run.dx, dx) <= 1e-8);
  BOOST_TEST(distance(run.dx, without.dx) > 1e-2);
  BOOST_TEST(distance(std::span(run.gradients.tree().router, at(d)), dw) <= 1e-8);
  block::visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, const double* a,
          const double* b) {
        BOOST_TEST(same_bits(std::span(a, at(info.size())), std::span(b, at(info.size()))),
                   where.str());
      },
      ln::parameter_path{}, run.gradients.tree().block, without.gradients.tree().block);
}

// The predictor learns the same of its own output, and its gradient ends at its input: nothing
// else differs by a bit.
BOOST_AUTO_TEST_CASE(predictor_loss) {
  constexpr double weight = 0.3, step = 1e-5;
  attention_run<predicted<weight>> run(2, 7, {7, 4}, 0, h);
  attention_run<routed<>> without(2, 7, {7, 4}, 0, h);
  run.run(true);
  without.run(true);
  BOOST_TEST(same_bits(run.y, without.y));
  BOOST_TEST(same_bits(run.dx, without.dx));
  BOOST_TEST(same_bits(std::span(run.gradients.tree().router, at(d)),
                       std::span(without.gradients.tree().router, at(d))));
  block::visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, const double* a,
          const double* b) {
        BOOST_TEST(same_bits(std::span(a, at(info.size())), std::span(b, at(info.size()))),
                   where.str());
      },
      ln::parameter_path{}, run.gradients.tree().block, without.gradients.tree().block);
  const std::vector<index> chosen[] = {best(routes(run, 0), 3), best(routes(run, 1), 2)};
  index compared = 0;
  predicted<weight>::predictor_layer::visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, const double* gradient) {
        const auto values = run.weight(where.str());
        for (index i = 0; i < info.size(); ++i) {
          double loss[2];
          const double kept = values[at(i)];
          for (const int side : {0, 1}) {
            values[at(i)] = kept + (side == 0 ? step : -step);
            loss[side] = cross_entropy(predictions(run, 0), chosen[0]) +
                         cross_entropy(predictions(run, 1), chosen[1]);
          }
          values[at(i)] = kept;
          BOOST_TEST(distance_of(weight * (loss[0] - loss[1]) / (2 * step), gradient[i]) <= 1e-8,
                     where.str() << ' ' << i);
          compared += std::abs(gradient[i]) > 1e-4;
        }
      },
      ln::parameter_path{} / "predictor", run.gradients.tree().predictor);
  BOOST_TEST(compared == 2 * d + 2 + 2 + 1);
}

// A copy begins where the choice begins to differ, though both read the same before `first`: here
// token 1, whose router says next to nothing, was rounded to either side.
BOOST_AUTO_TEST_CASE(copies_of_a_session) {
  using layer = routed<>;
  using S = ln::storage::f64;
  ln::layer_buffers<layer, double> buffers({.batch = 2, .length = 3, .capacity = 4});
  attention_run<layer> run(2, 3, {}, 0, h);  // for its parameters
  const auto w = run.weight("router.weight");
  std::fill(w.begin(), w.end(), 0.0);
  w.back() = 1;
  ln::tensor_block<layer, ln::form::packed<double, S>> p;
  ln::pack_layer(run.weights, p);
  numbers rope(at(4 * h));
  ln::ops::rope_table(4, h, 10000.0, rope.data());
  const auto fed = [&](numbers x, index length, index before) {
    const index past[] = {before, before};
    numbers y(x.size());
    ln::context<double> ctx;
    ctx.batch = 2;
    ctx.length = length;
    ctx.past = past;
    ctx.rope.table = rope.data();
    layer::forward<double, S>(p.tree(), {x.data(), 2 * length}, {y.data(), 2 * length},
                              buffers.cache, ctx);
    return y;
  };
  numbers x = normal<double>(2 * 3 * d, 7);
  std::copy_n(x.begin(), 3 * d, x.begin() + 3 * d);
  for (index row = 0; row < 6; ++row)
    x[at(row * d + d - 1)] = row == 1 ? 1e-17 : row == 4 ? -1e-17 : 1;
  (void)fed(x, 3, 0);
  layer::copy_state(buffers.cache, 0, 1, {.first = 3, .tokens = 3});
  numbers next = normal<double>(d, 8);
  next.back() = 1;
  next.insert(next.end(), next.begin(), next.begin() + d);
  const numbers y = fed(next, 1, 3);
  BOOST_TEST(same_bits(std::span(y).first(d), std::span(y).last(d)));
  BOOST_TEST(!same_bits(std::span(y).first(d), std::span(next).first(d)));
}

BOOST_AUTO_TEST_CASE(layer_dropout) {
  check_skipped<routed<0.4, depths::decision::router, 0.3>>(9, 0, h);
  check_skipped<predicted<0.3>>(9, 0, h);
}

BOOST_AUTO_TEST_CASE(threads) {
  using some = routed<0.4, depths::decision::router, 0.3>;
  check_threads<some, float>(19, {19, 11, 3}, h);
  check_threads<predicted<0.3>, double>(19, {19, 11, 3}, h);
}
BOOST_AUTO_TEST_CASE(padding) { check_padding<routed<>>(9, {9, 6}, h); }
BOOST_AUTO_TEST_CASE(narrow) { check_float<routed<>>(9, {9, 6}, 0, h); }

// Maps take the share of the tokens, scores its square, and the router two operations per number.
BOOST_AUTO_TEST_CASE(operations) {
  constexpr index projections =
      2 * d * (heads * h + 2 * kv_heads * h) + 2 * heads * h * d + 6 * d * f;
  static_assert(work<block>(64) == 64 * projections + 4 * 64 * 64 * heads * h);
  static_assert(work<routed<0.25>>(64) == 16 * projections + 4 * 16 * 16 * heads * h + 64 * 2 * d);
  static_assert(work<routed<0.4, depths::decision::predictor>>(64) ==
                work<routed<0.4>>(64) + 64 * (2 * d * 2 + 2 * 2));
  // Training keeps what the chosen tokens need, and the stream of all.
  static_assert(planned<routed<0.125>>(4096) < planned<block>(4096) / 3);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::mixture_of_depths_test
