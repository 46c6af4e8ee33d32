# SPDX-License-Identifier: MIT
"""ONNX Runtime: encoders and prompts, exported from PyTorch; int8 with dynamic quantization."""

import warnings

import numpy as np
import onnxruntime
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from exporting import Encoder, exported, made
from side import arguments, mean, serve

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
call = arguments()
config = transformers.AutoConfig.from_pretrained(call.weights)
tokens = torch.tensor(call.tokens(config.vocab_size))
size = f"{call.batch}x{call.source}"
path = exported(call, tokens)
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
elif call.work == "embed":
    check = mean(out[0])
else:
    with torch.no_grad():
        wanted = Encoder(call.weights)(tokens).numpy()
    error = float(np.abs(out - wanted).max() / np.abs(wanted).max())
    agreement = f"outputs differ by {error:.0e} of the largest"
serve(lambda: session.run(None, given), check, agreement=agreement)
