"""Waves around an obstacle, by Schwarz methods with absorbing conditions and coarse plane waves.

    python examples/helmholtz.py [--wavenumbers 20 40 60] [--weights owned] [--out runs/helmholtz]

`-div grad u - k^2 u = f` in a square with a hole: u = 0 on the hole, `du/dn = i k u` outside, so
that waves leave; f is a small source. The matrix is complex and indefinite: GMRES. The mesh has ten
linear elements a wavelength, so that `k h`, and with it the best Robin weight, stays the same: it
is searched once, at the smallest k. A complex weight absorbs waves at the interfaces (Despres 1991;
Gander, Magoules, Nataf 2002); coarse spaces are a constant on each subdomain, or plane waves in
some directions (Farhat, Macedo, Lesoinne 2000).

Writes helmholtz.csv, helmholtz.md and helmholtz.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt

import ddm
from ddm.coarse import nicolaides
from ddm.partition import Decomposition, decompose, partition
from ddm.plot import plot_solution, plot_subdomains
from ddm.plot.palette import LINES
from ddm.problems import Problem
from ddm.schwarz import Schwarz
from ddm.table import Table
from sparsetorch import CSRTensor
from sparsetorch.linalg import Solution, gmres

A_WAVELENGTH = 10  # elements
COLUMNS = ("wavenumber", "unknowns", "subdomains", "method", "coarse", "iterations", "seconds")
RTOL = 1e-6


def problem_at(wavenumber: float) -> Problem:
    """The problem with a mesh that resolves the waves."""
    size = 2 * np.pi / (A_WAVELENGTH * wavenumber)
    angle = 2 * np.pi * np.arange(48) / 48
    hole = np.stack([0.62 + 0.16 * np.cos(angle), 0.5 + 0.16 * np.sin(angle)], axis=1)
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    nodes = round((1 - np.pi * 0.16**2) / (size**2 * 3**0.5 / 2))
    mesh = ddm.mesh_domain(square, n_nodes=max(nodes, 100), holes=[hole])

    def source(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 1e3 * np.exp(-((x - 0.15) ** 2 + (y - 0.35) ** 2) / (2 * 0.02**2))

    return ddm.helmholtz(mesh, wavenumber, source, dirichlet={"hole 0": 0.0})


def plane_waves(problem: Problem, wavenumber: float, directions: int) -> np.ndarray:
    """`exp(i k d . x)` for directions d around the circle, (n, directions)."""
    angle = 2 * np.pi * np.arange(directions) / directions
    return np.exp(1j * wavenumber * problem.coordinates @ np.stack([np.cos(angle), np.sin(angle)]))


def solve(A: CSRTensor, b: torch.Tensor, M: Schwarz, maxiter: int) -> Solution:
    """GMRES without restarts."""
    return gmres(A, b, preconditioner=M, rtol=RTOL, maxiter=maxiter)


def best_weight(A: CSRTensor, b: torch.Tensor, parts: Decomposition, maxiter: int) -> complex:
    """The weight of one-level ORAS that needs the fewest iterations.

    Imaginary parts are negative like those of the outer boundary's condition; local matrices with a
    real weight alone may be singular, as waves do not leave.
    """
    best, fewest = -1j, maxiter + 1
    for real in (0.0, 0.25, 0.5, 0.75):
        for imaginary in (0.1, 0.2, 0.35, 0.5, 0.75, 1.0):
            theta = complex(real, -imaginary)
            interface = ddm.robin(parts, theta, A.dtype)
            solution = solve(A, b, Schwarz(A, parts, interface=interface), min(fewest, maxiter))
            if solution.converged and solution.iterations < fewest:
                best, fewest = theta, solution.iterations
    return best


def methods(
    A: CSRTensor,
    problem: Problem,
    parts: Decomposition,
    wavenumber: float,
    theta: complex,
    weights: str = "owned",
) -> Iterator[tuple[str, Schwarz]]:
    """Names and preconditioners."""
    absorbing = ddm.robin(parts, theta, A.dtype)
    yield "RAS", Schwarz(A, parts)
    yield "ORAS", Schwarz(A, parts, interface=absorbing)
    constants = nicolaides(parts, np.ones((len(problem.b), 1)))
    yield "ORAS, constants", Schwarz(A, parts, interface=absorbing, P=constants)
    for directions in (8, 12):
        # Cut off at the borders of what subdomains own: weighted by a partition of unity, waves
        # are no longer waves where subdomains overlap, and 12 of them gain hardly anything.
        B = plane_waves(problem, wavenumber, directions)
        waves = nicolaides(parts, B, weights=weights, rtol=1e-2)
        name = f"ORAS, {directions} plane waves"
        yield name, Schwarz(A, parts, interface=absorbing, P=waves)


def run(
    wavenumbers: list[float], subdomain: int, maxiter: int, weights: str = "owned"
) -> tuple[Table, Any]:
    """All methods at each wavenumber, and what the picture shows: problem, subdomains, wave."""
    table, theta, shown = Table(COLUMNS), None, None
    for wavenumber in sorted(wavenumbers):
        problem = problem_at(wavenumber)
        count = max(2, round(len(problem.b) / subdomain))
        parts = decompose(problem.A, partition(problem.A, count), overlap=2)
        A, b = CSRTensor.from_scipy(problem.A), torch.from_numpy(problem.b)
        if theta is None:
            theta = best_weight(A, b, parts, maxiter)
            print(f"Robin weight {theta:.2f}, searched at k = {wavenumber:g}", flush=True)
        for name, M in methods(A, problem, parts, wavenumber, theta, weights):
            start = time.perf_counter()
            solution = solve(A, b, M, maxiter)
            table.add(
                wavenumber=wavenumber,
                unknowns=len(problem.b),
                subdomains=parts.n_subdomains,
                method=name,
                coarse=0 if M.P is None else M.P.shape[1],
                iterations=solution.iterations if solution.converged else None,
                seconds=time.perf_counter() - start,
            )
            print(f"k = {wavenumber:g}, {name}: {solution.iterations} iterations", flush=True)
            if solution.converged:
                shown = (wavenumber, problem, parts, solution.x.numpy())
    return table, shown


def draw(table: Table, shown: Any, path: Path) -> None:
    """Subdomains, the wave, and iterations against the wavenumber."""
    wavenumber, problem, parts, u = shown
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    plot_subdomains(problem, parts, axes[0], coarse=False)
    axes[0].set_title(f"{parts.n_subdomains} subdomains", fontsize="medium")
    plot_solution(problem, u, axes[1])
    axes[1].set_title(f"real part, k = {wavenumber:g}", fontsize="medium")
    names = dict.fromkeys(row["method"] for row in table.rows)
    for name, marker, colour in zip(names, "osD^v", LINES):
        rows = [row for row in table.rows if row["method"] == name and row["iterations"]]
        k, count = [row["wavenumber"] for row in rows], [row["iterations"] for row in rows]
        axes[2].plot(k, count, f"{marker}-", color=colour, markersize=5, label=name)
    axes[2].set_xlabel("wavenumber k")
    axes[2].set_ylabel(f"GMRES iterations to {RTOL:g}")
    axes[2].set_ylim(bottom=0)
    axes[2].grid(alpha=0.25)
    axes[2].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wavenumbers", type=float, nargs="+", default=[20.0, 40.0, 60.0])
    parser.add_argument("--subdomain", type=int, default=150, help="unknowns a subdomain owns")
    parser.add_argument("--maxiter", type=int, default=200)
    parser.add_argument(
        "--weights", choices=("owned", "shared"), default="owned", help="of plane waves"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/helmholtz"))
    args = parser.parse_args()
    mpl.use("Agg")
    args.out.mkdir(parents=True, exist_ok=True)
    table, shown = run(args.wavenumbers, args.subdomain, args.maxiter, args.weights)
    table.to_csv(args.out / "helmholtz.csv")
    (args.out / "helmholtz.md").write_text(table.to_markdown())
    if shown is not None:
        draw(table, shown, args.out / "helmholtz.png")
    print(table.to_markdown())


if __name__ == "__main__":
    main()
