#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Keeps what benchmarks measured, and plots it.

    history.py record BUILD [BENCHMARK OPTION...]   runs BUILD/bin/bench_* on an idle machine and adds
                                                    benchmarks/history/DATE-COMMIT-PROCESSOR.json
    history.py page                                 writes benchmarks/history/index.html
    history.py check                                whether that page shows what the files say

Google Benchmark's options choose what runs, such as --benchmark_filter=encode. Without options what
benchmarks/compiling.py measures is added. A record holds the machine, the commit, and the median of
five runs of each benchmark. LINNET_HISTORY names another
folder, for trials: there, a busy machine is not refused.
"""

import html
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("LINNET_HISTORY", ROOT / "benchmarks/history"))
PROGRAMS = ["bench_kernels", "bench_layers", "bench_models"]
REPETITIONS = 5
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
COLOURS = ["#3b6fb6", "#c2562d", "#3d8b4f", "#8a5aa8", "#a8832a", "#4a8f96"]
WIDTH, HEIGHT, LEFT, TOP = 320, 120, 56, 10  # of a chart's plane, and its place


def said(*command, where=ROOT):
    return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout


# --- recording ------------------------------------------------------------------------------------


def record(build, options):
    changed = said("git", "status", "--porcelain", "--", "include", "src", "benchmarks/*.?pp")
    if changed:
        sys.exit(f"history: commit first, as figures belong to a commit:\n{changed}")
    busy = os.getloadavg()[0] / os.cpu_count()
    if busy > 0.3 and "LINNET_HISTORY" not in os.environ:
        sys.exit(f"history: the machine is busy ({busy:.0%} of its processors): figures would say little")
    medians, context = {}, {}
    for program in PROGRAMS:
        if not (build / "bin" / program).exists():
            continue
        report = json.loads(said(build / "bin" / program, "--benchmark_format=json",
                                 f"--benchmark_repetitions={REPETITIONS}",
                                 "--benchmark_report_aggregates_only=true", *options) or "{}")
        context = report.get("context", context)
        medians |= medians_of(program.removeprefix("bench_"), report)
    if medians and not options:
        medians |= of_compiling(build)
    if not medians:
        sys.exit(f"history: no benchmark ran; {build}/bin has to hold one of {', '.join(PROGRAMS)}")
    entry = {
        "date": context["date"][:10],
        "commit": said("git", "rev-parse", "--short=12", "HEAD").strip(),
        "machine": {"processor": processor(), "processors": context["num_cpus"],
                    "compiler": compiler(build)},
        "repetitions": REPETITIONS,
        "medians": medians,  # seconds
    }
    name = "-".join([entry["date"], entry["commit"], re.sub(r"\W+", "_", processor()).strip("_")])
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(entry, indent=1) + "\n")
    print(f"{FOLDER / name}.json: {len(medians)} medians")
    page()


def medians_of(program, report):
    """Seconds by program and benchmark, in three digits: more would only be noise."""
    return {f"{program}/{b['run_name']}": float(f"{b['real_time'] * SECONDS[b['time_unit']]:.3g}")
            for b in report.get("benchmarks", []) if b.get("aggregate_name") == "median"}


def of_compiling(build):
    """Processor seconds of what benchmarks/compiling.py compiles."""
    program = ROOT / "benchmarks/compiling.py"
    if not program.exists():
        return {}
    with tempfile.NamedTemporaryFile() as out:
        said(program, "--compilers", compiler_path(build), "--json", out.name)
        (found,) = json.loads(Path(out.name).read_text()).values()
    return {f"compiling/{name}": row["s"] for name, row in found.items() if row.get("s", 0) > 0}


def processor():
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match[1].strip() if match else os.uname().machine


def compiler_path(build):
    return re.search(r"CMAKE_CXX_COMPILER:\w+=(.*)", (build / "CMakeCache.txt").read_text())[1]


def compiler(build):
    return said(compiler_path(build), "--version").splitlines()[0]


# --- the page -------------------------------------------------------------------------------------


def entries():
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        entry = json.loads(path.read_text())
        if not re.fullmatch(r"[0-9a-f]{7,40}", entry["commit"]) or not entry["medians"] \
                or min(entry["medians"].values()) <= 0:
            sys.exit(f"history: {path.name} has no commit, or a median that is not above 0")
        found.append(entry)
    return sorted(found, key=lambda e: e["date"])


def machine_of(entry):
    machine = entry["machine"]
    return f"{machine['processor']}, {machine['processors']} processors, {machine['compiler']}"


def readable(seconds):
    unit = next((u for u in ("s", "ms", "us") if seconds >= SECONDS[u]), "ns")
    return f"{seconds / SECONDS[unit]:.3g} {unit}"


def chart(name, all_entries, machines):
    """One benchmark: a line for each machine over all records, from zero upwards."""
    most = max(e["medians"][name] for e in all_entries if name in e["medians"])
    step = WIDTH / max(len(all_entries) - 1, 1)
    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" class="plane"/>',
             f'<text x="{LEFT - 6}" y="{TOP + 9}" class="mark">{readable(most)}</text>',
             f'<text x="{LEFT - 6}" y="{TOP + HEIGHT}" class="mark">0</text>']
    for number, machine in enumerate(machines):
        points = [(LEFT + i * step, TOP + HEIGHT * (1 - e["medians"][name] / most), e)
                  for i, e in enumerate(all_entries)
                  if machine_of(e) == machine and name in e["medians"]]
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts.append(f'<polyline points="{line}" stroke="{colour}" fill="none" stroke-width="1.5"/>')
        for x, y, e in points:
            words = html.escape(f"{readable(e['medians'][name])}, {e['date']}, {e['commit']}")
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">'
                         f"<title>{words}</title></circle>")
    size = f'width="{LEFT + WIDTH + 10}" height="{TOP + HEIGHT + 10}"'
    return (f"<figure><figcaption>{html.escape(name)}</figcaption>"
            f'<svg {size} role="img">{"".join(parts)}</svg></figure>')


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>linnet: benchmarks over time</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }}
body {{ max-width: 1250px; margin: 2rem auto; padding: 0 1rem; }}
main {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; }}
figcaption {{ font: 13px ui-monospace, monospace; }}
.plane {{ fill: none; stroke: currentColor; stroke-opacity: .25; }}
.mark {{ font-size: 11px; text-anchor: end; fill: currentColor; }}
.key {{ display: inline-block; width: 1em; height: .6em; margin-right: .5em; }}
</style>
<h1>Benchmarks over time</h1>
<p>{summary}</p>
<ul style="list-style: none; padding: 0">{legend}</ul>
<main>{charts}</main>
</html>
"""


def written():
    all_entries = entries()
    machines = sorted({machine_of(e) for e in all_entries})
    names = sorted({name for e in all_entries for name in e["medians"]})
    summary = (f"Medians of {len(all_entries)} records, the oldest at the left. Lower is faster. "
               "A point's commit is shown under the pointer." if all_entries else
               "Nothing has been recorded so far: see tools/history.py.")
    legend = "".join(f'<li><span class="key" style="background: {COLOURS[i % len(COLOURS)]}"></span>'
                     f"{html.escape(m)}</li>" for i, m in enumerate(machines))
    charts = "\n".join(chart(name, all_entries, machines) for name in names)
    return PAGE.format(summary=summary, legend=legend, charts=charts)


def page():
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "index.html").write_text(written())
    print(f"{FOLDER / 'index.html'}: {len(entries())} records")


def main(arguments):
    match arguments:
        case ["record", build, *options]:
            record(Path(build).resolve(), options)
        case ["page"]:
            page()
        case ["check"]:
            if (FOLDER / "index.html").read_text() != written():
                sys.exit("benchmarks/history/index.html is out of date: run tools/history.py page")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
