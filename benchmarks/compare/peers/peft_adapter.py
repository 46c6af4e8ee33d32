# SPDX-License-Identifier: MIT
"""PEFT's logits beside those that a folder tells: peft_adapter.py FOLDER, with model, adapter and
told.json. Prints the largest difference over the largest logit."""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import (AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM,
                          AutoModelForSequenceClassification)

folder = Path(sys.argv[1])
told = json.loads((folder / "told.json").read_text())
config = AutoConfig.from_pretrained(folder / "model")
encodes, classifies = config.is_encoder_decoder, config.model_type == "bert"
kind = (AutoModelForSeq2SeqLM if encodes else AutoModelForSequenceClassification if classifies
        else AutoModelForCausalLM)
base = kind.from_pretrained(folder / "model", dtype=torch.float32)
model = PeftModel.from_pretrained(base, folder / "adapter").eval()
tokens = torch.tensor([told["tokens"]])
with torch.no_grad():
    if encodes:
        read = torch.tensor([[config.decoder_start_token_id, *told["labels"][:-1]]])
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens),
                       decoder_input_ids=read).logits
    else:
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
rows = 1 if classifies else len(told["tokens"])
want = torch.tensor(told["logits"]).reshape(rows, -1)
got = logits.reshape(-1, want.shape[1])[-rows:]  # those of soft tokens stand before
print(float((got - want).abs().max() / want.abs().max()))
