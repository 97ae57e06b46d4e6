"""Fine-tuning: a network's values optimised further on the very matrix, for many right-hand sides.

The Robin weight and the partition of unity of each local node are parameters of their own, and Adam
makes the loss that the network was trained on smaller: the slowest errors of the stationary
iteration, and the residuals of GMRES. Costs are linear in the number of unknowns; what is found
serves for this matrix alone.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddm.checkpoints import resolve_net
from ddm.choice import prepared, unseen_matrix
from ddm.definite import is_definite
from ddm.extras import extra
from ddm.learned import InterfaceNet
from ddm.local import SingularError
from ddm.losses import is_rounding, krylov_reduction, random_vectors, slow_errors, stochastic_norm
from ddm.matrix_properties import is_symmetric
from ddm.rates import is_exact
from ddm.safeguard import LearnedRefusedWarning, convergence_rate
from ddm.schwarz import Schwarz
from ddm.setup import Setup
from sparsetorch.checks import check_count, check_tolerance

VECTORS, RIGHT_HAND_SIDES, STEPS, WARMUP = 12, 4, 8, 3
CHECKS = 12  # of the measured rate, in all


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning found.

    Attributes:
        method: the best method, in the precision of the matrix.
        rate: its measured convergence factor.
        start_rate: that of what fine-tuning started from.
        steps: number of steps taken.
        history: (seconds, measured rate) of what was checked on the way.
    """

    method: Schwarz
    rate: float
    start_rate: float
    steps: int
    history: list[tuple[float, float]]


@torch.inference_mode(False)
@torch.enable_grad()
def finetune(
    A: Any,
    net: InterfaceNet | str | None = None,
    *,
    seconds: float = 60.0,
    steps: int | None = None,
    lr: float = 0.1,
    enrich: int = 0,
    progress: bool = False,
    seed: int = 0,
    **options: Any,
) -> FineTuned:
    """Optimise Robin weights and partition of unity on one matrix, for so many seconds.

    The start is the network's method or the classical one that it corrects, whichever is faster.
    The best of what is measured on the way is kept, so that the result is never slower than the
    start; ctrl-C ends early and keeps it, too. Where it diverges all the same, two-level RAS, or
    the symmetric method with the Robin weight 1, takes its place if that is faster. Where the start
    solves at once, as with one subdomain, it is the result.

    Args:
        A: (n, n) real symmetric SciPy matrix or CSRTensor, a problem, or a `Setup` of one.
        net: a network, or the name of one that ships. None takes one that has seen such matrices;
            beside a `Setup` none. Where there is none, or the given one has not seen such, the
            start is the classical method with its Robin weight and options.
        seconds: of optimisation, measuring included.
        steps: at most so many; None leaves it to `seconds`.
        lr: largest learning rate of Adam; half a cosine over the time.
        enrich: errors that the start is slow to reduce, whose pieces the coarse space gets before
            anything is optimised, see `ddm.enriched`: fewer iterations than without, and than the
            result would need if it was enriched, for so many more coarse unknowns a subdomain.
        progress: whether to show a progress bar.
        seed: of the random vectors.
        options: coords, near_nullspace, block_size, elements, subdomain, owner and options of
            `ddm.set_up`, see `ddm.learned_schwarz`.

    Raises:
        TypeError, ValueError: see `ddm.learned_schwarz`; `seconds` is not positive; options beside
            a `Setup`; a matrix that is complex, not symmetric, or indefinite.
        SingularError: local matrices or the coarse matrix of the start are singular; with `enrich`,
            it is too many for subdomains of this size.

    Warns:
        LearnedRefusedWarning: the given network has not seen such matrices, or what was found
            diverges on its own.
    """
    if not seconds > 0:
        raise ValueError(f"seconds: expected a positive number, got {seconds}")
    enrich = check_count("enrich", enrich, "slow errors", least=0)
    steps = None if steps is None else check_count("steps", steps, "steps", least=0)
    check_tolerance("lr", lr)
    setup, net, unseen = _ready(A, net, options)
    _check_definite(setup)
    if unseen:
        said = f"the network's values are not used: {unseen}; fine-tuning starts from the method "
        said += "that it would have corrected"
        warnings.warn(said, LearnedRefusedWarning, stacklevel=2)
    run = _Run(setup, net, seed, learned=not unseen, enrich=enrich)
    optimizer = torch.optim.Adam(run.raw, lr=lr, betas=(0.9, 0.99))
    begun, count = time.perf_counter(), 0
    run.check(0.0)
    if is_exact(run.best()):
        rate = run.history[0][1]
        return FineTuned(run.best(), rate, rate, 0, run.history)
    bar = _bar(seconds, progress)
    try:
        while steps is None or count < steps:
            passed = time.perf_counter() - begun
            if passed >= seconds:
                break
            done = passed / seconds if steps is None else count / steps
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * done))
            if not run.step(optimizer):
                break
            count += 1
            if done * CHECKS >= len(run.history):
                run.check(time.perf_counter() - begun)
            bar.update(time.perf_counter() - begun - passed)
    except KeyboardInterrupt:
        pass
    bar.close()
    run.check(time.perf_counter() - begun)
    rates = [rate for _, rate in run.history]
    method, rate = run.best(), min(rates)
    if rate >= 1:
        method, rate = _or_ras(method, rate, run.setup)
    return FineTuned(method, rate, rates[0], count, run.history)


def _ready(
    A: Any, net: InterfaceNet | str | None, options: dict[str, Any]
) -> tuple[Setup, InterfaceNet, str]:
    """The matrix, a network, and why the one that was asked for is not used; empty if it is."""
    if not isinstance(A, Setup):
        setup, chosen, unseen = prepared(A, net, **options)
        return setup, chosen, unseen if net is not None else ""
    if options:
        raise ValueError(f"options: a Setup has its own, got {sorted(options)}")
    chosen = resolve_net(net)
    unseen = "" if chosen is None else unseen_matrix(chosen, A.A, A.decomposition.block_size)
    # Untrained, it is the classical method.
    chosen = InterfaceNet(width=8, layers=1) if chosen is None else copy.deepcopy(chosen)
    return A, chosen.to(A.A.device), unseen


def _check_definite(setup: Setup) -> None:
    """Refuse matrices for which the loss means nothing.

    Raises:
        ValueError: the matrix is not symmetric, or is seen to be indefinite.
    """
    symmetric = is_symmetric(setup.A)
    if not (symmetric and is_definite(setup.A, "symmetric")):
        raise ValueError(
            f"A: it is {'indefinite' if symmetric else 'not symmetric'}, and fine-tuning is for "
            "symmetric positive definite matrices; ddm.best_classical and ddm.tune find methods "
            "for others"
        )


def _or_ras(method: Schwarz, rate: float, setup: Setup) -> tuple[Schwarz, float]:
    """A method that diverges, or RAS if that is faster; with a warning if it diverges, too."""
    try:
        ras = setup.classical()
        other = convergence_rate(ras)
        if other < rate:
            method, rate = ras, other
    except SingularError:
        pass
    if rate >= 1:
        said = (
            f"the method diverges on its own (convergence factor {rate:.3g}): use it within FGMRES "
            "only, and see what ddm.compare says of others"
        )
        warnings.warn(said, LearnedRefusedWarning, stacklevel=3)
    return method, rate


class _Run:
    """Parameters, the errors that fall slowest so far, and the best that was measured."""

    def __init__(
        self,
        setup: Setup,
        net: InterfaceNet,
        seed: int,
        *,
        learned: bool = True,
        enrich: int = 0,
    ) -> None:
        self.setup, self.net = setup, net
        self.raw = self._start(learned)
        if enrich:
            start = self._fixed(self.raw)
            try:
                self.setup = setup.enriched(start, enrich)
            except ValueError as error:
                raise ValueError(f"enrich={enrich}: {error}") from error
        # Gradients are good enough in float32 until residuals come near to rounding, and cheaper.
        self.working = self.setup.in_precision(torch.float32)
        self.generator = torch.Generator("cpu").manual_seed(seed)
        for x in self.raw:
            x.requires_grad_()
        self.errors = self._random(VECTORS)
        self.history: list[tuple[float, float]] = []
        self.kept = [x.detach().clone() for x in self.raw]

    @torch.no_grad()
    def _start(self, learned: bool) -> list[Tensor]:
        """The network's values, or zeros, the classical method, if these are faster."""
        count = len(self.setup.decomposition.node) // self.setup.decomposition.block_size
        zeros = [torch.zeros(count, device=self.setup.A.device) for _ in range(2)]
        if not learned:
            return zeros
        values = [x.detach().clone() for x in self.net.raw(self.setup.inputs)]
        return min((values, zeros), key=self._rate)

    @torch.no_grad()
    def _rate(self, raw: list[Tensor]) -> float:
        if not all(bool(torch.isfinite(x).all()) for x in raw):
            return math.inf
        try:
            return convergence_rate(self._fixed(raw), iterations=20)
        except ValueError:  # a SingularError, or infinities that a solve is given
            return math.inf

    def _method(self, setup: Setup, raw: list[Tensor]) -> Schwarz:
        return setup.with_values(*self.net.bounded(setup.inputs, *raw))

    def _random(self, count: int) -> Tensor:
        A = self.working.A
        return random_vectors(A.shape[0], count, generator=self.generator, dtype=A.dtype).to(
            A.device
        )

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """One step; where it fails, back to the best, and to full precision.

        It fails where a local or the coarse matrix is singular, or numbers leave the range.

        Returns:
            Whether there is a point in going on: not if the best itself fails in full precision.
        """
        optimizer.zero_grad()
        try:
            loss = self.loss()
            if not bool(torch.isfinite(loss)):
                raise SingularError("the loss is not finite")
            loss.backward()
            optimizer.step()
        except ValueError:  # a SingularError, or infinities that a solve is given
            pairs = list(zip(self.raw, self.kept))
            hopeless = self.working is self.setup and all(torch.equal(x, y) for x, y in pairs)
            self.working = self.setup
            with torch.no_grad():
                for x, kept in pairs:
                    x.copy_(kept)
            return not hopeless
        return True

    def loss(self) -> Tensor:
        method = self._method(self.working, self.raw)
        b = self._random(RIGHT_HAND_SIDES)
        reduction = krylov_reduction(method.A, method.apply, b, steps=STEPS)
        loss = reduction.log()
        if not self.setup.symmetric:  # which are for CG: their own iteration need not converge
            fresh = self._random(VECTORS)
            self.errors = slow_errors(method.propagate, self.errors, fresh, WARMUP)
            norm = stochastic_norm(method.propagate, self.errors, steps=STEPS, sharpness=5.0)
            loss = norm.log() + loss
        if is_rounding(reduction, STEPS):
            self.working = self.setup  # from the next step on
        return loss

    @torch.no_grad()
    def check(self, seconds: float) -> None:
        """Measure the rate, and keep the values if they are the best so far."""
        rate = self._rate(self.raw)
        if rate <= min((r for _, r in self.history), default=math.inf):
            self.kept = [x.detach().clone() for x in self.raw]
        self.history.append((seconds, rate))

    def best(self) -> Schwarz:
        return self._fixed(self.kept)

    @torch.no_grad()
    def _fixed(self, raw: list[Tensor]) -> Schwarz:
        return self._method(self.setup, raw)


def _bar(seconds: float, progress: bool) -> Any:
    return extra("tqdm").tqdm(
        total=seconds, disable=not progress, desc="fine-tuning", unit="s", bar_format="{l_bar}{bar}"
    )
