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

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "../support/latency.hpp"
#include "../support/number.hpp"
#include "../support/window.hpp"
#include "speaker.hpp"

namespace barks {

constexpr double budget = 0.0166;            // seconds of a frame
constexpr double reserve = 0.001;            // of them, to show it
constexpr frame thinking = 45;               // frames from asking for a line to when it is due
constexpr frame shown = 110;                 // frames that it is shown
constexpr frame longest_run = 60 * 60 * 60;  // an hour
constexpr const char* usage =
    "usage: barks [--seed N] [--keys FILE] [--frames N] [--screenshot FILE.bmp]\n"
    "Arrow keys walk, space shouts; it runs until its window is closed. --keys replays the keys\n"
    "in FILE and adds those that follow. --frames ends the game and leaves out the waiting.\n";

/// The last line of a villager, and when it was said.
struct speech {
  std::string line = std::string(std::size_t(context), ' ');  // has room for any
  frame since = -shown;
};

void figure(const support::window& to, point p, int half_width, int half_height, const char* name,
            std::uint32_t color) {
  to.box(p.x - half_width, p.y - half_height, 2 * half_width, 2 * half_height, color);
  to.text(p.x - 18, p.y + half_height + 3, name, 0xd8dee9);
}
void draw(const support::window& to, const world& w, const std::array<speech, 4>& said, frame now) {
  constexpr std::uint32_t colors[] = {0x4f7cac, 0xd9a441, 0x6fae5c, 0x9a5fb0};
  to.box(0, 0, width, height, w.is_dusk ? 0x232b4d : 0x4b5f55);
  for (std::size_t i = 0; i < 4; ++i)
    figure(to, places_at[i], 40, 25, places[i], w.is_dusk ? 0x343d61 : 0x5d7367);
  figure(to, w.wolf_at, 7, 4, "wolf", 0x15161a);
  figure(to, w.hero_at, 5, 8, "hero", 0xffffff);
  for (std::size_t i = 0; i < 4; ++i) {
    const point p = w.villagers[i].at;
    figure(to, p, 5, 8, names[i], colors[i]);
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
unsigned keys_down(const support::window& of) {
  return of.is_down(SDL_SCANCODE_LEFT) * west + of.is_down(SDL_SCANCODE_RIGHT) * east +
         of.is_down(SDL_SCANCODE_UP) * north + of.is_down(SDL_SCANCODE_DOWN) * south +
         of.is_down(SDL_SCANCODE_SPACE) * shout;
}

int fail(const std::string& why) { return std::fprintf(stderr, "barks: %s\n", why.c_str()), 1; }

/// Plays a game of so many frames, or until its window is closed. `keys` has '@' and a number for
/// each frame that is replayed; those of later frames are added.
int play(const ln::packed<model>& weights, std::uint64_t seed, frame frames, bool waits,
         std::string& keys, const char* screenshot) {
  support::window to("barks", width, height);
  if (!to.valid()) return fail(SDL_GetError());
  keys.reserve(std::size_t(frames));
  static std::array<speaker, 4> speakers{speaker(weights), speaker(weights), speaker(weights),
                                         speaker(weights)};
  std::array<speech, 4> said;
  static support::latency taken;
  const auto token = [](speaker& who) { taken.measure([&who] { who.token(); }); };
  world village(seed);
  std::uint64_t digest = fnv_start;  // of frames, names, lines and logits
  long lines = 0, over = 0;

  // From here on, this code allocates nothing; a window of SDL may.
  frame now = 0;
  for (; now < frames && to.is_open(); ++now) {
    const double end = support::now() + budget;
    to.poll();
    if (std::size_t(now) == keys.size()) keys += char('@' + keys_down(to));
    village.step(now, unsigned(keys[std::size_t(now)]) - '@', [&](const state& s) {
      speakers[s.who].ask(s, ln::philox(seed, s.who, std::uint64_t(now))[0], now + thinking);
    });
    for (std::size_t i = 0; i < 4; ++i) {
      speaker& who = speakers[i];
      if (who.due() != now) continue;
      while (!who.ready()) token(who);  // in the time of the next frame, if need be
      said[i].line = who.line();
      said[i].since = now;
      digest = fnv(fnv(digest, std::uint64_t(now)), who.digest());
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
    while (support::now() + std::min(p999 * 1e-6, budget / 2) < end - reserve) {
      speaker& next = *std::ranges::min_element(speakers, {}, &speaker::urgent_by);
      if (next.ready()) break;
      token(next);
    }
    to.show();
    over += support::now() > end;
    if (const double left = end - support::now(); waits && left > 0)
      SDL_Delay(static_cast<std::uint32_t>(left * 1000));
  }
  // So far.

  std::printf("transcript %016llx of %ld lines in %ld frames\n",
              static_cast<unsigned long long>(digest), lines, now);
  std::printf("%ld tokens, the median in %d us, p99.9 in %d us; frames over 16.6 ms: %ld\n",
              taken.count(), taken.within(0.5), taken.within(0.999), over);
  if (*screenshot && !to.save(screenshot)) return fail(SDL_GetError());
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
  if (const char* const wrong = support::read_options(count, arguments, options))
    return std::fprintf(stderr, "barks: what is %s?\n%s", wrong, usage), 2;
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
