# SPDX-License-Identifier: MIT
"""PEFT's logits beside those that a folder tells: peft_adapter.py FOLDER, with model, adapter and
told.json. With projection.safetensors, PEFT's own projection reads that, too. Prints the largest
difference over the largest logit."""

import json
import sys
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM,
                          AutoModelForSequenceClassification)

folder = Path(sys.argv[1])
told = json.loads((folder / "told.json").read_text())
config = AutoConfig.from_pretrained(folder / "model")
encodes, classifies = config.is_encoder_decoder, config.model_type == "bert"
kind = (AutoModelForSeq2SeqLM if encodes else AutoModelForSequenceClassification if classifies
        else AutoModelForCausalLM)
tokens = torch.tensor([told["tokens"]])
rows = 1 if classifies else len(told["tokens"])
want = torch.tensor(told["logits"]).reshape(rows, -1)


def plain():
    return kind.from_pretrained(folder / "model", dtype=torch.float32)


def projected(maps):
    """A prefix behind PEFT's projection, with the two maps of linnet's file."""
    made = PeftConfig.from_pretrained(folder / "adapter")
    made.inference_mode, made.prefix_projection = False, True
    made.encoder_hidden_size = maps["transform.0.weight"].shape[0]
    model = get_peft_model(plain(), made)
    model.prompt_encoder["default"].load_state_dict(maps)
    return model


def difference(model):
    model.eval()
    with torch.no_grad():
        if encodes:
            read = torch.tensor([[config.decoder_start_token_id, *told["labels"][:-1]]])
            logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens),
                           decoder_input_ids=read).logits
        else:
            logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    got = logits.reshape(-1, want.shape[1])[-rows:]  # those of soft tokens stand before
    return float((got - want).abs().max() / want.abs().max())


found = [difference(PeftModel.from_pretrained(plain(), folder / "adapter"))]
if (folder / "projection.safetensors").exists():
    found.append(difference(projected(load_file(folder / "projection.safetensors"))))
print(max(found))
