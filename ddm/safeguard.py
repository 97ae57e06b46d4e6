"""Learned methods that are never worse than the classical ones that they start from.

The convergence factors of both are measured on the matrix itself, by a few iterations on a few
random errors. A learned method that is slower, that cannot be built, or whose network never saw
matrices of this class, is refused with a warning, and the classical one takes its place.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddm.choice import Choice, choose
from ddm.classical import complex_ras
from ddm.learned import InterfaceNet
from ddm.losses import krylov_reduction, random_vectors
from ddm.problems.problem import Elements
from ddm.rates import convergence_factor, is_exact
from ddm.schwarz import Schwarz
from ddm.setup import Setup

VECTORS, ITERATIONS = 2, 12
CLOSE, LONG = 0.1, 40
"""Convergence factors within this of one another are measured again over so many iterations."""
KRYLOV = 20  # vectors that are kept at most
ROUNDING = 1e-3


class LearnedRefusedWarning(UserWarning):
    """A learned method was refused; the message says why, and what took its place."""


@dataclass(frozen=True)
class Verdict:
    """What the safeguard chose.

    Attributes:
        method: the learned method, or the classical one.
        learned: whether it is the learned one.
        reason: why not; empty if it is.
        rate: measured convergence factor of the learned method; None if it was not measured.
        classical_rate: the same of the classical one.
    """

    method: Schwarz
    learned: bool
    reason: str
    rate: float | None = None
    classical_rate: float | None = None


@torch.no_grad()
def convergence_rate(method: Schwarz, *, iterations: int = ITERATIONS) -> float:
    """How fast a method converges: its convergence factor, or what residuals fall by in GMRES.

    The latter of methods that are symmetric: these are for CG, and may diverge on their own.
    """
    if not method.is_symmetric:
        return convergence_factor(method, iterations=iterations, vectors=VECTORS)
    generator = torch.Generator().manual_seed(0)
    b = random_vectors(method.shape[0], VECTORS, generator=generator, dtype=method.A.dtype)
    steps = max(1, min(iterations, KRYLOV, method.shape[0] - 1))
    found = float(krylov_reduction(method.A, method.apply, b.to(method.A.device), steps=steps))
    return found if math.isfinite(found) else math.inf


@torch.no_grad()
def safeguarded(setup: Setup, net: InterfaceNet, *, unseen: str = "") -> Verdict:
    """The learned method if its measured rate is below 1 and no worse than its classical start's.

    If the start itself diverges, RAS takes its place where that is faster.

    Args:
        setup: of the matrix.
        net: the network.
        unseen: why the network does not fit the matrix; it is then not tried.
    """
    classical, rate = _classical(setup, net)
    if unseen:
        return Verdict(classical, False, unseen, None, rate)
    try:
        learned = setup.learned(net)
        if is_exact(learned):  # as with one subdomain, where rounding would tell the two apart
            return Verdict(learned, True, "", 0.0, rate)
        found = convergence_rate(learned)
        if abs(found - rate) <= CLOSE * rate:
            found, rate = (convergence_rate(m, iterations=LONG) for m in (learned, classical))
    except (ValueError, RuntimeError) as error:
        return Verdict(classical, False, f"it cannot be used: {error}", None, rate)
    if not found <= (1 + ROUNDING) * rate or found >= 1:
        said = "it diverges: its" if found >= 1 else "its"
        reason = (
            f"{said} convergence factor is {found:.3g}, that of the classical method {rate:.3g}"
        )
        return Verdict(classical, False, reason, found, rate)
    return Verdict(learned, True, "", found, rate)


def _classical(setup: Setup, net: InterfaceNet) -> tuple[Schwarz, float]:
    """The method that the network corrects, or RAS where that one diverges; and its rate."""
    start, rate = None, math.inf
    try:
        start = setup.classical(net.theta)
        rate = convergence_rate(start)
    except ValueError:  # a singular local matrix
        pass
    if start is not None and rate < 1:
        return start, rate
    try:
        ras = setup.classical()
    except ValueError:
        if start is None:
            raise
        return start, rate
    other = convergence_rate(ras)
    return (ras, other) if start is None or other <= rate else (start, rate)


def _complex(choice: Choice) -> Verdict:
    """Two-level RAS, since networks and Robin weights of `ddm.set_up` are for real matrices."""
    method = complex_ras(choice.problem, choice.owner, **choice.options)
    reason = choice.unseen or "networks are for real matrices"
    return Verdict(method, False, reason, None, convergence_rate(method))


def warn_refused(verdict: Verdict, stacklevel: int = 3) -> None:
    """Warn where the learned method was refused, and where the classical one diverges, too."""
    if verdict.learned:
        return
    said = f"the learned method is refused: {verdict.reason}; the classical one takes its place"
    rate = verdict.classical_rate
    if rate is not None and rate >= 1:
        said += (
            f", but diverges on its own, too (convergence factor {rate:.3g}): use it within FGMRES "
            "only, and see what ddm.compare says of other methods"
        )
    warnings.warn(said, LearnedRefusedWarning, stacklevel=stacklevel)


def learned_schwarz(
    A: Any,
    net: InterfaceNet | str | None = None,
    *,
    coords: np.ndarray | None = None,
    near_nullspace: np.ndarray | None = None,
    block_size: int | None = None,
    elements: Elements | None = None,
    subdomain: int | None = None,
    owner: np.ndarray | None = None,
    measure_unseen: bool = False,
    **options: Any,
) -> Schwarz:
    """A two-level Schwarz method with a network's values, or the classical one if that is faster.

    Networks are for real symmetric positive definite matrices. For others, for a class that the
    network never saw, or that none which ships has seen if none is given, the classical method is
    returned, with a warning.

    Args:
        A: (n, n) SciPy sparse matrix, the path of a file of one (see `ddm.from_matrix`), CSRTensor
            (from any device; all runs on the CPU, in float64 or complex128), or
            `ddm.Problem`, which brings the arrays below.
        net: a network, or the name of one that ships; None takes one that has seen such matrices.
        coords: (n, d) positions of the unknowns, if they are known.
        near_nullspace: (n, k), such as rigid-body modes; None: constants.
        block_size: unknowns a node, numbered node by node; None is one.
        elements: element matrices that sum to A, for anything but M-matrices.
        subdomain: unknowns that a subdomain owns; None is what the network is for.
        owner: (n,) subdomain of each unknown; None is what `ddm.partition.partition` makes.
        measure_unseen: whether a network is tried, and its rate measured, on a class of matrices
            that it never saw; else it is refused.
        options: of `ddm.set_up` (overlap, smoothing, linear, symmetric, local, dtype,
            factor_dtype), instead of the network's; for complex A the first three, local and
            factor_dtype.

    Raises:
        TypeError, ValueError: arguments that do not fit, see `ddm.from_matrix` and `ddm.set_up`; a
            singular matrix.
        ValueError: no classical method can be made either, since a local or the coarse matrix is
            singular.

    Warns:
        LearnedRefusedWarning: the classical method is what is returned.
    """
    choice = choose(
        A,
        net,
        coords=coords,
        near_nullspace=near_nullspace,
        block_size=block_size,
        elements=elements,
        subdomain=subdomain,
        owner=owner,
        **options,
    )
    if np.iscomplexobj(choice.problem.A.data):
        verdict = _complex(choice)
    else:
        tried = measure_unseen and net is not None
        verdict = safeguarded(choice.set_up(), choice.net, unseen="" if tried else choice.unseen)
    warn_refused(verdict)
    return verdict.method
