// SPDX-License-Identifier: MIT
// BitNet b1.58 from scratch: a decoder with ternary weights and int8 inputs is trained, saved as it
// ships, and writes what the trainer's model would.

#include <linnet/json.hpp>

#include "support/data.hpp"
#include "support/models.hpp"

namespace test::ternary_test {

namespace {

using model = ln::decoder<tiny_decoder_shape, ln::attention::sub_norm<>, ln::ffn::sub_norm<>>;
using windowed = ln::decoder<tiny_decoder_shape, ln::bias::all,
                             ln::attention::sub_norm<ln::attention::sliding_window<3>>,
                             ln::ffn::sub_norm<ln::ffn::gelu>>;
using bit = ln::storage::with_compute<ln::storage::ternary, ln::compute::int8>;
using stored = ln::storage::per_role<bit, ln::storage::embedding<ln::storage::bf16>>;
using deployed = ln::quantized<model, stored>;

BOOST_AUTO_TEST_SUITE(ternary)

BOOST_AUTO_TEST_CASE(gradients_with_norms_inside) {
  check_model<model>(data_for<model>(2, 5, 4));
  check_model<windowed>(data_for<windowed>(2, 5, 4), 0.2);
}

// Text goes round and round, so that greedy decoding has one right answer.
BOOST_AUTO_TEST_CASE(trained_from_scratch_and_shipped) {
  constexpr index length = 24;
  std::vector<token> text(at(2 * length + 1));
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<token>(i * i % 11);
  const ln::decoder_batch batch{text.data(), text.data() + 1, 2, length};
  ln::weights<model> w;
  ln::initialize(w, ln::seed{3});
  auto train = ln::trainer<model, ln::adamw, float, ln::compute::fake_quantized<stored>>::open(
      w, {.batch = 2, .target = length}, {.rate = ln::schedule::constant(1e-2)});
  BOOST_REQUIRE(static_cast<bool>(train));
  const double first = train->step(batch);
  for (int i = 0; i < 250; ++i) (void)train->step(batch);
  const double last = train->evaluate(batch).mean();
  BOOST_TEST(first > 2);
  BOOST_TEST(last < 0.25 * first);
  // What ships is read from a file.
  const scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_safetensors(train->quantized(), folder.path("bit.safetensors")));
  ln::weights<deployed> shipped;
  LINNET_REQUIRE_OK(ln::load_safetensors(shipped, folder.path("bit.safetensors")));
  const auto p = ln::pack(shipped);
  std::vector<float> fake(at(2 * length * 11)), got(fake.size());
  (void)train->evaluate(batch, fake);
  auto judge = ln::evaluator<deployed>::open(p, {.batch = 2, .target = length});
  BOOST_TEST(std::abs(judge->loss(batch, std::span<float>(got)).mean() - last) < 1e-4 * first);
  BOOST_TEST(distance(got, fake) < 1e-3 * magnitude(fake));
  int codes[4] = {};
  train->quantized().visit(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
        if constexpr (requires { leaf.scales; })
          if (info.kind == ln::role::matrix)
            for (index r = 0; r < info.rows; ++r)
              for (index j = 0; j < info.columns; ++j)
                if constexpr (std::remove_cvref_t<decltype(leaf)>::storage::shared_bits == 2)
                  ++codes[leaf.code(r, j, info.columns)];
      });
  BOOST_TEST(codes[0] > 50);
  BOOST_TEST(codes[1] > 50);
  BOOST_TEST(codes[2] == 0);
  BOOST_TEST(codes[3] > 50);
  // A session writes the most likely tokens of the trainer's forward pass.
  auto run = ln::session<deployed>::open(p, {.target = length});
  index right = 0, agree = 0;
  for (index i = 0; i < length; ++i) {
    const auto logits = run->feed({&text[at(i)], 1});
    BOOST_REQUIRE(!logits.empty());
    const auto best = [](const float* x) { return std::max_element(x, x + 11) - x; };
    right += best(logits.data()) == text[at(i + 1)];
    agree += best(logits.data()) == best(fake.data() + i * 11);
  }
  BOOST_TEST(agree == length);
  BOOST_TEST(right > length / 2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::ternary_test
