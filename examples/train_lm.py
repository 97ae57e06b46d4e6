"""Train a hybrid language model: LightningCLI over `HybridModule` and `TextData`.

    python examples/train_lm.py fit --config examples/train_lm.yaml
    python examples/train_lm.py fit --config examples/train_lm.yaml --model.config.pattern 'ME*E/*E'

The text is the Python standard library's source, which is on every machine; `--data.sources` takes
other files and folders. A run that was stopped goes on with
`--ckpt_path runs/lm/checkpoints/last.ckpt`. Several processes share the work with

    --trainer.strategy ModelParallelStrategy --trainer.strategy.data_parallel_size 2
    --trainer.strategy.tensor_parallel_size 1 --trainer.devices 2

At the end the model is written in Hugging Face's
layout, with its tokenizer, to runs/lm/model, and says how it would go on from `--prompt`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nemotron_blocks import HybridLM
from nemotron_blocks.lightning import HybridModule, TextData, vocab_size_of
from nemotron_blocks.tokenizer import BPETokenizer
from sparsetorch.resumable.cli.lightning import ResumableCLI


class LanguageCLI(ResumableCLI):
    """Gives the model the tokenizer's vocabulary, and writes it once it is trained."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        """The vocabulary, and what the trained model is to go on from."""
        parser.link_arguments(
            ("data.tokenizer", "data.vocab_size"), "model.config.vocab_size", vocab_size_of
        )
        parser.add_argument("--prompt", type=str, default="def ", help="the model goes on from it")

    def after_fit(self) -> None:
        """Write the model, and let it speak."""
        folder = Path(self.trainer.default_root_dir) / "model"
        self.model.model.save_pretrained(folder)  # by all processes: the first one writes
        if not self.trainer.is_global_zero:
            return
        model, tokenizer = HybridLM.from_pretrained(folder).eval(), self.datamodule.tokenizer()
        if isinstance(tokenizer, BPETokenizer):
            tokenizer.save(folder / "tokenizer.json")
        print(f"wrote {folder}")
        prompt = self.config["fit"]["prompt"]
        generator = torch.Generator().manual_seed(0)
        said = model.generate(
            [tokenizer.encode(prompt)],
            200,
            temperature=0.8,
            top_p=0.95,
            stop=[tokenizer.special("<end>")],
            generator=generator,
        )
        print(prompt + tokenizer.decode(said.tokens[0].tolist()))


def main() -> None:
    """Run the command line."""
    LanguageCLI(HybridModule, TextData, seed_everything_default=0)


if __name__ == "__main__":
    main()
