"""What each process of `test_matching_ddp.py` does: a few steps of training, and its weights."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch

from graphnets.matching.lightning import PairMatcher
from graphnets.matching.training.lightning import LogsDataModule
from sparsetorch.resumable import ResumableLoader

EPISODES = 6


class Report(L.Callback):
    """Which logs each step is on: the first visit of each episode."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self.seen.append(int(batch.logs.time[0]))


class Ordered(LogsDataModule):
    """Episodes in a given order, for one process that does what several do."""

    order: tuple[int, ...] = ()

    def train_dataloader(self) -> ResumableLoader:
        return ResumableLoader(self.episodes, self.order)


def fit(path: str, order: tuple[int, ...] = (), **options: Any) -> dict[str, Any]:
    """Train for some steps and say what came of it."""
    torch.manual_seed(0)
    module = PairMatcher(width=8, dropout=0.0, lr=1e-2)
    data = (Ordered if order else LogsDataModule)(
        path, fold=0, episodes=EPISODES, users=6, per_user=3, days=(4.0, 10.0), min_visits=10
    )
    if isinstance(data, Ordered):
        data.order = order
    report = Report()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[report],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    return {"weights": weights, "seen": report.seen, "steps": trainer.global_step}


def run(path: str) -> dict[str, Any]:
    """Train as one of two processes."""
    return fit(path, strategy="ddp", devices=2)
