// SPDX-License-Identifier: MIT
// Hidden states layer by layer: TED's two stages, learned projections and plain states, by their
// definitions, by differences, at their limits, in teams and resumed runs.

#include "support/data.hpp"
#include "support/encoders.hpp"
#include "support/resumed.hpp"
#include "support/scoring.hpp"

namespace test::layer_distillation_test {

namespace {

using options = ln::layer_distillation_options;
using small = ln::decoder<tiny_decoder_shape>;
using wide = ln::decoder<teacher_decoder_shape>;
using text = ln::encoder<tiny_encoder_shape>;
using pair_label = text::with_head<ln::head::sequence_classification<3>>;
template <class M>
using f64 = ln::packed<M, double>;

template <class M>
ln::weights<M, double> random_weights(std::uint64_t seed) {
  ln::weights<M, double> w;
  randomize(w, seed);
  return w;
}
template <class L>
L opened(const auto& p, const ln::limits& l, const options& how) {
  auto made = L::open(p, l, how);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return *std::move(made);
}
/// F h + b of each row.
template <class F>
std::vector<double> filtered_states(const ln::weights<F, double>& w, std::size_t k,
                                    const std::vector<double>& h) {
  const auto& p = w.tree().filters[k];
  constexpr index d = F::d, n = F::state_width;
  std::vector<double> y;
  for (index i = 0; i < std::ssize(h) / d; ++i)
    for (index r = 0; r < n; ++r) {
      double sum = p.bias[r];
      for (index j = 0; j < d; ++j) sum += p.weight.data[r * d + j] * h[at(i * d + j)];
      y.push_back(sum);
    }
  return y;
}
/// The mean over valid rows of the loss on states.
double mean_distance(const std::vector<double>& s, const std::vector<double>& t, index width,
                     bool cosine, const std::vector<bool>& valid) {
  double sum = 0, rows = 0;
  for (std::size_t i = 0; i < valid.size(); ++i) {
    if (!valid[i]) continue;
    ++rows;
    double ss = 0, tt = 0, st = 0, square = 0;
    for (std::size_t j = i * at(width); j < (i + 1) * at(width); ++j) {
      ss += s[j] * s[j];
      tt += t[j] * t[j];
      st += s[j] * t[j];
      square += (s[j] - t[j]) * (s[j] - t[j]) / static_cast<double>(width);
    }
    sum += cosine ? 1 - st / std::sqrt(ss * tt) : square;
  }
  return sum / rows;
}
/// Mean KL(p || q) over the labels that count, at temperature tau.
template <class M>
double mean_kl(const std::vector<double>& p, const std::vector<double>& q,
               const std::vector<token>& labels, double tau) {
  double sum = 0, count = 0;
  for (index i = 0; i < std::ssize(labels); ++i) {
    if (labels[at(i)] == ln::ignored) continue;
    ++count;
    std::vector<double> a, b;
    double pa = 0, pb = 0;
    for (const double x : row_of<M>(p, i)) pa += a.emplace_back(std::exp(x / tau));
    for (const double x : row_of<M>(q, i)) pb += b.emplace_back(std::exp(x / tau));
    for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] / pa * std::log(a[j] / pa * pb / b[j]);
  }
  return sum / count;
}
/// The sum of the cross-entropies of all heads; label i belongs to row `each` * i.
template <class P, class F>
double probe_nats(const ln::weights<P, double>& probes, const ln::weights<F, double>& joined,
                  const std::vector<std::vector<double>>& states, const std::vector<token>& labels,
                  index each) {
  constexpr index n = F::state_width, vocabulary = F::vocabulary;
  double nats = 0;
  for (std::size_t k = 0; k < F::count; ++k) {
    const auto y = filtered_states(joined, k, states[at(F::filtered_layers[k])]);
    const auto& head = probes.tree().heads[k];
    for (index i = 0; i < std::ssize(labels); ++i) {
      if (labels[at(i)] == ln::ignored) continue;
      double sum = 0, own = 0;
      for (index v = 0; v < vocabulary; ++v) {
        double x = head.bias[v];
        for (index j = 0; j < n; ++j) x += head.weight.data[v * n + j] * y[at(i * each * n + j)];
        sum += std::exp(x);
        if (v == labels[at(i)]) own = x;
      }
      nats += std::log(sum) - own;
    }
  }
  return nats;
}

BOOST_AUTO_TEST_SUITE(layer_distillation)

// Two layers of a narrow student and the layers 0 and 2 of a wide teacher, all filtered.
BOOST_AUTO_TEST_CASE(ted_is_its_definition) {
  using student = ln::filtered<small, 5, 0, 1>;
  using teacher = ln::filtered<wide, 5, 0, 2>;
  using objective = ln::layer_distillation<f64<student>, f64<teacher>>;
  const auto data = decoder_data<small>(2, 5);
  const auto l = data.limits();
  const auto w = random_weights<student>(1);
  const auto taught = random_weights<teacher>(2);
  const auto p = ln::pack(taught);
  const auto q = ln::pack(w);
  const auto bare = ln::remove_filters(w);
  const auto bare_teacher = ln::remove_filters(taught);
  BOOST_REQUIRE((bare && bare_teacher));
  const auto mine = states_of(ln::pack(*bare), data.view(), l);
  const auto theirs = states_of(ln::pack(*bare_teacher), data.view(), l);
  BOOST_REQUIRE((mine.size() == 2 && theirs.size() == 3));
  const std::vector<bool> all(10, true);
  const double kl = mean_kl<small>(logits_of(ln::pack(*bare_teacher), data.view(), l),
                                   logits_of(ln::pack(*bare), data.view(), l), data.labels, 1.5);
  auto scores = ln::evaluator<student, double>::open(q, l);
  const auto plain = scores->loss(data.view());
  for (const bool cosine : {false, true}) {
    double apart = 0;
    for (std::size_t k = 0; k < 2; ++k)
      apart += 0.5 * mean_distance(filtered_states(w, k, mine[k]),
                                   filtered_states(taught, k, theirs[2 * k]), 5, cosine, all);
    BOOST_TEST(apart > 0.1);
    options how{.labels = 0.7, .soft = 3, .hidden = 20, .temperature = 1.5};
    if (cosine) how.loss = ln::state_loss::cosine;
    auto from = opened<objective>(p, l, how);
    const auto got = scores->loss(data.view(), from);
    BOOST_TEST(got.tokens == plain.tokens);
    BOOST_TEST(distance_of(from.distance(), apart) < 1e-12);
    const double soft = 3 * 1.5 * 1.5 * kl;
    BOOST_TEST(distance_of(got.mean(), 0.7 * plain.mean() + soft + 20 * apart) < 1e-10);
    how.balanced = true;
    auto balanced = opened<objective>(p, l, how);
    BOOST_TEST(distance_of(scores->loss(data.view(), balanced).mean(),
                           0.7 * plain.mean() + soft + 20 * soft) < 1e-10);
  }
}

BOOST_AUTO_TEST_CASE(differences) {
  {
    using student = ln::filtered<small, 5, 0, 1>;
    using teacher = ln::filtered<wide, 5, 0, 2>;
    const auto data = decoder_data<small>(2, 5);
    const auto p = ln::pack(random_weights<teacher>(2));
    auto from = opened<ln::layer_distillation<f64<student>, f64<teacher>>>(
        p, data.limits(), {.hidden = 3, .temperature = 2});
    auto w = random_weights<student>(1);
    const auto r =
        ln::check_model_gradients(w, data.view(), data.limits(), {3, 1, 2, 0.2}, 1e-5, 1e-2, from);
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(r.entries == small::parameters() + 2 * (8 * 5 + 5));
    BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
  }
  {  // a projection of the first layer of an encoder to the teacher's width, by cosines
    using student = ln::filtered<text, 10, 0>;
    using teacher = text::with_shape<[] {
      auto s = tiny_encoder_shape;
      s.d_model = 10;
      s.heads = 2;
      return s;
    }()>;
    const auto data = encoder_data<text>();
    const auto p = ln::pack(random_weights<teacher>(2));
    auto from = opened<ln::layer_distillation<f64<student>, f64<teacher>, 1>>(
        p, data.limits(), {.labels = 0, .soft = 0, .loss = ln::state_loss::cosine});
    auto w = random_weights<student>(1);
    const auto r =
        ln::check_model_gradients(w, data.view(), data.limits(), {3, 1, 2, 0.2}, 1e-5, 0, from);
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(3 * r.nonzero > r.entries, text_of(r));
  }
}

// The gradient of a balanced loss takes its factor for a constant: it is that of the loss with this
// factor as its weight.
BOOST_AUTO_TEST_CASE(balance_is_a_constant) {
  using student = ln::filtered<small, 16, 1>;
  using objective = ln::layer_distillation<f64<student>, f64<wide>, 2>;
  const auto data = decoder_data<small>(2, 5);
  const auto l = data.limits();
  const auto p = ln::pack(random_weights<wide>(2));
  auto w = random_weights<student>(1);
  auto balanced = opened<objective>(p, l, {.labels = 0, .hidden = 0.5, .balanced = true});
  auto one = ln::trainer<student, ln::adamw, double>::open(w, l);
  const double got = one->accumulate(data.view(), balanced).mean();
  const double kl = got / 1.5;
  auto fixed = opened<objective>(p, l, {.labels = 0, .hidden = 0.5 * kl / balanced.distance()});
  auto other = ln::trainer<student, ln::adamw, double>::open(w, l);
  BOOST_TEST(distance_of(other->accumulate(data.view(), fixed).mean(), got) < 1e-12);
  BOOST_TEST(distance(all_values(one->gradient()), all_values(other->gradient())) < 1e-12);
  BOOST_TEST(magnitude(all_values(one->gradient())) > 0.01);
}

// Filters that do nothing compare plain states; a model has nothing to learn from itself, and
// padding nothing to teach.
BOOST_AUTO_TEST_CASE(identities_and_padding) {
  using student = ln::filtered<text, 6, 0, 1>;
  using named = ln::filtered<text, 0, 0, 1>;
  auto data = encoder_data<text>();
  const auto l = data.limits();
  const options how{.labels = 0, .soft = 0};
  const auto w = random_weights<text>(1), taught = random_weights<text>(2);
  auto filters = ln::add_filters<student>(w), taught_filters = ln::add_filters<student>(taught);
  BOOST_REQUIRE((filters && taught_filters));
  for (auto* const some : {&*filters, &*taught_filters})
    for (auto& f : some->tree().filters)
      for (index i = 0; i < 36; ++i) f.weight.data[i] = i % 7 == 0;
  const auto p = ln::pack(taught);
  const auto q = ln::pack(*taught_filters);
  auto plain = opened<ln::layer_distillation<f64<text>, f64<text>>>(p, l, how);
  auto by_filters = opened<ln::layer_distillation<f64<student>, f64<student>>>(q, l, how);
  auto by_names = opened<ln::layer_distillation<f64<named>, f64<text>, 0, 1>>(p, l, how);
  auto bare = w.clone();
  auto layers = ln::add_filters<named>(w);
  auto one = ln::trainer<text, ln::adamw, double>::open(bare, l);
  auto two = ln::trainer<student, ln::adamw, double>::open(*filters, l);
  auto three = ln::trainer<named, ln::adamw, double>::open(*layers, l);
  const double want = one->accumulate(data.view(), plain).nats;
  BOOST_TEST(want > 0.1);
  BOOST_TEST(distance_of(two->accumulate(data.view(), by_filters).nats, want) < 1e-12);
  BOOST_TEST(three->accumulate(data.view(), by_names).nats == want);
  const auto slopes = all_values(one->gradient());
  auto others = all_values(two->gradient());
  others.resize(slopes.size());
  BOOST_TEST(distance(slopes, others) < 1e-12);
  BOOST_TEST(all_values(three->gradient()) == slopes);
  // The mean over valid rows alone.
  std::vector<bool> valid;
  for (index i = 0; i < data.batch * data.length; ++i)
    valid.push_back(i % data.length < data.lengths[at(i / data.length)]);
  const auto mine = states_of(ln::pack(w), data.view(), l), theirs = states_of(p, data.view(), l);
  double apart = 0;
  for (std::size_t k = 0; k < 2; ++k)
    apart += 0.5 * mean_distance(mine[k], theirs[k], 6, false, valid);
  BOOST_TEST(distance_of(plain.distance(), apart) < 1e-12);

  auto own = opened<ln::layer_distillation<f64<student>, f64<student>>>(q, l, how);
  auto again = ln::trainer<student, ln::adamw, double>::open(*taught_filters, l);
  BOOST_TEST(again->accumulate(data.view(), own).nats == 0);
  BOOST_TEST(magnitude(all_values(again->gradient())) == 0);
}

// The first stage: a frozen model, whose filters and heads learn the task layer by layer.
BOOST_AUTO_TEST_CASE(probes_are_their_definition) {
  using F = ln::filtered<small, 5, 0, 1>;
  using probe = ln::filter_probe<F>;
  const auto data = decoder_data<small>(2, 5);
  const auto l = data.limits();
  const auto w = random_weights<small>(1);
  const auto p = ln::pack(w);
  auto probes = ln::probe_filters<F>(p);
  BOOST_REQUIRE(static_cast<bool>(probes));
  randomize(*probes, 3);
  const auto joined = ln::add_filters<F>(w, *probes);
  BOOST_REQUIRE(static_cast<bool>(joined));
  const double want =
      probe_nats<probe>(*probes, *joined, states_of(p, data.view(), l), data.labels, 1);
  const auto q = ln::pack(*probes);
  auto scores = ln::evaluator<probe, double>::open(q, l);
  BOOST_TEST(distance_of(scores->loss(data.view()).nats, want) < 1e-10);
  BOOST_TEST(scores->loss(data.view()).tokens == 8);
  const auto r = ln::check_model_gradients(*probes, data.view(), l, {3, 1, 2, 0}, 1e-5, 1e-2);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == 2 * (8 * 5 + 5 + 5 * 11 + 11));
  BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
}

BOOST_AUTO_TEST_CASE(probes_of_classifiers) {
  using F = ln::filtered<pair_label, 4, 1>;
  const auto data = encoder_data<pair_label>();
  const auto w = random_weights<pair_label>(1);
  const auto p = ln::pack(w);
  auto probes = ln::probe_filters<F>(p);
  randomize(*probes, 3);
  const auto joined = ln::add_filters<F>(w, *probes);
  const auto states = states_of(p, data.view(), data.limits());
  const double want =
      probe_nats<ln::filter_probe<F>>(*probes, *joined, states, data.labels, data.length);
  auto train = ln::trainer<ln::filter_probe<F>, ln::adamw, double>::open(*probes, data.limits());
  BOOST_TEST(distance_of(train->accumulate(data.view()).nats, want) < 1e-12);
  const auto r = ln::check_model_gradients(*probes, data.view(), data.limits(), {}, 1e-5, 0);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == 6 * 4 + 4 + 4 * 3 + 3);
  BOOST_TEST(r.nonzero == r.entries);
}

// A T5's decoder is numbered behind its encoder, whose states are of the source: the mean over
// layers of the means over tokens that count, by its definition and by differences.
BOOST_AUTO_TEST_CASE(encoder_decoders) {
  using model = ln::t5<t5_of_layers(1, 2)>;
  using student = ln::filtered<model, 5, 0, 1, 2>;  // the encoder's last is the memory
  using teacher = ln::filtered<ln::t5<t5_of_layers(3, 2)>, 5, 1, 3, 4>;
  const auto data = t5_data<model>(2, 4, 6);
  const auto l = data.limits();
  auto w = random_weights<student>(1);
  const auto taught = random_weights<teacher>(2);
  const auto p = ln::pack(taught);
  auto from = opened<ln::layer_distillation<f64<student>, f64<teacher>>>(
      p, l, {.soft = 0, .hidden = 3, .temperature = 2});
  const auto bare = ln::remove_filters(w);
  const auto bare_teacher = ln::remove_filters(taught);
  const auto mine = states_of(ln::pack(*bare), data.view(), l),
             theirs = states_of(ln::pack(*bare_teacher), data.view(), l);
  BOOST_REQUIRE((mine.size() == 3 && theirs.size() == 5));
  double apart = 0;
  for (std::size_t k = 0; k < 3; ++k) {
    std::vector<bool> counts;
    for (index i = 0; i < (k == 0 ? 8 : 12); ++i)
      counts.push_back(k == 0 ? i % 4 < data.lengths[at(i / 4)]
                              : data.labels[at(i)] != ln::ignored);
    apart +=
        mean_distance(filtered_states(w, k, mine[k]),
                      filtered_states(taught, k, theirs[k == 0 ? 1 : k + 2]), 5, false, counts) /
        3;
  }
  const auto packed = ln::pack(w);
  auto scores = ln::evaluator<student, double>::open(packed, l);
  const double plain = scores->loss(data.view()).mean();
  BOOST_TEST(distance_of(scores->loss(data.view(), from).mean(), plain + 3 * apart) < 1e-10);
  BOOST_TEST(distance_of(from.distance(), apart) < 1e-12);
  const auto r = ln::check_model_gradients(w, data.view(), l, {3, 1, 2, 0.2}, 1e-5, 1e-2, from);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
  // Without filters all layers meet, those of a stack at equal parts of its depth.
  static_assert(ln::detail::taught_layers<model, model>() == std::array<index, 3>{0, 1, 2});
  static_assert(ln::detail::taught_layers<model, ln::t5<t5_of_layers(6, 4)>>() ==
                std::array<index, 3>{5, 7, 9});
}

/// Both stages in float: what they end with.
struct both_stages {
  using student = ln::filtered<small, 5, 0, 1>;
  using teacher = ln::filtered<wide, 5, 0, 2>;
  ln::weights<ln::filter_probe<teacher>> filters{};
  ln::weights<student> w{};
  std::vector<double> losses{};

  /// With so many threads; a run that is interrupted goes on in other objects. The student may
  /// compute its layers again in backward.
  both_stages(int threads, bool interrupted, bool recompute = false) {
    const auto data = decoder_data<small>(2, 6);
    auto l = data.limits(threads);
    l.run_on = std_threads();
    ln::weights<wide> taught;
    randomize(taught, 2);
    const auto p = ln::pack(taught);
    const auto train = [&](auto make, auto& at, auto&&... from) {
      const int first = interrupted ? 2 : 4;
      auto one = std::remove_cvref_t<decltype(make(at))>(make(at));
      for (int n = 0; n < first; ++n) losses.push_back(one->step(data.view(), from...));
      if (!interrupted) return;
      auto rest = at.clone();
      auto two = make(rest);
      copy_state(*one, *two);
      for (int more = first; more < 4; ++more) losses.push_back(two->step(data.view(), from...));
      at = rest.clone();
    };
    auto probes = ln::probe_filters<teacher>(p, ln::seed{1});
    filters = *std::move(probes);
    train([&](auto& at) { return ln::trainer<ln::filter_probe<teacher>>::open(at, l); }, filters);
    const auto joined = ln::add_filters<teacher>(taught, filters);
    BOOST_REQUIRE(static_cast<bool>(joined));
    const auto with_filters = ln::pack(*joined);
    ln::weights<small> begun;
    randomize(begun, 1);
    w = *ln::add_filters<student>(begun, ln::seed{4});
    auto from = opened<ln::layer_distillation<student, teacher>>(with_filters, l, {.hidden = 5});
    l.recompute = recompute;
    train([&](auto& at) { return ln::trainer<student>::open(at, l); }, w, from);
  }
};
BOOST_AUTO_TEST_CASE(threads_and_resumed_runs_change_no_bit, *boost::unit_test::label("tsan")) {
  const both_stages whole(1, false), shared(3, false), resumed(3, true), again(1, false, true);
  BOOST_TEST(whole.losses[3] < whole.losses[0]);
  BOOST_TEST(whole.losses[7] < whole.losses[4]);
  for (const both_stages* const other : {&shared, &resumed, &again}) {
    BOOST_TEST((whole.losses == other->losses));
    BOOST_TEST(same_bytes(whole.filters, other->filters));
    BOOST_TEST(same_bytes(whole.w, other->w));
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  using objective = ln::layer_distillation<f64<ln::filtered<small, 16, 1>>, f64<wide>, 2>;
  const auto data = decoder_data<small>(2, 5);
  const auto p = ln::pack(random_weights<wide>(2));
  const auto refused = objective::open(p, data.limits(), {.hidden = -1});
  BOOST_TEST(refused.error().message() ==
             "layer_distillation::open: layer_distillation_options.hidden: expected at least 0, "
             "finite, got -1");
  BOOST_TEST(
      message(objective::open(p, data.limits(), {.soft = 0, .hidden = 1, .balanced = true})) ==
      "layer_distillation::open: layer_distillation_options.balanced: expected false where `soft` "
      "is 0, as states are weighed by the KL term, got true");
  auto from = opened<objective>(p, {.batch = 2, .target = 4}, {});
  ln::weights<ln::filtered<small, 16, 1>, double> w;
  auto train = ln::trainer<ln::filtered<small, 16, 1>, ln::adamw, double>::open(w, data.limits());
  BOOST_TEST(!ln::is_finite(train->step(data.view(), from)));
  ln::weights<small, double> none;
  none.fail({ln::errc::invalid, "here", "x", "y", "z"});
  BOOST_TEST((ln::add_filters<ln::filtered<small, 5, 0>>(none).error().message() ==
              "here: x: expected y, got z"));
  // Filters that refer to no model.
  ln::weights<ln::filter_probe<ln::filtered<small, 5, 0>>> alone;
  const auto unbound =
      ln::trainer<ln::filter_probe<ln::filtered<small, 5, 0>>>::open(alone, data.limits());
  BOOST_TEST(!unbound);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(latent_prediction)

using predictive = ln::filtered<small, 8, 0, 1>;
using in_latents = ln::latent_prediction<f64<predictive>>;
using latent_options = ln::latent_prediction_options;

/// An objective with targets of packed weights, or with the model's own.
in_latents opened_latent(const ln::limits& l, const latent_options& how,
                         const f64<small>* target = nullptr) {
  auto made = target ? in_latents::open(*target, l, how) : in_latents::open(l, how);
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}

/// Rows that predict: the token of their target is a label, in the same row and document.
std::vector<bool> pairs_of(const ln::decoder_batch& b, index ahead) {
  std::vector<bool> all;
  for (index row = 0; row < b.batch; ++row)
    for (index t = 0; t < b.length; ++t) {
      bool counts = t + ahead < b.length;
      if (counts) counts = b.labels[row * b.length + t + ahead - 1] != ln::ignored;
      if (counts && b.documents)
        counts = b.documents[row * b.length + t] == b.documents[row * b.length + t + ahead];
      all.push_back(counts);
    }
  return all;
}

BOOST_AUTO_TEST_CASE(is_its_definition) {
  const auto data = decoder_data<small>(2, 5);
  const auto l = data.limits();
  const auto w = random_weights<predictive>(1);
  const auto bare = ln::remove_filters(w);
  const auto other = ln::pack(random_weights<small>(2)), own = ln::pack(*bare);
  const auto q = ln::pack(w);
  auto scores = ln::evaluator<predictive, double>::open(q, l);
  const std::vector<index> documents{0, 0, 0, 3, 3, 0, 1, 1, 1, 1};
  for (const bool packed : {false, true})
    for (const bool cosine : {false, true})
      for (const index ahead : {1, 2, 5}) {
        auto b = data.view();
        if (packed) b.documents = documents.data();
        const double plain = scores->loss(b).mean();
        const auto mine = states_of(own, b, l);
        const auto pairs = pairs_of(b, ahead);
        const auto count = std::count(pairs.begin(), pairs.end(), true);
        BOOST_TEST((count > 0) == (ahead < 5));
        const latent_options how{
            .latent = 3,
            .ahead = ahead,
            .loss = cosine ? ln::state_loss::cosine : ln::state_loss::mean_square};
        for (const f64<small>* const target : {static_cast<const f64<small>*>(nullptr), &other}) {
          auto shifted = states_of(target ? *target : own, b, l).back();
          shifted.erase(shifted.begin(), shifted.begin() + (std::min)(ahead * 8, index{80}));
          shifted.resize(80, 1);
          double apart = 0;
          for (std::size_t k = 0; count > 0 && k < 2; ++k)
            apart += 0.5 * mean_distance(filtered_states(w, k, mine[k]), shifted, 8, cosine, pairs);
          auto from = opened_latent(l, how, target);
          BOOST_TEST(distance_of(scores->loss(b, from).mean(), plain + 3 * apart) < 1e-10);
          BOOST_TEST(distance_of(from.distance(), apart) < 1e-12);
        }
      }
}

// The variable that targets are packed into may be packed again between steps.
BOOST_AUTO_TEST_CASE(targets_that_move) {
  const auto data = decoder_data<small>(2, 5);
  const auto l = data.limits();
  const auto q = ln::pack(random_weights<predictive>(1));
  auto scores = ln::evaluator<predictive, double>::open(q, l);
  auto target = ln::pack(random_weights<small>(2));
  auto from = opened_latent(l, {}, &target);
  const double before = scores->loss(data.view(), from).nats;
  target = ln::pack(random_weights<small>(3));
  const double after = scores->loss(data.view(), from).nats;
  const auto other = ln::pack(random_weights<small>(3));
  auto fresh = opened_latent(l, {}, &other);
  BOOST_TEST(after == scores->loss(data.view(), fresh).nats);
  BOOST_TEST(after != before);
}

// With targets that stand still the gradient is that of differences. The model's own states are
// targets of the same gradient: none flows through them.
BOOST_AUTO_TEST_CASE(differences) {
  const auto data = decoder_data<small>(2, 5);
  const auto l = data.limits();
  auto w = random_weights<predictive>(1);
  const auto bare = ln::remove_filters(w);
  const auto own = ln::pack(*bare);
  for (const auto loss : {ln::state_loss::mean_square, ln::state_loss::cosine}) {
    const latent_options how{.latent = 2, .ahead = 2, .loss = loss};
    auto fixed = opened_latent(l, how, &own);
    if (loss == ln::state_loss::mean_square) {
      const auto r =
          ln::check_model_gradients(w, data.view(), l, {3, 1, 2, 0.2}, 1e-5, 1e-2, fixed);
      BOOST_TEST(r.passed(), text_of(r));
      BOOST_TEST(r.entries == small::parameters() + 2 * (8 * 8 + 8));
      BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
    }
    auto moving = opened_latent(l, how);
    auto one = ln::trainer<predictive, ln::adamw, double>::open(w, l);
    auto two = ln::trainer<predictive, ln::adamw, double>::open(w, l);
    BOOST_TEST(one->accumulate(data.view(), fixed).nats ==
               two->accumulate(data.view(), moving).nats);
    BOOST_TEST(all_values(one->gradient()) == all_values(two->gradient()));
    auto none = ln::trainer<predictive, ln::adamw, double>::open(w, l);
    auto weightless = opened_latent(l, {.latent = 0});
    (void)none->accumulate(data.view(), weightless);
    BOOST_TEST(distance(all_values(none->gradient()), all_values(two->gradient())) > 1e-3);
  }
}

BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  check_resumed(random_weights<predictive>(1), decoder_data<small>(2, 6),
                [](const ln::limits& l) { return opened_latent(l, {.latent = 5}); });
}
BOOST_AUTO_TEST_CASE(threads_and_recomputation_change_no_bit) {
  const auto data = decoder_data<small>(2, 6);
  std::vector<std::vector<double>> runs;
  for (const int run : {0, 1, 2}) {
    auto l = data.limits(run == 1 ? 3 : 1);
    l.run_on = std_threads();
    auto w = random_weights<predictive>(1);
    auto from = opened_latent(l, {.latent = 5});
    l.recompute = run == 2;
    auto train = ln::trainer<predictive, ln::adamw, double>::open(w, l);
    LINNET_REQUIRE_OK(train);
    auto& losses = runs.emplace_back();
    for (int n = 0; n < 6; ++n) {
      losses.push_back(train->step(data.view(), from));
      losses.push_back(from.distance());
    }
  }
  BOOST_TEST(runs[0][10] < runs[0][0]);
  BOOST_TEST(runs[0][11] < runs[0][1]);
  BOOST_TEST(runs[0] == runs[1]);
  BOOST_TEST(runs[0] == runs[2]);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto data = decoder_data<small>(2, 5);
  const auto opening = [&](const latent_options& how, const ln::limits& l) {
    return message(in_latents::open(l, how));
  };
  const std::string open = "latent_prediction::open: latent_prediction_options.";
  BOOST_TEST(opening({.latent = -1}, data.limits()) ==
             open + "latent: expected at least 0, finite, got -1");
  BOOST_TEST(opening({.ahead = 0}, data.limits()) == open + "ahead: expected at least 1, got 0");
  BOOST_TEST(opening({}, {.batch = 0}).starts_with("latent_prediction::open: limits.batch"));
  auto narrow = opened_latent({.batch = 2, .target = 4}, {});
  auto w = random_weights<predictive>(1);
  auto train = ln::trainer<predictive, ln::adamw, double>::open(w, data.limits());
  BOOST_TEST(!ln::is_finite(train->step(data.view(), narrow)));
  f64<small> none;
  none.fail({ln::errc::invalid, "here", "x", "y", "z"});
  BOOST_TEST(message(in_latents::open(none, data.limits())) == "here: x: expected y, got z");
  BOOST_TEST(in_latents::footprint(data.limits(), true) > in_latents::footprint(data.limits()));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::layer_distillation_test
