// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Boxes and texts on a window's pixels.

#include <SDL.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "font.hpp"
#include "village.hpp"

namespace barks {

/// Draws on a window's pixels.
struct canvas {
  SDL_Surface* pixels;

  void box(int x, int y, int w, int h, std::uint32_t color) const {
    const SDL_Rect where{x, y, w, h};
    SDL_FillRect(pixels, &where,
                 SDL_MapRGB(pixels->format, std::uint8_t(color >> 16), std::uint8_t(color >> 8),
                            std::uint8_t(color)));
  }
  void text(int x, int y, std::string_view words, std::uint32_t color) const {
    for (std::size_t i = 0; i < words.size(); ++i)
      glyph(words[i], [&](int column, int row) {
        box(x + int(i) * glyph_width + column, y + row, 1, 1, color);
      });
  }
  /// A line above somebody, in two rows where it is long.
  void bubble(point p, std::string_view line, std::size_t visible) const {
    std::size_t cut = line.size() > 28 ? line.rfind(' ', 28) : line.size();
    if (cut == line.npos) cut = line.size();
    const std::string_view rows[] = {line.substr(0, cut),
                                     line.substr(std::min(cut + 1, line.size()))};
    const int w = int(std::max(rows[0].size(), rows[1].size())) * glyph_width + 8;
    const int x = std::clamp(p.x - w / 2, 2, width - w - 2), y = std::max(p.y - 40, 2);
    box(x, y, w, 23, 0xf4efdc);
    box(p.x - 1, y + 23, 3, 5, 0xf4efdc);
    text(x + 5, y + 3, rows[0].substr(0, std::min(visible, cut)), 0x20242c);
    if (visible > cut) text(x + 5, y + 13, rows[1].substr(0, visible - cut), 0x20242c);
  }
};

}  // namespace barks
