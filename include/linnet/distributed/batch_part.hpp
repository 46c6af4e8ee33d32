// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Parts of a batch: some of its sequences, without a copy.

#include <linnet/core/scalars.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Moves a pointer to rows of `width`, unless it is null.
template <class T>
void skip_rows(const T*& rows, index first, index width) {
  if (rows) rows += first * width;
}
/// Sequences [first, first + count) of a batch of any family.
template <class Batch>
Batch part_of_batch(Batch b, index first, index count, bool label_per_sequence = false) {
  b.batch = count;
  if constexpr (requires { b.images; })
    skip_rows(b.images.pixels, first, b.images.height * b.images.width * b.images.channels);
  if constexpr (requires { b.source; }) {
    skip_rows(b.source, first, b.source_length);
    skip_rows(b.source_lengths, first, 1);
  }
  if constexpr (requires { b.target_length; }) {
    skip_rows(b.labels, first, b.target_length);
    if constexpr (requires { b.target_documents; }) {
      skip_rows(b.source_documents, first, b.source_length);
      skip_rows(b.target_documents, first, b.target_length);
    }
  } else {
    static_assert(
        requires { b.tokens, b.labels, b.length; },
        "linnet::distributed_trainer: takes batches with `tokens`, `labels` and `length`, or with "
        "`source`, `labels` and `target_length`");
    skip_rows(b.tokens, first, b.length);
    skip_rows(b.labels, first, label_per_sequence ? 1 : b.length);
    if constexpr (requires { b.prefixes; }) skip_rows(b.prefixes, first, 1);
    if constexpr (requires { b.lengths; }) skip_rows(b.lengths, first, 1);
    if constexpr (requires { b.types; }) skip_rows(b.types, first, b.length);
    if constexpr (requires { b.documents; }) skip_rows(b.documents, first, b.length);
  }
  return b;
}

}  // namespace detail

LINNET_NAMESPACE_END
