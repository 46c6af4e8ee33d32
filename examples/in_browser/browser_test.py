#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""browser_test.py FOLDER: lets Chromium without a window train the page that `build FOLDER` made.

Fails unless the loss halves and the page writes. It is run by hand.
"""
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from site_test import Browser

with tempfile.TemporaryDirectory() as profile:
    browser = Browser(profile)
    found = list(browser.open(Path(sys.argv[1], "index.html").resolve().as_uri()))
    browser.value("part('train').click()")
    end = time.monotonic() + 120
    while browser.value("losses.length") < 150 and time.monotonic() < end:
        time.sleep(0.5)
    browser.value("part('train').click(); part('write').click()")
    losses, written = browser.value("losses"), browser.value("part('written').textContent")
    status = browser.value("part('status').textContent")
    browser.close()
if not losses:
    sys.exit("it did not begin to learn; " + " ".join(found))
print(*found, f"{losses[0]:.3f} bits per byte at first, {status}", written, sep="\n")
sys.exit(bool(found) or len(written) < 100 or losses[-1] > losses[0] / 2)
