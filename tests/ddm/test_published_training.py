"""Training as published: the losses fall, an interrupted run goes on, one command does it all."""

import json
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import paper_protocol
from paper_tables import method_table, overview

from ddm.local import SingularError
from ddm.published.counts import stationary_iterations
from ddm.published.lightning import GridDataModule, PassSampler, PublishedModule, fit
from ddm.published.weights import load_network

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
TINY: dict[str, Any] = {
    "passes": 2,
    "batch": 2,
    "parts": 2,
    "model": {"width": 8, "layers": 1, "vectors": 10},
    "data": {"count": 4, "nodes": (80, 100), "subdomain": (10, 12), "val_count": 1},
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Kill(L.Callback):
    """Ends a run in the middle of its third epoch."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 2:
            raise RuntimeError("killed")


@pytest.mark.usefixtures("gmsh")
def test_an_interrupted_run_gives_what_it_would_have_given(tmp_path):
    options = {**TINY, "data": {**TINY["data"], "folder": str(tmp_path / "grids")}}
    whole = load_network(fit(tmp_path / "whole", **options, **QUIET))
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "broken", **options, callbacks=[Kill()], **QUIET)
    path = fit(tmp_path / "broken", **options, **QUIET)
    resumed = load_network(path)
    assert resumed.record["losses"] == whole.record["losses"]
    assert len(whole.record["losses"]) == 2
    for name, weight in whole.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], weight), name
    written = path.stat().st_mtime_ns
    assert fit(tmp_path / "broken", **options, **QUIET) == path
    assert path.stat().st_mtime_ns == written


class KillEarly(L.Callback):
    """Ends a run in its second epoch."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")


@pytest.mark.usefixtures("gmsh")
def test_a_training_goes_on_with_the_same_arguments_only(tmp_path):
    data = {**TINY["data"], "nodes": [80, 100], "folder": str(tmp_path / "grids")}
    options = {**TINY, "data": data, "model": TINY["model"] | {"schedule": "cosine"}}
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="killed"):
        fit(out, **options, callbacks=[KillEarly()], **QUIET)
    for changes, message in (
        ({"model": options["model"] | {"lr": 1e-1}}, r"lr was 0\.0005 and is 0\.1;"),
        ({"seed": 1}, "seed was 0 and is 1, shuffle_seed was 0 and is 1;"),
        ({"data": data | {"subdomain": (9, 12)}}, r"subdomain was \(10, 12\) and is \(9, 12\);"),
        ({"batch": 1, "clip": 2.0}, r"batch was 2 and is 1, clip was None and is 2\.0;"),
        ({"passes": 3}, "passes was 2 and is 3;"),
    ):
        with pytest.raises(ValueError, match=f"last.ckpt is of another training: {message}"):
            fit(out, **(options | changes), **QUIET)
    moved = data | {"nodes": (80, 100), "folder": str(tmp_path / "elsewhere")}
    assert len(load_network(fit(out, **(options | {"data": moved}), **QUIET)).record["losses"]) == 2


@pytest.mark.parametrize("name", ["model", "data"])
def test_parts_are_given_once(tmp_path, name):
    options: dict[str, Any] = TINY | {name: TINY[name] | {"parts": 2}}
    with pytest.raises(ValueError, match=f"{name}: `parts` is an argument of `fit` itself"):
        fit(tmp_path, **options)


class SaveEarly(L.Callback):
    """Writes a checkpoint after the first step, and takes the time."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 1:
            time.sleep(0.2)
            trainer.save_checkpoint(self.path)


@pytest.mark.usefixtures("gmsh")
def test_a_run_goes_on_within_an_epoch(tmp_path):
    data = {**TINY["data"], "folder": str(tmp_path / "grids"), "val_count": 0, "count": 2}

    def run(path=None, **options):
        torch.manual_seed(0)
        module = PublishedModule(**TINY["model"])
        trainer = L.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, **QUIET, **options
        )
        trainer.fit(module, GridDataModule(**data), ckpt_path=path, weights_only=False)
        return module

    path = tmp_path / "early.ckpt"
    whole = run(callbacks=[SaveEarly(path)])
    assert 0.2 < torch.load(path, weights_only=False)["state_dict"]["totals"][2] < whole.totals[2]
    resumed = run(path)
    assert resumed.history == whole.history
    assert resumed.totals[2] > 0.2  # the seconds before the checkpoint count
    for name, weight in whole.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], weight), name


def fails_on(monkeypatch, fails):
    """Makes every method singular for which `fails(module)`."""
    learned = PublishedModule.method
    monkeypatch.setattr(
        PublishedModule, "method", lambda self, setup: None if fails(self) else learned(self, setup)
    )


@pytest.mark.usefixtures("gmsh")
def test_a_pass_in_which_every_grid_fails_is_not_the_best(tmp_path, monkeypatch):
    options = {**TINY, "data": {**TINY["data"], "folder": str(tmp_path), "val_count": 0}}
    with monkeypatch.context() as patch:
        fails_on(patch, lambda module: module.current_epoch >= 2)
        record = load_network(fit(tmp_path / "second", **options, **QUIET)).record
    assert math.isfinite(record["losses"][0])
    assert record["losses"][1] == math.inf
    assert (record["left_out"], record["left_out_of_passes"]) == (4, [0, 4])
    saved = torch.load(tmp_path / "second" / "best.ckpt", weights_only=False)
    assert saved["epoch"] == 1
    fails_on(monkeypatch, lambda module: True)
    for _ in range(2):  # the second time nothing is left to train
        with pytest.raises(FloatingPointError, match="no pass has a finite loss, and 8 times"):
            fit(tmp_path / "both", **options, **QUIET)
    assert not (tmp_path / "both" / "network.safetensors").exists()


@pytest.mark.usefixtures("gmsh")
def test_a_best_pass_that_left_grids_out_is_told(tmp_path, monkeypatch):
    data = {**TINY["data"], "folder": str(tmp_path), "val_count": 0}
    options = {**TINY, "data": data, "passes": 1}
    fails_on(monkeypatch, lambda module: module.current_epoch == 0)
    with pytest.warns(UserWarning, match="is the mean of 2 grids, the methods of 2 were singular"):
        record = load_network(fit(tmp_path / "out", **options, **QUIET)).record
    assert record["left_out_of_passes"] == [2]


@pytest.mark.usefixtures("gmsh")
def test_weights_that_are_not_finite_are_not_written(tmp_path):
    data = {**TINY["data"], "folder": str(tmp_path), "val_count": 0}
    model = TINY["model"] | {"lr": math.inf}
    options = {**TINY, "data": data, "model": model, "passes": 1, "parts": 1, "batch": 4}
    with pytest.raises(ValueError, match="has NaN or infinity, nothing is written"):
        fit(tmp_path / "out", **options, **QUIET)
    assert not (tmp_path / "out" / "network.safetensors").exists()


def test_other_errors_than_singular_matrices_are_raised():
    class Wrong:
        def learned(self, net):
            raise ValueError("interface: expected shape (3,)")

    with pytest.raises(ValueError, match="interface: expected shape"):
        PublishedModule(width=8, layers=1).method(Wrong())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, gmsh):
    """The folder of a short run of the command."""
    out = tmp_path_factory.mktemp("protocol")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paper_protocol.main(
            ["--out", str(out), "--config", "short", "--seeds", "1", "--no-progress"]
        )
    return out


def test_the_command_writes_every_method_at_every_size(outcome):
    text = (outcome / "table.md").read_text()
    rows = (outcome / "table.csv").read_text().splitlines()
    models = paper_protocol.read_configuration("short")["models"]
    assert set(models) == {"MG-GNN", "Graph U-Net", "MG-GNN, older loss"}
    for name in ("RAS", "ORAS, best weight", "ORAS 0.5, smoothed", *models):
        assert f"| {name} " in text
    assert len(rows) == 1 + 2 * 6
    assert (outcome / "iterations.png").stat().st_size > 10_000
    assert len((outcome / "training.csv").read_text().splitlines()) == 1 + 3


def test_training_lowers_each_loss(outcome):
    for path in (outcome / "training").glob("*/network.safetensors"):
        losses = load_network(path).record["losses"]
        assert min(losses[1:]) < 0.99 * losses[0], path


def test_the_command_goes_on_from_what_is_there(outcome, monkeypatch):
    counted = sorted((outcome / "counts").glob("*.json"))
    assert len(counted) == 4
    before = [(path, path.read_text()) for path in counted]
    table = (outcome / "table.csv").read_text()
    lost = json.loads(before[0][1])
    del lost["counts"]["Graph U-Net/0"]
    counted[0].write_text(json.dumps(lost))

    def untouched(*_):
        raise AssertionError("counted anew")

    monkeypatch.setattr(paper_protocol, "searched_weight", untouched)
    arguments = ["--out", str(outcome), "--seeds", "1", "--no-progress", "--config"]
    paper_protocol.main([*arguments, "short"])
    for path, text in before:
        assert json.loads(path.read_text())["counts"] == json.loads(text)["counts"]
    assert (outcome / "table.csv").read_text() == table
    with pytest.raises(SystemExit, match="is another configuration; name another folder"):
        paper_protocol.main([*arguments, "hour"])
    with pytest.raises(ValueError, match="--config: expected one of"):
        paper_protocol.read_configuration("long")


def test_the_table_says_where_a_method_does_not_converge():
    counts = {"RAS": [10, 4], "net/0": [5, 3], "net/1": [None, 4]}
    grids = [{"nodes": 9, "unknowns": 8, "subdomains": 2, "counts": counts}]
    table = method_table(grids)
    row = table.rows[1]
    assert (row["stationary"], row["of RAS"], row["converged"]) == (5.0, None, "1/2")
    assert (row["FGMRES"], row["FGMRES of RAS"]) == (3.5, 0.875)
    assert "5 (1/2 converged)" in overview(table)
    grids[0]["counts"] = {"RAS": [10, 4], "net/0": [None, None]}
    assert "none converged" in overview(method_table(grids))


def test_each_pass_takes_every_grid_once():
    sampler = PassSampler(12, 3, seed=0)
    passes = []
    for number in range(2):
        order: list[int] = []
        for part in range(3):
            sampler.set_epoch(3 * number + part)
            order += list(sampler)
        passes.append(order)
        assert sorted(order) == list(range(12))
    assert passes[0] != passes[1]
    with pytest.raises(ValueError, match="parts: expected a divisor of 12 grids, got 5"):
        PassSampler(12, 5, seed=0)


def test_a_singular_operator_is_left_out_of_its_batch():
    module = PublishedModule(width=8, layers=1)
    grids = GridDataModule(count=1, nodes=(80, 80), subdomain=(10, 10))

    class Singular:
        def learned(self, net):
            raise SingularError("of some subdomain")

    loss = module.training_step(Singular(), 0)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0
    assert int(module.totals[3]) == 1
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())
    assert len(grids.training) == 1


def test_a_loss_can_be_changed_and_an_unknown_one_is_named():
    module = PublishedModule(width=8, layers=1, gamma=0.0, start="normal", steps=3)
    assert (module.objective.gamma, module.objective.start, module.objective.steps) == (
        0.0,
        "normal",
        3,
    )
    assert module.objective.vectors == 100
    with pytest.raises(ValueError, match="loss: expected one of"):
        PublishedModule(loss="square")


PUBLISHED = ["MG-GNN", "Graph U-Net", "MG-GNN, older loss"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("full", PUBLISHED),
        ("hour", PUBLISHED),
        ("changed", ["MG-GNN, changed", "Graph U-Net, changed"]),
        ("short", PUBLISHED),
    ],
)
def test_every_training_of_the_configurations_can_begin(name, first):
    models = paper_protocol.read_configuration(name)["models"]
    assert list(models)[: len(first)] == first
    for options in models.values():
        PublishedModule(**options.get("model", {}), parts=options["parts"])
        GridDataModule(**options["data"], parts=options["parts"])


@pytest.mark.parametrize("name", ["MG-GNN, changed", "Graph U-Net, changed"])
@pytest.mark.usefixtures("gmsh")
def test_the_changed_training_runs_and_gives_a_method(name, tmp_path):
    options = paper_protocol.read_configuration("changed")["models"][name]
    small = {"count": 4, "nodes": (150, 200), "subdomain": (15.0, 20.0), "folder": str(tmp_path)}
    changed = {
        "passes": 1,
        "parts": 2,
        "model": options["model"] | {"width": 16, "layers": 2},
        "data": options["data"] | small,
    }
    trained = load_network(fit(tmp_path / "training", **(options | changed), **QUIET))
    assert trained.record["left_out"] == 0
    setup = GridDataModule(**changed["data"]).training[0]
    method = paper_protocol.learned(trained, setup)
    assert method is not None
    ours, ras = (stationary_iterations(m, 1e-8) for m in (method, setup.classical()))
    assert ours is not None
    assert ras is not None
    assert ours < ras


def test_the_full_configuration_trains_as_published():
    models = paper_protocol.read_configuration("full")["models"]
    expected = {"passes": 10, "batch": 10, "parts": 10, "data": {"count": 1000}}
    assert models["MG-GNN"] == expected
    assert models["Graph U-Net"] == expected | {"model": {"network": "graph_unet"}}
    assert models["MG-GNN, older loss"] == expected | {"model": {"loss": "mloras"}}
    published = PublishedModule().hparams
    assert {k: published[k] for k in ("width", "layers", "hops", "lr", "weight_decay")} == {
        "width": 128,
        "layers": 4,
        "hops": 2,
        "lr": 5e-4,
        "weight_decay": 1e-5,
    }
    assert (published["reduction"], published["features"], published["plain"]) == ("sum", 0, False)
