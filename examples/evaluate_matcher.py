"""Apply a trained matcher to logs of people that it was not trained on, and say how well it does.

    python examples/evaluate_matcher.py --data xdt.npz --checkpoint matcher.ckpt --out metrics.json
        [--pairs auto|all|candidates] [--min-visits N] [--pictures FOLDER]

Nothing is trained. Tasks are those of `graphnets.matching.tasks`: whole logs of desktops and mobile
devices (A), weeks of logs (B), and of these the pairs of different kinds (B1). Written are, for
each, average precision, precision, recall and F1 at the checkpoint's threshold, and recall of the
candidates; the users that come of the candidates; pairs a second. With --pictures also
FOLDER/stages_A.png and so on: which share of the true pairs is left after each stage.

Ids in the data must mean what they mean in the file that the checkpoint was trained on: its hashes
of names, domains, paths and titles, made the same way. The checkpoint knows how rare each is there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from graphnets.matching.evaluation import ALL_PAIRS_UP_TO, Which, evaluate
from graphnets.matching.lightning import load_matcher
from graphnets.matching.plot import plot_stages
from graphnets.matching.xdt import load_xdt


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="an xdt.npz, see above")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of PairMatcher")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--pairs",
        default="auto",
        choices=get_args(Which),
        help="which to score; candidates: true pairs that are none are missed in every metric;\n"
        f"auto, the default: all pairs, if a task has at most {ALL_PAIRS_UP_TO:,}, which is said",
    )
    parser.add_argument(
        "--min-visits", type=int, help="of a week, for tasks B and B1; default: the checkpoint's"
    )
    parser.add_argument("--pictures", type=Path, help="folder of pictures to write")
    options = parser.parse_args(arguments)
    if not options.out.absolute().parent.is_dir():
        parser.error(f"--out: there is no folder {options.out.absolute().parent}")
    module, logs = load_matcher(options.checkpoint), load_xdt(options.data)
    found = evaluate(module, logs, options.min_visits, options.pairs)
    text = json.dumps(found, indent=1)
    partial = options.out.with_name(options.out.name + ".partial")
    partial.write_text(text + "\n")
    partial.replace(options.out)
    print(text)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for task, metrics in found.items():
            if "stages" in metrics:
                plot_stages(metrics["stages"]).savefig(options.pictures / f"stages_{task}.png")


if __name__ == "__main__":
    main()
