"""Overlapping subdomains against a construction with Python sets."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from dense_elements import elasticity
from small_problems import laplacian

from ddm.coarse import partition_of_unity
from ddm.enrichment import enriched
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from ddm.setup import set_up
from sparsetorch import CSRTensor


def grow(A: np.ndarray, members: set[int]) -> set[int]:
    """Members and their neighbours."""
    return members | {int(j) for i in members for j in np.flatnonzero(A[i])}


def cases():
    A = laplacian(10)
    loop = sp.csr_array(A.toarray() + np.diag(np.full(24, 3.0), k=40))  # not symmetric
    for name, matrix in (("mesh", A), ("one-way couplings", loop)):
        for overlap in (1, 2, 3):
            for n_parts in (1, 2, 6):
                yield pytest.param(matrix, n_parts, overlap, id=f"{name}-{overlap}-{n_parts}")


@pytest.mark.parametrize(("A", "n_parts", "overlap"), list(cases()))
def test_agrees_with_sets(A, n_parts, overlap):
    owner = partition(A, n_parts)
    d = decompose(A, owner, overlap)
    dense = A.toarray()
    either = (dense != 0) | (dense.T != 0)
    ends = np.concatenate([[0], np.cumsum(d.sizes)])
    assert d.n_subdomains == owner.max() + 1
    assert ends[-1] == len(d.node)
    interface = np.zeros(len(d.block_source), dtype=bool)
    interface[d.interface] = True
    for i in range(d.n_subdomains):
        here = slice(ends[i], ends[i + 1])
        layers = [{int(k) for k in np.flatnonzero(owner == i)}]
        for _ in range(overlap):
            layers.append(grow(either, layers[-1]))
        members = sorted(layers[-1])
        assert (d.subdomain[here] == i).all()
        assert d.node[here].tolist() == members
        assert d.own[here].tolist() == [owner[node] == i for node in members]
        reached = [next(k for k, layer in enumerate(layers) if node in layer) for node in members]
        assert d.layer[here].tolist() == reached
        others = sorted(set(range(len(owner))) - set(members))
        assert np.allclose(d.outside[here], abs(dense[np.ix_(members, others)]).sum(axis=1))

        block = np.flatnonzero((d.block_row >= ends[i]) & (d.block_row < ends[i + 1]))
        row, col = d.block_row[block] - ends[i], d.block_col[block] - ends[i]
        size = len(members)
        local = sp.coo_array((A.data[d.block_source[block]], (row, col)), shape=(size, size))
        assert np.array_equal(local.toarray(), dense[np.ix_(members, members)])
        assert (np.diff(row * size + col) > 0).all()  # sorted, without duplicates
        on_ring = ~d.own[here]
        assert np.array_equal(interface[block], on_ring[row] & on_ring[col])
    assert np.array_equal(d.multiplicity, np.bincount(d.node))


@pytest.mark.parametrize("local", ["dense", "sparse"])
def test_the_order_in_which_entries_are_stored_does_not_matter(local):
    A = laplacian(9)
    owner = partition(A, 4)
    coo = sp.coo_array(A)
    turned = np.arange(A.nnz)[::-1]
    doubled = np.concatenate([turned, turned])  # each entry in two halves
    stored = np.argsort(coo.row[doubled], kind="stable")
    order = doubled[stored]
    crow = np.concatenate([[0], np.cumsum(np.bincount(coo.row[order]))])
    messy = sp.csr_array((coo.data[order] / 2, coo.col[order], crow), shape=A.shape)
    assert not messy.has_canonical_format
    assert abs(messy - A).max() < 1e-15
    b = np.ones(A.shape[0])
    tidy, other = (
        set_up(matrix, owner, local=local).classical(0.5).as_linear_operator()
        for matrix in (A, messy)
    )
    assert np.allclose(tidy.matvec(b), other.matvec(b), rtol=1e-12)
    assert messy.nnz == 2 * A.nnz  # the caller's matrix is left alone


def test_explicit_zeros_are_couplings():
    line = sp.csr_array(np.array([[2.0, -1, 0], [-1, 2, -1], [0, -1, 2]]))
    assert decompose(line, np.array([0, 1, 1])).sizes.tolist() == [2, 3]
    stored = sp.csr_array(np.full((3, 3), 7.0))
    stored.data[:] = line.toarray().ravel()
    assert decompose(stored, np.array([0, 1, 1])).sizes.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("owner", "overlap", "message"),
    [
        (np.zeros(8, int), 1, r"owner: expected \(9,\) integers, got \(8,\)"),
        (np.zeros(9), 1, r"owner: expected \(9,\) integers, got \(9,\) float64"),
        (np.full(9, 1), 1, r"owner: expected parts 0 \.\. S-1, each with at least one unknown"),
        (np.full(9, -1), 1, r"owner: expected parts 0 \.\. S-1"),
        (np.arange(9) + 10**11 * (np.arange(9) == 0), 1, "S-1, each with .* part 0 is empty"),
        (np.arange(9) + (np.arange(9) == 8), 1, "part 8 is empty"),
        (np.zeros(9, int), 0, "overlap: expected at least 1 layer, got 0"),
        (np.zeros(9, int), 1.5, r"overlap: expected at least 1 layer, got 1\.5"),
        (np.zeros(9, int), math.nan, "overlap: expected at least 1 layer, got nan"),
        (np.zeros(9, int), math.inf, "overlap: expected at least 1 layer, got inf"),
    ],
)
def test_bad_owners_and_overlaps_are_refused(owner, overlap, message):
    with pytest.raises(ValueError, match=message):
        decompose(laplacian(5), owner, overlap)


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"A: expected a square matrix, got shape \(9, 8\)"):
        set_up(sp.csr_array(laplacian(5)[:, :8]), np.zeros(9, int))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "u4", "u8", ">i8"])
@pytest.mark.parametrize("step", [1, -1])
def test_owners_of_any_integer_dtype_and_order(dtype, step):
    A = laplacian(9)
    owner = partition(A, 4)
    given = owner.astype(dtype)[::step].copy()[::step]
    d = decompose(A, given)
    assert d.owner.dtype == np.int64
    assert np.array_equal(d.owner, owner)
    assert enriched(Schwarz(CSRTensor.from_scipy(A), d, P=partition_of_unity(d)), 2).P is not None


@pytest.mark.parametrize("block_size", [1, 2])
def test_the_owner_is_a_copy(block_size):
    A = elasticity(5).A
    owner = partition(A, 3, block_size=block_size)
    before = owner.copy()
    d = decompose(A, owner, block_size=block_size)
    owner[:] = 0
    assert np.array_equal(d.owner, before)


def test_decompositions_are_equal_to_themselves():
    A = laplacian(9)
    one, two = (decompose(A, partition(A, 4)) for _ in range(2))
    assert one == one
    assert one != two
    assert len({one, two, one}) == 2
