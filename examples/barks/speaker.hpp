// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The model, and who writes lines with it.

#include <array>
#include <bit>
#include <cstdint>
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
using learned = ln::decoder<shape, ln::compute::reproducible>;
using model = ln::decoder<shape, ln::compute::reproducible, ln::storage::int8, ln::compute::int8>;

/// Writes one villager's lines, a token at a time.
class speaker {
 public:
  speaker(const ln::packed<model>& weights, std::span<std::byte> memory)
      : run_(weights, limits, memory) {}
  static constexpr ln::limits limits{.target = context, .chunk = 1};

  /// Begins a line that is due in a later frame.
  void ask(const state& s, std::uint64_t random_seed, frame at) {
    run_.reset();
    choose_ = ln::sampler({.temperature = 0.7, .top_k = 8, .seed = random_seed});
    read_ = size_ = 0;
    digest_ = 0xcbf29ce484222325ull;
    asked_ = prompt(s, prompt_);
    due_ = at;
    ready_ = !run_.valid();
  }
  /// Reads a token of what was asked, or draws one.
  void token() {
    ln::token next = prompt_[read_];
    if (read_ == asked_) {
      next = choose_(logits_, std::span(order_));
      ready_ = next == '\n' || next == ln::no_token || size_ == line_.size();
      if (ready_) return;
      line_[size_++] = next >= ' ' ? char(next) : ' ';
    } else {
      ++read_;
    }
    logits_ = run_.feed({&next, 1});
    for (const float x : logits_)
      digest_ = (digest_ ^ std::bit_cast<std::uint32_t>(x)) * 0x100000001b3ull;
  }
  bool ready() const { return ready_; }
  frame due() const { return due_; }
  /// Of the bits of all logits since ask() (FNV-1a of words).
  std::uint64_t digest() const { return digest_; }
  std::string_view line() const { return {line_.data(), size_}; }

 private:
  ln::session<model> run_;
  ln::sampler choose_{ln::sampling_options{}};
  std::span<float> logits_;
  std::array<ln::token, 128> order_{};
  std::array<ln::token, 32> prompt_{};
  std::array<char, 64> line_{};
  std::size_t asked_ = 0, read_ = 0, size_ = 0;
  std::uint64_t digest_ = 0;
  frame due_ = -1;
  bool ready_ = true;
};
inline constexpr std::size_t session_bytes =
    (std::size_t(ln::session<model>::footprint(speaker::limits)) + 63) / 64 * 64;
alignas(ln::alignment) inline std::byte memory[4 * session_bytes];

}  // namespace barks
