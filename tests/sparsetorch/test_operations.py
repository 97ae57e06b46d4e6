"""Values, gradients and second derivatives of every operation, against dense tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import OPERATIONS, Inputs, Operation, as_tensor, random_inputs, values_of
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)


def gradients(result: Tensor, inputs: Inputs) -> tuple[Tensor, ...]:
    weights = torch.linspace(1, 2, result.numel(), dtype=result.dtype).reshape(result.shape)
    return torch.autograd.grad(
        (result * weights).sum(), inputs.tensors(), allow_unused=True, materialize_grads=True
    )


def assert_matches_dense(operation: Operation, inputs: Inputs, tolerance: float) -> None:
    result = as_tensor(operation.sparse(inputs))
    reference = operation.reference(inputs.densified())
    torch.testing.assert_close(result, reference, rtol=tolerance, atol=tolerance)
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
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)], ids=str
)
def test_matches_dense(operation, dtype, tolerance, index_dtype):
    inputs = random_inputs(7, 5, 6, 0.4, seed=3, dtype=dtype, index_dtype=index_dtype)
    assert inputs.A.pattern.dtype == index_dtype
    assert_matches_dense(operation, inputs, tolerance)


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


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    operation=st.sampled_from(OPERATIONS),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
    density=st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]),
    seed=st.integers(0, 10_000),
    batch=st.sampled_from([(), (2,)]),
    index_dtype=st.sampled_from([torch.int32, torch.int64]),
)
def test_random_matrices(operation, sizes, density, seed, batch, index_dtype):
    n, m, p = sizes
    inputs = random_inputs(n, m, p, density, seed, batch=batch, index_dtype=index_dtype)
    assert_matches_dense(operation, inputs, 1e-11)
