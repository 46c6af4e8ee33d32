# SPDX-License-Identifier: MIT
"""PEFT's logits beside those that a folder tells: peft_adapter.py FOLDER, with model, adapter and
told.json. Prints the largest difference over the largest logit."""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

folder = Path(sys.argv[1])
told = json.loads((folder / "told.json").read_text())
encodes = AutoConfig.from_pretrained(folder / "model").is_encoder_decoder
kind = AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM
base = kind.from_pretrained(folder / "model", dtype=torch.float32)
model = PeftModel.from_pretrained(base, folder / "adapter").eval()
tokens = torch.tensor([told["tokens"]])
with torch.no_grad():
    if encodes:
        logits = model(input_ids=tokens, labels=torch.tensor([told["labels"]])).logits
    else:
        logits = model(input_ids=tokens).logits
want = torch.tensor(told["logits"]).reshape(logits[0].shape)
print(float((logits[0] - want).abs().max() / want.abs().max()))
