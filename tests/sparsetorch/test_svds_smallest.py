"""The smallest singular values: dense parity, accuracy, derivatives of every kind."""

from typing import Any

import pytest
import scipy.sparse.linalg as sl
import torch
from random_matrices import dense, random_csr, random_square
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, svds

SHAPES = [(9, 9), (12, 7), (7, 12)]


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small operations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def matrix(shape: tuple[int, int]) -> CSRTensor:
    m, n = shape
    return random_square(m, seed=2) if m == n else random_csr(m, n, density=0.6, seed=3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_triplets_are_those_of_the_dense_matrix(shape, dtype):
    A, k = matrix(shape).detach().to(dtype), 3
    U, S, Vh = svds(A, k, which="SM")
    tolerance = 1e-10 if dtype == torch.float64 else 1e-3
    close: Any = {"rtol": 0, "atol": tolerance}
    torch.testing.assert_close(S, torch.linalg.svdvals(dense(A))[-k:], **close)
    torch.testing.assert_close(A @ Vh.T, U * S, **close)
    torch.testing.assert_close(A.T @ U, Vh.T * S, **close)
    torch.testing.assert_close(U.T @ U, torch.eye(k, dtype=dtype), **close)
    torch.testing.assert_close(Vh @ Vh.T, torch.eye(k, dtype=dtype), **close)
    torch.testing.assert_close(svds(A, k, which="SM", return_singular_vectors=False), S)
    start = torch.ones(sum(shape), dtype=dtype)
    torch.testing.assert_close(svds(A, k, which="SM", v0=start)[1], S, **close)
    if dtype == torch.float64:
        by_scipy: Any = sl.svds(A.to_scipy(), k, which="SM", return_singular_vectors=False)
        torch.testing.assert_close(S.flip(0), torch.tensor(by_scipy.copy()), rtol=0, atol=1e-6)


def test_a_square_matrix_keeps_all_digits_of_its_smallest_ones():
    d = torch.tensor([1e-9, 3e-9, 1e-8, 1.0, 2.0, 3.0]).double()
    S = svds(CSRTensor.diag(d), 2, which="SM", return_singular_vectors=False)
    torch.testing.assert_close(S, torch.tensor([3e-9, 1e-9]).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(6, 6), (8, 5), (5, 8)], ids=str)
def test_derivatives_of_first_and_second_order(shape):
    A = matrix(shape)

    def triplets(values):
        return svds(A.with_values(values), 2, which="SM", adjoint_rtol=1e-13)

    fast = {"fast_mode": True, "atol": 1e-5, "rtol": 1e-3}
    assert gradcheck(triplets, (A.values,), check_forward_ad=True, **fast)
    assert gradgradcheck(triplets, (A.values,), check_fwd_over_rev=True, **fast)
    (got,) = torch.autograd.grad(triplets(A.values)[1].sum(), A.values)
    want = torch.autograd.grad(torch.linalg.svdvals(dense(A))[-2:].sum(), A.values)[0]
    torch.testing.assert_close(got, want)
    mapped = torch.vmap(lambda v: triplets(v)[1])(torch.stack([A.values, 2 * A.values]))
    torch.testing.assert_close(mapped[1], 2 * mapped[0])


def test_a_singular_matrix_is_refused():
    A = CSRTensor.diag(torch.tensor([1.0, 2.0, 0.0, 3.0]).double())
    with pytest.raises(SolveError, match="singular"):
        svds(A, 1, which="SM")
    with pytest.raises(ValueError, match="on the CPU, got meta"):
        svds(A.to("meta"), 1, which="SM")
