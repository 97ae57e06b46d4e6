"""The scan beside its peers: results agree before anything is timed."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: no peer to compare with")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_ssd


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
