// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Batches of T5: sources and targets, one of each in a row or several documents of both.

#include <linnet/model/limits.hpp>

LINNET_NAMESPACE_BEGIN

/// Sources and targets of a T5 training or scoring call, row-major.
struct t5_batch {
  const token* source = nullptr;  ///< [batch, source_length], padded on the right
  const index* source_lengths =
      nullptr;                    ///< [batch] valid source tokens, at least 1; null when all are
  const token* labels = nullptr;  ///< [batch, target_length], `ignored` behind the end
  index batch = 0;                ///< sequences
  index source_length = 0;        ///< padded source tokens
  index target_length = 0;        ///< padded target tokens
  const index* source_documents =
      nullptr;  ///< [batch, source_length] first token of each one's document in its row, see
                ///< mark_documents(), or null for one in each row
  const index* target_documents = nullptr;  ///< [batch, target_length] likewise: as many documents,
                                            ///< each the target of the source at its place
};

namespace detail {

/// Refuses documents that are not as many in each row's source as in its target. A source that is
/// padding alone is none.
inline void check_t5_documents(batch_check& c, const t5_batch& b, bool supported) {
  c.documents(b.source_documents, b.source_length, supported, false);
  c.documents(b.target_documents, b.target_length, supported, false);
  c.no(!b.source_documents != !b.target_documents, refusal::documents_unpaired);
  const auto count = [](const index* of, index n) {
    index starts = 0;
    for (index i = 0; i < n; ++i) starts += of[i] == i;
    return starts;
  };
  for (index i = 0; b.source_documents && c.fits() && i < b.batch; ++i)
    c.no(count(b.source_documents + i * b.source_length,
               b.source_lengths ? b.source_lengths[i] : b.source_length) !=
             count(b.target_documents + i * b.target_length, b.target_length),
         refusal::documents_unpaired);
}

}  // namespace detail

LINNET_NAMESPACE_END
