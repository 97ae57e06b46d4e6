"""Coarse spaces: the partition of unity, and its smoothing, against dense formulas."""

import numpy as np
import pytest
import torch
from small_problems import laplacian, random_matrix

from ddm.coarse import check_coarse, nicolaides, partition_of_unity, smooth
from ddm.partition import decompose, partition
from sparsetorch import CSRTensor

A = laplacian(10)
MATRIX = CSRTensor.from_scipy(A)


@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_partition_of_unity_shares_each_unknown_evenly(overlap, dtype):
    d = decompose(A, partition(A, 5), overlap)
    P = partition_of_unity(d, dtype)
    assert P.dtype == dtype
    dense = P.to_dense()
    held = np.zeros(dense.shape, dtype=bool)
    held[d.node, d.subdomain] = True
    expected = torch.from_numpy(held / held.sum(axis=1, keepdims=True)).to(dtype)
    torch.testing.assert_close(dense, expected)
    torch.testing.assert_close(dense.sum(1), torch.ones(d.n, dtype=dtype))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_smoothing_is_damped_jacobi(steps):
    P = partition_of_unity(decompose(A, partition(A, 5)))
    dense, D = P.to_dense(), MATRIX.to_dense()
    for _ in range(steps):
        dense = dense - 0.5 * (D @ dense) / D.diagonal()[:, None]
    torch.testing.assert_close(smooth(P, MATRIX, steps, omega=0.5).to_dense(), dense)


def test_smoothing_lowers_the_energy_and_keeps_constants_inside():
    d = decompose(A, partition(A, 5))
    P = partition_of_unity(d)
    S = smooth(P, MATRIX)
    energies = [(Q.T @ (MATRIX @ Q)).diagonal().sum() for Q in (P, S)]
    assert energies[1] < 0.6 * energies[0]
    row_sums = MATRIX @ torch.ones(d.n, dtype=torch.float64)
    inside = row_sums.abs() < 1e-12
    assert inside.any()
    torch.testing.assert_close(
        S.to_dense().sum(1)[inside], torch.ones(int(inside.sum()), dtype=torch.float64)
    )


@pytest.mark.parametrize("steps", [-1, 0.5, float("nan"), float("inf")])
def test_steps_that_are_no_number_of_steps_are_refused(steps):
    P = partition_of_unity(decompose(A, partition(A, 5)))
    with pytest.raises(ValueError, match="steps: expected at least 0 Jacobi steps, got"):
        smooth(P, MATRIX, steps)


def test_prolongations_that_fit_no_matrix_are_refused():
    P = CSRTensor.from_dense(random_matrix(6, 3))
    check_coarse(P, 6)
    with pytest.raises(ValueError, match=r"P: expected \(7, S\) with 1 <= S <= 7, got \(6, 3\)"):
        check_coarse(P, 7)
    with pytest.raises(ValueError, match=r"P: expected \(3, S\) with 1 <= S <= 3, got \(3, 6\)"):
        check_coarse(P.T, 3)
    dense = random_matrix(6, 3)
    dense[:, [0, 2]] = 0
    with pytest.raises(ValueError, match=r"P: column 0 is empty \(2 in all\), so the coarse"):
        check_coarse(CSRTensor.from_dense(dense), 6)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_near_null_vectors_of_any_size(scale):
    A = laplacian(10)
    d = decompose(A, partition(A, 5))
    vectors = np.ones((d.n, 1))
    expected, found = (nicolaides(d, s * vectors).to_dense() for s in (1.0, scale))
    torch.testing.assert_close(found, expected)
