"""Pictures of a matcher's results: curves, what each stage loses, and the times of two devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphnets.extras import extra
from graphnets.matching.explain import Evidence
from graphnets.matching.logs import DAY, HOUR, Logs
from graphnets.matching.metrics import average_precision, precision_recall
from graphnets.matching.pairs import check_pair
from graphnets.matching.tokens import Vocabulary
from graphnets.matching.vocabulary import steps_of

FEW = 5  # curves that leave room for a legend among them


def figure(width: float = 5.0, height: float = 3.4, rows: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure and its axes, one above another.

    Raises:
        ImportError: matplotlib is not installed.
    """
    plt = extra("matplotlib.pyplot")
    return plt.subplots(rows, 1, figsize=(width, height), layout="constrained", sharex=rows > 1)


def plot_precision_recall(
    scored: Mapping[str, tuple[Tensor, Tensor]], missed: int = 0, title: str = ""
) -> Any:
    """Precision over recall of several matchers; a matplotlib figure.

    Args:
        scored: scores and labels of pairs by a matcher's name.
        missed: true pairs without a score.
        title: above the axes.
    """
    many = len(scored) > FEW
    made, axes = figure(8.0, 4.0) if many else figure()
    if many:
        axes.set_prop_cycle(color=extra("matplotlib.pyplot").get_cmap("tab20").colors)
    for name, (scores, labels) in scored.items():
        curve = precision_recall(scores, labels, missed)
        label = f"{name} ({average_precision(scores, labels, missed):.2f})"
        axes.step(curve.recall, curve.precision, where="pre", label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=title)
    beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.02)} if many else {}
    axes.legend(frameon=False, title="average precision in brackets", **beside)
    return made


def plot_stages(stages: Mapping[str, float]) -> Any:
    """Which share of the true pairs is left after each stage, from all of them; a figure."""
    made, axes = figure(5.0, 0.6 + 0.4 * len(stages))
    names = list(stages)[::-1]
    axes.barh(names, [stages[name] for name in names], color="tab:blue")
    for place, name in enumerate(names):
        axes.text(stages[name] + 0.01, place, f"{stages[name]:.2f}", va="center")
    axes.set(xlim=(0, 1.1), xlabel="share of true pairs left")
    return made


def plot_timeline(
    logs: Logs, pair: tuple[int, int], known: Vocabulary, evidence: Sequence[Evidence] = ()
) -> Any:
    """When two devices were used, day by day and hour by hour, and when what they share; a figure.

    Args:
        logs: of the devices.
        pair: their numbers.
        known: the vocabulary of the evidence.
        evidence: what `why_linked` found; each in a colour of its own.

    Raises:
        ValueError: they are not two devices that exist.
    """
    check_pair(pair, len(logs))
    made, axes = figure(8.0, 4.6, rows=2)
    for axis, device in zip(axes, pair):
        start, stop = int(logs.page.ptr[device]), int(logs.page.ptr[device + 1])
        days, hours = _clock(logs.time[start:stop])
        axis.plot(days, hours, ".", color="lightgrey", markersize=3)
        for number, item in enumerate(evidence):
            where = _visits_with(logs, known, item.token)
            own = where[(where >= start) & (where < stop)] - start
            axis.plot(
                days[own], hours[own], "o", color=f"C{number}", markersize=4, label=item.name[:48]
            )
        axis.set(ylim=(0, 24), yticks=range(0, 25, 6), ylabel=f"{logs.names[device]}\nhour (UTC)")
    axes[1].set_xlabel("day")
    axes[1].xaxis.axis_date()
    made.autofmt_xdate()
    if evidence:
        handles, labels = axes[0].get_legend_handles_labels()
        made.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=7)
    return made


def _clock(time: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Days since 1970 and hours of the day of times in milliseconds."""
    return (time // DAY).numpy().astype("datetime64[D]"), (time % DAY).double().numpy() / HOUR


def _visits_with(logs: Logs, known: Vocabulary, token: int) -> Tensor:
    """The visits to a page with this token, or at the end of this step."""
    kind = int(known.kinds[token])
    if kind > known.n_levels:
        visits, steps = steps_of(logs, kind - known.n_levels - 1)
        return visits[steps == known.ids[token]]
    pages = known.tokens.row[known.tokens.values == token]
    return torch.isin(logs.page.values, pages).nonzero()[:, 0]
