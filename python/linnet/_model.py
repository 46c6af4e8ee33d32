# SPDX-License-Identifier: MIT
"""Models: a compiled type and its weights, with NumPy arrays in and out."""

from __future__ import annotations

import ctypes as c
import io
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _api, _build, _safetensors
from ._choices import COLLAPSED, Spec, spelled
from ._errors import Error
from ._numbers import number

NOTE = "python"  # the text of a safetensors file that names the type
NO_ARRAYS = ("the weights are packed, as those of compress() and of .packed files are, and have no arrays: save() keeps "
             "them as .packed")


def unit(spec: Spec, before: Spec | None = None, change: str = "") -> str:
    """The C++ of a type. With `before`, it also makes weights out of those of that type by `change`."""
    lines = ['#include <unit.hpp>', *(f"#include <{header}>" for header in spec.headers())]
    if change:
        lines.append(f"#include <linnet/compress/{change.split('<')[0]}.hpp>")
    lines += [f"inline constexpr linnet::decoder_shape shape{spec.cpp_shape()};", f"using Model = {spec.cpp()};"]
    make = ""
    if before:
        lines += [f"using Before = {before.cpp()};",
                  "static linnet_code make(const void* bytes, std::size_t size, const char* path) {",
                  "  return linnet::detail::python_make<Before>(",
                  f"      bytes, size, path, [](const auto& w) {{ return linnet::{change}(w); }});", "}"]
        make = "make"
    lines += [f"static const linnet::python_table table = linnet::python_table_of<Model>({make});",
              'extern "C" const linnet::python_table* linnet_python(std::uint32_t abi, std::uint32_t layout) {',
              "  return abi == LINNET_ABI && layout == linnet::python_layout ? &table : nullptr;", "}"]
    return "\n".join(lines) + "\n"


def ids(tokens: ArrayLike, what: str, dimensions: tuple[int, ...] = (1, 2)) -> NDArray[np.int32]:
    """Token ids as the C interface takes them; the library says which are outside the vocabulary."""
    array = np.asarray(tokens)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind not in "iu" or array.ndim not in dimensions:
        raise Error(f"{what}: expected integers of {' or '.join(map(str, dimensions))} dimension(s); got "
                    f"{array.dtype} of {array.ndim}")
    if array.size and (int(array.min()) < -2**31 or int(array.max()) >= 2**31):
        raise Error(f"{what}: expected token ids below 2^31; got {int(array.max())}")
    return np.ascontiguousarray(array, np.int32)


def at(array: NDArray[np.int32]):
    return array.ctypes.data_as(_api.tokens_at)


class Model:
    """A model type of linnet with weights. `linnet.model()` and `linnet.load()` make them.

    A model is for one thread at a time: a second one waits.
    """

    def __init__(self, spec: Spec, table: _api.Table, limits: Mapping[str, Any]):
        self._spec, self._table, self._limits = spec, table, dict(limits)
        self._c = table.api.contents
        self._lock, self._busy = threading.RLock(), False  # held in all that reads or writes _handle
        self._handle = _api.model_at()

    # --- what it is ------------------------------------------------------------------------------

    @property
    def arguments(self) -> dict[str, Any]:
        """What `linnet.model(**arguments)` takes for another model of this type."""
        return {"family": self._spec.family, **self._spec.shape, **self._spec.policies}

    @property
    def cpp(self) -> str:
        """The C++ spelling of the type."""
        return self._spec.cpp(f"linnet::decoder_shape{self._spec.cpp_shape()}")

    @property
    def vocabulary(self) -> int:
        """Token ids are 0 to vocabulary - 1."""
        return self._c.vocabulary

    @property
    def parameters(self) -> int:
        """Trainable numbers; shared ones count once."""
        return self._table.parameters

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in their storage."""
        return self._table.bytes

    @property
    def storage(self) -> str:
        """How matrices are stored: "f32" of a model that trains, or what compress() was given."""
        return self._spec.storage

    def __repr__(self) -> str:
        return f"<linnet.Model {self._spec.cpp(self._spec.cpp_shape())}, {self.parameters} parameters>"

    # --- calls -----------------------------------------------------------------------------------

    def _call(self, function, *arguments, opens: bool = False, unsupported: str = "") -> None:
        """Calls a function of C on the model, or with `opens` one that takes none; its errors become exceptions."""
        with self._lock:
            if self._busy:
                raise Error("the model is in use by the generate() that called on_token")
            if not self._handle and not opens:
                raise Error("the model is closed")
            self._busy = True
            try:
                code = function(*arguments) if opens else function(self._handle, *arguments)
                said = self._c.message()
            finally:
                self._busy = False
        if code == _api.UNSUPPORTED and unsupported:
            raise Error(unsupported)
        if code != _api.OK:
            raise Error(said.decode(errors="replace"))

    def _open(self, function, *arguments) -> "Model":
        """Opens weights in the place of those that are open."""
        options, new = _api.Options(size=c.sizeof(_api.Options), **self._limits), _api.model_at()
        with self._lock:
            self._call(function, *arguments, c.byref(options), c.byref(new), opens=True)
            self.close()
            self._handle = new
        return self

    def _create(self, seed: int) -> "Model":
        return self._open(self._c.create, seed)

    def _open_file(self, path: str | os.PathLike) -> "Model":
        return self._open(self._c.open_file, os.fsencode(path))

    def close(self) -> None:
        """Gives the memory back; the model cannot be used any more."""
        with self._lock:
            if self._busy:
                raise Error("the model is in use by the generate() that called on_token")
            if self._handle:
                self._c.close(self._handle)
                self._handle = _api.model_at()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def _pairs(self, tokens: ArrayLike, labels: ArrayLike | None):
        """Tokens and labels [batch, length]; without labels, each token's is the next one."""
        x = np.atleast_2d(ids(tokens, "tokens"))
        if labels is None:
            if x.shape[1] < 2:
                raise Error("tokens: expected at least 2 in a row, as each one's label is the next; or give labels")
            return np.ascontiguousarray(x[:, :-1]), np.ascontiguousarray(x[:, 1:])
        y = np.atleast_2d(ids(labels, "labels"))
        if x.shape != y.shape:
            raise Error(f"labels: expected the shape of tokens, {list(x.shape)}; got {list(y.shape)}")
        return x, y

    # --- training and scoring --------------------------------------------------------------------

    def train(self, tokens: ArrayLike, labels: ArrayLike | None = None) -> float:
        """One AdamW step on a batch [batch, length]; returns the mean loss before it, in nats per label.

        Without labels each token's label is the one behind it, so rows of n tokens train n - 1. A label of
        linnet.IGNORED does not count. The next feed() begins a new text.
        """
        x, y = self._pairs(tokens, labels)
        loss = c.c_double()
        self._call(self._c.train, at(x), at(y), *x.shape, c.byref(loss))
        return loss.value

    def _score(self, x, y, logits):
        nats, counted = c.c_double(), c.c_int64()
        to = None if logits is None else logits.ctypes.data_as(c.POINTER(c.c_float))
        self._call(self._table.score, at(x), at(y), *x.shape, to, c.byref(nats), c.byref(counted))
        return nats.value, counted.value

    def loss(self, tokens: ArrayLike, labels: ArrayLike | None = None) -> float:
        """Mean cross-entropy in nats per label, of tokens and labels as train() takes them. Nothing is learned."""
        nats, counted = self._score(*self._pairs(tokens, labels), None)
        if counted == 0:
            raise Error("labels: expected at least one that counts; all are linnet.IGNORED")
        return nats / counted

    def logits(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Logits of what follows each token: [..., length, vocabulary] for tokens [..., length]."""
        given = ids(tokens, "tokens")
        x = np.atleast_2d(given)
        to = np.empty((*x.shape, self.vocabulary), np.float32)
        self._score(x, np.zeros_like(x), to)
        return to.reshape(*given.shape, self.vocabulary)

    # --- text ------------------------------------------------------------------------------------

    def feed(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Reads tokens behind those before and returns the logits [vocabulary] of what follows."""
        x, to = ids(tokens, "tokens", (1,)), np.empty(self.vocabulary, np.float32)
        self._call(self._c.feed, at(x), x.size, to.ctypes.data_as(c.POINTER(c.c_float)), to.size)
        return to

    def reset(self) -> None:
        """Forgets the tokens that were fed."""
        self._call(self._c.reset)

    def generate(self, prompt: ArrayLike, tokens: int = 0, *, temperature: float = 0.0, top_k: int = 0,
                 top_p: float = 1.0, seed: int = 0, on_token: Callable[[int], Any] | None = None
                 ) -> NDArray[np.int32]:
        """Tokens that the model writes behind a prompt, of which it forgets all that was before.

        At most `tokens`, where 0 means as many as fit the context. A temperature of 0 is greedy. `on_token` is
        called with each token and ends the text by returning False; the model cannot be used in it.
        """
        x, got, failure = ids(prompt, "prompt", (1,)), [], []

        def take(token: int, _) -> int:
            got.append(token)
            try:
                return int(on_token is None or on_token(token) is not False)
            except BaseException as fault:  # no exception passes through C
                failure.append(fault)
                return 0

        how = _api.Sampling(size=c.sizeof(_api.Sampling), temperature=number("temperature", temperature, float),
                            top_k=number("top_k", top_k), top_p=number("top_p", top_p, float),
                            seed=number("seed", seed, int, 0, 2**64 - 1), tokens=number("tokens", tokens))
        self._call(self._c.generate, at(x), x.size, c.byref(how), _api.on_token(take), None, None)
        if failure:
            raise failure[0]
        return np.array(got, np.int32)

    # --- weights and files -----------------------------------------------------------------------

    def _npz(self) -> bytes:
        """The bytes of an .npz file of the weights."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "w.npz")
            self._save_npz(path)
            return path.read_bytes()

    def _save_npz(self, path: str | os.PathLike) -> None:
        self._call(self._c.save, os.fsencode(path), unsupported=NO_ARRAYS)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all weights, by name. What compress() made or a .packed file holds is packed and has no arrays."""
        with np.load(io.BytesIO(self._npz()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def set_weights(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Takes weights in the place of its own; names and shapes are those of weights(). Training begins anew."""
        packed = io.BytesIO()
        np.savez(packed, **{name: np.asarray(array) for name, array in arrays.items()})
        data = packed.getvalue()
        self._open(self._c.open_memory, data, len(data))

    def metadata(self) -> dict[str, str]:
        """What files say of the type: each number and policy that decides what the weights compute."""
        room = c.create_string_buffer(self._table.describe(None, 0))
        self._table.describe(room, len(room))
        return dict(line.split(" ", 1) for line in room.raw.decode().splitlines())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the weights by the suffix of the path.

        .safetensors and .npz hold a model in f32; the first names its type, so that linnet.load() needs no more.
        .packed holds any model, ready to run; save_packed() and map_packed() of C++ are of this format. A model that
        was opened from it, in f32 too, is saved as .packed alone.
        """
        match kind_of(path):
            case ".safetensors":
                if self.storage != "f32":
                    raise Error(f"a model in {self.storage} is saved as .packed; .safetensors here is of f32")
                _safetensors.write(path, self.weights(), {**self.metadata(), NOTE: self._spec.json()})
            case ".npz":
                self._save_npz(path)
            case _:
                self._call(self._table.save_packed, os.fsencode(path))

    def load(self, path: str | os.PathLike) -> None:
        """Takes weights of a file of save() in the place of its own; a file of another type is refused.

        Weights of a .packed file run but do not train: give batch=0 to linnet.model() for them.
        """
        if kind_of(path) != ".safetensors":
            self._open_file(path)
            return
        arrays, texts = _safetensors.read(path)
        for key, value in self.metadata().items():
            if texts.get(key, value) != value:
                raise Error(f"{os.fspath(path)}: {key}: expected {value} (the model type); got {texts[key][:80]}")
        self.set_weights(arrays)

    def _made(self, spec: Spec, change: str, needs_eigen: bool, limits: Mapping[str, Any]) -> "Model":
        """A model of another type whose weights are made of this one's."""
        data, table = self._npz(), _api.load(unit(spec, self._spec, change), needs_eigen)
        made = Model(spec, table, limits)
        with tempfile.TemporaryDirectory() as folder:
            path = os.fsencode(Path(folder, "made"))
            made._call(table.make, data, len(data), path, opens=True)
            made._open_file(path)
        return made

    def compress(self, storage: str = "int8") -> "Model":
        """A copy in another storage, rounded to nearest: "int8", "int4" and so on. It runs but does not train."""
        to = spelled("storage", storage)
        if self.storage != "f32" or storage.strip() == "f32":
            raise Error(f"compress: expected a model in f32 and a smaller storage; got {self.storage} and {storage}")
        return self._made(self._spec.having(storage=storage), f"quantize<{to}>", False, {**self._limits, "batch": 0})

    def collapse(self) -> "Model":
        """A copy whose re-parameterised feed-forwards (reparam2, reparam3) are multiplied into one matrix each."""
        ffn = self._spec.policies.get("ffn", "")
        if ffn not in COLLAPSED or self.storage != "f32":
            raise Error(f"collapse: expected ffn {' or '.join(COLLAPSED)} in f32; got {ffn or 'swiglu'} in "
                        f"{self.storage}. Collapse first, compress afterwards")
        return self._made(self._spec.having(ffn=COLLAPSED[ffn]), "collapse", True, self._limits)

    def export(self, path: str | os.PathLike, name: str = "exported") -> None:
        """Writes a C++ header with the type and the weights, in a namespace `name`.

        A program reads them where they lie: linnet::view_packed<name::model>(name::weights).
        """
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.A) or "__" in name:
            raise Error(f"export: expected a name that is an identifier of C++; got {name!r}")
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder, "w.packed")
            self._call(self._table.save_packed, os.fsencode(packed))
            data = packed.read_bytes()
        rows = (",".join(map(str, data[i:i + 20])) for i in range(0, len(data), 20))
        text = "\n".join([
            f"// A model of linnet {_build.version()}, written by its Python package.", "#pragma once", "",
            "#include <linnet/inference.hpp>", *(f"#include <{header}>" for header in self._spec.headers()), "",
            f"namespace {name} {{", "",
            f"inline constexpr linnet::decoder_shape shape{self._spec.cpp_shape()};",
            f"using model = {self._spec.cpp()};",
            "/// linnet::view_packed<model>(weights) reads them where they lie.",
            "alignas(linnet::alignment) inline constexpr unsigned char weights[] = {"])
        _safetensors.replace(path, [f"{text}\n".encode(), ",\n".join(rows).encode(),
                                    f"}};\n\n}}  // namespace {name}\n".encode()])


def kind_of(path: str | os.PathLike) -> str:
    """The suffix of a file of weights."""
    suffix = Path(path).suffix
    if suffix not in {".safetensors", ".npz", ".packed"}:
        raise Error(f"{os.fspath(path)}: expected a name that ends in .safetensors, .npz or .packed")
    return suffix


def model(family: str = "decoder", *, weights: str | os.PathLike | None = None, seed: int = 1, batch: int = 1,
          length: int = 0, rate: float = 1e-3, threads: int = 1, chunk: int = 0, **arguments: Any) -> Model:
    """A model of a type that is named by its shape and policies, with weights at random or of a file.

    The type is compiled when it is used for the first time, and kept in the cache folder.

    family       "decoder", "rwkv4" or "rwkv7"
    weights      a file of save(); without it, weights are at random by `seed`
    batch        most sequences of a training step; 0 for a model that only runs
    length       most tokens of each; 0 for the context
    rate         learning rate of AdamW
    threads      most threads of a call; any number gives the same bits
    chunk        most tokens that feed() and generate() read at a time; 0 for all
    arguments    the shape: d_model, heads, layers, vocabulary and context, and if it is not their default kv_heads,
                 d_ff (4 d_model), d_kv, eps, rope_theta; and policies by slot, such as ffn="reparam3",
                 attention="sinks(4, 60)": linnet.choices() lists all
    """
    spec = Spec.of(family, arguments)
    if spec.storage != "f32":
        if weights is None:
            raise Error(f"a model in {spec.storage} is made by compress(), or opened with weights=")
        batch = 0
    seed = number("seed", seed, int, 0, 2**64 - 1)
    limits = {"chunk": chunk, "batch": batch, "length": length, "rate": rate, "threads": threads}
    for name, value in limits.items():
        limits[name] = number(name, value, float if name == "rate" else int, 0, 2**31 - 1)
    made = Model(spec, _api.load(unit(spec)), limits)
    if weights is None:
        return made._create(seed)
    if kind_of(weights) == ".safetensors":
        made._create(seed)
        made.load(weights)
        return made
    if kind_of(weights) == ".packed":
        made._limits["batch"] = 0
    return made._open_file(weights)


def load(path: str | os.PathLike, **limits: Any) -> Model:
    """The model of a .safetensors file of save(), whose type it names. `limits` are those of model()."""
    if kind_of(path) != ".safetensors":
        raise Error(f"{os.fspath(path)}: only .safetensors files name their type; give the type and weights=path to "
                    "linnet.model()")
    note = _safetensors.read(path)[1].get(NOTE)
    if note is None:
        raise Error(f"{os.fspath(path)}: was not saved by this package and names no type; give the type and "
                    "weights=path to linnet.model()")
    spec = Spec.of_json(note)
    return model(spec.family, weights=path, **{**spec.shape, **spec.policies, **limits})
