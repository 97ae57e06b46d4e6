"""The differentiable solve: one table of solvers, and every property for each of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from random_matrices import dense, random_csr, random_square
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparsetorch.linalg.solvers
from sparsetorch import CSRTensor
from sparsetorch.linalg import Solution, SolveError, Status, factorized, solve
from sparsetorch.linalg.methods import DIRECT
from sparsetorch.linalg.solve import METHODS, Method
from sparsetorch.precond import Jacobi


class Solver(NamedTuple):
    """A way to call `solve`; whether it needs a symmetric matrix, and takes an indefinite one."""

    name: str
    method: Method
    settings: Callable[[CSRTensor], dict[str, Any]] = lambda A: {}
    symmetric: bool = False
    indefinite: bool = False

    def options(self, A: CSRTensor, rtol: float = 1e-13) -> dict[str, Any]:
        tolerance = {} if self.method in DIRECT else {"rtol": rtol}
        return {"method": self.method, **self.settings(A.detach()), **tolerance}


def nearby_inverse(A: CSRTensor) -> Any:
    """A nonsymmetric preconditioner with a transpose: the inverse of another matrix."""
    return factorized(A + CSRTensor.diag(torch.linspace(0.1, 0.5, A.shape[0], dtype=A.dtype)))


SOLVERS = [
    Solver("direct", "direct"),
    Solver("direct, of a symmetric matrix", "direct", symmetric=True),
    Solver("cholesky", "cholesky", symmetric=True),
    Solver("ldlt", "ldlt", symmetric=True, indefinite=True),
    Solver("cg", "cg", symmetric=True),
    Solver("cg with Jacobi", "cg", lambda A: {"preconditioner": Jacobi(A)}, symmetric=True),
    Solver("block cg", "block_cg", symmetric=True),
    Solver("minres", "minres", symmetric=True, indefinite=True),
    Solver("minres with Jacobi", "minres", lambda A: {"preconditioner": Jacobi(A)}, symmetric=True),
    Solver("chebyshev", "chebyshev", symmetric=True),
    Solver(
        "chebyshev with bounds and Jacobi",
        "chebyshev",
        lambda A: {"preconditioner": Jacobi(A), "bounds": (0.3, 5.2)},
        symmetric=True,
    ),
    Solver("bicgstab", "bicgstab"),
    Solver(
        "bicgstab with a transposable preconditioner",
        "bicgstab",
        lambda A: {"preconditioner": nearby_inverse(A)},
    ),
    Solver("gmres", "gmres"),
    Solver("restarted gmres", "gmres", lambda A: {"restart": 4}),
    Solver(
        "gmres with a transposable preconditioner",
        "gmres",
        lambda A: {"preconditioner": nearby_inverse(A)},
    ),
    Solver("fgmres", "fgmres"),
    Solver(
        "fgmres with a nonlinear preconditioner",
        "fgmres",
        lambda A: {"preconditioner": lambda r: r + 0.1 * torch.tanh(r)},
    ),
    Solver(
        "fgmres with preconditioners for both directions",
        "fgmres",
        lambda A: {"preconditioner": 0.5 * A, "preconditioner_T": lambda r: 0.5 * A.rmatvec(r)},
    ),
]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
every_shape = pytest.mark.parametrize("columns", [(), (2,)], ids=["vector", "block"])


class System(NamedTuple):
    """A matrix, a right-hand side, and x as a function of both."""

    A: CSRTensor
    b: Tensor
    x: Callable[[Tensor, Tensor], Tensor]


def system(solver: Solver, columns: tuple[int, ...] = (), n: int = 6) -> System:
    A = random_square(n, seed=3, symmetric=solver.symmetric)
    if solver.indefinite:
        signs = torch.ones(n, dtype=A.dtype)
        signs[::2] = -1
        A = A.with_diagonal(signs * A.diagonal()).detach().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(n, *columns, generator=generator, dtype=torch.float64, requires_grad=True)
    options = solver.options(A)

    def solution(values: Tensor, b: Tensor) -> Tensor:
        M = A.with_values(values)
        if solver.symmetric:  # a perturbation of single entries would leave the method's domain
            M = (M + M.T) / 2
        return solve(M, b, **options)

    return System(A, b, solution)


@every_solver
@every_shape
def test_residual(solver, columns):
    A, b, x = system(solver, columns, n=40)
    solution = solve(A, b, **solver.options(A), full_output=True)
    assert isinstance(solution, Solution)
    assert solution.converged
    residual = (b - dense(A) @ solution.x).detach().norm()
    assert residual <= 1e-12 * b.detach().norm()
    assert len(solution.residuals) == solution.iterations + 1
    assert solution.residuals[-1] <= 1e-12 * b.detach().norm()
    torch.testing.assert_close(x(A.values, b), torch.linalg.solve(dense(A), b))


@every_solver
@every_shape
def test_gradients_match_the_dense_solve(solver, columns):
    A, b, x = system(solver, columns, n=20)
    weights = torch.randn(b.shape, generator=torch.Generator().manual_seed(1), dtype=b.dtype)

    def dense_solution(values, b):
        D = dense(A.with_values(values))
        return torch.linalg.solve((D + D.T) / 2 if solver.symmetric else D, b)

    got = torch.autograd.grad((x(A.values, b) * weights).sum(), (A.values, b))
    expected = torch.autograd.grad((dense_solution(A.values, b) * weights).sum(), (A.values, b))
    for name, g, e in zip(("A", "b"), got, expected):
        torch.testing.assert_close(g, e, msg=lambda m, n=name: f"{n}: {m}")


@every_solver
@every_shape
def test_the_solution_may_be_changed_in_place(solver, columns):
    A, b, x = system(solver, columns, n=20)
    shifted = x(A.values, b).sub_(1)
    torch.testing.assert_close(shifted, x(A.values, b) - 1)


@every_solver
@every_shape
def test_derivatives_of_first_and_second_order(solver, columns):
    A, b, x = system(solver, columns)
    options = {"fast_mode": True, "atol": 1e-7}
    assert gradcheck(x, (A.values, b), check_forward_ad=True, **options)
    # torch-sla's second derivative of a solve is silently wrong; numml's silently absent.
    assert gradgradcheck(x, (A.values, b), check_fwd_over_rev=True, **options)


@every_solver
@every_shape
def test_forward_mode_within_forward_mode(solver, columns):
    """PyTorch's own dense solve gets this wrong, so the reference is reverse over reverse mode."""
    A, b, x = system(solver, columns)
    values, right = A.values.detach(), b.detach()

    def function(t):
        return x(values + t * values.cos(), right + t * right.sin()).sin().sum()

    def slope(t):
        return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(function(t), t, create_graph=True)
    (second,) = torch.autograd.grad(first, t)
    torch.testing.assert_close(torch.func.jacfwd(slope)(t.detach()), second, rtol=1e-6, atol=1e-8)


@every_solver
def test_jvp_by_value(solver):
    A, b, x = system(solver)
    A, b = A.detach(), b.detach()
    dA, db = torch.randn_like(A.values), torch.randn_like(b)
    value, tangent, *_ = torch.func.jvp(x, (A.values, b), (dA, db))
    D, dD = dense(A), dense(A.with_values(dA))
    if solver.symmetric:
        dD = (dD + dD.T) / 2
    torch.testing.assert_close(tangent, torch.linalg.solve(D, db - dD @ value))


@every_solver
def test_jacobians_and_hessians_agree(solver):
    A, b, x = system(solver)
    values, b = A.values.detach(), b.detach()
    torch.testing.assert_close(torch.func.jacrev(x)(values, b), torch.func.jacfwd(x)(values, b))

    def energy(values):
        return (x(values, b) ** 2).sum()

    hessian = torch.func.hessian(energy)(values)
    assert hessian.abs().max() > 1e-3
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(energy, values))


@every_solver
def test_vmap(solver):
    A, b, x = system(solver, (2,))
    scales = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    values = scales[:, None] * A.values.detach()
    right = torch.stack([b.detach(), 2 * b.detach(), b.detach() ** 2])
    for args, in_dims in [
        ((values, right), (0, 0)),
        ((values, b.detach()), (0, None)),
        ((A.values.detach(), right.movedim(0, 1)), (None, 1)),
    ]:
        expected = [
            x(*(t if dim is None else t.select(dim, i) for t, dim in zip(args, in_dims)))
            for i in range(3)
        ]
        torch.testing.assert_close(torch.vmap(x, in_dims)(*args), torch.stack(expected))


@every_solver
def test_float32(solver):
    A = random_square(20, seed=3, symmetric=solver.symmetric).to(torch.float32)
    b = torch.ones(20)
    x = solve(A, b, **solver.options(A, rtol=1e-6))
    assert x.dtype == torch.float32
    torch.testing.assert_close(A.to_dense() @ x, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS[:3], ids=lambda s: s.name)
def test_the_factorization_serves_forward_adjoint_and_tangents(monkeypatch, solver):
    count = []

    def counted(A, method):
        count.append(A)
        return factorized(A, method)

    monkeypatch.setattr(sparsetorch.linalg.solvers, "factorized", counted)
    A, b, x = system(solver)
    (gradient,) = torch.autograd.grad(x(A.values, b).pow(2).sum(), A.values, create_graph=True)
    gradient.pow(2).sum().backward()
    assert len(count) == 1


def test_the_adjoint_is_preconditioned_by_the_transpose():
    A, b, _ = system(SOLVERS[0], n=30)
    used = []

    class Exact:
        """The inverse of A or of its transpose, noting its use."""

        def __init__(self, factors, name):
            self.factors, self.name = factors, name

        def apply(self, r):
            used.append(self.name)
            return self.factors(r)

        @property
        def T(self):
            return Exact(self.factors.T, "transpose")

    x = solve(A, b, "gmres", preconditioner=Exact(factorized(A), "forward"))
    assert set(used) == {"forward"}
    used.clear()
    x.sum().backward()
    assert set(used) == {"transpose"}
    assert len(used) <= 4  # an exact preconditioner: one step, and the correction


@pytest.mark.parametrize("method", ["minres", "chebyshev", "bicgstab"])
def test_a_breakdown_or_an_indefinite_matrix_raises_with_a_remedy(method):
    A = CSRTensor.from_dense(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double())
    status, remedy = {
        "minres": ("maxiter", "the matrix is not symmetric"),
        "chebyshev": ("indefinite", "use method='minres'"),
        "bicgstab": ("lanczos_breakdown", "use method='gmres'"),
    }[method]
    with pytest.raises(SolveError, match=f"^{status} after .*{remedy}"):
        solve(A, torch.tensor([1.0, 0.0]).double(), method)


def test_symmetric_methods_use_one_preconditioner_in_both_directions():
    A, b, _ = system(Solver("minres", "minres", symmetric=True), n=30)
    factors, calls = factorized(A), []

    def inverse(r):
        calls.append(r)
        return factors(r)

    for method in ("cg", "minres", "chebyshev"):
        calls.clear()
        x = solve(A, b, method, preconditioner=inverse)
        forward = len(calls)
        x.sum().backward()
        assert forward < len(calls) <= 2 * forward + 2


def test_x0_and_callback_serve_the_forward_solve():
    A, b, _ = system(SOLVERS[0], n=30)
    exact = torch.linalg.solve(dense(A), b).detach()
    calls = []
    x = solve(A, b, "gmres", x0=exact, callback=lambda *record: calls.append(record), rtol=1e-9)
    assert [iteration for iteration, _ in calls] == [0]
    x.sum().backward()
    assert len(calls) == 1


def test_failure_raises_or_is_returned():
    A, b, _ = system(SOLVERS[0], n=30)
    with pytest.raises(
        SolveError, match=r"maxiter after 2 iterations: .* To try: raise maxiter"
    ) as info:
        solve(A, b, "gmres", maxiter=2)
    assert info.value.solution.status is Status.MAXITER
    solution = solve(A, b, "gmres", maxiter=2, full_output=True)
    assert not solution.converged
    assert solution.iterations == 2


def test_a_failing_adjoint_raises():
    A = CSRTensor.from_dense(torch.tensor([[1.0, 0.0], [5.0, 1.0]]).double()).requires_grad_()
    b = torch.tensor([0.0, 1.0]).double()  # an eigenvector: one step forward, two for the adjoint
    x = solve(A, b, "gmres", maxiter=1)
    with pytest.raises(SolveError, match="maxiter after 1 iterations"):
        x.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b": torch.ones(3)}, TypeError, r"b: expected torch.float64 like A, got torch.float32"),
        ({"b": torch.ones(4).double()}, ValueError, r"b: expected 3 rows like A, got shape \(4,\)"),
        ({"b": torch.ones(())}, ValueError, r"b: expected shape \(n,\) or \(n, k\), got \(\)"),
        ({"b": [1.0]}, TypeError, r"b: expected a tensor of float16, .* or complex128, got list"),
        ({"b": torch.full((3,), torch.nan).double()}, ValueError, r"b: expected finite numbers"),
        ({"A": torch.eye(3)}, TypeError, r"A: expected a CSRTensor, got Tensor"),
        ({"A": random_csr(3, 4)}, ValueError, r"A: expected a square matrix, got shape \(3, 4\)"),
        (
            {"A": random_csr(3, 3, batch=(2,)), "b": torch.ones(2, 4).double()},
            ValueError,
            r"b: expected \(\*batch, n\), \(\*batch, n, k\) or \(n,\)",
        ),
        (
            {"A": random_csr(3, 3, batch=(2,)), "full_output": True},
            ValueError,
            r"full_output: expected one matrix",
        ),
        ({"method": "lu"}, ValueError, r"method: expected 'direct', .*, got 'lu'"),
        (
            {"method": "cg", "restart": 3},
            ValueError,
            r"restart: for gmres and fgmres, not for 'cg'",
        ),
        (
            {"method": "minres", "restart": 3},
            ValueError,
            r"restart: for gmres and .*, not for 'minres'",
        ),
        ({"method": "cg", "bounds": (1, 2)}, ValueError, r"bounds: for chebyshev, not for 'cg'"),
        ({"bounds": (1, 2)}, ValueError, r"'direct' takes no options"),
        ({"method": "chebyshev", "bounds": (2, 1)}, ValueError, r"bounds: expected \(smallest"),
        ({"rtol": 1e-3}, ValueError, r"'direct' takes no options"),
        (
            {"method": "gmres", "preconditioner": 3},
            TypeError,
            r"preconditioner: expected .*, got int",
        ),
        (
            {"method": "gmres", "x0": torch.ones(2)},
            ValueError,
            r"x0: expected torch.float64 of shape",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    good = {"A": CSRTensor.eye(3, dtype=torch.float64), "b": torch.ones(3).double()}
    with pytest.raises(error, match=message):
        solve(**(good | arguments))


@pytest.mark.parametrize("method", [*DIRECT, *METHODS])
def test_bad_right_hand_sides_are_refused_by_every_method(method):
    with pytest.raises(ValueError, match="b: expected finite numbers, got NaN or infinity"):
        solve(CSRTensor.eye(2), torch.tensor([1.0, torch.inf]), method)
