// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Distillation from cached logits: students learn from a teacher's file. Opt-in, through
/// linnet/cached_logits.hpp.

#include <cstring>

#include <linnet/distill/cached_logits.hpp>
#include <linnet/distill/distillation.hpp>

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
