"""Random small inputs, good and bad: everything agrees with dense PyTorch, or raises by name."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from operations import OPERATIONS, Operation, random_inputs
from random_matrices import MIXED, dense
from test_operations import REAL, assert_matches_dense
from torch import Tensor

from sparsetorch import CSRTensor, Pattern
from sparsetorch.linalg import SolveError, factorized, solve, solve_triangular
from sparsetorch.linalg.methods import DIRECT
from sparsetorch.linalg.solve import METHODS, Method

TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-10, torch.complex128: 1e-10}
sizes = st.integers(0, 7)


def takes(operation: Operation, dtype: torch.dtype) -> bool:
    return not (dtype.is_complex and any(name in operation.name for name in REAL))


@st.composite
def operations(draw):
    dtype = draw(st.sampled_from(list(TOLERANCES)))
    operation = draw(st.sampled_from([op for op in OPERATIONS if takes(op, dtype)]))
    n, m, p = draw(st.tuples(sizes, sizes, sizes))
    inputs = random_inputs(
        n,
        m,
        p,
        draw(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0])),
        draw(st.integers(0, 10_000)),
        batch=draw(st.sampled_from([(), (1,), (2,), (3, 2)])),
        dtype=dtype,
        index_dtype=draw(st.sampled_from([torch.int32, torch.int64, MIXED])),
    )
    return operation, inputs, TOLERANCES[dtype]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(operations())
def test_operations(drawn):
    operation, inputs, tolerance = drawn
    try:
        operation.reference(inputs.densified())
    except (IndexError, RuntimeError):  # torch has no largest entry among none
        with pytest.raises(ValueError, match="no entries"):
            operation.sparse(inputs)
        return
    assert_matches_dense(operation, inputs, tolerance)


indices = st.lists(st.integers(-1, 4), max_size=6)


def is_pattern(crow: list[int], col: list[int], n: int, m: int) -> bool:
    """The definition, word by word."""
    if len(crow) != n + 1 or crow[0] != 0 or crow[-1] != len(col):
        return False
    if any(a > b for a, b in pairwise(crow)) or not all(0 <= j < m for j in col):
        return False
    rows = [col[a:b] for a, b in pairwise(crow)]
    return all(i < j for row in rows for i, j in pairwise(row))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4), max_size=4).map(lambda t: [0, *t]), indices, sizes, sizes)
@example([0, 2, 3], [0, 1, 1], 2, 2)
@example([0], [], 0, 0)
@example([0, 3, 1, 2], [0, 1], 3, 2)
def test_patterns(crow, col, n, m):
    arrays = torch.tensor(crow), torch.tensor(col, dtype=torch.int64)
    if is_pattern(crow, col, n, m):
        pattern = Pattern(*arrays, (n, m))
        assert pattern.crow.tolist() == crow
        assert pattern.T.T is pattern
        assert pattern.T.nnz == len(col)
    else:
        with pytest.raises(ValueError, match=r"^(crow|col): "):
            Pattern(*arrays, (n, m))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=8), sizes, sizes)
def test_triplets(entries, n, m):
    row, col = torch.tensor(entries, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    values = torch.arange(1.0, len(entries) + 1, dtype=torch.float64)
    if all(0 <= i < n and 0 <= j < m for i, j in entries):
        expected = torch.zeros(n, m, dtype=torch.float64)
        expected.index_put_((row, col), values, accumulate=True)
        assert torch.equal(CSRTensor.from_coo(row, col, values, (n, m)).to_dense(), expected)
    else:
        with pytest.raises(ValueError, match=r"^(row|col): expected indices"):
            CSRTensor.from_coo(row, col, values, (n, m))


@st.composite
def systems(draw):
    """A small system; its entries are few, so that zero pivots and singular matrices are many."""
    n, k = draw(st.integers(0, 6)), draw(st.integers(0, 2))
    entries = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, 0.5])
    D = torch.tensor(draw(st.lists(entries, min_size=n * n, max_size=n * n))).double()
    D = D.reshape(n, n)
    kind = draw(st.sampled_from(["any", "symmetric", "dominant", "definite"]))
    if kind != "any":
        D = (D + D.T) / 2
    if kind in ("dominant", "definite"):
        sign = 1.0 if kind == "definite" else draw(st.sampled_from([1.0, -1.0]))
        D = D + sign * torch.diag(D.abs().sum(1) + 1)
    b = torch.tensor(draw(st.lists(entries, min_size=n * max(k, 1), max_size=n * max(k, 1))))
    b = b.double().reshape((n,) if k == 0 else (n, k))
    if draw(st.booleans()) and b.numel():
        b.view(-1)[0] = draw(st.sampled_from([math.nan, math.inf]))
    return D, b, kind


def is_regular(D: Tensor) -> bool:
    return D.shape[0] == 0 or bool(torch.linalg.svdvals(D)[-1] > 1e-6)


every_method: list[Method] = [*DIRECT, *METHODS]  # type: ignore


@settings(max_examples=300, deadline=None, derandomize=True)
@given(systems(), st.sampled_from(every_method))
def test_systems(system, method):
    """A solution solves the system, with the gradients of dense algebra; the rest raises."""
    D, b, kind = system
    A = CSRTensor.from_dense(D).requires_grad_()
    if not bool(b.isfinite().all()):
        # By b or, where there is no solution for any b, by A.
        with pytest.raises((ValueError, SolveError), match=r"b: expected finite|A: |singular|zero"):
            solve(A, b, method)
        return
    b.requires_grad_()
    if method in ("cholesky", "ldlt") and not torch.equal(D, D.T):
        with pytest.raises(ValueError, match="expected a symmetric matrix"):
            solve(A, b, method)
        return
    options: Any = {} if method in DIRECT else {"rtol": 1e-12}
    try:
        x = solve(A, b, method, **options)
        g = torch.linspace(1, 2, x.numel(), dtype=x.dtype).reshape(x.shape)
        gradients = torch.autograd.grad(x, (A.values, b), g, materialize_grads=True)
    except SolveError:
        must_be_solved = kind == "definite" or (method == "direct" and is_regular(D))
        assert not must_be_solved
        return
    torch.testing.assert_close(D @ x, b, rtol=1e-9, atol=1e-9)
    if is_regular(D):
        exact = A.detach().requires_grad_()
        reference = torch.linalg.solve(dense(exact), b)
        expected = torch.autograd.grad(reference, (exact.values, b), g, materialize_grads=True)
        torch.testing.assert_close(gradients, expected, rtol=1e-6, atol=1e-8)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(systems(), st.booleans(), st.sampled_from(["lu", "auto"]))
def test_factors_and_triangles(system, lower, method):
    D, b, _ = system
    A = CSRTensor.from_dense(D)
    if not bool(b.isfinite().all()):
        b = torch.ones_like(b)
    if is_regular(D):
        factors = factorized(A, method)
        torch.testing.assert_close(D @ factors.solve(b), b, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(D.T @ factors.T.solve(b), b, rtol=1e-9, atol=1e-9)
        sign, logarithm = torch.linalg.slogdet(D)
        torch.testing.assert_close(torch.stack(factors.slogdet()), torch.stack([sign, logarithm]))
    T = D.tril() if lower else D.triu()
    if bool((D.diagonal() == 0).any()):
        with pytest.raises(SolveError, match=r"diagonal entry of row \d is zero"):
            solve_triangular(A, b, lower=lower)
    else:
        x = solve_triangular(A, b, lower=lower)
        torch.testing.assert_close(T @ x, b, rtol=1e-9, atol=1e-9)
