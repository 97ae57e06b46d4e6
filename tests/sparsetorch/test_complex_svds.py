"""Singular triplets of complex matrices: dense parity, phases, derivatives of every kind."""

from typing import Any

import pytest
import scipy.sparse.linalg as sl
import torch
from random_matrices import dense, random_complex, random_csr
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor
from sparsetorch.linalg import svds
from sparsetorch.linalg.svds import Which

SHAPES = [(9, 9), (12, 7), (7, 12)]
every_end = pytest.mark.parametrize("which", ["LM", "SM"])


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small operations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def matrix(shape: tuple[int, int]) -> CSRTensor:
    m, n = shape
    if m == n:
        return random_complex(m, seed=2)
    return random_csr(m, n, density=0.6, seed=3, dtype=torch.complex128)


@every_end
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64], ids=str)
def test_triplets_are_those_of_the_dense_matrix(shape, which: Which, dtype):
    A, k = matrix(shape).detach().to(dtype), 3
    U, S, Vh = svds(A, k, which=which)
    close: Any = {"rtol": 0, "atol": 1e-10 if dtype == torch.complex128 else 1e-3}
    exact = torch.linalg.svdvals(dense(A))
    assert S.dtype == exact.dtype
    torch.testing.assert_close(S, exact[:k] if which == "LM" else exact[-k:], **close)
    torch.testing.assert_close(A @ Vh.mH, U * S, **close)
    torch.testing.assert_close(A.H @ U, Vh.mH * S, **close)
    torch.testing.assert_close(U.mH @ U, torch.eye(k, dtype=dtype), **close)
    torch.testing.assert_close(Vh @ Vh.mH, torch.eye(k, dtype=dtype), **close)
    assert not Vh.is_conj()  # NumPy would refuse it
    torch.testing.assert_close(svds(A, k, which=which, return_singular_vectors=False), S)
    if dtype == torch.complex128:
        by_scipy: Any = sl.svds(A.to_scipy(), k, which=which, return_singular_vectors=False)
        torch.testing.assert_close(S.flip(0), torch.tensor(by_scipy.copy()), rtol=0, atol=1e-6)


@every_end
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_real_matrix_has_the_same_triplets_as_a_complex_one(shape, which: Which):
    A = random_csr(*shape, density=0.6, seed=3).detach()
    real = svds(A, 2, which=which)
    for got, part in zip(svds(A.to(torch.complex128), 2, which=which), real):
        torch.testing.assert_close(got, part.to(got.dtype))


@every_end
@pytest.mark.parametrize("shape", [(6, 6), (5, 7)], ids=str)
def test_derivatives_of_first_and_second_order(shape, which: Which):
    A = matrix(shape)

    def triplets(values):
        return svds(A.with_values(values), 2, which=which, adjoint_rtol=1e-13)

    fast: Any = {"fast_mode": True, "atol": 1e-5, "rtol": 1e-3}
    assert gradcheck(triplets, (A.values,), check_forward_ad=True, **fast)
    assert gradgradcheck(triplets, (A.values,), check_fwd_over_rev=True, **fast)
    values = A.values.detach()
    mapped = torch.vmap(lambda v: triplets(v)[1])(torch.stack([values, 2j * values]))
    torch.testing.assert_close(mapped[1], 2 * mapped[0])


@pytest.mark.parametrize("which", ["LM", "SM"])
def test_gradients_and_tangents_are_those_of_the_dense_matrix(which: Which):
    A = matrix((8, 6))
    weights = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=A.dtype)
    ours = slice(0, 2) if which == "LM" else slice(4, 6)

    def loss(U, S, Vh):
        """Of U Vh, whose phases cancel: `torch.linalg.svd` has no gradients of others."""
        return (S**3).sum() + (weights * (U @ Vh)).sum().abs() ** 2

    def by_ours(values):
        return loss(*svds(A.with_values(values), 2, which=which, adjoint_rtol=1e-13))

    def by_torch(values):
        U, S, Vh = torch.linalg.svd(dense(A.with_values(values)), full_matrices=False)
        return loss(U[:, ours], S[ours], Vh[ours])

    (want,) = torch.autograd.grad(by_torch(A.values), A.values)
    torch.testing.assert_close(torch.autograd.grad(by_ours(A.values), A.values), (want,))
    direction = torch.randn(A.nnz, generator=torch.Generator().manual_seed(1), dtype=A.dtype)
    _, got, *_ = torch.func.jvp(by_ours, (A.values.detach(),), (direction,))
    torch.testing.assert_close(got, torch.vdot(want, direction).real)


def test_the_nuclear_norm_has_its_known_gradient():
    A = random_csr(4, 6, density=1.1, seed=2, dtype=torch.complex128)
    U, S, Vh = svds(A, 4)
    S.sum().backward()
    assert A.values.grad is not None
    torch.testing.assert_close(A.values.grad, (U @ Vh).detach().flatten())


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"1 of the 3 largest singular values are zero .* try k=2"):
        svds(CSRTensor.diag(torch.tensor([1j, 2.0, 0.0, 0.0])), 3)
    with pytest.raises(TypeError, match=r"float64, complex64 or complex128, got torch.float16"):
        svds(CSRTensor.eye(4).to(torch.float16), 2)
