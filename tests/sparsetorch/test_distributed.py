"""Distributed matrices: two and three processes, each of which checks its part of the whole."""

import socket

import pytest
import torch
from distributed_checks import CHECKS, SCRIPT, run_checks

from sparsetorch import CSRTensor
from sparsetorch.distributed import DistributedCSR, dot
from sparsetorch.distributed.groups import check_device

SIZES = (2, 3)


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size} processes")
def reports(request, tmp_path_factory) -> list[dict[str, str]]:
    """What each check raised in each process; all checks run in the same processes."""
    store = str(tmp_path_factory.mktemp("processes") / "store")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("forkserver")
    # What takes long to import is imported once; the last one serves torch.func.jvp.
    modules = ["pytest", "sparsetorch.distributed", "torch._decomp.decompositions_for_jvp"]
    context.set_forkserver_preload(modules)
    results = context.SimpleQueue()
    processes = [
        context.Process(target=run_checks, args=(rank, request.param, store, port, results))
        for rank in range(request.param)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * request.param
    return [report for _, report in sorted(results.get() for _ in processes)]


@pytest.mark.parametrize("name", [*CHECKS, SCRIPT])
def test_processes_agree_with_one(reports, name):
    raised = [f"in process {rank}:\n{r[name]}" for rank, r in enumerate(reports) if r[name]]
    assert not raised, "\n".join(raised)


def test_without_processes_the_error_says_how_to_start_them():
    A = CSRTensor.eye(3)
    for call in (
        lambda: DistributedCSR.from_global(A),
        lambda: DistributedCSR.from_local_rows(A),
        lambda: dot(torch.ones(2), torch.ones(2)),
    ):
        with pytest.raises(
            ValueError, match=r"group: torch.distributed is not initialised.*torchrun"
        ):
            call()


def test_a_backend_that_cannot_send_from_a_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_backend", lambda group: "nccl")
    with pytest.raises(ValueError, match="A: expected on cuda for a group of backend nccl"):
        check_device(None, torch.device("cpu"))
