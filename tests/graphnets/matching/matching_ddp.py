"""What each process of `test_matching_ddp.py` does: a few steps of training, and its weights."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from small_logs import drawn_logs

from graphnets.matching.candidates import Candidates
from graphnets.matching.lightning import PairMatcher
from graphnets.matching.neighbours import nearest
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.training.lightning import CandidatesData, LogsDataModule, MatchingData
from graphnets.matching.vocabulary import vocabulary
from sparsetorch.resumable import ResumableLoader

EPISODES = 6
SETTINGS: dict[str, Any] = {
    "fold": 0,
    "episodes": EPISODES,
    "users": 6,
    "per_user": 3,
    "days": (4.0, 10.0),
    "min_visits": 10,
}


class Report(L.Callback):
    """Which logs each step is on: the first visit of each episode; and the pairs of each epoch."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.pairs: list[torch.Tensor] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append(int(batch.logs.time[0]))
        if batch_idx == 0 and isinstance(trainer.datamodule, CandidatesData):
            self.pairs.append(trainer.datamodule.episodes.pairs)


class Ordered(LogsDataModule):
    """Episodes in a given order, for one process that does what several do."""

    order: tuple[int, ...] = ()

    def train_dataloader(self) -> ResumableLoader:
        return ResumableLoader(self.episodes, self.order)


def train(module: PairMatcher, data: MatchingData, epochs: int = 1, **options: Any) -> Report:
    """Train quietly."""
    report = Report()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
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
    return report


def fit(path: str, order: tuple[int, ...] = (), **options: Any) -> dict[str, Any]:
    """Train for some steps and say what came of it."""
    torch.manual_seed(0)
    module = PairMatcher(width=8, dropout=0.0, lr=1e-2)
    data = (Ordered if order else LogsDataModule)(path, **SETTINGS)
    if isinstance(data, Ordered):
        data.order = order
    report = train(module, data, **options)
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    return {"weights": weights, "seen": report.seen, "steps": module.global_step}


def run(path: str) -> dict[str, Any]:
    """Train as one of two processes."""
    return fit(path, strategy="ddp", devices=2)


def batch_norm(levels: int) -> PairMatcher:
    """A matcher whose scores depend on what its BatchNorm has seen."""
    torch.manual_seed(0)
    return PairMatcher(levels=levels, width=4, heads=["pooled"], lr=1e-2)


def draw() -> dict[str, Any]:
    """Train on hard pairs as one of two processes: those of each epoch, and the episodes seen."""
    logs = drawn_logs(n_users=12)
    near = nearest(TfIdf().fit(logs).transform(logs), 12)
    candidates = Candidates.from_neighbours({"TF-IDF": near})
    data = CandidatesData(logs, candidates, vocabulary(logs), batch=16)
    report = train(batch_norm(2), data, 4, strategy="ddp", devices=2)
    return {"pairs": report.pairs, "seen": report.seen}


def decide(path: str) -> dict[str, Any]:
    """Validate as one of two processes, whose BatchNorms are left as different as they are."""
    module = batch_norm(4)
    data = LogsDataModule(path, validation=1, **SETTINGS)
    train(module, data, strategy=DDPStrategy(broadcast_buffers=False), devices=2)
    mean = dict(module.named_buffers())["matcher.heads.pooled.norm.running_mean"]
    return {"decisions": module.decisions, "mean": mean}
