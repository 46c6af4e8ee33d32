// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Capital letters, digits and a few marks of 5 by 7 points. Small letters look like capitals.

#include <cctype>
#include <string_view>

namespace barks {

inline constexpr int glyph_width = 6, glyph_height = 9;  // with the gaps between them

/// Calls point(column, row) for each point of a character.
template <class F>
void glyph(char c, F&& point) {
  constexpr std::string_view known = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!':/-?";
  constexpr int across = 11;  // glyphs beside each other
  static constexpr std::string_view rows[] = {
      " ###  ####   ###  ####  ##### #####  ###  #   # #####    # #   # ",
      "#   # #   # #   # #   # #     #     #   # #   #   #      # #  #  ",
      "#   # #   # #     #   # #     #     #     #   #   #      # # #   ",
      "##### ####  #     #   # ####  ####  #  ## #####   #      # ##    ",
      "#   # #   # #     #   # #     #     #   # #   #   #      # # #   ",
      "#   # #   # #   # #   # #     #     #   # #   #   #   #  # #  #  ",
      "#   # ####   ###  ####  ##### #      ###  #   # #####  ##  #   # ",
      "#     #   # #   #  ###  ####   ###  ####   #### ##### #   # #   #",
      "#     ## ## #   # #   # #   # #   # #   # #       #   #   # #   #",
      "#     # # # ##  # #   # #   # #   # #   # #       #   #   # #   #",
      "#     # # # # # # #   # ####  #   # ####   ###    #   #   # #   #",
      "#     #   # #  ## #   # #     # # # # #       #   #   #   #  # # ",
      "#     #   # #   # #   # #     #  #  #  #      #   #   #   #  # # ",
      "##### #   # #   #  ###  #      ## # #   # ####    #    ###    #  ",
      "#   # #   # #   # #####  ###    #    ###   ###     #  #####  ### ",
      "#   # #   # #   #     # #   #  ##   #   # #   #   ##  #     #    ",
      "#   #  # #   # #     #  #  ## # #       #     #  # #  ####  #    ",
      "# # #   #     #     #   # # #   #      #    ##  #  #      # #### ",
      "# # #  # #    #    #    ##  #   #     #       # #####     # #   #",
      "## ## #   #   #   #     #   #   #    #    #   #    #  #   # #   #",
      "#   # #   #   #   #####  ###  ##### #####  ###     #   ###   ### ",
      "#####  ###   ###                #     #             #        ### ",
      "    # #   # #   #               #     #     #       #       #   #",
      "   #  #   # #   #               #           #      #            #",
      "  #    ###   ####               #                  #    ###    # ",
      "  #   #   #     #               #           #     #           #  ",
      "  #   #   #    #   ##    ##                 #     #              ",
      "  #    ###   ##    ##   ##      #                #            #  ",
  };
  const auto found = known.find(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  if (found == known.npos) return;
  const int number = static_cast<int>(found), left = number % across * glyph_width,
            top = number / across * 7;
  for (int y = 0; y < 7; ++y)
    for (int x = 0; x < 5; ++x)
      if (rows[top + y][static_cast<std::size_t>(left + x)] == '#') point(x, y);
}

}  // namespace barks
