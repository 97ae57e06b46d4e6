"""A user's arguments as a problem: a matrix of SciPy or of this library, or a problem already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ddm.coarse.neumann import check_elements
from ddm.matrix_properties import largest, rounding
from ddm.problems.graph import check_numeric
from ddm.problems.matrix import from_matrix
from ddm.problems.problem import Elements, Problem
from ddm.problems.singular import with_part_in_range
from sparsetorch import CSRTensor

SUMS = 1e-8
"""Element matrices sum to A up to so much of the entries of each row: files hold fewer digits. Or
up to 100 units of rounding of either, where that is more."""


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
            not fit; a matrix that `from_matrix` refuses: not square, NaN, zero rows, singular;
            elements that do not sum to A.
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
    check_sum(elements, problem.A, rounding(A.tocsr().data) if sp.issparse(A) else 0.0)
    return replace(problem, elements=elements)


def with_load(problem: Problem) -> Problem:
    """The problem with normal numbers (seed 0) as b where that is zero: nothing would be solved."""
    if problem.b.any():
        return problem
    return with_right_hand_side(problem, np.random.default_rng(0).standard_normal(len(problem.b)))


def check_sum(elements: Elements, A: sp.csr_array, relative: float = 0.0) -> None:
    """Refuse element matrices that do not sum to A (n, n), row by row.

    Products with a random vector tell, at the cost of one with A. The vector is scaled so that no
    large entry, such as a penalty, hides what is wrong in other rows.

    Args:
        elements: the element matrices.
        A: (n, n).
        relative: unit of rounding that A came with, where its values do not show it.

    Raises:
        TypeError: they are no `Elements`, or complex for a real A.
        TypeError, ValueError: see `check_elements`.
        ValueError: they do not sum to A.
    """
    if not isinstance(elements, Elements):
        raise TypeError(
            f"elements: expected ddm.problems.Elements, got {type(elements).__name__}; "
            "Elements(dofs, matrices) makes them"
        )
    n, dofs, matrices = A.shape[0], elements.dofs, elements.matrices
    check_elements(dofs, matrices, n)
    if np.iscomplexobj(matrices) and not np.iscomplexobj(A.data):
        raise TypeError("elements: complex, but A is real")
    random, size = np.random.default_rng(0), largest(A)
    x = random.choice([-1.0, 1.0], n) * random.uniform(1, 2, n)  # away from zero: all entries count
    scale = np.sqrt(np.where(size > 0, size, 1))
    x /= scale
    present = dofs >= 0
    difference = A @ x
    summed = np.einsum("mij,mj->mi", matrices, np.where(present, x[dofs], 0.0))
    np.subtract.at(difference, dofs[present], summed[present])
    allowed = max(SUMS, 100 * max(relative, rounding(A.data), rounding(matrices)))
    excess = (abs(difference) - allowed * (abs(A) @ abs(x))) / scale
    row = int(excess.argmax())
    if not excess[row] <= 0:
        found = sp.coo_array(elements.assemble(n)[[row]] - A[[row]])
        at = abs(found.data * x[found.col]).argmax()
        raise ValueError(
            f"elements: expected matrices that sum to A, got a difference of {found.data[at]:.3g} "
            f"in entry ({row}, {found.col[at]}), where A's largest of the row is {size[row]:.3g}; "
            "problem.elements.assemble(n) is what they sum to"
        )


def with_right_hand_side(problem: Problem, b: Any) -> Problem:
    """The problem with another b (n,), in the range of A where that has a null space.

    Raises:
        TypeError: b is complex and A real, or has no numbers.
        ValueError: another shape, or entries that are not finite.
    """
    b = np.asarray(b)
    if b.shape != problem.b.shape:
        raise ValueError(f"b: expected shape {problem.b.shape}, got {b.shape}")
    check_numeric("b", b)
    if not np.isfinite(b).all():
        raise ValueError("b: some entries are not finite")
    if np.iscomplexobj(b) and not np.iscomplexobj(problem.b):
        raise TypeError("b: complex, but A is real")
    return with_part_in_range(problem, b.astype(problem.b.dtype))
