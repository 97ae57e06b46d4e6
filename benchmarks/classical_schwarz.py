"""Iterations of the classical Schwarz methods: coarse spaces, interface values, overlap, levels.

    python benchmarks/classical_schwarz.py [--short] [--out runs/classical_schwarz]

Repeats the tables of docs/schwarz.md. Ten held-out meshes of each size (seeds that training does
not use): Poisson's equation on random domains for "coarse", "interface", "overlap" and "levels",
and the 13 kinds of `ddm.random_problem` for "kinds". METIS subdomains; iterations from zero until
the relative residual is 1e-8, alone ("stationary", RAS and its kind) and in FGMRES or CG.

Writes OUT.csv, a row for each run, and OUT.md, mean and spread. A run that was stopped goes on
where it was: rows that are in the CSV are kept.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classical_methods import STUDIES, Ground, Method
from resumable import FIRST_SEED, iterations, kept_rows, machine, mean_and_spread, write_whole
from tqdm import tqdm

from ddm.mesh import random_mesh
from ddm.problems import Problem, poisson, random_problem
from ddm.table import Table
from sparsetorch.linalg import cg, fgmres, richardson

KINDS = [
    f"{kind}{dim}"
    for dim in ("", "_3d")
    for kind in (
        "poisson", "diffusion", "anisotropic", "convection_diffusion", "elasticity", "helmholtz"
    )
] + ["graph_laplacian"]  # fmt: skip
RTOL = 1e-8
SETTINGS = ("study", "kind", "size", "seed", "subdomain", "maxiter", "method")
COLUMNS = (*SETTINGS, "unknowns", "coarse", "stationary", "krylov", "remark")


@dataclass(frozen=True)
class Case:
    """One problem of a study, and the settings of its runs.

    Attributes:
        study: name in STUDIES.
        kind: of `random_problem`.
        size: wanted number of unknowns.
        seed: of the problem.
        subdomain: unknowns that a subdomain owns.
        maxiter: of every iteration.
    """

    study: str
    kind: str
    size: int
    seed: int
    subdomain: int
    maxiter: int

    def problem(self) -> Problem:
        """The problem, made anew."""
        if self.study == "kinds":
            return random_problem(self.kind, self.seed, self.size)
        return poisson(random_mesh(self.seed, round(self.size + 3.2 * self.size**0.5)))

    def key(self, method: str) -> tuple[str, ...]:
        """What names a run's row in the CSV."""
        return tuple(str(value) for value in (*vars(self).values(), method))


def run(case: Case, method: Method, ground: Ground) -> dict[str, Any]:
    """One row: a method on a problem. What it refuses is said in the remark."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | vars(case) | {"method": method.name}
    row["unknowns"] = len(ground.problem.b)
    try:
        schwarz = ground.schwarz(method)
    except ValueError as error:
        return row | {"remark": str(error)[:80]}
    row["coarse"] = 0 if schwarz.P is None else schwarz.P.shape[1]
    b = torch.from_numpy(ground.problem.b)
    options: dict[str, Any] = {
        "preconditioner": schwarz, "rtol": RTOL, "maxiter": case.maxiter
    }  # fmt: skip
    if method.cg:
        return row | {"krylov": iterations(cg(ground.A, b, **options))}
    return row | {
        "stationary": iterations(richardson(ground.A, b, **options)),
        "krylov": iterations(fgmres(ground.A, b, **options)),
    }


def run_all(cases: Sequence[Case], path: Path) -> Table:
    """Run what the CSV lacks, keep it up to date after each problem, and return its table."""
    done = kept_rows(path, COLUMNS, SETTINGS)
    table = Table(COLUMNS)
    for case in tqdm(cases, unit="problem"):
        missing = [m for m in STUDIES[case.study] if case.key(m.name) not in done]
        if missing:
            ground = Ground(case.problem(), case.subdomain)
            fresh = [run(case, m, ground) for m in missing if m.applies(ground.problem)]
            done |= {case.key(row["method"]): row for row in fresh}
        for method in STUDIES[case.study]:
            if row := done.get(case.key(method.name)):
                table.add(**row)
        if missing:
            table.to_csv(path)
    table.to_csv(path)
    return table


def summaries(table: Table) -> Iterator[tuple[str, Table]]:
    """A table of means for each study, and for each kind of problem."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in table.rows:
        groups[row["study"], row["kind"]].append(row)
    for (study, kind), rows in groups.items():
        sizes = sorted({int(row["size"]) for row in rows})
        columns = [f"{what}, {n}" for n in sizes for what in ("stationary", "Krylov")]
        summary = Table(("method", "in", *columns, "coarse"))
        for method in STUDIES[study]:
            ours = [row for row in rows if row["method"] == method.name]
            if not ours:
                continue
            cells = {}
            for n in sizes:
                here = [row for row in ours if int(row["size"]) == n]
                alone = [row["stationary"] for row in here]
                cells[f"stationary, {n}"] = "" if method.cg else mean_and_spread(alone)
                cells[f"Krylov, {n}"] = mean_and_spread([row["krylov"] for row in here])
            coarse = [int(row["coarse"]) for row in here if row["coarse"] not in (None, "")]
            share = round(float(np.mean(coarse))) if coarse else None
            solver = "CG" if method.cg else "FGMRES"
            summary.add(method=method.name, **{"in": solver}, **cells, coarse=share)
        meshes = len({str(row["seed"]) for row in rows})
        yield f"{study}: {kind.replace('_', ' ')}, {meshes} meshes a size", summary


def cases_of(args: argparse.Namespace) -> list[Case]:
    """The problems of the chosen studies."""
    found = []
    for study in args.studies:
        kinds = args.kinds if study == "kinds" else ["poisson"]
        sizes = [args.kinds_size] if study == "kinds" else args.sizes
        found += [
            Case(study, kind, size, FIRST_SEED + i, args.subdomain, args.maxiter)
            for kind in kinds
            for size in sizes
            for i in range(args.meshes)
        ]
    return found


def report(table: Table, args: argparse.Namespace) -> str:
    """The Markdown: what was run, where and when, and the means."""
    lines = [
        "# Classical Schwarz methods: iterations",
        machine(),
        f"`python benchmarks/classical_schwarz.py{' --short' if args.short else ''}`: mean (range)"
        f" of iterations to a relative residual of {RTOL:g}, at most {args.maxiter}; seeds from "
        f"{FIRST_SEED}; METIS "
        f'subdomains of {args.subdomain} unknowns; "coarse" is the size of the coarse problem '
        "on the largest meshes. Where a name says nothing else the overlap is 1 and the coarse "
        "space Nicolaides', smoothed once (rigid-body modes for elasticity).",
    ]
    for title, summary in summaries(table):
        lines += [f"## {title}", summary.to_markdown().rstrip()]
    remarks = {(row["kind"], row["method"], row["remark"]) for row in table.rows if row["remark"]}
    lines += [f"Refused: {kind}, {method}: {text}..." for kind, method, text in sorted(remarks)]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--meshes", type=int, default=10, help="of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--kinds-size", type=int, default=1_500)
    parser.add_argument("--subdomain", type=int, default=64)
    parser.add_argument("--maxiter", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/classical_schwarz"))
    parser.add_argument("--short", action="store_true", help="tiny problems: seconds")
    args = parser.parse_args()
    if args.short:
        args.meshes, args.sizes, args.kinds_size, args.subdomain = 2, [200], 150, 40
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table = run_all(cases_of(args), args.out.with_suffix(".csv"))
    text = report(table, args)
    print(text)
    write_whole(args.out.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
