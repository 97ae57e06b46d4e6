"""Fixed points of maps with sparse matrices, and derivatives of every kind through them."""

import pytest
import torch
from random_matrices import dense, random_square
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, Status, fixed_point

SOLVERS = [{"solver": "anderson"}, {"solver": "picard"}, {"adjoint": "gmres"}]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=str)


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


def contraction():
    """f(z) = tanh(A z / 2) + b, and its parameters."""
    A = random_square(5, seed=1)
    b = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def f(z, values, b):
        return torch.tanh(A.with_values(values) @ z / 2) + b

    return f, A, b


def by_newton(f, z, *params):
    """The fixed point to machine precision by dense Newton steps that autograd records."""
    with torch.no_grad():
        for _ in range(50):
            z = f(z, *params)
    for _ in range(4):  # each doubles the order of derivatives that is right
        J = torch.func.jacrev(f)(z, *params)
        z = z + torch.linalg.solve(torch.eye(len(z)).to(z) - J, f(z, *params) - z)
    return z


@every_solver
def test_is_a_fixed_point(solver):
    f, A, b = contraction()
    solution = fixed_point(f, torch.zeros_like(b), A.values, b, **solver, full_output=True)
    assert solution.converged
    z = solution.x
    assert (f(z, A.values, b) - z).norm() <= 1e-10 * z.norm()
    assert len(solution.residuals) == solution.iterations + 1
    torch.testing.assert_close(z, by_newton(f, torch.zeros_like(b), A.values, b))


@every_solver
def test_derivatives_of_first_and_second_order(solver):
    f, A, b = contraction()

    def z(values, b):
        return fixed_point(f, torch.zeros_like(b), values, b, **solver, rtol=1e-13)

    fast = {"fast_mode": True, "atol": 1e-7}
    inputs = (A.values, b)
    assert gradcheck(z, inputs, check_forward_ad=True, check_batched_grad=True, **fast)
    assert gradgradcheck(z, inputs, check_fwd_over_rev=True, **fast)


@every_solver
def test_transformations_by_value(solver):
    f, A, b = contraction()
    values, b = A.values.detach(), b.detach()

    def energy(values):
        return fixed_point(f, 0 * b, values, b, **solver, rtol=1e-13).pow(3).sum()

    def reference(values):
        return by_newton(f, 0 * b, values, b).pow(3).sum()

    gradient = torch.func.grad(reference)(values)
    torch.testing.assert_close(torch.func.grad(energy)(values), gradient)
    tangent = torch.randn_like(values)
    derivative = torch.func.jvp(energy, (values,), (tangent,))[1]
    torch.testing.assert_close(derivative, gradient @ tangent)
    hessian = torch.func.hessian(energy)(values)
    assert hessian.abs().max() > 1e-3
    torch.testing.assert_close(hessian, torch.func.hessian(reference)(values))
    mapped = torch.vmap(torch.func.grad(energy))(torch.stack([values, values / 2]))
    torch.testing.assert_close(mapped[1], torch.func.grad(reference)(values / 2))


def test_the_linear_case_is_a_solve():
    A = random_square(8, seed=2)
    b = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    z = fixed_point(lambda z, v, b: z + b - A.with_values(v) @ z, 0 * b, A.values, b, rtol=1e-13)
    expected = torch.linalg.solve(dense(A), b)
    torch.testing.assert_close(z, expected)
    weights = torch.randn_like(z)
    for got, exact in zip(
        torch.autograd.grad(z, (A.values, b), weights),
        torch.autograd.grad(expected, (A.values, b), weights),
    ):
        torch.testing.assert_close(got, exact)


def test_picard_converges_at_the_rate_of_the_jacobian():
    d = torch.tensor([0.9, 0.3]).double()
    solution = fixed_point(
        lambda z: d * z + 1, torch.zeros(2).double(), solver="picard", full_output=True
    )
    ratios = [b / a for a, b in zip(solution.residuals[20:30], solution.residuals[21:31])]
    assert ratios == pytest.approx([0.9] * 10, rel=1e-6)


def test_anderson_finishes_a_linear_map_in_as_many_steps_as_eigenvalues():
    # It is GMRES there (Walker and Ni 2011), and needs no contraction: one eigenvalue is -3.
    d = torch.tensor([0.5, 0.5, -3.0, 0.9, 0.9]).double()
    solution = fixed_point(
        lambda z: d * z + 1, torch.zeros(5).double(), rtol=1e-12, full_output=True
    )
    assert solution.converged
    assert solution.iterations <= 5
    torch.testing.assert_close(solution.x, 1 / (1 - d))


def test_an_adjoint_by_gmres_takes_as_many_steps_as_eigenvalues():
    d = torch.tensor([-3.0, -3, 0.5, 0.5, 7, 7]).double()
    b = torch.ones(6).double().requires_grad_()
    at_once = (b / (1 - d)).detach()  # so that the forward iteration takes no step

    def z(**options):
        return fixed_point(lambda z, b: d * z + b, at_once, b, maxiter=3, **options)

    (gradient,) = torch.autograd.grad(z(adjoint="gmres").sum(), b)
    torch.testing.assert_close(gradient, 1 / (1 - d))
    with pytest.raises(SolveError, match="fixed point by picard"):
        z(solver="picard").sum().backward()
    with pytest.raises(SolveError, match="maxiter after 1 iterations"):
        fixed_point(lambda z, b: d * z + b, at_once, b, maxiter=1, adjoint="gmres").sum().backward()


def test_a_fixed_point_of_any_shape_and_a_gradient_of_zero_by_gmres():
    b = torch.randn(2, 3).double().requires_grad_()
    z = fixed_point(lambda z, b: z.flip(0) / 4 + b, torch.zeros(2, 3).double(), b, adjoint="gmres")
    weights = torch.randn(2, 3).double()
    (gradient,) = torch.autograd.grad(z, b, weights, retain_graph=True)
    torch.testing.assert_close(gradient - gradient.flip(0) / 4, weights)
    (gradient,) = torch.autograd.grad(0 * z.sum(), b)
    assert gradient.abs().max() == 0


def test_a_module_brings_its_parameters():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4, dtype=torch.float64)

        def forward(self, z, x):
            return torch.tanh(self.linear(z) / 2) + x

    layer, x = Layer(), torch.randn(4, dtype=torch.float64, requires_grad=True)
    z = fixed_point(layer, torch.zeros(4).double(), x, rtol=1e-13)
    z.pow(2).sum().backward()
    recorded = torch.zeros(4).double()
    copy = x.detach().clone().requires_grad_()
    for _ in range(200):
        recorded = layer(recorded, copy)
    weight = layer.linear.weight
    exact = torch.autograd.grad(recorded.pow(2).sum(), (copy, weight))
    assert x.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(x.grad, exact[0])
    torch.testing.assert_close(weight.grad, exact[1])


def test_a_hidden_tensor_with_a_gradient_is_refused():
    b = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="f: reads a tensor that requires a gradient"):
        fixed_point(lambda z: z / 2 + b, torch.zeros(3))
    with pytest.raises(ValueError, match="f: reads a tensor that requires a gradient"):
        torch.func.grad(lambda b: fixed_point(lambda z: z / 2 + b, torch.zeros(3)).sum())(b)
    assert fixed_point(lambda z: z / 2 + b.detach(), torch.zeros(3)).sum() == pytest.approx(6)


def test_an_adjoint_that_does_not_converge_raises():
    # numml returns a gradient of zeros here. The forward starts at the solution, the adjoint not.
    theta = torch.tensor(1.0, requires_grad=True).double()
    z = fixed_point(
        lambda z, theta: theta + 2 * (z - theta),
        torch.ones(1).double(),
        theta,
        solver="picard",
        maxiter=20,
    )
    assert z == 1
    with pytest.raises(SolveError, match="maxiter after 20 iterations"):
        z.sum().backward()


def test_a_known_failure_for_each_status():
    zeros = torch.zeros(3).double()
    slow = fixed_point(lambda z: 0.99 * z + 1, zeros, solver="picard", maxiter=5, full_output=True)
    assert (slow.status, slow.iterations) == (Status.MAXITER, 5)
    fast = fixed_point(lambda z: 3 * z + 1, zeros, solver="picard", full_output=True)
    assert fast.status is Status.DIVERGED
    nan = fixed_point(lambda z: z.log(), zeros - 1, full_output=True)
    assert nan.status is Status.DIVERGED
    with pytest.raises(SolveError, match=r"diverged after .*fixed point by picard"):
        fixed_point(lambda z: 3 * z + 1, zeros, solver="picard")
    assert fixed_point(lambda z: z / 2, zeros + 1, atol=1e-3).norm() <= 2e-3


def test_batches_without_members_and_callbacks():
    mapped = torch.vmap(lambda b: fixed_point(lambda z, b: z / 2 + b, torch.zeros(3), b))
    assert mapped(torch.ones(0, 3)).shape == (0, 3)
    torch.testing.assert_close(mapped(torch.ones(2, 3)), 2 * torch.ones(2, 3))
    calls = []
    z = fixed_point(
        lambda z: z / 2 + 1, torch.zeros(3), callback=lambda *record: calls.append(record)
    )
    assert [iteration for iteration, _ in calls] == list(range(len(calls)))
    assert z.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, torch.zeros(2)), {}, TypeError, r"f: expected a callable"),
        ((lambda z: z, [1.0]), {}, TypeError, r"z0: expected a tensor of float32, "),
        ((lambda z: z, torch.zeros(2, dtype=torch.int32)), {}, TypeError, r"z0: .*torch.int32"),
        ((lambda z: z[1:], torch.zeros(2)), {}, ValueError, r"f: .*shape \(2,\).*got .*\(1,\)"),
        ((lambda z: 3, torch.zeros(2)), {}, ValueError, r"f: expected .* got int"),
        (
            (lambda z, A: A @ z, torch.zeros(2), CSRTensor.eye(2)),
            {},
            TypeError,
            r"params: expected tensors, got CSRTensor .* pass A.values",
        ),
        ((lambda z: z, torch.zeros(2)), {"solver": "newton"}, ValueError, r"solver: expected"),
        (
            (lambda z: z, torch.zeros(2)),
            {"adjoint": "cg"},
            ValueError,
            r"adjoint: expected 'gmres'",
        ),
        (
            (lambda z: z, torch.zeros(2)),
            {"window": 0},
            ValueError,
            r"window: expected at least 1 iterate, got 0",
        ),
        ((lambda z: z, torch.zeros(2)), {"rtol": -1.0}, ValueError, r"rtol: expected"),
    ],
)
def test_bad_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        fixed_point(*arguments, **options)
