"""Two-level graphs of devices' logs: pages and the steps between them, and chunks of time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from graphnets.assignment import Assignment, every_k
from graphnets.matching.logs import Logs
from graphnets.ragged import Ragged
from graphnets.two_level import TwoLevelGraph
from sparsetorch import Pattern


@dataclass(frozen=True, eq=False)
class DeviceGraphs:
    """The graphs of several devices as one graph without edges between devices.

    Attributes:
        graph: fine nodes are the distinct pages of each device; entry (i, j) of `fine` is a step
            from j to i, and its edge feature says when it was first taken: the number of the visit.
            A page after itself, such as a reload, makes no edge.
            Coarse nodes are chunks of the log, tied to the pages visited in them; the feature of
            such a tie is the number of visits. There are no edges between chunks.
        nodes: for each device the pages that its nodes stand for.
        visits: the numbers of all visits, for each device: its node at each visit, in time.
    """

    graph: TwoLevelGraph
    nodes: Ragged
    visits: Ragged

    def to(self, device: torch.device | str) -> Self:
        """These graphs on a device."""
        return replace(
            self,
            graph=self.graph.to(device),
            nodes=self.nodes.to(device),
            visits=self.visits.to(device),
        )


def device_graphs(logs: Logs, assignment: Assignment | None = None) -> DeviceGraphs:
    """The two-level graphs of all devices of these logs.

    Taghibakhshi et al., DaWaK 2023 (arXiv:2304.03215), section 3: a fine node for each distinct
    page, a directed edge between pages visited one after the other, a coarse node for every K
    visits (K = 6 unless another `assignment` is given), tied to the pages visited in it.
    """
    page = logs.page
    pages, n_devices = max(len(logs.pages), 1), len(page)
    found, node = (page.row * pages + page.values).unique(return_inverse=True)
    nodes = Ragged.from_rows(found // pages, found % pages, n_devices)
    chunk, n_chunks = (assignment or every_k(6))(page, logs.time)
    cross, together = _entries(node, chunk, (len(found), n_chunks))
    steps, first = _steps(node, page.row, len(found))
    empty = Pattern(
        torch.zeros(n_chunks + 1, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
        (n_chunks, n_chunks),
    )
    graph = TwoLevelGraph.of_patterns(
        steps, empty, cross, fine_edges=first[:, None], cross_edges=together[:, None]
    )
    return DeviceGraphs(graph, nodes, Ragged(page.ptr, node))


def _entries(row: Tensor, col: Tensor, shape: tuple[int, int]) -> tuple[Pattern, Tensor]:
    """The pattern of index pairs, and how often each comes, (nnz,) float."""
    keys, counts = (row * max(shape[1], 1) + col).unique(return_counts=True)
    rows, cols = keys // max(shape[1], 1), keys % max(shape[1], 1)
    crow = Ragged.from_rows(rows, cols, shape[0]).ptr
    return Pattern(crow, cols, shape), counts.float()


def _steps(node: Tensor, device: Tensor, n: int) -> tuple[Pattern, Tensor]:
    """Distinct steps between pages, (n, n), and the number of the visit that first made each."""
    same = (device.diff() == 0) & (node.diff() != 0)
    source, target = node[:-1][same], node[1:][same]
    keys, which = (target * max(n, 1) + source).unique(return_inverse=True)
    first = torch.full((len(keys),), len(node), dtype=torch.int64)
    visit = torch.arange(1, len(node))[same] if len(node) else which
    first.scatter_reduce_(0, which, visit, "amin")
    rows, cols = keys // max(n, 1), keys % max(n, 1)
    return Pattern(Ragged.from_rows(rows, cols, n).ptr, cols, (n, n)), first.double()
