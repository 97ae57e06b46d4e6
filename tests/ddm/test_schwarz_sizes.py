"""Work and memory grow linearly, and nothing loops over subdomains in Python."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ddm.coarse import assembled_neumann, geneo, nicolaides, smooth
from ddm.interface import schur
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from sparsetorch import poisson


def calls(function: Callable[[], object]) -> int:
    """Python functions that are called, and C functions that they call."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def built(n_side: int):
    """Set-up and one application of everything, after the structure's kernels have been loaded."""
    A = poisson(n_side, n_side, dtype=torch.float64)
    matrix = A.to_scipy()
    owner = partition(matrix, n_side**2 // 16)
    elements = np.stack([np.arange(n_side**2 - 1), np.arange(1, n_side**2)], axis=1)
    r = torch.ones(n_side**2, 1, dtype=torch.float64)

    def run() -> None:
        d = decompose(matrix, owner, 2)
        P = smooth(nicolaides(d, np.ones((d.n, 1))), A)
        for local in ("dense", "sparse"):
            Schwarz(A, d, P=P, local=local, form="additive", levels="balanced").apply(r)
        schur(A, d, 1)
        assembled_neumann(d, elements, np.ones((len(elements), 2, 2)))
        geneo(A, d, count=2)

    return run


def test_the_number_of_calls_does_not_grow_with_the_subdomains():
    calls(built(16))
    few, many = calls(built(16)), calls(built(48))
    assert many < 1.5 * few  # 9 times as many subdomains


def test_what_a_method_stores_grows_as_the_matrix():
    """With subdomains of 16 unknowns, at 4 times as many: the boundary's share falls a little."""
    stored = []
    for n_side in (48, 96):
        A = poisson(n_side, n_side, dtype=torch.float64)
        matrix = A.to_scipy()
        d = decompose(matrix, partition(matrix, n_side**2 // 16), 2)
        M = Schwarz(A, d, P=smooth(nicolaides(d, np.ones((d.n, 1))), A), coarse="sparse")
        assert M.P is not None
        stored.append(
            [x / n_side**2 for x in (len(d.node), len(d.block_source), M.P.nnz, M.coarse.nnz)]
        )
    assert (np.divide(stored[1], stored[0]) < 1.2).all()


@pytest.mark.parametrize("local", ["dense", "sparse"])
def test_an_application_is_the_same_work_for_each_subdomain(local):
    A = poisson(24, 24, dtype=torch.float64)
    matrix = A.to_scipy()
    counts = []
    for n_parts in (6, 48):
        d = decompose(matrix, partition(matrix, n_parts))
        M = Schwarz(A, d, local=local)
        r = torch.ones(d.n, dtype=torch.float64)
        counts.append(calls(lambda M=M, r=r: M.apply(r)))
    assert counts[1] <= 1.5 * counts[0]
