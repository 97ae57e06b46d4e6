"""Training the published networks under Lightning: module, data, and a run that goes on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ddm.local import SingularError
from ddm.published.counts import stationary_iterations
from ddm.published.grids import GridDataset, GridRecipe
from ddm.published.inputs import Interpolation
from ddm.published.losses import LOSSES
from ddm.published.setup import PublishedSetup
from ddm.published.weights import make_network, save_network
from ddm.schwarz import Schwarz
from sparsetorch.resumable import ResumableLoader
from sparsetorch.resumable.checkpoints import check_checkpoint
from sparsetorch.resumable.lightning import ResumableDataModule


class PublishedModule(L.LightningModule):
    """Trains MG-GNN or the Graph U-Net on a published loss; the defaults are the published ones.

    Every random number follows from the seed, the epoch and the place in it, so that a run that was
    interrupted gives what it would have given.

    Args:
        network: "mggnn" or "graph_unet".
        loss: "mggnn" or "mloras", see `ddm.published.losses`.
        width, layers, hops: of the network.
        features: 2 to let it see the partition of unity, plain and smoothed, at the entries of P.
        plain: whether training starts at L = 0 and P constant in each row; published is random.
        lr, weight_decay: of Adam.
        seed: of the loss's random columns.
        parts: Lightning epochs that make one pass over the data, see `GridDataModule`.
        vectors, steps, gamma, start, warmup, sharpness: of the loss, where they are to differ from
            what was published, see `ddm.published.losses.PublishedLoss`.
        reduction: "sum" of the gradients of a batch, as published, or their "mean", which tells
            where the trainer clips gradients.
        schedule: "constant", as published, or "cosine": to zero over the trainer's epochs.
    """

    totals: Tensor  # sum of losses and samples of this pass; seconds; samples left out

    def __init__(
        self,
        network: str = "mggnn",
        loss: str = "mggnn",
        width: int = 128,
        layers: int = 4,
        hops: int = 2,
        features: int = 0,
        plain: bool = False,
        lr: float = 5e-4,
        weight_decay: float = 1e-5,
        seed: int = 0,
        parts: int = 1,
        vectors: int | None = None,
        steps: int | None = None,
        gamma: float | None = None,
        start: str | None = None,
        warmup: int | None = None,
        sharpness: float | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if loss not in LOSSES:
            raise ValueError(f"loss: expected one of {sorted(LOSSES)}, got {loss!r}")
        changes: dict[str, Any] = {
            "vectors": vectors,
            "steps": steps,
            "gamma": gamma,
            "start": start,
            "warmup": warmup,
            "sharpness": sharpness,
        }
        self.objective = replace(
            LOSSES[loss], **{name: x for name, x in changes.items() if x is not None}
        )
        sizes = {"width": width, "layers": layers, "hops": hops, "features": features}
        self.config = {"network": network, **sizes}
        self.net = make_network(network, **sizes)
        if plain:
            self.net.start_plain()
        self.register_buffer("totals", torch.zeros(4, dtype=torch.float64))
        self.history: list[float] = []  # of passes: the mean loss
        self.left_out: list[int] = []  # and the samples left out
        self.settings: dict[str, Any] = {}  # of `fit`, which a training goes on with
        self._started: float | None = None

    def method(self, setup: PublishedSetup) -> Schwarz | None:
        """The operator of the network's values; None if a matrix in it is singular."""
        try:
            return setup.learned(self.net)
        except SingularError:
            return None

    def training_step(self, setup: PublishedSetup, batch_idx: int) -> Tensor:
        """One grid; gradients accumulate over several (`accumulate_grad_batches`).

        Nothing in the published method keeps its matrices regular; the authors' code takes
        pseudo-inverses, here such a grid is left out of its batch.
        """
        h = self.hparams
        method = self.method(setup)
        loss = None
        if method is not None:
            columns = np.random.SeedSequence([h["seed"], self.current_epoch, batch_idx])
            generator = torch.Generator().manual_seed(int(columns.generate_state(1)[0]))
            loss = self.objective(method, setup.P0, generator)
        if loss is None or not bool(loss.isfinite()):
            self.totals[3] += 1
            return 0.0 * sum(p.sum() for p in self.net.parameters())  # type: ignore[return-value]
        self.totals[:2] += torch.tensor([float(loss.detach()), 1.0], device=self.totals.device)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=1)
        return loss * self.trainer.accumulate_grad_batches if h["reduction"] == "sum" else loss

    def on_train_start(self) -> None:
        """Start the clock in an epoch that is gone on with: Lightning calls nothing else."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Stop it; at the end of a pass over the data, report the mean loss, inf if of no grid."""
        self.totals[2] += self._elapsed()
        self._started = None
        if (self.current_epoch + 1) % self.hparams["parts"] == 0:
            total, count = self.totals[:2].tolist()
            self.history.append(total / count if count else math.inf)
            self.left_out.append(int(self.totals[3]) - sum(self.left_out))
            self.log("pass/loss", self.history[-1])
            self.log("pass/left_out", float(self.left_out[-1]))
            self.totals[:2] = 0

    def _elapsed(self) -> float:
        """Seconds of this epoch so far; none between epochs."""
        return 0.0 if self._started is None else time.perf_counter() - self._started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what passes gave, the seconds of this epoch, and the settings."""
        totals = self.totals.clone()
        totals[2] += self._elapsed()
        checkpoint["state_dict"]["totals"] = totals
        checkpoint["history"], checkpoint["left_out"] = self.history, self.left_out
        checkpoint["settings"] = self.settings

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what passes gave."""
        self.history = checkpoint["history"]
        # Older checkpoints do not say of which pass.
        self.left_out = checkpoint.get("left_out", [0] * len(self.history))

    def validation_step(self, setup: PublishedSetup, batch_idx: int) -> None:
        """Stationary iterations to 1e-8 against those of RAS."""
        ours, ras = (
            500 if method is None else stationary_iterations(method, 1e-8, maxiter=500) or 500
            for method in (self.method(setup), setup.classical())
        )
        self.log("val/iterations", float(ours), prog_bar=True, batch_size=1)
        self.log("val/of_ras", ours / ras, prog_bar=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        """Adam with weight decay in the gradient, as published."""
        h = self.hparams
        adam = torch.optim.Adam(self.net.parameters(), h["lr"], weight_decay=h["weight_decay"])
        if h["schedule"] == "constant":
            return adam
        epochs = self.trainer.max_epochs or 1
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}


class PassSampler(Sampler[int]):
    """One part of a random order of the data an epoch; `parts` epochs make a pass over it."""

    def __init__(self, count: int, parts: int, seed: int) -> None:
        if parts < 1 or count % parts:
            raise ValueError(f"parts: expected a divisor of {count} grids, got {parts}")
        self.count, self.parts, self.seed, self.epoch = count, parts, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """What Lightning calls at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.parts

    def __iter__(self) -> Iterator[int]:
        number, part = divmod(self.epoch, self.parts)
        order = np.random.default_rng([self.seed, number]).permutation(self.count)
        return iter(order[part * len(self) : (part + 1) * len(self)].tolist())


class GridDataModule(ResumableDataModule):
    """The paper's grids, made when first used and kept.

    Args:
        folder: where grids are kept, one folder for each recipe.
        count, nodes, subdomain, boundary, seed: see `ddm.published.GridRecipe`.
        pattern: of P, see `ddm.published.published_graph`.
        bounded: see `ddm.published.PublishedSetup`.
        parts: epochs that make one pass over the data: checkpoints are that much more frequent.
        val_count: grids for validation, with seeds that training does not use; the published
            training has none.
        shuffle_seed: of the order of the grids.
    """

    def __init__(
        self,
        folder: str = ".cache/grids",
        count: int = 1000,
        nodes: tuple[int, int] = (800, 1000),
        subdomain: tuple[float, float] = (30.3, 31.4),
        boundary: Literal["kept", "eliminated"] = "kept",
        pattern: Interpolation = "neighbours",
        bounded: bool = False,
        seed: int = 0,
        parts: int = 1,
        val_count: int = 4,
        shuffle_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # the module has a seed of its own
        recipe = GridRecipe(
            count, (nodes[0], nodes[1]), (subdomain[0], subdomain[1]), boundary, seed
        )
        self.sampler = PassSampler(count, parts, shuffle_seed)
        self._moved: dict[int, PublishedSetup] = {}
        options: dict[str, Any] = {"pattern": pattern, "bounded": bounded}
        self.training = GridDataset(recipe, folder, **options)
        validation = replace(recipe, count=max(val_count, 1), seed=seed + 10_000_000)
        held_out = GridDataset(validation, folder, **options)
        self.validation = held_out if val_count else None

    def train_dataloader(self) -> ResumableLoader[PublishedSetup]:
        """One grid at a time, in the order of the sampler."""
        return self.resumable(self.training, self.sampler)

    def val_dataloader(self) -> DataLoader | list[Any]:
        """One grid at a time."""
        return [] if self.validation is None else DataLoader(self.validation, batch_size=None)

    def transfer_batch_to_device(
        self, batch: PublishedSetup, device: torch.device, dataloader_idx: int
    ) -> PublishedSetup:
        """Move a setup as a whole, once: datasets keep theirs, so that its id names it."""
        if id(batch) not in self._moved:
            self._moved[id(batch)] = batch.to(device)
        return self._moved[id(batch)]


def fit(
    folder: str | Path,
    *,
    passes: int = 10,
    batch: int = 10,
    clip: float | None = None,
    seed: int = 0,
    parts: int = 10,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    callbacks: Sequence[L.Callback] = (),
    **options: Any,
) -> Path:
    """Train one network, or go on with a training that was interrupted.

    Args:
        folder: for checkpoints and the result, `network.safetensors`: the weights after the pass
            with the smallest loss, as published. Where that file is, nothing is left to do.
        passes: over the data.
        batch: grids a step.
        clip: largest 2-norm of a gradient; None, as published, clips nothing.
        seed: of the weights, the columns of the loss and the order of the data.
        parts: checkpoints in each pass.
        model, data: arguments of `PublishedModule` and `GridDataModule`, but for `parts`.
        callbacks, options: of Lightning's Trainer.

    Returns:
        The path of the result.

    Raises:
        ValueError: `parts` in `model` or `data`; the training in the folder has other arguments; or
            the best weights have NaN or infinity.
        FloatingPointError: no pass has a finite loss.
    """
    for name, arguments in {"model": model, "data": data}.items():
        if "parts" in (arguments or {}):
            raise ValueError(f"{name}: `parts` is an argument of `fit` itself, for both")
    folder = Path(folder)
    result = folder / "network.safetensors"
    if result.exists():
        return result
    L.seed_everything(seed, verbose=False)
    module = PublishedModule(**{"seed": seed, **(model or {}), "parts": parts})
    grids = GridDataModule(**{"shuffle_seed": seed, **(data or {}), "parts": parts})
    module.settings = {"batch": batch, "clip": clip}
    if module.hparams["schedule"] == "cosine":  # which ends with the last pass
        module.settings["passes"] = passes
    best = ModelCheckpoint(
        folder, "best", monitor="pass/loss", every_n_epochs=parts, save_on_train_epoch_end=True
    )
    last = ModelCheckpoint(
        folder, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    trainer = L.Trainer(
        default_root_dir=folder,
        max_epochs=passes * parts,
        accumulate_grad_batches=batch,
        gradient_clip_val=clip,
        check_val_every_n_epoch=parts,
        callbacks=[best, last, *callbacks],
        **{"accelerator": "auto", "devices": 1, "logger": False, **options},
    )
    checkpoint = folder / "last.ckpt"
    if checkpoint.exists():
        check_checkpoint(checkpoint)
        _check_same_training(checkpoint, module, grids)
    trainer.fit(
        module, grids, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=False
    )
    _check_losses(module, len(grids.training))
    record = {
        "training": {k: v for k, v in module.hparams.items() if v is not None},
        "data": dict(grids.hparams) | {"folder": None},
        "passes": passes,
        "batch": batch,
        "clip": clip,
        "losses": module.history,
        "minutes": float(module.totals[2]) / 60,
        "left_out": int(module.totals[3]),
        "left_out_of_passes": module.left_out,
    }
    weights = torch.load(best.best_model_path, weights_only=False)["state_dict"]
    module.load_state_dict(weights)
    save_network(module.net, module.config, result, record)
    return result


def _check_same_training(checkpoint: Path, module: PublishedModule, grids: GridDataModule) -> None:
    """Refuse to go on with other arguments, of which Lightning would take some and not others."""
    kept = torch.load(checkpoint, map_location="cpu", weights_only=False)
    pairs = (
        (kept["hyper_parameters"], module.hparams),
        (kept["datamodule_hyper_parameters"], grids.hparams),
        (kept.get("settings", {}), module.settings),  # older checkpoints have none
    )
    other = [
        f"{name} was {old[name]!r} and is {new[name]!r}"
        for old, new in pairs
        for name in sorted(old.keys() & new.keys() - {"folder"})
        if _listed(old[name]) != _listed(new[name])
    ]
    if other:
        raise ValueError(
            f"folder: {checkpoint} is of another training: {', '.join(other)}; go on with the same "
            "arguments, or name another folder"
        )


def _listed(x: Any) -> Any:
    """Tuples as lists, which configuration files have in their place."""
    return list(x) if isinstance(x, tuple) else x


def _check_losses(module: PublishedModule, count: int) -> None:
    """Refuse a training in which no pass has a finite loss; warn where the best left out grids."""
    best = min(module.history, default=math.inf)
    if not math.isfinite(best):
        raise FloatingPointError(
            f"training: no pass has a finite loss, and {int(module.totals[3])} times a grid was "
            "left out as its method was singular; train in another folder with a smaller lr, with "
            "clipped gradients, plain=True, or data that is bounded"
        )
    left_out = module.left_out[module.history.index(best)]
    if left_out:
        warnings.warn(
            f"training: the loss of the best pass is the mean of {count - left_out} grids, the "
            f"methods of {left_out} were singular",
            stacklevel=3,
        )
