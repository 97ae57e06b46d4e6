"""Coarse spaces of several vectors a subdomain: near-null vectors, block smoothing, GenEO."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch
from dense_elements import diffusion, elasticity, summed
from dense_schwarz import one_level, restrictions, two_levels
from small_problems import laplacian, random_matrix

from ddm.coarse import (
    algebraic_neumann,
    assembled_neumann,
    geneo,
    nicolaides,
    partition_of_unity,
    smooth,
    spectral,
)
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg


def decomposed(problem, n_parts=5, overlap=1):
    bs = problem.block_size
    owner = partition(problem.A, n_parts, block_size=bs)
    return decompose(problem.A, owner, overlap, block_size=bs)


def local_matrices(blocks: CSRTensor, d, i: int) -> np.ndarray:
    here = np.flatnonzero(d.subdomain == i)
    return blocks.to_dense().numpy()[np.ix_(here, here)]


def spans(P: torch.Tensor, Q: torch.Tensor) -> bool:
    """Whether Q lies in the range of P."""
    solution = torch.linalg.lstsq(P, Q).solution
    return bool((P @ solution - Q).abs().max() < 1e-8)


@pytest.mark.parametrize("problem", [diffusion(9), elasticity(7)], ids=["diffusion", "elasticity"])
@pytest.mark.parametrize("overlap", [1, 2])
def test_near_null_vectors_are_weighted_and_orthonormal(problem, overlap):
    d = decomposed(problem, 5, overlap)
    B = torch.from_numpy(problem.near_nullspace)
    P = nicolaides(d, problem.near_nullspace).to_dense()
    k = B.shape[1]
    assert P.shape == (d.n, 5 * k)
    assert spans(P, B)
    for i in range(5):
        R, _ = restrictions(d, i)
        times = torch.from_numpy(d.multiplicity).double()
        expected = R.T @ R @ (B / times[:, None])
        mine = P[:, i * k : (i + 1) * k]
        assert spans(mine, expected)
        torch.testing.assert_close(mine.T @ mine, torch.eye(k, dtype=torch.float64))


def test_one_constant_gives_the_partition_of_unity():
    problem = diffusion(9)
    d = decomposed(problem)
    P, Q = nicolaides(d, problem.near_nullspace), partition_of_unity(d)
    assert torch.equal(P.pattern.col, Q.pattern.col)
    dense = Q.to_dense()
    expected = (dense / dense.norm(dim=0)).abs()
    torch.testing.assert_close(P.to_dense().abs(), expected)


def test_dependent_vectors_are_dropped_where_they_are_dependent():
    """A part of one node has two translations and no rotation; and a vector given twice."""
    A = sp.csr_array(sp.eye_array(12) * 4.0)
    owner = np.repeat([0, 0, 0, 1, 2, 2], 2)
    d = decompose(A, owner, block_size=2)
    x, y = random_matrix(6, 2).numpy().T
    B = np.zeros((12, 3))
    B[0::2, 0] = B[1::2, 1] = 1
    B[0::2, 2], B[1::2, 2] = -y, x
    P = nicolaides(d, B).to_dense()
    assert P.shape == (12, 3 + 2 + 3)
    assert spans(P, torch.from_numpy(B))
    doubled = nicolaides(d, np.concatenate([B, 2 * B[:, :1]], axis=1))
    assert doubled.shape == (12, 8)
    complex_vectors = nicolaides(d, np.exp(1j * x).repeat(2)[:, None])
    dense = complex_vectors.to_dense()
    torch.testing.assert_close(dense.mH @ dense, torch.eye(3, dtype=torch.complex128))


def test_owned_weights_give_orthonormal_columns_however_far_subdomains_overlap():
    problem = elasticity(7)
    d = decomposed(problem, 4, 50)
    P = nicolaides(d, problem.near_nullspace, weights="owned")
    assert P.nnz == 3 * d.n
    dense = P.to_dense()
    torch.testing.assert_close(dense.T @ dense, torch.eye(12, dtype=torch.float64))
    assert spans(dense, torch.from_numpy(problem.near_nullspace))
    with pytest.raises(ValueError, match="weights: expected 'shared' or 'owned', got 'own'"):
        nicolaides(d, problem.near_nullspace, weights="own")


def test_vectors_that_do_not_fit_are_refused():
    d = decomposed(diffusion(7), 3)
    for wrong in (np.ones(d.n), np.ones((d.n + 1, 1)), np.ones((d.n, 0))):
        with pytest.raises(ValueError, match=rf"near_nullspace: expected shape \({d.n}, k\)"):
            nicolaides(d, wrong)
    with pytest.raises(TypeError, match="near_nullspace: expected a NumPy array of float64"):
        nicolaides(d, np.ones((d.n, 1), np.float32))
    with pytest.raises(ValueError, match="near_nullspace: some entries are NaN or infinite"):
        nicolaides(d, np.full((d.n, 1), np.nan))
    with pytest.raises(ValueError, match="near_nullspace: every vector is zero on subdomain"):
        nicolaides(d, np.zeros((d.n, 2)))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("omega", [0.5, None])
def test_smoothing_by_blocks_is_damped_block_jacobi(steps, omega):
    problem = elasticity(7)
    d, A = decomposed(problem), CSRTensor.from_scipy(problem.A)
    P = nicolaides(d, problem.near_nullspace)
    dense, D = P.to_dense(), A.to_dense()
    blocks = torch.block_diag(
        *(torch.linalg.inv(D[i : i + 2, i : i + 2]) for i in range(0, d.n, 2))
    )
    radius = float(torch.linalg.eigvals(blocks @ D).abs().max())
    weight = 4 / (3 * radius) if omega is None else omega
    for _ in range(steps):
        dense = dense - weight * blocks @ D @ dense
    got = smooth(P, A, steps, omega, block_size=2).to_dense()
    torch.testing.assert_close(got, dense, rtol=1e-9, atol=0.05 if omega is None else 1e-12)
    energies = [(Q.T @ D @ Q).trace() for Q in (P.to_dense(), got)]
    assert energies[1] < 0.8 * energies[0]


def test_matrices_that_cannot_be_smoothed_with_are_refused():
    A = CSRTensor.from_dense(torch.tensor([[0.0, 1, 0], [1, 2, 0], [0, 0, 1]]).double())
    with pytest.raises(ValueError, match="A: diagonal entry 0 is zero, so P cannot be smoothed"):
        smooth(CSRTensor.eye(3, torch.float64), A)
    with pytest.raises(ValueError, match="block_size: expected a divisor of 3, the rows of A"):
        smooth(CSRTensor.eye(3, torch.float64), A, block_size=2)
    scipy = A.to_scipy()
    with pytest.raises(TypeError, match=r"A: expected .*, got csr_array; CSRTensor\.from_scipy"):
        smooth(A, scipy)  # type: ignore
    with pytest.raises(TypeError, match="P: expected a CSRTensor, got csr_array"):
        smooth(scipy, A)  # type: ignore


@pytest.mark.parametrize("problem", [diffusion(8), elasticity(6)], ids=["diffusion", "elasticity"])
@pytest.mark.parametrize("overlap", [1, 2])
def test_neumann_matrices_add_up_what_lies_inside(problem, overlap):
    d = decomposed(problem, 4, overlap)
    N = assembled_neumann(d, problem.dofs, problem.matrices)
    for i in range(4):
        members = np.flatnonzero(d.subdomain == i)
        nodes = d.node[members]
        inside = (np.isin(problem.dofs, nodes) | (problem.dofs < 0)).all(axis=1)
        inside &= (problem.dofs >= 0).any(axis=1)
        expected = summed(problem.dofs[inside], problem.matrices[inside], d.n).toarray()
        assert np.allclose(local_matrices(N, d, i), expected[np.ix_(nodes, nodes)])


def test_algebraic_neumann_matrices_are_semidefinite_and_add_up_to_no_more_than_a():
    problem = diffusion(9)
    A = laplacian(10)
    d = decompose(A, partition(A, 6), 2)
    matrix = CSRTensor.from_scipy(A)
    N = algebraic_neumann(matrix, d)
    total = np.zeros((d.n, d.n))
    for i in range(6):
        local = local_matrices(N, d, i)
        assert np.linalg.eigvalsh(local)[0] > -1e-12
        nodes = d.node[d.subdomain == i]
        total[np.ix_(nodes, nodes)] += local
    most = d.multiplicity.max()
    assert scipy.linalg.eigvalsh(total, A.toarray())[-1] <= most + 1e-10
    # All of A, if a subdomain is all of the mesh.
    whole = decompose(A, np.zeros(A.shape[0], dtype=int))
    assert np.allclose(algebraic_neumann(matrix, whole).to_dense().numpy(), A.toarray())
    bad: dict[str, Any] = {
        "it is not symmetric": A + sp.csr_array(sp.triu(A, 1)) * 0.1,
        "it has positive entries off the diagonal": abs(A),
        "it has negative row sums": A - 3 * sp.eye_array(A.shape[0]),
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=f"A: algebraic Neumann.*{message}"):
            algebraic_neumann(CSRTensor.from_scipy(sp.csr_array(wrong)), d)
    assert problem.A.shape


def test_elements_that_do_not_fit_are_refused():
    problem = diffusion(7)
    d = decomposed(problem, 3)
    dofs, matrices = problem.dofs, problem.matrices
    with pytest.raises(TypeError, match="dofs: expected integers, got float64"):
        assembled_neumann(d, dofs.astype(float), matrices)
    with pytest.raises(ValueError, match=r"dofs, matrices: expected shapes \(m, k\)"):
        assembled_neumann(d, dofs[:-1], matrices)
    for wrong in (-2, d.n):
        broken = dofs.copy()
        broken[3, 1] = wrong
        with pytest.raises(ValueError, match=f"dofs: expected unknowns -1 .. {d.n - 1}"):
            assembled_neumann(d, broken, matrices)
    with pytest.raises(ValueError, match="matrices: some entries are NaN"):
        assembled_neumann(d, dofs, matrices * np.nan)


def dense_pencils(problem, d):
    """Eigenvalues and D_i v of each subdomain, from N_i v = nu D_i A_i D_i v in dense matrices."""
    dense = problem.A.toarray()
    N = assembled_neumann(d, problem.dofs, problem.matrices)
    for i in range(d.n_subdomains):
        nodes = d.node[d.subdomain == i]
        weights = np.diag(1 / d.multiplicity[nodes])
        right = weights @ dense[np.ix_(nodes, nodes)] @ weights
        values, vectors = scipy.linalg.eigh(local_matrices(N, d, i), right)
        yield nodes, values, weights @ vectors


@pytest.mark.parametrize("solver", ["dense", "iterated"])
@pytest.mark.parametrize(
    "problem", [diffusion(10, jump=1e4), elasticity(8)], ids=["jump", "elasticity"]
)
def test_geneo_takes_the_eigenvectors_below_the_threshold(problem, solver, monkeypatch):
    if solver == "iterated":
        monkeypatch.setattr(spectral, "DENSE_UP_TO", 0)
    d, threshold = decomposed(problem, 5, 1), 0.3
    A = CSRTensor.from_scipy(problem.A)
    N = assembled_neumann(d, problem.dofs, problem.matrices)
    expected = []
    for nodes, values, vectors in dense_pencils(problem, d):
        below = vectors[:, values < threshold]
        column = np.zeros((d.n, below.shape[1]))
        column[nodes] = below
        expected.append(column)
    expected = torch.from_numpy(np.concatenate(expected, axis=1))
    P = geneo(A, d, neumann=N, threshold=threshold).to_dense()
    assert P.shape == expected.shape
    scaled = expected / expected.norm(dim=0)
    error = scaled - P @ torch.linalg.lstsq(P, scaled).solution
    assert error.abs().max() < (1e-8 if solver == "dense" else 2e-3)
    by_count = geneo(A, d, neumann=N, threshold=None, count=3)
    assert by_count.shape == (d.n, 15)
    assert geneo(A, d, neumann=N, threshold=threshold, count=1).shape[1] <= 5


@pytest.mark.parametrize("jump", [1.0, 1e6])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_the_condition_number_is_within_the_bound_whatever_the_coefficients(jump, threshold):
    problem = diffusion(14, seed=3, jump=jump)
    d = decomposed(problem, 8, 1)
    A = CSRTensor.from_scipy(problem.A)
    N = assembled_neumann(d, problem.dofs, problem.matrices)
    P = geneo(A, d, neumann=N, threshold=threshold)
    dense = A.to_dense()
    M = two_levels(dense, one_level(dense, d, None, "additive"), P.to_dense(), "balanced")
    half = torch.linalg.cholesky(dense)
    spectrum = torch.linalg.eigvalsh(half.T @ M @ half)
    held = sp.csr_array((np.ones(len(d.node)), (d.subdomain, d.node)), shape=(8, d.n))
    coupled = (held @ abs(problem.A) @ held.T).toarray() > 0
    k0 = coupled.sum(axis=1).max()  # at least the number of colours
    k1 = d.multiplicity.max()
    assert float(spectrum[-1] / spectrum[0]) <= k0 * max(1, k1 / threshold)
    method = Schwarz(A, d, P=P, form="additive", levels="balanced")
    b = random_matrix(d.n, 1)[:, 0]
    solution = cg(A, b, preconditioner=method, rtol=1e-8)
    assert solution.converged
    if jump > 1:
        plain = Schwarz(A, d, P=partition_of_unity(d), form="additive", levels="balanced")
        assert solution.iterations < cg(A, b, preconditioner=plain, rtol=1e-8).iterations


def test_an_m_matrix_needs_no_elements():
    A = laplacian(16)
    matrix = CSRTensor.from_scipy(A)
    d = decompose(A, partition(A, 8))
    for threshold, ratio in ((0.2, 1.0), (1.0, 0.6)):
        P = geneo(matrix, d, threshold=threshold)
        b = random_matrix(d.n, 1)[:, 0]
        counts = [
            cg(matrix, b, preconditioner=Schwarz(matrix, d, P=Q, form="additive",
               levels="balanced"), rtol=1e-8).iterations
            for Q in (P, None)
        ]  # fmt: skip
        assert counts[0] < ratio * counts[1]


def test_what_geneo_cannot_take_is_refused(monkeypatch):
    problem = diffusion(8)
    d, A = decomposed(problem, 4), CSRTensor.from_scipy(problem.A)
    N = assembled_neumann(d, problem.dofs, problem.matrices)
    with pytest.raises(ValueError, match="threshold, count: expected at least one of the two"):
        geneo(A, d, neumann=N, threshold=None)
    for threshold in (0.0, float("nan")):
        with pytest.raises(ValueError, match="threshold: expected a positive number, got"):
            geneo(A, d, neumann=N, threshold=threshold)
    for count in (0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="count: expected at least 1 eigenvector a subdomain"):
            geneo(A, d, neumann=N, count=count)  # type: ignore
    with pytest.raises(TypeError, match="A: expected a CSRTensor, got csr_array"):
        geneo(problem.A, d)  # type: ignore
    with pytest.raises(TypeError, match="A: expected a CSRTensor, got csr_array"):
        algebraic_neumann(problem.A, d)  # type: ignore
    with pytest.raises(TypeError, match="neumann: expected a CSRTensor, got int"):
        geneo(A, d, neumann=3)  # type: ignore
    with pytest.raises(ValueError, match="threshold: no subdomain has an eigenvalue below 1e-30"):
        geneo(A, d, neumann=N + CSRTensor.eye(len(d.node), torch.float64), threshold=1e-30)
    with pytest.raises(TypeError, match="A: GenEO takes real symmetric matrices, got torch"):
        geneo(A.to(torch.complex128), d, neumann=N)
    with pytest.raises(ValueError, match=r"neumann: expected \(\d+, \d+\), got \(3, 3\)"):
        geneo(A, d, neumann=CSRTensor.eye(3, torch.float64))
    skew = sp.csr_array(problem.A + sp.triu(problem.A, 1) * 0.1)
    with pytest.raises(ValueError, match="A: GenEO takes symmetric matrices; take nicolaides"):
        geneo(CSRTensor.from_scipy(skew), d, neumann=N)
    for limit in (0, 1000):
        monkeypatch.setattr(spectral, "DENSE_UP_TO", limit)
        with pytest.raises(ValueError, match=r"A: the local matrix of .* is not positive def"):
            geneo(-100.0 * A, d, neumann=N)
