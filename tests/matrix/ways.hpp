// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One truth for every way to run a model: the tokens and scores of the plain way, or a refusal.
///
/// The plain way is a session that starts with a prompt and is fed token by token. Every other way
/// has to give its numbers: to the last bit, or nearer than a bound that its rounding explains.

#include <algorithm>
#include <map>

#include "matrix/block_ways.hpp"
#include "matrix/encoder_ways.hpp"
#include "matrix/outcome.hpp"
#include "support/data.hpp"
#include "support/scoring.hpp"

namespace test {

/// The tokens of a way that chooses: they may leave the plain ones only where two logits are as
/// near as the bound.
struct text_with_gaps {
  std::vector<token> tokens;
  std::vector<std::vector<float>> logits;  ///< before each token
};

/// Crosses one model type with all ways to run it.
template <class M, class Draft>
class all_ways {
  static constexpr bool encodes = M::encodes;
  static constexpr bool decodes = M::exits > 0;
  static constexpr index slots = ln::session<M>::ids_per_token, vocabulary = M::vocabulary;
  static constexpr bool prefixed = ln::session<M>::takes_prefix;
  /// Whether a whole sequence at once is grouped by its later tokens, which a session cannot be.
  static constexpr bool noncausal = [] {
    if constexpr (encodes)
      return M::decoder_attention::noncausal_grouping;
    else
      return M::attention::noncausal_grouping;
  }();
  static constexpr bool can_truncate = M::can_truncate;
  using row = std::vector<float>;

 public:
  /// Text of three blocks of a cache; `bound` on what rounding may do to a logit.
  static constexpr index length = 72, capacity = 80, short_prompt = 5, long_prompt = 37;

  all_ways(const std::string& name, double bound) : notes_(name, bound), name_(name) {
    using base = typename M::template with_storage<ln::storage::f32>;
    ln::weights<base> w;
    randomize(w, 3);
    if constexpr (std::is_same_v<base, M>)
      p_ = ln::pack(w);
    else
      p_ = ln::pack(ln::quantize<typename M::storage>(w));
    give_key_scales(p_);
    if constexpr (slots == 1) {
      ln::weights<Draft> d;
      randomize(d, 4);
      draft_ = ln::pack(d);
    }
    source_ = some(11, 77);
    other_source_ = some(40, 78);
    text_ = words(length, 5);
    if (encodes)
      for (index i = 0; i < slots; ++i) text_[at(i)] = first();
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
      for (const index prompt : {short_prompt, long_prompt}) {
        prompt_ = prompt;
        truth_.clear();
        note("one by one", one_by_one());
        note("parts", parts());
        note("unequal batch", unequal_batch());
        note("fork", fork());
        note("truncate", truncate());
        note("tree", branches());
        if constexpr (slots == 1) {
          note("generate", generate());
          note("beam of 1", beam());
          note("speculative", speculative());
          note("self-speculative", self_speculative());
          note("path scores", path_scores());
        }
        note("evaluator", evaluate());
        if (blocks == 0 && prompt == short_prompt) note("packed documents", packed_documents());
        if (blocks == 0 && prompt == short_prompt) note("mapped", mapped());
      }
    }
    note("no blocks left", exhausted());
  }

 private:
  /// Scales of keys, where the cache asks for them.
  static void give_key_scales(ln::packed<M>& p) {
    if constexpr (M::cache::calibrated)
      p.set_key_scales(*ln::key_scales<M>::of(row(at(ln::key_scales<M>::count), 0.5f)));
  }
  static constexpr token first() {
    if constexpr (encodes) return M::start;
    return 0;
  }
  static std::vector<token> some(index n, std::uint64_t stream) {
    return tokens(n, vocabulary, stream);
  }
  /// [n, slots] tokens.
  static std::vector<token> words(index n, std::uint64_t stream) { return some(n * slots, stream); }
  static std::span<const token> part(std::span<const token> x, index from, index count) {
    return x.subspan(at(from * slots), at(count * slots));
  }
  ln::limits limits(index batch, index blocks = 0, index chunk = 0, index logits = 7) const {
    return {.batch = batch,
            .source = 40,
            .target = capacity,
            .chunk = chunk,
            .kv_blocks = blocks,
            .min_flops_per_thread = 0,
            .max_logits = chunk > 0 ? (std::min)(chunk, logits) : logits};
  }
  ln::session<M> open(index batch, index chunk = 0, index logits = 7) const {
    auto s = ln::session<M>::open(p_, limits(batch, blocks_, chunk, logits));
    BOOST_REQUIRE_MESSAGE(static_cast<bool>(s), name_);
    return *std::move(s);
  }
  /// Starts with the first `prompt` tokens of a text; returns what follows them.
  std::span<float> start(ln::session<M>& s, std::span<const token> text, index prompt) const {
    if constexpr (encodes) {
      BOOST_REQUIRE(s.encode(source_));
      return s.prefill(part(text, 0, prompt));
    } else {
      return s.reset_and_prefill(part(text, 0, prompt));
    }
  }
  static row copy(std::span<const float> x) { return row(x.begin(), x.end()); }

  /// The logits behind each token of a text from its prompt on, the plain way.
  const std::vector<row>& truth(const std::vector<token>& text) {
    auto& rows = truth_[text];
    if (rows.empty()) {
      ln::session<M> s = open(1);
      rows.resize(text.size() / at(slots) + 1);
      rows[at(prompt_)] = copy(start(s, text, prompt_));
      for (index i = prompt_; i < std::ssize(text) / slots; ++i)
        rows[at(i + 1)] = copy(s.feed(part(text, i, 1)));
    }
    return rows;
  }
  void compare(outcome& o, std::span<const float> got, std::span<const float> plain) const {
    o.compare(got, plain);
  }
  /// Feeds the rest of a text from where the session is, in pieces, and compares each.
  void go_on(outcome& o, ln::session<M>& s, std::span<const token> text,
             const std::vector<row>& plain, index piece = 1, index until = length) const {
    for (index i = s.position(); i < until;) {
      const index n = (std::min)(piece, until - i);
      const auto logits = s.feed(part(text, i, n));
      BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
      i += n;
      compare(o, logits, plain[at(i)]);
    }
  }

  outcome one_by_one() {
    outcome o;
    const auto& plain = truth(text_);
    auto s = open(1);
    if (prefixed) {  // the first call is the prefix
      compare(o, start(s, text_, prompt_), plain[at(prompt_)]);
    } else {
      std::span<float> logits;
      if constexpr (encodes) BOOST_REQUIRE(s.encode(source_));
      for (index i = 0; i < prompt_; ++i) logits = s.feed(part(text_, i, 1));
      compare(o, logits, plain[at(prompt_)]);
    }
    go_on(o, s, text_, plain);
    return o;
  }

  /// The weights saved, and run where the file is mapped: not a bit may differ.
  outcome mapped() {
    outcome o;
    const auto& plain = truth(text_);
    const scratch_folder folder;
    BOOST_REQUIRE(ln::save_packed(p_, folder.path("w")));
    auto p = ln::map_packed<M>(folder.path("w"));
    BOOST_REQUIRE_MESSAGE(p, name_ << (p ? "" : p.error().message()));
    give_key_scales(*p);
    auto s = ln::session<M>::open(*p, limits(1));
    BOOST_REQUIRE(s);
    compare(o, start(*s, text_, prompt_), plain[at(prompt_)]);
    go_on(o, *s, text_, plain);
    BOOST_TEST(o.exact, name_);
    return o;
  }

  outcome parts() {
    outcome o;
    const auto& plain = truth(text_);
    for (index chunk = 1; chunk <= 40; chunk += chunk < 12 ? 1 : 7) {
      auto s = open(1, chunk);
      const auto logits = start(s, text_, prompt_);
      if (logits.empty()) {
        BOOST_TEST((prefixed && chunk < prompt_), name_);
        o.refused = "a prefix has to come in one call, so in no more tokens than limits.chunk";
        continue;
      }
      compare(o, logits, plain[at(prompt_)]);
      go_on(o, s, text_, plain, chunk);
    }
    return o;
  }

  outcome unequal_batch() {
    outcome o;
    // What follows the valid tokens is arbitrary; the third sequence has another source.
    const std::vector<index> counts{prompt_, 3, prompt_ - 2};
    std::vector<std::vector<token>> texts{text_, words(length, 6), words(length, 7)};
    if (encodes)
      for (auto& t : texts) t[0] = first();
    auto s = open(3);
    const std::vector<index> sources{11, 4, 40};
    std::vector<token> padded_sources(3 * 40, 1);
    std::copy(source_.begin(), source_.end(), padded_sources.begin());
    std::copy_n(source_.begin(), 4, padded_sources.begin() + 40);
    std::copy(other_source_.begin(), other_source_.end(), padded_sources.begin() + 80);
    if constexpr (encodes) BOOST_REQUIRE(s.encode(padded_sources, 3, sources));
    std::vector<ln::session<M>> alone;
    for (index b = 0; b < 3; ++b) {
      alone.push_back(open(1));
      if constexpr (encodes)
        BOOST_REQUIRE(alone.back().encode(
            std::span<const token>(padded_sources).subspan(at(b * 40), at(sources[at(b)]))));
    }
    std::vector<index> at_now(3, 0);
    const auto feed = [&](const std::vector<index>& n) {
      const index wide = *std::max_element(n.begin(), n.end());
      std::vector<token> padded(at(3 * wide * slots), token{1});
      for (index b = 0; b < 3; ++b) {
        const auto piece = part(texts[at(b)], at_now[at(b)], n[at(b)]);
        std::copy(piece.begin(), piece.end(), padded.begin() + b * wide * slots);
      }
      const auto logits = s.feed(padded, 3, n);
      BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
      const auto size = at(slots * vocabulary);
      for (index b = 0; b < 3; ++b) {
        compare(o, logits.subspan(at(b) * size, size),
                alone[at(b)].feed(part(texts[at(b)], at_now[at(b)], n[at(b)])));
        at_now[at(b)] += n[at(b)];
      }
    };
    feed(counts);
    feed({1, 1, 1});
    feed({2, 9, 1});
    feed({25, 3, 30});
    feed({1, 1, 1});
    return o;
  }

  /// A text that equals text_ before token `from`.
  std::vector<token> diverging(index from, std::uint64_t stream) const {
    std::vector<token> other = words(length, stream);
    std::copy_n(text_.begin(), from * slots, other.begin());
    return other;
  }

  outcome fork() {
    outcome o;
    std::uint64_t stream = 100;
    for (index point = prompt_; point < length - 4; point += 11) {
      // The other sequence parts from this one at any token, before or behind the prompt.
      for (const index parts_at : {index{1}, prompt_ / 2, prompt_, (point + prompt_) / 2}) {
        if (parts_at > point || parts_at < 1) continue;
        const auto other = diverging(parts_at, ++stream);
        auto s = open(2);
        if constexpr (encodes) {
          std::vector<token> both(source_);
          both.insert(both.end(), source_.begin(), source_.end());
          const std::vector<index> sizes{11, 11};
          BOOST_REQUIRE(s.encode(both, 2, sizes));
        }
        const auto feed_both = [&](std::span<const token> a, std::span<const token> b, index from,
                                   index n) {
          std::vector<token> all;
          for (const auto& x : {part(a, from, n), part(b, from, n)})
            all.insert(all.end(), x.begin(), x.end());
          return s.feed(all, 2, {});
        };
        std::span<float> logits = feed_both(text_, other, 0, prompt_);
        for (index i = prompt_; i < point; ++i) logits = feed_both(text_, other, i, 1);
        BOOST_REQUIRE_MESSAGE(!logits.empty(), name_);
        BOOST_REQUIRE(s.fork(0, 1));
        const auto next = diverging(point, ++stream);
        const auto size = at(slots * vocabulary);
        for (index i = point; i < point + 4; ++i) {
          logits = feed_both(text_, next, i, 1);
          compare(o, logits.first(size), truth(text_)[at(i + 1)]);
          compare(o, logits.subspan(size), truth(next)[at(i + 1)]);
        }
      }
    }
    return o;
  }

  outcome truncate() {
    outcome o;
    if constexpr (!can_truncate) {
      o.refused = "this kind of attention cannot take tokens back";
    } else {
      std::uint64_t stream = 300;
      const auto& plain = truth(text_);
      for (const index chunk : {index{0}, index{9}})
        for (const index from : {prompt_ + 3, index{50}, index{65}, index{72}})
          for (const index back : {index{1}, index{8}, index{20}, index{40}}) {
            const index to = from - back;
            auto s = open(1, chunk);
            if (start(s, text_, prompt_).empty()) continue;
            for (index i = prompt_; i < from; ++i) (void)s.feed(part(text_, i, 1));
            // Twice, as each part of a way back may be short enough and the whole not.
            index now = from;
            const index most = most_truncation(s);
            const auto least = [&](index longest) {
              return (std::max)(longest - most, prefixed ? prompt_ : 0);
            };
            for (const index step : {to, to - 3}) {
              if (step < 1 || now < step) continue;
              BOOST_TEST(s.truncate(step) == (step >= least(from)), name_ << ": to " << step);
              if (s.position() == now && step < now)
                o.refused = s.last_refusal();
              else
                now = step;
              BOOST_TEST(s.position() == now, name_);
            }
            if (now < prompt_) continue;  // plain runs know nothing there
            if (now == from) {            // refused: as if nothing had been asked
              go_on(o, s, text_, plain, 1, length);
              if (least(length) < 2) continue;
              BOOST_TEST(!s.truncate(least(length) - 1), name_);
              BOOST_TEST(s.truncate(least(length)), name_);
              continue;
            }
            const auto other = diverging(now, ++stream);
            const auto& expected = truth(other);
            go_on(o, s, other, expected, 1, (std::min)(now + 3, length));
            go_on(o, s, other, expected, chunk ? chunk : 11, (std::min)(now + 36, length));
          }
    }
    return o;
  }

  /// Two branches in one call: one is kept, and the text goes on.
  outcome branches() {
    outcome o;
    if constexpr (!M::supports_trees) {
      o.refused = "the cache of these models keeps texts, not trees";
    } else {
      auto s = open(1);
      BOOST_REQUIRE(!start(s, text_, prompt_).empty());
      for (index i = 0; i < 2; ++i) {  // a wrong token, the text's next two, a wrong one behind it
        const index now = s.position();
        const token wrong = static_cast<token>((text_[at(now)] + 1) % vocabulary);
        const token nodes[] = {wrong, text_[at(now)], text_[at(now + 1)], wrong};
        const index parents[] = {-1, -1, 1, 0};
        const auto rows = s.feed_tree(nodes, parents);
        BOOST_REQUIRE_MESSAGE(!rows.empty(), name_);
        const auto& plain = truth(text_);
        for (const index node : {1, 2})
          compare(o, rows.subspan(at(node * vocabulary), at(vocabulary)), plain[at(now + node)]);
        BOOST_REQUIRE(s.keep_path(2));
      }
      go_on(o, s, text_, truth(text_));
    }
    return o;
  }

  /// Greedy text by hand.
  text_with_gaps greedy_text() {
    text_with_gaps t;
    auto s = open(1);
    std::span<float> logits;
    if constexpr (encodes)
      logits = s.reset_and_prefill(source_);
    else
      logits = start(s, text_, prompt_);
    while (s.position() < capacity) {
      t.logits.push_back(copy(logits));
      const token next =
          static_cast<token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      t.tokens.push_back(next);
      logits = s.feed({&next, 1});
    }
    t.logits.push_back(copy(logits));
    t.tokens.push_back(
        static_cast<token>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    return t;
  }
  /// Texts are equal, or part where the plain way found two tokens about as good.
  outcome compare_texts(const std::vector<token>& got) {
    const text_with_gaps plain = greedy_text();
    outcome o;
    const auto [a, b] =
        std::mismatch(got.begin(), got.end(), plain.tokens.begin(), plain.tokens.end());
    if (b == plain.tokens.end() && a == got.end()) return o;
    o.exact = false;
    if (a == got.end() || b == plain.tokens.end()) {
      BOOST_TEST_MESSAGE(name_ << " " << layout_ << " prompt " << prompt_ << ": " << got.size()
                               << " tokens, the plain way " << plain.tokens.size());
      o.worst = hopeless;
      return o;
    }
    const row& logits = plain.logits[at(b - plain.tokens.begin())];
    o.worst = std::abs(static_cast<double>(logits[at(*a)]) - static_cast<double>(logits[at(*b)]));
    return o;
  }
  std::span<const token> prompt_or_source() const {
    if constexpr (encodes) return source_;
    return part(text_, 0, prompt_);
  }

  outcome generate() {
    auto s = open(1);
    std::vector<token> got;
    (void)s.generate(prompt_or_source(), ln::greedy{}, [&](token t) { got.push_back(t); });
    return compare_texts(got);
  }
  outcome beam() {
    auto s = open(2);
    auto search = ln::beam_search<M>::open(s, {.width = 1});
    BOOST_REQUIRE(static_cast<bool>(search));
    const auto found = (*search)(prompt_or_source());
    if (found.empty()) return {hopeless, false, ""};
    return compare_texts({found[0].tokens.begin(), found[0].tokens.end()});
  }
  outcome speculative() {
    if constexpr (!can_truncate) {
      return {0, true, "this kind of attention cannot take tokens back"};
    } else {
      outcome o;
      for (const index drafts : {index{1}, index{4}}) {
        auto s = open(1, 0, drafts + 1);
        auto d = ln::session<Draft>::open(draft_, limits(1));
        BOOST_REQUIRE(static_cast<bool>(d));
        auto fast = ln::speculative<M, Draft>::open(s, *d, drafts);
        BOOST_REQUIRE(static_cast<bool>(fast));
        std::vector<token> got;
        (void)fast->generate(prompt_or_source(), ln::greedy{}, [&](token t) { got.push_back(t); });
        const outcome one = compare_texts(got);
        o = {(std::max)(o.worst, one.worst), o.exact && one.exact, ""};
      }
      return o;
    }
  }
  outcome self_speculative() {
    if constexpr (!decodes) {
      return {0, true, "the model must be a decoder"};
    } else if constexpr (!can_truncate) {
      return {0, true, "this kind of attention cannot take tokens back"};
    } else {
      auto s = open(1);
      auto fast = ln::self_speculative<M>::open(s, 1, 4);
      BOOST_REQUIRE(static_cast<bool>(fast));
      std::vector<token> got;
      (void)fast->generate(prompt_or_source(), ln::greedy{}, [&](token t) { got.push_back(t); });
      return compare_texts(got);
    }
  }

  outcome path_scores() {
    outcome o;
    if constexpr (encodes) {
      o.refused = "path scores are for decoders";
    } else {
      // Given tokens are a prompt; what follows is scored as the plain way would. A log probability
      // moves by up to twice what a logit moves by, which is a share of the largest.
      const auto& plain = truth(text_);
      double reach = 1;
      for (index i = prompt_; i < length; ++i)
        reach = (std::max)(reach, 2 * magnitude(plain[at(i)]));
      for (const index logits : {1, 3, 64}) {
        auto s = open(3, 0, logits);
        ln::session_scorer paths(s);
        BOOST_REQUIRE(paths.begin(part(text_, 0, prompt_), {}));
        std::vector<ln::token_score> scores(at(length - prompt_)), again(scores);
        const ln::continuation all[] = {{part(text_, prompt_, length - prompt_), scores},
                                        {part(text_, prompt_, length - prompt_), again}};
        BOOST_REQUIRE(paths.score_all(all));
        for (index i = prompt_; i < length; ++i)
          for (const auto* x : {&scores, &again}) {
            row expected = plain[at(i)];
            const double p = ln::score_of(std::span<float>(expected), text_[at(i)]).log_probability;
            const double got = (*x)[at(i - prompt_)].log_probability;
            o.worst = (std::max)(o.worst, distance_of(p, got) / reach);
            o.exact = o.exact && p == got;
          }
        // Scores of the given tokens know nothing of what follows each.
        std::vector<ln::token_score> whole(at(length - 1));
        BOOST_REQUIRE(paths.begin(part(text_, 0, length), whole));
        if (given_.empty()) given_ = whole;
        for (std::size_t i = 0; i < whole.size(); ++i) {
          o.worst = (std::max)(
              o.worst, distance_of(whole[i].log_probability, given_[i].log_probability) / reach);
          o.exact = o.exact && whole[i].log_probability == given_[i].log_probability;
        }
      }
      given_.clear();
    }
    return o;
  }

  outcome evaluate() {
    outcome o;
    if constexpr (noncausal) {
      o.refused = "whole sequences are grouped by later tokens, too";
      return o;
    } else if constexpr (M::cache::code != ln::kv_code::exact) {
      o.refused = "an evaluator has no cache, whose rounding a session adds";
      return o;
    } else if constexpr (slots > 1) {
      o.refused = "not compared here: tests/model/byte_pooled_test.cpp";
      return o;
    } else {
      auto e = ln::evaluator<M>::open(p_, limits(1));
      BOOST_REQUIRE(static_cast<bool>(e));
      std::vector<token> labels(text_.begin() + 1, text_.end());
      labels.push_back(0);
      row logits(at(length * vocabulary));
      if constexpr (encodes) {
        const index size = std::ssize(source_);
        BOOST_REQUIRE(ln::is_finite(
            e->loss({source_.data(), &size, labels.data(), 1, size, length}, logits).nats));
      } else {
        ln::decoder_batch b{text_.data(), labels.data(), 1, length};
        const index prefix = prompt_;
        if (prefixed) b.prefixes = &prefix;
        BOOST_REQUIRE(ln::is_finite(e->loss(b, logits).nats));
      }
      const auto& plain = truth(text_);
      for (index i = prompt_; i <= length; ++i)
        compare(o, std::span<const float>(logits).subspan(at((i - 1) * vocabulary), at(vocabulary)),
                plain[at(i)]);
      return o;
    }
  }

  /// Two texts in one row are as if each had a row of its own.
  outcome packed_documents() {
    outcome o;
    if constexpr (!std::is_same_v<typename M::batch, ln::decoder_batch>) {
      o.refused =
          "not compared here: tests/model/t5_gradient_test.cpp; byte_pooled has no documents";
    } else {
      auto e = ln::evaluator<M>::open(p_, limits(1));
      BOOST_REQUIRE(static_cast<bool>(e));
      std::vector<index> documents(at(length));
      const index starts[] = {0, 29, length};
      BOOST_REQUIRE(ln::mark_documents(std::span(starts).first(2), documents));
      ln::decoder_batch b{text_.data(), text_.data(), 1, length};
      b.documents = documents.data();
      row packed(at(length * vocabulary)), alone(packed);
      if (!ln::is_finite(e->loss(b, packed).nats)) {
        BOOST_TEST(!M::supports_documents, name_);
        o.refused = e->last_refusal();
        return o;
      }
      for (const index i : {0, 1}) {
        const index first = starts[i], size = starts[i + 1] - first;
        const std::span<float> logits(alone.data(), at(size * vocabulary));
        const token* const from = text_.data() + first;
        BOOST_REQUIRE(ln::is_finite(e->loss({from, from, 1, size}, logits).nats));
        compare(o, logits,
                std::span<const float>(packed).subspan(at(first * vocabulary), logits.size()));
      }
    }
    return o;
  }

  static outcome refusal(const ln::error& e) { return {0, true, e.what + ": " + e.expected}; }

  /// A paged cache that runs out: every way ends, and what it has said until then was right.
  outcome exhausted() {
    outcome o;
    prompt_ = short_prompt;
    layout_ = "paged";
    auto opened = ln::session<M>::open(p_, limits(2, 2));
    if (!opened) {
      return refusal(opened.error());
    }
    if constexpr (slots == 1) {
      blocks_ = 0;
      const text_with_gaps plain = greedy_text();
      blocks_ = 2;
      const auto check = [&](const std::vector<token>& got, index least) {
        BOOST_TEST(std::ssize(got) >= least, name_);
        for (std::size_t i = 0; i < got.size(); ++i)
          if (got[i] != plain.tokens[i]) {
            o.worst = (std::max)(
                o.worst, std::abs(static_cast<double>(plain.logits[i][at(got[i])] -
                                                      plain.logits[i][at(plain.tokens[i])])));
            o.exact = false;
            break;
          }
      };
      const index room = 64 - (encodes ? 1 : prompt_);  // tokens that two blocks hold
      std::vector<token> got;
      auto& s = *opened;
      const auto emit = [&](token t) { got.push_back(t); };
      (void)s.generate(prompt_or_source(), ln::greedy{}, emit);
      check(got, room + 1);
      auto search = ln::beam_search<M>::open(s, {.width = 1});
      const auto found = (*search)(prompt_or_source());
      BOOST_REQUIRE(!found.empty());
      check({found[0].tokens.begin(), found[0].tokens.end()}, room + 1);
      auto wide = ln::beam_search<M>::open(s, {.width = 2, .early = false});
      BOOST_TEST(!(*wide)(prompt_or_source()).empty());
      if constexpr (can_truncate) {
        auto d = ln::session<Draft>::open(draft_, limits(1));
        auto fast = ln::speculative<M, Draft>::open(s, *d, 4);
        got.clear();
        (void)fast->generate(prompt_or_source(), ln::greedy{}, emit);
        check(got, room + 1);
        if constexpr (decodes) {
          auto own = ln::self_speculative<M>::open(s, 1, 4);
          got.clear();
          (void)own->generate(prompt_or_source(), ln::greedy{}, emit);
          check(got, room + 1);
        }
      }
    } else {
      // Tokens of bytes: any that are not padding, until no more fit.
      const auto choose = [](std::span<float>, std::span<token>) { return token{'a'}; };
      const index n =
          ln::generate_bytes(*opened, part(text_, 0, prompt_), choose, [](std::string_view) {});
      BOOST_TEST(n == 64 - prompt_ + 1, name_);
    }
    return o;
  }

  void note(const char* way, const outcome& o) { notes_.note(layout_, prompt_, way, o); }

  outcome_notes notes_;
  std::string name_, layout_;
  ln::packed<M> p_;
  ln::packed<Draft> draft_;
  std::vector<token> source_, other_source_, text_;
  index prompt_ = 0, blocks_ = 0;
  std::map<std::vector<token>, std::vector<row>> truth_;
  std::vector<ln::token_score> given_;
};

/// The families: their models by policies, and what drafts for them.
namespace matrix {

inline constexpr ln::decoder_shape decoder_shape{.d_model = 8,
                                                 .d_ff = 7,
                                                 .heads = 4,
                                                 .kv_heads = 2,
                                                 .layers = 2,
                                                 .vocabulary = 11,
                                                 .context = 80,
                                                 .eps = 1e-3};
/// Cores of a table of that size.
inline constexpr ln::tensor_train_shape tensor_train_cores{
    .rows = {4, 3}, .columns = {2, 4}, .ranks = {3}};
/// Its heads have keys and values of their own, as RWKV-7 asks for.
inline constexpr ln::decoder_shape rwkv_shape = [] {
  ln::decoder_shape s = decoder_shape;
  s.kv_heads = s.heads;
  return s;
}();
/// Heads of an even width, for rotary positions.
inline constexpr ln::encoder_shape encoder_shape{
    .d_model = 8, .d_ff = 7, .heads = 2, .layers = 2, .vocabulary = 11, .context = 40, .eps = 1e-3};
struct decoder {
  template <class... Policies>
  using of = ln::decoder<(std::is_base_of_v<ln::mixer::rwkv7, Policies> || ...) ? rwkv_shape
                                                                                : decoder_shape,
                         Policies...>;
  using draft = ln::decoder<decoder_shape, ln::ffn::skip>;
};
/// Stands before the policies of a T5 in which queries share keys and values in pairs.
struct grouped {};
struct t5 {
  template <class... Policies>
  struct made {
    using type = ln::t5<tiny_t5_shape, Policies...>;
  };
  template <class... Policies>
  struct made<grouped, Policies...> {
    using type = ln::t5<grouped_t5_shape, Policies...>;
  };
  template <class... Policies>
  using of = typename made<Policies...>::type;
  using draft = ln::t5<tiny_t5_shape, ln::ffn::skip>;
};
struct encoder {
  template <class... Policies>
  using of = ln::encoder<encoder_shape, Policies...>;
};
struct byte_pooled {
  template <class... Policies>
  using of = ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<tiny_pooling>, Policies...>;
  using draft = decoder::draft;  // none is asked for
};

/// Whether matrices of a model are the sum of a shared one and a delta of low rank.
template <class M>
constexpr bool has_deltas = requires {
  requires M::sharing::projections.delta;
};

/// What sums in another order may do to a logit of model `M`, as a share of the largest: where
/// numbers are rounded to codes on their way, a sum may take the code beside its own in each of the
/// two layers. That is 1/256 away in bfloat16 and less in int8, and 1/14 where inputs of products
/// have 4 bits or are 8-bit floats; a low-rank delta rounds inputs twice. A state that every token
/// changes carries each difference on.
template <class M>
constexpr double bound() {
  if constexpr (requires { requires std::is_same_v<typename M::attention, ln::mixer::rwkv7>; })
    return 1e-4;
  using inputs = typename M::storage::compute;
  if constexpr (std::is_same_v<inputs, ln::compute::int4> ||
                std::is_same_v<inputs, ln::compute::fp8>)
    return has_deltas<M> ? 4.0 / 14 : 2.0 / 14;
  constexpr bool rounds =
      M::cache::code != ln::kv_code::exact || !std::is_same_v<inputs, ln::compute::f32>;
  return rounds ? 2.0 / 256 : 1e-5;
}

template <class Family, class... Policies>
void check(const char* name) {
  using M = typename Family::template of<Policies...>;
  if constexpr (ln::detail::is_encoder<M>)
    encoder_ways<M>(name, bound<M>()).run();
  else if constexpr (M::block_tokens > 1)
    block_ways<M>(name, bound<M>()).run();
  else
    all_ways<M, typename Family::draft>(name, bound<M>()).run();
}

}  // namespace matrix

}  // namespace test
