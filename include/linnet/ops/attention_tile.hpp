// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sparse attention: a block of query rows against a list of key rows that the caller chooses. Keys
/// are copied together, so that the products stay dense.

#include <linnet/ops/attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// A score that no query sees: its probability is 0 exactly, in float and in double.
template <class T>
inline constexpr T hidden_score = T(-1e30);

/// Up to attention_rows queries against up to a fixed number of keys of one head of width h, in one
/// thread's scratch memory. The caller loads rows, turns scores into probabilities and derivatives
/// of probabilities into derivatives of scores, and puts results where they belong.
template <class T>
class attention_tile {
 public:
  /// Scratch values for tiles of up to `most` keys.
  static constexpr index size(index most, index h, bool training) {
    const index wide = round_up(most, panel_width), scores = attention_rows * wide,
                rows = attention_rows * h, keys = h * wide;
    return scores + 2 * rows + 2 * keys + (training ? 2 * scores + rows + 4 * keys : 0);
  }
  attention_tile(T* scratch, index most, index h, bool training)
      : h_(h), wide_(round_up(most, panel_width)), training_(training), next_(scratch) {
    scores_ = take(attention_rows * wide_);
    q_ = take(attention_rows * h);
    out_ = take(attention_rows * h);
    key_columns_ = take(h * wide_);
    values_ = take(h * wide_);
    if (!training) return;
    dropped_ = take(attention_rows * wide_);
    slopes_ = take(attention_rows * wide_);
    d_out_ = take(attention_rows * h);
    keys_ = take(h * wide_);
    value_columns_ = take(h * wide_);
    dk_ = take(h * wide_);
    dv_ = take(h * wide_);
  }

  /// Number of keys of this tile.
  index keys() const { return count_; }
  /// Scores, later probabilities, of query `i`, [keys].
  T* row(index i) const { return scores_ + i * wide_; }
  /// Derivatives of the probabilities, later of the scores, of query `i`, [keys].
  T* slopes(index i) const { return slopes_ + i * wide_; }
  /// Output of mix() for query `i`, [h]; after backward() the derivative of the query.
  T* out(index i) const { return out_ + i * h_; }
  /// Derivatives of key `j` and of value `j`, [h], summed over the blocks of queries.
  const T* dk(index j) const { return dk_ + j * h_; }
  const T* dv(index j) const { return dv_ + j * h_; }

  /// Copies `count` rows: key(j) and value(j) tell where they are.
  template <class Key, class Value>
  void load_keys(index count, Key&& key, Value&& value) {
    count_ = count;
    const index padded = round_up(count, panel_width);
    for (index j = 0; j < count; ++j) {
      const T* const k = key(j);
      const T* const v = value(j);
      std::copy_n(v, h_, values_ + j * h_);
      for (index c = 0; c < h_; ++c) key_columns_[c * wide_ + j] = k[c];
      if (!training_) continue;
      std::copy_n(k, h_, keys_ + j * h_);
      for (index c = 0; c < h_; ++c) value_columns_[c * wide_ + j] = v[c];
    }
    for (index c = 0; c < h_; ++c)
      for (index j = count; j < padded; ++j) {
        key_columns_[c * wide_ + j] = T(0);
        if (training_) value_columns_[c * wide_ + j] = T(0);
      }
    if (training_) {
      std::fill_n(dk_, count * h_, T(0));
      std::fill_n(dv_, count * h_, T(0));
    }
  }
  /// Scores [rows, keys] = scale q k^T of the queries at query(i).
  template <class Kernels, class Query>
  void score(Kernels, index rows, T scale, Query&& query) {
    for (index i = 0; i < rows; ++i) std::copy_n(query(i), h_, q_ + i * h_);
    Kernels::template multiply<T>(rows, round_up(count_, panel_width), h_, {q_, h_, 1},
                                  {key_columns_, wide_, panel_width}, scores_, wide_,
                                  {nullptr, scale, false});
  }
  /// out(i) = probabilities times values; keys of probability 0 are not seen.
  template <class Kernels>
  void mix(Kernels kernels, index rows) {
    const detail::value_mix<T> all{rows, h_, count_, 0, scores_, wide_, values_, h_, out_, h_};
    all.run(kernels, [&](index i, index j) { return row(i)[j] != T(0); });
  }
  /// Derivatives slopes(i) of the probabilities, from the derivatives of the outputs at d_out(i)
  /// times share(i).
  template <class Kernels, class Source, class Share>
  void begin_backward(Kernels, index rows, Source&& d_out, Share&& share) {
    for (index i = 0; i < rows; ++i) {
      const T part = share(i);
      const T* const from = d_out(i);
      for (index c = 0; c < h_; ++c) d_out_[i * h_ + c] = part * from[c];
    }
    std::copy_n(scores_, rows * wide_, dropped_);
    Kernels::template multiply<T>(rows, round_up(count_, panel_width), h_, {d_out_, h_, 1},
                                  {value_columns_, wide_, panel_width}, slopes_, wide_, {});
  }
  /// From the derivatives slopes(i) of the scores: out(i) becomes the derivative of the query; adds
  /// to dk and dv.
  template <class Kernels>
  void end_backward(Kernels, index rows, T scale) {
    Kernels::template multiply<T>(count_, h_, rows, {dropped_, 1, wide_}, {d_out_, h_, panel_width},
                                  dv_, h_, {nullptr, T(1), true});
    Kernels::template multiply<T>(rows, h_, count_, {slopes_, wide_, 1}, {keys_, h_, panel_width},
                                  out_, h_, {nullptr, scale, false});
    Kernels::template multiply<T>(count_, h_, rows, {slopes_, 1, wide_}, {q_, h_, panel_width}, dk_,
                                  h_, {nullptr, scale, true});
  }
  /// Applies dropout to query i's probabilities, before mix(). Between begin_backward() and
  /// end_backward() it applies to the probabilities that dv is made of and to their derivatives.
  /// `first` numbers query i's scores.
  template <class Kernels>
  void drop(Kernels kernels, const dropout_key& key, index sample, int dropout_id, index i,
            index first, bool backward) {
    ops::drop(kernels, key, sample, dropout_id, first, count_,
              backward ? dropped_ + i * wide_ : row(i), backward ? slopes(i) : nullptr);
  }

 private:
  T* take(index n) {
    T* const p = next_;
    next_ += n;
    return p;
  }
  index h_, wide_, count_ = 0;
  bool training_;
  T* next_;
  T *scores_, *q_, *out_, *key_columns_, *values_;
  T *dropped_ = nullptr, *slopes_ = nullptr, *d_out_ = nullptr, *keys_ = nullptr,
    *value_columns_ = nullptr, *dk_ = nullptr, *dv_ = nullptr;
};

}  // namespace ops

LINNET_NAMESPACE_END
