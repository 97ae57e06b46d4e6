"""A function in several processes of one group, as another launcher would start them."""

import os
import socket
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def run_together(
    function: Callable[..., Any],
    size: int,
    folder: Path,
    *args: Any,
    preload: Sequence[str] = (),
    start: bool = True,
) -> list[Any]:
    """What function(*args) returns in each of `size` processes; fails if it raises in one.

    Args:
        function: of a module that the processes can import.
        size: how many.
        folder: for what they return: no queue is to hold tensors.
        args: of the function, the same in all.
        preload: modules that take long to import, imported once.
        start: whether the group is made before; Lightning makes its own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", *preload])
    paths = [str(folder / f"{rank}.pt") for rank in range(size)]
    processes = [
        context.Process(target=_run, args=(rank, size, port, paths[rank], start, function, args))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    for process in processes:
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * size
    found = [torch.load(path, weights_only=False) for path in paths]
    for rank, (_, error) in enumerate(found):
        assert not error, f"in process {rank}:\n{error}"
    return [result for result, _ in found]


def _run(
    rank: int, size: int, port: int, path: str, start: bool, function: Callable, args: tuple
) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": f"{rank}", "RANK": f"{rank}", "WORLD_SIZE": f"{size}"}
    torch.set_num_threads(1)
    result: Any = None
    error = ""
    try:
        if start:
            dist.init_process_group("gloo")
        result = function(*args)
    except Exception:
        error = traceback.format_exc()
    torch.save((result, error), path)
    if dist.is_initialized():  # gloo's own threads must not outlive the interpreter
        dist.destroy_process_group()
