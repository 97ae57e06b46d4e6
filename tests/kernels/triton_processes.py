"""Processes in which Triton's kernels are interpreted or compiled, without a GPU.

Each is of its own, because Triton decides at its first import whether it interprets.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: its kernels are NOT tested (pip install triton)",
)


def _interprets() -> bool:
    """Whether Triton's interpreter runs: before 3.7 it takes arrays of one number for numbers."""
    try:
        float(np.ones(1))
    except TypeError:  # NumPy 2.5 and later
        numbers = importlib.metadata.version("triton").split(".")[:2]
        return tuple(map(int, numbers)) >= (3, 7)
    return True


needs_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is not None and not _interprets(),
    reason="this Triton does not interpret with this NumPy: its kernels are NOT tested",
)


def run(arguments: list[str], **environment: str) -> str:
    """What a Python process with these arguments prints; it has to end well."""
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, *arguments], env=clean | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-3000:]
    return result.stdout


def interpreted(*files: str, chosen: str | None = None) -> str:
    """What tests in these files beside this one print when Triton interprets its kernels."""
    command = ["-m", "pytest", *(str(HERE / file) for file in files), "-p", "no:cacheprovider"]
    return run([*command, *(["-k", chosen] if chosen else ["-x"])], TRITON_INTERPRET="1")


def compiled(script: str, cache: Path) -> str:
    """What a script beside this file prints that compiles kernels."""
    return run([str(HERE / script)], TRITON_CACHE_DIR=str(cache))
