"""Recall and needle: what the examples ask, that mixers differ in it, and that rows are kept."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import lm_recall
from lm_recall import Case

from nemotron_blocks.loss import IGNORED


@pytest.fixture
def few_symbols(monkeypatch):
    monkeypatch.setattr(lm_recall, "SYMBOLS", 8)
    monkeypatch.setattr(lm_recall, "FILLERS", 8)


def test_recall_asks_for_the_value_behind_each_key(few_symbols):
    tokens, targets = lm_recall.recall(5, 3, torch.Generator().manual_seed(0))
    assert tokens.shape == targets.shape == (3, 15)
    for row, wanted in zip(tokens.tolist(), targets.tolist()):
        pairs = dict(zip(row[0:10:2], row[1:10:2]))
        assert len(pairs) == 5
        assert sorted(row[10:]) == sorted(pairs)
        assert wanted == 10 * [IGNORED] + [pairs[key] for key in row[10:]]


def test_a_needle_lies_anywhere_and_is_asked_for_last(few_symbols):
    tokens, targets = lm_recall.needle(20, 400, torch.Generator().manual_seed(0))
    keys = (tokens < 8).nonzero().view(400, 2, 2)  # each row's needle, and the question
    assert torch.equal(keys[:, 1, 1], torch.full((400,), 19))
    assert set(keys[:, 0, 1].tolist()) == set(range(18))
    rows = torch.arange(400)
    assert torch.equal(tokens[rows, keys[:, 0, 1]], tokens[:, 19])
    assert torch.equal(tokens[rows, keys[:, 0, 1] + 1], targets[:, 19])
    assert bool((targets[:, :19] == IGNORED).all())


def test_attention_recalls_once_a_mamba_block_tells_it_the_order(few_symbols):
    found = {}
    for model in ("hybrid", "attention"):
        trained = lm_recall.trained(Case("recall", model, 0, 4, (4,)), 250, 32, 6e-3)
        found[model] = lm_recall.accuracy(trained, "recall", 4, 256)
    assert found["hybrid"] > 0.95
    assert found["attention"] < 0.6  # it knows which values there were, not behind which key


def test_a_short_run_writes_tables_and_picture_and_keeps_its_rows(
    few_symbols, monkeypatch, tmp_path
):
    out = tmp_path / "recall"
    arguments = [
        "--seeds",
        "1",
        "--steps",
        "2",
        "--batch",
        "4",
        "--pairs",
        "2",
        "--lengths",
        "8",
        "16",
    ]
    monkeypatch.setattr("sys.argv", ["lm_recall.py", *arguments, "--out", str(out)])
    lm_recall.main()
    assert out.with_suffix(".md").read_text().count("| hybrid |") == 2
    assert out.with_suffix(".png").stat().st_size > 0
    monkeypatch.setattr(lm_recall, "trained", None)  # a second run asks for nothing
    lm_recall.main()
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 1 + 3 * 3
