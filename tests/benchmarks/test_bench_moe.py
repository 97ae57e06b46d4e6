"""The benchmark of the mixture of experts in short: contenders agree before anything is timed."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", "5.17", reason="no transformers 5.17: bench_moe is NOT tested")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_moe


def test_blocks_and_products_in_short():
    cases = {"latent": bench_moe.Sizes(16, 4, 2, 8, 8, latent=8)}
    setting = bench_moe.Setting(6, torch.float32, torch.device("cpu"), repeats=2)
    *rows, _, note = bench_moe.lines(setting, cases)
    # two lines of header, four blocks in four steps, three products in two
    assert len(rows) == 2 + 4 * 4 + 3 * 2
    assert "6 tokens, float32" in note
    kept = {row.split("|")[3].strip(): float(row.split("|")[6]) for row in rows if _backward(row)}
    assert min(kept, key=lambda name: kept[name]) == bench_moe.OURS


def _backward(row: str) -> bool:
    return "| latent | and backward |" in row


def test_wrong_results_end_the_run():
    right = (torch.ones(3),)
    with pytest.raises(SystemExit, match="relative error"):
        bench_moe.check("nothing", (2 * right[0],), right, torch.float32)
