"""Batches in `solve`: of matrices, of gradients, and of everything under vmap."""

from typing import Any

import pytest
import torch
from random_matrices import dense, random_square
from torch.autograd import gradcheck
from torch.utils import _pytree as pytree

from sparsetorch import CSRTensor
from sparsetorch.linalg import batched_gradients, cg, solve
from sparsetorch.precond import Jacobi, amg, block_jacobi, chebyshev

METHODS = ["direct", "cg", "gmres"]
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch_of(A: CSRTensor, *scales: float) -> CSRTensor:
    factors = torch.tensor(scales, dtype=A.dtype)
    return A.with_values(factors[:, None] * A.values.detach()).requires_grad_()


def options(method: str, rtol: float = 1e-13) -> Any:
    return {"method": method} if method == "direct" else {"method": method, "rtol": rtol}


@every_method
@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 2), (6,), (1, 6, 2), (2, 1, 6, 2)], ids=str)
def test_a_batch_of_matrices_has_the_shapes_of_the_dense_solve(method, shape):
    A = batch_of(random_square(6, symmetric=True), 1, 2, -3 if method == "gmres" else 3)
    b = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = torch.linalg.solve(dense(A), b)
    x = solve(A, b, **options(method))
    torch.testing.assert_close(x, expected)
    weights = torch.randn_like(x)
    got = torch.autograd.grad(x, (A.values, b), weights)
    for g, e in zip(got, torch.autograd.grad(expected, (A.values, b), weights)):
        torch.testing.assert_close(g, e)


@every_method
def test_a_batch_without_members_still_has_gradients(method):
    A = batch_of(random_square(6, symmetric=True))
    b = torch.randn(0, 6, dtype=torch.float64, requires_grad=True)
    x = solve(A, b, method)
    assert x.shape == (0, 6)
    x.sum().backward()
    assert b.grad is not None
    mapped = torch.vmap(lambda v, b: solve(A.with_values(v), b, method))
    assert mapped(A.values.detach(), b.detach()).shape == (0, 6)
    with_one_b = torch.vmap(lambda v: solve(A.with_values(v), torch.ones(6).double(), method))
    assert with_one_b(A.values.detach()).shape == (0, 6)


@every_method
@pytest.mark.parametrize("columns", [(), (2,)], ids=["vector", "block"])
def test_many_gradients_in_one_backward(method, columns):
    A = random_square(6, symmetric=True)
    b = torch.randn(6, *columns, dtype=torch.float64, requires_grad=True)
    x = solve(A, b, **options(method))
    seeds = torch.randn(4, *x.shape, dtype=torch.float64)
    batched = torch.autograd.grad(x, (A.values, b), seeds, is_grads_batched=True, retain_graph=True)
    for i, seed in enumerate(seeds):
        single = torch.autograd.grad(x, (A.values, b), seed, retain_graph=True)
        for got, expected in zip(batched, single):
            torch.testing.assert_close(got[i], expected)


@every_method
def test_derivatives_under_vmap(method):
    A = random_square(5, symmetric=True)
    b = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def x(values, b):
        M = A.with_values(values)
        return solve((M + M.T) / 2, b, **options(method))

    assert gradcheck(x, (A.values, b), check_batched_grad=True, check_forward_ad=True)
    per_member = torch.vmap(torch.func.jacrev(x), in_dims=(0, None))
    values = torch.stack([A.values.detach(), 2 * A.values.detach()])
    for v, jacobian in zip(values, per_member(values, b.detach())):
        torch.testing.assert_close(jacobian, torch.func.jacrev(x)(v, b.detach()))


def test_guesses_and_callbacks_reach_every_member_of_a_vmap():
    A = random_square(6, symmetric=True).detach()
    b = torch.randn(3, 6, dtype=torch.float64)
    exact = torch.linalg.solve(dense(A), b.T).T
    for mapped in ("b and x0", "x0", "values"):
        calls = []

        def function(scale, b, x0, calls=calls):
            return solve(
                A.with_values(scale * A.values),
                b,
                "cg",
                x0=x0,
                rtol=1e-9,
                callback=lambda *record: calls.append(record),
            )

        one = torch.ones(()).double()
        if mapped == "b and x0":
            torch.vmap(function, (None, 0, 0))(one, b, exact)
        elif mapped == "x0":
            torch.vmap(function, (None, None, 0))(one, b[0], exact[:1].expand(3, 6))
        else:
            scales = torch.tensor([1.0, 2.0, 4.0]).double()
            torch.vmap(function, (0, None, 0))(scales, b[0], exact[0] / scales[:, None])
        assert [iteration for iteration, _ in calls] == [0, 0, 0], mapped


@pytest.mark.parametrize(
    "build",
    [Jacobi, lambda M: chebyshev(M, 2, (0.3, 2.0)), lambda M: M * 0.5],
    ids=["jacobi", "chebyshev", "matrix"],
)
def test_a_preconditioner_may_be_built_from_what_is_mapped_or_differentiated(build):
    A = random_square(6, symmetric=True).detach()
    b = torch.randn(6, dtype=torch.float64)

    def energy(values):
        M = A.with_values(values)
        return solve(M, b, "gmres", preconditioner=build(M), rtol=1e-13).square().sum()

    def reference(values):
        return torch.linalg.solve(dense(A.with_values(values)), b).square().sum()

    values = torch.stack([A.values, 2 * A.values])
    for transform in (lambda f: f, torch.func.grad, torch.func.hessian):
        got = torch.vmap(transform(energy))(values)
        expected = torch.stack([transform(reference)(v) for v in values])
        torch.testing.assert_close(got, expected)


def test_every_preconditioner_is_a_pytree_that_does_the_same():
    A = random_square(12, symmetric=True).detach()
    r = torch.randn(12, dtype=torch.float64)
    for M in (Jacobi(A), block_jacobi(A, 3), chebyshev(A), amg(A, max_coarse=3)):
        leaves, form = pytree.tree_flatten(M)
        assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
        torch.testing.assert_close(pytree.tree_unflatten(leaves, form)(r), M(r))


def test_a_zero_diagonal_is_seen_under_vmap():
    A = CSRTensor.eye(3, dtype=torch.float64)
    values = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="Jacobi divides by the diagonal, which is zero in 1 rows"):
        torch.vmap(lambda v: Jacobi(A.with_values(v))(v))(values)


@pytest.mark.parametrize(
    ("M", "error", "message"),
    [
        (lambda r: r[:-1], ValueError, r"^preconditioner: expected shape \(4,\) .*, got \(3,\)"),
        (lambda r: r[None], ValueError, r"^preconditioner: expected shape \(4,\) .*, got \(1, 4\)"),
        (lambda r: r.float(), TypeError, r"^preconditioner: .*float64 for one, got torch.float32"),
        (lambda r: r.numpy(), TypeError, r"^preconditioner: .*float64 for one, got ndarray"),
        (CSRTensor.eye(3).to(torch.float64), ValueError, r"^preconditioner: .* shape \(4, 4\)"),
        (CSRTensor.eye(4), ValueError, r"^preconditioner: expected torch.float64"),
    ],
)
def test_a_preconditioner_that_does_not_fit_is_named(M, error, message):
    A, b = random_square(4, symmetric=True).detach(), torch.ones(4).double()
    with pytest.raises(error, match=message):
        cg(A, b, preconditioner=M)


def test_an_operator_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^A: expected shape \(4,\)"):
        cg(lambda x: x[:2], torch.ones(4).double())


def test_a_torch_that_hides_no_batches(monkeypatch):
    """The private function that tells hidden ones may go; plain gradients do not need it."""
    monkeypatch.setattr(batched_gradients, "is_legacy_batchedtensor", None)
    A = random_square(6)
    solve(A, torch.ones(6, dtype=torch.float64)).sum().backward()
    assert A.values.grad is not None
    x = torch.linalg.solve(dense(A), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(A.values.grad, torch.autograd.grad(x.sum(), A.values)[0])
