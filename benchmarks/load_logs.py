"""Time and memory of loading logs in the format of CIKM Cup 2016: synthetic ones, or a folder.

    python benchmarks/load_logs.py --devices 98000
    python benchmarks/load_logs.py --folder PATH

Each row is a process of its own; its memory is the most that it ever had, with Python and torch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

GB = 1024**2  # of the kibibytes that Linux counts in


def load(folder: str) -> dict[str, float]:
    """Load a folder, and say what was in it."""
    from graphnets.matching.cikm import load_cikm

    start = time.perf_counter()
    logs, pairs = load_cikm(folder)
    return {
        "seconds": time.perf_counter() - start,
        "devices": len(logs),
        "visits": len(logs.time),
        "pages": len(logs.pages),
        "words": len(logs.pages.words.values),
        "pairs": len(pairs),
    }


def write(folder: str, devices: int, seed: int) -> dict[str, float]:
    """Write synthetic logs."""
    from graphnets.matching.synthetic.files import generate

    start = time.perf_counter()
    generate(folder, devices, seed)
    return {"seconds": time.perf_counter() - start, "devices": devices}


def measured(task: Callable[..., dict[str, float]], *args: object) -> dict[str, float]:
    """What a task says, and the most memory that its process had, in GiB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_with_memory, (task, args))


def _with_memory(task: Callable[..., dict[str, float]], args: tuple) -> dict[str, float]:
    found = task(*args)
    return {**found, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GB}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure, and print a line of JSON for each process."""
    parser = argparse.ArgumentParser(description="time and memory of loading logs")
    parser.add_argument("--devices", type=int, default=98_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="load it instead of synthetic logs")
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(options.folder or temporary)
        if options.folder is None:
            results["write"] = measured(write, folder, options.devices, options.seed)
        results["load"] = measured(load, folder)
    for name, found in results.items():
        print(name, json.dumps({key: round(value, 2) for key, value in found.items()}))
    return results


if __name__ == "__main__":
    main()
