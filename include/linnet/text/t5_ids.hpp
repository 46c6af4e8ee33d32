// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The special token ids of T5's vocabularies.

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

/// Special ids of a vocabulary in T5's order: 0 pads, 1 ends a text, 2 is unknown. The last ids are
/// sentinels for masked text, counting down (Raffel et al. 2020, in their code): `<extra_id_0>` is
/// 32099 of T5's 32100.
struct t5_ids {
  static constexpr token padding = 0, end = 1, unknown = 2;

  index vocabulary = 32100;  ///< ids, sentinels included
  index sentinels = 100;     ///< of these, the last ones

  /// The `k`-th sentinel, k in [0, sentinels).
  constexpr token sentinel(index k) const { return static_cast<token>(vocabulary - 1 - k); }
  /// Whether `id` is a sentinel.
  constexpr bool is_sentinel(token id) const {
    return id >= vocabulary - sentinels && id < vocabulary;
  }
};

LINNET_NAMESPACE_END
