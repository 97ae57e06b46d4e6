"""Training MG-GNN under Lightning: the module, and the data module over generated meshes."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Timer
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from ddm.balance import BalancedSampler, stored_costs
from ddm.data import MeshDataset, Recipe, generate
from ddm.enrichment import enriched
from ddm.extras import extra
from ddm.learned import InterfaceNet
from ddm.local import SingularError
from ddm.losses import krylov_reduction, random_vectors, slow_errors, stochastic_norm
from ddm.rates import convergence_factor, iterations_to_reduce
from ddm.schwarz import Schwarz
from ddm.setup import Setup
from sparsetorch.checks import check_count, check_tolerance
from sparsetorch.linalg.full_precision import in_full_precision
from sparsetorch.resumable import ResumableLoader
from sparsetorch.resumable.lightning import ResumableDataModule


class SchwarzModule(L.LightningModule):
    """Trains an `InterfaceNet` on the stochastic norm of the error propagator.

    Args:
        width, layers, hops, theta, overlap, smoothing, unknowns, coordinates: of the network.
        lr: peak learning rate of AdamW; linear warm-up over 20 steps, then half a cosine to zero,
            over the trainer's steps or its `max_time`, whichever is further.
        weight_decay: of AdamW.
        vectors: number of error vectors of the stochastic norm.
        steps: K of the losses.
        warmup: iterations without gradient before the first step of the stochastic norm. Errors of
            the last time that a mesh was seen are gone on with, a quarter of them drawn anew.
        sharpness: of the softmax.
        krylov: weight of the logarithm of `krylov_reduction`; that of the stochastic norm's is 1.
        right_hand_sides: of `krylov_reduction`.
        enrich: slow errors in the coarse spaces of methods as they are trained, and validated
            beside their start, see `ddm.enriched`: the network then learns what these leave.

    `Trainer(precision=)` may be "32-true" or a mixed one, which rounds the network alone: the
    matrices have a precision of their own. A step whose method is singular, or whose gradients
    leave the range of float64, is skipped: `train/skipped` is 1 then.

    Raises:
        TypeError, ValueError: numbers that are none, or too small; while training, if all steps of
            an epoch were skipped.
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 3,
        hops: int = 2,
        theta: float = 0.5,
        overlap: int = 1,
        smoothing: int = 2,
        unknowns: int = 128,
        coordinates: bool = True,
        lr: float = 1.5e-3,
        weight_decay: float = 1e-4,
        vectors: int = 16,
        steps: int = 8,
        warmup: int = 3,
        sharpness: float = 5.0,
        krylov: float = 1.0,
        right_hand_sides: int = 6,
        enrich: int = 0,
    ) -> None:
        super().__init__()
        check_count("vectors", vectors, "error")
        check_count("steps", steps, "step")
        check_count("warmup", warmup, "iterations", least=0)
        check_count("right_hand_sides", right_hand_sides, "right-hand side")
        check_count("enrich", enrich, "slow errors", least=0)
        check_tolerance("lr", lr)
        check_tolerance("weight_decay", weight_decay)
        check_tolerance("sharpness", sharpness)
        check_tolerance("krylov", krylov)
        self.save_hyperparameters()
        self.net = InterfaceNet(
            width=width,
            layers=layers,
            hops=hops,
            theta=theta,
            overlap=overlap,
            smoothing=smoothing,
            unknowns=unknowns,
            coordinates=coordinates,
        )
        self._errors: dict[Hashable, Tensor] = {}
        self._taken = 0  # steps of this epoch
        self._why_skipped = ""

    def forward(self, setup: Setup) -> tuple[Tensor, Tensor]:
        """Robin weights and corrections of the partition of unity for one setup."""
        return self.net(setup.inputs)

    def loss(self, setup: Setup) -> Tensor:
        """The loss of one sample: a scalar, the logarithm of factors, zero where nothing falls."""
        h, values = self.hparams, self(setup)
        with in_full_precision(setup.A.device):  # mixed precision is for the network
            method = self._enriched(setup.with_values(*values))
            norm = stochastic_norm(
                method.propagate,
                self._slow_errors(setup, method),
                steps=h["steps"],
                sharpness=h["sharpness"],
            )
            loss = norm.log()
            if h["krylov"]:
                b = self._random(setup, h["right_hand_sides"])
                reduction = krylov_reduction(setup.A, method.apply, b, steps=h["steps"])
                loss = loss + h["krylov"] * reduction.log()
        return loss

    def _enriched(self, method: Schwarz) -> Schwarz:
        enrich = self.hparams["enrich"]
        return enriched(method, enrich) if enrich else method

    def _slow_errors(self, setup: Setup, method: Schwarz) -> Tensor:
        """Errors that fall slowly, (n, vectors): the last ones of this matrix, iterated."""
        fresh = self._random(setup, self.hparams["vectors"])
        known = self._errors.get(setup.key)
        e = slow_errors(method.propagate, known, fresh, self.hparams["warmup"])
        self._errors[setup.key] = e.to(torch.bfloat16)  # a start to iterate, for every matrix
        return e

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the errors: some 200 MB for 2,400 meshes of 3,400 nodes (those of one process)."""
        named = {key: e for key, e in self._errors.items() if isinstance(key, int | str)}
        checkpoint["slow_errors"], checkpoint["steps_taken"] = named, self._taken

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        self._errors = dict(checkpoint.get("slow_errors", {}))  # older checkpoints have none
        self._taken = checkpoint.get("steps_taken", 0)

    @staticmethod
    def _random(setup: Setup, count: int) -> Tensor:
        A = setup.A
        return random_vectors(A.shape[0], count, dtype=A.dtype, device=A.device)

    def training_step(self, setup: Setup, batch_idx: int) -> Tensor:
        """One matrix; gradients accumulate over several (`accumulate_grad_batches`)."""
        for dtype in dict.fromkeys((setup.A.dtype, torch.float64)):
            try:
                loss = self._with_gradients(self.loss(setup.in_precision(dtype)))
                self.log("train/loss", loss, prog_bar=True, batch_size=1)
                self.log("train/skipped", 0.0, batch_size=1)
                self._taken += 1
                return loss
            except ValueError as error:  # singular, or beyond float32, where they jump by 1e6
                self._why_skipped = str(error)
        self.log("train/skipped", 1.0, batch_size=1)
        # Every process takes each step: one without gradients.
        return sum((0 * p.sum() for p in self.net.parameters()), torch.zeros(()))

    def on_train_epoch_end(self) -> None:
        """Refuse to go on where no step of an epoch could be taken."""
        taken, self._taken = torch.tensor(float(self._taken), device=self.device), 0
        if not self.trainer.strategy.reduce(taken, reduce_op="sum") and self._why_skipped:
            raise ValueError(f"all steps of this epoch were skipped; the last: {self._why_skipped}")

    def _with_gradients(self, loss: Tensor) -> Tensor:
        """The loss, whose backward pass is over and has gone well.

        Raises:
            ValueError: a gradient is not finite, or a solve on the way met infinities.
        """
        parameters = list(self.net.parameters())
        with in_full_precision(loss.device):
            found = torch.autograd.grad(loss, parameters)
        if not all(bool(g.isfinite().all()) for g in (loss, *found)):
            raise SingularError("the loss or a gradient is not finite")
        # A function with this value and these gradients, for whoever goes backward.
        parts = (((p - p.detach()) * g).sum() for p, g in zip(parameters, found))
        return loss.detach() + sum(parts, torch.zeros_like(loss))

    def score(self, setup: Setup) -> tuple[int, int]:
        """Stationary iterations to 1e-8: the learned method's, and those of its starting point."""
        values = self(setup)
        with in_full_precision(setup.A.device):
            methods = (setup.with_values(*values), setup.classical(self.net.theta))
            learned, start = (iterations_to_reduce(self._enriched(m), 1e-8) for m in methods)
        return learned, start

    def validation_step(self, setup: Setup, batch_idx: int) -> None:
        """Iterations to 1e-8, their ratio to the classical method's, and the convergence factor."""
        learned, classical = self.score(setup)
        several: dict[str, Any] = {"batch_size": 1, "sync_dist": True}  # means over all processes
        self.log("val/iterations", float(learned), prog_bar=True, **several)
        self.log("val/ratio", learned / classical, prog_bar=True, **several)
        values = self(setup)
        with in_full_precision(setup.A.device):
            factor = convergence_factor(self._enriched(setup.with_values(*values)))
        self.log("val/factor", factor, **several)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine."""
        h = self.hparams
        optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=h["lr"], weight_decay=h["weight_decay"]
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _learning_rate_factor(self, step: int) -> float:
        total = self.trainer.estimated_stepping_batches
        done = step / total if math.isfinite(total) else 0.0
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and callback.time_remaining() is not None:
                elapsed, left = callback.time_elapsed(), callback.time_remaining() or 0.0
                done = max(done, elapsed / (elapsed + left) if elapsed + left else 0.0)
        return min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class MeshDataModule(ResumableDataModule):
    """Random meshes for training and validation, generated on first use.

    Args:
        folder: where meshes are kept, one folder for each recipe.
        count, nodes, subdomain, seed, kinds: see `ddm.data.Recipe`.
        overlaps, linear, smoothing: see `ddm.data.MeshDataset`.
        val_count: validation meshes, with seeds that training does not use.
        fresh: whether training meshes get other subdomains each time that they come.
        files: mesh files to use instead of random domains; the last one is for validation.
        curriculum: what training begins with, the smallest meshes ("size") or those of the first
            of `kinds` ("kind"); None begins with all.
        growth: epochs until a curriculum has all meshes, see `ddm.balance.BalancedSampler`.
    """

    def __init__(
        self,
        folder: str = ".cache/meshes",
        count: int = 500,
        nodes: tuple[int, int] = (400, 2500),
        subdomain: tuple[int, int] = (32, 180),
        seed: int = 0,
        val_count: int = 10,
        kinds: tuple[str, ...] = ("poisson",),
        overlaps: tuple[int, ...] = (1,),
        linear: tuple[bool, ...] = (True,),
        smoothing: int = 2,
        fresh: bool = True,
        files: tuple[str, ...] = (),
        curriculum: Literal["size", "kind"] | None = None,
        growth: float = 2.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if curriculum not in (None, "size", "kind"):
            raise ValueError(f'curriculum: expected "size", "kind" or None, got {curriculum!r}')
        check_tolerance("growth", growth)  # before meshes are made, which takes long
        self.curriculum, self.growth = curriculum, growth
        self.folder = folder
        train = Recipe(
            count=count,
            nodes=nodes,
            subdomain=subdomain,
            seed=seed,
            kinds=kinds if isinstance(kinds, str) else tuple(kinds),
            files=tuple(files[:-1]),
        )
        validation = replace(
            train, count=val_count, seed=seed + 10_000_000, files=tuple(files[-1:])
        )
        if len(files) == 1:
            raise ValueError("files: expected none, or at least two, the last for validation")
        self.fresh = fresh
        self.options: dict[str, Any] = {
            "overlaps": tuple(overlaps),
            "linear": tuple(linear),
            "smoothing": smoothing,
        }
        self.recipes = {"training": train, "validation": validation}

    def prepare_data(self) -> None:
        """Generate what is missing, with a progress bar."""
        bar = extra("tqdm").tqdm
        for name, recipe in self.recipes.items():
            meshes = generate(recipe, self.folder)
            for _ in bar(meshes, total=recipe.count, desc=f"{name} meshes", leave=False):
                pass

    def train_dataloader(self) -> ResumableLoader[Setup]:
        """One sample at a time, shuffled; with several processes balanced by cost."""
        recipe = self.recipes["training"]
        dataset = MeshDataset(recipe, self.folder, fresh=self.fresh, **self.options)
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if not (several or self.curriculum):
            return self.resumable(dataset, DistributedSampler(dataset, 1, 0))
        by_kind = [recipe.kind(index) for index in range(len(dataset))]
        sampler = BalancedSampler(
            stored_costs(dataset.paths),
            growth=self.growth if self.curriculum else 0.0,
            stages=by_kind if self.curriculum == "kind" else None,
        )
        return self.resumable(dataset, sampler)

    def val_dataloader(self) -> DataLoader:
        """One sample at a time, in double precision, for iteration counts to 1e-8."""
        dataset = MeshDataset(
            self.recipes["validation"], self.folder, torch.float64, **self.options
        )
        return DataLoader(dataset, batch_size=None)

    def transfer_batch_to_device(
        self, batch: Setup, device: torch.device, dataloader_idx: int
    ) -> Setup:
        """Move a setup as a whole."""
        return batch.to(device)
