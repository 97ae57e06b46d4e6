"""Triton kernels without a GPU: interpreted on CPU tensors, and compiled to machine code.

Each in a process of its own, because Triton decides at its first import whether it interprets.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="triton is not installed: its kernels are NOT tested (pip install triton)",
    ),
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1",
        reason="this process is one of those started here",
    ),
]


def run(arguments: list[str], **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, *arguments], env=clean | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-3000:]
    return result.stdout


def test_interpreted_kernels_agree_with_dense_arithmetic():
    files = [str(HERE / f"test_csr_{name}.py") for name in ("products", "signs")]
    output = run(["-m", "pytest", "-x", *files, "-p", "no:cacheprovider"], TRITON_INTERPRET="1")
    assert "passed" in output
    assert "skipped" not in output


def test_kernels_compile_for_three_gpu_generations(tmp_path):
    output = run([str(HERE / "compile_csr_kernels.py")], TRITON_CACHE_DIR=str(tmp_path))
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert output.count(architecture) == 20
