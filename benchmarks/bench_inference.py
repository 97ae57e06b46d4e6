"""What the network costs beside the set-up of the method: seconds and memory by size.

    python benchmarks/bench_inference.py [--short] [--out runs/inference]

Poisson's equation on random plane domains, in subdomains of the size that the network is for.
Set-up is all that the classical method needs: partition, decomposition, coarse space,
factorizations. Inference is what the learned one needs besides: features and network. Each size has
a process of its own, so that peak memory is that size's; the fastest of `--repeat` runs counts,
part by part.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from resumable import machine, write_whole

import ddm
from ddm.partition import partition
from ddm.setup import set_up
from ddm.table import Table

COLUMNS = (
    "unknowns", "partition, s", "set-up, s", "factors, s", "features, s", "network, s",
    "inference of set-up", "peak before, MB", "peak after, MB", "bytes an unknown"
)  # fmt: skip


def peak() -> float:
    """Peak memory of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def measure(size: int, repeat: int) -> dict[str, Any]:
    """The row of one size."""
    net = ddm.load_pretrained("diffusion_2d")
    problem = ddm.random_problem("poisson", 5, size)
    n = len(problem.b)
    least: dict[str, float] = {}
    before = 0.0

    def timed(name: str, start: float) -> None:
        seconds = time.perf_counter() - start
        least[name] = min(seconds, least.get(name, seconds))

    for index in range(repeat + 1):  # the first warms up what is loaded when first used
        start = time.perf_counter()
        n_parts = max(2, round(n / net.unknowns))
        owner = partition(problem.A, n_parts, coordinates=problem.positions)
        timed("partition, s", start)
        start = time.perf_counter()
        setup = set_up(problem, owner, **net.options)
        timed("set-up, s", start)
        start = time.perf_counter()
        setup.classical(net.theta)
        timed("factors, s", start)
        before = before if index else peak()
        start = time.perf_counter()
        inputs = setup.inputs
        timed("features, s", start)
        start = time.perf_counter()
        net(inputs)
        timed("network, s", start)
        if index == 0:
            after = peak()
            least = {}
    inference = least["features, s"] + least["network, s"]
    whole = least["partition, s"] + least["set-up, s"] + least["factors, s"]
    return {
        "unknowns": n,
        **least,
        "inference of set-up": inference / whole,
        "peak before, MB": before,
        "peak after, MB": after,
        "bytes an unknown": after * 2**20 / n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/inference"))
    parser.add_argument("--short", action="store_true", help="tiny problems: seconds")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.repeat)))
        return
    if args.short:
        args.sizes, args.repeat = [300, 600], 1
    table = Table(COLUMNS)
    for size in args.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--repeat", str(args.repeat)]
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        table.add(**json.loads(text.splitlines()[-1]))
        print(table.to_markdown(), flush=True)
    lines = [
        "# Inference beside set-up",
        machine(),
        f"`python benchmarks/bench_inference.py{' --short' if args.short else ''}`, diffusion_2d.",
        table.to_markdown(),
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.out.with_suffix(".md"), "\n\n".join(lines))


if __name__ == "__main__":
    main()
