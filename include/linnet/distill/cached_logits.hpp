// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The file format of cached logits: a teacher's most probable tokens, for distillation. Opt-in,
/// through linnet/cached_logits.hpp. Files are little-endian and not aligned:
///  - "linnetKD", u32 version 1, u32 vocabulary, u32 k, u16 bytes of a logit (2: f16, 4: f32), u16
///    bytes of an id (2 up to 65536 tokens, else 4), f64 temperature, u64 stream.
///  - For each batch u64 XXH3 of its tokens and u64 rows. Then for each row whose label counts the
///    logit of the rest, the k largest logits in descending order, and their k ids.
///  - u64 batches, u64 XXH3 of all bytes before.
/// Logits are relative to the row's largest, where small floats are finest.

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include <linnet/formats/tensor.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

/// Settings of a cached-logits file: the vocabulary, how many logits are kept, and their
/// temperature. The k largest logits of a row are kept. The other tokens share one logit, such that
/// their probability together is the teacher's own at `temperature`. So a file serves this
/// temperature only. The k probabilities are thus exact but for rounding (in f16 a share of 2^-12
/// |logit - largest| / temperature). Where the rest has the probability r, the total variation from
/// the teacher's distribution is below r. To renormalize over the k instead would cost all of r and
/// make the teacher surer than it is. With k = vocabulary all are kept.
struct cached_logits_format {
  index vocabulary = 0;      ///< number of tokens of teacher and student
  index k = 64;              ///< logits per row
  double temperature = 3;    ///< temperature of the distillation
  bool half = true;          ///< logits in f16, else in f32
  std::uint64_t stream = 0;  ///< your name for the data and the teacher, compared when reading

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("vocabulary", self.vocabulary, detail::between(1, 0x7fffffff));
    f("k", self.k, detail::count(1));
    f("temperature", self.temperature, detail::above(0));
    f("half", self.half, detail::one_of(detail::false_or_true));
  }

  /// Bytes of a logit, of a token's id, and of a row.
  constexpr index logit_bytes() const { return half ? 2 : 4; }
  /// @copydoc logit_bytes()
  constexpr index id_bytes() const { return vocabulary <= 65536 ? 2 : 4; }
  /// @copydoc logit_bytes()
  constexpr index row_bytes() const { return (k + 1) * logit_bytes() + k * id_bytes(); }
};

namespace detail {

inline constexpr char cached_logits_magic[] = "linnetKD";
inline constexpr index cached_logits_head = 40, cached_logits_batch = 16, cached_logits_end = 16;

/// The rows of a batch, and the hash of all that the model reads of it.
struct batch_digest {
  index rows = 0;  ///< whose label counts
  std::uint64_t hash = 0;
};
/// Documents of the rows of a batch, or nulls.
struct digested_documents {
  const index* of_inputs = nullptr;
  bool restart = true;  ///< positions begin again with each
  const index* of_labels = nullptr;
};
inline batch_digest digest_of(const token* inputs, index sequences, index length,
                              const index* lengths, const token* labels, index label_length,
                              const digested_documents& documents = {}) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  const auto add = [&](const auto* values, index n) {
    if (values) XXH3_64bits_update(&state, values, static_cast<std::size_t>(n) * sizeof *values);
  };
  const index sizes[] = {sequences, length, label_length, lengths != nullptr};
  add(sizes, 4);
  add(inputs, sequences * length);
  add(lengths, sequences);
  add(labels, sequences * label_length);
  add(documents.of_inputs, sequences * length);
  add(documents.of_labels, sequences * label_length);
  const index counts_on = 1;
  if (documents.of_inputs && !documents.restart) add(&counts_on, 1);
  index rows = 0;
  for (index i = 0; i < sequences * label_length; ++i) rows += labels[i] != ignored;
  return {rows, XXH3_64bits_digest(&state)};
}
inline batch_digest digest_of(const t5_batch& b) {
  return digest_of(b.source, b.batch, b.source_length, b.source_lengths, b.labels, b.target_length,
                   {b.source_documents, true, b.target_documents});
}
inline batch_digest digest_of(const decoder_batch& b) {
  return digest_of(b.tokens, b.batch, b.length, b.prefixes, b.labels, b.length,
                   {b.documents, b.restart_positions, nullptr});
}

/// Checks the settings of a cached-logits file; the error names the first that makes no sense.
inline result<void> acceptable(const char* where, const cached_logits_format& r, const limits& l) {
  if (auto fit = acceptable(where, "cached_logits_format", r); !fit) return fit;
  if (r.k > r.vocabulary)
    return linnet::error{errc::invalid, where, "cached_logits_format.k", "1 to the vocabulary",
                         std::to_string(r.k)};
  return acceptable(where, "limits", l);
}

}  // namespace detail

LINNET_NAMESPACE_END
