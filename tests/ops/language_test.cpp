// SPDX-License-Identifier: MIT
// Embedding, cross-entropy and the fused head against loops in double.

#include "support/matrix.hpp"

namespace test::language_test {

namespace {

namespace storage = ln::storage;

/// Loss and gradient of one row of logits, by the definition; z weighs the squared logsumexp.
double naive_cross_entropy(std::vector<double>& logits, token label, double z = 0) {
  double largest = logits[0], sum = 0;
  for (const double l : logits) largest = (std::max)(largest, l);
  for (const double l : logits) sum += std::exp(l - largest);
  const double lse = std::log(sum) + largest, loss = lse - logits[at(label)] + z * lse * lse;
  for (double& l : logits) l = (1 + 2 * z * lse) * std::exp(l - largest) / sum;
  logits[at(label)] -= 1;
  return loss;
}

template <class T, class S>
void check_embed() {
  constexpr index n = 37, d = 13, rows = 29;
  const matrix<T, S> e(n, d, 1);
  const auto ids = tokens(rows, n, 2);
  std::vector<T> x(at(rows * d));
  std::vector<double> want;
  for (const token id : ids)
    for (index j = 0; j < d; ++j) want.push_back(e.meaning[at(id * d + j)]);
  ln::ops::embed(ln::ops::execution{}, rows, d, ids.data(), e.packed, x.data());
  BOOST_TEST(distance(x, want) <= epsilon<T> * magnitude(want), S::name);
}

/// The fused head in chunks against logits = alpha y W^T, all at once.
template <class T, class S>
void check_head(index rows, index d, index vocabulary, bool gradient, double tolerance) {
  const matrix<T, S> w(vocabulary, d, 1, 1 / std::sqrt(static_cast<double>(d)));
  const auto y = normal<T>(rows * d, 2);
  const T alpha = T(0.6);
  auto labels = tokens(rows, vocabulary, 3);
  for (std::size_t i = 0; i < labels.size(); i += 5) labels[i] = ln::ignored;

  double want_loss = 0;
  index want_tokens = 0;
  std::vector<double> want_logits, want_dy(y.size()), want_dw(w.meaning.size());
  for (index i = 0; i < rows; ++i) {
    std::vector<double> logits;
    for (index v = 0; v < vocabulary; ++v) {
      double sum = 0;
      for (index j = 0; j < d; ++j)
        sum += static_cast<double>(y[at(i * d + j)]) * w.meaning[at(v * d + j)];
      logits.push_back(static_cast<double>(alpha) * sum);
    }
    want_logits.insert(want_logits.end(), logits.begin(), logits.end());
    if (labels[at(i)] == ln::ignored) continue;
    want_loss += naive_cross_entropy(logits, labels[at(i)]);
    ++want_tokens;
    for (index v = 0; v < vocabulary; ++v)
      for (index j = 0; j < d; ++j) {
        want_dy[at(i * d + j)] +=
            static_cast<double>(alpha) * logits[at(v)] * w.meaning[at(v * d + j)];
        want_dw[at(v * d + j)] +=
            static_cast<double>(alpha) * logits[at(v)] * static_cast<double>(y[at(i * d + j)]);
      }
  }
  for (double& g : want_dy) g += 0.25;  // where the gradients start
  for (double& g : want_dw) g += 0.25;

  for (const auto level : levels()) {
    std::vector<T> chunk(at(ln::ops::head_rows(vocabulary) * vocabulary)),
        logits(at(rows * vocabulary));
    std::vector<T> dy(y.size(), T(0.25)), dw(w.meaning.size(), T(0.25));
    std::vector<double> losses(at(rows));
    ln::ops::head_call<T, S> head{
        rows, d, vocabulary, y.data(), w.packed, alpha, labels.data(), chunk.data(), losses.data()};
    head.logits = logits.data();
    if (gradient) {
      head.dy = dy.data();
      head.d_table = dw.data();
    }
    const ln::loss_sum sum = ln::ops::head_loss({{}, level}, head);
    BOOST_TEST(sum.tokens == want_tokens);
    BOOST_TEST(distance_of(sum.nats, want_loss) <= tolerance * static_cast<double>(rows));
    BOOST_TEST(distance(logits, want_logits) <= tolerance);
    if (gradient) {
      BOOST_TEST(distance(dy, want_dy) <= tolerance);
      BOOST_TEST(distance(dw, want_dw) <= tolerance * std::sqrt(static_cast<double>(rows)));
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(language)

// Embedding rows are the table's rows, in every storage type.
BOOST_AUTO_TEST_CASE(embed_looks_up) {
  check_embed<float, storage::f32>();
  check_embed<double, storage::f64>();
  check_embed<float, storage::bf16>();
  check_embed<float, storage::int8>();
}

// The gradient of a repeated token is the sum over its occurrences, added in row order whatever the
// number of threads.
BOOST_AUTO_TEST_CASE(embed_gradient_of_repeated_tokens) {
  constexpr index n = 6, d = 21, rows = 50;  // every token about eight times
  const auto ids = tokens(rows, n, 1);
  const auto dx = normal<float>(rows * d, 2), start = normal<float>(n * d, 3);
  std::vector<double> want(start.begin(), start.end());
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < d; ++j)
      want[at(ids[at(i)] * d + j)] += static_cast<double>(dx[at(i * d + j)]);
  std::vector<float> first;
  for (int threads = 1; threads <= 4; ++threads) {
    auto table_gradient = start;
    on_machine(threads, ln::simd::best(), [&](const ln::ops::execution& on) {
      ln::ops::embed_backward(on, rows, d, ids.data(), dx.data(), table_gradient.data());
    });
    if (threads == 1) first = table_gradient;
    BOOST_TEST(same_bits(table_gradient, first));
  }
  BOOST_TEST(distance(first, want) < 2e-5);
}

// The gradient of a position is the sum over the batch.
BOOST_AUTO_TEST_CASE(position_gradient_sums_the_batch) {
  constexpr index batch = 3, length = 5, d = 4;
  const auto dx = normal<double>(batch * length * d, 1),
             start = normal<double>((length + 2) * d, 2);
  auto got = start, want = start;
  for (index b = 0; b < batch; ++b)
    for (index i = 0; i < length * d; ++i) want[at(i)] += dx[at(b * length * d + i)];
  ln::ops::position_backward(ln::ops::execution{}, batch, length, d, dx.data(), got.data());
  BOOST_TEST(distance(got, want) < 1e-14);
}

// Rows of cross-entropy against the definition, for vocabularies around every vector width, with
// ignored rows and with logits up to +-1e4 (exact in float, so that the loss is too).
BOOST_AUTO_TEST_CASE(cross_entropy_equals_the_definition) {
  for (const auto level : levels())
    for (const index vocabulary : {1, 2, 5, 15, 16, 17, 31, 33, 64, 97, 1000})
      for (const double size : {1.0, 4000.0}) {
        constexpr index rows = 4;
        auto logits = normal<float>(rows * vocabulary, 1, size);
        if (size > 1)
          for (float& l : logits) l = std::nearbyint(l);
        auto labels = tokens(rows, vocabulary, 2);
        labels[2] = ln::ignored;
        std::vector<double> want, want_losses;
        for (index i = 0; i < rows; ++i) {
          std::vector<double> row(logits.begin() + i * vocabulary,
                                  logits.begin() + (i + 1) * vocabulary);
          const bool ignored = labels[at(i)] == ln::ignored;
          want_losses.push_back(ignored ? 0 : naive_cross_entropy(row, labels[at(i)]));
          if (ignored) row.assign(row.size(), 0);
          want.insert(want.end(), row.begin(), row.end());
        }
        std::vector<double> losses(rows, 77.0), alone(rows, 77.0);
        auto untouched = logits;
        ln::ops::cross_entropy({{}, level}, rows, vocabulary, labels.data(), untouched.data(),
                               alone.data(), false);
        ln::ops::cross_entropy({{}, level}, rows, vocabulary, labels.data(), logits.data(),
                               losses.data(), true);
        BOOST_TEST(distance(losses, want_losses) < 1e-6 * size);
        BOOST_TEST(distance(logits, want) < 1e-6);
        BOOST_TEST(same_bits(losses, alone));
      }
}

// The z-loss of t5x: the squared logsumexp, weighed.
BOOST_AUTO_TEST_CASE(z_loss) {
  constexpr index rows = 3, vocabulary = 19;
  auto logits = normal<double>(rows * vocabulary, 1, 2);
  const token labels[rows] = {4, ln::ignored, 18};
  std::vector<double> want, want_losses, losses(rows, 77.0);
  for (index i = 0; i < rows; ++i) {
    std::vector<double> row(logits.begin() + i * vocabulary, logits.begin() + (i + 1) * vocabulary);
    want_losses.push_back(i == 1 ? 0 : naive_cross_entropy(row, labels[i], 0.03));
    if (i == 1) row.assign(row.size(), 0);
    want.insert(want.end(), row.begin(), row.end());
  }
  ln::ops::cross_entropy({{}, ln::simd::best()}, rows, vocabulary, labels, logits.data(),
                         losses.data(), true, 0.03);
  BOOST_TEST(distance(losses, want_losses) < 1e-13);
  BOOST_TEST(distance(logits, want) < 1e-14);
}

// Fused head, more rows than one chunk: loss, logits, gradients of y and of the table.
BOOST_AUTO_TEST_CASE(head_equals_unfused) {
  static_assert(ln::ops::head_rows(37) == 128 && ln::ops::head_rows(32128) == 128 &&
                ln::ops::head_rows(1 << 20) == 8);
  check_head<double, storage::f64>(300, 9, 37, true, 1e-12);
  check_head<float, storage::f32>(300, 9, 37, true, 1e-5);
  check_head<float, storage::f32>(3, 5, 1100, true, 1e-5);
  check_head<float, storage::bf16>(130, 9, 37, false, 1e-5);
  check_head<float, storage::int8>(130, 9, 37, false, 1e-5);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::language_test
