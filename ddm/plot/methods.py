"""Pictures of methods side by side: residuals by iteration, and seconds of set-up and solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt

from ddm.plot.curves import plot_convergence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ddm.racing import Trial
    from ddm.runs import Run


def plot_runs(runs: Mapping[str, Run]) -> Figure:
    """Residuals by iteration with a Krylov method and alone, and seconds of set-up and solve.

    Methods that do not apply are left out; one that did not converge says so in the legend.
    """
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for ax, kind in ((axes[0], "krylov"), (axes[1], "stationary")):
        solutions = {name: getattr(run, kind) for name, run in runs.items()}
        histories = {
            f"{name}: {s.iterations}" + ("" if s.converged else ", not converged"): s.residuals
            for name, s in solutions.items()
            if s is not None and s.residuals and s.residuals[0] > 0
        }
        if histories:
            plot_convergence(histories, ax)
    axes[0].set_title("with a Krylov method", fontsize="medium")
    axes[1].set_title("alone", fontsize="medium")
    plot_seconds(
        {
            name: (run.setup_s, run.solve_s)
            for name, run in runs.items()
            if run.setup_s is not None and run.solve_s is not None
        },
        axes[2],
    )
    return figure


def plot_trials(trials: Sequence[Trial], best: Trial, most: int = 12) -> Figure:
    """Residuals of a tuning run's candidates, the best standing out, and seconds of the cheapest.

    most: bars.
    """
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for trial in trials:
        if trial is best or not trial.residuals or not trial.residuals[0] > 0:
            continue
        values = np.asarray(trial.residuals) / trial.residuals[0]
        axes[0].semilogy(values, color="#bdbdbd", linewidth=1)
    name = f"{best.method} {best.settings}".strip()
    style = {"color": "#d7301f", "linewidth": 2.6}
    plot_convergence({name: best.residuals}, axes[0], styles={name: style})
    finished = [t for t in trials if t.cost_s is not None and t.setup_s is not None]
    finished = sorted(finished, key=lambda t: t.cost_s or 0.0)[:most]
    seconds = {
        f"{i + 1}. {t.method} {t.settings}".strip(): (t.setup_s or 0.0, t.solve_s or 0.0)
        for i, t in enumerate(finished)
    }
    plot_seconds(seconds, axes[1])
    return figure


def plot_seconds(seconds: Mapping[str, tuple[float, float]], ax: Axes | None = None) -> Axes:
    """Draw seconds of (set-up, solve) as one bar a method, the first on top."""
    ax = ax or plt.gca()
    names = list(seconds)
    setup = np.array([seconds[name][0] for name in names])
    solve = np.array([seconds[name][1] for name in names])
    ax.barh(names, setup, color="#9ecae1", label="set-up")
    ax.barh(names, solve, left=setup, color="#d7301f", label="solve")
    ax.invert_yaxis()
    ax.set_xlabel("seconds")
    ax.legend(frameon=False, fontsize="small")
    return ax
