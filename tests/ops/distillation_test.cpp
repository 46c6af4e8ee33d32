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

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::distillation_test
