"""What fine-tuning gains on one matrix: `ddm.finetune` against the best classical method.

    python benchmarks/bench_finetune.py [--seconds 60] [--unknowns 10000] [--out FILE.md]

One problem of each kind, never trained on, in METIS subdomains of the size and overlap that the
network that ships is for. "start" is what fine-tuning starts from: the network's method, or the
classical one that it corrects. "best classical" is what `ddm.best_classical` finds on the very
matrix at equal local work, for each count; the search has as many seconds. "with 16 slow errors"
is `ddm.finetune(..., enrich=16)`, as long. Iterations are those until two random errors, or the
residual of a random right-hand side by FGMRES, have fallen by 1e-12.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import torch
from heldout_mggnn import krylov, sizes, stationary
from side_by_side import cpu_name, versions
from tqdm import tqdm

import ddm
from ddm.choice import prepared
from ddm.schwarz import Schwarz
from ddm.table import Table
from ddm.workbench import Workbench

KINDS = ("poisson", "diffusion", "anisotropic", "diffusion_3d", "elasticity")
SEED, MAXITER, RTOL = 90_001, 1000, 1e-12
ENRICH = 16
WIDER = f"with {ENRICH} slow errors"
COLUMNS = (
    "kind", "unknowns", "subdomains", "overlap", "best classical", "coarse", "start", "fine-tuned",
    "steps", "of the best", WIDER, "of the best, so", "coarse, so"
)  # fmt: skip


def counts(method: Schwarz, inside: Schwarz | None = None) -> str:
    """Stationary and FGMRES iterations, of two methods if each count has its own."""
    alone = stationary(method, MAXITER)
    return f"{'-' if alone is None else alone} / {krylov(inside or method, MAXITER)}"


def row(kind: str, unknowns: int, seconds: float, steps: int | None) -> dict[str, object]:
    """One problem's results."""
    problem = ddm.random_problem(kind, SEED, unknowns)
    setup, net, _ = prepared(problem)
    with torch.no_grad():
        bench = Workbench(problem, subdomain=net.unknowns)
        found = {
            objective: ddm.best_classical(
                bench,
                objective=objective,
                reference_overlap=net.options["overlap"],
                rtol=RTOL,
                maxiter=MAXITER,
                budget_s=seconds,
            ).method
            for objective in ("stationary", "krylov")
        }
    start = ddm.finetune(setup, net, steps=0).method
    tuned = ddm.finetune(setup, net, seconds=seconds, steps=steps)
    wider = ddm.finetune(setup, net, seconds=seconds, steps=steps, enrich=ENRICH).method
    most = stationary(found["stationary"], MAXITER)

    def share(method: Schwarz) -> float | None:
        few = stationary(method, MAXITER)
        return few / most if few and most else None

    return {
        "kind": kind,
        "unknowns": len(problem.b),
        "subdomains": setup.decomposition.n_subdomains,
        "overlap": setup.decomposition.overlap,
        "best classical": counts(found["stationary"], found["krylov"]),
        "coarse": sizes(found["stationary"])["coarse"],
        "start": counts(start),
        "fine-tuned": counts(tuned.method),
        "steps": tuned.steps,
        "of the best": share(tuned.method),
        WIDER: counts(wider),
        "of the best, so": share(wider),
        "coarse, so": sizes(wider)["coarse"],
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of fine-tuning each problem")
    parser.add_argument("--steps", type=int, help="at most so many, however fast they are")
    parser.add_argument("--unknowns", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="of ddm.random_problem")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table = Table(COLUMNS)
    for kind in tqdm(args.kinds, unit="problem"):
        table.add(**row(kind, args.unknowns, args.seconds, args.steps))
    where = f"{cpu_name()}, {torch.get_num_threads()} threads, {datetime.date.today()}"
    text = f"{where}, {versions()}; {args.seconds:g} s each\n\n{table.to_markdown()}"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
