"""Smoothed aggregation of complex matrices, and what PyAMG does not do with them."""

from typing import Any

import pytest
import torch
from magnetic import Z, helmholtz, magnetic
from random_matrices import dense

from sparsetorch import eye, poisson
from sparsetorch.linalg import cg, gmres, solve
from sparsetorch.precond import amg

pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_multigrid_of_a_weak_field_needs_its_lowest_state_alone():
    """With the near null space as B it takes as many iterations on a fine grid as on a coarse one.

    Without a field, 9. A constant vector is no near null space here.
    """
    counts: list[tuple[int, int]] = []
    for n in (16, 32):
        A = magnetic(n, 0.01)
        b = torch.randn(n * n, dtype=Z)
        B = torch.ones(n * n, dtype=Z)
        for _ in range(3):  # of inverse iteration
            B = solve(A, B / B.norm())
        with_B = amg(A, "smoothed_aggregation", B=B[:, None].numpy())
        without = amg(A, "smoothed_aggregation")
        with_it, plain = (cg(A, b, preconditioner=M).iterations for M in (with_B, without))
        counts.append((with_it, plain))
    assert max(with_B for with_B, _ in counts) <= 12
    assert counts[1][1] > counts[1][0]


def test_restriction_is_what_the_symmetry_says():
    A = helmholtz(12)
    for symmetry, turn in (("hermitian", lambda P: P.H), ("symmetric", lambda P: P.T)):
        M = amg(A, "smoothed_aggregation", symmetry=symmetry)
        for level in M.levels:
            R, P = dense(level.restriction), dense(turn(level.interpolation))
            torch.testing.assert_close(R, P)
    P = poisson(12, 12, dtype=Z) - 0.5 * (1 - 0.3j) * eye(144, dtype=Z)  # symmetric
    M = amg(P, "smoothed_aggregation", symmetry="symmetric")
    D = M(torch.eye(144, dtype=Z)).T
    torch.testing.assert_close(D, D.T)
    b = torch.randn(144, dtype=Z)
    assert gmres(P, b, preconditioner=M).iterations <= gmres(P, b).iterations / 3


def test_what_pyamg_does_not_do_in_complex_is_named():
    A = magnetic(8)
    with pytest.raises(TypeError, match=r"'ruge_stuben' for float32 or float64 only, .*complex128"):
        amg(A)
    refused: list[dict[str, Any]] = [
        {"strength": "affinity"},
        {"strength": "algebraic_distance"},
        {"aggregate": "pairwise"},
    ]
    for options in refused:
        with pytest.raises(TypeError, match=r"PyAMG refuses torch.complex128 with .*strengths"):
            amg(A, "smoothed_aggregation", **options)
    with pytest.raises(ValueError, match="expected finite values"):
        amg(A.with_values(A.values * complex(0, torch.nan)), "smoothed_aggregation")
