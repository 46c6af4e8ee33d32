#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares linnet with other programs on the same works, side by side.

All sides of a work are started, pinned to the same processors, and asked by turns, again and again,
to run for a moment; so what disturbs the machine disturbs all of them. Writes one JSON file, one
HTML report and tables in Markdown. Peers come from PyPI into an environment of their own; what cannot be had is named.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
from sides import ROOT, Missing, Sides, reason
from works import WORKS

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "linnet"
START_SECONDS = 900  # that a side may take to load; torch.compile is slow


class Progress:
    """A bar with the time left, on standard error."""

    def __init__(self):
        self.terminal, self.start, self.part, self.what = sys.stderr.isatty(), time.time(), 0.0, ""
        self.printed = 0.0

    def show(self, part, what, now=False):
        self.part, self.what = part, what
        spent = time.time() - self.start
        left = f"{spent * (1 - part) / part / 60:.0f} min left" if part > 0.01 else ""
        if self.terminal:
            full = int(30 * part)
            columns = shutil.get_terminal_size().columns - 1
            line = f"[{'=' * full}{' ' * (30 - full)}] {100 * part:3.0f}%  {left:12}  {what}"
            print("\r\033[K" + line[:columns], end="", file=sys.stderr, flush=True)
        elif now or time.time() - self.printed > 15:
            self.printed = time.time()
            print(f"{100 * part:3.0f}%  {left}  {what}", file=sys.stderr, flush=True)

    def say(self, text):
        self.show(self.part, text, now=True)

    def note(self, text):
        """A line that stays."""
        print(("\r\033[K" if self.terminal else "") + text, file=sys.stderr, flush=True)


class Side:
    """A running side."""

    def __init__(self, peer, type, command, processors, threads):
        self.peer, self.type, self.turns = peer, type, []
        self.errors = tempfile.TemporaryFile("w+")
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        self.process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, processors)), *command], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=environment)
        try:
            self.said = self.answer()
        except Missing:
            self.stop()
            raise

    def answer(self):
        line = self.process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            self.process.wait()
            self.errors.seek(0)
            raise Missing(reason(self.errors.read() or line)) from None

    def turn(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        self.turns.append(self.answer())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def result(self, work):
        """Medians over all runs, per unit of the work."""
        ms = [x / work.per_run for turn in self.turns for x in turn["ms"]]
        cpu = [x / work.per_run for turn in self.turns for x in turn["cpu_ms"]]
        limits = {key: max(turn[key] for turn in self.turns)
                  for key in ("gflops", "read_gbs") if key in self.turns[0]}  # fmt: skip
        found = {"peer": self.peer, "type": self.type, "ms": statistics.median(ms),
                 "ms_min": min(ms), "cpu_ms": statistics.median(cpu), "runs": len(ms),
                 "check": self.said["check"], "agreement": self.said.get("agreement"),
                 **limits}  # fmt: skip
        if "memory" in self.said:
            found["memory"] = self.said["memory"]
        return found


def processors(threads):
    """One processor of each of the first cores that this process may use."""
    chosen, seen = [], set()
    for cpu in sorted(os.sched_getaffinity(0)):
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = path.read_text().strip() if path.exists() else str(cpu)
        if core not in seen:
            seen.add(core)
            chosen.append(cpu)
    return chosen[:threads]


def agreement(work, results):
    """How each side's check compares with that of PyTorch in f32, or else of linnet."""
    found = {(r["peer"], r["type"]): r["check"] for r in results}
    wanted = [found[k] for k in (("pytorch", "f32"), ("linnet", "f32")) if k in found]
    for r in results:
        if not r["check"] or not wanted:
            continue
        if work.work == "embed":
            error = max(abs(a - b) for a, b in zip(r["check"], wanted[0]))
            r["agreement"] = f"vectors differ by {error:.0e}"
        elif work.work == "train":
            r["agreement"] = f"loss {r['check'][0]:.5f}, reference {wanted[0][0]:.5f}"
        else:
            pairs = list(zip(r["check"], wanted[0]))
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            r["agreement"] = f"first {same} of {len(pairs)} tokens equal"


def compare(work, threads, sides, options, progress, share):
    """All sides of one work; share(part) is how much of everything is done then."""
    running, missing, cost = [], [], {}
    for peer, type in work.sides:
        if options.peers and peer not in options.peers:
            continue
        try:
            progress.show(share(0), f"{work.title}, {threads} thread(s): starting {peer} {type}")
            command = sides.command(work, threads, peer, type, cost)
            side = Side(peer, type, command, processors(threads), threads)
        except Missing as why:
            missing.append({"peer": peer, "type": type, "reason": str(why)})
            progress.note(f"  {work.title}: no {peer} {type}: {why}")
            continue
        if peer == "linnet":
            cost[type] = side.said
        running.append(side)
    for round in range(options.rounds):
        for i, side in enumerate(list(running if round % 2 == 0 else reversed(running))):
            progress.show(share((round + i / len(running)) / options.rounds),
                          f"{work.title}, {threads} thread(s): {side.peer} {side.type}")
            try:
                side.turn(options.seconds)
            except (Missing, BrokenPipeError) as why:
                missing.append({"peer": side.peer, "type": side.type, "reason": str(why)})
                running.remove(side)
            time.sleep(0.05)  # threads of the last one go to sleep
    for side in running:
        side.stop()
    results = [side.result(work) for side in running]
    agreement(work, results)
    return {"threads": threads, "sides": results, "missing": missing, "cost": cost}


def goals(work, measured):
    """The goals of one work at one number of threads, and what was reached."""
    ms = {(r["peer"], r["type"]): r["ms"] for r in measured["sides"]}
    for goal in work.goals:
        if measured["threads"] not in goal.threads:
            continue
        ours = [(ms["linnet", t], t) for t in goal.types if ("linnet", t) in ms]
        peers = goal.peer if isinstance(goal.peer[0], tuple) else (goal.peer,)
        peer = min((p for p in peers if p in ms), key=ms.get, default=peers[0])
        row = {"work": work.title, "threads": measured["threads"], "types": goal.types,
               "peer": " ".join(peer), "wanted": goal.ratio, "reached": None}
        if ours and peer in ms:
            best, row["type"] = min(ours)
            row["reached"] = ms[peer] / best
            row["met"] = row["reached"] >= goal.ratio
            limit = ms.get(("limit", row["type"]), ms.get(("limit", goal.types[-1].split("+")[0])))
            if limit:
                row["of_limit"] = limit / best
                if goal.instead:
                    row["instead"] = goal.instead
                    row["met"] = row["met"] or row["of_limit"] >= goal.instead
        yield row


def cpu_name():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor()


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", metavar="NAME", action="append", default=[],
                   help="works whose name begins so: " + ", ".join(w.name for w in WORKS))
    p.add_argument("--peers", metavar="LIST", help="only these sides, such as linnet,ctranslate2")
    p.add_argument("--threads", metavar="LIST", default="1,2", help="default: 1,2")
    p.add_argument("--rounds", type=int, help="turns of each side (default: 9; quick: 3)")
    p.add_argument("--seconds", type=float, help="of each turn (default: 0.5; quick: 0.2)")
    p.add_argument("--quick", action="store_true", help="few, short turns")
    p.add_argument("--out", default=str(ROOT / "build" / "compare"),
                   help="writes OUT.json, OUT.html and OUT.md (default: %(default)s)")
    p.add_argument("--venv", default=str(CACHE / "peers"), help="Python environment of the peers")
    p.add_argument("--cache", default=str(CACHE / "compare"), help="models and programs")
    p.add_argument("--data", default=os.environ.get("LINNET_DATA"), help="folder of stories260K")
    p.add_argument("--compiler", default=os.environ.get("CXX", "c++"), help="for linnet")
    o = p.parse_args()
    o.rounds = o.rounds or (3 if o.quick else 9)
    o.seconds = o.seconds or (0.2 if o.quick else 0.5)
    if o.rounds < 1 or o.seconds < 0:
        p.error("--rounds: at least 1 turn; --seconds: not below 0")
    o.peers = o.peers.split(",") if o.peers else []
    for name in o.only:
        if not any(w.name.startswith(name) for w in WORKS):
            p.error(f"--only: no work begins with '{name}': {', '.join(w.name for w in WORKS)}")
    try:
        o.threads = [int(t) for t in o.threads.split(",")]
    except ValueError:
        p.error(f"--threads: '{o.threads}' is not a list of numbers such as 1,2")
    cores = len(processors(10**6))
    if not all(1 <= t <= cores for t in o.threads):
        p.error(f"--threads: {o.threads} are not numbers from 1 to {cores}, the cores at hand")
    return o


def main():
    options, progress = parse(), Progress()
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    sides = Sides(options.cache, options.venv, options.data, options.compiler, progress.say)
    chosen = [(w, t) for w in WORKS for t in options.threads if t in w.threads
              and (not options.only or any(w.name.startswith(n) for n in options.only))]
    found = {"date": datetime.datetime.now().isoformat(timespec="seconds"), "cpu": cpu_name(),
             "cores": os.cpu_count(), "load_before": os.getloadavg()[0],
             "rounds": options.rounds, "seconds": options.seconds, "works": [], "goals": []}
    for i, (work, threads) in enumerate(chosen):
        measured = compare(work, threads, sides, options, progress,
                           lambda part, i=i: (i + part) / len(chosen))
        found["works"].append({"name": work.name, "title": work.title, "unit": work.unit,
                               "rate": work.rate, **measured})
        found["goals"] += goals(work, measured)
        found["versions"] = json.loads(sides.versions())
        Path(options.out + ".json").write_text(json.dumps(found, indent=1))
        Path(options.out + ".html").write_text(report.page(found))
        Path(options.out + ".md").write_text(report.markdown(found))
        progress.note(report.text(found["works"][-1]))
    progress.note(report.goals_text(found))
    print(report.markdown(found))
    progress.note(f"written: {options.out}.json, {options.out}.html, {options.out}.md")


if __name__ == "__main__":
    main()
