"""What is drawn of a mesh: all of its area, its whole surface, and cuts of the right size."""

from dataclasses import replace

import numpy as np
import pytest
from manufactured import cube
from small_problems import delaunay, unit_square

from ddm.plot.geometry import linear_elements, n_nodes, surface_of
from ddm.problems import diffusion, elasticity, poisson


def area(surface) -> float:
    a, b, c = surface.points[surface.triangles].transpose(1, 0, 2)
    u, v = b - a, c - a
    if u.shape[1] == 2:
        return 0.5 * float(abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum())
    return 0.5 * float(np.linalg.norm(np.cross(u, v), axis=1).sum())


@pytest.mark.parametrize("degree", [1, 2])
def test_a_plane_mesh_is_covered_once(degree):
    problem = diffusion(delaunay(6), degree=degree)
    surface = surface_of(problem)
    assert area(surface) == pytest.approx(1.0)
    assert len(surface.triangles) == 4 ** (degree - 1) * problem.mesh.nelements
    assert (np.bincount(surface.element) == 4 ** (degree - 1)).all()
    centre = surface.points[surface.triangles].mean(axis=1)
    corners = problem.mesh.p[:, problem.mesh.t[:, surface.element]].transpose(2, 1, 0)
    rows = np.concatenate([np.ones((len(corners), 3, 1)), corners], axis=2)
    ones = np.concatenate([np.ones((len(centre), 1)), centre], axis=1)
    barycentric = np.linalg.solve(rows.swapaxes(1, 2), ones[:, :, None])[..., 0]
    assert (barycentric > 0).all()  # each piece lies in the element that it is said to


@pytest.mark.parametrize("degree", [1, 2])
def test_quadratic_nodes_are_where_the_problem_says(degree):
    for mesh in (delaunay(5), cube(2)):
        problem = diffusion(mesh, degree=degree)
        points = linear_elements(problem)[0]
        assert len(points) == n_nodes(problem)
        np.testing.assert_allclose(points[problem.interior], problem.coordinates)


@pytest.mark.parametrize("degree", [1, 2])
def test_the_surface_of_a_cube_and_its_halves(degree):
    problem = diffusion(cube(3), degree=degree)
    assert area(surface_of(problem)) == pytest.approx(6.0)
    for place in (0.25, 0.4):
        for axis in range(3):
            normal = np.eye(3)[axis]
            kept = surface_of(problem, cut=(normal, place + 1e-9))
            # The face, the cut, and four sides that are shorter.
            assert area(kept) == pytest.approx(2 + 4 * (1 - place), rel=1e-6)
            assert kept.points[np.unique(kept.triangles), axis].min() >= place - 1e-9


def test_values_on_a_cut_are_those_of_a_linear_function():
    problem = poisson(cube(3))
    points = linear_elements(problem)[0]
    direction = np.array([1.0, -2.0, 0.5])
    surface = surface_of(problem, cut=(np.array([0.6, 0.8, 0.0]), 0.5))
    np.testing.assert_allclose(surface.weights @ (points @ direction), surface.points @ direction)
    assert np.diff(surface.weights.indptr).max() == 2


def test_some_elements_have_a_surface_of_their_own():
    problem = elasticity(cube(2), dirichlet={lambda x, y, z: x == 0: 0.0})
    chosen = np.zeros(problem.mesh.nelements, dtype=bool)
    chosen[5] = True
    surface = surface_of(problem, elements=chosen)
    assert len(surface.triangles) == 4
    assert set(surface.element) == {5}


def test_a_mesh_of_another_problem_is_refused():
    problem = replace(diffusion(unit_square(3)), mesh=unit_square(1))
    with pytest.raises(ValueError, match=r"expected 9 nodes .* or 25 \(quadratic ones\), got 81"):
        surface_of(problem)
