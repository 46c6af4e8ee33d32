# SPDX-License-Identifier: MIT
"""Shapes and policies of a model by their names, and the C++ that spells them."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Mapping

from ._errors import Error
from ._numbers import number

# The families that are offered, and the header of each beyond those of unit.hpp.
FAMILIES = ("decoder", "rwkv4", "rwkv7")

# Numbers of linnet::decoder_shape; those without a default must be given. What None stands for is
# computed from the others.
SHAPE: dict[str, int | float | None] = {
    "d_model": 0, "d_ff": None, "heads": 0, "kv_heads": None, "layers": 0, "vocabulary": 0,
    "context": 0, "d_kv": 0, "eps": 1e-5, "rope_theta": 10000.0}

# slot: (default, {choice: C++}). In a choice, words in brackets stand for integers of the caller.
SLOTS: dict[str, tuple[str, dict[str, str]]] = {
    "ffn": ("swiglu", {
        "swiglu": "ffn::swiglu", "relu": "ffn::relu", "gelu": "ffn::gelu", "gelu_tanh": "ffn::gelu_tanh",
        "gated_gelu": "ffn::gated_gelu", "skip": "ffn::skip", "linear": "ffn::linear",
        "linear_relu": "ffn::linear_relu", "reparam2": "ffn::reparam<2>", "reparam3": "ffn::reparam<3>",
        "low_rank(rank)": "ffn::low_rank<{0}, linnet::ffn::swiglu>",
        "top_k(k)": "ffn::top_k<{0}, linnet::ffn::relu>",
        "experts(n, k)": "ffn::experts<{0}, {1}>"}),
    "attention": ("full", {
        "full": "attention::full", "sliding_window(width)": "attention::sliding_window<{0}>",
        "sinks(first, recent)": "attention::sinks<{0}, {1}>",
        "low_rank(rank)": "attention::low_rank<{0}, linnet::attention::full>",
        "linear": "attention::linear<>", "mamba": "mixer::mamba<>"}),
    "norm": ("rms", {"rms": "norm::rms", "layer_norm": "norm::layer_norm"}),
    "position": ("rope", {
        "rope": "position::rope", "rope_half": "position::rope_half", "learned": "position::learned",
        "sinusoidal": "position::sinusoidal", "none": "position::none"}),
    "bias": ("none", {"none": "bias::none", "all": "bias::all"}),
    "tie": ("tied", {"tied": "tie::tied", "untied": "tie::untied"}),
    "cache": ("exact", {"exact": "kv::exact", "bf16": "kv::bf16", "f16": "kv::f16", "int8": "kv::int8",
                        "int4": "kv::int4"}),
    "depths": ("all", {
        "all": "depths::all", "mixture_of_depths": "depths::mixture_of_depths<>"}),
    "sharing": ("none", {
        "none": "sharing::none", "ffn": "sharing::ffn", "all": "sharing::all",
        "repeat(times)": "sharing::repeat<{0}>", "lora(rank)": "sharing::lora<{0}>"}),
    "embedding": ("full", {"full": "embedding::full", "factorised(width)": "embedding::factorised<{0}>"}),
    "storage": ("f32", {
        "f32": "storage::f32", "bf16": "storage::bf16", "f16": "storage::f16",
        "fp8_e4m3": "storage::fp8_e4m3", "int8": "storage::int8", "int6": "storage::int6<>",
        "int5": "storage::int5<>", "int4": "storage::int4<>", "int3": "storage::int3<>",
        "int2": "storage::int2<>", "ternary": "storage::ternary", "nf4": "storage::nf4",
        "q8_0": "storage::q8_0", "q4_0": "storage::q4_0", "q4_1": "storage::q4_1"}),
}
# Slots that models of RWKV fill themselves.
OWN_OF_RWKV = {"ffn", "attention", "norm", "position", "tie"}
# Headers of choices that linnet/model/decoder.hpp does not bring.
HEADERS = {"attention::linear": "linnet/nn/attention/linear.hpp", "mixer::mamba": "linnet/nn/recurrent/mamba.hpp"}
# What collapse() makes of a feed-forward.
COLLAPSED = {"reparam2": "linear", "reparam3": "linear"}


def spelled(slot: str, text: str) -> str:
    """The C++ type of a choice such as "sinks(4, 60)", or an error with all choices of its slot."""
    choices = SLOTS[slot][1]
    if isinstance(text, str) and (match := re.fullmatch(r"(\w+)(?:\(([\d, ]+)\))?", text.strip(), re.A)):
        numbers = [word.strip() for word in match[2].split(",")] if match[2] else []
        for choice, cpp in choices.items():
            name, _, words = choice.rstrip(")").partition("(")
            if name == match[1] and len(words.split(",") if words else []) == len(numbers) \
                    and all(re.fullmatch(r"\d{1,9}", number, re.A) for number in numbers):
                return "linnet::" + cpp.format(*(str(int(number)) for number in numbers))
    raise Error(f"{slot}: expected one of {', '.join(choices)}; got {text!r}" + near(text, choices))


def near(text: Any, words: Any) -> str:
    """A hint at the word that was meant, or nothing."""
    found = difflib.get_close_matches(str(text), list(words), 1)
    return f" (did you mean {found[0]}?)" if found else ""


@dataclass(frozen=True)
class Spec:
    """Everything that names a model type: its family, shape and policies."""

    family: str
    shape: Mapping[str, int | float]
    policies: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(family: str, arguments: Mapping[str, Any]) -> "Spec":
        """The type of a family and keywords; an error that lists what there is where one is wrong."""
        if family not in FAMILIES:
            raise Error(f"family: expected one of {', '.join(FAMILIES)}; got {family!r}. Other types are "
                        "compiled from C++, see docs/c-interface.md")
        shape, policies = {}, {}
        for name, value in arguments.items():
            if name in OWN_OF_RWKV and family != "decoder":
                raise Error(f"{name}: {family} has its own; leave it out")
            if name in SLOTS:
                spelled(name, value)  # or refused
                policies[name] = value.strip()
            elif name in SHAPE:
                kind = float if isinstance(SHAPE[name], float) else int
                shape[name] = number(name, value, kind, -2**53, 2**53)
            else:
                raise Error(f"{name}: no such argument; expected one of {', '.join([*SHAPE, *SLOTS])}"
                            + near(name, [*SHAPE, *SLOTS]))
        lacking = [name for name, default in SHAPE.items() if default == 0 and name not in shape and name != "d_kv"]
        if lacking:
            raise Error(f"{', '.join(lacking)}: must be given")
        shape.setdefault("kv_heads", shape["heads"])
        shape.setdefault("d_ff", 4 * shape["d_model"])
        return Spec(family, {n: shape[n] for n in SHAPE if n in shape},
                    {n: policies[n] for n in SLOTS if n in policies and policies[n] != SLOTS[n][0]})

    @property
    def storage(self) -> str:
        return self.policies.get("storage", "f32")

    def having(self, **policies: str) -> "Spec":
        """This type with other policies."""
        return Spec.of(self.family, {**self.shape, **self.policies, **policies})

    def cpp(self, shape: str = "shape") -> str:
        """The C++ type, over a constant with the shape."""
        return f"linnet::{self.family}<{', '.join([shape, *map(spelled, self.policies, self.policies.values())])}>"

    def cpp_shape(self) -> str:
        return "{" + ", ".join(f".{name} = {value!r}" for name, value in self.shape.items()) + "}"

    def headers(self) -> list[str]:
        """Headers of its policies beyond linnet/model/decoder.hpp."""
        return sorted({header for word, header in HEADERS.items() if word in self.cpp()})

    def json(self) -> str:
        """A text that of_json() takes."""
        return json.dumps({"family": self.family, **self.shape, **self.policies})

    @staticmethod
    def of_json(text: str) -> "Spec":
        try:
            all = dict(json.loads(text))
            return Spec.of(all.pop("family"), all)
        except (ValueError, TypeError, KeyError) as fault:
            raise Error(f"the file's model type cannot be read: {fault}") from None
