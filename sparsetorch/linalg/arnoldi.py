"""The core of GMRES and flexible GMRES: Arnoldi's basis and its least-squares problem.

Both minimise |b - A x| over x0 + span{z_1, ..., z_m}, z_j = M v_j, where A Z_m = V_{m+1} H_m with
orthonormal V (Saad and Schultz 1986; Saad 1993 for M that changes from step to step).
"""

from __future__ import annotations

import cmath
import math

import numpy as np
import torch
from torch import Tensor

from sparsetorch.checks import check_count
from sparsetorch.linalg.krylov import Monitor, Operator, Outcome, norm
from sparsetorch.linalg.solution import Status

Number = float | complex


class Basis:
    """Vectors (n,) as rows of a few matrices, the next as large as all before: none is moved."""

    def __init__(self) -> None:
        self._full: list[Tensor] = []
        self._last: Tensor | None = None
        self._size = 0  # of the last one

    def append(self, vector: Tensor) -> None:
        """Add a row."""
        if self._last is None:
            self._last = vector.new_empty(16, vector.shape[0])
        elif self._size == len(self._last):
            self._full.append(self._last)
            self._last = vector.new_empty(sum(map(len, self._full)), vector.shape[0])
            self._size = 0
        self._last[self._size] = vector
        self._size += 1

    @property
    def _matrices(self) -> list[Tensor]:
        assert self._last is not None
        return [*self._full, self._last[: self._size]]

    def components(self, w: Tensor) -> Tensor:
        """v_i^H w of all vectors, (size,); it is the short results that are conjugated."""
        return torch.cat([rows @ w.conj() for rows in self._matrices]).conj()

    def combine(self, y: Tensor) -> Tensor:
        """The sum of y_i v_i, (n,), over as many of the first vectors as y has numbers."""
        matrices = self._matrices
        shares = y.tensor_split(np.cumsum([len(rows) for rows in matrices])[:-1].tolist())
        first, *others = (c @ rows[: len(c)] for c, rows in zip(shares, matrices))
        return sum(others, start=first)


class HessenbergLeastSquares:
    """min |beta e_1 - H y|, updated by Givens rotations as columns of H arrive; on the host.

    The rotations are [[conj(c), s], [-s, c]]: below the diagonal H is real, so s is too.
    """

    def __init__(self, beta: float, precision: float):
        self._precision = precision
        self._rhs: list[Number] = [beta]
        self._columns: list[list[Number]] = []
        self._rotations: list[tuple[Number, float]] = []

    @property
    def residual(self) -> float:
        """The minimum so far."""
        return abs(self._rhs[-1])

    def append(self, column: list[Number]) -> bool:
        """Add column j of H, its j + 2 entries; False, and no change, if that makes H singular."""
        scale = math.hypot(*map(abs, column))
        for i, (c, s) in enumerate(self._rotations):
            upper, lower = column[i], column[i + 1]
            column[i], column[i + 1] = c.conjugate() * upper + s * lower, c * lower - s * upper
        pivot = math.hypot(abs(column[-2]), column[-1].real)
        if pivot <= 10 * self._precision * scale:
            return False
        c, s = column[-2] / pivot, column[-1].real / pivot
        self._rotations.append((c, s))
        self._columns.append([*column[:-2], pivot])
        last = self._rhs.pop()
        self._rhs += [c.conjugate() * last, -s * last]
        return True

    def solve(self) -> list[Number]:
        """The minimiser y, by back substitution."""
        y = self._rhs[: len(self._columns)]
        for j in reversed(range(len(y))):
            y[j] /= self._columns[j][j]
            for i in range(j):
                y[i] -= self._columns[j][i] * y[j]
        return y


def minimise_residual(
    multiply: Operator,
    precondition: Operator,
    b: Tensor,
    x: Tensor,
    monitor: Monitor,
    *,
    restart: int | None,
    flexible: bool,
) -> Outcome:
    """Right-preconditioned GMRES from x, in cycles of `restart` steps (all in one if None).

    `flexible` keeps every z_j = M v_j, for an M that changes; otherwise M is applied once more to
    the sum of the v_j, which halves the memory.
    """
    cycle = b.shape[0] if restart is None else check_count("restart", restart, "step")
    r = b - multiply(x)
    residual = float(norm(r))
    status = monitor.record(residual)
    while status is None:
        images = Basis() if flexible else None
        correction, status = _cycle(
            multiply, precondition, r / residual, residual, monitor, cycle, images
        )
        x = x + correction
        if status is None:
            r = b - multiply(x)
            residual = float(norm(r))
            if residual <= monitor.tolerance:
                status = Status.CONVERGED
    return Outcome(x, status)


def _cycle(
    multiply: Operator,
    precondition: Operator,
    v: Tensor,
    beta: float,
    monitor: Monitor,
    steps: int,
    images: Basis | None,
) -> tuple[Tensor, Status | None]:
    """Up to `steps` steps from the residual beta v: the correction of x, and a reason to stop."""
    basis = Basis()
    basis.append(v)
    problem = HessenbergLeastSquares(beta, torch.finfo(v.dtype).eps)
    status = None
    for _ in range(steps):
        z = precondition(v)
        w, column = _orthogonalise(multiply(z), basis)
        if not all(map(cmath.isfinite, column)):
            monitor.record(math.nan)
            status = Status.DIVERGED
            break
        if not problem.append(column):
            status = Status.BREAKDOWN
            break
        if images is not None:
            images.append(z)
        status = monitor.record(problem.residual)
        if status is not None:
            break
        v = w / column[-1].real
        basis.append(v)
    y = v.new_tensor(problem.solve())
    if images is not None and y.numel():
        return images.combine(y), status
    combined = basis.combine(y)
    return (precondition(combined) if y.numel() else combined), status


def _orthogonalise(w: Tensor, basis: Basis) -> tuple[Tensor, list[Number]]:
    """Remove from w its components in the basis.

    Returns the rest of w, and the column of H: the components and the norm of the rest, which is
    zero when the rest is nothing but rounding.

    Classical Gram-Schmidt done twice: as orthogonal as the modified form with one
    reorthogonalisation (Giraud, Langou and Rozloznik 2005), in four matrix-vector products
    instead of 2 j dot products.
    """
    before = norm(w)
    first = basis.components(w)
    w = w - basis.combine(first)
    second = basis.components(w)
    w = w - basis.combine(second)
    norms = torch.stack([norm(w), before]).to(w.dtype)
    *column, before_norm = torch.cat([first + second, norms]).tolist()
    if abs(column[-1]) <= 10 * torch.finfo(w.dtype).eps * abs(before_norm):
        column[-1] = 0.0
    return w, column
