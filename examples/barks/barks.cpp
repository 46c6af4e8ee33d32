// SPDX-License-Identifier: MIT
// A game loop in which four villagers speak short lines, by a language model, at 60 frames a
// second. Tokens are made one at a time in what is left of a frame. A line is asked for in one
// frame and due 45 frames later, so that time decides nothing: a seed and the inputs decide every
// character. They do so on any machine and compiler, as the model has compute::reproducible.
//
//     barks [--seed N] [--frames N] [--headless] [--record FILE] [--replay FILE]
//           [--screenshot FILE.bmp] [--weights FILE] [--help]

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header
#define SDL_MAIN_HANDLED

#include <SDL.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "../support/number.hpp"
#include "canvas.hpp"
#include "speaker.hpp"
#include "village.hpp"

#ifndef BARKS_WEIGHTS
#define BARKS_WEIGHTS "barks.packed"
#endif

namespace barks {

constexpr double budget = 0.0166;            // seconds of a frame
constexpr double reserve = 0.001;            // of them, to show it
constexpr frame thinking = 45;               // frames from asking for a line to when it is due
constexpr frame shown = 110;                 // frames that it is shown
constexpr frame longest_run = 60 * 60 * 60;  // an hour
constexpr const char* usage =
    "usage: barks [--seed N] [--frames N] [--headless] [--record FILE] [--replay FILE]\n"
    "             [--screenshot FILE.bmp] [--weights FILE] [--help]\n"
    "Arrow keys walk, space shouts. Without --headless it runs until its window is closed.\n"
    "  --headless         no window; without --replay the seed presses the keys\n"
    "  --record, --replay the keys of each frame, with the seed\n";

struct options {
  std::uint64_t seed = 1;
  frame frames = 0;  // 0: none given
  bool headless = false;
  std::string record, replay, screenshot, weights = BARKS_WEIGHTS;
};

double seconds() {
  return double(SDL_GetPerformanceCounter()) / double(SDL_GetPerformanceFrequency());
}

/// Times counted by microseconds, up to 32 ms.
class times {
 public:
  void add(double time) {
    ++counts_[std::min(std::size_t(time * 1e6), counts_.size() - 1)];
    ++all_;
  }
  /// The least microseconds that all times but so many of a thousand stay within; 0 of no times.
  int all_but(long of_thousand) const {
    long above = all_;
    std::size_t i = 0;
    while (i + 1 < counts_.size() && (above -= counts_[i]) * 1000 > of_thousand * all_) ++i;
    return all_ > 0 ? int(i) + 1 : 0;
  }
  long count() const { return all_; }

 private:
  std::array<std::uint32_t, 32'000> counts_{};
  long all_ = 0;
};

/// What is said at present, and all that was: a digest of frames, names, lines and logits.
struct transcript {
  std::array<frame, 4> since{-shown, -shown, -shown, -shown};
  std::array<std::array<char, 64>, 4> lines{};
  std::array<std::size_t, 4> sizes{};
  std::uint64_t digest = 0xcbf29ce484222325ull;
  long count = 0;

  void add(frame now, std::size_t who, std::string_view line, std::uint64_t logits) {
    since[who] = now;
    sizes[who] = line.copy(lines[who].data(), lines[who].size());
    for (const std::uint64_t word : {std::uint64_t(now), logits})
      digest = (digest ^ word) * 0x100000001b3ull;
    digest = ln::stream_of(line, ln::stream_of(names[who], digest));
    ++count;
    std::printf("%5ld %s: %.*s\n", now, names[who], int(line.size()), line.data());
  }
  std::string_view line(std::size_t who) const { return {lines[who].data(), sizes[who]}; }
};

void draw(const canvas& to, const world& w, const transcript& said, frame now) {
  constexpr std::uint32_t colors[] = {0x4f7cac, 0xd9a441, 0x6fae5c, 0x9a5fb0};
  to.box(0, 0, width, height, w.is_dusk ? 0x232b4d : 0x4b5f55);
  for (std::size_t i = 0; i < 4; ++i) {
    to.box(places_at[i].x - 40, places_at[i].y - 25, 80, 50, w.is_dusk ? 0x343d61 : 0x5d7367);
    to.text(places_at[i].x - 18, places_at[i].y + 14, places[i], 0x9db0a5);
  }
  to.box(w.wolf_at.x - 7, w.wolf_at.y - 4, 14, 8, 0x15161a);
  to.text(w.wolf_at.x - 12, w.wolf_at.y + 7, "wolf", 0xe07a5f);
  to.box(w.hero_at.x - 5, w.hero_at.y - 8, 10, 16, 0xffffff);
  to.text(w.hero_at.x - 12, w.hero_at.y + 11, "hero", 0xffffff);
  for (std::size_t i = 0; i < 4; ++i) {
    const point p = w.villagers[i].at;
    to.box(p.x - 5, p.y - 8, 10, 16, colors[i]);
    to.text(p.x - 15, p.y + 11, names[i], 0xd8dee9);
    to.text(p.x - 15, p.y + 21, moods[w.villagers[i].feels], 0x9db0a5);
  }
  for (std::size_t i = 0; i < 4; ++i)
    if (now - said.since[i] < shown)
      to.bubble(w.villagers[i].at, said.line(i), std::size_t(now - said.since[i] + 1));
}

/// The keys that are down: those of the keyboard, or with --headless such as the seed presses.
unsigned keys_of(bool headless, frame now, ln::random_stream& random, unsigned before) {
  if (headless) return now % 30 == 0 ? random.below(32) : before & ~unsigned(shout);
  const std::uint8_t* const is_down = SDL_GetKeyboardState(nullptr);
  return is_down[SDL_SCANCODE_LEFT] * west + is_down[SDL_SCANCODE_RIGHT] * east +
         is_down[SDL_SCANCODE_UP] * north + is_down[SDL_SCANCODE_DOWN] * south +
         is_down[SDL_SCANCODE_SPACE] * shout;
}

int fail(const std::string& why) { return std::fprintf(stderr, "barks: %s\n", why.c_str()), 1; }

/// Plays a game. `keys` are those of a recording, '@' and a number for each frame, or empty.
int play(const options& o, const ln::packed<model>& weights, std::string_view keys) {
  if (o.headless) SDL_setenv("SDL_VIDEODRIVER", "dummy", 1);
  SDL_SetMainReady();
  if (SDL_Init(SDL_INIT_VIDEO) != 0) return fail(SDL_GetError());
  SDL_Window* const window =
      SDL_CreateWindow("barks", SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, width, height, 0);
  const canvas to{window ? SDL_GetWindowSurface(window) : nullptr};
  if (!to.pixels) return fail(SDL_GetError());
  const frame frames = o.frames > 0 ? o.frames : o.headless ? 600 : longest_run;
  const frame last = keys.empty() ? frames : std::min(frames, frame(keys.size()));
  std::string recorded;
  recorded.reserve(std::size_t(last));
  std::array<std::optional<speaker>, 4> speakers;
  for (std::size_t i = 0; i < 4; ++i)
    speakers[i].emplace(weights, std::span(memory).subspan(i * session_bytes, session_bytes));
  world village(o.seed);
  ln::random_stream random(ln::seed{o.seed}, ln::stream_of("keys and lines"));
  transcript said;
  static times taken;
  long over = 0;
  unsigned down = 0;
  bool is_open = true;
  const auto token = [&](speaker& who) {
    const double begun = seconds();
    who.token();
    taken.add(seconds() - begun);
  };

  // From here on, this code allocates nothing; a window of SDL may.
  frame now = 0;
  for (; now < last && is_open; ++now) {
    const double begun = seconds(), end = begun + budget;
    for (SDL_Event event; SDL_PollEvent(&event);) is_open = is_open && event.type != SDL_QUIT;
    down = keys.empty() ? keys_of(o.headless, now, random, down)
                        : unsigned(keys[std::size_t(now)]) - '@';
    recorded += char('@' + down);
    village.step(now, down, [&](std::size_t i) {
      speakers[i]->ask(village.of(i), ln::philox(o.seed, i, std::uint64_t(now))[0], now + thinking);
    });
    for (std::size_t i = 0; i < 4; ++i) {
      speaker& who = *speakers[i];
      if (who.due() != now) continue;
      while (!who.ready()) token(who);  // in the time of the next frame, if need be
      said.add(now, i, who.line(), who.digest());
      village.hear(i, who.line());
    }
    draw(to, village, said, now);
    char words[100];
    const int size = std::snprintf(
        words, sizeof words, "p99.9 per token %d us   frames over 16.6 ms: %ld of %ld   seed %llu",
        taken.all_but(1), over, now, static_cast<unsigned long long>(o.seed));
    to.text(6, height - 12, {words, std::size_t(size)}, 0xffffff);

    // Tokens in what is left of the frame, of the line that is due first.
    const double one = std::min(taken.all_but(1) * 1e-6, budget / 2);
    while (seconds() + one < end - reserve) {
      speaker* next = nullptr;
      for (auto& who : speakers)
        if (!who->ready() && (!next || who->due() < next->due())) next = &*who;
      if (!next) break;
      token(*next);
    }
    SDL_UpdateWindowSurface(window);
    over += seconds() > end;
    if (const double left = end - seconds(); !o.headless && left > 0)
      SDL_Delay(static_cast<std::uint32_t>(left * 1000));
  }
  // So far.

  std::printf("transcript %016llx of %ld lines in %ld frames\n",
              static_cast<unsigned long long>(said.digest), said.count, now);
  std::printf("%ld tokens, the median in %d us, p99.9 in %d us; frames over 16.6 ms: %ld\n",
              taken.count(), taken.all_but(500), taken.all_but(1), over);
  if (!o.screenshot.empty() && SDL_SaveBMP(to.pixels, o.screenshot.c_str()) != 0)
    return fail(SDL_GetError());
  if (!o.record.empty()) {
    const std::string text = "barks 1 " + std::to_string(o.seed) + "\n" + recorded + "\n";
    const auto saved = ln::write_file(o.record, std::as_bytes(std::span(text)));
    if (!saved) return fail(saved.error().message());
  }
  SDL_Quit();
  return std::fflush(stdout) == 0 ? 0 : 1;
}

/// Reads a recording: its seed, and its keys as they stand there. False if it is none.
bool read_recording(const std::string& path, std::uint64_t& seed, std::string& keys) {
  const auto file = ln::read_file(path);
  if (!file) return false;
  const std::string_view text(reinterpret_cast<const char*>(file->data()), file->size());
  constexpr std::string_view head = "barks 1 ";
  if (!text.starts_with(head)) return false;
  const auto [end, error] =
      std::from_chars(text.data() + head.size(), text.data() + text.size(), seed);
  if (error != std::errc{} || end == text.data() + text.size() || *end != '\n') return false;
  for (const char* c = end + 1; c != text.data() + text.size(); ++c)
    if (*c >= '@' && *c < '@' + 32)
      keys += *c;
    else if (*c != '\n')
      return false;
  return !keys.empty();
}

int run(int count, char** arguments) {
  options o;
  std::string seed, frames, keys;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = arguments[i];
    std::string* const value = word == "--seed"         ? &seed
                               : word == "--frames"     ? &frames
                               : word == "--record"     ? &o.record
                               : word == "--replay"     ? &o.replay
                               : word == "--screenshot" ? &o.screenshot
                               : word == "--weights"    ? &o.weights
                                                        : nullptr;
    if (word == "--help") return std::fputs(usage, stdout) < 0;
    if (word == "--headless")
      o.headless = true;
    else if (value && i + 1 < count)
      *value = arguments[++i];
    else
      return std::fprintf(stderr, "barks: what is %s?\n%s", arguments[i], usage), 2;
  }
  if (!seed.empty() && !support::read_number(seed, o.seed))
    return fail("--seed " + seed + ": give a number from 0 to 2^64 - 1");
  if ((!frames.empty() && !support::read_number(frames, o.frames)) || o.frames < 0 ||
      o.frames > longest_run)
    return fail("--frames " + frames + ": give a number up to " + std::to_string(longest_run));
  if (!o.replay.empty() && !read_recording(o.replay, o.seed, keys))
    return fail(o.replay + ": no recording that --record wrote");
  const auto weights = ln::map_packed<model>(o.weights);
  if (!weights) return fail(weights.error().message());
  return play(o, *weights, keys);
}

}  // namespace barks

int main(int count, char** arguments) {
  static char lines[4096];
  std::setvbuf(stdout, lines, _IOLBF, sizeof lines);
  return barks::run(count, arguments);
}
