"""The training script as a user calls it: a checkpoint, logs, and a run that goes on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ddm.checkpoints import load_pretrained, pretrained_names
from ddm.learned import InterfaceNet
from ddm.scope import Scope

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import train_mggnn  # noqa: E402


def fit(folder: Path, steps: int, *more: str) -> None:
    """Run `fit` in `folder` with the shipped configuration, made tiny."""
    done = run(folder, steps, *more)
    assert done.returncode == 0, done.stderr[-2000:]


def run(folder: Path, steps: int, *more: str) -> subprocess.CompletedProcess[str]:
    config = yaml.safe_load((EXAMPLES / "train_mggnn.yaml").read_text())
    meshes = [str(EXAMPLES / "meshes" / f"domain{i}.msh") for i in (0, 1, 2)]
    config["model"]["width"] = 8
    config["data"] |= {"files": meshes, "kinds": ["poisson"], "count": 4, "val_count": 1}
    config["trainer"] |= {"max_epochs": -1, "max_steps": steps, "accelerator": "cpu"}
    config["trainer"] |= {"enable_progress_bar": False, "log_every_n_steps": 1}
    config["trainer"]["val_check_interval"] = 1
    config["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    script = str(EXAMPLES / "train_mggnn.py")
    return subprocess.run(
        [sys.executable, script, "fit", "--config=tiny.yaml", *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_fit_and_resume(tmp_path):
    fit(tmp_path, 2)
    runs = tmp_path / "runs" / "mggnn"
    net = InterfaceNet.load(runs / "mggnn.safetensors")
    assert net.config["width"] == 8
    assert re.fullmatch(r".+, \d+ thread\(s\), torch \d+\..+", net.metadata["machine"])
    assert Scope.of_net(net) == Scope(frozenset({"poisson"}), 2, coordinates=True)
    assert list(runs.glob("csv/*/metrics.csv"))
    assert list(runs.glob("tensorboard/*/events.out.*"))
    last = runs / "checkpoints" / "last.ckpt"
    assert last.exists()
    fit(tmp_path, 4, f"--ckpt_path={last}")
    assert torch.load(last, weights_only=False)["global_step"] == 4
    last.write_bytes(last.read_bytes()[:-100])
    refused = run(tmp_path, 6, f"--ckpt_path={last}")
    assert refused.returncode != 0
    assert "last.ckpt is cut short, damaged, or no checkpoint; go on from" in refused.stderr


@pytest.mark.parametrize(
    ("kinds", "scope"),
    [
        (("poisson",), Scope(frozenset({"poisson"}), 2)),
        (("diffusion", "poisson"), Scope(frozenset({"diffusion", "poisson"}), 2)),
        (("diffusion_3d", "anisotropic_3d"), Scope(frozenset({"diffusion", "anisotropic"}), 3)),
        (("elasticity",), Scope(frozenset({"elasticity"}), 2, 2)),
        (("elasticity_3d",), Scope(frozenset({"elasticity"}), 3, 3)),
    ],
)
def test_the_scope_is_what_the_network_has_seen(kinds, scope):
    net = InterfaceNet(width=4, layers=1, coordinates=False)
    net.metadata = train_mggnn.scope(kinds)
    assert Scope.of_net(net) == scope


@pytest.mark.parametrize(
    "kinds", [("poisson", "poisson_3d"), ("poisson", "elasticity"), ("elasticity", "diffusion_3d")]
)
def test_kinds_that_no_one_network_is_for(kinds):
    with pytest.raises(ValueError, match="kinds: expected one dimension and block size, got"):
        train_mggnn.scope(kinds)


SHIPPED = {
    "diffusion_2d": "train_mggnn.yaml",
    "diffusion_2d_algebraic": "train_mggnn_algebraic.yaml",
    "diffusion_3d": "train_mggnn_3d.yaml",
    "elasticity_2d": "train_mggnn_elasticity.yaml",
}


def test_every_network_that_ships_has_a_configuration():
    assert sorted(SHIPPED) == sorted(pretrained_names())


@pytest.mark.parametrize("name", SHIPPED)
def test_configurations_are_those_of_the_networks_that_ship(name, monkeypatch, capsys):
    path = str(EXAMPLES / SHIPPED[name])
    monkeypatch.setattr(
        sys, "argv", ["train_mggnn.py", "fit", f"--config={path}", "--print_config"]
    )
    with pytest.raises(SystemExit):
        train_mggnn.main()
    config = yaml.safe_load(capsys.readouterr().out)
    made = load_pretrained(name).metadata
    # Options since they were trained.
    assert config["model"] == {"enrich": 0} | json.loads(made["training"])
    added = {"curriculum": None, "growth": 2.0}
    assert config["data"] == added | json.loads(made["data"])
    assert config["seed_everything"] == int(made["seed"])
    _, hours, minutes, _ = map(int, config["trainer"]["max_time"].split(":"))
    assert 60 * hours + minutes == int(made["minutes"])
