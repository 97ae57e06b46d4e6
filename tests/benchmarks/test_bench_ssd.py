"""The scan beside its peers: results agree before anything is timed."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_ssd
import bench_ssd_gpu


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers is not installed: the scan is NOT compared with it",
)
def test_the_table_in_short(monkeypatch):
    shape = bench_ssd.Shape(1, 256, 2, 4, 1, 4)
    monkeypatch.setattr(bench_ssd, "SHAPES", {"tiny": shape})
    options = argparse.Namespace(shapes=["tiny"], repeats=2, cpu_time=False)
    rows = [line for line in bench_ssd.table(options) if line.startswith("| tiny")]
    assert len(rows) == 4
    forward = rows[0].split("|")
    assert float(forward[-2]) > 0  # the ratio to the floor


def test_a_wrong_result_ends_the_run():
    x = torch.ones(3)
    contenders = {bench_ssd.OURS: lambda: (x,), "transformers": lambda: (x + 1,)}
    with pytest.raises(SystemExit, match="relative error"):
        bench_ssd.row("wrong", contenders, 2, None)


def test_the_table_for_gpus_in_short(monkeypatch):
    monkeypatch.setattr(bench_ssd_gpu, "SHAPES", {"tiny": (2, 4, 1, 4)})
    options = argparse.Namespace(device="cpu", length=64, repeats=2, launches=False)
    found = [line for line in bench_ssd_gpu.rows(options) if line.startswith("| tiny")]
    assert len(found) == 6


@pytest.mark.parametrize("packed", [False, True])
def test_the_gpu_script_knows_right_from_wrong(monkeypatch, packed):
    found = bench_ssd_gpu.errors(torch.float32, "cpu", packed)
    assert max(found.values()) < bench_ssd_gpu.TOLERANCE[torch.float32]
    right = bench_ssd_gpu.ssd_scan
    wrong = lambda x, dt, *rest, **options: right(x, 2 * dt, *rest, **options)  # noqa: E731
    monkeypatch.setattr(bench_ssd_gpu, "ssd_scan", wrong)
    assert not any(fine for _, fine in bench_ssd_gpu.checks("cpu"))
