"""More than two levels: the coarse problem is itself solved by a Schwarz method."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ddm.coarse.nicolaides import nicolaides
from ddm.coarse.smoothing import smooth
from ddm.coarse.solver import CoarseFactory, CoarseMethod, CoarseSolver
from ddm.coarse.vectors import modes_of
from ddm.nullspace import represented
from ddm.partition import decompose, partition
from ddm.schwarz import Form, Levels, Schwarz
from ddm.transfer import WEIGHTS
from sparsetorch import CSRTensor
from sparsetorch.checks import check_count

DIRECT_UP_TO = 20_000
"""Coarse matrices up to this size are factorized by default."""


def recursive(
    P: CSRTensor,
    near_nullspace: np.ndarray | None = None,
    *,
    direct_up_to: float = DIRECT_UP_TO,
    subdomain: int = 64,
    overlap: int = 1,
    smoothing: int = 1,
    form: Form = "restricted",
    levels: Levels = "multiplicative",
    sweeps: int = 2,
) -> CoarseFactory:
    """What `Schwarz(..., coarse=)` takes to solve a large coarse problem by a Schwarz method.

    The coarse matrix is partitioned in its turn, its coarse space is what P makes of
    `near_nullspace`, and so on until a matrix is small enough to be factorized. The coarse solve
    becomes a linear approximation, a fixed number of stationary iterations from zero. The default
    is not symmetric, nor is a method around it: for CG take form="additive", levels="symmetric",
    which converges for every symmetric positive definite matrix: 90,000 unknowns in 5,630
    subdomains took 39 iterations with it and "balanced" outside (28 with the exact coarse solve),
    but 287 with "balanced" inside (`python benchmarks/bench_coarse.py`).

    Args:
        P: the prolongation that is given to `Schwarz`.
        near_nullspace: (n, k) that of the fine matrix; None is the constant.
        direct_up_to: size of a matrix that is factorized; math.inf factorizes the first.
        subdomain: coarse unknowns that a subdomain owns.
        overlap: of these subdomains.
        smoothing: Jacobi steps on the coarse prolongation.
        form, levels: of the coarse method.
        sweeps: iterations of the coarse method in one solve.

    The null space of a singular fine matrix, see `Schwarz`, is passed down.

    Raises:
        TypeError: no number where one is expected; a complex `near_nullspace` for a real P.
        ValueError: an argument out of its range; a `near_nullspace` that does not fit.
    """
    if direct_up_to != math.inf:
        direct_up_to = check_count("direct_up_to", direct_up_to, "coarse unknown")
    subdomain = check_count("subdomain", subdomain, "coarse unknown")
    overlap = check_count("overlap", overlap, "layer")
    smoothing = check_count("smoothing", smoothing, "Jacobi steps", least=0)
    sweeps = check_count("sweeps", sweeps, "iteration")
    if form not in WEIGHTS:
        raise ValueError(f"form: expected one of {sorted(WEIGHTS)}, got {form!r}")
    if near_nullspace is None:
        near_nullspace = np.ones((P.shape[0], 1))
    near_nullspace = modes_of(near_nullspace, P.shape[0])
    if np.iscomplexobj(near_nullspace) and not P.dtype.is_complex:
        raise TypeError("near_nullspace: complex, but P is real; give real vectors")
    fine = torch.from_numpy(near_nullspace).to(P.device, P.dtype)

    def make(A0: CSRTensor, null: Tensor | None = None) -> CoarseMethod:
        size = A0.shape[0]
        if size <= direct_up_to:
            return CoarseSolver(A0, null=null)
        vectors = modes_of(represented(P.detach(), fine).cpu().numpy(), size)
        host = A0.detach().to("cpu").to_scipy()
        owner = partition(host, max(2, round(size / subdomain)))
        d = decompose(host, owner, overlap)
        singular = null is not None and d.sizes.max() == size  # a subdomain would hold it all
        if d.n_subdomains >= size or singular:
            return CoarseSolver(A0, null=null)
        P0 = nicolaides(d, vectors, weights="owned").to(A0.device, A0.dtype)
        P0 = smooth(P0, A0, smoothing)
        coarser = recursive(
            P0, vectors, direct_up_to=direct_up_to, subdomain=subdomain, overlap=overlap,
            smoothing=smoothing, form=form, levels=levels, sweeps=sweeps,
        )  # fmt: skip
        method = Schwarz(A0, d, P=P0, form=form, levels=levels, coarse=coarser, nullspace=null)
        return Repeated(method, sweeps)

    return make


class Repeated:
    """A number of stationary iterations from zero, `(I - (I - M A)^k) A^-1`, as one operator."""

    def __init__(self, method: Schwarz, times: int) -> None:
        self.method, self.times = method, times

    @property
    def is_symmetric(self) -> bool:
        """Whether it is symmetric, for a matrix that is."""
        return self.method.is_symmetric

    def apply(self, r: Tensor) -> Tensor:
        """The last iterate for the right-hand side r (n, k)."""
        z = self.method.apply(r)
        for _ in range(self.times - 1):
            z = z + self.method.apply(r - self.method.A @ z)
        return z

    def apply_transposed(self, r: Tensor) -> Tensor:
        """The transposed operator's image of r (n, k)."""
        z = self.method.apply_transposed(r)
        for _ in range(self.times - 1):
            z = z + self.method.apply_transposed(r - self.method.transposed_matrix() @ z)
        return z
