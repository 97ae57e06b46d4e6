"""The same operations and solvers on a GPU, against the CPU; skipped where there is none."""

import importlib.util
from functools import partial
from typing import Any

import pytest
import torch
from operations import OPERATIONS, random_inputs, values_of
from random_matrices import random_csr, random_square

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import (
    SolveError,
    eigsh,
    fixed_point,
    logdet_estimate,
    lsqr,
    solve,
    solve_triangular,
    trace_estimate,
)
from sparsetorch.precond import Jacobi, amg, block_jacobi, chebyshev

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_matches_the_cpu(operation):
    here = random_inputs(40, 30, 20, 0.2, seed=4)
    there = here._replace(
        **{name: getattr(here, name).to("cuda") for name in here._fields[3:]},
        **{name: getattr(here, name).detach().to("cuda").requires_grad_() for name in "ABC"},
    )
    expected, got = values_of(operation.sparse(here)), values_of(operation.sparse(there))
    torch.testing.assert_close(got.cpu(), expected)
    if expected.requires_grad:
        weights = torch.linspace(1, 2, expected.numel(), dtype=torch.float64).reshape(
            expected.shape
        )
        for g, e in zip(
            torch.autograd.grad(got, there.tensors(), weights.cuda(), materialize_grads=True),
            torch.autograd.grad(expected, here.tensors(), weights, materialize_grads=True),
        ):
            torch.testing.assert_close(g.cpu(), e)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex128])
def test_matrices_with_long_rows(dtype):
    row = torch.cat([torch.full((700,), 3), torch.randint(0, 900, (2000,))])
    col = torch.cat([torch.arange(700), torch.randint(0, 900, (2000,))])
    here = CSRTensor.from_coo(row, col, torch.randn(2700, dtype=dtype), (900, 900))
    x = torch.randn(900, 5, dtype=dtype)
    tolerance: Any = {"rtol": 1e-2, "atol": 1e-1} if dtype == torch.float16 else {}
    there = here.to("cuda")
    torch.testing.assert_close((there @ x.cuda()).cpu(), here @ x, **tolerance)
    torch.testing.assert_close((there.T @ x[:, 0].cuda()).cpu(), here.T @ x[:, 0], **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("lower", [True, False])
def test_substitution(lower, dtype):
    A = random_square(60, symmetric=True).detach().to(dtype)
    b = torch.randn(60, 3, dtype=dtype)
    for options in ({}, {"transpose": True}, {"unit_diagonal": True}):
        here, there = (M.detach().requires_grad_() for M in (A, A.to("cuda")))
        x = solve_triangular(here, b, lower=lower, **options)
        y = solve_triangular(there, b.cuda(), lower=lower, **options)
        torch.testing.assert_close(y.cpu(), x, rtol=1e-4, atol=1e-5)
        x.abs().sum().backward()
        y.abs().sum().backward()
        assert here.values.grad is not None
        assert there.values.grad is not None
        torch.testing.assert_close(there.values.grad.cpu(), here.values.grad, rtol=1e-3, atol=1e-4)
    with pytest.raises(SolveError, match="the diagonal entry of row 0"):
        solve_triangular(CSRTensor.from_dense(torch.eye(2).flip(0)).cuda(), torch.ones(2).cuda())


def test_structure_of_triplets():
    row, col = torch.randint(0, 30, (2, 500))
    values = torch.randn(500, dtype=torch.float64)
    here = CSRTensor.from_coo(row, col, values, (30, 30))
    there = CSRTensor.from_coo(row.cuda(), col.cuda(), values.cuda(), (30, 30))
    assert torch.equal(there.pattern.col.cpu(), here.pattern.col)
    torch.testing.assert_close(there.values.cpu(), here.values)


@pytest.mark.parametrize(
    "method", ["cg", "block_cg", "minres", "chebyshev", "gmres", "fgmres", "bicgstab"]
)
def test_iterative_solvers(method):
    A = random_square(50, symmetric=True)
    b = torch.ones(50, dtype=torch.float64)
    there = A.detach().to("cuda").requires_grad_()
    x, y = solve(A, b, method), solve(there, b.cuda(), method)
    torch.testing.assert_close(y.cpu(), x)
    x.sum().backward()
    y.sum().backward()
    assert A.values.grad is not None
    assert there.values.grad is not None
    torch.testing.assert_close(there.values.grad.cpu(), A.values.grad)


@pytest.mark.parametrize(
    "build",
    [Jacobi, partial(block_jacobi, block_size=7), chebyshev, amg],
    ids=["Jacobi", "blocks", "chebyshev", "amg"],
)
def test_preconditioners(build):
    A = poisson(20, 15, dtype=torch.float64)
    r = torch.linspace(0, 1, 300, dtype=torch.float64)
    here, there = build(A), build(A.to("cuda"))
    torch.testing.assert_close(there(r.cuda()).cpu(), here(r))
    torch.testing.assert_close(there.T(r.cuda()).cpu(), here.T(r))


def test_least_squares():
    A = random_csr(60, 20, 0.3).detach()
    b = torch.linspace(0, 1, 60, dtype=torch.float64)
    torch.testing.assert_close(lsqr(A.to("cuda"), b.cuda()).x.cpu(), lsqr(A, b).x)


@pytest.mark.parametrize("which", ["LA", "SA"])
def test_eigenpairs(which):
    A = random_square(50, symmetric=True)
    there = A.detach().to("cuda").requires_grad_()
    results = [eigsh(M, 3, which=which) for M in (A, there)]
    for here, got in zip(*results):
        torch.testing.assert_close(got.cpu(), here)
    for w, V in results:
        (w.sum() + (V**3).sum()).backward()
    assert A.values.grad is not None
    assert there.values.grad is not None
    torch.testing.assert_close(there.values.grad.cpu(), A.values.grad, rtol=1e-6, atol=1e-8)


def test_estimates_and_fixed_points():
    A, b = random_square(50, symmetric=True).detach(), torch.ones(50, dtype=torch.float64)
    there = A.to("cuda")
    for estimate in (trace_estimate, logdet_estimate):
        seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
        here, got = (estimate(M, generator=g) for M, g in zip((A, there), seeds))
        torch.testing.assert_close(got.value.cpu(), here.value)
    z = fixed_point(lambda z, b: z + b - there @ z, 0 * b.cuda(), b.cuda())
    torch.testing.assert_close(z.cpu(), solve(A, b))


def test_the_direct_method_says_where_it_runs():
    A, b = CSRTensor.eye(2).to("cuda"), torch.ones(2, device="cuda")
    with pytest.raises(ValueError, match="LU on CUDA, got cuda:0 and 'cholesky'"):
        solve(A, b, method="cholesky")
    if importlib.util.find_spec("nvmath") is None:
        with pytest.raises(ImportError, match="pip install 'nvmath-python"):
            solve(A, b)
