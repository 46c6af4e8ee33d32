# SPDX-License-Identifier: MIT
"""CTranslate2: T5 models; the encoder alone, or greedy decoding without it."""

import os
import sys
import tempfile
import time

import ctranslate2
import transformers
from ctranslate2.converters import transformers as converters
from ctranslate2.specs import transformer_spec
from side import arguments, serve

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
call = arguments()
config = transformers.AutoConfig.from_pretrained(call.weights)
words = [f"w{i}" for i in range(config.vocab_size)]
words[:3] = ["<pad>", "</s>", "<unk>"]


def convert(folder):
    """Writes the whole model and its encoder alone."""
    model = transformers.T5ForConditionalGeneration.from_pretrained(call.weights)
    loader = converters.T5Loader()
    spec = loader.get_model_spec(model)
    loader.set_vocabulary(spec, words)
    spec.config.bos_token = spec.config.decoder_start_token = words[0]
    spec.config.eos_token, spec.config.unk_token = words[1:3]
    encoder = transformer_spec.TransformerEncoderModelSpec(loader.get_model_spec(model).encoder)
    encoder.register_vocabulary(words)
    for name, part in ("model", spec), ("encoder", encoder):
        part.validate()
        part.optimize(quantization=None)
        os.makedirs(f"{folder}/{name}", exist_ok=True)
        part.save(f"{folder}/{name}")


folder = call.weights + "/ctranslate2"
if not os.path.exists(folder):
    with tempfile.TemporaryDirectory(dir=call.weights) as fresh:
        convert(fresh + "/all")
        os.rename(fresh + "/all", folder)

kind = {"f32": "float32"}.get(call.type, call.type)
options = dict(device="cpu", compute_type=kind, inter_threads=1, intra_threads=call.threads)
rows = call.tokens(config.vocab_size)
encoder = ctranslate2.Encoder(folder + "/encoder", **options)
translator = ctranslate2.Translator(folder + "/model", **options)


def greedy(rows, length):
    text = [[words[i] for i in row] for row in rows]
    found = translator.translate_batch(
        text, beam_size=1, min_decoding_length=length, max_decoding_length=length,
        return_end_token=True,
    )
    return [int(w[1:]) if w[0] == "w" else words.index(w) for w in found[0].hypotheses[0]]


def encode():
    encoder.forward_batch(rows)


def decode():
    """Translation less its encoder, which no call leaves out."""
    cpu, start = time.process_time(), time.perf_counter()
    encode()
    cpu_middle, middle = time.process_time(), time.perf_counter()
    greedy(rows, call.target)
    cpu_end, end = time.process_time(), time.perf_counter()
    return 1e3 * (end - 2 * middle + start), 1e3 * (cpu_end - 2 * cpu_middle + cpu)


check = greedy(rows[:1], call.target)
if call.work == "encode":
    serve(encode, check)
elif call.work == "decode":
    serve(decode, check)
else:
    sys.exit(f"CTranslate2 is not compared in {call.work}")
