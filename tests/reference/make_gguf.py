#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/gguf: files that the gguf package of llama.cpp wrote.

blocks.gguf    metadata of every type; blocks of every tensor type with the values that the package
               decodes them to (NAME and NAME.values); numbers and the blocks that it makes of them
               (quantize.input, quantize.NAME).
llama.gguf, gpt2.gguf, t5.gguf, bert.gguf
               the weights of llama_mqa_tied, gpt2_inner, t5_v1_0_long and bert as llama.cpp's
               converter writes them (of bert without its head).

Needs the packages gguf, numpy and safetensors; see README.md.
"""

import importlib.metadata
import json
import pathlib
import re
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

VERSION = "0.19.0"
GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
OUT = GOLDEN / "gguf"

# Zeros, subnormals, ordinary and largest numbers, infinities, a NaN: bits of half-precision scales.
EDGES = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C01, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00,
                  0xFC00, 0x7E00], np.uint16)
# Where the half-precision numbers of a block stand.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def blocks(rng, name):
    """Random blocks behind one block for each edge; all bytes occur in them."""
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    n = 16 if name.endswith("_K") else 32
    made = rng.integers(0, 256, (n, size), np.uint8)
    made.reshape(-1)[-256:] = np.arange(256)
    for k, at in enumerate(SCALES[name]):
        made[:, at:at + 2] = rng.normal(0, 0.1, (n, 1)).astype(np.float16).view(np.uint8)
        # Another edge for each number: all of them meet ordinary ones, some meet others.
        made[:len(EDGES), at:at + 2] = np.roll(EDGES, 5 * k)[:, None].view(np.uint8)
    return made


def inputs(rng):
    """Rows of 64 numbers to be quantized: of all sizes, ties, equal, and zeros."""
    x = rng.normal(0, 1, (12, 64)).astype(np.float32)
    x *= np.float32(10) ** np.arange(-8, 4, dtype=np.float32)[:, None]
    x[3] = 0
    x[4] = 0.25
    x[5] = -3
    x[6, :32] = np.arange(32) - 16
    x[7, :32] = np.arange(32) / 8 - 1
    return x


def write_blocks():
    rng = np.random.default_rng(17)
    to = gguf.GGUFWriter(OUT / "blocks.gguf", "test")
    to.add_uint8("test.u8", 200)
    to.add_int8("test.i8", -100)
    to.add_uint16("test.u16", 60000)
    to.add_int16("test.i16", -30000)
    to.add_uint32("test.u32", 4000000000)
    to.add_int32("test.i32", -2000000000)
    to.add_float32("test.f32", 0.1)
    to.add_bool("test.bool", True)
    to.add_string("test.string", "a linnet: hänfling")
    to.add_uint64("test.u64", 2**63 + 1)
    to.add_int64("test.i64", -2**62)
    to.add_float64("test.f64", 0.1)
    to.add_array("test.strings", ["", "a", "bc"])
    to.add_array("test.whole", [1, -2, 3])
    to.add_array("test.reals", [0.5, -0.25])
    to.add_array("test.flags", [True, False])
    for name in SCALES:
        kind = gguf.GGMLQuantizationType[name]
        made = blocks(rng, name)
        with np.errstate(invalid="ignore", over="ignore"):
            values = gguf.dequantize(made, kind)
        to.add_tensor(name, made, raw_dtype=kind)
        to.add_tensor(name + ".values", values)
    halves = np.concatenate([EDGES, rng.integers(0, 65536, 52).astype(np.uint16)])
    for name, raw in (("F16", halves.view(np.float16)), ("BF16", halves.view(np.uint8))):
        kind = gguf.GGMLQuantizationType[name]
        to.add_tensor(name, raw, raw_dtype=kind)
        to.add_tensor(name + ".values", gguf.dequantize(raw, kind).astype(np.float32))
    x = inputs(rng)
    to.add_tensor("quantize.input", x)
    for name in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1"):
        kind = gguf.GGMLQuantizationType[name]
        with np.errstate(over="ignore"):
            to.add_tensor("quantize." + name, gguf.quantize(x, kind), raw_dtype=kind)
    finish(to)


def finish(to):
    to.write_header_to_file()
    to.write_kv_data_to_file()
    to.write_tensors_to_file()
    to.close()


def permuted(weight, heads):
    """Rows as llama.cpp's converter orders them: RoPE pairs side by side."""
    n = weight.shape[0]
    return weight.reshape(heads, 2, n // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_model(case, name, arch, fields, permute=lambda name, weight: weight, drop="none"):
    folder = GOLDEN / case
    config = json.loads((folder / "config.json").read_text())
    to = gguf.GGUFWriter(OUT / f"{name}.gguf", gguf.MODEL_ARCH_NAMES[arch])
    fields(to, config)
    blocks = max(config.get("num_hidden_layers", 0), config.get("n_layer", 0),
                 config.get("num_layers", 0), config.get("num_decoder_layers") or 0)
    names = gguf.get_tensor_name_map(arch, blocks)
    for old, weight in load_file(folder / "model.safetensors").items():
        if old.startswith(drop):
            continue
        old = old.removeprefix("bert.")
        new = names.get_name(old, try_suffixes=(".weight", ".bias"))
        assert new, old
        to.add_tensor(new, np.ascontiguousarray(permute(old, weight)))
    finish(to)


def write_llama():
    def fields(to, c):
        to.add_vocab_size(c["vocab_size"])
        to.add_context_length(c["max_position_embeddings"])
        to.add_embedding_length(c["hidden_size"])
        to.add_block_count(c["num_hidden_layers"])
        to.add_feed_forward_length(c["intermediate_size"])
        to.add_head_count(c["num_attention_heads"])
        to.add_head_count_kv(c["num_key_value_heads"])
        to.add_layer_norm_rms_eps(c["rms_norm_eps"])
        to.add_rope_freq_base(c.get("rope_theta", 10000.0))
        to.add_rope_dimension_count(c["head_dim"])
        to.add_key_length(c["head_dim"])
        to.add_value_length(c["head_dim"])

    config = json.loads((GOLDEN / "llama_mqa_tied" / "config.json").read_text())

    def permute(name, weight):
        if name.endswith("q_proj.weight"):
            return permuted(weight, config["num_attention_heads"])
        if name.endswith("k_proj.weight"):
            return permuted(weight, config["num_key_value_heads"])
        return weight

    write_model("llama_mqa_tied", "llama", gguf.MODEL_ARCH.LLAMA, fields, permute)


def write_gpt2():
    def fields(to, c):
        to.add_block_count(c["n_layer"])
        to.add_context_length(c.get("n_ctx", c["n_positions"]))
        to.add_embedding_length(c["n_embd"])
        to.add_feed_forward_length(c["n_inner"])
        to.add_head_count(c["n_head"])
        to.add_layer_norm_eps(c["layer_norm_epsilon"])

    def transposed(name, weight):
        conv = re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name)
        return weight.T if conv else weight

    write_model("gpt2_inner", "gpt2", gguf.MODEL_ARCH.GPT2, fields, transposed)


def write_t5():
    def fields(to, c):
        to.add_context_length(512)
        to.add_embedding_length(c["d_model"])
        to.add_feed_forward_length(c["d_ff"])
        to.add_block_count(c["num_layers"])
        to.add_decoder_block_count(c["num_decoder_layers"])
        to.add_head_count(c["num_heads"])
        to.add_key_length(c["d_kv"])
        to.add_value_length(c["d_kv"])
        to.add_layer_norm_eps(c["layer_norm_epsilon"])
        to.add_relative_attn_buckets_count(c["relative_attention_num_buckets"])
        to.add_layer_norm_rms_eps(c["layer_norm_epsilon"])
        to.add_decoder_start_token_id(c["decoder_start_token_id"])

    write_model("t5_v1_0_long", "t5", gguf.MODEL_ARCH.T5, fields)


def write_bert():
    def fields(to, c):
        to.add_context_length(c["max_position_embeddings"])
        to.add_embedding_length(c["hidden_size"])
        to.add_block_count(c["num_hidden_layers"])
        to.add_feed_forward_length(c["intermediate_size"])
        to.add_head_count(c["num_attention_heads"])
        to.add_layer_norm_eps(c["layer_norm_eps"])
        to.add_causal_attention(False)
        to.add_pooling_type(gguf.PoolingType.MEAN)
        to.add_token_type_count(c["type_vocab_size"])

    write_model("bert", "bert", gguf.MODEL_ARCH.BERT, fields, drop="cls.")


if __name__ == "__main__":
    if importlib.metadata.version("gguf") != VERSION:
        sys.exit(f"needs gguf {VERSION}")
    OUT.mkdir(exist_ok=True)
    write_blocks()
    write_llama()
    write_gpt2()
    write_t5()
    write_bert()
