"""`solve` inside compiled code: one graph, the values and every gradient of the eager call."""

import gc
from typing import Any

import pytest
import torch
from random_matrices import random_complex, random_square
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparsetorch.linalg.solvers
from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, cg, factorized, solve
from sparsetorch.linalg.compiled import compiled_solve
from sparsetorch.linalg.described import KNOWS_OBJECTS
from sparsetorch.precond import Jacobi, amg, block_jacobi, ilu0

NO_OPTIONS = {
    "preconditioner": None,
    "preconditioner_T": None,
    "rtol": None,
    "atol": 0.0,
    "maxiter": None,
    "restart": None,
    "bounds": None,
}
METHODS: dict[Any, dict[str, Any]] = {
    "direct": {},
    "cholesky": {},
    "ldlt": {},
    "cg": {"rtol": 1e-13},
    "block_cg": {"rtol": 1e-13},
    "minres": {"rtol": 1e-13},
    "chebyshev": {"rtol": 1e-13, "bounds": (0.3, 5.2)},
    "gmres": {"rtol": 1e-13, "restart": 5},
    "fgmres": {"rtol": 1e-13},
    "bicgstab": {"rtol": 1e-13},
}
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def system(n: int = 7, columns: tuple[int, ...] = ()) -> tuple[CSRTensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(n, *columns, generator=generator, dtype=torch.float64, requires_grad=True)
    return random_square(n, seed=3, symmetric=True), b


def assert_compiles(loss: Any, A: CSRTensor, b: Tensor, backend: Any = "aot_eager") -> None:
    want = loss(A, b)
    got = torch.compile(loss, fullgraph=True, backend=backend)(A, b)
    torch.testing.assert_close(got, want)
    inputs = (A.values, b)
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), rtol=1e-7, atol=1e-9
    )


@every_method
def test_compiles_as_one_graph(method):
    def loss(A, b):
        M = (A + A.T) / 2  # the matrix may be made in the graph
        return solve(M, torch.tanh(b), method, **METHODS[method]).sin().sum()

    assert_compiles(loss, *system(columns=(2,)))


@pytest.mark.parametrize("method", ["direct", "cg", "gmres"])
def test_compiles_with_the_default_backend(method):
    def loss(A, b):
        x = solve(A.with_values(A.values.exp() * A.values), b.sin(), method, **METHODS[method])
        return (x * x.cos()).sum()

    assert_compiles(loss, *system(), backend="inductor")


def test_complex_systems():
    b = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    kinds: dict[Any, str] = {"direct": "general", "gmres": "general", "cg": "positive"}
    for method, kind in kinds.items():
        A = random_complex(8, kind, seed=3)

        def loss(A, b, method=method):
            options: Any = {} if method == "direct" else {"preconditioner": Jacobi(A)}
            return solve(A, 2j * b, method, **options).abs().sum()

        assert_compiles(loss, A, b.clone().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    A, b = system(8)
    for method, options in (("direct", {}), ("cg", {"preconditioner": Jacobi(A.to(dtype))})):

        def loss(A, b, method: Any = method, options: Any = options):
            return solve(A.to(dtype), b.to(dtype), method, **options).square().sum()

        assert_compiles(loss, A, b)


def test_unsymmetric_and_transposed_matrices():
    A = random_square(9, seed=5)
    _, b = system(9, (2,))
    methods: tuple[Any, ...] = ("direct", "gmres", "bicgstab")
    for method in methods:
        assert_compiles(lambda A, b, m=method: solve(A.T, solve(A, b, m), m).square().sum(), A, b)


PRECONDITIONERS = {
    "Jacobi": Jacobi,
    "block Jacobi": lambda A: block_jacobi(A, 3),
    "matrix": lambda A: 0.7 * A,
    "ILU(0)": ilu0,
    "AMG": amg,
    "factors": factorized,
    "object with apply": lambda A: Scaled(0.5),
}
OF_TENSORS = ("Jacobi", "block Jacobi", "matrix")  # what passes through a graph


class Scaled:
    """A preconditioner that only `apply` reveals."""

    def __init__(self, factor: float):
        self.factor = factor

    def apply(self, r: Tensor) -> Tensor:
        return self.factor * r


needs_objects = pytest.mark.skipif(not KNOWS_OBJECTS, reason="compiled in PyTorch 2.12 or later")


@pytest.mark.parametrize("method", ["cg", "gmres"])
@pytest.mark.parametrize(
    "name",
    [
        name if name in OF_TENSORS else pytest.param(name, marks=needs_objects)
        for name in PRECONDITIONERS
    ],
)
def test_preconditioners_made_outside(name, method):
    A, b = system(12)
    M = PRECONDITIONERS[name](A.detach())

    def loss(A, b):
        return solve(A, b, method, preconditioner=M, rtol=1e-13).square().sum()

    if name == "factors" or (name, method) == ("matrix", "gmres"):
        M_T = M.T
        assert_compiles(
            lambda A, b: solve(
                A, b, method, preconditioner=M, preconditioner_T=M_T, rtol=1e-13
            ).sum(),
            A,
            b,
        )
    assert_compiles(loss, A, b)


@needs_objects
def test_preconditioners_reach_the_iteration():
    """Exact ones, in both directions: the second iteration would raise."""
    A = random_square(30, seed=5)
    _, b = system(30)
    M = factorized(A)
    options: Any = {"preconditioner": M, "maxiter": 2}
    with pytest.raises(SolveError, match="maxiter after 2"):
        torch.compile(lambda A, b: solve(A, b, "gmres", maxiter=2), backend="aot_eager")(A, b)
    assert_compiles(lambda A, b: solve(A, b, "gmres", **options).sum(), A, b)


def test_a_preconditioner_made_in_the_graph_follows_the_values():
    A, b = system(20)
    scale = torch.logspace(0, 6, 20, dtype=torch.float64)
    iterations = cg(
        A.scale_rows(scale).scale_cols(scale),
        b,
        preconditioner=Jacobi(A.scale_rows(scale).scale_cols(scale)),
    ).iterations

    def loss(A, b):
        M = A.scale_rows(scale).scale_cols(scale)
        x = solve(M, b, "cg", preconditioner=Jacobi(M), maxiter=iterations + 1)
        return (x * scale).sum()

    assert_compiles(loss, A, b)


def counted(function: Any) -> tuple[Any, list[Any]]:
    graphs: list[Any] = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    return torch.compile(function, fullgraph=True, backend=backend), graphs


def test_one_graph_serves_many_patterns_and_preconditioners_of_tensors():
    compiled, graphs = counted(lambda A, b, M: solve(A, b, "cg", preconditioner=M, rtol=1e-12))
    for n in (7, 8, 9, 10, 11, 12):
        A = random_square(n, seed=n, symmetric=True)
        b = torch.ones(n, dtype=torch.float64)
        torch.testing.assert_close(compiled(A, b, Jacobi(A)), torch.linalg.solve(A.to_dense(), b))
        gc.collect()
    assert len(graphs) <= 2


@needs_objects
def test_another_object_is_another_preconditioner():
    """Not the first one for ever: an indefinite one has to be noticed."""
    A, b = system(12)
    compiled, _ = counted(lambda A, b, M: solve(A, b, "cg", preconditioner=M))
    want = solve(A, b)
    torch.testing.assert_close(compiled(A, b, Scaled(0.5)), want)
    torch.testing.assert_close(compiled(A, b, Scaled(2.0)), want)
    with pytest.raises(SolveError, match=r"indefinite .*\(r\.M r = -"):
        compiled(A, b, Scaled(-1.0))


def test_x0_and_batches():
    A, b = system(12)
    exact = solve(A, b).detach()
    assert_compiles(lambda A, b: solve(A, b, "gmres", x0=exact, maxiter=60).sum(), A, b)
    with pytest.raises(SolveError, match="maxiter after 0"):
        torch.compile(lambda A, b: solve(A, b, "cg", x0=0 * b, maxiter=0), fullgraph=True)(A, b)
    torch.compile(lambda A, b: solve(A, b, "cg", x0=exact, maxiter=0, rtol=1e-8))(A, b)

    def batched(A, b):
        M = A.with_values(torch.stack([A.values, 2 * A.values, 3 * A.values]))
        return solve(M, b).square().sum()

    assert_compiles(batched, A, b)


def test_vmap_in_compiled_code():
    A, b = system(8)
    many, scales = torch.stack([b, b.sin(), b.exp()]), torch.tensor([1.0, 2.0, 3.0])

    def values_mapped(A, b):
        return torch.vmap(lambda s: solve(A.with_values(s * A.values), b))(scales).sum()

    def columns_mapped(A, b):
        return torch.vmap(lambda c: solve(A, c * b, "cg", x0=b))(many.detach()).sum()

    assert_compiles(values_mapped, A, b)
    assert_compiles(columns_mapped, A, b)


@every_method
def test_derivatives_of_the_operator_of_first_and_second_order(method):
    A, b = system(6)

    def x(values, b):
        M = A.with_values(values)
        options: Any = NO_OPTIONS | METHODS[method]
        return compiled_solve((M + M.T) / 2, b, method, None, **options)

    options = {"fast_mode": True, "atol": 1e-7}
    assert gradcheck(x, (A.values, b), **options)
    assert gradgradcheck(x, (A.values, b), **options)


def test_second_order_in_one_graph():
    A, b = system(6)

    def curvature(values, b):
        energy = (solve(A.with_values(values), b) ** 3).sum()
        (slope,) = torch.autograd.grad(energy, values, create_graph=True)
        (second,) = torch.autograd.grad((slope**2).sum(), values)
        return second

    want = curvature(A.values, b)
    assert want.abs().max() > 1e-3
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        got = torch.compile(curvature, fullgraph=True, backend="aot_eager")(A.values, b)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("method", ["direct", "cg"])
def test_registration(method):
    A, b = system(6, (2,))
    M = Jacobi(A.detach())
    arguments = (
        *(*A.pattern.layout, A.values, b, None, True, method),
        *("none" if method == "direct" else "sparsetorch.precond.jacobi.Jacobi",),
        *([] if method == "direct" else [M.inverse_diagonal], 0, "none", [], 0),
        *(None, 0.0, None, None, None),
    )
    torch.library.opcheck(torch.ops.sparsetorch.solve.default, arguments)


def test_the_factorization_serves_forward_and_backward(monkeypatch):
    count = []

    def counting(A, method):
        count.append(A)
        return factorized(A, method)

    monkeypatch.setattr(sparsetorch.linalg.solvers, "factorized", counting)
    A, b = system(11)
    compiled = torch.compile(lambda A, b: solve(A, b).sum(), fullgraph=True, backend="aot_eager")
    torch.autograd.grad(compiled(A, b), (A.values, b))
    assert len(count) == 1
    other = A.with_values((2 * A.values).detach())
    torch.testing.assert_close(compiled(other, b), compiled(A, b) / 2)
    assert len(count) == 2


@needs_objects
def test_kept_factors_solve():
    A = random_square(9, seed=5)
    b = torch.ones(9, 2, dtype=torch.float64)
    for matrix in (A, system(9)[0]):
        factors = factorized(matrix)
        compiled = torch.compile(
            lambda b, f=factors: (2 * f.solve(b), f.solve(b, True), f(b + 1)),
            fullgraph=True,
            backend="aot_eager",
        )
        want = (2 * factors.solve(b), factors.solve(b, True), factors(b + 1))
        torch.testing.assert_close(compiled(b), want)
        with pytest.raises(ValueError, match="b: expected 9 rows"):
            compiled(b[:4])


@pytest.mark.skipif(KNOWS_OBJECTS, reason="that is, in PyTorch 2.11")
def test_objects_are_refused_where_they_do_not_compile():
    A, b = system(9)
    M = ilu0(A.detach())
    compiled = torch.compile(
        lambda A, b: solve(A, b, "cg", preconditioner=M), fullgraph=True, backend="aot_eager"
    )
    with pytest.raises(Exception, match=r"knows ILU0 from PyTorch 2\.12 on"):
        compiled(A, b)


def test_failures_raise_when_the_graph_runs():
    A, b = system(12)
    compiled = torch.compile(lambda A, b: solve(A, b, "cg"), fullgraph=True, backend="aot_eager")
    with pytest.raises(SolveError, match=r"indefinite after .* To try: use method='minres'"):
        compiled((-1.0 * A), b)
    with pytest.raises(ValueError, match="b: expected finite numbers"):
        compiled(A, b * torch.nan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"full_output": True}, "not available in compiled code"),
        ({"callback": print}, "not available in compiled code"),
        ({"preconditioner": lambda r: r}, "make a class with __call__ or apply"),
    ],
    ids=["full_output", "callback", "function"],
)
def test_what_does_not_compile_says_so(options, message):
    A, b = system()
    with pytest.raises(Exception, match=message):
        torch.compile(lambda A, b: solve(A, b, "cg", **options), fullgraph=True)(A, b)


def test_forward_mode_is_refused():
    A, b = system()
    with pytest.raises(Exception, match="forward-mode derivatives do not compile"):
        torch.compile(
            lambda A, b: torch.func.jvp(lambda b: solve(A, b), (b,), (b,)),
            fullgraph=True,
            backend="eager",
        )(A.detach(), b.detach())
