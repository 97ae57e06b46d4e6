"""The symmetric Lanczos process: the core of MINRES, and a way to bound eigenvalues.

With a Hermitian A and a Hermitian positive definite M it builds V with V^H M V = I, Q = M V and a
real tridiagonal T, so that A Q_k = V_{k+1} T_k, and the eigenvalues of T_k tend to those of M A
(Paige and Saunders 1975; Saad, Iterative Methods, section 6.6).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from sparsetorch.linalg.krylov import Operator, real_dot
from sparsetorch.linalg.solution import Status

# Steps between looks at the Ritz values, and the number after which the bounds have to do.
STRIDE, MAX_STEPS = 10, 100


class Lanczos:
    """The process from a vector r (n,): beta v = r, q = M v, with beta^2 = r . M r.

    `beta` is zero when the space is exhausted, and NaN when M is not positive definite; `curvature`
    is then the r . M r that shows it.
    """

    def __init__(self, multiply: Operator, precondition: Operator, r: Tensor):
        self._multiply = multiply
        self._precondition = precondition
        self._v_before = torch.zeros_like(r)
        self._precision = torch.finfo(r.dtype).eps
        self._above = 0.0  # of the next column of T: beta but for the first, when it is that of r
        self._normalise(r, 0.0)

    def step(self) -> tuple[float, float, float]:
        """Advance v and q, and return a column of T: above, on and below the diagonal."""
        above = self._above
        w = self._multiply(self.q)
        alpha = float(real_dot(self.q, w))
        w = w - alpha * self.v - above * self._v_before
        self._v_before = self.v
        self._normalise(w, math.hypot(alpha, above))
        self._above = self.beta
        return above, alpha, self.beta

    def _normalise(self, w: Tensor, scale: float) -> None:
        z = self._precondition(w)
        self.curvature = float(real_dot(w, z))
        if abs(self.curvature) <= (10 * self._precision * scale) ** 2:  # nothing but rounding
            self.beta, self.v, self.q = 0.0, torch.zeros_like(w), torch.zeros_like(w)
            return
        self.beta = math.sqrt(self.curvature) if self.curvature > 0 else math.nan
        self.v, self.q = w / self.beta, z / self.beta

    def failure(self) -> tuple[Status, str] | None:
        """Why M is no inner product, with the evidence; None if it is one so far."""
        if not math.isnan(self.beta):
            return None
        if math.isnan(self.curvature):
            return Status.DIVERGED, "r.M r is NaN"
        return Status.INDEFINITE, f"r.M r = {self.curvature:.3g}"


def eigenvalue_bounds(
    multiply: Operator, precondition: Operator, like: Tensor, floor: float = 0.0
) -> tuple[float, float]:
    """The smallest and largest eigenvalue of M A, the latter from above: up to 100 Lanczos steps.

    multiply, precondition: x -> A x and r -> M r on (n,), A symmetric and M symmetric positive
    definite. like: (n,), for size, dtype and device; the start is random and always the same.

    The largest Ritz value plus the norm of its residual (Zhou and Li 2011) or 1 per cent, and the
    smallest less its own, by half at most. Looks for more until those norms are below 1 and 10 per
    cent of the values; for the smallest, until it is below `floor` times the largest. A smallest
    value that is not positive proves that A is not positive definite. NaN if A or M has NaN, or M
    is not positive definite.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(like.shape[0], generator=generator, dtype=like.dtype).to(like.device)
    process = Lanczos(multiply, precondition, start)
    diagonal: list[float] = []
    below: list[float] = []
    while True:
        if math.isnan(process.beta):
            return math.nan, math.nan
        _, alpha, beta = process.step()
        diagonal.append(alpha)
        below.append(beta)
        done = beta == 0 or len(diagonal) == min(MAX_STEPS, like.shape[0])
        if done or len(diagonal) % STRIDE == 0:
            if math.isnan(beta):
                return math.nan, math.nan
            (low, low_error), (high, high_error) = _extreme_ritz_values(diagonal, below)
            low_known = low_error <= 0.1 * low or low <= floor * high
            if done or low <= 0 or (low_known and high_error <= 0.01 * high):
                if beta != 0:  # a largest value too small costs more than one too large
                    high += max(high_error, 0.01 * high)
                return (max(low - low_error, 0.5 * low) if low > 0 else low), high


def _extreme_ritz_values(
    diagonal: list[float], below: list[float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The smallest and the largest eigenvalue of T, each with the norm of its residual."""
    values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(below[:-1]))
    errors = below[-1] * np.abs(vectors[-1])
    return (float(values[0]), float(errors[0])), (float(values[-1]), float(errors[-1]))
