// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One truth for every way to run an encoder: the logits of each text alone, or a refusal. Of a
/// contrastive head it is the vector.

#include <numeric>

#include "matrix/outcome.hpp"
#include "support/encoders.hpp"
#include "support/scoring.hpp"

namespace test {

/// Crosses one encoder with all ways to run it.
template <class M>
class encoder_ways {
 public:
  /// Texts of up to `length` tokens; `bound` on what rounding may do to a logit.
  static constexpr index batch = 3, length = 21;

  encoder_ways(std::string name, double bound)
      : notes_(std::move(name), bound), data_(encoder_data<M>(batch, length)) {
    using base = typename M::template with_storage<ln::storage::f32>;
    ln::weights<base> w;
    randomize(w, 3);
    if constexpr (std::is_same_v<base, M>)
      p_ = ln::pack(w);
    else
      p_ = ln::pack(ln::quantize<typename M::storage>(w));
    data_.lengths = {length, 9, 1};
    if (M::label_per_sequence) return;
    for (index i = 0; i < batch * length; ++i)
      data_.labels[at(i)] = i % length < data_.lengths[at(i / length)]
                                ? static_cast<token>(i % M::vocabulary)
                                : ln::ignored;
  }

  void run() {
    for (index b = 0; b < batch; ++b) truth_.push_back(logits(data_.alone(b)));
    note("whole batch", whole_batch());
    note("unequal batch", unequal_batch(1));
    note("three threads", unequal_batch(3));
    note("trainer", training());
    note("embedder", embeddings());
    note("paged", paged());
  }

 private:
  void note(const char* way, const outcome& o) { notes_.note("contiguous", 0, way, o); }
  ln::limits limits(int threads = 1) const {
    ln::limits l = data_.limits(threads);
    l.run_on = std_threads();
    return l;
  }
  std::vector<float> logits(const ln::encoder_batch& b, int threads = 1) const {
    if constexpr (M::head::contrasts)
      return embed(b, threads);
    else
      return logits_of(p_, b, limits(threads));
  }
  std::vector<float> embed(const ln::encoder_batch& b, int threads = 1) const {
    auto run = ln::embedder<M>::open(p_, limits(threads));
    BOOST_REQUIRE(static_cast<bool>(run));
    const auto all = run->embed(b);
    return {all.begin(), all.end()};
  }
  /// Compares the logits of a padded batch with those of its texts alone.
  outcome compare(const std::vector<float>& got) const {
    outcome o;
    for (index b = 0; b < batch; ++b) {
      const auto& want = truth_[at(b)];
      const std::size_t row = M::label_per_sequence ? want.size() : at(length * M::vocabulary);
      o.compare(std::span(got).subspan(at(b) * row, want.size()), want);
    }
    return o;
  }
  /// Three texts of one length: the first one, three times.
  outcome whole_batch() const {
    std::vector<token> tokens, types, labels;
    for (index b = 0; b < batch; ++b) {
      tokens.insert(tokens.end(), data_.inputs.begin(), data_.inputs.begin() + length);
      types.insert(types.end(), data_.types.begin(), data_.types.begin() + length);
      labels.insert(labels.end(), data_.labels.begin(),
                    data_.labels.begin() + (M::label_per_sequence ? 1 : length));
    }
    const auto got = logits({tokens.data(), nullptr, labels.data(), batch, length, types.data()});
    outcome o;
    for (index b = 0; b < batch; ++b)
      o.compare(std::span(got).subspan(at(b) * truth_[0].size(), truth_[0].size()), truth_[0]);
    return o;
  }
  outcome unequal_batch(int threads) const { return compare(logits(data_.view(), threads)); }
  outcome training() const {
    if constexpr (!std::is_same_v<typename M::storage, ln::storage::f32>) {
      return {0, true, "training needs f32 weights"};
    } else {
      auto w = ln::unpack(p_);
      auto train = ln::trainer<M>::open(w, limits());
      BOOST_REQUIRE(static_cast<bool>(train));
      auto texts = data_.view();
      if constexpr (M::head::contrasts) {  // the cosine of one pair
        texts.batch = 2;
        std::vector<float> got(2);
        BOOST_TEST(ln::is_finite(train->evaluate(texts, got).nats));
        const float want[] = {
            std::inner_product(truth_[0].begin(), truth_[0].end(), truth_[1].begin(), 0.0F)};
        outcome o;
        o.compare(std::span(got).first(1), want);
        return o;
      }
      std::vector<float> got(truth_[0].size() * at(batch));
      BOOST_TEST(ln::is_finite(train->evaluate(texts, got).nats));
      return compare(got);
    }
  }
  outcome embeddings() const {
    const std::vector<float> got = embed(data_.view());
    outcome o;
    for (index b = 0; b < batch; ++b) {
      const std::vector<float> want = embed(data_.alone(b));
      o.compare(std::span(got).subspan(at(b) * want.size(), want.size()), want);
    }
    return o;
  }
  outcome paged() const {
    ln::limits l = limits();
    l.kv_blocks = 4;
    const auto opened = ln::evaluator<M>::open(p_, l);
    BOOST_REQUIRE(!opened);
    return {0, true, opened.error().what + ": " + opened.error().expected};
  }

  outcome_notes notes_;
  ln::packed<M> p_;
  encoder_tokens data_;
  std::vector<std::vector<float>> truth_;
};

}  // namespace test
