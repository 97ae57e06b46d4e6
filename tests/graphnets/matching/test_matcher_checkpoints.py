"""What a matcher's checkpoint needs to be read, and what it keeps of its training."""

import pickle
from dataclasses import fields
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from small_logs import drawn_logs, write_xdt

from graphnets.matching.evaluation import evaluate
from graphnets.matching.lightning import PairMatcher, load_matcher
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.pairs import all_pairs, same_user
from graphnets.matching.tasks import Decision
from graphnets.matching.training.lightning import LogsDataModule, PairsData
from graphnets.matching.vectors import token_vectors
from graphnets.matching.vocabulary import vocabulary
from graphnets.matching.xdt import load_xdt

FIELDS = fields(Decision)
SMALL: dict[str, Any] = {"episodes": 2, "users": 6, "per_user": 3, "days": (4.0, 10.0)}


def trainer(**options):
    return L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_a_matcher_knows_how_many_visits_make_a_week(tmp_path):
    path = write_xdt(tmp_path / "xdt.npz", visits=36)  # about 12 a week
    data = LogsDataModule(path, fold=None, min_visits=5, **SMALL)
    fit = trainer()
    fit.fit(PairMatcher(width=0, linear=True), data)
    fit.save_checkpoint(tmp_path / "matcher.ckpt")
    others = load_xdt(write_xdt(tmp_path / "others.npz", n_users=8, seed=3, visits=36))
    found = evaluate(load_matcher(tmp_path / "matcher.ckpt"), others)["B"]
    assert found["devices"] == evaluate(PairMatcher(width=0), others, 5)["B"]["devices"] > 16
    kept = torch.load(tmp_path / "matcher.ckpt", weights_only=True)
    del kept["matching"]["min_visits"]  # as in older checkpoints
    torch.save(kept, tmp_path / "older.ckpt")
    assert load_matcher(tmp_path / "older.ckpt").min_visits == 20


def test_a_checkpoint_of_numpy_numbers_is_read(tmp_path):
    numbers: list[Any] = [*np.ones(5), np.bool_(True), np.int64(4)]
    model: dict[str, Any] = {
        "levels": np.int64(4),
        "width": 0.0,
        "weights": np.int32(8),
        "chunk": np.int64(6),
        "linear": np.bool_(False),
        "decisions": {"A": {field.name: number for field, number in zip(FIELDS, numbers)}},
        "lr": np.float64(1e-3),
        "weight_decay": np.float32(0.5),
        "cross_kind": np.float64(1.0),
    }
    settings: dict[str, Any] = {
        "folds": 5.0,
        "fold": None,
        "seed": np.int64(1),
        "episodes": np.int64(1),
        "users": np.int64(6),
        "per_user": np.int64(3),
        "min_visits": np.int64(10),
        "days": (np.float64(4), np.float64(10)),
    }
    module = PairMatcher(**model)
    data = LogsDataModule(write_xdt(tmp_path / "xdt.npz"), **settings)
    fit = trainer()
    fit.fit(module, data)
    module.decisions["B"] = Decision(*numbers)
    fit.save_checkpoint(tmp_path / "matcher.ckpt")
    loaded = load_matcher(tmp_path / "matcher.ckpt")
    assert loaded.hparams["lr"] == 1e-3
    assert loaded.decisions == dict.fromkeys("AB", Decision(1, 1, 1, 1, 1, True, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": float("nan")}, "lr: expected a number of at least 0, got nan"),
        ({"dropout": float("nan")}, "dropout: expected a number of at least 0, got nan"),
        ({"width": 2.5}, r"width: .*got 2\.5"),
        ({"chunk": float("nan")}, "chunk: .*got nan"),
    ],
)
def test_settings_that_are_no_numbers_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PairMatcher(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_visits": float("nan")}, "min_visits: .*got nan"),
        ({"folds": 2.5}, r"folds: .*got 2\.5"),
        ({"negatives": -1}, "negatives: expected at least 0 pairs, got -1"),
    ],
)
def test_settings_of_data_that_are_no_numbers_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LogsDataModule("xdt.npz", **options)


def test_matchers_can_be_pickled(tmp_path):
    module = pickle.loads(pickle.dumps(PairMatcher(levels=2, width=4)))
    assert module.matcher.assignment == HGNNMatcher(2, width=4).assignment
    torch.save(HGNNMatcher(4), tmp_path / "matcher.pt")
    loaded = torch.load(tmp_path / "matcher.pt", weights_only=False)
    assert isinstance(loaded, HGNNMatcher)


@pytest.mark.parametrize(
    "options",
    [
        {"network": "tgce"},
        {"network": "hgnn", "width": 8, "heads": ("shared", "cross", "pooled"), "rounds": 1},
    ],
    ids=["tgce", "hgnn"],
)
def test_training_in_mixed_precision(options):
    torch.manual_seed(0)
    logs = drawn_logs()
    known, pairs = vocabulary(logs), all_pairs(len(logs))
    labels, vectors = same_user(logs.users, pairs), token_vectors(logs, known, 4)
    module = PairMatcher(levels=2, vectors=4, **options)
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    data = PairsData(logs, pairs, labels, known, vectors, batch=64)
    trainer(precision="bf16-mixed").fit(module, data)
    for name, weight in module.named_parameters():
        assert bool(weight.isfinite().all()), name
    assert any(not torch.equal(w, before[name]) for name, w in module.named_parameters())
