"""The experts' products on a GPU, by torch's grouped kernel and by Triton."""

import pytest
import torch
from csr_cases import relative_error
from expert_cases import CASES, NAMES, Case, experts

from sparsetorch_kernels import Layout, routed_mlp
from sparsetorch_kernels.moe import products, reference

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: the experts' products are NOT tested on one"
)

# Widths of whole 16 bytes, which torch's kernel wants.
ALIGNED = Case(tokens=333, experts=8, k=3, width=64, inner=48, idle=2)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def on_gpu(layout: Layout) -> Layout:
    arrays = {k: v.cuda() for k, v in layout._asdict().items() if isinstance(v, torch.Tensor)}
    return layout._replace(**arrays)


@pytest.mark.parametrize("own", [False, True], ids=["as it picks", "Triton"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", [*CASES.values(), ALIGNED], ids=[*CASES, "aligned"])
def test_result_and_every_gradient_are_the_reference_s(monkeypatch, case, dtype, own):
    if own:
        monkeypatch.setattr(products, "_in_one_call", lambda a, b: False)
    made = experts(case)
    layout = on_gpu(made.layout)
    leaves = [t.detach().cuda().requires_grad_() for t in made.to(dtype).leaves]
    exact = made.to(torch.float64).leaves
    got, want = routed_mlp(layout, *leaves), reference.routed_mlp(made.layout, *exact)
    direction = torch.randn(want.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    ours = torch.autograd.grad(got, leaves, direction.cuda().to(dtype))
    theirs = torch.autograd.grad(want, exact, direction.double())
    for name, a, b in zip(("y", *NAMES), (got.detach(), *ours), (want.detach(), *theirs)):
        assert relative_error(a.cpu(), b) <= TOLERANCE[dtype], name


def test_nothing_waits_for_the_gpu():
    made = experts(ALIGNED)
    layout = on_gpu(made.layout)
    leaves = [t.detach().cuda().requires_grad_() for t in made.to(torch.bfloat16).leaves]
    routed_mlp(layout, *leaves).sum().backward()  # compiles the kernels
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        routed_mlp(layout, *leaves).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
