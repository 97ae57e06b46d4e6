"""P1 Poisson: its order of convergence, and its matrix."""

import numpy as np
import pytest
from skfem import Basis, ElementTriP1, Functional, MeshTri
from small_problems import delaunay, unit_square

from ddm.problems import poisson
from sparsetorch import CSRTensor
from sparsetorch.linalg import solve


def exact(x, y):
    return np.sin(np.pi * x) * np.sin(np.pi * y)


def l2_error(mesh: MeshTri) -> float:
    """Distance of the P1 solution to sin(pi x) sin(pi y)."""
    import torch

    problem = poisson(mesh, lambda x, y: 2 * np.pi**2 * exact(x, y))
    u = solve(CSRTensor.from_scipy(problem.A), torch.from_numpy(problem.b)).numpy()
    basis = Basis(mesh, ElementTriP1(), intorder=6)
    square = Functional(lambda w: (w["u"] - exact(*w.x)) ** 2)
    return square.assemble(basis, u=basis.interpolate(problem.extend(u))) ** 0.5


@pytest.mark.parametrize("start", [unit_square(2), delaunay(6)], ids=["regular", "irregular"])
def test_the_error_falls_with_the_square_of_the_mesh_size(start):
    errors = [l2_error(start.refined(k)) for k in range(4)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert orders[-1] == pytest.approx(2, abs=0.05)
    assert errors[-1] < 1e-2


@pytest.mark.parametrize("mesh", [unit_square(3), delaunay(9)], ids=["regular", "irregular"])
def test_the_matrix_is_symmetric_positive_definite_with_zero_row_sums_inside(mesh):
    problem = poisson(mesh)
    A = problem.A.toarray()
    assert np.allclose(A, A.T, atol=1e-14)
    assert np.linalg.eigvalsh(A).min() > 0
    boundary = set(mesh.boundary_nodes())
    edges = mesh.facets.T.tolist()
    near = {i for edge in edges if boundary & set(edge) for i in edge}
    inside = [k for k, node in enumerate(problem.interior) if node not in near]
    assert len(inside) > 0
    assert np.allclose(A[inside].sum(axis=1), 0, atol=1e-13)
    assert (np.delete(A, inside, axis=0).sum(axis=1) > 0.1).all()


def test_regular_meshes_give_the_five_point_stencil():
    """Right angles couple nothing across the hypotenuse, and rounding must not pretend they do."""
    problem = poisson(unit_square(3))
    x, y = problem.coordinates.T
    row, col = problem.A.nonzero()
    distance = abs(x[row] - x[col]) + abs(y[row] - y[col])
    assert set(np.round(8 * distance)) == {0, 1}
    assert set(np.round(problem.A.data, 12)) == {4, -1}


def test_the_load_of_one_is_the_area_of_the_hats():
    problem = poisson(unit_square(3), 3.0)
    assert np.allclose(problem.b, 3 / 64)
    doubled = poisson(unit_square(3), lambda x, y: np.full_like(x, 6.0))
    assert np.allclose(doubled.b, 2 * problem.b)


def test_values_are_extended_by_zero():
    problem = poisson(delaunay(6))
    full = problem.extend(np.ones(len(problem.b)))
    assert np.array_equal(np.flatnonzero(full), problem.interior)
    assert np.array_equal(problem.coordinates, problem.mesh.p[:, problem.interior].T)


def test_a_mesh_of_nothing_but_boundary_is_refused():
    with pytest.raises(ValueError, match="mesh: every node lies on the boundary; refine it"):
        poisson(unit_square(0))
