#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests tools/history.py with a program that gives known figures."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parent


def report(median):
    rows = [{"run_name": "encode/128", "aggregate_name": name, "real_time": time, "time_unit": "ms"}
            for name, time in (("mean", 99.0), ("median", median), ("stddev", 0.1))]
    return {"context": {"date": "2026-01-02T03:04:05+00:00", "num_cpus": 2}, "benchmarks": rows}


class History(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = Path(self.folder.name)
        self.tool = self.root / "repository/tools/history.py"
        self.tool.parent.mkdir(parents=True)
        self.tool.write_text((TOOLS / "history.py").read_text())
        (self.root / "repository/include").mkdir()
        (self.root / "repository/include/a.hpp").write_text("//\n")
        self.commit()
        (self.root / "build/bin").mkdir(parents=True)
        compiler = self.root / "build/c++"
        compiler.write_text("#!/bin/sh\necho some compiler 1.0\n")
        compiler.chmod(0o755)
        (self.root / "build/CMakeCache.txt").write_text(f"CMAKE_CXX_COMPILER:FILEPATH={compiler}\n")

    def commit(self):
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgSign=false"]
        for command in (["git", "init", "-q"], ["git", "add", "-A"], [*git, "commit", "-qm", "a"]):
            subprocess.run(command, cwd=self.root / "repository", check=True)

    def run_tool(self, *arguments):
        environment = os.environ | {"LINNET_HISTORY": str(self.root / "history")}
        return subprocess.run([sys.executable, self.tool, *arguments], capture_output=True, text=True,
                              env=environment)

    def record(self, median):
        program = self.root / "build/bin/bench_models"
        program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{json.dumps(report(median))}\nEOF\n")
        program.chmod(0o755)
        return self.run_tool("record", str(self.root / "build"))

    def test_compiling_is_measured(self):
        out = self.root / "compiling.json"
        subprocess.run([TOOLS.parent / "benchmarks/compiling.py", "--rounds", "1", "--compilers", "c++",
                        "--rows", "#include <linnet/inference", "--json", out], check=True,
                       capture_output=True)
        [row] = json.loads(out.read_text())["c++"].values()
        self.assertGreater(row["s"], 0)
        self.assertGreater(row["MB"], 0)
        self.assertGreater(row["lines"], 10_000)

    def test_records_the_median_in_seconds(self):
        self.assertEqual(self.record(8.25).returncode, 0)
        [path] = (self.root / "history").glob("*.json")
        entry = json.loads(path.read_text())
        self.assertEqual(entry["medians"], {"models/encode/128": 0.00825})
        self.assertEqual(entry["date"], "2026-01-02")
        self.assertRegex(entry["commit"], "^[0-9a-f]{12}$")
        self.assertEqual(entry["machine"]["compiler"], "some compiler 1.0")

    def test_plots_records_from_zero_to_the_largest(self):
        self.assertEqual(self.record(8).returncode, 0)
        [path] = (self.root / "history").glob("*.json")
        second = json.loads(path.read_text()) | {"date": "2026-01-03"}
        second["medians"] = {"models/encode/128": 0.002}
        (self.root / "history/second.json").write_text(json.dumps(second))
        self.assertEqual(self.run_tool("page").returncode, 0)
        text = (self.root / "history/index.html").read_text()
        self.assertIn('points="56.0,10.0 376.0,100.0"', text)  # the whole height, then a quarter
        self.assertIn(">8 ms<", text)
        self.assertNotRegex(text, r"https?:|src=|<link|@import")

    def test_says_when_the_page_is_out_of_date(self):
        self.record(8)
        self.assertEqual(self.run_tool("check").returncode, 0)
        page = self.root / "history/index.html"
        page.write_text(re.sub("8 ms", "7 ms", page.read_text()))
        self.assertNotEqual(self.run_tool("check").returncode, 0)

    def test_refuses_what_belongs_to_no_commit(self):
        (self.root / "repository/include/a.hpp").write_text("// changed\n")
        run = self.record(8)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("include/a.hpp", run.stderr)

    def test_refuses_a_build_without_benchmarks(self):
        self.assertNotEqual(self.run_tool("record", str(self.root / "build")).returncode, 0)


if __name__ == "__main__":
    unittest.main()
