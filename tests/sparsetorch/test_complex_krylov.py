"""Krylov methods on complex systems: SciPy's solutions and iterations, and what theory says."""

import numpy as np
import pytest
import scipy.sparse.linalg as sl
import torch
from random_matrices import dense, random_complex, random_csr

from sparsetorch import CSRTensor
from sparsetorch.linalg import (
    Status,
    bicgstab,
    block_cg,
    cg,
    chebyshev,
    fgmres,
    gmres,
    lsqr,
    minres,
    richardson,
)
from sparsetorch.precond import Jacobi

METHODS = [
    (cg, "positive"),
    (block_cg, "positive"),
    (chebyshev, "positive"),
    (minres, "positive"),
    (minres, "hermitian"),
    (richardson, "general"),
    (gmres, "general"),
    (gmres, "hermitian"),
    (gmres, "symmetric"),
    (fgmres, "general"),
    (bicgstab, "general"),
    (bicgstab, "symmetric"),
]
every_method = pytest.mark.parametrize(
    ("method", "kind"), METHODS, ids=[f"{m.__name__}-{k}" for m, k in METHODS]
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@every_method
@pytest.mark.parametrize("columns", [(), (3,), (0,)], ids=["vector", "block", "empty"])
def test_solves_the_dense_system(method, kind, columns):
    A, b = random_complex(40, kind).detach(), torch.randn(40, *columns).to(torch.complex128)
    b = b * torch.exp(1j * torch.arange(40.0).double()).view(-1, *(1,) * len(columns))
    solution = method(A, b, rtol=1e-12)
    assert solution.converged
    assert all(isinstance(residual, float) for residual in solution.residuals)
    torch.testing.assert_close(solution.x, torch.linalg.solve(dense(A), b))
    assert solution.x.dtype == torch.complex128


@every_method
def test_single_precision_and_a_complex_preconditioner(method, kind):
    A = random_complex(40, kind, dtype=torch.complex64).detach()
    b = torch.randn(40, dtype=torch.complex64)
    # A Hermitian matrix has a real diagonal, but not a positive one.
    options = {} if kind == "hermitian" else {"preconditioner": Jacobi(A)}
    solution = method(A, b, **options)
    assert solution.converged
    assert solution.x.dtype == torch.complex64
    torch.testing.assert_close(dense(A) @ solution.x, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", [cg, bicgstab], ids=lambda m: m.__name__)
def test_iterates_are_those_of_scipy(method):
    A = random_complex(60, "positive").detach()
    b = torch.randn(60, dtype=torch.complex128)
    reference = getattr(sl, method.__name__)
    for steps in (1, 2, 5):
        got = method(A, b, maxiter=steps).x
        want, _ = reference(A.to_scipy(), b.numpy(), rtol=1e-14, maxiter=steps)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-9, atol=1e-12)


def test_full_gmres_minimises_the_residual_as_scipy_does():
    A, b = random_complex(30).detach(), torch.randn(30, dtype=torch.complex128)
    for steps in (1, 3, 7):
        residual = gmres(A, b, maxiter=steps).residuals[-1]
        x, _ = sl.gmres(A.to_scipy(), b.numpy(), rtol=0, restart=steps, maxiter=1)
        expected = float((b - A @ torch.from_numpy(x)).norm())
        assert residual == pytest.approx(expected, rel=1e-8)
    restarted = gmres(A, b, restart=3)
    assert restarted.converged
    torch.testing.assert_close(restarted.x, gmres(A, b).x)


def test_minres_minimises_the_residual_over_the_krylov_space():
    A, b = random_complex(30, "hermitian").detach(), torch.randn(30, dtype=torch.complex128)
    torch.testing.assert_close(
        torch.tensor(minres(A, b, rtol=1e-12).residuals[:-1]),
        torch.tensor(gmres(A, b, rtol=1e-12).residuals[:-1]),
        rtol=1e-6,
        atol=1e-11,
    )


@pytest.mark.parametrize("method", [cg, minres, gmres, fgmres, bicgstab], ids=lambda m: m.__name__)
def test_takes_as_many_steps_as_there_are_eigenvalues(method):
    """A unitary change of basis turns a real diagonal into a complex Hermitian matrix."""
    eigenvalues = torch.tensor([1.0, 1, 1, 2, 2, 5, 5, 5], dtype=torch.complex128)
    Q, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.complex128))
    A = CSRTensor.from_dense(Q @ eigenvalues.diag() @ Q.mH)
    solution = method(A, torch.randn(8, dtype=torch.complex128), rtol=1e-11)
    assert (solution.converged, solution.iterations) == (True, 3)


@pytest.mark.parametrize(("m", "n"), [(40, 15), (15, 40), (20, 20), (1, 1)])
def test_lsqr_is_the_shortest_minimiser_and_scipys(m, n):
    A = random_csr(m, n, 0.5 if m > 1 else 1.0, dtype=torch.complex128).detach()
    b = torch.randn(m, dtype=torch.complex128)
    solution = lsqr(A, b, rtol=1e-13)
    assert solution.converged
    want = torch.linalg.pinv(dense(A)) @ b
    torch.testing.assert_close(solution.x, want, rtol=1e-8, atol=1e-9)
    scipys = sl.lsqr(A.to_scipy(), b.numpy(), atol=1e-13, btol=1e-13)[0]
    np.testing.assert_allclose(solution.x.numpy(), scipys, rtol=1e-7, atol=1e-8)


def test_block_cg_finishes_after_as_many_steps_as_groups_of_eigenvalues():
    Q, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.complex128))
    spectrum = torch.arange(1.0, 13.0).to(torch.complex128)
    A = CSRTensor.from_dense(Q @ spectrum.diag() @ Q.mH)
    solution = block_cg(A, torch.randn(12, 3, dtype=torch.complex128), rtol=1e-9)
    assert (solution.converged, solution.iterations) == (True, 4)


def test_minres_says_that_a_complex_symmetric_matrix_is_not_hermitian():
    A = random_complex(20, "symmetric").detach() * (1 + 1j)
    solution = minres(A, torch.randn(20, dtype=torch.complex128), maxiter=200)
    assert solution.status is Status.MAXITER
    assert "the matrix is not Hermitian" in solution.message


def test_a_negative_definite_matrix_is_found_out():
    A = -1 * random_complex(20, "positive").detach()
    solution = cg(A, torch.randn(20, dtype=torch.complex128))
    assert solution.status is Status.INDEFINITE
