"""What reductions refuse, and where they are not differentiable. Values: the OPERATIONS table."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from random_matrices import random_csr

from sparsetorch import CSRTensor, spmm


@pytest.mark.parametrize("dim", [0, 3, -3, (-1, -1), (), (0, 1, 2)])
@pytest.mark.parametrize("name", ["sum", "mean", "amax", "norm"])
def test_other_dimensions_than_the_last_two(name, dim):
    A = random_csr(3, 4, batch=(2,))
    with pytest.raises(ValueError, match="dim: expected one of the last two dimensions"):
        getattr(A, name)(dim=dim)


REDUCTIONS = ["sum", "mean", "amax", "amin", "norm", "softmax"]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_integers_of_numpy_and_torch_are_dimensions(name):
    A = random_csr(3, 4, batch=(2,))

    def reduced(dim) -> torch.Tensor:
        result = getattr(A, name)(dim=dim)
        return result.values if isinstance(result, CSRTensor) else result

    for dim in (np.int64(-1), np.int32(-1), torch.tensor(-1)):
        assert torch.equal(reduced(dim), reduced(-1))
    if name != "softmax":
        both = (np.int64(-2), np.int64(-1))
        assert torch.equal(getattr(A, name)(dim=both), getattr(A, name)(dim=(-2, -1)))
        assert getattr(A, name)(dim=np.int64(1), keepdim=True).shape == (2, 1, 4)


def test_integers_of_numpy_and_torch_are_offsets():
    A = random_csr(3, 4)
    ones: Any = (np.int64(1), torch.tensor(1))
    for offset in ones:
        assert torch.equal(A.diagonal(offset), A.diagonal(1))


@pytest.mark.parametrize(
    "dim", [-1.0, True, np.True_, "rows", torch.tensor(1.0), (0, 1.0)], ids=repr
)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_dimensions_that_are_no_integers(name, dim):
    with pytest.raises(TypeError, match=r"^dim: expected an integer, got "):
        getattr(random_csr(3, 4), name)(dim=dim)


@pytest.mark.parametrize("offset", [1.0, True, torch.tensor(1.0)])
def test_offsets_that_are_no_integers(offset):
    with pytest.raises(TypeError, match=r"^offset: expected an integer, got "):
        random_csr(3, 4).diagonal(offset)


def test_the_norm_along_both_dimensions_knows_which_comes_first():
    A = random_csr(3, 4)
    for dim in ((-2, -1), (-1, -2), [0, 1], [1, 0]):
        expected = torch.linalg.norm(A.to_dense(), 1, dim)
        torch.testing.assert_close(A.norm(1, dim), expected)


def test_an_empty_matrix_has_no_maximum():
    for shape, dim in (((0, 3), None), ((0, 3), -2), ((3, 0), -1)):
        with pytest.raises(ValueError, match="has no entries"):
            random_csr(*shape).amax(dim)
    assert random_csr(0, 3).amax(-1).shape == (0,)


def test_the_norm_of_an_empty_row_has_a_gradient_without_nan():
    A = random_csr(4, 5, 0.2, seed=1)
    A.norm(dim=-1).sum().backward()
    assert A.values.grad is not None
    assert A.values.grad.isfinite().all()
    zero = A.with_values(torch.zeros_like(A.values).requires_grad_())
    zero.norm(dim=-1).sum().backward()
    assert zero.values.grad is not None
    assert (zero.values.grad == 0).all()


ORDERS = [
    (order, dim)
    for order in (None, "fro", 1, float("inf"))
    for dim in (None, (-2, -1), (1, 0), (-1, -2))
] + [(order, dim) for order in (None, 1, 2, float("inf")) for dim in (-1, 0)]


@pytest.mark.parametrize(("order", "dim"), ORDERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_norms_are_those_of_torch_and_scipy(order, dim, dtype):
    A = random_csr(5, 4, 0.5, seed=3, dtype=dtype)
    expected = torch.linalg.norm(A.to_dense(), order, dim)
    torch.testing.assert_close(A.norm(order, dim), expected)
    torch.testing.assert_close(torch.linalg.norm(A, order, dim), expected)
    by_scipy = sp.linalg.norm(A.detach().to_scipy(), order, dim)
    torch.testing.assert_close(A.norm(order, dim).detach(), torch.as_tensor(by_scipy))
    gradients = [
        torch.autograd.grad(norm.sum(), A.values, retain_graph=True)[0]
        for norm in (A.norm(order, dim), expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("order", [1, float("inf")])
@pytest.mark.parametrize("dim", [None, -1])
def test_other_norms_at_zero_and_at_nan(order, dim):
    A = random_csr(4, 5, 0.4, seed=1).detach()
    zero = A.with_values(torch.zeros_like(A.values).requires_grad_())
    norms = zero.norm(order, dim)
    assert (norms == 0).all()
    norms.sum().backward()
    assert zero.values.grad is not None
    assert (zero.values.grad == 0).all()
    A = A.with_values(A.values.index_fill(0, torch.tensor([2]), float("nan")))
    expected = torch.linalg.norm(A.to_dense(), order, dim)
    torch.testing.assert_close(A.norm(order, dim), expected, equal_nan=True)


def test_orders_that_are_not_there_are_named():
    A, batch = random_csr(4, 5), random_csr(4, 5, batch=(2,))
    for order in (-1, 2, 0, "nuc", (-2, -1)):
        with pytest.raises(ValueError, match=r"ord: expected None, 'fro', 1 or inf.*A\.norm\(dim="):
            A.norm(order)  # type: ignore
    for order in ("fro", 0, -float("inf")):
        with pytest.raises(ValueError, match="ord: expected None, 1, 2 or inf along one dimension"):
            A.norm(order, -1)  # type: ignore
    for order in ("fro", 1):
        with pytest.raises(ValueError, match=r"dim: expected \(-2, -1\) for the norms of a batch"):
            batch.norm(order)
    torch.testing.assert_close(batch.norm(), torch.linalg.vector_norm(batch.values))
    for shape, order in (((0, 3), float("inf")), ((3, 0), 1)):
        with pytest.raises(ValueError, match="has no sums to compare"):
            random_csr(*shape).norm(order)
    assert random_csr(0, 3).norm(1) == 0


def test_nan_stays_nan():
    A = random_csr(4, 5, 0.6, seed=1).detach()
    A = A.with_values(A.values.index_fill(0, torch.tensor([2]), float("nan")))
    for dim in (-1, -2):
        expected = torch.linalg.vector_norm(A.to_dense(), dim=dim)
        assert expected.isnan().any()
        torch.testing.assert_close(A.norm(dim=dim), expected, equal_nan=True)


@pytest.mark.parametrize("dim", [None, -1, -2, (-2, -1)])
def test_half_precision_only_rounds_the_result(dim):
    """Squares and sums of these are beyond float16, the results are not."""
    D = torch.linspace(1e-4, 600.0, 600).reshape(20, 30).to(torch.float16)
    A, wide = CSRTensor.from_dense(D), D.double()
    every = dim or (0, 1)
    for got, expected in (
        (A.mean(dim), wide.mean(every)),
        (A.norm(dim=dim), torch.linalg.vector_norm(wide, dim=every)),
        ((A / 600).norm(dim=dim), torch.linalg.vector_norm((D / 600).double(), dim=every)),
    ):
        torch.testing.assert_close(got, expected.to(torch.float16), rtol=1e-3, atol=0)


def test_softmax_in_half_precision_rounds_once():
    D = torch.linspace(-3, 3, 4000).to(torch.bfloat16).reshape(1, -1)
    D = D + (D == 0)  # every place is stored
    got = CSRTensor.from_dense(D).softmax().to_dense()
    torch.testing.assert_close(got, D.double().softmax(-1).to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("dim", [None, (-2, -1)])
def test_softmax_is_over_rows_or_columns(dim):
    with pytest.raises(ValueError, match=r"dim: expected rows \(-1\) or columns \(-2\)"):
        random_csr(3, 4).softmax(dim)


def test_softmax_is_stable_and_sums_to_one():
    A = random_csr(6, 5, 0.6, seed=2).detach()
    large = A.with_values(1000 * A.values)
    sums = large.softmax().sum(-1)
    filled = A.pattern.crow.diff() > 0
    torch.testing.assert_close(sums, filled.to(A.dtype))


def test_the_power_must_keep_zero_at_zero():
    for exponent in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="exponent: expected a positive number"):
            random_csr(3, 3).pow(exponent)


def test_a_map_must_keep_the_shape():
    with pytest.raises(ValueError, match="function: expected values of shape"):
        random_csr(3, 3).map(torch.sum)


def test_functions_that_would_fill_the_matrix_are_refused():
    A = random_csr(3, 3)
    for function in (torch.exp, torch.cos, lambda A: torch.softmax(A, -1)):
        with pytest.raises(TypeError, match=r"apply it to A\.values"):
            function(A)  # pyright: ignore
    assert torch.equal(torch.relu(A).values, torch.relu(A.values))  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "message"),
    [({"reduce": "prod"}, "reduce: expected"), ({"combine": "sub"}, "combine: expected")],
)
def test_unknown_semirings(options, message):
    with pytest.raises(ValueError, match=message):
        spmm(random_csr(3, 4), torch.ones(4, 2, dtype=torch.float64), **options)


def test_semirings_check_their_operands():
    A = random_csr(3, 4)
    with pytest.raises(ValueError, match="X: expected size 4 in dimension -2"):
        spmm(A, torch.ones(3, 2, dtype=torch.float64), "max")
    with pytest.raises(TypeError, match="nothing is cast silently"):
        spmm(A, torch.ones(4, 2), "max")


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_mean_in_half_precision_is_rounded_once(dtype, combine):
    """Its sum, 300 times 300, is more than float16 holds."""
    n = 300
    A = CSRTensor.from_dense(torch.full((1, n), 2.0, dtype=dtype)).requires_grad_()
    X = torch.linspace(290.0, 310.0, n).to(dtype)[:, None].requires_grad_()
    y = spmm(A, X, "mean", combine)
    exact = spmm(A.to(torch.float64), X.double(), "mean", combine)
    assert y.dtype == dtype
    assert torch.equal(y, exact.to(dtype))
    of_values, of_X = torch.autograd.grad(y, (A.values, X), torch.ones_like(y))
    torch.testing.assert_close(of_X, torch.full_like(X, (2 if combine == "mul" else 1) / n))
    torch.testing.assert_close(of_values, X[:, 0] / n if combine == "mul" else of_X[:, 0])


def test_shortest_paths_by_the_tropical_semiring():
    # Edges 0 -> 1 (4), 0 -> 2 (1), 2 -> 1 (2): relaxing twice finds the way round.
    from sparsetorch import CSRTensor

    target, source = torch.tensor([1, 2, 1]), torch.tensor([0, 0, 2])
    A = CSRTensor.from_coo(target, source, torch.tensor([4.0, 1.0, 2.0]), (3, 3))
    A = A.with_diagonal(torch.zeros(3))
    distance = torch.tensor([[0.0], [float("inf")], [float("inf")]])
    for _ in range(2):
        distance = spmm(A, distance, "min", "add")
    assert distance.flatten().tolist() == [0, 3, 1]
