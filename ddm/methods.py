"""Methods by short names: a function of a workbench each, entered in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ddm.choice import chosen_net
from ddm.classical import Classical
from ddm.coarse import NoEigenvalueError
from ddm.coarse import geneo as geneo_space
from ddm.peers import Direct, Multigrid
from ddm.safeguard import Verdict, safeguarded, warn_refused
from ddm.schwarz import Schwarz
from ddm.search import best_classical, equal_work
from ddm.setup import set_up
from ddm.workbench import Workbench

Operator = Schwarz | Multigrid | Direct


@dataclass(frozen=True)
class Made:
    """A method made for a problem.

    Attributes:
        operator: the preconditioner.
        settings: what a reader would need to make it again.
        setup_s: seconds of its set-up, where those of making it hold a search besides.
    """

    operator: Operator
    settings: str = ""
    setup_s: float | None = None


Maker = Callable[[Workbench], Made | Operator]


def ras(bench: Workbench) -> Made:
    """Two-level RAS with the plain coarse space: the baseline of the paper."""
    return classical(bench, Classical(smoothing=0))


def oras(bench: Workbench) -> Made:
    """Two-level ORAS with the Robin weight 0.5 and a smoothed coarse space."""
    return classical(bench, Classical(theta=0.5))


def oras_tuned(bench: Workbench) -> Made:
    """The classical method with the fewest stationary iterations, at equal local work.

    The search, which begins no candidate after `bench.search_s` seconds, does not count as set-up:
    what it finds serves for all problems of a kind.
    """
    best = best_classical(bench, budget_s=bench.search_s).best
    method, setup_s = bench.timed(best)
    return Made(method, str(best), setup_s)


def additive(bench: Workbench) -> Made:
    """Additive Schwarz with balanced levels and a smoothed coarse space, for CG."""
    _refuse_indefinite(bench)
    return classical(bench, Classical(form="additive", levels="balanced"))


def soras(bench: Workbench) -> Made:
    """Symmetrised ORAS between Dirichlet and Neumann matrices, balanced, for CG."""
    _refuse_indefinite(bench)
    return classical(bench, Classical(theta=0.5, between=True, form="symmetric", levels="balanced"))


def geneo(bench: Workbench) -> Made:
    """Additive Schwarz, balanced, with the GenEO coarse space of eigenvalues below 0.1.

    One level where there are none.
    """
    _refuse_indefinite(bench)
    parts = bench.decomposition(bench.subdomain, 1)
    neumann = bench.neumann(bench.subdomain, 1)
    try:
        P = geneo_space(bench.matrix, parts, neumann=neumann)
    except NoEigenvalueError:
        P = None
    method = Schwarz(
        bench.matrix,
        parts,
        P=P,
        form="additive",
        levels="balanced",
        nullspace=bench.problem.nullspace,
    )
    return Made(method, "overlap 1, eigenvalues below 0.1")


def mggnn(bench: Workbench) -> Made:
    """MG-GNN's method, or the classical one where the safeguard refuses it (with a warning)."""
    return learned(bench, bench.subdomain)


def learned(bench: Workbench, subdomain: int) -> Made:
    """The same with another number of unknowns a subdomain, at an overlap of 1.

    A network for more overlap gets larger subdomains, with the same local work. Finding that size
    does not count as set-up: it serves for all meshes of a kind.

    Raises:
        ValueError: no network was given, and none that ships has seen such matrices.
    """
    net, unseen = chosen_net(bench.problem, bench.net)
    overlap = net.options["overlap"]
    size = equal_work(bench, (overlap,), subdomain).get(overlap, subdomain)

    def make(bench: Workbench) -> Verdict:
        setup = set_up(bench.problem, bench.owner(size), **net.options)
        return safeguarded(setup, net, unseen=unseen)

    verdict, setup_s = bench.timed(make)
    warn_refused(verdict)
    return Made(verdict.method, str(verdict), setup_s)


def amg(bench: Workbench) -> Made:
    """PyAMG: Ruge-Stueben, or smoothed aggregation with the near null space."""
    problem = bench.problem
    cycle = Multigrid(
        bench.matrix,
        bench.near_nullspace,
        block_size=problem.block_size,
        symmetric=bench.definite,
        null=bench.null,
    )
    return Made(cycle, cycle.kind)


def direct(bench: Workbench) -> Made:
    """A sparse factorization.

    Raises:
        ValueError: the problem has a null space.
    """
    if bench.null is not None:
        raise ValueError("A: it is singular; make the problem with singular='ground' to factorize")
    return Made(Direct(bench.matrix))


METHODS: dict[str, Maker] = {
    "ras": ras,
    "oras": oras,
    "oras_tuned": oras_tuned,
    "as": additive,
    "soras": soras,
    "geneo": geneo,
    "mggnn": mggnn,
    "amg": amg,
    "direct": direct,
}


def makers(methods: Sequence[str] | Mapping[str, str | Maker]) -> dict[str, Maker]:
    """The functions of some methods, by the names that a table shows.

    Args:
        methods: short names, or names with a short name, a `Classical`, or a function of a
            `Workbench` each.

    Raises:
        TypeError: something else.
        ValueError: an unknown name, or none at all.
    """
    if isinstance(methods, str):
        methods = (methods,)
    named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    if not named:
        raise ValueError(f"methods: expected at least one of {', '.join(METHODS)}")
    found: dict[str, Maker] = {}
    for label, method in named.items():
        if isinstance(method, str):
            if method not in METHODS:
                raise ValueError(f"methods: expected some of {', '.join(METHODS)}; got {method!r}")
            found[label] = METHODS[method]
        elif isinstance(method, Classical):
            found[label] = lambda bench, method=method: classical(bench, method)
        elif callable(method):
            found[label] = method
        else:
            raise TypeError(
                f"methods: expected names or functions of a Workbench, got {type(method).__name__}"
            )
    return found


def classical(bench: Workbench, method: Classical) -> Made:
    """A classical method with its settings."""
    return Made(method(bench), str(method))


def _refuse_indefinite(bench: Workbench) -> None:
    if not bench.definite:
        raise ValueError(
            "A: this method is for symmetric positive definite matrices; ras, oras, oras_tuned "
            "and direct take others"
        )
