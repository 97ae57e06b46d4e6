"""Train MG-GNN on small meshes.

    python examples/train_mggnn.py fit --config examples/train_mggnn.yaml

That is the network "diffusion_2d"; train_mggnn_algebraic.yaml, train_mggnn_3d.yaml and
train_mggnn_elasticity.yaml are those of the others that ship. Meshes are generated once
(data.folder) and kept. A killed run goes on with `--ckpt_path runs/mggnn/checkpoints/last.ckpt`;
every option is listed by `fit --help`. At the end the network alone is written to
runs/mggnn/mggnn.safetensors, with what made it.

Taghibakhshi et al., "MG-GNN", ICML 2023 (arXiv:2301.11378); differences are listed in
graphnets/mggnn.py, ddm/learned.py and ddm/losses.py.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ddm.lightning import MeshDataModule, SchwarzModule
from sparsetorch.resumable.cli.lightning import ResumableCLI


class TrainingCLI(ResumableCLI):
    """LightningCLI that writes the network to one safetensors file after `fit`."""

    def before_fit(self) -> None:
        """Start the clock."""
        self.started = time.time()

    def after_fit(self) -> None:
        """Write the network beside the checkpoints, with its recipe."""
        if not self.trainer.is_global_zero:
            return
        path = Path(self.trainer.default_root_dir) / "mggnn.safetensors"
        steps = self.load_best()
        self.model.net.save(
            path,
            **scope(self.datamodule.recipes["training"].kinds),
            data=json.dumps(self.options(self.datamodule)),
            training=json.dumps(self.options(self.model)),
            steps=str(steps),
            minutes=f"{(time.time() - self.started) / 60:.0f}",
            seed=str(self.config["fit"]["seed_everything"]),
            machine=machine(),
        )
        print(f"wrote {path}")

    def load_best(self) -> int:
        """Go back to the weights with the best validation, if they are kept; their steps."""
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor:
                best = callback.best_model_path
                if best:
                    found = torch.load(best, map_location="cpu", weights_only=False)
                    self.model.load_state_dict(found["state_dict"])
                    print(
                        f"best validation: {best}, {callback.monitor} {callback.best_model_score}"
                    )
                    return int(found["global_step"])
        return int(self.trainer.global_step)

    @staticmethod
    def options(module: SchwarzModule | MeshDataModule) -> dict[str, object]:
        """The arguments of a module, without what the command line adds to them."""
        return {k: v for k, v in module.hparams.items() if not k.startswith("_")}


def scope(kinds: tuple[str, ...]) -> dict[str, str]:
    """What the network has seen, for its metadata: kinds of one dimension and block size.

    Raises:
        ValueError: they differ in these.
    """
    bases = sorted({kind.removesuffix("_3d") for kind in kinds})
    dimensions = {3 if kind.endswith("_3d") else 2 for kind in kinds}
    if len(dimensions) > 1 or ("elasticity" in bases and len(bases) > 1):
        raise ValueError(f"kinds: expected one dimension and block size, got {kinds}")
    dimension = dimensions.pop()
    size = dimension if bases == ["elasticity"] else 1
    return {"kinds": json.dumps(bases), "dimension": str(dimension), "block_size": str(size)}


def machine() -> str:
    """The processor (the GPU if there is one), threads, and the version of PyTorch."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    if torch.cuda.is_available():
        name += f", {torch.cuda.get_device_name()}"
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def main() -> None:
    """Run the command line."""
    TrainingCLI(SchwarzModule, MeshDataModule, seed_everything_default=0)


if __name__ == "__main__":
    main()
