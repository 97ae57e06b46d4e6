"""Pictures of convergence by iteration, cost by size, and training by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt

from ddm.plot.palette import LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_convergence(
    histories: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    *,
    styles: Mapping[str, Mapping[str, object]] | None = None,
) -> Axes:
    """Draw relative residuals by iteration, one curve a method; growth is cut off at 1e3."""
    ax = ax or plt.gca()
    for number, (name, history) in enumerate(histories.items()):
        values = np.asarray(history, dtype=float)
        colour = LINES[number % len(LINES)]
        style = {"linewidth": 1.6, "color": colour, **(styles or {}).get(name, {})}
        ax.semilogy(values / values[0], label=name, **style)
    ax.set_ylim(top=min(ax.get_ylim()[1], 1e3))
    ax.set_xlabel("iteration")
    ax.set_ylabel("relative residual")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_cost(
    unknowns: Sequence[int], seconds: Mapping[str, Sequence[float]], ax: Axes | None = None
) -> Axes:
    """Draw seconds by number of unknowns, one curve a stage, with a line of slope one."""
    ax = ax or plt.gca()
    n = np.asarray(unknowns, dtype=float)
    largest = 0.0
    for name, values in seconds.items():
        ax.loglog(n, values, "o-", label=name, linewidth=1.6, markersize=4)
        largest = max(largest, float(values[-1]))
    ax.loglog(n, 2 * largest * n / n[-1], "--", color="#999999", linewidth=1, label="linear")
    ax.set_xlabel("unknowns")
    ax.set_ylabel("seconds")
    ax.grid(alpha=0.25, which="both")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_loss(steps: Sequence[int], loss: Sequence[float], ax: Axes | None = None) -> Axes:
    """Draw a training loss by step, faint, with its running mean."""
    ax = ax or plt.gca()
    values = np.asarray(loss, dtype=float)
    width = max(1, len(values) // 20)
    mean = np.convolve(values, np.ones(width) / width, mode="valid")
    ax.plot(steps, values, color="#9ecae1", linewidth=0.8)
    ax.plot(np.asarray(steps)[width - 1 :], mean, color="#08519c", linewidth=1.8)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.grid(alpha=0.25)
    return ax


def plot_validation(
    steps: Sequence[int],
    factor: Sequence[float],
    ratio: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the convergence factor on validation meshes by training step; below 1 it converges.

    Args:
        steps: of each validation.
        factor: mean convergence factor; values that are not finite leave a gap.
        ratio: iterations against the classical method's, dashed, on the same axis.
        ax: axes.

    Raises:
        ValueError: lengths that differ.
    """
    lengths = {len(steps), len(factor), len(steps if ratio is None else ratio)}
    if len(lengths) > 1:
        raise ValueError(f"factor, ratio: expected {len(steps)} values, one a step, got {lengths}")
    ax = ax or plt.gca()
    ax.plot(steps, factor, "o-", color="#08519c", markersize=4, label="convergence factor")
    if ratio is not None:
        label = "iterations / classical"
        ax.plot(steps, ratio, "s--", color="#d95f02", markersize=3.5, linewidth=1.2, label=label)
    ax.axhline(1.0, color="#999999", linewidth=0.8)
    values = np.asarray([*factor, *(ratio or [])], dtype=float)
    highest = values[np.isfinite(values)].max(initial=1.0)
    ax.set_ylim(0, min(1.05 * highest, 2.0))  # one that diverges would hide the others
    ax.set_xlabel("step")
    ax.set_ylabel("on validation meshes")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize="small")
    return ax
