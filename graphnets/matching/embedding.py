"""From what is known of a node to its embedding."""

from __future__ import annotations

from torch import Tensor, nn

from graphnets.mggnn import mlp


class NodeEmbedding(nn.Module):
    """The vectors of a node's tokens, as they are at first, and an MLP of its other features.

    An MLP of all of them would have to learn from labelled pairs what the vectors say without any:
    which pages are alike.

    Args:
        features: of a node, besides the vectors.
        vectors: width of the vectors, 0 for none.
        width: of the embedding.
    """

    def __init__(self, features: int, vectors: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.other = mlp(features, width, width)
        self.vectors = nn.Linear(vectors, width, bias=False) if vectors else None
        if self.vectors is not None:
            nn.init.eye_(self.vectors.weight)
            last = self.other[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, features + vectors) -> (n, width)."""
        found = self.other(x[:, : self.features])
        return found if self.vectors is None else found + self.vectors(x[:, self.features :])
