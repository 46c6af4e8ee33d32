// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The village: who walks where, what they see and how they feel. It computes with integers, so a
/// seed, the inputs and what was said decide all of it.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
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

/// Writes the beginning of a line, as the model knows it, into `out`. Returns its length.
inline std::size_t prompt(const state& s, std::span<char> out) {
  return std::size_t(std::snprintf(out.data(), out.size(), "%s %s %s %s:", names[s.who],
                                   places[s.where], moods[s.mood], sights[s.sees]));
}

struct point {
  int x, y;

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
struct world {
  ln::random_stream random;
  std::array<villager, 4> villagers;
  point hero_at{width / 2, height / 2}, wolf_at{540, 270}, wolf_goal{70, 90};
  bool is_dusk = false;

  explicit world(std::uint64_t seed) : random(ln::seed{seed}, ln::stream_of("village")) {
    for (std::size_t i = 0; i < 4; ++i)
      villagers[i] = {.at = places_at[i], .goal = somewhere(), .speaks = 5 + 20 * frame(i)};
  }

  /// One frame with the keys that are down. Calls ask(state) for each line that is wanted.
  template <class F>
  void step(frame now, unsigned keys, F&& ask) {
    const bool shouts = (keys & shout) != 0;
    hero_at.x += 2 * (int((keys & east) != 0) - int((keys & west) != 0));
    hero_at.y += 2 * (int((keys & south) != 0) - int((keys & north) != 0));
    hero_at = {std::clamp(hero_at.x, 10, width - 10), std::clamp(hero_at.y, 10, height - 40)};
    if (now % 600 == 599) is_dusk = !is_dusk;
    if (shouts && wolf_at.near(hero_at, 200)) wolf_goal = {width - hero_at.x, 20};
    walk(wolf_at, wolf_goal, now);
    for (std::size_t i = 0; i < 4; ++i) {
      villager& v = villagers[i];
      walk(v.at, v.goal, now);
      const std::size_t sees = v.at.near(wolf_at, 120)                  ? wolf
                               : v.at.near(hero_at, shouts ? 320 : 140) ? hero
                               : is_dusk                                ? dusk
                                                                        : rain;
      if (sees != v.sees) {  // something to speak of
        v.sees = sees;
        v.feels = sees == wolf ? (i == 0 ? angry : afraid) : sees == hero ? merry : calm;
        v.speaks = std::min(v.speaks, std::max(now, v.asked + pause));
      }
      if (now < v.speaks) continue;
      const std::size_t nearest = (v.at.x > width / 2 ? 1u : 0u) + (v.at.y > height / 2 ? 2u : 0u);
      ask(state{i, nearest, v.feels, v.sees});
      v.asked = now;
      v.speaks = now + pause + random.below(100);
    }
  }
  /// Others nearby hear what somebody says. A call makes them feel as the one who calls.
  void hear(std::size_t speaker, std::string_view line) {
    for (villager& v : villagers)
      if (line.find('!') != line.npos && v.at.near(villagers[speaker].at, 250))
        v.feels = villagers[speaker].feels;
  }

 private:
  point somewhere() {
    return {30 + int(random.below(width - 60)), 40 + int(random.below(height - 100))};
  }
  /// A step towards the goal in every other frame; once there, to another one.
  void walk(point& at, point& goal, frame now) {
    if (now % 2 == 0)
      at = {at.x + (goal.x > at.x) - (goal.x < at.x), at.y + (goal.y > at.y) - (goal.y < at.y)};
    if (at.near(goal, 3)) goal = somewhere();
  }
};

}  // namespace barks
