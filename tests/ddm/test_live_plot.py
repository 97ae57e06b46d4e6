"""The picture of training: drawn as validation goes on, kept by checkpoints, never half written."""

import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from matplotlib import image

from ddm.lightning import MeshDataModule, SchwarzModule
from ddm.plot import lightning as live
from ddm.plot.lightning import LivePlot

MESHES = sorted((Path(__file__).parents[2] / "examples" / "meshes").glob("*.msh"))


def fit(folder: Path, steps: int, *callbacks: L.Callback, **options) -> L.Trainer:
    data = MeshDataModule(
        str(folder / "meshes"),
        count=2,
        subdomain=(30, 60),
        val_count=1,
        files=tuple(map(str, MESHES[:2])),
    )
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(
            SchwarzModule(width=8, layers=2, vectors=4, steps=3, warmup=1),
            datamodule=data,
            **options,
        )
    return trainer


def test_it_is_drawn_after_each_validation_and_goes_on_after_a_resume(tmp_path, monkeypatch):
    drawn: list[list[int]] = []
    original = live.plot_validation
    monkeypatch.setattr(
        live,
        "plot_validation",
        lambda steps, *rest: (drawn.append(list(steps)), original(steps, *rest))[1],
    )
    path = tmp_path / "pictures" / "live.png"
    plot = LivePlot(path)
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", save_last=True)
    trainer = fit(tmp_path, 4, plot, keep)
    assert drawn == [[2], [2, 4], [2, 4]]  # an epoch has two steps; the end draws once more
    assert plot.curves["loss_step"] == [1, 2, 3, 4]
    last = float(trainer.callback_metrics["val/factor"])
    assert plot.curves["factor"][-1] == pytest.approx(last)
    assert 0 < last < 1
    assert plot.curves["ratio"][0] == pytest.approx(1, abs=0.3)
    pixels = np.asarray(image.imread(path))
    assert pixels.std() > 0.02  # not blank
    assert [p.name for p in path.parent.iterdir()] == ["live.png"]

    again = LivePlot(path)
    fit(
        tmp_path,
        6,
        again,
        ModelCheckpoint(dirpath=tmp_path / "kept", save_last=True),
        ckpt_path=tmp_path / "kept" / "last.ckpt",
        weights_only=False,
    )
    assert again.curves["step"] == [2, 4, 6]
    assert again.curves["loss_step"] == [1, 2, 3, 4, 5, 6]
    assert again.curves["factor"][:2] == plot.curves["factor"]


def test_a_picture_of_an_unknown_format_leaves_the_old_one(tmp_path):
    trainer = fit(tmp_path, 1, LivePlot(tmp_path / "a.png"))
    before = (tmp_path / "a.png").read_bytes()
    plot = LivePlot(tmp_path / "a.nonsense")
    plot.load_state_dict({"step": [1.0], "factor": [0.5], "ratio": [1.0]})
    with pytest.raises(ValueError, match="nonsense"):
        plot.draw(trainer)
    assert (tmp_path / "a.png").read_bytes() == before


def test_bad_intervals_are_refused():
    with pytest.raises(ValueError, match="every: expected a positive number of steps, got 0"):
        LivePlot("a.png", every=0)
