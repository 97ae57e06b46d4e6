"""Pure Neumann problems: solved with their null space, or refused with the remedy."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dense_elements import diffusion, elasticity
from small_problems import random_matrix

from ddm.coarse import CoarseSolver, nicolaides, partition_of_unity, smooth
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg, fgmres

PROBLEMS = {
    "diffusion": diffusion(9, neumann=True),
    "elasticity": elasticity(7, neumann=True),
}


def parts(name: str, n_parts: int = 5):
    problem = PROBLEMS[name]
    bs = problem.block_size
    owner = partition(problem.A, n_parts, block_size=bs)
    d = decompose(problem.A, owner, 1, block_size=bs)
    return CSRTensor.from_scipy(problem.A), d, problem.near_nullspace


def dense_null(A: torch.Tensor, k: int) -> torch.Tensor:
    values, vectors = torch.linalg.eigh((A + A.T) / 2)
    assert values[k - 1].abs() < 1e-10 < values[k]
    return vectors[:, :k]


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("space", ["none", "plain", "smoothed"])
@pytest.mark.parametrize("solver", ["dense", "sparse"])
def test_consistent_systems_are_solved(name, space, solver):
    A, d, null = parts(name)
    k = null.shape[1]
    P = None if space == "none" else nicolaides(d, null)
    if space == "smoothed":
        P = smooth(P, A, block_size=d.block_size)  # type: ignore
    N = dense_null(A.to_dense(), k)
    b = A @ random_matrix(d.n, 1)[:, 0]
    expected = torch.linalg.pinv(A.to_dense(), hermitian=True) @ b
    for form, levels, solve in (
        ("restricted", "multiplicative", fgmres),
        ("additive", "balanced", cg),
        ("additive", "symmetric", cg),
        ("symmetric", "additive", cg),
    ):
        method = Schwarz(
            A, d, P=P, form=form, levels=levels, nullspace=null, coarse=solver  # type: ignore
        )  # fmt: skip
        solution = solve(A, b, preconditioner=method, rtol=1e-10, maxiter=200)
        assert solution.converged
        x = solution.x - N @ (N.T @ solution.x)
        torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-7 * float(expected.norm()))
        z = method.apply(b)
        assert (N.T @ z).abs().max() < 1e-9 * z.norm()
        M = method.apply(torch.eye(d.n, dtype=A.dtype))
        torch.testing.assert_close(method.apply_transposed(torch.eye(d.n, dtype=A.dtype)), M.T)


@pytest.mark.parametrize("solver", ["dense", "sparse"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_coarse_solve_is_the_pseudo_inverse(name, solver):
    A, d, null = parts(name)
    P = nicolaides(d, null)
    method = Schwarz(A, d, P=P, nullspace=null, coarse=solver)
    dense = (P.T @ (A @ P)).to_dense()
    expected = torch.linalg.pinv((dense + dense.T) / 2, hermitian=True, rtol=1e-10)
    r = random_matrix(P.shape[1], 2)
    torch.testing.assert_close(method.coarse.solve(r), expected @ r)
    torch.testing.assert_close(method.coarse.solve(r, transpose=True), expected.T @ r)


def test_null_vectors_outside_the_coarse_space_leave_it_regular():
    A, d, null = parts("elasticity")
    translations = nicolaides(d, null[:, :1].copy())
    method = Schwarz(A, d, P=translations, nullspace=null)
    assert method.coarse.null is not None
    assert method.coarse.null.shape == (5, 1)
    few = CSRTensor.from_dense(random_matrix(d.n, 3))
    assert Schwarz(A, d, P=few, nullspace=null).coarse.null is None


def test_without_the_null_space_they_are_refused_with_the_remedy():
    A, d, null = parts("diffusion")
    P = partition_of_unity(d)
    with pytest.raises(ValueError, match=r"P: the coarse matrix .* is singular.*nullspace=ones"):
        Schwarz(A, d, P=P)
    Schwarz(A, d, P=P, nullspace=torch.from_numpy(null))
    whole = decompose(PROBLEMS["diffusion"].A, np.zeros(d.n, dtype=int))
    with pytest.raises(ValueError, match=r"interface: the local matrix .* take more subdomains"):
        Schwarz(A, whole, nullspace=null)
    doubled = CSRTensor.from_dense(torch.cat([P.to_dense(), P.to_dense()], 1))
    with pytest.raises(ValueError, match="P: its columns are dependent"):
        Schwarz(A, d, P=doubled, nullspace=null, coarse="sparse")


def test_null_spaces_that_are_none_are_refused():
    A, d, null = parts("diffusion")
    n = d.n
    with pytest.raises(TypeError, match="nullspace: expected a tensor, got list"):
        Schwarz(A, d, nullspace=[1.0])  # type: ignore
    with pytest.raises(TypeError, match=r"nullspace: expected real vectors for torch\.float64"):
        Schwarz(A, d, nullspace=null * 1j)
    for wrong in (np.ones(n), np.ones((n - 1, 1)), np.ones((n, 0))):
        with pytest.raises(ValueError, match=rf"nullspace: expected shape \({n}, k\)"):
            Schwarz(A, d, nullspace=wrong)
    for wrong in (np.ones((n, 2)), np.zeros((n, 1)), np.full((n, 1), np.nan)):
        with pytest.raises(ValueError, match="nullspace: expected independent columns"):
            Schwarz(A, d, nullspace=wrong)
    with pytest.raises(ValueError, match="nullspace: A does not annihilate it, the residual is"):
        Schwarz(A, d, nullspace=random_matrix(n, 1))
    dense = PROBLEMS["diffusion"].A.toarray()
    skew = sp.csr_array(dense * (1 + np.arange(n)[:, None]))  # rows sum to zero, columns do not
    with pytest.raises(ValueError, match=r"nullspace: A\^H does not annihilate it"):
        Schwarz(CSRTensor.from_scipy(skew), d, nullspace=null)


def test_a_hermitian_matrix_with_complex_null_vectors():
    phase = torch.exp(1j * random_matrix(PROBLEMS["diffusion"].A.shape[0], 1)[:, 0])
    real, d, _ = parts("diffusion")
    A = real.to(torch.complex128).scale_rows(phase).scale_cols(phase.conj())
    P = nicolaides(d, phase.numpy()[:, None])
    method = Schwarz(A, d, P=P, form="additive", levels="balanced", nullspace=phase[:, None])
    eye = torch.eye(d.n, dtype=A.dtype)
    M = method.apply(eye)
    torch.testing.assert_close(M, M.mH)
    torch.testing.assert_close(method.apply_transposed(eye), M.T)
    assert float((M @ phase).abs().max()) < 1e-9
    b = A @ (random_matrix(d.n, 1)[:, 0] * phase)
    assert cg(A, b, preconditioner=method, rtol=1e-10, maxiter=100).converged


def test_a_coarse_matrix_with_a_known_null_space():
    n = 6
    path = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    path[0, 0] = path[-1, -1] = 1
    A0 = CSRTensor.from_dense(torch.from_numpy(path))
    ones = torch.ones(n, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="is singular"):
        CoarseSolver(A0)
    for kind in ("dense", "sparse"):
        got = CoarseSolver(A0, kind, ones).solve(torch.eye(n, dtype=torch.float64))
        torch.testing.assert_close(got, torch.linalg.pinv(A0.to_dense()))
