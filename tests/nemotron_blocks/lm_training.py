"""Short trainings of language models, for one process and for several."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from small_models import SIZES

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.lightning import HybridModule, TextData
from nemotron_blocks.parallel import full_state_dict

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


class Killed(RuntimeError):
    """A run ends here."""


class Kill(L.Callback):
    """Ends a run behind a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


def write_texts(folder: Path, files: int, **options: Any) -> dict[str, Any]:
    """Small Python files that a model soon learns to write, and arguments of `TextData` for them.

    Options are of `TextData`.
    """
    texts = folder / "texts"
    texts.mkdir()
    for k in range(files):
        lines = [f"def f_{k}_{j}(x):\n    return x + {j}\n" for j in range(12)]
        (texts / f"{k}.py").write_text("\n".join(lines))
    return {"sources": [str(texts)], "cache": str(folder / "tokens")} | options


def module(family: str, **options: Any) -> HybridModule:
    """A small model of a family, always the same."""
    pattern, changes = FAMILIES[family]
    sizes: dict[str, Any] = SIZES | {"vocab_size": 259} | changes
    config = HybridConfig(pattern, **sizes)
    torch.manual_seed(0)
    return HybridModule(config, **{"lr": 1e-2, "warmup": 5} | options)


def trainer(folder: Any, steps: int, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """A quiet trainer, on the CPU if options do not say otherwise."""
    options = {"enable_checkpointing": False, "accelerator": "cpu"} | options
    return L.Trainer(
        default_root_dir=folder, max_steps=steps, logger=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def fit(
    folder: str, learner: HybridModule, data: dict[str, Any], *callbacks: L.Callback, **options: Any
) -> dict[str, Any]:
    """Train for four steps and say what came of it."""
    losses, texts = Losses(), TextData(**data)
    ckpt_path = options.pop("ckpt_path", None)
    made = trainer(folder, 4, losses, *callbacks, num_sanity_val_steps=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.fit(learner, texts, ckpt_path=ckpt_path)
        (metrics,) = made.validate(learner, texts, verbose=False)
    weights = {name: weight.clone() for name, weight in full_state_dict(learner).items()}
    return {"losses": losses.values, "weights": weights, "val": metrics["val/loss"]}


def in_two(folder: str, family: str, data: dict[str, Any]) -> dict[str, Any]:
    """`fit` as one of two processes."""
    return fit(folder, module(family), data, strategy="ddp", devices=2)


def divided_in_two(
    folder: str, family: str, data: dict[str, Any], ways: dict[str, tuple[tuple[int, int], str]]
) -> dict[str, dict[str, Any]]:
    """`divided` in several ways, each in a folder of its name, as one of two processes."""
    return {
        name: divided(Path(folder) / name, family, data, sizes, divide)
        for name, (sizes, divide) in ways.items()
    }


def divided(
    folder: Path, family: str, data: dict[str, Any], sizes: tuple[int, int], divide: str
) -> dict[str, Any]:
    """`fit`, and what becomes of it if it is killed behind the third step and goes on."""

    def run(learner: HybridModule, *callbacks: L.Callback, **more: Any) -> dict[str, Any]:
        # A folder with a file of each process, or one file.
        strategy = ModelParallelStrategy(*sizes, save_distributed_checkpoint=divide != "tokens")
        return fit(str(folder), learner, data, *callbacks, strategy=strategy, devices=2, **more)

    learner = module(family, divide=divide)
    found = run(learner)
    learner.model.save_pretrained(folder / "model")
    keep = ModelCheckpoint(folder, "two", every_n_train_steps=2)
    with suppress(Killed):
        run(module(family, divide=divide), keep, Kill(3), enable_checkpointing=True)
    resumed = run(module(family, divide=divide), ckpt_path=folder / "two.ckpt")
    return found | {"resumed": resumed["losses"]}
