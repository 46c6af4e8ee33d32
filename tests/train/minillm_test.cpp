// SPDX-License-Identifier: MIT
// MiniLLM: all texts of two tokens of three are enumerated, so the mean of its gradient is held
// against the gradient of the KL divergence of whole texts. SPIN beside its definition.

#include "support/resumed.hpp"
#include "support/scoring.hpp"

namespace test::minillm_test {

namespace {

constexpr ln::decoder_shape shape{
    .d_model = 4, .d_ff = 6, .heads = 1, .kv_heads = 1, .layers = 1, .vocabulary = 3, .context = 6};
using model = ln::decoder<shape>;
using packed = ln::packed<model, double>;
using weights = ln::weights<model, double>;
using objective = ln::minillm<packed, packed>;
using row = std::vector<double>;
constexpr index v = 3;
constexpr token prompt = 1;

weights random_weights(std::uint64_t seed) {
  weights w;
  randomize(w, seed);
  return w;
}
objective opened(const packed& student, const packed& teacher, const ln::limits& l,
                 const ln::minillm_options& how) {
  auto made = objective::open(student, teacher, l, how);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return *std::move(made);
}
/// Log-probabilities behind each token of texts.
std::vector<row> log_probabilities(const packed& p, const ln::decoder_batch& b) {
  const auto logits = logits_of(p, b, {.batch = b.batch, .target = b.length});
  std::vector<row> all;
  for (index i = 0; i < b.batch * b.length; ++i) {
    const auto l = row_of<model>(logits, i);
    double sum = 0;
    for (const double x : l) sum += std::exp(x);
    row& one = all.emplace_back();
    for (const double x : l) one.push_back(x - std::log(sum));
  }
  return all;
}

/// The text a b behind the prompt.
struct text {
  token inputs[2], labels[2];
  text(token a, token b) : inputs{prompt, a}, labels{a, b} {}
  ln::decoder_batch view() const { return {inputs, labels, 1, 2}; }
  /// Sum of log probabilities of both tokens.
  double log_of(const packed& p, const packed* mixed = nullptr, double alpha = 0) const {
    const auto q = log_probabilities(p, view());
    const auto other = mixed ? log_probabilities(*mixed, view()) : q;
    double sum = 0;
    for (std::size_t i = 0; i < 2; ++i)
      sum += std::log((1 - alpha) * std::exp(q[i][at(labels[i])]) +
                      alpha * std::exp(other[i][at(labels[i])]));
    return sum;
  }
};
template <class F>
void each_text(F&& f) {
  for (token a = 0; a < v; ++a)
    for (token b = 0; b < v; ++b) f(text(a, b));
}

/// The gradient of KL(q || p) of texts, by central differences.
row exact_gradient(weights& w, const packed& teacher) {
  const auto kl = [&] {
    const auto student = ln::pack(w);
    double sum = 0;
    each_text([&](const text& y) {
      const double q = y.log_of(student);
      sum += std::exp(q) * (q - y.log_of(teacher));
    });
    return sum;
  };
  row all;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    double* data = nullptr;
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      data = leaf;
    else
      data = leaf.data;
    for (index i = 0; i < info.size(); ++i) {
      const double kept = data[i];
      data[i] = kept + 1e-5;
      const double up = kl();
      data[i] = kept - 1e-5;
      const double down = kl();
      data[i] = kept;
      all.push_back((up - down) / 2e-5);
    }
  });
  return all;
}
/// The mean of the objective's gradient over all texts, by the probability of drawing each.
row mean_gradient(weights& w, const packed& teacher, const ln::minillm_options& how) {
  const auto student = ln::pack(w);
  row all(at(model::parameters()));
  each_text([&](const text& y) {
    const double drawn = std::exp(y.log_of(student, &teacher, how.mixture));
    auto from = opened(student, teacher, {.target = 2}, how);
    auto train = ln::trainer<model, ln::adamw, double>::open(w, {.target = 2});
    BOOST_REQUIRE(ln::is_finite(train->accumulate(from.adopt(y.view()), from).nats));
    std::size_t n = 0;
    train->gradient().visit(
        [&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
          for (index i = 0; i < info.size(); ++i) all[n++] += drawn * leaf[i];
        });
  });
  return all;
}

/// Trainers with a z-loss or early exits refuse the objective in words.
template <class Objective>
void check_plain_logits(const ln::decoder_batch& b, const ln::limits& l, Objective& from) {
  const std::pair<ln::training_options, ln::refusal> beside[] = {
      {{.z_loss = 1e-4}, ln::refusal::objective_z_loss},
      {{.early_exits = {.scale = 0.5}}, ln::refusal::objective_exits}};
  for (const auto& [how, why] : beside) {
    auto w = random_weights(1);
    auto train = ln::trainer<model, ln::adamw, double>::open(w, l, {}, how);
    BOOST_REQUIRE(static_cast<bool>(train));
    BOOST_TEST(!ln::is_finite(train->step(b, from)));
    BOOST_TEST(train->last_refusal() == ln::to_string(why));
  }
}
const packed& first_student() {
  static const packed p = ln::pack(random_weights(1));
  return p;
}
const packed& second_student() {
  static const packed p = ln::pack(random_weights(5));
  return p;
}

BOOST_AUTO_TEST_SUITE(minillm)

// With weights of prefixes the mean gradient is the exact one, for any mixture; with those of
// single tokens only without a mixture. Without the single step a part is missing.
BOOST_AUTO_TEST_CASE(mean_gradient_is_that_of_kl) {
  auto w = random_weights(1);
  const auto teacher = ln::pack(random_weights(2));
  const row want = exact_gradient(w, teacher);
  BOOST_TEST(magnitude(want) > 0.05);
  for (const double mixture : {0.0, 0.2, 0.7}) {
    auto how = ln::unbiased_minillm;
    how.mixture = mixture;
    BOOST_TEST(distance(mean_gradient(w, teacher, how), want) < 1e-9);
    how.prefix_weights = false;
    const double off = distance(mean_gradient(w, teacher, how), want);
    if (mixture == 0)
      BOOST_TEST(off < 1e-9);
    else
      BOOST_TEST(off > 1e-3);
    how.single_step = 0;
    BOOST_TEST(distance(mean_gradient(w, teacher, how), want) > 1e-2);
    // Without the single step its part is in the return of a token itself.
    how.own_reward = how.prefix_weights = true;
    BOOST_TEST(distance(mean_gradient(w, teacher, how), want) < 1e-9);
  }
}

// The loss as the published code has it, from all log-probabilities at once.
BOOST_AUTO_TEST_CASE(equals_the_definition) {
  constexpr index count = 2, length = 4;
  const auto student = ln::pack(random_weights(1)), teacher = ln::pack(random_weights(2));
  const auto inputs = tokens(count * length, v, 5);
  std::vector<token> labels = tokens(count * length, v, 6);
  for (index s = 0; s < count; ++s)
    for (index i = 0; i + 1 < length; ++i)
      labels[at(s * length + i)] = inputs[at(s * length + i + 1)];
  labels[0] = labels[7] = ln::ignored;  // a longer prompt, and a text that ends
  const ln::decoder_batch b{inputs.data(), labels.data(), count, length};
  const ln::limits l{.batch = count, .target = length};
  const ln::minillm_options how{};
  auto from = opened(student, teacher, l, how);
  auto scores = ln::evaluator<model, double>::open(student, l);
  const auto adopted = from.adopt(b);
  BOOST_TEST(std::equal(adopted.labels, adopted.labels + 8, labels.begin()));
  const ln::loss_sum got = scores->loss(adopted, from);

  const auto q = log_probabilities(student, b), p = log_probabilities(teacher, b);
  row returns, ratios, steps;
  for (index s = 0; s < count; ++s) {
    for (index i = 0; i < length; ++i) {
      const auto k = at(s * length + i);
      if (labels[k] == ln::ignored) continue;
      double later = 0, left = 0;
      for (index j = i; j < length; ++j) {
        const auto m = at(s * length + j);
        if (labels[m] == ln::ignored) continue;
        later += std::pow(0.95, static_cast<double>(j - i)) *
                 (p[m][at(labels[m])] - q[m][at(labels[m])]) / 0.5;
        ++left;
      }
      returns.push_back(later / left);
      const double of_q = std::exp(q[k][at(labels[k])]), of_p = std::exp(p[k][at(labels[k])]);
      ratios.push_back(of_q / (0.8 * of_q + 0.2 * of_p));
      double kl = 0;
      for (std::size_t t = 0; t < at(v); ++t) kl += std::exp(q[k][t]) * (q[k][t] - p[k][t]);
      steps.push_back(kl);
    }
  }
  double mean = 0, square = 0, want = 0;
  for (const double r : returns) mean += r / 6;
  for (const double r : returns) square += (r - mean) * (r - mean) / 6;
  for (std::size_t i = 0; i < 6; ++i) {
    const double a = (returns[i] - mean) / std::sqrt(square + 1e-8), ratio = ratios[i];
    const double near = ratio < 0.8 ? 0.8 : ratio > 1.2 ? 1.2 : ratio;
    want += (std::max)(-ratio * a, -near * a) + steps[i];
  }
  BOOST_REQUIRE(returns.size() == 6U);
  BOOST_TEST(got.tokens == 6);
  BOOST_TEST(distance_of(got.nats, want) < 1e-11);
}

// Loss and gradient at weights that are no longer those that wrote: some ratios are clipped.
BOOST_AUTO_TEST_CASE(gradients_behind_the_rollout) {
  const decoder_tokens data(4, 5, v);
  const auto student = ln::pack(random_weights(1)), teacher = ln::pack(random_weights(2));
  for (const double clip : {0.0, 0.2}) {
    auto from = opened(student, teacher, data.limits(), {.clip = clip, .seed = 3});
    const auto b = from.write(0, data.view());
    BOOST_REQUIRE(b.batch == 4);
    auto w = random_weights(1);
    w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
        for (index i = 0; i < info.size(); ++i) leaf[i] *= 1.3;
      else
        for (index i = 0; i < info.size(); ++i) leaf.data[i] *= 1.3;
    });
    const auto r = ln::check_model_gradients(w, b, data.limits(), {}, 1e-5, 0, from);
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(2 * r.nonzero > r.entries);
  }
}

// The student comes nearer to its teacher; a run that is interrupted goes on with the same bits, on
// any number of threads.
BOOST_AUTO_TEST_CASE(learns, *boost::unit_test::label("tsan")) {
  using trainer = ln::trainer<model, ln::adamw, double>;
  const decoder_tokens data(8, 5, v);
  const auto teacher = ln::pack(random_weights(2));
  const ln::adamw by{ln::schedule::constant(1e-2)};
  const auto run = [&](trainer& train, index last, int threads) {
    auto l = data.limits(threads);
    if (threads > 1) l.run_on = std_threads();
    auto from = opened(train.current(), teacher, l, {.seed = 4});
    while (train.steps() < last) {
      const auto b = from.write(train.steps(), data.view());
      (void)train.step(b, from);
      (void)train.step(b, from);
    }
  };
  const auto divergence = [&](const weights& w) {
    const auto q = ln::pack(w);
    auto scores = ln::evaluator<model, double>::open(q, data.limits());
    auto kl = ln::distillation<packed, packed>::open(
        teacher, data.limits(),
        {.alpha = 0, .temperature = 1, .divergence = ln::divergence::reverse_kl});
    return scores->loss(data.view(), *kl).mean();
  };
  auto once = random_weights(1), twice = random_weights(1), rest = random_weights(3);
  const double before = divergence(once);
  auto whole = trainer::open(once, data.limits(3), by);
  run(*whole, 60, 3);
  BOOST_TEST(before > 0.02);
  BOOST_TEST(divergence(once) < 0.3 * before);
  auto begun = trainer::open(twice, data.limits(), by);
  run(*begun, 20, 1);
  auto resumed = trainer::open(rest, data.limits(), by);
  std::vector<std::vector<std::byte>> blocks;
  begun->visit_state([&](std::string_view, std::span<std::byte> bytes) {
    blocks.emplace_back(bytes.begin(), bytes.end());
  });
  std::size_t n = 0;
  resumed->visit_state([&](std::string_view, std::span<std::byte> bytes) {
    std::copy(blocks[n].begin(), blocks[n].end(), bytes.begin());
    ++n;
  });
  BOOST_REQUIRE(static_cast<bool>(resumed->resume(begun->progress())));
  run(*resumed, 60, 1);
  BOOST_TEST(same_bytes(rest, once));
}

BOOST_AUTO_TEST_CASE(refusals) {
  const decoder_tokens data(2, 4, v);
  const auto p = ln::pack(random_weights(1));
  const auto why = [&](const ln::minillm_options& how) {
    const auto made = objective::open(p, p, data.limits(), how);
    return made ? "" : made.error().message();
  };
  BOOST_TEST(why({}) == "");
  BOOST_TEST(why({.mixture = 1}) ==
             "minillm::open: minillm_options.mixture: expected 0 <= mixture < 1, got 1");
  BOOST_TEST(why({.end = 3}) ==
             "minillm::open: minillm_options.end: expected no_token or a token of the vocabulary, "
             "got 3");
  auto from = opened(p, p, data.limits(), {});
  auto w = random_weights(1);
  auto train = ln::trainer<model, ln::adamw, double>::open(w, data.limits());
  BOOST_TEST(!ln::is_finite(train->step(data.view(), from)));  // not written by it
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::not_written));
  const auto b = from.write(0, data.view());
  BOOST_TEST(ln::is_finite(train->step(b, from)));
  check_plain_logits(b, data.limits(), from);
  auto small = opened(p, p, {.batch = 1, .target = 4}, {});
  BOOST_TEST(small.write(0, data.view()).batch == 0);
  BOOST_TEST(small.last_refusal() == ln::to_string(ln::refusal::batch_over_limit));
  BOOST_TEST(!ln::is_finite(train->step(small.adopt(data.view()), small)));
  const std::vector<index> zeros(8);
  ln::decoder_batch documents = data.view();
  documents.documents = zeros.data();
  BOOST_TEST(from.write(0, documents).batch == 0);
  BOOST_TEST(from.last_refusal() == ln::to_string(ln::refusal::documents_written));
  // A teacher that is no number chooses nothing, and has no reward for what others chose.
  auto broken = random_weights(1);
  broken.tree().embedding.data[0] = std::numeric_limits<double>::quiet_NaN();
  const auto teacher = ln::pack(broken);
  auto unsure = opened(p, teacher, data.limits(), {});
  BOOST_TEST(unsure.write(0, data.view()).batch == 0);
  BOOST_TEST(unsure.last_refusal() == ln::to_string(ln::refusal::nothing_chosen));
  BOOST_TEST(unsure.adopt(data.view()).batch == 0);
  BOOST_TEST(unsure.last_refusal() == ln::to_string(ln::refusal::nothing_chosen));
}

// Between two steps on the same texts a run goes on with what state() said of them.
BOOST_AUTO_TEST_CASE(resumed_between_steps_on_the_same_texts) {
  const decoder_tokens data(4, 5, v);
  const auto teacher = ln::pack(random_weights(2));
  std::vector<std::byte> saved;
  ln::decoder_batch written{};
  const auto open = [&](const ln::limits& l) {  // at last with a student that has moved
    return opened(l.threads > 1 ? second_student() : first_student(), teacher, l, {.seed = 4});
  };
  const auto texts = [&](const decoder_tokens& of, index step, objective& from) {
    if (step == 0) {
      written = from.write(0, of.view());
      saved.assign(from.state().begin(), from.state().end());
    } else if (from.refuses<model>(written, of.limits()) != ln::refusal::none) {
      written = from.resume(of.view(), saved);
    }
    BOOST_TEST(written.batch == 4);
    return written;
  };
  check_resumed(random_weights(1), data, open, texts);
  auto from = opened(second_student(), teacher, data.limits(), {});
  BOOST_TEST(from.resume(data.view(), saved).batch == 4);
  BOOST_TEST(from.mean_reward() != 0);
  for (const auto& bytes : {std::span(saved).first(8), std::span(saved)}) {
    BOOST_TEST(from.resume(data.part(0, 3), bytes).batch == 0);
    BOOST_TEST(from.last_refusal() == ln::to_string(ln::refusal::other_texts));
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(spin)

using pairs = ln::spin<model, double>;
pairs opened_pairs(const packed& opponent, const ln::limits& l, const ln::spin_options& how) {
  auto made = pairs::open(opponent, l, how);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return *std::move(made);
}
/// The sum of log-probabilities of each sequence's labels.
row logs_of(const packed& p, const ln::decoder_batch& b) {
  const auto all = log_probabilities(p, b);
  row sums(at(b.batch));
  for (index i = 0; i < b.batch * b.length; ++i)
    if (b.labels[i] != ln::ignored) sums[at(i / b.length)] += all[at(i)][at(b.labels[i])];
  return sums;
}

// The loss is the mean over pairs of the definition; more rows than the head takes at a time.
BOOST_AUTO_TEST_CASE(equals_the_definition_and_its_gradient) {
  const auto opponent = ln::pack(random_weights(1));
  for (const auto loss : {ln::spin_loss::logistic, ln::spin_loss::hinge}) {
    const index count = loss == ln::spin_loss::hinge ? 3 : 13;
    const decoder_tokens data(count, 5, v);
    const ln::limits l{.batch = 2 * count, .target = 5};
    BOOST_REQUIRE((count == 3 || 2 * count * 5 > ln::ops::head_rows(v)));
    auto from = opened_pairs(opponent, l, {.beta = 0.7, .loss = loss, .seed = 3});
    const auto b = from.write(0, data.view());
    BOOST_REQUIRE(b.batch == 2 * count);
    BOOST_TEST(std::equal(b.tokens, b.tokens + 5 * count, data.inputs.begin()));
    auto w = random_weights(1);
    const auto loss_of = [&] {
      const auto p = ln::pack(w);
      auto scores = ln::evaluator<model, double>::open(p, l);
      return scores->loss(b, from).mean();
    };
    // A model beside itself has no margin.
    const bool hinge = loss == ln::spin_loss::hinge;
    BOOST_TEST(distance_of(loss_of(), hinge ? 1.0 : std::log(2.0)) < 1e-12);
    w = random_weights(2);
    const row now = logs_of(ln::pack(w), b), then = logs_of(opponent, b);
    double want = 0;
    for (std::size_t n = 0; n < at(count); ++n) {
      const double z = 0.7 * ((now[n] - then[n]) - (now[at(count) + n] - then[at(count) + n]));
      want += (hinge ? (std::max)(0.0, 1 - z) : std::log(1 + std::exp(-z))) /
              static_cast<double>(count);
    }
    BOOST_TEST(distance_of(loss_of(), want) < 1e-11);
    const auto r = ln::check_model_gradients(w, b, l, {}, 1e-6, 0, from);
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(2 * r.nonzero > r.entries);
  }
  // Equal texts teach nothing.
  const decoder_tokens data(2, 5, v);
  const ln::limits l{.batch = 4, .target = 5};
  auto same = opened_pairs(opponent, l, {});
  auto w = random_weights(2);
  auto train = ln::trainer<model, ln::adamw, double>::open(w, l);
  const auto twice = same.pair(data.view(), data.view());
  BOOST_TEST(distance_of(train->accumulate(twice, same).mean(), std::log(2.0)) < 1e-12);
  BOOST_TEST(magnitude(all_values(train->gradient())) < 1e-12);
}

// Real texts say 1 2 0 1 2 0: after some rounds the model does, too, with the same bits on any
// number of threads.
BOOST_AUTO_TEST_CASE(learns_in_rounds, *boost::unit_test::label("tsan")) {
  std::vector<token> text(4 * 6);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<token>((i + i / 6) % 3);
  std::vector<token> inputs, labels;
  for (std::size_t s = 0; s < 4; ++s)
    for (std::size_t i = 0; i < 5; ++i) {
      inputs.push_back(text[6 * s + i]);
      labels.push_back(text[6 * s + i + 1]);
    }
  const ln::decoder_batch real{inputs.data(), labels.data(), 4, 5};
  const auto run = [&](int threads) {
    auto w = random_weights(1);
    ln::limits l{.batch = 8, .target = 5, .threads = threads, .min_flops_per_thread = 0};
    if (threads > 1) l.run_on = std_threads();
    for (std::uint64_t round = 0; round < 2; ++round) {
      const auto opponent = ln::pack(w);
      auto from = opened_pairs(opponent, l, {.beta = 1, .seed = round});
      auto train =
          ln::trainer<model, ln::adamw, double>::open(w, l, {ln::schedule::constant(3e-2)});
      for (int i = 0; i < 12; ++i) (void)train->step(from.write(train->steps(), real), from);
    }
    return w;
  };
  const auto one = run(1), three = run(3);
  BOOST_TEST(same_bytes(one, three));
  const row before = logs_of(ln::pack(random_weights(1)), real),
            after = logs_of(ln::pack(one), real);
  for (std::size_t s = 0; s < 4; ++s) BOOST_TEST(after[s] > before[s] + 1);
}

/// Real texts, and limits with room for as many written ones.
struct real_texts : decoder_tokens {
  using decoder_tokens::decoder_tokens;
  ln::limits limits(int threads = 1) const {
    ln::limits l = decoder_tokens::limits(threads);
    l.batch *= 2;
    return l;
  }
};
BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  const real_texts data(4, 5, v);
  check_resumed(
      random_weights(1), data,
      [&](const ln::limits& l) { return opened_pairs(first_student(), l, {.beta = 1}); },
      [](const real_texts& of, index step, pairs& from) { return from.write(step, of.view()); });
}

BOOST_AUTO_TEST_CASE(refusals) {
  const decoder_tokens data(2, 4, v);
  const auto p = ln::pack(random_weights(1));
  const auto why = [&](const ln::limits& l, const ln::spin_options& how) {
    const auto made = pairs::open(p, l, how);
    return made ? "" : made.error().message();
  };
  BOOST_TEST(why({.batch = 2, .target = 4}, {}) == "");
  BOOST_TEST(why({.batch = 1, .target = 4}, {}) ==
             "spin::open: limits.batch: expected at least 2, a real and a written text, got 1");
  BOOST_TEST(
      why({.batch = 2, .target = 4}, {.beta = 0}).starts_with("spin::open: spin_options.beta"));
  BOOST_TEST(why({.batch = 2, .target = 4}, {.end = 3}) ==
             "spin::open: spin_options.end: expected no_token or a token of the vocabulary, got 3");
  auto from = opened_pairs(p, {.batch = 3, .target = 4}, {});
  BOOST_TEST(from.write(0, data.view()).batch == 0);
  BOOST_TEST(from.last_refusal() == ln::to_string(ln::refusal::pairs_over_limit));
  BOOST_TEST(from.pair(data.view(), data.view()).batch == 0);
  BOOST_TEST(from.last_refusal() == ln::to_string(ln::refusal::pairs_over_limit));
  const auto b = from.write(0, data.part(0, 1));
  BOOST_TEST(b.batch == 2);
  auto w = random_weights(1);
  auto train = ln::trainer<model, ln::adamw, double>::open(w, {.batch = 2, .target = 4});
  BOOST_TEST(ln::is_finite(train->step(b, from)));
  BOOST_TEST(!ln::is_finite(train->step(data.view(), from)));  // not written by it
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::not_written));
  check_plain_logits(from.write(0, data.part(0, 1)), {.batch = 2, .target = 4}, from);
  BOOST_TEST(from.pair(data.part(0, 1), {data.inputs.data(), data.labels.data(), 1, 3}).batch == 0);
  BOOST_TEST(from.last_refusal() == ln::to_string(ln::refusal::unpaired_texts));
  // Documents in either text, as write() refuses them.
  const std::vector<index> zeros(4);
  ln::decoder_batch documents = data.part(0, 1);
  documents.documents = zeros.data();
  BOOST_TEST(from.write(0, documents).batch == 0);
  BOOST_TEST(from.last_refusal() == ln::to_string(ln::refusal::documents_written));
  for (const bool real : {true, false}) {
    (void)from.pair(data.part(0, 1), data.part(0, 1));
    const auto made =
        real ? from.pair(documents, data.part(0, 1)) : from.pair(data.part(0, 1), documents);
    BOOST_TEST(made.batch == 0);
    BOOST_TEST(from.last_refusal() == ln::to_string(ln::refusal::documents_written));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::minillm_test
