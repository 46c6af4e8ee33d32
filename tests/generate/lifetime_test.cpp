// SPDX-License-Identifier: MIT
// What would be gone before it is read does not convert: weights, tokens and bytes that are kept
// are taken from objects with names alone.

#include "support/models.hpp"

namespace test::lifetime_test {

namespace {
using t5 = ln::t5<tiny_t5_shape>;
using decoder = ln::decoder<tiny_decoder_shape>;
using decoder_weights = ln::packed<decoder>;
using labels = std::vector<std::vector<token>>;

/// Whether To::open(from..., more...) compiles.
template <class To, class... From>
concept opens = requires(From... from) {
  To::open(static_cast<From>(from)...);
};
/// From an object with a name, and not from a temporary or from what std::move makes of one.
template <class To, class From, class... More>
concept keeps =
    opens<To, From&, More...> && opens<To, const From&, More...> && !opens<To, From&&, More...> &&
    !opens<To, const From&&, More...>;

/// The same of those that refuse a temporary in words, see tests/must_not_compile.
template <class To, class From, class... More>
concept says_keeps = opens<To, From&, More...> && opens<To, const From&, More...>;
static_assert(!ln::detail::unfit_weights<decoder_weights&, decoder, float>);
static_assert(!ln::detail::unfit_weights<const decoder_weights&, decoder, float>);
static_assert(ln::detail::unfit_weights<decoder_weights, decoder, float>);
static_assert(ln::detail::unfit_weights<const decoder_weights, decoder, float>);

static_assert(says_keeps<ln::session<decoder>, decoder_weights, ln::limits>);
static_assert(says_keeps<ln::session<decoder>, decoder_weights, ln::limits, std::span<std::byte>>);
static_assert(!opens<ln::session<decoder>, decoder_weights&, ln::limits, std::vector<std::byte>>);
static_assert(std::is_constructible_v<ln::session<decoder>, const decoder_weights&, ln::limits,
                                      std::span<std::byte>>);
static_assert(!std::is_constructible_v<ln::session<decoder>, decoder_weights, ln::limits,
                                       std::span<std::byte>>);
static_assert(says_keeps<ln::evaluator<decoder>, decoder_weights, ln::limits>);
static_assert(says_keeps<ln::evaluator_scorer<decoder>, decoder_weights, ln::limits>);
static_assert(says_keeps<ln::classifier<t5>, ln::packed<t5>, labels, ln::limits>);
static_assert(keeps<ln::distillation<decoder, decoder>, decoder_weights, ln::limits>);
static_assert(keeps<ln::on_policy<decoder>, decoder_weights, ln::limits>);
using two = ln::distillation<decoder, decoder, decoder>;
static_assert(opens<two, decoder_weights&, decoder_weights&, ln::limits>);
static_assert(!opens<two, decoder_weights&, decoder_weights, ln::limits>);
// Those that write to what they keep never took temporaries.
static_assert(opens<ln::trainer<decoder>, ln::weights<decoder>&, ln::limits>);
static_assert(!opens<ln::trainer<decoder>, ln::weights<decoder>, ln::limits>);
static_assert(!opens<ln::beam_search<decoder>, ln::session<decoder>>);

using kept = ln::lasting_span<const token>;
static_assert(std::is_convertible_v<std::vector<token>&, kept>);
static_assert(std::is_convertible_v<const std::vector<token>&, kept>);
static_assert(std::is_convertible_v<const token (&)[3], kept>);
static_assert(std::is_convertible_v<std::span<token>, kept>);
static_assert(std::is_convertible_v<std::span<const token>, kept>);
static_assert(!std::is_convertible_v<std::vector<token>, kept>);
static_assert(!std::is_convertible_v<const std::vector<token>, kept>);
static_assert(!std::is_convertible_v<std::array<token, 3>, kept>);
static_assert(!std::is_convertible_v<std::vector<float>&, kept>);
static_assert(!std::is_constructible_v<ln::token_source, std::vector<token>, ln::t5_ids>);
}  // namespace

BOOST_AUTO_TEST_SUITE(lifetime)

BOOST_AUTO_TEST_CASE(kept_spans_are_spans) {
  const std::vector<token> stop = {3, 5};
  const ln::generation_options g{.stop = stop}, one{.stop = {stop.data(), 1}}, none;
  BOOST_TEST(g.stops(5));
  BOOST_TEST(!one.stops(5));
  BOOST_TEST(!none.stops(3));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::lifetime_test
