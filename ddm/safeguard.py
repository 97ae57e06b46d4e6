"""Learned methods that are never worse than the classical ones that they start from.

The convergence factors of both are measured on the matrix itself, by a few iterations on a few
random errors. A learned method that is slower, that cannot be built, or whose network never saw
matrices of this class, is refused with a warning, and the classical one takes its place. Where both
are slow, the coarse spaces of both are enriched (`ddm.enrichment`) before they are compared.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ddm.choice import Choice, choose
from ddm.classical import complex_ras
from ddm.enrichment import enriched
from ddm.learned import InterfaceNet
from ddm.losses import krylov_reduction, random_vectors
from ddm.problems.problem import Elements
from ddm.rates import convergence_factor, is_exact
from ddm.schwarz import Schwarz
from ddm.setup import Setup
from sparsetorch.checks import check_count

VECTORS, ITERATIONS = 2, 12
CLOSE, LONG = 0.1, 40
"""Convergence factors within this of one another are measured again over so many iterations."""
KRYLOV = 20  # vectors that are kept at most
ROUNDING = 1e-3
SLOW, VECTORS_ADDED = 0.8, 4
"""Convergence factors above this get so many slow errors into the coarse space."""

COMPLEX_OPTIONS = {"overlap", "smoothing", "linear", "local", "factor_dtype"}


class LearnedRefusedWarning(UserWarning):
    """A learned method was refused; the message says why, and what took its place."""


@dataclass(frozen=True)
class Verdict:
    """What the safeguard chose.

    Attributes:
        method: the learned method, or the classical one.
        learned: whether it is the learned one.
        reason: why not; empty if it is.
        rate: measured convergence factor of the learned method, with its slow errors if it has
            got any; None if it was not measured.
        classical_rate: the same of the classical one; None if it was not measured.
        errors: slow errors that the coarse space of `method` has got.
    """

    method: Schwarz
    learned: bool
    reason: str
    rate: float | None = None
    classical_rate: float | None = None
    errors: int = 0

    def __str__(self) -> str:
        said = "learned" if self.learned else f"classical: {self.reason}"
        return f"{said}, {self.errors} slow errors" if self.errors else said


@torch.no_grad()
def convergence_rate(method: Schwarz, *, iterations: int = ITERATIONS) -> float:
    """How fast a method converges: its convergence factor, or what residuals fall by in GMRES.

    The latter of methods that are symmetric: these are for CG, and may diverge on their own.
    """
    if not method.is_symmetric:
        return convergence_factor(method, iterations=iterations, vectors=VECTORS)
    generator = torch.Generator("cpu").manual_seed(0)
    b = random_vectors(method.shape[0], VECTORS, generator=generator, dtype=method.A.dtype)
    steps = max(1, min(iterations, KRYLOV, method.shape[0] - 1))
    found = float(krylov_reduction(method.A, method.apply, b.to(method.A.device), steps=steps))
    return found if math.isfinite(found) else math.inf


@dataclass(frozen=True)
class _Measured:
    """A method, its convergence rate, and how many slow errors its coarse space has got."""

    method: Schwarz
    rate: float
    errors: int = 0

    def measured_longer(self) -> _Measured:
        """The same with the rate over `LONG` iterations."""
        return replace(self, rate=convergence_rate(self.method, iterations=LONG))


@torch.no_grad()
def safeguarded(
    setup: Setup, net: InterfaceNet, *, unseen: str = "", enrich: int | None = None
) -> Verdict:
    """The learned method if its measured rate is below 1 and no worse than its classical start's.

    Where both are slow, both get their slow errors into their coarse spaces first. Where the start
    itself diverges, and the learned method is not fast, RAS takes the start's place if that is
    faster.

    Args:
        setup: of the matrix.
        net: the network.
        unseen: why the network does not fit the matrix; it is then not tried.
        enrich: see `learned_schwarz`.
    """
    enrich = check_enrich(enrich)
    start = _start(setup, net)
    if unseen:
        return _refused(unseen, _classical(setup, start, enrich))
    try:
        method = setup.learned(net)
        if is_exact(method):  # as with one subdomain, where rounding would tell the two apart
            return Verdict(method, True, "", 0.0, start and start.rate)
        learned = _Measured(method, convergence_rate(method))
        learned, compared = _compared(learned, start, enrich)
    except (ValueError, RuntimeError) as error:
        return _refused(f"it cannot be used: {error}", _classical(setup, start, enrich))
    # Where the learned method is fast, a start that diverges needs no other in its place.
    classical = compared if learned.rate <= SLOW else _or_ras(setup, compared, enrich)
    if classical is not None and (learned.rate >= 1 or _is_slower(learned, classical)):
        said = "it diverges: its" if learned.rate >= 1 else "its"
        reason = (
            f"{said} convergence factor is {learned.rate:.3g}, that of the classical method "
            f"{classical.rate:.3g}"
        )
        return _refused(reason, classical, learned.rate)
    rate = None if classical is None else classical.rate
    return Verdict(learned.method, True, "", learned.rate, rate, learned.errors)


def check_enrich(enrich: int | None) -> int | None:
    """None, or a number of vectors as an int.

    Raises:
        TypeError, ValueError: no whole number, or below 0.
    """
    return None if enrich is None else check_count("enrich", enrich, "slow errors", least=0)


def _refused(reason: str, classical: _Measured, rate: float | None = None) -> Verdict:
    return Verdict(classical.method, False, reason, rate, classical.rate, classical.errors)


def _compared(
    learned: _Measured, start: _Measured | None, enrich: int | None
) -> tuple[_Measured, _Measured | None]:
    """Both after the same treatment: with as many slow errors, and measured as long.

    Unasked they get slow errors where both are slow: else the faster one is what is returned.
    """
    if start is None:
        return _enriched(learned, enrich), None
    if enrich or min(learned.rate, start.rate) > SLOW:
        learned, start = _enriched(learned, enrich), _enriched(start, enrich)
    stay = enrich is not None or not (learned.errors or start.errors)
    if stay and abs(learned.rate - start.rate) <= CLOSE * start.rate:
        learned, start = learned.measured_longer(), start.measured_longer()
    return learned, start


def _is_slower(learned: _Measured, classical: _Measured) -> bool:
    return not learned.rate <= (1 + ROUNDING) * classical.rate


def _enriched(found: _Measured, enrich: int | None) -> _Measured:
    """The method with slow errors in its coarse space: those asked for, or where it is slow.

    Unasked they are there only if they can be, and make the method faster.
    """
    if enrich == 0 or (enrich is None and found.rate <= SLOW):
        return found
    errors = enrich or VECTORS_ADDED
    try:
        method = enriched(found.method, errors)
    except ValueError as error:  # more columns than unknowns
        if enrich is None:
            return found
        raise ValueError(f"enrich={enrich}: {error}") from error
    other = _Measured(method, convergence_rate(method), errors)
    return found if enrich is None and other.rate >= found.rate else other


def _start(setup: Setup, net: InterfaceNet) -> _Measured | None:
    """The method that the network corrects; None where a local matrix is singular."""
    try:
        method = setup.classical(net.theta)
        return _Measured(method, convergence_rate(method))
    except ValueError:
        return None


def _classical(setup: Setup, start: _Measured | None, enrich: int | None) -> _Measured:
    """What takes the place of a network that is not tried, or that failed.

    Raises:
        ValueError: no classical method can be made.
    """
    return _or_ras(setup, None if start is None else _enriched(start, enrich), enrich)


def _or_ras(setup: Setup, start: _Measured | None, enrich: int | None) -> _Measured:
    """The start; where it diverges, or there is none, RAS if that is faster.

    Raises:
        ValueError: neither can be made.
    """
    if start is not None and start.rate < 1:
        return start
    try:
        method = setup.classical()
    except ValueError:
        if start is None:
            raise
        return start
    ras = _enriched(_Measured(method, convergence_rate(method)), enrich)
    return ras if start is None or ras.rate <= start.rate else start


def _complex(choice: Choice, enrich: int | None) -> Verdict:
    """Two-level RAS, since networks and Robin weights of `ddm.set_up` are for real matrices."""
    unknown = set(choice.options) - COMPLEX_OPTIONS
    if unknown:
        raise TypeError(
            f"{min(unknown)}: for complex A expected options among {sorted(COMPLEX_OPTIONS)}"
        )
    method = complex_ras(choice.problem, choice.owner, **choice.options)
    ras = _enriched(_Measured(method, convergence_rate(method)), enrich)
    return _refused(choice.unseen or "networks are for real matrices", ras)


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
    enrich: int | None = None,
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
        enrich: errors that the method is slow to reduce, whose pieces its coarse space gets, see
            `ddm.enriched`; None is 4 where its convergence factor and its start's are above 0.8,
            if they make it faster; 0 is none.
        options: of `ddm.set_up` (overlap, smoothing, linear, symmetric, local, dtype,
            factor_dtype), instead of the network's; for complex A the first three, local and
            factor_dtype.

    Raises:
        TypeError, ValueError: arguments that do not fit, see `ddm.from_matrix` and `ddm.set_up`; a
            singular matrix.
        ValueError: no classical method can be made either, since a local or the coarse matrix is
            singular; subdomains too small for so many slow errors.

    Warns:
        LearnedRefusedWarning: the classical method is what is returned.
    """
    enrich = check_enrich(enrich)
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
        verdict = _complex(choice, enrich)
    else:
        tried = measure_unseen and net is not None
        unseen = "" if tried else choice.unseen
        verdict = safeguarded(choice.set_up(), choice.net, unseen=unseen, enrich=enrich)
    warn_refused(verdict)
    return verdict.method
