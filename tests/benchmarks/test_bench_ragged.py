"""Padding beside ragged layers: results agree before anything is timed."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("torch_geometric", reason="no PyG: bench_ragged is NOT tested")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_ragged


def test_padding_and_ragged_layers_in_short():
    *rows, _, note = bench_ragged.lines(nodes=60, n_pairs=5, repeats=2)
    # two lines of header, four ways to read neighbours and three to attend, each in two steps
    assert len(rows) == 2 + 2 * (4 + 3)
    assert "agrees with a loop over nodes on 20 of 60" in note  # the hubs, which are not padded


def test_wrong_results_end_the_run():
    x = torch.randn(4, 2)
    layers = {"loop": lambda x: (x,), bench_ragged.OURS: lambda x: (2 * x,)}
    with pytest.raises(SystemExit, match="relative error"):
        list(bench_ragged.rows("nothing", layers, x, 2))
