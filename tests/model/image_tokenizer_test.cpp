// SPDX-License-Identifier: MIT
// Images as tokens: the nearest code by search, gradients that pass straight through against
// differences of plain loops, averages, training, the codec, and images in a text's vocabulary.

#include "support/data.hpp"
#include "support/images.hpp"

namespace test::image_tokenizer_test {

namespace {

using ln::refusal;
using patches = ln::embedding::patches<4, 4, 1, 2, false>;
inline constexpr ln::image_tokenizer_shape shape{.hidden = 3, .width = 2, .codes = 5};
using M = ln::image_tokenizer<patches, shape>;
static_assert(M::parameters() == (4 * 3 + 3) + (3 * 2 + 2) + 5 * 2 + (2 * 3 + 3) + (3 * 4 + 4));
static_assert(ln::language_model<M> && !ln::decoding_model<M>);

/// Two maps with a GELU between them; `p` are their matrices and biases in turn.
std::vector<double> two_maps(const std::vector<double>& x, const double* p, index out) {
  const index in = std::ssize(x);
  std::vector<double> up(3), y(at(out));
  for (index j = 0; j < 3; ++j) {
    double sum = p[3 * in + j];
    for (index k = 0; k < in; ++k) sum += p[j * in + k] * x[at(k)];
    up[at(j)] = sum * 0.5 * std::erfc(-sum / std::sqrt(2.0));
  }
  p += 3 * in + 3;
  for (index j = 0; j < out; ++j) {
    y[at(j)] = p[3 * out + j];
    for (index k = 0; k < 3; ++k) y[at(j)] += p[j * 3 + k] * up[at(k)];
  }
  return y;
}
constexpr index encoder_size = 23, codebook_size = 10;

/// The loss of images in plain loops. With `held`, codes and the rows of the encoder and the
/// codebook where no gradient flows are those of parameters `held`: its derivatives are those that
/// pass straight through.
double plain_loss(const std::vector<double>& p, const std::vector<float>& pixels,
                  const std::vector<double>& held) {
  double loss = 0;
  const index images = std::ssize(pixels) / 16;
  for (index row = 0; row < 4 * images; ++row) {
    std::vector<double> x;
    for (index i = 0; i < 4; ++i)
      x.push_back(static_cast<double>(
          pixels[at(row / 4 * 16 + (row % 4 / 2 * 2 + i / 2) * 4 + row % 2 * 2 + i % 2)]));
    const auto z = two_maps(x, p.data(), 2), z0 = two_maps(x, held.data(), 2);
    const double *const book = p.data() + encoder_size, *const book0 = held.data() + encoder_size;
    index best = 0;
    double least = 1e300;
    for (index k = 0; k < 5; ++k) {
      const double a = z0[0] - book0[2 * k], b = z0[1] - book0[2 * k + 1];
      if (a * a + b * b < least) least = a * a + b * b, best = k;
    }
    std::vector<double> through(2);
    for (index j = 0; j < 2; ++j) {
      const double e = book[2 * best + j], e0 = book0[2 * best + j];
      through[at(j)] = z[at(j)] + e0 - z0[at(j)];
      loss += ((z0[at(j)] - e) * (z0[at(j)] - e) + 0.25 * (z[at(j)] - e0) * (z[at(j)] - e0)) / 8;
    }
    const auto y = two_maps(through, p.data() + encoder_size + codebook_size, 4);
    for (index i = 0; i < 4; ++i) loss += (y[at(i)] - x[at(i)]) * (y[at(i)] - x[at(i)]) / 16;
  }
  return loss;
}

template <class W>
std::vector<double> all_numbers(const W& w) {
  std::vector<double> all;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
    all.insert(all.end(), values_of(leaf), values_of(leaf) + info.size());
  });
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(image_tokens)

BOOST_AUTO_TEST_CASE(losses_and_gradients) {
  const auto pixels = normal<float>(3 * 16, 4);
  ln::weights<M, double> w;
  randomize(w);
  const auto p = all_numbers(w);
  auto train = ln::trainer<M, ln::adamw, double>::open(w, {.batch = 3});
  LINNET_REQUIRE_OK(train);
  const auto batch = ln::image_batch<M>({pixels.data(), 4, 4, 1}, 3);
  const ln::loss_sum loss = train->accumulate(batch);
  BOOST_TEST(loss.tokens == 3);
  BOOST_TEST(std::abs(loss.nats - plain_loss(p, pixels, p)) < 1e-12);
  const auto got = all_numbers(train->gradient());
  BOOST_REQUIRE(got.size() == p.size());
  index nonzero = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    auto up = p, down = p;
    up[i] += 1e-5;
    down[i] -= 1e-5;
    const double want = (plain_loss(up, pixels, p) - plain_loss(down, pixels, p)) / 2e-5;
    BOOST_TEST(std::abs(got[i] - want) < 1e-8, i);
    nonzero += std::abs(want) > 1e-6;
  }
  BOOST_TEST(nonzero > 40);
}

BOOST_AUTO_TEST_CASE(averages) {
  double book[] = {0, 0, 1, 1};
  auto average = ln::codebook_average::open(book, 2, 2, 0.5, 0.0);
  LINNET_REQUIRE_OK(average);
  const double x[] = {1, 3, 3, 5, 9, 9};
  const token chosen[] = {1, 1, -1};
  average->follow(x, chosen, 3, book);
  // N = (0.5, 0.5 + 1), m = (0, 0), (0.5 + 2, 0.5 + 4)
  BOOST_TEST((book[0] == 0 && book[1] == 0));
  BOOST_TEST(std::abs(book[2] - 2.5 / 1.5) < 1e-15);
  BOOST_TEST(std::abs(book[3] - 4.5 / 1.5) < 1e-15);
  for (int step = 0; step < 60; ++step) average->follow(x, chosen, 2, book);
  BOOST_TEST(std::abs(book[2] - 2) < 1e-12);  // the mean of what chose it
  BOOST_TEST(std::abs(average->counts()[1] - 2) < 1e-12);
  BOOST_TEST(message(ln::codebook_average::open(book, 2, 2, 1.0)).find("decay") !=
             std::string::npos);
  // Smoothing: N' = (N + eps) / (n + K eps) n.
  double one[] = {2, 4};
  auto smooth = ln::codebook_average::open(one, 2, 1, 0.0, 0.5);
  const double rows[] = {6};
  const token first[] = {0};
  smooth->follow(rows, first, 1, one);
  BOOST_TEST(std::abs(one[0] - 6 / (1.5 / 2)) < 1e-12);
}

BOOST_AUTO_TEST_CASE(codec_and_training) {
  // Four kinds of patches, which five codes can tell apart.
  std::vector<float> pixels;
  for (index i = 0; i < 64; ++i) pixels.push_back((i / 2 + i / 8 + i / 16) % 2 ? 1.0F : -0.5F);
  std::vector<token> codes;
  std::vector<float> gradients;
  for (const int threads : {1, 3}) {
    ln::weights<M> w;
    ln::initialize(w, ln::seed{2});
    auto l = ln::limits{.batch = 4, .threads = threads, .min_flops_per_thread = 0};
    l.run_on = std_threads();
    auto train = ln::trainer<M>::open(w, l, ln::adamw{.rate = ln::schedule::constant(4e-2)});
    LINNET_REQUIRE_OK(train);
    const auto batch = ln::image_batch<M>({pixels.data(), 4, 4, 1}, 4);
    const double before = train->evaluate(batch).mean();
    for (int step = 0; step < 60; ++step) (void)train->step(batch);
    const double after = train->evaluate(batch).mean();
    BOOST_TEST(after < 0.5 * before);
    const auto p = ln::pack(w);
    auto run = ln::image_codec<M>::open(p, l);
    LINNET_REQUIRE_OK(run);
    const auto ids = run->encode({pixels.data(), 4, 4, 1}, 4);
    const std::vector<token> mine(ids.begin(), ids.end());
    BOOST_REQUIRE(mine.size() == 16u);
    const auto back = run->decode(mine);
    BOOST_REQUIRE(back.size() == 64u);
    double error = 0;
    for (std::size_t i = 0; i < 64; ++i)
      error += static_cast<double>((back[i] - pixels[i]) * (back[i] - pixels[i])) / 64;
    BOOST_TEST(error <= after + 1e-6);
    const auto all = all_numbers(w);
    const std::vector<float> numbers(all.begin(), all.end());
    if (threads == 1) codes = mine, gradients = numbers;
    BOOST_TEST((codes == mine));
    BOOST_TEST(same_bits(numbers, gradients));

    BOOST_TEST(run->encode({pixels.data(), 4, 2, 1}, 4).empty());
    BOOST_TEST(run->last_refusal() == ln::to_string(refusal::image_size));
    BOOST_TEST(run->decode(std::vector<token>{0, 1, 2}).empty());
    BOOST_TEST(run->decode(std::vector<token>{0, 1, 2, 5}).empty());
    BOOST_TEST(run->last_refusal() == ln::to_string(refusal::token_outside_vocabulary));
    // What is no number has no code, and no loss.
    auto bad = pixels;
    bad[0] = std::numeric_limits<float>::quiet_NaN();
    BOOST_TEST(run->encode({bad.data(), 4, 4, 1}, 1)[0] == ln::no_token);
    const auto refused = ln::image_batch<M>({bad.data(), 4, 4, 1}, 4);
    BOOST_TEST(!ln::is_finite(train->evaluate(refused).nats));
  }
}

BOOST_AUTO_TEST_CASE(one_vocabulary) {
  constexpr ln::fused_vocabulary v{.text = 10, .codes = 5, .length = 4};
  static_assert(v.begin() == 10 && v.end() == 11 && v.size() == 17 && v.of_code(4) == 16);
  static_assert(v.code_of(12) == 0 && v.code_of(11) == -1 && v.code_of(17) == -1);
  std::vector<token> text{1, 2};
  const std::vector<token> one{0, 4, 4, 1}, two{3, 3, 3, 3};
  BOOST_TEST(v.append(one, text));
  text.push_back(7);
  text.push_back(v.begin());  // an image that was not finished
  BOOST_TEST(v.append(two, text));
  const auto before = text;
  BOOST_TEST(!v.append(std::vector<token>{0, 0, 0}, text));
  BOOST_TEST(!v.append(std::vector<token>{0, 0, 0, 5}, text));
  BOOST_TEST((text == before));
  BOOST_TEST((text[2] == 10 && text[3] == 12 && text[4] == 16 && text[7] == 11));
  std::size_t from = 0;
  BOOST_TEST((v.next(text, from) == one));
  BOOST_TEST(from == 8u);
  BOOST_TEST((v.next(text, from) == two));
  BOOST_TEST(v.next(text, from).empty());
  BOOST_TEST(from == text.size());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::image_tokenizer_test
