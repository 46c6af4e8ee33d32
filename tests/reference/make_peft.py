#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/peft_llama from Hugging Face's PEFT: an adapter of tests/golden/llama_gqa_untied
as PEFT saves it, and in F64 what it computes on that fixture's batch.

Needs requirements.txt, and peft==0.21.2 with accelerate.
"""

import json
import pathlib
import tempfile

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from make_goldens import KeepDouble, to_double

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE.parent / "golden" / "llama_gqa_untied"
OUT = HERE.parent / "golden" / "peft_llama"


def main():
    torch.manual_seed(20)
    batch = load_file(BASE / "expected.safetensors")
    base = to_double(LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32))
    model = get_peft_model(base, LoraConfig(
        r=3, lora_alpha=5, use_rslora=True, lora_dropout=0.1, task_type="CAUSAL_LM",
        target_modules=["q_proj", "v_proj", "down_proj"]), autocast_adapter_dtype=False)
    model.eval()
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = (0.3 * torch.randn(p.shape)).float().double()
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "llama_gqa_untied"
        config["target_modules"] = sorted(config["target_modules"])
        (OUT / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        tensors = load_file(pathlib.Path(folder) / "adapter_model.safetensors")
        save_file({name: x.float() for name, x in tensors.items()},
                  OUT / "adapter_model.safetensors", {"format": "pt"})

    def loss_of():
        logits = model(batch["input_ids"].reshape(len(batch["lengths"]), -1)).logits
        labels = batch["labels"].reshape(-1)
        return logits, F.cross_entropy(logits.reshape(len(labels), -1), labels, ignore_index=-100)

    logits, loss = loss_of()
    loss.backward()
    out = {"logits": logits.detach(), "loss": loss.detach().reshape(1)}
    names = {id(p): n.replace(".default", "") for n, p in model.named_parameters() if p.requires_grad}
    for p in model.parameters():
        if p.requires_grad:
            out["grad." + names[id(p)]] = p.grad.clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2,
                                  betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    losses = []
    for step in range(11):
        optimizer.zero_grad()
        _, loss = loss_of()
        losses.append(loss.detach())
        if step < 10:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    out["adamw_losses"] = torch.stack(losses)
    save_file({k: v.contiguous() for k, v in out.items()}, OUT / "expected.safetensors")


if __name__ == "__main__":
    with KeepDouble():
        main()
