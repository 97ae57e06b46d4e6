"""Problems from a user's own matrix, or from a file of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import scipy.io
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ddm.coarse.vectors import modes_of
from ddm.matrix_properties import UNITS, is_hermitian, is_symmetric, rounding
from ddm.pieces import check_block_size
from ddm.positions import positions_of
from ddm.problems.elasticity import rigid_body_modes
from ddm.problems.graph import vector
from ddm.problems.petsc_binary import is_petsc_binary, load_petsc
from ddm.problems.problem import Kind, Problem
from ddm.problems.singular import Singular, kernels, settle


def from_matrix(
    A: Any,
    b: np.ndarray | None = None,
    *,
    coordinates: np.ndarray | None = None,
    block_size: int | None = None,
    near_nullspace: np.ndarray | None = None,
    kind: Kind | None = None,
    singular: Singular = "refuse",
) -> Problem:
    """A problem from a SciPy matrix, or a Matrix Market, `.npz` or PETSc binary file.

    Args:
        A: (n, n) SciPy sparse matrix, or the path of a file. A vector in a PETSc file becomes b,
            and `-matload_block_size` in the `.info` file beside it the block size.
        b: (n,) right-hand side; None draws normal numbers (seed 0).
        coordinates: (n, d) positions of the unknowns, if there are any.
        block_size: unknowns a node, numbered node by node; None is what the file says, or one.
        near_nullspace: (n, k); None: constants, for each component of a block, or rigid-body modes
            of the coordinates where A has null vectors among them. For elasticity pass
            `rigid_body_modes` of the nodes.
        kind: see `Problem`. None finds out whether A is symmetric, and calls it "spd" where that
            follows from its rows: positive diagonal, diagonally dominant, strictly so in some row
            of each connected component.
        singular: what to do where the near null space holds null vectors: see
            `ddm.problems.singular.settle`.

    The matrix becomes float64 or complex128, both exact for narrower types; wider ones are refused.
    Symmetry, dominance and null vectors are judged up to the rounding of its values: that of
    float32 where they are float32's, see `ddm.matrix_properties.rounding`.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: not a SciPy matrix or path, entries that are no numbers or wider than these, or
            a complex b or `near_nullspace` for a real A.
        ValueError: not square, empty, entries that are not finite, zero rows or columns, arrays
            that do not fit, a `kind` that A contradicts, or a singular A.
    """
    if isinstance(A, str | Path):
        block_size = _block_size(Path(A)) if block_size is None else block_size
        A, b = _read(Path(A), b)
    block_size = 1 if block_size is None else block_size
    matrix = _checked(A)
    n = matrix.shape[0]
    block_size = check_block_size(block_size, n)
    points = positions_of(coordinates, n)
    if near_nullspace is None:
        modes = np.kron(np.ones((n // block_size, 1)), np.eye(block_size))
        if points is not None and block_size == points.shape[1] > 1:  # elasticity, perhaps
            rigid = rigid_body_modes(points[::block_size])
            modes = rigid if kernels(matrix, rigid) else modes
    else:
        modes = modes_of(near_nullspace, n)
    if np.iscomplexobj(modes) and not np.iscomplexobj(matrix.data):
        raise TypeError("near_nullspace: complex, but A is real; give real vectors")
    right = np.random.default_rng(0).standard_normal(n) if b is None else vector(b, n, "b")
    if np.iscomplexobj(right) and not np.iscomplexobj(matrix.data):
        raise TypeError("b: complex, but A is real; convert A with .astype(complex)")
    problem = Problem(
        matrix,
        right.astype(matrix.dtype),
        None,
        np.arange(n // block_size),
        positions=points,
        block_size=block_size,
        near_nullspace=modes,
        kind=_kind(matrix, kind),
    )
    return settle(problem, singular)


def _read(path: Path, b: np.ndarray | None) -> tuple[Any, np.ndarray | None]:
    if not path.is_file():
        raise FileNotFoundError(f"A: no file {path}")
    if is_petsc_binary(path):
        objects = load_petsc(path)
        matrices = [item for item in objects if sp.issparse(item)]
        vectors = [item for item in objects if not sp.issparse(item)]
        if len(matrices) != 1:
            raise ValueError(f"A: expected one matrix in {path}, found {len(matrices)}")
        if b is None and len(vectors) > 1:
            raise ValueError(
                f"b: {path} has {len(vectors)} vectors; read them by load_petsc and pass one"
            )
        _refuse_half(path, matrices[0])
        return matrices[0], vectors[0] if b is None and vectors else b  # type: ignore[return-value]
    try:
        found = sp.load_npz(path) if path.suffix == ".npz" else scipy.io.mmread(path)
    except Exception as error:  # the readers raise whatever they meet in a damaged file
        raise ValueError(
            f"A: {path} is neither a Matrix Market, nor a SciPy .npz, nor a PETSc binary file "
            f"({error})"
        ) from error
    if not sp.issparse(found):
        raise ValueError(f"A: {path} holds a dense array; expected a sparse matrix")
    return found, b


def _refuse_half(path: Path, A: Any) -> None:
    """PETSc writes the upper triangle alone of what it holds as symmetric (SBAIJ)."""
    A = sp.coo_array(A)
    upper = bool((A.row <= A.col).all())
    if upper and bool((A.row < A.col).any()):
        raise ValueError(
            f"A: {path} has an upper triangle alone, as MatView writes of an SBAIJ matrix; convert "
            "it to AIJ before, or read it by load_petsc and add the transpose"
        )


def _block_size(path: Path) -> int:
    """What PETSc's MatView wrote into the `.info` file beside a binary one; 1 where it is not."""
    info = path.with_name(path.name + ".info")
    if not (info.is_file() and path.is_file() and is_petsc_binary(path)):
        return 1
    found = re.search(r"-matload_block_size\s+(\d+)", info.read_text(errors="replace"))
    return 1 if found is None else int(found[1])


def _checked(A: Any) -> sp.csr_array:
    if not sp.issparse(A):
        raise TypeError(
            f"A: expected a SciPy sparse matrix or a path, got {type(A).__name__}; a dense array "
            "becomes one by scipy.sparse.csr_array(A)"
        )
    if not (np.issubdtype(A.dtype, np.number) or A.dtype == np.bool_):
        raise TypeError(f"A: expected numbers, got {A.dtype}")
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] == 0:
        raise ValueError(f"A: expected a square matrix with rows, got shape {A.shape}")
    if A.dtype.kind in "fc" and not np.can_cast(A.dtype, np.complex128):
        raise TypeError(f"A: expected float64 or complex128 at most, got {A.dtype}; convert it")
    if A.format in ("csr", "csc", "bsr"):  # before SciPy follows indices that lead anywhere
        try:
            A.check_format(full_check=True)
        except ValueError as error:
            raise ValueError(
                f"A: its arrays make no {A.format.upper()} matrix ({error}); "
                "scipy.sparse.coo_array checks the rows and columns that it is made from"
            ) from error
    A = A.tocsr()
    matrix = sp.csr_array(A, dtype=np.result_type(A.dtype, np.float64), copy=True)
    matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        raise ValueError("A: some entries are not finite")
    for axis, name in ((1, "row"), (0, "column")):
        empty = np.flatnonzero(np.asarray(abs(matrix).sum(axis=axis)).ravel() == 0)
        if len(empty):
            raise ValueError(
                f"A: {name} {empty[0]} is zero ({len(empty)} in all), so A is singular; drop such "
                "unknowns"
            )
    return matrix


def _kind(A: sp.csr_array, claimed: Kind | None) -> Kind:
    if claimed not in (None, *get_args(Kind)):
        raise ValueError(f"kind: expected one of {get_args(Kind)} or None, got {claimed!r}")
    symmetric = is_symmetric(A)
    diagonal = A.diagonal()
    upward = is_hermitian(A) and (diagonal.real > 0).all()
    if (claimed == "spd" and not upward) or (claimed == "symmetric" and not symmetric):
        raise ValueError(
            f"kind: A is not {claimed}: it is {'' if symmetric else 'not '}symmetric, and its "
            f"smallest diagonal entry is {diagonal.real.min():g}"
        )
    if claimed is not None:
        return claimed
    if upward and _dominant(A):
        return "spd"
    return "symmetric" if symmetric else "general"


def _dominant(A: sp.csr_array) -> bool:
    """Whether rows are diagonally dominant, and some row of each component strictly."""
    diagonal, units = A.diagonal().real, UNITS * rounding(A.data)
    excess = 2 * diagonal - np.asarray(abs(A).sum(axis=1)).ravel()
    n_parts, part = connected_components(abs(A), directed=False)  # of complex A it drops parts
    strict = np.bincount(part, weights=excess > max(1e-10, units) * diagonal, minlength=n_parts)
    return bool((excess >= -max(1e-12, units) * diagonal).all() and (strict > 0).all())
