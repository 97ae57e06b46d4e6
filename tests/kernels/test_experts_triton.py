"""The experts' Triton kernels without a GPU: interpreted on CPU tensors, and compiled."""

from triton_processes import compiled, interpreted, needs_interpreter, needs_triton

pytestmark = needs_triton


@needs_interpreter
def test_interpreted_kernels_agree_with_the_reference():
    output = interpreted("test_experts.py")
    assert "passed" in output
    assert "skipped" not in output


def test_kernels_compile_for_three_gpu_generations(tmp_path):
    output = compiled("compile_expert_kernels.py", tmp_path)
    counts = [output.count(architecture) for architecture in ("sm_80", "sm_90", "sm_100")]
    assert counts == [5, 10, 5]
