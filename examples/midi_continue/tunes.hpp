// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Melodies that are in the public domain: all were published before 1900, and the composers who
/// are known died before 1914. A note is a name, an octave (C4 is MIDI key 60) and a length in
/// sixteenths behind a dot, which holds until the next one; r is a rest.

namespace midi_continue {

struct tune {
  const char* name;
  const char* notes;
};

constexpr tune tunes[] = {
    {"Frère Jacques (French, 18th century)",
     "C4.4 D4 E4 C4 C4 D4 E4 C4 E4 F4 G4.8 E4.4 F4 G4.8 G4.2 A4 G4 F4 E4.4 C4 G4.2 A4 G4 F4 E4.4 "
     "C4 C4 G3 C4.8 C4.4 G3 C4.8"},
    {"Ah ! vous dirai-je, maman (French, 1761)",
     "C4.4 C4 G4 G4 A4 A4 G4.8 F4.4 F4 E4 E4 D4 D4 C4.8 G4.4 G4 F4 F4 E4 E4 D4.8 G4.4 G4 F4 F4 E4 "
     "E4 D4.8 C4.4 C4 G4 G4 A4 A4 G4.8 F4.4 F4 E4 E4 D4 D4 C4.8"},
    {"Ode to Joy (Ludwig van Beethoven, 1824)",
     "E4.4 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 E4.6 D4.2 D4.8 E4.4 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 "
     "D4.6 C4.2 C4.8 D4.4 D4 E4 C4 D4 E4.2 F4 E4.4 C4 D4 E4.2 F4 E4.4 D4 C4 D4 G3.8 E4.4 E4 F4 G4 "
     "G4 F4 E4 D4 C4 C4 D4 E4 D4.6 C4.2 C4.8"},
    {"Au clair de la lune (French, 18th century)",
     "C4.4 C4 C4 D4 E4.8 D4 C4.4 E4 D4 D4 C4.16 C4.4 C4 C4 D4 E4.8 D4 C4.4 E4 D4 D4 C4.16 D4.4 D4 "
     "D4 D4 A3.8 A3 D4.4 C4 B3 A3 G3.16 C4.4 C4 C4 D4 E4.8 D4 C4.4 E4 D4 D4 C4.16"},
    {"Merrily We Roll Along (United States, 19th century)",
     "E4.4 D4 C4 D4 E4 E4 E4.8 D4.4 D4 D4.8 E4.4 G4 G4.8 E4.4 D4 C4 D4 E4 E4 E4 E4 D4 D4 E4 D4 "
     "C4.16"},
    {"London Bridge (English, printed about 1879)",
     "G4.6 A4.2 G4.4 F4 E4 F4 G4.8 D4.4 E4 F4.8 E4.4 F4 G4.8 G4.6 A4.2 G4.4 F4 E4 F4 G4.8 D4 G4 "
     "E4.4 C4.12"},
    {"Kuckuck, Kuckuck (Austrian, 19th century)",
     "G4.4 E4 r G4 E4 r D4 C4 D4 C4.8 r.4 D4 D4 E4 F4.8 D4.4 E4 E4 F4 G4.8 E4.4 G4 E4 r G4 E4 r F4 "
     "E4 D4 C4.8 r.4"},
    {"Lightly Row (German, 19th century)",
     "G4.4 E4 E4.8 F4.4 D4 D4.8 C4.4 D4 E4 F4 G4 G4 G4.8 G4.4 E4 E4.8 F4.4 D4 D4.8 C4.4 E4 G4 G4 "
     "C4.16 D4.4 D4 D4 D4 D4 E4 F4.8 E4.4 E4 E4 E4 E4 F4 G4.8 G4.4 E4 E4.8 F4.4 D4 D4.8 C4.4 E4 G4 "
     "G4 C4.16"},
    {"Jingle Bells, chorus (James Pierpont, 1857)",
     "E4.4 E4 E4.8 E4.4 E4 E4.8 E4.4 G4 C4.6 D4.2 E4.16 F4.4 F4 F4.6 F4.2 F4.4 E4 E4 E4.2 E4 E4.4 "
     "D4 D4 E4 D4.8 G4 E4.4 E4 E4.8 E4.4 E4 E4.8 E4.4 G4 C4.6 D4.2 E4.16 F4.4 F4 F4.6 F4.2 F4.4 E4 "
     "E4 E4.2 E4 G4.4 G4 F4 D4 C4.16"},
    {"Sur le pont d'Avignon (French, 16th century)",
     "C4.4 C4 C4.8 D4.4 D4 D4.8 E4.4 F4 G4 C4 B3 C4 D4 G3 C4 C4 C4.8 D4.4 D4 D4.8 E4.4 F4 G4 C4 D4 "
     "B3 C4.8"},
    {"Alle meine Entchen (German, 19th century)",
     "C4.2 D4 E4 F4 G4.4 G4 A4.2 A4 A4 A4 G4.8 A4.2 A4 A4 A4 G4.8 F4.2 F4 F4 F4 E4.4 E4 D4.2 D4 D4 "
     "D4 C4.8"},
    {"Greensleeves (English, 16th century)",
     "A4.4 C5.8 D5.4 E5.6 F5.2 E5.4 D5.8 B4.4 G4.6 A4.2 B4.4 C5.8 A4.4 A4.6 G#4.2 A4.4 B4.8 G#4.4 "
     "E4.8 A4.4 C5.8 D5.4 E5.6 F5.2 E5.4 D5.8 B4.4 G4.6 A4.2 B4.4 C5.6 B4.2 A4.4 G#4.6 F#4.2 G#4.4 "
     "A4.12 A4.8"},
    {"Yankee Doodle (18th century)",
     "C4.4 C4 D4 E4 C4 E4 D4.8 C4.4 C4 D4 E4 C4.8 B3 C4.4 C4 D4 E4 F4 E4 D4 C4 B3 G3 A3 B3 C4.8 "
     "C4"},
    {"Row, Row, Row Your Boat (Eliphalet Oram Lyte, 1881)",
     "C4.6 C4 C4.4 D4.2 E4.6 E4.4 D4.2 E4.4 F4.2 G4.12 C5.2 C5 C5 G4 G4 G4 E4 E4 E4 C4 C4 C4 G4.4 "
     "F4.2 E4.4 D4.2 C4.12"},
};

}  // namespace midi_continue
