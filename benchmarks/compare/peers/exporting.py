# SPDX-License-Identifier: MIT
"""ONNX files of encoders and prompts, exported from PyTorch."""

import contextlib
import os
import sys

import torch
import transformers


class Encoder(torch.nn.Module):
    """T5's encoder, or a model that is nothing but an encoder."""

    def __init__(self, weights, loader=transformers.T5EncoderModel):
        super().__init__()
        self.model = loader.from_pretrained(weights).eval()

    def forward(self, tokens):
        return self.model(input_ids=tokens).last_hidden_state


class Prompt(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.model = transformers.LlamaForCausalLM.from_pretrained(weights).eval()

    def forward(self, tokens):
        return self.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits


MODELS = {"encode": Encoder, "embed": lambda w: Encoder(w, transformers.AutoModel),
          "prefill": Prompt}  # fmt: skip


def made(path, make):
    """The file, written by make(path) if there is none."""
    if not os.path.exists(path):
        new = f"{os.path.dirname(path)}/new-{os.path.basename(path)}"
        make(new)
        os.rename(new, path)
    return path


def exported(call, tokens):
    """The file of a work on these tokens."""
    if call.work not in MODELS:
        sys.exit("decoding with a cache is not exported")

    def export(path):
        with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
            torch.onnx.export(MODELS[call.work](call.weights), (tokens,), path,
                              input_names=["tokens"], external_data=False)  # fmt: skip

    return made(f"{call.weights}/{call.work}-{call.batch}x{call.source}.onnx", export)
