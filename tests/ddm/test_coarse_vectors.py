"""Vectors for coarse spaces: what they span, and what does not fit."""

import numpy as np
import pytest
from small_problems import delaunay, laplacian

import ddm
from ddm.coarse import coarse_vectors, constants, nicolaides, nowhere_zero, with_linear
from ddm.partition import decompose, partition


def spans(vectors: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether a vector is a combination of others."""
    found = np.linalg.lstsq(vectors, wanted)[0]
    return np.allclose(vectors @ found, wanted)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_constants_are_one_for_each_component(size):
    vectors = constants(4 * size, size)
    np.testing.assert_array_equal(vectors, np.tile(np.eye(size), (4, 1)))


@pytest.mark.parametrize(("size", "dim"), [(1, 2), (2, 2), (3, 3)])
def test_linear_functions_of_each_component(size, dim):
    rng = np.random.default_rng(0)
    x = np.repeat(100 + rng.standard_normal((20, dim)), size, axis=0)
    vectors = with_linear(constants(len(x), size), x, size)
    assert vectors.shape == (20 * size, size * (1 + dim))
    assert np.abs(vectors).max() == 1  # well scaled wherever the origin is
    for component in range(size):
        here = np.arange(len(x)) % size == component
        for axis in range(dim):
            assert spans(vectors, x[:, axis] * here)


def test_rigid_bodies_and_linear_functions_make_six_vectors_in_the_plane():
    problem = ddm.elasticity(delaunay(8), dirichlet={lambda x, y: x < 1e-9: 0.0})
    assert problem.near_nullspace is not None
    vectors = with_linear(problem.near_nullspace, problem.coordinates, 2)
    assert vectors.shape[1] == 3 + 4
    d = decompose(problem.A, partition(problem.A, 3, block_size=2), block_size=2)
    assert nicolaides(d, vectors).shape[1] == 3 * 6  # the rotation is linear


def test_one_place_for_all_unknowns_gives_zeros():
    vectors = with_linear(constants(5), np.ones((5, 2)))
    np.testing.assert_array_equal(vectors[:, 1:], np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        (np.zeros((4, 2)), r"coordinates: expected .* \(5, d\), .*, got shape \(4, 2\)"),
        (np.zeros(5), r"coordinates: expected .* \(5, d\), .*, got shape \(5,\)"),
        (np.full((5, 2), np.nan), "coordinates: .*, got some that are not finite"),
    ],
)
def test_coordinates_that_do_not_fit(coordinates, message):
    with pytest.raises(ValueError, match=message):
        with_linear(constants(5), coordinates)


def test_vectors_that_vanish_on_a_subdomain_get_a_one_there():
    A = laplacian(9)
    d = decompose(A, partition(A, 4))
    vectors = np.ones((d.n, 2))
    assert nowhere_zero(vectors, d) is vectors
    here = d.node[d.subdomain == 2]
    vectors[here] = 0
    found = nowhere_zero(vectors, d)
    np.testing.assert_array_equal(found[here], np.tile([1.0, 0.0], (len(here), 1)))
    others = np.setdiff1d(np.arange(d.n), here)
    np.testing.assert_array_equal(found[others], 1)
    assert not vectors[here].any()  # what was given stays
    with pytest.raises(ValueError, match="every vector is zero on subdomain 2"):
        nicolaides(d, vectors)
    assert nicolaides(d, found).shape[1] >= 4
    setup = ddm.set_up(A, d.owner, near_nullspace=vectors)
    assert setup.P.shape[1] >= 4


def test_the_vectors_of_a_coarse_space_are_those_of_the_problem_and_linear_functions():
    problem = ddm.elasticity(delaunay(8), dirichlet={lambda x, y: x < 1e-9: 0.0})
    assert problem.near_nullspace is not None
    d = decompose(problem.A, partition(problem.A, 3, block_size=2), block_size=2)
    np.testing.assert_array_equal(coarse_vectors(d), constants(d.n, 2))
    rigid = coarse_vectors(d, problem.near_nullspace)
    np.testing.assert_array_equal(rigid, problem.near_nullspace)
    both = coarse_vectors(d, rigid, problem.positions)
    np.testing.assert_array_equal(both, with_linear(rigid, problem.coordinates, 2))
    whole = coarse_vectors(d, np.ones((d.n, 1), dtype=np.int64))
    np.testing.assert_array_equal(whole, np.ones((d.n, 1)))
    with pytest.raises(ValueError, match="near_nullspace: every value is zero; leave it out"):
        coarse_vectors(d, np.zeros((d.n, 1)))
    with pytest.raises(ValueError, match="near_nullspace: expected finite values of shape"):
        coarse_vectors(d, np.ones(d.n))
