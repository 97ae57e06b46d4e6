"""The differentiable solve, direct methods and determinants of complex matrices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from random_matrices import dense, random_complex
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor
from sparsetorch.linalg import (
    SolveError,
    Status,
    det,
    factorized,
    logdet,
    selected_inverse,
    slogdet,
    solve,
)
from sparsetorch.linalg.methods import DIRECT
from sparsetorch.linalg.solve import Method
from sparsetorch.precond import Jacobi


class Solver(NamedTuple):
    """A way to call `solve`, and the kind of matrix it is for."""

    method: Method
    kind: str = "general"
    settings: Callable[[CSRTensor], dict[str, Any]] = lambda A: {}

    def __str__(self) -> str:
        used = "" if self.settings(random_complex(2)) == {} else ", preconditioned"
        return f"{self.method}, {self.kind}{used}"

    def options(self, A: CSRTensor) -> dict[str, Any]:
        tolerance = {} if self.method in DIRECT else {"rtol": 1e-13}
        return {"method": self.method, **self.settings(A.detach()), **tolerance}


def jacobi(A: CSRTensor) -> dict[str, Any]:
    return {"preconditioner": Jacobi(A)}


def nearby(A: CSRTensor) -> dict[str, Any]:
    """The inverse of another matrix, Hermitian if A is, with a transpose of its own."""
    shift = torch.linspace(0.1, 0.5, A.shape[0]).to(A.dtype)
    return {"preconditioner": factorized(A + CSRTensor.diag(shift))}


SOLVERS = [
    Solver("direct"),
    Solver("direct", "positive"),
    Solver("direct", "hermitian"),
    Solver("direct", "symmetric"),
    Solver("cholesky", "positive"),
    Solver("ldlt", "hermitian"),
    Solver("cg", "positive"),
    Solver("cg", "positive", nearby),
    Solver("block_cg", "positive", jacobi),
    Solver("minres", "hermitian"),
    Solver("minres", "positive", nearby),
    Solver("chebyshev", "positive", lambda A: {"bounds": (0.1, 4.0)}),
    Solver("gmres"),
    Solver("gmres", "symmetric", nearby),
    Solver("gmres", "general", nearby),
    Solver("fgmres", "general", lambda A: {"preconditioner": lambda r: r + 0.1 * torch.tanh(r)}),
    Solver("bicgstab", "general", jacobi),
    Solver("bicgstab", "symmetric"),
]
KINDS = ["general", "positive", "hermitian", "symmetric"]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=str)


class System(NamedTuple):
    """A matrix, a right-hand side, and x as a function of both, by `solve` and by `torch`."""

    A: CSRTensor
    b: Tensor
    x: Callable[[Tensor, Tensor], Tensor]
    dense_x: Callable[[Tensor, Tensor], Tensor]


def system(solver: Solver, columns: tuple[int, ...] = (), n: int = 6) -> System:
    A = random_complex(n, solver.kind, seed=3)
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(n, *columns, generator=generator, dtype=A.dtype, requires_grad=True)
    options = solver.options(A)

    def matrix(values: Tensor) -> CSRTensor:
        """Single entries that are perturbed would leave the method's domain."""
        M = A.with_values(values)
        return (M + M.H) / 2 if solver.kind in ("positive", "hermitian") else M

    return System(
        A,
        b,
        lambda values, b: solve(matrix(values), b, **options),
        lambda values, b: torch.linalg.solve(dense(matrix(values)), b),
    )


@every_solver
@pytest.mark.parametrize("columns", [(), (2,)], ids=["vector", "block"])
def test_solution_and_gradients_are_those_of_the_dense_solve(solver, columns):
    A, b, x, dense_x = system(solver, columns, n=20)
    got, want = x(A.values, b), dense_x(A.values, b)
    torch.testing.assert_close(got, want)
    weights = torch.randn(b.shape, generator=torch.Generator().manual_seed(1), dtype=b.dtype)
    gradients = torch.autograd.grad(got, (A.values, b), weights)
    torch.testing.assert_close(gradients, torch.autograd.grad(want, (A.values, b), weights))
    assert not any(g.is_conj() for g in gradients)  # NumPy would refuse them


@every_solver
def test_derivatives_of_first_and_second_order(solver):
    A, b, x, _ = system(solver, (2,))
    options = {"fast_mode": True, "atol": 1e-6}
    assert gradcheck(x, (A.values, b), check_forward_ad=True, **options)
    assert gradgradcheck(x, (A.values, b), check_fwd_over_rev=True, **options)


@every_solver
def test_jvp_and_vmap_by_value(solver):
    A, b, x, dense_x = system(solver)
    values, b = A.values.detach(), b.detach()
    tangents = (torch.randn_like(values), torch.randn_like(b))
    torch.testing.assert_close(
        torch.func.jvp(x, (values, b), tangents), torch.func.jvp(dense_x, (values, b), tangents)
    )
    scaled = torch.stack([values, 2 * values])
    mapped = torch.vmap(x, (0, None))(scaled, b)
    torch.testing.assert_close(mapped, torch.stack([x(v, b) for v in scaled]))


def test_every_derivative_of_a_batched_gradient():
    A, b, x, dense_x = system(Solver("direct"))
    basis = torch.eye(6, dtype=A.dtype)
    got, want = (
        torch.autograd.grad(f(A.values, b), (A.values, b), basis, is_grads_batched=True)
        for f in (x, dense_x)
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("method", ["cg", "minres", "chebyshev"])
def test_a_hermitian_preconditioner_serves_the_adjoint_as_well(method):
    """An exact inverse takes one step in both directions only if it is transposed aright."""
    A = random_complex(30, "positive")
    b = torch.randn(30, dtype=A.dtype)
    factors, calls = factorized(A), []

    def inverse(r):
        calls.append(r)
        return factors(r)

    x = solve(A, b, method, preconditioner=inverse)
    forward = len(calls)
    x.abs().sum().backward()
    assert forward < len(calls) <= 2 * forward + 2


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [(), (3,), (0,)])
def test_factors_solve_with_the_matrix_and_its_transpose(dtype, kind, columns):
    A = random_complex(30, kind, dtype=dtype).detach()
    b = torch.randn(30, *columns, dtype=dtype)
    D, factors = dense(A), factorized(A)
    torch.testing.assert_close(factors(b), torch.linalg.solve(D, b))
    torch.testing.assert_close(factors.T(b), torch.linalg.solve(D.T, b))
    torch.testing.assert_close(factorized(A.H)(b.conj()), torch.linalg.solve(D.mH, b.conj()))
    other = A.with_values(A.values + A.values.conj() / 4)
    for again in (factors.refactorized(other), factors.T.refactorized(other.T).T):
        torch.testing.assert_close(again(b), torch.linalg.solve(D + D.conj() / 4, b))
    scipys = splu(A.to_scipy().tocsc()).solve(b.numpy())
    np.testing.assert_allclose(factors(b).numpy(), scipys, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_determinants_and_their_derivatives(kind):
    A = random_complex(7, kind, seed=2)
    for ours, torchs in (
        (slogdet, torch.linalg.slogdet),
        (det, torch.linalg.det),
        (logdet, torch.logdet),
    ):
        for got, want in zip(_tuple(ours(A)), _tuple(torchs(dense(A)))):
            torch.testing.assert_close(got, want)
            weight = torch.randn((), dtype=got.dtype)
            torch.testing.assert_close(
                torch.autograd.grad(got, A.values, weight, retain_graph=True),
                torch.autograd.grad(want, A.values, weight, retain_graph=True),
            )

        def function(values, ours=ours):
            return ours(A.with_values(values))

        assert gradcheck(function, A.values, check_forward_ad=True, fast_mode=True)
        assert gradgradcheck(function, A.values, fast_mode=True)


def _tuple(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("kind", KINDS)
def test_entries_of_the_inverse_and_their_derivatives(kind):
    A = random_complex(7, kind, seed=2)
    row, col = A.pattern.row.long(), A.pattern.col.long()
    got, want = selected_inverse(A).values, torch.linalg.inv(dense(A))[row, col]
    torch.testing.assert_close(got, want)
    weights = torch.randn_like(got)
    torch.testing.assert_close(
        *(torch.autograd.grad(f, A.values, weights, retain_graph=True) for f in (got, want))
    )
    basis = torch.eye(A.nnz, dtype=A.dtype)
    ours, denses = (
        torch.autograd.grad(f, A.values, basis, is_grads_batched=True, retain_graph=True)
        for f in (got, want)
    )
    torch.testing.assert_close(ours, denses)

    def entries(values):
        return selected_inverse(A.with_values(values)).values

    assert gradcheck(entries, A.values, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(entries, A.values, fast_mode=True)


def test_singular_matrices_are_explained():
    A = CSRTensor.from_dense(torch.tensor([[1j, 2], [2j, 4]], dtype=torch.complex128))
    with pytest.raises(SolveError, match="singular"):
        solve(A, torch.ones(2, dtype=A.dtype))
    outcome = solve(A, torch.ones(2, dtype=A.dtype), full_output=True)
    assert outcome.status is Status.SINGULAR
    sign, logarithm = slogdet(A)
    assert (sign.item(), logarithm.item(), logarithm.dtype) == (0, -torch.inf, torch.float64)


@pytest.mark.parametrize("method", ["cholesky", "ldlt"])
def test_matrices_that_are_not_hermitian_are_refused_by_the_first_pair(method):
    A = random_complex(4, "symmetric").detach()
    with pytest.raises(ValueError, match=r"expected a Hermitian matrix, but entry .*A\.H"):
        factorized(A, method)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("method", ["direct", "cg", "gmres", "bicgstab", "minres"])
def test_tiny_systems(n, method):
    A = CSRTensor.diag(torch.full((n,), 2.0, dtype=torch.complex128)).requires_grad_()
    b = torch.full((n,), 4j, dtype=torch.complex128)
    x = solve(A, b, method)
    torch.testing.assert_close(x, torch.full((n,), 2j, dtype=torch.complex128))
    (gradient,) = torch.autograd.grad(x.imag.sum(), A.values)
    torch.testing.assert_close(gradient, torch.full((n,), -1.0, dtype=torch.complex128))
