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
import torch

from ddm.comparison import Run, compare
from ddm.learned import InterfaceNet
from ddm.mesh import random_mesh
from ddm.partition import partition
from ddm.problems import Problem, poisson
from ddm.setup import set_up
from ddm.table import Table
from sparsetorch.linalg import fgmres, richardson

FIRST_SEED = 55_000_000


def counts(problem: Problem, net: InterfaceNet, subdomain: int) -> dict[str, tuple[int, int]]:
    """Stationary and FGMRES iterations of each method, by name."""
    runs: dict[str, Run] = compare(problem.A, problem.b, net, subdomain=subdomain, amg=False)
    found = {}
    for name, run in runs.items():
        if not (run.stationary.converged and run.krylov.converged):
            raise RuntimeError(f"{name} does not converge: {run.stationary.message}")
        words = name.split(" ")
        label = "ORAS best theta" + (", smoothed" if "smoothed" in name else "")
        found[label if words[0] == "ORAS" else name] = (
            run.stationary.iterations,
            run.krylov.iterations,
        )
    owner = partition(problem.A, max(1, round(len(problem.b) / subdomain)))
    setup = set_up(problem.A, owner)
    tuned, b = setup.classical(0.5), torch.from_numpy(problem.b)
    found["ORAS 0.5, smoothed"] = tuple(
        solve(setup.A, b, preconditioner=tuned, rtol=1e-8).iterations
        for solve in (richardson, fgmres)
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parents[1] / "examples" / "mggnn.safetensors"
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
