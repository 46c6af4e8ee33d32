// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// What the tests of decoding methods share: tiny models, and the logits after a text computed
/// anew.

#include "support/scoring.hpp"

namespace test {

/// Few tokens, so that all texts can be tried.
inline constexpr ln::decoder_shape four_tokens{.d_model = 8,
                                               .d_ff = 7,
                                               .heads = 2,
                                               .kv_heads = 1,
                                               .layers = 2,
                                               .vocabulary = 4,
                                               .context = 32};
inline constexpr ln::t5_shape four_tokens_t5{.d_model = 6,
                                             .d_ff = 7,
                                             .d_kv = 2,
                                             .heads = 2,
                                             .encoder_layers = 1,
                                             .decoder_layers = 2,
                                             .vocabulary = 4,
                                             .buckets = 8,
                                             .max_distance = 12};

template <class M, class T>
ln::session<M, T> opened(const ln::packed<M, T>& p, const ln::limits& l) {
  auto s = ln::session<M, T>::open(p, l);
  BOOST_REQUIRE(static_cast<bool>(s));
  return *std::move(s);
}

/// Logits after a prompt, or an encoded source, and more tokens, in a session used for nothing
/// else.
template <class M, class T>
class anew {
 public:
  explicit anew(const ln::packed<M, T>& p, index source = 16, index target = 64)
      : session_(opened(p, {.source = source, .target = target})) {}
  /// `tokens`: prompt or source.
  std::span<T> operator()(std::span<const token> tokens, std::span<const token> more) {
    std::span<T> logits = session_.reset_and_prefill(tokens);
    for (const token t : more) logits = session_.feed({&t, 1});
    BOOST_REQUIRE(!logits.empty());
    return logits;
  }

 private:
  ln::session<M, T> session_;
};

}  // namespace test
