"""`torch.autocast` rounds layers, and neither iterations nor the derivatives of what they find."""

import pytest
import torch
from torch import Tensor

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import (
    diagonal_estimate,
    eigsh,
    fixed_point,
    logdet_estimate,
    solve,
    svds,
    trace_estimate,
)
from sparsetorch.precond import (
    amg,
    block_jacobi,
    chebyshev,
    fsai,
    ic0,
    ilu0,
    jacobi,
    sor,
    spai,
    ssor,
)

A = poisson(10, 4, dtype=torch.float32)
WEIGHTS = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)) / 20
MASS = CSRTensor.diag(torch.linspace(1.0, 2.0, 40))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def equilibrium(A: CSRTensor, adjoint: str | None = None) -> Tensor:
    def layer(z: Tensor, values: Tensor) -> Tensor:
        return torch.tanh(WEIGHTS @ z) + 0.05 * A.with_values(values).matvec(z) + 1

    return fixed_point(layer, torch.zeros(40), A.values, adjoint=adjoint)


FUNCTIONS = {
    "fixed point": equilibrium,
    "its adjoint by GMRES": lambda A: equilibrium(A, "gmres"),
    "Hutch++": lambda A: trace_estimate(A, method="hutch++", generator=generator())[0],
    "diagonal": lambda A: diagonal_estimate(A, generator=generator()),
    "logdet": lambda A: logdet_estimate(A, generator=generator())[0],
    "an eigenvector": lambda A: eigsh(A, 1)[1],
    "eigenvectors of a complex matrix": lambda A: eigsh(A.to(torch.complex64), 2, which="LA")[1],
    "eigenvectors of a pencil": lambda A: eigsh(A, 2, M=MASS)[1],
    "eigenvectors around a shift": lambda A: eigsh(A, 2, sigma=0.1)[1],
    "singular vectors": lambda A: svds(A, 2)[2],
    "block CG": lambda A: solve(A, torch.eye(40)[:, :5], "block_cg"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_and_gradients_are_those_without_it(name):
    def found() -> tuple[Tensor, Tensor]:
        leaf = A.detach().requires_grad_()
        result = FUNCTIONS[name](leaf)
        weights = torch.linspace(1.0, 2.0, result.numel()).view(result.shape)
        loss = (weights * result).abs().sum()
        return result.detach(), torch.autograd.grad(loss, leaf.values)[0]

    expected = found()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = found()
    assert got[0].dtype == expected[0].dtype
    for one, other in zip(got, expected):
        assert torch.equal(one, other)


def test_estimates_for_a_function():
    def found() -> Tensor:
        return trace_estimate(lambda X: WEIGHTS @ (A @ X), n=40, generator=generator())[0]

    expected = found()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(found(), expected)


PRECONDITIONERS = {
    "amg": amg,
    "amg by aggregation": lambda A: amg(A, "smoothed_aggregation", max_coarse=4),
    "block Jacobi": lambda A: block_jacobi(A, 4),
    "Chebyshev": chebyshev,
    "FSAI": fsai,
    "IC(0)": ic0,
    "ILU(0)": ilu0,
    "Jacobi": jacobi,
    "SOR": sor,
    "SPAI": lambda A: spai(A).matvec,
    "SSOR": ssor,
}


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_preconditioners_by_hand_are_those_without_it(name):
    if name.startswith("amg"):
        pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]")

    def found(enabled: bool) -> list[Tensor]:
        leaf = A.detach().requires_grad_()
        r = torch.linspace(1.0, 2.0, 80).view(2, 40).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            M = PRECONDITIONERS[name](leaf)
            one, several = M(r[0]), M(r)
        assert one.dtype == torch.float32
        leaves = [r] if name.startswith("amg") else [r, leaf.values]  # AMG's set-up is a constant
        return [one, several, *torch.autograd.grad(several.square().sum(), leaves)]

    for got, expected in zip(found(True), found(False)):
        assert torch.equal(got, expected)
