// SPDX-License-Identifier: MIT
// A game loop in which four villagers speak short lines, by a language model, at 60 frames a
// second. Tokens are made one at a time in what is left of a frame. A line is asked for in one
// frame and due 45 frames later, so that time decides nothing: a seed and the keys decide every
// character. They do so on any machine and compiler, as the model has compute::reproducible.
//
//     barks [--seed N] [--keys FILE] [--frames N] [--screenshot FILE.bmp]
//
// --keys replays the keys in FILE, one for each frame, and adds those of the frames behind them.
// --frames ends the game and leaves out the waiting. SDL_VIDEODRIVER=dummy opens no window.

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header
#define SDL_MAIN_HANDLED

#include <SDL.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "../support/number.hpp"
#include "speaker.hpp"
#include "village.hpp"

namespace barks {

constexpr double budget = 0.0166;            // seconds of a frame
constexpr double reserve = 0.001;            // of them, to show it
constexpr frame thinking = 45;               // frames from asking for a line to when it is due
constexpr frame shown = 110;                 // frames that it is shown
constexpr frame longest_run = 60 * 60 * 60;  // an hour
constexpr std::uint64_t fnv_prime = 0x100000001b3ull;
constexpr const char* usage =
    "usage: barks [--seed N] [--keys FILE] [--frames N] [--screenshot FILE.bmp]\n"
    "Arrow keys walk, space shouts; it runs until its window is closed. --keys replays the keys\n"
    "in FILE and adds those that follow. --frames ends the game and leaves out the waiting.\n";

double seconds() {
  return double(SDL_GetPerformanceCounter()) / double(SDL_GetPerformanceFrequency());
}

/// How many tokens took each number of microseconds, up to 32 ms.
struct times {
  std::array<long, 32'000> counts{};
  long all = 0;

  void add(double time) { ++all, ++counts[std::min(std::size_t(time * 1e6), counts.size() - 1)]; }
  /// The microseconds that such a part of the tokens stayed within; 1 of no tokens.
  int within(double part) const {
    double seen = 0;
    std::size_t i = 0;
    while (i + 1 < counts.size() && (seen += double(counts[i])) < part * double(all)) ++i;
    return int(i) + 1;
  }
};

/// Characters of 3 by 5 points: a row of them in each string, half of the characters below.
constexpr std::string_view characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!:'?";
constexpr std::string_view font[] = {
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

/// Draws on a window's pixels.
struct canvas {
  SDL_Surface* pixels;

  void box(int x, int y, int w, int h, std::uint32_t color) const {
    const SDL_Rect where{x, y, w, h};
    SDL_FillRect(pixels, &where,
                 SDL_MapRGB(pixels->format, std::uint8_t(color >> 16), std::uint8_t(color >> 8),
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
  void figure(point p, int half_width, int half_height, const char* name,
              std::uint32_t color) const {
    box(p.x - half_width, p.y - half_height, 2 * half_width, 2 * half_height, color);
    text(p.x - 18, p.y + half_height + 3, name, 0xd8dee9);
  }
};

/// What a villager said last.
struct speech {
  std::string line;
  frame since = -shown;
};

void draw(const canvas& to, const world& w, const std::array<speech, 4>& said, frame now) {
  constexpr std::uint32_t colors[] = {0x4f7cac, 0xd9a441, 0x6fae5c, 0x9a5fb0};
  to.box(0, 0, width, height, w.is_dusk ? 0x232b4d : 0x4b5f55);
  for (std::size_t i = 0; i < 4; ++i)
    to.figure(places_at[i], 40, 25, places[i], w.is_dusk ? 0x343d61 : 0x5d7367);
  to.figure(w.wolf_at, 7, 4, "wolf", 0x15161a);
  to.figure(w.hero_at, 5, 8, "hero", 0xffffff);
  for (std::size_t i = 0; i < 4; ++i) {
    const point p = w.villagers[i].at;
    to.figure(p, 5, 8, names[i], colors[i]);
    to.text(p.x - 18, p.y + 24, moods[w.villagers[i].feels], 0x9db0a5);
    if (now - said[i].since >= shown) continue;
    const int size = 8 * int(said[i].line.size()),
              x = std::clamp(p.x - size / 2, 6, width - size - 6);
    to.box(x - 4, p.y - 32, size + 6, 16, 0xf4efdc);
    const auto visible = std::size_t(now - said[i].since + 1);  // it appears letter by letter
    to.text(x, p.y - 29, std::string_view(said[i].line).substr(0, visible), 0x20242c);
  }
}

/// The keys that are down.
unsigned keys_down() {
  const std::uint8_t* const is_down = SDL_GetKeyboardState(nullptr);
  return is_down[SDL_SCANCODE_LEFT] * west + is_down[SDL_SCANCODE_RIGHT] * east +
         is_down[SDL_SCANCODE_UP] * north + is_down[SDL_SCANCODE_DOWN] * south +
         is_down[SDL_SCANCODE_SPACE] * shout;
}

int fail(const std::string& why) { return std::fprintf(stderr, "barks: %s\n", why.c_str()), 1; }

/// Plays a game of so many frames, or until its window is closed. `keys` has '@' and a number for
/// each frame that is replayed; those of later frames are added.
int play(const ln::packed<model>& weights, std::uint64_t seed, frame frames, bool waits,
         std::string& keys, const char* screenshot) {
  SDL_SetMainReady();
  if (SDL_Init(SDL_INIT_VIDEO) != 0) return fail(SDL_GetError());
  SDL_Window* const window =
      SDL_CreateWindow("barks", SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, width, height, 0);
  const canvas to{window ? SDL_GetWindowSurface(window) : nullptr};
  if (!to.pixels) return fail(SDL_GetError());
  keys.reserve(std::size_t(frames));
  static std::array<speaker, 4> speakers{speaker(weights), speaker(weights), speaker(weights),
                                         speaker(weights)};
  std::array<speech, 4> said;
  for (speech& s : said) s.line.reserve(std::size_t(context));
  static times taken;
  const auto token = [](speaker& who) {
    const double begun = seconds();
    who.token();
    taken.add(seconds() - begun);
  };
  world village(seed);
  std::uint64_t digest = 0xcbf29ce484222325ull;  // of frames, names, lines and logits
  long lines = 0, over = 0;
  bool is_open = true;

  // From here on, this code allocates nothing; a window of SDL may.
  frame now = 0;
  for (; now < frames && is_open; ++now) {
    const double end = seconds() + budget;
    for (SDL_Event event; SDL_PollEvent(&event);) is_open = is_open && event.type != SDL_QUIT;
    if (std::size_t(now) == keys.size()) keys += char('@' + keys_down());
    village.step(now, unsigned(keys[std::size_t(now)]) - '@', [&](const state& s) {
      speakers[s.who].ask(s, ln::philox(seed, s.who, std::uint64_t(now))[0], now + thinking);
    });
    for (std::size_t i = 0; i < 4; ++i) {
      speaker& who = speakers[i];
      if (who.due() != now) continue;
      while (!who.ready()) token(who);  // in the time of the next frame, if need be
      said[i].line = who.line();
      said[i].since = now;
      digest = (((digest ^ std::uint64_t(now)) * fnv_prime) ^ who.digest()) * fnv_prime;
      digest = ln::stream_of(who.line(), ln::stream_of(names[i], digest));
      std::printf("%5ld %s: %s\n", now, names[i], said[i].line.c_str());
      village.hear(i, who.line());
      ++lines;
    }
    draw(to, village, said, now);
    const int p999 = taken.within(0.999);
    char words[80];
    std::snprintf(words, sizeof words, "p99.9 per token: %d us   frames over 16.6 ms: %ld of %ld",
                  p999, over, now);
    to.text(6, height - 14, words, 0xffffff);

    // Tokens in what is left of the frame, of the line that is due first.
    while (seconds() + std::min(p999 * 1e-6, budget / 2) < end - reserve) {
      speaker* next = nullptr;
      for (speaker& who : speakers)
        if (!who.ready() && (!next || who.due() < next->due())) next = &who;
      if (!next) break;
      token(*next);
    }
    SDL_UpdateWindowSurface(window);
    over += seconds() > end;
    if (const double left = end - seconds(); waits && left > 0)
      SDL_Delay(static_cast<std::uint32_t>(left * 1000));
  }
  // So far.

  std::printf("transcript %016llx of %ld lines in %ld frames\n",
              static_cast<unsigned long long>(digest), lines, now);
  std::printf("%ld tokens, the median in %d us, p99.9 in %d us; frames over 16.6 ms: %ld\n",
              taken.all, taken.within(0.5), taken.within(0.999), over);
  if (*screenshot && SDL_SaveBMP(to.pixels, screenshot) != 0) return fail(SDL_GetError());
  SDL_Quit();
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace barks

int main(int count, char** arguments) {
  using namespace barks;
  static char lines[4096];
  std::setvbuf(stdout, lines, _IOLBF, sizeof lines);
  std::map<std::string_view, std::string> options{
      {"--seed", "1"}, {"--frames", ""}, {"--keys", ""}, {"--screenshot", ""}};
  std::uint64_t seed = 0;
  frame frames = longest_run;
  const std::string &number = options["--frames"], &path = options["--keys"];
  for (int i = 1; i < count; i += 2) {
    const auto option = options.find(arguments[i]);
    if (option == options.end() || i + 1 == count)
      return std::fprintf(stderr, "barks: what is %s?\n%s", arguments[i], usage), 2;
    option->second = arguments[i + 1];
  }
  if (!support::read_number(options["--seed"], seed))
    return fail("--seed " + options["--seed"] + ": give a number from 0 to 2^64 - 1");
  if (!number.empty() &&
      (!support::read_number(number, frames) || frames < 1 || frames > longest_run))
    return fail("--frames " + number + ": give a number from 1 to " + std::to_string(longest_run));
  std::string keys;
  if (const auto file = ln::read_file(path))
    keys.assign(reinterpret_cast<const char*>(file->data()), file->size());
  if (!std::ranges::all_of(keys, [](char c) { return c >= '@' && c < '@' + 32; }))
    return fail(path + ": has something else than keys");
  const auto weights = ln::map_packed<model>(BARKS_WEIGHTS);
  if (!weights) return fail(weights.error().message());
  if (play(*weights, seed, frames, number.empty(), keys, options["--screenshot"].c_str()) != 0)
    return 1;
  if (path.empty()) return 0;
  const auto saved = ln::write_file(path, std::as_bytes(std::span(keys)));
  return saved ? 0 : fail(saved.error().message());
}
