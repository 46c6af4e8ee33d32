// SPDX-License-Identifier: MIT
// Universal logit distillation between vocabularies: the definition, gradients, equal models,
// permuted vocabularies, bounds and refusals.

#include "support/data.hpp"
#include "support/resumed.hpp"
#include "support/scoring.hpp"

namespace test::uld_test {

namespace {

constexpr ln::decoder_shape other_shape = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.vocabulary = 7;
  s.layers = 1;
  return s;
}();
using model = ln::decoder<tiny_decoder_shape>;
using other = ln::decoder<other_shape>;
template <class M>
using f64 = ln::packed<M, double>;

template <class Student, class Teacher>
ln::uld<f64<Student>, f64<Teacher>> opened(const f64<Teacher>& p, const ln::limits& l,
                                           double weight) {
  auto made = ln::uld<f64<Student>, f64<Teacher>>::open(p, l, {weight});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return *std::move(made);
}
template <class Student, class Objective>
ln::loss_sum loss_of(const f64<Student>& p, const ln::decoder_batch& b, const ln::limits& l,
                     Objective&& from) {
  auto scores = ln::evaluator<Student, double>::open(p, l);
  return scores->loss(b, from);
}
/// Sorted probabilities of the rows whose labels count, by sequence.
template <class M>
std::vector<std::vector<std::vector<double>>> sorted_rows(const f64<M>& p,
                                                          const ln::decoder_batch& b) {
  const auto logits = logits_of(p, b, {.batch = b.batch, .target = b.length});
  std::vector<std::vector<std::vector<double>>> all(at(b.batch));
  for (index i = 0; i < b.batch * b.length; ++i) {
    if (b.labels[i] == ln::ignored) continue;
    auto& row = all[at(i / b.length)].emplace_back();
    double sum = 0;
    for (const double x : row_of<M>(logits, i)) sum += row.emplace_back(std::exp(x));
    for (double& x : row) x /= sum;
    std::sort(row.rbegin(), row.rend());
    row.resize(20);
  }
  return all;
}

template <class Student, class Teacher>
void check_definition(index length, index other_length) {
  const decoder_tokens data(5, length, Student::vocabulary, 1);
  decoder_tokens taught(5, other_length, Teacher::vocabulary, 2);
  for (index i = 0; i < other_length; ++i) taught.labels[at(4 * other_length + i)] = ln::ignored;
  const auto student = random_packed<Student, double>(1);
  const auto teacher = random_packed<Teacher, double>(2);
  const ln::limits l{.batch = 5, .target = (std::max)(length, other_length)};
  auto from = opened<Student>(teacher, l, 1.5);
  from.teach(taught.view());
  const ln::loss_sum got = loss_of(student, data.view(), l, from);
  const ln::loss_sum plain = loss_of(student, data.view(), l, ln::cross_entropy_objective{});
  const auto q = sorted_rows(student, data.view()), p = sorted_rows(teacher, taught.view());
  double mean = 0;
  for (std::size_t s = 0; s < 4; ++s) {  // the last has no answer of the teacher
    const std::size_t pairs = (std::min)(q[s].size(), p[s].size());
    for (std::size_t t = 0; t < pairs; ++t)
      for (std::size_t j = 0; j < 20; ++j)
        mean += std::abs(q[s][t][j] - p[s][t][j]) / static_cast<double>(4 * pairs);
  }
  BOOST_TEST(mean > 0.05);
  BOOST_TEST(mean < 2);
  BOOST_TEST(got.tokens == plain.tokens);
  BOOST_TEST(distance_of(got.mean(), plain.mean() + 1.5 * mean) < 1e-12);

  ln::weights<Student, double> w;
  randomize(w, 3);
  const auto r = ln::check_model_gradients(w, data.view(), l, {}, 1e-6, 1e-2, from);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(2 * r.nonzero > r.entries);
}

BOOST_AUTO_TEST_SUITE(uld)

BOOST_AUTO_TEST_CASE(equals_the_definition) {
  check_definition<model, other>(5, 4);
  check_definition<other, model>(4, 6);
}

// More rows than a chunk of either head holds, in a team.
BOOST_AUTO_TEST_CASE(chunks_and_threads, *boost::unit_test::label("tsan")) {
  const decoder_tokens data(5, 70, model::vocabulary, 1), taught(5, 90, other::vocabulary, 2);
  const auto student = random_packed<model, double>(1);
  const auto teacher = random_packed<other, double>(2);
  ln::limits l{.batch = 5, .target = 90, .threads = 1, .min_flops_per_thread = 0};
  auto from = opened<model>(teacher, l, 1.5);
  from.teach(taught.view());
  const double got = loss_of(student, data.view(), l, from).mean();
  const auto q = sorted_rows(student, data.view()), p = sorted_rows(teacher, taught.view());
  double want = loss_of(student, data.view(), l, ln::cross_entropy_objective{}).mean();
  for (std::size_t s = 0; s < 5; ++s) {
    const std::size_t pairs = (std::min)(q[s].size(), p[s].size());
    for (std::size_t t = 0; t < pairs; ++t)
      for (std::size_t j = 0; j < 20; ++j)
        want += 1.5 * std::abs(q[s][t][j] - p[s][t][j]) / static_cast<double>(5 * pairs);
  }
  BOOST_TEST(distance_of(got, want) < 1e-12);
  l.threads = 3;
  l.run_on = std_threads();
  auto shared = opened<model>(teacher, l, 1.5);
  shared.teach(taught.view());
  BOOST_TEST(loss_of(student, data.view(), l, shared).mean() == got);
}

BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  const decoder_tokens data(3, 5, model::vocabulary, 1), taught(3, 5, other::vocabulary, 2);
  const auto teacher = random_packed<other, double>(2);
  ln::weights<model, double> w;
  randomize(w);
  check_resumed(w, data, [&](const ln::limits& l) {
    auto from = opened<model>(teacher, l, 1.5);
    from.teach(taught.view());
    return from;
  });
}

// A teacher that is the student, and one whose tokens have other names, teach nothing.
BOOST_AUTO_TEST_CASE(names_of_tokens_do_not_matter) {
  const decoder_tokens data(3, 5, model::vocabulary, 1);
  const auto l = data.limits();
  ln::weights<model, double> w, permuted;
  randomize(w, 1);
  randomize(permuted, 1);
  const auto p = ln::pack(w);
  auto own = opened<model>(p, l, 1e3);
  own.teach(data.view());
  const double plain = loss_of(p, data.view(), l, ln::cross_entropy_objective{}).nats;
  BOOST_TEST(loss_of(p, data.view(), l, own).nats == plain);
  constexpr index d = model::shape.d_model, v = model::vocabulary;
  const auto renamed = [](index t) { return (3 * t + 2) % v; };
  for (index t = 0; t < v; ++t)
    for (index j = 0; j < d; ++j)
      permuted.tree().embedding.data[renamed(t) * d + j] = w.tree().embedding.data[t * d + j];
  auto inputs = data.inputs;
  for (token& t : inputs) t = static_cast<token>(renamed(t));
  const auto q = ln::pack(permuted);
  auto from = opened<model>(q, l, 1e3);
  from.teach({inputs.data(), data.labels.data(), 3, 5});
  BOOST_TEST(distance_of(loss_of(p, data.view(), l, from).nats, plain) < 1e-9);
  from.teach(data.view());  // under the wrong names
  BOOST_TEST(loss_of(p, data.view(), l, from).nats > plain + 1);
}

/// A decoder whose layers compute nothing: logits are those of a token's embedding.
template <class M>
ln::packed<M, double> of_embedding(const std::vector<double>& table) {
  ln::weights<M, double> w;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    std::fill_n(values_of(leaf), info.size(), info.kind == ln::role::scale ? 1.0 : 0.0);
  });
  BOOST_REQUIRE(std::ssize(table) == M::vocabulary * M::d);
  std::copy(table.begin(), table.end(), w.tree().embedding.data);
  return ln::pack(w);
}
// The losses that TRL makes of the same logits, see tests/reference/make_distillation.py; also
// those of GKD by `distillation`, which counts tau^2 times.
BOOST_AUTO_TEST_CASE(golden_values_of_trl) {
  const auto c = golden_tensors("distillation/trl");
  const auto ids = [&](const char* name) {
    const auto& values = c.at(name);
    std::vector<token> all;
    for (const double x : values) all.push_back(x < 0 ? ln::ignored : static_cast<token>(x));
    return all;
  };
  const auto inputs = ids("tokens"), labels = ids("labels"), other_inputs = ids("other_tokens"),
             other_labels = ids("other_labels");
  const ln::decoder_batch b{inputs.data(), labels.data(), 3, 6},
      taught{other_inputs.data(), other_labels.data(), 3, 5};
  const ln::limits l{.batch = 3, .target = 6};
  const auto student = of_embedding<model>(c.at("student"));
  const auto teacher = of_embedding<model>(c.at("teacher"));
  const auto with_seven = of_embedding<other>(c.at("other"));
  auto from = opened<model>(with_seven, l, 1.5);
  from.teach(taught);
  const double plain = loss_of(student, b, l, ln::cross_entropy_objective{}).mean();
  BOOST_TEST(distance_of(loss_of(student, b, l, from).mean() - plain, c.at("uld")[0]) < 1e-12);
  for (std::size_t t = 0; t < 2; ++t)
    for (std::size_t n = 0; n < 4; ++n) {
      const double tau = c.at("temperatures")[t];
      auto gkd = ln::distillation<f64<model>, f64<model>>::open(teacher, l,
                                                                {.alpha = 0,
                                                                 .temperature = tau,
                                                                 .divergence = ln::divergence::jsd,
                                                                 .beta = c.at("betas")[n]});
      const double got = loss_of(student, b, l, *gkd).mean();
      BOOST_TEST(distance_of(got / (tau * tau), c.at("gkd")[4 * t + n]) < 1e-12);
    }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const decoder_tokens data(3, 5, model::vocabulary, 1), taught(2, 5, other::vocabulary, 2),
      fitting(3, 5, other::vocabulary, 2);
  const auto student = random_packed<model, double>(1);
  const auto teacher = random_packed<other, double>(2);
  const auto l = data.limits();
  const auto refused = ln::uld<f64<model>, f64<other>>::open(teacher, l, {-1});
  BOOST_TEST(refused.error().message() ==
             "uld::open: uld_options.weight: expected at least 0, finite (0 leaves the "
             "cross-entropy), got -1");
  auto from = opened<model>(teacher, l, 1.5);
  auto scores = ln::evaluator<model, double>::open(student, l);
  const auto says = [&](const ln::decoder_batch& b, ln::refusal want) {
    const bool computed = ln::is_finite(scores->loss(b, from).nats);
    BOOST_TEST(computed == (want == ln::refusal::none));
    BOOST_TEST(scores->last_refusal() == ln::to_string(want));
  };
  says(data.view(), ln::refusal::not_taught);
  from.teach(taught.view());
  says(data.view(), ln::refusal::taught_sequences);
  // What was taught is of one batch, however often that comes.
  const decoder_tokens next(3, 5, model::vocabulary, 3);
  auto other_labels = data, other_inputs = data;
  other_labels.labels = next.labels;
  other_inputs.inputs = next.inputs;
  from.teach(fitting.view());
  says(data.view(), ln::refusal::none);
  says(data.view(), ln::refusal::none);
  for (const decoder_tokens& b : {next, other_labels, other_inputs})
    says(b.view(), ln::refusal::not_taught);
  from.teach(fitting.view());
  says(next.view(), ln::refusal::none);
  const decoder_tokens longer(3, 6, other::vocabulary, 2);
  from.teach(longer.view());
  says(next.view(), ln::refusal::over_target);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::uld_test
