# SPDX-License-Identifier: MIT
"""llama.cpp and ik_llama.cpp, through the C interfaces that llama-cpp-python and ik-llama-cpp-python
ship: models of Llama's architecture. A GGUF file is run as it is, with the cache in f16 that both
have by default; of other weights a file is made, and the cache is in f32 as on the other sides."""

import ctypes
import os
import sys

import numpy as np
from side import arguments, serve

call = arguments()
flash, ik = call.mode.endswith("-flash"), call.mode.startswith("ik_")
if ik:
    import ik_llama_cpp._ctypes_api as ll

    flags = open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else ""
    if flash and "_vnni" not in flags:
        sys.exit("ik-llama-cpp-python turns flash attention off on processors without VNNI")
else:
    import llama_cpp as ll


def paired(weight, heads):
    """Rows as llama.cpp rotates them: pairs (2i, 2i + 1) instead of (i, i + half)."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def convert(path, type):
    """Writes the model with its matrices in the given type."""
    import gguf
    import transformers

    config = transformers.AutoConfig.from_pretrained(call.weights)
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


given = call.weights.endswith(".gguf")
path = call.weights if given else f"{call.weights}/{call.type}.gguf"
if not os.path.exists(path):
    convert(path + ".new", call.type)
    os.rename(path + ".new", path)
if call.batch != 1:
    sys.exit("llama.cpp is compared with batch 1")


class Loaded:
    """The model with a context for the whole work."""

    def __init__(self):
        self.model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        self.size = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        options = ll.llama_context_default_params()
        length = call.source + call.target
        options.n_ctx = options.n_batch = options.n_ubatch = length
        options.n_threads = options.n_threads_batch = call.threads
        # No choice left to heuristics.
        options.type_k = options.type_v = 1 if given else 0
        if ik:
            options.flash_attn = flash
        else:
            options.flash_attn_type = int(flash)
        self.context = ll.llama_init_from_model(self.model, options)
        self.batch = ll.llama_batch_init(length, 0, 1)

    def forget(self, length):
        """Keeps the first tokens of the cache."""
        if ik:
            ll._lib.llama_kv_cache_seq_rm(ctypes.c_void_p(self.context), 0, length, -1)
        else:
            ll.llama_memory_seq_rm(ll.llama_get_memory(self.context), 0, length, -1)

    def feed(self, tokens, past):
        """Logits after the last token."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, past + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i + 1 == len(tokens)
        if ll.llama_decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")
        values = ll.llama_get_logits_ith(self.context, len(tokens) - 1)
        return np.ctypeslib.as_array(ctypes.cast(values, ctypes.POINTER(ctypes.c_float)),
                                     (self.size,))  # fmt: skip

    def free(self):
        ll.llama_batch_free(self.batch)
        ll.llama_free(self.context)
        (ll.llama_free_model if ik else ll.llama_model_free)(self.model)


def resident():
    """Megabytes of this process in memory: its own, and those that files lend."""
    found = dict(line.split(":") for line in open("/proc/self/status"))
    return [float(found[key].split()[0]) * 1024e-6 for key in ("RssAnon", "RssFile")]


ll.llama_backend_init()
if ik:  # its bindings have no callback of the log
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
else:
    quiet = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(quiet, None)

if call.work == "load":
    before = resident()
    run = Loaded()
    best = int(run.feed([2], 0).argmax())
    own, files = (after - b for after, b in zip(resident(), before))

    def load():
        global run
        run = Loaded()
        run.feed([2], 0)

    serve(load, [best], lambda: run.free(), memory={"own": own, "files": files})
    sys.exit()

run = Loaded()
prompt = call.tokens(run.size, rows=1)[0]
prepared = False


def prepare():
    """All of the prompt but its last token, if it is to be decoded."""
    global prepared
    length = len(prompt) - 1 if decoding else 0
    run.forget(length if prepared else 0)
    if length and not prepared:
        run.feed(prompt[:-1], 0)
    prepared = decoding


def decode():
    written, next = [], prompt[-1]
    for i in range(call.target):
        next = int(run.feed([next], len(prompt) - 1 + i).argmax())
        written.append(next)
    decode.written = written


decoding = True
prepare()
decode()
if call.work == "prefill":
    decoding = prepared = False
    serve(lambda: run.feed(prompt, 0), decode.written, prepare)
elif call.work == "decode":
    serve(decode, decode.written, prepare)
else:
    sys.exit(f"llama.cpp is not compared in {call.work}")
