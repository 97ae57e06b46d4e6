"""Partitions: connected parts that cover all unknowns, and the matrices that have none."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from small_problems import delaunay, laplacian, line

from ddm.choice import choose
from ddm.partition import partition
from ddm.partitioners import PARTITIONERS, rcb
from ddm.pieces import check_entries
from ddm.problems import poisson
from ddm.workbench import Workbench

METHODS = ["metis", "lloyd"]


@pytest.mark.parametrize("method", [*METHODS, "rcb"])
@pytest.mark.parametrize("n_parts", [1, 2, 7, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_are_connected_not_empty_and_cover(method, n_parts, seed):
    problem = poisson(delaunay(22, seed))
    A = problem.A
    owner = partition(A, n_parts, method=method, seed=seed, coordinates=problem.positions)
    assert owner.shape == (A.shape[0],)
    sizes = np.bincount(owner)
    assert (sizes > 0).all()
    assert 0.9 * n_parts <= len(sizes) <= 1.1 * n_parts
    for part in range(len(sizes)):
        inside = np.flatnonzero(owner == part)
        assert connected_components(A[inside][:, inside])[0] == 1


def test_a_part_in_pieces_becomes_several(monkeypatch):
    A = sp.csr_array(3 * np.eye(6) - np.eye(6, k=1) - np.eye(6, k=-1))
    pieces = np.array([0, 2, 2, 0, 0, 2])  # and part 1 is empty
    monkeypatch.setitem(PARTITIONERS, "metis", lambda *_: pieces)
    assert partition(A, 3).tolist() == [0, 2, 2, 1, 1, 3]


@pytest.mark.parametrize(("strays", "times"), [(0, 1), (1, 1), (3, 2)])
def test_metis_runs_again_only_where_many_parts_are_wrong(monkeypatch, strays, times):
    n, n_parts, calls = 3600, 150, []

    def part_graph(n_parts, adjacency, options, recursive):
        calls.append(recursive)
        owner = np.repeat(np.arange(n_parts), n // n_parts)
        owner[: 24 * strays : 24] = n_parts - 1  # far away from the rest of that part
        return 0, owner

    monkeypatch.setattr("pymetis.part_graph", part_graph)
    owner = partition(line(n), n_parts)
    assert calls == [False, True][:times]
    assert owner.max() + 1 == n_parts


@pytest.mark.parametrize("n_parts", [4, 16, 30, 90])
def test_metis_parts_have_even_sizes(n_parts):
    """Also with few unknowns a part, where METIS's k-way method leaves many pieces."""
    sizes = np.bincount(partition(laplacian(30), n_parts))
    assert abs(len(sizes) - n_parts) <= 0.1 * n_parts
    assert sizes.max() <= 1.1 * sizes.mean() + 2


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_one_partition(method):
    A = laplacian(20)
    first, again, other = (partition(A, 12, method=method, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    if method == "lloyd":
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("method", METHODS)
def test_as_many_parts_as_unknowns(method):
    A = laplacian(5)
    assert len(np.unique(partition(A, 9, method=method))) <= 9
    one = sp.csr_array([[2.0]])
    assert partition(one, 1, method=method).tolist() == [0]


@pytest.mark.parametrize("method", METHODS)
def test_index_types_and_order_do_not_matter(method):
    A = laplacian(12)
    owner = partition(A, 6, method=method)
    wide = sp.csr_array(
        (A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), shape=A.shape
    )
    assert np.array_equal(partition(wide, 6, method=method), owner)
    assert np.array_equal(partition(sp.csr_array(A.T.tocsr()), 6, method=method), owner)


def test_more_subdomains_than_unknowns_are_refused():
    message = "n_parts: expected an integer from 1 to 9, the number of unknowns, got 10"
    with pytest.raises(ValueError, match=message):
        partition(laplacian(5), 10)


@pytest.mark.parametrize("n_parts", [0, -1, 2.5, math.nan, math.inf])
def test_no_number_of_parts_is_refused(n_parts):
    with pytest.raises(ValueError, match=f"n_parts: expected at least 1 part, got {n_parts}"):
        partition(laplacian(5), n_parts)


def test_another_method_is_refused():
    message = r"method: expected one of \('auto', 'metis', 'lloyd', 'rcb'\), got 'k"
    with pytest.raises(ValueError, match=message):
        partition(laplacian(5), 2, method="kmeans")


@pytest.mark.parametrize(("n", "d", "n_parts"), [(1, 2, 1), (10, 1, 10), (97, 2, 5), (1000, 3, 64)])
def test_bisection_gives_sizes_that_differ_by_one(n, d, n_parts):
    points = np.random.default_rng(0).random((n, d))
    sizes = np.bincount(rcb(points, n_parts), minlength=n_parts)
    assert len(sizes) == n_parts
    assert sizes.max() - sizes.min() <= 1
    alike = rcb(np.zeros((n, d)), n_parts)  # points at one place are told apart somehow
    assert np.array_equal(np.unique(alike), np.arange(n_parts))


def test_bisection_cuts_the_longest_side():
    x, y = np.meshgrid(np.arange(8.0), np.arange(4.0))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    owner = rcb(points, 8).reshape(4, 8)
    boxes = [[0, 0, 2, 2, 4, 4, 6, 6]] * 2 + [[1, 1, 3, 3, 5, 5, 7, 7]] * 2
    assert np.array_equal(owner, boxes)
    three = rcb(points, 3)  # one and two of three parts on either side
    assert points[three == 0, 0].max() <= points[three > 0, 0].min()


def slit(n: int) -> tuple[sp.csr_array, np.ndarray]:
    """Two lines that lie upon each other in space, and touch nowhere."""
    x = np.linspace(0, 1, n)[:, None]
    return sp.csr_array(sp.block_diag([line(n), line(n)], format="csr")), np.concatenate([x, x])


def test_large_problems_with_coordinates_are_bisected(monkeypatch):
    problem = poisson(delaunay(22))
    A, x = problem.A, problem.positions
    by = {name: partition(A, 7, method=name, coordinates=x) for name in ("metis", "rcb")}
    assert not np.array_equal(by["metis"], by["rcb"])
    assert np.array_equal(partition(A, 7, coordinates=x), by["metis"])
    monkeypatch.setattr("ddm.partition.LARGE", A.shape[0])
    assert np.array_equal(partition(A, 7, coordinates=x), by["rcb"])
    assert np.array_equal(Workbench(problem).owner(57), by["rcb"])
    assert np.array_equal(choose(problem, subdomain=57).owner, by["rcb"])
    assert np.array_equal(partition(A, 7), by["metis"])
    assert np.array_equal(partition(A, 7, method="metis", coordinates=x), by["metis"])


def test_metis_takes_over_where_bisection_leaves_parts_in_pieces(monkeypatch):
    monkeypatch.setattr("ddm.partition.LARGE", 1)
    A, x = slit(40)
    owner = partition(A, 8, coordinates=x)
    assert np.array_equal(owner, partition(A, 8, method="metis"))
    asked = partition(A, 8, method="rcb", coordinates=x)  # each part is in two pieces, split
    assert len(np.unique(asked)) == 16


def test_a_node_lies_where_its_first_unknown_does():
    A = sp.csr_array(sp.kron(line(12), np.eye(2)).tocsr())
    x = np.repeat(np.arange(12.0), 2)[:, None]
    owner = partition(A, 3, method="rcb", block_size=2, coordinates=x)
    assert np.array_equal(owner, np.repeat([0, 1, 2], 8))


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        (None, r"coordinates: expected positions \(n, d\) for method='rcb', got None"),
        (np.zeros((8, 2)), r"coordinates: expected finite values of shape \(9, d\), .* got .*8, 2"),
        (np.full((9, 2), np.nan), "coordinates: expected finite values of shape"),
        (np.zeros(9), "coordinates: expected finite values of shape"),
        (np.zeros((9, 0)), "coordinates: expected finite values of shape"),
    ],
)
def test_bad_coordinates_are_refused(coordinates, message):
    with pytest.raises(ValueError, match=message):
        partition(laplacian(5), 3, method="rcb", coordinates=coordinates)


BAD = {
    r"A: expected a square matrix, got shape \(3, 4\)": sp.csr_array(np.ones((3, 4))),
    "A: it has no rows": sp.csr_array((0, 0)),
    "A: some entries are NaN or infinite": sp.csr_array([[1.0, np.nan], [1.0, 1.0]]),
    "A: some entries are NaN": sp.csr_array([[1.0, np.inf], [1.0, 1.0]]),
    "A: 2 empty rows, the first is row 1; remove": sp.csr_array(np.diag([1.0, 0, 0, 1])),
}


@pytest.mark.parametrize("message", BAD)
def test_matrices_without_a_schwarz_method_are_refused(message):
    for refuse in (check_entries, lambda A: partition(A, 1)):
        with pytest.raises(ValueError, match=message):
            refuse(BAD[message])


MALFORMED = {  # what is done to A, and what is said
    "A.indices[5] = 10**8": "indices must be < 200",
    "A.indices[5] = -(10**7)": "indices must be >= 0",
    "A.indptr[7] = 2 * 10**8": "indptr must be",
    "A.indptr[1:] = 0; A.indptr[7] = 9": "199 empty rows",
    "A.indptr[-1] = -3": "empty rows, the first is row 199",
    "A.indptr[0] = 1": "index pointer should start with 0",
    "A.indptr[-1] = 10**6": "index pointer",
    "A.data = A.data[:-1]": "indices and data should have the same size",
}
PROGRAM = """
import sys
import numpy as np
import scipy.sparse as sp
from ddm.partition import decompose, partition
from ddm.pieces import repair
from ddm.setup import set_up

owner = np.arange(200) // 50
for damage in sys.argv[1:]:
    for call in (decompose, repair, set_up, lambda A, owner: partition(A, 4)):
        A = sp.csr_array(2 * sp.eye_array(200) - sp.eye_array(200, k=1) - sp.eye_array(200, k=-1))
        exec(damage)
        try:
            call(A, owner)
        except ValueError as error:
            print(error)
"""


def test_arrays_that_make_no_matrix_are_refused():
    """In a process of its own, which SciPy would end where it followed such indices."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *MALFORMED], capture_output=True, text=True, check=True
    )
    expected = [said for said in MALFORMED.values() for _ in range(4)]
    lines = run.stdout.splitlines()
    assert len(lines) == len(expected), run.stdout + run.stderr
    for found, said in zip(lines, expected):
        assert found.startswith("A: ")
        assert said in found


def test_what_is_checked_stays_as_it_is():
    A = laplacian(6)
    A.data, A.indices = np.append(A.data, 9.0), np.append(A.indices, 0)  # SciPy allows more room
    arrays = A.data, A.indices, A.indptr
    check_entries(A)
    assert all(found is kept for found, kept in zip((A.data, A.indices, A.indptr), arrays))
