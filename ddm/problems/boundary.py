"""Parts of a mesh's boundary, by name or by a function of the coordinates, and what holds there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Where = str | Callable[..., Any]
Parts = Mapping[Any, Any]  # keys are Where: a Mapping's keys may not be of a narrower type
# What problems call their conditions, and the list of `Conditions` that each goes to.
LISTS = {"dirichlet": "dirichlet", "neumann": "neumann", "robin": "robin", "impedance": "robin"}


@dataclass(frozen=True)
class Conditions:
    """Facets with the values that hold there; facets in none of the lists have zero flux.

    Attributes:
        dirichlet: the unknown is prescribed.
        neumann: its flux is.
        robin: the flux plus a multiple of the unknown is.
    """

    dirichlet: list[tuple[np.ndarray, Any]]
    neumann: list[tuple[np.ndarray, Any]]
    robin: list[tuple[np.ndarray, Any]]


def facets_where(mesh: Any, where: Where) -> np.ndarray:
    """Facets of a named boundary, or boundary facets with midpoints where a function is true.

    Raises:
        ValueError: the mesh has no such boundary (the message names those that are there), or the
            function is true nowhere.
    """
    if isinstance(where, str):
        named = mesh.boundaries or {}
        if where not in named:
            there = ", ".join(sorted(named)) or "none; give a function of the coordinates instead"
            raise ValueError(f"boundary: the mesh has no boundary {where!r}; it has: {there}")
        found = np.unique(np.asarray(named[where]))
    elif callable(where):
        facets = mesh.boundary_facets()
        middle = mesh.p[:, mesh.facets[:, facets]].mean(axis=1)
        inside = np.asarray(where(*middle))
        if inside.shape != facets.shape or inside.dtype != bool:
            raise ValueError(
                f"boundary: expected a function that gives a boolean for each of {len(facets)} "
                f"points, got {inside.dtype} of shape {inside.shape}"
            )
        found = facets[inside]
    else:
        raise TypeError(
            f"boundary: expected a name or a function of the coordinates, got {where!r}"
        )
    if len(found) == 0:
        raise ValueError(f"boundary: no facet of the boundary belongs to {where!r}")
    return found


def conditions(mesh: Any, *, rest: str = "dirichlet", **given: Any) -> Conditions:
    """Sort the boundary by what holds there.

    Args:
        mesh: triangles or tetrahedra.
        rest: the one of `given` that may be one value, which holds on all that the others leave.
        given: names of LISTS, each a mapping of parts to values, or None.

    Raises:
        ValueError: parts that overlap, and whatever `facets_where` refuses.
        TypeError: a value where a mapping is expected.
    """
    sorted_parts: dict[str, list[tuple[np.ndarray, Any]]] = {name: [] for name in LISTS.values()}
    owner = np.full(mesh.nfacets, -1)
    names: list[str] = []
    for kind, parts in given.items():
        if parts is None or (kind == rest and not isinstance(parts, Mapping)):
            continue
        if not isinstance(parts, Mapping):
            raise TypeError(
                f"{kind}: expected a mapping from parts of the boundary to values, got {parts!r}"
            )
        for where, value in parts.items():
            facets = facets_where(mesh, where)
            other = owner[facets].max()
            label = f"{kind}[{where if isinstance(where, str) else 'function'!r}]"
            if other >= 0:
                raise ValueError(f"{label}: it shares facets with {names[other]}; name each once")
            owner[facets] = len(names)
            names.append(label)
            sorted_parts[LISTS[kind]].append((facets, value))
    remaining = given.get(rest)
    if remaining is not None and not isinstance(remaining, Mapping):
        boundary = mesh.boundary_facets()
        free = boundary[owner[boundary] < 0]
        if len(free):
            sorted_parts[LISTS[rest]].append((free, remaining))
    return Conditions(**sorted_parts)
