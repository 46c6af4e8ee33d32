# SPDX-License-Identifier: MIT
"""llama.cpp, through the C interface that llama-cpp-python ships: models of Llama's architecture."""

import ctypes
import os
import sys

import gguf
import llama_cpp as ll
import numpy as np
import transformers
from side import arguments, serve

call = arguments()
config = transformers.AutoConfig.from_pretrained(call.weights)


def paired(weight, heads):
    """Rows as llama.cpp rotates them: pairs (2i, 2i + 1) instead of (i, i + half)."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def convert(path, type):
    """Writes the model with its matrices in the given type."""
    model = transformers.LlamaForCausalLM.from_pretrained(call.weights)
    to = gguf.GGUFWriter(path, "llama")
    to.add_context_length(config.max_position_embeddings)
    to.add_embedding_length(config.hidden_size)
    to.add_block_count(config.num_hidden_layers)
    to.add_feed_forward_length(config.intermediate_size)
    to.add_head_count(config.num_attention_heads)
    to.add_head_count_kv(config.num_key_value_heads)
    to.add_layer_norm_rms_eps(config.rms_norm_eps)
    to.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    to.add_rope_freq_base(10000.0)
    to.add_vocab_size(config.vocab_size)
    to.add_tokenizer_model("none")
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    kind = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16,
            "q8_0": gguf.GGMLQuantizationType.Q8_0}[type]  # fmt: skip
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if name == "model.embed_tokens.weight":
            to_name = "token_embd.weight"
        elif name == "model.norm.weight":
            to_name = "output_norm.weight"
        elif name == "lm_head.weight":
            continue  # tied
        else:
            _, _, layer, rest = name.split(".", 3)
            part = rest.removesuffix(".weight")
            to_name = f"blk.{layer}.{names[part]}.weight"
            if part.endswith("q_proj"):
                values = paired(values, config.num_attention_heads)
            if part.endswith("k_proj"):
                values = paired(values, config.num_key_value_heads)
        if values.ndim == 1 or type == "f32":
            to.add_tensor(to_name, np.ascontiguousarray(values))
        else:
            to.add_tensor(to_name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    to.write_header_to_file()
    to.write_kv_data_to_file()
    to.write_tensors_to_file()
    to.close()


path = f"{call.weights}/{call.type}.gguf"
if not os.path.exists(path):
    convert(path + ".new", call.type)
    os.rename(path + ".new", path)

ll.llama_backend_init()
quiet = ll.llama_log_callback(lambda level, text, data: None)
ll.llama_log_set(quiet, None)
model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
if not model:
    sys.exit(f"llama.cpp does not load {path}")
options = ll.llama_context_default_params()
options.n_ctx = options.n_batch = options.n_ubatch = config.max_position_embeddings
options.n_threads = options.n_threads_batch = call.threads
# A cache in f32 as on the other sides, and no choice left to heuristics.
options.type_k = options.type_v = 0
context = ll.llama_init_from_model(model, options)
memory = ll.llama_get_memory(context)
batch = ll.llama_batch_init(config.max_position_embeddings, 0, 1)


def feed(tokens, past):
    """Logits after the last token."""
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, past + i, 1, 0
        batch.logits[i] = i + 1 == len(tokens)
    if ll.llama_decode(context, batch) != 0:
        sys.exit("llama_decode failed")
    values = ll.llama_get_logits_ith(context, len(tokens) - 1)
    return np.ctypeslib.as_array(ctypes.cast(values, ctypes.POINTER(ctypes.c_float)),
                                 (config.vocab_size,))  # fmt: skip


prompt = call.tokens(config.vocab_size, rows=1)[0]
if call.batch != 1:
    sys.exit("llama.cpp is compared with batch 1")


def prepare():
    ll.llama_memory_clear(memory, False)
    if call.work == "decode" and len(prompt) > 1:
        feed(prompt[:-1], 0)


def decode():
    written, next = [], prompt[-1]
    for i in range(call.target):
        next = int(feed([next], len(prompt) - 1 + i).argmax())
        written.append(next)
    decode.written = written


work, call.work = call.work, "decode"
prepare()
decode()
call.work = work
if work == "prefill":
    serve(lambda: feed(prompt, 0), decode.written, prepare)
elif work == "decode":
    serve(decode, decode.written, prepare)
else:
    sys.exit(f"llama.cpp is not compared in {work}")
