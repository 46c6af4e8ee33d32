# SPDX-License-Identifier: MIT
"""Compiles a C++ unit to a shared library once, and keeps it in the user's cache folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from ._errors import Error

PACKAGE = Path(__file__).resolve().parent
FLAGS = "-O3 -fopenmp"  # where LINNET_CXXFLAGS says nothing
EIGEN = ["/usr/include/eigen3", "/usr/local/include/eigen3", "/opt/homebrew/include/eigen3"]
# g++ and clang++ say these differently; the sentence is the library's.
REFUSAL = re.compile(r"error: (?:static assertion failed(?: due to requirement '.*?')?: |static_assert failed[^\"]*|"
                     r"#error )?\"?"
                     r"(linnet\b[^\n]*?)\"?$", re.M)
FIRST_ERROR = re.compile(r"(?:fatal )?error: ([^\n]*)")


def headers() -> Path:
    """The folder of the library's headers: the package's own, or in its repository the tree's."""
    for folder in PACKAGE / "include", PACKAGE.parents[1] / "include":
        if (folder / "linnet" / "c_interface.hpp").is_file():
            return folder
    raise Error(f"linnet's headers are not in {PACKAGE / 'include'}: install the package again")


def version() -> str:
    """The version of the headers."""
    text = (headers() / "linnet" / "core" / "platform.hpp").read_text()
    return ".".join(re.findall(r"define LINNET_VERSION_[A-Z]+ (\d+)", text))


@functools.lru_cache(maxsize=1)
def digest_of_headers() -> str:
    digest = hashlib.sha256()
    for path in [*sorted((headers() / "linnet").rglob("*.*pp")), *sorted((headers() / "linnet").rglob("*.inl")),
                 headers() / "linnet" / "c_api.h", PACKAGE / "unit.hpp"]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compiler() -> list[str]:
    """The command of the compiler: LINNET_CXX, CXX, g++ or clang++, whichever is there first."""
    for name in "LINNET_CXX", "CXX":
        if words := shlex.split(os.environ.get(name, "")):
            if shutil.which(words[0]):
                return words
            raise Error(f"{name} names {words[0]}, which is no program here")
    for name in "g++", "clang++":
        if shutil.which(name):
            return [name]
    raise Error("a model type is compiled once and there is no compiler: install g++ 12 or clang++ 14 or newer "
                "(Debian: apt install g++), or name one in the environment variable LINNET_CXX")


def eigen() -> str:
    """The folder of Eigen, which collapse() alone needs."""
    named = os.environ.get("LINNET_EIGEN")
    for folder in [named] if named else [*EIGEN, os.environ.get("CONDA_PREFIX", "") + "/include/eigen3"]:
        if Path(folder, "Eigen", "Core").is_file():
            return folder
    raise Error(f"collapse() needs Eigen 3.4, which is not in {named}: " if named else
                "collapse() needs Eigen 3.4, which is not here: install it (Debian: apt install libeigen3-dev), or "
                "name its folder in the environment variable LINNET_EIGEN")


def cache_folder() -> Path:
    """Where compiled model types are kept: LINNET_CACHE, or linnet in the user's cache folder."""
    if folder := os.environ.get("LINNET_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "linnet"


def clear_cache() -> None:
    """Deletes all compiled model types. Models that are open go on."""
    for path in cache_folder().glob("*"):
        if path.suffix in {".so", ".log"}:
            path.unlink(missing_ok=True)


def open_cache() -> Path:
    """The cache folder, made where it was not. Programs are loaded from it, so it is the user's alone."""
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as fault:
        raise Error(f"the cache folder {folder} cannot be made ({fault.strerror}): name another in the environment "
                    "variable LINNET_CACHE") from None
    if about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise Error(f"the cache folder {folder} is another user's or others may write to it: name another in the "
                    "environment variable LINNET_CACHE, or chmod go-w it")
    return folder


def command(needs_eigen: bool) -> list[str]:
    """The compiler and all its flags but files."""
    include = ["-I", str(headers()), "-I", str(PACKAGE)]
    if needs_eigen:
        include += ["-isystem", eigen()]
    return [*compiler(), "-std=c++20", *shlex.split(os.environ.get("LINNET_CXXFLAGS", FLAGS)), "-fPIC", "-shared",
            *include]


def run(words: list[str], **options) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="replace", **options)
    except OSError as fault:
        raise Error(f"{words[0]} does not start: {fault.strerror}") from None


def key_of(source: str, words: list[str]) -> str:
    """A name for what these words make of the source: another compiler, header or processor gives another.

    -march=native means another processor on each machine of a shared home; the macros name its instructions.
    """
    told = run([*compiler(), "--version"]).stdout
    macros = run([*(word for word in words if word != "-shared"), "-dM", "-E", "-x", "c++", "/dev/null"]).stdout
    parts = [source, digest_of_headers(), told, macros, platform.machine(), *words]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def library(source: str, needs_eigen: bool = False, anew: bool = False) -> Path:
    """The shared library of a unit, compiled where the cache has none. With `anew` it is compiled in any case."""
    words = command(needs_eigen)
    folder, key = open_cache(), key_of(source, words)
    made = folder / f"{key}.so"
    if not anew and is_whole(made):
        return made
    with tempfile.TemporaryDirectory(dir=folder) as work:
        unit, out = Path(work, "unit.cpp"), Path(work, "unit.so")
        unit.write_text(source)
        done = run([*words, str(unit), "-o", str(out)], env={**os.environ, "LC_ALL": "C"})
        if done.returncode != 0 or not out.exists():
            raise refused(done.stderr, folder / f"{key}.log")
        with out.open("r+b") as file:
            data = file.read()
            file.write(hashlib.sha256(data).digest())
        os.replace(out, made)  # at once: another program sees all of it or nothing
    return made


def is_whole(made: Path) -> bool:
    """Whether a library is there as it was written: its digest is behind it, where loaders do not look. Loading a
    part of one could end the program."""
    try:
        data = made.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data[:-32]).digest() == data[-32:]


def refused(said: str, log: Path) -> Error:
    """The library's own sentence on a model type, or the compiler's first error and where all is."""
    if match := REFUSAL.search(said):
        return Error(match[1])
    with contextlib.suppress(OSError):
        log.write_text(said)
    match = FIRST_ERROR.search(said)
    return Error(f"the compiler refused the model type: {match[1] if match else said.strip()[-200:]}; {log} has all "
                 "that it said")
