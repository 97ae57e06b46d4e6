"""A third level against a sparse factorization of the coarse matrix: iterations and seconds.

    python benchmarks/bench_coarse.py [--sides 300] [--dimension 2] [--subdomain 16] [--out FILE]

Poisson's equation on a grid of equal cells, in METIS subdomains so small that the coarse problem is
large; AS with both levels balanced, in CG to 1e-8. The coarse matrix is factorized, or solved by
two sweeps of a Schwarz method of its own (`ddm.multilevel.recursive`), with either form of levels
inside. Seconds: the coarse solver's set-up, one application of it, and the whole solve.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import cpu_name

from ddm.coarse import partition_of_unity, smooth
from ddm.coarse.solver import CoarseFactory, CoarseSolver
from ddm.multilevel import recursive
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from ddm.table import Table
from sparsetorch import poisson
from sparsetorch.linalg import cg

COLUMNS = ("unknowns", "coarse", "coarse solve", "iterations", "set-up, s", "apply, s", "solve, s")


def seconds(run: Callable[[], object], repeat: int = 1) -> float:
    """The fastest of some calls."""
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def compare(shape: tuple[int, ...], subdomain: int, direct_up_to: int, table: Table) -> None:
    """A row for each way to solve with the coarse matrix of one grid."""
    A = poisson(*shape, dtype=torch.float64)
    matrix, n = A.to_scipy(), A.shape[0]
    parts = decompose(matrix, partition(matrix, n // subdomain))
    P = smooth(partition_of_unity(parts), A)
    A0 = P.T @ (A @ P)
    b = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = torch.rand(A0.shape[0], 1, dtype=torch.float64)
    few = {"form": "additive", "direct_up_to": direct_up_to}
    ways: dict[str, str | CoarseFactory] = {
        "factorized": "sparse",
        'recursive, levels="symmetric"': recursive(P, levels="symmetric", **few),
        'recursive, levels="balanced"': recursive(P, levels="balanced", **few),
    }
    for name, way in ways.items():
        M = Schwarz(A, parts, P=P, form="additive", levels="balanced", coarse=way)
        start = time.perf_counter()
        solution = cg(A, b, preconditioner=M, rtol=1e-8, maxiter=500)
        whole = time.perf_counter() - start
        table.add(
            unknowns=n,
            coarse=A0.shape[0],
            iterations=solution.iterations if solution.converged else None,
            **{
                "coarse solve": name,
                "set-up, s": seconds(lambda way=way: CoarseSolver(A0, way)),
                "apply, s": seconds(lambda M=M: M.coarse.solve(r), repeat=5),
                "solve, s": whole,
            },
        )


@torch.no_grad()
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[300], help="unknowns a side")
    parser.add_argument("--dimension", type=int, choices=(2, 3), default=2)
    parser.add_argument("--subdomain", type=int, default=16, help="unknowns a subdomain owns")
    parser.add_argument("--direct-up-to", type=int, default=2_000, help="of the inner levels")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table = Table(COLUMNS)
    for side in args.sides:
        compare((side,) * args.dimension, args.subdomain, args.direct_up_to, table)
    text = f"{cpu_name()}, {torch.get_num_threads()} thread(s), float64\n\n{table.to_markdown()}"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
