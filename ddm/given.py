"""A user's arguments as a problem: a matrix of SciPy or of this library, or a problem already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ddm.coarse.neumann import check_elements
from ddm.problems.matrix import from_matrix
from ddm.problems.problem import Elements, Problem
from sparsetorch import CSRTensor

SUMS = 1e-8
"""Element matrices sum to A up to so much of its largest entry, or of its norm: files hold fewer
digits. Or up to 100 times the rounding of the types that both come in, where that is more."""


def check_not_beside(**given: object) -> None:
    """Refuse what a problem brings where it is given beside one: all arguments are to be None.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: the problem has it; use dataclasses.replace(problem)")


def as_problem(
    A: Any,
    b: np.ndarray | torch.Tensor | None = None,
    *,
    coords: np.ndarray | None = None,
    near_nullspace: np.ndarray | None = None,
    block_size: int | None = None,
    elements: Elements | None = None,
) -> Problem:
    """The problem that a user means.

    Args:
        A: an (n, n) SciPy sparse matrix, the path of a file of one, a CSRTensor, or a `Problem`,
            which brings the rest.
        b: (n,) right-hand side; None takes the problem's, or normal numbers (seed 0) where that
            has none or it is zero.
        coords: (n, d) positions of the unknowns.
        near_nullspace: (n, k), see `ddm.from_matrix`.
        block_size: unknowns a node; None is one.
        elements: element matrices that sum to A.

    Raises:
        TypeError: A is something else.
        ValueError: what a problem brings is given beside it, even if it is the same; arrays that do
            not fit; a matrix that `from_matrix` refuses: not square, NaN, zero rows, singular.
    """
    if isinstance(b, torch.Tensor):
        b = b.detach().cpu().numpy()
    if isinstance(A, Problem):
        check_not_beside(
            coords=coords, near_nullspace=near_nullspace, block_size=block_size, elements=elements
        )
        return with_load(A) if b is None else with_right_hand_side(A, b)
    if isinstance(A, CSRTensor):
        if A.ndim != 2:
            raise ValueError(f"A: expected one matrix, got shape {tuple(A.shape)}")
        A = A.detach().to("cpu").to_scipy()
    problem = from_matrix(
        A, b, coordinates=coords, block_size=block_size, near_nullspace=near_nullspace
    )
    if elements is None:
        return problem
    check_sum(elements, problem.A, max(rounding(A), rounding(elements.matrices)))
    return replace(problem, elements=elements)


def rounding(given: Any) -> float:
    """The relative rounding of what a user gives: 0 for whole numbers and for files."""
    kind = getattr(getattr(given, "dtype", None), "kind", "")
    return float(np.finfo(given.dtype).eps) if kind in ("f", "c") else 0.0


def with_load(problem: Problem) -> Problem:
    """The problem with normal numbers (seed 0) as b where that is zero: nothing would be solved."""
    if problem.b.any():
        return problem
    return with_right_hand_side(problem, np.random.default_rng(0).standard_normal(len(problem.b)))


def check_sum(elements: Elements, A: sp.csr_array, relative: float) -> None:
    """Refuse element matrices that do not sum to A (n, n).

    Args:
        relative: the coarsest rounding of both, see `rounding`.

    Raises:
        TypeError, ValueError: see `check_elements`; they do not.
    """
    check_elements(elements.dofs, elements.matrices, A.shape[0])
    summed = elements.assemble(A.shape[0])
    difference, size = abs(summed - A), abs(A.data).max()
    if difference.nnz and not difference.data.max() <= max(SUMS, 100 * relative) * size:
        worst = sp.coo_array(difference)
        at = worst.data.argmax()
        raise ValueError(
            f"elements: expected matrices that sum to A, got a difference of {worst.data[at]:.3g} "
            f"in entry ({worst.row[at]}, {worst.col[at]}), where A's largest is {size:.3g}"
        )


def with_right_hand_side(problem: Problem, b: Any) -> Problem:
    """The problem with another b (n,), in the range of A where that has a null space.

    Raises:
        TypeError: b is complex and A real.
        ValueError: another shape, or entries that are not finite.
    """
    b = np.asarray(b)
    if b.shape != problem.b.shape:
        raise ValueError(f"b: expected shape {problem.b.shape}, got {b.shape}")
    if not np.isfinite(b).all():
        raise ValueError("b: some entries are not finite")
    if np.iscomplexobj(b) and not np.iscomplexobj(problem.b):
        raise TypeError("b: complex, but A is real")
    b = b.astype(problem.b.dtype)
    if problem.nullspace is not None:
        left = problem.nullspace
        b = b - left @ (left.conj().T @ b)
    return replace(problem, b=b)
