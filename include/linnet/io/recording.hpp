#pragma once
/// @file
/// What a teacher's file is. Opt-in, through linnet/recorded_teacher.hpp. A file (little-endian,
/// nothing aligned) is
///   "linnetKD", u32 version 1, u32 vocabulary, u32 k, u16 bytes of a logit (2: f16, 4: f32),
///   u16 bytes of an id (2 up to 65536 tokens, else 4), f64 temperature, u64 stream;
///   for each batch: u64 XXH3 of its tokens, u64 rows, then for each row whose label counts:
///   the logit of the rest, the k largest logits, in descending order, their k ids;
///   u64 batches, u64 XXH3 of all bytes before.
/// Logits are relative to the row's largest, where small floats are finest.

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include <linnet/io/tensor.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

/// What a teacher's file holds. The k largest logits of a row are kept; the tokens of the rest
/// share one logit, such that their probability together is the teacher's own at `temperature`,
/// hence a file is learned from at this temperature only. The k probabilities are thus exact but
/// for rounding (in f16 a share of 2^-12 |logit - largest| / temperature), and where the rest has
/// the probability r, the total variation from the teacher's law is below r; to renormalize over
/// the k instead would cost all of r and make the teacher surer than it is. k = vocabulary keeps
/// all.
struct recording {
  index vocabulary = 0;      ///< of teacher and student
  index k = 64;              ///< logits per row
  double temperature = 3;    ///< of the distillation
  bool half = true;          ///< logits in f16, else in f32
  std::uint64_t stream = 0;  ///< your name for the data and the teacher, compared when reading

  /// Bytes of a logit, of a token's id, of a row.
  constexpr index logit_bytes() const { return half ? 2 : 4; }
  /// @copydoc logit_bytes()
  constexpr index id_bytes() const { return vocabulary <= 65536 ? 2 : 4; }
  /// @copydoc logit_bytes()
  constexpr index row_bytes() const { return (k + 1) * logit_bytes() + k * id_bytes(); }
};

namespace detail {

inline constexpr char recording_magic[] = "linnetKD";
inline constexpr index recording_head = 40, recording_batch = 16, recording_end = 16;

/// The rows of a batch, and the hash of all that the model reads of it.
struct batch_facts {
  index rows = 0;  ///< whose label counts
  std::uint64_t hash = 0;
};
inline batch_facts facts_of(const token* inputs, index sequences, index length,
                            const index* lengths, const token* labels, index label_length) {
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
  index rows = 0;
  for (index i = 0; i < sequences * label_length; ++i) rows += labels[i] != ignored;
  return {rows, XXH3_64bits_digest(&state)};
}
inline batch_facts facts_of(const t5_batch& b) {
  return facts_of(b.source, b.batch, b.source_length, b.source_lengths, b.labels, b.target_length);
}
inline batch_facts facts_of(const decoder_batch& b) {
  return facts_of(b.tokens, b.batch, b.length, b.prefixes, b.labels, b.length);
}

/// An error for a recording that makes no sense, or nothing.
inline result<void> acceptable(const char* where, const recording& r, const limits& l) {
  const auto refuse = [&](const char* field, const char* rule, const std::string& got) {
    return linnet::error{errc::invalid, where, field, rule, got};
  };
  if (r.vocabulary < 1 || r.vocabulary > 0x7fffffff)
    return refuse("recording.vocabulary", "1 to 2^31 - 1", std::to_string(r.vocabulary));
  if (r.k < 1 || r.k > r.vocabulary)
    return refuse("recording.k", "1 to the vocabulary", std::to_string(r.k));
  if (!(r.temperature > 0 && is_finite(r.temperature)))
    return refuse("recording.temperature", "a positive number", std::to_string(r.temperature));
  if (l.threads < 1) return refuse("limits.threads", "at least 1", std::to_string(l.threads));
  if (l.threads > most_threads)
    return refuse("limits.threads", "no more than 65536", std::to_string(l.threads));
  return {};
}

}  // namespace detail

LINNET_NAMESPACE_END
