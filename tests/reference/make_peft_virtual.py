#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/peft_prompt, peft_prefix and peft_adaption from Hugging Face's PEFT: soft tokens,
prefixes and gated prompts of tests/golden/llama_gqa_untied as PEFT saves them, and in F64 what they
compute on that fixture's batch.

Needs requirements.txt, and peft==0.21.2 with accelerate.
"""

import json
import pathlib
import tempfile

import torch
import torch.nn.functional as F
from peft import AdaptionPromptConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from make_goldens import KeepDouble, to_double

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE.parent / "golden" / "llama_gqa_untied"


def write(name, config, virtual_logits, gates=False):
    """One case; the first `virtual_logits` of a sequence are those of virtual tokens."""
    out = HERE.parent / "golden" / name
    torch.manual_seed(21)
    batch = load_file(BASE / "expected.safetensors")
    base = to_double(LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32))
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    model.eval()
    trained = {name.split(".", 3)[-1].replace(".default", ""): p
               for name, p in model.named_parameters() if p.requires_grad}
    for rows in trained.values():
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
    grads = {"grad." + (name if gates else "prompt_embeddings"): p.grad.contiguous()
             for name, p in trained.items()}
    save_file({"logits": logits.detach().contiguous(), "loss": loss.detach().reshape(1), **grads},
              out / "expected.safetensors")


def main():
    write("peft_prompt", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), 3)
    write("peft_prefix", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), 0)
    write("peft_adaption",
          AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=5, adapter_layers=2), 0, True)


if __name__ == "__main__":
    with KeepDouble():
        main()
