// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The plug-in as hosts see it; midi_continue.ttl.in says it in Turtle.

#include <cstdint>

namespace midi_continue {

constexpr char plugin_uri[] = "urn:linnet:midi_continue";
/// A feature that a host may have, for tests: its data is an std::int32_t, the tokens of a session.
constexpr char session_uri[] = "urn:linnet:midi_continue#session";

/// Numbers of the ports.
enum class port : std::uint32_t {
  in,           ///< MIDI
  out,          ///< MIDI
  tempo,        ///< beats per minute
  pause,        ///< whole beats that the plug-in waits before it goes on
  length,       ///< whole beats of its answer
  temperature,  ///< of its choice; 0 takes the likeliest token
  seed,         ///< of its choice
  enabled,      ///< 0: it is silent
  slice,        ///< samples for each token of work
  underruns,    ///< out: notes that were ready too late, or had no room, since activate()
  count
};

}  // namespace midi_continue
