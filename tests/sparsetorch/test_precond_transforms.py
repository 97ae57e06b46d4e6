"""Preconditioners made inside of `torch.func` transforms, `torch.vmap` and compiled code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import solve
from sparsetorch.precond import (
    Jacobi,
    amg,
    block_jacobi,
    chebyshev,
    fsai,
    ic0,
    ilu0,
    sor,
    spai,
    ssor,
)

pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]")


IN_TRANSFORMS = [
    Jacobi,
    lambda A: block_jacobi(A, 5),
    lambda A: block_jacobi(A, partition=torch.arange(12) // 4),
    lambda A: chebyshev(A, 2, (0.1, 2.0)),
    sor,
    ssor,
    ilu0,
    ic0,
    fsai,
    lambda A: spai(A).matvec,
]


@pytest.mark.parametrize("build", IN_TRANSFORMS)
def test_may_be_made_inside_of_transforms(build):
    A, r = poisson(4, 3, dtype=torch.float64), torch.linspace(-1.0, 2.0, 12, dtype=torch.float64)

    def image(values: Tensor) -> Tensor:
        return build(A.with_values(values))(r)

    def energy(values: Tensor) -> Tensor:
        return image(values).square().sum()

    many = torch.stack([A.values, A.values * (1 + 0.1 * torch.rand(A.nnz)), 2 * A.values])
    torch.testing.assert_close(torch.vmap(image)(many), torch.stack([image(v) for v in many]))
    each = []
    for v in many:
        leaf = v.clone().requires_grad_()
        each.append(torch.autograd.grad(energy(leaf), leaf)[0])
    torch.testing.assert_close(torch.vmap(torch.func.grad(energy))(many), torch.stack(each))
    tangent = torch.func.jvp(energy, (many[1],), (many[0],))[1]
    torch.testing.assert_close(tangent, each[1] @ many[0])


def test_what_is_singular_in_a_transform_is_still_named():
    A = poisson(4, 3, dtype=torch.float64)
    many = torch.stack([A.values, torch.zeros_like(A.values)])
    cases: list[tuple[Any, str]] = [
        (lambda A: block_jacobi(A, 4), "block 0"),
        (fsai, "row 0"),
        (lambda A: spai(A).matvec, "column 0"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message):
            torch.vmap(lambda v, b=build: b(A.with_values(v))(v[:12]))(many)


def test_a_chebyshev_interval_is_that_of_all_members():
    A = poisson(4, 3, dtype=torch.float64)
    many = torch.stack([A.values, A.add_diagonal(torch.full((12,), 3.0, dtype=A.dtype)).values])
    got = torch.vmap(lambda v: chebyshev(A.with_values(v), 3)(v[:12]))(many)
    members = [chebyshev(A.with_values(v), 3).bounds for v in many]
    bounds = min(low for low, _ in members), max(high for _, high in members)
    for v, image in zip(many, got):
        torch.testing.assert_close(image, chebyshev(A.with_values(v), 3, bounds)(v[:12]))


def test_amg_in_transforms():
    A, b = poisson(8, 8, dtype=torch.float64), torch.ones(64, dtype=torch.float64)

    def energy(values: Tensor, build: Callable[[CSRTensor], Any] | None) -> Tensor:
        M = None if build is None else build(A.with_values(values))
        return solve(A.with_values(values), b, "cg", preconditioner=M).sum()

    gradient = torch.func.grad(energy)
    torch.testing.assert_close(gradient(A.values, amg), gradient(A.values, None))
    tangent = torch.func.jvp(lambda v: energy(v, amg), (A.values,), (A.values,))[1]
    torch.testing.assert_close(tangent, gradient(A.values, None) @ A.values)
    with pytest.raises(ValueError, match="make it outside of vmap"):
        torch.vmap(lambda v: energy(v, amg))(A.values[None])


@pytest.mark.parametrize("build", [Jacobi, lambda A: block_jacobi(A, 5)])
def test_may_be_made_in_compiled_code(build):
    A, b = poisson(4, 3, dtype=torch.float64).requires_grad_(), torch.ones(12, dtype=torch.float64)

    def energy(A: CSRTensor) -> Tensor:
        return solve(A, b, "cg", preconditioner=build(A)).sum()

    expected = energy(A)  # also finds the structure of the blocks
    torch._dynamo.reset()
    got = torch.compile(energy, fullgraph=True, backend="aot_eager")(A)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(loss, A.values)[0] for loss in (got, expected)]
    torch.testing.assert_close(*gradients)
