// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One truth for every way to run a decoder whose tokens see each other in blocks.
///
/// The plain way is a session that is fed block by block. Ways that write or judge one token after
/// the other do not compile, see tests/must_not_compile.

#include <map>
#include <utility>

#include "matrix/outcome.hpp"
#include "support/data.hpp"
#include "support/scoring.hpp"

namespace test {

/// Crosses one model type with all ways to run it.
template <class M>
class block_ways {
  static constexpr index block = M::block_tokens, vocabulary = M::vocabulary;
  /// Text of three blocks of a cache, in whole blocks of the model.
  static constexpr index length = 72, capacity = 80;
  static_assert(length % (2 * block) == 0 && !M::supports_trees);
  using row = std::vector<float>;

 public:
  block_ways(const std::string& name, double bound) : notes_(name, bound), name_(name) {
    using base = typename M::template with_storage<ln::storage::f32>;
    ln::weights<base> w;
    randomize(w, 3);
    if constexpr (std::is_same_v<base, M>)
      p_ = ln::pack(w);
    else
      p_ = ln::pack(ln::quantize<typename M::storage>(w));
    text_ = tokens(length, vocabulary, 5);
  }

  void run() {
    for (const index blocks : {index{0}, index{40}}) {
      layout_ = blocks > 0 ? "paged" : "contiguous";
      auto opened = ln::session<M>::open(p_, limits(1, blocks));
      if (!opened) {
        note("paged", refusal(opened.error()));
        continue;
      }
      blocks_ = blocks;
      if (blocks > 0) note("paged", {});
      for (const index prompt : {block, length / 2}) {
        prompt_ = prompt;
        note("one by one", all_rows());
        note("parts", parts());
        note("unequal batch", unequal_batch());
        note("fork", fork());
        note("truncate", truncate());
      }
      if (blocks > 0) continue;
      note("tree", refused("the cache of these models keeps texts, not trees"));
      for (const char* const way :
           {"generate", "beam of 1", "speculative", "self-speculative", "path scores"})
        note(way, refused("does not compile: tokens of one block see each other, so none is "
                          "written or judged before the next"));
      note("evaluator", evaluate());
      note("packed documents", packed_documents());
      note("mapped", mapped());
    }
    note("no blocks left", exhausted());
  }

 private:
  static outcome refused(std::string why) { return {0, true, std::move(why)}; }
  static outcome refusal(const ln::error& e) { return refused(e.what + ": " + e.expected); }
  static std::span<const token> part(std::span<const token> x, index from, index count) {
    return x.subspan(at(from), at(count));
  }
  static std::span<const float> logits_of(std::span<const float> all, index first, index count) {
    return all.subspan(at(first * vocabulary), at(count * vocabulary));
  }
  ln::limits limits(index batch, index blocks = 0, index chunk = 0) const {
    return {.batch = batch,
            .target = capacity,
            .chunk = chunk,
            .kv_blocks = blocks,
            .min_flops_per_thread = 0,
            .max_logits = chunk > 0 ? (std::min)(chunk, block) : block};
  }
  ln::session<M> open(index batch, index chunk = 0) const {
    auto s = ln::session<M>::open(p_, limits(batch, blocks_, chunk));
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(s), name_);
    return *std::move(s);
  }

  /// The logits of all tokens of a text, the plain way.
  const row& truth(const std::vector<token>& text) {
    auto& rows = truth_[text];
    if (rows.empty()) {
      const index kept = std::exchange(blocks_, 0);
      ln::session<M> s = open(1);
      blocks_ = kept;
      for (index i = 0; i < std::ssize(text); i += block) {
        const auto logits = s.feed_all(part(text, i, block));
        BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
        rows.insert(rows.end(), logits.begin(), logits.end());
      }
    }
    return rows;
  }
  /// Feeds the rest of a text from where the session is, in pieces, and compares the last row of
  /// each.
  void go_on(outcome& o, ln::session<M>& s, const std::vector<token>& text, index piece = block,
             index until = length) {
    while (s.position() < until) {
      const index n = (std::min)(piece, until - s.position());
      const auto logits = s.feed(part(text, s.position(), n));
      BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
      o.compare(logits, logits_of(truth(text), s.position() - 1, 1));
    }
  }
  /// Likewise block by block, and compares every row.
  void feed_blocks(outcome& o, ln::session<M>& s) {
    while (s.position() < length) {
      const index from = s.position();
      const auto logits = s.feed_all(part(text_, from, block));
      BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
      o.compare(logits, logits_of(truth(text_), from, block));
    }
  }
  /// A text that equals text_ before token `from`.
  std::vector<token> diverging(index from) {
    std::vector<token> other = tokens(length, vocabulary, ++stream_);
    std::copy_n(text_.begin(), from, other.begin());
    return other;
  }

  /// Every row of every block, in this layout and behind a prompt in one call.
  outcome all_rows() {
    outcome o;
    auto s = open(1);
    o.compare(s.prefill(part(text_, 0, prompt_)), logits_of(truth(text_), prompt_ - 1, 1));
    feed_blocks(o, s);
    return o;
  }

  /// Calls of one to thirteen blocks, with chunks of that size; a chunk that cuts a block is
  /// refused.
  outcome parts() {
    outcome o;
    for (index chunk = 1; chunk <= 40; chunk += chunk < 12 ? 1 : 7) {
      auto s = open(1, chunk);
      const auto logits = s.prefill(part(text_, 0, prompt_));
      if (logits.empty()) {
        BOOST_TEST((chunk % block != 0 && chunk < prompt_), name_);
        BOOST_TEST(s.position() == 0);
        o.refused = s.last_refusal();
        continue;
      }
      o.compare(logits, logits_of(truth(text_), prompt_ - 1, 1));
      if (chunk >= block) go_on(o, s, text_, chunk - chunk % block);
    }
    return o;
  }

  outcome unequal_batch() {
    outcome o;
    std::vector<std::vector<token>> texts{text_};
    for (index b = 1; b < 3; ++b) texts.push_back(tokens(length, vocabulary, ++stream_));
    auto s = open(3);
    std::vector<index> now(3, 0);
    const auto feed = [&](const std::vector<index>& n) {
      const index wide = *std::max_element(n.begin(), n.end());
      std::vector<token> padded(at(3 * wide), token{1});
      for (index b = 0; b < 3; ++b) {
        const auto piece = part(texts[at(b)], now[at(b)], n[at(b)]);
        std::copy(piece.begin(), piece.end(), padded.begin() + b * wide);
      }
      const auto logits = s.feed(padded, 3, n);
      BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
      for (index b = 0; b < 3; ++b) {
        now[at(b)] += n[at(b)];
        o.compare(logits_of(logits, b, 1), logits_of(truth(texts[at(b)]), now[at(b)] - 1, 1));
      }
    };
    feed({prompt_, block, 2 * block});
    feed({block, block, block});
    feed({2 * block, 3 * block, block});
    feed({block, block, 4 * block});
    return o;
  }

  /// Both sequences read two blocks behind `point`, each of a text of its own.
  void both_go_on(outcome& o, ln::session<M>& s, index point) {
    const auto next = diverging(point);
    for (index from = point; from < point + 2 * block; from += block) {
      const auto logits = s.feed(side_by_side(text_, next, from, block), 2, {});
      BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
      o.compare(logits_of(logits, 0, 1), logits_of(truth(text_), from + block - 1, 1));
      o.compare(logits_of(logits, 1, 1), logits_of(truth(next), from + block - 1, 1));
    }
  }
  /// The same part of two texts.
  static std::vector<token> side_by_side(const std::vector<token>& a, const std::vector<token>& b,
                                         index from, index count) {
    const auto mine = part(a, from, count), yours = part(b, from, count);
    std::vector<token> both(mine.begin(), mine.end());
    both.insert(both.end(), yours.begin(), yours.end());
    return both;
  }

  /// The other sequence parts from this one at any token, also inside of a block. It is as long,
  /// or it is empty, shorter or longer.
  outcome fork() {
    outcome o;
    for (index point = prompt_; point <= length - 2 * block; point += 5 * block)
      for (const index parts_at : {index{1}, prompt_ / 2, prompt_, (point + prompt_) / 2}) {
        if (parts_at > point || parts_at < 1) continue;
        const auto other = diverging(parts_at);
        auto s = open(2);
        auto logits = s.feed(side_by_side(text_, other, 0, prompt_), 2, {});
        for (index i = prompt_; i < point; i += block)
          logits = s.feed(side_by_side(text_, other, i, block), 2, {});
        BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
        BOOST_REQUIRE(s.fork(0, 1));
        both_go_on(o, s, point);
      }
    const index point = prompt_ + 2 * block;
    for (const index had : {index{0}, block, point + 3 * block}) {
      auto s = open(2);
      if (had == 0) {
        BOOST_REQUIRE(!s.feed(part(text_, 0, point)).empty());
      } else {
        const index wide = (std::max)(point, had);
        const std::vector<index> counts{point, had};
        BOOST_REQUIRE(
            !s.feed(side_by_side(text_, diverging(prompt_ / 2 + 1), 0, wide), 2, counts).empty());
      }
      BOOST_REQUIRE(s.position(0) == point && s.position(1) == had);
      BOOST_REQUIRE(s.fork(0, 1));
      both_go_on(o, s, point);
    }
    return o;
  }

  outcome truncate() {
    outcome o;
    for (const index from : {prompt_ + block, 13 * block, length})
      for (const index back : {block, 2 * block, 5 * block, 8 * block, 10 * block}) {
        if (back > from || from > length) continue;
        auto s = open(1);
        (void)s.prefill(part(text_, 0, from));
        BOOST_TEST((!s.truncate(from - 1) && s.position() == from), name_);
        const bool gone = from - back > 0 && back > most_truncation(s);
        BOOST_TEST(s.truncate(from - back) != gone, name_ << ": " << back << " of " << from);
        if (s.position() == from) {
          o.refused = s.last_refusal();
          go_on(o, s, text_);
          continue;
        }
        const auto other = diverging(from - back);
        go_on(o, s, other, block, (std::min)(from, length));
        go_on(o, s, other, 3 * block);
      }
    return o;
  }

  outcome evaluate() {
    if constexpr (M::cache::code != ln::kv_code::exact) {
      return refused("an evaluator has no cache, whose rounding a session adds");
    } else {
      outcome o;
      auto e = ln::evaluator<M>::open(p_, limits(1));
      BOOST_REQUIRE(static_cast<bool>(e));
      row logits(at(length * vocabulary));
      BOOST_REQUIRE(ln::is_finite(e->loss({text_.data(), text_.data(), 1, length}, logits).nats));
      o.compare(logits, truth(text_));
      return o;
    }
  }

  /// Two texts in one row are as if each had a row of its own, with blocks from its beginning.
  outcome packed_documents() {
    outcome o;
    auto e = ln::evaluator<M>::open(p_, limits(1));
    BOOST_REQUIRE(static_cast<bool>(e));
    std::vector<index> documents(at(length));
    const index starts[] = {0, 29, length};
    BOOST_REQUIRE(ln::mark_documents(std::span(starts).first(2), documents));
    ln::decoder_batch b{text_.data(), text_.data(), 1, length};
    b.documents = documents.data();
    row packed(at(length * vocabulary)), alone(packed);
    BOOST_REQUIRE(ln::is_finite(e->loss(b, packed).nats));
    for (const index i : {0, 1}) {
      const index first = starts[i], size = starts[i + 1] - first;
      const std::span<float> logits(alone.data(), at(size * vocabulary));
      const token* const from = text_.data() + first;
      BOOST_REQUIRE(ln::is_finite(e->loss({from, from, 1, size}, logits).nats));
      o.compare(logits, logits_of(packed, first, size));
    }
    return o;
  }

  /// The weights saved, and run where the file is mapped: not a bit may differ.
  outcome mapped() {
    outcome o;
    const scratch_folder folder;
    BOOST_REQUIRE(ln::save_packed(p_, folder.path("w")));
    const auto p = ln::map_packed<M>(folder.path("w"));
    BOOST_REQUIRE_MESSAGE(p, name_ << (p ? "" : p.error().message()));
    auto s = ln::session<M>::open(*p, limits(1));
    BOOST_REQUIRE(s);
    feed_blocks(o, *s);
    BOOST_TEST(o.exact, name_);
    return o;
  }

  /// A paged cache that runs out refuses the block that it has no room for.
  outcome exhausted() {
    outcome o;
    auto s = ln::session<M>::open(p_, limits(1, 2));
    if (!s) return refusal(s.error());
    const index room = 64 / block * block;  // tokens that two blocks of a cache hold
    go_on(o, *s, text_, block, room);
    BOOST_TEST(s->feed(part(text_, room, block)).empty(), name_);
    BOOST_TEST(s->position() == room, name_);
    return o;
  }

  void note(const char* way, const outcome& o) { notes_.note(layout_, prompt_, way, o); }

  outcome_notes notes_;
  std::string name_, layout_;
  ln::packed<M> p_;
  std::vector<token> text_;
  index prompt_ = 0, blocks_ = 0;
  std::uint64_t stream_ = 100;
  std::map<std::vector<token>, row> truth_;
};

}  // namespace test
