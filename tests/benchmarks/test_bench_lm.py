"""Whole models beside transformers', in a short form."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", "5.17", reason="no transformers 5.17: bench_lm is NOT tested")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_lm


def test_each_task_has_a_row():
    setting = bench_lm.Setting(torch.device("cpu"), length=16, repeats=2)
    rows = [line for line in bench_lm.lines(setting, ("dense",)) if line.startswith("| dense")]
    assert [row.split(" | ")[1] for row in rows] == [
        "training step",
        "prompt",
        "64 tokens",
        "memory",
    ]
    assert 0 < float(rows[-1].split(" | ")[4].strip("| ")) < 1
