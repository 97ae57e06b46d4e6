"""Pictures hold what they say."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from small_problems import delaunay

from ddm.partition import decompose, partition
from ddm.plot import (
    plot_convergence,
    plot_cost,
    plot_loss,
    plot_seconds,
    plot_solution,
    plot_subdomains,
    subdomain_colours,
)
from ddm.problems import poisson

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


def test_solution(problem, ax):
    plot_solution(problem, np.arange(len(problem.b), dtype=float), ax)
    assert ax.collections


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


def test_seconds_are_stacked_bars_in_order(ax):
    plot_seconds({"a": (1.0, 2.0), "b": (0.5, 0.25)}, ax)
    widths = [bar.get_width() for bar in ax.patches]
    starts = [bar.get_x() for bar in ax.patches]
    assert widths == [1.0, 0.5, 2.0, 0.25]
    assert starts == [0.0, 0.0, 1.0, 0.5]
    assert ax.yaxis_inverted()
