"""Pictures of interface values: what is added to local matrices on the rings of subdomains."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from torch import Tensor

from ddm.partition import Decomposition
from ddm.plot.canvas import axes_for, bare, ghost, paint_elements
from ddm.plot.geometry import surface_of
from ddm.plot.graph import draw_edges, layout
from ddm.plot.palette import INK, PALE, colour_map
from ddm.plot.subdomains import drawn_owner, element_layers
from ddm.problems import Problem


def ring_values(
    problem: Problem, decomposition: Decomposition, interface: Tensor | np.ndarray, subdomain: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Diagonal and couplings of one subdomain's interface values, relative to A's diagonal.

    Returns:
        The nodes (k,) on its ring; `trace L_pp / trace A_pp` (k,) of their blocks, real parts; the
        pairs (q, 2) of nodes that L couples; and `|L_pq| / sqrt(|A_pp A_qq|)` (q,).

    Raises:
        ValueError: shapes that do not fit, or no such subdomain.
    """
    d, size = decomposition, problem.block_size
    L = np.asarray(interface.detach().cpu() if isinstance(interface, Tensor) else interface)
    if L.shape != (len(d.interface),):
        raise ValueError(
            f"interface: expected shape ({len(d.interface)},), one value for each entry of "
            f"decomposition.interface, got {L.shape}"
        )
    if not 0 <= subdomain < d.n_subdomains:
        raise ValueError(f"subdomain: expected 0 to {d.n_subdomains - 1}, got {subdomain}")
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    here = d.subdomain[row] == subdomain
    row, col, L = d.node[row[here]], d.node[col[here]], L[here]
    diagonal = np.bincount(
        np.arange(d.n) // size, weights=np.real(np.asarray(problem.A.diagonal()))
    )
    p, q = row // size, col // size
    nodes = np.unique(p)
    place = np.searchsorted(nodes, p)
    own = row == col
    trace = np.bincount(place[own], weights=np.real(L[own]), minlength=len(nodes))
    across = p < q
    pairs, which = np.unique(
        np.stack([p[across], q[across]], axis=1).reshape(-1, 2), axis=0, return_inverse=True
    )
    squares = np.bincount(which, weights=abs(L[across]) ** 2, minlength=len(pairs))
    scale = np.sqrt(abs(diagonal[pairs[:, 0]] * diagonal[pairs[:, 1]]))
    return nodes, trace / diagonal[nodes], pairs, np.sqrt(squares) / scale


def plot_interface(
    problem: Problem,
    decomposition: Decomposition,
    interface: Tensor | np.ndarray,
    subdomain: int,
    ax: Any = None,
    *,
    limit: float | None = None,
    colorbar: bool = True,
) -> Any:
    """Draw one subdomain with its interface values: dots on the ring, lines between them.

    A dot's colour is `L_pp / A_pp`: 0 is the Dirichlet condition of RAS; the more negative, the
    nearer to a Neumann condition. Lines show couplings, the wider the larger. Of complex values
    the diagonal's real part is shown, of blocks the quotient of the traces.

    Args:
        problem: in 2D or 3D, or a graph.
        decomposition: of it.
        interface: (len(decomposition.interface),) values.
        subdomain: its number.
        ax: axes; in 3D those of `projection="3d"`.
        limit: the colours go from -limit to limit, so that pictures compare; None: the largest.
        colorbar: whether to add one.

    Raises:
        ValueError: shapes that do not fit, no such subdomain, plane axes in 3D.
    """
    owner, d = drawn_owner(problem, decomposition), decomposition
    nodes, values, pairs, couplings = ring_values(problem, d, interface, subdomain)
    places = layout(problem)
    ax = axes_for(places.shape[1], ax)
    if problem.mesh is None:
        draw_edges(ax, problem, places)
        drawn = places
    else:
        drawn = _subdomain(ax, problem, d, owner, subdomain)
    size = limit or max(float(abs(values).max(initial=0.0)), 1e-12)
    cmap, low, high = colour_map(np.array([-size, size]), True)
    strong = couplings > 1e-6
    kind = LineCollection if places.shape[1] == 2 else Line3DCollection
    widths = 4 * couplings[strong] / max(float(couplings.max(initial=0.0)), size)
    ax.add_collection(kind(list(places[pairs[strong]]), colors=INK, linewidths=widths, zorder=2))
    dots = ax.scatter(
        *places[nodes].T, c=values, cmap=cmap, vmin=low, vmax=high, s=34, edgecolors=INK,
        linewidths=0.5, zorder=3,
        **({"depthshade": False} if places.shape[1] == 3 else {}),
    )  # fmt: skip
    if colorbar:
        plt.colorbar(dots, ax=ax, label="$L_{pp} / A_{pp}$", shrink=0.7, pad=0.02)
    bare(ax, drawn)
    return ax


def _subdomain(
    ax: Any, problem: Problem, d: Decomposition, owner: np.ndarray, subdomain: int
) -> np.ndarray:
    """The elements of an overlapping subdomain, and some of the mesh around it; its corners."""
    here = d.subdomain == subdomain
    layer = np.full(len(owner), -1)
    layer[d.node[here]] = d.layer[here]
    outside = d.overlap + 1
    layers = element_layers(problem, layer[:: problem.block_size], outside)
    surface = surface_of(problem, elements=layers < outside)
    if problem.mesh.dim() == 2:
        ring = (layers[surface.element] > 0).astype(int)
        paint_elements(ax, surface, ring, ["#b9cde2", "#e6edf5"])
        corners = surface.points[np.unique(surface.triangles)]
        low, high = corners.min(axis=0), corners.max(axis=0)
        margin = 0.12 * (high - low).max()
        whole = surface_of(problem, elements=layers == outside)
        paint_elements(ax, whole, np.zeros(len(whole.triangles), int), [PALE]).set_zorder(-1)
        ax.set_xlim(low[0] - margin, high[0] + margin)
        ax.set_ylim(low[1] - margin, high[1] + margin)
        return corners
    ghost(ax, surface, "#1f4e79", 0.12)
    return surface.points[np.unique(surface.triangles)]
