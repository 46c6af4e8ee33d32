// SPDX-License-Identifier: MIT
// Decoders behind images: every gradient, images that stand for tokens, the projector in plain
// loops, masks, sessions, threads, training, and what is refused.

#include <map>
#include <numeric>

#include "support/data.hpp"
#include "support/images.hpp"

namespace test::image_text_test {

namespace {

using ln::refusal;

/// One block over images of 4 x 4 grey pixels.
template <ln::index Patch, bool ClassToken>
using grey = ln::embedding::patches<4, 4, 1, Patch, ClassToken>;
template <ln::index Patch, bool ClassToken>
inline constexpr ln::encoder_shape grey_shape{.d_model = 4,
                                              .d_ff = 5,
                                              .heads = 2,
                                              .layers = 1,
                                              .context = grey<Patch, ClassToken>::tokens,
                                              .types = 0,
                                              .eps = 1e-3};
template <ln::index Patch, bool ClassToken>
using grey_vit = ln::encoder<grey_shape<Patch, ClassToken>, ln::norm_placement::pre,
                             grey<Patch, ClassToken>, ln::head::none>;
inline constexpr ln::decoder_shape one_block = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.layers = 1;
  s.vocabulary = 7;
  return s;
}();
/// 16 patches become four rows behind a norm; learned positions run over image and text.
using unshuffled = ln::image_text<
    ln::decoder<one_block, ln::norm::layer_norm, ln::position::learned, ln::ffn::gelu_tanh>,
    grey_vit<1, true>, ln::projector::mlp<2>>;
/// Four patches are four rows that see each other.
using prefixed = ln::image_text<ln::decoder<one_block, ln::attention::prefix>, grey_vit<2, false>,
                                ln::projector::linear<>>;
static_assert(unshuffled::image_tokens == 4 && prefixed::image_tokens == 4);
static_assert(unshuffled::parameters() == unshuffled::text::parameters() +
                                              unshuffled::vision::parameters() + 2 * 16 + 16 * 8 +
                                              8 + 8 * 8 + 8);
static_assert(prefixed::parameters() ==
              prefixed::text::parameters() + prefixed::vision::parameters() + 4 * 8 + 8);
static_assert(ln::decoding_model<prefixed> && ln::decoding_model<unshuffled>);
/// An encoder whose attention takes fewer rows than its images have.
using short_sighted =
    ln::image_text<ln::decoder<one_block>,
                   ln::encoder<grey_shape<1, false>, ln::norm_placement::pre, grey<1, false>,
                               ln::attention::linformer<2, 8>, ln::head::none>,
                   ln::projector::linear<>>;
static_assert(short_sighted::check_limits({.target = 4}).most == 8);

/// Texts with an image each.
template <class M>
struct captions {
  decoder_tokens texts;
  std::vector<float> pixels;
  std::vector<index> prefixes;

  explicit captions(index batch = 2, index length = 4)
      : texts(batch, length, M::vocabulary), pixels(normal<float>(batch * 16, 7)) {
    for (index b = 0; M::takes_prefix && b < batch; ++b) prefixes.push_back(b);
  }
  ln::image_text_batch view() const {
    ln::image_text_batch b{texts.view(), {pixels.data(), 4, 4, 1}};
    if (!prefixes.empty()) b.prefixes = prefixes.data();
    return b;
  }
  ln::limits limits(int threads = 1) const { return texts.limits(threads); }
};

template <class M>
std::vector<double> logits_of(const ln::weights<M, double>& w, const typename M::batch& b) {
  const auto p = ln::pack(w);
  auto run = ln::evaluator<M, double>::open(p, {.batch = b.batch, .target = b.length});
  LINNET_REQUIRE_OK(run);
  std::vector<double> logits(at(b.batch * b.length * M::vocabulary));
  BOOST_TEST(ln::is_finite(run->loss(b, logits).nats));
  return logits;
}

/// The part of a model's weights that is `Part`, as weights of its own.
template <class Part, class P>
ln::weights<Part, double> part_of(P& whole) {
  ln::weights<Part, double> part;
  Part::visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& to,
                 auto& from) { std::copy_n(values_of(from), info.size(), values_of(to)); },
              ln::parameter_path{}, part.tree(), whole);
  return part;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(image_texts)

// [x(2i, 2j), x(2i, 2j + 1), x(2i + 1, 2j), x(2i + 1, 2j + 1)] side by side.
BOOST_AUTO_TEST_CASE(pixel_unshuffle) {
  using images = ln::embedding::patches<4, 6, 1, 1, true>;
  using U = ln::pixel_unshuffle<images, 2, 2>;
  static_assert(U::tokens == 6 && U::width == 8);
  std::vector<double> x(2 * 25 * 2), y(2 * 6 * 8), back(x.size());
  std::iota(x.begin(), x.end(), 0.0);
  const ln::ops::execution on{ln::team{}, ln::simd::best()};
  U::forward(on, 2, x.data(), y.data());
  for (index b = 0; b < 2; ++b)
    for (index i = 0; i < 2; ++i)
      for (index j = 0; j < 3; ++j)
        for (index part = 0; part < 4; ++part) {
          const index row = 2 * i + part / 2, column = 2 * j + part % 2;
          for (index c = 0; c < 2; ++c)
            BOOST_TEST(y[at(((b * 2 + i) * 3 + j) * 8 + part * 2 + c)] ==
                       static_cast<double>((b * 25 + 1 + row * 6 + column) * 2 + c));
        }
  U::backward(on, 2, y.data(), back.data());
  for (index i = 0; i < 100; ++i)
    BOOST_TEST(back[at(i)] == (i % 50 < 2 ? 0.0 : static_cast<double>(i)));  // no class token
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_model<unshuffled>(captions<unshuffled>(), 0.25);
  check_model<prefixed>(captions<prefixed>());
}

// Where the projector gives the embedding of a token whatever it reads, an image is as many tokens
// of that kind, in their places, and what sees each other is as of a text.
BOOST_AUTO_TEST_CASE(images_that_are_tokens) {
  using M = prefixed;
  constexpr token id = 3;
  ln::weights<M, double> w;
  randomize(w);
  std::fill_n(w.tree().projector.weight.data, 4 * 8, 0.0);
  std::copy_n(w.tree().text.embedding.data + id * 8, 8, w.tree().projector.bias);
  const auto text = part_of<M::text>(w.tree().text);
  const captions<M> data;
  const auto got = logits_of(w, data.view());
  decoder_tokens whole(2, 8, M::vocabulary);
  std::vector<index> prefixes;
  for (index b = 0; b < 2; ++b) {
    std::fill_n(whole.inputs.begin() + b * 8, 4, id);
    std::copy_n(data.texts.inputs.begin() + b * 4, 4, whole.inputs.begin() + b * 8 + 4);
    prefixes.push_back(4 + data.prefixes[at(b)]);
  }
  ln::decoder_batch b = whole.view();
  b.prefixes = prefixes.data();
  const auto want = logits_of(text, b);
  double worst = 0;
  for (index s = 0; s < 2; ++s)
    for (index i = 0; i < 4 * M::vocabulary; ++i)
      worst = (std::max)(worst, std::abs(got[at(s * 4 * M::vocabulary + i)] -
                                         want[at((s * 8 + 4) * M::vocabulary + i)]));
  BOOST_TEST(worst < 1e-12);
}

// The rows of an image by plain loops behind the encoder, as soft tokens before the text.
BOOST_AUTO_TEST_CASE(projector_by_hand) {
  using M = unshuffled;
  ln::weights<M, double> w;
  randomize(w);
  const captions<M> data(1);
  const auto text = part_of<M::text>(w.tree().text);
  const auto vision = part_of<M::vision>(w.tree().vision);
  const auto eyes = ln::pack(vision);
  auto look = ln::embedder<M::vision, double>::open(eyes, {});
  LINNET_REQUIRE_OK(look);
  const auto states = look->hidden(ln::image_batch<M::vision>(data.view().images, 1));
  const auto base = ln::pack(text);
  auto prompt = ln::adapt<ln::prompt_tuning<4>>(base);
  LINNET_REQUIRE_OK(prompt);
  std::map<std::string, const double*> p;
  M::project::visit([&](const ln::parameter_path& at, const ln::tensor_info&,
                        auto& leaf) { p[at.str()] = values_of(leaf); },
                    ln::parameter_path{}, w.tree().projector);
  for (index row = 0; row < 4; ++row) {
    double x[16], mean = 0, square = 0, up[8];
    for (index part = 0; part < 4; ++part)
      for (index c = 0; c < 4; ++c) {
        const index y = row / 2 * 2 + part / 2, left = row % 2 * 2 + part % 2;
        x[part * 4 + c] = states[at((1 + y * 4 + left) * 4 + c)];
      }
    for (const double v : x) mean += v / 16;
    for (const double v : x) square += (v - mean) * (v - mean) / 16;
    for (index j = 0; j < 16; ++j)
      x[j] = (x[j] - mean) / std::sqrt(square + 1e-5) * p["norm.weight"][j] + p["norm.bias"][j];
    for (index j = 0; j < 8; ++j) {
      double sum = p["up.bias"][j];
      for (index k = 0; k < 16; ++k) sum += p["up.weight"][j * 16 + k] * x[k];
      up[j] = sum * 0.5 * std::erfc(-sum / std::sqrt(2.0));
    }
    for (index j = 0; j < 8; ++j) {
      double sum = p["down.bias"][j];
      for (index k = 0; k < 8; ++k) sum += p["down.weight"][j * 8 + k] * up[k];
      prompt->tree().prompt[row * 8 + j] = sum;
    }
  }
  const auto want = logits_of(*prompt, data.texts.view());
  const auto got = logits_of(w, data.view());
  BOOST_TEST(distance(got, want) <= 1e-11 * magnitude(want));
}

// Token by token behind an image, in chunks and pages, as the whole text at once.
BOOST_AUTO_TEST_CASE(sessions) {
  using M = unshuffled;
  constexpr index v = M::vocabulary;
  ln::weights<M, double> w;
  randomize(w);
  const captions<M> data;
  const auto want = logits_of(w, data.view());
  const auto p = ln::pack(w);
  for (const index blocks : {0, 4}) {
    const ln::limits l{.batch = 3, .target = 8, .chunk = 3, .kv_blocks = blocks, .max_logits = 3};
    auto run = ln::session<M, double>::open(p, l);
    LINNET_REQUIRE_OK(run);
    const auto near = [&](std::span<const double> got, index sequence, index at_token) {
      return got.size() >= at(v) &&
             distance(std::vector<double>(got.begin(), got.begin() + v),
                      std::vector<double>(want.begin() + (sequence * 4 + at_token) * v,
                                          want.begin() + (sequence * 4 + at_token + 1) * v)) <
                 1e-11;
    };
    const auto text = [&](index sequence, index from, index n) {
      return std::span(data.texts.inputs).subspan(at(sequence * 4 + from), at(n));
    };
    BOOST_TEST(run->capacity() == 8);
    BOOST_TEST(run->feed(text(0, 0, 1)).empty());
    BOOST_TEST(run->last_refusal() == ln::to_string(refusal::no_source));
    BOOST_TEST(!run->encode(ln::image_view{data.pixels.data(), 4, 2, 1}));
    BOOST_TEST(run->last_refusal() == ln::to_string(refusal::image_size));
    BOOST_REQUIRE(run->encode(data.view().images, 2));
    BOOST_TEST(run->capacity() == 8);
    BOOST_TEST(run->feed(std::vector<token>{0, 0, 0}, 3, {}).empty());  // the third has no image
    const token one[] = {text(0, 0, 1)[0], text(1, 0, 1)[0]};
    const auto first = run->feed(one, 2, {});
    BOOST_TEST((near(first, 0, 0) && near(first.subspan(at(v)), 1, 0)));
    BOOST_TEST((run->position(0) == 1 && run->fed(1)[0] == one[1]));
    BOOST_REQUIRE(run->fork(1, 2));  // with its image
    const auto all = run->feed_all(text(0, 1, 3));
    for (index i = 1; i < 4; ++i) BOOST_TEST(near(all.subspan(at((i - 1) * v)), 0, i));
    const token forked[] = {0, 0, text(1, 1, 1)[0]};
    BOOST_TEST(near(run->feed(forked, 3, {}).subspan(at(2 * v)), 1, 1));
    BOOST_REQUIRE((run->truncate(0, 2) && run->truncate(0, 0)));
    const token again[] = {text(0, 0, 1)[0], 0, text(1, 0, 1)[0]};  // each begins with its image
    const auto anew = run->feed(again, 3, {});
    BOOST_TEST((near(anew, 0, 0) && near(anew.subspan(at(2 * v)), 1, 0)));
    BOOST_TEST(near(run->reset_and_prefill(text(0, 0, 4)), 0, 3));
    BOOST_TEST(run->prefill(std::vector<token>{0, 0, 0, 0, 0}).empty());  // nine tokens of eight
    std::vector<token> written;
    BOOST_TEST(run->generate(text(0, 0, 4), ln::greedy{}, [&](token t) { written.push_back(t); },
                             {.tokens = 1}) == 1);
    const auto* const row = want.data() + 3 * v;
    BOOST_TEST(written[0] == std::max_element(row, row + v) - row);
  }
}
// A prompt and the image before it see each other, also beside sequences that have begun.
BOOST_AUTO_TEST_CASE(sessions_of_prefixes) {
  using M = prefixed;
  constexpr index v = M::vocabulary;
  ln::weights<M, double> w;
  randomize(w);
  captions<M> data;
  data.prefixes = {2, 2};
  const auto want = logits_of(w, data.view());
  data.prefixes = {0, 0};
  const auto unseen = logits_of(w, data.view());
  const auto p = ln::pack(w);
  auto run =
      ln::session<M, double>::open(p, {.batch = 2, .target = 8, .chunk = 2, .max_logits = 2});
  LINNET_REQUIRE_OK(run);
  const auto off = [&](std::span<const double> got, const std::vector<double>& from, index row) {
    double worst = got.size() >= at(v) ? 0 : 1;
    for (std::size_t i = 0; i < at(v) && worst < 1; ++i)
      worst = (std::max)(worst, std::abs(got[i] - from[at(row * v) + i]));
    return worst;
  };
  const auto& ids = data.texts.inputs;
  for (int twice = 0; twice < 2; ++twice) {
    BOOST_REQUIRE(run->encode(data.view().images, 2));
    BOOST_TEST(off(run->feed(std::span(ids).first(2)), want, 1) < 1e-11);
    const token mixed[] = {ids[2], 0, ids[4], ids[5]};
    const index lengths[] = {1, 2};
    const auto both = run->feed(mixed, 2, lengths);
    BOOST_TEST(off(both, want, 2) < 1e-11);
    BOOST_TEST(off(both.subspan(at(v)), want, 5) < 1e-11);
    BOOST_TEST((run->position(0) == 3 && run->position(1) == 2));
    const token next[] = {ids[3], ids[6]};
    const auto later = run->feed(next, 2, {});
    BOOST_TEST(off(later, want, 3) < 1e-11);
    BOOST_TEST(off(later.subspan(at(v)), want, 6) < 1e-11);
    BOOST_TEST(!run->truncate(1));  // a prompt cannot be cut
  }
  run->reset();
  BOOST_TEST(run->prefill(std::span(ids).first(3)).empty());  // more than limits.chunk
  const auto all = run->feed_all(std::span(ids).first(2));
  BOOST_TEST((off(all, unseen, 0) < 1e-11 && off(all.subspan(at(v)), unseen, 1) < 1e-11));
}

/// A text begins behind its image beside one that has room for one more token.
template <class M>
void begin_beside_a_full_one() {
  constexpr index v = M::vocabulary;
  ln::weights<M, double> w;
  randomize(w);
  const captions<M> data;
  const auto p = ln::pack(w);
  auto run = ln::session<M, double>::open(p, {.batch = 2, .target = 60, .chunk = 4});
  LINNET_REQUIRE_OK(run);
  BOOST_REQUIRE(run->encode(data.view().images, 2));
  const auto words = tokens(60, v, 5);
  const token first[] = {words[0], words[7]}, last[] = {words[59], words[7]};
  const auto copy = [](std::span<const double> x) {
    return std::vector<double>(x.begin(), x.end());
  };
  auto want = copy(run->feed(first, 2, {}));
  BOOST_REQUIRE(want.size() == at(2 * v));
  BOOST_REQUIRE(!run->prefill(std::span(words).subspan(1, 58)).empty());
  BOOST_TEST(run->position(0) == run->capacity() - 1);
  const auto alone = copy(run->feed(std::span(words).last(1)));
  BOOST_REQUIRE(alone.size() == at(v));
  std::copy(alone.begin(), alone.end(), want.begin());
  BOOST_REQUIRE((run->truncate(59, 0) && run->truncate(0, 1)));
  const auto both = copy(run->feed(last, 2, {}));
  BOOST_REQUIRE(both.size() == want.size());
  BOOST_TEST(distance(both, want) < 1e-11);
}
BOOST_AUTO_TEST_CASE(beginning_beside_a_full_one) {
  begin_beside_a_full_one<unshuffled>();  // the image's rows in parts; a table of positions
  begin_beside_a_full_one<prefixed>();    // the image with the prompt; rotary angles
  // Padding is where the last valid token is.
  const index past[] = {6, 0}, lengths[] = {1, 3};
  ln::context<double> ctx{.batch = 2, .length = 4, .lengths = lengths, .past = past};
  const index want[] = {6, 6, 6, 6, 0, 1, 2, 2};
  for (index row = 0; row < 8; ++row) BOOST_TEST(ctx.position_of(row) == want[row]);
}

BOOST_AUTO_TEST_CASE(threads_and_training) {
  using M = unshuffled;
  const captions<M> data(3);
  std::vector<double> gradients;
  for (const int n : {1, 3}) {
    ln::weights<M> w;
    ln::initialize(w, ln::seed{3});
    auto l = data.limits(n);
    l.run_on = std_threads();
    auto train = ln::trainer<M>::open(w, l, ln::adamw{.rate = ln::schedule::constant(1e-2)},
                                      {.dropout = 0.1});
    LINNET_REQUIRE_OK(train);
    (void)train->accumulate(data.view());
    const std::vector<double> all = all_values(train->gradient());
    if (n == 1) {
      gradients = all;
      train->update();
      for (int step = 0; step < 40; ++step) (void)train->step(data.view());
      // Images are told apart: the texts of others are less likely.
      captions<M> other = data;
      std::rotate(other.pixels.begin(), other.pixels.begin() + 16, other.pixels.end());
      const double own = train->evaluate(data.view()).mean();
      BOOST_TEST(own < 0.5);
      BOOST_TEST(own < train->evaluate(other.view()).mean());
    }
    BOOST_TEST(same_bits(all, gradients));
  }
}

BOOST_AUTO_TEST_CASE(refused_batches) {
  using M = unshuffled;
  const captions<M> data;
  const auto l = data.limits();
  const auto why = [&](auto change) {
    ln::image_text_batch b = data.view();
    change(b);
    return M::refuses(b, l);
  };
  const index first[] = {0, 0, 0, 0, 0, 0, 0, 0};
  BOOST_TEST((why([](auto&) {}) == refusal::none));
  BOOST_TEST((why([](auto& b) { b.images.pixels = nullptr; }) == refusal::null_images));
  BOOST_TEST((why([](auto& b) { b.images.height = 2; }) == refusal::image_size));
  BOOST_TEST((why([](auto& b) { b.images.channels = 3; }) == refusal::image_channels));
  BOOST_TEST((why([](auto& b) { b.length = 5; }) == refusal::over_target));
  BOOST_TEST((why([&](auto& b) { b.prefixes = first; }) == refusal::prefix_unknown));
  BOOST_TEST((why([&](auto& b) { b.documents = first; }) == refusal::documents_unknown));
  const auto over = M::check_limits({.target = 61});
  BOOST_TEST((over.field && over.most == 60));
  BOOST_TEST(M::check_limits({.target = 60}).field == nullptr);
  BOOST_TEST(M::longest({}) == 60);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::image_text_test
