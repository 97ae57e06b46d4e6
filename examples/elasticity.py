"""Elasticity of an assembly from a CAD file, by two-level Schwarz methods and by AMG.

    python examples/elasticity.py [--nodes 6000] [--cad FILE.step] [--out runs/elasticity]

`-div sigma(u) = f` on tetrahedra, 3 unknowns a node, clamped where z is smallest and loaded by its
weight and from the side; each part of the assembly has its own stiffness. The coarse spaces hold
the six rigid-body modes of each subdomain (Toselli, Widlund 2005, chapter 3), or GenEO's
eigenvectors (Spillane et al. 2014). Robin conditions between the Dirichlet and the Neumann matrix
keep local matrices definite (`ddm.interface.robin_between`); in CG the method must be symmetric.

Writes elasticity.csv, elasticity.md and elasticity.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyamg
import torch
from matplotlib import pyplot as plt

import ddm
from ddm.coarse import assembled_neumann, geneo, nicolaides, smooth
from ddm.interface import robin_between
from ddm.partition import Decomposition, decompose, partition
from ddm.plot import plot_convergence, plot_solution, plot_subdomains
from ddm.problems import Problem
from ddm.schwarz import Schwarz
from ddm.table import Table
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg, fgmres

# The gmsh wheel brings this assembly of 18 parts (AS1-TU-203, a test case of CAD exchange).
ASSEMBLY = Path(sys.prefix) / "share" / "doc" / "gmsh" / "examples" / "boolean" / "as1-tu-203.stp"
COLUMNS = ("method", "solver", "coarse", "iterations", "setup_s", "solve_s")
RTOL, MAXITER = 1e-8, 300


def solid(cad: Path, nodes: int) -> Any:
    """The mesh of a CAD file, or a block with two holes where there is no such file."""
    if cad.is_file():
        return ddm.mesh_cad(cad, nodes)
    print(f"no file {cad}: a block with two holes instead")
    holes = [(0.6, 0.5, 0.5, 0.3), (1.4, 0.5, 0.5, 0.3)]
    return ddm.mesh_box(n_nodes=nodes, size=(2, 1, 1), holes=holes)


def young(mesh: Any) -> np.ndarray:
    """Young's modulus of each element: the largest part is of aluminium, the others of steel."""
    stiff = np.full(mesh.nelements, 210.0)  # GPa, lengths in mm
    parts = list((mesh.subdomains or {}).values())
    if len(parts) > 1:
        stiff[max(parts, key=len)] = 70.0
    return stiff


def problem_on(mesh: Any) -> Problem:
    """Clamped at the bottom; the weight, and a force to the side that grows with the height."""
    low, high = mesh.p[2].min(), mesh.p[2].max()

    def bottom(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return z < low + 1e-6 * (high - low)

    def force(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.stack([(z - low) / (high - low), 0 * y, -0.2 + 0 * z])

    return ddm.elasticity(mesh, young(mesh), 0.3, force, dirichlet={bottom: 0.0})


@dataclass
class Ground:
    """What the methods share: the matrix, its subdomains, and the coarse space of rigid bodies."""

    problem: Problem
    A: CSRTensor
    parts: Decomposition
    P: CSRTensor

    @classmethod
    def of(cls, problem: Problem, subdomain: int) -> Ground:
        """Subdomains that own about `subdomain` unknowns; nodes stay whole."""
        assert problem.near_nullspace is not None
        count = max(2, round(len(problem.b) / subdomain))
        owner = partition(problem.A, count, block_size=3)
        parts = decompose(problem.A, owner, block_size=3)
        A = CSRTensor.from_scipy(problem.A)
        P = smooth(nicolaides(parts, problem.near_nullspace), A, block_size=3)
        return cls(problem, A, parts, P)

    def neumann(self) -> CSRTensor:
        """Neumann matrices of the subdomains, from the element matrices."""
        assert self.problem.elements is not None
        return assembled_neumann(
            self.parts, self.problem.elements.dofs, self.problem.elements.matrices
        )

    def between(self, theta: float) -> torch.Tensor:
        """Interface values: local matrices are `theta A_i + (1 - theta) N_i`."""
        return robin_between(self.A, self.parts, self.neumann(), theta)

    def geneo(self) -> CSRTensor:
        """As many eigenvectors of each subdomain as there are rigid-body modes."""
        return geneo(self.A, self.parts, neumann=self.neumann(), threshold=None, count=6)


def methods(ground: Ground) -> dict[str, tuple[Callable[..., Any], Callable[[], Schwarz]]]:
    """Solver, and what makes its preconditioner, by name."""
    A, d, P = ground.A, ground.parts, ground.P

    def symmetric(levels: Any, P: CSRTensor) -> Schwarz:
        return Schwarz(A, d, P=P, form="additive", levels=levels)

    return {
        "RAS, one level": (fgmres, lambda: Schwarz(A, d)),
        "RAS, rigid-body modes": (fgmres, lambda: Schwarz(A, d, P=P)),
        "ORAS between, rigid-body modes": (
            fgmres,
            lambda: Schwarz(A, d, P=P, interface=ground.between(0.7)),
        ),
        "AS, balanced, rigid-body modes": (cg, lambda: symmetric("balanced", P)),
        "AS, V-cycle, rigid-body modes": (cg, lambda: symmetric("symmetric", P)),
        "AS, balanced, GenEO": (cg, lambda: symmetric("balanced", ground.geneo())),
        "SORAS between, balanced": (
            cg,
            lambda: Schwarz(
                A, d, P=P, interface=ground.between(0.7), form="symmetric", levels="balanced"
            ),
        ),
    }


def solve_all(ground: Ground, table: Table) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Run all methods and AMG; returns the displacement and the residuals by name."""
    b, u = torch.from_numpy(ground.problem.b), np.zeros(0)
    histories: dict[str, list[float]] = {}
    for name, (solver, make) in methods(ground).items():
        start = time.perf_counter()
        M = make()
        ready = time.perf_counter()
        solution = solver(ground.A, b, preconditioner=M, rtol=RTOL, maxiter=MAXITER)
        end = time.perf_counter()
        histories[name] = solution.residuals
        if solution.converged:
            u = solution.x.numpy()
        table.add(
            method=name,
            solver="CG" if solver is cg else "FGMRES",
            coarse=0 if M.P is None else M.P.shape[1],
            iterations=solution.iterations if solution.converged else None,
            setup_s=ready - start,
            solve_s=end - ready,
        )
        print(f"{name}: {solution.iterations} iterations, {solution.status.name}", flush=True)
    histories["PyAMG, SA"] = amg(ground.problem, table)
    return u, histories


def amg(problem: Problem, table: Table) -> list[float]:
    """Smoothed aggregation with the rigid-body modes, in CG, as a user of PyAMG calls it."""
    start = time.perf_counter()
    hierarchy = pyamg.smoothed_aggregation_solver(
        problem.A.tobsr((3, 3)), B=problem.near_nullspace, max_coarse=300
    )
    ready = time.perf_counter()
    residuals: list[float] = []
    hierarchy.solve(problem.b, tol=RTOL, accel="cg", maxiter=MAXITER, residuals=residuals)
    end = time.perf_counter()
    converged = residuals[-1] <= RTOL * np.linalg.norm(problem.b)
    table.add(
        method="PyAMG, SA",
        solver="CG",
        coarse=hierarchy.levels[1].A.shape[0] if len(hierarchy.levels) > 1 else 0,
        iterations=len(residuals) - 1 if converged else None,
        setup_s=ready - start,
        solve_s=end - ready,
    )
    return residuals


def draw(ground: Ground, u: np.ndarray, histories: dict[str, list[float]], path: Path) -> None:
    """The subdomains, the deformed solid, and convergence."""
    figure = plt.figure(figsize=(14.5, 4.4), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # pyright: ignore
    grid = figure.add_gridspec(1, 3, width_ratios=(1, 1.1, 1.15))
    left, middle = (figure.add_subplot(grid[k], projection="3d") for k in (0, 1))
    plot_subdomains(ground.problem, ground.parts, left)
    left.set_title(f"{ground.parts.n_subdomains} subdomains", fontsize="medium")
    plot_solution(ground.problem, u, middle, colorbar=True)
    middle.set_title(f"{len(u):,} unknowns, deformed (not to scale)", fontsize="medium")
    right = figure.add_subplot(grid[2])
    plot_convergence(
        {f"{name}: {len(history) - 1}": history for name, history in histories.items()}, right
    )
    right.set_title("iterations", fontsize="medium")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cad", type=Path, default=ASSEMBLY, help="a STEP, IGES or STL file")
    parser.add_argument("--nodes", type=int, default=6000, help="of the mesh")
    parser.add_argument("--subdomain", type=int, default=300, help="unknowns a subdomain owns")
    parser.add_argument("--out", type=Path, default=Path("runs/elasticity"))
    args = parser.parse_args()
    mpl.use("Agg")
    args.out.mkdir(parents=True, exist_ok=True)
    problem = problem_on(solid(args.cad, args.nodes))
    ground = Ground.of(problem, args.subdomain)
    print(f"{len(problem.b):,} unknowns, {ground.parts.n_subdomains} subdomains", flush=True)
    table = Table(COLUMNS)
    u, histories = solve_all(ground, table)
    table.to_csv(args.out / "elasticity.csv")
    (args.out / "elasticity.md").write_text(table.to_markdown())
    draw(ground, u, histories, args.out / "elasticity.png")
    print(table.to_markdown())


if __name__ == "__main__":
    main()
