"""Blocks of nodes stay whole in A: Neumann matrices have entries where those of A cancel."""

import numpy as np
import pytest
from skfem import MeshTet, MeshTri

import ddm
from ddm.coarse import assembled_neumann
from ddm.interface import robin_between
from ddm.partition import decompose, partition
from ddm.problems.system import without_rounding
from sparsetorch import CSRTensor


@pytest.mark.parametrize("mesh", [MeshTri().refined(3), MeshTet().refined(2)], ids=["2D", "3D"])
def test_regular_meshes_have_robin_conditions_between_dirichlet_and_neumann(mesh):
    size = mesh.dim()
    problem = ddm.elasticity(mesh, dirichlet={lambda *x: x[0] < 1e-9: 0.0})
    blocks = problem.A.tobsr((size, size))
    assert problem.A.nnz == blocks.data.size  # stored whole
    assert (abs(blocks.data).max(axis=(1, 2)) > 0).all()
    assert (problem.A.data == 0).any()
    parts = partition(problem.A, 6, block_size=size)
    d = decompose(problem.A, parts, block_size=size)
    assert problem.elements is not None
    N = assembled_neumann(d, problem.elements.dofs, problem.elements.matrices)
    A = CSRTensor.from_scipy(problem.A)
    assert robin_between(A, d, N, 0.5).abs().max() > 0


def test_unknowns_that_are_held_have_no_couplings_all_the_same():
    mesh = MeshTri().refined(3).with_defaults()
    problem = ddm.elasticity(mesh, dirichlet={"left": 0.0, "bottom": (None, 0.0)})
    alone = np.flatnonzero(np.diff(problem.A.indptr) == 1)
    held = problem.coordinates[:, 1] == 0
    held &= np.arange(len(held)) % 2 == 1
    np.testing.assert_array_equal(alone, np.flatnonzero(held))


def test_zeros_of_scalar_problems_are_no_couplings():
    problem = ddm.poisson(MeshTri().refined(3))  # right angles
    assert (problem.A.data != 0).all()
    assert np.diff(problem.A.indptr).max() == 5
    assert problem.elements is not None
    full = problem.elements.assemble(len(problem.b))
    assert full.nnz > problem.A.nnz
    assert abs(without_rounding(full) - problem.A).max() == 0
