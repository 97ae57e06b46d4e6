"""What each process of `test_ddp.py` does: a few steps of training, reported as numbers."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, Subset

from ddm.data import MeshDataset
from ddm.lightning import MeshDataModule, SchwarzModule
from ddm.setup import Setup

STEPS = 3


class Seeded(SchwarzModule):
    """Training whose random vectors are those of a mesh, in whichever process it is."""

    def loss(self, setup: Setup) -> Tensor:
        torch.manual_seed(setup.A.nnz)
        self._errors.clear()  # each process goes on with the errors of meshes that it saw
        return super().loss(setup)


class Report(L.Callback):
    """The meshes and the gradients of each step, before the optimizer takes it."""

    def __init__(self) -> None:
        self.sampler = ""
        self.meshes: list[int] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Setup, *_: Any) -> None:
        self.sampler = type(trainer.train_dataloader.sampler).__name__
        self.meshes.append(batch.A.nnz)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        gradients = {
            name: p.grad.clone()
            for name, p in pl_module.net.named_parameters()
            if p.grad is not None
        }
        self.gradients.append(gradients)


class Ordered(MeshDataModule):
    """Meshes in a given order, for one process that does what several do."""

    order: tuple[int, ...] = ()

    def train_dataloader(self) -> DataLoader:
        dataset = MeshDataset(self.recipes["training"], self.folder, **self.options)
        chosen = Subset(dataset, self.order)
        return DataLoader(chosen, batch_size=None, sampler=SequentialSampler(chosen))


def module() -> SchwarzModule:
    torch.manual_seed(0)
    net = Seeded(width=8, layers=2, vectors=4, steps=3, warmup=1, lr=1e-2)
    last: Any = net.net.head[-1]  # at zero, the body has no gradient
    torch.nn.init.normal_(last.weight, std=0.01)
    return net


def data(folder: str, files: tuple[str, ...], kind: type[MeshDataModule] = MeshDataModule) -> Any:
    return kind(folder, count=5, subdomain=(30, 90), val_count=2, fresh=False, files=files)


def fit(net: SchwarzModule, source: Any, **options: Any) -> dict[str, Any]:
    """Train for some steps and say what came of it."""
    report = Report()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=[report],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(net, datamodule=source)
        metrics = trainer.validate(net, datamodule=source, verbose=False)[0]
    return {
        "meshes": report.meshes,
        "gradients": report.gradients,
        "weights": {name: p.detach().clone() for name, p in net.net.named_parameters()},
        "metrics": metrics,
        "sampler": report.sampler,
        "steps": trainer.global_step,
    }


def run(folder: str, files: tuple[str, ...]) -> dict[str, Any]:
    """Train as one of two processes."""
    return fit(module(), data(folder, files), strategy="ddp", devices=2)
