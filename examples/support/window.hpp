// SPDX-License-Identifier: MIT
#pragma once
// A window of SDL to draw boxes and letters in.

#define SDL_MAIN_HANDLED

#include <SDL.h>

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace support {

/// Characters of 3 by 5 points: a row of them in each string, half of the characters below.
inline constexpr std::string_view characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!:'?";
inline constexpr std::string_view font[] = {
    " #  ##   ## ##  ### ###  ## # # ###   # # # #   # # ##   #  ##   #  ##   ## ### # # ",
    "# # # # #   # # #   #   #   # #  #    # # # #   ### # # # # # # # # # # #    #  # # ",
    "### ##  #   # # ##  ##  # # ###  #    # ##  #   ### # # # # ##  # # ##   #   #  # # ",
    "# # # # #   # # #   #   # # # #  #  # # # # #   # # # # # # #    #  # #   #  #  # # ",
    "# # ##   ## ##  ### #    ## # # ###  #  # # ### # # # #  #  #     # # # ##   #  ### ",
    "# # # # # # # # ### ###  #  ##  ##  # # ###  ## ### ### ###          #       #  ##  ",
    "# # # # # # # #   # # # ##    #   # # # #   #     # # # # #          #   #   #    # ",
    "# # ###  #   #   #  # #  #   #   #  ### ##  ###   # ### ###          #           #  ",
    "# # ### # #  #  #   # #  #  #     #   #   # # #  #  # #   #      #       #          ",
    " #  # # # #  #  ### ### ### ### ##    # ##  ###  #  ### ##   #  #    #           #  ",
};

/// A window, its pixels and the keyboard. Its end is that of SDL, so a program has one.
class window {
 public:
  /// Opens one of that size; SDL_GetError() says why it is not valid().
  window(const char* title, int width, int height) {
    SDL_SetMainReady();
    if (SDL_Init(SDL_INIT_VIDEO) != 0) return;
    window_ =
        SDL_CreateWindow(title, SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, width, height, 0);
    pixels_ = window_ ? SDL_GetWindowSurface(window_) : nullptr;
  }
  window(const window&) = delete;
  window& operator=(const window&) = delete;
  ~window() { SDL_Quit(); }

  bool valid() const { return pixels_ != nullptr; }
  /// Takes note of what the user has done since the last call.
  void poll() {
    for (SDL_Event event; SDL_PollEvent(&event);) is_open_ = is_open_ && event.type != SDL_QUIT;
  }
  /// Whether no poll() has found it closed.
  bool is_open() const { return is_open_; }
  /// Whether a key was down at the last poll().
  bool is_down(SDL_Scancode key) const { return SDL_GetKeyboardState(nullptr)[key] != 0; }

  void box(int x, int y, int w, int h, std::uint32_t color) const {
    const SDL_Rect where{x, y, w, h};
    SDL_FillRect(pixels_, &where,
                 SDL_MapRGB(pixels_->format, std::uint8_t(color >> 16), std::uint8_t(color >> 8),
                            std::uint8_t(color)));
  }
  /// Eight pixels for each character; small letters look like capitals.
  void text(int x, int y, std::string_view words, std::uint32_t color) const {
    for (const char c : words) {
      const std::size_t at = characters.find(char(std::toupper(static_cast<unsigned char>(c))));
      for (std::size_t i = 0; at != characters.npos && i < 15; ++i)
        if (font[at / 21 * 5 + i / 3][at % 21 * 4 + i % 3] == '#')
          box(x + int(i % 3) * 2, y + int(i / 3) * 2, 2, 2, color);
      x += 8;
    }
  }
  /// Puts what was drawn on the screen.
  void show() const { SDL_UpdateWindowSurface(window_); }
  /// Writes what was drawn as a BMP; false if it cannot, see SDL_GetError().
  bool save(const char* path) const { return SDL_SaveBMP(pixels_, path) == 0; }

 private:
  SDL_Window* window_ = nullptr;
  SDL_Surface* pixels_ = nullptr;
  bool is_open_ = true;
};

}  // namespace support
