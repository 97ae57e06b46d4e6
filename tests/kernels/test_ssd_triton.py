"""The Triton kernels of scan and convolution without a GPU: interpreted, and compiled.

Each in a process of its own, because Triton decides at its first import whether it interprets.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: its kernels are NOT tested (pip install triton)",
)


def run(arguments: list[str], **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, *arguments], env=clean | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-3000:]
    return result.stdout


def test_interpreted_kernels_agree_with_the_definition():
    files = str(HERE / "test_ssd_scan.py"), str(HERE / "test_causal_conv.py")
    tests = "test_ssd_scan or (formula and packed and silu)"
    command = ["-m", "pytest", *files, "-k", tests, "-p", "no:cacheprovider"]
    output = run(command, TRITON_INTERPRET="1")
    assert " passed" in output
    assert "failed" not in output


def test_kernels_compile_for_three_gpu_generations(tmp_path):
    output = run([str(HERE / "compile_ssd_kernels.py")], TRITON_CACHE_DIR=str(tmp_path))
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert output.count(architecture) == 12
