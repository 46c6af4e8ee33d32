#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares codes of calibrated methods with those of their authors' programs.

Weights, moments of inputs and linnet's codes are the fixtures of tests/golden/compression, which
linnet's tests hold code by code. The authors' programs round the same weights in f32, on the CPU.
Prints a table in Markdown: codes that differ, and the error tr(D X^T X D^T) of both, D being what
rounding lost. Needs torch, transformers and hqq (pip install --no-deps hqq termcolor); other
programs are cloned into --sources. A row says "as published" where the authors' program runs
unchanged, else which of linnet's choices it was given; fails where codes differ then.

grid    codes from -Q to Q; theirs has one more below zero, so its steps are smaller
input   weights whose input was always 0 are rounded to nearest; theirs become 0
blocks  a group's scale is that of the weights when it begins; theirs of those at the last block of 128
count   a fraction is rounded down to whole weights; theirs prunes one more
groups  HQQ stops group by group; theirs when the whole matrix stops to improve
order   OWQ with act_order takes inputs by their norms; theirs by those times what rounding loses
half    SpQR's scale and zero point of 16 scales are in half precision, also while it rounds
rows    SpQR's threshold is that of all 20 rows, of which theirs is given 16
"""

import argparse
import contextlib
import importlib.util
import io
import subprocess
import sys
import types
from pathlib import Path

import torch
from torch import nn

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "compression"
SOURCES = {
    "gptq": "https://github.com/IST-DASLab/gptq",
    "sparsegpt": "https://github.com/IST-DASLab/sparsegpt",
    "llm-awq": "https://github.com/mit-han-lab/llm-awq",
    "owq": "https://github.com/xvyaward/owq",
    "SpQR": "https://github.com/Vahe1994/SpQR",
}


def fixture(name):
    """The arrays of a file of lines `name rows columns` and as many numbers."""
    words = iter((GOLDEN / f"{name}.txt").read_text().split())
    arrays = {}
    for key in words:
        rows, columns = int(next(words)), int(next(words))
        numbers = [float(next(words)) for _ in range(rows * columns)]
        arrays[key] = torch.tensor(numbers, dtype=torch.float64).reshape(rows, columns)
    return arrays


def spread(values, group, columns):
    """Numbers of groups for each input of a row."""
    return values.repeat_interleave(group or columns, dim=1)[:, :columns]


class Compared:
    """Rows of the table."""

    def __init__(self):
        self.failed = False
        print("| Method | Codes | Given to the authors' program | Codes that differ | Error, linnet | Error, authors |")
        print("| --- | --- | --- | --- | --- | --- |")

    def add(self, method, codes, given, weights, moments, ours, theirs, steps):
        """Both are numbers; their codes are how many steps they are apart."""
        differ = int((((ours - theirs) / steps).abs() > 0.5).sum())
        error = [float(torch.einsum("ri,ij,rj->", off, moments, off))
                 for off in (weights - ours, weights - theirs)]  # fmt: skip
        self.failed |= given != "as published" and differ > 0
        print(f"| {method} | {codes} | {given} | {differ} of {ours.numel()} | {error[0]:.6g} | {error[1]:.6g} |")


def module(path, name, **given):
    """A file as a module; `given` stand in for modules that it imports."""
    before = {key: sys.modules.get(key) for key in given}
    sys.modules.update(given)
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made
    finally:
        for key, old in before.items():
            if old is None:
                del sys.modules[key]
            else:
                sys.modules[key] = old


def layer_of(weights):
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    layer.weight.data = weights.float().clone()
    return layer


def hessian(moments, rows, dead):
    """2 / n X^T X; with `dead`, inputs that were always 0 get linnet's stand-in, which couples
    them to nothing."""
    h = (2 / rows * moments).float()
    if dead:
        h.diagonal()[h.diagonal() == 0] = 1
    return h


def our_grid(quant, most):
    """The authors' quantizer with linnet's symmetric grid, of codes from -most to most."""

    class Grid(quant.Quantizer):
        def find_params(self, x, weight=False):
            self.maxq = torch.tensor(2 * most)
            size = x.abs().amax(dim=1, keepdim=True)
            self.scale = torch.where(size > 0, size / most, torch.ones_like(size))
            self.zero = torch.full_like(self.scale, most)

    return Grid()


def compare_gptq(folder, to, data):
    quant = module(folder / "quant.py", "gptq_quant")
    gptq = module(folder / "gptq.py", "gptq_program", quant=quant)
    w, moments, rows = data["weights"], data["moments"], int(data["rows"][0, 0])
    for name, bits, most, group in [("int4", 4, 7, 8), ("int8", 8, 127, 0),
                                    ("int8_group_asymmetric", 8, 255, 16)]:  # fmt: skip
        centred = "asymmetric" in name
        for act_order in False, True:
            ours = fixture(f"gptq_{name}" + ("_act_order" if act_order else ""))
            steps = spread(ours["scales"], group, w.shape[1])
            numbers = (ours["codes"] - (spread(ours["zeros"], group, w.shape[1]) if centred else 0)) * steps
            for published in True, False:
                by = gptq.GPTQ(layer_of(w))
                by.H = hessian(moments, rows, not published)
                by.quantizer = quant.Quantizer() if published or centred else our_grid(quant, most)
                by.quantizer.configure(bits, perchannel=True, sym=not centred)
                blocks = not published and group > 0 and not act_order
                with contextlib.redirect_stdout(io.StringIO()):
                    by.fasterquant(percdamp=0.01, groupsize=group or -1, actorder=act_order,
                                   static_groups=act_order and group > 0,
                                   blocksize=group if blocks else 128)  # fmt: skip
                parts = ["input"] + ["grid"] * (not centred) + ["blocks"] * blocks
                given = "as published" if published else ", ".join(parts)
                to.add("GPTQ" + (", act_order" if act_order else ""), name, given, w, moments, numbers,
                       by.layer.weight.data.double(), steps)  # fmt: skip


def compare_sparsegpt(folder, to, data):
    quant = module(folder / "quant.py", "sparsegpt_quant")
    program = module(folder / "sparsegpt.py", "sparsegpt_program", quant=quant)
    w, moments, rows = data["weights"], data["moments"], int(data["rows"][0, 0])
    ours = fixture("pruned")
    published = "as published"
    for name, given, settings in [
        ("sparsegpt", published, {"sparsity": 0.5}),
        ("sparsegpt", "count", {"sparsity": 83.5 / 168}),
        ("sparsegpt_blocks", published, {"sparsity": 0.7, "blocksize": 10}),
        ("sparsegpt_blocks", "count", {"sparsity": 0.685, "blocksize": 10}),
        ("sparsegpt_2_of_4", published, {"sparsity": 0, "prunen": 2, "prunem": 4}),
    ]:
        by = program.SparseGPT(layer_of(w))
        by.H = hessian(moments, rows, False)
        with contextlib.redirect_stdout(io.StringIO()):
            by.fasterprune(percdamp=0.01, **settings)
        # Numbers count as equal where the last digits of f32 alone differ.
        to.add("SparseGPT", name.removeprefix("sparsegpt").strip("_") or "half", given, w, moments,
               ours[name], by.layer.weight.data.double(), 2e-3)  # fmt: skip


def compare_clip(folder, to, data):
    w, moments = data["weights"], data["moments"]
    ours, most, group = fixture("clip_search_int4"), 7, 8

    def rounded(x, n_bit, q_group_size, zero_point):
        """The authors' symmetric branch, which is behind an assertion that never holds."""
        steps = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / most
        return torch.clamp(torch.round(x / steps), -most - 1, most) * steps

    quantizer = types.ModuleType("awq_search.quantizer")
    quantizer.pseudo_quantize_tensor = rounded
    package = types.ModuleType("awq_search")
    package.__path__ = [str(folder / "awq" / "quantize")]
    program = module(folder / "awq" / "quantize" / "auto_clip.py", "awq_search.auto_clip",
                     **{"awq_search": package, "awq_search.quantizer": quantizer})  # fmt: skip
    # Rows of inputs with these moments: eigenvectors times roots of eigenvalues. Padded with zeros
    # to whole groups and to the 64 rows that the program takes.
    values, vectors = torch.linalg.eigh(moments)
    x = (vectors * values.clamp(min=0).sqrt()).T.float()
    rows, k = w.shape
    width = (k + group - 1) // group * group
    padded = torch.zeros(64, width)
    padded[:rows, :k] = w.float()
    inputs = torch.zeros(k, width)
    inputs[:, :k] = x
    most_of = program.auto_clip_layer(padded, inputs, 4, {"q_group_size": group, "zero_point": False},
                                      n_sample_token=k)[:rows]  # fmt: skip
    limit = spread(most_of.squeeze(-1), group, k)
    cut = w.float().clamp(-limit, limit)
    theirs = torch.round(cut / (limit / most)) * (limit / most)
    steps = spread(ours["scales"], group, k)
    to.add("AWQ's clipping", "int4", "grid", w, moments, ours["codes"] * steps, theirs.double(), steps)


def compare_hqq(to, data):
    from hqq.core.optimize import optimize_weights_proximal_v2 as optimize

    most, group = 255, 16
    ours = fixture("hqq_int8_group_asymmetric")
    w = (data["weights"].sign() * data["weights"].abs() ** 3).float()
    k = w.shape[1]
    theirs = torch.zeros(w.shape, dtype=torch.float64)
    for r in range(len(w)):
        for first in range(0, k, group):  # groups stop one by one, as linnet's do
            part = w[r : r + 1, first : first + group]
            low, high = part.min().clamp(max=0), part.max().clamp(min=0)
            scale = most / (high - low)
            zero = torch.round(-low * scale)
            codes, scale, zero = optimize(part, scale.reshape(1, 1), zero.reshape(1, 1), [0, most], axis=1)
            theirs[r, first : first + group] = ((codes - zero) / scale).double()
    steps = spread(ours["scales"], group, k)
    numbers = (ours["codes"] - spread(ours["zeros"], group, k)) * steps
    to.add("HQQ", "int8_group_asymmetric", "groups", w.double(), torch.eye(k, dtype=torch.float64),
           numbers, theirs, steps)  # fmt: skip


def compare_owq(folder, to, data):
    falcon = types.ModuleType("modeling_falcon")
    falcon.FalconLinear = nn.Linear
    with contextlib.redirect_stdout(io.StringIO()):  # it says that its CUDA kernels are missing
        quant = module(folder / "owq" / "quant.py", "owq_program.quant",
                       **{"transformers.models.falcon.modeling_falcon": falcon})  # fmt: skip
    package = types.ModuleType("owq_program")
    package.__path__ = [str(folder / "owq")]
    recon = module(folder / "owq" / "recon.py", "owq_program.recon",
                   **{"owq_program": package, "owq_program.quant": quant})  # fmt: skip
    w, moments, rows = data["weights"], data["moments"], int(data["rows"][0, 0])
    k = w.shape[1]
    for act_order in False, True:
        ours = fixture("owq_int4_row" + ("_act_order" if act_order else ""))
        steps = spread(ours["scales"], 0, k)
        numbers = (ours["codes"] - spread(ours["zeros"], 0, k)) * steps
        weak = ours["outlier_inputs"][0].long()
        numbers[:, weak] = ours["outliers"]
        for published in True, False:
            by = recon.GPTQ_OWQ(layer_of(w), len(weak))
            by.H = hessian(moments, rows, False)
            by.quantizer = quant.Quantizer(4, perchannel=True, mse=True)
            by.quantizer.find_params(w.float(), weight=True, num=40)
            lost = (w.float() - by.quantizer.quantize(w.float())).square().sum(dim=0)
            theirs = by.hessian_sorting(actorder=act_order, frob_norm=lost)
            if not published:
                assert sorted(theirs.tolist()) == sorted(weak.tolist()), "other inputs are weak"
                by.H = hessian(moments, rows, True)
                if act_order:
                    norms = torch.argsort(moments.diagonal(), descending=True, stable=True)
                    others = [int(j) for j in norms if int(j) not in weak.tolist()]
                    by.ids = torch.tensor(others + weak.tolist())
            with contextlib.redirect_stdout(io.StringIO()):
                by.fasterquant(percdamp=0.01, groupsize=-1, actorder=act_order)
            given = "as published" if published else "input, order" if act_order else "input"
            to.add("OWQ" + (", act_order" if act_order else ""), "int4, 3 inputs kept", given, w, moments,
                   numbers, by.layer.weight.data.double(), steps)  # fmt: skip


def compare_spqr(folder, to, data):
    quant = module(folder / "quant_groups.py", "quant_groups")
    permutation = types.ModuleType("weight_permutation")
    permutation.get_permutation_order = lambda h, *_: torch.arange(len(h))
    program = module(folder / "spqr_engine.py", "spqr_engine",
                     quant_groups=quant, weight_permutation=permutation)  # fmt: skip
    find, inside = quant.Quantizer.find_params, []

    def find_in_half(self, x, weight=False):
        inside.append(self)
        find(self, x, weight)
        inside.pop()
        if inside:  # the second level
            self.scale, self.zero = self.scale.half().float(), self.zero.half().float()

    moments, samples = data["moments"], int(data["rows"][0, 0])
    ours = fixture("spqr")
    every, group, damp, share, together = ours["weights"], 16, 1.0, 0.2, 16
    w, k = every[:together], every.shape[1]
    steps = spread(ours["scales"], group, k)
    numbers = ((ours["codes"] - spread(ours["zeros"], group, k)) * steps + ours["outliers"])[:together]
    h = hessian(moments, samples, True).double()
    h.diagonal().add_(damp * h.diagonal().mean())
    pivots = torch.linalg.cholesky(torch.linalg.inv(h), upper=True).diagonal() ** 2
    ratio = float((every.var(dim=0) / pivots).mean() / (w.var(dim=0) / pivots).mean())
    for published in True, False:
        quant.Quantizer.find_params = find if published else find_in_half
        by = program.SPQRUtil(layer_of(w))
        by.H = hessian(moments, samples, not published)
        made = by.quantize(bits=3, groupsize=group, percdamp=damp, verbose=False, qq_scale_bits=3,
                           qq_zero_bits=3, qq_groupsize=together,
                           outlier_relative_threshold=share * (1 if published else ratio))  # fmt: skip
        if not published:
            assert int(made.unstructured_outlier_mask.sum()) == int((ours["outliers"][:together] != 0).sum())
        to.add("SpQR", "spqr<3>, 16 rows", "as published" if published else "input, half, rows", w, moments,
               numbers, made.weight.double(), steps[:together].abs())  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--sources", required=True, help="folder of the authors' programs")
    folder = Path(p.parse_args().sources)
    for name, url in SOURCES.items():
        if not (folder / name).exists():
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", url, folder / name], check=True)
    torch.cuda.synchronize = lambda *_: None
    data = fixture("inputs")
    to = Compared()
    compare_gptq(folder / "gptq", to, data)
    compare_clip(folder / "llm-awq", to, data)
    compare_sparsegpt(folder / "sparsegpt", to, data)
    compare_hqq(to, data)
    compare_owq(folder / "owq", to, data)
    compare_spqr(folder / "SpQR", to, data)
    sys.exit(to.failed)


if __name__ == "__main__":
    main()
