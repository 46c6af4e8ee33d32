// SPDX-License-Identifier: MIT
// Documents packed in one row are as if each had a row of its own: logits, losses and gradients.

#include "support/data.hpp"
#include "support/encoders.hpp"
#include "support/scoring.hpp"

namespace test::documents_test {

namespace {

using ln::refusal;

/// The documents of a batch, packed in two rows, and one to a row.
struct packing {
  static constexpr index length = 61;  // more than one block of attention rows
  decoder_tokens packed;
  std::vector<index> documents;
  std::vector<std::pair<index, index>> parts;  ///< [first, last) of the rows put end to end

  explicit packing(index vocabulary,
                   std::vector<std::vector<index>> starts = {{0, 50, 51, 55}, {0, 7}})
      : packed(2, length, vocabulary), documents(at(2 * length)) {
    for (index b = 0; b < 2; ++b) {
      const auto& of = starts[at(b)];
      LINNET_REQUIRE_OK(
          ln::mark_documents(of, std::span(documents).subspan(at(b * length), length)));
      for (std::size_t i = 0; i < of.size(); ++i)
        parts.emplace_back(b * length + of[i],
                           b * length + (i + 1 < of.size() ? of[i + 1] : length));
    }
  }
  ln::decoder_batch view(bool restart = true) const {
    ln::decoder_batch b = packed.view();
    b.documents = documents.data();
    b.restart_positions = restart;
    return b;
  }
  /// Each document in a row of its own, padded behind it.
  decoder_tokens apart(index vocabulary) const {
    decoder_tokens made(std::ssize(parts), length, vocabulary);
    std::fill(made.labels.begin(), made.labels.end(), ln::ignored);
    for (index i = 0; i < made.batch; ++i) {
      const auto [first, last] = parts[at(i)];
      std::copy(packed.inputs.begin() + first, packed.inputs.begin() + last,
                made.inputs.begin() + i * length);
      std::copy(packed.labels.begin() + first, packed.labels.begin() + last,
                made.labels.begin() + i * length);
    }
    return made;
  }
};

/// Logits to the bit, loss and gradients up to the order of sums.
template <class M>
void check_packing() {
  const packing data(M::vocabulary);
  const decoder_tokens apart = data.apart(M::vocabulary);
  ln::weights<M, double> w;
  randomize(w, 3);
  const auto p = ln::pack(w);
  const ln::limits l = apart.limits();
  const auto together = logits_of(p, data.view(), l), alone = logits_of(p, apart.view(), l);
  for (index i = 0; i < std::ssize(data.parts); ++i) {
    const auto [first, last] = data.parts[at(i)];
    for (index t = first; t < last; ++t)
      BOOST_TEST(same_bits(row_of<M>(together, t), row_of<M>(alone, i * data.length + t - first)),
                 "document " << i << ", token " << t - first);
  }
  auto one = ln::trainer<M, ln::adamw, double>::open(w, l);
  LINNET_REQUIRE_OK(one);
  const ln::loss_sum a = one->accumulate(data.view());
  const std::vector<double> packed_gradient = all_values(one->gradient());
  auto other = ln::trainer<M, ln::adamw, double>::open(w, l);
  LINNET_REQUIRE_OK(other);
  const ln::loss_sum b = other->accumulate(apart.view());
  BOOST_TEST(a.tokens == b.tokens);
  BOOST_TEST(std::abs(a.nats - b.nats) < 1e-11 * a.nats);
  BOOST_TEST(distance(packed_gradient, all_values(other->gradient())) < 1e-11);
  // And the documents do matter.
  BOOST_TEST(distance(logits_of(p, data.packed.view(), l), together) > 1e-3);
}

/// Encoders: likewise, with padding behind the documents.
template <class M>
void check_encoder() {
  constexpr index length = 24;
  encoder_tokens data = encoder_data<M>(1, length);
  data.lengths[0] = 22;
  for (const index t : {22, 23}) data.labels[at(t)] = ln::ignored;
  std::vector<index> documents(at(length));
  const std::vector<index> starts{0, 7, 8, 20, length};
  LINNET_REQUIRE_OK(ln::mark_documents(std::span(starts).first(4), documents));
  ln::encoder_batch packed = data.view();
  packed.documents = documents.data();
  ln::weights<M, double> w;
  randomize(w, 3);
  const auto p = ln::pack(w);
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  LINNET_REQUIRE_OK(train);
  const ln::loss_sum together = train->accumulate(packed);
  const std::vector<double> gradient = all_values(train->gradient());
  auto other = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  LINNET_REQUIRE_OK(other);
  const auto logits = logits_of(p, packed, data.limits());
  ln::loss_sum sum;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    const index first = starts[i], last = (std::min)(starts[i + 1], data.lengths[0]);
    const ln::encoder_batch alone{
        data.inputs.data() + first, nullptr, data.labels.data() + first, 1, last - first,
        data.types.data() + first};
    const auto own = logits_of(p, alone, data.limits());
    for (index t = first; t < last; ++t)
      BOOST_TEST(same_bits(row_of<M>(logits, t), row_of<M>(own, t - first)));
    const ln::loss_sum one = other->accumulate(alone);
    sum.nats += one.nats, sum.tokens += one.tokens;
  }
  BOOST_TEST(together.tokens == sum.tokens);
  BOOST_TEST(std::abs(together.nats - sum.nats) < 1e-11 * sum.nats);
  BOOST_TEST(distance(gradient, all_values(other->gradient())) < 1e-11);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(documents)

BOOST_AUTO_TEST_CASE(packed_equals_apart) {
  check_packing<ln::decoder<tiny_decoder_shape>>();
  check_packing<ln::decoder<tiny_decoder_shape, ln::attention::sinks<3, 6>>>();
  check_packing<ln::decoder<tiny_decoder_shape, ln::position::learned>>();
}

BOOST_AUTO_TEST_CASE(encoders) { check_encoder<ln::encoder<tiny_encoder_shape>>(); }
// Blocks are counted from the beginning of a document.
BOOST_AUTO_TEST_CASE(encoders_in_blocks) {
  check_encoder<ln::encoder<tiny_encoder_shape, ln::attention::block_diagonal<5>>>();
}

// Learned positions that go on through the row are those of its tokens.
BOOST_AUTO_TEST_CASE(positions_may_go_on) {
  using M = ln::decoder<tiny_decoder_shape, ln::position::learned>;
  decoder_tokens data(1, 6, M::vocabulary);
  const std::vector<index> documents{0, 0, 0, 3, 3, 3};
  ln::decoder_batch b = data.view();
  b.documents = documents.data();
  b.restart_positions = false;
  ln::weights<M, double> w;
  randomize(w, 3);
  const auto before = logits_of(ln::pack(w), b, data.limits());
  BOOST_TEST(ln::check_model_gradients(w, b, data.limits()).passed());
  w.visit([](const ln::parameter_path& at, const ln::tensor_info&, auto& leaf) {
    if (at.str() == "position.weight")  // the second document's, where a row of its own has them
      std::copy_n(values_of(leaf) + 3 * M::d, 3 * M::d, values_of(leaf));
  });
  decoder_tokens alone(1, 3, M::vocabulary);
  std::copy_n(data.inputs.begin() + 3, 3, alone.inputs.begin());
  const auto own = logits_of(ln::pack(w), alone);
  for (index t = 0; t < 3; ++t) BOOST_TEST(same_bits(row_of<M>(before, 3 + t), row_of<M>(own, t)));
}

// Any number of threads gives the same bits.
BOOST_AUTO_TEST_CASE(any_threads, *boost::unit_test::label("tsan")) {
  using M = ln::decoder<tiny_decoder_shape>;
  const packing data(M::vocabulary);
  std::vector<std::vector<double>> made;
  for (const int threads : {1, 3}) {
    ln::weights<M, double> w;
    randomize(w, 3);
    ln::limits l = data.packed.limits(threads);
    if (threads > 1) l.run_on = std_threads();
    auto train = ln::trainer<M, ln::adamw, double>::open(w, l);
    LINNET_REQUIRE_OK(train);
    for (int step = 0; step < 2; ++step) BOOST_TEST(ln::is_finite(train->step(data.view())));
    made.push_back(all_values(w));
  }
  BOOST_TEST(same_bits(made[0], made[1]));
}

// What would carry tokens from one document to the next is refused.
BOOST_AUTO_TEST_CASE(states_do_not_cross) {
  const auto refuses = [](auto model) {
    using M = decltype(model);
    const packing data(M::vocabulary);
    return M::refuses(data.view(), data.packed.limits());
  };
  namespace at = ln::attention;
  constexpr auto& shape = tiny_decoder_shape;
  BOOST_TEST((refuses(ln::decoder<shape, at::prefix>{}) == refusal::none));
  BOOST_TEST((refuses(ln::decoder<shape, at::hadamard<at::sliding_window<3>>>{}) == refusal::none));
  BOOST_TEST((refuses(ln::decoder<shape, at::linear<>>{}) == refusal::documents_unknown));
  BOOST_TEST((refuses(ln::decoder<shape, at::lsh<4, 3>>{}) == refusal::documents_unknown));
  BOOST_TEST((refuses(ln::decoder<shape, at::longformer<4, 1>>{}) == refusal::documents_unknown));
  BOOST_TEST((refuses(ln::rwkv4<shape>{}) == refusal::documents_unknown));
  BOOST_TEST(
      (refuses(ln::decoder<shape, ln::ffn::rwkv4_channel_mix>{}) == refusal::documents_unknown));
  BOOST_TEST((refuses(ln::decoder<shape, ln::depths::mixture_of_depths<0.5>>{}) ==
              refusal::documents_unknown));
  using classifier = ln::encoder<tiny_encoder_shape, ln::head::sequence_classification<3>>;
  static_assert(!classifier::supports_documents &&
                ln::encoder<tiny_encoder_shape>::supports_documents);
}

BOOST_AUTO_TEST_CASE(starts_that_are_no_documents) {
  std::vector<index> documents(9, -1);
  const auto wrong = [&](std::vector<index> starts, const std::string& says) {
    const auto made = ln::mark_documents(starts, documents);
    BOOST_REQUIRE(!made);
    BOOST_TEST(made.error().message().find(says) != std::string::npos, made.error().message());
    BOOST_TEST((documents == std::vector<index>(9, -1)));
  };
  wrong({}, "at least one document");
  wrong({1, 3}, "starts[0]");
  wrong({0, 3, 3}, "no document is empty");
  wrong({0, 5, 3}, "documents follow each other");
  wrong({0, 9}, "below the row's length, 9");
  LINNET_REQUIRE_OK(ln::mark_documents(std::vector<index>{0, 2, 8}, documents));
  BOOST_TEST((documents == std::vector<index>{0, 0, 2, 2, 2, 2, 2, 2, 8}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::documents_test
