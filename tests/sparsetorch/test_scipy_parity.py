"""The iterations, step by step, against the SciPy functions of the same names, on real matrices.

SciPy stops by other rules, so what is compared are iterates: x after k steps is the same up to
rounding, whatever the rule.
"""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch

from sparsetorch import CSRTensor
from sparsetorch.linalg import bicgstab, cg, chebyshev, lsqr, minres
from sparsetorch.precond import Jacobi

gallery = pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]").gallery


def example(name: str) -> sp.csr_array:
    """A matrix that PyAMG ships, or a stencil made by SciPy."""
    stencils = {"helmholtz": (-1.0, 2.0, -1.0), "convection": (-1.3, 2.0, -0.7)}
    if name in stencils:
        below, on, above = stencils[name]
        line = on * np.eye(20) + below * np.eye(20, k=-1) + above * np.eye(20, k=1)
        shift = 1.1 if name == "helmholtz" else 0.0  # within the spectrum: indefinite
        return sp.csr_array(sp.kronsum(line, line) - shift * sp.eye_array(400))
    return sp.csr_array(gallery.load_example(name)["A"])


def relative_error(got: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got.numpy() - expected) / np.linalg.norm(expected))


CASES: list[tuple[Any, str, bool, int]] = [  # method, matrix, preconditioned, steps to compare
    (cg, "airfoil", True, 30),
    (minres, "airfoil", False, 30),
    (minres, "airfoil", True, 30),
    (minres, "helmholtz", False, 30),
    (bicgstab, "airfoil", True, 15),
    (bicgstab, "recirc_flow", True, 10),
    (bicgstab, "convection", False, 10),
]


@pytest.mark.parametrize(
    ("method", "name", "preconditioned", "steps"),
    CASES,
    ids=[f"{m.__name__}-{name}-{p}" for m, name, p, _ in CASES],
)
def test_iterates_are_those_of_scipy(method, name, preconditioned, steps):
    matrix = example(name)
    A = CSRTensor.from_scipy(matrix)
    b = np.random.default_rng(0).standard_normal(matrix.shape[0])
    inverse = sp.diags_array(1 / matrix.diagonal()) if preconditioned else None
    theirs = getattr(scipy.sparse.linalg, method.__name__)
    for k in (1, 2, steps // 2, steps):
        ours = method(
            A, torch.from_numpy(b), preconditioner=Jacobi(A) if preconditioned else None, maxiter=k
        )
        expected, _ = theirs(matrix, b, M=inverse, rtol=1e-15, maxiter=k)
        assert ours.iterations == k
        assert relative_error(ours.x, expected) <= 1e-7, f"step {k}"


@pytest.mark.parametrize("transpose", [False, True])
def test_least_squares_iterates_are_those_of_scipy(transpose):
    matrix = example("recirc_flow")[:, :100]
    matrix = sp.csr_array(matrix.T if transpose else matrix)
    b = np.random.default_rng(0).standard_normal(matrix.shape[0])
    for k in (1, 2, 10, 20):
        x = lsqr(CSRTensor.from_scipy(matrix), torch.from_numpy(b), maxiter=k).x
        expected = scipy.sparse.linalg.lsqr(matrix, b, atol=0, btol=0, iter_lim=k)[0]
        assert relative_error(x, expected) <= 1e-9


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (chebyshev, "airfoil"),
        (minres, "airfoil"),
        (minres, "helmholtz"),
        (bicgstab, "helmholtz"),
        (bicgstab, "recirc_flow"),
    ],
)
def test_solutions_are_those_of_a_factorization(method, name):
    matrix = example(name)
    b = np.random.default_rng(0).standard_normal(matrix.shape[0])
    solution = method(CSRTensor.from_scipy(matrix), torch.from_numpy(b), rtol=1e-12)
    assert solution.converged
    expected = scipy.sparse.linalg.splu(sp.csc_array(matrix)).solve(b)
    assert relative_error(solution.x, expected) <= 1e-9
