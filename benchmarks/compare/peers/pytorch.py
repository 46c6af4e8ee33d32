# SPDX-License-Identifier: MIT
"""PyTorch with Transformers' models: eager, or compiled (mode "compile")."""

import warnings

import torch
import transformers
from side import arguments, mean, serve

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
call = arguments()
torch.set_num_threads(call.threads)
torch.manual_seed(1)

config = transformers.AutoConfig.from_pretrained(call.weights)
encodes = config.is_encoder_decoder
loader = (transformers.AutoModel if call.work == "embed"
          else transformers.AutoModelForSeq2SeqLM if encodes
          else transformers.AutoModelForCausalLM)  # fmt: skip
model = loader.from_pretrained(call.weights, dtype=torch.float32).eval()
tokens = torch.tensor(call.tokens(config.vocab_size))
start = torch.zeros((call.batch, 1), dtype=torch.long)  # of every T5 target

if call.type == "bf16" and call.work != "train":
    model = model.to(torch.bfloat16)
if call.type == "int8":
    torch.backends.quantized.engine = "onednn"
    model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
compiled = torch.compile if call.mode == "compile" else lambda f: f


class Decode:
    """Greedy decoding with a key-value cache."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.forward = compiled(model.forward)

    def prepare(self):
        if encodes:
            self.next = start[: len(self.tokens)]
            self.given = {"encoder_outputs": model.get_encoder()(self.tokens)}
            self.past = transformers.EncoderDecoderCache(
                transformers.DynamicCache(), transformers.DynamicCache()
            )
        else:
            self.next, self.given = self.tokens[:, -1:], {}
            self.past = transformers.DynamicCache()
            if self.tokens.shape[1] > 1:
                model(self.tokens[:, :-1], past_key_values=self.past, logits_to_keep=1)

    def __call__(self):
        written = []
        for _ in range(call.target):
            fed = {"decoder_input_ids" if encodes else "input_ids": self.next}
            out = self.forward(**fed, **self.given, past_key_values=self.past, use_cache=True)
            self.next = out.logits[:, -1:].argmax(-1)
            written.append(self.next[0, 0].item())
        self.written = written


def train():
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    rows = torch.tensor(call.tokens(config.vocab_size, columns=call.target or call.source))
    forward = compiled(model.forward)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=call.type == "bf16"):
            if encodes:
                loss = forward(input_ids=tokens, labels=rows).loss
            else:  # labels are the tokens themselves, not shifted: the same work as linnet's
                logits = forward(input_ids=tokens).logits.float()
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    first = step()
    serve(step, [first])


if call.work == "train":
    train()
elif call.work == "embed":
    with torch.inference_mode():
        embed = compiled(model.forward)
        serve(lambda: embed(tokens), mean(embed(tokens).last_hidden_state[0].numpy()))
else:
    with torch.inference_mode():
        greedy = Decode(tokens[:1])
        greedy.forward = model.forward
        greedy.prepare()
        greedy()
        if call.work == "encode":
            encoder = compiled(model.get_encoder())
            serve(lambda: encoder(tokens), greedy.written)
        elif call.work == "prefill":
            forward = compiled(model.forward)
            serve(lambda: forward(tokens, logits_to_keep=1), greedy.written)
        else:
            decode = Decode(tokens)
            serve(decode, greedy.written, decode.prepare)
