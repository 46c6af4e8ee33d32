#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the golden fixtures in tests/golden from Hugging Face Transformers.

Each case is a tiny model with random weights, saved the way HF saves it
(config.json, model.safetensors), and the numbers it must give in double
precision (expected.safetensors): logits, loss, gradients, ten AdamW steps.
See README.md for the meaning of every tensor.
"""

import argparse
import copy
import importlib.metadata
import pathlib
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save, save_file
from torch.overrides import TorchFunctionMode
from transformers import (AlbertConfig, AlbertForMaskedLM, BertConfig, BertForMaskedLM,
                          BertForSequenceClassification, DistilBertConfig, DistilBertForMaskedLM,
                          DistilBertForSequenceClassification, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM,
                          MambaConfig, MambaForCausalLM, ReformerConfig, RobertaConfig,
                          RobertaForMaskedLM, RobertaForSequenceClassification, RwkvConfig, RwkvForCausalLM, T5Config, T5ForConditionalGeneration)
from transformers.models.reformer.modeling_reformer import LSHSelfAttention, ReformerSelfOutput
from transformers.utils import logging

HERE = pathlib.Path(__file__).resolve().parent
IGNORE = -100

# Scale of everything on the residual stream. mean(x^2) is then about 1e-4, small
# enough for every norm to feel its eps. Much smaller than the AdamW step of 1e-3
# it must not be, or the training losses amplify rounding errors.
SMALL = 1e-2

# Tolerances of the C++ tests, here to check that a correct float32
# implementation (HF's own) meets them with a factor of ten to spare.
TOL_LOGITS_F64 = 1e-6
TOL_LOGITS_F32 = 1e-4
TOL_LOSS = 1e-5
TOL_GRAD = 1e-4
TOL_ADAMW = 1e-4


# ---- cases ----

def t5(**kw):
    kw = dict(d_model=24, d_kv=6, num_heads=4, num_layers=2, vocab_size=37, dropout_rate=0.0,
              decoder_start_token_id=0) | kw
    return T5ForConditionalGeneration, T5Config(**kw)


def llama(**kw):
    kw = dict(hidden_size=24, num_attention_heads=4, vocab_size=41, max_position_embeddings=32,
              bos_token_id=1, eos_token_id=2,
              rope_parameters={"rope_type": "default", "rope_theta": 10000.0}) | kw
    return LlamaForCausalLM, LlamaConfig(**kw)


def gpt2(**kw):
    kw = dict(n_embd=24, n_head=4, n_layer=2, n_positions=32, vocab_size=41, bos_token_id=0,
              eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0) | kw
    return GPT2LMHeadModel, GPT2Config(**kw)


def mamba(**kw):
    kw = dict(hidden_size=24, state_size=5, vocab_size=41, num_hidden_layers=3,
              layer_norm_epsilon=1e-5) | kw
    return MambaForCausalLM, MambaConfig(**kw)


def rwkv4(**kw):
    # Without the rescaling that is meant for half precision, and without states written in place.
    kw = dict(hidden_size=20, intermediate_size=28, num_hidden_layers=2, vocab_size=41,
              context_length=32, rescale_every=0, use_cache=False, tie_word_embeddings=False) | kw
    return RwkvForCausalLM, RwkvConfig(**kw)


ENCODER = dict(hidden_size=12, num_attention_heads=3, num_hidden_layers=2, intermediate_size=20,
               vocab_size=31, max_position_embeddings=24, hidden_dropout_prob=0.0,
               attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0)


def bert(cls=BertForMaskedLM, **kw):
    # An eps that every norm feels.
    return cls, BertConfig(**(ENCODER | dict(layer_norm_eps=3e-3) | kw))


def distilbert(cls=DistilBertForMaskedLM, **kw):
    return cls, DistilBertConfig(dim=12, n_heads=3, n_layers=2, hidden_dim=20, vocab_size=31,
                                 max_position_embeddings=24, dropout=0.0, attention_dropout=0.0,
                                 seq_classif_dropout=0.0, **kw)


def albert(**kw):
    return AlbertForMaskedLM, AlbertConfig(**(ENCODER | dict(
        embedding_size=8, layer_norm_eps=3e-3, inner_group_num=1, num_hidden_groups=1) | kw))


def roberta(cls=RobertaForMaskedLM, **kw):
    # Two rows of positions before the first token's, one type; the padding's id is not among the random ones.
    return cls, RobertaConfig(**(ENCODER | dict(layer_norm_eps=3e-3, max_position_embeddings=26,
                                                type_vocab_size=1, pad_token_id=1) | kw))


ENCODERS = ("bert", "distilbert", "albert", "roberta")

# name: (model, source lengths, target lengths) for T5, (model, lengths) for decoders.
CASES = {
    "t5_v1_0": (t5(d_ff=40, num_decoder_layers=3), (13, 7, 1), (9, 6, 3)),
    # Long enough to reach the last bucket of both bias tables.
    "t5_v1_0_long": (t5(d_model=16, d_kv=6, num_heads=2, d_ff=20, num_layers=1, vocab_size=19),
                     (150, 141), (131, 40)),
    # num_heads * d_kv = 15 differs from d_model.
    "t5_v1_1": (t5(d_model=18, d_kv=5, num_heads=3, d_ff=34, vocab_size=43,
                   feed_forward_proj="gated-gelu", tie_word_embeddings=False),
                (11, 4, 8), (7, 5, 2)),
    "llama_gqa_untied": (llama(num_key_value_heads=2, intermediate_size=44, num_hidden_layers=3,
                               rms_norm_eps=1e-5), (17, 11, 5)),
    "llama_mha_tied": (llama(hidden_size=16, num_key_value_heads=4, intermediate_size=26,
                             num_hidden_layers=2, rms_norm_eps=1e-6, tie_word_embeddings=True), (13, 9)),
    # head_dim is not hidden_size / heads.
    "llama_mqa_tied": (llama(num_key_value_heads=1, head_dim=8, intermediate_size=34,
                             num_hidden_layers=2, rms_norm_eps=1e-5, vocab_size=47,
                             tie_word_embeddings=True), (15, 6, 1)),
    "gpt2": (gpt2(), (17, 11, 5)),
    "gpt2_inner": (gpt2(n_layer=1, n_inner=50, vocab_size=37), (13, 10)),
    # Longer than a block of the scan.
    "mamba": (mamba(), (39, 33, 5)),
    # Another filter, another expansion, biases.
    "mamba_untied": (mamba(hidden_size=18, state_size=4, conv_kernel=3, expand=3, use_bias=True,
                           num_hidden_layers=2, tie_word_embeddings=False), (17, 11)),
    "rwkv4": (rwkv4(), (19, 11, 5)),
    "bert": (bert(), (17, 11, 5)),
    "bert_sequence": (bert(BertForSequenceClassification, num_labels=3, num_hidden_layers=1), (9, 13, 4)),
    "distilbert": (distilbert(), (13, 9)),
    "distilbert_sequence": (distilbert(DistilBertForSequenceClassification, num_labels=4), (7, 12, 1)),
    "albert": (albert(), (11, 15)),
    "roberta": (roberta(), (15, 10, 6)),
    "roberta_sequence": (roberta(RobertaForSequenceClassification, num_labels=3), (12, 7, 3)),
}


# ---- weights ----

def fill_weights(model, gen):
    """Random float32 weights, scaled per role so that logits are O(1) while the residual stream is SMALL."""
    if model.config.model_type in ENCODERS:
        return fill_encoder(model, gen)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    final_norm = {"t5": "decoder.final_layer_norm.", "llama": "model.norm.",
                  "gpt2": "transformer.ln_f.", "mamba": "backbone.norm_f.",
                  "rwkv": "rwkv.ln_out."}[model.config.model_type]
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=gen)
        module, kind = name.split(".")[-2:]
        fan_in = p.shape[0] if model.config.model_type == "gpt2" else p.shape[-1]
        writes_residual = (module in ("o", "wo", "o_proj", "down_proj", "c_proj", "out_proj", "pre_ln")
                           or name.endswith(("attention.output.weight", "feed_forward.value.weight")))
        if module == "pre_ln":  # the embedding's norm begins the residual stream
            x = SMALL * (0.2 * x + (1 if kind == "weight" else 0))
        elif kind.startswith("time_mix"):
            x = 0.5 + 0.3 * x
        elif kind.startswith("time_"):
            x -= 1
        elif "norm" in module or module.startswith("ln"):
            x = 0.2 * x + (1 if kind == "weight" else 0)
            if tied and name.startswith(final_norm):
                # The tied head reads SMALL rows; undo that here. T5 also divides by sqrt(d_model).
                x /= SMALL * (1 if model.config.model_type == "t5" else p.numel() ** 0.5)
        elif kind == "bias":
            x *= 0.3 * (SMALL if writes_residual else 1)
        elif module in ("shared", "embed_tokens", "wte", "wpe", "embeddings"):
            x *= SMALL
        elif kind == "A_log":
            x = 0.3 * x + torch.arange(1, p.shape[1] + 1).log()
        elif kind == "D":
            x = 0.3 * x + 1
        elif module == "relative_attention_bias":
            pass
        else:
            x *= fan_in ** -0.5 * (SMALL if writes_residual else 1)
        p.data = x


def fill_encoder(model, gen):
    """The same for encoders, whose stream is normalised in every block."""
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=gen)
        module, kind = name.split(".")[-2:]
        if "norm" in module.lower():
            x = 0.2 * x + (1 if kind == "weight" else 0)
        elif kind == "bias":
            x *= 0.3
        elif module.endswith("embeddings"):
            x *= 0.2
        else:
            x *= p.shape[-1] ** -0.5
        p.data = x


def build(make, gen):
    cls, config = make
    config._attn_implementation = "eager"
    model = cls(copy.deepcopy(config)).eval()
    if getattr(config, "scale_decoder_outputs", True) is False:
        # T5 v1.1 has its own head. This version of HF ties it in a fresh model
        # and only keeps it apart when a checkpoint says so.
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    fill_weights(model, gen)
    return model


# ---- running HF in double precision ----

class KeepDouble(TorchFunctionMode):
    """Skip HF's casts to float32 when the tensor is float64.

    Norms, softmax and rotary angles go through float32 for the sake of half
    precision; in a float64 run that would round everything to seven digits.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        x = args[0] if args else None
        if isinstance(x, torch.Tensor) and x.dtype == torch.float64:
            if func is torch.Tensor.float:
                return x
            if func is torch.Tensor.to and torch.float32 in (*args[1:], kwargs.get("dtype")):
                return x
            if kwargs.get("dtype") is torch.float32:
                kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def to_double(model):
    model = copy.deepcopy(model).double()
    if model.config.model_type == "llama":
        # Computed in float32 by HF.
        h, theta = model.config.head_dim, model.config.rope_parameters["rope_theta"]
        model.model.rotary_emb.inv_freq = theta ** -(torch.arange(0, h, 2, dtype=torch.float64) / h)
    return model


def run(model, inputs):
    """Loss, logits and, for T5, the encoder output; of encoders all hidden states."""
    labels = inputs["labels"]
    if "source_ids" in inputs:
        mask = length_mask(inputs["source_lengths"], inputs["source_ids"])
        out = model(input_ids=inputs["source_ids"], attention_mask=mask.long(), labels=labels)
        hidden = out.encoder_last_hidden_state
    else:
        mask = length_mask(inputs["lengths"], inputs["input_ids"])
        encoder = model.config.model_type in ENCODERS
        more = {"token_type_ids": inputs["types"]} if "types" in inputs else {}
        out = model(input_ids=inputs["input_ids"], attention_mask=mask.long(), **more,
                    output_hidden_states=encoder)
        hidden = torch.stack(out.hidden_states) if encoder else None
    loss = F.cross_entropy(out.logits.reshape(-1, out.logits.shape[-1]), labels.flatten(),
                           ignore_index=IGNORE)
    if out.loss is not None:
        assert torch.allclose(loss, out.loss, rtol=1e-12 if loss.dtype == torch.float64 else 1e-6)
    return loss, out.logits, hidden


def gradients(model, inputs):
    model.zero_grad(set_to_none=True)
    run(model, inputs)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def adamw_losses(model, inputs, steps=10):
    """Loss before each step and after the last, always on the same batch."""
    model = copy.deepcopy(model)
    params = list(model.parameters())  # tied tensors appear once
    decays = [(p.squeeze().dim() >= 2 or n.endswith("token_type_embeddings.weight"))  # of one type, too
              and not n.endswith("A_log") for n, p in model.named_parameters()]
    opt = torch.optim.AdamW([
        {"params": [p for p, d in zip(params, decays) if d], "weight_decay": 0.1},
        {"params": [p for p, d in zip(params, decays) if not d], "weight_decay": 0.0},
    ], lr=1e-3, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    losses = []
    for _ in range(steps):
        opt.zero_grad()
        loss = run(model, inputs)[0]
        losses.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)  # g *= min(1, 1 / (norm + 1e-6))
        opt.step()
    losses.append(run(model, inputs)[0].item())
    return torch.tensor(losses, dtype=torch.float64)


# ---- inputs ----

def length_mask(lengths, ids):
    return torch.arange(ids.shape[1]) < lengths[:, None]


def make_encoder_inputs(model, inputs, gen):
    """Token types and, for a classifier, one label per sequence."""
    if hasattr(model.config, "type_vocab_size"):
        inputs["types"] = torch.randint(0, model.config.type_vocab_size, inputs["input_ids"].shape, generator=gen)
    if "SequenceClassification" in type(model).__name__:
        inputs["labels"] = torch.randint(0, model.config.num_labels, (len(inputs["lengths"]),),
                                         generator=gen)
    return inputs


def make_inputs(vocab, lengths, gen):
    """Random ids. Positions past the end hold random ids too: padding must not matter."""
    def ids(rows, cols):
        return torch.randint(3, vocab, (rows, cols), generator=gen)

    if len(lengths) == 2:
        source, target = (torch.tensor(x) for x in lengths)
        labels = ids(len(target), int(target.max()))
        labels[torch.arange(len(target)), target - 1] = 1  # end of sequence
        labels[~length_mask(target, labels)] = IGNORE
        return {"source_ids": ids(len(source), int(source.max())), "source_lengths": source, "labels": labels}

    rows = torch.tensor(lengths[0])
    tokens = ids(len(rows), int(rows.max()) + 1)
    inputs = {"input_ids": tokens[:, :-1].contiguous(), "lengths": rows, "labels": tokens[:, 1:].clone()}
    inputs["labels"][~length_mask(rows, inputs["labels"])] = IGNORE
    inputs["labels"][1, :3] = IGNORE  # as for a prompt that is not trained on
    return inputs


# ---- checks on the fixtures themselves ----

def valid_logits(logits, inputs):
    """Logits a padded implementation can be asked for: all of T5's, the decoders' up to the length."""
    if "lengths" not in inputs or logits.dim() == 2:
        return logits
    return logits[length_mask(inputs["lengths"], inputs["input_ids"])]


def check_eps(model, inputs, logits):
    """Ten times the eps, in one norm at a time, must change the logits by far more than the tolerance."""
    weakest = float("inf")
    for module in model.modules():
        attr = next((a for a in ("variance_epsilon", "eps") if hasattr(module, a)), None)
        if attr is None:
            continue
        eps = getattr(module, attr)
        setattr(module, attr, 10 * eps)
        with torch.no_grad():
            change = valid_logits(run(model, inputs)[1] - logits, inputs).abs().max().item()
        setattr(module, attr, eps)
        weakest = min(weakest, change / valid_logits(logits, inputs).abs().max().item())
        assert change > 100 * TOL_LOGITS_F64
    assert 1e-3 < weakest < float("inf")
    return weakest


def check_gradients(model, inputs, grads, gen):
    """Central difference along a random direction. Any float32 left in the forward pass would show."""
    moved = [copy.deepcopy(model) for _ in range(2)]
    slope = 0.0
    with torch.no_grad():
        for (name, p), a, b in zip(model.named_parameters(), *(m.parameters() for m in moved)):
            step = 1e-7 * p.square().mean().sqrt() * torch.randn(p.shape, generator=gen).double()
            a += step
            b -= step
            slope += 2 * (grads[name] * step).sum().item()
        diff = (run(moved[0], inputs)[0] - run(moved[1], inputs)[0]).item()
    assert abs(diff - slope) < 1e-6 * abs(slope), (diff, slope)


def check_buckets(name, grads):
    """Every row of a T5 bias table is used, but for the encoder's row 16, which no distance maps to."""
    unused = {stack: (grads[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] == 0)
              .all(1).nonzero().flatten().tolist() for stack in ("encoder", "decoder")}
    if name == "t5_v1_0_long":
        assert unused == {"encoder": [16], "decoder": []}, unused


def check_float32(model, inputs, want):
    """Stock HF in float32 stays well within the tolerances, so that they can be asked of others."""
    loss, logits, _ = run(model, inputs)
    logits_error = valid_logits(logits - want["logits"], inputs).abs().max().item()
    # The bias of keys has no derivative but rounding: it adds the same to all scores of a query.
    grad_error = max(((g - want["grad." + n]).norm() / (size if size > 1e-12 else 1)).item()
                     for n, g in gradients(model, inputs).items()
                     for size in [want["grad." + n].norm().item()])
    adamw_error = (adamw_losses(model, inputs) - want["adamw_losses"]).abs().max().item()
    print(f"    float32: logits {logits_error:.1e}, gradients {grad_error:.1e}, AdamW {adamw_error:.1e}")
    assert logits_error < TOL_LOGITS_F32 / 10 and grad_error < TOL_GRAD / 10 and adamw_error < TOL_ADAMW / 10
    assert abs(loss.item() - want["loss"].item()) < TOL_LOSS / 10


# ---- linnet's names, for models whose files linnet does not read ----

def in_linnet_names(tensors):
    """RWKV-4's tensors, and gradients, under linnet's names; vectors with one dimension."""
    rules = (("rwkv.blocks.0.pre_ln", "embedding.norm"), ("rwkv.embeddings", "embedding"),
             ("rwkv.ln_out", "norm"), ("rwkv.", ""), (".ln1.", ".attention.norm."),
             (".ln2.", ".ffn.norm."), ("feed_forward", "ffn"), ("time_mix_key", "time_mix_k"),
             ("time_mix_value", "time_mix_v"), ("time_mix_receptance", "time_mix_r"))
    renamed = {}
    for name, tensor in tensors.items():
        for theirs, ours in rules:
            name = name.replace(theirs, ours)
        renamed[name] = tensor.squeeze().contiguous() if "time_mix" in name else tensor
    return renamed


# ---- layers ----

def make_reformer_lsh(out):
    """Reformer's attention alone, causal and not, one round of hashing."""
    length, want = 32, {}
    for name, causal in (("causal.", True), ("whole.", False)):
        config = ReformerConfig(hidden_size=6, num_attention_heads=2, attention_head_size=4,
                                lsh_attn_chunk_length=4, num_buckets=8, num_hashes=1, hash_seed=5,
                                lsh_num_chunks_before=1, lsh_num_chunks_after=0, axial_pos_embds=False,
                                is_decoder=causal, lsh_attention_probs_dropout_prob=0.0,
                                hidden_dropout_prob=0.0)
        attention, output = LSHSelfAttention(config).double(), ReformerSelfOutput(config).double()
        gen = torch.Generator().manual_seed(7)
        weights = {"q.weight": attention.query_key.weight, "v.weight": attention.value.weight,
                   "o.weight": output.dense.weight}
        for tensor in weights.values():
            tensor.data = torch.randn(tensor.shape, generator=gen, dtype=torch.float64)
        x, dy = torch.randn(2, 2, length, config.hidden_size, generator=gen, dtype=torch.float64)
        x.requires_grad_()
        mixed = attention(x)
        y = output(mixed.hidden_states)
        grads = torch.autograd.grad((y * dy).sum(), [x, *weights.values()])
        torch.manual_seed(config.hash_seed)  # as the layer does: [heads, width, rounds, buckets / 2]
        rotations = torch.randn(2, 4, 1, 4, dtype=torch.float64)[:, :, 0].contiguous()
        scores = torch.einsum("bmtd,mdr->bmtr", attention._split_hidden_size_dim(
            attention.query_key(x), 2, 4), rotations)
        assert torch.equal(torch.cat([scores, -scores], -1).argmax(-1), mixed.buckets[:, :, 0])
        want |= {name + k: v.detach().contiguous() for k, v in {
            "x": x, "dy": dy, "y": y, "rotations": rotations, **weights,
            **{"grad." + n: g for n, g in zip(["x", *weights], grads)}}.items()}
    (out / "expected.safetensors").write_bytes(save(want))
    print(f"{out.name}: {sum(f.stat().st_size for f in out.iterdir()) / 1024:.0f} KiB")


LAYERS = {"reformer_lsh": make_reformer_lsh}


# ---- main ----

def make_layer(name, out_dir):
    out = out_dir / name
    out.mkdir(parents=True, exist_ok=True)
    LAYERS[name](out)


def make_case(name, out_dir):
    # With an unlucky seed the ten AdamW steps amplify rounding; check_float32 tells.
    gen = torch.Generator().manual_seed(31 + list(CASES).index(name))
    make, *lengths = CASES[name]
    single = build(make, gen)
    inputs = make_inputs(single.config.vocab_size, lengths, gen)
    if single.config.model_type in ENCODERS:
        inputs = make_encoder_inputs(single, inputs, gen)

    out = out_dir / name
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        single.save_pretrained(tmp)
        for file in ("config.json", "model.safetensors"):
            (out / file).write_bytes((pathlib.Path(tmp) / file).read_bytes())
        # What was saved reads back as the same model.
        again = type(single).from_pretrained(tmp, attn_implementation="eager").eval()
        assert torch.equal(run(again, inputs)[1], run(single, inputs)[1])

    with KeepDouble():
        model = to_double(single)
        loss, logits, hidden = (x if x is None else x.detach() for x in run(model, inputs))
        grads = gradients(model, inputs)
        want = dict(inputs) | {"logits": logits, "loss": loss.reshape(1),
                               "adamw_losses": adamw_losses(model, inputs)}
        if single.config.model_type in ENCODERS:
            want["hidden.states"] = hidden
        elif hidden is not None:
            want["hidden.encoder"] = hidden
            check_buckets(name, grads)
        want |= {"grad." + n: g for n, g in grads.items()}
        # DistilBERT's eps is a constant, far below its values.
        weakest = (check_eps(model, inputs, logits) if single.config.model_type != "distilbert"
                   else float("nan"))
        check_gradients(model, inputs, grads, gen)

    # One gradient per stored tensor, none of them zero, all in double.
    stored = load_file(out / "model.safetensors")
    assert set(stored) == set(grads)
    assert all(t.dtype == torch.float32 for t in stored.values())
    assert all(t.dtype in (torch.float64, torch.int64) and t.isfinite().all() for t in want.values())
    assert all(g.norm() > 0 for g in grads.values())

    kept = want
    if single.config.model_type == "rwkv":
        kept = in_linnet_names(want)
        save_file(in_linnet_names(stored), out / "model.safetensors")
    (out / "expected.safetensors").write_bytes(save(kept))

    norm = sum(g.square().sum() for g in grads.values()).sqrt()
    losses = want["adamw_losses"]
    print(f"{name}: {sum(t.numel() for t in stored.values())} parameters, "
          f"{sum(f.stat().st_size for f in out.iterdir()) / 1024:.0f} KiB")
    print(f"    logits std {valid_logits(logits, inputs).std():.2f}, loss {losses[0]:.4f} -> {losses[-1]:.4f}, "
          f"gradient norm {norm:.3g}, eps x10 changes logits by {weakest:.1e} or more")
    check_float32(single, inputs, want)


def check_versions():
    for line in (HERE / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            package, version = line.split("==")
            found = importlib.metadata.version(package).split("+")[0]
            if found != version:
                raise SystemExit(f"{package} {found} is installed, requirements.txt asks for {version}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent / "golden")
    parser.add_argument("cases", nargs="*", default=[*CASES, *LAYERS], help="default: all")
    args = parser.parse_args()
    check_versions()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in args.cases:
        (make_layer if name in LAYERS else make_case)(name, args.out)


if __name__ == "__main__":
    main()
