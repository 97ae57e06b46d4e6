"""The comparison of the MG-GNN paper: iterations by size of RAS, ORAS, MG-GNN and Graph U-Net.

    python benchmarks/paper_protocol.py --out DIR [--config full|hour|changed|short] [--seeds 3]

Trains what the configuration names (benchmarks/paper_protocol.yaml), each with every seed, then
counts iterations to 1e-12 on grids that training has not seen: of the stationary method until every
error of some random ones has fallen so far in the 2-norm, and of FGMRES. Writes table.md,
table.csv, training.csv and iterations.png to DIR. A run that was interrupted goes on where it
stopped: networks, grids and counts that are in DIR are not made again.

Taghibakhshi et al., ICML 2023 (arXiv:2301.11378), section 5; docs/paper_protocol.md says what
differs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from paper_tables import method_table, overview, plot, training_table
from resumable import write_whole

from ddm.published import GridDataset, GridRecipe, PublishedSetup
from ddm.published.counts import fgmres_iterations, stationary_iterations
from ddm.published.lightning import fit
from ddm.published.weights import Trained, load_network
from ddm.rates import best_theta
from ddm.schwarz import Schwarz

Method = Callable[[PublishedSetup], Schwarz | None]
CONFIGURATIONS = Path(__file__).with_suffix(".yaml")


def read_configuration(name: str, path: Path = CONFIGURATIONS) -> dict[str, Any]:
    """A configuration of the file, with the whole training of each of its models.

    Raises:
        ValueError: there is none of that name.
    """
    file = yaml.safe_load(path.read_text())
    if name not in file["configurations"]:
        raise ValueError(f"--config: expected one of {list(file['configurations'])}, got {name!r}")
    configuration = file["configurations"][name]
    base = configuration.pop("training")
    names = configuration["models"]
    configuration["models"] = {model: merged(base, file["models"][model]) for model in names}
    return configuration


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with some entries changed."""
    result = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict)
        result[key] = merged(result.get(key, {}), value) if nested else value
    return result


def keep_configuration(out: Path, configuration: dict[str, Any]) -> None:
    """Write the configuration down, or check that it is the one that DIR was begun with."""
    path = out / "configuration.json"
    if path.exists() and json.loads(path.read_text()) != json.loads(json.dumps(configuration)):
        raise SystemExit(f"--out: {path} is another configuration; name another folder")
    write_whole(path, json.dumps(configuration, indent=2))


def train(
    out: Path, models: dict[str, dict[str, Any]], seeds: int, progress: bool
) -> dict[str, list[Trained]]:
    """Networks by model, one for each seed."""
    nets: dict[str, list[Trained]] = {name: [] for name in models}
    for seed in range(seeds):
        for name, options in models.items():
            folder = out / "training" / f"{slug(name)}-seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            data = {"folder": str(out / "grids"), **options.get("data", {})}
            path = fit(
                folder,
                **{**options, "data": data, "seed": seed},
                enable_progress_bar=progress,
                enable_model_summary=False,
            )
            nets[name].append(load_network(path))
            losses = nets[name][-1].record["losses"]
            print(f"{name}, seed {seed}: losses {[round(x, 4) for x in losses]}", flush=True)
    return nets


def slug(name: str) -> str:
    """A name for a folder."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def methods(nets: dict[str, list[Trained]]) -> dict[str, Method]:
    """What makes each method of a setup, by its name; a network's has its seed after a slash."""
    made: dict[str, Method] = {
        "RAS": lambda setup: setup.classical(),
        "ORAS, best weight": lambda setup: setup.classical(searched_weight(setup)),
        "ORAS 0.5, smoothed": lambda setup: setup.classical(0.5, smoothing=1),
    }
    for name, trained in nets.items():
        for seed, one in enumerate(trained):
            made[f"{name}/{seed}"] = partial(learned, one)
    return made


def searched_weight(setup: PublishedSetup) -> float:
    """The constant Robin weight that needs the fewest iterations on this very matrix."""
    return best_theta(setup.A, setup.decomposition, setup.P0, local=setup.local)


@torch.no_grad()
def learned(trained: Trained, setup: PublishedSetup) -> Schwarz | None:
    """A network's method; None if it is singular."""
    try:
        data = trained.record["data"]
        setup = replace(setup, pattern=data["pattern"], bounded=data["bounded"])
        return setup.learned(trained.net)
    except ValueError:
        return None


def count(
    out: Path, nets: dict[str, list[Trained]], nodes: int, index: int, grids: int, vectors: int
) -> dict[str, Any]:
    """Counts of all methods on one grid, from its file as far as they are there."""
    path = out / "counts" / f"{nodes}-{index}.json"
    path.parent.mkdir(exist_ok=True)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"counts": {}}
    setup, makers = None, methods(nets)
    for name, make in makers.items():
        if name in found["counts"]:
            continue
        if setup is None:
            dataset = GridDataset(GridRecipe.test(nodes, grids), out / "grids")
            setup = PublishedSetup.of(dataset.grid(index))
            found["unknowns"] = setup.A.shape[0]
            found["subdomains"] = setup.decomposition.n_subdomains
        started = time.perf_counter()
        method = make(setup)
        found["counts"][name] = (
            [None, None]
            if method is None
            else [stationary_iterations(method, vectors=vectors), fgmres_iterations(method)]
        )
        found.setdefault("seconds", {})[name] = time.perf_counter() - started
        write_whole(path, json.dumps(found))
    return found | {"counts": {name: found["counts"][name] for name in makers}}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="full")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-progress", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    configuration = read_configuration(args.config)
    keep_configuration(args.out, configuration)
    nets = train(args.out, configuration["models"], args.seeds, not args.no_progress)
    test = configuration["test"]
    found = []
    for nodes in test["nodes"]:
        for index in range(test["grids"]):
            grid = count(args.out, nets, nodes, index, test["grids"], test["vectors"])
            found.append(grid | {"nodes": nodes})
        print(f"counted {test['grids']} grids of {nodes} nodes", flush=True)
    table, training = method_table(found), training_table(nets)
    header = (
        f"Configuration `{args.config}` of benchmarks/paper_protocol.yaml, {args.seeds} seed(s), "
        f"{test['grids']} grids a size, {test['vectors']} random errors; {processor()}, "
        f"{args.threads} thread(s), torch {torch.__version__}; counting took "
        f"{sum(sum(grid['seconds'].values()) for grid in found) / 60:.1f} minutes.\n\n"
    )
    parts = [header + overview(table), table.to_markdown(), training.to_markdown()]
    write_whole(args.out / "table.md", "\n".join(parts))
    table.to_csv(args.out / "table.csv")
    training.to_csv(args.out / "training.csv")
    plot(table, args.out / "iterations.png")
    print((args.out / "table.md").read_text())


def processor() -> str:
    """The name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
