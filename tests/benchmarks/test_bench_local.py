"""The table of local solves, made tiny: both are compared with each other before they are timed."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_local

pytestmark = pytest.mark.usefixtures("gmsh")
TINY = ["bench_local.py", "--nodes", "300", "--owned", "8", "30", "--repeat", "1"]


def test_it_has_a_row_for_each_partition(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*TINY, "--out", str(tmp_path / "local.md")])
    bench_local.main()
    lines = (tmp_path / "local.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith(("| metis", "| lloyd"))]
    assert [(row[0].strip(), int(row[1])) for row in rows] == [
        ("metis", 8), ("metis", 30), ("lloyd", 8), ("lloyd", 30)
    ]  # fmt: skip
    assert all(float(value) > 0 for row in rows for value in row[3:])
    assert f"torch on {torch.get_num_threads()} of its cores" in lines[0]


def test_a_wrong_solution_ends_the_run(monkeypatch):
    wrong = bench_local.DenseBlocks.solve
    monkeypatch.setattr(bench_local.DenseBlocks, "solve", lambda *a: 1.01 * wrong(*a))
    monkeypatch.setattr(sys, "argv", TINY)
    with pytest.raises(AssertionError, match="not close"):
        bench_local.main()
