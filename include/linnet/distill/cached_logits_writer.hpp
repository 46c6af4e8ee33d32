// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Caching a teacher's most probable tokens in a file. Opt-in, through linnet/cached_logits.hpp.

#include <cstring>
#include <memory>

#include <linnet/distill/cached_logits.hpp>
#include <linnet/distill/top_logits.hpp>
#include <linnet/file/file.hpp>
#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>

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
