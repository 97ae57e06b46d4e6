"""Pictures of problems in space: the surface, cuts that face the viewer, displacements."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from manufactured import cube
from matplotlib import pyplot as plt
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Path3DCollection, Poly3DCollection

from ddm.coarse import nicolaides
from ddm.interface import robin
from ddm.partition import decompose, partition
from ddm.plot import plot_coarse, plot_interface, plot_overlap, plot_solution, plot_subdomains
from ddm.plot.canvas import plane_of, towards_viewer
from ddm.plot.subdomains import element_layers
from ddm.problems import diffusion, elasticity, from_matrix, poisson
from ddm.problems.space import discretize

mpl.use("Agg")


@pytest.fixture
def ax():
    figure, axes = plt.subplots(subplot_kw={"projection": "3d"})
    yield axes
    figure.canvas.draw()
    plt.close(figure)


@pytest.fixture(scope="module")
def problem():
    return poisson(cube(5))


def corners(ax) -> np.ndarray:
    """Corners of the last surface that was drawn, (p, 3)."""
    last: Any
    (*_, last) = [c for c in ax.collections if isinstance(c, Poly3DCollection)]
    # Matplotlib 3.11 keeps the corners in `_faces`, earlier ones in `_vec`.
    return last._faces.reshape(-1, 3) if hasattr(last, "_faces") else last._vec[:3].T


def test_subdomains_on_the_surface_and_on_a_cut(problem, ax):
    owner = partition(problem.A, 6)
    plot_subdomains(problem, owner, ax)
    assert np.ptp(corners(ax), axis=0) == pytest.approx([1, 1, 1])
    ax.clear()
    plot_subdomains(problem, owner, ax, cut=("y", 0.4))
    found = corners(ax)
    assert found[:, 1].min() == pytest.approx(0.4)  # the viewer stands where y is small
    assert found[:, 1].max() == pytest.approx(1)


@pytest.mark.parametrize(("around", "kept"), [(-60, (0.3, 1)), (60, (0, 0.3))])
def test_a_cut_leaves_out_what_lies_before_it(problem, ax, around, kept):
    ax.view_init(20, around)
    assert np.linalg.norm(towards_viewer(ax)) == pytest.approx(1)
    plot_solution(problem, np.ones(len(problem.b)), ax, cut=("y", 0.3), colorbar=True)
    found = corners(ax)[:, 1]
    assert (found.min(), found.max()) == pytest.approx(kept, abs=1e-6)


def test_quadratic_elements_overlaps_and_interface_values(ax):
    problem = diffusion(cube(3), degree=2)
    d = decompose(problem.A, partition(problem.A, 4), 2)
    plot_overlap(problem, d, 1, ax)
    layer = dict(zip(problem.interior[d.node[d.subdomain == 1]], d.layer[d.subdomain == 1]))
    dofs = discretize(problem.mesh, 2).basis.element_dofs.T
    free = set(problem.interior.tolist())
    expected = [max([layer.get(k, 3) for k in nodes if k in free] or [3]) for nodes in dofs]
    own = np.full(len(problem.b), -1)
    own[d.node[d.subdomain == 1]] = d.layer[d.subdomain == 1]
    assert element_layers(problem, own, 3).tolist() == expected
    assert {0, 1, 2, 3} == set(expected)
    drawn, inside = corners(ax), np.array(expected) < 3
    assert drawn.min(axis=0) == pytest.approx(
        problem.mesh.p[:, problem.mesh.t[:, inside]].min((1, 2))
    )
    ax.clear()
    plot_interface(problem, d, robin(d, 0.5), 1, ax)
    (dots,) = [c for c in ax.collections if isinstance(c, Path3DCollection)]
    ring = np.unique(d.node[(d.subdomain == 1) & ~d.own])
    assert len(np.asarray(dots._offsets3d[0])) == len(ring)
    assert any(isinstance(c, Line3DCollection) for c in ax.collections)


def test_displacements_and_rigid_body_modes(ax):
    problem = elasticity(cube(3), dirichlet={"front": 0.0})
    u = np.zeros(len(problem.b))
    u[::3] = 2 * problem.coordinates[::3, 2]  # to the side by 2 z
    plot_solution(problem, u, ax)
    found = corners(ax)
    assert found[:, 0].max() == pytest.approx(1.1)  # a tenth of the cube
    ax.clear()
    parts = partition(problem.A, 4, block_size=3)
    d = decompose(problem.A, parts, block_size=3)
    assert problem.near_nullspace is not None
    P = nicolaides(d, problem.near_nullspace)
    plot_coarse(problem, P, 1, ax, colorbar=True)
    assert ax.collections


def test_matrices_with_coordinates_in_space(problem, ax):
    own = from_matrix(problem.A, problem.b, coordinates=problem.coordinates)
    d = decompose(own.A, partition(own.A, 4))
    plot_subdomains(own, d, ax)
    plot_solution(own, own.b, ax)
    plot_overlap(own, d, 0, ax, legend=False)
    dots = [c for c in ax.collections if isinstance(c, Path3DCollection)]
    assert [len(np.asarray(c._offsets3d[0])) for c in dots] == [len(own.b)] * 3


def test_axes_and_cuts_that_do_not_fit_are_refused(problem, ax):
    owner = partition(problem.A, 3)
    flat = plt.figure().add_subplot()
    for draw in (
        lambda: plot_subdomains(problem, owner, flat),
        lambda: plot_solution(problem, problem.b, flat),
        lambda: plot_overlap(problem, decompose(problem.A, owner), 0, flat),
    ):
        with pytest.raises(ValueError, match=r"ax: expected axes in space.*projection.*3d"):
            draw()
    plt.close("all")
    with pytest.raises(ValueError, match="window: expected None for a problem in 3D"):
        plot_subdomains(problem, owner, ax, window=(0, 1, 0, 1))
    wrong: Any
    for wrong in (("w", 0.5), ("x", 1.0), "x", ("xy", 0.5), 0.5, ("y", np.nan)):
        with pytest.raises(ValueError, match="cut: expected"):
            plane_of(ax, wrong, problem.mesh.p.T)


def test_axes_are_made_where_none_are_given(problem):
    figure = plt.figure()
    ax = plot_solution(problem, problem.b)
    assert hasattr(ax, "get_zlim")
    assert plot_subdomains(problem, partition(problem.A, 3)) is ax
    plt.close(figure)
