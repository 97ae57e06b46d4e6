"""Matrices with the rounding of float32 are judged like those that they are rounded from."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from manufactured import cube
from small_problems import delaunay

import ddm
from ddm.coarse import geneo
from ddm.matrix_properties import (
    has_nonnegative_rows,
    is_hermitian,
    is_symmetric,
    is_z_matrix,
    rounding,
)
from ddm.partition import decompose, partition
from ddm.problems import Problem
from ddm.scope import Scope
from sparsetorch import CSRTensor

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}


def jumping(**options) -> Problem:
    """Diffusion whose matrix is an M-matrix, zeros of right angles and all."""
    mesh = delaunay(16, jitter=0.0)
    coefficient = np.exp(np.random.default_rng(0).standard_normal(mesh.nelements))
    return ddm.diffusion(mesh, coefficient, **options).with_all_couplings()


def summed(problem: Problem) -> sp.csr_array:
    """Its matrix from elements in float32, summed in float32 in a random order."""
    assert problem.elements is not None
    dofs, matrices = problem.elements.dofs, problem.elements.matrices.astype(np.float32)
    row, col = (
        np.broadcast_to(x, matrices.shape).ravel() for x in (dofs[:, :, None], dofs[:, None, :])
    )
    order = np.random.default_rng(0).permutation(np.flatnonzero((row >= 0) & (col >= 0)))
    entries = (matrices.ravel()[order], (row[order], col[order]))
    return sp.csr_array(sp.coo_array(entries, shape=problem.A.shape))


def forms(A: sp.csr_array) -> list[sp.csr_array]:
    """In float32, and in float64 with the same values."""
    single = A.astype(np.float32)
    return [sp.csr_array(single), sp.csr_array(single, dtype=np.float64)]


def test_the_unit_of_rounding_is_that_of_the_values():
    values = np.random.default_rng(0).standard_normal(50)
    for dtype in (np.float32, np.float64):
        assert rounding(values.astype(dtype)) == EPS[dtype]
        assert rounding(values.astype(dtype) * (1 + 1j)) == EPS[dtype]
    single = values.astype(np.float32)
    assert rounding(single.astype(np.float64)) == EPS[np.float32]
    assert rounding(single.astype(np.complex128).reshape(5, 10).T) == EPS[np.float32]
    assert rounding(np.append(single.astype(np.float64), np.ones(50))) == EPS[np.float32]
    assert rounding(np.array([0.1, 0.3], np.float32).astype(np.float64)) == EPS[np.float32]


@pytest.mark.parametrize(
    "exact",
    [
        np.array([4.0, -1.0]),
        np.arange(1e6),
        np.ldexp(np.arange(99.0), -7),
        np.arange(9),
        np.array([True]),
        np.append(np.arange(50.0), 1e12 + 1),
        np.array([1e300, 0.1]),
        np.zeros(0),
    ],
)
def test_small_whole_numbers_are_exact(exact):
    assert rounding(exact) == EPS[np.float64]


def test_one_unit_in_a_million_counts_where_numbers_are_whole():
    A = sp.csr_array(np.array([[1e6, -1.0, 0], [-1, 1e6, -5], [0, -5, 1e6]]))
    for entry in (2.0, -2.0):
        B = A.copy()
        B[0, 1] = entry
        assert is_symmetric(A)
        assert not is_symmetric(B)
        assert is_z_matrix(B) == (entry < 0)
    assert not has_nonnegative_rows(sp.csr_array([[1e6, -1e6 - 1], [-1e6 - 1, 1e6]]))


@pytest.mark.parametrize("difference", [1e-9, 1e-7])
def test_nothing_is_looser_in_double_precision(difference):
    A = jumping().A
    i, j = (int(node) for node in np.argwhere(sp.triu(A, 1).toarray() < 0)[0])
    B = sp.csr_array(A, copy=True)
    B[i, j] += difference * A[i, i]
    assert not is_symmetric(B)
    assert ddm.from_matrix(B).kind == "general"


@pytest.mark.parametrize("reaction", [1e-5, 1e-3])
def test_a_small_reaction_term_makes_a_matrix_regular(reaction):
    A = ddm.diffusion(delaunay(16), dirichlet={}, reaction=reaction).A
    ddm.from_matrix(A)
    if reaction == 1e-3:  # the smaller one is a twentieth of a unit of float32
        for single in forms(A):
            ddm.from_matrix(single)


@pytest.mark.parametrize("problem", [jumping(), ddm.elasticity(cube(4), dirichlet={"front": 0.0})])
def test_a_matrix_that_is_summed_in_float32_is_symmetric(problem):
    A = summed(problem)
    if problem.mesh.dim() == 3:
        assert abs(A - A.T).max() > 0
    for matrix in (*forms(A), CSRTensor.from_scipy(A)):
        assert is_symmetric(matrix)
        assert is_hermitian(matrix)
    for matrix in forms(A):
        given = ddm.from_matrix(matrix, coordinates=problem.positions)
        assert given.kind != "general"
        assert "convection_diffusion" not in Scope.of_problem(given).kinds
        assert ddm.from_matrix(matrix, kind="spd").kind == "spd"


@pytest.mark.parametrize("make", [lambda p: p.A, summed], ids=["rounded", "summed"])
def test_diffusion_in_float32_is_positive_definite_with_an_m_matrix(make):
    problem = jumping()
    d = decompose(problem.A, partition(problem.A, 6))
    expected = geneo(CSRTensor.from_scipy(problem.A), d, threshold=0.5).shape
    assert ddm.from_matrix(problem.A).kind == "spd"
    for matrix in forms(make(problem)):
        assert is_z_matrix(matrix)
        assert has_nonnegative_rows(matrix)
        assert ddm.from_matrix(matrix).kind == "spd"
        for dtype in (torch.float32, torch.float64):
            A = CSRTensor.from_scipy(matrix, dtype=dtype)
            assert geneo(A, d, threshold=0.5).shape == expected


@pytest.mark.parametrize("make", [lambda p: p.A, summed], ids=["rounded", "summed"])
@pytest.mark.parametrize("name", ["diffusion", "elasticity"])
def test_null_vectors_are_found_in_float32(name, make):
    problem = (
        jumping(dirichlet={}, singular="nullspace")
        if name == "diffusion"
        else ddm.elasticity(delaunay(9), dirichlet={}, singular="nullspace")
    )
    modes = problem.near_nullspace
    assert modes is not None
    count = modes.shape[1]
    for A in forms(make(problem)):
        with pytest.raises(ValueError, match=rf"it has {count} null vector"):
            ddm.from_matrix(A, near_nullspace=modes)
        settled = ddm.from_matrix(A, near_nullspace=modes, singular="nullspace")
        assert settled.nullspace is not None
        assert settled.nullspace.shape == modes.shape
        grounded = ddm.from_matrix(A, near_nullspace=modes, singular="ground").A.toarray()
        assert np.linalg.eigvalsh((grounded + grounded.T) / 2).min() > 1e-4


def test_null_spaces_of_matrices_in_float32_are_taken():
    problem = jumping(dirichlet={}, singular="nullspace")
    for A in forms(summed(problem)):
        table = ddm.compare(
            ddm.from_matrix(A, singular="nullspace"), methods=("ras", "as"), subdomain=20
        )
        assert [row["status"] for row in table.rows] == ["converged"] * 2
