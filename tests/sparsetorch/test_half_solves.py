"""Solves in float16 and bfloat16: computed in float32 and rounded once, gradients too."""

import pytest
import torch
from random_matrices import random_csr, random_square

from sparsetorch import CSRTensor
from sparsetorch.linalg import (
    Solution,
    SolveError,
    bicgstab,
    block_cg,
    cg,
    chebyshev,
    factorized,
    fgmres,
    gmres,
    logdet,
    lsqr,
    minres,
    richardson,
    selected_inverse,
    slogdet,
    solve,
    solve_triangular,
)
from sparsetorch.linalg.methods import DIRECT
from sparsetorch.linalg.solve import METHODS
from sparsetorch.precond import Jacobi

HALF = [torch.float16, torch.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", HALF, ids=str)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def half_system(dtype: torch.dtype, n: int = 30) -> tuple[CSRTensor, torch.Tensor]:
    A = random_square(n, symmetric=True).detach()
    return A.to(dtype).requires_grad_(), torch.randn(n).to(dtype).requires_grad_()


@each_dtype
@pytest.mark.parametrize("method", [*DIRECT, *METHODS])
def test_solution_and_gradients_are_those_of_float32_rounded_once(method, dtype):
    A, b = half_system(dtype)
    wide_A, wide_b = A.detach().to(torch.float32).requires_grad_(), b.detach().float()
    wide_b.requires_grad_()
    x, wide_x = solve(A, b, method), solve(wide_A, wide_b, method)
    assert torch.equal(x, wide_x.to(dtype))
    weights = torch.randn(30).to(dtype)
    got = torch.autograd.grad(x, (A.values, b), weights)
    want = torch.autograd.grad(wide_x, (wide_A.values, wide_b), weights.float())
    for g, w in zip(got, want):
        assert g.dtype == dtype
        assert torch.equal(g, w.to(dtype))


@each_dtype
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
def test_triangular_solves_are_those_of_float32_rounded_once(lower, unit, transpose, dtype):
    A = random_square(20).detach().to(dtype).requires_grad_()
    wide = A.detach().to(torch.float32).requires_grad_()
    options = {"lower": lower, "unit_diagonal": unit, "transpose": transpose}
    for shape in [(20,), (20, 3)]:
        b = torch.randn(shape).to(dtype).requires_grad_()
        wide_b = b.detach().float().requires_grad_()
        x, wide_x = (solve_triangular(M, r, **options) for M, r in ((A, b), (wide, wide_b)))
        assert torch.equal(x, wide_x.to(dtype))
        weights = torch.randn(shape).to(dtype)
        got = torch.autograd.grad(x, (A.values, b), weights)
        want = torch.autograd.grad(wide_x, (wide.values, wide_b), weights.float())
        for g, w in zip(got, want):
            assert torch.equal(g, w.to(dtype))


@each_dtype
@pytest.mark.parametrize(
    "method",
    [cg, block_cg, minres, chebyshev, gmres, fgmres, bicgstab, richardson, lsqr],
    ids=lambda m: m.__name__,
)
def test_krylov_methods_iterate_in_float32(method, dtype):
    A, b = half_system(dtype)
    A, b = A.detach(), b.detach()
    got, want = method(A, b), method(A.to(torch.float32), b.float())
    assert got.converged  # at the tolerance of float32, far below that of half precision
    assert got.residuals == want.residuals
    assert torch.equal(got.x, want.x.to(dtype))
    assert torch.equal(
        method(A, b, x0=b).x, method(A.to(torch.float32), b.float(), x0=b.float()).x.to(dtype)
    )


@each_dtype
def test_preconditioners_get_float32(dtype):
    A, b = half_system(dtype)
    A, b = A.detach(), b.detach()
    seen = set()

    def inverse(r):
        seen.add(r.dtype)
        return 0.5 * r

    assert cg(A, b, preconditioner=inverse).converged
    assert seen == {torch.float32}
    for preconditioner in (Jacobi(A), factorized(A), 0.5 * CSRTensor.eye(30, dtype=dtype)):
        x = solve(A, b, "gmres", preconditioner=preconditioner)
        torch.testing.assert_close(x, solve(A, b))
    assert gmres(A, b, preconditioner=factorized(A)).iterations == 1


@each_dtype
def test_factors_of_half_precision(dtype):
    A = random_square(20).detach().to(dtype)
    b = torch.randn(20, 3).to(dtype)
    factors, wide = factorized(A), factorized(A.to(torch.float32))
    assert torch.equal(factors(b), wide(b.float()).to(dtype))
    assert torch.equal(factors.T(b), wide.T(b.float()).to(dtype))
    assert torch.equal(factors(b.float()), wide(b.float()))
    assert torch.equal(factors.refactorized(2 * A)(2 * b), factors(b))
    for got, want in zip(factors.slogdet(), wide.slogdet()):
        assert torch.equal(got, want.to(dtype))
    assert factors.logdet().dtype == dtype


@each_dtype
def test_determinants_and_inverses(dtype):
    A, _ = half_system(dtype)
    wide = A.detach().to(torch.float32).requires_grad_()
    for function in (logdet, lambda A: slogdet(A)[1], lambda A: selected_inverse(A).values.sum()):
        got, want = function(A), function(wide)
        torch.testing.assert_close(got, want.to(dtype))
        (g,) = torch.autograd.grad(got, A.values)
        (w,) = torch.autograd.grad(want, wide.values)
        torch.testing.assert_close(g, w.to(dtype))


@each_dtype
def test_batches_and_the_whole_solution(dtype):
    A, b = half_system(dtype)
    batch = A.with_values(torch.stack([A.values, 2 * A.values]))
    x = solve(batch, b)
    assert x.dtype == dtype
    torch.testing.assert_close(x, torch.stack([solve(A, b), solve(A, b) / 2]))
    solution = solve(A, b, "cg", full_output=True)
    assert isinstance(solution, Solution)
    assert solution.x.dtype == dtype
    assert torch.equal(solution.x, solve(A, b, "cg"))
    mapped = torch.vmap(lambda v: solve(A.with_values(v), b))(batch.values)
    assert torch.equal(mapped, x)


def test_what_is_refused_in_half_precision():
    A, b = half_system(torch.float16)
    with pytest.raises(TypeError, match=r"b: expected torch.float16 like A, got torch.float32"):
        solve(A, b.float())
    with pytest.raises(ValueError, match=r"x0: expected torch.float16 of shape"):
        solve(A, b, "cg", x0=b.float())
    with pytest.raises(SolveError, match="singular"):
        solve(0 * A, b)
    with pytest.raises(TypeError, match=r"expected a tensor of torch.float32"):
        cg(A, b, preconditioner=lambda r: r.half())
    with pytest.raises(ValueError, match="lsqr does not compute"):
        lsqr(random_csr(3, 2, 1.0, dtype=torch.float16), torch.ones(3).half())


@pytest.mark.parametrize("method", METHODS)
def test_iterations_are_not_rounded_by_autocast(method):
    A = random_square(30, symmetric=True).detach().to(torch.float32)
    b = torch.randn(30, 2)
    expected = METHODS[method](A, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (A.to_dense() @ b).dtype == torch.bfloat16
        got = METHODS[method](A, b)
    assert torch.equal(got.x, expected.x)
    assert got.residuals == expected.residuals
