"""Imports of the packages that only some functions of graphnets need."""

from __future__ import annotations

import importlib
from typing import Any


def extra(module: str) -> Any:
    """Import a module of the `graph` extra.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"{module} is not installed: pip install 'sparsetorch[graph]'") from error
