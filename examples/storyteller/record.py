#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the storyteller and draws the terminal as an SVG, whose lines appear one after the other.

    record.py PROGRAM PICTURE.svg [ARGUMENT...]
"""

import shlex
import subprocess
import sys
import textwrap
from html import escape

COLUMNS, WIDTH, HEIGHT, EDGE = 76, 8.43, 20, 16  # characters of a line, pixels of a character, of the edge
PACE = 0.9  # seconds for a line


def picture(command, story):
    """An SVG of the command and what it wrote."""
    lines = ["$ " + command]
    for paragraph in story.rstrip("\n").split("\n"):
        lines += textwrap.wrap(paragraph, COLUMNS) or [""]
    width, height = round(COLUMNS * WIDTH + 2 * EDGE), len(lines) * HEIGHT + 2 * EDGE
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}">',
           "<style>text{font:14px monospace;fill:#d8dee9;white-space:pre;animation:show .4s backwards}"
           "@keyframes show{from{opacity:0}}"
           "@media(prefers-reduced-motion){text{animation:none}}</style>",
           f'<rect width="{width}" height="{height}" rx="8" fill="#20242c"/>']
    for i, line in enumerate(lines):
        if line:
            out.append(f'<text x="{EDGE}" y="{EDGE + 14 + i * HEIGHT}" '
                       f'style="animation-delay:{i * PACE:.1f}s">{escape(line, quote=False)}</text>')
    return "\n".join(out) + "\n</svg>\n"


def main(arguments):
    if len(arguments) < 2:
        sys.exit("usage: record.py PROGRAM PICTURE.svg [ARGUMENT...]")
    program, to, *given = arguments
    story = subprocess.run([program, *given], check=True, stdout=subprocess.PIPE, text=True).stdout
    with open(to, "w") as file:
        file.write(picture(shlex.join(["./storyteller", *given]), story))


if __name__ == "__main__":
    main(sys.argv[1:])
