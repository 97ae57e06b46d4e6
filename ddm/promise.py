"""Candidates of a tuning run, the most promising first, and then neighbours of the best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ddm.classical import Classical
from ddm.methods import METHODS, Maker, learned
from ddm.workbench import Workbench

DIRECT_UP_TO = {"plane": 300_000, "solid": 40_000}
"""Unknowns up to which a factorization of the whole matrix is tried: its fill is another in 3D."""

SIZES = (64, 160, 400, 1000)
"""Unknowns that a subdomain owns."""

FIRST = (
    Classical(theta=0.5, subdomain=64),
    Classical(theta=0.6, between=True, smoothing=2, subdomain=64),
    Classical(theta=0.7, vectors="linear", smoothing=3, subdomain=160),
    Classical(subdomain=160, overlap=2),
    Classical(subdomain=64, form="additive", levels="balanced"),
)


def first_candidates(bench: Workbench) -> Iterator[tuple[str, Maker]]:
    """One of each kind: AMG, a factorization, learned, and classical ones that differ widely."""
    n = len(bench.problem.b)
    yield "amg", METHODS["amg"]
    plane = bench.problem.A.nnz <= 10 * n * bench.problem.block_size
    if n <= DIRECT_UP_TO["plane" if plane else "solid"]:
        yield "direct", METHODS["direct"]
    for size in SIZES[:2]:
        yield f"mggnn, {size}", lambda bench, size=size: learned(bench, size)
    for candidate in FIRST:
        lacking = candidate.vectors == "linear" and bench.problem.positions is None
        if (candidate.subdomain or bench.subdomain) <= n / 2 and not lacking:
            yield "schwarz", candidate
    yield "geneo", METHODS["geneo"]


def other_sizes(best: Classical, bench: Workbench) -> Iterator[Classical]:
    """Candidates that differ from a classical one in the size of subdomains."""
    for size in SIZES:
        if size <= len(bench.problem.b) / 2:
            yield replace(best, subdomain=size)


def neighbours(best: Classical, bench: Workbench) -> Iterator[Classical]:
    """Candidates that differ from the best classical one in one number."""
    yield from other_sizes(best, bench)
    for overlap in (1, 2, 3):
        yield replace(best, overlap=overlap)
    if bench.problem.positions is not None:
        for vectors in ("near_nullspace", "linear"):
            yield replace(best, vectors=vectors)
    for smoothing in (0, 1, 2, 3):
        yield replace(best, smoothing=smoothing)
    yield replace(best, single=not best.single)
    for vectors in (0, 4, 8):
        yield replace(best, enrich=vectors)
    if best.form == "additive":
        return
    for between in (False, True):
        for theta in (0.3, 0.4, 0.5, 0.6, 0.8, 1.0):
            yield replace(best, theta=theta, between=between and theta != 1.0)
