"""Determinants and the selected inverse: values, derivatives, transforms, singular matrices."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from random_matrices import dense, random_csr, random_square
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import SolveError, Status, det, logdet, selected_inverse, slogdet, solve

F64 = torch.float64


def stored(D: Tensor, A: CSRTensor) -> Tensor:
    return D[A.pattern.row.long(), A.pattern.col.long()]


class Quantity(NamedTuple):
    """A function of a matrix, and the same of the dense matrix."""

    name: str
    sparse: Callable[[CSRTensor], Tensor]
    reference: Callable[[Tensor, CSRTensor], Tensor]
    kind: str  # of the matrices it is for


QUANTITIES = [
    Quantity("logdet", logdet, lambda D, A: torch.logdet(D), "definite"),
    *(
        quantity
        for kind in ("definite", "indefinite", "general")
        for quantity in (
            Quantity(
                f"slogdet, {kind}",
                lambda A: slogdet(A)[1],
                lambda D, A: torch.linalg.slogdet(D)[1],
                kind,
            ),
            Quantity(f"det, {kind}", det, lambda D, A: torch.linalg.det(D), kind),
            Quantity(
                f"selected inverse, {kind}",
                lambda A: selected_inverse(A).values,
                lambda D, A: stored(torch.linalg.inv(D), A),
                kind,
            ),
        )
    ),
]
every_quantity = pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.name)


def functions(quantity: Quantity, n: int = 6):
    """Values, and the quantity as a function of them by both ways.

    Symmetric matrices are symmetrized, since a change of one entry would leave the domain.
    """
    symmetric = quantity.kind != "general"
    A = random_square(n, seed=3, symmetric=symmetric).detach()
    if quantity.kind == "indefinite":
        signs = torch.arange(n) % 3 == 1
        A = A.add_diagonal(torch.where(signs, -2.5, 0.0).double())

    def matrix(values: Tensor) -> CSRTensor:
        M = A.with_values(values)
        return (M + M.T) / 2 if symmetric else M

    return (
        A.values,
        lambda values: quantity.sparse(matrix(values)),
        lambda values: quantity.reference(dense(matrix(values)), A),
    )


@every_quantity
@pytest.mark.parametrize("n", [2, 6, 70])
def test_values_and_gradients_match_dense_algebra(quantity, n):
    values, sparse, reference = functions(quantity, n)
    values.requires_grad_()
    weights = torch.linspace(1, 2, sparse(values).numel(), dtype=F64)
    got, expected = sparse(values), reference(values)
    torch.testing.assert_close(got, expected)
    ours, denses = (
        torch.autograd.grad((f.reshape(-1) * weights).sum(), values) for f in (got, expected)
    )
    torch.testing.assert_close(ours, denses)


@every_quantity
def test_derivatives_of_first_and_second_order(quantity):
    values, sparse, _ = functions(quantity)
    values.requires_grad_()
    options = {"fast_mode": True, "atol": 1e-7}
    assert gradcheck(sparse, (values,), check_forward_ad=True, **options)
    assert gradgradcheck(sparse, (values,), check_fwd_over_rev=True, **options)


@every_quantity
def test_tangents_and_hessians_by_value(quantity):
    values, sparse, reference = functions(quantity)
    direction = torch.linspace(-1, 1, values.numel(), dtype=F64)
    got = torch.func.jvp(sparse, (values,), (direction,))
    expected = torch.func.jvp(reference, (values,), (direction,))
    assert expected[1].abs().max() > 1e-3
    for g, e in zip(got, expected):
        torch.testing.assert_close(g, e)

    hessian = torch.func.hessian(lambda v: sparse(v).square().sum())(values)
    dense_hessian = torch.func.hessian(lambda v: reference(v).square().sum())(values)
    assert dense_hessian.abs().max() > 1e-3
    torch.testing.assert_close(hessian, dense_hessian)
    torch.testing.assert_close(torch.func.jacrev(sparse)(values), torch.func.jacfwd(sparse)(values))


@pytest.mark.parametrize("quantity", QUANTITIES[:2], ids=lambda q: q.name)
def test_third_derivatives(quantity):
    values, sparse, reference = functions(quantity, 4)
    direction = torch.linspace(-1, 1, values.numel(), dtype=F64)

    def third(f):
        for _ in range(3):
            f = (lambda g: lambda t: torch.func.grad(g)(t))(f)
        return f(torch.zeros((), dtype=F64))

    ours = third(lambda t: sparse(values + t * direction))
    torch.testing.assert_close(ours, third(lambda t: reference(values + t * direction)))


@every_quantity
def test_vmap_over_values_and_their_gradients(quantity):
    values, sparse, reference = functions(quantity)
    batch = torch.stack([values, 2 * values, 3 * values], 1)
    torch.testing.assert_close(
        torch.vmap(sparse, 1)(batch), torch.stack([reference(v) for v in batch.unbind(1)])
    )
    gradient = torch.func.grad(lambda v: sparse(v).sum())
    expected = torch.stack([gradient(v) for v in batch.unbind(1)])
    torch.testing.assert_close(torch.vmap(gradient, 1)(batch), expected)


@every_quantity
def test_many_gradients_in_one_backward(quantity):
    values, sparse, reference = functions(quantity)

    def jacobian(f):
        return torch.autograd.functional.jacobian(f, values, vectorize=True)

    def hessian(f):
        return torch.autograd.functional.hessian(
            lambda v: f(v).square().sum(), values, vectorize=True
        )

    torch.testing.assert_close(jacobian(sparse), jacobian(reference))
    torch.testing.assert_close(hessian(sparse), hessian(reference))


def test_the_gradient_of_a_symmetric_matrix_is_that_of_all_its_entries():
    """As for `torch.logdet` of the dense matrix, whatever triangle Cholesky reads."""
    A = poisson(4, 5, dtype=F64).requires_grad_()
    logdet(A).backward()
    torch.testing.assert_close(A.values.grad, stored(torch.linalg.inv(dense(A)).T, A))


def test_log_determinant_of_the_laplacian_is_the_sum_over_its_known_eigenvalues():
    n = 30
    sines = 4 * torch.sin(torch.arange(1, n + 1, dtype=F64) * torch.pi / (2 * (n + 1))) ** 2
    A = poisson(n, n, dtype=F64)
    torch.testing.assert_close(logdet(A), (sines[:, None] + sines).log().sum())


def test_marginal_variances_of_a_random_walk():
    """Steps of unit variance from 0: the precision is tridiagonal, and the k-th variance k."""
    n = 100
    D = 2 * torch.eye(n, dtype=F64) - torch.eye(n).double().roll(1, 0).tril()
    D = D - torch.eye(n).double().roll(1, 0).tril().T
    D[-1, -1] = 1
    covariance = selected_inverse(CSRTensor.from_dense(D))
    torch.testing.assert_close(covariance.diagonal(), torch.arange(1.0, n + 1).double())


def test_determinants_of_singular_matrices_are_zero_and_have_no_gradient():
    A = CSRTensor.from_dense(torch.tensor([[1.0, 2.0], [2.0, 4.0]]).double()).requires_grad_()
    sign, logarithm = slogdet(A)
    assert (sign, logarithm) == (0, -torch.inf)
    assert det(A) == 0
    with pytest.raises(SolveError, match="the matrix is singular"):
        logarithm.backward()
    with pytest.raises(SolveError, match="the matrix is singular"):
        selected_inverse(A)
    with pytest.raises(SolveError, match=r"pivot in column [01] is 0"):
        logdet(A)


def test_logdet_of_an_indefinite_matrix_says_what_to_do():
    with pytest.raises(SolveError, match="not symmetric positive definite") as info:
        logdet(CSRTensor.diag(torch.tensor([1.0, -2.0])))
    assert info.value.solution.status is Status.INDEFINITE
    assert slogdet(CSRTensor.diag(torch.tensor([1.0, -2.0])))[0] == -1


def test_empty_matrices_and_float32():
    empty = CSRTensor.from_dense(torch.zeros(0, 0))
    assert logdet(empty) == 0
    assert selected_inverse(empty).values.shape == (0,)
    one = CSRTensor.diag(torch.tensor([-4.0]))
    assert (det(one), selected_inverse(one).values) == (-4, -0.25)
    A = random_square(30, symmetric=True).detach().to(torch.float32)
    assert logdet(A).dtype == torch.float32
    torch.testing.assert_close(logdet(A), torch.logdet(dense(A)))


@pytest.mark.parametrize("function", [logdet, slogdet, det, selected_inverse])
def test_bad_matrices_are_named(function):
    with pytest.raises(ValueError, match="expected a square matrix"):
        function(random_csr(3, 4))
    with pytest.raises(ValueError, match=r"torch\.vmap"):
        function(random_csr(3, 3, batch=(2,)))
    with pytest.raises(TypeError, match=r"got torch.float8_e4m3fn"):
        function(CSRTensor.eye(2).to(torch.float8_e4m3fn))


def test_a_determinant_and_a_solve_train_together():
    """The negative log-likelihood of a Gaussian field, differentiated in its precision's scale."""
    A = poisson(6, 6, dtype=F64)
    y = torch.ones(36, dtype=F64)

    def loss(t: Tensor) -> Tensor:
        Q = A.with_values(A.values * t)
        return 0.5 * (y @ (Q @ y) - logdet(Q)) + solve(Q, y, "cholesky").sum()

    t = torch.tensor(1.3, dtype=F64)
    D = dense(A)
    expected = 0.5 * (y @ D @ y - 36 / t) - torch.linalg.solve(D, y).sum() / t**2
    torch.testing.assert_close(torch.func.grad(loss)(t), expected)
