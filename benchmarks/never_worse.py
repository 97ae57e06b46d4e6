"""Whether what `ddm.learned_schwarz` returns is ever worse than the classical method it corrects.

    python benchmarks/never_worse.py [--short] [--out runs/never_worse]

220 random problems never trained on, of all kinds whose networks ship, in turn: domains,
boundaries, coefficients, sizes and subdomain sizes are drawn. The baseline is the classical method
that the network corrects, with the same subdomains. Counted are iterations until two random errors
have fallen by 1e-8, alone, and until the residual of another right-hand side has, in FGMRES: the
safeguard of `ddm.learned_schwarz` has seen neither. Without it, the network alone is counted too.

Writes OUT.csv, a row for each problem, and OUT.md. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resumable import iterations, kept_rows, machine, write_whole
from tqdm import tqdm

import ddm
from ddm.checkpoints import FOLDER, pretrained_names
from ddm.choice import prepared
from ddm.rates import iterations_to_reduce
from ddm.safeguard import safeguarded
from ddm.schwarz import Schwarz
from ddm.table import Table
from sparsetorch.linalg import fgmres

KINDS = (
    "poisson", "diffusion", "anisotropic", "poisson_mixed", "diffusion_mixed", "anisotropic_mixed",
    "poisson_3d", "diffusion_3d", "poisson_mixed_3d", "diffusion_mixed_3d", "elasticity",
)  # fmt: skip
FIRST_SEED = 77_000_000
RTOL, MAXITER, MAXITER_FGMRES = 1e-8, 2_000, 200
SUBDOMAINS = (60, 500)  # unknowns, log-uniform
SETTINGS = ("kind", "seed", "size", "subdomain", "networks")
COUNTS = ("stationary", "FGMRES")
WAYS = ("classical", "network", "learned")
COLUMNS = (*SETTINGS, "unknowns", "used", *(f"{way}, {what}" for way in WAYS for what in COUNTS))
SHOWN = ("classical", "learned", "network")  # the order of counts of failures
ALLOWED = 1.1  # times the baseline


@dataclass(frozen=True)
class Case:
    """One problem.

    Attributes:
        kind: of `ddm.random_problem`.
        seed: of the problem.
        size, subdomain: wanted unknowns, in all and of a subdomain.
        networks: what tells those that ship from others.
    """

    kind: str
    seed: int
    size: int
    subdomain: int
    networks: str

    @property
    def key(self) -> tuple[str, ...]:
        """What names its row in the CSV."""
        return tuple(str(value) for value in vars(self).values())


def draw(count: int, kinds: Sequence[str], sizes: tuple[int, int]) -> list[Case]:
    """Kinds in turn, sizes log-uniform."""
    rng = np.random.default_rng(FIRST_SEED)
    networks = hashlib.sha256()
    for name in pretrained_names():
        networks.update((FOLDER / f"{name}.safetensors").read_bytes())
    shipped = networks.hexdigest()[:12]
    cases = []
    for index in range(count):
        size, subdomain = (
            round(math.exp(rng.uniform(math.log(a), math.log(b)))) for a, b in (sizes, SUBDOMAINS)
        )
        cases.append(Case(kinds[index % len(kinds)], FIRST_SEED + index, size, subdomain, shipped))
    return cases


def counts(method: Schwarz) -> dict[str, int | None]:
    """Both counts; None where the iteration diverges or takes too long."""
    alone = iterations_to_reduce(method, RTOL, maxiter=MAXITER)
    generator = torch.Generator().manual_seed(1)
    b = torch.randn(method.shape[0], dtype=method.A.dtype, generator=generator)
    inside = fgmres(method.A, b, preconditioner=method, rtol=RTOL, maxiter=MAXITER_FGMRES)
    return {"stationary": alone if alone < MAXITER else None, "FGMRES": iterations(inside)}


@torch.no_grad()
def run(case: Case) -> dict[str, Any]:
    """The row of one problem."""
    problem = ddm.random_problem(case.kind, case.seed, case.size)
    setup, net, unseen = prepared(problem, subdomain=case.subdomain)
    verdict = safeguarded(setup, net, unseen=unseen)
    methods = {"classical": setup.classical(net.theta), "learned": verdict.method}
    found: dict[str, Any] = {"network, stationary": None, "network, FGMRES": None}
    try:
        methods["network"] = setup.learned(net)
    except ValueError as error:
        warnings.warn(f"{case}: {error}", stacklevel=1)
    for way, method in methods.items():
        found |= {f"{way}, {what}": count for what, count in counts(method).items()}
    used = "network" if verdict.learned else "classical"
    return vars(case) | {"unknowns": len(problem.b), "used": used} | found


def run_all(cases: Sequence[Case], path: Path) -> Table:
    """Run what the CSV lacks, keeping it up to date, and return its table."""
    done = kept_rows(path, COLUMNS, SETTINGS)
    table = Table(COLUMNS)
    for case in tqdm(cases, unit="problem"):
        row = done.get(case.key)
        table.add(**(run(case) if row is None else row))
        if row is None:
            table.to_csv(path)
    return table


def number(cell: Any) -> float:
    """A count; infinite where there is none."""
    return float(cell) if cell not in (None, "") else math.inf


def quotients(rows: Sequence[dict[str, Any]], way: str, what: str) -> np.ndarray:
    """What a way needs over what the baseline needs, where that converges."""
    pairs = [(number(r[f"{way}, {what}"]), number(r[f"classical, {what}"])) for r in rows]
    return np.array([ours / theirs for ours, theirs in pairs if math.isfinite(theirs)])


def fails(rows: Sequence[dict[str, Any]], what: str) -> str:
    """On how many problems each way does not converge."""
    return " / ".join(
        str(sum(math.isinf(number(row[f"{way}, {what}"])) for row in rows)) for way in SHOWN
    )


def summary(table: Table) -> Table:
    """By kind: how often the network is used, quotients, and on how many problems a way fails."""
    columns = [
        f"{what}, {which}"
        for what in COUNTS
        for which in ("mean", "worst", "network alone", f"fails: {' / '.join(SHOWN)}")
    ]
    found = Table(("kind", "problems", "network used", *columns, "worse than allowed"))
    kinds = list(dict.fromkeys(row["kind"] for row in table.rows))
    for kind in [*kinds, "all"]:
        rows = [row for row in table.rows if kind in (row["kind"], "all")]
        cells: list[Any] = []
        for what in COUNTS:
            ours, alone = (quotients(rows, way, what) for way in ("learned", "network"))
            cells += [ours.mean(), ours.max(), alone.max()] if len(ours) else [None] * 3
            cells.append(fails(rows, what))
        worse = sum(
            any((quotients([r], "learned", w) > ALLOWED).any() for w in COUNTS) for r in rows
        )
        used = sum(row["used"] == "network" for row in rows)
        found.add(
            kind=kind,
            problems=len(rows),
            **{"network used": used, "worse than allowed": worse},
            **dict(zip(columns, cells)),
        )
    return found


def report(table: Table, args: argparse.Namespace) -> str:
    """The Markdown: what was run, where and when, and the means."""
    low, high = args.sizes
    lines = [
        "# Is the learned method ever worse?",
        machine(),
        f"`python benchmarks/never_worse.py{' --short' if args.short else ''}`: iterations to "
        f"{RTOL:g} of what `ddm.learned_schwarz` returns over those of the classical method that "
        f"its network corrects; {args.problems} problems of {low} to {high} unknowns, seeds from "
        f'{FIRST_SEED}. "network alone" is the worst quotient without the safeguard; "worse than '
        f'allowed" are problems on which either count is more than {ALLOWED} times the '
        "baseline's. Problems on which the baseline fails have no quotient: means and worst ones "
        f'leave them out, and "fails" counts for each way where it took more than {MAXITER} '
        f"stationary iterations or {MAXITER_FGMRES} of FGMRES, or diverged.",
        summary(table).to_markdown(),
    ]
    return "\n\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--problems", type=int, default=220)
    parser.add_argument("--sizes", type=int, nargs=2, default=[500, 8_000])
    parser.add_argument("--out", type=Path, default=Path("runs/never_worse"))
    parser.add_argument("--short", action="store_true", help="tiny problems: seconds")
    args = parser.parse_args()
    if args.short:
        args.problems, args.sizes = 4, [150, 400]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cases = draw(args.problems, args.kinds, (args.sizes[0], args.sizes[1]))
    text = report(run_all(cases, args.out.with_suffix(".csv")), args)
    print(text)
    write_whole(args.out.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
