// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Block tables of paged key-value memory: which sequence owns which block (Kwon et al. 2023).

#include <algorithm>

#include <linnet/core/arena.hpp>
#include <linnet/ops/execution.hpp>

LINNET_NAMESPACE_BEGIN

/// Block tables: for each sequence, the blocks of ops::token_block tokens that it reads and writes.
/// Sequences that continue one another share blocks until one of them writes into a block: then it
/// gets a copy. Memory is given once; nothing allocates.
class block_tables {
 public:
  block_tables() = default;
  /// Tables of `batch` sequences of up to `capacity` tokens over `blocks` blocks, all free.
  constexpr block_tables(arena& memory, index batch, index capacity, index blocks)
      : batch_(batch),
        size_(blocks_of(capacity)),
        blocks_(blocks),
        table_(memory.take<std::int32_t>(batch * size_)),
        used_(memory.take<index>(batch)),
        references_(memory.take<std::int32_t>(blocks)),
        free_(memory.take<std::int32_t>(blocks)) {}

  /// Blocks in each table.
  index size() const { return size_; }
  /// The table [batch, size()] of block numbers; entries behind a sequence's tokens mean nothing.
  const std::int32_t* data() const { return table_; }
  /// Number of free blocks. So are those that sequence 0 has behind its first `past` tokens. They
  /// hold a tree or drafts, which the next call frees or writes over.
  index available(index past) const {
    return batch_ > 0 ? available_ + used_[0] - blocks_of(past) : 0;
  }

  /// Frees all blocks.
  void reset() {
    std::fill_n(references_, blocks_, 0);
    std::fill_n(used_, batch_, index{0});
    for (index i = 0; i < blocks_; ++i) free_[i] = static_cast<std::int32_t>(blocks_ - 1 - i);
    available_ = blocks_;
  }
  /// Keeps the blocks of the first `tokens` tokens of a sequence and frees the rest.
  void truncate(index sequence, index tokens) {
    const index keep = blocks_of(tokens);
    while (used_[sequence] > keep) release(at(sequence, --used_[sequence]));
  }
  /// Sequence `to` shares all blocks of `from`.
  void share(index from, index to) {
    truncate(to, 0);
    for (index i = 0; i < used_[from]; ++i) {
      at(to, i) = at(from, i);
      ++references_[at(to, i)];
    }
    used_[to] = used_[from];
  }
  /// Blocks that hold so many tokens.
  static constexpr index blocks_of(index tokens) {
    return (tokens + ops::token_block - 1) / ops::token_block;
  }
  /// Free blocks that tokens [past(b), past(b) + more(b)) of sequences b in [0, batch) need.
  template <class Past, class More>
  index needed(index batch, Past&& past, More&& more) const {
    index sum = 0;
    for (index b = 0; b < batch; ++b) {
      sum += blocks_of(past(b) + more(b)) - blocks_of(past(b));
      if (!shares(b, past(b))) continue;
      // Sequences before it in the batch leave the block; it needs a copy if one is left then.
      const index i = past(b) / ops::token_block;
      std::int32_t left = references_[at(b, i)];
      for (index other = 0; other < b; ++other)
        left -= shares(other, past(other)) && at(other, past(other) / ops::token_block) == at(b, i);
      sum += left > 1;
    }
    return sum;
  }
  /// Makes room for tokens [past(b), past(b) + more(b)) of sequences b in [0, batch), where the
  /// blocks for them are available. Calls copy(from, to) for each block that is no longer shared.
  template <class Past, class More, class Copy>
  void reserve(index batch, Past&& past, More&& more, Copy&& copy) {
    for (index b = 0; b < batch; ++b) {
      // Others may have taken their copy meanwhile: then the block is this sequence's own.
      if (shares(b, past(b))) {
        std::int32_t& block = at(b, past(b) / ops::token_block);
        const std::int32_t shared = block;
        block = take();
        copy(index{shared}, index{block});
        release(shared);
      }
      while (used_[b] < blocks_of(past(b) + more(b))) at(b, used_[b]++) = take();
    }
  }

 private:
  std::int32_t& at(index sequence, index i) const { return table_[sequence * size_ + i]; }
  /// Whether another sequence also uses the block that the next token of this sequence goes into.
  bool shares(index sequence, index past) const {
    const index i = past / ops::token_block;
    return i < used_[sequence] && references_[at(sequence, i)] > 1;
  }
  std::int32_t take() {
    const std::int32_t block = free_[--available_];
    references_[block] = 1;
    return block;
  }
  void release(std::int32_t block) {
    if (--references_[block] == 0) free_[available_++] = block;
  }

  index batch_ = 0, size_ = 0, blocks_ = 0, available_ = 0;
  std::int32_t* table_ = nullptr;
  index* used_ = nullptr;               ///< [batch] blocks of each table
  std::int32_t* references_ = nullptr;  ///< [blocks]
  std::int32_t* free_ = nullptr;        ///< [available]
};

LINNET_NAMESPACE_END
