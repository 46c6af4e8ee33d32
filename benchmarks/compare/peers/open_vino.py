# SPDX-License-Identifier: MIT
"""OpenVINO: encoders, exported from PyTorch by way of ONNX. "int8" has weights and inputs of products
in 8 bits, with the ranges that NNCF found on random texts; "int8-weights" has only the weights."""

import contextlib
import logging
import os
import sys
import warnings

import nncf
import numpy as np
import openvino
import torch
import transformers
from exporting import exported
from side import arguments, mean, serve

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
call = arguments()
config = transformers.AutoConfig.from_pretrained(call.weights)
tokens = np.array(call.tokens(config.vocab_size))
path = exported(call, torch.tensor(tokens))


def rounded(to):
    """Writes the model in 8 bits; NNCF shows its progress on the standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        model = openvino.Core().read_model(path)
        if call.type == "int8-weights":
            model = nncf.compress_weights(model)
        else:
            random = np.random.default_rng(1)
            texts = [random.integers(1000, config.vocab_size, tokens.shape) for _ in range(32)]
            model = nncf.quantize(model, nncf.Dataset(texts), subset_size=len(texts),
                                  model_type=nncf.ModelType.TRANSFORMER)  # fmt: skip
        openvino.save_model(model, to, compress_to_fp16=False)


if call.type != "f32":
    to = path.replace(".onnx", f"-{call.type}.xml")
    if not os.path.exists(to):
        rounded(to)
    path = to
model = openvino.Core().compile_model(path, "CPU", {
    "INFERENCE_NUM_THREADS": call.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32"})  # fmt: skip
request = model.create_infer_request()
out = request.infer([tokens])[0]
serve(lambda: request.infer([tokens], share_inputs=True), mean(out[0]))
