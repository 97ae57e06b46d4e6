"""What an epoch costs: contenders in turns in one process, and memory of each in one of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from bench_memory import status
from graph_networks import OURS, contenders
from graph_training import adam, epoch, loss_of, network, recipe, task_of
from side_by_side import require, times


def costs(
    model: str, name: str, data: Path, repeats: int, megabytes: bool = True
) -> list[dict[str, Any]]:
    """A row for each contender: milliseconds of an epoch (median), megabytes of the first two."""
    calls, losses = {}, {}
    for who in contenders(model):
        task = task_of(who, model, name, data, seed=0)
        net = network(who, model, name, task, seed=0)
        with torch.no_grad():
            losses[who] = loss_of(net.eval(), *next(task.test())).item()
        optimizer = adam(net, recipe(name, model))
        calls[who] = lambda net=net, o=optimizer, task=task: epoch(net, o, task)
    for who, loss in losses.items():
        require(f"{name}, {model}, {who}", abs(loss - losses[OURS]) / losses[OURS], 1e-5)
    seconds = times(calls, repeats, time.process_time, warmup=1)  # other programs do not count
    return [
        {
            "set": name,
            "model": model,
            "library": who,
            "ms": 1e3 * statistics.median(seconds[who]),
            "MB": memory(who, model, name, data) / 1e6 if megabytes else None,
        }
        for who in contenders(model)
    ]


def memory(who: str, model: str, name: str, data: Path) -> int:
    """Bytes by which the peak of a process that trains two epochs exceeds what it had loaded."""
    command = [sys.executable, __file__, who, model, name, str(data)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    who, model, name, data = sys.argv[1:]
    torch.set_num_threads(1)
    task = task_of(who, model, name, Path(data), seed=0)
    net = network(who, model, name, task, seed=0)
    optimizer = adam(net, recipe(name, model))
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    for _ in range(2):
        epoch(net, optimizer, task)
    print(status("VmHWM") - before)


if __name__ == "__main__":
    main()
