"""A picture of validation that is drawn anew while a network trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from matplotlib.figure import Figure

from ddm.plot.curves import plot_loss, plot_validation
from sparsetorch.whole_files import replacing


class LivePlot(L.Callback):
    """Draws the loss and the convergence factor on validation meshes to one picture, as they come.

    The picture is written whole or not at all, after each validation and at the end; any viewer
    that follows a file shows it live. The curves are kept in checkpoints, so that a run that goes
    on draws all of it.

    Args:
        path: of the picture; its suffix names the format.
        every: steps between two points of the loss.
    """

    def __init__(self, path: str | Path = "validation.png", every: int = 1) -> None:
        if every != int(every) or every < 1:
            raise ValueError(f"every: expected a positive number of steps, got {every}")
        self.path, self.every = Path(path), int(every)
        self.curves: dict[str, list[float]] = {
            name: [] for name in ("loss_step", "loss", "step", "factor", "ratio")
        }

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Note the loss, once a step of the optimizer."""
        step = trainer.global_step
        steps, loss = self.curves["loss_step"], trainer.callback_metrics.get("train/loss")
        if loss is not None and step % self.every == 0 and (not steps or steps[-1] < step):
            steps.append(step)
            self.curves["loss"].append(float(loss))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note factor and ratio, and draw."""
        metrics = trainer.callback_metrics
        if trainer.sanity_checking or "val/factor" not in metrics:
            return
        self.curves["step"].append(trainer.global_step)
        self.curves["factor"].append(float(metrics["val/factor"]))
        self.curves["ratio"].append(float(metrics.get("val/ratio", float("nan"))))
        self.draw(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what came after the last validation."""
        self.draw(trainer)

    def draw(self, trainer: L.Trainer) -> None:
        """Write the picture, in the first process only."""
        curves = self.curves
        if not trainer.is_global_zero or not (curves["loss"] or curves["step"]):
            return
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        if curves["loss"]:
            plot_loss([int(s) for s in curves["loss_step"]], curves["loss"], left)
        if curves["step"]:
            plot_validation(
                [int(s) for s in curves["step"]], curves["factor"], curves["ratio"], right
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path, self.path.suffix) as partial:
            figure.savefig(partial, dpi=120)

    def state_dict(self) -> dict[str, Any]:
        """The curves."""
        return {name: list(values) for name, values in self.curves.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the curves of an earlier run."""
        self.curves = {name: list(state_dict.get(name, [])) for name in self.curves}
