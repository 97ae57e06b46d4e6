"""Singular systems: found, and then refused, grounded, or solved on the complement of the kernel.

A system is found to be singular through its near null space, component by component: pure Neumann
problems, graph Laplacians, and elastic bodies that nothing holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ddm.matrix_properties import rounding
from ddm.problems.problem import Elements, Problem

Singular = Literal["refuse", "ground", "nullspace", "regular"]
TOLERANCE = 1e-10
"""Of A z against abs(A) abs(z), in the root mean square of the rows. Or one unit of A's rounding,
where that is more: assembled in float32 a null vector leaves a third of it. A regular matrix that
leaves no more, such as one with a tiny reaction term, cannot be told apart: "regular" says so."""


def null_vectors(A: sp.csr_array, modes: np.ndarray, relative: float) -> np.ndarray:
    """Orthonormal basis (n, j) of the vectors in the span of `modes` that A maps to rounding.

    Args:
        A: (n, n).
        modes: (n, k).
        relative: what counts as rounding, see `TOLERANCE`.
    """
    n = A.shape[0]
    modes = modes[:, (modes != 0).any(axis=0)]
    if n == 0 or modes.shape[1] == 0:
        return np.zeros((n, 0))
    Z = scipy.linalg.orth(modes)
    bound = abs(A) @ abs(Z).max(axis=1)
    residual = (A @ Z) / np.where(bound > 0, bound, 1)[:, None]
    _, sizes, right = np.linalg.svd(residual, full_matrices=False)
    return Z @ right[sizes <= relative * np.sqrt(n)].conj().T


@dataclass(frozen=True)
class Kernel:
    """Null vectors of one connected component of a matrix's graph.

    Attributes:
        unknowns: (m,) of the component.
        vectors: (m, j) orthonormal, j at least 1; zero elsewhere.
    """

    unknowns: np.ndarray
    vectors: np.ndarray


def kernels(A: sp.csr_array, modes: np.ndarray) -> list[Kernel]:
    """The null vectors of each component in the span of `modes` (n, k) there.

    On one component alone a mode can be null where it is not on all of them: constants, if a
    boundary condition holds one of two bodies.
    """
    graph = abs(A)
    graph.eliminate_zeros()
    count, part = connected_components(graph, directed=False)
    relative = max(TOLERANCE, rounding(A.data))
    # Components one after another: each is then a slice, which costs no more than its own entries.
    order = np.argsort(part, kind="stable")
    sorted_A = A if count == 1 else A[order][:, order]
    sizes = np.bincount(part)
    last = np.cumsum(sizes)
    first = last - sizes
    # Rows of the identity and their like are regular, and there can be many.
    regular = (sizes == 1) & (sorted_A.diagonal()[first] != 0)
    found = []
    for start, end in zip(first[~regular], last[~regular]):
        unknowns = order[start:end]
        null = null_vectors(sorted_A[start:end, start:end], modes[unknowns], relative)
        if null.shape[1]:
            found.append(Kernel(unknowns, null))
    return found


def settle(problem: Problem, singular: Singular) -> Problem:
    """The same problem if its matrix is regular; else what `singular` says.

    Null vectors are looked for in the near null space, on each connected component of the matrix's
    graph.

    Args:
        problem: with a near null space.
        singular: "refuse"; "ground": as many unknowns as there are null vectors become zero, by
            equations without couplings; "nullspace": the null vectors go into the problem and out
            of b, for methods that take a null space, or CG, which needs no more than such a b;
            "regular": nothing is looked for, since the matrix is known to be regular.

    Raises:
        ValueError: a singular matrix that is refused; a null space asked of one that is not
            symmetric; another `singular`.
    """
    if singular not in get_args(Singular):
        raise ValueError(f"singular: expected one of {get_args(Singular)}, got {singular!r}")
    if singular == "regular":
        return problem
    assert problem.near_nullspace is not None
    found = kernels(problem.A, problem.near_nullspace)
    if not found:
        return problem
    if singular == "refuse":
        count = sum(kernel.vectors.shape[1] for kernel in found)
        raise ValueError(
            f"the matrix is singular: it has {count} null vector(s), up to rounding, such as "
            "constants or rigid motions that no boundary condition fixes"
            f"{f', on {len(found)} components of its graph' if len(found) > 1 else ''}; "
            "prescribe values somewhere on each component, or choose "
            "singular='ground' (fix as many unknowns) or singular='nullspace'; or, if you know it "
            "to be regular, as with a tiny reaction term, singular='regular'"
        )
    if singular == "ground":
        return ground(problem, found)
    if problem.kind == "general":
        raise ValueError(
            "singular: 'nullspace' needs a symmetric matrix, whose left null vectors are the same; "
            "choose 'ground'"
        )
    null = _together(found, problem.A.shape[0])
    hermitian = problem.kind == "spd" and np.iscomplexobj(problem.A.data)
    problem = replace(problem, nullspace=null, kind="general" if hermitian else "symmetric")
    return with_part_in_range(problem, problem.b)


def with_part_in_range(problem: Problem, b: np.ndarray) -> Problem:
    """The problem with the part of b (n,) that is in the range of A: all of it, if A is regular.

    Where unknowns are fixed to zero in the place of a null space, b is zero there.
    """
    null = problem.nullspace
    if null is None:
        fixed = problem.fixed
        return replace(problem, b=b if fixed is None else np.where(fixed, 0, b))
    left = null.conj() if problem.kind == "symmetric" else null  # null vectors of A^H
    return replace(problem, b=b - left @ (left.conj().T @ b))


def _together(found: list[Kernel], n: int) -> np.ndarray:
    """All null vectors, (n, j)."""
    dtype = np.result_type(*(kernel.vectors for kernel in found))
    null = np.zeros((n, sum(kernel.vectors.shape[1] for kernel in found)), dtype)
    first = 0
    for kernel in found:
        last = first + kernel.vectors.shape[1]
        null[kernel.unknowns, first:last] = kernel.vectors
        first = last
    return null


def ground(problem: Problem, found: list[Kernel]) -> Problem:
    """The problem with one unknown a null vector fixed to zero, chosen to be independent.

    The solution is that of the singular system which is zero there, if b is in A's range; else
    the fixed unknowns take up what is missing.
    """
    pins = np.zeros(len(problem.b), dtype=bool)
    for kernel in found:
        pivots = scipy.linalg.qr(kernel.vectors.T, mode="r", pivoting=True)[-1]
        pins[kernel.unknowns[pivots[: kernel.vectors.shape[1]]]] = True
    A = problem.A.copy()
    row = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    A.data[(pins[row] | pins[A.indices]) & (row != A.indices)] = 0
    A.eliminate_zeros()
    elements = problem.elements
    if elements is not None:
        held = pins[elements.dofs] & (elements.dofs >= 0)
        off = (held[:, :, None] | held[:, None, :]) & ~np.eye(held.shape[1], dtype=bool)
        elements = Elements(elements.dofs, np.where(off, 0, elements.matrices))
    modes = problem.near_nullspace
    grounded = replace(
        problem,
        A=A,
        elements=elements,
        near_nullspace=None if modes is None else np.where(pins[:, None], 0, modes),
        fixed=pins,
    )
    return with_part_in_range(grounded, problem.b)
