"""Tables and the plot of benchmarks/paper_protocol.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ddm.published.weights import Trained
from ddm.table import Table

COLUMNS = (
    "unknowns",
    "subdomains",
    "method",
    "stationary",
    "spread",
    "of RAS",
    "FGMRES",
    "FGMRES spread",
    "FGMRES of RAS",
    "converged",
)


def method_table(grids: Sequence[dict[str, Any]]) -> Table:
    """Mean and spread over grids, and over seeds, of each method at each size.

    Means are of the runs that converged; the ratio to RAS is of the means, where all did.

    Args:
        grids: nodes, unknowns, subdomains and counts, by method or method/seed, of each grid.
    """
    table = Table(COLUMNS)
    for nodes in dict.fromkeys(grid["nodes"] for grid in grids):
        here = [grid for grid in grids if grid["nodes"] == nodes]
        results: dict[str, list[list[int | None]]] = {}
        for grid in here:
            for name, pair in grid["counts"].items():
                results.setdefault(name.split("/")[0], []).append(pair)
        ras = results["RAS"]
        for name, pairs in results.items():
            stationary, of_ras = _summary(pairs, ras, 0)
            krylov, krylov_of_ras = _summary(pairs, ras, 1)
            table.add(
                unknowns=round(np.mean([grid["unknowns"] for grid in here])),
                subdomains=round(np.mean([grid["subdomains"] for grid in here])),
                method=name,
                stationary=_mean(stationary),
                spread=_spread(stationary),
                FGMRES=_mean(krylov),
                converged=f"{len(stationary)}/{len(pairs)}",
                **{
                    "of RAS": of_ras,
                    "FGMRES spread": _spread(krylov),
                    "FGMRES of RAS": krylov_of_ras,
                },
            )
    return table


def _summary(
    pairs: list[list[int | None]], ras: list[list[int | None]], which: int
) -> tuple[list[int], float | None]:
    counts = [pair[which] for pair in pairs if pair[which] is not None]
    baseline = [pair[which] for pair in ras if pair[which] is not None]
    complete = len(counts) == len(pairs) and len(baseline) == len(ras)
    ratio = float(np.mean(counts) / np.mean(baseline)) if complete else None  # type: ignore[arg-type]
    return counts, ratio  # type: ignore[return-value]


def _mean(counts: list[int]) -> float | None:
    return float(np.mean(counts)) if counts else None


def _spread(counts: list[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if counts else ""


def overview(table: Table) -> str:
    """Stationary iterations, and in brackets their ratio to RAS's: a row a method, by size."""
    sizes = list(dict.fromkeys(row["unknowns"] for row in table.rows))
    wide = Table(["stationary iterations to 1e-12", *map(str, sizes)])
    for method in dict.fromkeys(row["method"] for row in table.rows):
        cells = {row["unknowns"]: _cell(row) for row in table.rows if row["method"] == method}
        columns: dict[str, Any] = {str(n): cells[n] for n in sizes}
        wide.add(**{"stationary iterations to 1e-12": method, **columns})
    return wide.to_markdown()


def _cell(row: dict[str, Any]) -> str:
    if row["stationary"] is None:
        return "none converged"
    if row["of RAS"] is None:
        return f"{row['stationary']:.3g} ({row['converged']} converged)"
    return f"{row['stationary']:.3g} ({row['of RAS']:.2f})"


def training_table(nets: dict[str, list[Trained]]) -> Table:
    """Seeds, losses of the first and the best pass, and minutes of each training."""
    table = Table(("method", "seed", "passes", "grids", "first loss", "best loss", "minutes"))
    for name, trained in nets.items():
        for seed, (_, record) in enumerate(trained):
            losses = record["losses"]
            table.add(
                method=name,
                seed=seed,
                passes=len(losses),
                grids=record["data"]["count"],
                minutes=float(record["minutes"]),
                **{"first loss": float(losses[0]), "best loss": float(min(losses))},
            )
    return table


def plot(table: Table, path: Path) -> None:
    """Stationary and FGMRES iterations by number of unknowns, both axes logarithmic."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for ax, which in zip(axes, ("stationary", "FGMRES")):
        for method in dict.fromkeys(row["method"] for row in table.rows):
            rows = [row for row in table.rows if row["method"] == method and row[which]]
            sizes = [row["unknowns"] for row in rows]
            ax.plot(sizes, [row[which] for row in rows], marker="o", label=method)
        ax.set(xscale="log", yscale="log", xlabel="unknowns", ylabel=f"{which} iterations to 1e-12")
        ax.grid(True, which="both", alpha=0.3)
    axes[0].legend(fontsize=8)
    partial = path.with_name(f"partial-{path.name}")
    figure.savefig(partial, dpi=150)
    plt.close(figure)
    partial.replace(path)
