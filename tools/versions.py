#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that every place that names the version says what core/platform.hpp says.

With --print it only prints that version.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "include/linnet/core/platform.hpp"
# The first match of each pattern in the file is the version; a second group is the release's date.
PLACES = {
    "CHANGELOG.md": r"(?m)^## \[(\d[^\]]*)\](?: - (.*))?$",
    "CITATION.cff": r"(?m)^version: (.+)\ndate-released: (.+)$",
    "packaging/vcpkg/ports/linnet/vcpkg.json": r'"version": "(.+?)"',
    "packaging/debian/changelog": r"(?m)^linnet \((.+)-\d+\)",
    "pyproject.toml": r'(?m)^version = "(.+)"$',
}
# In these, every match is a version.
PINNED = {"docs/packages.md": r"\bv(\d[\w.]*\w)|linnet(?: VERSION |[@/])(\d[\w.]*\w)", "README.md": r"linnet[@/](\d[\w.]*\w)"}


def main():
    read = lambda name: (ROOT / name).read_text()
    version = ".".join(re.findall(r"define LINNET_VERSION_[A-Z]+ (\d+)", read(HEADER)))
    if sys.argv[1:] == ["--print"]:
        return print(version)
    found, dates, problems = 0, set(), []
    for name, pattern in PLACES.items():
        match = re.search(pattern, read(name))
        if match is None:
            problems.append(f"{name}: names no version as {pattern}")
            continue
        found += 1
        if match[1] != version:
            problems.append(f"{name}: version {match[1]}, but {version} in {HEADER}")
        if match.re.groups == 2:
            dates.add(match[2])
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", match[2] or ""):
                problems.append(f"{name}: the release {match[1]} has no date")
    if len(dates) > 1:
        problems.append(f"the release has two dates: {', '.join(sorted(map(str, dates)))}")
    for name, pattern in PINNED.items():
        for match in re.finditer(pattern, read(name)):
            found += 1
            if match[match.lastindex] != version:
                problems.append(f"{name}: \"{match[0]}\", but {version} in {HEADER}")
    print(*problems, f"{found} places name a version, {len(problems)} problems", sep="\n")
    return 1 if problems else None


if __name__ == "__main__":
    sys.exit(main())
