"""Singular systems in several pieces: each has null vectors of its own."""

import numpy as np
import pytest
import scipy.sparse as sp
from manufactured import square
from skfem import MeshTri
from small_problems import laplacian

from ddm import compare
from ddm.problems import Problem, diffusion, elasticity, from_matrix
from ddm.problems.singular import kernels

METHODS = ("ras", "oras", "as", "geneo", "amg")
REGULAR = laplacian(12)


def neumann(n: int) -> sp.csr_array:
    """The Laplacian of an n x n grid of nodes without boundary conditions."""
    path = sp.csr_array(np.eye(n, k=1) + np.eye(n, k=-1))
    grid = sp.kron(path, sp.eye_array(n)) + sp.kron(sp.eye_array(n), path)
    return sp.csr_array(sp.diags_array(np.asarray(grid.sum(axis=1)).ravel()) - grid)


def pieces(*blocks: sp.csr_array) -> sp.csr_array:
    """A block-diagonal matrix with its unknowns in random order."""
    A = sp.csr_array(sp.block_diag(blocks))
    order = np.random.default_rng(0).permutation(A.shape[0])
    return A[order][:, order]


def apart() -> MeshTri:
    """Two unit squares, with the sides of the first named, and those of the second "beyond"."""
    one = square(6)
    mesh = MeshTri(
        np.concatenate([one.p, one.p + 2], axis=1), np.concatenate([one.t, one.t + len(one.p.T)], 1)
    )
    return mesh.with_boundaries({"first": lambda x: x[0] < 1.5, "beyond": lambda x: x[0] > 1.5})


CASES = {
    "two": (pieces(neumann(14), neumann(10)), 2),
    "one of two": (pieces(REGULAR, neumann(10)), 1),
    "rows of the identity": (pieces(sp.csr_array(sp.eye_array(50)), neumann(10), neumann(9)), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_null_vectors_of_all_pieces_are_refused_with_their_number(name):
    A, count = CASES[name]
    with pytest.raises(ValueError, match=rf"has {count} null vector.*singular='ground'"):
        from_matrix(A)


@pytest.mark.parametrize("name", CASES)
def test_grounding_leaves_none(name):
    A, count = CASES[name]
    grounded = from_matrix(A, singular="ground").A.toarray()
    assert np.linalg.eigvalsh(grounded).min() > 1e-4
    assert np.count_nonzero(np.linalg.eigvalsh(A.toarray()) < 1e-10) == count


@pytest.mark.parametrize("name", CASES)
def test_the_null_space_is_complete(name):
    A, count = CASES[name]
    problem = from_matrix(A, singular="nullspace")
    N = problem.nullspace
    assert N is not None
    assert N.shape == (A.shape[0], count)
    assert np.allclose(N.T @ N, np.eye(count), atol=1e-12)
    assert abs(A @ N).max() < 1e-12
    assert abs(N.T @ problem.b).max() < 1e-12


def test_the_matrix_is_put_in_order_once_for_all_pieces(monkeypatch):
    """To take each piece out of the whole matrix would cost as much as its rows, for each."""
    A = pieces(*[neumann(2)] * 40, REGULAR)
    chosen = []
    get = sp.csr_array.__getitem__

    def counted(self, key):
        parts = key if isinstance(key, tuple) else (key,)
        chosen.extend(part for part in parts if isinstance(part, np.ndarray))
        return get(self, key)

    monkeypatch.setattr(sp.csr_array, "__getitem__", counted)
    found = kernels(A, np.ones((A.shape[0], 1)))
    assert len(found) == 40
    assert len(chosen) <= 2
    for kernel in found:
        z = np.zeros(A.shape[0])
        z[kernel.unknowns] = kernel.vectors[:, 0]
        assert abs(A @ z).max() < 1e-14


def converge(problem: Problem) -> None:
    for row in compare(problem, methods=METHODS, subdomain=20).rows:
        assert row["status"] == "converged", row


@pytest.mark.parametrize("singular", ["ground", "nullspace"])
@pytest.mark.parametrize("name", ["two", "one of two"])
def test_every_method_solves_them(name, singular):
    converge(from_matrix(CASES[name][0], singular=singular))


@pytest.mark.parametrize("singular", ["ground", "nullspace"])
def test_a_mesh_in_pieces_is_solved_though_one_is_free(singular):
    with pytest.raises(ValueError, match="has 1 null vector"):
        diffusion(apart(), dirichlet={"first": 0.0})
    converge(diffusion(apart(), dirichlet={"first": 0.0}, singular=singular))
    assert diffusion(apart()).nullspace is None


def test_a_free_body_beside_a_clamped_one_has_its_rigid_motions():
    with pytest.raises(ValueError, match="has 3 null vector"):
        elasticity(apart(), dirichlet={"first": 0.0})
    grounded = elasticity(apart(), dirichlet={"first": 0.0}, singular="ground")
    assert np.linalg.eigvalsh(grounded.A.toarray()).min() > 1e-8
    with pytest.raises(ValueError, match=r"has 6 null vector.*on 2 components"):
        elasticity(apart(), dirichlet={})
