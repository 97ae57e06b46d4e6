"""The direct solver of CUDA: what it asks of nvmath, with SciPy's LU in the place of cuDSS.

The stand-in has the calls of nvmath-python 1.0 and refuses what that refuses: other shapes than
those planned for, solves without factors, factors without a plan.
"""

import copy
import pickle
import sys
import types
from typing import ClassVar

import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import splu

import sparsetorch as st
from sparsetorch.linalg import factorized
from sparsetorch.linalg.cudss import cudss


class DirectSolver:
    made: ClassVar[list["DirectSolver"]] = []

    def __init__(self, a, b):
        self.a, self.b, self.shape = a, b, b.shape
        self.planned, self.factored, self.counts = False, None, 0
        assert a.crow_indices().dtype == a.col_indices().dtype == torch.int32
        DirectSolver.made.append(self)

    def reset_operands(self, *, a=None, b=None):
        if a is not None:
            assert a.shape == self.a.shape
            self.a, self.factored = a, None
        if b is not None:
            assert b.shape == self.shape
            assert b.is_contiguous()
            self.b = b

    def plan(self):
        self.planned = True

    def factorize(self):
        assert self.planned
        arrays = (self.a.values(), self.a.col_indices(), self.a.crow_indices())
        matrix = sparse.csr_array(tuple(t.numpy() for t in arrays), shape=tuple(self.a.shape))
        self.factored = splu(matrix.tocsc())
        self.counts += 1

    def solve(self):
        assert self.factored is not None
        return torch.from_numpy(self.factored.solve(self.b.numpy()))


@pytest.fixture
def solvers(monkeypatch):
    for name in ("nvmath", "nvmath.sparse", "nvmath.sparse.advanced"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = sys.modules["nvmath.sparse.advanced"]
    monkeypatch.setattr(module, "DirectSolver", DirectSolver, raising=False)
    DirectSolver.made = []
    return DirectSolver.made


def matrix(seed: int, dtype=torch.float64) -> st.CSRTensor:
    gen = torch.Generator().manual_seed(seed)
    pattern = st.poisson(4, 5).pattern
    values = torch.randn(pattern.nnz, generator=gen, dtype=dtype)
    return st.CSRTensor(pattern, values) + 4 * st.eye(20, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(20,), (20, 3), (20, 0)])
def test_it_solves_both_ways(solvers, dtype, shape):
    A = matrix(0, dtype)
    b = torch.randn(3, *shape[:1], dtype=dtype).mT[:, : shape[1]] if shape[1:] else A @ A.diagonal()
    factors = cudss(A)
    for matrix_, x in (
        (A, factors.solve(b)),
        (A.T, factors.solve(b, transpose=True)),
        (A.T, factors.T.solve(b)),
        (A, factors.T.T(b)),
    ):
        assert x.shape == b.shape
        torch.testing.assert_close(matrix_ @ x, b, atol=1e-4, rtol=1e-5)
    assert [solver.counts for solver in solvers] == [1, 1] if b.numel() else [1]


def test_copies_are_refused_by_name(solvers):
    for copy_of in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cuDSS cannot be copied or pickled"):
            copy_of(cudss(matrix(0)))


def test_new_values_keep_the_plan_and_old_factors_stay_right(solvers):
    A = matrix(0)
    first = cudss(A)
    other = first.refactorized(A.with_values(2 * A.values))
    b = torch.ones(20, dtype=torch.float64)
    x = other.solve(b)
    torch.testing.assert_close(first.solve(b), 2 * x)
    torch.testing.assert_close(other.solve(b), x)
    assert len(solvers) == 1
    assert solvers[0].counts == 4
    other.solve(b)
    assert solvers[0].counts == 4
    with pytest.raises(ValueError, match="A: expected the pattern that was factorized"):
        first.refactorized(st.eye(20, dtype=torch.float64))


def test_the_factors_are_those_of_the_values_at_that_time(solvers):
    A, b = matrix(0), torch.ones(20, dtype=torch.float64)
    factors, x = cudss(A), cudss(A.T).solve(b)
    A.values.mul_(3)  # as an optimizer does, before the transpose is factored
    torch.testing.assert_close(factors.solve(b, transpose=True), x)


def test_what_it_refuses(solvers):
    factors = cudss(matrix(0))
    with pytest.raises(NotImplementedError, match="slogdet: cuDSS gives no determinant"):
        factors.slogdet()
    with pytest.raises(ValueError, match="b: expected"):
        factors.solve(torch.ones(5, dtype=torch.float64))


def test_without_nvmath_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvmath", None)
    with pytest.raises(ImportError, match=r"pip install 'nvmath-python\[cu13\]'"):
        cudss(matrix(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda():
    pytest.importorskip("nvmath")
    A = matrix(0).to("cuda")
    b = torch.randn(20, 2, dtype=torch.float64, device="cuda")
    factors = factorized(A)
    torch.testing.assert_close(A @ factors.solve(b), b)
    torch.testing.assert_close(A.T @ factors.solve(b, transpose=True), b)
