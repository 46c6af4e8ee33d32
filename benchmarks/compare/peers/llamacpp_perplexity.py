# SPDX-License-Identifier: MIT
"""Perplexity in llama.cpp: FILE.gguf TEXT WINDOWS LENGTH THREADS f32|f16 0|1, the last two the type
of the cache and whether attention is flash attention. Windows are as in perplexity_side.cpp."""

import ctypes
import json
import sys

import llama_cpp as ll
import numpy as np

path, text = sys.argv[1:3]
windows, length, threads = map(int, sys.argv[3:6])
cache, flash = sys.argv[6], int(sys.argv[7])

ll.llama_backend_init()
quiet = ll.llama_log_callback(lambda level, text, data: None)
ll.llama_log_set(quiet, None)
model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
if not model:
    sys.exit(f"llama.cpp does not load {path}")
vocabulary = ll.llama_model_get_vocab(model)
size = ll.llama_vocab_n_tokens(vocabulary)

with open(text, "rb") as file:
    read = file.read(windows * length * 16)
ids = (ctypes.c_int32 * len(read))()
count = ll.llama_tokenize(vocabulary, read, len(read), ids, len(read), False, False)
if count < windows * length:
    sys.exit(f"{text}: {count} tokens, fewer than its windows have")
tokens = np.array(ids[: windows * length]).reshape(windows, length)

options = ll.llama_context_default_params()
options.n_ctx = options.n_batch = options.n_ubatch = length
options.n_threads = options.n_threads_batch = threads
options.type_k = options.type_v = {"f32": 0, "f16": 1}[cache]
options.flash_attn_type = flash
context = ll.llama_init_from_model(model, options)
memory = ll.llama_get_memory(context)
batch = ll.llama_batch_init(length, 0, 1)
batch.n_tokens = length - 1
nats = 0.0
for window in tokens:
    ll.llama_memory_clear(memory, True)
    for i, token in enumerate(window[:-1]):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = int(token), i, 1, 0
        batch.logits[i] = 1
    if ll.llama_decode(context, batch) != 0:
        sys.exit("llama_decode failed")
    address = ctypes.cast(ll.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
    logits = np.ctypeslib.as_array(address, (length - 1, size)).astype(np.float64)
    top = logits.max(1)
    sums = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    nats += (sums - logits[np.arange(length - 1), window[1:]]).sum()
predicted = windows * (length - 1)
print(json.dumps({"perplexity": np.exp(nats / predicted), "predicted": predicted}))
