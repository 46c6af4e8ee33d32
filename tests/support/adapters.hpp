// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Adapters of tiny models, and what all of them keep while they train.

#include "support/data.hpp"
#include "support/models.hpp"
#include "support/resumed.hpp"

namespace test {

/// A base of random numbers with a fresh adapter, in double.
template <class A>
struct adapted_pair {
  using base_model = typename A::base_model;
  ln::weights<base_model, double> w;
  ln::packed<base_model, double> base;
  ln::weights<A, double> adapter;

  template <class... Options>
  explicit adapted_pair(const Options&... how) {
    randomize(w);
    base = ln::pack(w);
    auto made = ln::adapt<typename A::method>(base, how...);
    LINNET_REQUIRE_OK(made);
    adapter = std::move(*made);
  }
};

/// Codes of 4 bits of a tiny decoder.
using coded_decoder = ln::quantized<ln::decoder<tiny_decoder_shape>, ln::storage::int4<8>>;
inline ln::packed<coded_decoder> random_codes() {
  ln::weights<ln::decoder<tiny_decoder_shape>> w;
  randomize(w);
  return ln::pack(ln::quantize<ln::storage::int4<8>>(w));
}

/// How check_adapter_training() trains.
struct adapter_training {
  double rate;             ///< of AdamW
  int steps;               ///< on one batch
  double most;             ///< of the first loss that the last one may be
  bool recompute = false;  ///< whether three threads compute layers again
};
/// Steps on a base in codes change the adapter alone, with the same bits on one thread and three,
/// and where others go on with them. Gives the adapter that was trained.
template <class A>
ln::weights<A> check_adapter_training(const ln::packed<coded_decoder>& base,
                                      const adapter_training& how) {
  const auto before = base.clone();
  const auto data = decoder_data<A>(3, 6);
  const ln::adamw fast{.rate = ln::schedule::constant(how.rate)};
  auto first = ln::adapt<typename A::method>(base), second = ln::adapt<typename A::method>(base);
  BOOST_REQUIRE(static_cast<bool>(first) && static_cast<bool>(second));
  auto shared = data.limits(3);
  shared.recompute = how.recompute;
  auto alone = ln::trainer<A>::open(*first, data.limits(1), fast);
  auto team = ln::trainer<A>::open(*second, shared, fast);
  BOOST_REQUIRE(static_cast<bool>(alone) && static_cast<bool>(team));
  const double start = alone->step(data.view());
  BOOST_TEST(team->step(data.view()) == start);
  double last = 0;
  for (int i = 0; i < how.steps; ++i) {
    last = alone->step(data.view());
    if (i < 2) BOOST_TEST(team->step(data.view()) == last);
  }
  BOOST_TEST(last < how.most * start, last << " after " << start);
  check_resumed(*second, data, [](const ln::limits&) { return ln::cross_entropy_objective{}; });
  BOOST_TEST(same_bytes(base, before));
  return std::move(*first);
}

}  // namespace test
