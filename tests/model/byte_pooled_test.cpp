// SPDX-License-Identifier: MIT
// Models between bytes: counts, gradients, the ends against plain loops, what padding may change,
// decoding through the cache, and training until the text is known.

#include <map>
#include <numeric>

#include "support/decoding.hpp"

namespace test::byte_pooled_test {

namespace {

namespace zoo = ln::zoo;
using corrected = ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<tiny_pooling>>;
using published = ln::byte_pooled<tiny_decoder_shape,
                                  ln::pooling::of<tiny_pooling.under(ln::byte_rules::repository)>>;
constexpr index slots = corrected::bytes_per_token, d = corrected::d, values = ln::byte_values;

// Zoo C3. A block: four maps and a norm for attention; a norm and two maps for the feed-forward.
constexpr index block_count(index in, index out) {
  return 4 * in * in + in + in + in * 4 * in + 4 * in * out;
}
template <class M>
constexpr bool counts_are(index embedder, index head, index core) {
  return M::embedder_parameters() == embedder && M::head_parameters() == head &&
         M::non_embedding() == core && M::parameters() == embedder + head + core;
}
using wide = zoo::stlm_50m_bytes;
using narrow = ln::byte_pooled<zoo::shapes::stlm_50m>;
static_assert(counts_are<wide>(3'182'080, 2'592'256, 50'150'400));
static_assert(wide::parameters() == 55'924'736);
static_assert(counts_are<narrow>(2'919'936, 2'199'040,
                                 zoo::stlm_50m::non_embedding() - 512));  // without the final norm
static_assert(wide::embedder_parameters() == (258 + 12) * 128 + block_count(128, 256) +
                                                 2 * block_count(256, 256) + block_count(256, 768));
static_assert(wide::head_parameters() ==
              768 * 12 * 128 + 12 * 128 + 7 * block_count(128, 128) + 128 * 258);
static_assert(
    counts_are<zoo::stlm_10m_bytes>((258 + 12) * 64 + block_count(64, 64) + block_count(64, 256),
                                    256 * 12 * 64 + 12 * 64 + 2 * block_count(64, 64) + 64 * 258,
                                    12 * (256 * 256 * 5 / 2 + 3 * 256 * 768 + 2 * 256)));
static_assert(zoo::stlm_10m_bytes::parameters() == 9'527'552);
static_assert(zoo::stlm_100m_bytes::parameters() == 101'060'096);
// The rules of padding and wiring change no count, and the tokenizer's vocabulary no type.
static_assert(
    ln::byte_pooled<zoo::shapes::stlm_50m_bytes, ln::pooling::repo_compat>::parameters() ==
    55'924'736);
static_assert(std::is_same_v<ln::byte_pooled<[] {
                               auto s = zoo::shapes::stlm_50m_bytes;
                               s.vocabulary = 512;
                               return s;
                             }()>,
                             ln::byte_pooled<zoo::shapes::stlm_50m_bytes, ln::pooling::repository,
                                             ln::position::rope>>);
// "90% to 95%" is about embedding and head; of the whole model it is 37% and 56%.
constexpr bool near(double a, double b) { return a - b < 5e-5 && b - a < 5e-5; }
static_assert(near(wide::saved_at_ends(50257, true), 1 - 5'774'336 / 38'597'376.0));
static_assert(near(wide::saved_at_ends(50257, true), 0.8504) &&
              near(wide::saved_at_ends(50257, false), 0.9252) &&
              near(narrow::saved_at_ends(50257, true), 0.8011) &&
              near(narrow::saved_at_ends(50257, false), 0.9005));
static_assert(near(wide::saved(50257, true), 0.3698) && near(wide::saved(50257, false), 0.5608));
static_assert(near(wide::saved(50257, true), 1 - 55'924'736 / 88'747'776.0));

/// Every parameter by central differences. Zero may only be what no token of the batch has.
template <class M, class Objective = ln::cross_entropy_objective>
void check_gradients(const Objective& from = {}, double dropout = 0, double z_loss = 0) {
  const byte_tokens data(2, 3, slots);
  ln::weights<M, double> w;
  randomize(w);
  const ln::gradient_report r = ln::check_model_gradients(w, data.view(), data.limits(),
                                                          {3, 1, 2, dropout}, 1e-5, z_loss, from);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == M::parameters());
  const index unused = (values - 20) * tiny_pooling.width;  // byte values
  BOOST_TEST(r.nonzero > 0.95 * double(r.entries - unused), text_of(r));
}

/// The ends in plain loops, in double.
class plain_ends {
 public:
  explicit plain_ends(const ln::weights<corrected, double>& w) : masked_(true) { read(w); }
  explicit plain_ends(const ln::weights<published, double>& w) : masked_(false) { read(w); }

  /// The vector of a token.
  std::vector<double> embedding(const token* bytes) const {
    const index n =
        masked_ ? (std::max)(index{1}, std::find(bytes, bytes + slots, 256) - bytes) : slots;
    rows x(at(n));
    for (index t = 0; t < n; ++t)
      for (index j = 0; j < 4; ++j)
        x[at(t)].push_back(weight("embedder.byte.weight")[at(bytes[t] * 4 + j)] +
                           weight("embedder.position.weight")[at(t * 4 + j)]);
    for (const char* name : {"embedder.blocks.0", "embedder.blocks.1", "embedder.blocks.2"})
      x = block(name, x);
    std::vector<double> mean(at(d));
    for (const auto& row : x)
      for (index j = 0; j < d; ++j) mean[at(j)] += row[at(j)] / double(n);
    return mean;
  }
  /// Logits [slots, values] of what follows a state.
  std::vector<double> logits(const std::vector<double>& state) const {
    const auto all = times("head.expand.weight", state);
    rows x(at(slots));
    for (index t = 0; t < slots; ++t)
      for (index j = 0; j < 4; ++j)
        x[at(t)].push_back((masked_ ? 1 : 2) * all[at(t * 4 + j)] +
                           weight("head.position.weight")[at(t * 4 + j)]);
    for (const char* name : {"head.blocks.0", "head.blocks.1"}) x = block(name, x);
    std::vector<double> y;
    for (const auto& row : x)
      for (const double v : times("head.byte.weight", row)) y.push_back(v);
    return y;
  }

 private:
  using rows = std::vector<std::vector<double>>;
  template <class M>
  void read(const ln::weights<M, double>& w) {
    w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, const auto& leaf) {
      all_[where.str()] = {values_of(leaf), values_of(leaf) + info.size()};
    });
  }
  const std::vector<double>& weight(const std::string& name) const { return all_.at(name); }
  std::vector<double> times(const std::string& name, const std::vector<double>& x) const {
    return mapped_row(weight(name), x);
  }
  static std::vector<double> mapped_row(const std::vector<double>& w,
                                        const std::vector<double>& x) {
    std::vector<double> y(w.size() / x.size());
    for (std::size_t o = 0; o < y.size(); ++o)
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
    return y;
  }
  std::vector<double> normed(const std::string& name, std::vector<double> x) const {
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double root = std::sqrt(squares / double(x.size()) + tiny_decoder_shape.eps);
    for (std::size_t j = 0; j < x.size(); ++j) x[j] *= weight(name)[j] / root;
    return x;
  }
  rows block(const std::string& name, rows x) const {
    const std::size_t width = x[0].size(), h = width / 2;
    rows q, k, v;
    for (const auto& row : x) {
      const auto u = normed(name + ".attention.norm.weight", row);
      q.push_back(times(name + ".attention.q.weight", u));
      k.push_back(times(name + ".attention.k.weight", u));
      v.push_back(times(name + ".attention.v.weight", u));
    }
    for (std::size_t t = 0; t < x.size(); ++t) {
      std::vector<double> mixed(width);
      for (std::size_t head = 0; head < 2; ++head) {
        std::vector<double> p;
        for (const auto& key : k)
          p.push_back(std::exp(std::inner_product(q[t].begin() + index(head * h),
                                                  q[t].begin() + index(head * h + h),
                                                  key.begin() + index(head * h), 0.0) /
                               std::sqrt(double(h))));
        const double sum = std::accumulate(p.begin(), p.end(), 0.0);
        for (std::size_t s = 0; s < x.size(); ++s)
          for (std::size_t j = head * h; j < head * h + h; ++j) mixed[j] += p[s] / sum * v[s][j];
      }
      const auto branch = times(name + ".attention.o.weight", mixed);
      for (std::size_t j = 0; j < width; ++j) x[t][j] += branch[j];
      auto hidden = times(name + ".ffn.wi.weight", normed(name + ".ffn.norm.weight", x[t]));
      for (double& z : hidden) z *= 0.5 * std::erfc(-z / std::sqrt(2.0));
      auto y = times(name + ".ffn.wo.weight", hidden);
      for (std::size_t j = 0; masked_ && y.size() == width && j < width; ++j) y[j] += x[t][j];
      x[t] = y;
    }
    return x;
  }
  std::map<std::string, std::vector<double>> all_{};
  bool masked_;
};

/// Random weights of a model whose blocks are the identity, so that a token's logits are its own.
template <class M>
ln::weights<M, double> without_core() {
  ln::weights<M, double> w;
  randomize(w);
  w.visit([](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    const std::string name = where.str();
    if (name.starts_with("blocks.") &&
        (name.ends_with("attention.o.weight") || name.ends_with("ffn.down.weight")))
      std::fill_n(values_of(leaf), info.size(), 0.0);
  });
  return w;
}
/// The logits [slots, values] of row i.
std::span<const double> token_logits(const std::vector<double>& logits, index i) {
  return std::span(logits).subspan(at(i * slots * values), at(slots * values));
}

template <class M>
void check_ends() {
  const auto w = without_core<M>();
  const plain_ends plain(w);
  const byte_tokens data(5, 9, slots);  // more than are worked on at a time
  const auto logits = logits_of(ln::pack(w), data);
  for (index i = 0; i < 45; ++i) {
    const auto expected =
        plain.logits(plain.embedding(data.bytes.data() + data.inputs[at(i)] * slots));
    BOOST_TEST(distance(token_logits(logits, i), expected) <= 1e-12 * (1 + magnitude(expected)));
  }
}

/// Loss, logits and gradients of a batch.
template <class M>
struct evaluated {
  ln::loss_sum loss;
  std::vector<double> logits;
  ln::gradients<M, double> gradient;

  explicit evaluated(const byte_tokens& data) {
    ln::weights<M, double> w;
    randomize(w);
    auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
    logits = logits_of(ln::pack(w), data);
    loss = train->accumulate(data.view(), ln::reconstruction{0.5});
    gradient = std::move(train->gradient());
  }
};

/// The loss of one label alone under weights that make every byte value equally likely.
template <class M>
ln::loss_sum uniform_loss(std::vector<token> bytes) {
  ln::weights<M> w;
  const auto p = ln::pack(w);
  auto score = ln::evaluator<M>::open(p, {.target = 1});
  const token first = 0;
  return score->loss({&first, &first, 1, 1, bytes.data(), 1});
}

}  // namespace

BOOST_AUTO_TEST_SUITE(byte_pooled)

BOOST_AUTO_TEST_CASE(gradients_corrected, *boost::unit_test::label("numbers")) {
  check_gradients<corrected>();
  check_gradients<corrected>(ln::reconstruction{0.7});
  check_gradients<corrected>(ln::reconstruction{0.7}, 0.25, 0.1);
}
BOOST_AUTO_TEST_CASE(gradients_of_exits, *boost::unit_test::label("numbers")) {
  const byte_tokens data(2, 3, slots);
  ln::weights<corrected, double> w;
  randomize(w);
  const double weights[] = {0.3, 0.7};
  static_assert(corrected::exits == 2);
  const ln::gradient_report r =
      ln::check_model_gradients(w, data.view(), data.limits(), {3, 1, 2, 0.25}, 1e-5, 0.1,
                                ln::reconstruction{0.7}, ln::exit_calls{weights});
  BOOST_TEST(r.passed(), text_of(r));
}
BOOST_AUTO_TEST_CASE(gradients_published, *boost::unit_test::label("numbers")) {
  check_gradients<published>();
  check_gradients<published>(ln::reconstruction{0.7});
}

BOOST_AUTO_TEST_CASE(ends_equal_plain_loops) {
  check_ends<corrected>();
  check_ends<published>();
}

// A token's vector is its own: the same bits whichever tokens stand beside it.
BOOST_AUTO_TEST_CASE(tokens_depend_on_their_own_bytes) {
  const auto w = without_core<corrected>();
  const auto p = ln::pack(w);
  const byte_tokens data(5, 9, slots);
  const auto logits = logits_of(p, data);
  for (index i = 0; i < 45; ++i) {
    byte_tokens alone(1, 1, slots);
    alone.inputs = {data.inputs[at(i)]};
    alone.bytes = data.bytes;
    BOOST_TEST(same_bits(token_logits(logits, i), logits_of(p, alone)));
  }
  byte_tokens turned = data;  // the order of its bytes matters
  const auto longer = std::ranges::find_if(data.inputs, [](token t) { return t % slots > 0; });
  BOOST_REQUIRE((longer != data.inputs.end() && *longer != 8));
  const token word = *longer;
  const index i = longer - data.inputs.begin();
  std::swap(turned.bytes[at(word * slots)], turned.bytes[at(word * slots + 1)]);
  BOOST_TEST(distance(token_logits(logits_of(p, turned), i), token_logits(logits, i)) > 1e-3);
}

// What stands behind a token's first padding changes no bit, unless padding is read.
BOOST_AUTO_TEST_CASE(nothing_behind_the_end_matters) {
  const byte_tokens padded(3, 5, slots), dirty(3, 5, slots, 77);
  BOOST_REQUIRE(padded.bytes != dirty.bytes);
  {
    const evaluated<corrected> a(padded), b(dirty);
    BOOST_TEST(a.loss.nats == b.loss.nats);
    BOOST_TEST(a.loss.tokens == b.loss.tokens);
    BOOST_TEST(same_bits(a.logits, b.logits));
    BOOST_TEST(same_bytes(a.gradient, b.gradient));
  }
  const evaluated<published> a(padded), b(dirty);
  BOOST_TEST(distance(a.logits, b.logits) > 1e-3);
}

// Which slots count: corrected, the bytes and the first padding; published, all but byte_end.
BOOST_AUTO_TEST_CASE(counted_slots) {
  constexpr token pad = ln::byte_pad, end = ln::byte_end;
  const double each = std::log(258.0);
  const auto counts = [&](std::vector<token> bytes, index ours, index theirs) {
    const auto a = uniform_loss<corrected>(bytes), b = uniform_loss<published>(bytes);
    BOOST_TEST(a.tokens == ours);
    BOOST_TEST(b.tokens == theirs);
    BOOST_TEST(std::abs(a.nats - double(ours) * each) < 1e-5);
    BOOST_TEST(std::abs(b.nats - double(theirs) * each) < 1e-5);
  };
  counts({97, pad, pad, pad}, 2, 4);
  counts({97, 98, 99, pad}, 4, 4);
  counts({97, 98, 99, 100}, 4, 4);
  counts({end, pad, pad, pad}, 2, 3);
  counts({pad, pad, pad, pad}, 1, 4);
}

BOOST_AUTO_TEST_CASE(random_models_know_nothing) {
  const byte_tokens data(4, 16, 12);
  using M = ln::byte_pooled<tiny_decoder_shape, ln::pooling::paper>;
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  const auto p = ln::pack(w);
  auto score = ln::evaluator<M>::open(p, data.limits());
  const ln::loss_sum loss = score->loss(data.view());
  BOOST_TEST(std::abs(loss.mean() - std::log(258.0)) < 0.01);
  index counted = 0;  // bytes and end marks
  for (const token t : data.labels)
    if (t != ln::ignored) counted += t == 8 ? 2 : t % 12 + 2;
  BOOST_TEST(loss.tokens == counted);
}

// More tokens than are worked on at a time: the sums of their parts.
BOOST_AUTO_TEST_CASE(parts_add_up) {
  byte_tokens data(9, 9, slots, ln::byte_pad, 70);
  for (std::size_t i = 0; i < 70; ++i) data.inputs[i] = static_cast<token>((i * 3) % 70);
  ln::weights<corrected, double> w;
  randomize(w);
  auto whole = ln::trainer<corrected, ln::adamw, double>::open(w, data.limits());
  auto parts = ln::trainer<corrected, ln::adamw, double>::open(w, data.limits());
  const ln::loss_sum all = whole->accumulate(data.view(), ln::reconstruction{0.5});
  ln::loss_sum sum;
  for (index b = 0; b < 9; ++b) {
    const ln::loss_sum one = parts->accumulate(data.part(b, 1), ln::reconstruction{0.5});
    sum.nats += one.nats;
    sum.tokens += one.tokens;
  }
  BOOST_TEST(all.tokens == sum.tokens);
  BOOST_TEST(std::abs(all.nats - sum.nats) <= 1e-11 * sum.nats);
  ln::each_tensor_of(
      [](const ln::parameter_path& where, const ln::tensor_info& info, const auto& a,
         const auto& b) {
        const std::span<const double> x(a, at(info.size())), y(b, at(info.size()));
        BOOST_TEST(magnitude(x) > 1e-6, where.str());
        BOOST_TEST(distance(x, y) <= 1e-11 * magnitude(x), where.str());
      },
      whole->gradient(), parts->gradient());
}

// Weighted reconstruction adds the loss of the head on the embedder's own output, once for each
// occurrence of a token.
BOOST_AUTO_TEST_CASE(reconstruction_is_the_heads_loss_of_the_inputs) {
  const auto w = without_core<corrected>();
  const auto p = ln::pack(w);
  const byte_tokens data(3, 7, slots);
  byte_tokens own = data;
  own.labels = own.inputs;  // with blocks that do nothing, predicting the token itself
  auto score = ln::evaluator<corrected, double>::open(p, data.limits());
  const ln::loss_sum plain = score->loss(data.view()), again = score->loss(own.view()),
                     both = score->loss(data.view(), ln::reconstruction{0.25});
  BOOST_TEST(both.tokens == plain.tokens);
  BOOST_TEST(std::abs(both.nats - plain.nats - 0.25 * again.nats) <= 1e-11 * both.nats);
  BOOST_TEST(again.nats > 1);
}

BOOST_AUTO_TEST_CASE(batches_that_do_not_fit) {
  const byte_tokens data(2, 4, slots);
  const ln::limits l = data.limits();
  const auto check = [&](ln::refusal why, auto change) {
    byte_tokens other = data;
    ln::byte_batch b = other.view();
    change(other, b);
    BOOST_TEST(ln::to_string(corrected::refuses(b, l)) == ln::to_string(why));
    BOOST_TEST(!corrected::accepts(b, l));
  };
  using ln::refusal;
  BOOST_TEST(corrected::accepts(data.view(), l));
  check(refusal::token_outside_vocabulary, [](auto& own, auto&) { own.inputs[3] = 9; });
  check(refusal::token_outside_vocabulary, [](auto& own, auto&) { own.inputs[3] = ln::ignored; });
  check(refusal::label_outside_vocabulary, [](auto& own, auto&) { own.labels[3] = -1; });
  check(refusal::byte_outside_vocabulary,
        [](auto& own, auto&) { own.bytes[at(own.labels[3] * slots + 3)] = 258; });
  check(refusal::null_bytes, [](auto&, auto& b) { b.bytes = nullptr; });
  check(refusal::null_tokens, [](auto&, auto& b) { b.tokens = nullptr; });
  check(refusal::over_target, [](auto&, auto& b) { b.length = 5; });
  check(refusal::batch_over_limit, [](auto&, auto& b) { b.batch = 3; });
}

// Through the cache, in pieces, in padded batches, in blocks and in forks: the logits of whole
// sequences.
BOOST_AUTO_TEST_CASE(cached_is_uncached) {
  constexpr index length = 41;
  const byte_tokens data(3, length, slots);
  const auto p = random_packed<corrected, double>();
  const auto logits = logits_of(p, data);
  const auto after = [&](index b, index position) {
    return token_logits(logits, b * length + position - 1);
  };
  ln::limits l{
      .batch = 3, .target = length, .chunk = 36, .min_flops_per_thread = 0, .max_logits = 3};
  for (const index blocks : {index{0}, index{8}}) {
    l.kv_blocks = blocks;
    auto s = opened(p, l);
    index position = 0;
    for (const index piece : {1, 35, 1, 3, 1}) {
      const auto fed = s.feed(data.input(0, position, piece));
      position += piece;
      BOOST_TEST(distance(fed, after(0, position)) <= 1e-12);
      BOOST_TEST(s.position() == position);
      BOOST_TEST(std::ssize(s.fed()) == position * slots);
    }
    BOOST_TEST(s.feed(data.input(0, 0, 1)).empty());  // full
    s.reset();
    std::vector<token> padded;
    const std::vector<index> lengths{5, 2, 4};
    for (index b = 0; b < 3; ++b) {
      const auto row = data.input(b, 0, 5);
      padded.insert(padded.end(), row.begin(), row.end());
    }
    const auto fed = s.feed(padded, 3, lengths);
    for (index b = 0; b < 3; ++b)
      BOOST_TEST(distance(fed.subspan(at(b * slots * values), at(slots * values)),
                          after(b, lengths[at(b)])) <= 1e-12);
    s.reset();  // now both begin with the same token
    std::copy_n(padded.begin() + 2 * 5 * slots, slots, padded.begin());
    BOOST_TEST(!s.feed(padded, 3, lengths).empty());
    BOOST_TEST(s.fork(2, 0));
    BOOST_TEST(s.truncate(3));
    const auto more = s.feed_all(data.input(2, 3, 3));
    for (index i = 0; i < 3; ++i)
      BOOST_TEST(distance(more.subspan(at(i * slots * values), at(slots * values)),
                          after(2, 4 + i)) <= 1e-12);
    BOOST_TEST(std::equal(s.fed().begin(), s.fed().end(), data.input(2, 0, 6).begin()));
    BOOST_TEST(s.feed(std::span(padded).first(at(slots + 1))).empty());  // a token and a quarter
  }
}

// Losses, gradients, weights and texts do not depend on the number of threads.
BOOST_AUTO_TEST_CASE(threads_change_no_bit) {
  using M =
      ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<ln::byte_pooling{
                                              .bytes_per_token = 5, .width = 48, .between = {40}}>>;
  const auto run = [](int threads) {
    const byte_tokens data(4, 9, 5);
    ln::limits l = data.limits(threads);
    l.run_on = std_threads();
    ln::weights<M> w;
    ln::initialize(w, ln::seed{1});
    auto train = ln::trainer<M>::open(w, l, {ln::schedule::constant(1e-2)},
                                      {.clip = 0.5, .dropout = 0.1, .seed = 4});
    std::vector<double> all;
    for (int step = 0; step < 2; ++step) {
      all.push_back(train->step(data.view(), ln::reconstruction{}));
      all.push_back(train->gradient_norm());
    }
    all.push_back(train->accumulate(data.view()).nats);
    const auto keep = [&](const auto& block) {
      block.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
        all.insert(all.end(), values_of(leaf), values_of(leaf) + info.size());
      });
    };
    keep(train->gradient());
    keep(w);
    const auto p = ln::pack(w);
    auto s = ln::session<M>::open(p, l);
    ln::sampler sample({.seed = 3});
    ln::generate_bytes(*s, data.input(0, 0, 3), sample, [&](std::string_view text) {
      all.insert(all.end(), text.begin(), text.end());
    });
    return all;
  };
  const auto alone = run(1);
  BOOST_TEST(alone[2] < alone[0]);
  for (const int threads : {2, 3}) BOOST_TEST(same_bits(run(threads), alone), threads);
}

BOOST_AUTO_TEST_CASE(codes_instead_of_numbers) {
  const byte_tokens data(2, 6, slots);
  ln::weights<corrected> w;
  randomize(w);
  const auto exact = logits_of(ln::pack(w), data);
  const auto check = [&]<class S>(S) {
    const auto q = ln::quantize<S>(w);
    BOOST_TEST(same_bytes(ln::unpack(ln::pack(q)), q), S::name);
    const auto rounded = logits_of(ln::pack(q), data);
    const auto same = logits_of(ln::pack(decoded<corrected>(q)), data);
    BOOST_TEST(distance(rounded, same) <= 1e-5 * (1 + magnitude(same)), S::name);
    BOOST_TEST(distance(rounded, exact) > 1e-4, S::name);
  };
  check(ln::storage::int8{});
  check(ln::storage::int5<>{});
}

// The score of a token: the sum over the slots that training counts, and the best if all are.
BOOST_AUTO_TEST_CASE(scores_of_bytes) {
  std::vector<double> logits(at(slots * values));
  const auto score = [&](std::vector<token> bytes, ln::byte_rules rules) {
    return ln::score_of_bytes(std::span<const double>(logits), bytes, rules);
  };
  const token pad = ln::byte_pad, end = ln::byte_end;
  const double each = std::log(258.0);
  using rules = ln::byte_rules;
  BOOST_TEST(distance_of(score({97, pad, pad, pad}, rules::corrected).log_probability, -2 * each) <
             1e-12);
  BOOST_TEST(distance_of(score({97, pad, pad, pad}, rules::repository).log_probability, -4 * each) <
             1e-12);
  BOOST_TEST(distance_of(score({end, pad, pad, pad}, rules::repository).log_probability,
                         -3 * each) < 1e-12);
  logits[97] = 1;
  BOOST_TEST(!score({97, pad, pad, pad}, rules::corrected).best);
  logits[at(values + pad)] = 1;
  BOOST_TEST(score({97, pad, pad, pad}, rules::corrected).best);
  BOOST_TEST(!score({97, pad, pad, pad}, rules::repository).best);
}

// A session that ends early scores a text as the evaluator's exit does, and that exit is a model
// whose later layers do nothing.
BOOST_AUTO_TEST_CASE(exits_and_scores_of_paths) {
  constexpr index length = 12;
  byte_tokens data(1, length, slots);
  std::vector<token> text = data.inputs;
  text.push_back(4);
  data.labels.assign(text.begin() + 1, text.end());
  ln::weights<corrected, double> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto score = ln::evaluator<corrected, double>::open(p, data.limits());
  std::vector<ln::loss_sum> losses(2);
  BOOST_TEST(!score->exit_losses(data.view(), std::span(losses).first(1)));
  BOOST_REQUIRE(score->exit_losses(data.view(), losses));
  BOOST_TEST(losses[1].nats == score->loss(data.view()).nats);
  w.visit([](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    const std::string name = where.str();
    if (name == "blocks.1.attention.o.weight" || name == "blocks.1.ffn.down.weight")
      std::fill_n(values_of(leaf), info.size(), 0.0);
  });
  const auto shorter = ln::pack(w);
  auto alone = ln::evaluator<corrected, double>::open(shorter, data.limits());
  BOOST_TEST(losses[0].nats == alone->loss(data.view()).nats);
  BOOST_TEST(std::abs(losses[0].nats - losses[1].nats) > 1e-3);

  const auto word = [&](token id) {
    std::string bytes;
    for (const token* b = data.bytes.data() + id * slots; bytes.size() < at(slots); ++b) {
      if (*b >= ln::byte_pad) break;
      bytes += static_cast<char>(*b);
    }
    return bytes;
  };
  const ln::token_bytes table(data.vocabulary, word, slots),
      other(data.vocabulary, word, slots - 1);
  const std::span<const token> all(text);
  for (const index part : {1, 3})
    for (const index layers : {1, 2}) {
      auto s = opened(p, {.batch = 3, .target = length, .max_logits = part});
      BOOST_REQUIRE(s.exit_after(layers));
      ln::session_scorer paths(s, table);
      std::vector<ln::token_score> scores(12), again(3), more(2);
      BOOST_REQUIRE(paths.begin(all.first(5), std::span(scores).first(4)));
      BOOST_REQUIRE(paths.score(all.subspan(5), std::span(scores).subspan(4)));
      double nats = 0;
      for (const ln::token_score& one : scores) nats -= one.log_probability;
      BOOST_TEST(std::abs(nats - losses[at(layers - 1)].nats) <= 1e-11 * nats);
      // Two paths at once, of which one is the text's.
      const std::vector<token> path{2, 0};
      const std::vector<ln::continuation> both{{all.subspan(5, 3), again}, {path, more}};
      BOOST_REQUIRE(ln::score_all(paths, both));
      for (std::size_t i = 0; i < 3; ++i)
        BOOST_TEST(distance_of(again[i].log_probability, scores[i + 4].log_probability) <= 1e-11);
      BOOST_REQUIRE(paths.score(path, std::span(scores).first(2)));
      for (std::size_t i = 0; i < 2; ++i)
        BOOST_TEST(distance_of(more[i].log_probability, scores[i].log_probability) <= 1e-11);
      for (const token unknown : {9, -1}) {
        BOOST_TEST(!paths.begin(std::span(&unknown, 1), {}));
        BOOST_REQUIRE(paths.begin(all.first(5), {}));
        BOOST_TEST(!paths.score(std::span(&unknown, 1), std::span(more).first(1)));
      }
      ln::session_scorer unfit(s, other);
      BOOST_TEST(!unfit.begin(all.first(5), {}));
    }
}

// A model that is trained on one text knows it, by its bytes alone, whatever ids its tokens have.
BOOST_AUTO_TEST_CASE(learns_a_text_and_says_it) {
  const std::vector<std::string> words{"",     "The",  " cat",  " sat",
                                       " on",  " the", " mat",  ",",
                                       " and", " the", " moon", " is extraordinarily"};
  const ln::token_bytes table(std::ssize(words), [&](token id) { return words[at(id)]; });
  const std::vector<token> inputs{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 7, 2, 3},
      labels{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 7, 2, 3, 0};
  const auto length = std::ssize(inputs);
  const ln::byte_batch batch{inputs.data(), labels.data(), 1,
                             length,        table.data(),  table.vocabulary()};
  using M = ln::byte_pooled<
      ln::decoder_shape{.d_model = 32,
                        .d_ff = 48,
                        .heads = 4,
                        .kv_heads = 2,
                        .layers = 1,
                        .vocabulary = 12,
                        .context = 32},
      ln::pooling::of<ln::byte_pooling{.width = 32, .between = {32}, .head_blocks = 2}>>;
  ln::weights<M> w;
  ln::initialize(w, ln::seed{1});
  const ln::limits l{.target = length};
  auto train = ln::trainer<M>::open(w, l, {ln::schedule::constant(3e-3)});
  for (int step = 0; step < 300; ++step) (void)train->step(batch, ln::reconstruction{0.1});
  const ln::loss_sum loss = train->evaluate(batch);
  BOOST_TEST(loss.mean() < 0.01);
  BOOST_TEST(ln::bits_per_byte(loss.nats, table.bytes_in(labels)) < 0.02);

  const auto p = ln::pack(w);
  auto s = ln::session<M>::open(p, {.target = 32});
  const auto say = [&](auto&& emit, const ln::generation_options& g = {}) {
    return ln::generate_bytes(*s, table.bytes_of(std::span(inputs).first(1)), ln::greedy{}, emit,
                              g);
  };
  std::string text;
  const auto append = [&](std::string_view more) { text += more; };
  BOOST_TEST(say(append) == 13);
  BOOST_TEST(text == " cat sat on the mat, and the moon is extraord, cat sat");
  text.clear();
  const token stop[] = {'t'};
  BOOST_TEST(say(append, {.stop = stop}) == 1);
  BOOST_TEST(text == " ca");
  BOOST_TEST(say(append, {.tokens = 3}) == 3);
  BOOST_TEST(say([&](std::string_view) { return false; }) == 1);
  BOOST_TEST(s->last_refusal().empty());
  // What ends early or is not begun says why.
  BOOST_TEST(say(append, {.tokens = -1}) == 0);
  BOOST_TEST(s->last_refusal() == ln::to_string(ln::refusal::options));
  auto small = ln::session<M>::open(p, {.target = 3});
  const auto first = table.bytes_of(std::span(inputs).first(1));
  BOOST_TEST(ln::generate_bytes(*small, first, ln::greedy{}, append, {.tokens = 9}) == 3);
  BOOST_TEST(small->last_refusal() == ln::to_string(ln::refusal::over_target));
  const auto none = [](auto&&...) { return ln::no_token; };
  BOOST_TEST(ln::generate_bytes(*small, first, none, append) == 0);
  BOOST_TEST(small->last_refusal() == ln::to_string(ln::refusal::nothing_chosen));
}

BOOST_AUTO_TEST_CASE(tables_of_tokens) {
  const std::vector<std::string> words{"a", "", "\xc3\xa9tude", "abcdef"};
  const ln::token_bytes table(
      4, [&](token id) { return std::string_view(words[at(id)]); }, 4);
  const token e = ln::byte_end, p = ln::byte_pad;
  const std::vector<token> expected{97, p, p, p, e, p, p, p, 195, 169, 116, 117, 97, 98, 99, 100};
  BOOST_TEST(std::vector<token>(table.data(), table.data() + 16) == expected,
             boost::test_tools::per_element());
  BOOST_TEST(table.vocabulary() == 4);
  BOOST_TEST(table.longer() == 2);
  const std::vector<token> ids{3, 0, 1, ln::ignored};
  BOOST_TEST(table.bytes_in(ids) == 5);
  BOOST_TEST(
      table.bytes_of(std::span(ids).first(2)) == (std::vector<token>{97, 98, 99, 100, 97, p, p, p}),
      boost::test_tools::per_element());
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  const auto by_old_name = table.slots_of(std::span(ids).first(3));
#pragma GCC diagnostic pop
  BOOST_TEST(by_old_name.size() == 12);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::byte_pooled_test
