// SPDX-License-Identifier: MIT
// Bottleneck adapters on frozen weights: every parameter by central differences, a start that
// changes no bit, and bottlenecks that scale what a branch makes.

#include "support/adapters.hpp"
#include "support/encoders.hpp"

namespace test::bottleneck_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;

/// Loss of a batch.
template <class M, class Data>
double loss_of(const ln::packed<M, double>& p, const Data& data) {
  auto e = ln::evaluator<M, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(e);
  return e->loss(data.view()).nats;
}

/// `rounding` of the loss where a branch adds the stream in another order without adapters.
template <class A, class Data>
void check(const Data& data, double dropout = 0, double rounding = 0) {
  adapted_pair<A> p;
  const double before = loss_of(p.base, data);
  BOOST_TEST(std::abs(loss_of(ln::pack(p.adapter), data) - before) <= rounding * before);
  randomize(p.adapter, 2);
  check_weights(p.adapter, data, dropout);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(bottlenecks)

BOOST_AUTO_TEST_CASE(gradients) {
  using everywhere = ln::adapted<small, ln::bottleneck<3>>;
  static_assert(everywhere::count == 4);
  static_assert(everywhere::parameters() == 4 * (2 * 3 * 8 + 3 + 8));
  check<everywhere>(decoder_data<small>());
  check<everywhere>(decoder_data<small>(), 0.25);
  using some =
      ln::adapted<small, ln::bottleneck<3, ln::target_modules<"ffn">, ln::activation_kind::tanh>>;
  static_assert(some::count == 2);
  check<some>(decoder_data<small>());
}
// The branch of an expert is that of all, and layers that share a branch share what is behind it.
BOOST_AUTO_TEST_CASE(experts_that_layers_share) {
  using experts = ln::ffn::experts<3, 2, ln::ffn::swiglu, ln::expert_choice{.balance = 0, .z = 0}>;
  using M = ln::decoder<tiny_decoder_shape, experts, ln::sharing::ffn>;
  using A = ln::adapted<M, ln::bottleneck<3>>;
  static_assert(A::count == 2 + 1);
  static_assert(ln::adapted<ln::decoder<tiny_decoder_shape, experts>, ln::bottleneck<3>>::count ==
                4);
  static_assert(
      ln::adapted<ln::decoder<tiny_decoder_shape, ln::sharing::all>, ln::bottleneck<3>>::count ==
      2);
  check<A>(decoder_data<M>(), 0, 1e-15);
}
BOOST_AUTO_TEST_CASE(encoder_behind_whose_branches_a_norm_stands) {
  using M = ln::encoder<tiny_encoder_shape>;
  check<ln::adapted<M, ln::bottleneck<3>>>(encoder_data<M>());
}
BOOST_AUTO_TEST_CASE(encoder_decoder) {
  using M = ln::t5<tiny_t5_shape>;
  using A = ln::adapted<M, ln::bottleneck<3>>;
  static_assert(A::count == 2 * 2 + 2 * 3);
  check<A>(t5_data<M>());
}

// D takes a branch and its opposite, U gives back their difference: s h, whatever the sign of h.
BOOST_AUTO_TEST_CASE(scales_branches) {
  using A = ln::adapted<small, ln::bottleneck<16, ln::all_branches, ln::activation_kind::relu>>;
  adapted_pair<A> p;
  constexpr double s = 0.75;
  for (auto& part : p.adapter.tree().parts)
    for (index i = 0; i < 16; ++i)
      for (index j = 0; j < 8; ++j) {
        const double sign = i % 8 != j ? 0 : i < 8 ? 1 : -1;
        part.down.data[i * 8 + j] = sign;
        part.up.data[j * 16 + i] = s * sign;
      }
  p.w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    const std::string name = at.str();
    if (name.ends_with(".o.weight") || name.ends_with(".down.weight"))
      for (index i = 0; i < info.size(); ++i) values_of(leaf)[i] *= 1 + s;
  });
  const auto data = decoder_data<small>();
  const double want = loss_of(ln::pack(p.w), data), before = loss_of(p.base, data);
  BOOST_TEST(std::abs(loss_of(ln::pack(p.adapter), data) - want) <= 1e-12 * want);
  BOOST_TEST(std::abs(want - before) > 1e-3 * before);
}

// On codes, with layers computed again: steps change the adapter alone, with the same bits on any
// number of threads.
BOOST_AUTO_TEST_CASE(training) {
  using A = ln::adapted<coded_decoder, ln::bottleneck<3>>;
  (void)check_adapter_training<A>(random_codes(),
                                  {.rate = 1e-2, .steps = 30, .most = 0.9, .recompute = true});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::bottleneck_test
