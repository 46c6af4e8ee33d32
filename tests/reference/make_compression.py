#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/compression/*.txt: tiny matrices, the moments of their inputs, and the codes and
scales that GPTQ (Frantar et al. 2022), HQQ (Badri and Shaji 2023) and AWQ's search of clipped
ranges (Lin et al. 2023) give them.

Written from the papers' formulas with numpy alone, in double precision: GPTQ column by column with
the inverse of H and its Cholesky factor, without blocks. Scales are rounded to f32, as linnet
stores them. A file holds lines `name rows columns` and as many numbers.
"""

from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "golden" / "compression"
F32 = np.float32


def fit(w, most, centred):
    """Scale and zero point of the numbers w, by the largest magnitude or the range."""
    low, high = min(w.min(), 0), max(w.max(), 0)
    span = high - low if centred else max(-low, high)
    scale = float(F32(span / most)) or 1.0
    return scale, float(np.clip(np.rint(-low / scale), 0, most)) if centred else 0.0


def nearest(w, scale, zero, most, centred):
    return np.clip(np.rint(w / scale) + zero, 0 if centred else -most, most)


def fit_clipped(w, h, most, centred, steps=20, least=.5):
    """Of the ranges that AWQ tries, the one with the least error by this block of H."""
    best = None
    for i in range(steps):
        if 1 - i / steps < least:
            break
        scale, zero = fit(w * (1 - i / steps), most, centred)
        off = w - scale * (nearest(w, scale, zero, most, centred) - zero)
        error = off @ h @ off
        if best is None or error < best[0]:
            best = error, scale, zero
    return best[1:]


def clip_search(w, x, most, centred, group):
    rows, k = w.shape
    w, h = w.astype(float), x.T @ x
    codes, grids = np.zeros((rows, k)), []
    for r in range(rows):
        for first in range(0, k, group):
            part = slice(first, min(k, first + group))
            scale, zero = fit_clipped(w[r, part], h[part, part], most, centred)
            codes[r, part] = nearest(w[r, part], scale, zero, most, centred)
            grids.append((scale, zero))
    grids = np.reshape(grids, (rows, -1, 2))
    return codes, grids[:, :, 0], grids[:, :, 1]


def gptq(w, x, most, centred, group, act_order, damp, clip=False):
    rows, k = w.shape
    group = group or k
    w = w.astype(float).copy()
    h = 2 / len(x) * x.T @ x
    raw = h.copy()
    dead = np.diag(h) == 0
    h[dead, dead] = 1  # linnet rounds dead inputs to nearest; the paper's code sets their weights to 0
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(k)
    ahead = act_order or group == k
    grids = {}
    if ahead:
        for g in range(0, k, group):
            for r in range(rows):
                part = slice(g, min(k, g + group))
                grids[r, g // group] = (fit_clipped(w[r, part], raw[part, part], most, centred) if clip
                                        else fit(w[r, part], most, centred))
    h = h[np.ix_(order, order)] + damp * np.mean(np.diag(h)) * np.eye(k)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    v, codes = w[:, order], np.zeros((rows, k))
    for i in range(k):
        j = order[i]
        if not ahead and i % group == 0:
            for r in range(rows):
                part = slice(i, min(k, i + group))
                grids[r, i // group] = (fit_clipped(v[r, part], raw[part, part], most, centred) if clip
                                        else fit(v[r, part], most, centred))
        for r in range(rows):
            scale, zero = grids[r, j // group]
            codes[r, j] = nearest(v[r, i], scale, zero, most, centred)
            error = (v[r, i] - scale * (codes[r, j] - zero)) / upper[i, i]
            v[r, i + 1:] -= error * upper[i, i + 1:]
    groups = (k + group - 1) // group
    scales = np.array([[grids[r, g][0] for g in range(groups)] for r in range(rows)])
    zeros = np.array([[grids[r, g][1] for g in range(groups)] for r in range(rows)])
    return codes, scales, zeros


def hqq(w, most, group, norm=0.7, beta=10.0, kappa=1.01, iterations=20):
    """Each group by itself, with the best zero point that it had."""
    rows, k = w.shape
    codes, scales, zeros = np.zeros((rows, k)), [], []
    for r in range(rows):
        for first in range(0, k, group):
            x = w[r, first:first + group].astype(float)
            scale, zero = fit(x, most, True)
            q, b = nearest(x, scale, zero, most, True), beta
            least = np.sum(np.abs(x - scale * (q - zero)))
            for _ in range(iterations):
                e = x - scale * (q - zero)
                size = np.abs(e)
                with np.errstate(divide="ignore"):
                    kept = np.where(size > 0, np.maximum(0, size - size ** (norm - 1) / b), 0)
                moved = float(F32(np.mean(q - (x - np.sign(e) * kept) / scale)))
                p = np.clip(np.rint(x / scale + moved), 0, most)
                error = np.sum(np.abs(x - scale * (p - moved)))
                if not error < least:
                    break
                q, zero, least, b = p, moved, error, b * kappa
            codes[r, first:first + group] = q
            scales.append(scale)
            zeros.append(zero)
    shape = (rows, -1)
    return codes, np.reshape(scales, shape), np.reshape(zeros, shape)


def ternary(w):
    """BitNet b1.58 (Ma et al. 2024): one scale, the mean magnitude."""
    scale = float(F32(max(1e-5, np.mean(np.abs(w.astype(float))))))
    return np.clip(np.rint(w / scale), -1, 1) + 0, np.full((len(w), 1), scale)


def write(name, **tensors):
    lines = []
    for tensor, x in tensors.items():
        lines.append(f"{tensor} {x.shape[0]} {x.shape[1]}")
        lines += [" ".join(repr(float(v)) for v in row) for row in x]
    (OUT / f"{name}.txt").write_text("\n".join(lines) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(2026)
    rows, k, tokens = 6, 28, 96
    x = (random.normal(size=(tokens, k)) @ random.normal(size=(k, k)) * random.uniform(.2, 3, k)).astype(F32)
    x[:, 5] = 0  # never active
    x[:, 17] *= 20  # an outlier
    x = x.astype(float)
    w = random.normal(size=(rows, k)).astype(F32)
    write("inputs", weights=w, moments=x.T @ x, rows=np.array([[tokens]]))
    for name, most, centred, group in [("int4", 7, False, 8), ("int8", 127, False, 0),
                                       ("int8_group_asymmetric", 255, True, 16)]:
        for act_order in [False, True]:
            codes, scales, zeros = gptq(w, x, most, centred, group, act_order, .01)
            write(f"gptq_{name}" + ("_act_order" if act_order else ""), codes=codes, scales=scales, zeros=zeros)
    for act_order in [False, True]:
        codes, scales, zeros = gptq(w, x, 7, False, 8, act_order, .01, clip=True)
        write("gptq_clip_int4" + ("_act_order" if act_order else ""), codes=codes, scales=scales, zeros=zeros)
    for name, most, centred, group in [("int4", 7, False, 8), ("int8_group_asymmetric", 255, True, 16)]:
        codes, scales, zeros = clip_search(w, x, most, centred, group)
        write(f"clip_search_{name}", codes=codes, scales=scales, zeros=zeros)
    codes, scales = ternary(w)
    write("ternary", codes=codes, scales=scales)
    w = (np.sign(w) * np.abs(w) ** 3).astype(F32)  # more large ones
    codes, scales, zeros = hqq(w, 255, 16)
    write("hqq_int8_group_asymmetric", weights=w, codes=codes, scales=scales, zeros=zeros)


main()
