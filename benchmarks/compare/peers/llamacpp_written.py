# SPDX-License-Identifier: MIT
"""llama.cpp's outputs beside those that a file tells: llamacpp_written.py FAMILY TOLD.json, each line
of it a GGUF file, tokens and outputs. Prints a line of JSON per file."""

import ctypes
import json
import sys

import llama_cpp as ll
import numpy as np

family, told = sys.argv[1:]
ll.llama_backend_init()
quiet = ll.llama_log_callback(lambda level, text, data: None)
ll.llama_log_set(quiet, None)


def batch_of(tokens):
    batch = ll.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, 1, 0
        batch.logits[i] = 1
    return batch


def outputs(path, tokens, wanted):
    model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
    if not model:
        sys.exit(f"llama.cpp does not load {path}")
    options = ll.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 64
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = options.flash_attn_type = 0
    if family == "bert":
        options.embeddings, options.pooling_type = True, 0
    context = ll.llama_init_from_model(model, options)
    width = wanted // len(tokens)
    if family == "bert":
        if ll.llama_encode(context, batch_of(tokens)) != 0:
            sys.exit("llama_encode failed")
        at = lambda i: ll.llama_get_embeddings_ith(context, i)
    else:
        if family == "t5":
            if ll.llama_encode(context, batch_of(tokens)) != 0:
                sys.exit("llama_encode failed")
            tokens = [ll.llama_model_decoder_start_token(model), *tokens[1:]]
        if ll.llama_decode(context, batch_of(tokens)) != 0:
            sys.exit("llama_decode failed")
        at = lambda i: ll.llama_get_logits_ith(context, i)
    as_floats = ctypes.POINTER(ctypes.c_float)
    rows = [np.ctypeslib.as_array(ctypes.cast(at(i), as_floats), (width,)).copy()
            for i in range(len(tokens))]  # fmt: skip
    ll.llama_free(context)
    ll.llama_model_free(model)
    return np.array(rows)


for line in open(told):
    one = json.loads(line)
    ours = np.array(one["out"])
    theirs = outputs(one["path"], one["tokens"], ours.size)
    ours = ours.reshape(theirs.shape)
    print(json.dumps({"type": one["type"], "error": float(np.abs(ours - theirs).max() / np.abs(ours).max()),
                      "rows": len(ours),
                      "same": int((ours.argmax(1) == theirs.argmax(1)).sum())}), flush=True)  # fmt: skip
