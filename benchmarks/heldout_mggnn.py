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
linear functions out. "enriched" are methods with eight of their own slow errors in the coarse space
(`ddm.enriched`), if they need fewer iterations then.

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
from functools import lru_cache
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
ENRICH = 8  # slow errors in the coarse spaces of enriched methods
COLUMNS = (*SETTINGS, "unknowns", *SIZES, "stationary", "FGMRES", "settings")
BEST = "best classical"
BEST_ENRICHED = "best classical, enriched"

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
        own = network if method.split(",")[0] in ("start", "MG-GNN") else ""
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


def start(bench: Workbench, net: InterfaceNet, maxiter: int) -> Counts:
    """The classical method that the network corrects, with its subdomains."""
    return counted(setup_of(bench, net).classical(net.theta), maxiter)


def start_enriched(bench: Workbench, net: InterfaceNet, maxiter: int) -> Counts:
    """The same, enriched."""
    return counted(enriched(setup_of(bench, net).classical(net.theta), ENRICH), maxiter)


@lru_cache(maxsize=2)
def searched(
    bench: Workbench,
    objective: Objective,
    reference_overlap: int,
    overlaps: tuple[int, ...],
    linear: bool,
    maxiter: int,
) -> Search:
    """The best classical method, with or without slow errors, which are tried with the best."""
    return best_classical(
        bench,
        objective=objective,
        reference_overlap=reference_overlap,
        overlaps=overlaps,
        linear=linear,
        enrich=(ENRICH,),
        rtol=RTOL,
        maxiter=maxiter,
    )


def best(
    same: bool = False, linear: bool = True, enrich: bool = False
) -> Callable[[Workbench, InterfaceNet, int], Counts]:
    """The fewest stationary iterations, and the fewest of FGMRES, of all classical methods.

    `same` takes only those with the network's subdomains, `enrich` those with slow errors, too.
    """

    def find(bench: Workbench, net: InterfaceNet, maxiter: int) -> Counts:
        overlap = net.options["overlap"]
        overlaps = (overlap,) if same else (1, 2)
        alone, inside = (
            searched(bench, objective, overlap, overlaps, linear, maxiter).best
            for objective in ("stationary", "krylov")
        )
        if not enrich:
            alone, inside = replace(alone, enrich=0), replace(inside, enrich=0)
        method = alone(bench)
        return sizes(method) | {
            "stationary": stationary(method, maxiter),
            "FGMRES": krylov(inside(bench), maxiter),
            "settings": f"stationary: {alone}; FGMRES: {inside}",
        }

    return find


def mggnn(bench: Workbench, net: InterfaceNet, maxiter: int, enrich: int = 0) -> Counts:
    """The learned method, or its start where the safeguard refuses it."""
    unseen = chosen_net(bench.problem, net)[1]
    verdict = safeguarded(setup_of(bench, net), net, unseen=unseen, enrich=enrich)
    settings = "learned" if verdict.learned else f"classical: {verdict.reason}"
    return counted(verdict.method, maxiter, settings)


def mggnn_enriched(bench: Workbench, net: InterfaceNet, maxiter: int) -> Counts:
    """The same, enriched."""
    return mggnn(bench, net, maxiter, ENRICH)


METHODS: dict[str, Callable[[Workbench, InterfaceNet, int], Counts]] = {
    "RAS": ras,
    "start": start,
    BEST: best(),
    "best, same subdomains": best(same=True),
    "best without linear": best(linear=False),
    "MG-GNN": mggnn,
    "start, enriched": start_enriched,
    BEST_ENRICHED: best(enrich=True),
    "MG-GNN, enriched": mggnn_enriched,
}
OURS = ("MG-GNN", "MG-GNN, enriched")


def run_all(cases: Sequence[Case], nets: Mapping[str, InterfaceNet], path: Path) -> Table:
    """Run what the CSV lacks, keep it up to date after each problem, and return its table.

    Classical methods run once, with the options of the first network.
    """
    done = kept_rows(path, COLUMNS, SETTINGS)
    first, *others = nets
    runs = [(name, first) for name in METHODS]
    runs += [(name, network) for network in others for name in OURS]
    for case in tqdm(cases, unit="problem"):
        missing = [run for run in runs if case.key(*run) not in done]
        if not missing:
            continue
        problem = random_problem(case.kind, case.seed, case.size)
        bench = Workbench(problem, subdomain=case.subdomain, net=nets[first])
        for name, network in missing:
            key = case.key(name, network)
            with torch.no_grad():
                found = METHODS[name](bench, nets[network], case.maxiter)
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
        for name in METHODS:
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


def against(table: Table) -> Table:
    """What MG-GNN needs of each of some classical methods, means of the quotients."""
    classical = (BEST, BEST_ENRICHED, "best, same subdomains", "best without linear")
    columns = (f"{what}, of {name}" for name in classical for what in WANTED)
    found = Table(("kind", "unknowns", "method", *columns))
    for kind, size in groups(table):
        here = [r for r in table.rows if (r["kind"], int(r["size"])) == (kind, size)]
        by_method = {name: [r for r in here if r["method"] == name] for name in METHODS}
        for ours in OURS:
            found.add(
                kind=kind,
                unknowns=round(np.mean([int(r["unknowns"]) for r in here])),
                method=ours,
                **{
                    f"{what}, of {name}": ratio(by_method[ours], by_method[name], what)
                    for name in classical
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
    parser.add_argument("--subdomain", type=int, help="unknowns; default: what the network is for")
    parser.add_argument("--maxiter", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path("runs/heldout_mggnn"))
    parser.add_argument("--short", action="store_true", help="tiny problems: seconds")
    args = parser.parse_args()
    if args.short:
        args.problems, args.sizes, args.subdomain, args.maxiter = 2, [150], 30, 200
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
    text = report(run_all(cases, nets, args.out.with_suffix(".csv")), args)
    print(text)
    write_whole(args.out.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
