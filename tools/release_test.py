#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests tools/release on a copy of this tree, and what tools/debian refuses: release_test.py."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgSign=false"]


class Release(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root, self.out = Path(folder.name, "tree"), Path(folder.name, "out")
        subprocess.run([TOOLS / "snapshot", self.root], check=True, capture_output=True)
        self.edit("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n### Added\n- A test's line.\n")

    def edit(self, name, old, new):
        path = self.root / name
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new, 1))

    def commit(self):
        for command in ([*GIT, "add", "-A"], [*GIT, "-c", "core.hooksPath=/dev/null", "commit", "-qm", "a"]):
            subprocess.run(command, cwd=self.root, check=True)

    def release(self, *words):
        return subprocess.run([sys.executable, self.root / "tools/release", *words], capture_output=True, text=True,
                              env=os.environ | {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"})

    def refuses(self, sentence, *words):
        done = self.release(*words)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(sentence, done.stdout + done.stderr)

    def test_a_release_from_the_first_word_to_the_tag(self):
        self.refuses("expected a version such as 1.2.3", "prepare", "2.0")
        self.refuses("expected a version above", "prepare", "0.0.1")
        self.refuses("expected a date such as", "prepare", "98.7.6", "yesterday")
        self.refuses("changes that are in no version", "check")
        self.refuses("usage: release", "sign")

        done = self.release("prepare", "98.7.6", "20310203")  # kept as 2031-02-03
        self.assertEqual(done.returncode, 0, done.stderr)
        for name, words in {"include/linnet/core/platform.hpp": "VERSION_MAJOR 98", "pyproject.toml": '"98.7.6"',
                            "CITATION.cff": "version: 98.7.6\ndate-released: 2031-02-03",
                            "single_include/linnet/linnet.hpp": "// linnet 98.7.6:",
                            "packaging/debian/changelog": "linnet (98.7.6-1) ", "docs/packages.md": "v98.7.6",
                            "CHANGELOG.md": "## [Unreleased]\n\n## [98.7.6] - 2031-02-03\n\n### Added\n- A test's"}.items():
            self.assertIn(words, (self.root / name).read_text(), name)
        self.refuses("changes that are not committed", "make", str(self.out))
        self.assertFalse(self.out.exists())
        self.commit()

        self.assertEqual(self.release("check").stdout, "release 98.7.6: 0 problems\n")
        self.assertEqual(self.release("make", str(self.out)).returncode, 0)
        sums = dict(reversed(line.split("  ")) for line in (self.out / "SHA256SUMS").read_text().splitlines())
        self.assertEqual(set(sums), {"linnet-98.7.6.tar", "linnet-98.7.6-single-include.tar", "linnet-98.7.6.md"})
        for name, digest in sums.items():
            self.assertEqual(hashlib.sha256((self.out / name).read_bytes()).hexdigest(), digest)
        with tarfile.open(self.out / "linnet-98.7.6-single-include.tar") as archive:
            self.assertIn("linnet-98.7.6/linnet/linnet.hpp", archive.getnames())
        with tarfile.open(self.out / "linnet-98.7.6.tar") as archive:
            self.assertIn("linnet-98.7.6/README.md", archive.getnames())
        self.assertTrue((self.out / "linnet-98.7.6.md").read_text().startswith("### Added\n- A test's line."))
        before = (self.out / "SHA256SUMS").read_text()
        self.release("make", str(self.out))
        self.assertEqual((self.out / "SHA256SUMS").read_text(), before)

        done = self.release("tag")
        self.assertEqual(done.returncode, 0, done.stderr)
        tags = subprocess.run(["git", "tag"], cwd=self.root, capture_output=True, text=True).stdout
        self.assertIn("v98.7.6\n", tags)
        self.refuses("the tag v98.7.6 is there already", "tag")
        self.refuses("nothing unreleased", "prepare", "98.7.7")


class Debian(unittest.TestCase):
    def test_a_folder_with_files_is_left_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "linnet").mkdir()
            Path(folder, "linnet-file").write_text("a")
            for given, where in (folder, "/"), (".", folder), ("linnet-file", folder):
                done = subprocess.run([TOOLS / "debian", given], cwd=where, capture_output=True, text=True)
                self.assertEqual(done.returncode, 2)
                self.assertRegex(done.stderr, rf"^tools/debian: {os.path.realpath(folder)}[^\n]*: expected [^\n]*\n$")
            self.assertEqual(sorted(os.listdir(folder)), ["linnet", "linnet-file"])


if __name__ == "__main__":
    unittest.main()
