"""A problem with the pieces that methods are made of: parts, Neumann matrices, coarse spaces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ddm.checkpoints import resolve_net
from ddm.coarse import (
    algebraic_neumann,
    assembled_neumann,
    coarse_vectors,
    constants,
    nicolaides,
    smooth,
)
from ddm.coarse.neumann import check_m_matrix
from ddm.definite import is_definite
from ddm.exterior import exterior
from ddm.learned import InterfaceNet
from ddm.nullspace import NullSpace
from ddm.partition import METHODS, Decomposition, decompose, partition
from ddm.problems.problem import Problem
from ddm.shelf import Shelf
from sparsetorch import CSRTensor
from sparsetorch.checks import check_count

T = TypeVar("T")
MOST_KEPT = 4e6  # pieces times unknowns


class Workbench:
    """A problem, and its pieces, each made once: see `ddm.shelf` for what they cost.

    Args:
        problem: the linear system.
        subdomain: unknowns that a subdomain owns, where a method does not say.
        partitioner: the `method` of `ddm.partition.partition`.
        search_s: seconds after which a search among methods begins no other candidate.
        net: the network of "mggnn", or its name; None takes one that ships, see `ddm.safeguard`.

    Raises:
        TypeError: `net` is no network.
        ValueError: `subdomain` is below 1 or infinite; another partitioner; no network of this
            name ships.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        subdomain: int = 64,
        partitioner: str = "auto",
        net: InterfaceNet | str | None = None,
        search_s: float = 30.0,
    ) -> None:
        subdomain = check_count("subdomain", subdomain, "unknown")
        if partitioner not in METHODS:
            raise ValueError(f"partitioner: expected one of {METHODS}, got {partitioner!r}")
        self.problem = problem = problem.with_all_couplings()
        self.subdomain, self.partitioner = subdomain, partitioner
        self.net, self.search_s = resolve_net(net), search_s
        # Some hundred bytes an entry of A for each set of subdomains: a few where A is large.
        self.shelf = Shelf(min(max(int(MOST_KEPT / len(problem.b)), 6), 64))
        self.matrix = CSRTensor.from_scipy(problem.A)
        self.b = torch.from_numpy(problem.b)
        null = problem.nullspace
        self.null = None if null is None else NullSpace(self.matrix, null)

    @cached_property
    def definite(self) -> bool:
        """Whether conjugate gradients may be used, see `ddm.definite`."""
        return is_definite(self.matrix, self.problem.kind)

    @property
    def near_nullspace(self) -> np.ndarray:
        """(n, k): the problem's, or constants for each component of a block."""
        known = self.problem.near_nullspace
        return constants(len(self.problem.b), self.problem.block_size) if known is None else known

    def owner(self, subdomain: int) -> np.ndarray:
        """Parts of about `subdomain` unknowns, (n,)."""
        size = self.problem.block_size
        n_parts = max(1, round(len(self.problem.b) / max(subdomain, size)))
        return self.shelf.keep(
            ("owner", n_parts),
            lambda: partition(
                self.problem.A,
                n_parts,
                method=self.partitioner,
                block_size=size,
                coordinates=self.problem.positions,
            ),
        )

    def decomposition(self, subdomain: int, overlap: int) -> Decomposition:
        """Overlapping subdomains."""
        return self.shelf.keep(
            ("decomposition", subdomain, overlap),
            lambda: decompose(
                self.problem.A,
                self.owner(subdomain),
                overlap,
                block_size=self.problem.block_size,
            ),
        )

    def neumann(self, subdomain: int, overlap: int) -> CSRTensor:
        """Neumann matrices: of the elements, or those of an M-matrix.

        Raises:
            ValueError: there are neither.
        """

        def make() -> CSRTensor:
            parts, elements = self.decomposition(subdomain, overlap), self.problem.elements
            if elements is None:
                return algebraic_neumann(self.matrix, parts)
            return assembled_neumann(parts, elements.dofs, elements.matrices)

        return self.shelf.keep(("neumann", subdomain, overlap), make)

    def exterior(self, subdomain: int, overlap: int) -> Tensor:
        """What the Neumann matrices lack at `decomposition.interface`, see `ddm.exterior`.

        Raises:
            ValueError: there are neither elements nor an M-matrix.
        """

        def make() -> Tensor:
            parts, elements = self.decomposition(subdomain, overlap), self.problem.elements
            if elements is None:
                check_m_matrix(self.matrix)
            return exterior(self.matrix, parts, elements)

        return self.shelf.keep(("exterior", subdomain, overlap), make)

    def prolongation(
        self, subdomain: int, overlap: int, vectors: str = "near_nullspace", smoothing: int = 1
    ) -> CSRTensor:
        """Nicolaides' coarse space of some vectors, smoothed.

        Args:
            vectors: "near_nullspace", or "linear": these and coordinates.
            smoothing: Jacobi steps, at least 0.

        Raises:
            TypeError: `smoothing` is no number.
            ValueError: coordinates are asked for where there are none; other `vectors`; a
                `smoothing` that is no whole number of at least 0.
        """
        smoothing = check_count("smoothing", smoothing, "Jacobi steps", least=0)
        if vectors not in ("near_nullspace", "linear"):
            raise ValueError(f"vectors: expected 'near_nullspace' or 'linear', got {vectors!r}")
        problem = self.problem

        def make() -> CSRTensor:
            if smoothing:
                before = self.prolongation(subdomain, overlap, vectors, smoothing - 1)
                return smooth(before, self.matrix, block_size=problem.block_size)
            parts = self.decomposition(subdomain, overlap)
            coordinates = problem.coordinates if vectors == "linear" else None
            B = coarse_vectors(parts, problem.near_nullspace, coordinates)
            return nicolaides(parts, B).to(self.matrix.dtype)

        return self.shelf.keep(("prolongation", subdomain, overlap, vectors, smoothing), make)

    def timed(self, make: Callable[[Workbench], T]) -> tuple[T, float]:
        """What a method makes of this problem, and its seconds."""
        with torch.no_grad():
            return self.shelf.timed(lambda: make(self))
