# SPDX-License-Identifier: MIT
"""The report of a comparison: one HTML page without anything from outside, and lines of text."""

from html import escape

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --card: #fff; --ink: #1d2129; --soft: #5d6572;
  --faint: #8a919d; --line: #e4e3df; --grid: #eeede9; --accent: #b3432b; --linnet: #cf4a2c;
  --limit: #a9adb5; --pytorch: #3667c4; --pytorch-compile: #6d8fd8; --ctranslate2: #2b8a83;
  --onnxruntime: #8a55c7; --openvino: #4b6a9b; --linnet-map: #e07a5f;
  --llama-cpp-flash: #d09a3e; --ik_llama-cpp: #7a8b1f; --ik_llama-cpp-flash: #98a83f; --llama-cpp: #b7791f; --llama2-c: #5b8c2a; --good: #2f7d3b; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1c1f25; --ink: #e8e9ec;
  --soft: #a8afba; --faint: #7d8591; --line: #2d323a; --grid: #272b32; --accent: #ff8f70;
  --linnet: #ff7f5c; --limit: #596170; --pytorch: #7fa6f5; --pytorch-compile: #5779bd;
  --ctranslate2: #5cc4bb; --onnxruntime: #bd96f0; --llama-cpp: #e2ad55; --llama2-c: #9dcb63;
  --good: #7fd08c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 24px 72px; }
p.brand { margin: 0 0 10px; font-size: 14px; font-weight: 650; letter-spacing: .08em;
  color: var(--accent); }
h1 { margin: 0 0 14px; font-size: clamp(28px, 4.4vw, 42px); line-height: 1.12;
  letter-spacing: -.022em; font-weight: 720; }
h2 { margin: 0 0 4px; font-size: 19px; letter-spacing: -.01em; font-weight: 660; }
p.lead { max-width: 76ch; margin: 0; font-size: 17px; color: var(--soft); }
p.about, footer { margin: 0 0 14px; font-size: 14px; color: var(--soft); max-width: 92ch; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 22px 24px 20px; margin-top: 18px; min-width: 0; }
.pair { display: grid; gap: 22px;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
.pair h3 { margin: 8px 0 4px; font-size: 14px; font-weight: 600; color: var(--soft); }
.scroll { overflow-x: auto; }
svg { display: block; width: 100%; max-width: 570px; height: auto; font-family: inherit; }
svg text { fill: var(--ink); font-size: 12.5px; }
svg .tick { fill: var(--soft); font-size: 12px; }
svg .value { font-variant-numeric: tabular-nums; font-weight: 600; }
svg .grid { stroke: var(--grid); } svg rect { fill: var(--c); } svg .own { font-weight: 680; }
svg rect.limit { opacity: .55; }
table { width: 100%; border-collapse: collapse; font-size: 14.5px; min-width: 640px;
  font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 560; font-size: 13px; color: var(--soft);
  padding: 6px 10px 8px; border-bottom: 1px solid var(--faint); vertical-align: bottom; }
td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.met { color: var(--good); font-weight: 640; } .unmet { color: var(--accent); font-weight: 640; }
td.words { text-align: left; white-space: normal; color: var(--soft); }
details summary { cursor: pointer; font-size: 14px; color: var(--soft); margin-top: 10px; }
footer { margin-top: 26px; }
"""
def css(peer):
    return peer.replace(".", "-")


def time(ms):
    return f"{1000 * ms:.3g} µs" if ms < 0.1 else f"{ms:,.0f} ms" if ms >= 1000 else f"{ms:.3g} ms"


def threads_text(n):
    return f"{n} thread" + ("" if n == 1 else "s")


def name(row):
    return f"{'machine limit' if row['peer'] == 'limit' else row['peer']} {row['type']}"


def bars(sides):
    """A horizontal bar per side, the fastest first."""
    rows = sorted(sides, key=lambda r: r["ms"])
    if not rows:
        return '<p class="about">No side could be measured.</p>'
    left, width, height = 165, 330, 22
    top = max(r["ms"] for r in rows)
    out = [f'<svg viewBox="0 0 {left + width + 75} {height * len(rows) + 4}" role="img">']
    for i, r in enumerate(rows):
        y, length = i * height, max(1.0, width * r["ms"] / top)
        own = " own" if r["peer"] == "linnet" else ""
        limit = ' class="limit"' if r["peer"] == "limit" else ""
        out.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end" class="{own.strip()}">'
                   f'{escape(name(r))}</text>'
                   f'<g style="--c: var(--{css(r["peer"])})"><rect{limit} x="{left}" y="{y + 3}" '
                   f'width="{length:.1f}" height="{height - 7}" rx="2"/></g>'
                   f'<text x="{left + length + 6:.1f}" y="{y + 15}" class="value">'
                   f'{escape(time(r["ms"]))}</text>')  # fmt: skip
    return "\n".join(out) + "</svg>"


def table(head, rows):
    body = "".join("<tr>" + "".join(cells) + "</tr>" for cells in rows)
    return ('<div class="scroll"><table><thead><tr>' + "".join(f"<th>{h}</th>" for h in head)
            + f"</tr></thead><tbody>{body}</tbody></table></div>")  # fmt: skip


def cell(text, kind=""):
    return f'<td class="{kind}">{escape(str(text))}</td>'


def ratio(goal):
    limit = goal["peer"].startswith("limit")
    show = (lambda x: f"{100 * x:.0f}%") if limit else (lambda x: f"{x:.3g}×")
    wanted = show(goal["wanted"]) + (f" or {100 * goal['instead']:.0f}%" if "instead" in goal else "")
    if goal["reached"] is None:
        return wanted, "not measured", "unmet"
    return wanted, show(goal["reached"]), "met" if goal["met"] else "unmet"


def goals_table(found):
    rows = []
    for g in found["goals"]:
        wanted, reached, kind = ratio(g)
        part = f"{100 * g['of_limit']:.0f}%" if "of_limit" in g else ""
        rows.append([cell(f"{g['work']}, {threads_text(g['threads'])}"),
                     cell(g.get("type", g["types"][0])), cell(g["peer"]), cell(wanted),
                     cell(reached, kind), cell(part)])  # fmt: skip
    return table(["work", "linnet in", "against", "wanted", "reached", "of the machine's limit"], rows)


def details(measured):
    rows = []
    for r in sorted(measured["sides"], key=lambda r: r["ms"]):
        rows.append([cell(name(r)), cell(time(r["ms"])), cell(time(r["ms_min"])),
                     cell(time(r["cpu_ms"])), cell(r["runs"]),
                     cell(r.get("agreement") or "", "words")])  # fmt: skip
    for m in measured["missing"]:
        rows.append([cell(name(m)), *[cell("")] * 4, cell(f"missing: {m['reason']}", "words")])
    return ("<details><summary>All figures</summary>"
            + table(["side", "median", "least", "processors", "runs", "check"], rows)
            + "</details>")  # fmt: skip


def page(found):
    """The whole report."""
    works = {}
    for w in found["works"]:
        works.setdefault(w["title"], []).append(w)
    met = [g for g in found["goals"] if g.get("met")]
    versions = ", ".join(f"{k} {v}" for k, v in found.get("versions", {}).items())
    html = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>linnet: beside its peers</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
        '<header><p class="brand">linnet</p><h1>The same work, side by side</h1>'
        f'<p class="lead">On {escape(found["cpu"])} ({found["cores"]} processors), '
        f'{escape(found["date"])}. All sides of a work run by turns on the same pinned processors, '
        f'{found["rounds"]} turns of {found["seconds"]:g} s each; bars are medians, shorter is '
        f'better. {len(met)} of {len(found["goals"])} goals are met.</p></header>',
    ]
    if found["goals"]:
        html.append("<section><h2>Goals</h2><p class=\"about\">How many times faster than the other "
                    "side linnet wants to be, or how near to the machine's limit.</p>"
                    + goals_table(found) + "</section>")  # fmt: skip
    for title, parts in works.items():
        html.append(f'<section><h2>{escape(title)}</h2><p class="about">Per {parts[0]["unit"]}.</p>'
                    '<div class="pair">')  # fmt: skip
        for part in parts:
            html.append(f"<div><h3>{threads_text(part['threads'])}</h3>{bars(part['sides'])}"
                        f"{details(part)}</div>")
        html.append("</div></section>")
    html.append(
        "<footer><p>The machine's limit is the longer of two times: computing the work's products "
        "at the highest measured rate of multiply-adds, and reading its weights once per pass at "
        "the bandwidth measured for a working set of that size. Checks compare greedy tokens with "
        "PyTorch's in f32, which 8-bit and 16-bit types cannot all share. linnet's types name the "
        "storage of weights, and behind + what activations are rounded to.</p>"
        f"<p>Versions: {escape(versions)}. Load of the machine before: {found['load_before']:.2f}."
        "</p></footer>\n</main>\n</body>\n</html>\n")  # fmt: skip
    return "\n".join(html)


def per_unit(ms, rate):
    """Time of a unit, or how many of what it has go into a second."""
    return f"{1000 * rate[0] / ms:,.0f} {rate[1]}" if rate else time(ms)


def markdown(found):
    """A table of every work, and one of the goals."""
    works = {}
    for w in found["works"]:
        works.setdefault(w["title"], []).append(w)
    lines = []
    for title, parts in works.items():
        memory = any("memory" in r for r in parts[0]["sides"])
        head = [title]
        for part in parts:
            head += [threads_text(part["threads"]), "of the limit"] if not memory else \
                    [threads_text(part["threads"]), "memory of its own", "pages of the file"]
        lines += ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
        keys = []
        for part in parts:
            for r in sorted(part["sides"], key=lambda r: r["ms"]):
                if (key := (r["peer"], r["type"])) not in keys:
                    keys.append(key)
        for key in keys:
            cells = [name({"peer": key[0], "type": key[1]})]
            for part in parts:
                sides = {(r["peer"], r["type"]): r for r in part["sides"]}
                r = sides.get(key)
                kind = key[1] if key[0].startswith("linnet") else None
                limit = sides.get(("limit", kind)) or sides.get(("limit", (kind or "").split("+")[0]))
                cells.append(per_unit(r["ms"], part["rate"]) if r else "")
                if memory:
                    cells += [f"{r['memory'][k]:.0f} MB" for k in ("own", "files")]
                else:
                    cells.append(f"{100 * limit['ms'] / r['ms']:.0f}%" if r and limit else "")
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    if found["goals"]:
        lines += ["| Work | linnet in | against | wanted | reached | of the limit |",
                  "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for g in found["goals"]:
        wanted, reached, _ = ratio(g)
        part = f"{100 * g['of_limit']:.0f}%" if "of_limit" in g else ""
        lines.append(f"| {g['work']}, {threads_text(g['threads'])} | {g.get('type', g['types'][0])} "
                     f"| {g['peer']} | {wanted} | {reached} | {part} |")  # fmt: skip
    for w in found["works"]:
        for m in w["missing"]:
            lines.append(f"\nMissing in {w['title']}, {threads_text(w['threads'])}: {name(m)}, "
                         f"{m['reason']}")  # fmt: skip
    return "\n".join(lines) + "\n"


def text(measured):
    """One work at one number of threads, as lines."""
    lines = [f"{measured['title']}, {threads_text(measured['threads'])}, per {measured['unit']}:"]
    for r in sorted(measured["sides"], key=lambda r: r["ms"]):
        lines.append(f"  {name(r):26}{time(r['ms']):>10}   least {time(r['ms_min']):>8}   "
                     f"processors {time(r['cpu_ms']):>8}   {r['runs']:5} runs   "
                     f"{r.get('agreement') or ''}")  # fmt: skip
    return "\n".join(lines)


def goals_text(found):
    """The table of goals, as lines."""
    lines = ["goals:"]
    for g in found["goals"]:
        wanted, reached, kind = ratio(g)
        part = f"  ({100 * g['of_limit']:.0f}% of the limit)" if "of_limit" in g else ""
        lines.append(f"  {'met  ' if kind == 'met' else 'UNMET'} {g['work']}, "
                     f"{threads_text(g['threads'])}: {g.get('type', g['types'][0])} against "
                     f"{g['peer']}: wanted {wanted}, reached {reached}{part}")  # fmt: skip
    return "\n".join(lines)
