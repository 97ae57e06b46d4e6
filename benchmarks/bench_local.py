"""Local solves of a Schwarz method: padded dense inverses against one block-diagonal sparse LU.

    python benchmarks/bench_local.py [--nodes 30000] [--owned 8 16 32 64 128] [--out FILE]

Both are first checked against each other. Set-up is `factor`, application is one vector; medians of
`repeat` runs in turns, as a ratio dense / sparse. What `local="auto"` picks follows from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from resumable import machine
from side_by_side import times, to_best_peer

from ddm.local import DenseBlocks, SparseBlocks
from ddm.mesh import random_mesh
from ddm.partition import decompose, partition
from ddm.problems import poisson
from ddm.table import Table


def ratio(dense: Callable[[], object], sparse: Callable[[], object], repeat: int) -> float:
    """The median time of `dense` over that of `sparse`, called in turn."""
    taken = times({"dense": dense, "sparse": sparse}, repeat, warmup=1)
    return to_best_peer(taken, ours="dense")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=30_000)
    parser.add_argument("--owned", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    A = poisson(random_mesh(0, args.nodes)).A
    table = Table(
        ("partitioner", "owned", "largest", "factor, dense/sparse", "apply, dense/sparse")
    )
    for method in ("metis", "lloyd"):
        for owned in args.owned:
            d = decompose(A, partition(A, A.shape[0] // owned, method=method))
            values = torch.from_numpy(A.data)[torch.from_numpy(d.block_source)]
            r = torch.rand(len(d.node), 1, dtype=torch.float64)
            dense, sparse = DenseBlocks(d), SparseBlocks(d)
            inverses, lu = dense.factor(values), sparse.factor(values)
            torch.testing.assert_close(dense.solve(inverses, r), sparse.solve(lu, r))
            factor = ratio(
                partial(dense.factor, values), partial(sparse.factor, values), args.repeat
            )
            apply = ratio(
                partial(dense.solve, inverses, r), partial(sparse.solve, lu, r), 5 * args.repeat
            )
            table.add(
                partitioner=method,
                owned=owned,
                largest=int(d.sizes.max()),
                **{
                    "factor, dense/sparse": factor,
                    "apply, dense/sparse": apply,
                },
            )
    text = f"{A.shape[0]:,} unknowns, float64; {machine()}\n\n"
    text += table.to_markdown()
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
