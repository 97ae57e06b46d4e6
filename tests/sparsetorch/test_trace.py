"""Stochastic estimates: exact where theory says so, within their errors elsewhere."""

import pytest
import torch
from random_matrices import dense, random_csr, random_square
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import (
    SolveError,
    Status,
    diagonal_estimate,
    logdet_estimate,
    solve,
    trace_estimate,
)


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small factorizations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_signs_are_exact_for_diagonal_matrices():
    d = torch.linspace(0.5, 3, 9).double().requires_grad_()
    A = CSRTensor.diag(d)
    trace, error = trace_estimate(A, 2, generator=seeded())
    torch.testing.assert_close(trace, d.sum())
    assert error <= 1e-14
    torch.testing.assert_close(diagonal_estimate(A, 1), d)
    logdet, _ = logdet_estimate(A, 2, generator=seeded(), rtol=1e-13)
    torch.testing.assert_close(logdet, d.log().sum())
    for estimate, exact in ((trace, torch.ones_like(d)), (logdet, 1 / d)):
        torch.testing.assert_close(torch.autograd.grad(estimate, d)[0], exact)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_the_mean_and_its_standard_error_are_right(method):
    A = random_csr(12, 12, seed=4).detach()
    estimates = [
        trace_estimate(A, 12, method=method, generator=seeded(seed)) for seed in range(400)
    ]
    values = torch.stack([e.value for e in estimates])
    errors = torch.stack([e.standard_error for e in estimates])
    spread = values.std()
    assert (values.mean() - dense(A).trace()).abs() <= 4 * spread / 400**0.5
    assert (errors.square().mean().sqrt() / spread - 1).abs() <= 0.2


def test_the_variance_is_hutchinsons():
    A = poisson(30, dtype=torch.float64)
    # 2 |A - diag(A)|_F^2 / n_samples for a symmetric A and random signs; here 2 * 58 / 10.
    error = torch.stack(
        [trace_estimate(A, 10, generator=seeded(s)).standard_error for s in range(300)]
    )
    assert float(error.square().mean()) == pytest.approx(2 * 58 / 10, rel=0.2)


def test_hutch_plus_plus_is_exact_for_a_low_rank():
    U = torch.randn(40, 3, generator=seeded()).double()
    estimate = trace_estimate(
        lambda X: U @ (U.T @ X), 12, method="hutch++", n=40, dtype=torch.float64, generator=seeded()
    )
    torch.testing.assert_close(estimate.value, U.square().sum())
    assert estimate.standard_error <= 1e-10


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_derivatives_of_a_trace(method):
    A = random_square(6, symmetric=True)
    with torch.no_grad():
        space = trace_estimate(A, 6, method=method, generator=seeded()).value

    def square(values):
        M = A.with_values(values)
        return trace_estimate(lambda X: M @ (M @ X), 6, n=6, dtype=M.dtype, generator=seeded())[0]

    assert space.isfinite()
    assert gradcheck(square, (A.values,), check_forward_ad=True)
    assert gradgradcheck(square, (A.values,))
    (gradient,) = torch.autograd.grad(
        trace_estimate(A, 600, method=method, generator=seeded()).value, A.values
    )
    expected = (A.pattern.row == A.pattern.col).double()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0.2)


def test_the_trace_of_an_inverse():
    A = random_square(10, symmetric=True).detach()
    Z = trace_estimate(lambda X: solve(A, X), 400, n=10, dtype=torch.float64, generator=seeded())
    assert (Z.value - dense(A).inverse().trace()).abs() <= 4 * Z.standard_error


def test_log_determinant_within_its_error():
    A = poisson(20, 20, dtype=torch.float64)
    estimate = logdet_estimate(A, 60, steps=60, generator=seeded())
    exact = torch.logdet(dense(A))
    assert (estimate.value - exact).abs() <= 4 * estimate.standard_error
    assert estimate.standard_error <= 0.02 * exact


def test_quadrature_is_exact_once_the_space_is_exhausted():
    # The sample for one z is z . log(A) z, and steps beyond the dimension change nothing.
    A = random_square(7, symmetric=True).detach()
    Z = (2 * torch.randint(0, 2, (7, 5), generator=seeded()) - 1).double()
    w, V = torch.linalg.eigh(dense(A))
    exact = (Z * (V * w.log() @ V.T @ Z)).sum(0).mean()
    for steps in (7, 50):
        got = logdet_estimate(A, 5, steps=steps, generator=seeded()).value
        torch.testing.assert_close(got, exact)


def test_forward_mode_within_forward_mode():
    A = random_square(7, symmetric=True).detach()

    def value(t):  # log det ((1 + t) A), of which derivatives are exact: z . z = n
        return logdet_estimate((1 + t) * A, 5, generator=seeded(), rtol=1e-13).value

    def slope(t):
        return torch.func.jvp(value, (t,), (torch.ones_like(t),))[1]

    t = torch.tensor(0.5, dtype=torch.float64)
    second = torch.func.jvp(slope, (t,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(second, torch.tensor(-7 / 1.5**2, dtype=torch.float64))


def test_gradients_of_a_log_determinant_are_those_of_the_probes():
    A = random_square(7, symmetric=True)
    Z = (2 * torch.randint(0, 2, (7, 5), generator=seeded()) - 1).double()

    def value(values):
        M = A.with_values(values)
        return logdet_estimate(M, 5, generator=seeded(), rtol=1e-13).value

    G = torch.linalg.solve(dense(A), Z) @ Z.T / 5
    expected = CSRTensor.from_dense((G + G.T) / 2, A.pattern).values.detach()
    (gradient,) = torch.autograd.grad(value(A.values), A.values)
    torch.testing.assert_close(gradient, expected)
    values = A.values.detach()
    tangent = torch.linspace(1, 2, len(values)).double()
    derivative = torch.func.jvp(value, (values,), (tangent,))[1]
    torch.testing.assert_close(derivative, (expected * tangent).sum())
    mapped = torch.vmap(torch.func.grad(value), randomness="same")(
        torch.stack([values, 2 * values])
    )
    torch.testing.assert_close(mapped[1], expected / 2)

    def gradient_norm(values):
        return torch.autograd.grad(value(values), values, create_graph=True)[0].square().sum()

    def expected_norm(values):
        D = dense(A.with_values(values))
        G = torch.linalg.solve(D, Z) @ Z.T / 5
        return CSRTensor.from_dense((G + G.T) / 2, A.pattern).values.square().sum()

    torch.testing.assert_close(
        torch.autograd.grad(gradient_norm(A.values), A.values)[0],
        torch.autograd.grad(expected_norm(A.values), A.values)[0],
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, r"n_samples: expected at least 1 random vector"),
        ({"n_samples": 2, "method": "hutch++"}, ValueError, r"n_samples: .* at least 3"),
        ({"method": "exact"}, ValueError, r"method: expected 'hutchinson' or 'hutch\+\+'"),
        ({"A": random_csr(3, 4)}, ValueError, r"A: expected one square matrix"),
        ({"A": lambda X: X}, ValueError, r"n: needed for a callable"),
        ({"A": lambda X: X[1:], "n": 3}, ValueError, r"A: expected torch.float32 of shape"),
        ({"A": 3}, TypeError, r"A: expected a CSRTensor or a callable, got int"),
        ({"n": 3}, ValueError, r"n, dtype, device: for a callable only"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        trace_estimate(**({"A": CSRTensor.eye(3)} | arguments))


def test_a_matrix_that_is_not_positive_definite_is_found_out():
    A = CSRTensor.diag(torch.tensor([1.0, -1.0, 2.0]).double())
    with pytest.raises(SolveError, match="indefinite") as info:
        logdet_estimate(A, generator=seeded())
    assert info.value.solution.status is Status.INDEFINITE
    with pytest.raises(TypeError, match="A: expected a CSRTensor"):
        logdet_estimate(torch.eye(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="steps: expected at least 1 step, got 0"):
        logdet_estimate(A, steps=0)


def test_no_rows():
    A = CSRTensor.eye(0)
    assert trace_estimate(A).value == 0
    assert logdet_estimate(A).value == 0
