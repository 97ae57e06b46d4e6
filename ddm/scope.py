"""Which class of matrices a network was trained on, and which class a matrix is of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from ddm.definite import is_definite
from ddm.learned import InterfaceNet
from ddm.matrix_properties import is_symmetric
from ddm.problems.problem import Kind, Problem
from ddm.problems.samples import MIXED
from sparsetorch import CSRTensor

COVERS = {"diffusion": {"poisson", "diffusion"}, "anisotropic": {"poisson", "anisotropic"}}
"""Classes that training on a class has seen, where these are more than itself."""
JUMP = 4.0  # of neighbouring diagonal entries; 2 on irregular meshes with constant coefficients


@dataclass(frozen=True)
class Scope:
    """The class of a matrix, or the classes of a network's training.

    Attributes:
        kinds: as `ddm.random_problem` names them, without "_3d" and "_mixed".
        dimension: of the space; None is not known.
        block_size: unknowns a node.
        coordinates: whether they are known; of a network, whether its coarse spaces need them.
    """

    kinds: frozenset[str]
    dimension: int | None
    block_size: int = 1
    coordinates: bool = False

    @classmethod
    def of_net(cls, net: InterfaceNet) -> Self | None:
        """What a network's `metadata` says (kinds, dimension, block_size); None if it does not.

        Raises:
            ValueError: it is damaged.
        """
        known = net.metadata
        if "kinds" not in known:
            return None
        try:
            names = json.loads(known["kinds"])
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise ValueError(f"kinds: expected a list of names, got {names!r}")
            kinds = frozenset(name.removesuffix(MIXED) for name in names)
            dimension = int(known["dimension"]) if "dimension" in known else None
            size = int(known.get("block_size", "1"))
            return cls(kinds, dimension, size, bool(net.options["linear"]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"net: its metadata cannot be read ({error})") from error

    @classmethod
    def of_problem(cls, problem: Problem) -> Self:
        """The class that a problem's matrix looks like."""
        positions = problem.positions
        dimension = None if positions is None else positions.shape[1]
        kind = matrix_kind(problem.A, problem.kind, dimension, problem.block_size)
        return cls(frozenset({kind}), dimension, problem.block_size, positions is not None)

    def unseen(self, other: Self) -> str:
        """Why a matrix of the class `other` is none of this network's; empty if it is one."""
        if other.block_size != self.block_size:
            return f"it was trained on {self.block_size} unknown(s) a node, not {other.block_size}"
        known, asked = self.dimension, other.dimension
        if known is not None and asked is not None and known != asked:
            return f"it was trained in {known}D, not {asked}D"
        seen = self.kinds.union(*(COVERS.get(kind, set()) for kind in self.kinds))
        if not other.kinds <= seen:
            found = ", ".join(sorted(other.kinds - seen))
            return f"it was trained on {', '.join(sorted(self.kinds))}; this matrix is like {found}"
        if self.coordinates and not other.coordinates:
            return "its coarse spaces hold linear functions, and no coordinates are given"
        return ""


def matrix_kind(
    A: sp.csr_array, kind: Kind, dimension: int | None = None, block_size: int = 1
) -> str:
    """The kind of `ddm.random_problem` that a matrix is most like, from its entries.

    "diffusion" has jumps between neighbouring diagonal entries; "anisotropic" has positive
    couplings, or two couplings a row that are stronger than the rest. Mild cases of both are like
    "poisson". A matrix that nobody called definite is "indefinite" where `ddm.definite` finds a
    direction of negative curvature, as for a shifted Laplacian.

    Args:
        A: (n, n).
        kind: of the problem.
        dimension: of the space; None tells it from the number of couplings.
        block_size: unknowns a node.
    """
    if A.dtype.kind == "c":
        return "helmholtz"
    if kind == "general" and not is_symmetric(A):
        return "convection_diffusion"
    diagonal = np.asarray(A.diagonal(), dtype=np.float64)
    symmetric = "spd" if kind == "spd" else "symmetric"
    if not (diagonal > 0).all() or not is_definite(CSRTensor.from_scipy(A), symmetric):
        return "indefinite"
    if block_size > 1:
        return "elasticity"
    row = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    size = np.sqrt(diagonal[row] * diagonal[A.indices])
    off = (row != A.indices) & (abs(A.data) > 1e-10 * size)  # rounding is no coupling
    row, col, values = row[off], A.indices[off], A.data[off]
    if not len(values):
        return "poisson"
    if (diagonal[row] / diagonal[col]).max() > JUMP:
        return "diffusion"
    solid = dimension == 3 or (dimension is None and len(values) > 9 * A.shape[0])
    most, strongest = (0.2, 0.55) if solid else (0.05, 0.75)
    positive = values[values > 0].sum() / abs(values).sum()
    if positive > most or _two_strongest(row, abs(values)) > strongest:
        return "anisotropic"
    return "poisson"


def _two_strongest(row: np.ndarray, size: np.ndarray) -> float:
    """Median share of the two largest entries of rows with five and more; `row` ascends."""
    counts = np.bincount(row)
    long = counts[counts > 0] >= 5
    if not long.any():
        return 0.0
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    total, largest = np.add.reduceat(size, starts), np.maximum.reduceat(size, starts)
    at = np.flatnonzero(size == np.repeat(largest, counts[counts > 0]))
    others = size.copy()
    others[at[np.flatnonzero(np.diff(row[at], prepend=-1))]] = -1.0  # one of equal ones
    second = np.maximum.reduceat(others, starts)
    return float(np.median((largest + second)[long] / total[long]))
