// SPDX-License-Identifier: MIT
#pragma once
// Images of handwritten digits, read from NumPy's files or drawn, and scenes of one digit each with
// a caption.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/linnet.hpp>
#include <linnet/numpy.hpp>

#include "basics.hpp"

namespace digit_images {
namespace ln = linnet;

inline constexpr ln::index side = 8, scene_side = 16;

/// Images [count, 8, 8] of shades from 0 to 1, and the digits that they show.
struct digits {
  std::vector<float> pixels{};
  std::vector<ln::token> labels{};

  ln::index size() const { return std::ssize(labels); }
  const float* image(ln::index i) const { return pixels.data() + i * side * side; }
  /// Images [first, last).
  digits part(ln::index first, ln::index last) const {
    return {{image(first), image(last)}, {labels.begin() + first, labels.begin() + last}};
  }
};

/// Reads FOLDER/images.npy [count, 8, 8] of shades from 0 to 16, and FOLDER/labels.npy [count] of
/// digits, which tools/digits.py writes. A failure says which file and field is not so.
inline digits read(const std::string& folder) {
  const auto images = support::take(ln::read_npy(folder + "/images.npy"));
  const auto labels = support::take(ln::read_npy(folder + "/labels.npy"));
  const auto refuse = [](const ln::npy& file, std::string_view wanted) {
    std::string got;
    for (const ln::index n : file.array().shape())
      got += (got.empty() ? "" : ", ") + std::to_string(n);
    throw support::failure(file.where() + ": shape: expected [" + std::string(wanted) + "], got [" +
                           got + "]");
  };
  const auto shape = images.array().shape();
  if (shape.size() != 3 || shape[0] < 20 || shape[1] != side || shape[2] != side)
    refuse(images, "20 or more, 8, 8");
  const std::string count = std::to_string(shape[0]);
  if (labels.array().shape().size() != 1 || labels.array().shape()[0] != shape[0])
    refuse(labels, count);
  digits all{{}, support::take(labels.values<ln::token>())};
  for (const ln::token shade : support::take(images.values<ln::token>())) {
    if (shade < 0 || shade > 16)
      throw support::failure(images.where() + ": values: expected shades from 0 to 16, got " +
                             std::to_string(shade));
    all.pixels.push_back(static_cast<float>(shade) / 16);
  }
  for (const ln::token digit : all.labels)
    if (digit < 0 || digit > 9)
      throw support::failure(labels.where() + ": values: expected digits, got " +
                             std::to_string(digit));
  return all;
}

/// Digits of seven bars in shades that vary, for where no real ones are.
inline digits drawn(ln::index count, ln::seed seed) {
  // Bars: top, both upper sides, the middle, both lower sides, bottom.
  constexpr std::uint8_t bars[] = {0x77, 0x24, 0x5d, 0x6d, 0x2e, 0x6b, 0x7b, 0x25, 0x7f, 0x6f};
  constexpr ln::index from[][4] = {{1, 2, 1, 4}, {1, 2, 3, 1}, {1, 5, 3, 1}, {3, 2, 1, 4},
                                   {4, 2, 3, 1}, {4, 5, 3, 1}, {6, 2, 1, 4}};
  ln::random_stream random(seed);
  digits all;
  for (ln::index i = 0; i < count; ++i) {
    std::vector<float> image(side * side);
    const std::uint32_t digit = random.below(10);
    for (std::size_t bar = 0; bar < 7; ++bar)
      for (ln::index y = 0; (bars[digit] >> bar & 1) != 0 && y < from[bar][2]; ++y)
        for (ln::index x = 0; x < from[bar][3]; ++x)
          image[static_cast<std::size_t>((from[bar][0] + y) * side + from[bar][1] + x)] =
              static_cast<float>(0.6 + 0.4 * random.uniform());
    all.pixels.insert(all.pixels.end(), image.begin(), image.end());
    all.labels.push_back(static_cast<ln::token>(digit));
  }
  return all;
}

/// Tokens of captions such as "seven, top left".
inline constexpr std::string_view words[] = {"",     "",       "zero", "one",   "two",   "three",
                                             "four", "five",   "six",  "seven", "eight", "nine",
                                             "top",  "bottom", "left", "right"};
inline constexpr ln::token begin = 0, end = 1, first_digit = 2, first_row = 12, first_column = 14;
inline constexpr ln::index vocabulary = 16, caption_length = 4;

/// A caption as words.
inline std::string spelled(const ln::token* caption) {
  std::string text;
  for (ln::index i = 0; i + 1 < caption_length; ++i)
    text += (i == 1  ? ", "
             : i > 1 ? " "
                     : "") +
            std::string(words[static_cast<std::size_t>(caption[i])]);
  return text;
}

/// Images [count, 16, 16] with a digit in one of four corners, and their captions.
struct scenes {
  std::vector<float> pixels{};
  std::vector<ln::token> inputs{};  ///< [count, 4]: begin, digit, row, column
  std::vector<ln::token> labels{};  ///< [count, 4]: digit, row, column, end

  ln::index size() const { return std::ssize(labels) / caption_length; }
  ln::image_view images(ln::index first = 0) const {
    return {pixels.data() + first * scene_side * scene_side, scene_side, scene_side, 1};
  }
  /// Puts image `i` of `from` into corner `corner`, from 0 to 3 row by row.
  void add(const digits& from, ln::index i, ln::index corner) {
    const ln::index row = corner / 2, column = corner % 2, at = std::ssize(pixels);
    pixels.resize(pixels.size() + scene_side * scene_side);
    for (ln::index y = 0; y < side; ++y)
      std::copy_n(from.image(i) + y * side, side,
                  pixels.begin() + at + (row * side + y) * scene_side + column * side);
    const ln::token caption[] = {begin, first_digit + from.labels[static_cast<std::size_t>(i)],
                                 first_row + static_cast<ln::token>(row),
                                 first_column + static_cast<ln::token>(column), end};
    inputs.insert(inputs.end(), caption, caption + caption_length);
    labels.insert(labels.end(), caption + 1, caption + 1 + caption_length);
  }
};

/// `count` random scenes of digits.
inline scenes random_scenes(const digits& from, ln::index count, ln::random_stream& random) {
  scenes made;
  for (ln::index i = 0; i < count; ++i)
    made.add(from, random.below(static_cast<std::uint32_t>(from.size())), random.below(4));
  return made;
}
/// Every image once.
inline scenes each_once(const digits& from, ln::seed seed) {
  ln::random_stream random(seed);
  scenes made;
  for (ln::index i = 0; i < from.size(); ++i) made.add(from, i, random.below(4));
  return made;
}

}  // namespace digit_images
