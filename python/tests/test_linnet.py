#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of the Python package: test_linnet.py, from anywhere, with NumPy and a compiler.

Two model types are compiled, as small and as quickly as can be, in a cache folder of their own. With
LINNET_PYTHON_ALL=1 collapse(), an exported header and other families are compiled, too. With
LINNET_INSTALLED=1 the installed package is tested instead of the tree's.
"""

import enum
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
if "LINNET_INSTALLED" not in os.environ:
    sys.path.insert(0, str(ROOT / "python"))
try:
    import numpy as np
except ImportError:
    print("SKIPPED: no NumPy: the Python package is not tested")
    sys.exit(0)

import linnet
from linnet import _api, _build, _choices, _model, _numbers, _safetensors

EVERYTHING = os.environ.get("LINNET_PYTHON_ALL") == "1"
folder = tempfile.TemporaryDirectory()
os.environ["LINNET_CACHE"] = folder.name + "/cache"
os.environ["LINNET_CXXFLAGS"] = "-O0 -fopenmp -DLINNET_ONLY_LEVEL=portable"
SMALL = dict(d_model=16, d_ff=24, heads=2, kv_heads=1, layers=1, vocabulary=9, context=8, ffn="reparam2")
NUMBERS = np.arange(9)


def counting(**limits):
    return linnet.model("decoder", **{**SMALL, "rate": 1e-2, **limits})


def file(name):
    return str(Path(folder.name, name))


class Case(unittest.TestCase):
    def refuses(self, pattern, call, *arguments, **named):
        with self.assertRaisesRegex(linnet.Error, pattern) as caught:
            call(*arguments, **named)
        self.assertNotIn("\n", str(caught.exception))


class Words(Case):
    """What needs no compiler."""

    def test_the_version_is_that_of_the_headers(self):
        text = (ROOT / "pyproject.toml").read_text()
        self.assertIn(f'version = "{linnet.__version__}"', text)

    def test_every_choice_is_listed_and_spelled(self):
        listed = linnet.choices()
        self.assertEqual(listed["ffn"][0], "swiglu")
        for slot, (default, choices) in _choices.SLOTS.items():
            self.assertIn(default, choices)
            for choice in choices:
                words = choice.partition("(")[2].rstrip(")")
                given = choice.partition("(")[0] + (f"({', '.join('8' for _ in words.split(','))})" if words else "")
                self.assertRegex(_choices.spelled(slot, given), r"^linnet::\w+::\w+(<.*>)?$")

    def test_wrong_words_are_refused_with_what_there_is(self):
        with mock.patch.object(_build, "run", side_effect=AssertionError("compiled")):
            for pattern, arguments in {
                    r"^ffn: expected one of swiglu, relu, .*; got 'swigloo' \(did you mean swiglu\?\)": {"ffn": "swigloo"},
                    r"^attention: .*sinks\(first, recent\).*got 'sinks\(1\)'": {"attention": "sinks(1)"},
                    r"^attention: expected": {"attention": "full>; int x; //"},
                    r"^norm: expected one of rms, layer_norm; got 7": {"norm": 7},
                    r"^heds: no such argument; .* \(did you mean heads\?\)": {"heds": 2},
                    r"^d_model: expected an integer; got 'x'": {"d_model": "x"},
                    r"^layers: expected an integer; got 1.5": {"layers": 1.5},
                    r"^rope_theta: expected a number from .*; got inf": {"rope_theta": float("inf")},
                    r"^eps: expected a number; got True": {"eps": True},
                    r"^threads: expected a number from 0 to 2147483647; got -1": {"threads": -1},
                    r"^batch: expected an integer; got array\(\[1, 2\]\)": {"batch": np.array([1, 2])},
                    r"^batch: expected an integer; got (np.)?True": {"batch": np.bool_(True)},
                    r"^seed: expected a number from 0 to 18446744073709551615; got -1": {"seed": -1},
                    r"^seed: .*; got 18446744073709551621": {"seed": 2**64 + 5},
                    r"^length: .*; got int": {"length": 10**5000},
                    r"^rate: expected": {"rate": float("nan")},
                    r"^a model in int8 is made by compress": {"storage": "int8"}}.items():
                self.refuses(pattern, counting, **arguments)
            self.refuses("^layers, vocabulary, context: must be given", linnet.model, d_model=8, heads=2)
            self.refuses("^family: expected one of decoder, ", linnet.model, "t5")
            self.refuses("^ffn: rwkv7 has its own", linnet.model, "rwkv7", d_model=8, heads=2, ffn="relu")

    def test_numbers_of_numpy_are_numbers(self):
        spec = _choices.Spec.of("decoder", {**SMALL, "d_model": np.int64(16), "eps": np.float32(0.5)})
        self.assertIn(".d_model = 16, .d_ff = 24", spec.cpp_shape())
        self.assertIn(".eps = 0.5", spec.cpp_shape())
        self.assertEqual(_numbers.number("batch", np.int64(8), int, 0, 8), 8)
        self.assertEqual(_numbers.number("seed", np.uint64(2**64 - 1), int, 0, 2**64 - 1), 2**64 - 1)

    def test_numbers_of_other_classes_are_written_as_numbers(self):
        class Width(enum.IntEnum):
            SMALL = 16

        class Half(float):
            __repr__ = __str__ = lambda self: "0.5}; int x{"
        spec = _choices.Spec.of("decoder", {**SMALL, "d_model": Width.SMALL, "eps": Half(0.5)})
        self.assertIn(".d_model = 16, .d_ff = 24", spec.cpp_shape())
        self.assertIn(".eps = 0.5", spec.cpp_shape())
        self.assertNotIn("int x", spec.cpp_shape())
        self.assertIs(type(_numbers.number("rate", 1, float)), float)

    def test_types_are_kept_as_text(self):
        spec = _choices.Spec.of("decoder", {**SMALL, "attention": "sinks(1, 4)"})
        self.assertEqual(_choices.Spec.of_json(spec.json()), spec)
        for bad in "", "[]", "{}", '{"family": []}', '{"family": "decoder", "x": 1}':
            self.refuses("", _choices.Spec.of_json, bad)

    def test_no_compiler_or_eigen_says_what_to_install(self):
        empty = {"PATH": folder.name, "CXX": "", "LINNET_CXX": "", "LINNET_EIGEN": folder.name}
        with mock.patch.dict(os.environ, empty):
            self.refuses(r"there is no compiler: install g\+\+ 12 .*LINNET_CXX$", counting)
            self.refuses("collapse.. needs Eigen 3.4, which is not in", _build.eigen)
        with mock.patch.dict(os.environ, {"LINNET_CXX": "no-such-compiler -x"}):
            self.refuses("^LINNET_CXX names no-such-compiler, which is no program here", counting)
        with mock.patch.object(_build, "EIGEN", []), mock.patch.dict(os.environ, {"CONDA_PREFIX": ""}):
            self.refuses("install it .Debian: apt install libeigen3-dev.", _build.eigen)

    def test_a_cache_of_others_is_refused(self):
        shared = Path(file("shared"))
        shared.mkdir()
        shared.chmod(0o777)
        with mock.patch.dict(os.environ, {"LINNET_CACHE": str(shared)}):
            self.refuses("others may write to it", counting)
        Path(file("plain")).write_text("")
        with mock.patch.dict(os.environ, {"LINNET_CACHE": file("plain")}):
            self.refuses("cannot be made", counting)

    def test_flags_compiler_source_and_headers_name_the_library(self):
        words = _build.command(False)
        key = _build.key_of("a", words)
        self.assertEqual(key, _build.key_of("a", words))
        others = {_build.key_of("b", words), _build.key_of("a", [*words, "-g"])}
        with mock.patch.object(_build, "digest_of_headers", lambda: "other headers"):
            others.add(_build.key_of("a", words))
        run = _build.run
        for word in "--version", "-dM":  # another compiler; another processor, by its macros
            def other(words, word=word):
                self.assertNotIn("-shared", words)
                return mock.Mock(stdout="other") if word in words else run(words)
            with mock.patch.object(_build, "run", other):
                others.add(_build.key_of("a", words))
        self.assertEqual(len(others - {key}), 5)
        self.assertIn("__SSE2__" if os.uname().machine == "x86_64" else "__cplusplus",
                      run([*_build.compiler(), "-dM", "-E", "-x", "c++", "/dev/null"]).stdout)

    def test_the_library_s_sentence_is_found_in_what_compilers_say(self):
        why = "linnet::decoder_shape: d_model must be a multiple of heads"
        for said in (f"a.hpp:2:56: error: static assertion failed: {why}\n    2 | static_assert(",
                     "a.hpp:2:31: error: static_assert failed due to requirement 'shape::valid<shape{8, 3}>' "
                     f'"{why}"\nstatic_assert(',
                     "a.hpp:2:31: error: static assertion failed due to requirement 'linnet::valid<shape{8, 3}>': "
                     f"{why}\nstatic_assert("):
            self.assertEqual(str(_build.refused(said, Path(file("no.log")))), why)
        self.assertFalse(Path(file("no.log")).exists())

    def test_safetensors_of_strangers(self):
        path = file("strange.safetensors")
        good = {"a": np.array([[1, 2, 3]], "f4"), "b": np.array([], "f4")}
        _safetensors.write(path, good, {"note": "ä"})
        data = Path(path).read_bytes()
        arrays, texts = _safetensors.read(path)
        self.assertEqual(texts, {"note": "ä"})
        np.testing.assert_array_equal(arrays["a"], good["a"])
        bad = [data[:size] for size in range(len(data))] + [data + b"x", b"\xff" * 16]
        for old, new in ((b"[1,3]", b"[9,3]"), (b"[1,3]", b"[-1]"), (b'"F32"', b'"F99"'), (b"[0,12]", b"[4,16]"),
                         (b'"note":"', b'"note":7 '), (b"[0,12]", b"null"), (b"[1,3]", b"{}"), (b"[1,3]", b'"13"')):
            self.assertIn(old, data)
            bad.append(data.replace(old, new.ljust(len(old)), 1))

        def tensor(shape, begin, after):
            return f'{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{after}]}}'
        for size, *tensors in ((8, tensor([1], 0, 4), tensor([1], 0, 4)),  # an overlap and as large a gap
                               (12, tensor([1], 0, 4), tensor([1], 2, 6), tensor([1], 8, 12)),
                               (4, tensor("{}", 0, 4)), (4, tensor("null", 0, 4)), (4, tensor([2**70], 0, 4)),
                               (0, tensor([0, 2**70], 0, 0))):
            header = "{" + ",".join(f'"{i}":{one}' for i, one in enumerate(tensors)) + "}"
            bad.append(len(header).to_bytes(8, "little") + header.encode() + bytes(size))
        for one in bad:
            Path(path).write_bytes(one)
            self.refuses("strange.safetensors: no safetensors file: ", _safetensors.read, path)
        self.refuses("No such file", _safetensors.read, file("none.safetensors"))

    def test_writers_of_one_file_do_not_meet(self):
        path = Path(file("one/w.bin"))
        path.parent.mkdir()
        (path.parent / "w.bin.partial").write_text("another's")
        threads = [threading.Thread(target=_safetensors.replace, args=(path, [bytes([i])] * 5)) for i in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        self.assertEqual(len(set(path.read_bytes())), 1)
        self.assertEqual(sorted(p.name for p in path.parent.iterdir()), ["w.bin", "w.bin.partial"])
        self.assertEqual((path.parent / "w.bin.partial").read_text(), "another's")
        self.refuses("w.bin/x: Not a directory", _safetensors.replace, path / "x", [b""])

    def test_bf16_and_f64_are_read(self):
        header = (b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},'
                  b'"y":{"dtype":"F64","shape":[],"data_offsets":[4,12]}}')
        Path(file("types.safetensors")).write_bytes(
            len(header).to_bytes(8, "little") + header + b"\x80\x3f\x20\xc0" + np.float64(0.25).tobytes())
        arrays, _ = _safetensors.read(file("types.safetensors"))
        self.assertEqual(arrays["x"].tolist(), [1.0, -2.5])
        self.assertEqual(arrays["y"].tolist(), 0.25)


class Counting(Case):
    """A model of nine numbers that learns to count."""

    @classmethod
    def setUpClass(cls):
        cls.model = counting()
        cls.losses = [cls.model.train(NUMBERS) for _ in range(150)]

    def test_it_learned_and_counts(self):
        self.assertGreater(self.losses[0], 2.0)
        self.assertLess(self.losses[-1], 0.1)
        self.assertEqual(self.model.generate([0]).tolist(), list(range(1, 9)))
        self.assertEqual(self.model.generate([0], 3).tolist(), [1, 2, 3])
        drawn = self.model.generate([0], 6, temperature=3.0, seed=5)
        np.testing.assert_array_equal(drawn, self.model.generate([0], 6, temperature=3.0, seed=5))

    def test_logits_losses_and_feed_agree(self):
        logits = self.model.logits(NUMBERS[:8])
        self.assertEqual((logits.shape, logits.dtype), ((8, 9), np.float32))
        scores = logits.astype("f8")
        nats = np.log(np.exp(scores).sum(-1)) - scores[np.arange(8), NUMBERS[1:]]  # by NumPy
        self.assertAlmostEqual(self.model.loss(NUMBERS), nats.mean(), places=5)
        some = np.where(np.arange(8) < 3, NUMBERS[1:], linnet.IGNORED)
        self.assertAlmostEqual(self.model.loss(NUMBERS[:8], some), nats[:3].mean(), places=5)
        both = self.model.logits([NUMBERS[:4], NUMBERS[4:8]])
        self.assertEqual(both.shape, (2, 4, 9))
        np.testing.assert_allclose(both[0], logits[:4], atol=1e-5)
        self.model.reset()
        self.model.feed([0, 1])
        np.testing.assert_allclose(self.model.feed([2, 3]), logits[3], atol=1e-4)

    def test_the_type_says_what_it_is(self):
        self.assertEqual(self.model.vocabulary, 9)
        self.assertEqual(self.model.parameters, sum(w.size for w in self.model.weights().values()))
        self.assertEqual(self.model.nbytes, 4 * self.model.parameters)
        self.assertEqual(self.model.metadata()["ffn"], "reparam 2 expansion 4")
        self.assertIn("linnet::ffn::reparam<2>", self.model.cpp)
        self.assertIn("ffn::reparam<2>", repr(self.model))

    def test_weights_go_out_and_in(self):
        weights = self.model.weights()
        with counting(batch=0, seed=3) as other:
            self.assertNotEqual(other.loss(NUMBERS), self.model.loss(NUMBERS))
            other.set_weights(weights)
            self.assertEqual(other.loss(NUMBERS), self.model.loss(NUMBERS))
            short = {name: w for name, w in weights.items() if name != "embedding.weight"}
            self.refuses("embedding.weight: expected F32 .9, 16.", other.set_weights, short)
            self.refuses("expected", other.set_weights, {**weights, "embedding.weight": np.zeros((9, 15))})
            self.assertEqual(other.loss(NUMBERS), self.model.loss(NUMBERS))  # unchanged

    def test_files(self):
        loss = self.model.loss(NUMBERS)
        for name in "w.safetensors", "w.npz", "w.packed":
            self.model.save(file(name))
            with counting(weights=file(name)) as again:
                self.assertEqual(again.loss(NUMBERS), loss)
                if name != "w.packed":
                    self.assertAlmostEqual(again.train(NUMBERS), loss)
                    continue
                with mock.patch.object(_build, "library", side_effect=AssertionError("compiled")):
                    for call, *given in ((again.weights,), (again.compress, "int8"), (again.collapse,),
                                         (again.save, file("x.npz")), (again.save, file("x.safetensors"))):
                        self.refuses("^the weights are packed, .* and have no arrays", call, *given)
                again.save(file("x.packed"))
                again.set_weights(self.model.weights())
                self.assertEqual(len(again.weights()), len(self.model.weights()))
        with linnet.load(file("w.safetensors"), rate=1e-2) as again:
            self.assertEqual(again.loss(NUMBERS), loss)
            self.assertEqual(again.arguments, self.model.arguments)
        self.refuses("ends in .safetensors, .npz or .packed", self.model.save, file("w.bin"))
        self.refuses("w.npz: only .safetensors files name their type", linnet.load, file("w.npz"))
        self.refuses("no/such/folder", self.model.save, "no/such/folder/w.npz")
        arrays, texts = _safetensors.read(file("w.safetensors"))
        _safetensors.write(file("other.safetensors"), arrays, {**texts, "eps": "0.5"})
        self.refuses("other.safetensors: eps: expected 1e-05 .the model type.; got 0.5", self.model.load,
                     file("other.safetensors"))
        _safetensors.write(file("other.safetensors"), arrays, {})
        self.refuses("names no type", linnet.load, file("other.safetensors"))
        data = Path(file("w.packed")).read_bytes()
        Path(file("half.packed")).write_bytes(data[:100])
        self.refuses("half.packed", self.model.load, file("half.packed"))
        self.assertEqual(self.model.loss(NUMBERS), loss)

    def test_an_exported_header_has_the_packed_bytes(self):
        self.model.save(file("e.packed"))
        self.model.export(file("e.hpp"), "counter")
        text = Path(file("e.hpp")).read_text()
        numbers = text.partition("weights[] = {")[2].partition("}")[0]
        self.assertEqual(bytes(map(int, numbers.split(","))), Path(file("e.packed")).read_bytes())
        self.assertIn("namespace counter {", text)
        self.refuses("identifier", self.model.export, file("e.hpp"), "a b")

    def test_int8_is_smaller_and_counts(self):
        with self.model.compress("int8") as small:
            self.assertEqual(small.generate([0]).tolist(), list(range(1, 9)))
            self.assertLess(small.nbytes, self.model.nbytes / 3)
            self.assertAlmostEqual(small.loss(NUMBERS), self.model.loss(NUMBERS), delta=0.01)
            self.assertNotEqual(small.loss(NUMBERS), self.model.loss(NUMBERS))
            self.assertEqual(small.arguments["storage"], "int8")
            small.save(file("small.packed"))
            before = small.loss(NUMBERS)
            small.load(file("small.packed"))
            self.assertEqual(small.loss(NUMBERS), before)
            self.model.save(file("large.packed"))
            self.refuses("storage: expected int8 .the model type., got f32", small.load, file("large.packed"))
            self.refuses("options.batch above 0", small.train, NUMBERS)
            self.refuses("is saved as .packed", small.save, file("small.safetensors"))
            self.refuses("have no arrays", small.weights)
            self.refuses("expected a model in f32", small.compress, "int4")
        self.refuses("^storage: expected one of f32, bf16, ", self.model.compress, "int9")

    def test_wrong_arrays_are_refused(self):
        m = self.model
        for pattern, call, arguments in (
                ("a token is outside", m.logits, ([9],)),
                ("a token is outside", m.train, ([0, 9, 1],)),
                ("below 2.31; got 2147483648", m.logits, ([2**31],)),
                ("tokens: expected integers of 1 or 2 dimension", m.train, ([0.5, 1.0],)),
                ("tokens: expected integers", m.logits, (np.zeros((1, 1, 1), int),)),
                ("prompt: expected integers of 1 dim", m.generate, ([[0]],)),
                ("no tokens", m.generate, ([],)),
                ("batch is larger", m.train, (np.zeros((2, 5), int),)),
                ("more tokens", m.feed, ([0] * 9,)),
                ("expected at least 2 in a row", m.train, ([0],)),
                ("labels: expected the shape of tokens, .1, 2.; got .1, 1.", m.loss, ([0, 1], [0])),
                ("at least one that counts", m.loss, ([0], [linnet.IGNORED]))):
            self.refuses(pattern, call, *arguments)
        self.refuses("an option is outside its range", m.generate, [0], temperature=-1.0)
        for name, value in (("seed", -1), ("seed", 2**64 + 5), ("tokens", 2**64 + 3), ("top_k", 2**64 + 3),
                            ("tokens", True), ("top_k", 1.0), ("top_p", "1"), ("temperature", float("nan"))):
            self.refuses(f"^{name}: expected ", m.generate, [0], **{name: value})
        self.refuses("limits.threads: expected", counting, threads=10**6)

    def test_callbacks_may_end_a_text_and_raise(self):
        got = []
        self.model.generate([0], on_token=lambda token: got.append(token) or token < 3)
        self.assertEqual(got, [1, 2, 3])

        def fail(token):
            raise KeyError(token)
        self.assertRaises(KeyError, self.model.generate, [0], on_token=fail)
        self.refuses("in use by the generate", self.model.generate, [0], on_token=lambda _: self.model.reset())
        self.refuses("in use by the generate", self.model.generate, [0], on_token=lambda _: self.model.close())
        self.assertEqual(self.model.generate([0], 1).tolist(), [1])

    def test_a_second_thread_waits(self):
        loss, found = self.model.loss(NUMBERS), []
        threads = [threading.Thread(target=lambda: found.extend(self.model.loss(NUMBERS) for _ in range(50)))
                   for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        self.assertEqual(found, [loss] * 200)

    def test_weights_change_while_others_read_them(self):
        weights = self.model.weights()
        with counting(batch=np.int64(0)) as other:
            other.set_weights(weights)
            loss, found = other.loss(NUMBERS), []
            threads = [threading.Thread(target=lambda: found.extend(other.loss(NUMBERS) for _ in range(50)))
                       for _ in range(4)]
            for one in threads:
                one.start()
            while any(one.is_alive() for one in threads):
                other.set_weights(weights)
            self.assertEqual(found, [loss] * 200)

            def close(_):
                if not closing.is_alive():
                    closing.start()
                return False
            closing = threading.Thread(target=other.close)
            self.assertEqual(other.generate(np.array([0]), np.int64(3), seed=np.uint64(2**64 - 1),
                                            temperature=np.float32(0), on_token=close).size, 1)
            closing.join()
            self.refuses("the model is closed", other.reset)

    def test_a_closed_model_is_refused(self):
        other = counting(batch=0)
        other.close()
        other.close()
        self.refuses("the model is closed", other.reset)
        self.refuses("options.batch above 0", counting(batch=0).train, NUMBERS)

    def test_threads_change_no_bit(self):
        other = counting(threads=2)
        losses = [other.train(NUMBERS) for _ in range(20)]
        self.assertEqual(losses, self.losses[:20])

    def test_the_library_says_which_numbers_do_not_fit(self):
        self.refuses("^linnet::decoder_shape: d_model must be a multiple of heads; or give d_kv, the width of a head$",
                     counting, heads=3)

    def test_a_type_is_compiled_once_and_anew_where_the_cache_is_stale(self):
        source = _model.unit(self.model._spec)
        made = _build.library(source)
        self.assertTrue(made.exists())
        with mock.patch.object(_build, "run", wraps=_build.run) as run:
            counting(batch=0)
            self.assertEqual(run.call_count, 2)
            self.assertFalse([call for call in run.call_args_list if "-o" in call.args[0]])
        other = "#include <cstdint>\nextern \"C\" const void* linnet_python(std::uint32_t, std::uint32_t) { return 0; }\n"
        damaged = _build.open_cache() / f"{_build.key_of(other, _build.command(False))}.so"
        data = made.read_bytes()
        for some in data[:5000], data[:5000] + b"x" + data[5001:], b"":
            damaged.write_bytes(some)
            self.assertFalse(_build.is_whole(damaged))
        self.assertTrue(_build.is_whole(_build.library(other)))  # compiled
        self.refuses("have another interface than this package", _api.load, other)
        with mock.patch.object(_build, "library", side_effect=[damaged, made]) as library:
            self.assertEqual(_api.load(source).parameters, self.model.parameters)
        self.assertEqual([call.kwargs for call in library.call_args_list], [{}, {"anew": True}])

    def test_the_notebook_says_what_its_cells_print(self):
        spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "tools/notebook.py")
        notebooks = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(notebooks)
        again, different = notebooks.run_again(ROOT / "docs/python.ipynb")
        self.assertEqual(different, [])
        cells = [cell for cell in again["cells"] if cell["cell_type"] == "code"]
        self.assertEqual([len(cell["outputs"]) for cell in cells], [1] * 7)
        cells[-1]["outputs"][0]["text"] = ["something else\n"]
        Path(file("other.ipynb")).write_text(json.dumps(again), encoding="utf-8")
        self.assertRegex(*notebooks.run_again(Path(file("other.ipynb")))[1], "(?s)cell 11 .*-.*something else")

    def test_the_cache_can_be_cleared(self):
        with mock.patch.dict(os.environ, {"LINNET_CACHE": file("cleared")}):
            _build.open_cache()
            Path(file("cleared/a.so")).write_text("")
            linnet.clear_cache()
            self.assertEqual(list(linnet.cache_folder().iterdir()), [])


@unittest.skipUnless(EVERYTHING, "compiles more types: LINNET_PYTHON_ALL=1")
class Everything(Case):
    def test_collapse(self):
        model = counting()
        for _ in range(150):
            model.train(NUMBERS)
        with model.collapse() as one:
            self.assertEqual(one.arguments["ffn"], "linear")
            self.assertLess(one.parameters, model.parameters)
            self.assertAlmostEqual(one.loss(NUMBERS), model.loss(NUMBERS), places=5)
            self.assertAlmostEqual(one.train(NUMBERS), model.loss(NUMBERS), places=5)
            self.refuses("expected ffn reparam2 or reparam3", one.collapse)
            with one.compress("int4") as small:
                self.assertEqual(small.generate([0]).tolist(), list(range(1, 9)))

    def test_f16_that_compress_made_has_no_arrays(self):
        with counting().compress("f16") as small:
            self.refuses("^the weights are packed, .* and have no arrays", small.weights)

    def test_an_exported_header_runs_in_a_program(self):
        model = counting()
        for _ in range(150):
            model.train(NUMBERS)
        model.export(file("x.hpp"), "counter")
        model.save(file("x.safetensors"))
        Path(file("x.cpp")).write_text(
            '#include "x.hpp"\n#include <linnet/json.hpp>\n#include <cstdio>\n'
            "int main(int, char** at) {\n"
            "  const auto packed = linnet::view_packed<counter::model>(counter::weights);\n"
            "  if (!packed) return std::puts(packed.error().message().c_str()), 1;\n"
            "  auto run = linnet::session<counter::model>::open(*packed, {.target = 8});\n"
            "  const linnet::token zero[] = {0};\n"
            '  run->generate(zero, linnet::greedy{}, [](linnet::token t) { return std::printf("%d ", t) > 0; });\n'
            "  linnet::weights<counter::model> w;  // the library's own reader takes the file\n"
            "  const auto done = linnet::load_safetensors(w, at[1]);\n"
            "  return std::puts(done ? \"loaded\" : done.error().message().c_str()) < 0;\n}\n")
        words = [*_build.compiler(), "-std=c++20", *os.environ["LINNET_CXXFLAGS"].split(), "-I", str(_build.headers()),
                 file("x.cpp"), "-o", file("x")]
        subprocess.run(words, check=True)
        said = subprocess.run([file("x"), file("x.safetensors")], check=True, capture_output=True, text=True).stdout
        self.assertEqual(said, "1 2 3 4 5 6 7 8 loaded\n")

    def test_other_families_and_kinds_count(self):
        for family, more in (("rwkv4", {}), ("rwkv7", {}),
                             ("decoder", dict(attention="mamba", ffn="skip", position="none")),
                             ("decoder", dict(attention="linear", ffn="experts(4, 2)", sharing="ffn"))):
            with linnet.model(family, d_model=16, heads=2, layers=1, vocabulary=9, context=8, rate=1e-2,
                              **more) as model:
                for _ in range(150):
                    model.train(NUMBERS)
                self.assertEqual(model.generate([0]).tolist(), list(range(1, 9)), (family, more))


if __name__ == "__main__":
    unittest.main(verbosity=1)
