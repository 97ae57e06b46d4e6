"""The generalized eigenproblem A v = w M v: SciPy and dense parity, derivatives of every kind."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg as sl
import torch
from random_matrices import dense, random_csr, random_square
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, diags, poisson
from sparsetorch.linalg import eigsh

WAYS: list[dict[str, Any]] = [
    {"which": "LA"},
    {"which": "SM"},
    {"which": "BE"},
    {"sigma": 0.9},
    {"sigma": 0.0, "which": "LA"},
]
every_way = pytest.mark.parametrize("options", WAYS, ids=str)


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small operations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pencil(n: int = 8) -> tuple[CSRTensor, CSRTensor]:
    """A definite pencil of two patterns, of eigenvalues on both sides of zero."""
    A, M = (random_square(n, seed=seed, symmetric=True) for seed in (3, 5))
    shift = torch.linspace(-1.5, 0.5, n, dtype=torch.float64)
    A = A.add_diagonal(shift).detach().requires_grad_()
    assert A.pattern is not M.pattern
    return A, M


def by_torch(A: torch.Tensor, M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All eigenpairs, differentiably: with M = L L^T, those of L^-1 A L^-T."""
    A, M = (A + A.mT) / 2, (M + M.mT) / 2
    inverse = torch.linalg.inv(torch.linalg.cholesky(M))
    w, Q = torch.linalg.eigh(inverse @ A @ inverse.mT)
    V = inverse.mT @ Q
    return w, V * V.detach().gather(0, V.detach().abs().argmax(0, keepdim=True)).sign()


@every_way
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_pairs_are_those_of_scipy(options, dtype):
    A, M = (B.detach().to(dtype) for B in pencil(12))
    w, V = eigsh(A, 4, M=M, **options)
    rounding = 1e-4 if dtype == torch.float32 else 1e-10
    S, T = A.to_scipy().astype(float), M.to_scipy().astype(float)
    by_scipy = sl.eigsh(S, 4, M=T, return_eigenvectors=False, **options)
    torch.testing.assert_close(
        w.double(), torch.from_numpy(np.sort(by_scipy)), rtol=0, atol=rounding
    )
    torch.testing.assert_close(A @ V, (M @ V) * w, rtol=0, atol=rounding)
    torch.testing.assert_close(V.T @ (M @ V), torch.eye(4, dtype=dtype), rtol=0, atol=rounding)
    assert bool((V.gather(0, V.abs().argmax(0, keepdim=True)) > 0).all())
    torch.testing.assert_close(eigsh(A, 4, M=M, return_eigenvectors=False, **options), w)


@pytest.mark.parametrize(("n", "dtype"), [(30, torch.float32), (60, torch.float64)])
def test_the_closest_to_zero_of_an_indefinite_pencil(n, dtype):
    """sigma=0 misses none of them; ARPACK's "SM" does here, and finds one farther out instead."""
    A, M = (B.detach() for B in pencil(n))
    exact = torch.from_numpy(scipy.linalg.eigh(dense(A), dense(M), eigvals_only=True))
    closest = exact[exact.abs().argsort()[:4]].sort().values
    A, M = A.to(dtype), M.to(dtype)
    rounding = 1e-6 if dtype == torch.float32 else 1e-12
    w, V = eigsh(A, 4, M=M, sigma=0.0)
    torch.testing.assert_close(w.double(), closest, rtol=0, atol=rounding)
    either: list[dict[str, Any]] = [{"sigma": 0.0}, {"which": "SM"}]
    for options in either:  # what is found are eigenpairs
        w, V = eigsh(A, 4, M=M, **options)
        torch.testing.assert_close(A @ V, (M @ V) * w, rtol=0, atol=rounding)


def test_a_zero_matrix():
    M = pencil()[1].detach()
    w, V = eigsh(M * 0, 2, M=M)
    assert w.tolist() == [0, 0]
    torch.testing.assert_close(V.T @ (M @ V), torch.eye(2).double())


def test_vibrations_of_a_string_by_finite_elements():
    """Linear elements on n + 1 intervals: w_j = (6 / h^2) (1 - cos t) / (2 + cos t), t = j pi h."""
    n = 100
    h = 1 / (n + 1)
    stiffness = poisson(n, dtype=torch.float64) / h
    mass = diags([h / 6, 4 * h / 6, h / 6], [-1, 0, 1], (n, n), dtype=torch.float64)
    t = torch.arange(1.0, 5.0).double() * torch.pi * h
    exact = 6 / h**2 * (1 - t.cos()) / (2 + t.cos())
    w, _ = eigsh(stiffness, 4, M=mass, sigma=0.0)
    torch.testing.assert_close(w, exact, rtol=1e-9, atol=0)
    lumped = CSRTensor.diag(torch.full((n,), h).double())
    exact = 2 / h**2 * (1 - t.cos())
    torch.testing.assert_close(eigsh(stiffness, 4, M=lumped, sigma=0.0)[0], exact)


@every_way
def test_derivatives_of_first_and_second_order(options):
    A, M = pencil()

    def pairs(a, m):
        return eigsh(A.with_values(a), 3, M=M.with_values(m), adjoint_rtol=1e-13, **options)

    def symmetrized(a, m):
        A_, M_ = (B.with_values(v) for B, v in ((A, a), (M, m)))
        return eigsh((A_ + A_.T) / 2, 3, M=(M_ + M_.T) / 2, adjoint_rtol=1e-13, **options)

    fast = {"fast_mode": True, "atol": 1e-6}
    inputs = (A.values, M.values)
    assert gradcheck(symmetrized, inputs, check_forward_ad=True, check_batched_grad=True, **fast)
    assert gradgradcheck(symmetrized, inputs, check_fwd_over_rev=True, **fast)
    for g in torch.autograd.grad(pairs(*inputs)[1].pow(3).sum(), inputs):
        B = A if g.shape == A.values.shape else M
        torch.testing.assert_close(B.with_values(g).T.values, g)


def test_gradients_are_those_of_the_dense_pencil():
    A, M = pencil()
    weights = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()

    def loss(w, V):
        return (w**3).sum() + (weights * V).sum() ** 2

    w, V = by_torch(dense(A), dense(M))
    inputs = (A.values, M.values)
    want = torch.autograd.grad(loss(w[-3:], V[:, -3:]), inputs)
    torch.testing.assert_close(
        torch.autograd.grad(loss(*eigsh(A, 3, M=M, which="LA")), inputs), want
    )
    by_scipy = scipy.linalg.eigh(dense(A).detach().numpy(), dense(M).detach().numpy())[0]
    torch.testing.assert_close(w.detach(), torch.from_numpy(by_scipy))


def test_transformations_by_value():
    A, M = (B.detach() for B in pencil())

    def energy(a, m):
        w, V = eigsh(A.with_values(a), 2, M=M.with_values(m), which="SA", adjoint_rtol=1e-13)
        return (w[..., 0] * V[:, 1] ** 3).sum()

    def reference(a, m):
        w, V = by_torch(dense(A.with_values(a)), dense(M.with_values(m)))
        return (w[0] * V[:, 1] ** 3).sum()

    inputs = (A.values, M.values)
    tangents = tuple(B.with_values(torch.randn_like(B.values)) for B in (A, M))
    moved = tuple((B + B.T).values for B in tangents)
    torch.testing.assert_close(
        torch.func.jvp(energy, inputs, moved)[1], torch.func.jvp(reference, inputs, moved)[1]
    )
    (got,) = torch.func.grad(energy, (1,))(*inputs)
    torch.testing.assert_close(got, torch.func.grad(reference, 1)(*inputs))
    mapped = torch.vmap(torch.func.grad(energy), (None, 0))(
        inputs[0], torch.stack([inputs[1], 2 * inputs[1]])
    )
    torch.testing.assert_close(mapped[1], torch.func.grad(reference)(inputs[0], 2 * inputs[1]))


def test_the_projector_on_equal_eigenvalues_has_a_gradient_and_a_tangent():
    A = poisson(5, 5, dtype=torch.float64).requires_grad_()  # w_2 = w_3
    M = CSRTensor.eye(25, dtype=torch.float64).requires_grad_()
    weights = torch.randn(25, 25, generator=torch.Generator().manual_seed(0)).double()

    def by_ours(a, m):
        _, V = eigsh(A.with_values(a), 3, M=M.with_values(m), sigma=0.0, adjoint_rtol=1e-13)
        return (weights * (V @ V.mT)).sum()

    inputs = (A.values, M.values)
    got = torch.autograd.grad(by_ours(*inputs), inputs)
    step = 1e-5
    for i, g in enumerate(got):
        d = torch.randn(g.shape, generator=torch.Generator().manual_seed(i)).double()
        B = (A, M)[i]
        d = (B.with_values(d) + B.with_values(d).T).values
        moved = [[v + s * d if j == i else v for j, v in enumerate(inputs)] for s in (step, -step)]
        difference = (by_ours(*moved[0]) - by_ours(*moved[1])) / (2 * step)
        torch.testing.assert_close((g * d).sum(), difference.detach(), rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="undefined where eigenvalues are equal"):
        (eigsh(A, 3, M=M, sigma=0.0)[1] * weights[:, :3]).sum().backward()


EYE = CSRTensor.eye(6, dtype=torch.float64)


@pytest.mark.parametrize(
    ("M", "error", "message"),
    [
        (torch.eye(6), TypeError, r"M: expected a CSRTensor, got Tensor"),
        (CSRTensor.eye(5, dtype=torch.float64), ValueError, r"M: expected shape \(6, 6\) like A"),
        (CSRTensor.eye(6), TypeError, r"M: expected torch.float64 like A, got torch.float32"),
        (EYE.to("meta"), ValueError, r"M: is factorized, on the CPU, got meta"),
        (-1 * EYE, ValueError, r"M: expected a positive definite matrix, but .* column 0 is -1"),
        (random_csr(6, 6).detach(), ValueError, r"M: expected a symmetric matrix"),
        (EYE * float("nan"), ValueError, r"M.values: expected finite numbers"),
    ],
)
def test_bad_masses_are_named(M, error, message):
    with pytest.raises(error, match=message):
        eigsh(poisson(6, dtype=torch.float64), 2, M=M)
