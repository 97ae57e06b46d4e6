"""The losses against dense computations."""

import pytest
import torch
from dense_elements import helmholtz
from small_problems import delaunay, random_interface, random_matrix, small_setup

from ddm.losses import (
    coarse_energy,
    is_rounding,
    krylov_reduction,
    random_vectors,
    stochastic_norm,
)
from ddm.partition import decompose, partition
from ddm.problems import poisson
from ddm.schwarz import Schwarz
from ddm.setup import set_up
from sparsetorch import CSRTensor
from sparsetorch.linalg import fgmres


def dense_propagator(setup, interface, P):
    """T as a matrix, from its definition."""
    A = setup.A.to_dense()
    d, n = setup.decomposition, setup.A.shape[0]
    L = torch.zeros(len(d.node), len(d.node), dtype=A.dtype)
    rows, cols = d.block_row[d.interface], d.block_col[d.interface]
    L = L.index_put((torch.as_tensor(rows), torch.as_tensor(cols)), interface)
    M = torch.zeros_like(A)
    for part in range(d.n_subdomains):
        members = torch.as_tensor((d.subdomain == part).nonzero()[0])
        nodes = torch.as_tensor(d.node)[members]
        R = torch.eye(n, dtype=A.dtype)[nodes]
        keep = torch.as_tensor(d.own)[members].to(A.dtype)
        local = R @ A @ R.T + L[members][:, members]
        M = M + (R * keep[:, None]).T @ torch.linalg.inv(local) @ R
    eye = torch.eye(n, dtype=A.dtype)
    Q = P.to_dense()
    coarse = Q @ torch.linalg.inv(Q.T @ A @ Q) @ Q.T
    return (eye - coarse @ A) @ (eye - M @ A)


@pytest.mark.parametrize(("warmup", "sharpness"), [(0, 1.0), (2, 5.0)])
def test_stochastic_norm_is_the_dense_one(warmup, sharpness):
    setup = small_setup(8, 4)
    interface = random_interface(setup).requires_grad_()
    values = setup.P.values.clone().requires_grad_()
    start = random_matrix(setup.A.shape[0], 3)

    P = setup.P.with_values(values)
    method = Schwarz(setup.A, setup.decomposition, interface=interface, P=P, local=setup.local)
    loss = stochastic_norm(method.propagate, start, steps=4, warmup=warmup, sharpness=sharpness)
    T = dense_propagator(setup, interface, P)
    e = torch.linalg.matrix_power(T, warmup).detach() @ start
    if warmup:
        e = e / e.norm(dim=0)
    z = torch.stack(
        [(torch.linalg.matrix_power(T, k) @ e).norm(dim=0).max() ** (1 / k) for k in range(1, 5)]
    )
    expected = torch.softmax(sharpness * z, 0) @ z
    torch.testing.assert_close(loss, expected)
    for got, want in zip(
        torch.autograd.grad(loss, (interface, values)),
        torch.autograd.grad(expected, (interface, values)),
    ):
        torch.testing.assert_close(got, want)


def dense_reduction(operator, vectors, steps):
    """The same from powers of the preconditioned matrix and least squares."""
    logs = []
    for b in vectors.T:
        powers = [b]
        for _ in range(steps - 1):
            powers.append(operator @ powers[-1])
            powers[-1] = powers[-1] / powers[-1].norm()
        images = operator @ torch.stack(powers, 1)
        y = torch.linalg.lstsq(images, b[:, None]).solution
        logs.append((b - (images @ y)[:, 0]).norm().log())
    return (torch.stack(logs).mean() / steps).exp()


@pytest.mark.parametrize("steps", [1, 4])
def test_krylov_reduction_is_the_residual_of_gmres(steps):
    setup = small_setup(8, 4)
    method = setup.classical(0.5)
    b = random_vectors(setup.A.shape[0], 3, dtype=torch.float64)
    found = krylov_reduction(setup.A, method.apply, b, steps=steps)
    M = method.apply(torch.eye(len(b), dtype=torch.float64))
    torch.testing.assert_close(found, dense_reduction(setup.A.to_dense() @ M, b, steps))
    residuals = [
        fgmres(setup.A, column, preconditioner=method, rtol=0.0, maxiter=steps).residuals[-1]
        for column in b.T
    ]
    mean = torch.tensor(residuals, dtype=torch.float64).log().mean() / steps
    torch.testing.assert_close(found.log(), mean, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("side", "subdomains", "overlap"), [(24, 2, 2), (40, 100, 1)])
def test_a_reduction_that_is_rounding_is_told(side, subdomains, overlap):
    """In float32, of a fast method and a slow one, beside float64."""
    problem = poisson(delaunay(side))
    setup = set_up(problem, partition(problem.A, subdomains), overlap=overlap, smoothing=0)
    generator = torch.Generator().manual_seed(0)
    b = random_vectors(setup.A.shape[0], 3, generator=generator, dtype=torch.float64)

    def found(dtype: torch.dtype) -> torch.Tensor:
        own = setup.in_precision(dtype)
        return krylov_reduction(own.A, own.classical().apply, b.to(dtype), steps=8)

    exact, rounded = found(torch.float64), found(torch.float32)
    right = abs(float(rounded) / float(exact) - 1) < 0.01
    assert right == (subdomains == 100)
    assert is_rounding(rounded) == (not right)
    assert not is_rounding(exact)


def test_krylov_reduction_of_a_complex_matrix_is_the_residual_of_gmres():
    A, d = complex_parts()
    method = Schwarz(A, d)
    b = random_vectors(d.n, 3, dtype=A.dtype)
    found = krylov_reduction(A, method.apply, b, steps=4)
    residuals = [
        fgmres(A, column, preconditioner=method, rtol=0.0, maxiter=4).residuals[-1]
        for column in b.T
    ]
    mean = torch.tensor(residuals, dtype=torch.float64).log().mean() / 4
    torch.testing.assert_close(found.log(), mean, rtol=1e-6, atol=1e-8)
    assert 0 < float(found) < 0.9


def complex_parts():
    problem = helmholtz(8)
    d = decompose(problem.A, partition(problem.A, 4))
    return CSRTensor.from_scipy(problem.A), d


def test_krylov_reduction_has_the_derivatives_of_the_dense_one():
    A = small_setup(6, 3).A
    n = A.shape[0]
    b = random_vectors(n, 2, dtype=torch.float64)
    M = (torch.diag(1 / A.diagonal()) + 0.02 * random_matrix(n, n)).requires_grad_()

    def loss(M):
        return krylov_reduction(A, lambda r: M @ r, b, steps=3)

    assert torch.autograd.gradcheck(loss, M)
    values = A.values.clone().requires_grad_()
    matrix = CSRTensor(A.pattern, values)
    (got,) = torch.autograd.grad(krylov_reduction(matrix, lambda r: M @ r, b, steps=3), values)
    expected = dense_reduction(matrix.to_dense() @ M, b, 3)
    torch.testing.assert_close(got, torch.autograd.grad(expected, values)[0], rtol=1e-6, atol=1e-9)


def test_coarse_energy_is_the_quotient_of_the_traces():
    setup = small_setup(8, 4)
    A, P0 = setup.A, setup.P
    values = (P0.values + 0.1 * torch.rand_like(P0.values)).requires_grad_()
    P = P0.with_values(values)
    energy = coarse_energy(A, P, P0)
    traces = [(Q.to_dense().T @ A.to_dense() @ Q.to_dense()).trace() for Q in (P, P0)]
    torch.testing.assert_close(energy, traces[0] / traces[1])
    assert torch.autograd.gradcheck(lambda v: coarse_energy(A, P0.with_values(v), P0), values)


def test_random_vectors():
    normal = random_vectors(50, 4, generator=torch.Generator().manual_seed(0))
    uniform = random_vectors(50, 4, kind="uniform")
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(4))
    torch.testing.assert_close(uniform.norm(dim=0), torch.ones(4))
    assert (uniform >= 0).all()
    assert (normal < 0).any()
    with pytest.raises(ValueError, match="kind: expected 'normal' or 'uniform', got 'box'"):
        random_vectors(5, 1, kind="box")


def test_an_exact_method_leaves_no_residual():
    """The Krylov space is spent after one step, and its further vectors are zero."""
    A = CSRTensor.from_dense(torch.diag(torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64)))
    b = random_matrix(3, 2)
    exact = krylov_reduction(A, lambda r: r / A.diagonal()[:, None], b, steps=2)
    assert float(exact) < 1e-7
