# SPDX-License-Identifier: MIT
"""ONNX Runtime: encoders and prompts, exported from PyTorch; int8 with dynamic quantization."""

import contextlib
import io
import os
import sys
import warnings

import numpy as np
import onnxruntime
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from side import arguments, serve

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
call = arguments()
config = transformers.AutoConfig.from_pretrained(call.weights)
tokens = torch.tensor(call.tokens(config.vocab_size))
if call.work not in ("encode", "prefill"):
    sys.exit("decoding with a cache is not exported")


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = transformers.T5EncoderModel.from_pretrained(call.weights).eval()

    def forward(self, tokens):
        return self.model(input_ids=tokens).last_hidden_state


class Prompt(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = transformers.LlamaForCausalLM.from_pretrained(call.weights).eval()

    def forward(self, tokens):
        return self.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits


def made(path, make):
    """The file, written by make(path) if there is none."""
    if not os.path.exists(path):
        make(path + ".new")
        os.rename(path + ".new", path)
    return path


def export(path):
    model = Encoder() if call.work == "encode" else Prompt()
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        torch.onnx.export(model, (tokens,), path, input_names=["tokens"], external_data=False)


size = f"{call.batch}x{call.source}"
path = made(f"{call.weights}/{call.work}-{size}.onnx", export)
if call.type == "int8":
    path = made(f"{call.weights}/{call.work}-{size}-int8.onnx",
                lambda to: quantize_dynamic(path, to, weight_type=QuantType.QInt8,
                                            per_channel=True))  # fmt: skip
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = call.threads
options.inter_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
given = {"tokens": tokens.numpy()}
out = session.run(None, given)[0]
# The next token of a prompt; of an encoder, how far its output is from PyTorch's.
check, agreement = [], None
if call.work == "prefill":
    check = [int(np.argmax(out[0, -1]))]
else:
    with torch.no_grad():
        wanted = Encoder()(tokens).numpy()
    error = float(np.abs(out - wanted).max() / np.abs(wanted).max())
    agreement = f"outputs differ by {error:.0e} of the largest"
serve(lambda: session.run(None, given), check, agreement=agreement)
