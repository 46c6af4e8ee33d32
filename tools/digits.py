#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes scikit-learn's 1,797 images of handwritten digits as the NumPy files that examples/digits reads.

    tools/digits.py FILE FOLDER

FILE is scikit_learn-*.whl, or the digits.csv.gz in it, and needs nothing else: no scikit-learn, no
NumPy. FOLDER gets images.npy [1797, 8, 8] of shades from 0 to 16, and labels.npy [1797].
"""

import gzip
import struct
import sys
import zipfile
from pathlib import Path

NAME = "sklearn/datasets/data/digits.csv.gz"


def array(shape, values):
    """A .npy file of bytes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(values)


def main(source, folder):
    packed = zipfile.ZipFile(source).read(NAME) if source.suffix == ".whl" else source.read_bytes()
    rows = [list(map(int, line.split(","))) for line in gzip.decompress(packed).decode().split()]
    if not rows or any(len(row) != 65 for row in rows):
        sys.exit(f"{source}: expected rows of 64 shades and a label")
    folder.mkdir(parents=True, exist_ok=True)
    shades = [shade for row in rows for shade in row[:64]]
    (folder / "images.npy").write_bytes(array((len(rows), 8, 8), shades))
    (folder / "labels.npy").write_bytes(array((len(rows),), [row[64] for row in rows]))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
