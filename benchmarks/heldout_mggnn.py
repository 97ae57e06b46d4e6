"""MG-GNN against the best classical two-level methods on problems never trained on.

    python benchmarks/heldout_mggnn.py [--short] [--checkpoint FILE ...] [--out runs/heldout_mggnn]

Ten problems of each kind and size, whose seeds training does not use, in METIS subdomains of as
many unknowns as the network is for. "stationary" is iterations until two random errors have fallen
by 1e-12, "FGMRES" those until the residual of a random right-hand side has. RAS has one layer of
overlap and the plain coarse space; "start" is the classical method that the network corrects. "best
classical" is, for each very problem and for each of the two counts, what `ddm.best_classical` finds
at equal local work: Robin weights and the way they are set, overlaps, smoothing, and linear
functions in the coarse space are all searched. Less overlap has smaller and more subdomains then,
and a larger coarse problem; "best, same subdomains" has the network's. "best without linear" leaves
linear functions out. Of these, the best of all is also shown with slow errors of its own in the
coarse space (`ddm.enriched`, `--enrich`), as are the start and MG-GNN.

Of several checkpoints, trainings of one configuration with other seeds, the means and the range of
the runs are those of all of them, and "of best" has the range of the networks.

Writes OUT.csv, a row for each run, and OUT.md, mean and spread. A run that was stopped goes on
where it was: rows that are in the CSV are kept, those of a network as long as its weights are the
same.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resumable import FIRST_SEED, iterations, kept_rows, machine, mean_and_spread, write_whole
from tqdm import tqdm

from ddm.checkpoints import FOLDER
from ddm.choice import chosen_net
from ddm.classical import Classical
from ddm.enrichment import enriched
from ddm.learned import InterfaceNet
from ddm.problems import random_problem
from ddm.rates import iterations_to_reduce
from ddm.safeguard import safeguarded
from ddm.schwarz import Schwarz
from ddm.search import Objective, Search, best_classical, equal_work
from ddm.setup import Setup, set_up
from ddm.table import Table
from ddm.workbench import Workbench
from sparsetorch.linalg import fgmres

RTOL = 1e-12
KINDS = ("poisson", "diffusion", "anisotropic")
SETTINGS = ("kind", "size", "seed", "subdomain", "maxiter", "method", "network")
SIZES = ("subdomains", "coarse")
WANTED = ("stationary", "FGMRES")
COLUMNS = (*SETTINGS, "unknowns", *SIZES, "stationary", "FGMRES", "settings")
BEST = "best classical"

Counts = dict[str, Any]  # SIZES, stationary, FGMRES, settings


@dataclass(frozen=True)
class Case:
    """One problem and the settings of its runs.

    Attributes:
        kind: of `ddm.random_problem`.
        size: wanted number of unknowns.
        seed: of the problem.
        subdomain: unknowns that a subdomain owns.
        maxiter: of every iteration.
    """

    kind: str
    size: int
    seed: int
    subdomain: int
    maxiter: int

    def key(self, method: str, network: str) -> tuple[str, ...]:
        """What names a run's row in the CSV; classical methods do not ask for the network."""
        own = network if starts(method) in RIVALS else ""
        return tuple(str(value) for value in (*vars(self).values(), method, own))


def stationary(method: Schwarz, maxiter: int) -> int | None:
    """Iterations until random errors have fallen."""
    count = iterations_to_reduce(method, RTOL, maxiter=maxiter)
    return count if count < maxiter else None


def krylov(method: Schwarz, maxiter: int) -> int | None:
    """Iterations of FGMRES for a random right-hand side, the one that the search has."""
    generator = torch.Generator().manual_seed(0)
    b = method.A @ torch.randn(method.shape[0], dtype=method.A.dtype, generator=generator)
    return iterations(fgmres(method.A, b, preconditioner=method, rtol=RTOL, maxiter=maxiter))


def counted(method: Schwarz, maxiter: int, settings: str = "") -> Counts:
    """Both counts of a method."""
    alone, inside = stationary(method, maxiter), krylov(method, maxiter)
    return sizes(method) | {"stationary": alone, "FGMRES": inside, "settings": settings}


def sizes(method: Schwarz) -> Counts:
    """Numbers of subdomains and of coarse unknowns."""
    coarse = None if method.P is None else method.P.shape[1]
    return {"subdomains": method.decomposition.n_subdomains, "coarse": coarse}


def ras(bench: Workbench, net: InterfaceNet, maxiter: int) -> Counts:
    """Two-level RAS with one layer, the baseline of the paper, at equal local work."""
    size = equal_work(bench, (1,), reference_overlap=net.options["overlap"]).get(1)
    return counted(Classical(smoothing=0, subdomain=size)(bench), maxiter)


def setup_of(bench: Workbench, net: InterfaceNet) -> Setup:
    """What the network and its start share: subdomains of the reference size."""
    return set_up(bench.problem, bench.owner(bench.subdomain), **net.options)


def start(bench: Workbench, net: InterfaceNet, maxiter: int, enrich: int = 0) -> Counts:
    """The classical method that the network corrects, with its subdomains."""
    method = setup_of(bench, net).classical(net.theta)
    return counted(enriched(method, enrich) if enrich else method, maxiter)


@lru_cache(maxsize=6)  # of one problem: three spaces, two objectives
def searched(
    bench: Workbench,
    objective: Objective,
    reference_overlap: int,
    overlaps: tuple[int, ...],
    linear: bool,
    maxiter: int,
) -> Search:
    """The best classical method, for the rows that share it."""
    return best_classical(
        bench,
        objective=objective,
        reference_overlap=reference_overlap,
        overlaps=overlaps,
        linear=linear,
        rtol=RTOL,
        maxiter=maxiter,
    )


def best(
    bench: Workbench,
    net: InterfaceNet,
    maxiter: int,
    enrich: int = 0,
    same: bool = False,
    linear: bool = True,
) -> Counts:
    """The fewest stationary iterations, and the fewest of FGMRES, of all classical methods.

    `same` takes only those with the network's subdomains.
    """
    overlap = net.options["overlap"]
    overlaps = (overlap,) if same else (1, 2)
    alone, inside = (
        replace(searched(bench, what, overlap, overlaps, linear, maxiter).best, enrich=enrich)
        for what in ("stationary", "krylov")
    )
    method = alone(bench)
    return sizes(method) | {
        "stationary": stationary(method, maxiter),
        "FGMRES": krylov(inside(bench), maxiter),
        "settings": f"stationary: {alone}; FGMRES: {inside}",
    }


def mggnn(bench: Workbench, net: InterfaceNet, maxiter: int, enrich: int = 0) -> Counts:
    """The learned method, or its start where the safeguard refuses it."""
    unseen = chosen_net(bench.problem, net)[1]
    verdict = safeguarded(setup_of(bench, net), net, unseen=unseen, enrich=enrich)
    return counted(verdict.method, maxiter, str(verdict))


Way = Callable[..., Counts]  # of a workbench, a network, a limit, and what the function adds
METHODS: dict[str, Way] = {
    "RAS": ras,
    "start": start,
    BEST: best,
    "best, same subdomains": partial(best, same=True),
    "best without linear": partial(best, linear=False),
    "MG-GNN": mggnn,
}
RIVALS = ("start", "MG-GNN")
CLASSICAL = (BEST, "best, same subdomains", "best without linear")


def with_errors(name: str, count: int) -> str:
    """The name of a method with slow errors in its coarse space."""
    return f"{name}, {count} slow errors"


def methods(enrich: Sequence[int]) -> dict[str, Way]:
    """All methods, those with slow errors last."""
    wider = {
        with_errors(name, count): partial(METHODS[name], enrich=count)
        for count in enrich
        for name in ("start", BEST, "MG-GNN")
    }
    return METHODS | wider


def run_all(
    cases: Sequence[Case], nets: Mapping[str, InterfaceNet], enrich: Sequence[int], path: Path
) -> Table:
    """Run what the CSV lacks, keep it up to date after each problem, and return its table.

    Classical methods run once, with the options of the first network.
    """
    done = kept_rows(path, COLUMNS, SETTINGS)
    first, *others = nets
    ways = methods(enrich)
    learned = [name for name in ways if starts(name) == "MG-GNN"]
    runs = [(name, first) for name in ways]
    runs += [(name, network) for network in others for name in learned]
    for case in tqdm(cases, unit="problem"):
        missing = [run for run in runs if case.key(*run) not in done]
        if not missing:
            continue
        problem = random_problem(case.kind, case.seed, case.size)
        bench = Workbench(problem, subdomain=case.subdomain, net=nets[first])
        for name, network in missing:
            key = case.key(name, network)
            with torch.no_grad():
                found = ways[name](bench, nets[network], case.maxiter)
            done[key] = dict(zip(SETTINGS, key)) | {"unknowns": len(problem.b)} | found
        written(done.values()).to_csv(path)
    return written([done[case.key(*run)] for case in cases for run in runs])


def written(rows: Any) -> Table:
    """Rows as a table."""
    table = Table(COLUMNS)
    for row in rows:
        table.add(**row)
    return table


def summary(table: Table) -> Table:
    """Mean and spread by kind and size, and means of what each problem's best method needs."""
    columns = [c for what in WANTED for c in (what, f"{what}, of best")]
    found = Table(("kind", "unknowns", "method", *columns, *SIZES))
    for kind, size in groups(table):
        here = [r for r in table.rows if (r["kind"], int(r["size"])) == (kind, size)]
        best = [r for r in here if r["method"] == BEST]
        for name in dict.fromkeys(r["method"] for r in here):
            ours = [r for r in here if r["method"] == name]
            cells = {what: mean_and_spread([r[what] for r in ours]) for what in WANTED}
            ratios = {f"{what}, of best": ratio(ours, best, what) for what in WANTED}
            refused = sum(r["settings"].startswith("classical") for r in ours)
            found.add(
                kind=kind,
                unknowns=round(np.mean([int(r["unknowns"]) for r in ours])),
                method=name + (f", {refused} of {len(ours)} refused" if refused else ""),
                **cells,
                **ratios,
                **{c: round(np.mean([int(r[c]) for r in ours])) for c in SIZES},
            )
    return found


def overview(table: Table) -> Table:
    """A row for each kind and size: what the start and MG-GNN need of the best classical method.

    "stationary / FGMRES (coarse unknowns)": iterations of the best classical method, and means of
    quotients of the others, over all networks.
    """
    names = [n for n in dict.fromkeys(r["method"] for r in table.rows) if starts(n) in RIVALS]
    found = Table(("kind", "unknowns", BEST, *names))
    for kind, size in groups(table):
        here = [r for r in table.rows if (r["kind"], int(r["size"])) == (kind, size)]
        best = [r for r in here if r["method"] == BEST]
        counts = (mean_and_spread([r[what] for r in best]).split(" ")[0] for what in WANTED)
        cells = {BEST: " / ".join(counts) + coarse_of(best)}
        for name in names:
            ours = [r for r in here if r["method"] == name]
            parts = (str(ratio(ours, best, what) or "-").split(" ")[0] for what in WANTED)
            cells[name] = " / ".join(parts) + coarse_of(ours)
        found.add(kind=kind, unknowns=unknowns_of(here), **cells)
    return found


def starts(name: str) -> str:
    """The method, without its slow errors."""
    return name.split(",")[0]


def coarse_of(rows: Sequence[dict[str, Any]]) -> str:
    """The mean size of coarse problems, in brackets."""
    return f" ({round(np.mean([int(row['coarse']) for row in rows]))})"


def unknowns_of(rows: Sequence[dict[str, Any]]) -> int:
    """The mean number of unknowns."""
    return round(np.mean([int(row["unknowns"]) for row in rows]))


def against(table: Table) -> Table:
    """What MG-GNN needs of each of some classical methods, means of the quotients."""
    columns = (f"{what}, of {name}" for name in CLASSICAL for what in WANTED)
    found = Table(("kind", "unknowns", "method", *columns))
    for kind, size in groups(table):
        here = [r for r in table.rows if (r["kind"], int(r["size"])) == (kind, size)]
        names = dict.fromkeys(r["method"] for r in here)
        by_method = {name: [r for r in here if r["method"] == name] for name in names}
        for ours in (name for name in names if starts(name) == "MG-GNN"):
            found.add(
                kind=kind,
                unknowns=unknowns_of(here),
                method=ours,
                **{
                    f"{what}, of {name}": ratio(by_method[ours], by_method[name], what)
                    for name in CLASSICAL
                    for what in WANTED
                },
            )
    return found


def groups(table: Table) -> list[tuple[str, int]]:
    """Kinds and wanted sizes, in the order of the rows."""
    return list(dict.fromkeys((row["kind"], int(row["size"])) for row in table.rows))


def ratio(
    ours: Sequence[dict[str, Any]], best: Sequence[dict[str, Any]], what: str
) -> float | str | None:
    """The mean of the quotients, problem by problem; None if something failed.

    Of several networks, the mean and range of their means.
    """
    least = {row["seed"]: float(row[what] or "nan") for row in best}
    quotients: dict[str, list[float]] = {}
    for row in ours:
        found = float(row[what] or "nan") / least[row["seed"]]
        quotients.setdefault(row["network"], []).append(found)
    means = np.mean(list(quotients.values()), axis=1)
    if not np.isfinite(means).all():
        return None
    text = f"{means.mean():.3g}"
    return float(text) if len(means) == 1 else f"{text} ({means.min():.3g}-{means.max():.3g})"


def report(table: Table, args: argparse.Namespace) -> str:
    """The Markdown: what was run, where and when, and the means."""
    lines = [
        "# MG-GNN and classical methods on held-out problems",
        machine(),
        f"`python benchmarks/heldout_mggnn.py{' --short' if args.short else ''}` with "
        f"{', '.join(path.name for path in args.checkpoint)}: mean (range) of iterations to "
        f"{RTOL:g}, at most {args.maxiter}, over {args.problems} problems of each kind and size, "
        f"seeds from {FIRST_SEED}; METIS "
        f'subdomains of {args.subdomain} unknowns. "of best" is the mean over the problems of what '
        "a method needs over what the best classical method needs; subdomains and coarse unknowns "
        "are those of the stationary method.",
        overview(table).to_markdown(),
        "These are stationary / FGMRES (coarse unknowns): iterations of the best classical method, "
        "and what the others need of them. In full:",
        summary(table).to_markdown(),
        "What MG-GNN needs of the classical methods, each the best of its kind on the very "
        "problem, means of the quotients:",
        against(table).to_markdown(),
    ]
    return "\n\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = FOLDER / "diffusion_2d.safetensors"
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[default])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--problems", type=int, default=10, help="of each kind and size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--enrich", type=int, nargs="*", default=[8, 16], help="slow errors")
    parser.add_argument("--subdomain", type=int, help="unknowns; default: what the network is for")
    parser.add_argument("--maxiter", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path("runs/heldout_mggnn"))
    parser.add_argument("--short", action="store_true", help="tiny problems: seconds")
    args = parser.parse_args()
    if args.short:
        args.problems, args.sizes, args.subdomain, args.maxiter = 2, [150], 30, 200
        args.enrich = [2]
    nets = {
        hashlib.sha256(path.read_bytes()).hexdigest()[:12]: InterfaceNet.load(path)
        for path in args.checkpoint
    }
    same = {str((net.options, net.unknowns)) for net in nets.values()}
    if len(same) > 1:
        parser.error(f"--checkpoint: expected networks with the same options, got {sorted(same)}")
    args.subdomain = args.subdomain or next(iter(nets.values())).unknowns
    cases = [
        Case(kind, size, FIRST_SEED + i, args.subdomain, args.maxiter)
        for kind in args.kinds
        for size in args.sizes
        for i in range(args.problems)
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = report(run_all(cases, nets, args.enrich, args.out.with_suffix(".csv")), args)
    print(text)
    write_whole(args.out.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
