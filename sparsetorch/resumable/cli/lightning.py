"""A command line whose `--ckpt_path` is looked at before anything is built for it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import LightningCLI

from sparsetorch.resumable.checkpoints import check_checkpoint


class ResumableCLI(LightningCLI):
    """LightningCLI that names a checkpoint which is missing or not whole, and ends."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Look at the checkpoint before Lightning does, whose errors name no file."""
        super().parse_arguments(parser, args)
        path = self.config.get(self.config.get("subcommand") or "", {}).get("ckpt_path")
        if path and path not in ("best", "last", "hpc"):
            try:
                check_checkpoint(path)
            except (OSError, ValueError) as error:
                raise SystemExit(str(error)) from None
