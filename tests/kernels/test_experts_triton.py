"""The experts' Triton kernels without a GPU: interpreted on CPU tensors, and compiled."""

from pathlib import Path

from test_csr_triton import pytestmark, run

__all__ = ["pytestmark"]  # pytest reads it: no Triton, no tests

HERE = Path(__file__).parent


def test_interpreted_kernels_agree_with_the_reference():
    experts = str(HERE / "test_experts.py")
    output = run(["-m", "pytest", "-x", experts, "-p", "no:cacheprovider"], TRITON_INTERPRET="1")
    assert "passed" in output
    assert "skipped" not in output


def test_kernels_compile_for_three_gpu_generations(tmp_path):
    output = run([str(HERE / "compile_expert_kernels.py")], TRITON_CACHE_DIR=str(tmp_path))
    counts = [output.count(architecture) for architecture in ("sm_80", "sm_90", "sm_100")]
    assert counts == [4, 8, 4]
