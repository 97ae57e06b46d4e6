"""Train MG-GNN or the Graph U-Net as published.

    python examples/train_published.py fit --config examples/train_published.yaml
    python examples/train_published.py fit --config examples/train_published.yaml \
        --model.network graph_unet

Grids are made when they are first used and kept (data.folder). A killed run goes on with
`--ckpt_path runs/published/last.ckpt` and gives what it would have given. At the end the network,
with the weights after the pass with the smallest loss, is written to
runs/published/network.safetensors, for `ddm.published.weights.load_network`.

Taghibakhshi et al., "MG-GNN", ICML 2023 (arXiv:2301.11378). benchmarks/paper_protocol.py trains
every network of the paper's comparison and makes its table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI

from ddm.published.lightning import GridDataModule, PublishedModule
from ddm.published.weights import save_network


class PublishedCLI(LightningCLI):
    """LightningCLI that knows what model and data share, and writes the network after `fit`."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Parts of a pass are the same for both; so is the seed of all that is random."""
        parser.link_arguments("data.parts", "model.parts")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.shuffle_seed")

    def after_fit(self) -> None:
        """Write the network beside the checkpoints."""
        path = Path(self.trainer.default_root_dir) / "network.safetensors"
        for callback in self.trainer.checkpoint_callbacks:
            if not isinstance(callback, ModelCheckpoint) or callback.monitor != "pass/loss":
                continue
            if callback.best_model_path:  # there is none before the first pass is over
                best = torch.load(callback.best_model_path, map_location="cpu", weights_only=False)
                self.model.load_state_dict(best["state_dict"])
        record = {"losses": self.model.history, "seed": self.model.hparams["seed"]}
        save_network(self.model.net, self.model.config, path, record)
        print(f"wrote {path}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    PublishedCLI(PublishedModule, GridDataModule, seed_everything_default=0, args=arguments)


if __name__ == "__main__":
    main()
