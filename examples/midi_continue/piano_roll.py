#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws what `test_midi_continue BUNDLE notes` prints as a piano roll: notes in, notes out.

    test_midi_continue BUNDLE notes | piano_roll.py TITLE >FILE.svg
"""

import html
import sys

WIDTH, ROW, LEFT, TOP = 26, 12, 46, 44  # of a beat and of a key, and margins
COLOURS = {"in": "#4477aa", "out": "#cc6677"}
NAMES = {"in": "played", "out": "continued"}
LETTERS = ["C", None, "D", None, "E", "F", None, "G", None, "A", None, "B"]


def main():
    notes = []
    for line in sys.stdin:
        who, key, begin, end = line.split()
        notes.append((who, int(key), float(begin), float(end)))
    lowest, highest = min(n[1] for n in notes) - 1, max(n[1] for n in notes) + 1
    beats = int(max(n[3] for n in notes)) + 2
    width, height = LEFT + WIDTH * beats + 10, TOP + ROW * (highest - lowest + 1) + 24
    bottom = height - 24
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
          f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">')
    print(f'<rect width="{width}" height="{height}" fill="white"/>')
    print(f'<text x="{LEFT}" y="16" font-size="13">{html.escape(sys.argv[1])}</text>')
    for key in range(lowest, highest + 1):
        y, letter = TOP + ROW * (highest - key), LETTERS[key % 12]
        fill = "#f7f7f7" if letter else "#e6e6e6"
        print(f'<rect x="{LEFT}" y="{y}" width="{WIDTH * beats}" height="{ROW}" fill="{fill}"/>')
        if letter:
            print(f'<text x="{LEFT - 6}" y="{y + ROW - 2}" text-anchor="end">'
                  f'{letter}{key // 12 - 1}</text>')
    for beat in range(beats + 1):
        x, colour = LEFT + WIDTH * beat, "#999" if beat % 4 == 0 else "#ddd"
        print(f'<path d="M{x} {TOP}V{bottom}" stroke="{colour}"/>')
        if beat % 4 == 0:
            print(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{beat}</text>')
    for who, key, begin, end in notes:
        print(f'<rect x="{LEFT + WIDTH * begin:.1f}" y="{TOP + ROW * (highest - key) + 1}" '
              f'width="{WIDTH * (end - begin):.1f}" height="{ROW - 2}" rx="2" fill="{COLOURS[who]}"/>')
    for i, who in enumerate(COLOURS):
        x = LEFT + 100 * i
        print(f'<rect x="{x}" y="25" width="10" height="10" fill="{COLOURS[who]}"/>'
              f'<text x="{x + 15}" y="34">{NAMES[who]}</text>')
    print(f'<text x="{width - 10}" y="{bottom + 16}" text-anchor="end">beats</text>')
    print("</svg>")


main()
