#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the site that tools/site built.

usage: site_test.py FOLDER               the folder that has index.html

- Every link of every page leads to a file, and to an anchor of it. Links to other hosts are not tried.
- Chromium without a window opens the pages from their files. No page writes an error to the console
  or asks another host for anything. Of the reference, which one program writes, it opens a few pages.
- The search finds WORDS.
- The model on the front page learns in the browser, and writes. It is not there if it was not built.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

WORDS = ["softmax", "RoPE", "quantize"]
REFERENCE = ["index", "annotated", "files", "namespacelinnet", "classlinnet_1_1session", "session_8hpp_source"]
PATIENCE = 90  # seconds for a page or a search
LEARNT = 4  # bits per byte; a model that has learnt nothing has 8


class Page(HTMLParser):
    """Anchors and links of a page."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = {"", "top"}, set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in ("href", "src", "action"):
                self.links.add(value)

    handle_startendtag = handle_starttag


def dead_links(site):
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    count = 0
    for path, page in pages.items():
        for link in sorted(page.links):
            if urlsplit(link).scheme:
                continue
            count += 1
            target, anchor = urldefrag(link)
            file = (path.parent / unquote(urlsplit(target).path)).resolve() if target else path
            if not file.is_file():
                yield f"{path.relative_to(site)}: the link {link} leads nowhere"
            elif file in pages and unquote(anchor) not in pages[file].anchors:
                yield f"{path.relative_to(site)}: the link {link} leads to no anchor of that page"
    print(f"{len(pages)} pages, {count} links")


class Browser:
    """Chromium, spoken to in the protocol of its developer tools over two pipes."""

    def __init__(self, profile):
        there, self.out = os.pipe()
        self.input, back = os.pipe()
        # As root, which CI often is, Chromium has no sandbox.
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{there} 4>&{back}', "bash", "chromium", *options],
            pass_fds=(there, back), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(there), os.close(back)
        os.set_blocking(self.input, False)
        self.last, self.buffer, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def receive(self, wanted):
        """The next message for which wanted says yes; other events are kept."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            *messages, self.buffer = self.buffer.split(b"\0")
            for position, message in enumerate(map(json.loads, messages)):
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    self.buffer = b"".join(m + b"\0" for m in messages[position + 1:]) + self.buffer
                    return message
            try:
                data = os.read(self.input, 1 << 20)
                if not data:
                    break
                self.buffer += data
            except BlockingIOError:
                time.sleep(0.002)
        sys.exit("site_test.py: no answer of Chromium")

    def call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        answer = self.receive(lambda m, number=self.last: m.get("id") == number)
        if "error" in answer:
            sys.exit(f"site_test.py: {method}: {answer['error']['message']}")
        return answer["result"]

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def value_in_frame(self, expression):
        """The same in the first frame of the page, of which it sees the elements alone."""
        frame = self.call("Page.getFrameTree")["frameTree"]["childFrames"][0]["frame"]["id"]
        context = self.call("Page.createIsolatedWorld", frameId=frame)["executionContextId"]
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, contextId=context)
        return answer["result"].get("value")

    def open(self, url):
        """Opens a page; yields what it complains of."""
        self.events.clear()
        if problem := self.call("Page.navigate", url=url).get("errorText"):
            yield problem
            return
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.receive(lambda m: m.get("method") == "Page.loadEventFired")
        self.value("new Promise(requestAnimationFrame)")
        for event in self.events:
            method, about = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                detail = about["exceptionDetails"]
                yield detail.get("exception", {}).get("description", detail["text"])
            elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
                yield " ".join(str(each.get("value", each.get("description"))) for each in about["args"])
            elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
                yield about["entry"]["text"] + " " + about["entry"].get("url", "")
            elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:", "blob:")):
                yield "asks for " + about["request"]["url"]

    def close(self):
        self.call("Browser.close")
        self.process.wait()


def complaints(site, browser):
    """What pages and the search complain of in the browser."""
    pages = [path for path in sorted(site.rglob("*.html")) if site / "api" not in path.parents]
    pages += [site / "api" / (name + ".html") for name in REFERENCE]
    for path in pages:
        for problem in browser.open(path.as_uri()):
            yield f"{path.relative_to(site)}: {problem}"
    print(f"{len(pages)} pages opened")
    for word in WORDS:
        for problem in browser.open((site / "index.html").as_uri() + "?q=" + word):
            yield f"search for {word}: {problem}"
        end, hits = time.monotonic() + PATIENCE, 0
        while not hits and time.monotonic() < end:
            hits = browser.value("document.querySelectorAll('.md-search-result__item').length")
            time.sleep(0.1)
        print(f"search for {word}: {hits} hits on the first screen")
        if not hits:
            yield f"search for {word}: no hit"


def model(site, browser):
    """What does not work of the model on the front page."""
    if not (site / "in_browser/index.html").is_file():
        print("SKIPPED: the front page trains no model: it was not built")
        return
    for problem in browser.open((site / "index.html").as_uri()):
        yield f"front page: {problem}"

    def text_of(part):
        return browser.value_in_frame(f"document.getElementById('{part}')?.textContent") or ""

    def click(button):
        browser.value_in_frame(f"document.getElementById('{button}').click()")

    def bits():
        return float((re.search(r": ([\d.]+) bits", text_of("status")) or [0, "inf"])[1])

    def until(done):
        end = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < end:
            time.sleep(0.1)

    browser.value("document.querySelector('.in-browser').scrollIntoView()")
    until(lambda: text_of("parameters"))
    click("train")
    until(lambda: bits() < float("inf"))
    first = bits()
    until(lambda: bits() < min(first, LEARNT))
    click("train")  # ends it
    click("write")
    learnt, written = bits(), text_of("written")
    print(f"front page: {first} bits per byte at first, {text_of('status')}; it writes {written!r}")
    if not learnt < min(first, LEARNT) or len(written) < 100:
        yield "front page: the model does not learn and write"


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1], "index.html").is_file():
        sys.exit("usage: tools/site_test.py FOLDER, the folder that has index.html")
    site = Path(sys.argv[1]).resolve()
    found = list(dead_links(site))
    if shutil.which("chromium"):
        with tempfile.TemporaryDirectory() as profile:
            browser = Browser(profile)
            found += complaints(site, browser)
            found += model(site, browser)
            browser.close()
    else:
        print("SKIPPED: the documentation in a browser: there is no chromium")
    print(*found, f"{len(found)} problems of the site", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
