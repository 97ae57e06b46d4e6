"""Meshes that gmsh makes, and their distortion."""

import numpy as np
import pytest
from small_problems import delaunay

from ddm.mesh import build_mesh, distort, mesh_domain, random_mesh, random_outline
from ddm.outline import closed_spline, contains, polygon_area
from ddm.problems import poisson

SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)


def areas(mesh) -> np.ndarray:
    """Signed areas of the triangles."""
    a, b, c = mesh.p[:, mesh.t].transpose(1, 2, 0)
    return 0.5 * np.linalg.det(np.stack([b - a, c - a], axis=-1))


@pytest.mark.usefixtures("gmsh")
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("n_nodes", [100, 1000])
def test_random_mesh_has_the_wanted_size_and_good_triangles(seed, n_nodes):
    mesh = random_mesh(seed, n_nodes)
    assert mesh.nvertices == pytest.approx(n_nodes, rel=0.15)
    area = abs(areas(mesh))
    assert area.min() > 0.1 * area.mean()
    domain = polygon_area(closed_spline(random_outline(seed), 100))
    assert area.sum() == pytest.approx(domain, rel=0.05)
    # Made of one piece, without a point that nothing touches: building it again finds no fault.
    again = build_mesh(mesh.p.T, mesh.t.T)
    assert np.array_equal(again.p, mesh.p)


@pytest.mark.usefixtures("gmsh")
def test_a_seed_gives_one_mesh():
    first, again, other = (random_mesh(seed, 200) for seed in (5, 5, 6))
    assert np.array_equal(first.p, again.p)
    assert np.array_equal(first.t, again.t)
    assert first.p.shape != other.p.shape or not np.array_equal(first.p, other.p)


@pytest.mark.usefixtures("gmsh")
@pytest.mark.parametrize("n_nodes", [300, 2000])
def test_a_polygon_with_holes_is_met_exactly(n_nodes):
    holes = [0.2 * SQUARE + 0.2, 0.2 * SQUARE + 0.6]
    mesh = mesh_domain(SQUARE, n_nodes=n_nodes, holes=holes)
    assert mesh.nvertices == pytest.approx(n_nodes, rel=0.15)
    assert abs(areas(mesh)).sum() == pytest.approx(1 - 2 * 0.04)
    centres = mesh.p[:, mesh.t].mean(axis=1).T
    assert not any(contains(hole, centre) for hole in holes for centre in centres)


@pytest.mark.usefixtures("gmsh")
def test_smoothing_rounds_the_outline():
    mesh = mesh_domain(SQUARE, n_nodes=300, smooth=True)
    rounded = polygon_area(closed_spline(SQUARE, 100))
    assert rounded < 0.7
    assert abs(areas(mesh)).sum() == pytest.approx(rounded, rel=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_random_outlines_are_convex_and_not_thin(seed):
    outline = random_outline(seed)
    edges = np.roll(outline, -1, axis=0) - outline
    turns = np.cross(
        np.pad(edges, ((0, 0), (0, 1))), np.pad(np.roll(edges, -1, axis=0), ((0, 0), (0, 1)))
    )
    assert (turns[:, 2] > 0).all()  # counterclockwise, each corner to the left
    assert polygon_area(outline) > 0.1
    assert outline.min() >= 0
    assert outline.max() <= 1


def test_distortion_moves_the_interior_and_stretches_all():
    mesh = delaunay(9)
    moved = distort(mesh, 0.3, 1.0, seed=1)
    boundary = mesh.boundary_nodes()
    assert np.array_equal(moved.p[:, boundary], mesh.p[:, boundary])
    assert (moved.p != mesh.p)[:, mesh.interior_nodes()].any(axis=0).all()
    assert (areas(moved) * areas(mesh) > 0).all()
    stretched = distort(mesh, 0.0, 2.0, seed=1)
    assert np.allclose(areas(stretched), 2 * areas(mesh))


def test_distortion_gives_couplings_that_delaunay_meshes_do_not_have():
    mesh = delaunay(15)
    row, col = poisson(mesh).A.nonzero()
    for problem, positive in ((poisson(mesh), False), (poisson(distort(mesh, 0.4, 2, 3)), True)):
        coupling = problem.A[row, col][row != col]
        assert (coupling.max() > 1e-3) == positive


def test_distortion_that_turns_triangles_over_is_refused():
    with pytest.raises(ValueError, match=r"jitter: 3 of the shortest edges turned a triangle"):
        distort(delaunay(9), 3.0, 1.0, seed=0)
