"""Values, gradients and second derivatives of every operation, against dense tensors."""

import pytest
import torch
from operations import OPERATIONS, Inputs, Operation, as_tensor, random_inputs, values_of
from random_matrices import MIXED
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import poisson, spmm
from sparsetorch.linalg import solve, solve_triangular

I64 = torch.int64
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)


def gradients(result: Tensor, inputs: Inputs) -> tuple[Tensor, ...]:
    weights = torch.linspace(1, 2, result.numel()).to(result.dtype).reshape(result.shape)
    loss = (result * weights).sum()
    if loss.is_complex():
        loss = (loss * (1 + 2j)).real
    return torch.autograd.grad(loss, inputs.tensors(), allow_unused=True, materialize_grads=True)


def assert_matches_dense(operation: Operation, inputs: Inputs, tolerance: float) -> None:
    result = as_tensor(operation.sparse(inputs))
    reference = operation.reference(inputs.densified())
    # The mean of nothing is NaN.
    torch.testing.assert_close(result, reference, rtol=tolerance, atol=tolerance, equal_nan=True)
    if result.requires_grad:
        for name, got, expected in zip(
            ("A", "B", "C", "x", "X", "Y", "d", "s"),
            gradients(result, inputs),
            gradients(reference, inputs),
        ):
            torch.testing.assert_close(
                got, expected, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@every_operation
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64, MIXED], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)], ids=str
)
def test_matches_dense(operation, dtype, tolerance, index_dtype):
    inputs = random_inputs(7, 5, 6, 0.4, seed=3, dtype=dtype, index_dtype=index_dtype)
    narrow = index_dtype != torch.int64
    assert inputs.A.pattern.dtype == (torch.int32 if narrow else torch.int64)
    assert inputs.A.pattern.crow.dtype == (torch.int32 if index_dtype == torch.int32 else I64)
    assert_matches_dense(operation, inputs, tolerance)


@every_operation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(operation, dtype):
    """Close to the same operation in float64 on the same numbers: results are rounded, sums not."""
    inputs = random_inputs(7, 5, 6, 0.4, seed=3, dtype=dtype)
    exact = inputs.with_tensors(*(t.detach().double().requires_grad_() for t in inputs.tensors()))
    result, reference = (as_tensor(operation.sparse(i)) for i in (inputs, exact))
    assert result.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(result.double(), reference, rtol=8 * eps, atol=16 * eps)
    if result.requires_grad:
        for got, expected in zip(gradients(result, inputs), gradients(reference, exact)):
            scale = expected.abs().amax().clamp(min=1) if expected.numel() else 1.0
            torch.testing.assert_close(
                got.double() / scale, expected / scale, rtol=8 * eps, atol=16 * eps
            )


# Operations that need an order, or whose dense counterpart here is the square of a real number.
REAL = ("maximum", "minimum", "max of", "min of", "softmax", "logsumexp", "norm", "map")


@pytest.mark.parametrize(
    "operation",
    [op for op in OPERATIONS if not op.name.startswith(REAL)],
    ids=lambda op: op.name,
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.complex64, 1e-4), (torch.complex128, 1e-12)], ids=str
)
def test_complex_numbers(operation, dtype, tolerance):
    inputs = random_inputs(7, 5, 6, 0.4, seed=3, dtype=dtype)
    assert as_tensor(operation.sparse(inputs)).dtype == dtype
    assert_matches_dense(operation, inputs, tolerance)


@pytest.mark.parametrize(
    "operation",
    [lambda A: A.amax(-1), lambda A: A.amin(), lambda A: A.softmax(-1)],
)
def test_complex_numbers_have_no_order(operation):
    with pytest.raises(TypeError, match="complex"):
        operation(random_inputs(7, 5, 6, 0.4, seed=3, dtype=torch.complex64).A)


@every_operation
@pytest.mark.parametrize(
    ("n", "m", "p", "density"),
    [
        (1, 1, 1, 1.0),
        (4, 4, 4, 0.0),
        (1, 9, 1, 0.5),
        (9, 1, 2, 0.5),
        (6, 6, 6, 1.0),
        (63, 40, 8, 0.1),
    ],
)
def test_awkward_sizes(operation, n, m, p, density):
    assert_matches_dense(operation, random_inputs(n, m, p, density, seed=5), 1e-11)


@every_operation
def test_a_batch_of_values(operation):
    inputs = random_inputs(5, 4, 3, 0.5, seed=8, batch=(2,))
    assert_matches_dense(operation, inputs, 1e-12)


@every_operation
def test_derivatives_of_first_and_second_order(operation):
    inputs = random_inputs(4, 3, 4, 0.5, seed=2)

    def function(*tensors: Tensor) -> Tensor:
        return values_of(operation.sparse(inputs.with_tensors(*tensors)))

    options = {"fast_mode": True, "atol": 1e-7}
    assert gradcheck(function, inputs.tensors(), check_forward_ad=True, **options)
    assert gradgradcheck(function, inputs.tensors(), check_fwd_over_rev=True, **options)


@pytest.mark.parametrize(
    "operation",
    [
        lambda A, x: A @ x,
        lambda A, x: A @ torch.stack([x, x], -1),
        lambda A, x: (A @ A).values,
        lambda A, x: (A + A.T @ A).values,
        lambda A, x: A.softmax(-1).values,
        lambda A, x: A[1:-1, :].values,
        lambda A, x: solve_triangular(A, x),
        lambda A, x: solve(A, x),
        lambda A, x: spmm(A, x.unsqueeze(-1), "max"),
    ],
)
def test_gradients_are_never_dense(operation):
    """A dense gradient, or anything else of n^2 numbers, would take 2 TB here."""
    n = 500_000
    A = poisson(n, dtype=torch.float64).requires_grad_()
    x = torch.ones(n, dtype=torch.float64, requires_grad=True)
    for gradient in torch.autograd.grad(
        operation(A, x).square().sum(), (A.values, x), allow_unused=True
    ):
        assert gradient is None or gradient.shape in (A.values.shape, x.shape)
