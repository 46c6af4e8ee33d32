#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the perplexity of each byte during training: curve.py DIR >FILE.svg

DIR has tokens.curve.jsonl and bytes.curve.jsonl of stlm_10m. Perplexity is 2 to the power of the
bits per byte, over the text that has been read.
"""
import json
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 60, 170, 40, 44
COLOURS = {"tokens": "#1f6fb4", "bytes": "#c4501b"}
NAMES = {"training": "training text", "held_out": "held out"}


def main():
    folder = pathlib.Path(sys.argv[1])
    curves = {}
    for kind in COLOURS:
        rows = [json.loads(line) for line in (folder / f"{kind}.curve.jsonl").open()]
        for part in NAMES:
            curves[kind, part] = [(r["bytes"] / 1e6, 2 ** r[part]) for r in rows if r["step"] > 0]
    points = [p for curve in curves.values() for p in curve]
    most = max(x for x, _ in points)
    low = math.log2(min(y for _, y in points)) - 0.1
    high = math.log2(max(y for _, y in points)) + 0.1

    def at(x, y):
        across = LEFT + x / most * (WIDTH - LEFT - RIGHT)
        up = (math.log2(y) - low) / (high - low)
        return f"{across:.1f} {HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}"

    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
          f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">')
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    print(f'<text x="{LEFT}" y="20" font-size="13">Perplexity of a byte during training</text>')
    for y in (2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 64):
        if low <= math.log2(y) <= high:
            x0, y0 = at(0, y).split()
            print(f'<path d="M{x0} {y0}H{WIDTH - RIGHT}" stroke="#ddd"/>')
            print(f'<text x="{LEFT - 6}" y="{float(y0) + 4:.1f}" text-anchor="end">{y:g}</text>')
    unit = 10 ** math.floor(math.log10(most))
    step = next(s for s in (unit / 10, unit / 5, unit / 2, unit, 2 * unit) if most / s <= 10)
    for i in range(int(most / step) + 1):
        x0, _ = at(i * step, 2).split()
        print(f'<text x="{x0}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{i * step:g}</text>')
    print(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
          "MB of text read, each byte as often as it was</text>")
    ends = []
    for (kind, part), curve in curves.items():
        dash = "" if part == "held_out" else ' stroke-dasharray="4 3"'
        print(f'<path d="M{"L".join(at(x, y) for x, y in curve)}" fill="none" '
              f'stroke="{COLOURS[kind]}" stroke-width="1.6"{dash}/>')
        ends.append([float(at(*curve[-1]).split()[1]), f"{kind}, {NAMES[part]}", COLOURS[kind]])
    ends.sort()
    for before, one in zip(ends, ends[1:]):
        one[0] = max(one[0], before[0] + 13)
    for y, name, colour in ends:
        print(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}" fill="{colour}">{name}</text>')
    print("</svg>")


main()
