// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The model, and who writes lines with it.

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "village.hpp"

namespace barks {

inline constexpr ln::index context = 96;  // a token is a character of ASCII
inline constexpr ln::decoder_shape shape{.d_model = 64,
                                         .d_ff = 128,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .layers = 4,
                                         .vocabulary = 128,
                                         .context = context};
using model = ln::decoder<shape, ln::compute::reproducible, ln::storage::int8, ln::compute::int8>;
inline constexpr ln::limits limits{.target = context, .chunk = 1};

/// FNV-1a, of words in place of bytes.
inline constexpr std::uint64_t fnv_start = 0xcbf29ce484222325ull;
constexpr std::uint64_t fnv(std::uint64_t digest, std::uint64_t word) {
  return (digest ^ word) * 0x100000001b3ull;
}

/// Writes one villager's lines, a token at a time. It has its session's memory within itself.
class speaker {
 public:
  explicit speaker(const ln::packed<model>& weights) : run_(weights, limits, memory_) {}
  speaker(const speaker&) = delete;

  /// Begins a line that is due in a later frame.
  void ask(const state& s, std::uint64_t random_seed, frame at) {
    run_.reset();
    choose_ = ln::sampler({.temperature = 0.7, .top_k = 8, .seed = random_seed});
    size_ = asked_ = prompt(s, text_);
    read_ = 0;
    digest_ = fnv_start;
    due_ = at;
    ready_ = !run_.valid();
  }
  /// Reads a token of what was asked, or draws one.
  void token() {
    if (read_ == size_) {
      const ln::token next = choose_(logits_, std::span(order_));
      ready_ = next == '\n' || next == ln::no_token || size_ == text_.size();
      if (ready_) return;
      text_[size_++] = next >= ' ' ? char(next) : ' ';
    }
    const ln::token next = text_[read_++];
    logits_ = run_.feed({&next, 1});
    for (const float x : logits_) digest_ = fnv(digest_, std::bit_cast<std::uint32_t>(x));
  }
  bool ready() const { return ready_; }
  frame due() const { return due_; }
  /// The frame that it needs time before: none once its line is ready.
  frame urgent_by() const { return ready_ ? std::numeric_limits<frame>::max() : due_; }
  /// Of the bits of all logits since ask().
  std::uint64_t digest() const { return digest_; }
  std::string_view line() const { return {text_.data() + asked_, size_ - asked_}; }

 private:
  alignas(ln::alignment)
      std::array<std::byte, std::size_t(ln::session<model>::footprint(limits))> memory_{};
  ln::session<model> run_;
  ln::sampler choose_{ln::sampling_options{}};
  std::span<float> logits_;
  std::array<ln::token, 128> order_{};
  std::array<char, context> text_{};  // what was asked, and the line
  std::size_t asked_ = 0, size_ = 0, read_ = 0;
  std::uint64_t digest_ = 0;
  frame due_ = -1;
  bool ready_ = true;
};

}  // namespace barks
