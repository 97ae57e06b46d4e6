"""TGCE as a matcher of devices' logs: a graph for each level of the pages' prefixes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphnets.matching.devices import Devices
from graphnets.matching.logs import Logs
from graphnets.matching.matcher import activity, refuse_empty
from graphnets.matching.vectors import check_levels, check_vectors, prefix_sequences
from graphnets.matching.vocabulary import Vocabulary
from graphnets.ragged import Ragged
from graphnets.tgce import TGCE, SequenceGraphs, sequence_graphs


@dataclass(frozen=True, eq=False)
class LevelInputs:
    """What TGCE sees of some devices: for each level a graph and its nodes' vectors."""

    logs: Logs
    graphs: list[SequenceGraphs]
    nodes: list[Tensor]


class TGCEMatcher(nn.Module):
    """`TGCE` on the prefixes of visited pages, each once in a session.

    Random walks are drawn by the tokens' numbers in the vocabulary: with another vocabulary, of
    more logs for one, the same device has other shortcuts, and somewhat other scores.

    Args:
        width: of the tokens' vectors, which are given and stay as they are.
        levels: of prefixes.
        seed: of the random walks.
    """

    transductive = False  # see HGNNMatcher

    def __init__(self, width: int, levels: int, seed: int = 0) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(
                f"width: TGCE takes vectors of tokens, of width at least 1, got {width}"
            )
        self.width, self.levels, self.seed = width, levels, seed
        self.network = TGCE(width, levels)

    def forward(self, logs: Logs, known: Vocabulary, vectors: Tensor | None = None) -> Devices:
        """Encode devices; arguments are those of `prepare`."""
        return self.encode(self.prepare(logs, known, vectors))

    def prepare(self, logs: Logs, known: Vocabulary, vectors: Tensor | None = None) -> LevelInputs:
        """Graphs of these logs.

        Args:
            logs: of devices, none empty.
            known: the vocabulary of the logs' pages.
            vectors: (n_tokens, width) float32, of its tokens.

        Raises:
            ValueError: a device has no visit, or the vocabulary has other levels, or the vectors
                another shape, than the matcher was made for.
        """
        refuse_empty(logs)
        check_levels(known, self.levels)
        check_vectors(vectors, known, self.width)
        assert vectors is not None
        graphs = [
            sequence_graphs(prefix_sequences(logs, known, level), seed=self.seed)
            for level in range(self.levels)
        ]
        device = next(self.parameters()).device
        nodes = [vectors[graph.nodes.values].to(device) for graph in graphs]
        return LevelInputs(logs, [graph.to(device) for graph in graphs], nodes)

    def encode(self, inputs: LevelInputs) -> Devices:
        """What is kept of each device: one vector."""
        n = len(inputs.logs)
        found = self.network(inputs.graphs, inputs.nodes)
        none = Ragged(found.new_zeros(n + 1, dtype=torch.int64), found.new_zeros(0, 0))
        tokens = none.with_values(none.ptr[:0])
        return Devices(found, none, tokens, none.values, *activity(inputs.logs, found.device))

    def score(self, devices: Devices, pairs: Tensor) -> Tensor:
        """Log-odds (k,) of pairs (k, 2) of encoded devices; the same for either order."""
        return self.network.score(devices.vectors, pairs.to(devices.vectors.device))
