"""The Triton kernels of scan, convolution and norms without a GPU: interpreted, and compiled."""

from triton_processes import compiled, interpreted, needs_interpreter, needs_triton

pytestmark = needs_triton


@needs_interpreter
def test_interpreted_kernels_agree_with_the_definition():
    chosen = "test_ssd_scan or test_norms or (formula and packed and silu)"
    output = interpreted("test_ssd_scan.py", "test_causal_conv.py", "test_norms.py", chosen=chosen)
    assert " passed" in output
    assert "failed" not in output


def test_kernels_compile_for_four_kinds_of_gpus(tmp_path):
    output = compiled("compile_ssd_kernels.py", tmp_path)
    for architecture, count in (("sm_80", 13), ("sm_90", 13), ("sm_100", 13), ("sm_89", 10)):
        assert output.count(architecture) == count
