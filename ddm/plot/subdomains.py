"""Pictures of a decomposition: who owns what, how far a subdomain reaches, and the coarse graph."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from ddm.partition import Decomposition
from ddm.pieces import check_owner, node_graph, pieces
from ddm.plot.canvas import axes_for, bare, ghost, paint_elements, plane_of
from ddm.plot.geometry import element_nodes, linear_elements, n_nodes, surface_of
from ddm.plot.graph import draw_dots, draw_edges, layout
from ddm.plot.palette import INK, LAYERS, PALE, TINTS, adjacent, colours_of
from ddm.problems import Problem

Window = tuple[float, float, float, float]


def subdomain_colours(problem: Problem, owner: np.ndarray) -> np.ndarray:
    """A colour number for each subdomain, (S,), so that neighbours differ; greedy."""
    return colours_of(problem.A, owner)


def plot_subdomains(
    problem: Problem,
    decomposition: Decomposition | np.ndarray,
    ax: Any = None,
    *,
    coarse: bool | None = None,
    window: Window | None = None,
    cut: tuple[str, float] | None = None,
) -> Any:
    """Draw the mesh in the colours of its subdomains, and above it the coarse graph.

    An element has the colour of the subdomain that owns most of its unknowns. Without a mesh the
    unknowns are dots, at their coordinates or in a spectral layout (`ddm.plot.graph.layout`).

    Args:
        problem: in 2D or 3D.
        decomposition: or the owner (n,) of each unknown.
        ax: axes; in 3D those of `projection="3d"`. None: the current ones.
        coarse: whether to draw a dot a subdomain, with lines between neighbours. None: in 2D, below
            400 subdomains; beyond, the coarse graph would hide what it lies on.
        window: (x, x, y, y), the part of the plane to draw.
        cut: (direction, share), such as ("y", 0.5): in 3D, leave out what lies in front of a plane.

    Raises:
        ValueError: a decomposition of another matrix, empty subdomains, a window in 3D or a cut in
            2D, plane axes in 3D, a mesh or graph that cannot be drawn.

    Warns:
        UserWarning: subdomains in several pieces.
    """
    owner = drawn_owner(problem, decomposition)
    tint = colours_of(problem.A, owner)
    if problem.mesh is None:
        places = layout(problem)
        ax = axes_for(places.shape[1], ax)
        draw_edges(ax, problem, places)
        by_node = owner[:: problem.block_size]
        draw_dots(ax, places, c=[TINTS[k] for k in tint[by_node]])
        bare(ax, places)
        return ax
    dim = problem.mesh.dim()
    ax = axes_for(dim, ax)
    if (window is not None and dim == 3) or (cut is not None and dim == 2):
        raise ValueError(
            f"{'window' if dim == 3 else 'cut'}: expected None for a problem in {dim}D"
        )
    points = linear_elements(problem)[0]
    plane = None if cut is None else plane_of(ax, cut, points)
    elements = element_owners(problem, owner)
    visible = elements >= 0
    if window is not None:
        corners = problem.mesh.p[:, problem.mesh.t]  # (2, 3, m)
        low, high = np.array([window[0::2]]).T, np.array([window[1::2]]).T
        visible &= (corners.max(1) >= low).all(0) & (corners.min(1) <= high).all(0)
    # In space elements without an unknown are grey: holes would look like cracks.
    surface = surface_of(problem, cut=plane, elements=visible if dim == 2 else None)
    found = elements[surface.element]
    paint_elements(ax, surface, np.where(found >= 0, tint[found], len(TINTS)), [*TINTS, PALE])
    if coarse if coarse is not None else (dim == 2 and len(tint) < 400):
        _coarse_graph(ax, problem, owner, window)
    if window is not None:
        ax.set_xlim(*window[:2])
        ax.set_ylim(*window[2:])
    bare(ax, points)
    return ax


def plot_overlap(
    problem: Problem,
    decomposition: Decomposition,
    subdomain: int,
    ax: Any = None,
    *,
    legend: bool = True,
) -> Any:
    """Draw one subdomain: what it owns, and its layers of overlap around it, paler and paler.

    An element belongs to the outermost layer of its unknowns, and to the subdomain if all of them
    do. In 3D the rest of the solid is a faint shape around it.

    Args:
        problem: in 2D or 3D.
        decomposition: of it.
        subdomain: its number.
        ax: axes; in 3D those of `projection="3d"`.
        legend: whether to say what the colours mean.

    Raises:
        ValueError: no such subdomain, a decomposition of another matrix, plane axes in 3D.
    """
    owner, d = drawn_owner(problem, decomposition), decomposition
    if not 0 <= subdomain < d.n_subdomains or subdomain != int(subdomain):
        raise ValueError(f"subdomain: expected 0 to {d.n_subdomains - 1}, got {subdomain}")
    here = d.subdomain == subdomain
    layer = np.full(len(owner), -1)
    layer[d.node[here]] = d.layer[here]
    layer = layer[:: problem.block_size]
    colours = [*layer_colours(d.overlap), PALE]
    outside = d.overlap + 1
    if problem.mesh is None:
        places = layout(problem)
        ax = axes_for(places.shape[1], ax)
        draw_edges(ax, problem, places)
        draw_dots(ax, places, c=[colours[k] for k in layer])  # -1, outside, is the last one
    else:
        ax = axes_for(problem.mesh.dim(), ax)
        places = linear_elements(problem)[0]
        found = element_layers(problem, layer, outside)
        if problem.mesh.dim() == 2:
            surface = surface_of(problem)
        else:
            ghost(ax, surface_of(problem))
            surface = surface_of(problem, elements=found < outside)
        paint_elements(ax, surface, found[surface.element], colours)
    if legend:
        names = ["owned", *(f"layer {k}" for k in range(1, d.overlap + 1))]
        handles = [Patch(facecolor=c, label=name) for c, name in zip(colours, names)]
        ax.legend(handles=handles, frameon=False, fontsize="small", loc="upper right")
    bare(ax, places)
    return ax


def element_owners(problem: Problem, owner: np.ndarray) -> np.ndarray:
    """The subdomain that owns most unknowns of each element, (m,); -1 where it has none."""
    nodes = np.full(n_nodes(problem), -1)
    nodes[problem.interior] = owner[:: problem.block_size]
    found = nodes[element_nodes(problem)].T  # (k, m)
    votes = (found[:, None] == found[None]).sum(axis=0) * (found >= 0)
    return found[votes.argmax(axis=0), np.arange(found.shape[1])]


def element_layers(problem: Problem, layer: np.ndarray, outside: int) -> np.ndarray:
    """Outermost layer of the unknowns of each element, (m,); `outside` where one is not in it."""
    nodes = np.full(n_nodes(problem), -2)  # no unknown: counts for nothing
    nodes[problem.interior] = np.where(layer < 0, outside, layer)
    found = nodes[element_nodes(problem)].max(axis=1)
    return np.where(found == -2, outside, found)


def layer_colours(overlap: int) -> list[str]:
    """Colours of the owned part and of each layer of overlap, paler outwards."""
    return [LAYERS[min(k, len(LAYERS) - 1)] for k in range(overlap + 1)]


def drawn_owner(problem: Problem, decomposition: Decomposition | np.ndarray) -> np.ndarray:
    """The owner of each unknown, which is checked, with a warning for subdomains in pieces."""
    owner = decomposition
    if isinstance(decomposition, Decomposition):
        owner = decomposition.owner
    owner = np.asarray(owner)
    size = problem.block_size
    by_node = check_owner(owner, len(problem.b), size)
    empty = np.flatnonzero(np.bincount(by_node) == 0)
    if len(empty):
        raise ValueError(
            f"owner: subdomain {empty[0]} is empty ({len(empty)} in all), there is nothing to draw "
            "of it; np.unique(owner, return_inverse=True)[1] numbers the others anew"
        )
    piece = pieces(node_graph(problem.A, size), by_node)
    if piece.max() > by_node.max():
        parts = np.zeros(piece.max() + 1, dtype=np.int64)
        parts[piece] = by_node
        broken = np.flatnonzero(np.bincount(parts) > 1)
        warnings.warn(
            f"owner: {len(broken)} subdomains are in several pieces, the first is {broken[0]}; "
            "ddm.pieces.repair makes a part of each piece",
            stacklevel=3,
        )
    return owner


def _coarse_graph(ax: Any, problem: Problem, owner: np.ndarray, window: Window | None) -> None:
    """A dot at the middle of each subdomain, and lines between those that are coupled."""
    sizes = np.bincount(owner)
    centres = np.stack(
        [np.bincount(owner, weights=x) / sizes for x in problem.coordinates.T], axis=1
    )
    shown = len(centres)
    if window is not None:
        inside = (centres >= window[0::2]) & (centres <= window[1::2])
        shown = max(1, int(inside.all(1).sum()))
    pairs = adjacent(problem.A, owner)
    kind = LineCollection if centres.shape[1] == 2 else Line3DCollection
    lines = kind(list(centres[pairs]), colors=INK, linewidths=min(0.7, 8 / shown**0.5))
    ax.add_collection(lines)
    ax.plot(*centres.T, "o", color=INK, markersize=min(4.0, 40 / shown**0.5))
