"""Train a matcher of devices on logs, by Lightning's command line.

    python examples/train_matcher.py fit --config examples/train_matcher.yaml --data.path xdt.npz

A killed run goes on with `--ckpt_path runs/matcher/checkpoints/last.ckpt`; options are listed by
`fit --help`. `examples/evaluate_matcher.py` applies the checkpoint to logs of other people.

HGNN: Taghibakhshi et al., DaWaK 2023 (arXiv:2304.03215); TGCE: Huang et al., CIKM 2021. What
differs is said in graphnets/hgnn.py, graphnets/tgce.py and graphnets/matching/matcher.py.
"""

from __future__ import annotations

from typing import Any

from graphnets.matching.lightning import PairMatcher
from graphnets.matching.training.lightning import LogsDataModule
from sparsetorch.resumable.cli.lightning import ResumableCLI


class MatcherCLI(ResumableCLI):
    """LightningCLI whose network takes what the data module finds."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Both have one width of tokens' vectors."""
        parser.link_arguments("data.vectors", "model.vectors")


def main() -> None:
    """Run the command line."""
    MatcherCLI(PairMatcher, LogsDataModule, seed_everything_default=0)


if __name__ == "__main__":
    main()
