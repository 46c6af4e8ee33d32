// SPDX-License-Identifier: MIT
// The loss of distillation against its definition in double, at every level.

#include "support/test.hpp"

namespace test::distillation_test {

namespace {

using row = std::vector<double>;

row softmax(row l, double temperature = 1) {
  const double largest = *std::max_element(l.begin(), l.end());
  double sum = 0;
  for (double& x : l) sum += x = std::exp((x - largest) / temperature);
  for (double& x : l) x /= sum;
  return l;
}
/// -sum p log q
double cross(const row& p, const row& q) {
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum -= p[i] > 0 ? p[i] * std::log(q[i]) : 0;
  return sum;
}

/// D(p, q) by its definition.
double divergence_of(const ln::distillation_options& how, const row& p, const row& q) {
  const auto kl = [](const row& a, const row& b) { return cross(a, b) - cross(a, a); };
  const double beta = how.beta;
  row m(p.size());
  for (std::size_t j = 0; j < p.size(); ++j) m[j] = beta * p[j] + (1 - beta) * q[j];
  double variation = 0;
  for (std::size_t j = 0; j < p.size(); ++j) variation += std::abs(p[j] - q[j]) / 2;
  switch (how.divergence) {
    case ln::divergence::cross_entropy:
      return cross(p, q);
    case ln::divergence::kl:
      return kl(p, q);
    case ln::divergence::reverse_kl:
      return kl(q, p);
    case ln::divergence::total_variation:
      return variation;
    case ln::divergence::jsd_teacher:
      return beta * kl(p, m);
    case ln::divergence::jsd_student:
      return (1 - beta) * kl(q, m);
    case ln::divergence::jsd:
      break;
  }
  return beta == 0 ? kl(p, q) : beta == 1 ? kl(q, p) : beta * kl(p, m) + (1 - beta) * kl(q, m);
}
constexpr ln::divergence all_divergences[] = {
    ln::divergence::cross_entropy,   ln::divergence::kl,
    ln::divergence::reverse_kl,      ln::divergence::jsd,
    ln::divergence::total_variation, ln::divergence::jsd_teacher,
    ln::divergence::jsd_student};

/// Rows of a student's and of some teachers' logits, and what distil() makes of them.
template <class T>
struct call {
  index rows, vocabulary;
  std::vector<T> student;
  std::vector<std::vector<T>> teachers;
  std::vector<token> labels;
  ln::distillation_options how;
  double z_loss = 0;

  call(index rows_, index vocabulary_, std::size_t count, const ln::distillation_options& how_,
       double size = 2)
      : rows(rows_), vocabulary(vocabulary_), how(how_) {
    student = normal<T>(rows * vocabulary, 1, size);
    for (std::size_t t = 0; t < count; ++t)
      teachers.push_back(normal<T>(rows * vocabulary, 2 + t, size));
    labels = tokens(rows, vocabulary, 3);
    if (rows > 2) labels[2] = ln::ignored;
  }
  struct outcome {
    std::vector<double> losses;
    std::vector<T> gradient;
  };
  outcome run(ln::simd::level level, bool gradient = true, int threads = 1) const {
    outcome o{std::vector<double>(at(rows), 77.0), student};
    std::vector<T> scratch(at(ln::ops::distil_scratch<T>(vocabulary, threads)));
    std::vector<std::vector<const T*>> given(at(threads));  // to each thread
    on_machine(threads, level, [&](const ln::ops::execution& on) {
      const ln::ops::packed_matrix<T, ln::storage::f64> no_table{};
      ln::ops::head_call<T, ln::storage::f64> h{
          rows,           0, vocabulary, nullptr, no_table, T(1), labels.data(), o.gradient.data(),
          o.losses.data()};
      T d_hidden{};  // that it is there asks for gradients
      h.dy = gradient ? &d_hidden : nullptr;
      h.z_loss = z_loss;
      ln::ops::distil(on, h, 0, rows, how, static_cast<index>(teachers.size()), scratch.data(),
                      [&](index t, index i, T* to) {
                        given[at(on.threads.rank())].push_back(to);
                        std::copy_n(teachers[at(t)].data() + i * vocabulary, vocabulary, to);
                        return how.shares[at(t)];
                      });
    });
    // Seldom do threads meet in memory that they share by mistake, so it is looked at.
    for (std::size_t a = 0; a < given.size(); ++a)
      for (std::size_t b = 0; b < a; ++b)
        for (const T* const mine : given[a])
          for (const T* const other : given[b])
            BOOST_REQUIRE(mine + vocabulary <= other || other + vocabulary <= mine);
    return o;
  }
  static row part(const std::vector<T>& from, index i, index n) {
    return row(from.begin() + i * n, from.begin() + (i + 1) * n);
  }
  row target(index i) const {
    row p(at(vocabulary));
    for (std::size_t t = 0; t < teachers.size(); ++t) {
      const row q = softmax(part(teachers[t], i, vocabulary), how.temperature);
      for (std::size_t j = 0; j < p.size(); ++j) p[j] += how.shares[t] * q[j];
    }
    return p;
  }
  /// The fusion of the teachers by its definition.
  row fused(index i) const {
    if (how.fusion != ln::fusion::logits) return target(i);
    row mean(at(vocabulary));
    for (std::size_t t = 0; t < teachers.size(); ++t)
      for (index j = 0; j < vocabulary; ++j)
        mean[at(j)] += how.shares[t] * static_cast<double>(teachers[t][at(i * vocabulary + j)]);
    return softmax(mean, how.temperature);
  }
  /// The whole loss of a row with these logits, by definitions.
  double defined(index i, const row& logits) const {
    const row p = fused(i), q = softmax(logits, how.temperature);
    const double tau = how.temperature, c = how.entropy_weight;
    const double h = vocabulary > 1 ? cross(p, p) / std::log(static_cast<double>(vocabulary)) : 0;
    const double weight = c >= 0 ? 1 - c + c * h : 1 + c * h;
    return how.alpha * -std::log(softmax(logits)[at(labels[at(i)])]) +
           (1 - how.alpha) * weight * tau * tau * divergence_of(how, p, q);
  }
  /// Loss by the definition, gradient by central differences of the definition.
  void expect_defined(double tolerance) const {
    std::vector<double> losses, slopes;
    for (index i = 0; i < rows; ++i) {
      const bool counts = labels[at(i)] != ln::ignored;
      const row l = part(student, i, vocabulary);
      losses.push_back(counts ? defined(i, l) : 0);
      for (index j = 0; j < vocabulary; ++j) {
        row up = l, down = l;
        up[at(j)] += 1e-5;
        down[at(j)] -= 1e-5;
        slopes.push_back(counts ? (defined(i, up) - defined(i, down)) / 2e-5 : 0);
      }
    }
    for (const auto level : levels()) {
      const outcome got = run(level), shared = run(level, true, 3);
      BOOST_TEST(distance(got.losses, losses) <= tolerance);
      BOOST_TEST(distance(got.gradient, slopes) <= (std::max)(tolerance, 1e-8));
      BOOST_TEST(same_bits(got.losses, run(level, false).losses));
      BOOST_TEST(same_bits(got.losses, shared.losses));
      BOOST_TEST(same_bits(got.gradient, shared.gradient));
    }
  }
  /// By the equations.
  void expect(double tolerance) const {
    std::vector<double> want_losses, want;
    for (index i = 0; i < rows; ++i) {
      const token label = labels[at(i)];
      const row l = part(student, i, vocabulary), p = softmax(l),
                soft = softmax(l, how.temperature), teacher = target(i);
      double lse = 0;
      for (const double x : l) lse += std::exp(x - l[0]);
      lse = std::log(lse) + l[0];
      const bool counts = label != ln::ignored;
      const double t = how.temperature, a = how.alpha;
      want_losses.push_back(counts ? a * (lse - l[at(label)] + z_loss * lse * lse) +
                                         (1 - a) * t * t * cross(teacher, soft)
                                   : 0);
      for (index j = 0; j < vocabulary; ++j)
        want.push_back(counts ? a * ((1 + 2 * z_loss * lse) * p[at(j)] - (j == label)) +
                                    (1 - a) * t * (soft[at(j)] - teacher[at(j)])
                              : 0);
    }
    for (const auto level : levels()) {
      const outcome got = run(level), alone = run(level, false);
      BOOST_TEST(distance(got.losses, want_losses) <= tolerance);
      BOOST_TEST(distance(got.gradient, want) <= tolerance);
      BOOST_TEST(same_bits(got.losses, alone.losses));
      const outcome shared = run(level, true, 3);
      BOOST_TEST(same_bits(got.losses, shared.losses));
      BOOST_TEST(same_bits(got.gradient, shared.gradient));
    }
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(distillation)

// Value and gradient by the equations, for vocabularies around every vector width, with one teacher
// and with a mixture of two, with ignored rows and the z-loss.
BOOST_AUTO_TEST_CASE(equals_the_definition) {
  for (const index vocabulary : {1, 2, 5, 15, 16, 17, 33, 97}) {
    for (const double temperature : {0.5, 1.0, 3.0}) {
      call<double>(4, vocabulary, 1, {.alpha = 0.3, .temperature = temperature}).expect(1e-13);
      call<float>(4, vocabulary, 1, {.alpha = 0.3, .temperature = temperature}).expect(2e-5);
    }
    call<double> two(4, vocabulary, 2, {.alpha = 0.1, .temperature = 2, .shares = {0.25, 0.75}});
    two.z_loss = 0.03;
    two.expect(1e-13);
    call<double>(4, vocabulary, 1, {.alpha = 0, .temperature = 2}).expect(1e-13);
  }
}

// A large vocabulary in float, and logits far from zero.
BOOST_AUTO_TEST_CASE(large_rows) {
  call<float>(2, 5000, 2, {.alpha = 0.1, .temperature = 4, .shares = {0.5, 0.5}}).expect(5e-5);
  call<float> far(4, 40, 1, {.alpha = 0.5, .temperature = 2});
  for (float& l : far.student) l = std::nearbyint(l) + 1000;
  for (float& l : far.teachers[0]) l -= 1000;
  far.expect(3e-3);  // of losses near 10 made of logits near 1000, in units of tau^2 = 4
}

// With alpha = 1 only the labels count: the bits are cross_entropy()'s.
BOOST_AUTO_TEST_CASE(alpha_one_is_cross_entropy) {
  for (const auto level : levels()) {
    call<float> c(4, 37, 1, {.alpha = 1, .temperature = 3});
    c.z_loss = 1e-2;
    const auto got = c.run(level);
    auto want = c.student;
    std::vector<double> losses(4);
    ln::ops::cross_entropy({{}, level}, 4, 37, c.labels.data(), want.data(), losses.data(), true,
                           1e-2);
    BOOST_TEST(same_bits(got.losses, losses));
    BOOST_TEST(same_bits(got.gradient, want));
  }
}

// A student whose logits are its teacher's gets exactly no gradient from it, and a loss of tau^2
// times the teacher's entropy: cross-entropy is KL plus entropy.
BOOST_AUTO_TEST_CASE(teacher_equals_student) {
  for (const auto level : levels())
    for (const double temperature : {1.0, 3.0}) {
      call<float> c(4, 37, 1, {.alpha = 0, .temperature = temperature});
      c.teachers[0] = c.student;
      BOOST_TEST(magnitude(c.run(level).gradient) == 0);
      call<double> d(4, 37, 1, {.alpha = 0, .temperature = temperature});
      const auto other = d.run(level);
      auto equal = d;
      equal.student = d.teachers[0];
      const auto same = equal.run(level);
      for (index i = 0; i < 4; ++i) {
        if (d.labels[at(i)] == ln::ignored) continue;
        const row p = d.target(i);
        const row s = softmax(d.part(d.student, i, 37), temperature);
        double kl = 0;
        for (std::size_t j = 0; j < p.size(); ++j) kl += p[j] * std::log(p[j] / s[j]);
        const double square = temperature * temperature;
        BOOST_TEST(distance_of(same.losses[at(i)], square * cross(p, p)) < 1e-13);
        BOOST_TEST(distance_of(other.losses[at(i)], square * kl + same.losses[at(i)]) < 1e-12);
        BOOST_TEST(kl > 0.1);
      }
    }
}

// At temperature 1 a teacher that is sure of the labels is the hard loss.
BOOST_AUTO_TEST_CASE(sure_teacher_is_the_label) {
  for (const auto level : levels()) {
    call<double> c(4, 37, 1, {.alpha = 0, .temperature = 1});
    std::fill(c.teachers[0].begin(), c.teachers[0].end(), -1e4);
    for (index i = 0; i < 4; ++i)
      if (c.labels[at(i)] != ln::ignored) c.teachers[0][at(i * 37 + c.labels[at(i)])] = 5;
    const auto got = c.run(level);
    auto want = c.student;
    std::vector<double> losses(4);
    ln::ops::cross_entropy({{}, level}, 4, 37, c.labels.data(), want.data(), losses.data(), true);
    BOOST_TEST(distance(got.losses, losses) < 1e-13);
    BOOST_TEST(distance(got.gradient, want) < 1e-15);
  }
}

// Two equal teachers are one, to the bit where their shares are halves.
BOOST_AUTO_TEST_CASE(equal_teachers_are_one) {
  for (const auto level : levels()) {
    call<float> one(4, 37, 1, {.alpha = 0.2, .temperature = 2});
    auto two = one;
    two.teachers.push_back(one.teachers[0]);
    two.how.shares = {0.5, 0.5};
    BOOST_TEST(same_bits(one.run(level).losses, two.run(level).losses));
    BOOST_TEST(same_bits(one.run(level).gradient, two.run(level).gradient));
  }
}

// Value and gradient of each divergence, with one teacher and with fusions of two, with tokens
// weighted by entropy either way.
BOOST_AUTO_TEST_CASE(divergences) {
  for (const auto kind : all_divergences)
    for (const index vocabulary : {1, 5, 17, 33}) {
      call<double>(4, vocabulary, 1,
                   {.alpha = 0.3, .temperature = 2, .divergence = kind, .beta = 0.3})
          .expect_defined(1e-12);
      call<float>(4, vocabulary, 1, {.alpha = 0, .temperature = 1, .divergence = kind, .beta = 0.7})
          .expect_defined(2e-5);
      for (const auto how : {ln::fusion::probabilities, ln::fusion::logits})
        call<double>(4, vocabulary, 2,
                     {.alpha = 0.1,
                      .temperature = 2,
                      .shares = {0.25, 0.75},
                      .divergence = kind,
                      .fusion = how,
                      .entropy_weight = 0.4})
            .expect_defined(1e-12);
      call<double>(4, vocabulary, 1,
                   {.alpha = 0, .temperature = 3, .divergence = kind, .entropy_weight = -1})
          .expect_defined(1e-12);
    }
  for (const double beta : {0.0, 1.0})
    for (const auto kind :
         {ln::divergence::jsd, ln::divergence::jsd_teacher, ln::divergence::jsd_student})
      call<double>(4, 17, 1, {.divergence = kind, .beta = beta}).expect_defined(1e-12);
}

// Equal logits: exactly no loss and no gradient, of each divergence but the cross-entropy, which
// keeps the teacher's entropy.
BOOST_AUTO_TEST_CASE(equal_logits_have_no_divergence) {
  for (const auto level : levels())
    for (const auto kind : all_divergences) {
      call<float> c(4, 37, 1, {.alpha = 0, .temperature = 2, .divergence = kind, .beta = 0.3});
      c.teachers[0] = c.student;
      const auto got = c.run(level);
      BOOST_TEST(magnitude(got.gradient) == 0);
      BOOST_TEST((magnitude(got.losses) == 0) == (kind != ln::divergence::cross_entropy));
    }
}

// The ends of beta: the bits of kl and reverse_kl at 0 and 1. Inside, JSD over beta, and over
// 1 - beta, tends to them linearly.
BOOST_AUTO_TEST_CASE(ends_of_beta) {
  const auto of = [](ln::divergence kind, double beta) {
    return call<double>(4, 33, 1, {.alpha = 0, .temperature = 2, .divergence = kind, .beta = beta})
        .run(levels().back());
  };
  const auto kl = of(ln::divergence::kl, 0.5), reverse = of(ln::divergence::reverse_kl, 0.5);
  for (const auto& [end, beta] : {std::pair{&kl, 0.0}, {&reverse, 1.0}}) {
    BOOST_TEST(same_bits(of(ln::divergence::jsd, beta).losses, end->losses));
    BOOST_TEST(same_bits(of(ln::divergence::jsd, beta).gradient, end->gradient));
    double before = 0;
    for (const double off : {1e-3, 1e-4, 1e-5}) {
      auto near = of(ln::divergence::jsd, beta == 0 ? off : 1 - off);
      for (double& x : near.losses) x /= off;
      for (double& x : near.gradient) x /= off;
      const double now =
          distance(near.losses, end->losses) + distance(near.gradient, end->gradient);
      BOOST_TEST(now > 0);
      if (before > 0) BOOST_TEST(distance_of(now / before, 0.1) < 0.01);
      before = now;
    }
  }
}

// Two tokens, in closed form: teacher (3/4, 1/4), student (1/2, 1/2).
BOOST_AUTO_TEST_CASE(two_tokens) {
  const double l2 = std::log(2.0), l3 = std::log(3.0);
  const std::pair<ln::divergence, double> want[] = {
      {ln::divergence::cross_entropy, l2},
      {ln::divergence::kl, 0.75 * l3 - l2},
      {ln::divergence::reverse_kl, l2 - 0.5 * l3},
      {ln::divergence::jsd, 0.5 * (0.75 * std::log(6.0 / 5) + 0.25 * std::log(2.0 / 3) +
                                   0.5 * std::log(4.0 / 5) + 0.5 * std::log(4.0 / 3))},
      {ln::divergence::total_variation, 0.25},
      {ln::divergence::jsd_teacher, 0.5 * (0.75 * std::log(6.0 / 5) + 0.25 * std::log(2.0 / 3))},
      {ln::divergence::jsd_student, 0.25 * (std::log(4.0 / 5) + std::log(4.0 / 3))}};
  for (const auto level : levels())
    for (const auto& [kind, value] : want) {
      call<double> c(1, 2, 1, {.alpha = 0, .temperature = 1, .divergence = kind});
      c.student = {5, 5};
      c.teachers[0] = {l3 - 1, -1};
      BOOST_TEST(distance_of(c.run(level).losses[0], value) < 1e-14);
    }
}

// Pinsker: total variation is at most sqrt(KL / 2), either way round.
BOOST_AUTO_TEST_CASE(total_variation_is_below_the_root_of_kl) {
  for (const double size : {0.01, 0.3, 2.0, 8.0}) {
    const auto of = [&](ln::divergence kind) {
      return call<double>(20, 33, 1, {.alpha = 0, .temperature = 1, .divergence = kind}, size)
          .run(levels().back())
          .losses;
    };
    const auto tv = of(ln::divergence::total_variation), kl = of(ln::divergence::kl),
               reverse = of(ln::divergence::reverse_kl);
    for (std::size_t i = 0; i < tv.size(); ++i) {
      BOOST_TEST(tv[i] <= std::sqrt(kl[i] / 2));
      BOOST_TEST(tv[i] <= std::sqrt(reverse[i] / 2));
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::distillation_test
