"""The matcher: from devices' logs to the log-odds that two of them are one person's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from graphnets.assignment import Assignment, every_k
from graphnets.cross_attention import CrossAttention
from graphnets.hgnn import HGNN
from graphnets.matching.devices import Devices
from graphnets.matching.embedding import NodeEmbedding
from graphnets.matching.evidence import TokenWeights
from graphnets.matching.graphs import DeviceGraphs, device_graphs
from graphnets.matching.heads import Pooled, SharedTokens
from graphnets.matching.logs import HOUR, Logs
from graphnets.matching.tokens import DeviceTokens, device_tokens, node_features
from graphnets.matching.vectors import check_levels, check_vectors, page_vectors
from graphnets.matching.vocabulary import Vocabulary, n_kinds
from graphnets.ragged import Ragged
from graphnets.tgce import attention_pool

HEADS = ("shared", "cross", "pooled")


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a matcher sees of some devices; nothing in it is learned.

    Attributes:
        logs: of these devices.
        graphs: of the logs.
        tokens: that they share with others; None for a matcher without a "shared" head.
        nodes: (n_nodes, f) features.
    """

    logs: Logs
    graphs: DeviceGraphs
    tokens: DeviceTokens | None
    nodes: Tensor

    def to(self, device: torch.device | str) -> Self:
        """These inputs on a device, but for the logs themselves."""
        tokens = None if self.tokens is None else self.tokens.to(device)
        graphs, nodes = self.graphs.to(device), self.nodes.to(device)
        return replace(self, graphs=graphs, tokens=tokens, nodes=nodes)


class HGNNMatcher(nn.Module):
    """HGNN with heads that compare devices; the score is the sum of the heads' log-odds.

    Heads: "cross" is the paper's cross-attention between all pages of both devices, which does best
    together with "pooled", its variant without, one vector a device; "shared" is cross-attention
    restricted to what both devices have, tokens of their pages' addresses and titles, with learned
    weights.

    Args:
        levels: of the pages' prefixes.
        vectors: width of the tokens' own vectors, 0 for none.
        width: of the nodes' embeddings; 0 leaves out the graph network, and the "shared" head
            weighs tokens by their statistics alone.
        layers: of HGNN.
        heads: names of the heads.
        weights: sparse vectors a device of the "shared" head.
        rounds: of the "shared" head, how often devices' neighbours are taken into account.
        chunk: K, visits a coarse node.
        dropout: of the nodes' embeddings, while training.
    """

    def __init__(
        self,
        levels: int,
        vectors: int = 0,
        width: int = 32,
        layers: int = 1,
        heads: Sequence[str] = ("shared",),
        weights: int = 8,
        rounds: int = 0,
        chunk: int = 6,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        kinds = n_kinds(levels)
        unknown = set(heads) - set(HEADS)
        if unknown or not heads:
            raise ValueError(f"heads: expected some of {HEADS}, got {tuple(heads)}")
        if width == 0 and set(heads) != {"shared"}:
            raise ValueError(f"width: heads {tuple(heads)} need the graph network, got 0")
        self.assignment: Assignment = every_k(chunk)
        self.levels, self.width, self.vectors = levels, width, vectors
        self.rounds = rounds if "shared" in heads else 0
        if width:
            self.embed = NodeEmbedding(7 + kinds, vectors, width)
            self.network = HGNN(width, layers)
            self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict()
        if "shared" in heads:
            self.weigh = TokenWeights(9 + kinds, width, weights)
            self.heads["shared"] = SharedTokens(weights, rounds)
        if "cross" in heads:
            self.heads["cross"] = CrossAttention(width)
        if "pooled" in heads:
            self.gate = nn.Linear(2 * width, 1)
            self.heads["pooled"] = Pooled(2 * width)

    @property
    def transductive(self) -> bool:
        """Whether a pair's score depends on which devices are scored together."""
        return self.rounds > 0

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, logs: Logs, known: Vocabulary, vectors: Tensor | None = None) -> Devices:
        """Encode devices; arguments are those of `prepare`."""
        return self.encode(self.prepare(logs, known, vectors))

    def prepare(self, logs: Logs, known: Vocabulary, vectors: Tensor | None = None) -> Inputs:
        """What the network sees of these logs.

        Args:
            logs: of devices, none empty.
            known: the vocabulary of the logs' pages.
            vectors: (n_tokens, vectors) float32, of the vocabulary's tokens.

        Raises:
            ValueError: a device has no visit, or the vocabulary has other levels, or the vectors
                another shape, than the matcher was made for.
        """
        refuse_empty(logs)
        check_levels(known, self.levels)
        check_vectors(vectors, known, self.vectors)
        graphs = device_graphs(logs, self.assignment)
        shared = "shared" in self.heads
        tokens = device_tokens(logs, graphs, known) if shared else None
        nodes = node_features(logs, graphs, known)
        if vectors is not None:
            nodes = torch.cat([nodes, page_vectors(graphs.nodes.values, known, vectors)], 1)
        return Inputs(logs, graphs, tokens, nodes).to(self.device)

    def encode(self, inputs: Inputs) -> Devices:
        """What is kept of each device."""
        n, nodes = len(inputs.logs), inputs.graphs.nodes
        x = inputs.nodes.new_zeros(len(nodes.values), 0)
        if self.width:
            embedded = self.embed(inputs.nodes)
            x = self.dropout(self.network(inputs.graphs.graph, embedded))
        vectors = x.new_zeros(n, 0)
        if "pooled" in self.heads:
            vectors = attention_pool(nodes, torch.cat([embedded, x], 1), self.gate)
        tokens = Ragged(nodes.ptr.new_zeros(n + 1), nodes.values[:0])
        weights = x.new_zeros(0, 0)
        if inputs.tokens is not None:
            pattern = inputs.tokens.pattern
            tokens = Ragged(pattern.crow.long(), pattern.col.long())
            weights = self.weigh(inputs.tokens, x).values.T
        kept = x if "cross" in self.heads else x[:, :0]
        return Devices(
            vectors, nodes.with_values(kept), tokens, weights, *activity(inputs.logs, x.device)
        )

    def score(self, devices: Devices, pairs: Tensor) -> Tensor:
        """Log-odds (k,) of pairs (k, 2) of encoded devices; the same for either order."""
        pairs = pairs.to(devices.vectors.device)
        total = devices.vectors.new_zeros(len(pairs))
        for name, head in self.heads.items():
            if name == "cross":
                total = total + head(devices.nodes.ptr, devices.nodes.values, pairs)
            else:
                total = total + head(devices, pairs)
        return total


def refuse_empty(logs: Logs) -> None:
    """Raise ValueError if a device has no visit."""
    empty = (logs.page.lengths == 0).nonzero()
    if len(empty):
        raise ValueError(f"logs: device {logs.names[int(empty[0])]!r} has no visit; leave it out")


def activity(logs: Logs, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rhythm, span, visits and kinds, as in `Devices`."""
    row = logs.page.row
    hour = logs.time // HOUR
    counts = torch.bincount(row * 168 + hour % 168, minlength=168 * len(logs)).view(-1, 168)
    rhythm = counts.float().sqrt()
    rhythm = rhythm / rhythm.norm(dim=1, keepdim=True).clamp(min=1e-9)
    ends = torch.stack([logs.page.ptr[:-1], logs.page.ptr[1:] - 1], 1)
    span = logs.time[ends].double() / HOUR
    return (
        rhythm.to(device),
        span.to(device),
        logs.page.lengths.to(device),
        logs.kinds.to(device),
    )
