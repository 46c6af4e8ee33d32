#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/compression/*.txt: tiny matrices, the moments of their inputs, and the codes and
scales that GPTQ (Frantar et al. 2022), HQQ (Badri and Shaji 2023), AWQ with its search of
clipped ranges (Lin et al. 2023) and OWQ (Lee et al. 2023) give them;
also what LoRC (Yao et al. 2023) adds, and what magnitude pruning, Wanda (Sun et al. 2023) and
SparseGPT (Frantar and Alistarh 2023) leave.

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


def awq(ws, x, most, centred, group, ratios=20):
    """Scales of the inputs x of the matrices ws, and the codes and scales of each (Lin et al. 2023)."""
    h, a = x.T @ x, np.mean(np.abs(x), axis=0)
    k = x.shape[1]
    best = None
    for i in range(ratios):
        s = np.maximum(a ** (i / ratios), 1e-4)
        s /= np.sqrt(s.max() * s.min())
        error = 0
        for w in ws:
            scaled = (w.astype(float) * s).astype(F32).astype(float)
            for r in range(len(w)):
                for first in range(0, k, group):
                    part = slice(first, min(k, first + group))
                    scale, zero = fit(scaled[r, part], most, centred)
                    scaled[r, part] = scale * (nearest(scaled[r, part], scale, zero, most, centred) - zero)
            off = scaled / s - w
            error += np.sum((off @ h) * off)
        if best is None or error < best[0]:
            best = error, s, i
    s = best[1]
    print("awq: ratio", best[2], "of", ratios)
    return s, [clip_search((w.astype(float) * s).astype(F32), x / s, most, centred, group) for w in ws]
def fit_truncated(w, most, centred, steps):
    """OWQ's search: 1/steps, 2/steps, ... of the range, every zero point, |error|^2.4."""
    low, high = min(w.min(), 0), max(w.max(), 0)
    span = high - low if centred else max(-low, high)
    best = None
    for i in range(1, steps + 1):
        scale = float(F32(span * i / steps / most))
        for zero in range(most + 1 if centred else 1):
            error = np.sum(np.abs(w - scale * (nearest(w, scale, zero, most, centred) - zero)) ** 2.4)
            if best is None or error < best[0]:
                best = error, scale, float(zero)
    return best[1:]


def owq(w, x, most, centred, group, act_order, damp, kept):
    """By the definition: groups of current weights, kept inputs at the end of the loop."""
    rows, k = w.shape
    steps = 40 if group else 100
    group = group or k
    w = w.astype(float)
    h = 2 / len(x) * x.T @ x
    costs = np.zeros(k)
    for r in range(rows):
        for g in range(0, k, group):
            part = slice(g, min(k, g + group))
            scale, zero = fit_truncated(w[r, part], most, centred, 40)
            costs[part] += (w[r, part] - scale * (nearest(w[r, part], scale, zero, most, centred) - zero)) ** 2
    weak = sorted(np.argsort(-np.diag(h) * costs, kind="stable")[:kept])
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(k)
    order = np.array([j for j in order if j not in weak] + weak)
    h = h[np.ix_(order, order)] + damp * np.mean(np.diag(h)) * np.eye(k)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    v, codes, grids = w[:, order], np.zeros((rows, k)), {}
    for r in range(rows):
        if act_order or group == k:
            for g in range(0, k, group):
                members = [j for j in range(g, min(k, g + group)) if j not in weak]
                grids[r, g // group] = fit_truncated(w[r, members], most, centred, steps)
        for i in range(k - kept):
            g = order[i] // group
            if (r, g) not in grids:
                members = [a for a in range(k - kept) if order[a] // group == g]
                grids[r, g] = fit_truncated(v[r, members], most, centred, steps)
            scale, zero = grids[r, g]
            codes[r, order[i]] = nearest(v[r, i], scale, zero, most, centred)
            error = (v[r, i] - scale * (codes[r, order[i]] - zero)) / upper[i, i]
            v[r, i + 1:] -= error * upper[i, i + 1:]
        for j in weak:
            codes[r, j] = grids[r, j // group][1]
    groups = (k + group - 1) // group
    grids = np.array([[grids[r, g] for g in range(groups)] for r in range(rows)])
    return codes, grids[:, :, 0], grids[:, :, 1], v[:, k - kept:].astype(F32), np.array([weak])


def lorc(w, most, group, rank):
    """What rounding to nearest loses, by its largest singular values."""
    lost = w.astype(float)
    for r in range(w.shape[0]):
        for first in range(0, w.shape[1], group):
            part = slice(first, first + group)
            scale, _ = fit(w[r, part], most, False)
            lost[r, part] -= scale * nearest(w[r, part], scale, 0, most, False)
    u, s, v = np.linalg.svd(lost, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank], np.array([[np.sum(s[rank:] ** 2)]])


NF4 = np.array([-1, -.6961928, -.52507305, -.39491749, -.28444138, -.18477343, -.09105004, 0, .0795803,
                .1609302, .2461123, .33791524, .44070983, .562617, .72295684, 1], dtype=F32).astype(float)


def nf4_double(w, group):
    """QLoRA's scales: 8 bits around their mean; codes for the rounded scales."""
    rows, k = w.shape
    w = w.astype(float)
    scales = np.array([[F32(np.abs(w[r, g:g + group]).max()) for g in range(0, k, group)] for r in range(rows)])
    mean = float(F32(np.mean(scales.astype(float))))
    step = float(F32(np.max(np.abs(scales - mean)) / 127))
    codes = np.clip(np.rint((scales - mean) / step), -127, 127)
    scales = (mean + step * codes).astype(F32).astype(float)
    near = np.abs(w[:, :, None] / np.repeat(scales, group, axis=1)[:, :k, None] - NF4)
    return np.argmin(near, axis=2), codes, np.array([[step]]), np.array([[mean]])


def ternary(w):
    """BitNet b1.58 (Ma et al. 2024): one scale, the mean magnitude."""
    scale = float(F32(max(1e-5, np.mean(np.abs(w.astype(float))))))
    return np.clip(np.rint(w / scale), -1, 1) + 0, np.full((len(w), 1), scale)


def fit_real(w, most, round_to=F32):
    """Scale and real zero point of the numbers w, whether 0 is among them or not."""
    low, high = float(w.min()), float(w.max())
    if low == high:
        return (1.0, 0.0) if low == 0 else (float(round_to(abs(low))), 0.0 if low > 0 else 1.0)
    scale = (high - low) / most
    return float(round_to(scale)), float(round_to(-low / scale))


def second_level(v):
    """Numbers of up to 16 rows in 3 bits, with a scale and a zero point in half precision."""
    scale, zero = fit_real(v, 7, np.float16)
    code = np.clip(np.rint(v / scale + zero), 0, 7)
    return (F32(scale) * (code.astype(F32) - F32(zero))).astype(float)


def spqr(w, x, bits, act_order, damp, tau):
    rows, k = w.shape
    group, most = 16, 2 ** bits - 1
    w = w.astype(float)
    h = 2 / len(x) * x.T @ x
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(k)
    h = h[np.ix_(order, order)] + damp * np.mean(np.diag(h)) * np.eye(k)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    pivot = np.empty(k)
    pivot[order] = np.diag(upper)
    limit = tau * np.mean(np.var(w, axis=0, ddof=1) / pivot ** 2)

    def rounded(v, scale, zero):
        return scale * (np.clip(np.rint(v / scale + zero), 0, most) - zero)

    def fit_group(rows_of, inputs):
        grids = []
        for v in rows_of:
            cost = lambda some: np.sum(((v - rounded(v, *fit_real(v[some], most))) / pivot[inputs])[some] ** 2)
            every = np.arange(len(v))
            likely = [cost(every) - cost(every[every != i]) > limit for i in every]
            rest = v[~np.array(likely)]
            grids.append(fit_real(rest if len(rest) else v, most))
        grids = np.array(grids)
        return np.stack([np.concatenate([second_level(grids[r:r + 16, i]) for r in range(0, rows, 16)])
                         for i in range(2)], axis=1)

    v, codes, outliers, grids = w[:, order], np.zeros((rows, k)), np.zeros((rows, k)), {}
    if act_order:
        for g in range(0, k, group):
            grids[g // group] = fit_group(w[:, g:g + group], np.arange(g, min(k, g + group)))
    for i in range(k):
        j = order[i]
        if j // group not in grids:
            grids[j // group] = fit_group(v[:, i:min(k, i + group)], order[i:min(k, i + group)])
        scale, zero = grids[j // group].T
        codes[:, j] = np.clip(np.rint(v[:, i] / scale + zero), 0, most)
        error = (v[:, i] - scale * (codes[:, j] - zero)) / upper[i, i]
        kept = error ** 2 > limit
        codes[kept, j] = np.clip(np.rint(zero[kept]), 0, most)
        outliers[kept, j] = (v[:, i] - scale * (codes[:, j] - zero))[kept]
        v[:, i + 1:] -= np.outer(np.where(kept, 0, error), upper[i, i + 1:])
    scales = np.stack([grids[g][:, 0] for g in sorted(grids)], axis=1)
    zeros = np.stack([grids[g][:, 1] for g in sorted(grids)], axis=1)
    return codes, scales, zeros, outliers.astype(F32)


def least(scores, count):
    """Marks the `count` least scores, of equals the first."""
    marks = np.zeros(scores.size, bool)
    marks[np.argsort(scores.ravel(), kind="stable")[:count]] = True
    return marks.reshape(scores.shape)


def pruned(w, scores, fraction=None, pattern=None):
    """w with the least scores of each row, or of each few inputs (kept, of), 0."""
    out = w.astype(float).copy()
    rows, k = w.shape
    for r in range(rows):
        if pattern:
            kept, of = pattern
            for g in range(0, k, of):
                out[r, g:g + of][least(scores[r, g:g + of], of - kept)] = 0
        else:
            out[r, least(scores[r], int(fraction * k))] = 0
    return out


def sparsegpt(w, x, fraction, pattern, mask_block, damp, most=None, group=None):
    """Column by column; `most` and `group` round what is left, to symmetric codes."""
    rows, k = w.shape
    h = 2 / len(x) * x.T @ x
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    h += damp * np.mean(np.diag(h)) * np.eye(k)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    v, q, mask = w.astype(float).copy(), np.zeros((rows, k)), np.zeros((rows, k), bool)
    for i in range(k):
        unit = pattern[1] if pattern else mask_block
        if i % unit == 0:
            part = slice(i, min(k, i + unit))
            scores = v[:, part] ** 2 / np.diag(upper)[part] ** 2
            scores[:, dead[part]] = 0  # costs nothing; the paper's code sets these weights to 0 as well
            if pattern:
                for r in range(rows):
                    mask[r, part] = least(scores[r], pattern[1] - pattern[0])
            else:
                mask[:, part] = least(scores, int(fraction * scores.size))
        if most and i % group == 0:
            scales = [fit(v[r, i:i + group], most, False)[0] for r in range(rows)]
        q[:, i] = np.where(mask[:, i], 0, v[:, i])
        if most:
            q[:, i] = scales * nearest(q[:, i], scales, 0, most, False)
        v[:, i + 1:] -= np.outer((v[:, i] - q[:, i]) / upper[i, i], upper[i, i + 1:])
    return q


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
    second = random.normal(size=(rows, k)).astype(F32)
    for name, most, centred, group in [("int4", 7, False, 8), ("int8_group_asymmetric", 255, True, 16)]:
        s, ((codes, scales, zeros), (codes2, scales2, zeros2)) = awq([w, second], x, most, centred, group)
        write(f"awq_{name}", second=second, magnitudes=np.sum(np.abs(x), axis=0)[None], inputs=s[None],
              codes=codes, scales=scales, zeros=zeros, second_codes=codes2, second_scales=scales2,
              second_zeros=zeros2)
    for name, most, centred, group in [("int4_row", 15, True, 0), ("int4", 7, False, 8)]:
        for act_order in [False, True]:
            codes, scales, zeros, kept, inputs = owq(w, x, most, centred, group, act_order, .01, 3)
            write(f"owq_{name}" + ("_act_order" if act_order else ""), codes=codes, scales=scales, zeros=zeros,
                  outliers=kept, outlier_inputs=inputs)
    product, rest = lorc(w, 7, 8, 2)
    write("lorc_int4", product=product, rest=rest)
    codes, scales, step, mean = nf4_double(w, 8)
    write("nf4_double", codes=codes, scale_codes=scales, step=step, mean=mean)
    codes, scales = ternary(w)
    write("ternary", codes=codes, scales=scales)
    w2 = random.normal(size=(20, k)).astype(F32)
    w2[3, 11], w2[17, 4], w2[17, 5] = 9, -7, 8
    for act_order in [False, True]:
        codes, scales, zeros, outliers = spqr(w2, x, 3, act_order, 1.0, .2)
        write("spqr" + ("_act_order" if act_order else ""), weights=w2, codes=codes, scales=scales, zeros=zeros,
              outliers=outliers)
    norms = np.sqrt(np.sum(x ** 2, axis=0))
    size = np.abs(w.astype(float))
    layer = np.where(least(size, int(.3 * size.size)), 0, w.astype(float))
    write("pruned", norms=norms[None], magnitude_layer=layer,
          magnitude_row=pruned(w, size, .6), magnitude_2_of_4=pruned(w, size, pattern=(2, 4)),
          wanda=pruned(w, size * norms, .5), wanda_4_of_7=pruned(w, size * norms, pattern=(4, 7)),
          sparsegpt=sparsegpt(w, x, .5, None, 128, .01), sparsegpt_blocks=sparsegpt(w, x, .7, None, 10, .01),
          sparsegpt_2_of_4=sparsegpt(w, x, None, (2, 4), None, .01),
          sparsegpt_int4=sparsegpt(w, x, .5, None, 16, .01, 7, 8),
          sparsegpt_2_of_4_int4=sparsegpt(w, x, None, (2, 4), None, .01, 7, 8))
    w = (np.sign(w) * np.abs(w) ** 3).astype(F32)  # more large ones
    codes, scales, zeros = hqq(w, 255, 16)
    write("hqq_int8_group_asymmetric", weights=w, codes=codes, scales=scales, zeros=zeros)


main()
