"""Anderson's acceleration of fixed-point iterations: Anderson (1965); Walker and Ni (2011)."""

from __future__ import annotations

import torch
from torch import Tensor


class Anderson:
    """Anderson's acceleration: the step from the combination with the smallest change.

    For real z, of any shape.
    """

    def __init__(self, window: int):
        self._window = window
        self._points: list[Tensor] = []
        self._changes: list[Tensor] = []

    def next(self, z: Tensor, change: Tensor) -> Tensor:
        """The next point, from this one and f(z) - z."""
        self._points = [*self._points[-self._window :], z.flatten()]
        self._changes = [*self._changes[-self._window :], change.flatten()]
        points, changes = torch.stack(self._points, 1), torch.stack(self._changes, 1)
        if points.shape[1] == 1 or change.numel() == 0:
            return z + change
        d_points, d_changes = points.diff(dim=1), changes.diff(dim=1)
        columns, sizes = _normalized(d_changes)
        U, s, Vh = torch.linalg.svd(columns, full_matrices=False)
        cutoff = 10 * torch.finfo(s.dtype).eps * s[:1]
        inverse = torch.where(s > cutoff, 1 / s, 0)
        weights = (Vh.mT @ (inverse * (U.mT @ changes[:, -1]))) / sizes
        return (points[:, -1] + changes[:, -1] - (d_points + d_changes) @ weights).view_as(z)


def _normalized(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of length one, for differences shrink as the iteration converges; and their lengths.

    They are divided by their largest entry first, whose square may be out of range.
    """
    largest = columns.abs().amax(0)
    largest = torch.where(largest > 0, largest, 1)
    columns = columns / largest
    lengths = torch.linalg.vector_norm(columns, dim=0)
    lengths = torch.where(lengths > 0, lengths, 1)
    return columns / lengths, lengths * largest
