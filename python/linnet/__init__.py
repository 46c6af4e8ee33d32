# SPDX-License-Identifier: MIT
"""linnet: small language models, each a C++ type that is compiled on your machine.

    import linnet
    m = linnet.model("decoder", d_model=192, heads=6, layers=4, vocabulary=256, context=256, ffn="reparam3")
    loss = m.train(tokens)                      # numpy in, a float out
    small = m.compress("int8")
    small.generate(prompt, 64)                  # numpy out
"""

from ._api import IGNORED
from ._build import cache_folder, clear_cache, version as _version
from ._choices import FAMILIES as _families, SLOTS as _slots
from ._errors import Error
from ._model import Model, load, model

__all__ = ["IGNORED", "Error", "Model", "cache_folder", "choices", "clear_cache", "load", "model"]
__version__ = _version()


def choices() -> dict[str, list[str]]:
    """All choices of each argument of model() that is a word. The first of a slot is its default."""
    return {"family": list(_families), **{slot: list(words) for slot, (_, words) in _slots.items()}}
