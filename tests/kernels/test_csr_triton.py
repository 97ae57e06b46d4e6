"""The Triton kernels of the CSR products without a GPU: interpreted, and compiled."""

import os

import pytest
from triton_processes import compiled, interpreted, needs_interpreter, needs_triton

pytestmark = [
    needs_triton,
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") == "1",
        reason="this process is one of those started here",
    ),
]


@needs_interpreter
def test_interpreted_kernels_agree_with_dense_arithmetic():
    output = interpreted("test_csr_products.py", "test_csr_signs.py")
    assert "passed" in output
    assert "skipped" not in output


def test_kernels_compile_for_three_gpu_generations(tmp_path):
    output = compiled("compile_csr_kernels.py", tmp_path)
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert output.count(architecture) == 20
