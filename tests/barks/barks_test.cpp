// SPDX-License-Identifier: MIT
// The game of examples/barks, without a window: what is said depends on the seed and the keys
// alone, and frames ask for no memory. Its times decide nothing here.

#include <boost/test/unit_test.hpp>

#include <linnet/linnet.hpp>

#include <fstream>
#include <string>
#include <vector>

#include "support/program.hpp"

namespace test::barks_test {

BOOST_AUTO_TEST_SUITE(barks)

namespace {

outcome barks(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"SDL_VIDEODRIVER=dummy", BARKS_PROGRAM});
  return run_program("env", arguments);
}
/// What was said, with a digest of it: all that is printed but the last line, which has times.
std::string said(const std::vector<std::string>& arguments) {
  const outcome o = barks(arguments);
  BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
  const std::size_t digest = o.out.find("transcript ");
  BOOST_REQUIRE_MESSAGE(digest != o.out.npos, o.out);
  return o.out.substr(0, o.out.find('\n', digest));
}
void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
/// Keys of so many frames, others every half second; a shout is in one frame alone.
std::string random_keys(int frames) {
  linnet::random_stream random(linnet::seed{1}, linnet::stream_of("keys and lines"));
  std::string keys;
  unsigned down = 0;
  for (int now = 0; now < frames; ++now) {
    down = now % 30 == 0 ? random.below(32) : down & ~16u;
    keys += static_cast<char>('@' + down);
  }
  return keys;
}

}  // namespace

// Of g++ 12 and clang++ 14, at each level. One bit of a weight alters it, as it has all logits.
BOOST_AUTO_TEST_CASE(golden_transcript) {
  const scratch_folder folder;
  const std::string keys = folder.path("keys");
  write(keys, random_keys(120));
  const std::string first = said({"--keys", keys, "--frames", "120"});
  BOOST_TEST(first.find("transcript 4a21040355790965 of") != first.npos, first);
  BOOST_TEST(said({"--keys", keys, "--frames", "120"}) == first);
}

BOOST_AUTO_TEST_CASE(recorded_keys_say_the_same) {
  const scratch_folder folder;
  const std::string keys = folder.path("keys"), pressed = random_keys(60);
  write(keys, pressed);
  const std::string first = said({"--keys", keys, "--frames", "100", "--seed", "7"});
  // Those of later frames are added, here none that are down.
  BOOST_TEST(contents(keys) == pressed + std::string(40, '@'));
  BOOST_TEST(said({"--keys", keys, "--frames", "100", "--seed", "7"}) == first);
  // A part of the game leaves the rest of its keys in the file.
  (void)said({"--keys", keys, "--frames", "3", "--seed", "7"});
  BOOST_TEST(contents(keys) == pressed + std::string(40, '@'));
  // Other keys, to the north-west and shouting, are other lines.
  write(keys, std::string(100, '@' + 1 + 4 + 16));
  BOOST_TEST(said({"--keys", keys, "--frames", "100", "--seed", "7"}) != first);
}

// All that the program and SDL ask for, by an interposed malloc: as much in 40 frames as in 100.
// SDL draws with its dummy driver and asks no message bus.
BOOST_AUTO_TEST_CASE(frames_allocate_nothing) {
  const auto calls = [](const char* frames) {
    const outcome o =
        run_program("env", {"LD_PRELOAD=" BARKS_COUNTING_HEAP, "DBUS_SESSION_BUS_ADDRESS=disabled:",
                            "SDL_VIDEODRIVER=dummy", BARKS_PROGRAM, "--frames", frames});
    BOOST_REQUIRE_MESSAGE(o.status == 0, o.err);
    const std::size_t at = o.err.rfind("heap calls: ");
    BOOST_REQUIRE_MESSAGE(at != o.err.npos, o.err);
    return std::stol(o.err.substr(at + 12));
  };
  const long few = calls("40");
  BOOST_TEST(few > 0);
  BOOST_TEST(calls("100") == few);
}

BOOST_AUTO_TEST_CASE(screenshot) {
  const scratch_folder folder;
  (void)said({"--frames", "2", "--screenshot", folder.path("shot.bmp")});
  const std::string image = contents(folder.path("shot.bmp"));
  BOOST_TEST(image.substr(0, 2) == "BM");
  BOOST_TEST(image.size() > 640 * 360 * 3);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const scratch_folder folder;
  const auto refused = [](const std::vector<std::string>& arguments, int status,
                          const char* words) {
    const outcome o = barks(arguments);
    BOOST_TEST(o.status == status);
    BOOST_TEST(o.err.find(words) != o.err.npos, o.err);
    BOOST_TEST(o.out.empty());
  };
  refused({"--frame", "3"}, 2, "usage: barks");
  refused({"--frames"}, 2, "usage: barks");
  refused({"--frames", "3x"}, 1, "--frames 3x: give a number");
  refused({"--frames", "0"}, 1, "--frames 0");
  refused({"--frames", "1000000"}, 1, "--frames 1000000");
  refused({"--seed", "-1"}, 1, "--seed -1");
  const std::string keys = folder.path("keys");
  write(keys, "@@?@");
  refused({"--keys", keys}, 1, "keys: has something else than keys");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::barks_test
