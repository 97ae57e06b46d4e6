"""From element matrices, a load and boundary conditions to the system of the unknowns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from skfem import BilinearForm, LinearForm

from ddm.entries import some_entries
from ddm.problems.boundary import Conditions
from ddm.problems.problem import Elements, Kind, Problem
from ddm.problems.singular import Singular, settle
from ddm.problems.space import Space
from ddm.problems.values import evaluate, real


def add_flux(space: Space, parts: Conditions, K: np.ndarray, load: np.ndarray) -> None:
    """Add the integrals over the boundary to element matrices (m, k, k) and load, in place.

    `g v` for each flux g; `alpha u v` and `g v` for each pair (alpha, g) of the Robin condition
    flux + alpha u = g, where alpha may be an array (m,), one an element.

    Raises:
        ValueError: values of another shape or not finite; a Robin value that is not a pair.
    """
    for facets, g in parts.neumann:
        load += _flux(space, facets, g, "neumann", load.dtype)
    for facets, value in parts.robin:
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(f"robin: expected a pair (alpha, g), got {value!r}")
        alpha, g = value
        elements, local = _mass(space, facets, alpha, K.dtype)
        np.add.at(K, elements, local)
        load += _flux(space, facets, g, "robin: g", load.dtype)


def _mass(space: Space, facets: np.ndarray, alpha: Any, dtype: Any) -> tuple[Any, np.ndarray]:
    """Integrals of `alpha u v` over facets, (f, k, k), and their elements, (f,)."""
    basis = space.on_facets(facets)
    if not callable(alpha) and np.shape(alpha) == (space.mesh.nelements,):
        weight = np.asarray(alpha)[basis.tind, None]
    else:
        weight = evaluate(alpha, np.asarray(basis.global_coordinates()), "robin: alpha")
    if np.issubdtype(dtype, np.floating) and (real(weight, "robin: alpha") < 0).any():
        raise ValueError(
            f"robin: expected alpha of at least 0, got {weight.min():g}: the matrix would not be "
            "known to be definite"
        )
    form = BilinearForm(lambda u, v, w: weight * _inner(u, v), dtype=dtype.type)
    return basis.tind, form.elemental(basis).tolocal().swapaxes(1, 2)


def _inner(u: Any, v: Any) -> Any:
    u, v = np.asarray(u), np.asarray(v)
    return u * v if u.ndim == 2 else np.einsum("i...,i...->...", u, v)


def _flux(space: Space, facets: np.ndarray, g: Any, name: str, dtype: Any) -> np.ndarray:
    shape = (space.block_size,) if space.block_size > 1 else ()
    if shape and np.ndim(g) == 0 and not callable(g) and g == 0:
        g = np.zeros(shape)

    def form(v: Any, w: Any) -> Any:
        values = evaluate(g, np.asarray(w.x), name, shape)
        return _inner(values if np.issubdtype(dtype, np.complexfloating) else real(values, name), v)

    return LinearForm(form, dtype=dtype.type).assemble(space.on_facets(facets))


def prescribed(space: Space, parts: Conditions, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which degrees of freedom Dirichlet conditions fix, (N,) bool, and their values, (N,).

    For blocks a value is a sequence with None where a component stays free. Where parts meet, the
    one that was named last holds.

    Raises:
        ValueError: values of another shape or not finite.
    """
    size = space.block_size
    fixed = np.zeros(space.size, dtype=bool)
    values = np.zeros(space.size, dtype=dtype)
    for facets, value in parts.dirichlet:
        nodes = space.nodes_of(facets)
        for component, found in enumerate(_components(value, space.points[:, nodes], size)):
            if found is None:
                continue
            if np.issubdtype(dtype, np.floating):
                real(found, "dirichlet")
            fixed[nodes * size + component] = True
            values[nodes * size + component] = found
    return fixed, values


def _components(value: Any, x: np.ndarray, size: int) -> list[np.ndarray | None]:
    """Prescribed values (p,) of each component at points (d, p); None where one is free."""
    if size == 1 or callable(value):
        found = evaluate(value, x, "dirichlet", (size,) if size > 1 else ())
        return list(found.reshape(size, -1))
    if value is None:
        raise ValueError(f"dirichlet: expected {size} components, got None; leave the part out")
    listed = [value] * size if isinstance(value, int | float) else list(value)
    if len(listed) != size:
        raise ValueError(f"dirichlet: expected {size} components, got {value!r}")
    return [None if c is None else evaluate(c, x, "dirichlet") for c in listed]


def pinned(K: np.ndarray, pins: np.ndarray) -> np.ndarray:
    """Element matrices (m, k, k) without the couplings of pinned degrees of freedom (m, k)."""
    off = (pins[:, :, None] | pins[:, None, :]) & ~np.eye(pins.shape[1], dtype=bool)
    return np.where(off, 0, K)


def without_rounding(
    A: sp.csr_array, block_size: int = 1, pins: np.ndarray | None = None
) -> sp.csr_array:
    """A without entries that are zero but for rounding: no couplings, no edges.

    Right angles give exact zeros that come out of assembly as 1e-17. Blocks of nodes that are
    coupled stay whole, zeros and all: Neumann matrices have entries where those of A cancel.

    Args:
        A: assembled, all blocks stored.
        block_size: unknowns a node.
        pins: mask (n,) of unknowns without couplings, whose zeros go all the same.
    """
    size = np.sqrt(abs(A.diagonal())).reshape(-1, block_size)
    blocks = A.tobsr((block_size, block_size))  # (blocks, block_size, block_size)
    row = np.repeat(np.arange(len(size)), np.diff(blocks.indptr))
    scale = size[row][:, :, None] * size[blocks.indices][:, None, :]
    blocks.data[abs(blocks.data) < 1e-14 * scale] = 0.0
    A = some_entries(blocks, (blocks.data != 0).any(axis=(1, 2))).tocsr()
    if pins is not None and pins.any():
        row = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
        A = some_entries(A, ~(pins[row] | pins[A.indices]) | (row == A.indices))
    A.sort_indices()
    return A


@dataclass(frozen=True)
class Discrete:
    """Element matrices (m, k, k), load (N,), and what a class of problems knows of its matrix.

    Attributes:
        space: the elements.
        matrices: of all degrees of freedom, boundary included.
        load: of the same.
        conditions: on the boundary; their fluxes are in `matrices` and `load` already.
        modes: (N, k) near null space.
        kind: of a regular matrix.
    """

    space: Space
    matrices: np.ndarray
    load: np.ndarray
    conditions: Conditions
    modes: np.ndarray
    kind: Kind


def problem_of(
    discrete: Discrete, *, singular: Singular | None = "refuse", keep_elements: bool = True
) -> Problem:
    """Eliminate the prescribed values; a node with free and fixed components keeps them all.

    Its fixed components become equations `a_ii u_i = a_ii g_i` without couplings, so that blocks
    stay whole and the matrix symmetric.

    Args:
        discrete: the elements' equations.
        singular: see `ddm.problems.singular.settle`; None where the matrix cannot be singular
            through `modes`.
        keep_elements: whether the problem holds its element matrices.

    Raises:
        ValueError: no free node, and what `settle` refuses.
    """
    space, K, load = discrete.space, discrete.matrices, discrete.load
    size, dofs = space.block_size, space.dofs
    fixed, values = prescribed(space, discrete.conditions, load.dtype)
    interior = np.flatnonzero(~fixed.reshape(-1, size).all(axis=1))
    if len(interior) == 0:
        raise ValueError("mesh: every node lies on the boundary; refine it")
    unknowns = (interior[:, None] * size + np.arange(size)).ravel()
    if values.any():
        local = np.einsum("mij,mj->mi", K, values[dofs])
        load = load.astype(np.result_type(load, local))
        np.subtract.at(load, dofs.ravel(), local.ravel())
    modes = discrete.modes[unknowns]
    kept = fixed[unknowns]
    if kept.any():
        K = pinned(K, fixed[dofs])
        modes = np.where(kept[:, None], 0, modes)
    numbering = np.full(len(fixed), -1, dtype=np.int64)
    numbering[unknowns] = np.arange(len(unknowns))
    elements = Elements(numbering[dofs], K)
    A = without_rounding(elements.assemble(len(unknowns)), size, kept)
    b = load[unknowns]
    b[kept] = (A.diagonal() * values[unknowns])[kept]
    values[unknowns] = 0
    problem = Problem(
        A,
        b,
        space.mesh,
        interior,
        positions=np.repeat(space.points[:, interior].T, size, axis=0),
        boundary_values=values,
        block_size=size,
        near_nullspace=modes,
        kind=discrete.kind,
        elements=elements if keep_elements else None,
    )
    return problem if singular is None else settle(problem, singular)
