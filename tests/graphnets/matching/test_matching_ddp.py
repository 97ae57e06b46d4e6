"""Training in two processes is training in one on the same episodes; they draw and decide alike."""

import pytest
import torch
from matching_ddp import EPISODES, decide, draw, fit, run
from processes import run_together
from small_logs import write_xdt

SIZE = 2


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    return str(write_xdt(tmp_path_factory.mktemp("logs") / "xdt.npz"))


@pytest.fixture(scope="module")
def results(path, tmp_path_factory) -> list[dict]:
    """What each process reports."""
    reports = tmp_path_factory.mktemp("reports")
    return run_together(run, SIZE, reports, path, preload=["matching_ddp"], start=False)


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


def test_two_processes_draw_the_same_hard_pairs(tmp_path):
    first, second = run_together(draw, SIZE, tmp_path, preload=["matching_ddp"], start=False)
    assert len(first["pairs"]) == 4
    for epoch, (one, other) in enumerate(zip(first["pairs"], second["pairs"])):
        assert torch.equal(one, other), f"epoch {epoch}"
    assert not torch.equal(first["pairs"][1], first["pairs"][2])
    assert first["seen"] != second["seen"]


def test_two_processes_decide_alike(path, tmp_path):
    first, second = run_together(
        decide, SIZE, tmp_path, path, preload=["matching_ddp"], start=False
    )
    assert not torch.equal(first["mean"], second["mean"])
    assert set(first["decisions"]) == {"A", "B", "B1"}
    assert first["decisions"] == second["decisions"]
