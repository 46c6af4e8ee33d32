#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/peft_prompt and peft_prefix from Hugging Face's PEFT: soft tokens and prefixes
of tests/golden/llama_gqa_untied as PEFT saves them, and in F64 what they compute on that fixture's
batch.

Needs requirements.txt, and peft==0.21.2 with accelerate.
"""

import json
import pathlib
import tempfile

import torch
import torch.nn.functional as F
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from make_goldens import KeepDouble, to_double

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE.parent / "golden" / "llama_gqa_untied"


def write(name, config, virtual_logits):
    """One case; the first `virtual_logits` of a sequence are those of virtual tokens."""
    out = HERE.parent / "golden" / name
    torch.manual_seed(21)
    batch = load_file(BASE / "expected.safetensors")
    base = to_double(LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32))
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    model.eval()
    encoder = model.prompt_encoder["default"]
    rows = encoder.embedding.weight
    rows.data = (0.3 * torch.randn(rows.shape)).float().double()
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        said = json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())
        said["base_model_name_or_path"] = "llama_gqa_untied"
        (out / "adapter_config.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
        tensors = load_file(pathlib.Path(folder) / "adapter_model.safetensors")
        save_file({key: x.float() for key, x in tensors.items()},
                  out / "adapter_model.safetensors", {"format": "pt"})
    ids = batch["input_ids"].reshape(len(batch["lengths"]), -1)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, virtual_logits:]
    labels = batch["labels"].reshape(-1)
    loss = F.cross_entropy(logits.reshape(len(labels), -1), labels, ignore_index=-100)
    loss.backward()
    save_file({"logits": logits.detach().contiguous(), "loss": loss.detach().reshape(1),
               "grad.prompt_embeddings": rows.grad.contiguous()}, out / "expected.safetensors")


def main():
    write("peft_prompt", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), 3)
    write("peft_prefix", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), 0)


if __name__ == "__main__":
    with KeepDouble():
        main()
