"""What attention and Mamba-2 can remember: associative recall and a needle in a long text.

    python benchmarks/lm_recall.py [--task recall needle] [--seeds 3] [--out runs/lm_recall]

Both tasks are synthetic. In "recall" (S. Arora et al., Zoology, ICLR 2024, arXiv:2312.04927) some
pairs of a key and a value come one after another, then all keys in another order; the value of each
is asked for. It is run for growing numbers of pairs, with a small state. In "needle" one such pair
lies anywhere in a text of random other tokens, and its key comes last; models train on texts of 64
tokens and are asked in longer ones. Accuracy is the share of values that are said, on examples
drawn anew.

Models have two sequence mixers and as many MLPs: Mamba-2 alone, attention alone, and one of each.
None has positions. Writes OUT.csv, a row for each model, seed and size, OUT.md and OUT.png; rows
that an earlier run has written are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resumable import append_row, kept_rows, machine, markdown_table, write_whole
from torch import Tensor
from tqdm import tqdm

from nemotron_blocks import HybridConfig, HybridLM, next_token_loss
from nemotron_blocks.loss import IGNORED

MODELS = {"Mamba-2": "M-M-", "hybrid": "M-*-", "attention": "*-*-"}
SYMBOLS = 32  # keys, and as many values
FILLERS = 64  # of texts around a needle
COLUMNS = ("task", "model", "seed", "trained", "asked", "accuracy")

Batch = tuple[Tensor, Tensor]  # tokens and targets, (B, L)


def recall(pairs: int, batch: int, generator: torch.Generator) -> Batch:
    """Pairs in a row, then all their keys; the target behind each of those is its value."""
    keys = torch.rand(batch, SYMBOLS, generator=generator).argsort(1)[:, :pairs]
    values = torch.randint(SYMBOLS, (batch, pairs), generator=generator) + SYMBOLS
    order = torch.rand(batch, pairs, generator=generator).argsort(1)
    asked = keys.gather(1, order)
    tokens = torch.cat([torch.stack([keys, values], 2).flatten(1), asked], 1)
    targets = torch.full_like(tokens, IGNORED)
    targets[:, 2 * pairs :] = values.gather(1, order)
    return tokens, targets


def needle(length: int, batch: int, generator: torch.Generator) -> Batch:
    """A pair anywhere in a text of so many tokens, and its key as the last one."""
    tokens = 2 * SYMBOLS + torch.randint(FILLERS, (batch, length), generator=generator)
    key = torch.randint(SYMBOLS, (batch, 1), generator=generator)
    value = torch.randint(SYMBOLS, (batch, 1), generator=generator) + SYMBOLS
    place = torch.randint(length - 2, (batch, 1), generator=generator)
    tokens.scatter_(1, place, key).scatter_(1, place + 1, value)
    tokens[:, -1:] = key
    targets = torch.full_like(tokens, IGNORED)
    targets[:, -1:] = value
    return tokens, targets


TASKS: dict[str, Callable[[int, int, torch.Generator], Batch]] = {
    "recall": recall,
    "needle": needle,
}


@dataclass(frozen=True)
class Case:
    """One training, and the sizes that the model is asked at.

    Attributes:
        task: "recall" or "needle".
        model: of MODELS.
        seed: of weights and examples.
        trained: pairs, or tokens of a text, in training.
        asked: those of the examples that it is asked.
    """

    task: str
    model: str
    seed: int
    trained: int
    asked: tuple[int, ...]


def untrained(model: str) -> HybridLM:
    """A model with a small state: 2 heads of 32 x 8 numbers in each Mamba-2 block."""
    config = HybridConfig(
        MODELS[model], d_model=64, vocab_size=2 * SYMBOLS + FILLERS, n_heads=2, n_kv_heads=2,
        head_dim=32, d_ff=128, mamba_heads=2, mamba_head_dim=32, n_groups=1, d_state=8,
        chunk_size=64, init_std=0.1,
    )  # fmt: skip
    return HybridLM(config)


def trained(case: Case, steps: int, batch: int, lr: float) -> HybridLM:
    """A model that has seen so many batches."""
    torch.manual_seed(case.seed)
    generator = torch.Generator().manual_seed(case.seed)
    model = untrained(case.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for _ in tqdm(range(steps), desc=f"{case.task} {case.trained}, {case.model}", leave=False):
        tokens, targets = TASKS[case.task](case.trained, batch, generator)
        hidden = model.hidden(tokens).flatten(0, 1)
        counted = targets.flatten() != IGNORED
        loss = next_token_loss(hidden[counted], model.lm_head.weight, targets.flatten()[counted])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def accuracy(model: HybridLM, task: str, size: int, examples: int) -> float:
    """The share of values that the model says, of examples that no training has drawn."""
    generator = torch.Generator().manual_seed(1_000_003 + size)
    right = asked = 0
    batch = max(1, min(examples, 65_536 // size))
    for _ in range(-(-examples // batch)):
        tokens, targets = TASKS[task](size, batch, generator)
        counted = targets != IGNORED
        said = model.lm_head(model.hidden(tokens)[counted]).argmax(-1)
        right += int((said == targets[counted]).sum())
        asked += int(counted.sum())
    return right / asked


def cases(
    tasks: Sequence[str], seeds: int, pairs: Sequence[int], lengths: Sequence[int]
) -> Iterator[Case]:
    """All trainings, the first seed of all of them first."""
    for seed in range(seeds):
        for model in MODELS:
            if "recall" in tasks:
                yield from (Case("recall", model, seed, n, (n,)) for n in pairs)
            if "needle" in tasks:
                yield Case("needle", model, seed, lengths[0], tuple(lengths))


def run(
    todo: Sequence[Case], steps: int, batch: int, lr: float, path: Path
) -> list[dict[str, Any]]:
    """The rows of all cases."""
    settings = COLUMNS[:-1]
    kept = kept_rows(path, COLUMNS, settings)
    for case in tqdm(todo, unit="training"):
        rows: list[dict[str, Any]] = [
            dict(zip(COLUMNS, (case.task, case.model, case.seed, case.trained, size)))
            for size in case.asked
        ]
        keys = [tuple(str(row[name]) for name in settings) for row in rows]
        if all(key in kept for key in keys):
            continue
        model = trained(case, steps, batch, lr)
        for key, row in zip(keys, rows):
            row["accuracy"] = round(accuracy(model, case.task, row["asked"], 512), 4)
            if key not in kept:
                append_row(path, COLUMNS, row)
                kept[key] = row
    wanted = [(c.task, c.model, str(c.seed), str(c.trained), str(n)) for c in todo for n in c.asked]
    return [kept[key] for key in wanted]


def by_size(rows: Sequence[dict[str, Any]], task: str, model: str) -> dict[int, list[float]]:
    """Accuracies of all seeds."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if (row["task"], row["model"]) == (task, model):
            found.setdefault(int(row["asked"]), []).append(float(row["accuracy"]))
    return found


def table(rows: Sequence[dict[str, Any]], task: str) -> str:
    """Mean and range over seeds, a row for each model."""
    lines = []
    for model in MODELS:
        cells = {"model": model}
        for size, found in by_size(rows, task, model).items():
            cells[str(size)] = f"{np.mean(found):.2f} ({min(found):.2f}-{max(found):.2f})"
        lines.append(cells)
    what = {"recall": "pairs", "needle": "tokens of the text"}[task]
    return markdown_table(list(lines[0]), lines, f"{task}: accuracy by {what}; {machine()}")


def plot(rows: Sequence[dict[str, Any]], tasks: Sequence[str], path: Path) -> None:
    """Accuracy by size, a line for each model and a point for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, all_axes = plt.subplots(
        1, len(tasks), figsize=(4.2 * len(tasks), 3.2), layout="constrained", squeeze=False
    )
    labels = {"recall": "pairs", "needle": "tokens of the text"}
    for axes, task in zip(all_axes[0], tasks):
        for k, model in enumerate(MODELS):
            found = by_size(rows, task, model)
            means = [np.mean(values) for values in found.values()]
            axes.plot(list(found), means, f"C{k}-", label=model)
            for size, values in found.items():
                axes.plot(len(values) * [size], values, f"C{k}.", alpha=0.5)
        axes.set(xlabel=labels[task], ylabel="accuracy", xscale="log", ylim=(-0.03, 1.03))
        axes.set_xticks(list(found), [str(size) for size in found])
        axes.minorticks_off()
    all_axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--pairs", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--out", type=Path, default=Path("runs/lm_recall"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    todo = list(cases(args.task, args.seeds, args.pairs, args.lengths))
    rows = run(todo, args.steps, args.batch, args.lr, args.out.with_suffix(".csv"))
    text = "\n".join(table(rows, task) for task in args.task)
    print(text)
    write_whole(args.out.with_suffix(".md"), text)
    plot(rows, args.task, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
