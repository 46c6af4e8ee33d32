// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Where the documents of a packed row begin.

#include <algorithm>
#include <span>
#include <string>

#include <linnet/core/result.hpp>
#include <linnet/model/contract.hpp>

LINNET_NAMESPACE_BEGIN

/// Writes where documents of a row begin, documents[length], from their `starts`: the first of each
/// document, in order, the first of all 0. Errors: errc::invalid for no documents, an empty one,
/// starts that overlap or are out of order, and one behind the row.
inline result<void> mark_documents(std::span<const index> starts,
                                   std::span<index> documents) LINNET_TRY {
  const auto wrong = [](std::size_t i, std::string expected, index got) {
    return error{errc::invalid, "mark_documents", "starts[" + std::to_string(i) + "]",
                 std::move(expected), std::to_string(got)};
  };
  const index length = std::ssize(documents);
  if (starts.empty())
    return error{errc::invalid, "mark_documents", "starts", "at least one document", "0"};
  if (starts[0] != 0) return wrong(0, "0, as a row begins with a document", starts[0]);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    if (i > 0 && starts[i] == starts[i - 1])
      return wrong(i, "above the start before it, as no document is empty", starts[i]);
    if (i > 0 && starts[i] < starts[i - 1])
      return wrong(i, "above the start before it, as documents follow each other", starts[i]);
    if (starts[i] >= length)
      return wrong(i, "below the row's length, " + std::to_string(length), starts[i]);
  }
  for (std::size_t i = 0; i < starts.size(); ++i)
    std::fill(documents.data() + starts[i],
              documents.data() + (i + 1 < starts.size() ? starts[i + 1] : length), starts[i]);
  return {};
}
LINNET_OR_OUT_OF_MEMORY("mark_documents")

LINNET_NAMESPACE_END
