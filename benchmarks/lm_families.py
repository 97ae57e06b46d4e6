"""Four small language models trained on the same tokens, and what decoding costs them by length.

    python benchmarks/lm_families.py [--steps 600] [--threads 2] [--out runs/lm_families]

A hybrid, one with experts, one with latent experts and tokens ahead, and the hybrid's twin, which
has attention in the place of every Mamba-2 block and wider MLPs, for as many parameters. Each is
trained by examples/train_lm.py on the source of the Python standard library: same tokens, order,
schedule and number of steps. Then each decodes behind contexts of several lengths; keys and values
of a context are random numbers there, which cost the same time as a prompt's.

Writes OUT/families.csv and .md, OUT/families.png, and each model with its losses under OUT. A run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from resumable import append_row, kept_rows, machine, write_whole
from side_by_side import times

from nemotron_blocks import HybridLM, plan
from nemotron_blocks.cache import Cache, KeyValues
from nemotron_blocks.tokenizer import BPETokenizer

ROOT = Path(__file__).resolve().parent.parent
FAMILIES: dict[str, dict[str, Any]] = {
    "hybrid": {"pattern": "M-M-M*-M-M-M-"},
    "experts": {
        "pattern": "MEMEM*EMEMEME", "n_experts": 16, "top_k": 4, "d_expert": 64, "d_shared": 256,
    },
    "latent experts, tokens ahead": {
        "pattern": "MEMEM*EMEMEME/*E/*E", "n_experts": 32, "top_k": 4, "d_expert": 128,
        "d_shared": 256, "d_latent": 64,
    },
    "attention": {"pattern": "*-*-**-*-*-*-", "d_ff": 1296},
}  # fmt: skip
CONTEXTS = (1024, 4096, 16_384, 65_536)
DECODED = 8  # tokens of one timing
COLUMNS = ("family", "steps", "parameters", "active", "loss", "tokens_per_s", "per_pass")
DECODING = ("family", "context", "tokens_per_s", "cache_bytes")


@dataclass(frozen=True)
class Training:
    """How all families are trained.

    Attributes:
        steps: of the optimizer.
        threads: of torch.
        options: more options of examples/train_lm.py.
    """

    steps: int
    threads: int
    options: Sequence[str] = ()


def trained(family: str, folder: Path, training: Training) -> Path:
    """Train one family in a folder of its own, from its last checkpoint on; its model's folder."""
    home = folder / family.replace(", ", "-").replace(" ", "-")
    model = home / "runs" / "lm" / "model"
    if model.exists():
        return model
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "examples" / "train_lm.py"), "fit"]
    command += ["--config", str(ROOT / "examples" / "train_lm.yaml")]
    for name, value in FAMILIES[family].items():
        command += [f"--model.config.{name}", str(value)]
    command += ["--data.cache", str((folder / "tokens").resolve())]
    command += ["--trainer.max_steps", str(training.steps)]
    command += ["--trainer.val_check_interval", str(max(training.steps // 10, 1))]
    command += training.options
    last = home / "runs" / "lm" / "checkpoints" / "last.ckpt"
    if last.exists():
        command += ["--ckpt_path", str(last.relative_to(home))]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(training.threads)}
    subprocess.run(command, cwd=home, env=os.environ | environment, check=True)
    return model


def logged(model: Path) -> dict[str, list[tuple[int, float]]]:
    """What training has logged, by name: (step, value); later runs replace what they repeat."""
    found: dict[str, dict[int, float]] = {}
    files = model.parent.glob("csv/version_*/metrics.csv")
    for path in sorted(files, key=lambda p: int(p.parent.name.rpartition("_")[2])):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value:
                        found.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(values.items()) for name, values in found.items()}


def filled(model: HybridLM, context: int) -> Cache:
    """A cache as behind so many tokens: states of some real ones, keys and values at random."""
    cache = model.cache(1, context + 64 * DECODED)
    model(torch.randint(model.config.vocab_size, (1, min(512, context))), cache=cache)
    for layer in cache.layers:
        if isinstance(layer, KeyValues):
            layer.keys[:, :, :context].normal_()
            layer.values[:, :, :context].normal_()
    cache.length = context
    return cache


def decode(model: HybridLM, cache: Cache) -> None:
    """A few tokens, greedily; the cache is then as before but for the states."""
    length, token = cache.length, torch.zeros(1, 1, dtype=torch.int64)
    for _ in range(DECODED):
        token = model(token, cache=cache).argmax(-1)
    cache.length = length


@torch.no_grad()
def decoding(models: Mapping[str, HybridLM], context: int, repeats: int) -> list[dict[str, Any]]:
    """Tokens a second and bytes of the cache of each model behind a context, timed in turns."""
    caches = {name: filled(model, context) for name, model in models.items()}
    calls = {name: partial(decode, model, caches[name]) for name, model in models.items()}
    seconds = times(calls, repeats)
    return [
        {
            "family": name,
            "context": context,
            "tokens_per_s": round(DECODED / statistics.median(seconds[name]), 1),
            "cache_bytes": models[name].cache(1, context).nbytes(),
        }
        for name in models
    ]


def per_pass(model: HybridLM, folder: Path) -> float | None:
    """Tokens that a speculative pass brings, of a prompt of the kind that it was trained on."""
    if model.mtp is None:
        return None
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    prompts = [tokenizer.encode(text) for text in ("def ", "import os\n\n\nclass ", "    return ")]
    found = [model.generate([p], 64, speculative=True).per_pass for p in prompts]
    return round(statistics.mean(found), 2)


def trainings(folder: Path, training: Training) -> dict[str, Path]:
    """Train what is not yet trained; the models' folders, and a row for each in families.csv."""
    path = folder / "families.csv"
    kept, found = kept_rows(path, COLUMNS, ("family", "steps")), {}
    for family in FAMILIES:
        found[family] = trained(family, folder, training)
        if (family, str(training.steps)) in kept:
            continue
        model, metrics = HybridLM.from_pretrained(found[family]), logged(found[family])
        weights = plan(model.config)
        row = {
            "family": family,
            "steps": training.steps,
            "parameters": weights.parameters,
            "active": weights.active,
            "loss": round(metrics["val/loss"][-1][1], 3),
            "tokens_per_s": round(statistics.median(v for _, v in metrics["train/tokens_per_s"])),
            "per_pass": per_pass(model, found[family]),
        }
        append_row(path, COLUMNS, row)
    return found


def decodings(folders: Mapping[str, Path], out: Path, repeats: int) -> list[dict[str, Any]]:
    """Rows of all contexts; those that were written before are kept."""
    path = out / "decoding.csv"
    models = {name: HybridLM.from_pretrained(folder).eval() for name, folder in folders.items()}
    for context in CONTEXTS:
        kept = kept_rows(path, DECODING, ("family", "context"))
        if any((name, str(context)) not in kept for name in models):
            for row in decoding(models, context, repeats):
                append_row(path, DECODING, row)
    kept = kept_rows(path, DECODING, ("family", "context"))
    return [kept[name, str(context)] for name in models for context in CONTEXTS]


def report(out: Path, folders: Mapping[str, Path], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table: what each family learned, and what it costs."""
    families = kept_rows(out / "families.csv", COLUMNS, ("family",))
    columns = ["family", "parameters", "active", "steps", "loss", "trained, tokens/s"]
    for context in CONTEXTS:
        columns += [f"{context // 1024} k: tokens/s", "cache, MB"]
    lines = []
    for family in folders:
        row = families[family,]
        cells = [family, *(f"{int(row[n]) / 1e6:.2f} M" for n in ("parameters", "active"))]
        cells += [row["steps"], row["loss"], row["tokens_per_s"]]
        for own in (r for r in rows if r["family"] == family):
            cells += [own["tokens_per_s"], f"{int(own['cache_bytes']) / 1e6:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*head, *lines]) + f"\n\n({machine()})\n"


def plot(out: Path, folders: Mapping[str, Path], rows: Sequence[Mapping[str, Any]]) -> None:
    """Loss by steps, decoding and cache by context."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for family, folder in folders.items():
        metrics = logged(folder)
        (line,) = left.plot(*zip(*metrics["train/next"]), label=family, linewidth=1)
        left.plot(*zip(*metrics["val/loss"]), "o", color=line.get_color(), markersize=4)
        own = [row for row in rows if row["family"] == family]
        contexts = [int(row["context"]) for row in own]
        middle.plot(contexts, [float(row["tokens_per_s"]) for row in own], "o-", markersize=3)
        right.plot(contexts, [int(r["cache_bytes"]) / 1e6 for r in own], "o-", markersize=3)
    left.set(xlabel="steps", ylabel="loss, nats (dots: validation)")
    middle.set(xlabel="context, tokens", ylabel="decoded, tokens/s", xscale="log", yscale="log")
    right.set(xlabel="context, tokens", ylabel="cache, MB", xscale="log", yscale="log")
    left.legend(fontsize=7)
    for axes in (middle, right):
        axes.set_xticks(CONTEXTS, [f"{c // 1024} k" for c in CONTEXTS])
        axes.minorticks_off()
    figure.savefig(out / "families.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9, help="of the timings")
    parser.add_argument("--out", type=Path, default=Path("runs/lm_families"))
    args, options = parser.parse_known_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    folders = trainings(args.out, Training(args.steps, args.threads, options))
    rows = decodings(folders, args.out, args.repeats)
    text = report(args.out, folders, rows)
    print(text)
    write_whole(args.out / "families.md", text)
    plot(args.out, folders, rows)


if __name__ == "__main__":
    main()
