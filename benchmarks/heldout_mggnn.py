"""MG-GNN against classical two-level methods on meshes never trained on: ten at each size.

    python benchmarks/heldout_mggnn.py [--checkpoint FILE] [--meshes 10] [--out FILE]

Iterations until the relative residual of Poisson's equation (f = 1, zero start) is 1e-8, mean and
spread over random domains whose seeds training does not use; METIS subdomains of 64 unknowns. "best
theta" is the constant Robin weight that needs the fewest iterations on each very mesh.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from ddm.checkpoints import FOLDER
from ddm.classical import Classical
from ddm.comparison import compare
from ddm.learned import InterfaceNet
from ddm.mesh import random_mesh
from ddm.methods import Maker
from ddm.problems import Problem, poisson
from ddm.schwarz import Schwarz
from ddm.search import best_classical
from ddm.table import Table
from ddm.workbench import Workbench

FIRST_SEED, RTOL = 55_000_000, 1e-8


def best_theta(smoothing: int) -> Maker:
    """ORAS with the Robin weight that is best on the very matrix."""

    def make(bench: Workbench) -> Schwarz:
        found = best_classical(
            bench, overlaps=(1,), between=(False,), smoothings=(smoothing,), rtol=RTOL
        )
        return found.method

    return make


METHODS: dict[str, str | Maker] = {
    "RAS": "ras",
    "ORAS best theta": best_theta(0),
    "RAS, smoothed": Classical(),
    "ORAS best theta, smoothed": best_theta(1),
    "MG-GNN": "mggnn",
    "ORAS 0.5, smoothed": "oras",
}


def counts(problem: Problem, net: InterfaceNet, subdomain: int) -> dict[str, tuple[int, int]]:
    """Stationary and FGMRES iterations of each method, by name."""
    found = {}
    for name, run in compare(
        problem, methods=METHODS, net=net, subdomain=subdomain, rtol=RTOL
    ).runs.items():
        if run.stationary is None or not (run.stationary.converged and run.converged):
            raise RuntimeError(f"{name} does not converge: {run.status}")
        assert run.krylov is not None
        found[name] = (run.stationary.iterations, run.krylov.iterations)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = FOLDER / "diffusion_2d.safetensors"
    parser.add_argument("--checkpoint", type=Path, default=default)
    parser.add_argument("--meshes", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--subdomain", type=int, default=64)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    net = InterfaceNet.load(args.checkpoint)
    table = Table(("unknowns", "method", "stationary", "spread", "FGMRES", "of RAS", "of ORAS 0.5"))
    for size in args.sizes:
        results: dict[str, list[tuple[int, int]]] = defaultdict(list)
        unknowns = []
        for i in range(args.meshes):
            problem = poisson(random_mesh(FIRST_SEED + i, round(size + 3.2 * size**0.5)))
            unknowns.append(len(problem.b))
            for name, pair in counts(problem, net, args.subdomain).items():
                results[name].append(pair)
        stationary = {name: np.array([s for s, _ in pairs]) for name, pairs in results.items()}
        for name, pairs in results.items():
            values = stationary[name]
            table.add(
                unknowns=round(np.mean(unknowns)),
                method=name,
                stationary=float(values.mean()),
                spread=f"{values.min()} to {values.max()}",
                FGMRES=float(np.mean([k for _, k in pairs])),
                **{
                    "of RAS": float(values.mean() / stationary["RAS"].mean()),
                    "of ORAS 0.5": float(values.mean() / stationary["ORAS 0.5, smoothed"].mean()),
                },
            )
    text = f"{args.meshes} meshes a size, subdomains of {args.subdomain} unknowns\n\n"
    text += table.to_markdown()
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
