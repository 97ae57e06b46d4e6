"""Node and graph classification with the layers of sparsetorch and of PyG, side by side.

    python benchmarks/graph_benchmarks.py --task node --data ../shared/data --seeds 10
    python benchmarks/graph_benchmarks.py --task graph --data ../shared/data --quick

Both train the same network from the same weights with the same dropout, on the same batches: only
the layers, the batching and the readout are a library's own. Nodes: the public split of Cora and
CiteSeer, and the ten splits of the heterophilous sets, one a seed. Graphs: ten stratified folds, of
which a seed tests one, validates on the next and trains on the others. Scored is the epoch that
validates best; the score is accuracy, the area under the ROC curve for minesweeper and tolokers.

DATA holds the folders planetoid/Cora/raw, planetoid/CiteSeer/raw, heterophilous and tu. Writes
OUT.csv, a row for each training, OUT_costs.csv and OUT.md. A run that was stopped goes on where it
was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graph_costs import costs
from graph_networks import CSR, EDGES, MODELS, OURS, contenders
from graph_training import BY_AREA, GRAPH_SETS, NODE_SETS, run
from resumable import kept_rows, machine, write_whole
from tqdm import tqdm

from ddm.table import Table

SETTINGS = ("set", "model", "library", "seed", "epochs")
COLUMNS = (*SETTINGS, "validation", "test", "epoch")
COST_SETTINGS = ("set", "model", "library")
COST_COLUMNS = (*COST_SETTINGS, "ms", "MB")


def trainers(model: str) -> tuple[str, str]:
    """Who trains: of PyG's two ways, which compute the same, the faster one."""
    return OURS, CSR if CSR in contenders(model) else EDGES


def run_all(args: argparse.Namespace) -> Table:
    """Train what the CSV lacks, keeping it up to date; returned are all of its rows."""
    path = args.out.with_suffix(".csv")
    done, table = kept_rows(path, COLUMNS, SETTINGS), Table(COLUMNS)
    for row in done.values():
        table.add(**row)
    cases = [
        (name, model, who, seed)
        for seed in range(args.seeds)  # a run that is stopped has something of every set
        for name in args.sets
        for model in args.models
        for who in trainers(model)
        if who == OURS or seed < args.peer_seeds
    ]
    for name, model, who, seed in tqdm(cases, unit="training"):
        key = (name, model, who, str(seed), str(args.epochs or ""))
        if key not in done:
            found = run(who, model, name, args.data, seed, args.epochs)
            table.add(**dict(zip(SETTINGS, key)), **found)
            table.to_csv(path)
    return table


def cost_all(args: argparse.Namespace) -> Table:
    """Time what the CSV lacks, keeping it up to date; returned are all of its rows."""
    path = args.out.with_name(args.out.name + "_costs.csv")
    done, table = kept_rows(path, COST_COLUMNS, COST_SETTINGS), Table(COST_COLUMNS)
    for row in done.values():
        table.add(**row)
    for name in args.sets:
        for model in args.models:
            if any((name, model, who) not in done for who in contenders(model)):
                for row in costs(model, name, args.data, args.repeats, not args.quick):
                    table.add(**row)
                table.to_csv(path)
    return table


def summary(scores: Table, costs: Table) -> Table:
    """By set and model: mean and deviation of the scores, and costs as multiples of ours."""
    titles = ("set", "model", OURS, "PyG", "largest difference")
    found = Table(
        [*titles, "epoch, ms", "PyG, times", "torch.sparse, times", "MB", "PyG MB, times"]
    )
    timed = dict.fromkeys((row["set"], row["model"]) for row in costs.rows)
    for name, model in timed:
        ours, peers = (scores_of(scores, (name, model, who)) for who in trainers(model))
        pairs = [100 * (ours[seed] - peers[seed]) for seed in ours if seed in peers]
        cost = {row["library"]: row for row in costs.rows if key(row)[:2] == (name, model)}
        ms = {who: float(row["ms"]) for who, row in cost.items()}
        mb = {who: float(row["MB"]) for who, row in cost.items() if row["MB"]}
        found.add(
            **{"set": name, "model": model},
            **{OURS: spread(ours), "PyG": spread(peers)},
            **{"largest difference": max(map(abs, pairs), default=None)},
            **{"epoch, ms": ms[OURS], "PyG, times": ms[EDGES] / ms[OURS]},
            **{"torch.sparse, times": ms[CSR] / ms[OURS] if CSR in ms else None},
            **{"MB": mb.get(OURS), "PyG MB, times": mb[EDGES] / mb[OURS] if mb else None},
        )
    return found


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["set"], row["model"], row["library"]


def scores_of(table: Table, which: tuple[str, str, str]) -> dict[str, float]:
    """The test score by seed."""
    return {row["seed"]: float(row["test"]) for row in table.rows if key(row) == which}


def spread(scores: dict[str, float]) -> str:
    """Mean ± standard deviation of the seeds, in %, and how many there are."""
    percent = 100 * np.array(list(scores.values()))
    deviation = f" ± {percent.std(ddof=1):.1f}" if len(percent) > 1 else ""
    return f"{percent.mean():.1f}{deviation} ({len(percent)})" if len(percent) else "-"


def report(scores: Table, costs: Table, args: argparse.Namespace) -> str:
    areas = ", ".join(name for name in args.sets if name in BY_AREA)
    lines = [
        f"# {args.task.capitalize()} classification",
        machine(),
        f"`python benchmarks/graph_benchmarks.py --task {args.task} --seeds {args.seeds}`: "
        f"test accuracy in %{f' (ROC AUC for {areas})' if areas else ''}, mean ± standard "
        "deviation (seeds); the largest difference is that of one seed. Times are medians of "
        "the processor time of epochs that take turns; PyG's are multiples of ours, by edge lists "
        "and by torch.sparse's CSR. MB is what the peak of a training process adds.",
        summary(scores, costs).to_markdown(),
    ]
    return "\n\n".join(lines)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=("node", "graph"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--peer-seeds", type=int, help="seeds that PyG trains too; all by default")
    parser.add_argument("--sets", nargs="+", choices=(*NODE_SETS, *GRAPH_SETS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--epochs", type=int, help="at most; those of each set by default")
    parser.add_argument("--repeats", type=int, default=10, help="epochs that are timed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="two seeds of one set, no memory")
    args = parser.parse_args(argv)
    sets = NODE_SETS if args.task == "node" else GRAPH_SETS
    if args.quick:
        args.seeds, args.epochs, args.repeats = 2, args.epochs or 3, 2
        args.sets = args.sets or list(sets[:1])
    args.sets = args.sets or list(sets)
    args.peer_seeds = args.seeds if args.peer_seeds is None else args.peer_seeds
    strange = [name for name in args.sets if name not in sets]
    if strange:
        parser.error(f"--sets: {strange[0]} is not for --task {args.task}; expected {sets}")
    if not args.data.is_dir():
        parser.error(f"--data: no folder {args.data}")
    args.out = args.out or Path(f"runs/{args.task}_classification")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = report(run_all(args), cost_all(args), args)
    print(text)
    write_whole(args.out.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
