"""Operands with int32 and with int64 indices together: the same numbers, on the wider ones."""

from typing import Any

import pytest
import torch
from operations import OPERATIONS, random_inputs, values_of
from random_matrices import random_csr
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, eye, masked_matmul


def long(A: CSRTensor) -> CSRTensor:
    return CSRTensor(A.pattern.long, A.values)


@pytest.mark.parametrize("wide", ["A", "B", "C"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_every_operation_takes_both(operation, wide):
    inputs = random_inputs(6, 5, 4, 0.4, seed=2)
    mixed = inputs._replace(**{wide: long(getattr(inputs, wide))})
    found, expected = operation.sparse(mixed), operation.sparse(inputs)
    torch.testing.assert_close(values_of(found), values_of(expected))
    gradients = [
        torch.autograd.grad(values_of(result).square().sum(), inputs.tensors(), allow_unused=True)
        for result in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


A: Any = random_csr(5, 4, 0.5, seed=0)
B: Any = random_csr(5, 4, 0.5, seed=1)


@pytest.mark.parametrize(
    "operation",
    [
        lambda A, B: A + B,
        lambda A, B: A - B,
        lambda A, B: A * B,
        lambda A, B: A @ B.T,
        lambda A, B: masked_matmul(A, B.T, (A @ A.T).pattern),
    ],
)
@pytest.mark.parametrize("wide", [0, 1])
def test_second_derivatives_and_the_dtype_of_the_result(operation, wide):
    first, second = (long(A), B) if wide == 0 else (A, long(B))
    result = operation(first, second)
    if "masked_matmul" not in operation.__code__.co_names:
        assert {result.pattern.dtype, result.pattern.crow.dtype} == {torch.int64}
        assert operation(first, second).pattern is result.pattern  # the structure is kept

    def values(a: Any, b: Any) -> Any:
        return operation(first.with_values(a), second.with_values(b)).values

    assert gradcheck(values, (A.values, B.values), check_forward_ad=True)
    assert gradgradcheck(values, (A.values, B.values))


def test_an_identity_is_added_to_a_matrix_with_int64_indices():
    M = long(random_csr(16, 16, 0.2, seed=4))
    identity = eye(16, dtype=torch.float64)
    assert identity.pattern.dtype == torch.int32
    for total in (M + identity, identity + M):
        torch.testing.assert_close(total.to_dense(), M.to_dense() + torch.eye(16).double())


def test_a_mask_keeps_its_own_pattern():
    mask = (A @ A.T).pattern
    product = masked_matmul(long(A), B.T, mask)
    assert product.pattern is mask
    torch.testing.assert_close(product.values, masked_matmul(A, B.T, mask).values)


@pytest.mark.parametrize("operation", [lambda A, B: A + B, lambda A, B: A.matmul(B.T)])
def test_compiled_after_a_first_call(operation):
    torch._dynamo.reset()
    wide = long(A)
    expected = operation(wide, B)
    assert expected.pattern.T.nnz == expected.nnz

    def values(a: Any) -> Any:
        return operation(wide.with_values(a), B).values

    expected = torch.autograd.grad(values(A.values).square().sum(), A.values)[0]
    compiled = torch.compile(values, fullgraph=True, backend="aot_eager")(A.values)
    got = torch.autograd.grad(compiled.square().sum(), A.values)[0]
    torch.testing.assert_close(got, expected)
