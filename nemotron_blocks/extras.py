"""Imports of the packages that only some functions of nemotron_blocks need."""

from __future__ import annotations

from typing import Any

from sparsetorch import extras


def extra(module: str) -> Any:
    """Import a module of the `lm` extra.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    return extras.extra(module, "lm")
