"""The same operations and solvers on a GPU, against the CPU; skipped where there is none."""

import pytest
import torch
from operations import OPERATIONS, random_inputs, values_of
from random_matrices import random_square

from sparsetorch import CSRTensor
from sparsetorch.linalg import solve

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_matches_the_cpu(operation):
    here = random_inputs(40, 30, 20, 0.2, seed=4)
    there = here._replace(
        **{name: getattr(here, name).to("cuda") for name in here._fields[3:]},
        **{name: getattr(here, name).detach().to("cuda").requires_grad_() for name in "ABC"},
    )
    expected, got = values_of(operation.sparse(here)), values_of(operation.sparse(there))
    torch.testing.assert_close(got.cpu(), expected)
    if expected.requires_grad:
        weights = torch.linspace(1, 2, expected.numel(), dtype=torch.float64).reshape(
            expected.shape
        )
        for g, e in zip(
            torch.autograd.grad(got, there.tensors(), weights.cuda(), materialize_grads=True),
            torch.autograd.grad(expected, here.tensors(), weights, materialize_grads=True),
        ):
            torch.testing.assert_close(g.cpu(), e)


def test_structure_of_triplets():
    row, col = torch.randint(0, 30, (2, 500))
    values = torch.randn(500, dtype=torch.float64)
    here = CSRTensor.from_coo(row, col, values, (30, 30))
    there = CSRTensor.from_coo(row.cuda(), col.cuda(), values.cuda(), (30, 30))
    assert torch.equal(there.pattern.col.cpu(), here.pattern.col)
    torch.testing.assert_close(there.values.cpu(), here.values)


@pytest.mark.parametrize("method", ["cg", "gmres", "fgmres"])
def test_iterative_solvers(method):
    A = random_square(50, symmetric=True)
    b = torch.ones(50, dtype=torch.float64)
    there = A.detach().to("cuda").requires_grad_()
    x, y = solve(A, b, method), solve(there, b.cuda(), method)
    torch.testing.assert_close(y.cpu(), x)
    x.sum().backward()
    y.sum().backward()
    assert A.values.grad is not None
    assert there.values.grad is not None
    torch.testing.assert_close(there.values.grad.cpu(), A.values.grad)


def test_the_direct_method_says_where_it_runs():
    with pytest.raises(ValueError, match="the direct method runs on the CPU, got cuda:0"):
        solve(CSRTensor.eye(2).to("cuda"), torch.ones(2, device="cuda"))
