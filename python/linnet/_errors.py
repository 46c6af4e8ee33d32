# SPDX-License-Identifier: MIT
"""The one exception of the package."""


class Error(Exception):
    """What was refused and what to do, in one sentence or two."""
