"""Seconds and memory from logs to scores, from 1,000 to 98,000 devices.

    python benchmarks/matching_scale.py [--devices 1000 10000 98000] [--matcher shared] [--out ...]

The logs are synthetic (`graphnets.matching.synthetic`), about 200 visits a device as in CIKM Cup
2016; candidates are the nearest by TF-IDF of each device. Every step is timed once: the vocabulary
(with the tokens' vectors, where a matcher takes them), candidates, encoding of each device and
scoring of each pair; the network is not trained, which does not change its cost. TGCE's code scores
31 pairs a second (its log of Huang et al., CIKM 2021).

Writes OUT.csv, a row for each matcher and size, OUT.md, and OUT.png: seconds a pair by size. A run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from resumable import append_row, kept_rows, machine, markdown_table, write_whole

from graphnets.matching.candidates import Candidates
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.neighbours import nearest
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.synthetic import synthetic_logs
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.vectors import token_vectors
from graphnets.matching.vocabulary import vocabulary

SIZES = (1_000, 3_000, 10_000, 30_000, 98_000)
NEAREST = 18
LEVELS = 4
MATCHERS: dict[str, dict[str, Any]] = {
    "shared": {"width": 0, "heads": ("shared",)},
    "cross": {"width": 32, "heads": ("cross",)},
    # "HGNN, cross-attention" of matching_synthetic.py, whose F1 docs/matching.md shows.
    "cross_and_pooled": {"width": 64, "heads": ("cross", "pooled"), "vectors": 64},
}
STEPS = ("vocabulary_s", "candidates_s", "encode_s", "score_s")
COLUMNS = (
    "matcher", "devices", "visits", "nodes", "pairs", *STEPS, "pairs_per_s", "ms_per_pair",
    "peak_gb",
)  # fmt: skip


def measured(matcher: str, devices: int) -> dict[str, Any]:
    """One row."""
    logs = synthetic_logs(devices, seed=0)
    seconds, started = {}, time.perf_counter()

    def lap(step: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[step], started = round(now - started, 4), now

    known = vocabulary(logs)
    width = MATCHERS[matcher].get("vectors", 0)
    vectors = token_vectors(logs, known, width) if width else None
    lap("vocabulary_s")
    tfidf = TfIdf(words=False, max_df=max(0.02, min(1.0, 60 / devices))).fit(logs).transform(logs)
    pairs = Candidates.from_neighbours({"TF-IDF": nearest(tfidf, NEAREST)}).pairs
    del tfidf
    lap("candidates_s")
    torch.manual_seed(0)
    network = HGNNMatcher(LEVELS, **MATCHERS[matcher]).eval()
    encoded = encode_devices(network, logs, known, vectors)
    lap("encode_s")
    scores = score_pairs(network, encoded, pairs)
    lap("score_s")
    assert bool(scores.isfinite().all())
    total = seconds["encode_s"] + seconds["score_s"]
    return {
        "matcher": matcher,
        "devices": devices,
        "visits": len(logs.time),
        "nodes": len(encoded.nodes.values),
        "pairs": len(pairs),
        **seconds,
        "pairs_per_s": round(len(pairs) / total),
        "ms_per_pair": round(1000 * total / len(pairs), 4),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def run(matchers: Sequence[str], sizes: Sequence[int], out: Path) -> list[dict[str, Any]]:
    """A row for each matcher and size, the smallest first, so that peaks are those of their own."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_suffix(".csv")
    kept = kept_rows(path, COLUMNS, ("matcher", "devices"))
    for size in sorted(sizes):
        for matcher in matchers:
            key = (matcher, str(size))
            if key not in kept:
                kept[key] = measured(matcher, size)
                append_row(path, COLUMNS, kept[key])
                print(kept[key], flush=True)
    rows = list(kept.values())
    write_whole(out.with_suffix(".md"), markdown_table(COLUMNS, rows, machine()))
    plot(rows, out.with_suffix(".png"))
    return rows


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Milliseconds a pair by the number of devices."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for matcher in dict.fromkeys(row["matcher"] for row in rows):
        own = [row for row in rows if row["matcher"] == matcher]
        own.sort(key=lambda row: int(row["devices"]))
        sizes = [int(row["devices"]) for row in own]
        axes.plot(sizes, [float(row["ms_per_pair"]) for row in own], "o-", label=matcher)
    axes.axhline(1000 / 31, color="grey", linestyle="--", label="TGCE's code")
    axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="ms a pair, encoding included")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--matcher", nargs="+", default=list(MATCHERS), choices=MATCHERS)
    parser.add_argument("--devices", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path("runs/matching_scale"))
    options = parser.parse_args(arguments)
    run(options.matcher, options.devices, options.out)
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
