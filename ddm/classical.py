"""A classical Schwarz method as a few numbers, so that it can be named and searched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ddm.coarse import coarse_vectors, nicolaides, smooth
from ddm.enrichment import enriched
from ddm.interface import robin
from ddm.partition import decompose
from ddm.problems.problem import Problem
from ddm.schwarz import Levels, Schwarz
from ddm.transfer import Form
from ddm.workbench import Workbench
from sparsetorch import CSRTensor


@dataclass(frozen=True)
class Classical:
    """A two-level Schwarz method with one Robin weight and Nicolaides' coarse space.

    Calling it with a `Workbench` makes the method.

    Attributes:
        theta: Robin weight; 1 is RAS.
        between: whether local matrices are `theta A_i + (1 - theta) N_i`, with the Neumann matrices
            N_i, see `ddm.exterior`; else the weight is on the diagonal, see `robin`.
        overlap: layers.
        subdomain: unknowns that a subdomain owns; None is the workbench's number.
        vectors: of the coarse space: "near_nullspace", or "linear", these and coordinates.
        smoothing: Jacobi steps on the coarse space.
        form, levels: see `Schwarz`.
        single: whether local factors are in single precision, which halves what an application
            reads.
        enrich: slow errors of the method itself in its coarse space, see `ddm.enriched`.

    Raises:
        ValueError: theta is negative or not finite.
    """

    theta: float = 1.0
    between: bool = False
    overlap: int = 1
    subdomain: int | None = None
    vectors: str = "near_nullspace"
    smoothing: int = 1
    form: Form = "restricted"
    levels: Levels = "multiplicative"
    single: bool = False
    enrich: int = 0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.theta) and np.real(self.theta) >= 0):
            raise ValueError(f"theta: expected a weight of at least 0, got {self.theta}")

    def __call__(self, bench: Workbench) -> Schwarz:
        """The method for a problem.

        Raises:
            ValueError: a singular local or coarse matrix, or Neumann matrices that there are not.
        """
        size = self.subdomain or bench.subdomain
        parts = bench.decomposition(size, self.overlap)
        P = bench.prolongation(size, self.overlap, self.vectors, self.smoothing)
        interface = None
        if self.theta != 1 and self.between:
            interface = (self.theta - 1) * bench.exterior(size, self.overlap)
        elif self.theta != 1:
            interface = robin(parts, self.theta, bench.matrix.dtype)
        method = Schwarz(
            bench.matrix,
            parts,
            interface=interface,
            P=P,
            form=self.form,
            levels=self.levels,
            factor_dtype=_single(bench.matrix.dtype) if self.single else None,
            nullspace=bench.problem.nullspace,
        )
        return enriched(method, self.enrich) if self.enrich else method

    def __str__(self) -> str:
        weight = "" if self.theta == 1 else f"theta {self.theta:g}, "
        weight += "Neumann matrices, " if self.between and weight else ""
        form = "" if self.form == "restricted" else f"{self.form} form, "
        form += "" if self.levels == "multiplicative" else f"{self.levels} levels, "
        size = "" if self.subdomain is None else f", {self.subdomain} unknowns a subdomain"
        vectors = ", linear functions" if self.vectors == "linear" else ""
        single = ", single precision" if self.single else ""
        errors = f", {self.enrich} slow errors" if self.enrich else ""
        settings = f"overlap {self.overlap}, smoothing {self.smoothing}{vectors}{size}"
        return weight + form + settings + single + errors


def _single(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype.is_complex else torch.float32


def complex_ras(
    problem: Problem,
    owner: np.ndarray,
    *,
    overlap: int = 1,
    smoothing: int = 1,
    linear: bool = True,
    local: str = "auto",
    factor_dtype: torch.dtype | None = None,
) -> Schwarz:
    """Two-level RAS on given subdomains, for complex matrices, which `ddm.set_up` does not take.

    Args:
        problem: complex or real.
        owner: (n,) subdomain that owns each unknown.
        overlap, smoothing, linear, local: see `ddm.set_up`.
        factor_dtype: see `Schwarz`.

    Raises:
        TypeError: another `factor_dtype`.
        ValueError: a local or the coarse matrix is singular.
    """
    matrix = CSRTensor.from_scipy(problem.A)
    d = decompose(problem.A, owner, overlap, block_size=problem.block_size)
    B = coarse_vectors(d, problem.near_nullspace, problem.positions if linear else None)
    P = nicolaides(d, B).to(matrix.dtype)
    P = smooth(P, matrix, smoothing, block_size=problem.block_size)
    return Schwarz(matrix, d, P=P, local=local, factor_dtype=factor_dtype)
