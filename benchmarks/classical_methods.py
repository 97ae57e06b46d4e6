"""The classical methods that `classical_schwarz.py` compares, made from a problem by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ddm.coarse import algebraic_neumann, assembled_neumann, geneo, nicolaides, smooth
from ddm.enrichment import enriched
from ddm.interface import robin, robin_between, schur
from ddm.multilevel import recursive
from ddm.partition import Decomposition, decompose, partition
from ddm.problems import Problem
from ddm.rates import best_theta
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor

Interface = Callable[["Ground", "Method"], torch.Tensor | None]


@dataclass(frozen=True)
class Method:
    """A classical method, and where it applies.

    Attributes:
        name: in the table.
        form, levels: of `Schwarz`.
        coarse: "none", or the coarse space of `coarse_space`.
        interface: makes the interface values; None adds none.
        overlap: graph layers.
        cg: with CG, as M is symmetric; else with FGMRES, and alone.
        third: whether the coarse problem is itself solved by a Schwarz method.
        enrich: slow errors of the method in its coarse space.
    """

    name: str
    form: str = "restricted"
    levels: str = "multiplicative"
    coarse: str = "smoothed"
    interface: Interface | None = None
    overlap: int = 1
    cg: bool = False
    third: bool = False
    enrich: int = 0

    def applies(self, problem: Problem) -> bool:
        """Whether the method is meant for a problem's class: CG and GenEO need an SPD matrix."""
        return problem.kind == "spd" or not (self.cg or self.coarse.startswith("GenEO"))


@dataclass
class Ground:
    """A problem with what several methods share: subdomains, Neumann matrices, coarse spaces."""

    problem: Problem
    subdomain: int
    kept: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def matrix(self) -> sp.csr_array:
        """The matrix with the couplings of all elements, also those that add up to zero."""
        elements = self.problem.elements
        return self.problem.A if elements is None else elements.assemble(len(self.problem.b))

    @cached_property
    def A(self) -> CSRTensor:
        """The same as a tensor."""
        return CSRTensor.from_scipy(self.matrix)

    @cached_property
    def owner(self) -> np.ndarray:
        """METIS parts of about `subdomain` unknowns."""
        A, size = self.matrix, self.problem.block_size
        parts = max(2, round(A.shape[0] / self.subdomain))
        return partition(A, parts, block_size=size)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def parts(self, overlap: int) -> Decomposition:
        """The overlapping subdomains."""
        size = self.problem.block_size
        return self._once(
            ("parts", overlap),
            lambda: decompose(self.matrix, self.owner, overlap, block_size=size),
        )

    def neumann(self, overlap: int) -> CSRTensor:
        """Neumann matrices of the subdomains, from the elements if there are any."""
        d, elements = self.parts(overlap), self.problem.elements

        def make() -> CSRTensor:
            if elements is None:
                return algebraic_neumann(self.A, d)
            return assembled_neumann(d, elements.dofs, elements.matrices)

        return self._once(("neumann", overlap), make)

    def coarse_space(self, kind: str, overlap: int) -> CSRTensor | None:
        """The prolongation: "none", "plain", "smoothed", "smoothed 3", "GenEO 0.1", "GenEO x 2"."""
        return self._once((kind, overlap), lambda: self._prolongation(kind, overlap))

    def _prolongation(self, kind: str, overlap: int) -> CSRTensor | None:
        d, problem = self.parts(overlap), self.problem
        if kind == "none":
            return None
        if kind.startswith("GenEO"):
            number = float(kind.split()[-1])
            many = " x " in kind
            options: Any = {"count": int(number), "threshold": None} if many else {
                "threshold": number
            }  # fmt: skip
            try:
                return geneo(self.A, d, neumann=self.neumann(overlap), **options)
            except ValueError as error:
                if "no subdomain has an eigenvalue below" not in str(error):
                    raise
                return None  # its bound holds for one level
        B = problem.near_nullspace
        if problem.block_size == 1:  # a grounded unknown may be alone in its subdomain
            B = np.ones((len(problem.b), 1))
        assert B is not None
        P = nicolaides(d, B).to(self.A.dtype)
        steps = {"plain": 0, "smoothed": 1, "smoothed 3": 3}[kind]
        return smooth(P, self.A, steps, block_size=problem.block_size)

    def schwarz(self, method: Method) -> Schwarz:
        """The preconditioner."""
        d = self.parts(method.overlap)
        P = self.coarse_space(method.coarse, method.overlap)
        options: dict[str, Any] = {"form": method.form, "levels": method.levels}
        if method.third:
            assert P is not None
            options["coarse"] = recursive(
                P, direct_up_to=1, subdomain=16, form="additive", levels="symmetric"
            )
        interface = None if method.interface is None else method.interface(self, method)
        schwarz = Schwarz(self.A, d, interface=interface, P=P, **options)
        return enriched(schwarz, method.enrich) if method.enrich else schwarz


def weight(theta: float) -> Interface:
    """A constant Robin weight."""
    return lambda ground, method: robin(ground.parts(method.overlap), theta, ground.A.dtype)


def searched(ground: Ground, method: Method) -> torch.Tensor:
    """The best of eight constant Robin weights on this very matrix."""
    d, P = ground.parts(method.overlap), ground.coarse_space(method.coarse, method.overlap)
    theta = best_theta(ground.A, d, P, factor=1e-4, form=method.form, levels=method.levels)
    return robin(d, theta, ground.A.dtype)


def between(theta: float) -> Interface:
    """Between the Dirichlet and the Neumann matrix."""
    return lambda ground, method: robin_between(
        ground.A, ground.parts(method.overlap), ground.neumann(method.overlap), theta
    )


def patch(layers: int, lump: bool = False) -> Interface:
    """The Schur complement of some layers outside."""
    return lambda ground, method: schur(ground.A, ground.parts(method.overlap), layers, lump=lump)


RAS = Method("RAS")
AS = Method("AS, balanced", form="additive", levels="balanced", cg=True)
SORAS = Method("SORAS", form="symmetric", levels="balanced", cg=True)
STUDIES: dict[str, list[Method]] = {
    "coarse": [
        replace(base, name=f"{base.name.split(',')[0]}, {label}", coarse=coarse, enrich=enrich)
        for base in (RAS, AS)
        for coarse, enrich, label in (
            ("none", 0, "one level"),
            ("none", 2, "2 slow errors"),
            ("plain", 0, "Nicolaides"),
            ("smoothed", 0, "Nicolaides, smoothed"),
            ("smoothed", 1, "Nicolaides, smoothed, 1 slow error"),
            ("smoothed", 4, "Nicolaides, smoothed, 4 slow errors"),
            ("smoothed 3", 0, "Nicolaides, smoothed 3 times"),
            ("GenEO 0.1", 0, "GenEO below 0.1"),
            ("GenEO x 2", 0, "GenEO, 2 a subdomain"),
        )
    ],
    "interface": [
        RAS,
        *(Method(f"ORAS {t}", interface=weight(t)) for t in (0.3, 0.5, 0.7)),
        Method("ORAS, best of eight", interface=searched),
        Method("between 0.5", interface=between(0.5)),
        *(Method(f"Schur, {k} layer{'s' * (k > 1)}", interface=patch(k)) for k in (1, 2, 4)),
        Method("Schur, 1 layer, lumped", interface=patch(1, True)),
    ],
    "overlap": [
        replace(base, name=f"{base.name}, overlap {overlap}", overlap=overlap)
        for base in (
            RAS,
            Method("ORAS 0.5", interface=weight(0.5)),
            Method("Schur, 2 layers", interface=patch(2)),
            replace(AS, name="AS"),
        )
        for overlap in (1, 2, 3)
    ],
    "levels": [
        Method("RAS, multiplicative"),
        Method("RAS, adef1", levels="adef1"),
        Method("RAS, additive", levels="additive"),
        *(
            Method(f"AS, {levels}", form="additive", levels=levels, cg=True)
            for levels in ("additive", "balanced", "symmetric")
        ),
        replace(AS, name="AS, balanced, three levels", third=True),
        *(
            replace(SORAS, name=f"SORAS {t}, balanced", interface=weight(t))
            for t in (1.0, 0.7, 0.5, 0.3)
        ),
    ],
    "kinds": [
        replace(RAS, name="RAS, plain", coarse="plain"),
        RAS,
        replace(RAS, name="RAS, 4 slow errors", enrich=4),
        replace(RAS, name="RAS, overlap 2", overlap=2),
        Method("ORAS 0.5", interface=weight(0.5)),
        Method("between 0.5", interface=between(0.5)),
        Method("between 0.5, 4 slow errors", interface=between(0.5), enrich=4),
        Method("Schur, 1 layer", interface=patch(1)),
        replace(RAS, name="RAS, GenEO below 0.1", coarse="GenEO 0.1"),
        AS,
        replace(AS, name="AS, 4 slow errors", enrich=4),
        replace(AS, name="AS, GenEO below 0.1", coarse="GenEO 0.1"),
        replace(SORAS, name="SORAS between 0.5", interface=between(0.5)),
    ],
}
"""The methods of each table; "smoothed" is the coarse space where a name says none."""
