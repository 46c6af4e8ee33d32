#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/distillation/trl.txt: losses of distillation by Hugging Face's TRL.

    pip install torch==2.15.0 numpy==2.4.6 && pip install --no-deps trl==1.16.0

Random tables of embeddings stand for decoders whose layers compute nothing: the logits behind a token
are the RMS-normalised row of the table times the table. TRL's own functions make losses of them:
GKDTrainer.generalized_jsd_loss() (Agarwal et al. 2024) and ULDLoss (Boizard et al. 2024), cut out of
the installed files, since importing them needs transformers, accelerate and datasets.

Where TRL differs from linnet, and from what it cites:
- TRL does not multiply by the squared temperature, as Agarwal et al. do not; linnet does, for every
  divergence (Hinton et al. 2015). The file has TRL's numbers.
- In ULDLoss a sequence without an answer counts as a distance of 0. Boizard et al. have none such, and
  linnet leaves it out of the mean. No sequence of this file is without one.
- ULDLoss takes labels of the positions themselves; "bayesian" shifts them by one. Both pair the same
  rows here, as the labels are given at the positions that predict them.
"""

import ast
from importlib.metadata import distribution, version
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

OUT = Path(__file__).resolve().parent.parent / "golden" / "distillation"
VERSIONS = {"torch": "2.15.0", "trl": "1.16.0"}
D, EPS, IGNORED = 8, 1e-3, -100
BETAS, TEMPERATURES = [0.0, 0.3, 0.5, 1.0], [1.0, 2.0]


def cut_out(file, name):
    """A function or class of a file of TRL, compiled alone."""
    text = Path(distribution("trl").locate_file(f"trl/experimental/{file}")).read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            node.decorator_list = []
            names = {"torch": torch, "F": F, "nn": nn, "GOLDConfig": object}
            exec(compile(ast.Module([node], []), file, "exec"), names)
            return names[name]
    raise SystemExit(f"{file} has no {name}")


def logits(table, tokens):
    x = table[tokens]
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS) @ table.T


def main():
    for package, wanted in VERSIONS.items():
        if version(package).split("+")[0] != wanted:
            raise SystemExit(f"{package} {wanted} is needed, not {version(package)}")
    random = torch.Generator().manual_seed(1)

    def table(vocabulary):
        return torch.randn(vocabulary, D, generator=random, dtype=torch.float64)

    def ids(vocabulary, *size):
        return torch.randint(vocabulary, size, generator=random)

    student, teacher, other = table(11), table(11), table(7)
    tokens, labels = ids(11, 3, 6), ids(11, 3, 6)
    labels[0, :2] = labels[1, 4:] = IGNORED
    other_tokens, other_labels = ids(7, 3, 5), ids(7, 3, 5)
    other_labels[0, :1] = other_labels[2, 3:] = IGNORED
    s, t, o = logits(student, tokens), logits(teacher, tokens), logits(other, other_tokens)

    jsd = cut_out("gkd/gkd_trainer.py", "generalized_jsd_loss")
    gkd = torch.tensor([[jsd(s, t, labels=labels, beta=b, temperature=tau) for b in BETAS]
                        for tau in TEMPERATURES], dtype=torch.float64)
    how = SimpleNamespace(
        uld_crossentropy_weight=0, uld_distillation_weight=1.5, uld_student_temperature=1,
        uld_teacher_temperature=1, uld_skip_student_eos=False, uld_skip_teacher_eos=False,
        use_extended_uld=False, uld_token_merge_strategy="observed", uld_use_hybrid_loss=False)
    # Without a cross-entropy, and with the ids only for their number.
    uld = cut_out("gold/gold_trainer.py", "ULDLoss")(how)
    distance = uld._compute_distillation_loss(s, o, labels, other_labels, tokens, other_tokens)

    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / "trl.txt", "w") as file:
        for name, values in {
                "student": student, "teacher": teacher, "other": other, "tokens": tokens,
                "labels": labels, "other_tokens": other_tokens, "other_labels": other_labels,
                "betas": torch.tensor([BETAS], dtype=torch.float64),
                "temperatures": torch.tensor([TEMPERATURES], dtype=torch.float64),
                "gkd": gkd, "uld": distance.reshape(1, 1)}.items():
            print(name, *values.shape, file=file)
            for row in values.tolist():
                print(*map(repr, row), file=file)


if __name__ == "__main__":
    main()
