"""TGCE: a graph for each depth of the addresses, with shortcuts by random walks. The baseline.

Huang et al., "Two-tier Graph Contextual Embedding for Cross-device User Matching", CIKM 2021, with
the layers, sizes and settings of the authors' code; written anew from that description. Devices are
encoded once, where that code builds and encodes both graphs for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor, nn

from graphnets.ordered_gru import OrderedGRUConv
from graphnets.ragged import Ragged
from graphnets.stable import stable_ids
from sparsetorch import CSRTensor, Pattern

POSITIONS = 256  # first occurrences are counted modulo this


@dataclass(frozen=True, eq=False)
class SequenceGraphs:
    """Graphs of sequences of tokens, for several members; edges stay within a member.

    Attributes:
        nodes: for each member the distinct tokens of its sequence.
        neighbours: for each node what came before each of its occurrences, in time, and the node
            itself once an occurrence.
        shortcuts: (n, n) pattern; entry (i, j) says that i may attend to j: neighbours, and starts
            of random walks that came by.
        first: (n,) int64, the number of each node's first occurrence in its sequence.
    """

    nodes: Ragged
    neighbours: Ragged
    shortcuts: Pattern
    first: Tensor

    def to(self, device: torch.device | str) -> Self:
        """These graphs on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def sequence_graphs(
    sequences: Ragged, walks: int = 2, depth: int = 10, seed: int = 0
) -> SequenceGraphs:
    """Graphs of each member's sequence of tokens, in time.

    Args:
        sequences: for each member the tokens, int64 from 0.
        walks, depth: random walks from each node and their steps: a shortcut leads from the start
            of a walk to each node that it comes by.
        seed: of the walks, which for the same sequence are the same alone and among others.
    """
    width = int(sequences.values.max()) + 1 if len(sequences.values) else 1
    keys, node = (sequences.row * width + sequences.values).unique(return_inverse=True)
    n = len(keys)
    nodes = Ragged.from_rows(keys // width, keys % width, len(sequences))
    place = torch.arange(len(node)) - sequences.ptr[sequences.row]
    first = torch.full((n,), len(node) + 1).scatter_reduce(0, node, place, "amin")
    follows = sequences.row.diff() == 0
    source, target = node[:-1][follows], node[1:][follows]
    when = torch.arange(1, len(node) + 1)[: len(follows)][follows] if len(node) else target
    # An occurrence reads what came before it, then itself.
    edges_to = torch.cat([target, node])
    edges_from = torch.cat([source, node])
    order = torch.cat([2 * when, 2 * torch.arange(len(node)) + 1]).argsort()
    order = order[edges_to[order].argsort(stable=True)]
    neighbours = Ragged.from_rows(edges_to[order], edges_from[order], n)
    reached, start = _walks(source, target, keys % width, walks, depth, seed)
    entries = (torch.cat([edges_to, reached]) * max(n, 1) + torch.cat([edges_from, start])).unique()
    rows, cols = entries // max(n, 1), entries % max(n, 1)
    shortcuts = Pattern(Ragged.from_rows(rows, cols, n).ptr, cols, (n, n))
    return SequenceGraphs(nodes, neighbours, shortcuts, first)


def _walks(
    source: Tensor, target: Tensor, tokens: Tensor, walks: int, depth: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Nodes that random walks along the edges come by, and where these walks started."""
    n = len(tokens)
    order = source.argsort(stable=True)
    ways = Ragged.from_rows(source[order], target[order], n)
    start = at = torch.arange(n).repeat(walks)
    walk = torch.arange(walks).repeat_interleave(n)
    reached, starts = [at[:0]], [at[:0]]
    for step in range(depth):
        going = ways.lengths[at] > 0
        start, at, walk = start[going], at[going], walk[going]
        # Drawn from what the node is, not from a stream that all nodes of a batch share.
        who = (tokens[start], walk, torch.full_like(walk, seed * depth + step))
        drawn = torch.from_numpy(stable_ids(*(column.numpy() for column in who)))
        at = ways.values[ways.ptr[at] + drawn % ways.lengths[at]]
        reached.append(at)
        starts.append(start)
    return torch.cat(reached), torch.cat(starts)


class TGCELayer(nn.Module):
    """Both tiers and the readout for one depth of addresses: a vector for each member.

    Tier 1: h = relu(W_self y + b + W_neigh GRU(y of the neighbours)), y = BatchNorm(x). Tier 2:
    h_i <- relu(sum_j a_ij z_j) with z = W h and a_ij the softmax over the shortcuts (i, j) of
    leaky_relu(t . [z_i, p_i] + s . [z_j, p_j]), slope 0.2, p sinusoids of where a node occurred
    first, modulo 256. Readout: attention pooling of [x, h], then a linear layer.
    """

    positions: Tensor

    def __init__(self, width: int, positions: int = 8) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.read = OrderedGRUConv(width, width)
        self.own = nn.Linear(width, width)
        self.near = nn.Linear(width, width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.target = nn.Linear(width + positions, 1, bias=False)
        self.source = nn.Linear(width + positions, 1, bias=False)
        self.gate = nn.Linear(2 * width, 1)
        self.out = nn.Linear(2 * width, width)
        self.register_buffer("positions", sinusoids(POSITIONS, positions), persistent=False)

    def forward(self, graphs: SequenceGraphs, x: Tensor) -> Tensor:
        """Nodes x (n, width) -> members (k, width); zeros for a member without nodes."""
        h = self.norm(x)
        h = torch.relu(self.own(h) + self.near(self.read(graphs.neighbours, h)))
        h = torch.relu(self._attend(graphs, h))
        return self.out(attention_pool(graphs.nodes, torch.cat([x, h], 1), self.gate))

    def _attend(self, graphs: SequenceGraphs, h: Tensor) -> Tensor:
        z = self.project(h)
        placed = torch.cat([z, self.positions[graphs.first % POSITIONS].to(z.dtype)], 1)
        pattern = graphs.shortcuts
        scores = (
            self.target(placed)[pattern.row.long(), 0] + self.source(placed)[pattern.col.long(), 0]
        )
        return CSRTensor(pattern, nn.functional.leaky_relu(scores, 0.2)).softmax(-1).matmul(z)


def attention_pool(rows: Ragged, x: Tensor, gate: nn.Module) -> Tensor:
    """Means of the rows of each member, weighed by the softmax of gate(x); zeros without rows."""
    n, m = len(rows), len(x)
    pattern = Pattern(rows.ptr, torch.arange(m, device=x.device), (n, m))
    scores = gate(x)[:, 0].to(x.dtype)  # autocast may differ
    return CSRTensor(pattern, scores).softmax(-1).matmul(x)


def sinusoids(count: int, width: int) -> Tensor:
    """Positions 0 to count - 1 by sines and cosines, (count, width), as in Vaswani et al. 2017."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1).float()


class TGCE(nn.Module):
    """Vectors of members by depth of their addresses, and scores of pairs from their products.

    A score is MLP of BatchNorm(a) * BatchNorm(b), the depths' products side by side.

    Args:
        width: of the tokens' vectors, and of the members' at each depth.
        levels: depths.
        dropout: of the MLP.
    """

    def __init__(self, width: int = 64, levels: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TGCELayer(width) for _ in range(levels))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(levels))
        self.head = nn.Sequential(
            nn.Linear(levels * width, 256), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(256, 64), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, graphs: Sequence[SequenceGraphs], xs: Sequence[Tensor]) -> Tensor:
        """Graphs and nodes' vectors (n, width) of each depth -> members (k, levels width)."""
        if not len(graphs) == len(xs) == len(self.layers):
            raise ValueError(
                f"graphs: expected {len(self.layers)} depths, got {len(graphs)} with {len(xs)} "
                "sets of vectors"
            )
        found = [
            norm(layer(graph, x))
            for layer, norm, graph, x in zip(self.layers, self.norms, graphs, xs)
        ]
        return torch.cat(found, 1)

    def score(self, members: Tensor, pairs: Tensor) -> Tensor:
        """Log-odds (k,) of pairs (k, 2) of members; the same for either order."""
        return self.head(members[pairs[:, 0]] * members[pairs[:, 1]])[:, 0]
