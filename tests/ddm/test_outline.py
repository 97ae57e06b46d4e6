"""Outlines of regions: what gmsh would never return from is refused before it starts."""

import numpy as np
import pytest

from ddm.mesh import mesh_domain
from ddm.outline import check_outlines, closed_spline, contains, polygon_area

SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
BOWTIE = np.array([[0, 0], [3, 1], [3, 0], [0, 1.2]])


@pytest.mark.parametrize(
    ("outline", "holes", "message"),
    [
        (BOWTIE, [], "outline: it meets itself"),
        (SQUARE[[0, 1, 1, 2, 3]], [], "outline: it meets itself"),
        (SQUARE, [0.5 * SQUARE + 0.7], r"holes\[0\]: it meets outline"),
        (SQUARE, [0.5 * SQUARE], r"holes\[0\]: it meets outline"),
        (SQUARE, [0.4 * SQUARE + 0.1, 0.4 * SQUARE + 0.3], r"holes\[1\]: it meets holes\[0\]"),
        (SQUARE, [0.5 * SQUARE + 3], r"holes\[0\]: it lies outside the outline"),
        (SQUARE, [0.6 * SQUARE + 0.1, 0.2 * SQUARE + 0.2], r"holes\[1\]: it lies within holes\[0"),
        (SQUARE, [np.zeros((2, 2))], r"holes\[0\]: expected \(k, 2\) with k >= 3 corners"),
        (SQUARE[:2], [], r"outline: expected \(k, 2\) with k >= 3 corners, got \(2, 2\)"),
        (SQUARE * np.nan, [], "outline: the region .* has area nan"),
        (SQUARE * [1, 0], [], "outline: the region .* has area 0"),
    ],
)
def test_regions_that_are_none_are_refused(outline, holes, message):
    with pytest.raises(ValueError, match=message):
        mesh_domain(outline, n_nodes=100, holes=holes)


def test_a_hole_that_the_smoothed_outline_would_cut_is_refused():
    hole = 0.2 * SQUARE + 0.03  # within the square, but in the corner that the spline rounds off
    check_outlines(SQUARE, [hole])
    with pytest.raises(ValueError, match=r"holes\[0\]: it (meets outline|lies outside)"):
        mesh_domain(SQUARE, n_nodes=100, holes=[hole], smooth=True)


def test_too_few_nodes_are_refused():
    with pytest.raises(ValueError, match="n_nodes: expected at least 4, got 3"):
        mesh_domain(SQUARE, n_nodes=3)


def test_neighbouring_edges_on_one_line_do_not_meet():
    middle = np.array([[0, 0], [0.5, 0], [1, 0], [1, 1], [0.5, 1], [0, 1]])
    check_outlines(middle, [0.2 * middle[::-1] + 0.3])


def test_many_corners_are_checked_quickly():
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    check_outlines(circle, [0.5 * circle])
    folded = circle.copy()
    folded[[10, 11]] = folded[[11, 10]]
    with pytest.raises(ValueError, match="outline: it meets itself"):
        check_outlines(folded, [])


def test_areas_insides_and_splines():
    assert polygon_area(SQUARE) == 1
    assert polygon_area(SQUARE[::-1]) == -1
    assert contains(SQUARE, np.array([0.5, 0.5]))
    assert not contains(SQUARE, np.array([1.5, 0.5]))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radius = np.linalg.norm(closed_spline(circle), axis=1)
    # A uniform cubic B-spline keeps the curvature of its control points to second order.
    assert np.allclose(radius, (2 + np.cos(angle[1])) / 3, atol=1e-4)
