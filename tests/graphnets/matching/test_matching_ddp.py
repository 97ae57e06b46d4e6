"""Training a matcher in two processes is training in one on the same episodes."""

import socket

import pytest
import torch
from matching_ddp import EPISODES, fit, run
from small_logs import write_xdt

SIZE = 2


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    return str(write_xdt(tmp_path_factory.mktemp("logs") / "xdt.npz"))


@pytest.fixture(scope="module")
def results(path, tmp_path_factory) -> list[dict]:
    """What each process reports."""
    reports = [str(tmp_path_factory.mktemp("reports") / f"{rank}.pt") for rank in range(SIZE)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "matching_ddp"])
    processes = [
        context.Process(target=run, args=(rank, SIZE, port, path, reports[rank]))
        for rank in range(SIZE)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    for process in processes:
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * SIZE
    found = [torch.load(report, weights_only=False) for report in reports]
    for rank, result in enumerate(found):
        assert not isinstance(result, str), f"in process {rank}:\n{result}"
    return found


def test_two_processes_train_as_one_that_adds_up(results, path):
    single = fit(path, tuple(range(EPISODES)), accumulate_grad_batches=SIZE)
    # They take turns.
    dealt = [seen for pair in zip(*(result["seen"] for result in results)) for seen in pair]
    assert dealt == single["seen"]
    assert len(set(dealt)) == EPISODES
    assert [result["steps"] for result in results] == [EPISODES // SIZE] * SIZE
    for name, weight in single["weights"].items():
        for result in results:
            torch.testing.assert_close(
                result["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name
            )
