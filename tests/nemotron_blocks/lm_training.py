"""Short trainings of language models, for one process and for several."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
from small_models import SIZES

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.lightning import HybridModule, TextData

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("M-M*-", {}),
    "experts": ("MEM*E", {}),
    "latent": ("MEM*E/*E/*E", {"d_latent": 8}),
    "attention": ("*-*-", {}),
}


class Losses(L.Callback):
    """The loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


def module(family: str, **options: Any) -> HybridModule:
    """A small model of a family, always the same."""
    pattern, changes = FAMILIES[family]
    sizes: dict[str, Any] = SIZES | {"vocab_size": 259} | changes
    config = HybridConfig(pattern, **sizes)
    torch.manual_seed(0)
    return HybridModule(config, **{"lr": 1e-2, "warmup": 5} | options)


def trainer(folder: Any, steps: int, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """A quiet trainer on the CPU."""
    options = {"enable_checkpointing": False} | options
    return L.Trainer(
        default_root_dir=folder, max_steps=steps, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def fit(folder: str, family: str, data: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Train for four steps and say what came of it."""
    losses, learner, texts = Losses(), module(family), TextData(**data)
    made = trainer(folder, 4, losses, num_sanity_val_steps=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.fit(learner, texts)
        (metrics,) = made.validate(learner, texts, verbose=False)
    weights = {name: p.detach().clone() for name, p in learner.state_dict().items()}
    return {"losses": losses.values, "weights": weights, "val": metrics["val/loss"]}


def in_two(folder: str, family: str, data: dict[str, Any]) -> dict[str, Any]:
    """`fit` as one of two processes."""
    return fit(folder, family, data, strategy="ddp", devices=2)
