// SPDX-License-Identifier: MIT
// A model from outside of the library that replaces policies as decoders do: what asks for that
// makes of it what it makes of a decoder, bit for bit.

#include <linnet/compression.hpp>
#include <linnet/low_rank.hpp>

#include "support/models.hpp"

#include <cstring>

namespace test::own_policies_test {

namespace {

/// A model under a name that the library does not know.
template <class M>
struct own : M {
  template <class S>
  using with_storage = own<typename M::template with_storage<S>>;
  template <class Slot, class Other>
  using with = own<typename M::template with<Slot, Other>>;
  template <class Ffn>
  using with_ffn = own<typename M::template with_ffn<Ffn>>;
  template <ln::decoder_shape Shape>
  using with_shape = own<typename M::template with_shape<Shape>>;
};
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 12,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 11,
                                  .context = 16};
using decoder = ln::decoder<shape>;
static_assert(ln::decoding_model<own<decoder>> && !ln::detail::is_decoder<own<decoder>>);

template <class M>
ln::weights<M> drawn() {
  ln::weights<M> w;
  ln::initialize(w, ln::seed{5});
  return w;
}
template <class A, class B>
bool same_numbers(const ln::weights<A>& a, const ln::weights<B>& b) {
  static_assert(std::is_same_v<A, own<B>>);
  return a.valid() && b.valid() && a.bytes() == b.bytes() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.bytes())) == 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(own_policies)

BOOST_AUTO_TEST_CASE(factors) {
  const ln::step::low_rank<3, 2> step;
  static_assert(ln::step::low_rank<3, 2>::accepts<own<decoder>>);
  static_assert(!ln::step::low_rank<9>::accepts<own<decoder>>);
  BOOST_TEST(same_numbers(step.apply(drawn<own<decoder>>()), step.apply(drawn<decoder>())));
}

BOOST_AUTO_TEST_CASE(rotates_while_it_runs) {
  const auto turned = ln::rotate_online(drawn<own<decoder>>());
  const auto expected = ln::rotate_online(drawn<decoder>());
  BOOST_REQUIRE((turned && expected));
  BOOST_TEST(same_numbers(*turned, *expected));
  BOOST_TEST(ln::step::rotate_online::accepts<own<decoder>>);
}

BOOST_AUTO_TEST_CASE(gets_a_width_for_each_layer) {
  const auto narrowed = []<class M>(const ln::weights<M>& w) {
    const auto scores = ln::importance_of(w);
    BOOST_REQUIRE(static_cast<bool>(scores));
    return ln::narrow<shape, 3, 6>(w, *scores);
  };
  const auto got = narrowed(drawn<own<decoder>>());
  const auto expected = narrowed(drawn<decoder>());
  BOOST_REQUIRE((got && expected));
  BOOST_TEST(same_numbers(*got, *expected));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::own_policies_test
