"""Fixed points of complex maps, holomorphic or not, and derivatives through them."""

from functools import partial
from typing import Any

import pytest
import torch
from random_matrices import dense, random_complex
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch.linalg import Status, fixed_point

SOLVERS = [{"solver": "anderson"}, {"solver": "picard"}, {"adjoint": "gmres"}]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=str)
every_map = pytest.mark.parametrize("holomorphic", [True, False])


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small operations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def contraction(holomorphic: bool):
    """A map of complex numbers, and its parameters: complex, complex and real."""
    A = random_complex(5, seed=1)
    b = torch.randn(5, dtype=torch.complex128, requires_grad=True)
    c = torch.rand(5, dtype=torch.float64, requires_grad=True)

    def f(z, values, b, c):
        y = A.with_values(values) @ (z if holomorphic else z.conj())
        return torch.tanh(y / 5) + b + c * (z if holomorphic else z.abs()) / 8

    return f, A.values, b, c


def by_newton(f, *params):
    """The fixed point by Newton steps on real and imaginary parts, which autograd records."""

    def g(y):
        return torch.view_as_real(f(torch.view_as_complex(y.view(-1, 2)), *params)).flatten()

    y = torch.zeros(10, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(100):
            y = g(y)
    for _ in range(4):  # each doubles the order of derivatives that is right
        J = torch.func.jacrev(g)(y)
        y = y + torch.linalg.solve(torch.eye(10).double() - J, g(y) - y)
    return torch.view_as_complex(y.view(-1, 2))


@every_solver
@every_map
def test_is_a_fixed_point(holomorphic, solver):
    f, *params = contraction(holomorphic)
    start = torch.zeros(5, dtype=torch.complex128)
    solution = fixed_point(f, start, *params, **solver, full_output=True)
    z = solution.x
    assert (f(z, *params) - z).norm() <= 1e-10 * z.norm()
    assert solution.residuals[-1] == pytest.approx(float((f(z, *params) - z).norm()))
    torch.testing.assert_close(z, by_newton(f, *params))


@pytest.mark.parametrize(
    ("holomorphic", "solver"),
    [(True, SOLVERS[0]), *((False, solver) for solver in SOLVERS)],
    ids=str,
)
def test_derivatives_of_first_and_second_order(holomorphic, solver):
    f, *params = contraction(holomorphic)

    def z(*params):
        return fixed_point(f, 0 * params[1], *params, **solver, rtol=1e-13)

    fast: Any = {"fast_mode": True, "atol": 1e-7}
    assert gradcheck(z, params, check_forward_ad=True, check_batched_grad=True, **fast)
    *others, c = params
    assert gradgradcheck(partial(z, *(p.detach() for p in others)), c, **fast)
    values, *others = params
    assert gradgradcheck(
        lambda values: z(values, *(p.detach() for p in others)),
        values,
        check_fwd_over_rev=True,
        **fast,
    )


@every_solver
@every_map
def test_transformations_by_value(holomorphic, solver):
    f, *params = contraction(holomorphic)
    values, b, c = (p.detach() for p in params)

    def energy(values):
        z = fixed_point(f, 0 * b, values, b, c, **solver, rtol=1e-13)
        return (z**3).real.sum() + z.abs().sum()

    def reference(values):
        z = by_newton(f, values, b, c)
        return (z**3).real.sum() + z.abs().sum()

    gradient = torch.func.grad(reference)(values)
    torch.testing.assert_close(torch.func.grad(energy)(values), gradient)
    tangent = torch.randn_like(values)
    derivative = torch.func.jvp(energy, (values,), (tangent,))[1]
    torch.testing.assert_close(derivative, torch.vdot(gradient, tangent).real)
    curvature, exact = (
        torch.func.jvp(torch.func.grad(g), (values,), (tangent,))[1] for g in (energy, reference)
    )
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(curvature, exact)
    mapped = torch.vmap(torch.func.grad(energy))(torch.stack([values, 1j * values]))
    torch.testing.assert_close(mapped[1], torch.func.grad(reference)(1j * values))


def test_the_linear_case_is_a_solve():
    A = random_complex(8, seed=2)
    b = torch.randn(8, 2, dtype=torch.complex128, requires_grad=True)
    z = fixed_point(lambda z, v, b: z + b - A.with_values(v) @ z, 0 * b, A.values, b, rtol=1e-13)
    expected = torch.linalg.solve(dense(A), b)
    torch.testing.assert_close(z, expected)
    weights = torch.randn_like(z)
    got = torch.autograd.grad(z, (A.values, b), weights)
    torch.testing.assert_close(got, torch.autograd.grad(expected, (A.values, b), weights))
    assert not any(g.is_conj() for g in got)  # NumPy would refuse them


def test_picard_converges_at_the_rate_of_the_jacobian():
    d = torch.tensor([0.9j, 0.3 + 0.1j]).to(torch.complex128)
    start = torch.zeros(2, dtype=d.dtype)
    solution = fixed_point(lambda z: d * z + 1, start, solver="picard", full_output=True)
    ratios = [b / a for a, b in zip(solution.residuals[20:30], solution.residuals[21:31])]
    assert ratios == pytest.approx([0.9] * 10, rel=1e-6)


def test_anderson_needs_no_contraction_where_the_map_conjugates():
    """z -> d conj(z) + 1 has eigenvalues +-|d| over the real numbers; Picard needs |d| < 1."""
    d = torch.tensor([2j, 2j, -3.0]).to(torch.complex128)
    start = torch.zeros(3, dtype=d.dtype)
    solution = fixed_point(lambda z: d * z.conj() + 1, start, rtol=1e-12, full_output=True)
    assert solution.converged
    assert solution.iterations <= 5
    torch.testing.assert_close(solution.x, (1 + d) / (1 - d.abs() ** 2))
    by_picard = fixed_point(lambda z: d * z.conj() + 1, start, solver="picard", full_output=True)
    assert by_picard.status is Status.DIVERGED


@every_solver
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float64, 1e-200),
        (torch.float64, 1e200),
        (torch.complex128, 1e-200),
        (torch.complex128, 1e200),
        (torch.float32, 1e-30),
        (torch.complex64, 1e30),
    ],
    ids=str,
)
def test_numbers_whose_squares_are_out_of_range(dtype, size, solver):
    """Residuals that underflow would be taken for zero; those that overflow, for divergence."""
    d = torch.tensor([0.5, -0.6, 0.1], dtype=dtype)
    b = torch.tensor([size, 2 * size, 0], dtype=dtype, requires_grad=True)
    calls = []
    z = fixed_point(
        lambda z, b: d * z + b, 0 * b, b, **solver, callback=lambda *call: calls.append(call[1])
    )
    exact = b.detach() / (1 - d)
    torch.testing.assert_close(z / size, exact / size)
    assert calls[0] == pytest.approx(5**0.5 * size, rel=1e-5)
    weights = torch.full_like(z, size)
    (gradient,) = torch.autograd.grad(z, b, weights)
    torch.testing.assert_close(gradient / size, weights / size / (1 - d))
