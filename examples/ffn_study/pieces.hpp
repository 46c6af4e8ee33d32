#pragma once
// The examples that models learn from, behind one small door: text with parts held out, and its
// i.i.d. denoising (Raffel et al. 2020) on bytes.

#include <linnet/core/random.hpp>
#include <linnet/model/t5.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace study {

namespace ln = linnet;

/// Ids of byte-level models: 0 padding, 1 end, 2 unknown, byte + 3, sentinels down from the last.
inline constexpr ln::index byte_vocabulary = 384;
inline constexpr ln::token end_id = 1, first_byte = 3, first_sentinel = byte_vocabulary - 1;

/// The texts of a folder, nine tenths of each to learn from. Each is cut into ten stretches and the
/// last tenth of every stretch is held out.
struct texts {
  std::string training, held_out;
};
/// Reads every .txt file of 100 kB or more in a folder and the folders in it, in order of names.
texts read_texts(const std::string& folder);

/// Denoising examples: number i is a function of (seed, i) and the text alone.
class denoising_examples {
 public:
  denoising_examples(std::string_view text, ln::index batch, ln::index bytes, std::uint64_t seed);

  /// Longest source and target in tokens.
  ln::index source() const { return bytes_ + 1; }
  ln::index target() const { return target_; }
  /// Examples first, first + 1, ...; valid until the next call.
  ln::t5_batch batch(std::uint64_t first);

 private:
  std::string_view text_;
  ln::index batch_, bytes_, target_;
  std::uint64_t seed_;
  std::vector<ln::token> sources_, labels_;
  std::vector<ln::index> lengths_;
};

/// Bytes of text that the labels of a batch ask for.
ln::index masked_bytes(const ln::t5_batch& b);

}  // namespace study
