"""How much there is to learn: the numbers a network computes, optimised on one matrix without one.

    python benchmarks/headroom.py [--steps 200] [--out runs/headroom]

For each problem, overlap and subdomain size: the best of classical methods with the Robin weights
1, 0.7, 0.5 and 0.3, and what `ddm.finetune` makes of the same subdomains and coarse space from the
weight 0.5, in so many steps. Iterations to 1e-12 alone and in FGMRES, of the symmetric form alone
and in CG. A network can come to the optimised counts at best.

Writes OUT.csv, a row for each case, and OUT.md. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from heldout_mggnn import RTOL, krylov, stationary
from resumable import append_row, iterations, kept_rows, machine, write_whole
from tqdm import tqdm

import ddm
from ddm.learned import InterfaceNet
from ddm.partition import partition
from ddm.schwarz import Schwarz
from ddm.setup import Setup
from ddm.table import Table
from sparsetorch.linalg import cg

WEIGHTS = (1.0, 0.7, 0.5, 0.3)
SEED, MAXITER = 90_001, 1000


@dataclass(frozen=True)
class Case:
    """One problem with one choice of subdomains and of the coarse space.

    Attributes:
        kind: of `ddm.random_problem`.
        size: wanted unknowns.
        overlap: layers.
        owned: unknowns of a subdomain before overlap.
        linear: whether the coarse space has linear functions.
        smoothing: Jacobi steps on it.
        symmetric: whether the method is, for CG.
    """

    kind: str
    size: int
    overlap: int
    owned: int
    linear: bool = True
    smoothing: int = 3
    symmetric: bool = False


CASES = (
    Case("poisson", 4000, 1, 128),
    Case("poisson", 4000, 1, 52),
    Case("poisson", 4000, 2, 232),
    Case("poisson", 4000, 2, 64),
    Case("poisson", 4000, 3, 128),
    Case("poisson", 4000, 2, 128, linear=False, smoothing=2),
    Case("poisson", 4000, 2, 240, symmetric=True),
    Case("diffusion", 4000, 1, 52),
    Case("diffusion", 4000, 2, 240),
    Case("diffusion_3d", 4000, 1, 128),
    Case("diffusion_3d", 4000, 2, 300),
    Case("elasticity", 3000, 2, 300),
)
NAMES = tuple(field.name for field in fields(Case))
COLUMNS = (
    *NAMES, "steps", "unknowns", "subdomains", "coarse", "work", "classical", "optimised"
)  # fmt: skip


def counts(methods: Sequence[Schwarz], symmetric: bool) -> str:
    """The smallest counts of several methods, alone and in a Krylov method."""
    few = []
    for count in (stationary, conjugate_gradients if symmetric else krylov):
        found = [n for method in methods if (n := count(method, MAXITER)) is not None]
        few.append(str(min(found)) if found else "-")
    return " / ".join(few)


def conjugate_gradients(method: Schwarz, maxiter: int) -> int | None:
    """Iterations of CG for a random right-hand side."""
    generator = torch.Generator().manual_seed(0)
    b = method.A @ torch.randn(method.shape[0], dtype=method.A.dtype, generator=generator)
    return iterations(cg(method.A, b, preconditioner=method, rtol=RTOL, maxiter=maxiter))


def measured(case: Case, steps: int) -> dict[str, Any]:
    """One row."""
    problem = ddm.random_problem(case.kind, SEED, case.size)
    n = len(problem.b)
    parts = max(1, round(n / case.owned))
    owner = partition(problem.A, n_parts=parts, block_size=problem.block_size)
    setup: Setup = ddm.set_up(
        problem,
        owner,
        overlap=case.overlap,
        smoothing=case.smoothing,
        linear=case.linear,
        symmetric=case.symmetric,
    )
    with torch.no_grad():
        classical = [setup.classical(theta=theta) for theta in WEIGHTS]
    untrained = InterfaceNet(
        theta=0.5, overlap=case.overlap, smoothing=case.smoothing, coordinates=case.linear
    )
    best = ddm.finetune(setup, untrained, seconds=1e9, steps=steps).method
    stored = len(setup.decomposition.block_col)  # entries of all local matrices
    return {
        **dict(zip(NAMES, astuple(case))),
        "steps": steps,
        "unknowns": n,
        "subdomains": setup.decomposition.n_subdomains,
        "coarse": None if best.P is None else best.P.shape[1],
        "work": round(stored / problem.A.nnz, 2),
        "classical": counts(classical, case.symmetric),
        "optimised": counts([best], case.symmetric),
    }


def run(cases: Sequence[Case], steps: int, out: Path) -> Table:
    """A row for each case; those that an earlier run has written are kept."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_suffix(".csv")
    kept = kept_rows(path, COLUMNS, (*NAMES, "steps"))
    for case in tqdm(cases, unit="case"):
        key = (*map(str, astuple(case)), str(steps))
        if key not in kept:
            kept[key] = measured(case, steps)
            append_row(path, COLUMNS, kept[key])
    table = Table(COLUMNS)
    for case in cases:
        table.add(**kept[(*map(str, astuple(case)), str(steps))])
    write_whole(out.with_suffix(".md"), f"{table.to_markdown()}\n\n({machine()})\n")
    return table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/headroom"))
    options = parser.parse_args()
    print(run(CASES, options.steps, options.out).to_markdown())


if __name__ == "__main__":
    main()
