"""The script that trains the published networks: it runs, goes on, and writes the network."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ddm.published.weights import load_network

EXAMPLES = Path(__file__).parents[2] / "examples"


def fit(folder: Path, epochs: int, *more: str) -> None:
    """Run `fit` in `folder` with the published configuration, made tiny."""
    config = yaml.safe_load((EXAMPLES / "train_published.yaml").read_text())
    config["model"] |= {"width": 8, "layers": 1, "network": "graph_unet"}
    config["data"] |= {"count": 4, "parts": 2, "nodes": [80, 100], "subdomain": [10, 12]}
    config["data"]["val_count"] = 1
    config["trainer"] |= {"max_epochs": epochs, "accumulate_grad_batches": 2}
    config["trainer"] |= {"check_val_every_n_epoch": 2, "enable_progress_bar": False}
    config["trainer"]["callbacks"][1]["init_args"]["every_n_epochs"] = 2
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    script = str(EXAMPLES / "train_published.py")
    done = subprocess.run(
        [sys.executable, script, "fit", "--config=tiny.yaml", *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.usefixtures("gmsh")
def test_fit_and_resume(tmp_path):
    fit(tmp_path, 2, "--seed_everything=1")
    runs = tmp_path / "runs" / "published"
    first = load_network(runs / "network.safetensors")
    assert len(first.record["losses"]) == 1
    assert (runs / "best.ckpt").exists()
    fit(tmp_path, 4, "--seed_everything=1", f"--ckpt_path={runs / 'last.ckpt'}")
    assert torch.load(runs / "last.ckpt", weights_only=False)["global_step"] == 4
    net, record = load_network(runs / "network.safetensors")
    assert record["losses"][:1] == first.record["losses"]
    assert len(record["losses"]) == 2
    epoch = 2 * record["losses"].index(min(record["losses"])) + 1  # that ends the best pass
    kept = [torch.load(path, weights_only=False) for path in runs.glob("best*.ckpt")]
    best = next(checkpoint for checkpoint in kept if checkpoint["epoch"] == epoch)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, best["state_dict"][f"net.{name}"])
