"""A data module whose training samples go on in mid-epoch."""

from __future__ import annotations

from typing import Any, TypeVar

import lightning as L
from torch.utils.data import Dataset

from sparsetorch.resumable.loader import Order, ResumableLoader

T = TypeVar("T")


class ResumableDataModule(L.LightningDataModule):
    """Keeps in checkpoints which samples of an epoch are done, for the loader that it makes.

    Lightning does so itself, but does not tell the loader where a schedule of the learning rate has
    asked for the number of steps before.
    """

    _loader: ResumableLoader[Any] | None = None
    _done: dict[str, Any] | None = None  # state of the loader in the checkpoint to go on with

    def resumable(self, dataset: Dataset[T], sampler: Order) -> ResumableLoader[T]:
        """The loader of this training, which goes on where the checkpoint was written."""
        loader = self._loader = ResumableLoader(dataset, sampler)
        if self._done:
            loader.load_state_dict(self._done)
        return loader

    def teardown(self, stage: str) -> None:
        """Let the next training on this object begin at its first sample."""
        if stage == "fit":
            self._done = None

    def state_dict(self) -> dict[str, Any]:
        """Which samples are done."""
        return {"loader": self._loader.state_dict() if self._loader else self._done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind them."""
        self._done = state_dict["loader"]
