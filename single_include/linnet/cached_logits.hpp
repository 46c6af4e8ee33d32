// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/cached_logits.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: a teacher's most probable tokens, written to a file once and learned from many times.
/// Needs xxHash (Debian: libxxhash-dev), whose header checks the bytes.

/// @file
/// Distillation from cached logits: students learn from a teacher's file. Opt-in, through
/// linnet/cached_logits.hpp.

#include <cstring>

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

#include <linnet/linnet.hpp>

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

LINNET_NAMESPACE_BEGIN

/// Cached logits as objectives for students that compute in `T`: batch(i) is the objective of the
/// batch recorded as number i. It is valid while the reader stays where it is. Reads from bytes in
/// memory or in a memory map.
template <class T = float>
class cached_logits_reader {
  struct page {
    std::uint64_t hash;
    index rows;
    const std::byte* records;
  };

 public:
  /// Exact bytes that a reader allocates.
  static constexpr index footprint(const cached_logits_format& r, const limits& l, index batches) {
    return round_up(batches * static_cast<index>(sizeof(page)), alignment) +
           ops::distil_scratch<T>(r.vocabulary, l.threads) * static_cast<index>(sizeof(T));
  }

  /// Opens `bytes`, which must outlive the reader, for trainers with at most the threads of `l`.
  /// `alpha` is distillation's. Errors: errc::malformed (no such file, a wrong checksum, counts or
  /// ids out of bounds), errc::unsupported (version), errc::mismatch (recorded otherwise than
  /// `expected`), errc::invalid, errc::out_of_memory.
  static result<cached_logits_reader> open(lasting_span<const std::byte> bytes,
                                           const cached_logits_format& expected, double alpha = 0.1,
                                           const limits& l = {}) LINNET_TRY {
    const char* const where = "cached_logits_reader::open";
    if (auto fit = detail::acceptable(where, expected, l); !fit) return fit.error();
    const distillation_options how{alpha, expected.temperature};
    if (auto fit = detail::acceptable(where, how, 1); !fit) return fit.error();
    if (auto fit = check_head(bytes, expected); !fit) return fit.error();

    const std::byte* at = bytes.data() + detail::cached_logits_head;
    const std::byte* const end = bytes.data() + bytes.size() - detail::cached_logits_end;
    const auto malformed = [&](const std::string& what, const std::string& rule, auto got) {
      return linnet::error{errc::malformed, where, what, rule, std::to_string(got)};
    };
    const auto of = [](index n) { return "batch " + std::to_string(n); };
    const auto batches = detail::load_as<std::uint64_t>(end);
    if (batches > static_cast<std::uint64_t>(end - at) / detail::cached_logits_batch)
      return malformed("batches", "no more than the bytes hold", batches);
    cached_logits_reader made(expected, how, l, static_cast<index>(batches));
    if (!made.memory_.data())
      return detail::out_of_memory(where, footprint(expected, l, made.batches_));
    for (index n = 0; n < made.batches_; ++n) {
      if (end - at < detail::cached_logits_batch)
        return malformed(of(n), std::to_string(detail::cached_logits_batch) + " bytes", end - at);
      const auto rows = detail::load_as<std::uint64_t>(at + 8);
      page& p = made.pages()[n];
      p = {detail::load_as<std::uint64_t>(at), static_cast<index>(rows),
           at + detail::cached_logits_batch};
      at += detail::cached_logits_batch;
      if (rows > static_cast<std::uint64_t>((end - at) / expected.row_bytes()))
        return malformed(of(n) + ": rows", "no more than the bytes hold", rows);
      for (index i = 0; i < p.rows; ++i, at += expected.row_bytes()) {
        for (index j = 0; j <= expected.k; ++j)
          if (!is_finite(made.logit(at, j)))
            return malformed(of(n) + ": logit", "a finite number", made.logit(at, j));
        for (index j = 0; j < expected.k; ++j)
          if (made.id(at, j) >= expected.vocabulary)
            return malformed(of(n) + ": id", "less than " + std::to_string(expected.vocabulary),
                             made.id(at, j));
      }
    }
    if (at != end) return malformed("bytes behind the last batch", "0", end - at);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("cached_logits_reader::open")

  /// Batches in the file.
  index batches() const { return batches_; }

  /// The objective of one recorded batch.
  class objective_of_batch {
   public:
    /// Whether the recorded batch is this very one, and the limits have no more threads than the
    /// reader.
    template <class M>
    bool accepts(const typename M::batch& b, const limits& l) const {
      if (!page_ || M::vocabulary != from_->record_.vocabulary || l.threads > from_->threads_)
        return false;
      const detail::batch_digest digest = detail::digest_of(b);
      return digest.hash == page_->hash && digest.rows == page_->rows;
    }
    /// The loss criterion of the batch's rows.
    template <class Batch>
    auto token_loss(const ops::execution&, const Batch&) const {
      return [from = from_, page = page_](const ops::execution& on, const auto& h, index first,
                                          index rows) {
        if (from->how_.alpha == 1) return ops::label_cross_entropy{}(on, h, first, rows);
        const auto recorded = [&](index begin, index end) {
          index n = 0;
          for (index i = begin; i < end; ++i) n += h.labels[i] != ignored;
          return n;
        };
        const index before = recorded(0, first);
        ops::distil(on, h, first, rows, from->how_, 1, from->scratch(), [&](index, index i, T* to) {
          const index row = before + recorded(first, first + i);
          from->expand(page->records + row * from->record_.row_bytes(), to);
          return 1.0;
        });
      };
    }

   private:
    friend cached_logits_reader;
    objective_of_batch(const cached_logits_reader* from, const page* p) : from_(from), page_(p) {}
    const cached_logits_reader* from_;
    const page* page_;
  };
  /// The objective of batch i; it accepts no batch where i is not in [0, batches()).
  objective_of_batch batch(index i) const {
    return {this, i >= 0 && i < batches_ ? pages() + i : nullptr};
  }

 private:
  cached_logits_reader(const cached_logits_format& r, const distillation_options& how,
                       const limits& l, index batches)
      : record_(r),
        how_(how),
        threads_(l.threads),
        batches_(batches),
        memory_(footprint(r, l, batches)) {}

  /// Checks everything in the file but the batches.
  static result<void> check_head(std::span<const std::byte> bytes,
                                 const cached_logits_format& expected) {
    const char* const where = "cached_logits_reader::open";
    const std::byte* const head = bytes.data();
    constexpr auto least =
        static_cast<std::size_t>(detail::cached_logits_head + detail::cached_logits_end);
    if (bytes.size() < least || std::memcmp(head, detail::cached_logits_magic, 8) != 0)
      return linnet::error{
          errc::malformed, where, "file",
          std::to_string(least) + " bytes or more that begin with linnetKD",
          bytes.size() < least ? std::to_string(bytes.size()) + " bytes" : "another beginning"};
    if (const auto version = detail::load_as<std::uint32_t>(head + 8); version != 1)
      return linnet::error{errc::unsupported, where, "version", "1", std::to_string(version)};
    const auto stated = detail::load_as<std::uint64_t>(head + bytes.size() - 8);
    if (const std::uint64_t hash = XXH3_64bits(head, bytes.size() - 8); hash != stated)
      return linnet::error{errc::malformed, where, "checksum", std::to_string(stated),
                           std::to_string(hash)};
    result<void> fits;
    const auto same = [&](const char* field, auto want, auto got) {
      if (fits && want != got)
        fits =
            linnet::error{errc::mismatch, where, field, std::to_string(want), std::to_string(got)};
    };
    same("vocabulary", expected.vocabulary, index{detail::load_as<std::uint32_t>(head + 12)});
    same("k", expected.k, index{detail::load_as<std::uint32_t>(head + 16)});
    same("bytes of a logit", expected.logit_bytes(),
         index{detail::load_as<std::uint16_t>(head + 20)});
    same("bytes of an id", expected.id_bytes(), index{detail::load_as<std::uint16_t>(head + 22)});
    same("temperature", expected.temperature, detail::load_as<double>(head + 24));
    same("stream", expected.stream, detail::load_as<std::uint64_t>(head + 32));
    return fits;
  }

  page* pages() const { return static_cast<page*>(memory_.data()); }
  T* scratch() const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory_.data()) +
                                round_up(batches_ * static_cast<index>(sizeof(page)), alignment));
  }
  /// Logit j of a row; logit 0 is that of all tokens that are not kept.
  double logit(const std::byte* row, index j) const {
    return record_.half ? storage::f16::decode(detail::load_as<std::uint16_t>(row + 2 * j))
                        : static_cast<double>(detail::load_as<float>(row + 4 * j));
  }
  index id(const std::byte* row, index j) const {
    const std::byte* const ids = row + (record_.k + 1) * record_.logit_bytes();
    return record_.id_bytes() == 2 ? index{detail::load_as<std::uint16_t>(ids + 2 * j)}
                                   : index{detail::load_as<std::uint32_t>(ids + 4 * j)};
  }
  /// Expands a row of the file to logits of the whole vocabulary.
  void expand(const std::byte* row, T* to) const {
    std::fill_n(to, record_.vocabulary, static_cast<T>(logit(row, 0)));
    for (index j = 0; j < record_.k; ++j) to[id(row, j)] = static_cast<T>(logit(row, j + 1));
  }

  cached_logits_format record_;
  distillation_options how_;
  int threads_;
  index batches_;
  memory_block memory_;
};

LINNET_NAMESPACE_END
/// @file
/// Caching a teacher's most probable tokens in a file. Opt-in, through linnet/cached_logits.hpp.

#include <memory>

LINNET_NAMESPACE_BEGIN

/// Writes a teacher's most probable tokens to a file: an objective for the teacher's evaluator. It
/// is an objective (see model/objective.hpp): give it to the teacher's evaluator with each batch,
/// in the order in which students will see them. The losses are the teacher's own. At the end,
/// commit() gives the file its name.
class cached_logits_writer {
 public:
  /// Bytes of memory that a writer takes, without the file's own buffer.
  static constexpr index footprint(const cached_logits_format& r, const limits& l) {
    return round_up(ops::head_rows(r.vocabulary) * r.row_bytes(), alignment) +
           l.threads * round_up(r.k * static_cast<index>(sizeof(token)), alignment);
  }
  /// Opens a writer for evaluators with at most the threads of `l`. Errors: errc::invalid,
  /// errc::out_of_memory; those of the file are commit()'s.
  static result<cached_logits_writer> open(const std::string& path, const cached_logits_format& r,
                                           const limits& l = {}) LINNET_TRY {
    if (auto fit = detail::acceptable("cached_logits_writer::open", r, l); !fit) return fit.error();
    cached_logits_writer made(path, r, l);
    if (!made.memory_.data() || !made.file_)
      return detail::out_of_memory("cached_logits_writer::open", footprint(r, l));
    std::byte head[detail::cached_logits_head];
    std::byte* at = head;
    std::memcpy(at, detail::cached_logits_magic, 8);
    at += 8;
    put(at, std::uint32_t{1});
    put(at, static_cast<std::uint32_t>(r.vocabulary));
    put(at, static_cast<std::uint32_t>(r.k));
    put(at, static_cast<std::uint16_t>(r.logit_bytes()));
    put(at, static_cast<std::uint16_t>(r.id_bytes()));
    put(at, r.temperature);
    put(at, r.stream);
    made.write(head, detail::cached_logits_head);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("cached_logits_writer::open")

  /// Whether the teacher has the file's vocabulary and no more threads than the writer.
  template <class M>
  bool accepts(const typename M::batch&, const limits& l) const {
    return M::vocabulary == how_.vocabulary && l.threads <= threads_;
  }
  /// Begins a batch and returns the criterion that records its rows.
  template <class Batch>
  auto token_loss(const ops::execution& on, const Batch& b) {
    on.threads.once([&] {
      const detail::batch_digest digest = detail::digest_of(b);
      std::byte head[detail::cached_logits_batch];
      std::byte* at = head;
      put(at, digest.hash);
      put(at, static_cast<std::uint64_t>(digest.rows));
      write(head, detail::cached_logits_batch);
      ++batches_;
    });
    return [this](const ops::execution& all, const auto& h, index first, index rows) {
      all.threads.each(rows, [&](index i) {
        if (h.labels[first + i] != ignored)
          record(h.chunk + i * h.vocabulary, all.threads.rank(), rows_at(i));
      });
      ops::label_cross_entropy{}(all, h, first, rows);
      all.threads.once([&] {
        for (index i = 0; i < rows; ++i) {
          if (h.labels[first + i] == ignored) continue;
          finite_ = finite_ && is_finite(h.losses[first + i]);
          write(rows_at(i), how_.row_bytes());
        }
      });
    };
  }
  /// Number of batches written.
  index batches() const { return batches_; }
  /// Ends the file. Errors: errc::io, errc::invalid (the teacher's logits were not finite).
  result<void> commit() LINNET_TRY {
    if (!finite_)
      return linnet::error{errc::invalid, "cached_logits_writer::commit", "the teacher's logits",
                           "finite numbers", "others"};
    std::byte end[detail::cached_logits_end];
    std::byte* at = end;
    put(at, static_cast<std::uint64_t>(batches_));
    write(end, 8);
    put(at, static_cast<std::uint64_t>(XXH3_64bits_digest(&hash_)));
    write(end + 8, 8);
    return file_->commit();
  }
  LINNET_OR_OUT_OF_MEMORY("cached_logits_writer::commit")

 private:
  cached_logits_writer(const std::string& path, const cached_logits_format& r, const limits& l)
      : how_(r),
        threads_(l.threads),
        memory_(footprint(r, l)),
        file_(new (std::nothrow) detail::file_writer(path)) {
    XXH3_64bits_reset(&hash_);
  }
  std::byte* rows_at(index i) const {
    return static_cast<std::byte*>(memory_.data()) + i * how_.row_bytes();
  }
  void write(const std::byte* bytes, index n) {
    XXH3_64bits_update(&hash_, bytes, static_cast<std::size_t>(n));
    file_->write({bytes, static_cast<std::size_t>(n)});
  }
  template <class T>
  static void put(std::byte*& at, T x) {
    std::memcpy(at, &x, sizeof x);
    at += sizeof x;
  }
  void put_logit(std::byte*& at, double x) const {
    x = (std::max)(x, -60000.0);  // of no weight at all, and a number in f16
    if (how_.half)
      put(at, storage::f16::encode(x));
    else
      put(at, static_cast<float>(x));
  }
  /// Encodes one row of logits for the file.
  template <class T>
  void record(const T* logits, int rank, std::byte* at) const {
    const index n = how_.vocabulary, k = how_.k;
    auto* const best = reinterpret_cast<token*>(
        rows_at(0) + round_up(ops::head_rows(n) * how_.row_bytes(), alignment) +
        rank * round_up(k * static_cast<index>(sizeof(token)), alignment));
    detail::largest_logits(n, logits, k, best);
    const token least = best[k - 1];
    const auto largest = static_cast<double>(logits[best[0]]);
    const auto relative = [&](token v) { return static_cast<double>(logits[v]) - largest; };
    double rest = 0;
    for (token v = 0; k < n && v < n; ++v)
      if (logits[v] < logits[least] || (logits[v] == logits[least] && v > least))
        rest += std::exp(relative(v) / how_.temperature);
    put_logit(at, rest > 0 ? how_.temperature * std::log(rest / static_cast<double>(n - k)) : -1e9);
    for (index i = 0; i < k; ++i) put_logit(at, relative(best[i]));
    for (index i = 0; i < k; ++i)
      if (how_.id_bytes() == 2)
        put(at, static_cast<std::uint16_t>(best[i]));
      else
        put(at, static_cast<std::uint32_t>(best[i]));
  }

  cached_logits_format how_;
  int threads_;
  memory_block memory_;
  std::unique_ptr<detail::file_writer> file_;
  XXH3_state_t hash_{};
  index batches_ = 0;
  bool finite_ = true;
};

LINNET_NAMESPACE_END
