"""Algebraic multigrid and a factorization as preconditioners."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from small_problems import delaunay

import ddm
from ddm.peers import Direct, Multigrid
from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, cg


@pytest.fixture(scope="module")
def scalar():
    return ddm.poisson(delaunay(16))


@pytest.fixture(scope="module")
def elastic():
    return ddm.elasticity(delaunay(10), source=[0.0, 1.0], dirichlet={lambda x, y: x < 1e-9: 0.0})


def multigrid(problem, **options):
    return Multigrid(
        CSRTensor.from_scipy(problem.A),
        problem.near_nullspace,
        block_size=problem.block_size,
        **{"symmetric": True, **options},
    )


def test_the_method_suits_the_matrix(scalar, elastic):
    assert multigrid(scalar).kind == "Ruge-Stueben"
    assert multigrid(elastic).kind == "smoothed aggregation"


def test_the_cycle_is_symmetric_positive_definite_and_that_of_pyamg(scalar):
    M = multigrid(scalar)
    n = len(scalar.b)
    dense = M(torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(dense, dense.T, atol=1e-12, rtol=1e-9)
    assert (torch.linalg.eigvalsh(dense) > 0).all()
    expected = M.hierarchy.aspreconditioner() @ scalar.b
    np.testing.assert_allclose(M.as_linear_operator() @ scalar.b, expected)
    assert M.nnz == sum(level.A.nnz for level in M.hierarchy.levels)


def test_rigid_motions_help_with_elasticity(elastic):
    b = torch.from_numpy(elastic.b)
    M = multigrid(elastic)
    plain = Multigrid(M.A, np.ones((len(elastic.b), 1)), block_size=1, symmetric=True)
    counts = [cg(M.A, b, preconditioner=each, rtol=1e-8).iterations for each in (M, plain)]
    assert counts[0] < counts[1]


def test_the_set_up_does_not_touch_random_numbers(elastic):
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    first = multigrid(elastic)
    assert np.random.rand() == expected  # noqa: NPY002
    b = torch.from_numpy(elastic.b)
    assert torch.equal(first(b), multigrid(elastic)(b))


def test_matrices_that_are_not_symmetric_or_complex():
    problem = ddm.convection_diffusion(delaunay(12), 0.1, [1.0, 0.5], 1.0)
    M = multigrid(problem, symmetric=False)
    r = torch.from_numpy(problem.b)
    e = M.propagate(torch.ones_like(r))
    assert e.norm() < len(r) ** 0.5
    wave = ddm.helmholtz(delaunay(12), 4.0, 1.0)
    M = multigrid(wave, symmetric=False)
    assert M(torch.from_numpy(wave.b)).dtype == torch.complex128


def test_the_factorization_solves(scalar):
    M = Direct(CSRTensor.from_scipy(scalar.A))
    x = M(torch.from_numpy(scalar.b))
    np.testing.assert_allclose(scalar.A @ x.numpy(), scalar.b, atol=1e-12)
    assert float(M.propagate(torch.ones_like(x)).norm()) < 1e-10
    found, info = scipy.sparse.linalg.cg(scalar.A, scalar.b, M=M.as_linear_operator(), rtol=1e-8)
    assert info == 0
    np.testing.assert_allclose(found, x.numpy())


def test_a_singular_matrix_has_no_factorization():
    with pytest.raises(SolveError, match="singular"):
        Direct(CSRTensor.from_dense(torch.ones(3, 3, dtype=torch.float64)))
