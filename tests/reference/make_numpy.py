#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write tests/golden/numpy: arrays that NumPy wrote.

v1.npy, v2.npy, v3.npy      int32 [2, 3] in each version of the format
fortran.npy                 float32 [3, 4] in Fortran order: 10 * row + column
scalar.npy, empty.npy       float64 -2.5 without dimensions; float32 [0, 7]
kinds.npz                   numpy.savez: an array of each type, named as NumPy names it
stored.npz                  zipfile: float32 [2, 2] "a" and uint16 [3] "\\u00e9", with no ZIP64 fields
deflated.npz                numpy.savez_compressed

Needs the package numpy; see README.md. `make_numpy.py FILE` prints what NumPy finds in a file.
"""

import io
import pathlib
import sys
import zipfile

import numpy as np

VERSION = "2.4.6"
OUT = pathlib.Path(__file__).resolve().parent.parent / "golden" / "numpy"


def bytes_of(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def main():
    if len(sys.argv) == 2:
        found = np.load(sys.argv[1])
        for name in [None] if isinstance(found, np.ndarray) else sorted(found.files):
            array = found if name is None else found[name]
            print(name, array.dtype, array.shape, array.flags.f_contiguous, array.ravel()[:8])
        return
    if np.__version__ != VERSION:
        sys.exit(f"numpy {VERSION} is needed, this is {np.__version__}")
    OUT.mkdir(exist_ok=True)
    for major in 1, 2, 3:
        array = np.arange(-2, 4, dtype=np.int32).reshape(2, 3)
        (OUT / f"v{major}.npy").write_bytes(bytes_of(array, (major, 0)))
    rows, columns = np.indices((3, 4))
    (OUT / "fortran.npy").write_bytes(bytes_of(np.asfortranarray(10 * rows + columns, np.float32)))
    (OUT / "scalar.npy").write_bytes(bytes_of(np.array(-2.5)))
    (OUT / "empty.npy").write_bytes(bytes_of(np.zeros((0, 7), np.float32)))
    kinds = {"bool": np.array([True, False, True])}
    for name in "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split():
        info = np.iinfo(name)
        kinds[name] = np.array([info.min, 0, 5, info.max], name)
    for name in "float16 float32 float64".split():
        kinds[name] = np.array([-1.5, 0, 0.25, 65504], name)
    np.savez(OUT / "kinds.npz", **kinds)
    np.savez_compressed(OUT / "deflated.npz", a=np.zeros(9))
    with zipfile.ZipFile(OUT / "stored.npz", "w") as archive:
        a = np.array([[1, 2], [3, 4]], np.float32)
        archive.writestr(zipfile.ZipInfo("a.npy"), bytes_of(a))
        archive.writestr(zipfile.ZipInfo("\u00e9.npy"), bytes_of(np.array([7, 8, 65535], np.uint16)))


main()
