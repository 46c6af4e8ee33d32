#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/peft_* of soft tokens, prefixes and gated prompts from Hugging Face's PEFT: as
PEFT saves them for the fixtures llama_gqa_untied, t5_v1_0 and bert_sequence, and in F64 what they
compute on those fixtures' batches.

Needs requirements.txt, and peft==0.21.2 with accelerate.
"""

import json
import pathlib
import tempfile

import torch
import torch.nn.functional as F
from peft import AdaptionPromptConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (BertForSequenceClassification, LlamaForCausalLM,
                          T5ForConditionalGeneration)

from make_goldens import KeepDouble, to_double

HERE = pathlib.Path(__file__).resolve().parent
CLASSES = {"llama_gqa_untied": LlamaForCausalLM, "t5_v1_0": T5ForConditionalGeneration,
           "bert_sequence": BertForSequenceClassification}


def mask(lengths, width):
    return (torch.arange(width)[None] < lengths[:, None]).long()


def logits_of(model, batch, base):
    """All logits of a fixture's batch."""
    if base == "t5_v1_0":
        lengths = batch["source_lengths"]
        ids = batch["source_ids"].reshape(len(lengths), -1)
        labels = batch["labels"].reshape(len(lengths), -1)
        read = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], 1).clamp(min=0)
        return model(input_ids=ids, attention_mask=mask(lengths, ids.shape[1]),
                     decoder_input_ids=read).logits
    ids = batch["input_ids"].reshape(len(batch["lengths"]), -1)
    if base == "bert_sequence":
        return model(input_ids=ids, attention_mask=mask(batch["lengths"], ids.shape[1]),
                     token_type_ids=batch["types"].reshape(ids.shape)).logits
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def write(name, config, virtual_logits, gates=False, base_name="llama_gqa_untied"):
    """One case; the first `virtual_logits` of a sequence are those of virtual tokens."""
    out = HERE.parent / "golden" / name
    torch.manual_seed(21)
    folder_of_base = HERE.parent / "golden" / base_name
    batch = load_file(folder_of_base / "expected.safetensors")
    base = to_double(CLASSES[base_name].from_pretrained(folder_of_base, dtype=torch.float32))
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    model.eval()
    trained = {name.split(".", 3)[-1].replace(".default", ""): p
               for name, p in model.named_parameters()
               if p.requires_grad and (gates or "prompt" in name)}
    for rows in trained.values():
        rows.data = (0.3 * torch.randn(rows.shape)).float().double()
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        said = json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())
        said["base_model_name_or_path"] = base_name
        if "modules_to_save" in said:
            said["modules_to_save"] = None  # PEFT would train a classifier, too
        (out / "adapter_config.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
        tensors = load_file(pathlib.Path(folder) / "adapter_model.safetensors")
        tensors = {key: x for key, x in tensors.items() if key == "prompt_embeddings" or gates}
        save_file({key: x.float() for key, x in tensors.items()},
                  out / "adapter_model.safetensors", {"format": "pt"})
    logits = logits_of(model, batch, base_name)
    logits = logits[:, virtual_logits:] if logits.dim() == 3 else logits
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
    for kind, config in ("prompt", PromptTuningConfig), ("prefix", PrefixTuningConfig):
        write(f"peft_{kind}_t5",
              config(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, num_layers=3), 0,  # the decoder's
              base_name="t5_v1_0")
        write(f"peft_{kind}_bert", config(task_type="SEQ_CLS", num_virtual_tokens=3), 0,
              base_name="bert_sequence")


if __name__ == "__main__":
    with KeepDouble():
        main()
