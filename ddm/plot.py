"""Pictures: meshes with subdomains and coarse nodes, solutions, convergence, cost by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.tri import Triangulation

from ddm.partition import Decomposition
from ddm.problems import Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ddm.racing import Trial
    from ddm.runs import Run

# Light tints that dark coarse nodes stand out from; neighbours differ, see `subdomain_colours`.
TINTS = ListedColormap(
    ["#a6cee3", "#fdd49e", "#b2df8a", "#fbb4b9", "#cab2d6", "#ffffb3", "#d9d9d9", "#ccebc5"]
)
INK = "#333333"


def subdomain_colours(problem: Problem, owner: np.ndarray) -> np.ndarray:
    """A colour number for each subdomain, (S,), so that neighbours differ; greedy."""
    n_parts = int(owner.max()) + 1
    row = np.repeat(np.arange(len(owner)), np.diff(problem.A.indptr))
    pairs = np.unique(np.stack([owner[row], owner[problem.A.indices]], axis=1), axis=0)
    neighbours: list[list[int]] = [[] for _ in range(n_parts)]
    for a, b in pairs[pairs[:, 0] != pairs[:, 1]]:
        neighbours[a].append(b)
    colours = np.full(n_parts, -1)
    for part in sorted(range(n_parts), key=lambda p: -len(neighbours[p])):
        taken = set(colours[neighbours[part]])
        colours[part] = next(c for c in range(n_parts) if c not in taken)
    return colours % TINTS.N


def _triangle_owners(problem: Problem, owner: np.ndarray) -> np.ndarray:
    """Subdomain of each triangle: that of most of its unknowns; -1 where it has none."""
    nodes = np.full(problem.mesh.nvertices, -1)
    nodes[problem.interior] = owner
    a, b, c = nodes[problem.mesh.t]
    majority = np.where((b == c) & (b >= 0), b, a)
    return np.where(majority >= 0, majority, np.maximum(b, c))


def plot_subdomains(
    problem: Problem,
    decomposition: Decomposition,
    ax: Axes | None = None,
    *,
    coarse: bool = True,
    window: tuple[float, float, float, float] | None = None,
) -> Axes:
    """Draw the mesh with its subdomains and, above it, the coarse graph: a dot a subdomain.

    Beyond some hundreds of subdomains the coarse graph would hide what it lies on: coarse=False,
    or a `window` (x, x, y, y): the part of the plane to draw.
    """
    ax = ax or plt.gca()
    mesh, owner = problem.mesh, decomposition.owner
    tint = subdomain_colours(problem, owner)
    triangles = _triangle_owners(problem, owner)
    low, high = _corners(mesh.p, window)
    corners = mesh.p[:, mesh.t]  # (2, 3, triangles)
    visible = (corners.max(1) >= low).all(0) & (corners.min(1) <= high).all(0)
    drawn = visible & (triangles >= 0)
    triangulation = Triangulation(mesh.p[0], mesh.p[1], mesh.t.T[drawn])
    small = visible.sum() < 10_000
    ax.tripcolor(
        triangulation,
        facecolors=tint[triangles[drawn]],
        cmap=TINTS,
        vmin=-0.5,
        vmax=TINTS.N - 0.5,
        edgecolors="#ffffff" if small else "none",
        linewidth=0.25 if small else 0.0,
        rasterized=True,
    )
    if coarse:
        xy = problem.coordinates
        sizes = np.bincount(owner)
        centres = np.stack([np.bincount(owner, weights=x) / sizes for x in xy.T], axis=1)
        inside = (centres >= low.T) & (centres <= high.T)
        shown = max(1, inside.all(1).sum())
        row = np.repeat(np.arange(len(owner)), np.diff(problem.A.indptr))
        pairs = np.stack([owner[row], owner[problem.A.indices]], axis=1)
        pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
        ax.add_collection(
            LineCollection(list(centres[pairs]), colors=INK, linewidths=min(0.7, 8 / shown**0.5))
        )
        ax.plot(*centres.T, "o", color=INK, markersize=min(4.0, 40 / shown**0.5))
    if window is not None:
        ax.set_xlim(*window[:2])
        ax.set_ylim(*window[2:])
    _bare(ax)
    return ax


def _corners(
    points: np.ndarray, window: tuple[float, float, float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner, (2, 1) each, of a window, or of all points (2, n)."""
    if window is None:
        return points.min(1, keepdims=True), points.max(1, keepdims=True)
    return np.array([window[0::2]]).T, np.array([window[1::2]]).T


def plot_solution(problem: Problem, u: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw the solution, (n,) unknowns, in colour with its level lines."""
    ax = ax or plt.gca()
    full = problem.extend(np.asarray(u))
    triangulation = Triangulation(problem.mesh.p[0], problem.mesh.p[1], problem.mesh.t.T)
    ax.tripcolor(triangulation, full, shading="gouraud", cmap="viridis", rasterized=True)
    levels = np.linspace(full.min(), full.max(), 10)[1:-1]
    ax.tricontour(triangulation, full, levels=levels, colors="white", linewidths=0.4)
    _bare(ax)
    return ax


def plot_convergence(
    histories: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    *,
    styles: Mapping[str, Mapping[str, object]] | None = None,
) -> Axes:
    """Draw relative residuals by iteration, one curve a method; growth is cut off at 1e3."""
    ax = ax or plt.gca()
    for name, history in histories.items():
        values = np.asarray(history, dtype=float)
        style = {"linewidth": 1.6, **(styles or {}).get(name, {})}
        ax.semilogy(values / values[0], label=name, **style)
    ax.set_ylim(top=min(ax.get_ylim()[1], 1e3))
    ax.set_xlabel("iteration")
    ax.set_ylabel("relative residual")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize="small")
    return ax


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

    Seconds are those of the set-up and of all solves that it is to serve.

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
    if best.residuals and best.residuals[0] > 0:
        plot_convergence({name: best.residuals}, axes[0], styles={name: style})
    costs = [(t, t.setup_s, t.cost_s) for t in trials if t.setup_s is not None]
    costs = [(t, setup, cost - setup) for t, setup, cost in costs if cost is not None]
    costs.sort(key=lambda item: item[1] + item[2])
    seconds = {
        f"{i}. {trial.method} {trial.settings}".strip(): (setup, solves)
        for i, (trial, setup, solves) in enumerate(costs[:most], 1)
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


def _bare(ax: Axes) -> None:
    ax.set_aspect("equal")
    ax.set_axis_off()
