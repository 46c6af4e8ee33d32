#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/peft_gpt2 with NumPy alone: a LoRA on GPT-2's fused c_attn and on mlp.c_proj, in
PEFT's names, and the logits of tests/golden/gpt2 with it.

The model is written out here, in double; its logits without the adapter must be the fixture's.
Needs numpy and safetensors.
"""

import json
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
RANK, ALPHA, HEADS = 2, 3.0, 4


def norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def logits_of(w, ids, deltas):
    """GPT-2 in double: Conv1D is x @ weight + bias, and a delta adds s (x @ A.T) @ B.T."""
    def conv(x, name):
        y = x @ w[name + ".weight"] + w[name + ".bias"]
        if name in deltas:
            a, b = deltas[name]
            y = y + ALPHA / RANK * (x @ a.T) @ b.T
        return y

    length = ids.shape[1]
    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][:length]
    for layer in range(2):
        at = f"transformer.h.{layer}."
        y = norm(x, w[at + "ln_1.weight"], w[at + "ln_1.bias"])
        q, k, v = (part.reshape(*part.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)
                   for part in np.split(conv(y, at + "attn.c_attn"), 3, axis=-1))
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (p / p.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + conv(mixed, at + "attn.c_proj")
        h = conv(norm(x, w[at + "ln_2.weight"], w[at + "ln_2.bias"]), at + "mlp.c_fc")
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h ** 3)))
        x = x + conv(h, at + "mlp.c_proj")
    return norm(x, w["transformer.ln_f.weight"], w["transformer.ln_f.bias"]) @ \
        w["transformer.wte.weight"].T


def main():
    w = {key: x.astype(np.float64) for key, x in load_file(GOLDEN / "gpt2/model.safetensors").items()}
    given = load_file(GOLDEN / "gpt2/expected.safetensors")
    ids = given["input_ids"].reshape(len(given["lengths"]), -1)
    plain = logits_of(w, ids, {})
    want = given["logits"].reshape(plain.shape)
    for b, valid in enumerate(given["lengths"]):
        assert np.abs(plain - want)[b, :valid].max() < 1e-10, "this is not the fixture's GPT-2"
    random = np.random.default_rng(5)
    deltas, tensors = {}, {}
    for layer in range(2):
        for name in "attn.c_attn", "mlp.c_proj":
            name = f"transformer.h.{layer}.{name}"
            inputs, outputs = w[name + ".weight"].shape
            pair = [random.normal(0, 0.2, shape).astype(np.float32)
                    for shape in ((RANK, inputs), (outputs, RANK))]
            deltas[name] = [x.astype(np.float64) for x in pair]
            for end, x in zip("AB", pair):
                tensors[f"base_model.model.{name}.lora_{end}.weight"] = x
    out = GOLDEN / "peft_gpt2"
    out.mkdir(exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors", {"format": "pt"})
    (out / "adapter_config.json").write_text(json.dumps(
        {"base_model_name_or_path": "gpt2", "bias": "none", "fan_in_fan_out": True,
         "lora_alpha": ALPHA, "lora_dropout": 0.0, "peft_type": "LORA", "r": RANK,
         "target_modules": ["attn.c_attn", "mlp.c_proj"], "task_type": "CAUSAL_LM"},
        indent=2, sort_keys=True) + "\n")
    save_file({"logits": logits_of(w, ids, deltas)}, out / "expected.safetensors")


if __name__ == "__main__":
    main()
