"""The Triton kernels of scan, convolution and norms without a GPU: interpreted, and compiled."""

from triton_processes import compiled, interpreted, needs_interpreter, needs_triton

pytestmark = needs_triton


@needs_interpreter
def test_interpreted_kernels_agree_with_the_definition():
    chosen = "test_ssd_scan or test_norms or (formula and packed and silu)"
    output = interpreted("test_ssd_scan.py", "test_causal_conv.py", "test_norms.py", chosen=chosen)
    assert " passed" in output
    assert "failed" not in output


def test_kernels_compile_for_three_gpu_generations(tmp_path):
    output = compiled("compile_ssd_kernels.py", tmp_path)
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert output.count(architecture) == 13
