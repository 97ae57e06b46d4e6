"""Pictures of plane problems, graphs and convergence hold what they say."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection, TriMesh
from matplotlib.colors import to_rgba
from small_problems import delaunay

from ddm.interface import robin
from ddm.partition import decompose, partition
from ddm.plot import (
    plot_coarse,
    plot_convergence,
    plot_cost,
    plot_interface,
    plot_loss,
    plot_overlap,
    plot_seconds,
    plot_solution,
    plot_subdomains,
    plot_validation,
    subdomain_colours,
)
from ddm.plot.graph import layout
from ddm.plot.interface import ring_values
from ddm.plot.palette import INK, LAYERS, TINTS, colour_map
from ddm.problems import diffusion, elasticity, from_matrix, graph_laplacian, helmholtz, poisson
from ddm.problems.space import discretize

mpl.use("Agg")


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    figure.canvas.draw()
    plt.close(figure)


@pytest.fixture(scope="module")
def problem():
    return poisson(delaunay(20))


def test_neighbouring_subdomains_have_different_colours(problem):
    owner = partition(problem.A, 12)
    colours = subdomain_colours(problem, owner)
    A = problem.A.tocoo()
    across = owner[A.row] != owner[A.col]
    assert (colours[owner[A.row[across]]] != colours[owner[A.col[across]]]).all()


def test_subdomains_with_the_coarse_graph(problem, ax):
    d = decompose(problem.A, partition(problem.A, 6))
    plot_subdomains(problem, d, ax)
    (dots,) = ax.lines
    assert len(dots.get_xdata()) == d.n_subdomains
    assert any(isinstance(c, LineCollection) and len(c.get_segments()) for c in ax.collections)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("equation", [diffusion, elasticity])
def test_elements_have_the_owner_of_most_of_their_unknowns(ax, equation, degree):
    mesh = delaunay(8)
    problem = equation(mesh, degree=degree)
    owner = (problem.coordinates[:, 0] > 0.5).astype(int)
    plot_subdomains(problem, owner, ax, coarse=False)
    (drawn,) = ax.collections
    tint = subdomain_colours(problem, owner)
    found = np.asarray(drawn.get_array()).reshape(-1, 4 ** (degree - 1))
    assert (found == found[:, :1]).all()  # the pieces of one element
    owner_of = dict(zip(problem.interior.tolist(), owner[:: problem.block_size].tolist()))
    shown = iter(found[:, 0])
    for nodes in discretize(mesh, degree).basis.element_dofs.T:
        votes = np.bincount([owner_of[k] for k in nodes.tolist() if k in owner_of], minlength=2)
        if votes.any():  # the others are left out
            here = next(shown)
            if votes[0] != votes[1]:
                assert here == tint[votes.argmax()]
    assert not list(shown)


def test_a_window_leaves_out_the_triangles_that_it_does_not_touch(problem, ax):
    d = decompose(problem.A, partition(problem.A, 6))
    (left, bottom), (right, top) = problem.mesh.p.min(1), problem.mesh.p.max(1)
    middle = (left + right) / 2
    window = (left, middle, bottom, top)
    plot_subdomains(problem, d, ax, window=window)
    assert (*ax.get_xlim(), *ax.get_ylim()) == pytest.approx(window)
    drawn = sum(len(c.get_array()) for c in ax.collections if c.get_array() is not None)
    touched = (problem.mesh.p[0][problem.mesh.t].min(0) <= middle).sum()
    assert 0.8 * touched < drawn <= touched < problem.mesh.t.shape[1]  # corners are not drawn


@pytest.mark.parametrize("overlap", [1, 2])
def test_the_layers_of_one_subdomain(problem, ax, overlap):
    d = decompose(problem.A, partition(problem.A, 6), overlap)
    plot_overlap(problem, d, 2, ax)
    (drawn,) = [c for c in ax.collections if c.get_array() is not None]
    found = np.asarray(drawn.get_array())
    assert set(np.unique(found)) == set(range(overlap + 2))
    legend = ax.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["owned", "layer 1", "layer 2"][
        : overlap + 1
    ]
    # All unknowns of an element of layer k are in layers up to k.
    nodes = np.full(problem.mesh.nvertices, -1)
    here = d.subdomain == 2
    nodes[problem.interior] = overlap + 1
    nodes[problem.interior[d.node[here]]] = d.layer[here]
    expected = nodes[problem.mesh.t].max(axis=0)
    np.testing.assert_array_equal(found, np.where(expected < 0, overlap + 1, expected))


def test_solution(problem, ax):
    plot_solution(problem, np.arange(len(problem.b), dtype=float), ax, colorbar=True)
    (mesh,) = [c for c in ax.collections if isinstance(c, TriMesh)]
    assert np.asarray(mesh.get_array()).max() == len(problem.b) - 1
    assert len(ax.figure.axes) == 2


def test_a_wave_has_its_real_part_and_colours_around_zero(ax):
    wave = helmholtz(delaunay(8), 6.0)
    u = np.exp(1j * np.arange(len(wave.b)))
    plot_solution(wave, u, ax)
    (mesh,) = [c for c in ax.collections if isinstance(c, TriMesh)]
    np.testing.assert_allclose(np.asarray(mesh.get_array())[wave.interior], np.real(u))
    low, high = mesh.get_clim()
    assert low == -high


def test_a_displacement_moves_the_mesh(ax):
    problem = elasticity(delaunay(6), dirichlet={lambda x, y: x == 0: 0.0})
    u = np.zeros(len(problem.b))
    u[1::2] = problem.coordinates[1::2, 0]  # upwards by x
    plot_solution(problem, u, ax, deform=0.5)
    (mesh,) = [c for c in ax.collections if isinstance(c, TriMesh)]
    np.testing.assert_allclose(np.asarray(mesh.get_array()), problem.mesh.p[0])  # its size
    assert mesh.get_datalim(ax.transData).y1 == pytest.approx(1.5)
    still = elasticity(delaunay(6), dirichlet={lambda x, y: x == 0: 0.0})
    plot_solution(still, np.zeros(len(still.b)), ax)  # nothing to scale by


def test_coarse_basis_functions(problem, ax):
    d = decompose(problem.A, partition(problem.A, 6))
    P = sp.csr_array((1.0 / d.multiplicity[d.node], (d.node, d.subdomain)), shape=(d.n, 6))
    for form in (P, P.toarray()):
        ax.clear()
        plot_coarse(problem, form, 3, ax)
        (mesh,) = [c for c in ax.collections if isinstance(c, TriMesh)]
        values = np.asarray(mesh.get_array())
        np.testing.assert_allclose(values[problem.interior], P.toarray()[:, 3])
        assert values.min() == 0
        assert np.flatnonzero(values).size == (d.subdomain == 3).sum()


def test_interface_values_are_relative_to_the_diagonal(problem, ax):
    d = decompose(problem.A, partition(problem.A, 6))
    L = robin(d, 0.25)
    nodes, values, pairs, couplings = ring_values(problem, d, L, 1)
    ring = np.flatnonzero((d.subdomain == 1) & ~d.own)
    np.testing.assert_array_equal(nodes, d.node[ring])
    diagonal = problem.A.diagonal()
    np.testing.assert_allclose(values, -0.75 * d.outside[ring] / diagonal[nodes])
    assert len(pairs)
    assert not couplings.any()
    plot_interface(problem, d, L, 1, ax)
    (dots,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    np.testing.assert_allclose(np.asarray(dots.get_array()), values)
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), problem.coordinates[nodes])
    L = L.clone()
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    L[np.flatnonzero(row != col)] = 0.1
    _, _, pairs, couplings = ring_values(problem, d, L, 1)
    np.testing.assert_allclose(couplings, 0.1 / np.sqrt(diagonal[pairs].prod(axis=1)))


def test_interface_values_of_blocks(ax):
    problem = elasticity(delaunay(8))
    d = decompose(problem.A, partition(problem.A, 4, block_size=2), block_size=2)
    nodes, values, pairs, _ = ring_values(problem, d, robin(d, 0.5), 0)
    assert len(nodes) == len(np.unique(d.node[(d.subdomain == 0) & ~d.own] // 2))
    assert (values <= 0).all()
    assert (pairs[:, 0] <= pairs[:, 1]).all()
    plot_interface(problem, d, robin(d, 0.5), 0, ax)


def test_a_graph_with_coordinates_is_drawn_where_they_are(ax):
    points = np.random.default_rng(0).random((30, 2))
    near = np.linalg.norm(points[:, None] - points[None], axis=2) < 0.6
    problem = graph_laplacian(
        sp.csr_array(near * (1.0 - np.eye(30))), coordinates=points, singular="nullspace"
    )
    owner = (points[:, 0] > 0.5).astype(int)
    plot_subdomains(problem, owner, ax)
    (dots,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), points)
    colours = np.asarray(dots.get_facecolor())
    assert len(np.unique(colours, axis=0)) == 2
    plot_solution(problem, np.arange(30.0), ax)


def test_a_spectral_layout_keeps_the_order_of_a_path_and_refuses_pieces():
    def path(n: int):
        three: Any = [-1, 0, 1]
        return sp.diags_array([-1.0, 2.0, -1.0], offsets=three, shape=(n, n)).tocsr()

    for n in (50, 250):  # dense, and by Lanczos
        along = np.diff(layout(from_matrix(path(n)))[:, 0])
        assert (along > 0).all() or (along < 0).all()
    pieces = from_matrix(sp.block_diag([path(4), path(5)], format="csr"))
    with pytest.raises(ValueError, match="9 nodes in 2 pieces has no spectral layout; give coord"):
        layout(pieces)
    line = from_matrix(path(5), coordinates=np.arange(5.0)[:, None])
    with pytest.raises(ValueError, match=r"coordinates \(n, 2\) or \(n, 3\), got \(5, 1\)"):
        layout(line)


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        (lambda n: np.zeros(n - 1, int), r"owner: expected \(324,\) integers"),
        (lambda n: np.zeros(n), "owner: expected .* integers"),
        (lambda n: np.arange(n) % 2 * 2, r"owner: subdomain 1 is empty \(1 in all\)"),
        (lambda n: np.full(n, 3), r"owner: subdomain 0 is empty \(3 in all\).*np\.unique"),
        (lambda n: -np.ones(n, int), r"owner: expected parts 0 \.\. S-1, got -1"),
    ],
)
def test_owners_that_cannot_be_drawn(problem, ax, owner, message):
    with pytest.raises(ValueError, match=message):
        plot_subdomains(problem, owner(len(problem.b)), ax)


def test_subdomains_in_pieces_are_drawn_with_a_warning(problem, ax):
    x = problem.coordinates[:, 0]
    owner = ((x > 0.3) & (x < 0.6)).astype(int)  # the left and the right are one subdomain
    with pytest.warns(UserWarning, match=r"1 subdomains are in several pieces, the first is 0"):
        plot_subdomains(problem, owner, ax)
    assert ax.collections


def test_bad_arguments_are_named(problem, ax):
    d = decompose(problem.A, partition(problem.A, 6))
    n = len(problem.b)
    calls = [
        (lambda: plot_overlap(problem, d, 6, ax), "subdomain: expected 0 to 5, got 6"),
        (lambda: plot_subdomains(problem, d, ax, cut=("x", 0.5)), "cut: expected None .* 2D"),
        (lambda: plot_solution(problem, np.zeros(3), ax), r"u: expected shape \(324,\), got \(3"),
        (lambda: plot_solution(problem, np.full(n, np.nan), ax), "u: some values are NaN"),
        (lambda: plot_solution(problem, np.zeros(n), ax, deform=2.0), "deform: expected None"),
        (lambda: plot_coarse(problem, np.zeros((3, 2)), 0, ax), r"P: expected shape \(324, col"),
        (lambda: plot_coarse(problem, np.zeros((n, 2)), 2, ax), "column: expected 0 to 1, got 2"),
        (lambda: plot_interface(problem, d, np.zeros(3), 0, ax), "interface: expected shape"),
        (lambda: plot_interface(problem, d, robin(d, 1.0), 9, ax), "subdomain: expected 0 to 5"),
        (lambda: plot_validation([1], [0.5, 0.4], None, ax), "factor, ratio: expected 1 values"),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=message):
            call()


def luminance(colour: str) -> float:
    linear = np.array(to_rgba(colour)[:3])
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_ink_is_readable_on_every_tint_and_layers_get_paler():
    for tint in TINTS:  # a ratio of 3 is what the Web's guidelines (WCAG 2.1) ask of graphics
        assert (luminance(tint) + 0.05) / (luminance(INK) + 0.05) > 3
    assert np.all(np.diff([luminance(c) for c in LAYERS]) > 0.1)


def test_colours_of_values():
    assert colour_map(np.array([-1.0, 3.0])) == ("PuOr", -3.0, 3.0)
    assert colour_map(np.array([1.0, 3.0])) == ("viridis", 1.0, 3.0)
    name, low, high = colour_map(np.array([2.0, 2.0]))
    assert name == "viridis"
    assert low < high


def test_convergence_has_a_labelled_curve_for_each_method(ax):
    plot_convergence({"a": [2.0, 0.2], "b": [1.0, 1e9]}, ax, styles={"a": {"color": "red"}})
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata()), [1.0, 0.1])
    assert ax.get_ylim()[1] == 1e3


def test_cost_has_a_line_of_slope_one(ax):
    plot_cost([10, 100], {"set-up": [1.0, 9.0]}, ax)
    guide = ax.lines[-1]
    low, high = np.asarray(guide.get_ydata())
    assert high / low == pytest.approx(10)


def test_loss(ax):
    plot_loss(range(40), np.linspace(1, 0, 40).tolist(), ax)
    assert len(ax.lines) == 2


def test_validation_shows_a_divergence_without_hiding_the_rest(ax):
    plot_validation([0, 10, 20], [0.8, np.inf, 0.5], [1.0, 40.0, 0.7], ax)
    np.testing.assert_array_equal(np.asarray(ax.lines[0].get_ydata()), [0.8, np.inf, 0.5])
    assert ax.get_ylim() == (0, 2.0)


def test_seconds_are_stacked_bars_in_order(ax):
    plot_seconds({"a": (1.0, 2.0), "b": (0.5, 0.25)}, ax)
    widths = [bar.get_width() for bar in ax.patches]
    starts = [bar.get_x() for bar in ax.patches]
    assert widths == [1.0, 0.5, 2.0, 0.25]
    assert starts == [0.0, 0.0, 1.0, 0.5]
    assert ax.yaxis_inverted()
