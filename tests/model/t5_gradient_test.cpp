// SPDX-License-Identifier: MIT
// Whole T5 models: every parameter by central differences.

#include "support/models.hpp"

namespace test::t5_gradient_test {

namespace {

constexpr index sources[] = {3, 5, 2}, targets[] = {2, 3, 4};

/// Three sources with their targets, in one row or in a row for each.
struct packed_pairs {
  std::vector<token> source = tokens(10, 5, 1), labels = tokens(9, 5, 2);
  std::vector<index> source_documents = std::vector<index>(10),
                     target_documents = std::vector<index>(9);
  std::vector<token> alone = std::vector<token>(15),
                     alone_labels = std::vector<token>(12, ln::ignored);

  packed_pairs() {
    const index from[] = {0, 3, 8}, to[] = {0, 2, 5};
    BOOST_REQUIRE(ln::mark_documents(from, source_documents));
    BOOST_REQUIRE(ln::mark_documents(to, target_documents));
    for (index k = 0; k < 3; ++k) {
      std::copy_n(source.begin() + from[k], sources[k], alone.begin() + 5 * k);
      std::copy_n(labels.begin() + to[k], targets[k], alone_labels.begin() + 4 * k);
    }
  }
  ln::t5_batch row() const {
    return {source.data(),          nullptr, labels.data(), 1, 10, 9, source_documents.data(),
            target_documents.data()};
  }
  ln::t5_batch rows() const { return {alone.data(), sources, alone_labels.data(), 3, 5, 4}; }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(t5_gradients)

BOOST_AUTO_TEST_CASE(version_1_0) {
  using model = ln::t5<tiny_t5_shape>;
  check_model<model>(t5_data<model>());
  check_model<model>(t5_data<model>(), 0.25);
}

// Documents of one row are those of a row for each: loss, logits and gradient, by all three kinds
// of attention.
BOOST_AUTO_TEST_CASE(packed_documents) {
  using model = ln::t5<tiny_t5_shape>;
  static_assert(model::supports_documents && model::vocabulary >= 5);
  const packed_pairs data;
  ln::weights<model, double> w;
  randomize(w);
  const ln::limits l{.batch = 3, .source = 10, .target = 9, .min_flops_per_thread = 0};
  const ln::gradient_report r = ln::check_model_gradients(w, data.row(), l);
  BOOST_TEST(r.passed(), text_of(r));

  auto together = ln::trainer<model, ln::adamw, double>::open(w, l);
  auto apart = ln::trainer<model, ln::adamw, double>::open(w, l);
  const ln::loss_sum one = together->accumulate(data.row()), three = apart->accumulate(data.rows());
  BOOST_TEST(one.tokens == three.tokens);
  BOOST_TEST(std::abs(one.nats - three.nats) <= 1e-12 * three.nats);
  ln::each_tensor_of(
      [](const ln::parameter_path& where, const ln::tensor_info& info, const auto& a,
         const auto& b) {
        const std::span<const double> x(a, at(info.size())), y(b, at(info.size()));
        BOOST_TEST(distance(x, y) <= 1e-12 * (1 + magnitude(x)), where.str());
      },
      together->gradient(), apart->gradient());

  const auto p = ln::pack(w);
  auto e = ln::evaluator<model, double>::open(p, l);
  constexpr index width = model::vocabulary;
  std::vector<double> row(at(9 * width)), rows(at(12 * width));
  (void)e->loss(data.row(), std::span<double>(row));
  (void)e->loss(data.rows(), std::span<double>(rows));
  for (index k = 0, first = 0; k < 3; first += targets[k++])
    BOOST_TEST(distance(std::span(row).subspan(at(first * width), at(targets[k] * width)),
                        std::span(rows).subspan(at(4 * k * width), at(targets[k] * width))) <=
               1e-12);
  // Without them each sees the others.
  ln::t5_batch mixed = data.row();
  mixed.source_documents = mixed.target_documents = nullptr;
  BOOST_TEST(std::abs(e->loss(mixed).nats - one.nats) > 1e-3);

  // As many targets as sources, and none of a source that is padding alone.
  const auto refused = [&](auto change) {
    ln::t5_batch b = data.row();
    change(b);
    BOOST_TEST(ln::to_string(model::refuses(b, l)) ==
               ln::to_string(ln::refusal::documents_unpaired));
  };
  const index seven = 7;
  refused([](auto& b) { b.target_documents = nullptr; });
  refused([](auto& b) { b.source_documents = nullptr; });
  refused([&](auto& b) { b.source_lengths = &seven; });
  refused([&](auto& b) { b.target_length = 5; });
  using linear = ln::t5<tiny_t5_shape, ln::decoder_stack<ln::attention::linear<>>>;
  static_assert(!linear::supports_documents);
}

BOOST_AUTO_TEST_CASE(version_1_1) {
  using model = ln::t5<tiny_t5_shape, ln::ffn::gated_gelu, ln::tie::untied>;
  check_model<model>(t5_data<model>());
  check_model<model>(t5_data<model>(), 0.25);
}

// Re-parameterised in the encoder, none in the decoder, and the other way round.
BOOST_AUTO_TEST_CASE(reparam_and_skip) {
  using one = ln::t5<tiny_t5_shape, ln::encoder_stack<ln::ffn::reparam<3, 1.5>>,
                     ln::decoder_stack<ln::ffn::skip>>;
  using other = ln::t5<tiny_t5_shape, ln::encoder_stack<ln::ffn::skip>, ln::ffn::reparam<2, 1.2>>;
  check_model<one>(t5_data<one>());
  check_model<other>(t5_data<other>(), 0.25);
}

// Sources that reach the last bucket, one layer each, LayerNorm instead of RMSNorm.
BOOST_AUTO_TEST_CASE(far_distances) {
  constexpr ln::t5_shape shape{.d_model = 4,
                               .d_ff = 3,
                               .d_kv = 3,
                               .heads = 1,
                               .encoder_layers = 1,
                               .decoder_layers = 1,
                               .vocabulary = 5,
                               .buckets = 8,
                               .max_distance = 12};
  using model = ln::t5<shape, ln::ffn::linear_relu, ln::norm::layer_norm>;
  check_model<model>(t5_data<model>(2, 17, 16));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::t5_gradient_test
