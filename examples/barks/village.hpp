// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The village: who walks where, what they see and how they feel. It computes with integers, so a
/// seed, the inputs and what was said decide all of it.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include <linnet/inference.hpp>

namespace barks {

namespace ln = linnet;
using frame = long;

inline constexpr std::array<const char*, 4> names{"guard", "baker", "child", "witch"},
    places{"gate", "market", "bridge", "woods"}, moods{"calm", "afraid", "angry", "merry"},
    sights{"hero", "wolf", "rain", "dusk"};
enum mood : std::size_t { calm, afraid, angry, merry };
enum sight : std::size_t { hero, wolf, rain, dusk };
enum key : unsigned { west = 1, east = 2, north = 4, south = 8, shout = 16 };

/// What a line depends on, as indices of the names above.
struct state {
  std::size_t who, where, mood, sees;
};

struct point {
  int x, y;

  /// Takes a step towards another point.
  void approach(point to) {
    x += (to.x > x) - (to.x < x);
    y += (to.y > y) - (to.y < y);
  }
  bool near(point to, int most) const { return std::abs(x - to.x) + std::abs(y - to.y) < most; }
};
inline constexpr int width = 640, height = 360;
inline constexpr std::array<point, 4> places_at{{{70, 90}, {520, 80}, {110, 260}, {540, 270}}};

inline constexpr frame pause = 80;  // least from one line of a villager to the next

struct villager {
  point at{}, goal{};
  std::size_t feels = calm, sees = rain;
  frame asked = -pause, speaks = 0;  // when a line was asked for, and the next one will be
};

/// All that changes.
class world {
 public:
  std::array<villager, 4> villagers;
  point hero_at{width / 2, height / 2}, wolf_at{540, 270}, wolf_goal{70, 90};
  bool is_dusk = false;

  explicit world(std::uint64_t seed) : random_(ln::seed{seed}, ln::stream_of("village")) {
    for (std::size_t i = 0; i < 4; ++i)
      villagers[i] = {.at = places_at[i], .goal = somewhere(), .speaks = 5 + 20 * frame(i)};
  }

  /// One frame with the keys that are down. Calls ask(villager) for each line that is wanted.
  template <class F>
  void step(frame now, unsigned keys, F&& ask) {
    hero_at.x += 2 * (int((keys & east) != 0) - int((keys & west) != 0));
    hero_at.y += 2 * (int((keys & south) != 0) - int((keys & north) != 0));
    hero_at = {std::clamp(hero_at.x, 10, width - 10), std::clamp(hero_at.y, 10, height - 40)};
    if (now % 600 == 599) is_dusk = !is_dusk;
    if ((keys & shout) && wolf_at.near(hero_at, 200)) wolf_goal = {width - hero_at.x, 20};
    walk(wolf_at, wolf_goal, now);
    for (std::size_t i = 0; i < 4; ++i) {
      villager& v = villagers[i];
      walk(v.at, v.goal, now);
      const std::size_t saw = v.sees;
      v.sees = v.at.near(wolf_at, 120)                               ? wolf
               : v.at.near(hero_at, (keys & shout) != 0 ? 320 : 140) ? hero
               : is_dusk                                             ? dusk
                                                                     : rain;
      if (v.sees != saw) {  // something to speak of
        v.feels = v.sees == wolf ? (i == 0 ? angry : afraid) : v.sees == hero ? merry : calm;
        v.speaks = std::min(v.speaks, std::max(now, v.asked + pause));
      }
      if (now < v.speaks) continue;
      ask(i);
      v.asked = now;
      v.speaks = now + pause + random_.below(100);
    }
  }
  /// What a villager's next line depends on: the place is the nearest one.
  state of(std::size_t i) const {
    const point p = villagers[i].at;
    const std::size_t where = (p.x > width / 2 ? 1u : 0u) + (p.y > height / 2 ? 2u : 0u);
    return {i, where, villagers[i].feels, villagers[i].sees};
  }
  /// Others nearby hear what somebody says. A call makes them feel as the one who calls.
  void hear(std::size_t speaker, std::string_view line) {
    if (line.find('!') == line.npos) return;
    const villager& said = villagers[speaker];
    for (villager& v : villagers)
      if (v.at.near(said.at, 250)) v.feels = said.feels;
  }

 private:
  point somewhere() {
    return {30 + int(random_.below(width - 60)), 40 + int(random_.below(height - 100))};
  }
  void walk(point& at, point& goal, frame now) {
    if (now % 2 == 0) at.approach(goal);
    if (at.near(goal, 3)) goal = somewhere();
  }
  ln::random_stream random_;
};

/// Writes the beginning of a line, as the model knows it, into `out`. Returns its length.
inline std::size_t prompt(const state& s, std::span<ln::token> out) {
  std::size_t size = 0;
  const auto put = [&](const char* word, char behind) {
    while (*word) out[size++] = *word++;
    out[size++] = behind;
  };
  put(names[s.who], ' ');
  put(places[s.where], ' ');
  put(moods[s.mood], ' ');
  put(sights[s.sees], ':');
  return size;
}

}  // namespace barks
