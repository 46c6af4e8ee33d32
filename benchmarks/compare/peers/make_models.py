# SPDX-License-Identifier: MIT
"""Writes models with random weights as Transformers does: make_models.py FOLDER NAME..."""

import os
import sys

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration


def t5(width, hidden, kv, heads, layers):
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=32128, d_model=width, d_ff=hidden, d_kv=kv, num_heads=heads,
            num_layers=layers, num_decoder_layers=layers, dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )


def stlm():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50257, hidden_size=512, intermediate_size=1536, num_hidden_layers=10,
            num_attention_heads=16, num_key_value_heads=16, max_position_embeddings=512,
            rms_norm_eps=1e-6, tie_word_embeddings=True,
        )
    )


makers = {
    "t5-mini": lambda: t5(384, 1536, 32, 8, 4),
    "t5-small": lambda: t5(512, 2048, 64, 8, 6),
    "stlm": stlm,
}

def lively(model):
    """Louder blocks: with usual initial values a tied head only repeats the last token."""
    for name, weight in model.named_parameters():
        if name.endswith(("wo.weight", "Attention.o.weight", "o_proj.weight", "down_proj.weight")):
            if not name.startswith("encoder"):
                weight.data.mul_(8 if "EncDec" in name else 30)
    return model


transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
folder = sys.argv[1]
for name in sys.argv[2:]:
    if not os.path.exists(f"{folder}/{name}/config.json"):
        torch.manual_seed(1)
        lively(makers[name]()).save_pretrained(f"{folder}/{name}")
